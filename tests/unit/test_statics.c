/* Static objects in the data of a made-up module, for every layout: what is proven, what only looks
 * like an object, what it adds up to; then damage, missing pages and failing allocations. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "tests/lib/tap.h"
#include "walker/cpython/object_place.h"
#include "walker/cpython/statics.h"

/* ---- the allocator, made to fail: see test_json_fail.c ---- */

#define WEAK __attribute__((weak))
void *__interceptor_malloc(size_t size) WEAK;
void *__interceptor_calloc(size_t n, size_t size) WEAK;
void *__interceptor_realloc(void *old, size_t size) WEAK;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
#define REAL(fn) (__interceptor_##fn ? __interceptor_##fn : __libc_##fn)

static unsigned long fail_at, calls; /* fail_at 0: never */

static bool fails(void)
{
    return fail_at && ++calls == fail_at;
}

void *malloc(size_t size)
{
    return fails() ? NULL : REAL(malloc)(size);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : REAL(calloc)(n, size);
}

void *realloc(void *old, size_t size)
{
    return fails() ? NULL : REAL(realloc)(old, size);
}

/* ---- the target ---- */

#define TEXT 0x555555554000u
#define DATA 0x555555600000u /* .data: of a file */
#define BSS (DATA + 0x10000) /* behind it, anonymous */
#define HEAP 0x7f0000000000u /* no data of any module */
#define INTERP HEAP

enum {
    TOO_LONG = 300, /* seconds: SIGALRM ends what does not end by itself */
    DATA_BYTES = 0x18000,
    HEAP_BYTES = 0x10000,
    TEXT_BYTES = 0x1000,
    READY = 1 << 12,
    HEAPTYPE = 1 << 9,
    HAVE_GC = 1 << 14,
    IS_INT = 1 << 24,
    IS_TUPLE = 1 << 26,
    IS_BYTES = 1 << 27,
    IS_STR = 1 << 28,
    IS_DICT = 1 << 29,
    MORTAL = 5
};
#define IS_TYPE (1u << 31)

static struct world {
    const struct layout *l;
    uint8_t data[DATA_BYTES], heap[HEAP_BYTES];
    char text[TEXT_BYTES];
    size_t text_used;
    uint64_t next, next_heap; /* free space */
    struct vma vmas[4];
    struct vma_list list;
    struct cpython_range ranges[2];
    struct cpython_module module;
    struct cpython py;
    struct cpython_input in;
    uint64_t interpreters[1];
    struct mem *mem;
    struct blocks blocks;
    struct snapshot snap;
    struct notes notes;
    struct objects o;
    uint64_t type, none_type, str, bytes, tuple, num, flag, flt, moduledef, dict; /* types */
    uint64_t none, hello, items, seven, raw, def, yes;                            /* objects */
} w;

static uint8_t *at(uint64_t addr)
{
    return addr >= HEAP ? w.heap + (addr - HEAP) : w.data + (addr - DATA);
}

static void put64(uint64_t addr, uint64_t v)
{
    memcpy(at(addr), &v, sizeof v);
}

static void put(uint64_t addr, enum layout_field field, uint64_t v)
{
    const struct layout_slot *s = &w.l->slots[field];
    uint64_t old = 0;
    if (!layout_has(w.l, field))
        return;
    memcpy(&old, at(addr + (uint64_t)s->offset), s->width);
    if (s->bits) {
        uint64_t mask = (((uint64_t)1 << s->bits) - 1) << s->shift;
        v = (old & ~mask) | (v << s->shift & mask);
    }
    memcpy(at(addr + (uint64_t)s->offset), &v, s->width);
}

static uint64_t room(uint64_t bytes)
{
    uint64_t addr = w.next;
    w.next += round_up(bytes, 8) + 16; /* words of 0 between objects */
    if (w.next > DATA + DATA_BYTES)
        abort();
    return addr;
}

