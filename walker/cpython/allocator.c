/* Which allocator serves Python objects. What the heap holds decides between pymalloc, mimalloc and
 * malloc; the debug hooks are told by the runtime's flag (3.12+), else by the marks they leave. */
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/cpython.h"

enum {
    SAMPLE_POOLS = 64,
    DEBUG_ID = 8 /* byte of the block where the hooks put the domain: 'r', 'm' or 'o' */
};

bool debug_block(const uint8_t *p)
{
    static const uint8_t fd[7] = {0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd};
    return (p[DEBUG_ID] == 'o' || p[DEBUG_ID] == 'm' || p[DEBUG_ID] == 'r') &&
           memcmp(p + DEBUG_ID + 1, fd, sizeof fd) == 0;
}

/* What the hooks leave of a freed block: all bytes, but pymalloc's link in the first word. */
static bool debug_dead(const uint8_t *p)
{
    static const uint8_t dd[8] = {0xdd, 0xdd, 0xdd, 0xdd, 0xdd, 0xdd, 0xdd, 0xdd};
    return memcmp(p + DEBUG_ID, dd, sizeof dd) == 0;
}

/* Most of the first blocks of some used pools carry the hooks' header, or what freeing makes of it.
 */
static bool blocks_have_marks(const struct cpython_input *in, const struct cpython *py)
{
    unsigned seen = 0, marked = 0;
    for (size_t i = 0; i < py->n_pools && seen < SAMPLE_POOLS; i++) {
        uint8_t bytes[POOL_HEADER_BYTES + 16];
        struct pool_header h;
        if (mem_read_some(in->mem, py->pools[i], bytes, sizeof bytes) < sizeof bytes)
            continue;
        pool_header_load(&py->layout, bytes, &h);
        if (!pool_plausible(py, py->pools[i], &h, false) || h.szidx == 0)
            continue;
        seen++;
        marked += debug_block(bytes + POOL_HEADER_BYTES) || debug_dead(bytes + POOL_HEADER_BYTES);
    }
    return seen && marked * 2 > seen;
}

/* 3.8-3.11: the hooks' table is three entries of 48 bytes {api id, allocator}, ids 'r', 'm', 'o';
 * the object domain's context points to the third while they are on. */
static bool hooks_in_data(const struct cpython_input *in, const struct cpython_module *m)
{
    for (size_t r = 0; m && r < m->n_data; r++) {
        for (uint64_t page = round_down(m->data[r].start, 4096); page < m->data[r].end;
             page += 4096) {
            uint8_t b[4096 + 144];
            size_t got = mem_read_some(in->mem, page, b, sizeof b);
            for (size_t off = 0; off + 144 <= got && off < 4096; off += 8) {
                if (load_u64(b + off) != 'r' || load_u64(b + off + 48) != 'm' ||
                    load_u64(b + off + 96) != 'o' ||
                    !cpython_executable_at(in->vmas, load_u64(b + off + 96 + 16)))
                    continue;
                /* Somebody must use it: a context pointer elsewhere in the data. */
                uint64_t want = page + off + 96;
                for (uint64_t at = page > 65536 ? page - 65536 : 0; at < page + 65536; at += 4096) {
                    uint64_t words[512];
                    size_t n = mem_read_some(in->mem, at, words, sizeof words) / 8;
                    for (size_t k = 0; k < n; k++)
                        if (words[k] == want)
                            return true;
                }
            }
        }
    }
    return false;
}

bool cpython_debug_hooks(const struct cpython_input *in, const struct cpython *py)
{
    uint64_t v = 0;
    if (py->runtime && layout_has(&py->layout, LF_rt_alloc_is_debug_enabled) &&
        layout_u64(&py->layout, in->mem, py->runtime, LF_rt_alloc_is_debug_enabled, &v, NULL) == 0)
        return v != 0;
    if (py->n_pools)
        return py->sampled_pools ? py->marked_pools * 2 > py->sampled_pools
                                 : blocks_have_marks(in, py);
    return hooks_in_data(in, py->module);
}

/* Some table of pools has one, wherever the pool itself is. */
static bool pymalloc_known(const struct cpython *py)
{
    for (size_t i = 0; i < py->n_heaps; i++)
        if (!py->heaps[i].empty)
            return true;
    return false;
}

const char *cpython_allocator(const struct cpython_input *in, const struct cpython *py,
                              const struct snapshot *snap)
{
    bool debug = cpython_debug_hooks(in, py);
    if (snap->pymalloc.blocks_used)
        return debug ? "pymalloc_debug" : "pymalloc";
    if (py->free_threaded)
        return debug ? "mimalloc_debug" : "mimalloc";
    if (in->partial && pymalloc_known(py))
        return debug ? "pymalloc_debug" : "pymalloc";
    if (py->unread || (in->partial && py->lost_heaps))
        return "unknown";
    uint64_t obj = 0, raw = 0;
    enum layout_field o = debug ? LF_rt_alloc_debug_obj_malloc : LF_rt_alloc_obj_malloc;
    enum layout_field r = debug ? LF_rt_alloc_debug_raw_malloc : LF_rt_alloc_raw_malloc;
    if (layout_has(&py->layout, LF_tm_alloc_obj_malloc) && cpython_tracing(in, py)) {
        o = LF_tm_alloc_obj_malloc;
        r = LF_tm_alloc_raw_malloc;
    }
    if (py->runtime && layout_has(&py->layout, o) && layout_has(&py->layout, r)) {
        uint64_t base = py->runtime;
        if (o == LF_tm_alloc_obj_malloc)
            base += layout_offset(&py->layout, LF_rt_tracemalloc);
        if (layout_u64(&py->layout, in->mem, base, o, &obj, NULL) == 0 &&
            layout_u64(&py->layout, in->mem, base, r, &raw, NULL) == 0 && obj != raw)
            return debug ? "mimalloc_debug" : "mimalloc";
    }
    return debug ? "malloc_debug" : "malloc";
}
