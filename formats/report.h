/* The table of outputs for people and programs, all fed from the snapshot model. */
#ifndef HEAPCENSUS_REPORT_H
#define HEAPCENSUS_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "formats/base/err.h"
#include "formats/snapshot.h"

struct report_options {
    const char *target; /* as the user typed it, for the hint at the end */
    bool exact;         /* bytes instead of KiB, MiB, GiB */
    bool hint;          /* end with the next useful command */
    bool colour;
    int width;        /* columns of the terminal; 0: not a terminal, never cut */
    long top;         /* rows of a list; 0 = all, -1 = the view's default */
    const char *sort; /* a column's name, or NULL for the view's own order */
    const char *by;   /* `types`: group by type, module, package or size; NULL: by type as text, not
                         at all as JSON */
    bool reverse;
};

struct report_view {
    const char *name;
    const char *summary;
    const char *sorts; /* names that --sort takes, for messages; "" if none */
    int (*write)(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                 struct err *err);
};

/* The views as text, ended by a row without a name. */
extern const struct report_view report_text_views[];
const struct report_view *report_text_find(const char *name);

/* report_text.c, report_lists.c, report_types.c: shared by the text views. */
/* What makes text bold and plain again; "" without colour. */
const char *report_bold(const struct report_options *opt);
const char *report_plain(const struct report_options *opt);
/* Rows to print of n, after --top; `usual` is the view's default for a terminal's worth, 0 = all.
 */
size_t report_rows(const struct report_options *opt, size_t n, size_t usual);
/* "12.3 MiB", or "12,345" when exact; buf is returned. */
const char *report_size(char *buf, size_t cap, uint64_t bytes, bool exact);
/* "1,234,567" */
const char *report_count(char *buf, size_t cap, uint64_t n);
/* Print a string from the target so that no control character or invalid byte reaches the terminal.
 * NULL, as in a file that leaves a name out, is "?". */
void report_string(FILE *out, const char *s);
void report_header(const struct snapshot *snap, const struct report_options *opt, FILE *out);
void report_notes(const struct snapshot *snap, const struct report_options *opt, FILE *out);
/* ERR_OS when the stream has failed (disk full, closed pipe). */
int report_done(FILE *out, struct err *err);

/* Of the summary: what the blocks in use are, the largest types, the collector. */
int report_summary_objects(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                           struct err *err) MUST_CHECK;

/* Put the lists of a snapshot into the order, and cut them to the length, that the options ask for,
 * as the text views do: for JSON. With `by` the snapshot's types become the groups. Without options
 * nothing changes. ERR_NOMEM, ERR_USAGE (`by`, see type_groups.h). */
int report_arrange(struct snapshot *snap, const char *view, const struct report_options *opt,
                   struct err *err) MUST_CHECK;

int report_arrange_types(struct snapshot *snap, const struct report_options *opt,
                         struct err *err) MUST_CHECK;

int report_text_types(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                      struct err *err);
int report_text_sizes(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                      struct err *err);
int report_text_arenas(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                       struct err *err);
int report_text_malloc(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                       struct err *err);
int report_text_maps(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                     struct err *err);

#endif
