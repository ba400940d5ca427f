/* Statistics of sites: keys, order, filters, comparisons, texts, and what a file may get wrong; the
 * i-th allocation fails, for i = 1, 2, ...; the table against tests/golden/report_sites*.txt
 * (HEAPCENSUS_GOLDEN=write writes them anew). tests/e2e/test_sites_view.py compares far more with
 * Python itself. Runs from the root of the repository. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/fnmatch.h"
#include "formats/report_sites.h"
#include "tests/lib/tap.h"

/* Weak: there only under the sanitizer. */
#define WEAK __attribute__((weak))
void *__interceptor_malloc(size_t size) WEAK;
void *__interceptor_calloc(size_t n, size_t size) WEAK;
void *__interceptor_realloc(void *old, size_t size) WEAK;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
#define REAL(f) (__interceptor_##f ? __interceptor_##f : __libc_##f)

static unsigned long fail_at; /* 0: never */
static unsigned long calls;

static bool fails(void)
{
    return fail_at && ++calls == fail_at;
}

void *malloc(size_t size)
{
    return fails() ? NULL : REAL(malloc)(size);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : REAL(calloc)(n, size);
}

void *realloc(void *old, size_t size)
{
    return fails() ? NULL : REAL(realloc)(old, size);
}

/* ---- a snapshot ---- */

enum { DB, VIEWS, MAIN, PYC, UNKNOWN, FRAMES };

static const struct snapshot_frame frames[FRAMES] = {
    [DB] = {"app/db.py", NULL, 12},     [VIEWS] = {"app/views.py", NULL, 41},
    [MAIN] = {"app/main.py", NULL, 7},  [PYC] = {"app/db.pyc", NULL, 12},
    [UNKNOWN] = {"<unknown>", NULL, 0},
};

static void put_site(struct snapshot *s, uint32_t traceback, uint32_t domain, const char *type,
                     uint64_t count, uint64_t bytes)
{
    struct snapshot_site *site = snapshot_add_site(s);
    *site = (struct snapshot_site){.traceback = traceback,
                                   .domain = domain,
                                   .type = snapshot_str(s, type),
                                   .kind = "object",
                                   .source = "tracemalloc",
                                   .count = count,
                                   .bytes = bytes};
}

static void sample(struct snapshot *s)
{
    static const uint32_t deep[] = {DB, VIEWS, MAIN}, loop[] = {VIEWS, DB, VIEWS}, pyc[] = {PYC},
                          none[] = {UNKNOWN}, other[] = {DB, MAIN};
    snapshot_init(s);
    s->taken_at = "2024-05-06T07:08:09Z";
    s->source = (struct snapshot_source){.kind = "copy", .pid = 4711, .comm = "python3"};
    s->source.consistent = true;
    s->python = (struct snapshot_python){
        .present = true, .version = "3.11.7", .allocator = "pymalloc", .tracemalloc = true};
    s->tracing = (struct snapshot_tracing){.present = true,
                                           .source = "tracemalloc",
                                           .tracing = true,
                                           .frames_limit = 3,
                                           .traced_bytes = 20000,
                                           .peak_bytes = 30000,
                                           .overhead_bytes = 4096,
                                           .traces = 70,
                                           .trace_bytes = 20000,
                                           .covered_blocks = 68,
                                           .covered_bytes = 19000,
                                           .untraced_blocks = 100,
                                           .untraced_bytes = 1000,
                                           .gone_traces = 2,
                                           .gone_bytes = 100};
    for (int i = 0; i < FRAMES; i++) {
        struct snapshot_frame *f = snapshot_add_frame(s);
        *f = frames[i];
        f->file = snapshot_str(s, frames[i].file);
    }
    snapshot_add_traceback(s, deep, 3, 9);
    snapshot_add_traceback(s, loop, 3, 3);
    snapshot_add_traceback(s, pyc, 1, 1);
    snapshot_add_traceback(s, none, 1, 1);
    snapshot_add_traceback(s, other, 2, 2);
    snapshot_add_traceback(s, NULL, 0, 0);
    put_site(s, 0, 0, "app.models.accounts.SessionWithALongName", 10, 8000);
    put_site(s, 0, 0, "dict", 20, 2000);
    put_site(s, 1, 0, "dict", 8, 4000);
    put_site(s, 2, 7, NULL, 4, 3000);
    put_site(s, 3, 0, NULL, 16, 1500);
    put_site(s, 4, 0, "list", 8, 1000);
    put_site(s, 5, 0, NULL, 4, 500);
}

