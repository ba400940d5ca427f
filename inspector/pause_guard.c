#include "inspector/pause_guard.h"

#include <stdlib.h>

#include "inspector/target/sys.h"

struct guard {
    struct mem mem;
    struct mem *below;
    uint64_t deadline;
    void (*late)(void *ctx);
    void *ctx;
    const volatile sig_atomic_t *interrupted;
};

static int guard_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    struct guard *g = (struct guard *)mem;
    if (*g->interrupted)
        return err_set(err, ERR_INTERRUPTED, "interrupted; the target runs on");
    if (g->late && sys_now_ns() >= g->deadline) {
        g->late(g->ctx);
        g->late = NULL;
    }
    return mem_readv(g->below, spans, n, err);
}

static int guard_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    return mem_regions(((struct guard *)mem)->below, ret, n, err);
}

static void guard_close(struct mem *mem)
{
    free(mem);
}

static const struct mem_ops guard_ops = {guard_readv, guard_regions, guard_close, NULL};

int pause_guard_new(struct mem *below, uint64_t deadline_ns, void (*late)(void *ctx), void *ctx,
                    const volatile sig_atomic_t *interrupted, struct mem **ret, struct err *err)
{
    struct guard *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(err, ERR_NOMEM, "no memory to read the process");
    *g = (struct guard){
        {.ops = &guard_ops, .traits = below->traits}, below, deadline_ns, late, ctx, interrupted};
    *ret = &g->mem;
    return 0;
}
