/* One pymalloc pool: which of its blocks are used, and which of their bytes are resident. */
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/cpython.h"

enum { PAGE = 4096 };

void pool_header_load(const struct layout *l, const uint8_t *p, struct pool_header *ret)
{
    ret->count = layout_load(l, p, LF_pool_ref_count);
    ret->freeblock = layout_load(l, p, LF_pool_freeblock);
    ret->nextpool = layout_load(l, p, LF_pool_nextpool);
    ret->prevpool = layout_load(l, p, LF_pool_prevpool);
    ret->arenaindex = layout_load(l, p, LF_pool_arenaindex);
    ret->szidx = layout_load(l, p, LF_pool_szidx);
    ret->nextoffset = layout_load(l, p, LF_pool_nextoffset);
    ret->maxnextoffset = layout_load(l, p, LF_pool_maxnextoffset);
}

bool pool_plausible(const struct cpython *py, uint64_t pool, const struct pool_header *h,
                    bool free_too)
{
    uint64_t pool_size = py->traits->pool_size;
    if (h->szidx >= POOL_CLASSES || (h->count == 0 && !free_too))
        return false;
    uint64_t size = (h->szidx + 1) * 16;
    if (h->maxnextoffset != pool_size - size)
        return false;
    if (h->nextoffset < POOL_HEADER_BYTES + size || h->nextoffset > pool_size ||
        (h->nextoffset - POOL_HEADER_BYTES) % size)
        return false;
    if (h->count > (h->nextoffset - POOL_HEADER_BYTES) / size)
        return false;
    uint64_t off = h->freeblock - pool - POOL_HEADER_BYTES;
    return h->freeblock == 0 || (off < pool_size - POOL_HEADER_BYTES && off % size == 0);
}

uint64_t pool_used_map(const uint8_t *bytes, uint64_t pool, uint64_t pool_size,
                       const struct pool_header *h, uint8_t used[POOL_MAX_BLOCKS])
{
    const uint64_t first = pool + POOL_HEADER_BYTES, size = (h->szidx + 1) * 16;
    const uint64_t carved = min_u64(h->nextoffset, pool_size) - POOL_HEADER_BYTES;
    const uint64_t n = carved / size;
    memset(used, 1, n);
    for (uint64_t block = h->freeblock; block;) {
        uint64_t off = block - first; /* wraps for what lies in front */
        if (off >= carved || off % size || !used[off / size])
            break;
        used[off / size] = 0;
        block = load_u64(bytes + POOL_HEADER_BYTES + off); /* the link is the first word */
    }
    return n;
}

static uint64_t count_free(const uint8_t *used, uint64_t n)
{
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += !used[i];
    return sum;
}

size_t pool_read(const struct cpython_input *in, uint64_t pool, uint8_t *buf, uint64_t pool_size)
{
    size_t sum = 0;
    memset(buf, 0, pool_size);
    for (uint64_t off = 0; off < pool_size; off += PAGE)
        sum += mem_read_some(in->mem, pool + off, buf + off, PAGE);
    return sum;
}

/* Present bytes block by block: only for pools with absent pages (never touched, or swapped). */
static void split_resident(const struct cpython_input *in, uint64_t pool, uint64_t size,
                           uint64_t capacity, uint64_t carved, const uint8_t *used,
                           struct pool_sum *ret)
{
    for (uint64_t i = 0; i < capacity; i++) {
        uint64_t at = pool + POOL_HEADER_BYTES + i * size;
        uint64_t resident = residency_bytes(in->res, at, at + size);
        if (i < carved && used[i])
            ret->used_resident += resident;
        else
            ret->free_resident += resident;
    }
}

static void check_freelist(const struct pool_header *h, uint64_t carved, uint64_t free_blocks,
                           struct pool_sum *ret)
{
    uint64_t used = carved - free_blocks;
    ret->freelist_off = used != h->count && (used == h->count + 1 || used + 1 == h->count);
    ret->freelist_bad = used != h->count && !ret->freelist_off;
}

