#include "inspector/target/overlay.h"

#include <stdlib.h>

struct overlay {
    struct mem mem;
    struct mem *top, *below;
};

/* Continue a span behind what it has got, from one memory. */
static int go_on(struct mem *mem, struct mem_span *s, struct err *err)
{
    struct mem_span rest = {s->addr + s->got, (uint8_t *)s->buf + s->got, s->len - s->got, 0};
    int rc = mem_readv(mem, &rest, 1, err);
    s->got += rest.got;
    return rc;
}

/* A span may go over from one to the other and back: it ends where neither has the next byte. */
static int overlay_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    struct overlay *o = (struct overlay *)mem;
    int rc = mem_readv(o->top, spans, n, err);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct mem_span *s = &spans[i];
        for (size_t before = s->len; rc == 0 && s->got < s->len && s->got != before;) {
            before = s->got;
            rc = go_on(o->below, s, err);
            if (rc == 0 && s->got < s->len && s->got != before)
                rc = go_on(o->top, s, err);
        }
    }
    return rc;
}

static int overlay_regions(struct mem *mem, const struct mem_region **ret, size_t *n,
                           struct err *err)
{
    return mem_regions(((struct overlay *)mem)->top, ret, n, err);
}

static const uint8_t *overlay_direct(struct mem *mem, uint64_t addr, size_t *len)
{
    struct overlay *o = (struct overlay *)mem;
    *len = 0;
    return o->top->ops->direct ? o->top->ops->direct(o->top, addr, len) : NULL;
}

static void overlay_close(struct mem *mem)
{
    free(mem);
}

static const struct mem_ops with_direct = {overlay_readv, overlay_regions, overlay_close,
                                           overlay_direct};
static const struct mem_ops without = {overlay_readv, overlay_regions, overlay_close, NULL};

int overlay_new(struct mem *top, struct mem *below, struct mem **ret, struct err *err)
{
    struct overlay *o = calloc(1, sizeof *o);
    if (!o)
        return err_set(err, ERR_NOMEM, "no memory to read files");
    o->mem.ops = top->ops->direct ? &with_direct : &without;
    o->mem.traits = top->traits;
    o->top = top;
    o->below = below;
    *ret = &o->mem;
    return 0;
}
