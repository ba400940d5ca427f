/* Snapshot files: what is written, what is read back, what is refused. */
#define _GNU_SOURCE 1 /* memmem */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "formats/json.h"
#include "formats/json_emit.h"
#include "formats/sink.h"
#include "formats/utilisation.h"
#include "tests/lib/tap.h"
#include "tests/unit/test_json_sample.h"

static const char head[] =
    "{\"record\":\"header\",\"format\":\"heapcensus\",\"version\":1,\"tool\":{\"version\":\"1\"},"
    "\"taken_at\":null,\"host\":null,\"source\":{\"kind\":\"core\",\"pid\":null,\"core\":\"c\","
    "\"exe\":null,\"exe_build_id\":null,\"paused_ns\":0,\"consistent\":true},\"python\":null,"
    "\"libc\":{\"name\":null,\"version\":null,\"allocator\":null},\"complete\":true,"
    "\"redacted\":true}\n";
static const char memory[] =
    "{\"record\":\"memory\",\"rss_bytes\":1,\"mapped_bytes\":2,\"categories\":[]}\n";

static struct err err;

static int load_text(const char *text, unsigned flags, struct snapshot *ret)
{
    err_clear(&err);
    return json_load_bytes(text, strlen(text), "x.jsonl", flags, ret, &err);
}

/* header + memory + `body` + end, with the right number. */
static int load_body(const char *body, struct snapshot *ret)
{
    static char text[1 << 16];
    unsigned n = 2;
    for (const char *p = body; *p; p++)
        n += *p == '\n';
    snprintf(text, sizeof text, "%s%s%s{\"record\":\"end\",\"records\":%u}\n", head, memory, body,
             n);
    return load_text(text, 0, ret);
}

static void refused(const char *text, int code, const char *cause, const char *what)
{
    struct snapshot s;
    int rc = load_text(text, 0, &s);
    ok(rc == code && err.code == code && strstr(err.text, cause) && strstr(err.text, "x.jsonl"),
       "refused: %s", what);
    diag("%d: %s; %s", rc, err.text, err.remedy);
    if (rc == 0)
        snapshot_release(&s);
}

static void refused_body(const char *body, const char *cause)
{
    struct snapshot s;
    int rc = load_body(body, &s);
    ok(rc == ERR_FORMAT && strstr(err.text, cause) && err.remedy[0], "refused: %s", cause);
    diag("%d: %s; %s", rc, err.text, err.remedy);
    if (rc == 0)
        snapshot_release(&s);
}

static void accepted_body(const char *body, const char *what)
{
    struct snapshot s;
    int rc = load_body(body, &s);
    ok(rc == 0, "accepted: %s", what);
    if (rc == 0)
        snapshot_release(&s);
    else
        diag("%s", err.text);
}

static void write_memory(const struct snapshot *s, struct sink_memory *m)
{
    sink_memory_init(m);
    ok(json_write_snapshot(s, &m->sink, &err) == 0, "written");
}

static void check_sample(const struct snapshot *s)
{
    ok(s->complete && s->redacted && s->source.pid == 4711, "header is back");
    ok(s->python.present && s->python.hexversion == 0x030b07f0, "python is back");
    ok(strcmp(s->python.layout_source, "table") == 0, "nested member is back");
    ok(s->source.core == NULL && s->source.consistent, "null stays NULL");
    ok(s->memory.tally.bytes[CAT_UNKNOWN] == 4096u * CAT_COUNT, "categories are back");
    ok(s->pymalloc.present && s->pymalloc.classes[1].blocks_free == 11 &&
           s->pymalloc.classes[2].size == 48,
       "size classes are back");
    ok(s->malloc.present && s->malloc.mallinfo2.keepcost == 42, "mallinfo2 is back");
    ok(s->n_arenas == 3 && s->arenas[2].heap == 2, "arenas are back");
    ok(s->n_malloc_arenas == 2 && s->malloc_arenas[0].main && !s->malloc_arenas[0].top,
       "malloc arenas are back");
    ok(s->n_mappings == 5 && s->mappings[4].address == 0xffffffffff600000, "mappings are back");
    ok(strcmp(s->mappings[3].path, "/tmp/\xff\xc3\xa9\x1b[31m\\xff") == 0,
       "a path of stray bytes is back as it was");
    ok(strcmp(s->mappings[0].perms, "rw-p") == 0 && !s->mappings[2].path, "perms are back");
    ok(s->n_notes == 2 && s->notes[1].address == 0, "notes are back");
}

