#include "walker/cpython/pairmap.h"

#include <stdlib.h>
#include <string.h>

void pairmap_release(struct pairmap *m)
{
    free(m->slots);
    memset(m, 0, sizeof *m);
}

static struct pairmap_slot *slot_of(struct pairmap_slot *slots, size_t cap, uint64_t a, uint64_t b)
{
    uint64_t h = (a ^ b * 0xff51afd7ed558ccdu) * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(h ^ h >> 32) & (cap - 1);
    while (slots[i].value && (slots[i].a != a || slots[i].b != b))
        i = (i + 1) & (cap - 1);
    return &slots[i];
}

static int grow(struct pairmap *m)
{
    enum { FIRST = 256 };
    size_t cap = m->cap ? m->cap * 2 : FIRST;
    struct pairmap_slot *slots = calloc(cap, sizeof *slots);
    if (!slots)
        return -1;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].value)
            *slot_of(slots, cap, m->slots[i].a, m->slots[i].b) = m->slots[i];
    free(m->slots);
    m->slots = slots;
    m->cap = cap;
    return 0;
}

uint64_t *pairmap_at(struct pairmap *m, uint64_t a, uint64_t b)
{
    if (m->n * 2 >= m->cap && grow(m) < 0)
        return NULL;
    struct pairmap_slot *s = slot_of(m->slots, m->cap, a, b);
    if (s->value == 0) {
        s->a = a;
        s->b = b;
        m->n++;
    }
    return &s->value;
}
