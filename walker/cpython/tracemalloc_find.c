/* Where tracemalloc keeps its settings, its tables and its sums.
 *
 * 3.12+ has all of it in _PyRuntime; between micro releases it moves, so that a place which another
 * release's layout names has to prove itself, and its surroundings are looked through otherwise.
 * 3.8-3.11 export the settings only. The tables are statics without a name, in an order that
 * compilers choose; what they hold tells which is which. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/object_place.h"
#include "walker/cpython/tracemalloc.h"
#include "walker/cpython/type_names.h"

enum { PAGE = 4096, MAX_NFRAME = 65535, MAX_SHIFT = 4096, INITIALIZED = 1 };

/* ---- settings ---- */

struct settings {
    uint64_t initialized, tracing, max_nframe;
};

struct settings_fields {
    enum layout_field initialized, tracing, max_nframe;
};
static const struct settings_fields in_runtime = {LF_tm_initialized, LF_tm_tracing,
                                                  LF_tm_max_nframe};
static const struct settings_fields exported = {LF_tmconf_initialized, LF_tmconf_tracing,
                                                LF_tmconf_max_nframe};

static bool settings_read(const struct cpython_input *in, const struct cpython *py, uint64_t at,
                          const struct settings_fields *f, struct settings *ret)
{
    const struct layout *l = &py->layout;
    return at && layout_u64(l, in->mem, at, f->initialized, &ret->initialized, NULL) == 0 &&
           layout_u64(l, in->mem, at, f->tracing, &ret->tracing, NULL) == 0 &&
           layout_u64(l, in->mem, at, f->max_nframe, &ret->max_nframe, NULL) == 0;
}

/* As they are once tracemalloc was started. */
static bool settings_started(const struct settings *s)
{
    return s->initialized == INITIALIZED && s->tracing <= 1 && s->max_nframe >= 1 &&
           s->max_nframe <= INT32_MAX;
}

/* ---- 3.12+: in _PyRuntime ---- */

static void load_tables(const struct cpython_input *in, const struct cpython *py, uint64_t state,
                        bool certain, struct tracing_place *p)
{
    const struct {
        enum layout_field field;
        struct htab *table;
    } rows[] = {{LF_tm_traces, &p->traces},
                {LF_tm_domains, &p->domains},
                {LF_tm_tracebacks, &p->tracebacks},
                {LF_tm_filenames, &p->filenames}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t at = 0;
        if (!layout_has(&py->layout, rows[i].field) ||
            layout_u64(&py->layout, in->mem, state, rows[i].field, &at, NULL) < 0 ||
            !htab_load(in, py, at, certain, rows[i].table))
            rows[i].table->at = 0;
    }
}

static bool proves_itself(const struct cpython_input *in, const struct cpython *py, uint64_t state)
{
    struct settings s;
    struct tracing_place p = {0};
    if (!settings_read(in, py, state, &in_runtime, &s) || !settings_started(&s) ||
        s.max_nframe > MAX_NFRAME)
        return false;
    load_tables(in, py, state, true, &p);
    return p.traces.at && p.domains.at && p.tracebacks.at && p.filenames.at;
}

/* The state's address, as the layout says or near there; 0: _PyRuntime is not known. */
static uint64_t state_at(const struct cpython_input *in, const struct cpython *py)
{
    if (!py->runtime || !layout_has(&py->layout, LF_rt_tracemalloc))
        return 0;
    uint64_t at = py->runtime + layout_offset(&py->layout, LF_rt_tracemalloc);
    if (py->layout_exact || proves_itself(in, py, at))
        return at;
    for (uint64_t d = 8; d <= MAX_SHIFT; d += 8) {
        if (proves_itself(in, py, at + d))
            return at + d;
        if (at - d > py->runtime && proves_itself(in, py, at - d))
            return at - d;
    }
    return at;
}

