/* The buffers of an object, by its kind: one function for each kind that has any.
 *
 * An address is given as the program's allocator returned it, also where the object keeps a pointer
 * into the middle. What lies within the object itself, or is shared and static, is left to the
 * caller to find out: no block in use begins there. */
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/own.h"

enum { POINTER = 8 };

struct owner {
    struct objects *o;
    const struct layout *l;
    const struct type_info *t;
    uint64_t obj;
    buffer_fn emit;
    void *ctx;
};

static bool field(const struct owner *w, enum layout_field f, uint64_t *ret)
{
    return objects_field(w->o, w->obj, f, ret);
}

static void emit(const struct owner *w, uint64_t addr, uint64_t size)
{
    if (addr)
        w->emit(w->ctx, addr, size);
}

/* ---- values of instances and dictionaries ---- */

/* 3.11, 3.12: the byte in front of the pointers says how much is in front of them. */
static void values_with_prefix(const struct owner *w, uint64_t values, uint64_t slots)
{
    const uint8_t *p = objects_peek(w->o, values - 1, 1);
    if (p && *p >= POINTER && *p % POINTER == 0)
        emit(w, values - *p, slots ? *p + slots * POINTER : 0);
}

static void values_with_header(const struct owner *w, uint64_t values)
{
    const uint8_t *p = objects_peek(w->o, values, layout_size(w->l, LF_values_sizeof));
    if (!p || layout_load(w->l, p, LF_values_embedded))
        return;
    uint64_t slots = layout_load(w->l, p, LF_values_capacity);
    emit(w, values, slots ? layout_offset(w->l, LF_values_values) + slots * POINTER : 0);
}

static void values_buffer(const struct owner *w, uint64_t values, uint64_t slots)
{
    switch (w->o->py->traits->dict_values) {
    case VALUES_PLAIN:
        emit(w, values, slots * POINTER);
        break;
    case VALUES_PREFIX:
        values_with_prefix(w, values, slots);
        break;
    case VALUES_HEADER:
        values_with_header(w, values);
        break;
    }
}

/* What hangs in front of instances of classes. Since 3.13 their values are part of the object. */
static void managed_values(const struct owner *w)
{
    enum { VALUES = 32, TAGGED = 24 };
    enum managed_shape shape = w->o->py->traits->managed;
    uint64_t at;
    if (!(w->t->flags & TYPE_MANAGED_DICT) ||
        (shape != MANAGED_TWO_WORDS && shape != MANAGED_TAGGED))
        return;
    if (mem_u64(w->o->far, w->obj - (shape == MANAGED_TAGGED ? TAGGED : VALUES), &at, NULL) < 0)
        return;
    if (shape == MANAGED_TWO_WORDS && at)
        values_with_prefix(w, at, 0);
    else if (shape == MANAGED_TAGGED && at & 1)
        values_with_prefix(w, at + 1, 0);
}

/* A table that other dictionaries share is that of their type, which comes first. */
static void dict_buffers(const struct owner *w)
{
    uint64_t keys, values;
    struct dict_keys k;
    const uint8_t *p = objects_peek(w->o, w->obj, layout_end(w->l, LF_dict_values));
    if (!p)
        return;
    keys = layout_load(w->l, p, LF_dict_keys);
    values = layout_load(w->l, p, LF_dict_values);
    if (!dict_keys_read(w->o, keys, &k))
        return;
    emit(w, keys, k.bytes);
    if (values)
        values_buffer(w, values, k.slots);
}

static void odict_buffers(const struct owner *w)
{
    uint64_t node, nodes, used;
    dict_buffers(w);
    if (!field(w, LF_odict_fast_nodes, &nodes) || !field(w, LF_odict_first, &node) ||
        !field(w, LF_dict_used, &used))
        return;
    uint64_t slots = 0, size = layout_size(w->l, LF_odnode_sizeof);
    if (field(w, LF_odict_fast_nodes_size, &slots))
        emit(w, nodes, bytes_of(0, slots, POINTER));
    /* A list that goes round in a damaged heap ends with the number of entries. */
    for (; node && used && used <= w->o->blocks->n; used--) {
        emit(w, node, size);
        if (!objects_field(w->o, node, LF_odnode_next, &node))
            break;
    }
}

/* ---- sequences and sets ---- */

static void list_buffers(const struct owner *w)
{
    const uint8_t *p = objects_peek(w->o, w->obj, layout_end(w->l, LF_list_allocated));
    if (!p)
        return;
    uint64_t items = layout_load(w->l, p, LF_list_item);
    uint64_t size = bytes_of(0, layout_load(w->l, p, LF_list_allocated), POINTER);
    if (!items || !size)
        return;
    /* Free-threaded: the number of items lies in front of them. */
    if (w->o->py->free_threaded)
        emit(w, items - POINTER, size + POINTER);
    else
        emit(w, items, size);
}

static void set_buffers(const struct owner *w)
{
    const uint8_t *p = objects_peek(w->o, w->obj, layout_end(w->l, LF_set_table));
    if (!p)
        return;
    uint64_t table = layout_load(w->l, p, LF_set_table);
    uint64_t mask = layout_load(w->l, p, LF_set_mask),
             entry = layout_size(w->l, LF_setentry_sizeof);
    if (table != w->obj + layout_offset(w->l, LF_set_smalltable) && is_power_of_two(mask + 1))
        emit(w, table, bytes_of(entry, mask, entry));
}

