/* What objects own, on every layout: images of heaps that are built field by field, and damaged
 * ones. The truth on real interpreters is tests/e2e/test_types.py's. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "tests/lib/tap.h"
#include "walker/cpython/object_place.h"
#include "walker/cpython/own.h"
#include "walker/note.h"

enum {
    SLOT = 1024,
    SLOTS = 64,
    CHUNKS = 8,
    CHUNK = 0x1000,
    SMALL = 32, /* a pool of blocks for floats ... */
    SMALL_AT = 0x20000,
    KEYS = 176, /* ... and one for the smallest tables of keys */
    KEYS_AT = 0x21000,
    FEW = 16,
    STATICS = 0x40000,
    STATICS_END = 0x50000,
    IMAGE = 0x100000
};
static const uint64_t BASE = 0x7f0000000000;

struct heap {
    const struct layout *l;
    uint8_t *bytes;
    struct mem *mem;
    struct snapshot snap;
    struct notes notes;
    struct cpython py;
    struct cpython_input in;
    struct cpython_module module;
    struct blocks blocks;
    struct objects o;
    size_t used, chunks;
    uint64_t conflicts, conflict_bytes;
};

static void put_u64(struct heap *h, uint64_t addr, uint64_t v)
{
    memcpy(h->bytes + (addr - BASE), &v, sizeof v);
}

/* Element i of a field; bit fields too. A field that this release lacks is left alone. */
static void put_nth(struct heap *h, uint64_t base, enum layout_field f, uint64_t i, uint64_t v)
{
    const struct layout_slot *s = &h->l->slots[f];
    if (!layout_has(h->l, f))
        return;
    uint8_t *p = h->bytes + (base - BASE) + s->offset + i * s->width;
    uint64_t word = 0, mask = s->bits ? ((UINT64_C(1) << s->bits) - 1) << s->shift : UINT64_MAX;
    memcpy(&word, p, s->width);
    word = (word & ~mask) | ((v << s->shift) & mask);
    memcpy(p, &word, s->width);
}

static void put(struct heap *h, uint64_t base, enum layout_field f, uint64_t v)
{
    put_nth(h, base, f, 0, v);
}

static const char *build(struct heap *h, const struct layout *l, uint64_t front)
{
    static const uint8_t all[SLOTS] = {[0 ... SLOTS - 1] = 1};
    memset(h, 0, sizeof *h);
    h->l = l;
    h->bytes = calloc(1, IMAGE);
    struct mem_image_piece piece = {BASE, h->bytes, IMAGE};
    if (!h->bytes || mem_image_new(&piece, 1, &h->mem, NULL) < 0)
        return "no memory";
    snapshot_init(&h->snap);
    notes_init(&h->notes, &h->snap);
    h->py = (struct cpython){.layout = *l,
                             .hexversion = l->hexversion,
                             .free_threaded = l->free_threaded,
                             .traits = layout_traits(layout_minor(l->hexversion)),
                             .module = &h->module};
    h->module.n_data = 1;
    h->module.data[0] = (struct cpython_range){BASE + STATICS, BASE + STATICS_END};
    h->in = (struct cpython_input){.mem = h->mem};
    h->o = (struct objects){
        .in = &h->in, .py = &h->py, .blocks = &h->blocks, .notes = &h->notes, .far = h->mem};
    types_init(&h->o.types);
    blocks_init(&h->blocks);
    h->blocks.debug_front = front;
    int rc = blocks_add_run(&h->blocks, BASE, SLOT, SLOTS, all, NULL);
    if (rc == 0)
        rc = blocks_add_run(&h->blocks, BASE + SMALL_AT, SMALL, FEW, all, NULL);
    if (rc == 0)
        rc = blocks_add_run(&h->blocks, BASE + KEYS_AT, KEYS, FEW, all, NULL);
    for (int i = 0; rc == 0 && i < CHUNKS; i++)
        rc = blocks_add_chunk(&h->blocks, BASE + SLOTS * SLOT + (uint64_t)i * CHUNK, CHUNK - 16,
                              NULL);
    if (rc == 0)
        rc = blocks_sort(&h->blocks, true, NULL);
    if (rc == 0)
        rc = mem_window_init(&h->o.near, h->mem, MEM_WINDOW_BYTES, NULL);
    return rc == 0 ? NULL : "no memory";
}

static void release(struct heap *h)
{
    mem_window_release(&h->o.near);
    types_release(&h->o.types);
    blocks_release(&h->blocks);
    snapshot_release(&h->snap);
    mem_close(h->mem);
    free(h->bytes);
}

/* A type of its own for each kind; the tests do not go through types.c. */
static uint32_t type_of(struct heap *h, const char *name, enum object_kind kind, uint64_t basicsize,
                        uint64_t flags)
{
    struct types *t = &h->o.types;
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 16;
        t->items = realloc(t->items, t->cap * sizeof *t->items);
    }
    t->items[t->n] =
        (struct type_info){.name = name,
                           .module = "",
                           .basicsize = basicsize,
                           .flags = flags,
                           .kind = kind,
                           .pre = (flags & TYPE_HAVE_GC && !h->l->free_threaded ? 16 : 0) +
                                  (flags & TYPE_MANAGED_DICT ? 16 : 0),
                           .heap = flags & TYPE_HEAPTYPE};
    return (uint32_t)t->n++;
}

