/* One parsed record into its struct, by the tables of json_fields.h. Internal to json_*.c. */
#ifndef HEAPCENSUS_JSON_DECODE_H
#define HEAPCENSUS_JSON_DECODE_H

#include <jansson.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/json_fields.h"
#include "formats/snapshot.h"

/* Running totals of one kind of record: a row each, then the three columns of the categories. */
struct json_totals {
    uint64_t rows[JSON_FIELDS_MAX];
    uint64_t bytes, resident, count;
    uint64_t unknown_bytes; /* of categories that we do not know */
};

struct json_decoder {
    struct snapshot *snap;      /* takes the strings */
    struct json_totals *totals; /* of this kind of record */
    struct err *err;
    char unknown[64]; /* the first category that we do not know; "" if none */
};

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
/* Say what is wrong with a member: ERR_FORMAT. */
int json_wrong(struct json_decoder *d, const char *name, const char *what);
/* json_blocks.c: the rows of a record "blocks", appended to the snapshot. */
int json_decode_blocks(struct json_decoder *d, const json_t *object) MUST_CHECK;

#endif
