/* Sites as the pickle that tracemalloc.Snapshot.dump() of Python writes, in protocol 2, which every
 * Python 3 reads:
 *
 *     Snapshot{traces: _Traces{_traces: [(domain, size, ((file, line), ...)[, total]), ...]},
 *              traceback_limit: int}
 *
 * Texts, frames, tracebacks and records that come again are taken from the pickle's memo.
 */
#include <stdlib.h>
#include <string.h>

#include "formats/base/addrset.h"
#include "formats/base/utf8.h"
#include "formats/export.h"
#include "formats/outbuf.h"
#include "formats/type_groups.h"

/* Opcodes of pickletools. */
enum {
    OP_MARK = '(',
    OP_STOP = '.',
    OP_NONE = 'N',
    OP_BININT1 = 'K',
    OP_BININT2 = 'M',
    OP_BININT = 'J',
    OP_LONG1 = 0x8a,
    OP_BINUNICODE = 'X',
    OP_GLOBAL = 'c',
    OP_EMPTY_TUPLE = ')',
    OP_EMPTY_LIST = ']',
    OP_EMPTY_DICT = '}',
    OP_NEWOBJ = 0x81,
    OP_BUILD = 'b',
    OP_SETITEMS = 'u',
    OP_APPENDS = 'e',
    OP_TUPLE = 't',
    OP_TUPLE1 = 0x85,
    OP_TUPLE2 = 0x86,
    OP_TUPLE3 = 0x87,
    OP_BINPUT = 'q',
    OP_LONG_BINPUT = 'r',
    OP_BINGET = 'h',
    OP_LONG_BINGET = 'j'
};

/* Records put on the unpickler's stack before they go into the list, as pickle does it. */
enum { BATCH = 1000 };

struct pickle {
    struct outbuf out;
    const struct snapshot *snap;
    bool total_nframe;
    uint32_t n_memo;
    /* Where things are in the memo, + 1; 0: not yet. */
    struct addrset files; /* by the text's address */
    uint32_t *frames;     /* by their number; the last is that of stacks_no_frame */
    uint32_t *tracebacks;
    size_t batch;
};

static void op(struct pickle *p, unsigned code)
{
    outbuf_char(&p->out, (char)code);
}

/* Little-endian. */
static void put_bytes(struct pickle *p, uint64_t v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        outbuf_char(&p->out, (char)(v >> 8 * i));
}

static void put_int(struct pickle *p, uint64_t v)
{
    size_t n = 1;
    if (v <= UINT8_MAX) {
        op(p, OP_BININT1);
    } else if (v <= UINT16_MAX) {
        op(p, OP_BININT2);
        n = 2;
    } else if (v <= INT32_MAX) {
        op(p, OP_BININT);
        n = 4;
    } else { /* signed: one byte more than the largest number needs */
        op(p, OP_LONG1);
        n = 9;
        outbuf_char(&p->out, (char)n);
        put_bytes(p, v, 8);
        outbuf_char(&p->out, 0);
        return;
    }
    put_bytes(p, v, n);
}

/* Keep what is on top of the stack; returns what goes into the tables above. */
static uint32_t memo_put(struct pickle *p)
{
    uint32_t at = p->n_memo;
    if (at == UINT32_MAX) {
        if (p->out.rc == 0)
            p->out.rc = err_set(p->out.err, ERR_LIMIT, "more than 4,294,967,295 different things");
        return 0;
    }
    p->n_memo++;
    op(p, at <= UINT8_MAX ? OP_BINPUT : OP_LONG_BINPUT);
    put_bytes(p, at, at <= UINT8_MAX ? 1 : 4);
    return at + 1;
}

static void memo_get(struct pickle *p, uint32_t slot)
{
    uint32_t at = slot - 1;
    op(p, at <= UINT8_MAX ? OP_BINGET : OP_LONG_BINGET);
    put_bytes(p, at, at <= UINT8_MAX ? 1 : 4);
}

/* A lone surrogate in UTF-8's way, as the census keeps it and as pickle reads it. */
static bool is_surrogate(const unsigned char *s)
{
    return s[0] == 0xed && (s[1] & 0xe0) == 0xa0 && (s[2] & 0xc0) == 0x80;
}

