/* The walk over chunk headers, in address order.
 *
 * run_plain is the inner loop: one load a chunk, because the header that says whether a chunk is in
 * use is the next chunk's own. It leaves everything that is not plain - cached, damaged, the top,
 * fenceposts, absent or foreign pages, possible tcache structs - to step_one. */
#include <inttypes.h>

#include "formats/base/num.h"
#include "walker/glibc/internal.h"

enum { PREFETCH_AHEAD = 2048, CACHE_LINE = 64 };

struct cursor {
    struct walk *w;
    const struct region *r;
    struct account *acc;
    struct arena *arena;
    uint64_t p, prev; /* this chunk and the one before */
    uint64_t bad;     /* bits that no size word has here */
    uint64_t tc_size, tc_span;
    size_t mark; /* first mark at or above p */
};

uint64_t hash_addr(uint64_t addr)
{
    uint64_t x = addr * 0x9e3779b97f4a7c15u;
    return x ^ x >> 32;
}

bool chunk_header(struct walk *w, uint64_t chunk, uint64_t *prev_size, uint64_t *word)
{
    const uint8_t *h = mem_window_at(&w->seq, chunk, CHUNK_HEADER);
    if (!h)
        return false;
    *prev_size = load_u64(h);
    *word = load_u64(h + 8);
    return true;
}

/* Of an mmapped chunk: up to 2.42 `size` covers the header's two words, from 2.43 on one of them is
 * in the tail. */
static uint64_t usable(const struct walk *w, uint64_t size, enum glibc_state state)
{
    return state == GLIBC_MMAPPED && !w->l->mmap_tail ? size - 16 : size - 8;
}

int chunk_tell(struct walk *w, uint64_t chunk, uint64_t size, enum glibc_state state)
{
    if (w->in->chunk)
        w->in->chunk(w->in->chunk_ctx, chunk, size, state);
    if (w->in->used && (state == GLIBC_USED || state == GLIBC_MMAPPED))
        return w->in->used(w->in->used_ctx, chunk + CHUNK_HEADER, usable(w, size, state));
    return 0;
}

static uint64_t next_mark(const struct cursor *c)
{
    return c->mark < c->w->n_marks ? c->w->marks[c->mark].addr : UINT64_MAX;
}

/* Chunks that end at or before this are plain as far as their place goes. */
static uint64_t plain_limit(const struct cursor *c)
{
    const struct mem_window *win = &c->w->seq;
    uint64_t limit = min_u64(c->acc->easy, next_mark(c));
    limit = min_u64(limit, c->r->end - CHUNK_HEADER);
    limit = min_u64(limit, win->start + win->len - CHUNK_HEADER);
    return c->p <= c->arena->top ? min_u64(limit, c->arena->top) : limit;
}

/* False: the walk is to end. Not inlined, so that the loop below has room for what it always needs.
 */
static __attribute__((noinline)) bool told(struct cursor *c, uint64_t p, uint64_t size,
                                           uint64_t next)
{
    account_fail(c->acc,
                 chunk_tell(c->w, p, size, next & CHUNK_PREV_INUSE ? GLIBC_USED : GLIBC_FREE));
    return c->acc->rc == 0;
}

static void run_plain(struct cursor *c)
{
    const struct mem_window *win = &c->w->seq;
    const uint64_t limit = plain_limit(c), start = win->start, bad = c->bad;
    const uint64_t tc_size = c->tc_size, tc_span = c->tc_span;
    const uint8_t *bytes = win->bytes;
    const bool tell = c->w->tell;
    struct sum used = {0, 0}, idle = {0, 0};
    uint64_t hash = 0, fd = 0, bk = 0, p = c->p, prev = c->prev, ahead = p - start;
    uint64_t word = load_u64(bytes + (p - start) + 8);
    while (p < limit) {
        uint64_t size = word & ~(uint64_t)CHUNK_FLAGS;
        if (word & bad || size < CHUNK_MIN || size > limit - p)
            break;
        uint64_t off = p + size - start;
        /* Linear prefetch: the chain itself hides the next address from the hardware. */
        if (ahead < off)
            ahead = off;
        for (; ahead < off + PREFETCH_AHEAD && ahead < win->len; ahead += CACHE_LINE)
            __builtin_prefetch(bytes + ahead, 0, 0);
        uint64_t next = load_u64(bytes + off + 8);
        if (next & CHUNK_PREV_INUSE) {
            if (size - tc_size <= tc_span)
                break;
            used.n++;
            used.bytes += size;
        } else {
            if (load_u64(bytes + off) != size)
                break;
            idle.n++;
            idle.bytes += size;
            hash += hash_addr(p);
            fd += hash_addr(load_u64(bytes + (p - start) + 16));
            bk += hash_addr(load_u64(bytes + (p - start) + 24));
        }
        if (tell && !told(c, p, size, next))
            break;
        prev = p;
        p += size;
        word = next;
    }
    struct account *acc = c->acc;
    acc->tally.bytes[CAT_MALLOC_USED] += used.bytes;
    acc->tally.resident[CAT_MALLOC_USED] += used.bytes;
    acc->tally.count[CAT_MALLOC_USED] += used.n;
    acc->tally.bytes[CAT_MALLOC_FREE] += idle.bytes;
    acc->tally.resident[CAT_MALLOC_FREE] += idle.bytes;
    acc->tally.count[CAT_MALLOC_FREE] += idle.n;
    acc->at = p;
    c->arena->used.n += used.n;
    c->arena->used.bytes += used.bytes;
    c->arena->free.n += idle.n;
    c->arena->free.bytes += idle.bytes;
    c->arena->free_hash += hash;
    c->arena->fd_hash += fd;
    c->arena->bk_hash += bk;
    c->p = p;
    c->prev = prev;
}

