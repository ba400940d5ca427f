/* Fuzzes comparisons: whatever file the reader accepts is compared with a sound one, both ways, by
 * every key and by identity, judged, reported as text and as JSON, put through a gate and a trend.
 *
 * The input's first line is a gate, the rest is the file. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/diff_report.h"
#include "formats/json.h"
#include "formats/sink.h"
#include "tests/unit/test_json_sample.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* A failure of a comparison of files is the user's to mend, and says how. */
static bool fits(int rc, const struct err *err)
{
    return rc == 0 || (rc == ERR_USAGE && err->text[0] && err->remedy[0]);
}

static void check_reports(const struct diff_report *r)
{
    static const struct report_options options[] = {{.top = -1, .hint = true, .width = 60},
                                                    {.top = 0, .exact = true}};
    struct sink_memory m;
    sink_memory_init(&m);
    must(json_write_diff(r, 0, &m.sink, NULL) == 0);
    sink_memory_release(&m);
    for (size_t i = 0; i < 2; i++) {
        char *text = NULL;
        size_t len = 0;
        FILE *out = open_memstream(&text, &len);
        must(out && report_diff(r, &options[i], out, NULL) == 0 && fclose(out) == 0);
        free(text);
    }
}

static void check_identity(struct diff_report *r, struct snapshot *a, struct snapshot *b,
                           enum figure_key key)
{
    struct block_stream *x = NULL, *y = NULL;
    struct diff_identity d;
    struct err err = ERR_INIT;
    must(block_stream_open_snapshot(a, &x, NULL) == 0 &&
         block_stream_open_snapshot(b, &y, NULL) == 0);
    struct diff_side old_side = {a, x, "old"}, new_side = {b, y, "new"};
    int rc = diff_identify(&old_side, &new_side, key, 0, NULL, &d, &err);
    must(fits(rc, &err) || rc == ERR_FORMAT);
    if (rc == 0) {
        struct diff_verdict v = *r->verdict;
        struct diff_report blocks = *r;
        diff_judge_identity(&d, &v);
        blocks.by = &d.by;
        blocks.also = d.has_also ? &d.also : NULL;
        blocks.identity = &d;
        blocks.verdict = &v;
        check_reports(&blocks);
        diff_identity_release(&d);
    }
    block_stream_close(x);
    block_stream_close(y);
}

static void check_pair(struct snapshot *a, struct snapshot *b, const struct gate *gate)
{
    struct diff_warnings w;
    struct diff_verdict v;
    struct gate_result result;
    struct err err = ERR_INIT;
    diff_warn(a, b, &w);
    must(diff_judge(a, b, &v, NULL) == 0);
    struct diff_report r = {.old_snap = a, .new_snap = b, .old_name = "a", .new_name = "b"};
    r.warnings = &w;
    r.verdict = &v;
    if (gate) {
        int rc = gate_check(gate, a, b, &result, &err);
        must(fits(rc, &err));
        r.n_gates = rc == 0;
        r.gates = &result;
    }
    for (int key = 0; key < FIGURE_KEYS; key++) {
        struct diff d;
        err_clear(&err);
        int rc = diff_make(a, b, (enum figure_key)key, NULL, &d, &err);
        must(fits(rc, &err));
        if (rc == 0) {
            r.by = &d;
            check_reports(&r);
            must(diff_sort(&d, "name", true) && diff_sort(&d, "count-growth", false));
            diff_release(&d);
        }
        check_identity(&r, a, b, (enum figure_key)key);
    }
}

static void check_trend(struct snapshot *a, struct snapshot *b)
{
    struct snapshot *points[] = {a, b, a, b};
    for (int key = 0; key < FIGURE_KEYS; key++) {
        struct trend t;
        struct sink_memory m;
        struct err err = ERR_INIT;
        int rc = 0;
        trend_init(&t, (enum figure_key)key);
        sink_memory_init(&m);
        for (size_t i = 0; i < 4 && rc == 0; i++)
            rc = trend_add(&t, points[i], "x", NULL, &err);
        if (rc == 0)
            rc = trend_settle(&t, 0, &err);
        must(fits(rc, &err));
        must(rc < 0 || json_write_trend(&t, 0, &m.sink, NULL) == 0);
        sink_memory_release(&m);
        trend_release(&t);
    }
}

/* What makes two snapshots those of one run of a process. */
static void place(struct snapshot *s)
{
    struct snapshot_mapping *m = snapshot_add_mapping(s);
    must(m != NULL);
    *m = (struct snapshot_mapping){.address = 0x7ffc00000000, .size = 4096, .path = "[vdso]"};
    m->kind = "kernel";
}

static void check_file(const uint8_t *data, size_t size, const struct gate *gate)
{
    struct snapshot good, odd;
    if (json_load_bytes(data, size, "fuzz", JSON_PARTIAL, &odd, NULL) < 0)
        return;
    sample(&good);
    place(&good);
    place(&odd);
    check_pair(&good, &odd, gate);
    check_pair(&odd, &good, gate);
    check_trend(&good, &odd);
    snapshot_release(&good);
    snapshot_release(&odd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *newline = size ? memchr(data, '\n', size) : NULL;
    struct gate gate;
    struct err err = ERR_INIT;
    if (!newline)
        return 0;
    char *text = strndup((const char *)data, (size_t)(newline - data));
    must(text != NULL);
    int rc = gate_parse(text, &gate, &err);
    must(fits(rc, &err));
    check_file(newline + 1, size - (size_t)(newline + 1 - data), rc == 0 ? &gate : NULL);
    free(text);
    return 0;
}

#ifdef FUZZ_MAIN
#define FUZZ_SEED diff_seed
#include "tests/fuzz/driver.h"

/* A gate, then the sample of the unit tests less some of its lines. */
static size_t diff_seed(unsigned n, uint8_t *buf, size_t cap)
{
    static const char *const gates[] = {"total>+5%\n", "type:*>+10\n", "file:*.py>1KiB\n",
                                        "line:*:3>=+1.5MiB\n", "category:malloc.*>0\n"};
    const char *gate = gates[n % 5];
    struct snapshot s;
    struct sink_memory m;
    size_t used = strlen(gate), line = 0;
    sample(&s);
    sink_memory_init(&m);
    must(json_write_snapshot(&s, &m.sink, NULL) == 0);
    memcpy(buf, gate, used);
    for (size_t at = 0, end; at < m.n; at = end, line++) {
        const char *next = memchr(m.bytes + at, '\n', m.n - at);
        end = next ? (size_t)(next - m.bytes) + 1 : m.n;
        if ((line && (n * 2654435761u >> line % 28) % 8 == 1) || used + end - at > cap)
            continue;
        memcpy(buf + used, m.bytes + at, end - at);
        used += end - at;
    }
    sink_memory_release(&m);
    snapshot_release(&s);
    return used;
}
#endif
