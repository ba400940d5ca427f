/* Compare glibc_walk with the truth that malloc_target wrote.
 *
 *     malloc_check PID TRUTH [options]      prints one line; exit 0 iff everything agrees
 *       --image        walk a local copy (the `direct` path) instead of /proc/PID/mem
 *       --no-threads   pass no fs_bases, as for a target that was not stopped
 *       --loose        only bounded time and sums (random stops in the middle of malloc)
 *       --quiet        no notes
 *
 * Stops the target itself (PTRACE_SEIZE, INTERRUPT) and reads only pages that are present. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "formats/base/addrset.h"
#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/glibc/glibc.h"

enum { MAX_VMAS = 65536, MAX_TIDS = 1024 };

struct chunk {
    uint64_t addr, size;
    enum glibc_state state;
    size_t order;
};

/* A live backend of our own: a hole where a page is not present. */
struct live {
    struct mem mem;
    int fd;
    const struct residency *res;
    struct mem_region *regions;
    size_t n;
};

struct check {
    pid_t pid;
    pid_t tids[MAX_TIDS];
    uint64_t fs[MAX_TIDS];
    size_t n_tids;
    struct vma *vmas;
    size_t n_vmas;
    struct page_run *runs;
    size_t n_runs, cap_runs;
    struct residency res;
    struct glibc_data *data;
    size_t n_data;
    struct chunk *chunks;
    size_t n_chunks, cap_chunks;
    bool image, no_threads, loose, quiet;
    uint64_t faults;
};

static void die(const char *what)
{
    perror(what);
    exit(2);
}

static int live_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    struct live *l = (struct live *)mem;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        struct mem_span *s = &spans[i];
        s->got = 0;
        size_t r = residency_seek(l->res, s->addr);
        while (s->got < s->len && r < l->res->n && l->res->runs[r].start <= s->addr + s->got) {
            uint64_t at = s->addr + s->got;
            size_t want = (size_t)min_u64(s->len - s->got, l->res->runs[r].end - at);
            ssize_t got = pread(l->fd, (char *)s->buf + s->got, want, (off_t)at);
            if (got <= 0)
                break;
            s->got += (size_t)got;
            r = residency_seek(l->res, s->addr + s->got);
        }
    }
    return 0;
}

static int live_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    (void)err;
    *ret = ((struct live *)mem)->regions;
    *n = ((struct live *)mem)->n;
    return 0;
}

static void live_close(struct mem *mem)
{
    (void)mem;
}

static const struct mem_ops live_ops = {live_readv, live_regions, live_close, NULL};

static void stop_all(struct check *c)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", c->pid);
    DIR *dir = opendir(path);
    if (!dir)
        die(path);
    for (struct dirent *e; (e = readdir(dir)) && c->n_tids < MAX_TIDS;) {
        pid_t tid = atoi(e->d_name);
        int status;
        struct user_regs_struct regs;
        if (!tid || ptrace(PTRACE_SEIZE, tid, 0, 0) < 0 ||
            ptrace(PTRACE_INTERRUPT, tid, 0, 0) < 0 || waitpid(tid, &status, __WALL) < 0)
            continue;
        ptrace(PTRACE_GETREGS, tid, 0, &regs);
        c->fs[c->n_tids] = regs.fs_base;
        c->tids[c->n_tids++] = tid;
    }
    closedir(dir);
}

static enum vma_kind kind_of(const struct vma *v)
{
    if (strcmp(v->name, "[heap]") == 0)
        return VMA_HEAP;
    if (strncmp(v->name, "[stack", 6) == 0)
        return VMA_STACK;
    if (v->name[0] == '[' && strncmp(v->name, "[anon:", 6) != 0)
        return VMA_KERNEL;
    if (v->shared)
        return VMA_SHARED;
    return v->inode ? VMA_FILE : VMA_ANON;
}

static void read_maps(struct check *c)
{
    char path[64], line[4400];
    snprintf(path, sizeof path, "/proc/%d/maps", c->pid);
    FILE *f = fopen(path, "r");
    c->vmas = calloc(MAX_VMAS, sizeof *c->vmas);
    if (!f || !c->vmas)
        die(path);
    while (c->n_vmas < MAX_VMAS && fgets(line, sizeof line, f)) {
        struct vma *v = &c->vmas[c->n_vmas];
        char perms[8];
        int at = 0;
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %" SCNx64 " %*s %" SCNu64 " %n", &v->start,
                   &v->end, perms, &v->offset, &v->inode, &at) < 5)
            continue;
        v->r = perms[0] == 'r';
        v->w = perms[1] == 'w';
        v->x = perms[2] == 'x';
        v->shared = perms[3] == 's';
        v->name = strdup(line + at);
        v->kind = kind_of(v);
        c->n_vmas++;
    }
    fclose(f);
}

