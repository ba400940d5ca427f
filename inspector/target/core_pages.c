/* Which pages of a core hold data. All three ways give the same shape: whole pages of a segment,
 * clipped to the bytes that the file really has. */
#define _GNU_SOURCE 1 /* SEEK_DATA */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/core_mem.h"
#include "inspector/target/sys.h"

enum {
    PAGE_BYTES = 4096,
    BLOCK_PAGES = 64,   /* what one pread brings: stays within the processor's cache */
    PIECE_PAGES = 2048, /* what a thread takes at a time; a multiple of 64: no shared words */
    LOOKERS = 2
};

static const uint8_t zeros[PAGE_BYTES];

void core_pages_init(struct core_pages *pages)
{
    memset(pages, 0, sizeof *pages);
}

void core_pages_release(struct core_pages *pages)
{
    free(pages->runs);
    core_pages_init(pages);
}

static bool is_interrupted(const volatile sig_atomic_t *flag)
{
    return flag && *flag;
}

static int interrupted_error(struct err *err)
{
    return err_set(err, ERR_INTERRUPTED, "interrupted while looking for the core's pages");
}

/* In address order; what overlaps the last run is cut off. */
static int add_run(struct core_pages *pages, uint64_t start, uint64_t end, struct err *err)
{
    struct page_run *last = pages->n ? &pages->runs[pages->n - 1] : NULL;
    if (last && start < last->end)
        start = last->end;
    if (start >= end)
        return 0;
    pages->bytes += end - start;
    if (last && last->end == start) {
        last->end = end;
        return 0;
    }
    if (vec_reserve(&pages->runs, &pages->cap, pages->n + 1, sizeof *pages->runs) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu page runs", pages->n + 1);
    pages->runs[pages->n++] = (struct page_run){start, end};
    return 0;
}

static int add_noted(struct core_pages *pages, const struct core *core, struct err *err)
{
    int rc = 0;
    pages->counted = true;
    for (size_t i = 0; i < core->facts.n_runs && rc == 0; i++)
        rc = add_run(pages, core->facts.runs[i].start, core->facts.runs[i].end, err);
    return rc;
}

static int add_all(struct core_pages *pages, const struct core *core, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < core->n_segments && rc == 0; i++)
        rc = add_run(pages, core->segments[i].start,
                     core->segments[i].start + core->segments[i].here, err);
    return rc;
}

/* ---- what the file is like ---- */

struct shape {
    bool holes;    /* somewhere in the bytes of a segment */
    bool aligned;  /* pages of memory are pages of the file */
    bool overlaid; /* segments share bytes of the file: no writer does that, a forger can */
};

static bool has_hole(const struct core *core, const struct core_segment *seg)
{
    off_t hole = lseek(core->fd, (off_t)seg->offset, SEEK_HOLE);
    return hole >= 0 && (uint64_t)hole < seg->offset + seg->here;
}

static struct shape look_at_shape(const struct core *core)
{
    struct shape shape = {false, true, false};
    uint64_t sum = 0;
    for (size_t i = 0; i < core->n_segments; i++) {
        const struct core_segment *seg = &core->segments[i];
        if (!seg->here)
            continue;
        shape.overlaid |= add_overflows(sum, seg->here, &sum) || sum > core->size;
        shape.aligned &= (seg->offset - seg->start) % PAGE_BYTES == 0;
        shape.holes |= !shape.holes && has_hole(core, seg);
    }
    return shape;
}

/* ---- by the file's holes ---- */

/* [from, to) of the file is data: the whole pages of memory that it touches. */
static int add_extent(struct core_pages *pages, const struct core_segment *seg, uint64_t from,
                      uint64_t to, struct err *err)
{
    uint64_t first = round_down(from - seg->offset, PAGE_BYTES);
    uint64_t last = min_u64(round_up(to - seg->offset, PAGE_BYTES), seg->here);
    return add_run(pages, seg->start + first, seg->start + last, err);
}

