/* Layouts: every committed table against invariants and known offsets, reading through a table, the
 * choice of a table, and DWARF -> layout on structures of this program. */
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "inspector/target/dwarf_layout.h"
#include "tests/lib/tap.h"
#include "walker/cpython/layout.h"

/* ---- all tables ---- */

static bool slot_is_sane(const struct layout_slot *s)
{
    if (s->kind == LAYOUT_ABSENT)
        return s->offset == -1; /* 0: the table is older than fields.def */
    if (s->offset < 0 || s->kind > LAYOUT_SIZE)
        return false;
    if (s->kind == LAYOUT_SIZE)
        return s->offset > 0 && s->width == 0;
    if (s->kind == LAYOUT_POINTER && s->width != 8)
        return false;
    return s->width > 0 && s->shift + s->bits <= 8 * s->width && (s->bits == 0 || s->width <= 8);
}

static void check_slots(const struct layout *l)
{
    unsigned bad = 0, present = 0;
    for (int f = 0; f < LF_COUNT; f++) {
        if (!slot_is_sane(&l->slots[f])) {
            diag("%s: %s", l->name, layout_field_name((enum layout_field)f));
            bad++;
        }
        present += layout_has(l, (enum layout_field)f);
    }
    ok(bad == 0 && present > 300, "%s (%s): %u fields, all sane", l->name, l->source, present);
}

/* The prefix of fields.def that belongs to a SIZEOF row: every field lies inside. */
struct extent_rule {
    const char *prefix;
    enum layout_field size;
};

static const struct extent_rule extent_rules[] = {
    {"pool_", LF_pool_size},
    {"arena_", LF_arena_size},
    {"obm_", LF_obm_size},
    {"rt_", LF_rt_size},
    {"interp_", LF_interp_size},
    {"ts_", LF_ts_size},
    {"tsi_", LF_tsi_size},
    {"tm_", LF_tm_size},
    {"htab_", LF_htab_size},
    {"htent_", LF_htent_size},
    {"gc_", LF_gc_size},
    {"gchead_", LF_gchead_size},
    {"ob_", LF_ob_sizeof},
    {"type_", LF_type_sizeof},
    {"heaptype_", LF_heaptype_sizeof},
    {"dict_", LF_dict_sizeof},
    {"list_", LF_list_sizeof},
    {"set_", LF_set_sizeof},
    {"code_", LF_code_size},
    {"frame_", LF_frame_size},
    {"iframe_", LF_iframe_size},
    {"array_", LF_array_sizeof},
    {"deque_", LF_deque_sizeof},
    {"odict_", LF_odict_sizeof},
    {"module_", LF_module_sizeof},
    {"func_", LF_func_sizeof},
    {"mi_segment_", LF_mi_segment_sizeof},
    {"mi_page_", LF_mi_page_sizeof},
    {"mi_heap_", LF_mi_heap_sizeof},
    {"dbg_", LF_dbg_size},
};

static const struct extent_rule *rule_of(const char *name)
{
    for (size_t i = 0; i < sizeof extent_rules / sizeof *extent_rules; i++)
        if (strncmp(name, extent_rules[i].prefix, strlen(extent_rules[i].prefix)) == 0)
            return &extent_rules[i];
    return NULL;
}

static void check_extents(const struct layout *l)
{
    unsigned bad = 0, checked = 0;
    for (int i = 0; i < LF_COUNT; i++) {
        enum layout_field f = (enum layout_field)i;
        const struct extent_rule *rule = rule_of(layout_field_name(f));
        if (!rule || !layout_has(l, f) || l->slots[f].kind == LAYOUT_SIZE)
            continue;
        checked++;
        if (layout_offset(l, f) + layout_size(l, f) <= layout_size(l, rule->size))
            continue;
        diag("%s: %s ends behind its structure", l->name, layout_field_name(f));
        bad++;
    }
    ok(bad == 0 && checked > 150, "%s: %u fields lie inside their structures", l->source, checked);
}

static bool same(const struct layout *a, const struct layout *b, const char *prefix)
{
    for (int i = 0; i < LF_COUNT; i++) {
        const char *name = layout_field_name((enum layout_field)i);
        if (strncmp(name, prefix, strlen(prefix)) == 0 &&
            memcmp(&a->slots[i], &b->slots[i], sizeof a->slots[i]) != 0) {
            diag("%s and %s differ in %s", a->source, b->source, name);
            return false;
        }
    }
    return true;
}

