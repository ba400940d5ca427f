/* Buffers to their owners.
 *
 * One owner at most: a block that is an object is nobody's buffer; types come first (tables of keys
 * that instances share), then whoever has the lower address, a part's own objects before those of
 * other parts. What the interpreter's own memory points to comes last (runtime_owned.c). A second
 * claim is told, but for shared tables of keys, which many dictionaries name by design. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/own.h"

uint32_t types_named(const struct objects *o, const char *name)
{
    for (size_t i = 0; i < o->types.n; i++)
        if (!o->types.items[i].heap && strcmp(o->types.items[i].name, name) == 0)
            return (uint32_t)i;
    return BLOCK_NO_TYPE;
}

struct blocks_span blocks_span(const struct blocks *b)
{
    struct blocks_span s = {UINT64_MAX, 0};
    if (b->n_runs) {
        const struct block_run *last = &b->runs[b->n_runs - 1];
        s.start = b->runs[0].addr;
        s.end = last->addr + (uint64_t)last->n * last->size;
    }
    if (b->n_chunks) {
        const struct block_chunk *last = &b->chunks[b->n_chunks - 1];
        s.start = min_u64(s.start, b->chunks[0].addr);
        s.end = max_u64(s.end, last->addr + last->size);
    }
    return s;
}

/* Debug hooks put their bytes in front of what Python allocates, of a chunk even twice: pymalloc's
 * hooks ask malloc's. Whether Python allocated a chunk at all is not known. */
bool block_begins_at(const struct blocks *b, const struct block_place *place, uint64_t addr)
{
    uint64_t into = addr - place->addr;
    return into == b->debug_front || (place->chunk && (into == 0 || into == 2 * b->debug_front));
}

bool block_begins(const struct blocks *b, const struct blocks_span *span, uint64_t addr,
                  struct block_hit *ret)
{
    enum { ALIGN = 8 };
    if (addr < span->start || addr >= span->end || addr % ALIGN || !blocks_at(b, addr, ret))
        return false;
    return block_begins_at(b, &ret->place, addr);
}

size_t unowned_at(const struct objects *o, const struct blocks_span *span, uint64_t addr)
{
    struct block_hit hit;
    if (!block_begins(o->blocks, span, addr, &hit))
        return SIZE_MAX;
    return block_kind(o->blocks, hit.slot) == BLOCK_UNOWNED ? hit.slot : SIZE_MAX;
}

/* ---- parts ---- */

static size_t slot_of_run(const struct blocks *b, size_t run)
{
    return run < b->n_runs ? b->runs[run].first : b->n - b->n_chunks;
}

void parting_make(const struct blocks *b, size_t slots_each, struct parting *ret)
{
    memset(ret, 0, sizeof *ret);
    size_t in_runs = b->n - b->n_chunks, run = 0;
    ret->n = min_u64(b->n / max_u64(slots_each, 1) + 1, MAX_PARTS);
    for (size_t i = 0; i <= ret->n; i++) {
        while (run < b->n_runs && slot_of_run(b, run) < in_runs / ret->n * i)
            run++;
        run = i == ret->n ? b->n_runs : run;
        ret->run[i] = run;
        ret->run_slot[i] = slot_of_run(b, run);
        ret->chunk[i] = i == ret->n ? b->n_chunks : b->n_chunks / ret->n * i;
        ret->chunk_slot[i] = in_runs + ret->chunk[i];
    }
}

static bool in_part(const struct parting *p, size_t part, size_t slot)
{
    return (slot >= p->run_slot[part] && slot < p->run_slot[part + 1]) ||
           (slot >= p->chunk_slot[part] && slot < p->chunk_slot[part + 1]);
}

static size_t part_of(const struct parting *p, size_t slot)
{
    size_t i = 0;
    while (i + 1 < p->n && !in_part(p, i, slot))
        i++;
    return i;
}

/* ---- claims ---- */

void claims_init(struct claims *c, struct objects *o, const struct parting *p, size_t part)
{
    memset(c, 0, sizeof *c);
    c->o = o;
    c->span = blocks_span(o->blocks);
    c->parting = p;
    c->part = part;
    c->conflict_at = UINT64_MAX;
}

