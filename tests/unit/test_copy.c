/* Presence, the live backend and the copy: right bytes, no page of the target touched in vain. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "inspector/target/copy.h"
#include "inspector/target/live.h"
#include "inspector/target/maps.h"
#include "inspector/target/pages.h"
#include "inspector/target/proc.h"
#include "inspector/target/procfile.h"
#include "inspector/target/stop.h"
#include "inspector/target/sys.h"
#include "tests/lib/tap.h"

enum { PAGE = 4096, PATTERN_PAGES = 12000, SPARSE_PAGES = 100 };

static const uint64_t sparse_bytes = (uint64_t)16 << 30;

/* Shared with the children: what they have mapped and what they shall do. */
static struct {
    atomic_int step; /* the parent counts it up, the child follows in `done` */
    atomic_int done;
    uint8_t *pattern, *sparse, *zeros;
} * shared;

static void nap_ms(unsigned ms)
{
    sys_nap((uint64_t)ms * 1000000u);
}

static bool advance(int step)
{
    atomic_store(&shared->step, step);
    for (int i = 0; i < 10000 && atomic_load(&shared->done) < step; i++)
        nap_ms(1);
    return atomic_load(&shared->done) >= step;
}

static void await_step(int step)
{
    atomic_store(&shared->done, step - 1);
    while (atomic_load(&shared->step) < step)
        nap_ms(1);
}

static uint8_t *map_bytes(uint64_t len)
{
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        _exit(9);
    madvise(p, len, MADV_NOHUGEPAGE);
    return p;
}

/* Every third page is absent; the others hold their number. */
static bool is_present(size_t page)
{
    return page % 3 != 2;
}

static void child(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    shared->pattern = map_bytes((uint64_t)PATTERN_PAGES * PAGE);
    for (uint64_t i = 0; i < PATTERN_PAGES; i++)
        if (is_present(i))
            for (size_t j = 0; j < PAGE; j += 8)
                memcpy(shared->pattern + i * PAGE + j, &i, 8);
    shared->sparse = map_bytes(sparse_bytes);
    for (uint64_t i = 0; i < SPARSE_PAGES; i++)
        shared->sparse[i * (sparse_bytes / SPARSE_PAGES)] = 1;
    shared->zeros = map_bytes(64 * PAGE);
    for (int i = 0; i < 64; i++) /* reads bring in the zero page */
        if (((volatile uint8_t *)shared->zeros)[i * PAGE])
            _exit(8);
    await_step(2);
    munmap(shared->pattern, (uint64_t)PATTERN_PAGES / 2 * PAGE);
    atomic_store(&shared->done, 2);
    for (;;)
        pause();
}

static pid_t start_child(void)
{
    atomic_store(&shared->step, 0);
    atomic_store(&shared->done, 0);
    pid_t pid = fork();
    if (pid == 0)
        child();
    advance(1);
    return pid;
}

static struct mem_region pattern_region(void)
{
    uint64_t start = (uintptr_t)shared->pattern;
    return (struct mem_region){start, start + (uint64_t)PATTERN_PAGES * PAGE};
}

static size_t present_pages(void)
{
    size_t n = 0;
    for (size_t i = 0; i < PATTERN_PAGES; i++)
        n += is_present(i);
    return n;
}

static bool runs_sane(const struct pages *p)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->runs[i].start >= p->runs[i].end || (i && p->runs[i].start <= p->runs[i - 1].end))
            return false;
        sum += p->runs[i].end - p->runs[i].start;
    }
    return sum == p->present;
}

