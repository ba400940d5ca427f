/* CPython's own mimalloc (3.13+): free-threaded builds always, others with PYTHONMALLOC=mimalloc.
 *
 * Segments are 32 MiB, aligned to 32 MiB, of 512 slices of 64 KiB; a segment's header carries its
 * address XOR a process-wide secret, so that the same secret comes out of every real segment. */
#include <inttypes.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/cpython.h"

enum { MAX_INFO_SLICES = 15, SLICES = 512, SLICE_BYTES = 64 << 10, KIND_HUGE = 1 };
static const uint64_t SEGMENT_BYTES = 32u << 20;

struct segment {
    uint64_t secret, info_slices, entries;
};

static bool read_segment(const struct cpython_input *in, const struct layout *l, uint64_t at,
                         struct segment *ret)
{
    uint64_t cookie;
    if (layout_u64(l, in->mem, at, LF_mi_segment_cookie, &cookie, NULL) < 0 ||
        layout_u64(l, in->mem, at, LF_mi_segment_info_slices, &ret->info_slices, NULL) < 0 ||
        layout_u64(l, in->mem, at, LF_mi_segment_slice_entries, &ret->entries, NULL) < 0)
        return false;
    ret->secret = cookie ^ at;
    return ret->entries >= 1 && ret->entries <= SLICES && ret->info_slices >= 1 &&
           ret->info_slices <= MAX_INFO_SLICES && ret->info_slices < ret->entries && cookie != 0 &&
           ret->secret != 0;
}

/* Blocks in use in all pages of a segment: each page counts its own. */
static uint64_t used_blocks(const struct cpython_input *in, const struct layout *l, uint64_t at,
                            const struct segment *s)
{
    uint64_t sum = 0, size = layout_size(l, LF_mi_page_sizeof);
    enum layout_field block_size =
        layout_has(l, LF_mi_page_block_size) ? LF_mi_page_block_size : LF_mi_page_xblock_size;
    for (uint64_t i = s->info_slices; i < s->entries;) {
        uint64_t page = at + layout_offset(l, LF_mi_segment_slices) + i * size;
        uint64_t count, block, used;
        if (layout_u64(l, in->mem, page, LF_mi_page_slice_count, &count, NULL) < 0 ||
            layout_u64(l, in->mem, page, block_size, &block, NULL) < 0 ||
            layout_u64(l, in->mem, page, LF_mi_page_used, &used, NULL) < 0)
            break;
        if (block > 1)
            sum += used;
        i += count ? count : 1;
    }
    return sum;
}

/* Segments are mapped; what looks like one in the heap of brk is none. */
static bool may_hold_segments(const struct vma *v)
{
    return vma_is_heapish(v) && v->kind != VMA_HEAP;
}

/* The secret that most candidates share; with a single one, its own. */
static uint64_t vote_secret(const struct cpython_input *in, const struct layout *l)
{
    uint64_t best = 0, lead = 0;
    for (size_t i = 0; i < in->vmas->n; i++) {
        const struct vma *v = &in->vmas->items[i];
        if (!may_hold_segments(v))
            continue;
        for (uint64_t at = round_up(v->start, SEGMENT_BYTES); at < v->end; at += SEGMENT_BYTES) {
            struct segment s;
            if (!read_segment(in, l, at, &s))
                continue;
            if (lead == 0)
                best = s.secret;
            lead = s.secret == best ? lead + 1 : lead - 1;
        }
    }
    return best;
}

/* Where a segment ends: that of one huge block is as long as it needs. */
static uint64_t segment_end(const struct cpython_input *in, const struct layout *l, uint64_t at)
{
    uint64_t kind, slices, bytes;
    if (!layout_has(l, LF_mi_segment_kind) || !layout_has(l, LF_mi_segment_segment_slices) ||
        layout_u64(l, in->mem, at, LF_mi_segment_kind, &kind, NULL) < 0 || kind != KIND_HUGE ||
        layout_u64(l, in->mem, at, LF_mi_segment_segment_slices, &slices, NULL) < 0 ||
        mul_overflows(slices, SLICE_BYTES, &bytes) || bytes <= SEGMENT_BYTES)
        return at + SEGMENT_BYTES;
    uint64_t there = vma_heapish_end(in->vmas, at) - at;
    return at + max_u64(min_u64(bytes, there), SEGMENT_BYTES);
}

/* Claim what of the segment can be accessed. What is not committed yet, and in debug builds what is
 * not any more, has no access: there are pages in use behind it. */
static int claim_pieces(const struct cpython_input *in, struct cpython_range seg, size_t vma,
                        uint64_t used, struct blockmap *map, struct err *err)
{
    int rc = 0;
    for (size_t i = vma; i < in->vmas->n && in->vmas->items[i].start < seg.end && rc == 0; i++) {
        const struct vma *v = &in->vmas->items[i];
        uint64_t lo = max_u64(v->start, seg.start), hi = min_u64(v->end, seg.end);
        if (!vma_is_heapish(v) || blockmap_overlaps(map, lo, hi))
            continue;
        rc = blockmap_claim_one(map, lo, hi, CAT_PYTHON_MIMALLOC, used, "mimalloc segment", err);
        used = 0; /* counted once */
    }
    return rc;
}

/* The segment at `at`, which lies in mapping `vma`. */
static int claim_segment(const struct cpython_input *in, struct cpython *py, uint64_t at,
                         size_t vma, const struct segment *s, struct blockmap *map, struct err *err)
{
    struct cpython_range seg = {at, segment_end(in, &py->layout, at)};
    if (blockmap_overlaps(map, at, min_u64(seg.end, in->vmas->items[vma].end)))
        return 0;
    if (vec_reserve(&py->segments, &py->cap_segments, py->n_segments + 1, sizeof seg) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu segments", py->n_segments + 1);
    py->segments[py->n_segments++] = seg;
    return claim_pieces(in, seg, vma, used_blocks(in, &py->layout, at, s), map, err);
}

int mimalloc_claim(const struct cpython_input *in, struct cpython *py, struct blockmap *map,
                   struct snapshot *snap, struct notes *notes, struct err *err)
{
    const struct layout *l = &py->layout;
    (void)notes;
    /* pymalloc in use means that mimalloc is not: do not take a look-alike for a segment. */
    if (py->traits->mimalloc == MIMALLOC_ABSENT || snap->pymalloc.blocks_used ||
        !layout_has(l, LF_mi_segment_cookie) || !layout_has(l, LF_mi_page_used))
        return 0;
    uint64_t secret = vote_secret(in, l);
    for (size_t i = 0; secret && i < in->vmas->n; i++) {
        const struct vma *v = &in->vmas->items[i];
        if (!may_hold_segments(v))
            continue;
        for (uint64_t at = round_up(v->start, SEGMENT_BYTES); at < v->end; at += SEGMENT_BYTES) {
            struct segment s;
            if (!read_segment(in, l, at, &s) || s.secret != secret)
                continue;
            int rc = claim_segment(in, py, at, i, &s, map, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}
