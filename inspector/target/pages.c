#include "inspector/target/pages.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/proc.h"
#include "inspector/target/sys.h"

/* The ABI of PAGEMAP_SCAN, spelled out here because the headers of Debian 12 lack it. */
struct scan_region {
    uint64_t start, end, categories;
};

struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define PAGEMAP_SCAN_REQUEST _IOWR('f', 16, struct scan_arg)

enum {
    CAT_PRESENT = 1 << 3,
    CAT_SWAPPED = 1 << 4,
    CAT_PFNZERO = 1 << 5,
    SCAN_REGIONS = 2048,
    PAGE_BYTES = 4096,
    PAGEMAP_ENTRIES = 16384
};

/* pagemap costs 8 bytes and some 3 ns for every page of address space, present or not. */
static const uint64_t pagemap_max_range = (uint64_t)1 << 40;

void pages_init(struct pages *pages)
{
    memset(pages, 0, sizeof *pages);
}

void pages_release(struct pages *pages)
{
    free(pages->runs);
    pages_init(pages);
}

static int add_run(struct pages *pages, uint64_t start, uint64_t end, struct err *err)
{
    pages->present += end - start;
    if (pages->n && pages->runs[pages->n - 1].end == start) {
        pages->runs[pages->n - 1].end = end;
        return 0;
    }
    if (vec_reserve(&pages->runs, &pages->cap, pages->n + 1, sizeof *pages->runs) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu page runs", pages->n + 1);
    pages->runs[pages->n++] = (struct page_run){start, end};
    return 0;
}

/* Takes over what lies in [*low, high) and moves *low behind it. */
static int add_regions(struct pages *pages, const struct scan_region *regions, size_t n,
                       uint64_t *low, uint64_t high, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        uint64_t start = max_u64(regions[i].start, *low), end = min_u64(regions[i].end, high);
        if (start >= end)
            continue;
        if (regions[i].categories & CAT_SWAPPED)
            pages->swapped += end - start;
        else
            rc = add_run(pages, start, end, err);
        *low = end;
    }
    return rc;
}

static int scan_range(struct pages *pages, int fd, const struct mem_region *range,
                      struct scan_region *regions, struct err *err)
{
    uint64_t at = range->start, low = at;
    while (at < range->end) {
        struct scan_arg arg = {.size = sizeof arg,
                               .start = at,
                               .end = range->end,
                               .vec = (uintptr_t)regions,
                               .vec_len = SCAN_REGIONS,
                               .category_inverted = CAT_PFNZERO,
                               .category_mask = CAT_PFNZERO,
                               .category_anyof_mask = CAT_PRESENT | CAT_SWAPPED,
                               .return_mask = CAT_PRESENT | CAT_SWAPPED};
        int n = sys_calls.ioctl(fd, PAGEMAP_SCAN_REQUEST, &arg);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == ENOTTY || errno == EINVAL))
            return err_set(err, ERR_UNSUPPORTED, "this kernel has no PAGEMAP_SCAN");
        if (n < 0 && errno == ESRCH)
            return err_set(err, ERR_NOT_FOUND, "the process has exited");
        if (n < 0)
            return err_os(err, errno, "cannot scan the pages at 0x%" PRIx64, at);
        int rc = add_regions(pages, regions, (size_t)n, &low, range->end, err);
        if (rc < 0)
            return rc;
        /* walk_end may lie before the end of the last region that was returned (seen on 6.18 when
         * the last of several calls finishes the range): going on from there would give the same
         * pages twice. And a loop of ours does not hang on the kernel's promise of progress. */
        uint64_t next = max_u64(arg.walk_end, low);
        if (next <= at)
            break;
        at = next;
    }
    return 0;
}

static int scan_with_ioctl(struct pages *pages, int fd, const struct mem_region *ranges, size_t n,
                           struct err *err)
{
    struct scan_region *regions = malloc(SCAN_REGIONS * sizeof *regions);
    if (!regions)
        return err_set(err, ERR_NOMEM, "no memory to scan pages");
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0;) {
        /* Adjacent mappings go in one call. */
        struct mem_region range = ranges[i++];
        while (i < n && ranges[i].start == range.end)
            range.end = ranges[i++].end;
        rc = scan_range(pages, fd, &range, regions, err);
    }
    free(regions);
    return rc;
}

