#include "formats/lines.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/vec.h"

enum { IN_BYTES = 64 * 1024, GUNZIP_WINDOW = 15 + 16 };

static void init(struct lines *l)
{
    memset(l, 0, sizeof *l);
    l->fd = -1;
}

void lines_init_fd(struct lines *l, int fd)
{
    init(l);
    l->fd = fd;
}

void lines_init_memory(struct lines *l, const void *bytes, size_t len)
{
    init(l);
    l->rest = bytes;
    l->rest_len = len;
}

void lines_release(struct lines *l)
{
    if (l->gzip)
        inflateEnd(&l->z);
    free(l->in);
    free(l->text);
    init(l);
}

static ssize_t read_some(struct lines *l, uint8_t *to, size_t cap)
{
    if (l->fd < 0) {
        size_t n = l->rest_len < cap ? l->rest_len : cap;
        if (n)
            memcpy(to, l->rest, n);
        l->rest = n ? l->rest + n : l->rest;
        l->rest_len -= n;
        return (ssize_t)n;
    }
    ssize_t n;
    do
        n = read(l->fd, to, cap);
    while (n < 0 && errno == EINTR);
    return n;
}

/* Bring more of the file to in_at, behind what is left of the last piece. */
static int refill(struct lines *l, struct err *err)
{
    if (l->in_end || l->in_len == IN_BYTES)
        return 0;
    if (l->in_len)
        memmove(l->in, l->in_at, l->in_len);
    l->in_at = l->in;
    ssize_t n = read_some(l, l->in + l->in_len, IN_BYTES - l->in_len);
    if (n < 0)
        return err_os(err, errno, "cannot read");
    l->in_end = n == 0;
    l->in_len += (size_t)n;
    return 0;
}

static bool at_gzip_magic(const struct lines *l)
{
    return l->in_len >= 2 && l->in_at[0] == 0x1f && l->in_at[1] == 0x8b;
}

/* The first two bytes decide. A pipe may give them one by one. */
static int start(struct lines *l, struct err *err)
{
    l->in = malloc(IN_BYTES);
    if (!l->in)
        return err_set(err, ERR_NOMEM, "no memory to read with");
    l->in_at = l->in;
    l->started = true;
    while (l->in_len < 2 && !l->in_end) {
        int rc = refill(l, err);
        if (rc < 0)
            return rc;
    }
    if (!at_gzip_magic(l))
        return 0;
    if (inflateInit2(&l->z, GUNZIP_WINDOW) != Z_OK)
        return err_set(err, ERR_NOMEM, "no memory to decompress with");
    l->gzip = l->member = true;
    return 0;
}

static void stop(struct lines *l, const char *damage)
{
    l->text_end = true;
    l->damage = damage;
}

/* Between two gzip members: another one (gzip files may be concatenated), or the end. */
static void next_member(struct lines *l)
{
    if (l->in_len == 0)
        stop(l, NULL);
    else if (!at_gzip_magic(l))
        stop(l, "there are bytes behind the gzip data");
    else if (inflateReset(&l->z) != Z_OK)
        stop(l, "the gzip data is damaged");
    else
        l->member = true;
}

/* Unpack into to[0..cap). */
static int unpack(struct lines *l, char *to, size_t cap, size_t *got, struct err *err)
{
    l->z.next_in = (Bytef *)l->in_at;
    l->z.avail_in = (uInt)l->in_len;
    l->z.next_out = (Bytef *)to;
    l->z.avail_out = (uInt)cap;
    int rc = inflate(&l->z, Z_NO_FLUSH);
    l->in_at += l->in_len - l->z.avail_in;
    l->in_len = l->z.avail_in;
    *got = cap - l->z.avail_out;
    if (rc == Z_MEM_ERROR)
        return err_set(err, ERR_NOMEM, "no memory to decompress with");
    if (rc == Z_STREAM_END)
        l->member = false;
    else if (rc == Z_BUF_ERROR && l->in_end)
        stop(l, "the gzip data is cut short");
    else if (rc != Z_OK && rc != Z_BUF_ERROR)
        stop(l, "the gzip data is damaged");
    return 0;
}

/* Some bytes of text into to[0..cap); *got is 0 when only the state moved on. */
static int produce(struct lines *l, char *to, size_t cap, size_t *got, struct err *err)
{
    *got = 0;
    int rc = l->started ? 0 : start(l, err);
    if (rc == 0 && l->in_len < 2)
        rc = refill(l, err);
    if (rc < 0)
        return rc;
    if (l->gzip && l->member)
        return unpack(l, to, cap, got, err);
    if (l->gzip && l->in_len < 2 && !l->in_end)
        return 0;
    if (l->gzip) {
        next_member(l);
        return 0;
    }
    *got = l->in_len < cap ? l->in_len : cap;
    memcpy(to, l->in_at, *got);
    l->in_at += *got;
    l->in_len -= *got;
    l->text_end = l->in_end && l->in_len == 0;
    return 0;
}

static int too_long(const struct lines *l, struct err *err)
{
    int code = err_set(err, ERR_FORMAT, "line %llu is longer than %d MiB",
                       (unsigned long long)l->number + 1, LINE_MAX_BYTES >> 20);
    err_remedy(err, "this is no snapshot of heapcensus");
    return code;
}

/* More text behind text_len, with one byte to spare for the NUL. */
static int extend(struct lines *l, struct err *err)
{
    if (l->text_at) {
        memmove(l->text, l->text + l->text_at, l->text_len - l->text_at);
        l->text_len -= l->text_at;
        l->text_at = 0;
    }
    if (l->text_len > LINE_MAX_BYTES)
        return too_long(l, err);
    if (vec_reserve(&l->text, &l->text_cap, l->text_len + IN_BYTES + 1, 1) < 0)
        return err_set(err, ERR_NOMEM, "no memory for a line of %zu bytes", l->text_len);
    size_t got;
    int rc = produce(l, l->text + l->text_len, IN_BYTES, &got, err);
    if (rc == 0)
        l->text_len += got;
    return rc;
}

static void take(struct lines *l, size_t len, bool whole, struct line *ret)
{
    ret->bytes = l->text + l->text_at;
    ret->bytes[len] = '\0';
    ret->len = len;
    ret->whole = whole;
    l->text_at += len + whole;
    l->number++;
}

int lines_next(struct lines *l, struct line *ret, struct err *err)
{
    size_t seen = 0; /* bytes of the line that hold no newline */
    memset(ret, 0, sizeof *ret);
    for (;;) {
        size_t have = l->text_len - l->text_at;
        char *nl = have > seen ? memchr(l->text + l->text_at + seen, '\n', have - seen) : NULL;
        if (nl) {
            take(l, (size_t)(nl - (l->text + l->text_at)), true, ret);
            return 0;
        }
        seen = have;
        if (l->text_end) {
            if (have)
                take(l, have, false, ret);
            return 0;
        }
        int rc = extend(l, err);
        if (rc < 0)
            return rc;
    }
}