static void add_run(struct check *c, uint64_t start, uint64_t end)
{
    if (c->n_runs && c->runs[c->n_runs - 1].end == start) {
        c->runs[c->n_runs - 1].end = end;
        return;
    }
    if (vec_reserve(&c->runs, &c->cap_runs, c->n_runs + 1, sizeof *c->runs) < 0)
        die("runs");
    c->runs[c->n_runs++] = (struct page_run){start, end};
}

static void read_pagemap(struct check *c)
{
    char path[64];
    uint64_t words[4096];
    snprintf(path, sizeof path, "/proc/%d/pagemap", c->pid);
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        die(path);
    for (size_t i = 0; i < c->n_vmas; i++) {
        struct vma *v = &c->vmas[i];
        for (uint64_t a = v->start; v->kind != VMA_KERNEL && a < v->end;) {
            size_t want = (size_t)min_u64((v->end - a) / 4096, 4096);
            ssize_t got = pread(fd, words, 8 * want, (off_t)(a / 4096 * 8));
            if (got <= 0)
                break;
            for (ssize_t k = 0; k < got / 8; k++, a += 4096)
                if (words[k] >> 63) {
                    add_run(c, a, a + 4096);
                    v->rss += 4096;
                }
        }
    }
    close(fd);
    if (residency_init(&c->res, c->runs, c->n_runs, NULL) < 0)
        die("residency");
}

static void find_data(struct check *c)
{
    c->data = calloc(2 * c->n_vmas, sizeof *c->data);
    for (int libc = 1; c->data && libc >= 0; libc--)
        for (size_t i = 0; i < c->n_vmas; i++) {
            const struct vma *v = &c->vmas[i], *next = v + 1;
            const char *base = strrchr(v->name, '/');
            if (v->kind != VMA_FILE || !v->w || !base)
                continue;
            bool is_libc = !strcmp(base, "/libc.so.6") || !strncmp(base, "/libc-2.", 8);
            uint64_t end = v->end;
            if (i + 1 < c->n_vmas && next->start == end && next->kind == VMA_ANON && next->w)
                end = next->end;
            if (is_libc == libc)
                c->data[c->n_data++] = (struct glibc_data){v->start, end, is_libc};
        }
}

static struct mem *open_live(struct check *c, struct live *l)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/mem", c->pid);
    *l = (struct live){.mem = {&live_ops, MEM_FROZEN | MEM_SPARSE, 0}, .res = &c->res};
    l->fd = open(path, O_RDONLY);
    l->regions = calloc(c->n_vmas + 1, sizeof *l->regions);
    if (l->fd < 0 || !l->regions)
        die(path);
    for (size_t i = 0; i < c->n_vmas; i++)
        if (c->vmas[i].r && c->vmas[i].kind != VMA_KERNEL)
            l->regions[l->n++] = (struct mem_region){c->vmas[i].start, c->vmas[i].end};
    return &l->mem;
}

/* Copy every present run into memory of ours. */
static struct mem *copy_live(struct check *c, struct mem *live)
{
    struct mem_image_piece *pieces = calloc(c->n_runs, sizeof *pieces);
    size_t n = 0;
    for (size_t i = 0; pieces && i < c->n_runs; i++) {
        size_t len = (size_t)(c->runs[i].end - c->runs[i].start);
        void *buf = malloc(len);
        size_t got = buf ? mem_read_some(live, c->runs[i].start, buf, len) : 0;
        if (got)
            pieces[n++] = (struct mem_image_piece){c->runs[i].start, buf, got};
    }
    struct mem *image = NULL;
    if (!pieces || mem_image_new(pieces, n, &image, NULL) < 0)
        die("image");
    return image;
}

static void on_chunk(void *ctx, uint64_t chunk, uint64_t size, enum glibc_state state)
{
    struct check *c = ctx;
    if (vec_reserve(&c->chunks, &c->cap_chunks, c->n_chunks + 1, sizeof *c->chunks) < 0)
        die("chunks");
    c->chunks[c->n_chunks] = (struct chunk){chunk, size, state, c->n_chunks};
    c->n_chunks++;
}

