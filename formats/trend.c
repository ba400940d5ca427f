#define _GNU_SOURCE 1 /* strverscmp */
#include "formats/trend.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "formats/diff.h"
#include "formats/type_groups.h"

const char trend_orders[] = "growth,slope,bytes,count,name";

void trend_init(struct trend *t, enum figure_key key)
{
    memset(t, 0, sizeof *t);
    strpool_init(&t->names);
    t->key = key;
}

void trend_release(struct trend *t)
{
    for (size_t i = 0; i < t->n_points; i++)
        figures_release(&t->points[i].figures);
    free(t->points);
    free(t->rows);
    free(t->values);
    strpool_release(&t->names);
    memset(t, 0, sizeof *t);
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for the trend");
}

int trend_add(struct trend *t, const struct snapshot *snap, const char *name,
              const struct figure_options *opt, struct err *err)
{
    if (t->n_points == TREND_MAX)
        return err_set(err, ERR_USAGE, "more than %d snapshots", TREND_MAX);
    if (vec_reserve(&t->points, &t->cap_points, t->n_points + 1, sizeof *t->points) < 0)
        return no_memory(err);
    struct trend_point p = {
        .name = strpool_add(&t->names, name),
        .taken_at = strpool_add(&t->names, snap->taken_at ? snap->taken_at : ""),
        .pid = snap->source.pid,
        .host = strpool_add(&t->names, snap->host ? snap->host : ""),
        .complete = snap->complete,
        .rss = snap->memory.rss_bytes,
        .in_use = figures_in_use(snap),
    };
    p.timed = diff_time(snap->taken_at, &p.seconds);
    if (!p.name || !p.taken_at || !p.host)
        return no_memory(err);
    int rc = figures_can(snap, t->key, name, err);
    if (rc == 0)
        rc = figures_make(snap, t->key, opt, &p.figures, err);
    if (rc == 0)
        t->points[t->n_points++] = p;
    return rc;
}

/* ---- points ---- */

/* By insertion, which leaves equal times as they came. */
static void order_points(struct trend *t)
{
    for (size_t i = 1; i < t->n_points; i++) {
        struct trend_point p = t->points[i];
        size_t at = i;
        for (; at && t->points[at - 1].seconds > p.seconds; at--)
            t->points[at] = t->points[at - 1];
        t->points[at] = p;
        t->reordered = t->reordered || at != i;
    }
}

static void settle_points(struct trend *t)
{
    bool timed = true;
    for (size_t i = 0; i < t->n_points; i++)
        timed = timed && t->points[i].timed;
    if (timed)
        order_points(t);
    double start = t->points[0].seconds;
    for (size_t i = 0; i < t->n_points; i++) {
        struct trend_point *p = &t->points[i];
        p->timed = timed;
        p->seconds = timed ? p->seconds - start : 0;
        t->other_process = t->other_process || p->pid != t->points[0].pid ||
                           strcmp(p->host, t->points[0].host) != 0;
    }
}

/* ---- rows ---- */

static double slope_of(const struct trend *t, const uint64_t *values)
{
    double n = (double)t->n_points, x = 0, y = 0, xy = 0, xx = 0;
    for (size_t i = 0; i < t->n_points; i++) {
        x += t->points[i].seconds / 3600 / n;
        y += (double)values[i] / n;
    }
    for (size_t i = 0; i < t->n_points; i++) {
        double dx = t->points[i].seconds / 3600 - x;
        xy += dx * ((double)values[i] - y);
        xx += dx * dx;
    }
    return xx > 0 ? xy / xx : 0;
}

static void judge_row(const struct trend *t, struct trend_row *r)
{
    size_t last = t->n_points - 1;
    r->bytes_diff = figure_diff(r->bytes[0], r->bytes[last]);
    r->count_diff = figure_diff(r->count[0], r->count[last]);
    r->monotone = r->bytes[last] > r->bytes[0];
    for (size_t i = 0; i < last; i++)
        r->monotone = r->monotone && r->bytes[i] <= r->bytes[i + 1];
    r->has_slope = t->points[0].timed && t->points[last].seconds > 0;
    if (!r->has_slope)
        return;
    r->bytes_slope = slope_of(t, r->bytes);
    r->count_slope = slope_of(t, r->count);
}

struct place {
    size_t row, point;
    struct figure figure;
};

static int by_key(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return strcmp(x->figure.key, y->figure.key);
}

/* All figures of all points in one list, by key. */
static int list_places(const struct trend *t, struct place **ret, size_t *n)
{
    size_t all = 0, at = 0;
    for (size_t i = 0; i < t->n_points; i++)
        all += t->points[i].figures.n;
    *ret = malloc((all + 1) * sizeof **ret);
    *n = all;
    if (!*ret)
        return ERR_NOMEM;
    for (size_t i = 0; i < t->n_points; i++)
        for (size_t k = 0; k < t->points[i].figures.n; k++)
            (*ret)[at++] = (struct place){0, i, t->points[i].figures.rows[k]};
    if (all)
        qsort(*ret, all, sizeof **ret, by_key);
    return 0;
}

enum { OWN_ROWS = 3 }; /* rss, in use, total */

static size_t number_rows(struct place *places, size_t n)
{
    size_t rows = 0;
    for (size_t i = 0; i < n; i++) {
        rows += i == 0 || strcmp(places[i - 1].figure.key, places[i].figure.key) != 0;
        places[i].row = rows - 1;
    }
    return rows;
}

