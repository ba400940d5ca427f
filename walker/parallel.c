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
static bool make_thread(pthread_t *ret, void *(*fn)(void *), void *arg)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    int rc = pthread_create(ret, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc == 0;
}

void parallel_run(size_t n, void (*task)(void *ctx, size_t i), void *ctx, unsigned threads)
{
    struct work w = {.task = task, .ctx = ctx, .n = n};
    pthread_t helpers[PARALLEL_MAX];
    if (threads > PARALLEL_MAX)
        threads = PARALLEL_MAX;
    if (threads > n)
        threads = (unsigned)n;
    unsigned made = 0;
    while (made + 1 < threads && make_thread(&helpers[made], work_on, &w))
        made++;
    work_on(&w);
    while (made > 0)
        pthread_join(helpers[--made], NULL);
}

static void *do_beside(void *arg)
{
    struct beside *b = arg;
    b->task(b->ctx);
    return NULL;
}

void beside_start(struct beside *b, void (*task)(void *ctx), void *ctx, bool apart)
{
    b->task = task;
    b->ctx = ctx;
    b->started = apart && make_thread(&b->thread, do_beside, b);
}

void beside_wait(struct beside *b)
{
    if (b->started)
        pthread_join(b->thread, NULL);
    else
        b->task(b->ctx);
    b->started = false;
}