static int add_extents(struct core_pages *pages, const struct core *core,
                       const struct core_segment *seg, const volatile sig_atomic_t *interrupted,
                       struct err *err)
{
    uint64_t pos = seg->offset, end = seg->offset + seg->here;
    int rc = 0;
    while (pos < end && rc == 0) {
        if (is_interrupted(interrupted))
            return interrupted_error(err);
        off_t data = lseek(core->fd, (off_t)pos, SEEK_DATA);
        if (data < 0 && errno != ENXIO)
            return err_os(err, errno, "cannot find the holes of the core");
        if (data < 0 || (uint64_t)data >= end)
            break;
        off_t hole = lseek(core->fd, data, SEEK_HOLE);
        if (hole <= data) /* somebody is changing the file */
            break;
        pos = min_u64((uint64_t)hole, end);
        rc = add_extent(pages, seg, (uint64_t)data, pos, err);
    }
    return rc;
}

static int add_by_holes(struct core_pages *pages, const struct core *core,
                        const volatile sig_atomic_t *interrupted, struct err *err)
{
    int rc = 0;
    pages->counted = pages->by_holes = true;
    for (size_t i = 0; i < core->n_segments && rc == 0; i++)
        rc = add_extents(pages, core, &core->segments[i], interrupted, err);
    return rc;
}

/* ---- by looking at every page ---- */

/* The pages of all segments are numbered through; page number n is bit n. */
struct look {
    const struct core *core;
    uint64_t *first; /* the number of each segment's first page; one more at the end */
    uint64_t *bits;
    bool holes; /* the file has some: reading them can be spared */
    const volatile sig_atomic_t *interrupted;
    atomic_uint_fast64_t cursor; /* the next page that nobody has taken */
    atomic_int failed;           /* an errno to give up with */
};

static uint64_t pages_in(const struct core_segment *seg)
{
    return seg->here / PAGE_BYTES + (seg->here % PAGE_BYTES != 0);
}

static int look_init(struct look *look, const struct core *core, bool holes,
                     const volatile sig_atomic_t *interrupted, struct err *err)
{
    memset(look, 0, sizeof *look);
    look->core = core;
    look->holes = holes;
    look->interrupted = interrupted;
    look->first = calloc(core->n_segments + 1, sizeof *look->first);
    if (!look->first)
        return err_set(err, ERR_NOMEM, "no memory for %zu segments", core->n_segments);
    for (size_t i = 0; i < core->n_segments; i++)
        look->first[i + 1] = look->first[i] + pages_in(&core->segments[i]);
    uint64_t total = look->first[core->n_segments];
    look->bits = calloc(total / 64 + 1, sizeof *look->bits);
    return look->bits ? 0 : err_set(err, ERR_NOMEM, "no memory for the pages of the core");
}

static void look_release(struct look *look)
{
    free(look->first);
    free(look->bits);
}

static size_t segment_of_page(const struct look *look, uint64_t page)
{
    size_t lo = 0, hi = look->core->n_segments;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (look->first[mid] <= page)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

/* A page that the disk does not give, or that was cut off meanwhile, holds nothing that anybody
 * could read: zeros. Returns 0 or an errno. */
static int read_block(int fd, uint8_t *buf, size_t len, uint64_t offset)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = sys_calls.pread(fd, buf + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno != EIO)
            return errno;
        if (n <= 0) {
            n = (ssize_t)min_u64(n ? PAGE_BYTES - got % PAGE_BYTES : len, len - got);
            memset(buf + got, 0, (size_t)n);
        }
        got += (size_t)n;
    }
    return 0;
}

static bool is_hole(const struct look *look, uint64_t offset, size_t len)
{
    if (!look->holes)
        return false;
    off_t data = lseek(look->core->fd, (off_t)offset, SEEK_DATA);
    return data < 0 ? errno == ENXIO : (uint64_t)data >= offset + len;
}

/* `n` pages of one segment from page `page` on: their bits. Returns 0 or an errno. */
static int look_at_block(struct look *look, size_t i, uint64_t page, uint64_t n, uint8_t *buf)
{
    const struct core_segment *seg = &look->core->segments[i];
    uint64_t at = (page - look->first[i]) * PAGE_BYTES;
    size_t len = min_u64(n * PAGE_BYTES, seg->here - at);
    if (is_hole(look, seg->offset + at, len))
        return 0;
    int why = read_block(look->core->fd, buf, len, seg->offset + at);
    for (size_t off = 0; why == 0 && off < len; off += PAGE_BYTES, page++)
        if (memcmp(buf + off, zeros, min_u64(PAGE_BYTES, len - off)) != 0)
            look->bits[page / 64] |= (uint64_t)1 << page % 64;
    return why;
}

