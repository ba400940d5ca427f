/* The threads' caches. Each thread's pointer to its cache is a TLS variable of libc, at the same
 * distance below fs_base in every thread; the distance is found by looking for pointers to what has
 * the size and the content of a cache. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/glibc/internal.h"

enum {
    TLS_REACH = 128 << 10, /* executables with large TLS push libc's down */
    TLS_THREADS = 4,       /* threads looked at in full; the others must agree */
    NEAR_WORDS = 12,       /* thread_arena lies this close to the slot in every build seen */
    SLOT_FAULTS = 2,       /* a call in progress leaves one bin half done */
    TCACHE_LIST_MAX = 65536
};

struct slots {
    struct addrset scores; /* distance below fs_base -> score */
    uint64_t *words;       /* the TLS of one thread, highest address last */
};

unsigned rows_of_size(unsigned rows, uint64_t size)
{
    unsigned fit = 0;
    for (int i = 0; i < GLIBC_LAYOUTS; i++) {
        const struct glibc_tcache *t = &glibc_layouts[i].tcache;
        if (rows & 1u << i && (size == t->chunk_size || size == t->chunk_size + t->chunk_span))
            fit |= 1u << i;
    }
    return fit;
}

/* Read what may be a cache at user address `addr`: the layouts it fits, 0 if none. */
static unsigned tcache_try(struct walk *w, uint64_t addr, unsigned faults, struct tcache_view *v)
{
    uint64_t prev_size, word;
    if (addr & 15 || addr < GLIBC_PAGE || !heapish_at(w, addr) ||
        !probe_header(w, addr - 16, &prev_size, &word) || word & CHUNK_IS_MMAPPED)
        return 0;
    unsigned rows = rows_of_size(w->rows, word & ~(uint64_t)CHUNK_FLAGS);
    const struct glibc_layout *l = glibc_layout_first(rows);
    if (!l || !tcache_read(w, l, addr, v) || tcache_faults(w, l, v, faults + 1) > faults)
        return 0;
    return rows;
}

static bool is_arena(const struct walk *w, uint64_t addr)
{
    for (size_t i = 0; addr && i < w->n_arenas; i++)
        if (w->arenas[i].addr == addr)
            return true;
    return false;
}

static bool arena_near(const struct walk *w, const uint64_t *words, size_t n, size_t at)
{
    size_t lo = at > NEAR_WORDS ? at - NEAR_WORDS : 0, hi = min_u64(n, at + NEAR_WORDS + 1);
    for (size_t i = lo; i < hi; i++)
        if (is_arena(w, words[i]))
            return true;
    return false;
}

/* The n words below fs; zeros where a page is absent: the mapping may hold more than the TLS. */
static void tls_read(struct walk *w, uint64_t fs, size_t n, uint64_t *words)
{
    uint64_t start = fs - 8 * n;
    memset(words, 0, 8 * n);
    for (uint64_t at = start; at < fs;) {
        uint64_t end = min_u64(fs, round_down(at, GLIBC_PAGE) + GLIBC_PAGE);
        mem_read_some(w->in->mem, at, (uint8_t *)words + (at - start), (size_t)(end - at));
        at = end;
    }
}

static int score_thread(struct walk *w, struct slots *s, uint64_t fs, struct err *err)
{
    const struct vma *v = vma_at(w->in->vmas, fs - 8);
    if (!v || fs & 7)
        return 0;
    uint64_t lo = max_u64(v->start, fs > TLS_REACH ? fs - TLS_REACH : 0);
    size_t n = (size_t)(fs - lo) / 8;
    tls_read(w, fs, n, s->words);
    for (size_t i = 0; i < n; i++) {
        struct tcache_view view;
        if (!tcache_try(w, s->words[i], 0, &view))
            continue;
        uint64_t score = (view.entries ? 8 : 1) + (arena_near(w, s->words, n, i) ? 4 : 0);
        uint64_t distance = 8 * (n - i);
        bool fresh;
        if (addrset_add(&s->scores, distance, 0, &fresh) < 0)
            return err_set(err, ERR_NOMEM, "no memory for TLS slots");
        *addrset_find(&s->scores, distance) += score;
    }
    return 0;
}

/* The distance with the highest score, below which nothing is believed; 0 if there is none. A
 * single empty cache without an arena beside it might be anything. */
static uint64_t best_slot(struct slots *s)
{
    uint64_t best = 0, most = 4;
    for (size_t i = 0; i < s->scores.cap; i++) {
        const struct addrset_slot *slot = &s->scores.slots[i];
        if (slot->key && slot->value > most) {
            most = slot->value;
            best = slot->key;
        }
    }
    return best;
}

static int take_slot(struct walk *w, uint64_t distance, struct err *err)
{
    for (size_t t = 0; t < w->in->n_threads; t++) {
        uint64_t addr = 0;
        struct tcache_view v;
        if (mem_u64(w->in->mem, w->in->fs_bases[t] - distance, &addr, NULL) < 0 || addr == 0)
            continue;
        unsigned rows = tcache_try(w, addr, SLOT_FAULTS, &v);
        if (!rows) {
            /* 2.43 points threads without a cache to a constant in libc. */
            if (heapish_at(w, addr))
                note_add(w->notes, "malloc.tcache", addr, 0,
                         "thread with fs_base 0x%" PRIx64 " has no sane cache at 0x%" PRIx64,
                         w->in->fs_bases[t], addr);
            continue;
        }
        w->rows &= rows;
        if (vec_reserve(&w->tcaches, &w->cap_tcaches, w->n_tcaches + 1, sizeof *w->tcaches) < 0)
            return err_set(err, ERR_NOMEM, "no memory for %zu caches", w->n_tcaches + 1);
        w->tcaches[w->n_tcaches++] = addr;
    }
    return 0;
}