/* A free chunk's address and links, away from the fast path. */
static void add_links(struct cursor *c)
{
    const uint8_t *links = mem_window_at(&c->w->probe, c->p + 16, 16);
    c->arena->free_hash += hash_addr(c->p);
    if (!links) {
        c->arena->links_unread = true;
        return;
    }
    c->arena->fd_hash += hash_addr(load_u64(links));
    c->arena->bk_hash += hash_addr(load_u64(links + 8));
}

/* Count the chunk [p, p + size) and move on behind it. */
static void take_chunk(struct cursor *c, uint64_t size, struct sum *sum, enum category cat,
                       enum glibc_state state)
{
    sum->n++;
    sum->bytes += size;
    account_span(c->acc, c->p + size, cat, 1);
    if (c->w->tell)
        account_fail(c->acc, chunk_tell(c->w, c->p, size, state));
    c->prev = c->p;
    c->p += size;
}

static bool take_top(struct cursor *c, uint64_t word)
{
    uint64_t size = word & ~(uint64_t)CHUNK_FLAGS, room = c->r->end - c->p;
    if (word & (c->bad | CHUNK_NON_MAIN) || size < 16 || size > room || !(word & 1)) {
        const char *fmt = "top chunk 0x%" PRIx64 " of arena 0x%" PRIx64
                          " has the size word 0x%" PRIx64 ": taken to the heap's end";
        /* A new top is named before its size is written into fresh memory. */
        if (word == 0)
            note_remark(c->w->notes, "malloc.transit", c->p, room, fmt, c->p, c->arena->addr, word);
        else
            note_add(c->w->notes, "malloc.damaged", c->p, room, fmt, c->p, c->arena->addr, word);
        size = room;
    }
    take_chunk(c, size, &c->arena->top_sum, CAT_MALLOC_TOP, GLIBC_TOP);
    c->arena->top_seen = true;
    return false;
}

static void note_damage(struct cursor *c, uint64_t from, uint64_t to)
{
    uint64_t prev_size = 0, word = 0;
    bool there = probe_header(c->w, from, &prev_size, &word);
    note_add(c->w->notes, "malloc.damaged", from, to - from,
             "%s at 0x%" PRIx64 " (words 0x%" PRIx64 " 0x%" PRIx64 ") behind the chunk 0x%" PRIx64
             " of arena 0x%" PRIx64 "; chunks go on at 0x%" PRIx64,
             there ? "broken chunk header" : "absent page", from, prev_size, word, c->prev,
             c->arena->addr, to);
}

/* Nothing plausible at p: find the next chunk and leave what is between as unknown. */
static bool skip_damage(struct cursor *c)
{
    uint64_t from = c->p, to = resync(c->w, c->r, from + 16);
    note_damage(c, from, to);
    c->arena->damaged += to - from;
    account_span(c->acc, to, CAT_UNKNOWN, 0);
    c->p = to;
    return to < c->r->end;
}

/* Fenceposts end a heap or a stretch of brk memory; in the latter case chunks may go on behind
 * what a foreign sbrk took, which belongs to system_mem but not to us. */
static bool take_fences(struct cursor *c, uint64_t bytes)
{
    c->arena->overhead += bytes;
    account_span(c->acc, c->p + bytes, CAT_MALLOC_OVERHEAD, 0);
    c->p += bytes;
    if (!c->r->gaps || c->r->end - c->p < CHUNK_MIN)
        return false;
    uint64_t to = resync(c->w, c->r, c->p);
    if (to == c->r->end)
        return false;
    c->arena->overhead += to - c->p;
    account_span(c->acc, to, CAT_UNKNOWN, 0);
    c->p = to;
    return true;
}

