/* Fuzzes the exports: of every snapshot that is sound, which is what readers and the walker
 * promise, each can be written, or is refused with a reason; and what is written keeps its form:
 * lines of text have no control characters and no bytes that are no UTF-8, tables have a line for
 * each row.
 *
 * The input is a stream of numbers and texts that the snapshot is made of; fuzz_snapshot.c is the
 * one of files. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/utf8.h"
#include "formats/export.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* A few bytes of a file can claim a hundred million traces: enough is written of them. */
enum { ENOUGH = 1 << 20 };

struct limited {
    struct sink sink;
    struct sink_memory below;
};

static int limited_write(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    struct limited *l = (struct limited *)sink;
    if (l->below.n + len > ENOUGH)
        return err_set(err, ERR_INTERRUPTED, "enough");
    return sink_write(&l->below.sink, bytes, len, err);
}

static void begin(struct limited *l)
{
    l->sink.write = limited_write;
    sink_memory_init(&l->below);
}

static void end(struct limited *l)
{
    sink_memory_release(&l->below);
}

/* Written, or refused with both lines; the text formats that way for nothing but their length. */
static bool written(int rc, const struct err *err, bool may_refuse)
{
    must(rc == err->code);
    must(rc == 0 || rc == ERR_INTERRUPTED || (may_refuse && err->text[0] && err->remedy[0]));
    return rc == 0;
}

/* Number of lines; each ends, and is text. */
static size_t check_lines(const struct limited *l, char before_newline)
{
    const char *p = l->below.bytes, *stop = p + l->below.n;
    size_t n = 0;
    uint32_t code;
    must(l->below.n == 0 || stop[-1] == '\n');
    while (p < stop) {
        size_t len = utf8_character(p, &code);
        bool line_end = *p == '\n' || (*p == '\r' && before_newline == '\r' && p[1] == '\n');
        must(len && (line_end || (code >= 0x20 && (code < 0x7f || code >= 0xa0))));
        must(*p != '\n' || !before_newline || p[-1] == before_newline);
        n += *p == '\n';
        p += len;
    }
    return n;
}

static size_t kept_of(const struct snapshot *s, const uint8_t *keep)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_sites; i++)
        n += keep[i];
    return n;
}

static void check_rows(const struct snapshot *s, const uint8_t *keep)
{
    static const char *const tables[] = {"site", "type", "size", "arena", "category", "mapping"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        struct limited csv, json;
        struct err e1 = ERR_INIT, e2 = ERR_INIT;
        begin(&csv);
        begin(&json);
        int rc = export_rows(s, tables[i], ROWS_CSV, keep, 0, &csv.sink, &e1);
        bool good = written(rc, &e1, false);
        rc = export_rows(s, tables[i], ROWS_NDJSON, keep, 3, &json.sink, &e2);
        if (written(rc, &e2, false) && good) {
            size_t n = check_lines(&csv, '\r');
            must(n == check_lines(&json, '}') + 1);
            must(i > 0 || n == kept_of(s, keep) + 1);
        }
        end(&csv);
        end(&json);
    }
}

static void check_blocks(struct snapshot *s)
{
    struct block_stream *blocks = NULL;
    struct limited l;
    struct err err = ERR_INIT;
    if (block_stream_open_snapshot(s, &blocks, &err) < 0)
        return;
    begin(&l);
    int rc = export_blocks(s, blocks, ROWS_CSV, &l.sink, &err);
    if (written(rc, &err, s->n_blocks == 0))
        must(check_lines(&l, '\r') == s->n_blocks + 1);
    end(&l);
    block_stream_close(blocks);
}

static void check_stacks(const struct snapshot *s, const uint8_t *keep)
{
    struct site_stacks stacks;
    struct limited l;
    struct err err = ERR_INIT;
    struct pprof_about about = {s->source.exe, s->source.exe_build_id, 1, {s->host, NULL}};
    site_stacks_init(&stacks, s, keep);
    begin(&l);
    if (written(export_folded(&stacks.stacks, FOLDED_BYTES, &l.sink, &err), &err, false))
        must(check_lines(&l, 0) <= kept_of(s, keep));
    end(&l);
    err_clear(&err);
    begin(&l);
    if (written(export_speedscope(&stacks.stacks, "x", &l.sink, &err), &err, false))
        must(check_lines(&l, '}') == 1);
    end(&l);
    err_clear(&err);
    begin(&l);
    (void)written(export_pprof(&stacks.stacks, &about, &l.sink, &err), &err, false);
    end(&l);
}

