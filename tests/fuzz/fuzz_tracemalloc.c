/* Damaged tables of tracemalloc. An input is: which layout, how it is read (blocks, another micro
 * release, debug hooks), then records of 12 bytes that change a word of the image each: to a value,
 * by a bit, by an offset, to an address of the image. Whatever comes: the tables are read in a
 * bounded time, what was read and what the sites say agree, and no site, size or block points
 * outside. */
#include "tests/unit/test_tracing_image.h"

#define FUZZ_SEED seed
#include "tests/fuzz/driver.h"

enum { HEAD = 4, RECORD = 12, MAX_RECORDS = 64 };

static struct timg f;
static uint8_t built_layout, built_front, *clean[2];
static bool ready;

static void build(uint8_t which, uint8_t front)
{
    static const size_t sizes[2] = {TIMG_DATA_BYTES, TIMG_HEAP_BYTES};
    if (ready)
        timg_release(&f);
    if (!timg_build(&f, layout_at(which), front) || timg_read(&f, true, NULL) < 0)
        abort();
    for (int i = 0; i < 2; i++) {
        clean[i] = realloc(clean[i], sizes[i]);
        if (!clean[i])
            abort();
        memcpy(clean[i], f.bytes[i], sizes[i]);
    }
    built_layout = which;
    built_front = front;
    ready = true;
}

/* An address from 16 bits: of something that means something, or any. */
static uint64_t place(uint16_t where)
{
    uint64_t i = where & 0xfff;
    switch (where >> 12) {
    case 0:
        return f.tables[i % TIMG_TABLES];
    case 1:
        return f.tracebacks[i % TIMG_TRACEBACKS];
    case 2:
        return f.names[i % TIMG_NAMES];
    case 3:
    case 4:
        return f.entry[i % TIMG_TRACES];
    case 5:
        return f.record[i % TIMG_TRACES] ? f.record[i % TIMG_TRACES] : f.entry[0];
    case 6:
        return f.state;
    case 7:
        return TIMG_DATA + TIMG_STATICS;
    case 8: /* buckets, as long as the table says where they are */
        return f.tables[i % TIMG_TABLES]
                   ? load_u64(clean[1] + (f.tables[i % TIMG_TABLES] - TIMG_HEAP) + 16)
                   : TIMG_HEAP;
    default:
        return TIMG_HEAP + (uint64_t)where * 8 % (f.brk - TIMG_HEAP) / 8 * 8;
    }
}

static void apply(const uint8_t *r)
{
    uint64_t at = place(load_u16(r)), value = load_u64(r + 4), old;
    at = at ? at + (r[3] & 31) * (r[3] & 32 ? 1u : 8u) : TIMG_HEAP;
    uint8_t *p = timg_at(&f, at, 8);
    memcpy(&old, p, 8);
    switch (r[2] % 5) {
    case 0:
        break;
    case 1:
        value = old ^ 1ull << (value & 63);
        break;
    case 2:
        value = old + (uint64_t)(int8_t)value;
        break;
    case 3:
        value = place((uint16_t)value);
        break;
    default:
        memset(p, (int)value, 8);
        return;
    }
    memcpy(p, &value, r[3] & 64 ? 4 : 8);
}

static bool sound(const struct snapshot *s, const struct blocks *b)
{
    uint64_t count = 0, bytes = 0;
    for (size_t i = 0; i < s->n_sites; i++) {
        const struct snapshot_site *site = &s->sites[i];
        uint64_t n = 0, sum = 0;
        if (site->traceback >= s->n_tracebacks ||
            site->first_size + site->n_sizes > s->n_size_counts)
            return false;
        for (uint32_t k = 0; k < site->n_sizes; k++) {
            const struct snapshot_size_count *c = &s->size_counts[site->first_size + k];
            n += c->count;
            sum += c->count * c->size;
        }
        if (n != site->count || sum != site->bytes)
            return false;
        count += n;
        bytes += sum;
    }
    for (size_t i = 0; i < s->n_tracebacks; i++)
        if (s->tracebacks[i].first + s->tracebacks[i].n > s->n_frame_ids)
            return false;
    for (size_t i = 0; i < s->n_frame_ids; i++)
        if (s->frame_ids[i] >= s->n_frames || !s->frames[s->frame_ids[i]].file)
            return false;
    for (size_t i = 0; b->sites && i < b->n; i++)
        if (b->sites[i] > s->n_sites)
            return false;
    return count == s->tracing.traces && bytes == s->tracing.trace_bytes;
}

static bool ranges_fine(void)
{
    struct cpython_range *ranges = NULL;
    size_t n = 0;
    if (cpython_tracing_ranges(&f.in, &f.py, true, &ranges, &n, NULL) < 0)
        return false;
    bool fine = true;
    for (size_t i = 0; i < n; i++)
        fine &=
            ranges[i].start < ranges[i].end && (i == 0 || ranges[i - 1].start <= ranges[i].start);
    free(ranges);
    return fine;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < HEAD)
        return 0;
    uint8_t which = data[0] % (uint8_t)layout_count(), front = data[1] & 1 ? 16 : 0;
    if (!ready || which != built_layout || front != built_front)
        build(which, front);
    for (size_t at = HEAD; at + RECORD <= size && at < HEAD + MAX_RECORDS * RECORD; at += RECORD)
        apply(data + at);
    f.py.layout_exact = !(data[1] & 2);
    struct err err = ERR_INIT;
    if (timg_read(&f, !(data[1] & 4), &err) < 0 || !sound(&f.snap, &f.blocks) || !ranges_fine())
        abort();
    memcpy(f.bytes[0], clean[0], TIMG_DATA_BYTES);
    memcpy(f.bytes[1], clean[1], TIMG_HEAP_BYTES);
    f.failed = false;
    return 0;
}

#ifdef FUZZ_MAIN
/* An image with up to 8 changes. */
static size_t seed(unsigned n, uint8_t *buf, size_t cap)
{
    size_t len = HEAD + RECORD * (size_t)fuzz_draw(9);
    if (len > cap)
        return 0;
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)fuzz_draw(256);
    buf[0] = (uint8_t)(n / 64); /* building an image costs more than reading it */
    return len;
}
#endif
