/* The blocks of CPython's mimalloc: one run for each page in use.
 *
 * A page's blocks are in use unless they are on one of its three lists (free, freed by its own
 * thread, freed by others) or on the list of its heap that other threads put the first block on
 * that they free in a full page. Debug builds scramble the links and pad the blocks. */
#include <stdlib.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/objects.h"

enum { SLICES = 512, SLICE_BYTES = 64 << 10, MAX_BLOCKS = 65535, PAGE_STRUCT_MAX = 256 };

struct addrs {
    uint64_t *items;
    size_t n, cap;
};

/* How links are scrambled: `end` (the page or heap) stands for NULL. */
struct mi_keys {
    bool on;
    uint64_t end, keys[2];
};

struct mi_page {
    uint64_t at; /* of struct mi_page_s */
    uint64_t start, size, n;
    uint64_t free, local_free, xthread_free, heap;
    struct mi_keys keys;
};

struct mi_walk {
    const struct cpython_input *in;
    const struct layout *l;
    struct blocks *blocks;
    struct mem_window win;
    struct addrset heaps;
    struct addrs delayed; /* sorted */
    struct err *err;
};

typedef int (*page_fn)(struct mi_walk *w, const struct mi_page *p);

static int no_memory(struct mi_walk *w)
{
    return err_set(w->err, ERR_NOMEM, "no memory for the blocks of mimalloc");
}

/* Where the first block lies, for releases that do not say: small ones start a few blocks behind
 * the slice, so that not all pages use the same cache lines. */
static uint64_t start_offset(uint64_t size)
{
    return size < 8 ? 0 : size <= 64 ? 3 * size : size <= 512 ? size : 0;
}

/* Size and place of the blocks of a page whose slices are [at, end). */
static void load_area(const struct mi_walk *w, const uint8_t *p, uint64_t at, uint64_t end,
                      struct mi_page *ret)
{
    if (layout_has(w->l, LF_mi_page_block_size)) {
        ret->size = layout_load(w->l, p, LF_mi_page_block_size);
        ret->start = layout_load(w->l, p, LF_mi_page_start);
    } else {
        ret->size = layout_load(w->l, p, LF_mi_page_xblock_size);
        ret->start = at + start_offset(ret->size);
    }
    if (ret->n == 1 && ret->size > end - at) /* huge: its 32 bits are not enough to say */
        ret->size = end - at;
}

static bool page_sane(const struct mi_page *p, uint64_t at, uint64_t end)
{
    uint64_t bytes;
    return p->n && p->n <= MAX_BLOCKS && p->size >= 8 && p->start >= at && p->start < end &&
           !mul_overflows(p->size, p->n, &bytes) && bytes <= end - p->start;
}

/* The page of slice i; false if it is not in use. *slices: how many it takes. */
static bool load_page(struct mi_walk *w, const struct cpython_range *seg, uint64_t i,
                      struct mi_page *ret, uint64_t *slices)
{
    const struct layout *l = w->l;
    uint8_t p[PAGE_STRUCT_MAX];
    uint64_t size = layout_size(l, LF_mi_page_sizeof);
    *ret = (struct mi_page){.at = seg->start + layout_offset(l, LF_mi_segment_slices) + i * size};
    *slices = 1;
    if (mem_read_some(w->in->mem, ret->at, p, size) < size)
        return false;
    *slices = max_u64(layout_load(l, p, LF_mi_page_slice_count), 1);
    uint64_t at = seg->start + i * SLICE_BYTES, end = seg->end;
    if (at >= end)
        return false;
    if (*slices < (end - at) / SLICE_BYTES)
        end = at + *slices * SLICE_BYTES;
    ret->n = layout_load(l, p, LF_mi_page_capacity);
    ret->free = layout_load(l, p, LF_mi_page_free);
    ret->local_free = layout_load(l, p, LF_mi_page_local_free);
    ret->xthread_free = layout_load(l, p, LF_mi_page_xthread_free) & ~(uint64_t)3;
    ret->heap = layout_load(l, p, LF_mi_page_heap);
    ret->keys = (struct mi_keys){.on = layout_has(l, LF_mi_page_keys), .end = ret->at};
    for (int k = 0; k < 2 && ret->keys.on; k++)
        ret->keys.keys[k] = load_u64(p + layout_offset(l, LF_mi_page_keys) + 8 * (uint64_t)k);
    load_area(w, p, at, end, ret);
    return page_sane(ret, at, end);
}

