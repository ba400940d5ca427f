/* The order of the passes. Who claims first keeps the bytes: modules' data and stacks, which the
 * kernel and the ELF files tell for certain, then CPython's own mappings, then malloc, which looks
 * only at what nobody owns. */
#include "walker/walk.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/blocks.h"
#include "walker/cpython/objects.h"

static void fill_python(const struct walk_input *in, const struct cpython *py,
                        struct snapshot *snap)
{
    struct snapshot_python *p = &snap->python;
    p->present = true;
    p->version = snapshot_str(snap, py->version);
    p->hexversion = py->hexversion;
    p->debug = py->debug;
    p->free_threaded = py->free_threaded;
    p->trace_refs = py->trace_refs;
    p->allocator = cpython_allocator(&in->python, py, snap);
    p->layout_name = snapshot_str(snap, py->layout.name);
    p->layout_source = snapshot_str(snap, py->layout_source);
    p->state = py->state;
    p->tracemalloc = cpython_tracing(&in->python, py);
    p->interpreters = py->n_interpreters ? py->n_interpreters : 1;
    p->found_by = snapshot_str(snap, py->found_by);
}

/* .data and .bss: the anonymous part of a module's writable segment is not a heap. */
static int claim_data(const struct walk_input *in, struct blockmap *map, struct err *err)
{
    for (size_t i = 0; i < in->n_data; i++) {
        uint64_t lo, hi, at = in->data[i].start;
        while (blockmap_gap(map, at, in->data[i].end, &lo, &hi)) {
            const struct vma *v = vma_at(&in->vmas, lo);
            at = v ? min_u64(hi, v->end) : hi;
            if (!v || !vma_is_heapish(v))
                continue;
            int rc = blockmap_claim_one(map, lo, at, CAT_DATA, 1, "module data", err);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

/* What nobody claimed, by what the kernel says of its mapping. */
static enum category fallback(void *ctx, const struct vma *v, uint64_t lo, uint64_t hi)
{
    const struct walk_input *in = ctx;
    if (v->kind == VMA_KERNEL)
        return CAT_KERNEL;
    if (!v->r && !v->w && !v->x)
        return CAT_RESERVED;
    if (v->kind == VMA_STACK)
        return CAT_STACKS;
    if (v->kind == VMA_FILE)
        return v->w && !v->shared ? CAT_DATA : CAT_FILES;
    if (v->kind == VMA_SHARED)
        return CAT_FILES;
    /* ld.so maps the main thread's static TLS and descriptor by themselves. */
    for (size_t i = 0; i < in->n_threads; i++)
        if (in->threads[i].fs_base >= lo && in->threads[i].fs_base < hi && hi - lo <= 1u << 20)
            return CAT_DATA;
    if (in->foreign && vma_is_heapish(v))
        return CAT_MALLOC_FOREIGN;
    return CAT_UNKNOWN;
}

/* Which malloc, and whether it is one that can be walked. An allocator that a module defines counts
 * only if glibc's was never used: a library may bring one for itself. */
static void name_malloc(struct walk_input *in, struct snapshot *snap, struct notes *notes, int rc,
                        const char *why)
{
    in->foreign = rc < 0 && in->interposer;
    snap->libc.name = in->libc_name ? snapshot_str(snap, in->libc_name) : "unknown";
    snap->libc.version = snapshot_str(snap, in->libc_version);
    snap->libc.allocator = rc == 0       ? "glibc"
                           : in->foreign ? snapshot_str(snap, in->interposer)
                                         : "unknown";
    if (in->foreign)
        note_remark(notes, "malloc.foreign", 0, 0,
                    "malloc is %s, which heapcensus cannot look into: its memory is one category",
                    in->interposer);
    else if (rc < 0)
        note_add(notes, "malloc.unknown", 0, 0, "the malloc heap was not walked: %s", why);
    else if (in->interposer)
        note_remark(notes, "malloc.mixed", 0, 0,
                    "a module brings %s; only what comes from glibc's malloc is walked",
                    in->interposer);
}

static int add_chunk(void *ctx, uint64_t addr, uint64_t usable)
{
    return blocks_add_chunk(ctx, addr, usable, NULL);
}

static int walk_malloc(struct walk_input *in, struct blockmap *map, struct blocks *blocks,
                       struct snapshot *snap, struct notes *notes, struct err *err)
{
    struct err why = ERR_INIT;
    uint64_t *fs_bases = calloc(in->n_threads + 1, sizeof *fs_bases);
    if (!fs_bases)
        return err_set(err, ERR_NOMEM, "no memory for %zu threads", in->n_threads);
    struct glibc_input gi = {
        .mem = in->mem,
        .vmas = &in->vmas,
        .res = in->res,
        .data = in->data,
        .n_data = in->n_data,
        /* Another allocator's memory must not be walked as if it were glibc's. */
        .partial = in->partial && !in->interposer,
        .libc_lost = in->libc_lost,
        .version_hint = in->libc_version,
        .fs_bases = fs_bases,
        .used = blocks ? add_chunk : NULL,
        .used_ctx = blocks,
    };
    for (size_t i = 0; i < in->n_threads; i++)
        if (in->threads[i].fs_base)
            fs_bases[gi.n_threads++] = in->threads[i].fs_base;
    int rc = glibc_walk(&gi, map, snap, notes, &why);
    free(fs_bases);
    if (rc == ERR_NOMEM)
        return err_set(err, ERR_NOMEM, "%s", why.text);
    name_malloc(in, snap, notes, rc, why.text);
    return 0;
}

static int walk_python(const struct walk_input *in, struct cpython *py, struct blockmap *map,
                       struct snapshot *snap, struct notes *notes, struct err *err)
{
    int rc = cpython_walk(&in->python, py, map, snap, notes, err);
    if (rc < 0)
        return rc;
    fill_python(in, py, snap);
    /* Within a minor the layouts before 3.13 do not move; from 3.13 on the target tells itself. */
    if (!py->layout_exact && py->layout_differs)
        note_remark(
            notes, "layout.nearest", 0, 0,
            "there is no layout of CPython %s: the one of %s was used, with the offsets that "
            "the target itself gives",
            py->version, py->layout.name);
    return 0;
}

/* Where static objects may lie. */
static int find_data(struct walk_input *in, struct cpython_range **ret, struct err *err)
{
    struct cpython_range *ranges = calloc(in->n_data + 1, sizeof *ranges);
    if (!ranges)
        return err_set(err, ERR_NOMEM, "no memory for %zu ranges of data", in->n_data);
    for (size_t i = 0; i < in->n_data; i++)
        ranges[i] = (struct cpython_range){in->data[i].start, in->data[i].end};
    in->python.data = *ret = ranges;
    in->python.n_data = in->n_data;
    return 0;
}

/* malloc's chunks, and then every block in use of either heap. */
static int walk_blocks(struct walk_input *in, struct cpython *py, struct blockmap *map,
                       struct snapshot *snap, struct notes *notes, struct err *err)
{
    struct blocks blocks;
    struct cpython_range *data = NULL;
    if (!in->types || !py->traits) {
        int only = walk_malloc(in, map, NULL, snap, notes, err);
        return only < 0 || !py->traits ? only : cpython_sites(&in->python, py, snap, notes, err);
    }
    blocks_init(&blocks);
    int rc = walk_malloc(in, map, &blocks, snap, notes, err);
    /* Any array says that owners are wanted; cpython_objects makes the right one. */
    blocks.owners = in->blocks ? malloc(sizeof *blocks.owners) : NULL;
    if (rc == 0)
        rc = find_data(in, &data, err);
    if (rc == 0)
        rc = cpython_objects(&in->python, py, &blocks, snap, notes, err);
    blocks_release(&blocks);
    in->python.data = NULL;
    in->python.n_data = 0;
    free(data);
    return rc;
}

static int walk_all(struct walk_input *in, struct cpython *py, struct blockmap *map,
                    struct snapshot *snap, struct notes *notes, struct err *err)
{
    int rc = claim_data(in, map, err);
    if (rc == 0)
        rc = stacks_claim(in, map, notes, err);
    if (rc == 0 && py->traits)
        rc = walk_python(in, py, map, snap, notes, err);
    if (rc == 0)
        rc = walk_blocks(in, py, map, snap, notes, err);
    if (rc == 0 && in->settle)
        rc = in->settle(in->settle_ctx, err);
    if (rc == 0)
        rc = blockmap_settle(map, &in->vmas, fallback, in, snap, notes, err);
    return rc;
}

/* Without traits in py there is no Python that could be walked, yet the rest can. */
static int find_python(struct walk_input *in, struct cpython *py, struct notes *notes,
                       struct err *err)
{
    struct err why = ERR_INIT;
    int rc = cpython_find(&in->python, py, notes, &why);
    if (rc == 0)
        return 0;
    if (in->partial && rc != ERR_NOMEM && rc != ERR_INTERRUPTED) {
        enum cpython_guess guess = cpython_guess(&in->python, py, notes, why.text);
        if (guess == CPYTHON_UNVERSIONED)
            py->traits = NULL;
        if (guess != CPYTHON_NONE)
            return 0;
    }
    if (err)
        *err = why;
    return rc;
}

int walk_run(struct walk_input *in, struct snapshot *snap, struct err *err)
{
    struct notes notes;
    struct cpython py;
    struct blockmap map;
    notes_init(&notes, snap);
    blockmap_init(&map, in->res);
    in->python.mem = in->mem;
    in->python.vmas = &in->vmas;
    in->python.res = in->res;
    in->python.partial = in->partial;
    int rc = find_python(in, &py, &notes, err);
    if (rc == 0)
        rc = walk_all(in, &py, &map, snap, &notes, err);
    note_flush(&notes);
    cpython_release(&py);
    blockmap_release(&map);
    return rc;
}
