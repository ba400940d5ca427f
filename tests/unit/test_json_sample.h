/* A snapshot with every kind of record, for the tests of files. Figures are made up; only the sums
 * of the categories fit. */
#ifndef HEAPCENSUS_TEST_JSON_SAMPLE_H
#define HEAPCENSUS_TEST_JSON_SAMPLE_H

#include <stdlib.h>

#include "formats/snapshot.h"

static void sample_header(struct snapshot *s)
{
    s->tool_version = "0.1.0";
    s->taken_at = "2024-05-06T07:08:09Z";
    s->host = "host-1";
    s->source = (struct snapshot_source){
        .kind = "live",
        .pid = 4711,
        .comm = "python3",
        .exe = "/usr/bin/python3.11",
        .exe_build_id = "0123456789abcdef",
        .paused_ns = 12345678,
        .consistent = true,
        .read_bytes = 99,
        .threads = 3,
    };
    s->python = (struct snapshot_python){
        .present = true,
        .version = "3.11.7",
        .hexversion = 0x030b07f0,
        .allocator = "pymalloc",
        .layout_name = "py3_11",
        .layout_source = "table",
        .state = "running",
        .interpreters = 1,
        .found_by = "symbol _PyRuntime",
    };
    s->libc = (struct snapshot_libc){"glibc", "2.36", "glibc"};
}

static void sample_totals(struct snapshot *s)
{
    struct snapshot_pymalloc *p = &s->pymalloc;
    *p = (struct snapshot_pymalloc){.present = true, .arenas = 3, .arena_size = 1 << 20};
    p->pool_size = 16384;
    p->heaps = 1;
    for (unsigned i = 0; i < SIZE_CLASSES; i++)
        p->classes[i].size = 16 * (i + 1);
    p->classes[1] =
        (struct snapshot_size_class){.size = 32, .pools = 7, .blocks_used = 100, .blocks_free = 11};
    p->classes[31] = (struct snapshot_size_class){
        .size = 512, .pools = 1, .blocks_used = 2, .blocks_free = 3, .top_type = "bytes"};
    p->classes[31].top_count = 1;
    s->malloc = (struct snapshot_malloc){.present = true, .arenas = 2, .system_bytes = 1 << 20};
    s->malloc.used_bytes = 4096;
    s->malloc.mallinfo2.keepcost = 42;
    for (int i = 0; i < CAT_COUNT; i++) {
        s->memory.tally.bytes[i] = 4096u * (unsigned)(i + 1);
        s->memory.tally.resident[i] = 4096u * (unsigned)i;
        s->memory.tally.count[i] = (unsigned)i;
    }
    s->memory.mapped_bytes = tally_bytes(&s->memory.tally);
    s->memory.rss_bytes = tally_resident(&s->memory.tally);
}

/* Arenas: 10 % used, 60 % used, full. */
static void sample_arenas(struct snapshot *s)
{
    for (unsigned i = 0; i < 3; i++) {
        struct snapshot_arena *a = snapshot_add_arena(s);
        *a = (struct snapshot_arena){.address = 0x7f31c0000000 + i * 0x100000u, .size = 1000000};
        a->bytes_used = i == 0 ? 100000 : i == 1 ? 600000 : 1000000;
        a->pools_total = 64;
        a->heap = i;
        a->top_type = i ? "list" : NULL;
        a->top_bytes = i * 1000u;
    }
    for (unsigned i = 0; i < 2; i++) {
        struct snapshot_malloc_arena *a = snapshot_add_malloc_arena(s);
        *a = (struct snapshot_malloc_arena){.address = 0x7f31d0000000 + i, .main = i == 0};
        a->top = i ? 0x7f31d0001000 : 0;
    }
}

static void sample_mappings(struct snapshot *s)
{
    static const char *const paths[] = {"/usr/bin/a \"quoted\" \\ name", "[heap]", NULL,
                                        "/tmp/\xff\xc3\xa9\x1b[31m\\xff", "[vsyscall]"};
    for (unsigned i = 0; i < 5; i++) {
        struct snapshot_mapping *m = snapshot_add_mapping(s);
        m->address = i == 4 ? 0xffffffffff600000 : 0x400000 + i * 0x1000u;
        m->size = 4096;
        m->resident_bytes = i % 2 ? 4096 : 0;
        m->offset = i * 4096u;
        m->path = snapshot_str(s, paths[i]);
        m->kind = "anonymous";
        for (unsigned k = 0; k < 4; k++)
            m->perms[k] = "rw-p"[k];
        m->tally.bytes[CAT_DATA] = 4000;
        m->tally.bytes[CAT_UNKNOWN] = 96;
        m->tally.resident[CAT_DATA] = m->resident_bytes;
    }
    struct snapshot_note *n = snapshot_add_note(s);
    *n = (struct snapshot_note){0x1234, "malloc.damaged", "a chunk of size 3", 64};
    n = snapshot_add_note(s);
    *n = (struct snapshot_note){0, "swap", "some is in swap\n", 0};
}

