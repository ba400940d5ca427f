/* The census of pymalloc: arenas, pools, size classes; one ledger extent for each arena. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/cpython.h"

static const char ARENA_NAME[] = "pymalloc arena";

struct arena_walk {
    const struct cpython_input *in;
    struct cpython *py;
    struct blockmap *map;
    struct snapshot *snap;
    struct notes *notes;
    uint32_t heap;
    uint64_t off_by_one; /* pools whose list and count differ by one block */
    /* Partial sources: entries of an arenas array are missing, so pools are looked for as well. */
    bool gaps;
    uint64_t unread, unread_bytes; /* pools whose header is missing */
    size_t sampled, marked;        /* pools found by headers: with the debug hooks' marks */
    bool no_memory;
};

static bool read_pool(const struct arena_walk *w, uint64_t pool, struct pool_header *h)
{
    uint8_t bytes[POOL_HEADER_BYTES];
    size_t len = 0;
    const struct mem_ops *ops = w->in->mem->ops;
    const uint8_t *p = ops->direct ? ops->direct(w->in->mem, pool, &len) : NULL;
    if (!p || len < sizeof bytes) {
        if (mem_read_some(w->in->mem, pool, bytes, sizeof bytes) < sizeof bytes)
            return false;
        p = bytes;
    }
    pool_header_load(&w->py->layout, p, h);
    return true;
}

static void note_pool(struct arena_walk *w, uint64_t pool, const struct pool_sum *s)
{
    if (s->freelist_off)
        w->off_by_one++;
    if (s->freelist_bad)
        note_add(w->notes, "pymalloc.freelist", pool, w->py->traits->pool_size,
                 "the free list of a pool and its count of %" PRIu64 " used blocks disagree",
                 s->used);
}

/* ERR_NOMEM is kept for the end of the walk. */
static void remember_pool(struct arena_walk *w, uint64_t pool)
{
    struct cpython *py = w->py;
    if (w->no_memory || vec_reserve(&py->pools, &py->cap_pools, py->n_pools + 1, 8) < 0)
        w->no_memory = true;
    else
        py->pools[py->n_pools++] = pool;
}

/* Count one carved pool into the class totals, the arena and the tally. */
static void add_pool(struct arena_walk *w, uint64_t pool, struct snapshot_arena *arena,
                     struct tally *t)
{
    struct snapshot_pymalloc *pm = &w->snap->pymalloc;
    uint64_t pool_size = w->py->traits->pool_size;
    struct pool_header h;
    if (!read_pool(w, pool, &h)) {
        w->unread++;
        w->unread_bytes += pool_size;
        if (!w->in->partial)
            note_add(w->notes, "pymalloc.unreadable", pool, pool_size,
                     "the header of a pool is not in memory");
        t->bytes[CAT_UNKNOWN] += pool_size;
        t->resident[CAT_UNKNOWN] += residency_bytes(w->in->res, pool, pool + pool_size);
        return;
    }
    if (h.count == 0) { /* a free pool: what else its header says is stale */
        pm->pools_free++;
        arena->pools_free++;
        t->bytes[CAT_PYTHON_BLOCKS_FREE] += pool_size;
        t->resident[CAT_PYTHON_BLOCKS_FREE] += residency_bytes(w->in->res, pool, pool + pool_size);
        return;
    }
    if (!pool_plausible(w->py, pool, &h, false)) {
        note_add(w->notes, "pymalloc.damaged", pool, pool_size,
                 "the header of a pool is damaged (count %" PRIu64 ", class %" PRIu64
                 ", next offset %" PRIu64 ")",
                 h.count, h.szidx, h.nextoffset);
        t->bytes[CAT_UNKNOWN] += pool_size;
        t->resident[CAT_UNKNOWN] += residency_bytes(w->in->res, pool, pool + pool_size);
        return;
    }
    struct pool_sum s;
    pool_split(w->in, w->py, pool, &h, &s);
    note_pool(w, pool, &s);
    remember_pool(w, pool);
    struct snapshot_size_class *c = &pm->classes[h.szidx];
    c->pools++;
    c->blocks_used += s.used;
    c->blocks_free += s.free;
    pm->pools_used++;
    arena->blocks_used += s.used;
    arena->bytes_used += s.used_bytes;
    t->bytes[CAT_PYTHON_BLOCKS_USED] += s.used_bytes;
    t->bytes[CAT_PYTHON_BLOCKS_FREE] += s.free_bytes;
    t->resident[CAT_PYTHON_BLOCKS_USED] += s.used_resident;
    t->resident[CAT_PYTHON_BLOCKS_FREE] += s.free_resident;
    t->count[CAT_PYTHON_BLOCKS_USED] += s.used;
    t->count[CAT_PYTHON_BLOCKS_FREE] += s.free;
}

