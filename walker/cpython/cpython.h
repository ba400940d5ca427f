/* CPython 3.8 to 3.15 in a target's memory: the runtime, its interpreters and its pymalloc heaps.
 */
#ifndef HEAPCENSUS_CPYTHON_H
#define HEAPCENSUS_CPYTHON_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/snapshot.h"
#include "walker/blockmap.h"
#include "walker/cpython/layout.h"
#include "walker/mem.h"
#include "walker/note.h"
#include "walker/vma.h"

struct cpython_range {
    uint64_t start, end;
};

enum { CPYTHON_RANGES = 8 };

/* A mapped ELF file that may hold an interpreter, with what its symbol tables say. Addresses are
 * run time addresses, 0 where there is no such symbol. */
struct cpython_module {
    const char *path;
    struct cpython_range data[CPYTHON_RANGES]; /* writable segments, .bss included */
    size_t n_data;
    uint64_t runtime, runtime_size; /* _PyRuntime, by symbol or by the section .PyRuntime (3.11+) */
    const char *runtime_by;         /* ".dynsym", ".symtab", ".PyRuntime"; NULL when not found */
    uint64_t py_version;            /* the VALUE of Py_Version (3.11+), 0 when unknown */
    uint64_t type_type;             /* &PyType_Type */
    uint32_t hexversion;            /* what the file on disk says, 0 unknown: for a target whose own
                                       data is missing */
    bool has_ref_total;             /* defines _Py_RefTotal: a debug build */
    bool is_pypy;                   /* defines PyPy's symbols */
    uint64_t usedpools, arenas, maxarenas; /* 3.8-3.11 with .symtab only */
    uint64_t obmalloc_state_main;          /* 3.13+ with .symtab only */
    uint64_t tracemalloc_config;           /* _Py_tracemalloc_config, exported by 3.8-3.11 */
    const struct layout *dwarf;            /* layout from this file's own DWARF, or NULL */
};

struct cpython_input {
    struct mem *mem;
    const struct vma_list *vmas;
    const struct residency *res;
    const struct cpython_module *modules;
    size_t n_modules;
    const struct cpython_range *data; /* writable segments of all modules, .bss included */
    size_t n_data;
    bool partial; /* the source lacks bytes that the process had: bytes that cannot be read speak
                     neither for a layout nor against it */
    const volatile sig_atomic_t *interrupted; /* turns nonzero: give up; may be NULL */
    size_t part_slots; /* blocks that one worker takes on; 0: as many as pay. For tests */
};

/* One pymalloc state: the main interpreter's, or that of an own-GIL subinterpreter (3.12+). */
struct cpython_heap {
    uint64_t usedpools;
    uint64_t arenas;                  /* array of struct arena_object; 0: not found */
    uint64_t maxarenas;               /* entries of it */
    uint64_t arenas_at, maxarenas_at; /* where those two variables lie; 0: not known */
    bool empty;                       /* no size class has a pool */
};

struct cpython {
    const struct cpython_module *module; /* NULL when only a memory scan found the runtime */
    uint64_t runtime;                    /* address of _PyRuntime, 0 if not found (3.8-3.10) */
    const char *found_by;
    uint32_t hexversion;
    char version[32];
    bool debug, free_threaded, trace_refs;
    struct layout layout; /* a copy, with what the target's own debug offsets say put in */
    bool layout_exact;    /* made from this very patch release */
    bool layout_differs;  /* the target's debug offsets (3.13+) contradict the table */
    char layout_source[160];
    const struct layout_traits *traits;
    const char *state; /* "running", "starting", "finalizing"; "unknown": its data is missing */
    bool unread;       /* partial: the interpreter's own data could not be read */
    size_t sampled_pools, marked_pools; /* of those counted by headers: with debug hooks' marks */
    uint64_t *interpreters;
    size_t n_interpreters, cap_interpreters;
    struct cpython_heap *heaps;
    size_t n_heaps, cap_heaps;
    size_t lost_heaps; /* interpreters that point to a state that is none */
    /* What cpython_walk counted, for cpython_blocks: pools in use, sorted, or mimalloc's segments.
     */
    uint64_t *pools;
    size_t n_pools, cap_pools;
    struct cpython_range *segments;
    size_t n_segments, cap_segments;
};

