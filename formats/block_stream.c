#include "formats/block_stream.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/json_reader.h"

static const char *const kind_names[ROW_KINDS] = {
    [ROW_OBJECT] = "object", [ROW_BUFFER] = "buffer",   [ROW_INFERRED] = "inferred",
    [ROW_DEAD] = "dead",     [ROW_RUNTIME] = "runtime", [ROW_UNOWNED] = "unowned",
    [ROW_STATIC] = "static", [ROW_OTHER] = "other",
};

const char *row_kind_name(enum row_kind kind)
{
    return kind_names[kind];
}

enum row_kind row_kind_of_name(const char *name)
{
    for (int i = 0; i < ROW_OTHER; i++)
        if (name == kind_names[i] || (name && strcmp(name, kind_names[i]) == 0))
            return (enum row_kind)i;
    return ROW_OTHER;
}

/* The last answer to a question that neighbours ask again and again. */
struct memory {
    const char *asked, *name;
    enum row_kind kind;
};

struct block_stream {
    struct snapshot *snap;             /* borrowed */
    const struct snapshot_block *rows; /* at hand: of one record, or all of the snapshot's */
    size_t at, n;
    uint64_t last; /* the address before this one */
    bool started, at_end;
    struct memory type, kind;
    /* Of a file. */
    bool is_file;
    int fd; /* -1: none */
    const char *name;
    struct json_reader reader;
};

/* ---- a file ---- */

/* Read on until there are rows, or to the end. */
static int fill(struct block_stream *s)
{
    struct json_reader *r = &s->reader;
    int rc = 1;
    s->at = s->n = 0;
    if (r->decoder.rows)
        r->decoder.rows->n = 0;
    while (rc > 0 && s->n == 0) {
        rc = json_reader_step(r);
        s->n = rc > 0 && r->decoder.rows ? r->decoder.rows->n : 0;
    }
    if (rc > 0)
        s->rows = r->decoder.rows->rows;
    s->at_end = rc == 0;
    return rc == 0 ? json_reader_settle(r) : rc < 0 ? rc : 0;
}

static struct block_stream *new_stream(struct snapshot *snap, struct err *err)
{
    struct block_stream *s = calloc(1, sizeof *s);
    if (!s) {
        err_set(err, ERR_NOMEM, "no memory for reading blocks");
        return NULL;
    }
    s->snap = snap;
    s->fd = -1;
    return s;
}

/* The stream's `lines` begin at `bytes`, or at the descriptor, which it takes over. */
static int open_file(int fd, const void *bytes, size_t len, const char *name, unsigned flags,
                     struct snapshot *snap, struct block_stream **ret, struct err *err)
{
    struct block_stream *s = new_stream(snap, err);
    if (!s)
        return ERR_NOMEM;
    snapshot_init(snap);
    s->is_file = true;
    s->name = name;
    json_reader_init(&s->reader, snap, flags);
    json_reader_errors(&s->reader, err);
    s->reader.stream = true;
    if (fd < 0)
        lines_init_memory(&s->reader.lines, bytes, len);
    else
        lines_init_fd(&s->reader.lines, fd);
    int rc = fill(s);
    if (rc < 0) {
        err_context(err, rc, "%s", name);
        block_stream_close(s);
        snapshot_release(snap);
        return rc;
    }
    s->fd = fd;
    *ret = s;
    return 0;
}

int block_stream_open(const char *path, unsigned flags, struct snapshot *snap,
                      struct block_stream **ret, struct err *err)
{
    const char *name;
    int fd = json_open(path, &name, err);
    if (fd < 0)
        return fd;
    int rc = open_file(fd, NULL, 0, name, flags, snap, ret, err);
    if (rc < 0 && fd != STDIN_FILENO)
        close(fd);
    return rc;
}

int block_stream_open_bytes(const void *bytes, size_t len, const char *name, unsigned flags,
                            struct snapshot *snap, struct block_stream **ret, struct err *err)
{
    return open_file(-1, bytes, len, name, flags, snap, ret, err);
}

/* ---- a snapshot in memory ---- */

int block_stream_open_snapshot(struct snapshot *snap, struct block_stream **ret, struct err *err)
{
    struct block_stream *s = new_stream(snap, err);
    if (!s)
        return ERR_NOMEM;
    s->rows = snap->blocks;
    s->n = snap->n_blocks;
    s->at_end = true;
    *ret = s;
    return 0;
}

void block_stream_close(struct block_stream *s)
{
    if (!s)
        return;
    if (s->is_file)
        json_reader_release(&s->reader);
    if (s->fd > STDIN_FILENO)
        close(s->fd);
    free(s);
}

/* ---- both ---- */

/* A reader's names are in the pool already; this finds those of others there, or puts them in. */
static int pooled(struct block_stream *s, const char *name, const char **ret, struct err *err)
{
    if (s->is_file || !name) {
        *ret = name;
        return 0;
    }
    if (name != s->type.asked) {
        s->type.asked = name;
        s->type.name = snapshot_str(s->snap, name);
    }
    *ret = s->type.name;
    return *ret ? 0 : err_set(err, ERR_NOMEM, "no memory for a type's name");
}

static enum row_kind kind_of(struct block_stream *s, const char *name)
{
    if (!s->kind.asked || name != s->kind.asked) {
        s->kind.asked = name;
        s->kind.kind = row_kind_of_name(name);
    }
    return s->kind.kind;
}

static int out_of_order(const struct block_stream *s, uint64_t address, struct err *err)
{
    err_set(err, ERR_FORMAT, "the blocks are not in the order of their addresses: 0x%llx, 0x%llx",
            (unsigned long long)s->last, (unsigned long long)address);
    err_remedy(err, "%s", json_damaged);
    return s->is_file ? err_context(err, ERR_FORMAT, "%s", s->name) : ERR_FORMAT;
}

static int refill(struct block_stream *s, struct err *err)
{
    json_reader_errors(&s->reader, err);
    int rc = fill(s);
    return rc < 0 ? err_context(err, rc, "%s", s->name) : 0;
}

int block_stream_next(struct block_stream *s, struct block_row *ret, struct err *err)
{
    if (s->at == s->n && !s->at_end) {
        int rc = refill(s, err);
        if (rc < 0)
            return rc;
    }
    if (s->at == s->n)
        return 0;
    const struct snapshot_block *b = &s->rows[s->at];
    if (s->started && b->address <= s->last)
        return out_of_order(s, b->address, err);
    const char *type = NULL;
    int rc = pooled(s, b->type, &type, err);
    if (rc < 0)
        return rc;
    s->at++;
    s->started = true;
    s->last = b->address;
    *ret = (struct block_row){b->address, b->size, b->owner, type, b->site, kind_of(s, b->kind)};
    return 1;
}
