/* The traces of tracemalloc, their tracebacks and file names.
 *
 * Each trace costs a few reads that lie anywhere in the heap. So they are made in rounds, each of
 * which asks for the bytes of the next traces before it reads those of this one. */
#include "walker/cpython/tracemalloc.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/note.h"

enum {
    OFTEN = 4096,  /* traces between two looks at whether somebody has given up */
    AHEAD = 16,    /* traces whose bytes are asked for before they are read */
    SIZE_BITS = 47 /* no block is larger than the address space */
};

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for the traces of tracemalloc");
}

/* ---- traces ---- */

/* A block that the tables are made of. */
static int add_node(struct tracing *t, uint64_t addr)
{
    if (!t->o->blocks)
        return 0;
    if (vec_reserve(&t->nodes, &t->cap_nodes, t->n_nodes + 1, sizeof *t->nodes) < 0)
        return ERR_NOMEM;
    t->nodes[t->n_nodes++] = addr;
    return 0;
}

/* index + 1; 0: there is no traceback. */
static int traceback_of(struct tracing *t, uint64_t addr, uint64_t *ret)
{
    uint64_t *known = addrset_find(&t->tracebacks, addr);
    *ret = 0;
    if (known || !addr) {
        *ret = known ? *known : 0;
        return 0;
    }
    if (tracing_traceback(t, addr, ret) < 0 || (*ret && add_node(t, addr) < 0))
        return ERR_NOMEM;
    return addrset_add(&t->tracebacks, addr, *ret, NULL);
}

static int add_trace(void *ctx, const struct htab_entry *e)
{
    struct tracing *t = ctx;
    const struct layout *l = &t->o->py->layout;
    if (vec_reserve(&t->items, &t->cap, t->n + 1, sizeof *t->items) < 0 ||
        vec_reserve(&t->records, &t->cap_records, t->n + 1, sizeof *t->records) < 0)
        return ERR_NOMEM;
    struct trace *trace = &t->items[t->n];
    *trace = (struct trace){.addr = e->key, .domain = e->data ? e->domain : t->domain};
    t->records[t->n++] = e->data ? layout_load(l, e->data, LF_trace_traceback) : e->value;
    if (e->data)
        trace->size = layout_load(l, e->data, LF_trace_size);
    return add_node(t, e->at);
}

/* 3.9+: the trace's own record is elsewhere. *record becomes the traceback's address. */
static bool load_record(struct tracing *t, struct trace *trace, uint64_t *record)
{
    const struct layout *l = &t->o->py->layout;
    const uint8_t *p = *record && *record % 8 == 0
                           ? objects_peek(t->o, *record, layout_size(l, LF_trace_size_of))
                           : NULL;
    if (!p)
        return false;
    trace->size = layout_load(l, p, LF_trace_size);
    *record = layout_load(l, p, LF_trace_traceback);
    return true;
}

static void ask_for(struct tracing *t, size_t i)
{
    if (i < t->n && t->o->far->ops->direct && t->records[i])
        __builtin_prefetch(
            objects_peek(t->o, t->records[i], layout_size(&t->o->py->layout, LF_trace_size_of)));
}

/* Those from `first` on, as far as they are sound; the others are lost. */
static int resolve(struct tracing *t, size_t first, bool in_entry, struct err *err)
{
    size_t kept = first;
    for (size_t i = first; i < t->n; i++) {
        struct trace trace = t->items[i];
        uint64_t record = t->records[i], index = 0;
        if (i % OFTEN == 0 && objects_stopped(t->o))
            return err_set(err, ERR_INTERRUPTED, "interrupted");
        if (!in_entry)
            ask_for(t, i + AHEAD);
        bool good = in_entry || load_record(t, &trace, &record);
        if (good && traceback_of(t, record, &index) < 0)
            return no_memory(err);
        if (index && !in_entry && add_node(t, t->records[i]) < 0)
            return no_memory(err);
        if (!good || !index || trace.size >> SIZE_BITS) {
            t->lost++;
            t->damaged = true;
            continue;
        }
        trace.traceback = (uint32_t)(index - 1);
        t->items[kept++] = trace;
    }
    t->n = kept;
    return 0;
}

