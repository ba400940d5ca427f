#define _GNU_SOURCE 1 /* qsort_r */
#include "formats/sites.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/vec.h"
#include "formats/site_group.h"
#include "formats/type_groups.h"

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory to group sites");
}

void site_stats_release(struct site_stats *s)
{
    free(s->rows);
    memset(s, 0, sizeof *s);
}

const struct snapshot_frame *site_frame(const struct site_row *r, uint32_t i)
{
    return r->of_file.file ? &r->of_file : &r->snap->frames[r->frames[i]];
}

/* ---- rows ---- */

/* new - old, as far as it can be said. */
static int64_t difference(uint64_t now, uint64_t then)
{
    uint64_t by = now > then ? now - then : then - now;
    int64_t d = by > INT64_MAX ? INT64_MAX : (int64_t)by;
    return now > then ? d : -d;
}

static void fill_row(struct site_row *r, const struct site_group *g, const struct site_keys *keys,
                     size_t i)
{
    const struct site_sum *sum = &g->sums[i];
    *r = (struct site_row){.snap = g->snap,
                           .frames = sum->frames,
                           .n_frames = sum->n_frames,
                           .total_frames = sum->total_frames,
                           .size = sum->size,
                           .count = sum->count,
                           .type = sum->type,
                           .type_size = sum->type_size};
    if (g->key == SITES_BY_FILE)
        r->of_file.file = keys->file_items[i];
    else if (!sum->n_frames)
        r->of_file.file = SITE_UNKNOWN;
    if (r->of_file.file)
        r->n_frames = 1;
}

/* ---- order ---- */

struct item {
    uint64_t by[5]; /* falling, the first counts most; the last two frames of the key come last */
    uint32_t key;
};

struct order {
    const struct site_keys *keys;
    enum site_key key;
};

static int compare_keys(const struct order *o, uint32_t a, uint32_t b)
{
    if (o->key == SITES_BY_FILE)
        return strcmp(o->keys->file_items[a], o->keys->file_items[b]);
    if (o->key == SITES_BY_LINE)
        return site_keys_compare_lines(o->keys, a, b);
    return site_keys_compare_stacks(o->keys, a, b);
}

/* All falling, the traceback too, as sort(reverse=True) has it. */
static int compare_items(const void *a, const void *b, void *order)
{
    const struct item *x = a, *y = b;
    for (int i = 0; i < 5; i++)
        if (x->by[i] != y->by[i])
            return x->by[i] > y->by[i] ? -1 : 1;
    return -compare_keys(order, x->key, y->key);
}

static uint64_t magnitude(int64_t v)
{
    return v < 0 ? (uint64_t)-v : (uint64_t)v;
}

/* Statistic._sort_key or StatisticDiff._sort_key, and of the traceback as much as a number holds:
 * where many rows tie, most are told apart without a look at their frames. */
static void fill_item(struct item *item, const struct site_row *r, const struct order *o,
                      bool compared, uint32_t key)
{
    uint64_t head = o->key == SITES_BY_TRACEBACK ? site_keys_stack_head(o->keys, key) : 0;
    if (compared)
        *item = (struct item){
            {magnitude(r->size_diff), r->size, magnitude(r->count_diff), r->count, head}, key};
    else
        *item = (struct item){{r->size, r->count, head, 0, 0}, key};
}

/* ---- one or two snapshots ---- */

struct stats_job {
    struct site_keys keys;
    struct site_group now, then;
    bool compared;
};

static void job_release(struct stats_job *job)
{
    site_group_release(&job->now);
    site_group_release(&job->then);
    site_keys_release(&job->keys);
}

/* The row of a key; false when neither has it. */
static bool make_row(const struct stats_job *job, size_t i, struct site_row *r)
{
    static const struct site_sum none;
    const struct site_sum *now = i < job->now.n_sums ? &job->now.sums[i] : &none;
    const struct site_sum *then = i < job->then.n_sums ? &job->then.sums[i] : &none;
    if (!now->used && !then->used)
        return false;
    fill_row(r, now->used ? &job->now : &job->then, &job->keys, i);
    if (job->compared) {
        r->size = now->size;
        r->count = now->count;
        r->size_diff = difference(now->size, then->size);
        r->count_diff = difference(now->count, then->count);
    }
    return true;
}

