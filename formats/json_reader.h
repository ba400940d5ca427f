/* A snapshot file on its way in, line by line. Internal to json_*.c and block_stream.c.
 *
 *     json_reader_init(&r, &snap, flags);
 *     json_reader_errors(&r, err); lines_init_fd(&r.lines, fd);
 *     while ((rc = json_reader_step(&r)) > 0) ...
 *     rc = json_reader_settle(&r);      once step has returned 0
 *     json_reader_release(&r);
 */
#ifndef HEAPCENSUS_JSON_READER_H
#define HEAPCENSUS_JSON_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/json_arena.h"
#include "formats/json_decode.h"
#include "formats/lines.h"
#include "formats/snapshot.h"

enum { JSON_KIND_MEMORY, JSON_KIND_MAPPING, JSON_KIND_BLOCKS, JSON_KINDS = 15 };

struct json_reader {
    struct lines lines;
    struct json_arena arena;
    struct snapshot *snap; /* borrowed */
    unsigned flags;
    struct json_decoder decoder;
    struct json_totals totals[JSON_KINDS], header_totals;
    uint64_t seen[JSON_KINDS];
    uint64_t records; /* those before the end record */
    uint64_t claimed; /* what the end record says */
    bool ended, cut;  /* cut: the last line is only a piece of a record */
    bool stream;      /* rows of blocks stay in decoder.rows; nothing else may come behind them */
    struct err *err;
};

/* `snap` is initialised; the caller inits `lines`. */
void json_reader_init(struct json_reader *r, struct snapshot *snap, unsigned flags);
/* Errors go there from now on (may be NULL). */
void json_reader_errors(struct json_reader *r, struct err *err);
void json_reader_release(struct json_reader *r);
/* One more line: 1, 0 at the end, or an error. */
int json_reader_step(struct json_reader *r) MUST_CHECK;
/* After the last line: what is wrong with the file as a whole. */
int json_reader_settle(struct json_reader *r) MUST_CHECK;

/* The file, or stdin (descriptor 0) for "-", and what to call it in errors. */
int json_open(const char *path, const char **name, struct err *err) MUST_CHECK;

/* json_record.c: one record of the file. */
int json_read_record(struct json_reader *r, const json_t *object) MUST_CHECK;
/* The same from a line in our own form: 1, 0 when it is not, or an error. */
int json_read_quick(struct json_reader *r, const char *text, size_t len) MUST_CHECK;
int json_refuse(struct json_reader *r, const char *why);
int json_not_a_snapshot(struct json_reader *r);

#endif
