/* The snapshot model: what a census found, as plain structs. No I/O here; json.h reads and writes
 * it.
 *
 * Sizes are bytes, durations nanoseconds, addresses the target's. Every `const char *` lives in the
 * snapshot's own string pool (snapshot_str) or is a literal; nothing is freed one by one.
 */
#ifndef HEAPCENSUS_SNAPSHOT_H
#define HEAPCENSUS_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/base/strpool.h"

/* Every mapped byte belongs to exactly one of these. category_name() gives the contract's names. */
enum category {
    CAT_PYTHON_BLOCKS_USED,     /* pymalloc blocks handed out, by size class */
    CAT_PYTHON_BLOCKS_FREE,     /* free blocks of used pools, free and never carved pools */
    CAT_PYTHON_ARENAS_OVERHEAD, /* pool headers, rests of pools, unaligned arena edges */
    CAT_PYTHON_MIMALLOC,        /* segments of CPython's own mimalloc (3.13+) */
    CAT_MALLOC_USED,            /* chunks in use in arenas, with their headers */
    CAT_MALLOC_CACHED,          /* chunks in tcache and fastbins: free, but look in use */
    CAT_MALLOC_FREE,            /* chunks in bins, or free and on no list yet */
    CAT_MALLOC_TOP,             /* the top chunk of each arena */
    CAT_MALLOC_OVERHEAD,        /* arena and heap headers, fenceposts, tcache structs, gaps */
    CAT_MALLOC_MMAPPED,         /* chunks with a mapping of their own */
    CAT_MALLOC_FOREIGN,         /* memory of an allocator that is not glibc's */
    CAT_STACKS,                 /* the stacks of threads, and Python's frame stacks */
    CAT_FILES,                  /* mapped files: code, constants, shared memory */
    CAT_DATA,                   /* writable data of executables and libraries, with .bss */
    CAT_KERNEL,                 /* vdso, vvar, vsyscall */
    CAT_RESERVED,               /* mapped without access: guard pages, reserves */
    CAT_UNKNOWN,
    CAT_COUNT
};

const char *category_name(enum category cat);
/* The category of a name, or -1. */
int category_of_name(const char *name);

/* Bytes, resident bytes and number of things by category. */
struct tally {
    uint64_t bytes[CAT_COUNT];
    uint64_t resident[CAT_COUNT];
    uint64_t count[CAT_COUNT];
};

void tally_add(struct tally *into, const struct tally *more);
uint64_t tally_bytes(const struct tally *t);
uint64_t tally_resident(const struct tally *t);

/* What a core tells beyond the memory in it. */
struct snapshot_dump {
    bool present;           /* the source is a core */
    const char *writer;     /* "kernel", "gdb", "heapcensus" */
    const char *packed;     /* "zstd" ... when the file was compressed, else NULL */
    const char *command;    /* the command line as far as the core has it; may be NULL */
    const char *started_at; /* when the process began; NULL when not told */
    const char *time_from;  /* what taken_at is: "core", "systemd", "file" */
    const char *signal;     /* "SIGSEGV"; NULL when not told */
    const char *reason;     /* what its code means; NULL when not told */
    uint64_t fault_address; /* 0: none */
    uint64_t sender_pid;    /* who sent the signal; 0: nobody, or not told */
    uint64_t dumped_bytes;  /* that the core should hold ... */
    uint64_t missing_bytes; /* ... and of them those that the file does not have */
    /* "rss": resident bytes are the kernel's Rss, kept in the core; "data": they are what the core
     * holds other than zeros; "dumped": what it holds, zeros included. */
    const char *resident;
};

struct snapshot_source {
    const char *kind; /* "live" (read while stopped or running), "copy", "frozen", "core" */
    int64_t pid;      /* 0 when unknown */
    const char *comm; /* may be NULL, as all below */
    const char *core;
    const char *exe;
    const char *exe_build_id;
    uint64_t paused_ns; /* how long the target was stopped by us; 0 with --no-pause */
    bool consistent;    /* every byte was read at one moment of the target's time */
    uint64_t read_bytes;
    uint64_t swap_bytes; /* counted, not read */
    uint64_t threads;
    struct snapshot_dump dump;
};

