/* The walker's ground: memory backends, mappings, residency, notes, stacks. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "tests/lib/tap.h"
#include "walker/walk.h"

enum { PAGE = 4096 };

/* ---- memory ---- */

static uint8_t bytes[5 * PAGE];

static void fill(void)
{
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 31 + i / 256);
}

/* Two pieces that touch, a hole of a page, a piece of 100 bytes. */
static struct mem *image(void)
{
    struct mem *mem;
    const struct mem_image_piece pieces[] = {
        {0x10000, bytes, PAGE}, {0x11000, bytes + PAGE, PAGE}, {0x13000, bytes + 3 * PAGE, 100}};
    if (mem_image_new(pieces, 3, &mem, NULL) < 0)
        abort();
    return mem;
}

/* What every backend over image() has to do. */
static void check_reads(struct mem *mem, const char *what)
{
    uint8_t buf[3 * PAGE];
    uint64_t v64 = 0;
    uint32_t v32 = 0;
    struct err err = ERR_INIT;
    int rc = mem_read(mem, 0x10ff0, buf, 0x20, &err);
    ok(rc == 0 && memcmp(buf, bytes + 0xff0, 0x20) == 0, "%s: over two pieces", what);
    rc = mem_read(mem, 0x11ff8, buf, 16, &err);
    ok(rc == ERR_FAULT && err.addr == 0x12000 && err.code == rc, "%s: into a hole: %s", what,
       err.text);
    ok(mem_read_some(mem, 0x11ff8, buf, 16) == 8 && memcmp(buf, bytes + 0x1ff8, 8) == 0 &&
           mem_read_some(mem, 0x12000, buf, 16) == 0 && mem_read_some(mem, 0, buf, 1) == 0 &&
           mem_read_some(mem, UINT64_MAX, buf, 16) == 0,
       "%s: as much as there is", what);
    ok(mem_read_some(mem, 0x13000, buf, PAGE) == 100 && mem_read_some(mem, 0x13063, buf, 9) == 1 &&
           mem_read_some(mem, 0x13064, buf, 1) == 0,
       "%s: the end of a piece", what);
    ok(mem_read_some(mem, 0x10000, buf, sizeof buf) == 2 * PAGE &&
           memcmp(buf, bytes, 2 * PAGE) == 0,
       "%s: a large read", what);
    rc = mem_u64(mem, 0x10ffc, &v64, &err) | mem_u32(mem, 0x10ffe, &v32, &err);
    ok(rc == 0 && v64 == load_u64(bytes + 0xffc) && v32 == load_u32(bytes + 0xffe) &&
           mem_u64(mem, 0x13060, &v64, &err) == ERR_FAULT && v64 == load_u64(bytes + 0xffc),
       "%s: words; a failed one writes nothing", what);
    struct mem_span spans[] = {{0x10000, buf, 4, 99}, {0x12000, buf, 4, 99}, {0x13062, buf, 4, 99}};
    rc = mem_readv(mem, spans, 3, &err);
    ok(rc == 0 && spans[0].got == 4 && spans[1].got == 0 && spans[2].got == 2,
       "%s: a hole is a short span, not an error", what);
    const struct mem_region *r;
    size_t n;
    rc = mem_regions(mem, &r, &n, &err);
    ok(rc == 0 && n == 2 && r[0].start == 0x10000 && r[0].end == 0x12000 && r[1].end == 0x13064,
       "%s: regions, touching pieces as one", what);
}

static void test_image(void)
{
    struct mem *mem = image();
    struct mem_image_piece bad[] = {{0x2000, bytes, 16}, {0x2008, bytes, 16}};
    struct mem_image_piece wraps = {UINT64_MAX - 3, bytes, 16};
    struct err err = ERR_INIT;
    size_t len;
    check_reads(mem, "image");
    ok(mem->ops->direct(mem, 0x10ff8, &len) == bytes + 0xff8 && len == 8 &&
           !mem->ops->direct(mem, 0x12000, &len) && len == 0,
       "image: its bytes directly, to the end of the piece");
    ok(mem->traits & MEM_FROZEN, "an image stands still");
    mem_close(mem);
    ok(mem_image_new(bad, 2, &mem, &err) == ERR_USAGE &&
           mem_image_new(&wraps, 1, &mem, &err) == ERR_USAGE,
       "pieces that overlap or wrap: %s", err.text);
    ok(mem_image_new(NULL, 0, &mem, &err) == 0 && mem_read_some(mem, 0, bytes, 1) == 0,
       "an image of nothing");
    mem_close(mem);
    mem_close(NULL);
    mem = image();
    char text[8] = "";
    uint8_t *b = bytes + 3 * PAGE;
    memcpy(b, "abc\0", 4);
    memset(b + 90, 'x', 10);
    ok(mem_cstr(mem, 0x13000, text, sizeof text, &err) == 0 && strcmp(text, "abc") == 0,
       "a string");
    ok(mem_cstr(mem, 0x13000 + 90, text, sizeof text, &err) == ERR_CORRUPT &&
           mem_cstr(mem, 0x13000 + 96, text, sizeof text, &err) == ERR_CORRUPT &&
           mem_cstr(mem, 0x12000, text, sizeof text, &err) == ERR_FAULT,
       "a string without end, none at all: %s", err.text);
    mem_close(mem);
}

