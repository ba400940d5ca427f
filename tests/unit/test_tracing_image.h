/* Synthetic images of a process that runs with tracemalloc, for any layout: a module whose data has
 * the settings, the sums and the tables' variables (or _PyRuntime with all of it), and a heap of
 * malloc chunks with tables, traces, tracebacks, names of files and the traced blocks. Shared by
 * test_tracemalloc.c and fuzz_tracemalloc.c.
 *
 *     struct timg f;
 *     timg_build(&f, layout, front);    false: no memory
 *     timg_read(&f, join, &err);        tracing_read and sites_join into f.snap, any number of
 * times timg_release(&f);
 */
#ifndef HEAPCENSUS_TEST_TRACING_IMAGE_H
#define HEAPCENSUS_TEST_TRACING_IMAGE_H

#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/own.h"
#include "walker/cpython/tracemalloc.h"
#include "walker/note.h"

#define TIMG_FN static __attribute__((unused))
#define TIMG_TEXT 0x555555400000u
#define TIMG_DATA 0x555555600000u
#define TIMG_HEAP 0x555555700000u

enum {
    TIMG_TEXT_BYTES = 0x1000,
    TIMG_DATA_BYTES = 0x10000,
    TIMG_HEAP_BYTES = 0x40000,
    TIMG_STATICS = 0xc000,
    TIMG_STR_TYPE = 0x8000, /* behind the largest _PyRuntime.tracemalloc */
    TIMG_TRACES = 96,       /* of the default domain ... */
    TIMG_FOREIGN = 12,      /* ... and of each of two others */
    TIMG_GONE = 5,          /* of the former, no block begins there */
    TIMG_DOMAINS = 2,
    TIMG_TRACEBACKS = 4, /* of 1, 2, 3, 4 frames */
    TIMG_NAMES = 4,
    TIMG_LIMIT = 4,
    TIMG_TABLES = 6, /* traces, domains, tracebacks, filenames, and those of the two domains */
    TIMG_PEAK = 1 << 20
};
static const uint32_t timg_domain[TIMG_DOMAINS] = {7, 389047};

struct timg {
    const struct layout *l;
    uint8_t *bytes[2]; /* data, heap */
    uint64_t brk, front;
    struct vma vmas[3];
    struct vma_list list;
    struct mem *mem;
    struct cpython_module module;
    struct cpython_input in;
    struct cpython py;
    struct blocks blocks;
    struct objects o;
    struct snapshot snap;
    struct notes notes;
    bool failed, sorted; /* sorted: it has been read, there are no more blocks */
    uint64_t state;      /* where the settings are; 3.12+: all */
    uint64_t tables[TIMG_TABLES], names[TIMG_NAMES], tracebacks[TIMG_TRACEBACKS];
    uint64_t entry[TIMG_TRACES], record[TIMG_TRACES]; /* record: 3.9+ */
    uint64_t sum, overhead;
};

TIMG_FN uint8_t *timg_at(struct timg *f, uint64_t addr, uint64_t len)
{
    static uint8_t nowhere[8];
    if (addr >= TIMG_DATA && addr + len <= TIMG_DATA + TIMG_DATA_BYTES)
        return f->bytes[0] + (addr - TIMG_DATA);
    if (addr >= TIMG_HEAP && addr + len <= TIMG_HEAP + TIMG_HEAP_BYTES)
        return f->bytes[1] + (addr - TIMG_HEAP);
    f->failed = true;
    return nowhere;
}

TIMG_FN void timg_u64(struct timg *f, uint64_t addr, uint64_t v)
{
    memcpy(timg_at(f, addr, 8), &v, 8);
}

TIMG_FN void timg_put(struct timg *f, uint64_t base, enum layout_field field, uint64_t v)
{
    const struct layout_slot *s = &f->l->slots[field];
    uint64_t word = 0, mask = s->bits ? ((UINT64_C(1) << s->bits) - 1) << s->shift : UINT64_MAX;
    if (!layout_has(f->l, field))
        return;
    uint8_t *p = timg_at(f, base + (uint64_t)s->offset, s->width);
    memcpy(&word, p, s->width);
    word = (word & ~mask) | ((v << s->shift) & mask);
    memcpy(p, &word, s->width);
}