struct snapshot_python {
    bool present;
    const char *version; /* "3.11.7", "3.15.0rc1" */
    uint32_t hexversion; /* PY_VERSION_HEX; low byte 0 when only the micro is known */
    bool debug, free_threaded, trace_refs;
    const char *allocator; /* "pymalloc", "pymalloc_debug", "malloc", "malloc_debug", "mimalloc",
                              "mimalloc_debug", "unknown" */
    const char *layout_name, *layout_source;
    const char *state; /* "running", "starting", "finalizing" */
    bool tracemalloc;
    uint64_t interpreters;
    const char *found_by; /* how the runtime was found, for doctor */
};

struct snapshot_libc {
    const char *name;      /* "glibc", "musl", "unknown" */
    const char *version;   /* "2.36" or NULL */
    const char *allocator; /* "glibc", "jemalloc", "tcmalloc", "mimalloc", "musl", "unknown" */
};

struct snapshot_memory {
    uint64_t rss_bytes, mapped_bytes;
    struct tally tally;
};

struct snapshot_size_class {
    uint64_t size, pools, blocks_used, blocks_free;
    const char *top_type; /* the type of most blocks in use (objects and their buffers), or NULL */
    uint64_t top_count;   /* blocks of it */
};

enum { SIZE_CLASSES = 32 };

struct snapshot_pymalloc {
    bool present;
    uint64_t arenas, arena_size, pool_size;
    uint64_t pools_used, pools_free, blocks_used, blocks_free, bytes_used, bytes_free;
    uint64_t heaps; /* obmalloc states walked: 1, plus one for each own-GIL subinterpreter */
    struct snapshot_size_class classes[SIZE_CLASSES]; /* all 32; size 16, 32, ... 512 */
};

struct snapshot_arena {
    uint64_t address, size, pools_total, pools_free, blocks_used, bytes_used, resident_bytes;
    uint32_t heap;        /* which obmalloc state, from 0 */
    const char *top_type; /* as in a size class; by bytes */
    uint64_t top_bytes;
};

struct snapshot_mallinfo2 {
    uint64_t arena, ordblks, smblks, hblks, hblkhd, fsmblks, uordblks, fordblks, keepcost;
};

struct snapshot_malloc {
    bool present;
    uint64_t arenas, system_bytes;
    uint64_t used_chunks, used_bytes, cached_chunks, cached_bytes, free_chunks, free_bytes;
    uint64_t top_bytes, overhead_bytes, mmapped_chunks, mmapped_bytes;
    uint64_t damaged_bytes;  /* could not be parsed; counted as unknown */
    uint64_t transit_chunks; /* free but on no list: a call was interrupted */
    struct snapshot_mallinfo2 mallinfo2;
};

struct snapshot_malloc_arena {
    uint64_t address, top;
    bool main;
    uint64_t heaps, attached_threads, system_bytes;
    uint64_t used_chunks, used_bytes, cached_chunks, cached_bytes, free_chunks, free_bytes;
    uint64_t top_bytes, overhead_bytes, damaged_bytes;
};

struct snapshot_mapping {
    uint64_t address, size, resident_bytes, swap_bytes, offset;
    char perms[5];    /* "rw-p" */
    const char *path; /* as in /proc/PID/maps; may be NULL */
    const char *kind; /* "anonymous", "heap", "stack", "file", "shared", "kernel" */
    struct tally tally;
};

