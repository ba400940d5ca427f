/* What a count of pymalloc's blocks does not need: in a pool of 16 KiB (3.10+) whose pages are all
 * present, everything but the first page, which holds the header. Not copying it makes the pause of
 * a process that is mostly Python objects three to four times shorter. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/cpython.h"

enum { PAGE = 4096 };

struct spare_list {
    struct cpython_range *items;
    size_t n, cap;
};

static int by_start(const void *a, const void *b)
{
    const struct cpython_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* The carved pools of one arena, as [first pool, end). Arenas with absent pages are needed whole:
 * there the resident part of used and free blocks hangs on the free lists. */
static int add_arena(const struct cpython_input *in, const struct cpython *py,
                     const struct arena_object *a, struct spare_list *list, struct err *err)
{
    uint64_t pool = py->traits->pool_size, first = round_up(a->address, pool);
    uint64_t end = min_u64(a->pool_address, first + a->ntotalpools * pool);
    if (!arena_plausible(py, a) || end <= first || !residency_full(in->res, first, end))
        return 0;
    if (vec_reserve(&list->items, &list->cap, list->n + 1, sizeof *list->items) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the arenas");
    list->items[list->n++] = (struct cpython_range){first, end};
    return 0;
}

static int collect(const struct cpython_input *in, const struct cpython *py,
                   struct spare_list *list, struct err *err)
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

int cpython_spare(const struct cpython_input *in, const struct cpython *py,
                  struct cpython_range **ret, size_t *n, struct err *err)
{
    struct spare_list list = {0};
    *ret = NULL;
    *n = 0;
    if (py->traits->pool_size <= PAGE)
        return 0;
    int rc = collect(in, py, &list, err);
    if (rc < 0) {
        free(list.items);
        return rc;
    }
    if (list.n)
        qsort(list.items, list.n, sizeof *list.items, by_start);
    *ret = list.items;
    *n = list.n;
    return 0;
}
