/* Caches that belong to no thread we know: fork keeps the caches of threads that do not exist in
 * the child, and a target that runs has no registers to read. Nothing points to them, so they are
 * told by size and content during the walk, and their chunks are corrected from used to cached. */
#include <inttypes.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/glibc/internal.h"

enum { ORPHANS_MAX = 65536, ORPHAN_LIST_MAX = 65536 };

bool tcache_read(struct walk *w, const struct glibc_layout *l, uint64_t addr, struct tcache_view *v)
{
    const struct glibc_tcache *t = &l->tcache;
    const uint8_t *p = mem_window_at(&w->probe, addr, t->size);
    if (!p)
        return false;
    *v = (struct tcache_view){.addr = addr};
    for (unsigned i = 0; i < t->bins; i++) {
        v->heads[i] = load_u64(p + t->entries + 8 * i);
        v->counts[i] = t->count_width == 1 ? p[i] : load_u16(p + 2 * i);
        v->entries += v->heads[i] != 0;
    }
    return true;
}

/* The header of a list's first chunk fits its bin. */
static bool head_fits(struct walk *w, const struct glibc_tcache *t, unsigned bin, uint64_t user)
{
    uint64_t prev_size, word;
    if (user & 15 || !heapish_at(w, user))
        return false;
    if (!probe_header(w, user - 16, &prev_size, &word))
        return w->in->partial; /* what is missing contradicts nothing */
    if (word & CHUNK_IS_MMAPPED && !t->holds_mmapped)
        return false;
    return tcache_bin_of(t, word & ~(uint64_t)CHUNK_FLAGS) == (int)bin;
}

unsigned tcache_faults(struct walk *w, const struct glibc_layout *l, const struct tcache_view *v,
                       unsigned limit)
{
    const struct glibc_tcache *t = &l->tcache;
    const struct par *par = &w->roots[0].par;
    unsigned faults = 0;
    for (unsigned i = 0; i < t->bins && faults < limit; i++) {
        bool some = v->heads[i] != 0, says = v->counts[i] != 0;
        if (t->counts_down) {
            says = par->known ? v->counts[i] < par->tcache_count : some;
            if (par->known && v->counts[i] > par->tcache_count)
                says = !some;
        }
        if (some != says || (some && !head_fits(w, t, i, v->heads[i])))
            faults++;
    }
    return faults;
}

void orphan_consider(struct walk *w, uint64_t chunk, uint64_t size)
{
    struct tcache_view v;
    if (size < w->l->tcache.size || w->n_orphans >= ORPHANS_MAX ||
        !tcache_read(w, w->l, chunk + 16, &v) || v.entries == 0 ||
        tcache_faults(w, w->l, &v, 1) > 0)
        return;
    /* Out of memory here only means an uncorrected cache. */
    if (vec_reserve(&w->orphans, &w->cap_orphans, w->n_orphans + 1, sizeof *w->orphans) == 0)
        w->orphans[w->n_orphans++] = chunk + 16;
    else
        note_add(w->notes, "malloc.orphan", chunk, 0, "no memory to look at a cache at 0x%" PRIx64,
                 chunk + 16);
}

/* Each cached chunk holds a key: the cache's address (to 2.33) or one number for the process. User
 * memory that once was a cache and kept its bytes does not pass. */
static bool keys_agree(struct walk *w, const struct tcache_view *v)
{
    uint64_t key = w->tcache_key, k;
    for (unsigned i = 0; i < w->l->tcache.bins && w->l->tcache.has_key; i++) {
        if (!v->heads[i])
            continue;
        if (mem_u64(w->in->mem, v->heads[i] + 8, &k, NULL) < 0 || k == 0)
            return false;
        if (key == 0)
            key = k;
        if (k != key && k != v->addr)
            return false;
    }
    return true;
}

/* Move a chunk's bytes in the ledger. The extent is the ledger's own and not const; blockmap_at
 * only promises readers not to change it. */
static void ledger_move(struct walk *w, uint64_t chunk, uint64_t size, enum category to)
{
    struct extent *e = (struct extent *)blockmap_at(w->map, chunk);
    uint64_t resident = residency_bytes(w->in->res, chunk, chunk + size);
    if (!e || e->end - chunk < size || e->tally.bytes[CAT_MALLOC_USED] < size ||
        e->tally.resident[CAT_MALLOC_USED] < resident || e->tally.count[CAT_MALLOC_USED] == 0)
        return;
    e->tally.bytes[CAT_MALLOC_USED] -= size;
    e->tally.bytes[to] += size;
    e->tally.resident[CAT_MALLOC_USED] -= resident;
    e->tally.resident[to] += resident;
    e->tally.count[CAT_MALLOC_USED]--;
    e->tally.count[to]++;
}

