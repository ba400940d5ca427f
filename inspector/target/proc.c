#include "inspector/target/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/procfile.h"

enum { PF_KTHREAD_BIT = 0x00200000, PATH_BYTES = 128 };

static uint64_t kib(const char *text, const char *key)
{
    uint64_t bytes;
    return mul_overflows(procfile_number(text, key, 10), 1024, &bytes) ? 0 : bytes;
}

/* Numbers out of hostile text: cut to what an int holds. */
static int small_int(uint64_t v)
{
    return v > INT_MAX ? INT_MAX : (int)v;
}

static void parse_ns_pid(const char *text, struct proc_status *ret)
{
    const char *p = procfile_value(text, "NSpid");
    ret->ns_pid = ret->pid;
    ret->ns_depth = 0;
    while (p && *p >= '0' && *p <= '9') {
        char *end;
        ret->ns_pid = small_int(strtoull(p, &end, 10));
        ret->ns_depth++;
        p = end + strspn(end, " \t");
    }
}

static void parse_uids(const char *text, struct proc_status *ret)
{
    const char *p = procfile_value(text, "Uid");
    if (!p)
        return;
    char *end;
    ret->uid = (uint32_t)strtoull(p, &end, 10);
    ret->euid = (uint32_t)strtoull(end, NULL, 10);
    p = procfile_value(text, "Gid");
    ret->gid = p ? (uint32_t)strtoull(p, NULL, 10) : 0;
}

void proc_status_parse(const char *text, struct proc_status *ret)
{
    const char *state = procfile_value(text, "State");
    ret->state = state && *state && *state != '\n' ? *state : '?';
    ret->pid = small_int(procfile_number(text, "Pid", 10));
    ret->tgid = small_int(procfile_number(text, "Tgid", 10));
    ret->ppid = small_int(procfile_number(text, "PPid", 10));
    ret->tracer = small_int(procfile_number(text, "TracerPid", 10));
    ret->threads = procfile_number(text, "Threads", 10);
    ret->seccomp = small_int(procfile_number(text, "Seccomp", 10));
    ret->cap_prm = procfile_number(text, "CapPrm", 16);
    ret->cap_eff = procfile_number(text, "CapEff", 16);
    ret->vm_size = kib(text, "VmSize");
    ret->vm_rss = kib(text, "VmRSS");
    ret->rss_anon = kib(text, "RssAnon");
    ret->rss_file = kib(text, "RssFile");
    ret->rss_shmem = kib(text, "RssShmem");
    ret->vm_swap = kib(text, "VmSwap");
    ret->vm_pte = kib(text, "VmPTE");
    parse_uids(text, ret);
    parse_ns_pid(text, ret);
}

/* The command name may hold blanks, parentheses and newlines: it ends at the LAST ')'. */
static const char *stat_comm(const char *text, char *comm)
{
    const char *open = strchr(text, '('), *close = strrchr(text, ')');
    if (!open || !close || close < open)
        return NULL;
    size_t len = (size_t)(close - open - 1);
    if (len >= PROC_COMM)
        len = PROC_COMM - 1;
    memcpy(comm, open + 1, len);
    comm[len] = '\0';
    return close[1] == ' ' ? close + 2 : NULL;
}

/* The blank-separated field `n` of a stat line, counted as in proc(5): field 3 is the state. */
static const char *stat_field(const char *after_comm, int n)
{
    const char *p = after_comm;
    for (int i = 3; i < n && p; i++) {
        p = strchr(p, ' ');
        p = p ? p + 1 : NULL;
    }
    return p && *p ? p : NULL;
}

int proc_stat_parse(const char *text, struct proc_status *ret, struct err *err)
{
    const char *rest = stat_comm(text, ret->name);
    const char *flags = rest ? stat_field(rest, 9) : NULL;
    const char *start = rest ? stat_field(rest, 22) : NULL;
    const char *policy = rest ? stat_field(rest, 41) : NULL;
    if (!flags || !start)
        return err_set(err, ERR_FORMAT, "a stat file of /proc has too few fields");
    ret->kernel_thread = strtoull(flags, NULL, 10) & PF_KTHREAD_BIT;
    ret->start_time = strtoull(start, NULL, 10);
    ret->policy = policy ? small_int(strtoull(policy, NULL, 10)) : 0;
    return 0;
}