void pool_split(const struct cpython_input *in, const struct cpython *py, uint64_t pool,
                const struct pool_header *h, struct pool_sum *ret)
{
    uint64_t pool_size = py->traits->pool_size, size = (h->szidx + 1) * 16;
    uint64_t capacity = (pool_size - POOL_HEADER_BYTES) / size;
    uint64_t carved = min_u64((h->nextoffset - POOL_HEADER_BYTES) / size, capacity);
    bool full = residency_full(in->res, pool, pool + pool_size);
    memset(ret, 0, sizeof *ret);
    ret->used = h->count;
    ret->free = capacity - h->count;
    ret->used_bytes = ret->used * size;
    ret->free_bytes = ret->free * size;
    /* Where the bytes are at hand anyway the free list is checked against the count; through a slow
     * backend it is only read where the resident part hangs on it. */
    size_t len = 0;
    const uint8_t *bytes = in->mem->ops->direct ? in->mem->ops->direct(in->mem, pool, &len) : NULL;
    uint8_t copy[16384], used[POOL_MAX_BLOCKS];
    if (full && h->freeblock == 0) {
        check_freelist(h, carved, 0, ret);
    } else if (!full || (bytes && len >= pool_size)) {
        if (!bytes || len < pool_size) {
            len = pool_read(in, pool, copy, pool_size);
            bytes = copy;
        }
        pool_used_map(bytes, pool, pool_size, h, used);
        if (len >= pool_size)
            check_freelist(h, carved, count_free(used, carved), ret);
    }
    if (full) {
        ret->used_resident = ret->used_bytes;
        ret->free_resident = ret->free_bytes;
    } else {
        split_resident(in, pool, size, capacity, carved, used, ret);
    }
}

/* The free list is as long as the header says, give or take a block in transit. */
enum verdict { WRONG, UNREAD, RIGHT };

static enum verdict list_verdict(const struct cpython_input *in, const struct cpython *py,
                                 uint64_t pool, const struct pool_header *h)
{
    uint64_t pool_size = py->traits->pool_size;
    uint8_t bytes[16384], used[POOL_MAX_BLOCKS];
    struct pool_sum sum;
    size_t got = pool_read(in, pool, bytes, pool_size);
    uint64_t carved = pool_used_map(bytes, pool, pool_size, h, used);
    uint64_t n = count_free(used, carved);
    check_freelist(h, carved, n, &sum);
    return n && !sum.freelist_bad ? RIGHT : got < pool_size ? UNREAD : WRONG;
}

/* A neighbour's link in the ring of its class: a pool, or the head in usedpools, which has the
 * same two links at the same places. */
static enum verdict link_verdict(const struct cpython_input *in, const struct cpython *py,
                                 uint64_t pool, uint64_t neighbour, enum layout_field field)
{
    uint64_t back;
    if (!vma_writable_at(in->vmas, neighbour))
        return WRONG;
    if (layout_u64(&py->layout, in->mem, neighbour, field, &back, NULL) < 0)
        return UNREAD;
    return back == pool ? RIGHT : WRONG;
}

bool pool_certain(const struct cpython_input *in, const struct cpython *py, uint64_t pool,
                  const struct pool_header *h)
{
    enum { MAX_ARENAS = 1 << 24 };
    uint64_t size = (h->szidx + 1) * 16;
    if (!pool_plausible(py, pool, h, false) || h->arenaindex >= MAX_ARENAS || !h->nextpool ||
        !h->prevpool || (h->nextpool | h->prevpool) & 7 ||
        h->nextoffset < POOL_HEADER_BYTES + 2 * size)
        return false;
    /* Without a free block it is full and on no ring. */
    if (h->freeblock == 0)
        return h->nextoffset > h->maxnextoffset &&
               h->count == (h->nextoffset - POOL_HEADER_BYTES) / size;
    if (h->freeblock - pool >= h->nextoffset)
        return false;
    enum verdict next = link_verdict(in, py, pool, h->nextpool, LF_pool_prevpool);
    enum verdict prev = link_verdict(in, py, pool, h->prevpool, LF_pool_nextpool);
    enum verdict list = list_verdict(in, py, pool, h);
    if (list == RIGHT)
        return true;
    if (list == UNREAD)
        return next != WRONG && prev != WRONG;
    return next == RIGHT && prev == RIGHT;
}
