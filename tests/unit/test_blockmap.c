/* The ledger: claims, gaps and the final sums. First by example, then many random ledgers against a
 * plain map of granules. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "tests/lib/tap.h"
#include "walker/blockmap.h"

enum {
    PAGE = 4096,
    GRAIN = 16,
    PAGES = 48,
    GRAINS = PAGES * PAGE / GRAIN,
    MAX_VMAS = 12,
    MAX_RUNS = PAGES,
    ROUNDS = 4000
};

static const uint64_t BASE = 0x7f0000000000;

static enum category as_unknown(void *ctx, const struct vma *v, uint64_t lo, uint64_t hi)
{
    uint64_t *gaps = ctx;
    if (gaps)
        *gaps += lo >= v->start && hi <= v->end && lo < hi;
    return CAT_UNKNOWN;
}

static enum category as_data(void *ctx, const struct vma *v, uint64_t lo, uint64_t hi)
{
    (void)ctx, (void)v, (void)lo, (void)hi;
    return CAT_DATA;
}

/* ---- by example ---- */

static void test_claims(void)
{
    struct page_run run = {BASE + PAGE, BASE + 3 * PAGE};
    struct residency res;
    struct blockmap map;
    struct tally t = {0};
    struct err err;
    uint64_t lo, hi;
    bool found = residency_init(&res, &run, 1, NULL) == 0;
    blockmap_init(&map, &res);
    ok(found && !blockmap_at(&map, BASE) && !blockmap_overlaps(&map, 0, UINT64_MAX) &&
           blockmap_gap(&map, 5, 9, &lo, &hi) && lo == 5 && hi == 9,
       "an empty ledger is one gap");
    err_clear(&err);
    ok(blockmap_claim_one(&map, BASE, BASE, CAT_DATA, 1, "nothing", &err) == ERR_CORRUPT &&
           blockmap_claim_one(&map, BASE + 1, BASE, CAT_DATA, 1, "less", &err) == ERR_CORRUPT,
       "nothing and less cannot be claimed: %s", err.text);
    t.bytes[CAT_STACKS] = PAGE;
    t.resident[CAT_STACKS] = 16;
    t.count[CAT_STACKS] = 3;
    int rc = blockmap_claim(&map, BASE, BASE + 2 * PAGE, &t, "a stack", &err);
    const struct extent *e = blockmap_at(&map, BASE + PAGE);
    ok(rc == 0 && e && e->resident == PAGE && e->tally.bytes[CAT_UNKNOWN] == PAGE &&
           e->tally.resident[CAT_UNKNOWN] == PAGE - 16 && e->tally.count[CAT_STACKS] == 3,
       "what a claim leaves open is unknown");
    ok(!blockmap_at(&map, BASE + 2 * PAGE) && !blockmap_at(&map, BASE - 1) &&
           blockmap_at(&map, BASE) == e && blockmap_at(&map, BASE + 2 * PAGE - 1) == e,
       "an extent holds its first and its last byte and no other");
    rc = blockmap_claim_one(&map, BASE + 2 * PAGE - 1, BASE + 9 * PAGE, CAT_DATA, 1, "data", &err);
    ok(rc == ERR_CORRUPT && map.n == 1 && strstr(err.text, "a stack"), "overlap: %s", err.text);
    t.bytes[CAT_STACKS] = 2 * PAGE + 1;
    ok(blockmap_claim(&map, BASE + 4 * PAGE, BASE + 6 * PAGE, &t, "x", &err) == ERR_CORRUPT &&
           map.n == 1,
       "more bytes than there are: %s", err.text);
    t.bytes[CAT_STACKS] = PAGE;
    t.resident[CAT_STACKS] = PAGE;
    ok(blockmap_claim(&map, BASE + 4 * PAGE, BASE + 6 * PAGE, &t, "x", &err) == ERR_CORRUPT,
       "more resident bytes than there are");
    rc = blockmap_claim_one(&map, BASE + 3 * PAGE, BASE + 4 * PAGE, CAT_DATA, 1, "data", &err);
    ok(rc == 0 && blockmap_gap(&map, BASE + 1, BASE + 9 * PAGE, &lo, &hi) &&
           lo == BASE + 2 * PAGE && hi == BASE + 3 * PAGE &&
           !blockmap_gap(&map, BASE, BASE + 2 * PAGE, &lo, &hi) &&
           !blockmap_overlaps(&map, BASE + 2 * PAGE, BASE + 3 * PAGE) &&
           blockmap_overlaps(&map, BASE + 2 * PAGE, BASE + 3 * PAGE + 1),
       "the gap between two extents");
    blockmap_release(&map);
    residency_release(&res);
}

