/* The ledger: every mapped byte has exactly one owner or is "unknown".
 *
 * Walkers claim address ranges ("extents") and say how the bytes of each split into categories; one
 * extent stands for a whole arena or heap, not for a block, so that the ledger stays small whatever
 * the heap's size. blockmap_settle gives what nobody claimed to its mapping's own category and
 * makes the sums equal the kernel's figures.
 */
#ifndef HEAPCENSUS_BLOCKMAP_H
#define HEAPCENSUS_BLOCKMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/snapshot.h"
#include "walker/note.h"
#include "walker/vma.h"

struct extent {
    uint64_t start, end;
    const char *what;  /* literal: "pymalloc arena", "malloc heap", ... */
    uint64_t resident; /* present bytes of it, filled by blockmap_claim */
    struct tally tally;
};

struct blockmap {
    struct extent **items; /* sorted by address, disjoint */
    size_t n, cap;
    const struct residency *res; /* borrowed */
};

void blockmap_init(struct blockmap *map, const struct residency *res);
void blockmap_release(struct blockmap *map);

/* Claim [start, end). `tally` (copied) splits it: its bytes must sum to end - start and its
 * resident bytes to residency_bytes(start, end); what is missing is put on "unknown", an excess is
 * ERR_CORRUPT. ERR_CORRUPT as well, with nothing claimed, if the range overlaps an extent. */
int blockmap_claim(struct blockmap *map, uint64_t start, uint64_t end, const struct tally *tally,
                   const char *what, struct err *err) MUST_CHECK;
/* Claim [start, end) whole for one category, counting `count` things. */
int blockmap_claim_one(struct blockmap *map, uint64_t start, uint64_t end, enum category cat,
                       uint64_t count, const char *what, struct err *err) MUST_CHECK;

/* The extent that holds addr, or NULL. */
const struct extent *blockmap_at(const struct blockmap *map, uint64_t addr);
/* The first gap (no owner) in [from, end): true and *lo, *hi, or false. */
bool blockmap_gap(const struct blockmap *map, uint64_t from, uint64_t end, uint64_t *lo,
                  uint64_t *hi);
/* Some byte of [start, end) is claimed. */
bool blockmap_overlaps(const struct blockmap *map, uint64_t start, uint64_t end);

/* What the unclaimed bytes of a mapping are. Called for each gap of each mapping. */
typedef enum category (*blockmap_default_fn)(void *ctx, const struct vma *v, uint64_t lo,
                                             uint64_t hi);

/* Fill snap->mappings and snap->memory from the extents and the mappings. An extent may cross
 * mappings: its tally is split between them by bytes. Where a mapping's present pages and the
 * kernel's Rss differ (special mappings, huge zero pages, a target that ran), the mapping's
 * categories are scaled to Rss and a note says so, so that the sums always hold. */
int blockmap_settle(const struct blockmap *map, const struct vma_list *vmas,
                    blockmap_default_fn fallback, void *ctx, struct snapshot *snap,
                    struct notes *notes, struct err *err) MUST_CHECK;

#endif
