/* ELF core files of x86-64 Linux processes: what one says, checked against the file it lies in.
 *
 * Written by the kernel, by gdb's gcore or by heapcensus core; whole, cut short, sparse, larger
 * than memory, compressed. Everything in a core is hostile: offsets and sizes are checked against
 * the file, lists are bounded, a note that lies is left out. A damaged or cut core opens as long as
 * its header and program headers are there; what is missing is counted.
 *
 * The writers differ:
 * - the kernel writes a segment for every mapping (p_filesz 0 or one page for what the filter
 * leaves out), with holes in the file for pages that were never touched;
 * - gcore (gdb 13) leaves out segments that it does not dump, so that NT_FILE alone tells of text
 *   mappings; it dumps PROT_NONE reservations as zeros and calls them readable; p_align is 1; holes
 *   only from gdb 14 on;
 * - heapcensus core writes as the kernel does, and adds notes of its own (core_note.h) from which a
 *   census knows all that /proc said. */
#ifndef HEAPCENSUS_CORE_H
#define HEAPCENSUS_CORE_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/base/strpool.h"
#include "walker/vma.h"

enum core_writer { CORE_BY_KERNEL, CORE_BY_GDB, CORE_BY_HEAPCENSUS };

/* One PT_LOAD, sorted by address and disjoint (an overlapping one is dropped and counted). */
struct core_segment {
    uint64_t start, end; /* memory */
    uint64_t offset;     /* in the file */
    uint64_t dumped;     /* bytes from `start` on that the core should hold (p_filesz) */
    uint64_t here;       /* ... and that the file really has: less in a core cut short */
    bool r, w, x;
};

/* One entry of NT_FILE: a mapping of a file. Sorted by address. */
struct core_file {
    uint64_t start, end, offset; /* offset in bytes */
    const char *path;            /* as the target saw it; owned by `names` */
};

/* One NT_PRSTATUS, in the order of the notes: the first is the thread that caught the signal. */
struct core_thread {
    int tid;
    int signal; /* pr_cursig; 0 for none */
    uint64_t fs_base, rsp, rip;
    const char *name; /* from a note of heapcensus core, else NULL */
};

enum { CORE_CODE_UNKNOWN = 32767 }; /* no si_code of any signal */

struct core_signal {
    /* There is an NT_SIGINFO, or a thread has a current signal. Not of a gcore of a running
     * process: its NT_SIGINFO tells of the SIGSTOP of gdb itself. */
    bool known;
    int number;
    int code;         /* si_code; CORE_CODE_UNKNOWN without an NT_SIGINFO */
    uint64_t address; /* si_addr of SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP; else 0 */
    int sender_pid;   /* si_pid where the code says that somebody sent it; else 0 */
    uint32_t sender_uid;
};

/* Facts of heapcensus core (core_note.h); strings NULL and numbers 0 elsewhere. */
struct core_facts {
    const char *taken_at, *started_at; /* ISO 8601 UTC */
    const char *host, *exe, *exe_build_id;
    uint64_t paused_ns;
    bool consistent;
    const char *maps, *smaps; /* the texts of /proc/PID/maps and smaps; NULL without */
    size_t maps_len, smaps_len;
    struct page_run *runs; /* present pages; owned */
    size_t n_runs;
    bool has_runs;
};

struct core {
    int fd; /* owned; of the decompressed file where it was compressed */
    const char
        *packed;   /* "zstd", "lz4", "xz", "gzip", "bzip2" when the core was compressed, or NULL */
    uint64_t size; /* of fd, bytes */
    enum core_writer writer;

    struct core_segment *segments;
    size_t n_segments, cap_segments;
    struct core_file *files;
    size_t n_files, cap_files;
    struct core_thread *threads;
    size_t n_threads, cap_threads;

    bool has_process; /* NT_PRPSINFO was there: pid ... args are known */
    int pid, ppid;    /* pid: also from the first thread where there is no NT_PRPSINFO */
    uint32_t uid, gid;
    char comm[17]; /* pr_fname, "" when unknown */
    char args[81]; /* pr_psargs: the first 79 bytes of the command line */
    struct core_signal signal;

    /* NT_AUXV; 0 when absent. */
    uint64_t at_phdr, at_entry, at_base, at_sysinfo_ehdr, at_random, at_execfn;

    struct core_facts facts;

    /* Coverage: of the bytes that the segments should have in the file, those that are there. */
    uint64_t dumped_bytes, here_bytes;
    bool truncated;   /* the file ends before the last segment does */
    bool notes_cut;   /* the file ends within the notes, or a note runs past their end */
    size_t bad_notes; /* notes that were there but made no sense */
    size_t dropped;   /* segments that overlap another, wrap, or are not page aligned */
    struct strpool names;
};

/* Open a core of this machine's files, compressed or not. ERR_NOT_FOUND (no such file), ERR_FORMAT
 * (no ELF core, or cut within its header or program headers: the text says which),
 * ERR_UNSUPPORTED (another architecture, 32-bit), ERR_PERMISSION, ERR_OS, ERR_NOMEM,
 * ERR_INTERRUPTED while decompressing (`interrupted` may be NULL). */
int core_open(const char *path, const volatile sig_atomic_t *interrupted, struct core *ret,
              struct err *err) MUST_CHECK;
/* The same from a descriptor of an uncompressed regular file, which is taken over also on failure.
 */
int core_open_fd(int fd, struct core *ret, struct err *err) MUST_CHECK;
void core_close(struct core *core); /* also of a zeroed struct */

/* Is this file an ELF file, a core or not, compressed or not? Then core_open says what it is. Also
 * a compressed file of which nothing can be decompressed, but for gzip: a snapshot may be that.
 * Reads at most its first few KiB. False also when it cannot be opened. */
bool core_looks_like_one(const char *path);

/* core_notes.c: one PT_NOTE segment; called by core_open for each. `len` bytes that the file really
 * has. ERR_NOMEM only. */
int core_notes_parse(struct core *core, const uint8_t *notes, size_t len,
                     struct err *err) MUST_CHECK;

/* The segment that holds addr, or NULL. */
const struct core_segment *core_segment_at(const struct core *core, uint64_t addr);
/* The entry of NT_FILE that holds addr, or NULL. */
const struct core_file *core_file_at(const struct core *core, uint64_t addr);

/* "SIGSEGV"; "signal 77" for unknown numbers (into buf). What si_code means, or "" ("sent by
 * kill").
 */
const char *core_signal_name(int number, char *buf, size_t cap);
const char *core_signal_reason(const struct core_signal *sig);

#endif
