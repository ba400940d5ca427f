#include "walker/blockmap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"

void blockmap_init(struct blockmap *map, const struct residency *res)
{
    memset(map, 0, sizeof *map);
    map->res = res;
}

void blockmap_release(struct blockmap *map)
{
    for (size_t i = 0; i < map->n; i++)
        free(map->items[i]);
    free(map->items);
    memset(map, 0, sizeof *map);
}

/* Index of the first extent that ends behind addr. */
static size_t seek(const struct blockmap *map, uint64_t addr)
{
    size_t lo = 0, hi = map->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (addr >= map->items[mid]->end)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct extent *blockmap_at(const struct blockmap *map, uint64_t addr)
{
    size_t i = seek(map, addr);
    return i < map->n && map->items[i]->start <= addr ? map->items[i] : NULL;
}

bool blockmap_overlaps(const struct blockmap *map, uint64_t start, uint64_t end)
{
    size_t i = seek(map, start);
    return i < map->n && map->items[i]->start < end;
}

bool blockmap_gap(const struct blockmap *map, uint64_t from, uint64_t end, uint64_t *lo,
                  uint64_t *hi)
{
    for (size_t i = seek(map, from); i < map->n && map->items[i]->start <= from; i++)
        from = map->items[i]->end;
    if (from >= end)
        return false;
    size_t next = seek(map, from);
    *lo = from;
    *hi = next < map->n ? min_u64(end, map->items[next]->start) : end;
    return true;
}

/* Put what the walker did not explain on "unknown"; false if it explained more than there is. */
static bool complete_tally(struct extent *e)
{
    uint64_t bytes = tally_bytes(&e->tally), resident = tally_resident(&e->tally);
    if (bytes > e->end - e->start || resident > e->resident)
        return false;
    e->tally.bytes[CAT_UNKNOWN] += e->end - e->start - bytes;
    e->tally.resident[CAT_UNKNOWN] += e->resident - resident;
    return true;
}

int blockmap_claim(struct blockmap *map, uint64_t start, uint64_t end, const struct tally *tally,
                   const char *what, struct err *err)
{
    if (end <= start)
        return err_set(err, ERR_CORRUPT, "%s at 0x%" PRIx64 " is empty", what, start);
    size_t at = seek(map, start);
    if (at < map->n && map->items[at]->start < end)
        return err_set(
            err, ERR_CORRUPT, "%s 0x%" PRIx64 "-0x%" PRIx64 " overlaps %s 0x%" PRIx64 "-0x%" PRIx64,
            what, start, end, map->items[at]->what, map->items[at]->start, map->items[at]->end);
    if (vec_reserve(&map->items, &map->cap, map->n + 1, sizeof *map->items) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the ledger");
    struct extent *e = calloc(1, sizeof *e);
    if (!e)
        return err_set(err, ERR_NOMEM, "no memory for the ledger");
    *e = (struct extent){start, end, what, residency_bytes(map->res, start, end), *tally};
    if (!complete_tally(e)) {
        free(e);
        return err_set(err, ERR_CORRUPT, "%s at 0x%" PRIx64 " explains more bytes than it has",
                       what, start);
    }
    memmove(&map->items[at + 1], &map->items[at], (map->n - at) * sizeof *map->items);
    map->items[at] = e;
    map->n++;
    return 0;
}

int blockmap_claim_one(struct blockmap *map, uint64_t start, uint64_t end, enum category cat,
                       uint64_t count, const char *what, struct err *err)
{
    struct tally t = {0};
    t.bytes[cat] = end > start ? end - start : 0;
    t.resident[cat] = residency_bytes(map->res, start, end);
    t.count[cat] = count;
    return blockmap_claim(map, start, end, &t, what, err);
}
