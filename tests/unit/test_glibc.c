/* walker/glibc over synthetic heaps, one for each layout. Exact counts first, then every word that
 * means something is flipped: the walk has to end and every byte has to be accounted for. */
#include <string.h>
#include <time.h>

#include "formats/base/num.h"
#include "tests/lib/glibc_fixture.c" /* each program is linked from one .c file */
#include "tests/lib/tap.h"

static struct fixture whole, broken;

static void same(const char *name, const char *what, uint64_t have, uint64_t want)
{
    ok(have == want, "%s: %s is %llu (want %llu)", name, what, (unsigned long long)have,
       (unsigned long long)want);
}

static bool has_note(const struct fixture_result *r, const char *what)
{
    for (size_t i = 0; i < r->snap.n_notes; i++)
        if (strcmp(r->snap.notes[i].what, what) == 0)
            return true;
    return false;
}

static void print_notes(const struct fixture_result *r)
{
    for (size_t i = 0; i < r->snap.n_notes; i++)
        diag("%s: %s", r->snap.notes[i].what, r->snap.notes[i].why);
}

static void check_malloc(const char *name, const struct snapshot_malloc *m,
                         const struct snapshot_malloc *want)
{
    same(name, "arenas", m->arenas, want->arenas);
    same(name, "system bytes", m->system_bytes, want->system_bytes);
    same(name, "used chunks", m->used_chunks, want->used_chunks);
    same(name, "used bytes", m->used_bytes, want->used_bytes);
    same(name, "cached chunks", m->cached_chunks, want->cached_chunks);
    same(name, "cached bytes", m->cached_bytes, want->cached_bytes);
    same(name, "free chunks", m->free_chunks, want->free_chunks);
    same(name, "free bytes", m->free_bytes, want->free_bytes);
    same(name, "top bytes", m->top_bytes, want->top_bytes);
    same(name, "overhead", m->overhead_bytes, want->overhead_bytes);
    same(name, "mmapped chunks", m->mmapped_chunks, want->mmapped_chunks);
    same(name, "mmapped bytes", m->mmapped_bytes, want->mmapped_bytes);
    same(name, "damaged", m->damaged_bytes, 0);
    ok(memcmp(&m->mallinfo2, &want->mallinfo2, sizeof m->mallinfo2) == 0, "%s: mallinfo2", name);
}

static uint64_t in_use(const struct fixture_result *r)
{
    return r->snap.malloc.used_chunks + r->snap.malloc.mmapped_chunks;
}

static uint64_t fast_chunks(const struct fixture_result *r)
{
    return r->snap.malloc.mallinfo2.smblks;
}

static void test_whole(const struct glibc_layout *l)
{
    struct fixture_result r;
    fixture_walk(&whole, &r);
    ok(r.rc == 0 && r.snap.complete, "%s: complete walk", l->name);
    ok(r.layout && strcmp(r.layout, l->name) == 0, "%s: layout found (%s)", l->name,
       r.layout ? r.layout : "none");
    check_malloc(l->name, &r.snap.malloc, &whole.want);
    ok(fixture_sums(&r), "%s: every byte is in one category", l->name);
    const uint64_t *bytes = r.snap.memory.tally.bytes;
    same(l->name, "ledger used", bytes[CAT_MALLOC_USED], whole.want.used_bytes);
    same(l->name, "ledger cached", bytes[CAT_MALLOC_CACHED], whole.want.cached_bytes);
    same(l->name, "ledger free", bytes[CAT_MALLOC_FREE], whole.want.free_bytes);
    same(l->name, "ledger top", bytes[CAT_MALLOC_TOP], whole.want.top_bytes);
    same(l->name, "ledger mmapped", bytes[CAT_MALLOC_MMAPPED], whole.want.mmapped_bytes);
    same(l->name, "notes", r.snap.n_notes, 0);
    same(l->name, "told as in use", r.used, in_use(&r));
    same(l->name, "taken back", r.taken_back, 0);
    print_notes(&r);
    snapshot_release(&r.snap);
}

/* The same chunks, whether their caches were known from the start or not. */
static void test_told(const struct glibc_layout *l)
{
    struct fixture_result with, without;
    broken = whole;
    fixture_walk(&broken, &with);
    broken.no_threads = true;
    fixture_walk(&broken, &without);
    ok(without.taken_back == whole.want.cached_chunks - fast_chunks(&without) + 2 &&
           without.used == with.used && without.used_addrs == with.used_addrs,
       "%s: chunks of orphaned caches are taken back (%llu)", l->name,
       (unsigned long long)without.taken_back);
    snapshot_release(&with.snap);
    snapshot_release(&without.snap);
}

