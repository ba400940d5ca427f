/* Buffers of types that CPython itself does not know: numpy's arrays by their layout, all others by
 * a conservative rule. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/object_place.h"
#include "walker/cpython/own.h"
#include "walker/note.h"

enum { POINTER = 8 };

/* ---- numpy.ndarray: PyArrayObject_fields, the same since numpy 1.0 ---- */

enum {
    ARRAY_DATA = 0, /* from the end of PyObject on */
    ARRAY_ND = 8,
    ARRAY_DIMS = 16,
    ARRAY_STRIDES = 24,
    ARRAY_FLAGS = 48,
    ARRAY_BYTES = 56,
    OWNDATA = 4,
    MAX_ND = 64
};

/* Bytes that the items span; 0: none, or not plausible. */
static uint64_t items_span(struct objects *o, uint64_t dims, uint64_t strides, uint32_t nd)
{
    uint64_t span = nd ? 0 : 1;
    for (uint32_t i = 0; i < nd; i++) {
        uint64_t n, stride, bytes;
        if (mem_u64(o->far, dims + (uint64_t)i * POINTER, &n, NULL) < 0 ||
            mem_u64(o->far, strides + (uint64_t)i * POINTER, &stride, NULL) < 0 || n == 0)
            return 0;
        if ((int64_t)stride < 0)
            stride = -stride;
        bytes = bytes_of(0, n, stride);
        span = max_u64(span, max_u64(bytes, 1));
        if (n > 1 && stride && !bytes)
            return 0;
    }
    return span;
}

void ndarray_buffers(struct objects *o, const struct type_info *t, uint64_t obj, buffer_fn emit,
                     void *ctx)
{
    uint64_t head = layout_size(&o->py->layout, LF_ob_sizeof);
    const uint8_t *p = objects_peek(o, obj + head, ARRAY_BYTES);
    if (!p || t->basicsize < head + ARRAY_BYTES)
        return;
    uint64_t data = load_u64(p + ARRAY_DATA), dims = load_u64(p + ARRAY_DIMS);
    uint64_t strides = load_u64(p + ARRAY_STRIDES);
    uint32_t nd = load_u32(p + ARRAY_ND), flags = load_u32(p + ARRAY_FLAGS);
    if (nd > MAX_ND || (nd && (!dims || !strides)))
        return;
    /* One block for both, but not necessarily for an array that somebody reshaped in place. */
    if (nd)
        emit(ctx, dims, (strides == dims + nd * POINTER ? 2 : 1) * (uint64_t)nd * POINTER);
    if (data && flags & OWNDATA)
        emit(ctx, data, items_span(o, dims, strides, nd));
}

/* ---- the conservative rule ---- */

/* A type whose first instances have nothing is not looked at any longer: of ten million small
 * objects of a Python class none has a pointer to anything but objects. */
enum { TRIES = 1024, MAX_LOOK = 4096 };

struct infer {
    struct objects *o;
    struct blocks_span span;
    uint32_t *tries; /* by type: instances without a find so far; UINT32_MAX: one had */
    uint8_t *wanted; /* by type: whether to look at more of them; the last one is for no type */
    size_t n;
};

static uint64_t body_bytes(struct objects *o, const struct type_info *t, uint64_t obj)
{
    uint64_t n = 0;
    if (t->itemsize && !objects_field(o, obj, LF_var_size, &n))
        n = 0;
    uint64_t size = bytes_of(t->basicsize, (int64_t)n < 0 ? -n : n, t->itemsize);
    return size ? size : t->basicsize;
}

static bool infer_from(struct infer *f, size_t slot, uint32_t type, uint64_t obj, uint64_t end)
{
    struct objects *o = f->o;
    struct blocks *b = o->blocks;
    uint64_t at = obj + layout_size(&o->py->layout, LF_ob_sizeof);
    bool found = false;
    end = min_u64(end, obj + min_u64(body_bytes(o, &o->types.items[type], obj), MAX_LOOK));
    const uint8_t *p = at < end ? objects_peek(o, at, end - at) : NULL;
    for (uint64_t i = 0; p && i + POINTER <= end - at; i += POINTER) {
        size_t buffer = unowned_at(o, &f->span, load_u64(p + i));
        if (buffer == SIZE_MAX)
            continue;
        block_set(b, buffer, BLOCK_INFERRED, type);
        if (b->owners)
            b->owners[buffer] = (uint32_t)slot + 1;
        found = true;
    }
    return found;
}

static void infer_slot(struct infer *f, size_t slot, uint32_t type, const struct block_place *place)
{
    struct objects *o = f->o;
    uint64_t obj = object_in_block(o, place, &o->types.items[type]);
    if (infer_from(f, slot, type, obj, place->addr + place->size))
        f->tries[type] = UINT32_MAX;
    else if (f->tries[type] != UINT32_MAX)
        f->wanted[type] = ++f->tries[type] < TRIES;
}

/* The slots of a run, or one chunk. Nearly all of millions are passed over, with one branch that is
 * as good as never taken. */
static void infer_slots(struct infer *f, size_t first, size_t n, struct block_place place)
{
    const uint32_t *what = f->o->blocks->what + first, none = (uint32_t)f->n;
    const uint8_t *wanted = f->wanted;
    uint64_t addr = place.addr;
    for (size_t i = 0; i < n; i++) {
        uint32_t type = what[i] - ((uint32_t)BLOCK_OBJECT << 28); /* too large for other kinds */
        if (!wanted[type < none ? type : none])
            continue;
        place.addr = addr + i * place.size;
        infer_slot(f, first + i, type, &place);
    }
}

static void infer_all(struct infer *f)
{
    const struct blocks *b = f->o->blocks;
    for (size_t i = 0; i < b->n_runs && !objects_stopped(f->o); i++) {
        const struct block_run *r = &b->runs[i];
        infer_slots(f, r->first, r->n, (struct block_place){r->addr, r->size, false});
    }
    size_t first = b->n - b->n_chunks;
    for (size_t i = 0; i < b->n_chunks && !objects_stopped(f->o); i++) {
        const struct block_chunk *c = &b->chunks[i];
        infer_slots(f, first + i, 1, (struct block_place){c->addr, c->size, true});
    }
}

static bool nothing_known(const struct type_info *t)
{
    return t->kind == KIND_OTHER || t->kind == KIND_NDARRAY;
}

void extension_infer(struct objects *o)
{
    const struct blocks *b = o->blocks;
    struct infer f = {.o = o, .span = blocks_span(b), .n = o->types.n};
    f.tries = calloc(f.n + 1, sizeof *f.tries);
    f.wanted = calloc(f.n + 1, 1);
    if (!f.tries || !f.wanted) {
        free(f.tries);
        free(f.wanted);
        note_add(o->notes, "objects.inferred", 0, 0,
                 "no memory to look for buffers of unknown types");
        return;
    }
    for (size_t i = 0; i < f.n; i++)
        f.wanted[i] = nothing_known(&o->types.items[i]);
    infer_all(&f);
    free(f.tries);
    free(f.wanted);
}
