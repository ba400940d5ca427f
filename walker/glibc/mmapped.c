/* What no list names: main_arena's extensions outside brk memory, and chunks with a mapping of
 * their own. Both are looked for at page steps through anonymous memory that nobody has claimed
 * yet.
 *
 * An mmapped chunk's user memory is aligned to a power of two, so its header can only be at nine
 * places of a page. A memaligned block keeps a stale header at its start and has the real one
 * further inside, whose prev_size is its distance from the block's start: the inner one wins. After
 * mremap that can be at the end of any page; such a search of whole blocks (`deep`) is only made if
 * the count and the sum in mp_ do not agree with what was found. */
#include <inttypes.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/glibc/internal.h"

/* The nine places, as powers of two less a header. */
static const uint16_t places[] = {0, 0x10, 0x30, 0x70, 0xf0, 0x1f0, 0x3f0, 0x7f0, 0xff0};
enum { PLACES = sizeof places / sizeof places[0], MMAPPED_MIN = GLIBC_PAGE - 16 };

/* Adjacent anonymous mappings [start, end): the kernel may split one block into several. */
struct run {
    uint64_t start, end;
};

struct search {
    struct walk *w;
    struct run run;
    bool deep;
    bool extensions; /* walk extensions and pass over mmapped chunks; else collect the latter */
    size_t arena;    /* the main arena that extensions belong to */
};

static bool next_run(const struct vma_list *list, size_t *i, struct run *run)
{
    while (*i < list->n && (!vma_is_heapish(&list->items[*i]) || list->items[*i].kind == VMA_HEAP))
        ++*i;
    if (*i == list->n)
        return false;
    *run = (struct run){list->items[*i].start, list->items[*i].end};
    for (++*i; *i < list->n && list->items[*i].start == run->end &&
               vma_is_heapish(&list->items[*i]) && list->items[*i].kind != VMA_HEAP;
         ++*i)
        run->end = list->items[*i].end;
    return true;
}

/* The two words at `header` describe an mmapped block within the run. */
static bool parse(const struct search *s, uint64_t header, uint64_t prev_size, uint64_t word,
                  struct mmapped *m)
{
    const struct glibc_layout *l = s->w->l;
    uint64_t size = word & ~(uint64_t)CHUNK_FLAGS, lead = prev_size & l->mmap_lead_mask, total;
    if ((word & CHUNK_FLAGS) != CHUNK_IS_MMAPPED || size & 15 || lead & 15 || size < MMAPPED_MIN ||
        lead > header - s->run.start)
        return false;
    uint64_t block = header - lead;
    if (add_overflows(size, lead + l->mmap_tail, &total))
        return false;
    if (block % GLIBC_PAGE || total % GLIBC_PAGE || total > s->run.end - block)
        return false;
    *m = (struct mmapped){header, block, total, size};
    return true;
}

/* A header inside the block that says it belongs to it. */
static bool parse_inner(const struct search *s, uint64_t header, struct mmapped *m)
{
    /* A deep search goes through the block in order, else the places lie far apart. */
    struct mem_window *win = s->deep ? &s->w->seq : &s->w->probe;
    const uint8_t *h = mem_window_at(win, header, CHUNK_HEADER);
    struct mmapped inner;
    if (!h || !parse(s, header, load_u64(h), load_u64(h + 8), &inner) || inner.block != m->block)
        return false;
    *m = inner;
    return true;
}

static void find_inner(const struct search *s, struct mmapped *m)
{
    uint64_t end = m->block + m->total;
    for (uint64_t page = m->block; page < end && page < m->block + 2 * GLIBC_PAGE;
         page += GLIBC_PAGE)
        for (int i = 0; i < PLACES; i++)
            if (page + places[i] != m->header && parse_inner(s, page + places[i], m))
                return;
    /* Where memalign puts the chunk for each alignment, unless the block has moved since. */
    for (uint64_t align = 2 * GLIBC_PAGE; align < m->total; align *= 2) {
        uint64_t header = round_up(m->block + 16, align) - 16;
        if (header - m->block < CHUNK_MIN)
            header += align;
        if (header < end && parse_inner(s, header, m))
            return;
    }
    for (uint64_t page = m->block + GLIBC_PAGE; s->deep && page < end; page += GLIBC_PAGE) {
        uint64_t there = next_readable(s->w, page + 0xff0);
        page = round_down(min_u64(there, end), GLIBC_PAGE);
        if (page < end && parse_inner(s, page + 0xff0, m))
            return;
    }
}