/* The pools of an arena: [first, pool_address) are carved, from there on never touched. */
static void add_pools(struct arena_walk *w, const struct arena_object *a,
                      struct snapshot_arena *arena, struct tally *t)
{
    uint64_t pool_size = w->py->traits->pool_size;
    uint64_t first = round_up(a->address, pool_size);
    uint64_t end = first + a->ntotalpools * pool_size;
    uint64_t unread = w->unread;
    for (uint64_t pool = first; pool < a->pool_address && pool < end; pool += pool_size)
        add_pool(w, pool, arena, t);
    uint64_t virgin = end > a->pool_address ? end - a->pool_address : 0;
    w->snap->pymalloc.pools_free += virgin / pool_size;
    arena->pools_free += virgin / pool_size;
    t->bytes[CAT_PYTHON_BLOCKS_FREE] += virgin;
    t->resident[CAT_PYTHON_BLOCKS_FREE] +=
        residency_bytes(w->in->res, a->pool_address, a->pool_address + virgin);
    if (arena->pools_free != a->nfreepools && (!w->in->partial || w->unread == unread))
        note_remark(w->notes, "pymalloc.freepools", a->address, 0,
                    "an arena counts %" PRIu64 " free pools and has %" PRIu64, a->nfreepools,
                    arena->pools_free);
}

/* What blocks and pools do not explain of an arena is overhead. */
static void add_overhead(const struct arena_walk *w, uint64_t start, uint64_t size, struct tally *t)
{
    uint64_t bytes = tally_bytes(t), resident = tally_resident(t);
    uint64_t all = residency_bytes(w->in->res, start, start + size);
    if (bytes < size)
        t->bytes[CAT_PYTHON_ARENAS_OVERHEAD] += size - bytes;
    if (resident < all)
        t->resident[CAT_PYTHON_ARENAS_OVERHEAD] += all - resident;
    t->count[CAT_PYTHON_ARENAS_OVERHEAD]++;
}

static uint64_t arena_bytes(const struct cpython *py, const struct arena_object *a)
{
    uint64_t size = py->traits->arena_size;
    return a->ntotalpools > size / py->traits->pool_size ? size * 2 : size;
}

/* ERR_NOMEM only: a damaged arena is a note. */
static int add_arena(struct arena_walk *w, const struct arena_object *a, struct err *err)
{
    uint64_t size = arena_bytes(w->py, a);
    struct err why = ERR_INIT;
    struct tally t = {0};
    /* Stopped on the way out of munmap: the arena has gone, its entry is cleared next. */
    if (a->nfreepools == a->ntotalpools && !vma_at(w->in->vmas, a->address))
        return 0;
    if (!arena_plausible(w->py, a) || !vma_writable_at(w->in->vmas, a->address)) {
        note_add(w->notes, "pymalloc.arena", a->address, 0,
                 "an entry of the arenas array is damaged; its pools are not counted");
        return 0;
    }
    if (blockmap_overlaps(w->map, a->address, a->address + size)) {
        note_add(w->notes, "pymalloc.arena", a->address, size,
                 "an arena overlaps memory that has an owner; it is not counted again");
        return 0;
    }
    struct snapshot_arena *arena = snapshot_add_arena(w->snap);
    if (!arena)
        return err_set(err, ERR_NOMEM, "no memory for the arenas");
    arena->address = a->address;
    arena->size = size;
    arena->pools_total = a->ntotalpools;
    arena->heap = w->heap;
    add_pools(w, a, arena, &t);
    add_overhead(w, a->address, size, &t);
    arena->resident_bytes = residency_bytes(w->in->res, a->address, a->address + size);
    w->snap->pymalloc.arenas++;
    w->snap->pymalloc.arena_size = max_u64(w->snap->pymalloc.arena_size, size);
    int rc = blockmap_claim(w->map, a->address, a->address + size, &t, ARENA_NAME, &why);
    if (rc == ERR_NOMEM)
        return err_set(err, ERR_NOMEM, "%s", why.text);
    if (rc < 0)
        note_add(w->notes, "pymalloc.arena", a->address, size, "%s", why.text);
    return 0;
}

