/* Snapshot files when memory or the disk gives out: the i-th allocation fails, the i-th write
 * fails, for i = 1, 2, ... until a run meets no failure. Nothing may crash or leak.
 *
 * The allocator is interposed by defining malloc here; under the address sanitizer it goes on to
 * the sanitizer's own, so that leaks are still found. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "formats/block_stream.h"
#include "formats/json.h"
#include "formats/sink.h"
#include "tests/lib/tap.h"
#include "tests/unit/test_json_sample.h"

/* Weak: there only under the sanitizer. */
#define WEAK __attribute__((weak))
void *__interceptor_malloc(size_t size) WEAK;
void *__interceptor_calloc(size_t n, size_t size) WEAK;
void *__interceptor_realloc(void *old, size_t size) WEAK;
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
#define REAL(f) (__interceptor_##f ? __interceptor_##f : __libc_##f)

static unsigned long fail_at; /* 0: never */
static unsigned long calls;

static bool fails(void)
{
    return fail_at && ++calls == fail_at;
}

void *malloc(size_t size)
{
    return fails() ? NULL : REAL(malloc)(size);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : REAL(calloc)(n, size);
}

void *realloc(void *old, size_t size)
{
    return fails() ? NULL : REAL(realloc)(old, size);
}

static struct sink_memory plain, packed;

static void make_files(void)
{
    struct snapshot s;
    struct sink *z;
    sample(&s);
    sink_memory_init(&plain);
    sink_memory_init(&packed);
    bool done = json_write_snapshot(&s, &plain.sink, NULL) == 0;
    done = done && sink_gzip_new(&packed.sink, &z, NULL) == 0;
    if (done) {
        done = json_write_snapshot(&s, z, NULL) == 0 && sink_gzip_finish(z, NULL) == 0;
        sink_gzip_free(z);
    }
    ok(done, "files to work on");
    snapshot_release(&s);
}

/* A run with the i-th allocation failing; true when no allocation failed any more. */
static bool load_once(const struct sink_memory *m, unsigned long i, unsigned *wrong)
{
    struct snapshot s;
    struct err err = ERR_INIT;
    calls = 0;
    fail_at = i;
    int rc = json_load_bytes(m->bytes, m->n, "x", 0, &s, &err);
    fail_at = 0;
    if ((rc < 0) == (calls < i) || (rc < 0 && (rc != ERR_NOMEM || err.code != rc)))
        (*wrong)++;
    if (rc == 0)
        snapshot_release(&s);
    return calls < i;
}

static void test_load(const struct sink_memory *m, const char *what)
{
    unsigned wrong = 0;
    unsigned long i = 1;
    while (i < 100000 && !load_once(m, i, &wrong))
        i++;
    ok(wrong == 0 && i < 100000, "reading %s: each of %lu allocations failed once", what, i - 1);
}

/* The same for blocks one by one. */
static bool stream_once(const struct sink_memory *m, unsigned long i, unsigned *wrong)
{
    struct snapshot s;
    struct block_stream *stream;
    struct block_row row;
    struct err err = ERR_INIT;
    calls = 0;
    fail_at = i;
    int rc = block_stream_open_bytes(m->bytes, m->n, "x", 0, &s, &stream, &err);
    if (rc == 0) {
        while ((rc = block_stream_next(stream, &row, &err)) > 0)
            continue;
        block_stream_close(stream);
        snapshot_release(&s);
    }
    fail_at = 0;
    if ((rc < 0) == (calls < i) || (rc < 0 && (rc != ERR_NOMEM || err.code != rc)))
        (*wrong)++;
    return calls < i;
}

static void test_stream(const struct sink_memory *m)
{
    unsigned wrong = 0;
    unsigned long i = 1;
    while (i < 100000 && !stream_once(m, i, &wrong))
        i++;
    ok(wrong == 0 && i < 100000, "blocks one by one: each of %lu allocations failed once", i - 1);
}

static bool gzip_once(const struct snapshot *s, unsigned long i, unsigned *wrong)
{
    struct sink_memory m;
    struct sink *z;
    sink_memory_init(&m);
    calls = 0;
    fail_at = i;
    int rc = sink_gzip_new(&m.sink, &z, NULL);
    if (rc == 0) {
        rc = json_write_snapshot(s, z, NULL);
        if (rc == 0)
            rc = sink_gzip_finish(z, NULL);
        sink_gzip_free(z);
    }
    fail_at = 0;
    if ((rc < 0) == (calls < i) || (rc < 0 && rc != ERR_NOMEM))
        (*wrong)++;
    sink_memory_release(&m);
    return calls < i;
}

static void test_gzip(void)
{
    struct snapshot s;
    unsigned wrong = 0;
    unsigned long i = 1;
    sample(&s);
    while (i < 1000 && !gzip_once(&s, i, &wrong))
        i++;
    ok(wrong == 0 && i < 1000, "packing: each of %lu allocations failed once", i - 1);
    snapshot_release(&s);
}

struct failing_sink {
    struct sink sink;
    unsigned long at, calls;
};

static int failing_write(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    struct failing_sink *f = (struct failing_sink *)sink;
    (void)bytes, (void)len;
    return ++f->calls == f->at ? err_os(err, ENOSPC, "cannot write") : 0;
}

/* Enough mappings that the emitter's buffer goes out many times. */
static void many_mappings(struct snapshot *s)
{
    sample(s);
    for (unsigned i = 0; i < 2000; i++) {
        struct snapshot_mapping *m = snapshot_add_mapping(s);
        *m = s->mappings[i % 5];
    }
}

static int write_with(const struct snapshot *s, struct sink *out, const char *view, bool gzip,
                      struct err *err)
{
    struct sink *z = NULL, *to = out;
    int rc = gzip ? sink_gzip_new(out, &z, err) : 0;
    if (rc == 0 && gzip)
        to = z;
    if (rc == 0)
        rc = view ? json_write_view(s, view, to, err) : json_write_snapshot(s, to, err);
    if (rc == 0 && gzip)
        rc = sink_gzip_finish(z, err);
    sink_gzip_free(z);
    return rc;
}

static void test_write(const char *view, bool gzip)
{
    struct snapshot s;
    unsigned wrong = 0;
    unsigned long i = 0;
    many_mappings(&s);
    for (bool clean = false; !clean && i < 10000;) {
        struct failing_sink f = {{failing_write}, ++i, 0};
        struct err err = ERR_INIT;
        int rc = write_with(&s, &f.sink, view, gzip, &err);
        clean = f.calls < i;
        wrong += clean ? rc != 0 : rc != ERR_OS || err.os_errno != ENOSPC || f.calls != i;
    }
    ok(wrong == 0 && i > (gzip ? 1 : 3), "%s%s: each of %lu writes failed once",
       view ? view : "snapshot", gzip ? ".gz" : "", i - 1);
    snapshot_release(&s);
}

int main(void)
{
    make_files();
    test_load(&plain, "plain");
    test_load(&packed, "gzip");
    test_stream(&packed);
    test_gzip();
    test_write(NULL, false);
    test_write(NULL, true);
    test_write("maps", false);
    sink_memory_release(&plain);
    sink_memory_release(&packed);
    return done_testing();
}
