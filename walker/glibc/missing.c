/* Where to start without main_arena: a core that was cut short lacks libc's data, which lies at
 * high addresses, while brk memory and often the heaps of thread arenas are there.
 *
 * Chunks tell their sizes and whether they are in use by themselves; what only main_arena knows is
 * which of them its fastbins hold. A thread's arena lies in its own first heap and is whole. */
#include <stdio.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/glibc/internal.h"

enum { ALL_ROWS = (1 << GLIBC_LAYOUTS) - 1, MINOR_MAX = 1000 };

static bool range_unread(struct walk *w, const struct glibc_data *d)
{
    uint8_t byte;
    for (uint64_t page = d->start; page < d->end; page = round_down(page, GLIBC_PAGE) + GLIBC_PAGE)
        if (mem_read_some(w->in->mem, page, &byte, 1) == 0)
            return true;
    return false;
}

/* Bytes are missing where main_arena can be: in libc's data, or in anybody's if libc has no file of
 * its own. */
static bool data_missing(struct walk *w)
{
    bool libc = false;
    for (size_t i = 0; i < w->in->n_data; i++)
        libc = libc || w->in->data[i].is_libc;
    for (size_t i = 0; i < w->in->n_data; i++)
        if ((w->in->data[i].is_libc || !libc) && range_unread(w, &w->in->data[i]))
            return true;
    return w->in->n_data == 0 || (!libc && w->in->libc_lost);
}

static unsigned rows_of_version(const char *hint)
{
    unsigned minor, rows = 0;
    if (!hint || sscanf(hint, "2.%u", &minor) != 1 || minor > MINOR_MAX)
        return 0;
    for (int i = 0; i < GLIBC_LAYOUTS; i++) {
        unsigned first, last;
        int n = sscanf(glibc_layouts[i].name, "2.%u-2.%u", &first, &last);
        if (n >= 1 && minor >= first && minor <= (n == 2 ? last : first))
            rows |= 1u << i;
    }
    return rows;
}

/* The layouts in which a thread's arena lies behind the heap header at addr. */
static unsigned rows_of_heap(struct walk *w, uint64_t addr)
{
    uint8_t head[GLIBC_HEAP_INFO_READ], state[GLIBC_STATE_MAX];
    unsigned rows = 0;
    if (mem_read(w->in->mem, addr, head, sizeof head, NULL) < 0)
        return 0;
    for (int i = 0; i < GLIBC_LAYOUTS; i++) {
        const struct glibc_layout *l = &glibc_layouts[i];
        uint64_t arena = glibc_layout_get(l, head, HEAP_ARENA);
        if (arena == addr + l->heap_size &&
            mem_read(w->in->mem, arena, state, l->state_size, NULL) == 0 &&
            probe_convincing(w, l, state, arena, 0))
            rows |= 1u << i;
    }
    return rows;
}

/* The layouts that fit the thread arenas; 0 without any. */
static unsigned rows_of_heaps(struct walk *w)
{
    const uint64_t step = 64u << 20;
    unsigned rows = 0;
    for (size_t i = 0; i < w->in->vmas->n; i++) {
        const struct vma *v = &w->in->vmas->items[i];
        if (!vma_is_heapish(v) || v->end > UINT64_MAX - step)
            continue;
        for (uint64_t a = round_up(v->start, step); a < v->end; a += step) {
            unsigned fit = next_readable(w, a) == a ? rows_of_heap(w, a) : 0;
            rows = rows & fit ? rows & fit : rows | fit;
        }
    }
    return rows;
}

/* Chunks in brk memory. *first is the size of the one at its start, 0 if that is not there. */
static bool main_looks(struct walk *w, uint64_t *first)
{
    const struct vma *v = NULL;
    *first = 0;
    for (size_t i = 0; i < w->in->vmas->n && !v; i++)
        if (w->in->vmas->items[i].kind == VMA_HEAP && vma_is_heapish(&w->in->vmas->items[i]))
            v = &w->in->vmas->items[i];
    if (!v || v->end - v->start < CHUNK_MIN)
        return false;
    struct region r = {round_up(v->start, 16), v->end, 0, true};
    uint64_t prev_size, word;
    if (probe_header(w, r.start, &prev_size, &word) && word & CHUNK_PREV_INUSE &&
        believable(w, &r, r.start)) {
        *first = word & ~(uint64_t)CHUNK_FLAGS;
        return true;
    }
    return resync(w, &r, r.start) < r.end;
}

/* Evidence in the heap goes over the version that a file states: distributions backport. */
static unsigned narrow(unsigned rows, unsigned by)
{
    return rows & by ? rows & by : rows;
}

int arena_add_lost(struct walk *w, uint64_t addr, size_t *ret, struct err *err)
{
    int rc = arena_add(w, addr, 0, ret, err);
    if (rc < 0)
        return rc;
    /* Nothing of what was read at its address counts. */
    struct arena *a = &w->arenas[*ret];
    *a = (struct arena){.addr = addr, .main = addr == 0, .lost = true};
    return 0;
}

bool arena_lost_at(struct walk *w, uint64_t heap, uint64_t addr)
{
    uint8_t byte, head[GLIBC_HEAP_INFO_READ];
    if (!w->in->partial || addr % w->heap_max != w->l->heap_size || addr - heap < w->heap_max ||
        !heapish_at(w, addr) || mem_read_some(w->in->mem, addr, &byte, 1) != 0 ||
        mem_read(w->in->mem, heap, head, sizeof head, NULL) < 0)
        return false;
    uint64_t size = glibc_layout_get(w->l, head, HEAP_SIZE);
    uint64_t prev = glibc_layout_get(w->l, head, HEAP_PREV);
    /* The arena lies in its first heap, so that this one names another before it. */
    return size && size % GLIBC_PAGE == 0 && size <= w->heap_max && prev &&
           prev % w->heap_max == 0 && heapish_at(w, prev);
}

static void assume(struct walk *w, unsigned heaps, bool main, uint64_t first)
{
    w->rows = narrow(ALL_ROWS, heaps);
    w->rows = narrow(w->rows, rows_of_size(ALL_ROWS, first));
    w->rows = narrow(w->rows, rows_of_version(w->in->version_hint));
    w->roots[0].rows = w->rows;
    note_add(w->notes, "malloc.partial", 0, 0,
             "glibc's own data is not in the core: %s walked by their chunks alone; what lies in "
             "fastbins of the main heap counts as in use",
             main && heaps ? "the main heap and those of threads were"
             : main        ? "the main heap's bytes were"
                           : "the heaps of threads were");
}

int roots_assume(struct walk *w, struct err *err)
{
    size_t index;
    uint64_t first = 0;
    w->n_arenas = 0;
    w->n_roots = 1;
    w->roots[0] = (struct root){.rows = ALL_ROWS, .n_arenas = 1};
    int rc = arena_add_lost(w, 0, &index, err);
    if (rc < 0)
        return rc;
    unsigned heaps = data_missing(w) ? rows_of_heaps(w) : 0;
    bool main = data_missing(w) && main_looks(w, &first);
    if (heaps || main) {
        assume(w, heaps, main, first);
        return 0;
    }
    w->n_arenas = w->n_roots = 0;
    return err_set(err, ERR_NOT_FOUND, "no heap that describes itself");
}