/* One type, by its address: two types may have one name. */
struct snapshot_type {
    const char *name, *module; /* "app.models.Session", "app.models"; never NULL */
    uint64_t address;
    uint64_t count;      /* live objects in the heap */
    uint64_t bytes;      /* the blocks that hold them */
    uint64_t size_bytes; /* sys.getsizeof summed: the objects with what stands in front of them (GC
                            head) and with the buffers that their __sizeof__ counts in */
    uint64_t buffers, buffer_bytes;    /* blocks that they own */
    uint64_t inferred, inferred_bytes; /* ... and those that only seem to be theirs */
    uint64_t dead, dead_bytes;         /* kept by freelists */
    uint64_t statics, static_bytes;    /* outside of all heaps; bytes as sys.getsizeof has them */
};

/* What the blocks in use are, all together. */
struct snapshot_objects {
    bool present;
    uint64_t objects, object_bytes;    /* live objects */
    uint64_t buffers, buffer_bytes;    /* owned by one */
    uint64_t inferred, inferred_bytes; /* probably owned by one */
    uint64_t dead, dead_bytes;         /* freelists */
    uint64_t runtime, runtime_bytes;   /* the interpreter's own */
    uint64_t unowned, unowned_bytes;   /* nobody's, as far as is known */
    /* Of these, the part that lies in malloc's chunks. */
    uint64_t malloc_object_bytes, malloc_buffer_bytes, malloc_inferred_bytes, malloc_dead_bytes,
        malloc_runtime_bytes, malloc_unowned_bytes;
    uint64_t statics, static_bytes; /* objects in the data of modules: no blocks */
};

enum { GC_GENERATIONS = 3 };

/* The cyclic garbage collector of the main interpreter. */
struct snapshot_gc {
    bool present;
    bool enabled, collecting;
    bool lists; /* they were followed to their ends: tracked and frozen are right, not a part */
    uint64_t generations; /* that this release has */
    uint64_t threshold[GC_GENERATIONS], count[GC_GENERATIONS];
    uint64_t tracked[GC_GENERATIONS]; /* objects on its list */
    uint64_t frozen;                  /* on the list of gc.freeze() */
    uint64_t garbage;                 /* len(gc.garbage) */
};

/* One block in use, with --blocks; of the kind "static" an object in the data of a module. */
struct snapshot_block {
    uint64_t address, size, owner; /* owner: address of the owning block, 0 for none */
    const char *kind, *type;       /* block_kind's name; type NULL where there is none */
    uint32_t site;                 /* index of its site + 1; 0: nobody knows who allocated it */
};

/* ---- who allocated: the tables of tracemalloc, or of the recorder ---- */

struct snapshot_tracing {
    bool present;          /* there are tables, even empty ones */
    const char *source;    /* "tracemalloc", "recorder" */
    bool tracing;          /* it was recording at that moment */
    uint64_t frames_limit; /* frames kept of each traceback */
    /* As the tables' owner counts them: tracemalloc.get_traced_memory(), get_tracemalloc_memory().
     */
    uint64_t traced_bytes, peak_bytes, overhead_bytes;
    uint64_t traces, trace_bytes; /* what was read: records, and the bytes that they say */
    uint64_t tracebacks;
    /* Joined with the blocks in use, by their address. Bytes are the blocks'. */
    uint64_t covered_blocks, covered_bytes;   /* have a trace */
    uint64_t untraced_blocks, untraced_bytes; /* have none */
    uint64_t gone_traces, gone_bytes;         /* traces that no block in use begins at */
    uint64_t lost;                            /* records that could not be read */
};

struct snapshot_frame {
    const char *file;     /* never NULL */
    const char *function; /* NULL: not recorded (tracemalloc does not) */
    uint32_t line;        /* 0: not known */
};

/* Most recent call first, as tracemalloc keeps it in memory. */
struct snapshot_traceback {
    size_t first;   /* of its n entries in frame_ids */
    uint32_t n;     /* frames kept */
    uint32_t total; /* frames that there were; 0: not recorded (3.8) */
};

/* How many traces have exactly this size: statistics need the sum, an export each trace. */
struct snapshot_size_count {
    uint64_t size, count;
};

