/* All blocks in use that CPython's own allocators handed out, as cpython_walk counted them: the
 * pools that it remembered, whether an arena or only their headers led to them, and the pages of
 * mimalloc. */
#include "formats/base/num.h"
#include "walker/cpython/objects.h"

enum { DEBUG_FRONT = 16 };

/* The pool's bytes; those that are missing are zeros. */
static const uint8_t *pool_bytes(const struct cpython_input *in, struct mem_window *win,
                                 uint64_t pool, uint64_t pool_size, uint8_t *copy)
{
    const uint8_t *p = mem_window_at(win, pool, pool_size);
    if (p)
        return p;
    pool_read(in, pool, copy, pool_size);
    return copy;
}

/* Stopped inside malloc or free, when one block is on the free list and counted as in use: it is
 * the first there, which is taken next or was put back last. As the pool counts it, so that both
 * agree.
 */
static void take_first(uint64_t pool, const struct pool_header *h, uint64_t n, uint8_t *used)
{
    uint64_t in_use = 0, first = (h->freeblock - pool - POOL_HEADER_BYTES) / ((h->szidx + 1) * 16);
    for (uint64_t i = 0; i < n; i++)
        in_use += used[i];
    if (in_use + 1 == h->count && h->freeblock && first < n)
        used[first] = 1;
}

static int add_pools(const struct cpython_input *in, const struct cpython *py, struct blocks *b,
                     struct mem_window *win, struct err *err)
{
    const uint64_t pool_size = py->traits->pool_size;
    uint8_t copy[16384], used[POOL_MAX_BLOCKS];
    int rc = 0;
    for (size_t i = 0; i < py->n_pools && rc == 0; i++) {
        uint64_t pool = py->pools[i];
        struct pool_header h;
        const uint8_t *bytes = pool_bytes(in, win, pool, pool_size, copy);
        pool_header_load(&py->layout, bytes, &h);
        if (!pool_plausible(py, pool, &h, false)) /* a running target: it was freed since */
            continue;
        uint64_t n = pool_used_map(bytes, pool, pool_size, &h, used);
        take_first(pool, &h, n, used);
        rc = blocks_add_run(b, pool + POOL_HEADER_BYTES, (uint32_t)(h.szidx + 1) * 16, (uint32_t)n,
                            used, err);
    }
    return rc;
}

int cpython_blocks(const struct cpython_input *in, const struct cpython *py, struct blocks *b,
                   struct err *err)
{
    struct mem_window win;
    int rc = mem_window_init(&win, in->mem, MEM_WINDOW_BYTES, err);
    if (rc == 0)
        rc = add_pools(in, py, b, &win, err);
    mem_window_release(&win);
    if (rc == 0)
        rc = mimalloc_blocks(in, py, b, err);
    b->debug_front = cpython_debug_hooks(in, py) ? DEBUG_FRONT : 0;
    return rc;
}
