/* The blocks that tracemalloc's tables are made of: two or three for each trace, so millions. They
 * are sorted, and go beside the chunks, which are sorted as well, instead of being looked up. */
#include <stdlib.h>

#include "walker/cpython/own.h"
#include "walker/cpython/tracemalloc.h"

/* Chunks begin at multiples of 16, and addresses have 48 bits: what has more is nobody's. A digit's
 * places all stay in the processor's cache. */
enum { FIRST_BIT = 4, DIGIT_BITS = 11, DIGITS = 4, PLACES = 1 << DIGIT_BITS };

static unsigned digit_of(uint64_t addr, unsigned digit)
{
    return (unsigned)(addr >> (FIRST_BIT + digit * DIGIT_BITS)) % PLACES;
}

/* By one digit, stable. False: it is the same for all, and they are left where they are. */
static bool sort_digit(const uint64_t *from, uint64_t *to, size_t n, unsigned digit)
{
    size_t starts[PLACES + 1] = {0};
    for (size_t i = 0; i < n; i++)
        starts[digit_of(from[i], digit) + 1]++;
    if (starts[digit_of(from[0], digit) + 1] == n)
        return false;
    for (size_t i = 0; i < PLACES; i++)
        starts[i + 1] += starts[i];
    for (size_t i = 0; i < n; i++)
        to[starts[digit_of(from[i], digit)]++] = from[i];
    return true;
}

static int sort(struct tracing *t)
{
    uint64_t *other = malloc(t->n_nodes * sizeof *other);
    if (!other)
        return ERR_NOMEM;
    for (unsigned digit = 0; digit < DIGITS; digit++) {
        if (!sort_digit(t->nodes, other, t->n_nodes, digit))
            continue;
        uint64_t *sorted = other;
        other = t->nodes;
        t->nodes = sorted;
        t->cap_nodes = t->n_nodes;
    }
    free(other);
    return 0;
}

static void mark(struct blocks *b, size_t slot)
{
    if (block_kind(b, slot) == BLOCK_UNOWNED)
        block_set(b, slot, BLOCK_RUNTIME, BLOCK_LEAF);
}

static void mark_all(const struct tracing *t, struct blocks *b)
{
    struct blocks_span span = blocks_span(b);
    size_t chunk = 0, first = b->n - b->n_chunks;
    for (size_t i = 0; i < t->n_nodes; i++) {
        uint64_t addr = t->nodes[i];
        struct block_hit hit;
        while (chunk < b->n_chunks && b->chunks[chunk].addr + b->chunks[chunk].size <= addr)
            chunk++;
        if (chunk < b->n_chunks && b->chunks[chunk].addr <= addr) {
            struct block_place place = {b->chunks[chunk].addr, b->chunks[chunk].size, true};
            if (block_begins_at(b, &place, addr))
                mark(b, first + chunk);
        } else if (block_begins(b, &span, addr, &hit)) {
            mark(b, hit.slot);
        }
    }
}

int tracing_mark(struct tracing *t, struct blocks *b, struct err *err)
{
    if (t->n_nodes && sort(t) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the blocks of tracemalloc");
    mark_all(t, b);
    free(t->nodes);
    t->nodes = NULL;
    t->n_nodes = t->cap_nodes = 0;
    return 0;
}
