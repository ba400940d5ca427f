/* Synthetic images of a CPython process, at fixed addresses, for any layout: a module with text,
 * `type`, _PyRuntime and the pymalloc state where the version has it, a heap with interpreters and
 * thread states, arenas of known contents, a Python frame stack, mimalloc segments. `want` is what
 * a census has to find. Shared by test_cpython.c and fuzz_walk.c.
 *
 *     struct img f;
 *     img_init(&f);
 *     img_build(&f, layout, &opts);     any number of times
 *     img_present(&f);                  again after changes to f.absent
 *     img_walk(&f, mem, &r, &err); ...
 *     img_release(&f);
 */
#ifndef HEAPCENSUS_TEST_CPYTHON_IMAGE_H
#define HEAPCENSUS_TEST_CPYTHON_IMAGE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/walk.h"

#define IMG_FN static __attribute__((unused))

enum img_by { IMG_SYMBOL, IMG_COOKIE, IMG_TEXT };
enum img_sub { IMG_ALONE, IMG_OWN, IMG_SHARED }; /* a second interpreter, and whose pymalloc */

struct img_opts {
    enum img_by by;
    enum img_sub sub;
    bool statics;   /* usedpools, arenas, maxarenas by symbol (3.8-3.11) */
    bool swapped;   /* the other order of arenas and maxarenas in memory */
    bool hooks;     /* PYTHONMALLOC=debug: marks in the blocks, a raw header before the arenas */
    bool no_arenas; /* the array cannot be found: pools have to be found by their headers */
    bool empty;     /* PYTHONMALLOC=malloc or mimalloc: pymalloc is there and never used */
    bool mimalloc;
    bool trace_refs;
};

enum {
    IMG_PAGE = 4096,
    IMG_DATA_BYTES = 0x78000,
    IMG_HEAP_BYTES = 0x81000,
    IMG_ARENA_BYTES = 4 * 0x100000 + 0x10000,
    IMG_SEGMENT_BYTES = 0x10000, /* the part of a mimalloc segment that has bytes */
    IMG_PAGES = IMG_ARENA_BYTES / IMG_PAGE,
    IMG_PIECES = 5,
    IMG_VMAS = 9,
    IMG_WORDS = 2048,
    IMG_ARENAS = 4,
    IMG_MAXARENAS = 64,
    IMG_CHUNK = 0x4000
};

/* Where things are. */
#define IMG_TEXT_AT 0x555555400000u
#define IMG_DATA 0x555555600000u
#define IMG_TYPE (IMG_DATA + 0x400)
#define IMG_STATICS (IMG_DATA + 0x800)
#define IMG_RUNTIME (IMG_DATA + 0x1000)
#define IMG_HEAP 0x555556000000u
#define IMG_ARRAY (IMG_HEAP + 0x20)
#define IMG_SUB_ARRAY (IMG_HEAP + 0x1020)
#define IMG_THREAD (IMG_HEAP + 0x2000)
#define IMG_SUB_THREAD (IMG_HEAP + 0x3000)
#define IMG_INTERP (IMG_HEAP + 0x4000)
#define IMG_SUB_INTERP (IMG_HEAP + 0x20000)
#define IMG_SUB_STATE (IMG_HEAP + 0x80000)
#define IMG_AREA 0x7f0000000000u
#define IMG_SEGMENTS 0x7f2000000000u
#define IMG_SEGMENT_STEP 0x2000000u
#define IMG_STACK 0x7ffe00000000u
#define IMG_VDSO 0x7ffe10000000u

struct img_piece {
    uint64_t addr;
    size_t len;
    uint8_t *bytes;
    uint8_t absent[IMG_PAGES]; /* by page: neither present nor readable */
};

struct img_word {
    uint64_t addr;
    unsigned width;
    const char *name;
};

/* A pymalloc state under construction. */
struct img_heap {
    uint64_t usedpools, arenas_at, max_at, array;
    uint64_t head[POOL_CLASSES], tail[POOL_CLASSES];
};

