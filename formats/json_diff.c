/* The documents of diff and trend. */
#include <stdlib.h>

#include "formats/diff_report.h"
#include "formats/json.h"

static void member_u64(struct json_emit *e, const char *key, uint64_t v)
{
    emit_key(e, key);
    emit_u64(e, v);
}

static void member_i64(struct json_emit *e, const char *key, int64_t v)
{
    emit_key(e, key);
    emit_i64(e, v);
}

static void member_bool(struct json_emit *e, const char *key, bool v)
{
    emit_key(e, key);
    emit_bool(e, v);
}

static void member_text(struct json_emit *e, const char *key, const char *v)
{
    emit_key(e, key);
    emit_text(e, v);
}

static void open_member(struct json_emit *e, const char *key, char bracket)
{
    emit_key(e, key);
    emit_open(e, bracket);
}

/* ---- diff ---- */

static void member_sum(struct json_emit *e, const char *key, const struct diff_sum *s)
{
    open_member(e, key, '{');
    member_u64(e, "count", s->count);
    member_u64(e, "bytes", s->bytes);
    emit_close(e, '}');
}

static void changes(struct json_emit *e, const struct diff_sum *fresh, const struct diff_sum *gone,
                    const struct diff_sum *kept)
{
    member_sum(e, "new", fresh);
    member_sum(e, "gone", gone);
    member_sum(e, "surviving", kept);
}

static void row_figures(struct json_emit *e, const struct diff *d, const struct diff_row *r)
{
    member_u64(e, "count", r->count);
    member_i64(e, "count_diff", r->count_diff);
    member_u64(e, "bytes", r->bytes);
    member_i64(e, "bytes_diff", r->bytes_diff);
    if (d->identity)
        changes(e, &r->fresh, &r->gone, &r->kept);
}

static void rows(struct json_emit *e, const struct diff *d, long top, char *buf)
{
    size_t n = top > 0 && (size_t)top < d->n ? (size_t)top : d->n;
    member_text(e, "by", figure_key_name(d->key));
    open_member(e, "total", '{');
    row_figures(e, d, &d->total);
    emit_close(e, '}');
    open_member(e, "rows", '[');
    for (size_t i = 0; i < n && e->rc == 0; i++) {
        const struct diff_row *r = &d->rows[i];
        emit_open(e, '{');
        member_text(e, "key", diff_key(d, r, buf, FIGURES_KEY_MAX));
        row_figures(e, d, r);
        if (r->site) {
            emit_key(e, "traceback");
            json_emit_frames(e, r->site);
        }
        emit_close(e, '}');
    }
    emit_close(e, ']');
}

static void change(struct json_emit *e, const char *key, uint64_t before, uint64_t after,
                   int64_t diff)
{
    open_member(e, key, '{');
    member_u64(e, "old", before);
    member_u64(e, "new", after);
    member_i64(e, "diff", diff);
    emit_close(e, '}');
}

/* Null: not known, or nothing of that kind grew. */
static void cause(struct json_emit *e, const char *key, const struct diff_cause *c)
{
    emit_key(e, key);
    if (!c->known || !c->grew) {
        emit_null(e);
        return;
    }
    emit_open(e, '{');
    member_text(e, "key", c->key);
    if (c->module[0])
        member_text(e, "module", c->module);
    member_i64(e, "count_diff", c->count_diff);
    member_i64(e, "bytes_diff", c->bytes_diff);
    emit_key(e, "share");
    emit_double(e, c->share);
    emit_close(e, '}');
}

static void verdict(struct json_emit *e, const struct diff_verdict *v)
{
    open_member(e, "verdict", '{');
    member_bool(e, "growth", v->growth);
    change(e, "rss", v->old_rss, v->new_rss, v->rss_diff);
    change(e, "in_use", v->old_in_use, v->new_in_use, v->in_use_diff);
    cause(e, "category", &v->causes[DIFF_CATEGORY]);
    cause(e, "type", &v->causes[DIFF_TYPE]);
    cause(e, "site", &v->causes[DIFF_SITE]);
    emit_close(e, '}');
}

static void warnings(struct json_emit *e, const struct diff_warnings *w)
{
    open_member(e, "warnings", '[');
    for (size_t i = 0; i < w->n; i++) {
        emit_open(e, '{');
        member_text(e, "what", w->items[i].what);
        member_text(e, "why", w->items[i].why);
        emit_close(e, '}');
    }
    emit_close(e, ']');
}

static void gate(struct json_emit *e, const struct gate_result *g)
{
    emit_open(e, '{');
    member_text(e, "gate", g->gate->text);
    member_bool(e, "tripped", g->tripped);
    member_text(e, "unit", g->gate->unit == GATE_COUNT ? "count" : "bytes");
    member_u64(e, "old", g->old_value);
    member_u64(e, "new", g->new_value);
    member_i64(e, "diff", figure_diff(g->old_value, g->new_value));
    open_member(e, "rows", '[');
    for (size_t i = 0; i < g->n_rows; i++) {
        emit_open(e, '{');
        member_text(e, "key", g->rows[i].key);
        member_u64(e, "count", g->rows[i].count);
        member_i64(e, "count_diff", g->rows[i].count_diff);
        member_u64(e, "bytes", g->rows[i].bytes);
        member_i64(e, "bytes_diff", g->rows[i].bytes_diff);
        emit_close(e, '}');
    }
    emit_close(e, ']');
    emit_close(e, '}');
}

