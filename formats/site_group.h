/* The sites of one snapshot, filtered and summed by key: a step of site_stats_make(). */
#ifndef HEAPCENSUS_SITE_GROUP_H
#define HEAPCENSUS_SITE_GROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/site_keys.h"
#include "formats/sites.h"

/* The file that tracemalloc gives to what has no traceback. */
#define SITE_UNKNOWN "<unknown>"

struct site_sum {
    uint64_t size, count;
    bool used;              /* there is a trace of this key */
    const uint32_t *frames; /* most recent first; NULL: a traceback without frames */
    uint32_t n_frames, total_frames;
    const char *type;
    uint64_t type_size;
};

struct site_group {
    const struct snapshot *snap;
    enum site_key key;
    bool cumulative;
    uint32_t *lines;       /* of each frame: the number of its line */
    uint32_t *keys;        /* of each traceback: its key, unless cumulative */
    uint8_t *pass;         /* of each site: the filters let it through */
    struct site_sum *sums; /* by the number of the key */
    size_t n_sums, cap_sums;
    uint64_t size, count, filtered_size, filtered_count;
};

/* ERR_FORMAT: a site without a traceback, a traceback without frames that are there; ERR_USAGE,
 * ERR_NOMEM. The group must be zeroed before and released in any case, after `keys` is done with.
 */
int site_group_make(struct site_group *g, const struct snapshot *snap, enum site_key key,
                    bool cumulative, const struct site_filters *filters, struct site_keys *keys,
                    struct err *err) MUST_CHECK;
void site_group_release(struct site_group *g);

/* How many keys a traceback adds to, and which: one, or with `cumulative` one for each frame. */
uint32_t site_group_keys(const struct site_group *g, size_t traceback);
uint32_t site_group_key(const struct site_group *g, const struct site_keys *keys, size_t traceback,
                        uint32_t i);

/* The type of the most bytes of each sum. ERR_NOMEM. */
int site_group_types(struct site_group *g, const struct site_keys *keys,
                     struct err *err) MUST_CHECK;

#endif
