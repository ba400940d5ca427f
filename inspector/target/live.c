#include "inspector/target/live.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "inspector/target/proc.h"
#include "inspector/target/sys.h"

struct live {
    struct mem mem;
    int pid, fd;
    struct mem_region *runs; /* what may be read; handed out as the regions too */
    size_t n;
};

/* How many bytes from addr on lie in one run, up to len. */
static uint64_t readable(const struct live *live, uint64_t addr, uint64_t len)
{
    size_t lo = 0, hi = live->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (addr >= live->runs[mid].end)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == live->n || live->runs[lo].start > addr)
        return 0;
    return min_u64(len, live->runs[lo].end - addr);
}

static int exited(const struct live *live, struct err *err)
{
    return err_set(err, ERR_NOT_FOUND, "process %d has exited or has started another program",
                   live->pid);
}

static int read_span(struct live *live, struct mem_span *s, struct err *err)
{
    uint64_t want = readable(live, s->addr, s->len);
    s->got = 0;
    while (s->got < want) {
        uint64_t at = s->addr + s->got;
        ssize_t n = sys_calls.pread(live->fd, (uint8_t *)s->buf + s->got, want - s->got, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EIO || errno == EFAULT || errno == EINVAL))
            break;
        if (n < 0)
            return err_os(err, errno, "cannot read process %d at 0x%" PRIx64, live->pid, at);
        if (n == 0)
            return exited(live, err);
        s->got += (size_t)n;
    }
    return 0;
}

static int live_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    struct live *live = (struct live *)mem;
    int rc = 0;
    for (size_t i = 0; i < n; i++)
        spans[i].got = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = read_span(live, &spans[i], err);
    return rc;
}

static int live_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    const struct live *live = (const struct live *)mem;
    (void)err;
    *ret = live->runs;
    *n = live->n;
    return 0;
}

static void live_close(struct mem *mem)
{
    struct live *live = (struct live *)mem;
    if (live->fd >= 0)
        close(live->fd);
    free(live->runs);
    free(live);
}

static const struct mem_ops live_ops = {live_readv, live_regions, live_close, NULL};

int live_set_runs(struct mem *mem, const struct page_run *runs, size_t n, struct err *err)
{
    struct live *live = (struct live *)mem;
    struct mem_region *fresh = calloc(n + 1, sizeof *fresh);
    if (!fresh)
        return err_set(err, ERR_NOMEM, "no memory for %zu page runs", n);
    for (size_t i = 0; i < n; i++)
        fresh[i] = (struct mem_region){runs[i].start, runs[i].end};
    free(live->runs);
    live->runs = fresh;
    live->n = n;
    return 0;
}

int live_fd(const struct mem *mem)
{
    return ((const struct live *)mem)->fd;
}

int live_new(int pid, const struct page_run *runs, size_t n, bool stopped, struct mem **ret,
             struct err *err)
{
    struct live *live = calloc(1, sizeof *live);
    if (!live)
        return err_set(err, ERR_NOMEM, "no memory to read process %d", pid);
    live->mem.ops = &live_ops;
    live->mem.traits = MEM_SPARSE | (stopped ? MEM_FROZEN : 0);
    live->pid = pid;
    live->fd = proc_open(pid, "mem", O_RDONLY, err);
    int rc = live->fd < 0 ? live->fd : live_set_runs(&live->mem, runs, n, err);
    if (rc < 0) {
        live_close(&live->mem);
        return rc;
    }
    *ret = &live->mem;
    return 0;
}