struct settled {
    struct snapshot snap;
    struct notes notes;
    int rc;
};

static void settle(struct settled *s, const struct blockmap *map, const struct vma *v, size_t n,
                   blockmap_default_fn fn, void *ctx)
{
    struct vma_list list = {v, n};
    struct err err = ERR_INIT;
    snapshot_init(&s->snap);
    notes_init(&s->notes, &s->snap);
    s->rc = blockmap_settle(map, &list, fn, ctx, &s->snap, &s->notes, &err);
    note_flush(&s->notes);
}

/* One mapping of four pages, all present, half of it claimed; the kernel's Rss is `rss`. */
static void settle_with_rss(struct settled *s, uint64_t rss, enum vma_kind kind)
{
    struct page_run run = {BASE, BASE + 2 * PAGE};
    struct residency res;
    struct blockmap map;
    struct vma v = {.start = BASE, .end = BASE + 4 * PAGE, .r = true, .kind = kind, .name = "x"};
    v.rss = rss;
    v.swap = 77;
    if (residency_init(&res, &run, 1, NULL) < 0)
        abort();
    blockmap_init(&map, &res);
    if (blockmap_claim_one(&map, BASE, BASE + PAGE, CAT_STACKS, 1, "stack", NULL) < 0)
        abort();
    settle(s, &map, &v, 1, as_data, NULL);
    blockmap_release(&map);
    residency_release(&res);
}

static bool tally_is(const struct settled *s, uint64_t stacks, uint64_t data)
{
    const struct tally *t = &s->snap.mappings[0].tally;
    return s->rc == 0 && t->bytes[CAT_STACKS] == PAGE && t->bytes[CAT_DATA] == 3 * PAGE &&
           t->resident[CAT_STACKS] == stacks && t->resident[CAT_DATA] == data &&
           memcmp(t, &s->snap.memory.tally, sizeof *t) == 0 &&
           s->snap.memory.rss_bytes == stacks + data && s->snap.memory.mapped_bytes == 4 * PAGE &&
           s->snap.source.swap_bytes == 77;
}

static void test_rss(void)
{
    struct settled s;
    settle_with_rss(&s, 2 * PAGE, VMA_ANON);
    ok(tally_is(&s, PAGE, PAGE) && s.snap.n_notes == 0 && s.snap.complete, "Rss as seen");
    ok(strcmp(s.snap.mappings[0].perms, "r--p") == 0 && strcmp(s.snap.mappings[0].path, "x") == 0 &&
           strcmp(s.snap.mappings[0].kind, "anonymous") == 0 && s.snap.mappings[0].size == 4 * PAGE,
       "a mapping's own fields");
    snapshot_release(&s.snap);
    settle_with_rss(&s, PAGE, VMA_ANON);
    ok(tally_is(&s, PAGE / 2, PAGE / 2) && s.snap.n_notes == 1 && s.snap.complete &&
           strcmp(s.snap.notes[0].what, "residency.differs") == 0,
       "a smaller Rss scales down, with a remark");
    snapshot_release(&s.snap);
    settle_with_rss(&s, 4 * PAGE, VMA_ANON);
    ok(tally_is(&s, PAGE, 3 * PAGE) && s.snap.n_notes == 1,
       "a larger Rss fills what was not resident");
    snapshot_release(&s.snap);
    settle_with_rss(&s, 0, VMA_KERNEL);
    ok(tally_is(&s, 0, 0) && s.snap.n_notes == 0, "no remark about kernel mappings");
    snapshot_release(&s.snap);
}