static bool settings_find(const struct cpython_input *in, const struct cpython *py, uint64_t *state,
                          struct settings *ret)
{
    if (py->traits->tracemalloc == TRACEMALLOC_RUNTIME) {
        *state = state_at(in, py);
        return settings_read(in, py, *state, &in_runtime, ret);
    }
    *state = py->module ? py->module->tracemalloc_config : 0;
    return settings_read(in, py, *state, &exported, ret);
}

bool cpython_tracing(const struct cpython_input *in, const struct cpython *py)
{
    struct settings s;
    uint64_t state;
    return settings_find(in, py, &state, &s) && settings_started(&s) && s.tracing == 1;
}

static void find_in_runtime(struct objects *o, uint64_t state, struct tracing_place *p)
{
    const struct layout *l = &o->py->layout;
    load_tables(o->in, o->py, state, false, p);
    p->counted = layout_u64(l, o->in->mem, state, LF_tm_traced_memory, &p->traced, NULL) == 0 &&
                 layout_u64(l, o->in->mem, state, LF_tm_peak_traced_memory, &p->peak, NULL) == 0;
}

/* ---- 3.8-3.11: by what the tables hold ---- */

enum role { TRACES, DOMAINS, TRACEBACKS, FILENAMES, ROLES };

enum { SAMPLES = 16, MAX_CANDIDATES = 64 };

struct sample {
    struct objects *o;
    const struct htab *t;
    uint64_t max_nframe;
    unsigned n, votes[ROLES];
};

static bool is_trace(struct sample *s, const uint8_t *record)
{
    const struct layout *l = &s->o->py->layout;
    return record &&
           tracing_traceback_at(s->o, layout_load(l, record, LF_trace_traceback), s->max_nframe);
}

static bool is_table(struct sample *s, uint64_t addr)
{
    struct htab t;
    return htab_load(s->o->in, s->o->py, addr, true, &t);
}

static int vote(void *ctx, const struct htab_entry *e)
{
    struct sample *s = ctx;
    const struct cpython *py = s->o->py;
    size_t size = layout_size(&py->layout, LF_trace_size_of);
    s->n++;
    if (s->t->data_size)
        s->votes[TRACES] += is_trace(s, e->data);
    else if (e->value == 0 && text_is_str(s->o, e->key))
        s->votes[FILENAMES]++;
    else if (e->value == 0)
        s->votes[TRACEBACKS] += tracing_traceback_at(s->o, e->key, s->max_nframe);
    else if (e->key <= UINT32_MAX && is_table(s, e->value))
        s->votes[DOMAINS]++;
    else
        s->votes[TRACES] += is_trace(s, objects_peek(s->o, e->value, size));
    return s->n == SAMPLES;
}

/* What most of its first entries are; ROLES: nothing of tracemalloc's, or it is empty. */
static enum role role_of(struct objects *o, const struct htab *t, uint64_t max_nframe)
{
    struct sample s = {.o = o, .t = t, .max_nframe = max_nframe};
    struct htab_walked walked;
    if (htab_walk(o, t, vote, &s, &walked) < 0)
        return ROLES;
    for (int role = 0; role < ROLES; role++)
        if (s.votes[role] * 2 > s.n)
            return (enum role)role;
    return ROLES;
}

struct candidate {
    uint64_t at; /* of the variable */
    struct htab table;
};

/* Every pointer in the module's data that leads to a table: a chunk of malloc, so 16-aligned. */
static size_t find_candidates(const struct objects *o, struct candidate *ret)
{
    const struct cpython_module *m = o->py->module;
    size_t n = 0;
    for (size_t i = 0; m && i < m->n_data; i++) {
        for (uint64_t page = round_down(m->data[i].start, PAGE); page < m->data[i].end;
             page += PAGE) {
            uint8_t bytes[PAGE];
            size_t got = mem_read_some(o->in->mem, page, bytes, sizeof bytes);
            for (size_t off = 0; off + 8 <= got && n < MAX_CANDIDATES; off += 8) {
                uint64_t p = load_u64(bytes + off);
                if (p < PAGE || p % 16 || !htab_load(o->in, o->py, p, true, &ret[n].table))
                    continue;
                ret[n++].at = page + off;
            }
        }
    }
    return n;
}

