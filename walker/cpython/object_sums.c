/* Sums over the blocks once each has been judged: by type, by kind, the leading type of every size
 * class and arena, and the blocks themselves where they are wanted. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/statics.h"

/* How often each type (or type and kind) came since the last reset; `seen` lists those that did. */
struct lead {
    uint64_t *by_type;
    uint32_t *seen;
    size_t n;
};

struct place {
    uint64_t addr;
    size_t index;
};

/* By kind; in_malloc: the part of `bytes` that lies in chunks. */
struct kind_sum {
    uint64_t n, bytes, in_malloc;
};

struct sums {
    struct objects *o;
    struct snapshot *snap;
    struct snapshot_type *types; /* by index */
    struct kind_sum kinds[BLOCK_KINDS];
    struct lead run, arena;
    struct addrset classes; /* (type, size class) -> blocks */
    struct place *arenas;   /* all of snap->arenas, by address */
    size_t at_arena;        /* of `arenas`: the one that the runs are in */
};

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for the sums by type");
}

static int lead_init(struct lead *l, size_t n)
{
    l->by_type = calloc(n + 1, sizeof *l->by_type);
    l->seen = calloc(n + 1, sizeof *l->seen);
    l->n = 0;
    return l->by_type && l->seen ? 0 : ERR_NOMEM;
}

static void lead_release(struct lead *l)
{
    free(l->by_type);
    free(l->seen);
}

static void lead_add(struct lead *l, uint32_t type, uint64_t n)
{
    if (l->by_type[type] == 0)
        l->seen[l->n++] = type;
    l->by_type[type] += n;
}

static void lead_reset(struct lead *l)
{
    for (size_t i = 0; i < l->n; i++)
        l->by_type[l->seen[i]] = 0;
    l->n = 0;
}

/* ---- one block ---- */

/* n blocks of that kind and size: to their type. */
static void count_type(struct snapshot_type *t, enum block_kind kind, uint64_t n, uint64_t bytes)
{
    switch (kind) {
    case BLOCK_OBJECT:
        t->count += n;
        t->bytes += bytes;
        break;
    case BLOCK_BUFFER:
        t->buffers += n;
        t->buffer_bytes += bytes;
        break;
    case BLOCK_INFERRED:
        t->inferred += n;
        t->inferred_bytes += bytes;
        break;
    case BLOCK_DEAD:
        t->dead += n;
        t->dead_bytes += bytes;
        break;
    default:
        break;
    }
}

static void count_kind(struct sums *s, enum block_kind kind, uint64_t n, uint64_t bytes, bool chunk)
{
    s->kinds[kind].n += n;
    s->kinds[kind].bytes += bytes;
    if (chunk)
        s->kinds[kind].in_malloc += bytes;
}

/* ---- runs, size classes, arenas ---- */

static uint64_t class_key(uint32_t type, uint64_t size_class)
{
    return ((uint64_t)type * SIZE_CLASSES + size_class + 1) << 3;
}

static int count_class(struct sums *s, const struct block_run *r, uint32_t type, uint64_t n)
{
    if (r->size % 16 || r->size > 16 * SIZE_CLASSES)
        return 0;
    uint64_t key = class_key(type, r->size / 16 - 1);
    if (addrset_add(&s->classes, key, 0, NULL) < 0)
        return ERR_NOMEM;
    *addrset_find(&s->classes, key) += n;
    return 0;
}

/* What a run's blocks are was counted by kind and type: many of few, as a rule. The dead do not
 * lead. */
static int flush_run(struct sums *s, const struct block_run *r)
{
    int rc = 0;
    for (size_t i = 0; i < s->run.n && rc == 0; i++) {
        uint32_t type = s->run.seen[i] / BLOCK_KINDS;
        enum block_kind kind = s->run.seen[i] % BLOCK_KINDS;
        uint64_t n = s->run.by_type[s->run.seen[i]];
        count_kind(s, kind, n, n * r->size, false);
        if (type == s->o->types.n)
            continue;
        count_type(&s->types[type], kind, n, n * r->size);
        if (kind == BLOCK_DEAD)
            continue;
        lead_add(&s->arena, type, n * r->size);
        rc = count_class(s, r, type, n);
    }
    lead_reset(&s->run);
    return rc;
}

static struct snapshot_arena *current_arena(const struct sums *s)
{
    return s->at_arena < s->snap->n_arenas ? &s->snap->arenas[s->arenas[s->at_arena].index] : NULL;
}

static void flush_arena(struct sums *s)
{
    struct snapshot_arena *a = current_arena(s);
    for (size_t i = 0; a && i < s->arena.n; i++) {
        uint32_t type = s->arena.seen[i];
        if (s->arena.by_type[type] > a->top_bytes) {
            a->top_bytes = s->arena.by_type[type];
            a->top_type = s->o->types.items[type].name;
        }
    }
    lead_reset(&s->arena);
}

