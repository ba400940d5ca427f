/* Two snapshots compared: what grew, by any key; where the growth goes, in three lines; which
 * blocks are new, gone and still there.
 */
#ifndef HEAPCENSUS_DIFF_H
#define HEAPCENSUS_DIFF_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/base/strpool.h"
#include "formats/block_stream.h"
#include "formats/figures.h"
#include "formats/sites.h"
#include "formats/snapshot.h"

/* ---- rows ---- */

struct diff_sum {
    uint64_t count, bytes;
};

struct diff_row {
    const char *key;             /* NULL where `site` is the key */
    const struct site_row *site; /* by file, line and traceback, unless by identity; else NULL */
    uint64_t count, bytes;       /* the new ones */
    int64_t count_diff, bytes_diff;
    struct diff_sum fresh, gone, kept; /* by identity, else 0: fresh are in NEW only */
};

struct diff {
    enum figure_key key;
    bool identity;
    struct diff_row *rows;
    size_t n, cap;
    struct diff_row total; /* of all rows, whatever a filter of rows left out */
    struct figures old_figures, new_figures;
    struct site_stats sites;
    struct strpool names;
};

struct diff_options {
    struct figure_options figures;
    uint64_t min_size; /* leave out rows with fewer bytes both times */
};

/* A row for each key of either snapshot, by growth: |bytes_diff| falling. ERR_USAGE (nothing of
 * that kind there; by arena of different processes), ERR_NOMEM. Rows borrow from the snapshots. */
int diff_make(const struct snapshot *old_snap, const struct snapshot *new_snap, enum figure_key key,
              const struct diff_options *opt, struct diff *ret, struct err *err) MUST_CHECK;
void diff_release(struct diff *d);
/* The text of a row's key: r->key, or made in buf. */
const char *diff_key(const struct diff *d, const struct diff_row *r, char *buf, size_t cap);

/* "growth" (NULL, too): |bytes_diff|; "count-growth": |count_diff|; "bytes", "count": the new ones;
 * "new", "gone": bytes of such blocks; "name". False: there is no such order. */
bool diff_sort(struct diff *d, const char *order, bool reverse);
/* The names that diff_sort takes, for messages. */
extern const char diff_orders[];

/* ---- by identity ---- */

struct diff_side {
    const struct snapshot *snap;
    struct block_stream *stream;
    const char *name; /* for messages */
};

struct diff_identity {
    struct diff by, also; /* `also`: by line of new blocks, or by type when `by` is of sites */
    bool has_also;
    struct diff_sum fresh, gone, kept; /* of all blocks */
    uint64_t reused; /* blocks that were told to be others by their site alone: the same address,
                        size and type */
};

/* Both streams are read to their ends, in step. A block is the same one when address, size, kind
 * and type are equal, and for an object its traceback, too, where both times it is known. `key` is
 * type, module, package, size, file, line or traceback; ERR_USAGE for others and where a snapshot
 * has no blocks. `*stop` (may be NULL) ends it with ERR_INTERRUPTED. On failure there is nothing to
 * release. Memory is that of the rows. */
int diff_identify(struct diff_side *old_side, struct diff_side *new_side, enum figure_key key,
                  uint64_t min_size, const volatile sig_atomic_t *stop, struct diff_identity *ret,
                  struct err *err) MUST_CHECK;
void diff_identity_release(struct diff_identity *d);

/* ---- may they be compared ---- */

enum diff_same { DIFF_SAME, DIFF_OTHER, DIFF_CANNOT_TELL };
enum { DIFF_WHY = 256, DIFF_WARNINGS = 24 };

/* Whether both are of one run of one process: host, PID, executable and what the kernel places
 * anew each time a program starts. `why` says what differs. */
enum diff_same diff_same_process(const struct snapshot *old_snap, const struct snapshot *new_snap,
                                 char *why, size_t cap);

struct diff_warning {
    const char *what; /* stable keyword, such as "diff.process" */
    char why[DIFF_WHY];
};

struct diff_warnings {
    struct diff_warning items[DIFF_WARNINGS];
    size_t n;
};

/* What makes a comparison less than it seems. */
void diff_warn(const struct snapshot *old_snap, const struct snapshot *new_snap,
               struct diff_warnings *ret);

/* Seconds since 1970 of "2026-11-21T08:23:05Z", with or without a fraction. False: it is none. */
bool diff_time(const char *iso, double *ret);

/* ---- where the growth goes ---- */

enum { DIFF_CATEGORY, DIFF_TYPE, DIFF_SITE, DIFF_CAUSES };

/* The key that grew most. */
struct diff_cause {
    bool known; /* both snapshots tell; else `why` says what is missing */
    bool grew;
    char key[DIFF_WHY * 4];
    char module[DIFF_WHY]; /* of a type; "" for none */
    int64_t count_diff, bytes_diff;
    double share; /* of all that grew by that key, 0 to 1 */
    const char *why;
};

struct diff_verdict {
    uint64_t old_rss, new_rss, old_in_use, new_in_use;
    int64_t rss_diff, in_use_diff;
    bool growth; /* more resident, or more in use */
    struct diff_cause causes[DIFF_CAUSES];
};

/* With tracing on, the interpreter's own blocks, which are tracemalloc's tables for the most part,
 * are no cause and in no share. */
int diff_judge(const struct snapshot *old_snap, const struct snapshot *new_snap,
               struct diff_verdict *ret, struct err *err) MUST_CHECK;
/* By identity the type and site are those of the new blocks. */
void diff_judge_identity(const struct diff_identity *d, struct diff_verdict *v);

#endif
