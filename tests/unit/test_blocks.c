/* The table of blocks against a plain model of it: sorting, dropping, looking up, running out of
 * memory. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "tests/lib/tap.h"
#include "walker/blocks.h"

/* Weak: there only under the sanitizer, which then still finds leaks. */
#define WEAK __attribute__((weak))
void *__interceptor_malloc(size_t size) WEAK;
void *__interceptor_calloc(size_t n, size_t size) WEAK;
void *__interceptor_realloc(void *old, size_t size) WEAK;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
#define REAL(f) (__interceptor_##f ? __interceptor_##f : __libc_##f)

static unsigned long fail_at, calls; /* 0: never */

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

/* ---- the model: blocks of 16 bytes' grid in a small space, each cell names its block ---- */

enum { CELLS = 1 << 18, GRID = 16, BASE = 1 << 20, MOST = 20000 };

struct item {
    uint32_t at, len, n; /* cells; n > 0: a run of n blocks of len cells */
    bool twice;          /* a chunk that is taken back */
};

static uint32_t cell_start[CELLS]; /* the cell where the block in use starts, + 1 */
static uint32_t cell_kind[CELLS];  /* 0 nothing, 1 run, 2 chunk */
static struct item items[MOST];
static size_t n_items;
static uint8_t used[1024];

static uint64_t addr_of(uint32_t cell)
{
    return BASE + (uint64_t)cell * GRID;
}

static bool slot_used(uint32_t cell)
{
    return cell * 2654435761u >> 29 != 0; /* seven of eight */
}

static void fill_run(const struct item *it)
{
    for (uint32_t i = 0; i < it->n; i++)
        for (uint32_t k = 0; k < it->len; k++) {
            uint32_t start = it->at + i * it->len;
            cell_kind[start + k] = 1;
            cell_start[start + k] = slot_used(start) ? start + 1 : 0;
        }
}

static void fill_chunk(const struct item *it)
{
    for (uint32_t k = 0; k < it->len && !it->twice; k++) {
        cell_kind[it->at + k] = 2;
        cell_start[it->at + k] = it->at + 1;
    }
}

/* Disjoint items in random order, as `density` of 8 cells filled. */
static void make_items(size_t want, unsigned density, bool runs)
{
    uint32_t at = 0;
    n_items = 0;
    memset(cell_start, 0, sizeof cell_start);
    memset(cell_kind, 0, sizeof cell_kind);
    while (n_items < want) {
        struct item it = {.at = at, .len = 1 + (uint32_t)random() % 5};
        if (runs && random() % 4 == 0)
            it.n = 1 + (uint32_t)random() % 60;
        it.twice = !it.n && random() % 16 == 0;
        uint32_t cells = it.len * (it.n ? it.n : 1);
        if (at + cells >= CELLS)
            break;
        at += cells;
        if ((unsigned)random() % 8 >= density)
            continue;
        if (it.n)
            fill_run(&it);
        else
            fill_chunk(&it);
        items[n_items++] = it;
    }
}

static void shuffle(size_t stretches)
{
    /* Sorted stretches one behind the other, as the walkers deliver; 0: no order at all. */
    static struct item copy[MOST];
    memcpy(copy, items, sizeof copy);
    size_t to = 0;
    for (size_t s = 0; s < stretches; s++)
        for (size_t i = s; i < n_items; i += stretches)
            items[to++] = copy[i];
    for (size_t i = n_items; !stretches && i > 1; i--) {
        size_t k = (size_t)random() % i;
        struct item t = items[k];
        items[k] = items[i - 1];
        items[i - 1] = t;
    }
}

static int add_item(struct blocks *b, const struct item *it, struct err *err)
{
    if (!it->n)
        return blocks_add_chunk(b, addr_of(it->at), it->len * GRID, err);
    for (uint32_t i = 0; i < it->n; i++)
        used[i] = slot_used(it->at + i * it->len);
    return blocks_add_run(b, addr_of(it->at), it->len * GRID, it->n, used, err);
}

