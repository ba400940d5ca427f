/* How full pymalloc's arenas are. An arena goes back to the system only when it is empty, so a few
 * blocks in each of many arenas hold a lot of memory. */
#ifndef HEAPCENSUS_UTILISATION_H
#define HEAPCENSUS_UTILISATION_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/snapshot.h"

enum { UTILISATION_BUCKETS = 10, UTILISATION_SPARSE_PERCENT = 25 };

/* Arenas whose used bytes are from_percent <= p < to_percent of their size; the last bucket takes
 * 100 % as well. Sizes in bytes. */
struct utilisation_bucket {
    unsigned from_percent, to_percent;
    uint64_t arenas, bytes_used, size;
};

struct utilisation {
    struct utilisation_bucket buckets[UTILISATION_BUCKETS];
    uint64_t sparse_arenas;     /* used at most UTILISATION_SPARSE_PERCENT */
    uint64_t reclaimable_bytes; /* their sizes: what would go back if they emptied */
};

/* An arena of size 0 counts nowhere. */
void utilisation_of(const struct snapshot *snap, struct utilisation *ret);
bool utilisation_is_sparse(const struct snapshot_arena *a);

#endif
