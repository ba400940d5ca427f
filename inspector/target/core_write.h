/* Writing an ELF core file: the notes, the headers, the bytes. The order of calls:
 *
 *     core_note_*            the notes, in the kernel's order
 *     core_layout            (core_plan.h) with the size of the notes
 *     core_write_head        headers and notes; sets the file's size
 *     core_write_memory      the present pages, from a copy or the process itself
 *     core_write_files       the others, from the files that are mapped
 *
 * What is written: a PT_NOTE and one PT_LOAD for each mapping as the kernel does; pages that the
 * process does not have are holes of the file. The notes are the kernel's: for the first thread
 * NT_PRSTATUS, NT_PRPSINFO, NT_AUXV, NT_FILE, NT_FPREGSET, NT_X86_XSTATE, for the others the first
 * and the last two; no NT_SIGINFO, as there was no signal. Signal masks and times in NT_PRSTATUS
 * are zero. */
#ifndef HEAPCENSUS_CORE_WRITE_H
#define HEAPCENSUS_CORE_WRITE_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/procfs.h>

#include "formats/base/err.h"
#include "inspector/target/core_plan.h"
#include "inspector/target/core_regs.h"
#include "inspector/target/core_write_file.h"
#include "walker/mem.h"
#include "walker/vma.h"

/* ---- notes (core_write_notes.c) ---- */

struct core_notes {
    uint8_t *bytes;
    size_t n, cap;
};

void core_notes_init(struct core_notes *notes);
void core_notes_release(struct core_notes *notes);
/* One note: header, owner, contents, each padded to four bytes. ERR_NOMEM, ERR_LIMIT (4 GiB). */
int core_note_add(struct core_notes *notes, const char *owner, uint32_t type, const void *desc,
                  size_t len, struct err *err) MUST_CHECK;

/* What NT_PRPSINFO and NT_PRSTATUS say of the process. */
struct core_process {
    struct elf_prpsinfo info;
};
/* Before the stop, as the kernel reads the command line from the target's memory. ERR_NOT_FOUND
 * when there is no such process. */
int core_process_read(struct core_process *ret, int pid, struct err *err) MUST_CHECK;

/* All notes of the kernel's; `auxv` are the bytes of /proc/PID/auxv. regs->n > 0. */
int core_note_process(struct core_notes *notes, const struct core_process *process,
                      const struct core_regs *regs, const void *auxv, size_t auxv_len,
                      const struct maps *maps, struct err *err) MUST_CHECK;
/* NT_FILE: which files are mapped where. Nothing when there are none. */
int core_note_files(struct core_notes *notes, const struct maps *maps, struct err *err) MUST_CHECK;

/* Growing text of the notes of ours. A failure to get memory is kept in `failed`. */
struct core_text {
    char *bytes;
    size_t n, cap;
    bool failed;
};
void core_text_release(struct core_text *text);
/* `s` as it is; with control characters and '%' as %XX. */
void core_text_add(struct core_text *text, const char *s);
void core_text_add_escaped(struct core_text *text, const char *s);

/* ---- the file (core_write.c) ---- */

struct core_out {
    int fd; /* borrowed; seekable and empty */
    const char *name;
    const volatile sig_atomic_t *interrupted; /* may be NULL */
    const struct page_run *present;           /* what the process has in memory: sorted, disjoint */
    size_t n_present;
    /* Counted while writing, bytes. */
    uint64_t written;  /* of memory and files */
    uint64_t unread;   /* present, but could not be read */
    uint64_t swapped;  /* swapped out (or absent beside swapped pages of a file): left out */
    uint64_t unfilled; /* absent pages whose file could not be read */
    const char *unfilled_name; /* of the first of them; borrowed from the maps */
    uint8_t *buf;              /* owned */
};

void core_out_release(struct core_out *w);

/* The ELF header, program headers (PN_XNUM with a section header where there are too many to
 * count), notes. Notes must fit the room that core_layout was given. All of the writers return
 * ERR_OS with a remedy (ENOSPC, EFBIG ...), ERR_NOMEM or ERR_INTERRUPTED. */
int core_write_head(struct core_out *w, const struct core_plan *plan,
                    const struct core_notes *notes, struct err *err) MUST_CHECK;
/* Make the file as long as the plan says. */
int core_write_size(struct core_out *w, const struct core_plan *plan, struct err *err) MUST_CHECK;
/* What `mem` has of the plan's segments. Also what reading gives: ERR_NOT_FOUND when the process
 * has exited. */
int core_write_memory(struct core_out *w, const struct core_plan *plan, struct mem *mem,
                      struct err *err) MUST_CHECK;
/* Absent pages of mapped files. Pages of zeros stay holes. */
int core_write_files(struct core_out *w, const struct core_plan *plan,
                     const struct core_sources *sources, struct err *err) MUST_CHECK;

#endif
