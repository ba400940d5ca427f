/* Which block is which object, and which buffer is whose.
 *
 *     cpython_blocks     all blocks in use of pymalloc and of CPython's mimalloc (blocks_collect.c)
 *     types_*            the types that the target has, found and proven on demand (types.c)
 *     object_recognise   a block's first words say whether it is an object         (objects.c)
 *     kind_*             what is known of the builtin kinds: size, buffers (kinds.c, owners.c)
 *     claims_*           buffers to owners                                         (own.c)
 *     objects_classify   all of these for every block, in parts                    (look.c)
 *     ..._mark, _infer   freelists; the runtime's own structures; extension types
 *     objects_report     sums by type into the snapshot                            (object_sums.c)
 *
 * Nothing is followed without proof, nothing is written to the target, and every answer is one of
 * block_kind: at most one owner, a live object beats an owned buffer, the dead own nothing. */
#ifndef HEAPCENSUS_CPYTHON_OBJECTS_H
#define HEAPCENSUS_CPYTHON_OBJECTS_H

#include "formats/base/addrset.h"
#include "formats/base/strpool.h"
#include "walker/blocks.h"
#include "walker/cpython/cpython.h"

/* What a type's instances are laid out like: the nearest of these among the type and its bases. */
enum object_kind {
    KIND_OTHER, /* tp_basicsize and tp_itemsize say all that is known */
    KIND_TYPE,
    KIND_INT,
    KIND_STR,
    KIND_BYTES,
    KIND_TUPLE,
    KIND_LIST,
    KIND_DICT,
    KIND_ODICT,
    KIND_SET, /* and frozenset */
    KIND_BYTEARRAY,
    KIND_ARRAY,
    KIND_DEQUE,
    KIND_CODE,
    KIND_FRAME,
    KIND_GENERATOR, /* coroutines and asynchronous generators too */
    KIND_FUNCTION,
    KIND_MODULE,
    KIND_NDARRAY, /* numpy.ndarray */
    KIND_COUNT
};

struct type_info {
    uint64_t addr;
    const char *name;   /* module-qualified, printable, never NULL: "app.models.Session" */
    const char *module; /* "app.models", "builtins", "" when unknown */
    uint64_t basicsize, itemsize, flags;
    uint64_t dictoffset, weaklistoffset; /* signed, as stored */
    uint32_t pre;                        /* bytes in front of an instance: GC head, managed words */
    enum object_kind kind;
    bool heap;           /* HEAPTYPE */
    bool is_type;        /* a metatype: its instances are types */
    bool unnamed;        /* the name lies in a file that is not at hand */
    bool owns;           /* instances may own what kind_buffers knows */
    uint64_t size_bytes; /* sys.getsizeof of the instances that were met, summed */
};

enum { TYPE_FILTER_BITS = 1 << 16, TYPE_BLOCK_MAX = 384 };

struct types {
    struct type_info *items;
    size_t n, cap;
    struct addrset known; /* address -> index + 1; rejected addresses -> 0 */
    /* A bit for each known type's address, by a hash: most words of a heap are none, and this is in
     * the cache where the set is not. */
    uint64_t filter[TYPE_FILTER_BITS / 64];
    struct strpool names;
    bool no_memory; /* for one type at least: its objects count as unowned */
};

enum { PEEK_PIECES = 4 };

/* What all passes share. */
struct objects {
    const struct cpython_input *in;
    const struct cpython *py;
    struct blocks *blocks;
    struct types types;
    struct statics *statics; /* statics.h; NULL before they are looked for */
    struct notes *notes;
    struct mem_window near; /* for walks in address order */
    struct mem *far;        /* for random small reads: a cache, or the target's own bytes */
    /* Of a memory that holds its bytes: pieces that objects_peek looked at last. */
    struct peek_piece {
        const uint8_t *bytes;
        uint64_t start;
        size_t len;
    } pieces[PEEK_PIECES];
    unsigned next_piece;
    const struct vma *gc_vma; /* where the last list of the collector went on; may be NULL */
    uint8_t scratch[4096];
};

/* A pointer to `len` (<= 4096) bytes at addr, valid until the next call; NULL where they are not
 * all there. Costs nothing over a backend with `direct`. */
const uint8_t *objects_peek(struct objects *o, uint64_t addr, size_t len);

