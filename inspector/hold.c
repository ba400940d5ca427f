#define _GNU_SOURCE /* pthread_clockjoin_np */
#include "inspector/hold.h"

#include <signal.h>
#include <time.h>

#include "formats/base/num.h"
#include "inspector/target/sys.h"

int hold_undisturbed(int (*hold)(void *ctx, struct err *err), void *ctx, struct err *err)
{
    sigset_t suspend, old;
    sigemptyset(&suspend);
    sigaddset(&suspend, SIGTSTP);
    sigaddset(&suspend, SIGTTIN);
    sigaddset(&suspend, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &suspend, &old);
    int rc = hold(ctx, err);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

bool hold_join(pthread_t thread, uint64_t deadline_ns)
{
    const uint64_t second = 1000000000, day = 86400 * second;
    /* "Never" is more than a struct timespec need hold. */
    uint64_t until = min_u64(deadline_ns, sys_now_ns() + day);
    struct timespec ts = {(time_t)(until / second), (long)(until % second)};
    return pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &ts) == 0;
}