static void find_statics(struct objects *o, struct tracing_place *p)
{
    struct candidate found[MAX_CANDIDATES];
    struct htab *tables[ROLES] = {&p->traces, &p->domains, &p->tracebacks, &p->filenames};
    size_t n = find_candidates(o, found);
    for (size_t i = 0; i < n; i++) {
        enum role role = role_of(o, &found[i].table, p->max_nframe);
        if (role == ROLES || tables[role]->nentries >= found[i].table.nentries)
            continue;
        *tables[role] = found[i].table;
        if (role == TRACES || !p->near)
            p->near = found[i].at;
    }
    /* Empty ones say nothing of themselves, and are all of one size. If they are as many as are
     * missing, any will do; otherwise a table that has something could not be read. */
    size_t known = 0, empty = SIZE_MAX, n_empty = 0;
    for (int role = 0; role < ROLES; role++)
        known += tables[role]->at != 0;
    for (size_t i = 0; i < n; i++)
        if (found[i].table.nentries == 0) {
            empty = i;
            n_empty++;
        }
    size_t all = o->py->traits->hashtable_inline ? ROLES - 1 : ROLES;
    if (!p->traces.at && known && n_empty && known + n_empty >= all)
        p->traces = found[empty].table;
}

bool tracing_find(struct objects *o, struct tracing_place *ret)
{
    struct settings s;
    uint64_t state;
    memset(ret, 0, sizeof *ret);
    if (!settings_find(o->in, o->py, &state, &s) || !settings_started(&s))
        return false;
    ret->initialized = true;
    ret->tracing = s.tracing == 1;
    ret->max_nframe = s.max_nframe;
    if (!ret->tracing) /* the tables are empty */
        return true;
    if (o->py->traits->tracemalloc == TRACEMALLOC_RUNTIME)
        find_in_runtime(o, state, ret);
    else
        find_statics(o, ret);
    return true;
}

/* ---- the sums of 3.8-3.11 ---- */

struct sums_search {
    struct objects *o;
    uint64_t sum, slack;
    uint64_t traced, peak;
    unsigned found;
};

/* How well a word goes as the peak beside `traced`: it is no smaller, and no more than a process
 * can have; rather no pointer into a heap. 0: not at all. */
static unsigned rank_peak(const struct objects *o, uint64_t word, uint64_t traced)
{
    if (word < traced || word >= (uint64_t)1 << 46)
        return 0;
    const struct vma *v = word % 8 ? NULL : vma_at(o->in->vmas, word);
    return word == traced ? 3 : v && vma_is_heapish(v) ? 1 : 2;
}

/* Compilers lay the peak out in front of what is traced, or behind it. */
static void search_sums(struct sums_search *s, uint64_t lo, uint64_t hi)
{
    for (uint64_t at = round_up(lo, 8); at + 8 <= hi; at += 8) {
        uint64_t word, before = 0, after = 0;
        if (mem_u64(s->o->in->mem, at, &word, NULL) < 0 || !word ||
            (word > s->sum ? word - s->sum : s->sum - word) > s->slack)
            continue;
        bool has_before = mem_u64(s->o->in->mem, at - 8, &before, NULL) == 0;
        bool has_after = mem_u64(s->o->in->mem, at + 8, &after, NULL) == 0;
        unsigned b = has_before ? rank_peak(s->o, before, word) : 0;
        unsigned a = has_after ? rank_peak(s->o, after, word) : 0;
        if (!a && !b)
            continue;
        s->found++;
        s->traced = word;
        s->peak = b >= a ? before : after;
        at += s->peak == word ? 8 : 0; /* two that are equal are one pair */
    }
}

