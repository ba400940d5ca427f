/* The interpreter's own structures.
 *
 * Some are known by name: states of interpreters and threads, pymalloc's state and its array of
 * arenas. The rest (nodes of the radix tree, tables of interned strings, of modules and of
 * tracemalloc, locks, names of static types ...) is what these and the interpreter's own data point
 * to, over any number of steps, and what no object owns: an unowned block that begins exactly where
 * the interpreter points. */
#include <stdlib.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/own.h"

enum { POINTER = 8, PAGE = 4096, MAX_THREADS = 1 << 20 };

static void mark(struct objects *o, uint64_t addr)
{
    uint64_t start;
    size_t slot = addr ? blocks_find(o->blocks, addr, &start) : SIZE_MAX;
    if (slot != SIZE_MAX && block_kind(o->blocks, slot) == BLOCK_UNOWNED)
        block_set(o->blocks, slot, BLOCK_RUNTIME, BLOCK_NO_TYPE);
}

static void mark_interpreter(struct objects *o, uint64_t interp)
{
    uint64_t at;
    mark(o, interp);
    if (o->py->traits->obmalloc == OBMALLOC_POINTER &&
        objects_field(o, interp, LF_interp_obmalloc, &at))
        mark(o, at);
    if (!objects_field(o, interp, LF_interp_threads_head, &at))
        return;
    for (int i = 0; at && i < MAX_THREADS; i++) {
        mark(o, at);
        if (!objects_field(o, at, LF_ts_next, &at))
            return;
    }
}

void runtime_mark(struct objects *o)
{
    for (size_t i = 0; i < o->py->n_interpreters; i++)
        mark_interpreter(o, o->py->interpreters[i]);
    for (size_t i = 0; i < o->py->n_heaps; i++) {
        mark(o, o->py->heaps[i].usedpools);
        mark(o, o->py->heaps[i].arenas);
    }
}

/* ---- what they point to ---- */

struct reach {
    struct objects *o;
    struct blocks_span span;
    uint32_t *todo; /* slots whose bytes are still to be looked at */
    size_t n, cap;
};

static int push(struct reach *r, size_t slot, struct err *err)
{
    if (vec_reserve(&r->todo, &r->cap, r->n + 1, sizeof *r->todo) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the interpreter's own blocks");
    r->todo[r->n++] = (uint32_t)slot;
    return 0;
}

static int look_at(struct reach *r, const uint8_t *p, uint64_t len, struct err *err)
{
    for (uint64_t i = 0; i + POINTER <= len; i += POINTER) {
        uint64_t word = load_u64(p + i);
        size_t slot = unowned_at(r->o, &r->span, word);
        if (slot == SIZE_MAX)
            continue;
        block_set(r->o->blocks, slot, BLOCK_RUNTIME, BLOCK_NO_TYPE);
        int rc = push(r, slot, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Page by page: some may be missing. */
static int look_through(struct reach *r, uint64_t start, uint64_t end, struct err *err)
{
    int rc = 0;
    start = round_up(start, POINTER);
    while (rc == 0 && start < end) {
        uint64_t next = min_u64(round_down(start, PAGE) + PAGE, end);
        const uint8_t *p = objects_peek(r->o, start, next - start);
        if (p)
            rc = look_at(r, p, next - start, err);
        start = next;
    }
    return rc;
}

static int reach_blocks(struct reach *r, struct err *err)
{
    int rc = 0;
    while (rc == 0 && r->n) {
        struct block_place place;
        blocks_place(r->o->blocks, r->todo[--r->n], &place);
        rc = look_through(r, place.addr, place.addr + place.size, err);
    }
    return rc;
}

static int reach_statics(struct reach *r, struct err *err)
{
    const struct cpython *py = r->o->py;
    int rc = 0;
    for (size_t i = 0; rc == 0 && py->module && i < py->module->n_data; i++)
        rc = look_through(r, py->module->data[i].start, py->module->data[i].end, err);
    if (rc == 0 && !py->module && py->runtime)
        rc = look_through(r, py->runtime, py->runtime + layout_size(&py->layout, LF_rt_size), err);
    return rc;
}

int runtime_reach(struct objects *o, struct err *err)
{
    struct reach r = {.o = o, .span = blocks_span(o->blocks)};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < o->blocks->n; i++)
        if (block_kind(o->blocks, i) == BLOCK_RUNTIME)
            rc = push(&r, i, err);
    if (rc == 0)
        rc = reach_statics(&r, err);
    if (rc == 0)
        rc = reach_blocks(&r, err);
    free(r.todo);
    return rc;
}
