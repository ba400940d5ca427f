/* A core's memory as a struct mem, and which pages of it hold data.
 *
 * Read by pread in windows, never mapped or read in whole: a core may be larger than memory, and
 * one that is cut while we read must not kill us (SIGBUS). Holes of the file read as zeros, as the
 * pages of the process did. Bytes that the core lacks are holes of the struct mem, unless
 * core_mem_add brought the file that was mapped there. */
#ifndef HEAPCENSUS_CORE_MEM_H
#define HEAPCENSUS_CORE_MEM_H

#include <signal.h>

#include "formats/base/err.h"
#include "inspector/target/core.h"
#include "walker/mem.h"
#include "walker/vma.h"

struct core_pages {
    struct page_run *runs; /* pages of segments with data in them: sorted, disjoint, merged */
    size_t n, cap;
    uint64_t bytes;
    bool
        by_holes; /* the file has holes; else each page was looked at for a byte that is not zero */
    bool counted; /* false: neither; all that was dumped counts */
};
void core_pages_init(struct core_pages *pages);
void core_pages_release(struct core_pages *pages);
/* Pages with data: those that the file has no hole for and, if `look`, which are not all zeros
 * where it has no holes at all (reads the whole core once). Notes of heapcensus core win over both.
 */
int core_pages_find(struct core_pages *ret, const struct core *core, bool look,
                    const volatile sig_atomic_t *interrupted, struct err *err) MUST_CHECK;

/* FROZEN and SPARSE. core is borrowed and must outlive it. regions: runs with data only, so that
 * searches skip what was never touched; readv: all that was dumped. */
int core_mem_new(const struct core *core, const struct core_pages *pages, struct mem **ret,
                 struct err *err) MUST_CHECK;
/* From now on [start, end) reads as `fd` (duplicated, once for each file) from `offset` on where
 * the core has nothing and nothing was added before; cut to the file's size. The regions handed out
 * before are no longer valid. ERR_USAGE (an empty range), ERR_FORMAT (no regular file), ERR_OS
 * (too many open files), ERR_NOMEM. */
int core_mem_add(struct mem *mem, uint64_t start, uint64_t end, int fd, uint64_t offset,
                 struct err *err) MUST_CHECK;

#endif
