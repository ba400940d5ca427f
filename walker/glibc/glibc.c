/* The order of a walk, and its result as a snapshot. */
#include "walker/glibc/glibc.h"

#include <stdlib.h>

#include "walker/glibc/internal.h"

enum { PROBE_WINDOW = 4096, LOOK_AHEAD_STEPS = 256 << 20 };

/* One step of a walk. */
typedef int (*pass_fn)(struct walk *w, struct err *err);

/* Run passes until one fails. */
static int run(struct walk *w, const pass_fn *passes, size_t n, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = passes[i](w, err);
    return rc;
}

/* Without main_arena a partial source may still have heaps that can be walked. */
static int roots_start(struct walk *w, struct err *err)
{
    struct err why = ERR_INIT;
    int rc = roots_find(w, &why);
    if (rc == ERR_NOT_FOUND && w->in->partial) {
        int assumed = roots_assume(w, err);
        if (assumed != ERR_NOT_FOUND)
            return assumed;
    }
    if (rc < 0 && err)
        *err = why;
    return rc;
}

static int run_passes(struct walk *w, struct err *err)
{
    static const pass_fn before[] = {roots_start, tcache_find, heaps_find, tcache_collect,
                                     fastbins_collect};
    static const pass_fn walks[] = {arenas_walk, extensions_walk, mmapped_walk, orphans_apply};
    int rc = run(w, before, sizeof before / sizeof before[0], err);
    if (rc < 0)
        return rc;
    marks_sort(w);
    rc = run(w, walks, sizeof walks / sizeof walks[0], err);
    if (rc < 0)
        return rc;
    bins_count(w);
    marks_check(w);
    arenas_check(w);
    if (w->budget == 0)
        note_add(w->notes, "malloc.limit", 0, 0,
                 "gave up looking for chunks behind damage: too many look-alikes");
    return 0;
}

static int fill_arena(struct snapshot *snap, const struct arena *a, struct err *err)
{
    struct snapshot_malloc_arena *r = snapshot_add_malloc_arena(snap);
    if (!r)
        return err_set(err, ERR_NOMEM, "no memory for the arenas");
    r->address = a->addr;
    r->top = a->top;
    r->main = a->main;
    r->heaps = a->heaps;
    r->attached_threads = a->attached;
    r->system_bytes = a->system_mem;
    r->used_chunks = a->used.n;
    r->used_bytes = a->used.bytes;
    r->cached_chunks = a->cached.n;
    r->cached_bytes = a->cached.bytes;
    r->free_chunks = a->free.n;
    r->free_bytes = a->free.bytes;
    r->top_bytes = a->top_sum.bytes;
    r->overhead_bytes = a->overhead;
    r->damaged_bytes = a->damaged;
    return 0;
}

static void add_arena(struct snapshot_malloc *m, const struct arena *a)
{
    m->arenas++;
    m->system_bytes += a->system_mem;
    m->used_chunks += a->used.n;
    m->used_bytes += a->used.bytes;
    m->cached_chunks += a->cached.n;
    m->cached_bytes += a->cached.bytes;
    m->free_chunks += a->free.n;
    m->free_bytes += a->free.bytes;
    m->top_bytes += a->top_sum.bytes;
    m->overhead_bytes += a->overhead;
    m->damaged_bytes += a->damaged;
}

/* As mallinfo2 counts: tcache chunks, headers and gaps are "used", mmapped chunks are not in it. */
static void add_mallinfo2(struct snapshot_mallinfo2 *mi, const struct arena *a)
{
    uint64_t unused = a->top_sum.bytes + a->free.bytes + a->fast.bytes;
    mi->arena += a->system_mem;
    mi->ordblks += 1 + (a->bins_broken ? a->free.n : a->listed.n);
    mi->smblks += a->fast.n;
    mi->fsmblks += a->fast.bytes;
    mi->fordblks += unused;
    mi->uordblks += a->system_mem > unused ? a->system_mem - unused : 0;
    if (a->main)
        mi->keepcost += a->top_sum.bytes;
}

static int fill_snapshot(const struct walk *w, struct snapshot *snap, struct err *err)
{
    struct snapshot_malloc *m = &snap->malloc;
    m->present = true;
    m->transit_chunks = w->transit;
    for (size_t i = 0; i < w->n_arenas; i++) {
        add_arena(m, &w->arenas[i]);
        add_mallinfo2(&m->mallinfo2, &w->arenas[i]);
        int rc = fill_arena(snap, &w->arenas[i], err);
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < w->n_mmapped; i++) {
        m->mmapped_chunks++;
        m->mmapped_bytes += w->mmapped[i].total;
    }
    m->mallinfo2.hblks = m->mmapped_chunks;
    m->mallinfo2.hblkhd = mmapped_counted(w);
    return 0;
}

static void walk_release(struct walk *w)
{
    free(w->arenas);
    free(w->heaps);
    free(w->marks);
    free(w->tcaches);
    free(w->orphans);
    free(w->mmapped);
    addrset_release(&w->marked);
    mem_window_release(&w->seq);
    mem_window_release(&w->probe);
}

int glibc_walk(const struct glibc_input *in, struct blockmap *map, struct snapshot *snap,
               struct notes *notes, struct err *err)
{
    struct walk w = {
        .in = in, .map = map, .snap = snap, .notes = notes, .budget = LOOK_AHEAD_STEPS};
    w.tell = in->chunk || in->used;
    addrset_init(&w.marked);
    int rc = mem_window_init(&w.seq, in->mem, MEM_WINDOW_BYTES, err);
    if (rc == 0)
        rc = mem_window_init(&w.probe, in->mem, PROBE_WINDOW, err);
    if (rc == 0)
        rc = run_passes(&w, err);
    if (rc == 0)
        rc = fill_snapshot(&w, snap, err);
    if (rc == 0 && in->layout_name)
        *in->layout_name = w.l->name;
    walk_release(&w);
    return rc;
}
