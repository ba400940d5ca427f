/* Fuzzes the reader of snapshot files, and what must hold for every file that it accepts: written
 * out, it reads back, and writing it again gives the same bytes; every view can be written, as JSON
 * and as text, in every order and grouping.
 *
 * The first byte of the input chooses the flags, the rest is the file. Seeds: "s" (or "p" for
 * partial) in front of real snapshots, plain and packed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/report.h"
#include "formats/sink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_views(const struct snapshot *s)
{
    static const char *const views[] = {"summary", "types", "sizes", "arenas", "malloc", "maps"};
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) {
        struct sink_memory m;
        sink_memory_init(&m);
        must(json_write_view(s, views[i], &m.sink, NULL) == 0);
        sink_memory_release(&m);
    }
}

static void check_text(const struct snapshot *s)
{
    static const struct report_options options[] = {
        {.target = "x", .top = -1, .hint = true},
        {.target = "x", .top = 1, .by = "module", .sort = "name", .exact = true},
        {.target = "x", .top = 0, .by = "package", .sort = "buffers", .reverse = true},
        {.target = "x", .top = -1, .by = "size", .sort = "bytes"},
    };
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        for (const struct report_view *v = report_text_views; v->name; v++) {
            char *text = NULL;
            size_t len = 0;
            FILE *out = open_memstream(&text, &len);
            must(out != NULL);
            int rc = v->write(s, &options[i], out, NULL);
            must(fclose(out) == 0 && (rc == 0 || (rc == ERR_USAGE && !s->n_blocks)));
            free(text);
        }
}

/* Last: this changes the snapshot. */
static void check_arranged(struct snapshot *s)
{
    static const struct report_options opt = {.target = "x", .top = 5, .by = "package"};
    must(report_arrange(s, "types", &opt, NULL) == 0 && s->n_types <= 5);
    check_views(s);
}

static void check_round_trip(const struct snapshot *s)
{
    struct snapshot again;
    struct sink_memory a, b;
    sink_memory_init(&a);
    sink_memory_init(&b);
    must(json_write_snapshot(s, &a.sink, NULL) == 0);
    must(json_load_bytes(a.bytes, a.n, "again", 0, &again, NULL) == 0);
    must(json_write_snapshot(&again, &b.sink, NULL) == 0);
    must(a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0);
    snapshot_release(&again);
    sink_memory_release(&a);
    sink_memory_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct snapshot s;
    struct err err = ERR_INIT;
    if (size == 0)
        return 0;
    unsigned flags = data[0] == 'p' ? JSON_PARTIAL : 0;
    int rc = json_load_bytes(data + 1, size - 1, "fuzz", flags, &s, &err);
    must(rc <= 0 && (rc == 0) == (err.code == 0));
    if (rc < 0)
        return 0;
    check_views(&s);
    check_round_trip(&s);
    check_text(&s);
    check_arranged(&s);
    snapshot_release(&s);
    return 0;
}

#ifdef FUZZ_MAIN
#define FUZZ_SEED snapshot_seed
#include "tests/fuzz/driver.h"
#include "tests/unit/test_json_sample.h"

/* The sample of the unit tests, less some of its lines: few lines, so that changes to them more
 * often leave a file that is accepted. */
static size_t snapshot_seed(unsigned n, uint8_t *buf, size_t cap)
{
    struct snapshot s;
    struct sink_memory m;
    size_t used = 1, line = 0;
    sample(&s);
    sink_memory_init(&m);
    must(json_write_snapshot(&s, &m.sink, NULL) == 0);
    buf[0] = 'p';
    for (size_t at = 0, end; at < m.n; at = end, line++) {
        const char *newline = memchr(m.bytes + at, '\n', m.n - at);
        end = newline ? (size_t)(newline - m.bytes) + 1 : m.n;
        if ((line && (n * 2654435761u >> line % 28) % 4) || used + end - at > cap)
            continue;
        memcpy(buf + used, m.bytes + at, end - at);
        used += end - at;
    }
    sink_memory_release(&m);
    snapshot_release(&s);
    return used;
}
#endif