/* An extent over two mappings and the hole between them: counted once, bytes by where they are. */
static void test_crossing(void)
{
    struct page_run runs[] = {{BASE + PAGE, BASE + 2 * PAGE}, {BASE + 4 * PAGE, BASE + 5 * PAGE}};
    struct vma v[] = {{.start = BASE, .end = BASE + 2 * PAGE, .rss = PAGE, .name = ""},
                      {.start = BASE + 3 * PAGE, .end = BASE + 6 * PAGE, .rss = PAGE, .name = ""}};
    struct residency res;
    struct blockmap map;
    struct settled s;
    if (residency_init(&res, runs, 2, NULL) < 0)
        abort();
    blockmap_init(&map, &res);
    int rc = blockmap_claim_one(&map, BASE + PAGE, BASE + 5 * PAGE, CAT_STACKS, 7, "one", NULL);
    settle(&s, &map, v, 2, as_data, NULL);
    const struct snapshot_mapping *m = s.snap.mappings;
    ok(rc == 0 && s.rc == 0 && m[0].tally.bytes[CAT_STACKS] == PAGE &&
           m[1].tally.bytes[CAT_STACKS] == 2 * PAGE && m[0].tally.resident[CAT_STACKS] == PAGE &&
           m[1].tally.resident[CAT_STACKS] == PAGE && m[0].tally.count[CAT_STACKS] == 7 &&
           m[1].tally.count[CAT_STACKS] == 0 && s.snap.memory.tally.bytes[CAT_DATA] == 2 * PAGE,
       "an extent over a hole");
    snapshot_release(&s.snap);
    settle(&s, &map, v + 1, 1, as_data, NULL);
    ok(s.rc == 0 && tally_bytes(&s.snap.memory.tally) == 3 * PAGE &&
           s.snap.memory.tally.count[CAT_STACKS] == 7,
       "an extent that starts in a hole");
    snapshot_release(&s.snap);
    blockmap_release(&map);
    residency_release(&res);
}

/* ---- at random ---- */

struct world {
    struct vma vmas[MAX_VMAS];
    size_t n_vmas;
    struct page_run runs[MAX_RUNS];
    size_t n_runs;
    struct residency res;
    struct blockmap map;
    uint8_t owned[GRAINS]; /* 1: claimed */
    uint64_t counts;       /* things in extents that touch a mapping */
};

static uint64_t draw(uint64_t below)
{
    return (uint64_t)rand() % below;
}

static void random_world(struct world *w, unsigned round)
{
    memset(w, 0, sizeof *w);
    for (uint64_t at = draw(3); w->n_vmas < MAX_VMAS && at < PAGES;) {
        uint64_t len = min_u64(1 + draw(8), PAGES - at);
        w->vmas[w->n_vmas++] = (struct vma){.start = BASE + at * PAGE,
                                            .end = BASE + (at + len) * PAGE,
                                            .kind = draw(8) ? VMA_ANON : VMA_KERNEL,
                                            .name = ""};
        at += len + (draw(3) ? 0 : draw(4));
    }
    for (uint64_t at = draw(2); at < PAGES;) {
        uint64_t len = min_u64(1 + draw(5), PAGES - at);
        w->runs[w->n_runs++] = (struct page_run){BASE + at * PAGE, BASE + (at + len) * PAGE};
        at += len + 1 + draw(4);
    }
    if (round % 7 == 0)
        w->n_runs = 0;
    if (residency_init(&w->res, w->runs, w->n_runs, NULL) < 0)
        abort();
    w->res.unknown = round % 5 == 0;
    for (size_t i = 0; i < w->n_vmas; i++) {
        struct vma *v = &w->vmas[i];
        v->rss = draw(3) ? residency_bytes(&w->res, v->start, v->end)
                         : draw((v->end - v->start) / PAGE + 1) * PAGE;
    }
    blockmap_init(&w->map, &w->res);
}

static bool any_owned(const struct world *w, uint64_t lo, uint64_t hi)
{
    for (uint64_t i = lo; i < hi; i++)
        if (w->owned[i])
            return true;
    return false;
}

static bool touches_mapping(const struct world *w, uint64_t start, uint64_t end)
{
    for (size_t i = 0; i < w->n_vmas; i++)
        if (start < w->vmas[i].end && end > w->vmas[i].start)
            return true;
    return false;
}

/* A tally that explains some of the bytes, in up to four portions. */
static void random_tally(uint64_t bytes, uint64_t resident, struct tally *t)
{
    memset(t, 0, sizeof *t);
    for (int i = 0; i < 4; i++) {
        uint64_t cat = draw(CAT_COUNT), b = draw(bytes + 1), r = draw(resident + 1);
        if (i == 3 && draw(2)) { /* all of it */
            b = bytes;
            r = resident;
        }
        t->bytes[cat] += b;
        t->resident[cat] += r;
        t->count[cat] += draw(5);
        bytes -= b;
        resident -= r;
    }
}

