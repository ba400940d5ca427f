#include "formats/snapshot.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/vec.h"

static const char *const names[CAT_COUNT] = {
    [CAT_PYTHON_BLOCKS_USED] = "python.blocks.used",
    [CAT_PYTHON_BLOCKS_FREE] = "python.blocks.free",
    [CAT_PYTHON_ARENAS_OVERHEAD] = "python.arenas.overhead",
    [CAT_PYTHON_MIMALLOC] = "python.mimalloc",
    [CAT_MALLOC_USED] = "malloc.used",
    [CAT_MALLOC_CACHED] = "malloc.cached",
    [CAT_MALLOC_FREE] = "malloc.free",
    [CAT_MALLOC_TOP] = "malloc.top",
    [CAT_MALLOC_OVERHEAD] = "malloc.overhead",
    [CAT_MALLOC_MMAPPED] = "malloc.mmapped",
    [CAT_MALLOC_FOREIGN] = "malloc.foreign",
    [CAT_STACKS] = "stacks",
    [CAT_FILES] = "files",
    [CAT_DATA] = "data",
    [CAT_KERNEL] = "kernel",
    [CAT_RESERVED] = "reserved",
    [CAT_UNKNOWN] = "unknown",
};

const char *category_name(enum category cat)
{
    return names[cat];
}

int category_of_name(const char *name)
{
    for (int i = 0; i < CAT_COUNT; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    return -1;
}

void tally_add(struct tally *into, const struct tally *more)
{
    for (int i = 0; i < CAT_COUNT; i++) {
        into->bytes[i] += more->bytes[i];
        into->resident[i] += more->resident[i];
        into->count[i] += more->count[i];
    }
}

uint64_t tally_bytes(const struct tally *t)
{
    uint64_t sum = 0;
    for (int i = 0; i < CAT_COUNT; i++)
        sum += t->bytes[i];
    return sum;
}

uint64_t tally_resident(const struct tally *t)
{
    uint64_t sum = 0;
    for (int i = 0; i < CAT_COUNT; i++)
        sum += t->resident[i];
    return sum;
}

void snapshot_init(struct snapshot *snap)
{
    memset(snap, 0, sizeof *snap);
    strpool_init(&snap->strings);
    snap->complete = true;
    snap->redacted = true;
}

void snapshot_release(struct snapshot *snap)
{
    free(snap->arenas);
    free(snap->malloc_arenas);
    free(snap->mappings);
    free(snap->notes);
    free(snap->types);
    free(snap->blocks);
    free(snap->frames);
    free(snap->frame_ids);
    free(snap->tracebacks);
    free(snap->size_counts);
    free(snap->sites);
    strpool_release(&snap->strings);
    memset(snap, 0, sizeof *snap);
}

const char *snapshot_str(struct snapshot *snap, const char *s)
{
    return s ? strpool_add(&snap->strings, s) : NULL;
}

/* A zeroed element at the end of an array, or NULL. */
static void *append(void *items, size_t *n, size_t *cap, size_t elem)
{
    if (vec_reserve(items, cap, *n + 1, elem) < 0)
        return NULL;
    char *base;
    memcpy(&base, items, sizeof base);
    void *fresh = base + *n * elem;
    memset(fresh, 0, elem);
    (*n)++;
    return fresh;
}

struct snapshot_arena *snapshot_add_arena(struct snapshot *snap)
{
    return append(&snap->arenas, &snap->n_arenas, &snap->cap_arenas, sizeof *snap->arenas);
}

struct snapshot_malloc_arena *snapshot_add_malloc_arena(struct snapshot *snap)
{
    return append(&snap->malloc_arenas, &snap->n_malloc_arenas, &snap->cap_malloc_arenas,
                  sizeof *snap->malloc_arenas);
}

struct snapshot_mapping *snapshot_add_mapping(struct snapshot *snap)
{
    return append(&snap->mappings, &snap->n_mappings, &snap->cap_mappings, sizeof *snap->mappings);
}

struct snapshot_note *snapshot_add_note(struct snapshot *snap)
{
    return append(&snap->notes, &snap->n_notes, &snap->cap_notes, sizeof *snap->notes);
}

struct snapshot_type *snapshot_add_type(struct snapshot *snap)
{
    return append(&snap->types, &snap->n_types, &snap->cap_types, sizeof *snap->types);
}

struct snapshot_block *snapshot_add_block(struct snapshot *snap)
{
    return append(&snap->blocks, &snap->n_blocks, &snap->cap_blocks, sizeof *snap->blocks);
}

struct snapshot_frame *snapshot_add_frame(struct snapshot *snap)
{
    return append(&snap->frames, &snap->n_frames, &snap->cap_frames, sizeof *snap->frames);
}

struct snapshot_traceback *snapshot_add_traceback(struct snapshot *snap, const uint32_t *frames,
                                                  uint32_t n, uint32_t total)
{
    if (vec_reserve(&snap->frame_ids, &snap->cap_frame_ids, snap->n_frame_ids + n,
                    sizeof *snap->frame_ids) < 0)
        return NULL;
    struct snapshot_traceback *t = append(&snap->tracebacks, &snap->n_tracebacks,
                                          &snap->cap_tracebacks, sizeof *snap->tracebacks);
    if (!t)
        return NULL;
    if (n)
        memcpy(snap->frame_ids + snap->n_frame_ids, frames, n * sizeof *frames);
    *t = (struct snapshot_traceback){snap->n_frame_ids, n, total};
    snap->n_frame_ids += n;
    return t;
}

struct snapshot_site *snapshot_add_site(struct snapshot *snap)
{
    struct snapshot_site *s =
        append(&snap->sites, &snap->n_sites, &snap->cap_sites, sizeof *snap->sites);
    if (s)
        s->first_size = snap->n_size_counts;
    return s;
}

bool snapshot_add_size_count(struct snapshot *snap, uint64_t size, uint64_t count)
{
    struct snapshot_size_count *c = append(&snap->size_counts, &snap->n_size_counts,
                                           &snap->cap_size_counts, sizeof *snap->size_counts);
    if (!c)
        return false;
    *c = (struct snapshot_size_count){size, count};
    snap->sites[snap->n_sites - 1].n_sizes++;
    return true;
}
