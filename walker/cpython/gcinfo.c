/* What the cyclic garbage collector says of itself. */
#include <inttypes.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/cpython.h"
#include "walker/cpython/objects.h"

/* Links carry flags in their low bits. The one of what a collection looks at, in the link back,
 * comes with a copy of the reference count in place of the link. */
static const uint64_t LINK = ~UINT64_C(3), COLLECTING = 2;
enum { POINTER = 8 };

struct collector {
    const struct cpython_input *in;
    const struct layout *l;
    uint64_t gc;                   /* struct _gc_runtime_state */
    uint64_t gens[GC_GENERATIONS]; /* struct gc_generation */
    size_t n;
    bool collecting;
};

static bool read_field(const struct collector *c, enum layout_field field, uint64_t *ret)
{
    return layout_has(c->l, field) && layout_u64(c->l, c->in->mem, c->gc, field, ret, NULL) == 0;
}

/* A ring of GC heads that begins in a generation: it closes behind its first and its last. */
static bool ring_at(const struct collector *c, uint64_t head)
{
    uint64_t next, prev, back, forth;
    struct mem *mem = c->in->mem;
    return mem_u64(mem, head, &next, NULL) == 0 && mem_u64(mem, head + POINTER, &prev, NULL) == 0 &&
           mem_u64(mem, (next & LINK) + POINTER, &back, NULL) == 0 &&
           mem_u64(mem, prev & LINK, &forth, NULL) == 0 && (back & LINK) == head &&
           (forth & LINK) == head;
}

static bool rings_at(const struct collector *c, uint64_t gens, unsigned least)
{
    uint64_t size = layout_size(c->l, LF_gcgen_size);
    unsigned n = 0;
    for (uint64_t i = 0; i < GC_GENERATIONS; i++)
        n += ring_at(c, gens + i * size);
    return n >= least;
}

/* The generations moved within releases of one minor: of the places they had, the first where the
 * rings close. */
static uint64_t generations_with(const struct collector *c, unsigned least)
{
    const uint64_t places[] = {layout_offset(c->l, LF_gc_generations), 24, 20, 8};
    uint64_t at;
    if (read_field(c, LF_gc_generation0, &at) && at && rings_at(c, at, least))
        return at;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (rings_at(c, c->gc + places[i], least))
            return c->gc + places[i];
    return 0;
}

static uint64_t generations_at(const struct collector *c)
{
    uint64_t at = generations_with(c, GC_GENERATIONS);
    /* The one that is being collected need not close. */
    if (!at && c->collecting)
        at = generations_with(c, GC_GENERATIONS - 1);
    return at ? at : c->gc + layout_offset(c->l, LF_gc_generations);
}

static void find_generations(struct collector *c)
{
    uint64_t size = layout_size(c->l, LF_gcgen_size), first;
    if (layout_has(c->l, LF_gc_generations)) {
        first = generations_at(c);
        for (c->n = 0; c->n < GC_GENERATIONS; c->n++)
            c->gens[c->n] = first + c->n * size;
        return;
    }
    if (!layout_has(c->l, LF_gc_young) || !layout_has(c->l, LF_gc_old))
        return;
    c->gens[c->n++] = c->gc + layout_offset(c->l, LF_gc_young);
    for (uint64_t i = 0; i < c->l->slots[LF_gc_old].count && c->n < GC_GENERATIONS; i++)
        c->gens[c->n++] = c->gc + layout_offset(c->l, LF_gc_old) + i * size;
}

/* The word at addr of a list of millions: from the bytes themselves where the memory holds them, of
 * which *w keeps what it was given last. */
static bool link_at(const struct collector *c, struct mem_window *w, uint64_t addr, uint64_t *ret)
{
    uint64_t off = addr - w->start;
    if (addr >= w->start && w->len >= sizeof *ret && off <= w->len - sizeof *ret) {
        *ret = load_u64(w->bytes + off);
        return true;
    }
    w->len = 0;
    if (c->in->mem->ops->direct) {
        w->bytes = c->in->mem->ops->direct(c->in->mem, addr, &w->len);
        w->start = addr;
        w->len = w->bytes ? w->len : 0;
    }
    return mem_u64(c->in->mem, addr, ret, NULL) == 0;
}

struct list {
    uint64_t length;
    bool whole;      /* it closes */
    bool collecting; /* a collection has written counts over its links back */
};

/* What a collection writes into the link back of an object that it looks at. */
static bool has_count(const struct collector *c, struct mem_window *w, uint64_t at, uint64_t before)
{
    uint64_t back;
    return link_at(c, w, at + POINTER, &back) && (back & COLLECTING) && (back & LINK) != before;
}