static void blocks(struct json_emit *e, const struct diff_identity *d)
{
    open_member(e, "blocks", '{');
    changes(e, &d->fresh, &d->gone, &d->kept);
    member_u64(e, "reused", d->reused);
    emit_close(e, '}');
}

/* Seconds from the old one to the new one. */
static void elapsed(struct json_emit *e, const struct diff_report *r)
{
    double a, b;
    emit_key(e, "seconds");
    if (diff_time(r->old_snap->taken_at, &a) && diff_time(r->new_snap->taken_at, &b))
        emit_double(e, b - a);
    else
        emit_null(e);
}

int json_write_diff(const struct diff_report *r, long top, struct sink *out, struct err *err)
{
    struct json_emit e;
    char *buf = malloc(FIGURES_KEY_MAX);
    if (!buf)
        return err_set(err, ERR_NOMEM, "no memory for the document");
    json_emit_init(&e, out, err);
    json_begin_document(&e, "diff");
    json_emit_source(&e, "old", r->old_snap);
    json_emit_source(&e, "new", r->new_snap);
    elapsed(&e, r);
    verdict(&e, r->verdict);
    warnings(&e, r->warnings);
    if (r->identity)
        blocks(&e, r->identity);
    rows(&e, r->by, top, buf);
    if (r->also) {
        open_member(&e, "also", '{');
        rows(&e, r->also, top, buf);
        emit_close(&e, '}');
    }
    open_member(&e, "gates", '[');
    for (size_t i = 0; i < r->n_gates; i++)
        gate(&e, &r->gates[i]);
    emit_close(&e, ']');
    json_end_document(&e);
    free(buf);
    return json_emit_finish(&e);
}

/* ---- trend ---- */

static void point(struct json_emit *e, const struct trend_point *p)
{
    emit_open(e, '{');
    member_text(e, "name", p->name);
    member_text(e, "taken_at", p->taken_at[0] ? p->taken_at : NULL);
    emit_key(e, "seconds");
    if (p->timed)
        emit_double(e, p->seconds);
    else
        emit_null(e);
    member_text(e, "host", p->host[0] ? p->host : NULL);
    emit_key(e, "pid");
    if (p->pid > 0)
        emit_i64(e, p->pid);
    else
        emit_null(e);
    member_bool(e, "complete", p->complete);
    emit_close(e, '}');
}

static void series(struct json_emit *e, const char *key, const uint64_t *values, size_t n)
{
    open_member(e, key, '[');
    for (size_t i = 0; i < n; i++)
        emit_u64(e, values[i]);
    emit_close(e, ']');
}

static void slope(struct json_emit *e, const char *key, bool known, double v)
{
    emit_key(e, key);
    if (known)
        emit_double(e, v);
    else
        emit_null(e);
}

/* The ledger's own figures have no counts. */
static void trend_row(struct json_emit *e, const struct trend *t, const struct trend_row *r,
                      bool counts)
{
    emit_open(e, '{');
    member_text(e, "key", r->key);
    series(e, "bytes", r->bytes, t->n_points);
    member_i64(e, "bytes_diff", r->bytes_diff);
    slope(e, "bytes_per_hour", r->has_slope, r->bytes_slope);
    if (counts) {
        series(e, "count", r->count, t->n_points);
        member_i64(e, "count_diff", r->count_diff);
        slope(e, "count_per_hour", r->has_slope, r->count_slope);
    }
    member_bool(e, "monotone", r->monotone);
    emit_close(e, '}');
}

int json_write_trend(const struct trend *t, long top, struct sink *out, struct err *err)
{
    struct json_emit e;
    size_t n = top > 0 && (size_t)top < t->n ? (size_t)top : t->n;
    json_emit_init(&e, out, err);
    json_begin_document(&e, "trend");
    open_member(&e, "snapshots", '[');
    for (size_t i = 0; i < t->n_points; i++)
        point(&e, &t->points[i]);
    emit_close(&e, ']');
    member_text(&e, "by", figure_key_name(t->key));
    emit_key(&e, "rss");
    trend_row(&e, t, &t->rss, false);
    emit_key(&e, "in_use");
    trend_row(&e, t, &t->in_use, false);
    emit_key(&e, "total");
    trend_row(&e, t, &t->total, true);
    open_member(&e, "rows", '[');
    for (size_t i = 0; i < n && e.rc == 0; i++)
        trend_row(&e, t, &t->rows[i], true);
    emit_close(&e, ']');
    json_end_document(&e);
    return json_emit_finish(&e);
}
