/* Inside of struct elf_file, shared by elf.c and elf_search.c only. */
#ifndef HEAPCENSUS_ELF_FILE_H
#define HEAPCENSUS_ELF_FILE_H

#include <elf.h>

#include "inspector/target/elf.h"

enum {
    ELF_MAX_PHDRS = 512,
    ELF_MAX_SHDRS = 65535,
    ELF_MAX_NAME = 512,               /* of an interpreter path */
    ELF_MAX_NOTES = 64 * 1024,        /* bytes of notes looked at */
    ELF_MAX_TABLE = 512 * 1024 * 1024 /* bytes of a section read into memory */
};

struct elf_file {
    int fd;
    uint64_t size;
    Elf64_Ehdr ehdr;
    Elf64_Phdr *phdrs;
    size_t n_phdrs;
    Elf64_Shdr *shdrs;
    size_t n_shdrs;
    char *names; /* the section name table, NUL-terminated */
    uint64_t names_size;
    struct elf_segment *segments;
    size_t n_segments;
    char build_id[ELF_BUILD_ID_CHARS];
    char interpreter[ELF_MAX_NAME];
    bool is_static;
};

/* All `len` bytes at a file offset, or ERR_FORMAT. */
int elf_file_read(const struct elf_file *elf, uint64_t offset, void *buf, uint64_t len,
                  struct err *err) MUST_CHECK;
/* A section's bytes with a NUL behind them, to free(); NULL when not in the file, too large, or no
 * memory. */
uint8_t *elf_file_section(const struct elf_file *elf, const Elf64_Shdr *sh);
const Elf64_Shdr *elf_file_section_named(const struct elf_file *elf, const char *name);
/* The GNU build-id of a run of notes as hex; false if there is none. */
bool elf_notes_build_id(const uint8_t *notes, size_t len, char hex[ELF_BUILD_ID_CHARS]);

#endif