static int each_page(struct mi_walk *w, const struct cpython_range *seg, page_fn fn)
{
    uint64_t info, entries, slices;
    if (layout_u64(w->l, w->in->mem, seg->start, LF_mi_segment_info_slices, &info, NULL) < 0 ||
        layout_u64(w->l, w->in->mem, seg->start, LF_mi_segment_slice_entries, &entries, NULL) < 0)
        return 0;
    for (uint64_t i = info; i < entries && i < SLICES; i += slices) {
        struct mi_page p;
        int rc = load_page(w, seg, i, &p, &slices) ? fn(w, &p) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int each_segment(struct mi_walk *w, const struct cpython *py, page_fn fn)
{
    int rc = 0;
    for (size_t i = 0; i < py->n_segments && rc == 0; i++)
        rc = each_page(w, &py->segments[i], fn);
    return rc;
}

static uint64_t unscramble(const struct mi_keys *k, uint64_t link)
{
    if (!k->on)
        return link;
    unsigned by = k->keys[0] & 63;
    link -= k->keys[0];
    link = by ? link >> by | link << (64 - by) : link;
    link ^= k->keys[1];
    return link == k->end ? 0 : link;
}

/* A heap's keys lie right behind its cookie in all releases. */
static bool heap_keys(struct mi_walk *w, uint64_t heap, struct mi_keys *ret)
{
    *ret = (struct mi_keys){.on = layout_has(w->l, LF_mi_page_keys), .end = heap};
    return !ret->on || (layout_has(w->l, LF_mi_heap_cookie) &&
                        mem_read(w->in->mem, heap + layout_end(w->l, LF_mi_heap_cookie), ret->keys,
                                 sizeof ret->keys, NULL) == 0);
}

/* ---- blocks that wait in their heap ---- */

/* The list of a page's heap, if it is the first page of that heap. */
static int collect_delayed(struct mi_walk *w, const struct mi_page *p)
{
    enum { MOST = 1 << 24 };
    bool fresh = false;
    uint64_t block;
    struct mi_keys keys;
    if (!p->heap || !layout_has(w->l, LF_mi_heap_thread_delayed_free))
        return 0;
    if (addrset_add(&w->heaps, p->heap, 0, &fresh) < 0)
        return no_memory(w);
    if (!fresh || !heap_keys(w, p->heap, &keys) ||
        layout_u64(w->l, w->in->mem, p->heap, LF_mi_heap_thread_delayed_free, &block, NULL) < 0)
        return 0;
    for (size_t n = 0; block && n < MOST; n++) {
        if (addrset_add(&w->heaps, block, 0, &fresh) < 0 ||
            vec_reserve(&w->delayed.items, &w->delayed.cap, w->delayed.n + 1, 8) < 0)
            return no_memory(w);
        if (!fresh)
            break;
        w->delayed.items[w->delayed.n++] = block;
        if (mem_u64(w->in->mem, block, &block, NULL) < 0)
            break;
        block = unscramble(&keys, block);
    }
    return 0;
}

static int by_address(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void clear_delayed(const struct mi_walk *w, const struct mi_page *p, uint8_t *used)
{
    size_t lo = 0;
    for (size_t hi = w->delayed.n; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        if (w->delayed.items[mid] < p->start)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < w->delayed.n && w->delayed.items[lo] - p->start < p->n * p->size; lo++)
        if ((w->delayed.items[lo] - p->start) % p->size == 0)
            used[(w->delayed.items[lo] - p->start) / p->size] = 0;
}

/* ---- pages ---- */

static void clear_list(struct mi_walk *w, const struct mi_page *p, uint64_t block, uint8_t *used)
{
    uint64_t bytes = p->n * p->size;
    const uint8_t *area = w->in->mem->ops->direct || bytes <= w->win.cap
                              ? mem_window_at(&w->win, p->start, bytes)
                              : NULL;
    while (block) {
        uint64_t off = block - p->start, link;
        if (off >= bytes || off % p->size || !used[off / p->size])
            break;
        used[off / p->size] = 0;
        if (area)
            link = load_u64(area + off);
        else if (mem_u64(w->in->mem, block, &link, NULL) < 0)
            break;
        block = unscramble(&p->keys, link);
    }
}

static int add_page(struct mi_walk *w, const struct mi_page *p)
{
    uint8_t used[MAX_BLOCKS];
    memset(used, 1, p->n);
    clear_list(w, p, p->free, used);
    clear_list(w, p, p->local_free, used);
    clear_list(w, p, p->xthread_free, used);
    clear_delayed(w, p, used);
    if (p->size <= UINT32_MAX)
        return blocks_add_run(w->blocks, p->start, (uint32_t)p->size, (uint32_t)p->n, used, w->err);
    return used[0] ? blocks_add_chunk(w->blocks, p->start, p->size, w->err) : 0;
}

/* All members that this file reads; a table without them describes no mimalloc. */
static bool layout_complete(const struct layout *l)
{
    static const enum layout_field needed[] = {
        LF_mi_segment_slices,   LF_mi_segment_info_slices, LF_mi_segment_slice_entries,
        LF_mi_page_slice_count, LF_mi_page_capacity,       LF_mi_page_free,
        LF_mi_page_local_free,  LF_mi_page_xthread_free,   LF_mi_page_heap};
    uint64_t size = layout_size(l, LF_mi_page_sizeof);
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!layout_has(l, needed[i]))
            return false;
    return size && size <= PAGE_STRUCT_MAX &&
           (layout_has(l, LF_mi_page_block_size) ? layout_has(l, LF_mi_page_start)
                                                 : layout_has(l, LF_mi_page_xblock_size));
}

int mimalloc_blocks(const struct cpython_input *in, const struct cpython *py, struct blocks *b,
                    struct err *err)
{
    struct mi_walk w = {.in = in, .l = &py->layout, .blocks = b, .err = err};
    if (!py->n_segments || !layout_complete(w.l))
        return 0;
    int rc = mem_window_init(&w.win, in->mem, MEM_WINDOW_BYTES, err);
    addrset_init(&w.heaps);
    if (rc == 0)
        rc = each_segment(&w, py, collect_delayed);
    if (w.delayed.n)
        qsort(w.delayed.items, w.delayed.n, sizeof *w.delayed.items, by_address);
    if (rc == 0)
        rc = each_segment(&w, py, add_page);
    free(w.delayed.items);
    addrset_release(&w.heaps);
    mem_window_release(&w.win);
    return rc;
}
