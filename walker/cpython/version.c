/* Which CPython: from Py_GetVersion's static buffer, which holds "3.N.M (build, date) [compiler]"
 * in the module's writable data from the start of sys on, in every version and in every core. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/cpython.h"

static unsigned take_number(const char **p, const char *end, bool *ok)
{
    unsigned v = 0;
    const char *s = *p;
    while (*p < end && isdigit((unsigned char)**p) && *p - s < 3)
        v = v * 10 + (unsigned)(*(*p)++ - '0');
    *ok = *p > s;
    return v;
}

/* "3.11.7", "3.15.0rc2", "3.12.0b1+" as PY_VERSION_HEX: 0x030b07f0. */
static bool parse(const char *p, const char *end, uint32_t *hex, const char **stop)
{
    bool ok;
    if (end - p < 5 || p[0] != '3' || p[1] != '.')
        return false;
    p += 2;
    unsigned minor = take_number(&p, end, &ok);
    if (!ok || p >= end || *p++ != '.')
        return false;
    unsigned micro = take_number(&p, end, &ok);
    if (!ok || minor > 255 || micro > 255)
        return false;
    unsigned level = 0xf, serial = 0;
    if (p < end && (*p == 'a' || *p == 'b' || *p == 'r')) {
        level = *p == 'a' ? 0xa : *p == 'b' ? 0xb : 0xc;
        p += *p == 'r' && p + 1 < end && p[1] == 'c' ? 2 : 1;
        serial = take_number(&p, end, &ok) & 15;
        if (!ok)
            return false;
    }
    *hex = 3u << 24 | minor << 16 | micro << 8 | level << 4 | serial;
    *stop = p;
    return true;
}

/* The whole buffer must look like Py_GetVersion's: version, blank, "(", ..., ")", "[". */
static bool match(const char *p, const char *end, uint32_t *hex, size_t *version_len)
{
    const char *stop;
    if (!parse(p, end, hex, &stop))
        return false;
    if (stop < end && *stop == '+')
        stop++;
    *version_len = (size_t)(stop - p);
    /* "free-threading build" comes between the version and the parenthesis in 3.13+. */
    const char *limit = end - stop > 300 ? stop + 300 : end;
    const char *nul = memchr(stop, '\0', (size_t)(limit - stop));
    if (!nul || stop >= nul || *stop != ' ')
        return false;
    const char *paren = memchr(stop, '(', (size_t)(nul - stop));
    const char *bracket = paren ? memchr(paren, '[', (size_t)(nul - paren)) : NULL;
    return bracket && memchr(paren, ')', (size_t)(bracket - paren));
}

static bool scan(struct mem *mem, uint64_t lo, uint64_t hi, char *buf, size_t cap, uint32_t *hex)
{
    enum { STEP = 4096, OVERLAP = 320 };
    char bytes[STEP + OVERLAP];
    for (uint64_t at = round_down(lo, STEP); at < hi; at += STEP) {
        size_t got = mem_read_some(mem, at, bytes, sizeof bytes);
        const char *end = bytes + got;
        for (const char *p = bytes; p < bytes + STEP && p + 5 < end; p++) {
            size_t len;
            p = memchr(p, '3', (size_t)(end - p));
            if (!p || p >= bytes + STEP)
                break;
            if ((p == bytes || p[-1] == '\0') && match(p, end, hex, &len)) {
                snprintf(buf, cap, "%.*s", (int)len, p);
                return true;
            }
        }
    }
    return false;
}

bool cpython_version_string(const struct cpython_input *in, const struct cpython_module *m,
                            char *buf, size_t cap, uint32_t *hexversion)
{
    for (size_t i = 0; i < m->n_data; i++)
        if (scan(in->mem, m->data[i].start, m->data[i].end, buf, cap, hexversion))
            return true;
    return false;
}

void cpython_version_format(uint32_t hex, char *buf, size_t cap)
{
    static const char *const levels[16] = {[0xa] = "a", [0xb] = "b", [0xc] = "rc"};
    const char *level = levels[hex >> 4 & 15];
    int n = snprintf(buf, cap, "%u.%u.%u", hex >> 24, hex >> 16 & 255, hex >> 8 & 255);
    if (level && n > 0 && (size_t)n < cap)
        snprintf(buf + n, cap - (size_t)n, "%s%u", level, hex & 15);
}
