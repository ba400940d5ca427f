/* Two memories as one: what `top` lacks is read from `below`. For a copy or a process whose
 * constants, which are not copied or not present, lie in files. */
#ifndef HEAPCENSUS_OVERLAY_H
#define HEAPCENSUS_OVERLAY_H

#include "formats/base/err.h"
#include "walker/mem.h"

/* Both are borrowed. regions and direct are those of top: searches look at what the process has of
 * its own. Traits are top's. */
int overlay_new(struct mem *top, struct mem *below, struct mem **ret, struct err *err) MUST_CHECK;

#endif
