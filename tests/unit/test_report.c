/* The text views: a snapshot with fixed figures against tests/golden/report_*.txt, order and number
 * of rows, hostile strings, nothing at all, and figures as large as a file can claim.
 *
 * HEAPCENSUS_GOLDEN=write writes the golden files anew; look at the difference before committing.
 * Runs from the root of the repository. */
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "formats/report.h"
#include "tests/lib/tap.h"

enum { TEXT_MAX = 1 << 17 };

/* ---- a snapshot ---- */

static void put_head(struct snapshot *s)
{
    s->taken_at = "2024-05-06T07:08:09Z";
    s->host = "host-1";
    s->source = (struct snapshot_source){.kind = "live",
                                         .pid = 4711,
                                         .comm = "python3",
                                         .paused_ns = 12345678,
                                         .consistent = true,
                                         .read_bytes = 98765432,
                                         .swap_bytes = 8192};
    s->python = (struct snapshot_python){.present = true,
                                         .version = "3.11.7",
                                         .allocator = "pymalloc",
                                         .state = "running",
                                         .interpreters = 2};
    s->libc = (struct snapshot_libc){"glibc", "2.36", "glibc"};
}

static void put_pymalloc(struct snapshot *s)
{
    static const struct snapshot_size_class some[] = {
        {.size = 32, .pools = 7, .blocks_used = 3000, .blocks_free = 567},
        {.size = 48, .pools = 2, .blocks_used = 600, .blocks_free = 80}};
    struct snapshot_pymalloc *p = &s->pymalloc;
    *p = (struct snapshot_pymalloc){.present = true, .arenas = 3, .arena_size = 1 << 20};
    p->pool_size = 16384;
    p->pools_used = 10;
    p->pools_free = 180;
    p->heaps = 2;
    for (unsigned i = 0; i < SIZE_CLASSES; i++)
        p->classes[i].size = 16 * (i + 1);
    p->classes[1] = some[0];
    p->classes[2] = some[1];
    p->classes[31] =
        (struct snapshot_size_class){.size = 512, .pools = 1, .blocks_used = 3, .blocks_free = 28};
    for (unsigned i = 0; i < SIZE_CLASSES; i++) {
        p->blocks_used += p->classes[i].blocks_used;
        p->blocks_free += p->classes[i].blocks_free;
        p->bytes_used += p->classes[i].blocks_used * p->classes[i].size;
        p->bytes_free += p->classes[i].blocks_free * p->classes[i].size;
    }
    static const uint64_t used[] = {900000, 40000, 300000};
    for (unsigned i = 0; i < 3; i++) {
        struct snapshot_arena *a = snapshot_add_arena(s);
        *a = (struct snapshot_arena){.address = 0x7f31c0000000 + i * 0x100000u, .size = 1 << 20};
        a->pools_total = 64;
        a->pools_free = 60 - 20 * i;
        a->bytes_used = used[i];
        a->blocks_used = used[i] / 40;
        a->resident_bytes = (1 << 20) - i * 4096u;
    }
}

static void put_malloc(struct snapshot *s)
{
    struct snapshot_malloc *m = &s->malloc;
    *m = (struct snapshot_malloc){.present = true, .arenas = 2, .system_bytes = 3 << 20};
    m->used_chunks = 12345;
    m->used_bytes = 2000000;
    m->cached_chunks = 70;
    m->cached_bytes = 4096;
    m->free_chunks = 12;
    m->free_bytes = 81920;
    m->top_bytes = 135168;
    m->overhead_bytes = 2248;
    m->mmapped_chunks = 3;
    m->mmapped_bytes = 5 << 20;
    m->mallinfo2 = (struct snapshot_mallinfo2){1, 2, 3, 4, 5, 6, 7, 8, 9};
    for (unsigned i = 0; i < 2; i++) {
        struct snapshot_malloc_arena *a = snapshot_add_malloc_arena(s);
        *a = (struct snapshot_malloc_arena){.address = 0x7f31d0000020 + i * 0x4000000u};
        a->main = i == 0;
        a->heaps = i;
        a->attached_threads = 1 + i;
        a->system_bytes = (2 - i) << 20;
        a->used_chunks = 12000 - 11000 * i;
        a->used_bytes = 1900000 - 1800000 * i;
        a->cached_bytes = 2048;
        a->free_bytes = 40960;
        a->top_bytes = 67584;
    }
}

