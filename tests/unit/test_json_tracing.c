/* Who allocated, in files: what is refused, what a damaged file still gives, that lines in our own
 * form and in any other are read alike; and blocks one by one. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "formats/block_stream.h"
#include "formats/json.h"
#include "formats/json_emit.h"
#include "formats/sink.h"
#include "tests/lib/tap.h"
#include "tests/unit/test_json_sample.h"

static const char head[] =
    "{\"record\":\"header\",\"format\":\"heapcensus\",\"version\":1,\"tool\":{\"version\":\"1\"},"
    "\"taken_at\":null,\"host\":null,\"source\":{\"kind\":\"core\",\"pid\":null,\"core\":\"c\","
    "\"exe\":null,\"exe_build_id\":null,\"paused_ns\":0,\"consistent\":true},\"python\":null,"
    "\"libc\":{\"name\":null,\"version\":null,\"allocator\":null},\"complete\":true,"
    "\"redacted\":true}\n"
    "{\"record\":\"memory\",\"rss_bytes\":1,\"mapped_bytes\":2,\"categories\":[]}\n";

#define FRAME "{\"record\":\"frame\",\"file\":\"a.py\",\"line\":3,\"function\":null}\n"
#define TRACEBACK(frames) "{\"record\":\"traceback\",\"frames\":" frames ",\"total\":1}\n"
#define SITE_AT(traceback, count, bytes, sizes)                                                    \
    "{\"record\":\"site\",\"traceback\":" traceback ",\"type\":\"T\",\"kind\":\"object\","         \
    "\"domain\":0,\"source\":\"tracemalloc\",\"count\":" count ",\"bytes\":" bytes                 \
    ",\"sizes\":" sizes "}\n"
#define SITE(count, bytes, sizes) FRAME TRACEBACK("[0]") SITE_AT("0", count, bytes, sizes)
#define BLOCKS(address, kind, site)                                                                \
    "{\"record\":\"blocks\",\"types\":[\"T\"],\"address\":[" address "],\"size\":[1],"             \
    "\"kind\":[" kind "],\"type\":[0],\"owner\":[0],\"site\":" site "}\n"
#define NOTE "{\"record\":\"note\",\"address\":null,\"what\":\"a\",\"why\":\"b\",\"bytes\":0}\n"
#define BIG "9223372036854775807"

static struct err err;
static char text[1 << 16];

static const char *file_of(const char *body)
{
    unsigned n = 2;
    for (const char *p = body; *p; p++)
        n += *p == '\n';
    snprintf(text, sizeof text, "%s%s{\"record\":\"end\",\"records\":%u}\n", head, body, n);
    return text;
}

static int load(const char *body, unsigned flags, struct snapshot *ret)
{
    err_clear(&err);
    const char *file = file_of(body);
    return json_load_bytes(file, strlen(file), "x.jsonl", flags, ret, &err);
}

/* Refused with the line's number, also when white space sends the line to the other parser. */
static void refused(const char *body, const char *cause)
{
    static char spaced[1 << 14];
    struct snapshot s;
    int rc = load(body, 0, &s);
    ok(rc == ERR_FORMAT && strstr(err.text, cause) && strstr(err.text, "x.jsonl: line ") &&
           err.remedy[0],
       "refused: %s", cause);
    diag("%d: %s", rc, err.text);
    if (rc == 0)
        snapshot_release(&s);
    size_t n = 0;
    for (const char *p = body; *p && n + 3 < sizeof spaced; p++) {
        spaced[n++] = *p;
        if (*p == '{')
            spaced[n++] = ' ';
    }
    spaced[n] = '\0';
    rc = load(spaced, 0, &s);
    ok(rc == ERR_FORMAT && strstr(err.text, cause), "... and in another form");
    if (rc == 0)
        snapshot_release(&s);
}

static void accepted(const char *body, const char *what)
{
    struct snapshot s;
    int rc = load(body, 0, &s);
    if (!ok(rc == 0, "accepted: %s", what))
        diag("%s", err.text);
    if (rc == 0)
        snapshot_release(&s);
}

