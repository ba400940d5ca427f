/* The snapshot model: names, sums, records, strings. */
#include <string.h>

#include "formats/snapshot.h"
#include "tests/lib/tap.h"

static void test_categories(void)
{
    unsigned wrong = 0;
    for (int i = 0; i < CAT_COUNT; i++) {
        const char *name = category_name((enum category)i);
        wrong += !name || !name[0] || category_of_name(name) != i;
    }
    ok(wrong == 0, "%d categories have a name each that leads back", CAT_COUNT);
    ok(category_of_name("") == -1 && category_of_name("malloc") == -1, "no such category");
    ok(strcmp(category_name(CAT_PYTHON_BLOCKS_USED), "python.blocks.used") == 0 &&
           strcmp(category_name(CAT_UNKNOWN), "unknown") == 0,
       "the names of the contract");
}

static void test_tally(void)
{
    struct tally a, b;
    memset(&a, 0, sizeof a);
    memset(&b, 0, sizeof b);
    ok(tally_bytes(&a) == 0 && tally_resident(&a) == 0, "nothing adds up to nothing");
    for (int i = 0; i < CAT_COUNT; i++) {
        a.bytes[i] = 1;
        b.bytes[i] = 10;
        b.resident[i] = 100;
        b.count[i] = 3;
    }
    tally_add(&a, &b);
    ok(tally_bytes(&a) == 11u * CAT_COUNT && tally_resident(&a) == 100u * CAT_COUNT &&
           a.count[CAT_UNKNOWN] == 3,
       "tallies add up");
}

static void test_records(void)
{
    struct snapshot s;
    unsigned wrong = 0;
    snapshot_init(&s);
    ok(s.complete && s.redacted && !s.python.present && !s.n_arenas, "init");
    for (unsigned i = 0; i < 1000; i++) {
        struct snapshot_mapping *m = snapshot_add_mapping(&s);
        wrong += !m || m->address || m->path || m->tally.bytes[CAT_UNKNOWN];
        m->address = i;
        m->tally.bytes[CAT_UNKNOWN] = 1;
        wrong +=
            !snapshot_add_arena(&s) || !snapshot_add_malloc_arena(&s) || !snapshot_add_note(&s);
        struct snapshot_type *t = snapshot_add_type(&s);
        struct snapshot_block *b = snapshot_add_block(&s);
        wrong += !t || t->name || t->count || t->dead_bytes || !b || b->address || b->type;
        t->dead_bytes = b->address = 1;
    }
    ok(wrong == 0, "records come zeroed");
    ok(s.n_mappings == 1000 && s.n_arenas == 1000 && s.n_malloc_arenas == 1000 && s.n_notes == 1000,
       "and are counted");
    ok(s.n_types == 1000 && s.n_blocks == 1000, "types and blocks, too");
    for (unsigned i = 0; i < 1000; i++)
        wrong += s.mappings[i].address != i;
    ok(wrong == 0, "in order");
    snapshot_release(&s);
    ok(!s.mappings && !s.n_notes && !s.types && !s.n_blocks, "released");
    snapshot_release(&s);
    ok(true, "a second release does nothing");
}

static void test_strings(void)
{
    struct snapshot s;
    char text[] = "python3";
    snapshot_init(&s);
    const char *a = snapshot_str(&s, text);
    text[0] = 'x';
    ok(a && a != text && strcmp(a, "python3") == 0, "a string is copied");
    ok(snapshot_str(&s, "python3") == a, "and kept once");
    ok(snapshot_str(&s, NULL) == NULL, "NULL stays NULL");
    snapshot_release(&s);
}

int main(void)
{
    test_categories();
    test_tally();
    test_records();
    test_strings();
    return done_testing();
}
