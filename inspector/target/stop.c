#include "inspector/target/stop.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <unistd.h>

#include "formats/base/addrset.h"
#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/procfile.h"
#include "inspector/target/sys.h"

enum {
    NAP_FIRST_NS = 20 * 1000,
    NAP_MAX_NS = 1000 * 1000,
    ASLEEP_NAP_NS = 200 * 1000,
    IDLE_ROUNDS = 8, /* waits without news before the thread's state is looked at */
    RELEASE_GRACE_NS = 100 * 1000 * 1000
};

/* What a peek at a traced thread says. */
enum news { NEWS_NONE, NEWS_STOPPED, NEWS_SIGNAL, NEWS_EXITED, NEWS_GONE };

struct seizing {
    struct stop *stop;
    uint64_t deadline;
    struct addrset seen; /* tid -> index in stop->threads */
    struct proc_tasks tasks;
    int asleep; /* a thread in state D that keeps us from being done, 0 = none */
};

void stop_init(struct stop *stop, const volatile sig_atomic_t *interrupted)
{
    memset(stop, 0, sizeof *stop);
    stop->interrupted = interrupted;
}

void stop_release(struct stop *stop)
{
    const volatile sig_atomic_t *interrupted = stop->interrupted;
    stop_end(stop);
    free(stop->threads);
    stop_init(stop, interrupted);
}

uint64_t stop_paused_ns(const struct stop *stop)
{
    if (!stop->begun_ns)
        return 0;
    return (stop->ended_ns ? stop->ended_ns : sys_now_ns()) - stop->begun_ns;
}

static int own_tid(void)
{
    return (int)syscall(SYS_gettid);
}

static bool state_is_dead(char state)
{
    return state == 'Z' || state == 'X' || state == 'x';
}

/* The kernel's word on whether we still trace a thread. */
static bool still_ours(const struct stop *stop, int tid)
{
    return proc_task_tracer(stop->pid, tid) == stop->owner;
}

/* Look at what a traced thread last reported, without taking the report. *signal is the signal of
 * a stop. */
static enum news peek(const struct stop *stop, int tid, int *signal)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (sys_calls.waitid(P_PID, (id_t)tid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT | __WALL) <
        0)
        return errno == ECHILD && !still_ours(stop, tid) ? NEWS_GONE : NEWS_NONE;
    if (info.si_pid == 0)
        return NEWS_NONE;
    if (info.si_code != CLD_TRAPPED && info.si_code != CLD_STOPPED)
        return NEWS_EXITED;
    *signal = info.si_status & 0xff;
    return info.si_status >> 8 == PTRACE_EVENT_STOP ? NEWS_STOPPED : NEWS_SIGNAL;
}

/* Take the report of an exited thread, so that the target's own wait is not held up. Not when the
 * target is our child: its exit status belongs to the caller. */
static void reap(const struct stop *stop, int tid)
{
    siginfo_t info;
    struct proc_status *st = NULL;
    if (tid == stop->pid) {
        st = malloc(sizeof *st);
        bool child = !st || proc_status_read(tid, st, NULL) < 0 || st->ppid == getpid();
        free(st);
        if (child)
            return;
    }
    memset(&info, 0, sizeof info);
    sys_calls.waitid(P_PID, (id_t)tid, &info, WEXITED | WNOHANG | __WALL);
}

static void thread_gone(const struct stop *stop, struct stop_thread *t, bool exited)
{
    if (exited)
        reap(stop, t->tid);
    t->gone = true;
    t->stopped = false;
}

/* A signal-delivery-stop: hand the signal on. Any stop cancels a pending interrupt, so that is
 * renewed first; the thread takes its signal and then stops for us. */
static void hand_on(struct stop *stop, int tid, int signal)
{
    if (sys_calls.ptrace(PTRACE_INTERRUPT, tid, NULL, NULL) < 0)
        return; /* looked at again in the next round */
    if (sys_calls.ptrace(PTRACE_CONT, tid, NULL, (void *)(uintptr_t)signal) == 0)
        stop->handed_on++;
}

/* Whether the thread is settled: stopped or gone. */
static bool poll_thread(struct stop *stop, struct stop_thread *t)
{
    int signal = 0;
    switch (peek(stop, t->tid, &signal)) {
    case NEWS_NONE:
        return false;
    case NEWS_STOPPED:
        t->group_signal = signal == SIGTRAP ? 0 : signal;
        t->stopped = true;
        return true;
    case NEWS_SIGNAL:
        hand_on(stop, t->tid, signal);
        return false;
    case NEWS_EXITED:
        thread_gone(stop, t, true);
        return true;
    case NEWS_GONE:
        thread_gone(stop, t, false);
        return true;
    }
    return false;
}