/* The address that the program sees of a fresh block. */
static uint64_t fresh(struct heap *h)
{
    return BASE + h->used++ * SLOT + h->blocks.debug_front;
}

static uint64_t fresh_chunk(struct heap *h)
{
    return BASE + SLOTS * SLOT + h->chunks++ * CHUNK + h->blocks.debug_front;
}

static uint64_t object(struct heap *h, uint32_t type)
{
    uint64_t addr = fresh(h) + h->o.types.items[type].pre;
    block_set(&h->blocks, blocks_find(&h->blocks, addr, &(uint64_t){0}), BLOCK_OBJECT, type);
    return addr;
}

static size_t slot_of(const struct heap *h, uint64_t addr)
{
    uint64_t start;
    return blocks_find(&h->blocks, addr, &start);
}

static enum block_kind kind_at(const struct heap *h, uint64_t addr)
{
    return block_kind(&h->blocks, slot_of(h, addr));
}

/* addr is a buffer of that object's, and of its type. */
static bool owned(const struct heap *h, uint64_t addr, uint64_t by)
{
    size_t slot = slot_of(h, addr), owner = slot_of(h, by);
    return block_kind(&h->blocks, slot) == BLOCK_BUFFER &&
           h->blocks.owners[slot] == (uint32_t)owner + 1 &&
           block_type(&h->blocks, slot) == block_type(&h->blocks, owner);
}

static uint64_t put_keys(struct heap *h, uint64_t keys, unsigned log2, uint64_t refcnt)
{
    put(h, keys, LF_keys_refcnt, refcnt);
    put(h, keys, LF_keys_size, UINT64_C(1) << log2);
    put(h, keys, LF_keys_log2_size, log2);
    put(h, keys, LF_keys_log2_index_bytes, log2);
    put(h, keys, LF_keys_usable, (UINT64_C(2) << log2) / 3);
    return keys;
}

/* As the pass over all blocks does for what it recognises: here the blocks were told what they are.
 * Then what the interpreter's own memory points to. */
static int own_all(struct heap *h)
{
    struct parting parting;
    struct claims claims;
    struct block_place place;
    struct blocks *b = &h->blocks;
    parting_make(b, b->n, &parting);
    for (size_t i = 0; i < h->o.types.n; i++)
        h->o.types.items[i].owns = type_owns(&h->o, &h->o.types.items[i]);
    claims_init(&claims, &h->o, &parting, 0);
    for (size_t slot = 0; slot < b->n; slot++) {
        uint32_t type = block_type(b, slot);
        blocks_place(b, slot, &place);
        if (block_kind(b, slot) == BLOCK_OBJECT && type < h->o.types.n)
            claims_object(&claims, slot, type,
                          object_in_block(&h->o, &place, &h->o.types.items[type]));
    }
    h->conflicts = claims.conflicts;
    h->conflict_bytes = claims.conflict_bytes;
    claims_release(&claims);
    return runtime_mark(&h->o, NULL);
}

/* ---- one of each kind, on every layout ---- */

static uint64_t a_list(struct heap *h, uint32_t type, uint64_t items, uint64_t n)
{
    uint64_t obj = object(h, type);
    put(h, obj, LF_list_item, items + (h->l->free_threaded ? 8 : 0));
    put(h, obj, LF_list_allocated, n);
    return obj;
}

static void test_sequences(const struct layout *l, uint64_t front)
{
    struct heap h;
    const char *why = build(&h, l, front);
    if (!ok(!why, "%s: a heap", l->name))
        return;
    uint64_t list_size = layout_size(l, LF_list_sizeof), items = fresh(&h);
    uint32_t list = type_of(&h, "list", KIND_LIST, list_size, TYPE_HAVE_GC);
    uint64_t li = a_list(&h, list, items, 10), big = fresh_chunk(&h);
    uint64_t li2 = a_list(&h, list, big, 300), huge = fresh(&h);
    a_list(&h, list, huge, 4000);

    uint64_t set = object(&h, type_of(&h, "set", KIND_SET, layout_size(l, LF_set_sizeof), 0));
    uint64_t small = object(&h, h.o.types.n - 1), table = fresh(&h);
    put(&h, set, LF_set_table, table);
    put(&h, set, LF_set_mask, 31);
    put(&h, small, LF_set_table, small + layout_offset(l, LF_set_smalltable));
    put(&h, small, LF_set_mask, 7);

    uint64_t array =
        object(&h, type_of(&h, "array.array", KIND_ARRAY, layout_size(l, LF_array_sizeof), 0));
    uint64_t cells = fresh(&h), descr = fresh(&h);
    put(&h, array, LF_array_item, cells);
    put(&h, array, LF_array_allocated, 100);
    put(&h, array, LF_array_descr, descr);
    put(&h, descr, LF_arraydescr_itemsize, 8);

    uint64_t bytearray = object(
        &h, type_of(&h, "bytearray", KIND_BYTEARRAY, layout_size(l, LF_bytearray_sizeof), 0));
    uint64_t bytes = fresh(&h);
    put(&h, bytearray, LF_bytearray_bytes, bytes);
    put(&h, bytearray, LF_bytearray_alloc, 77);

    ok(own_all(&h) == 0 && owned(&h, items, li) && owned(&h, big, li2),
       "%s, front %d: a list owns its items, in a pool and in a chunk", l->name, (int)front);
    ok(kind_at(&h, huge) == BLOCK_UNOWNED && owned(&h, big, li2),
       "%s: items that no block of that size can hold are nobody's", l->name);
    ok(owned(&h, table, set) && owned(&h, cells, array), "%s: tables of sets, items of arrays",
       l->name);
    ok(layout_has(l, LF_bytearray_object) ? kind_at(&h, bytes) == BLOCK_UNOWNED
                                          : owned(&h, bytes, bytearray),
       "%s: bytes of a bytearray, unless they are an object", l->name);
    const struct type_info *t = h.o.types.items;
    ok(kind_sizeof(&h.o, &t[0], li) == list_size + 80 &&
           kind_sizeof(&h.o, &t[1], set) == t[1].basicsize + 32 * 16 &&
           kind_sizeof(&h.o, &t[1], small) == t[1].basicsize &&
           kind_sizeof(&h.o, &t[2], array) == t[2].basicsize + 800,
       "%s: their sizes", l->name);
    release(&h);
}