static int add_entries(struct pages *pages, const uint64_t *entries, size_t n, uint64_t addr,
                       struct err *err)
{
    for (size_t i = 0; i < n; i++, addr += PAGE_BYTES) {
        if (entries[i] >> 63) {
            int rc = add_run(pages, addr, addr + PAGE_BYTES, err);
            if (rc < 0)
                return rc;
        } else if (entries[i] >> 62 & 1) {
            pages->swapped += PAGE_BYTES;
        }
    }
    return 0;
}

static int pagemap_range(struct pages *pages, int fd, const struct mem_region *range,
                         uint64_t *entries, struct err *err)
{
    uint64_t at = range->start;
    while (at < range->end) {
        uint64_t want = min_u64((range->end - at) / PAGE_BYTES, PAGEMAP_ENTRIES);
        ssize_t got = sys_calls.pread(fd, entries, want * sizeof *entries,
                                      (off_t)(at / PAGE_BYTES * sizeof *entries));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_os(err, errno, "cannot read the pagemap at 0x%" PRIx64, at);
        if (got < (ssize_t)sizeof *entries)
            return err_set(err, ERR_NOT_FOUND, "the process has exited");
        size_t n = (size_t)got / sizeof *entries;
        int rc = add_entries(pages, entries, n, at, err);
        if (rc < 0)
            return rc;
        at += n * PAGE_BYTES;
    }
    return 0;
}

static int scan_with_pagemap(struct pages *pages, int fd, const struct mem_region *ranges, size_t n,
                             struct err *err)
{
    uint64_t *entries = malloc(PAGEMAP_ENTRIES * sizeof *entries);
    if (!entries)
        return err_set(err, ERR_NOMEM, "no memory to read the pagemap");
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        if (ranges[i].end - ranges[i].start > pagemap_max_range)
            pages->skipped += ranges[i].end - ranges[i].start;
        else
            rc = pagemap_range(pages, fd, &ranges[i], entries, err);
    }
    free(entries);
    return rc;
}

static void reset(struct pages *pages, enum pages_method method)
{
    pages->n = 0;
    pages->present = pages->swapped = pages->skipped = 0;
    pages->method = method;
}

static int scan_fd(struct pages *pages, int fd, const struct mem_region *ranges, size_t n,
                   enum pages_method method, struct err *err)
{
    if (method != PAGES_PAGEMAP) {
        reset(pages, PAGES_SCAN);
        int rc = scan_with_ioctl(pages, fd, ranges, n, err);
        if (method == PAGES_SCAN || rc != ERR_UNSUPPORTED)
            return rc;
        err_clear(err);
    }
    reset(pages, PAGES_PAGEMAP);
    return scan_with_pagemap(pages, fd, ranges, n, err);
}

static bool ranges_sane(const struct mem_region *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (ranges[i].start >= ranges[i].end || ranges[i].start % PAGE_BYTES ||
            ranges[i].end % PAGE_BYTES)
            return false;
        if (i && ranges[i].start < ranges[i - 1].end)
            return false;
    }
    return true;
}

int pages_scan(struct pages *pages, int pid, const struct mem_region *ranges, size_t n,
               enum pages_method method, struct err *err)
{
    if (!ranges_sane(ranges, n))
        return err_set(err, ERR_USAGE, "ranges to scan are not sorted or not whole pages");
    int fd = proc_open(pid, "pagemap", O_RDONLY, err);
    if (fd < 0)
        return fd;
    int rc = scan_fd(pages, fd, ranges, n, method, err);
    close(fd);
    return rc < 0 ? err_context(err, rc, "process %d", pid) : 0;
}

bool pages_wanted(const struct maps *maps, size_t i)
{
    const struct vma *v = &maps->items[i];
    if (v->kind == VMA_KERNEL || (!v->r && !v->w && !v->x))
        return false;
    return !(maps->flags[i] & (MAPS_PFNMAP | MAPS_HUGETLB | MAPS_IO));
}

int pages_scan_maps(struct pages *pages, int pid, const struct maps *maps, enum pages_method method,
                    struct err *err)
{
    struct mem_region *ranges = calloc(maps->n + 1, sizeof *ranges);
    if (!ranges)
        return err_set(err, ERR_NOMEM, "no memory for %zu ranges", maps->n);
    size_t n = 0;
    for (size_t i = 0; i < maps->n; i++)
        if (pages_wanted(maps, i))
            ranges[n++] = (struct mem_region){maps->items[i].start, maps->items[i].end};
    int rc = pages_scan(pages, pid, ranges, n, method, err);
    free(ranges);
    return rc;
}
