/* The target's mappings and which of their pages are present: what the kernel says, as data. */
#ifndef HEAPCENSUS_VMA_H
#define HEAPCENSUS_VMA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"

enum vma_kind {
    VMA_ANON,   /* private anonymous, "[anon:...]" names included */
    VMA_HEAP,   /* "[heap]": private anonymous too */
    VMA_STACK,  /* "[stack]" of the main thread */
    VMA_FILE,   /* file-backed */
    VMA_SHARED, /* shared memory: memfd, /dev/shm, SysV, shared anonymous */
    VMA_KERNEL  /* vdso, vvar, vsyscall and other special mappings */
};

struct vma {
    uint64_t start, end, offset;
    bool r, w, x, shared;
    enum vma_kind kind;
    const char *name; /* path or "[heap]" ..., "" when the kernel gives none; owned by the list */
    uint64_t dev, inode;
    uint64_t rss, swap; /* bytes, as smaps says; rss is what Rss counts */
};

/* Sorted by address, disjoint. The arrays are borrowed. */
struct vma_list {
    const struct vma *items;
    size_t n;
};

const char *vma_kind_name(enum vma_kind kind);
/* The mapping that holds addr, or NULL. */
const struct vma *vma_at(const struct vma_list *list, uint64_t addr);
/* Private anonymous memory, readable and writable: where heaps live. The main stack is not. */
bool vma_is_heapish(const struct vma *v);
/* addr lies in a readable and writable mapping. */
bool vma_writable_at(const struct vma_list *list, uint64_t addr);
/* The end of the run of adjacent heapish mappings that starts with the one holding addr: the kernel
 * splits one allocation into several mappings (names, huge page advice, mprotect). 0 if none. */
uint64_t vma_heapish_end(const struct vma_list *list, uint64_t addr);

/* Present pages as sorted, disjoint, non-adjacent runs; pages of the zero page are not present. */
struct page_run {
    uint64_t start, end;
};

struct residency {
    const struct page_run *runs; /* borrowed */
    size_t n;
    uint64_t *before; /* bytes of all runs before run i */
    bool unknown; /* the source does not tell (a core): everything readable counts as resident */
};

int residency_init(struct residency *res, const struct page_run *runs, size_t n,
                   struct err *err) MUST_CHECK;
void residency_release(struct residency *res);
/* Present bytes in [start, end). O(log runs). */
uint64_t residency_bytes(const struct residency *res, uint64_t start, uint64_t end);
/* The first run that ends behind addr (index into runs; n if none): for walks in address order. */
size_t residency_seek(const struct residency *res, uint64_t addr);
/* All of [start, end) is present. */
bool residency_full(const struct residency *res, uint64_t start, uint64_t end);

#endif