static int slots_find(struct walk *w, struct slots *s, struct err *err)
{
    int rc = 0;
    for (size_t t = 0; t < w->in->n_threads && t < TLS_THREADS && rc == 0; t++)
        rc = score_thread(w, s, w->in->fs_bases[t], err);
    /* One slot for each glibc in the process. */
    for (size_t r = 0; r < w->n_roots && rc == 0; r++) {
        uint64_t distance = best_slot(s);
        if (distance == 0)
            break;
        *addrset_find(&s->scores, distance) = 0;
        rc = take_slot(w, distance, err);
    }
    return rc;
}

/* Without threads to ask: up to 2.42 the cache is the first chunk of main_arena. */
static void strike_by_first_chunk(struct walk *w)
{
    uint64_t prev_size, word;
    for (size_t r = 0; r < w->n_roots; r++) {
        if (!w->roots[r].par.known ||
            !probe_header(w, round_up(w->roots[r].par.sbrk_base, 16), &prev_size, &word))
            continue;
        unsigned fit = rows_of_size(w->rows, word & ~(uint64_t)CHUNK_FLAGS);
        if (fit)
            w->rows = fit;
    }
}

static void links_probe(struct walk *w)
{
    for (size_t t = 0; t < w->n_tcaches; t++) {
        struct tcache_view v;
        const struct glibc_layout *l = glibc_layout_first(w->rows);
        if (!tcache_read(w, l, w->tcaches[t], &v))
            continue;
        for (unsigned i = 0; i < TCACHE_SMALL_BINS; i++)
            if (v.heads[i])
                link_probe(w, v.heads[i], 32 + 16 * i, 16);
    }
    fastbins_probe(w);
}

int tcache_find(struct walk *w, struct err *err)
{
    struct slots s = {.words = malloc(TLS_REACH)};
    if (!s.words)
        return err_set(err, ERR_NOMEM, "no memory for a thread's TLS");
    addrset_init(&s.scores);
    int rc = slots_find(w, &s, err);
    addrset_release(&s.scores);
    free(s.words);
    if (rc < 0)
        return rc;
    if (w->n_tcaches == 0)
        strike_by_first_chunk(w);
    links_probe(w);
    w->l = glibc_layout_first(w->rows);
    return 0;
}

/* Mark the chunks of one list. *n is its length. */
static int list_collect(struct walk *w, const struct tcache_view *v, unsigned bin, uint64_t *n,
                        struct err *err)
{
    uint64_t user = v->heads[bin];
    for (*n = 0; user && *n < TCACHE_LIST_MAX; ++*n) {
        uint64_t prev_size, word, link;
        bool fresh = false;
        if (user & 15 || !heapish_at(w, user) || !probe_header(w, user - 16, &prev_size, &word) ||
            tcache_bin_of(&w->l->tcache, word & ~(uint64_t)CHUNK_FLAGS) != (int)bin)
            break;
        int rc = mark_add(w, user - 16, MARK_TCACHE, &fresh, err);
        if (rc < 0)
            return rc;
        if (!fresh || mem_u64(w->in->mem, user, &link, NULL) < 0)
            break;
        user = link_decode(w, user, link);
    }
    if (user)
        note_add(w->notes, "malloc.tcache", v->addr, 0,
                 "bin %u of the cache at 0x%" PRIx64 " goes on to 0x%" PRIx64
                 ", which is not a chunk of its size",
                 bin, v->addr, user);
    return 0;
}

/* The length that the counters claim. Slots are counted down from mp_.tcache_count. */
static uint64_t counted(const struct walk *w, const struct tcache_view *v, unsigned bin)
{
    uint64_t count = w->roots[0].par.tcache_count;
    if (!w->l->tcache.counts_down)
        return v->counts[bin];
    return count > v->counts[bin] ? count - v->counts[bin] : 0;
}

static void check_count(struct walk *w, const struct tcache_view *v, unsigned bin, uint64_t n)
{
    uint64_t want = counted(w, v, bin);
    if (n == want || (w->l->tcache.counts_down && !w->roots[0].par.known))
        return;
    note_remark(w->notes, "malloc.tcache", v->addr, 0,
                "bin %u of the cache at 0x%" PRIx64 " has %" PRIu64 " chunks and counts %" PRIu64,
                bin, v->addr, n, want);
}

static void learn_key(struct walk *w, const struct tcache_view *v)
{
    for (unsigned i = 0; i < w->l->tcache.bins && w->l->safe_linking && !w->tcache_key; i++) {
        uint64_t key;
        if (v->heads[i] && mem_u64(w->in->mem, v->heads[i] + 8, &key, NULL) == 0 && key != v->addr)
            w->tcache_key = key;
    }
}

int tcache_collect(struct walk *w, struct err *err)
{
    for (size_t t = 0; t < w->n_tcaches; t++) {
        struct tcache_view v;
        bool fresh;
        int rc = mark_add(w, w->tcaches[t] - 16, MARK_TCACHE_STRUCT, &fresh, err);
        if (rc < 0)
            return rc;
        if (!fresh || !tcache_read(w, w->l, w->tcaches[t], &v))
            continue;
        learn_key(w, &v);
        for (unsigned i = 0; i < w->l->tcache.bins; i++) {
            uint64_t n;
            rc = list_collect(w, &v, i, &n, err);
            if (rc < 0)
                return rc;
            check_count(w, &v, i, n);
        }
    }
    return 0;
}
