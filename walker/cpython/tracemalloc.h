/* Between the files that read tracemalloc's tables: tracemalloc_table.c (CPython's hash tables),
 * tracemalloc_find.c (where they are), tracemalloc.c (traces), tracemalloc_frames.c (tracebacks,
 * file names), tracemalloc_own.c (the blocks of the tables), sites_join.c (traces and blocks).
 * Everybody else needs only cpython.h.
 *
 * A trace says of an address, as an allocator returned it, how many bytes were asked for and where.
 * The default domain has a table of its own; the other domains are a table of such tables, but in
 * 3.8, which has one table with the domain in its keys. Tracebacks are shared by traces; so are the
 * file names of their frames. */
#ifndef HEAPCENSUS_CPYTHON_TRACEMALLOC_H
#define HEAPCENSUS_CPYTHON_TRACEMALLOC_H

#include "formats/base/addrset.h"
#include "walker/cpython/objects.h"
#include "walker/cpython/pairmap.h"

/* ---- tracemalloc_table.c: _Py_hashtable_t ---- */

struct htab {
    uint64_t at; /* 0: there is none */
    uint64_t nentries, nbuckets, buckets;
    uint64_t key_size, data_size; /* of what lies in an entry; 0 in 3.9+, which has pointers */
    uint64_t entry_bytes;
};

struct htab_entry {
    uint64_t at;         /* where it lies */
    uint64_t key, value; /* 3.8: value is 0, `data` has the entry's own bytes */
    uint32_t domain;     /* 3.8 */
    const uint8_t *data; /* valid until the next read */
};

/* How a walk went. */
struct htab_walked {
    uint64_t entries; /* that were told */
    uint64_t strays;  /* in a bucket that is not theirs: while a table is resized */
    uint64_t holes;   /* links to what could not be read, and pages of buckets */
    uint64_t cycles;
    bool overrun; /* more links than any table of that size has: the rest was not looked at */
};

/* The table at addr: its number of buckets is a power of two, they lie in writable memory.
 * `certain`: and what should be functions is code. */
bool htab_load(const struct cpython_input *in, const struct cpython *py, uint64_t addr,
               bool certain, struct htab *ret);
/* What the interpreter counts for it (_Py_hashtable_size). */
uint64_t htab_bytes(const struct cpython *py, const struct htab *t);
/* fn is called once for each entry that lies in the bucket which its hash names, in the order of
 * buckets; other than 0 ends the walk and is returned. Each entry is told once, also when chains
 * run into each other or in circles. */
typedef int (*htab_fn)(void *ctx, const struct htab_entry *e);
int htab_walk(struct objects *o, const struct htab *t, htab_fn fn, void *ctx,
              struct htab_walked *ret);

/* ---- tracemalloc_find.c ---- */

struct tracing_place {
    bool initialized, tracing;
    uint64_t max_nframe;
    struct htab traces, domains, tracebacks, filenames;
    uint64_t near;         /* 3.8-3.11: where the tables' variables are */
    uint64_t traced, peak; /* as tracemalloc counts them ... */
    bool counted;          /* ... if that is known already (3.12+) */
};

/* False: tracemalloc was never started, or its settings are not to be found. A table whose `at` is
 * 0 was not found, or is no table. */
bool tracing_find(struct objects *o, struct tracing_place *ret);
/* 3.8-3.11: the two words with the sum of all traces and its peak, into p; `sum` is what the traces
 * say that were read. False if they are not there. */
bool tracing_find_sums(struct objects *o, struct tracing_place *p, uint64_t sum);

/* ---- tracemalloc.c ---- */

struct trace {
    uint64_t addr, size;
    uint32_t traceback; /* index of the snapshot's */
    uint32_t domain;
};

struct tracing {
    struct objects *o;
    struct snapshot *snap;
    struct tracing_place place;
    struct trace *items;
    size_t n, cap;
    /* Where a trace_t is, beside items, until it is read. */
    uint64_t *records;
    size_t cap_records;
    /* Blocks that the tables are made of, where blocks are looked at: buckets, entries, traces,
     * tracebacks. */
    uint64_t *nodes;
    size_t n_nodes, cap_nodes;
    uint32_t domain;           /* of the table at hand */
    struct addrset tracebacks; /* address -> index + 1, 0: it is none */
    struct addrset names;      /* address -> const char *, 0: it is none */
    struct pairmap frames;     /* (const char *, line) -> index + 1 */
    uint32_t *ids;             /* of the traceback at hand */
    size_t cap_ids;
    char *name; /* the file name at hand */
    size_t cap_name;
    uint64_t budget; /* bytes of frames and names that the target can hold: hostile ones overlap */
    uint64_t lost, unnamed;
    bool damaged, resizing;
};

/* All traces, with their tracebacks and frames put into the snapshot, and snap->tracing but for the
 * join. ERR_NOMEM, ERR_INTERRUPTED. */
int tracing_read(struct objects *o, struct snapshot *snap, struct tracing *ret,
                 struct err *err) MUST_CHECK;
void tracing_release(struct tracing *t);

/* ---- tracemalloc_frames.c ---- */

/* What stands for the name of a file that cannot be read: tracemalloc's own word. */
#define TRACING_UNKNOWN "<unknown>"
/* What lies at addr may be a traceback: its number of frames is at most max_nframe, and the first
 * and the last name a file. */
bool tracing_traceback_at(struct objects *o, uint64_t addr, uint64_t max_nframe);
/* The traceback at addr into the snapshot: *index is the number of the snapshot's + 1, left alone
 * if there is none. ERR_NOMEM. */
int tracing_traceback(struct tracing *t, uint64_t addr, uint64_t *index) MUST_CHECK;

/* ---- tracemalloc_own.c ---- */

/* t->nodes to their blocks: unowned ones become the interpreter's own, marked as such that point to
 * nothing else (BLOCK_LEAF), so that nobody takes them for objects or follows their words. */
int tracing_mark(struct tracing *t, struct blocks *b, struct err *err) MUST_CHECK;

/* ---- sites_join.c ---- */

/* snap->sites and the sums of the join, once all blocks have been judged. `blocks` is NULL where
 * nobody looked at them. With blocks->owners also blocks->sites. */
int sites_join(const struct tracing *t, struct objects *o, struct blocks *blocks,
               struct snapshot *snap, struct err *err) MUST_CHECK;

#endif
