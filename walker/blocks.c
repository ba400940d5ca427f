/* The table of blocks: filled by the heaps' walkers in nearly sorted order, then searched. */
#include "walker/blocks.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"

enum { KIND_SHIFT = 28, FANOUT = 16 };

const char *block_kind_name(enum block_kind kind)
{
    static const char *const names[BLOCK_KINDS] = {"free",     "unowned", "object", "buffer",
                                                   "inferred", "dead",    "runtime"};
    return names[kind];
}

void blocks_init(struct blocks *b)
{
    memset(b, 0, sizeof *b);
}

void blocks_release(struct blocks *b)
{
    free(b->runs);
    free(b->chunks);
    free(b->what);
    free(b->owners);
    free(b->sites);
    free(b->by_run.keys);
    free(b->by_chunk.keys);
    free(b->map);
    memset(b, 0, sizeof *b);
}

static int no_memory(size_t n, struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for the table of %zu blocks", n);
}

/* Owners are numbered from 1 in 32 bits. */
static int check_slots(size_t n, size_t more, struct err *err)
{
    if (more >= UINT32_MAX - n)
        return err_set(err, ERR_LIMIT, "more than %u blocks", UINT32_MAX);
    return 0;
}

int blocks_add_run(struct blocks *b, uint64_t addr, uint32_t size, uint32_t n, const uint8_t *used,
                   struct err *err)
{
    uint64_t end;
    if (n == 0 || size == 0 || add_overflows(addr, (uint64_t)size * n, &end))
        return 0;
    int rc = check_slots(b->n, n, err);
    if (rc < 0)
        return rc;
    if (vec_reserve(&b->runs, &b->cap_runs, b->n_runs + 1, sizeof *b->runs) < 0 ||
        vec_reserve(&b->what, &b->cap, b->n + n, sizeof *b->what) < 0)
        return no_memory(b->n + n, err);
    b->runs[b->n_runs++] = (struct block_run){addr, (uint32_t)b->n, n, size};
    uint32_t *what = b->what + b->n;
    const uint32_t in_use = (uint32_t)BLOCK_UNOWNED << KIND_SHIFT | BLOCK_NO_TYPE;
    for (uint32_t i = 0; i < n; i++)
        what[i] = used[i] ? in_use : BLOCK_NO_TYPE;
    b->n += n;
    return 0;
}

int blocks_add_chunk(struct blocks *b, uint64_t addr, uint64_t size, struct err *err)
{
    int rc = check_slots(b->n_chunks, 1, err);
    if (rc < 0)
        return rc;
    if (vec_reserve(&b->chunks, &b->cap_chunks, b->n_chunks + 1, sizeof *b->chunks) < 0)
        return no_memory(b->n_chunks + 1, err);
    b->chunks[b->n_chunks++] = (struct block_chunk){addr, size};
    return 0;
}

/* ---- sorting chunks: they come as a few sorted stretches, one behind the other ---- */

