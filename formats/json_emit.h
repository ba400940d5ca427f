/* Writes JSON text straight into a sink: no tree, no allocation, whatever the number of records.
 * For json_*.c, and for what writes documents of its own (json.h).
 *
 * The first failure sticks: later calls do nothing, json_emit_finish returns it.
 *
 * Text. The output is always valid UTF-8 and holds no control characters (they become \uXXXX). A
 * target's strings may be any bytes: a byte that is no part of valid UTF-8 is written as the four
 * characters \xHH (in JSON: "\\xff"), and a backslash that happens to stand before x and two
 * hexadecimal digits as \x5c, so that json_unescape gives back exactly the same bytes. Strings are
 * cut after JSON_TEXT_MAX bytes, with "..." as their last three.
 *
 * Integers are cut to 2^63 - 1, the largest that JSON readers with signed 64-bit integers accept.
 */
#ifndef HEAPCENSUS_JSON_EMIT_H
#define HEAPCENSUS_JSON_EMIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/sink.h"

enum { JSON_TEXT_MAX = 16 * 1024, JSON_EMIT_BUFFER = 32 * 1024 };

struct json_emit {
    struct sink *sink;
    struct err *err;
    int rc;
    bool comma; /* the next value or key needs one in front */
    size_t used;
    char buf[JSON_EMIT_BUFFER];
};

void json_emit_init(struct json_emit *e, struct sink *sink, struct err *err);
/* Send the rest to the sink. 0 or the first failure. */
int json_emit_finish(struct json_emit *e) MUST_CHECK;

void emit_open(struct json_emit *e, char bracket);  /* '{' or '[' */
void emit_close(struct json_emit *e, char bracket); /* '}' or ']' */
/* `key` is a literal that needs no escapes. */
void emit_key(struct json_emit *e, const char *key);
void emit_line(struct json_emit *e); /* end of a document: newline */

void emit_null(struct json_emit *e);
void emit_bool(struct json_emit *e, bool v);
void emit_u64(struct json_emit *e, uint64_t v);
void emit_i64(struct json_emit *e, int64_t v);      /* not below -(2^63 - 1) */
void emit_double(struct json_emit *e, double v);    /* 9 digits; null unless it is finite */
void emit_addr(struct json_emit *e, uint64_t addr); /* "0x7f31c0000000" */
/* At most `len` bytes, ending earlier at a NUL. */
void emit_text_n(struct json_emit *e, const char *text, size_t len);
void emit_text(struct json_emit *e, const char *text); /* NULL gives null */

/* Undo the \xHH escapes in place; `len` bytes, returns the new length. \x00 stays as it is. */
size_t json_unescape(char *text, size_t len);

#endif