static void test_refused(void)
{
    refused("{\"record\":\"frame\",\"file\":null,\"line\":3,\"function\":null}\n",
            "\"file\" is not a string");
    refused("{\"record\":\"frame\",\"file\":\"a\",\"line\":4294967296,\"function\":null}\n",
            "\"line\" is too large");
    refused("{\"record\":\"frame\",\"file\":\"a\",\"line\":-1,\"function\":null}\n",
            "\"line\" is negative");
    refused("{\"record\":\"frame\",\"line\":1,\"function\":null}\n", "\"file\" is missing");
    refused(FRAME TRACEBACK("[1]"), "\"frames\" has an entry without a record");
    refused(FRAME TRACEBACK("[0,4294967296]"), "\"frames\" has an entry without a record");
    refused(TRACEBACK("[0]") FRAME, "\"frames\" has an entry without a record");
    refused(FRAME TRACEBACK("[0,-1]"), "\"frames\" has an entry that is no integer");
    refused(FRAME TRACEBACK("[0,0.5]"), "\"frames\" has an entry that is no integer");
    refused(FRAME TRACEBACK("7"), "\"frames\" is not a list");
    refused("{\"record\":\"traceback\",\"frames\":[]}\n", "\"total\" is missing");
    refused(FRAME TRACEBACK("[0]") SITE_AT("1", "1", "1", "[]"), "\"traceback\" has no record");
    refused(SITE_AT("0", "1", "1", "[]"), "\"traceback\" has no record");
    refused(SITE("-1", "1", "[]"), "\"count\" is negative");
    refused(SITE("2", "10", "[[5,1]]"), "does not add up");
    refused(SITE("2", "11", "[[5,2]]"), "does not add up");
    refused(SITE("2", "10", "[[5,2,1]]"), "not a size and a count");
    refused(SITE("2", "10", "[5,2]"), "not a size and a count");
    refused(SITE("2", "10", "[[5,-2]]"), "not a size and a count");
    refused(SITE("1", "10", "{}"), "\"sizes\" is not a list");
    refused(SITE("2", "0", "[[" BIG ",2],[2,1]]"), "adds up to more than 2^63");
    refused(SITE("1", BIG, "[]") SITE_AT("0", "1", "1", "[]"),
            "\"bytes\" adds up to more than 2^63");
    refused(SITE(BIG, "1", "[]") SITE_AT("0", "1", "1", "[]"),
            "\"count\" adds up to more than 2^63");
    refused(SITE("1", "1", "[[1,1]]") BLOCKS("1", "\"object\"", "[1]"),
            "\"site\" has an entry without a record");
    refused(SITE("1", "1", "[[1,1]]") BLOCKS("1", "\"object\"", "[-1]"),
            "\"site\" has an entry that is no integer");
    refused(SITE("1", "1", "[[1,1]]") BLOCKS("1", "\"object\"", "[]"), "\"site\" is not as long");
    refused(SITE("1", "1", "[[1,1]]") BLOCKS("1", "\"object\"", "{}"), "\"site\" is not a list");
    refused("{\"record\":\"tracing\",\"source\":null}\n", "\"tracing\" is missing");
}

static void test_accepted(void)
{
    accepted(TRACEBACK("[]"), "a traceback of no frames");
    accepted(SITE("2", "10", "[]"), "a site whose sizes were not kept");
    accepted(SITE("3", "11", "[[5,2],[1,1]]"), "a site with its sizes");
    accepted(SITE("1", "1", "[]") BLOCKS("1", "\"novelty\"", "[0]"), "a kind of later versions");
    accepted(SITE("1", "1", "[]") BLOCKS("1", "\"object\"", "[null]"), "a block of no site");
}

/* A list one entry too long, in both forms. */
static void test_long_list(void)
{
    struct sink_memory m;
    struct snapshot s;
    unsigned wrong = 0;
    for (unsigned spaced = 0; spaced < 2; spaced++)
        for (unsigned more = 0; more < 2; more++) {
            sink_memory_init(&m);
            bool done = sink_puts(&m.sink, head, NULL) == 0 && sink_puts(&m.sink, FRAME, NULL) == 0;
            done = done && sink_puts(&m.sink, "{\"record\":\"traceback\",\"frames\":[0", NULL) == 0;
            for (unsigned i = 1; i < (1 << 20) + more && done; i++)
                done = sink_puts(&m.sink, ",0", NULL) == 0;
            done =
                done && sink_puts(&m.sink, spaced ? "], " : "],", NULL) == 0 &&
                sink_puts(&m.sink, "\"total\":1}\n{\"record\":\"end\",\"records\":4}\n", NULL) == 0;
            int rc = done ? json_load_bytes(m.bytes, m.n, "x", 0, &s, &err) : 1;
            wrong += rc != (more ? ERR_FORMAT : 0);
            if (rc == 0)
                snapshot_release(&s);
            else if (!more)
                diag("%s", err.text);
            sink_memory_release(&m);
        }
    ok(wrong == 0, "2^20 frames are read, one more is refused");
}

