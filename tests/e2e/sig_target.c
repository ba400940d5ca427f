/* A process under a flood of signals, to prove that stopping it loses none.
 *
 *     sig_target SECONDS        runs, then prints what was sent and taken, and exits 0 when all
 * came
 *
 * Eight busy threads; two sender processes queue real-time signals with sequence numbers to each
 * thread (one signal number a sender, so that each thread sees each sender's numbers in order), and
 * tgkill SIGUSR1, the next one only after the last was taken (standard signals do not queue).
 * Everything is counted in memory shared with whoever started it. With SIG_TARGET_NO_MAIN it is
 * included by unit tests, which fork and call sig_target_run. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIG_THREADS = 8, SIG_SENDERS = 2, SIG_IN_FLIGHT = 32 };

struct sig_shared {
    atomic_int ready, quit, tids[SIG_THREADS];
    atomic_ulong sent[SIG_SENDERS][SIG_THREADS], taken[SIG_SENDERS][SIG_THREADS];
    atomic_ulong usr1_sent[SIG_THREADS], usr1_taken[SIG_THREADS];
    atomic_ulong misordered; /* a wrong sequence number, or siginfo that is not the sender's */
    atomic_ulong work;       /* goes up as long as the target runs */
    atomic_int verdict;      /* 0 running, 1 all came, 2 something was lost */
};

static struct sig_shared *sig_shared;
static __thread int sig_self = -1;