/* One random claim; false if the ledger's answer is not the granules'. */
static bool random_claim(struct world *w)
{
    uint64_t lo = draw(GRAINS), hi = min_u64(lo + 1 + draw(draw(4) ? 500 : 4000), GRAINS);
    uint64_t start = BASE + lo * GRAIN, end = BASE + hi * GRAIN;
    bool taken = any_owned(w, lo, hi);
    struct tally t;
    random_tally(end - start, residency_bytes(&w->res, start, end), &t);
    if (blockmap_overlaps(&w->map, start, end) != taken)
        return false;
    int rc = blockmap_claim(&w->map, start, end, &t, "random", NULL);
    if (rc != (taken ? ERR_CORRUPT : 0))
        return false;
    if (taken)
        return true;
    memset(w->owned + lo, 1, hi - lo);
    for (int i = 0; i < CAT_COUNT && touches_mapping(w, start, end); i++)
        w->counts += t.count[i];
    return true;
}

static bool questions_fit(const struct world *w)
{
    for (int i = 0; i < 20; i++) {
        uint64_t at = draw(GRAINS), end = at + draw(GRAINS - at), lo, hi, want = at;
        if ((blockmap_at(&w->map, BASE + at * GRAIN) != NULL) != w->owned[at])
            return false;
        while (want < end && w->owned[want])
            want++;
        bool gap = blockmap_gap(&w->map, BASE + at * GRAIN, BASE + end * GRAIN, &lo, &hi);
        if (gap != (want < end))
            return false;
        uint64_t stop = want;
        while (stop < end && !w->owned[stop])
            stop++;
        if (gap && (lo != BASE + want * GRAIN || hi != BASE + stop * GRAIN))
            return false;
    }
    return true;
}

/* Unclaimed bytes of a mapping. */
static uint64_t unowned(const struct world *w, const struct vma *v)
{
    uint64_t n = 0;
    for (uint64_t i = (v->start - BASE) / GRAIN; i < (v->end - BASE) / GRAIN; i++)
        n += !w->owned[i];
    return n * GRAIN;
}

static bool sums_fit(const struct world *w)
{
    struct settled s;
    uint64_t mapped = 0, rss = 0, gaps = 0, counts = 0;
    settle(&s, &w->map, w->vmas, w->n_vmas, as_unknown, &gaps);
    bool right = s.rc == 0 && s.snap.n_mappings == w->n_vmas;
    for (size_t i = 0; right && i < w->n_vmas; i++) {
        const struct snapshot_mapping *m = &s.snap.mappings[i];
        const struct vma *v = &w->vmas[i];
        right = m->size == v->end - v->start && tally_bytes(&m->tally) == m->size &&
                m->resident_bytes == v->rss && tally_resident(&m->tally) == v->rss &&
                m->tally.bytes[CAT_UNKNOWN] >= unowned(w, v);
        mapped += m->size;
        rss += v->rss;
    }
    for (int i = 0; i < CAT_COUNT; i++)
        counts += s.snap.memory.tally.count[i];
    right = right && s.snap.memory.mapped_bytes == mapped && s.snap.memory.rss_bytes == rss &&
            tally_bytes(&s.snap.memory.tally) == mapped &&
            tally_resident(&s.snap.memory.tally) == rss && counts == w->counts + gaps;
    snapshot_release(&s.snap);
    return right;
}

static void test_random(void)
{
    static struct world w;
    unsigned claims = 0, questions = 0, sums = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        random_world(&w, round);
        for (uint64_t n = draw(24); n; n--)
            claims += !random_claim(&w);
        questions += !questions_fit(&w);
        sums += !sums_fit(&w);
        blockmap_release(&w.map);
        residency_release(&w.res);
    }
    ok(claims == 0, "%d random ledgers: each claim as it must", ROUNDS);
    ok(questions == 0, "%d random ledgers: extents and gaps", ROUNDS);
    ok(sums == 0, "%d random ledgers: bytes are the mappings', resident is Rss", ROUNDS);
}

int main(void)
{
    srand(20240229);
    test_claims();
    test_rss();
    test_crossing();
    test_random();
    return done_testing();
}