static int fill(struct blocks *b, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < n_items && rc == 0; i++)
        rc = add_item(b, &items[i], err);
    for (size_t i = 0; i < n_items && rc == 0; i++)
        if (items[i].twice)
            rc = blocks_add_chunk(b, addr_of(items[i].at), 0, err);
    return rc == 0 ? blocks_sort(b, true, err) : rc;
}

/* Every address of the model, its neighbours and what lies outside. */
static size_t wrong_finds(const struct blocks *b)
{
    size_t wrong = 0;
    uint64_t start;
    for (uint32_t c = 0; c < CELLS; c++) {
        size_t slot = blocks_find(b, addr_of(c) + c % GRID, &start);
        if (!cell_start[c]) {
            wrong += slot != SIZE_MAX;
            continue;
        }
        struct block_place place = {0};
        if (slot < b->n)
            blocks_place(b, slot, &place);
        wrong += slot >= b->n || start != addr_of(cell_start[c] - 1) || place.addr != start ||
                 place.chunk != (cell_kind[c] == 2) || start + place.size <= addr_of(c) ||
                 block_kind(b, slot) != BLOCK_UNOWNED || block_type(b, slot) != BLOCK_NO_TYPE ||
                 b->owners[slot] != 0;
    }
    wrong += blocks_find(b, 0, &start) != SIZE_MAX;
    wrong += blocks_find(b, UINT64_MAX, &start) != SIZE_MAX;
    return wrong;
}

static size_t in_use(const struct blocks *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->n; i++)
        n += block_kind(b, i) != BLOCK_FREE;
    return n;
}

static size_t want_in_use(void)
{
    size_t n = 0;
    for (uint32_t c = 0; c < CELLS; c++)
        n += cell_start[c] == c + 1;
    return n;
}

static void test_model(size_t n, unsigned density, bool runs, size_t stretches)
{
    struct blocks b;
    struct err err = ERR_INIT;
    make_items(n, density, runs);
    shuffle(stretches);
    blocks_init(&b);
    int rc = fill(&b, &err);
    size_t wrong = rc == 0 ? wrong_finds(&b) : CELLS;
    ok(wrong == 0 && in_use(&b) == want_in_use(),
       "%zu items, %zu stretches%s: %zu blocks in use of %zu slots, %zu wrong finds", n_items,
       stretches, runs ? ", runs" : "", in_use(&b), b.n, wrong);
    blocks_release(&b);
}

/* ---- what cannot be ---- */

static bool found(const struct blocks *b, uint64_t addr, uint64_t want)
{
    uint64_t start = 0;
    size_t slot = blocks_find(b, addr, &start);
    return want ? slot != SIZE_MAX && start == want : slot == SIZE_MAX;
}

static void test_overlaps(void)
{
    static const uint8_t all[4] = {1, 1, 1, 1}, some[4] = {1, 0, 0, 1};
    struct blocks b;
    blocks_init(&b);
    int rc = blocks_add_run(&b, 0x9000, 32, 4, all, NULL);
    rc |= blocks_add_run(&b, 0x5000, 16, 4, some, NULL);
    rc |= blocks_add_run(&b, 0x5030, 48, 4, all, NULL); /* overlaps the one before */
    rc |= blocks_add_run(&b, UINT64_MAX - 16, 16, 4, all, NULL);
    rc |= blocks_add_run(&b, 0x100, 0, 4, all, NULL);
    rc |= blocks_add_chunk(&b, 0x8f00, 0x400, NULL); /* holds a run */
    rc |= blocks_add_chunk(&b, 0x4ff0, 0x10, NULL);  /* ends where one starts */
    rc |= blocks_add_chunk(&b, 0x9080, 0x10, NULL);  /* starts where one ends */
    rc |= blocks_add_chunk(&b, 0x9070, 0x20, NULL);  /* starts within one */
    rc |= blocks_add_chunk(&b, 0x9084, 0x40, NULL);  /* within the chunk before it */
    rc |= blocks_add_chunk(&b, UINT64_MAX - 8, 16, NULL);
    rc |= blocks_add_chunk(&b, 0x7777, 0, NULL); /* taken back, never there */
    rc |= blocks_sort(&b, false, NULL);
    ok(rc == 0 && b.n_runs == 2 && b.n_chunks == 2 && b.n == 10 && !b.owners,
       "overlaps are dropped: %zu runs, %zu chunks, %zu slots", b.n_runs, b.n_chunks, b.n);
    ok(found(&b, 0x5000, 0x5000) && found(&b, 0x5010, 0) && found(&b, 0x503f, 0x5030) &&
           found(&b, 0x5040, 0) && found(&b, 0x907f, 0x9060) && found(&b, 0x9080, 0x9080) &&
           found(&b, 0x908f, 0x9080) && found(&b, 0x9090, 0) && found(&b, 0x4fff, 0x4ff0) &&
           found(&b, 0x8fff, 0) && found(&b, 0x7777, 0),
       "and what is left is found");
    size_t slot = blocks_find(&b, 0x9060, &(uint64_t){0});
    block_set(&b, slot, BLOCK_OBJECT, 77);
    ok(block_kind(&b, slot) == BLOCK_OBJECT && block_type(&b, slot) == 77 &&
           block_kind(&b, slot - 1) == BLOCK_UNOWNED,
       "kind and type of a slot");
    blocks_release(&b);
}

