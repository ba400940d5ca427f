#include "walker/vma.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"

/* The user's half of the address space; sums of addresses below it do not wrap. */
static const uint64_t USER_END = (uint64_t)1 << 63;

const char *vma_kind_name(enum vma_kind kind)
{
    static const char *const names[] = {"anonymous", "heap", "stack", "file", "shared", "kernel"};
    return names[kind];
}

static size_t index_at(const struct vma_list *list, uint64_t addr)
{
    size_t lo = 0, hi = list->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (addr >= list->items[mid].end)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const struct vma *vma_at(const struct vma_list *list, uint64_t addr)
{
    size_t i = index_at(list, addr);
    return i < list->n && list->items[i].start <= addr ? &list->items[i] : NULL;
}

bool vma_is_heapish(const struct vma *v)
{
    return (v->kind == VMA_ANON || v->kind == VMA_HEAP) && v->r && v->w && !v->shared &&
           v->end <= USER_END;
}

bool vma_writable_at(const struct vma_list *list, uint64_t addr)
{
    const struct vma *v = vma_at(list, addr);
    return v && v->r && v->w;
}

uint64_t vma_heapish_end(const struct vma_list *list, uint64_t addr)
{
    size_t i = index_at(list, addr);
    if (i == list->n || list->items[i].start > addr || !vma_is_heapish(&list->items[i]))
        return 0;
    uint64_t end = list->items[i].end;
    for (i++; i < list->n && list->items[i].start == end && vma_is_heapish(&list->items[i]); i++)
        end = list->items[i].end;
    return end;
}

int residency_init(struct residency *res, const struct page_run *runs, size_t n, struct err *err)
{
    memset(res, 0, sizeof *res);
    res->before = calloc(n + 1, sizeof *res->before);
    if (!res->before)
        return err_set(err, ERR_NOMEM, "no memory for %zu page runs", n);
    res->runs = runs;
    res->n = n;
    for (size_t i = 0; i < n; i++)
        res->before[i + 1] = res->before[i] + (runs[i].end - runs[i].start);
    return 0;
}

void residency_release(struct residency *res)
{
    free(res->before);
    memset(res, 0, sizeof *res);
}

size_t residency_seek(const struct residency *res, uint64_t addr)
{
    size_t lo = 0, hi = res->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (addr >= res->runs[mid].end)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Present bytes below addr. */
static uint64_t below(const struct residency *res, uint64_t addr)
{
    size_t i = residency_seek(res, addr);
    uint64_t sum = res->before[i];
    if (i < res->n && addr > res->runs[i].start)
        sum += addr - res->runs[i].start;
    return sum;
}

uint64_t residency_bytes(const struct residency *res, uint64_t start, uint64_t end)
{
    if (end <= start)
        return 0;
    if (res->unknown)
        return end - start;
    return below(res, end) - below(res, start);
}

bool residency_full(const struct residency *res, uint64_t start, uint64_t end)
{
    if (res->unknown || end <= start)
        return true;
    size_t i = residency_seek(res, start);
    return i < res->n && res->runs[i].start <= start && res->runs[i].end >= end;
}
