/* The system calls of this room that can fail in ways worth testing, as a table: the failure loops
 * of tests/unit/ make the i-th call fail. The product never changes it. Every function follows the
 * system's convention: -1 and errno. */
#ifndef HEAPCENSUS_SYS_H
#define HEAPCENSUS_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/wait.h>

struct sys_calls {
    long (*ptrace)(int request, pid_t tid, void *addr, void *data);
    int (*waitid)(idtype_t type, id_t id, siginfo_t *info, int options);
    ssize_t (*pread)(int fd, void *buf, size_t len, off_t at);
    int (*ioctl)(int fd, unsigned long request, void *arg);
    void *(*map)(size_t len); /* private anonymous, readable and writable; NULL and errno */
};

extern struct sys_calls sys_calls;
/* What sys_calls starts with, for tests that wrap or restore it. */
extern const struct sys_calls sys_calls_real;

/* CLOCK_MONOTONIC in nanoseconds: what every deadline in this room is measured in. */
uint64_t sys_now_ns(void);
/* Sleep for at most ns (shorter when a signal arrives). */
void sys_nap(uint64_t ns);

#endif