static void set_row(struct trend *t, struct trend_row *r, size_t at, const char *key)
{
    memset(r, 0, sizeof *r);
    r->key = key;
    r->bytes = t->values + at * 2 * t->n_points;
    r->count = r->bytes + t->n_points;
}

static void fill_own_rows(struct trend *t, size_t at)
{
    set_row(t, &t->rss, at, "rss");
    set_row(t, &t->in_use, at + 1, "in use");
    set_row(t, &t->total, at + 2, "total");
    for (size_t i = 0; i < t->n_points; i++) {
        size_t step = 2 * t->n_points;
        t->values[at * step + i] = t->points[i].rss;
        t->values[(at + 1) * step + i] = t->points[i].in_use;
        t->values[(at + 2) * step + i] = t->points[i].figures.total.bytes;
        t->values[(at + 2) * step + t->n_points + i] = t->points[i].figures.total.count;
    }
    judge_row(t, &t->rss);
    judge_row(t, &t->in_use);
    judge_row(t, &t->total);
}

static int make_rows(struct trend *t, struct place *places, size_t n)
{
    size_t rows = number_rows(places, n), np = t->n_points;
    t->values = calloc((rows + OWN_ROWS) * 2 * np, sizeof *t->values);
    if (!t->values || vec_reserve(&t->rows, &t->cap, rows + 1, sizeof *t->rows) < 0)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        const struct place *p = &places[i];
        uint64_t *values = t->values + p->row * 2 * np;
        set_row(t, &t->rows[p->row], p->row, p->figure.key);
        values[p->point] = p->figure.bytes;
        values[np + p->point] = p->figure.count;
    }
    t->n = rows;
    for (size_t i = 0; i < rows; i++)
        judge_row(t, &t->rows[i]);
    fill_own_rows(t, rows);
    return 0;
}

static bool is_small(const struct trend *t, const struct trend_row *r, uint64_t min_size)
{
    for (size_t i = 0; i < t->n_points; i++)
        if (r->bytes[i] >= min_size)
            return false;
    return true;
}

int trend_settle(struct trend *t, uint64_t min_size, struct err *err)
{
    struct place *places = NULL;
    size_t n = 0, kept = 0;
    if (t->n_points < TREND_MIN) {
        err_set(err, ERR_USAGE, "a trend needs %d snapshots or more, not %zu", TREND_MIN,
                t->n_points);
        err_remedy(err, "heapcensus diff OLD NEW compares two");
        return ERR_USAGE;
    }
    settle_points(t);
    int rc = list_places(t, &places, &n);
    if (rc == 0)
        rc = make_rows(t, places, n);
    free(places);
    if (rc < 0)
        return no_memory(err);
    for (size_t i = 0; i < t->n; i++)
        if (!is_small(t, &t->rows[i], min_size))
            t->rows[kept++] = t->rows[i];
    t->n = kept;
    trend_sort(t, NULL, false);
    return 0;
}

/* ---- order ---- */

static int order_name(const struct trend_row *x, const struct trend_row *y)
{
    return strverscmp(x->key, y->key);
}

static int by_growth(const void *a, const void *b)
{
    const struct trend_row *x = a, *y = b;
    if (x->monotone != y->monotone)
        return x->monotone ? -1 : 1;
    if (x->bytes_diff != y->bytes_diff)
        return x->bytes_diff > y->bytes_diff ? -1 : 1;
    if (x->count_diff != y->count_diff)
        return x->count_diff > y->count_diff ? -1 : 1;
    return order_name(x, y);
}

static int by_slope(const void *a, const void *b)
{
    const struct trend_row *x = a, *y = b;
    if (x->bytes_slope != y->bytes_slope)
        return x->bytes_slope > y->bytes_slope ? -1 : 1;
    return by_growth(a, b);
}

static int by_name(const void *a, const void *b)
{
    return order_name(a, b);
}

/* The last value is the first plus what came since. */
static uint64_t last_of(uint64_t first, int64_t diff)
{
    return first + (uint64_t)diff;
}

static int by_bytes(const void *a, const void *b)
{
    const struct trend_row *x = a, *y = b;
    uint64_t u = last_of(x->bytes[0], x->bytes_diff), v = last_of(y->bytes[0], y->bytes_diff);
    return u != v ? (u > v ? -1 : 1) : by_growth(a, b);
}

static int by_count(const void *a, const void *b)
{
    const struct trend_row *x = a, *y = b;
    uint64_t u = last_of(x->count[0], x->count_diff), v = last_of(y->count[0], y->count_diff);
    return u != v ? (u > v ? -1 : 1) : by_growth(a, b);
}

static const struct {
    const char *name;
    int (*compare)(const void *a, const void *b);
} orders[] = {
    {"growth", by_growth}, {"slope", by_slope}, {"bytes", by_bytes},
    {"count", by_count},   {"name", by_name},
};

bool trend_sort(struct trend *t, const char *order, bool reverse)
{
    size_t i = 0, n = sizeof orders / sizeof *orders;
    while (order && i < n && strcmp(orders[i].name, order) != 0)
        i++;
    if (i == n)
        return false;
    if (t->n)
        qsort(t->rows, t->n, sizeof *t->rows, orders[i].compare);
    for (size_t k = 0; reverse && k < t->n / 2; k++) {
        struct trend_row r = t->rows[k];
        t->rows[k] = t->rows[t->n - 1 - k];
        t->rows[t->n - 1 - k] = r;
    }
    return true;
}