static void put_mappings(struct snapshot *s)
{
    static const struct {
        const char *path, *kind, *perms;
        enum category what, also;
        uint64_t size, resident;
    } maps[] = {
        {"/usr/bin/python3.11", "file", "r-xp", CAT_FILES, CAT_FILES, 2 << 20, 1 << 20},
        {"[heap]", "heap", "rw-p", CAT_MALLOC_USED, CAT_MALLOC_TOP, 3 << 20, 3 << 20},
        {NULL, "anonymous", "rw-p", CAT_PYTHON_BLOCKS_USED, CAT_PYTHON_BLOCKS_FREE, 3 << 20,
         3 << 20},
        {"[stack]", "stack", "rw-p", CAT_STACKS, CAT_STACKS, 135168, 12288},
        {NULL, "anonymous", "---p", CAT_RESERVED, CAT_RESERVED, 4096, 0},
        {"[vdso]", "kernel", "r-xp", CAT_KERNEL, CAT_KERNEL, 8192, 0},
    };
    for (unsigned i = 0; i < sizeof maps / sizeof *maps; i++) {
        struct snapshot_mapping *m = snapshot_add_mapping(s);
        m->address = 0x555555554000 + i * 0x10000000u;
        m->size = maps[i].size;
        m->resident_bytes = maps[i].resident;
        m->path = maps[i].path;
        m->kind = maps[i].kind;
        memcpy(m->perms, maps[i].perms, 4);
        m->tally.bytes[maps[i].what] += m->size * 3 / 4;
        m->tally.bytes[maps[i].also] += m->size - m->size * 3 / 4;
        m->tally.resident[maps[i].what] += m->resident_bytes * 3 / 4;
        m->tally.resident[maps[i].also] += m->resident_bytes - m->resident_bytes * 3 / 4;
        m->tally.count[maps[i].what] = 100 * i + 1;
        tally_add(&s->memory.tally, &m->tally);
        s->memory.mapped_bytes += m->size;
        s->memory.rss_bytes += m->resident_bytes;
    }
}

static void put_notes(struct snapshot *s)
{
    struct snapshot_note *n = snapshot_add_note(s);
    *n = (struct snapshot_note){0x7f31d0001000, "malloc.damaged", "a chunk of size 3", 4096};
    n = snapshot_add_note(s);
    *n = (struct snapshot_note){0, "pymalloc.moving", "1 pool was stopped", 0};
}

static void whole(struct snapshot *s)
{
    snapshot_init(s);
    put_head(s);
    put_pymalloc(s);
    put_malloc(s);
    put_mappings(s);
    put_notes(s);
}

/* What the walkers of objects add. */
static void put_objects(struct snapshot *s)
{
    s->objects = (struct snapshot_objects){
        .present = true,
        .objects = 40000,
        .object_bytes = 1200000,
        .buffers = 9000,
        .buffer_bytes = 1500000,
        .inferred = 12,
        .inferred_bytes = 3000,
        .dead = 100,
        .dead_bytes = 7000,
        .runtime = 30,
        .runtime_bytes = 90000,
        .unowned = 2000,
        .unowned_bytes = 700000,
        .malloc_object_bytes = 100000,
        .malloc_buffer_bytes = 1000000,
        .malloc_inferred_bytes = 3000,
        .malloc_runtime_bytes = 80000,
        .malloc_unowned_bytes = 650000,
        .statics = 7900,
        .static_bytes = 1100000,
    };
    s->gc = (struct snapshot_gc){.present = true, .enabled = true, .lists = true, .generations = 3};
    for (unsigned i = 0; i < GC_GENERATIONS; i++) {
        s->gc.threshold[i] = i ? 10 : 700;
        s->gc.count[i] = 5 * i + 3;
        s->gc.tracked[i] = 1000 * i * i + 7;
    }
    s->gc.garbage = 2;
}