/* What malloc gives: a chunk in use. */
TIMG_FN uint64_t timg_alloc(struct timg *f, uint64_t n)
{
    uint64_t addr = f->brk + 16, usable = round_up(n + 8, 16) - 8;
    f->brk += usable + 8;
    f->failed |= f->sorted || f->brk > TIMG_HEAP + TIMG_HEAP_BYTES ||
                 blocks_add_chunk(&f->blocks, addr, usable, NULL) < 0;
    return addr;
}

/* ---- names, tracebacks ---- */

TIMG_FN uint64_t timg_str(struct timg *f, const uint32_t *chars, size_t n, unsigned width)
{
    const struct layout *l = f->l;
    bool ascii = width == 1;
    for (size_t i = 0; i < n; i++)
        ascii &= chars[i] < 128;
    uint64_t size = layout_size(l, ascii ? LF_str_ascii_sizeof : LF_str_compact_sizeof);
    uint64_t obj = timg_alloc(f, size + (n + 1) * width);
    timg_put(f, obj, LF_ob_type, TIMG_DATA + TIMG_STR_TYPE);
    timg_put(f, obj, LF_str_length, n);
    timg_put(f, obj, LF_str_kind, width);
    timg_put(f, obj, LF_str_compact, 1);
    timg_put(f, obj, LF_str_ascii, ascii);
    for (size_t i = 0; i < n; i++)
        memcpy(timg_at(f, obj + size + i * width, width), &chars[i], width);
    return obj;
}

TIMG_FN uint64_t timg_cstr(struct timg *f, const char *s)
{
    uint64_t at = timg_alloc(f, strlen(s) + 1);
    memcpy(timg_at(f, at, strlen(s) + 1), s, strlen(s) + 1);
    return at;
}

/* As the snapshot has them: a lone surrogate is the byte that it stands for. */
static const char *const timg_name[TIMG_NAMES] = {"plain.py", "caf\xc3\xa9.py",
                                                  "\xe4\xb8\xad\x80.py", "\xf0\x9f\x98\x80.py"};

TIMG_FN void timg_names(struct timg *f)
{
    static const uint32_t a[] = {'p', 'l', 'a', 'i', 'n', '.', 'p', 'y'};
    static const uint32_t b[] = {'c', 'a', 'f', 0xe9, '.', 'p', 'y'};
    static const uint32_t c[] = {0x4e2d, 0xdc80, '.', 'p', 'y'}, d[] = {0x1f600, '.', 'p', 'y'};
    if (f->py.traits->tracemalloc_filename_utf8) {
        for (int i = 0; i < TIMG_NAMES; i++)
            f->names[i] = timg_cstr(f, i == 2 ? "\xe4\xb8\xad\xed\xb2\x80.py" : timg_name[i]);
        return;
    }
    f->names[0] = timg_str(f, a, 8, 1);
    f->names[1] = timg_str(f, b, 7, 1);
    f->names[2] = timg_str(f, c, 5, 2);
    f->names[3] = timg_str(f, d, 4, 4);
}

TIMG_FN uint64_t timg_traceback(struct timg *f, unsigned n)
{
    uint64_t stride = layout_size(f->l, LF_tbframe_size);
    uint64_t at = timg_alloc(f, layout_offset(f->l, LF_tb_frames) + n * stride);
    timg_put(f, at, LF_tb_hash, 1000 + n);
    timg_put(f, at, LF_tb_nframe, n);
    timg_put(f, at, LF_tb_total_nframe, n + 10);
    for (unsigned i = 0; i < n; i++) {
        uint64_t frame = at + layout_offset(f->l, LF_tb_frames) + i * stride;
        timg_put(f, frame, LF_tbframe_filename, f->names[(n + i) % TIMG_NAMES]);
        timg_put(f, frame, LF_tbframe_lineno, 100 * n + i);
    }
    return at;
}

