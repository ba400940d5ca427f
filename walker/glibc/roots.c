/* Where to start: main_arena and mp_ by their signature in the writable data of the modules.
 *
 * An empty bin points to itself, so that 127 such pairs in a row are found in any image;
 * look-alikes a few words off share most pairs, and the ring of arenas (`next` leads back) rejects
 * them. Only when nothing passes without a fault - the arena itself is damaged - the best of the
 * rest is taken, with a note. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/glibc/internal.h"

enum { SCAN_BLOCK = 1 << 20, SCAN_MAX = 256 << 20, BAD_MAX = 3, STATES = 2, RING_MAX = 4096 };

struct candidate {
    uint64_t addr;
    const struct glibc_layout *l;
    int score;
    unsigned bad; /* faults of its header */
};

/* A walk over a data range in overlapping blocks, so that a structure never straddles. */
struct scan {
    struct walk *w;
    const struct glibc_data *data;
    uint8_t *bytes;
    uint64_t base;
    size_t len;
    bool strict;
    struct candidate states[STATES]; /* the best damaged main_arena by state_id */
    struct candidate best;           /* the best mp_ */
    struct root *root;
};

typedef int (*scan_fn)(struct scan *s, size_t offset, struct err *err);

/* Copy [addr, addr + len), zeros where nothing can be read. */
static void read_holes(struct walk *w, uint64_t addr, uint8_t *buf, size_t len)
{
    memset(buf, 0, len);
    size_t at = 0;
    while (at < len) {
        at += mem_read_some(w->in->mem, addr + at, buf + at, len - at);
        if (at >= len)
            break;
        uint64_t there = next_readable(w, addr + at + 1);
        uint64_t page = round_up(addr + at + 1, GLIBC_PAGE);
        if (there - addr >= len)
            break;
        at = (size_t)(max_u64(there, page) - addr);
    }
}

/* Call fn at every aligned place of a range that has `need` bytes behind it. */
static int scan_range(struct scan *s, size_t need, scan_fn fn, struct err *err)
{
    uint64_t at = round_up(s->data->start, 8), end = s->data->end;
    int rc = 0;
    if (end <= at)
        return 0;
    if (end - at > SCAN_MAX)
        end = at + SCAN_MAX;
    for (; rc == 0 && at < end && end - at >= need; at += SCAN_BLOCK - GLIBC_PAGE) {
        s->base = at;
        s->len = (size_t)min_u64(SCAN_BLOCK, end - at);
        read_holes(s->w, at, s->bytes, s->len);
        size_t stop = min_u64(s->len - need + 8, SCAN_BLOCK - GLIBC_PAGE);
        for (size_t o = 0; rc == 0 && o < stop; o += 8)
            rc = fn(s, o, err);
    }
    return rc;
}

