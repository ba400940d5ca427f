/* What freelists keep: blocks in use for the allocator, dead for the program.
 *
 * Most of it objects.c recognises by a reference count of 0. Here is what has lost its type or its
 * count to the list's link: floats of 3.8-3.13 (link in place of the type), everything since 3.14
 * (link in the block's first word), and what is no object: tables of keys, pieces of the
 * collector's stacks. */
#include "walker/cpython/own.h"

enum { POINTER = 8, MAX_KEPT = 1 << 16 };

/* A freelist's pointer leads to the object, which has up to 32 bytes in front of it, and more of
 * the debug hooks in a chunk. */
static size_t kept_slot(const struct objects *o, uint64_t addr, uint64_t *block)
{
    enum { MAX_PRE = 48, PRE_STEP = 16 };
    size_t slot = addr ? blocks_find(o->blocks, addr, block) : SIZE_MAX;
    if (slot == SIZE_MAX)
        return SIZE_MAX;
    uint64_t pre = addr - *block - o->blocks->debug_front;
    return pre <= MAX_PRE && pre % PRE_STEP == 0 ? slot : SIZE_MAX;
}

static uint32_t type_at(struct objects *o, uint64_t obj)
{
    uint64_t at;
    const struct type_info *t =
        objects_field(o, obj, LF_ob_type, &at) && at ? types_get(o, at) : NULL;
    return t ? types_index(o, t) : BLOCK_NO_TYPE;
}

/* Up to n blocks from `first` on, each with the address of the next `link` bytes behind its start.
 * `type`: of all of them; where they are objects, each says its own. */
static void mark_chain(struct objects *o, uint64_t first, uint64_t n, uint64_t link, uint32_t type,
                       bool typed)
{
    uint64_t block;
    for (uint64_t i = 0; first && i < n && i < MAX_KEPT; i++) {
        size_t slot = kept_slot(o, first, &block);
        if (slot == SIZE_MAX)
            return;
        /* Only a link in place of the count lets the dead look alive. */
        if (typed || block_kind(o->blocks, slot) != BLOCK_OBJECT)
            block_set(o->blocks, slot, BLOCK_DEAD, typed ? type_at(o, first) : type);
        if (mem_u64(o->far, first + link, &first, NULL) < 0)
            return;
    }
}

static void mark_array(struct objects *o, uint64_t base, enum layout_field items, uint64_t n,
                       uint32_t type)
{
    uint64_t at, block;
    if (!layout_has(&o->py->layout, items))
        return;
    const struct layout_slot *s = &o->py->layout.slots[items];
    for (uint64_t i = 0; i < n && i < s->count; i++) {
        if (mem_u64(o->far, base + (uint64_t)s->offset + i * s->width, &at, NULL) < 0)
            return;
        size_t slot = kept_slot(o, at, &block);
        if (slot != SIZE_MAX && block_kind(o->blocks, slot) == BLOCK_UNOWNED)
            block_set(o->blocks, slot, BLOCK_DEAD, type);
    }
}

static void mark_floats(struct objects *o, uint64_t base, enum layout_field first,
                        enum layout_field number)
{
    uint64_t at, n;
    if (objects_field(o, base, first, &at) && objects_field(o, base, number, &n))
        mark_chain(o, at, n, layout_offset(&o->py->layout, LF_ob_type), types_named(o, "float"),
                   false);
}

static void mark_keys(struct objects *o, uint64_t base, enum layout_field items,
                      enum layout_field number)
{
    uint64_t n;
    if (objects_field(o, base, number, &n))
        mark_array(o, base, items, n, types_named(o, "dict"));
}

/* 3.14+ */
static void mark_chains(struct objects *o, uint64_t base)
{
    static const struct {
        enum layout_field list;
        const char *type; /* NULL: objects, which say it themselves; "": of none */
    } lists[] = {
        {LF_fl_floats, NULL},
        {LF_fl_complexes, NULL},
        {LF_fl_ints, NULL},
        {LF_fl_tuples, NULL},
        {LF_fl_lists, NULL},
        {LF_fl_list_iters, NULL},
        {LF_fl_tuple_iters, NULL},
        {LF_fl_dicts, NULL},
        {LF_fl_dictkeys, "dict"},
        {LF_fl_slices, NULL},
        {LF_fl_ranges, NULL},
        {LF_fl_range_iters, NULL},
        {LF_fl_contexts, NULL},
        {LF_fl_async_gens, NULL},
        {LF_fl_async_gen_asends, NULL},
        {LF_fl_futureiters, NULL},
        {LF_fl_object_stack_chunks, ""},
        {LF_fl_unicode_writers, ""},
        {LF_fl_bytes_writers, ""},
        {LF_fl_pycfunctions, NULL},
        {LF_fl_pycmethods, NULL},
        {LF_fl_pymethods, NULL},
    };
    const struct layout *l = &o->py->layout;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        if (!layout_has(l, lists[i].list))
            continue;
        const struct layout_slot *s = &l->slots[lists[i].list];
        for (uint32_t k = 0; k < s->count; k++) {
            uint64_t list = base + (uint64_t)s->offset + (uint64_t)k * s->width, first, n;
            if (!objects_field(o, list, LF_freelist_first, &first) ||
                !objects_field(o, list, LF_freelist_size, &n))
                break;
            mark_chain(o, first, n, 0, lists[i].type ? types_named(o, lists[i].type) : 0,
                       !lists[i].type);
        }
    }
}

