/* Types and objects in a synthetic heap, for every layout: what is proven, what is refused, what it
 * adds up to; then damage, missing bytes and failing allocations. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "tests/lib/tap.h"
#include "walker/cpython/object_place.h"

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

enum {
    HEAP_BYTES = 0x20000,
    TEXT_BYTES = 0x1000,
    TOO_LONG = 300, /* seconds: SIGALRM ends what does not end by itself */
    READY = 1 << 12,
    HEAPTYPE = 1 << 9,
    HAVE_GC = 1 << 14,
    MANAGED_DICT = 1 << 4
};
/* Arenas lie high; what brk gives a program that is not position independent is as low as a count.
 */
#define HIGH 0x7f0000000000u
#define LOW 0x2000000u
#define HEAP (w.base)
#define TEXT 0x555555554000u
#define IS_TYPE (1u << 31)
#define IS_STR (1u << 28)
#define IS_TUPLE (1u << 26)
#define IS_INT (1u << 24)
#define IS_DICT (1u << 29)

static struct world {
    uint64_t base;
    const struct layout *l;
    uint8_t heap[HEAP_BYTES];
    char text[TEXT_BYTES];
    size_t text_used;
    uint64_t next; /* free space for what is no block */
    struct mem *mem;
    struct vma vmas[2];
    struct vma_list list;
    struct cpython_module module;
    struct cpython py;
    struct cpython_input in;
    struct blocks blocks;
    struct snapshot snap;
    struct notes notes;
    struct objects o;
    uint64_t type, str, dict, num, list_type, wide_type, result_type, flt, thing,
        session; /* types */
} w;

static uint8_t *at(uint64_t addr)
{
    return w.heap + (addr - HEAP);
}

static void put64(uint64_t addr, uint64_t v)
{
    memcpy(at(addr), &v, sizeof v);
}

/* A member of the structure at addr; what the layout does not have is left out. */
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
    w.next += round_up(bytes, 16);
    if (w.next > HEAP + HEAP_BYTES)
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

static void put_count(uint64_t obj, uint64_t count)
{
    put(obj, LF_ob_refcnt, count);
    put(obj, LF_ob_ref_local, count);
}

static void put_object(uint64_t obj, uint64_t type)
{
    put_count(obj, 1);
    put(obj, LF_ob_type, type);
}

static uint64_t make_type(const char *name, uint64_t flags, uint64_t basicsize, uint64_t itemsize)
{
    uint64_t t = room(max_u64(layout_size(w.l, LF_heaptype_sizeof), 1024));
    put_object(t, w.type ? w.type : t);
    put(t, LF_type_name, text(name));
    put(t, LF_type_flags, flags | READY);
    put(t, LF_type_basicsize, basicsize);
    put(t, LF_type_itemsize, itemsize);
    return t;
}

static void put_str(uint64_t obj, const void *chars, uint64_t n, uint64_t kind, bool ascii)
{
    put_object(obj, w.str);
    put(obj, LF_str_length, n);
    put(obj, LF_str_kind, kind);
    put(obj, LF_str_compact, 1);
    put(obj, LF_str_ascii, ascii);
    uint64_t head = layout_size(w.l, ascii ? LF_str_ascii_sizeof : LF_str_compact_sizeof);
    memcpy(at(obj + head), chars, n * kind);
}

static uint64_t make_str(const void *chars, uint64_t n, uint64_t kind, bool ascii)
{
    uint64_t obj = room(layout_size(w.l, LF_str_compact_sizeof) + (n + 1) * kind);
    put_str(obj, chars, n, kind, ascii);
    return obj;
}

static uint64_t ascii(const char *s)
{
    return make_str(s, strlen(s), 1, true);
}

/* A dictionary of {"other": 0 (deleted), key: value}, with keys of any type or of strings only, and
 * with the values in an array of their own. */
enum dict_form { GENERAL, UNICODE, SPLIT };

