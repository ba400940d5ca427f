/* Trends as text. */
#include <stdint.h>
#include <string.h>

#include "formats/diff_report.h"

enum { CELL = 40, USUAL_ROWS = 25, SERIES = 6 };

/* Of many points the first and the last, and some between them, evenly. */
static size_t pick(const struct trend *t, size_t ret[SERIES])
{
    size_t n = t->n_points < SERIES ? t->n_points : SERIES;
    for (size_t i = 0; i < n; i++)
        ret[i] = i * (t->n_points - 1) / (n - 1);
    return n;
}

static void print_warnings(const struct trend *t, FILE *out)
{
    if (t->other_process)
        fputs("warning: they are not all of one process\n", out);
    if (t->reordered)
        fputs("note: in the order of time, which is not that of the command line\n", out);
    if (!t->points[0].timed)
        fputs("warning: not all tell when they were taken: in the order given, without slopes\n",
              out);
    else if (t->points[t->n_points - 1].seconds <= 0)
        fputs("warning: all were taken in the same second: no slopes\n", out);
    for (size_t i = 0; i < t->n_points; i++) {
        if (t->points[i].complete)
            continue;
        fputs("warning: incomplete: ", out);
        report_string(out, t->points[i].name);
        fputc('\n', out);
    }
}

static void print_head(const struct trend *t, const struct report_options *opt, FILE *out)
{
    const struct trend_point *first = &t->points[0], *last = &t->points[t->n_points - 1];
    char a[CELL], b[CELL];
    fprintf(out, "%zu snapshots", t->n_points);
    if (first->timed) {
        fputs(" from ", out);
        report_string(out, first->taken_at);
        fputs(" to ", out);
        report_string(out, last->taken_at);
        fprintf(out, " (%.2f hours)", last->seconds / 3600);
    }
    fprintf(out, "; Rss %s to %s\n", report_size(a, sizeof a, first->rss, opt->exact),
            report_size(b, sizeof b, last->rss, opt->exact));
    print_warnings(t, out);
}

static const char *rate(char *buf, size_t cap, bool known, double v, bool exact)
{
    const double most = 9e18;
    if (!known)
        return "";
    v = v > most ? most : v < -most ? -most : v;
    return report_size_diff(buf, cap, (int64_t)(v < 0 ? v - 0.5 : v + 0.5), exact);
}

static int width_of(const struct report_options *opt)
{
    return opt->exact ? 15 : 11;
}

static void print_table_head(const struct trend *t, const struct report_options *opt, FILE *out)
{
    size_t at[SERIES], n = pick(t, at);
    int w = width_of(opt);
    char number[24];
    fprintf(out, "\n%s  %*s %*s %12s %12s", report_bold(opt), w, "growth", w, "an hour", "more",
            "an hour");
    for (size_t i = 0; i < n; i++) {
        snprintf(number, sizeof number, "#%zu", at[i] + 1);
        fprintf(out, " %*s", w, number);
    }
    fprintf(out, "  %s%s\n", figure_key_name(t->key), report_plain(opt));
}

/* A star: its bytes never fell. */
static void print_row(const struct trend *t, const struct trend_row *r, bool counts,
                      const struct report_options *opt, FILE *out)
{
    char a[CELL], b[CELL], c[CELL], d[CELL];
    size_t at[SERIES], n = pick(t, at);
    int w = width_of(opt);
    int columns = fprintf(out, "%c %*s %*s %12s %12s", r->monotone ? '*' : ' ', w,
                          report_size_diff(a, sizeof a, r->bytes_diff, opt->exact), w,
                          rate(b, sizeof b, r->has_slope, r->bytes_slope, opt->exact),
                          counts ? report_count_diff(c, sizeof c, r->count_diff) : "",
                          counts ? rate(d, sizeof d, r->has_slope, r->count_slope, true) : "");
    for (size_t i = 0; i < n; i++)
        columns += fprintf(out, " %*s", w, report_size(a, sizeof a, r->bytes[at[i]], opt->exact));
    fputs("  ", out);
    report_fit(out, r->key, opt->width > columns + 12 ? opt->width - columns - 2 : 0);
    fputc('\n', out);
}

static bool changed(const struct trend *t, const struct trend_row *r)
{
    for (size_t i = 1; i < t->n_points; i++)
        if (r->bytes[i] != r->bytes[0] || r->count[i] != r->count[0])
            return true;
    return false;
}

static void print_rows(const struct trend *t, const struct report_options *opt, FILE *out)
{
    size_t most = report_rows(opt, t->n, USUAL_ROWS), shown = 0, more = 0, same = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (opt->top != 0 && !changed(t, &t->rows[i])) {
            same++;
        } else if (shown == most) {
            more++;
        } else {
            print_row(t, &t->rows[i], true, opt, out);
            shown++;
        }
    }
    if (more)
        fprintf(out, "%zu more that changed (--top 0 shows all)\n", more);
    if (same)
        fprintf(out, "%zu that did not change (--top 0 shows all)\n", same);
    print_row(t, &t->total, true, opt, out);
    print_row(t, &t->in_use, false, opt, out);
    print_row(t, &t->rss, false, opt, out);
    fputs("\n* never fell\n", out);
}

int report_trend(const struct trend *t, const struct report_options *opt, FILE *out,
                 struct err *err)
{
    print_head(t, opt, out);
    print_table_head(t, opt, out);
    print_rows(t, opt, out);
    if (opt->hint) {
        fputs("\nnext: heapcensus diff ", out);
        report_string(out, t->points[0].name);
        fputc(' ', out);
        report_string(out, t->points[t->n_points - 1].name);
        fputc('\n', out);
    }
    return report_done(out, err);
}