int arena_add(struct walk *w, uint64_t addr, size_t root, size_t *ret, struct err *err)
{
    if (vec_reserve(&w->arenas, &w->cap_arenas, w->n_arenas + 1, sizeof *w->arenas) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu arenas", w->n_arenas + 1);
    const struct glibc_layout *l = glibc_layout_first(w->roots[root].rows);
    uint8_t bytes[GLIBC_STATE_MAX] = {0};
    read_holes(w, addr, bytes, l->state_size);
    struct arena *a = &w->arenas[w->n_arenas];
    memset(a, 0, sizeof *a);
    a->addr = addr;
    a->root = root;
    a->main = addr == w->roots[root].main;
    a->fits = probe_state(w, l, bytes, addr, false).bad == 0;
    a->flags = (uint32_t)glibc_layout_get(l, bytes, STATE_FLAGS);
    a->top = glibc_layout_get(l, bytes, STATE_TOP);
    a->attached = glibc_layout_get(l, bytes, STATE_ATTACHED);
    a->system_mem = glibc_layout_get(l, bytes, STATE_SYSTEM_MEM);
    if (glibc_layout_has(l, STATE_FASTBINS))
        for (int i = 0; i < GLIBC_FASTBINS; i++)
            a->fastbins[i] = load_u64(bytes + l->offset[STATE_FASTBINS] + 8 * i);
    *ret = w->n_arenas++;
    return 0;
}

/* Follow `next` from a root's main_arena and add what looks like an arena. *closed: it leads back.
 */
static int ring_walk(struct walk *w, const struct glibc_layout *l, size_t root, bool *closed,
                     struct err *err)
{
    struct addrset seen;
    addrset_init(&seen);
    uint64_t at = w->roots[root].main;
    bool fresh = true;
    int rc = 0;
    *closed = false;
    while (rc == 0 && seen.n < MAX_ARENAS) {
        size_t index;
        uint8_t bytes[GLIBC_STATE_MAX];
        if (at && addrset_add(&seen, at, 0, &fresh) < 0) {
            rc = err_set(err, ERR_NOMEM, "no memory for the ring of arenas");
            break;
        }
        if (at == 0 || !fresh) {
            *closed = at == w->roots[root].main;
            break;
        }
        if (at & 7)
            break;
        if (mem_read(w->in->mem, at, bytes, l->state_size, NULL) < 0) {
            /* Where it leads to is missing: that it leads back cannot be asked for. */
            *closed = w->in->partial && heapish_at(w, at);
            w->roots[root].missing = *closed ? at : 0;
            break;
        }
        if (probe_state(w, l, bytes, at, false).bad > BAD_MAX)
            break;
        rc = arena_add(w, at, root, &index, err);
        at = glibc_layout_get(l, bytes, STATE_NEXT);
    }
    addrset_release(&seen);
    return rc;
}

static unsigned rows_like(const struct glibc_layout *l, bool par)
{
    unsigned rows = 0;
    for (int i = 0; i < GLIBC_LAYOUTS; i++) {
        const struct glibc_layout *o = &glibc_layouts[i];
        if (o->state_id == l->state_id && (!par || o->par_id == l->par_id))
            rows |= 1u << i;
    }
    return rows;
}

static int arenas_add(struct walk *w, bool *closed, const struct candidate *c, struct err *err)
{
    struct root *r = &w->roots[w->n_roots];
    *r = (struct root){.main = c->addr, .rows = rows_like(c->l, false)};
    size_t first = w->n_arenas;
    int rc = ring_walk(w, c->l, w->n_roots, closed, err);
    r->n_arenas = w->n_arenas - first;
    return rc;
}

/* Arenas from `first` on are whole and some memory was ever taken. */
static bool arenas_good(const struct walk *w, size_t first)
{
    uint64_t system = 0;
    for (size_t i = first; i < w->n_arenas; i++) {
        if (!w->arenas[i].fits)
            return false;
        system |= w->arenas[i].system_mem;
    }
    return system != 0;
}

static bool arena_known(const struct walk *w, uint64_t addr)
{
    for (size_t i = 0; i < w->n_arenas; i++)
        if (w->arenas[i].addr == addr)
            return true;
    return false;
}

static bool is_self(const struct scan *s, const struct glibc_layout *l, size_t o, unsigned bin)
{
    size_t at = o + (size_t)l->offset[STATE_BINS] + 16 * bin;
    return load_u64(s->bytes + at) == s->base + at - 16;
}

/* Some bin is empty. All are looked at where the range is small (libc's is), since few may be after
 * a storm of frees; elsewhere a few that are empty in nearly every process. */
static bool promising(const struct scan *s, const struct glibc_layout *l, size_t o)
{
    bool all = s->data->is_libc || s->data->end - s->data->start <= SCAN_BLOCK;
    for (unsigned i = GLIBC_BINS; i-- > (all ? 0u : GLIBC_BINS - 12u);)
        if (is_self(s, l, o, i))
            return true;
    return false;
}

static int try_strict(struct scan *s, const struct glibc_layout *l, size_t o, struct err *err)
{
    struct walk *w = s->w;
    struct candidate c = {s->base + o, l, 0, 0};
    if (!probe_convincing(w, l, s->bytes + o, c.addr, 0) || w->n_roots == MAX_ROOTS ||
        arena_known(w, c.addr))
        return 0;
    if (w->n_roots && w->roots[0].rows != rows_like(l, false))
        return 0;
    size_t first = w->n_arenas;
    bool closed;
    int rc = arenas_add(w, &closed, &c, err);
    if (rc < 0)
        return rc;
    if (!closed || !arenas_good(w, first)) {
        w->n_arenas = first;
        return 0;
    }
    w->roots[w->n_roots++].data = (size_t)(s->data - w->in->data);
    return 0;
}

/* `next` leads back to addr. A bound instead of a seen-set: only asked of a few candidates. */
static bool ring_closes(struct walk *w, const struct glibc_layout *l, uint64_t addr)
{
    uint64_t at = addr;
    for (int i = 0; i < RING_MAX; i++)
        if (mem_u64(w->in->mem, at + (uint64_t)l->offset[STATE_NEXT], &at, NULL) < 0 || at == addr)
            return at == addr;
    return false;
}

static void try_relaxed(struct scan *s, const struct glibc_layout *l, size_t o)
{
    uint64_t addr = s->base + o;
    const uint8_t *b = s->bytes + o;
    if (!probe_convincing(s->w, l, b, addr, BAD_MAX) ||
        glibc_layout_get(l, b, STATE_SYSTEM_MEM) == 0)
        return;
    struct state_fit fit = probe_state(s->w, l, b, addr, true);
    int score = (int)(fit.self + fit.linked) - 2 * (int)fit.bad;
    if (glibc_layout_get(l, b, STATE_SYSTEM_MEM) % 16 == 0)
        score += 4;
    if (ring_closes(s->w, l, addr))
        score += 50;
    if (score > s->states[l->state_id].score)
        s->states[l->state_id] = (struct candidate){addr, l, score, fit.bad};
}

static int try_state(struct scan *s, size_t o, struct err *err)
{
    unsigned tried = 0;
    for (int i = 0; i < GLIBC_LAYOUTS; i++) {
        const struct glibc_layout *l = &glibc_layouts[i];
        if (tried & 1u << l->state_id || s->len - o < l->state_size)
            continue;
        tried |= 1u << l->state_id;
        if (!promising(s, l, o))
            continue;
        if (!s->strict)
            try_relaxed(s, l, o);
        else if (try_strict(s, l, o, err) < 0)
            return ERR_NOMEM;
    }
    return 0;
}

static int try_par(struct scan *s, size_t o, struct err *err)
{
    (void)err;
    unsigned tried = 0;
    for (int i = 0; i < GLIBC_LAYOUTS; i++) {
        const struct glibc_layout *l = &glibc_layouts[i];
        if (!(s->root->rows & 1u << i) || tried & 1u << l->par_id || s->len - o < l->par_size)
            continue;
        tried |= 1u << l->par_id;
        int score = probe_par(s->w, l, s->bytes + o, s->base + o, s->root);
        if (score <= s->best.score)
            continue;
        s->best = (struct candidate){s->base + o, l, score, 0};
        const uint8_t *b = s->bytes + o;
        s->root->par = (struct par){.known = true,
                                    .addr = s->base + o,
                                    .n_mmaps = glibc_layout_get(l, b, PAR_N_MMAPS),
                                    .mmapped_mem = glibc_layout_get(l, b, PAR_MMAPPED_MEM),
                                    .sbrk_base = glibc_layout_get(l, b, PAR_SBRK_BASE),
                                    .hp_pagesize = glibc_layout_has(l, PAR_HP_PAGESIZE)
                                                       ? glibc_layout_get(l, b, PAR_HP_PAGESIZE)
                                                       : 0,
                                    .tcache_count = glibc_layout_get(l, b, PAR_TCACHE_COUNT)};
    }
    return 0;
}

static int scan_par(struct scan *s, struct root *root, struct err *err)
{
    s->root = root;
    s->data = &s->w->in->data[root->data];
    s->best = (struct candidate){0, NULL, 0, 0};
    return scan_range(s, glibc_layouts[GLIBC_LAYOUTS - 1].par_size, try_par, err);
}

static int find_par(struct scan *s, struct root *root, struct err *err)
{
    int rc = scan_par(s, root, err);
    if (rc < 0)
        return rc;
    if (s->best.score)
        root->rows &= rows_like(s->best.l, true);
    else
        note_add(s->w->notes, "malloc.root", root->main, 0,
                 "mp_ of the glibc at 0x%" PRIx64 " was not found: counts of mmapped chunks cannot "
                 "be checked",
                 root->main);
    return 0;
}

/* A thread's arena lies right behind its heap_info, whose size tells releases apart. */
static void strike_by_heaps(struct walk *w)
{
    for (size_t i = 0; i < w->n_arenas; i++) {
        unsigned fit = 0;
        for (int r = 0; r < GLIBC_LAYOUTS && !w->arenas[i].main; r++)
            if (glibc_layouts[r].heap_size == w->arenas[i].addr % GLIBC_PAGE)
                fit |= 1u << r;
        if (w->rows & fit)
            w->rows &= fit;
    }
}

/* Take the best damaged main_arena of data range i, if any. Releases differ in what lies before the
 * bins, so that each state may fit at its own address: mp_ beside it decides. */
static int take_damaged(struct scan *s, size_t i, struct err *err)
{
    struct walk *w = s->w;
    const struct candidate *best = NULL;
    for (int k = 0; k < STATES; k++) {
        struct candidate *c = &s->states[k];
        struct root r = {.main = c->addr, .data = i};
        if (c->score == 0)
            continue;
        r.rows = rows_like(c->l, false);
        int rc = scan_par(s, &r, err);
        if (rc < 0)
            return rc;
        c->score += 8 * s->best.score;
        if (!best || c->score > best->score)
            best = c;
    }
    bool closed;
    int rc = best ? arenas_add(w, &closed, best, err) : 0;
    if (rc < 0 || !best)
        return rc;
    w->roots[w->n_roots++].data = i;
    if (closed && best->bad <= 1)
        note_remark(w->notes, "malloc.root", best->addr, 0,
                    "one list of main_arena at 0x%" PRIx64
                    " is half changed, as while a call is in "
                    "progress",
                    best->addr);
    else
        note_add(w->notes, "malloc.root", best->addr, 0,
                 "main_arena at 0x%" PRIx64 " is damaged or its ring of arenas is broken",
                 best->addr);
    return 0;
}

static int scan_all(struct scan *s, bool strict, struct err *err)
{
    struct walk *w = s->w;
    size_t need = GLIBC_STATE_MAX;
    for (int i = 0; i < GLIBC_LAYOUTS; i++)
        need = min_u64(need, glibc_layouts[i].state_size);
    s->strict = strict;
    for (size_t i = 0; i < w->in->n_data; i++) {
        s->data = &w->in->data[i];
        int rc = scan_range(s, need, try_state, err);
        if (rc < 0)
            return rc;
        rc = strict || w->n_roots ? 0 : take_damaged(s, i, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int find_all(struct scan *s, struct err *err)
{
    struct walk *w = s->w;
    int rc = scan_all(s, true, err);
    if (rc == 0 && w->n_roots == 0)
        rc = scan_all(s, false, err);
    if (rc < 0)
        return rc;
    if (w->n_roots == 0)
        return err_set(err, ERR_NOT_FOUND, "no initialised glibc malloc in %zu data ranges",
                       w->in->n_data);
    w->rows = w->roots[0].rows;
    for (size_t i = 0; i < w->n_roots; i++) {
        if (w->roots[i].missing)
            note_add(w->notes, "malloc.partial", w->roots[i].missing, 0,
                     "the list of arenas leads to 0x%" PRIx64 ", which is not in the core: of the "
                     "arenas behind it only heaps that are there are known",
                     w->roots[i].missing);
        rc = find_par(s, &w->roots[i], err);
        if (rc < 0)
            return rc;
        if (w->rows & w->roots[i].rows)
            w->rows &= w->roots[i].rows;
    }
    strike_by_heaps(w);
    return 0;
}

int roots_find(struct walk *w, struct err *err)
{
    struct scan s = {.w = w, .bytes = malloc(SCAN_BLOCK)};
    if (!s.bytes)
        return err_set(err, ERR_NOMEM, "no memory for a block of %d bytes", SCAN_BLOCK);
    int rc = find_all(&s, err);
    free(s.bytes);
    return rc;
}
