/* Gates: what they may say, and when they trip. */
#include <string.h>

#include "formats/gate.h"
#include "tests/lib/tap.h"
#include "tests/unit/test_diff_sample.h"

static void make_two(struct snapshot *a, struct snapshot *b)
{
    sample_init(a, "2026-11-21T08:00:00Z");
    sample_type(a, "app.Session", "app", 1000, 100000, 0);
    sample_type(a, "app.Row", "app", 10, 1000, 0);
    sample_type(a, "f.<locals>.T", "f", 1, 100, 0);
    sample_trace(a, 1);
    sample_site(a, "app/db.py", 12, 0, "app.Session", 1000, 100000);
    sample_init(b, "2026-11-21T09:00:00Z");
    sample_type(b, "app.Session", "app", 2001, 200100, 0);
    sample_type(b, "app.Row", "app", 5, 500, 0);
    sample_type(b, "f.<locals>.T", "f", 2, 200, 0);
    sample_type(b, "app.New", "app", 1, 50, 0);
    sample_trace(b, 1);
    sample_site(b, "app/db.py", 12, 0, "app.Session", 2000, 200000);
    sample_site(b, "app/db.py", 13, 0, "app.Session", 1, 100);
}

static const struct {
    const char *text;
    int trips; /* -1: it is refused */
    uint64_t old_value, new_value;
} cases[] = {
    {"type:app.Session>+1000", 1, 1000, 2001},
    {"type:app.Session>+1001", 0, 1000, 2001},
    {"type:app.Session>=+1001", 1, 1000, 2001},
    {"type:app.Session > + 1000 ", 1, 1000, 2001},
    {"type:app.Session>2000", 1, 1000, 2001},
    {"type:app.Session>2001", 0, 1000, 2001},
    {"type:app.Session>+100099B", 1, 100000, 200100},
    {"type:app.Session>+100100B", 0, 100000, 200100},
    {"type:app.Session>+97KiB", 1, 100000, 200100},
    {"type:app.Session>+0.5MiB", 0, 100000, 200100},
    {"type:app.Session>+100%", 1, 100000, 200100},
    {"type:app.Session>+101%", 0, 100000, 200100},
    {"type:app.Session>+100.1%", 0, 100000, 200100},
    {"type:app.Session>+100.099%", 1, 100000, 200100},
    {"type:app.Session>+97.753906KiB", 1, 100000, 200100},
    {"type:app.Row>+0", 0, 10, 5},
    {"type:app.*>+995", 1, 1010, 2007},
    {"type:app.*>+997", 0, 1010, 2007},
    {"type:app.?ow>4", 1, 10, 5},
    {"type:f.<locals>.T>+0", 1, 1, 2},
    {"type:app.New>+900%", 1, 0, 50},
    {"type:nobody>+0", 0, 0, 0},
    {"type:nobody>+0%", 0, 0, 0},
    {"type:nobody>=0", 1, 0, 0},
    {"module:app>+996", 1, 1010, 2007},
    {"package:app>+1GiB", 0, 101000, 200650},
    {"package:f>+1TiB", 0, 100, 200},
    {"category:python.blocks.used>+996", 1, 1011, 2009},
    {"category:python.*>+90kib", 1, 101100, 200850},
    {"file:app/*.py>+1000", 1, 1000, 2001},
    {"file:*/db.py>+1001", 0, 1000, 2001},
    {"file:other.py>0", 0, 0, 0},
    {"line:app/db.py:12>+999", 1, 1000, 2000},
    {"line:*/db.py:13>+99B", 1, 0, 100},
    {"line:app/db.py:14>+0", 0, 0, 0},
    {"total>+5%", 1, 101100, 200850},
    {"total>+98%", 1, 101100, 200850},
    {"total>+99%", 0, 101100, 200850},
    {"total>200849", 1, 101100, 200850},
    {"rss>+1MiB", 0, 101100, 200850},
    {"rss>+99749", 1, 101100, 200850},
    {"traced>+100099", 1, 100000, 200100},
    {"traced>+100100", 0, 100000, 200100},
    {"", -1, 0, 0},
    {">", -1, 0, 0},
    {"total", -1, 0, 0},
    {"total>", -1, 0, 0},
    {"total>+", -1, 0, 0},
    {"total>-5", -1, 0, 0},
    {"total>+5 percent", -1, 0, 0},
    {"total>+5%%", -1, 0, 0},
    {"total>5%", -1, 0, 0},
    {"total>+0x10", -1, 0, 0},
    {"total>+inf", -1, 0, 0},
    {"total>+1e3", -1, 0, 0},
    {"total>+1234567890123", -1, 0, 0},
    {"total>+0.0000001%", -1, 0, 0},
    {"total>+5.", -1, 0, 0},
    {"total>+999999999999999999999999999999", -1, 0, 0},
    {"totals>+5", -1, 0, 0},
    {"total<5", -1, 0, 0},
    {"type:>+5", -1, 0, 0},
    {"type>+5", -1, 0, 0},
    {"size:64>+5", -1, 0, 0},
    {"type:a>+1.5", -1, 0, 0},
    {"category:nothing>+5", -1, 0, 0},
    {"line:app/db.py>+5", -1, 0, 0},
    {"line:app/db.py:0>+5", -1, 0, 0},
    {"line:app/db.py:12x>+5", -1, 0, 0},
    {"line::12>+5", -1, 0, 0},
    {"line:a:99999999999>+5", -1, 0, 0},
};