/* The keys in their order, then the rows in that of the keys. */
static int make_rows(struct stats_job *job, struct site_stats *ret, struct err *err)
{
    struct order order = {&job->keys, job->now.key};
    struct site_row row;
    size_t most = job->now.n_sums > job->then.n_sums ? job->now.n_sums : job->then.n_sums, n = 0;
    struct item *items = malloc((most + 1) * sizeof *items);
    int rc = items ? site_keys_rank(&job->keys, err) : no_memory(err);
    for (size_t i = 0; i < most && rc == 0; i++)
        if (make_row(job, i, &row))
            fill_item(&items[n++], &row, &order, job->compared, (uint32_t)i);
    if (rc == 0 && n)
        qsort_r(items, n, sizeof *items, compare_items, &order);
    if (rc == 0 && vec_reserve(&ret->rows, &ret->cap, n, sizeof *ret->rows) < 0)
        rc = no_memory(err);
    for (size_t i = 0; i < n && rc == 0; i++)
        make_row(job, items[i].key, &ret->rows[ret->n++]);
    free(items);
    return rc;
}

static int finish(struct stats_job *job, int rc, struct site_stats *ret, struct err *err)
{
    struct site_stats s = {0};
    if (rc == 0)
        rc = make_rows(job, &s, err);
    s.size = job->now.size;
    s.count = job->now.count;
    s.filtered_size = job->now.filtered_size;
    s.filtered_count = job->now.filtered_count;
    if (rc == 0)
        *ret = s;
    else
        site_stats_release(&s);
    job_release(job);
    return rc;
}

int site_stats_make(const struct snapshot *snap, enum site_key key, bool cumulative,
                    const struct site_filters *filters, struct site_stats *ret, struct err *err)
{
    struct stats_job job = {.compared = false};
    site_keys_init(&job.keys);
    int rc = site_group_make(&job.now, snap, key, cumulative, filters, &job.keys, err);
    if (rc == 0)
        rc = site_group_types(&job.now, &job.keys, err);
    return finish(&job, rc, ret, err);
}

int site_stats_compare(const struct snapshot *old_snap, const struct snapshot *new_snap,
                       enum site_key key, bool cumulative, const struct site_filters *filters,
                       struct site_stats *ret, struct err *err)
{
    struct stats_job job = {.compared = true};
    site_keys_init(&job.keys);
    int rc = site_group_make(&job.then, old_snap, key, cumulative, filters, &job.keys, err);
    if (rc == 0)
        rc = site_group_make(&job.now, new_snap, key, cumulative, filters, &job.keys, err);
    if (rc == 0)
        rc = site_group_types(&job.then, &job.keys, err);
    if (rc == 0)
        rc = site_group_types(&job.now, &job.keys, err);
    return finish(&job, rc, ret, err);
}

/* ---- another order ---- */

struct place {
    uint64_t by;
    size_t at;
};

/* Ties stay as they are. */
static int compare_places(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    if (x->by != y->by)
        return x->by > y->by ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static void reverse_rows(struct site_stats *s)
{
    for (size_t i = 0; i < s->n / 2; i++) {
        struct site_row r = s->rows[i];
        s->rows[i] = s->rows[s->n - 1 - i];
        s->rows[s->n - 1 - i] = r;
    }
}

int site_stats_sort(struct site_stats *s, const char *sort, bool reverse, struct err *err)
{
    if (sort && strcmp(sort, "count") == 0 && s->n) {
        struct place *places = malloc(s->n * sizeof *places);
        struct site_row *rows = malloc(s->n * sizeof *rows);
        for (size_t i = 0; places && i < s->n; i++)
            places[i] = (struct place){s->rows[i].count, i};
        if (!places || !rows) {
            free(places);
            free(rows);
            return no_memory(err);
        }
        qsort(places, s->n, sizeof *places, compare_places);
        for (size_t i = 0; i < s->n; i++)
            rows[i] = s->rows[places[i].at];
        free(places);
        free(s->rows);
        s->rows = rows;
        s->cap = s->n;
    }
    if (reverse)
        reverse_rows(s);
    return 0;
}
