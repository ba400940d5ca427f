/* A core's memory: one sorted list of sources, each a range of addresses that is a range of a file.
 * What core_mem_add brings becomes sources where there are none yet, so that reading needs no rule
 * of precedence. */
#include "inspector/target/core_mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/sys.h"

struct source {
    uint64_t start, end, offset;
    int fd;
    bool added;
};

/* One descriptor for each file, however many pieces of it were added. */
struct added_file {
    dev_t dev;
    ino_t ino;
    int fd;
};

struct core_mem {
    struct mem mem;
    const struct core_pages *pages;
    struct source *sources; /* sorted, disjoint */
    size_t n, cap;
    struct added_file *files;
    size_t n_files, cap_files;
    struct mem_region *regions;
    size_t n_regions, cap_regions;
    bool stale; /* the regions */
};

/* The first source that ends behind addr. */
static size_t seek(const struct core_mem *cm, uint64_t addr)
{
    size_t lo = 0, hi = cm->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (addr >= cm->sources[mid].end)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* ---- reading ---- */

/* A file that is shorter than it was, or a sector that cannot be read, is a hole: what can be read
 * of a core must not depend on the rest. */
static int read_source(const struct source *src, uint64_t addr, uint8_t *buf, size_t len,
                       size_t *got, struct err *err)
{
    for (*got = 0; *got < len;) {
        off_t at = (off_t)(src->offset + (addr - src->start) + *got);
        ssize_t n = sys_calls.pread(src->fd, buf + *got, len - *got, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0 || (n < 0 && errno == EIO))
            return 0;
        if (n < 0)
            return err_os(err, errno, "cannot read the %s",
                          src->added ? "file that was mapped" : "core");
        *got += (size_t)n;
    }
    return 0;
}

static int read_span(const struct core_mem *cm, struct mem_span *s, struct err *err)
{
    s->got = 0;
    for (size_t i = seek(cm, s->addr); i < cm->n && s->got < s->len; i++) {
        const struct source *src = &cm->sources[i];
        uint64_t addr = s->addr + s->got; /* no overflow: the source before ended here */
        if (src->start > addr)
            break;
        size_t want = min_u64(s->len - s->got, src->end - addr), got;
        int rc = read_source(src, addr, (uint8_t *)s->buf + s->got, want, &got, err);
        if (rc < 0)
            return rc;
        s->got += got; /* short: the next source begins behind what is missing */
    }
    return 0;
}

static int core_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    const struct core_mem *cm = (const struct core_mem *)mem;
    int rc = 0;
    for (size_t i = 0; i < n; i++)
        spans[i].got = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = read_span(cm, &spans[i], err);
    return rc;
}

/* ---- regions ---- */

static int add_region(struct core_mem *cm, uint64_t start, uint64_t end, struct err *err)
{
    struct mem_region *last = cm->n_regions ? &cm->regions[cm->n_regions - 1] : NULL;
    if (last && last->end == start) {
        last->end = end;
        return 0;
    }
    if (vec_reserve(&cm->regions, &cm->cap_regions, cm->n_regions + 1, sizeof *cm->regions) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu regions", cm->n_regions + 1);
    cm->regions[cm->n_regions++] = (struct mem_region){start, end};
    return 0;
}

/* The parts of one source of the core that hold data; *run moves on to the first run that may
 * matter to the next source. */
static int add_data(struct core_mem *cm, const struct source *src, size_t *run, struct err *err)
{
    const struct core_pages *pages = cm->pages;
    int rc = 0;
    while (*run < pages->n && pages->runs[*run].end <= src->start)
        ++*run;
    for (size_t i = *run; i < pages->n && pages->runs[i].start < src->end && rc == 0; i++) {
        rc = add_region(cm, max_u64(pages->runs[i].start, src->start),
                        min_u64(pages->runs[i].end, src->end), err);
        *run = i;
    }
    return rc;
}

static int core_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    struct core_mem *cm = (struct core_mem *)mem;
    size_t run = 0;
    int rc = 0;
    if (cm->stale)
        cm->n_regions = 0;
    for (size_t i = 0; cm->stale && i < cm->n && rc == 0; i++) {
        const struct source *src = &cm->sources[i];
        rc = src->added ? add_region(cm, src->start, src->end, err) : add_data(cm, src, &run, err);
    }
    if (rc < 0)
        return rc;
    cm->stale = false;
    *ret = cm->regions;
    *n = cm->n_regions;
    return 0;
}

