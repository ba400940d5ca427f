/* What to copy of a stopped process: its present private writable memory, less what a census can do
 * without. */
#ifndef HEAPCENSUS_PLAN_H
#define HEAPCENSUS_PLAN_H

#include "formats/base/err.h"
#include "inspector/modules.h"
#include "inspector/target/copy.h"
#include "inspector/target/maps.h"
#include "inspector/target/pages.h"
#include "walker/cpython/cpython.h"
#include "walker/mem.h"

struct plan_wish {
    bool contents; /* what a look at every block needs: the insides of pymalloc's pools, RELRO */
    const struct mem_region *relocated; /* RELRO mappings as they were, after plan_sort; borrowed */
    size_t n_relocated;
};

void plan_sort(struct mem_region *regions, size_t n);
/* All present memory that the walkers may read, as wished; found through `mem` (the live process)
 * from `py`, which an earlier look found; what may have changed since is read again. */
int plan_needed(const struct maps *maps, const struct pages *pages, struct mem *mem,
                struct cpython *py, const struct plan_wish *wish, struct copy_plan *ret,
                struct err *err) MUST_CHECK;
/* That earlier look. Fails as cpython_find does: what is no supported CPython is told here, before
 * anything is stopped or copied. */
int plan_look(const struct maps *maps, const struct pages *pages, const struct modules *modules,
              struct mem *mem, struct cpython *ret, struct err *err) MUST_CHECK;

#endif
