/* Two snapshots compared: by key, by identity, what is warned of, where the growth goes, the
 * document; memory that runs out. */
#define _GNU_SOURCE 1 /* memmem */
#include <stdlib.h>
#include <string.h>

#include "formats/diff_report.h"
#include "tests/lib/tap.h"
#include "tests/unit/test_diff_sample.h"

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

/* ---- two snapshots ---- */

static void make_two(struct snapshot *a, struct snapshot *b)
{
    sample_init(a, "2026-11-21T08:00:00Z");
    sample_type(a, "dict", "builtins", 10, 640, 2000);
    sample_type(a, "app.m.Session", "app.m", 5, 500, 0);
    sample_type(a, "app.Gone", "app", 3, 300, 0);
    sample_trace(a, 25);
    sample_site(a, "app/m.py", 12, 3, "app.m.Session", 5, 500);
    sample_site(a, "app/x.py", 7, 0, "dict", 1, 64);
    a->objects.unowned = 2;
    a->objects.unowned_bytes = 100;
    sample_init(b, "2026-11-21T09:30:00Z");
    sample_type(b, "dict", "builtins", 10, 640, 2100);
    sample_type(b, "app.m.Session", "app.m", 25, 2500, 0);
    sample_type(b, "app.New", "app", 1, 50, 0);
    sample_trace(b, 25);
    sample_site(b, "app/x.py", 7, 0, "dict", 1, 64);
    sample_site(b, "app/m.py", 12, 3, "app.m.Session", 20, 2000);
    sample_site(b, "app/m.py", 12, 4, "app.m.Session", 5, 500);
    b->objects.unowned = 2;
    b->objects.unowned_bytes = 100;
}

static const struct diff_row *find(const struct diff *d, const char *key)
{
    char buf[256];
    for (size_t i = 0; i < d->n; i++)
        if (strcmp(diff_key(d, &d->rows[i], buf, sizeof buf), key) == 0)
            return &d->rows[i];
    return NULL;
}

static bool is(const struct diff *d, const char *key, uint64_t count, int64_t count_diff,
               uint64_t bytes, int64_t bytes_diff)
{
    const struct diff_row *r = strcmp(key, "total") == 0 ? &d->total : find(d, key);
    bool good = r && r->count == count && r->count_diff == count_diff && r->bytes == bytes &&
                r->bytes_diff == bytes_diff;
    if (!good && r)
        diag("%s: %llu %lld %llu %lld", key, (unsigned long long)r->count, (long long)r->count_diff,
             (unsigned long long)r->bytes, (long long)r->bytes_diff);
    return good;
}

static void test_types(void)
{
    struct snapshot a, b;
    struct diff d;
    make_two(&a, &b);
    if (!ok(diff_make(&a, &b, FIGURES_BY_TYPE, NULL, &d, NULL) == 0, "by type"))
        return;
    ok(d.n == 5, "a row for each key of either, and for what is nobody's");
    ok(is(&d, "app.m.Session", 25, 20, 2500, 2000), "a type that grew");
    ok(is(&d, "dict", 10, 0, 2740, 100), "buffers count as bytes of their owners");
    ok(is(&d, "app.Gone", 0, -3, 0, -300), "a type that went");
    ok(is(&d, "app.New", 1, 1, 50, 50), "a type that came");
    ok(is(&d, "(unowned)", 2, 0, 100, 0), "what is nobody's");
    ok(is(&d, "total", 38, 18, 5390, 1850), "the sum of all");
    char buf[64];
    ok(strcmp(diff_key(&d, &d.rows[0], buf, sizeof buf), "app.m.Session") == 0 &&
           strcmp(d.rows[1].key, "app.Gone") == 0 && strcmp(d.rows[4].key, "(unowned)") == 0,
       "by growth, shrinking counts as much");
    ok(diff_sort(&d, "bytes", false) && strcmp(d.rows[0].key, "dict") == 0, "by bytes");
    ok(diff_sort(&d, "count-growth", true) && strcmp(d.rows[4].key, "app.m.Session") == 0,
       "by growth of counts, reversed");
    ok(diff_sort(&d, "name", false) && strcmp(d.rows[0].key, "(unowned)") == 0, "by name");
    ok(!diff_sort(&d, "size", false), "no such order");
    diff_release(&d);
    struct diff_options large = {.min_size = 301};
    if (ok(diff_make(&a, &b, FIGURES_BY_TYPE, &large, &d, NULL) == 0, "with --min-size")) {
        ok(d.n == 2 && is(&d, "total", 38, 18, 5390, 1850), "small rows go, the total stays");
        diff_release(&d);
    }
    struct site_filters only = {.type_regex = "^app\\."};
    struct diff_options chosen = {.figures = {.filters = &only}};
    if (ok(diff_make(&a, &b, FIGURES_BY_PACKAGE, &chosen, &d, NULL) == 0, "with --type")) {
        ok(d.n == 1 && is(&d, "app", 26, 18, 2550, 1750), "types that match, by package");
        diff_release(&d);
    }
    only.type_regex = "(";
    struct err err = ERR_INIT;
    ok(diff_make(&a, &b, FIGURES_BY_TYPE, &chosen, &d, &err) == ERR_USAGE && err.remedy[0],
       "a regular expression that is none");
    snapshot_release(&a);
    snapshot_release(&b);
}

