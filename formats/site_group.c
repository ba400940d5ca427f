#include "formats/site_group.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/vec.h"
#include "formats/site_filter.h"
#include "formats/type_groups.h"

void site_group_release(struct site_group *g)
{
    free(g->lines);
    free(g->keys);
    free(g->pass);
    free(g->sums);
    memset(g, 0, sizeof *g);
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory to group sites");
}

/* ---- what a file may get wrong ---- */

static int unsound(struct err *err, const char *what, size_t i, const char *lacks)
{
    return err_set(err, ERR_FORMAT, "%s %zu names a %s that is not there", what, i, lacks);
}

static int check(const struct snapshot *snap, struct err *err)
{
    for (size_t i = 0; i < snap->n_sites; i++)
        if (snap->sites[i].traceback >= snap->n_tracebacks)
            return unsound(err, "site", i, "traceback");
    for (size_t i = 0; i < snap->n_frame_ids; i++)
        if (snap->frame_ids[i] >= snap->n_frames)
            return unsound(err, "a traceback, at its entry", i, "frame");
    for (size_t i = 0; i < snap->n_tracebacks; i++) {
        const struct snapshot_traceback *t = &snap->tracebacks[i];
        if (t->first > snap->n_frame_ids || t->n > snap->n_frame_ids - t->first)
            return unsound(err, "traceback", i, "list of frames");
    }
    return 0;
}

/* ---- keys ---- */

static int number_lines(struct site_group *g, struct site_keys *keys, struct err *err)
{
    const struct snapshot *snap = g->snap;
    int rc = 0;
    g->lines = malloc((snap->n_frames + 1) * sizeof *g->lines);
    if (!g->lines)
        return no_memory(err);
    for (size_t i = 0; i < snap->n_frames && rc == 0; i++)
        rc = site_keys_line(keys, snap->frames[i].file, snap->frames[i].line, &g->lines[i], err);
    /* Behind the last: what a traceback without frames stands for. */
    if (rc == 0)
        rc = site_keys_line(keys, SITE_UNKNOWN, 0, &g->lines[snap->n_frames], err);
    return rc;
}

/* The line of a traceback's i-th frame. */
static uint32_t line_of(const struct site_group *g, size_t traceback, uint32_t i)
{
    const struct snapshot_traceback *t = &g->snap->tracebacks[traceback];
    return g->lines[t->n ? g->snap->frame_ids[t->first + i] : g->snap->n_frames];
}

static uint32_t line_key(const struct site_group *g, const struct site_keys *keys, uint32_t line)
{
    return g->key == SITES_BY_FILE ? keys->line_items[line].file : line;
}

static int number_tracebacks(struct site_group *g, struct site_keys *keys, struct err *err)
{
    const struct snapshot *snap = g->snap;
    int rc = 0;
    g->keys = malloc((snap->n_tracebacks + 1) * sizeof *g->keys);
    if (!g->keys)
        return no_memory(err);
    for (size_t i = 0; i < snap->n_tracebacks && rc == 0; i++) {
        const struct snapshot_traceback *t = &snap->tracebacks[i];
        if (g->key == SITES_BY_TRACEBACK)
            rc = site_keys_stack(keys, t->n ? snap->frame_ids + t->first : NULL, t->n, g->lines,
                                 &g->keys[i], err);
        else
            g->keys[i] = line_key(g, keys, line_of(g, i, 0));
    }
    return rc;
}

uint32_t site_group_keys(const struct site_group *g, size_t traceback)
{
    uint32_t n = g->snap->tracebacks[traceback].n;
    return g->cumulative && n ? n : 1;
}

uint32_t site_group_key(const struct site_group *g, const struct site_keys *keys, size_t traceback,
                        uint32_t i)
{
    if (g->cumulative)
        return line_key(g, keys, line_of(g, traceback, i));
    return g->keys[traceback];
}

/* ---- sums ---- */

struct total {
    uint64_t size, count;
    bool used;
};

static void add_site(struct site_group *g, size_t i, struct total *totals)
{
    const struct snapshot_site *s = &g->snap->sites[i];
    if (!g->pass[i]) {
        g->filtered_size = add_capped(g->filtered_size, s->bytes);
        g->filtered_count = add_capped(g->filtered_count, s->count);
        return;
    }
    struct total *t = &totals[s->traceback];
    t->size = add_capped(t->size, s->bytes);
    t->count = add_capped(t->count, s->count);
    t->used = true;
    g->size = add_capped(g->size, s->bytes);
    g->count = add_capped(g->count, s->count);
}

static void add_total(struct site_group *g, struct site_sum *sum, size_t traceback, uint32_t i,
                      const struct total *total)
{
    const struct snapshot_traceback *t = &g->snap->tracebacks[traceback];
    if (!sum->used && t->n) {
        bool whole = g->key == SITES_BY_TRACEBACK;
        sum->frames = &g->snap->frame_ids[t->first + i];
        sum->n_frames = whole ? t->n : 1;
        sum->total_frames = whole ? t->total : 0;
    }
    sum->used = true;
    sum->size = add_capped(sum->size, total->size);
    sum->count = add_capped(sum->count, total->count);
}

static int add_totals(struct site_group *g, const struct site_keys *keys,
                      const struct total *totals, struct err *err)
{
    const struct site_table *table = g->key == SITES_BY_FILE   ? &keys->files
                                     : g->key == SITES_BY_LINE ? &keys->lines
                                                               : &keys->stacks;
    g->n_sums = table->n;
    g->sums = calloc(g->n_sums + 1, sizeof *g->sums);
    if (!g->sums)
        return no_memory(err);
    for (size_t t = 0; t < g->snap->n_tracebacks; t++) {
        uint32_t n = totals[t].used ? site_group_keys(g, t) : 0;
        for (uint32_t i = 0; i < n; i++)
            add_total(g, &g->sums[site_group_key(g, keys, t, i)], t, i, &totals[t]);
    }
    return 0;
}

/* By traceback first: traces of one traceback all go to the same keys. */
static int add_sites(struct site_group *g, const struct site_keys *keys, struct err *err)
{
    struct total *totals = calloc(g->snap->n_tracebacks + 1, sizeof *totals);
    if (!totals)
        return no_memory(err);
    for (size_t i = 0; i < g->snap->n_sites; i++)
        add_site(g, i, totals);
    int rc = add_totals(g, keys, totals, err);
    free(totals);
    return rc;
}

int site_cumulative_traceback(struct err *err)
{
    err_set(err, ERR_USAGE, "whole tracebacks cannot be cumulative: no two share one");
    err_remedy(err, "--cumulative goes with --by file or --by line");
    return ERR_USAGE;
}

int site_group_make(struct site_group *g, const struct snapshot *snap, enum site_key key,
                    bool cumulative, const struct site_filters *filters, struct site_keys *keys,
                    struct err *err)
{
    g->snap = snap;
    g->key = key;
    g->cumulative = cumulative;
    if (cumulative && key == SITES_BY_TRACEBACK)
        return site_cumulative_traceback(err);
    g->pass = malloc(snap->n_sites + 1);
    int rc = g->pass ? check(snap, err) : no_memory(err);
    if (rc == 0)
        rc = site_filters_apply(snap, filters, g->pass, err);
    if (rc == 0)
        rc = number_lines(g, keys, err);
    if (rc == 0 && !cumulative)
        rc = number_tracebacks(g, keys, err);
    return rc < 0 ? rc : add_sites(g, keys, err);
}
