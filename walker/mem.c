#include "walker/mem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"

/* Several threads may read a copy at a time: the figures may miss a read then. */
static void count_read(struct mem *mem, uint64_t bytes)
{
    __atomic_store_n(&mem->reads, __atomic_load_n(&mem->reads, __ATOMIC_RELAXED) + 1,
                     __ATOMIC_RELAXED);
    __atomic_store_n(&mem->bytes, __atomic_load_n(&mem->bytes, __ATOMIC_RELAXED) + bytes,
                     __ATOMIC_RELAXED);
}

int mem_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    int rc = mem->ops->readv(mem, spans, n, err);
    uint64_t bytes = 0;
    for (size_t i = 0; rc == 0 && i < n; i++)
        bytes += spans[i].got;
    count_read(mem, bytes);
    return rc;
}

int mem_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    return mem->ops->regions(mem, ret, n, err);
}

void mem_close(struct mem *mem)
{
    if (mem)
        mem->ops->close(mem);
}

/* Millions of small reads go past the lists of spans where the backend has the bytes at hand. */
static bool read_direct(struct mem *mem, uint64_t addr, void *buf, size_t len)
{
    size_t have = 0;
    const uint8_t *p = mem->ops->direct ? mem->ops->direct(mem, addr, &have) : NULL;
    if (!p || have < len)
        return false;
    memcpy(buf, p, len);
    return true;
}

int mem_read(struct mem *mem, uint64_t addr, void *buf, size_t len, struct err *err)
{
    if (read_direct(mem, addr, buf, len))
        return 0;
    struct mem_span span = {addr, buf, len, 0};
    int rc = mem_readv(mem, &span, 1, err);
    if (rc < 0)
        return rc;
    if (span.got < len)
        return err_fault(err, addr + span.got, "cannot read %zu bytes at 0x%" PRIx64, len, addr);
    return 0;
}

size_t mem_read_some(struct mem *mem, uint64_t addr, void *buf, size_t len)
{
    if (read_direct(mem, addr, buf, len))
        return len;
    struct mem_span span = {addr, buf, len, 0};
    return mem_readv(mem, &span, 1, NULL) < 0 ? 0 : span.got;
}

int mem_u64(struct mem *mem, uint64_t addr, uint64_t *ret, struct err *err)
{
    uint64_t v;
    int rc = mem_read(mem, addr, &v, sizeof v, err);
    if (rc == 0)
        *ret = v;
    return rc;
}

int mem_u32(struct mem *mem, uint64_t addr, uint32_t *ret, struct err *err)
{
    uint32_t v;
    int rc = mem_read(mem, addr, &v, sizeof v, err);
    if (rc == 0)
        *ret = v;
    return rc;
}

int mem_cstr(struct mem *mem, uint64_t addr, char *buf, size_t cap, struct err *err)
{
    size_t got = mem_read_some(mem, addr, buf, cap);
    if (got == 0)
        return err_fault(err, addr, "cannot read a string at 0x%" PRIx64, addr);
    if (!memchr(buf, '\0', got))
        return err_set(err, ERR_CORRUPT, "no end of string within %zu bytes at 0x%" PRIx64, cap,
                       addr);
    return 0;
}

int mem_window_init(struct mem_window *w, struct mem *mem, size_t cap, struct err *err)
{
    memset(w, 0, sizeof *w);
    w->mem = mem;
    w->cap = cap;
    if (!mem->ops->direct) {
        w->buf = malloc(cap);
        if (!w->buf)
            return err_set(err, ERR_NOMEM, "no memory for a window of %zu bytes", cap);
    }
    return 0;
}

void mem_window_release(struct mem_window *w)
{
    free(w->buf);
    memset(w, 0, sizeof *w);
}

const uint8_t *mem_window_at(struct mem_window *w, uint64_t addr, size_t need)
{
    uint64_t off = addr - w->start;
    if (addr >= w->start && off <= w->len && w->len - off >= need)
        return w->bytes + off;
    if (w->mem->ops->direct) {
        size_t len = 0;
        const uint8_t *p = w->mem->ops->direct(w->mem, addr, &len);
        if (p && len >= need) {
            w->bytes = p;
            w->start = addr;
            w->len = len;
            return p;
        }
        /* The bytes may straddle two of the backend's pieces: fall through to a copy. */
        if (!w->buf && !(w->buf = malloc(w->cap)))
            return NULL;
    }
    size_t want = w->mem->ops->direct ? need : w->cap;
    w->start = addr;
    w->bytes = w->buf;
    w->len = need <= w->cap ? mem_read_some(w->mem, addr, w->buf, want) : 0;
    return w->len >= need ? w->bytes : NULL;
}