/* The pools at both ends of each class's ring lie in arenas that were counted, or an entry of the
 * array is damaged. */
static void check_rings(struct arena_walk *w, const struct cpython_heap *heap)
{
    for (uint64_t i = 0; i < 2 * POOL_CLASSES; i++) {
        uint64_t pool, self = heap->usedpools + 16 * (i / 2) - 16;
        if (mem_u64(w->in->mem, heap->usedpools + 8 * i, &pool, NULL) < 0 || pool == self)
            continue;
        const struct extent *e = blockmap_at(w->map, pool);
        if (!e || strcmp(e->what, ARENA_NAME) != 0)
            note_add(w->notes, "pymalloc.pool", pool, w->py->traits->pool_size,
                     "a pool in use lies in no arena: it is not counted");
    }
}

static int walk_heap(struct arena_walk *w, const struct cpython_heap *heap, struct err *err)
{
    struct mem_window win;
    int rc = mem_window_init(&win, w->in->mem, 64 * 1024, err);
    if (rc < 0)
        return rc;
    uint64_t missing = 0;
    for (uint64_t i = 0; i < heap->maxarenas && rc == 0; i++) {
        struct arena_object a;
        const uint8_t *p =
            mem_window_at(&win, heap->arenas + i * ARENA_OBJECT_BYTES, ARENA_OBJECT_BYTES);
        if (!p) {
            missing++;
            continue;
        }
        arena_object_load(&w->py->layout, p, &a);
        if (a.address)
            rc = add_arena(w, &a, err);
    }
    /* The tail of a large array may never have been touched: those entries are unused. What was
     * swapped out cannot be told from it. */
    if (missing)
        note_remark(w->notes, "pymalloc.arenas", heap->arenas, missing * ARENA_OBJECT_BYTES,
                    "%" PRIu64 " of %" PRIu64 " entries of the arenas array are not in memory",
                    missing, heap->maxarenas);
    mem_window_release(&win);
    if (missing && w->in->partial)
        w->gaps = true;
    else if (rc == 0)
        check_rings(w, heap);
    return rc;
}

/* ---- the fall-back: pools by their headers, where no arenas array was found ---- */

static int claim_pool(struct arena_walk *w, uint64_t pool, struct err *err)
{
    struct snapshot_arena unused = {0};
    struct tally t = {0};
    add_pool(w, pool, &unused, &t);
    uint64_t size = w->py->traits->pool_size;
    add_overhead(w, pool, size, &t);
    return blockmap_claim(w->map, pool, pool + size, &t, "pymalloc pool", err);
}

/* Do the blocks carry the debug hooks' header? The first one's is told by its second word, which
 * freeing leaves. */
static void sample_marks(struct arena_walk *w, uint64_t pool, const struct pool_header *h)
{
    enum { MOST = 64, MARK_BYTES = 16 };
    uint8_t bytes[MARK_BYTES];
    if (!w->in->partial || w->sampled >= MOST || h->szidx == 0 ||
        mem_read_some(w->in->mem, pool + POOL_HEADER_BYTES, bytes, sizeof bytes) < sizeof bytes)
        return;
    w->sampled++;
    w->marked += debug_block(bytes);
}

/* The pool from which a scan goes on where p has no bytes: the one in front of the next that has
 * some. Reservations of terabytes are nearly empty. */
static uint64_t next_present(const struct arena_walk *w, uint64_t p, uint64_t end)
{
    const struct residency *res = w->in->res;
    uint64_t pool_size = w->py->traits->pool_size;
    if (res->unknown)
        return p;
    size_t i = residency_seek(res, p);
    uint64_t start = i < res->n ? min_u64(res->runs[i].start, end) : end;
    return start > p ? round_up(start, pool_size) - pool_size : p;
}

