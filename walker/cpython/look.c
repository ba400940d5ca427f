/* The pass that looks at every block's bytes, once: is it an object, how large, what does it own?
 *
 * Millions of blocks are divided into parts, by their number alone, so that the result does not
 * depend on how many threads there are. A part finds the types that it meets by itself and decides
 * over its own blocks only; afterwards the tables of types become one, and claims of blocks in
 * other parts are decided. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/own.h"
#include "walker/note.h"
#include "walker/parallel.h"

enum { PART_SLOTS = 1 << 20, APART = 256 };

/* What one thread writes all the time shares no cache line with what another one reads. */
struct part {
    _Alignas(APART) struct objects o; /* types and windows are the part's own */
    struct claims claims;
    uint32_t *map; /* from the part's types to those of all */
    int rc;
};

struct look {
    struct objects *o;
    struct parting parting;
    struct part *parts;
};

/* ---- one part ---- */

/* What sys.getsizeof says. Most types are as large as they say; the others have to be read. */
static uint64_t object_bytes(struct objects *o, const struct type_info *t, uint64_t obj)
{
    bool fixed = t->kind == KIND_OTHER && !t->itemsize && !(t->flags & TYPE_INLINE_VALUES);
    uint64_t size = fixed ? 0 : kind_sizeof(o, t, obj);
    bool gc = (t->flags & TYPE_HAVE_GC) && !o->py->free_threaded;
    return size ? size + (gc ? 16 : 0) : t->basicsize + t->pre;
}

static void met(void *ctx, size_t slot, const struct block_place *place, const struct object_at *at)
{
    struct part *p = ctx;
    struct objects *o = &p->o;
    (void)place;
    if (at->dead) {
        if (block_kind(o->blocks, slot) == BLOCK_UNOWNED)
            block_set(o->blocks, slot, BLOCK_DEAD, at->type);
        return;
    }
    o->types.items[at->type].size_bytes += object_bytes(o, &o->types.items[at->type], at->addr);
    claims_object(&p->claims, slot, at->type, at->addr);
}

static void look_task(void *ctx, size_t i)
{
    struct look *l = ctx;
    struct part *p = &l->parts[i];
    const struct parting *g = &l->parting;
    struct block_range range = {g->run[i], g->run[i + 1], g->chunk[i], g->chunk[i + 1]};
    p->rc = mem_window_init(&p->o.near, l->o->near.mem, MEM_WINDOW_BYTES, NULL);
    if (p->rc == 0)
        objects_each(&p->o, &range, met, p);
    mem_window_release(&p->o.near);
}

/* ---- all parts ---- */

/* The first part's table goes on as that of all. */
static int merge_types(struct look *l)
{
    struct types *all = &l->o->types;
    types_release(all);
    *all = l->parts[0].o.types;
    types_init(&l->parts[0].o.types);
    for (size_t i = 1; i < l->parting.n; i++) {
        struct part *p = &l->parts[i];
        p->map = malloc((p->o.types.n + 1) * sizeof *p->map);
        if (!p->map)
            return ERR_NOMEM;
        for (size_t k = 0; k < p->o.types.n; k++) {
            p->map[k] = types_adopt(all, &p->o.types.items[k]);
            if (p->map[k] != BLOCK_NO_TYPE)
                all->items[p->map[k]].size_bytes += p->o.types.items[k].size_bytes;
        }
        all->no_memory |= p->o.types.no_memory;
    }
    return 0;
}

static void rename_types(struct blocks *b, size_t from, size_t to, const struct part *p)
{
    for (size_t slot = from; slot < to; slot++) {
        uint32_t type = block_type(b, slot);
        if (type >= p->o.types.n)
            continue;
        enum block_kind kind = p->map[type] == BLOCK_NO_TYPE ? BLOCK_UNOWNED : block_kind(b, slot);
        block_set(b, slot, kind, p->map[type]);
    }
}

static void settle_task(void *ctx, size_t i)
{
    struct look *l = ctx;
    const struct parting *g = &l->parting;
    struct part *p = &l->parts[i];
    if (p->map) {
        rename_types(l->o->blocks, g->run_slot[i], g->run_slot[i + 1], p);
        rename_types(l->o->blocks, g->chunk_slot[i], g->chunk_slot[i + 1], p);
    }
    for (size_t k = 0; k < g->n; k++)
        if (k != i)
            claims_settle(&p->claims, l->o, &l->parts[k].claims, l->parts[k].map);
}

static void tell_conflicts(const struct look *l)
{
    uint64_t n = 0, bytes = 0, at = UINT64_MAX;
    for (size_t i = 0; i < l->parting.n; i++) {
        const struct claims *c = &l->parts[i].claims;
        n += c->conflicts;
        bytes += c->conflict_bytes;
        at = min_u64(at, c->conflict_at);
    }
    if (n)
        note_remark(l->o->notes, "objects.conflict", at, bytes,
                    "%" PRIu64 " buffer%s that two objects point to, counted for the first", n,
                    n == 1 ? "" : "s");
}

static int look_at_all(struct look *l, unsigned threads)
{
    parallel_run(l->parting.n, look_task, l, threads);
    int rc = 0;
    for (size_t i = 0; i < l->parting.n; i++)
        if (l->parts[i].rc < 0 || l->parts[i].claims.no_memory)
            rc = ERR_NOMEM;
    if (rc == 0)
        rc = merge_types(l);
    if (rc == 0 && !objects_stopped(l->o)) {
        parallel_run(l->parting.n, settle_task, l, threads);
        tell_conflicts(l);
    }
    return rc;
}

static void parts_init(struct look *l)
{
    for (size_t i = 0; i < l->parting.n; i++) {
        struct part *p = &l->parts[i];
        memset(p, 0, sizeof *p);
        p->o = (struct objects){.in = l->o->in,
                                .py = l->o->py,
                                .blocks = l->o->blocks,
                                .notes = l->o->notes,
                                .far = l->o->far};
        types_init(&p->o.types);
        claims_init(&p->claims, &p->o, &l->parting, i);
    }
}

static void parts_release(struct look *l)
{
    for (size_t i = 0; i < l->parting.n; i++) {
        types_release(&l->parts[i].o.types);
        claims_release(&l->parts[i].claims);
        free(l->parts[i].map);
    }
    free(l->parts);
}

int objects_classify(struct objects *o, struct err *err)
{
    enum { FEW_SLOTS = 1 << 16 };
    struct look l = {.o = o};
    int rc = layout_require(&o->py->layout, LF_ob_type, err);
    if (rc < 0)
        return rc;
    size_t each = o->in->part_slots ? o->in->part_slots : PART_SLOTS;
    parting_make(o->blocks, each, &l.parting);
    l.parts = aligned_alloc(APART, l.parting.n * sizeof *l.parts);
    if (!l.parts)
        return err_set(err, ERR_NOMEM, "no memory to look at objects");
    parts_init(&l);
    /* Of what has to be read every piece is read through one cache. */
    bool one = !o->far->ops->direct || (o->blocks->n < FEW_SLOTS && !o->in->part_slots);
    rc = look_at_all(&l, one ? 1 : parallel_threads());
    parts_release(&l);
    if (rc < 0)
        return err_set(err, rc, "no memory to look at objects");
    return objects_stopped(o) ? err_set(err, ERR_INTERRUPTED, "interrupted") : 0;
}
