#define _GNU_SOURCE 1 /* qsort_r */
#include "formats/site_keys.h"

#include <stdlib.h>
#include <string.h>

#include "formats/base/vec.h"

enum { FIRST_SLOTS = 64 };

void site_keys_init(struct site_keys *k)
{
    memset(k, 0, sizeof *k);
}

static void table_release(struct site_table *t)
{
    free(t->slots);
    free(t->hashes);
}

void site_keys_release(struct site_keys *k)
{
    table_release(&k->files);
    table_release(&k->lines);
    table_release(&k->stacks);
    free(k->file_items);
    free(k->line_items);
    free(k->stack_items);
    free(k->line_ranks);
    memset(k, 0, sizeof *k);
}

/* ---- tables ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15;
    return h ^ h >> 29;
}

static int grow(struct site_table *t)
{
    size_t n = t->n_slots ? t->n_slots * 2 : FIRST_SLOTS;
    uint32_t *slots = calloc(n, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    for (size_t i = 0; i < t->n; i++) {
        size_t at = t->hashes[i] & (n - 1);
        while (slots[at])
            at = (at + 1) & (n - 1);
        slots[at] = (uint32_t)i + 1;
    }
    free(t->slots);
    t->slots = slots;
    t->n_slots = n;
    return 0;
}

/* Room for one more: always a quarter of the slots free, so that every search ends. */
static int table_reserve(struct site_table *t)
{
    if (t->n >= UINT32_MAX - 1 || vec_reserve(&t->hashes, &t->cap, t->n + 1, sizeof *t->hashes) < 0)
        return ERR_NOMEM;
    return (t->n + 1) * 4 > t->n_slots * 3 ? grow(t) : 0;
}

/* The number at a slot or the next one that holds this hash, UINT32_MAX where there is none. */
static uint32_t next_with(const struct site_table *t, uint64_t hash, size_t *at)
{
    for (; t->slots[*at]; *at = (*at + 1) & (t->n_slots - 1))
        if (t->hashes[t->slots[*at] - 1] == hash)
            return t->slots[*at] - 1;
    return UINT32_MAX;
}

static uint32_t add_at(struct site_table *t, uint64_t hash, size_t at)
{
    t->hashes[t->n] = hash;
    t->slots[at] = (uint32_t)++t->n;
    return (uint32_t)t->n - 1;
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory to group sites");
}

/* ---- the three kinds of keys ---- */

static uint64_t hash_text(const char *s)
{
    uint64_t h = 0xcbf29ce484222325;
    for (; *s; s++)
        h = (h ^ (unsigned char)*s) * 0x100000001b3;
    return mix(h, 0);
}

int site_keys_file(struct site_keys *k, const char *name, uint32_t *ret, struct err *err)
{
    uint64_t hash = hash_text(name);
    if (table_reserve(&k->files) < 0 ||
        vec_reserve(&k->file_items, &k->cap_files, k->files.n + 1, sizeof *k->file_items) < 0)
        return no_memory(err);
    size_t at = hash & (k->files.n_slots - 1);
    for (;; at = (at + 1) & (k->files.n_slots - 1)) {
        uint32_t id = next_with(&k->files, hash, &at);
        if (id == UINT32_MAX)
            break;
        if (strcmp(k->file_items[id], name) == 0) {
            *ret = id;
            return 0;
        }
    }
    *ret = add_at(&k->files, hash, at);
    k->file_items[*ret] = name;
    return 0;
}

int site_keys_line(struct site_keys *k, const char *name, uint32_t line, uint32_t *ret,
                   struct err *err)
{
    uint32_t file = 0;
    int rc = site_keys_file(k, name, &file, err);
    if (rc < 0)
        return rc;
    uint64_t hash = mix(mix(0, file), line);
    if (table_reserve(&k->lines) < 0 ||
        vec_reserve(&k->line_items, &k->cap_lines, k->lines.n + 1, sizeof *k->line_items) < 0)
        return no_memory(err);
    size_t at = hash & (k->lines.n_slots - 1);
    for (;; at = (at + 1) & (k->lines.n_slots - 1)) {
        uint32_t id = next_with(&k->lines, hash, &at);
        if (id == UINT32_MAX)
            break;
        if (k->line_items[id].file == file && k->line_items[id].line == line) {
            *ret = id;
            return 0;
        }
    }
    *ret = add_at(&k->lines, hash, at);
    k->line_items[*ret] = (struct site_line){file, line};
    return 0;
}

