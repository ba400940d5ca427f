/* What is told of a collection that was stopped in its middle, on every layout with lists: images
 * of the collector's state, written field by field. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "tests/lib/tap.h"
#include "walker/cpython/objects.h"
#include "walker/note.h"

enum { IMAGE = 0x40000, RUNTIME = 0, INTERP = 0x10000, HEADS = 0x30000, NODES = 3 };
static const uint64_t BASE = 0x7f0000000000;

struct image {
    const struct layout *l;
    uint8_t *bytes;
    struct mem *mem;
    struct snapshot snap;
    struct notes notes;
    struct cpython py;
    struct cpython_input in;
    uint64_t gc, nodes;
};

static void word(struct image *m, uint64_t addr, uint64_t v)
{
    memcpy(m->bytes + (addr - BASE), &v, sizeof v);
}

static void put(struct image *m, uint64_t base, enum layout_field f, uint64_t v)
{
    const struct layout_slot *s = &m->l->slots[f];
    if (layout_has(m->l, f))
        memcpy(m->bytes + (base - BASE) + s->offset, &v, s->width);
}

static uint64_t node(unsigned generation, unsigned i)
{
    return BASE + HEADS + (generation * NODES + i) * 64;
}

static uint64_t generation_at(const struct image *m, uint64_t first, unsigned generation)
{
    return first + generation * layout_size(m->l, LF_gcgen_size);
}

static uint64_t first_generation(const struct image *m)
{
    bool array = layout_has(m->l, LF_gc_generations);
    return m->gc + layout_offset(m->l, array ? LF_gc_generations : LF_gc_young);
}

/* A ring of the generation's head and its nodes. */
static void ring(struct image *m, uint64_t head, unsigned generation)
{
    uint64_t at = head;
    for (unsigned i = 0; i < NODES; i++) {
        word(m, at, node(generation, i));
        word(m, node(generation, i) + 8, at);
        at = node(generation, i);
    }
    word(m, at, head);
    word(m, head + 8, at);
}

static void build_gc(struct image *m, uint64_t first)
{
    put(m, m->gc, LF_gc_enabled, 1);
    for (unsigned i = 0; i < GC_GENERATIONS; i++) {
        ring(m, generation_at(m, first, i), i);
        put(m, generation_at(m, first, i), LF_gcgen_threshold, 100 + i);
    }
    uint64_t permanent = m->gc + layout_offset(m->l, LF_gc_permanent);
    word(m, permanent, permanent);
    word(m, permanent + 8, permanent);
}

static bool build(struct image *m, const struct layout *l)
{
    memset(m, 0, sizeof *m);
    m->l = l;
    m->bytes = calloc(1, IMAGE);
    struct mem_image_piece piece = {BASE, m->bytes, IMAGE};
    snapshot_init(&m->snap);
    notes_init(&m->notes, &m->snap);
    if (!m->bytes || mem_image_new(&piece, 1, &m->mem, NULL) < 0)
        return false;
    m->py = (struct cpython){.layout = *l, .hexversion = l->hexversion, .runtime = BASE + RUNTIME};
    m->in = (struct cpython_input){.mem = m->mem};
    put(m, BASE + RUNTIME, LF_rt_interp_main, BASE + INTERP);
    m->gc = layout_has(l, LF_rt_gc) ? BASE + RUNTIME + layout_offset(l, LF_rt_gc)
                                    : BASE + INTERP + layout_offset(l, LF_interp_gc);
    return true;
}

static void release(struct image *m)
{
    snapshot_release(&m->snap);
    mem_close(m->mem);
    free(m->bytes);
}

/* The last note, after reading. */
static const char *told(struct image *m)
{
    gc_read(&m->in, &m->py, &m->snap, &m->notes);
    return m->snap.n_notes ? m->snap.notes[m->snap.n_notes - 1].why : "";
}

static void test_quiet(struct image *m, const char *name)
{
    const struct snapshot_gc *g = &m->snap.gc;
    told(m);
    ok(g->lists && !g->collecting && m->snap.n_notes == 0, "%s: no collection", name);
    put(m, m->gc, LF_gc_collecting, 1);
    const char *why = told(m);
    ok(g->collecting && !g->lists && m->snap.n_notes == 1 &&
           strcmp(m->snap.notes[0].what, "gc.collecting") == 0 && m->snap.complete &&
           !strstr(why, "generation"),
       "%s: a collection, nothing tells of what", name);
}

/* The first `same` objects have their links back, all others a count in place of it. */
static void count(struct image *m, unsigned generation, unsigned same)
{
    for (unsigned i = same; i < NODES; i++)
        word(m, node(generation, i) + 8, (3 + i) << 2 | 2);
}

static void test_generation(struct image *m, const char *name, uint64_t first, unsigned generation)
{
    char words[64];
    snprintf(words, sizeof words, "a collection of generation %u was under way", generation);
    for (unsigned same = 0; same < NODES; same++) {
        build_gc(m, first);
        count(m, generation, same);
        const char *why = told(m);
        ok(strstr(why, words) && m->snap.gc.tracked[generation] == NODES &&
               m->snap.gc.threshold[2] == 102,
           "%s: generation %u, %u links restored: %s", name, generation, same, why);
    }
    build_gc(m, first);
    word(m, node(generation, 1) + 8, node(generation, 0) | 2); /* the flag and the link */
    ok(!strstr(told(m), "generation"), "%s: generation %u, links that are whole", name, generation);
    word(m, node(generation, 1) + 8, node(generation, 2)); /* another link, without the flag */
    ok(!strstr(told(m), "generation"), "%s: generation %u, a link of a list that is being joined",
       name, generation);
}

static void test_layout(const struct layout *l)
{
    struct image m;
    if (!ok(build(&m, l), "%s: an image", l->name))
        return;
    uint64_t first = first_generation(&m);
    build_gc(&m, first);
    test_quiet(&m, l->name);
    for (unsigned i = 0; i < GC_GENERATIONS; i++)
        test_generation(&m, l->name, first, i);
    build_gc(&m, first);
    count(&m, 0, 0);
    count(&m, 2, 0);
    ok(!strstr(told(&m), "generation"), "%s: two lists with counts say nothing", l->name);
    release(&m);
}

/* Another place than the table's, in a collection that has one ring open. */
static void test_moved(const struct layout *l)
{
    struct image m;
    /* 4 bytes earlier there is nothing else. */
    if (layout_offset(l, LF_gc_generations) != 24 || !ok(build(&m, l), "%s: an image", l->name))
        return;
    uint64_t moved = m.gc + 20;
    put(&m, m.gc, LF_gc_collecting, 1);
    build_gc(&m, moved);
    count(&m, 2, 0);
    told(&m);
    ok(m.snap.gc.threshold[0] == 100 && m.snap.gc.threshold[2] == 102 &&
           m.snap.gc.tracked[1] == NODES,
       "%s: generations that moved are found in a collection", l->name);
    release(&m);
}

int main(void)
{
    for (size_t i = 0; i < layout_count(); i++) {
        if (layout_at(i)->free_threaded)
            continue;
        test_layout(layout_at(i));
        test_moved(layout_at(i));
    }
    return done_testing();
}