static uint64_t heap_room(uint64_t bytes)
{
    uint64_t addr = w.next_heap;
    w.next_heap += round_up(bytes, 16);
    if (w.next_heap > HEAP + HEAP_BYTES)
        abort();
    return addr;
}

static uint64_t text(const char *s)
{
    uint64_t addr = TEXT + w.text_used;
    size_t len = strlen(s) + 1;
    if (w.text_used + len > sizeof w.text)
        abort();
    memcpy(w.text + w.text_used, s, len);
    w.text_used += len;
    return addr;
}

/* The count of what a build freezes. */
static uint64_t fixed(void)
{
    switch (w.py.traits->immortal) {
    case IMMORTAL_LOW_NEG:
        return UINT32_MAX;
    case IMMORTAL_HIGH_BIT:
        return w.l->free_threaded ? UINT32_MAX : (uint64_t)5 << 48 | (uint64_t)3 << 30;
    default:
        return 999999999;
    }
}

static void put_object(uint64_t obj, uint64_t type, uint64_t count)
{
    if (layout_has(w.l, LF_ob_ref_local))
        put(obj, LF_ob_ref_local, count);
    else
        put64(obj + layout_offset(w.l, LF_ob_refcnt), count);
    put(obj, LF_ob_type, type);
}

static uint64_t header(void)
{
    return layout_size(w.l, LF_ob_sizeof);
}

static uint64_t make_type(const char *name, uint64_t flags, uint64_t basicsize, uint64_t itemsize)
{
    uint64_t t = room(layout_size(w.l, LF_type_sizeof));
    put_object(t, w.type ? w.type : t, MORTAL);
    put(t, LF_type_name, text(name));
    put(t, LF_type_flags, flags | READY);
    put(t, LF_type_basicsize, basicsize);
    put(t, LF_type_itemsize, itemsize);
    return t;
}

static void put_str(uint64_t obj, const char *s, uint64_t count)
{
    put_object(obj, w.str, count);
    put(obj, LF_str_length, strlen(s));
    put(obj, LF_str_kind, 1);
    put(obj, LF_str_compact, 1);
    put(obj, LF_str_ascii, 1);
    put(obj, LF_str_ready, 1);
    memcpy(at(obj + layout_size(w.l, LF_str_ascii_sizeof)), s, strlen(s) + 1);
}

static uint64_t str_bytes(size_t length)
{
    return layout_size(w.l, LF_str_ascii_sizeof) + length + 1;
}

static uint64_t make_str(const char *s)
{
    uint64_t obj = room(str_bytes(strlen(s)));
    put_str(obj, s, fixed());
    return obj;
}

static uint64_t make_int(uint64_t type, uint32_t value, uint64_t count)
{
    uint64_t obj = room(layout_offset(w.l, LF_int_digit) + 4);
    put_object(obj, type, count);
    if (w.py.traits->int_tagged)
        put(obj, LF_int_tag, value ? 8 : 1);
    else
        put(obj, LF_var_size, value != 0);
    put(obj, LF_int_digit, value);
    return obj;
}

/* {name: value ...} in the heap. */
static uint64_t make_dict(const char *const *names, const uint64_t *values, size_t n)
{
    enum { SLOTS = 16 };
    uint64_t dict = heap_room(layout_size(w.l, LF_dict_sizeof)), keys = heap_room(1024);
    put_object(dict, w.dict, MORTAL);
    put(dict, LF_dict_keys, keys);
    put(keys, LF_keys_refcnt, 1);
    put(keys, LF_keys_size, SLOTS);
    put(keys, LF_keys_log2_size, 4);
    put(keys, LF_keys_log2_index_bytes, 4);
    put(keys, LF_keys_nentries, n);
    uint64_t entry = keys + layout_offset(w.l, LF_keys_indices) + SLOTS;
    for (size_t i = 0; i < n; i++, entry += layout_size(w.l, LF_entry_sizeof)) {
        uint64_t key = heap_room(str_bytes(strlen(names[i])));
        put_str(key, names[i], MORTAL);
        put(entry, LF_entry_key, key);
        put(entry, LF_entry_value, values[i]);
    }
    return dict;
}

