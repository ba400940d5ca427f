/* Is it an object? A header is two words, and many a table holds a small number and the address of
 * a type. So what follows the header must be what the kind has: digits, characters up to a NUL,
 * items that are objects themselves. Where a kind has nothing to look at, the count has to be one
 * that only such objects have. */
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/own.h"
#include "walker/cpython/statics.h"
#include "walker/cpython/type_names.h"

enum {
    POINTER = 8,
    INT_DIGIT_BITS = 30,
    MAX_DIGITS = 1 << 16,
    TEXT_LOOK = 1024, /* characters of a str that are looked at */
    ITEMS_LOOK = 64   /* items of a tuple */
};

bool static_count(const struct objects *o, const uint8_t *header, bool *fixed)
{
    const struct layout *l = &o->py->layout;
    /* What 3.11 freezes starts with this count; other counts stay far below. */
    const uint64_t FROZEN = 999999999, NEAR = 1 << 24, MANY = UINT64_C(1) << 31;
    *fixed = false;
    if (layout_has(l, LF_ob_ref_local)) {
        uint64_t local = layout_load(l, header, LF_ob_ref_local);
        int64_t shared = layout_load_signed(l, header, LF_ob_ref_shared) >> 2;
        *fixed = local == UINT32_MAX;
        return *fixed ||
               (shared >= -INT32_MAX && shared <= INT32_MAX && (int64_t)local + shared > 0);
    }
    uint64_t word = load_u64(header + layout_offset(l, LF_ob_refcnt));
    uint32_t low = (uint32_t)word;
    switch (o->py->traits->immortal) {
    case IMMORTAL_NONE:
        *fixed = word > FROZEN - NEAR && word < FROZEN + NEAR;
        return word && word < MANY;
    case IMMORTAL_LOW_NEG:
        *fixed = low >> 31;
        return low && word < MANY << 5;
    case IMMORTAL_HIGH_BIT:
        *fixed = low >> 31;
        return low && !(word >> 32 & 0xffff) && word >> 48 < 0x100;
    }
    return false;
}

/* What is asked of a candidate. */
struct question {
    struct objects *o;
    const struct static_named *named;
    const struct static_candidate *c;
    struct type_info t; /* a copy: asking for other types moves them */
    uint64_t at;        /* where the layout's offsets begin */
    uint64_t room;      /* bytes from there to the end of the memory */
};

static bool is_text(struct question *q, uint64_t *bytes)
{
    const struct layout *l = &q->o->py->layout;
    struct str_parts s;
    uint64_t head = layout_size(l, LF_str_ascii_sizeof), kind, ascii, length;
    const uint8_t *p = objects_peek(q->o, q->at, head);
    if (!p || !layout_load(l, p, LF_str_compact) ||
        (layout_has(l, LF_str_ready) && !layout_load(l, p, LF_str_ready)))
        return false;
    kind = layout_load(l, p, LF_str_kind);
    ascii = layout_load(l, p, LF_str_ascii);
    length = layout_load(l, p, LF_str_length);
    if ((kind != 1 && kind != 2 && kind != 4) || (ascii && kind != 1) || length >= q->room ||
        !str_parts_read(q->o, q->at, &s) || s.self > q->room)
        return false;
    if (!ascii)
        head = layout_size(l, LF_str_compact_sizeof);
    *bytes = s.self;
    uint32_t nul = 0;
    if (mem_read_some(q->o->far, q->at + head + length * kind, &nul, kind) < kind || nul)
        return false;
    size_t n = (size_t)min_u64(length, TEXT_LOOK);
    p = ascii && n ? objects_peek(q->o, q->at + head, n) : NULL;
    for (size_t i = 0; p && i < n; i++)
        if (p[i] & 0x80)
            return false;
    return !ascii || !n || p;
}

static bool is_bytes(struct question *q, uint64_t n, uint64_t *bytes)
{
    const struct layout *l = &q->o->py->layout;
    uint64_t sval = layout_offset(l, LF_bytes_sval), hash;
    uint8_t nul = 1;
    if (n >= q->room || sval + n + 1 > q->room || !objects_field(q->o, q->at, LF_bytes_hash, &hash))
        return false;
    *bytes = sval + n + 1;
    /* Of no bytes there is one hash, or it is not known yet. */
    return mem_read_some(q->o->far, q->at + sval + n, &nul, 1) == 1 && !nul &&
           (n || hash == 0 || hash == UINT64_MAX);
}