/* What the table counts and its lists do not give. */
static void judge(struct tracing *t, const struct htab *table, const struct htab_walked *w)
{
    uint64_t missing = table->nentries > w->entries ? table->nentries - w->entries : 0;
    bool absurd = table->nentries / 4 > table->nbuckets;
    bool broken = w->holes || w->cycles || w->overrun || absurd;
    if (absurd)
        missing = w->holes + w->cycles + w->overrun;
    t->lost += missing;
    t->damaged |= broken;
    t->resizing |= !broken && (missing > 1 || w->strays);
}

static int read_table(struct tracing *t, const struct htab *table, struct err *err)
{
    size_t first = t->n;
    struct htab_walked walked;
    uint64_t bytes = table->nbuckets * 8;
    t->snap->tracing.overhead_bytes += htab_bytes(t->o->py, table);
    if (bytes > t->budget) {
        t->damaged = true;
        return 0;
    }
    t->budget -= bytes;
    if (add_node(t, table->buckets) < 0 || htab_walk(t->o, table, add_trace, t, &walked) < 0)
        return no_memory(err);
    judge(t, table, &walked);
    return resolve(t, first, table->data_size != 0, err);
}

/* ---- domains ---- */

struct domain {
    uint64_t table;
    uint32_t number;
};

struct domains {
    struct domain *items;
    size_t n, cap;
    uint64_t strange; /* keys that are no domains' */
};

static int add_domain(void *ctx, const struct htab_entry *e)
{
    struct domains *d = ctx;
    if (e->key > UINT32_MAX) {
        d->strange++;
        return 0;
    }
    if (vec_reserve(&d->items, &d->cap, d->n + 1, sizeof *d->items) < 0)
        return ERR_NOMEM;
    d->items[d->n++] = (struct domain){e->value, (uint32_t)e->key};
    return 0;
}

static int by_number(const void *a, const void *b)
{
    const struct domain *x = a, *y = b;
    return x->number < y->number ? -1 : x->number > y->number;
}

static int read_domain(struct tracing *t, const struct domain *d, struct addrset *seen,
                       struct err *err)
{
    struct htab table;
    bool fresh = false;
    if (!htab_load(t->o->in, t->o->py, d->table, false, &table)) {
        t->damaged = true;
        t->lost++;
        return 0;
    }
    if (addrset_add(seen, d->table, 0, &fresh) < 0)
        return no_memory(err);
    t->domain = d->number;
    t->damaged |= !fresh;
    return fresh ? read_table(t, &table, err) : 0;
}

static int read_domains(struct tracing *t, struct err *err)
{
    struct domains d = {0};
    struct addrset seen;
    struct htab_walked walked;
    const struct htab *table = &t->place.domains;
    if (!table->at || table->data_size)
        return 0;
    addrset_init(&seen);
    int rc = htab_walk(t->o, table, add_domain, &d, &walked) < 0 ? no_memory(err) : 0;
    judge(t, table, &walked);
    t->damaged |= d.strange != 0;
    if (d.n)
        qsort(d.items, d.n, sizeof *d.items, by_number);
    for (size_t i = 0; rc == 0 && i < d.n; i++)
        rc = read_domain(t, &d.items[i], &seen, err);
    addrset_release(&seen);
    free(d.items);
    return rc;
}

/* ---- all ---- */

/* Frames and names lie in the target's memory, each once: what is more is a hostile tangle. */
static uint64_t budget_of(const struct cpython_input *in)
{
    enum { ENCODING = 4, SLACK = 1 << 20 }; /* a byte of Latin-1 is two of UTF-8; and tables */
    uint64_t sum = SLACK;
    for (size_t i = 0; i < in->vmas->n; i++)
        if (in->vmas->items[i].w)
            sum += in->vmas->items[i].end - in->vmas->items[i].start;
    return sum > UINT64_MAX / ENCODING ? UINT64_MAX : sum * ENCODING;
}