static void make_objects(void)
{
    static const char *const names[] = {"None", "True"};
    uint64_t item = layout_offset(w.l, LF_tuple_item);
    w.none = room(header());
    put_object(w.none, w.none_type, 4711);
    w.yes = make_int(w.flag, 1, 300);
    w.hello = make_str("hello");
    w.seven = make_int(w.num, 7, fixed());
    w.items = room(item + 16);
    put_object(w.items, w.tuple, fixed());
    put(w.items, LF_var_size, 2);
    put64(w.items + item, w.hello);
    put64(w.items + item + 8, w.seven);
    w.raw = room(layout_offset(w.l, LF_bytes_sval) + 4);
    put_object(w.raw, w.bytes, fixed());
    put(w.raw, LF_var_size, 3);
    memcpy(at(w.raw + layout_offset(w.l, LF_bytes_sval)), "\377\0x", 4);
    w.def = room(header() + 88);
    put_object(w.def, w.moduledef, MORTAL);
    put64(w.def + header() + 24, text("spam"));
    const uint64_t values[] = {w.none, w.yes};
    put64(INTERP + layout_offset(w.l, LF_interp_builtins), make_dict(names, values, 2));
}

static void reset(const struct layout *l)
{
    memset(&w, 0, sizeof w);
    w.l = l;
    w.next = DATA + 0x100;
    w.next_heap = HEAP + 0x8000;
    w.interpreters[0] = INTERP;
    w.py = (struct cpython){.layout = *l,
                            .module = &w.module,
                            .debug = l->debug,
                            .free_threaded = l->free_threaded,
                            .interpreters = w.interpreters,
                            .n_interpreters = 1,
                            .traits = layout_traits(layout_minor(l->hexversion))};
    w.vmas[0] = (struct vma){.start = TEXT, .end = TEXT + TEXT_BYTES, .r = true, .kind = VMA_FILE};
    w.vmas[1] = (struct vma){.start = DATA, .end = BSS, .r = true, .w = true, .kind = VMA_FILE};
    w.vmas[2] = (struct vma){
        .start = BSS, .end = DATA + DATA_BYTES, .r = true, .w = true, .kind = VMA_ANON};
    w.vmas[3] = (struct vma){
        .start = HEAP, .end = HEAP + HEAP_BYTES, .r = true, .w = true, .kind = VMA_ANON};
    w.list = (struct vma_list){w.vmas, 4};
    w.ranges[0] = (struct cpython_range){DATA, DATA + DATA_BYTES};
    w.type = make_type("type", HAVE_GC | IS_TYPE, layout_size(l, LF_heaptype_sizeof), 40);
    w.module.type_type = w.type;
    w.none_type = make_type("NoneType", 0, header(), 0);
    w.str = make_type("str", IS_STR, layout_size(l, LF_str_sizeof), 0);
    w.bytes = make_type("bytes", IS_BYTES, layout_offset(l, LF_bytes_sval) + 1, 1);
    w.tuple = make_type("tuple", HAVE_GC | IS_TUPLE, layout_offset(l, LF_tuple_item), 8);
    w.num = make_type("int", IS_INT, layout_offset(l, LF_int_digit), 4);
    w.flag = make_type("bool", IS_INT, layout_offset(l, LF_int_digit), 4);
    w.flt = make_type("float", 0, header() + 8, 0);
    w.moduledef = make_type("moduledef", 0, header() + 88, 0);
    w.dict = make_type("dict", HAVE_GC | IS_DICT, layout_size(l, LF_dict_sizeof), 0);
    make_objects();
}

enum { N_TYPES = 10, N_OBJECTS = 7 };

/* Look for static objects in the memory as it is now; `missing`: a page of the data that is not
 * there, or 0. */
