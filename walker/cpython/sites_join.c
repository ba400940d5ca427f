/* Traces and blocks: who allocated which type.
 *
 * A trace's address is what an allocator returned, so it is where the program sees a block begin.
 * All traces of one traceback, domain, kind and type are a site. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/own.h"
#include "walker/cpython/tracemalloc.h"

/* What a trace is of: a slot's word in blocks->what, or one of these, which no slot has. */
#define WHAT_GONE (UINT32_MAX - 1)
#define WHAT_UNSEEN UINT32_MAX

struct group {
    uint32_t traceback, domain, what;
    uint32_t rank; /* among all: index of its site */
    uint64_t count, bytes;
};

struct joiner {
    const struct tracing *t;
    struct objects *o;
    struct blocks *b; /* NULL: nobody looked */
    struct blocks_span span;
    struct snapshot *snap;
    struct pairmap known; /* (traceback and what, domain) -> index of its group + 1 */
    struct pairmap sizes; /* (group, size) -> traces */
    struct group *groups;
    size_t n, cap;
    uint8_t *covered; /* a bit by slot */
};

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for the sites of allocations");
}

/* ---- grouping ---- */

static struct group *group_of(struct joiner *j, const struct trace *trace, uint32_t what)
{
    uint64_t key = (uint64_t)trace->traceback << 32 | what;
    uint64_t *at = pairmap_at(&j->known, key, trace->domain);
    if (!at)
        return NULL;
    if (*at)
        return &j->groups[*at - 1];
    if (j->n >= UINT32_MAX || vec_reserve(&j->groups, &j->cap, j->n + 1, sizeof *j->groups) < 0)
        return NULL;
    struct group *g = &j->groups[j->n++];
    *g = (struct group){.traceback = trace->traceback, .domain = trace->domain, .what = what};
    *at = j->n;
    return g;
}

static bool add(struct joiner *j, const struct trace *trace, uint32_t what, uint32_t *index)
{
    struct group *g = group_of(j, trace, what);
    if (!g)
        return false;
    g->count++;
    g->bytes += trace->size;
    *index = (uint32_t)(g - j->groups);
    uint64_t *n = pairmap_at(&j->sizes, *index, trace->size);
    if (n)
        ++*n;
    return n != NULL;
}

/* Two domains may have a trace of one block: it is covered once. */
static void cover(struct joiner *j, const struct block_hit *hit, uint32_t group)
{
    struct snapshot_tracing *s = &j->snap->tracing;
    uint8_t bit = (uint8_t)(1u << hit->slot % 8);
    if (j->covered[hit->slot / 8] & bit)
        return;
    j->covered[hit->slot / 8] |= bit;
    s->covered_blocks++;
    s->covered_bytes += hit->place.size;
    if (j->b->sites)
        j->b->sites[hit->slot] = group + 1;
}

/* Only the interpreter's own blocks have a type that is none. */
static uint32_t what_of(const struct blocks *b, size_t slot)
{
    return block_kind(b, slot) == BLOCK_RUNTIME ? b->what[slot] | BLOCK_NO_TYPE : b->what[slot];
}

static bool join_trace(struct joiner *j, const struct trace *trace)
{
    struct block_hit hit;
    uint32_t group;
    if (!j->b)
        return add(j, trace, WHAT_UNSEEN, &group);
    if (block_begins(j->b, &j->span, trace->addr, &hit)) {
        if (!add(j, trace, what_of(j->b, hit.slot), &group))
            return false;
        cover(j, &hit, group);
        return true;
    }
    j->snap->tracing.gone_traces++;
    j->snap->tracing.gone_bytes += trace->size;
    return add(j, trace, WHAT_GONE, &group);
}

static int join_all(struct joiner *j, struct err *err)
{
    enum { OFTEN = 4096 };
    for (size_t i = 0; i < j->t->n; i++) {
        if (i % OFTEN == 0 && objects_stopped(j->o))
            return err_set(err, ERR_INTERRUPTED, "interrupted");
        if (!join_trace(j, &j->t->items[i]))
            return no_memory(err);
    }
    return 0;
}

/* ---- what nobody traced ---- */

static void count_untraced(struct joiner *j)
{
    struct snapshot_tracing *s = &j->snap->tracing;
    uint64_t blocks = 0, bytes = 0;
    for (size_t i = 0; i < j->b->n_runs; i++) {
        const struct block_run *r = &j->b->runs[i];
        uint64_t used = 0;
        for (uint32_t k = 0; k < r->n; k++)
            used += block_kind(j->b, (size_t)r->first + k) != BLOCK_FREE;
        blocks += used;
        bytes += used * r->size;
    }
    for (size_t i = 0; i < j->b->n_chunks; i++)
        bytes += j->b->chunks[i].size;
    blocks += j->b->n_chunks;
    s->untraced_blocks = blocks - s->covered_blocks;
    s->untraced_bytes = bytes - s->covered_bytes;
}

