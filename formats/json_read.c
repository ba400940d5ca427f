/* Snapshot files in: hostile until proven otherwise. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/json.h"
#include "formats/json_reader.h"

enum { LINES_MAX = 50 * 1000 * 1000 };

/* The parser's text quotes the file, which may hold anything, terminal escapes included. */
static void printable(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || (unsigned char)*text >= 0x7f)
            *text = '?';
}

static int not_json(struct json_reader *r, const struct line *line, json_error_t *why)
{
    if (r->records == 0)
        return json_not_a_snapshot(r);
    if (!line->whole) {
        r->cut = true;
        return 0;
    }
    printable(why->text);
    int code = err_set(r->err, ERR_FORMAT, "not JSON: %s", why->text);
    err_remedy(r->err, "%s", json_damaged);
    return code;
}

static bool is_blank(const struct line *line)
{
    return strspn(line->bytes, " \t\r") == line->len;
}

static int read_line(struct json_reader *r, const struct line *line)
{
    if (r->lines.number > LINES_MAX)
        return err_set(r->err, ERR_FORMAT, "more than %d lines", LINES_MAX);
    if (is_blank(line))
        return 0;
    if (r->ended)
        return json_refuse(r, "there is more behind the end record");
    json_error_t why;
    json_t *object = NULL;
    int quick = json_read_quick(r, line->bytes, line->len);
    if (quick != 0) {
        r->records += quick > 0;
        return quick < 0 ? quick : 0;
    }
    int rc = json_arena_parse(&r->arena, line->bytes, line->len, &object, &why, r->err);
    if (rc < 0)
        return rc;
    if (!object)
        return not_json(r, line, &why);
    rc = json_read_record(r, object);
    r->records += rc == 0 && !r->ended;
    return rc;
}

int json_reader_step(struct json_reader *r)
{
    struct line line;
    int rc = lines_next(&r->lines, &line, r->err);
    if (rc < 0 || !line.bytes)
        return rc;
    rc = read_line(r, &line);
    if (rc < 0)
        return err_context(r->err, rc, "line %llu", (unsigned long long)r->lines.number);
    return 1;
}

static int add_note(struct json_reader *r, const char *what, uint64_t bytes, const char *why)
{
    struct snapshot_note *note = snapshot_add_note(r->snap);
    if (note) {
        note->what = what;
        note->bytes = bytes;
        note->why = snapshot_str(r->snap, why);
    }
    if (!note || !note->why)
        return err_set(r->err, ERR_NOMEM, "no memory for a note");
    return 0;
}

/* What keeps the file from being whole, or false. */
static bool find_gap(const struct json_reader *r, char *why, size_t cap)
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

static int note_unknown(struct json_reader *r)
{
    char why[200];
    if (!r->decoder.unknown[0])
        return 0;
    printable(r->decoder.unknown);
    snprintf(why, sizeof why,
             "counted as unknown: the category %s (and others, maybe) is of a newer heapcensus",
             r->decoder.unknown);
    return add_note(r, "snapshot.category",
                    max_u64(r->totals[JSON_KIND_MEMORY].unknown_bytes,
                            r->totals[JSON_KIND_MAPPING].unknown_bytes),
                    why);
}

static int note_lost(struct json_reader *r)
{
    char why[160];
    if (!r->decoder.lost_sites)
        return 0;
    snprintf(why, sizeof why,
             "%llu sites are left out, for the records of their frames are missing",
             (unsigned long long)r->decoder.lost_sites);
    r->snap->complete = false;
    return add_note(r, "snapshot.sites", r->decoder.lost_bytes, why);
}

int json_reader_settle(struct json_reader *r)
{
    char why[200];
    bool gap = find_gap(r, why, sizeof why);
    if (r->records == 0)
        return gap && r->lines.damage ? json_refuse(r, r->lines.damage) : json_not_a_snapshot(r);
    if (gap && !(r->flags & JSON_PARTIAL)) {
        int code = err_set(r->err, ERR_FORMAT, "%s", why);
        err_remedy(r->err, "take a new snapshot, or give --partial to use what is there");
        return code;
    }
    if (!gap && !r->seen[JSON_KIND_MEMORY])
        return json_refuse(r, "it has no memory record");
    int rc = note_unknown(r);
    if (rc == 0)
        rc = note_lost(r);
    if (rc == 0 && gap) {
        r->snap->complete = false;
        rc = add_note(r, "snapshot.truncated", 0, why);
    }
    return rc;
}

void json_reader_init(struct json_reader *r, struct snapshot *snap, unsigned flags)
{
    memset(r, 0, sizeof *r);
    json_arena_init(&r->arena);
    r->snap = r->decoder.snap = snap;
    r->flags = flags;
    r->decoder.partial = flags & JSON_PARTIAL;
}

void json_reader_errors(struct json_reader *r, struct err *err)
{
    r->err = r->decoder.err = err;
}

void json_reader_release(struct json_reader *r)
{
    json_arena_release(&r->arena);
    lines_release(&r->lines);
    json_decoder_release(&r->decoder);
}

static int load(struct json_reader *r, const char *name, struct snapshot *ret, struct err *err)
{
    int rc;
    json_reader_errors(r, err);
    do
        rc = json_reader_step(r);
    while (rc > 0);
    if (rc == 0)
        rc = json_reader_settle(r);
    json_reader_release(r);
    if (rc < 0) {
        snapshot_release(r->snap);
        return err_context(err, rc, "%s", name);
    }
    *ret = *r->snap;
    return 0;
}

int json_load_bytes(const void *bytes, size_t len, const char *name, unsigned flags,
                    struct snapshot *ret, struct err *err)
{
    struct json_reader r;
    struct snapshot snap;
    snapshot_init(&snap);
    json_reader_init(&r, &snap, flags);
    lines_init_memory(&r.lines, bytes, len);
    return load(&r, name, ret, err);
}

int json_open(const char *path, const char **name, struct err *err)
{
    bool is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    *name = is_stdin ? "standard input" : path;
    return fd < 0 ? err_os(err, errno, "cannot open %s", path) : fd;
}

int json_load(const char *path, unsigned flags, struct snapshot *ret, struct err *err)
{
    struct json_reader r;
    struct snapshot snap;
    const char *name;
    int fd = json_open(path, &name, err);
    if (fd < 0)
        return fd;
    snapshot_init(&snap);
    json_reader_init(&r, &snap, flags);
    lines_init_fd(&r.lines, fd);
    int rc = load(&r, name, ret, err);
    if (fd != STDIN_FILENO)
        close(fd);
    return rc;
}

bool json_looks_like_snapshot(const void *head, size_t len)
{
    const unsigned char *p = head;
    return (len >= 2 && p[0] == 0x1f && p[1] == 0x8b) || (len >= 1 && p[0] == '{');
}
