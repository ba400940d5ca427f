#define _GNU_SOURCE /* O_PATH */
#include "inspector/target/elf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "inspector/target/elf_file.h"

int elf_file_read(const struct elf_file *elf, uint64_t offset, void *buf, uint64_t len,
                  struct err *err)
{
    uint64_t end;
    if (add_overflows(offset, len, &end) || end > elf->size)
        return err_set(err, ERR_FORMAT, "ELF file is cut short: %llu bytes at offset %llu",
                       (unsigned long long)len, (unsigned long long)offset);
    uint8_t *p = buf;
    while (len) {
        ssize_t got = pread(elf->fd, p, len, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_os(err, errno, "cannot read an ELF file");
        if (got == 0)
            return err_set(err, ERR_FORMAT, "ELF file became shorter while it was read");
        p += got;
        offset += (uint64_t)got;
        len -= (uint64_t)got;
    }
    return 0;
}

/* A calloc'ed copy of [offset, offset + len) with a NUL behind it. */
static uint8_t *read_block(const struct elf_file *elf, uint64_t offset, uint64_t len)
{
    if (len > ELF_MAX_TABLE || len > elf->size)
        return NULL;
    uint8_t *buf = malloc(len + 1);
    if (!buf)
        return NULL;
    if (elf_file_read(elf, offset, buf, len, NULL)) {
        free(buf);
        return NULL;
    }
    buf[len] = 0;
    return buf;
}

uint8_t *elf_file_section(const struct elf_file *elf, const Elf64_Shdr *sh)
{
    if (sh->sh_type == SHT_NOBITS || (sh->sh_flags & SHF_COMPRESSED))
        return NULL;
    return read_block(elf, sh->sh_offset, sh->sh_size);
}

static const char *machine_name(unsigned machine)
{
    switch (machine) {
    case EM_386:
        return "i386";
    case EM_AARCH64:
        return "aarch64";
    case EM_ARM:
        return "arm";
    case EM_RISCV:
        return "riscv";
    case EM_PPC64:
        return "ppc64";
    case EM_S390:
        return "s390";
    default:
        return "another machine";
    }
}

/* What the file is, when it is not ELF64 x86-64. */
static int check_ident(const Elf64_Ehdr *eh, struct err *err)
{
    if (memcmp(eh->e_ident, ELFMAG, SELFMAG) != 0)
        return err_set(err, ERR_FORMAT, "not an ELF file");
    if (eh->e_ident[EI_DATA] != ELFDATA2LSB)
        return err_set(err, ERR_UNSUPPORTED, "a big-endian ELF file; only x86-64 is supported");
    if (eh->e_ident[EI_CLASS] != ELFCLASS64) /* e_machine lies at the same offset in both */
        return err_set(err, ERR_UNSUPPORTED, "a 32-bit ELF file (%s); only x86-64 is supported",
                       machine_name(eh->e_machine));
    if (eh->e_machine != EM_X86_64)
        return err_set(err, ERR_UNSUPPORTED, "an ELF file for %s; only x86-64 is supported",
                       machine_name(eh->e_machine));
    return 0;
}

static int read_phdrs(struct elf_file *elf, struct err *err)
{
    size_t n = elf->ehdr.e_phnum;
    if (!n)
        return 0;
    if (elf->ehdr.e_phentsize != sizeof(Elf64_Phdr) || n > ELF_MAX_PHDRS)
        return err_set(err, ERR_FORMAT, "ELF file with %zu program headers of %u bytes", n,
                       elf->ehdr.e_phentsize);
    elf->phdrs = calloc(n, sizeof *elf->phdrs);
    elf->segments = calloc(n, sizeof *elf->segments);
    if (!elf->phdrs || !elf->segments)
        return err_set(err, ERR_NOMEM, "out of memory");
    int rc = elf_file_read(elf, elf->ehdr.e_phoff, elf->phdrs, n * sizeof *elf->phdrs, err);
    if (rc)
        return rc;
    elf->n_phdrs = n;
    for (size_t i = 0; i < n; i++) {
        const Elf64_Phdr *ph = &elf->phdrs[i];
        if (ph->p_type != PT_LOAD)
            continue;
        elf->segments[elf->n_segments++] = (struct elf_segment){
            .vaddr = ph->p_vaddr,
            .memsz = ph->p_memsz,
            .offset = ph->p_offset,
            .filesz = ph->p_filesz,
            .r = ph->p_flags & PF_R,
            .w = ph->p_flags & PF_W,
            .x = ph->p_flags & PF_X,
        };
    }
    return 0;
}

/* Section headers may be stripped or damaged: then there are none, which is no error. */
static int read_shdrs(struct elf_file *elf, struct err *err)
{
    size_t n = elf->ehdr.e_shnum;
    if (!n || elf->ehdr.e_shentsize != sizeof(Elf64_Shdr) || n * sizeof(Elf64_Shdr) > elf->size)
        return 0;
    elf->shdrs = calloc(n, sizeof *elf->shdrs);
    if (!elf->shdrs)
        return err_set(err, ERR_NOMEM, "out of memory");
    if (elf_file_read(elf, elf->ehdr.e_shoff, elf->shdrs, n * sizeof *elf->shdrs, NULL))
        return 0;
    elf->n_shdrs = n;
    if (elf->ehdr.e_shstrndx < n) {
        const Elf64_Shdr *sh = &elf->shdrs[elf->ehdr.e_shstrndx];
        elf->names = (char *)elf_file_section(elf, sh);
        elf->names_size = elf->names ? sh->sh_size : 0;
    }
    return 0;
}

const Elf64_Shdr *elf_file_section_named(const struct elf_file *elf, const char *name)
{
    for (size_t i = 0; i < elf->n_shdrs; i++) {
        const Elf64_Shdr *sh = &elf->shdrs[i];
        if (sh->sh_name < elf->names_size && strcmp(elf->names + sh->sh_name, name) == 0)
            return sh;
    }
    return NULL;
}

bool elf_notes_build_id(const uint8_t *notes, size_t len, char hex[ELF_BUILD_ID_CHARS])
{
    size_t at = 0;
    while (at <= len && len - at >= 12) {
        uint64_t namesz = load_u32(notes + at), descsz = load_u32(notes + at + 4);
        uint32_t type = load_u32(notes + at + 8);
        uint64_t desc = at + 12 + round_up(namesz, 4), next = desc + round_up(descsz, 4);
        if (desc > len || descsz > len - desc)
            return false;
        if (type == NT_GNU_BUILD_ID && namesz == 4 && descsz > 0 &&
            memcmp(notes + at + 12, "GNU", 4) == 0 && descsz * 2 < ELF_BUILD_ID_CHARS) {
            for (size_t i = 0; i < descsz; i++)
                snprintf(hex + 2 * i, 3, "%02x", notes[desc + i]);
            return true;
        }
        at = next;
    }
    return false;
}

static void find_build_id(struct elf_file *elf)
{
    for (size_t i = 0; i < elf->n_phdrs && !elf->build_id[0]; i++) {
        const Elf64_Phdr *ph = &elf->phdrs[i];
        if (ph->p_type != PT_NOTE || ph->p_filesz > ELF_MAX_NOTES)
            continue;
        uint8_t *notes = read_block(elf, ph->p_offset, ph->p_filesz);
        if (notes)
            elf_notes_build_id(notes, ph->p_filesz, elf->build_id);
        free(notes);
    }
}

static void find_interpreter(struct elf_file *elf)
{
    for (size_t i = 0; i < elf->n_phdrs; i++) {
        const Elf64_Phdr *ph = &elf->phdrs[i];
        if (ph->p_type != PT_INTERP || ph->p_filesz == 0 || ph->p_filesz >= sizeof elf->interpreter)
            continue;
        if (elf_file_read(elf, ph->p_offset, elf->interpreter, ph->p_filesz, NULL) == 0)
            return;
        memset(elf->interpreter, 0, sizeof elf->interpreter);
    }
}

/* The value of a dynamic entry; false if absent. */
static bool dynamic_entry(const struct elf_file *elf, int64_t tag, uint64_t *ret)
{
    for (size_t i = 0; i < elf->n_phdrs; i++) {
        const Elf64_Phdr *ph = &elf->phdrs[i];
        if (ph->p_type != PT_DYNAMIC || ph->p_filesz > ELF_MAX_NOTES)
            continue;
        uint8_t *table = read_block(elf, ph->p_offset, ph->p_filesz);
        bool found = false;
        for (size_t at = 0; table && !found && at + 16 <= ph->p_filesz; at += 16) {
            if ((int64_t)load_u64(table + at) == DT_NULL)
                break;
            found = (int64_t)load_u64(table + at) == tag;
            if (found)
                *ret = load_u64(table + at + 8);
        }
        free(table);
        if (found)
            return true;
    }
    return false;
}

/* No interpreter: a static executable, or a shared library. A static-pie says DF_1_PIE. */
static bool find_static(const struct elf_file *elf)
{
    uint64_t flags = 0;
    if (elf->interpreter[0])
        return false;
    if (elf->ehdr.e_type == ET_EXEC)
        return true;
    return elf->ehdr.e_type == ET_DYN && dynamic_entry(elf, DT_FLAGS_1, &flags) &&
           (flags & DF_1_PIE);
}

static int load_headers(struct elf_file *elf, struct err *err)
{
    struct stat st;
    if (fstat(elf->fd, &st))
        return err_os(err, errno, "cannot stat an ELF file");
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_FORMAT, "not a regular file");
    elf->size = (uint64_t)st.st_size;
    if (elf->size < sizeof elf->ehdr)
        return err_set(err, ERR_FORMAT, "not an ELF file (%llu bytes)",
                       (unsigned long long)elf->size);
    int rc = elf_file_read(elf, 0, &elf->ehdr, sizeof elf->ehdr, err);
    if (rc == 0)
        rc = check_ident(&elf->ehdr, err);
    if (rc == 0)
        rc = read_phdrs(elf, err);
    if (rc == 0)
        rc = read_shdrs(elf, err);
    if (rc)
        return rc;
    find_build_id(elf);
    find_interpreter(elf);
    elf->is_static = find_static(elf);
    return 0;
}

