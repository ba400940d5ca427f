#include "formats/json_emit.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats/json_scan.h"

static const char hex_digits[] = "0123456789abcdef";

void json_emit_init(struct json_emit *e, struct sink *sink, struct err *err)
{
    e->sink = sink;
    e->err = err;
    e->rc = 0;
    e->comma = false;
    e->used = 0;
}

static void flush(struct json_emit *e)
{
    if (e->rc == 0)
        e->rc = sink_write(e->sink, e->buf, e->used, e->err);
    e->used = 0;
}

int json_emit_finish(struct json_emit *e)
{
    flush(e);
    return e->rc;
}

/* `len` is small: a key, a number, one escaped character. */
static void put(struct json_emit *e, const char *bytes, size_t len)
{
    while (len) {
        if (e->used == sizeof e->buf)
            flush(e);
        size_t part = sizeof e->buf - e->used;
        if (part > len)
            part = len;
        memcpy(e->buf + e->used, bytes, part);
        e->used += part;
        bytes += part;
        len -= part;
    }
}

static void put_char(struct json_emit *e, char c)
{
    if (e->used == sizeof e->buf)
        flush(e);
    e->buf[e->used++] = c;
}

static void before_value(struct json_emit *e)
{
    if (e->comma)
        put_char(e, ',');
    e->comma = true;
}

void emit_open(struct json_emit *e, char bracket)
{
    before_value(e);
    put_char(e, bracket);
    e->comma = false;
}

void emit_close(struct json_emit *e, char bracket)
{
    put_char(e, bracket);
    e->comma = true;
}

void emit_key(struct json_emit *e, const char *key)
{
    before_value(e);
    put_char(e, '"');
    put(e, key, strlen(key));
    put(e, "\":", 2);
    e->comma = false;
}

void emit_line(struct json_emit *e)
{
    put_char(e, '\n');
    e->comma = false;
}

void emit_null(struct json_emit *e)
{
    before_value(e);
    put(e, "null", 4);
}

void emit_bool(struct json_emit *e, bool v)
{
    before_value(e);
    put(e, v ? "true" : "false", v ? 4 : 5);
}

void emit_u64(struct json_emit *e, uint64_t v)
{
    char digits[20];
    size_t at = sizeof digits;
    if (v > INT64_MAX)
        v = INT64_MAX;
    do {
        digits[--at] = (char)('0' + v % 10);
        v /= 10;
    } while (v);
    before_value(e);
    put(e, digits + at, sizeof digits - at);
}

void emit_i64(struct json_emit *e, int64_t v)
{
    if (v >= 0) {
        emit_u64(e, (uint64_t)v);
        return;
    }
    before_value(e);
    put_char(e, '-');
    e->comma = false;
    emit_u64(e, (uint64_t)0 - (uint64_t)v);
}

void emit_double(struct json_emit *e, double v)
{
    char text[32];
    if (!isfinite(v)) {
        emit_null(e);
        return;
    }
    int n = snprintf(text, sizeof text, "%.9g", v);
    before_value(e);
    put(e, text, (size_t)n);
}

void emit_addr(struct json_emit *e, uint64_t addr)
{
    char digits[18];
    size_t at = sizeof digits;
    digits[--at] = '"';
    do {
        digits[--at] = hex_digits[addr & 15];
        addr >>= 4;
    } while (addr);
    before_value(e);
    put(e, "\"0x", 3);
    put(e, digits + at, sizeof digits - at);
}

/* The smallest code point that needs a sequence of this many bytes: anything below is overlong. */
static const uint32_t utf8_least[5] = {0, 0, 0x80, 0x800, 0x10000};

/* The length of the valid UTF-8 sequence at p (1 to 4 bytes, no surrogates, not overlong), or 0. */
static size_t utf8_length(const unsigned char *p, size_t len, uint32_t *code)
{
    if (p[0] < 0x80) {
        *code = p[0];
        return 1;
    }
    size_t need = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || need > len)
        return 0;
    uint32_t c = p[0] & (0x7fu >> need);
    for (size_t i = 1; i < need; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3fu);
    }
    if (c < utf8_least[need] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *code = c;
    return need;
}