static void test_keys(void)
{
    struct snapshot a, b;
    struct diff d;
    make_two(&a, &b);
    a.pymalloc.classes[3] = (struct snapshot_size_class){.size = 64, .pools = 1, .blocks_used = 4};
    b.pymalloc.classes[3] = (struct snapshot_size_class){.size = 64, .pools = 2, .blocks_used = 9};
    snapshot_add_arena(&a)->address = 0x1000;
    struct snapshot_arena *arena = snapshot_add_arena(&b);
    arena->address = 0x2000;
    arena->blocks_used = 7;
    arena->bytes_used = 70;
    const struct {
        enum figure_key by;
        const char *key;
        uint64_t count;
        int64_t count_diff;
        uint64_t bytes;
        int64_t bytes_diff;
    } rows[] = {
        {FIGURES_BY_MODULE, "app.m", 25, 20, 2500, 2000},
        {FIGURES_BY_PACKAGE, "app", 26, 18, 2550, 1750},
        {FIGURES_BY_SIZE, "to 64 bytes", 9, 5, 576, 320},
        {FIGURES_BY_ARENA, "0x2000", 7, 7, 70, 70},
        {FIGURES_BY_ARENA, "0x1000", 0, 0, 0, 0},
        {FIGURES_BY_CATEGORY, "python.blocks.used", 36, 18, 5290, 1850},
        {FIGURES_BY_CATEGORY, "total", 36, 18, 5290, 1850},
        {FIGURES_BY_MAPPING, "[vdso]", 1, 0, 0x1000, 0},
        {FIGURES_BY_FILE, "app/m.py", 25, 20, 2500, 2000},
        {FIGURES_BY_LINE, "app/m.py:12", 25, 20, 2500, 2000},
        {FIGURES_BY_LINE, "total", 26, 20, 2564, 2000},
        {FIGURES_BY_TRACEBACK, "app/m.py:12 < app/main.py:3", 20, 15, 2000, 1500},
        {FIGURES_BY_TRACEBACK, "app/m.py:12 < app/main.py:4", 5, 5, 500, 500},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!ok(diff_make(&a, &b, rows[i].by, NULL, &d, NULL) == 0, "by %s",
                figure_key_name(rows[i].by)))
            continue;
        ok(is(&d, rows[i].key, rows[i].count, rows[i].count_diff, rows[i].bytes,
              rows[i].bytes_diff),
           "%s", rows[i].key);
        diff_release(&d);
    }
    struct diff_options cumulative = {.figures = {.cumulative = true}};
    if (ok(diff_make(&a, &b, FIGURES_BY_LINE, &cumulative, &d, NULL) == 0, "cumulative")) {
        ok(is(&d, "app/main.py:3", 20, 15, 2000, 1500) && is(&d, "total", 26, 20, 2564, 2000),
           "every frame counts, the total each trace once");
        diff_release(&d);
    }
    snapshot_release(&a);
    snapshot_release(&b);
}

