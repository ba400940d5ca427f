/* Snapshot files in: hostile until proven otherwise. */
#include "formats/json.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/json_arena.h"
#include "formats/json_decode.h"
#include "formats/lines.h"

enum { LINES_MAX = 50 * 1000 * 1000 };

static const char remedy_damaged[] =
    "the file is damaged or was not written by heapcensus: take a new snapshot";

/* Where a record goes. */
struct kind {
    const char *name;
    const struct json_field *fields;
    void *(*slot)(struct snapshot *snap); /* zeroed, or NULL when memory ran out */
    /* In place of those two, for a record of many rows. */
    int (*decode)(struct json_decoder *d, const json_t *object);
    uint64_t most; /* records of it in a file */
};

static void *memory_slot(struct snapshot *snap)
{
    return &snap->memory;
}

static void *pymalloc_slot(struct snapshot *snap)
{
    snap->pymalloc.present = true;
    return &snap->pymalloc;
}

static void *malloc_slot(struct snapshot *snap)
{
    snap->malloc.present = true;
    return &snap->malloc;
}

static void *arena_slot(struct snapshot *snap)
{
    return snapshot_add_arena(snap);
}

static void *malloc_arena_slot(struct snapshot *snap)
{
    return snapshot_add_malloc_arena(snap);
}

static void *mapping_slot(struct snapshot *snap)
{
    return snapshot_add_mapping(snap);
}

static void *note_slot(struct snapshot *snap)
{
    return snapshot_add_note(snap);
}

static void *objects_slot(struct snapshot *snap)
{
    snap->objects.present = true;
    return &snap->objects;
}

static void *gc_slot(struct snapshot *snap)
{
    snap->gc.present = true;
    return &snap->gc;
}

static void *type_slot(struct snapshot *snap)
{
    return snapshot_add_type(snap);
}

enum { KIND_MEMORY, KIND_MAPPING, KIND_COUNT = 11 };

/* The bounds are far above what a process can have; they keep a small packed file from unpacking to
 * many gigabytes of records. */
static const struct kind kinds[KIND_COUNT] = {
    [KIND_MEMORY] = {"memory", json_memory_fields, memory_slot, NULL, 1},
    [KIND_MAPPING] = {"mapping", json_mapping_fields, mapping_slot, NULL, 4 << 20},
    {"pymalloc", json_pymalloc_fields, pymalloc_slot, NULL, 1},
    {"arena", json_arena_fields, arena_slot, NULL, 32 << 20},
    {"malloc", json_malloc_fields, malloc_slot, NULL, 1},
    {"malloc_arena", json_malloc_arena_fields, malloc_arena_slot, NULL, 1 << 20},
    {"note", json_note_fields, note_slot, NULL, 4 << 20},
    {"objects", json_objects_fields, objects_slot, NULL, 1},
    {"gc", json_gc_fields, gc_slot, NULL, 1},
    {"type", json_type_fields, type_slot, NULL, 4 << 20},
    {"blocks", NULL, NULL, json_decode_blocks, 1 << 18},
};

struct reader {
    struct lines lines;
    struct json_arena arena;
    struct snapshot snap;
    struct json_decoder decoder;
    struct json_totals totals[KIND_COUNT], header_totals;
    uint64_t seen[KIND_COUNT];
    uint64_t records; /* those before the end record */
    uint64_t claimed; /* what the end record says */
    bool ended, cut;  /* cut: the last line is only a piece of a record */
    struct err *err;
};

static int refuse(struct reader *r, const char *why)
{
    int code = err_set(r->err, ERR_FORMAT, "%s", why);
    err_remedy(r->err, "%s", remedy_damaged);
    return code;
}

static int not_a_snapshot(struct reader *r)
{
    int code = err_set(r->err, ERR_FORMAT,
                       "this is no snapshot: the first line is not the header of heapcensus");
    err_remedy(r->err, "give a file that \"heapcensus snapshot\" wrote");
    return code;
}

