/* The record "blocks": columns of equal length, a row for each block in use. Addresses and sizes
 * are integers here, since a record holds thousands; `type` is an index into the record's own
 * `types`, so that a name is written once a record and each record can be read alone. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/vec.h"
#include "formats/block_stream.h"
#include "formats/json_decode.h"
#include "formats/json_fields.h"

enum { NAME_SLOTS = 2 * JSON_BLOCKS_ROWS, NO_NAME = UINT16_MAX };

struct block_names {
    const char *names[JSON_BLOCKS_ROWS];
    uint16_t slots[NAME_SLOTS]; /* open addressing: index + 1 */
    uint16_t row[JSON_BLOCKS_ROWS];
    size_t n;
};

static size_t hash_text(const char *s)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 16777619u;
    return h ^ (h >> 16);
}

static uint16_t name_index(struct block_names *t, const char *name)
{
    size_t i = hash_text(name) % NAME_SLOTS;
    for (; t->slots[i]; i = (i + 1) % NAME_SLOTS)
        if (strcmp(t->names[t->slots[i] - 1], name) == 0)
            return (uint16_t)(t->slots[i] - 1);
    t->names[t->n++] = name;
    t->slots[i] = (uint16_t)t->n;
    return (uint16_t)(t->n - 1);
}

static void find_names(struct block_names *t, const struct snapshot_block *rows, size_t n)
{
    memset(t->slots, 0, sizeof t->slots);
    t->n = 0;
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].type)
            t->row[i] = NO_NAME;
        else if (i && rows[i].type == rows[i - 1].type) /* neighbours often are alike */
            t->row[i] = t->row[i - 1];
        else
            t->row[i] = name_index(t, rows[i].type);
    }
}

static void begin(struct json_emit *e, const char *column)
{
    emit_key(e, column);
    emit_open(e, '[');
}

static void emit_sites(struct json_emit *e, const struct snapshot_block *rows, size_t n)
{
    begin(e, "site");
    for (size_t i = 0; i < n; i++)
        if (rows[i].site)
            emit_u64(e, rows[i].site - 1);
        else
            emit_null(e);
    emit_close(e, ']');
}

void json_emit_blocks(struct json_emit *e, const struct snapshot_block *rows, size_t n, bool sites)
{
    struct block_names t;
    find_names(&t, rows, n);
    begin(e, "types");
    for (size_t i = 0; i < t.n; i++)
        emit_text(e, t.names[i]);
    emit_close(e, ']');
    begin(e, "address");
    for (size_t i = 0; i < n; i++)
        emit_u64(e, rows[i].address);
    emit_close(e, ']');
    begin(e, "size");
    for (size_t i = 0; i < n; i++)
        emit_u64(e, rows[i].size);
    emit_close(e, ']');
    begin(e, "kind");
    for (size_t i = 0; i < n; i++)
        emit_text(e, rows[i].kind ? rows[i].kind : "unknown");
    emit_close(e, ']');
    begin(e, "type");
    for (size_t i = 0; i < n; i++)
        if (t.row[i] == NO_NAME)
            emit_null(e);
        else
            emit_u64(e, t.row[i]);
    emit_close(e, ']');
    begin(e, "owner");
    for (size_t i = 0; i < n; i++)
        emit_u64(e, rows[i].owner);
    emit_close(e, ']');
    if (sites)
        emit_sites(e, rows, n);
}

/* ---- reading ---- */

/* A column of n entries; n is SIZE_MAX while unknown. NULL with an error. */
static const json_t *column(struct json_decoder *d, const json_t *object, const char *name,
                            size_t n)
{
    const json_t *v = json_object_get(object, name);
    if (!json_is_array(v))
        json_wrong(d, name, "is not a list");
    else if (json_array_size(v) > JSON_BLOCKS_ROWS)
        json_wrong(d, name, "has more than 4,096 entries");
    else if (n != SIZE_MAX && json_array_size(v) != n)
        json_wrong(d, name, "is not as long as \"address\"");
    else
        return v;
    return NULL;
}

int json_need_rows(struct json_decoder *d)
{
    if (!d->rows)
        d->rows = malloc(sizeof *d->rows);
    if (!d->rows)
        return err_set(d->err, ERR_NOMEM, "no memory for blocks");
    d->rows->n = d->rows->n_names = 0;
    return 0;
}

