#include "formats/json_decode.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"

/* More entries than this in a list of categories is nonsense even for later versions. */
enum { CATEGORIES_MAX = 1024 };

const char json_damaged[] =
    "the file is damaged or was not written by heapcensus: take a new snapshot";

int json_wrong(struct json_decoder *d, const char *name, const char *what)
{
    int code = err_set(d->err, ERR_FORMAT, "\"%s\" %s", name, what);
    err_remedy(d->err, "%s", json_damaged);
    return code;
}

static int get_u64(struct json_decoder *d, const char *name, const json_t *v, uint64_t *ret)
{
    if (!json_is_integer(v))
        return json_wrong(d, name, "is not an integer");
    if (json_integer_value(v) < 0)
        return json_wrong(d, name, "is negative");
    *ret = (uint64_t)json_integer_value(v);
    return 0;
}

int json_decode_u64(struct json_decoder *d, const json_t *object, const char *name, uint64_t *ret)
{
    const json_t *v = json_object_get(object, name);
    return v ? get_u64(d, name, v, ret) : json_wrong(d, name, "is missing");
}

int json_add_total(struct json_decoder *d, const char *name, uint64_t *total, uint64_t v)
{
    if (add_overflows(*total, v, total) || *total > INT64_MAX)
        return json_wrong(d, name, "adds up to more than 2^63 - 1");
    return 0;
}

void json_decoder_release(struct json_decoder *d)
{
    free(d->tracebacks.to);
    free(d->sites.to);
    free(d->frames);
    free(d->sizes);
    free(d->rows);
    memset(d, 0, sizeof *d);
}

static int get_u32(struct json_decoder *d, const char *name, const json_t *v, void *at)
{
    uint64_t n;
    int rc = get_u64(d, name, v, &n);
    if (rc < 0)
        return rc;
    if (n > UINT32_MAX)
        return json_wrong(d, name, "is too large");
    *(uint32_t *)at = (uint32_t)n;
    return 0;
}

/* "0x" and 1 to 16 hexadecimal digits. */
static int get_addr(struct json_decoder *d, const char *name, const json_t *v, uint64_t *ret)
{
    const char *s = json_string_value(v);
    if (!s || s[0] != '0' || s[1] != 'x')
        return json_wrong(d, name, "is not an address (\"0x...\")");
    size_t digits = strspn(s + 2, "0123456789abcdefABCDEF");
    if (digits < 1 || digits > 16 || s[2 + digits])
        return json_wrong(d, name, "is not an address (\"0x...\")");
    *ret = strtoull(s + 2, NULL, 16);
    return 0;
}

int json_decode_str(struct json_decoder *d, const json_t *v, const char *name, const char **ret)
{
    char stack[512], *text = stack;
    if (!json_is_string(v))
        return json_wrong(d, name, "is not a string");
    size_t len = json_string_length(v);
    if (len >= sizeof stack) {
        text = malloc(len + 1);
        if (!text)
            return err_set(d->err, ERR_NOMEM, "no memory for \"%s\"", name);
    }
    memcpy(text, json_string_value(v), len);
    len = json_unescape(text, len);
    const char *kept =
        strpool_add_n(&d->snap->strings, text, len < JSON_TEXT_MAX ? len : JSON_TEXT_MAX);
    if (text != stack)
        free(text);
    if (!kept)
        return err_set(d->err, ERR_NOMEM, "no memory for \"%s\"", name);
    *ret = kept;
    return 0;
}

int json_quick_str(struct json_decoder *d, struct json_scan *scan, const char **ret)
{
    const char *text;
    size_t len;
    if (!scan_text(scan, &text, &len))
        return 0;
    *ret = strpool_add_n(&d->snap->strings, text, len);
    return *ret ? 1 : err_set(d->err, ERR_NOMEM, "no memory for a string");
}

int json_quick_str_null(struct json_decoder *d, struct json_scan *scan, const char **ret)
{
    *ret = NULL;
    return SCAN(scan, "null") ? 1 : json_quick_str(d, scan, ret);
}

static int get_perms(struct json_decoder *d, const char *name, const json_t *v, char *at)
{
    const char *s = json_string_value(v);
    if (!s || strlen(s) > 4 || strspn(s, "rwxsp-") != strlen(s))
        return json_wrong(d, name, "is not of the form \"rw-p\"");
    memset(at, 0, 5);
    memcpy(at, s, strlen(s));
    return 0;
}

static int get_number(struct json_decoder *d, const struct json_field *f, const json_t *v,
                      uint64_t *total, void *at)
{
    uint64_t n = 0;
    if (f->type == FIELD_U32)
        return get_u32(d, f->name, v, at);
    int rc = f->type == FIELD_ADDR || f->type == FIELD_ADDR_NULL ? get_addr(d, f->name, v, &n)
                                                                 : get_u64(d, f->name, v, &n);
    if (rc == 0 && f->type == FIELD_SUM)
        rc = json_add_total(d, f->name, total, n);
    if (rc == 0)
        *(uint64_t *)at = n;
    return rc;
}

struct category_row {
    uint64_t bytes, resident, count;
};

static const struct json_field category_fields[] = {
    {"bytes", FIELD_U64, true, offsetof(struct category_row, bytes), NULL},
    {"resident_bytes", FIELD_U64, true, offsetof(struct category_row, resident), NULL},
    {"count", FIELD_U64, true, offsetof(struct category_row, count), NULL},
    {NULL, FIELD_U64, false, 0, NULL},
};

