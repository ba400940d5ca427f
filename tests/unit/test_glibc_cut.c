/* glibc_walk over heaps whose source lacks libc's own data or ends early, in every layout: what
 * describes itself is counted, the rest is unknown, and every byte is in one category. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "tests/lib/glibc_fixture.c" /* each program is linked from one .c file */
#include "tests/lib/tap.h"

static struct fixture f;
static const char *hint;

struct range {
    uint64_t start, end;
};

/* The pieces that begin outside of what is hidden, cut where it begins. Pages stay present. */
static size_t pieces_left(const struct range *hide, size_t n, struct mem_image_piece *ret)
{
    size_t m = 0;
    for (size_t i = 0; i < f.n_pieces; i++) {
        const struct fixture_piece *p = &f.pieces[i];
        uint64_t end = p->addr + p->len;
        for (size_t k = 0; k < n; k++) {
            if (p->addr >= hide[k].start && p->addr < hide[k].end)
                end = p->addr;
            else if (hide[k].start > p->addr && hide[k].start < end)
                end = hide[k].start;
        }
        if (end > p->addr)
            ret[m++] = (struct mem_image_piece){p->addr, &f.bytes[p->at], (size_t)(end - p->addr)};
    }
    return m;
}

static void run(struct mem *mem, const struct residency *res, bool partial,
                struct fixture_result *r)
{
    struct vma_list list = {f.vmas, f.n_vmas};
    struct notes notes;
    struct blockmap map;
    notes_init(&notes, &r->snap);
    blockmap_init(&map, res);
    for (size_t i = 0; i < f.n_vmas; i++) {
        f.vmas[i].rss = residency_bytes(res, f.vmas[i].start, f.vmas[i].end);
        r->mapped += f.vmas[i].end - f.vmas[i].start;
        r->present += f.vmas[i].rss;
    }
    struct glibc_input in = {.mem = mem,
                             .vmas = &list,
                             .res = res,
                             .data = &f.data,
                             .n_data = 1,
                             .fs_bases = f.fs,
                             .n_threads = 2,
                             .chunk = on_chunk,
                             .chunk_ctx = r,
                             .partial = partial,
                             .version_hint = hint,
                             .layout_name = &r->layout};
    r->rc = glibc_walk(&in, &map, &r->snap, &notes, NULL);
    if (blockmap_settle(&map, &list, fallback, NULL, &r->snap, &notes, NULL) < 0)
        abort();
    blockmap_release(&map);
}

static void walk_without(const struct range *hide, size_t n, bool partial, struct fixture_result *r)
{
    struct mem_image_piece left[FIXTURE_PIECES];
    struct page_run runs[FIXTURE_PIECES];
    struct residency res;
    struct mem *mem;
    memset(r, 0, sizeof *r);
    snapshot_init(&r->snap);
    for (size_t i = 0; i < f.n_pieces; i++)
        runs[i] = (struct page_run){f.pieces[i].addr, f.pieces[i].addr + f.pieces[i].len};
    size_t m = pieces_left(hide, n, left);
    if (residency_init(&res, runs, f.n_pieces, NULL) < 0 || mem_image_new(left, m, &mem, NULL) < 0)
        abort();
    run(mem, &res, partial, r);
    mem_close(mem);
    residency_release(&res);
}

static bool has_note(const struct fixture_result *r, const char *what)
{
    for (size_t i = 0; i < r->snap.n_notes; i++)
        if (strcmp(r->snap.notes[i].what, what) == 0)
            return true;
    return false;
}

static void explain(bool right, const struct fixture_result *r)
{
    const struct snapshot_malloc *m = &r->snap.malloc;
    if (right)
        return;
    diag("rc %d, layout %s, used %llu cached %llu free %llu top %llu overhead %llu damaged %llu "
         "mmapped %llu",
         r->rc, r->layout ? r->layout : "none", (unsigned long long)m->used_bytes,
         (unsigned long long)m->cached_bytes, (unsigned long long)m->free_bytes,
         (unsigned long long)m->top_bytes, (unsigned long long)m->overhead_bytes,
         (unsigned long long)m->damaged_bytes, (unsigned long long)m->mmapped_bytes);
    for (size_t i = 0; i < r->snap.n_notes; i++)
        diag("%s: %s", r->snap.notes[i].what, r->snap.notes[i].why);
}