static bool is_int(struct question *q, uint64_t *bytes)
{
    enum { SIGN = 3, SHIFT = 3 };
    const struct layout *l = &q->o->py->layout;
    uint64_t word, n, digit = layout_offset(l, LF_int_digit);
    bool tagged = q->o->py->traits->int_tagged, bool_ = strcmp(q->t.name, "bool") == 0;
    if (!objects_field(q->o, q->at, tagged ? LF_int_tag : LF_var_size, &word))
        return false;
    n = tagged ? word >> SHIFT : (int64_t)word < 0 ? -word : word;
    if (n > MAX_DIGITS || (bool_ && n > 1) || (tagged && (word & SIGN) == SIGN))
        return false;
    *bytes = digit + 4 * max_u64(n, 1);
    if (*bytes > q->room)
        return false;
    for (uint64_t i = 0; i < max_u64(n, 1); i++) {
        uint32_t d;
        bool last = i + 1 >= n;
        if (mem_read_some(q->o->far, q->at + digit + 4 * i, &d, sizeof d) < sizeof d ||
            d >> INT_DIGIT_BITS || (last && n && !d) || (bool_ && d != n) || (!n && d))
            return false;
    }
    return true;
}

/* The address of an object, by the type in its header. */
static bool is_object(struct objects *o, uint64_t addr)
{
    const struct layout *l = &o->py->layout;
    bool fixed;
    if (!addr || (addr & 7))
        return false;
    const uint8_t *p = objects_peek(o, addr + objects_shift(o), layout_size(l, LF_ob_sizeof));
    return p && static_count(o, p, &fixed) && types_get(o, layout_load(l, p, LF_ob_type));
}

bool static_count_is_pointer(struct objects *o, uint64_t addr)
{
    uint64_t count;
    return !layout_has(&o->py->layout, LF_ob_ref_local) &&
           objects_field(o, addr + objects_shift(o), LF_ob_refcnt, &count) && is_object(o, count);
}

static bool is_tuple(struct question *q, uint64_t n)
{
    uint64_t item, base = q->at + layout_offset(&q->o->py->layout, LF_tuple_item);
    for (uint64_t i = 0; i < n && i < ITEMS_LOOK; i++)
        if (mem_u64(q->o->far, base + POINTER * i, &item, NULL) < 0 || !is_object(q->o, item))
            return false;
    return true;
}

static bool is_code(struct question *q)
{
    static const enum layout_field objects[] = {LF_code_consts, LF_code_filename, LF_code_name};
    uint64_t addr;
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        if (!objects_field(q->o, q->at, objects[i], &addr) || !is_object(q->o, addr))
            return false;
    return true;
}

/* PyModuleDef: after the header a function, an index, a list; then the module's name. */
static bool is_moduledef(struct question *q)
{
    enum { NAME = 24 };
    struct type_text text;
    uint64_t name;
    return mem_u64(q->o->far, q->at + layout_size(&q->o->py->layout, LF_ob_sizeof) + NAME, &name,
                   NULL) == 0 &&
           type_text_cstr(q->o, name, &text) && text.n && !text.controls;
}

/* What has a name in `builtins` needs no other proof: None, True and the like. */
static bool is_named(const struct question *q)
{
    for (size_t i = 0; i < STATIC_NAMED; i++)
        if (q->c->addr == q->named->addr[i])
            return true;
    return false;
}

/* 3.8 has its small ints in a row. */
static bool has_twin(struct question *q, uint64_t bytes)
{
    const struct layout *l = &q->o->py->layout;
    uint64_t step = round_up(bytes, POINTER);
    bool fixed;
    for (int i = 0; i < 2; i++) {
        const uint8_t *p =
            objects_peek(q->o, i ? q->at + step : q->at - step, layout_size(l, LF_ob_sizeof));
        if (p && layout_load(l, p, LF_ob_type) == q->t.addr && static_count(q->o, p, &fixed))
            return true;
    }
    return false;
}