/* Take a chunk from the arena's used ones. 0 if it cannot have been among them, 1, or an error of
 * whoever listens. */
static int take_used(struct walk *w, uint64_t chunk, enum category to, enum glibc_state state)
{
    uint64_t prev_size, word, next;
    struct arena *a = &w->arenas[arena_of(w, chunk)];
    const struct extent *e = blockmap_at(w->map, chunk);
    if (!e || !probe_header(w, chunk, &prev_size, &word))
        return 0;
    uint64_t size = word & ~(uint64_t)CHUNK_FLAGS;
    if (word & CHUNK_IS_MMAPPED || e->end - chunk < size || a->used.n == 0 ||
        a->used.bytes < size || !probe_header(w, chunk + size, &prev_size, &next) ||
        !(next & CHUNK_PREV_INUSE))
        return 0;
    a->used.n--;
    a->used.bytes -= size;
    if (state == GLIBC_INTERNAL) {
        a->overhead += size;
    } else {
        a->cached.n++;
        a->cached.bytes += size;
    }
    ledger_move(w, chunk, size, to);
    int rc = chunk_tell(w, chunk, size, state);
    if (rc == 0 && w->in->used)
        rc = w->in->used(w->in->used_ctx, chunk + CHUNK_HEADER, 0);
    return rc < 0 ? rc : 1;
}

static int not_kept(int rc, struct err *err)
{
    return err_set(err, (enum err_code)rc, "the chunks in use could not be kept");
}

static int orphan_list(struct walk *w, uint64_t user, unsigned bin, struct sum *moved,
                       struct err *err)
{
    for (unsigned n = 0; user && n < ORPHAN_LIST_MAX; n++) {
        uint64_t link;
        bool fresh;
        if (!head_fits(w, &w->l->tcache, bin, user) || mem_u64(w->in->mem, user, &link, NULL) < 0)
            break;
        if (addrset_add(&w->marked, user - 16, MARK_TCACHE, &fresh) < 0)
            return err_set(err, ERR_NOMEM, "no memory for cached chunks");
        int rc = fresh ? take_used(w, user - 16, CAT_MALLOC_CACHED, GLIBC_CACHED) : 0;
        if (rc < 0)
            return not_kept(rc, err);
        if (rc == 0)
            break;
        moved->n++;
        user = link_decode(w, user, link);
    }
    return 0;
}

int orphans_apply(struct walk *w, struct err *err)
{
    size_t found = 0;
    for (size_t i = 0; i < w->n_orphans; i++) {
        struct tcache_view v;
        struct sum moved = {0, 0};
        bool fresh;
        if (!tcache_read(w, w->l, w->orphans[i], &v) || !keys_agree(w, &v))
            continue;
        if (addrset_add(&w->marked, v.addr - 16, MARK_TCACHE_STRUCT, &fresh) < 0)
            return err_set(err, ERR_NOMEM, "no memory for cached chunks");
        int rc = fresh ? take_used(w, v.addr - 16, CAT_MALLOC_OVERHEAD, GLIBC_INTERNAL) : 0;
        if (rc < 0)
            return not_kept(rc, err);
        if (rc == 0)
            continue;
        for (unsigned b = 0; b < w->l->tcache.bins; b++) {
            rc = orphan_list(w, v.heads[b], b, &moved, err);
            if (rc < 0)
                return rc;
        }
        found++;
        if (w->in->n_threads && !w->in->partial)
            note_remark(w->notes, "malloc.orphan", v.addr, 0,
                        "cache at 0x%" PRIx64 " with %" PRIu64
                        " chunks belongs to a thread that did not survive fork",
                        v.addr, moved.n);
    }
    if (found && (w->in->partial || !w->in->n_threads))
        note_remark(w->notes, "malloc.caches", 0, 0,
                    w->in->partial
                        ? "the pointers to %zu caches are missing: they were found by content"
                        : "without registers of threads, %zu of their caches were found by content",
                    found);
    return 0;
}
