/* cpython_blocks over the synthetic images, for every layout: each block of each pool is told
 * right, through every backend; and mimalloc's pages, whose lists are written here. Then damage. */
#include "tests/lib/tap.h"
#include "tests/unit/test_cpython_image.h"
#include "walker/cpython/objects.h"

static struct img f;

/* ---- pymalloc ---- */

/* A backend without `direct`. */
struct slow {
    struct mem mem;
    struct mem *below;
};

static int slow_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    return mem_readv(((struct slow *)mem)->below, spans, n, err);
}

static int slow_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    return mem_regions(((struct slow *)mem)->below, ret, n, err);
}

static const struct mem_ops slow_ops = {.readv = slow_readv, .regions = slow_regions};

struct collected {
    struct blocks blocks;
    struct snapshot snap;
    uint64_t in_use;
    size_t pools;
};

static int collect(struct mem *mem, bool partial, struct collected *c, struct err *err)
{
    struct notes notes;
    struct blockmap map;
    struct cpython py;
    struct walk_input in = img_input(&f, mem);
    in.python.mem = mem;
    in.python.vmas = &in.vmas;
    in.python.res = in.res;
    in.python.partial = partial;
    snapshot_init(&c->snap);
    notes_init(&notes, &c->snap);
    blockmap_init(&map, in.res);
    blocks_init(&c->blocks);
    int rc = cpython_find(&in.python, &py, &notes, err);
    if (rc == 0)
        rc = cpython_walk(&in.python, &py, &map, &c->snap, &notes, err);
    if (rc == 0)
        rc = cpython_blocks(&in.python, &py, &c->blocks, err);
    c->pools = rc == 0 ? py.n_pools : 0;
    if (rc == 0)
        rc = blocks_sort(&c->blocks, false, err);
    c->in_use = 0;
    for (size_t i = 0; rc == 0 && i < c->blocks.n; i++)
        c->in_use += block_kind(&c->blocks, i) != BLOCK_FREE;
    note_flush(&notes);
    cpython_release(&py);
    blockmap_release(&map);
    return rc;
}

static void collected_release(struct collected *c)
{
    blocks_release(&c->blocks);
    snapshot_release(&c->snap);
}

/* img_pool: of the carved blocks of a partial pool every third from the second is free, up to a
 * third of them. */
static size_t wrong_slots(const struct collected *c)
{
    size_t wrong = 0;
    for (size_t i = 0; i < c->blocks.n_runs; i++) {
        const struct block_run *r = &c->blocks.runs[i];
        uint64_t cap = (f.t->pool_size - POOL_HEADER_BYTES) / r->size;
        bool full = r->n == cap;
        wrong += r->addr % f.t->pool_size != POOL_HEADER_BYTES || (!full && r->n != cap - cap / 4);
        for (uint32_t k = 0; k < r->n; k++) {
            bool hole = !full && k % 3 == 1 && k / 3 < r->n / 3;
            struct block_place place;
            blocks_place(&c->blocks, r->first + k, &place);
            wrong += (block_kind(&c->blocks, r->first + k) == BLOCK_FREE) != hole ||
                     place.addr != r->addr + (uint64_t)k * r->size || place.size != r->size;
        }
    }
    return wrong;
}

static void exact(struct mem *mem, bool partial, const char *how)
{
    struct collected c;
    struct err err = ERR_INIT;
    int rc = collect(mem, partial, &c, &err);
    size_t wrong = wrong_slots(&c);
    ok(rc == 0 && wrong == 0 && c.in_use == f.want.blocks_used &&
           c.in_use == c.snap.pymalloc.blocks_used && c.blocks.n_runs == f.want.pools_used &&
           c.blocks.debug_front == (f.o.hooks ? 16 : 0),
       "%s: %s: %llu blocks in use (want %llu), %zu wrong", f.l->source, how,
       (unsigned long long)c.in_use, (unsigned long long)f.want.blocks_used, wrong);
    if (rc < 0)
        diag("%s", err.text);
    collected_release(&c);
}

static void each_backend(const struct layout *l, struct img_opts o, const char *how)
{
    struct slow slow = {.mem = {.ops = &slow_ops}};
    struct mem *cache;
    img_build(&f, l, &o);
    if (mem_image_new(f.parts, f.n_parts, &slow.below, NULL) < 0 ||
        mem_cache_new(&slow.mem, 64, &cache, NULL) < 0)
        abort();
    exact(slow.below, false, how);
    exact(cache, false, "through a cache");
    mem_close(cache);
    mem_close(slow.below);
}