struct img {
    const struct layout *l;
    const struct layout_traits *t;
    struct img_opts o;
    struct img_piece pieces[IMG_PIECES];
    size_t n_pieces;
    struct vma vmas[IMG_VMAS];
    size_t n_vmas;
    struct page_run runs[IMG_PIECES * IMG_PAGES + 2];
    struct residency res;
    struct mem_image_piece parts[IMG_PIECES * IMG_PAGES];
    size_t n_parts;
    struct cpython_module module;
    struct glibc_data data;
    size_t n_data; /* 1; 0 keeps the search for a malloc short */
    uint64_t arena[IMG_ARENAS], chunk, main_interp, state;
    struct snapshot_pymalloc want;
    uint64_t want_interpreters, want_segment_blocks;
    /* Words that mean something, for whoever wants to damage them. */
    struct img_word words[IMG_WORDS];
    size_t n_words;
};

IMG_FN void img_init(struct img *f)
{
    static const size_t lens[IMG_PIECES] = {IMG_DATA_BYTES, IMG_HEAP_BYTES, IMG_ARENA_BYTES,
                                            IMG_SEGMENT_BYTES, IMG_SEGMENT_BYTES};
    memset(f, 0, sizeof *f);
    for (size_t i = 0; i < IMG_PIECES; i++)
        if (!(f->pieces[i].bytes = malloc(lens[i])))
            abort();
}

IMG_FN void img_release(struct img *f)
{
    for (size_t i = 0; i < IMG_PIECES; i++)
        free(f->pieces[i].bytes);
    residency_release(&f->res);
}

/* The bytes at a target address; NULL outside of the pieces. */
IMG_FN uint8_t *img_at(struct img *f, uint64_t addr, size_t len)
{
    for (size_t i = 0; i < f->n_pieces; i++) {
        struct img_piece *p = &f->pieces[i];
        if (addr >= p->addr && addr - p->addr < p->len && p->len - (addr - p->addr) >= len)
            return p->bytes + (addr - p->addr);
    }
    return NULL;
}

IMG_FN void img_put(struct img *f, uint64_t addr, const void *bytes, size_t len)
{
    uint8_t *p = img_at(f, addr, len);
    if (!p)
        abort(); /* the fixture itself is wrong */
    memcpy(p, bytes, len);
}

IMG_FN uint64_t img_get(struct img *f, uint64_t addr, unsigned width)
{
    uint64_t v = 0;
    uint8_t *p = img_at(f, addr, width);
    if (!p)
        abort();
    memcpy(&v, p, width);
    return v;
}

IMG_FN void img_u64(struct img *f, uint64_t addr, uint64_t v)
{
    img_put(f, addr, &v, sizeof v);
}

/* Write a word and remember it as one worth damaging. */
IMG_FN void img_word(struct img *f, uint64_t addr, uint64_t v, unsigned width, const char *name)
{
    img_put(f, addr, &v, width);
    if (f->n_words < IMG_WORDS)
        f->words[f->n_words++] = (struct img_word){addr, width, name};
}

IMG_FN void img_field(struct img *f, uint64_t base, enum layout_field field, uint64_t v)
{
    if (layout_has(f->l, field))
        img_word(f, base + layout_offset(f->l, field), v, f->l->slots[field].width,
                 layout_field_name(field));
}

/* As img_field, not remembered. */
IMG_FN void img_quiet(struct img *f, uint64_t base, enum layout_field field, uint64_t v)
{
    img_put(f, base + layout_offset(f->l, field), &v, f->l->slots[field].width);
}

/* ---- pools and arenas ---- */

enum img_pool_kind { IMG_FULL, IMG_PARTIAL, IMG_FREE };

/* Free `n` of the carved blocks, every third from the second, linked out of order. */
IMG_FN uint64_t img_freelist(struct img *f, uint64_t pool, uint64_t size, uint64_t n)
{
    uint64_t next = 0;
    for (uint64_t k = 0; k < n; k++) {
        uint64_t at = k % 2 ? n - 1 - k / 2 : k / 2;
        uint64_t block = pool + POOL_HEADER_BYTES + (1 + 3 * at) * size;
        img_u64(f, block, next);
        next = block;
    }
    return next;
}

