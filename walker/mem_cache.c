/* A direct-mapped page cache over a slow backend. */
#include <stdlib.h>
#include <string.h>

#include "walker/mem.h"

enum { PAGE = 4096 };

struct cache_page {
    uint64_t tag; /* page address + 1, so that 0 means empty */
    size_t got;
    uint8_t bytes[PAGE];
};

struct cache {
    struct mem mem;
    struct mem *below;
    struct cache_page *pages;
    size_t n; /* power of two */
};

static int load_page(struct cache *c, uint64_t page, struct cache_page **ret, struct err *err)
{
    struct cache_page *p = &c->pages[(page / PAGE) & (c->n - 1)];
    if (p->tag != page + 1) {
        struct mem_span span = {page, p->bytes, PAGE, 0};
        p->tag = 0;
        int rc = mem_readv(c->below, &span, 1, err);
        if (rc < 0)
            return rc;
        p->got = span.got;
        p->tag = page + 1;
    }
    *ret = p;
    return 0;
}

static int cached_read(struct cache *c, struct mem_span *s, struct err *err)
{
    s->got = 0;
    while (s->got < s->len) {
        uint64_t at = s->addr + s->got;
        size_t off = (size_t)(at % PAGE);
        struct cache_page *p;
        int rc = load_page(c, at - off, &p, err);
        if (rc < 0)
            return rc;
        if (p->got <= off)
            return 0;
        size_t take = p->got - off;
        if (take > s->len - s->got)
            take = s->len - s->got;
        memcpy((uint8_t *)s->buf + s->got, p->bytes + off, take);
        s->got += take;
        if (p->got < PAGE && off + take == p->got)
            return 0;
    }
    return 0;
}

static int cache_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    struct cache *c = (struct cache *)mem;
    for (size_t i = 0; i < n; i++) {
        int rc = spans[i].len > 4 * PAGE ? mem_readv(c->below, &spans[i], 1, err)
                                         : cached_read(c, &spans[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int cache_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    return mem_regions(((struct cache *)mem)->below, ret, n, err);
}

static void cache_close(struct mem *mem)
{
    struct cache *c = (struct cache *)mem;
    free(c->pages);
    free(c);
}

static const struct mem_ops cache_ops = {cache_readv, cache_regions, cache_close, NULL};

int mem_cache_new(struct mem *below, size_t pages, struct mem **ret, struct err *err)
{
    struct cache *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(err, ERR_NOMEM, "no memory for a page cache");
    c->n = 1;
    while (c->n < pages)
        c->n *= 2;
    c->pages = calloc(c->n, sizeof *c->pages);
    if (!c->pages) {
        free(c);
        return err_set(err, ERR_NOMEM, "no memory for a page cache of %zu pages", pages);
    }
    c->mem.ops = &cache_ops;
    c->mem.traits = below->traits;
    c->below = below;
    *ret = &c->mem;
    return 0;
}
