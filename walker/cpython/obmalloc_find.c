/* Finding pymalloc without symbols: the shape of `usedpools` and of `arenas`.
 *
 * usedpools is 64 pointers, two for each of the 32 size classes. An empty class points to itself
 * (16 bytes before its pair, so that the pair looks like the nextpool and prevpool of a pool
 * header); a class with pools points to the first and the last of a ring of pools whose headers say
 * so. */
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/cpython.h"

enum { USEDPOOLS_BYTES = POOL_CLASSES * 16, SCAN_STEP = 64 * 1024 };

void arena_object_load(const struct layout *l, const uint8_t *p, struct arena_object *ret)
{
    ret->address = layout_load(l, p, LF_arena_address);
    ret->pool_address = layout_load(l, p, LF_arena_pool_address);
    ret->nfreepools = layout_load(l, p, LF_arena_nfreepools);
    ret->ntotalpools = layout_load(l, p, LF_arena_ntotalpools);
    ret->freepools = layout_load(l, p, LF_arena_freepools);
}

static bool read_header(const struct cpython_input *in, const struct cpython *py, uint64_t pool,
                        struct pool_header *h)
{
    uint8_t bytes[POOL_HEADER_BYTES];
    if (mem_read_some(in->mem, pool, bytes, sizeof bytes) < sizeof bytes)
        return false;
    pool_header_load(&py->layout, bytes, h);
    return true;
}

/* Could these 64 words, read from addr, be a usedpools table? Says so without reading a pool. */
static bool table_shape(const uint8_t *words, uint64_t addr, uint64_t pool_size, int tolerate,
                        int *selfs)
{
    int n = 0;
    for (int i = 0; i < POOL_CLASSES; i++) {
        uint64_t self = addr + 16 * (uint64_t)i - 16;
        uint64_t x = load_u64(words + 16 * i), y = load_u64(words + 16 * i + 8);
        if (x == self && y == self)
            n++;
        else if (!x || !y || x == self || y == self || (x | y) & (pool_size - 1)) {
            if (tolerate-- <= 0)
                return false;
        }
    }
    *selfs = n;
    return true;
}

/* A pool at the end of a class's ring, as its header says. *proven counts those that were read: of
 * a partial source any pool may be missing. */
static bool end_sound(const struct cpython_input *in, const struct cpython *py, uint64_t pool,
                      uint64_t i, bool first, uint64_t self, int *proven)
{
    struct pool_header h;
    if (!read_header(in, py, pool, &h)) {
        const struct vma *v = in->partial ? vma_at(in->vmas, pool) : NULL;
        return v && vma_is_heapish(v);
    }
    ++*proven;
    return h.szidx == i && (first ? h.prevpool : h.nextpool) == self;
}

static bool class_sound(const struct cpython_input *in, const struct cpython *py,
                        const uint8_t *words, uint64_t addr, uint64_t i, int *proven)
{
    uint64_t self = addr + 16 * i - 16;
    uint64_t x = load_u64(words + 16 * i), y = load_u64(words + 16 * i + 8);
    if (x == self && y == self) {
        ++*proven;
        return true;
    }
    return x && y && end_sound(in, py, x, i, true, self, proven) &&
           end_sound(in, py, y, i, false, self, proven);
}

static bool table_sound(const struct cpython_input *in, const struct cpython *py,
                        const uint8_t *words, uint64_t addr, int tolerate)
{
    int proven = 0;
    for (uint64_t i = 0; i < POOL_CLASSES; i++)
        if (!class_sound(in, py, words, addr, i, &proven) && tolerate-- <= 0)
            return false;
    return proven > 0 || !in->partial;
}

bool usedpools_at(const struct cpython_input *in, const struct cpython *py, uint64_t addr,
                  int tolerate, bool *empty)
{
    uint8_t words[USEDPOOLS_BYTES];
    int selfs = 0;
    if (mem_read_some(in->mem, addr, words, sizeof words) < sizeof words)
        return false;
    if (!table_shape(words, addr, py->traits->pool_size, tolerate, &selfs) ||
        !table_sound(in, py, words, addr, tolerate))
        return false;
    *empty = selfs == POOL_CLASSES;
    return true;
}