/* The first of [lo, hi) whose address is above (or, with `equal`, not below) addr. */
static size_t chunk_bound(const struct block_chunk *c, size_t lo, size_t hi, uint64_t addr,
                          bool equal)
{
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (c[mid].addr < addr || (!equal && c[mid].addr == addr))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Merge [lo, mid) and [mid, hi); of equals the left ones come first. Only what is out of place is
 * moved, and the shorter side goes through a buffer. */
static int chunks_merge(struct block_chunk *c, size_t lo, size_t mid, size_t hi)
{
    lo = chunk_bound(c, lo, mid, c[mid].addr, false);
    if (lo == mid)
        return 0;
    hi = chunk_bound(c, mid, hi, c[mid - 1].addr, true);
    bool left = mid - lo <= hi - mid;
    size_t n = left ? mid - lo : hi - mid;
    struct block_chunk *side = malloc(n * sizeof *side);
    if (!side)
        return ERR_NOMEM;
    memcpy(side, left ? c + lo : c + mid, n * sizeof *side);
    if (left) {
        for (size_t i = 0, r = mid, to = lo; i < n; to++)
            c[to] = r < hi && c[r].addr < side[i].addr ? c[r++] : side[i++];
    } else {
        for (size_t i = n, l = mid, to = hi; i > 0;) {
            to--;
            c[to] = l > lo && c[l - 1].addr > side[i - 1].addr ? c[--l] : side[--i];
        }
    }
    free(side);
    return 0;
}

/* Where each sorted stretch starts, and n behind the last. */
static int stretches(const struct blocks *b, size_t **ret, size_t *n)
{
    size_t *starts = NULL, cap = 0, count = 0;
    for (size_t i = 0; i <= b->n_chunks; i++) {
        if (i > 0 && i < b->n_chunks && b->chunks[i - 1].addr <= b->chunks[i].addr)
            continue;
        if (vec_reserve(&starts, &cap, count + 1, sizeof *starts) < 0) {
            free(starts);
            return ERR_NOMEM;
        }
        starts[count++] = i;
    }
    *ret = starts;
    *n = count;
    return 0;
}

static int chunks_sort(struct blocks *b)
{
    size_t *starts, n;
    int rc = b->n_chunks ? stretches(b, &starts, &n) : 0;
    if (rc < 0 || !b->n_chunks)
        return rc;
    while (rc == 0 && n > 2) { /* the last one is the end */
        size_t kept = 0;
        for (size_t i = 0; i + 1 < n; i += 2) {
            if (rc == 0 && i + 2 < n)
                rc = chunks_merge(b->chunks, starts[i], starts[i + 1], starts[i + 2]);
            starts[kept++] = starts[i];
        }
        starts[kept++] = b->n_chunks;
        n = kept;
    }
    free(starts);
    return rc;
}

/* ---- dropping what cannot be ---- */

static uint64_t run_end(const struct block_run *r)
{
    return r->addr + (uint64_t)r->size * r->n;
}

static int by_address(const void *a, const void *b)
{
    const struct block_run *x = a, *y = b;
    if (x->addr != y->addr)
        return x->addr < y->addr ? -1 : 1;
    return x->first < y->first ? -1 : x->first > y->first;
}

/* Their slots in the order of the runs, without gaps. */
static int slots_reorder(struct blocks *b, size_t n)
{
    uint32_t *what = malloc((n + 1) * sizeof *what), *to = what;
    if (!what)
        return ERR_NOMEM;
    for (size_t i = 0; i < b->n_runs; i++) {
        struct block_run *r = &b->runs[i];
        memcpy(to, b->what + r->first, r->n * sizeof *to);
        r->first = (uint32_t)(to - what);
        to += r->n;
    }
    free(b->what);
    b->what = what;
    b->cap = n + 1;
    b->n = n;
    return 0;
}

static int runs_sort(struct blocks *b)
{
    size_t kept = 0, slots = 0;
    bool sorted = true;
    for (size_t i = 1; i < b->n_runs && sorted; i++)
        sorted = b->runs[i - 1].addr <= b->runs[i].addr;
    if (!sorted)
        qsort(b->runs, b->n_runs, sizeof *b->runs, by_address);
    for (size_t i = 0; i < b->n_runs; i++) {
        if (kept && b->runs[i].addr < run_end(&b->runs[kept - 1]))
            continue;
        b->runs[kept++] = b->runs[i];
        slots += b->runs[i].n;
    }
    b->n_runs = kept;
    return sorted && slots == b->n ? 0 : slots_reorder(b, slots);
}

/* Drop what was taken back, what overlaps the chunk before it, and what holds a run. */
static void chunks_clean(struct blocks *b)
{
    size_t kept = 0, run = 0;
    uint64_t end = 0;
    for (size_t i = 0; i < b->n_chunks; i++) {
        struct block_chunk c = b->chunks[i];
        uint64_t stop;
        bool back =
            i + 1 < b->n_chunks && b->chunks[i + 1].addr == c.addr && b->chunks[i + 1].size == 0;
        if (c.size == 0 || back || c.addr < end || add_overflows(c.addr, c.size, &stop))
            continue;
        while (run < b->n_runs && run_end(&b->runs[run]) <= c.addr)
            run++;
        if (run < b->n_runs && b->runs[run].addr < stop)
            continue;
        b->chunks[kept++] = c;
        end = stop;
    }
    b->n_chunks = kept;
}

/* ---- looking up ---- */

/* Both arrays start their items with the address. */
static uint64_t key_at(const void *items, size_t stride, size_t i)
{
    return load_u64((const char *)items + i * stride);
}

static int index_build(struct block_index *x, const void *items, size_t stride, size_t n)
{
    size_t total = 0, level = n;
    while (level > FANOUT) {
        level = (level + FANOUT - 1) / FANOUT;
        total += level;
    }
    if (total && !(x->keys = malloc(total * sizeof *x->keys)))
        return ERR_NOMEM;
    size_t at = 0, below = n;
    while (below > FANOUT) {
        size_t from = x->levels ? x->at[x->levels - 1] : 0, here = at;
        for (size_t i = 0; i < below; i += FANOUT)
            x->keys[at++] = x->levels ? x->keys[from + i] : key_at(items, stride, i);
        x->at[x->levels++] = here;
        below = at - here;
    }
    x->at[x->levels] = at;
    return 0;
}

/* The last of the items whose address is at or below addr; SIZE_MAX if there is none. */
static size_t index_seek(const struct block_index *x, const void *items, size_t stride, size_t n,
                         uint64_t addr)
{
    size_t i = 0;
    for (unsigned level = x->levels; level-- > 0;) {
        size_t len = min_u64(x->at[level + 1] - x->at[level] - i, FANOUT);
        const uint64_t *keys = x->keys + x->at[level] + i;
        size_t below = 0;
        for (size_t k = 0; k < len; k++)
            below += keys[k] <= addr;
        if (below == 0)
            return SIZE_MAX;
        i = (i + below - 1) * FANOUT;
    }
    size_t len = min_u64(n - i, FANOUT), below = 0;
    for (size_t k = 0; k < len; k++)
        below += key_at(items, stride, i + k) <= addr;
    return below ? i + below - 1 : SIZE_MAX;
}

static size_t run_slots(const struct blocks *b)
{
    return b->n - b->n_chunks;
}

/* Every run lies in a piece of its own. */
static bool runs_fit(const struct blocks *b, unsigned shift)
{
    for (size_t i = 0; i < b->n_runs; i++) {
        uint64_t first = b->runs[i].addr >> shift;
        if ((run_end(&b->runs[i]) - 1) >> shift != first ||
            (i && (run_end(&b->runs[i - 1]) - 1) >> shift == first))
            return false;
    }
    return b->n_runs > 0;
}

/* 4 bytes for each piece from the first run to the last, if enough of them are runs. Without it the
 * index serves, so that nothing fails for want of memory. */
static void map_build(struct blocks *b)
{
    enum { SMALL_POOL = 12, LARGE_POOL = 14, SPARSE = 64, SLACK = 1 << 20 };
    unsigned shift = runs_fit(b, LARGE_POOL)   ? LARGE_POOL
                     : runs_fit(b, SMALL_POOL) ? SMALL_POOL
                                               : 0;
    if (!shift)
        return;
    uint64_t base = b->runs[0].addr >> shift << shift;
    uint64_t n = ((run_end(&b->runs[b->n_runs - 1]) - 1 - base) >> shift) + 1;
    if (n > SLACK && n / SPARSE > b->n_runs)
        return;
    b->map = calloc(n, sizeof *b->map);
    if (!b->map)
        return;
    b->map_base = base;
    b->map_shift = shift;
    b->map_n = n;
    for (size_t i = 0; i < b->n_runs; i++)
        b->map[(b->runs[i].addr - base) >> shift] = (uint32_t)i + 1;
}

int blocks_sort(struct blocks *b, bool owners, struct err *err)
{
    if (runs_sort(b) < 0 || chunks_sort(b) < 0)
        return no_memory(b->n + b->n_chunks, err);
    chunks_clean(b);
    size_t n = b->n + b->n_chunks;
    int rc = check_slots(b->n, b->n_chunks, err);
    if (rc < 0)
        return rc;
    /* Exactly as much as there will be: doubling would cost more than the indices. */
    uint32_t *what = realloc(b->what, (n + 1) * sizeof *what);
    if (!what)
        return no_memory(n, err);
    b->what = what;
    b->cap = n + 1;
    for (; b->n < n; b->n++)
        block_set(b, b->n, BLOCK_UNOWNED, BLOCK_NO_TYPE);
    if (owners && !(b->owners = calloc(n + 1, sizeof *b->owners)))
        return no_memory(n, err);
    if (index_build(&b->by_run, b->runs, sizeof *b->runs, b->n_runs) < 0 ||
        index_build(&b->by_chunk, b->chunks, sizeof *b->chunks, b->n_chunks) < 0)
        return no_memory(n, err);
    map_build(b);
    return 0;
}

void blocks_place(const struct blocks *b, size_t slot, struct block_place *ret)
{
    if (slot >= run_slots(b)) {
        const struct block_chunk *c = &b->chunks[slot - run_slots(b)];
        *ret = (struct block_place){c->addr, c->size, true};
        return;
    }
    size_t lo = 0;
    for (size_t hi = b->n_runs; hi - lo > 1;) {
        size_t mid = lo + (hi - lo) / 2;
        if (b->runs[mid].first <= slot)
            lo = mid;
        else
            hi = mid;
    }
    const struct block_run *r = &b->runs[lo];
    *ret = (struct block_place){r->addr + (slot - r->first) * r->size, r->size, false};
}

/* The run that may hold addr, or NULL. */
static const struct block_run *run_at(const struct blocks *b, uint64_t addr)
{
    if (b->map) {
        uint64_t piece = (addr - b->map_base) >> b->map_shift;
        uint32_t i = addr >= b->map_base && piece < b->map_n ? b->map[piece] : 0;
        const struct block_run *r = i ? &b->runs[i - 1] : NULL;
        return r && addr >= r->addr && addr < run_end(r) ? r : NULL;
    }
    size_t i = index_seek(&b->by_run, b->runs, sizeof *b->runs, b->n_runs, addr);
    return i != SIZE_MAX && addr < run_end(&b->runs[i]) ? &b->runs[i] : NULL;
}

bool blocks_small_at(const struct blocks *b, uint64_t addr, uint32_t size)
{
    const struct block_run *r = b->map ? run_at(b, addr) : NULL;
    return r && r->size <= size;
}

bool blocks_at(const struct blocks *b, uint64_t addr, struct block_hit *ret)
{
    const struct block_run *r = run_at(b, addr);
    if (r) {
        uint64_t k = (addr - r->addr) / r->size;
        *ret = (struct block_hit){r->first + k, {r->addr + k * r->size, r->size, false}};
        return block_kind(b, ret->slot) != BLOCK_FREE;
    }
    size_t i = index_seek(&b->by_chunk, b->chunks, sizeof *b->chunks, b->n_chunks, addr);
    if (i == SIZE_MAX || addr - b->chunks[i].addr >= b->chunks[i].size)
        return false;
    *ret = (struct block_hit){run_slots(b) + i, {b->chunks[i].addr, b->chunks[i].size, true}};
    return true;
}

size_t blocks_find(const struct blocks *b, uint64_t addr, uint64_t *start)
{
    struct block_hit hit;
    if (!blocks_at(b, addr, &hit))
        return SIZE_MAX;
    *start = hit.place.addr;
    return hit.slot;
}
