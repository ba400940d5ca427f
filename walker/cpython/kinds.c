/* The builtin kinds of objects, and how large an instance says that it is. The sizes are those of
 * each kind's __sizeof__, which is not always the size of its blocks: an over-allocated keys table
 * or the words in front of an object count as the release at hand counts them. */
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/own.h"

enum {
    MAX_BASES = 64,
    NAME_BYTES = 32,
    POINTER = 8,
    SUBCLASS_INT = 1u << 24,
    SUBCLASS_LIST = 1u << 25,
    SUBCLASS_TUPLE = 1u << 26,
    SUBCLASS_BYTES = 1u << 27,
    SUBCLASS_STR = 1u << 28,
    SUBCLASS_DICT = 1u << 29,
    DEQUE_BLOCK_ITEMS = 64
};
static const uint64_t MAX_BYTES = UINT64_C(1) << 47;
static const uint64_t SUBCLASS_TYPE = UINT64_C(1) << 31;

/* What no flag of tp_flags tells. A name alone proves nothing: a type of that name must be large
 * enough for what its instances are taken for, and the core's own types are static. */
static const struct {
    const char *name;
    enum object_kind kind;
    enum layout_field size;
    bool builtin;
} kind_names[] = {
    {"set", KIND_SET, LF_set_sizeof, true},
    {"frozenset", KIND_SET, LF_set_sizeof, true},
    {"frozendict", KIND_DICT, LF_dict_sizeof, true},
    {"bytearray", KIND_BYTEARRAY, LF_bytearray_sizeof, true},
    {"code", KIND_CODE, LF_ob_sizeof, true},
    {"frame", KIND_FRAME, LF_ob_sizeof, true},
    {"generator", KIND_GENERATOR, LF_ob_sizeof, true},
    {"coroutine", KIND_GENERATOR, LF_ob_sizeof, true},
    {"async_generator", KIND_GENERATOR, LF_ob_sizeof, true},
    {"function", KIND_FUNCTION, LF_func_sizeof, true},
    {"module", KIND_MODULE, LF_module_sizeof, true},
    {"collections.OrderedDict", KIND_ODICT, LF_odict_sizeof, true},
    {"collections.deque", KIND_DEQUE, LF_deque_sizeof, false},
    {"array.array", KIND_ARRAY, LF_array_sizeof, false},
    {"numpy.ndarray", KIND_NDARRAY, LF_ob_sizeof, false},
};

bool objects_field(struct objects *o, uint64_t base, enum layout_field field, uint64_t *ret)
{
    const struct layout *l = &o->py->layout;
    if (!layout_is_number(l, field))
        return false;
    uint64_t at = layout_offset(l, field);
    const uint8_t *bytes = objects_peek(o, base + at, layout_end(l, field) - at);
    if (!bytes)
        return false;
    *ret = layout_load_at(l, bytes, field);
    return true;
}

uint64_t bytes_of(uint64_t a, uint64_t n, uint64_t each)
{
    uint64_t product, sum;
    if (mul_overflows(n, each, &product) || add_overflows(a, product, &sum) || sum > MAX_BYTES)
        return 0;
    return sum;
}

/* ---- which kind ---- */

static enum object_kind kind_by_flags(uint64_t flags)
{
    if (flags & SUBCLASS_TYPE)
        return KIND_TYPE;
    if (flags & SUBCLASS_INT)
        return KIND_INT;
    if (flags & SUBCLASS_STR)
        return KIND_STR;
    if (flags & SUBCLASS_BYTES)
        return KIND_BYTES;
    if (flags & SUBCLASS_TUPLE)
        return KIND_TUPLE;
    if (flags & SUBCLASS_LIST)
        return KIND_LIST;
    return flags & SUBCLASS_DICT ? KIND_DICT : KIND_OTHER;
}

static enum object_kind kind_by_name(struct objects *o, uint64_t type)
{
    const struct layout *l = &o->py->layout;
    char name[NAME_BYTES] = "";
    uint64_t at, flags, basicsize;
    if (!objects_field(o, type, LF_type_name, &at) ||
        !objects_field(o, type, LF_type_flags, &flags) ||
        !objects_field(o, type, LF_type_basicsize, &basicsize))
        return KIND_OTHER;
    mem_read_some(o->far, at, name, sizeof name - 1);
    for (size_t i = 0; i < sizeof kind_names / sizeof *kind_names; i++)
        if (strcmp(name, kind_names[i].name) == 0)
            return (kind_names[i].builtin && flags & TYPE_HEAPTYPE) ||
                           basicsize < layout_size(l, kind_names[i].size)
                       ? KIND_OTHER
                       : kind_names[i].kind;
    return KIND_OTHER;
}

