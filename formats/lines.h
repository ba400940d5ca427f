/* Lines of a file or of memory, plain or gzip (by its first bytes, not by its name).
 *
 * The input is hostile: memory is bounded by LINE_MAX_BYTES however well the file packs. A gzip
 * stream that is cut short or damaged ends the lines like an end of file, and `damage` says why.
 */
#ifndef HEAPCENSUS_LINES_H
#define HEAPCENSUS_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#include "formats/base/err.h"

enum { LINE_MAX_BYTES = 64 * 1024 * 1024 };

struct lines {
    int fd;              /* borrowed; -1: from memory */
    const uint8_t *rest; /* memory not yet taken (borrowed) */
    size_t rest_len;

    uint8_t *in; /* bytes as they are in the file */
    const uint8_t *in_at;
    size_t in_len;
    bool in_end;

    bool started, gzip, member; /* member: inside a gzip member */
    z_stream z;

    char *text; /* the current line, then what follows it */
    size_t text_at, text_len, text_cap;
    bool text_end;

    uint64_t number;    /* of the current line, from 1 */
    const char *damage; /* literal, or NULL */
};

struct line {
    char *
        bytes; /* NUL-terminated, without the newline; valid until the next lines_next. NULL: end */
    size_t len;
    bool whole; /* it ended with a newline */
};

void lines_init_fd(struct lines *l, int fd);
void lines_init_memory(struct lines *l, const void *bytes, size_t len);
void lines_release(struct lines *l);
/* ERR_OS, ERR_NOMEM, or ERR_FORMAT for a line longer than LINE_MAX_BYTES. */
int lines_next(struct lines *l, struct line *ret, struct err *err) MUST_CHECK;

#endif