/* ---- tables ---- */

TIMG_FN uint64_t timg_table(struct timg *f, uint64_t nbuckets, unsigned key, unsigned data)
{
    uint64_t at = timg_alloc(f, layout_size(f->l, LF_htab_size));
    uint64_t buckets = timg_alloc(f, nbuckets * 8);
    timg_put(f, at, LF_htab_nbuckets, nbuckets);
    timg_put(f, at, LF_htab_buckets, buckets);
    timg_put(f, at, LF_htab_key_size, key);
    timg_put(f, at, LF_htab_data_size, data);
    static const enum layout_field functions[] = {LF_htab_get_entry_func, LF_htab_hash_func,
                                                  LF_htab_compare_func, LF_htab_malloc,
                                                  LF_htab_free};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        timg_put(f, at, functions[i], TIMG_TEXT + 16 * i);
    f->overhead += layout_size(f->l, LF_htab_size) + nbuckets * 8;
    return at;
}

TIMG_FN uint64_t timg_load(struct timg *f, uint64_t base, enum layout_field field)
{
    return layout_load_at(f->l, timg_at(f, base + layout_offset(f->l, field), 8), field);
}

/* Puts the entry at the head of its bucket, as CPython does. */
TIMG_FN void timg_link(struct timg *f, uint64_t table, uint64_t entry, uint64_t hash)
{
    uint64_t n = timg_load(f, table, LF_htab_nbuckets);
    uint64_t bucket = timg_load(f, table, LF_htab_buckets) + (hash & (n - 1)) * 8;
    timg_put(f, entry, LF_htent_key_hash, hash);
    timg_put(f, entry, LF_htent_next, load_u64(timg_at(f, bucket, 8)));
    timg_u64(f, bucket, entry);
    timg_put(f, table, LF_htab_nentries, timg_load(f, table, LF_htab_nentries) + 1);
}

/* 3.8: `record` has the entry's own data or is NULL. */
TIMG_FN uint64_t timg_entry(struct timg *f, uint64_t table, uint64_t key, uint64_t value,
                            uint32_t domain, const uint64_t *record)
{
    uint64_t head = layout_size(f->l, LF_htent_size), bytes = head;
    uint64_t hash = key >> 4 | key << 60;
    if (!f->py.traits->hashtable_inline) {
        uint64_t at = timg_alloc(f, head);
        timg_put(f, at, LF_htent_key, key);
        timg_put(f, at, LF_htent_value, value);
        timg_link(f, table, at, hash);
        f->overhead += head;
        return at;
    }
    uint64_t key_size = timg_load(f, table, LF_htab_key_size);
    bytes += key_size + timg_load(f, table, LF_htab_data_size);
    uint64_t at = timg_alloc(f, bytes);
    timg_u64(f, at + head, key);
    if (key_size > 8)
        memcpy(timg_at(f, at + head + 8, 4), &domain, 4);
    if (record)
        memcpy(timg_at(f, at + head + key_size, 16), record, 16);
    timg_link(f, table, at, hash);
    f->overhead += bytes;
    return at;
}

/* One trace; *record: where its trace_t is. */
TIMG_FN uint64_t timg_trace(struct timg *f, uint64_t table, uint64_t addr, uint64_t size,
                            uint64_t traceback, uint32_t domain, uint64_t *record)
{
    uint64_t own[2] = {size, traceback};
    f->sum += size;
    if (f->py.traits->hashtable_inline)
        return timg_entry(f, table, addr, 0, domain, own);
    *record = timg_alloc(f, layout_size(f->l, LF_trace_size_of));
    timg_put(f, *record, LF_trace_size, size);
    timg_put(f, *record, LF_trace_traceback, traceback);
    return timg_entry(f, table, addr, *record, 0, NULL);
}

/* Block i: the program sees it `front` behind its start; the last ones are gone. */
TIMG_FN uint64_t timg_block(struct timg *f, int i)
{
    return i < TIMG_TRACES - TIMG_GONE ? timg_alloc(f, 40) + f->front
                                       : 0x7f0000000000u + (uint64_t)i * 64;
}

