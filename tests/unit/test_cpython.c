/* The census of CPython over synthetic images, for every layout: exact counts however the runtime
 * is found, then damage, absent pages, failing reads and failing allocations. */
#include <errno.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/tap.h"
#include "tests/unit/test_cpython_image.h"

enum { TOO_LONG = 120 /* seconds: SIGALRM ends a walk that does not */ };

static struct img f;

/* ---- the allocator, made to fail: see test_json_fail.c ---- */

#define WEAK __attribute__((weak))
void *__interceptor_malloc(size_t size) WEAK;
void *__interceptor_calloc(size_t n, size_t size) WEAK;
void *__interceptor_realloc(void *old, size_t size) WEAK;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
#define REAL(fn) (__interceptor_##fn ? __interceptor_##fn : __libc_##fn)

static unsigned long fail_at, calls; /* fail_at 0: never */

static bool fails(void)
{
    return fail_at && ++calls == fail_at;
}

void *malloc(size_t size)
{
    return fails() ? NULL : REAL(malloc)(size);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : REAL(calloc)(n, size);
}

void *realloc(void *old, size_t size)
{
    return fails() ? NULL : REAL(realloc)(old, size);
}

/* ---- a backend without direct access whose i-th read can fail ---- */

struct slow {
    struct mem mem;
    struct mem *below;
    unsigned long fail_at, calls;
};

static int slow_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    struct slow *s = (struct slow *)mem;
    if (s->fail_at && ++s->calls == s->fail_at)
        return err_os(err, EIO, "this read fails");
    return mem_readv(s->below, spans, n, err);
}

static int slow_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    return mem_regions(((struct slow *)mem)->below, ret, n, err);
}

static void slow_close(struct mem *mem)
{
    mem_close(((struct slow *)mem)->below);
}

static const struct mem_ops slow_ops = {slow_readv, slow_regions, slow_close, NULL};

static void slow_init(struct slow *s)
{
    memset(s, 0, sizeof *s);
    s->mem.ops = &slow_ops;
    if (mem_image_new(f.parts, f.n_parts, &s->below, NULL) < 0)
        abort();
}

/* ---- exact counts ---- */

static const struct snapshot_note *note_of(const struct snapshot *snap, const char *what)
{
    for (size_t i = 0; i < snap->n_notes; i++)
        if (strcmp(snap->notes[i].what, what) == 0)
            return &snap->notes[i];
    return NULL;
}

/* Notes but the one that every walk has here: there is no malloc in the image. */
static size_t notes_of(const struct snapshot *snap)
{
    return snap->n_notes - (note_of(snap, "malloc.unknown") != NULL);
}

static void print_notes(const struct snapshot *snap)
{
    for (size_t i = 0; i < snap->n_notes; i++)
        diag("%s: %s", snap->notes[i].what, snap->notes[i].why);
}

/* 0 when equal, else 1 and a line that says so. */
static unsigned differs(const char *what, uint64_t have, uint64_t want)
{
    if (have != want)
        diag("%s is %llu, not %llu", what, (unsigned long long)have, (unsigned long long)want);
    return have != want;
}

#define DIFFERS(field) differs(#field, have->field, want->field)

static bool same_pymalloc(const struct snapshot_pymalloc *have,
                          const struct snapshot_pymalloc *want)
{
    unsigned n = DIFFERS(present) + DIFFERS(arenas) + DIFFERS(arena_size) + DIFFERS(pool_size) +
                 DIFFERS(pools_used) + DIFFERS(pools_free) + DIFFERS(blocks_used) +
                 DIFFERS(blocks_free) + DIFFERS(bytes_used) + DIFFERS(bytes_free) + DIFFERS(heaps);
    for (unsigned i = 0; i < POOL_CLASSES; i++)
        n += DIFFERS(classes[i].size) + DIFFERS(classes[i].pools) +
             DIFFERS(classes[i].blocks_used) + DIFFERS(classes[i].blocks_free);
    return n == 0;
}

