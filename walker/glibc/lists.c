/* Lists of free chunks: fastbins (collected before the walk, because their chunks look in use) and
 * bins (only counted, afterwards: their chunks are seen by the walk, which knows the sizes). */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/glibc/internal.h"

int mark_add(struct walk *w, uint64_t chunk, enum mark_kind kind, bool *fresh, struct err *err)
{
    if (addrset_add(&w->marked, chunk, kind, fresh) < 0 ||
        vec_reserve(&w->marks, &w->cap_marks, w->n_marks + 1, sizeof *w->marks) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu cached chunks", w->n_marks + 1);
    if (*fresh)
        w->marks[w->n_marks++] = (struct mark){chunk, (uint8_t)kind, false};
    return 0;
}

static int by_address(const void *a, const void *b)
{
    uint64_t x = ((const struct mark *)a)->addr, y = ((const struct mark *)b)->addr;
    return x < y ? -1 : x > y;
}

void marks_sort(struct walk *w)
{
    if (w->n_marks)
        qsort(w->marks, w->n_marks, sizeof *w->marks, by_address);
}

size_t marks_seek(const struct walk *w, uint64_t addr)
{
    size_t lo = 0;
    for (size_t hi = w->n_marks; lo < hi;) {
        size_t mid = lo + (hi - lo) / 2;
        if (w->marks[mid].addr < addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

void marks_check(struct walk *w)
{
    for (size_t i = 0; i < w->n_marks; i++)
        if (!w->marks[i].seen)
            note_remark(w->notes, "malloc.cached", w->marks[i].addr, 0,
                        "a list of cached chunks names 0x%" PRIx64 ", where the walk saw none",
                        w->marks[i].addr);
}

uint64_t link_decode(const struct walk *w, uint64_t field, uint64_t value)
{
    return w->l->safe_linking ? value ^ field >> 12 : value;
}

/* A link may end a list or name a chunk of the list's size. */
static bool link_fits(struct walk *w, uint64_t link, uint64_t size, uint64_t bias)
{
    uint64_t prev_size, word;
    if (link == 0)
        return true;
    return link % 16 == 0 && heapish_at(w, link) &&
           probe_header(w, link - bias, &prev_size, &word) &&
           (word & ~(uint64_t)CHUNK_FLAGS) == size;
}

void link_probe(struct walk *w, uint64_t field, uint64_t size, uint64_t bias)
{
    unsigned safe = 0;
    uint64_t value;
    for (int i = 0; i < GLIBC_LAYOUTS; i++)
        safe |= glibc_layouts[i].safe_linking ? 1u << i : 0;
    if (!(w->rows & safe) || !(w->rows & ~safe) || mem_u64(w->in->mem, field, &value, NULL) < 0)
        return;
    bool raw = link_fits(w, value, size, bias);
    bool mangled = link_fits(w, value ^ field >> 12, size, bias);
    if (raw != mangled)
        w->rows &= mangled ? safe : ~safe;
}

void fastbins_probe(struct walk *w)
{
    for (size_t i = 0; i < w->n_arenas; i++)
        for (unsigned k = 0; k < GLIBC_FASTBINS; k++)
            if (w->arenas[i].fastbins[k])
                link_probe(w, w->arenas[i].fastbins[k] + 16, 32 + 16 * k, 0);
}

/* Mark the chunks of one fastbin. The set of marks is its seen-set. */
static int fastbin_collect(struct walk *w, const struct arena *a, unsigned k, struct err *err)
{
    uint64_t chunk = a->fastbins[k], size = 32 + 16 * (uint64_t)k;
    while (chunk) {
        uint64_t prev_size, word, link;
        bool fresh = false;
        if (chunk & 15 || !heapish_at(w, chunk) || !probe_header(w, chunk, &prev_size, &word) ||
            (word & ~(uint64_t)CHUNK_FLAGS) != size)
            break;
        int rc = mark_add(w, chunk, MARK_FASTBIN, &fresh, err);
        if (rc < 0)
            return rc;
        if (!fresh || mem_u64(w->in->mem, chunk + 16, &link, NULL) < 0)
            break;
        chunk = link_decode(w, chunk + 16, link);
    }
    if (chunk)
        note_add(w->notes, "malloc.fastbin", chunk, 0,
                 "fastbin %u of arena 0x%" PRIx64 " goes on to 0x%" PRIx64
                 ", which is not a chunk of %" PRIu64 " bytes",
                 k, a->addr, chunk, size);
    return 0;
}

int fastbins_collect(struct walk *w, struct err *err)
{
    for (size_t i = 0; i < w->n_arenas; i++)
        for (unsigned k = 0; k < GLIBC_FASTBINS; k++) {
            int rc = fastbin_collect(w, &w->arenas[i], k, err);
            if (rc < 0)
                return rc;
        }
    return 0;
}

/* Follow one bin from its head back to its head. False if it does not lead there. Loops are found
 * with a checkpoint that moves ahead (Brent) instead of a set: bins may hold millions. */
static bool bin_count(struct walk *w, struct arena *a, uint64_t head, uint64_t first,
                      uint64_t *left)
{
    uint64_t at = first, back = head, checkpoint = head, steps = 0, stride = 1;
    while (at != head) {
        const uint8_t *p = at & 15 ? NULL : mem_window_at(&w->probe, at + 16, 16);
        if (!p || *left == 0)
            return false;
        --*left;
        uint64_t fd = load_u64(p), bk = load_u64(p + 8);
        if (at == checkpoint)
            return false;
        a->torn += bk != back;
        a->listed.n++;
        a->listed_hash += hash_addr(at);
        if (++steps == stride) {
            checkpoint = at;
            stride *= 2;
        }
        back = at;
        at = fd;
    }
    return true;
}

static void compare_bins(struct walk *w, struct arena *a)
{
    uint64_t allowed = w->in->n_threads > 3 ? w->in->n_threads : 3;
    if (a->bins_broken || a->torn > allowed) {
        note_add(w->notes, "malloc.bins", a->addr, 0,
                 "the bins of arena 0x%" PRIx64 " are broken: %" PRIu64
                 " chunks on its lists, %" PRIu64 " free chunks seen, %" PRIu64
                 " links do not lead back",
                 a->addr, a->listed.n, a->free.n, a->torn);
        return;
    }
    if (a->listed.n == a->free.n && a->listed_hash == a->free_hash)
        return;
    uint64_t more = a->free.n > a->listed.n ? a->free.n - a->listed.n : 0;
    w->transit += more;
    if (a->listed.n <= a->free.n && more <= allowed)
        note_remark(w->notes, "malloc.transit", a->addr, 0,
                    "arena 0x%" PRIx64 ": %" PRIu64 " free chunks are on no list, as while a call "
                    "is in progress",
                    a->addr, more);
    else
        note_add(w->notes, "malloc.bins", a->addr, 0,
                 "arena 0x%" PRIx64 " has %" PRIu64 " chunks on its lists and %" PRIu64
                 " free chunks in its heaps",
                 a->addr, a->listed.n, a->free.n);
}

/* The bins and the free chunks that the walk saw form whole lists: the fd links name each of them
 * once, and so do the bk links. Costs nothing, where following the lists of a large heap costs a
 * random page for each chunk. Sums of hashes: a heap that was made to deceive could pass. */
static bool lists_whole(const struct arena *a, uint64_t bins_at, const uint8_t *pairs)
{
    uint64_t names = a->free_hash, fd = a->fd_hash, bk = a->bk_hash;
    for (uint64_t b = 0; b < GLIBC_BINS; b++) {
        names += hash_addr(bins_at + 16 * b - 16);
        fd += hash_addr(load_u64(pairs + 16 * b));
        bk += hash_addr(load_u64(pairs + 16 * b + 8));
    }
    return !a->links_unread && fd == names && bk == names;
}

void bins_count(struct walk *w)
{
    for (size_t i = 0; i < w->n_arenas; i++) {
        struct arena *a = &w->arenas[i];
        uint8_t pairs[16 * GLIBC_BINS];
        uint64_t at = a->addr + (uint64_t)w->l->offset[STATE_BINS];
        uint64_t left = 2 * a->free.n + 1024;
        if (a->lost) {
            a->bins_broken = true;
            continue;
        }
        if (mem_read(w->in->mem, at, pairs, sizeof pairs, NULL) < 0) {
            a->bins_broken = true;
            memset(pairs, 0, sizeof pairs);
        }
        if (!a->bins_broken && lists_whole(a, at, pairs)) {
            a->listed.n = a->free.n;
            a->listed_hash = a->free_hash;
            continue;
        }
        for (unsigned b = 0; b < GLIBC_BINS && !a->bins_broken; b++)
            if (!bin_count(w, a, at + 16 * b - 16, load_u64(pairs + 16 * b), &left))
                a->bins_broken = true;
        compare_bins(w, a);
    }
}