static void test_method(pid_t pid, enum pages_method method, const char *name)
{
    struct pages p;
    struct err err = ERR_INIT;
    pages_init(&p);
    struct mem_region all = pattern_region();
    int rc = pages_scan(&p, pid, &all, 1, method, &err);
    if (method == PAGES_SCAN && rc == ERR_UNSUPPORTED) {
        skip("this kernel has no PAGEMAP_SCAN");
        pages_release(&p);
        return;
    }
    ok(rc == 0 && p.method == method, "%s works %s", name, err.text);
    ok(runs_sane(&p) && p.present == present_pages() * PAGE && p.n == PATTERN_PAGES / 3,
       "%s: the present pages, exactly (%zu runs)", name, p.n);
    struct mem_region halves[2] = {{all.start, all.start + 2 * PAGE},
                                   {all.start + 2 * PAGE, all.start + 5 * PAGE}};
    rc = pages_scan(&p, pid, halves, 2, method, &err);
    ok(rc == 0 && p.n == 2 && p.present == 4 * PAGE, "%s: of two adjacent ranges", name);
    struct mem_region zeros = {(uintptr_t)shared->zeros, (uintptr_t)shared->zeros + 64 * PAGE};
    rc = pages_scan(&p, pid, &zeros, 1, method, &err);
    ok(rc == 0 && p.present == (method == PAGES_SCAN ? 0 : 64 * PAGE),
       "%s: pages of the zero page are %s", name, method == PAGES_SCAN ? "absent" : "present");
    struct mem_region sparse = {(uintptr_t)shared->sparse,
                                (uintptr_t)shared->sparse + sparse_bytes};
    rc = pages_scan(&p, pid, &sparse, 1, method, &err);
    ok(rc == 0 && p.present == SPARSE_PAGES * PAGE, "%s: a hundred pages in 16 GiB", name);
    pages_release(&p);
}

static int no_ioctl(int fd, unsigned long request, void *arg)
{
    (void)fd;
    (void)request;
    (void)arg;
    errno = ENOTTY;
    return -1;
}

static void test_fallback(pid_t pid)
{
    struct pages p;
    struct mem_region all = pattern_region();
    pages_init(&p);
    sys_calls.ioctl = no_ioctl;
    ok(pages_scan(&p, pid, &all, 1, PAGES_AUTO, NULL) == 0 && p.method == PAGES_PAGEMAP &&
           p.present == present_pages() * PAGE,
       "without the ioctl the pagemap is read");
    ok(pages_scan(&p, pid, &all, 1, PAGES_SCAN, NULL) == ERR_UNSUPPORTED, "unless forced");
    sys_calls = sys_calls_real;
    struct mem_region wrong[2] = {{8192, 12288}, {4096, 8192}};
    ok(pages_scan(&p, pid, wrong, 2, PAGES_AUTO, NULL) == ERR_USAGE, "unsorted ranges are refused");
    pages_release(&p);
}

static bool pattern_right(const uint8_t *bytes, size_t page)
{
    for (size_t j = 0; j < PAGE; j += 8)
        if (load_u64(bytes + j) != page)
            return false;
    return true;
}

/* All pages of the pattern from `first` on, through mem. */
static bool all_right(struct mem *mem, size_t first)
{
    static uint8_t buf[3 * PAGE];
    uint64_t start = pattern_region().start;
    for (size_t i = first; i + 3 <= PATTERN_PAGES; i += 3) {
        struct mem_span span = {start + i * PAGE + 8, buf, sizeof buf - 8, 0};
        if (mem_readv(mem, &span, 1, NULL) < 0 || span.got != 2 * PAGE - 8)
            return false;
        memmove(buf + 8, buf, 2 * PAGE - 8);
        memcpy(buf, buf + 8, 8);
        if (!pattern_right(buf, i) || !pattern_right(buf + PAGE, i + 1))
            return false;
    }
    return true;
}

static void test_live(pid_t pid)
{
    struct pages p;
    struct mem *mem = NULL;
    struct err err = ERR_INIT;
    struct mem_region all = pattern_region();
    const struct mem_region *regions;
    size_t n = 0;
    pages_init(&p);
    int rc = pages_scan(&p, pid, &all, 1, PAGES_AUTO, &err);
    ok(rc == 0 && live_new(pid, p.runs, p.n, false, &mem, &err) == 0, "live memory opens");
    ok(!(mem->traits & MEM_FROZEN), "it is not frozen");
    ok(mem_regions(mem, &regions, &n, NULL) == 0 && n == p.n, "its regions are the present runs");
    ok(all_right(mem, 0), "spans end at absent pages, bytes are right");
    uint64_t v;
    ok(mem_u64(mem, all.start + 2 * PAGE, &v, &err) == ERR_FAULT, "an absent page is a fault");
    ok(mem_u64(mem, 0xffffffffff600000, &v, &err) == ERR_FAULT, "so is the top of memory");
    ok(live_set_runs(mem, p.runs, 1, NULL) == 0 && mem_u64(mem, all.start + 3 * PAGE, &v, NULL) < 0,
       "other runs replace them");
    mem_close(mem);
    pages_release(&p);
}