/* Find the interpreter, its version, flavour and layout, and prove the layout on the target.
 * ERR_NOT_FOUND: no CPython here (the text says what was looked at). ERR_UNSUPPORTED: PyPy, a
 * version without a layout, or a fact that the layout predicts does not hold (the text names it).
 */
int cpython_find(const struct cpython_input *in, struct cpython *ret, struct notes *notes,
                 struct err *err) MUST_CHECK;

enum cpython_guess {
    CPYTHON_NONE,        /* nothing says that this is a Python (or it is PyPy) */
    CPYTHON_UNVERSIONED, /* a Python, but not which */
    CPYTHON_GUESSED
};
/* After cpython_find failed on a partial source: take version, flavour and layout from what the
 * files say and how they are called, with no heap known, so that cpython_walk counts pools by their
 * headers. `why` is cpython_find's reason, for the note that goes with any guess. py is to be
 * released whatever comes. */
enum cpython_guess cpython_guess(const struct cpython_input *in, struct cpython *py,
                                 struct notes *notes, const char *why);
/* Read again what can change from one moment to the next: where the arrays of arenas are. For a
 * quick look at a target that was found before and is stopped now. */
void cpython_refresh(const struct cpython_input *in, struct cpython *py);
void cpython_release(struct cpython *py);

/* Walk the pymalloc heaps: claim each arena, fill snap->pymalloc and snap->arenas. Then claim what
 * else CPython maps by itself: Python frame stacks (3.11+), mimalloc segments (3.13+). */
int cpython_walk(const struct cpython_input *in, struct cpython *py, struct blockmap *map,
                 struct snapshot *snap, struct notes *notes, struct err *err) MUST_CHECK;

struct cpython_arena {
    uint64_t start, end;
    /* Pools of which a census needs only the first page of each (traits->pool_size apart), so that
     * whoever copies the target can leave the rest out; empty where it needs them whole. */
    uint64_t pools_start, pools_end;
};
/* All arenas, sorted and disjoint; *ret is the caller's to free. */
int cpython_arena_list(const struct cpython_input *in, const struct cpython *py,
                       struct cpython_arena **ret, size_t *n, struct err *err) MUST_CHECK;

/* "pymalloc", "pymalloc_debug", "malloc", "malloc_debug", "mimalloc", "mimalloc_debug"; "unknown"
 * where a partial source has neither pools nor settings. After cpython_walk: what the heap holds
 * counts more than what a setting says. */
const char *cpython_allocator(const struct cpython_input *in, const struct cpython *py,
                              const struct snapshot *snap);
/* The debug hooks (PYTHONMALLOC=debug, debug builds) are on: blocks start with 16 bytes of theirs.
 * After cpython_walk. */
bool cpython_debug_hooks(const struct cpython_input *in, const struct cpython *py);
/* tracemalloc is tracing. */
bool cpython_tracing(const struct cpython_input *in, const struct cpython *py);
/* Memory that reading tracemalloc's tables needs and that whoever copies the target might leave
 * out: the buckets of large ones and, with `names`, the texts of file names. Sorted by start; may
 * overlap. None where it does not trace. *ret is the caller's to free. */
int cpython_tracing_ranges(const struct cpython_input *in, const struct cpython *py, bool names,
                           struct cpython_range **ret, size_t *n, struct err *err) MUST_CHECK;
/* Who allocated it: snap->tracing, sites, tracebacks and frames, where nobody looks at blocks
 * (cpython_objects does it otherwise). */
int cpython_sites(const struct cpython_input *in, const struct cpython *py, struct snapshot *snap,
                  struct notes *notes, struct err *err) MUST_CHECK;

/* ---- inside the room ---- */

/* roots.c */
bool cpython_executable_at(const struct vma_list *vmas, uint64_t addr);
/* version.c: "3.N.M..." from Py_GetVersion's buffer in the module's data; false if it is not there.
 */
bool cpython_version_string(const struct cpython_input *in, const struct cpython_module *m,
                            char *buf, size_t cap, uint32_t *hexversion);
void cpython_version_format(uint32_t hexversion, char *buf, size_t cap);
/* guess.c: minor and flavour from a path that has "python3.N" or "libpython3.N" at the start of a
 * component ("/usr/lib/libpython3.13t.so.1.0"); false if it has none. */
