/* Stopping: no signal lost, nothing left stopped, everything let go after any failure. */
#define SIG_TARGET_NO_MAIN
#include "tests/e2e/sig_target.c"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

#include "inspector/target/maps.h"
#include "inspector/target/pages.h"
#include "inspector/target/stop.h"
#include "inspector/target/sys.h"
#include "tests/lib/tap.h"

enum { CYCLES = 1000, KILLS = 200, SECOND_NS = 1000000000 };

static uint64_t in_ms(unsigned ms)
{
    return sys_now_ns() + (uint64_t)ms * 1000000u;
}

static pid_t spawn(void (*body)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        body();
        _exit(0);
    }
    return pid;
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static char state_of(pid_t pid)
{
    struct proc_task task;
    return proc_task_read(pid, pid, &task) ? task.state : '?';
}

static bool await_state(pid_t pid, char state)
{
    for (int i = 0; i < 3000 && state_of(pid) != state; i++)
        sig_nap(1000 * 1000);
    return state_of(pid) == state;
}

/* No thread is traced or stands in a ptrace stop. */
static bool is_free(pid_t pid)
{
    struct proc_tasks tasks;
    struct proc_task task;
    bool is = true;
    proc_tasks_init(&tasks);
    if (proc_tasks_read(pid, &tasks, NULL) == 0)
        for (size_t i = 0; i < tasks.n; i++)
            if (proc_task_tracer(pid, tasks.tids[i]) ||
                (proc_task_read(pid, tasks.tids[i], &task) && task.state == 't'))
                is = false;
    proc_tasks_release(&tasks);
    return is;
}

static pid_t start_flood(struct sig_shared *shared)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(sig_target_run(shared));
    }
    for (int i = 0; i < 5000 && atomic_load(&shared->ready) <= SIG_THREADS; i++)
        sig_nap(1000 * 1000);
    return pid;
}

static void finish_flood(pid_t pid, struct sig_shared *shared, const char *what)
{
    int status = -1;
    atomic_store(&shared->quit, 1);
    waitpid(pid, &status, 0);
    ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: %lu signals, none lost (%lu misordered)",
       what, sig_total_taken(shared), atomic_load(&shared->misordered));
    ok(sig_total_taken(shared) > 1000, "%s: it was a flood", what);
    munmap(shared, sizeof *shared);
}

static void test_cycles(void)
{
    struct sig_shared *shared = sig_shared_new();
    pid_t pid = start_flood(shared);
    struct err err = ERR_INIT;
    unsigned good = 0, complete = 0, freed = 0, handed = 0, runs = 0;
    uint64_t paused = 0;
    /* Whether a stop meets a thread that is just taking a signal is chance: some more tries. */
    for (; runs < CYCLES || (!handed && runs < 2 * CYCLES); runs++) {
        struct stop stop;
        stop_init(&stop, NULL);
        good += stop_begin(pid, in_ms(3000), &stop, &err) == 0;
        complete += stop.n == SIG_THREADS + 1;
        for (size_t t = 0; t < stop.n; t++)
            complete -= !stop.threads[t].has_regs || !stop.threads[t].fs_base;
        handed += stop.handed_on;
        unsigned long before = atomic_load(&shared->work);
        sig_nap(200 * 1000);
        good -= atomic_load(&shared->work) != before;
        freed += stop_end(&stop) == 0 && stop_end(&stop) == 0 && is_free(pid);
        paused += stop_paused_ns(&stop);
        stop_release(&stop);
    }
    ok(good == runs, "stopped and standing still %u of %u times (%s)", good, runs, err.text);
    ok(complete == runs, "all threads with registers each time");
    ok(freed == runs, "free after each time");
    ok(handed > 0, "%u signals were handed on at their delivery stop", handed);
    diag("mean pause %.2f ms, of it 0.2 ms ours", (double)paused / runs / 1e6);
    finish_flood(pid, shared, "attach and detach");
}

static void test_kills(void)
{
    struct sig_shared *shared = sig_shared_new();
    pid_t pid = start_flood(shared);
    unsigned freed = 0, ran_on = 0;
    srand(7);
    for (int i = 0; i < KILLS; i++) {
        pid_t inspector = fork();
        if (inspector == 0)
            for (;;) {
                struct stop stop;
                stop_init(&stop, NULL);
                if (stop_begin(pid, in_ms(3000), &stop, NULL) < 0)
                    _exit(1);
                stop_release(&stop);
            }
        sig_nap(rand() % 3000000);
        end(inspector);
        unsigned long before = atomic_load(&shared->work);
        freed += is_free(pid);
        sig_nap(2000 * 1000);
        for (int w = 0; w < 1000 && atomic_load(&shared->work) == before; w++)
            sig_nap(1000 * 1000);
        ran_on += atomic_load(&shared->work) != before;
    }
    ok(freed == KILLS, "free after each of %d killed inspectors (%u)", KILLS, freed);
    ok(ran_on == KILLS, "the target ran on after each");
    finish_flood(pid, shared, "killed inspectors");
}

