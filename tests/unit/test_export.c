/* Exports: every format from a small snapshot with awkward names, byte by byte where the format is
 * fixed; tracebacks of 65,535 frames; large numbers; memory that runs out, outputs that fail. The
 * programs that read these files are in tests/e2e/test_export_formats.py. */
#include <stdlib.h>
#include <string.h>

#include "formats/export.h"
#include "formats/outbuf.h"
#include "tests/lib/tap.h"

void *__libc_realloc(void *old, size_t size);
void *__interceptor_realloc(void *old, size_t size) __attribute__((weak));
void *__libc_malloc(size_t size);
void *__interceptor_malloc(size_t size) __attribute__((weak));
void *__libc_calloc(size_t n, size_t size);
void *__interceptor_calloc(size_t n, size_t size) __attribute__((weak));

static unsigned long fail_at, calls; /* the fail_at-th allocation or write fails; 0: none */

static bool fails(void)
{
    return fail_at && ++calls == fail_at;
}

void *realloc(void *old, size_t size)
{
    if (fails())
        return NULL;
    return __interceptor_realloc ? __interceptor_realloc(old, size) : __libc_realloc(old, size);
}

void *malloc(size_t size)
{
    if (fails())
        return NULL;
    return __interceptor_malloc ? __interceptor_malloc(size) : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    if (fails())
        return NULL;
    return __interceptor_calloc ? __interceptor_calloc(n, size) : __libc_calloc(n, size);
}

/* ---- a snapshot ---- */

static uint32_t add_frame(struct snapshot *s, const char *file, uint32_t line)
{
    *snapshot_add_frame(s) = (struct snapshot_frame){.file = file, .line = line};
    return (uint32_t)s->n_frames - 1;
}

static void add_site(struct snapshot *s, uint32_t traceback, const char *type, uint64_t size,
                     uint64_t count)
{
    *snapshot_add_site(s) = (struct snapshot_site){
        .traceback = traceback,
        .type = type,
        .kind = type ? "object" : "unowned",
        .source = "tracemalloc",
        .count = count,
        .bytes = size * count,
        .first_size = s->n_size_counts,
    };
    if (!snapshot_add_size_count(s, size, count))
        diag("no memory for a size");
}

static void sample(struct snapshot *s)
{
    snapshot_init(s);
    s->tracing = (struct snapshot_tracing){
        .present = true, .source = "tracemalloc", .tracing = true, .frames_limit = 300};
    uint32_t main_9 = add_frame(s, "app/main.py", 9), db_12 = add_frame(s, "app/db.py", 12);
    uint32_t odd = add_frame(s, "=a;\"b\"=\n\xff.py", 1);
    snapshot_add_traceback(s, (uint32_t[]){db_12, main_9}, 2, 7);
    snapshot_add_traceback(s, (uint32_t[]){odd}, 1, 0);
    snapshot_add_traceback(s, NULL, 0, 0);
    add_site(s, 0, "dict", 100, 2);
    add_site(s, 1, NULL, 70000, 1);
    add_site(s, 2, "app.T", 5ull << 32, 1);
    s->sites[2].domain = 389047;
}

static bool made(const struct sink_memory *m, const char *want, size_t len, const char *what)
{
    bool good = m->n == len && memcmp(m->bytes, want, len) == 0;
    if (!ok(good, "%s", what))
        diag("%zu bytes, wanted %zu: %.*s", m->n, len, (int)m->n, m->bytes ? m->bytes : "");
    return good;
}

static size_t count_of(const struct sink_memory *m, const char *what, size_t len)
{
    size_t n = 0;
    for (size_t at = 0; at + len <= m->n; at++)
        n += memcmp(m->bytes + at, what, len) == 0;
    return n;
}

static size_t count_text(const struct sink_memory *m, const char *what)
{
    return count_of(m, what, strlen(what));
}

/* ---- text ---- */

static void check_clean(const char *text, const char *special, const char *want)
{
    static struct outbuf b;
    struct sink_memory m;
    sink_memory_init(&m);
    outbuf_init(&b, &m.sink, NULL);
    outbuf_text(&b, text, special);
    ok(outbuf_finish(&b) == 0, "a text is written");
    made(&m, want, strlen(want), want);
    sink_memory_release(&m);
}