static int read_version(struct reader *r, const json_t *object)
{
    const char *format = json_string_value(json_object_get(object, "format"));
    uint64_t version;
    if (!format || strcmp(format, "heapcensus") != 0)
        return not_a_snapshot(r);
    int rc = json_decode_u64(&r->decoder, object, "version", &version);
    if (rc < 0)
        return rc;
    if (version == 0)
        return refuse(r, "the header has version 0, which never was");
    if (version <= JSON_VERSION)
        return 0;
    rc = err_set(r->err, ERR_FORMAT, "made by a newer heapcensus: version %llu of the format",
                 (unsigned long long)version);
    err_remedy(r->err, "update heapcensus: this one reads version %d", JSON_VERSION);
    return rc;
}

static int read_header(struct reader *r, const char *record, const json_t *object)
{
    if (strcmp(record, "header") != 0)
        return not_a_snapshot(r);
    int rc = read_version(r, object);
    if (rc < 0)
        return rc;
    r->decoder.totals = &r->header_totals;
    return json_decode(&r->decoder, object, json_header_fields, &r->snap);
}

static int decode_kind(struct reader *r, const struct kind *kind, const json_t *object)
{
    if (kind->decode)
        return kind->decode(&r->decoder, object);
    void *slot = kind->slot(&r->snap);
    if (!slot)
        return err_set(r->err, ERR_NOMEM, "no memory for a record");
    return json_decode(&r->decoder, object, kind->fields, slot);
}

static int read_kind(struct reader *r, size_t k, const json_t *object)
{
    if (r->seen[k] == kinds[k].most) {
        if (kinds[k].most == 1)
            return refuse(r, "this record comes a second time");
        return err_set(r->err, ERR_FORMAT, "more than %llu of these records",
                       (unsigned long long)kinds[k].most);
    }
    r->seen[k]++;
    r->decoder.totals = &r->totals[k];
    int rc = decode_kind(r, &kinds[k], object);
    return rc < 0 ? err_context(r->err, rc, "record \"%s\"", kinds[k].name) : 0;
}

static int read_record(struct reader *r, const json_t *object)
{
    const char *record = json_string_value(json_object_get(object, "record"));
    if (r->records == 0)
        return record ? read_header(r, record, object) : not_a_snapshot(r);
    if (!record)
        return refuse(r, "\"record\" is missing");
    if (strcmp(record, "header") == 0)
        return refuse(r, "a second header");
    if (strcmp(record, "end") == 0) {
        r->ended = true;
        return json_decode_u64(&r->decoder, object, "records", &r->claimed);
    }
    for (size_t k = 0; k < KIND_COUNT; k++)
        if (strcmp(record, kinds[k].name) == 0)
            return read_kind(r, k, object);
    return 0; /* of a later version */
}

/* The parser's text quotes the file, which may hold anything, terminal escapes included. */
static void printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f)
            *text = '?';
}

static int not_json(struct reader *r, const struct line *line, json_error_t *why)
{
    if (r->records == 0)
        return not_a_snapshot(r);
    if (!line->whole) {
        r->cut = true;
        return 0;
    }
    printable(why->text);
    int code = err_set(r->err, ERR_FORMAT, "not JSON: %s", why->text);
    err_remedy(r->err, "%s", remedy_damaged);
    return code;
}

static bool is_blank(const struct line *line)
{
    return strspn(line->bytes, " \t\r") == line->len;
}

static int read_line(struct reader *r, const struct line *line)
{
    if (r->lines.number > LINES_MAX)
        return err_set(r->err, ERR_FORMAT, "more than %d lines", LINES_MAX);
    if (is_blank(line))
        return 0;
    if (r->ended)
        return refuse(r, "there is more behind the end record");
    json_error_t why;
    json_t *object = NULL;
    int rc = json_arena_parse(&r->arena, line->bytes, line->len, &object, &why, r->err);
    if (rc < 0)
        return rc;
    if (!object)
        return not_json(r, line, &why);
    rc = read_record(r, object);
    r->records += rc == 0 && !r->ended;
    return rc;
}

static int read_lines(struct reader *r)
{
    struct line line;
    for (;;) {
        int rc = lines_next(&r->lines, &line, r->err);
        if (rc < 0 || !line.bytes)
            return rc;
        rc = read_line(r, &line);
        if (rc < 0)
            return err_context(r->err, rc, "line %llu", (unsigned long long)r->lines.number);
    }
}