/* A leader that exits while other threads live reports nothing: its state tells. An interrupt that
 * was lost (cancelled by another stop) is renewed. */
static void poll_idle(struct stop *stop, struct stop_thread *t)
{
    struct proc_task task;
    if (!proc_task_read(stop->pid, t->tid, &task) || state_is_dead(task.state))
        thread_gone(stop, t, false);
    else
        sys_calls.ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL);
}

static int did_not_stop(const struct seizing *z, int tid, struct err *err)
{
    char path[96], wchan[64], call[128];
    struct proc_task task;
    int pid = z->stop->pid;
    if (!proc_task_read(pid, tid, &task))
        return err_set(err, ERR_LIMIT, "process %d did not stop in time: its threads come and go",
                       pid);
    snprintf(path, sizeof path, "/proc/%d/task/%d/wchan", pid, tid);
    procfile_small(path, wchan, sizeof wchan);
    snprintf(path, sizeof path, "/proc/%d/task/%d/syscall", pid, tid);
    procfile_small(path, call, sizeof call);
    call[strcspn(call, " ")] = '\0';
    err_set(err, ERR_LIMIT, "thread %d (%s) did not stop in time: state %c, system call %s%s%s",
            tid, task.comm, task.state, *call ? call : "?", wchan[0] > '0' ? ", waits in " : "",
            wchan[0] > '0' ? wchan : "");
    err_remedy(err, "try again, or read without a pause (--no-pause)");
    return ERR_LIMIT;
}

static bool wants_out(const struct stop *stop)
{
    return stop->interrupted && *stop->interrupted;
}

/* 0, or why we must give up; `tid` is whom we wait for. */
static int give_up(const struct seizing *z, int tid, struct err *err)
{
    if (wants_out(z->stop))
        return err_set(err, ERR_INTERRUPTED, "interrupted while stopping process %d", z->stop->pid);
    return sys_now_ns() >= z->deadline ? did_not_stop(z, tid, err) : 0;
}

/* Poll once every thread that is neither stopped nor gone; returns the first that remains. */
static struct stop_thread *poll_round(struct stop *stop, bool idle)
{
    struct stop_thread *left = NULL;
    for (size_t i = 0; i < stop->n; i++) {
        struct stop_thread *t = &stop->threads[i];
        if (t->stopped || t->gone || poll_thread(stop, t))
            continue;
        if (idle)
            poll_idle(stop, t);
        if (!left && !t->gone)
            left = t;
    }
    return left;
}

static int wait_all(struct seizing *z, struct err *err)
{
    uint64_t nap = NAP_FIRST_NS;
    for (unsigned round = 1;; round++) {
        const struct stop_thread *left = poll_round(z->stop, round % IDLE_ROUNDS == 0);
        if (!left)
            return 0;
        int rc = give_up(z, left->tid, err);
        if (rc < 0)
            return rc;
        sys_nap(nap);
        nap = min_u64(nap * 2, NAP_MAX_NS);
    }
}

/* A refused seize: 0 when the thread is just exiting. */
static int refused(const struct seizing *z, int tid, int os_errno, struct err *err)
{
    struct proc_task task;
    if (os_errno == ESRCH || !proc_task_read(z->stop->pid, tid, &task) || state_is_dead(task.state))
        return 0;
    if (os_errno == EPERM || os_errno == EACCES)
        return proc_denied(z->stop->pid, os_errno, err);
    return err_os(err, os_errno, "cannot seize thread %d of process %d", tid, z->stop->pid);
}

/* The slot of a tid: a fresh one, or that of an exited thread whose number was used again. NULL
 * when this thread is in hand already. */