/* A backend that counts and can fail; no direct. */
struct failing {
    struct mem mem;
    struct mem *below;
    bool fails;
};

static int failing_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    struct failing *f = (struct failing *)mem;
    if (!f->fails)
        return mem_readv(f->below, spans, n, err);
    for (size_t i = 0; i < n; i++)
        memset(spans[i].buf, 0xee, spans[i].len);
    return err_os(err, EIO, "this read fails");
}

static int failing_regions(struct mem *mem, const struct mem_region **ret, size_t *n,
                           struct err *err)
{
    return mem_regions(((struct failing *)mem)->below, ret, n, err);
}

static const struct mem_ops failing_ops = {failing_readv, failing_regions, NULL, NULL};

static void test_cache(void)
{
    struct failing f = {.mem = {.ops = &failing_ops, .traits = MEM_FROZEN}, .below = image()};
    struct mem *cache;
    uint8_t buf[8 * PAGE];
    struct err err = ERR_INIT;
    if (mem_cache_new(&f.mem, 3, &cache, NULL) < 0)
        abort();
    check_reads(cache, "cache");
    ok(cache->traits == MEM_FROZEN, "a cache has the traits of what is below");
    uint64_t before = f.mem.reads;
    for (unsigned i = 0; i < 100; i++)
        if (mem_read_some(cache, 0x10000 + i, buf, 8) != 8)
            abort();
    ok(f.mem.reads <= before + 1, "a page is read once");
    before = f.mem.reads;
    ok(mem_read_some(cache, 0x10000, buf, sizeof buf) == 2 * PAGE && f.mem.reads == before + 1,
       "large reads go past the cache");
    f.fails = true;
    int rc = mem_read(cache, 0x13000, buf, 8, &err);
    f.fails = false;
    ok((rc == 0 || rc == ERR_OS) && mem_read(cache, 0x20000, buf, 8, &err) == ERR_FAULT,
       "a failed read is an error");
    bool kept = mem_read(cache, 0x11000, buf, 8, &err) == 0; /* the same place in the cache */
    f.fails = true;
    rc = mem_read(cache, 0x41000, buf, 8, &err);
    f.fails = false;
    ok(kept && rc == ERR_OS && err.os_errno == EIO && mem_read(cache, 0x11000, buf, 8, &err) == 0 &&
           memcmp(buf, bytes + PAGE, 8) == 0 && mem_read_some(cache, 0x41000, buf, 8) == 0,
       "a failed read leaves no page behind: %s", err.text);
    mem_close(cache);
    mem_close(f.below);
}

static void check_window(struct mem *mem, const char *what)
{
    struct mem_window w;
    if (mem_window_init(&w, mem, 256, NULL) < 0)
        abort();
    const uint8_t *p = mem_window_at(&w, 0x10010, 16);
    ok(p && memcmp(p, bytes + 0x10, 16) == 0, "%s: a window", what);
    uint64_t before = mem->reads;
    bool same = true;
    for (unsigned i = 0; i < 100; i++) {
        p = mem_window_at(&w, 0x10010 + i, 8);
        same = same && p && memcmp(p, bytes + 0x10 + i, 8) == 0;
    }
    ok(same && mem->reads == before, "%s: slides without a read", what);
    p = mem_window_at(&w, 0x10ff8, 32);
    ok(p && memcmp(p, bytes + 0xff8, 32) == 0, "%s: over two pieces", what);
    p = mem_window_at(&w, 0x10000, 4);
    ok(p && memcmp(p, bytes, 4) == 0, "%s: backwards", what);
    ok(!mem_window_at(&w, 0x11ffc, 8) && !mem_window_at(&w, 0x12000, 1) &&
           !mem_window_at(&w, UINT64_MAX - 2, 8),
       "%s: nothing over a hole", what);
    p = mem_window_at(&w, 0x11ff0, 16);
    ok(p && memcmp(p, bytes + 0x1ff0, 16) == 0, "%s: goes on after a hole", what);
    p = mem_window_at(&w, 0x13000 + 60, 40);
    ok(p && memcmp(p, bytes + 3 * PAGE + 60, 40) == 0 && !mem_window_at(&w, 0x13000 + 61, 40),
       "%s: to the last byte", what);
    mem_window_release(&w);
}

