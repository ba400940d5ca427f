/* What documents of all commands have in common, and the view `sites`. */
#include "formats/json.h"
#include "formats/json_emit.h"
#include "formats/json_fields.h"

void json_begin_document(struct json_emit *e, const char *view)
{
    emit_open(e, '{');
    emit_key(e, "schema");
    emit_u64(e, JSON_VIEW_SCHEMA);
    emit_key(e, "view");
    emit_text(e, view);
}

void json_end_document(struct json_emit *e)
{
    emit_close(e, '}');
    emit_line(e);
}

void json_emit_source(struct json_emit *e, const char *key, const struct snapshot *snap)
{
    emit_key(e, key);
    json_emit_object(e, snap, json_header_fields);
}

void json_emit_notes(struct json_emit *e, const struct snapshot *snap)
{
    emit_key(e, "notes");
    emit_open(e, '[');
    for (size_t i = 0; i < snap->n_notes && e->rc == 0; i++)
        json_emit_object(e, &snap->notes[i], json_note_fields);
    emit_close(e, ']');
}

void json_emit_frame(struct json_emit *e, const struct snapshot_frame *frame)
{
    json_emit_object(e, frame, json_frame_fields);
}

/* By file all lines are one, so the row has none. */
static void emit_frames(struct json_emit *e, const struct site_row *row, bool lines)
{
    emit_open(e, '[');
    for (uint32_t i = 0; i < row->n_frames && e->rc == 0; i++) {
        struct snapshot_frame frame = *site_frame(row, i);
        if (!lines)
            frame.line = 0;
        json_emit_frame(e, &frame);
    }
    emit_close(e, ']');
}

void json_emit_frames(struct json_emit *e, const struct site_row *row)
{
    emit_frames(e, row, true);
}

static void emit_total(struct json_emit *e, const char *key, uint64_t bytes, uint64_t count)
{
    emit_key(e, key);
    emit_open(e, '{');
    emit_key(e, "bytes");
    emit_u64(e, bytes);
    emit_key(e, "count");
    emit_u64(e, count);
    emit_close(e, '}');
}

static void emit_site(struct json_emit *e, const struct site_row *row, enum site_key by)
{
    emit_open(e, '{');
    emit_key(e, "traceback");
    emit_frames(e, row, by != SITES_BY_FILE);
    emit_key(e, "total_frames");
    emit_u64(e, row->total_frames);
    emit_key(e, "bytes");
    emit_u64(e, row->size);
    emit_key(e, "count");
    emit_u64(e, row->count);
    emit_key(e, "type");
    emit_text(e, row->type);
    emit_key(e, "type_bytes");
    emit_u64(e, row->type_size);
    emit_close(e, '}');
}

static void emit_sites(struct json_emit *e, const struct json_sites *s)
{
    emit_key(e, "sites");
    emit_open(e, '[');
    for (size_t i = 0; i < s->n && i < s->stats->n && e->rc == 0; i++)
        emit_site(e, &s->stats->rows[i], s->by);
    emit_close(e, ']');
}

int json_write_sites(const struct snapshot *snap, const struct json_sites *s, struct sink *out,
                     struct err *err)
{
    static const char *const keys[] = {"file", "line", "traceback"};
    struct json_emit e;
    json_emit_init(&e, out, err);
    json_begin_document(&e, "sites");
    json_emit_fields(&e, snap, json_header_fields);
    emit_key(&e, "tracing");
    if (snap->tracing.present)
        json_emit_object(&e, &snap->tracing, json_tracing_fields);
    else
        emit_null(&e);
    emit_key(&e, "by");
    emit_text(&e, keys[s->by]);
    emit_key(&e, "cumulative");
    emit_bool(&e, s->cumulative);
    emit_total(&e, "total", s->stats->size, s->stats->count);
    emit_total(&e, "filtered", s->stats->filtered_size, s->stats->filtered_count);
    emit_sites(&e, s);
    json_emit_notes(&e, snap);
    json_end_document(&e);
    return json_emit_finish(&e);
}