static void check_types(const struct snapshot *s)
{
    ok(s->n_types == 3 && strcmp(s->types[2].name, "app.\xff\x1b.T") == 0 &&
           s->types[1].address == 0x956000 && s->types[1].buffer_bytes == 700 &&
           s->types[2].inferred_bytes == 128 && s->types[2].dead_bytes == 64 &&
           s->types[2].statics == 10 && s->types[2].static_bytes == 160,
       "types are back");
    ok(s->objects.present && s->objects.objects == 27 && s->objects.malloc_unowned_bytes == 77 &&
           s->objects.statics == 15 && s->objects.static_bytes == 240,
       "the sums of blocks are back");
    ok(s->gc.present && s->gc.enabled && !s->gc.collecting && s->gc.threshold[2] == 10 &&
           s->gc.tracked[2] == 2000 && s->gc.garbage == 6,
       "the collector is back");
    ok(strcmp(s->pymalloc.classes[31].top_type, "bytes") == 0 &&
           s->pymalloc.classes[31].top_count == 1 && !s->pymalloc.classes[1].top_type,
       "types of size classes are back");
    ok(!s->arenas[0].top_type && strcmp(s->arenas[2].top_type, "list") == 0 &&
           s->arenas[2].top_bytes == 2000,
       "types of arenas are back");
    ok(s->n_blocks == 6 && s->blocks[5].address == 0x7f31c0000120 && !s->blocks[5].type &&
           strcmp(s->blocks[4].type, "app.models.Session") == 0 &&
           s->blocks[4].owner == s->blocks[3].address && s->blocks[4].size == 48 &&
           strcmp(s->blocks[4].kind, "buffer") == 0,
       "blocks are back");
}

static void check_tracing(const struct snapshot *s)
{
    ok(s->tracing.present && s->tracing.tracing && s->tracing.peak_bytes == 5000 &&
           s->tracing.lost == 1 && strcmp(s->tracing.source, "tracemalloc") == 0,
       "tracing is back");
    ok(s->n_frames == 3 && strcmp(s->frames[1].file, "/srv/caf\xc3\xa9/\xff\x1b\"\\.py") == 0 &&
           !s->frames[0].function && strcmp(s->frames[1].function, "f") == 0 &&
           s->frames[2].line == 20,
       "frames are back");
    const struct snapshot_traceback *t = s->tracebacks;
    ok(s->n_tracebacks == 2 && t[0].n == 3 && t[0].total == 40 && t[1].n == 1 &&
           s->frame_ids[t[0].first + 1] == 1 && s->frame_ids[t[1].first] == 2,
       "tracebacks are back");
    const struct snapshot_site *e = s->sites;
    ok(s->n_sites == 3 && e[2].traceback == 1 && e[1].domain == 1 && !e[0].type &&
           strcmp(e[0].kind, "gone") == 0 && e[2].count == 3 && e[2].bytes == 196 &&
           e[1].n_sizes == 0 && e[2].n_sizes == 2 && s->size_counts[e[2].first_size].size == 100 &&
           s->size_counts[e[2].first_size + 1].count == 2,
       "sites are back");
    ok(s->blocks[0].site == 0 && s->blocks[3].site == 3 && s->blocks[5].site == 1,
       "sites of blocks are back");
}

