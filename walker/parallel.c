#define _GNU_SOURCE /* sched_getaffinity */
#include "walker/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

struct work {
    void (*task)(void *ctx, size_t i);
    void *ctx;
    size_t n;
    atomic_size_t next;
};

unsigned parallel_threads(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return n < 1 ? 1 : n > PARALLEL_MAX ? PARALLEL_MAX : (unsigned)n;
}

static void *work_on(void *arg)
{
    struct work *w = arg;
    for (size_t i; (i = atomic_fetch_add(&w->next, 1)) < w->n;)
        w->task(w->ctx, i);
    return NULL;
}

/* Signals are for the thread that waits, as ever. */
static unsigned start(struct work *w, pthread_t *threads, unsigned n)
{
    sigset_t all, old;
    unsigned made = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    while (made < n && pthread_create(&threads[made], NULL, work_on, w) == 0)
        made++;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return made;
}

void parallel_run(size_t n, void (*task)(void *ctx, size_t i), void *ctx, unsigned threads)
{
    struct work w = {.task = task, .ctx = ctx, .n = n};
    pthread_t helpers[PARALLEL_MAX];
    if (threads > PARALLEL_MAX)
        threads = PARALLEL_MAX;
    if (threads > n)
        threads = (unsigned)n;
    unsigned made = threads > 1 ? start(&w, helpers, threads - 1) : 0;
    work_on(&w);
    while (made > 0)
        pthread_join(helpers[--made], NULL);
}
