/* One line on stderr while something takes long, if that is a terminal. */
#ifndef HEAPCENSUS_PROGRESS_H
#define HEAPCENSUS_PROGRESS_H

#include <stdbool.h>

#include "inspector/cmd.h"

struct progress {
    bool on;
};

void progress_begin(struct progress *p, const struct options *opt, const char *what);
void progress_end(struct progress *p);

#endif