/* The ledger says the same as the counts. */
static bool ledger_fits(const struct snapshot *snap)
{
    const struct snapshot_pymalloc *p = &snap->pymalloc;
    const struct tally *t = &snap->memory.tally;
    uint64_t arenas = 0;
    for (size_t i = 0; i < snap->n_arenas; i++)
        arenas += snap->arenas[i].size;
    if (f.o.no_arenas)
        arenas = p->pools_used * p->pool_size;
    uint64_t stacks = 0x21000 + (layout_has(f.l, LF_ts_datastack_chunk) ? IMG_CHUNK : 0);
    return t->bytes[CAT_PYTHON_BLOCKS_USED] == p->bytes_used &&
           t->count[CAT_PYTHON_BLOCKS_USED] == p->blocks_used &&
           t->bytes[CAT_PYTHON_BLOCKS_FREE] == p->bytes_free + p->pools_free * p->pool_size &&
           t->resident[CAT_PYTHON_BLOCKS_USED] == p->bytes_used &&
           t->bytes[CAT_PYTHON_BLOCKS_USED] + t->bytes[CAT_PYTHON_BLOCKS_FREE] +
                   t->bytes[CAT_PYTHON_ARENAS_OVERHEAD] ==
               arenas &&
           (f.o.by == IMG_TEXT || t->bytes[CAT_STACKS] == stacks) &&
           t->bytes[CAT_KERNEL] == 0x2000 && t->bytes[CAT_RESERVED] == IMG_PAGE &&
           t->bytes[CAT_FILES] == IMG_PAGE && t->bytes[CAT_DATA] == 0x3000 &&
           t->bytes[CAT_PYTHON_MIMALLOC] == (f.o.mimalloc ? 2 * (uint64_t)IMG_SEGMENT_STEP : 0) &&
           t->count[CAT_PYTHON_MIMALLOC] == f.want_segment_blocks;
}

static const char *allocator_of(void)
{
    if (f.o.mimalloc)
        return f.o.hooks ? "mimalloc_debug" : "mimalloc";
    if (f.o.empty)
        return f.o.hooks ? "malloc_debug" : "malloc";
    return f.o.hooks ? "pymalloc_debug" : "pymalloc";
}

static bool python_fits(const struct snapshot *snap)
{
    const struct snapshot_python *p = &snap->python;
    bool right = p->present && p->hexversion == f.l->hexversion && p->debug == f.l->debug &&
                 p->free_threaded == f.l->free_threaded && p->trace_refs == f.o.trace_refs &&
                 strcmp(p->layout_name, f.l->name) == 0 && strcmp(p->state, "running") == 0 &&
                 p->interpreters == f.want_interpreters &&
                 strcmp(p->allocator, allocator_of()) == 0;
    if (!right)
        diag("CPython %s, layout %s (%s), %s, %s, %llu interpreters", p->version, p->layout_name,
             p->layout_source, p->state, p->allocator, (unsigned long long)p->interpreters);
    return right;
}

/* One image through one backend; `note` is what the walk has to say, NULL for nothing. */
static void exact(const char *how, struct mem *mem, const char *note)
{
    struct snapshot snap;
    struct err err;
    int rc = img_walk(&f, mem, &snap, &err);
    bool right = rc == 0 && same_pymalloc(&snap.pymalloc, &f.want) && img_sums(&f, &snap) &&
                 ledger_fits(&snap) && python_fits(&snap) &&
                 (note ? note_of(&snap, note) != NULL : notes_of(&snap) == 0);
    if (!ok(right, "%s: %s", f.l->source, how)) {
        diag("rc %d: %s", rc, err.text);
        print_notes(&snap);
    }
    snapshot_release(&snap);
}