static uint64_t make_dict(const char *key, uint64_t value, enum dict_form form)
{
    enum { SLOTS = 8, ENTRIES = 5 };
    const struct layout_traits *t = w.py.traits;
    uint64_t dict = room(layout_size(w.l, LF_dict_sizeof)), keys = room(512);
    bool general = form == GENERAL || t->dict_keys == KEYS_SIZE;
    put_object(dict, w.dict);
    put(dict, LF_dict_keys, keys);
    put(keys, LF_keys_refcnt, 1);
    put(keys, LF_keys_size, SLOTS);
    put(keys, LF_keys_log2_size, 3);
    put(keys, LF_keys_log2_index_bytes, 3);
    put(keys, LF_keys_kind, general ? 0 : form);
    put(keys, LF_keys_nentries, 2);
    put(keys, LF_keys_usable, ENTRIES - 2);
    uint64_t entry = keys + layout_offset(w.l, LF_keys_indices) + SLOTS;
    entry += layout_size(w.l, general ? LF_entry_sizeof : LF_uentry_sizeof);
    put(entry, general ? LF_entry_key : LF_uentry_key, ascii(key));
    if (form != SPLIT) {
        put(entry, general ? LF_entry_value : LF_uentry_value, value);
        return dict;
    }
    uint64_t values = room(8 * ENTRIES + 16);
    put(dict, LF_dict_values, values);
    if (t->dict_values == VALUES_HEADER)
        values += layout_offset(w.l, LF_values_values);
    put64(values + 8, value);
    return dict;
}

static uint64_t make_class(const char *name, uint64_t qualname, uint64_t dict, uint64_t flags)
{
    uint64_t t =
        make_type(name, flags | HEAPTYPE | HAVE_GC, layout_size(w.l, LF_ob_sizeof) + 16, 0);
    put(t, LF_type_dict, dict);
    put(t, LF_heaptype_qualname, qualname);
    put(t, LF_heaptype_name, qualname);
    return t;
}

static void reset(const struct layout *l, uint64_t base)
{
    w.base = base;
    memset(w.heap, 0, sizeof w.heap);
    w.l = l;
    w.text_used = 0;
    w.next = HEAP + 0x10000;
    w.type = 0;
    w.py = (struct cpython){.layout = *l,
                            .module = &w.module,
                            .debug = l->debug,
                            .free_threaded = l->free_threaded,
                            .traits = layout_traits(layout_minor(l->hexversion))};
    w.vmas[HEAP < TEXT] =
        (struct vma){.start = TEXT, .end = TEXT + TEXT_BYTES, .r = true, .kind = VMA_FILE};
    w.vmas[HEAP > TEXT] = (struct vma){
        .start = HEAP, .end = HEAP + HEAP_BYTES, .r = true, .w = true, .kind = VMA_ANON};
    w.list = (struct vma_list){w.vmas, 2};
    w.type = make_type("type", HAVE_GC | IS_TYPE, layout_size(l, LF_heaptype_sizeof), 40);
    w.module = (struct cpython_module){.type_type = w.type};
    uint64_t head = layout_size(l, LF_ob_sizeof);
    w.str = make_type("str", IS_STR, layout_size(l, LF_str_sizeof), 0);
    w.dict = make_type("dict", HAVE_GC | IS_DICT, layout_size(l, LF_dict_sizeof), 0);
    w.num = make_type("int", IS_INT, layout_offset(l, LF_int_digit), 4);
    w.list_type = make_type("pkg.Row", HAVE_GC, layout_offset(l, LF_var_size) + 8, 8);
    w.wide_type = make_type("pkg.Wide", HAVE_GC, layout_offset(l, LF_var_size) + 8, 64);
    w.result_type =
        make_type("os.result", HAVE_GC | IS_TUPLE, layout_offset(l, LF_var_size) + 8, 8);
    w.flt = make_type("float", 0, head + 8, 0);
    w.thing = make_type("builtins.thing", HAVE_GC, head + 24, 0);
    w.session = make_class("Session", ascii("Outer.Session"),
                           make_dict("__module__", ascii("app.models"), GENERAL), MANAGED_DICT);
}

