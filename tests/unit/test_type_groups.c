/* Types put together and in order: by name, module, package and size, for the text views and for
 * JSON; which types hold the sparse arenas; memory that runs out. */
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/report.h"
#include "formats/type_groups.h"
#include "tests/lib/tap.h"

void *__libc_realloc(void *old, size_t size);
void *__interceptor_realloc(void *old, size_t size) __attribute__((weak));
void *__libc_malloc(size_t size);
void *__interceptor_malloc(size_t size) __attribute__((weak));

static unsigned long fail_at, calls; /* the fail_at-th allocation fails; 0: none */

void *realloc(void *old, size_t size)
{
    if (fail_at && ++calls == fail_at)
        return NULL;
    return __interceptor_realloc ? __interceptor_realloc(old, size) : __libc_realloc(old, size);
}

void *malloc(size_t size)
{
    if (fail_at && ++calls == fail_at)
        return NULL;
    return __interceptor_malloc ? __interceptor_malloc(size) : __libc_malloc(size);
}

/* ---- a snapshot ---- */

static void add(struct snapshot *s, const char *name, const char *module, uint64_t count,
                uint64_t bytes, uint64_t buffer_bytes)
{
    struct snapshot_type *t = snapshot_add_type(s);
    *t = (struct snapshot_type){.name = name, .module = module, .address = 0x1000 * s->n_types};
    t->count = count;
    t->bytes = t->size_bytes = bytes;
    t->buffer_bytes = buffer_bytes;
    t->buffers = buffer_bytes != 0;
    t->inferred = t->dead = 1;
    t->inferred_bytes = 10;
    t->dead_bytes = 20;
    t->statics = 2;
    t->static_bytes = 30;
}

static void sample(struct snapshot *s)
{
    snapshot_init(s);
    s->objects.present = true;
    add(s, "dict", "builtins", 5, 500, 1000);
    add(s, "a.b.T", "a.b", 10, 700, 0);
    add(s, "a.c.T", "a.c", 1, 100, 0);
    add(s, "ab.T", "ab", 2, 300, 0);
    add(s, "a.b.T", "a.b", 20, 300, 50);
    add(s, "a.T10", "a", 7, 90, 0);
    add(s, "a.T9", "a", 7, 90, 0);
    add(s, "odd", "", 1, 1, 0);
}

static uint64_t sum(const struct snapshot_type *t, size_t n)
{
    uint64_t all = 0;
    for (size_t i = 0; i < n; i++)
        all += t[i].count + t[i].bytes + t[i].size_bytes + t[i].buffers + t[i].buffer_bytes +
               t[i].inferred + t[i].inferred_bytes + t[i].dead + t[i].dead_bytes + t[i].statics +
               t[i].static_bytes;
    return all;
}

/* ---- groups ---- */

/* The rows are those, in that order, and nothing is lost. */
static void check_rows(const struct snapshot *s, const char *by, const char *sort, bool reverse,
                       const char *const *names, size_t n)
{
    struct type_groups g;
    if (!ok(type_groups_make(&g, s, by, NULL) == 0, "by %s", by ? by : "nothing"))
        return;
    type_groups_sort(&g, sort, reverse);
    bool same = g.n == n;
    for (size_t i = 0; i < g.n && i < n; i++) {
        same = same && strcmp(g.rows[i].name, names[i]) == 0;
        if (!same)
            diag("row %zu is %s", i, g.rows[i].name);
    }
    ok(same, "%zu rows by %s in order of %s", n, by ? by : "nothing", sort ? sort : "total");
    ok(sum(g.rows, g.n) == sum(s->types, s->n_types), "with the same sums");
    type_groups_release(&g);
}

static void test_groups(void)
{
    static const char *const none[] = {"dict",  "a.b.T", "a.b.T", "ab.T",
                                       "a.c.T", "a.T9",  "a.T10", "odd"};
    static const char *const type[] = {"dict", "a.b.T", "ab.T", "a.c.T", "a.T9", "a.T10", "odd"};
    static const char *const name[] = {"a.T9", "a.T10", "a.b.T", "a.c.T", "ab.T", "dict", "odd"};
    static const char *const rname[] = {"odd", "dict", "ab.T", "a.c.T", "a.b.T", "a.T10", "a.T9"};
    static const char *const module[] = {"builtins", "a.b", "ab", "a", "a.c", "(no module)"};
    static const char *const package[] = {"builtins", "a", "ab", "(no module)"};
    static const char *const count[] = {"a", "builtins", "ab", "(no module)"};
    struct snapshot s;
    sample(&s);
    check_rows(&s, NULL, NULL, false, none, 8);
    check_rows(&s, "type", NULL, false, type, 7);
    check_rows(&s, "type", "name", false, name, 7);
    check_rows(&s, "type", "name", true, rname, 7);
    check_rows(&s, "module", NULL, false, module, 6);
    check_rows(&s, "package", "total", false, package, 4);
    check_rows(&s, "package", "count", false, count, 4);
    snapshot_release(&s);
}