enum object_kind kind_of_type(struct objects *o, uint64_t type_addr, uint64_t flags)
{
    enum object_kind kind = kind_by_flags(flags);
    if (kind != KIND_OTHER && kind != KIND_DICT)
        return kind;
    for (int i = 0; type_addr && i < MAX_BASES; i++) {
        enum object_kind named = kind_by_name(o, type_addr);
        if (named != KIND_OTHER)
            return named;
        if (!objects_field(o, type_addr, LF_type_base, &type_addr))
            break;
    }
    return kind;
}

/* ---- parts that sizes and owners share ---- */

static bool keys_by_size(const struct layout *l, const uint8_t *p, struct dict_keys *ret)
{
    uint64_t size = layout_load(l, p, LF_keys_size);
    uint64_t index = size <= 0xff ? 1 : size <= 0xffff ? 2 : size <= 0xffffffff ? 4 : 8;
    if (!is_power_of_two(size) || size > MAX_BYTES / 32)
        return false;
    uint64_t usable = size * 2 / 3;
    ret->bytes =
        layout_size(l, LF_keys_sizeof) + index * size + layout_size(l, LF_entry_sizeof) * usable;
    ret->slots = usable;
    return true;
}

static bool keys_by_log2(const struct layout *l, const uint8_t *p, struct dict_keys *ret)
{
    enum { GENERAL, MAX_KIND = 2, MAX_LOG2 = 40, MAX_INDEX_LOG2 = 3 };
    uint64_t log2 = layout_load(l, p, LF_keys_log2_size);
    uint64_t index = layout_load(l, p, LF_keys_log2_index_bytes);
    uint64_t kind = layout_load(l, p, LF_keys_kind);
    if (log2 > MAX_LOG2 || index > log2 + MAX_INDEX_LOG2 || kind > MAX_KIND)
        return false;
    uint64_t entry = layout_size(l, kind == GENERAL ? LF_entry_sizeof : LF_uentry_sizeof);
    ret->bytes = layout_size(l, LF_keys_sizeof) + (UINT64_C(1) << index) +
                 entry * ((UINT64_C(2) << log2) / 3);
    ret->slots = layout_load(l, p, LF_keys_usable) + layout_load(l, p, LF_keys_nentries);
    return ret->slots <= UINT64_C(2) << log2;
}

bool dict_keys_read(struct objects *o, uint64_t keys, struct dict_keys *ret)
{
    const struct layout *l = &o->py->layout;
    const uint8_t *p = keys ? objects_peek(o, keys, layout_size(l, LF_keys_sizeof)) : NULL;
    if (!p)
        return false;
    ret->refcnt = layout_load(l, p, LF_keys_refcnt);
    return o->py->traits->dict_keys == KEYS_SIZE ? keys_by_size(l, p, ret)
                                                 : keys_by_log2(l, p, ret);
}

static void str_wide(const struct layout *l, const uint8_t *p, bool ascii, uint64_t data,
                     struct str_parts *ret)
{
    enum { WCHAR = 4 };
    uint64_t wstr = layout_load(l, p, LF_str_wstr);
    if (!wstr || wstr == data)
        return;
    ret->wstr = wstr;
    ret->wstr_bytes =
        bytes_of(WCHAR, layout_load(l, p, ascii ? LF_str_length : LF_str_wstr_length), WCHAR);
}