static void test_window(void)
{
    struct failing f = {.mem = {.ops = &failing_ops}, .below = image()};
    check_window(f.below, "direct");
    check_window(&f.mem, "buffered");
    mem_close(f.below);
}

/* ---- mappings and residency ---- */

static void test_vma(void)
{
    const struct vma v[] = {
        {.start = 0x1000, .end = 0x3000, .r = true, .w = true, .kind = VMA_HEAP, .name = "[heap]"},
        {.start = 0x3000, .end = 0x4000, .r = true, .w = true, .kind = VMA_ANON, .name = ""},
        {.start = 0x4000, .end = 0x5000, .r = true, .kind = VMA_ANON, .name = ""},
        {.start = 0x7000, .end = 0x8000, .r = true, .w = true, .kind = VMA_FILE, .name = "f"},
        {.start = 0x9000, .end = 0xa000, .r = true, .w = true, .shared = true, .name = ""},
        {.start = UINT64_MAX - 4095, .end = UINT64_MAX, .r = true, .w = true, .name = ""}};
    struct vma_list list = {v, 6}, none = {NULL, 0};
    ok(!vma_at(&list, 0xfff) && vma_at(&list, 0x1000) == v && vma_at(&list, 0x2fff) == v &&
           vma_at(&list, 0x3000) == v + 1 && !vma_at(&list, 0x5000) && !vma_at(&list, 0x6fff) &&
           vma_at(&list, 0x9fff) == v + 4 && !vma_at(&list, 0xa000) && !vma_at(&none, 0x1000),
       "the mapping of an address");
    ok(vma_is_heapish(v) && vma_is_heapish(v + 1) && !vma_is_heapish(v + 2) &&
           !vma_is_heapish(v + 3) && !vma_is_heapish(v + 4) && !vma_is_heapish(v + 5),
       "where heaps can be");
    ok(vma_writable_at(&list, 0x7000) && !vma_writable_at(&list, 0x4000) &&
           !vma_writable_at(&list, 0x6000),
       "what is writable");
    ok(vma_heapish_end(&list, 0x1000) == 0x4000 && vma_heapish_end(&list, 0x3fff) == 0x4000 &&
           vma_heapish_end(&list, 0x4000) == 0 && vma_heapish_end(&list, 0x6000) == 0 &&
           vma_heapish_end(&none, 0x1000) == 0,
       "the end of a run of heap mappings");
    bool named = true;
    for (int i = VMA_ANON; i <= VMA_KERNEL; i++)
        named = named && vma_kind_name((enum vma_kind)i)[0];
    ok(named, "each kind has a name");
}

static void test_residency(void)
{
    const struct page_run runs[] = {{0x1000, 0x3000}, {0x5000, 0x6000}, {0x9000, 0xb000}};
    struct residency res, none;
    if (residency_init(&res, runs, 3, NULL) < 0 || residency_init(&none, NULL, 0, NULL) < 0)
        abort();
    ok(residency_bytes(&none, 0, UINT64_MAX) == 0 && !residency_full(&none, 1, 2) &&
           residency_seek(&none, 5) == 0,
       "nothing is present");
    ok(residency_bytes(&res, 0, UINT64_MAX) == 0x5000 &&
           residency_bytes(&res, 0x1000, 0x3000) == 0x2000 &&
           residency_bytes(&res, 0x2ff0, 0x5010) == 0x20 &&
           residency_bytes(&res, 0x3000, 0x5000) == 0 &&
           residency_bytes(&res, 0x5008, 0x5009) == 1 &&
           residency_bytes(&res, 0x5fff, 0x9001) == 2 &&
           residency_bytes(&res, 0xb000, UINT64_MAX) == 0,
       "present bytes of a range");
    ok(residency_bytes(&res, 0x2000, 0x2000) == 0 && residency_bytes(&res, 0x3000, 0x2000) == 0,
       "an empty range has none");
    ok(residency_seek(&res, 0) == 0 && residency_seek(&res, 0x2fff) == 0 &&
           residency_seek(&res, 0x3000) == 1 && residency_seek(&res, 0xb000) == 3,
       "the next run");
    ok(residency_full(&res, 0x1000, 0x3000) && !residency_full(&res, 0x1000, 0x3001) &&
           !residency_full(&res, 0xfff, 0x2000) && residency_full(&res, 0x9fff, 0xa001) &&
           !residency_full(&res, 0x3000, 0x3001) && residency_full(&res, 0x4000, 0x4000),
       "whole ranges");
    res.unknown = true;
    ok(residency_bytes(&res, 0x3000, 0x5000) == 0x2000 && residency_full(&res, 0, 0x20000),
       "where nobody knows, all counts as present");
    residency_release(&res);
    residency_release(&none);
}

