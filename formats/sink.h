/* Where output goes: a stream of bytes, so that no writer needs to know whether it fills a file, a
 * pipe, a gzip stream or memory.
 *
 * A sink's write takes all bytes or fails; after a failure the sink must not be written again.
 * Sinks do not buffer (writers do), except gzip, whose rest comes with sink_gzip_finish.
 */
#ifndef HEAPCENSUS_SINK_H
#define HEAPCENSUS_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "formats/base/err.h"

struct sink {
    int (*write)(struct sink *sink, const void *bytes, size_t len, struct err *err);
};

int sink_write(struct sink *sink, const void *bytes, size_t len, struct err *err) MUST_CHECK;
int sink_puts(struct sink *sink, const char *text, struct err *err) MUST_CHECK;

/* A file descriptor, borrowed. `name` (borrowed) is for error texts. ERR_OS with the errno. */
struct sink_fd {
    struct sink sink;
    int fd;
    const char *name;
};
void sink_fd_init(struct sink_fd *s, int fd, const char *name);

/* A stdio stream, borrowed. The caller flushes it (and must check that). */
struct sink_stdio {
    struct sink sink;
    FILE *file;
    const char *name;
};
void sink_stdio_init(struct sink_stdio *s, FILE *file, const char *name);

/* Growing memory: bytes[0..n). */
struct sink_memory {
    struct sink sink;
    char *bytes;
    size_t n, cap;
};
void sink_memory_init(struct sink_memory *s);
void sink_memory_release(struct sink_memory *s);

/* Compresses into `below` (borrowed). The stream is complete only after sink_gzip_finish; free it
 * in any case. The same input gives the same output: no time and no name is in it. */
int sink_gzip_new(struct sink *below, struct sink **ret, struct err *err) MUST_CHECK;
int sink_gzip_finish(struct sink *gzip, struct err *err) MUST_CHECK;
void sink_gzip_free(struct sink *gzip); /* NULL is fine */

/* An output file by name, all or nothing: bytes go to a temporary name in the same directory (mode
 * 0600) that is renamed by outfile_commit. "-" is stdout; a name that ends in ".gz" is compressed;
 * a pipe, socket or character device is written to as it is.
 *
 *     outfile_open(&f, path, force, err)
 *     ... write to f.sink ...
 *     outfile_commit(&f, err)  or  outfile_abort(&f)
 */
struct outfile {
    struct sink *sink;
    struct sink_fd below;
    struct sink *gzip;
    char *path, *temporary; /* owned; temporary is NULL when the output goes straight to `path` */
    bool force, borrowed;   /* borrowed: stdout, which stays open */
};

/* ERR_USAGE (remedy -f) when `path` exists and `force` is not set. On failure there is nothing to
 * release. */
int outfile_open(struct outfile *f, const char *path, bool force, struct err *err) MUST_CHECK;
/* Complete, sync and rename. Without force a file that came into being meanwhile is left alone and
 * ERR_USAGE is returned. Whatever the result, `f` is released; on failure nothing is left behind.
 */
int outfile_commit(struct outfile *f, struct err *err) MUST_CHECK;
/* Remove what was written and release. Does nothing for a zeroed struct. */
void outfile_abort(struct outfile *f);

#endif
