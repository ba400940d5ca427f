/* The committed tables and the choice among them. Apart from layout.c so that layoutgen, which
 * writes the tables, does not need them. */
#include "walker/cpython/layouts/tables.h"

static const struct layout *const tables[] = {
#define TABLE(name) &layout_##name,
#include "walker/cpython/layouts/tables.def"
#undef TABLE
};

static unsigned hex_micro(uint32_t hexversion)
{
    return (hexversion >> 8) & 0xff;
}

/* How far a table is from what is asked for: the micro first, the release level only as a tie. */
static unsigned table_distance(const struct layout *l, uint32_t hexversion)
{
    unsigned have = hex_micro(l->hexversion), want = hex_micro(hexversion);
    unsigned micro = have > want ? have - want : want - have;
    bool level = (hexversion & 0xff) && (hexversion & 0xff) != (l->hexversion & 0xff);
    return micro * 2 + level;
}

const struct layout *layout_find(uint32_t hexversion, bool debug, bool free_threaded, bool *exact)
{
    const struct layout *best = NULL;
    unsigned best_distance = 0;

    for (size_t i = 0; i < layout_count(); i++) {
        const struct layout *l = tables[i];
        if (l->hexversion >> 16 != hexversion >> 16 || l->debug != debug ||
            l->free_threaded != free_threaded)
            continue;
        unsigned distance = table_distance(l, hexversion);
        if (!best || distance < best_distance) {
            best = l;
            best_distance = distance;
        }
    }
    if (exact)
        *exact = best && best_distance == 0;
    return best;
}

size_t layout_count(void)
{
    return sizeof tables / sizeof *tables;
}

const struct layout *layout_at(size_t i)
{
    return i < layout_count() ? tables[i] : NULL;
}