/* Look at the heap as it is now; `text_there`: the constants can be read. */
static void look(bool text_there)
{
    const struct mem_image_piece heap = {HEAP, w.heap, sizeof w.heap};
    const struct mem_image_piece constants = {TEXT, w.text, sizeof w.text};
    const struct mem_image_piece both[] = {heap, constants, heap};
    if (mem_image_new(both + (HEAP > TEXT && text_there), text_there ? 2 : 1, &w.mem, NULL) < 0)
        abort();
    w.in =
        (struct cpython_input){.mem = w.mem, .vmas = &w.list, .modules = &w.module, .n_modules = 1};
    snapshot_init(&w.snap);
    notes_init(&w.notes, &w.snap);
    blocks_init(&w.blocks);
    memset(&w.o, 0, sizeof w.o);
    w.o.in = &w.in;
    w.o.py = &w.py;
    w.o.blocks = &w.blocks;
    w.o.notes = &w.notes;
    w.o.far = w.mem;
    types_init(&w.o.types);
    if (mem_window_init(&w.o.near, w.mem, MEM_WINDOW_BYTES, NULL) < 0)
        abort();
}

static void done(void)
{
    mem_window_release(&w.o.near);
    types_release(&w.o.types);
    blocks_release(&w.blocks);
    snapshot_release(&w.snap);
    mem_close(w.mem);
}

static bool named(uint64_t type, const char *name, const char *module)
{
    const struct type_info *t = types_get(&w.o, type);
    if (t && strcmp(t->name, name) == 0 && strcmp(t->module, module) == 0)
        return true;
    diag("%s: %s of module %s, not %s", w.l->name, t ? t->name : "no type", t ? t->module : "?",
         name);
    return false;
}

/* ---- types ---- */

static void test_names(void)
{
    static const uint16_t wide[] = {0x4e2d, 'x', 0xd800};
    static const uint32_t widest[] = {0x1f600};
    uint64_t app = ascii("app");
    uint64_t unicode = make_class("U", ascii("U"), make_dict("__module__", app, UNICODE), 0);
    uint64_t split = make_class("S", ascii("S"), make_dict("__module__", app, SPLIT), 0);
    uint64_t builtin =
        make_class("B", ascii("B"), make_dict("__module__", ascii("builtins"), GENERAL), 0);
    uint64_t odd = make_class("mod.Odd", ascii("Odd"), make_dict("__module__", w.dict, GENERAL), 0);
    uint64_t bare = make_class("Bare", ascii("Bare"), make_dict("__doc__", app, GENERAL), 0);
    uint64_t latin = make_class("\303\251", make_str("\351", 1, 1, false),
                                make_dict("__module__", app, GENERAL), 0);
    uint64_t ucs2 =
        make_class("W", make_str(wide, 3, 2, false), make_dict("__module__", app, GENERAL), 0);
    uint64_t ucs4 =
        make_class("V", make_str(widest, 1, 4, false), make_dict("__module__", app, GENERAL), 0);
    uint64_t control =
        make_class("a\n\033[1m", ascii("a\n\033[1m"), make_dict("__module__", app, GENERAL), 0);
    uint64_t empty = make_class("", ascii(""), make_dict("__module__", app, GENERAL), 0);
    look(true);
    ok(named(w.type, "type", "builtins") && named(w.flt, "float", "builtins") &&
           named(w.list_type, "pkg.Row", "pkg") && named(w.thing, "thing", "builtins"),
       "%s: static types", w.l->name);
    ok(named(w.session, "app.models.Outer.Session", "app.models"), "%s: a nested class", w.l->name);
    ok(named(unicode, "app.U", "app") && named(split, "app.S", "app"), "%s: other dictionaries",
       w.l->name);
    ok(named(builtin, "B", "builtins") && named(odd, "mod.Odd", "mod") && named(bare, "Bare", ""),
       "%s: odd modules", w.l->name);
    ok(named(latin, "app.\303\251", "app") && named(ucs2, "app.\344\270\255x\355\240\200", "app") &&
           named(ucs4, "app.\360\237\230\200", "app"),
       "%s: characters of all widths", w.l->name);
    ok(named(control, "app.a\n\033[1m", "app") && named(empty, "app.", "app"),
       "%s: names that are no text", w.l->name);
    size_t n = w.o.types.n;
    ok(types_get(&w.o, w.session) && w.o.types.n == n, "%s: each type once", w.l->name);
    done();
}

