/* glibc malloc's structures as data: one row per range of releases that share every offset and
 * every rule the walker depends on. docs/HOWTO-ADD-GLIBC.md says how to add one.
 *
 * A row is chosen by trial (probe.c), never by the version string: distributions backport. Each
 * probe strikes rows from a mask; the first row left is used. Fields hold offsets in bytes from the
 * start of their structure, -1 where the release has no such field.
 */
#ifndef HEAPCENSUS_GLIBC_LAYOUT_H
#define HEAPCENSUS_GLIBC_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum glibc_field {
#define FIELD(name, width, path) name,
#include "walker/glibc/fields.def"
#undef FIELD
    GLIBC_FIELDS
};

enum {
    GLIBC_BINS = 127,    /* fd/bk pairs in malloc_state, all releases */
    GLIBC_FASTBINS = 10, /* heads, where there are fastbins at all */
    GLIBC_STATE_MAX = 2200,
    GLIBC_PAR_MAX = 144,
    GLIBC_HEAP_INFO_READ = 32, /* bytes of heap_info that carry our fields, all releases */
    TCACHE_SMALL_BINS = 64,
    TCACHE_MAX_BINS = 76,
    TCACHE_MAX_BYTES = 760
};

/* What glibc calls tcache_perthread_struct. Bin i < 64 holds chunks of 32 + 16 i bytes; the others
 * hold powers of two (tcache_bin_of). */
struct glibc_tcache {
    uint8_t count_width; /* counters are at offset 0 */
    uint16_t entries;    /* offset of the list heads, which are never mangled */
    uint8_t bins;
    uint16_t size;
    uint16_t chunk_size, chunk_span; /* its chunk has chunk_size + 0 or chunk_span bytes */
    bool counts_down;                /* counters tell the slots left of mp_.tcache_count */
    bool has_key;                    /* entries carry a key behind their link */
    bool holds_mmapped;              /* mmapped chunks may be cached (2.43) */
};

struct glibc_layout {
    const char *name;         /* "2.35-2.41": the releases */
    uint8_t state_id, par_id; /* rows with equal ids share that structure */
    uint16_t state_size, par_size, heap_size;
    int16_t offset[GLIBC_FIELDS];
    struct glibc_tcache tcache;
    bool safe_linking;        /* links are mangled with their own address (2.32 and later) */
    bool heap_max_follows_hp; /* HEAP_MAX_SIZE is 4 * hp_pagesize if that is set */
    bool mmapped_mem_drifts;  /* each mremap adds 16 to mp_.mmapped_mem for good (2.43) */
    uint8_t mmap_tail;        /* an mmapped block is lead + size + this */
    uint64_t mmap_lead_mask;  /* which bits of prev_size are the lead (2.43 keeps a flag there) */
};

enum { GLIBC_LAYOUTS = 6 };
extern const struct glibc_layout glibc_layouts[GLIBC_LAYOUTS];

bool glibc_layout_has(const struct glibc_layout *l, enum glibc_field f);
/* The value of a field in a copy of its structure. Asking for an absent field is a bug. */
uint64_t glibc_layout_get(const struct glibc_layout *l, const uint8_t *bytes, enum glibc_field f);
/* The first layout of a mask of rows; NULL if the mask is empty. */
const struct glibc_layout *glibc_layout_first(unsigned rows);
/* The tcache bin for a chunk of `size` bytes, or -1. */
int tcache_bin_of(const struct glibc_tcache *t, uint64_t size);

#endif
