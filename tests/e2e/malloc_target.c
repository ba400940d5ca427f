/* A heap that knows its own truth, for the tests of walker/glibc.
 *
 *     malloc_target THREADS OPTIONS FILE
 *
 * allocates and frees in main and THREADS threads, writes the truth to FILE and "READY pid" to
 * stdout, and then sleeps while it counts (an 8-byte counter in FILE.count). OPTIONS is a sum of
 * the enum below. Nothing is allocated once the truth was taken. Lines of FILE:
 *     # glibc VERSION threads N options N
 *     R ADDRESS REQUESTED USABLE LIVE THREAD      every allocation, in order
 *     M arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost
 *
 * One binary runs on glibc 2.31 to 2.43: it binds to the oldest symbol versions, brings its own
 * way to __libc_start_main (crt1.o asks for that of 2.34) and looks mallinfo2 up. Before 2.34
 * threads and dlsym are in libraries of their own, which a plain link on a newer system leaves out:
 * there, run it with LD_PRELOAD="libpthread.so.0 libdl.so.2". */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

__asm__(".symver pthread_create,pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join,pthread_join@GLIBC_2.2.5");
__asm__(".symver dlsym,dlsym@GLIBC_2.2.5");
__asm__(".symver old_start_main,__libc_start_main@GLIBC_2.2.5");

enum option {
    FOREIGN_SBRK = 1,
    BRK_BLOCKED = 2,
    FIXED_THRESHOLD = 4,
    BIG_HEAPS = 8,
    THREADS_EXIT = 16,
    PERTURB = 32,
    FORKED = 64 /* the truth is that of a child made while the threads were alive */
};

enum { RECORDS = 400000, MAX_THREADS = 64, BURST = 4096, LIST = 40000 };

struct record {
    char *p;
    size_t size, usable;
    int live, thread;
};

struct info2 {
    size_t v[10];
};
struct info1 {
    int v[10];
};

static struct record *records;
static int n_records, options, n_threads;
static int turn, done; /* a barrier of our own: pthread's has other versions */
static const size_t sizes[] = {
    0,      1,      8,      24,      25,      40,      56,     57,     72,     88,
    100,    104,    120,    121,     136,     152,     200,    300,    400,    504,
    512,    600,    1000,   1015,    1016,    1024,    1032,   1033,   1040,   1048,
    1500,   2000,   3000,   4000,    4096,    5000,    8192,   10000,  20000,  40000,
    65536,  65537,  100000, 120000,  131000,  131056,  131072, 131073, 135168, 140000,
    200000, 262144, 500000, 1048576, 1500000, 4194304, 5000000};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

static void die(const char *what)
{
    ssize_t n = write(2, what, strlen(what));
    _exit(n < 0 ? 2 : 1);
}

static void *map_shared(size_t bytes, int fd)
{
    void *p =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);
    if (p == MAP_FAILED)
        die("mmap\n");
    return p;
}

static uint64_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static int keep(char *p, size_t size, int thread)
{
    int i = __atomic_fetch_add(&n_records, 1, __ATOMIC_SEQ_CST);
    if (!p || i >= RECORDS)
        die("out of memory or records\n");
    records[i] = (struct record){p, size, malloc_usable_size(p), 1, thread};
    return i;
}

static void drop(int i)
{
    if (!records[i].live)
        return;
    records[i].live = 0;
    free(records[i].p);
}

static int take(size_t size, int thread)
{
    char *p = malloc(size);
    if (p)
        memset(p, 0xa0 + thread, size);
    return keep(p, size, thread);
}

/* One thread's list of its records, outside malloc. */
struct bag {
    int *items, n, thread;
    uint64_t rng;
};

static void bag_add(struct bag *b, int record)
{
    if (b->n < LIST)
        b->items[b->n++] = record;
}

/* Free about one of `one_in`, in an order unlike that of allocation. */
static void bag_drop(struct bag *b, unsigned one_in)
{
    for (int i = 0; i < b->n; i++) {
        int j = i + (int)(draw(&b->rng) % (uint64_t)(b->n - i)), t = b->items[i];
        b->items[i] = b->items[j];
        b->items[j] = t;
    }
    int kept = 0;
    for (int i = 0; i < b->n; i++) {
        if (draw(&b->rng) % one_in == 0)
            drop(b->items[i]);
        else
            b->items[kept++] = b->items[i];
    }
    b->n = kept;
}

static void fill_sizes(struct bag *b)
{
    for (int round = 0; round < 12; round++)
        for (int k = 0; k < SIZES; k++)
            if (round < 3 || sizes[k] <= 2000 || (round < 7 && sizes[k] <= 100000))
                bag_add(b, take(sizes[k], b->thread));
    for (int i = 0; i < 2500; i++)
        bag_add(b, take(draw(&b->rng) % (i % 50 ? 600 : 30000), b->thread));
}

