#include "formats/base/strpool.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 64 * 1024 };

struct strpool_chunk {
    struct strpool_chunk *next;
    size_t used, cap;
    char bytes[];
};

void strpool_init(struct strpool *pool)
{
    memset(pool, 0, sizeof *pool);
}

void strpool_release(struct strpool *pool)
{
    struct strpool_chunk *c = pool->chunks;
    while (c) {
        struct strpool_chunk *next = c->next;
        free(c);
        c = next;
    }
    free(pool->slots);
    strpool_init(pool);
}

static uint64_t hash_bytes(const char *s, size_t len)
{
    uint64_t h = 1469598103934665603ull; /* FNV-1a */
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)s[i]) * 1099511628211ull;
    return h ^ (h >> 32);
}

static char *chunk_alloc(struct strpool *pool, size_t len)
{
    struct strpool_chunk *c = pool->chunks;
    if (!c || c->cap - c->used < len) {
        size_t cap = len > CHUNK_BYTES ? len : CHUNK_BYTES;
        c = malloc(sizeof *c + cap);
        if (!c)
            return NULL;
        c->used = 0;
        c->cap = cap;
        c->next = pool->chunks;
        pool->chunks = c;
    }
    char *p = c->bytes + c->used;
    c->used += len;
    return p;
}

static char **find_slot(char **slots, size_t cap, const char *s, size_t len)
{
    size_t i = hash_bytes(s, len) & (cap - 1);
    while (slots[i] && (strncmp(slots[i], s, len) != 0 || slots[i][len] != '\0'))
        i = (i + 1) & (cap - 1);
    return &slots[i];
}

static int grow(struct strpool *pool)
{
    size_t cap = pool->cap ? pool->cap * 2 : 64;
    char **slots = calloc(cap, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    for (size_t i = 0; i < pool->cap; i++)
        if (pool->slots[i])
            *find_slot(slots, cap, pool->slots[i], strlen(pool->slots[i])) = pool->slots[i];
    free(pool->slots);
    pool->slots = slots;
    pool->cap = cap;
    return 0;
}

const char *strpool_add_n(struct strpool *pool, const char *s, size_t len)
{
    len = strnlen(s, len);
    if (pool->n * 2 >= pool->cap && grow(pool) < 0)
        return NULL;
    char **slot = find_slot(pool->slots, pool->cap, s, len);
    if (*slot)
        return *slot;
    char *copy = chunk_alloc(pool, len + 1);
    if (!copy)
        return NULL;
    memcpy(copy, s, len);
    copy[len] = '\0';
    *slot = copy;
    pool->n++;
    return copy;
}

const char *strpool_add(struct strpool *pool, const char *s)
{
    return strpool_add_n(pool, s, strlen(s));
}