/* A core without the arenas array, and one in which a pool's last page is missing. */
static void test_partial(const struct layout *l)
{
    struct mem *mem;
    struct collected c;
    struct err err = ERR_INIT;
    img_build(&f, l, &(struct img_opts){.by = IMG_SYMBOL, .no_arenas = true, .hooks = true});
    if (mem_image_new(f.parts, f.n_parts, &mem, NULL) < 0)
        abort();
    int rc = collect(mem, true, &c, &err);
    ok(rc == 0 && c.in_use == c.snap.pymalloc.blocks_used && c.blocks.n_runs == c.pools &&
           wrong_slots(&c) == 0 && c.blocks.debug_front == 16 && c.in_use > f.want.blocks_used / 2,
       "%s: partial, pools by headers: %llu blocks of %llu", l->source,
       (unsigned long long)c.in_use, (unsigned long long)f.want.blocks_used);
    collected_release(&c);
    mem_close(mem);
    img_build(&f, l, &(struct img_opts){.by = IMG_SYMBOL});
    uint64_t page = round_up(f.arena[1], f.t->pool_size) + 2 * f.t->pool_size - IMG_PAGE;
    for (size_t i = 0; i < f.n_pieces; i++)
        if (page >= f.pieces[i].addr && page - f.pieces[i].addr < f.pieces[i].len)
            f.pieces[i].absent[(page - f.pieces[i].addr) / IMG_PAGE] = 1;
    img_present(&f);
    if (mem_image_new(f.parts, f.n_parts, &mem, NULL) < 0)
        abort();
    rc = collect(mem, false, &c, &err);
    uint64_t lost = f.t->pool_size == IMG_PAGE ? 1 : 0; /* the header went with it */
    ok(rc == 0 && c.blocks.n_runs == f.want.pools_used - lost &&
           c.in_use >= c.snap.pymalloc.blocks_used,
       "%s: an absent page: %llu blocks, %llu counted", l->source, (unsigned long long)c.in_use,
       (unsigned long long)c.snap.pymalloc.blocks_used);
    collected_release(&c);
    mem_close(mem);
}

/* A pool was stopped in the middle of an allocation: its first free block is counted, but still on
 * the list. */
static void test_moving(const struct layout *l)
{
    struct mem *mem;
    struct collected c;
    struct err err = ERR_INIT;
    img_build(&f, l, &(struct img_opts){.by = IMG_SYMBOL});
    if (mem_image_new(f.parts, f.n_parts, &mem, NULL) < 0)
        abort();
    uint64_t pool = round_up(f.arena[1], f.t->pool_size), freeblock, count;
    for (;; pool += f.t->pool_size) {
        freeblock = img_get(&f, pool + layout_offset(l, LF_pool_freeblock), 8);
        count = img_get(&f, pool + layout_offset(l, LF_pool_ref_count), 4);
        if (freeblock && count)
            break;
    }
    count++;
    img_put(&f, pool + layout_offset(l, LF_pool_ref_count), &count, 4);
    int rc = collect(mem, false, &c, &err);
    struct block_hit hit;
    ok(rc == 0 && c.in_use == f.want.blocks_used + 1 && c.in_use == c.snap.pymalloc.blocks_used &&
           blocks_at(&c.blocks, freeblock, &hit) &&
           block_kind(&c.blocks, hit.slot) == BLOCK_UNOWNED && c.snap.n_notes == 1 &&
           strcmp(c.snap.notes[0].what, "pymalloc.moving") == 0,
       "%s: a block on its way: %llu in use, %llu counted", l->source, (unsigned long long)c.in_use,
       (unsigned long long)c.snap.pymalloc.blocks_used);
    collected_release(&c);
    mem_close(mem);
}

static void test_pymalloc(const struct layout *l)
{
    each_backend(l, (struct img_opts){.by = IMG_SYMBOL}, "one heap");
    each_backend(l, (struct img_opts){.by = IMG_SYMBOL, .hooks = true}, "debug hooks");
    each_backend(l, (struct img_opts){.by = IMG_SYMBOL, .no_arenas = true}, "by headers");
    each_backend(l, (struct img_opts){.sub = IMG_SHARED}, "a shared heap");
    if (layout_traits(layout_minor(l->hexversion))->obmalloc != OBMALLOC_STATIC)
        each_backend(l, (struct img_opts){.sub = IMG_OWN}, "two heaps");
    test_partial(l);
    test_moving(l);
}