static void check_pickle(const struct snapshot *s, const uint8_t *keep, bool total_nframe)
{
    struct limited l;
    struct err err = ERR_INIT;
    begin(&l);
    int rc = export_tracemalloc(s, keep, total_nframe, &l.sink, &err);
    if (written(rc, &err, true))
        must(l.below.n > 2 && l.below.bytes[l.below.n - 1] == '.');
    end(&l);
}

/* ---- a snapshot from bytes ---- */

struct bytes {
    const uint8_t *at;
    size_t left;
};

static uint8_t take_byte(struct bytes *b)
{
    if (!b->left)
        return 0;
    b->left--;
    return *b->at++;
}

/* Small, or of any size. */
static uint64_t take_number(struct bytes *b)
{
    uint8_t n = take_byte(b);
    uint64_t v = 0;
    if (n < 0xc0)
        return n;
    for (int i = 0; i < (n & 7) + 1; i++)
        v = v << 8 | take_byte(b);
    return v;
}

static uint32_t take_below(struct bytes *b, size_t n)
{
    return (uint32_t)(take_number(b) % n);
}

/* Up to 63 bytes; NULL now and then. */
static const char *take_text(struct bytes *b, struct snapshot *s, bool may_lack)
{
    char text[64];
    size_t n = take_byte(b) & 63;
    if (n == 63 && may_lack)
        return NULL;
    for (size_t i = 0; i < n; i++)
        text[i] = (char)take_byte(b);
    text[n] = '\0';
    return snapshot_str(s, text);
}

static void take_tracebacks(struct bytes *b, struct snapshot *s)
{
    size_t n = 1 + take_below(b, 16);
    for (size_t i = 0; i < n; i++) {
        const char *file = take_text(b, s, false), *function = take_text(b, s, true);
        *snapshot_add_frame(s) = (struct snapshot_frame){file, take_byte(b) & 1 ? function : NULL,
                                                         take_below(b, 1u << 31)};
    }
    n = 1 + take_below(b, 16);
    for (size_t i = 0; i < n; i++) {
        uint32_t frames[16], depth = take_below(b, 16);
        for (uint32_t f = 0; f < depth; f++)
            frames[f] = take_below(b, s->n_frames);
        must(snapshot_add_traceback(s, frames, depth, take_below(b, 70000)) != NULL);
    }
}

static void take_sites(struct bytes *b, struct snapshot *s)
{
    size_t n = take_below(b, 16);
    for (size_t i = 0; i < n; i++) {
        struct snapshot_site site = {
            .traceback = take_below(b, s->n_tracebacks),
            .domain = take_below(b, 400000),
            .type = take_text(b, s, true),
            .kind = take_text(b, s, true),
            .source = take_text(b, s, true),
            .first_size = s->n_size_counts,
        };
        *snapshot_add_site(s) = site;
        uint8_t sizes = take_byte(b) & 3, wrong = take_byte(b);
        for (uint8_t k = 0; k < sizes; k++) {
            uint64_t size = take_number(b), count = take_number(b);
            must(snapshot_add_size_count(s, size, count));
            s->sites[i].count += count;
            s->sites[i].bytes += size * count;
        }
        s->sites[i].bytes += wrong == 0xff;
    }
}

static void take_tables(struct bytes *b, struct snapshot *s)
{
    size_t n = take_below(b, 8);
    for (size_t i = 0; i < n; i++) {
        struct snapshot_block *block = snapshot_add_block(s);
        struct snapshot_type *type = snapshot_add_type(s);
        struct snapshot_mapping *mapping = snapshot_add_mapping(s);
        block->address = 16 * (i + 1);
        block->size = take_number(b);
        block->kind = "object";
        block->type = take_text(b, s, true);
        block->site = take_below(b, s->n_sites + 1);
        type->name = take_text(b, s, false);
        type->module = take_text(b, s, false);
        type->bytes = take_number(b);
        mapping->path = take_text(b, s, true);
        mapping->kind = "file";
        mapping->perms[0] = 'r';
    }
    s->source.exe = take_text(b, s, true);
    s->host = take_text(b, s, true);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes b = {data, size};
    struct snapshot s;
    snapshot_init(&s);
    take_tracebacks(&b, &s);
    take_sites(&b, &s);
    take_tables(&b, &s);
    s.tracing.frames_limit = take_number(&b);
    uint8_t *keep = malloc(s.n_sites + 1), bits = take_byte(&b);
    must(keep != NULL);
    for (size_t i = 0; i <= s.n_sites; i++)
        keep[i] = ~bits >> i % 8 & 1;
    check_rows(&s, keep);
    check_blocks(&s);
    check_stacks(&s, keep);
    check_pickle(&s, keep, true);
    check_pickle(&s, keep, false);
    free(keep);
    snapshot_release(&s);
    return 0;
}

#ifdef FUZZ_MAIN
#include "tests/fuzz/driver.h"
#endif