static int look(uint64_t missing)
{
    struct mem_image_piece pieces[4] = {{TEXT, w.text, sizeof w.text}};
    size_t n = 1;
    if (missing) {
        pieces[n++] = (struct mem_image_piece){DATA, w.data, missing - DATA};
        uint64_t on = missing + 4096;
        pieces[n++] = (struct mem_image_piece){on, at(on), DATA + DATA_BYTES - on};
    } else {
        pieces[n++] = (struct mem_image_piece){DATA, w.data, sizeof w.data};
    }
    pieces[n++] = (struct mem_image_piece){HEAP, w.heap, sizeof w.heap};
    unsigned long failing = fail_at;
    fail_at = 0;
    if (mem_image_new(pieces, n, &w.mem, NULL) < 0)
        abort();
    w.in = (struct cpython_input){.mem = w.mem,
                                  .vmas = &w.list,
                                  .modules = &w.module,
                                  .n_modules = 1,
                                  .data = w.ranges,
                                  .n_data = 1 + (w.ranges[1].end != 0)};
    snapshot_init(&w.snap);
    notes_init(&w.notes, &w.snap);
    memset(&w.o, 0, sizeof w.o);
    w.o.in = &w.in;
    w.o.py = &w.py;
    w.o.blocks = &w.blocks;
    w.o.notes = &w.notes;
    w.o.far = w.mem;
    types_init(&w.o.types);
    if (mem_window_init(&w.o.near, w.mem, MEM_WINDOW_BYTES, NULL) < 0)
        abort();
    calls = 0;
    fail_at = failing;
    return statics_find(&w.o, NULL);
}

static void done(void)
{
    statics_release(&w.o);
    mem_window_release(&w.o.near);
    types_release(&w.o.types);
    blocks_release(&w.blocks);
    blocks_init(&w.blocks);
    snapshot_release(&w.snap);
    mem_close(w.mem);
}

static const struct static_object *found(uint64_t addr)
{
    for (size_t i = 0; w.o.statics && i < w.o.statics->n; i++)
        if (w.o.statics->items[i].addr == addr)
            return &w.o.statics->items[i];
    return NULL;
}

static bool is(uint64_t addr, uint64_t type, uint64_t bytes, uint64_t head)
{
    const struct static_object *x = found(addr);
    if (x && w.o.types.items[x->type].addr == type && x->bytes == bytes && x->size == bytes + head)
        return true;
    diag("%s: 0x%jx is %s of %ju and %ju bytes, not %ju and %ju", w.l->name, (uintmax_t)addr,
         x ? w.o.types.items[x->type].name : "nothing", (uintmax_t)(x ? x->bytes : 0),
         (uintmax_t)(x ? x->size : 0), (uintmax_t)bytes, (uintmax_t)(bytes + head));
    return false;
}

/* ---- what is there ---- */

static uint64_t gc_bytes(void)
{
    return w.l->free_threaded ? 0 : 16;
}

static void test_found(void)
{
    uint64_t int_bytes = layout_offset(w.l, LF_int_digit) + 4;
    uint64_t type_head = w.py.traits->static_heads ? gc_bytes() : 0;
    int rc = look(0);
    ok(rc == 0 && is(w.type, w.type, layout_size(w.l, LF_type_sizeof), type_head) &&
           is(w.flt, w.type, layout_size(w.l, LF_type_sizeof), type_head),
       "%s: types, also without instances", w.l->name);
    ok(is(w.none, w.none_type, header(), 0) && is(w.yes, w.flag, int_bytes, 0) &&
           is(w.seven, w.num, int_bytes, 0),
       "%s: None, True, an int", w.l->name);
    ok(is(w.hello, w.str, str_bytes(5), 0) &&
           is(w.raw, w.bytes, layout_offset(w.l, LF_bytes_sval) + 4, 0) &&
           is(w.items, w.tuple, layout_offset(w.l, LF_tuple_item) + 16, gc_bytes()),
       "%s: str, bytes, tuple", w.l->name);
    ok(is(w.def, w.moduledef, header() + 88, 0), "%s: a module's definition", w.l->name);
    ok(w.o.statics->n == N_TYPES + N_OBJECTS, "%s: and nothing else: %zu", w.l->name,
       w.o.statics->n);
    done();
}

