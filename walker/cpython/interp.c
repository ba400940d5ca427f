/* The interpreters, and the pymalloc state of each.
 *
 * 3.8-3.11 have one state in the module's statics, whatever the number of interpreters. 3.12 has it
 * inside each PyInterpreterState; one that shares the main interpreter's GIL leaves its own empty.
 * 3.13+ has a pointer, equal to the main interpreter's where it is shared. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/cpython.h"

enum { MAX_INTERPRETERS = 10000, TOLERATED_CLASSES = 2, MAX_ARENAS = 1 << 24 };

static int add_heap(struct cpython *py, const struct cpython_heap *heap, struct err *err)
{
    for (size_t i = 0; i < py->n_heaps; i++)
        if (py->heaps[i].usedpools == heap->usedpools)
            return 0;
    if (vec_reserve(&py->heaps, &py->cap_heaps, py->n_heaps + 1, sizeof *py->heaps) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the pymalloc states");
    py->heaps[py->n_heaps++] = *heap;
    return 0;
}

static int list_interpreters(const struct cpython_input *in, struct cpython *py, struct err *err)
{
    uint64_t at = 0;
    if (!py->runtime || !layout_has(&py->layout, LF_rt_interp_head) ||
        layout_u64(&py->layout, in->mem, py->runtime, LF_rt_interp_head, &at, NULL) < 0)
        return 0;
    while (at && py->n_interpreters < MAX_INTERPRETERS) {
        if (vec_reserve(&py->interpreters, &py->cap_interpreters, py->n_interpreters + 1,
                        sizeof *py->interpreters) < 0)
            return err_set(err, ERR_NOMEM, "no memory for the interpreters");
        py->interpreters[py->n_interpreters++] = at;
        if (layout_u64(&py->layout, in->mem, at, LF_interp_next, &at, NULL) < 0)
            break;
    }
    return 0;
}

/* The array lies in one piece of writable memory: a damaged size must not send the walk through
 * millions of entries that are not there. */
static bool array_fits(const struct cpython_input *in, const struct cpython_heap *heap)
{
    const struct vma *v = vma_at(in->vmas, heap->arenas);
    if (!heap->maxarenas)
        return true;
    if (heap->maxarenas > MAX_ARENAS || !v || !v->r || !v->w)
        return false;
    uint64_t end = max_u64(v->end, vma_heapish_end(in->vmas, heap->arenas));
    return (end - heap->arenas) / ARENA_OBJECT_BYTES >= heap->maxarenas;
}

/* A state at `state`, in the shape of struct _obmalloc_state; false if it is none. */
static bool heap_at(const struct cpython_input *in, const struct cpython *py, uint64_t state,
                    struct cpython_heap *heap)
{
    const struct layout *l = &py->layout;
    memset(heap, 0, sizeof *heap);
    heap->usedpools = state + layout_offset(l, LF_obm_used);
    heap->arenas_at = state + layout_offset(l, LF_obm_arenas);
    heap->maxarenas_at = state + layout_offset(l, LF_obm_maxarenas);
    if (!usedpools_at(in, py, heap->usedpools, TOLERATED_CLASSES, &heap->empty))
        return false;
    if (layout_u64(l, in->mem, state, LF_obm_arenas, &heap->arenas, NULL) < 0 ||
        layout_u64(l, in->mem, state, LF_obm_maxarenas, &heap->maxarenas, NULL) < 0)
        return false;
    return array_fits(in, heap);
}

/* *at: where an interpreter's state is, 0 without one. False: the interpreter cannot be read. */
static bool state_of(const struct cpython_input *in, const struct cpython *py, uint64_t interp,
                     uint64_t *at)
{
    *at = 0;
    if (!layout_has(&py->layout, LF_interp_obmalloc))
        return true;
    if (py->traits->obmalloc != OBMALLOC_INLINE)
        return layout_u64(&py->layout, in->mem, interp, LF_interp_obmalloc, at, NULL) == 0;
    *at = interp + layout_offset(&py->layout, LF_interp_obmalloc);
    return true;
}

