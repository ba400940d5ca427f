#define _GNU_SOURCE 1 /* strverscmp */
#include "formats/type_groups.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/vec.h"
#include "formats/utilisation.h"

static const char *const ways[] = {"type", "module", "package", "size"};

bool type_groups_can(const char *by)
{
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        if (strcmp(ways[i], by) == 0)
            return true;
    return false;
}

static void init(struct type_groups *g)
{
    memset(g, 0, sizeof *g);
    strpool_init(&g->names);
}

void type_groups_release(struct type_groups *g)
{
    free(g->rows);
    strpool_release(&g->names);
    memset(g, 0, sizeof *g);
}

/* A row with these figures, or NULL when memory ran out. */
static struct snapshot_type *add_row(struct type_groups *g, const struct snapshot_type *figures)
{
    if (vec_reserve(&g->rows, &g->cap, g->n + 1, sizeof *g->rows) < 0)
        return NULL;
    g->rows[g->n] = *figures;
    return &g->rows[g->n++];
}

static int no_memory(struct type_groups *g, struct err *err)
{
    type_groups_release(g);
    return err_set(err, ERR_NOMEM, "no memory to group types");
}

/* ---- putting rows together ---- */

static void merge(struct snapshot_type *into, const struct snapshot_type *more)
{
    into->address = 0;
    into->count = add_capped(into->count, more->count);
    into->bytes = add_capped(into->bytes, more->bytes);
    into->size_bytes = add_capped(into->size_bytes, more->size_bytes);
    into->buffers = add_capped(into->buffers, more->buffers);
    into->buffer_bytes = add_capped(into->buffer_bytes, more->buffer_bytes);
    into->inferred = add_capped(into->inferred, more->inferred);
    into->inferred_bytes = add_capped(into->inferred_bytes, more->inferred_bytes);
    into->dead = add_capped(into->dead, more->dead);
    into->dead_bytes = add_capped(into->dead_bytes, more->dead_bytes);
    into->statics = add_capped(into->statics, more->statics);
    into->static_bytes = add_capped(into->static_bytes, more->static_bytes);
}