IMG_FN void img_link(struct img *f, struct img_heap *h, uint64_t pool, uint64_t class)
{
    uint64_t self = h->usedpools + 16 * class - 16, old = h->head[class];
    img_quiet(f, pool, LF_pool_nextpool, old ? old : self);
    img_quiet(f, pool, LF_pool_prevpool, self);
    if (old)
        img_quiet(f, old, LF_pool_prevpool, pool);
    else
        h->tail[class] = pool;
    h->head[class] = pool;
}

IMG_FN void img_remember_header(struct img *f, uint64_t pool)
{
    static const enum layout_field fields[] = {
        LF_pool_ref_count, LF_pool_freeblock,  LF_pool_nextpool,   LF_pool_prevpool,
        LF_pool_szidx,     LF_pool_arenaindex, LF_pool_nextoffset, LF_pool_maxnextoffset};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        uint64_t at = pool + layout_offset(f->l, fields[i]);
        img_field(f, pool, fields[i], img_get(f, at, f->l->slots[fields[i]].width));
    }
    uint64_t block = img_get(f, pool + layout_offset(f->l, LF_pool_freeblock), 8);
    if (block)
        img_word(f, block, img_get(f, block, 8), 8, "free list link");
}

IMG_FN void img_pool(struct img *f, struct img_heap *h, uint64_t pool, uint64_t index,
                     uint64_t class, enum img_pool_kind kind)
{
    uint64_t size = (class + 1) * 16, cap = (f->t->pool_size - POOL_HEADER_BYTES) / size;
    uint64_t carved = kind == IMG_PARTIAL ? cap - cap / 4 : cap;
    uint64_t holes = kind == IMG_PARTIAL ? carved / 3 : 0, used = carved - holes;
    uint8_t mark[16] = {0, 0, 0, 0, 0, 0, 0, (uint8_t)(size - 24), 'o'};
    memset(mark + 9, 0xfd, 7);
    if (f->o.hooks)
        img_put(f, pool + POOL_HEADER_BYTES, mark, sizeof mark);
    img_quiet(f, pool, LF_pool_ref_count, kind == IMG_FREE ? 0 : used);
    img_quiet(f, pool, LF_pool_freeblock, img_freelist(f, pool, size, holes));
    img_quiet(f, pool, LF_pool_arenaindex, index);
    img_quiet(f, pool, LF_pool_szidx, class);
    img_quiet(f, pool, LF_pool_nextoffset, POOL_HEADER_BYTES + carved * size);
    img_quiet(f, pool, LF_pool_maxnextoffset, f->t->pool_size - size);
    if (kind == IMG_PARTIAL) {
        img_link(f, h, pool, class);
    } else { /* stale */
        img_quiet(f, pool, LF_pool_nextpool, 0xdeadbeef0000);
        img_quiet(f, pool, LF_pool_prevpool, 0xdeadbeef1000);
    }
    if (kind == IMG_FREE) {
        f->want.pools_free++;
        return;
    }
    f->want.pools_used++;
    f->want.classes[class].pools++;
    f->want.classes[class].blocks_used += used;
    f->want.classes[class].blocks_free += cap - used;
}

/* What pool i of arena k holds. Each arena has a pool at the head or tail of some class. */
IMG_FN enum img_pool_kind img_plan(size_t k, uint64_t i, uint64_t *class)
{
    *class = k == 0 ? i * 7 % 32 : k == 1 ? (i * 11 + 3) % 32 : k == 2 ? 5 + 26 * i : i % 8;
    if (k == 0)
        return i % 5 == 0 ? IMG_FULL : i % 5 == 4 ? IMG_FREE : IMG_PARTIAL;
    return k == 1 && i % 3 == 0 ? IMG_FULL : IMG_PARTIAL;
}

