/* Writing a core file of a live process: stop, copy what the process's coredump_filter wants, let
 * go, write. */
#ifndef HEAPCENSUS_COREDUMP_H
#define HEAPCENSUS_COREDUMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "inspector/cmd.h"

struct coredump {
    uint64_t written; /* bytes of memory that the file holds */
    uint64_t mapped;  /* bytes of all mappings */
    uint64_t paused_ns;
    size_t threads;
    /* Why the core is incomplete; 0 and false when it is not. Bytes. */
    uint64_t swapped;  /* swapped out: reading would have swapped them in */
    uint64_t unread;   /* present pages that the kernel would not give, or that were not foreseen */
    uint64_t skipped;  /* address ranges too large for this kernel's pagemap */
    uint64_t unfilled; /* pages of files that are not in memory and whose file cannot be read */
    char unfilled_name[256];
    bool late; /* --max-pause was reached: the rest was read while the process ran */
};

/* Write a core of the process opt->pid into the empty regular file fd, which stays the caller's;
 * `name` is for messages. The process runs again, or is as it was found, when this returns,
 * whatever it returns.
 *
 * - READ_AUTO, READ_COPY: the pause is the copying. ERR_NOMEM, before anything is stopped, when
 *   there is no room for a copy: `auto` never takes windows here, as a disk is too slow to make a
 *   process wait for it unasked.
 * - READ_WINDOW: the bytes go straight to the file while the process stands still.
 * - A process that another tracer holds is refused (ERR_PERMISSION): its registers cannot be read
 *   beside that tracer, and a core without them tells a debugger nothing.
 * Pages of mapped files that the process has not in memory are read from the files after the
 * pause, from shared memory too: what it or others wrote there since is in the core.
 * ERR_OS with ENOSPC, before the stop, when the file system has too little room. Further errors as
 * proc_diagnose's and stop_begin's; ERR_INTERRUPTED. */
int coredump_take(const struct options *opt, int fd, const char *name, struct coredump *ret,
                  struct err *err) MUST_CHECK;

#endif