static int add_note(struct reader *r, const char *what, uint64_t bytes, const char *why)
{
    struct snapshot_note *note = snapshot_add_note(&r->snap);
    if (note) {
        note->what = what;
        note->bytes = bytes;
        note->why = snapshot_str(&r->snap, why);
    }
    if (!note || !note->why)
        return err_set(r->err, ERR_NOMEM, "no memory for a note");
    return 0;
}

/* What keeps the file from being whole, or false. */
static bool find_gap(const struct reader *r, char *why, size_t cap)
{
    unsigned long long n = r->records, claimed = r->claimed;
    if (r->ended && !r->lines.damage && claimed == n)
        return false;
    if (r->lines.damage)
        snprintf(why, cap, "truncated: %s, after %llu records", r->lines.damage, n);
    else if (r->cut)
        snprintf(why, cap, "truncated: it breaks off within a record, after %llu records", n);
    else if (!r->ended)
        snprintf(why, cap, "truncated: it has no end record, after %llu records", n);
    else
        snprintf(why, cap, "truncated: its end record says %llu records, there are %llu", claimed,
                 n);
    return true;
}

static int note_unknown(struct reader *r)
{
    char why[200];
    if (!r->decoder.unknown[0])
        return 0;
    printable(r->decoder.unknown);
    snprintf(why, sizeof why,
             "counted as unknown: the category %s (and others, maybe) is of a newer heapcensus",
             r->decoder.unknown);
    return add_note(
        r, "snapshot.category",
        max_u64(r->totals[KIND_MEMORY].unknown_bytes, r->totals[KIND_MAPPING].unknown_bytes), why);
}

static int settle(struct reader *r, unsigned flags)
{
    char why[200];
    bool gap = find_gap(r, why, sizeof why);
    if (r->records == 0)
        return gap && r->lines.damage ? refuse(r, r->lines.damage) : not_a_snapshot(r);
    if (gap && !(flags & JSON_PARTIAL)) {
        int code = err_set(r->err, ERR_FORMAT, "%s", why);
        err_remedy(r->err, "take a new snapshot, or give --partial to use what is there");
        return code;
    }
    if (!gap && !r->seen[KIND_MEMORY])
        return refuse(r, "it has no memory record");
    int rc = note_unknown(r);
    if (rc == 0 && gap) {
        r->snap.complete = false;
        rc = add_note(r, "snapshot.truncated", 0, why);
    }
    return rc;
}

static int load(struct reader *r, const char *name, unsigned flags, struct snapshot *ret,
                struct err *err)
{
    snapshot_init(&r->snap);
    json_arena_init(&r->arena);
    r->err = r->decoder.err = err;
    r->decoder.snap = &r->snap;
    int rc = read_lines(r);
    if (rc == 0)
        rc = settle(r, flags);
    json_arena_release(&r->arena);
    lines_release(&r->lines);
    if (rc < 0) {
        snapshot_release(&r->snap);
        return err_context(err, rc, "%s", name);
    }
    *ret = r->snap;
    return 0;
}

int json_load_bytes(const void *bytes, size_t len, const char *name, unsigned flags,
                    struct snapshot *ret, struct err *err)
{
    struct reader r;
    memset(&r, 0, sizeof r);
    lines_init_memory(&r.lines, bytes, len);
    return load(&r, name, flags, ret, err);
}

int json_load(const char *path, unsigned flags, struct snapshot *ret, struct err *err)
{
    struct reader r;
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_os(err, errno, "cannot open %s", path);
    memset(&r, 0, sizeof r);
    lines_init_fd(&r.lines, fd);
    int rc = load(&r, is_stdin ? "standard input" : path, flags, ret, err);
    if (!is_stdin)
        close(fd);
    return rc;
}

bool json_looks_like_snapshot(const void *head, size_t len)
{
    const unsigned char *p = head;
    return (len >= 2 && p[0] == 0x1f && p[1] == 0x8b) || (len >= 1 && p[0] == '{');
}