/* All traces of one traceback, domain and type. */
struct snapshot_site {
    uint32_t traceback; /* index */
    uint32_t domain;    /* 0: Python's */
    const char
        *type; /* of the object, or of the buffer's owner; NULL: unowned, gone, not looked at */
    const char *kind;   /* block_kind's name, or "gone": no block in use begins there; NULL: blocks
                           were not looked at */
    const char *source; /* as in snapshot_tracing */
    uint64_t count, bytes; /* traces; the bytes that were asked for */
    size_t first_size;     /* of its n_sizes entries in size_counts; they sum to count and bytes */
    uint32_t n_sizes;      /* 0: not kept */
};

struct snapshot_note {
    uint64_t address; /* 0: none */
    const char *what; /* stable keyword, such as "malloc.damaged" */
    const char *why;  /* a sentence for people */
    uint64_t bytes;
};

struct snapshot {
    struct strpool strings;

    const char *tool_version, *taken_at, *host;
    bool complete; /* nothing was missing or contradictory: exit 0 rather than 6 */
    bool redacted; /* no contents of strings and bytes are in the file */
    struct snapshot_source source;
    struct snapshot_python python;
    struct snapshot_libc libc;
    struct snapshot_memory memory;
    struct snapshot_pymalloc pymalloc;
    struct snapshot_malloc malloc;

    struct snapshot_arena *arenas;
    size_t n_arenas, cap_arenas;
    size_t hidden_arenas; /* at the end of the list: a view leaves them out, sums count them */
    struct snapshot_malloc_arena *malloc_arenas;
    size_t n_malloc_arenas, cap_malloc_arenas;
    struct snapshot_mapping *mappings;
    size_t n_mappings, cap_mappings;
    struct snapshot_note *notes;
    size_t n_notes, cap_notes;
    struct snapshot_objects objects;
    struct snapshot_gc gc;
    struct snapshot_type *types; /* by bytes and buffer_bytes together, falling */
    size_t n_types, cap_types;
    struct snapshot_block *blocks; /* empty unless asked for; by address */
    size_t n_blocks, cap_blocks;
    struct snapshot_tracing tracing;
    struct snapshot_frame *frames;
    size_t n_frames, cap_frames;
    uint32_t *frame_ids; /* indices of frames: the tracebacks' own lists, one behind the other */
    size_t n_frame_ids, cap_frame_ids;
    struct snapshot_traceback *tracebacks;
    size_t n_tracebacks, cap_tracebacks;
    struct snapshot_size_count *size_counts;
    size_t n_size_counts, cap_size_counts;
    struct snapshot_site *sites; /* by bytes, falling */
    size_t n_sites, cap_sites;
};

void snapshot_init(struct snapshot *snap);
void snapshot_release(struct snapshot *snap);
/* A copy of s in the snapshot's pool (s may be NULL); NULL for NULL or when memory ran out. */
const char *snapshot_str(struct snapshot *snap, const char *s);
/* Append a zeroed record; NULL when memory ran out. The pointer is valid until the next append. */
struct snapshot_arena *snapshot_add_arena(struct snapshot *snap);
struct snapshot_malloc_arena *snapshot_add_malloc_arena(struct snapshot *snap);
struct snapshot_mapping *snapshot_add_mapping(struct snapshot *snap);
struct snapshot_note *snapshot_add_note(struct snapshot *snap);
struct snapshot_type *snapshot_add_type(struct snapshot *snap);
struct snapshot_block *snapshot_add_block(struct snapshot *snap);
struct snapshot_frame *snapshot_add_frame(struct snapshot *snap);
/* A traceback with these frames; likewise. */
struct snapshot_traceback *snapshot_add_traceback(struct snapshot *snap, const uint32_t *frames,
                                                  uint32_t n, uint32_t total);
struct snapshot_site *snapshot_add_site(struct snapshot *snap);
/* One more of the last site's sizes; false when memory ran out. */
bool snapshot_add_size_count(struct snapshot *snap, uint64_t size, uint64_t count);

#endif