/* Words that mean something, wrong: the walk ends, slots stay within their pools. */
static void test_damage(const struct layout *l)
{
    static const uint64_t values[] = {0, 1, UINT64_MAX, 0x4141414141414141, 48, 0x7f0000000031};
    size_t odd = 0, runs = 0;
    struct mem *mem;
    img_build(&f, l, &(struct img_opts){.by = IMG_SYMBOL});
    if (mem_image_new(f.parts, f.n_parts, &mem, NULL) < 0)
        abort();
    for (size_t i = 0; i < f.n_words; i++, runs++) {
        const struct img_word *word = &f.words[i];
        uint64_t old = img_get(&f, word->addr, word->width), fresh = values[i % 6];
        struct collected c;
        img_put(&f, word->addr, &fresh, word->width);
        int rc = collect(mem, i % 2, &c, NULL);
        for (size_t k = 0; rc == 0 && k < c.blocks.n_runs; k++) {
            const struct block_run *r = &c.blocks.runs[k];
            odd += r->addr % f.t->pool_size != POOL_HEADER_BYTES ||
                   (uint64_t)r->n * r->size > f.t->pool_size - POOL_HEADER_BYTES;
        }
        odd += rc == 0 && c.blocks.n_runs > c.pools;
        collected_release(&c);
        img_put(&f, word->addr, &old, word->width);
    }
    mem_close(mem);
    ok(odd == 0, "%s: %zu damaged words", l->source, runs);
}

/* ---- mimalloc: a segment with four pages ---- */

#define SEG ((uint64_t)0x7f2000000000)
#define HEAP (SEG + 0xf000)
enum { SLICE = 64 << 10, SEG_SLICES = 8, SMALL = 64, SMALL_N = 100, LARGE = 0x8010, LARGE_N = 4 };

static uint8_t seg[SEG_SLICES * SLICE];
static const struct layout *mi;
static const uint64_t page_keys[2] = {0x123456789abcdef1, 0xfedcba9876543217};
static const uint64_t heap_keys[2] = {0x0badcafe12345678, 0x55aa55aa55aa55aa};

static void seg_put(uint64_t addr, uint64_t v, unsigned width)
{
    memcpy(seg + (addr - SEG), &v, width);
}

static void seg_field(uint64_t base, enum layout_field field, uint64_t v)
{
    if (layout_has(mi, field))
        seg_put(base + layout_offset(mi, field), v, mi->slots[field].width);
}

static uint64_t page_at(uint64_t slice)
{
    return SEG + layout_offset(mi, LF_mi_segment_slices) +
           slice * layout_size(mi, LF_mi_page_sizeof);
}

/* As mimalloc's debug build does it; plain in others. */
static uint64_t scramble(uint64_t link, uint64_t end, const uint64_t keys[2])
{
    if (!layout_has(mi, LF_mi_page_keys))
        return link;
    uint64_t x = (link ? link : end) ^ keys[1];
    unsigned by = keys[0] & 63;
    return (by ? x << by | x >> (64 - by) : x) + keys[0];
}

static uint64_t list_of(const uint64_t *blocks, size_t n, uint64_t end, const uint64_t keys[2])
{
    for (size_t i = 0; i < n; i++)
        seg_put(blocks[i], scramble(i + 1 < n ? blocks[i + 1] : 0, end, keys), 8);
    return n ? blocks[0] : 0;
}

static uint64_t small_start(void)
{
    return SEG + SLICE + 3 * SMALL;
}

static uint64_t large_start(void)
{
    return SEG + 3 * SLICE;
}

static void put_page(uint64_t slice, uint64_t slices, uint64_t start, uint64_t size, uint64_t n)
{
    uint64_t p = page_at(slice);
    seg_field(p, LF_mi_page_slice_count, slices);
    seg_field(p, LF_mi_page_capacity, n);
    seg_field(p, LF_mi_page_block_size, size);
    seg_field(p, LF_mi_page_xblock_size, size);
    seg_field(p, LF_mi_page_start, start);
    seg_field(p, LF_mi_page_heap, HEAP);
    for (int k = 0; k < 2 && layout_has(mi, LF_mi_page_keys); k++)
        seg_put(p + layout_offset(mi, LF_mi_page_keys) + 8 * (uint64_t)k, page_keys[k], 8);
}

/* A slice of small blocks, a gap, two slices of large ones, a huge one. */
static void build_segment(const struct layout *l)
{
    mi = l;
    memset(seg, 0, sizeof seg);
    seg_field(SEG, LF_mi_segment_info_slices, 1);
    seg_field(SEG, LF_mi_segment_slice_entries, SEG_SLICES);
    put_page(1, 1, small_start(), SMALL, SMALL_N);
    put_page(3, 3, large_start(), LARGE, LARGE_N);
    put_page(6, 2, SEG + 6 * SLICE, 2 * SLICE, 1);
    uint64_t s = small_start(), p = page_at(1);
    const uint64_t free[] = {s + 7 * SMALL, s + 99 * SMALL, s}, local[] = {s + 8 * SMALL};
    const uint64_t others[] = {s + 50 * SMALL, s + 20 * SMALL};
    const uint64_t delayed[] = {large_start() + LARGE, s + 30 * SMALL};
    seg_field(p, LF_mi_page_free, list_of(free, 3, p, page_keys));
    seg_field(p, LF_mi_page_local_free, list_of(local, 1, p, page_keys));
    seg_field(p, LF_mi_page_xthread_free, list_of(others, 2, p, page_keys) | 1);
    seg_field(HEAP, LF_mi_heap_thread_delayed_free, list_of(delayed, 2, HEAP, heap_keys));
    for (int k = 0; k < 2; k++)
        seg_put(HEAP + layout_end(l, LF_mi_heap_cookie) + 8 * (uint64_t)k, heap_keys[k], 8);
}

