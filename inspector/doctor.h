/* What the doctor's checkups of a process and of a core share. */
#ifndef HEAPCENSUS_DOCTOR_H
#define HEAPCENSUS_DOCTOR_H

#include <stdbool.h>
#include <stdio.h>

#include "formats/snapshot.h"
#include "inspector/cmd.h"

struct checkup {
    FILE *out;
    bool json;
    unsigned n;
    unsigned failed;
};

/* One line: a check, its verdict, the finding, and what helps where it failed ("" or NULL: nothing
 * to say). */
void doctor_check(struct checkup *c, bool ok, const char *name, const char *finding,
                  const char *remedy);
/* What a census found out: python, layout, malloc, tracemalloc. */
void doctor_facts(struct checkup *c, const struct snapshot *snap);

/* The checkup of a core; returns an exit code. */
int doctor_core(struct checkup *c, const struct options *opt);

#endif