static void exact_slow(const char *how, const char *note)
{
    struct slow slow;
    struct mem *cache;
    slow_init(&slow);
    if (mem_cache_new(&slow.mem, 64, &cache, NULL) < 0)
        abort();
    exact(how, cache, note);
    mem_close(cache);
    mem_close(&slow.mem);
}

static void build(const struct layout *l, struct img_opts o)
{
    o.empty = o.empty || l->free_threaded;
    o.mimalloc = o.mimalloc || l->free_threaded;
    img_build(&f, l, &o);
}

static void test_found(const struct layout *l)
{
    const struct layout_traits *t = layout_traits(layout_minor(l->hexversion));
    build(l, (struct img_opts){.by = IMG_SYMBOL});
    exact("by symbol", NULL, NULL);
    exact_slow("by symbol, through a cache", NULL);
    build(l, (struct img_opts){.by = IMG_SYMBOL, .hooks = true});
    exact("by symbol, debug hooks", NULL, NULL);
    if (t->debug_offsets) {
        build(l, (struct img_opts){.by = IMG_COOKIE});
        exact("by cookie", NULL, NULL);
        return;
    }
    build(l, (struct img_opts){.by = IMG_TEXT});
    exact("by the version's text", NULL, NULL);
    build(l, (struct img_opts){.by = IMG_TEXT, .swapped = true, .hooks = true});
    exact("by the version's text, debug hooks", NULL, NULL);
    if (t->obmalloc == OBMALLOC_STATIC) {
        build(l, (struct img_opts){.by = IMG_SYMBOL, .statics = true});
        exact("with a symbol table", NULL, NULL);
    }
    if (!l->debug) {
        build(l, (struct img_opts){.by = IMG_SYMBOL, .trace_refs = true});
        exact("Py_TRACE_REFS", NULL, NULL);
    }
}

static void test_heaps(const struct layout *l)
{
    const struct layout_traits *t = layout_traits(layout_minor(l->hexversion));
    build(l, (struct img_opts){.sub = IMG_SHARED});
    exact("two interpreters, one pymalloc", NULL, NULL);
    if (t->obmalloc != OBMALLOC_STATIC && !l->free_threaded) {
        build(l, (struct img_opts){.sub = IMG_OWN});
        exact("two interpreters, each its own pymalloc", NULL, NULL);
    }
    build(l, (struct img_opts){.empty = true});
    exact("pymalloc never used", NULL, NULL);
    if (t->mimalloc != MIMALLOC_ABSENT) {
        build(l, (struct img_opts){.empty = true, .mimalloc = true});
        exact("mimalloc", NULL, NULL);
        exact_slow("mimalloc, through a cache", NULL);
    }
    if (l->free_threaded)
        return;
    build(l, (struct img_opts){.no_arenas = true});
    exact("pools by their headers", NULL, "pymalloc.headers");
}

/* ---- absent pages ---- */

/* Make a page absent; *used and *free are what of the blocks of `pool` is left, counted here by the
 * rule that blocks from `carved` on and those in `holes` of the first carved ones are free. */
static void absent_page(uint64_t page)
{
    struct img_piece *p = &f.pieces[2];
    p->absent[(page - p->addr) / IMG_PAGE] = 1;
}

static uint64_t outside(uint64_t start, uint64_t end, uint64_t page)
{
    uint64_t lo = max_u64(start, page), hi = min_u64(end, page + IMG_PAGE);
    return end - start - (hi > lo ? hi - lo : 0);
}

/* Pool 1 of arena 0 is partial: the expected resident bytes of its used and free blocks when one
 * page is gone. Free blocks are every third from the second among the carved ones. */
static void expect_resident(uint64_t pool, uint64_t page, uint64_t *used, uint64_t *free_)
{
    uint64_t size = (img_get(&f, pool + layout_offset(f.l, LF_pool_szidx), 4) + 1) * 16;
    uint64_t cap = (f.t->pool_size - POOL_HEADER_BYTES) / size, carved = cap - cap / 4;
    for (uint64_t i = 0; i < cap; i++) {
        uint64_t at = pool + POOL_HEADER_BYTES + i * size;
        bool is_free = i >= carved || (i % 3 == 1 && i / 3 < carved / 3);
        *(is_free ? free_ : used) += outside(at, at + size, page);
    }
}