/* With --partial what refers to missing records goes, and the numbers of the rest stay right. */
static void test_partial(void)
{
    static const char body[] = FRAME TRACEBACK("[7]") TRACEBACK("[0]") SITE_AT("0", "1", "64", "[]")
        SITE_AT("9", "1", "32", "[]") SITE_AT(
            "1", "2", "10",
            "[[5,2]]") "{\"record\":\"blocks\",\"types\":[],\"address\":[1,2,3,4],\"size\":[1,1,1,"
                       "1],"
                       "\"kind\":[\"object\",\"object\",\"object\",\"object\"],"
                       "\"type\":[null,null,null,null],\"owner\":[0,0,0,0],\"site\":[0,1,2,99]}\n";
    struct snapshot s;
    ok(load(body, 0, &s) == ERR_FORMAT, "missing frames are refused");
    int rc = load(body, JSON_PARTIAL, &s);
    if (!ok(rc == 0, "and left out with JSON_PARTIAL"))
        return diag("%s", err.text);
    ok(s.n_tracebacks == 1 && s.n_sites == 1 && s.sites[0].traceback == 0 && s.sites[0].bytes == 10,
       "the site that has its frames is there");
    ok(s.n_blocks == 4 && !s.blocks[0].site && !s.blocks[1].site && s.blocks[2].site == 1 &&
           !s.blocks[3].site,
       "blocks go with their sites");
    ok(!s.complete && s.n_notes == 1 && strcmp(s.notes[0].what, "snapshot.sites") == 0 &&
           s.notes[0].bytes == 96 && strstr(s.notes[0].why, "2 sites"),
       "a note says so");
    struct sink_memory m;
    sink_memory_init(&m);
    struct snapshot t;
    ok(json_write_snapshot(&s, &m.sink, NULL) == 0 &&
           json_load_bytes(m.bytes, m.n, "x", 0, &t, &err) == 0,
       "what is left is a whole file");
    snapshot_release(&t);
    snapshot_release(&s);
    sink_memory_release(&m);
}

/* Put a space behind the first brace of each line: the same JSON, but not our form. */
static void respace(const struct sink_memory *from, struct sink_memory *to)
{
    sink_memory_init(to);
    bool good = true, start = true;
    for (size_t i = 0; i < from->n && good; i++) {
        good = sink_write(&to->sink, from->bytes + i, 1, NULL) == 0;
        if (start)
            good = good && sink_puts(&to->sink, " ", NULL) == 0;
        start = from->bytes[i] == '\n';
    }
    ok(good, "respaced");
}

/* Tracebacks, sites and blocks in their thousands. */
static void many(struct snapshot *s, unsigned n)
{
    static const char *const kinds[] = {"object",  "buffer",  "inferred", "dead",
                                        "runtime", "unowned", "static",   "novel"};
    char name[32];
    sample(s);
    s->n_blocks = 0;
    for (unsigned i = 0; i < n; i++) {
        struct snapshot_frame *f = snapshot_add_frame(s);
        snprintf(name, sizeof name, "/srv/f%u%s.py", i % 500, i % 50 ? "" : "\xff\xc3\xa9");
        *f = (struct snapshot_frame){snapshot_str(s, name), i % 3 ? NULL : "g", i};
        uint32_t frames[8] = {i, i / 2, i / 3, i / 4, i / 5, i / 6, i / 7, i / 8};
        snapshot_add_traceback(s, frames, i % 9, i % 7);
        struct snapshot_site *t = snapshot_add_site(s);
        snprintf(name, sizeof name, "m.T%u", i % 300);
        t->type = i % 4 ? snapshot_str(s, name) : NULL;
        t->traceback = i;
        t->source = i % 2 ? "tracemalloc" : NULL;
        t->count = 3;
        t->bytes = 2 * (i + 1) + 40;
        if (snapshot_add_size_count(s, i + 1, 2))
            snapshot_add_size_count(s, 40, 1);
        struct snapshot_block *b = snapshot_add_block(s);
        *b = (struct snapshot_block){.address = 0x7f0000000000 + 48 * (uint64_t)i,
                                     .size = 48 + i % 9};
        b->kind = kinds[i % 100 ? i % 7 : 7];
        b->type = t->type;
        b->owner = i % 5 ? 0 : b->address - 48;
        b->site = i % 6 ? i % (s->n_sites + 1) : 0;
    }
}

