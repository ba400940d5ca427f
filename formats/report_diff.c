/* Comparisons as text. */
#include <inttypes.h>
#include <string.h>

#include "formats/diff_report.h"
#include "formats/type_groups.h"

enum { CELL = 40, USUAL_ROWS = 25, USUAL_ALSO = 10 };

const char *report_size_diff(char *buf, size_t cap, int64_t diff, bool exact)
{
    char size[CELL];
    uint64_t amount = diff < 0 ? -(uint64_t)diff : (uint64_t)diff;
    snprintf(buf, cap, "%s%s",
             diff > 0   ? "+"
             : diff < 0 ? "-"
                        : "",
             report_size(size, sizeof size, amount, exact));
    return buf;
}

const char *report_count_diff(char *buf, size_t cap, int64_t diff)
{
    return report_size_diff(buf, cap, diff, true);
}

void report_fit(FILE *out, const char *s, int room)
{
    char cut[1024];
    size_t len = strlen(s), most = room > 8 ? (size_t)room - 3 : 5;
    if (room <= 0 || len <= (size_t)room || most >= sizeof cut) {
        report_string(out, s);
        return;
    }
    while (most && ((unsigned char)s[most] & 0xc0) == 0x80) /* not within a character */
        most--;
    memcpy(cut, s, most);
    cut[most] = '\0';
    report_string(out, cut);
    fputs("...", out);
}

static int room_behind(const struct report_options *opt, int columns)
{
    return opt->width > 0 ? (opt->width > columns + 8 ? opt->width - columns : 8) : 0;
}

/* ---- the head ---- */

static void print_span(double seconds, FILE *out)
{
    const char *when = seconds < 0 ? "earlier" : "later";
    seconds = seconds < 0 ? -seconds : seconds;
    if (seconds < 120)
        fprintf(out, ", %.0f s %s", seconds, when);
    else if (seconds < 7200)
        fprintf(out, ", %.1f minutes %s", seconds / 60, when);
    else if (seconds < 172800)
        fprintf(out, ", %.1f hours %s", seconds / 3600, when);
    else
        fprintf(out, ", %.1f days %s", seconds / 86400, when);
}

static void print_side(const char *which, const char *name, const struct snapshot *s,
                       const struct report_options *opt, FILE *out)
{
    char size[CELL];
    fprintf(out, "%s  ", which);
    report_string(out, s->taken_at ? s->taken_at : "(time unknown)");
    fprintf(out, "  Rss %s  ", report_size(size, sizeof size, s->memory.rss_bytes, opt->exact));
    report_string(out, name);
    if (s->source.comm) {
        fputs(": ", out);
        report_string(out, s->source.comm);
    }
    if (s->source.pid > 0)
        fprintf(out, " (pid %" PRId64 ")", s->source.pid);
}

static void print_head(const struct diff_report *r, const struct report_options *opt, FILE *out)
{
    double a, b;
    print_side("old", r->old_name, r->old_snap, opt, out);
    fputc('\n', out);
    print_side("new", r->new_name, r->new_snap, opt, out);
    if (diff_time(r->old_snap->taken_at, &a) && diff_time(r->new_snap->taken_at, &b))
        print_span(b - a, out);
    fputc('\n', out);
}

static void print_warnings(const struct diff_report *r, FILE *out)
{
    for (size_t i = 0; i < r->warnings->n; i++) {
        fputs("warning: ", out);
        report_string(out, r->warnings->items[i].why);
        fputc('\n', out);
    }
}

/* ---- the verdict ---- */

static void print_cause(const char *what, const struct diff_cause *c, bool fresh,
                        const struct report_options *opt, FILE *out)
{
    char size[CELL], count[CELL];
    int columns = fprintf(out, "  %-9s", what);
    if (!c->known || !c->grew) {
        if (!c->known)
            fprintf(out, "not known: %s\n", c->why ? c->why : "not looked at");
        else
            fprintf(out, "none %s\n", fresh ? "has new blocks" : "grew");
        return;
    }
    columns +=
        fprintf(out, " %12s %5.1f %%  ",
                report_size_diff(size, sizeof size, c->bytes_diff, opt->exact), c->share * 100);
    report_fit(out, c->key, room_behind(opt, columns + 20));
    if (c->count_diff)
        fprintf(out, " (%s)", report_count_diff(count, sizeof count, c->count_diff));
    if (c->module[0] && strncmp(c->module, c->key, strlen(c->module)) != 0 &&
        strcmp(c->module, "builtins") != 0) {
        fputs(" of ", out);
        report_string(out, c->module);
    }
    fputc('\n', out);
}