IMG_FN void img_arena(struct img *f, struct img_heap *h, size_t k, uint64_t index)
{
    uint64_t pool = f->t->pool_size, address = f->arena[k], first = round_up(address, pool);
    uint64_t total = f->t->arena_size / pool - (first != address), class;
    uint64_t carved = k == 0 ? total : k == 1 ? total / 2 : k == 2 ? 2 : total / 4;
    uint64_t free_before = f->want.pools_free, freepools = 0;
    for (uint64_t i = 0; i < carved; i++) {
        enum img_pool_kind kind = img_plan(k, i, &class);
        img_pool(f, h, first + i * pool, index, class, kind);
        if (kind == IMG_FREE) {
            img_quiet(f, first + i * pool, LF_pool_nextpool, freepools);
            freepools = first + i * pool;
        }
    }
    f->want.pools_free += total - carved;
    memset(img_at(f, first + carved * pool, 1), 0xcb, (total - carved) * pool);
    uint64_t at = h->array + index * ARENA_OBJECT_BYTES;
    img_field(f, at, LF_arena_address, address);
    img_field(f, at, LF_arena_pool_address, first + carved * pool);
    img_field(f, at, LF_arena_nfreepools, f->want.pools_free - free_before);
    img_field(f, at, LF_arena_ntotalpools, total);
    img_field(f, at, LF_arena_freepools, freepools);
    f->want.arenas++;
}

/* The table of pools and where the array of arenas is. */
IMG_FN void img_heap_roots(struct img *f, const struct img_heap *h, bool filled)
{
    for (uint64_t i = 0; i < POOL_CLASSES; i++) {
        uint64_t self = h->usedpools + 16 * i - 16;
        img_u64(f, h->usedpools + 16 * i, h->head[i] ? h->head[i] : self);
        img_u64(f, h->usedpools + 16 * i + 8, h->tail[i] ? h->tail[i] : self);
        if (i % 4 != 1)
            continue;
        img_word(f, h->usedpools + 16 * i, h->head[i] ? h->head[i] : self, 8, "usedpools, first");
        img_word(f, h->usedpools + 16 * i + 8, h->tail[i] ? h->tail[i] : self, 8,
                 "usedpools, last");
    }
    bool known = filled && !f->o.no_arenas;
    img_word(f, h->arenas_at, known ? h->array : 0, 8, "arenas");
    img_word(f, h->max_at, known ? IMG_MAXARENAS : 0, 4, "maxarenas");
}

IMG_FN struct img_heap img_heap_of_state(const struct img *f, uint64_t state, uint64_t array)
{
    const struct layout *l = f->l;
    return (struct img_heap){.usedpools = state + layout_offset(l, LF_obm_used),
                             .arenas_at = state + layout_offset(l, LF_obm_arenas),
                             .max_at = state + layout_offset(l, LF_obm_maxarenas),
                             .array = array};
}

IMG_FN void img_pymalloc(struct img *f)
{
    struct img_heap h = {.usedpools = IMG_STATICS + 0x40, .array = IMG_ARRAY};
    h.arenas_at = IMG_STATICS + (f->o.swapped ? 0x10 : 0x18);
    h.max_at = IMG_STATICS + (f->o.swapped ? 0x20 : 0x08);
    if (f->t->obmalloc != OBMALLOC_STATIC)
        h = img_heap_of_state(f, f->state, IMG_ARRAY);
    for (size_t k = 0; k < 3 && !f->o.empty; k++)
        img_arena(f, &h, k, k == 2 ? 5 : k);
    img_heap_roots(f, &h, !f->o.empty);
    if (f->t->obmalloc == OBMALLOC_STATIC) {
        uint32_t decoy = 4096; /* a power of two next to `arenas` that is not maxarenas */
        img_put(f, h.arenas_at - 4, &decoy, sizeof decoy);
        return;
    }
    if (f->o.sub == IMG_ALONE)
        return;
    if (f->t->obmalloc == OBMALLOC_POINTER && f->o.sub == IMG_SHARED)
        return;
    uint64_t state = f->t->obmalloc == OBMALLOC_INLINE
                         ? IMG_SUB_INTERP + layout_offset(f->l, LF_interp_obmalloc)
                         : IMG_SUB_STATE;
    bool filled = f->o.sub == IMG_OWN && !f->o.empty;
    struct img_heap sub = img_heap_of_state(f, state, IMG_SUB_ARRAY);
    if (filled)
        img_arena(f, &sub, 3, 0);
    img_heap_roots(f, &sub, filled);
}

