/* Tables as lines of JSON or as CSV, a row at a time. */
#include <stdlib.h>
#include <string.h>

#include "formats/export.h"
#include "formats/json_emit.h"
#include "formats/json_fields.h"
#include "formats/outbuf.h"

/* Room for the text of a traceback. A longer one is cut, with "..." as its last three bytes. */
enum { TRACE_TEXT_MAX = JSON_TEXT_MAX };

struct rows {
    enum rows_format format;
    /* The members that a row has: those of one value. */
    struct json_field columns[JSON_FIELDS_MAX];
    struct json_emit emit; /* for lines of JSON */
    struct outbuf out;     /* for CSV */
};

/* ---- a row of each table that is none of the snapshot's records ---- */

struct site_line {
    const char *type, *kind, *source, *file, *traceback;
    uint64_t count, bytes;
    uint32_t domain, line, frames, total_frames;
};

struct block_line {
    uint64_t address, size, owner;
    const char *kind, *type, *file;
    uint32_t line;
};

struct category_line {
    const char *name;
    uint64_t bytes, resident, count;
};

#define COLUMN(s, name, type, m)                                                                   \
    {                                                                                              \
        name, FIELD_##type, false, offsetof(struct s, m), NULL                                     \
    }
#define END                                                                                        \
    {                                                                                              \
        NULL, FIELD_U64, false, 0, NULL                                                            \
    }

static const struct json_field site_columns[] = {
    COLUMN(site_line, "type", STR, type),
    COLUMN(site_line, "kind", STR, kind),
    COLUMN(site_line, "domain", U32, domain),
    COLUMN(site_line, "source", STR, source),
    COLUMN(site_line, "count", U64, count),
    COLUMN(site_line, "bytes", U64, bytes),
    COLUMN(site_line, "file", STR, file),
    COLUMN(site_line, "line", U32, line),
    COLUMN(site_line, "frames", U32, frames),
    COLUMN(site_line, "total_frames", U32, total_frames),
    COLUMN(site_line, "traceback", STR, traceback),
    END,
};

static const struct json_field block_columns[] = {
    COLUMN(block_line, "address", ADDR, address),  COLUMN(block_line, "size", U64, size),
    COLUMN(block_line, "kind", STR, kind),         COLUMN(block_line, "type", STR, type),
    COLUMN(block_line, "owner", ADDR_NULL, owner), COLUMN(block_line, "file", STR, file),
    COLUMN(block_line, "line", U32, line),         END,
};

static const struct json_field category_columns[] = {
    COLUMN(category_line, "name", STR, name),
    COLUMN(category_line, "bytes", U64, bytes),
    COLUMN(category_line, "resident_bytes", U64, resident),
    COLUMN(category_line, "count", U64, count),
    END,
};

/* ---- CSV ---- */

static void csv_text(struct outbuf *b, const char *text)
{
    struct text_piece piece;
    const char *special = "=+-@"; /* of the first character only */
    outbuf_char(b, '"');
    while (*text) {
        text += text_piece(text, special, &piece);
        special = NULL;
        if (piece.bytes[0] == '"')
            outbuf_char(b, '"');
        outbuf_put(b, piece.bytes, piece.n);
    }
    outbuf_char(b, '"');
}

static void csv_value(struct outbuf *b, const void *at, const struct json_field *f)
{
    uint64_t v = 0;
    const char *text = NULL;
    switch (f->type) {
    case FIELD_STR:
    case FIELD_NAME:
        memcpy(&text, at, sizeof text);
        if (text || f->type == FIELD_NAME)
            csv_text(b, text ? text : "unknown");
        break;
    case FIELD_PERMS:
        csv_text(b, at);
        break;
    case FIELD_BOOL:
        outbuf_str(b, *(const bool *)at ? "true" : "false");
        break;
    case FIELD_U32:
        outbuf_u64(b, *(const uint32_t *)at);
        break;
    default:
        memcpy(&v, at, sizeof v);
        if (f->type == FIELD_ADDR || (f->type == FIELD_ADDR_NULL && v))
            outbuf_addr(b, v);
        else if (f->type != FIELD_ADDR_NULL)
            outbuf_u64(b, v < INT64_MAX ? v : INT64_MAX);
    }
}

static void csv_row(struct rows *r, const void *base)
{
    for (const struct json_field *f = r->columns; f->name; f++) {
        if (f > r->columns)
            outbuf_char(&r->out, ',');
        csv_value(&r->out, (const char *)base + f->offset, f);
    }
    outbuf_str(&r->out, "\r\n");
}