static bool refused(uint64_t type)
{
    const struct type_info *t = types_get(&w.o, type);
    if (t)
        diag("%s: took %s for a type", w.l->name, t->name);
    return !t;
}

static void test_refused(void)
{
    uint64_t raw = make_type("raw", 0, 32, 0), small = make_type("small", 0, 8, 0);
    uint64_t huge = make_type("huge", 0, 1 << 21, 0), items = make_type("items", 0, 32, 1 << 20);
    uint64_t garbage = make_type("x\377\376", 0, 32, 0), wild = make_type("wild", 0, 32, 0);
    uint64_t control = make_type("a\001b", 0, 32, 0), none = make_type("", 0, 32, 0);
    uint64_t freed = make_type("freed", HEAPTYPE, 32, 0), plain = make_type("plain", 0, 32, 0);
    uint64_t self = make_type("self", IS_TYPE, 32, 0), a = make_type("A", IS_TYPE, 32, 0);
    uint64_t b = make_type("B", IS_TYPE, 32, 0);
    put(raw, LF_type_flags, 0);
    put(wild, LF_type_name, 0xdead0000beef);
    put_count(freed, 0);
    put(plain, LF_ob_type, w.flt); /* float is no metatype */
    put(self, LF_ob_type, self);
    put(a, LF_ob_type, b);
    put(b, LF_ob_type, a);
    look(true);
    ok(refused(raw) && refused(small) && refused(huge) && refused(items),
       "%s: odd sizes, not ready", w.l->name);
    ok(refused(garbage) && refused(wild) && refused(control) && refused(none), "%s: no names",
       w.l->name);
    ok(refused(freed), "%s: a type that was freed", w.l->name);
    ok(refused(plain) && refused(self) && refused(a) && refused(b), "%s: no metatypes", w.l->name);
    ok(refused(0) && refused(8) && refused(w.flt + 4) && refused(HEAP + HEAP_BYTES - 64) &&
           refused(~(uint64_t)7),
       "%s: addresses that are none", w.l->name);
    done();
}

/* A hostile heap is full of addresses; what is kept of them is bounded. */
static void test_rejected_bounded(void)
{
    look(true);
    for (uint64_t i = 0; i < 1 << 18; i++)
        if (types_get(&w.o, 0x100000 + i * 8))
            abort();
    ok(w.o.types.known.n <= (1 << 16) + w.o.types.n && w.o.types.n == 0,
       "%s: the memory for refused addresses is bounded", w.l->name);
    ok(named(w.flt, "float", "builtins"), "%s: and types are found after that", w.l->name);
    done();
}

static void test_unnamed(void)
{
    look(false);
    const struct type_info *t = types_get(&w.o, w.flt);
    types_tell(&w.o);
    ok(t && strncmp(t->name, "<type at 0x", 11) == 0 && t->module[0] == '\0' && !w.snap.complete,
       "%s: a static type whose constants are missing", w.l->name);
    ok(refused(w.session), "%s: but a class has its name in the heap", w.l->name);
    done();
}

/* ---- one block ---- */

static uint64_t gc_bytes(void)
{
    return w.l->free_threaded ? 0 : 16;
}

static uint64_t session_pre(void)
{
    return gc_bytes() + (w.py.traits->managed == MANAGED_NONE ? 0 : 16);
}

/* What the block of `size` bytes at HEAP is said to be. */
static bool recognised(uint64_t size, struct object_at *ret)
{
    size_t len = (size_t)min_u64(size, 128);
    uint8_t *exact = malloc(len); /* so that a byte more is noticed */
    if (!exact)
        abort();
    memcpy(exact, at(HEAP), len);
    memset(ret, 0, sizeof *ret);
    bool found = object_recognise(&w.o, HEAP, size, exact, len, ret);
    free(exact);
    return found;
}

static bool is(uint64_t size, uint64_t pre, uint64_t type, bool dead)
{
    struct object_at r;
    bool found = recognised(size, &r);
    return found && r.addr == HEAP + pre && w.o.types.items[r.type].addr == type && r.dead == dead;
}

static bool is_none(uint64_t size)
{
    struct object_at r;
    return !recognised(size, &r);
}

