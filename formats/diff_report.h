/* Comparisons and trends as text and as JSON. */
#ifndef HEAPCENSUS_DIFF_REPORT_H
#define HEAPCENSUS_DIFF_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "formats/base/err.h"
#include "formats/diff.h"
#include "formats/gate.h"
#include "formats/report.h"
#include "formats/sink.h"
#include "formats/site_text.h"
#include "formats/trend.h"

struct diff_report {
    const struct snapshot *old_snap, *new_snap;
    const char *old_name, *new_name;      /* as the user typed them */
    const struct diff *by, *also;         /* `also`: by identity, or NULL */
    const struct diff_identity *identity; /* NULL: by key */
    const struct diff_warnings *warnings;
    const struct diff_verdict *verdict;
    const struct gate_result *gates;
    size_t n_gates;
};

/* As text. ERR_OS. */
int report_diff(const struct diff_report *r, const struct report_options *opt, FILE *out,
                struct err *err) MUST_CHECK;
/* The rows alone, in tracemalloc's own words; of sites. */
int report_diff_tracemalloc(const struct diff_report *r, const struct report_options *opt,
                            const struct site_text *how, FILE *out, struct err *err) MUST_CHECK;
/* One JSON document with at most `top` rows; 0 or less: all. */
int json_write_diff(const struct diff_report *r, long top, struct sink *out,
                    struct err *err) MUST_CHECK;
/* One line for a gate that tripped: "type:app.Session>+1000: 10 -> 2,010 (+2,000)"; no line end. */
void report_gate(const struct gate_result *g, bool exact, FILE *out);

int report_trend(const struct trend *t, const struct report_options *opt, FILE *out,
                 struct err *err) MUST_CHECK;
int json_write_trend(const struct trend *t, long top, struct sink *out, struct err *err) MUST_CHECK;

/* "+1.5 MiB", "-12 B", "0 B"; with `exact` "+1,572,864". buf is returned. */
const char *report_size_diff(char *buf, size_t cap, int64_t diff, bool exact);
/* "+1,234" */
const char *report_count_diff(char *buf, size_t cap, int64_t diff);
/* As report_string, but in at most `room` columns, with "..." at the end; 0: no bound. */
void report_fit(FILE *out, const char *s, int room);

#endif