static void test_members(void)
{
    struct snapshot s;
    struct type_groups g;
    sample(&s);
    if (!ok(type_groups_make(&g, &s, "type", NULL) == 0, "groups"))
        return;
    type_groups_sort(&g, "count", false);
    const struct snapshot_type *t = &g.rows[0];
    ok(strcmp(t->name, "a.b.T") == 0 && strcmp(t->module, "a.b") == 0 && t->address == 0 &&
           t->count == 30 && t->bytes == 1000 && t->buffer_bytes == 50 && t->buffers == 1 &&
           t->inferred_bytes == 20 && t->dead == 2,
       "two types of one name are one row without an address");
    ok(g.rows[g.n - 1].address != 0, "a type alone keeps its address");
    type_groups_release(&g);
    struct err err = ERR_INIT;
    ok(type_groups_make(&g, &s, "colour", &err) == ERR_USAGE && strstr(err.text, "colour") &&
           strstr(err.remedy, "package"),
       "no such grouping");
    ok(type_groups_can("size") && type_groups_can("type") && !type_groups_can("sizes"),
       "the groupings by name");
    ok(type_groups_make(&g, &s, "size", &err) == ERR_USAGE && strstr(err.remedy, "--blocks"),
       "no grouping by size without blocks");
    snapshot_release(&s);
}

/* ---- by size ---- */

static void add_block(struct snapshot *s, uint64_t size, const char *kind)
{
    struct snapshot_block *b = snapshot_add_block(s);
    *b = (struct snapshot_block){.address = 0x1000, .size = size, .kind = kind};
}

