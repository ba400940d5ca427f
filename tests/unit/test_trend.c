/* Trends: series, slopes, what never fell, the order of time; memory that runs out. */
#define _GNU_SOURCE 1 /* memmem */
#include <stdio.h>
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

enum { POINTS = 4 };
static const uint64_t leak[POINTS] = {100, 300, 500, 700}, noise[POINTS] = {900, 5000, 100, 2000},
                      same[POINTS] = {50, 50, 50, 50}, step[POINTS] = {10, 10, 30, 30},
                      fall[POINTS] = {40, 30, 20, 10};
static const char *const times[POINTS] = {"2026-11-21T08:00:00Z", "2026-11-21T08:30:00Z",
                                          "2026-11-21T09:00:00Z", "2026-11-21T09:30:00Z"};

static void make_point(struct snapshot *s, size_t i)
{
    sample_init(s, times[i]);
    sample_type(s, "Leak", "app", leak[i] / 10, leak[i], 0);
    sample_type(s, "Noise", "app", 1, noise[i], 0);
    sample_type(s, "Same", "app", 1, same[i], 0);
    sample_type(s, "Step", "app", 1, step[i], 0);
    sample_type(s, "Fall", "app", 1, fall[i], 0);
    if (i == 2)
        sample_type(s, "Once", "app", 1, 77, 0);
}

static int make_trend(struct trend *t, const size_t *order, size_t n, uint64_t min_size,
                      struct err *err)
{
    int rc = 0;
    trend_init(t, FIGURES_BY_TYPE);
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct snapshot s;
        char name[16];
        unsigned long at = fail_at;
        fail_at = 0; /* what is under test is the trend, not the sample */
        make_point(&s, order[i]);
        fail_at = at;
        snprintf(name, sizeof name, "s%zu", order[i]);
        rc = trend_add(t, &s, name, NULL, err);
        snapshot_release(&s);
    }
    return rc < 0 ? rc : trend_settle(t, min_size, err);
}

static const struct trend_row *find(const struct trend *t, const char *key)
{
    for (size_t i = 0; i < t->n; i++)
        if (strcmp(t->rows[i].key, key) == 0)
            return &t->rows[i];
    return NULL;
}

static bool near(double a, double b)
{
    return a - b < 1e-6 && b - a < 1e-6;
}

static void test_rows(void)
{
    static const size_t mixed[POINTS] = {2, 0, 3, 1};
    struct trend t;
    struct err err = ERR_INIT;
    if (!ok(make_trend(&t, mixed, POINTS, 0, &err) == 0, "four snapshots %s", err.text))
        return;
    ok(t.reordered && strcmp(t.points[0].name, "s0") == 0 && strcmp(t.points[3].name, "s3") == 0 &&
           t.points[3].seconds == 5400,
       "by time, whatever the order of the words");
    const struct trend_row *r = find(&t, "Leak");
    ok(r && memcmp(r->bytes, leak, sizeof leak) == 0 && r->count[3] == 70, "a series");
    ok(r && r->monotone && r->bytes_diff == 600 && near(r->bytes_slope, 400) &&
           near(r->count_slope, 40),
       "its slope per hour");
    ok(t.rows[0].key == r->key && strcmp(t.rows[1].key, "Step") == 0 && t.rows[1].monotone,
       "what never fell comes first");
    r = find(&t, "Noise");
    /* (x - mean) is -0.75, -0.25, 0.25, 0.75 hours */
    ok(r && !r->monotone &&
           near(r->bytes_slope, (-0.75 * 900 - 0.25 * 5000 + 0.25 * 100 + 0.75 * 2000) / 1.25),
       "least squares");
    r = find(&t, "Once");
    ok(r && r->bytes[0] == 0 && r->bytes[2] == 77 && r->bytes[3] == 0 && !r->monotone,
       "a key that is not in all");
    r = find(&t, "Same");
    ok(r && !r->monotone && r->bytes_slope == 0, "what stays is no grower");
    ok(t.rss.bytes[0] == 1100 && t.total.bytes[3] == 2790 && t.in_use.bytes[1] == t.rss.bytes[1],
       "sums");
    ok(trend_sort(&t, "bytes", true) && t.rows[t.n - 1].key == find(&t, "Noise")->key &&
           trend_sort(&t, "slope", false) && t.rows[0].key == find(&t, "Leak")->key &&
           !trend_sort(&t, "size", false),
       "orders");
    trend_release(&t);
    ok(make_trend(&t, mixed, POINTS, 100, NULL) == 0 && t.n == 2, "--min-size");
    trend_release(&t);
}

static void test_few(void)
{
    static const size_t two[] = {0, 1};
    struct trend t;
    struct err err = ERR_INIT;
    ok(make_trend(&t, two, 2, 0, &err) == ERR_USAGE && strstr(err.remedy, "diff"), "%s: %s",
       err.text, err.remedy);
    trend_release(&t);
}

/* Without times, or all at one time, there is an order but no slope. */
static void test_untimed(void)
{
    for (int timed = 0; timed < 2; timed++) {
        struct trend t;
        trend_init(&t, FIGURES_BY_TYPE);
        int rc = 0;
        for (size_t i = 0; i < 3 && rc == 0; i++) {
            struct snapshot s;
            make_point(&s, 2 - i);
            s.taken_at = timed ? times[0] : i == 1 ? NULL : times[i];
            s.source.pid += (int64_t)i;
            rc = trend_add(&t, &s, "s", NULL, NULL);
            snapshot_release(&s);
        }
        if (ok(rc == 0 && trend_settle(&t, 0, NULL) == 0, "without times"))
            ok(!find(&t, "Leak")->has_slope && find(&t, "Leak")->bytes_diff == -400 &&
                   !t.reordered && t.other_process,
               "in the order of the words");
        trend_release(&t);
    }
}

static int once(struct sink_memory *out, char **text, size_t *len, struct err *err)
{
    static const size_t order[POINTS] = {0, 1, 2, 3};
    static const struct report_options opt = {.top = -1};
    struct trend t;
    sink_memory_init(out);
    int rc = make_trend(&t, order, POINTS, 0, err);
    if (rc == 0)
        rc = json_write_trend(&t, 0, &out->sink, err);
    if (rc == 0 && !fail_at) {
        FILE *f = open_memstream(text, len);
        rc = f ? report_trend(&t, &opt, f, err) : ERR_NOMEM;
        if (f)
            fclose(f);
    }
    trend_release(&t);
    return rc;
}

static void test_failures(void)
{
    struct sink_memory out;
    struct err err = ERR_INIT;
    char *text = NULL;
    size_t len = 0;
    int rc = ERR_NOMEM;
    bool told = true;
    for (fail_at = 1; rc < 0 && fail_at < 5000; fail_at++) {
        calls = 0;
        err_clear(&err);
        rc = once(&out, &text, &len, &err);
        told = told && (rc == 0 || (rc == ERR_NOMEM && err.text[0]));
        sink_memory_release(&out);
    }
    ok(told && rc == 0 && fail_at > 5, "each failed allocation is told");
    fail_at = 0;
    ok(once(&out, &text, &len, &err) == 0 && out.n &&
           memmem(out.bytes, out.n, "\"bytes_per_hour\":400,", 21),
       "the document");
    ok(text && strstr(text, "never fell") && strstr(text, "1.50 hours"), "the text");
    free(text);
    sink_memory_release(&out);
}

int main(void)
{
    test_rows();
    test_few();
    test_untimed();
    test_failures();
    return done_testing();
}