/* headers_probe.c declares structures of CPython's .c files by hand; a debug build with complete
 * DWARF of the same release must agree. */
static void check_mirrors(const struct layout *l)
{
    static const char *const prefixes[] = {"array",  "deque_",  "dqblock_",
                                           "odict_", "odnode_", "trace_"};
    bool exact;
    const struct layout *debug = layout_find(l->hexversion, true, false, &exact);
    if (l->debug || l->free_threaded || !debug || !exact)
        return;
    bool good = true;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        good = same(l, debug, prefixes[i]) && good;
    ok(good, "%s agrees with %s about structures of .c files", l->source, debug->source);
}

static bool at(const struct layout *l, enum layout_field f, uint64_t offset)
{
    if (layout_has(l, f) && layout_offset(l, f) == offset)
        return true;
    diag("%s: %s is at %d, not %llu", l->source, layout_field_name(f), l->slots[f].offset,
         (unsigned long long)offset);
    return false;
}

/* What is the same in all releases; free threading adds 16 bytes to every object. */
static void check_common(const struct layout *l)
{
    uint64_t ft = l->free_threaded ? 16 : 0;
    bool good = layout_size(l, LF_pool_size) == 48 && layout_size(l, LF_arena_size) == 48 &&
                layout_size(l, LF_gchead_size) == 16 && layout_size(l, LF_ob_sizeof) == 16 + ft;
    good &= at(l, LF_pool_ref_count, 0) && at(l, LF_pool_szidx, 36) &&
            at(l, LF_pool_maxnextoffset, 44) && at(l, LF_arena_prevarena, 40);
    good &= at(l, LF_ob_type, 8 + ft) && at(l, LF_type_name, 24 + ft) &&
            at(l, LF_type_basicsize, 32 + ft) && at(l, LF_type_flags, 168 + ft) &&
            at(l, LF_type_dict, 264 + ft) && at(l, LF_type_mro, 344 + ft);
    good &= at(l, LF_dict_keys, 32 + ft) && at(l, LF_list_item, 24 + ft) &&
            at(l, LF_set_table, 40 + ft) && at(l, LF_array_item, 24 + ft) &&
            at(l, LF_deque_leftblock, 24 + ft) && at(l, LF_odict_first, 48 + ft);
    good &= at(l, LF_ts_next, 8) && at(l, LF_ts_interp, 16);
    ok(good, "%s: what never moved has not moved", l->source);
    ok(layout_has(l, LF_ob_tid) == l->free_threaded, "%s: flavour", l->source);
}

/* Behaviour is chosen by trait and presence: they must not contradict each other. */
static void check_traits(const struct layout *l)
{
    const struct layout_traits *t = layout_traits(layout_minor(l->hexversion));
    if (!ok(t != NULL, "%s has traits", l->source))
        return;
    bool good = (t->obmalloc == OBMALLOC_STATIC) == !layout_has(l, LF_interp_obmalloc);
    if (t->obmalloc == OBMALLOC_POINTER)
        good &= l->slots[LF_interp_obmalloc].kind == LAYOUT_POINTER;
    if (t->obmalloc == OBMALLOC_INLINE)
        good &= l->slots[LF_interp_obmalloc].kind == LAYOUT_EMBEDDED;
    good &= (t->tracemalloc == TRACEMALLOC_RUNTIME) == layout_has(l, LF_rt_tracemalloc);
    good &= t->hashtable_inline == layout_has(l, LF_htab_key_size);
    good &= t->tracemalloc_domain_in_key == layout_has(l, LF_tmconf_use_domain);
    good &= (t->frame == FRAME_OBJECTS) == layout_has(l, LF_ts_frame);
    good &= (t->frame == FRAME_INTERNAL) == layout_has(l, LF_ts_current_frame);
    good &= (t->dict_keys == KEYS_LOG2) == layout_has(l, LF_keys_log2_size);
    good &= (t->dict_values == VALUES_HEADER) == layout_has(l, LF_values_embedded);
    good &= t->int_tagged == layout_has(l, LF_int_tag);
    good &= t->str_legacy == layout_has(l, LF_str_wstr);
    good &= (t->mimalloc == MIMALLOC_21) == layout_has(l, LF_mi_page_xblock_size);
    good &= (t->mimalloc == MIMALLOC_22) == layout_has(l, LF_mi_page_start);
    good &= t->debug_offsets == layout_has(l, LF_rt_debug_offsets);
    good &= (t->freelists == FREELISTS_CHAINS) == layout_has(l, LF_freelist_first);
    if (t->radix_top_bits)
        good &= layout_size(l, LF_map_top_size) == (uint64_t)8 << t->radix_top_bits &&
                layout_size(l, LF_map_mid_size) == (uint64_t)8 << t->radix_mid_bits &&
                layout_size(l, LF_map_bot_size) == (uint64_t)8 << t->radix_bot_bits;
    else
        good &= !layout_has(l, LF_map_top_size);
    ok(good, "%s: traits agree with what is there", l->source);
}