static void test_round_trip(void)
{
    struct snapshot s, t;
    struct sink_memory a, b;
    sample(&s);
    write_memory(&s, &a);
    ok(memmem(a.bytes, a.n, "/tmp/\\\\xff\xc3\xa9\\u001b[31m\\\\x5cxff", 26) != NULL,
       "stray bytes and controls are escaped");
    int rc = json_load_bytes(a.bytes, a.n, "sample", 0, &t, &err);
    if (!ok(rc == 0, "read back"))
        diag("%s", err.text);
    if (rc == 0) {
        check_sample(&t);
        check_types(&t);
        check_tracing(&t);
        write_memory(&t, &b);
        ok(a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0, "written again, the same bytes");
        sink_memory_release(&b);
        snapshot_release(&t);
    }
    sink_memory_release(&a);
    snapshot_release(&s);
}

static void test_absent(void)
{
    struct snapshot s, t;
    struct sink_memory a, b;
    snapshot_init(&s);
    s.complete = false;
    write_memory(&s, &a);
    ok(json_load_bytes(a.bytes, a.n, "empty", 0, &t, &err) == 0, "an empty snapshot loads");
    ok(!t.complete && !t.python.present && !t.pymalloc.present && !t.malloc.present,
       "what is absent stays absent");
    write_memory(&t, &b);
    ok(a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0, "the same bytes again");
    sink_memory_release(&a);
    sink_memory_release(&b);
    snapshot_release(&s);
    snapshot_release(&t);
}

static void test_hostile_values(void)
{
    struct snapshot s, t;
    struct sink_memory a;
    sample(&s);
    s.memory.rss_bytes = UINT64_MAX;
    char *big = malloc(JSON_TEXT_MAX + 100);
    memset(big, 'x', JSON_TEXT_MAX + 100);
    big[JSON_TEXT_MAX + 99] = '\0';
    memcpy(big + JSON_TEXT_MAX - 4, "\xc3\xa9", 2);
    s.host = big;
    write_memory(&s, &a);
    ok(json_load_bytes(a.bytes, a.n, "hostile", 0, &t, &err) == 0, "hostile values load");
    ok(t.memory.rss_bytes == INT64_MAX, "2^64 - 1 is cut to 2^63 - 1");
    ok(strlen(t.host) == JSON_TEXT_MAX - 1 && strcmp(t.host + JSON_TEXT_MAX - 5, "x...") == 0,
       "a long text is cut between characters");
    sink_memory_release(&a);
    snapshot_release(&s);
    snapshot_release(&t);
    free(big);
}

static void test_refused_files(void)
{
    char text[4096];
    refused("", ERR_FORMAT, "no snapshot", "an empty file");
    refused("\n\n", ERR_FORMAT, "no snapshot", "blank lines");
    refused("hello\n", ERR_FORMAT, "line 1", "text");
    refused("{\"record\":\"memory\"}\n", ERR_FORMAT, "no snapshot", "no header");
    refused("{\"record\":\"header\",\"format\":\"other\",\"version\":1}\n", ERR_FORMAT,
            "no snapshot", "another format");
    refused("{\"record\":\"header\",\"format\":\"heapcensus\",\"version\":2}\n", ERR_FORMAT,
            "newer heapcensus", "version 2");
    refused("{\"record\":\"header\",\"format\":\"heapcensus\",\"version\":-1}\n", ERR_FORMAT,
            "negative", "version -1");
    refused("\x1f\x8b\x08zzzzzzzzzzzzzzzzzzzzzzzzzzz", ERR_FORMAT, "gzip", "bad gzip");
    refused(head, ERR_FORMAT, "no end record", "only a header");
    snprintf(text, sizeof text, "%s%s{\"record\":\"end\",\"records\":3}\n", head, memory);
    refused(text, ERR_FORMAT, "end record says 3 records, there are 2", "wrong end record");
    snprintf(text, sizeof text, "%s{\"record\":\"end\",\"records\":1}\n", head);
    refused(text, ERR_FORMAT, "no memory record", "no memory record");
    snprintf(text, sizeof text, "%s%s{\"record\":\"end\",\"records\":2}\n{}\n", head, memory);
    refused(text, ERR_FORMAT, "behind the end", "more after the end");
    snprintf(text, sizeof text, "%s%s{\"record\":\"no", head, memory);
    refused(text, ERR_FORMAT, "within a record", "half a line");
}