static void put_types(struct snapshot *s)
{
    static const struct {
        const char *name, *module;
        uint64_t count, bytes, buffers, buffer_bytes;
    } types[] = {
        {"dict", "builtins", 9000, 500000, 5000, 1000000},
        {"app.models.Session", "app.models", 12000, 400000, 0, 0},
        {"list", "builtins", 3000, 120000, 3000, 250000},
        {"app.models.Session", "app.models", 1000, 100000, 1000, 250000},
        {"app.cache.Entry", "app.cache", 7000, 30000, 0, 0},
        {"application.App", "application", 1, 49000, 0, 0},
        {"str", "builtins", 7999, 1000, 0, 0},
    };
    for (unsigned i = 0; i < sizeof types / sizeof *types; i++) {
        struct snapshot_type *t = snapshot_add_type(s);
        *t = (struct snapshot_type){.name = types[i].name, .module = types[i].module};
        t->address = 0x955e00 + i * 0x200u;
        t->count = types[i].count;
        t->bytes = types[i].bytes;
        t->buffers = types[i].buffers;
        t->buffer_bytes = types[i].buffer_bytes;
    }
    struct snapshot_type *none = snapshot_add_type(s); /* no row of a table of heaps */
    *none = (struct snapshot_type){
        .name = "NoneType", .module = "builtins", .statics = 1, .static_bytes = 16};
    s->pymalloc.classes[1].top_type = "app.models.Session";
    s->pymalloc.classes[1].top_count = 1500;
    s->pymalloc.classes[31].top_type = "dict";
    s->pymalloc.classes[31].top_count = 3;
    s->arenas[0].top_type = s->arenas[1].top_type = "app.cache.Entry";
    s->arenas[0].top_bytes = 800000;
    s->arenas[1].top_bytes = 30000;
}

static void put_blocks(struct snapshot *s)
{
    static const struct snapshot_block blocks[] = {
        {.address = 0x7f31c0000030, .size = 48, .kind = "object", .type = "dict"},
        {.address = 0x7f31c0000060, .size = 48, .kind = "object", .type = "dict"},
        {.address = 0x7f31c0004000, .size = 512, .kind = "buffer", .type = "dict"},
        {.address = 0x7f31c0008000, .size = 112, .kind = "unowned"},
        {.address = 0x7f31d0008000, .size = 1024, .kind = "object", .type = "str"},
        {.address = 0x7f31d0008800, .size = 1025, .kind = "object", .type = "str"},
        {.address = 0x7f31d0009000, .size = 513, .kind = "inferred", .type = "m.T"},
        {.address = 0x7f31d0010000, .size = 3000000, .kind = "buffer", .type = "list"},
    };
    for (unsigned i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        struct snapshot_block *b = snapshot_add_block(s);
        *b = blocks[i];
    }
}

static void typed(struct snapshot *s)
{
    whole(s);
    put_objects(s);
    put_types(s);
    put_blocks(s);
}

/* ---- rendering ---- */

static char text[TEXT_MAX];

static const struct report_options usual = {.target = "4711", .hint = true, .top = -1};

/* The view's output in `text`; the result of its write. */
static int render(const struct snapshot *s, const char *view, const struct report_options *opt)
{
    const struct report_view *v = report_text_find(view);
    struct err err = ERR_INIT;
    FILE *out = fmemopen(text, sizeof text, "w");
    if (!v || !out)
        abort();
    int rc = v->write(s, opt, out, &err);
    fclose(out);
    return rc;
}

static bool compare(const char *path)
{
    static char golden[TEXT_MAX];
    FILE *in = fopen(path, "r");
    if (!in) {
        diag("no %s", path);
        return false;
    }
    golden[fread(golden, 1, sizeof golden - 1, in)] = '\0';
    fclose(in);
    size_t i = 0, line = 1;
    for (; text[i] && text[i] == golden[i]; i++)
        line += text[i] == '\n';
    if (text[i] != golden[i])
        diag("%s differs in line %zu: '%.40s' where '%.40s' was", path, line, text + i, golden + i);
    return text[i] == golden[i];
}

