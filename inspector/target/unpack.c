/* libarchive, format raw, and of its filters only the one that the file's first bytes name: none of
 * its other decoders ever sees these bytes. */
#define _GNU_SOURCE 1 /* O_TMPFILE, mkostemp */
#include "inspector/target/unpack.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "inspector/target/sys.h"

enum {
    PAGE_BYTES = 4096,
    BLOCK_BYTES = 1 << 20,
    HEAD_BLOCK_BYTES = 16 << 10, /* a look at the head need not read more than this at a time */
    MAGIC_BYTES = 6
};

/* No process of x86-64 that we could census is larger, and holes cost a bomb nothing. */
static const uint64_t max_bytes = (uint64_t)1 << 44;
static const uint8_t zeros[PAGE_BYTES];

static const struct codec {
    const char *name;
    uint8_t magic[MAGIC_BYTES];
    size_t len;
    int filter; /* libarchive's code */
} codecs[] = {
    {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, ARCHIVE_FILTER_ZSTD},
    {"lz4", {0x04, 0x22, 0x4d, 0x18}, 4, ARCHIVE_FILTER_LZ4},
    {"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, ARCHIVE_FILTER_XZ},
    {"gzip", {0x1f, 0x8b, 8}, 3, ARCHIVE_FILTER_GZIP},
    {"bzip2", {'B', 'Z', 'h'}, 3, ARCHIVE_FILTER_BZIP2},
};

static const struct codec *find_codec(const uint8_t *head, size_t len)
{
    for (size_t i = 0; i < sizeof codecs / sizeof codecs[0]; i++)
        if (len >= codecs[i].len && memcmp(head, codecs[i].magic, codecs[i].len) == 0)
            return &codecs[i];
    return NULL;
}

const char *unpack_name(const uint8_t *head, size_t len)
{
    const struct codec *codec = find_codec(head, len);
    return codec ? codec->name : NULL;
}

/* ---- the compressed side ---- */

struct stream {
    struct archive *a;
    const struct codec *codec;
    const volatile sig_atomic_t *interrupted;
    int fd, os_errno; /* os_errno: why the compressed file could not be read */
    uint64_t at;
    uint8_t *buf;
    size_t cap;
};

static bool is_interrupted(const volatile sig_atomic_t *flag)
{
    return flag && *flag;
}

/* By pread, so that the caller's file position does not matter. Looks at the flag as well: a stream
 * may be long and yield nothing. */
static la_ssize_t feed(struct archive *a, void *data, const void **ret)
{
    struct stream *s = data;
    ssize_t n = -1;
    errno = EINTR;
    while (n < 0 && errno == EINTR && !is_interrupted(s->interrupted))
        n = sys_calls.pread(s->fd, s->buf, s->cap, (off_t)s->at);
    if (n < 0) {
        s->os_errno = errno;
        archive_set_error(a, errno, "cannot read");
        return ARCHIVE_FATAL;
    }
    s->at += (uint64_t)n;
    *ret = s->buf;
    return n;
}

/* Why libarchive gave up. `what` is the text for bytes that make no sense. */
static int stream_error(const struct stream *s, const char *what, struct err *err)
{
    const char *why = s->a ? archive_error_string(s->a) : NULL;
    if (is_interrupted(s->interrupted))
        return err_set(err, ERR_INTERRUPTED, "interrupted while decompressing");
    if (s->os_errno)
        return err_os(err, s->os_errno, "cannot read the compressed file");
    if (!s->a || archive_errno(s->a) == ENOMEM)
        return err_set(err, ERR_NOMEM, "no memory to decompress");
    err_set(err, ERR_FORMAT, "%s (%s)%s%s", what, s->codec->name, why ? ": " : "", why ? why : "");
    err_remedy(err, "see whether %s itself can decompress it, and give the result", s->codec->name);
    return ERR_FORMAT;
}

static void stream_release(struct stream *s)
{
    if (s->a)
        archive_read_free(s->a);
    free(s->buf);
    memset(s, 0, sizeof *s);
}

static int find_stream_codec(struct stream *s, struct err *err)
{
    uint8_t head[MAGIC_BYTES];
    ssize_t n = sys_calls.pread(s->fd, head, sizeof head, 0);
    if (n < 0)
        return err_os(err, errno, "cannot read the compressed file");
    s->codec = find_codec(head, (size_t)n);
    if (!s->codec)
        return err_set(err, ERR_FORMAT, "not compressed by zstd, lz4, xz, gzip or bzip2");
    return 0;
}

/* Exactly this filter, once: those that libarchive finds by itself it applies again to what they
 * brought forth, and nested streams are how a small file becomes a huge one. It answers
 * ARCHIVE_WARN where it lacks the library and would run a program instead. */
static int add_filter(struct stream *s, struct err *err)
{
    int rc = archive_read_append_filter(s->a, s->codec->filter);
    if (rc == ARCHIVE_OK)
        rc = archive_read_set_format(s->a, ARCHIVE_FORMAT_RAW);
    if (rc == ARCHIVE_OK)
        return 0;
    if (archive_errno(s->a) == ENOMEM)
        return stream_error(s, "", err);
    err_set(err, ERR_UNSUPPORTED, "this machine's libarchive was built without %s", s->codec->name);
    err_remedy(err, "decompress the file by hand and give the result");
    return ERR_UNSUPPORTED;
}

/* On failure the stream is to be released all the same. */
static int stream_open(struct stream *s, int fd, size_t block,
                       const volatile sig_atomic_t *interrupted, struct err *err)
{
    struct archive_entry *entry;
    memset(s, 0, sizeof *s);
    s->fd = fd;
    s->cap = block;
    s->interrupted = interrupted;
    int rc = find_stream_codec(s, err);
    if (rc < 0)
        return rc;
    s->buf = malloc(block);
    s->a = s->buf ? archive_read_new() : NULL;
    if (!s->a)
        return stream_error(s, "", err);
    rc = add_filter(s, err);
    if (rc < 0)
        return rc;
    if (archive_read_open(s->a, s, NULL, feed, NULL) < ARCHIVE_WARN ||
        archive_read_next_header(s->a, &entry) != ARCHIVE_OK)
        return stream_error(s, "not one byte can be decompressed", err);
    return 0;
}

/* The next bytes that came out: 1, 0 at the end, -1 where the stream is cut or damaged. They stay
 * valid until the next call. */
static int stream_next(struct stream *s, const uint8_t **bytes, size_t *len)
{
    const void *p = NULL;
    la_int64_t offset;
    int rc = archive_read_data_block(s->a, &p, len, &offset);
    *bytes = p;
    if (rc == ARCHIVE_EOF)
        return 0;
    return rc < ARCHIVE_WARN || !p ? -1 : 1;
}

size_t unpack_head(int fd, uint8_t *buf, size_t cap)
{
    struct stream s;
    const uint8_t *bytes;
    size_t n = 0, len;
    if (stream_open(&s, fd, HEAD_BLOCK_BYTES, NULL, NULL) == 0)
        while (n < cap && stream_next(&s, &bytes, &len) > 0) {
            len = min_u64(len, cap - n);
            memcpy(buf + n, bytes, len);
            n += len;
        }
    stream_release(&s);
    return n;
}

/* ---- the file it goes to ---- */

struct out {
    int fd;
    const char *dir;
    uint8_t *buf; /* the BLOCK_BYTES from `at` on, `n` of which are there */
    size_t n;
    uint64_t at;
};

static int write_error(const struct out *out, int why, struct err *err)
{
    err_os(err, why, "cannot write the decompressed core in %s", out->dir);
    if (why == ENOSPC || why == EDQUOT)
        err_remedy(err, "set TMPDIR to a folder with more room, or make room in %s", out->dir);
    else if (why == EFBIG)
        err_remedy(err,
                   "raise the limit of file sizes (ulimit -f), or set TMPDIR to a folder on "
                   "a file system that takes larger files than %s",
                   out->dir);
    else
        err_remedy(err, "set TMPDIR to a folder that can be written to");
    return ERR_OS;
}

/* A name for a moment only: where the file system has no nameless files. */
static int open_named(const char *dir)
{
    char *name;
    if (asprintf(&name, "%s/heapcensus-core-XXXXXX", dir) < 0) {
        errno = ENOMEM;
        return -1;
    }
    int fd = mkostemp(name, O_CLOEXEC);
    if (fd >= 0)
        unlink(name);
    free(name);
    return fd;
}

static int out_open(struct out *out, struct err *err)
{
    const char *dir = getenv("TMPDIR");
    memset(out, 0, sizeof *out);
    out->dir = dir && *dir ? dir : "/var/tmp";
    out->fd = open(out->dir, O_TMPFILE | O_RDWR | O_EXCL | O_CLOEXEC, 0600);
    if (out->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        out->fd = open_named(out->dir);
    if (out->fd < 0)
        return write_error(out, errno, err);
    out->buf = malloc(BLOCK_BYTES);
    return out->buf ? 0 : err_set(err, ERR_NOMEM, "no memory to decompress");
}

static void out_release(struct out *out)
{
    free(out->buf);
    if (out->fd >= 0)
        close(out->fd);
}

static int write_all(const struct out *out, size_t from, size_t to, struct err *err)
{
    while (from < to) {
        ssize_t n = pwrite(out->fd, out->buf + from, to - from, (off_t)(out->at + from));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return write_error(out, n < 0 ? errno : EIO, err);
        from += (size_t)n;
    }
    return 0;
}

static bool page_is_zero(const struct out *out, size_t from)
{
    return memcmp(out->buf + from, zeros, min_u64(PAGE_BYTES, out->n - from)) == 0;
}

/* Writes the runs of pages that are not all zeros; the rest become holes. */
static int out_flush(struct out *out, struct err *err)
{
    int rc = 0;
    for (size_t from = 0; from < out->n && rc == 0;) {
        size_t to = from;
        while (to < out->n && !page_is_zero(out, to))
            to = min_u64(to + PAGE_BYTES, out->n);
        rc = write_all(out, from, to, err);
        from = to + PAGE_BYTES; /* that one is zero, or it is the end */
    }
    out->at += out->n;
    out->n = 0;
    return rc;
}

static int out_add(struct out *out, const uint8_t *bytes, size_t len, struct err *err)
{
    if (len > max_bytes - out->at - out->n)
        return err_set(err, ERR_FORMAT, "decompresses to more than %" PRIu64 " TiB",
                       max_bytes >> 40);
    int rc = 0;
    while (len && rc == 0) {
        size_t part = min_u64(len, BLOCK_BYTES - out->n);
        memcpy(out->buf + out->n, bytes, part);
        out->n += part;
        bytes += part;
        len -= part;
        if (out->n == BLOCK_BYTES)
            rc = out_flush(out, err);
    }
    return rc;
}

static int out_finish(struct out *out, struct err *err)
{
    int rc = out_flush(out, err);
    /* Zeros at the end were not written. */
    if (rc == 0 && ftruncate(out->fd, (off_t)out->at) < 0)
        rc = write_error(out, errno, err);
    return rc;
}

static int copy_out(struct stream *s, struct out *out, int *cut, struct err *err)
{
    const uint8_t *bytes;
    size_t len;
    int more, rc = 0;
    while (rc == 0 && (more = stream_next(s, &bytes, &len)) > 0) {
        rc = out_add(out, bytes, len, err);
        if (rc == 0 && is_interrupted(s->interrupted))
            rc = stream_error(s, "", err);
    }
    if (rc < 0)
        return rc;
    *cut = more < 0;
    if (out->at + out->n == 0 || (*cut && (is_interrupted(s->interrupted) || s->os_errno)))
        return stream_error(s, "not one byte can be decompressed", err);
    return out_finish(out, err);
}

int unpack(int fd, const volatile sig_atomic_t *interrupted, struct unpacked *ret, struct err *err)
{
    struct stream s;
    struct out out = {.fd = -1};
    int cut = 0;
    int rc = stream_open(&s, fd, BLOCK_BYTES, interrupted, err);
    if (rc == 0)
        rc = out_open(&out, err);
    if (rc == 0)
        rc = copy_out(&s, &out, &cut, err);
    if (rc == 0) {
        *ret = (struct unpacked){out.fd, out.at, cut};
        out.fd = -1;
    }
    out_release(&out);
    stream_release(&s);
    return rc;
}
