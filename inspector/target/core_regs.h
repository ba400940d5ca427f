/* The registers of every thread of a stopped process, as a core's notes hold them. */
#ifndef HEAPCENSUS_CORE_REGS_H
#define HEAPCENSUS_CORE_REGS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/user.h>

#include "formats/base/err.h"
#include "inspector/target/stop.h"

struct core_regs_thread {
    int tid;
    char comm[PROC_COMM];
    char state; /* of /proc, before it was stopped */
    struct user_regs_struct general;
    struct user_fpregs_struct fp;
    size_t xstate_at, xstate_len; /* in core_regs.xstate; 0 long where the kernel gave none */
};

struct core_regs {
    struct core_regs_thread *threads; /* the thread group's leader first, if it lives */
    size_t n, cap;
    uint8_t *xstate; /* all threads' NT_X86_XSTATE */
    size_t xstate_len, xstate_cap;
};

void core_regs_init(struct core_regs *regs);
void core_regs_release(struct core_regs *regs);

/* To be called by the thread that called stop_begin, before stop_end. Three ptrace requests a
 * thread, no reading of /proc. A thread that was killed while it stood is left out. ERR_NOT_FOUND
 * when none is left, ERR_OS, ERR_NOMEM. */
int core_regs_read(struct core_regs *regs, const struct stop *stop, struct err *err) MUST_CHECK;

#endif
