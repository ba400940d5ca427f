/* Python's own frame stacks (3.11+): chunks of 16 KiB and more that each thread state links,
 * obtained from the arena allocator, so they are anonymous mappings that no heap walk explains. */
#include <inttypes.h>

#include "formats/base/num.h"
#include "walker/cpython/cpython.h"

enum { MAX_THREADS = 1 << 20, MAX_CHUNKS = 1 << 16, PAGE = 4096 };

static int claim_chunk(const struct cpython_input *in, struct blockmap *map, uint64_t at,
                       uint64_t size, struct err *err)
{
    uint64_t end = at + round_up(size, PAGE);
    const struct vma *v = vma_at(in->vmas, at);
    if (at & (PAGE - 1) || size < PAGE || size > 1u << 30 || !v || !vma_is_heapish(v) ||
        end > vma_heapish_end(in->vmas, at) || blockmap_overlaps(map, at, end))
        return 0;
    return blockmap_claim_one(map, at, end, CAT_STACKS, 1, "python frame stack", err);
}

static int claim_thread(const struct cpython_input *in, const struct layout *l, uint64_t ts,
                        enum layout_field field, struct blockmap *map, struct err *err)
{
    uint64_t chunk, size, previous;
    if (!layout_has(l, field) || layout_u64(l, in->mem, ts, field, &chunk, NULL) < 0)
        return 0;
    for (int i = 0; chunk && i < MAX_CHUNKS; i++) {
        if (layout_u64(l, in->mem, chunk, LF_chunk_size, &size, NULL) < 0 ||
            layout_u64(l, in->mem, chunk, LF_chunk_previous, &previous, NULL) < 0)
            return 0;
        int rc = claim_chunk(in, map, chunk, size, err);
        if (rc < 0)
            return rc;
        chunk = previous;
    }
    return 0;
}

int framestack_claim(const struct cpython_input *in, const struct cpython *py, struct blockmap *map,
                     struct notes *notes, struct err *err)
{
    (void)notes;
    const struct layout *l = &py->layout;
    if (!layout_has(l, LF_ts_datastack_chunk) || !layout_has(l, LF_chunk_size))
        return 0;
    uint64_t budget = MAX_THREADS; /* bounds damaged lists that loop */
    for (size_t i = 0; i < py->n_interpreters; i++) {
        uint64_t ts = 0;
        if (layout_u64(l, in->mem, py->interpreters[i], LF_interp_threads_head, &ts, NULL) < 0)
            continue;
        for (; ts && budget; budget--) {
            int rc = claim_thread(in, l, ts, LF_ts_datastack_chunk, map, err);
            if (rc == 0)
                rc = claim_thread(in, l, ts, LF_ts_datastack_cached_chunk, map, err);
            if (rc < 0)
                return rc;
            if (layout_u64(l, in->mem, ts, LF_ts_next, &ts, NULL) < 0)
                break;
        }
    }
    return 0;
}