#define CATEGORY(b) "{\"name\":\"data\",\"bytes\":" b ",\"resident_bytes\":0,\"count\":0}"
#define MAPPING(bytes, perms, categories)                                                          \
    "{\"record\":\"mapping\",\"address\":\"0x1000\",\"bytes\":" bytes ",\"resident_bytes\":0,"     \
    "\"perms\":" perms ",\"path\":null,\"kind\":\"file\",\"categories\":[" categories "]}\n"
#define BIG "9223372036854775807"

static void test_refused_records(void)
{
    refused_body("{\"record\":\n", "line 3: not JSON");
    refused_body("{}\n", "\"record\" is missing");
    refused_body("[1]\n", "\"record\" is missing");
    refused_body(head, "second header");
    refused_body(memory, "second time");
    refused_body(MAPPING("-1", "\"rw-p\"", ""), "\"bytes\" is negative");
    refused_body(MAPPING("1.5", "\"rw-p\"", ""), "\"bytes\" is not an integer");
    refused_body(MAPPING("92233720368547758070", "\"rw-p\"", ""), "not JSON");
    refused_body(MAPPING("1", "\"rwxpp\"", ""), "perms");
    refused_body(MAPPING("1", "7", ""), "perms");
    refused_body(MAPPING("1", "\"rw-p\"", "3"), "without a name");
    refused_body(MAPPING("1", "\"rw-p\"", CATEGORY("-1")), "negative");
    refused_body(MAPPING(BIG, "\"rw-p\"", "") MAPPING("1", "\"rw-p\"", ""), "adds up");
    refused_body(MAPPING("1", "\"rw-p\"", CATEGORY(BIG) "," CATEGORY("1")), "adds up");
    refused_body(MAPPING("1", "\"rw-p\"", CATEGORY(BIG)) MAPPING("1", "\"r\"", CATEGORY("1")),
                 "adds up");
    refused_body("{\"record\":\"note\",\"record\":\"x\"}\n", "duplicate");
    refused_body("{\"record\":\"note\",\"what\":\"a\",\"why\":\"b\",\"bytes\":0}\n",
                 "\"address\" is missing");
    refused_body(
        "{\"record\":\"note\",\"address\":\"1\",\"what\":\"a\",\"why\":\"b\",\"bytes\":0}\n",
        "not an address");
    refused_body("{\"record\":\"note\",\"address\":\"0x11112222333344445\",\"what\":\"a\","
                 "\"why\":\"b\",\"bytes\":0}\n",
                 "not an address");
    refused_body("{\"record\":\"note\",\"address\":null,\"what\":null,\"why\":\"b\",\"bytes\":0}\n",
                 "\"what\" is not a string");
    refused_body("{\"record\":\"note\",\"address\":null,\"what\":\"\xff\",\"why\":\"\"}\n",
                 "not JSON");
}

#define BLOCKS(types, address, size, kind, type, owner)                                            \
    "{\"record\":\"blocks\",\"types\":" types ",\"address\":" address ",\"size\":" size            \
    ",\"kind\":" kind ",\"type\":" type ",\"owner\":" owner "}\n"
#define TYPE(members) "{\"record\":\"type\",\"name\":\"T\"" members "}\n"

