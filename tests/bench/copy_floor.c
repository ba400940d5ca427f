/* The physical limit that a census is measured against: copy all present pages of a process's
 * private writable memory from /proc/PID/mem with two threads into memory that is faulted in
 * already. Does not stop the process and understands nothing of it.
 *
 * usage: copy_floor PID     prints: BYTES COPY_NS WALL_NS (wall: with finding and faulting in) */
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "inspector/target/maps.h"
#include "inspector/target/pages.h"
#include "inspector/target/sys.h"

enum { PIECE = 1 << 20, THREADS = 2 };

struct piece {
    uint64_t from, len, to;
};

static struct piece *pieces;
static size_t n_pieces;
static atomic_size_t next;
static char *buffer;
static int fd;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void cut(const struct page_run *run, uint64_t *at)
{
    for (uint64_t a = run->start; a < run->end; a += PIECE) {
        uint64_t len = run->end - a < PIECE ? run->end - a : PIECE;
        pieces = realloc(pieces, (n_pieces + 1) * sizeof *pieces);
        pieces[n_pieces++] = (struct piece){a, len, *at};
        *at += len;
    }
}

static void *copy(void *arg)
{
    (void)arg;
    for (size_t i; (i = atomic_fetch_add(&next, 1)) < n_pieces;)
        if (pread(fd, buffer + pieces[i].to, pieces[i].len, (off_t)pieces[i].from) < 0)
            return NULL;
    return NULL;
}

/* Both threads touch their half: the same faulting in as the census does. */
static void *fault_in(void *arg)
{
    char **half = arg;
    madvise(half[0], (size_t)(half[1] - half[0]), MADV_POPULATE_WRITE);
    return NULL;
}

static void on_threads(void *(*fn)(void *), void *a, void *b)
{
    pthread_t t;
    if (pthread_create(&t, NULL, fn, a) != 0)
        die("pthread_create");
    fn(b);
    pthread_join(t, NULL);
}

int main(int argc, char **argv)
{
    struct maps maps;
    struct pages pages;
    struct err err = ERR_INIT;
    uint64_t begun = sys_now_ns(), bytes = 0;
    if (argc != 2)
        return 2;
    int pid = atoi(argv[1]);
    char path[64];
    maps_init(&maps);
    pages_init(&pages);
    if (maps_read(&maps, pid, &err) < 0)
        return 1;
    struct mem_region *ranges = calloc(maps.n, sizeof *ranges);
    size_t n = 0;
    for (size_t i = 0; ranges && i < maps.n; i++)
        if (maps.items[i].w && maps.items[i].r && !maps.items[i].shared && pages_wanted(&maps, i))
            ranges[n++] = (struct mem_region){maps.items[i].start, maps.items[i].end};
    if (!ranges || pages_scan(&pages, pid, ranges, n, PAGES_AUTO, &err) < 0)
        return 1;
    for (size_t i = 0; i < pages.n; i++)
        cut(&pages.runs[i], &bytes);
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    fd = open(path, O_RDONLY);
    size_t len = (bytes + (4u << 20)) & ~((size_t)(2u << 20) - 1);
    char *raw =
        mmap(NULL, len + (2u << 20), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fd < 0 || raw == MAP_FAILED)
        die("open or mmap");
    buffer = (char *)(((uintptr_t)raw + (2u << 20) - 1) & ~((uintptr_t)(2u << 20) - 1));
    madvise(buffer, len, MADV_HUGEPAGE);
    char *mid = buffer + ((len / 2) & ~((size_t)(2u << 20) - 1));
    char *halves[2][2] = {{buffer, mid}, {mid, buffer + len}};
    on_threads(fault_in, halves[0], halves[1]);
    uint64_t from = sys_now_ns();
    on_threads(copy, NULL, NULL);
    uint64_t done = sys_now_ns();
    printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", bytes, done - from, done - begun);
    return 0;
}