TIMG_FN void timg_fill(struct timg *f)
{
    bool in_line = f->py.traits->hashtable_inline;
    uint64_t unused;
    f->tables[0] = timg_table(f, 256, in_line ? 12 : 0, in_line ? 16 : 0);
    f->tables[2] = timg_table(f, 16, in_line ? 8 : 0, 0);
    f->tables[3] = timg_table(f, 16, in_line ? 8 : 0, 0);
    for (int i = 0; i < TIMG_NAMES; i++)
        timg_entry(f, f->tables[3], f->names[i], 0, 0, NULL);
    for (unsigned i = 0; i < TIMG_TRACEBACKS; i++) {
        f->tracebacks[i] = timg_traceback(f, i + 1);
        timg_entry(f, f->tables[2], f->tracebacks[i], 0, 0, NULL);
    }
    for (int i = 0; i < TIMG_TRACES; i++)
        f->entry[i] = timg_trace(f, f->tables[0], timg_block(f, i), 16 + (uint64_t)(i % 3),
                                 f->tracebacks[i % TIMG_TRACEBACKS], 0, &f->record[i]);
    for (int d = 0; d < TIMG_DOMAINS; d++) {
        f->tables[4 + d] = in_line ? f->tables[0] : timg_table(f, 32, 0, 0);
        for (uint64_t i = 0; i < TIMG_FOREIGN; i++)
            timg_trace(f, f->tables[4 + d], 0x600000000000u + i * 4096, 1000 + i, f->tracebacks[d],
                       timg_domain[d], &unused);
    }
    uint64_t so_far = f->overhead; /* the table of domains itself is not counted */
    if (!in_line) {
        f->tables[1] = timg_table(f, 16, 0, 0);
        for (int d = 0; d < TIMG_DOMAINS; d++)
            timg_entry(f, f->tables[1], timg_domain[d], f->tables[4 + d], 0, NULL);
    }
    f->overhead = so_far;
}

/* ---- where they are ---- */

TIMG_FN void timg_settings(struct timg *f, uint64_t initialized, uint64_t tracing)
{
    bool in_runtime = f->py.traits->tracemalloc == TRACEMALLOC_RUNTIME;
    timg_put(f, f->state, in_runtime ? LF_tm_initialized : LF_tmconf_initialized, initialized);
    timg_put(f, f->state, in_runtime ? LF_tm_tracing : LF_tmconf_tracing, tracing);
    timg_put(f, f->state, in_runtime ? LF_tm_max_nframe : LF_tmconf_max_nframe, TIMG_LIMIT);
}

/* `shift`: 3.12+: so far from where the layout says. */
TIMG_FN void timg_place(struct timg *f, uint64_t shift)
{
    if (f->py.traits->tracemalloc == TRACEMALLOC_RUNTIME) {
        f->py.runtime = TIMG_DATA;
        f->state = TIMG_DATA + layout_offset(f->l, LF_rt_tracemalloc) % 0x6000 + shift;
        f->py.layout.slots[LF_rt_tracemalloc].offset = (int32_t)(f->state - TIMG_DATA - shift);
        timg_put(f, f->state, LF_tm_traces, f->tables[0]);
        timg_put(f, f->state, LF_tm_domains, f->tables[1]);
        timg_put(f, f->state, LF_tm_tracebacks, f->tables[2]);
        timg_put(f, f->state, LF_tm_filenames, f->tables[3]);
        timg_put(f, f->state, LF_tm_traced_memory, f->sum);
        timg_put(f, f->state, LF_tm_peak_traced_memory, TIMG_PEAK);
    } else {
        uint64_t at = TIMG_DATA + TIMG_STATICS;
        f->state = f->module.tracemalloc_config = TIMG_DATA + 0x100;
        timg_u64(f, at, f->tables[3]);
        timg_u64(f, at + 8, f->tables[2]);
        timg_u64(f, at + 16, f->tables[0]);
        timg_u64(f, at + 24, f->tables[1]);
        timg_u64(f, at + 64, TIMG_PEAK);
        timg_u64(f, at + 72, f->sum);
    }
    timg_settings(f, 1, 1);
}