static void bytearray_buffers(const struct owner *w)
{
    uint64_t at, size;
    /* Where the bytes are an object, that one owns itself. */
    if (!layout_has(w->l, LF_bytearray_object) && field(w, LF_bytearray_bytes, &at) &&
        field(w, LF_bytearray_alloc, &size) && size)
        emit(w, at, size);
}

static void array_buffers(const struct owner *w)
{
    enum { MAX_ITEM = 16 };
    uint64_t at, n, descr, width;
    if (field(w, LF_array_item, &at) && field(w, LF_array_allocated, &n) &&
        field(w, LF_array_descr, &descr) &&
        objects_field(w->o, descr, LF_arraydescr_itemsize, &width) && width <= MAX_ITEM)
        emit(w, at, bytes_of(0, n, width));
}

/* One block more than the items need may be there, and some kept for later. */
static void deque_buffers(const struct owner *w)
{
    enum { BLOCK_ITEMS = 64 };
    uint64_t block, right, n, size = layout_size(w->l, LF_dqblock_sizeof);
    if (!field(w, LF_deque_leftblock, &block) || !field(w, LF_deque_rightblock, &right) ||
        !field(w, LF_var_size, &n))
        return;
    for (uint64_t left = n / BLOCK_ITEMS + 2; block && left; left--) {
        emit(w, block, size);
        if (block == right || !objects_field(w->o, block, LF_dqblock_right, &block))
            break;
    }
    if (!field(w, LF_deque_numfreeblocks, &n))
        return;
    const struct layout_slot *s = &w->l->slots[LF_deque_freeblocks];
    for (uint64_t i = 0; i < n && i < s->count; i++)
        if (mem_u64(w->o->far, w->obj + (uint64_t)s->offset + i * s->width, &block, NULL) == 0)
            emit(w, block, size);
}

static void str_buffers(const struct owner *w)
{
    struct str_parts s;
    if (!str_parts_read(w->o, w->obj, &s))
        return;
    emit(w, s.data, s.data_bytes);
    emit(w, s.utf8, s.utf8_bytes);
    emit(w, s.wstr, s.wstr_bytes);
}

/* ---- the interpreter's own kinds ---- */

/* Free-threaded: a copy of the bytecode for each thread, the first within the object. */
static void thread_code(const struct owner *w)
{
    enum { MAX_THREADS = 1 << 16 };
    uint64_t at, n, entry;
    if (!field(w, LF_code_tlbc, &at) || !at || !objects_field(w->o, at, LF_codearray_size, &n) ||
        n > MAX_THREADS)
        return;
    uint64_t first = at + layout_offset(w->l, LF_codearray_entries);
    emit(w, at, layout_offset(w->l, LF_codearray_entries) + n * POINTER);
    for (uint64_t i = 1; i < n; i++)
        if (mem_u64(w->o->far, first + i * POINTER, &entry, NULL) == 0)
            emit(w, entry, 0);
}

static void code_buffers(const struct owner *w)
{
    struct code_parts c;
    code_parts_read(w->o, w->obj, &c);
    for (size_t i = 0; i < c.n; i++)
        emit(w, c.part[i].addr, c.part[i].bytes);
    thread_code(w);
}

/* Only classes that are objects have their texts to themselves; in 3.8-3.10 tp_name is that of the
 * str ht_name. */
static void type_buffers(const struct owner *w)
{
    uint64_t flags, at;
    struct dict_keys k;
    if (!field(w, LF_type_flags, &flags) || !(flags & TYPE_HEAPTYPE))
        return;
    if (field(w, LF_type_doc, &at))
        emit(w, at, 0);
    if (field(w, LF_heaptype_tpname, &at))
        emit(w, at, 0);
    if (field(w, LF_heaptype_cached_keys, &at) && dict_keys_read(w->o, at, &k))
        emit(w, at, k.bytes);
}

static void module_buffers(const struct owner *w)
{
    uint64_t at;
    if (field(w, LF_module_state, &at))
        emit(w, at, 0);
}

void kind_buffers(struct objects *o, const struct type_info *t, uint64_t obj, buffer_fn fn,
                  void *ctx)
{
    static void (*const by_kind[KIND_COUNT])(const struct owner *) = {
        [KIND_TYPE] = type_buffers,           [KIND_STR] = str_buffers,
        [KIND_LIST] = list_buffers,           [KIND_DICT] = dict_buffers,
        [KIND_ODICT] = odict_buffers,         [KIND_SET] = set_buffers,
        [KIND_BYTEARRAY] = bytearray_buffers, [KIND_ARRAY] = array_buffers,
        [KIND_DEQUE] = deque_buffers,         [KIND_CODE] = code_buffers,
        [KIND_MODULE] = module_buffers,
    };
    struct owner w = {o, &o->py->layout, t, obj, fn, ctx};
    managed_values(&w);
    if (t->kind == KIND_NDARRAY)
        ndarray_buffers(o, t, obj, fn, ctx);
    else if (by_kind[t->kind])
        by_kind[t->kind](&w);
}