static void clear(void)
{
    memset(at(HEAP), 0, 1024);
}

static void test_floats(void)
{
    uint64_t size = round_up(layout_size(w.l, LF_ob_sizeof) + 8, 16);
    look(true);
    clear();
    put_object(HEAP, w.flt);
    ok(is(size, 0, w.flt, false), "%s: a float", w.l->name);
    ok(is_none(size + 16) && is_none(size - 16) && is_none(16) && is_none(8),
       "%s: not in a block of another size", w.l->name);
    put_count(HEAP, 0);
    ok(is(size, 0, w.flt, true), "%s: a dead one", w.l->name);
    if (w.l->free_threaded) {
        put(HEAP, LF_ob_ref_shared, (uint64_t)-400);
        ok(is_none(size), "%s: a negative count", w.l->name);
    } else {
        put64(HEAP, 0x7f0000123450);
        ok(is_none(size), "%s: an address in place of the count", w.l->name);
        put64(HEAP, w.py.traits->immortal == IMMORTAL_NONE ? 5 : 0xc0000000);
        ok(is(size, 0, w.flt, false), "%s: a large or immortal count", w.l->name);
    }
    put_object(HEAP, w.flt + 8);
    ok(is_none(size), "%s: an address near a type's", w.l->name);
    done();
}

/* The items of a list: an object, and a type where an object has it. */
static void test_pointers(void)
{
    uint64_t size = round_up(layout_size(w.l, LF_ob_sizeof) + 8, 16), other = HEAP + 0x400;
    look(true);
    clear();
    put_object(other, w.flt);
    put(HEAP, LF_ob_type, w.flt);
    put64(HEAP, other);
    if (!w.l->free_threaded)
        ok(is_none(size), "%s: two pointers, the second to a type", w.l->name);
    /* 3.14+: the link of a freelist is in the place of the count, and the next is dead as well. */
    if (w.py.traits->immortal == IMMORTAL_HIGH_BIT && !w.l->free_threaded) {
        put_count(other, 0);
        ok(is(size, 0, w.flt, true), "%s: a freelist's link", w.l->name);
    }
    done();
}

static void test_instances(void)
{
    uint64_t pre = session_pre(), obj = HEAP + pre,
             size = layout_size(w.l, LF_ob_sizeof) + 16 + pre;
    look(true);
    clear();
    put_object(obj, w.session);
    ok(is(size, pre, w.session, false), "%s: an instance of a class", w.l->name);
    put_count(obj, 0);
    ok(is_none(size), "%s: nobody keeps dead ones", w.l->name);
    put_count(obj, 3);
    if (!w.l->free_threaded) {
        put64(obj - 16, HEAP + 0x800);
        put64(obj - 8, HEAP + 0x900);
        ok(is(size, pre, w.session, false), "%s: on the collector's list", w.l->name);
        put64(obj - 16, 17);
        ok(is_none(size), "%s: not with a list that is none", w.l->name);
    }
    clear();
    put_object(HEAP, w.session); /* no room for what a class's instances have in front */
    ok(is_none(size), "%s: nothing in front", w.l->name);
    done();
}

static void test_ints(void)
{
    uint64_t digit = layout_offset(w.l, LF_int_digit), size = round_up(digit + 12, 16);
    bool tagged = w.py.traits->int_tagged;
    look(true);
    clear();
    put_object(HEAP, w.num);
    put(HEAP, tagged ? LF_int_tag : LF_var_size, tagged ? 3 << 3 | 2 : (uint64_t)-3);
    put64(HEAP + digit, 0x3fffffff00000001);
    ok(is(size, 0, w.num, false), "%s: an int", w.l->name);
    ok(is(size + 64, 0, w.num, false), "%s: that had more digits once", w.l->name);
    put64(HEAP + digit, 0x7fffffff00000001);
    ok(is_none(size), "%s: what is no digit", w.l->name);
    put64(HEAP + digit, 1);
    put(HEAP, tagged ? LF_int_tag : LF_var_size, tagged ? 300 << 3 : 300);
    ok(is_none(size), "%s: more digits than fit", w.l->name);
    done();
}