static void tell(const struct tracing *t)
{
    struct notes *notes = t->o->notes;
    const struct snapshot_tracing *s = &t->snap->tracing;
    if (!t->place.tracing)
        return;
    if (!t->place.traces.at)
        note_add(notes, "tracing.missing", 0, 0,
                 "tracemalloc is tracing, but its table of traces was not found");
    else if (t->damaged)
        note_add(notes, "tracing.damaged", t->place.traces.at, 0,
                 "a table of tracemalloc is damaged or was being changed: %" PRIu64
                 " traces were read, about %" PRIu64 " could not be",
                 s->traces, t->lost);
    else if (t->resizing)
        note_add(notes, "tracing.resizing", t->place.traces.at, 0,
                 "a table of tracemalloc was just being resized: %" PRIu64
                 " traces were read, %" PRIu64 " were out of reach",
                 s->traces, t->lost);
    else if (t->lost)
        note_remark(notes, "tracing.update", t->place.traces.at, 0,
                    "a table of tracemalloc was just being changed: one trace more or less");
    if (t->unnamed)
        note_add(notes, "tracing.names", 0, 0,
                 "%" PRIu64 " names of files could not be read: they are \"%s\"", t->unnamed,
                 TRACING_UNKNOWN);
}

static void count_traces(struct tracing *t)
{
    struct snapshot_tracing *s = &t->snap->tracing;
    for (size_t i = 0; i < t->n; i++)
        s->trace_bytes += t->items[i].size;
    s->traces = t->n;
    s->tracebacks = t->snap->n_tracebacks;
    s->lost = t->lost;
}

/* The sums as tracemalloc keeps them. */
static void fill_sums(struct tracing *t)
{
    struct snapshot_tracing *s = &t->snap->tracing;
    s->traced_bytes = s->peak_bytes = s->trace_bytes;
    if (!t->place.tracing)
        return;
    if (t->place.counted || tracing_find_sums(t->o, &t->place, s->trace_bytes)) {
        s->traced_bytes = t->place.traced;
        s->peak_bytes = t->place.peak;
    } else if (t->n) {
        note_remark(t->o->notes, "tracing.peak", 0, 0,
                    "where tracemalloc keeps its peak was not found: it is at least what is "
                    "traced now");
    }
}

static int read_tables(struct tracing *t, struct err *err)
{
    struct snapshot_tracing *s = &t->snap->tracing;
    const struct cpython *py = t->o->py;
    s->overhead_bytes = htab_bytes(py, &t->place.tracebacks) + htab_bytes(py, &t->place.filenames);
    t->budget = budget_of(t->o->in);
    t->domain = 0;
    int rc = t->place.traces.at ? read_table(t, &t->place.traces, err) : 0;
    if (rc == 0)
        rc = read_domains(t, err);
    free(t->records);
    t->records = NULL;
    t->cap_records = 0;
    return rc;
}

int tracing_read(struct objects *o, struct snapshot *snap, struct tracing *ret, struct err *err)
{
    memset(ret, 0, sizeof *ret);
    ret->o = o;
    ret->snap = snap;
    if (!tracing_find(o, &ret->place))
        return 0;
    snap->tracing = (struct snapshot_tracing){.present = true,
                                              .source = "tracemalloc",
                                              .tracing = ret->place.tracing,
                                              .frames_limit = ret->place.max_nframe};
    int rc = read_tables(ret, err);
    if (rc < 0)
        return rc;
    count_traces(ret);
    tell(ret);
    fill_sums(ret);
    return 0;
}

void tracing_release(struct tracing *t)
{
    free(t->items);
    free(t->records);
    free(t->nodes);
    free(t->ids);
    free(t->name);
    addrset_release(&t->tracebacks);
    addrset_release(&t->names);
    pairmap_release(&t->frames);
    memset(t, 0, sizeof *t);
}