bool cpython_path_version(const char *path, unsigned *minor, bool *free_threaded, bool *debug);
/* roots.c: bytes of the interpreter that a census needs are missing. */
bool cpython_unread(const struct cpython_input *in, const struct cpython *py);
/* probe.c */
int cpython_probe(const struct cpython_input *in, struct cpython *py, struct err *err) MUST_CHECK;
/* interp.c: interpreters and their heaps. */
int cpython_interpreters(const struct cpython_input *in, struct cpython *py, struct notes *notes,
                         struct err *err) MUST_CHECK;

struct pool_header {
    uint64_t count, freeblock, nextpool, prevpool, arenaindex, szidx, nextoffset, maxnextoffset;
};
enum { POOL_HEADER_BYTES = 48, POOL_CLASSES = 32, POOL_MAX_BLOCKS = (16384 - 48) / 16 };

struct arena_object {
    uint64_t address, pool_address, nfreepools, ntotalpools, freepools;
};
enum { ARENA_OBJECT_BYTES = 48 };

/* obmalloc_find.c: the usedpools signature (64 pointers of known shape) and the arenas array. */
void pool_header_load(const struct layout *l, const uint8_t *p, struct pool_header *ret);
void arena_object_load(const struct layout *l, const uint8_t *p, struct arena_object *ret);
/* The table at addr is a usedpools table; at most `tolerate` of its 32 classes may be caught in the
 * middle of a change. *empty: no class has a pool. */
bool usedpools_at(const struct cpython_input *in, const struct cpython *py, uint64_t addr,
                  int tolerate, bool *empty);
/* The usedpools table in a module's data; 0 if there is none. Non-empty tables win. */
uint64_t usedpools_scan(const struct cpython_input *in, const struct cpython *py, bool *empty);
/* arenas and maxarenas of a 3.8-3.11 build, whose places are not known; false if not found. */
bool arenas_scan(const struct cpython_input *in, const struct cpython *py,
                 struct cpython_heap *heap);
bool arena_plausible(const struct cpython *py, const struct arena_object *a);
/* A header that only a pool of this build has; count 0 is accepted with `free_too`. */
bool pool_plausible(const struct cpython *py, uint64_t pool, const struct pool_header *h,
                    bool free_too);

/* As pool_plausible with a count, and all that a pool in use must be besides: a free list as long
 * as the header says, or neighbours in its ring that point back. What cannot be read counts for it.
 * For a search through memory of which nothing is known. */
bool pool_certain(const struct cpython_input *in, const struct cpython *py, uint64_t pool,
                  const struct pool_header *h);
/* allocator.c: the first block's first 16 bytes carry the debug hooks' header. */
bool debug_block(const uint8_t *p);

/* pools.c: the pool's present pages into buf, zeros for the others; returns the bytes read. */
size_t pool_read(const struct cpython_input *in, uint64_t pool, uint8_t *buf, uint64_t pool_size);
/* One flag for each block that the pool ever handed out: not on its free list. Returns their
 * number; a link that leads nowhere ends the list. The header must be plausible. */
uint64_t pool_used_map(const uint8_t *bytes, uint64_t pool, uint64_t pool_size,
                       const struct pool_header *h, uint8_t used[POOL_MAX_BLOCKS]);
/* pools.c: split one pool, or count a run of free ones. */
struct pool_sum {
    uint64_t used, free;                   /* blocks */
    uint64_t used_bytes, free_bytes;       /* blocks x size */
    uint64_t used_resident, free_resident; /* present bytes of them */
    bool freelist_bad;                     /* the free list and the count disagree by more than 1 */
    bool freelist_off;                     /* they disagree by 1: stopped inside malloc or free */
};
void pool_split(const struct cpython_input *in, const struct cpython *py, uint64_t pool,
                const struct pool_header *h, struct pool_sum *ret);

/* framestack.c, mimalloc.c */
int framestack_claim(const struct cpython_input *in, const struct cpython *py, struct blockmap *map,
                     struct notes *notes, struct err *err) MUST_CHECK;
int mimalloc_claim(const struct cpython_input *in, struct cpython *py, struct blockmap *map,
                   struct snapshot *snap, struct notes *notes, struct err *err) MUST_CHECK;
struct blocks;
/* A run for each page in use of py's segments. */
int mimalloc_blocks(const struct cpython_input *in, const struct cpython *py, struct blocks *b,
                    struct err *err) MUST_CHECK;

#endif