TIMG_FN int timg_read(struct timg *f, bool join, struct err *err)
{
    struct tracing t;
    if (!f->sorted && blocks_sort(&f->blocks, true, NULL) < 0)
        return ERR_NOMEM;
    f->sorted = true;
    snapshot_release(&f->snap);
    snapshot_init(&f->snap);
    notes_init(&f->notes, &f->snap);
    free(f->blocks.sites);
    f->blocks.sites = NULL;
    for (size_t i = 0; i < f->blocks.n; i++)
        block_set(&f->blocks, i, BLOCK_UNOWNED, BLOCK_NO_TYPE);
    f->o.blocks = join ? &f->blocks : NULL;
    int rc = tracing_read(&f->o, &f->snap, &t, err);
    if (rc == 0 && join)
        rc = tracing_mark(&t, &f->blocks, err);
    if (rc == 0)
        rc = sites_join(&t, &f->o, f->o.blocks, &f->snap, err);
    tracing_release(&t);
    return rc;
}

TIMG_FN bool timg_build(struct timg *f, const struct layout *l, uint64_t front)
{
    memset(f, 0, sizeof *f);
    f->l = l;
    f->front = front;
    f->brk = TIMG_HEAP;
    f->bytes[0] = calloc(1, TIMG_DATA_BYTES);
    f->bytes[1] = calloc(1, TIMG_HEAP_BYTES);
    struct mem_image_piece pieces[] = {{TIMG_DATA, f->bytes[0], TIMG_DATA_BYTES},
                                       {TIMG_HEAP, f->bytes[1], TIMG_HEAP_BYTES}};
    snapshot_init(&f->snap);
    blocks_init(&f->blocks);
    f->blocks.debug_front = front;
    f->py = (struct cpython){.layout = *l,
                             .layout_exact = true,
                             .hexversion = l->hexversion,
                             .traits = layout_traits(layout_minor(l->hexversion)),
                             .module = &f->module};
    if (!f->bytes[0] || !f->bytes[1] || mem_image_new(pieces, 2, &f->mem, NULL) < 0)
        return false;
    f->vmas[0] = (struct vma){.start = TIMG_TEXT,
                              .end = TIMG_TEXT + TIMG_TEXT_BYTES,
                              .r = true,
                              .x = true,
                              .kind = VMA_FILE};
    f->vmas[1] = (struct vma){.start = TIMG_DATA,
                              .end = TIMG_DATA + TIMG_DATA_BYTES,
                              .r = true,
                              .w = true,
                              .kind = VMA_FILE};
    f->vmas[2] = (struct vma){.start = TIMG_HEAP,
                              .end = TIMG_HEAP + TIMG_HEAP_BYTES,
                              .r = true,
                              .w = true,
                              .kind = VMA_HEAP};
    f->list = (struct vma_list){f->vmas, 3};
    f->module.n_data = 1;
    f->module.data[0] = (struct cpython_range){TIMG_DATA, TIMG_DATA + TIMG_DATA_BYTES};
    f->in = (struct cpython_input){.mem = f->mem, .vmas = &f->list};
    f->o = (struct objects){.in = &f->in, .py = &f->py, .notes = &f->notes, .far = f->mem};
    types_init(&f->o.types);
    timg_put(f, TIMG_DATA + TIMG_STR_TYPE, LF_type_flags, 1u << 28);
    timg_names(f);
    timg_fill(f);
    timg_place(f, 0);
    return !f->failed;
}

TIMG_FN void timg_release(struct timg *f)
{
    types_release(&f->o.types);
    blocks_release(&f->blocks);
    snapshot_release(&f->snap);
    mem_close(f->mem);
    free(f->bytes[0]);
    free(f->bytes[1]);
}

#endif
