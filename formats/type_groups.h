/* Types put together: what the view `types` and the summary show, one row a group. A row is a
 * snapshot_type whose figures are the sums of its members'; its address is the type's where equal
 * names have one type, else 0. */
#ifndef HEAPCENSUS_TYPE_GROUPS_H
#define HEAPCENSUS_TYPE_GROUPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/base/strpool.h"
#include "formats/snapshot.h"

/* Sums of figures that a file claims: they stop at 2^64 - 1. */
static inline uint64_t add_capped(uint64_t a, uint64_t b)
{
    uint64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static inline uint64_t sub_capped(uint64_t a, uint64_t b)
{
    return a > b ? a - b : 0;
}

static inline uint64_t type_total(const struct snapshot_type *t)
{
    return add_capped(t->bytes, t->buffer_bytes);
}

struct type_groups {
    struct snapshot_type *rows;
    size_t n, cap;
    struct strpool names; /* of the rows, unless they are the snapshot's */
};

/* "type", "module", "package" or "size". */
bool type_groups_can(const char *by);
/* The types of a snapshot by
 *   NULL       nothing: one row a type, also where names are equal
 *   "type"     equal names
 *   "module"   equal modules
 *   "package"  equal first components of the module's name
 *   "size"     the size of the block, from the snapshot's blocks; above 512 bytes powers of two
 * ERR_USAGE for another `by`, or for "size" when the snapshot has no blocks; ERR_NOMEM. On failure
 * there is nothing to release. Names live as long as both the groups and the snapshot. */
int type_groups_make(struct type_groups *g, const struct snapshot *snap, const char *by,
                     struct err *err) MUST_CHECK;
/* By "total" (also NULL), "count", "bytes", "buffers", largest first, or by "name", A first. */
void type_groups_sort(struct type_groups *g, const char *sort, bool reverse);
void type_groups_release(struct type_groups *g);

/* The top types of the sparse arenas (utilisation.h): a row each, count = arenas, bytes = the bytes
 * that it holds in them, largest first. ERR_NOMEM. */
int type_groups_sparse(struct type_groups *g, const struct snapshot *snap,
                       struct err *err) MUST_CHECK;

#endif
