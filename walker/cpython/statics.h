/* Objects that lie in no heap: static types, None, small ints, strings and code that the build
 * froze into .data, and what modules declare besides. Found by their headers in the writable memory
 * of modules, proven by what each kind must be, counted apart from what the heaps hold. */
#ifndef HEAPCENSUS_CPYTHON_STATICS_H
#define HEAPCENSUS_CPYTHON_STATICS_H

#include "walker/cpython/objects.h"

struct static_object {
    uint64_t addr;
    uint64_t bytes; /* that it takes where it lies, from addr on */
    uint64_t size;  /* what sys.getsizeof says: with a collector's head and what is counted in */
    uint32_t type;  /* index */
};

struct statics {
    struct static_object *items; /* by address; disjoint */
    size_t n, cap;
};

/* After all blocks have been judged, since their types help. Types that only static objects have
 * become known. ERR_NOMEM, ERR_INTERRUPTED. */
int statics_find(struct objects *o, struct err *err) MUST_CHECK;
void statics_release(struct objects *o);
/* Into the sums: `types` by index. */
void statics_count(const struct objects *o, struct snapshot_type *types, struct snapshot *snap);
/* A row each among the rows of blocks, which are sorted by address already. ERR_NOMEM. */
int statics_rows(const struct objects *o, struct snapshot *snap) MUST_CHECK;

/* static_proof.c: is there an object where something looks like a header? */
struct static_candidate {
    uint64_t addr;
    uint32_t type;
    bool fixed; /* the count is one that only a static or immortal object has */
};
/* The header's words at p: a count that a static object may have? */
bool static_count(const struct objects *o, const uint8_t *header, bool *fixed);
/* In a program that is not position independent addresses are as small as counts: a row of pointers
 * to types is not a row of objects. */
bool static_count_is_pointer(struct objects *o, uint64_t addr);
/* The objects that are known by name: those of `builtins` that are no types. */
enum { STATIC_NAMED = 5 };
struct static_named {
    uint64_t addr[STATIC_NAMED]; /* 0: not known */
};
void static_named(struct objects *o, struct static_named *ret);
/* `end`: of the memory that it lies in. *bytes: that the object takes. */
bool static_prove(struct objects *o, const struct static_named *named,
                  const struct static_candidate *c, uint64_t end, uint64_t *bytes);

#endif