static void test_sizes(void)
{
    static const struct {
        uint64_t size;
        const char *name;
    } rows[] = {
        {0, "0 bytes"},          {40, "40 bytes"},          {48, "48 bytes"},
        {505, "512 bytes"},      {513, "to 1 KiB"},         {1024, "to 1 KiB"},
        {1025, "to 2 KiB"},      {1 << 20, "to 1 MiB"},     {((uint64_t)1 << 40) + 1, "to 2 TiB"},
        {INT64_MAX, "to 8 EiB"}, {UINT64_MAX, "to 16 EiB"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct snapshot s;
        struct type_groups g;
        snapshot_init(&s);
        add_block(&s, rows[i].size, "object");
        add_block(&s, rows[i].size, "unowned");
        bool made = type_groups_make(&g, &s, "size", NULL) == 0;
        ok(made && g.n == 1 && strcmp(g.rows[0].name, rows[i].name) == 0 && g.rows[0].count == 1 &&
               g.rows[0].bytes == rows[i].size,
           "a block of %llu bytes is in \"%s\"", (unsigned long long)rows[i].size, rows[i].name);
        if (made)
            type_groups_release(&g);
        snapshot_release(&s);
    }
}

static void test_kinds(void)
{
    static const char *const kinds[] = {"object", "buffer", "inferred", "dead", "runtime", "free"};
    struct snapshot s;
    struct type_groups g;
    snapshot_init(&s);
    for (unsigned i = 0; i < 6; i++)
        for (unsigned k = 0; k <= i; k++)
            add_block(&s, 64, kinds[i]);
    add_block(&s, 64, NULL);
    add_block(&s, 128, "runtime");
    if (ok(type_groups_make(&g, &s, "size", NULL) == 0 && g.n == 1, "one size has types")) {
        const struct snapshot_type *t = g.rows;
        ok(t->count == 1 && t->bytes == 64 && t->buffers == 2 && t->buffer_bytes == 128 &&
               t->inferred == 3 && t->inferred_bytes == 192 && t->dead == 4 && t->dead_bytes == 256,
           "each kind has its column");
        type_groups_release(&g);
    }
    snapshot_release(&s);
}

/* ---- sparse arenas ---- */

static void test_sparse(void)
{
    static const struct snapshot_arena arenas[] = {
        {.size = 1000, .bytes_used = 100, .top_type = "A", .top_bytes = 60},
        {.size = 1000, .bytes_used = 200, .top_type = "B", .top_bytes = 90},
        {.size = 1000, .bytes_used = 900, .top_type = "B", .top_bytes = 900},
        {.size = 1000, .bytes_used = 200, .top_type = "A", .top_bytes = 50},
        {.size = 1000, .bytes_used = 10},
        {.size = 0, .bytes_used = 0, .top_type = "C", .top_bytes = 5},
    };
    struct snapshot s;
    struct type_groups g;
    snapshot_init(&s);
    for (unsigned i = 0; i < 6; i++) {
        struct snapshot_arena *a = snapshot_add_arena(&s);
        *a = arenas[i];
    }
    if (ok(type_groups_sparse(&g, &s, NULL) == 0 && g.n == 2, "two types hold sparse arenas")) {
        ok(strcmp(g.rows[0].name, "A") == 0 && g.rows[0].count == 2 && g.rows[0].bytes == 110 &&
               strcmp(g.rows[1].name, "B") == 0 && g.rows[1].count == 1 && g.rows[1].bytes == 90,
           "the one with the most bytes first");
        type_groups_release(&g);
    }
    snapshot_release(&s);
}

/* ---- JSON ---- */

static void test_arrange(void)
{
    static const struct {
        struct report_options opt;
        size_t n;
        const char *first, *second;
    } rows[] = {
        {{.top = -1}, 8, "dict", "a.b.T"},
        {{.top = 0}, 8, "dict", "a.b.T"},
        {{.top = -1, .sort = "count"}, 8, "a.b.T", "a.b.T"},
        {{.top = 2, .by = "package"}, 2, "builtins", "a"},
        {{.top = -1, .by = "type", .sort = "name", .reverse = true}, 7, "odd", "dict"},
        {{.top = 3, .by = "module", .sort = "bytes"}, 3, "a.b", "builtins"},
        {{.top = 100, .reverse = true}, 8, "odd", "a.T10"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct snapshot s;
        struct sink_memory m;
        sample(&s);
        sink_memory_init(&m);
        int rc = report_arrange(&s, "types", &rows[i].opt, NULL);
        ok(rc == 0 && s.n_types == rows[i].n && strcmp(s.types[0].name, rows[i].first) == 0 &&
               strcmp(s.types[1].name, rows[i].second) == 0 &&
               json_write_view(&s, "types", &m.sink, NULL) == 0,
           "arranged for JSON: %zu rows from %s", rows[i].n, rows[i].first);
        sink_memory_release(&m);
        snapshot_release(&s);
    }
    struct snapshot s;
    struct report_options nonsense = {.top = -1, .by = "nonsense"};
    sample(&s);
    ok(report_arrange(&s, "types", &nonsense, NULL) == ERR_USAGE && s.n_types == 8,
       "nonsense changes nothing");
    snapshot_release(&s);
}

/* The i-th allocation fails, for i = 1, 2, ... until none does: an error, no leak. */
static void test_memory(const char *by)
{
    unsigned wrong = 0;
    unsigned long i = 0;
    for (bool clean = false; !clean && i < 100;) {
        struct snapshot s;
        struct report_options opt = {.top = -1, .by = by};
        struct err err = ERR_INIT;
        sample(&s);
        add_block(&s, 64, "object");
        calls = 0;
        fail_at = ++i;
        int rc = report_arrange(&s, "types", &opt, &err);
        fail_at = 0;
        clean = calls < i;
        wrong += clean ? rc != 0 : rc != ERR_NOMEM || err.code != rc;
        snapshot_release(&s);
    }
    ok(wrong == 0 && i > 1 && i < 100, "by %s: each of %lu allocations failed once", by, i - 1);
}

static int swallow(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    (void)sink, (void)bytes, (void)len, (void)err;
    return 0;
}

static void test_view_memory(void)
{
    struct snapshot s;
    struct sink nowhere = {swallow};
    struct err err = ERR_INIT;
    snapshot_init(&s);
    struct snapshot_arena *a = snapshot_add_arena(&s);
    *a = (struct snapshot_arena){.size = 100, .bytes_used = 1, .top_type = "T", .top_bytes = 1};
    calls = 0;
    fail_at = 1;
    int rc = json_write_view(&s, "arenas", &nowhere, &err);
    fail_at = 0;
    ok(calls == 1 && rc == ERR_NOMEM && err.code == rc, "arenas as JSON without memory");
    ok(json_write_view(&s, "arenas", &nowhere, NULL) == 0, "and with memory");
    snapshot_release(&s);
}

int main(void)
{
    test_groups();
    test_members();
    test_sizes();
    test_kinds();
    test_sparse();
    test_arrange();
    test_memory("type");
    test_memory("package");
    test_memory("size");
    test_view_memory();
    return done_testing();
}