bool str_parts_read(struct objects *o, uint64_t obj, struct str_parts *ret)
{
    const struct layout *l = &o->py->layout;
    uint64_t size = layout_size(l, LF_str_ascii_sizeof), data = 0;
    const uint8_t *p = objects_peek(o, obj, size);
    memset(ret, 0, sizeof *ret);
    if (!p)
        return false;
    uint64_t kind = layout_load(l, p, LF_str_kind), length = layout_load(l, p, LF_str_length);
    bool compact = layout_load(l, p, LF_str_compact), ascii = layout_load(l, p, LF_str_ascii);
    if (!(compact && ascii)) {
        size = layout_size(l, compact ? LF_str_compact_sizeof : LF_str_sizeof);
        p = objects_peek(o, obj, size);
        if (!p)
            return false;
        data = compact ? obj + size : layout_load(l, p, LF_str_data);
        uint64_t utf8 = layout_load(l, p, LF_str_utf8);
        if (utf8 && utf8 != data) {
            ret->utf8 = utf8;
            ret->utf8_bytes = bytes_of(1, layout_load(l, p, LF_str_utf8_length), 1);
        }
    }
    if (!compact && data) {
        ret->data = data;
        ret->data_bytes = bytes_of(kind, length, kind);
    }
    if (layout_has(l, LF_str_wstr))
        str_wide(l, p, compact && ascii, data, ret);
    ret->self = compact ? bytes_of(size + kind, length, kind) : size;
    return ret->self != 0;
}

static void code_part(struct code_parts *c, uint64_t addr, uint64_t bytes, bool counted)
{
    if (addr && c->n < CODE_PARTS) {
        c->part[c->n].addr = addr;
        c->part[c->n].bytes = bytes;
        c->part[c->n++].counted = counted;
    }
}

static uint64_t tuple_length(struct objects *o, uint64_t obj, enum layout_field field)
{
    uint64_t tuple, n = 0;
    if (!objects_field(o, obj, field, &tuple) || !tuple ||
        !objects_field(o, tuple, LF_var_size, &n))
        return 0;
    return n;
}

/* 3.8-3.10 */
static void code_caches(struct objects *o, uint64_t obj, struct code_parts *ret)
{
    enum { OPCACHE = 32 }; /* sizeof(_PyOpcache) */
    uint64_t at, n, code;
    if (objects_field(o, obj, LF_code_cell2arg, &at))
        code_part(ret, at, bytes_of(0, tuple_length(o, obj, LF_code_cellvars), POINTER), true);
    if (objects_field(o, obj, LF_code_opcache_map, &at) && at &&
        objects_field(o, obj, LF_code_code, &code) && objects_field(o, code, LF_var_size, &n))
        code_part(ret, at, n, true);
    if (objects_field(o, obj, LF_code_opcache, &at) && at &&
        objects_field(o, obj, LF_code_opcache_size, &n))
        code_part(ret, at, bytes_of(0, n, OPCACHE), true);
}

void code_parts_read(struct objects *o, uint64_t obj, struct code_parts *ret)
{
    enum { CODE_EXTRAS = 1 << 16 };
    uint64_t at, n;
    ret->n = 0;
    if (objects_field(o, obj, LF_code_extra, &at) && at && mem_u64(o->far, at, &n, NULL) == 0 &&
        n <= CODE_EXTRAS)
        code_part(ret, at, bytes_of(POINTER, n, POINTER), true);
    code_caches(o, obj, ret);
    if (objects_field(o, obj, LF_code_linearray, &at))
        code_part(ret, at, 0, false);
    if (objects_field(o, obj, LF_code_cached, &at))
        code_part(ret, at, layout_size(&o->py->layout, LF_cocached_size), false);
    if (objects_field(o, obj, LF_code_executors, &at))
        code_part(ret, at, 0, false);
    if (objects_field(o, obj, LF_code_monitoring, &at))
        code_part(ret, at, 0, false);
}

/* ---- how large ---- */

/* object.__sizeof__ */
static uint64_t plain_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    int64_t n = 0;
    uint64_t bits = 0;
    if (t->itemsize && objects_field(o, obj, LF_var_size, &bits))
        n = (int64_t)bits;
    return bytes_of(t->basicsize, n < 0 ? -(uint64_t)n : (uint64_t)n, t->itemsize);
}

static uint64_t field_sizeof(struct objects *o, const struct type_info *t, uint64_t obj,
                             enum layout_field count, uint64_t each)
{
    uint64_t n;
    return objects_field(o, obj, count, &n) ? bytes_of(t->basicsize, n, each) : 0;
}