static void fill_aligned(struct bag *b)
{
    static const size_t bytes[] = {10, 3000, 140000, 2000000};
    for (size_t align = 32; align <= 4u << 20; align *= 2)
        for (int j = 0; j < 4; j++) {
            void *p = NULL;
            if (posix_memalign(&p, align, bytes[j]))
                die("posix_memalign\n");
            memset(p, 1, bytes[j]);
            bag_add(b, keep(p, bytes[j], b->thread));
        }
}

static void resize(struct bag *b)
{
    for (int i = 0; i < b->n; i++) {
        struct record *r = &records[b->items[i]];
        if (draw(&b->rng) % 12 != 0)
            continue;
        size_t size = draw(&b->rng) % 3 ? r->size * 3 / 2 + 1 : r->size / 2 + 1;
        r->live = 0;
        b->items[i] = keep(realloc(r->p, size), size, b->thread);
    }
    for (int i = 0; i < 3; i++) {
        size_t size = 9000000 + 4096 * (size_t)i;
        bag_add(b, keep(realloc(malloc(3000000), size), size, b->thread));
    }
}

/* More than fits in one 64 MiB heap. */
static void fill_big(struct bag *b)
{
    for (int i = 0; i < 1300; i++)
        bag_add(b, take(100000 + draw(&b->rng) % 20000, b->thread));
    bag_drop(b, 5);
}

/* Leave tcaches, fastbins and large tcache bins (if a tunable allows them) populated. */
static void burst(struct bag *b)
{
    int first = b->n;
    for (size_t size = 8; size <= 1100; size += size < 160 ? 16 : 112)
        for (int j = 0; j < 25; j++)
            bag_add(b, take(size, b->thread));
    for (size_t j = 0; j < 6; j++)
        bag_add(b, take(1200 + 1500 * j, b->thread));
    for (int i = first; i < b->n; i++)
        if (i % 2)
            drop(b->items[i]);
}

/* User data full of what look like headers of mmapped chunks. */
static void fake(struct bag *b)
{
    size_t size = 6 << 20;
    int i = take(size, b->thread);
    for (size_t o = 4096 - 16; o + 4096 < size; o += 4096) {
        uint64_t words[2] = {0, 0x21002};
        memcpy(records[i].p + o, words, sizeof words);
    }
    bag_add(b, i);
}

static void work(int thread)
{
    struct bag b = {map_shared(LIST * sizeof(int), -1), 0, thread,
                    88172645463325252u + (unsigned)thread};
    fill_sizes(&b);
    fill_aligned(&b);
    bag_drop(&b, 2);
    for (int i = 0; i < 1500; i++) {
        size_t size = draw(&b.rng) % (i % 30 ? 1200 : 60000) + 1;
        bag_add(&b, keep(calloc(1, size), size, thread));
    }
    bag_drop(&b, 3);
    resize(&b);
    if (options & BIG_HEAPS)
        fill_big(&b);
    burst(&b);
    fake(&b);
}

static void nap(void)
{
    struct timespec t = {0, 5000000};
    nanosleep(&t, NULL);
}

static void *thread_main(void *arg)
{
    int id = (int)(intptr_t)arg;
    work(id);
    __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&turn, __ATOMIC_SEQ_CST))
        nap();
    while (!(options & THREADS_EXIT) || id % 2)
        nap();
    return NULL;
}

static void foreign_sbrk(intptr_t bytes)
{
    /* Fails behind a blocked break: nothing foreign then. */
    if (options & FOREIGN_SBRK && sbrk(bytes) == (void *)-1 && !(options & BRK_BLOCKED))
        die("sbrk\n");
}

/* Let the heap grow by a few pages and no more. */
static void block_brk(void)
{
    void *volatile first = malloc(100); /* volatile: or the compiler drops the pair */
    free(first);
    uintptr_t end = ((uintptr_t)sbrk(0) + 4095) & ~(uintptr_t)4095;
    if (mmap((void *)(end + 3 * 4096), 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) == MAP_FAILED)
        die("mmap\n");
}

/* -- output without malloc -- */
static char out[1 << 16];
static size_t n_out;
static int out_fd;

static void flush(void)
{
    for (size_t at = 0; at < n_out;) {
        ssize_t n = write(out_fd, out + at, n_out - at);
        if (n <= 0)
            die("write\n");
        at += (size_t)n;
    }
    n_out = 0;
}

static void put(const char *s)
{
    size_t n = strlen(s);
    if (n_out + n > sizeof out)
        flush();
    memcpy(out + n_out, s, n);
    n_out += n;
}

