/* What /proc says about a process, and why the kernel will not let us read it.
 *
 * A process whose first thread has exited while others live on ("zombie leader") has an empty
 * /proc/PID/maps, mem and pagemap; the same files under /proc/PID/task/TID of a live thread work.
 * proc_open goes there by itself, so nobody else needs to know. */
#ifndef HEAPCENSUS_PROC_H
#define HEAPCENSUS_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"

enum { PROC_COMM = 64, PROC_EXE = 4096 };

struct proc_status {
    int pid, tgid, ppid;
    int tracer; /* TracerPid: the tracing thread, 0 for none */
    int ns_pid; /* the process's number in its own (innermost) PID namespace */
    int ns_depth;
    char state; /* R S D T t Z X I, '?' when unknown */
    char name[PROC_COMM];
    uint32_t uid, euid, gid;
    uint64_t threads;
    int seccomp;               /* 0 none, 1 strict, 2 filter */
    uint64_t cap_prm, cap_eff; /* capability masks */
    uint64_t vm_size, vm_rss;  /* bytes, as are the next ones */
    uint64_t rss_anon, rss_file, rss_shmem;
    uint64_t vm_swap, vm_pte;
    bool kernel_thread;
    int policy;          /* scheduling class (SCHED_*) */
    uint64_t start_time; /* clock ticks since boot: tells a reused PID */
    char exe[PROC_EXE];  /* "" when not readable */
};

/* Everything above, of /proc/PID. ERR_NOT_FOUND when there is no such process. Only `status` and
 * `stat`, which are readable by everyone, are needed. */
int proc_status_read(int pid, struct proc_status *ret, struct err *err) MUST_CHECK;
/* The two parsers, pure, for hostile text: fill what they find. `stat` returns ERR_FORMAT when the
 * command name is not closed or fields are missing. */
void proc_status_parse(const char *text, struct proc_status *ret);
int proc_stat_parse(const char *text, struct proc_status *ret, struct err *err) MUST_CHECK;

/* One thread, from its stat file. False when it is gone. */
struct proc_task {
    char state;
    char comm[PROC_COMM];
    uint64_t threads; /* of the whole process, exited ones that are not yet reaped included */
};
bool proc_task_read(int pid, int tid, struct proc_task *ret);
/* TracerPid of one thread, 0 for none or gone. */
int proc_task_tracer(int pid, int tid);
/* "comm" of any process, "?" when unknown. */
void proc_comm(int pid, char *buf, size_t cap);

/* The thread numbers in /proc/PID/task, in no order. The array is reused from call to call. */
struct proc_tasks {
    int *tids;
    size_t n, cap;
};
void proc_tasks_init(struct proc_tasks *tasks);
void proc_tasks_release(struct proc_tasks *tasks);
int proc_tasks_read(int pid, struct proc_tasks *tasks, struct err *err) MUST_CHECK;

/* A thread through which maps, mem and pagemap are readable: the leader unless it is a zombie. */
int proc_live_tid(int pid, int *ret, struct err *err) MUST_CHECK;
/* A descriptor of /proc/PID/NAME or of /proc/PID/task/TID/NAME, or a negative err_code. A refusal
 * is explained as by proc_denied. */
int proc_open(int pid, const char *name, int flags, struct err *err) MUST_CHECK;

/* 0 when the process can be read; otherwise one line of cause and one of remedy: ERR_NOT_FOUND (no
 * such process, or a thread's number), ERR_NOT_FOUND (exited, not yet reaped), ERR_UNSUPPORTED
 * (kernel thread, 32-bit), ERR_PERMISSION. */
int proc_diagnose(int pid, struct err *err) MUST_CHECK;
/* Why ptrace or /proc/PID/mem refused us: always ERR_PERMISSION. `os_errno` is what the refused
 * call gave (0 if unknown). */
int proc_denied(int pid, int os_errno, struct err *err);
/* kernel.yama.ptrace_scope, or -1 where the kernel has no Yama. */
int proc_yama_scope(void);

#endif