static void test_refused(const char *text)
{
    struct gate g;
    struct err err = ERR_INIT;
    ok(gate_parse(text, &g, &err) == ERR_USAGE && err.text[0] && err.remedy[0] &&
           !strchr(err.text, '\n'),
       "refused: %s", err.text);
}

static void test_cases(void)
{
    struct snapshot a, b;
    make_two(&a, &b);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gate g;
        struct gate_result r;
        struct err err = ERR_INIT;
        if (cases[i].trips < 0) {
            test_refused(cases[i].text);
            continue;
        }
        if (!ok(gate_parse(cases[i].text, &g, &err) == 0, "'%s' %s", cases[i].text, err.text) ||
            !ok(gate_check(&g, &a, &b, &r, &err) == 0, "is checked %s", err.text))
            continue;
        if (!ok(r.tripped == cases[i].trips && r.old_value == cases[i].old_value &&
                    r.new_value == cases[i].new_value,
                "'%s' %s", cases[i].text, cases[i].trips ? "trips" : "passes"))
            diag("%llu -> %llu", (unsigned long long)r.old_value, (unsigned long long)r.new_value);
    }
    snapshot_release(&a);
    snapshot_release(&b);
}

static void test_rows(void)
{
    struct snapshot a, b;
    struct gate g;
    struct gate_result r;
    make_two(&a, &b);
    ok(gate_parse("total>+1", &g, NULL) == 0 && gate_check(&g, &a, &b, &r, NULL) == 0, "total");
    ok(r.n_rows == 3 && strcmp(r.rows[0].key, "app.Session") == 0 &&
           r.rows[0].bytes_diff == 100100 && r.rows[0].count_diff == 1001,
       "is explained by the types that grew, most first");
    ok(gate_parse("rss>+1", &g, NULL) == 0 && gate_check(&g, &a, &b, &r, NULL) == 0 &&
           r.n_rows == 1 && strcmp(r.rows[0].key, "python.blocks.used") == 0,
       "rss by categories");
    ok(gate_parse("traced>+1", &g, NULL) == 0 && gate_check(&g, &a, &b, &r, NULL) == 0 &&
           r.n_rows == 2 && strcmp(r.rows[0].key, "app/db.py:12") == 0,
       "traced by lines");
    ok(gate_parse("type:app.*>1", &g, NULL) == 0 && gate_check(&g, &a, &b, &r, NULL) == 0 &&
           r.n_rows == 3 && strcmp(r.rows[1].key, "app.Row") == 0,
       "what there is by the largest");
    snapshot_release(&a);
    snapshot_release(&b);
}

/* A gate that cannot trip is no gate. */
static void test_cannot_tell(void)
{
    static const char *const texts[] = {"type:app.Session>+1", "module:app>+1", "traced>+1",
                                        "file:*>+1", "line:*:1>+1"};
    struct snapshot a, b;
    struct gate g;
    struct gate_result r;
    make_two(&a, &b);
    a.tracing.present = false;
    a.objects.present = false;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct err err = ERR_INIT;
        ok(gate_parse(texts[i], &g, NULL) == 0 && gate_check(&g, &a, &b, &r, &err) == ERR_USAGE &&
               err.remedy[0],
           "%s", err.text);
    }
    ok(gate_parse("total>+5%", &g, NULL) == 0 && gate_check(&g, &a, &b, &r, NULL) == 0 &&
           r.tripped && r.n_rows == 0,
       "total needs no types");
    snapshot_release(&a);
    snapshot_release(&b);
}

int main(void)
{
    test_cases();
    test_rows();
    test_cannot_tell();
    return done_testing();
}
