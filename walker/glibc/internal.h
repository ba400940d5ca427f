/* What the files of this room share. Order of a walk (glibc.c):
 *
 *   roots     main_arena and mp_ by signature; the ring of arenas
 *   missing   instead of it, where libc's own data is not in the source
 *   arenas    the heaps of the thread arenas, by their headers
 *   tcache    the threads' caches through TLS; lists: fastbins        -> marks (sorted)
 *   chunks    all headers in address order, marks merged in           -> ledger, sums
 *   lists     bins: counted and compared with the free chunks seen
 *   mmapped   main arena's extensions outside brk, then mmapped chunks
 *   tcache    caches that belong to no thread, by content: corrections
 *
 * Memory of ours: one mark per cached chunk and small tables; never one entry per chunk.
 */
#ifndef HEAPCENSUS_GLIBC_INTERNAL_H
#define HEAPCENSUS_GLIBC_INTERNAL_H

#include "formats/base/addrset.h"
#include "walker/glibc/glibc.h"
#include "walker/glibc/layout.h"

enum {
    CHUNK_PREV_INUSE = 1,
    CHUNK_IS_MMAPPED = 2,
    CHUNK_NON_MAIN = 4,
    CHUNK_FLAGS = 7,
    CHUNK_MIN = 32,
    CHUNK_HEADER = 16,
    GLIBC_PAGE = 4096
};

/* A chunk that a list names as cached. Sorted by address before the walk, which merges them in. */
enum mark_kind { MARK_TCACHE, MARK_FASTBIN, MARK_TCACHE_STRUCT };
struct mark {
    uint64_t addr; /* of the chunk's header */
    uint8_t kind;
    bool seen; /* the walk met a chunk that starts here */
};

struct sum {
    uint64_t n, bytes;
};

/* One arena: what its header says and what the walk found. Sizes are chunk sizes. */
struct arena {
    uint64_t addr, top, system_mem, attached;
    uint64_t fastbins[GLIBC_FASTBINS];
    uint32_t flags;
    bool main;
    bool lost;   /* partial: its header is missing; addr is 0 for main_arena */
    bool fits;   /* its header passed the probe without a fault */
    size_t root; /* index into walk.roots */
    struct sum used, cached, fast, free, top_sum;
    uint64_t overhead; /* headers, fenceposts, tcache structs, alignment, foreign sbrk */
    uint64_t damaged;
    uint64_t heaps;
    uint64_t free_hash; /* of the addresses of the free chunks seen, in any order */
    struct sum listed;  /* chunks in bins; bytes unused */
    uint64_t listed_hash;
    /* Sums of the same hash over the fd and the bk links of the free chunks seen: if all lists are
     * whole, each free chunk and each bin head is named once by either. */
    uint64_t fd_hash, bk_hash;
    bool links_unread; /* some free chunk's links are not in memory */
    uint64_t torn;     /* list nodes that do not point back */
    bool bins_broken, top_seen;
};

/* The heap of a thread arena: [addr, addr + size) is in use by it, rw memory may follow. */
struct heap {
    uint64_t addr, prev, size, mprotect_size;
    size_t arena;
};

/* mp_ and what follows from it; known == false: not found, zeros. */
struct par {
    bool known;
    uint64_t addr, n_mmaps, mmapped_mem, sbrk_base, hp_pagesize, tcache_count;
};

/* One glibc in the process. There are two with dlmopen, or a static program that called dlopen. */
struct root {
    uint64_t main; /* address of main_arena */
    unsigned rows; /* layouts that fit it */
    size_t data;   /* index into in->data */
    size_t n_arenas;
    uint64_t missing; /* partial: the ring leads to this arena, which is not in the source; or 0 */
    struct par par;
};

enum { MAX_ROOTS = 4, MAX_ARENAS = 1 << 16 };

struct mmapped {
    uint64_t header, block, total, size;
};