static const struct range data = {DATA_ADDR, DATA_ADDR + 0x4000};
static const struct range tls = {TLS_ADDR, TLS_ADDR + 0x2000};

/* Chunks in fastbins of the main heap, which only main_arena tells. */
static uint64_t main_fast_bytes(void)
{
    const struct glibc_layout *l = f.l;
    uint64_t bytes = 0;
    for (uint64_t k = 0; k < GLIBC_FASTBINS && glibc_layout_has(l, STATE_FASTBINS); k++) {
        uint64_t chunk = fixture_get(&f, ARENA_ADDR + (uint64_t)l->offset[STATE_FASTBINS] + 8 * k);
        for (; chunk; bytes += 32 + 16 * k)
            chunk = mangle(&f, chunk + 16, fixture_get(&f, chunk + 16));
    }
    return bytes;
}

/* Without libc's data everything is as with it, but for the main heap's fastbins. */
static void test_no_data(const struct glibc_layout *l, bool with_tls)
{
    const struct range hide[2] = {data, tls};
    const struct snapshot_malloc *want = &f.want;
    struct fixture_result r;
    char version[16] = "";
    strncpy(version, l->name, 4);
    hint = version;
    walk_without(hide, with_tls ? 1 : 2, true, &r);
    const struct snapshot_malloc *m = &r.snap.malloc;
    uint64_t fast = main_fast_bytes();
    bool right =
        r.rc == 0 && r.layout && strcmp(r.layout, l->name) == 0 && fixture_sums(&r) &&
        !r.snap.complete && has_note(&r, "malloc.partial") && m->arenas == 2 &&
        m->system_bytes == want->system_bytes && m->damaged_bytes == 0 &&
        m->used_bytes == want->used_bytes + fast && m->cached_bytes == want->cached_bytes - fast &&
        m->free_chunks == want->free_chunks && m->free_bytes == want->free_bytes &&
        m->top_bytes == want->top_bytes && m->overhead_bytes == want->overhead_bytes &&
        m->mmapped_chunks == want->mmapped_chunks && m->mmapped_bytes == want->mmapped_bytes;
    explain(ok(right && (fast || !glibc_layout_has(l, STATE_FASTBINS)), "%s: without libc's data%s",
               l->name, with_tls ? "" : " and TLS"),
            &r);
    snapshot_release(&r.snap);
    /* What tells sizes and states of chunks does not hang on the version. */
    hint = NULL;
    walk_without(hide, with_tls ? 1 : 2, true, &r);
    right = r.rc == 0 && fixture_sums(&r) && m->free_bytes == want->free_bytes &&
            m->top_bytes == want->top_bytes &&
            m->used_bytes + m->cached_bytes + m->overhead_bytes ==
                want->used_bytes + want->cached_bytes + want->overhead_bytes;
    explain(ok(right, "%s: and without a version", l->name), &r);
    snapshot_release(&r.snap);
}

static void test_refused(const struct glibc_layout *l)
{
    struct fixture_result r;
    walk_without(&data, 1, false, &r);
    ok(r.rc == ERR_NOT_FOUND && fixture_sums(&r), "%s: not with a whole source", l->name);
    snapshot_release(&r.snap);
    struct fixture *was = malloc(sizeof *was);
    if (!was)
        abort();
    *was = f;
    for (uint64_t at = data.start; at < data.end; at += 8)
        fixture_put(&f, at, 0);
    walk_without(NULL, 0, true, &r);
    ok(r.rc == ERR_NOT_FOUND && fixture_sums(&r),
       "%s: libc's data is there and has no main_arena: malloc is another", l->name);
    snapshot_release(&r.snap);
    f = *was;
    free(was);
}