static void sample_types(struct snapshot *s)
{
    static const char *const names[] = {"dict", "app.models.Session", "app.\xff\x1b.T"};
    for (unsigned i = 0; i < 3; i++) {
        struct snapshot_type *t = snapshot_add_type(s);
        *t = (struct snapshot_type){.name = names[i], .module = i ? "app" : "builtins"};
        t->address = 0x955e00 + i * 0x200u;
        t->count = 10 - i;
        t->bytes = 640;
        t->size_bytes = 600;
        t->buffers = 3;
        t->buffer_bytes = 1000 - 300 * i;
        t->inferred = i;
        t->inferred_bytes = 64 * i;
        t->dead = 1;
        t->dead_bytes = 64;
        t->statics = 5 * i;
        t->static_bytes = 80 * i;
    }
    s->objects = (struct snapshot_objects){.present = true, .objects = 27, .object_bytes = 1920};
    s->objects.malloc_unowned_bytes = s->objects.unowned_bytes = 77;
    s->objects.statics = 15;
    s->objects.static_bytes = 240;
    s->gc = (struct snapshot_gc){.present = true, .enabled = true, .lists = true, .generations = 3};
    for (unsigned i = 0; i < GC_GENERATIONS; i++) {
        s->gc.threshold[i] = 700 - 345 * i;
        s->gc.count[i] = i;
        s->gc.tracked[i] = 1000 * i;
    }
    s->gc.frozen = 5;
    s->gc.garbage = 6;
    for (unsigned i = 0; i < 6; i++) {
        static const char *const kinds[] = {"object", "buffer", "unowned"};
        struct snapshot_block *b = snapshot_add_block(s);
        *b = (struct snapshot_block){.address = 0x7f31c0000030 + i * 48u, .size = 48};
        b->kind = kinds[i % 3];
        b->type = i % 3 == 2 ? NULL : names[i / 3];
        b->owner = i % 3 == 1 ? b->address - 48 : 0;
    }
}

/* Two sites at one traceback, one at another; names as hostile as paths are. */
static void sample_tracing(struct snapshot *s)
{
    static const char *const files[] = {"/srv/app/models.py", "/srv/caf\xc3\xa9/\xff\x1b\"\\.py",
                                        "<unknown>"};
    static const uint32_t first[] = {0, 1, 2}, second[] = {2};
    s->tracing = (struct snapshot_tracing){.present = true, .source = "tracemalloc"};
    s->tracing.tracing = true;
    s->tracing.frames_limit = 25;
    s->tracing.traced_bytes = 4000;
    s->tracing.peak_bytes = 5000;
    s->tracing.lost = 1;
    for (unsigned i = 0; i < 3; i++) {
        struct snapshot_frame *f = snapshot_add_frame(s);
        *f = (struct snapshot_frame){files[i], i == 1 ? "f" : NULL, i * 10};
    }
    snapshot_add_traceback(s, first, 3, 40);
    snapshot_add_traceback(s, second, 1, 0);
    for (unsigned i = 0; i < 3; i++) {
        struct snapshot_site *t = snapshot_add_site(s);
        t->traceback = i == 2;
        t->domain = i;
        t->type = i ? "app.\xff\x1b.T" : NULL;
        t->kind = i ? "object" : "gone";
        t->source = "tracemalloc";
        t->count = 3;
        t->bytes = 100 + 2 * 48;
        if (i != 1 && snapshot_add_size_count(s, 100, 1))
            snapshot_add_size_count(s, 48, 2);
    }
    for (size_t i = 0; i < s->n_blocks; i++)
        s->blocks[i].site = i % 4;
}

static void sample(struct snapshot *s)
{
    snapshot_init(s);
    sample_header(s);
    sample_totals(s);
    sample_arenas(s);
    sample_mappings(s);
    sample_types(s);
    sample_tracing(s);
}

#endif
