/* CPython's own hash table: buckets are lists of entries, an entry knows its hash.
 *
 * While a table grows or shrinks, its entries are moved one by one to the heads of new lists, and
 * the table still has the old buckets (3.9+). A walk from those meets entries that went elsewhere.
 * An entry counts only in the bucket that its hash names, so none counts twice, and the walk needs
 * no memory of what it has seen but for the list that it is in. */
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/tracemalloc.h"

enum {
    MIN_BUCKETS = 16,
    SLACK = 1024,     /* links beyond what a table of that size has */
    SHORT_CHAIN = 32, /* entries of one bucket that are compared one by one */
    KEY_BYTES = 8,
    KEY_WITH_DOMAIN = 12,
    BATCH = 512,        /* buckets: a page of them */
    HTAB_BYTES_MAX = 96 /* of the table's own structure */
};
#define MAX_BUCKETS ((uint64_t)1 << 32)

/* ---- the table ---- */

static bool has_code(const struct cpython_input *in, const struct layout *l, const uint8_t *p)
{
    static const enum layout_field functions[] = {LF_htab_get_entry_func, LF_htab_hash_func,
                                                  LF_htab_compare_func, LF_htab_malloc,
                                                  LF_htab_free};
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++)
        if (layout_is_number(l, functions[i]) &&
            !cpython_executable_at(in->vmas, layout_load(l, p, functions[i])))
            return false;
    return true;
}

/* [addr, addr + bytes) is writable, as far as mappings tell. */
static bool is_writable(const struct cpython_input *in, uint64_t addr, uint64_t bytes)
{
    const struct vma *v = vma_at(in->vmas, addr);
    if (!v || !v->r || !v->w || addr % 8)
        return false;
    return max_u64(v->end, vma_heapish_end(in->vmas, addr)) - addr >= bytes;
}

/* 3.8: keys are addresses, or addresses with a domain behind (packed: 12 bytes); data is a trace or
 * nothing. */
static bool load_inline(const struct cpython *py, const uint8_t *p, struct htab *t)
{
    const struct layout *l = &py->layout;
    t->entry_bytes = layout_size(l, LF_htent_size);
    if (!py->traits->hashtable_inline)
        return true;
    t->key_size = layout_load(l, p, LF_htab_key_size);
    t->data_size = layout_load(l, p, LF_htab_data_size);
    t->entry_bytes += t->key_size + t->data_size;
    return (t->key_size == KEY_BYTES || t->key_size == KEY_WITH_DOMAIN) &&
           (t->data_size == 0 || t->data_size == layout_size(l, LF_trace_size_of));
}

bool htab_load(const struct cpython_input *in, const struct cpython *py, uint64_t addr,
               bool certain, struct htab *ret)
{
    const struct layout *l = &py->layout;
    uint8_t p[HTAB_BYTES_MAX];
    size_t size = layout_size(l, LF_htab_size);
    memset(ret, 0, sizeof *ret);
    if (!addr || addr % 8 || size == 0 || size > sizeof p ||
        mem_read_some(in->mem, addr, p, size) < size)
        return false;
    struct htab t = {.at = addr,
                     .nentries = layout_load(l, p, LF_htab_nentries),
                     .nbuckets = layout_load(l, p, LF_htab_nbuckets),
                     .buckets = layout_load(l, p, LF_htab_buckets)};
    if (!is_power_of_two(t.nbuckets) || t.nbuckets < MIN_BUCKETS || t.nbuckets > MAX_BUCKETS ||
        !is_writable(in, t.buckets, t.nbuckets * 8) || !load_inline(py, p, &t))
        return false;
    if (certain && !has_code(in, l, p))
        return false;
    *ret = t;
    return true;
}

uint64_t htab_bytes(const struct cpython *py, const struct htab *t)
{
    uint64_t entries;
    if (!t->at || mul_overflows(t->nentries, t->entry_bytes, &entries))
        return 0;
    return layout_size(&py->layout, LF_htab_size) + t->nbuckets * 8 + entries;
}