static void test_empty(void)
{
    struct blocks b;
    uint64_t start;
    blocks_init(&b);
    ok(blocks_sort(&b, true, NULL) == 0 && b.n == 0 && blocks_find(&b, 1, &start) == SIZE_MAX,
       "an empty table");
    blocks_release(&b);
    bool all = true;
    for (int k = 0; k < BLOCK_KINDS; k++)
        all = all && block_kind_name((enum block_kind)k)[0];
    ok(all && strcmp(block_kind_name(BLOCK_RUNTIME), "runtime") == 0, "all kinds have names");
}

/* 2^32 slots would not fit their numbers. */
static void test_limit(void)
{
    struct blocks b;
    struct err err = ERR_INIT;
    blocks_init(&b);
    b.n = UINT32_MAX - 4;
    static const uint8_t all[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    int rc = blocks_add_run(&b, 0x1000, 16, 8, all, &err);
    ok(rc == ERR_LIMIT && err.text[0] && b.n_runs == 0, "too many slots: %s", err.text);
    b.n = 0;
    blocks_release(&b);
}

static void test_memory(void)
{
    unsigned long i = 0, refused = 0, wrong = 0;
    make_items(400, 7, true);
    shuffle(0);
    for (bool clean = false; !clean && i < 10000;) {
        struct blocks b;
        struct err err = ERR_INIT;
        blocks_init(&b);
        calls = 0;
        fail_at = ++i;
        int rc = fill(&b, &err);
        fail_at = 0;
        clean = calls < i;
        refused += rc == ERR_NOMEM && err.code == rc;
        /* qsort can do without its buffer. */
        wrong += rc == 0 ? wrong_finds(&b) != 0 : clean || rc != ERR_NOMEM;
        blocks_release(&b);
    }
    ok(wrong == 0 && refused + 2 > i - 1 && refused > 10, "%lu allocations failed once each",
       refused);
}

/* The budget: 24 bytes a block, whatever it is. */
static void test_budget(void)
{
    struct blocks b;
    int rc = 0;
    blocks_init(&b);
    for (uint64_t i = 0; i < 300000 && rc == 0; i++)
        rc = blocks_add_chunk(&b, 0x10000 + i * 64, 48, NULL);
    rc = rc == 0 ? blocks_sort(&b, true, NULL) : rc;
    double bytes = 16.0 * (double)b.n_chunks + 8.0 * (double)b.n +
                   8.0 * (double)b.by_chunk.at[b.by_chunk.levels];
    ok(rc == 0 && bytes / (double)b.n < 24.6 && b.cap <= b.n + 1, "%.2f bytes a chunk",
       bytes / (double)b.n);
    blocks_release(&b);
}

int main(void)
{
    srandom(4711);
    test_empty();
    test_overlaps();
    test_limit();
    const size_t counts[] = {1, 2, 15, 16, 17, 255, 256, 257, 5000, MOST};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        test_model(counts[i], 8, false, 1);
        test_model(counts[i], 6, true, 0);
        test_model(counts[i], 3, true, 3);
        test_model(counts[i], 6, false, 7);
    }
    test_memory();
    test_budget();
    return done_testing();
}
