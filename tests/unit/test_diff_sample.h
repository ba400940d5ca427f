/* Snapshots of one process, made by hand: what test_diff.c, test_gate.c and test_trend.c compare.
 */
#ifndef HEAPCENSUS_TEST_DIFF_SAMPLE_H
#define HEAPCENSUS_TEST_DIFF_SAMPLE_H

#include <string.h>

#include "formats/snapshot.h"

#define SAMPLE_FN static __attribute__((unused))

SAMPLE_FN void sample_map(struct snapshot *s, const char *path, uint64_t address, uint64_t size)
{
    struct snapshot_mapping *m = snapshot_add_mapping(s);
    *m = (struct snapshot_mapping){.address = address, .size = size, .path = path};
    m->kind = path[0] == '[' ? "stack" : "file";
    m->resident_bytes = size / 2;
}

SAMPLE_FN void sample_init(struct snapshot *s, const char *taken_at)
{
    snapshot_init(s);
    s->taken_at = taken_at;
    s->host = "vm";
    s->tool_version = "0.1.0";
    s->source.kind = "copy";
    s->source.pid = 42;
    s->source.exe = "/usr/bin/python3";
    s->source.exe_build_id = "aa55";
    s->source.consistent = true;
    s->python.present = true;
    s->python.version = "3.11.2";
    s->python.allocator = "pymalloc";
    s->libc.allocator = "glibc";
    s->objects.present = true;
    s->pymalloc.present = true;
    sample_map(s, "[stack]", 0x7ffc00000000, 0x21000);
    sample_map(s, "[vdso]", 0x7ffd00000000, 0x2000);
    sample_map(s, "/lib/ld-linux-x86-64.so.2", 0x7f0000000000, 0x1000);
}

/* Also counted in the ledger. */
SAMPLE_FN void sample_type(struct snapshot *s, const char *name, const char *module, uint64_t count,
                           uint64_t bytes, uint64_t buffer_bytes)
{
    struct snapshot_type *t = snapshot_add_type(s);
    *t = (struct snapshot_type){.name = name, .module = module, .address = 0x1000 * s->n_types};
    t->count = count;
    t->bytes = bytes;
    t->buffer_bytes = buffer_bytes;
    s->memory.tally.bytes[CAT_PYTHON_BLOCKS_USED] += bytes + buffer_bytes;
    s->memory.tally.resident[CAT_PYTHON_BLOCKS_USED] += bytes + buffer_bytes;
    s->memory.tally.count[CAT_PYTHON_BLOCKS_USED] += count;
    s->memory.rss_bytes += bytes + buffer_bytes;
}

SAMPLE_FN void sample_trace(struct snapshot *s, uint64_t limit)
{
    s->tracing = (struct snapshot_tracing){.present = true, .tracing = true, .frames_limit = limit};
    s->tracing.source = "tracemalloc";
}

/* A site of one frame, or with two when `caller` is not 0; its number + 1 is what blocks say. */
SAMPLE_FN uint32_t sample_site(struct snapshot *s, const char *file, uint32_t line, uint32_t caller,
                               const char *type, uint64_t count, uint64_t bytes)
{
    uint32_t ids[2] = {(uint32_t)s->n_frames, (uint32_t)s->n_frames + 1};
    struct snapshot_frame *f = snapshot_add_frame(s);
    *f = (struct snapshot_frame){.file = file, .line = line};
    if (caller) {
        f = snapshot_add_frame(s);
        *f = (struct snapshot_frame){.file = "app/main.py", .line = caller};
    }
    snapshot_add_traceback(s, ids, caller ? 2 : 1, caller ? 2 : 1);
    struct snapshot_site *site = snapshot_add_site(s);
    site->traceback = (uint32_t)s->n_tracebacks - 1;
    site->type = type;
    site->source = "tracemalloc";
    site->kind = "object";
    site->count = count;
    site->bytes = bytes;
    s->tracing.traced_bytes += bytes;
    return (uint32_t)s->n_sites;
}

SAMPLE_FN void sample_block(struct snapshot *s, uint64_t address, uint64_t size, const char *kind,
                            const char *type, uint32_t site)
{
    struct snapshot_block *b = snapshot_add_block(s);
    b->address = address;
    b->size = size;
    b->kind = snapshot_str(s, kind);
    b->type = snapshot_str(s, type);
    b->site = site;
}

#endif