static bool same_bytes(const struct sink_memory *a, const struct sink_memory *b)
{
    return a->n == b->n && memcmp(a->bytes, b->bytes, a->n) == 0;
}

static void test_both_ways(void)
{
    struct snapshot s, t;
    struct sink_memory a, spaced, again;
    many(&s, 10000);
    sink_memory_init(&a);
    ok(json_write_snapshot(&s, &a.sink, NULL) == 0, "written");
    respace(&a, &spaced);
    for (unsigned way = 0; way < 2; way++) {
        const struct sink_memory *m = way ? &spaced : &a;
        sink_memory_init(&again);
        int rc = json_load_bytes(m->bytes, m->n, "x", 0, &t, &err);
        ok(rc == 0 && json_write_snapshot(&t, &again.sink, NULL) == 0 && same_bytes(&a, &again),
           "%s, written again, gives the same bytes", way ? "another form" : "our own form");
        if (rc == 0)
            snapshot_release(&t);
        else
            diag("%s", err.text);
        sink_memory_release(&again);
    }
    sink_memory_release(&spaced);
    sink_memory_release(&a);
    snapshot_release(&s);
}

/* ---- blocks one by one ---- */

static bool same_row(const struct block_row *r, const struct snapshot_block *b)
{
    bool type = r->type == b->type || (r->type && b->type && strcmp(r->type, b->type) == 0);
    return r->address == b->address && r->size == b->size && r->owner == b->owner && type &&
           r->site == b->site && r->kind == row_kind_of_name(b->kind);
}

static void check_stream(struct block_stream *stream, const struct snapshot *truth,
                         const char *what)
{
    struct block_row row;
    size_t n = 0, wrong = 0;
    int rc;
    while ((rc = block_stream_next(stream, &row, &err)) > 0) {
        wrong += n >= truth->n_blocks || !same_row(&row, &truth->blocks[n]);
        n++;
    }
    if (!ok(rc == 0 && n == truth->n_blocks && wrong == 0, "%s: %zu blocks, one by one", what, n))
        diag("%s; %zu wrong", err.text, wrong);
    ok(block_stream_next(stream, &row, &err) == 0, "%s: the end stays the end", what);
}

static void test_stream(void)
{
    struct snapshot s, t;
    struct sink_memory m;
    struct block_stream *stream;
    many(&s, 10000);
    sink_memory_init(&m);
    ok(json_write_snapshot(&s, &m.sink, NULL) == 0, "written");
    err_clear(&err);
    int rc = block_stream_open_bytes(m.bytes, m.n, "x", 0, &t, &stream, &err);
    if (ok(rc == 0, "a file is opened")) {
        ok(t.n_blocks == 0 && t.n_sites == s.n_sites && t.n_types == s.n_types && t.n_notes == 2,
           "everything but its blocks is there");
        check_stream(stream, &s, "file");
        block_stream_close(stream);
        ok(t.n_blocks == 0, "no block was kept");
        snapshot_release(&t);
    }
    if (ok(block_stream_open_snapshot(&s, &stream, &err) == 0, "a snapshot is opened")) {
        check_stream(stream, &s, "snapshot");
        block_stream_close(stream);
    }
    block_stream_close(NULL);
    sink_memory_release(&m);
    snapshot_release(&s);
}

/* What the stream says of a file, all of it read; rows counted. */
static int drain(const char *file, size_t len, unsigned flags, struct snapshot *s, unsigned *rows)
{
    struct block_stream *stream;
    struct block_row row;
    *rows = 0;
    err_clear(&err);
    int rc = block_stream_open_bytes(file, len, "x.jsonl", flags, s, &stream, &err);
    if (rc < 0)
        return rc;
    while ((rc = block_stream_next(stream, &row, &err)) > 0)
        (*rows)++;
    block_stream_close(stream);
    if (rc < 0)
        snapshot_release(s);
    return rc;
}

