/* Independent pieces of work on a few threads. */
#ifndef HEAPCENSUS_PARALLEL_H
#define HEAPCENSUS_PARALLEL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

enum { PARALLEL_MAX = 4 };

/* How many threads are of use here: the processors that we may run on, PARALLEL_MAX at most. */
unsigned parallel_threads(void);
/* Call task(ctx, i) once for each i < n, in order of i as threads become free, the caller's among
 * them; returns when all are done. Whatever the number of threads, also where none can be made,
 * all tasks are run. What tasks share is theirs to guard. */
void parallel_run(size_t n, void (*task)(void *ctx, size_t i), void *ctx, unsigned threads);

/* One long task beside what the caller goes on with. */
struct beside {
    void (*task)(void *ctx);
    void *ctx;
    pthread_t thread;
    bool started;
};
/* Without `apart`, or where no thread can be made, beside_wait does it. */
void beside_start(struct beside *b, void (*task)(void *ctx), void *ctx, bool apart);
void beside_wait(struct beside *b); /* once: it is done then */

#endif
