/* Snapshots as files for other programs. All writers stream: their memory depends on the number of
 * frames and tracebacks at most. The same input gives the same bytes.
 *
 * `keep` (NULL: all) has a byte for each site of the snapshot; those with 0 are left out.
 */
#ifndef HEAPCENSUS_EXPORT_H
#define HEAPCENSUS_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/block_stream.h"
#include "formats/sink.h"
#include "formats/snapshot.h"
#include "formats/stacks.h"

/* Longest name of a frame that these files show. */
enum { EXPORT_NAME_MAX = 16 * 1024 };

/* ---- of stacks ---- */

/* "frame;frame;frame WEIGHT" a line, root first: flamegraph.pl, speedscope, inferno, Pyroscope.
 * What a frame must not have (";", newlines) is written as \xHH. Stacks of weight 0 are left out:
 * these programs cannot show them. */
enum folded_weight { FOLDED_BYTES, FOLDED_COUNT };
int export_folded(struct stacks *stacks, enum folded_weight weight, struct sink *out,
                  struct err *err) MUST_CHECK;

/* The JSON of www.speedscope.app: the profiles "Memory" (bytes) and "Allocations" (none). */
int export_speedscope(struct stacks *stacks, const char *name, struct sink *out,
                      struct err *err) MUST_CHECK;

/* pprof's profile.proto, not compressed: inuse_objects and inuse_space, the stacks' labels. */
struct pprof_about {
    const char *binary, *build_id; /* shown as the profile's file; may be NULL */
    int64_t time_ns;               /* since 1970; 0: not known */
    const char *comments[2];       /* lines for `pprof -comments`; NULL: none */
};
int export_pprof(struct stacks *stacks, const struct pprof_about *about, struct sink *out,
                 struct err *err) MUST_CHECK;

/* ---- of sites ---- */

/* What Snapshot.load of Python's tracemalloc reads: a record for each trace, with its own size.
 * `total_nframe`: records of Python 3.9 and newer, else of 3.6 to 3.8; one cannot read the other's.
 * ERR_USAGE when the snapshot does not keep the sizes of single traces, ERR_LIMIT for more than
 * EXPORT_TRACES_MAX of them. */
enum { EXPORT_TRACES_MAX = 100 * 1000 * 1000 };
int export_tracemalloc(const struct snapshot *snap, const uint8_t *keep, bool total_nframe,
                       struct sink *out, struct err *err) MUST_CHECK;

/* ---- rows: a table as lines of JSON or as CSV ---- */

/* Both have the same columns, docs/CONTRACT.md says which.
 *
 * CSV is RFC 4180's: a line of names first, CRLF, texts in quotes; a value that is not known is
 * empty without quotes. No field has control characters or bytes that are no UTF-8: they are
 * written as \xHH, as is a first character that would make a spreadsheet take a name that the
 * target chose for a formula (= + - @). */
enum rows_format { ROWS_NDJSON, ROWS_CSV };

/* "site", "type", "size", "arena", "category", "mapping", "blocks". */
bool export_rows_know(const char *table);
/* One of these tables but blocks. `limit`: frames of a traceback's text; 0: all. */
int export_rows(const struct snapshot *snap, const char *table, enum rows_format format,
                const uint8_t *keep, uint32_t limit, struct sink *out, struct err *err) MUST_CHECK;
/* The blocks of a stream, whose snapshot is `snap`. ERR_USAGE when there are none. */
int export_blocks(const struct snapshot *snap, struct block_stream *blocks, enum rows_format format,
                  struct sink *out, struct err *err) MUST_CHECK;

#endif
