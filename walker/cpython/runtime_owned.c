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
    block_set(r->o->blocks, slot, BLOCK_RUNTIME, BLOCK_NO_TYPE);
    r->todo[r->n++] = (uint32_t)slot;
    return 0;
}

/* ---- what is known by name ---- */

static int mark(struct reach *r, uint64_t addr, struct err *err)
{
    uint64_t start;
    size_t slot = addr ? blocks_find(r->o->blocks, addr, &start) : SIZE_MAX;
    if (slot == SIZE_MAX || block_kind(r->o->blocks, slot) != BLOCK_UNOWNED)
        return 0;
    return push(r, slot, err);
}

static int mark_interpreter(struct reach *r, uint64_t interp, struct err *err)
{
    struct objects *o = r->o;
    uint64_t at;
    int rc = mark(r, interp, err);
    if (rc == 0 && o->py->traits->obmalloc == OBMALLOC_POINTER &&
        objects_field(o, interp, LF_interp_obmalloc, &at))
        rc = mark(r, at, err);
    if (!objects_field(o, interp, LF_interp_threads_head, &at))
        return rc;
    for (int i = 0; rc == 0 && at && i < MAX_THREADS; i++) {
        rc = mark(r, at, err);
        if (!objects_field(o, at, LF_ts_next, &at))
            break;
    }
    return rc;
}

static int mark_named(struct reach *r, struct err *err)
{
    const struct cpython *py = r->o->py;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < py->n_interpreters; i++)
        rc = mark_interpreter(r, py->interpreters[i], err);
    for (size_t i = 0; rc == 0 && i < py->n_heaps; i++) {
        rc = mark(r, py->heaps[i].usedpools, err);
        if (rc == 0)
            rc = mark(r, py->heaps[i].arenas, err);
    }
    return rc;
}

/* ---- what they point to ---- */

static int look_at(struct reach *r, const uint8_t *p, uint64_t len, struct err *err)
{
    for (uint64_t i = 0; i + POINTER <= len; i += POINTER) {
        uint64_t word = load_u64(p + i);
        size_t slot = unowned_at(r->o, &r->span, word);
        if (slot == SIZE_MAX)
            continue;
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

int runtime_mark(struct objects *o, struct err *err)
{
    struct reach r = {.o = o, .span = blocks_span(o->blocks)};
    int rc = mark_named(&r, err);
    if (rc == 0)
        rc = reach_statics(&r, err);
    if (rc == 0)
        rc = reach_blocks(&r, err);
    free(r.todo);
    return rc;
}