/* Look for a table in [lo, hi). A non-empty one ends the search; an empty one is remembered. */
static uint64_t scan_range(const struct cpython_input *in, const struct cpython *py, uint64_t lo,
                           uint64_t hi, int tolerate, uint64_t *empty_at)
{
    uint8_t buf[SCAN_STEP + USEDPOOLS_BYTES];
    for (uint64_t base = round_up(lo, 8); base < hi; base += SCAN_STEP) {
        uint64_t end = min_u64(hi, base + sizeof buf);
        size_t got = 0;
        memset(buf, 0, sizeof buf);
        for (uint64_t at = base; at < end; at = round_down(at, 4096) + 4096) {
            uint64_t stop = min_u64(end, round_down(at, 4096) + 4096);
            mem_read_some(in->mem, at, buf + (at - base), stop - at);
            got = stop - base;
        }
        for (size_t off = 0; off < SCAN_STEP && off + USEDPOOLS_BYTES <= got; off += 8) {
            bool empty = false;
            int selfs;
            if (!load_u64(buf + off) ||
                !table_shape(buf + off, base + off, py->traits->pool_size, tolerate, &selfs) ||
                !usedpools_at(in, py, base + off, tolerate, &empty))
                continue;
            if (!empty)
                return base + off;
            if (!*empty_at)
                *empty_at = base + off;
        }
    }
    return 0;
}

static uint64_t scan_module(const struct cpython_input *in, const struct cpython *py,
                            const struct cpython_module *m, int tolerate, uint64_t *empty_at)
{
    for (size_t i = 0; i < m->n_data; i++) {
        uint64_t found = scan_range(in, py, m->data[i].start, m->data[i].end, tolerate, empty_at);
        if (found)
            return found;
    }
    return 0;
}

uint64_t usedpools_scan(const struct cpython_input *in, const struct cpython *py, bool *empty)
{
    uint64_t empty_at = 0;
    /* First the strict shape, then with one class caught in the middle of a change. */
    for (int tolerate = 0; tolerate <= 1; tolerate++) {
        for (size_t i = 0; i < in->n_modules; i++) {
            const struct cpython_module *m = &in->modules[i];
            if (py->module && m != py->module)
                continue;
            uint64_t found = scan_module(in, py, m, tolerate, &empty_at);
            if (found) {
                *empty = false;
                return found;
            }
        }
        if (empty_at) {
            *empty = true;
            return empty_at;
        }
    }
    return 0;
}

/* ---- arenas and maxarenas of 3.8-3.11 ---- */

bool arena_plausible(const struct cpython *py, const struct arena_object *a)
{
    uint64_t pool = py->traits->pool_size, arena = py->traits->arena_size;
    if (!a->address || a->address & 4095 || a->pool_address < a->address)
        return false;
    /* 3.15 can be built with 2 MiB arenas: ntotalpools says so. */
    if (a->ntotalpools > arena / pool)
        arena *= 2;
    return a->pool_address - a->address <= arena && !(a->pool_address & (pool - 1)) &&
           a->ntotalpools == arena / pool - (a->address % pool != 0) &&
           a->nfreepools <= a->ntotalpools &&
           (!a->freepools || (!(a->freepools & (pool - 1)) && a->freepools - a->address < arena));
}

enum { MAX_WITNESSES = POOL_CLASSES, MAX_ARENAS = 1 << 24 };

struct witness {
    uint64_t pool, index;
};

static size_t collect_witnesses(const struct cpython_input *in, const struct cpython *py,
                                uint64_t usedpools, struct witness *ret)
{
    size_t n = 0;
    for (uint64_t i = 0; i < POOL_CLASSES; i++) {
        uint64_t x;
        struct pool_header h;
        if (mem_u64(in->mem, usedpools + 16 * i, &x, NULL) == 0 && x != usedpools + 16 * i - 16 &&
            read_header(in, py, x, &h) && h.arenaindex < MAX_ARENAS)
            ret[n++] = (struct witness){x, h.arenaindex};
    }
    return n;
}

