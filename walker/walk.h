/* One census: orders the passes over a target's memory and fills the snapshot.
 *
 * Pure over its input: whoever calls it has opened the target, read the mappings and the ELF files,
 * and hands the facts over. Nothing here opens a file, prints or exits.
 */
#ifndef HEAPCENSUS_WALK_H
#define HEAPCENSUS_WALK_H

#include "formats/base/err.h"
#include "formats/snapshot.h"
#include "walker/blockmap.h"
#include "walker/cpython/cpython.h"
#include "walker/glibc/glibc.h"
#include "walker/mem.h"
#include "walker/vma.h"

struct walk_thread {
    int tid;
    uint64_t fs_base, sp; /* 0 when the thread was not stopped */
};

struct walk_input {
    struct mem *mem;
    struct vma_list vmas;
    const struct residency *res;
    /* Writable ranges of all modules (.data with .bss), sorted by address: they are "data". */
    const struct glibc_data *data;
    size_t n_data;
    const struct walk_thread *threads;
    size_t n_threads;
    struct cpython_input python; /* mem, vmas and res are filled in by walk_run */
    const char *libc_name;       /* "glibc", "musl", or NULL: not known */
    const char *libc_version;    /* or NULL */
    const char *interposer;      /* the allocator that a module other than libc defines, or NULL;
                                    "musl" where that is the libc */
    bool types;                  /* look at every block: types, owners, what is nobody's */
    bool blocks;                 /* ... and keep the single blocks in the snapshot */
    /* Called, if not NULL, after the last read of mem and before rss and swap of the mappings are
     * used: whoever collects those at the same time has them ready when this returns 0. */
    int (*settle)(void *ctx, struct err *err);
    void *settle_ctx;
    /* The source lacks bytes that the process had (a core cut short or filtered). What can be
     * counted without them is, with notes, instead of a failure or a look-alike. */
    bool partial;
    bool libc_lost; /* partial, and it does not even tell which file was libc */
    bool foreign;   /* out: malloc is `interposer`, not glibc's */
};

/* Walk, settle the ledger and fill snap's python, libc, memory, pymalloc, malloc, arenas, mappings
 * and notes. Fails when no supported interpreter is there (ERR_UNSUPPORTED, ERR_NOT_FOUND) or
 * memory ran out; a damaged target is not a failure. With `partial` an interpreter whose own data
 * is missing is taken for what its files say (note python.missing, state "unknown"); where even the
 * version is not known, python.present stays false and the rest is counted. What no file calls a
 * Python fails as ever. */
int walk_run(struct walk_input *in, struct snapshot *snap, struct err *err) MUST_CHECK;

/* stacks.c: claim the stacks of threads. With registers by them, else (and for cached stacks of
 * threads that ended) by the thread descriptor that points to itself above a guard page. */
int stacks_claim(const struct walk_input *in, struct blockmap *map, struct notes *notes,
                 struct err *err) MUST_CHECK;

#endif
