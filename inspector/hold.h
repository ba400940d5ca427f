/* What whoever holds a target still must see to, beside stop.h. */
#ifndef HEAPCENSUS_HOLD_H
#define HEAPCENSUS_HOLD_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "formats/base/err.h"

/* Call hold(ctx), which stops the target and lets it go, with the signals put off that would
 * suspend us meanwhile: Ctrl-Z, or a terminal that we may not read from or write to. */
int hold_undisturbed(int (*hold)(void *ctx, struct err *err), void *ctx,
                     struct err *err) MUST_CHECK;
/* Wait for the thread's end until the deadline (CLOCK_MONOTONIC ns; any number). False: it goes on,
 * and has to be joined still. */
bool hold_join(pthread_t thread, uint64_t deadline_ns);

#endif