static uint64_t type_sizeof(struct objects *o, uint64_t obj)
{
    uint64_t flags, keys;
    struct dict_keys k;
    if (!objects_field(o, obj, LF_type_flags, &flags))
        return 0;
    if (!(flags & TYPE_HEAPTYPE))
        return layout_size(&o->py->layout, LF_type_sizeof);
    uint64_t size = layout_size(&o->py->layout, LF_heaptype_sizeof);
    if (objects_field(o, obj, LF_heaptype_cached_keys, &keys) && dict_keys_read(o, keys, &k))
        size += k.bytes;
    return size;
}

static uint64_t int_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    enum { DIGIT = 4, TAG_SHIFT = 3 };
    const struct layout *l = &o->py->layout;
    uint64_t tag, base = layout_offset(l, LF_int_digit);
    if (o->py->traits->int_tagged) {
        if (!objects_field(o, obj, LF_int_tag, &tag))
            return 0;
        return bytes_of(t->basicsize > base ? t->basicsize : base, max_u64(tag >> TAG_SHIFT, 1),
                        DIGIT);
    }
    if (!objects_field(o, obj, LF_var_size, &tag))
        return 0;
    uint64_t digits = (int64_t)tag < 0 ? -tag : tag;
    /* From 3.11 on even 0 counts a digit; that release brought managed dictionaries, too. */
    return bytes_of(base, o->py->traits->managed == MANAGED_NONE ? digits : max_u64(digits, 1),
                    DIGIT);
}

static uint64_t str_sizeof(struct objects *o, uint64_t obj)
{
    struct str_parts s;
    if (!str_parts_read(o, obj, &s))
        return 0;
    return s.self + s.data_bytes + s.utf8_bytes + s.wstr_bytes;
}

static uint64_t dict_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    uint64_t keys, values;
    struct dict_keys k;
    if (!objects_field(o, obj, LF_dict_keys, &keys) ||
        !objects_field(o, obj, LF_dict_values, &values) || !dict_keys_read(o, keys, &k))
        return 0;
    return t->basicsize + (values ? k.slots * POINTER : 0) + (k.refcnt == 1 ? k.bytes : 0);
}

static uint64_t odict_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    uint64_t size = dict_sizeof(o, t, obj), nodes, used, first;
    if (!size || !objects_field(o, obj, LF_odict_fast_nodes_size, &nodes) ||
        !objects_field(o, obj, LF_dict_used, &used) ||
        !objects_field(o, obj, LF_odict_first, &first))
        return 0;
    size = bytes_of(size, nodes, POINTER);
    return first ? bytes_of(size, used, layout_size(&o->py->layout, LF_odnode_sizeof)) : size;
}

static uint64_t set_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    const struct layout *l = &o->py->layout;
    uint64_t table, mask;
    if (!objects_field(o, obj, LF_set_table, &table) || !objects_field(o, obj, LF_set_mask, &mask))
        return 0;
    if (table == obj + layout_offset(l, LF_set_smalltable))
        return t->basicsize;
    uint64_t entry = layout_size(l, LF_setentry_sizeof);
    return bytes_of(t->basicsize + entry, mask, entry);
}

/* 3.15+: the bytes are an object, which is counted in. */
static uint64_t bytearray_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    uint64_t size = field_sizeof(o, t, obj, LF_bytearray_alloc, 1);
    bool object = size > t->basicsize && layout_has(&o->py->layout, LF_bytearray_object);
    return object ? size + layout_offset(&o->py->layout, LF_bytes_sval) + 1 : size;
}

static uint64_t array_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    uint64_t descr, item = 0;
    uint32_t width;
    const struct layout *l = &o->py->layout;
    if (!objects_field(o, obj, LF_array_descr, &descr) || !descr ||
        mem_u32(o->far, descr + layout_offset(l, LF_arraydescr_itemsize), &width, NULL) < 0)
        return 0;
    item = width;
    return item <= 16 ? field_sizeof(o, t, obj, LF_array_allocated, item) : 0;
}

static uint64_t deque_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    uint64_t left, n;
    if (!objects_field(o, obj, LF_deque_leftindex, &left) ||
        !objects_field(o, obj, LF_var_size, &n) || left >= DEQUE_BLOCK_ITEMS || n > MAX_BYTES)
        return 0;
    return bytes_of(t->basicsize, (left + n + DEQUE_BLOCK_ITEMS - 1) / DEQUE_BLOCK_ITEMS,
                    layout_size(&o->py->layout, LF_dqblock_sizeof));
}

