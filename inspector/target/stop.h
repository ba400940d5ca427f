/* Stopping a process without a trace: PTRACE_SEIZE and PTRACE_INTERRUPT on every thread.
 *
 * What it promises the target:
 * - no signal is lost, reordered or stripped of its siginfo. A signal that a thread is about to
 *   take when we seize it is handed on at once, unchanged. Stop reports are only peeked at
 *   (WNOWAIT): were we killed between taking a report and handing the signal on, the kernel would
 *   have forgotten the signal; so it has not.
 * - when we die, however, the kernel detaches every thread and it runs on: no PTRACE_ATTACH, no
 *   SIGSTOP, no PTRACE_O_EXITKILL, no breakpoint.
 * - a process that was stopped (SIGSTOP) before stays stopped and resumes on SIGCONT.
 * What it cannot promise: a blocked epoll_wait, recv with a timeout, semop, semtimedop,
 * sigtimedwait or sigwaitinfo returns EINTR, as with any stop.
 *
 * ptrace belongs to a thread: stop_begin, stop_end and every ptrace call on a stopped thread must
 * come from one and the same thread of ours, which must outlive the stop. Other threads may read
 * /proc/PID/mem meanwhile. Threads of the target are never waited for with waitpid(-1), so the
 * caller may have children of its own. The caller should not exit on SIGINT or SIGTERM while
 * stopped but set a flag (stop_init) and get to stop_end; nothing is lost if it does exit.
 *
 * A thread in uninterruptible sleep (state D: a vfork parent, a hung disk) cannot be stopped. It is
 * not seized while it is seen in D; if it falls asleep just after, it may still be ours after
 * stop_end, which then says so. */
#ifndef HEAPCENSUS_STOP_H
#define HEAPCENSUS_STOP_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "inspector/target/proc.h"

struct stop_thread {
    int tid;
    char comm[PROC_COMM];
    char state;       /* of /proc, just before it was seized: R S T ... */
    int group_signal; /* it stood in a group-stop by this signal (SIGSTOP ...), else 0 */
    bool has_regs;    /* false when held by another tracer, or killed while it stood */
    uint64_t fs_base, rsp, rip;
    bool stopped; /* in PTRACE_EVENT_STOP, by us */
    bool gone;    /* has exited or was let go */
};

struct stop {
    int pid;
    struct stop_thread *threads; /* after success: all threads there are */
    size_t n, cap;
    /* Another tracer holds the process and all its threads stand still (state t or T): nothing was
     * seized, there are no registers, and that tracer may let it run at any time
     * (stop_still_held). */
    bool held_by_tracer;
    int tracer;
    char tracer_name[PROC_COMM];
    uint64_t begun_ns, ended_ns; /* CLOCK_MONOTONIC: first interrupt, last detach; 0 = not yet */
    unsigned passes;             /* over /proc/PID/task */
    unsigned handed_on;          /* signals that were passed on while stopping */
    int owner;                   /* our thread that traces */
    const volatile sig_atomic_t *interrupted;
};

/* `interrupted` (may be NULL) is polled while waiting: when it turns nonzero, stop_begin lets
 * everything go and returns ERR_INTERRUPTED. */
void stop_init(struct stop *stop, const volatile sig_atomic_t *interrupted);
/* stop_end, and frees the list of threads. */
void stop_release(struct stop *stop);

/* Stop all threads of pid until stop_end. `deadline_ns` is CLOCK_MONOTONIC (sys_now_ns).
 * On failure everything has been let go: ERR_LIMIT (deadline; names the thread that did not stop),
 * ERR_INTERRUPTED, ERR_NOT_FOUND (no such process, exited), ERR_PERMISSION (explained as by
 * proc_denied; also when another tracer lets it run), ERR_UNSUPPORTED (32-bit), ERR_OS, ERR_NOMEM.
 */
int stop_begin(int pid, uint64_t deadline_ns, struct stop *stop, struct err *err) MUST_CHECK;
/* Let go of all threads. Idempotent. Returns how many threads are still traced by us because they
 * fell into uninterruptible sleep on the way: nearly always 0. Those are freed when our tracing
 * thread exits; a caller that goes on living calls stop_end again from time to time. */
size_t stop_end(struct stop *stop);
/* How long the target stood still: until now, or until stop_end. */
uint64_t stop_paused_ns(const struct stop *stop);
/* For held_by_tracer: the other tracer still holds every thread. */
bool stop_still_held(const struct stop *stop);

#endif