static void test_strings(void)
{
    uint64_t head = layout_size(w.l, LF_str_ascii_sizeof), size = round_up(head + 3, 16);
    look(true);
    clear();
    put_str(HEAP, "ab", 2, 1, true);
    ok(is(size, 0, w.str, false), "%s: a str that is shorter than its type says", w.l->name);
    put(HEAP, LF_str_length, 200);
    ok(is_none(size), "%s: longer than its block", w.l->name);
    put(HEAP, LF_str_length, UINT64_MAX / 2);
    ok(is_none(size), "%s: longer than anything", w.l->name);
    put(HEAP, LF_str_length, 2);
    put(HEAP, LF_str_kind, 3);
    ok(is_none(size), "%s: characters of 3 bytes", w.l->name);
    put_str(HEAP, "a\0b\0", 2, 2, false);
    ok(is(round_up(layout_size(w.l, LF_str_compact_sizeof) + 6, 16), 0, w.str, false),
       "%s: wide characters", w.l->name);
    done();
}

static void test_items(void)
{
    uint64_t pre = gc_bytes(), obj = HEAP + pre, fixed = layout_offset(w.l, LF_var_size) + 8;
    look(true);
    clear();
    put_object(obj, w.list_type);
    put(obj, LF_var_size, 4);
    uint64_t size = round_up(pre + fixed + 32, 16);
    ok(is(size, pre, w.list_type, false), "%s: four items", w.l->name);
    ok(is(round_up(pre + fixed + 40, 16), pre, w.list_type, false), "%s: and tp_alloc's one more",
       w.l->name);
    ok(is_none(size + 128), "%s: in a block that is far too large", w.l->name);
    put_object(obj, w.wide_type);
    put(obj, LF_var_size, 0);
    ok(is(round_up(pre + fixed + 64, 16), pre, w.wide_type, false), "%s: which can be a large one",
       w.l->name);
    put_object(obj, w.list_type);
    put_object(obj, w.result_type);
    put(obj, LF_var_size, 2);
    ok(is(round_up(pre + fixed + 12 * 8, 16), pre, w.result_type, false) &&
           is_none(round_up(pre + fixed + 60 * 8, 16)),
       "%s: a structseq has fields that it does not count", w.l->name);
    put_object(obj, w.list_type);
    put(obj, LF_var_size, 1000);
    ok(is_none(size), "%s: too many items", w.l->name);
    put(obj, LF_var_size, UINT64_MAX - 1);
    ok(is_none(size), "%s: fewer than none", w.l->name);
    done();
}

/* The debug hooks' bytes in front of what Python asked for. */
static void put_hook(uint64_t block, uint64_t asked, char domain)
{
    put64(block, __builtin_bswap64(asked));
    memset(at(block + 8), 0xfd, 8);
    *at(block + 8) = (uint8_t)domain;
}

static void test_hooks(void)
{
    uint64_t need = layout_size(w.l, LF_ob_sizeof) + 8;
    look(true);
    w.blocks.debug_front = 16;
    clear();
    put_hook(HEAP, need, 'o');
    put_object(HEAP + 16, w.flt);
    ok(is(round_up(need + 24, 16), 16, w.flt, false), "%s: behind debug bytes", w.l->name);
    put_hook(HEAP, need + 8, 'o');
    ok(is_none(round_up(need + 32, 16)), "%s: not with another size asked for", w.l->name);
    put_hook(HEAP, need, 'o');
    ok(is_none(need + 8), "%s: nor with more than there is", w.l->name);
    put_hook(HEAP, UINT64_MAX, 'o');
    ok(is_none(round_up(need + 32, 16)), "%s: nor with a size that cannot be", w.l->name);
    clear();
    put_hook(HEAP, need + 24, 'r');
    put_hook(HEAP + 16, need, 'o');
    put_object(HEAP + 32, w.flt);
    if (blocks_add_chunk(&w.blocks, HEAP, need + 56, NULL) < 0 ||
        blocks_sort(&w.blocks, false, NULL) < 0)
        abort();
    ok(is(need + 56, 32, w.flt, false), "%s: a chunk has them twice", w.l->name);
    done();
}

/* ---- all blocks ---- */