static bool row_is(const struct site_stats *s, size_t i, const char *file, uint32_t line,
                   uint64_t size, uint64_t count)
{
    if (i >= s->n)
        return false;
    const struct site_row *r = &s->rows[i];
    const struct snapshot_frame *f = site_frame(r, 0);
    bool same =
        strcmp(f->file, file) == 0 && f->line == line && r->size == size && r->count == count;
    if (!same)
        diag("row %zu: %s:%u %llu %llu", i, f->file, f->line, (unsigned long long)r->size,
             (unsigned long long)r->count);
    return same;
}

static void test_keys(void)
{
    struct snapshot s;
    struct site_stats st;
    sample(&s);
    int rc = site_stats_make(&s, SITES_BY_LINE, false, NULL, &st, NULL);
    ok(rc == 0 && st.n == 4 && st.size == 20000 && st.count == 70 && !st.filtered_count,
       "by line: each line once, and the sums");
    ok(rc == 0 && row_is(&st, 0, "app/db.py", 12, 11000, 38) &&
           row_is(&st, 1, "app/views.py", 41, 4000, 8) && row_is(&st, 2, "app/db.pyc", 12, 3000, 4),
       "by line: largest first, the most recent frame alone");
    ok(rc == 0 && row_is(&st, 3, "<unknown>", 0, 2000, 20),
       "no frames are the file <unknown>, as in tracemalloc");
    ok(rc == 0 && st.rows[0].type_size == 8000 && strncmp(st.rows[0].type, "app.", 4) == 0 &&
           !st.rows[2].type,
       "the type of the most bytes; none where none is known");
    site_stats_release(&st);

    rc = site_stats_make(&s, SITES_BY_TRACEBACK, false, NULL, &st, NULL);
    ok(rc == 0 && st.n == 6 && st.rows[0].n_frames == 3 && st.rows[0].total_frames == 9 &&
           site_frame(&st.rows[0], 2)->line == 7,
       "by traceback: all frames, most recent first");
    ok(rc == 0 && row_is(&st, 5, "<unknown>", 0, 500, 4), "a traceback without frames is a row");
    site_stats_release(&st);

    rc = site_stats_make(&s, SITES_BY_FILE, true, NULL, &st, NULL);
    ok(rc == 0 && row_is(&st, 0, "app/views.py", 0, 18000, 46) &&
           row_is(&st, 1, "app/db.py", 0, 15000, 46) && st.size == 20000,
       "cumulative: each frame counts, a repeated one again, the total once");
    site_stats_release(&st);
    struct err err = ERR_INIT;
    rc = site_stats_make(&s, SITES_BY_TRACEBACK, true, NULL, &st, &err);
    ok(rc == ERR_USAGE && err.remedy[0], "no cumulative tracebacks: refused with a remedy");
    snapshot_release(&s);
}

static uint64_t kept(const struct snapshot *s, const struct site_filter *items, size_t n,
                     const char *regex)
{
    struct site_filter copy[4];
    struct site_stats st;
    for (size_t i = 0; i < n; i++)
        copy[i] = items[i];
    const struct site_filters filters = {copy, n, regex};
    if (site_stats_make(s, SITES_BY_LINE, false, &filters, &st, NULL) < 0)
        return UINT64_MAX;
    uint64_t size = st.size + st.filtered_size == 20000 ? st.size : UINT64_MAX;
    site_stats_release(&st);
    return size;
}

