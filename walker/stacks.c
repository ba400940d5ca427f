/* Stacks of threads. glibc maps a guard, the stack and, at its top, static TLS and the thread
 * descriptor (struct pthread), whose address is fs_base: its first word (tcb) and its third (self)
 * point to itself, in every glibc and in musl's first word too. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/walk.h"

enum {
    PAGE = 4096,
    /* struct pthread is 0x8c0..0x940 bytes in 2.28..2.43 and ends with the mapping, up to 64 bytes
     * of alignment: rounding fs_base + this up to a page gives the mapping's end. */
    DESCRIPTOR_BYTES = 0x8c0,
    DESCRIPTOR_MAX = 0xa00,
    /* How far below a mapping's end a descriptor is looked for: the descriptor and its page. */
    SEARCH_BYTES = 2 * PAGE
};

/* Claim [lo, hi) if nobody has; an overlap means that the stack lies in a chunk: leave it there. */
static int claim(struct blockmap *map, uint64_t lo, uint64_t hi, const char *what, struct err *err)
{
    if (hi <= lo || blockmap_overlaps(map, lo, hi))
        return 0;
    return blockmap_claim_one(map, lo, hi, CAT_STACKS, 1, what, err);
}

/* Where the stack of a thread with its guard begins, as its descriptor says; 0 if it does not. The
 * descriptor keeps {stackblock, stackblock_size, guardsize} somewhere (it differs by release): no
 * other three words fit this stack. */
static uint64_t stack_start(struct mem *mem, const struct walk_thread *t)
{
    uint8_t bytes[DESCRIPTOR_MAX];
    size_t got = mem_read_some(mem, t->fs_base, bytes, sizeof bytes);
    for (size_t i = 0; i + 24 <= got; i += 8) {
        uint64_t start = load_u64(bytes + i), size = load_u64(bytes + i + 8), end;
        uint64_t guard = load_u64(bytes + i + 16);
        if (start % PAGE || size % PAGE || guard % PAGE || guard >= size || start > t->sp ||
            add_overflows(start, size, &end))
            continue;
        if (end > t->fs_base && end - t->fs_base <= DESCRIPTOR_BYTES + PAGE)
            return start;
    }
    return 0;
}

/* From `floor` on: the end of the stack below, where both lie in one mapping. glibc 2.42 and newer
 * guards stacks within their mapping, and the kernel merges neighbours. */
static int claim_thread(const struct walk_input *in, const struct walk_thread *t, uint64_t *floor,
                        struct blockmap *map, struct err *err)
{
    const struct vma *v = vma_at(&in->vmas, t->sp);
    if (!v || !vma_is_heapish(v) || t->fs_base < t->sp || t->fs_base >= v->end)
        return 0; /* the main stack is its own mapping; a stack of the program's own stays as it is
                   */
    uint64_t start = max_u64(max_u64(v->start, *floor), stack_start(in->mem, t));
    uint64_t end = min_u64(round_up(t->fs_base + DESCRIPTOR_BYTES, PAGE), v->end);
    if (t->sp < start)
        return 0;
    *floor = end;
    return claim(map, start, end, "thread stack", err);
}

static int by_stack(const void *a, const void *b)
{
    const struct walk_thread *x = a, *y = b;
    return x->sp < y->sp ? -1 : x->sp > y->sp;
}

/* In the order of addresses: a core lists the thread that crashed first. */
static int claim_threads(const struct walk_input *in, struct blockmap *map, struct err *err)
{
    struct walk_thread *sorted = calloc(in->n_threads + 1, sizeof *sorted);
    uint64_t floor = 0;
    int rc = 0;
    if (!sorted)
        return err_set(err, ERR_NOMEM, "no memory for %zu threads", in->n_threads);
    if (in->n_threads) {
        memcpy(sorted, in->threads, in->n_threads * sizeof *sorted);
        qsort(sorted, in->n_threads, sizeof *sorted, by_stack);
    }
    for (size_t i = 0; rc == 0 && i < in->n_threads; i++)
        rc = claim_thread(in, &sorted[i], &floor, map, err);
    free(sorted);
    return rc;
}

/* The mapping right below is an inaccessible guard: what stacks have and heaps do not. */
static bool has_guard(const struct vma_list *vmas, size_t i)
{
    if (i == 0)
        return false;
    const struct vma *below = &vmas->items[i - 1];
    return below->end == vmas->items[i].start && !below->r && !below->w && !below->x &&
           below->kind == VMA_ANON;
}

static bool descriptor_at(const uint8_t *p, uint64_t addr)
{
    return load_u64(p) == addr && load_u64(p + 16) == addr;
}

/* The descriptor in the last pages of [v->start, end), or 0. Only present pages are read. */
static uint64_t find_descriptor(struct mem *mem, uint64_t start, uint64_t end)
{
    uint8_t page[PAGE];
    for (uint64_t at = end - PAGE; at >= start && end - at <= SEARCH_BYTES; at -= PAGE) {
        size_t got = mem_read_some(mem, at, page, sizeof page);
        for (size_t off = 0; off + 24 <= got; off += 16)
            if (descriptor_at(page + off, at + off))
                return at + off;
        if (at < PAGE)
            break;
    }
    return 0;
}

static int claim_guarded(const struct walk_input *in, struct blockmap *map, struct err *err)
{
    for (size_t i = 1; i < in->vmas.n; i++) {
        const struct vma *v = &in->vmas.items[i];
        if (!vma_is_heapish(v) || !has_guard(&in->vmas, i) || v->end - v->start < 4 * PAGE ||
            blockmap_overlaps(map, v->start, v->end))
            continue;
        uint64_t fs = find_descriptor(in->mem, v->start, v->end);
        int rc = fs ? claim(map, v->start, min_u64(round_up(fs + DESCRIPTOR_BYTES, PAGE), v->end),
                            "thread stack", err)
                    : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

int stacks_claim(const struct walk_input *in, struct blockmap *map, struct notes *notes,
                 struct err *err)
{
    (void)notes;
    int rc = claim_threads(in, map, err);
    return rc < 0 ? rc : claim_guarded(in, map, err);
}