enum { RUN_SLOTS = 10, RUN = 0x1000, CHUNK = 0x8000, INSTANCES = 5, FREE_SLOT = 9 };

/* A run of instances, of dead and free blocks and of what is neither, and a large row in a chunk.
 */
static void make_blocks(bool owners)
{
    uint8_t used[RUN_SLOTS];
    uint64_t pre = session_pre(), size = layout_size(w.l, LF_ob_sizeof) + 16 + pre;
    memset(used, 1, sizeof used);
    used[FREE_SLOT] = 0;
    memset(at(HEAP + RUN), 0, size * RUN_SLOTS);
    for (uint64_t i = 0; i < INSTANCES; i++)
        put_object(HEAP + RUN + i * size + pre, w.session);
    put_object(HEAP + RUN + FREE_SLOT * size + pre, w.session);
    uint64_t row = HEAP + CHUNK + gc_bytes();
    put_object(row, w.list_type);
    put(row, LF_var_size, 1000);
    uint64_t bytes = gc_bytes() + layout_offset(w.l, LF_var_size) + 8 + 8000;
    if (blocks_add_run(&w.blocks, HEAP + RUN, (uint32_t)size, RUN_SLOTS, used, NULL) < 0 ||
        blocks_add_chunk(&w.blocks, HEAP + CHUNK, round_up(bytes, 16) + 8, NULL) < 0 ||
        blocks_sort(&w.blocks, owners, NULL) < 0)
        abort();
    struct snapshot_arena *a = snapshot_add_arena(&w.snap);
    a->address = HEAP;
    a->size = HEAP_BYTES;
}

static const struct snapshot_type *record(const char *name)
{
    for (size_t i = 0; i < w.snap.n_types; i++)
        if (strcmp(w.snap.types[i].name, name) == 0)
            return &w.snap.types[i];
    return NULL;
}

static void test_sums(void)
{
    struct err err = ERR_INIT;
    uint64_t size = layout_size(w.l, LF_ob_sizeof) + 16 + session_pre();
    look(true);
    make_blocks(true);
    int rc = objects_classify(&w.o, &err);
    /* As the passes over owners do: one of what is left belongs to an instance. */
    size_t buffer = INSTANCES + 1;
    ok(rc == 0 && block_kind(&w.blocks, 0) == BLOCK_OBJECT &&
           block_kind(&w.blocks, buffer) == BLOCK_UNOWNED,
       "%s: classified: %s", w.l->name, err.text);
    block_set(&w.blocks, buffer, BLOCK_BUFFER, block_type(&w.blocks, 0));
    w.blocks.owners[buffer] = 1;
    rc = objects_report(&w.o, &w.snap, &err);
    const struct snapshot_type *s = record("app.models.Outer.Session"), *r = record("pkg.Row");
    const struct snapshot_objects *sum = &w.snap.objects;
    ok(rc == 0 && sum->present && s && s->count == INSTANCES && s->bytes == INSTANCES * size &&
           s->size_bytes == INSTANCES * size && s->buffers == 1 && s->buffer_bytes == size,
       "%s: instances and their buffers", w.l->name);
    ok(r && r->count == 1 && r->bytes == w.blocks.chunks[0].size && r->size_bytes < r->bytes &&
           r->bytes - r->size_bytes < 24 && &w.snap.types[0] == r,
       "%s: a large object, and the order by size", w.l->name);
    ok(sum->objects == INSTANCES + 1 && sum->buffers == 1 && sum->unowned == 3 &&
           sum->object_bytes == INSTANCES * size + r->bytes && sum->unowned_bytes == 3 * size &&
           sum->malloc_object_bytes == r->bytes && sum->malloc_unowned_bytes == 0,
       "%s: sums by kind", w.l->name);
    const struct snapshot_size_class *c = &w.snap.pymalloc.classes[size / 16 - 1];
    ok(c->top_type && strcmp(c->top_type, s->name) == 0 && c->top_count == INSTANCES + 1 &&
           w.snap.arenas[0].top_type == c->top_type &&
           w.snap.arenas[0].top_bytes == (INSTANCES + 1) * size,
       "%s: the leading type of size class and arena", w.l->name);
    const struct snapshot_block *b = w.snap.blocks;
    ok(w.snap.n_blocks == RUN_SLOTS && b[0].address == HEAP + RUN && b[0].size == size &&
           strcmp(b[0].kind, "object") == 0 && strcmp(b[0].type, s->name) == 0 && !b[0].owner &&
           b[buffer].owner == HEAP + RUN && strcmp(b[buffer].kind, "buffer") == 0 &&
           !b[buffer + 1].type && b[RUN_SLOTS - 1].address == HEAP + CHUNK,
       "%s: single blocks", w.l->name);
    done();
}

