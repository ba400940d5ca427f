/* Names of types. A class made by a class statement keeps its module in its dictionary and its
 * qualified name in the type object; tp_name has only the last part of it. Types made by C code say
 * both in tp_name, and builtins say no module. */
#include "walker/cpython/type_names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/base/num.h"

enum {
    MAX_DICT_LOG2 = 20,     /* a type's dictionary of more slots is none */
    MAX_DICT_ENTRIES = 4096 /* of which so many are looked at */
};
#define TPFLAGS_UNICODE (1u << 28)

/* ---- text ---- */

static void put_bytes(struct type_text *t, const char *s, size_t len)
{
    if (t->cut || len > TYPE_NAME_BYTES - t->n) {
        t->cut = true;
        return;
    }
    memcpy(t->bytes + t->n, s, len);
    t->n += len;
    t->bytes[t->n] = '\0';
}

size_t text_utf8(uint32_t c, char s[TEXT_CHAR_BYTES])
{
    if (c == 0) {
        memcpy(s, "\\x00", 4);
        return 4;
    }
    if (c < 0x80) {
        s[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        s[0] = (char)(0xc0 | c >> 6);
        s[1] = (char)(0x80 | (c & 0x3f));
        return 2;
    }
    if (c < 0x10000) {
        s[0] = (char)(0xe0 | c >> 12);
        s[1] = (char)(0x80 | (c >> 6 & 0x3f));
        s[2] = (char)(0x80 | (c & 0x3f));
        return 3;
    }
    s[0] = (char)(0xf0 | (c >> 18 & 7));
    s[1] = (char)(0x80 | (c >> 12 & 0x3f));
    s[2] = (char)(0x80 | (c >> 6 & 0x3f));
    s[3] = (char)(0x80 | (c & 0x3f));
    return 4;
}

static void put_char(struct type_text *t, uint32_t c)
{
    char s[TEXT_CHAR_BYTES];
    /* Control characters and lone surrogates stay what they are: whoever prints or writes a name
     * escapes it. They only tell that it is an unlikely one. */
    t->controls = t->controls || c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0xd800 && c < 0xe000);
    put_bytes(t, s, text_utf8(c, s));
}

size_t text_utf8_char(const uint8_t *s, size_t len, uint32_t *ret)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    if (n == 0 || n > len)
        return 0;
    uint32_t c = n == 1 ? s[0] : s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if (s[i] >> 6 != 2)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
        return 0;
    *ret = c;
    return n;
}

bool type_text_cstr(struct objects *o, uint64_t addr, struct type_text *ret)
{
    char buf[TYPE_NAME_BYTES + 8];
    memset(ret, 0, sizeof *ret);
    size_t got = mem_read_some(o->far, addr, buf, sizeof buf);
    const char *end = memchr(buf, '\0', got);
    if (!end && got < sizeof buf)
        return false;
    size_t len = end ? (size_t)(end - buf) : sizeof buf;
    for (size_t i = 0; i < len && !ret->cut;) {
        uint32_t c;
        size_t n = text_utf8_char((const uint8_t *)buf + i, len - i, &c);
        if (n == 0 && !end && len - i < 4)
            break; /* cut by our own buffer */
        if (n == 0)
            return false;
        put_char(ret, c);
        i += n;
    }
    ret->cut |= !end;
    return true;
}

void type_text_missing(uint64_t addr, struct type_text *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->missing = true;
    ret->n = (size_t)snprintf(ret->bytes, sizeof ret->bytes, "<type at 0x%" PRIx64 ">", addr);
}

bool text_str_chars(struct objects *o, uint64_t obj, uint64_t *data, uint64_t *length,
                    unsigned *width)
{
    const struct layout *l = &o->py->layout;
    const uint8_t *p = objects_peek(o, obj, layout_size(l, LF_str_ascii_sizeof));
    if (!p)
        return false;
    *length = layout_load(l, p, LF_str_length);
    *width = (unsigned)layout_load(l, p, LF_str_kind);
    bool compact = layout_load(l, p, LF_str_compact), ascii = layout_load(l, p, LF_str_ascii);
    if ((*width != 1 && *width != 2 && *width != 4) || *length > INT64_MAX / 4)
        return false;
    *data = obj + layout_size(l, ascii ? LF_str_ascii_sizeof : LF_str_compact_sizeof);
    return compact || layout_u64(l, o->far, obj, LF_str_data, data, NULL) == 0;
}