/* The last page of a partial pool was never touched: nothing of a free list is in it. */
static void test_untouched_tail(const struct layout *l)
{
    struct snapshot snap;
    struct err err;
    build(l, (struct img_opts){.by = IMG_SYMBOL});
    uint64_t pool = f.arena[0] + f.t->pool_size, page = pool + f.t->pool_size - IMG_PAGE;
    uint64_t used = 0, free_ = 0;
    expect_resident(pool, page, &used, &free_);
    uint64_t size = (img_get(&f, pool + layout_offset(f.l, LF_pool_szidx), 4) + 1) * 16;
    uint64_t cap = (f.t->pool_size - POOL_HEADER_BYTES) / size, carved = cap - cap / 4;
    uint64_t holes = carved / 3;
    absent_page(page);
    img_present(&f);
    int rc = img_walk(&f, NULL, &snap, &err);
    const struct tally *t = &snap.memory.tally;
    uint64_t lost_used = (carved - holes) * size - used,
             lost_free = (cap - carved + holes) * size - free_;
    ok(rc == 0 && same_pymalloc(&snap.pymalloc, &f.want) && img_sums(&f, &snap) &&
           notes_of(&snap) == 0 &&
           t->resident[CAT_PYTHON_BLOCKS_USED] == f.want.bytes_used - lost_used &&
           t->bytes[CAT_PYTHON_BLOCKS_FREE] - t->resident[CAT_PYTHON_BLOCKS_FREE] == lost_free &&
           snap.arenas[0].resident_bytes == f.t->arena_size - IMG_PAGE,
       "%s: a pool whose last page was never touched", l->source);
    snapshot_release(&snap);
}

/* Everything that pymalloc has is swapped out but pool headers: counts stay exact. */
static void test_only_headers(const struct layout *l)
{
    struct snapshot snap;
    struct err err;
    build(l, (struct img_opts){.by = IMG_SYMBOL});
    uint64_t pages = f.t->arena_size / IMG_PAGE, step = f.t->pool_size / IMG_PAGE;
    for (uint64_t i = 0; i < pages; i++)
        if (i % step)
            absent_page(f.arena[0] + i * IMG_PAGE);
    img_present(&f);
    int rc = img_walk(&f, NULL, &snap, &err);
    if (!ok(rc == 0 && same_pymalloc(&snap.pymalloc, &f.want) && img_sums(&f, &snap) &&
                snap.arenas[0].resident_bytes == f.t->arena_size / step,
            "%s: an arena of which only the headers are present", l->source))
        print_notes(&snap);
    snapshot_release(&snap);
}

/* A header that is not there: the pool is unknown, and the walk says so. */
static void test_header_absent(const struct layout *l)
{
    struct snapshot snap;
    struct err err;
    build(l, (struct img_opts){.by = IMG_SYMBOL, .statics = true});
    /* Pool 5 is full, so no list leads to it. */
    absent_page(f.arena[0] + 5 * f.t->pool_size);
    img_present(&f);
    int rc = img_walk(&f, NULL, &snap, &err);
    ok(rc == 0 && img_sums(&f, &snap) && note_of(&snap, "pymalloc.unreadable") && !snap.complete &&
           snap.pymalloc.pools_used + 1 == f.want.pools_used,
       "%s: a pool without a header", l->source);
    snapshot_release(&snap);
}

