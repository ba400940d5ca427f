/* Statistics of who allocated what, with the semantics of Python's tracemalloc module: keys,
 * filters, sums and order are those of Snapshot.statistics(), compare_to() and filter_traces().
 *
 * Everything is offline, from a snapshot's tracebacks and sites. Rows borrow from the snapshots.
 */
#ifndef HEAPCENSUS_SITES_H
#define HEAPCENSUS_SITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/snapshot.h"

enum site_key { SITES_BY_FILE, SITES_BY_LINE, SITES_BY_TRACEBACK };

/* One filter: tracemalloc.Filter or DomainFilter. */
struct site_filter {
    bool inclusive;
    const char *pattern; /* fnmatch of the file, ".pyc" taken as ".py"; NULL: a domain filter */
    uint32_t line;       /* 0: any */
    bool all_frames;     /* any frame of the traceback, else the most recent one */
    uint32_t domain;     /* Filter(domain=) or DomainFilter */
    bool has_domain;
};

/* Which traces count: those that pass all exclusive filters, and one inclusive filter at least if
 * there are any, as in tracemalloc; and whose type's name matches, if that is asked for. */
struct site_filters {
    struct site_filter *items;
    size_t n;
    const char *type_regex; /* POSIX extended, anywhere in the name; NULL: any, also none */
};

/* One row. `frames` (most recent first): one frame when by file (line 0) or line; none where a
 * traceback of a file has none. */
struct site_row {
    const struct snapshot *snap; /* whose frames those are */
    const uint32_t *frames;      /* indices of its frames: read them with site_frame() */
    uint32_t n_frames, total_frames;
    struct snapshot_frame of_file; /* by file: its one frame, without a line; else .file is NULL */
    uint64_t size, count;
    int64_t size_diff, count_diff; /* of a comparison, else 0 */
    const char *type;              /* of the most bytes in this row; NULL: of none, or not known */
    uint64_t type_size;
};

struct site_stats {
    struct site_row *rows; /* largest first, as tracemalloc sorts them */
    size_t n, cap;
    uint64_t size, count; /* of all rows; with `cumulative` rows overlap and this is still once */
    uint64_t filtered_size, filtered_count; /* what the filters left out */
};

/* Snapshot.filter_traces(filters).statistics(key, cumulative). `filters` may be NULL. ERR_USAGE
 * (cumulative by traceback, a bad regular expression), ERR_NOMEM. */
int site_stats_make(const struct snapshot *snap, enum site_key key, bool cumulative,
                    const struct site_filters *filters, struct site_stats *ret,
                    struct err *err) MUST_CHECK;
/* new.compare_to(old, key, cumulative) with both filtered: a row for each key of either; size and
 * count are the new ones. Sorted by |size_diff|, size, |count_diff|, count, then the frames, all
 * falling, as tracemalloc does. */
int site_stats_compare(const struct snapshot *old_snap, const struct snapshot *new_snap,
                       enum site_key key, bool cumulative, const struct site_filters *filters,
                       struct site_stats *ret, struct err *err) MUST_CHECK;
/* The error of grouping by traceback with `cumulative`, for who wants to give it before reading. */
int site_cumulative_traceback(struct err *err);
void site_stats_release(struct site_stats *s);

/* Another order: by "size" (also NULL) or "count", largest first; ties as tracemalloc has them. Of
 * rows that are in tracemalloc's order. ERR_NOMEM. */
int site_stats_sort(struct site_stats *s, const char *sort, bool reverse,
                    struct err *err) MUST_CHECK;

/* The i-th frame of a row, 0 being the most recent. */
const struct snapshot_frame *site_frame(const struct site_row *r, uint32_t i);

#endif
