/* Reads JSON in exactly the form that json_emit writes it: no white space, members in their order,
 * no escapes, numbers of at most 18 digits. Internal to json_*.c.
 *
 * jansson makes an object of every number; a record of ten million blocks has sixty million. What
 * does not have this form is no error here: it goes to jansson, which also says what is wrong. So a
 * scan may refuse whatever it likes, but must never accept what jansson would not.
 */
#ifndef HEAPCENSUS_JSON_SCAN_H
#define HEAPCENSUS_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The text ends with a NUL at `end`, so that one byte may always be looked at. */
struct json_scan {
    const char *at, *end;
};

static inline bool scan_is(struct json_scan *s, const char *literal, size_t len)
{
    if ((size_t)(s->end - s->at) < len || memcmp(s->at, literal, len) != 0)
        return false;
    s->at += len;
    return true;
}
#define SCAN(s, literal) scan_is(s, literal, sizeof(literal) - 1)

static inline bool scan_char(struct json_scan *s, char c)
{
    if (*s->at != c || s->at == s->end)
        return false;
    s->at++;
    return true;
}

static inline bool scan_u64(struct json_scan *s, uint64_t *ret)
{
    const char *p = s->at;
    uint64_t v = 0;
    for (; *p >= '0' && *p <= '9' && p - s->at <= 18; p++)
        v = v * 10 + (uint64_t)(*p - '0');
    size_t digits = (size_t)(p - s->at);
    if (digits == 0 || digits > 18 || (digits > 1 && *s->at == '0'))
        return false;
    s->at = p;
    *ret = v;
    return true;
}

static inline bool scan_u32(struct json_scan *s, uint32_t *ret)
{
    uint64_t v;
    if (!scan_u64(s, &v) || v > UINT32_MAX)
        return false;
    *ret = (uint32_t)v;
    return true;
}

/* Between two entries of a list, or behind the last: *more tells which. */
static inline bool scan_next(struct json_scan *s, bool *more)
{
    *more = *s->at == ',';
    if (s->at == s->end || (*s->at != ',' && *s->at != ']'))
        return false;
    s->at++;
    return true;
}

/* A string without escapes: its bytes, which are valid UTF-8 without control characters and at most
 * JSON_TEXT_MAX long. */
bool scan_text(struct json_scan *s, const char **ret, size_t *len);

#endif