static int by_address(const void *a, const void *b)
{
    const struct chunk *x = a, *y = b;
    if (x->addr != y->addr)
        return x->addr < y->addr ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

/* Sort; of two calls for one address the later one counts. */
static void sort_chunks(struct check *c)
{
    size_t kept = 0;
    qsort(c->chunks, c->n_chunks, sizeof *c->chunks, by_address);
    for (size_t i = 0; i < c->n_chunks; i++) {
        if (kept && c->chunks[kept - 1].addr == c->chunks[i].addr)
            kept--;
        c->chunks[kept++] = c->chunks[i];
    }
    c->n_chunks = kept;
}

/* The chunk that contains addr, or NULL. */
static const struct chunk *chunk_at(const struct check *c, uint64_t addr)
{
    size_t lo = 0;
    for (size_t hi = c->n_chunks; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        if (c->chunks[mid].addr <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    const struct chunk *k = lo ? &c->chunks[lo - 1] : NULL;
    return k && addr - k->addr < k->size ? k : NULL;
}

static void fault(struct check *c, const char *what, uint64_t addr, uint64_t want, uint64_t have)
{
    if (c->faults++ < 8)
        printf("  %s at 0x%" PRIx64 ": want %" PRIu64 ", have %" PRIu64 "\n", what, addr, want,
               have);
}

struct truth {
    struct addrset live; /* header -> usable */
    uint64_t *freed;
    size_t n_freed, cap_freed;
    uint64_t info[10];
    char version[32];
};

static void read_truth(struct truth *t, const char *path)
{
    char line[512];
    FILE *f = fopen(path, "r");
    if (!f)
        die(path);
    memset(t, 0, sizeof *t);
    addrset_init(&t->live);
    while (fgets(line, sizeof line, f)) {
        uint64_t p, size, usable, live;
        if (sscanf(line, "R %" SCNx64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &p, &size, &usable,
                   &live) == 4) {
            if (live && addrset_add(&t->live, p, usable, NULL) < 0)
                die("truth");
            if (!live && vec_reserve(&t->freed, &t->cap_freed, t->n_freed + 1, 8) == 0)
                t->freed[t->n_freed++] = p;
        } else if (line[0] == 'M') {
            char *at = line + 1;
            for (int i = 0; i < 10; i++)
                t->info[i] = strtoull(at, &at, 10);
        } else {
            sscanf(line, "# glibc %31s", t->version);
        }
    }
    fclose(f);
}

/* Usable bytes of a chunk in use: mmapped ones changed with 2.43. */
static uint64_t usable(const struct chunk *k, bool is_243)
{
    return k->size - (k->state == GLIBC_MMAPPED && !is_243 ? 16 : 8);
}

static void check_blocks(struct check *c, const struct truth *t, bool is_243)
{
    for (size_t i = 0; i < t->live.cap; i++) {
        uint64_t p = t->live.slots[i].key;
        if (!p)
            continue;
        const struct chunk *k = chunk_at(c, p - 16);
        if (!k || k->addr != p - 16 || (k->state != GLIBC_USED && k->state != GLIBC_MMAPPED))
            fault(c, "live block is missing", p, GLIBC_USED, k ? k->state : 99);
        else if (usable(k, is_243) != t->live.slots[i].value)
            fault(c, "usable size", p, t->live.slots[i].value, usable(k, is_243));
    }
    for (size_t i = 0; i < t->n_freed; i++) {
        const struct chunk *k = chunk_at(c, t->freed[i] - 16);
        if (addrset_find(&t->live, t->freed[i]) || !k)
            continue;
        /* Its memory may belong to a later block, or to something of libc's. */
        if (k->state == GLIBC_USED && k->addr == t->freed[i] - 16 &&
            !addrset_find(&t->live, k->addr + 16))
            fault(c, "freed block is in use", t->freed[i], GLIBC_CACHED, k->state);
    }
}

static void check_info(struct check *c, const struct truth *t, const struct snapshot_malloc *m,
                       bool is_243)
{
    const struct snapshot_mallinfo2 *i = &m->mallinfo2;
    const uint64_t have[10] = {i->arena, i->ordblks, i->smblks,   i->hblks,    i->hblkhd,
                               0,        i->fsmblks, i->uordblks, i->fordblks, i->keepcost};
    static const char *const names[10] = {"arena",   "ordblks", "smblks",   "hblks",    "hblkhd",
                                          "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"};
    for (int k = 0; k < 10; k++) {
        bool drift = k == 4 && is_243 && t->info[k] > have[k] && (t->info[k] - have[k]) % 16 == 0 &&
                     t->info[k] - have[k] < 1 << 20;
        if (k != 5 && t->info[k] != have[k] && !drift)
            fault(c, names[k], 0, t->info[k], have[k]);
    }
}

static enum category fallback(void *ctx, const struct vma *v, uint64_t lo, uint64_t hi)
{
    (void)ctx, (void)v, (void)lo, (void)hi;
    return CAT_UNKNOWN;
}

/* Everything adds up, per arena and over the whole of what is mapped. */
static void check_sums(struct check *c, const struct vma_list *list, const struct blockmap *map,
                       struct snapshot *snap, struct notes *notes)
{
    uint64_t mapped = 0, rss = 0;
    for (size_t i = 0; i < c->n_vmas; i++) {
        mapped += c->vmas[i].end - c->vmas[i].start;
        rss += c->vmas[i].rss;
    }
    if (blockmap_settle(map, list, fallback, NULL, snap, notes, NULL) < 0)
        fault(c, "settle", 0, 0, 1);
    if (tally_bytes(&snap->memory.tally) != mapped)
        fault(c, "sum of mapped bytes", 0, mapped, tally_bytes(&snap->memory.tally));
    if (tally_resident(&snap->memory.tally) != rss)
        fault(c, "sum of resident bytes", 0, rss, tally_resident(&snap->memory.tally));
    for (size_t i = 0; i < snap->n_malloc_arenas && !c->loose; i++) {
        const struct snapshot_malloc_arena *a = &snap->malloc_arenas[i];
        uint64_t sum = a->used_bytes + a->cached_bytes + a->free_bytes + a->top_bytes +
                       a->overhead_bytes + a->damaged_bytes;
        if (sum != a->system_bytes)
            fault(c, "sum of an arena", a->address, a->system_bytes, sum);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void print_notes(const struct check *c, const struct snapshot *snap)
{
    for (size_t i = 0; i < snap->n_notes && !c->quiet; i++)
        if (strncmp(snap->notes[i].what, "malloc", 6) == 0)
            printf("  note %s: %s\n", snap->notes[i].what, snap->notes[i].why);
}

static int run(struct check *c, const char *truth_path)
{
    struct live live;
    struct mem *mem = open_live(c, &live);
    if (c->image)
        mem = copy_live(c, mem);
    struct vma_list list = {c->vmas, c->n_vmas};
    struct snapshot snap;
    struct notes notes;
    struct blockmap map;
    struct err err = ERR_INIT;
    struct truth truth;
    const char *layout = "none";
    snapshot_init(&snap);
    notes_init(&notes, &snap);
    blockmap_init(&map, &c->res);
    struct glibc_input in = {.mem = mem,
                             .vmas = &list,
                             .res = &c->res,
                             .data = c->data,
                             .n_data = c->n_data,
                             .fs_bases = c->fs,
                             .n_threads = c->no_threads ? 0 : c->n_tids,
                             .chunk = c->loose ? NULL : on_chunk,
                             .chunk_ctx = c,
                             .layout_name = &layout};
    double t0 = now();
    int rc = glibc_walk(&in, &map, &snap, &notes, &err);
    double t1 = now();
    if (rc < 0) {
        printf("glibc_walk: %d %s\n", rc, err.text);
        return 1;
    }
    sort_chunks(c);
    read_truth(&truth, truth_path);
    bool is_243 = strcmp(layout, "2.43") == 0;
    if (!c->loose) {
        check_blocks(c, &truth, is_243);
        check_info(c, &truth, &snap.malloc, is_243);
    }
    check_sums(c, &list, &map, &snap, &notes);
    print_notes(c, &snap);
    const struct snapshot_malloc *m = &snap.malloc;
    printf("%s glibc %s layout %s: %zu live %zu freed, %zu chunks, arenas %" PRIu64
           " cached %" PRIu64 " mmapped %" PRIu64 " transit %" PRIu64 " damaged %" PRIu64
           " notes %zu complete %d, faults %" PRIu64 ", %.1f ms\n",
           c->faults ? "FAIL" : "ok", truth.version, layout, truth.live.n, truth.n_freed,
           (size_t)(m->used_chunks + m->cached_chunks + m->free_chunks), m->arenas,
           m->cached_chunks, m->mmapped_chunks, m->transit_chunks, m->damaged_bytes, snap.n_notes,
           snap.complete, c->faults, (t1 - t0) * 1e3);
    free(live.regions);
    close(live.fd);
    free(truth.freed);
    addrset_release(&truth.live);
    blockmap_release(&map);
    snapshot_release(&snap);
    return c->faults ? 1 : 0;
}

int main(int argc, char **argv)
{
    static struct check c;
    if (argc < 3) {
        fprintf(stderr,
                "usage: malloc_check PID TRUTH [--image] [--no-threads] [--loose] [--quiet]\n");
        return 2;
    }
    c.pid = atoi(argv[1]);
    for (int i = 3; i < argc; i++) {
        c.image |= !strcmp(argv[i], "--image");
        c.no_threads |= !strcmp(argv[i], "--no-threads");
        c.loose |= !strcmp(argv[i], "--loose");
        c.quiet |= !strcmp(argv[i], "--quiet");
    }
    stop_all(&c);
    read_maps(&c);
    read_pagemap(&c);
    find_data(&c);
    int rc = run(&c, argv[2]);
    for (size_t i = 0; i < c.n_tids; i++)
        ptrace(PTRACE_DETACH, c.tids[i], 0, 0);
    return rc;
}