/* ---- making, adding, closing ---- */

static void core_mem_close(struct mem *mem)
{
    struct core_mem *cm = (struct core_mem *)mem;
    for (size_t i = 0; i < cm->n_files; i++)
        close(cm->files[i].fd);
    free(cm->files);
    free(cm->sources);
    free(cm->regions);
    free(cm);
}

static const struct mem_ops core_mem_ops = {core_readv, core_regions, core_mem_close, NULL};

static int insert_source(struct core_mem *cm, size_t at, const struct source *src, struct err *err)
{
    if (vec_reserve(&cm->sources, &cm->cap, cm->n + 1, sizeof *cm->sources) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu ranges of the core", cm->n + 1);
    memmove(cm->sources + at + 1, cm->sources + at, (cm->n - at) * sizeof *cm->sources);
    cm->sources[at] = *src;
    cm->n++;
    cm->stale = true;
    return 0;
}

int core_mem_new(const struct core *core, const struct core_pages *pages, struct mem **ret,
                 struct err *err)
{
    struct core_mem *cm = calloc(1, sizeof *cm);
    if (!cm)
        return err_set(err, ERR_NOMEM, "no memory to read the core");
    cm->mem.ops = &core_mem_ops;
    cm->mem.traits = MEM_FROZEN | MEM_SPARSE;
    cm->pages = pages;
    cm->stale = true;
    for (size_t i = 0; i < core->n_segments; i++) {
        const struct core_segment *seg = &core->segments[i];
        struct source src = {seg->start, seg->start + seg->here, seg->offset, core->fd, false};
        int rc = seg->here ? insert_source(cm, cm->n, &src, err) : 0;
        if (rc < 0) {
            core_mem_close(&cm->mem);
            return rc;
        }
    }
    *ret = &cm->mem;
    return 0;
}

static int keep_file(struct core_mem *cm, int fd, const struct stat *st, struct err *err)
{
    for (size_t i = 0; i < cm->n_files; i++)
        if (cm->files[i].dev == st->st_dev && cm->files[i].ino == st->st_ino)
            return cm->files[i].fd;
    if (vec_reserve(&cm->files, &cm->cap_files, cm->n_files + 1, sizeof *cm->files) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu files", cm->n_files + 1);
    int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) {
        err_os(err, errno, "cannot keep a mapped file open");
        err_remedy(err, "raise the limit of open files (ulimit -n)");
        return ERR_OS;
    }
    cm->files[cm->n_files++] = (struct added_file){st->st_dev, st->st_ino, own};
    return own;
}

/* Fill [start, end) wherever there is no source yet. */
static int fill_gaps(struct core_mem *cm, uint64_t start, uint64_t end, uint64_t offset, int fd,
                     struct err *err)
{
    int rc = 0;
    for (size_t i = seek(cm, start); start < end && rc == 0; i++) {
        uint64_t stop = i < cm->n ? min_u64(cm->sources[i].start, end) : end;
        if (stop > start) {
            struct source src = {start, stop, offset, fd, true};
            rc = insert_source(cm, i, &src, err);
        } else {
            stop = cm->sources[i].end;
        }
        offset += stop - start;
        start = stop;
    }
    return rc;
}

int core_mem_add(struct mem *mem, uint64_t start, uint64_t end, int fd, uint64_t offset,
                 struct err *err)
{
    struct core_mem *cm = (struct core_mem *)mem;
    struct stat st;
    if (start >= end)
        return err_set(err, ERR_USAGE, "a range of no bytes");
    if (fstat(fd, &st) < 0)
        return err_os(err, errno, "cannot look at the mapped file");
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_FORMAT, "the mapped file is not a regular file");
    /* Pages behind the end of a file cannot be read, in the process neither. */
    if ((uint64_t)st.st_size <= offset)
        return 0;
    end = start + min_u64(end - start, (uint64_t)st.st_size - offset);
    int own = keep_file(cm, fd, &st, err);
    return own < 0 ? own : fill_gaps(cm, start, end, offset, own, err);
}
