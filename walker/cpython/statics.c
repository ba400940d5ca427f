/* The search for static objects: once through the writable memory of modules, word by word, for
 * what may be the address of a type behind a count; then each candidate is proven, types first
 * known from the heaps and those that are met here. */
#include "walker/cpython/statics.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/object_place.h"
#include "walker/cpython/own.h"

enum {
    WORD = 8,
    PAGE = 4096,
    TYPE_IN_BLOCK = 384,     /* a type is larger than what pymalloc mostly hands out */
    MAX_CANDIDATES = 1 << 20 /* in hostile memory every word may be one */
};
/* More data than this is an array of numbers, not a place for objects. */
static const uint64_t MAX_LOOK = UINT64_C(1) << 30;

/* Memory of modules without a gap. */
struct span {
    uint64_t start, end;
};

struct search {
    struct objects *o;
    struct span *spans;
    size_t n_spans, cap_spans;
    struct static_candidate *found;
    size_t n, cap;
    uint64_t type; /* from an object's address to its type's */
    uint64_t looked;
};

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for static objects");
}

/* ---- where ---- */

static int by_start(const void *a, const void *b)
{
    const struct cpython_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

/* What is private and was written, by the program or its loader: .data with .bss, and what was made
 * read-only once relocations were done. */
static bool holds_data(const struct vma *v)
{
    return v->r && !v->shared &&
           (v->kind == VMA_FILE || v->kind == VMA_ANON || v->kind == VMA_HEAP);
}

static int add_span(struct search *s, uint64_t start, uint64_t end)
{
    if (s->n_spans && s->spans[s->n_spans - 1].end >= start) {
        s->spans[s->n_spans - 1].end = max_u64(s->spans[s->n_spans - 1].end, end);
        return 0;
    }
    if (vec_reserve(&s->spans, &s->cap_spans, s->n_spans + 1, sizeof *s->spans) < 0)
        return ERR_NOMEM;
    s->spans[s->n_spans++] = (struct span){start, end};
    return 0;
}

/* Each range with the mappings that it lies in; both are sorted. Ranges of a hostile file may
 * overlap: spans never do. */
static int find_spans(struct search *s, const struct cpython_range *ranges, size_t n)
{
    const struct vma_list *vmas = s->o->in->vmas;
    size_t at = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        while (at < vmas->n && vmas->items[at].end <= ranges[i].start)
            at++;
        for (size_t k = at; rc == 0 && k < vmas->n && vmas->items[k].start < ranges[i].end; k++) {
            const struct vma *v = &vmas->items[k];
            uint64_t done = s->n_spans ? s->spans[s->n_spans - 1].end : 0;
            uint64_t lo = max_u64(max_u64(v->start, ranges[i].start), done);
            uint64_t hi = min_u64(v->end, ranges[i].end);
            lo = round_up(lo, WORD);
            if (holds_data(v) && lo < hi)
                rc = add_span(s, lo, round_down(hi, WORD));
        }
    }
    return rc;
}

static int prepare(struct search *s)
{
    const struct cpython_input *in = s->o->in;
    struct cpython_range *ranges = calloc(in->n_data + 1, sizeof *ranges);
    if (!ranges)
        return ERR_NOMEM;
    if (in->n_data) {
        memcpy(ranges, in->data, in->n_data * sizeof *ranges);
        qsort(ranges, in->n_data, sizeof *ranges, by_start);
    }
    int rc = find_spans(s, ranges, in->n_data);
    free(ranges);
    return rc;
}

/* The end of the span that holds addr, or 0. */
static uint64_t span_end(const struct search *s, uint64_t addr)
{
    size_t lo = 0, hi = s->n_spans;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->spans[mid].end <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < s->n_spans && s->spans[lo].start <= addr ? s->spans[lo].end : 0;
}

/* ---- candidates ---- */

static uint32_t type_at(struct search *s, uint64_t addr)
{
    struct objects *o = s->o;
    if (types_maybe(&o->types, addr)) {
        const uint64_t *known = addrset_find(&o->types.known, addr);
        if (known)
            return *known ? (uint32_t)*known - 1 : BLOCK_NO_TYPE;
    }
    /* One that nothing in the heaps is an instance of: it is static itself, or fills a block. */
    struct block_hit hit;
    if (!span_end(s, addr) &&
        (blocks_small_at(o->blocks, addr, TYPE_IN_BLOCK) || !blocks_at(o->blocks, addr, &hit)))
        return BLOCK_NO_TYPE;
    const struct type_info *t = types_get(o, addr);
    return t ? types_index(o, t) : BLOCK_NO_TYPE;
}

static int look_at_word(struct search *s, uint64_t type, uint64_t addr, const uint8_t *header)
{
    struct static_candidate c = {.addr = addr};
    if (!header || !static_count(s->o, header, &c.fixed))
        return 0;
    c.type = type_at(s, type);
    if (c.type == BLOCK_NO_TYPE || static_count_is_pointer(s->o, addr))
        return 0;
    if (vec_reserve(&s->found, &s->cap, s->n + 1, sizeof *s->found) < 0)
        return ERR_NOMEM;
    s->found[s->n++] = c;
    return 0;
}

/* A header may begin on the page before. */
static const uint8_t *header_of(struct search *s, const uint8_t *page, uint64_t start, uint64_t at)
{
    uint64_t back = at - start, type = layout_offset(&s->o->py->layout, LF_ob_type);
    if (back >= type)
        return page + back - type;
    return objects_peek(s->o, at - type, layout_size(&s->o->py->layout, LF_ob_sizeof));
}

