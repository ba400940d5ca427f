/* A struct mem that keeps an eye on the clock: for walks that read a process while it is stopped.
 */
#ifndef HEAPCENSUS_PAUSE_GUARD_H
#define HEAPCENSUS_PAUSE_GUARD_H

#include <signal.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "walker/mem.h"

/* Passes reads on to `below` (borrowed). The first read after `deadline_ns` (CLOCK_MONOTONIC) calls
 * late(ctx), once, and goes on; reads after *interrupted turned nonzero fail with ERR_INTERRUPTED.
 */
int pause_guard_new(struct mem *below, uint64_t deadline_ns, void (*late)(void *ctx), void *ctx,
                    const volatile sig_atomic_t *interrupted, struct mem **ret,
                    struct err *err) MUST_CHECK;

#endif
