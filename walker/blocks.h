/* Every block in use in the target's heaps, and what became known of each: pymalloc's blocks,
 * CPython's mimalloc blocks and malloc's chunks. Filled by the heaps' walkers, judged by
 * walker/cpython/objects.
 *
 * A slot is one block: 4 bytes here, 4 more with owners, plus 24 for each run and 16 for each
 * chunk. Slots of a run come in address order; those of runs first, then those of chunks, once
 * blocks_sort has run.
 */
#ifndef HEAPCENSUS_BLOCKS_H
#define HEAPCENSUS_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"

enum block_kind {
    BLOCK_FREE,     /* a slot of a run that holds no block in use */
    BLOCK_UNOWNED,  /* in use; nobody is known to own it */
    BLOCK_OBJECT,   /* a live Python object of that type */
    BLOCK_BUFFER,   /* owned by an object of that type */
    BLOCK_INFERRED, /* the same, by the conservative rule only */
    BLOCK_DEAD,     /* an object of that type that a freelist keeps */
    BLOCK_RUNTIME,  /* the interpreter's own structures */
    BLOCK_KINDS
};
const char *block_kind_name(enum block_kind kind); /* "free", "unowned", "object" ... */

enum { BLOCK_NO_TYPE = (1 << 28) - 1 };

/* Blocks of one size in a row: a pymalloc pool, a page of mimalloc. */
struct block_run {
    uint64_t addr;  /* of slot 0 */
    uint32_t first; /* index of slot 0 in `what` */
    uint32_t n;     /* slots */
    uint32_t size;  /* bytes of each */
};

/* A chunk of malloc in use: what the program sees of it. */
struct block_chunk {
    uint64_t addr;
    uint64_t size; /* usable bytes (malloc_usable_size) */
};

/* Every 16th key of a sorted array, every 16th of those, and so on: a look-up costs a few cache
 * lines instead of the 23 of a binary search in 10 million. */
enum { BLOCK_INDEX_LEVELS = 8 };
struct block_index {
    uint64_t *keys; /* all levels, the finest first */
    size_t at[BLOCK_INDEX_LEVELS + 1];
    unsigned levels;
};

struct blocks {
    struct block_run *runs; /* sorted by address once blocks_sort has run */
    size_t n_runs, cap_runs;
    struct block_chunk *chunks; /* the same */
    size_t n_chunks, cap_chunks;
    uint32_t *what; /* by slot: kind in the upper 4 bits, type index in the lower 28 */
    size_t n, cap;  /* slots, those of chunks included once sorted */
    uint32_t
        *owners;     /* by slot: index of the owner's slot + 1, 0 for none; NULL unless asked for */
    uint32_t *sites; /* by slot: index of the snapshot's site + 1, 0 for none; NULL: not joined */
    struct block_index by_run, by_chunk; /* blocks_sort's */
    /* Pools lie one in each piece of 4 or 16 KiB: run index + 1 by piece, 0 for none. NULL where
     * runs are not like that (mimalloc), or lie too far apart. */
    uint32_t *map;
    uint64_t map_base;
    unsigned map_shift;
    size_t map_n;
    uint64_t
        debug_front; /* PYTHONMALLOC=debug: bytes in front of what the program sees (16), or 0 */
};

void blocks_init(struct blocks *b);
void blocks_release(struct blocks *b);
/* Append a run; its slots are BLOCK_UNOWNED where used[i], else BLOCK_FREE. ERR_NOMEM, ERR_LIMIT
 * (more than 2^32 slots). */
int blocks_add_run(struct blocks *b, uint64_t addr, uint32_t size, uint32_t n, const uint8_t *used,
                   struct err *err) MUST_CHECK;
/* Size 0 takes the chunk at addr back that was added before (glibc_input.used). */
int blocks_add_chunk(struct blocks *b, uint64_t addr, uint64_t size, struct err *err) MUST_CHECK;
/* Once, after the last add: sorts runs and chunks, drops what overlaps, numbers the chunks' slots.
 * A chunk that holds a run (an arena in a malloc chunk) is dropped: its blocks are the runs'. */
int blocks_sort(struct blocks *b, bool owners, struct err *err) MUST_CHECK;

/* Where a slot lies. */
struct block_place {
    uint64_t addr, size; /* of the whole block, debug bytes included */
    bool chunk;
};
void blocks_place(const struct blocks *b, size_t slot, struct block_place *ret);
/* The block in use that holds addr: its slot and where it lies. False if there is none. */
struct block_hit {
    size_t slot;
    struct block_place place;
};
bool blocks_at(const struct blocks *b, uint64_t addr, struct block_hit *ret);
/* addr lies in a run whose blocks have at most `size` bytes. Cheap; false for want of a map, too.
 */
bool blocks_small_at(const struct blocks *b, uint64_t addr, uint32_t size);
/* The slot of the block in use that holds addr, or SIZE_MAX. *start: the block's address. */
size_t blocks_find(const struct blocks *b, uint64_t addr, uint64_t *start);

static inline enum block_kind block_kind(const struct blocks *b, size_t slot)
{
    return (enum block_kind)(b->what[slot] >> 28);
}

static inline uint32_t block_type(const struct blocks *b, size_t slot)
{
    return b->what[slot] & BLOCK_NO_TYPE;
}

static inline void block_set(struct blocks *b, size_t slot, enum block_kind kind, uint32_t type)
{
    b->what[slot] = (uint32_t)kind << 28 | (type & BLOCK_NO_TYPE);
}

#endif