static void test_refused_types(void)
{
    refused_body("{\"record\":\"type\"}\n", "\"name\" is missing");
    refused_body("{\"record\":\"type\",\"name\":null}\n", "\"name\" is not a string");
    refused_body(TYPE(",\"count\":-1"), "\"count\" is negative");
    refused_body(TYPE(",\"bytes\":" BIG) TYPE(",\"bytes\":1"), "adds up");
    refused_body(TYPE(",\"address\":12"), "not an address");
    refused_body("{\"record\":\"gc\",\"threshold\":[1,2,3,4]}\n", "not a list of generations");
    refused_body("{\"record\":\"gc\",\"count\":[1,-2]}\n", "negative");
    refused_body("{\"record\":\"gc\"}\n{\"record\":\"gc\"}\n", "second time");
    refused_body("{\"record\":\"objects\",\"objects\":1.5}\n", "not an integer");
    refused_body("{\"record\":\"blocks\"}\n", "\"address\" is not a list");
    refused_body(BLOCKS("[]", "[1]", "[]", "[]", "[]", "[]"), "\"size\" is not as long");
    refused_body(BLOCKS("[]", "[1]", "[1]", "[\"a\"]", "[0]", "[0]"), "not in \"types\"");
    refused_body(BLOCKS("[\"a\"]", "[1]", "[1]", "[\"a\"]", "[-1]", "[0]"),
                 "\"type\" has an entry");
    refused_body(BLOCKS("[\"a\"]", "[1]", "[1]", "[null]", "[0]", "[0]"),
                 "\"kind\" is not a string");
    refused_body(BLOCKS("[7]", "[1]", "[1]", "[\"a\"]", "[0]", "[0]"), "\"types\" is not a string");
    refused_body(BLOCKS("[]", "[\"0x1\"]", "[1]", "[\"a\"]", "[null]", "[0]"),
                 "\"address\" has an");
    refused_body(BLOCKS("[]", "[1]", "[1]", "[\"a\"]", "[null]", "[1.5]"), "\"owner\" has an");
    accepted_body(BLOCKS("[]", "[]", "[]", "[]", "[]", "[]"), "no blocks at all");
    accepted_body(BLOCKS("[\"a\"]", "[1]", "[1]", "[\"a\"]", "[null]", "[0]"),
                  "a block of no type");
    accepted_body(TYPE(""), "a type without figures");
    accepted_body("{\"record\":\"objects\"}\n{\"record\":\"gc\"}\n", "sums without figures");
}

/* Too many rows in a record, in any of its lists. */
static void test_long_blocks(void)
{
    static char list[20000], body[60000];
    for (unsigned n = 4096; n <= 4097; n++) {
        size_t at = 0;
        list[at++] = '[';
        for (unsigned i = 0; i < n; i++)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s\"\"", i ? "," : "");
        snprintf(list + at, sizeof list - at, "]");
        snprintf(body, sizeof body, BLOCKS("%s", "[]", "[]", "[]", "[]", "[]"), list);
        if (n == 4096)
            accepted_body(body, "4,096 names");
        else
            refused_body(body, "more than 4,096 entries");
    }
}

/* Blocks in more than one record, with as many names as rows. */
static void test_many_blocks(void)
{
    struct snapshot s, t;
    struct sink_memory m;
    unsigned wrong = 0, records = 0;
    snapshot_init(&s);
    for (unsigned i = 0; i < 10000; i++) {
        char name[32];
        struct snapshot_block *b = snapshot_add_block(&s);
        snprintf(name, sizeof name, "m.T%u", i < 5000 ? i : i % 7);
        *b = (struct snapshot_block){.address = i * 16u, .size = i, .kind = "object"};
        b->type = i % 11 ? snapshot_str(&s, name) : NULL;
    }
    write_memory(&s, &m);
    for (char *p = m.bytes; (p = memmem(p, (size_t)(m.bytes + m.n - p), "\"blocks\"", 8)); p++)
        records++;
    ok(records == 3, "10,000 blocks make %u records", records);
    if (ok(json_load_bytes(m.bytes, m.n, "x", 0, &t, &err) == 0, "they are read")) {
        for (unsigned i = 0; i < 10000 && t.n_blocks == 10000; i++) {
            const struct snapshot_block *a = &s.blocks[i], *b = &t.blocks[i];
            wrong += a->address != b->address || a->size != b->size || !a->type != !b->type ||
                     (a->type && strcmp(a->type, b->type) != 0);
        }
        ok(t.n_blocks == 10000 && wrong == 0, "and are what they were");
        snapshot_release(&t);
    }
    sink_memory_release(&m);
    snapshot_release(&s);
}

