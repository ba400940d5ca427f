/* Lines of source files, as Python's linecache finds them: a file that is not there, is no regular
 * file, too large, or in an encoding that is not UTF-8, Latin-1 or ASCII has no lines, which is no
 * error. Files are read once and kept; their names must live as long. */
#ifndef HEAPCENSUS_SITE_SOURCE_H
#define HEAPCENSUS_SITE_SOURCE_H

#include <stddef.h>
#include <stdint.h>

#include "formats/site_keys.h"

enum { SITE_SOURCE_ROOTS = 3, SITE_SOURCE_ROOT_MAX = 512 };

struct site_source_file {
    char *text; /* UTF-8; NULL: it has no lines */
    size_t len;
    size_t *lines; /* where each begins */
    size_t n_lines;
};

struct site_source {
    /* What is put before an absolute name, first to last; "" is this machine's own root. */
    char roots[SITE_SOURCE_ROOTS][SITE_SOURCE_ROOT_MAX];
    size_t n_roots;
    char cwd[SITE_SOURCE_ROOT_MAX]; /* of a relative name; "": ours */
    struct site_keys names;         /* of the files, as they were asked for */
    struct site_source_file *files;
    size_t n, cap;
    size_t bytes; /* that are kept */
};

/* With our own root and folder only. */
void site_source_init(struct site_source *s);
void site_source_release(struct site_source *s);
/* Look below `root` before the roots that are there; ignored when it is too long or one too many.
 */
void site_source_add_root(struct site_source *s, const char *root);
/* The stripped line of a file; *len 0 when there is none. Valid until the next call. */
const char *site_source_line(struct site_source *s, const char *file, uint32_t line, size_t *len);

#endif
