/* Taking a census of a core file. */
#ifndef HEAPCENSUS_CENSUS_CORE_H
#define HEAPCENSUS_CENSUS_CORE_H

#include "formats/base/err.h"
#include "formats/snapshot.h"
#include "inspector/cmd.h"
#include "inspector/modules.h"
#include "inspector/target/core.h"
#include "inspector/target/core_mem.h"
#include "inspector/target/maps.h"
#include "walker/mem.h"
#include "walker/vma.h"

/* A core, opened and looked through: mappings, pages, memory, modules. */
struct core_census {
    const struct options *opt;
    struct core core;
    struct maps maps;
    struct core_pages pages;
    struct residency res;
    struct modules modules;
    struct mem *mem;   /* of the core and of the proven files */
    struct mem *guard; /* over mem: ends at a signal */
    struct mem *cache; /* over guard */
    bool has_rss;      /* the core keeps the kernel's own figures */
    /* Writable memory of the process that is not in the core: */
    uint64_t left_out_bytes; /* private, and whoever wrote the core left it out */
    uint64_t shared_bytes;   /* shared, and left out: no walk looks into it */
    uint64_t file_bytes; /* of mapped files, left out: what proven files hold is read from them */
    uint64_t heap_bytes; /* anonymous memory that was dumped, also where the file ends before */
};

/* Open opt->core. Errors as core_open's; ERR_FORMAT, too, when nothing is mapped. */
int core_census_open(const struct options *opt, struct core_census *ret,
                     struct err *err) MUST_CHECK;
void core_census_release(struct core_census *source);
/* Walk it and fill `snap` (initialised by the caller). ERR_UNSUPPORTED when it is no CPython,
 * ERR_INTERRUPTED after SIGINT or SIGTERM. */
int core_census_walk(struct core_census *source, struct snapshot *snap, struct err *err) MUST_CHECK;

/* All three. */
int census_core_take(const struct options *opt, struct snapshot *snap, struct err *err) MUST_CHECK;

#endif
