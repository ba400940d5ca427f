/* ELF files of a target's modules: symbols, sections, build-id, and how to open the right file.
 *
 * Only ELF64 little-endian x86-64 is read; anything else is ERR_FORMAT or ERR_UNSUPPORTED with a
 * text that says what it is. Files are hostile: every offset is checked against the file, every
 * list is bounded. Nothing is executed. Addresses are those of the file (before the load bias)
 * unless said otherwise: address in the target = value + bias.
 */
#ifndef HEAPCENSUS_ELF_H
#define HEAPCENSUS_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "formats/base/err.h"
#include "walker/mem.h"
#include "walker/vma.h"

struct elf_file; /* owns its descriptor */

/* One name to look up; fill `name`, get the rest. Of several definitions the one with a size wins,
 * .dynsym before .symtab. Undefined symbols, sections, files and TLS symbols are not matches. */
struct elf_symbol {
    const char *name;
    bool found;
    bool is_function;
    uint64_t value, size;
};

struct elf_segment {
    uint64_t vaddr, memsz, offset, filesz;
    bool r, w, x;
};

struct elf_section {
    uint64_t addr, size, offset;
    bool in_file; /* false for .bss */
};

enum { ELF_BUILD_ID_CHARS = 2 * 64 + 1, ELF_PATH_CHARS = 4096 };

/* Takes the descriptor over, also on failure. */
int elf_open_fd(int fd, struct elf_file **ret, struct err *err) MUST_CHECK;
/* A path of this machine, which must be a regular file: opening never blocks on a FIFO. */
int elf_open_path(const char *path, struct elf_file **ret, struct err *err) MUST_CHECK;
void elf_close(struct elf_file *elf); /* NULL is fine */
/* The descriptor, for dwarf_layout; stays owned by elf. */
int elf_fd(const struct elf_file *elf);

/* Hex, or "" when the file has none. */
const char *elf_build_id(const struct elf_file *elf);
/* The PT_INTERP string, or "". */
const char *elf_interpreter(const struct elf_file *elf);
/* An executable without dynamic section or interpreter: libc is inside. */
bool elf_is_static(const struct elf_file *elf);
/* ET_EXEC: addresses are final, the bias is 0. */
bool elf_is_fixed(const struct elf_file *elf);
/* PT_LOAD segments in file order. */
const struct elf_segment *elf_segments(const struct elf_file *elf, size_t *n);
/* The PT_LOAD that holds a file address, or NULL. */
const struct elf_segment *elf_segment_at(const struct elf_file *elf, uint64_t addr);
/* [addr, addr + len) of the file is what every process sees there: no part of it lies in a writable
 * segment. Made read-only later, as RELRO is, it has been relocated, and the file does not know. */
bool elf_is_constant(const struct elf_file *elf, uint64_t addr, uint64_t len);
/* The load bias, from where the kernel mapped file offset `offset` of this file. ERR_CORRUPT when
 * no PT_LOAD covers that offset. */
int elf_bias(const struct elf_file *elf, uint64_t map_start, uint64_t offset, uint64_t *ret,
             struct err *err) MUST_CHECK;

/* Look up n names in one pass over each table; returns how many were found. */
size_t elf_symbols(const struct elf_file *elf, struct elf_symbol *symbols, size_t n);
bool elf_symbol(const struct elf_file *elf, const char *name, struct elf_symbol *ret);
bool elf_section(const struct elf_file *elf, const char *name, struct elf_section *ret);
/* Has .debug_info (not necessarily of a compiler that we understand). */
bool elf_has_dwarf(const struct elf_file *elf);

/* `len` bytes of the file's image at a file address (not .bss). ERR_NOT_FOUND outside. */
int elf_read_at(const struct elf_file *elf, uint64_t addr, void *buf, size_t len,
                struct err *err) MUST_CHECK;
/* The first occurrence of `needle` in a section such as ".rodata": copies the NUL-terminated string
 * that starts there, cut to cap. ERR_NOT_FOUND if none. */
int elf_find_string(const struct elf_file *elf, const char *section, const char *needle, char *buf,
                    size_t cap, struct err *err) MUST_CHECK;