static void golden(const struct snapshot *s, const char *view, const char *name,
                   const struct report_options *opt)
{
    char path[128];
    const char *mode = getenv("HEAPCENSUS_GOLDEN");
    snprintf(path, sizeof path, "tests/golden/report_%s.txt", name);
    int rc = render(s, view, opt);
    if (mode && strcmp(mode, "write") == 0) {
        FILE *out = fopen(path, "w");
        if (!out || fputs(text, out) < 0 || fclose(out) != 0)
            abort();
    }
    ok(rc == 0 && compare(path), "%s as in %s", view, path);
}

static void test_golden(void)
{
    struct snapshot s;
    struct report_options exact = usual, colour = usual;
    exact.exact = true;
    colour.colour = true;
    colour.hint = false;
    whole(&s);
    for (const struct report_view *v = report_text_views; v->name; v++)
        golden(&s, v->name, v->name, &usual);
    golden(&s, "summary", "summary_exact", &exact);
    golden(&s, "summary", "summary_colour", &colour);
    golden(&s, "maps", "maps_exact", &exact);
    snapshot_release(&s);
}

static void test_golden_types(void)
{
    static const struct {
        const char *view, *name;
        struct report_options opt;
    } views[] = {
        {"summary", "typed_summary", {.target = "4711", .hint = true, .top = -1}},
        {"summary", "typed_summary_exact", {.target = "x", .top = -1, .exact = true}},
        {"types", "typed_types", {.target = "4711", .hint = true, .top = -1}},
        {"types", "typed_types_exact", {.target = "x", .exact = true, .top = 2, .colour = true}},
        {"types", "typed_modules", {.target = "x", .top = -1, .by = "module"}},
        {"types", "typed_packages", {.target = "x", .top = 1, .by = "package"}},
        {"types", "typed_by_size", {.target = "x", .top = -1, .by = "size", .sort = "name"}},
        {"sizes", "typed_sizes", {.target = "4711", .hint = true, .top = -1}},
        {"arenas", "typed_arenas", {.target = "4711", .hint = true, .top = -1}},
    };
    struct snapshot s;
    typed(&s);
    for (size_t i = 0; i < sizeof views / sizeof *views; i++)
        golden(&s, views[i].view, views[i].name, &views[i].opt);
    snapshot_release(&s);
}

/* ---- rows ---- */

/* The needles come in this order. */
static bool in_order(const char *const *needles, size_t n)
{
    const char *at = text;
    for (size_t i = 0; i < n; i++) {
        at = strstr(at, needles[i]);
        if (!at) {
            diag("'%s' is not there or too early", needles[i]);
            return false;
        }
        at += strlen(needles[i]);
    }
    return true;
}

static void check_order(const struct snapshot *s, const char *view, const char *sort, bool reverse,
                        const char *const *needles, size_t n)
{
    struct report_options opt = usual;
    opt.sort = sort;
    opt.reverse = reverse;
    opt.exact = true;
    int rc = render(s, view, &opt);
    ok(rc == 0 && in_order(needles, n), "%s sorted by %s%s", view, sort ? sort : "itself",
       reverse ? ", reversed" : "");
}

static void test_order(void)
{
    static const char *const a[] = {"7f31c0100000", "7f31c0200000", "7f31c0000000"};
    static const char *const up[] = {"7f31c0000000", "7f31c0200000", "7f31c0100000"};
    static const char *const down[] = {"7f31c0200000", "7f31c0100000", "7f31c0000000"};
    static const char *const sizes[] = {"\n    32 ", "\n    48 ", "\n   512 "};
    static const char *const rsizes[] = {"\n   512 ", "\n    48 ", "\n    32 "};
    static const char *const maps[] = {"[heap]", "/usr/bin", "[stack]", "[vdso]"};
    static const char *const rmaps[] = {"[vdso]", "[stack]", "/usr/bin", "[heap]"};
    static const char *const amaps[] = {"[vdso]", "[stack]", "[heap]", "/usr/bin"};
    struct snapshot s;
    whole(&s);
    check_order(&s, "arenas", NULL, false, a, 3);
    check_order(&s, "arenas", "used", false, up, 3);
    check_order(&s, "arenas", "used", true, a, 3);
    check_order(&s, "arenas", "address", false, down, 3);
    check_order(&s, "sizes", NULL, false, sizes, 3);
    check_order(&s, "sizes", NULL, true, rsizes, 3);
    check_order(&s, "sizes", "size", false, rsizes, 3);
    check_order(&s, "sizes", "used", false, sizes, 3);
    check_order(&s, "sizes", "pools", true, rsizes, 3);
    check_order(&s, "maps", NULL, false, maps, 4);
    check_order(&s, "maps", NULL, true, rmaps, 4);
    check_order(&s, "maps", "address", false, amaps, 4);
    check_order(&s, "maps", "size", false, maps, 2);
    snapshot_release(&s);
}