/* present bytes of random ranges against counting */
static void test_residency_random(void)
{
    struct page_run runs[32];
    uint8_t present[256] = {0};
    size_t n = 0;
    unsigned wrong = 0;
    for (uint64_t at = 1; at < 250 && n < 32; at += 2 + (uint64_t)rand() % 12) {
        uint64_t len = 1 + (uint64_t)rand() % 5;
        runs[n++] = (struct page_run){at, at + len};
        memset(present + at, 1, len);
        at += len;
    }
    struct residency res;
    if (residency_init(&res, runs, n, NULL) < 0)
        abort();
    for (uint64_t lo = 0; lo < 256; lo++) {
        uint64_t sum = 0;
        for (uint64_t hi = lo; hi < 256; hi++) {
            wrong += residency_bytes(&res, lo, hi) != sum ||
                     residency_full(&res, lo, hi) != (sum == hi - lo);
            sum += present[hi];
        }
    }
    ok(wrong == 0, "all ranges over %zu runs", n);
    residency_release(&res);
}

/* ---- notes ---- */

static void test_notes(void)
{
    struct snapshot snap;
    struct notes notes;
    snapshot_init(&snap);
    notes_init(&notes, &snap);
    note_remark(&notes, "a.remark", 1, 2, "%d things", 5);
    ok(snap.complete && snap.n_notes == 1 && strcmp(snap.notes[0].why, "5 things") == 0 &&
           snap.notes[0].address == 1 && snap.notes[0].bytes == 2,
       "a remark takes nothing from completeness");
    note_add(&notes, "a.note", 0x10, 0, "%s", "damaged");
    ok(!snap.complete && snap.n_notes == 2, "a note does");
    char lengthy[2000];
    memset(lengthy, 'x', sizeof lengthy - 1);
    lengthy[sizeof lengthy - 1] = '\0';
    note_add(&notes, "a.long", 0, 0, "%s", lengthy);
    ok(strlen(snap.notes[2].why) < 600, "a long text is cut");
    for (unsigned i = 0; i < NOTES_PER_KIND + 5; i++)
        note_add(&notes, "a.flood", i, 10, "again");
    ok(snap.n_notes == 3 + NOTES_PER_KIND, "a flood of one kind stops");
    note_flush(&notes);
    const struct snapshot_note *last = &snap.notes[snap.n_notes - 1];
    ok(snap.n_notes == 4 + NOTES_PER_KIND && strcmp(last->what, "a.flood") == 0 &&
           last->bytes == 50 && strstr(last->why, "5 more"),
       "and one line sums the rest up: %s", last->why);
    note_flush(&notes);
    ok(snap.n_notes == 4 + NOTES_PER_KIND, "a second flush adds nothing");
    static char names[NOTE_KINDS + 3][8];
    for (unsigned i = 0; i < NOTE_KINDS + 3; i++) {
        snprintf(names[i], sizeof names[i], "k%u", i);
        note_remark(&notes, names[i], 0, 0, "kind %u", i);
    }
    note_flush(&notes);
    last = &snap.notes[snap.n_notes - 1];
    ok(snap.n_notes == 4 + NOTES_PER_KIND + NOTE_KINDS + 1 &&
           strcmp(last->what, "notes.lost") == 0 && strstr(last->why, "3 notes"),
       "more kinds than there is room for: %s", last->why);
    snapshot_release(&snap);
}

/* ---- stacks ---- */

enum { STACK_PAGES = 8 };