static void stream_refused(const char *body, const char *cause)
{
    struct snapshot s;
    unsigned rows;
    const char *file = file_of(body);
    int rc = drain(file, strlen(file), 0, &s, &rows);
    ok(rc == ERR_FORMAT && strstr(err.text, cause) && strstr(err.text, "x.jsonl: ") &&
           err.remedy[0],
       "stream refused: %s", cause);
    diag("%s; %s", err.text, err.remedy);
    if (rc == 0)
        snapshot_release(&s);
}

#define B(address) BLOCKS(address, "\"object\"", "[null]")

static void test_stream_refused(void)
{
    struct snapshot s;
    unsigned rows;
    stream_refused(B("2") B("1"), "not in the order of their addresses");
    stream_refused(B("2") B("2"), "not in the order of their addresses");
    stream_refused(B("1") NOTE, "behind records \"blocks\"");
    stream_refused(B("1") FRAME, "line 4: record \"frame\": it comes behind");
    stream_refused(B("1") BLOCKS("2", "\"object\"", "[3]"), "\"site\" has an entry without");
    const char *file = file_of(B("1") "{\"record\":\"novelty\"}\n" B("7"));
    ok(drain(file, strlen(file), 0, &s, &rows) == 0 && rows == 2, "unknown records do no harm");
    snapshot_release(&s);
    file = file_of("{\"record\":\"blocks\",\"types\":[],\"address\":[],\"size\":[],\"kind\":[],"
                   "\"type\":[],\"owner\":[]}\n" B("7"));
    ok(drain(file, strlen(file), 0, &s, &rows) == 0 && rows == 1, "empty records do no harm");
    snapshot_release(&s);
    file = file_of(NOTE);
    ok(drain(file, strlen(file), 0, &s, &rows) == 0 && rows == 0 && s.n_notes == 1, "no blocks");
    snapshot_release(&s);
    ok(block_stream_open("/nonexistent/x", 0, &s, &(struct block_stream *){NULL}, &err) == ERR_OS,
       "no such file");
}

/* Every cut of a file gives the stream what it gives json_load. */
static void test_stream_cuts(void)
{
    struct snapshot s, a, b;
    struct sink_memory m;
    unsigned rows, wrong = 0, partial = 0;
    sample(&s);
    sink_memory_init(&m);
    ok(json_write_snapshot(&s, &m.sink, NULL) == 0, "written");
    for (size_t n = 0; n <= m.n; n++)
        for (unsigned flags = 0; flags <= JSON_PARTIAL; flags++) {
            int rc = json_load_bytes(m.bytes, n, "x.jsonl", flags, &a, &err);
            int got = drain(m.bytes, n, flags, &b, &rows);
            wrong += rc != got;
            if (rc == 0 && got == 0)
                wrong += a.n_blocks != rows || a.complete != b.complete || a.n_notes != b.n_notes ||
                         a.n_sites != b.n_sites;
            partial += rc == 0 && rows > 0 && rows < s.n_blocks + 1 && !a.complete;
            if (rc == 0)
                snapshot_release(&a);
            if (got == 0)
                snapshot_release(&b);
        }
    ok(wrong == 0 && partial > 0, "%zu cuts give a stream what they give a reader", m.n);
    sink_memory_release(&m);
    snapshot_release(&s);
}

/* ---- documents ---- */

