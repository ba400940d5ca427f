/* A core's pages and memory, over files made by hand: holes, cuts, odd offsets, added files. */
#define _GNU_SOURCE 1 /* memfd_create, SEEK_HOLE */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inspector/target/core_mem.h"
#include "inspector/target/sys.h"
#include "tests/lib/tap.h"

enum { PAGE = 4096, MANY_SEGMENTS = 90, MODEL_BYTES = 64 * 512, MODEL_ROUNDS = 60 };

static uint64_t random_state = 88172645463325252u;

static uint64_t draw(uint64_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % below;
}

static int count_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

static int file_of(uint64_t size)
{
    int fd = memfd_create("core", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
        diag("memfd: %s", strerror(errno));
    return fd;
}

static void put(int fd, uint64_t at, const void *bytes, size_t len)
{
    if (pwrite(fd, bytes, len, (off_t)at) != (ssize_t)len)
        diag("pwrite: %s", strerror(errno));
}

static void put_byte(int fd, uint64_t at, uint8_t byte)
{
    put(fd, at, &byte, 1);
}

/* So that the file has no holes: zeros, written. */
static void fill_zeros(int fd, uint64_t size)
{
    static const uint8_t zeros[PAGE];
    for (uint64_t at = 0; at < size; at += PAGE)
        put(fd, at, zeros, size - at < PAGE ? size - at : PAGE);
}

static bool runs_are(const struct core_pages *pages, const struct page_run *want, size_t n)
{
    uint64_t bytes = 0;
    bool same = pages->n == n;
    for (size_t i = 0; i < n && same; i++) {
        same = pages->runs[i].start == want[i].start && pages->runs[i].end == want[i].end;
        bytes += want[i].end - want[i].start;
    }
    for (size_t i = 0; i < pages->n && !same; i++)
        diag("run %zu: %jx-%jx", i, (uintmax_t)pages->runs[i].start, (uintmax_t)pages->runs[i].end);
    return same && pages->bytes == bytes;
}

/* ---- pages ---- */

/* A full segment of 8 pages and, adjacent, one of which a page was dumped; one that the file's end
 * cuts 100 bytes behind its fifth page; one that was not dumped. `shift` moves the bytes in the
 * file. */
struct sample {
    struct core core;
    struct core_segment segments[4];
};

static void sample_make(struct sample *s, uint64_t shift, bool dense)
{
    static const uint64_t data[] = {1 * PAGE + 17,     2 * PAGE,      5 * PAGE + PAGE - 1, 8 * PAGE,
                                    9 * PAGE + 2 * 64, 11 * PAGE + 3, 14 * PAGE + 50};
    uint64_t at = PAGE + shift, size = at + 14 * PAGE + 100;
    memset(s, 0, sizeof *s);
    s->segments[0] = (struct core_segment){0x10000, 0x18000, at, 8 * PAGE, 8 * PAGE, 1, 1, 0};
    s->segments[1] = (struct core_segment){0x18000, 0x1c000, at + 8 * PAGE, PAGE, PAGE, 1, 0, 1};
    s->segments[2] =
        (struct core_segment){0x30000, 0x40000, at + 9 * PAGE, 16 * PAGE, 5 * PAGE + 100, 1, 1, 0};
    s->segments[3] = (struct core_segment){0x80000, 0x90000, size, 0, 0, 1, 0, 0};
    s->core.segments = s->segments;
    s->core.n_segments = 4;
    s->core.size = size;
    s->core.fd = file_of(size);
    if (dense)
        fill_zeros(s->core.fd, size);
    for (size_t i = 0; i < sizeof data / sizeof data[0]; i++)
        put_byte(s->core.fd, at + data[i], (uint8_t)(i + 1));
}

static const struct page_run sample_runs[] = {{0x11000, 0x13000}, {0x15000, 0x16000},
                                              {0x18000, 0x19000}, {0x30000, 0x31000},
                                              {0x32000, 0x33000}, {0x35000, 0x35000 + 100}};
static const struct page_run all_runs[] = {{0x10000, 0x19000}, {0x30000, 0x35000 + 100}};

static void check_pages(uint64_t shift, bool dense, bool look, bool by_holes, const char *what)
{
    struct sample s;
    struct core_pages pages;
    struct err err = ERR_INIT;
    core_pages_init(&pages);
    sample_make(&s, shift, dense);
    ok(core_pages_find(&pages, &s.core, look, NULL, &err) == 0 &&
           runs_are(&pages, sample_runs, 6) && pages.counted && pages.by_holes == by_holes,
       "%s (%s)", what, err.text);
    core_pages_release(&pages);
    close(s.core.fd);
}

static void test_all_pages(void)
{
    struct sample s;
    struct core_pages pages;
    core_pages_init(&pages);
    sample_make(&s, 0, true);
    ok(core_pages_find(&pages, &s.core, false, NULL, NULL) == 0 && runs_are(&pages, all_runs, 2) &&
           !pages.counted && !pages.by_holes,
       "without holes and unlooked at all that is here counts");
    close(s.core.fd);
    sample_make(&s, 0, false);
    for (size_t i = 0; i < 3; i++)
        s.segments[i].offset = s.segments[0].offset;
    s.core.size = s.segments[0].offset + 8 * PAGE;
    ok(core_pages_find(&pages, &s.core, true, NULL, NULL) == 0 && runs_are(&pages, all_runs, 2) &&
           !pages.counted,
       "segments that share the file's bytes are not looked at");
    close(s.core.fd);
    core_pages_release(&pages);
}

/* The file's pages are not the memory's: what the holes leave is more than the truth, not less. */
static void test_odd_holes(void)
{
    struct sample s;
    struct core_pages pages;
    size_t covered = 0;
    core_pages_init(&pages);
    sample_make(&s, 40, false);
    ok(core_pages_find(&pages, &s.core, false, NULL, NULL) == 0 && pages.by_holes,
       "odd offsets, unlooked: by holes");
    for (size_t i = 0; i < 6; i++)
        for (size_t j = 0; j < pages.n; j++)
            covered += pages.runs[j].start <= sample_runs[i].start &&
                       pages.runs[j].end >= sample_runs[i].end;
    ok(covered == 6 && pages.bytes <= 2 * 6 * PAGE, "they cover the truth, at most twice");
    core_pages_release(&pages);
    close(s.core.fd);
}

static void test_noted_pages(void)
{
    struct page_run noted[] = {
        {0x1000, 0x2000}, {0x2000, 0x4000}, {0x3000, 0x3800}, {9, 9}, {0x8000, 0x9000}};
    static const struct page_run want[] = {{0x1000, 0x4000}, {0x8000, 0x9000}};
    struct sample s;
    struct core_pages pages;
    core_pages_init(&pages);
    sample_make(&s, 0, false);
    s.core.facts.runs = noted;
    s.core.facts.n_runs = 5;
    s.core.facts.has_runs = true;
    ok(core_pages_find(&pages, &s.core, true, NULL, NULL) == 0 && runs_are(&pages, want, 2) &&
           pages.counted && !pages.by_holes,
       "the core's own notes win, merged");
    core_pages_release(&pages);
    close(s.core.fd);
}

static void test_interrupted_pages(void)
{
    static const volatile sig_atomic_t now = 1;
    struct core_pages pages;
    core_pages_init(&pages);
    for (int dense = 0; dense < 2; dense++) {
        struct sample s;
        struct err err = ERR_INIT;
        sample_make(&s, 0, dense);
        ok(core_pages_find(&pages, &s.core, true, &now, &err) == ERR_INTERRUPTED &&
               err.code == ERR_INTERRUPTED && pages.n == 0,
           "interrupted, %s", dense ? "looking" : "by holes");
        close(s.core.fd);
    }
}

/* Many segments over several threads' pieces, each page zero or not by chance. */
static void test_many_pages(bool dense, uint64_t shift)
{
    struct core_segment segments[MANY_SEGMENTS];
    struct core core = {.segments = segments, .n_segments = MANY_SEGMENTS};
    struct page_run *want = calloc(MANY_SEGMENTS * 200, sizeof *want);
    struct core_pages pages;
    uint64_t addr = 0x7f0000000000, at = PAGE + shift;
    size_t n = 0;
    core_pages_init(&pages);
    for (size_t i = 0; i < MANY_SEGMENTS; i++) {
        uint64_t n_pages = draw(200);
        addr += draw(3) * PAGE;
        segments[i] = (struct core_segment){
            addr, addr + n_pages * PAGE, at, n_pages * PAGE, n_pages * PAGE, true, 1, 0};
        addr = segments[i].end;
        at += n_pages * PAGE;
    }
    core.size = at;
    core.fd = file_of(at);
    if (dense)
        fill_zeros(core.fd, at);
    for (size_t i = 0; i < MANY_SEGMENTS; i++)
        for (uint64_t a = segments[i].start; a < segments[i].end; a += PAGE) {
            if (draw(3) == 0)
                continue;
            put_byte(core.fd, segments[i].offset + (a - segments[i].start) + draw(PAGE), 1);
            if (n && want[n - 1].end == a)
                want[n - 1].end += PAGE;
            else
                want[n++] = (struct page_run){a, a + PAGE};
        }
    ok(core_pages_find(&pages, &core, true, NULL, NULL) == 0 && runs_are(&pages, want, n),
       "%zu runs in %ju pages, %s%s", n, (uintmax_t)(at / PAGE), dense ? "dense" : "sparse",
       shift ? ", odd offsets" : "");
    core_pages_release(&pages);
    close(core.fd);
    free(want);
}

/* ---- failing reads ---- */

static uint64_t bad_from, bad_to;
static int bad_errno;
static uint64_t flaky;

static ssize_t bad_pread(int fd, void *buf, size_t len, off_t at)
{
    uint64_t from = (uint64_t)at;
    if (flaky++ % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    if (from >= bad_from && from < bad_to) {
        errno = bad_errno;
        return -1;
    }
    if (from < bad_from && len > bad_from - from)
        len = bad_from - from;
    return sys_calls_real.pread(fd, buf, len > 1000 ? 1000 : len, at);
}

static void test_bad_sectors(void)
{
    static const struct page_run want[] = {{0x12000, 0x13000}, {0x15000, 0x16000},
                                           {0x18000, 0x19000}, {0x30000, 0x31000},
                                           {0x32000, 0x33000}, {0x35000, 0x35000 + 100}};
    struct sample s;
    struct core_pages pages;
    struct mem *mem = NULL;
    uint8_t buf[3 * PAGE];
    struct mem_span span = {0x10800, buf, sizeof buf, 0};
    struct err err = ERR_INIT;
    core_pages_init(&pages);
    sample_make(&s, 0, true);
    bad_from = 2 * PAGE + 10; /* before that page's only byte */
    bad_to = 3 * PAGE;
    bad_errno = EIO;
    sys_calls.pread = bad_pread;
    ok(core_pages_find(&pages, &s.core, true, NULL, &err) == 0 && runs_are(&pages, want, 6),
       "a page that the disk does not give holds no data; short reads go on");
    ok(core_mem_new(&s.core, &pages, &mem, NULL) == 0 && mem_readv(mem, &span, 1, &err) == 0 &&
           span.got == 0x80a,
       "a span ends where the disk does not give a page");
    bad_errno = EBADF;
    span.addr = 0x1100a;
    ok(mem_readv(mem, &span, 1, &err) == ERR_OS && err.os_errno == EBADF && span.got == 0,
       "another failure is one: %s", err.text);
    ok(core_pages_find(&pages, &s.core, true, NULL, &err) == ERR_OS && pages.n == 6,
       "... and for the pages: %s; the result is as it was", err.text);
    sys_calls.pread = sys_calls_real.pread;
    mem_close(mem);
    core_pages_release(&pages);
    close(s.core.fd);
}

/* ---- memory ---- */

static void test_reads(void)
{
    struct sample s;
    struct core_pages pages;
    struct mem *mem = NULL;
    static uint8_t buf[4][12 * PAGE];
    struct mem_span spans[] = {{0x17ffe, buf[0], 4 * PAGE, 0},
                               {0x34000, buf[1], 4 * PAGE, 0},
                               {0x80000, buf[2], 10, 0},
                               {UINT64_MAX - 1, buf[3], PAGE, 0}};
    core_pages_init(&pages);
    sample_make(&s, 40, false);
    ok(core_pages_find(&pages, &s.core, true, NULL, NULL) == 0 &&
           core_mem_new(&s.core, &pages, &mem, NULL) == 0 &&
           mem->traits == (MEM_FROZEN | MEM_SPARSE),
       "a core's memory is frozen and sparse");
    ok(mem_readv(mem, spans, 4, NULL) == 0 && spans[0].got == PAGE + 2 && buf[0][2] == 4 &&
           buf[0][1] == 0 && spans[1].got == PAGE + 100 && buf[1][PAGE + 50] == 7 &&
           spans[2].got == 0 && spans[3].got == 0,
       "spans cross segments and end where the core does");
    ok(mem->reads == 1 && mem->bytes == 2 * PAGE + 102, "reads and bytes are counted");
    uint64_t word = 1;
    ok(mem_u64(mem, 0x10000, &word, NULL) == 0 && word == 0, "a hole of the file reads as zeros");
    if (ftruncate(s.core.fd, (off_t)s.segments[0].offset + PAGE + 18) < 0)
        diag("%s", strerror(errno));
    ok(mem_read_some(mem, 0x11010, buf[0], PAGE) == 2 && buf[0][1] == 1 &&
           mem_read_some(mem, 0x12000, buf[0], PAGE) == 0,
       "a core that is cut while it is read ends the span");
    mem_close(mem);
    core_pages_release(&pages);
    close(s.core.fd);
}

static bool regions_are(struct mem *mem, const struct mem_region *want, size_t n)
{
    const struct mem_region *got = NULL;
    size_t n_got = 0;
    bool same = mem_regions(mem, &got, &n_got, NULL) == 0 && n_got == n;
    for (size_t i = 0; i < n && same; i++)
        same = got[i].start == want[i].start && got[i].end == want[i].end;
    for (size_t i = 0; i < n_got && !same; i++)
        diag("region %zu: %jx-%jx", i, (uintmax_t)got[i].start, (uintmax_t)got[i].end);
    return same;
}

/* The notes' runs go beyond what is here; the regions do not. */
static void test_regions(void)
{
    struct page_run noted[] = {{0x8000, 0x12000}, {0x14000, 0x33000}, {0x34000, 0x38000}};
    static const struct mem_region before[] = {
        {0x10000, 0x12000}, {0x14000, 0x19000}, {0x30000, 0x33000}, {0x34000, 0x35000 + 100}};
    static const struct mem_region after[] = {{0x10000, 0x12000},
                                              {0x14000, 0x1b000},
                                              {0x30000, 0x33000},
                                              {0x34000, 0x35000 + 100},
                                              {0x80000, 0x80000 + 2 * PAGE + 5}};
    struct sample s;
    struct core_pages pages;
    struct mem *mem = NULL;
    core_pages_init(&pages);
    sample_make(&s, 0, false);
    s.core.facts.runs = noted;
    s.core.facts.n_runs = 3;
    s.core.facts.has_runs = true;
    ok(core_pages_find(&pages, &s.core, false, NULL, NULL) == 0 &&
           core_mem_new(&s.core, &pages, &mem, NULL) == 0 && regions_are(mem, before, 4),
       "regions: pages with data, as far as they are here");
    int file = file_of(3 * PAGE + 5);
    ok(core_mem_add(mem, 0x18000, 0x1b000, file, 0, NULL) == 0 &&
           core_mem_add(mem, 0x80000, 0x90000, file, PAGE, NULL) == 0 && regions_are(mem, after, 5),
       "... and added pieces, as far as their file goes");
    close(file);
    mem_close(mem);
    core_pages_release(&pages);
    close(s.core.fd);
}

static void test_adding(void)
{
    struct sample s;
    struct core_pages pages;
    struct mem *mem = NULL;
    struct err err = ERR_INIT;
    uint8_t buf[4 * PAGE], want[3 * PAGE], byte;
    int before = count_fds(), file = file_of(3 * PAGE), other = file_of(PAGE), pipes[2];
    for (size_t i = 0; i < sizeof want; i++)
        want[i] = (uint8_t)(draw(255) + 1);
    put(file, 0, want, sizeof want);
    core_pages_init(&pages);
    sample_make(&s, 0, false);
    ok(core_pages_find(&pages, &s.core, true, NULL, NULL) == 0 &&
           core_mem_new(&s.core, &pages, &mem, NULL) == 0,
       "a core to add to");
    int fds = count_fds();
    ok(core_mem_add(mem, 0x18000, 0x1b000, file, 0, &err) == 0 &&
           core_mem_add(mem, 0x3f000, 0x40000, file, 0, &err) == 0 && count_fds() == fds + 1,
       "a file of two pieces is kept open once (%s)", err.text);
    close(file);
    ok(mem_read_some(mem, 0x18000, buf, sizeof buf) == 3 * PAGE && buf[0] == 4 && buf[1] == 0 &&
           memcmp(buf + PAGE, want + PAGE, 2 * PAGE) == 0,
       "the dumped page is the core's, what follows the file's");
    ok(core_mem_add(mem, 0x1a000, 0x1c000, other, 0, &err) == 0 &&
           mem_read_some(mem, 0x1a000, buf, PAGE) == PAGE &&
           memcmp(buf, want + 2 * PAGE, PAGE) == 0,
       "what was added first stays");
    ok(core_mem_add(mem, 0x50000, 0x51000, other, PAGE, &err) == 0 &&
           mem_read_some(mem, 0x50000, &byte, 1) == 0,
       "nothing comes from behind a file's end");
    ok(core_mem_add(mem, 0x50000, 0x50000, other, 0, &err) == ERR_USAGE, "an empty range: %s",
       err.text);
    ok(core_mem_add(mem, 0x50000, 0x51000, -1, 0, &err) == ERR_OS, "no file: %s", err.text);
    ok(pipe(pipes) == 0 && core_mem_add(mem, 0x50000, 0x51000, pipes[0], 0, &err) == ERR_FORMAT,
       "a pipe: %s", err.text);
    close(pipes[0]);
    close(pipes[1]);
    close(other);
    mem_close(mem);
    core_pages_release(&pages);
    close(s.core.fd);
    ok(count_fds() == before, "all descriptors are closed");
}

/* ---- against a model ---- */

/* Every byte of a small address space: what it should read as, or -1. */
struct model {
    int16_t bytes[MODEL_BYTES];
    struct core_segment segments[16];
    struct core core;
};

static void model_make(struct model *m)
{
    uint64_t addr = 0, at = draw(100);
    memset(m, 0, sizeof *m);
    m->core.segments = m->segments;
    m->core.fd = file_of(MODEL_BYTES + 16384);
    for (size_t i = 0; i < MODEL_BYTES; i++)
        m->bytes[i] = -1;
    while (m->core.n_segments < 16) {
        uint64_t start = addr + draw(3) * draw(600), len = 1 + draw(1500);
        uint64_t here = draw(3) ? draw(len + 1) : len;
        if (start + len > MODEL_BYTES)
            break;
        m->segments[m->core.n_segments++] = (struct core_segment){
            start, start + len, at, here + draw(len - here + 1), here, 1, 1, 0};
        for (uint64_t i = 0; i < here; i++) {
            uint8_t byte = (uint8_t)draw(256);
            m->bytes[start + i] = byte;
            put_byte(m->core.fd, at + i, byte);
        }
        addr = start + len;
        at += here + draw(50);
    }
    m->core.size = at;
}

static int model_add(struct model *m, struct mem *mem)
{
    uint8_t bytes[3000];
    uint64_t size = 1 + draw(sizeof bytes), offset = draw(size + 10);
    uint64_t start = draw(MODEL_BYTES - 1), end = start + 1 + draw(MODEL_BYTES - start);
    int file = file_of(size);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)draw(256);
    put(file, 0, bytes, size);
    int rc = core_mem_add(mem, start, end, file, offset, NULL);
    close(file);
    for (uint64_t a = start; a < end && offset + (a - start) < size; a++)
        if (m->bytes[a] < 0)
            m->bytes[a] = bytes[offset + (a - start)];
    return rc;
}

static bool model_agrees(const struct model *m, struct mem *mem)
{
    static uint8_t buf[MODEL_BYTES + 100];
    uint64_t addr = draw(MODEL_BYTES), n = 0, len = 1 + draw(MODEL_BYTES);
    size_t got = mem_read_some(mem, addr, buf, len);
    while (n < len && addr + n < MODEL_BYTES && m->bytes[addr + n] >= 0)
        n++;
    bool same = got == n;
    for (size_t i = 0; i < n && same; i++)
        same = buf[i] == m->bytes[addr + i];
    return same;
}

/* All pages count, so that the regions must be exactly the bytes that can be read. */
static bool model_regions_agree(const struct model *m, struct mem *mem)
{
    const struct mem_region *r = NULL;
    size_t n = 0, i = 0;
    bool same = mem_regions(mem, &r, &n, NULL) == 0;
    for (uint64_t a = 0; a < MODEL_BYTES && same; a++) {
        while (i < n && r[i].end <= a)
            i++;
        same = (i < n && r[i].start <= a) == (m->bytes[a] >= 0);
    }
    for (i = 1; i < n && same; i++)
        same = r[i].start > r[i - 1].end;
    return same;
}

static void test_model(void)
{
    static struct model m;
    size_t wrong = 0, reads = 0;
    for (int round = 0; round < MODEL_ROUNDS; round++) {
        struct core_pages pages;
        struct mem *mem = NULL;
        struct page_run everything = {0, UINT64_MAX};
        core_pages_init(&pages);
        model_make(&m);
        m.core.facts.runs = &everything;
        m.core.facts.n_runs = 1;
        m.core.facts.has_runs = true;
        wrong += core_pages_find(&pages, &m.core, false, NULL, NULL) < 0 ||
                 core_mem_new(&m.core, &pages, &mem, NULL) < 0;
        for (int add = 0; add < 8 && mem; add++) {
            for (int i = 0; i < 40; i++, reads++)
                wrong += !model_agrees(&m, mem);
            wrong += !model_regions_agree(&m, mem);
            wrong += model_add(&m, mem) < 0;
        }
        mem_close(mem);
        core_pages_release(&pages);
        close(m.core.fd);
    }
    ok(wrong == 0 && reads > 10000, "%zu reads of random cores agree with a model (%zu do not)",
       reads, wrong);
}

int main(void)
{
    check_pages(0, false, true, true, "pages by the holes of the file");
    check_pages(0, false, false, true, "the same without a look");
    check_pages(0, true, true, false, "pages by looking at a dense file");
    check_pages(40, true, true, false, "the same at odd offsets");
    check_pages(40, false, true, false, "odd offsets and holes: looked at");
    test_all_pages();
    test_odd_holes();
    test_noted_pages();
    test_interrupted_pages();
    test_many_pages(true, 0);
    test_many_pages(false, 0);
    test_many_pages(true, 1111);
    test_many_pages(false, 1111);
    test_bad_sectors();
    test_reads();
    test_regions();
    test_adding();
    test_model();
    return done_testing();
}