static int collect_segment(struct mem *mem, struct blocks *b, struct err *err)
{
    struct cpython_range range = {SEG, SEG + sizeof seg};
    struct cpython_input in = {.mem = mem};
    struct cpython py = {.layout = *mi, .segments = &range, .n_segments = 1};
    blocks_init(b);
    int rc = mimalloc_blocks(&in, &py, b, err);
    return rc == 0 ? blocks_sort(b, false, err) : rc;
}

static bool in_use_at(const struct blocks *b, uint64_t addr)
{
    uint64_t start;
    return blocks_find(b, addr + 7, &start) != SIZE_MAX && start == addr;
}

static bool segment_right(const struct blocks *b)
{
    static const unsigned idle[] = {0, 7, 8, 20, 30, 50, 99};
    size_t wrong = b->n_runs != 3 || b->n != SMALL_N + LARGE_N + 1;
    for (unsigned i = 0, k = 0; i < SMALL_N; i++) {
        bool is_idle = k < sizeof idle / sizeof *idle && idle[k] == i;
        k += is_idle;
        wrong += in_use_at(b, small_start() + i * SMALL) == is_idle;
    }
    for (uint64_t i = 0; i < LARGE_N; i++)
        wrong += in_use_at(b, large_start() + i * LARGE) == (i == 1);
    return wrong == 0 && in_use_at(b, SEG + 6 * SLICE);
}

static void test_mimalloc(const struct layout *l)
{
    struct mem_image_piece piece = {SEG, seg, sizeof seg};
    struct slow slow = {.mem = {.ops = &slow_ops}};
    struct blocks b;
    build_segment(l);
    if (mem_image_new(&piece, 1, &slow.below, NULL) < 0)
        abort();
    for (int k = 0; k < 2; k++) {
        int rc = collect_segment(k ? &slow.mem : slow.below, &b, NULL);
        ok(rc == 0 && segment_right(&b), "%s: mimalloc%s: %zu runs, %zu slots", l->source,
           k ? ", without direct access" : "", b.n_runs, b.n);
        blocks_release(&b);
    }
    mem_close(slow.below);
}

/* Random words in the header and in the lists. */
static void test_mimalloc_damage(const struct layout *l)
{
    struct mem_image_piece piece = {SEG, seg, sizeof seg};
    struct mem *mem;
    size_t odd = 0;
    if (mem_image_new(&piece, 1, &mem, NULL) < 0)
        abort();
    for (int round = 0; round < 3000; round++) {
        struct blocks b;
        build_segment(l);
        for (int k = 0; k < 3; k++) {
            uint64_t pages = layout_offset(l, LF_mi_segment_slices);
            uint64_t span = SEG_SLICES * layout_size(l, LF_mi_page_sizeof);
            uint64_t at =
                round % 3 ? pages + (uint64_t)random() % span : SLICE + (uint64_t)random() % SLICE;
            uint64_t v = (uint64_t)random() << (random() % 40);
            memcpy(seg + at, &v, random() % 8);
        }
        int rc = collect_segment(mem, &b, NULL);
        odd += rc != 0;
        for (size_t i = 0; i < b.n_runs; i++)
            odd += b.runs[i].addr < SEG ||
                   (uint64_t)b.runs[i].n * b.runs[i].size > SEG + sizeof seg - b.runs[i].addr;
        blocks_release(&b);
    }
    mem_close(mem);
    ok(odd == 0, "%s: damaged segments: every run lies within", l->source);
}

int main(void)
{
    srandom(4711);
    img_init(&f);
    for (size_t i = 0; i < layout_count(); i++) {
        const struct layout *l = layout_at(i);
        if (!l->free_threaded) {
            test_pymalloc(l);
            test_damage(l);
        }
        if (layout_traits(layout_minor(l->hexversion))->mimalloc != MIMALLOC_ABSENT) {
            test_mimalloc(l);
            test_mimalloc_damage(l);
        }
    }
    img_release(&f);
    return done_testing();
}
