#include "inspector/plan.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/cpython.h"
#include "walker/glibc/glibc.h"
#include "walker/note.h"

enum { PAGE = 4096 };

struct ranges {
    struct mem_region *items;
    size_t n, cap;
};

static int by_start(const void *a, const void *b)
{
    const struct mem_region *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

void plan_sort(struct mem_region *regions, size_t n)
{
    if (n)
        qsort(regions, n, sizeof *regions, by_start);
}

/* Private memory that is or was written. Code and constants are looked up in files. */
static bool wanted(const struct vma *v, const struct plan_wish *wish)
{
    struct mem_region key = {v->start, v->end};
    if (!v->r || v->shared || v->kind == VMA_KERNEL)
        return false;
    return v->w || (wish->contents && wish->n_relocated &&
                    bsearch(&key, wish->relocated, wish->n_relocated, sizeof key, by_start));
}

static int add(struct ranges *r, uint64_t start, uint64_t end, struct err *err)
{
    if (end <= start)
        return 0;
    if (r->n && r->items[r->n - 1].end == start) {
        r->items[r->n - 1].end = end;
        return 0;
    }
    if (vec_reserve(&r->items, &r->cap, r->n + 1, sizeof *r->items) < 0)
        return err_set(err, ERR_NOMEM, "no memory to plan the copy");
    r->items[r->n++] = (struct mem_region){start, end};
    return 0;
}

/* What is left out, in address order: merged from the insides of pools and of mmapped chunks. */
static int spare_add(void *ctx, uint64_t start, uint64_t end)
{
    return add(ctx, start, end, NULL);
}

static int spare_pools(struct ranges *spare, const struct cpython_arena *a, uint64_t pool_size)
{
    int rc = 0;
    for (uint64_t pool = a->pools_start; rc == 0 && pool < a->pools_end; pool += pool_size)
        rc = add(spare, pool + PAGE, pool + pool_size, NULL);
    return rc;
}

/* The end of the anonymous memory around v->start: several mappings may make one piece. */
static bool starts_run(const struct maps *maps, size_t i)
{
    const struct vma *v = &maps->items[i];
    return vma_is_heapish(v) &&
           (i == 0 || maps->items[i - 1].end != v->start || !vma_is_heapish(&maps->items[i - 1]));
}

/* Between the arenas of each run of anonymous memory lie, among others, mmapped chunks. */
static int find_spare(const struct maps *maps, struct mem *mem, const struct cpython_arena *arenas,
                      size_t n, uint64_t pool_size, struct ranges *spare)
{
    struct vma_list vmas = maps_list(maps);
    size_t next = 0;
    for (size_t i = 0; i < maps->n; i++) {
        if (!starts_run(maps, i))
            continue;
        uint64_t at = maps->items[i].start, end = vma_heapish_end(&vmas, at);
        while (next < n && arenas[next].end <= at)
            next++;
        for (; next < n && arenas[next].start < end; next++) {
            int rc = glibc_spare(mem, &vmas, at, arenas[next].start, spare_add, spare);
            if (rc == 0)
                rc = spare_pools(spare, &arenas[next], pool_size);
            if (rc < 0)
                return rc;
            at = arenas[next].end;
        }
        int rc = at < end ? glibc_spare(mem, &vmas, at, end, spare_add, spare) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* What tracemalloc's tables need is no spare: both are sorted, and what is kept may overlap. */
static int keep(struct ranges *spare, const struct cpython_range *kept, size_t n)
{
    struct ranges r = {0};
    int rc = 0;
    size_t k = 0;
    for (size_t i = 0; rc == 0 && i < spare->n; i++) {
        uint64_t at = spare->items[i].start, end = spare->items[i].end;
        while (k < n && kept[k].end <= at)
            k++;
        for (size_t j = k; rc == 0 && j < n && kept[j].start < end; j++) {
            rc = add(&r, at, round_down(kept[j].start, PAGE), NULL);
            at = max_u64(at, round_up(kept[j].end, PAGE));
        }
        if (rc == 0)
            rc = add(&r, at, end, NULL);
    }
    free(spare->items);
    *spare = r;
    return rc;
}

/* [start, end) less spare[*next...]. */
static int add_less(struct ranges *r, uint64_t start, uint64_t end, const struct ranges *spare,
                    size_t *next, struct err *err)
{
    while (*next < spare->n && spare->items[*next].end <= start)
        (*next)++;
    for (size_t i = *next; i < spare->n && spare->items[i].start < end; i++) {
        int rc = add(r, start, spare->items[i].start, err);
        if (rc < 0)
            return rc;
        start = max_u64(start, spare->items[i].end);
    }
    return add(r, start, end, err);
}

static int plan(const struct maps *maps, const struct pages *pages, const struct ranges *spare,
                const struct plan_wish *wish, struct copy_plan *ret, struct err *err)
{
    struct ranges r = {0};
    size_t next = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < maps->n; i++)
        if (wanted(&maps->items[i], wish) && pages_wanted(maps, i))
            rc = add_less(&r, maps->items[i].start, maps->items[i].end, spare, &next, err);
    if (rc == 0)
        rc = copy_plan(ret, pages->runs, pages->n, r.items, r.n, err);
    free(r.items);
    return rc;
}

int plan_needed(const struct maps *maps, const struct pages *pages, struct mem *mem,
                struct cpython *py, const struct plan_wish *wish, struct copy_plan *ret,
                struct err *err)
{
    struct vma_list vmas = maps_list(maps);
    struct residency res;
    struct cpython_arena *arenas = NULL;
    struct cpython_range *kept = NULL;
    struct ranges spare = {0};
    size_t n = 0, n_kept = 0;
    int rc = residency_init(&res, pages->runs, pages->n, err);
    if (rc < 0)
        return rc;
    struct cpython_input in = {.mem = mem, .vmas = &vmas, .res = &res};
    cpython_refresh(&in, py);
    rc = cpython_arena_list(&in, py, &arenas, &n, err);
    for (size_t i = 0; wish->contents && i < n; i++)
        arenas[i].pools_end = arenas[i].pools_start;
    if (rc == 0 && find_spare(maps, mem, arenas, n, py->traits->pool_size, &spare) < 0)
        rc = err_set(err, ERR_NOMEM, "no memory to plan the copy");
    if (rc == 0)
        rc = cpython_tracing_ranges(&in, py, !wish->contents, &kept, &n_kept, err);
    if (rc == 0 && keep(&spare, kept, n_kept) < 0)
        rc = err_set(err, ERR_NOMEM, "no memory to plan the copy");
    if (rc == 0)
        rc = plan(maps, pages, &spare, wish, ret, err);
    free(kept);
    free(spare.items);
    free(arenas);
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
    struct cpython_input in = {
        .mem = mem, .vmas = &vmas, .res = &res, .modules = modules->items, .n_modules = modules->n};
    rc = cpython_find(&in, ret, &notes, err);
    snapshot_release(&scratch);
    residency_release(&res);
    return rc;
}