/* Go on to the arena that holds addr; what lies in none counts for none. */
static void enter_arena(struct sums *s, uint64_t addr)
{
    const struct snapshot_arena *a = current_arena(s);
    if (a && addr >= a->address && addr - a->address < a->size)
        return;
    flush_arena(s);
    size_t lo = 0, hi = s->snap->n_arenas;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (s->arenas[mid].addr <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    s->at_arena = lo ? lo - 1 : SIZE_MAX;
    a = current_arena(s);
    if (a && addr - a->address >= a->size)
        s->at_arena = SIZE_MAX;
}

/* Types that are none count as the one behind the last. */
static uint32_t type_or_none(const struct sums *s, uint32_t what)
{
    uint32_t type = what & BLOCK_NO_TYPE;
    return type < s->o->types.n ? type : (uint32_t)s->o->types.n;
}

static int sum_runs(struct sums *s)
{
    const struct blocks *b = s->o->blocks;
    for (size_t i = 0; i < b->n_runs && !objects_stopped(s->o); i++) {
        const struct block_run *r = &b->runs[i];
        const uint32_t *what = b->what + r->first;
        enter_arena(s, r->addr);
        for (uint32_t k = 0; k < r->n; k++)
            lead_add(&s->run, type_or_none(s, what[k]) * BLOCK_KINDS + (what[k] >> 28), 1);
        if (flush_run(s, r) < 0)
            return ERR_NOMEM;
    }
    flush_arena(s);
    return 0;
}

static void sum_chunks(struct sums *s)
{
    const struct blocks *b = s->o->blocks;
    size_t first = b->n - b->n_chunks;
    for (size_t i = 0; i < b->n_chunks; i++) {
        enum block_kind kind = block_kind(b, first + i);
        uint32_t type = block_type(b, first + i);
        count_kind(s, kind, 1, b->chunks[i].size, true);
        if (type < s->o->types.n)
            count_type(&s->types[type], kind, 1, b->chunks[i].size);
    }
}

/* ---- into the snapshot ---- */

static void report_kinds(struct sums *s)
{
    const struct kind_sum *k = s->kinds;
    s->snap->objects = (struct snapshot_objects){
        .objects = k[BLOCK_OBJECT].n,
        .object_bytes = k[BLOCK_OBJECT].bytes,
        .buffers = k[BLOCK_BUFFER].n,
        .buffer_bytes = k[BLOCK_BUFFER].bytes,
        .inferred = k[BLOCK_INFERRED].n,
        .inferred_bytes = k[BLOCK_INFERRED].bytes,
        .dead = k[BLOCK_DEAD].n,
        .dead_bytes = k[BLOCK_DEAD].bytes,
        .runtime = k[BLOCK_RUNTIME].n,
        .runtime_bytes = k[BLOCK_RUNTIME].bytes,
        .unowned = k[BLOCK_UNOWNED].n,
        .unowned_bytes = k[BLOCK_UNOWNED].bytes,
        .malloc_object_bytes = k[BLOCK_OBJECT].in_malloc,
        .malloc_buffer_bytes = k[BLOCK_BUFFER].in_malloc,
        .malloc_inferred_bytes = k[BLOCK_INFERRED].in_malloc,
        .malloc_dead_bytes = k[BLOCK_DEAD].in_malloc,
        .malloc_runtime_bytes = k[BLOCK_RUNTIME].in_malloc,
        .malloc_unowned_bytes = k[BLOCK_UNOWNED].in_malloc,
    };
}

static void report_classes(struct sums *s)
{
    for (size_t i = 0; i < s->classes.cap; i++) {
        const struct addrset_slot *slot = &s->classes.slots[i];
        if (!slot->key)
            continue;
        uint64_t what = (slot->key >> 3) - 1, type = what / SIZE_CLASSES;
        struct snapshot_size_class *c = &s->snap->pymalloc.classes[what % SIZE_CLASSES];
        const char *name = s->o->types.items[type].name;
        /* Of equals the one that comes first by name, so that two runs say the same. */
        if (slot->value > c->top_count ||
            (slot->value == c->top_count && strcmp(name, c->top_type) < 0)) {
            c->top_count = slot->value;
            c->top_type = name;
        }
    }
}

/* Names still lie in the types' own pool; what stays has to be the snapshot's. Without memory they
 * go: none may point into what is released. */
static int keep_names(struct snapshot *snap)
{
    bool kept = true;
    for (size_t i = 0; i < SIZE_CLASSES; i++) {
        struct snapshot_size_class *c = &snap->pymalloc.classes[i];
        const char *name = c->top_type;
        c->top_type = snapshot_str(snap, name);
        kept &= !name || c->top_type;
    }
    for (size_t i = 0; i < snap->n_arenas; i++) {
        struct snapshot_arena *a = &snap->arenas[i];
        const char *name = a->top_type;
        a->top_type = snapshot_str(snap, name);
        kept &= !name || a->top_type;
    }
    return kept ? 0 : ERR_NOMEM;
}

static int by_total(const void *a, const void *b)
{
    const struct snapshot_type *x = a, *y = b;
    uint64_t l = x->bytes + x->buffer_bytes, r = y->bytes + y->buffer_bytes;
    if (l != r)
        return l > r ? -1 : 1;
    int names = strcmp(x->name, y->name);
    return names ? names : x->address < y->address ? -1 : x->address > y->address;
}

static int report_types(struct sums *s)
{
    struct snapshot *snap = s->snap;
    for (size_t i = 0; i < s->o->types.n; i++) {
        const struct type_info *info = &s->o->types.items[i];
        const struct snapshot_type *sum = &s->types[i];
        if (!sum->count && !sum->buffers && !sum->inferred && !sum->dead && !sum->statics)
            continue;
        struct snapshot_type *t = snapshot_add_type(snap);
        if (!t)
            return ERR_NOMEM;
        *t = *sum;
        t->address = info->addr;
        t->size_bytes = info->size_bytes;
        t->name = snapshot_str(snap, info->name);
        t->module = snapshot_str(snap, info->module);
        if (!t->name || !t->module) {
            snap->n_types--;
            return ERR_NOMEM;
        }
    }
    if (snap->n_types)
        qsort(snap->types, snap->n_types, sizeof *snap->types, by_total);
    return 0;
}

static int report_block(struct sums *s, size_t slot, const char **names)
{
    const struct blocks *b = s->o->blocks;
    enum block_kind kind = block_kind(b, slot);
    uint32_t type = block_type(b, slot);
    struct block_place p;
    if (kind == BLOCK_FREE)
        return 0;
    struct snapshot_block *r = snapshot_add_block(s->snap);
    if (!r)
        return ERR_NOMEM;
    blocks_place(b, slot, &p);
    *r = (struct snapshot_block){.address = p.addr, .size = p.size, .kind = block_kind_name(kind)};
    if (type < s->o->types.n) {
        if (!names[type] && !(names[type] = snapshot_str(s->snap, s->o->types.items[type].name)))
            return ERR_NOMEM;
        r->type = names[type];
    }
    r->site = b->sites ? b->sites[slot] : 0;
    if (b->owners[slot] && b->owners[slot] <= b->n) {
        blocks_place(b, b->owners[slot] - 1, &p);
        r->owner = p.addr;
    }
    return 0;
}

/* Runs and chunks are sorted each: the two are merged. */
static int report_blocks(struct sums *s)
{
    const struct blocks *b = s->o->blocks;
    const char **names = calloc(s->o->types.n + 1, sizeof *names);
    int rc = names ? 0 : ERR_NOMEM;
    size_t c = 0, first = b->n - b->n_chunks;
    for (size_t i = 0; rc == 0 && i <= b->n_runs; i++) {
        uint64_t until = i < b->n_runs ? b->runs[i].addr : UINT64_MAX;
        for (; rc == 0 && c < b->n_chunks && b->chunks[c].addr < until; c++)
            rc = report_block(s, first + c, names);
        for (uint32_t k = 0; rc == 0 && i < b->n_runs && k < b->runs[i].n; k++)
            rc = report_block(s, (size_t)b->runs[i].first + k, names);
    }
    free(names);
    return rc;
}

static int by_address(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    return x->addr < y->addr ? -1 : x->addr > y->addr;
}

static int sums_init(struct sums *s)
{
    size_t n = s->snap->n_arenas;
    s->at_arena = SIZE_MAX;
    s->types = calloc(s->o->types.n + 1, sizeof *s->types);
    s->arenas = calloc(n + 1, sizeof *s->arenas);
    if (!s->types || !s->arenas || lead_init(&s->run, (s->o->types.n + 1) * BLOCK_KINDS) < 0 ||
        lead_init(&s->arena, s->o->types.n) < 0)
        return ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        s->arenas[i] = (struct place){s->snap->arenas[i].address, i};
    qsort(s->arenas, n, sizeof *s->arenas, by_address);
    return 0;
}

static void sums_release(struct sums *s)
{
    free(s->types);
    free(s->arenas);
    lead_release(&s->run);
    lead_release(&s->arena);
    addrset_release(&s->classes);
}

int objects_report(struct objects *o, struct snapshot *snap, struct err *err)
{
    struct sums s = {.o = o, .snap = snap};
    int rc = sums_init(&s);
    if (rc == 0)
        rc = sum_runs(&s);
    if (rc == 0) {
        sum_chunks(&s);
        report_kinds(&s);
        statics_count(o, s.types, snap);
        report_classes(&s);
    }
    int kept = keep_names(snap);
    rc = rc < 0 ? rc : kept;
    if (rc == 0)
        rc = report_types(&s);
    if (rc == 0 && o->blocks->owners)
        rc = report_blocks(&s);
    if (rc == 0 && o->blocks->owners)
        rc = statics_rows(o, snap);
    snap->objects.present = rc == 0;
    sums_release(&s);
    return rc < 0 ? no_memory(err) : 0;
}