/* 3.12+: through each interpreter; where the offset fails, by the signature in the module. */
static int heaps_of_interpreters(const struct cpython_input *in, struct cpython *py,
                                 struct notes *notes, struct err *err)
{
    struct cpython_heap heap;
    bool failed = py->n_interpreters == 0;
    for (size_t i = 0; i < py->n_interpreters; i++) {
        uint64_t state;
        bool read = state_of(in, py, py->interpreters[i], &state);
        if (!state || !heap_at(in, py, state, &heap)) {
            /* Without pymalloc, and in free-threaded builds, there is none to find. */
            failed = true;
            py->lost_heaps += state != 0 || (in->partial && !read);
            continue;
        }
        int rc = add_heap(py, &heap, err);
        if (rc < 0)
            return rc;
    }
    if (py->free_threaded)
        py->lost_heaps = 0;
    if (!failed || py->free_threaded)
        return 0;
    bool empty = false;
    size_t before = py->n_heaps;
    uint64_t used = usedpools_scan(in, py, &empty);
    if (used && heap_at(in, py, used - layout_offset(&py->layout, LF_obm_used), &heap)) {
        int rc = add_heap(py, &heap, err);
        if (rc < 0)
            return rc;
    }
    if (py->n_heaps > before && py->lost_heaps)
        py->lost_heaps--;
    if (py->lost_heaps)
        note_add(notes, "pymalloc.interpreter", 0, 0,
                 "the pymalloc state of %zu interpreter%s was not found", py->lost_heaps,
                 py->lost_heaps == 1 ? "" : "s");
    return 0;
}

/* 3.8-3.11 with a symbol table. */
static bool heap_by_symbols(const struct cpython_input *in, const struct cpython *py,
                            struct cpython_heap *heap)
{
    const struct cpython_module *m = py->module;
    uint32_t max = 0;
    memset(heap, 0, sizeof *heap);
    if (!m || !m->usedpools || !m->arenas || !m->maxarenas)
        return false;
    heap->usedpools = m->usedpools;
    heap->arenas_at = m->arenas;
    heap->maxarenas_at = m->maxarenas;
    if (!usedpools_at(in, py, heap->usedpools, TOLERATED_CLASSES, &heap->empty) ||
        mem_u64(in->mem, m->arenas, &heap->arenas, NULL) < 0 ||
        mem_u32(in->mem, m->maxarenas, &max, NULL) < 0)
        return false;
    heap->maxarenas = max;
    return array_fits(in, heap);
}

static int static_heap(const struct cpython_input *in, struct cpython *py, struct notes *notes,
                       struct err *err)
{
    struct cpython_heap heap;
    if (heap_by_symbols(in, py, &heap))
        return add_heap(py, &heap, err);
    memset(&heap, 0, sizeof heap);
    heap.usedpools = usedpools_scan(in, py, &heap.empty);
    if (!heap.usedpools)
        return 0;
    if (!heap.empty && !arenas_scan(in, py, &heap))
        note_remark(notes, "pymalloc.arenas", heap.usedpools, 0,
                    "the array of arenas was not found from the table of pools");
    return add_heap(py, &heap, err);
}

int cpython_interpreters(const struct cpython_input *in, struct cpython *py, struct notes *notes,
                         struct err *err)
{
    int rc = list_interpreters(in, py, err);
    if (rc < 0)
        return rc;
    if (py->traits->obmalloc == OBMALLOC_STATIC)
        return static_heap(in, py, notes, err);
    return heaps_of_interpreters(in, py, notes, err);
}

void cpython_refresh(const struct cpython_input *in, struct cpython *py)
{
    for (size_t i = 0; i < py->n_heaps; i++) {
        struct cpython_heap *heap = &py->heaps[i];
        uint64_t arenas = 0;
        uint32_t max = 0;
        if (!heap->arenas_at || mem_u64(in->mem, heap->arenas_at, &arenas, NULL) < 0)
            continue;
        /* An array that moved has grown: without the variable its new size is not known. */
        if (heap->maxarenas_at && mem_u32(in->mem, heap->maxarenas_at, &max, NULL) == 0 &&
            max <= MAX_ARENAS)
            heap->maxarenas = max;
        else if (arenas != heap->arenas)
            heap->maxarenas = 0;
        heap->arenas = arenas;
    }
}