/* The only objects that an extension in wide use declares by itself: numpy's builtin dtypes. After
 * the header the type of scalars, then letters for kind, type and byte order. */
static bool is_dtype(struct question *q)
{
    static const char kinds[] = "biufcmMOSUVT", orders[] = "<>=|";
    const size_t head = layout_size(&q->o->py->layout, LF_ob_sizeof);
    if (strncmp(q->t.name, "numpy.dtype[", 12) != 0 || q->t.basicsize < head + 2 * POINTER)
        return false;
    const uint8_t *p = objects_peek(q->o, q->at + head, 2 * POINTER);
    if (!p || !p[8] || !strchr(kinds, p[8]) || p[9] <= ' ' || p[9] > '~' || !p[10] ||
        !strchr(orders, p[10]))
        return false;
    return types_get(q->o, load_u64(p));
}

static bool prove_int(struct question *q, uint64_t *bytes)
{
    if (!is_int(q, bytes))
        return false;
    bool plain = strcmp(q->t.name, "int") == 0 && !q->t.heap;
    return q->c->fixed || is_named(q) || (plain && has_twin(q, *bytes));
}

/* Strings, tuples and code are static only where the build made them, and that gave them such a
 * count; what has buffers of malloc's never is. */
static bool kind_possible(enum object_kind kind, bool fixed)
{
    switch (kind) {
    case KIND_OTHER:
    case KIND_INT:
        return true;
    case KIND_STR:
    case KIND_BYTES:
    case KIND_TUPLE:
    case KIND_CODE:
        return fixed;
    default:
        return false;
    }
}

static bool prove_sized(struct question *q, uint64_t *bytes)
{
    uint64_t n = 0;
    if (q->t.itemsize && !objects_field(q->o, q->at, LF_var_size, &n))
        return false;
    if (q->t.kind == KIND_BYTES)
        return is_bytes(q, n, bytes);
    *bytes = n <= q->room ? bytes_of(q->t.basicsize, n, q->t.itemsize) : 0;
    if (!*bytes || *bytes > q->room)
        return false;
    if (q->t.kind == KIND_TUPLE)
        return is_tuple(q, n);
    if (q->t.kind == KIND_CODE)
        return is_code(q);
    if (strcmp(q->t.name, "moduledef") == 0)
        return is_moduledef(q);
    return q->c->fixed || is_named(q) || is_dtype(q);
}

static bool prove_kind(struct question *q, uint64_t *bytes)
{
    if (q->t.is_type) {
        *bytes = layout_size(&q->o->py->layout, LF_type_sizeof);
        return *bytes <= q->room && types_get(q->o, q->c->addr);
    }
    if (!kind_possible(q->t.kind, q->c->fixed))
        return false;
    switch (q->t.kind) {
    case KIND_STR:
        return is_text(q, bytes);
    case KIND_INT:
        return prove_int(q, bytes);
    default:
        return prove_sized(q, bytes);
    }
}

void static_named(struct objects *o, struct static_named *ret)
{
    static const char *const names[STATIC_NAMED] = {"None", "Ellipsis", "NotImplemented", "False",
                                                    "True"};
    uint64_t dict;
    memset(ret, 0, sizeof *ret);
    if (!o->py->n_interpreters ||
        !objects_field(o, o->py->interpreters[0], LF_interp_builtins, &dict))
        return;
    for (size_t i = 0; i < STATIC_NAMED; i++)
        ret->addr[i] = dict_get(o, dict, names[i]);
}

bool static_prove(struct objects *o, const struct static_named *named,
                  const struct static_candidate *c, uint64_t end, uint64_t *bytes)
{
    struct question q = {.o = o, .named = named, .c = c, .t = o->types.items[c->type]};
    uint64_t shift = objects_shift(o);
    q.at = c->addr + shift;
    if (q.at >= end || end - q.at < layout_size(&o->py->layout, LF_ob_sizeof))
        return false;
    q.room = end - q.at;
    if (!prove_kind(&q, bytes))
        return false;
    *bytes += shift;
    return true;
}
