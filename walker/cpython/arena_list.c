/* Where the arenas are, and what a count of their blocks does not need: in a pool of 16 KiB (3.10+)
 * whose pages are all present, everything but the first page, which holds the header. Not copying
 * it makes the pause of a process that is mostly Python objects three to four times shorter. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/cpython.h"

enum { PAGE = 4096 };

struct arena_list {
    struct cpython_arena *items;
    size_t n, cap;
};

static int by_start(const void *a, const void *b)
{
    const struct cpython_arena *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static int add_arena(const struct cpython_input *in, const struct cpython *py,
                     const struct arena_object *a, struct arena_list *list, struct err *err)
{
    uint64_t pool = py->traits->pool_size, first = round_up(a->address, pool);
    uint64_t size = py->traits->arena_size;
    if (!arena_plausible(py, a))
        return 0;
    if (a->ntotalpools > size / pool)
        size *= 2; /* 3.15 with 2 MiB arenas */
    if (vec_reserve(&list->items, &list->cap, list->n + 1, sizeof *list->items) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the arenas");
    struct cpython_arena *r = &list->items[list->n++];
    *r = (struct cpython_arena){a->address, a->address + size, first, first};
    uint64_t end = min_u64(a->pool_address, first + a->ntotalpools * pool);
    /* With absent pages the resident part of used and free blocks hangs on the free lists. */
    if (pool > PAGE && end > first && residency_full(in->res, first, end))
        r->pools_end = end;
    return 0;
}

static int collect(const struct cpython_input *in, const struct cpython *py,
                   struct arena_list *list, struct err *err)
{
    struct mem_window win;
    int rc = mem_window_init(&win, in->mem, 64 * 1024, err);
    for (size_t h = 0; rc == 0 && h < py->n_heaps; h++) {
        const struct cpython_heap *heap = &py->heaps[h];
        for (uint64_t i = 0; rc == 0 && heap->arenas && i < heap->maxarenas; i++) {
            struct arena_object a;
            const uint8_t *p =
                mem_window_at(&win, heap->arenas + i * ARENA_OBJECT_BYTES, ARENA_OBJECT_BYTES);
            if (!p)
                continue;
            arena_object_load(&py->layout, p, &a);
            if (a.address)
                rc = add_arena(in, py, &a, list, err);
        }
    }
    mem_window_release(&win);
    return rc;
}

/* Damaged entries may overlap: the first one keeps the range. */
static size_t drop_overlaps(struct cpython_arena *items, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (!kept || items[i].start >= items[kept - 1].end)
            items[kept++] = items[i];
    return kept;
}

int cpython_arena_list(const struct cpython_input *in, const struct cpython *py,
                       struct cpython_arena **ret, size_t *n, struct err *err)
{
    struct arena_list list = {0};
    int rc = collect(in, py, &list, err);
    if (rc < 0) {
        free(list.items);
        return rc;
    }
    if (list.n)
        qsort(list.items, list.n, sizeof *list.items, by_start);
    *ret = list.items;
    *n = drop_overlaps(list.items, list.n);
    return 0;
}
