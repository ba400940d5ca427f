/* The passes over the blocks in use, in their order: what is an object, what a freelist keeps, what
 * the runtime holds, what objects own, and then the sums. */
#include <stdlib.h>
#include <string.h>

#include "walker/cpython/statics.h"
#include "walker/cpython/tracemalloc.h"
#include "walker/note.h"
#include "walker/parallel.h"

enum { CACHE_PAGES = 8192 };

/* The copy's pieces are few and large. One that was asked for further in front replaces what was
 * known of it. */
static const uint8_t *peek_direct(struct objects *o, uint64_t addr, size_t len)
{
    size_t have = 0;
    const uint8_t *p = o->far->ops->direct(o->far, addr, &have);
    if (!p || have < len)
        return NULL;
    unsigned i = 0;
    while (i < PEEK_PIECES && o->pieces[i].start + o->pieces[i].len != addr + have)
        i++;
    if (i == PEEK_PIECES)
        i = o->next_piece++ % PEEK_PIECES;
    o->pieces[i] = (struct peek_piece){p, addr, have};
    return p;
}

static const uint8_t *peek_known(const struct objects *o, uint64_t addr, size_t len)
{
    for (unsigned i = 0; i < PEEK_PIECES; i++) {
        const struct peek_piece *w = &o->pieces[i];
        uint64_t off = addr - w->start;
        if (off < w->len && w->len - off >= len)
            return w->bytes + off;
    }
    return NULL;
}

const uint8_t *objects_peek(struct objects *o, uint64_t addr, size_t len)
{
    const struct mem_window *w = &o->near;
    uint64_t off = addr - w->start;
    /* Walks in address order mostly ask about what they stand on. */
    if (addr >= w->start && off <= w->len && w->len - off >= len)
        return w->bytes + off;
    const uint8_t *p = o->far->ops->direct ? peek_known(o, addr, len) : NULL;
    if (!p && o->far->ops->direct)
        p = peek_direct(o, addr, len);
    if (p)
        return p;
    if (len > sizeof o->scratch || mem_read_some(o->far, addr, o->scratch, len) < len)
        return NULL;
    return o->scratch;
}

/* Small reads all over the heap: from the bytes themselves, else through a cache of pages, but only
 * of a target that stands still. */
static int far_init(struct objects *o, struct err *err)
{
    struct mem *mem = o->in->mem;
    o->far = mem;
    if (mem->ops->direct || !(mem->traits & MEM_FROZEN))
        return 0;
    return mem_cache_new(mem, CACHE_PAGES, &o->far, err);
}

/* The collector's lists are one long chain of reads that wait for each other: beside other work,
 * into a snapshot of its own. */
struct collector {
    const struct cpython_input *in;
    const struct cpython *py;
    struct snapshot snap;
    struct notes notes;
    struct beside beside;
};

static void read_collector(void *ctx)
{
    struct collector *c = ctx;
    gc_read(c->in, c->py, &c->snap, &c->notes);
}

static void collector_start(struct collector *c, const struct cpython_input *in,
                            const struct cpython *py)
{
    c->in = in;
    c->py = py;
    snapshot_init(&c->snap);
    notes_init(&c->notes, &c->snap);
    beside_start(&c->beside, read_collector, c, in->mem->ops->direct && parallel_threads() > 1);
}

static void collector_finish(struct collector *c, struct snapshot *snap, struct notes *notes)
{
    beside_wait(&c->beside);
    snap->gc = c->snap.gc;
    for (size_t i = 0; i < c->snap.n_notes; i++) {
        const struct snapshot_note *n = &c->snap.notes[i];
        note_remark(notes, n->what, n->address, n->bytes, "%s", n->why);
    }
    snapshot_release(&c->snap);
}

static int judge_blocks(struct objects *o, struct err *err)
{
    int rc = objects_classify(o, err);
    if (rc < 0)
        return rc;
    freelists_mark(o);
    rc = runtime_mark(o, err);
    if (rc < 0)
        return rc;
    extension_infer(o);
    if (objects_stopped(o))
        return err_set(err, ERR_INTERRUPTED, "interrupted");
    rc = statics_find(o, err);
    if (rc < 0)
        return rc;
    types_tell(o);
    return 0;
}

/* tracemalloc's own blocks are as many as those that it traces, and known for certain: they come
 * first. Who allocated what comes when all blocks have been judged. */
static int run_passes(struct objects *o, struct snapshot *snap, struct err *err)
{
    struct tracing t;
    int rc = tracing_read(o, snap, &t, err);
    if (rc == 0)
        rc = tracing_mark(&t, o->blocks, err);
    if (rc == 0)
        rc = judge_blocks(o, err);
    if (rc == 0)
        rc = sites_join(&t, o, o->blocks, snap, err);
    tracing_release(&t);
    return rc < 0 ? rc : objects_report(o, snap, err);
}

/* Every block, and who is what. */
static int look_at_blocks(struct objects *o, bool owners, struct snapshot *snap, struct err *err)
{
    int rc = cpython_blocks(o->in, o->py, o->blocks, err);
    if (rc == 0)
        rc = blocks_sort(o->blocks, owners, err);
    if (rc == 0)
        rc = mem_window_init(&o->near, o->in->mem, MEM_WINDOW_BYTES, err);
    if (rc == 0)
        rc = far_init(o, err);
    return rc < 0 ? rc : run_passes(o, snap, err);
}

int cpython_objects(const struct cpython_input *in, const struct cpython *py, struct blocks *b,
                    struct snapshot *snap, struct notes *notes, struct err *err)
{
    struct objects *o = calloc(1, sizeof *o);
    struct collector c;
    if (!o)
        return err_set(err, ERR_NOMEM, "no memory to look at objects");
    *o = (struct objects){.in = in, .py = py, .blocks = b, .notes = notes, .far = in->mem};
    types_init(&o->types);
    /* Whoever wants owners hands in an array of any length: its true one is known only now. */
    bool owners = b->owners != NULL;
    free(b->owners);
    b->owners = NULL;
    collector_start(&c, in, py);
    int rc = look_at_blocks(o, owners, snap, err);
    collector_finish(&c, snap, notes);
    if (o->far != in->mem)
        mem_close(o->far);
    mem_window_release(&o->near);
    types_release(&o->types);
    statics_release(o);
    free(o);
    return rc;
}

static int read_sites(struct objects *o, struct snapshot *snap, struct err *err)
{
    struct tracing t;
    int rc = tracing_read(o, snap, &t, err);
    if (rc == 0)
        rc = sites_join(&t, o, NULL, snap, err);
    tracing_release(&t);
    return rc;
}

int cpython_sites(const struct cpython_input *in, const struct cpython *py, struct snapshot *snap,
                  struct notes *notes, struct err *err)
{
    struct objects *o = calloc(1, sizeof *o);
    if (!o)
        return err_set(err, ERR_NOMEM, "no memory to look at tracemalloc");
    *o = (struct objects){.in = in, .py = py, .notes = notes, .far = in->mem};
    types_init(&o->types);
    int rc = far_init(o, err);
    if (rc == 0)
        rc = read_sites(o, snap, err);
    if (o->far != in->mem)
        mem_close(o->far);
    types_release(&o->types);
    free(o);
    return rc;
}