static void test_dicts(const struct layout *l, uint64_t front)
{
    struct heap h;
    if (!ok(!build(&h, l, front), "%s: a heap", l->name))
        return;
    uint32_t dict = type_of(&h, "dict", KIND_DICT, layout_size(l, LF_dict_sizeof), 0);
    uint32_t odict =
        type_of(&h, "collections.OrderedDict", KIND_ODICT, layout_size(l, LF_odict_sizeof), 0);
    uint32_t meta = type_of(&h, "type", KIND_TYPE, layout_size(l, LF_heaptype_sizeof), 0);
    uint64_t a = object(&h, dict), b = object(&h, dict), c = object(&h, dict);
    uint64_t keys = put_keys(&h, fresh(&h), 4, 1), shared = put_keys(&h, fresh(&h), 3, 3);
    put(&h, a, LF_dict_keys, keys);
    put(&h, b, LF_dict_keys, shared);
    put(&h, c, LF_dict_keys, shared);
    /* The type comes behind its instances' dictionaries and has the keys nevertheless. */
    uint64_t cls = object(&h, meta), doc = fresh(&h), name = fresh(&h);
    put(&h, cls, LF_type_flags, TYPE_HEAPTYPE);
    put(&h, cls, LF_heaptype_cached_keys, shared);
    put(&h, cls, LF_type_doc, doc);
    put(&h, cls, LF_heaptype_tpname, name);
    uint64_t values = fresh(&h), at = values;
    if (h.py.traits->dict_values == VALUES_PREFIX) {
        h.bytes[values + 15 - BASE] = 16;
        at = values + 16;
    }
    put(&h, values, LF_values_capacity, 5);
    put(&h, b, LF_dict_values, at);

    uint64_t od = object(&h, odict), fast = fresh(&h), node[3];
    put(&h, od, LF_dict_keys, put_keys(&h, fresh(&h), 3, 1));
    put(&h, od, LF_dict_used, 3);
    put(&h, od, LF_odict_fast_nodes, fast);
    put(&h, od, LF_odict_fast_nodes_size, 8);
    for (int i = 0; i < 3; i++)
        node[i] = fresh(&h);
    put(&h, od, LF_odict_first, node[0]);
    for (int i = 0; i < 3; i++)
        put(&h, node[i], LF_odnode_next, node[(i + 1) % 3]); /* goes round: damaged */

    ok(own_all(&h) == 0 && owned(&h, keys, a) && owned(&h, shared, cls),
       "%s, front %d: keys are the dictionary's, shared ones their type's", l->name, (int)front);
    ok(owned(&h, values, b), "%s: values of a split dictionary", l->name);
    ok(owned(&h, doc, cls) &&
           (layout_has(l, LF_heaptype_tpname) ? owned(&h, name, cls)
                                              : kind_at(&h, name) == BLOCK_UNOWNED),
       "%s: a class owns its texts", l->name);
    ok(owned(&h, fast, od) && owned(&h, node[0], od) && owned(&h, node[2], od),
       "%s: nodes of an OrderedDict, though they go round", l->name);
    ok(h.snap.n_notes == 0, "%s: nothing is claimed twice but what is shared", l->name);
    release(&h);
}

