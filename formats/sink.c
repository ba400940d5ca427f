#include "formats/sink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "formats/base/vec.h"

int sink_write(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    return len ? sink->write(sink, bytes, len, err) : 0;
}

int sink_puts(struct sink *sink, const char *text, struct err *err)
{
    return sink_write(sink, text, strlen(text), err);
}

static int fd_write(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    struct sink_fd *s = (struct sink_fd *)sink;
    const char *p = bytes;
    while (len) {
        ssize_t n = write(s->fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os(err, errno, "cannot write %s", s->name);
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

void sink_fd_init(struct sink_fd *s, int fd, const char *name)
{
    s->sink.write = fd_write;
    s->fd = fd;
    s->name = name;
}

static int stdio_write(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    struct sink_stdio *s = (struct sink_stdio *)sink;
    if (fwrite(bytes, 1, len, s->file) != len)
        return err_os(err, errno, "cannot write %s", s->name);
    return 0;
}

void sink_stdio_init(struct sink_stdio *s, FILE *file, const char *name)
{
    s->sink.write = stdio_write;
    s->file = file;
    s->name = name;
}

static int memory_write(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    struct sink_memory *s = (struct sink_memory *)sink;
    if (len > SIZE_MAX - s->n || vec_reserve(&s->bytes, &s->cap, s->n + len, 1) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu bytes of output", len);
    memcpy(s->bytes + s->n, bytes, len);
    s->n += len;
    return 0;
}

void sink_memory_init(struct sink_memory *s)
{
    memset(s, 0, sizeof *s);
    s->sink.write = memory_write;
}

void sink_memory_release(struct sink_memory *s)
{
    free(s->bytes);
    sink_memory_init(s);
}

/* Level 4 packs snapshots nearly as tightly as 6 in half the time: the target may be waiting. */
enum { GZIP_LEVEL = 4, GZIP_WINDOW = 15 + 16, GZIP_MEMORY = 8, GZIP_BUFFER = 64 * 1024 };

struct sink_gzip {
    struct sink sink;
    struct sink *below;
    z_stream z;
    unsigned char out[GZIP_BUFFER];
};

/* Push the pending input through; with Z_FINISH until the stream's end. */
static int gzip_pump(struct sink_gzip *s, int flush, struct err *err)
{
    int rc;
    do {
        s->z.next_out = s->out;
        s->z.avail_out = sizeof s->out;
        rc = deflate(&s->z, flush);
        if (rc == Z_STREAM_ERROR)
            return err_set(err, ERR_FORMAT, "zlib: %s", s->z.msg ? s->z.msg : "stream error");
        int failed = sink_write(s->below, s->out, sizeof s->out - s->z.avail_out, err);
        if (failed < 0)
            return failed;
    } while (s->z.avail_out == 0);
    return 0;
}

static int gzip_write(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    struct sink_gzip *s = (struct sink_gzip *)sink;
    const unsigned char *p = bytes;
    while (len) {
        uInt part = len > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uInt)len;
        s->z.next_in = (Bytef *)p;
        s->z.avail_in = part;
        int failed = gzip_pump(s, Z_NO_FLUSH, err);
        if (failed < 0)
            return failed;
        p += part;
        len -= part;
    }
    return 0;
}

int sink_gzip_new(struct sink *below, struct sink **ret, struct err *err)
{
    struct sink_gzip *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(err, ERR_NOMEM, "no memory to compress with");
    s->sink.write = gzip_write;
    s->below = below;
    int rc =
        deflateInit2(&s->z, GZIP_LEVEL, Z_DEFLATED, GZIP_WINDOW, GZIP_MEMORY, Z_DEFAULT_STRATEGY);
    if (rc != Z_OK) {
        free(s);
        return err_set(err, ERR_NOMEM, "no memory to compress with");
    }
    *ret = &s->sink;
    return 0;
}

int sink_gzip_finish(struct sink *gzip, struct err *err)
{
    struct sink_gzip *s = (struct sink_gzip *)gzip;
    s->z.avail_in = 0;
    return gzip_pump(s, Z_FINISH, err);
}

void sink_gzip_free(struct sink *gzip)
{
    struct sink_gzip *s = (struct sink_gzip *)gzip;
    if (!s)
        return;
    deflateEnd(&s->z);
    free(s);
}
