/* A map from pairs of numbers to a number: open addressing, grows, never shrinks. */
#ifndef HEAPCENSUS_CPYTHON_PAIRMAP_H
#define HEAPCENSUS_CPYTHON_PAIRMAP_H

#include <stddef.h>
#include <stdint.h>

struct pairmap_slot {
    uint64_t a, b;
    uint64_t value; /* 0: the slot is empty */
};

struct pairmap {
    struct pairmap_slot *slots;
    size_t n, cap;
};

void pairmap_release(struct pairmap *m);
/* The value of (a, b), valid until the next call. 0 if it is new: then a value other than 0 has to
 * be put there. NULL when memory ran out. */
uint64_t *pairmap_at(struct pairmap *m, uint64_t a, uint64_t b);

#endif