static int slot_for(struct seizing *z, int tid, struct stop_thread **ret, struct err *err)
{
    struct stop *stop = z->stop;
    const uint64_t *known = addrset_find(&z->seen, (uint64_t)tid);
    if (known) {
        struct stop_thread *t = &stop->threads[*known];
        *ret = t->gone ? t : NULL;
        return 0;
    }
    if (vec_reserve(&stop->threads, &stop->cap, stop->n + 1, sizeof *stop->threads) < 0 ||
        addrset_add(&z->seen, (uint64_t)tid, stop->n, NULL) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu threads", stop->n + 1);
    *ret = &stop->threads[stop->n++];
    **ret = (struct stop_thread){.tid = tid, .gone = true};
    return 0;
}

/* 1: something was seized or must be looked at again; 0: nothing new; negative: failed. */
static int seize_one(struct seizing *z, int tid, struct err *err)
{
    struct stop_thread *t;
    struct proc_task task;
    int rc = slot_for(z, tid, &t, err);
    if (rc < 0 || !t)
        return rc;
    if (!proc_task_read(z->stop->pid, tid, &task) || state_is_dead(task.state))
        return 0;
    if (task.state == 'D') {
        z->asleep = tid;
        return 1;
    }
    memcpy(t->comm, task.comm, sizeof t->comm);
    t->state = task.state;
    if (sys_calls.ptrace(PTRACE_SEIZE, tid, NULL, NULL) < 0) {
        rc = refused(z, tid, errno, err);
        return rc < 0 ? rc : 1;
    }
    t->gone = t->stopped = false;
    if (!z->stop->begun_ns)
        z->stop->begun_ns = sys_now_ns();
    /* Should this fail, poll_idle renews it. */
    sys_calls.ptrace(PTRACE_INTERRUPT, tid, NULL, NULL);
    return 1;
}

/* *clean: nothing new, and as many threads listed as there are. A listing that threads left
 * meanwhile may skip some. */
static int seize_pass(struct seizing *z, bool *clean, struct err *err)
{
    struct stop *stop = z->stop;
    struct proc_task task;
    int rc = proc_tasks_read(stop->pid, &z->tasks, err);
    if (rc < 0)
        return rc;
    stop->passes++;
    z->asleep = 0;
    *clean = true;
    for (size_t i = 0; i < z->tasks.n; i++) {
        rc = seize_one(z, z->tasks.tids[i], err);
        if (rc < 0)
            return rc;
        if (rc > 0)
            *clean = false;
    }
    if (*clean && proc_task_read(stop->pid, stop->pid, &task) && task.threads != z->tasks.n)
        *clean = false;
    return 0;
}

/* Threads in uninterruptible sleep mostly wake within milliseconds. Wait for that before anything
 * is held up, for at most half of the time that we have. */
static int await_wakeful(struct seizing *z, struct err *err)
{
    uint64_t now = sys_now_ns();
    uint64_t until = now < z->deadline ? now + (z->deadline - now) / 2 : now;
    for (;;) {
        struct proc_task task;
        bool asleep = false;
        int rc = proc_tasks_read(z->stop->pid, &z->tasks, err);
        if (rc < 0)
            return rc;
        for (size_t i = 0; i < z->tasks.n && !asleep; i++)
            asleep = proc_task_read(z->stop->pid, z->tasks.tids[i], &task) && task.state == 'D';
        if (!asleep || sys_now_ns() >= until)
            return 0;
        if (wants_out(z->stop))
            return give_up(z, z->stop->pid, err);
        sys_nap(NAP_MAX_NS);
    }
}

static int seize_all(struct seizing *z, struct err *err)
{
    bool clean = false;
    int rc = await_wakeful(z, err);
    while (rc == 0 && !clean) {
        rc = seize_pass(z, &clean, err);
        if (rc == 0)
            rc = wait_all(z, err);
        if (rc == 0 && !clean) {
            rc = give_up(z, z->asleep ? z->asleep : z->stop->pid, err);
            if (rc == 0 && z->asleep)
                sys_nap(ASLEEP_NAP_NS);
        }
    }
    return rc;
}

static int read_registers(const struct stop *stop, struct stop_thread *t, struct err *err)
{
    struct user_regs_struct regs;
    struct iovec iov = {&regs, sizeof regs};
    long rc = sys_calls.ptrace(PTRACE_GETREGSET, t->tid, (void *)(uintptr_t)NT_PRSTATUS, &iov);
    if (rc < 0 && errno == ESRCH) {
        /* Killed while it stood. On its way out it is still ours to let go. */
        if (!still_ours(stop, t->tid))
            thread_gone(stop, t, false);
        t->stopped = false;
        return 0;
    }
    if (rc < 0)
        return err_os(err, errno, "cannot read the registers of thread %d", t->tid);
    if (iov.iov_len != sizeof regs)
        return err_set(err, ERR_UNSUPPORTED, "thread %d runs 32-bit code", t->tid);
    t->fs_base = regs.fs_base;
    t->rsp = regs.rsp;
    t->rip = regs.rip;
    t->has_regs = true;
    return 0;
}

/* Only the threads that stand remain in the list. */
static int read_all_registers(struct stop *stop, struct err *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < stop->n; i++) {
        struct stop_thread *t = &stop->threads[i];
        int rc = t->gone ? 0 : read_registers(stop, t, err);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < stop->n; i++)
        if (!stop->threads[i].gone)
            stop->threads[kept++] = stop->threads[i];
    stop->n = kept;
    if (kept == 0)
        return err_set(err, ERR_NOT_FOUND, "process %d exited while it was being stopped",
                       stop->pid);
    return 0;
}