/* The first heap of the thread arena is missing, and its header with it; the second is walked. */
static void test_lost_arena(const struct glibc_layout *l)
{
    const struct range first = {HEAP1_ADDR, HEAP1_ADDR + HEAP1_SIZE + PAGE};
    struct fixture_result whole, r;
    walk_without(NULL, 0, true, &whole);
    walk_without(&first, 1, true, &r);
    const struct snapshot_malloc_arena *a = r.snap.malloc_arenas, *b = whole.snap.malloc_arenas;
    bool right = whole.rc == 0 && whole.snap.complete && r.rc == 0 && fixture_sums(&r) &&
                 has_note(&r, "malloc.partial") && r.snap.n_malloc_arenas == 2 &&
                 a[0].used_bytes == b[0].used_bytes && a[0].cached_bytes == b[0].cached_bytes &&
                 a[0].free_bytes == b[0].free_bytes && a[1].address == b[1].address &&
                 a[1].heaps == 1 && a[1].top_bytes == b[1].top_bytes &&
                 a[1].system_bytes == HEAP2_SIZE && a[1].free_bytes < b[1].free_bytes;
    explain(ok(right, "%s: a thread arena whose header is missing", l->name), &r);
    snapshot_release(&whole.snap);
    snapshot_release(&r.snap);
}

/* Nothing that counts is missing. */
static bool as_wanted(const struct fixture_result *r)
{
    const struct snapshot_malloc *m = &r->snap.malloc, *want = &f.want;
    return m->used_bytes == want->used_bytes && m->cached_bytes == want->cached_bytes &&
           m->free_bytes == want->free_bytes && m->system_bytes == want->system_bytes &&
           m->mmapped_bytes == want->mmapped_bytes && m->top_bytes == want->top_bytes;
}

static void test_cuts(const struct glibc_layout *l)
{
    unsigned wrong = 0, walked = 0;
    for (size_t i = 0; i < f.n_pieces; i++) {
        uint64_t step = f.pieces[i].len / 5 / 8 * 8 + 8;
        for (uint64_t o = 0; o < f.pieces[i].len; o += step) {
            const struct range hide[2] = {{f.pieces[i].addr + o, UINT64_MAX}, data};
            for (size_t n = 1; n <= 2; n++) {
                struct fixture_result r;
                walk_without(hide, n, true, &r);
                bool right = fixture_sums(&r) && (r.rc == 0 || r.rc == ERR_NOT_FOUND) &&
                             r.snap.malloc.free_bytes <= f.want.free_bytes &&
                             (r.rc < 0 || !r.snap.complete || as_wanted(&r));
                wrong += !right;
                walked += r.rc == 0;
                explain(right, &r);
                snapshot_release(&r.snap);
            }
        }
    }
    ok(wrong == 0 && walked > 40, "%s: cut at many places, %u wrong, %u walked", l->name, wrong,
       walked);
}

/* Words that mean something changed at random, without libc's data: the sums hold. */
static void test_damage(const struct glibc_layout *l)
{
    enum { ROUNDS = 100, CHANGES = 4 };
    unsigned wrong = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint64_t at[CHANGES], was[CHANGES];
        struct fixture_result r;
        for (unsigned i = 0; i < CHANGES; i++) {
            at[i] = f.words[(size_t)rand() % f.n_words];
            was[i] = fixture_get(&f, at[i]);
            fixture_put(&f, at[i], i & 1 ? was[i] ^ 1ull << (rand() & 63) : was[i] + 16);
        }
        walk_without(&data, 1, true, &r);
        wrong += !fixture_sums(&r) || (r.rc != 0 && r.rc != ERR_NOT_FOUND);
        snapshot_release(&r.snap);
        for (unsigned i = CHANGES; i-- > 0;)
            fixture_put(&f, at[i], was[i]);
    }
    ok(wrong == 0, "%s: damage, %u of %u wrong", l->name, wrong, ROUNDS);
}

int main(void)
{
    srand(20240301);
    for (int i = 0; i < GLIBC_LAYOUTS; i++) {
        const struct glibc_layout *l = &glibc_layouts[i];
        fixture_build(&f, l);
        test_no_data(l, true);
        test_no_data(l, false);
        test_refused(l);
        test_lost_arena(l);
        test_cuts(l);
        test_damage(l);
    }
    return done_testing();
}