static void test_sums(void)
{
    struct snapshot_type *types;
    int rc = look(0);
    types = calloc(w.o.types.n + 1, sizeof *types);
    struct snapshot_block *b = snapshot_add_block(&w.snap), *c = snapshot_add_block(&w.snap);
    if (!types || !b || !c)
        abort();
    w.snap.blocks[0] = (struct snapshot_block){.address = w.none + 8, .kind = "object"};
    w.snap.blocks[1] = (struct snapshot_block){.address = HEAP, .kind = "buffer"};
    statics_count(&w.o, types, &w.snap);
    rc = rc < 0 ? rc : statics_rows(&w.o, &w.snap);
    uint64_t index = found(w.none)->type, n = w.snap.n_blocks, sorted = 1, bytes = 0;
    for (size_t i = 1; i < n; i++)
        sorted += w.snap.blocks[i - 1].address < w.snap.blocks[i].address;
    for (size_t i = 0; i < w.o.types.n; i++)
        bytes += types[i].static_bytes;
    ok(rc == 0 && types[index].statics == 1 && types[index].static_bytes == header() &&
           w.snap.objects.statics == w.o.statics->n && w.snap.objects.static_bytes == bytes,
       "%s: sums", w.l->name);
    ok(n == w.o.statics->n + 2 && sorted == n && w.snap.blocks[n - 1].address == HEAP &&
           strcmp(w.snap.blocks[0].kind, "static") == 0 &&
           strcmp(w.snap.blocks[0].type, "type") == 0,
       "%s: rows between those of blocks", w.l->name);
    free(types);
    done();
}

/* ---- what only looks like it ---- */

static void test_pairs(void)
{
    uint64_t pairs[6], twice = room(64), pointers = room(64), heap = HEAP + 0x4000;
    const uint64_t types[] = {w.none_type, w.flt, w.str, w.tuple, w.num, w.moduledef};
    for (size_t i = 0; i < 6; i++) {
        pairs[i] = room(header() + 32);
        put_object(pairs[i], types[i], 48);
    }
    /* A row of pairs, and of pointers. */
    put_object(twice, w.flt, 3);
    put_object(twice + header(), w.flt, 4);
    put_object(pointers, w.flt, w.num);
    put_object(heap, w.none_type, fixed());
    int rc = look(0);
    for (size_t i = 0; i < 6; i++)
        ok(rc == 0 && !found(pairs[i]), "%s: a number and the address of a type, %zu", w.l->name,
           i);
    ok(!found(twice) && !found(twice + header()) && !found(pointers) && !found(heap) &&
           w.o.statics->n == N_TYPES + N_OBJECTS,
       "%s: tables, and what lies elsewhere", w.l->name);
    done();
}

static void test_texts(void)
{
    uint64_t longer = make_str("0123456789"), absurd = make_str("absurd"), odd = make_str("odd");
    uint64_t high = make_str("high"), data = room(64), empty = room(64);
    uint64_t sval = layout_offset(w.l, LF_bytes_sval);
    put(longer, LF_str_length, 9); /* no NUL behind it */
    put(absurd, LF_str_length, UINT64_MAX - 16);
    put(odd, LF_str_kind, 3);
    *at(high + layout_size(w.l, LF_str_ascii_sizeof)) = 0xe9;
    put_object(data, w.bytes, fixed());
    put(data, LF_var_size, INT64_MAX);
    put_object(empty, w.bytes, fixed());
    put(empty, LF_bytes_hash, 12345);
    *at(empty + sval) = 0;
    int rc = look(0);
    ok(rc == 0 && !found(longer) && !found(absurd) && !found(odd) && !found(high),
       "%s: strings that are none", w.l->name);
    ok(!found(data) && !found(empty), "%s: bytes that are none", w.l->name);
    done();
}