/* Stopped between the table and the sum, or some traces could not be read: a word near the sum, if
 * there is one only. */
bool tracing_find_sums(struct objects *o, struct tracing_place *p, uint64_t sum)
{
    enum { NEAR = 512, SLACK_SHARE = 8 };
    const uint64_t slacks[] = {0, sum / SLACK_SHARE};
    for (size_t i = 0; i < 2 && p->near && sum; i++) {
        struct sums_search s = {.o = o, .sum = sum, .slack = slacks[i]};
        search_sums(&s, p->near - NEAR, p->near + NEAR);
        if (s.found > 1)
            return false;
        p->traced = s.traced;
        p->peak = s.peak;
        p->counted = s.found == 1;
        if (p->counted)
            return true;
    }
    return false;
}

/* ---- what a copy of the target must have for it ---- */

struct keep {
    struct objects *o;
    struct cpython_range *items;
    size_t n, cap;
    bool no_memory;
};

static void keep_range(struct keep *k, uint64_t start, uint64_t bytes)
{
    uint64_t end;
    if (!start || !bytes || add_overflows(start, bytes, &end))
        return;
    if (vec_reserve(&k->items, &k->cap, k->n + 1, sizeof *k->items) < 0)
        k->no_memory = true;
    else
        k->items[k->n++] = (struct cpython_range){start, end};
}

static int keep_domain(void *ctx, const struct htab_entry *e)
{
    struct keep *k = ctx;
    struct htab t;
    if (htab_load(k->o->in, k->o->py, e->value, false, &t))
        keep_range(k, t.buckets, t.nbuckets * 8);
    return k->no_memory;
}

/* The object and its characters, which may lie elsewhere. */
static int keep_name(void *ctx, const struct htab_entry *e)
{
    enum { TEXT = 65536 };
    struct keep *k = ctx;
    const struct layout *l = &k->o->py->layout;
    uint64_t obj = e->key + objects_shift(k->o), data, length, type;
    unsigned width;
    if (text_str_chars(k->o, obj, &data, &length, &width)) {
        keep_range(k, e->key, layout_size(l, LF_str_sizeof) + objects_shift(k->o));
        keep_range(k, data, min_u64(length * width, TEXT));
    }
    if (layout_u64(l, k->o->far, obj, LF_ob_type, &type, NULL) == 0)
        keep_range(k, type, layout_size(l, LF_type_sizeof));
    return k->no_memory;
}

static int by_start(const void *a, const void *b)
{
    const struct cpython_range *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static void keep_all(struct keep *k, bool names)
{
    struct tracing_place p;
    struct htab_walked walked;
    if (!tracing_find(k->o, &p) || !p.tracing)
        return;
    keep_range(k, p.traces.buckets, p.traces.nbuckets * 8);
    keep_range(k, p.domains.buckets, p.domains.nbuckets * 8);
    if (!k->o->py->traits->hashtable_inline)
        htab_walk(k->o, &p.domains, keep_domain, k, &walked);
    if (names && !k->o->py->traits->tracemalloc_filename_utf8)
        htab_walk(k->o, &p.filenames, keep_name, k, &walked);
}

int cpython_tracing_ranges(const struct cpython_input *in, const struct cpython *py, bool names,
                           struct cpython_range **ret, size_t *n, struct err *err)
{
    struct keep k = {.o = calloc(1, sizeof *k.o)};
    if (!k.o)
        return err_set(err, ERR_NOMEM, "no memory to look at tracemalloc");
    *k.o = (struct objects){.in = in, .py = py, .far = in->mem};
    keep_all(&k, names);
    free(k.o);
    if (k.no_memory) {
        free(k.items);
        return err_set(err, ERR_NOMEM, "no memory to plan the copy of tracemalloc's tables");
    }
    if (k.n)
        qsort(k.items, k.n, sizeof *k.items, by_start);
    *ret = k.items;
    *n = k.n;
    return 0;
}