static bool holds_witness(const struct cpython_input *in, const struct cpython *py, uint64_t arenas,
                          const struct witness *w)
{
    uint8_t bytes[ARENA_OBJECT_BYTES];
    struct arena_object a;
    if (mem_read_some(in->mem, arenas + ARENA_OBJECT_BYTES * w->index, bytes, sizeof bytes) <
        sizeof bytes)
        return false;
    arena_object_load(&py->layout, bytes, &a);
    return arena_plausible(py, &a) && w->pool >= a.address &&
           w->pool - a.address < py->traits->arena_size;
}

/* The array's number of entries from the block that holds it: under the debug hooks the raw header
 * says the exact size (big-endian, 8 bytes, before the api id 'r' and seven 0xFD), else glibc's
 * chunk size bounds it. 0 when neither is readable. */
static uint64_t entries_by_block(struct mem *mem, uint64_t arenas)
{
    static const uint8_t fd[7] = {0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd, 0xfd};
    uint8_t head[16];
    if (mem_read_some(mem, arenas - 16, head, sizeof head) < sizeof head)
        return 0;
    if (head[8] == 'r' && memcmp(head + 9, fd, sizeof fd) == 0)
        return load_be64(head) / ARENA_OBJECT_BYTES;
    uint64_t chunk = load_u64(head + 8) & ~(uint64_t)7;
    return chunk > 8 ? (chunk - 8) / ARENA_OBJECT_BYTES : 0;
}

/* maxarenas lies near `arenas`, before or behind it as the compiler liked; it is a power of two and
 * its array must fill the block. */
static uint64_t find_maxarenas(const struct cpython_input *in, uint64_t where, uint64_t arenas,
                               uint64_t above, uint64_t *at)
{
    uint64_t fits = entries_by_block(in->mem, arenas);
    for (int64_t d = 4; d <= 128; d += 4) {
        for (int sign = -1; sign <= 1; sign += 2) {
            uint32_t v;
            if (mem_u32(in->mem, where + (uint64_t)(sign * d), &v, NULL) < 0)
                continue;
            if (v >= 16 && v <= MAX_ARENAS && is_power_of_two(v) && v > above &&
                (!fits || (v <= fits && fits - v <= 4096 / ARENA_OBJECT_BYTES + 1))) {
                *at = where + (uint64_t)(sign * d);
                return v;
            }
        }
    }
    *at = 0;
    return fits > above && fits <= MAX_ARENAS ? fits : 0;
}

/* *where holds a pointer to the arenas array if every witness finds its arena through it. */
static bool try_arenas(const struct cpython_input *in, const struct cpython *py, uint64_t where,
                       uint64_t p, const struct witness *w, size_t n, struct cpython_heap *heap)
{
    if (!p || p & 15 || !vma_writable_at(in->vmas, p))
        return false;
    uint64_t above = 0;
    for (size_t i = 0; i < n; i++) {
        if (!holds_witness(in, py, p, &w[i]))
            return false;
        above = max_u64(above, w[i].index);
    }
    heap->arenas = p;
    heap->arenas_at = where;
    heap->maxarenas = find_maxarenas(in, where, p, above, &heap->maxarenas_at);
    return heap->maxarenas != 0;
}

bool arenas_scan(const struct cpython_input *in, const struct cpython *py,
                 struct cpython_heap *heap)
{
    struct witness w[MAX_WITNESSES];
    size_t n = collect_witnesses(in, py, heap->usedpools, w);
    if (!n || !py->module)
        return false;
    for (size_t i = 0; i < py->module->n_data; i++) {
        const struct cpython_range *r = &py->module->data[i];
        for (uint64_t page = round_down(r->start, 4096); page < r->end; page += 4096) {
            uint8_t bytes[4096];
            size_t got = mem_read_some(in->mem, page, bytes, sizeof bytes);
            for (size_t off = 0; off + 8 <= got; off += 8)
                if (try_arenas(in, py, page + off, load_u64(bytes + off), w, n, heap))
                    return true;
        }
    }
    return false;
}
