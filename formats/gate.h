/* Gates for CI: what must not have grown from one snapshot to the next.
 *
 *     SUBJECT > [+] AMOUNT
 *
 *     SUBJECT  total             bytes of all blocks in use
 *              rss               resident bytes
 *              traced            bytes that tracemalloc counts
 *              type:NAME module:NAME package:NAME category:NAME
 *              file:PATTERN line:PATTERN:LINE    the most recent frame, as tracemalloc's filters
 *     AMOUNT   1000              a count (of total, rss and traced: bytes)
 *              10MiB             bytes: B, KiB, MiB, GiB, TiB
 *              5%                of the old bytes; growth only
 *
 * With "+" what grew is compared, without it what there is now. NAME may hold the wildcards * and
 * ?, and stands for the sum of all that match. ">=" is there, too.
 */
#ifndef HEAPCENSUS_GATE_H
#define HEAPCENSUS_GATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/diff.h"

enum gate_subject { GATE_TOTAL, GATE_RSS, GATE_TRACED, GATE_KEY };
enum gate_unit { GATE_COUNT, GATE_BYTES, GATE_PERCENT };
/* The number may have six digits behind its point. */
enum { GATE_NAME_MAX = 1024, GATE_ROWS = 5 };

struct gate {
    const char *text; /* borrowed */
    enum gate_subject subject;
    enum figure_key key; /* of GATE_KEY */
    char name[GATE_NAME_MAX];
    uint32_t line;
    bool growth;   /* "+": what grew, else what there is */
    bool or_equal; /* ">=" */
    enum gate_unit unit;
    uint64_t millionths; /* of the number */
    uint64_t bytes;      /* of the unit; 1 without one */
};

/* ERR_USAGE with cause and remedy. */
int gate_parse(const char *text, struct gate *ret, struct err *err) MUST_CHECK;

struct gate_row {
    char key[DIFF_WHY];
    uint64_t count, bytes;
    int64_t count_diff, bytes_diff;
};

struct gate_result {
    const struct gate *gate;
    bool tripped;
    uint64_t old_value, new_value; /* counts or bytes, as the gate has it */
    /* What it is made of, most growth first: the keys that match, and of total, rss and traced the
     * types, categories and lines that grew most. */
    struct gate_row rows[GATE_ROWS];
    size_t n_rows;
};

/* A key that is in neither snapshot counts as 0. ERR_USAGE when a snapshot cannot tell at all (no
 * types, no tracing): a gate that cannot trip is no gate. */
int gate_check(const struct gate *gate, const struct snapshot *old_snap,
               const struct snapshot *new_snap, struct gate_result *ret,
               struct err *err) MUST_CHECK;

#endif
