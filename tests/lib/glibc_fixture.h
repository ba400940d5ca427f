/* A small glibc heap in memory, at fixed addresses, in any layout: main_arena with a foreign sbrk
 * in its middle, a thread arena with two heaps, two threads with caches, fastbins, bins, two
 * mmapped chunks of which one is memaligned. `want` is what a walk has to find. */
#ifndef HEAPCENSUS_GLIBC_FIXTURE_H
#define HEAPCENSUS_GLIBC_FIXTURE_H

#include "walker/glibc/glibc.h"
#include "walker/glibc/layout.h"

enum { FIXTURE_PIECES = 7, FIXTURE_VMAS = 9, FIXTURE_BYTES = 0x160000, FIXTURE_WORDS = 4096 };

struct fixture_piece {
    uint64_t addr;
    size_t len, at; /* its bytes are fixture.bytes[at ..] */
};

struct fixture {
    const struct glibc_layout *l;
    struct fixture_piece pieces[FIXTURE_PIECES];
    struct vma vmas[FIXTURE_VMAS];
    size_t n_pieces, n_vmas;
    struct glibc_data data;
    uint64_t fs[2];
    struct snapshot_malloc want;
    /* Addresses of the words that mean something: sizes, links, heads, counters, roots. */
    uint64_t words[FIXTURE_WORDS];
    size_t n_words;
    /* A page that reads short and is not present; 0: none. */
    uint64_t absent;
    /* Claimed by somebody else before the walk; empty if equal. */
    uint64_t claimed_start, claimed_end;
    bool no_threads;
    /* Called with fail_at just before the walk and with 0 right after; may be NULL. */
    void (*before_walk)(unsigned long fail_at);
    unsigned long fail_at;
    uint64_t used_fail_at; /* the call of glibc_input.used that fails; 0: none */
    uint8_t bytes[FIXTURE_BYTES];
};

/* What a walk of a fixture gave. */
struct fixture_result {
    int rc;
    const char *layout;
    struct snapshot snap; /* release it with snapshot_release */
    uint64_t mapped, present;
    uint64_t chunks, chunk_bytes; /* as told to glibc_chunk_fn, less corrections */
    /* As told to glibc_input.used, less what was taken back: user addresses' sum, usable bytes. */
    uint64_t used, used_addrs, taken_back;
    uint64_t used_fails; /* calls that came after the failing one */
};

void fixture_build(struct fixture *f, const struct glibc_layout *l);
/* The word at a target address; NULL outside of the pieces. Not aligned: use memcpy. */
uint8_t *fixture_at(struct fixture *f, uint64_t addr);
uint64_t fixture_get(struct fixture *f, uint64_t addr);
void fixture_put(struct fixture *f, uint64_t addr, uint64_t value);
/* Walk it and settle the ledger. */
void fixture_walk(struct fixture *f, struct fixture_result *r);
/* Every mapped and every present byte is in exactly one category. */
bool fixture_sums(const struct fixture_result *r);

#endif
