/* The ELF files that a target has mapped: what each tells about Python, malloc and data segments.
 */
#ifndef HEAPCENSUS_MODULES_H
#define HEAPCENSUS_MODULES_H

#include <sys/types.h>

#include "formats/base/err.h"
#include "formats/base/strpool.h"
#include "inspector/target/elf.h"
#include "inspector/target/maps.h"
#include "walker/cpython/cpython.h"
#include "walker/glibc/glibc.h"

/* What is known of the file of a core's module. */
struct module_file {
    const char *path;             /* as the core names it */
    const char *file;             /* the candidate that came closest; may be NULL */
    const char *expected, *found; /* build-ids, "" if there is none */
    enum elf_identity identity;
    bool is_exe;
};

struct modules {
    struct cpython_module *items; /* every ELF file with code, Python or not */
    size_t n, cap;
    struct glibc_data *data; /* writable segments of all of them, sorted by address */
    size_t n_data, cap_data;
    const char *libc_name;  /* "glibc", "musl" or NULL */
    char libc_version[24];  /* "2.36" or "" */
    const char *interposer; /* literal, or NULL */
    char exe_build_id[ELF_BUILD_ID_CHARS];
    size_t unread;             /* files that could not be opened, neither as a file nor in memory */
    struct module_file *files; /* of a core: every module, in the order of addresses */
    size_t n_files, cap_files;
    struct layout *dwarf; /* from the interpreter's own debug information; owned, may be NULL */
    struct strpool names;
};

/* Called for each module whose file is proven to be the one that is mapped (first: its mapping of
 * the lowest offset), so that what a core or a copy leaves out can be read from there. */
struct modules_files {
    int (*proven)(void *ctx, struct elf_file *elf, const struct vma *first, struct err *err);
    void *ctx;
};

/* For `proven`: what a file could not be opened for again (too many are) is missed by no count,
 * only by names of types; memory is what must not run out. Returns rc, or 0 for those. */
int modules_file_missed(int rc, struct err *err);

/* A core in place of a process. */
struct modules_core {
    struct mem *mem;
    const char *exe, *sysroot; /* --exe, --sysroot; may be NULL */
    uint64_t exe_address;      /* an address within the executable (AT_PHDR); 0: not known */
};

void modules_init(struct modules *m);
void modules_release(struct modules *m);
/* Open and read every module of `maps`. Files that cannot be read are counted, not fatal. Does not
 * need the target to stand still. */
int modules_read(struct modules *m, pid_t pid, const struct maps *maps,
                 const struct modules_files *files, struct err *err) MUST_CHECK;
/* The same for a core: files count only where their build-id is the core's (module_file says what
 * was found of each); of the others, what the core itself holds is read. */
int modules_read_core(struct modules *m, const struct modules_core *core, const struct maps *maps,
                      const struct modules_files *files, struct err *err) MUST_CHECK;
/* Mappings with code that modules_read has not seen (loaded since). */
bool modules_stale(const struct modules *m, const struct maps *maps);

#endif
