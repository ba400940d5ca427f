#define _GNU_SOURCE 1 /* strsep */
#include "formats/site_text.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/report.h"

enum { CELL = 48 };

const char *site_format_size(char *buf, size_t cap, double size, bool sign)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    enum { LAST = sizeof units / sizeof *units - 1 };
    for (int i = 0;; i++, size /= 1024) {
        double much = size < 0 ? -size : size;
        int digits = much < 100 && i > 0 ? 1 : 0;
        if (digits || much < 10 * 1024 || i == LAST) {
            snprintf(buf, cap, sign ? "%+.*f %s" : "%.*f %s", digits, size, units[i]);
            return buf;
        }
    }
}

static void print_place(FILE *out, const struct site_row *r)
{
    const struct snapshot_frame *oldest = site_frame(r, r->n_frames - 1);
    report_string(out, oldest->file);
    fprintf(out, ":%" PRIu32, oldest->line);
}

static void print_average(FILE *out, const struct site_row *r)
{
    char a[CELL];
    if (r->count)
        fprintf(out, ", average=%s",
                site_format_size(a, sizeof a, (double)r->size / (double)r->count, false));
}

void site_print_statistic(FILE *out, const struct site_row *r)
{
    char a[CELL];
    print_place(out, r);
    fprintf(out, ": size=%s, count=%" PRIu64, site_format_size(a, sizeof a, (double)r->size, false),
            r->count);
    print_average(out, r);
}

void site_print_diff(FILE *out, const struct site_row *r)
{
    char a[CELL], b[CELL];
    print_place(out, r);
    fprintf(out, ": size=%s (%s), count=%" PRIu64 " (%+" PRId64 ")",
            site_format_size(a, sizeof a, (double)r->size, false),
            site_format_size(b, sizeof b, (double)r->size_diff, true), r->count, r->count_diff);
    print_average(out, r);
}

/* A tab is no danger to a terminal, and source is full of them. */
static void print_line(FILE *out, char *line)
{
    fputs("    ", out);
    for (char *part; (part = strsep(&line, "\t")) != NULL;) {
        report_string(out, part);
        if (line)
            fputc('\t', out);
    }
    fputc('\n', out);
}

void site_print_source(FILE *out, const struct snapshot_frame *f, struct site_source *source)
{
    size_t len = 0;
    const char *text = source ? site_source_line(source, f->file, f->line, &len) : "";
    char *line = len ? strndup(text, len) : NULL;
    if (line)
        print_line(out, line);
    free(line);
}

void site_print_traceback(FILE *out, const struct site_row *r, const struct site_text *how)
{
    uint32_t n = how->limit && how->limit < r->n_frames ? how->limit : r->n_frames;
    for (uint32_t i = 0; i < n; i++) {
        const struct snapshot_frame *f = site_frame(r, how->most_recent_first ? i : n - 1 - i);
        fputs("  File \"", out);
        report_string(out, f->file);
        fprintf(out, "\", line %" PRIu32 "\n", f->line);
        site_print_source(out, f, how->source);
    }
}