static void csv_names(struct rows *r)
{
    for (const struct json_field *f = r->columns; f->name; f++) {
        if (f > r->columns)
            outbuf_char(&r->out, ',');
        outbuf_str(&r->out, f->name);
    }
    outbuf_str(&r->out, "\r\n");
}

/* ---- both ---- */

/* A table is flat: members that are lists or objects are no columns. */
static bool is_column(const struct json_field *f)
{
    switch (f->type) {
    case FIELD_U64:
    case FIELD_SUM:
    case FIELD_U32:
    case FIELD_ADDR:
    case FIELD_ADDR_NULL:
    case FIELD_BOOL:
    case FIELD_STR:
    case FIELD_NAME:
    case FIELD_PERMS:
        return true;
    default:
        return false;
    }
}

static void rows_init(struct rows *r, enum rows_format format, const struct json_field *fields,
                      struct sink *out, struct err *err)
{
    size_t n = 0;
    memset(r->columns, 0, sizeof r->columns);
    for (; fields->name; fields++)
        if (is_column(fields) && n + 1 < JSON_FIELDS_MAX)
            r->columns[n++] = *fields;
    r->format = format;
    json_emit_init(&r->emit, out, err);
    outbuf_init(&r->out, out, err);
    if (format == ROWS_CSV)
        csv_names(r);
}

static void rows_put(struct rows *r, const void *base)
{
    if (r->format == ROWS_CSV) {
        csv_row(r, base);
        return;
    }
    json_emit_object(&r->emit, base, r->columns);
    emit_line(&r->emit);
}

static int rows_rc(const struct rows *r)
{
    return r->format == ROWS_CSV ? r->out.rc : r->emit.rc;
}

static int rows_finish(struct rows *r)
{
    return r->format == ROWS_CSV ? outbuf_finish(&r->out) : json_emit_finish(&r->emit);
}

/* ---- sites ---- */

struct trace_text {
    size_t n;
    bool cut;
    char bytes[TRACE_TEXT_MAX + 1];
};

static void trace_add(struct trace_text *t, const char *text, size_t len)
{
    size_t room = TRACE_TEXT_MAX - 3 - t->n;
    if (t->cut || len > room) {
        t->cut = true;
        return;
    }
    memcpy(t->bytes + t->n, text, len);
    t->n += len;
}

static void trace_frame(struct trace_text *t, const struct snapshot_frame *f)
{
    char number[12];
    size_t before = t->n;
    int n = snprintf(number, sizeof number, ":%u", (unsigned)f->line);
    if (before)
        trace_add(t, " < ", 3);
    trace_add(t, f->file, strlen(f->file));
    trace_add(t, number, (size_t)n);
    if (t->cut)
        t->n = before; /* whole frames only */
}

/* "app/db.py:12 < app/main.py:9": the most recent call first. */
static void trace_make(struct trace_text *t, const struct snapshot *snap,
                       const struct snapshot_traceback *tb, uint32_t limit)
{
    uint32_t n = limit && limit < tb->n ? limit : tb->n;
    t->n = 0;
    t->cut = false;
    for (uint32_t i = 0; i < n && !t->cut; i++)
        trace_frame(t, &snap->frames[snap->frame_ids[tb->first + i]]);
    memcpy(t->bytes + t->n, t->cut ? "..." : "", t->cut ? 4 : 1);
}

static const struct snapshot_frame *first_frame(const struct snapshot *snap,
                                                const struct snapshot_traceback *tb)
{
    return tb->n ? &snap->frames[snap->frame_ids[tb->first]] : &stacks_no_frame;
}

static void put_site(struct rows *r, const struct snapshot *snap, const struct snapshot_site *site,
                     uint32_t limit, struct trace_text *text)
{
    const struct snapshot_traceback *tb = &snap->tracebacks[site->traceback];
    const struct snapshot_frame *first = first_frame(snap, tb);
    trace_make(text, snap, tb, limit);
    struct site_line line = {
        .type = site->type,
        .kind = site->kind,
        .source = site->source,
        .file = first->file,
        .traceback = text->bytes,
        .count = site->count,
        .bytes = site->bytes,
        .domain = site->domain,
        .line = first->line,
        .frames = tb->n,
        .total_frames = tb->total,
    };
    rows_put(r, &line);
}