static int look_at_page(struct search *s, const struct span *span, uint64_t start, uint64_t end)
{
    const uint8_t *p = mem_window_at(&s->o->near, start, end - start);
    int rc = 0;
    for (uint64_t at = start; p && rc == 0 && at < end; at += WORD) {
        uint64_t word = load_u64(p + (at - start));
        if (word < 0x10000 || word >> 47 || (word & 7) || at - span->start < s->type)
            continue;
        rc = look_at_word(s, word, at - s->type, header_of(s, p, start, at));
    }
    return rc;
}

/* Memory that nobody touched holds zeros, however much of it there is. */
static bool touched(const struct objects *o, uint64_t start, uint64_t end)
{
    const struct residency *res = o->in->res;
    const struct vma *v = vma_at(o->in->vmas, start);
    return !res || res->unknown || !v || v->kind == VMA_FILE || residency_bytes(res, start, end);
}

static int look_through(struct search *s, const struct span *span, struct err *err)
{
    uint64_t at = span->start;
    while (at < span->end && s->looked < MAX_LOOK && s->n < MAX_CANDIDATES) {
        uint64_t next = min_u64(round_down(at, PAGE) + PAGE, span->end);
        if (touched(s->o, at, next)) {
            s->looked += next - at;
            if (look_at_page(s, span, at, next) < 0)
                return no_memory(err);
        }
        at = next;
        if (objects_stopped(s->o))
            return err_set(err, ERR_INTERRUPTED, "interrupted");
    }
    if (at < span->end)
        note_add(s->o->notes, "statics.limit", at, span->end - at,
                 "more data of modules than is looked through for static objects");
    return 0;
}

/* ---- proof ---- */

static uint64_t own_size(struct objects *o, const struct static_object *x)
{
    enum { GC_HEAD = 16 };
    const struct type_info *t = &o->types.items[x->type];
    uint64_t size = kind_sizeof(o, t, x->addr + objects_shift(o));
    /* A head counts wherever the type has one, even where there is none. But static types say for
     * themselves that they are not the collector's; two releases did not ask. */
    bool asked = t->is_type && !o->py->traits->static_heads;
    bool head = (t->flags & TYPE_HAVE_GC) && !asked && !o->py->free_threaded;
    return size ? size + (head ? GC_HEAD : 0) : t->basicsize;
}

static int judge_all(struct search *s, struct statics *ret)
{
    struct static_named named;
    struct block_hit hit;
    uint64_t done = 0; /* nothing lies within another object */
    int rc = 0;
    static_named(s->o, &named);
    for (size_t i = 0; rc == 0 && i < s->n && !objects_stopped(s->o); i++) {
        const struct static_candidate *c = &s->found[i];
        struct static_object x = {.addr = c->addr, .type = c->type};
        if (c->addr < done || blocks_at(s->o->blocks, c->addr, &hit) ||
            !static_prove(s->o, &named, c, span_end(s, c->addr), &x.bytes))
            continue;
        done = x.addr + x.bytes;
        x.size = own_size(s->o, &x);
        rc = vec_reserve(&ret->items, &ret->cap, ret->n + 1, sizeof *ret->items);
        if (rc == 0)
            ret->items[ret->n++] = x;
    }
    return rc;
}

int statics_find(struct objects *o, struct err *err)
{
    struct search s = {.o = o,
                       .type = layout_offset(&o->py->layout, LF_ob_type) + objects_shift(o)};
    int rc = prepare(&s) < 0 ? no_memory(err) : 0;
    o->statics = calloc(1, sizeof *o->statics);
    if (rc == 0 && !o->statics)
        rc = no_memory(err);
    for (size_t i = 0; rc == 0 && i < s.n_spans; i++)
        rc = look_through(&s, &s.spans[i], err);
    if (rc == 0 && judge_all(&s, o->statics) < 0)
        rc = no_memory(err);
    if (rc == 0 && objects_stopped(o))
        rc = err_set(err, ERR_INTERRUPTED, "interrupted");
    free(s.spans);
    free(s.found);
    return rc;
}

void statics_release(struct objects *o)
{
    if (o->statics)
        free(o->statics->items);
    free(o->statics);
    o->statics = NULL;
}

/* ---- into the snapshot ---- */

void statics_count(const struct objects *o, struct snapshot_type *types, struct snapshot *snap)
{
    for (size_t i = 0; o->statics && i < o->statics->n; i++) {
        const struct static_object *x = &o->statics->items[i];
        types[x->type].statics++;
        types[x->type].static_bytes += x->size;
        snap->objects.statics++;
        snap->objects.static_bytes += x->size;
    }
}

/* From the end: there each row has its place before the row that stands there is needed. */
static void merge_rows(const struct objects *o, struct snapshot *snap, size_t blocks,
                       const char *const *names)
{
    size_t to = snap->n_blocks, left = o->statics->n;
    while (left) {
        const struct static_object *x = &o->statics->items[left - 1];
        if (blocks && snap->blocks[blocks - 1].address > x->addr) {
            snap->blocks[--to] = snap->blocks[--blocks];
            continue;
        }
        snap->blocks[--to] = (struct snapshot_block){
            .address = x->addr, .size = x->bytes, .kind = "static", .type = names[x->type]};
        left--;
    }
}

int statics_rows(const struct objects *o, struct snapshot *snap)
{
    size_t blocks = snap->n_blocks, n = o->statics ? o->statics->n : 0;
    if (!n)
        return 0;
    const char **names = calloc(o->types.n + 1, sizeof *names);
    int rc = names ? 0 : ERR_NOMEM;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const char **name = &names[o->statics->items[i].type];
        if (!*name)
            *name = snapshot_str(snap, o->types.items[o->statics->items[i].type].name);
        if (!*name || !snapshot_add_block(snap))
            rc = ERR_NOMEM;
    }
    if (rc == 0)
        merge_rows(o, snap, blocks, names);
    else
        snap->n_blocks = blocks;
    free(names);
    return rc;
}
