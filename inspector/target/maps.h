/* A process's mappings: /proc/PID/maps, and what smaps adds, as struct vma.
 *
 * Peculiarities handled here:
 * - the text of a running process is produced page by page, so a mapping may come twice or overlap
 *   its predecessor: the later line is clipped or dropped (counted in `clipped`);
 * - a newline in a path is written \012; a backslash may come as \134; both are decoded;
 * - " (deleted)" stays in the name;
 * - the leader may be a zombie while other threads live: a live thread's file is read. */
#ifndef HEAPCENSUS_MAPS_H
#define HEAPCENSUS_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/base/strpool.h"
#include "walker/vma.h"

/* VmFlags of smaps that matter to a reader or to a forked copy. */
enum maps_flag {
    MAPS_PFNMAP = 1,        /* pf: raw page frames, not memory */
    MAPS_HUGETLB = 2,       /* ht: not counted in Rss */
    MAPS_IO = 4,            /* io: device memory; reading may have effects */
    MAPS_MIXED = 8,         /* mm: may hold both pages and frames */
    MAPS_DONTFORK = 16,     /* dc: missing in a forked child */
    MAPS_WIPEONFORK = 32,   /* wf: zeros in a forked child */
    MAPS_UFFD_MISSING = 64, /* um: userfaultfd */
    MAPS_UFFD_WP = 128      /* uw: userfaultfd, write protection */
};

struct maps {
    struct vma *items; /* sorted, disjoint; names are owned by `names` */
    uint32_t *flags;   /* enum maps_flag of items[i]; all 0 until smaps has been read */
    size_t n, cap, flags_cap;
    struct strpool names;
    size_t clipped;
    /* Sums over all mappings of smaps, bytes; 0 until it has been read. */
    uint64_t rss_total, swap_total, anon_huge_total;
    bool has_smaps;
};

void maps_init(struct maps *maps);
void maps_release(struct maps *maps);
/* The mappings as the walker wants them; borrowed, valid until maps changes. */
struct vma_list maps_list(const struct maps *maps);

/* Append the mappings in text[0..len). ERR_FORMAT names the first line that is none. */
int maps_parse(struct maps *maps, const char *text, size_t len, struct err *err) MUST_CHECK;
/* Fill rss, swap and flags of known mappings (found by start address) from smaps text. Mappings
 * that came into being after maps was read are counted in the totals only. */
int maps_parse_smaps(struct maps *maps, const char *text, size_t len, struct err *err) MUST_CHECK;

/* The two of a live process. Errors as proc_open's. smaps costs some 35 ms for each resident GiB
 * (the kernel walks every page): read it outside a pause. */
int maps_read(struct maps *maps, int pid, struct err *err) MUST_CHECK;
int maps_read_smaps(struct maps *maps, int pid, struct err *err) MUST_CHECK;

#endif
