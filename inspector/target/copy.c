#include "inspector/target/copy.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/budget.h"
#include "inspector/target/sys.h"

enum {
    PAGE_BYTES = 4096,
    HUGE_BYTES = 2 << 20,
    PIECE_BYTES = 1 << 20,  /* what a thread takes at a time */
    FAULT_BYTES = 32 << 20, /* the same while faulting in */
    SLABS = 2,
    SLACK_BYTES = 16 << 20,
    SLICE_NS = 20 * 1000 * 1000 /* how often copy_wait looks at the flag */
};

struct slab {
    uint8_t *map, *base; /* base: the first huge page boundary in map */
    size_t map_len, len;
};

/* All segments together form one stream of bytes, numbered from 0 in address order; `off` is where
 * a segment begins in it. The slabs hold the stream; no segment crosses from one to the other. */
struct segment {
    uint64_t addr, off, len;
};

struct hole {
    uint64_t off;
};

struct copy {
    struct mem mem;
    struct slab slabs[SLABS];
    struct segment *segs;
    struct mem_region *regions;
    size_t n, cap, n_regions;
    uint64_t bytes; /* of the stream */
    int fd;

    pthread_t threads[COPY_THREADS];
    size_t n_threads;
    atomic_uint_fast64_t cursor; /* the next byte of the stream that nobody has taken */
    atomic_int stop;             /* an errno to give up with; ESRCH: the target has exited */
    pthread_mutex_t lock;        /* guards what follows */
    pthread_cond_t idle;
    size_t running;
    struct hole *holes;
    size_t n_holes, cap_holes;
    bool readable;
    uint64_t begun_ns, ended_ns;
    atomic_size_t last; /* segment that the last read was in */
};

void copy_plan_init(struct copy_plan *plan)
{
    memset(plan, 0, sizeof *plan);
}

void copy_plan_release(struct copy_plan *plan)
{
    free(plan->ranges);
    copy_plan_init(plan);
}

