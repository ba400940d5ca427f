#include "formats/outbuf.h"

#include <stdbool.h>
#include <string.h>

#include "formats/base/utf8.h"

static const char hex_digits[] = "0123456789abcdef";

void outbuf_init(struct outbuf *b, struct sink *sink, struct err *err)
{
    b->sink = sink;
    b->err = err;
    b->rc = 0;
    b->used = 0;
}

static void flush(struct outbuf *b)
{
    if (b->rc == 0)
        b->rc = sink_write(b->sink, b->buf, b->used, b->err);
    b->used = 0;
}

int outbuf_finish(struct outbuf *b)
{
    flush(b);
    return b->rc;
}

void outbuf_put(struct outbuf *b, const void *bytes, size_t len)
{
    const char *p = bytes;
    while (len) {
        if (b->used == sizeof b->buf)
            flush(b);
        size_t room = sizeof b->buf - b->used, part = len < room ? len : room;
        memcpy(b->buf + b->used, p, part);
        b->used += part;
        p += part;
        len -= part;
    }
}

void outbuf_char(struct outbuf *b, char c)
{
    if (b->used == sizeof b->buf)
        flush(b);
    b->buf[b->used++] = c;
}

void outbuf_str(struct outbuf *b, const char *text)
{
    outbuf_put(b, text, strlen(text));
}

void outbuf_u64(struct outbuf *b, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    outbuf_put(b, digits + at, sizeof digits - at);
}

void outbuf_addr(struct outbuf *b, uint64_t v)
{
    char digits[16];
    size_t at = sizeof digits;
    do {
        digits[--at] = hex_digits[v & 15];
        v >>= 4;
    } while (v);
    outbuf_put(b, "0x", 2);
    outbuf_put(b, digits + at, sizeof digits - at);
}

static bool is_hex(char c)
{
    return c && strchr(hex_digits, c);
}

static bool is_byte_escape(const char *p)
{
    return p[0] == '\\' && p[1] == 'x' && is_hex(p[2]) && is_hex(p[3]);
}

/* C0, DEL and C1. */
static bool is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

size_t text_piece(const char *text, const char *special, struct text_piece *ret)
{
    uint32_t code = 0;
    size_t n = utf8_character(text, &code);
    bool escape = n == 0 || is_control(code) || is_byte_escape(text) ||
                  (special && n == 1 && strchr(special, *text));
    n = n ? n : 1;
    ret->n = 0;
    /* A control character of two bytes gives two escapes. */
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)text[i];
        const char hex[] = {'\\', 'x', hex_digits[byte >> 4], hex_digits[byte & 15]};
        memcpy(ret->bytes + ret->n, escape ? hex : text + i, escape ? sizeof hex : 1);
        ret->n += escape ? sizeof hex : 1;
    }
    return n;
}

void outbuf_text(struct outbuf *b, const char *text, const char *special)
{
    struct text_piece piece;
    while (*text) {
        text += text_piece(text, special, &piece);
        outbuf_put(b, piece.bytes, piece.n);
    }
}