void claims_release(struct claims *c)
{
    for (size_t i = 0; i < MAX_PARTS; i++) {
        free(c->later[i].items);
        c->later[i].items = NULL;
        c->later[i].n = c->later[i].cap = 0;
    }
}

static void conflict(struct claims *c, size_t slot)
{
    struct block_place place;
    blocks_place(c->o->blocks, slot, &place);
    c->conflicts++;
    c->conflict_bytes += place.size;
    c->conflict_at = min_u64(c->conflict_at, place.addr);
}

/* May name what others have. */
static bool shares(const struct type_info *t)
{
    return t->kind == KIND_DICT || t->kind == KIND_ODICT;
}

/* The block's owner so far gives it back. */
static bool gives_way(struct claims *c, size_t slot, const struct type_info *to)
{
    const struct type_info *holder = &c->o->types.items[block_type(c->o->blocks, slot)];
    if (to->kind != KIND_TYPE || holder->kind == KIND_TYPE)
        return false;
    if (!shares(holder))
        conflict(c, slot);
    return true;
}

static void take(struct claims *c, size_t slot, size_t owner, uint32_t type)
{
    struct blocks *b = c->o->blocks;
    const struct type_info *t = &c->o->types.items[type];
    enum block_kind kind = block_kind(b, slot);
    if (kind == BLOCK_UNOWNED || kind == BLOCK_DEAD || kind == BLOCK_RUNTIME ||
        (kind == BLOCK_BUFFER && gives_way(c, slot, t))) {
        block_set(b, slot, BLOCK_BUFFER, type);
        if (b->owners)
            b->owners[slot] = (uint32_t)owner + 1;
    } else if (!shares(t) || kind != BLOCK_BUFFER) {
        conflict(c, slot);
    }
}

static void put_off(struct claims *c, size_t slot)
{
    size_t part = part_of(c->parting, slot);
    size_t n = c->later[part].n;
    if (vec_reserve(&c->later[part].items, &c->later[part].cap, n + 1,
                    sizeof *c->later[part].items) < 0) {
        c->no_memory = true;
        return;
    }
    c->later[part].items[n] = (struct claim_later){(uint32_t)slot, (uint32_t)c->slot, c->type};
    c->later[part].n = n + 1;
}

static void claim(void *ctx, uint64_t addr, uint64_t size)
{
    struct claims *c = ctx;
    struct block_hit hit;
    if (!block_begins(c->o->blocks, &c->span, addr, &hit) || hit.slot == c->slot ||
        size > hit.place.size - (addr - hit.place.addr))
        return;
    if (in_part(c->parting, c->part, hit.slot))
        take(c, hit.slot, c->slot, c->type);
    else
        put_off(c, hit.slot);
}

void claims_object(struct claims *c, size_t slot, uint32_t type, uint64_t obj)
{
    struct blocks *b = c->o->blocks;
    const struct type_info *t = &c->o->types.items[type];
    if (block_kind(b, slot) == BLOCK_BUFFER) {
        conflict(c, slot);
        if (b->owners)
            b->owners[slot] = 0;
    }
    block_set(b, slot, BLOCK_OBJECT, type);
    c->slot = slot;
    c->type = type;
    if (t->owns)
        kind_buffers(c->o, t, obj, claim, c);
}

void claims_settle(struct claims *c, struct objects *o, const struct claims *from,
                   const uint32_t *map)
{
    c->o = o;
    for (size_t i = 0; i < from->later[c->part].n; i++) {
        const struct claim_later *l = &from->later[c->part].items[i];
        uint32_t type = map ? map[l->type] : l->type;
        if (type != BLOCK_NO_TYPE)
            take(c, l->slot, l->owner, type);
    }
}

bool type_owns(const struct objects *o, const struct type_info *t)
{
    enum managed_shape shape = o->py->traits->managed;
    switch (t->kind) {
    case KIND_TYPE:
    case KIND_STR:
    case KIND_LIST:
    case KIND_DICT:
    case KIND_ODICT:
    case KIND_SET:
    case KIND_BYTEARRAY:
    case KIND_ARRAY:
    case KIND_DEQUE:
    case KIND_CODE:
    case KIND_MODULE:
    case KIND_NDARRAY:
        return true;
    default:
        return t->flags & TYPE_MANAGED_DICT &&
               (shape == MANAGED_TWO_WORDS || shape == MANAGED_TAGGED);
    }
}