/* Absent pages at random: the sums hold whatever is missing. */
static void test_holes(const struct layout *l)
{
    unsigned wrong = 0;
    build(l, (struct img_opts){.by = IMG_SYMBOL});
    f.n_data = 0;
    for (unsigned round = 0; round < 12; round++) {
        struct snapshot snap;
        struct err err;
        for (size_t p = 0; p < f.n_pieces; p++)
            for (size_t i = 0; i < f.pieces[p].len / IMG_PAGE; i++)
                f.pieces[p].absent[i] = p < 2 ? round > 8 && rand() % 8 == 0 : rand() % 3 == 0;
        f.pieces[0].absent[0] = 0;
        img_present(&f);
        int rc = img_walk(&f, NULL, &snap, &err);
        wrong += rc == 0 ? !img_sums(&f, &snap) : !err.text[0] || err.code != rc;
        snapshot_release(&snap);
    }
    ok(wrong == 0, "%s: pages absent at random", l->source);
}

/* ---- damage ---- */

static bool counts_as_before(const struct snapshot *snap)
{
    return snap->pymalloc.blocks_used == f.want.blocks_used &&
           snap->pymalloc.blocks_free == f.want.blocks_free &&
           snap->pymalloc.pools_free == f.want.pools_free && snap->pymalloc.arenas == f.want.arenas;
}

/* 0: fine. The damage must be told unless the counts are what they were. */
static unsigned damaged(const struct img_word *w, const char *value, bool *told)
{
    struct snapshot snap;
    struct err err;
    int rc = img_walk(&f, NULL, &snap, &err);
    bool sums = rc < 0 || img_sums(&f, &snap);
    *told = rc < 0 ? err.text[0] && err.code == rc
                   : notes_of(&snap) > 0 || !strcmp(snap.python.state, "starting");
    bool fine = sums && (*told || (counts_as_before(&snap)));
    if (!fine)
        diag("%s at 0x%llx = %s: rc %d, sums %s, %s", w->name, (unsigned long long)w->addr, value,
             rc, sums ? "hold" : "FAIL", *told ? "told" : "not told");
    snapshot_release(&snap);
    return !fine;
}

static uint64_t other_value(const struct img_word *w, unsigned kind)
{
    switch (kind) {
    case 0:
        return 0;
    case 1:
        return UINT64_MAX;
    case 2:
        return w->addr;
    case 3:
        return (uint64_t)rand() << 40 ^ (uint64_t)rand() << 16 ^ (uint64_t)rand();
    case 4:
        return f.arena[0];
    default:
        return img_get(&f, w->addr, w->width) ^ 1ull << (unsigned)rand() % 20;
    }
}

static void test_damage(const struct layout *l, struct img_opts o, const char *how)
{
    static const char *const values[] = {"0",      "all ones", "its own address",
                                         "random", "an arena", "a flipped bit"};
    unsigned wrong = 0, told = 0, runs = 0;
    build(l, o);
    f.n_data = 0;
    for (size_t i = 0; i < f.n_words; i++) {
        const struct img_word *w = &f.words[i];
        uint64_t old = img_get(&f, w->addr, w->width);
        for (unsigned k = 0; k < sizeof values / sizeof *values; k++) {
            uint64_t v = other_value(w, k);
            bool said;
            img_put(&f, w->addr, &v, w->width);
            wrong += damaged(w, values[k], &said);
            told += said;
            runs++;
            img_put(&f, w->addr, &old, w->width);
        }
    }
    ok(wrong == 0, "%s: %s: %u damaged images, %u told", l->source, how, runs, told);
}

/* ---- failure loops ---- */

static void test_failing_reads(const struct layout *l, struct img_opts o)
{
    unsigned long i = 0, failed = 0, wrong = 0;
    struct slow slow;
    build(l, o);
    f.n_data = 0;
    slow_init(&slow);
    for (bool clean = false; !clean;) {
        struct snapshot snap;
        struct err err;
        /* Most reads are alike: after the first ones in larger steps. */
        i += i < 200 ? 1 : 1 + i / 40;
        slow.fail_at = i;
        slow.calls = 0;
        int rc = img_walk(&f, &slow.mem, &snap, &err);
        clean = slow.calls < i;
        failed += !clean;
        wrong += rc < 0 ? clean || !err.text[0] : !img_sums(&f, &snap);
        wrong += clean && (!same_pymalloc(&snap.pymalloc, &f.want) || notes_of(&snap));
        snapshot_release(&snap);
    }
    mem_close(&slow.mem);
    ok(wrong == 0, "%s: %lu walks with a failed read, %lu wrong", l->source, failed, wrong);
}