static void put_number(uint64_t v, unsigned base)
{
    char digits[24], *p = digits + sizeof digits;
    *--p = '\0';
    do
        *--p = "0123456789abcdef"[v % base];
    while (v /= base);
    put(" ");
    put(base == 16 ? "0x" : "");
    put(p);
}

static void put_truth(struct info2 (*info2)(void), struct info1 (*info1)(void))
{
    struct info2 m = {{0}};
    if (info2) {
        m = info2();
    } else {
        struct info1 old = info1();
        for (int i = 0; i < 10; i++)
            m.v[i] = (unsigned)old.v[i];
    }
    for (int i = 0; i < n_records; i++) {
        const struct record *r = &records[i];
        put("R");
        put_number((uintptr_t)r->p, 16);
        put_number(r->size, 10);
        put_number(r->usable, 10);
        put_number((uint64_t)r->live, 10);
        put_number((uint64_t)r->thread, 10);
        put("\n");
    }
    put("M");
    for (int i = 0; i < 10; i++)
        put_number(m.v[i], 10);
    put("\n");
    flush();
}

static void put_header(void)
{
    const char *(*version)(void);
    *(void **)&version = dlsym(RTLD_DEFAULT, "gnu_get_libc_version");
    put("# glibc ");
    put(version());
    put(" threads");
    put_number((uint64_t)n_threads, 10);
    put(" options");
    put_number((uint64_t)options, 10);
    put("\n");
}

static void run_threads(pthread_t *threads)
{
    for (int i = 0; i < n_threads; i++)
        if (pthread_create(&threads[i], NULL, thread_main, (void *)(intptr_t)(i + 1)))
            die("pthread_create\n");
    work(0);
    if (options & FOREIGN_SBRK) {
        foreign_sbrk(98765);
        work(0);
        foreign_sbrk(4096 * 7);
        work(0);
    }
    while (__atomic_load_n(&done, __ATOMIC_SEQ_CST) < n_threads)
        nap();
    __atomic_store_n(&turn, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; options & THREADS_EXIT && i < n_threads; i++)
        if ((i + 1) % 2 == 0)
            pthread_join(threads[i], NULL);
    uint64_t rng = 12345;
    for (int i = 0, n = n_records; i < n; i++)
        if (records[i].thread && draw(&rng) % 20 == 0)
            drop(i);
}

static uint64_t *open_files(const char *path)
{
    char name[512];
    size_t n = strlen(path);
    if (n + 7 > sizeof name)
        die("the file's name is too long\n");
    memcpy(name, path, n);
    memcpy(name + n, ".count", 7);
    out_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (out_fd < 0 || fd < 0 || ftruncate(fd, 4096) < 0)
        die("cannot write the file\n");
    return map_shared(4096, fd);
}

static void ready(volatile uint64_t *count)
{
    out_fd = 1;
    put("READY");
    put_number((uint64_t)getpid(), 10);
    put("\n");
    flush();
    for (;;) {
        nap();
        ++*count;
    }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        die("usage: malloc_target THREADS OPTIONS FILE\n");
    pthread_t threads[MAX_THREADS];
    n_threads = atoi(argv[1]) % (MAX_THREADS + 1);
    options = atoi(argv[2]);
    uint64_t *count = open_files(argv[3]);
    records = map_shared(RECORDS * sizeof *records, -1);
    struct info2 (*info2)(void);
    struct info1 (*info1)(void);
    *(void **)&info2 = dlsym(RTLD_DEFAULT, "mallinfo2");
    *(void **)&info1 = dlsym(RTLD_DEFAULT, "mallinfo");
    put_header();
    if (options & FIXED_THRESHOLD)
        mallopt(M_MMAP_THRESHOLD, 128 * 1024);
    if (options & PERTURB)
        mallopt(M_PERTURB, 0x5c);
    if (options & FOREIGN_SBRK) {
        take(1000, 0);
        foreign_sbrk(123457);
        take(140, 0);
    }
    if (options & BRK_BLOCKED)
        block_brk();
    run_threads(threads);
    pid_t child = options & FORKED ? fork() : 0;
    if (child > 0) {
        int status;
        waitpid(child, &status, 0);
        _exit(0);
    }
    put_truth(info2, info1);
    ready(count);
}

/* crt1.o calls this instead of libc's. Hidden, or the old one would resolve to it as well. */
int old_start_main(int (*fn)(int, char **, char **), int argc, char **argv, void (*init)(void),
                   void (*fini)(void), void (*rtld_fini)(void), void *stack_end);
__attribute__((visibility("hidden"))) int
__libc_start_main(int (*fn)(int, char **, char **), int argc, char **argv, void (*init)(void),
                  void (*fini)(void), void (*rtld_fini)(void), void *stack_end);
int __libc_start_main(int (*fn)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
    return old_start_main(fn, argc, argv, init, fini, rtld_fini, stack_end);
}
