#include "formats/utilisation.h"

#include <string.h>

/* used is at least `parts` / `of` of size. The sizes may be anything: a file can claim 2^63. */
static bool at_least(uint64_t used, uint64_t size, unsigned parts, unsigned of)
{
    return (unsigned __int128)used * of >= (unsigned __int128)size * parts;
}

bool utilisation_is_sparse(const struct snapshot_arena *a)
{
    return a->size && at_least(a->size, a->bytes_used, 100, UTILISATION_SPARSE_PERCENT);
}

static unsigned bucket_of(const struct snapshot_arena *a)
{
    unsigned i = UTILISATION_BUCKETS - 1;
    while (i > 0 && !at_least(a->bytes_used, a->size, i, UTILISATION_BUCKETS))
        i--;
    return i;
}

void utilisation_of(const struct snapshot *snap, struct utilisation *ret)
{
    memset(ret, 0, sizeof *ret);
    for (unsigned i = 0; i < UTILISATION_BUCKETS; i++) {
        ret->buckets[i].from_percent = i * 100 / UTILISATION_BUCKETS;
        ret->buckets[i].to_percent = (i + 1) * 100 / UTILISATION_BUCKETS;
    }
    for (size_t i = 0; i < snap->n_arenas; i++) {
        const struct snapshot_arena *a = &snap->arenas[i];
        if (!a->size)
            continue;
        struct utilisation_bucket *b = &ret->buckets[bucket_of(a)];
        b->arenas++;
        b->bytes_used += a->bytes_used;
        b->size += a->size;
        if (utilisation_is_sparse(a)) {
            ret->sparse_arenas++;
            ret->reclaimable_bytes += a->size;
        }
    }
}