bool type_text_str(struct objects *o, uint64_t obj, struct type_text *ret)
{
    uint64_t data, length;
    unsigned width;
    uint8_t chars[TYPE_NAME_BYTES * 4];
    memset(ret, 0, sizeof *ret);
    if (!text_str_chars(o, obj, &data, &length, &width))
        return false;
    size_t n = (size_t)min_u64(length, TYPE_NAME_BYTES);
    if (n && mem_read_some(o->far, data, chars, n * width) < n * width)
        return false;
    for (size_t i = 0; i < n && !ret->cut; i++) {
        uint32_t c = 0;
        memcpy(&c, chars + i * width, width);
        if (c > 0x10ffff)
            return false;
        put_char(ret, c);
    }
    ret->cut |= n < length;
    return true;
}

/* ---- the dictionary of a type ---- */

bool text_is_str(struct objects *o, uint64_t obj)
{
    uint64_t type, flags, shift = objects_shift(o);
    const struct layout *l = &o->py->layout;
    return layout_u64(l, o->far, obj + shift, LF_ob_type, &type, NULL) == 0 &&
           layout_u64(l, o->far, type + shift, LF_type_flags, &flags, NULL) == 0 &&
           (flags & TPFLAGS_UNICODE);
}

struct dict_table {
    uint64_t entries, n, stride;
    uint64_t key, value; /* offsets within an entry */
    uint64_t values;     /* the values' own array, or 0 */
};

/* Width of an index into a table of so many slots. */
static uint64_t index_width(uint64_t slots)
{
    return slots <= 0xff ? 1 : slots <= 0xffff ? 2 : slots <= 0xffffffff ? 4 : 8;
}

static bool dict_index_bytes(const struct objects *o, const uint8_t *keys, uint64_t *bytes,
                             bool *general)
{
    const struct layout *l = &o->py->layout;
    *general = true;
    if (o->py->traits->dict_keys == KEYS_SIZE) {
        uint64_t slots = layout_load(l, keys, LF_keys_size);
        *bytes = slots * index_width(slots);
        return is_power_of_two(slots) && slots <= 1u << MAX_DICT_LOG2;
    }
    uint64_t log2 = layout_load(l, keys, LF_keys_log2_index_bytes);
    *general = layout_load(l, keys, LF_keys_kind) == 0;
    *bytes = log2 < 64 ? (uint64_t)1 << log2 : 0;
    return log2 <= MAX_DICT_LOG2 + 3;
}

static bool dict_table(struct objects *o, uint64_t dict, struct dict_table *ret)
{
    const struct layout *l = &o->py->layout;
    uint64_t keys, index_bytes;
    bool general;
    if (layout_u64(l, o->far, dict, LF_dict_keys, &keys, NULL) < 0 ||
        layout_u64(l, o->far, dict, LF_dict_values, &ret->values, NULL) < 0)
        return false;
    const uint8_t *p = objects_peek(o, keys, layout_offset(l, LF_keys_indices));
    if (!p || !dict_index_bytes(o, p, &index_bytes, &general))
        return false;
    ret->n = min_u64(layout_load(l, p, LF_keys_nentries), MAX_DICT_ENTRIES);
    ret->entries = keys + layout_offset(l, LF_keys_indices) + index_bytes;
    ret->stride = layout_size(l, general ? LF_entry_sizeof : LF_uentry_sizeof);
    ret->key = layout_offset(l, general ? LF_entry_key : LF_uentry_key);
    ret->value = layout_offset(l, general ? LF_entry_value : LF_uentry_value);
    if (ret->values && o->py->traits->dict_values == VALUES_HEADER)
        ret->values += layout_offset(l, LF_values_values);
    return true;
}