static bool same_stack(const struct site_stack *a, const struct site_stack *b)
{
    if (a->n != b->n)
        return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (a->lines[a->frames[i]] != b->lines[b->frames[i]])
            return false;
    return true;
}

int site_keys_stack(struct site_keys *k, const uint32_t *frames, uint32_t n, const uint32_t *lines,
                    uint32_t *ret, struct err *err)
{
    const struct site_stack key = {frames, lines, n};
    uint64_t hash = mix(1, n);
    for (uint32_t i = 0; i < n; i++)
        hash = mix(hash, lines[frames[i]]);
    if (table_reserve(&k->stacks) < 0 ||
        vec_reserve(&k->stack_items, &k->cap_stacks, k->stacks.n + 1, sizeof *k->stack_items) < 0)
        return no_memory(err);
    size_t at = hash & (k->stacks.n_slots - 1);
    for (;; at = (at + 1) & (k->stacks.n_slots - 1)) {
        uint32_t id = next_with(&k->stacks, hash, &at);
        if (id == UINT32_MAX)
            break;
        if (same_stack(&k->stack_items[id], &key)) {
            *ret = id;
            return 0;
        }
    }
    *ret = add_at(&k->stacks, hash, at);
    k->stack_items[*ret] = key;
    return 0;
}

/* ---- order ---- */

/* strcmp orders UTF-8 as Python orders the characters. */
static int by_name(const void *a, const void *b, void *keys)
{
    const struct site_keys *k = keys;
    return strcmp(k->file_items[*(const uint32_t *)a], k->file_items[*(const uint32_t *)b]);
}

struct line_order {
    const struct site_keys *keys;
    const uint32_t *file_ranks;
};

static int by_line(const void *a, const void *b, void *order)
{
    const struct line_order *o = order;
    const struct site_line *x = &o->keys->line_items[*(const uint32_t *)a];
    const struct site_line *y = &o->keys->line_items[*(const uint32_t *)b];
    uint64_t p = (uint64_t)o->file_ranks[x->file] << 32 | x->line;
    uint64_t q = (uint64_t)o->file_ranks[y->file] << 32 | y->line;
    return p < q ? -1 : p > q;
}

/* The rank of each of n numbers in that order, or NULL when memory ran out. */
static uint32_t *ranks(size_t n, int (*compare)(const void *, const void *, void *), void *ctx)
{
    uint32_t *order = malloc((n + 1) * sizeof *order), *rank = malloc((n + 1) * sizeof *rank);
    for (size_t i = 0; order && i < n; i++)
        order[i] = (uint32_t)i;
    if (order && rank && n)
        qsort_r(order, n, sizeof *order, compare, ctx);
    for (size_t i = 0; order && rank && i < n; i++)
        rank[order[i]] = (uint32_t)i;
    if (!order) {
        free(rank);
        rank = NULL;
    }
    free(order);
    return rank;
}

int site_keys_rank(struct site_keys *k, struct err *err)
{
    uint32_t *files = ranks(k->files.n, by_name, k);
    struct line_order order = {k, files};
    free(k->line_ranks);
    k->line_ranks = files ? ranks(k->lines.n, by_line, &order) : NULL;
    free(files);
    return k->line_ranks ? 0 : no_memory(err);
}

int site_keys_compare_lines(const struct site_keys *k, uint32_t a, uint32_t b)
{
    uint32_t x = k->line_ranks[a], y = k->line_ranks[b];
    return x < y ? -1 : x > y;
}

static uint64_t rank_from_end(const struct site_keys *k, const struct site_stack *s, uint32_t i)
{
    return s->n >= i ? (uint64_t)k->line_ranks[s->lines[s->frames[s->n - i]]] + 1 : 0;
}

uint64_t site_keys_stack_head(const struct site_keys *k, uint32_t stack)
{
    const struct site_stack *s = &k->stack_items[stack];
    return rank_from_end(k, s, 1) << 32 | rank_from_end(k, s, 2);
}

int site_keys_compare_stacks(const struct site_keys *k, uint32_t a, uint32_t b)
{
    const struct site_stack *x = &k->stack_items[a], *y = &k->stack_items[b];
    for (uint32_t i = 1; i <= x->n && i <= y->n; i++) {
        int order = site_keys_compare_lines(k, x->lines[x->frames[x->n - i]],
                                            y->lines[y->frames[y->n - i]]);
        if (order)
            return order;
    }
    return x->n < y->n ? -1 : x->n > y->n;
}
