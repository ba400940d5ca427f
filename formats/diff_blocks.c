/* Blocks by identity. CPython never moves an object: a block at the same address, of the same size
 * and type, is the same one, unless it was freed and its place given to another of its kind. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/addrset.h"
#include "formats/base/vec.h"
#include "formats/diff.h"
#include "formats/type_groups.h"

enum { LOOK_UP_EVERY = 4096, NO_ROW = -1 };

static const char not_traced[] = "(not traced)";

/* One table of rows: a row for each label. */
struct table {
    struct diff *d;
    struct addrset rows; /* label, interned in d->names: index */
};

/* A type's name, the same number for both snapshots, and its rows. */
struct type_id {
    const char *name, *module;
    int64_t row; /* in the table by type, module or package */
};

struct side {
    struct diff_side *in;
    struct block_row block;
    bool more;
    struct addrset ids; /* a name's pointer in this snapshot's pool: number */
    const char *last;   /* neighbours often are alike */
    uint64_t last_id;
    int64_t *site_rows;   /* in the table of sites, by site; NO_ROW: not looked up yet */
    uint64_t *site_marks; /* a hash of its traceback; 0: none */
};

struct identity {
    struct diff_identity out;
    struct side sides[2];
    struct strpool names;   /* of types, of both */
    struct addrset by_name; /* interned name: number */
    struct addrset modules; /* interned name of a type: pointer to its module's */
    struct type_id *types;
    size_t n_types, cap_types;
    struct table tables[2];
    size_t n_tables;
    bool compare_sites;
    const volatile sig_atomic_t *stop;
    struct err *err;
};

static int no_memory(struct identity *x)
{
    return err_set(x->err, ERR_NOMEM, "no memory to compare blocks");
}

