/* Growable arrays: the caller keeps { T *items; size_t n, cap; } and asks for room. */
#ifndef HEAPCENSUS_VEC_H
#define HEAPCENSUS_VEC_H

#include <stddef.h>

#include "formats/base/err.h"

/* Make room for `need` elements of `elem` bytes in *items (a T **, passed as void *), doubling
 * *cap. On failure returns ERR_NOMEM and leaves both as they were. */
int vec_reserve(void *items, size_t *cap, size_t need, size_t elem) MUST_CHECK;

#endif
