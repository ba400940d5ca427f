/* The blocks of a snapshot one by one, by address, without keeping them: comparing two snapshots of
 * ten million blocks needs no more memory than their types and sites.
 *
 *     rc = block_stream_open(path, 0, &snap, &stream, err);
 *     while (rc == 0 && (rc = block_stream_next(stream, &row, err)) > 0) { ...; rc = 0; }
 *     block_stream_close(stream);
 *     snapshot_release(&snap);
 */
#ifndef HEAPCENSUS_BLOCK_STREAM_H
#define HEAPCENSUS_BLOCK_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/snapshot.h"

/* What a block is, as in the record's "kind". ROW_OTHER: a kind of a newer heapcensus. */
enum row_kind {
    ROW_OBJECT,
    ROW_BUFFER,
    ROW_INFERRED,
    ROW_DEAD,
    ROW_RUNTIME,
    ROW_UNOWNED,
    ROW_STATIC,
    ROW_OTHER,
    ROW_KINDS
};

const char *row_kind_name(enum row_kind kind); /* "object" ...; "other" */
enum row_kind row_kind_of_name(const char *name);

struct block_row {
    uint64_t address, size, owner; /* as in struct snapshot_block */
    const char *type; /* in the snapshot's pool: equal names are equal pointers; NULL: none */
    uint32_t site;    /* index of the snapshot's site + 1; 0: none */
    enum row_kind kind;
};

struct block_stream;

/* Read everything of a file but its blocks into `snap`, which needs no init, as json_load does with
 * these flags and errors. On success the caller releases both, the stream first; `snap` must stay
 * where it is as long as the stream lives, and may grow strings and notes at each step. */
int block_stream_open(const char *path, unsigned flags, struct snapshot *snap,
                      struct block_stream **ret, struct err *err) MUST_CHECK;
/* The same from memory (borrowed); `name` is for error texts. */
int block_stream_open_bytes(const void *bytes, size_t len, const char *name, unsigned flags,
                            struct snapshot *snap, struct block_stream **ret,
                            struct err *err) MUST_CHECK;
/* Over snap->blocks, of a snapshot that is in memory with them. */
int block_stream_open_snapshot(struct snapshot *snap, struct block_stream **ret,
                               struct err *err) MUST_CHECK;
/* 1 and a row; 0 at the end; or an error. What is wrong with the file as a whole (truncated, no end
 * record) is known at its end only: with JSON_PARTIAL `snap` has the note then. ERR_FORMAT also for
 * addresses that do not rise, and for records of other kinds behind the first blocks. */
int block_stream_next(struct block_stream *s, struct block_row *ret, struct err *err) MUST_CHECK;
void block_stream_close(struct block_stream *s); /* NULL is fine */

#endif
