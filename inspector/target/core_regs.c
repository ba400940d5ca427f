#include "inspector/target/core_regs.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#include "formats/base/vec.h"
#include "inspector/target/sys.h"

/* AMX makes it 11 KiB; what the kernel does not fill is not copied. */
enum { XSTATE_MAX = 64 * 1024 };

void core_regs_init(struct core_regs *regs)
{
    memset(regs, 0, sizeof *regs);
}

void core_regs_release(struct core_regs *regs)
{
    free(regs->threads);
    free(regs->xstate);
    core_regs_init(regs);
}

/* Bytes of the set, or -1 and errno. */
static long read_set(int tid, unsigned type, void *buf, size_t cap)
{
    struct iovec iov = {buf, cap};
    if (sys_calls.ptrace(PTRACE_GETREGSET, tid, (void *)(uintptr_t)type, &iov) < 0)
        return -1;
    return (long)iov.iov_len;
}

/* Straight into its place: the process waits. Where the kernel gives none, there is none. */
static int read_xstate(struct core_regs *regs, struct core_regs_thread *t, struct err *err)
{
    if (vec_reserve(&regs->xstate, &regs->xstate_cap, regs->xstate_len + XSTATE_MAX, 1) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the registers of %zu threads", regs->n + 1);
    long len = read_set(t->tid, NT_X86_XSTATE, regs->xstate + regs->xstate_len, XSTATE_MAX);
    t->xstate_at = regs->xstate_len;
    t->xstate_len = len > 0 ? (size_t)len : 0;
    regs->xstate_len += t->xstate_len;
    return 0;
}

static int read_thread(struct core_regs *regs, const struct stop_thread *from, struct err *err)
{
    if (vec_reserve(&regs->threads, &regs->cap, regs->n + 1, sizeof *regs->threads) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu threads", regs->n + 1);
    struct core_regs_thread *t = &regs->threads[regs->n];
    memset(t, 0, sizeof *t);
    t->tid = from->tid;
    t->state = from->state;
    memcpy(t->comm, from->comm, sizeof t->comm);
    long general = read_set(t->tid, NT_PRSTATUS, &t->general, sizeof t->general);
    long fp = general < 0 ? -1 : read_set(t->tid, NT_PRFPREG, &t->fp, sizeof t->fp);
    if (fp < 0 && errno == ESRCH)
        return 0;
    if (fp < 0)
        return err_os(err, errno, "cannot read the registers of thread %d", t->tid);
    int rc = read_xstate(regs, t, err);
    if (rc == 0)
        regs->n++;
    return rc;
}

static void leader_first(struct core_regs *regs, int pid)
{
    for (size_t i = 1; i < regs->n; i++) {
        if (regs->threads[i].tid != pid)
            continue;
        struct core_regs_thread leader = regs->threads[i];
        memmove(regs->threads + 1, regs->threads, i * sizeof *regs->threads);
        regs->threads[0] = leader;
        return;
    }
}

int core_regs_read(struct core_regs *regs, const struct stop *stop, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < stop->n; i++)
        if (stop->threads[i].has_regs && !stop->threads[i].gone)
            rc = read_thread(regs, &stop->threads[i], err);
    if (rc == 0 && regs->n == 0)
        rc = err_set(err, ERR_NOT_FOUND, "process %d exited while it was being stopped", stop->pid);
    leader_first(regs, stop->pid);
    return rc;
}