static int get_category(struct json_decoder *d, const json_t *entry, struct tally *t)
{
    struct category_row row;
    const char *name = json_string_value(json_object_get(entry, "name"));
    if (!name)
        return json_wrong(d, "categories", "has an entry without a name");
    int rc = json_decode(d, entry, category_fields, &row);
    if (rc == 0)
        rc = json_add_total(d, "bytes", &d->totals->bytes, row.bytes);
    if (rc == 0)
        rc = json_add_total(d, "resident_bytes", &d->totals->resident, row.resident);
    if (rc == 0)
        rc = json_add_total(d, "count", &d->totals->count, row.count);
    if (rc < 0)
        return rc;
    int cat = category_of_name(name);
    if (cat < 0) {
        cat = CAT_UNKNOWN;
        d->totals->unknown_bytes += row.bytes; /* cannot wrap: totals->bytes did not */
        if (!d->unknown[0])
            strncat(d->unknown, name, sizeof d->unknown - 1);
    }
    t->bytes[cat] += row.bytes;
    t->resident[cat] += row.resident;
    t->count[cat] += row.count;
    return 0;
}

static int get_tally(struct json_decoder *d, const char *name, const json_t *v, struct tally *t)
{
    if (!json_is_array(v) || json_array_size(v) > CATEGORIES_MAX)
        return json_wrong(d, name, "is not a list of categories");
    int rc = 0;
    for (size_t i = 0; i < json_array_size(v) && rc == 0; i++)
        rc = get_category(d, json_array_get(v, i), t);
    return rc;
}

static int get_class(struct json_decoder *d, const json_t *entry,
                     struct snapshot_size_class *classes)
{
    struct snapshot_size_class c = {.size = 0};
    int rc = json_decode(d, entry, json_size_class_fields, &c);
    if (rc < 0)
        return rc;
    if (c.size % 16 || c.size < 16 || c.size > 16 * SIZE_CLASSES)
        return json_wrong(d, "size", "is not a size class of pymalloc");
    struct snapshot_size_class *slot = &classes[c.size / 16 - 1];
    if (slot->pools)
        return json_wrong(d, "size_classes", "has the same size twice");
    *slot = c;
    return 0;
}

static int get_classes(struct json_decoder *d, const char *name, const json_t *v,
                       struct snapshot_size_class *classes)
{
    struct json_totals totals = {.bytes = 0}, *outer = d->totals;
    if (!json_is_array(v) || json_array_size(v) > SIZE_CLASSES)
        return json_wrong(d, name, "is not a list of size classes");
    for (size_t i = 0; i < SIZE_CLASSES; i++)
        classes[i] = (struct snapshot_size_class){.size = 16 * (i + 1)};
    int rc = 0;
    d->totals = &totals;
    for (size_t i = 0; i < json_array_size(v) && rc == 0; i++)
        rc = get_class(d, json_array_get(v, i), classes);
    d->totals = outer;
    return rc;
}

static int get_generations(struct json_decoder *d, const char *name, const json_t *v, uint64_t *at)
{
    if (!json_is_array(v) || json_array_size(v) > GC_GENERATIONS)
        return json_wrong(d, name, "is not a list of generations");
    int rc = 0;
    for (size_t i = 0; i < json_array_size(v) && rc == 0; i++)
        rc = get_u64(d, name, json_array_get(v, i), &at[i]);
    return rc;
}

static bool may_be_null(enum json_field_type type)
{
    return type == FIELD_STR || type == FIELD_PID || type == FIELD_ADDR_NULL || type == FIELD_MAYBE;
}

static int get_bool(struct json_decoder *d, const char *name, const json_t *v, bool *at)
{
    if (!json_is_boolean(v))
        return json_wrong(d, name, "is not true or false");
    *at = json_is_true(v);
    return 0;
}

static int get_object(struct json_decoder *d, const struct json_field *f, const json_t *v, void *at)
{
    if (!json_is_object(v))
        return json_wrong(d, f->name, "is not an object");
    if (f->type == FIELD_MAYBE)
        *(bool *)at = true; /* `present`, the struct's first member */
    return json_decode(d, v, f->sub, at);
}

static int get_value(struct json_decoder *d, const struct json_field *f, const json_t *v,
                     uint64_t *total, void *at)
{
    switch (f->type) {
    case FIELD_BOOL:
        return get_bool(d, f->name, v, at);
    case FIELD_STR:
    case FIELD_NAME:
        return json_decode_str(d, v, f->name, at);
    case FIELD_PERMS:
        return get_perms(d, f->name, v, at);
    case FIELD_MAYBE:
    case FIELD_OBJECT:
        return get_object(d, f, v, at);
    case FIELD_TALLY:
    case FIELD_TALLY_USED:
        return get_tally(d, f->name, v, at);
    case FIELD_CLASSES:
        return get_classes(d, f->name, v, at);
    case FIELD_GENERATIONS:
        return get_generations(d, f->name, v, at);
    default:
        return get_number(d, f, v, total, at);
    }
}

int json_decode(struct json_decoder *d, const json_t *object, const struct json_field *fields,
                void *base)
{
    for (const struct json_field *f = fields; f->name; f++) {
        const json_t *v = json_object_get(object, f->name);
        if (!v && f->required)
            return json_wrong(d, f->name, "is missing");
        if (!v || (json_is_null(v) && may_be_null(f->type)))
            continue; /* the struct came zeroed */
        int rc = get_value(d, f, v, &d->totals->rows[f - fields], (char *)base + f->offset);
        if (rc < 0)
            return rc;
    }
    return 0;
}