/* Whole pages only: the hole of an unreadable page is then a hole of the copy's stream too. */
static int plan_add(struct copy_plan *plan, uint64_t start, uint64_t end, struct err *err)
{
    start = round_down(start, PAGE_BYTES);
    end = round_up(end, PAGE_BYTES);
    if (plan->n && start < plan->ranges[plan->n - 1].end)
        start = plan->ranges[plan->n - 1].end;
    if (start >= end)
        return 0;
    plan->bytes += end - start;
    if (plan->n && plan->ranges[plan->n - 1].end == start) {
        plan->ranges[plan->n - 1].end = end;
        return 0;
    }
    if (vec_reserve(&plan->ranges, &plan->cap, plan->n + 1, sizeof *plan->ranges) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu ranges to copy", plan->n + 1);
    plan->ranges[plan->n++] = (struct mem_region){start, end};
    return 0;
}

int copy_plan(struct copy_plan *plan, const struct page_run *present, size_t n_present,
              const struct mem_region *wanted, size_t n_wanted, struct err *err)
{
    plan->n = 0;
    plan->bytes = 0;
    for (size_t i = 0, j = 0; i < n_present && j < n_wanted;) {
        uint64_t start = max_u64(present[i].start, wanted[j].start);
        uint64_t end = min_u64(present[i].end, wanted[j].end);
        int rc = start < end ? plan_add(plan, start, end, err) : 0;
        if (rc < 0)
            return rc;
        if (present[i].end < wanted[j].end)
            i++;
        else
            j++;
    }
    return 0;
}

/* ---- the slabs ---- */

static int slab_map(struct slab *slab, uint64_t bytes, struct err *err)
{
    if (bytes > SIZE_MAX / 2)
        return err_set(err, ERR_NOMEM, "%" PRIu64 " bytes are too many to copy", bytes);
    uint64_t len = round_up(bytes, HUGE_BYTES);
    slab->map_len = len + HUGE_BYTES;
    slab->map = sys_calls.map(slab->map_len);
    if (!slab->map) {
        err_os(err, errno, "cannot reserve %" PRIu64 " MiB for the copy", len >> 20);
        if (err)
            err->code = ERR_NOMEM;
        return ERR_NOMEM;
    }
    slab->base = slab->map + (-(uintptr_t)slab->map & (HUGE_BYTES - 1));
    slab->len = len;
    /* Advice: where it is not taken, things are slower, not wrong. */
    (void)madvise(slab->base, slab->len, MADV_HUGEPAGE);
    (void)madvise(slab->base, slab->len, MADV_DONTDUMP);
    return 0;
}

static void slab_unmap(struct slab *slab)
{
    if (slab->map)
        munmap(slab->map, slab->map_len);
    memset(slab, 0, sizeof *slab);
}

/* False when memory ran out. Kernels before 5.14 do not know the advice (EINVAL). */
static bool fault_in(uint8_t *p, size_t len)
{
#ifdef MADV_POPULATE_WRITE
    if (madvise(p, len, MADV_POPULATE_WRITE) == 0)
        return true;
    if (errno != EINVAL && errno != EINTR && errno != EAGAIN)
        return false;
#endif
    for (size_t i = 0; i < len; i += PAGE_BYTES)
        *(volatile uint8_t *)(p + i) = 0;
    return true;
}

static void *fault_worker(void *arg)
{
    struct copy *copy = arg;
    struct slab *slab = &copy->slabs[0];
    while (!atomic_load(&copy->stop)) {
        uint64_t at = atomic_fetch_add(&copy->cursor, FAULT_BYTES);
        if (at >= slab->len)
            break;
        if (!fault_in(slab->base + at, min_u64(FAULT_BYTES, slab->len - at)))
            atomic_store(&copy->stop, ENOMEM);
    }
    return NULL;
}

/* Threads of ours take no signals: a SIGINT belongs to the main thread, which watches the stop. */
static size_t start_threads(struct copy *copy, void *(*worker)(void *))
{
    sigset_t all, before;
    size_t n = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (n < COPY_THREADS && pthread_create(&copy->threads[n], NULL, worker, copy) == 0)
        n++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return n;
}

static void join_threads(struct copy *copy)
{
    for (size_t i = 0; i < copy->n_threads; i++)
        pthread_join(copy->threads[i], NULL);
    copy->n_threads = 0;
}

static int fault_in_all(struct copy *copy, struct err *err)
{
    atomic_store(&copy->cursor, 0);
    copy->n_threads = start_threads(copy, fault_worker);
    if (!copy->n_threads)
        fault_worker(copy);
    join_threads(copy);
    if (atomic_load(&copy->stop))
        return err_set(err, ERR_NOMEM, "the system has not %zu MiB of memory for the copy",
                       copy->slabs[0].len >> 20);
    return 0;
}

static int check_budget(uint64_t bytes, struct err *err)
{
    struct budget b;
    budget_read(&b);
    uint64_t room = budget_room(&b);
    if (bytes <= room)
        return 0;
    err_set(err, ERR_NOMEM,
            "the copy needs %" PRIu64 " MiB of memory, and only %" PRIu64 " MiB are left",
            bytes >> 20, room >> 20);
    err_remedy(err, "read without a copy (--no-pause), or on a core file elsewhere");
    return ERR_NOMEM;
}

/* ---- copying ---- */

static uint8_t *stream_at(const struct copy *copy, uint64_t off)
{
    const struct slab *first = &copy->slabs[0];
    return off < first->len ? first->base + off : copy->slabs[1].base + (off - first->len);
}

/* The segment that holds byte `off` of the stream. */
static size_t segment_at(const struct copy *copy, uint64_t off)
{
    size_t lo = 0, hi = copy->n;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (copy->segs[mid].off <= off)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

static void add_hole(struct copy *copy, uint64_t off)
{
    pthread_mutex_lock(&copy->lock);
    if (vec_reserve(&copy->holes, &copy->cap_holes, copy->n_holes + 1, sizeof *copy->holes) < 0)
        atomic_store(&copy->stop, ENOMEM);
    else
        copy->holes[copy->n_holes++] = (struct hole){off};
    pthread_mutex_unlock(&copy->lock);
}

/* Up to `len` bytes of the stream from `off` on, within one segment; returns how far it got. A page
 * that cannot be read becomes a hole. */
static uint64_t copy_some(struct copy *copy, const struct segment *seg, uint64_t off, uint64_t len)
{
    ssize_t n =
        sys_calls.pread(copy->fd, stream_at(copy, off), len, (off_t)(seg->addr + (off - seg->off)));
    if (n > 0)
        return (uint64_t)n;
    if (n == 0) {
        atomic_store(&copy->stop, ESRCH);
        return len;
    }
    if (errno == EINTR)
        return 0;
    if (errno != EIO && errno != EFAULT && errno != EINVAL) {
        atomic_store(&copy->stop, errno);
        return len;
    }
    add_hole(copy, round_down(off, PAGE_BYTES));
    return min_u64(len, PAGE_BYTES - off % PAGE_BYTES);
}

static void copy_piece(struct copy *copy, uint64_t off, uint64_t end)
{
    for (size_t i = segment_at(copy, off); off < end && !atomic_load(&copy->stop); i++) {
        const struct segment *seg = &copy->segs[i];
        uint64_t stop = min_u64(end, seg->off + seg->len);
        while (off < stop && !atomic_load(&copy->stop))
            off += copy_some(copy, seg, off, stop - off);
    }
}

static void *copy_worker(void *arg)
{
    struct copy *copy = arg;
    while (!atomic_load(&copy->stop)) {
        uint64_t off = atomic_fetch_add(&copy->cursor, PIECE_BYTES);
        if (off >= copy->bytes)
            break;
        copy_piece(copy, off, min_u64(off + PIECE_BYTES, copy->bytes));
    }
    pthread_mutex_lock(&copy->lock);
    if (--copy->running == 0) {
        copy->ended_ns = sys_now_ns();
        pthread_cond_broadcast(&copy->idle);
    }
    pthread_mutex_unlock(&copy->lock);
    return NULL;
}

static int add_segment(struct copy *copy, uint64_t addr, uint64_t len, struct err *err)
{
    if (vec_reserve(&copy->segs, &copy->cap, copy->n + 1, sizeof *copy->segs) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu segments", copy->n + 1);
    copy->segs[copy->n++] = (struct segment){addr, copy->bytes, len};
    copy->bytes += len;
    return 0;
}

/* Lay the ranges into the stream; the one that would cross the end of the first slab is split. */
static int lay_out(struct copy *copy, const struct copy_plan *plan, struct err *err)
{
    uint64_t border = copy->slabs[0].len;
    copy->n = 0;
    copy->bytes = 0;
    for (size_t i = 0; i < plan->n; i++) {
        uint64_t addr = plan->ranges[i].start, len = plan->ranges[i].end - addr;
        if (copy->bytes < border && len > border - copy->bytes) {
            uint64_t head = border - copy->bytes;
            int rc = add_segment(copy, addr, head, err);
            if (rc < 0)
                return rc;
            addr += head;
            len -= head;
        }
        int rc = add_segment(copy, addr, len, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int copy_start(struct copy *copy, const struct copy_plan *plan, int mem_fd, struct err *err)
{
    if (copy->begun_ns)
        return err_set(err, ERR_USAGE, "a copy can be filled only once");
    int rc = 0;
    if (plan->bytes > copy->slabs[0].len)
        rc = slab_map(&copy->slabs[1], plan->bytes - copy->slabs[0].len, err);
    if (rc == 0)
        rc = lay_out(copy, plan, err);
    if (rc < 0)
        return rc;
    copy->fd = mem_fd;
    copy->begun_ns = copy->ended_ns = sys_now_ns();
    atomic_store(&copy->cursor, 0);
    copy->running = COPY_THREADS;
    copy->n_threads = start_threads(copy, copy_worker);
    pthread_mutex_lock(&copy->lock);
    copy->running -= COPY_THREADS - copy->n_threads;
    pthread_mutex_unlock(&copy->lock);
    if (!copy->n_threads)
        return err_set(err, ERR_OS, "cannot start a thread to copy with");
    return 0;
}

enum copy_state copy_wait(struct copy *copy, uint64_t deadline_ns,
                          const volatile sig_atomic_t *interrupted)
{
    enum copy_state state = COPY_DONE;
    pthread_mutex_lock(&copy->lock);
    while (copy->running && state == COPY_DONE) {
        uint64_t now = sys_now_ns(), until = min_u64(now + SLICE_NS, deadline_ns);
        if (interrupted && *interrupted)
            state = COPY_INTERRUPTED;
        else if (now >= deadline_ns)
            state = COPY_LATE;
        else
            pthread_cond_timedwait(
                &copy->idle, &copy->lock,
                &(struct timespec){(time_t)(until / 1000000000u), (long)(until % 1000000000u)});
    }
    pthread_mutex_unlock(&copy->lock);
    return state;
}

/* ---- the result ---- */

static int by_off(const void *a, const void *b)
{
    const struct hole *x = a, *y = b;
    return (x->off > y->off) - (x->off < y->off);
}

/* Cut the holes out of the segments. */
static int cut_holes(struct copy *copy, struct err *err)
{
    if (!copy->n_holes)
        return 0;
    size_t cap = copy->n + copy->n_holes, n = 0, h = 0;
    struct segment *cut = calloc(cap, sizeof *cut);
    if (!cut)
        return err_set(err, ERR_NOMEM, "no memory for %zu segments", cap);
    qsort(copy->holes, copy->n_holes, sizeof *copy->holes, by_off);
    for (size_t i = 0; i < copy->n; i++) {
        struct segment s = copy->segs[i];
        for (; h < copy->n_holes && copy->holes[h].off < s.off + s.len; h++) {
            uint64_t head = copy->holes[h].off - s.off;
            if (head)
                cut[n++] = (struct segment){s.addr, s.off, head};
            head += PAGE_BYTES;
            s = (struct segment){s.addr + head, s.off + head, s.len - head};
        }
        if (s.len)
            cut[n++] = s;
    }
    free(copy->segs);
    copy->segs = cut;
    copy->n = n;
    return 0;
}

static int make_regions(struct copy *copy, struct err *err)
{
    copy->regions = calloc(copy->n + 1, sizeof *copy->regions);
    if (!copy->regions)
        return err_set(err, ERR_NOMEM, "no memory for %zu regions", copy->n);
    for (size_t i = 0; i < copy->n; i++) {
        const struct segment *s = &copy->segs[i];
        struct mem_region *last = copy->n_regions ? &copy->regions[copy->n_regions - 1] : NULL;
        if (last && last->end == s->addr)
            last->end += s->len;
        else
            copy->regions[copy->n_regions++] = (struct mem_region){s->addr, s->addr + s->len};
    }
    return 0;
}

int copy_finish(struct copy *copy, struct copy_stats *stats, struct err *err)
{
    if (!copy->begun_ns || copy->readable)
        return err_set(err, ERR_USAGE, "a copy is finished once, after its start");
    join_threads(copy);
    int why = atomic_load(&copy->stop);
    if (why == ESRCH)
        return err_set(err, ERR_NOT_FOUND, "the process exited while it was being copied");
    if (why == ENOMEM)
        return err_set(err, ERR_NOMEM, "no memory for the list of unreadable pages");
    if (why)
        return err_os(err, why, "cannot copy the process");
    int rc = cut_holes(copy, err);
    if (rc == 0)
        rc = make_regions(copy, err);
    if (rc < 0)
        return rc;
    copy->readable = true;
    *stats = (struct copy_stats){.bytes = copy->bytes - copy->n_holes * PAGE_BYTES,
                                 .hole_bytes = copy->n_holes * PAGE_BYTES,
                                 .busy_ns = copy->ended_ns - copy->begun_ns,
                                 .grown = copy->slabs[1].map != NULL};
    return 0;
}

static const uint8_t *copy_direct(struct mem *mem, uint64_t addr, size_t *len)
{
    struct copy *copy = (struct copy *)mem;
    size_t lo = 0, hi = copy->readable ? copy->n : 0;
    *len = 0;
    /* Begin where the last one was found: most reads are near each other. */
    size_t last = atomic_load_explicit(&copy->last, memory_order_relaxed);
    for (size_t mid = last; lo < hi; mid = lo + (hi - lo) / 2) {
        if (mid >= hi)
            mid = lo + (hi - lo) / 2;
        if (mid != last)
            atomic_store_explicit(&copy->last, mid, memory_order_relaxed);
        if (addr - copy->segs[mid].addr < copy->segs[mid].len) {
            uint64_t skip = addr - copy->segs[mid].addr;
            *len = copy->segs[mid].len - skip;
            return stream_at(copy, copy->segs[mid].off + skip);
        }
        if (addr < copy->segs[mid].addr)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

static int copy_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    (void)err;
    for (size_t i = 0; i < n; i++) {
        struct mem_span *s = &spans[i];
        s->got = 0;
        while (s->got < s->len) {
            size_t len;
            const uint8_t *p = copy_direct(mem, s->addr + s->got, &len);
            if (!p)
                break;
            len = min_u64(len, s->len - s->got);
            memcpy((uint8_t *)s->buf + s->got, p, len);
            s->got += len;
        }
    }
    return 0;
}

static int copy_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    const struct copy *copy = (const struct copy *)mem;
    (void)err;
    *ret = copy->regions;
    *n = copy->n_regions;
    return 0;
}

static void copy_close(struct mem *mem)
{
    struct copy *copy = (struct copy *)mem;
    int none = 0;
    atomic_compare_exchange_strong(&copy->stop, &none, ECANCELED);
    join_threads(copy);
    for (size_t i = 0; i < SLABS; i++)
        slab_unmap(&copy->slabs[i]);
    pthread_cond_destroy(&copy->idle);
    pthread_mutex_destroy(&copy->lock);
    free(copy->segs);
    free(copy->regions);
    free(copy->holes);
    free(copy);
}

static const struct mem_ops copy_ops = {copy_readv, copy_regions, copy_close, copy_direct};

struct mem *copy_mem(struct copy *copy)
{
    return &copy->mem;
}

int copy_reserve(uint64_t bytes, struct copy **ret, struct err *err)
{
    uint64_t want;
    if (add_overflows(bytes, bytes / 100 * 3 + SLACK_BYTES, &want))
        return err_set(err, ERR_NOMEM, "%" PRIu64 " bytes are too many to copy", bytes);
    int rc = check_budget(want, err);
    struct copy *copy = rc < 0 ? NULL : calloc(1, sizeof *copy);
    if (rc < 0)
        return rc;
    if (!copy)
        return err_set(err, ERR_NOMEM, "no memory for a copy");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&copy->idle, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&copy->lock, NULL);
    copy->mem.ops = &copy_ops;
    copy->mem.traits = MEM_FROZEN | MEM_SPARSE;
    rc = slab_map(&copy->slabs[0], want, err);
    if (rc == 0)
        rc = fault_in_all(copy, err);
    if (rc < 0)
        copy_close(&copy->mem);
    else
        *ret = copy;
    return rc;
}