/* The whole way: plan, reserve, stop, copy, let go. The caller closes *ret's memory. */
static int copy_all(pid_t pid, uint64_t reserve, struct copy **ret, struct copy_stats *stats,
                    struct err *err)
{
    struct pages p;
    struct copy_plan plan;
    struct stop stop;
    struct mem_region all = pattern_region();
    pages_init(&p);
    copy_plan_init(&plan);
    stop_init(&stop, NULL);
    int fd = -1;
    int rc = copy_reserve(reserve, ret, err);
    bool reserved = rc == 0;
    if (rc == 0)
        rc = stop_begin(pid, sys_now_ns() + 3000000000u, &stop, err);
    if (rc == 0)
        rc = pages_scan(&p, pid, &all, 1, PAGES_AUTO, err);
    if (rc == 0)
        rc = copy_plan(&plan, p.runs, p.n, &all, 1, err);
    if (rc == 0)
        rc = fd = proc_open(pid, "mem", O_RDONLY, err);
    if (rc >= 0)
        rc = copy_start(*ret, &plan, fd, err);
    if (rc >= 0 && copy_wait(*ret, sys_now_ns() + 10000000000u, NULL) != COPY_DONE)
        rc = ERR_LIMIT;
    stop_release(&stop);
    if (rc >= 0)
        rc = copy_finish(*ret, stats, err);
    if (rc < 0 && reserved) {
        mem_close(copy_mem(*ret));
        *ret = NULL;
    }
    if (fd >= 0)
        close(fd);
    copy_plan_release(&plan);
    pages_release(&p);
    return rc;
}

static void test_copy(pid_t pid, uint64_t reserve, bool grows)
{
    struct copy *copy = NULL;
    struct copy_stats stats = {0};
    struct err err = ERR_INIT;
    const char *how = grows ? "a copy that outgrew its reserve" : "a copy";
    if (!ok(copy_all(pid, reserve, &copy, &stats, &err) == 0, "%s succeeds %s", how, err.text))
        return;
    struct mem *mem = copy_mem(copy);
    uint64_t start = pattern_region().start;
    size_t len = 0, n = 0;
    const struct mem_region *regions;
    ok(stats.bytes == present_pages() * PAGE && !stats.hole_bytes && stats.grown == grows,
       "%s has all %zu pages", how, present_pages());
    ok(mem->traits == (MEM_FROZEN | MEM_SPARSE), "%s is frozen and sparse", how);
    ok(all_right(mem, 0), "%s has the right bytes", how);
    const uint8_t *p = mem->ops->direct(mem, start + 3 * PAGE + 16, &len);
    ok(p && load_u64(p) == 3 && len == 2 * PAGE - 16, "%s hands out its bytes in place", how);
    ok(!mem->ops->direct(mem, start + 2 * PAGE, &len) && len == 0, "%s has holes", how);
    ok(!mem->ops->direct(mem, start - 1, &len) && !mem->ops->direct(mem, UINT64_MAX, &len),
       "%s ends somewhere", how);
    ok(mem_regions(mem, &regions, &n, NULL) == 0 && n == PATTERN_PAGES / 3, "%s: its regions", how);
    mem_close(mem);
}

static void test_plan(void)
{
    struct copy_plan plan;
    copy_plan_init(&plan);
    const struct page_run present[] = {{0x1000, 0x5000}, {0x7000, 0x8000}, {0x9000, 0xf000}};
    const struct mem_region wanted[] = {{0x2000, 0x3000}, {0x3000, 0x9800}, {0x9900, 0xa100}};
    ok(copy_plan(&plan, present, 3, wanted, 3, NULL) == 0 && plan.n == 3, "a plan of three ranges");
    ok(plan.ranges[0].start == 0x2000 && plan.ranges[0].end == 0x5000 &&
           plan.ranges[2].start == 0x9000 && plan.ranges[2].end == 0xb000 && plan.bytes == 0x6000,
       "merged where they touch, whole pages, none twice");
    ok(copy_plan(&plan, present, 0, wanted, 3, NULL) == 0 && plan.n == 0 && plan.bytes == 0,
       "an empty plan");
    copy_plan_release(&plan);
    struct copy *copy = NULL;
    struct err err = ERR_INIT;
    ok(copy_reserve((uint64_t)1 << 50, &copy, &err) == ERR_NOMEM && err.remedy[0],
       "too much is refused: %s", err.text);
    ok(copy_reserve(UINT64_MAX, &copy, &err) == ERR_NOMEM, "far too much as well");
}