int elf_open_fd(int fd, struct elf_file **ret, struct err *err)
{
    struct elf_file *elf = calloc(1, sizeof *elf);
    if (!elf) {
        close(fd);
        return err_set(err, ERR_NOMEM, "out of memory");
    }
    elf->fd = fd;
    int rc = load_headers(elf, err);
    if (rc) {
        elf_close(elf);
        return rc;
    }
    *ret = elf;
    return 0;
}

int elf_open_path(const char *path, struct elf_file **ret, struct err *err)
{
    /* A core names what it likes: opening a device can have effects, opening a FIFO can hang.
     * O_PATH does neither, and what it found is what is opened then. */
    char again[64];
    struct stat st;
    int fd = -1, found = open(path, O_PATH | O_CLOEXEC);
    bool there = found >= 0 && fstat(found, &st) == 0;
    if (there && !S_ISREG(st.st_mode)) {
        close(found);
        return err_set(err, ERR_FORMAT, "%s is not a regular file", path);
    }
    snprintf(again, sizeof again, "/proc/self/fd/%d", found);
    if (there)
        fd = open(again, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    int saved = errno;
    if (found >= 0)
        close(found);
    if (fd < 0)
        return err_os(err, saved, "cannot open %s", path);
    int rc = elf_open_fd(fd, ret, err);
    return rc ? err_context(err, rc, "%s", path) : 0;
}

void elf_close(struct elf_file *elf)
{
    if (!elf)
        return;
    close(elf->fd);
    free(elf->phdrs);
    free(elf->shdrs);
    free(elf->names);
    free(elf->segments);
    free(elf);
}

int elf_fd(const struct elf_file *elf)
{
    return elf->fd;
}

const char *elf_build_id(const struct elf_file *elf)
{
    return elf->build_id;
}

const char *elf_interpreter(const struct elf_file *elf)
{
    return elf->interpreter;
}

bool elf_is_static(const struct elf_file *elf)
{
    return elf->is_static;
}

bool elf_is_fixed(const struct elf_file *elf)
{
    return elf->ehdr.e_type == ET_EXEC;
}

enum { PAGE_BYTES = 4096 };

const struct elf_segment *elf_segment_at(const struct elf_file *elf, uint64_t addr)
{
    for (size_t i = 0; i < elf->n_segments; i++) {
        const struct elf_segment *s = &elf->segments[i];
        uint64_t start = round_down(s->vaddr, PAGE_BYTES);
        if (addr >= start && addr - start < round_up(s->memsz + s->vaddr % PAGE_BYTES, PAGE_BYTES))
            return s;
    }
    return NULL;
}

bool elf_is_constant(const struct elf_file *elf, uint64_t addr, uint64_t len)
{
    for (size_t i = 0; i < elf->n_segments; i++) {
        const struct elf_segment *s = &elf->segments[i];
        uint64_t start = round_down(s->vaddr, PAGE_BYTES), end;
        if (!s->w)
            continue;
        if (add_overflows(s->vaddr, s->memsz, &end) || (start < addr + len && addr < end))
            return false;
    }
    return true;
}

const struct elf_segment *elf_segments(const struct elf_file *elf, size_t *n)
{
    *n = elf->n_segments;
    return elf->segments;
}

enum { ELF_PAGE = 4096 };

int elf_bias(const struct elf_file *elf, uint64_t map_start, uint64_t offset, uint64_t *ret,
             struct err *err)
{
    const struct elf_segment *best = NULL;
    for (size_t i = 0; i < elf->n_segments; i++) {
        const struct elf_segment *s = &elf->segments[i];
        uint64_t lo = round_down(s->offset, ELF_PAGE), end;
        if (s->filesz == 0 || add_overflows(s->offset, s->filesz, &end))
            continue;
        /* Two segments may share a page of the file: a mapping starts where its own begins. */
        if (offset == lo || (!best && lo < offset && offset < end))
            best = s;
        if (offset == lo)
            break;
    }
    if (!best)
        return err_set(err, ERR_CORRUPT, "no segment of the ELF file is loaded from offset %llu",
                       (unsigned long long)offset);
    *ret = map_start -
           (round_down(best->vaddr, ELF_PAGE) + (offset - round_down(best->offset, ELF_PAGE)));
    return 0;
}

bool elf_section(const struct elf_file *elf, const char *name, struct elf_section *ret)
{
    const Elf64_Shdr *sh = elf_file_section_named(elf, name);
    if (!sh)
        return false;
    *ret = (struct elf_section){
        .addr = sh->sh_addr,
        .size = sh->sh_size,
        .offset = sh->sh_offset,
        .in_file = sh->sh_type != SHT_NOBITS,
    };
    return true;
}

bool elf_has_dwarf(const struct elf_file *elf)
{
    const Elf64_Shdr *sh = elf_file_section_named(elf, ".debug_info");
    if (!sh)
        sh = elf_file_section_named(elf, ".zdebug_info");
    return sh && sh->sh_type != SHT_NOBITS && sh->sh_size > 0;
}

int elf_read_at(const struct elf_file *elf, uint64_t addr, void *buf, size_t len, struct err *err)
{
    for (size_t i = 0; i < elf->n_segments; i++) {
        const struct elf_segment *s = &elf->segments[i];
        if (addr < s->vaddr || addr - s->vaddr >= s->filesz || len > s->filesz - (addr - s->vaddr))
            continue;
        uint64_t offset;
        if (add_overflows(s->offset, addr - s->vaddr, &offset))
            continue;
        return elf_file_read(elf, offset, buf, len, err);
    }
    return err_set(err, ERR_NOT_FOUND, "address 0x%llx is not in the ELF file",
                   (unsigned long long)addr);
}