/* A guard page, a stack, and a descriptor whose first and third word point to it. */
static void stack_claim(uint64_t fs, uint64_t sp, bool descriptor, struct blockmap *map)
{
    static uint8_t stack[STACK_PAGES * PAGE];
    const uint64_t at = 0x7f0000001000;
    const struct vma v[] = {{.start = at - PAGE, .end = at, .kind = VMA_ANON, .name = ""},
                            {.start = at,
                             .end = at + sizeof stack,
                             .r = true,
                             .w = true,
                             .kind = VMA_ANON,
                             .name = ""}};
    struct mem_image_piece piece = {at, stack, sizeof stack};
    struct walk_thread thread = {1, fs, sp};
    struct residency res = {.unknown = true};
    struct walk_input in = {.vmas = {v, 2}, .threads = &thread, .n_threads = fs != 0};
    struct snapshot snap;
    struct notes notes;
    uint64_t self = at + sizeof stack - PAGE + 0x6c0;
    memset(stack, 0, sizeof stack);
    if (descriptor) {
        memcpy(stack + (self - at), &self, 8);
        memcpy(stack + (self - at) + 16, &self, 8);
    }
    snapshot_init(&snap);
    notes_init(&notes, &snap);
    blockmap_init(map, &res);
    if (mem_image_new(&piece, 1, &in.mem, NULL) < 0 || stacks_claim(&in, map, &notes, NULL) < 0)
        abort();
    mem_close(in.mem);
    snapshot_release(&snap);
}

/* Two stacks and, below them, memory of somebody else, which the kernel has merged into one
 * mapping: what glibc 2.42 and newer make. The descriptors say where the stacks begin. */
static void test_merged_stacks(void)
{
    static uint8_t area[16 * PAGE];
    const uint64_t at = 0x7f0000001000, low = at + 4 * PAGE, high = at + 10 * PAGE;
    const uint64_t fs[] = {at + 15 * PAGE + 0x6c0, at + 9 * PAGE + 0x6c0}, size = 6 * PAGE;
    const uint64_t starts[] = {high, low}, guard = PAGE;
    const struct vma v = {
        .start = at, .end = at + sizeof area, .r = true, .w = true, .kind = VMA_ANON, .name = ""};
    struct mem_image_piece piece = {at, area, sizeof area};
    struct walk_thread threads[] = {{1, fs[0], high + 2 * PAGE}, {2, fs[1], low + 3 * PAGE}};
    struct residency res = {.unknown = true};
    struct walk_input in = {.vmas = {&v, 1}, .threads = threads, .n_threads = 2};
    struct snapshot snap;
    struct notes notes;
    struct blockmap map;
    for (int i = 0; i < 2; i++) {
        uint8_t *field = area + (fs[i] - at) + 0x690 / 2;
        memcpy(field, &starts[i], 8);
        memcpy(field + 8, &size, 8);
        memcpy(field + 16, &guard, 8);
    }
    snapshot_init(&snap);
    notes_init(&notes, &snap);
    blockmap_init(&map, &res);
    if (mem_image_new(&piece, 1, &in.mem, NULL) < 0 || stacks_claim(&in, &map, &notes, NULL) < 0)
        abort();
    ok(map.n == 2 && map.items[0]->start == low && map.items[0]->end == high &&
           map.items[1]->start == high && map.items[1]->end == at + sizeof area,
       "stacks in one mapping with other memory, whatever the order of the threads");
    mem_close(in.mem);
    blockmap_release(&map);
    snapshot_release(&snap);
}

static void test_stacks(void)
{
    const uint64_t at = 0x7f0000001000, end = at + STACK_PAGES * PAGE;
    struct blockmap map;
    stack_claim(end - PAGE + 0x6c0, end - 3 * PAGE, false, &map);
    ok(map.n == 1 && map.items[0]->start == at && map.items[0]->end == end &&
           map.items[0]->tally.bytes[CAT_STACKS] == STACK_PAGES * PAGE,
       "a stack by its thread's registers");
    blockmap_release(&map);
    stack_claim(0, 0, true, &map);
    ok(map.n == 1 && map.items[0]->start == at && map.items[0]->end == end,
       "a stack by its descriptor above a guard");
    blockmap_release(&map);
    stack_claim(0, 0, false, &map);
    ok(map.n == 0, "a mapping above a guard is no stack by that alone");
    blockmap_release(&map);
    stack_claim(end + PAGE, end - PAGE, false, &map);
    ok(map.n == 0, "a stack pointer without its descriptor: the program's own stack");
    blockmap_release(&map);
}

int main(void)
{
    srand(20240229);
    fill();
    test_image();
    test_cache();
    test_window();
    test_vma();
    test_residency();
    test_residency_random();
    test_notes();
    test_stacks();
    test_merged_stacks();
    return done_testing();
}