static void test_deque(const struct layout *l, uint64_t front)
{
    struct heap h;
    if (!ok(!build(&h, l, front), "%s: a heap", l->name))
        return;
    uint32_t type =
        type_of(&h, "collections.deque", KIND_DEQUE, layout_size(l, LF_deque_sizeof), 0);
    uint64_t dq = object(&h, type), left = fresh(&h), middle = fresh_chunk(&h), right = fresh(&h);
    uint64_t spare = fresh(&h);
    put(&h, dq, LF_var_size, 130);
    put(&h, dq, LF_deque_leftindex, 10);
    put(&h, dq, LF_deque_leftblock, left);
    put(&h, dq, LF_deque_rightblock, right);
    put(&h, left, LF_dqblock_right, middle);
    put(&h, middle, LF_dqblock_right, right);
    put(&h, dq, LF_deque_numfreeblocks, 1);
    put(&h, dq, LF_deque_freeblocks, spare);
    uint64_t ring = object(&h, type), one = fresh(&h), other = fresh(&h);
    put(&h, ring, LF_var_size, UINT64_C(1) << 60);
    put(&h, ring, LF_deque_leftblock, one);
    put(&h, one, LF_dqblock_right, other);
    put(&h, other, LF_dqblock_right, 0x10); /* leads nowhere */
    ok(own_all(&h) == 0 && owned(&h, left, dq) && owned(&h, middle, dq) && owned(&h, right, dq) &&
           owned(&h, one, ring) && owned(&h, other, ring),
       "%s, front %d: blocks of a deque", l->name, (int)front);
    ok(layout_has(l, LF_deque_freeblocks) ? owned(&h, spare, dq)
                                          : kind_at(&h, spare) == BLOCK_UNOWNED,
       "%s: and those it keeps", l->name);
    ok(kind_sizeof(&h.o, &h.o.types.items[type], dq) ==
               h.o.types.items[type].basicsize + 3 * layout_size(l, LF_dqblock_sizeof) &&
           kind_sizeof(&h.o, &h.o.types.items[type], ring) == 0,
       "%s: its size; none for an absurd length", l->name);
    release(&h);
}

static void test_strings(const struct layout *l, uint64_t front)
{
    struct heap h;
    if (!ok(!build(&h, l, front), "%s: a heap", l->name))
        return;
    uint32_t type = type_of(&h, "str", KIND_STR, layout_size(l, LF_str_sizeof), 0);
    uint64_t ascii = object(&h, type), wide = object(&h, type), legacy = object(&h, type);
    uint64_t utf8 = fresh(&h), data = fresh(&h), stray = fresh(&h);
    put(&h, ascii, LF_str_length, 5);
    put(&h, ascii, LF_str_kind, 1);
    put(&h, ascii, LF_str_compact, 1);
    put(&h, ascii, LF_str_ascii, 1);
    /* Text of an ascii string that looks like a pointer to a cache. */
    put_u64(&h, ascii + layout_size(l, LF_str_ascii_sizeof), stray);
    put(&h, wide, LF_str_length, 7);
    put(&h, wide, LF_str_kind, 2);
    put(&h, wide, LF_str_compact, 1);
    put(&h, wide, LF_str_utf8, utf8);
    put(&h, wide, LF_str_utf8_length, 20);
    put(&h, legacy, LF_str_length, 9);
    put(&h, legacy, LF_str_kind, 4);
    put(&h, legacy, LF_str_data, data);
    ok(own_all(&h) == 0 && owned(&h, utf8, wide) && owned(&h, data, legacy) &&
           kind_at(&h, stray) == BLOCK_UNOWNED,
       "%s, front %d: caches and data of strings", l->name, (int)front);
    const struct type_info *t = h.o.types.items;
    ok(kind_sizeof(&h.o, t, ascii) == layout_size(l, LF_str_ascii_sizeof) + 6 &&
           kind_sizeof(&h.o, t, wide) == layout_size(l, LF_str_compact_sizeof) + 16 + 21 &&
           kind_sizeof(&h.o, t, legacy) == layout_size(l, LF_str_sizeof) + 40,
       "%s: their sizes", l->name);
    release(&h);
}

/* In front of an instance, 3.11 and 3.12. */
static void test_managed(const struct layout *l, uint64_t front)
{
    struct heap h;
    if (!ok(!build(&h, l, front), "%s: a heap", l->name))
        return;
    enum managed_shape shape = h.py.traits->managed;
    uint32_t type = type_of(&h, "app.Session", KIND_OTHER, 16,
                            TYPE_HEAPTYPE | TYPE_HAVE_GC | TYPE_MANAGED_DICT);
    uint64_t before = fresh(&h), obj = object(&h, type), values = fresh(&h);
    h.bytes[values + 23 - BASE] = 24;
    if (shape == MANAGED_TWO_WORDS)
        put_u64(&h, obj - 32, values + 24);
    else
        put_u64(&h, obj - 24, values + 24 - 1);
    bool mine = shape == MANAGED_TWO_WORDS || shape == MANAGED_TAGGED;
    ok(own_all(&h) == 0 && (mine ? owned(&h, values, obj) : kind_at(&h, values) == BLOCK_UNOWNED),
       "%s, front %d: values of an instance hang in front of it in 3.11 and 3.12 only", l->name,
       (int)front);
    ok(kind_at(&h, before) == BLOCK_UNOWNED, "%s: the block before is not its", l->name);
    release(&h);
}

/* ---- who may not own, and what may not be owned ---- */