static int compare_exact(const void *a, const void *b)
{
    const struct snapshot_type *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static void merge_equal(struct type_groups *g)
{
    size_t n = 0;
    if (g->n)
        qsort(g->rows, g->n, sizeof *g->rows, compare_exact);
    for (size_t i = 0; i < g->n; i++) {
        if (n && strcmp(g->rows[n - 1].name, g->rows[i].name) == 0)
            merge(&g->rows[n - 1], &g->rows[i]);
        else
            g->rows[n++] = g->rows[i];
    }
    g->n = n;
}

/* The name of the group that a type belongs to; NULL when memory ran out. */
static const char *group_name(struct type_groups *g, const struct snapshot_type *t, const char *by)
{
    const char *module = t->module ? t->module : "";
    if (!by || strcmp(by, "type") == 0)
        return t->name ? t->name : "?";
    if (!module[0])
        return "(no module)";
    if (strcmp(by, "module") == 0)
        return module;
    return strpool_add_n(&g->names, module, strcspn(module, "."));
}

static int group_types(struct type_groups *g, const struct snapshot *snap, const char *by,
                       struct err *err)
{
    for (size_t i = 0; i < snap->n_types; i++) {
        const char *name = group_name(g, &snap->types[i], by);
        struct snapshot_type *row = name ? add_row(g, &snap->types[i]) : NULL;
        if (!row)
            return no_memory(g, err);
        row->name = name;
        if (by && strcmp(by, "type") != 0) { /* no type any more */
            row->module = name;
            row->address = 0;
        }
    }
    if (by)
        merge_equal(g);
    return 0;
}

/* ---- by size ---- */

/* Slots 0 to 64: up to 512 bytes, in steps of 8; then one for each power of two. */
enum { SMALL_MAX = 512, STEP = 8, SMALL_SLOTS = SMALL_MAX / STEP + 1, SIZE_SLOTS = 128 };

static size_t size_slot(uint64_t size)
{
    if (size <= SMALL_MAX)
        return (size_t)(size + STEP - 1) / STEP;
    return SMALL_SLOTS + (size_t)(63 - __builtin_clzll(size - 1)) - 9;
}

static void name_slot(size_t slot, char *name, size_t cap)
{
    static const char *const units[] = {"", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    unsigned power = (unsigned)(slot - SMALL_SLOTS) + 10;
    if (slot < SMALL_SLOTS)
        snprintf(name, cap, "%zu bytes", slot * STEP);
    else
        snprintf(name, cap, "to %u%s", 1u << power % 10, units[power / 10]);
}

static void count_block(struct snapshot_type *row, const struct snapshot_block *b)
{
    const struct {
        const char *kind;
        uint64_t *n, *bytes;
    } to[] = {
        {"object", &row->count, &row->bytes},
        {"buffer", &row->buffers, &row->buffer_bytes},
        {"inferred", &row->inferred, &row->inferred_bytes},
        {"dead", &row->dead, &row->dead_bytes},
    };
    for (size_t i = 0; b->kind && i < sizeof to / sizeof *to; i++) {
        if (strcmp(b->kind, to[i].kind) != 0)
            continue;
        *to[i].n = add_capped(*to[i].n, 1);
        *to[i].bytes = add_capped(*to[i].bytes, b->size);
        return;
    }
}

static bool is_empty(const struct snapshot_type *t)
{
    return !t->count && !t->buffers && !t->inferred && !t->dead;
}

static int group_sizes(struct type_groups *g, const struct snapshot *snap, struct err *err)
{
    struct snapshot_type slots[SIZE_SLOTS];
    char name[32];
    memset(slots, 0, sizeof slots);
    if (!snap->n_blocks) {
        int code = err_set(err, ERR_USAGE, "there are no blocks to group by size");
        err_remedy(err, "take the census with --blocks");
        return code;
    }
    for (size_t i = 0; i < snap->n_blocks; i++)
        count_block(&slots[size_slot(snap->blocks[i].size)], &snap->blocks[i]);
    for (size_t i = 0; i < SIZE_SLOTS; i++) {
        if (is_empty(&slots[i]))
            continue;
        name_slot(i, name, sizeof name);
        slots[i].module = "";
        slots[i].name = strpool_add(&g->names, name);
        if (!slots[i].name || !add_row(g, &slots[i]))
            return no_memory(g, err);
    }
    return 0;
}

int type_groups_make(struct type_groups *g, const struct snapshot *snap, const char *by,
                     struct err *err)
{
    if (by && !type_groups_can(by)) {
        int code = err_set(err, ERR_USAGE, "types cannot be grouped by \"%s\"", by);
        err_remedy(err, "--by takes type, module, package or size");
        return code;
    }
    init(g);
    if (by && strcmp(by, "size") == 0)
        return group_sizes(g, snap, err);
    return group_types(g, snap, by, err);
}

/* ---- order ---- */

/* Equal rows are told apart by name and address, so that output is the same each time. */
static int by_name(const void *a, const void *b)
{
    const struct snapshot_type *x = a, *y = b;
    int order = strverscmp(x->name, y->name);
    if (order)
        return order;
    return x->address < y->address ? -1 : x->address > y->address;
}

static int down(uint64_t x, uint64_t y, const void *a, const void *b)
{
    return x > y ? -1 : x < y ? 1 : by_name(a, b);
}

static int by_total(const void *a, const void *b)
{
    return down(type_total(a), type_total(b), a, b);
}

static int by_count(const void *a, const void *b)
{
    const struct snapshot_type *x = a, *y = b;
    return down(x->count, y->count, a, b);
}

static int by_bytes(const void *a, const void *b)
{
    const struct snapshot_type *x = a, *y = b;
    return down(x->bytes, y->bytes, a, b);
}

static int by_buffers(const void *a, const void *b)
{
    const struct snapshot_type *x = a, *y = b;
    return down(x->buffer_bytes, y->buffer_bytes, a, b);
}

static const struct {
    const char *name;
    int (*compare)(const void *a, const void *b);
} orders[] = {
    {"total", by_total},     {"count", by_count}, {"bytes", by_bytes},
    {"buffers", by_buffers}, {"name", by_name},
};

void type_groups_sort(struct type_groups *g, const char *sort, bool reverse)
{
    int (*compare)(const void *, const void *) = by_total;
    for (size_t i = 0; sort && i < sizeof orders / sizeof *orders; i++)
        if (strcmp(orders[i].name, sort) == 0)
            compare = orders[i].compare;
    if (g->n)
        qsort(g->rows, g->n, sizeof *g->rows, compare);
    for (size_t i = 0; reverse && i < g->n / 2; i++) {
        struct snapshot_type t = g->rows[i];
        g->rows[i] = g->rows[g->n - 1 - i];
        g->rows[g->n - 1 - i] = t;
    }
}

/* ---- sparse arenas ---- */

int type_groups_sparse(struct type_groups *g, const struct snapshot *snap, struct err *err)
{
    init(g);
    for (size_t i = 0; i < snap->n_arenas; i++) {
        const struct snapshot_arena *a = &snap->arenas[i];
        if (!a->top_type || !utilisation_is_sparse(a))
            continue;
        struct snapshot_type row = {.name = a->top_type, .count = 1, .bytes = a->top_bytes};
        if (!add_row(g, &row))
            return no_memory(g, err);
    }
    merge_equal(g);
    type_groups_sort(g, "bytes", false);
    return 0;
}