/* struct _Py_object_freelists (3.13) or struct _Py_freelists (3.14+). */
static void mark_lists_at(struct objects *o, uint64_t base)
{
    uint64_t at;
    if (o->py->traits->freelists == FREELISTS_CHAINS) {
        mark_chains(o, base);
        return;
    }
    mark_floats(o, base, LF_fl_floats_items, LF_fl_floats_n);
    mark_keys(o, base, LF_fl_dictkeys_items, LF_fl_dictkeys_n);
    if (objects_field(o, base, LF_fl_object_stacks_items, &at))
        mark_chain(o, at, MAX_KEPT, 0, BLOCK_NO_TYPE, false);
}

static void mark_threads(struct objects *o, uint64_t interp)
{
    uint64_t ts;
    const struct layout *l = &o->py->layout;
    if (!layout_has(l, LF_tsi_freelists) || !objects_field(o, interp, LF_interp_threads_head, &ts))
        return;
    for (int i = 0; ts && i < MAX_KEPT; i++) {
        mark_lists_at(o, ts + layout_offset(l, LF_tsi_freelists));
        if (!objects_field(o, ts, LF_ts_next, &ts))
            return;
    }
}

/* ---- 3.8, 3.9: lists in variables that have no name ---- */

/* A chain of at least two blocks of one size, each {0, next}: a single one could be anything. */
static uint64_t float_chain(struct objects *o, const struct blocks_span *span, uint64_t first)
{
    enum { MAX_FLOATS = 100, MAX_FLOAT_BLOCK = 64 };
    uint64_t n = 0, size = 0, link = layout_offset(&o->py->layout, LF_ob_type), word;
    for (; first && n <= MAX_FLOATS; n++) {
        struct block_place place;
        size_t slot = unowned_at(o, span, first);
        if (slot == SIZE_MAX || mem_u64(o->far, first, &word, NULL) < 0 || word != 0)
            return 0;
        blocks_place(o->blocks, slot, &place);
        if ((size && place.size != size) || place.size > MAX_FLOAT_BLOCK ||
            place.size < layout_size(&o->py->layout, LF_float_sizeof) ||
            mem_u64(o->far, first + link, &first, NULL) < 0)
            return 0;
        size = place.size;
    }
    return !first && n >= 2 ? n : 0;
}

static bool dead_keys(struct objects *o, uint64_t addr, size_t slot)
{
    struct dict_keys k;
    struct block_place place;
    uint64_t lookup, left;
    blocks_place(o->blocks, slot, &place);
    return dict_keys_read(o, addr, &k) && k.refcnt == 0 && k.slots && k.bytes <= place.size &&
           k.bytes + 2 * POINTER + 4 * o->blocks->debug_front > place.size &&
           objects_field(o, addr, LF_keys_lookup, &lookup) && lookup &&
           objects_field(o, addr, LF_keys_usable, &left) && left <= k.slots;
}

static void mark_static(struct objects *o, const struct blocks_span *span, uint64_t word,
                        const uint32_t types[2])
{
    size_t slot = unowned_at(o, span, word);
    if (slot == SIZE_MAX)
        return;
    uint64_t n = float_chain(o, span, word);
    if (n)
        mark_chain(o, word, n, layout_offset(&o->py->layout, LF_ob_type), types[0], false);
    else if (dead_keys(o, word, slot))
        block_set(o->blocks, slot, BLOCK_DEAD, types[1]);
}

static void mark_statics(struct objects *o)
{
    const struct cpython_module *m = o->py->module;
    const struct blocks_span span = blocks_span(o->blocks);
    const uint32_t types[2] = {types_named(o, "float"), types_named(o, "dict")};
    for (size_t i = 0; m && i < m->n_data; i++)
        for (uint64_t at = m->data[i].start; at + POINTER <= m->data[i].end; at += POINTER) {
            uint64_t word;
            const uint8_t *p = mem_window_at(&o->near, at, POINTER);
            if (!p)
                continue;
            __builtin_memcpy(&word, p, sizeof word);
            mark_static(o, &span, word, types);
        }
}

void freelists_mark(struct objects *o)
{
    const struct layout *l = &o->py->layout;
    if (o->py->traits->freelists == FREELISTS_STATIC) {
        mark_statics(o);
        return;
    }
    for (size_t i = 0; i < o->py->n_interpreters; i++) {
        uint64_t interp = o->py->interpreters[i];
        mark_floats(o, interp, LF_interp_fl_float, LF_interp_fl_float_n);
        mark_keys(o, interp, LF_interp_fl_keys, LF_interp_fl_keys_n);
        if (layout_has(l, LF_interp_freelists))
            mark_lists_at(o, interp + layout_offset(l, LF_interp_freelists));
        mark_threads(o, interp);
    }
}