static void test_order_types(void)
{
    static const char *const total[] = {"dict\n", "Session\n", "list\n",
                                        "App\n",  "Entry\n",   "str\n"};
    static const char *const rtotal[] = {"str\n",  "Entry\n",   "App\n",
                                         "list\n", "Session\n", "dict\n"};
    static const char *const count[] = {"Session\n", "dict\n", "str\n",
                                        "Entry\n",   "list\n", "App\n"};
    static const char *const bytes[] = {"Session\n", "dict\n",  "list\n",
                                        "App\n",     "Entry\n", "str\n"};
    static const char *const buffers[] = {"dict\n", "Session\n", "list\n", "Entry\n", "App\n"};
    static const char *const name[] = {"Entry\n", "Session\n", "App\n",
                                       "dict\n",  "list\n",    "str\n"};
    static const char *const rname[] = {"str\n", "list\n",    "dict\n",
                                        "App\n", "Session\n", "Entry\n"};
    struct snapshot s;
    typed(&s);
    check_order(&s, "types", NULL, false, total, 6);
    check_order(&s, "types", "total", true, rtotal, 6);
    check_order(&s, "types", "count", false, count, 6);
    check_order(&s, "types", "bytes", false, bytes, 6);
    check_order(&s, "types", "buffers", false, buffers, 5);
    check_order(&s, "types", "name", false, name, 6);
    check_order(&s, "types", "name", true, rname, 6);
    snapshot_release(&s);
}

static unsigned count_of(const char *needle)
{
    unsigned n = 0;
    for (const char *at = text; (at = strstr(at, needle)); at += strlen(needle))
        n++;
    return n;
}

static void test_top(void)
{
    struct snapshot s;
    struct report_options opt = usual;
    whole(&s);
    for (unsigned i = 0; i < 100; i++) {
        struct snapshot_mapping *m = snapshot_add_mapping(&s);
        *m = s.mappings[4];
    }
    opt.top = 2;
    ok(render(&s, "maps", &opt) == 0 && count_of("\n0x") == 2 && strstr(text, "104 more mappings"),
       "the first two mappings");
    opt.top = 0;
    ok(render(&s, "maps", &opt) == 0 && count_of("\n0x") == 106 && !strstr(text, " more "),
       "all mappings");
    ok(render(&s, "maps", &usual) == 0 && count_of("\n0x") == 30 && strstr(text, "76 more"),
       "as many as fit");
    opt.top = 1;
    ok(render(&s, "sizes", &opt) == 0 && strstr(text, "\n    32 ") && !strstr(text, "\n    48 ") &&
           strstr(text, "\n total "),
       "one size class, and the total");
    ok(render(&s, "arenas", &opt) == 0 && count_of("\n0x") == 1 && strstr(text, "2 more arenas"),
       "the emptiest arena");
    ok(render(&s, "malloc", &opt) == 0 && count_of("\n0x") == 1 && strstr(text, "1 more arenas"),
       "one arena of malloc");
    opt.top = 1000000;
    ok(render(&s, "maps", &opt) == 0 && count_of("\n0x") == 106, "more than there are");
    snapshot_release(&s);
}

/* ---- hostile and extreme ---- */