struct walk {
    const struct glibc_input *in;
    struct blockmap *map;
    struct snapshot *snap;
    struct notes *notes;
    const struct glibc_layout *l;
    unsigned rows; /* layouts not struck yet */
    uint64_t heap_max;
    struct root roots[MAX_ROOTS];
    size_t n_roots;
    struct arena *arenas;
    size_t n_arenas, cap_arenas;
    struct heap *heaps; /* by address */
    size_t n_heaps, cap_heaps;
    struct mark *marks; /* by address once marks_sort ran */
    size_t n_marks, cap_marks;
    struct addrset marked;
    uint64_t *tcaches; /* user addresses of the threads' tcache structs */
    size_t n_tcaches, cap_tcaches;
    uint64_t *orphans; /* user addresses that look like a tcache struct of no thread */
    size_t n_orphans, cap_orphans;
    struct mmapped *mmapped;
    size_t n_mmapped, cap_mmapped;
    struct mem_window seq;   /* for the walk itself: only moves forward */
    struct mem_window probe; /* small, for looking ahead: chains may jump far */
    uint64_t budget;         /* steps left for looking ahead; bounds hostile input */
    uint64_t tcache_key;     /* of a thread's entries (2.34+), 0 unknown */
    uint64_t transit;
    bool tell; /* somebody wants to hear of single chunks */
};

/* -- small reads -- */
/* prev_size and size word of the header at `chunk`; false if they are not there. */
bool chunk_header(struct walk *w, uint64_t chunk, uint64_t *prev_size, uint64_t *word);
/* The same through the look-ahead window. */
bool probe_header(struct walk *w, uint64_t chunk, uint64_t *prev_size, uint64_t *word);
/* addr lies in private anonymous rw memory. */
bool heapish_at(const struct walk *w, uint64_t addr);
/* The first address >= addr that may be readable; UINT64_MAX if none. */
uint64_t next_readable(struct walk *w, uint64_t addr);

/* -- roots.c, probe.c -- */
/* How well bytes fit malloc_state. A pair of bins is self (empty), linked (both neighbours point
 * back) or neither; bad counts impossible pairs and fields. */
struct state_fit {
    unsigned self, linked, bad;
};
struct state_fit probe_state(struct walk *w, const struct glibc_layout *l, const uint8_t *bytes,
                             uint64_t addr, bool follow);
/* Bytes are a malloc_state with at most `bad` faults: enough bins are empty or lead to chunks that
 * point back. */
bool probe_convincing(struct walk *w, const struct glibc_layout *l, const uint8_t *bytes,
                      uint64_t addr, unsigned bad);
/* The score of bytes as malloc_par, 0 = no. */
int probe_par(struct walk *w, const struct glibc_layout *l, const uint8_t *bytes, uint64_t addr,
              const struct root *root);
/* Fill w->roots and w->arenas. ERR_NOT_FOUND without an initialised main_arena. */
int roots_find(struct walk *w, struct err *err) MUST_CHECK;
/* Append the arena at addr; *ret is its index. */
int arena_add(struct walk *w, uint64_t addr, size_t root, size_t *ret, struct err *err) MUST_CHECK;

/* -- missing.c: partial sources -- */
/* Instead of roots_find: a root without an address, and an arena that stands for main_arena (the
 * first). ERR_NOT_FOUND: libc's data is there after all, or nothing looks like a heap. */
int roots_assume(struct walk *w, struct err *err) MUST_CHECK;
/* Append an arena of which only the address is known (0: main_arena). */
int arena_add_lost(struct walk *w, uint64_t addr, size_t *ret, struct err *err) MUST_CHECK;
/* Its header is missing, but a heap at `heap` says that its arena is at addr. */
bool arena_lost_at(struct walk *w, uint64_t heap, uint64_t addr);

/* -- arenas.c -- */
int heaps_find(struct walk *w, struct err *err) MUST_CHECK;
int arenas_walk(struct walk *w, struct err *err) MUST_CHECK;
/* Notes on sums that do not meet system_mem. */
void arenas_check(struct walk *w);
/* Everything of the arena that system_mem counts. */
uint64_t arena_bytes(const struct arena *a);
/* The arena whose heap holds addr; main_arena if none does. */
size_t arena_of(const struct walk *w, uint64_t addr);

/* -- account.c: fills the ledger for one region in address order -- */
struct account {
    struct blockmap *map;
    uint64_t at, end; /* accounted up to at; never beyond end */
    uint64_t lo, hi;  /* the unclaimed piece being filled */
    uint64_t easy;    /* [at, easy) is unclaimed and present: no look-ups needed */
    uint64_t foreign; /* bytes left out because they had an owner already */
    const char *what;
    struct tally tally;
    int rc;
    struct err *err;
};
void account_begin(struct account *a, struct blockmap *map, uint64_t start, uint64_t end,
                   const char *what, struct err *err);