static void test_growth(void)
{
    struct snapshot s;
    accepted_body("{\"record\":\"novelty\",\"x\":[{}]}\n", "an unknown record");
    accepted_body("{\"record\":\"note\",\"address\":null,\"what\":\"a\",\"why\":\"b\",\"bytes\":0,"
                  "\"novel\":{\"x\":[1.5,null]}}\n",
                  "an unknown member");
    accepted_body("", "nothing else");
    int rc = load_body(MAPPING("100", "\"rw-p\"",
                               CATEGORY("40") ",{\"name\":\"novel\\u001b\",\"bytes\":60,"
                                              "\"resident_bytes\":2,\"count\":1}"),
                       &s);
    if (!ok(rc == 0, "an unknown category"))
        return;
    ok(s.mappings[0].tally.bytes[CAT_UNKNOWN] == 60 && s.mappings[0].tally.bytes[CAT_DATA] == 40,
       "its bytes are unknown ones");
    ok(s.n_notes == 1 && strcmp(s.notes[0].what, "snapshot.category") == 0 &&
           s.notes[0].bytes == 60 && strstr(s.notes[0].why, "novel?"),
       "a note says so");
    snapshot_release(&s);
}

/* Every possible cut of a file: refused without JSON_PARTIAL, and loaded with it from the first
 * complete header on. */
static void test_truncation(bool gzip)
{
    struct snapshot s, t;
    struct sink_memory m;
    struct sink *out, *z = NULL;
    sample(&s);
    sink_memory_init(&m);
    out = &m.sink;
    if (gzip && sink_gzip_new(&m.sink, &z, NULL) == 0)
        out = z;
    bool written =
        json_write_snapshot(&s, out, NULL) == 0 && (!gzip || sink_gzip_finish(z, NULL) == 0);
    sink_gzip_free(z);
    size_t wrong = !written, partial = 0;
    for (size_t n = 0; n + 1 < m.n; n++) { /* a missing last newline harms nothing */
        if (json_load_bytes(m.bytes, n, "cut", 0, &t, &err) != ERR_FORMAT)
            wrong++;
        if (json_load_bytes(m.bytes, n, "cut", JSON_PARTIAL, &t, &err) == 0) {
            partial++;
            wrong += t.complete || !t.n_notes ||
                     strcmp(t.notes[t.n_notes - 1].what, "snapshot.truncated") != 0;
            snapshot_release(&t);
        }
    }
    ok(wrong == 0, "%zu cuts of %s files are refused, or noted", m.n, gzip ? "gzip" : "plain");
    ok(partial > 0, "%zu of them load with JSON_PARTIAL", partial);
    sink_memory_release(&m);
    snapshot_release(&s);
}

/* Small files that unpack to much: refused at the first bound that they meet. */
static void bomb(const char *prefix, const char *piece, size_t times, const char *cause)
{
    struct snapshot s;
    struct sink_memory m;
    struct sink *z = NULL;
    size_t len = strlen(piece), batch = 65536 / len;
    char *block = malloc(batch * len);
    for (size_t i = 0; i < batch; i++)
        memcpy(block + i * len, piece, len);
    sink_memory_init(&m);
    bool done = sink_gzip_new(&m.sink, &z, NULL) == 0;
    done = done && sink_puts(z, prefix, NULL) == 0;
    for (size_t i = 0; i < times && done; i += batch)
        done = sink_write(z, block, batch * len, NULL) == 0;
    done = done && sink_gzip_finish(z, NULL) == 0;
    sink_gzip_free(z);
    int rc = json_load_bytes(m.bytes, m.n, "bomb", 0, &s, &err);
    ok(done && rc == ERR_FORMAT && strstr(err.text, cause), "%zu packed bytes: %s", m.n, cause);
    diag("%s", err.text);
    sink_memory_release(&m);
    free(block);
}