/* The block that holds the array: glibc's chunk size in front, or the hooks' raw header. */
IMG_FN void img_array_block(struct img *f)
{
    uint64_t bytes = IMG_MAXARENAS * ARENA_OBJECT_BYTES;
    uint8_t head[16] = {0, 0, 0, 0, 0, 0, (uint8_t)(bytes >> 8), (uint8_t)bytes, 'r'};
    memset(head + 9, 0xfd, 7);
    img_u64(f, IMG_ARRAY + bytes, 0x4141414141414141); /* behind it: somebody else's */
    if (f->o.hooks)
        img_put(f, IMG_ARRAY - 16, head, sizeof head);
    else
        img_word(f, IMG_ARRAY - 8, (bytes + 8 + 15) / 16 * 16 | 1, 8, "chunk size");
}

/* ---- the runtime ---- */

IMG_FN void img_debug_offsets(struct img *f)
{
    static const enum layout_field rows[][2] = {
        {LF_dbg_rt_finalizing, LF_rt_finalizing},
        {LF_dbg_rt_interp_head, LF_rt_interp_head},
        {LF_dbg_interp_id, LF_interp_id},
        {LF_dbg_interp_next, LF_interp_next},
        {LF_dbg_interp_threads_head, LF_interp_threads_head},
        {LF_dbg_interp_gc, LF_interp_gc},
        {LF_dbg_ts_next, LF_ts_next},
        {LF_dbg_ts_current_frame, LF_ts_current_frame},
        {LF_dbg_ts_thread_id, LF_ts_thread_id},
        {LF_dbg_ts_native_thread_id, LF_ts_native_thread_id},
        {LF_dbg_ts_datastack_chunk, LF_ts_datastack_chunk},
        {LF_dbg_ob_type, LF_ob_type},
        {LF_dbg_type_name, LF_type_name},
        {LF_dbg_type_flags, LF_type_flags},
        {LF_dbg_interp_size, LF_interp_size},
        {LF_dbg_rt_size, LF_rt_size},
    };
    uint64_t cookie;
    memcpy(&cookie, "xdebugpy", 8);
    img_word(f, IMG_RUNTIME, cookie, 8, "dbg_cookie");
    img_field(f, IMG_RUNTIME, LF_dbg_version, f->l->hexversion);
    img_field(f, IMG_RUNTIME, LF_dbg_free_threaded, f->l->free_threaded);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (layout_has(f->l, rows[i][0]) && layout_has(f->l, rows[i][1]))
            img_field(f, IMG_RUNTIME, rows[i][0], (uint64_t)f->l->slots[rows[i][1]].offset);
}

IMG_FN void img_module(struct img *f)
{
    const struct layout *l = f->l;
    char text[128], version[32];
    cpython_version_format(l->hexversion, version, sizeof version);
    int n = snprintf(text, sizeof text, "%s (main, Jan  1 2024, 00:00:00) [GCC 12.2.0]", version);
    img_put(f, IMG_DATA + 0x40, text, (size_t)n + 1);
    img_put(f, IMG_DATA + 0x200, "type", 5);
    uint64_t type = IMG_TYPE + (f->o.trace_refs ? 16 : 0);
    img_field(f, type, LF_ob_type, IMG_TYPE);
    img_field(f, type, LF_type_name, IMG_DATA + 0x200);
    img_field(f, type, LF_type_basicsize, layout_size(l, LF_heaptype_sizeof));
    struct cpython_module *m = &f->module;
    *m = (struct cpython_module){.path = "/usr/bin/python3", .n_data = 1, .type_type = IMG_TYPE};
    m->data[0] = (struct cpython_range){IMG_DATA, IMG_DATA + IMG_DATA_BYTES};
    m->has_ref_total = l->debug;
    if (f->o.by == IMG_SYMBOL) {
        m->runtime = IMG_RUNTIME;
        m->runtime_size = layout_size(l, LF_rt_size);
        m->runtime_by = ".dynsym";
        m->py_version = layout_minor(l->hexversion) >= 11 ? l->hexversion : 0;
    }
    if (f->o.statics && f->t->obmalloc == OBMALLOC_STATIC) {
        m->usedpools = IMG_STATICS + 0x40;
        m->arenas = IMG_STATICS + (f->o.swapped ? 0x10 : 0x18);
        m->maxarenas = IMG_STATICS + (f->o.swapped ? 0x20 : 0x08);
    }
    /* Not all of it: glibc's walk looks for its arena at each word of it. */
    f->data = (struct glibc_data){IMG_DATA, IMG_DATA + 0x3000, false};
    f->n_data = 1;
}