static const struct layout *release(unsigned minor, unsigned micro, bool debug, bool ft)
{
    bool exact = false;
    uint32_t hex = 0x030000f0u | minor << 16 | micro << 8;
    const struct layout *l = layout_find(hex, debug, ft, &exact);
    ok(l && exact, "there is a table of 3.%u.%u%s%s", minor, micro, debug ? "d" : "",
       ft ? "t" : "");
    return l;
}

/* Offsets measured independently, by release. */
static void test_known(void)
{
    static const struct {
        unsigned minor, micro;
        enum layout_field field;
        uint64_t offset;
    } known[] = {
        {8, 18, LF_rt_size, 1464},           {8, 18, LF_rt_gc, 344},
        {8, 18, LF_rt_interp_head, 32},      {8, 18, LF_interp_size, 2720},
        {9, 18, LF_interp_size, 5656},       {9, 18, LF_interp_gc, 616},
        {9, 18, LF_frame_lasti, 104},        {10, 13, LF_frame_lasti, 96},
        {10, 13, LF_interp_fl_tuple, 9800},  {10, 13, LF_rt_size, 672},
        {11, 7, LF_interp_gc, 648},          {11, 7, LF_rt_size, 0x28b20},
        {11, 7, LF_iframe_instr, 56},        {11, 7, LF_code_adaptive, 184},
        {12, 1, LF_interp_obmalloc, 3960},   {12, 1, LF_rt_tracemalloc, 2768},
        {12, 1, LF_interp_threads_head, 72}, {12, 1, LF_rt_main_interpreter, 76392},
        {13, 0, LF_interp_obmalloc, 10800},  {13, 0, LF_gc_generations, 24},
        {13, 0, LF_rt_tracemalloc, 10080},   {13, 5, LF_rt_size, 0x452f0},
        {13, 5, LF_rt_tracemalloc, 10080},   {13, 5, LF_gc_generations, 20},
        {13, 18, LF_gc_generations, 20},     {13, 18, LF_rt_tracemalloc, 10104},
        {13, 18, LF_rt_size, 0x45310},       {14, 10, LF_rt_size, 0x4d4c8},
        {14, 10, LF_interp_obmalloc, 10904}, {14, 10, LF_gc_generations, 24},
        {14, 10, LF_tuple_item, 32},         {14, 10, LF_rt_tracemalloc, 10296},
        {15, 2, LF_rt_size, 0x549c8},        {15, 2, LF_interp_obmalloc, 10880},
        {15, 2, LF_gc_generations, 8},       {15, 2, LF_bytearray_object, 56},
        {15, 2, LF_module_state, 24},        {15, 2, LF_rt_tracemalloc, 10432},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t hex = 0x030000f0u | known[i].minor << 16 | known[i].micro << 8;
        const struct layout *l = layout_find(hex, false, false, NULL);
        ok(l && at(l, known[i].field, known[i].offset), "3.%u.%u %s", known[i].minor,
           known[i].micro, layout_field_name(known[i].field));
    }
    const struct layout *ft = release(15, 2, false, true);
    ok(at(ft, LF_tsi_mimalloc, 1104) && at(ft, LF_interp_obmalloc, 17280) &&
           at(ft, LF_code_tlbc, 224) && at(ft, LF_iframe_owner, 78),
       "3.15.2 free-threaded offsets");
    const struct layout *d = release(14, 10, true, false);
    ok(at(d, LF_interp_obmalloc, 10912) && layout_size(d, LF_mi_page_sizeof) == 112,
       "3.14.10 debug offsets");
}