static int not_found(struct err *err, int pid)
{
    err_set(err, ERR_NOT_FOUND, "there is no process %d", pid);
    err_remedy(err, "check the number with ps or pgrep; in a container it differs from the host's");
    return ERR_NOT_FOUND;
}

int proc_status_read(int pid, struct proc_status *ret, struct err *err)
{
    char path[PATH_BYTES];
    char *text;
    size_t len;
    struct proc_status st = {.state = '?'};
    snprintf(path, sizeof path, "/proc/%d/status", pid);
    int rc = procfile_read(path, &text, &len, err);
    if (rc < 0)
        return rc == ERR_NOT_FOUND ? not_found(err, pid) : rc;
    proc_status_parse(text, &st);
    free(text);
    char stat[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (!procfile_small(path, stat, sizeof stat))
        return not_found(err, pid);
    rc = proc_stat_parse(stat, &st, err);
    if (rc < 0)
        return rc;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    ssize_t n = readlink(path, st.exe, sizeof st.exe - 1);
    st.exe[n > 0 ? n : 0] = '\0';
    *ret = st;
    return 0;
}

bool proc_task_read(int pid, int tid, struct proc_task *ret)
{
    char path[PATH_BYTES], stat[1024];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
    if (!procfile_small(path, stat, sizeof stat))
        return false;
    const char *rest = stat_comm(stat, ret->comm);
    const char *threads = rest ? stat_field(rest, 20) : NULL;
    if (!threads)
        return false;
    ret->state = *rest;
    ret->threads = strtoull(threads, NULL, 10);
    return true;
}

int proc_task_tracer(int pid, int tid)
{
    char path[PATH_BYTES], status[4096];
    snprintf(path, sizeof path, "/proc/%d/task/%d/status", pid, tid);
    if (!procfile_small(path, status, sizeof status))
        return 0;
    return small_int(procfile_number(status, "TracerPid", 10));
}

void proc_comm(int pid, char *buf, size_t cap)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/proc/%d/comm", pid);
    if (!procfile_small(path, buf, cap))
        snprintf(buf, cap, "?");
}

void proc_tasks_init(struct proc_tasks *tasks)
{
    memset(tasks, 0, sizeof *tasks);
}

void proc_tasks_release(struct proc_tasks *tasks)
{
    free(tasks->tids);
    proc_tasks_init(tasks);
}

int proc_tasks_read(int pid, struct proc_tasks *tasks, struct err *err)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT || errno == ESRCH ? not_found(err, pid)
                                                 : procfile_failed(err, errno, path);
    int rc = 0;
    struct dirent *entry;
    tasks->n = 0;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        unsigned long tid = strtoul(entry->d_name, NULL, 10);
        if (tid == 0 || tid > INT_MAX)
            continue;
        rc = vec_reserve(&tasks->tids, &tasks->cap, tasks->n + 1, sizeof *tasks->tids);
        if (rc == 0)
            tasks->tids[tasks->n++] = (int)tid;
        else
            err_set(err, rc, "no memory for the list of threads");
    }
    closedir(dir);
    return rc;
}

static bool task_lives(int pid, int tid)
{
    struct proc_task task;
    return proc_task_read(pid, tid, &task) && task.state != 'Z' && task.state != 'X';
}

int proc_live_tid(int pid, int *ret, struct err *err)
{
    if (task_lives(pid, pid)) {
        *ret = pid;
        return 0;
    }
    struct proc_tasks tasks;
    proc_tasks_init(&tasks);
    int rc = proc_tasks_read(pid, &tasks, err);
    int found = 0;
    for (size_t i = 0; rc == 0 && i < tasks.n && !found; i++)
        if (task_lives(pid, tasks.tids[i]))
            found = tasks.tids[i];
    proc_tasks_release(&tasks);
    if (rc == 0 && !found)
        rc = err_set(err, ERR_NOT_FOUND, "process %d has exited", pid);
    if (rc == 0)
        *ret = found;
    return rc;
}

int proc_open(int pid, const char *name, int flags, struct err *err)
{
    int tid;
    char path[PATH_BYTES];
    int rc = proc_live_tid(pid, &tid, err);
    if (rc < 0)
        return rc;
    if (tid == pid)
        snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    else
        snprintf(path, sizeof path, "/proc/%d/task/%d/%s", pid, tid, name);
    int fd = open(path, flags | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    if (errno == EACCES || errno == EPERM)
        return proc_denied(pid, errno, err);
    return procfile_failed(err, errno, path);
}
