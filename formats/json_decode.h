/* One parsed record into its struct, by the tables of json_fields.h. Internal to json_*.c. */
#ifndef HEAPCENSUS_JSON_DECODE_H
#define HEAPCENSUS_JSON_DECODE_H

#include <jansson.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/json_fields.h"
#include "formats/json_scan.h"
#include "formats/snapshot.h"

/* Running totals of one kind of record: a row each, then the three columns of the categories. */
struct json_totals {
    uint64_t rows[JSON_FIELDS_MAX];
    uint64_t bytes, resident, count;
    uint64_t unknown_bytes; /* of categories that we do not know */
};

/* Numbers that a file's records refer to, to the snapshot's: index + 1, or 0 for a record that was
 * left out. */
struct json_map {
    uint32_t *to;
    size_t n, cap;
};

/* What the rows of one record "blocks" say. */
struct json_rows {
    struct snapshot_block rows[JSON_BLOCKS_ROWS];
    const char *names[JSON_BLOCKS_ROWS];
    size_t n, n_names;
};

struct json_decoder {
    struct snapshot *snap;      /* takes the strings */
    struct json_totals *totals; /* of this kind of record */
    struct err *err;
    char unknown[64]; /* the first category that we do not know; "" if none */

    bool partial; /* leave out what refers to missing records, rather than refuse it */
    struct json_map tracebacks, sites;
    uint64_t lost_sites, lost_bytes; /* left out */

    /* The record at hand, as far as it has lists: filled by json_decode_X or json_quick_X, taken
     * over by json_keep_X. */
    struct snapshot_frame frame;
    uint32_t frames_total;
    uint32_t *frames;
    size_t n_frames, cap_frames;
    struct snapshot_site site;
    struct snapshot_size_count *sizes;
    size_t n_sizes, cap_sizes;
    struct json_rows *rows;
};

void json_decoder_release(struct json_decoder *d);

/* ERR_FORMAT with a text that names the member, or ERR_NOMEM. The struct may be half filled then.
 */
int json_decode(struct json_decoder *d, const json_t *object, const struct json_field *fields,
                void *base) MUST_CHECK;
/* A member that must be a non-negative integer. */
int json_decode_u64(struct json_decoder *d, const json_t *object, const char *name,
                    uint64_t *ret) MUST_CHECK;
/* A string, into the snapshot's pool. */
int json_decode_str(struct json_decoder *d, const json_t *v, const char *name,
                    const char **ret) MUST_CHECK;
extern const char json_damaged[]; /* the remedy for most of what is wrong */
/* Say what is wrong with a member: ERR_FORMAT. */
int json_wrong(struct json_decoder *d, const char *name, const char *what);
/* Add to a total that must stay an int64, so that no sum of ours can wrap. */
int json_add_total(struct json_decoder *d, const char *name, uint64_t *total,
                   uint64_t v) MUST_CHECK;

/* Each of these records is read in two steps. json_decode_X (from jansson's tree) or json_quick_X
 * (behind {"record":"X", of a line in our own form: 1, 0 if it has another form, or an error) fill
 * the decoder's fields; json_keep_X checks what both have in common, and appends to the snapshot.
 */
int json_decode_frame(struct json_decoder *d, const json_t *object) MUST_CHECK;
int json_quick_frame(struct json_decoder *d, struct json_scan *scan) MUST_CHECK;
int json_keep_frame(struct json_decoder *d) MUST_CHECK;
int json_decode_traceback(struct json_decoder *d, const json_t *object) MUST_CHECK;
int json_quick_traceback(struct json_decoder *d, struct json_scan *scan) MUST_CHECK;
int json_keep_traceback(struct json_decoder *d) MUST_CHECK;
int json_decode_site(struct json_decoder *d, const json_t *object) MUST_CHECK;
int json_quick_site(struct json_decoder *d, struct json_scan *scan) MUST_CHECK;
int json_keep_site(struct json_decoder *d) MUST_CHECK;
/* A record "blocks" into d->rows; json_keep_blocks appends those to the snapshot. */
int json_decode_blocks(struct json_decoder *d, const json_t *object) MUST_CHECK;
int json_quick_blocks(struct json_decoder *d, struct json_scan *scan) MUST_CHECK;
int json_keep_blocks(struct json_decoder *d) MUST_CHECK;
/* Empty d->rows, first made if there is none. */
int json_need_rows(struct json_decoder *d) MUST_CHECK;
/* A string in our own form, into the snapshot's pool: 1, 0 or ERR_NOMEM. */
int json_quick_str(struct json_decoder *d, struct json_scan *scan, const char **ret) MUST_CHECK;
/* The same, or null. */
int json_quick_str_null(struct json_decoder *d, struct json_scan *scan,
                        const char **ret) MUST_CHECK;
/* Site number `v` of the file as index + 1 in the snapshot, 0 where it was left out; false if there
 * is no such record. */
bool json_find_site(const struct json_decoder *d, uint64_t v, uint32_t *ret);

#endif
