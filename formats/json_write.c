/* Snapshot files out. */
#include "formats/json.h"

#include "formats/json_emit.h"
#include "formats/json_fields.h"

struct writer {
    struct json_emit emit;
    uint64_t records;
};

static void begin(struct writer *w, const char *record)
{
    emit_open(&w->emit, '{');
    emit_key(&w->emit, "record");
    emit_text(&w->emit, record);
}

static void end(struct writer *w)
{
    emit_close(&w->emit, '}');
    emit_line(&w->emit);
    w->records++;
}

static void write_record(struct writer *w, const char *record, const void *base,
                         const struct json_field *fields)
{
    begin(w, record);
    json_emit_fields(&w->emit, base, fields);
    end(w);
}

static void write_array(struct writer *w, const char *record, const void *items, size_t n,
                        size_t elem, const struct json_field *fields)
{
    for (size_t i = 0; i < n && w->emit.rc == 0; i++)
        write_record(w, record, (const char *)items + i * elem, fields);
}

static void write_header(struct writer *w, const struct snapshot *snap)
{
    begin(w, "header");
    emit_key(&w->emit, "format");
    emit_text(&w->emit, "heapcensus");
    emit_key(&w->emit, "version");
    emit_u64(&w->emit, JSON_VERSION);
    json_emit_fields(&w->emit, snap, json_header_fields);
    end(w);
}

static void write_blocks(struct writer *w, const struct snapshot *s)
{
    for (size_t i = 0; i < s->n_blocks && w->emit.rc == 0; i += JSON_BLOCKS_ROWS) {
        size_t left = s->n_blocks - i;
        begin(w, "blocks");
        json_emit_blocks(&w->emit, s->blocks + i, left < JSON_BLOCKS_ROWS ? left : JSON_BLOCKS_ROWS,
                         s->n_sites > 0);
        end(w);
    }
}

static void write_tracing(struct writer *w, const struct snapshot *s)
{
    if (s->tracing.present)
        write_record(w, "tracing", &s->tracing, json_tracing_fields);
    write_array(w, "frame", s->frames, s->n_frames, sizeof *s->frames, json_frame_fields);
    for (size_t i = 0; i < s->n_tracebacks && w->emit.rc == 0; i++) {
        begin(w, "traceback");
        json_emit_traceback(&w->emit, s, &s->tracebacks[i]);
        end(w);
    }
    for (size_t i = 0; i < s->n_sites && w->emit.rc == 0; i++) {
        begin(w, "site");
        json_emit_site(&w->emit, s, &s->sites[i]);
        end(w);
    }
}

static void write_end(struct writer *w)
{
    uint64_t records = w->records;
    begin(w, "end");
    emit_key(&w->emit, "records");
    emit_u64(&w->emit, records);
    end(w);
}

int json_write_snapshot(const struct snapshot *s, struct sink *out, struct err *err)
{
    struct writer w = {.records = 0};
    json_emit_init(&w.emit, out, err);
    write_header(&w, s);
    write_record(&w, "memory", &s->memory, json_memory_fields);
    if (s->pymalloc.present)
        write_record(&w, "pymalloc", &s->pymalloc, json_pymalloc_fields);
    write_array(&w, "arena", s->arenas, s->n_arenas, sizeof *s->arenas, json_arena_fields);
    if (s->malloc.present)
        write_record(&w, "malloc", &s->malloc, json_malloc_fields);
    write_array(&w, "malloc_arena", s->malloc_arenas, s->n_malloc_arenas, sizeof *s->malloc_arenas,
                json_malloc_arena_fields);
    write_array(&w, "mapping", s->mappings, s->n_mappings, sizeof *s->mappings,
                json_mapping_fields);
    if (s->objects.present)
        write_record(&w, "objects", &s->objects, json_objects_fields);
    if (s->gc.present)
        write_record(&w, "gc", &s->gc, json_gc_fields);
    write_array(&w, "type", s->types, s->n_types, sizeof *s->types, json_type_fields);
    write_tracing(&w, s);
    write_array(&w, "note", s->notes, s->n_notes, sizeof *s->notes, json_note_fields);
    write_blocks(&w, s);
    write_end(&w);
    return json_emit_finish(&w.emit);
}

int json_save(const struct snapshot *snap, const char *path, bool force, struct err *err)
{
    struct outfile f;
    int rc = outfile_open(&f, path, force, err);
    if (rc < 0)
        return rc;
    rc = json_write_snapshot(snap, f.sink, err);
    if (rc < 0) {
        outfile_abort(&f);
        return rc;
    }
    return outfile_commit(&f, err);
}
