#include "formats/report_sites.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/type_groups.h"

enum { CELL = 32, TYPE_MOST = 30 };

static const char type_title[] = "most bytes in";

/* ---- which rows ---- */

size_t report_sites_choose(struct site_stats *stats, uint64_t min_size, long top, size_t usual)
{
    size_t n = 0, limit = top < 0 ? usual : (size_t)top;
    struct site_row *small = min_size && stats->n ? malloc((stats->n + 1) * sizeof *small) : NULL;
    size_t n_small = 0;
    /* Without memory for it the small ones stay where they are: more is shown, nothing is lost. */
    for (size_t i = 0; small && i < stats->n; i++) {
        if (stats->rows[i].size >= min_size)
            stats->rows[n++] = stats->rows[i];
        else
            small[n_small++] = stats->rows[i];
    }
    if (small)
        memcpy(stats->rows + n, small, n_small * sizeof *small);
    else
        n = stats->n;
    free(small);
    return limit && limit < n ? limit : n;
}

struct rest {
    size_t n;
    uint64_t size, count;
};

static struct rest sum_from(const struct site_stats *s, size_t from)
{
    struct rest sum = {s->n - from, 0, 0};
    for (size_t i = from; i < s->n; i++) {
        sum.size = add_capped(sum.size, s->rows[i].size);
        sum.count = add_capped(sum.count, s->rows[i].count);
    }
    return sum;
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? (double)part * 100 / (double)whole : 0.0;
}

/* ---- is it on? ---- */

bool report_sites_traced(const struct snapshot *snap)
{
    return snap->tracing.present && (snap->tracing.tracing || snap->n_sites);
}

const char *report_sites_why_not(const struct snapshot *snap)
{
    if (!snap->python.present)
        return "there is no Python, so nobody recorded who allocated";
    if (snap->python.tracemalloc)
        return "tracemalloc is on, but its tables are not in this census";
    return "tracemalloc is off, so nobody recorded who allocated";
}

const char *report_sites_remedy(const struct snapshot *snap)
{
    if (!snap->python.present)
        return "heapcensus maps shows what the memory is instead";
    if (snap->python.tracemalloc)
        return "the notes say why; a snapshot of an older heapcensus has none: take a new one";
    return "to switch it on: PYTHONTRACEMALLOC=25, python3 -X tracemalloc=25, or "
           "tracemalloc.start(25) in the running program, say from a debug endpoint; what is "
           "allocated from then on is recorded";
}

static void print_state(const struct snapshot_tracing *t, FILE *out)
{
    report_string(out, t->source ? t->source : "tracemalloc");
    fprintf(out, ": %s, %" PRIu64 " frame%s", t->tracing ? "on" : "stopped", t->frames_limit,
            t->frames_limit == 1 ? "" : "s");
}

void report_tracing(const struct snapshot *snap, const struct report_options *opt, FILE *out)
{
    const struct snapshot_tracing *t = &snap->tracing;
    char a[CELL], b[CELL], c[CELL];
    uint64_t blocks = add_capped(t->covered_bytes, t->untraced_bytes);
    if (!report_sites_traced(snap))
        return;
    print_state(t, out);
    fprintf(out, ", %s traced in %s blocks (peak %s)",
            report_size(a, sizeof a, t->traced_bytes, opt->exact),
            report_count(b, sizeof b, t->traces),
            report_size(c, sizeof c, t->peak_bytes, opt->exact));
    if (blocks)
        fprintf(out, ", covers %.1f %% of the blocks' bytes", percent(t->covered_bytes, blocks));
    fprintf(out, ", its own tables %s\n", report_size(a, sizeof a, t->overhead_bytes, opt->exact));
    if (t->lost)
        fprintf(out, "%s of its records could not be read\n", report_count(a, sizeof a, t->lost));
}

/* ---- the table ---- */

static const char *const key_names[] = {
    [SITES_BY_FILE] = "file", [SITES_BY_LINE] = "line", [SITES_BY_TRACEBACK] = "traceback"};