static void test_refused(void)
{
    struct snapshot a, b;
    struct diff d;
    struct err err = ERR_INIT;
    make_two(&a, &b);
    b.objects.present = false;
    ok(diff_make(&a, &b, FIGURES_BY_TYPE, NULL, &d, &err) == ERR_USAGE && err.remedy[0],
       "by type without types: %s", err.text);
    b.tracing.present = false;
    ok(diff_make(&a, &b, FIGURES_BY_LINE, NULL, &d, &err) == ERR_USAGE && err.remedy[0],
       "by line without tracing: %s", err.text);
    b.source.pid = 43;
    ok(diff_make(&a, &b, FIGURES_BY_ARENA, NULL, &d, &err) == ERR_USAGE && err.remedy[0],
       "by arena of two processes: %s", err.text);
    snapshot_release(&a);
    snapshot_release(&b);
}

/* ---- one process or two ---- */

static bool has_warning(const struct snapshot *a, const struct snapshot *b, const char *what)
{
    struct diff_warnings w;
    diff_warn(a, b, &w);
    for (size_t i = 0; i < w.n; i++)
        if (strcmp(w.items[i].what, what) == 0)
            return true;
    return false;
}

static void test_process(void)
{
    struct snapshot a, b;
    char why[DIFF_WHY];
    make_two(&a, &b);
    ok(diff_same_process(&a, &b, why, sizeof why) == DIFF_SAME, "one process");
    struct diff_warnings w;
    diff_warn(&a, &b, &w);
    ok(w.n == 0, "nothing to warn of");
    b.source.pid = 43;
    ok(diff_same_process(&a, &b, why, sizeof why) == DIFF_OTHER && strstr(why, "43"), "%s", why);
    ok(has_warning(&a, &b, "diff.process"), "is warned of");
    b.source.pid = 42;
    b.host = "elsewhere";
    ok(diff_same_process(&a, &b, why, sizeof why) == DIFF_OTHER, "%s", why);
    b.host = "vm";
    b.source.exe_build_id = "bb";
    ok(diff_same_process(&a, &b, why, sizeof why) == DIFF_OTHER, "%s", why);
    b.source.exe_build_id = "aa55";
    b.mappings[0].address -= 0x4000; /* the stack grew */
    b.mappings[0].size += 0x4000;
    ok(diff_same_process(&a, &b, why, sizeof why) == DIFF_SAME, "a stack that grew");
    b.mappings[0].address += 0x1000;
    ok(diff_same_process(&a, &b, why, sizeof why) == DIFF_OTHER, "%s", why);
    a.n_mappings = 0;
    ok(diff_same_process(&a, &b, why, sizeof why) == DIFF_CANNOT_TELL, "%s", why);
    ok(!has_warning(&a, &b, "diff.process"), "which is not warned of");
    b.source.pid = 0;
    ok(diff_same_process(&a, &b, why, sizeof why) == DIFF_CANNOT_TELL, "%s", why);
    snapshot_release(&a);
    snapshot_release(&b);
}

static void test_warnings(void)
{
    struct snapshot a, b;
    make_two(&a, &b);
    ok(has_warning(&b, &a, "diff.order"), "the older one comes first");
    b.complete = false;
    ok(has_warning(&a, &b, "diff.incomplete"), "incomplete");
    b.redacted = !a.redacted;
    ok(has_warning(&a, &b, "diff.redacted"), "redacted");
    b.python.version = "3.12.0";
    ok(has_warning(&a, &b, "diff.python"), "another Python");
    b.python.allocator = "pymalloc_debug";
    ok(has_warning(&a, &b, "diff.allocator"), "another allocator");
    b.tool_version = "9";
    ok(has_warning(&a, &b, "diff.tool"), "another heapcensus");
    b.tracing.frames_limit = 1;
    ok(has_warning(&a, &b, "diff.frames"), "another limit");
    ok(!has_warning(&a, &b, "diff.overhead"), "tables that did not grow");
    b.tracing.overhead_bytes = 1;
    ok(has_warning(&a, &b, "diff.overhead"), "tracemalloc's own tables grew");
    b.source.dump = (struct snapshot_dump){.present = true, .resident = "data"};
    ok(has_warning(&a, &b, "diff.resident"), "another kind of resident");
    b.tracing.present = false;
    ok(has_warning(&a, &b, "diff.tracing"), "only one traced");
    snapshot_release(&a);
    snapshot_release(&b);
}

