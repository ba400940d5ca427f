/* The glibc malloc heap (2.28 to 2.43) of a target, without symbols. */
#ifndef HEAPCENSUS_GLIBC_H
#define HEAPCENSUS_GLIBC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/snapshot.h"
#include "walker/blockmap.h"
#include "walker/mem.h"
#include "walker/note.h"
#include "walker/vma.h"

/* A writable range of a module: private file-backed .data with the anonymous .bss behind it. */
struct glibc_data {
    uint64_t start, end;
    bool is_libc; /* named libc.so.6 or libc-2.NN.so: looked at first */
};

enum glibc_state {
    GLIBC_USED,   /* in use */
    GLIBC_CACHED, /* in a tcache or fastbin */
    GLIBC_FREE,   /* in a bin, or in transit */
    GLIBC_TOP,
    GLIBC_MMAPPED, /* in use, with a mapping of its own */
    GLIBC_INTERNAL /* tcache structs */
};

/* Called for each chunk in address order within a heap: address of the chunk header, size with the
 * header. A second call for the same address corrects the first (orphaned tcaches are only known at
 * the end). May be NULL. */
typedef void (*glibc_chunk_fn)(void *ctx, uint64_t chunk, uint64_t size, enum glibc_state state);

struct glibc_input {
    struct mem *mem;
    const struct vma_list *vmas;
    const struct residency *res;
    const struct glibc_data *data; /* libc's first */
    size_t n_data;
    const uint64_t *fs_bases; /* one per stopped thread; empty when the target was not stopped */
    size_t n_threads;
    uint64_t curbrk; /* value of libc's __curbrk if known, else 0 */
    /* The source lacks bytes that the process had. If main_arena is among them, the heaps that
     * describe themselves and brk memory are walked by their chunks alone (note malloc.partial). */
    bool partial;
    bool libc_lost;           /* libc's own file and data are among what a partial source lacks */
    const char *version_hint; /* "2.36" of libc's file, or NULL; only asked for with `partial` and
                                 where the heap's own shape leaves a choice */
    glibc_chunk_fn chunk;
    void *chunk_ctx;
    /* Called for each chunk in use: address and usable size of its user memory, as malloc and
     * malloc_usable_size tell them; in no order. With usable 0: the chunk that was told before at
     * this address is not in use after all (it belongs to an orphaned cache, which is only known at
     * the end). What remains is malloc.used_chunks + malloc.mmapped_chunks of the snapshot, less
     * mmapped chunks in a tcache (2.43). Negative ends the walk with that error. May be NULL. */
    int (*used)(void *ctx, uint64_t addr, uint64_t usable);
    void *used_ctx;
    const char **layout_name; /* out, may be NULL: the layout used, a literal such as "2.35-2.41" */
};

/* Walk everything. Claims heaps and mmapped chunks in `map` (ranges already claimed there, such as
 * pymalloc's arenas, are left alone and not scanned), fills snap->malloc and snap->malloc_arenas,
 * notes what is damaged. ERR_NOT_FOUND: no initialised main_arena (another allocator, or malloc was
 * never called); snap->malloc.present stays false. With `partial` only if libc's data was read, or
 * if no heap could be recognised either. */
int glibc_walk(const struct glibc_input *in, struct blockmap *map, struct snapshot *snap,
               struct notes *notes, struct err *err) MUST_CHECK;

/* Chunks from this size on are worth leaving out of a copy. Smaller ones may hold what is followed:
 * nodes of pymalloc's radix tree are 128 to 256 KiB. */
enum { GLIBC_SPARE_MIN = 1 << 20 };
/* [start, end) of which a census needs nothing; in address order. Negative ends the search. */
typedef int (*glibc_spare_fn)(void *ctx, uint64_t start, uint64_t end);
/* The mmapped chunks that lie one behind the other from `start` (page aligned, nobody else's memory
 * up to `end`) on, and what of them glibc_walk does not look at. Returns fn's error or 0. */
int glibc_spare(struct mem *mem, const struct vma_list *vmas, uint64_t start, uint64_t end,
                glibc_spare_fn fn, void *ctx) MUST_CHECK;

#endif
