/* Looking ahead: fenceposts, chains, and where chunks go on behind damage.
 *
 * A candidate is believed after CHAIN consecutive consistent headers, or CHAIN_ANCHORED if one of
 * them is known from a list, or when the chain comes to the top or a fencepost. Since a failing
 * chain has fewer than CHAIN steps the search is linear in the bytes passed; `budget` bounds it for
 * input that was made to be slow. */
#include "formats/base/num.h"
#include "walker/glibc/internal.h"

enum { CHAIN = 16, CHAIN_ANCHORED = 4 };

bool heapish_at(const struct walk *w, uint64_t addr)
{
    const struct vma *v = vma_at(w->in->vmas, addr);
    return v && vma_is_heapish(v);
}

bool probe_header(struct walk *w, uint64_t chunk, uint64_t *prev_size, uint64_t *word)
{
    const uint8_t *h = mem_window_at(&w->probe, chunk, CHUNK_HEADER);
    if (!h)
        return false;
    *prev_size = load_u64(h);
    *word = load_u64(h + 8);
    return true;
}

/* First region that ends behind addr. */
static uint64_t region_from(struct walk *w, uint64_t addr)
{
    const struct mem_region *regions;
    size_t n, lo = 0;
    if (mem_regions(w->in->mem, &regions, &n, NULL) < 0)
        return UINT64_MAX;
    for (size_t hi = n; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        if (addr >= regions[mid].end)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < n ? max_u64(addr, regions[lo].start) : UINT64_MAX;
}

uint64_t next_readable(struct walk *w, uint64_t addr)
{
    const struct residency *res = w->in->res;
    if (!res->unknown) {
        size_t i = residency_seek(res, addr);
        if (i == res->n)
            return UINT64_MAX;
        addr = max_u64(addr, res->runs[i].start);
    }
    return region_from(w, addr);
}

/* A fencepost's size word: 16 bytes, no flag but PREV_INUSE and the arena's. */
static bool fence_word(uint64_t word)
{
    return (word & ~(uint64_t)(CHUNK_PREV_INUSE | CHUNK_NON_MAIN)) == 16;
}

uint64_t fence_at(struct walk *w, const struct region *r, uint64_t p)
{
    uint64_t prev_size, word, n = 0;
    /* Two, or three where the old top had exactly 48 bytes; a heap's last one has size 0. */
    for (; n < 3 && p + 16 * n + 16 <= r->end; n++) {
        if (!probe_header(w, p + 16 * n, &prev_size, &word))
            break;
        if (n && (word & ~(uint64_t)CHUNK_FLAGS) == 0 && !w->arenas[r->arena].main) {
            n++;
            break;
        }
        if (!fence_word(word) || p + 16 * n == w->arenas[r->arena].top)
            break;
    }
    return n >= 2 ? 16 * n : 0;
}

static bool marked(const struct walk *w, uint64_t p)
{
    size_t i = marks_seek(w, p);
    return i < w->n_marks && w->marks[i].addr == p;
}

enum link { LINK_BAD, LINK_CHUNK, LINK_END };

/* What is at p of a chain with n chunks before it. */
static enum link chain_step(struct walk *w, const struct region *r, uint64_t p, unsigned n,
                            uint64_t *size)
{
    const struct arena *a = &w->arenas[r->arena];
    uint64_t prev_size, word, next;
    if (w->budget == 0 || r->end - p < CHUNK_HEADER || !probe_header(w, p, &prev_size, &word))
        return LINK_BAD;
    w->budget--;
    *size = word & ~(uint64_t)CHUNK_FLAGS;
    if (p == a->top)
        return *size <= r->end - p && word & 1 ? LINK_END : LINK_BAD;
    if (n && fence_word(word)) {
        *size = fence_at(w, r, p);
        if (*size)
            return LINK_END;
    }
    if (word & (8 | CHUNK_IS_MMAPPED) || (a->main && word & CHUNK_NON_MAIN))
        return LINK_BAD;
    if (*size < CHUNK_MIN || *size > r->end - p || r->end - p - *size < CHUNK_HEADER)
        return LINK_BAD;
    if (!probe_header(w, p + *size, &prev_size, &next))
        return LINK_BAD;
    return next & CHUNK_PREV_INUSE || prev_size == *size ? LINK_CHUNK : LINK_BAD;
}

bool believable(struct walk *w, const struct region *r, uint64_t start)
{
    bool anchored = false;
    uint64_t p = start, size;
    for (unsigned n = 0; n < CHAIN; n++) {
        switch (chain_step(w, r, p, n, &size)) {
        case LINK_BAD:
            return false;
        case LINK_END:
            return true;
        case LINK_CHUNK:
            break;
        }
        anchored = anchored || marked(w, p);
        if (anchored && n + 1 >= CHAIN_ANCHORED)
            return true;
        p += size;
    }
    return true;
}

uint64_t resync(struct walk *w, const struct region *r, uint64_t from)
{
    uint64_t p = from;
    while (p < r->end && r->end - p >= CHUNK_MIN && w->budget) {
        uint64_t prev_size, word;
        if (!chunk_header(w, p, &prev_size, &word)) {
            uint64_t there = next_readable(w, p + 1);
            /* A present page may still be unreadable: never try the same one twice. */
            p = round_up(p + 1, GLIBC_PAGE);
            p = there > p && there < r->end ? round_up(there, 16) : there < r->end ? p : r->end;
            w->budget--;
            continue;
        }
        /* The chunk before damage is not known: only a header that says it is in use will do. */
        if (word & CHUNK_PREV_INUSE && believable(w, r, p))
            return p;
        p += 16;
    }
    return r->end;
}

bool chain_complete(struct walk *w, const struct region *r, uint64_t start, uint64_t *stop)
{
    uint64_t p = start, size;
    for (unsigned n = 0;; n += n < 2) {
        enum link link = chain_step(w, r, p, n, &size);
        if (link == LINK_BAD)
            return false;
        p += size;
        if (link == LINK_END) {
            *stop = p;
            return true;
        }
    }
}
