/* Fuzzes the reader of snapshot files, and what must hold for every file that it accepts: written
 * out, it reads back, and writing it again gives the same bytes; every view can be written.
 *
 * The first byte of the input chooses the flags, the rest is the file. Seeds: "s" (or "p" for
 * partial) in front of real snapshots, plain and packed. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/sink.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_views(const struct snapshot *s)
{
    static const char *const views[] = {"summary", "sizes", "arenas", "malloc", "maps"};
    for (size_t i = 0; i < sizeof views / sizeof views[0]; i++) {
        struct sink_memory m;
        sink_memory_init(&m);
        must(json_write_view(s, views[i], &m.sink, NULL) == 0);
        sink_memory_release(&m);
    }
}

static void check_round_trip(const struct snapshot *s)
{
    struct snapshot again;
    struct sink_memory a, b;
    sink_memory_init(&a);
    sink_memory_init(&b);
    must(json_write_snapshot(s, &a.sink, NULL) == 0);
    must(json_load_bytes(a.bytes, a.n, "again", 0, &again, NULL) == 0);
    must(json_write_snapshot(&again, &b.sink, NULL) == 0);
    must(a.n == b.n && memcmp(a.bytes, b.bytes, a.n) == 0);
    snapshot_release(&again);
    sink_memory_release(&a);
    sink_memory_release(&b);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct snapshot s;
    struct err err = ERR_INIT;
    if (size == 0)
        return 0;
    unsigned flags = data[0] == 'p' ? JSON_PARTIAL : 0;
    int rc = json_load_bytes(data + 1, size - 1, "fuzz", flags, &s, &err);
    must(rc <= 0 && (rc == 0) == (err.code == 0));
    if (rc < 0)
        return 0;
    check_views(&s);
    check_round_trip(&s);
    snapshot_release(&s);
    return 0;
}

#ifdef FUZZ_MAIN
#include "tests/fuzz/driver.h"
#endif
