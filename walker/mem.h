/* A target's memory: one interface, several backends (live process, local copy, image, core).
 *
 * A hole is a short span, not an error: readv fails only when reading as such is impossible (the
 * target is gone, no permission). Addresses are the target's; nothing here is a C pointer into it.
 */
#ifndef HEAPCENSUS_MEM_H
#define HEAPCENSUS_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"

enum mem_trait {
    MEM_FROZEN = 1, /* bytes cannot change between two reads */
    MEM_SPARSE = 2  /* mapped bytes may be missing */
};

struct mem_span {
    uint64_t addr;
    void *buf;
    size_t len;
    size_t got; /* out: bytes read from addr on; < len where a hole begins */
};

struct mem_region {
    uint64_t start, end;
};

struct mem;

struct mem_ops {
    int (*readv)(struct mem *mem, struct mem_span *spans, size_t n, struct err *err);
    /* The readable ranges, sorted and disjoint; owned by the backend, valid until close. */
    int (*regions)(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err);
    void (*close)(struct mem *mem);
    /* Optional, for backends that hold the bytes: a pointer to the bytes at addr and how many
     * follow contiguously (0 bytes and NULL in a hole). Saves the copy of a gigabyte. */
    const uint8_t *(*direct)(struct mem *mem, uint64_t addr, size_t *len);
};

/* Embedded as the first member of every backend. */
struct mem {
    const struct mem_ops *ops;
    unsigned traits; /* enum mem_trait */
    uint64_t reads;  /* calls that went to the backend, but for those past `direct` */
    uint64_t bytes;  /* that they brought */
};

int mem_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err) MUST_CHECK;
int mem_regions(struct mem *mem, const struct mem_region **ret, size_t *n,
                struct err *err) MUST_CHECK;
void mem_close(struct mem *mem); /* NULL is fine */

/* All `len` bytes or ERR_FAULT with the first missing address. */
int mem_read(struct mem *mem, uint64_t addr, void *buf, size_t len, struct err *err) MUST_CHECK;
/* As many bytes as there are from addr on; 0 in a hole or on any failure. */
size_t mem_read_some(struct mem *mem, uint64_t addr, void *buf, size_t len);
int mem_u64(struct mem *mem, uint64_t addr, uint64_t *ret, struct err *err) MUST_CHECK;
int mem_u32(struct mem *mem, uint64_t addr, uint32_t *ret, struct err *err) MUST_CHECK;
/* A NUL-terminated string of at most cap - 1 bytes; ERR_CORRUPT when no NUL comes within cap. */
int mem_cstr(struct mem *mem, uint64_t addr, char *buf, size_t cap, struct err *err) MUST_CHECK;

/* A sliding window for walks in address order: hands out pointers into the backend's own bytes
 * where it holds them (direct), else reads `cap` bytes at a time into its buffer. */
struct mem_window {
    struct mem *mem;
    uint8_t *buf;
    size_t cap;
    const uint8_t *bytes; /* the current window */
    uint64_t start;
    size_t len;
};

enum { MEM_WINDOW_BYTES = 512 * 1024 };

int mem_window_init(struct mem_window *w, struct mem *mem, size_t cap, struct err *err) MUST_CHECK;
void mem_window_release(struct mem_window *w);
/* A pointer to `need` (<= cap) bytes at addr, valid until the next call; NULL if not all are there.
 */
const uint8_t *mem_window_at(struct mem_window *w, uint64_t addr, size_t need);

/* The in-memory backend: fixtures, fuzzers, and pieces of a file. Bytes are borrowed. */
struct mem_image_piece {
    uint64_t addr;
    const void *bytes;
    size_t len;
};
/* Pieces must be sorted and disjoint (ERR_USAGE otherwise); the array is copied. */
int mem_image_new(const struct mem_image_piece *pieces, size_t n, struct mem **ret,
                  struct err *err) MUST_CHECK;

/* A page cache over a slow backend for random small reads (headers, list links). Does not own
 * `below`. Only for a target that stands still: a cached page is never read again. */
int mem_cache_new(struct mem *below, size_t pages, struct mem **ret, struct err *err) MUST_CHECK;

#endif
