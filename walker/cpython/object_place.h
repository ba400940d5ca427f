/* Where in its block an object starts. */
#ifndef HEAPCENSUS_CPYTHON_OBJECT_PLACE_H
#define HEAPCENSUS_CPYTHON_OBJECT_PLACE_H

#include "walker/cpython/objects.h"

/* What an address of an object has to be moved by for the layout's offsets: Py_TRACE_REFS puts two
 * links in front of what every other build has first. */
static inline uint64_t objects_shift(const struct objects *o)
{
    return o->py->trace_refs ? 16 : 0;
}

/* The debug hooks' bytes in a block whose first `len` bytes are at p. */
uint32_t object_front(const struct objects *o, const uint8_t *p, size_t len, bool chunk);
/* The object that fills a block, as kind_sizeof and kind_buffers take it. */
uint64_t object_in_block(struct objects *o, const struct block_place *place,
                         const struct type_info *t);

#endif