static void print_verdict(const struct diff_report *r, const struct report_options *opt, FILE *out)
{
    const struct diff_verdict *v = r->verdict;
    char rss[CELL], in_use[CELL];
    fprintf(out, "\n%s%s: Rss %s, blocks in use %s%s\n", report_bold(opt),
            v->growth ? "growth" : "no growth",
            report_size_diff(rss, sizeof rss, v->rss_diff, opt->exact),
            report_size_diff(in_use, sizeof in_use, v->in_use_diff, opt->exact), report_plain(opt));
    print_cause("category", &v->causes[DIFF_CATEGORY], false, opt, out);
    print_cause("type", &v->causes[DIFF_TYPE], false, opt, out);
    print_cause(r->identity ? "new from" : "site", &v->causes[DIFF_SITE], r->identity != NULL, opt,
                out);
}

/* ---- rows ---- */

static void print_table_head(const struct diff *d, const struct report_options *opt, FILE *out)
{
    const char *key = figure_key_name(d->key);
    int w = opt->exact ? 16 : 12;
    if (d->identity)
        fprintf(out, "\n%s%12s %*s %12s %*s %12s %*s %*s  %s%s\n", report_bold(opt), "new", w,
                "bytes", "gone", w, "bytes", "surviving", w, "bytes", w, "growth", key,
                report_plain(opt));
    else
        fprintf(out, "\n%s%*s %*s %12s %12s  %s%s\n", report_bold(opt), w, "growth", w,
                figure_key_bytes(d->key), "more", "count", key, report_plain(opt));
}

static int print_figures(const struct diff *d, const struct diff_row *r,
                         const struct report_options *opt, FILE *out)
{
    char a[CELL], b[CELL], c[CELL], e[CELL], f[CELL], g[CELL], h[CELL];
    int w = opt->exact ? 16 : 12;
    if (!d->identity)
        return fprintf(
            out, "%*s %*s %12s %12s  ", w, report_size_diff(a, sizeof a, r->bytes_diff, opt->exact),
            w, report_size(b, sizeof b, r->bytes, opt->exact),
            report_count_diff(c, sizeof c, r->count_diff), report_count(e, sizeof e, r->count));
    return fprintf(out, "%12s %*s %12s %*s %12s %*s %*s  ",
                   report_count(a, sizeof a, r->fresh.count), w,
                   report_size(b, sizeof b, r->fresh.bytes, opt->exact),
                   report_count(c, sizeof c, r->gone.count), w,
                   report_size(e, sizeof e, r->gone.bytes, opt->exact),
                   report_count(f, sizeof f, r->kept.count), w,
                   report_size(g, sizeof g, r->kept.bytes, opt->exact), w,
                   report_size_diff(h, sizeof h, r->bytes_diff, opt->exact));
}

static bool changed(const struct diff_row *r)
{
    return r->bytes_diff || r->count_diff || r->fresh.count || r->gone.count || r->fresh.bytes ||
           r->gone.bytes;
}

static void add_signed(int64_t *sum, int64_t more)
{
    if (__builtin_add_overflow(*sum, more, sum))
        *sum = more < 0 ? INT64_MIN + 1 : INT64_MAX;
}

static void add_sum(struct diff_sum *to, const struct diff_sum *more)
{
    to->count = add_capped(to->count, more->count);
    to->bytes = add_capped(to->bytes, more->bytes);
}

static void add_row(struct diff_row *to, const struct diff_row *r)
{
    to->count = add_capped(to->count, r->count);
    to->bytes = add_capped(to->bytes, r->bytes);
    add_signed(&to->count_diff, r->count_diff);
    add_signed(&to->bytes_diff, r->bytes_diff);
    add_sum(&to->fresh, &r->fresh);
    add_sum(&to->gone, &r->gone);
    add_sum(&to->kept, &r->kept);
}

static void print_rest(const struct diff *d, const struct diff_row *rest, size_t n,
                       const char *which, const struct report_options *opt, FILE *out)
{
    if (!n)
        return;
    print_figures(d, rest, opt, out);
    fprintf(out, "%zu more%s (--top 0 shows all)\n", n, which);
}

/* Rows that changed, as many as are asked for; the others in two lines. */
static void print_rows(const struct diff *d, size_t usual, const struct report_options *opt,
                       FILE *out)
{
    size_t most = report_rows(opt, d->n, usual), shown = 0, more = 0, same = 0;
    struct diff_row others = {.key = NULL}, unchanged = {.key = NULL};
    char buf[1024];
    print_table_head(d, opt, out);
    for (size_t i = 0; i < d->n; i++) {
        const struct diff_row *r = &d->rows[i];
        bool all = opt->top == 0;
        if (!changed(r) && !all) {
            same++;
            add_row(&unchanged, r);
        } else if (shown == most) {
            more++;
            add_row(&others, r);
        } else {
            int columns = print_figures(d, r, opt, out);
            report_fit(out, diff_key(d, r, buf, sizeof buf), room_behind(opt, columns));
            fputc('\n', out);
            shown++;
        }
    }
    print_rest(d, &others, more, " that changed", opt, out);
    print_rest(d, &unchanged, same, ", unchanged", opt, out);
    print_figures(d, &d->total, opt, out);
    fputs("total\n", out);
}

