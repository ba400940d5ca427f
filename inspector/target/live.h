/* The live process as a struct mem: pread on /proc/PID/mem, and nothing else.
 *
 * Not process_vm_readv: since Linux 5.19 it pins pages and so un-shares copy-on-write pages of a
 * forked worker, in the target, charged to the target. Only pages in the given runs are read:
 * touching an absent page would make the kernel allocate page tables in the target. */
#ifndef HEAPCENSUS_LIVE_H
#define HEAPCENSUS_LIVE_H

#include <stdbool.h>
#include <stddef.h>

#include "formats/base/err.h"
#include "walker/mem.h"
#include "walker/vma.h"

/* `runs` (sorted, disjoint: pages.h) is copied. `stopped` sets MEM_FROZEN: the caller vouches that
 * the target stands still for as long as this is used. readv: a span ends short at the first absent
 * page and at a page that the kernel cannot give (EIO); ERR_NOT_FOUND when the target has exited
 * or has started another program. Errors of opening as proc_open's. Close with mem_close. */
int live_new(int pid, const struct page_run *runs, size_t n, bool stopped, struct mem **ret,
             struct err *err) MUST_CHECK;
/* Other runs, after a fresh pages_scan: the regions handed out before are no longer valid. */
int live_set_runs(struct mem *mem, const struct page_run *runs, size_t n,
                  struct err *err) MUST_CHECK;
/* The descriptor of /proc/PID/mem, borrowed: for copy_start. */
int live_fd(const struct mem *mem);

#endif