static void test_text(void)
{
    check_clean("caf\xc3\xa9 \xf0\x9f\x90\x8d", NULL, "caf\xc3\xa9 \xf0\x9f\x90\x8d");
    check_clean("a;b", ";", "a\\x3bb");
    check_clean("a;b", NULL, "a;b");
    check_clean("\n\x1b\x7f\xc2\x85", NULL, "\\x0a\\x1b\\x7f\\xc2\\x85");
    check_clean("\xff\xc0\x80\xed\xb3\xbf\xf5\xe4\xb8", NULL,
                "\\xff\\xc0\\x80\\xed\\xb3\\xbf\\xf5\\xe4\\xb8");
    check_clean("\\x41 \\xzz \\x4", NULL, "\\x5cx41 \\xzz \\x4");
    check_clean("\xf4\x90\x80\x80 \xe0\x80\x80", NULL, "\\xf4\\x90\\x80\\x80 \\xe0\\x80\\x80");
}

static void check_name(const char *file, uint32_t line, const char *function, const char *want)
{
    char buf[64];
    struct snapshot_frame f = {file, function, line};
    size_t n = stack_frame_name(&f, buf, sizeof buf);
    ok(n == strlen(want) && strcmp(buf, want) == 0, "the name of a frame: %s", want);
}

static void test_names(void)
{
    char tiny[8];
    struct snapshot_frame f = {"0123456789", NULL, 1};
    check_name("/srv/app/db.py", 12, NULL, "db.py:12 (/srv/app)");
    check_name("db.py", 12, NULL, "db.py:12");
    check_name("/db.py", 12, NULL, "/db.py:12");
    check_name("/srv/", 0, NULL, "/srv/");
    check_name("/srv/app/db.py", 0, NULL, "db.py (/srv/app)");
    check_name("app/db.py", 12, "load", "load (app/db.py:12)");
    check_name("", UINT32_MAX, NULL, ":4294967295");
    ok(stack_frame_name(&f, tiny, sizeof tiny) == 7 && strcmp(tiny, "0123456") == 0,
       "a long name is cut");
}

/* ---- formats ---- */

static void test_folded(void)
{
    static const char want[] = "main.py:9 (app);db.py:12 (app) 200\n"
                               "=a\\x3b\"b\"=\\x0a\\xff.py:1 70000\n"
                               "<unknown> 21474836480\n";
    static const char counts[] = "main.py:9 (app);db.py:12 (app) 2\n";
    struct snapshot s;
    struct site_stacks stacks;
    struct sink_memory m;
    sample(&s);
    sink_memory_init(&m);
    site_stacks_init(&stacks, &s, NULL);
    ok(export_folded(&stacks.stacks, FOLDED_BYTES, &m.sink, NULL) == 0, "folded");
    made(&m, want, strlen(want), "folded: bytes");
    sink_memory_release(&m);
    site_stacks_init(&stacks, &s, (const uint8_t[]){1, 0, 0});
    ok(export_folded(&stacks.stacks, FOLDED_COUNT, &m.sink, NULL) == 0, "folded");
    made(&m, counts, strlen(counts), "folded: counts of what was kept");
    sink_memory_release(&m);
    snapshot_release(&s);
}

static void test_pickle(void)
{
    static const char want[] =
        "\x80\x02"
        "ctracemalloc\nSnapshot\n)\x81}(X\x06\0\0\0traces"
        "ctracemalloc\n_Traces\n)\x81}(X\x07\0\0\0_traces](" /* the records: */
        "(K\0Kd"
        "X\x09\0\0\0app/db.pyq\0K\x0c\x86q\1X\x0b\0\0\0app/main.pyq\2K\x09\x86q\3\x86q\4K\7tq\5"
        "h\5"
        "(K\0Jp\x11\1\0X\x0e\0\0\0=a;\"b\"=\n\xed\xb3\xbf.pyq\6K\1\x86q\7\x85q\x08Nt"
        "(J\xb7\xef\5\0\x8a\x09\0\0\0\0\5\0\0\0\0X\x09\0\0\0<unknown>q\x09K\0\x86q\x0a\x85q\x0bNt"
        "eubX\x0f\0\0\0traceback_limitM,\1ub.";
    struct snapshot s;
    struct sink_memory m;
    struct err err = ERR_INIT;
    sample(&s);
    sink_memory_init(&m);
    ok(export_tracemalloc(&s, NULL, true, &m.sink, NULL) == 0, "a pickle");
    made(&m, want, sizeof want - 1, "a pickle for 3.9 and newer");
    sink_memory_release(&m);
    s.size_counts[0].count = 1;
    ok(export_tracemalloc(&s, NULL, true, &m.sink, &err) == ERR_USAGE && err.remedy[0],
       "sizes that do not add up: refused");
    ok(export_tracemalloc(&s, (const uint8_t[]){0, 1, 1}, true, &m.sink, NULL) == 0,
       "... but not where they are left out");
    sink_memory_release(&m);
    s.sites[0].count = s.size_counts[0].count = 1ull << 62;
    s.sites[0].bytes = UINT64_MAX;
    ok(export_tracemalloc(&s, NULL, true, &m.sink, &err) == ERR_LIMIT && err.remedy[0] && !m.n,
       "more traces than Python could read: refused");
    snapshot_release(&s);
}

