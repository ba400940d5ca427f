/* Python's own frame stacks (3.11+): chunks of 16 KiB and more that each thread state links,
 * obtained from the arena allocator, so they are anonymous mappings that no heap walk explains. */
#include <inttypes.h>

#include "formats/base/addrset.h"
#include "formats/base/num.h"
#include "walker/cpython/cpython.h"

enum { MAX_SEEN = 1 << 20, PAGE = 4096 };

struct frame_walk {
    const struct cpython_input *in;
    const struct cpython *py;
    struct blockmap *map;
    struct addrset seen; /* thread states and chunks */
};

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

/* The chunks that hang on one field of a thread state. A chunk belongs to one list only, so meeting
 * one again, in whatever thread, ends the list: damaged ones may loop. */
static int claim_chunks(struct frame_walk *w, uint64_t ts, enum layout_field field, struct err *err)
{
    const struct layout *l = &w->py->layout;
    uint64_t chunk, size, previous;
    bool fresh = true;
    if (!layout_has(l, field) || layout_u64(l, w->in->mem, ts, field, &chunk, NULL) < 0)
        return 0;
    while (chunk && w->seen.n < MAX_SEEN) {
        int rc = addrset_add(&w->seen, chunk, 0, &fresh);
        if (rc < 0)
            return err_set(err, ERR_NOMEM, "no memory for the frame stacks");
        if (!fresh || layout_u64(l, w->in->mem, chunk, LF_chunk_size, &size, NULL) < 0 ||
            layout_u64(l, w->in->mem, chunk, LF_chunk_previous, &previous, NULL) < 0)
            return 0;
        rc = claim_chunk(w->in, w->map, chunk, size, err);
        if (rc < 0)
            return rc;
        chunk = previous;
    }
    return 0;
}

static int claim_threads(struct frame_walk *w, uint64_t interp, struct err *err)
{
    const struct layout *l = &w->py->layout;
    uint64_t ts = 0;
    bool fresh = true;
    if (layout_u64(l, w->in->mem, interp, LF_interp_threads_head, &ts, NULL) < 0)
        return 0;
    while (ts && w->seen.n < MAX_SEEN) {
        int rc = addrset_add(&w->seen, ts, 0, &fresh);
        if (rc < 0)
            return err_set(err, ERR_NOMEM, "no memory for the frame stacks");
        if (!fresh)
            return 0;
        rc = claim_chunks(w, ts, LF_ts_datastack_chunk, err);
        if (rc == 0)
            rc = claim_chunks(w, ts, LF_ts_datastack_cached_chunk, err);
        if (rc < 0)
            return rc;
        if (layout_u64(l, w->in->mem, ts, LF_ts_next, &ts, NULL) < 0)
            return 0;
    }
    return 0;
}

int framestack_claim(const struct cpython_input *in, const struct cpython *py, struct blockmap *map,
                     struct notes *notes, struct err *err)
{
    (void)notes;
    if (!layout_has(&py->layout, LF_ts_datastack_chunk) || !layout_has(&py->layout, LF_chunk_size))
        return 0;
    struct frame_walk w = {.in = in, .py = py, .map = map};
    int rc = 0;
    addrset_init(&w.seen);
    for (size_t i = 0; rc == 0 && i < py->n_interpreters; i++)
        rc = claim_threads(&w, py->interpreters[i], err);
    addrset_release(&w.seen);
    return rc;
}
