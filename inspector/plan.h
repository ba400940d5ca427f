/* What to copy of a stopped process: its present private writable memory, less what a census can do
 * without. */
#ifndef HEAPCENSUS_PLAN_H
#define HEAPCENSUS_PLAN_H

#include "formats/base/err.h"
#include "inspector/modules.h"
#include "inspector/target/copy.h"
#include "inspector/target/maps.h"
#include "inspector/target/pages.h"
#include "walker/mem.h"

/* Everything that the walkers may read. */
int plan_all(const struct maps *maps, const struct pages *pages, struct copy_plan *ret,
             struct err *err) MUST_CHECK;
/* The same without the insides of pymalloc's pools, found through `mem` (the live process). Fails
 * as cpython_find does: a process that is no supported CPython is told here, before anything is
 * copied. */
int plan_needed(const struct maps *maps, const struct pages *pages, const struct modules *modules,
                struct mem *mem, struct copy_plan *ret, struct err *err) MUST_CHECK;

#endif