/* ---- its entries ---- */

struct walker {
    struct objects *o;
    const struct layout *l;
    const struct htab *t;
    htab_fn fn;
    void *ctx;
    struct htab_walked *sum;
    uint64_t visits, limit;
    uint64_t chain[SHORT_CHAIN]; /* what was met in the bucket at hand */
    struct addrset rest;         /* ... beyond those */
};

/* The bucket's list has been here before. */
static bool met(struct walker *w, uint64_t at, size_t depth)
{
    bool fresh = true;
    for (size_t i = 0; i < depth && i < SHORT_CHAIN; i++)
        if (w->chain[i] == at)
            return true;
    if (depth < SHORT_CHAIN)
        w->chain[depth] = at;
    else if (addrset_add(&w->rest, at, 0, &fresh) < 0)
        w->sum->overrun = true;
    return !fresh;
}

static int tell(struct walker *w, uint64_t at, const uint8_t *p)
{
    struct htab_entry e = {.at = at};
    if (w->t->key_size) {
        const uint8_t *key = p + layout_size(w->l, LF_htent_size);
        e.key = load_u64(key);
        e.domain = w->t->key_size == KEY_WITH_DOMAIN ? load_u32(key + 8) : 0;
        e.data = key + w->t->key_size;
    } else {
        e.key = layout_load(w->l, p, LF_htent_key);
        e.value = layout_load(w->l, p, LF_htent_value);
    }
    w->sum->entries++;
    return w->fn(w->ctx, &e);
}

static int walk_chain(struct walker *w, uint64_t bucket, uint64_t at)
{
    int rc = 0;
    size_t depth = 0;
    for (; rc == 0 && at && !w->sum->overrun; depth++) {
        const uint8_t *p = at % 8 ? NULL : objects_peek(w->o, at, w->t->entry_bytes);
        if (!p) {
            w->sum->holes++;
            break;
        }
        if (met(w, at, depth)) {
            w->sum->cycles++;
            break;
        }
        w->sum->overrun |= ++w->visits > w->limit;
        uint64_t here = at;
        at = layout_load(w->l, p, LF_htent_next);
        if ((layout_load(w->l, p, LF_htent_key_hash) & (w->t->nbuckets - 1)) == bucket)
            rc = tell(w, here, p);
        else
            w->sum->strays++;
    }
    if (depth > SHORT_CHAIN)
        addrset_release(&w->rest);
    return rc;
}

/* The first entries of a page of buckets lie anywhere: all are asked for before any is read. */
static int walk_batch(struct walker *w, uint64_t first)
{
    uint64_t heads[BATCH];
    size_t n = min_u64(BATCH, w->t->nbuckets - first);
    const uint8_t *p = objects_peek(w->o, w->t->buckets + first * 8, n * 8);
    int rc = 0;
    if (!p) {
        w->sum->holes++;
        return 0;
    }
    memcpy(heads, p, n * 8);
    for (size_t i = 0; i < n && w->o->far->ops->direct; i++)
        if (heads[i] && heads[i] % 8 == 0)
            __builtin_prefetch(objects_peek(w->o, heads[i], w->t->entry_bytes));
    for (size_t i = 0; i < n && rc == 0; i++)
        if (heads[i])
            rc = walk_chain(w, first + i, heads[i]);
    return rc;
}

int htab_walk(struct objects *o, const struct htab *t, htab_fn fn, void *ctx,
              struct htab_walked *ret)
{
    int rc = 0;
    memset(ret, 0, sizeof *ret);
    struct walker w = {.o = o, .l = &o->py->layout, .t = t, .fn = fn, .ctx = ctx, .sum = ret};
    w.limit = 2 * max_u64(min_u64(t->nentries, MAX_BUCKETS), t->nbuckets) + SLACK;
    for (uint64_t i = 0; t->at && i < t->nbuckets && rc == 0; i += BATCH) {
        if (ret->overrun || objects_stopped(o))
            break;
        rc = walk_batch(&w, i);
    }
    addrset_release(&w.rest);
    return rc;
}