static void test_filters(void)
{
    struct snapshot s;
    struct site_stats st;
    struct err err = ERR_INIT;
    const struct site_filter db = {.inclusive = true, .pattern = "app/db.pyc"};
    const struct site_filter main_any = {
        .inclusive = true, .pattern = "*main*", .all_frames = true};
    const struct site_filter not_line = {.pattern = "*", .line = 12};
    const struct site_filter domain = {.inclusive = true, .domain = 7, .has_domain = true};
    const struct site_filter not_zero = {.domain = 0, .has_domain = true};
    const struct site_filter pair[] = {db, not_zero}, either[] = {main_any, domain};
    const struct site_filter unknown = {.pattern = "<unknown>"};
    const struct site_filters bad = {.type_regex = "("};
    sample(&s);
    ok(kept(&s, &db, 1, NULL) == 14000, ".pyc is .py, in the pattern and in the name");
    ok(kept(&s, &main_any, 1, NULL) == 11000, "any frame");
    ok(kept(&s, &not_line, 1, NULL) == 6000, "a line left out");
    ok(kept(&s, &domain, 1, NULL) == 3000 && kept(&s, &not_zero, 1, NULL) == 3000, "domains");
    ok(kept(&s, pair, 2, NULL) == 3000, "an inclusive filter and an exclusive one: both");
    ok(kept(&s, either, 2, NULL) == 14000, "two inclusive filters: either");
    ok(kept(&s, &unknown, 1, NULL) == 18000, "what has no frames is <unknown> to filters, too");
    ok(kept(&s, NULL, 0, "^dict$|Session") == 14000, "types by regular expression");
    ok(site_stats_make(&s, SITES_BY_LINE, false, &bad, &st, &err) == ERR_USAGE && err.remedy[0],
       "a bad regular expression is refused with a remedy");
    snapshot_release(&s);
}

static void test_compare(void)
{
    struct snapshot a, b;
    struct site_stats st;
    sample(&a);
    sample(&b);
    b.n_sites = 0;
    put_site(&b, 0, 0, "dict", 31, 10010);
    put_site(&b, 1, 0, "dict", 7, 4010);
    put_site(&b, 4, 0, "list", 8, 1000);
    put_site(&b, 2, 0, NULL, UINT64_MAX, UINT64_MAX);
    int rc = site_stats_compare(&a, &b, SITES_BY_LINE, false, NULL, &st, NULL);
    ok(rc == 0 && st.n == 4 && st.rows[0].size == UINT64_MAX && st.rows[0].size_diff > 0 &&
           st.rows[0].count_diff > 0,
       "sums and differences stop where numbers end");
    ok(rc == 0 && st.rows[1].size == 0 && st.rows[1].size_diff == -2000 &&
           st.rows[1].count_diff == -20 && st.rows[1].snap == &a,
       "a key that is gone, from the old snapshot");
    ok(rc == 0 && row_is(&st, 2, "app/db.py", 12, 11010, 39) && st.rows[2].size_diff == 10 &&
           row_is(&st, 3, "app/views.py", 41, 4010, 7) && st.rows[3].count_diff == -1,
       "equal differences: by size");
    site_stats_release(&st);
    rc = site_stats_compare(&a, &a, SITES_BY_TRACEBACK, false, NULL, &st, NULL);
    bool zero = rc == 0;
    for (size_t i = 0; rc == 0 && i < st.n; i++)
        zero = zero && !st.rows[i].size_diff && !st.rows[i].count_diff;
    ok(zero && st.n == 6, "a snapshot and itself");
    site_stats_release(&st);
    snapshot_release(&a);
    snapshot_release(&b);
}

static void test_unsound(void)
{
    struct snapshot s;
    struct site_stats st;
    sample(&s);
    s.sites[3].traceback = 6;
    ok(site_stats_make(&s, SITES_BY_LINE, false, NULL, &st, NULL) == ERR_FORMAT,
       "a traceback that is not there");
    s.sites[3].traceback = 2;
    s.frame_ids[4] = FRAMES;
    ok(site_stats_make(&s, SITES_BY_LINE, false, NULL, &st, NULL) == ERR_FORMAT,
       "a frame that is not there");
    s.frame_ids[4] = DB;
    s.tracebacks[1].first = SIZE_MAX;
    ok(site_stats_make(&s, SITES_BY_FILE, true, NULL, &st, NULL) == ERR_FORMAT,
       "a list that is not there");
    snapshot_release(&s);
    snapshot_init(&s);
    int rc = site_stats_make(&s, SITES_BY_TRACEBACK, false, NULL, &st, NULL);
    ok(rc == 0 && st.n == 0, "an empty snapshot");
    site_stats_release(&st);
    snapshot_release(&s);
}

