#define _GNU_SOURCE 1 /* strverscmp */
#include "formats/diff.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "formats/type_groups.h"

const char diff_orders[] = "growth,count-growth,bytes,count,new,gone,name";

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory to compare");
}

static struct diff_row *add_row(struct diff *d)
{
    if (vec_reserve(&d->rows, &d->cap, d->n + 1, sizeof *d->rows) < 0)
        return NULL;
    memset(&d->rows[d->n], 0, sizeof *d->rows);
    return &d->rows[d->n++];
}

static void fill_row(struct diff_row *row, const struct figure *old_figure,
                     const struct figure *new_figure)
{
    static const struct figure none;
    const struct figure *o = old_figure ? old_figure : &none, *n = new_figure ? new_figure : &none;
    row->key = new_figure ? n->key : o->key;
    row->count = n->count;
    row->bytes = n->bytes;
    row->count_diff = figure_diff(o->count, n->count);
    row->bytes_diff = figure_diff(o->bytes, n->bytes);
}

/* Both are by key: a merge. */
static int merge(struct diff *d, uint64_t min_size)
{
    const struct figures *a = &d->old_figures, *b = &d->new_figures;
    size_t i = 0, j = 0;
    while (i < a->n || j < b->n) {
        int order = i == a->n ? 1 : j == b->n ? -1 : strcmp(a->rows[i].key, b->rows[j].key);
        const struct figure *o = order <= 0 ? &a->rows[i++] : NULL;
        const struct figure *n = order >= 0 ? &b->rows[j++] : NULL;
        if (max_u64(o ? o->bytes : 0, n ? n->bytes : 0) < min_size)
            continue;
        struct diff_row *row = add_row(d);
        if (!row)
            return ERR_NOMEM;
        fill_row(row, o, n);
    }
    fill_row(&d->total, &a->total, &b->total);
    d->total.key = "total";
    return 0;
}

static int compare_figures(struct diff *d, const struct snapshot *old_snap,
                           const struct snapshot *new_snap, const struct diff_options *opt,
                           struct err *err)
{
    int rc = figures_make(old_snap, d->key, &opt->figures, &d->old_figures, err);
    if (rc == 0)
        rc = figures_make(new_snap, d->key, &opt->figures, &d->new_figures, err);
    if (rc < 0)
        return rc;
    return merge(d, opt->min_size) < 0 ? no_memory(err) : 0;
}

/* A sum of what a file claims, held at the ends of its range. */
static void add_signed(int64_t *sum, int64_t more)
{
    if (__builtin_add_overflow(*sum, more, sum))
        *sum = more < 0 ? INT64_MIN + 1 : INT64_MAX;
}

/* With `cumulative` rows overlap, so that the totals need a pass of their own. */
static int total_sites(struct diff *d, const struct snapshot *old_snap,
                       const struct diff_options *opt, struct err *err)
{
    struct site_stats old_stats;
    struct figure before, after = {"total", d->sites.count, d->sites.size};
    if (!opt->figures.cumulative) {
        d->total.key = "total";
        d->total.count = after.count;
        d->total.bytes = after.bytes;
        for (size_t i = 0; i < d->sites.n; i++) {
            add_signed(&d->total.count_diff, d->sites.rows[i].count_diff);
            add_signed(&d->total.bytes_diff, d->sites.rows[i].size_diff);
        }
        return 0;
    }
    int rc = site_stats_make(old_snap, SITES_BY_FILE, true, opt->figures.filters, &old_stats, err);
    if (rc < 0)
        return rc;
    before = (struct figure){"total", old_stats.count, old_stats.size};
    fill_row(&d->total, &before, &after);
    site_stats_release(&old_stats);
    return 0;
}

static int compare_sites(struct diff *d, const struct snapshot *old_snap,
                         const struct snapshot *new_snap, const struct diff_options *opt,
                         struct err *err)
{
    int rc = site_stats_compare(old_snap, new_snap, figure_site_key(d->key),
                                opt->figures.cumulative, opt->figures.filters, &d->sites, err);
    if (rc < 0)
        return rc;
    if (vec_reserve(&d->rows, &d->cap, d->sites.n, sizeof *d->rows) < 0)
        return no_memory(err);
    for (size_t i = 0; i < d->sites.n; i++) {
        const struct site_row *s = &d->sites.rows[i];
        uint64_t before = s->size_diff < 0 ? add_capped(s->size, -(uint64_t)s->size_diff) : 0;
        if (max_u64(s->size, before) < opt->min_size)
            continue;
        struct diff_row *row = add_row(d); /* the room is there */
        row->site = s;
        row->count = s->count;
        row->bytes = s->size;
        row->count_diff = s->count_diff;
        row->bytes_diff = s->size_diff;
    }
    return total_sites(d, old_snap, opt, err);
}

static int check_arenas(const struct snapshot *old_snap, const struct snapshot *new_snap,
                        struct err *err)
{
    char why[DIFF_WHY];
    if (diff_same_process(old_snap, new_snap, why, sizeof why) == DIFF_SAME)
        return 0;
    err_set(err, ERR_USAGE, "arenas are compared by address, within one process: %s", why);
    err_remedy(err, "compare --by category, --by size or --by type");
    return ERR_USAGE;
}

