/* Telling UTF-8 from other bytes. Header-only because it is one loop. */
#ifndef HEAPCENSUS_UTF8_H
#define HEAPCENSUS_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* The length of the character at p (1 to 4 bytes; not overlong, no surrogate, within Unicode), with
 * its code point; 0 where there is none. Reads no byte behind the first one that does not fit, so a
 * NUL-terminated string needs no length. */
static inline size_t utf8_character(const char *p, uint32_t *code)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char lead = (unsigned char)*p;
    *code = lead;
    if (lead < 0x80)
        return 1;
    size_t n = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    uint32_t c = lead & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        unsigned char next = (unsigned char)p[i];
        if ((next & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (next & 0x3fu);
    }
    *code = c;
    return c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) ? 0 : n;
}

#endif