IMG_FN void img_interpreter(struct img *f, uint64_t interp, uint64_t id, uint64_t next,
                            uint64_t thread, uint64_t state)
{
    img_field(f, interp, LF_interp_id, id);
    img_field(f, interp, LF_interp_next, next);
    img_field(f, interp, LF_interp_threads_head, thread);
    img_field(f, thread, LF_ts_next, 0);
    if (f->t->obmalloc == OBMALLOC_POINTER)
        img_field(f, interp, LF_interp_obmalloc, state);
}

IMG_FN void img_runtime(struct img *f)
{
    bool sub = f->o.sub != IMG_ALONE;
    if (f->t->debug_offsets)
        img_debug_offsets(f);
    img_field(f, IMG_RUNTIME, LF_rt_initialized, 1);
    img_field(f, IMG_RUNTIME, LF_rt_finalizing, 0);
    img_field(f, IMG_RUNTIME, LF_rt_alloc_is_debug_enabled, f->o.hooks);
    img_field(f, IMG_RUNTIME, LF_rt_interp_head, sub ? IMG_SUB_INTERP : f->main_interp);
    if (f->o.mimalloc)
        img_field(f, IMG_RUNTIME, LF_rt_alloc_obj_malloc, IMG_TEXT_AT + 0x10);
    uint64_t state = f->l->free_threaded ? 0 : f->state;
    img_interpreter(f, f->main_interp, 0, 0, IMG_THREAD, state);
    if (sub)
        img_interpreter(f, IMG_SUB_INTERP, 1, f->main_interp, IMG_SUB_THREAD,
                        f->o.sub == IMG_OWN ? IMG_SUB_STATE : state);
    f->want_interpreters = f->o.by == IMG_TEXT ? 1 : 1 + sub;
    if (layout_has(f->l, LF_ts_datastack_chunk)) {
        img_field(f, IMG_THREAD, LF_ts_datastack_chunk, f->chunk);
        img_field(f, f->chunk, LF_chunk_previous, 0);
        img_field(f, f->chunk, LF_chunk_size, IMG_CHUNK);
    }
}

/* Two segments under one secret: in each a used page, a freed page, a page of several slices. */
IMG_FN void img_segments(struct img *f)
{
    const struct layout *l = f->l;
    uint64_t size = layout_size(l, LF_mi_page_sizeof), secret = 0x1234567890abcdefu;
    enum layout_field block =
        layout_has(l, LF_mi_page_block_size) ? LF_mi_page_block_size : LF_mi_page_xblock_size;
    for (uint64_t s = 0; s < 2; s++) {
        uint64_t at = IMG_SEGMENTS + s * IMG_SEGMENT_STEP;
        img_field(f, at, LF_mi_segment_cookie, secret ^ at);
        img_field(f, at, LF_mi_segment_info_slices, 1);
        img_field(f, at, LF_mi_segment_slice_entries, 512);
        uint64_t pages = at + layout_offset(l, LF_mi_segment_slices);
        for (uint64_t i = 1, n = 0; i < 512; n++) {
            uint64_t slices = n % 4 == 3 ? 8 : 1, used = n % 5 == 2 ? 0 : 10 + n + s;
            img_quiet(f, pages + i * size, LF_mi_page_slice_count, slices);
            img_quiet(f, pages + i * size, block, used ? 64 : n % 2);
            img_quiet(f, pages + i * size, LF_mi_page_used, used ? used : 77);
            f->want_segment_blocks += used;
            i += slices;
        }
    }
}

/* ---- mappings ---- */

IMG_FN void img_vma(struct img *f, uint64_t start, uint64_t len, const char *perms,
                    enum vma_kind kind, const char *name)
{
    f->vmas[f->n_vmas++] = (struct vma){.start = start,
                                        .end = start + len,
                                        .r = perms[0] == 'r',
                                        .w = perms[1] == 'w',
                                        .x = perms[2] == 'x',
                                        .kind = kind,
                                        .name = name};
}