int json_keep_blocks(struct json_decoder *d)
{
    struct snapshot *s = d->snap;
    struct json_rows *r = d->rows;
    if (vec_reserve(&s->blocks, &s->cap_blocks, s->n_blocks + r->n, sizeof *s->blocks) < 0)
        return err_set(d->err, ERR_NOMEM, "no memory for blocks");
    if (r->n)
        memcpy(s->blocks + s->n_blocks, r->rows, r->n * sizeof *r->rows);
    s->n_blocks += r->n;
    r->n = 0;
    return 0;
}

/* ---- reading: from jansson's tree ---- */

struct block_columns {
    const json_t *address, *size, *kind, *type, *owner;
    const json_t *site; /* NULL: none of them has one */
    size_t n;
};

static int find_columns(struct json_decoder *d, const json_t *object, struct block_columns *c)
{
    c->address = column(d, object, "address", SIZE_MAX);
    c->n = c->address ? json_array_size(c->address) : 0;
    if (!c->address || !(c->size = column(d, object, "size", c->n)) ||
        !(c->kind = column(d, object, "kind", c->n)) ||
        !(c->type = column(d, object, "type", c->n)) ||
        !(c->owner = column(d, object, "owner", c->n)))
        return ERR_FORMAT;
    c->site = NULL;
    if (json_object_get(object, "site") && !(c->site = column(d, object, "site", c->n)))
        return ERR_FORMAT;
    return 0;
}

static int decode_names(struct json_decoder *d, const json_t *object)
{
    const json_t *types = column(d, object, "types", SIZE_MAX);
    if (!types)
        return ERR_FORMAT;
    int rc = 0;
    d->rows->n_names = json_array_size(types);
    for (size_t i = 0; i < d->rows->n_names && rc == 0; i++)
        rc = json_decode_str(d, json_array_get(types, i), "types", &d->rows->names[i]);
    return rc;
}

static int number(struct json_decoder *d, const json_t *list, size_t i, const char *name,
                  uint64_t *ret)
{
    const json_t *v = json_array_get(list, i);
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return json_wrong(d, name, "has an entry that is no integer of 0 or more");
    *ret = (uint64_t)json_integer_value(v);
    return 0;
}

static int type_name(struct json_decoder *d, const struct block_columns *c, size_t i,
                     const char **ret)
{
    uint64_t index;
    *ret = NULL;
    if (json_is_null(json_array_get(c->type, i)))
        return 0;
    int rc = number(d, c->type, i, "type", &index);
    if (rc < 0)
        return rc;
    if (index >= d->rows->n_names)
        return json_wrong(d, "type", "has an entry that is not in \"types\"");
    *ret = d->rows->names[index];
    return 0;
}

static int site_index(struct json_decoder *d, const struct block_columns *c, size_t i,
                      uint32_t *ret)
{
    uint64_t index;
    *ret = 0;
    if (!c->site || json_is_null(json_array_get(c->site, i)))
        return 0;
    int rc = number(d, c->site, i, "site", &index);
    if (rc < 0)
        return rc;
    if (!json_find_site(d, index, ret))
        return json_wrong(d, "site", "has an entry without a record \"site\" before it");
    return 0;
}

/* Kinds that we know have one address, so that nobody needs to compare their letters. */
static void settle_kind(const char **kind)
{
    enum row_kind k = row_kind_of_name(*kind);
    if (k != ROW_OTHER)
        *kind = row_kind_name(k);
}

static int decode_row(struct json_decoder *d, const struct block_columns *c, size_t i,
                      struct snapshot_block *b)
{
    int rc = number(d, c->address, i, "address", &b->address);
    if (rc == 0)
        rc = number(d, c->size, i, "size", &b->size);
    if (rc == 0)
        rc = number(d, c->owner, i, "owner", &b->owner);
    if (rc == 0)
        rc = json_decode_str(d, json_array_get(c->kind, i), "kind", &b->kind);
    if (rc == 0)
        rc = type_name(d, c, i, &b->type);
    if (rc == 0)
        rc = site_index(d, c, i, &b->site);
    if (rc == 0)
        settle_kind(&b->kind);
    return rc;
}

int json_decode_blocks(struct json_decoder *d, const json_t *object)
{
    struct block_columns c;
    int rc = json_need_rows(d);
    if (rc == 0)
        rc = find_columns(d, object, &c);
    if (rc == 0)
        rc = decode_names(d, object);
    for (size_t i = 0; rc == 0 && i < c.n; i++) {
        rc = decode_row(d, &c, i, &d->rows->rows[i]);
        d->rows->n = i + 1;
    }
    return rc;
}