static uint64_t code_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    struct code_parts c;
    uint64_t size = round_up(plain_sizeof(o, t, obj), POINTER);
    code_parts_read(o, obj, &c);
    for (size_t i = 0; size && i < c.n; i++)
        if (c.part[i].counted)
            size += c.part[i].bytes;
    return size;
}

/* Locals and stack of a frame of that code, in words. */
static bool frame_words(struct objects *o, uint64_t code, uint64_t *ret)
{
    uint64_t locals, stack;
    if (!objects_field(o, code, LF_code_stacksize, &stack))
        return false;
    if (objects_field(o, code, LF_code_nlocalsplus, &locals)) {
        *ret = (locals & UINT32_MAX) + (stack & UINT32_MAX);
        return true;
    }
    if (!objects_field(o, code, LF_code_nlocals, &locals))
        return false;
    *ret = locals + stack + tuple_length(o, code, LF_code_cellvars) +
           tuple_length(o, code, LF_code_freevars);
    return true;
}

/* A frame that lies in an object: `at` bytes of the object come before it. */
static uint64_t inner_frame_sizeof(struct objects *o, uint64_t at, uint64_t frame)
{
    const uint64_t TAG = 3;
    uint64_t code, words;
    if (!frame || !objects_field(o, frame, LF_iframe_code, &code))
        return 0;
    if (o->py->traits->stack_refs_tagged)
        code &= ~TAG;
    if (!frame_words(o, code, &words))
        return 0;
    return bytes_of(at + layout_offset(&o->py->layout, LF_iframe_localsplus), words, POINTER);
}

static uint64_t frame_sizeof(struct objects *o, uint64_t obj)
{
    const struct layout *l = &o->py->layout;
    uint64_t code, words, inner;
    if (layout_has(l, LF_frame_iframe))
        return objects_field(o, obj, LF_frame_iframe, &inner)
                   ? inner_frame_sizeof(o, layout_offset(l, LF_frame_iframe_data), inner)
                   : 0;
    if (!objects_field(o, obj, LF_frame_code, &code) || !frame_words(o, code, &words))
        return 0;
    return bytes_of(layout_offset(l, LF_frame_localsplus), words, POINTER);
}

static uint64_t generator_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    const struct layout *l = &o->py->layout;
    if (!layout_has(l, LF_gen_iframe))
        return t->basicsize;
    uint64_t at = layout_offset(l, LF_gen_iframe);
    return inner_frame_sizeof(o, at, obj + at);
}

static uint64_t own_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    switch (t->kind) {
    case KIND_TYPE:
        return type_sizeof(o, obj);
    case KIND_INT:
        return int_sizeof(o, t, obj);
    case KIND_STR:
        return str_sizeof(o, obj);
    case KIND_LIST:
        return field_sizeof(o, t, obj, LF_list_allocated, POINTER);
    case KIND_DICT:
        return dict_sizeof(o, t, obj);
    case KIND_ODICT:
        return odict_sizeof(o, t, obj);
    case KIND_SET:
        return set_sizeof(o, t, obj);
    case KIND_BYTEARRAY:
        return bytearray_sizeof(o, t, obj);
    case KIND_ARRAY:
        return array_sizeof(o, t, obj);
    case KIND_DEQUE:
        return deque_sizeof(o, t, obj);
    case KIND_CODE:
        return code_sizeof(o, t, obj);
    case KIND_FRAME:
        return frame_sizeof(o, obj);
    case KIND_GENERATOR:
        return generator_sizeof(o, t, obj);
    default:
        return plain_sizeof(o, t, obj);
    }
}

uint64_t kind_sizeof(struct objects *o, const struct type_info *t, uint64_t obj)
{
    enum { GC_HEAD = 16 };
    uint64_t size = own_sizeof(o, t, obj);
    /* sys.getsizeof adds the words in front of instances of classes to what __sizeof__ says. */
    uint64_t head = t->flags & TYPE_HAVE_GC && !o->py->free_threaded ? GC_HEAD : 0;
    if (size && t->pre > head)
        size += t->pre - head;
    return size <= MAX_BYTES ? size : 0;
}