static void test_rules(const struct layout *l)
{
    struct heap h;
    if (!ok(!build(&h, l, 0), "%s: a heap", l->name))
        return;
    uint32_t list = type_of(&h, "list", KIND_LIST, layout_size(l, LF_list_sizeof), 0);
    uint64_t twice = fresh(&h), dead_items = fresh(&h), middle = fresh(&h);
    uint64_t one = a_list(&h, list, twice, 8), two = a_list(&h, list, twice, 8);
    uint64_t dead = a_list(&h, list, dead_items, 8);
    block_set(&h.blocks, slot_of(&h, dead), BLOCK_DEAD, list);
    uint64_t victim = object(&h, list), robber = a_list(&h, list, BASE, 8);
    uint64_t start = BASE + slot_of(&h, victim) * SLOT;
    put(&h, robber, LF_list_item, start + (l->free_threaded ? 8 : 0));
    a_list(&h, list, middle + 64, 8);
    ok(own_all(&h) == 0 && owned(&h, twice, one) && !owned(&h, twice, two),
       "%s: of two claims the first by address counts", l->name);
    ok(h.conflicts == 2 && h.conflict_bytes == 2 * SLOT, "%s: conflicts are counted", l->name);
    ok(kind_at(&h, dead_items) == BLOCK_UNOWNED, "%s: the dead own nothing", l->name);
    ok(kind_at(&h, victim) == BLOCK_OBJECT, "%s: a live object is nobody's buffer", l->name);
    ok(kind_at(&h, middle) == BLOCK_UNOWNED, "%s: the middle of a block is no buffer", l->name);
    release(&h);
}

/* Two workers: what one claims of the other's blocks is decided when both are through, as if one
 * had done it all, but that each worker's own come first. */
static void test_parts(const struct layout *l)
{
    struct heap h;
    struct claims claims[2];
    struct parting parting;
    struct block_place place;
    if (!ok(!build(&h, l, 0), "%s: a heap", l->name))
        return;
    parting_make(&h.blocks, 1, &parting);
    bool whole = parting.n == MAX_PARTS && parting.run[0] == 0 &&
                 parting.run[MAX_PARTS] == h.blocks.n_runs &&
                 parting.chunk_slot[0] == parting.run_slot[MAX_PARTS] &&
                 parting.chunk_slot[MAX_PARTS] == h.blocks.n;
    for (size_t i = 0; i < MAX_PARTS; i++)
        whole &= parting.run_slot[i] <= parting.run_slot[i + 1] &&
                 parting.chunk_slot[i] <= parting.chunk_slot[i + 1] &&
                 (parting.run[i] == h.blocks.n_runs ||
                  parting.run_slot[i] == h.blocks.runs[parting.run[i]].first);
    ok(whole, "%s: parts are all blocks, each once", l->name);
    /* Within one run, which no parting does. */
    size_t half = SLOTS / 2, runs = h.blocks.n - h.blocks.n_chunks;
    parting = (struct parting){
        .n = 2, .run_slot = {0, half, runs}, .chunk_slot = {runs, runs, h.blocks.n}};
    uint32_t list = type_of(&h, "list", KIND_LIST, layout_size(l, LF_list_sizeof), 0);
    uint32_t mapped = type_of(&h, "mapped", KIND_LIST, layout_size(l, LF_list_sizeof), 0);
    h.o.types.items[list].owns = true;
    uint64_t low = fresh(&h), twice = fresh(&h);
    h.used = half;
    uint64_t high = fresh(&h), contested = fresh(&h), victim = object(&h, list);
    uint64_t from_high = a_list(&h, list, low, 8), robber = a_list(&h, list, contested, 8);
    a_list(&h, list, twice, 8);
    h.used = 2;
    uint64_t from_low = a_list(&h, list, high, 8), loser = a_list(&h, list, contested, 8);
    uint64_t first = a_list(&h, list, twice, 8);
    a_list(&h, list, BASE + slot_of(&h, victim) * SLOT, 8);
    for (size_t i = 0; i < 2; i++) {
        claims_init(&claims[i], &h.o, &parting, i);
        for (size_t slot = parting.run_slot[i]; slot < parting.run_slot[i + 1]; slot++) {
            blocks_place(&h.blocks, slot, &place);
            if (block_kind(&h.blocks, slot) == BLOCK_OBJECT)
                claims_object(&claims[i], slot, list, place.addr);
        }
    }
    ok(kind_at(&h, low) == BLOCK_UNOWNED && kind_at(&h, high) == BLOCK_UNOWNED &&
           claims[0].later[1].n == 3 && claims[1].later[0].n == 2,
       "%s: claims of the other's blocks wait", l->name);
    const uint32_t map[] = {mapped};
    claims_settle(&claims[0], &h.o, &claims[1], map);
    claims_settle(&claims[1], &h.o, &claims[0], NULL);
    ok(block_type(&h.blocks, slot_of(&h, low)) == mapped &&
           h.blocks.owners[slot_of(&h, low)] == slot_of(&h, from_high) + 1,
       "%s: an owner of another part, by its type here", l->name);
    ok(owned(&h, high, from_low) && owned(&h, contested, robber) && !owned(&h, contested, loser) &&
           owned(&h, twice, first) && kind_at(&h, victim) == BLOCK_OBJECT,
       "%s: a part's own come first", l->name);
    ok(claims[0].conflicts == 1 && claims[1].conflicts == 2, "%s: conflicts of both", l->name);
    for (size_t i = 0; i < 2; i++)
        claims_release(&claims[i]);
    release(&h);
}