static void body_pause(void)
{
    for (;;)
        pause();
}

static void test_group_stop(void)
{
    pid_t pid = spawn(body_pause);
    struct stop stop;
    struct err err = ERR_INIT;
    stop_init(&stop, NULL);
    kill(pid, SIGSTOP);
    ok(await_state(pid, 'T'), "the target is stopped by SIGSTOP");
    ok(stop_begin(pid, in_ms(2000), &stop, &err) == 0, "a stopped target can be seized (%s)",
       err.text);
    ok(stop.n == 1 && stop.threads[0].group_signal == SIGSTOP, "seen as a group-stop");
    stop_end(&stop);
    ok(await_state(pid, 'T') && is_free(pid), "it stays stopped");
    kill(pid, SIGCONT);
    ok(await_state(pid, 'S'), "SIGCONT resumes it");
    kill(pid, SIGSTOP);
    await_state(pid, 'T');
    ok(stop_begin(pid, in_ms(2000), &stop, NULL) == 0, "seized again");
    kill(pid, SIGCONT);
    stop_release(&stop);
    ok(await_state(pid, 'S'), "a SIGCONT during the stop is not lost");
    end(pid);
}

static void *churn_leaf(void *arg)
{
    sig_nap(200 * 1000);
    return arg;
}

static void *churn(void *arg)
{
    for (;;) {
        pthread_t t;
        if (pthread_create(&t, NULL, churn_leaf, NULL) == 0)
            pthread_join(t, NULL);
    }
    return arg;
}

static void body_churn(void)
{
    pthread_t t;
    for (int i = 0; i < 4; i++)
        pthread_create(&t, NULL, churn, NULL);
    body_pause();
}

static void test_churn(void)
{
    pid_t pid = spawn(body_churn);
    struct err err = ERR_INIT;
    unsigned good = 0, freed = 0, whole = 0;
    sig_nap(30 * 1000 * 1000);
    for (int i = 0; i < 60; i++) {
        struct stop stop;
        struct proc_tasks tasks;
        struct proc_task task;
        size_t standing = 0;
        stop_init(&stop, NULL);
        proc_tasks_init(&tasks);
        good += stop_begin(pid, in_ms(3000), &stop, &err) == 0;
        if (proc_tasks_read(pid, &tasks, NULL) == 0)
            for (size_t t = 0; t < tasks.n; t++)
                standing += proc_task_read(pid, tasks.tids[t], &task) &&
                            (task.state == 't' || task.state == 'Z' || task.state == 'X');
        whole += standing == tasks.n;
        proc_tasks_release(&tasks);
        stop_release(&stop);
        freed += is_free(pid);
    }
    ok(good == 60 && whole == 60, "threads that come and go: %u of 60 stops, %u whole (%s)", good,
       whole, err.text);
    ok(freed == 60, "free each time");
    end(pid);
}

static void body_vfork(void)
{
    pid_t pid = vfork();
    if (pid == 0) {
        struct timespec ts = {0, 900 * 1000 * 1000};
        nanosleep(&ts, NULL);
        _exit(0);
    }
    body_pause();
}

static void test_vfork(void)
{
    pid_t pid = spawn(body_vfork);
    struct stop stop;
    struct err err = ERR_INIT;
    stop_init(&stop, NULL);
    ok(await_state(pid, 'D'), "a vfork parent sleeps uninterruptibly");
    uint64_t begun = sys_now_ns();
    ok(stop_begin(pid, in_ms(200), &stop, &err) == ERR_LIMIT, "it cannot be stopped in time");
    ok(sys_now_ns() - begun < SECOND_NS, "and that is known soon");
    ok(strstr(err.text, "did not stop") && err.remedy[0], "cause: %s", err.text);
    ok(is_free(pid), "it is not traced");
    ok(await_state(pid, 'S'), "it runs on");
    stop_release(&stop);
    end(pid);
}

static void *leader_left(void *arg)
{
    body_pause();
    return arg;
}

static void body_zombie_leader(void)
{
    pthread_t t;
    pthread_create(&t, NULL, leader_left, NULL);
    pthread_exit(NULL);
}

static void test_zombie_leader(void)
{
    pid_t pid = spawn(body_zombie_leader);
    struct stop stop;
    struct maps maps;
    struct pages pages;
    struct err err = ERR_INIT;
    stop_init(&stop, NULL);
    maps_init(&maps);
    pages_init(&pages);
    ok(await_state(pid, 'Z'), "the leader is a zombie");
    ok(proc_diagnose(pid, &err) == 0, "readable all the same (%s)", err.text);
    ok(maps_read(&maps, pid, &err) == 0 && maps.n > 5, "its mappings are read");
    ok(pages_scan_maps(&pages, pid, &maps, PAGES_AUTO, &err) == 0 && pages.n > 5,
       "and its present pages");
    ok(stop_begin(pid, in_ms(1000), &stop, &err) == 0 && stop.n == 1, "its thread can be stopped");
    stop_release(&stop);
    ok(is_free(pid), "and let go");
    maps_release(&maps);
    pages_release(&pages);
    end(pid);
}