static void test_numbers(void)
{
    uint64_t item = layout_offset(w.l, LF_tuple_item);
    uint64_t wide = make_int(w.num, 7, fixed()), third = make_int(w.flag, 2, fixed());
    uint64_t many = make_int(w.num, 7, fixed()), loose = room(item + 8), huge = room(item + 8);
    put(wide, LF_int_digit, 1u << 30);
    put(many, w.py.traits->int_tagged ? LF_int_tag : LF_var_size, INT64_MIN);
    put_object(loose, w.tuple, fixed());
    put(loose, LF_var_size, 1);
    put64(loose + item, DATA + 8);
    put_object(huge, w.tuple, fixed());
    put(huge, LF_var_size, UINT64_MAX / 8);
    int rc = look(0);
    ok(rc == 0 && !found(wide) && !found(third) && !found(many), "%s: ints that are none",
       w.l->name);
    ok(!found(loose) && !found(huge), "%s: tuples that are none", w.l->name);
    done();
}

/* 3.8 keeps small ints in an array: one proves the other. */
static void test_twins(void)
{
    uint64_t first = make_int(w.num, 1, 40), size = layout_offset(w.l, LF_int_digit) + 4;
    uint64_t next = first + round_up(size, 8), lone = room(256) + 128;
    memcpy(at(next), at(first), size);
    put_object(lone, w.num, 40);
    put(lone, w.py.traits->int_tagged ? LF_int_tag : LF_var_size, w.py.traits->int_tagged ? 8 : 1);
    put(lone, LF_int_digit, 9);
    int rc = look(0);
    ok(rc == 0 && found(first) && found(next) && !found(lone),
       "%s: small ints in a row, and a number alone", w.l->name);
    done();
}

static void test_places(void)
{
    uint64_t end = DATA + DATA_BYTES, across = BSS - 16,
             head = layout_size(w.l, LF_str_ascii_sizeof);
    uint64_t inner = make_str("0123456789012345678901234567890123456789012345678901234567890123");
    uint64_t within = round_up(inner + head, 8);
    put_object(end - header(), w.none_type, fixed()); /* just fits */
    put_str(across, "from .data into .bss", fixed());
    memset(at(within), 'a', 56);
    put_object(within, w.none_type, fixed());
    /* Characters are those of an ASCII str, or the whole is none. */
    put(inner, LF_str_ascii, 0);
    put(inner, LF_str_length, 40);
    int rc = look(0);
    uint64_t whole = layout_size(w.l, LF_str_compact_sizeof);
    bool nul = *at(inner + whole + 40) == 0;
    ok(rc == 0 && found(end - header()) && found(across), "%s: at the end, and over an edge",
       w.l->name);
    ok(nul ? !found(within) : found(within) != NULL, "%s: nothing lies within an object",
       w.l->name);
    done();
    put_object(end - header(), 0, 0);
    put_object(end - 16, w.type, fixed());
    put64(end - 8, w.flt);
    rc = look(0);
    ok(rc == 0 && !found(end - 16) && !found(end - header()), "%s: a header cut off", w.l->name);
    done();
}

static void test_ranges(void)
{
    w.vmas[1].shared = true;
    int rc = look(0);
    ok(rc == 0 && w.o.statics->n == 0, "%s: shared memory is not looked at", w.l->name);
    done();
    w.vmas[1].shared = false;
    /* Ranges of a hostile file: over each other, backwards, out of all mappings. */
    w.ranges[1] = (struct cpython_range){DATA + 0x80, UINT64_MAX};
    rc = look(0);
    ok(rc == 0 && w.o.statics->n == N_TYPES + N_OBJECTS, "%s: overlapping ranges count once: %zu",
       w.l->name, w.o.statics->n);
    done();
    w.ranges[0] = (struct cpython_range){BSS, DATA};
    w.ranges[1] = (struct cpython_range){0, 0x1000};
    rc = look(0);
    ok(rc == 0 && w.o.statics->n == 0, "%s: ranges of nothing", w.l->name);
    done();
}