/* Whoever listens fails, in every kind of place. */
static void test_listener_fails(const struct glibc_layout *l)
{
    uint64_t i = 1, odd = 0;
    broken = whole;
    broken.no_threads = true;
    for (;; i++) {
        struct fixture_result r;
        broken.used_fail_at = i;
        fixture_walk(&broken, &r);
        bool met = r.rc == ERR_NOMEM;
        /* The inner loop may hand the same chunk on to the slow path before that looks. */
        if (!fixture_sums(&r) || (met && r.used_fails > 1) || (!met && r.rc != 0))
            odd++;
        snapshot_release(&r.snap);
        if (!met)
            break;
    }
    ok(odd == 0 && i > whole.want.used_chunks + whole.want.mmapped_chunks,
       "%s: a listener that fails ends the walk (%llu places)", l->name, (unsigned long long)i);
}

/* Without threads' registers the caches are found by their content. */
static void test_orphans(const struct glibc_layout *l)
{
    struct fixture_result r;
    broken = whole;
    broken.no_threads = true;
    fixture_walk(&broken, &r);
    same(l->name, "orphans: cached", r.snap.malloc.cached_chunks, whole.want.cached_chunks);
    same(l->name, "orphans: used", r.snap.malloc.used_bytes, whole.want.used_bytes);
    same(l->name, "orphans: ledger cached", r.snap.memory.tally.bytes[CAT_MALLOC_CACHED],
         whole.want.cached_bytes);
    ok(fixture_sums(&r) && has_note(&r, "malloc.caches"), "%s: caches found by content are noted",
       l->name);
    print_notes(&r);
    snapshot_release(&r.snap);
}

static void test_absent(const struct glibc_layout *l)
{
    struct fixture_result r;
    broken = whole;
    broken.absent = whole.pieces[0].addr + 0x4000;
    fixture_walk(&broken, &r);
    ok(r.rc == 0 && fixture_sums(&r), "%s: a page with headers is absent", l->name);
    print_notes(&r);
    ok(r.snap.malloc.damaged_bytes > 0 && r.snap.malloc.damaged_bytes < 0x2000,
       "%s: chunks go on behind it", l->name);
    snapshot_release(&r.snap);
    broken.absent = whole.pieces[0].addr + whole.pieces[0].len - 0x8000;
    fixture_walk(&broken, &r);
    ok(r.rc == 0 && fixture_sums(&r) && r.snap.complete, "%s: a page of top is absent", l->name);
    snapshot_release(&r.snap);
}

static void test_claimed(const struct glibc_layout *l)
{
    struct fixture_result r;
    broken = whole;
    broken.claimed_start = whole.pieces[0].addr + 0x20000;
    broken.claimed_end = broken.claimed_start + 0x400;
    fixture_walk(&broken, &r);
    ok(r.rc == 0 && fixture_sums(&r) && has_note(&r, "malloc.shared"),
       "%s: what has an owner keeps it", l->name);
    same(l->name, "ledger top", r.snap.memory.tally.bytes[CAT_MALLOC_TOP],
         whole.want.top_bytes - 0x400);
    same(l->name, "top bytes", r.snap.malloc.top_bytes, whole.want.top_bytes);
    snapshot_release(&r.snap);
}

/* One bad size word must not cost more than its neighbourhood. */
static void test_overrun(const struct glibc_layout *l)
{
    struct fixture_result r;
    uint64_t heap = whole.pieces[0].addr, first = heap + (fixture_get(&whole, heap + 8) & ~7ull);
    uint64_t second = first + (fixture_get(&whole, first + 8) & ~7ull);
    broken = whole;
    fixture_put(&broken, second, 0x4141414141414141);
    fixture_put(&broken, second + 8, 0x4141414141414141);
    fixture_walk(&broken, &r);
    ok(r.rc == 0 && fixture_sums(&r) && !r.snap.complete && has_note(&r, "malloc.damaged"),
       "%s: an overrun header is noted", l->name);
    ok(r.snap.malloc.damaged_bytes > 0 && r.snap.malloc.damaged_bytes <= 0x400,
       "%s: and costs %llu bytes", l->name, (unsigned long long)r.snap.malloc.damaged_bytes);
    const struct snapshot_malloc *m = &r.snap.malloc;
    same(l->name, "sum with damage",
         m->used_bytes + m->cached_bytes + m->free_bytes + m->top_bytes + m->overhead_bytes +
             m->damaged_bytes,
         m->system_bytes);
    snapshot_release(&r.snap);
}

