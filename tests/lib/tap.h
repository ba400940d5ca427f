/* The test programs' side of TAP, which `prove` reads: one "ok"/"not ok" line a check, the plan at
 * the end. Include it in one .c file per program:
 *
 *     int main(void)
 *     {
 *         ok(1 + 1 == 2, "sums of %d and %d", 1, 1);
 *         return done_testing();
 *     }
 *
 * ok() returns its condition, so that a test can stop early or print more with diag(). */
#ifndef HEAPCENSUS_TAP_H
#define HEAPCENSUS_TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>

#define TAP_FN static __attribute__((unused))

static unsigned tap_run, tap_failed;

/* A comment line for people; prove shows it with a failure. */
TAP_FN __attribute__((format(printf, 1, 2))) void diag(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("# ");
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

TAP_FN __attribute__((format(printf, 4, 5))) bool tap_ok(bool cond, const char *file, int line,
                                                         const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    printf("%sok %u - ", cond ? "" : "not ", ++tap_run);
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    if (!cond) {
        tap_failed++;
        diag("failed at %s:%d", file, line);
    }
    fflush(stdout);
    return cond;
}

#define ok(cond, ...) tap_ok((cond), __FILE__, __LINE__, __VA_ARGS__)

/* Count a test that cannot run here; the reason is printed and CI looks for it. */
TAP_FN void skip(const char *why)
{
    printf("ok %u # SKIP %s\n", ++tap_run, why);
}

/* Prints the plan; returns main's exit status. */
TAP_FN int done_testing(void)
{
    printf("1..%u\n", tap_run);
    return tap_failed ? 1 : 0;
}

#endif
