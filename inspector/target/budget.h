/* How much memory we ourselves may use: the machine's and our cgroup's room. */
#ifndef HEAPCENSUS_BUDGET_H
#define HEAPCENSUS_BUDGET_H

#include <stdint.h>

#include "formats/base/err.h"

struct budget {
    uint64_t available;    /* MemAvailable of the machine, bytes */
    uint64_t cgroup_limit; /* the tightest limit above us (v1 or v2), UINT64_MAX without one */
    uint64_t cgroup_usage; /* of that same cgroup, without its inactive page cache */
};

/* Never fails: what cannot be found out is no limit. */
void budget_read(struct budget *ret);
/* Bytes that can be taken before the machine or the cgroup is out of memory. */
uint64_t budget_room(const struct budget *b);

/* Where a cgroup hierarchy with the memory controller is mounted, found in the text of
 * /proc/self/cgroup and /proc/self/mountinfo. Pure, for tests. */
struct budget_cgroup {
    int version;      /* 1 or 2, 0 = none */
    char mount[1024]; /* the top directory: the walk upwards ends there */
    char dir[2048];   /* ours */
};
void budget_find_cgroup(const char *cgroup, const char *mountinfo, struct budget_cgroup *ret);

#endif
