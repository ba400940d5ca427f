/* One record of a snapshot file: which there are, and where they go. */
#include <string.h>

#include "formats/json.h"
#include "formats/json_reader.h"

/* Where a record goes. */
struct kind {
    const char *name;
    const struct json_field *fields;
    void *(*slot)(struct snapshot *snap); /* zeroed, or NULL when memory ran out */
    uint64_t most;                        /* records of it in a file */
    /* In place of the first two, for records that come in great numbers; see json_decode.h. */
    int (*decode)(struct json_decoder *d, const json_t *object);
    int (*quick)(struct json_decoder *d, struct json_scan *scan);
    int (*keep)(struct json_decoder *d);
};

static void *memory_slot(struct snapshot *snap)
{
    return &snap->memory;
}

static void *pymalloc_slot(struct snapshot *snap)
{
    snap->pymalloc.present = true;
    return &snap->pymalloc;
}

static void *malloc_slot(struct snapshot *snap)
{
    snap->malloc.present = true;
    return &snap->malloc;
}

static void *arena_slot(struct snapshot *snap)
{
    return snapshot_add_arena(snap);
}

static void *malloc_arena_slot(struct snapshot *snap)
{
    return snapshot_add_malloc_arena(snap);
}

static void *mapping_slot(struct snapshot *snap)
{
    return snapshot_add_mapping(snap);
}

static void *note_slot(struct snapshot *snap)
{
    return snapshot_add_note(snap);
}

static void *objects_slot(struct snapshot *snap)
{
    snap->objects.present = true;
    return &snap->objects;
}

static void *gc_slot(struct snapshot *snap)
{
    snap->gc.present = true;
    return &snap->gc;
}

static void *type_slot(struct snapshot *snap)
{
    return snapshot_add_type(snap);
}

static void *tracing_slot(struct snapshot *snap)
{
    snap->tracing.present = true;
    return &snap->tracing;
}

#define PLAIN(name, fields, slot, most)                                                            \
    {                                                                                              \
        name, fields, slot, most, NULL, NULL, NULL                                                 \
    }
#define QUICK(name, most)                                                                          \
    {                                                                                              \
#name, NULL, NULL, most, json_decode_##name, json_quick_##name, json_keep_##name           \
    }

/* The bounds are far above what a process can have; they keep a small packed file from unpacking to
 * many gigabytes of records. */
static const struct kind kinds[JSON_KINDS] = {
    [JSON_KIND_MEMORY] = PLAIN("memory", json_memory_fields, memory_slot, 1),
    [JSON_KIND_MAPPING] = PLAIN("mapping", json_mapping_fields, mapping_slot, 4 << 20),
    [JSON_KIND_BLOCKS] = QUICK(blocks, 1 << 18),
    PLAIN("pymalloc", json_pymalloc_fields, pymalloc_slot, 1),
    PLAIN("arena", json_arena_fields, arena_slot, 32 << 20),
    PLAIN("malloc", json_malloc_fields, malloc_slot, 1),
    PLAIN("malloc_arena", json_malloc_arena_fields, malloc_arena_slot, 1 << 20),
    PLAIN("note", json_note_fields, note_slot, 4 << 20),
    PLAIN("objects", json_objects_fields, objects_slot, 1),
    PLAIN("gc", json_gc_fields, gc_slot, 1),
    PLAIN("type", json_type_fields, type_slot, 4 << 20),
    PLAIN("tracing", json_tracing_fields, tracing_slot, 1),
    QUICK(frame, 16 << 20),
    QUICK(traceback, 16 << 20),
    QUICK(site, 16 << 20),
};

int json_refuse(struct json_reader *r, const char *why)
{
    int code = err_set(r->err, ERR_FORMAT, "%s", why);
    err_remedy(r->err, "%s", json_damaged);
    return code;
}

int json_not_a_snapshot(struct json_reader *r)
{
    int code = err_set(r->err, ERR_FORMAT,
                       "this is no snapshot: the first line is not the header of heapcensus");
    err_remedy(r->err, "give a file that \"heapcensus snapshot\" wrote");
    return code;
}

static int read_version(struct json_reader *r, const json_t *object)
{
    const char *format = json_string_value(json_object_get(object, "format"));
    uint64_t version;
    if (!format || strcmp(format, "heapcensus") != 0)
        return json_not_a_snapshot(r);
    int rc = json_decode_u64(&r->decoder, object, "version", &version);
    if (rc < 0)
        return rc;
    if (version == 0)
        return json_refuse(r, "the header has version 0, which never was");
    if (version <= JSON_VERSION)
        return 0;
    rc = err_set(r->err, ERR_FORMAT, "made by a newer heapcensus: version %llu of the format",
                 (unsigned long long)version);
    err_remedy(r->err, "update heapcensus: this one reads version %d", JSON_VERSION);
    return rc;
}