/* ---- into the snapshot ---- */

static int by_bytes(const void *a, const void *b)
{
    const struct group *x = *(struct group *const *)a, *y = *(struct group *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    if (x->traceback != y->traceback)
        return x->traceback < y->traceback ? -1 : 1;
    if (x->domain != y->domain)
        return x->domain < y->domain ? -1 : 1;
    return x->what < y->what ? -1 : x->what > y->what;
}

static int by_site(const void *a, const void *b)
{
    const struct pairmap_slot *x = a, *y = b;
    if (x->a != y->a)
        return x->a < y->a ? -1 : 1;
    return x->b < y->b ? -1 : x->b > y->b;
}

/* The sizes of all sites, in the order of sites; in place of the map, which is of no more use. */
static void sizes_sort(struct joiner *j)
{
    size_t kept = 0;
    for (size_t i = 0; i < j->sizes.cap; i++)
        if (j->sizes.slots[i].value) {
            struct pairmap_slot s = j->sizes.slots[i];
            s.a = j->groups[s.a].rank;
            j->sizes.slots[kept++] = s;
        }
    j->sizes.n = kept;
    if (kept)
        qsort(j->sizes.slots, kept, sizeof *j->sizes.slots, by_site);
}

/* Kind and type of what a site allocated. */
static bool name_site(struct joiner *j, uint32_t what, struct snapshot_site *s)
{
    uint32_t type = what & BLOCK_NO_TYPE;
    if (what == WHAT_UNSEEN)
        return true;
    s->kind = what == WHAT_GONE ? "gone" : block_kind_name((enum block_kind)(what >> 28));
    if (what == WHAT_GONE || type >= j->o->types.n)
        return true;
    s->type = snapshot_str(j->snap, j->o->types.items[type].name);
    return s->type != NULL;
}

static bool add_site(struct joiner *j, const struct group *g, size_t *at)
{
    struct snapshot_site *s = snapshot_add_site(j->snap);
    if (!s || !name_site(j, g->what, s))
        return false;
    s->traceback = g->traceback;
    s->domain = g->domain;
    s->source = j->snap->tracing.source;
    s->count = g->count;
    s->bytes = g->bytes;
    bool good = true;
    for (; good && *at < j->sizes.n && j->sizes.slots[*at].a == g->rank; ++*at)
        good = snapshot_add_size_count(j->snap, j->sizes.slots[*at].b, j->sizes.slots[*at].value);
    return good;
}

/* Blocks got the number of their group. */
static void renumber_blocks(struct joiner *j)
{
    for (size_t i = 0; i < j->b->n; i++)
        if (j->b->sites[i])
            j->b->sites[i] = j->groups[j->b->sites[i] - 1].rank + 1;
}

static int report(struct joiner *j, struct err *err)
{
    struct group **order = malloc((j->n + 1) * sizeof *order);
    if (!order)
        return no_memory(err);
    for (size_t i = 0; i < j->n; i++)
        order[i] = &j->groups[i];
    if (j->n)
        qsort(order, j->n, sizeof *order, by_bytes);
    for (size_t i = 0; i < j->n; i++)
        order[i]->rank = (uint32_t)i;
    sizes_sort(j);
    bool good = true;
    for (size_t i = 0, at = 0; i < j->n && good; i++)
        good = add_site(j, order[i], &at);
    if (j->b && j->b->sites)
        renumber_blocks(j);
    free(order);
    return good ? 0 : no_memory(err);
}

static int joiner_init(struct joiner *j)
{
    if (!j->b)
        return 0;
    j->span = blocks_span(j->b);
    j->covered = calloc(j->b->n / 8 + 1, 1);
    if (j->b->owners)
        j->b->sites = calloc(j->b->n + 1, sizeof *j->b->sites);
    return j->covered && (!j->b->owners || j->b->sites) ? 0 : ERR_NOMEM;
}

int sites_join(const struct tracing *t, struct objects *o, struct blocks *blocks,
               struct snapshot *snap, struct err *err)
{
    struct joiner j = {.t = t, .o = o, .b = blocks, .snap = snap};
    if (!snap->tracing.present)
        return 0;
    int rc = joiner_init(&j) < 0 ? no_memory(err) : 0;
    if (rc == 0)
        rc = join_all(&j, err);
    if (rc == 0 && blocks)
        count_untraced(&j);
    if (rc == 0)
        rc = report(&j, err);
    pairmap_release(&j.known);
    pairmap_release(&j.sizes);
    free(j.groups);
    free(j.covered);
    return rc;
}
