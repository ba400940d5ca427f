/* The ledger's last step: extents and mappings become the snapshot's mappings and categories. */
#include <inttypes.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/blockmap.h"

/* Take `part` of `whole` from each entry of `from` so that the parts sum to `part` exactly: largest
 * remainders would do too, but carrying the rest along is enough and keeps each within 1 byte. */
static void take_share(uint64_t *from, uint64_t *into, uint64_t part)
{
    uint64_t left_whole = 0;
    for (int i = 0; i < CAT_COUNT; i++)
        left_whole += from[i];
    for (int i = 0; i < CAT_COUNT && left_whole; i++) {
        uint64_t share = (uint64_t)((unsigned __int128)from[i] * part / left_whole);
        left_whole -= from[i];
        from[i] -= share;
        into[i] += share;
        part -= share;
    }
}

/* What the mappings up to here have left of an extent's tally. */
struct rest {
    const struct extent *of;
    struct tally tally;
};

/* Move the bytes of `e` that lie in [lo, hi) from its remaining tally into the mapping's. */
static void split_extent(const struct blockmap *map, const struct extent *e, struct rest *rest,
                         uint64_t lo, uint64_t hi, struct tally *into)
{
    if (rest->of != e) {
        *rest = (struct rest){e, e->tally};
        /* Things are counted where their extent starts. */
        for (int i = 0; i < CAT_COUNT; i++)
            into->count[i] += e->tally.count[i];
    }
    take_share(rest->tally.bytes, into->bytes, hi - lo);
    take_share(rest->tally.resident, into->resident, residency_bytes(map->res, lo, hi));
}

static void add_gap(const struct blockmap *map, enum category cat, uint64_t lo, uint64_t hi,
                    struct tally *into)
{
    into->bytes[cat] += hi - lo;
    into->resident[cat] += residency_bytes(map->res, lo, hi);
    into->count[cat]++;
}

/* Make the resident bytes of a mapping sum to the kernel's Rss. */
static void match_rss(const struct vma *v, struct tally *t, struct notes *notes)
{
    uint64_t have = tally_resident(t);
    if (have == v->rss)
        return;
    if (v->kind != VMA_KERNEL)
        note_remark(notes, "residency.differs", v->start,
                    have > v->rss ? have - v->rss : v->rss - have,
                    "present pages of %s say %" PRIu64 " bytes, the kernel's Rss %" PRIu64
                    ": scaled to Rss",
                    v->name[0] ? v->name : "an anonymous mapping", have, v->rss);
    if (have > v->rss) {
        struct tally scaled = {0};
        take_share(t->resident, scaled.resident, v->rss);
        memcpy(t->resident, scaled.resident, sizeof t->resident);
        return;
    }
    /* More resident than seen: give it to what is not resident yet, in proportion. */
    struct tally room = {0};
    for (int i = 0; i < CAT_COUNT; i++)
        room.bytes[i] = t->bytes[i] > t->resident[i] ? t->bytes[i] - t->resident[i] : 0;
    uint64_t all = tally_bytes(&room), more = v->rss - have;
    take_share(room.bytes, t->resident, min_u64(more, all));
    t->resident[CAT_UNKNOWN] += more - min_u64(more, all); /* an Rss above the size */
}

static int add_mapping(struct snapshot *snap, const struct vma *v, const struct tally *t,
                       struct err *err)
{
    struct snapshot_mapping *m = snapshot_add_mapping(snap);
    if (!m)
        return err_set(err, ERR_NOMEM, "no memory for the mappings");
    m->address = v->start;
    m->size = v->end - v->start;
    m->resident_bytes = v->rss;
    m->swap_bytes = v->swap;
    m->offset = v->offset;
    m->perms[0] = v->r ? 'r' : '-';
    m->perms[1] = v->w ? 'w' : '-';
    m->perms[2] = v->x ? 'x' : '-';
    m->perms[3] = v->shared ? 's' : 'p';
    m->path = v->name[0] ? snapshot_str(snap, v->name) : NULL;
    m->kind = vma_kind_name(v->kind);
    m->tally = *t;
    snap->memory.mapped_bytes += m->size;
    snap->memory.rss_bytes += v->rss;
    snap->source.swap_bytes += v->swap;
    tally_add(&snap->memory.tally, t);
    return 0;
}

/* The categories of one mapping: its extents from items[*next] on, and the gaps between them. */
static void fill_mapping(const struct blockmap *map, const struct vma *v, size_t *next,
                         struct rest *rest, blockmap_default_fn fallback, void *ctx,
                         struct tally *t)
{
    uint64_t at = v->start;
    for (; *next < map->n && map->items[*next]->start < v->end; (*next)++) {
        const struct extent *e = map->items[*next];
        uint64_t lo = max_u64(e->start, v->start), hi = min_u64(e->end, v->end);
        if (lo > at)
            add_gap(map, fallback(ctx, v, at, lo), at, lo, t);
        if (hi > lo)
            split_extent(map, e, rest, lo, hi, t);
        at = max_u64(at, hi);
        if (e->end > v->end)
            break; /* goes on in the next mapping */
    }
    if (at < v->end)
        add_gap(map, fallback(ctx, v, at, v->end), at, v->end, t);
}

int blockmap_settle(const struct blockmap *map, const struct vma_list *vmas,
                    blockmap_default_fn fallback, void *ctx, struct snapshot *snap,
                    struct notes *notes, struct err *err)
{
    size_t next = 0;
    struct rest rest = {0};
    for (size_t i = 0; i < vmas->n; i++) {
        const struct vma *v = &vmas->items[i];
        while (next < map->n && map->items[next]->end <= v->start)
            next++; /* lies where nothing is mapped: cannot happen with honest input */
        struct tally t = {0};
        fill_mapping(map, v, &next, &rest, fallback, ctx, &t);
        match_rss(v, &t, notes);
        int rc = add_mapping(snap, v, &t, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