static uint64_t pointer_key(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* ---- rows ---- */

/* The index of the label's row, or NO_ROW when memory ran out. */
static int64_t row_of(struct table *t, const char *label)
{
    const char *own = strpool_add(&t->d->names, label);
    const uint64_t *found = own ? addrset_find(&t->rows, pointer_key(own)) : NULL;
    if (found)
        return (int64_t)*found;
    if (!own || vec_reserve(&t->d->rows, &t->d->cap, t->d->n + 1, sizeof *t->d->rows) < 0 ||
        addrset_add(&t->rows, pointer_key(own), t->d->n, NULL) < 0)
        return NO_ROW;
    t->d->rows[t->d->n] = (struct diff_row){.key = own};
    return (int64_t)t->d->n++;
}

static const char *label_of_kind(enum row_kind kind)
{
    switch (kind) {
    case ROW_INFERRED:
        return figures_inferred;
    case ROW_DEAD:
        return figures_dead;
    case ROW_RUNTIME:
        return figures_runtime;
    default:
        return figures_unowned;
    }
}

/* The number of a block's type, or 0 without one. */
static int type_number(struct identity *x, struct side *s, const char *name, uint64_t *ret)
{
    if (name == s->last) {
        *ret = s->last_id;
        return 0;
    }
    const uint64_t *known = addrset_find(&s->ids, pointer_key(name));
    if (!known) {
        const char *own = strpool_add(&x->names, name);
        uint64_t *number = own ? addrset_find(&x->by_name, pointer_key(own)) : NULL;
        uint64_t id = number ? *number : x->n_types;
        if (!own || vec_reserve(&x->types, &x->cap_types, x->n_types + 1, sizeof *x->types) < 0 ||
            (!number && addrset_add(&x->by_name, pointer_key(own), id, NULL) < 0) ||
            addrset_add(&s->ids, pointer_key(name), id, NULL) < 0)
            return no_memory(x);
        if (!number)
            x->types[x->n_types++] = (struct type_id){own, NULL, NO_ROW};
        known = addrset_find(&s->ids, pointer_key(name));
    }
    s->last = name;
    s->last_id = *ret = *known;
    return 0;
}

static int64_t type_row(struct identity *x, struct table *t, struct type_id *type)
{
    if (type->row != NO_ROW)
        return type->row;
    const char *label = type->name;
    if (t->d->key != FIGURES_BY_TYPE) {
        const uint64_t *module = addrset_find(&x->modules, pointer_key(type->name));
        label = figures_module_name(module ? (const char *)(uintptr_t)*module : NULL,
                                    t->d->key == FIGURES_BY_PACKAGE, &t->d->names);
    }
    return type->row = label ? row_of(t, label) : NO_ROW;
}

static int64_t site_row(struct side *s, struct table *t, uint32_t site)
{
    if (!site)
        return row_of(t, not_traced);
    int64_t *known = &s->site_rows[site - 1];
    if (*known != NO_ROW)
        return *known;
    const struct snapshot *snap = s->in->snap;
    const struct snapshot_traceback *tb = &snap->tracebacks[snap->sites[site - 1].traceback];
    char *name = malloc(FIGURES_KEY_MAX);
    if (!name)
        return NO_ROW;
    figures_frames_name(snap, snap->frame_ids + tb->first, tb->n, t->d->key, name, FIGURES_KEY_MAX);
    *known = row_of(t, name);
    free(name);
    return *known;
}

/* The row of a block in a table, or NO_ROW when memory ran out. */
static int64_t find_row(struct identity *x, struct side *s, struct table *t, uint64_t type)
{
    const struct block_row *b = &s->block;
    char name[32];
    if (figure_key_is_site(t->d->key) && b->kind == ROW_RUNTIME && !b->site)
        return row_of(t, figures_runtime);
    if (figure_key_is_site(t->d->key))
        return site_row(s, t, b->site);
    if (t->d->key == FIGURES_BY_SIZE)
        return row_of(t, figures_size_name(b->size, name, sizeof name));
    if (b->kind != ROW_OBJECT && b->kind != ROW_BUFFER)
        return row_of(t, label_of_kind(b->kind));
    return b->type ? type_row(x, t, &x->types[type]) : row_of(t, "(of no known type)");
}

/* ---- counting ---- */

enum change { FRESH, GONE, KEPT };

static void add_sum(struct diff_sum *sum, uint64_t count, uint64_t bytes)
{
    sum->count = add_capped(sum->count, count);
    sum->bytes = add_capped(sum->bytes, bytes);
}

static void count_in(struct diff_row *r, enum change change, uint64_t count, uint64_t bytes)
{
    add_sum(change == FRESH ? &r->fresh : change == GONE ? &r->gone : &r->kept, count, bytes);
}

/* By type, `count` is objects, as in the view: a buffer adds its bytes to its owner's type. */
static int count_block(struct identity *x, struct side *s, uint64_t type, enum change change)
{
    const struct block_row *b = &s->block;
    struct diff_identity *out = &x->out;
    if (b->kind == ROW_STATIC) /* in no heap: never new, never gone */
        return 0;
    add_sum(change == FRESH ? &out->fresh : change == GONE ? &out->gone : &out->kept, 1, b->size);
    for (size_t i = 0; i < x->n_tables; i++) {
        struct table *t = &x->tables[i];
        int64_t row = find_row(x, s, t, type);
        bool counts = !(figure_key_is_type(t->d->key) && b->kind == ROW_BUFFER);
        if (row == NO_ROW)
            return no_memory(x);
        count_in(&t->d->rows[row], change, counts, b->size);
    }
    return 0;
}

/* ---- tracebacks ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 32;
}

static uint64_t mark_text(uint64_t h, const char *s)
{
    for (; *s; s++)
        h = mix(h, (unsigned char)*s);
    return mix(h, 0x100);
}

/* The hash of a traceback is that of its files and lines, so that it holds in both snapshots. */
static int mark_sites(struct identity *x, struct side *s)
{
    const struct snapshot *snap = s->in->snap;
    size_t n = snap->n_sites;
    uint64_t *frames = malloc((snap->n_frames + 1) * sizeof *frames);
    s->site_rows = malloc((n + 1) * sizeof *s->site_rows);
    s->site_marks = malloc((n + 1) * sizeof *s->site_marks);
    if (!frames || !s->site_rows || !s->site_marks) {
        free(frames);
        return no_memory(x);
    }
    for (size_t i = 0; i < snap->n_frames; i++)
        frames[i] = mix(mark_text(1, snap->frames[i].file), snap->frames[i].line);
    for (size_t i = 0; i < n; i++) {
        const struct snapshot_traceback *tb = &snap->tracebacks[snap->sites[i].traceback];
        uint64_t h = mix(2, snap->sites[i].domain);
        for (uint32_t k = 0; k < tb->n; k++)
            h = mix(h, frames[snap->frame_ids[tb->first + k]]);
        s->site_rows[i] = NO_ROW;
        s->site_marks[i] = h ? h : 1;
    }
    free(frames);
    return 0;
}

static uint64_t site_mark(const struct side *s)
{
    return s->block.site ? s->site_marks[s->block.site - 1] : 0;
}

/* ---- in step ---- */

static int step(struct identity *x, struct side *s)
{
    int rc = block_stream_next(s->in->stream, &s->block, x->err);
    s->more = rc > 0;
    if (s->more && s->block.site > s->in->snap->n_sites)
        s->block.site = 0;
    return rc < 0 ? rc : 0;
}

static int numbers(struct identity *x, uint64_t type[2], const bool wanted[2])
{
    int rc = 0;
    for (int i = 0; i < 2 && rc == 0; i++)
        if (wanted[i] && x->sides[i].block.type)
            rc = type_number(x, &x->sides[i], x->sides[i].block.type, &type[i]);
    return rc;
}

/* A buffer may be reallocated in place, which gives it a new traceback; an object that lives is
 * not. */
static bool is_same(struct identity *x, const uint64_t type[2])
{
    const struct side *a = &x->sides[0], *b = &x->sides[1];
    const struct block_row *o = &a->block, *n = &b->block;
    if (o->size != n->size || o->kind != n->kind || !o->type != !n->type || type[0] != type[1])
        return false;
    if (!x->compare_sites || o->kind != ROW_OBJECT || !o->site || !n->site ||
        site_mark(a) == site_mark(b))
        return true;
    x->out.reused++;
    return false;
}

/* What stands at the lowest address that is left. */
static int take(struct identity *x)
{
    struct side *a = &x->sides[0], *b = &x->sides[1];
    bool has[2] = {a->more && (!b->more || a->block.address <= b->block.address),
                   b->more && (!a->more || b->block.address <= a->block.address)};
    uint64_t type[2] = {0, 0};
    int rc = numbers(x, type, has);
    if (rc < 0)
        return rc;
    if (has[0] && has[1] && is_same(x, type)) {
        rc = count_block(x, b, type[1], KEPT);
    } else {
        if (has[0])
            rc = count_block(x, a, type[0], GONE);
        if (has[1] && rc == 0)
            rc = count_block(x, b, type[1], FRESH);
    }
    for (int i = 0; i < 2 && rc == 0; i++)
        if (has[i])
            rc = step(x, &x->sides[i]);
    return rc;
}

static int need_blocks(struct identity *x, const struct side *s)
{
    if (s->more)
        return 0;
    err_set(x->err, ERR_USAGE, "%s has no blocks to compare one by one", s->in->name);
    err_remedy(x->err, "take both with heapcensus snapshot --blocks, or leave --blocks out");
    return ERR_USAGE;
}

static int walk(struct identity *x)
{
    int rc = 0;
    for (int i = 0; i < 2 && rc == 0; i++) {
        rc = step(x, &x->sides[i]);
        if (rc == 0)
            rc = need_blocks(x, &x->sides[i]);
        if (rc == 0)
            rc = mark_sites(x, &x->sides[i]);
    }
    for (uint64_t n = 0; rc == 0 && (x->sides[0].more || x->sides[1].more); n++) {
        rc = take(x);
        if (rc == 0 && n % LOOK_UP_EVERY == 0 && x->stop && *x->stop)
            rc = err_set(x->err, ERR_INTERRUPTED, "interrupted");
    }
    return rc;
}

/* ---- result ---- */

static void total_up(struct diff *d)
{
    d->total.key = "total";
    for (size_t i = 0; i < d->n; i++) {
        struct diff_row *r = &d->rows[i], *t = &d->total;
        r->count = add_capped(r->fresh.count, r->kept.count);
        r->bytes = add_capped(r->fresh.bytes, r->kept.bytes);
        r->count_diff = figure_diff(r->gone.count, r->fresh.count);
        r->bytes_diff = figure_diff(r->gone.bytes, r->fresh.bytes);
        add_sum(&t->fresh, r->fresh.count, r->fresh.bytes);
        add_sum(&t->gone, r->gone.count, r->gone.bytes);
        add_sum(&t->kept, r->kept.count, r->kept.bytes);
    }
    d->total.count = add_capped(d->total.fresh.count, d->total.kept.count);
    d->total.bytes = add_capped(d->total.fresh.bytes, d->total.kept.bytes);
    d->total.count_diff = figure_diff(d->total.gone.count, d->total.fresh.count);
    d->total.bytes_diff = figure_diff(d->total.gone.bytes, d->total.fresh.bytes);
}

static void finish(struct diff *d, uint64_t min_size)
{
    size_t n = 0;
    total_up(d);
    for (size_t i = 0; i < d->n; i++) {
        const struct diff_row *r = &d->rows[i];
        uint64_t before = add_capped(r->gone.bytes, r->kept.bytes);
        if (r->bytes >= min_size || before >= min_size)
            d->rows[n++] = *r;
    }
    d->n = n;
    diff_sort(d, "new", false);
}

static void init_table(struct identity *x, struct diff *d, enum figure_key key)
{
    struct table *t = &x->tables[x->n_tables++];
    memset(d, 0, sizeof *d);
    strpool_init(&d->names);
    d->key = key;
    d->identity = true;
    t->d = d;
    addrset_init(&t->rows);
}

static int add_modules(struct identity *x, const struct snapshot *snap)
{
    for (size_t i = 0; i < snap->n_types; i++) {
        const struct snapshot_type *t = &snap->types[i];
        const char *name = strpool_add(&x->names, t->name ? t->name : "?");
        const char *module = strpool_add(&x->names, t->module ? t->module : "");
        if (!name || !module ||
            addrset_add(&x->modules, pointer_key(name), pointer_key(module), NULL) < 0)
            return no_memory(x);
    }
    return 0;
}

static void release(struct identity *x)
{
    for (int i = 0; i < 2; i++) {
        addrset_release(&x->sides[i].ids);
        free(x->sides[i].site_rows);
        free(x->sides[i].site_marks);
    }
    for (size_t i = 0; i < x->n_tables; i++)
        addrset_release(&x->tables[i].rows);
    addrset_release(&x->by_name);
    addrset_release(&x->modules);
    strpool_release(&x->names);
    free(x->types);
}

static int check(const struct diff_side *a, const struct diff_side *b, enum figure_key key,
                 struct err *err)
{
    char why[DIFF_WHY];
    if (key == FIGURES_BY_ARENA || key == FIGURES_BY_CATEGORY || key == FIGURES_BY_MAPPING) {
        err_set(err, ERR_USAGE, "blocks are not compared by %s", figure_key_name(key));
        err_remedy(err, "--blocks goes with --by type, module, package, size, file, line or "
                        "traceback");
        return ERR_USAGE;
    }
    if (diff_same_process(a->snap, b->snap, why, sizeof why) != DIFF_SAME) {
        err_set(err, ERR_USAGE, "blocks of different processes cannot be the same: %s", why);
        err_remedy(err, "leave --blocks out: by type, size or line they can be compared");
        return ERR_USAGE;
    }
    if (!figure_key_is_site(key))
        return 0;
    int rc = figures_can(a->snap, key, a->name, err);
    return rc < 0 ? rc : figures_can(b->snap, key, b->name, err);
}

static void init(struct identity *x, struct diff_side *a, struct diff_side *b, enum figure_key key)
{
    bool traced = a->snap->tracing.present && b->snap->tracing.present;
    strpool_init(&x->names);
    addrset_init(&x->by_name);
    addrset_init(&x->modules);
    x->sides[0].in = a;
    x->sides[1].in = b;
    addrset_init(&x->sides[0].ids);
    addrset_init(&x->sides[1].ids);
    x->compare_sites = traced && a->snap->tracing.frames_limit == b->snap->tracing.frames_limit;
    init_table(x, &x->out.by, key);
    x->out.has_also = figure_key_is_site(key) || traced;
    if (x->out.has_also)
        init_table(x, &x->out.also, figure_key_is_site(key) ? FIGURES_BY_TYPE : FIGURES_BY_LINE);
}

int diff_identify(struct diff_side *a, struct diff_side *b, enum figure_key key, uint64_t min_size,
                  const volatile sig_atomic_t *stop, struct diff_identity *ret, struct err *err)
{
    struct identity x;
    int rc = check(a, b, key, err);
    if (rc < 0)
        return rc;
    memset(&x, 0, sizeof x);
    init(&x, a, b, key);
    x.stop = stop;
    x.err = err;
    rc = add_modules(&x, a->snap);
    if (rc == 0)
        rc = add_modules(&x, b->snap);
    if (rc == 0)
        rc = walk(&x);
    release(&x);
    if (rc < 0) {
        diff_identity_release(&x.out);
        return rc;
    }
    finish(&x.out.by, min_size);
    if (x.out.has_also)
        finish(&x.out.also, min_size);
    *ret = x.out;
    return 0;
}

void diff_identity_release(struct diff_identity *d)
{
    diff_release(&d->by);
    if (d->has_also)
        diff_release(&d->also);
    memset(d, 0, sizeof *d);
}