static void test_time(void)
{
    double t = 0;
    ok(diff_time("1970-01-02T00:00:01Z", &t) && t == 86401, "a time");
    ok(diff_time("1970-01-01T00:00:01.25Z", &t) && t == 1.25, "with a fraction");
    ok(!diff_time("1970-01-01", &t) && !diff_time("", &t) && !diff_time(NULL, &t) &&
           !diff_time("1970-01-01T00:00:01+02:00", &t),
       "no times");
}

/* ---- the verdict ---- */

static void test_verdict(void)
{
    struct snapshot a, b;
    struct diff_verdict v;
    make_two(&a, &b);
    if (!ok(diff_judge(&a, &b, &v, NULL) == 0, "a verdict"))
        return;
    const struct diff_cause *c = v.causes;
    ok(v.growth && v.rss_diff == 1850 && v.in_use_diff == 1850, "growth");
    ok(strcmp(c[DIFF_CATEGORY].key, "python.blocks.used") == 0 && c[DIFF_CATEGORY].share == 1,
       "the category");
    ok(strcmp(c[DIFF_TYPE].key, "app.m.Session") == 0 && c[DIFF_TYPE].bytes_diff == 2000 &&
           strcmp(c[DIFF_TYPE].module, "app.m") == 0 && c[DIFF_TYPE].share == 2000.0 / 2150,
       "the type, its share of all that grew");
    ok(strcmp(c[DIFF_SITE].key, "app/m.py:12") == 0 && c[DIFF_SITE].share == 1, "the site");
    b.objects.runtime_bytes = 1 << 20;
    ok(diff_judge(&a, &b, &v, NULL) == 0 && strcmp(c[DIFF_TYPE].key, "app.m.Session") == 0 &&
           c[DIFF_TYPE].share == 2000.0 / 2150,
       "tracemalloc's own tables are no cause");
    b.tracing.present = a.tracing.present = false;
    ok(diff_judge(&a, &b, &v, NULL) == 0 && strcmp(c[DIFF_TYPE].key, figures_runtime) == 0,
       "without it the interpreter's own is one like any other");
    b.tracing.present = a.tracing.present = true;
    ok(diff_judge(&a, &a, &v, NULL) == 0 && !v.growth && !c[DIFF_TYPE].grew && c[DIFF_TYPE].known,
       "no growth");
    a.tracing.present = false;
    ok(diff_judge(&a, &b, &v, NULL) == 0 && !c[DIFF_SITE].known && c[DIFF_SITE].why,
       "the site is not known: %s", c[DIFF_SITE].why);
    b.objects.present = false;
    ok(diff_judge(&a, &b, &v, NULL) == 0 && !c[DIFF_TYPE].known, "nor is the type: %s",
       c[DIFF_TYPE].why);
    snapshot_release(&a);
    snapshot_release(&b);
}

/* ---- by identity ---- */

static void make_blocks(struct snapshot *a, struct snapshot *b)
{
    make_two(a, b);
    sample_block(a, 0x1000, 64, "object", "dict", 2);           /* stays */
    sample_block(a, 0x2000, 64, "object", "dict", 0);           /* freed */
    sample_block(a, 0x3000, 100, "object", "app.m.Session", 1); /* another type takes its place */
    sample_block(a, 0x4000, 64, "buffer", "dict", 0);           /* another size takes its place */
    sample_block(a, 0x5000, 100, "object", "app.m.Session", 1); /* stays */
    sample_block(a, 0x6000, 100, "object", "app.m.Session", 1); /* another traceback: reused */
    sample_block(a, 0x7000, 48, "unowned", NULL, 0);            /* stays */
    sample_block(a, 0x9000, 32, "buffer", "dict", 2);           /* reallocated in place */
    sample_block(b, 0x0800, 50, "object", "app.New", 0);        /* new, in front of all */
    sample_block(b, 0x1000, 64, "object", "dict", 1);
    sample_block(b, 0x3000, 100, "object", "app.New", 0);
    sample_block(b, 0x4000, 128, "buffer", "dict", 0);
    sample_block(b, 0x5000, 100, "object", "app.m.Session", 2);
    sample_block(b, 0x6000, 100, "object", "app.m.Session", 3);
    sample_block(b, 0x7000, 48, "unowned", NULL, 0);
    sample_block(b, 0x9000, 32, "buffer", "dict", 3);
    sample_block(b, 0xa000, 100, "object", "app.m.Session", 2); /* new, behind all */
}