/* ---- what goes wrong ---- */

/* Everything at once; the result only has to be sound. */
static int run_all(void)
{
    int rc = objects_classify(&w.o, NULL);
    if (rc == 0) {
        types_tell(&w.o);
        rc = objects_report(&w.o, &w.snap, NULL);
    }
    return rc;
}

static void test_no_memory(void)
{
    unsigned long i;
    int rc = ERR_NOMEM;
    bool sound = true;
    for (i = 1; i < 10000 && (rc < 0 || !w.snap.complete); i++) {
        look(true);
        w.snap.complete = true;
        make_blocks(true);
        calls = 0;
        fail_at = i;
        rc = run_all();
        fail_at = 0;
        bool reached = calls >= i;
        sound &= rc == 0 || rc == ERR_NOMEM;
        /* A failure is told: as such, or as a note if only a type's name was lost. */
        bool all = rc == 0 && w.snap.objects.objects == INSTANCES + 1;
        sound &= !reached || rc < 0 || !w.snap.complete || all;
        if (rc == 0 && !reached && w.snap.complete) {
            sound &= all;
            done();
            break;
        }
        rc = rc < 0 ? rc : ERR_NOMEM;
        done();
    }
    ok(sound && i > 10 && i < 10000, "%s: each of %lu allocations failed once", w.l->name, i - 1);
}

/* Words of everything that is looked at, damaged in turn. */
static void test_damage(void)
{
    static uint8_t whole[HEAP_BYTES];
    const uint64_t values[] = {0,          1,          UINT64_MAX, HEAP,   HEAP + RUN,
                               0x7fffffff, 0xfffffff8, 1u << 20,   TEXT,   HEAP + 0x10000,
                               0x8000,     16,         1ull << 63, 0xfd000};
    unsigned runs = 0;
    memcpy(whole, w.heap, sizeof whole);
    srand(1);
    for (unsigned i = 0; i < 600; i++) {
        look(true);
        make_blocks(i & 1);
        for (unsigned k = 0; k < 1 + i % 8; k++) {
            uint64_t where = (uint64_t)rand() % 4
                                 ? 0x10000 + (uint64_t)rand() % (w.next - HEAP - 0x10000)
                                 : RUN + (uint64_t)rand() % 1024;
            uint64_t v = rand() % 3 ? values[(size_t)rand() % (sizeof values / sizeof *values)]
                                    : (uint64_t)rand() << 31 ^ (uint64_t)rand();
            put64(HEAP + (where & ~(uint64_t)7), v);
        }
        runs += run_all() == 0 && w.snap.objects.present;
        done();
        memcpy(w.heap, whole, sizeof whole);
    }
    ok(runs == 600, "%s: damage changes the answer only", w.l->name);
}

int main(void)
{
    alarm(TOO_LONG);
    for (size_t i = 0; i < layout_count(); i++) {
        static void (*const tests[])(void) = {
            test_names, test_refused, test_unnamed, test_floats, test_pointers, test_instances,
            test_ints,  test_strings, test_items,   test_hooks,  test_sums,     test_damage};
        for (size_t k = 0; k < sizeof tests / sizeof *tests; k++) {
            reset(layout_at(i), k % 2 ? HIGH : LOW);
            tests[k]();
        }
        reset(layout_at(i), HIGH);
        test_floats();
        reset(layout_at(i), HIGH);
        test_pointers();
    }
    reset(layout_at(0), HIGH);
    test_rejected_bounded();
    reset(layout_at(layout_count() - 1), HIGH);
    test_no_memory();
    return done_testing();
}