static void test_sizes(void)
{
    static const struct {
        double size;
        bool sign;
        const char *text;
    } cases[] = {
        {0, false, "0 B"},
        {0, true, "+0 B"},
        {10239, false, "10239 B"},
        {10240, false, "10.0 KiB"},
        {102399, true, "+100.0 KiB"},
        {102400, false, "100 KiB"},
        {-10485760, true, "-10.0 MiB"},
        {12058624, false, "11.5 MiB"},
        {1099511627776.0 * 20000, false, "20000 TiB"},
        {1205.4, false, "1205 B"},
    };
    char buf[48];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ok(strcmp(site_format_size(buf, sizeof buf, cases[i].size, cases[i].sign), cases[i].text) ==
               0,
           "%s", cases[i].text);
}

static bool matches(const char *name, const char *pattern)
{
    struct fnmatch_pattern p;
    if (fnmatch_compile(&p, pattern, strlen(pattern), NULL) < 0)
        return false;
    bool yes = fnmatch_test(&p, name, strlen(name));
    fnmatch_release(&p);
    return yes;
}

static void test_fnmatch(void)
{
    ok(matches("", "") && matches("", "**") && !matches("", "?") && !matches("a", ""), "nothing");
    ok(matches("a/.b", "*b") && matches("a\nb", "a?b"), "slashes, dots, line ends are characters");
    ok(matches("\\a", "\\?") && !matches("*", "\\*"), "a backslash is no escape");
    ok(matches("\u00e4", "?") && matches("\xff", "?") && matches("\u00e5", "[\u00e4-\u00f6]"),
       "characters, not bytes");
    ok(matches("]", "[]]") && matches("a", "[!]]") && matches("[", "[") && matches("-", "[a-]"),
       "brackets and hyphens in sets");
    ok(!matches("b", "[z-a]") && matches("b", "[!z-a]") && matches("c", "[z-ac]") &&
           matches("x", "[z-a!b]") && !matches("b", "[z-a!b]"),
       "empty ranges");
    ok(!matches("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "*a*a*a*a*a*a*a*a*a*a*a*a*b"),
       "many stars end");
}

/* ---- memory ---- */

static bool make_once(const struct snapshot *s, unsigned long i, unsigned *wrong)
{
    struct site_filter items[] = {{.inclusive = true, .pattern = "*"}};
    /* No regular expression: glibc's regcomp leaks when memory runs out within it. */
    const struct site_filters filters = {items, 1, NULL};
    struct site_stats st;
    calls = 0;
    fail_at = i;
    int rc = site_stats_compare(s, s, SITES_BY_TRACEBACK, false, &filters, &st, NULL);
    bool reached = calls >= i;
    if (rc == 0) {
        calls = 0;
        rc = site_stats_sort(&st, "count", true, NULL);
        site_stats_release(&st);
    }
    reached = reached || calls >= i;
    fail_at = 0;
    /* glibc's qsort goes on without memory. */
    if (rc < 0 && rc != ERR_NOMEM)
        (*wrong)++;
    return !reached;
}

static void test_memory(void)
{
    struct snapshot s;
    unsigned wrong = 0;
    unsigned long i = 1;
    sample(&s);
    while (i < 2000 && !make_once(&s, i, &wrong))
        i++;
    ok(wrong == 0 && i > 20 && i < 2000, "each of %lu allocations fails once", i - 1);
    snapshot_release(&s);
}

/* ---- texts ---- */

static void test_source(void)
{
    char name[] = "/tmp/test_sites.XXXXXX";
    struct site_source src;
    size_t len = 0;
    int fd = mkstemp(name);
    static const char text[] = "a = 1\r\n\t b \xc2\xa0\n\n# coding: utf-8\rlast";
    bool written = fd >= 0 && write(fd, text, sizeof text - 1) == (ssize_t)sizeof text - 1;
    if (fd >= 0)
        close(fd);
    site_source_init(&src);
    ok(written && memcmp(site_source_line(&src, name, 2, &len), "b", 1) == 0 && len == 1,
       "a stripped line");
    site_source_line(&src, name, 3, &len);
    ok(len == 0, "an empty line");
    ok(memcmp(site_source_line(&src, name, 5, &len), "last", 4) == 0 && len == 4, "the last line");
    site_source_line(&src, name, 6, &len);
    ok(len == 0, "behind the last");
    site_source_line(&src, name, 0, &len);
    ok(len == 0, "no line");
    site_source_line(&src, "/dev/zero", 1, &len);
    ok(len == 0, "a device is no source");
    site_source_add_root(&src, "/nowhere");
    site_source_line(&src, "/also/not", 1, &len);
    ok(len == 0, "no such file");
    site_source_release(&src);
    unlink(name);
}

static bool same_text(const char *path, const char *text)
{
    static char golden[1 << 16];
    const char *write_it = getenv("HEAPCENSUS_GOLDEN");
    bool writes = write_it && strcmp(write_it, "write") == 0;
    FILE *f = fopen(path, writes ? "w" : "r");
    if (!f)
        return false;
    if (writes)
        fputs(text, f);
    else
        golden[fread(golden, 1, sizeof golden - 1, f)] = '\0';
    fclose(f);
    if (!writes && strcmp(golden, text) != 0)
        diag("%s differs; now:\n%s", path, text);
    return writes || strcmp(golden, text) == 0;
}

struct table {
    const char *name;
    enum site_key key;
    bool cumulative, filtered;
    size_t top;
    struct report_options look;
};

static void golden(const struct snapshot *s, const struct table *t)
{
    struct site_filter item = {.pattern = "<unknown>"};
    const struct site_filters filters = {&item, t->filtered, NULL};
    struct site_stats st = {0};
    char path[128], *text = NULL;
    size_t len = 0;
    int rc = site_stats_make(s, t->key, t->cumulative, &filters, &st, NULL);
    size_t n = report_sites_choose(&st, 0, (long)t->top, 25);
    const struct report_sites r = {.snap = s,
                                   .stats = &st,
                                   .shown = n,
                                   .key = t->key,
                                   .cumulative = t->cumulative,
                                   .filtered = t->filtered};
    FILE *out = open_memstream(&text, &len);
    rc = rc == 0 ? report_text_sites(&r, &t->look, out, NULL) : rc;
    fclose(out);
    snprintf(path, sizeof path, "tests/golden/report_%s.txt", t->name);
    ok(rc == 0 && same_text(path, text), "%s", path);
    free(text);
    site_stats_release(&st);
}

static void test_golden(void)
{
    const struct report_options usual = {.target = "4711", .hint = true, .top = -1};
    struct report_options narrow = usual, exact = usual, colour = usual;
    struct snapshot s;
    narrow.width = 100;
    exact.exact = true;
    colour.colour = true;
    colour.hint = false;
    const struct table tables[] = {
        {"sites", SITES_BY_LINE, false, false, 0, usual},
        {"sites_exact", SITES_BY_FILE, false, true, 2, exact},
        {"sites_narrow", SITES_BY_TRACEBACK, false, false, 3, narrow},
        {"sites_cumulative", SITES_BY_FILE, true, false, 2, colour},
    };
    sample(&s);
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++)
        golden(&s, &tables[i]);
    s.frames[DB].file = "\x1b]0;x\x07/a/very/long/name/of/a/file/that/does/not/fit/\u00e4.py";
    s.frames[DB].function = "f";
    golden(&s, &(struct table){"sites_hostile", SITES_BY_LINE, false, false, 0, narrow});
    s.tracing.present = false;
    s.n_sites = 0;
    golden(&s, &(struct table){"sites_lost", SITES_BY_LINE, false, false, 0, usual});
    s.python.tracemalloc = false;
    golden(&s, &(struct table){"sites_off", SITES_BY_LINE, false, false, 0, usual});
    snapshot_release(&s);
}

int main(void)
{
    test_keys();
    test_filters();
    test_compare();
    test_unsound();
    test_sizes();
    test_fnmatch();
    test_memory();
    test_source();
    test_golden();
    return done_testing();
}