/* A block that is an object after all, and a type that comes after the dictionary. */
static void test_ranks(const struct layout *l)
{
    struct heap h;
    struct claims claims;
    struct parting parting;
    if (!ok(!build(&h, l, 0), "%s: a heap", l->name))
        return;
    parting_make(&h.blocks, h.blocks.n, &parting);
    uint32_t list = type_of(&h, "list", KIND_LIST, layout_size(l, LF_list_sizeof), 0);
    h.o.types.items[list].owns = true;
    uint64_t robber = fresh(&h), victim = fresh(&h);
    put(&h, robber, LF_list_item, victim + (l->free_threaded ? 8 : 0));
    put(&h, robber, LF_list_allocated, 8);
    claims_init(&claims, &h.o, &parting, 0);
    claims_object(&claims, slot_of(&h, robber), list, robber);
    bool before = owned(&h, victim, robber);
    claims_object(&claims, slot_of(&h, victim), list, victim);
    ok(before && kind_at(&h, victim) == BLOCK_OBJECT && h.blocks.owners[slot_of(&h, victim)] == 0 &&
           claims.conflicts == 1,
       "%s: what was claimed first and is an object then is nobody's", l->name);
    claims_release(&claims);
    release(&h);
}

static void count_emitted(void *ctx, uint64_t addr, uint64_t size)
{
    (void)addr, (void)size;
    ++*(unsigned *)ctx;
}

/* Random bytes in place of objects: every walk ends, and nothing is read that is not there (the
 * sanitizers look on). */
static void test_hostile(const struct layout *l)
{
    struct heap h;
    unsigned emitted = 0;
    bool ended = true;
    if (!ok(!build(&h, l, 0), "%s: a heap", l->name))
        return;
    for (int i = 0; i < KIND_COUNT; i++)
        type_of(&h, "any", (enum object_kind)i, 200, TYPE_MANAGED_DICT | TYPE_HEAPTYPE);
    for (int round = 0; round < 10; round++) {
        for (size_t i = 0; i + 8 <= STATICS_END; i += 8) {
            uint64_t v = (uint64_t)rand() << 40 ^ (uint64_t)rand() << 20 ^ (uint64_t)rand();
            if (rand() % 3 == 0)
                v = BASE + (uint64_t)rand() % STATICS_END / 16 * 16;
            else if (rand() % 2)
                v %= 64;
            memcpy(h.bytes + i, &v, sizeof v);
        }
        for (size_t i = 0; i < h.blocks.n; i++)
            block_set(&h.blocks, i, i % 2 ? BLOCK_OBJECT : BLOCK_UNOWNED,
                      (uint32_t)(i / 2 % KIND_COUNT));
        for (size_t i = 1; i < SLOTS; i += 2) {
            struct block_place place;
            blocks_place(&h.blocks, i, &place);
            const struct type_info *t = &h.o.types.items[i / 2 % KIND_COUNT];
            uint64_t size = kind_sizeof(&h.o, t, place.addr + 32);
            ended = ended && size <= UINT64_C(1) << 47;
            kind_buffers(&h.o, t, place.addr + 32, count_emitted, &emitted);
        }
        freelists_mark(&h.o);
        ended = ended && own_all(&h) == 0;
        extension_infer(&h.o);
        for (size_t i = 1; i < h.blocks.n; i += 2)
            ended = ended && block_kind(&h.blocks, i) == BLOCK_OBJECT;
    }
    ok(ended && emitted > 0, "%s: random bytes, %u buffers emitted, all objects still objects",
       l->name, emitted);
    release(&h);
}

/* ---- numpy, the conservative rule, the runtime ---- */