/* [at, to) is of category cat and counts as `count` things. */
void account_span(struct account *a, uint64_t to, enum category cat, uint64_t count);
/* Keep an error of the walk for account_finish, if it is the first. */
void account_fail(struct account *a, int rc);
/* Claim what is left; the first error of all claims. */
int account_finish(struct account *a) MUST_CHECK;

/* -- chunks.c, resync.c -- */
struct region {
    uint64_t start, end; /* chunks lie in [start, end) */
    size_t arena;
    bool gaps; /* brk memory: others may have called sbrk, so that chunks go on behind fenceposts */
};
/* Walk a region's chunks into `acc` (which stands at start). Stops behind top or the last
 * fencepost; acc->at tells where. */
void chunks_walk(struct walk *w, const struct region *r, struct account *acc);
/* Bytes of the fenceposts at p, 0 if there are none; reads through the look-ahead window. */
uint64_t fence_at(struct walk *w, const struct region *r, uint64_t p);
/* The first plausible chunk in [from, r->end), or r->end. */
uint64_t resync(struct walk *w, const struct region *r, uint64_t from);
/* A chain from `start` comes to the region's top or a fencepost: *stop is its end. */
bool chain_complete(struct walk *w, const struct region *r, uint64_t start, uint64_t *stop);
/* CHAIN chunks or the end follow from `start` on. */
bool believable(struct walk *w, const struct region *r, uint64_t start);
uint64_t hash_addr(uint64_t addr);
/* Tell the callers' functions of a chunk. */
int chunk_tell(struct walk *w, uint64_t chunk, uint64_t size, enum glibc_state state);

/* -- lists.c -- */
int mark_add(struct walk *w, uint64_t chunk, enum mark_kind kind, bool *fresh,
             struct err *err) MUST_CHECK;
void marks_sort(struct walk *w);
/* Index of the first mark at or above addr. */
size_t marks_seek(const struct walk *w, uint64_t addr);
void marks_check(struct walk *w);
/* The next link of a list: `field` is its address, `value` what is stored there. */
uint64_t link_decode(const struct walk *w, uint64_t field, uint64_t value);
/* Strike layouts by what one link decodes to; `bias` is 0 if links point to headers, 16 if to user
 * memory. */
void link_probe(struct walk *w, uint64_t field, uint64_t size, uint64_t bias);
int fastbins_collect(struct walk *w, struct err *err) MUST_CHECK;
void fastbins_probe(struct walk *w);
void bins_count(struct walk *w);

/* -- tcache.c -- */
/* A copy of a tcache struct: list heads and counters, whatever their width. */
struct tcache_view {
    uint64_t addr;
    unsigned entries; /* heads that are not NULL */
    uint64_t heads[TCACHE_MAX_BINS];
    uint32_t counts[TCACHE_MAX_BINS];
};
/* Layouts of the mask whose tcache struct makes a chunk of this size. */
unsigned rows_of_size(unsigned rows, uint64_t size);
/* Find the threads' slots, strike layouts, choose w->l. */
int tcache_find(struct walk *w, struct err *err) MUST_CHECK;
int tcache_collect(struct walk *w, struct err *err) MUST_CHECK;

/* -- orphans.c -- */
/* The walk met an in-use chunk of a tcache struct's size: keep it if its content fits. */
void orphan_consider(struct walk *w, uint64_t chunk, uint64_t size);
int orphans_apply(struct walk *w, struct err *err) MUST_CHECK;
/* How many of the view's bins contradict themselves or the chunks they name; counts a bin at most
 * once. Stops at `limit`. */
unsigned tcache_faults(struct walk *w, const struct glibc_layout *l, const struct tcache_view *v,
                       unsigned limit);
bool tcache_read(struct walk *w, const struct glibc_layout *l, uint64_t addr,
                 struct tcache_view *v);

/* -- mmapped.c -- */
int extensions_walk(struct walk *w, struct err *err) MUST_CHECK;
int mmapped_walk(struct walk *w, struct err *err) MUST_CHECK;
/* What mallinfo2 calls hblkhd: the bytes of all mmapped chunks, with the 16 that 2.43 adds for each
 * mremap and never takes back, where mp_ and the walk otherwise agree. */
uint64_t mmapped_counted(const struct walk *w);

#endif