/* Sizes at the ends of pickle's kinds of integers; records go into the list by the thousand. */
static void test_pickle_many(void)
{
    static const char two_gib[] = "K\0\x8a\x09\0\0\0\x80\0\0\0\0\0";
    static const char less[] = "K\0J\xff\xff\xff\x7f", word[] = "K\0M\xff\xff";
    struct snapshot s;
    struct sink_memory m;
    sample(&s);
    add_site(&s, 0, "list", 1ull << 31, 1);
    add_site(&s, 0, "list", (1ull << 31) - 1, 1);
    add_site(&s, 0, "list", 65535, 2500);
    sink_memory_init(&m);
    ok(export_tracemalloc(&s, NULL, false, &m.sink, NULL) == 0, "a pickle for 3.8");
    ok(count_of(&m, two_gib, sizeof two_gib - 1) == 1 && count_of(&m, less, sizeof less - 1) == 1 &&
           count_of(&m, word, sizeof word - 1) == 1,
       "integers of 2, 4 and 9 bytes");
    ok(count_of(&m, "e(", 2) == 2, "two full batches of records");
    sink_memory_release(&m);
    snapshot_release(&s);
}

static void test_rows(void)
{
    static const char names[] =
        "type,kind,domain,source,count,bytes,file,line,frames,total_frames,traceback\r\n";
    static const char rows[] =
        "\"dict\",\"object\",0,\"tracemalloc\",2,200,\"app/db.py\",12,2,7,"
        "\"app/db.py:12 < app/main.py:9\"\r\n"
        ",\"unowned\",0,\"tracemalloc\",1,70000,\"\\x3da;\"\"b\"\"=\\x0a\\xff.py\",1,1,0,"
        "\"\\x3da;\"\"b\"\"=\\x0a\\xff.py:1\"\r\n"
        "\"app.T\",\"object\",389047,\"tracemalloc\",1,21474836480,\"<unknown>\",0,0,0,\"\"\r\n";
    static const char json[] =
        "{\"type\":null,\"kind\":\"unowned\",\"domain\":0,\"source\":\"tracemalloc\",\"count\":1,"
        "\"bytes\":70000,\"file\":\"=a;\\\"b\\\"=\\u000a\\\\xff.py\",\"line\":1,\"frames\":1,"
        "\"total_frames\":0,\"traceback\":\"=a;\\\"b\\\"=\\u000a\\\\xff.py:1\"}\n";
    char want[sizeof names + sizeof rows];
    struct snapshot s;
    struct sink_memory m;
    sample(&s);
    sink_memory_init(&m);
    snprintf(want, sizeof want, "%s%s", names, rows);
    ok(export_rows(&s, "site", ROWS_CSV, NULL, 0, &m.sink, NULL) == 0, "CSV");
    made(&m, want, strlen(want), "CSV of sites");
    sink_memory_release(&m);
    ok(export_rows(&s, "site", ROWS_NDJSON, (const uint8_t[]){0, 1, 0}, 0, &m.sink, NULL) == 0,
       "lines of JSON");
    made(&m, json, strlen(json), "lines of JSON of a site that was kept");
    sink_memory_release(&m);
    ok(!export_rows_know("lines") && export_rows_know("blocks") &&
           export_rows(&s, "lines", ROWS_CSV, NULL, 0, &m.sink, NULL) == ERR_USAGE,
       "a table that there is not");
    snapshot_release(&s);
}

/* ---- limits ---- */

static void add_deep(struct snapshot *s)
{
    static uint32_t frames[65535];
    static char name[20000];
    memset(name, 'n', sizeof name - 1);
    uint32_t first = add_frame(s, name, 1);
    for (uint32_t i = 0; i < 65535; i++)
        frames[i] = i ? add_frame(s, "deep.py", i) : first;
    snapshot_add_traceback(s, frames, 65535, 65535);
    add_site(s, (uint32_t)s->n_tracebacks - 1, "deep", 1, 1);
}

static int write_pickle(const struct snapshot *s, struct sink *out, struct err *err)
{
    return export_tracemalloc(s, NULL, true, out, err);
}

static int write_old_pickle(const struct snapshot *s, struct sink *out, struct err *err)
{
    return export_tracemalloc(s, NULL, false, out, err);
}

