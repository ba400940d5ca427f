/* Why a process cannot be read: the kernel says only EPERM, this finds the rule behind it. */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "inspector/target/proc.h"
#include "inspector/target/procfile.h"

enum { CAP_SYS_PTRACE_BIT = 19, ELF_IDENT_BYTES = 20, ELF_CLASS_AT = 4, ELF_MACHINE_AT = 18 };

/* What the refusal rules look at. */
struct denial {
    int pid, yama;
    struct proc_status target, self;
    bool can_ptrace; /* we hold CAP_SYS_PTRACE, in our own user namespace */
    bool root_owned; /* its files in /proc are root's although it is not: not dumpable */
    bool same_userns, userns_known;
};

int proc_yama_scope(void)
{
    char text[16];
    if (!procfile_small("/proc/sys/kernel/yama/ptrace_scope", text, sizeof text))
        return -1;
    return (int)strtol(text, NULL, 10);
}

static bool userns_of(const char *pid, struct stat *ret)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/ns/user", pid);
    return stat(path, ret) == 0;
}

static void denial_gather(struct denial *d, int pid)
{
    char text[32];
    struct stat st, ours;
    memset(d, 0, sizeof *d);
    d->pid = pid;
    d->yama = proc_yama_scope();
    if (proc_status_read(pid, &d->target, NULL) < 0 ||
        proc_status_read(getpid(), &d->self, NULL) < 0)
        return;
    d->can_ptrace = d->self.cap_eff >> CAP_SYS_PTRACE_BIT & 1;
    /* The directory itself keeps its owner; the files in it do not. */
    snprintf(text, sizeof text, "/proc/%d/stat", pid);
    d->root_owned = stat(text, &st) == 0 && st.st_uid == 0 && d->target.euid != 0;
    snprintf(text, sizeof text, "%d", pid);
    d->userns_known = userns_of(text, &st) && userns_of("self", &ours);
    d->same_userns = d->userns_known && st.st_ino == ours.st_ino && st.st_dev == ours.st_dev;
}

static void user_name(uint32_t uid, char *buf, size_t cap)
{
    struct passwd *pw = getpwuid(uid);
    if (pw && pw->pw_name)
        snprintf(buf, cap, "%s", pw->pw_name);
    else
        snprintf(buf, cap, "uid %u", uid);
}

/* Each rule returns true when it applies, with cause and remedy set. */
static bool rule_traced(const struct denial *d, struct err *err)
{
    char name[PROC_COMM];
    if (!d->target.tracer)
        return false;
    proc_comm(d->target.tracer, name, sizeof name);
    err_set(err, ERR_PERMISSION, "process %d is already being traced by %s (process %d)", d->pid,
            name, d->target.tracer);
    err_remedy(err, "let %s detach first; a process that it has stopped can be read as it is",
               name);
    return true;
}

static bool rule_yama_never(const struct denial *d, struct err *err)
{
    if (d->yama != 3)
        return false;
    err_set(err, ERR_PERMISSION,
            "kernel.yama.ptrace_scope is 3: this system forbids tracing any process");
    err_remedy(err, "it can only be changed by a reboot; read a core file instead");
    return true;
}

static bool rule_userns(const struct denial *d, struct err *err)
{
    if (!d->userns_known || d->same_userns)
        return false;
    err_set(err, ERR_PERMISSION, "process %d runs in another user namespace", d->pid);
    err_remedy(err, "run heapcensus as root outside, or inside the same container");
    return true;
}

static bool rule_other_user(const struct denial *d, struct err *err)
{
    char theirs[64], ours[64];
    if (d->can_ptrace || d->target.uid == d->self.uid)
        return false;
    user_name(d->target.uid, theirs, sizeof theirs);
    user_name(d->self.uid, ours, sizeof ours);
    err_set(err, ERR_PERMISSION, "process %d belongs to %s, and %s has no CAP_SYS_PTRACE", d->pid,
            theirs, ours);
    if (d->self.uid == 0)
        err_remedy(err, "give this container the capability (docker run --cap-add SYS_PTRACE)");
    else if (d->target.uid == 0)
        err_remedy(err, "run heapcensus as root (sudo)");
    else
        err_remedy(err, "run heapcensus as %s or as root (sudo)", theirs);
    return true;
}

static bool rule_other_group(const struct denial *d, struct err *err)
{
    if (d->can_ptrace || d->target.gid == d->self.gid)
        return false;
    err_set(err, ERR_PERMISSION,
            "process %d runs with group %u, heapcensus with %u: the kernel wants both the same",
            d->pid, d->target.gid, d->self.gid);
    err_remedy(err, "run heapcensus as root (sudo), or with the process's own group");
    return true;
}

static bool rule_not_dumpable(const struct denial *d, struct err *err)
{
    if (d->can_ptrace || !d->root_owned)
        return false;
    err_set(err, ERR_PERMISSION,
            "process %d is not dumpable (a setuid program, or prctl PR_SET_DUMPABLE 0)", d->pid);
    err_remedy(err, "run heapcensus as root (sudo): it needs CAP_SYS_PTRACE");
    return true;
}

static bool rule_capabilities(const struct denial *d, struct err *err)
{
    if (d->can_ptrace || !(d->target.cap_prm & ~d->self.cap_prm))
        return false;
    err_set(err, ERR_PERMISSION, "process %d holds capabilities that heapcensus lacks", d->pid);
    err_remedy(err, "run heapcensus as root (sudo): it needs CAP_SYS_PTRACE");
    return true;
}