static int look_at_piece(struct look *look, uint64_t page, uint64_t end, uint8_t *buf)
{
    int why = 0;
    for (size_t i = segment_of_page(look, page); page < end && why == 0; i++)
        while (page < end && page < look->first[i + 1] && why == 0) {
            uint64_t n = min_u64(min_u64(end, look->first[i + 1]) - page, BLOCK_PAGES);
            if (is_interrupted(look->interrupted))
                return EINTR;
            why = look_at_block(look, i, page, n, buf);
            page += n;
        }
    return why;
}

static void *look_main(void *arg)
{
    struct look *look = arg;
    uint64_t total = look->first[look->core->n_segments];
    uint8_t *buf = malloc(BLOCK_PAGES * PAGE_BYTES);
    int why = buf ? 0 : ENOMEM;
    while (why == 0 && !atomic_load(&look->failed)) {
        uint64_t page = atomic_fetch_add(&look->cursor, PIECE_PAGES);
        if (page >= total)
            break;
        why = look_at_piece(look, page, min_u64(page + PIECE_PAGES, total), buf);
    }
    if (why)
        atomic_store(&look->failed, why);
    free(buf);
    return NULL;
}

/* This thread and, where the system gives them, others. */
static int look_run(struct look *look, struct err *err)
{
    pthread_t threads[LOOKERS - 1];
    size_t n = 0;
    while (n < LOOKERS - 1 && pthread_create(&threads[n], NULL, look_main, look) == 0)
        n++;
    look_main(look);
    while (n)
        pthread_join(threads[--n], NULL);
    int why = atomic_load(&look->failed);
    if (why == EINTR)
        return interrupted_error(err);
    if (why == ENOMEM)
        return err_set(err, ERR_NOMEM, "no memory to look at the core's pages");
    return why ? err_os(err, why, "cannot read the core") : 0;
}

/* The first page in [page, end) whose bit is `set`, or end. */
static uint64_t find_page(const struct look *look, uint64_t page, uint64_t end, bool set)
{
    while (page < end) {
        uint64_t word = (set ? look->bits[page / 64] : ~look->bits[page / 64]) >> page % 64;
        if (word)
            return min_u64(page + (uint64_t)__builtin_ctzll(word), end);
        page = round_down(page, 64) + 64;
    }
    return end;
}

static int add_seen(struct core_pages *pages, const struct look *look, size_t i, struct err *err)
{
    const struct core_segment *seg = &look->core->segments[i];
    uint64_t first = look->first[i], end = look->first[i + 1];
    int rc = 0;
    for (uint64_t from = find_page(look, first, end, true), to; from < end && rc == 0;
         from = find_page(look, to, end, true)) {
        to = find_page(look, from, end, false);
        rc = add_run(pages, seg->start + (from - first) * PAGE_BYTES,
                     seg->start + min_u64((to - first) * PAGE_BYTES, seg->here), err);
    }
    return rc;
}

static int add_by_look(struct core_pages *pages, const struct core *core, bool holes,
                       const volatile sig_atomic_t *interrupted, struct err *err)
{
    struct look look;
    pages->counted = true;
    int rc = look_init(&look, core, holes, interrupted, err);
    if (rc == 0)
        rc = look_run(&look, err);
    for (size_t i = 0; i < core->n_segments && rc == 0; i++)
        rc = add_seen(pages, &look, i, err);
    look_release(&look);
    return rc;
}

int core_pages_find(struct core_pages *ret, const struct core *core, bool look,
                    const volatile sig_atomic_t *interrupted, struct err *err)
{
    struct core_pages pages;
    struct shape shape = {false, false, false};
    int rc;
    core_pages_init(&pages);
    if (!core->facts.has_runs)
        shape = look_at_shape(core);
    if (core->facts.has_runs)
        rc = add_noted(&pages, core, err);
    else if (shape.overlaid) /* each byte of the file would be looked at any number of times */
        rc = add_all(&pages, core, err);
    else if (shape.holes && (shape.aligned || !look))
        rc = add_by_holes(&pages, core, interrupted, err);
    else if (look)
        rc = add_by_look(&pages, core, shape.holes, interrupted, err);
    else
        rc = add_all(&pages, core, err);
    if (rc < 0) {
        core_pages_release(&pages);
        return rc;
    }
    core_pages_release(ret);
    *ret = pages;
    return 0;
}