/* Start a copy with what was present before and wait for nothing. */
static int late_copy(pid_t pid, const struct copy_plan *plan, struct copy_stats *stats,
                     struct copy **copy, enum copy_state *state, struct err *err)
{
    int rc = copy_reserve(plan->bytes, copy, err);
    int fd = rc < 0 ? rc : proc_open(pid, "mem", O_RDONLY, err);
    if (fd >= 0)
        rc = copy_start(*copy, plan, fd, err);
    else
        rc = fd;
    if (rc == 0) {
        *state = copy_wait(*copy, 0, NULL);
        rc = copy_finish(*copy, stats, err);
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

static void test_holes(pid_t pid)
{
    struct pages p;
    struct copy_plan plan;
    struct copy *copy = NULL;
    struct copy_stats stats = {0};
    enum copy_state state = COPY_DONE;
    struct mem *live = NULL;
    struct err err = ERR_INIT;
    struct mem_region all = pattern_region();
    pages_init(&p);
    copy_plan_init(&plan);
    int rc = pages_scan(&p, pid, &all, 1, PAGES_AUTO, &err);
    if (rc == 0)
        rc = copy_plan(&plan, p.runs, p.n, &all, 1, &err);
    ok(rc == 0 && live_new(pid, p.runs, p.n, true, &live, &err) == 0, "planned while it runs");
    ok(advance(2), "the target unmaps half of it");
    rc = late_copy(pid, &plan, &stats, &copy, &state, &err);
    ok(rc == 0 && state != COPY_INTERRUPTED, "copied all the same %s", err.text);
    ok(stats.hole_bytes == stats.bytes && stats.bytes + stats.hole_bytes == plan.bytes,
       "half of it are holes");
    uint64_t v;
    ok(rc == 0 && all_right(copy_mem(copy), PATTERN_PAGES / 2), "the rest is right");
    ok(rc == 0 && mem_u64(copy_mem(copy), all.start, &v, NULL) == ERR_FAULT, "a hole is a fault");
    if (copy)
        mem_close(copy_mem(copy));
    ok(mem_u64(live, all.start, &v, NULL) == ERR_FAULT,
       "live: a lost page is a fault, not the end");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    ok(mem_u64(live, all.end - PAGE * 2, &v, &err) == ERR_NOT_FOUND, "live: %s", err.text);
    copy = NULL;
    rc = copy_reserve(plan.bytes, &copy, &err);
    if (rc == 0)
        rc = copy_start(copy, &plan, live_fd(live), &err);
    if (rc == 0)
        rc = copy_finish(copy, &stats, &err);
    ok(rc == ERR_NOT_FOUND, "copy: %s", err.text);
    if (copy)
        mem_close(copy_mem(copy));
    mem_close(live);
    copy_plan_release(&plan);
    pages_release(&p);
}

/* ---- harm ---- */

static uint64_t pss_kb(pid_t pid)
{
    char path[64], *text;
    size_t len;
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    if (procfile_read(path, &text, &len, NULL) < 0)
        return 0;
    uint64_t kb = procfile_number(text, "Pss", 10);
    free(text);
    return kb;
}

/* Everything that pages_wanted lets us read, through both backends. */
static bool read_everything(pid_t pid)
{
    struct maps maps;
    struct pages p;
    struct copy_plan plan;
    struct copy *copy = NULL;
    struct copy_stats stats = {0};
    enum copy_state state;
    struct mem_region everything = {0, (uint64_t)1 << 47};
    maps_init(&maps);
    pages_init(&p);
    copy_plan_init(&plan);
    bool good = maps_read(&maps, pid, NULL) == 0 &&
                pages_scan_maps(&p, pid, &maps, PAGES_AUTO, NULL) == 0 &&
                copy_plan(&plan, p.runs, p.n, &everything, 1, NULL) == 0 &&
                late_copy(pid, &plan, &stats, &copy, &state, NULL) == 0;
    good = good && stats.bytes > PATTERN_PAGES / 2 * PAGE;
    if (copy)
        mem_close(copy_mem(copy));
    maps_release(&maps);
    pages_release(&p);
    copy_plan_release(&plan);
    return good;
}

static void test_harm(pid_t pid)
{
    struct proc_status before, after;
    uint64_t pss = pss_kb(pid);
    ok(proc_status_read(pid, &before, NULL) == 0 && read_everything(pid) &&
           proc_status_read(pid, &after, NULL) == 0,
       "all present memory of a 16 GiB sparse target is read");
    ok(before.vm_pte == after.vm_pte && before.vm_rss == after.vm_rss,
       "VmPTE and VmRSS stay (%lu and %lu kB)", (unsigned long)after.vm_pte >> 10,
       (unsigned long)after.vm_rss >> 10);
    uint64_t now = pss_kb(pid);
    ok(pss && now < pss + pss / 50 + 64, "Pss stays (%lu, then %lu kB)", (unsigned long)pss,
       (unsigned long)now);
}

/* A forked worker shares its pages with its parent: reading must not un-share them. */
static void test_forked_worker(void)
{
    uint64_t len = (uint64_t)PATTERN_PAGES * PAGE;
    uint8_t *ours = map_bytes(len);
    memset(ours, 7, len);
    atomic_store(&shared->done, 0);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        atomic_store(&shared->done, 1);
        for (;;)
            pause();
    }
    advance(1);
    uint64_t pss = pss_kb(pid);
    ok(read_everything(pid), "a forked worker is read");
    uint64_t now = pss_kb(pid);
    ok(pss && now < pss + pss / 50 + 64, "its Pss stays (%lu, then %lu kB)", (unsigned long)pss,
       (unsigned long)now);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    munmap(ours, len);
}

/* ---- the i-th call fails ---- */

static atomic_long calls;
static long fail_at;

static bool fails(int os_errno)
{
    if (atomic_fetch_add(&calls, 1) + 1 != fail_at)
        return false;
    errno = os_errno;
    return true;
}

static ssize_t failing_pread(int fd, void *buf, size_t len, off_t at)
{
    return fails(ENXIO) ? -1 : sys_calls_real.pread(fd, buf, len, at);
}

static void *failing_map(size_t len)
{
    return fails(ENOMEM) ? NULL : sys_calls_real.map(len);
}

static long failing_ptrace(int request, pid_t tid, void *addr, void *data)
{
    return fails(EIO) ? -1 : sys_calls_real.ptrace(request, tid, addr, data);
}

static int failing_ioctl(int fd, unsigned long request, void *arg)
{
    return fails(EIO) ? -1 : sys_calls_real.ioctl(fd, request, arg);
}

static void test_failures(pid_t pid)
{
    unsigned failed = 0, bad = 0;
    sys_calls.pread = failing_pread;
    sys_calls.map = failing_map;
    sys_calls.ptrace = failing_ptrace;
    sys_calls.ioctl = failing_ioctl;
    /* The reads are thousands: after the first twenty, every 701st. */
    for (fail_at = 1; fail_at < 100000; fail_at += fail_at < 20 ? 1 : 701) {
        struct copy *copy = NULL;
        struct copy_stats stats;
        struct err err = ERR_INIT;
        atomic_store(&calls, 0);
        int rc = copy_all(pid, 0, &copy, &stats, &err);
        failed += rc < 0;
        bad += (rc < 0) != (err.text[0] != '\0') || proc_task_tracer(pid, pid);
        if (rc == 0)
            mem_close(copy_mem(copy));
        if (atomic_load(&calls) < fail_at)
            break;
    }
    sys_calls = sys_calls_real;
    ok(failed > 10 && bad == 0 && fail_at < 100000, "%u failures: told, let go, nothing leaked",
       failed);
}

int main(void)
{
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t pid = start_child();
    test_plan();
    test_method(pid, PAGES_SCAN, "PAGEMAP_SCAN");
    test_method(pid, PAGES_PAGEMAP, "pagemap");
    test_fallback(pid);
    test_live(pid);
    test_copy(pid, (uint64_t)PATTERN_PAGES * PAGE, false);
    test_copy(pid, 0, true);
    test_harm(pid);
    test_failures(pid);
    test_forked_worker();
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    test_holes(start_child());
    return done_testing();
}
