/* The documents that --json prints. */
#include "formats/json.h"

#include <string.h>

#include "formats/json_emit.h"
#include "formats/json_fields.h"
#include "formats/type_groups.h"
#include "formats/utilisation.h"

enum { SUMMARY_TYPES = 5, SPARSE_TYPES = 5 };

static void array(struct json_emit *e, const char *key, const void *items, size_t n, size_t elem,
                  const struct json_field *fields)
{
    emit_key(e, key);
    emit_open(e, '[');
    for (size_t i = 0; i < n && e->rc == 0; i++)
        json_emit_object(e, (const char *)items + i * elem, fields);
    emit_close(e, ']');
}

/* A record that a snapshot may lack. */
static void maybe(struct json_emit *e, const char *key, bool present, const void *base,
                  const struct json_field *fields)
{
    emit_key(e, key);
    if (present)
        json_emit_object(e, base, fields);
    else
        emit_null(e);
}

static void pymalloc(struct json_emit *e, const struct snapshot *s)
{
    maybe(e, "pymalloc", s->pymalloc.present, &s->pymalloc, json_pymalloc_fields);
}

static void malloc_totals(struct json_emit *e, const struct snapshot *s)
{
    maybe(e, "malloc", s->malloc.present, &s->malloc, json_malloc_fields);
}

static void objects(struct json_emit *e, const struct snapshot *s)
{
    maybe(e, "objects", s->objects.present, &s->objects, json_objects_fields);
}

static void view_summary(struct json_emit *e, const struct snapshot *s)
{
    emit_key(e, "memory");
    json_emit_object(e, &s->memory, json_memory_fields);
    pymalloc(e, s);
    malloc_totals(e, s);
    objects(e, s);
    maybe(e, "gc", s->gc.present, &s->gc, json_gc_fields);
    maybe(e, "tracing", s->tracing.present, &s->tracing, json_tracing_fields);
    array(e, "types", s->types, s->n_types < SUMMARY_TYPES ? s->n_types : SUMMARY_TYPES,
          sizeof *s->types, json_type_fields);
}

static void view_types(struct json_emit *e, const struct snapshot *s)
{
    objects(e, s);
    array(e, "types", s->types, s->n_types, sizeof *s->types, json_type_fields);
}

static void view_sizes(struct json_emit *e, const struct snapshot *s)
{
    emit_key(e, "size_classes");
    json_emit_classes(e, s->pymalloc.classes);
}

static const struct json_field bucket_fields[] = {
    {"from_percent", FIELD_U32, true, offsetof(struct utilisation_bucket, from_percent), NULL},
    {"to_percent", FIELD_U32, true, offsetof(struct utilisation_bucket, to_percent), NULL},
    {"arenas", FIELD_U64, true, offsetof(struct utilisation_bucket, arenas), NULL},
    {"bytes_used", FIELD_U64, true, offsetof(struct utilisation_bucket, bytes_used), NULL},
    {"size", FIELD_U64, true, offsetof(struct utilisation_bucket, size), NULL},
    {NULL, FIELD_U64, false, 0, NULL},
};

/* A type that holds sparse arenas, as a row of type_groups_sparse. */
static const struct json_field holder_fields[] = {
    {"name", FIELD_NAME, true, offsetof(struct snapshot_type, name), NULL},
    {"arenas", FIELD_U64, true, offsetof(struct snapshot_type, count), NULL},
    {"bytes", FIELD_U64, true, offsetof(struct snapshot_type, bytes), NULL},
    {NULL, FIELD_U64, false, 0, NULL},
};

static const struct json_field sparse_fields[] = {
    {"arenas", FIELD_U64, true, offsetof(struct utilisation, sparse_arenas), NULL},
    {"reclaimable_bytes", FIELD_U64, true, offsetof(struct utilisation, reclaimable_bytes), NULL},
    {NULL, FIELD_U64, false, 0, NULL},
};

static void holders(struct json_emit *e, const struct snapshot *s)
{
    struct type_groups g;
    int rc = type_groups_sparse(&g, s, e->err);
    if (rc < 0) {
        e->rc = e->rc < 0 ? e->rc : rc;
        return;
    }
    array(e, "types", g.rows, g.n < SPARSE_TYPES ? g.n : SPARSE_TYPES, sizeof *g.rows,
          holder_fields);
    type_groups_release(&g);
}

static void view_arenas(struct json_emit *e, const struct snapshot *s)
{
    struct utilisation u;
    utilisation_of(s, &u);
    pymalloc(e, s);
    array(e, "arenas", s->arenas, s->n_arenas - s->hidden_arenas, sizeof *s->arenas,
          json_arena_fields);
    array(e, "histogram", u.buckets, UTILISATION_BUCKETS, sizeof u.buckets[0], bucket_fields);
    emit_key(e, "sparse");
    emit_open(e, '{');
    json_emit_fields(e, &u, sparse_fields);
    holders(e, s);
    emit_close(e, '}');
}

static void view_malloc(struct json_emit *e, const struct snapshot *s)
{
    malloc_totals(e, s);
    array(e, "malloc_arenas", s->malloc_arenas, s->n_malloc_arenas, sizeof *s->malloc_arenas,
          json_malloc_arena_fields);
}

static void view_maps(struct json_emit *e, const struct snapshot *s)
{
    array(e, "mappings", s->mappings, s->n_mappings, sizeof *s->mappings, json_mapping_fields);
}

static const struct view {
    const char *name;
    void (*write)(struct json_emit *e, const struct snapshot *s);
} views[] = {
    {"summary", view_summary}, {"types", view_types},   {"sizes", view_sizes},
    {"arenas", view_arenas},   {"malloc", view_malloc}, {"maps", view_maps},
};

static const struct view *find_view(const char *name)
{
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++)
        if (strcmp(views[i].name, name) == 0)
            return &views[i];
    return NULL;
}

bool json_has_view(const char *view)
{
    return find_view(view) != NULL;
}

int json_write_view(const struct snapshot *snap, const char *view, struct sink *out,
                    struct err *err)
{
    const struct view *v = find_view(view);
    if (!v) {
        int code = err_set(err, ERR_USAGE, "there is no view \"%s\" as JSON", view);
        err_remedy(err, "the views are summary, types, sizes, arenas, malloc and maps");
        return code;
    }
    struct json_emit e;
    json_emit_init(&e, out, err);
    json_begin_document(&e, v->name);
    json_emit_fields(&e, snap, json_header_fields);
    v->write(&e, snap);
    json_emit_notes(&e, snap);
    json_end_document(&e);
    return json_emit_finish(&e);
}