static void test_find(void)
{
    bool exact = true;
    const struct layout *l = layout_find(0x030d06f0, false, false, &exact);
    ok(l && !exact && l->hexversion == 0x030d05f0, "3.13.6: nearest is 3.13.5");
    l = layout_find(0x030d0500, false, false, &exact);
    ok(l && exact && l->hexversion == 0x030d05f0, "3.13.5 of unknown level is exact");
    l = layout_find(0x030f02a1, false, false, &exact);
    ok(l && !exact, "a release level that differs is not exact");
    ok(!layout_find(0x030700f0, false, false, &exact) && !exact, "3.7 has no table");
    ok(!layout_find(0x030b07f0, true, false, NULL), "3.11 has no debug table");
    ok(!layout_find(0x030c01f0, false, true, NULL), "3.12 has no free-threaded table");
    ok(!layout_at(layout_count()) && layout_count() >= 17, "%zu tables", layout_count());
    ok(!layout_traits(7) && layout_traits(15), "traits of known minors only");
}

/* ---- reading ---- */

static void test_read(void)
{
    uint8_t bytes[256];
    struct err err = ERR_INIT;
    struct mem *mem;
    uint64_t v = 0;
    int64_t i = 0;
    const struct layout *l = release(11, 7, false, false);

    for (size_t k = 0; k < sizeof bytes; k++)
        bytes[k] = (uint8_t)k;
    memset(bytes + 72, 0xff, 4);            /* code_firstlineno of 3.11 */
    bytes[32] = 0x1 << 2 | 1 << 5 | 1 << 6; /* str state: kind 1, compact, ascii */
    struct mem_image_piece piece = {0x1000, bytes, sizeof bytes};
    if (!ok(mem_image_new(&piece, 1, &mem, NULL) == 0, "image"))
        return;
    ok(layout_u64(l, mem, 0x1000, LF_pool_freeblock, &v, &err) == 0 && v == 0x0f0e0d0c0b0a0908,
       "8 bytes");
    ok(layout_u64(l, mem, 0x1000, LF_iframe_owner, &v, &err) == 0 && v == 69, "1 byte");
    ok(layout_u64(l, mem, 0x1000, LF_code_firstlineno, &v, &err) == 0 && v == 0xffffffff &&
           layout_i64(l, mem, 0x1000, LF_code_firstlineno, &i, &err) == 0 && i == -1,
       "4 bytes, zero- and sign-extended");
    ok(layout_u64(l, mem, 0x1000, LF_str_kind, &v, &err) == 0 && v == 1 &&
           layout_u64(l, mem, 0x1000, LF_str_ascii, &v, &err) == 0 && v == 1 &&
           layout_u64(l, mem, 0x1000, LF_str_interned, &v, &err) == 0 && v == 0,
       "bit fields");
    ok(layout_load(l, bytes, LF_pool_freeblock) == 0x0f0e0d0c0b0a0908 &&
           layout_load_signed(l, bytes, LF_code_firstlineno) == -1 &&
           layout_end(l, LF_pool_freeblock) == 16,
       "from a window");
    ok(layout_u64(l, mem, 0x1000, LF_rt_tracemalloc, &v, &err) == ERR_UNSUPPORTED &&
           strstr(err.text, "rt_tracemalloc") && strstr(err.text, "3.11.7"),
       "absent: %s", err.text);
    ok(layout_u64(l, mem, 0x1000, LF_interp_gc, &v, &err) == ERR_UNSUPPORTED, "a structure: %s",
       err.text);
    ok(layout_u64(l, mem, 0x1100, LF_pool_freeblock, &v, &err) == ERR_FAULT, "hole: %s", err.text);
    ok(layout_u64(l, mem, UINT64_MAX, LF_pool_freeblock, &v, &err) == ERR_FAULT, "wrap: %s",
       err.text);
    mem_close(mem);
}

/* ---- DWARF: this program's own structures under CPython's names ---- */

struct pool_header {
    union {
        uint8_t *_padding;
        unsigned count;
    } ref;
    uint8_t *freeblock;
    struct pool_header *nextpool, *prevpool;
    unsigned arenaindex, szidx, nextoffset, maxnextoffset;
};

typedef struct {
    uint8_t _bits;
} PyMutex;

struct _typeobject;

