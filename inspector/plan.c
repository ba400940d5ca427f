#include "inspector/plan.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/cpython.h"
#include "walker/note.h"

enum { PAGE = 4096 };

struct ranges {
    struct mem_region *items;
    size_t n, cap;
};

/* Private memory that can be written. Code and constants are looked up in files. */
static bool wanted(const struct vma *v)
{
    return v->r && v->w && !v->shared && v->kind != VMA_KERNEL;
}

static int add(struct ranges *r, uint64_t start, uint64_t end, struct err *err)
{
    if (end <= start)
        return 0;
    if (vec_reserve(&r->items, &r->cap, r->n + 1, sizeof *r->items) < 0)
        return err_set(err, ERR_NOMEM, "no memory to plan the copy");
    r->items[r->n++] = (struct mem_region){start, end};
    return 0;
}

/* [start, end) less the insides of the pools in spare[*next...]; both in address order. */
static int add_less(struct ranges *r, uint64_t start, uint64_t end,
                    const struct cpython_range *spare, size_t n_spare, size_t *next,
                    uint64_t pool_size, struct err *err)
{
    int rc = 0;
    while (*next < n_spare && spare[*next].end <= start)
        (*next)++;
    for (size_t i = *next; rc == 0 && i < n_spare && spare[i].start < end; i++) {
        const struct cpython_range *s = &spare[i];
        for (uint64_t pool = s->start; rc == 0 && pool < s->end; pool += pool_size) {
            if (pool < start || pool + pool_size > end)
                continue;
            rc = add(r, start, pool + PAGE, err);
            start = pool + pool_size;
        }
    }
    return rc == 0 ? add(r, start, end, err) : rc;
}

static int plan(const struct maps *maps, const struct pages *pages,
                const struct cpython_range *spare, size_t n_spare, uint64_t pool_size,
                struct copy_plan *ret, struct err *err)
{
    struct ranges r = {0};
    size_t next = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < maps->n; i++)
        if (wanted(&maps->items[i]) && pages_wanted(maps, i))
            rc = add_less(&r, maps->items[i].start, maps->items[i].end, spare, n_spare, &next,
                          pool_size, err);
    if (rc == 0)
        rc = copy_plan(ret, pages->runs, pages->n, r.items, r.n, err);
    free(r.items);
    return rc;
}

int plan_needed(const struct maps *maps, const struct pages *pages, struct mem *mem,
                struct cpython *py, struct copy_plan *ret, struct err *err)
{
    struct vma_list vmas = maps_list(maps);
    struct residency res;
    struct cpython_range *spare = NULL;
    size_t n = 0;
    int rc = residency_init(&res, pages->runs, pages->n, err);
    if (rc < 0)
        return rc;
    struct cpython_input in = {mem, &vmas, &res, NULL, 0};
    cpython_refresh(&in, py);
    rc = cpython_spare(&in, py, &spare, &n, err);
    if (rc == 0)
        rc = plan(maps, pages, spare, n, py->traits->pool_size, ret, err);
    free(spare);
    residency_release(&res);
    return rc;
}

int plan_look(const struct maps *maps, const struct pages *pages, const struct modules *modules,
              struct mem *mem, struct cpython *ret, struct err *err)
{
    struct vma_list vmas = maps_list(maps);
    struct residency res;
    struct snapshot scratch; /* the real walk says again what this one would note */
    struct notes notes;
    int rc = residency_init(&res, pages->runs, pages->n, err);
    if (rc < 0)
        return rc;
    snapshot_init(&scratch);
    notes_init(&notes, &scratch);
    struct cpython_input in = {mem, &vmas, &res, modules->items, modules->n};
    rc = cpython_find(&in, ret, &notes, err);
    snapshot_release(&scratch);
    residency_release(&res);
    return rc;
}