/* The next character in pickle's UTF-8; bytes that are none become the surrogates that Python's own
 * os.fsdecode() makes of them. Returns how many bytes of the text it took. */
static size_t encode(const char *text, char to[4], size_t *n)
{
    uint32_t code;
    size_t took = utf8_character(text, &code);
    unsigned char byte = (unsigned char)*text;
    if (!took && is_surrogate((const unsigned char *)text))
        took = 3;
    *n = took ? took : 3;
    if (took) {
        memcpy(to, text, took);
        return took;
    }
    to[0] = (char)0xed;
    to[1] = (char)(0xb0 | byte >> 6);
    to[2] = (char)(0x80 | (byte & 0x3f));
    return 1;
}

static void put_text(struct pickle *p, const char *text)
{
    char c[4];
    size_t n, len = 0;
    for (const char *s = text; *s; len += n)
        s += encode(s, c, &n);
    if (len > INT32_MAX) {
        if (p->out.rc == 0)
            p->out.rc = err_set(p->out.err, ERR_LIMIT, "a file name of %zu bytes", len);
        return;
    }
    op(p, OP_BINUNICODE);
    put_bytes(p, len, 4);
    while (*text) {
        text += encode(text, c, &n);
        outbuf_put(&p->out, c, n);
    }
}

static void put_file(struct pickle *p, const char *file)
{
    const uint64_t *slot = addrset_find(&p->files, (uintptr_t)file);
    if (slot) {
        memo_get(p, (uint32_t)*slot);
        return;
    }
    put_text(p, file);
    if (addrset_add(&p->files, (uintptr_t)file, memo_put(p), NULL) < 0 && p->out.rc == 0)
        p->out.rc = err_set(p->out.err, ERR_NOMEM, "no memory for file names");
}

static void put_frame(struct pickle *p, size_t f)
{
    const struct snapshot_frame *frame =
        f < p->snap->n_frames ? &p->snap->frames[f] : &stacks_no_frame;
    if (p->frames[f]) {
        memo_get(p, p->frames[f]);
        return;
    }
    put_file(p, frame->file);
    put_int(p, frame->line);
    op(p, OP_TUPLE2);
    p->frames[f] = memo_put(p);
}

static void put_traceback(struct pickle *p, uint32_t number)
{
    const struct snapshot_traceback *t = &p->snap->tracebacks[number];
    if (p->tracebacks[number]) {
        memo_get(p, p->tracebacks[number]);
        return;
    }
    if (t->n > 3)
        op(p, OP_MARK);
    for (uint32_t i = 0; i < t->n; i++)
        put_frame(p, p->snap->frame_ids[t->first + i]);
    /* tracemalloc's code expects a frame in each traceback. */
    if (t->n == 0)
        put_frame(p, p->snap->n_frames);
    op(p, t->n <= 1 ? OP_TUPLE1 : t->n == 2 ? OP_TUPLE2 : t->n == 3 ? OP_TUPLE3 : OP_TUPLE);
    p->tracebacks[number] = memo_put(p);
}

/* A total that was not recorded is None, as in a Traceback that a program makes. */
static void put_record(struct pickle *p, const struct snapshot_site *site, uint64_t size)
{
    if (p->total_nframe)
        op(p, OP_MARK);
    put_int(p, site->domain);
    put_int(p, size);
    put_traceback(p, site->traceback);
    if (p->total_nframe) {
        uint32_t total = p->snap->tracebacks[site->traceback].total;
        if (total)
            put_int(p, total);
        else
            op(p, OP_NONE);
    }
    op(p, p->total_nframe ? OP_TUPLE : OP_TUPLE3);
}

static void end_record(struct pickle *p)
{
    if (++p->batch < BATCH)
        return;
    op(p, OP_APPENDS);
    op(p, OP_MARK);
    p->batch = 0;
}

static void put_site(struct pickle *p, const struct snapshot_site *site)
{
    for (uint32_t i = 0; i < site->n_sizes; i++) {
        const struct snapshot_size_count *s = &p->snap->size_counts[site->first_size + i];
        if (s->count == 0)
            continue;
        put_record(p, site, s->size);
        uint32_t slot = s->count > 1 ? memo_put(p) : 0;
        end_record(p);
        for (uint64_t more = 1; more < s->count && p->out.rc == 0; more++) {
            memo_get(p, slot);
            end_record(p);
        }
    }
}