IMG_FN void img_map(struct img *f)
{
    uint64_t area = f->chunk + IMG_CHUNK - IMG_AREA;
    const struct {
        uint64_t addr;
        size_t len;
    } at[IMG_PIECES] = {{IMG_DATA, IMG_DATA_BYTES},
                        {IMG_HEAP, IMG_HEAP_BYTES},
                        {IMG_AREA, area},
                        {IMG_SEGMENTS, IMG_SEGMENT_BYTES},
                        {IMG_SEGMENTS + IMG_SEGMENT_STEP, IMG_SEGMENT_BYTES}};
    f->n_pieces = f->o.mimalloc ? 5 : 3;
    for (size_t i = 0; i < f->n_pieces; i++) {
        f->pieces[i].addr = at[i].addr;
        f->pieces[i].len = at[i].len;
        memset(f->pieces[i].bytes, 0, at[i].len);
        memset(f->pieces[i].absent, 0, sizeof f->pieces[i].absent);
    }
    f->n_vmas = 0;
    img_vma(f, IMG_TEXT_AT, IMG_PAGE, "r-x", VMA_FILE, "/usr/bin/python3");
    img_vma(f, IMG_DATA, 0x2000, "rw-", VMA_FILE, "/usr/bin/python3");
    img_vma(f, IMG_DATA + 0x2000, IMG_DATA_BYTES - 0x2000, "rw-", VMA_ANON, "");
    img_vma(f, IMG_HEAP, IMG_HEAP_BYTES, "rw-", VMA_HEAP, "[heap]");
    img_vma(f, IMG_AREA, area, "rw-", VMA_ANON, "");
    img_vma(f, IMG_AREA + area, IMG_PAGE, "---", VMA_ANON, "");
    if (f->o.mimalloc)
        img_vma(f, IMG_SEGMENTS, 2 * IMG_SEGMENT_STEP, "rw-", VMA_ANON, "");
    img_vma(f, IMG_STACK, 0x21000, "rw-", VMA_STACK, "[stack]");
    img_vma(f, IMG_VDSO, 0x2000, "r-x", VMA_KERNEL, "[vdso]");
}

/* Present pages, rss and readable bytes from the pieces and their absent pages. */
IMG_FN void img_present(struct img *f)
{
    size_t n = 0;
    f->n_parts = 0;
    f->runs[n++] = (struct page_run){IMG_TEXT_AT, IMG_TEXT_AT + IMG_PAGE};
    for (size_t i = 0; i < f->n_pieces; i++) {
        struct img_piece *p = &f->pieces[i];
        for (size_t at = 0; at < p->len; at += IMG_PAGE) {
            if (p->absent[at / IMG_PAGE])
                continue;
            uint64_t addr = p->addr + at;
            if (n && f->runs[n - 1].end == addr) {
                f->runs[n - 1].end += IMG_PAGE;
                f->parts[f->n_parts - 1].len += IMG_PAGE;
                continue;
            }
            f->runs[n++] = (struct page_run){addr, addr + IMG_PAGE};
            f->parts[f->n_parts++] = (struct mem_image_piece){addr, p->bytes + at, IMG_PAGE};
        }
    }
    f->runs[n++] = (struct page_run){IMG_STACK + 0x1e000, IMG_STACK + 0x21000};
    residency_release(&f->res);
    if (residency_init(&f->res, f->runs, n, NULL) < 0)
        abort();
    for (size_t i = 0; i < f->n_vmas; i++)
        f->vmas[i].rss = residency_bytes(&f->res, f->vmas[i].start, f->vmas[i].end);
}

