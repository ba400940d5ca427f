/* The type of the most bytes of each sum. */
#include <stdlib.h>
#include <string.h>

#include "formats/site_group.h"
#include "formats/type_groups.h"

/* Steps that are spent on it: a file can claim a product of sites and frames that would take
 * hours. Honest ones stay far below. */
#define STEPS_MAX ((uint64_t)1 << 28)

/* Lists by number, one behind the other: those of number i are items[first[i]] to
 * items[first[i + 1] - 1]. */
struct lists {
    size_t *first;
    uint32_t *items;
};

struct types {
    struct site_group *g;
    const struct site_keys *keys;
    struct site_keys names;  /* of the types */
    uint32_t *type_of;       /* of each site */
    struct lists sites;      /* of each traceback: its sites that pass, with a type and bytes */
    struct lists tracebacks; /* of each sum */
    uint64_t *bytes;         /* of each type, for the sum that is being made */
    uint32_t *met;           /* types of that sum */
};

static void lists_release(struct lists *l)
{
    free(l->first);
    free(l->items);
}

static void types_release(struct types *t)
{
    site_keys_release(&t->names);
    lists_release(&t->sites);
    lists_release(&t->tracebacks);
    free(t->type_of);
    free(t->bytes);
    free(t->met);
}

/* From how many each list has, in first[i + 1], to where each begins; room for the items. */
static bool lists_begin(struct lists *l, size_t n)
{
    for (size_t i = 0; i < n; i++)
        l->first[i + 1] += l->first[i];
    l->items = malloc((l->first[n] + 1) * sizeof *l->items);
    return l->items != NULL;
}

/* Filling moved each beginning to its end: back by one. */
static void lists_end(struct lists *l, size_t n)
{
    for (size_t i = n; i > 0; i--)
        l->first[i] = l->first[i - 1];
    l->first[0] = 0;
}

static bool counts(const struct types *t, size_t site)
{
    const struct snapshot_site *s = &t->g->snap->sites[site];
    return t->g->pass[site] && s->type && s->bytes;
}

static int list_sites(struct types *t, struct err *err)
{
    const struct snapshot *snap = t->g->snap;
    struct lists *l = &t->sites;
    int rc = 0;
    l->first = calloc(snap->n_tracebacks + 2, sizeof *l->first);
    t->type_of = malloc((snap->n_sites + 1) * sizeof *t->type_of);
    if (!l->first || !t->type_of)
        return ERR_NOMEM;
    for (size_t i = 0; i < snap->n_sites && rc == 0; i++) {
        if (!counts(t, i))
            continue;
        rc = site_keys_file(&t->names, snap->sites[i].type, &t->type_of[i], err);
        l->first[snap->sites[i].traceback + 1]++;
    }
    if (rc < 0 || !lists_begin(l, snap->n_tracebacks))
        return ERR_NOMEM;
    for (size_t i = 0; i < snap->n_sites; i++)
        if (counts(t, i))
            l->items[l->first[snap->sites[i].traceback]++] = (uint32_t)i;
    lists_end(l, snap->n_tracebacks);
    return 0;
}

static size_t sites_of(const struct types *t, size_t traceback)
{
    return t->sites.first[traceback + 1] - t->sites.first[traceback];
}

/* The work of all sums. */
static uint64_t steps(const struct types *t)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < t->g->snap->n_tracebacks; i++)
        sum = add_capped(sum, (uint64_t)sites_of(t, i) * site_group_keys(t->g, i));
    return sum;
}

static int list_tracebacks(struct types *t)
{
    struct lists *l = &t->tracebacks;
    size_t n = t->g->snap->n_tracebacks;
    l->first = calloc(t->g->n_sums + 2, sizeof *l->first);
    if (!l->first)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = sites_of(t, i) ? site_group_keys(t->g, i) : 0; k > 0; k--)
            l->first[site_group_key(t->g, t->keys, i, k - 1) + 1]++;
    if (!lists_begin(l, t->g->n_sums))
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        for (uint32_t k = sites_of(t, i) ? site_group_keys(t->g, i) : 0; k > 0; k--)
            l->items[l->first[site_group_key(t->g, t->keys, i, k - 1)]++] = (uint32_t)i;
    lists_end(l, t->g->n_sums);
    return 0;
}

/* Ties go to the name that comes first, so that output is the same each time. */
static bool beats(const struct types *t, uint32_t type, const struct site_sum *sum)
{
    uint64_t bytes = t->bytes[type];
    if (!sum->type || bytes != sum->type_size)
        return !sum->type || bytes > sum->type_size;
    return strcmp(t->names.file_items[type], sum->type) < 0;
}

static void find_top(struct types *t, size_t i)
{
    struct site_sum *sum = &t->g->sums[i];
    size_t n_met = 0;
    for (size_t k = t->tracebacks.first[i]; k < t->tracebacks.first[i + 1]; k++) {
        uint32_t traceback = t->tracebacks.items[k];
        for (size_t s = t->sites.first[traceback]; s < t->sites.first[traceback + 1]; s++) {
            uint32_t site = t->sites.items[s], type = t->type_of[site];
            if (!t->bytes[type])
                t->met[n_met++] = type;
            t->bytes[type] = add_capped(t->bytes[type], t->g->snap->sites[site].bytes);
        }
    }
    for (size_t k = 0; k < n_met; k++) {
        uint32_t type = t->met[k];
        if (beats(t, type, sum)) {
            sum->type = t->names.file_items[type];
            sum->type_size = t->bytes[type];
        }
    }
    for (size_t k = 0; k < n_met; k++)
        t->bytes[t->met[k]] = 0;
}

int site_group_types(struct site_group *g, const struct site_keys *keys, struct err *err)
{
    struct types t = {.g = g, .keys = keys};
    site_keys_init(&t.names);
    int rc = list_sites(&t, err);
    bool wanted = rc == 0 && t.names.files.n && steps(&t) <= STEPS_MAX;
    if (wanted) {
        rc = list_tracebacks(&t);
        t.bytes = calloc(t.names.files.n, sizeof *t.bytes);
        t.met = malloc(t.names.files.n * sizeof *t.met);
    }
    if (rc < 0 || (wanted && (!t.bytes || !t.met)))
        rc = err_set(err, ERR_NOMEM, "no memory for the types of sites");
    for (size_t i = 0; wanted && rc == 0 && i < g->n_sums; i++)
        find_top(&t, i);
    types_release(&t);
    return rc;
}
