/* Buffered output in front of a sink, for writers of many small pieces.
 *
 * The first failure sticks: later calls do nothing, outbuf_finish returns it.
 */
#ifndef HEAPCENSUS_OUTBUF_H
#define HEAPCENSUS_OUTBUF_H

#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/sink.h"

enum { OUTBUF_BYTES = 32 * 1024 };

struct outbuf {
    struct sink *sink;
    struct err *err;
    int rc;
    size_t used;
    char buf[OUTBUF_BYTES];
};

void outbuf_init(struct outbuf *b, struct sink *sink, struct err *err);
/* Send the rest to the sink. 0 or the first failure. */
int outbuf_finish(struct outbuf *b) MUST_CHECK;

void outbuf_put(struct outbuf *b, const void *bytes, size_t len);
void outbuf_char(struct outbuf *b, char c);
void outbuf_str(struct outbuf *b, const char *text);
void outbuf_u64(struct outbuf *b, uint64_t v);  /* decimal */
void outbuf_addr(struct outbuf *b, uint64_t v); /* 0x and hexadecimal */

/* A text of the target or of a file, for formats that are lines of text: valid UTF-8 without
 * control characters. Bytes that are neither become the four characters \xHH, as do the characters
 * in `special` (ASCII; may be NULL), and a backslash in front of x and two hexadecimal digits, so
 * that readers who turn \xHH back get the very same bytes: the rule of json_emit.h. */
void outbuf_text(struct outbuf *b, const char *text, const char *special);

/* The same for one character of a text that is not empty: its bytes; returns how many of the text's
 * it took. */
struct text_piece {
    char bytes[8];
    size_t n;
};
size_t text_piece(const char *text, const char *special, struct text_piece *ret);

#endif