/* Of a list that was damaged so that it goes round without its head, the part until that was
 * noticed (Brent's rule: a mark that moves on at powers of two). */
static struct list read_list(const struct collector *c, uint64_t head)
{
    uint64_t at = head, before = 0, mark = 0, next_mark = 1, next;
    struct mem_window w = {0};
    for (struct list r = {0, true, false};; r.length++) {
        if (!link_at(c, &w, at, &next))
            next = 0;
        /* Not set up yet: an interpreter that is starting. */
        if (at == head && next == 0)
            return r;
        if (c->collecting && at != head && !r.collecting)
            r.collecting = has_count(c, &w, at, before);
        before = at;
        at = next & LINK;
        if (at == head || !at || at == mark) {
            r.whole = at == head;
            return r;
        }
        if (r.length == next_mark) {
            mark = at;
            next_mark *= 2;
        }
    }
}

static void note_collecting(const struct collector *c, unsigned generation, unsigned n,
                            struct notes *notes)
{
    static const char what[] = "gc.collecting",
                      rest[] = "was under way: what it may free is on none of the lists";
    if (n == 1)
        note_remark(notes, what, c->gc, 0, "a collection of generation %u %s", generation, rest);
    else
        note_remark(notes, what, c->gc, 0, "a collection %s", rest);
}

static void read_lists(const struct collector *c, struct snapshot_gc *g, struct notes *notes)
{
    uint64_t head = layout_offset(c->l, LF_gcgen_head);
    unsigned generation = 0, n_collecting = 0;
    bool whole = true;
    for (unsigned i = 0; i < c->n; i++) {
        struct list r = read_list(c, c->gens[i] + head);
        g->tracked[i] = r.length;
        whole = whole && r.whole;
        generation = r.collecting ? i : generation;
        n_collecting += r.collecting;
    }
    if (layout_has(c->l, LF_gc_permanent)) {
        struct list r = read_list(c, c->gc + layout_offset(c->l, LF_gc_permanent) + head);
        g->frozen = r.length;
        whole = whole && r.whole;
    }
    g->lists = whole && !g->collecting;
    if (g->collecting)
        note_collecting(c, generation, n_collecting, notes);
    else if (!whole)
        note_remark(notes, "gc.lists", c->gc, 0, "a list of the collector does not close");
}

static void read_generations(const struct collector *c, struct snapshot_gc *g)
{
    uint64_t v;
    for (size_t i = 0; i < c->n; i++) {
        if (layout_u64(c->l, c->in->mem, c->gens[i], LF_gcgen_threshold, &v, NULL) == 0)
            g->threshold[i] = v;
        if (layout_u64(c->l, c->in->mem, c->gens[i], LF_gcgen_count, &v, NULL) == 0)
            g->count[i] = v;
    }
}

/* 3.8: one for the process; later one for each interpreter. */
static uint64_t collector_at(const struct cpython_input *in, const struct cpython *py)
{
    const struct layout *l = &py->layout;
    uint64_t main = py->n_interpreters ? py->interpreters[0] : 0;
    if (layout_has(l, LF_rt_gc))
        return py->runtime ? py->runtime + layout_offset(l, LF_rt_gc) : 0;
    if (py->runtime && layout_has(l, LF_rt_interp_main) &&
        layout_u64(l, in->mem, py->runtime, LF_rt_interp_main, &main, NULL) < 0)
        return 0;
    return main && layout_has(l, LF_interp_gc) ? main + layout_offset(l, LF_interp_gc) : 0;
}

void gc_read(const struct cpython_input *in, const struct cpython *py, struct snapshot *snap,
             struct notes *notes)
{
    struct collector c = {.in = in, .l = &py->layout};
    struct snapshot_gc *g = &snap->gc;
    uint64_t v;
    c.gc = collector_at(in, py);
    if (!c.gc || !read_field(&c, LF_gc_enabled, &v))
        return;
    g->present = true;
    g->enabled = v != 0;
    g->collecting = c.collecting = read_field(&c, LF_gc_collecting, &v) && v != 0;
    if (read_field(&c, LF_gc_garbage, &v) && v &&
        layout_u64(c.l, in->mem, v, LF_var_size, &v, NULL) == 0)
        g->garbage = v;
    find_generations(&c);
    g->generations = c.n;
    read_generations(&c, g);
    if (!py->free_threaded)
        read_lists(&c, g, notes);
    else
        note_remark(notes, "gc.lists", c.gc, 0,
                    "a free-threaded interpreter keeps no lists of tracked objects");
}