/* The mmapped chunk whose header lies in this page and in the unclaimed [lo, hi). */
static bool find_at(const struct search *s, uint64_t page, uint64_t lo, uint64_t hi,
                    struct mmapped *m)
{
    const uint8_t *p = mem_window_at(&s->w->seq, page, GLIBC_PAGE);
    for (int i = 0; i < PLACES && p; i++) {
        uint64_t header = page + places[i];
        if (header < lo || header >= hi ||
            !parse(s, header, load_u64(p + places[i]), load_u64(p + places[i] + 8), m))
            continue;
        if (m->header == m->block)
            find_inner(s, m);
        return true;
    }
    return false;
}

/* A main arena's extension at a page: a first chunk and a chain that ends properly. */
static bool extension_at(struct search *s, uint64_t page, uint64_t hi, uint64_t *stop)
{
    struct region r = {page, hi, s->arena, false};
    uint64_t prev_size, word;
    return probe_header(s->w, page, &prev_size, &word) &&
           (word & CHUNK_FLAGS) == CHUNK_PREV_INUSE && chain_complete(s->w, &r, page, stop);
}

static int extension_walk(struct search *s, uint64_t page, uint64_t stop, struct err *err)
{
    struct account acc;
    struct region r = {page, stop, s->arena, false};
    account_begin(&acc, s->w->map, page, stop, "malloc heap", err);
    chunks_walk(s->w, &r, &acc);
    s->w->arenas[s->arena].heaps++;
    return account_finish(&acc);
}