typedef struct _object {
    union {
        int64_t ob_refcnt_full;
        struct {
            uint32_t ob_refcnt;
            uint16_t ob_overflow, ob_flags;
        };
    };
    PyMutex ob_mutex;
    const struct _typeobject *ob_type;
} PyObject;

typedef struct {
    PyObject ob_base;
    int64_t length, hash;
    struct {
        unsigned interned : 2, kind : 3, compact : 1, ascii : 1;
    } state;
} PyASCIIObject;

struct arena_map_mid {
    struct arena_map_bot *ptrs[10][20];
};

struct _dictvalues {
    volatile uint8_t capacity;
    PyObject *values[];
};

static struct {
    struct pool_header pool;
    PyASCIIObject str;
    struct arena_map_mid mid;
    struct _dictvalues *values;
} use;

static bool slot_is(const struct layout *l, enum layout_field f, size_t offset, unsigned width,
                    unsigned count, enum layout_kind kind)
{
    const struct layout_slot *s = &l->slots[f];
    if ((size_t)s->offset == offset && s->width == width && s->count == count && s->kind == kind)
        return true;
    diag("%s: {%d, %u, %u, %u}", layout_field_name(f), s->offset, s->width, s->count, s->kind);
    return false;
}

static void test_dwarf(void)
{
    struct err err = ERR_INIT;
    char producer[DWARF_PRODUCER_CHARS] = "";
    static struct layout l;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    use.pool.szidx = 1;
    dwarf_layout_clear(&l);
    int rc = dwarf_layout_add(fd, &l, producer, &err);
    if (rc == ERR_NOT_FOUND) {
        skip("this program was built without DWARF");
        close(fd);
        return;
    }
    ok(rc == 0 && producer[0], "DWARF of this program (%s)", producer);
    ok(slot_is(&l, LF_pool_size, sizeof(struct pool_header), 0, 1, LAYOUT_SIZE) &&
           slot_is(&l, LF_pool_ref_count, 0, 4, 1, LAYOUT_VALUE) &&
           slot_is(&l, LF_pool_freeblock, 8, 8, 1, LAYOUT_POINTER) &&
           slot_is(&l, LF_pool_szidx, offsetof(struct pool_header, szidx), 4, 1, LAYOUT_VALUE),
       "members, unions, sizes");
    ok(slot_is(&l, LF_ob_refcnt, 0, 4, 1, LAYOUT_VALUE) &&
           slot_is(&l, LF_ob_flags, 6, 2, 1, LAYOUT_VALUE) &&
           slot_is(&l, LF_ob_refcnt_full, 0, 8, 1, LAYOUT_VALUE) &&
           slot_is(&l, LF_ob_type, offsetof(PyObject, ob_type), 8, 1, LAYOUT_POINTER),
       "anonymous structures and unions");
    ok(slot_is(&l, LF_ob_mutex, 8, 1, 1, LAYOUT_VALUE), "a wrapper counts as its member");
    ok(slot_is(&l, LF_map_mid_ptrs, 0, 8, 200, LAYOUT_POINTER) &&
           slot_is(&l, LF_values_values, 8, 8, 0, LAYOUT_POINTER) &&
           slot_is(&l, LF_values_capacity, 0, 1, 1, LAYOUT_VALUE),
       "arrays, flexible arrays, qualifiers");
    use.str.state.kind = 5;
    use.str.state.ascii = 1;
    ok(layout_load(&l, (const uint8_t *)&use.str, LF_str_kind) == 5 &&
           layout_load(&l, (const uint8_t *)&use.str, LF_str_ascii) == 1 &&
           layout_load(&l, (const uint8_t *)&use.str, LF_str_compact) == 0,
       "bit fields");
    ok(!layout_has(&l, LF_rt_size) && l.slots[LF_rt_size].offset == -1 && !l.free_threaded,
       "what is not there is absent");
    ok(dwarf_layout(fd, &l, &err) == ERR_NOT_FOUND, "not CPython: %s", err.text);
    close(fd);
    ok(use.values == NULL && use.mid.ptrs[0][0] == NULL, "the fixtures are used");
}

int main(void)
{
    for (size_t i = 0; i < layout_count(); i++) {
        const struct layout *l = layout_at(i);
        check_slots(l);
        check_extents(l);
        check_common(l);
        check_traits(l);
        check_mirrors(l);
    }
    test_known();
    test_find();
    test_read();
    test_dwarf();
    return done_testing();
}