/* main_arena's `next` and `top` are wild: its heaps are found nevertheless. */
static void test_roots(const struct glibc_layout *l)
{
    struct fixture_result r;
    uint64_t arena = whole.data.start + 0x1c60;
    broken = whole;
    fixture_put(&broken, arena + (uint64_t)l->offset[STATE_NEXT], 0x1230);
    fixture_walk(&broken, &r);
    same(l->name, "broken ring: used", r.snap.malloc.used_bytes, whole.want.used_bytes);
    same(l->name, "broken ring: arenas", r.snap.malloc.arenas, 2);
    snapshot_release(&r.snap);
    broken = whole;
    fixture_put(&broken, arena + (uint64_t)l->offset[STATE_TOP], 0x1230);
    fixture_walk(&broken, &r);
    same(l->name, "broken top: top", r.snap.malloc.top_bytes, whole.want.top_bytes);
    same(l->name, "broken top: used", r.snap.malloc.used_bytes, whole.want.used_bytes);
    snapshot_release(&r.snap);
    broken = whole;
    memset(broken.bytes + broken.pieces[1].at, 0, broken.pieces[1].len);
    fixture_walk(&broken, &r);
    ok(r.rc == ERR_NOT_FOUND && !r.snap.malloc.present && fixture_sums(&r),
       "%s: without main_arena nothing is claimed", l->name);
    snapshot_release(&r.snap);
}

static uint64_t flipped(uint64_t addr, uint64_t value, unsigned how)
{
    const uint64_t values[] = {0,
                               1,
                               UINT64_MAX,
                               value ^ 0x10,
                               value + 0x40,
                               value ^ 0x7,
                               0x4141414141414141,
                               addr,
                               addr - 16,
                               value << 20,
                               0x7f0004000000,
                               value - 0x1000};
    return values[how % (sizeof values / sizeof values[0])];
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void test_flips(const struct glibc_layout *l, unsigned phase)
{
    size_t bad = 0, runs = 0, uncounted = 0;
    double worst = 0;
    broken = whole;
    for (size_t i = 0; i < whole.n_words; i++, runs++) {
        struct fixture_result r;
        uint64_t addr = whole.words[i], value = fixture_get(&whole, addr);
        fixture_put(&broken, addr, flipped(addr, value, (unsigned)i * 5 + phase));
        double start = seconds();
        fixture_walk(&broken, &r);
        double took = seconds() - start;
        worst = took > worst ? took : worst;
        uncounted += r.rc == 0 && r.used != in_use(&r);
        if (!fixture_sums(&r) || (r.rc < 0 && r.rc != ERR_NOT_FOUND)) {
            bad++;
            diag("word 0x%llx how %u rc %d", (unsigned long long)addr, (unsigned)i * 5 + phase,
                 r.rc);
        }
        snapshot_release(&r.snap);
        fixture_put(&broken, addr, value);
    }
    ok(bad == 0, "%s: %zu flipped words, sums hold", l->name, runs);
    ok(uncounted == 0, "%s: chunks told are chunks counted (%zu not)", l->name, uncounted);
    ok(worst < 2, "%s: the slowest took %.0f ms", l->name, worst * 1e3);
}

static void test_bins(void)
{
    const struct glibc_tcache *t = &glibc_layouts[0].tcache;
    same("bins", "32", (uint64_t)tcache_bin_of(t, 32), 0);
    same("bins", "1040", (uint64_t)tcache_bin_of(t, 1040), 63);
    same("bins", "1056", (uint64_t)tcache_bin_of(t, 1056), 64);
    same("bins", "2032", (uint64_t)tcache_bin_of(t, 2032), 64);
    same("bins", "2048", (uint64_t)tcache_bin_of(t, 2048), 65);
    same("bins", "4 MiB - 16", (uint64_t)tcache_bin_of(t, (4 << 20) - 16), 75);
    ok(tcache_bin_of(t, 4 << 20) == -1, "bins: 4 MiB has none");
    ok(tcache_bin_of(&glibc_layouts[1].tcache, 1056) == -1, "bins: 1056 has none before 2.42");
}

int main(void)
{
    test_bins();
    for (unsigned i = 0; i < GLIBC_LAYOUTS; i++) {
        const struct glibc_layout *l = &glibc_layouts[i];
        fixture_build(&whole, l);
        test_whole(l);
        test_orphans(l);
        test_told(l);
        test_listener_fails(l);
        test_absent(l);
        test_claimed(l);
        test_overrun(l);
        test_roots(l);
        test_flips(l, i);
        test_flips(l, i + 6);
    }
    return done_testing();
}