/* `{}` and the mark of the members that follow. */
static void begin_object(struct pickle *p, const char *class_name)
{
    op(p, OP_GLOBAL);
    outbuf_str(&p->out, "tracemalloc\n");
    outbuf_str(&p->out, class_name);
    outbuf_char(&p->out, '\n');
    op(p, OP_EMPTY_TUPLE);
    op(p, OP_NEWOBJ);
    op(p, OP_EMPTY_DICT);
    op(p, OP_MARK);
}

static void end_object(struct pickle *p)
{
    op(p, OP_SETITEMS);
    op(p, OP_BUILD);
}

static int write_pickle(struct pickle *p, const uint8_t *keep)
{
    static const unsigned char protocol[] = {0x80, 2};
    outbuf_put(&p->out, protocol, sizeof protocol);
    begin_object(p, "Snapshot");
    put_text(p, "traces");
    begin_object(p, "_Traces");
    put_text(p, "_traces");
    op(p, OP_EMPTY_LIST);
    op(p, OP_MARK);
    for (size_t i = 0; i < p->snap->n_sites && p->out.rc == 0; i++)
        if (!keep || keep[i])
            put_site(p, &p->snap->sites[i]);
    op(p, OP_APPENDS);
    end_object(p);
    put_text(p, "traceback_limit");
    put_int(p, p->snap->tracing.frames_limit);
    end_object(p);
    op(p, OP_STOP);
    return outbuf_finish(&p->out);
}

static int check_site(const struct snapshot *snap, const struct snapshot_site *site, uint64_t *n,
                      struct err *err)
{
    uint64_t count = 0, bytes = 0, product;
    for (uint32_t i = 0; i < site->n_sizes; i++) {
        const struct snapshot_size_count *s = &snap->size_counts[site->first_size + i];
        if (__builtin_mul_overflow(s->size, s->count, &product))
            product = UINT64_MAX;
        count = add_capped(count, s->count);
        bytes = add_capped(bytes, product);
    }
    *n = add_capped(*n, count);
    if (count == site->count && bytes == site->bytes)
        return 0;
    err_set(err, ERR_USAGE, "this snapshot does not have the size of each trace, only the sums");
    err_remedy(err, "take a new snapshot; --to ndjson, csv, pprof, folded and speedscope need no "
                    "more than the sums");
    return ERR_USAGE;
}

/* Python needs every single record, and no size is made up. */
static int check_sizes(const struct snapshot *snap, const uint8_t *keep, struct err *err)
{
    uint64_t n = 0;
    int rc = 0;
    for (size_t i = 0; i < snap->n_sites && rc == 0; i++)
        if (!keep || keep[i])
            rc = check_site(snap, &snap->sites[i], &n, err);
    if (rc < 0 || n <= EXPORT_TRACES_MAX)
        return rc;
    err_set(err, ERR_LIMIT, "%llu traces are more than Python's tracemalloc could read (%d)",
            (unsigned long long)n, EXPORT_TRACES_MAX);
    err_remedy(err, "choose some with --include, --exclude or --type, or use --to ndjson");
    return ERR_LIMIT;
}

int export_tracemalloc(const struct snapshot *snap, const uint8_t *keep, bool total_nframe,
                       struct sink *out, struct err *err)
{
    struct pickle p = {.snap = snap, .total_nframe = total_nframe};
    int rc = check_sizes(snap, keep, err);
    if (rc < 0)
        return rc;
    outbuf_init(&p.out, out, err);
    addrset_init(&p.files);
    p.frames = calloc(snap->n_frames + 1, sizeof *p.frames);
    p.tracebacks = calloc(snap->n_tracebacks + 1, sizeof *p.tracebacks);
    if (p.frames && p.tracebacks)
        rc = write_pickle(&p, keep);
    else
        rc = err_set(err, ERR_NOMEM, "no memory for %zu tracebacks", snap->n_tracebacks);
    free(p.frames);
    free(p.tracebacks);
    addrset_release(&p.files);
    return rc;
}
