/* Fuzzes the reader of snapshot files, and what must hold for every file that it accepts: written
 * out, it reads back, and writing it again gives the same bytes; every view can be written, as JSON
 * and as text, in every order and grouping; its blocks come one by one as they come all at once. A
 * file is read alike, or refused alike, by the scanner of our own form and by jansson.
 *
 * The first byte of the input chooses the flags, the rest is the file. Seeds: "s" (or "p" for
 * partial) in front of real snapshots, plain and packed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/block_stream.h"
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

static void check_sites(const struct snapshot *s)
{
    for (int key = SITES_BY_FILE; key <= SITES_BY_TRACEBACK; key++) {
        struct site_stats stats;
        struct sink_memory m;
        must(site_stats_make(s, (enum site_key)key, key == SITES_BY_LINE, NULL, &stats, NULL) == 0);
        struct json_sites view = {&stats, (enum site_key)key, key == SITES_BY_LINE, stats.n};
        sink_memory_init(&m);
        must(json_write_sites(s, &view, &m.sink, NULL) == 0);
        sink_memory_release(&m);
        site_stats_release(&stats);
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

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

/* One by one, until the stream ends or says no more. */
static int compare(struct block_stream *stream, const struct snapshot *s, size_t *n)
{
    struct block_row row;
    int rc;
    for (*n = 0; (rc = block_stream_next(stream, &row, NULL)) > 0; ++*n) {
        must(*n < s->n_blocks);
        const struct snapshot_block *b = &s->blocks[*n];
        must(row.address == b->address && row.size == b->size && row.owner == b->owner);
        must(row.site == b->site && same_text(row.type, b->type));
        must(row.kind == row_kind_of_name(b->kind));
    }
    return rc;
}

static bool in_order(const struct snapshot *s)
{
    for (size_t i = 1; i < s->n_blocks; i++)
        if (s->blocks[i].address <= s->blocks[i - 1].address)
            return false;
    return true;
}

/* A stream gives what a load gives; it may refuse more, but for no reason that is not told. */
static void check_stream(const uint8_t *data, size_t size, unsigned flags, struct snapshot *s)
{
    struct block_stream *stream;
    struct snapshot t;
    struct err err = ERR_INIT;
    size_t n;
    int rc = block_stream_open_bytes(data, size, "fuzz", flags, &t, &stream, &err);
    if (rc == 0) {
        rc = compare(stream, s, &n);
        must(rc < 0 || (n == s->n_blocks && t.complete == s->complete));
        block_stream_close(stream);
        snapshot_release(&t);
    }
    must(rc == 0 || rc == ERR_FORMAT);
    must(block_stream_open_snapshot(s, &stream, NULL) == 0);
    rc = compare(stream, s, &n);
    must(rc == (in_order(s) ? 0 : ERR_FORMAT) && (rc < 0 || n == s->n_blocks));
    block_stream_close(stream);
}

/* The same file in a form that is not ours: a blank in front of each line. */
static void check_other_form(const uint8_t *data, size_t size, unsigned flags, int want,
                             const struct snapshot *s)
{
    struct snapshot t;
    struct sink_memory spaced, a, b;
    if (size >= 2 && data[0] == 0x1f && data[1] == 0x8b)
        return;
    sink_memory_init(&spaced);
    for (size_t i = 0; i < size; i++) {
        if (i == 0 || data[i - 1] == '\n')
            must(sink_puts(&spaced.sink, " ", NULL) == 0);
        must(sink_write(&spaced.sink, data + i, 1, NULL) == 0);
    }
    int rc = json_load_bytes(spaced.bytes, spaced.n, "fuzz", flags, &t, NULL);
    must(rc == want);
    sink_memory_release(&spaced);
    if (rc < 0)
        return;
    sink_memory_init(&a);
    sink_memory_init(&b);
    must(json_write_snapshot(s, &a.sink, NULL) == 0 && json_write_snapshot(&t, &b.sink, NULL) == 0);
    must(a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0);
    sink_memory_release(&a);
    sink_memory_release(&b);
    snapshot_release(&t);
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
    check_other_form(data + 1, size - 1, flags, rc, &s);
    if (rc < 0)
        return 0;
    check_stream(data + 1, size - 1, flags, &s);
    check_views(&s);
    check_sites(&s);
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

/* Records that refer to each other: one that is missing leaves little of the rest. */
static bool keeps(const char *line)
{
    static const char *const names[] = {"frame\"", "traceback\"", "site\"", "blocks\"", "end\""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strncmp(line + strlen("{\"record\":\""), names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

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
        bool take = n % 2 ? keeps(m.bytes + at) : (n * 2654435761u >> line % 28) % 4 == 0;
        if ((line && !take) || used + end - at > cap)
            continue;
        memcpy(buf + used, m.bytes + at, end - at);
        used += end - at;
    }
    sink_memory_release(&m);
    snapshot_release(&s);
    return used;
}
#endif