/* Whoever waits has given up: the passes over millions of blocks look at it run by run. */
static inline bool objects_stopped(const struct objects *o)
{
    return o->in->interrupted && *o->in->interrupted;
}

/* ---- types.c ---- */
void types_init(struct types *t);
void types_release(struct types *t);
/* The type at addr, proven (READY, sane sizes, a metatype that is a type, a printable name), or
 * NULL. The pointer is valid until the next call. ERR_NOMEM makes it NULL as well. */
const struct type_info *types_get(struct objects *o, uint64_t addr);
/* False: no type at addr is known. */
static inline bool types_maybe(const struct types *t, uint64_t addr)
{
    uint64_t bit = (addr >> 3) * 0x9e3779b97f4a7c15u >> 48;
    return t->filter[bit / 64] >> bit % 64 & 1;
}
uint32_t types_index(const struct objects *o, const struct type_info *t);
/* The index of a type that another table has proven, added if need be; BLOCK_NO_TYPE when memory
 * ran out. */
uint32_t types_adopt(struct types *t, const struct type_info *proven);
/* Notes on what names were missing or found no memory. Once, at the end. */
void types_tell(const struct objects *o);

/* ---- objects.c ---- */
/* The object in a block: where it starts (behind debug bytes, GC head and managed words), its type;
 * false if there is none. `bytes`: the block's first min(size, 64) bytes or more. dead: the count
 * is 0 or a freelist's link: the block is kept by a freelist. */
struct object_at {
    uint64_t addr;
    uint32_t type; /* index */
    bool dead, immortal;
    int64_t refcount;
};
bool object_recognise(struct objects *o, uint64_t block, uint64_t size, const uint8_t *bytes,
                      size_t len, struct object_at *ret);
/* fn is called for each block of the range that is an object, in the order of addresses. Ends early
 * when interrupted. */
struct block_range {
    size_t run, run_end; /* indices of runs and of chunks */
    size_t chunk, chunk_end;
};
typedef void (*object_fn)(void *ctx, size_t slot, const struct block_place *place,
                          const struct object_at *at);
void objects_each(struct objects *o, const struct block_range *range, object_fn fn, void *ctx);

/* ---- look.c ---- */
/* One pass over all blocks: OBJECT, DEAD, BUFFER or left UNOWNED; `size_bytes` of each type. In
 * parts on several threads where the memory allows it. ERR_NOMEM, ERR_INTERRUPTED. */
int objects_classify(struct objects *o, struct err *err) MUST_CHECK;

/* ---- kinds.c, owners.c ---- */
/* The kind by the names of the type and its bases (static builtins; array, deque, OrderedDict and
 * ndarray by module and name). */
enum object_kind kind_of_type(struct objects *o, uint64_t type_addr, uint64_t flags);
/* sys.getsizeof(object) without the GC head: what the object's own __sizeof__ says, with buffers
 * that it counts in. 0 when it cannot be told. */
uint64_t kind_sizeof(struct objects *o, const struct type_info *t, uint64_t obj);
/* Each buffer that the object owns: emit(ctx, address, size or 0 if unknown). */
typedef void (*buffer_fn)(void *ctx, uint64_t addr, uint64_t size);
void kind_buffers(struct objects *o, const struct type_info *t, uint64_t obj, buffer_fn emit,
                  void *ctx);

/* ---- freelists.c, runtime_owned.c, extension.c: what is still unowned ---- */
void freelists_mark(struct objects *o);
/* The interpreter's own blocks, and what these and its data point to. ERR_NOMEM. */
int runtime_mark(struct objects *o, struct err *err) MUST_CHECK;
void extension_infer(struct objects *o);

/* ---- gcinfo.c ---- */
void gc_read(const struct cpython_input *in, const struct cpython *py, struct snapshot *snap,
             struct notes *notes);

/* ---- blocks_collect.c ---- */
int cpython_blocks(const struct cpython_input *in, const struct cpython *py, struct blocks *b,
                   struct err *err) MUST_CHECK;

/* ---- object_sums.c ---- */
int objects_report(struct objects *o, struct snapshot *snap, struct err *err) MUST_CHECK;

/* All of it, after cpython_walk and the malloc walk. `b` holds malloc's chunks already. */
int cpython_objects(const struct cpython_input *in, const struct cpython *py, struct blocks *b,
                    struct snapshot *snap, struct notes *notes, struct err *err) MUST_CHECK;

#endif
