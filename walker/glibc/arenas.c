/* Arenas and their heaps.
 *
 * The heaps of thread arenas are not on a list from an arena, but each newer one names the older
 * and all lie at multiples of HEAP_MAX_SIZE. So they are found by looking at those addresses for
 * the address of an arena of the ring: a broken `prev` or `top` then costs nothing. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/glibc/internal.h"

enum {
    /* Differences a call in progress explains: brk is moved by top_pad and the request. */
    IN_PROGRESS = 256 << 10
};

static uint64_t heap_max_of(const struct walk *w)
{
    uint64_t hp = w->roots[0].par.hp_pagesize;
    bool follows =
        w->l->heap_max_follows_hp && is_power_of_two(hp) && hp >= 1 << 20 && hp <= 1u << 30;
    return follows ? 4 * hp : 64u << 20;
}

static bool arena_index(const struct walk *w, const struct addrset *set, uint64_t addr, size_t *ret)
{
    const uint64_t *found = addrset_find(set, addr);
    if (found)
        *ret = (size_t)*found;
    return found && *ret < w->n_arenas;
}

/* An arena that the ring does not name: its heap says where it is and its header fits. */
static int adopt_arena(struct walk *w, struct addrset *set, uint64_t heap, uint64_t addr,
                       size_t *ret, struct err *err)
{
    uint8_t bytes[GLIBC_STATE_MAX];
    bool lost = arena_lost_at(w, heap, addr);
    if (!lost && (addr != heap + w->l->heap_size ||
                  mem_read(w->in->mem, addr, bytes, w->l->state_size, NULL) < 0 ||
                  !probe_convincing(w, w->l, bytes, addr, 0)))
        return 0;
    int rc = lost ? arena_add_lost(w, addr, ret, err) : arena_add(w, addr, 0, ret, err);
    if (rc < 0)
        return rc;
    if (lost)
        note_add(w->notes, "malloc.partial", addr, 0,
                 "the header of arena 0x%" PRIx64 " is missing: its fastbins count as in use",
                 addr);
    else if (!w->arenas[0].lost)
        note_add(w->notes, "malloc.ring", addr, 0,
                 "arena 0x%" PRIx64 " is on no list of arenas; found by its heap", addr);
    if (addrset_add(set, addr, *ret, NULL) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu arenas", w->n_arenas);
    return 1;
}

static int heap_add(struct walk *w, const struct heap *h, struct err *err)
{
    if (vec_reserve(&w->heaps, &w->cap_heaps, w->n_heaps + 1, sizeof *w->heaps) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu heaps", w->n_heaps + 1);
    w->heaps[w->n_heaps++] = *h;
    w->arenas[h->arena].heaps++;
    return 0;
}

/* Bring a heap's sizes within what is mapped. */
static void heap_trim(struct walk *w, struct heap *h)
{
    uint64_t mapped = vma_heapish_end(w->in->vmas, h->addr) - h->addr;
    mapped = min_u64(mapped, w->heap_max);
    if (h->size > mapped || h->size % GLIBC_PAGE ||
        h->size < (uint64_t)w->l->heap_size + CHUNK_MIN) {
        note_add(w->notes, "malloc.damaged", h->addr, 0,
                 "heap 0x%" PRIx64 " says it has 0x%" PRIx64 " bytes; 0x%" PRIx64 " are mapped",
                 h->addr, h->size, mapped);
        h->size = mapped;
    }
    if (h->mprotect_size < h->size || h->mprotect_size > mapped)
        h->mprotect_size = h->size;
}

static int heap_try(struct walk *w, struct addrset *set, uint64_t addr, struct err *err)
{
    uint8_t bytes[GLIBC_HEAP_INFO_READ];
    size_t arena;
    if (mem_read(w->in->mem, addr, bytes, sizeof bytes, NULL) < 0)
        return 0;
    uint64_t ar = glibc_layout_get(w->l, bytes, HEAP_ARENA);
    if (!arena_index(w, set, ar, &arena)) {
        int rc = adopt_arena(w, set, addr, ar, &arena, err);
        if (rc <= 0)
            return rc;
    }
    if (w->arenas[arena].main)
        return 0;
    struct heap h = {addr, glibc_layout_get(w->l, bytes, HEAP_PREV),
                     glibc_layout_get(w->l, bytes, HEAP_SIZE),
                     glibc_layout_get(w->l, bytes, HEAP_MPROTECT_SIZE), arena};
    heap_trim(w, &h);
    return heap_add(w, &h, err);
}

static int heaps_scan(struct walk *w, struct addrset *set, struct err *err)
{
    for (size_t i = 0; i < w->in->vmas->n; i++) {
        const struct vma *v = &w->in->vmas->items[i];
        if (!vma_is_heapish(v) || v->end > UINT64_MAX - w->heap_max)
            continue;
        for (uint64_t a = round_up(v->start, w->heap_max); a < v->end; a += w->heap_max) {
            if (next_readable(w, a) != a || blockmap_at(w->map, a))
                continue;
            int rc = heap_try(w, set, a, err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

int heaps_find(struct walk *w, struct err *err)
{
    struct addrset set;
    addrset_init(&set);
    int rc = 0;
    w->heap_max = heap_max_of(w);
    for (size_t i = 0; i < w->n_arenas && rc == 0; i++)
        if (w->arenas[i].addr && addrset_add(&set, w->arenas[i].addr, i, NULL) < 0)
            rc = err_set(err, ERR_NOMEM, "no memory for %zu arenas", w->n_arenas);
    if (rc == 0)
        rc = heaps_scan(w, &set, err);
    addrset_release(&set);
    return rc;
}

static const struct heap *heap_of(const struct walk *w, uint64_t addr)
{
    size_t lo = 0;
    for (size_t hi = w->n_heaps; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        if (addr >= w->heaps[mid].addr + w->heaps[mid].size)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < w->n_heaps && w->heaps[lo].addr <= addr ? &w->heaps[lo] : NULL;
}

size_t arena_of(const struct walk *w, uint64_t addr)
{
    const struct heap *h = heap_of(w, addr);
    return h ? h->arena : 0;
}

static void note_foreign(struct walk *w, const struct account *acc, uint64_t start)
{
    if (acc->foreign)
        note_remark(w->notes, "malloc.shared", start, acc->foreign,
                    "%" PRIu64 " bytes of this heap are told under what was made of them",
                    acc->foreign);
}

static int heap_walk(struct walk *w, const struct heap *h, struct err *err)
{
    struct arena *a = &w->arenas[h->arena];
    uint64_t end = h->addr + h->size, start = h->addr + w->l->heap_size;
    if (start == a->addr)
        start = round_up(a->addr + w->l->state_size, 16);
    struct account acc;
    account_begin(&acc, w->map, h->addr, h->addr + h->mprotect_size, "malloc heap", err);
    struct region r = {min_u64(start, end), end, h->arena, false};
    a->overhead += r.start - h->addr;
    account_span(&acc, r.start, CAT_MALLOC_OVERHEAD, 0);
    chunks_walk(w, &r, &acc);
    if (acc.at < end) {
        uint64_t left = end - acc.at;
        note_add(w->notes, "malloc.damaged", acc.at, left,
                 "the chunks of heap 0x%" PRIx64 " end %" PRIu64 " bytes before it does", h->addr,
                 left);
        a->damaged += left;
        account_span(&acc, end, CAT_UNKNOWN, 0);
    }
    /* Given back by the heap but still mapped: nobody's chunk and not in system_mem. */
    account_span(&acc, acc.end, CAT_MALLOC_OVERHEAD, 0);
    note_foreign(w, &acc, h->addr);
    return account_finish(&acc);
}

/* Where main_arena's first region ends: at the break if that is known, else with its mapping. */
static uint64_t main_end(const struct walk *w, uint64_t start, bool *brk)
{
    const struct vma *v = vma_at(w->in->vmas, start);
    uint64_t end = vma_heapish_end(w->in->vmas, start), curbrk = w->in->curbrk;
    *brk = v->kind == VMA_HEAP;
    if (curbrk > start && curbrk <= end) {
        *brk = true;
        return min_u64(end, round_up(curbrk, GLIBC_PAGE));
    }
    if (!*brk)
        return end;
    for (end = v->end; (v = vma_at(w->in->vmas, end)) && v->kind == VMA_HEAP && vma_is_heapish(v);)
        end = v->end;
    return end;
}

/* Where main_arena starts; 0 if it never had memory of its own. */
static uint64_t main_start(const struct walk *w, const struct root *root)
{
    if (root->par.known && heapish_at(w, root->par.sbrk_base))
        return root->par.sbrk_base;
    for (size_t i = 0; i < w->in->vmas->n && !root->par.sbrk_base; i++)
        if (w->in->vmas->items[i].kind == VMA_HEAP && vma_is_heapish(&w->in->vmas->items[i]))
            return root->par.known ? 0 : w->in->vmas->items[i].start;
    return 0;
}

static int main_walk(struct walk *w, size_t arena, struct err *err)
{
    struct arena *a = &w->arenas[arena];
    uint64_t base = main_start(w, &w->roots[a->root]);
    if (base == 0)
        return 0;
    bool brk;
    struct region r = {round_up(base, 16), main_end(w, base, &brk), arena, false};
    r.gaps = brk;
    if (r.end < r.start || r.end - r.start < CHUNK_MIN)
        return 0;
    struct account acc;
    account_begin(&acc, w->map, base, r.end, "malloc heap", err);
    a->overhead += r.start - base;
    account_span(&acc, r.start, CAT_MALLOC_OVERHEAD, 0);
    chunks_walk(w, &r, &acc);
    a->heaps++;
    note_foreign(w, &acc, base);
    return account_finish(&acc);
}

int arenas_walk(struct walk *w, struct err *err)
{
    for (size_t i = 0; i < w->n_arenas; i++) {
        int rc = w->arenas[i].main ? main_walk(w, i, err) : 0;
        if (rc < 0)
            return rc;
    }
    for (size_t i = 0; i < w->n_heaps; i++) {
        int rc = heap_walk(w, &w->heaps[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

uint64_t arena_bytes(const struct arena *a)
{
    return a->used.bytes + a->cached.bytes + a->free.bytes + a->top_sum.bytes + a->overhead +
           a->damaged;
}

static void check_sum(struct walk *w, const struct arena *a)
{
    uint64_t have = arena_bytes(a);
    uint64_t diff = have > a->system_mem ? have - a->system_mem : a->system_mem - have;
    if (diff == 0)
        return;
    const char *fmt = "arena 0x%" PRIx64 ": chunks sum to %" PRIu64 " bytes, its system_mem is "
                      "%" PRIu64;
    if (diff <= IN_PROGRESS && a->damaged == 0)
        note_remark(w->notes, "malloc.identity", a->addr, diff, fmt, a->addr, have, a->system_mem);
    else
        note_add(w->notes, "malloc.identity", a->addr, diff, fmt, a->addr, have, a->system_mem);
}

/* The newest heap holds top; each names the one before it. */
static void check_heaps(struct walk *w)
{
    for (size_t i = 0; i < w->n_heaps; i++) {
        const struct heap *h = &w->heaps[i], *prev = heap_of(w, h->prev);
        if (h->prev && (!prev || prev->addr != h->prev || prev->arena != h->arena))
            note_add(w->notes, "malloc.heaps", h->addr, 0,
                     "heap 0x%" PRIx64 " names 0x%" PRIx64 " as the one before it, which is not a "
                     "heap of its arena",
                     h->addr, h->prev);
    }
}

void arenas_check(struct walk *w)
{
    check_heaps(w);
    for (size_t i = 0; i < w->n_arenas; i++) {
        struct arena *a = &w->arenas[i];
        if (a->lost) { /* what was seen of it is all that is known */
            a->system_mem = arena_bytes(a);
            continue;
        }
        if (!a->top_seen && a->system_mem)
            note_add(w->notes, "malloc.top", a->addr, 0,
                     "no heap of arena 0x%" PRIx64 " has its top 0x%" PRIx64, a->addr, a->top);
        check_sum(w, a);
    }
}
