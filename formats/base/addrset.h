/* A set of 64-bit addresses with a small value each: open addressing, grows, never shrinks.
 * Serves as the seen-set of list walks and as the set of cached chunks. Key 0 is not allowed. */
#ifndef HEAPCENSUS_ADDRSET_H
#define HEAPCENSUS_ADDRSET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"

struct addrset_slot {
    uint64_t key;
    uint64_t value;
};

struct addrset {
    struct addrset_slot *slots;
    size_t n, cap;
};

void addrset_init(struct addrset *set);
void addrset_release(struct addrset *set);
/* Insert key if absent. *fresh (may be NULL) says whether it was absent. ERR_NOMEM on failure. */
int addrset_add(struct addrset *set, uint64_t key, uint64_t value, bool *fresh) MUST_CHECK;
/* The slot's value, to read or change, or NULL. Valid until the next addrset_add. */
uint64_t *addrset_find(const struct addrset *set, uint64_t key);

#endif
