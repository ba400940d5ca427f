/* Python's fnmatch, as of 3.10: * any characters, ? one, [seq] and [!seq] one of or none of;
 * nothing is an escape, nothing is special about slashes and dots, and characters are those of
 * UTF-8. What is no UTF-8 is one character a byte, as with Python's surrogateescape. */
#ifndef HEAPCENSUS_FNMATCH_H
#define HEAPCENSUS_FNMATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"

struct fnmatch_range {
    uint32_t from, to;
};

/* One step of a pattern: a character, any, any number of any, a set. */
struct fnmatch_step {
    enum { FNMATCH_CHAR, FNMATCH_ANY, FNMATCH_STAR, FNMATCH_SET } kind;
    uint32_t ch;
    bool negated;
    size_t first, n; /* of a set: its ranges */
};

struct fnmatch_pattern {
    struct fnmatch_step *steps;
    size_t n;
    struct fnmatch_range *ranges;
    size_t n_ranges;
};

/* ERR_NOMEM. */
int fnmatch_compile(struct fnmatch_pattern *p, const char *text, size_t len,
                    struct err *err) MUST_CHECK;
bool fnmatch_test(const struct fnmatch_pattern *p, const char *name, size_t len);
void fnmatch_release(struct fnmatch_pattern *p);

#endif