/* The mark at p, if any; passes marks that lie behind us (they point into other chunks). */
static struct mark *take_mark(struct cursor *c)
{
    while (next_mark(c) < c->p)
        c->mark++;
    if (next_mark(c) != c->p)
        return NULL;
    struct mark *m = &c->w->marks[c->mark++];
    m->seen = true;
    return m;
}

static void take_marked(struct cursor *c, uint64_t size, const struct mark *m)
{
    struct arena *a = c->arena;
    if (m->kind == MARK_TCACHE_STRUCT) {
        struct sum internal = {0, 0};
        take_chunk(c, size, &internal, CAT_MALLOC_OVERHEAD, GLIBC_INTERNAL);
        a->overhead += size;
        return;
    }
    if (m->kind == MARK_FASTBIN) {
        a->fast.n++;
        a->fast.bytes += size;
    }
    take_chunk(c, size, &a->cached, CAT_MALLOC_CACHED, GLIBC_CACHED);
}

/* A chunk whose successor says it is free, but whose size it repeats wrongly: half done by a call
 * in progress, or an overflow that zeroed the successor's header. */
static void note_prev_size(struct cursor *c, uint64_t size, uint64_t prev_size)
{
    note_remark(c->w->notes, "malloc.prev_size", c->p, size,
                "free chunk 0x%" PRIx64 " has 0x%" PRIx64 " bytes, the next one says 0x%" PRIx64,
                c->p, size, prev_size);
}

static bool take_normal(struct cursor *c, uint64_t size)
{
    uint64_t prev_size = 0, next = 0, at = c->p + size;
    bool there = chunk_header(c->w, at, &prev_size, &next);
    const struct mark *m = take_mark(c);
    bool in_use = !there || next & CHUNK_PREV_INUSE;
    if (!in_use && prev_size != size) {
        /* A free chunk needs its foot. Where the next header is nonsense too, both were overrun. */
        in_use = (next & ~(uint64_t)CHUNK_FLAGS) < 16 || next & 8;
        note_prev_size(c, size, prev_size);
    }
    if (m && in_use) {
        take_marked(c, size, m);
    } else if (in_use) {
        uint64_t chunk = c->p;
        take_chunk(c, size, &c->arena->used, CAT_MALLOC_USED, GLIBC_USED);
        if (size - c->tc_size <= c->tc_span)
            orphan_consider(c->w, chunk, size);
    } else {
        add_links(c);
        take_chunk(c, size, &c->arena->free, CAT_MALLOC_FREE, GLIBC_FREE);
    }
    return true;
}

/* One thing of any kind at p. False: the region ends here. */
static bool step_one(struct cursor *c)
{
    uint64_t prev_size, word, room = c->r->end - c->p;
    if (!chunk_header(c->w, c->p, &prev_size, &word))
        return skip_damage(c);
    if (c->p == c->arena->top)
        return take_top(c, word);
    uint64_t fences = fence_at(c->w, c->r, c->p);
    if (fences)
        return take_fences(c, fences);
    uint64_t size = word & ~(uint64_t)CHUNK_FLAGS;
    if (word & c->bad || size < CHUNK_MIN || size > room)
        return skip_damage(c);
    if (size == room && !c->arena->top_seen) {
        /* Ends with its heap: by its place this is the top, whatever the arena says. */
        if (!c->arena->lost)
            note_add(c->w->notes, "malloc.top", c->p, size,
                     "arena 0x%" PRIx64 " names 0x%" PRIx64 " as its top, but 0x%" PRIx64
                     " ends its heap",
                     c->arena->addr, c->arena->top, c->p);
        return take_top(c, word);
    }
    if (room - size < CHUNK_HEADER)
        return skip_damage(c);
    return take_normal(c, size);
}

void chunks_walk(struct walk *w, const struct region *r, struct account *acc)
{
    struct cursor c = {.w = w, .r = r, .acc = acc, .arena = &w->arenas[r->arena], .p = r->start};
    c.bad = c.arena->main ? 8 | CHUNK_IS_MMAPPED | CHUNK_NON_MAIN : 8 | CHUNK_IS_MMAPPED;
    c.tc_size = w->l->tcache.chunk_size;
    c.tc_span = w->l->tcache.chunk_span;
    c.mark = marks_seek(w, r->start);
    while (c.p < r->end && r->end - c.p >= CHUNK_HEADER && acc->rc == 0) {
        if (mem_window_at(&w->seq, c.p, CHUNK_HEADER))
            run_plain(&c);
        if (c.p >= r->end || !step_one(&c))
            break;
    }
}