static int mmapped_add(struct walk *w, const struct mmapped *m, struct err *err)
{
    if (vec_reserve(&w->mmapped, &w->cap_mmapped, w->n_mmapped + 1, sizeof *w->mmapped) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu mmapped chunks", w->n_mmapped + 1);
    w->mmapped[w->n_mmapped++] = *m;
    return 0;
}

static uint64_t collected_end(const struct walk *w)
{
    return w->n_mmapped ? w->mmapped[w->n_mmapped - 1].block + w->mmapped[w->n_mmapped - 1].total
                        : 0;
}

/* One page of the unclaimed [lo, hi): what starts there; *next is where to go on. */
static int search_page(struct search *s, uint64_t page, uint64_t lo, uint64_t hi, uint64_t *next,
                       struct err *err)
{
    struct mmapped m;
    uint64_t stop;
    *next = page + GLIBC_PAGE;
    if (find_at(s, page, lo, hi, &m)) {
        *next = max_u64(*next, m.block + m.total);
        if (s->extensions)
            return 0;
        return m.block >= collected_end(s->w) ? mmapped_add(s->w, &m, err) : 0;
    }
    if (!s->extensions || page < lo || !extension_at(s, page, hi, &stop))
        return 0;
    *next = round_up(stop, GLIBC_PAGE);
    return extension_walk(s, page, stop, err);
}

static int search_run(struct search *s, struct err *err)
{
    struct walk *w = s->w;
    uint64_t at = s->run.start, lo, hi;
    while (at < s->run.end && blockmap_gap(w->map, at, s->run.end, &lo, &hi)) {
        uint64_t page = next_readable(w, lo);
        if (page >= hi) {
            at = hi;
            continue;
        }
        int rc = search_page(s, round_down(page, GLIBC_PAGE), lo, hi, &at, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int search_all(struct search *s, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && next_run(s->w->in->vmas, &i, &s->run);)
        rc = search_run(s, err);
    return rc;
}

int extensions_walk(struct walk *w, struct err *err)
{
    for (size_t i = 0; i < w->n_arenas; i++) {
        const struct arena *a = &w->arenas[i];
        enum { NONCONTIGUOUS = 2 };
        if (!a->main || a->system_mem == 0 ||
            (!(a->flags & NONCONTIGUOUS) && a->top_seen && arena_bytes(a) >= a->system_mem))
            continue;
        struct search s = {.w = w, .extensions = true, .arena = i};
        int rc = search_all(&s, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static uint64_t total_bytes(const struct walk *w)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < w->n_mmapped; i++)
        sum += w->mmapped[i].total;
    return sum;
}

/* What mp_ says; false if it is not known for every glibc. */
static bool expected(const struct walk *w, uint64_t *n, uint64_t *bytes)
{
    *n = *bytes = 0;
    for (size_t r = 0; r < w->n_roots; r++) {
        if (!w->roots[r].par.known)
            return false;
        *n += w->roots[r].par.n_mmaps;
        *bytes += w->roots[r].par.mmapped_mem;
    }
    return true;
}

/* The sum agrees, with the 16 bytes that 2.43 adds for each mremap. */
static bool sum_agrees(const struct walk *w, uint64_t want)
{
    uint64_t have = total_bytes(w);
    return have == want || (w->l->mmapped_mem_drifts && have < want && (want - have) % 16 == 0);
}

uint64_t mmapped_counted(const struct walk *w)
{
    uint64_t n, want;
    bool drifted = w->l->mmapped_mem_drifts && expected(w, &n, &want) && n == w->n_mmapped &&
                   sum_agrees(w, want);
    return drifted ? want : total_bytes(w);
}

static bool starts_mapping(const struct walk *w, const struct mmapped *m, uint64_t before)
{
    const struct vma *v = vma_at(w->in->vmas, m->block);
    return m->block == before || (v && v->start == m->block);
}

/* More candidates than glibc counts: what neither starts a mapping nor follows another block may be
 * somebody's data that looks like a chunk. */
static void drop_uncertain(struct walk *w, uint64_t n)
{
    uint64_t before = 0;
    size_t kept = 0, left = w->n_mmapped;
    for (size_t i = 0; i < w->n_mmapped; i++) {
        struct mmapped m = w->mmapped[i];
        if (left > n && !starts_mapping(w, &m, before)) {
            left--;
            note_remark(w->notes, "malloc.mmapped.uncertain", m.header, m.total,
                        "0x%" PRIx64 " looks like an mmapped chunk of %" PRIu64
                        " bytes, but glibc counts fewer",
                        m.header, m.total);
            continue;
        }
        before = m.block + m.total;
        w->mmapped[kept++] = m;
    }
    w->n_mmapped = kept;
}

static void check_expected(struct walk *w)
{
    uint64_t n, bytes;
    if (!expected(w, &n, &bytes) || (w->n_mmapped == n && sum_agrees(w, bytes)))
        return;
    note_add(w->notes, "malloc.identity", w->roots[0].par.addr, 0,
             "%zu mmapped chunks with %" PRIu64 " bytes were found; mp_ counts %" PRIu64
             " with %" PRIu64,
             w->n_mmapped, total_bytes(w), n, bytes);
}

static int mmapped_claim(struct walk *w, const struct mmapped *m, struct err *err)
{
    size_t i = marks_seek(w, m->header);
    bool cached = i < w->n_marks && w->marks[i].addr == m->header;
    struct account acc;
    account_begin(&acc, w->map, m->block, m->block + m->total, "mmapped chunk", err);
    account_span(&acc, acc.end, cached ? CAT_MALLOC_CACHED : CAT_MALLOC_MMAPPED, 1);
    if (cached) {
        w->marks[i].seen = true;
        note_remark(w->notes, "malloc.mmapped.cached", m->header, m->total,
                    "mmapped chunk 0x%" PRIx64 " is in a tcache; mallinfo2 counts it as mapped",
                    m->header);
    }
    account_fail(&acc, chunk_tell(w, m->header, m->size, cached ? GLIBC_CACHED : GLIBC_MMAPPED));
    return account_finish(&acc);
}

int mmapped_walk(struct walk *w, struct err *err)
{
    struct search s = {.w = w};
    uint64_t n, bytes;
    int rc = search_all(&s, err);
    if (rc == 0 && expected(w, &n, &bytes) && (w->n_mmapped != n || total_bytes(w) != bytes)) {
        w->n_mmapped = 0;
        s.deep = true;
        rc = search_all(&s, err);
        if (w->n_mmapped > n)
            drop_uncertain(w, n);
    }
    check_expected(w);
    for (size_t i = 0; rc == 0 && i < w->n_mmapped; i++)
        rc = mmapped_claim(w, &w->mmapped[i], err);
    return rc;
}