static void test_extension(const struct layout *l, uint64_t front)
{
    struct heap h;
    if (!ok(!build(&h, l, front), "%s: a heap", l->name))
        return;
    uint64_t head = layout_size(l, LF_ob_sizeof);
    uint32_t nd = type_of(&h, "numpy.ndarray", KIND_NDARRAY, head + 64, 0);
    uint64_t owner = object(&h, nd), view = object(&h, nd), wild = object(&h, nd);
    uint64_t data = fresh_chunk(&h) - front, viewed = fresh(&h), dims = fresh(&h);
    put_u64(&h, dims, 10);
    put_u64(&h, dims + 8, 8);
    put_u64(&h, owner + head, data); /* numpy takes data from malloc: no debug hooks */
    put_u64(&h, owner + head + 8, 1);
    put_u64(&h, owner + head + 16, dims);
    put_u64(&h, owner + head + 24, dims + 8);
    put_u64(&h, owner + head + 48, 4);
    put_u64(&h, view + head, viewed);
    put_u64(&h, wild + head, viewed);
    put_u64(&h, wild + head + 8, 65);
    put_u64(&h, wild + head + 48, 4);
    uint32_t lock = type_of(&h, "_thread.lock", KIND_OTHER, head + 16, 0);
    uint64_t a = object(&h, lock), inner = fresh(&h), beyond = fresh(&h), deeper = fresh(&h);
    put_u64(&h, a + head, inner);
    put_u64(&h, a + head + 16, beyond); /* behind the object's end */
    put_u64(&h, inner, deeper);
    ok(own_all(&h) == 0 && owned(&h, data, owner) && owned(&h, dims, owner),
       "%s, front %d: data, dimensions and strides of an array", l->name, (int)front);
    ok(kind_at(&h, viewed) == BLOCK_UNOWNED, "%s: not of a view, nor of one with 65 dimensions",
       l->name);
    extension_infer(&h.o);
    size_t slot = slot_of(&h, inner);
    ok(block_kind(&h.blocks, slot) == BLOCK_INFERRED && block_type(&h.blocks, slot) == lock &&
           kind_at(&h, beyond) == BLOCK_UNOWNED && kind_at(&h, deeper) == BLOCK_UNOWNED,
       "%s: what another type points to is inferred, one step far", l->name);
    release(&h);
}

static void test_runtime(const struct layout *l)
{
    struct heap h;
    if (!ok(!build(&h, l, 0), "%s: a heap", l->name))
        return;
    uint32_t list = type_of(&h, "list", KIND_LIST, layout_size(l, LF_list_sizeof), 0);
    uint64_t table = fresh(&h), entry = fresh_chunk(&h), inside = fresh(&h), items = fresh(&h);
    uint64_t obj = a_list(&h, list, items, 4);
    put_u64(&h, BASE + STATICS + 0x100, table);
    put_u64(&h, BASE + STATICS + 0x108, inside + 24);
    put_u64(&h, BASE + STATICS + 0x110, items);
    put_u64(&h, table + 40, entry);
    put_u64(&h, entry, table); /* goes round */
    ok(own_all(&h) == 0 && kind_at(&h, table) == BLOCK_RUNTIME &&
           kind_at(&h, entry) == BLOCK_RUNTIME,
       "%s: what the interpreter's data leads to is its own", l->name);
    ok(kind_at(&h, inside) == BLOCK_UNOWNED && owned(&h, items, obj),
       "%s: but not what it points into, nor what an object owns", l->name);
    release(&h);
}

/* ---- freelists ---- */

static void put_list(struct heap *h, uint64_t base, enum layout_field f, uint64_t first, uint64_t n)
{
    if (!layout_has(h->l, f))
        return;
    put(h, base + layout_offset(h->l, f), LF_freelist_first, first);
    put(h, base + layout_offset(h->l, f), LF_freelist_size, n);
}

/* Two floats and a table of keys in the freelists, wherever this release has them. */
static void put_freelists(struct heap *h, uint64_t interp, uint64_t floats, uint64_t keys)
{
    const struct layout *l = h->l;
    uint64_t thread = interp + 0x70000, lists = 0;
    put(h, interp, LF_interp_fl_float, floats);
    put(h, interp, LF_interp_fl_float_n, 2);
    put(h, interp, LF_interp_fl_keys, keys);
    put(h, interp, LF_interp_fl_keys_n, 1);
    put(h, interp, LF_interp_threads_head, thread);
    if (layout_has(l, LF_interp_freelists))
        lists = interp + layout_offset(l, LF_interp_freelists);
    else if (layout_has(l, LF_tsi_freelists))
        lists = thread + layout_offset(l, LF_tsi_freelists);
    if (!lists)
        return;
    put(h, lists, LF_fl_floats_items, floats);
    put(h, lists, LF_fl_floats_n, 2);
    put(h, lists, LF_fl_dictkeys_items, keys);
    put(h, lists, LF_fl_dictkeys_n, 1);
    put_list(h, lists, LF_fl_floats, floats, 2);
    put_list(h, lists, LF_fl_dictkeys, keys, 1);
}

