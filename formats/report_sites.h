/* The view `sites` as text: our table, and tracemalloc's own words. */
#ifndef HEAPCENSUS_REPORT_SITES_H
#define HEAPCENSUS_REPORT_SITES_H

#include <stdbool.h>
#include <stdio.h>

#include "formats/base/err.h"
#include "formats/report.h"
#include "formats/site_text.h"
#include "formats/sites.h"
#include "formats/snapshot.h"

struct report_sites {
    const struct snapshot *snap;
    const struct site_stats *stats;
    size_t shown; /* of its rows, the first */
    enum site_key key;
    bool cumulative;
    bool filtered;         /* filters were asked for */
    struct site_text text; /* how tracebacks are printed */
};

/* Bring the rows of at least min_size bytes to the front, in their order, and say how many of them
 * to show: `top` (0: all, less than 0: `usual`). */
size_t report_sites_choose(struct site_stats *stats, uint64_t min_size, long top, size_t usual);

/* There is something to say of sites: tables were found, and are not empty or still being filled.
 */
bool report_sites_traced(const struct snapshot *snap);
/* Why there is nothing, and what to do: one line each. */
const char *report_sites_why_not(const struct snapshot *snap);
const char *report_sites_remedy(const struct snapshot *snap);

/* "tracemalloc: on, 25 frames, 212.4 MiB traced ...": a line for the summary and for the table. */
void report_tracing(const struct snapshot *snap, const struct report_options *opt, FILE *out);

int report_text_sites(const struct report_sites *r, const struct report_options *opt, FILE *out,
                      struct err *err);
/* str() of each statistic, with --by traceback and the traceback's lines; where rows are left out,
 * then the two lines of sums that display_top() has. */
int report_tracemalloc_sites(const struct report_sites *r, FILE *out, struct err *err);
/* What display_top() of tracemalloc's documentation prints; `asked` is its limit. */
int report_display_top(const struct report_sites *r, size_t asked, FILE *out, struct err *err);

#endif