static bool rule_yama(const struct denial *d, struct err *err)
{
    if (d->can_ptrace || d->yama < 1)
        return false;
    if (d->yama == 1)
        err_set(err, ERR_PERMISSION,
                "kernel.yama.ptrace_scope is 1: only a parent may read process %d", d->pid);
    else
        err_set(err, ERR_PERMISSION,
                "kernel.yama.ptrace_scope is %d: reading process %d needs CAP_SYS_PTRACE", d->yama,
                d->pid);
    err_remedy(err, "run heapcensus as root (sudo), or sysctl kernel.yama.ptrace_scope=0");
    return true;
}

static bool rule_seccomp(const struct denial *d, struct err *err)
{
    if (!d->self.seccomp)
        return false;
    err_set(err, ERR_PERMISSION,
            "the kernel refused to open process %d, and heapcensus itself runs under seccomp",
            d->pid);
    err_remedy(err, "allow ptrace in the container's seccomp profile "
                    "(docker run --cap-add SYS_PTRACE)");
    return true;
}

int proc_denied(int pid, int os_errno, struct err *err)
{
    static bool (*const rules[])(const struct denial *, struct err *) = {
        rule_traced,       rule_yama_never,   rule_other_user, rule_userns, rule_other_group,
        rule_not_dumpable, rule_capabilities, rule_yama,       rule_seccomp};
    struct denial *d = malloc(sizeof *d);
    bool told = false;
    if (d) {
        denial_gather(d, pid);
        for (size_t i = 0; i < sizeof rules / sizeof rules[0] && !told; i++)
            told = rules[i](d, err);
        free(d);
    }
    if (!told) {
        err_set(err, ERR_PERMISSION,
                "the kernel refused to open process %d: a security module or a namespace rule",
                pid);
        err_remedy(err, "run heapcensus as root outside of containers, or look at the kernel log");
    }
    if (err)
        err->os_errno = os_errno;
    return ERR_PERMISSION;
}

static int missing(int pid, struct err *err)
{
    if (pid > 0 && kill(pid, 0) < 0 && errno == EPERM) {
        err_set(err, ERR_PERMISSION, "process %d exists, but /proc hides it (hidepid)", pid);
        err_remedy(err, "run heapcensus as root (sudo)");
        return ERR_PERMISSION;
    }
    err_set(err, ERR_NOT_FOUND, "there is no process %d", pid);
    err_remedy(err, "check the number with ps or pgrep; in a container it differs from the host's");
    return ERR_NOT_FOUND;
}

static int check_zombie(const struct proc_status *st, struct err *err)
{
    int tid;
    char parent[PROC_COMM];
    if (st->state != 'Z' && st->state != 'X')
        return 0;
    if (proc_live_tid(st->pid, &tid, NULL) == 0)
        return 0; /* only the first thread has exited */
    proc_comm(st->ppid, parent, sizeof parent);
    err_set(err, ERR_NOT_FOUND, "process %d (%s) has exited, not yet reaped by process %d (%s)",
            st->pid, st->name, st->ppid, parent);
    err_remedy(err, "its memory is gone; read a process that runs, or a core file");
    return ERR_NOT_FOUND;
}

static int check_elf_class(const struct proc_status *st, struct err *err)
{
    char path[64];
    uint8_t ident[ELF_IDENT_BYTES];
    snprintf(path, sizeof path, "/proc/%d/exe", st->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return 0; /* the permission check says more than this would */
    ssize_t got = pread(fd, ident, sizeof ident, 0);
    close(fd);
    if (got < (ssize_t)sizeof ident || memcmp(ident, "\177ELF", 4) != 0)
        return 0;
    if (ident[ELF_CLASS_AT] != 1)
        return 0;
    err_set(err, ERR_UNSUPPORTED, "process %d (%s) is a 32-bit program", st->pid, st->name);
    err_remedy(err, "only 64-bit x86-64 processes can be read");
    return ERR_UNSUPPORTED;
}

static int check_kind(const struct proc_status *st, struct err *err)
{
    if (st->tgid != st->pid) {
        err_set(err, ERR_NOT_FOUND, "%d is a thread of process %d (%s)", st->pid, st->tgid,
                st->name);
        err_remedy(err, "use %d", st->tgid);
        return ERR_NOT_FOUND;
    }
    if (st->kernel_thread) {
        err_set(err, ERR_UNSUPPORTED, "process %d (%s) is a kernel thread", st->pid, st->name);
        err_remedy(err, "kernel threads have no heap; choose a process of your own");
        return ERR_UNSUPPORTED;
    }
    int rc = check_zombie(st, err);
    return rc < 0 ? rc : check_elf_class(st, err);
}

int proc_diagnose(int pid, struct err *err)
{
    struct proc_status *st = malloc(sizeof *st);
    if (!st)
        return err_set(err, ERR_NOMEM, "no memory for the status of process %d", pid);
    int rc = proc_status_read(pid, st, err);
    if (rc == ERR_NOT_FOUND)
        rc = missing(pid, err);
    else if (rc == 0)
        rc = check_kind(st, err);
    free(st);
    if (rc < 0)
        return rc;
    int fd = proc_open(pid, "mem", O_RDONLY, err);
    if (fd < 0)
        return fd;
    close(fd);
    return 0;
}
