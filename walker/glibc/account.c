/* Filling the ledger in address order. A region may contain ranges that somebody claimed before
 * (pymalloc's arenas when they come from malloc) and pages that are not present; both are rare, so
 * the walk's inner loop only compares with `easy` and comes here when it crosses it. */
#include <string.h>

#include "formats/base/num.h"
#include "walker/glibc/internal.h"

/* The first absent byte at or above addr. */
static uint64_t hole_from(const struct residency *res, uint64_t addr)
{
    if (res->unknown)
        return UINT64_MAX;
    size_t i = residency_seek(res, addr);
    return i < res->n && res->runs[i].start <= addr ? res->runs[i].end : addr;
}

static void set_easy(struct account *a)
{
    a->easy = a->at < a->lo ? a->at : min_u64(hole_from(a->map->res, a->at), a->hi);
}

/* Start on the next unclaimed piece. */
static void next_piece(struct account *a)
{
    memset(&a->tally, 0, sizeof a->tally);
    if (!blockmap_gap(a->map, a->at, a->end, &a->lo, &a->hi))
        a->lo = a->hi = a->end;
    set_easy(a);
}

void account_begin(struct account *a, struct blockmap *map, uint64_t start, uint64_t end,
                   const char *what, struct err *err)
{
    memset(a, 0, sizeof *a);
    a->map = map;
    a->at = start;
    a->end = end;
    a->what = what;
    a->err = err;
    next_piece(a);
}

static void claim_piece(struct account *a, uint64_t hi)
{
    if (a->rc < 0 || hi <= a->lo)
        return;
    a->rc = blockmap_claim(a->map, a->lo, hi, &a->tally, a->what, a->err);
}

void account_span(struct account *a, uint64_t to, enum category cat, uint64_t count)
{
    to = min_u64(to, a->end);
    if (a->at < to)
        a->tally.count[cat] += count;
    while (a->at < to) {
        if (a->at < a->lo) {
            uint64_t skip = min_u64(to, a->lo) - a->at;
            a->foreign += skip;
            a->at += skip;
            continue;
        }
        uint64_t part = min_u64(to, a->hi);
        a->tally.bytes[cat] += part - a->at;
        a->tally.resident[cat] += residency_bytes(a->map->res, a->at, part);
        a->at = part;
        if (a->at == a->hi && a->at < a->end) {
            claim_piece(a, a->hi);
            next_piece(a);
        }
    }
    set_easy(a);
}

void account_fail(struct account *a, int rc)
{
    if (rc < 0 && a->rc == 0)
        a->rc = err_set(a->err, (enum err_code)rc, "the chunks in use could not be kept");
}

int account_finish(struct account *a)
{
    claim_piece(a, min_u64(a->at, a->hi));
    return a->rc;
}
