/* Statistics in tracemalloc's own words: what str() of its Statistic, StatisticDiff and Traceback
 * gives, and what the display_top() of its documentation prints. Names go out as report_string
 * prints them. */
#ifndef HEAPCENSUS_SITE_TEXT_H
#define HEAPCENSUS_SITE_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "formats/site_source.h"
#include "formats/sites.h"

/* tracemalloc._format_size: "11.5 MiB", "+0 B"; buf is returned. */
const char *site_format_size(char *buf, size_t cap, double size, bool sign);
/* str(Statistic): "app.py:12: size=11.5 MiB, count=10000, average=1205 B"; no line end. A traceback
 * stands there with its oldest frame, as in tracemalloc. */
void site_print_statistic(FILE *out, const struct site_row *r);
/* str(StatisticDiff): "app.py:12: size=11.5 MiB (+11.5 MiB), count=10000 (+10000), ..." */
void site_print_diff(FILE *out, const struct site_row *r);

struct site_text {
    uint32_t limit;         /* the most recent frames of a traceback; 0: all */
    bool most_recent_first; /* else the oldest */
    struct site_source *source;
};

/* "\n".join(Traceback.format(limit, most_recent_first)), with a line end behind each. */
void site_print_traceback(FILE *out, const struct site_row *r, const struct site_text *how);

/* The frame's stripped line of source with four blanks before it, where it can be found. `source`
 * may be NULL. */
void site_print_source(FILE *out, const struct snapshot_frame *f, struct site_source *source);

#endif
