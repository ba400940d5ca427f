/* Three or more snapshots: bytes and counts of each key over time, and what keeps growing.
 *
 *     trend_init(&t, key);
 *     trend_add(&t, &snap, name, &opt, err) for each; the snapshot may go
 *     trend_settle(&t, err)
 *     ... t.rows ...
 *     trend_release(&t);
 */
#ifndef HEAPCENSUS_TREND_H
#define HEAPCENSUS_TREND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/figures.h"

enum { TREND_MIN = 3, TREND_MAX = 1000 };

struct trend_point {
    const char *name;     /* of the snapshot, as the user typed it */
    const char *taken_at; /* "" when unknown */
    bool timed;           /* `seconds` is known */
    double seconds;       /* since the first one */
    int64_t pid;
    const char *host; /* "" when unknown */
    bool complete;
    uint64_t rss, in_use;
    struct figures figures;
};

struct trend_row {
    const char *key;
    const uint64_t *count, *bytes;   /* a number for each point */
    int64_t count_diff, bytes_diff;  /* last - first */
    bool monotone;                   /* its bytes never fell, and rose at least once */
    bool has_slope;                  /* times are known, and not all the same */
    double count_slope, bytes_slope; /* per hour, by least squares */
};

struct trend {
    enum figure_key key;
    struct trend_point *points; /* by time where all are timed, else as they came */
    size_t n_points, cap_points;
    bool reordered;         /* the order of time is another than that in which they came */
    bool other_process;     /* not all are of one PID and host */
    struct trend_row *rows; /* monotone growers first, then by bytes_diff falling */
    size_t n, cap;
    struct trend_row rss, in_use, total;
    uint64_t *values; /* of all rows */
    struct strpool names;
};

void trend_init(struct trend *t, enum figure_key key);
void trend_release(struct trend *t);
/* Errors as figures_make's; ERR_USAGE for more than TREND_MAX. */
int trend_add(struct trend *t, const struct snapshot *snap, const char *name,
              const struct figure_options *opt, struct err *err) MUST_CHECK;
/* After the last one: the rows. Rows with fewer bytes than min_size at every point are left out.
 * ERR_USAGE for fewer than TREND_MIN, ERR_NOMEM. */
int trend_settle(struct trend *t, uint64_t min_size, struct err *err) MUST_CHECK;
/* "growth" (NULL, too): as above; "slope": bytes per hour; "bytes", "count": the last ones; "name".
 * False: there is no such order. */
bool trend_sort(struct trend *t, const char *order, bool reverse);
extern const char trend_orders[];

#endif