static void test_blocks(void)
{
    blocks_init(&w.blocks);
    if (blocks_add_chunk(&w.blocks, round_down(w.none, 16), 64, NULL) < 0 ||
        blocks_sort(&w.blocks, false, NULL) < 0)
        abort();
    int rc = look(0);
    ok(rc == 0 && !found(w.none) && found(w.flt), "%s: what a block holds is not static",
       w.l->name);
    done();
}

/* ---- what goes wrong ---- */

static void test_missing(void)
{
    bool sound = true;
    for (uint64_t page = DATA; page < w.next; page += 4096) {
        int rc = look(round_down(page, 4096) == DATA ? DATA + 4096 : page);
        sound &= rc == 0 && w.o.statics->n < N_TYPES + N_OBJECTS + 1;
        done();
    }
    ok(sound, "%s: pages that are not there", w.l->name);
}

static void test_no_memory(void)
{
    unsigned long i;
    bool sound = true, complete = false;
    for (i = 1; i < 10000 && !complete; i++) {
        fail_at = i;
        int rc = look(0);
        if (rc == 0)
            rc = statics_rows(&w.o, &w.snap);
        complete = calls < i;
        fail_at = 0;
        sound &= rc == 0 || rc == ERR_NOMEM;
        sound &= !complete || (rc == 0 && w.o.statics->n == N_TYPES + N_OBJECTS);
        done();
    }
    ok(sound && complete && i > 10, "%s: each of %lu allocations failed once", w.l->name, i - 1);
}

static void test_damage(void)
{
    static uint8_t whole[DATA_BYTES];
    const uint64_t values[] = {0,         1,          UINT64_MAX, DATA,        w.type,
                               w.str,     w.tuple,    UINT32_MAX, 0x7fffffff,  w.none,
                               w.hello,   0xfffffff8, 1u << 20,   1ull << 63,  w.num,
                               999999999, fixed(),    w.bytes,    w.moduledef, TEXT};
    unsigned runs = 0;
    memcpy(whole, w.data, sizeof whole);
    srand(1);
    for (unsigned i = 0; i < 300; i++) {
        for (unsigned k = 0; k < 1 + i % 16; k++) {
            uint64_t where = (uint64_t)rand() % (w.next - DATA);
            uint64_t v = rand() % 4 ? values[(size_t)rand() % (sizeof values / sizeof *values)]
                                    : (uint64_t)rand() << 31 ^ (uint64_t)rand();
            put64(DATA + (where & ~(uint64_t)7), v);
        }
        int rc = look(0);
        bool apart = true;
        for (size_t k = 1; rc == 0 && k < w.o.statics->n; k++) {
            const struct static_object *x = &w.o.statics->items[k - 1];
            apart &= x->addr + x->bytes <= x[1].addr && x[1].addr + x[1].bytes <= DATA + DATA_BYTES;
        }
        runs += rc == 0 && apart && statics_rows(&w.o, &w.snap) == 0;
        done();
        memcpy(w.data, whole, sizeof whole);
    }
    ok(runs == 300, "%s: damage changes the answer only", w.l->name);
}

int main(void)
{
    static void (*const tests[])(void) = {test_found,   test_sums,    test_pairs,  test_texts,
                                          test_numbers, test_twins,   test_places, test_ranges,
                                          test_blocks,  test_missing, test_damage};
    alarm(TOO_LONG);
    for (size_t i = 0; i < layout_count(); i++)
        for (size_t k = 0; k < sizeof tests / sizeof *tests; k++) {
            reset(layout_at(i));
            tests[k]();
        }
    reset(layout_at(layout_count() - 1));
    test_no_memory();
    return done_testing();
}