static bool held_state(char state)
{
    return state == 't' || state == 'T' || state_is_dead(state);
}

bool stop_still_held(const struct stop *stop)
{
    struct proc_task task;
    for (size_t i = 0; i < stop->n; i++)
        if (proc_task_read(stop->pid, stop->threads[i].tid, &task) && !held_state(task.state))
            return false;
    return stop->n > 0 && proc_task_tracer(stop->pid, stop->pid) == stop->tracer;
}

/* Another tracer is there: take note of the threads, touch nothing. */
static int join_tracer(struct seizing *z, struct err *err)
{
    struct stop *stop = z->stop;
    int rc = proc_tasks_read(stop->pid, &z->tasks, err);
    for (size_t i = 0; rc == 0 && i < z->tasks.n; i++) {
        struct proc_task task;
        struct stop_thread *t;
        rc = slot_for(z, z->tasks.tids[i], &t, err);
        if (rc < 0 || !proc_task_read(stop->pid, z->tasks.tids[i], &task))
            continue;
        memcpy(t->comm, task.comm, sizeof t->comm);
        t->state = task.state;
    }
    if (rc < 0)
        return rc;
    if (!stop_still_held(stop)) {
        stop->n = 0;
        return proc_denied(stop->pid, EPERM, err);
    }
    proc_comm(stop->tracer, stop->tracer_name, sizeof stop->tracer_name);
    stop->held_by_tracer = true;
    return 0;
}

int stop_begin(int pid, uint64_t deadline_ns, struct stop *stop, struct err *err)
{
    struct seizing z = {.stop = stop, .deadline = deadline_ns};
    addrset_init(&z.seen);
    proc_tasks_init(&z.tasks);
    stop->pid = pid;
    stop->owner = own_tid();
    stop->n = 0;
    stop->begun_ns = stop->ended_ns = 0;
    stop->passes = stop->handed_on = 0;
    stop->held_by_tracer = false;
    stop->tracer = proc_task_tracer(pid, pid);
    int rc = stop->tracer ? join_tracer(&z, err) : seize_all(&z, err);
    if (rc == 0 && !stop->held_by_tracer)
        rc = read_all_registers(stop, err);
    addrset_release(&z.seen);
    proc_tasks_release(&z.tasks);
    if (rc < 0) {
        size_t left = stop_end(stop);
        if (left)
            err_context(err, rc, "%zu threads stay traced until heapcensus exits", left);
    }
    return rc;
}

/* Try to let one thread go. A signal whose delivery it has just reported goes with it. */
static void release_one(struct stop *stop, struct stop_thread *t)
{
    int signal = 0;
    if (!t->stopped) {
        enum news news = peek(stop, t->tid, &signal);
        if (news == NEWS_EXITED || news == NEWS_GONE) {
            thread_gone(stop, t, news == NEWS_EXITED);
            return;
        }
        if (news != NEWS_SIGNAL)
            signal = 0;
    }
    if (sys_calls.ptrace(PTRACE_DETACH, t->tid, NULL, (void *)(uintptr_t)signal) == 0) {
        t->gone = true;
        return;
    }
    /* ESRCH: it has exited, or it does not stand yet (an interrupt is pending). */
    t->stopped = false;
    if (!still_ours(stop, t->tid))
        thread_gone(stop, t, true);
    else
        sys_calls.ptrace(PTRACE_INTERRUPT, t->tid, NULL, NULL);
}

static size_t release_round(struct stop *stop)
{
    size_t left = 0;
    for (size_t i = 0; i < stop->n; i++) {
        if (!stop->threads[i].gone)
            release_one(stop, &stop->threads[i]);
        left += !stop->threads[i].gone;
    }
    return left;
}

size_t stop_end(struct stop *stop)
{
    if (stop->held_by_tracer || !stop->n)
        return 0;
    uint64_t nap = NAP_FIRST_NS, until = sys_now_ns() + RELEASE_GRACE_NS;
    size_t left = release_round(stop);
    while (left && sys_now_ns() < until) {
        sys_nap(nap);
        nap = min_u64(nap * 2, NAP_MAX_NS);
        left = release_round(stop);
    }
    if (stop->begun_ns && !stop->ended_ns)
        stop->ended_ns = sys_now_ns();
    return left;
}