static int size_width(const struct report_options *opt)
{
    return opt->exact ? 15 : 10;
}

/* How many columns a string takes as report_string prints it, near enough to arrange columns:
 * characters, and four for each byte that is escaped. */
static size_t columns(const char *s)
{
    size_t n = 0;
    for (; *s; s++)
        n += (unsigned char)*s < 0x20 || *s == 0x7f ? 4 : ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

/* The end of s that fits into `room` columns, from the beginning of a character. */
static const char *tail(const char *s, size_t room)
{
    size_t used = columns(s);
    while (used > room) {
        used -= (unsigned char)*s < 0x20 || *s == 0x7f ? 4 : 1;
        s++;
        while (((unsigned char)*s & 0xc0) == 0x80)
            s++;
    }
    return s;
}

static size_t share_text(const struct site_row *row, char *buf)
{
    return (size_t)snprintf(buf, CELL, " %.0f %%", percent(row->type_size, row->size));
}

/* As wide as the types of the rows that are shown, within bounds. */
static size_t type_width(const struct report_sites *r)
{
    char share[CELL];
    size_t most = sizeof type_title - 1;
    for (size_t i = 0; i < r->shown && most < TYPE_MOST; i++) {
        const struct site_row *row = &r->stats->rows[i];
        size_t need = row->type ? columns(row->type) + share_text(row, share) : 0;
        most = need > most ? need : most;
    }
    return most < TYPE_MOST ? most : TYPE_MOST;
}

static void print_head(const struct report_sites *r, const struct report_options *opt, size_t width,
                       FILE *out)
{
    int w = size_width(opt);
    fprintf(out, "%s%*s %12s %*s %6s %6s  %-*s  %s%s%s\n", report_bold(opt), w, "size", "count", w,
            "average", "%", r->cumulative ? "" : "cum. %", (int)width, type_title,
            key_names[r->key], r->key == SITES_BY_TRACEBACK ? ", most recent call first" : "",
            report_plain(opt));
}

static void print_figures(const struct report_sites *r, const struct report_options *opt,
                          uint64_t size, uint64_t count, uint64_t sum, FILE *out)
{
    char a[CELL], b[CELL], c[CELL], cum[CELL] = "";
    int w = size_width(opt);
    if (!r->cumulative) /* else rows overlap, and their sum says nothing */
        snprintf(cum, sizeof cum, "%.1f", percent(sum, r->stats->size));
    fprintf(out, "%*s %12s %*s %6.1f %6s  ", w, report_size(a, sizeof a, size, opt->exact),
            report_count(b, sizeof b, count), w,
            count ? report_size(c, sizeof c, size / count, opt->exact) : "",
            percent(size, r->stats->size), cum);
}

/* "app.Session 91 %", of which the end of the name is kept where it is long. */
static void print_type(const struct site_row *row, size_t width, FILE *out)
{
    char share[CELL] = "";
    const char *from = row->type ? row->type : "";
    size_t room = width - (row->type ? share_text(row, share) : 0), used = columns(from);
    if (used > room) {
        from = tail(from, room - 2);
        fputs("..", out);
        used = columns(from) + 2;
    }
    report_string(out, from);
    fprintf(out, "%s%*s  ", share, used < room ? (int)(room - used) : 0, "");
}

/* What stands behind the name of a frame's file. */
static size_t place_text(const struct site_row *row, const struct snapshot_frame *f, char *buf)
{
    bool by_file = row->of_file.file && row->of_file.line == 0;
    buf[0] = '\0';
    return by_file ? 0 : (size_t)snprintf(buf, CELL, ":%" PRIu32, f->line);
}

static size_t frame_columns(const struct site_row *row, const struct snapshot_frame *f)
{
    char place[CELL];
    return columns(f->file) + place_text(row, f, place) +
           (f->function ? columns(f->function) + strlen(" in ") : 0);
}

/* `from` is the name of the file, or the end of it. */
static void print_frame(const struct site_row *row, const struct snapshot_frame *f,
                        const char *from, FILE *out)
{
    char place[CELL];
    place_text(row, f, place);
    report_string(out, from);
    fputs(place, out);
    if (f->function) {
        fputs(" in ", out);
        report_string(out, f->function);
    }
}

/* As many frames as fit into `room` columns; of the first the end at least. */
static void print_frames(const struct report_sites *r, const struct site_row *row, size_t room,
                         FILE *out)
{
    enum { ARROW = 3, DOTS = 6 };
    const struct snapshot_frame *f = site_frame(row, 0);
    uint32_t most = r->text.limit && r->text.limit < row->n_frames ? r->text.limit : row->n_frames;
    uint32_t i = 1;
    size_t used = frame_columns(row, f), rest = used - columns(f->file);
    size_t keep = row->n_frames > 1 ? DOTS : 0;
    if (used + keep > room && room > rest + keep + 2) {
        fputs("..", out);
        print_frame(row, f, tail(f->file, room - rest - keep - 2), out);
        used = room - keep;
    } else {
        print_frame(row, f, f->file, out);
    }
    for (; i < most; i++) {
        f = site_frame(row, i);
        used += ARROW + frame_columns(row, f);
        if (used + (i + 1 < row->n_frames ? DOTS : 0) > room)
            break;
        fputs(" < ", out);
        print_frame(row, f, f->file, out);
    }
    if (i < row->n_frames || row->total_frames > row->n_frames)
        fputs(" < ...", out);
    fputc('\n', out);
}

/* The columns that are left for the last one; without a terminal nothing is cut. */
static size_t room_for_site(const struct report_options *opt, size_t type)
{
    enum { LEAST = 32 };
    size_t before = 2 * (size_t)size_width(opt) + 13 + 1 + 7 + 7 + 2 + type + 2;
    if (opt->width <= 0)
        return SIZE_MAX / 2;
    return (size_t)opt->width > before + LEAST ? (size_t)opt->width - before : LEAST;
}

static void print_rest(const struct report_sites *r, const struct report_options *opt, FILE *out)
{
    struct rest rest = sum_from(r->stats, r->shown);
    const char *s = rest.n == 1 ? "" : "s";
    if (!rest.n)
        return;
    if (r->cumulative) {
        fprintf(out, "and %zu other %s%s, which overlap (--top 0 shows all)\n", rest.n,
                key_names[r->key], s);
        return;
    }
    print_figures(r, opt, rest.size, rest.count, r->stats->size, out);
    fprintf(out, "%zu other %s%s (--top 0 shows all)\n", rest.n, key_names[r->key], s);
}

static void print_rows(const struct report_sites *r, const struct report_options *opt, FILE *out)
{
    size_t type = type_width(r), room = room_for_site(opt, type);
    uint64_t sum = 0;
    print_head(r, opt, type, out);
    for (size_t i = 0; i < r->shown; i++) {
        const struct site_row *row = &r->stats->rows[i];
        sum = add_capped(sum, row->size);
        print_figures(r, opt, row->size, row->count, sum, out);
        print_type(row, type, out);
        print_frames(r, row, room, out);
    }
    print_rest(r, opt, out);
}

static void print_line(const struct report_options *opt, uint64_t size, uint64_t count,
                       const char *words, FILE *out)
{
    char a[CELL], b[CELL];
    if (size || count)
        fprintf(out, "%*s %12s  %s\n", size_width(opt), report_size(a, sizeof a, size, opt->exact),
                report_count(b, sizeof b, count), words);
}

/* What is not in the table. */
static void print_foot(const struct report_sites *r, const struct report_options *opt, FILE *out)
{
    const struct snapshot_tracing *t = &r->snap->tracing;
    print_figures(r, opt, r->stats->size, r->stats->count, r->stats->size, out);
    fprintf(out, "total%s\n", r->filtered ? " that the filters let through" : "");
    if (r->stats->filtered_count || t->gone_traces || t->untraced_blocks)
        fputc('\n', out);
    print_line(opt, r->stats->filtered_size, r->stats->filtered_count, "left out by the filters",
               out);
    print_line(opt, t->gone_bytes, t->gone_traces,
               "of all: recorded, but no block in use begins there", out);
    print_line(opt, t->untraced_bytes, t->untraced_blocks,
               "besides, in use but not recorded: older, not Python's, or the interpreter's and "
               "tracemalloc's own",
               out);
}

/* Whole tracebacks after single lines; then what grows. */
static void print_next(const struct report_sites *r, const struct report_options *opt, FILE *out)
{
    bool process = opt->target[strspn(opt->target, "0123456789")] == '\0';
    fputs("\nnext: heapcensus ", out);
    if (r->key != SITES_BY_TRACEBACK && r->snap->tracing.frames_limit > 1)
        fprintf(out, "sites %s --by traceback --top 3 --format tracemalloc\n", opt->target);
    else if (process)
        fprintf(out, "snapshot %s -o OLD, later -o NEW, then heapcensus diff OLD NEW\n",
                opt->target);
    else
        fprintf(out, "diff %s NEWER\n", opt->target);
}

int report_text_sites(const struct report_sites *r, const struct report_options *opt, FILE *out,
                      struct err *err)
{
    report_header(r->snap, opt, out);
    if (report_sites_traced(r->snap)) {
        report_tracing(r->snap, opt, out);
        fputc('\n', out);
        print_rows(r, opt, out);
        print_foot(r, opt, out);
    } else {
        fprintf(out, "%s\n%s\n", report_sites_why_not(r->snap), report_sites_remedy(r->snap));
    }
    report_notes(r->snap, opt, out);
    if (opt->hint && report_sites_traced(r->snap))
        print_next(r, opt, out);
    else if (opt->hint)
        fprintf(out, "\nnext: heapcensus types %s\n", opt->target);
    return report_done(out, err);
}

/* ---- tracemalloc's own words ---- */

static double kib(uint64_t bytes)
{
    return (double)bytes / 1024;
}

/* The last lines of display_top(). */
static void print_others(const struct report_sites *r, FILE *out)
{
    struct rest rest = sum_from(r->stats, r->shown), all = sum_from(r->stats, 0);
    if (rest.n)
        fprintf(out, "%zu other: %.1f KiB\n", rest.n, kib(rest.size));
    fprintf(out, "Total allocated size: %.1f KiB\n", kib(all.size));
}

int report_tracemalloc_sites(const struct report_sites *r, FILE *out, struct err *err)
{
    for (size_t i = 0; i < r->shown; i++) {
        site_print_statistic(out, &r->stats->rows[i]);
        fputc('\n', out);
        if (r->key == SITES_BY_TRACEBACK)
            site_print_traceback(out, &r->stats->rows[i], &r->text);
    }
    if (r->shown < r->stats->n)
        print_others(r, out);
    return report_done(out, err);
}

static void print_top_row(const struct report_sites *r, size_t i, FILE *out)
{
    const struct site_row *row = &r->stats->rows[i];
    const struct snapshot_frame *f = site_frame(row, row->n_frames - 1);
    if (r->key == SITES_BY_TRACEBACK) {
        fprintf(out, "%" PRIu64 " memory blocks: %.1f KiB\n", row->count, kib(row->size));
        site_print_traceback(out, row, &r->text);
        return;
    }
    fprintf(out, "#%zu: ", i + 1);
    report_string(out, f->file);
    fprintf(out, ":%" PRIu32 ": %.1f KiB\n", f->line, kib(row->size));
    site_print_source(out, f, r->text.source);
}

int report_display_top(const struct report_sites *r, size_t asked, FILE *out, struct err *err)
{
    if (r->key != SITES_BY_TRACEBACK)
        fprintf(out, "Top %zu lines\n", asked);
    for (size_t i = 0; i < r->shown; i++)
        print_top_row(r, i, out);
    print_others(r, out);
    return report_done(out, err);
}