static int identify(struct snapshot *a, struct snapshot *b, enum figure_key key,
                    struct diff_identity *ret, struct err *err)
{
    struct block_stream *x = NULL, *y = NULL;
    struct diff_side old_side = {a, NULL, "old"}, new_side = {b, NULL, "new"};
    int rc = block_stream_open_snapshot(a, &x, err);
    if (rc == 0)
        rc = block_stream_open_snapshot(b, &y, err);
    old_side.stream = x;
    new_side.stream = y;
    if (rc == 0)
        rc = diff_identify(&old_side, &new_side, key, 0, NULL, ret, err);
    block_stream_close(x);
    block_stream_close(y);
    return rc;
}

static bool sums(const struct diff_row *r, uint64_t fresh, uint64_t fresh_bytes, uint64_t gone,
                 uint64_t gone_bytes, uint64_t kept, uint64_t kept_bytes)
{
    bool good = r && r->fresh.count == fresh && r->fresh.bytes == fresh_bytes &&
                r->gone.count == gone && r->gone.bytes == gone_bytes && r->kept.count == kept &&
                r->kept.bytes == kept_bytes;
    if (!good && r)
        diag("%s: %llu/%llu %llu/%llu %llu/%llu", r->key, (unsigned long long)r->fresh.count,
             (unsigned long long)r->fresh.bytes, (unsigned long long)r->gone.count,
             (unsigned long long)r->gone.bytes, (unsigned long long)r->kept.count,
             (unsigned long long)r->kept.bytes);
    return good;
}

static void test_identity(void)
{
    struct snapshot a, b;
    struct diff_identity d;
    struct err err = ERR_INIT;
    make_blocks(&a, &b);
    if (!ok(identify(&a, &b, FIGURES_BY_TYPE, &d, &err) == 0, "by identity %s", err.text))
        return;
    ok(sums(find(&d.by, "dict"), 0, 128, 1, 128, 1, 96),
       "dict: one gone, one stays; its buffers' bytes");
    ok(sums(find(&d.by, "app.m.Session"), 2, 200, 2, 200, 1, 100), "Session: two new, two gone");
    ok(sums(find(&d.by, "app.New"), 2, 150, 0, 0, 0, 0), "New");
    ok(sums(find(&d.by, "(unowned)"), 0, 0, 0, 0, 1, 48), "what is nobody's stays");
    ok(d.fresh.count == 5 && d.gone.count == 4 && d.kept.count == 4 && d.reused == 1,
       "all blocks, and the one that its traceback gives away");
    ok(strcmp(d.by.rows[0].key, "app.m.Session") == 0, "most new bytes first");
    ok(d.has_also && sums(find(&d.also, "app/m.py:12"), 2, 200, 2, 200, 2, 132), "sites of them");
    ok(sums(find(&d.also, "(not traced)"), 3, 278, 2, 128, 1, 48), "and what has none");
    struct diff_verdict v;
    if (ok(diff_judge(&a, &b, &v, NULL) == 0, "the verdict")) {
        diff_judge_identity(&d, &v);
        ok(strcmp(v.causes[DIFF_SITE].key, "(not traced)") == 0 &&
               v.causes[DIFF_SITE].bytes_diff == 278,
           "says where the new blocks come from");
    }
    diff_identity_release(&d);
    if (ok(identify(&a, &b, FIGURES_BY_SIZE, &d, NULL) == 0, "by size")) {
        ok(sums(find(&d.by, "to 128 bytes"), 1, 128, 0, 0, 0, 0), "classes of sizes");
        diff_identity_release(&d);
    }
    if (ok(identify(&a, &b, FIGURES_BY_MODULE, &d, NULL) == 0, "by module")) {
        ok(sums(find(&d.by, "app"), 2, 150, 0, 0, 0, 0), "names of modules");
        diff_identity_release(&d);
    }
    b.tracing.frames_limit = 1; /* tracebacks cannot be compared */
    if (ok(identify(&a, &b, FIGURES_BY_LINE, &d, NULL) == 0, "by line")) {
        ok(d.reused == 0 && d.also.key == FIGURES_BY_TYPE &&
               sums(find(&d.also, "app.m.Session"), 1, 100, 1, 100, 2, 200),
           "another limit of frames gives nothing away");
        diff_identity_release(&d);
    }
    snapshot_release(&a);
    snapshot_release(&b);
}