/* Entries are few: no hashing needed. */
uint64_t dict_get(struct objects *o, uint64_t dict, const char *name)
{
    const struct layout *l = &o->py->layout;
    size_t len = strlen(name), head = layout_size(l, LF_str_ascii_sizeof);
    uint64_t shift = objects_shift(o);
    struct dict_table t;
    if (!dict || !dict_table(o, dict + shift, &t))
        return 0;
    for (uint64_t i = 0; i < t.n; i++) {
        const uint8_t *p = objects_peek(o, t.entries + i * t.stride, t.stride);
        if (!p)
            return 0;
        uint64_t key = load_u64(p + t.key), value = load_u64(p + t.value);
        p = key ? objects_peek(o, key + shift, head + len) : NULL;
        if (!p || layout_load(l, p, LF_str_length) != len || !layout_load(l, p, LF_str_ascii) ||
            !layout_load(l, p, LF_str_compact) || memcmp(p + head, name, len) != 0)
            continue;
        if (t.values && mem_u64(o->far, t.values + i * 8, &value, NULL) < 0)
            return 0;
        return value;
    }
    return 0;
}

/* ---- names ---- */

static bool keep(struct objects *o, const char *module, size_t module_len, const char *name,
                 struct type_info *t)
{
    t->module = strpool_add_n(&o->types.names, module, module_len);
    t->name = strpool_add(&o->types.names, name);
    return t->module && t->name;
}

/* "collections.deque": the module is what stands before the last dot. */
static bool name_by_text(struct objects *o, const struct type_text *plain, struct type_info *t)
{
    static const char builtins[] = "builtins";
    const char *dot = strrchr(plain->bytes, '.');
    bool known = !t->heap && !plain->missing;
    if (!dot)
        return keep(o, builtins, known ? sizeof builtins - 1 : 0, plain->bytes, t);
    size_t len = (size_t)(dot - plain->bytes);
    bool builtin = len == sizeof builtins - 1 && memcmp(plain->bytes, builtins, len) == 0;
    return keep(o, plain->bytes, len, builtin && dot[1] ? dot + 1 : plain->bytes, t);
}

bool type_name_make(struct objects *o, uint64_t type, uint64_t dict, const struct type_text *plain,
                    struct type_info *t)
{
    const struct layout *l = &o->py->layout;
    struct type_text module, name;
    uint64_t qualname, obj = t->heap ? dict_get(o, dict, "__module__") : 0;
    uint64_t shift = objects_shift(o);
    if (!obj || !layout_has(l, LF_heaptype_qualname) || !text_is_str(o, obj) ||
        !type_text_str(o, obj + shift, &module) || module.n == 0 ||
        layout_u64(l, o->far, type, LF_heaptype_qualname, &qualname, NULL) < 0 ||
        !text_is_str(o, qualname) || !type_text_str(o, qualname + shift, &name))
        return name_by_text(o, plain, t);
    if (strcmp(module.bytes, "builtins") == 0)
        return keep(o, module.bytes, module.n, name.bytes, t);
    char full[2 * TYPE_NAME_BYTES + 2];
    int len = snprintf(full, sizeof full, "%s.%s", module.bytes, name.bytes);
    if (len > TYPE_NAME_BYTES) { /* cut it, but not within a character */
        size_t end = TYPE_NAME_BYTES;
        while (end > 0 && ((uint8_t)full[end] >> 6) == 2)
            end--;
        full[end] = '\0';
    }
    return keep(o, module.bytes, module.n, full, t);
}

bool type_name_confirmed(struct objects *o, uint64_t type, const struct type_text *plain)
{
    const struct layout *l = &o->py->layout;
    struct type_text name;
    uint64_t obj;
    return layout_has(l, LF_heaptype_name) &&
           layout_u64(l, o->far, type, LF_heaptype_name, &obj, NULL) == 0 && text_is_str(o, obj) &&
           type_text_str(o, obj + objects_shift(o), &name) && name.n == plain->n &&
           memcmp(name.bytes, plain->bytes, name.n) == 0;
}