static void test_sites_view(void)
{
    struct snapshot s;
    struct sink_memory m;
    sample(&s);
    struct site_row rows[2] = {{.snap = &s, .n_frames = 3, .total_frames = 40, .size = 392},
                               {.snap = &s, .n_frames = 1, .size = 196, .count = 3}};
    rows[0].frames = s.frame_ids;
    rows[1].frames = s.frame_ids + 3;
    rows[0].type = "app.\xff.T";
    rows[0].type_size = 196;
    struct site_stats stats = {.rows = rows, .n = 2, .size = 588, .count = 9};
    struct json_sites view = {.stats = &stats, .by = SITES_BY_TRACEBACK, .n = 1};
    sink_memory_init(&m);
    ok(json_write_sites(&s, &view, &m.sink, &err) == 0 && sink_write(&m.sink, "", 1, &err) == 0,
       "the view sites");
    ok(strstr(m.bytes,
              "\"sites\":[{\"traceback\":[{\"file\":\"/srv/app/models.py\",\"line\":0,"
              "\"function\":null},{\"file\":\"/srv/caf\xc3\xa9/\\\\xff\\u001b\\\"\\\\.py\","
              "\"line\":10,\"function\":\"f\"},{\"file\":\"<unknown>\",\"line\":20,"
              "\"function\":null}],\"total_frames\":40,\"bytes\":392,\"count\":0,"
              "\"type\":\"app.\\\\xff.T\",\"type_bytes\":196}],\"notes\":[") != NULL,
       "one row with all of its frames");
    ok(strstr(m.bytes, "\"by\":\"traceback\",\"cumulative\":false,\"total\":{\"bytes\":588,"
                       "\"count\":9},\"filtered\":{\"bytes\":0,\"count\":0},\"sites\""),
       "its totals");
    sink_memory_release(&m);
    view.by = SITES_BY_FILE;
    view.n = 9;
    sink_memory_init(&m);
    ok(json_write_sites(&s, &view, &m.sink, &err) == 0 && sink_write(&m.sink, "", 1, &err) == 0 &&
           strstr(m.bytes, "{\"file\":\"<unknown>\",\"line\":0,") &&
           !strstr(m.bytes, "\"line\":20"),
       "by file there are no lines");
    sink_memory_release(&m);
    snapshot_release(&s);
}

static void test_numbers(void)
{
    struct sink_memory m;
    struct json_emit e;
    sink_memory_init(&m);
    json_emit_init(&e, &m.sink, NULL);
    emit_open(&e, '[');
    emit_i64(&e, -7);
    emit_i64(&e, INT64_MAX);
    emit_i64(&e, INT64_MIN + 1);
    emit_i64(&e, 0);
    emit_double(&e, -0.5);
    emit_double(&e, 1e300);
    emit_double(&e, 0.0 / (double)(m.n));
    emit_double(&e, 1.0 / (double)(m.n));
    emit_close(&e, ']');
    emit_line(&e);
    static const char want[] =
        "[-7,9223372036854775807,-9223372036854775807,0,-0.5,1e+300,null,null]\n";
    ok(json_emit_finish(&e) == 0 && m.n == strlen(want) && memcmp(m.bytes, want, m.n) == 0,
       "numbers below 0 and numbers with a point");
    sink_memory_release(&m);
}

static double since(const struct timespec *a)
{
    struct timespec b;
    clock_gettime(CLOCK_MONOTONIC, &b);
    return (double)(b.tv_sec - a->tv_sec) + (double)(b.tv_nsec - a->tv_nsec) / 1e9;
}

static void test_speed(unsigned n)
{
    struct snapshot s, t;
    struct sink_memory m;
    struct timespec a;
    unsigned rows = 0;
    many(&s, n);
    sink_memory_init(&m);
    clock_gettime(CLOCK_MONOTONIC, &a);
    int rc = json_write_snapshot(&s, &m.sink, NULL);
    double written = since(&a);
    clock_gettime(CLOCK_MONOTONIC, &a);
    rc = rc < 0 ? rc : json_load_bytes(m.bytes, m.n, "big", 0, &t, &err);
    double read = since(&a);
    if (rc == 0)
        snapshot_release(&t);
    clock_gettime(CLOCK_MONOTONIC, &a);
    rc = rc < 0 ? rc : drain(m.bytes, m.n, 0, &t, &rows);
    ok(rc == 0 && rows == n, "%u frames, tracebacks, sites and blocks", n);
    diag("%zu bytes written in %.3f s, read in %.3f s, streamed in %.3f s", m.n, written, read,
         since(&a));
    if (rc == 0)
        snapshot_release(&t);
    sink_memory_release(&m);
    snapshot_release(&s);
}

int main(int argc, char **argv)
{
    if (argc > 1) { /* for measuring by hand */
        test_speed((unsigned)strtoul(argv[1], NULL, 10));
        return done_testing();
    }
    test_refused();
    test_accepted();
    test_long_list();
    test_partial();
    test_both_ways();
    test_stream();
    test_stream_refused();
    test_stream_cuts();
    test_sites_view();
    test_numbers();
    test_speed(50000);
    return done_testing();
}