static void test_identity_refused(void)
{
    static volatile sig_atomic_t stop = 1;
    struct snapshot a, b;
    struct diff_identity d;
    struct err err = ERR_INIT;
    make_blocks(&a, &b);
    ok(identify(&a, &b, FIGURES_BY_ARENA, &d, &err) == ERR_USAGE && err.remedy[0], "%s", err.text);
    b.source.pid++;
    ok(identify(&a, &b, FIGURES_BY_TYPE, &d, &err) == ERR_USAGE && err.remedy[0], "%s", err.text);
    b.source.pid--;
    size_t n = b.n_blocks;
    b.n_blocks = 0;
    ok(identify(&a, &b, FIGURES_BY_TYPE, &d, &err) == ERR_USAGE && err.remedy[0], "%s", err.text);
    b.n_blocks = n;
    struct block_stream *x = NULL, *y = NULL;
    if (block_stream_open_snapshot(&a, &x, NULL) == 0 &&
        block_stream_open_snapshot(&b, &y, NULL) == 0) {
        struct diff_side old_side = {&a, x, "old"}, new_side = {&b, y, "new"};
        ok(diff_identify(&old_side, &new_side, FIGURES_BY_TYPE, 0, &stop, &d, &err) ==
               ERR_INTERRUPTED,
           "interrupted");
    }
    block_stream_close(x);
    block_stream_close(y);
    snapshot_release(&a);
    snapshot_release(&b);
}

/* ---- reports, with every allocation failing in turn ---- */

static int write_all(const struct snapshot *a, const struct snapshot *b, const struct diff *rows,
                     const struct diff_identity *identity, struct sink *sink, struct err *err)
{
    struct diff_warnings w;
    struct diff_verdict v;
    int rc = diff_judge(a, b, &v, err);
    diff_warn(a, b, &w);
    struct diff_report r = {
        .old_snap = a,
        .new_snap = b,
        .old_name = "old",
        .new_name = "it's new",
        .by = identity ? &identity->by : rows,
        .also = identity ? &identity->also : NULL,
        .identity = identity,
        .warnings = &w,
        .verdict = &v,
    };
    return rc < 0 ? rc : json_write_diff(&r, 2, sink, err);
}

static int once(struct snapshot *a, struct snapshot *b, enum figure_key key, bool blocks,
                struct sink_memory *out, struct err *err)
{
    struct diff d;
    struct diff_identity x;
    sink_memory_init(out);
    int rc = blocks ? identify(a, b, key, &x, err) : diff_make(a, b, key, NULL, &d, err);
    if (rc < 0)
        return rc;
    rc = write_all(a, b, &d, blocks ? &x : NULL, &out->sink, err);
    if (blocks)
        diff_identity_release(&x);
    else
        diff_release(&d);
    return rc;
}

static void test_failures(enum figure_key key, bool blocks)
{
    struct snapshot a, b;
    struct sink_memory out;
    struct err err;
    int rc = ERR_NOMEM;
    bool told = true;
    make_blocks(&a, &b);
    for (fail_at = 1; rc < 0 && fail_at < 5000; fail_at++) {
        calls = 0;
        err_clear(&err);
        rc = once(&a, &b, key, blocks, &out, &err);
        told = told && (rc == 0 || (rc == ERR_NOMEM && err.text[0]));
        if (rc < 0)
            sink_memory_release(&out);
    }
    fail_at = 0;
    ok(told && rc == 0, "each failed allocation is told, by %s%s", figure_key_name(key),
       blocks ? " and block" : "");
    ok(rc == 0 && out.n > 2 && memmem(out.bytes, out.n, "\"verdict\":{", 11) &&
           memmem(out.bytes, out.n, "\"rows\":[{", 9),
       "and the document is whole at last");
    sink_memory_release(&out);
    snapshot_release(&a);
    snapshot_release(&b);
}

int main(void)
{
    test_types();
    test_keys();
    test_refused();
    test_process();
    test_warnings();
    test_time();
    test_verdict();
    test_identity();
    test_identity_refused();
    test_failures(FIGURES_BY_TYPE, false);
    test_failures(FIGURES_BY_TRACEBACK, false);
    test_failures(FIGURES_BY_TYPE, true);
    test_failures(FIGURES_BY_LINE, true);
    return done_testing();
}