static void print_identity(const struct diff_identity *d, const struct report_options *opt,
                           FILE *out)
{
    char a[CELL], b[CELL], c[CELL], e[CELL], f[CELL], g[CELL];
    fprintf(out, "\nblocks: %s new (%s), %s gone (%s), %s still there (%s)\n",
            report_count(a, sizeof a, d->fresh.count),
            report_size(b, sizeof b, d->fresh.bytes, opt->exact),
            report_count(c, sizeof c, d->gone.count),
            report_size(e, sizeof e, d->gone.bytes, opt->exact),
            report_count(f, sizeof f, d->kept.count),
            report_size(g, sizeof g, d->kept.bytes, opt->exact));
    if (d->reused)
        fprintf(out,
                "%s of the new ones stand where one of the same type and size stood: their "
                "tracebacks tell\n",
                report_count(a, sizeof a, d->reused));
    fputs("A freed block whose place went to another of the same type and size counts as still "
          "there.\n",
          out);
}

/* ---- gates ---- */

void report_gate(const struct gate_result *g, bool exact, FILE *out)
{
    char a[CELL], b[CELL], c[CELL];
    bool count = g->gate->unit == GATE_COUNT;
    report_string(out, g->gate->text);
    fprintf(out, ": %s -> %s (%s)", report_size(a, sizeof a, g->old_value, exact || count),
            report_size(b, sizeof b, g->new_value, exact || count),
            report_size_diff(c, sizeof c, figure_diff(g->old_value, g->new_value), exact || count));
}

static void print_gates(const struct diff_report *r, const struct report_options *opt, FILE *out)
{
    char a[CELL], b[CELL];
    if (!r->n_gates)
        return;
    fprintf(out, "\n%sgates%s\n", report_bold(opt), report_plain(opt));
    for (size_t i = 0; i < r->n_gates; i++) {
        const struct gate_result *g = &r->gates[i];
        fprintf(out, "  %-8s", g->tripped ? "TRIPPED" : "passed");
        report_gate(g, opt->exact, out);
        fputc('\n', out);
        for (size_t k = 0; g->tripped && k < g->n_rows; k++) {
            fprintf(out, "            %12s %12s  ",
                    report_size_diff(a, sizeof a, g->rows[k].bytes_diff, opt->exact),
                    report_count_diff(b, sizeof b, g->rows[k].count_diff));
            report_fit(out, g->rows[k].key, room_behind(opt, 40));
            fputc('\n', out);
        }
    }
}

/* ---- all ---- */

/* A name as a shell takes it: quoted where it holds anything else than plain characters. */
static void print_word(FILE *out, const char *s)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "._-/+:,@%=";
    bool bare = s[0] && strspn(s, plain) == strlen(s);
    if (!bare)
        fputc('\'', out);
    report_string(out, s);
    if (!bare)
        fputc('\'', out);
}

static void print_hint(const struct diff_report *r, FILE *out)
{
    const char *what;
    if (r->verdict->causes[DIFF_SITE].known && !figure_key_is_site(r->by->key))
        what = "--by line ";
    else if (r->by->key == FIGURES_BY_LINE)
        what = "--by traceback ";
    else if (r->by->key == FIGURES_BY_TYPE)
        what = "--by category ";
    else
        what = "";
    fprintf(out, "\nnext: heapcensus diff %s", what);
    print_word(out, r->old_name);
    fputc(' ', out);
    print_word(out, r->new_name);
    fputc('\n', out);
}

int report_diff(const struct diff_report *r, const struct report_options *opt, FILE *out,
                struct err *err)
{
    print_head(r, opt, out);
    print_warnings(r, out);
    print_verdict(r, opt, out);
    if (r->identity)
        print_identity(r->identity, opt, out);
    print_rows(r->by, USUAL_ROWS, opt, out);
    if (r->also)
        print_rows(r->also, USUAL_ALSO, opt, out);
    print_gates(r, opt, out);
    if (opt->hint)
        print_hint(r, out);
    return report_done(out, err);
}

int report_diff_tracemalloc(const struct diff_report *r, const struct report_options *opt,
                            const struct site_text *how, FILE *out, struct err *err)
{
    size_t n = report_rows(opt, r->by->n, 0);
    for (size_t i = 0; i < n; i++) {
        const struct site_row *s = r->by->rows[i].site;
        site_print_diff(out, s);
        fputc('\n', out);
        if (r->by->key == FIGURES_BY_TRACEBACK)
            site_print_traceback(out, s, how);
    }
    return report_done(out, err);
}