static int scan_pools(struct arena_walk *w, struct err *err)
{
    uint64_t pool_size = w->py->traits->pool_size;
    for (size_t i = 0; i < w->in->vmas->n; i++) {
        const struct vma *v = &w->in->vmas->items[i];
        if (!vma_is_heapish(v))
            continue;
        uint64_t p = round_up(v->start, pool_size);
        for (; p < v->end && v->end - p >= pool_size; p += pool_size) {
            struct pool_header h;
            if (!read_pool(w, p, &h)) {
                p = next_present(w, p, v->end);
                continue;
            }
            if (!pool_plausible(w->py, p, &h, false) ||
                blockmap_overlaps(w->map, p, p + pool_size) ||
                (w->in->partial && !pool_certain(w->in, w->py, p, &h)))
                continue;
            sample_marks(w, p, &h);
            int rc = claim_pool(w, p, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int walk_by_headers(struct arena_walk *w, struct err *err)
{
    uint64_t before = w->snap->pymalloc.pools_used;
    int rc = scan_pools(w, err);
    if (rc == 0 && w->in->partial && w->py->n_heaps && w->snap->pymalloc.pools_used == 0)
        note_add(w->notes, "pymalloc.headers", 0, 0, "no pool of Python's heap is in the core");
    if (rc == 0 && w->snap->pymalloc.pools_used > before)
        note_add(w->notes, "pymalloc.headers", 0, 0,
                 w->gaps ? "the arenas array is incomplete: the pools of other arenas were counted "
                           "by their headers; their free pools are not"
                         : "the arenas array was not found: pools were counted by their headers; "
                           "free pools and arenas are not");
    return rc;
}

static int by_address(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void sum_up(struct snapshot_pymalloc *pm)
{
    for (uint64_t i = 0; i < SIZE_CLASSES; i++) {
        struct snapshot_size_class *c = &pm->classes[i];
        c->size = (i + 1) * 16;
        pm->blocks_used += c->blocks_used;
        pm->blocks_free += c->blocks_free;
        pm->bytes_used += c->blocks_used * c->size;
        pm->bytes_free += c->blocks_free * c->size;
    }
    pm->present = pm->arenas || pm->pools_used;
}

static int walk_heaps(struct arena_walk *w, struct err *err)
{
    bool by_headers = w->py->n_heaps == 0 || w->py->lost_heaps;
    for (size_t i = 0; i < w->py->n_heaps; i++) {
        const struct cpython_heap *heap = &w->py->heaps[i];
        if (!heap->arenas || !heap->maxarenas) {
            by_headers = by_headers || !heap->empty;
            continue;
        }
        int rc = walk_heap(w, heap, err);
        if (rc < 0)
            return rc;
        w->heap++;
    }
    w->snap->pymalloc.heaps = w->heap;
    return (by_headers || w->gaps) && !w->py->free_threaded ? walk_by_headers(w, err) : 0;
}

int cpython_walk(const struct cpython_input *in, struct cpython *py, struct blockmap *map,
                 struct snapshot *snap, struct notes *notes, struct err *err)
{
    struct arena_walk w = {.in = in, .py = py, .map = map, .snap = snap, .notes = notes};
    snap->pymalloc.pool_size = py->traits->pool_size;
    snap->pymalloc.arena_size = 0;
    py->n_pools = py->n_segments = 0;
    int rc = walk_heaps(&w, err);
    if (rc == 0 && w.no_memory)
        rc = err_set(err, ERR_NOMEM, "no memory for %zu pools", py->n_pools + 1);
    if (rc < 0)
        return rc;
    if (py->n_pools)
        qsort(py->pools, py->n_pools, sizeof *py->pools, by_address);
    if (!snap->pymalloc.arena_size)
        snap->pymalloc.arena_size = py->traits->arena_size;
    sum_up(&snap->pymalloc);
    py->sampled_pools = w.sampled;
    py->marked_pools = w.marked;
    if (in->partial && w.unread)
        note_add(notes, "pymalloc.unreadable", 0, w.unread_bytes,
                 "the headers of %" PRIu64 " pools are not in the core: they are unknown",
                 w.unread);
    if (w.off_by_one)
        note_remark(notes, "pymalloc.moving", 0, 0,
                    "%" PRIu64
                    " pool%s stopped in the middle of an allocation: one block more or less",
                    w.off_by_one, w.off_by_one == 1 ? " was" : "s were");
    rc = framestack_claim(in, py, map, notes, err);
    return rc < 0 ? rc : mimalloc_claim(in, py, map, snap, notes, err);
}