static void test_bombs(void)
{
    bomb("", " ", 80 << 20, "line 1 is longer than 64 MiB");
    bomb("[", "[],", 3 << 20, "MiB of memory");
    bomb("", "[", 1 << 20, "no snapshot");
    bomb("", "\n", 60 << 20, "more than 50000000 lines");
}

static void test_views(void)
{
    static const char *const views[] = {"summary", "types", "sizes", "arenas", "malloc", "maps"};
    struct snapshot s;
    struct sink_memory m;
    sample(&s);
    for (size_t i = 0; i < 6; i++) {
        sink_memory_init(&m);
        ok(json_has_view(views[i]) && json_write_view(&s, views[i], &m.sink, &err) == 0 &&
               m.bytes[m.n - 1] == '\n' && memchr(m.bytes, '\n', m.n) == m.bytes + m.n - 1,
           "view %s", views[i]);
        sink_memory_release(&m);
    }
    sink_memory_init(&m);
    ok(json_write_view(&s, "nonsense", &m.sink, &err) == ERR_USAGE && m.n == 0, "no such view");
    sink_memory_release(&m);
    struct utilisation u;
    utilisation_of(&s, &u);
    ok(u.sparse_arenas == 1 && u.reclaimable_bytes == 1000000, "one arena is sparse");
    ok(u.buckets[1].arenas == 1 && u.buckets[6].arenas == 1 && u.buckets[9].arenas == 1,
       "arenas are in their buckets");
    s.arenas[0] = (struct snapshot_arena){.size = 100, .bytes_used = 25};
    s.arenas[1] = (struct snapshot_arena){.size = 100, .bytes_used = 26};
    s.arenas[2] = (struct snapshot_arena){.size = 0, .bytes_used = UINT64_MAX};
    utilisation_of(&s, &u);
    ok(u.sparse_arenas == 1 && u.reclaimable_bytes == 100 && u.buckets[2].arenas == 2 &&
           u.buckets[9].arenas == 0,
       "25 %% is sparse, 26 %% is not, an arena of nothing is nowhere");
    s.arenas[0] = (struct snapshot_arena){.size = INT64_MAX, .bytes_used = UINT64_MAX};
    utilisation_of(&s, &u);
    ok(u.buckets[9].arenas == 1, "more used than there is counts as full");
    snapshot_release(&s);
}

static void test_speed(void)
{
    struct snapshot s, t;
    struct sink_memory m;
    struct timespec a, b, c;
    sample(&s);
    for (unsigned i = 0; i < 100000; i++) {
        struct snapshot_mapping *to = snapshot_add_mapping(&s);
        *to = s.mappings[i % 5];
    }
    sink_memory_init(&m);
    clock_gettime(CLOCK_MONOTONIC, &a);
    int rc = json_write_snapshot(&s, &m.sink, NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    ok(rc == 0, "100,000 mappings are written");
    rc = json_load_bytes(m.bytes, m.n, "big", 0, &t, &err);
    clock_gettime(CLOCK_MONOTONIC, &c);
    ok(rc == 0 && t.n_mappings == s.n_mappings, "and read");
    diag("%zu bytes written in %.3f s, read in %.3f s", m.n,
         (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9,
         (double)(c.tv_sec - b.tv_sec) + (double)(c.tv_nsec - b.tv_nsec) / 1e9);
    if (rc == 0)
        snapshot_release(&t);
    sink_memory_release(&m);
    snapshot_release(&s);
}

int main(void)
{
    test_round_trip();
    test_absent();
    test_hostile_values();
    test_refused_files();
    test_refused_records();
    test_refused_types();
    test_long_blocks();
    test_many_blocks();
    test_growth();
    test_truncation(false);
    test_truncation(true);
    test_bombs();
    test_views();
    test_speed();
    return done_testing();
}