static int make(struct diff *d, const struct snapshot *old_snap, const struct snapshot *new_snap,
                const struct diff_options *opt, struct err *err)
{
    int rc = figures_can(old_snap, d->key, "the old snapshot", err);
    if (rc == 0)
        rc = figures_can(new_snap, d->key, "the new snapshot", err);
    if (rc == 0 && d->key == FIGURES_BY_ARENA)
        rc = check_arenas(old_snap, new_snap, err);
    if (rc < 0)
        return rc;
    if (figure_key_is_site(d->key))
        rc = compare_sites(d, old_snap, new_snap, opt, err);
    else
        rc = compare_figures(d, old_snap, new_snap, opt, err);
    if (rc == 0 && !figure_key_is_site(d->key)) /* sites come in tracemalloc's order */
        diff_sort(d, NULL, false);
    return rc;
}

int diff_make(const struct snapshot *old_snap, const struct snapshot *new_snap, enum figure_key key,
              const struct diff_options *opt, struct diff *ret, struct err *err)
{
    static const struct diff_options none;
    struct diff d;
    memset(&d, 0, sizeof d);
    strpool_init(&d.names);
    d.key = key;
    int rc = make(&d, old_snap, new_snap, opt ? opt : &none, err);
    if (rc < 0)
        diff_release(&d);
    else
        *ret = d;
    return rc;
}

void diff_release(struct diff *d)
{
    free(d->rows);
    figures_release(&d->old_figures);
    figures_release(&d->new_figures);
    site_stats_release(&d->sites);
    strpool_release(&d->names);
    memset(d, 0, sizeof *d);
}

const char *diff_key(const struct diff *d, const struct diff_row *r, char *buf, size_t cap)
{
    if (r->key)
        return r->key;
    return figures_frames_name(r->site->snap, r->site->frames, r->site->n_frames, d->key, buf, cap);
}

/* ---- order ---- */

static uint64_t size_of(int64_t v)
{
    return v < 0 ? -(uint64_t)v : (uint64_t)v;
}

static int down(uint64_t x, uint64_t y)
{
    return x > y ? -1 : x < y;
}

/* The rest of tracemalloc's order: then the frames, which its own sort has put in place already:
 * rows lie in one array of sites, so that their places tell. */
static int by_key(const struct diff_row *x, const struct diff_row *y)
{
    if (x->key && y->key)
        return strverscmp(x->key, y->key);
    return x->site < y->site ? -1 : x->site > y->site;
}

static int by_growth(const void *a, const void *b)
{
    const struct diff_row *x = a, *y = b;
    int order = down(size_of(x->bytes_diff), size_of(y->bytes_diff));
    order = order ? order : down(x->bytes, y->bytes);
    order = order ? order : down(size_of(x->count_diff), size_of(y->count_diff));
    order = order ? order : down(x->count, y->count);
    return order ? order : by_key(x, y);
}

static int by_count_growth(const void *a, const void *b)
{
    const struct diff_row *x = a, *y = b;
    int order = down(size_of(x->count_diff), size_of(y->count_diff));
    return order ? order : by_growth(a, b);
}

static int by_bytes(const void *a, const void *b)
{
    const struct diff_row *x = a, *y = b;
    int order = down(x->bytes, y->bytes);
    return order ? order : by_growth(a, b);
}

static int by_count(const void *a, const void *b)
{
    const struct diff_row *x = a, *y = b;
    int order = down(x->count, y->count);
    return order ? order : by_growth(a, b);
}

static int by_new(const void *a, const void *b)
{
    const struct diff_row *x = a, *y = b;
    int order = down(x->fresh.bytes, y->fresh.bytes);
    return order ? order : by_growth(a, b);
}

static int by_gone(const void *a, const void *b)
{
    const struct diff_row *x = a, *y = b;
    int order = down(x->gone.bytes, y->gone.bytes);
    return order ? order : by_growth(a, b);
}

static int by_name(const void *a, const void *b)
{
    char one[1024], two[1024];
    const struct diff_row *x = a, *y = b;
    if (x->key && y->key)
        return strverscmp(x->key, y->key);
    const struct site_row *s = x->site, *t = y->site;
    figures_frames_name(s->snap, s->frames, s->n_frames, FIGURES_BY_TRACEBACK, one, sizeof one);
    figures_frames_name(t->snap, t->frames, t->n_frames, FIGURES_BY_TRACEBACK, two, sizeof two);
    int order = strverscmp(one, two);
    return order ? order : by_growth(a, b);
}

static const struct {
    const char *name;
    int (*compare)(const void *a, const void *b);
} orders[] = {
    {"growth", by_growth}, {"count-growth", by_count_growth},
    {"bytes", by_bytes},   {"count", by_count},
    {"new", by_new},       {"gone", by_gone},
    {"name", by_name},
};

bool diff_sort(struct diff *d, const char *order, bool reverse)
{
    size_t i = 0, n = sizeof orders / sizeof *orders;
    while (order && i < n && strcmp(orders[i].name, order) != 0)
        i++;
    if (i == n)
        return false;
    if (d->n)
        qsort(d->rows, d->n, sizeof *d->rows, orders[i].compare);
    for (size_t k = 0; reverse && k < d->n / 2; k++) {
        struct diff_row t = d->rows[k];
        d->rows[k] = d->rows[d->n - 1 - k];
        d->rows[d->n - 1 - k] = t;
    }
    return true;
}
