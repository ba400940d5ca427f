/* glibc_walk over damaged heaps. An input is: which layout, flags, an absent page, a claimed range,
 * then records of 12 bytes that change one word each of an otherwise sound heap (or many words at
 * random, as raw bytes over a piece). The walk must end with an error of its own choice, and every
 * byte must be in one category. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "tests/lib/glibc_fixture.c" /* each program is linked from one .c file */

#define FUZZ_SEED seed
#include "tests/fuzz/driver.h"

enum { HEAD = 12, RECORD = 12 };

static struct fixture sound[GLIBC_LAYOUTS], f;
static bool ready;

/* An address in the fixture from 16 bits: a word that means something, or any. */
static uint64_t place(uint16_t where)
{
    if (where & 0x8000)
        return f.words[(where & 0x7fff) % f.n_words];
    const struct fixture_piece *p = &f.pieces[where % f.n_pieces];
    return p->addr + 8 * ((uint64_t)where * 2654435761u % (p->len / 8));
}

static void apply(const uint8_t *r)
{
    uint64_t at = place(load_u16(r)), value = load_u64(r + 4), old = fixture_get(&f, at);
    switch (r[2] % 7) {
    case 0:
        fixture_put(&f, at, value);
        break;
    case 1:
        fixture_put(&f, at, old ^ 1ull << (value & 63));
        break;
    case 2:
        fixture_put(&f, at, old + 16 * (uint64_t)(int8_t)value);
        break;
    case 3: /* a pointer to somewhere in the heap */
        fixture_put(&f, at, place((uint16_t)value) + (r[3] & 16));
        break;
    case 4:
        fixture_put(&f, at, fixture_get(&f, place((uint16_t)value)));
        break;
    case 5: /* an overrun */
        for (unsigned i = 0; i < r[3]; i++)
            fixture_put(&f, at + 8 * i, value);
        break;
    default: /* many plausible headers in a row */
        for (unsigned i = 0; i < r[3]; i++)
            fixture_put(&f, at + 16 * i, (value & 0xfff0) | 1);
    }
}

static void set_up(const uint8_t *head)
{
    f = sound[head[0] % GLIBC_LAYOUTS];
    f.no_threads = head[1] & 1;
    if (head[1] & 2)
        f.absent = round_down(place(load_u16(head + 2)), 4096);
    if (head[1] & 4) {
        const struct fixture_piece *p = &f.pieces[head[4] % f.n_pieces];
        f.claimed_start = p->addr + load_u16(head + 5) % p->len;
        f.claimed_end = min_u64(f.claimed_start + 1 + load_u16(head + 7), p->addr + p->len);
    }
    if (head[1] & 8) /* two threads with one TLS: every cache twice */
        f.fs[1] = f.fs[0];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (unsigned i = 0; i < GLIBC_LAYOUTS && !ready; i++)
        fixture_build(&sound[i], &glibc_layouts[i]);
    ready = true;
    if (size < HEAD)
        return 0;
    set_up(data);
    for (size_t at = HEAD; at + RECORD <= size && at < HEAD + 64 * RECORD; at += RECORD)
        apply(data + at);
    struct fixture_result r;
    fixture_walk(&f, &r);
    if (!fixture_sums(&r) || (r.rc < 0 && r.rc != ERR_NOT_FOUND))
        abort();
    snapshot_release(&r.snap);
    return 0;
}

#ifdef FUZZ_MAIN
/* A heap with up to 8 changed words. */
static size_t seed(unsigned n, uint8_t *buf, size_t cap)
{
    size_t len = HEAD + RECORD * (size_t)fuzz_draw(9);
    if (len > cap)
        return 0;
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)fuzz_draw(256);
    buf[0] = (uint8_t)n;
    buf[1] &= (uint8_t)fuzz_draw(16);
    return len;
}
#endif