static int read_header(struct json_reader *r, const char *record, const json_t *object)
{
    if (strcmp(record, "header") != 0)
        return json_not_a_snapshot(r);
    int rc = read_version(r, object);
    if (rc < 0)
        return rc;
    r->decoder.totals = &r->header_totals;
    return json_decode(&r->decoder, object, json_header_fields, r->snap);
}

static int keep(struct json_reader *r, size_t k)
{
    if (r->stream && k == JSON_KIND_BLOCKS)
        return 0;
    return kinds[k].keep(&r->decoder);
}

static int decode_kind(struct json_reader *r, size_t k, const json_t *object)
{
    const struct kind *kind = &kinds[k];
    if (kind->decode) {
        int rc = kind->decode(&r->decoder, object);
        return rc < 0 ? rc : keep(r, k);
    }
    void *slot = kind->slot(r->snap);
    if (!slot)
        return err_set(r->err, ERR_NOMEM, "no memory for a record");
    return json_decode(&r->decoder, object, kind->fields, slot);
}

static int behind_blocks(struct json_reader *r)
{
    int code =
        err_set(r->err, ERR_FORMAT, "it comes behind records \"blocks\", and those are last");
    err_remedy(r->err, "move the records \"blocks\" to the end of the file, in front of \"end\"");
    return code;
}

/* One more of these: there may be too many, or it may be too late. */
static int count_kind(struct json_reader *r, size_t k)
{
    if (r->stream && r->seen[JSON_KIND_BLOCKS] && k != JSON_KIND_BLOCKS)
        return behind_blocks(r);
    if (r->seen[k] == kinds[k].most && kinds[k].most == 1)
        return json_refuse(r, "this record comes a second time");
    if (r->seen[k] == kinds[k].most)
        return err_set(r->err, ERR_FORMAT, "more than %llu of these records",
                       (unsigned long long)kinds[k].most);
    r->seen[k]++;
    r->decoder.totals = &r->totals[k];
    return 0;
}

static int in_record(struct json_reader *r, int rc, size_t k)
{
    return rc < 0 ? err_context(r->err, rc, "record \"%s\"", kinds[k].name) : rc;
}

static int read_kind(struct json_reader *r, size_t k, const json_t *object)
{
    int rc = count_kind(r, k);
    return in_record(r, rc < 0 ? rc : decode_kind(r, k, object), k);
}

/* The kind that a line in our own form is of, if it can be read quickly. */
static const struct kind *find_quick(struct json_scan *scan)
{
    if (!SCAN(scan, "{\"record\":\""))
        return NULL;
    for (const struct kind *k = kinds; k < kinds + JSON_KINDS; k++) {
        struct json_scan s = *scan;
        if (!k->quick || !scan_is(&s, k->name, strlen(k->name)) || !SCAN(&s, "\","))
            continue;
        *scan = s;
        return k;
    }
    return NULL;
}

/* A line that is not in our own form is none of our form's rows, however many there seemed to be.
 */
static int drop_rows(struct json_reader *r)
{
    if (r->decoder.rows)
        r->decoder.rows->n = 0;
    return 0;
}

int json_read_quick(struct json_reader *r, const char *text, size_t len)
{
    struct json_scan scan = {text, text + len};
    const struct kind *kind = r->records && !r->ended ? find_quick(&scan) : NULL;
    if (!kind)
        return 0;
    size_t k = (size_t)(kind - kinds);
    int rc = kind->quick(&r->decoder, &scan);
    if (rc == 0 || (rc > 0 && scan.at != scan.end))
        return drop_rows(r);
    if (rc > 0)
        rc = count_kind(r, k);
    if (rc == 0)
        rc = keep(r, k);
    return rc < 0 ? in_record(r, rc, k) : 1;
}

int json_read_record(struct json_reader *r, const json_t *object)
{
    const char *record = json_string_value(json_object_get(object, "record"));
    if (r->records == 0)
        return record ? read_header(r, record, object) : json_not_a_snapshot(r);
    if (!record)
        return json_refuse(r, "\"record\" is missing");
    if (strcmp(record, "header") == 0)
        return json_refuse(r, "a second header");
    if (strcmp(record, "end") == 0) {
        r->ended = true;
        return json_decode_u64(&r->decoder, object, "records", &r->claimed);
    }
    for (size_t k = 0; k < JSON_KINDS; k++)
        if (strcmp(record, kinds[k].name) == 0)
            return read_kind(r, k, object);
    return 0; /* of a later version */
}