static pid_t other_target;

static void body_tracer_holds(void)
{
    ptrace(PTRACE_SEIZE, other_target, NULL, NULL);
    ptrace(PTRACE_INTERRUPT, other_target, NULL, NULL);
    body_pause();
}

static void body_tracer_runs(void)
{
    ptrace(PTRACE_SEIZE, other_target, NULL, NULL);
    body_pause();
}

static void test_other_tracer(void)
{
    struct stop stop;
    struct err err = ERR_INIT;
    stop_init(&stop, NULL);
    other_target = spawn(body_pause);
    pid_t tracer = spawn(body_tracer_holds);
    ok(await_state(other_target, 't'), "another tracer holds the target");
    ok(stop_begin(other_target, in_ms(500), &stop, &err) == 0 && stop.held_by_tracer,
       "it may be read as it is (%s)", err.text);
    ok(stop.tracer == tracer && stop.tracer_name[0], "the tracer is known: %s", stop.tracer_name);
    ok(stop_still_held(&stop) && stop.n == 1 && !stop.threads[0].has_regs, "held, no registers");
    end(tracer);
    ok(!stop_still_held(&stop), "not any more");
    stop_release(&stop);
    tracer = spawn(body_tracer_runs);
    for (int i = 0; i < 1000 && !proc_task_tracer(other_target, other_target); i++)
        sig_nap(1000 * 1000);
    ok(stop_begin(other_target, in_ms(500), &stop, &err) == ERR_PERMISSION &&
           strstr(err.text, "already being traced"),
       "refused while it runs: %s", err.text);
    stop_release(&stop);
    end(tracer);
    end(other_target);
}

static void test_ends(void)
{
    static volatile sig_atomic_t interrupted = 1;
    struct stop stop;
    struct err err = ERR_INIT;
    pid_t pid = spawn(body_pause);
    stop_init(&stop, &interrupted);
    ok(stop_begin(pid, in_ms(2000), &stop, &err) == ERR_INTERRUPTED, "interrupted: %s", err.text);
    ok(is_free(pid), "and let go");
    interrupted = 0;
    ok(stop_begin(pid, in_ms(2000), &stop, &err) == 0, "stopped");
    kill(pid, SIGKILL);
    ok(stop_end(&stop) == 0, "a target killed while it stands is let go");
    int status = 0;
    ok(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status), "its parent gets its status");
    ok(stop_begin(pid, in_ms(100), &stop, &err) == ERR_NOT_FOUND, "gone: %s", err.text);
    stop_release(&stop);
}

/* ---- the i-th call fails ---- */

static long fail_at, calls;
static int fail_errno;

static bool fails(void)
{
    if (++calls != fail_at)
        return false;
    errno = fail_errno;
    return true;
}

static long failing_ptrace(int request, pid_t tid, void *addr, void *data)
{
    return fails() ? -1 : sys_calls_real.ptrace(request, tid, addr, data);
}

static int failing_waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    return fails() ? -1 : sys_calls_real.waitid(type, id, info, options);
}

static void failure_loop(pid_t pid, int os_errno)
{
    unsigned runs = 0, bad = 0;
    fail_errno = os_errno;
    for (fail_at = 1; fail_at < 2000; fail_at++, runs++) {
        struct stop stop;
        stop_init(&stop, NULL);
        calls = 0;
        int rc = stop_begin(pid, in_ms(2000), &stop, NULL);
        bad += rc < 0 && stop_end(&stop) != 0;
        stop_release(&stop);
        bad += !is_free(pid);
        if (calls < fail_at)
            break;
    }
    ok(runs > 5 && fail_at < 2000 && bad == 0, "errno %d at each of %u calls: always let go",
       os_errno, runs);
}

static void body_two_threads(void)
{
    pthread_t t;
    pthread_create(&t, NULL, leader_left, NULL);
    body_pause();
}

static void test_failures(void)
{
    static const int errnos[] = {EIO, EPERM, ESRCH, EINTR, ECHILD, ENOMEM};
    pid_t pid = spawn(body_two_threads);
    sig_nap(50 * 1000 * 1000);
    sys_calls.ptrace = failing_ptrace;
    sys_calls.waitid = failing_waitid;
    for (size_t i = 0; i < sizeof errnos / sizeof errnos[0]; i++)
        failure_loop(pid, errnos[i]);
    sys_calls = sys_calls_real;
    ok(await_state(pid, 'S'), "the target runs");
    end(pid);
}

int main(void)
{
    test_cycles();
    test_kills();
    test_group_stop();
    test_churn();
    test_vfork();
    test_zombie_leader();
    test_other_tracer();
    test_ends();
    test_failures();
    return done_testing();
}