IMG_FN void img_want_sums(struct img *f)
{
    struct snapshot_pymalloc *w = &f->want;
    w->pool_size = f->t->pool_size;
    w->arena_size = f->t->arena_size;
    w->heaps = w->arenas == 0 ? 0 : w->arenas > 3 ? 2 : 1;
    if (f->o.no_arenas)
        w->arenas = w->heaps = w->pools_free = 0;
    for (uint64_t i = 0; i < POOL_CLASSES; i++) {
        struct snapshot_size_class *c = &w->classes[i];
        c->size = 16 * (i + 1);
        w->blocks_used += c->blocks_used;
        w->blocks_free += c->blocks_free;
        w->bytes_used += c->blocks_used * c->size;
        w->bytes_free += c->blocks_free * c->size;
    }
    w->present = w->arenas || w->pools_used;
}

IMG_FN void img_build(struct img *f, const struct layout *l, const struct img_opts *o)
{
    f->l = l;
    f->t = layout_traits(layout_minor(l->hexversion));
    f->o = *o;
    f->n_words = 0;
    f->want_segment_blocks = 0;
    memset(&f->want, 0, sizeof f->want);
    uint64_t size = f->t->arena_size, pool = f->t->pool_size;
    f->arena[0] = IMG_AREA;
    f->arena[1] = IMG_AREA + size + (pool > IMG_PAGE ? IMG_PAGE : 0);
    f->arena[2] = round_up(f->arena[1] + size, pool);
    f->arena[3] = f->arena[2] + size;
    f->chunk = f->arena[3] + size;
    img_map(f);
    f->main_interp = layout_has(l, LF_rt_main_interpreter)
                         ? IMG_RUNTIME + layout_offset(l, LF_rt_main_interpreter)
                         : IMG_INTERP;
    f->state = f->t->obmalloc == OBMALLOC_INLINE
                   ? f->main_interp + layout_offset(l, LF_interp_obmalloc)
                   : round_up(IMG_RUNTIME + layout_size(l, LF_rt_size), 64);
    img_module(f);
    img_runtime(f);
    if (!l->free_threaded)
        img_pymalloc(f);
    img_array_block(f);
    if (f->o.mimalloc)
        img_segments(f);
    if (!f->o.empty && !l->free_threaded) {
        uint64_t first = round_up(f->arena[1], pool);
        for (uint64_t i = 0; i < 5; i++)
            img_remember_header(f, f->arena[0] + i * pool);
        img_remember_header(f, first + pool);
        img_remember_header(f, f->arena[2]);
    }
    img_want_sums(f);
    img_present(f);
}

/* ---- walking ---- */

IMG_FN struct walk_input img_input(struct img *f, struct mem *mem)
{
    struct walk_input in = {.mem = mem, .vmas = {f->vmas, f->n_vmas}, .res = &f->res};
    in.data = &f->data;
    in.n_data = f->n_data;
    in.python.modules = &f->module;
    in.python.n_modules = 1;
    return in;
}

/* A census over `mem`, or over the image itself if NULL. snap is to be released in any case. */
IMG_FN int img_walk(struct img *f, struct mem *mem, struct snapshot *snap, struct err *err)
{
    struct mem *own = NULL;
    snapshot_init(snap);
    err_clear(err);
    int rc = mem ? 0 : mem_image_new(f->parts, f->n_parts, &own, err);
    if (rc < 0)
        return rc;
    struct walk_input in = img_input(f, mem ? mem : own);
    rc = walk_run(&in, snap, err);
    mem_close(own);
    return rc;
}

/* Every mapped and every present byte is in exactly one category, mapping by mapping and in sum. */
IMG_FN bool img_sums(const struct img *f, const struct snapshot *snap)
{
    uint64_t mapped = 0, rss = 0;
    bool right = snap->n_mappings == f->n_vmas;
    for (size_t i = 0; right && i < f->n_vmas; i++) {
        const struct snapshot_mapping *m = &snap->mappings[i];
        uint64_t size = f->vmas[i].end - f->vmas[i].start;
        right = m->size == size && tally_bytes(&m->tally) == size &&
                m->resident_bytes == f->vmas[i].rss && tally_resident(&m->tally) == f->vmas[i].rss;
        mapped += size;
        rss += f->vmas[i].rss;
    }
    const struct snapshot_memory *m = &snap->memory;
    return right && m->mapped_bytes == mapped && m->rss_bytes == rss &&
           tally_bytes(&m->tally) == mapped && tally_resident(&m->tally) == rss;
}

#endif