static struct sig_shared *sig_shared_new(void)
{
    void *p = mmap(NULL, sizeof(struct sig_shared), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static void sig_on_queued(int signal, siginfo_t *info, void *context)
{
    int sender = signal - SIGRTMIN - 1;
    (void)context;
    if (sig_self < 0 || sender < 0 || sender >= SIG_SENDERS) {
        atomic_fetch_add(&sig_shared->misordered, 1);
        return;
    }
    unsigned long expected = atomic_load(&sig_shared->taken[sender][sig_self]) + 1;
    if (info->si_code != SI_QUEUE || (unsigned long)info->si_value.sival_int != expected)
        atomic_fetch_add(&sig_shared->misordered, 1);
    atomic_fetch_add(&sig_shared->taken[sender][sig_self], 1);
}

static void sig_on_usr1(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    if (sig_self < 0 || info->si_code != SI_TKILL)
        atomic_fetch_add(&sig_shared->misordered, 1);
    else
        atomic_fetch_add(&sig_shared->usr1_taken[sig_self], 1);
}

static void sig_nap(long ns)
{
    struct timespec ts = {0, ns};
    nanosleep(&ts, NULL);
}

static void *sig_thread(void *arg)
{
    sig_self = (int)(intptr_t)arg;
    atomic_store(&sig_shared->tids[sig_self], (int)syscall(SYS_gettid));
    atomic_fetch_add(&sig_shared->ready, 1);
    while (atomic_load(&sig_shared->quit) < 2) {
        atomic_fetch_add(&sig_shared->work, 1);
        if (sig_self % 2)
            sig_nap(50 * 1000);
        else
            for (volatile int i = 0; i < 20000; i++)
                ;
    }
    return NULL;
}

static void sig_queue_one(int pid, int sender, int thread)
{
    unsigned long seq = atomic_load(&sig_shared->sent[sender][thread]);
    if (seq - atomic_load(&sig_shared->taken[sender][thread]) >= SIG_IN_FLIGHT)
        return;
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_int = (int)(seq + 1);
    if (syscall(SYS_rt_tgsigqueueinfo, pid, atomic_load(&sig_shared->tids[thread]),
                SIGRTMIN + 1 + sender, &info) == 0)
        atomic_fetch_add(&sig_shared->sent[sender][thread], 1);
}

static void sig_usr1_one(int pid, int thread)
{
    if (atomic_load(&sig_shared->usr1_sent[thread]) != atomic_load(&sig_shared->usr1_taken[thread]))
        return;
    atomic_fetch_add(&sig_shared->usr1_sent[thread], 1);
    if (syscall(SYS_tgkill, pid, atomic_load(&sig_shared->tids[thread]), SIGUSR1) < 0)
        atomic_fetch_sub(&sig_shared->usr1_sent[thread], 1);
}

static void sig_sender(int pid, int sender)
{
    while (!atomic_load(&sig_shared->quit) && getppid() == pid) {
        for (int t = 0; t < SIG_THREADS; t++) {
            sig_queue_one(pid, sender, t);
            if (sender == 0)
                sig_usr1_one(pid, t);
        }
        sig_nap(20 * 1000);
    }
    _exit(0);
}

static bool sig_all_taken(void)
{
    for (int t = 0; t < SIG_THREADS; t++) {
        for (int s = 0; s < SIG_SENDERS; s++)
            if (atomic_load(&sig_shared->sent[s][t]) != atomic_load(&sig_shared->taken[s][t]))
                return false;
        if (atomic_load(&sig_shared->usr1_sent[t]) != atomic_load(&sig_shared->usr1_taken[t]))
            return false;
    }
    return true;
}

static bool sig_install(void)
{
    struct sigaction sa;
    memset(&sa, 0, sizeof sa);
    sigfillset(&sa.sa_mask);
    sa.sa_flags = SA_SIGINFO | SA_RESTART;
    sa.sa_sigaction = sig_on_usr1;
    bool good = sigaction(SIGUSR1, &sa, NULL) == 0;
    sa.sa_sigaction = sig_on_queued;
    for (int s = 0; s < SIG_SENDERS; s++)
        good = good && sigaction(SIGRTMIN + 1 + s, &sa, NULL) == 0;
    return good;
}

/* Runs until shared->quit is set, waits for the last signals, sets the verdict. */
static int sig_target_run(struct sig_shared *shared)
{
    pthread_t threads[SIG_THREADS];
    pid_t senders[SIG_SENDERS];
    int pid = getpid();
    sig_shared = shared;
    if (!sig_install())
        return 2;
    for (intptr_t t = 0; t < SIG_THREADS; t++)
        if (pthread_create(&threads[t], NULL, sig_thread, (void *)t) != 0)
            return 2;
    while (atomic_load(&shared->ready) < SIG_THREADS)
        sig_nap(1000 * 1000);
    for (int s = 0; s < SIG_SENDERS; s++) {
        senders[s] = fork();
        if (senders[s] == 0)
            sig_sender(pid, s);
    }
    atomic_fetch_add(&shared->ready, 1);
    while (!atomic_load(&shared->quit))
        sig_nap(1000 * 1000);
    for (int s = 0; s < SIG_SENDERS; s++)
        waitpid(senders[s], NULL, 0);
    for (int i = 0; i < 5000 && !sig_all_taken(); i++)
        sig_nap(1000 * 1000);
    bool good = sig_all_taken() && atomic_load(&shared->misordered) == 0;
    atomic_store(&shared->verdict, good ? 1 : 2);
    atomic_store(&shared->quit, 2);
    for (int t = 0; t < SIG_THREADS; t++)
        pthread_join(threads[t], NULL);
    return good ? 0 : 1;
}

static __attribute__((unused)) unsigned long sig_total_taken(const struct sig_shared *shared)
{
    unsigned long n = 0;
    for (int t = 0; t < SIG_THREADS; t++) {
        for (int s = 0; s < SIG_SENDERS; s++)
            n += atomic_load(&shared->taken[s][t]);
        n += atomic_load(&shared->usr1_taken[t]);
    }
    return n;
}

#ifndef SIG_TARGET_NO_MAIN
static void *sig_timer(void *arg)
{
    struct timespec ts = {*(const int *)arg, 0};
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
        ;
    atomic_store(&sig_shared->quit, 1);
    return NULL;
}

int main(int argc, char **argv)
{
    int seconds = argc > 1 ? atoi(argv[1]) : 0;
    pthread_t timer;
    sig_shared = sig_shared_new();
    if (seconds <= 0 || !sig_shared) {
        fprintf(stderr, "usage: sig_target SECONDS\n");
        return 2;
    }
    if (pthread_create(&timer, NULL, sig_timer, &seconds) != 0)
        return 2;
    int rc = sig_target_run(sig_shared);
    pthread_join(timer, NULL);
    printf("taken %lu, misordered %lu, %s\n", sig_total_taken(sig_shared),
           atomic_load(&sig_shared->misordered), rc == 0 ? "all came" : "LOST");
    return rc;
}
#endif
