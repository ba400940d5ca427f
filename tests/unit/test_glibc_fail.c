/* glibc_walk when memory gives out: the i-th allocation fails, for i = 1, 2, ... until a run meets
 * no failure. Nothing may crash or leak, and what was claimed until then still adds up. */
#include <stdlib.h>
#include <string.h>

#include "tests/lib/glibc_fixture.c" /* each program is linked from one .c file */
#include "tests/lib/tap.h"

/* Weak: there only under the sanitizer, which then still finds leaks. */
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

static struct fixture f;

/* One run with the i-th allocation of the walk failing; false once it makes fewer than i. */
static bool run_failing(unsigned long i, int *rc, bool *added_up, bool *complete)
{
    struct fixture_result r;
    calls = 0;
    f.fail_at = i;
    fixture_walk(&f, &r);
    bool met = calls >= i;
    *rc = r.rc;
    *added_up = fixture_sums(&r);
    *complete = r.snap.complete && r.snap.malloc.used_bytes == f.want.used_bytes;
    snapshot_release(&r.snap);
    return met;
}

static void begin(unsigned long i)
{
    fail_at = i;
}

static void test_layout(const struct glibc_layout *l, bool threads)
{
    unsigned long i = 1, odd = 0;
    int rc = 0;
    bool added_up = true, complete = false;
    fixture_build(&f, l);
    f.before_walk = begin;
    f.no_threads = !threads;
    for (; i < 10000 && run_failing(i, &rc, &added_up, &complete); i++)
        /* Notes and a seldom needed window may be lost without failing the walk. */
        if (!added_up || (rc != 0 && rc != ERR_NOMEM && rc != ERR_NOT_FOUND))
            odd++;
    ok(odd == 0 && i > 10, "%s: %lu failing allocations", l->name, i - 1);
    ok(rc == 0 && complete, "%s: then a complete walk", l->name);
}

int main(void)
{
    for (int i = 0; i < GLIBC_LAYOUTS; i++) {
        test_layout(&glibc_layouts[i], true);
        test_layout(&glibc_layouts[i], false);
    }
    return done_testing();
}