static void test_failing_malloc(const struct layout *l, struct img_opts o)
{
    unsigned long i = 0, wrong = 0, refused = 0;
    struct mem *mem;
    build(l, o);
    if (mem_image_new(f.parts, f.n_parts, &mem, NULL) < 0)
        abort();
    for (bool clean = false; !clean && i < 10000;) {
        struct snapshot snap;
        struct err err;
        calls = 0;
        fail_at = ++i;
        int rc = img_walk(&f, mem, &snap, &err);
        fail_at = 0;
        clean = calls < i;
        refused += rc == ERR_NOMEM;
        /* Only a text or a note may get lost without an error. */
        wrong += rc < 0 ? clean || rc != ERR_NOMEM || err.code != rc : !img_sums(&f, &snap);
        wrong += rc == 0 && !same_pymalloc(&snap.pymalloc, &f.want) && !notes_of(&snap);
        snapshot_release(&snap);
    }
    mem_close(mem);
    ok(wrong == 0 && i < 10000 && refused > 4, "%s: %lu allocations failed once each, %lu refused",
       l->source, i - 1, refused);
}

/* ---- what is no CPython ---- */

static void refused(const char *what, const char *part)
{
    struct snapshot snap;
    struct err err;
    int rc = img_walk(&f, NULL, &snap, &err);
    if (!ok(rc == ERR_UNSUPPORTED && strstr(err.text, part), "refused: %s", what))
        diag("rc %d: %s", rc, err.text);
    snapshot_release(&snap);
}

static void test_refusals(void)
{
    const struct layout *l = layout_find(0x030b07f0, false, false, NULL);
    build(l, (struct img_opts){.by = IMG_TEXT});
    img_put(&f, IMG_DATA + 0x40, "2.7.18 ", 7);
    refused("no text of a version", "no CPython in this process");
    f.module.is_pypy = true;
    refused("PyPy", "PyPy");
    build(l, (struct img_opts){.by = IMG_SYMBOL});
    f.module.py_version = 0x030700f0;
    img_put(&f, IMG_DATA + 0x40, "3.7.0 ", 6);
    refused("3.7", "not supported");
    f.module.py_version = 0;
    img_put(&f, IMG_DATA + 0x40, "junk", 4);
    refused("no version yet", "does not say its version");
    build(l, (struct img_opts){.by = IMG_SYMBOL});
    img_put(&f, IMG_DATA + 0x200, "typo", 5);
    refused("`type` has another name", "does not read");
    build(l, (struct img_opts){.by = IMG_SYMBOL, .sub = IMG_SHARED});
    img_u64(&f, f.main_interp + layout_offset(l, LF_interp_next), IMG_SUB_INTERP);
    refused("interpreters in a ring", "does not end");
}

/* An own-GIL subinterpreter whose state is damaged must not hide behind the main one's: its pools
 * are found by their headers, and the walk says so. */
