/* Which sites pass filters, as Snapshot.filter_traces() decides it. */
#ifndef HEAPCENSUS_SITE_FILTER_H
#define HEAPCENSUS_SITE_FILTER_H

#include <stdint.h>

#include "formats/base/err.h"
#include "formats/sites.h"

/* pass[i] = whether the snapshot's site i passes. The snapshot's indices must be sound. ERR_USAGE:
 * a bad regular expression; ERR_NOMEM. */
int site_filters_apply(const struct snapshot *snap, const struct site_filters *filters,
                       uint8_t *pass, struct err *err) MUST_CHECK;

#endif