static int put_sites(struct rows *r, const struct snapshot *snap, const uint8_t *keep,
                     uint32_t limit, struct err *err)
{
    struct trace_text *text = malloc(sizeof *text);
    if (!text)
        return err_set(err, ERR_NOMEM, "no memory for a traceback");
    for (size_t i = 0; i < snap->n_sites && rows_rc(r) == 0; i++)
        if (!keep || keep[i])
            put_site(r, snap, &snap->sites[i], limit, text);
    free(text);
    return 0;
}

/* ---- the tables ---- */

static void put_types(struct rows *r, const struct snapshot *snap)
{
    for (size_t i = 0; i < snap->n_types && rows_rc(r) == 0; i++)
        rows_put(r, &snap->types[i]);
}

static void put_sizes(struct rows *r, const struct snapshot *snap)
{
    for (size_t i = 0; i < SIZE_CLASSES; i++)
        if (snap->pymalloc.classes[i].pools)
            rows_put(r, &snap->pymalloc.classes[i]);
}

static void put_arenas(struct rows *r, const struct snapshot *snap)
{
    for (size_t i = 0; i < snap->n_arenas && rows_rc(r) == 0; i++)
        rows_put(r, &snap->arenas[i]);
}

static void put_mappings(struct rows *r, const struct snapshot *snap)
{
    for (size_t i = 0; i < snap->n_mappings && rows_rc(r) == 0; i++)
        rows_put(r, &snap->mappings[i]);
}

static void put_categories(struct rows *r, const struct snapshot *snap)
{
    const struct tally *t = &snap->memory.tally;
    for (int i = 0; i < CAT_COUNT; i++) {
        struct category_line line = {category_name((enum category)i), t->bytes[i], t->resident[i],
                                     t->count[i]};
        rows_put(r, &line);
    }
}

static const struct table {
    const char *name;
    const struct json_field *fields;
    void (*put)(struct rows *r, const struct snapshot *snap); /* NULL: site and blocks */
} tables[] = {
    {"site", site_columns, NULL},
    {"type", json_type_fields, put_types},
    {"size", json_size_class_fields, put_sizes},
    {"arena", json_arena_fields, put_arenas},
    {"category", category_columns, put_categories},
    {"mapping", json_mapping_fields, put_mappings},
    {"blocks", block_columns, NULL},
};

static const struct table *find_table(const char *name)
{
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        if (strcmp(tables[i].name, name) == 0)
            return &tables[i];
    return NULL;
}

bool export_rows_know(const char *table)
{
    return find_table(table) != NULL;
}

int export_rows(const struct snapshot *snap, const char *table, enum rows_format format,
                const uint8_t *keep, uint32_t limit, struct sink *out, struct err *err)
{
    const struct table *t = find_table(table);
    struct rows r;
    int rc = 0;
    if (!t || t->fields == block_columns)
        return err_set(err, ERR_USAGE, "there is no table of '%s'", table);
    rows_init(&r, format, t->fields, out, err);
    if (t->put)
        t->put(&r, snap);
    else
        rc = put_sites(&r, snap, keep, limit, err);
    return rc < 0 ? rc : rows_finish(&r);
}

static void put_block(struct rows *r, const struct snapshot *snap, const struct block_row *row)
{
    struct block_line line = {
        .address = row->address,
        .size = row->size,
        .owner = row->owner,
        .kind = row_kind_name(row->kind),
        .type = row->type,
    };
    if (row->site) {
        uint32_t traceback = snap->sites[row->site - 1].traceback;
        const struct snapshot_frame *f = first_frame(snap, &snap->tracebacks[traceback]);
        line.file = f->file;
        line.line = f->line;
    }
    rows_put(r, &line);
}

int export_blocks(const struct snapshot *snap, struct block_stream *blocks, enum rows_format format,
                  struct sink *out, struct err *err)
{
    struct rows r;
    struct block_row row;
    int rc;
    rows_init(&r, format, block_columns, out, err);
    bool any = false;
    while ((rc = block_stream_next(blocks, &row, err)) > 0 && rows_rc(&r) == 0) {
        put_block(&r, snap, &row);
        any = true;
    }
    if (rc < 0)
        return rc;
    if (any)
        return rows_finish(&r);
    err_set(err, ERR_USAGE, "there are no single blocks in this snapshot");
    err_remedy(err, "take it with: heapcensus snapshot PID --blocks");
    return ERR_USAGE;
}
