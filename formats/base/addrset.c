#include "formats/base/addrset.h"

#include <stdlib.h>
#include <string.h>

void addrset_init(struct addrset *set)
{
    memset(set, 0, sizeof *set);
}

void addrset_release(struct addrset *set)
{
    free(set->slots);
    addrset_init(set);
}

static struct addrset_slot *slot_of(struct addrset_slot *slots, size_t cap, uint64_t key)
{
    size_t i = (size_t)((key >> 3) * 0x9e3779b97f4a7c15ull >> 20) & (cap - 1);
    while (slots[i].key && slots[i].key != key)
        i = (i + 1) & (cap - 1);
    return &slots[i];
}

static int grow(struct addrset *set)
{
    size_t cap = set->cap ? set->cap * 2 : 64;
    struct addrset_slot *slots = calloc(cap, sizeof *slots);
    if (!slots)
        return ERR_NOMEM;
    for (size_t i = 0; i < set->cap; i++)
        if (set->slots[i].key)
            *slot_of(slots, cap, set->slots[i].key) = set->slots[i];
    free(set->slots);
    set->slots = slots;
    set->cap = cap;
    return 0;
}

int addrset_add(struct addrset *set, uint64_t key, uint64_t value, bool *fresh)
{
    if (set->n * 2 >= set->cap && grow(set) < 0)
        return ERR_NOMEM;
    struct addrset_slot *s = slot_of(set->slots, set->cap, key);
    if (fresh)
        *fresh = s->key == 0;
    if (s->key == 0) {
        s->key = key;
        s->value = value;
        set->n++;
    }
    return 0;
}

uint64_t *addrset_find(const struct addrset *set, uint64_t key)
{
    if (!set->cap || !key)
        return NULL;
    struct addrset_slot *s = slot_of(set->slots, set->cap, key);
    return s->key ? &s->value : NULL;
}