/* PY_VERSION_HEX of an interpreter: the value of Py_Version (3.11+), else the one string "3.N.M" in
 * .rodata (then the low byte is 0: release level unknown). ERR_NOT_FOUND when neither tells. */
int elf_python_version(const struct elf_file *elf, uint32_t *hexversion,
                       struct err *err) MUST_CHECK;

/* ---- a target's module (elf_module.c) ---- */

struct elf_module_request {
    pid_t pid;             /* 0: no live process (core): only paths are tried */
    const struct vma *map; /* any file mapping of the module */
    const char *sysroot;   /* put in front of the path first; may be NULL */
    struct mem *mem;       /* to compare the build-id with the target's memory; may be NULL */
    uint64_t first_start;  /* address at which file offset 0 is mapped, 0 if unknown */
};

/* Open the file behind a mapping, trying the sources that cannot be swapped under us first:
 * /proc/PID/map_files, /proc/PID/exe (if it is that file), /proc/PID/root + path, path. A path
 * counts only if device and inode match, or - overlay and btrfs report other devices - the inode
 * and, where memory can tell, the build-id. `how` (may be NULL, ELF_PATH_CHARS) says which worked.
 */
int elf_open_module(const struct elf_module_request *req, struct elf_file **ret, char *how,
                    struct err *err) MUST_CHECK;

/* ---- a core's module (elf_core.c) ---- */

enum elf_identity {
    ELF_PROVEN,     /* its build-id is the one in the core */
    ELF_DIFFERENT,  /* there is a file, with another build-id */
    ELF_MISSING,    /* no such file, or none that can be read as ELF */
    ELF_UNPROVABLE, /* there is a file, but the core or the file has no build-id */
};

struct elf_core_request {
    const char *path;    /* what the core calls it */
    const char *given;   /* what the user says it is; tried first; may be NULL */
    const char *sysroot; /* put in front of path; may be NULL */
    struct mem *mem;     /* of the core */
    uint64_t base;       /* address at which file offset 0 is mapped, 0 if unknown */
};

struct elf_core_verdict {
    enum elf_identity identity;
    char expected[ELF_BUILD_ID_CHARS]; /* build-id in the core, "" if not there */
    char found[ELF_BUILD_ID_CHARS];    /* of the file, "" if none */
    char file[ELF_PATH_CHARS];         /* the file that `found` is of, or the last that was tried */
};

/* Open the file that was mapped when the core was written: given, sysroot + path, path, the first
 * whose build-id equals the one in the core. Nothing unproven is handed out (*ret is NULL then): a
 * wrong executable makes wrong symbols, in silence. The verdict is about the candidate that came
 * closest. */
void elf_open_core_module(const struct elf_core_request *req, struct elf_file **ret,
                          struct elf_core_verdict *verdict);

/* ---- without a file: from the target's memory (elf_memory.c) ---- */

struct elf_image {
    uint64_t base, bias; /* base: where the ELF header lies; bias: to add to file addresses */
    bool dynamic;
    bool interpreted; /* has a PT_INTERP: an executable, or libc */
    char soname[256]; /* DT_SONAME, "" when there is none or its page is missing */
    char python[64];  /* the DT_NEEDED that is a libpython, "" likewise */
    char build_id[ELF_BUILD_ID_CHARS];
    size_t n_loads;
    struct elf_segment loads[16]; /* of the file, before the bias */
    uint64_t strtab, strsz, symtab, n_symbols;
};

/* Read the ELF and program headers at `base`, the build-id note and the dynamic section as far as
 * they are present. ERR_FORMAT: no ELF header there. A missing dynamic table is not an error:
 * elf_image_symbols then finds nothing. */
int elf_image_read(struct mem *mem, uint64_t base, struct elf_image *ret,
                   struct err *err) MUST_CHECK;
/* As elf_symbols from .dynsym in memory; values are without the bias, as in a file. */
size_t elf_image_symbols(struct mem *mem, const struct elf_image *image, struct elf_symbol *symbols,
                         size_t n);

#endif
