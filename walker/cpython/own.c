/* Buffers to their owners.
 *
 * The order decides who gets a block that two objects point to: types first (tables of keys that
 * instances share), then all other objects by address, pymalloc's before malloc's; what the
 * interpreter's own memory points to comes last. First come, first served; a second claim is told,
 * but for shared tables of keys, which many dictionaries name by design. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/object_place.h"
#include "walker/cpython/own.h"
#include "walker/note.h"

struct claims {
    struct objects *o;
    struct blocks_span span;
    size_t slot; /* the owner's */
    uint32_t type;
    bool shares; /* the owner may name what others have */
    uint64_t conflicts, conflict_bytes, conflict_at;
};

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
static bool begins_at(const struct blocks *b, const struct blocks_span *span, uint64_t addr,
                      struct block_hit *ret)
{
    enum { ALIGN = 8 };
    if (addr < span->start || addr >= span->end || addr % ALIGN || !blocks_at(b, addr, ret))
        return false;
    uint64_t into = addr - ret->place.addr;
    return into == b->debug_front ||
           (ret->place.chunk && (into == 0 || into == 2 * b->debug_front));
}

size_t unowned_at(const struct objects *o, const struct blocks_span *span, uint64_t addr)
{
    struct block_hit hit;
    if (!begins_at(o->blocks, span, addr, &hit))
        return SIZE_MAX;
    return block_kind(o->blocks, hit.slot) == BLOCK_UNOWNED ? hit.slot : SIZE_MAX;
}

static void claim(void *ctx, uint64_t addr, uint64_t size)
{
    struct claims *c = ctx;
    struct blocks *b = c->o->blocks;
    struct block_hit hit;
    if (!begins_at(b, &c->span, addr, &hit) || hit.slot == c->slot)
        return;
    size_t slot = hit.slot;
    struct block_place place = hit.place;
    if (size > place.size - (addr - place.addr))
        return;
    enum block_kind kind = block_kind(b, slot);
    if (kind == BLOCK_UNOWNED || kind == BLOCK_DEAD || kind == BLOCK_RUNTIME) {
        block_set(b, slot, BLOCK_BUFFER, c->type);
        if (b->owners)
            b->owners[slot] = (uint32_t)c->slot + 1;
    } else if (!c->shares || kind != BLOCK_BUFFER) {
        c->conflicts++;
        c->conflict_bytes += place.size;
        c->conflict_at = addr;
    }
}

/* By type: may its instances own anything that kind_buffers knows? */
enum { OWNS_NOTHING, OWNS, OWNS_FIRST };

static uint8_t owns(const struct objects *o, const struct type_info *t)
{
    enum managed_shape shape = o->py->traits->managed;
    switch (t->kind) {
    case KIND_TYPE:
        return OWNS_FIRST;
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
        return OWNS;
    default:
        return t->flags & TYPE_MANAGED_DICT &&
                       (shape == MANAGED_TWO_WORDS || shape == MANAGED_TAGGED)
                   ? OWNS
                   : OWNS_NOTHING;
    }
}

struct pass {
    struct claims claims;
    const uint8_t *owns;
    size_t n_owns;
    uint8_t which;
};

static void own_slot(void *ctx, size_t slot, const struct block_place *place)
{
    struct pass *p = ctx;
    struct objects *o = p->claims.o;
    uint32_t type = block_type(o->blocks, slot);
    if (block_kind(o->blocks, slot) != BLOCK_OBJECT || type >= p->n_owns ||
        p->owns[type] != p->which)
        return;
    const struct type_info *t = &o->types.items[type];
    p->claims.slot = slot;
    p->claims.type = type;
    p->claims.shares = t->kind == KIND_DICT || t->kind == KIND_ODICT;
    kind_buffers(o, t, object_in_block(o, place, t), claim, &p->claims);
}

void blocks_each(const struct objects *o, block_fn fn, void *ctx)
{
    const struct blocks *b = o->blocks;
    struct block_place place = {.chunk = false};
    for (size_t i = 0; i < b->n_runs && !objects_stopped(o); i++) {
        place.size = b->runs[i].size;
        place.addr = b->runs[i].addr;
        for (uint32_t k = 0; k < b->runs[i].n; k++, place.addr += place.size)
            fn(ctx, b->runs[i].first + k, &place);
    }
    place.chunk = true;
    for (size_t i = 0; i < b->n_chunks && !objects_stopped(o); i++) {
        place.addr = b->chunks[i].addr;
        place.size = b->chunks[i].size;
        fn(ctx, b->n - b->n_chunks + i, &place);
    }
}

int objects_own(struct objects *o, struct err *err)
{
    size_t n = o->types.n;
    uint8_t *table = malloc(n ? n : 1);
    if (!table)
        return err_set(err, ERR_NOMEM, "no memory for the owners of buffers");
    for (size_t i = 0; i < n; i++)
        table[i] = owns(o, &o->types.items[i]);
    struct pass p = {.claims = {.o = o, .span = blocks_span(o->blocks)},
                     .owns = table,
                     .n_owns = n,
                     .which = OWNS_FIRST};
    blocks_each(o, own_slot, &p);
    p.which = OWNS;
    blocks_each(o, own_slot, &p);
    free(table);
    if (p.claims.conflicts)
        note_remark(o->notes, "objects.conflict", p.claims.conflict_at, p.claims.conflict_bytes,
                    "%" PRIu64 " buffer%s that two objects point to, counted for the first",
                    p.claims.conflicts, p.claims.conflicts == 1 ? "" : "s");
    return runtime_reach(o, err);
}
