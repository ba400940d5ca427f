#define _GNU_SOURCE /* TRAP_BRKPT and its like */
#include <signal.h>
#include <stdio.h>

#include "inspector/target/core.h"

/* The numbers of x86-64: a core's, not those of whoever reads it, though they are the same. */
static const char *const names[] = {
    NULL,        "SIGHUP",  "SIGINT",    "SIGQUIT", "SIGILL",   "SIGTRAP", "SIGABRT", "SIGBUS",
    "SIGFPE",    "SIGKILL", "SIGUSR1",   "SIGSEGV", "SIGUSR2",  "SIGPIPE", "SIGALRM", "SIGTERM",
    "SIGSTKFLT", "SIGCHLD", "SIGCONT",   "SIGSTOP", "SIGTSTP",  "SIGTTIN", "SIGTTOU", "SIGURG",
    "SIGXCPU",   "SIGXFSZ", "SIGVTALRM", "SIGPROF", "SIGWINCH", "SIGIO",   "SIGPWR",  "SIGSYS",
};

const char *core_signal_name(int number, char *buf, size_t cap)
{
    if (number > 0 && (size_t)number < sizeof names / sizeof names[0])
        return names[number];
    snprintf(buf, cap, "signal %d", number);
    return buf;
}

enum { ANY_SIGNAL = 0 };

/* The first that fits: what is special to a signal comes before what holds for all. */
static const struct {
    int number, code;
    const char *text;
} reasons[] = {
    {SIGSEGV, SEGV_MAPERR, "address not mapped"},
    {SIGSEGV, SEGV_ACCERR, "no permission for that access"},
    {SIGSEGV, SEGV_BNDERR, "a bound check failed"},
    {SIGSEGV, SEGV_PKUERR, "forbidden by a protection key"},
    {SIGSEGV, 10, "a return address differs from the shadow stack"}, /* SEGV_CPERR, Linux 6.6 */
    {SIGSEGV, SI_KERNEL, "sent by the kernel: most often an address that cannot exist"},
    {SIGBUS, BUS_ADRALN, "address not aligned"},
    {SIGBUS, BUS_ADRERR, "beyond the end of a mapped file"},
    {SIGBUS, BUS_OBJERR, "hardware error"},
    {SIGBUS, BUS_MCEERR_AR, "memory failed"},
    {SIGBUS, BUS_MCEERR_AO, "memory failed"},
    {SIGFPE, FPE_INTDIV, "integer division by zero"},
    {SIGFPE, FPE_INTOVF, "integer overflow"},
    {SIGFPE, FPE_FLTDIV, "floating point division by zero"},
    {SIGFPE, FPE_FLTOVF, "floating point overflow"},
    {SIGFPE, FPE_FLTUND, "floating point underflow"},
    {SIGFPE, FPE_FLTRES, "inexact floating point result"},
    {SIGFPE, FPE_FLTINV, "invalid floating point operation"},
    {SIGFPE, FPE_FLTSUB, "subscript out of range"},
    {SIGILL, ILL_ILLOPC, "illegal opcode"},
    {SIGILL, ILL_ILLOPN, "illegal instruction"}, /* what x86 reports for all of them */
    {SIGILL, ILL_ILLADR, "illegal addressing mode"},
    {SIGILL, ILL_ILLTRP, "illegal trap"},
    {SIGILL, ILL_PRVOPC, "privileged opcode"},
    {SIGILL, ILL_PRVREG, "privileged register"},
    {SIGILL, ILL_COPROC, "coprocessor error"},
    {SIGILL, ILL_BADSTK, "internal stack error"},
    {SIGTRAP, TRAP_BRKPT, "breakpoint"},
    {SIGTRAP, TRAP_TRACE, "single step"},
    {SIGTRAP, TRAP_BRANCH, "branch taken"},
    {SIGTRAP, TRAP_HWBKPT, "hardware breakpoint or watchpoint"},
    {SIGTRAP, SI_KERNEL, "breakpoint"}, /* int3: what x86 reports in place of TRAP_BRKPT */
    {SIGSYS, 1, "a system call that a seccomp filter forbids"}, /* SYS_SECCOMP */
    {SIGABRT, SI_TKILL, "sent by tgkill, as abort does to its own process"},
    {ANY_SIGNAL, SI_USER, "sent by kill"},
    {ANY_SIGNAL, SI_TKILL, "sent by tgkill, as raise does"},
    {ANY_SIGNAL, SI_QUEUE, "sent by sigqueue"},
    {ANY_SIGNAL, SI_KERNEL, "sent by the kernel"},
    {ANY_SIGNAL, SI_TIMER, "a timer expired"},
    {ANY_SIGNAL, SI_MESGQ, "a message queue is not empty any more"},
    {ANY_SIGNAL, SI_ASYNCIO, "asynchronous input or output is done"},
    {ANY_SIGNAL, SI_SIGIO, "input or output is possible"},
};

const char *core_signal_reason(const struct core_signal *sig)
{
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0] && sig->known; i++)
        if ((reasons[i].number == sig->number || reasons[i].number == ANY_SIGNAL) &&
            reasons[i].code == sig->code)
            return reasons[i].text;
    return "";
}