static void test_lost_heap(const struct layout *l)
{
    struct snapshot snap;
    struct err err;
    build(l, (struct img_opts){.by = IMG_SYMBOL, .sub = IMG_OWN});
    uint64_t state = f.t->obmalloc == OBMALLOC_INLINE
                         ? IMG_SUB_INTERP + layout_offset(l, LF_interp_obmalloc)
                         : IMG_SUB_STATE;
    memset(img_at(&f, state, 512), 0, 512);
    int rc = img_walk(&f, NULL, &snap, &err);
    ok(rc == 0 && img_sums(&f, &snap) && note_of(&snap, "pymalloc.interpreter") &&
           note_of(&snap, "pymalloc.headers") && !snap.complete &&
           snap.pymalloc.blocks_used == f.want.blocks_used,
       "%s: the lost pymalloc state of a subinterpreter is told", l->source);
    snapshot_release(&snap);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Lists that bite their tails, all at once: the worst case for nested walks. */
static void test_rings(const struct layout *l)
{
    struct snapshot snap;
    struct err err;
    if (!layout_has(l, LF_ts_datastack_chunk))
        return;
    build(l, (struct img_opts){.by = IMG_SYMBOL});
    double before = now();
    img_u64(&f, IMG_THREAD + layout_offset(l, LF_ts_next), IMG_THREAD);
    img_u64(&f, f.chunk + layout_offset(l, LF_chunk_previous), f.chunk);
    int rc = img_walk(&f, NULL, &snap, &err);
    double took = now() - before;
    ok(rc == 0 && img_sums(&f, &snap) && took < 2, "%s: threads and frame chunks in rings: %.1f s",
       l->source, took);
    snapshot_release(&snap);
}

/* Stopped between the unmapping of an empty arena and the clearing of its entry. */
static void test_leaving_arena(const struct layout *l)
{
    build(l, (struct img_opts){.by = IMG_SYMBOL});
    uint64_t at = IMG_ARRAY + 7 * ARENA_OBJECT_BYTES, gone = IMG_AREA - 0x10000000;
    uint64_t total = f.t->arena_size / f.t->pool_size;
    img_quiet(&f, at, LF_arena_address, gone);
    img_quiet(&f, at, LF_arena_pool_address, gone + 3 * f.t->pool_size);
    img_quiet(&f, at, LF_arena_nfreepools, total);
    img_quiet(&f, at, LF_arena_ntotalpools, total);
    exact("an arena on its way out", NULL, NULL);
    img_quiet(&f, at, LF_arena_nfreepools, total - 1);
    exact("an arena with used pools that is not there", NULL, "pymalloc.arena");
}

static bool first_of_minor(size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (layout_minor(layout_at(k)->hexversion) == layout_minor(layout_at(i)->hexversion) &&
            layout_at(k)->free_threaded == layout_at(i)->free_threaded)
            return false;
    return true;
}

static void test_layout(const struct layout *l, bool first)
{
    test_found(l);
    test_heaps(l);
    if (!first)
        return;
    struct img_opts o = {.by = IMG_SYMBOL};
    test_rings(l);
    test_damage(l, o, "damage");
    if (l->free_threaded)
        return;
    test_leaving_arena(l);
    test_header_absent(l);
    test_only_headers(l);
    test_holes(l);
    if (f.t->pool_size > IMG_PAGE)
        test_untouched_tail(l);
    if (f.t->obmalloc != OBMALLOC_STATIC) {
        test_lost_heap(l);
        return;
    }
    o.by = IMG_TEXT;
    test_damage(l, o, "damage, without symbols");
}

int main(void)
{
    struct img_opts o = {.by = IMG_SYMBOL, .sub = IMG_OWN};
    alarm(TOO_LONG);
    srand(20240229);
    img_init(&f);
    for (size_t i = 0; i < layout_count(); i++)
        test_layout(layout_at(i), first_of_minor(i));
    test_refusals();
    test_failing_reads(layout_find(0x030e00f0, false, false, NULL), o);
    test_failing_malloc(layout_find(0x030e00f0, false, false, NULL), o);
    test_failing_malloc(layout_find(0x030d00f0, false, true, NULL), o);
    o.by = IMG_TEXT;
    test_failing_reads(layout_find(0x030b00f0, false, false, NULL), o);
    test_failing_malloc(layout_find(0x030b00f0, false, false, NULL), o);
    img_release(&f);
    return done_testing();
}