static int write_csv(const struct snapshot *s, struct sink *out, struct err *err)
{
    return export_rows(s, "site", ROWS_CSV, NULL, 0, out, err);
}

static int write_ndjson(const struct snapshot *s, struct sink *out, struct err *err)
{
    return export_rows(s, "site", ROWS_NDJSON, NULL, 0, out, err);
}

static int write_folded(const struct snapshot *s, struct sink *out, struct err *err)
{
    struct site_stacks stacks;
    site_stacks_init(&stacks, s, NULL);
    return export_folded(&stacks.stacks, FOLDED_BYTES, out, err);
}

static int write_speedscope(const struct snapshot *s, struct sink *out, struct err *err)
{
    struct site_stacks stacks;
    site_stacks_init(&stacks, s, NULL);
    return export_speedscope(&stacks.stacks, "a heap", out, err);
}

static int write_pprof(const struct snapshot *s, struct sink *out, struct err *err)
{
    struct site_stacks stacks;
    struct pprof_about about = {"python3", "0123", 1, {"a comment", NULL}};
    site_stacks_init(&stacks, s, NULL);
    return export_pprof(&stacks.stacks, &about, out, err);
}

static const struct {
    const char *name;
    int (*write)(const struct snapshot *s, struct sink *out, struct err *err);
    const char *deepest; /* in the file once for the deepest stack */
} writers[] = {
    {"pickle", write_pickle, "deep.py"},
    {"old pickle", write_old_pickle, "deep.py"},
    {"csv", write_csv, "\"deep\""},
    {"ndjson", write_ndjson, "\"deep\""},
    {"folded", write_folded, "deep.py:65534"},
    {"speedscope", write_speedscope, "deep.py:65534\""},
    {"pprof", write_pprof, "deep.py:65534"},
};

enum { WRITERS = sizeof writers / sizeof *writers };

static void test_deep(void)
{
    struct snapshot s;
    struct sink_memory m;
    sample(&s);
    add_deep(&s);
    sink_memory_init(&m);
    for (size_t i = 0; i < WRITERS; i++) {
        ok(writers[i].write(&s, &m.sink, NULL) == 0 && count_text(&m, writers[i].deepest) == 1,
           "%s: 65,535 frames", writers[i].name);
        sink_memory_release(&m);
    }
    snapshot_release(&s);
}

/* Takes what it is given until the failing call. */
static int fragile_write(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    (void)sink, (void)bytes, (void)len;
    return fails() ? err_os(err, 28, "cannot write") : 0;
}

static void check_failures(const struct snapshot *s, size_t i)
{
    struct sink fragile = {fragile_write};
    unsigned long n = 0;
    bool good = true;
    int rc = -1;
    while (rc < 0 && good && n < 10000) {
        struct err err = ERR_INIT;
        calls = 0;
        fail_at = ++n;
        rc = writers[i].write(s, &fragile, &err);
        bool failed = calls >= fail_at;
        fail_at = 0;
        good = failed ? rc < 0 && err.code == rc && err.text[0] : rc == 0;
    }
    ok(good && rc == 0 && n > 1, "%s: %lu failures, each told", writers[i].name, n - 1);
}

static void test_failures(void)
{
    struct snapshot s;
    sample(&s);
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t f = add_frame(&s, "file.py", i);
        snapshot_add_traceback(&s, &f, 1, 1);
        add_site(&s, (uint32_t)s.n_tracebacks - 1, "T", i + 1, 3);
    }
    for (size_t i = 0; i < WRITERS; i++)
        check_failures(&s, i);
    snapshot_release(&s);
}

static void test_sums(void)
{
    struct snapshot s;
    struct sink_memory m;
    sample(&s);
    s.sites[0].bytes = s.sites[1].bytes = INT64_MAX;
    sink_memory_init(&m);
    ok(write_speedscope(&s, &m.sink, NULL) == 0 &&
           count_text(&m, "\"endValue\":9223372036854775807") == 1,
       "a sum that is too large stops at 2^63 - 1");
    sink_memory_release(&m);
    s.n_sites = 0;
    for (size_t i = 0; i < WRITERS; i++) {
        ok(writers[i].write(&s, &m.sink, NULL) == 0, "%s: of nothing", writers[i].name);
        sink_memory_release(&m);
    }
    snapshot_release(&s);
}

int main(void)
{
    test_text();
    test_names();
    test_folded();
    test_pickle();
    test_pickle_many();
    test_rows();
    test_deep();
    test_sums();
    test_failures();
    return done_testing();
}