static void test_freelists(const struct layout *l)
{
    struct heap h;
    if (!ok(!build(&h, l, 0), "%s: a heap", l->name))
        return;
    uint64_t interp = BASE + STATICS_END, keys = BASE + KEYS_AT + KEYS;
    /* Free-threaded: a float needs 40 bytes. */
    uint64_t one = l->free_threaded ? fresh(&h) : BASE + SMALL_AT + SMALL;
    uint64_t two = l->free_threaded ? fresh(&h) : BASE + SMALL_AT + 3 * SMALL;
    uint64_t three = l->free_threaded ? fresh(&h) : BASE + SMALL_AT + 4 * SMALL;
    enum freelist_shape shape = h.py.traits->freelists;
    uint32_t dict = type_of(&h, "dict", KIND_DICT, 48, 0), real;
    real = type_of(&h, "float", KIND_OTHER, 24, 0);
    h.py.interpreters = &interp;
    h.py.n_interpreters = 1;
    put_keys(&h, keys, 3, 0);
    put(&h, keys, LF_keys_lookup, BASE);
    if (shape == FREELISTS_STATIC) {
        put_u64(&h, BASE + STATICS + 0x40, one);
        put_u64(&h, BASE + STATICS + 0x80, keys);
    } else {
        put_freelists(&h, interp, one, keys);
    }
    put_u64(&h, one + (shape == FREELISTS_CHAINS ? 0 : layout_offset(l, LF_ob_type)), two);
    freelists_mark(&h.o);
    ok(kind_at(&h, one) == BLOCK_DEAD && kind_at(&h, two) == BLOCK_DEAD &&
           kind_at(&h, three) == BLOCK_UNOWNED,
       "%s: floats that a freelist keeps are dead", l->name);
    ok(shape == FREELISTS_CHAINS || block_type(&h.blocks, slot_of(&h, two)) == real,
       "%s: as floats", l->name);
    ok(kind_at(&h, keys) == BLOCK_DEAD && block_type(&h.blocks, slot_of(&h, keys)) == dict,
       "%s: so are tables of keys", l->name);
    release(&h);
}

/* ---- the collector ---- */

static void ring(struct heap *h, uint64_t head, const uint64_t *nodes, int n)
{
    uint64_t at = head;
    for (int i = 0; i < n; i++) {
        put_u64(h, at, nodes[i] | (i % 2)); /* the low bits are flags */
        put_u64(h, nodes[i] + 8, at | 2);
        at = nodes[i];
    }
    put_u64(h, at, head);
    put_u64(h, head + 8, at);
}

static uint64_t build_gc(struct heap *h, uint64_t runtime, uint64_t interp)
{
    const struct layout *l = h->l;
    uint64_t gc, size = layout_size(l, LF_gcgen_size), nodes[6];
    h->py.runtime = runtime;
    if (layout_has(l, LF_rt_gc)) {
        gc = runtime + layout_offset(l, LF_rt_gc);
    } else {
        put(h, runtime, LF_rt_interp_main, interp);
        gc = interp + layout_offset(l, LF_interp_gc);
    }
    put(h, gc, LF_gc_enabled, 1);
    for (int i = 0; i < 6; i++)
        nodes[i] = fresh(h);
    enum layout_field first = layout_has(l, LF_gc_generations) ? LF_gc_generations : LF_gc_young;
    uint64_t gens = gc + layout_offset(l, first);
    for (uint64_t i = 0; i < GC_GENERATIONS; i++) {
        uint64_t gen = gens + i * size;
        put(h, gen, LF_gcgen_threshold, 100 + i);
        put(h, gen, LF_gcgen_count, 7 + i);
        ring(h, gen, nodes + i * 2, i == 1 ? 0 : 2);
    }
    uint64_t permanent = gc + layout_offset(l, LF_gc_permanent);
    ring(h, permanent, nodes + 2, 1);
    put(h, gc, LF_gc_garbage, nodes[3] + 64);
    put(h, nodes[3] + 64, LF_var_size, 9);
    return gens;
}

static void test_gc(const struct layout *l)
{
    struct heap h;
    if (!ok(!build(&h, l, 0), "%s: a heap", l->name))
        return;
    uint64_t gens = build_gc(&h, BASE + STATICS, BASE + STATICS + 0x2000);
    struct snapshot_gc *g = &h.snap.gc;
    gc_read(&h.in, &h.py, &h.snap, &h.notes);
    ok(g->present && g->enabled && !g->collecting && g->garbage == 9 && g->threshold[0] == 100 &&
           g->threshold[1] == 101 && g->count[1] == 8,
       "%s: what the collector is set to", l->name);
    ok(l->free_threaded ? g->tracked[0] == 0 && h.snap.n_notes == 1
                        : g->generations == 3 && g->tracked[0] == 2 && g->tracked[1] == 0 &&
                              g->tracked[2] == 2 && g->frozen == 1 && h.snap.n_notes == 0,
       "%s: its lists", l->name);
    /* A list that goes round without its head. */
    uint64_t a = load_u64(h.bytes + (gens - BASE)) & ~UINT64_C(3);
    uint64_t b = load_u64(h.bytes + (a - BASE)) & ~UINT64_C(3);
    put_u64(&h, b, b);
    gc_read(&h.in, &h.py, &h.snap, &h.notes);
    ok(h.snap.n_notes >= 1 && strcmp(h.snap.notes[0].what, "gc.lists") == 0,
       "%s: one that does not close is told", l->name);
    release(&h);
}

int main(void)
{
    srand(4);
    for (size_t i = 0; i < layout_count(); i++) {
        const struct layout *l = layout_at(i);
        for (uint64_t front = 0; front <= 16; front += 16) {
            test_sequences(l, front);
            test_dicts(l, front);
            test_deque(l, front);
            test_strings(l, front);
            test_managed(l, front);
            test_extension(l, front);
        }
        test_parts(l);
        test_ranks(l);
        test_rules(l);
        test_runtime(l);
        test_freelists(l);
        test_gc(l);
        test_hostile(l);
    }
    return done_testing();
}