/* Valid UTF-8 without control characters but newlines; what a terminal can be shown. */
static bool harmless(void)
{
    const unsigned char *p = (const unsigned char *)text;
    while (*p) {
        unsigned n = *p < 0x80 ? 0 : *p >= 0xc2 && *p < 0xe0 ? 1 : (*p & 0xf0) == 0xe0 ? 2 : 3;
        if ((*p < 0x20 && *p != '\n') || *p == 0x7f || (*p >= 0x80 && *p < 0xc2) || *p > 0xf4)
            return false;
        if (*p == 0xc2 && p[1] < 0xa0) /* C1 controls */
            return false;
        for (p++; n; n--, p++)
            if ((*p & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static void test_hostile(void)
{
    static const char nasty[] =
        "a\x1b[31m\x07\r\n\x7f\xff\xc2\x9b\x9b\xe2\x82 \xc3\xa9\xc3\x9f\xe2\x82\xac";
    struct snapshot s;
    unsigned bad = 0;
    typed(&s);
    s.types[0].name = s.types[1].module = nasty;
    s.pymalloc.classes[1].top_type = s.arenas[1].top_type = nasty;
    s.source.comm = s.host = s.taken_at = nasty;
    s.python.version = s.python.allocator = s.python.state = nasty;
    s.libc.name = s.libc.version = s.libc.allocator = nasty;
    s.notes[0].what = s.notes[0].why = nasty;
    s.mappings[0].path = s.mappings[0].kind = nasty;
    memcpy(s.mappings[0].perms, "\x1b[2J", 5);
    for (const struct report_view *v = report_text_views; v->name; v++) {
        bool fine = render(&s, v->name, &usual) == 0 && harmless();
        bad += !fine;
        if (!fine)
            diag("%s lets control characters through", v->name);
    }
    ok(bad == 0, "no control character and no broken UTF-8 reaches the terminal");
    ok(render(&s, "maps", &usual) == 0 && strstr(text, "\\x1b[31m\\x07\\x0d\\x0a\\x7f\\xff") &&
           strstr(text, " \xc3\xa9\xc3\x9f\xe2\x82\xac"),
       "they are escaped, other letters are not");
    snapshot_release(&s);
}

static void test_empty(void)
{
    static const struct report_options options[] = {
        {.target = "x", .hint = true, .top = -1},
        {.target = "x", .top = 0, .exact = true},
        {.target = "x", .top = 3, .sort = "size", .reverse = true, .colour = true}};
    struct snapshot s;
    unsigned bad = 0;
    snapshot_init(&s);
    for (const struct report_view *v = report_text_views; v->name; v++)
        for (unsigned i = 0; i < 3; i++)
            bad += render(&s, v->name, &options[i]) != 0 || !text[0];
    ok(bad == 0, "an empty snapshot in every view");
    s.pymalloc.present = s.malloc.present = s.python.present = true;
    bad = 0;
    for (const struct report_view *v = report_text_views; v->name; v++)
        for (unsigned i = 0; i < 3; i++)
            bad += render(&s, v->name, &options[i]) != 0 || strstr(text, "nan") ||
                   strstr(text, "inf ");
    ok(bad == 0, "heaps without anything in them");
    bool added = snapshot_add_note(&s) && snapshot_add_mapping(&s) && snapshot_add_arena(&s) &&
                 snapshot_add_malloc_arena(&s);
    bad = 0;
    for (const struct report_view *v = report_text_views; v->name; v++)
        for (unsigned i = 0; i < 3; i++)
            bad += render(&s, v->name, &options[i]) != 0;
    ok(added && bad == 0, "records without figures and names");
    s.objects.present = s.gc.present = true;
    added = snapshot_add_type(&s) && snapshot_add_block(&s);
    for (const struct report_view *v = report_text_views; v->name; v++)
        for (unsigned i = 0; i < 3; i++)
            bad += render(&s, v->name, &options[i]) != 0 || strstr(text, "nan");
    ok(added && bad == 0, "objects without figures, types without names");
    snapshot_release(&s);
}

/* Every figure of a record as large as can be. */
static void blow_up(void *record, size_t words, uint64_t v)
{
    uint64_t *w = record;
    for (size_t i = 0; i < words; i++)
        w[i] = v;
}

static void test_huge(void)
{
    static const uint64_t values[] = {INT64_MAX, UINT64_MAX, (uint64_t)1 << 63};
    unsigned bad = 0;
    for (unsigned k = 0; k < 3; k++) {
        struct snapshot s;
        uint64_t v = values[k];
        typed(&s);
        blow_up(&s.memory, sizeof s.memory / 8, v);
        blow_up(&s.pymalloc.arenas,
                (sizeof s.pymalloc - offsetof(struct snapshot_pymalloc, arenas)) / 8, v);
        blow_up(&s.malloc.arenas, (sizeof s.malloc - offsetof(struct snapshot_malloc, arenas)) / 8,
                v);
        for (int i = 0; i < SIZE_CLASSES; i++) /* no figure, but between them */
            s.pymalloc.classes[i].top_type = "T";
        for (size_t i = 0; i < s.n_arenas; i++) {
            blow_up(&s.arenas[i], offsetof(struct snapshot_arena, heap) / 8, v);
            s.arenas[i].top_bytes = v;
        }
        for (size_t i = 0; i < s.n_types; i++)
            blow_up(&s.types[i].address,
                    (sizeof s.types[i] - offsetof(struct snapshot_type, address)) / 8, v);
        blow_up(&s.objects.objects,
                (sizeof s.objects - offsetof(struct snapshot_objects, objects)) / 8, v);
        blow_up(&s.gc.generations, (sizeof s.gc - offsetof(struct snapshot_gc, generations)) / 8,
                v);
        for (size_t i = 0; i < s.n_mappings; i++) {
            blow_up(&s.mappings[i], 5, v);
            blow_up(&s.mappings[i].tally, sizeof s.mappings[i].tally / 8, v);
        }
        for (size_t i = 0; i < s.n_malloc_arenas; i++)
            s.malloc_arenas[i].used_bytes = s.malloc_arenas[i].address = v;
        s.notes[0].address = s.notes[0].bytes = v;
        s.source.paused_ns = s.source.read_bytes = s.source.swap_bytes = v;
        for (const struct report_view *view = report_text_views; view->name; view++)
            for (int exact = 0; exact < 2; exact++) {
                struct report_options opt = usual;
                opt.exact = exact;
                bad += render(&s, view->name, &opt) != 0 || !harmless();
            }
        snapshot_release(&s);
    }
    ok(bad == 0, "figures up to 2^64 - 1 in every view");
}

static void test_numbers(void)
{
    static const struct {
        uint64_t n;
        const char *size, *count;
    } rows[] = {
        {0, "0 B", "0"},
        {999, "999 B", "999"},
        {1023, "1023 B", "1,023"},
        {1024, "1.0 KiB", "1,024"},
        {1023900, "999.9 KiB", "1,023,900"},
        {1023999, "1.0 MiB", "1,023,999"},
        {1234567890, "1.1 GiB", "1,234,567,890"},
        {INT64_MAX, "8388608.0 TiB", "9,223,372,036,854,775,807"},
        {UINT64_MAX, "16777216.0 TiB", "18,446,744,073,709,551,615"},
    };
    char a[32], b[32];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!ok(strcmp(report_size(a, sizeof a, rows[i].n, false), rows[i].size) == 0 &&
                    strcmp(report_count(b, sizeof b, rows[i].n), rows[i].count) == 0 &&
                    strcmp(report_size(b, sizeof b, rows[i].n, true), rows[i].count) == 0,
                "%s, %s", rows[i].size, rows[i].count))
            diag("is %s, %s", a, b);
    char tiny[5];
    ok(strlen(report_count(tiny, sizeof tiny, UINT64_MAX)) < sizeof tiny, "a small buffer");
}

/* A stream that fails: the view says so. */
static void test_full(void)
{
    struct snapshot s;
    unsigned bad = 0;
    whole(&s);
    for (const struct report_view *v = report_text_views; v->name; v++) {
        struct err err = ERR_INIT;
        FILE *out = fopen("/dev/full", "w");
        if (!out)
            abort();
        bad += v->write(&s, &usual, out, &err) != ERR_OS || !err.os_errno;
        fclose(out);
    }
    ok(bad == 0, "a full disk is an error in every view");
    ok(!report_text_find("nonsense") && report_text_find("maps"), "views by name");
    snapshot_release(&s);
}

int main(void)
{
    test_golden();
    test_golden_types();
    test_order();
    test_order_types();
    test_top();
    test_hostile();
    test_empty();
    test_huge();
    test_numbers();
    test_full();
    return done_testing();
}