static int hex_value(char c)
{
    const char *p = c ? strchr(hex_digits, c) : NULL;
    return p ? (int)(p - hex_digits) : -1;
}

/* Text at p reads like one of our own escapes. */
static bool is_byte_escape(const char *p, size_t len)
{
    return len >= 4 && p[0] == '\\' && p[1] == 'x' && hex_value(p[2]) >= 0 && hex_value(p[3]) >= 0;
}

static void put_byte_escape(struct json_emit *e, unsigned char byte)
{
    const char text[] = {'\\', '\\', 'x', hex_digits[byte >> 4], hex_digits[byte & 15]};
    put(e, text, sizeof text);
}

/* C0, DEL and C1: a terminal must never see them when someone prints the file. */
static bool is_control(uint32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0);
}

static void put_control(struct json_emit *e, uint32_t code)
{
    const char text[] = {'\\', 'u', '0', '0', hex_digits[code >> 4], hex_digits[code & 15]};
    put(e, text, sizeof text);
}

/* One character or stray byte of the text; returns how many bytes it took. */
static size_t put_character(struct json_emit *e, const char *p, size_t len)
{
    uint32_t code = 0;
    size_t n = utf8_length((const unsigned char *)p, len, &code);
    if (n == 0 || is_byte_escape(p, len)) {
        put_byte_escape(e, (unsigned char)*p);
        return 1;
    }
    if (is_control(code)) {
        put_control(e, code);
        return n;
    }
    if (*p == '"' || *p == '\\')
        put_char(e, '\\');
    put(e, p, n);
    return n;
}

void emit_text_n(struct json_emit *e, const char *text, size_t len)
{
    len = strnlen(text, len);
    bool cut = len > JSON_TEXT_MAX;
    size_t stop = cut ? JSON_TEXT_MAX - 3 : len;
    before_value(e);
    put_char(e, '"');
    /* A character that begins before the cut and ends behind it is left out. */
    while (cut && stop > JSON_TEXT_MAX - 7 && ((unsigned char)text[stop] & 0xc0) == 0x80)
        stop--;
    for (size_t i = 0; i < stop;)
        i += put_character(e, text + i, stop - i);
    if (cut)
        put(e, "...", 3);
    put_char(e, '"');
}

void emit_text(struct json_emit *e, const char *text)
{
    if (text)
        emit_text_n(e, text, SIZE_MAX);
    else
        emit_null(e);
}

size_t json_unescape(char *text, size_t len)
{
    size_t to = 0;
    for (size_t from = 0; from < len;) {
        int byte = 0;
        if (is_byte_escape(text + from, len - from))
            byte = hex_value(text[from + 2]) << 4 | hex_value(text[from + 3]);
        from += byte ? 4 : 1;
        text[to++] = byte ? (char)byte : text[from - 1];
    }
    return to;
}

/* As long as bytes are plain; stops at a quote, a backslash, a control character and whatever is no
 * UTF-8. */
static size_t plain_length(const char *p, size_t len)
{
    size_t n = 0;
    while (n < len && p[n] != '"' && p[n] != '\\') {
        uint32_t code;
        size_t step = utf8_length((const unsigned char *)p + n, len - n, &code);
        if (step == 0 || is_control(code))
            break;
        n += step;
    }
    return n;
}

bool scan_text(struct json_scan *s, const char **ret, size_t *len)
{
    if (!scan_char(s, '"'))
        return false;
    size_t n = plain_length(s->at, (size_t)(s->end - s->at));
    if (n > JSON_TEXT_MAX || s->at[n] != '"')
        return false;
    *ret = s->at;
    *len = n;
    s->at += n + 1;
    return true;
}
