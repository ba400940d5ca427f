/* Where the growth goes: the category, the type and the site that grew most, and their shares. */
#include <stdio.h>
#include <string.h>

#include "formats/diff.h"
#include "formats/type_groups.h"

static const enum figure_key keys[DIFF_CAUSES] = {
    [DIFF_CATEGORY] = FIGURES_BY_CATEGORY,
    [DIFF_TYPE] = FIGURES_BY_TYPE,
    [DIFF_SITE] = FIGURES_BY_LINE,
};

static void find_module(const struct snapshot *snap, struct diff_cause *c)
{
    for (size_t i = 0; i < snap->n_types; i++) {
        const struct snapshot_type *t = &snap->types[i];
        if (!t->name || !t->module || strcmp(t->name, c->key) != 0)
            continue;
        snprintf(c->module, sizeof c->module, "%.*s", (int)sizeof c->module - 1, t->module);
        return;
    }
}

/* Where tracemalloc is on, most of the interpreter's own growth is its tables: the instrument's,
 * not the program's (diff_warn tells of them). */
static bool is_instrument(const struct diff_row *r)
{
    return r->key && strcmp(r->key, figures_runtime) == 0;
}

/* The share is of all that grew, as what shrank elsewhere hides growth from the sum. */
static void take_largest(const struct diff *d, bool traced, struct diff_cause *c)
{
    const struct diff_row *top = NULL;
    double grown = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct diff_row *r = &d->rows[i];
        if (r->bytes_diff <= 0 || (traced && is_instrument(r)))
            continue;
        grown += (double)r->bytes_diff;
        if (!top || r->bytes_diff > top->bytes_diff)
            top = r;
    }
    c->known = true;
    c->grew = top != NULL;
    if (!top)
        return;
    char buf[sizeof c->key];
    snprintf(c->key, sizeof c->key, "%.*s", (int)sizeof c->key - 1,
             diff_key(d, top, buf, sizeof buf));
    c->count_diff = top->count_diff;
    c->bytes_diff = top->bytes_diff;
    c->share = (double)top->bytes_diff / grown;
}

static bool can_tell(const struct snapshot *a, const struct snapshot *b, int i,
                     struct diff_cause *c)
{
    if (i == DIFF_TYPE && !(a->objects.present && b->objects.present))
        c->why = "not both snapshots have types";
    else if (i == DIFF_SITE && !figures_traced(a) && !figures_traced(b))
        c->why = "tracemalloc was off";
    else if (i == DIFF_SITE && !(figures_traced(a) && figures_traced(b)))
        c->why = "tracemalloc was not on both times";
    return !c->why;
}

static int judge_one(const struct snapshot *a, const struct snapshot *b, int i,
                     struct diff_cause *c, struct err *err)
{
    struct diff d;
    if (!can_tell(a, b, i, c))
        return 0;
    int rc = diff_make(a, b, keys[i], NULL, &d, err);
    if (rc < 0)
        return rc;
    take_largest(&d, a->tracing.present || b->tracing.present, c);
    diff_release(&d);
    if (i == DIFF_TYPE && c->grew)
        find_module(b, c);
    return 0;
}

int diff_judge(const struct snapshot *a, const struct snapshot *b, struct diff_verdict *ret,
               struct err *err)
{
    memset(ret, 0, sizeof *ret);
    ret->old_rss = a->memory.rss_bytes;
    ret->new_rss = b->memory.rss_bytes;
    ret->old_in_use = figures_in_use(a);
    ret->new_in_use = figures_in_use(b);
    ret->rss_diff = figure_diff(ret->old_rss, ret->new_rss);
    ret->in_use_diff = figure_diff(ret->old_in_use, ret->new_in_use);
    ret->growth = ret->rss_diff > 0 || ret->in_use_diff > 0;
    int rc = 0;
    for (int i = 0; i < DIFF_CAUSES && rc == 0; i++)
        rc = judge_one(a, b, i, &ret->causes[i], err);
    return rc;
}

/* ---- by identity ---- */

static void take_fresh(const struct diff *d, struct diff_cause *c)
{
    const struct diff_row *top = NULL;
    double fresh = 0;
    for (size_t i = 0; i < d->n; i++) {
        const struct diff_row *r = &d->rows[i];
        if (is_instrument(r))
            continue;
        fresh += (double)r->fresh.bytes;
        if (r->fresh.bytes && (!top || r->fresh.bytes > top->fresh.bytes))
            top = r;
    }
    if (!top)
        return;
    c->known = c->grew = true;
    snprintf(c->key, sizeof c->key, "%.*s", (int)sizeof c->key - 1, top->key);
    c->count_diff = figure_diff(0, top->fresh.count);
    c->bytes_diff = figure_diff(0, top->fresh.bytes);
    c->share = (double)top->fresh.bytes / fresh;
}

/* Only the site: which type grew is told best by what is left after new and gone. */
void diff_judge_identity(const struct diff_identity *d, struct diff_verdict *v)
{
    const struct diff *sites = figure_key_is_site(d->by.key) ? &d->by : &d->also;
    struct diff_cause *c = &v->causes[DIFF_SITE];
    if (!c->known || !figure_key_is_site(sites->key) || (sites == &d->also && !d->has_also))
        return;
    memset(c, 0, sizeof *c);
    c->known = true;
    take_fresh(sites, c);
}
