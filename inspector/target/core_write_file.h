/* The files behind the mappings of a process whose core is written: whether their first page
 * belongs into it, and the bytes of pages that the process has not in memory. */
#ifndef HEAPCENSUS_CORE_WRITE_FILE_H
#define HEAPCENSUS_CORE_WRITE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "walker/vma.h"

struct core_source {
    uint64_t dev, inode;
    bool head;
};

/* Files looked at, so that each is opened once. */
struct core_sources {
    int pid;
    struct core_source *items;
    size_t n, cap;
};

void core_sources_init(struct core_sources *sources, int pid);
void core_sources_release(struct core_sources *sources);

/* Whether the mapped file is executable or begins with the ELF magic number. False when it cannot
 * be opened. */
bool core_source_head(struct core_sources *sources, const struct vma *v);
/* Whether the mapped file has no name any more. By its number of links where we may ask
 * /proc/PID/map_files, else by " (deleted)" at the end of its name. */
bool core_source_unlinked(const struct core_sources *sources, const struct vma *v);

/* A descriptor of the very file that is mapped, for reading: through /proc/PID/map_files where we
 * may, else by its path below the target's root, proven by device and inode. Only regular files:
 * ERR_UNSUPPORTED for a device, ERR_NOT_FOUND when it cannot be got at. */
int core_source_open(const struct core_sources *sources, const struct vma *v,
                     struct err *err) MUST_CHECK;

#endif
