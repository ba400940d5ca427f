/* Which bytes of each mapping belong into a core: the kernel's rules (vma_dump_size in
 * fs/coredump.c), applied from outside to what smaps says.
 *
 * What cannot be seen from outside:
 * - whether a private mapping without anonymous pages ever had one (the kernel's anon_vma): we
 *   write such a mapping as never touched (p_filesz 0), the kernel as a hole of zeros;
 * - DAX mappings, which count as ordinary files here. */
#ifndef HEAPCENSUS_CORE_PLAN_H
#define HEAPCENSUS_CORE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "inspector/target/maps.h"
#include "walker/mem.h"
#include "walker/vma.h"

enum { CORE_PAGE_BYTES = 4096 };

/* /proc/PID/coredump_filter, core(5). */
enum core_filter {
    CORE_ANON_PRIVATE = 1,
    CORE_ANON_SHARED = 2,
    CORE_FILE_PRIVATE = 4,
    CORE_FILE_SHARED = 8,
    CORE_ELF_HEADERS = 16,
    CORE_HUGE_PRIVATE = 32,
    CORE_HUGE_SHARED = 64
};

/* What smaps says of one mapping beyond maps. */
struct core_attr {
    uint64_t start, end;
    uint64_t anonymous, swap; /* bytes */
    char perms[5];
    /* VM_SHARED: a MAP_SHARED mapping of a file that was opened for reading lacks it, though maps
     * says 's'; the kernel then treats it as private. */
    bool shared;
    bool dontdump, hugetlb, io; /* io: raw frames (pf) too */
};

struct core_attrs {
    struct core_attr *items; /* sorted by address */
    size_t n, cap;
};

void core_attrs_init(struct core_attrs *attrs);
void core_attrs_release(struct core_attrs *attrs);
/* Replace what attrs held by what the text of /proc/PID/smaps says. A line that makes no sense is
 * left out; ERR_NOMEM only. */
int core_attrs_parse(struct core_attrs *attrs, const char *text, size_t len,
                     struct err *err) MUST_CHECK;
/* Of this very mapping (the same range and permissions), or NULL. */
const struct core_attr *core_attrs_find(const struct core_attrs *attrs, const struct vma *v);

/* One mapping and all that the rules look at. */
struct core_subject {
    const struct vma *vma;
    const struct core_attr *attr; /* NULL: not known, then taken for what its kind suggests */
    bool unlinked;                /* its file has no name any more (nlink 0) */
    bool head;                    /* its file is executable or begins with the ELF magic number */
};

/* Bytes from the mapping's start on that the core holds (p_filesz): 0, a page, or all. */
uint64_t core_dump_bytes(const struct core_subject *s, unsigned filter);
/* Whether the kernel has a file behind it: it is then listed in NT_FILE. */
bool core_has_file(const struct vma *v);
/* The answer of core_dump_bytes may depend on `head`. */
bool core_head_matters(const struct vma *v, const struct core_attr *attr, unsigned filter);

/* Where pages that are not present come from. */
enum core_fill {
    CORE_FILL_ZEROS, /* they are zeros: a hole of the file */
    CORE_FILL_FILE,  /* the mapped file */
    CORE_FILL_VDSO   /* our own vdso: the kernel has one for all 64-bit processes */
};

struct core_load {
    const struct vma *vma; /* borrowed from the maps */
    uint64_t bytes;        /* p_filesz */
    uint64_t offset;       /* in the file; set by core_layout */
    uint64_t swap;         /* of it, bytes swapped out as smaps says */
    enum core_fill fill;
};

struct core_plan {
    struct core_load *loads; /* one for each mapping, in address order */
    size_t n;
    uint64_t mapped; /* bytes of all mappings */
    /* Set by core_layout. */
    uint64_t notes_offset, data_offset, file_bytes;
};

struct core_sources;

void core_plan_init(struct core_plan *plan);
void core_plan_release(struct core_plan *plan);
/* maps and sources are borrowed until release. ERR_NOMEM. */
int core_plan_make(struct core_plan *plan, const struct maps *maps, const struct core_attrs *attrs,
                   unsigned filter, struct core_sources *sources, struct err *err) MUST_CHECK;

/* The ranges whose pages the core may need, when smaps (`before`) is of a moment ago: never too
 * few, unless a mapping that looks the same was advised otherwise (madvise) meanwhile. Sorted and
 * disjoint; *ret is the caller's to free. */
int core_plan_wanted(const struct maps *maps, const struct core_attrs *before, unsigned filter,
                     struct mem_region **ret, size_t *n, struct err *err) MUST_CHECK;

/* Where things lie in the file: header, program headers, notes (at most `notes_room` bytes), then
 * the segments from a page boundary on. */
void core_layout(struct core_plan *plan, uint64_t notes_room);

#endif
