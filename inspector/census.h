/* Taking a census of a live process: stop, copy what is needed, let go, analyse. */
#ifndef HEAPCENSUS_CENSUS_H
#define HEAPCENSUS_CENSUS_H

#include "formats/base/err.h"
#include "formats/snapshot.h"
#include "inspector/cmd.h"

/* Fill `snap` (initialised by the caller) from the process opt->pid. The target is running again,
 * or as it was found, when this returns, whatever it returns. ERR_INTERRUPTED after SIGINT or
 * SIGTERM. */
int census_take(const struct options *opt, struct snapshot *snap, struct err *err) MUST_CHECK;

#endif
