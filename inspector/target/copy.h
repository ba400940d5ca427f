/* A private copy of what is needed of a stopped process, as a struct mem: the pause lasts only as
 * long as the copying. The order of calls:
 *
 *     pages_scan_maps, copy_plan        how much it will be, while the target runs
 *     copy_reserve(bytes)               memory taken and faulted in: slow, so before the stop
 *     stop_begin
 *     pages_scan_maps, copy_plan        what there is now
 *     copy_start(plan), copy_wait(deadline)
 *     stop_end                          also when copy_wait says COPY_LATE: the copying goes on
 *     copy_finish                       waits for the rest; then `&copy->mem` can be read
 *     mem_close(&copy->mem)             at any point after copy_reserve
 *
 * Filling fresh memory would cost five times the copying itself, hence copy_reserve; its buffer
 * asks for huge pages and is left out of core dumps of ours. Two threads copy by pread on
 * /proc/PID/mem (see live.h for why), with all signals blocked; they make no ptrace calls. */
#ifndef HEAPCENSUS_COPY_H
#define HEAPCENSUS_COPY_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "walker/mem.h"
#include "walker/vma.h"

struct copy_plan {
    struct mem_region *ranges; /* sorted, disjoint, merged: what to copy */
    size_t n, cap;
    uint64_t bytes;
};

void copy_plan_init(struct copy_plan *plan);
void copy_plan_release(struct copy_plan *plan);
/* The present runs within the wanted ranges (both sorted and disjoint), widened to whole pages.
 * Replaces what it held. */
int copy_plan(struct copy_plan *plan, const struct page_run *present, size_t n_present,
              const struct mem_region *wanted, size_t n_wanted, struct err *err) MUST_CHECK;

enum { COPY_THREADS = 2 };

struct copy;

/* Room for `bytes` and some more (3 % and 16 MiB: targets grow), faulted in. ERR_NOMEM, with a
 * remedy, when the machine or our cgroup has too little left; nothing has been stopped yet then. */
int copy_reserve(uint64_t bytes, struct copy **ret, struct err *err) MUST_CHECK;

/* Start to copy `plan` from mem_fd (/proc/PID/mem, borrowed until copy_finish or mem_close). A plan
 * that exceeds the reserve gets a second buffer, not faulted in: right, but slower. */
int copy_start(struct copy *copy, const struct copy_plan *plan, int mem_fd,
               struct err *err) MUST_CHECK;

enum copy_state { COPY_DONE, COPY_LATE, COPY_INTERRUPTED };

/* Wait until all is copied, the deadline (CLOCK_MONOTONIC ns) passes or *interrupted (may be NULL)
 * turns nonzero. The copying goes on in the last two cases. */
enum copy_state copy_wait(struct copy *copy, uint64_t deadline_ns,
                          const volatile sig_atomic_t *interrupted);

struct copy_stats {
    uint64_t bytes;      /* that were copied */
    uint64_t hole_bytes; /* that could not be read: they are holes of the result */
    uint64_t busy_ns;    /* from copy_start until the last byte */
    bool grown;          /* the reserve did not suffice */
};

/* Wait for the threads and make the result readable. ERR_NOT_FOUND when the target exited
 * meanwhile, ERR_NOMEM, ERR_OS. Once only. */
int copy_finish(struct copy *copy, struct copy_stats *stats, struct err *err) MUST_CHECK;
/* The result as memory: FROZEN and SPARSE, with `direct`. mem_close of it frees the copy, and
 * stops a copying that is under way. */
struct mem *copy_mem(struct copy *copy);

#endif
