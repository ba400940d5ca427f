/* Strings that live as long as their owner: interned, never freed one by one. */
#ifndef HEAPCENSUS_STRPOOL_H
#define HEAPCENSUS_STRPOOL_H

#include <stddef.h>

#include "formats/base/err.h"

struct strpool {
    char **slots; /* open addressing */
    size_t n, cap;
    struct strpool_chunk *chunks;
};

void strpool_init(struct strpool *pool);
void strpool_release(struct strpool *pool);
/* A NUL-terminated copy of s[0..len) that lives until strpool_release; equal strings give the same
 * pointer. NULL when memory ran out. Embedded NULs end the string. */
const char *strpool_add_n(struct strpool *pool, const char *s, size_t len);
const char *strpool_add(struct strpool *pool, const char *s);

#endif
