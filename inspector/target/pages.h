/* Which pages of a process are present: the plan for every read.
 *
 * Reading a page that is not there makes the kernel allocate page tables in the target, so nothing
 * of ours reads outside the runs found here. Two ways to find them:
 * - PAGES_SCAN: the ioctl PAGEMAP_SCAN (Linux 6.7+); 5 ms a GiB. Leaves the shared zero page out.
 *   (Kernels before about 6.16 do not recognise the huge zero page and call it present.)
 * - PAGES_PAGEMAP: reading /proc/PID/pagemap (older kernels); 7 times slower, and pages of the zero
 *   page cannot be told from others without privileges, so they count as present there.
 * A page that the kernel is migrating at that instant looks swapped in both. */
#ifndef HEAPCENSUS_PAGES_H
#define HEAPCENSUS_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "inspector/target/maps.h"
#include "walker/mem.h"
#include "walker/vma.h"

enum pages_method {
    PAGES_AUTO, /* the first where the kernel has it, else the second */
    PAGES_SCAN, /* ERR_UNSUPPORTED where the kernel lacks it */
    PAGES_PAGEMAP
};

struct pages {
    struct page_run *runs; /* sorted, disjoint, merged across adjacent mappings */
    size_t n, cap;
    uint64_t present;         /* bytes in runs */
    uint64_t swapped;         /* bytes that are swapped out: reading them would swap them in */
    uint64_t skipped;         /* bytes not looked at: too large for PAGES_PAGEMAP */
    enum pages_method method; /* which one was used */
};

void pages_init(struct pages *pages);
void pages_release(struct pages *pages);

/* Scan `ranges` (sorted, disjoint, page aligned; ERR_USAGE otherwise) of process pid. Replaces what
 * pages held. ERR_NOT_FOUND when the process is gone. */
int pages_scan(struct pages *pages, int pid, const struct mem_region *ranges, size_t n,
               enum pages_method method, struct err *err) MUST_CHECK;
/* Scan every mapping for which pages_wanted says yes. */
int pages_scan_maps(struct pages *pages, int pid, const struct maps *maps, enum pages_method method,
                    struct err *err) MUST_CHECK;
/* Presence makes sense for maps->items[i], and reading it is harmless: not kernel or device
 * mappings, not PROT_NONE, not hugetlb (which Rss does not count either). */
bool pages_wanted(const struct maps *maps, size_t i);

#endif
