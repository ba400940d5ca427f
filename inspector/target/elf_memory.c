/* ELF headers and .dynsym of a module as they lie in the target's memory: the last resort when no
 * file can be opened. Only what is present can be read, so holes are normal and never errors. */
#include <elf.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "inspector/target/elf_file.h"

enum {
    MAX_PHDRS = 64,
    MAX_DYNAMIC = 1024,
    MAX_NEEDED = 32,
    MAX_SYMBOLS = 1 << 20,
    MAX_STRINGS = 16 * 1024 * 1024,
    MAX_BUCKETS = 1 << 20,
    MAX_CHAIN = 1 << 16,
    SYMBOLS_PER_READ = 512,
    PAGE_BYTES = 4096
};

struct dynamic {
    uint64_t hash, gnu_hash, symtab, strtab, strsz, syment;
    uint64_t soname; /* offset into strtab; 0: none */
    uint64_t needed[MAX_NEEDED];
    size_t n_needed;
};

static void add_load(struct elf_image *image, const Elf64_Phdr *ph)
{
    if (image->n_loads == sizeof image->loads / sizeof *image->loads)
        return;
    image->loads[image->n_loads++] = (struct elf_segment){
        .vaddr = ph->p_vaddr,
        .memsz = ph->p_memsz,
        .offset = ph->p_offset,
        .filesz = ph->p_filesz,
        .r = ph->p_flags & PF_R,
        .w = ph->p_flags & PF_W,
        .x = ph->p_flags & PF_X,
    };
}

/* Addresses of the dynamic section: glibc relocates them in place, musl and the kernel's vdso do
 * not. An address below the module's base can only be an unrelocated one. */
static uint64_t dynamic_addr(const struct elf_image *image, uint64_t value)
{
    return value >= image->base ? value : value + image->bias;
}

static void read_dynamic(struct mem *mem, const struct elf_image *image, const Elf64_Phdr *ph,
                         struct dynamic *dyn)
{
    for (uint64_t i = 0; i < ph->p_memsz / 16 && i < MAX_DYNAMIC; i++) {
        uint8_t entry[16];
        if (mem_read_some(mem, ph->p_vaddr + image->bias + 16 * i, entry, 16) < 16)
            return;
        uint64_t tag = load_u64(entry), value = load_u64(entry + 8);
        if (tag == DT_NULL)
            return;
        if (tag == DT_HASH)
            dyn->hash = dynamic_addr(image, value);
        else if (tag == DT_GNU_HASH)
            dyn->gnu_hash = dynamic_addr(image, value);
        else if (tag == DT_SYMTAB)
            dyn->symtab = dynamic_addr(image, value);
        else if (tag == DT_STRTAB)
            dyn->strtab = dynamic_addr(image, value);
        else if (tag == DT_STRSZ)
            dyn->strsz = value;
        else if (tag == DT_SYMENT)
            dyn->syment = value;
        else if (tag == DT_SONAME)
            dyn->soname = value;
        else if (tag == DT_NEEDED && dyn->n_needed < MAX_NEEDED)
            dyn->needed[dyn->n_needed++] = value;
    }
}

static bool read_u32(struct mem *mem, uint64_t addr, uint32_t *ret)
{
    uint8_t bytes[4];
    if (mem_read_some(mem, addr, bytes, sizeof bytes) < sizeof bytes)
        return false;
    *ret = load_u32(bytes);
    return true;
}

/* The highest symbol index of a bucket table, 0 if nothing can be read. */
static uint64_t max_bucket(struct mem *mem, uint64_t buckets, uint32_t n)
{
    uint8_t chunk[PAGE_BYTES];
    uint64_t max = 0, bytes = 4 * (uint64_t)n;

    for (uint64_t at = 0; at < bytes; at += sizeof chunk) {
        size_t want = (size_t)min_u64(sizeof chunk, bytes - at);
        size_t got = mem_read_some(mem, buckets + at, chunk, want);
        for (size_t i = 0; i + 4 <= got; i += 4)
            max = max_u64(max, load_u32(chunk + i));
    }
    return max;
}

/* DT_GNU_HASH does not store the number of symbols: the last chain of the highest bucket ends it.
 */
static uint64_t gnu_hash_count(struct mem *mem, uint64_t table)
{
    uint32_t n_buckets, first, bloom, hash;
    if (!read_u32(mem, table, &n_buckets) || !read_u32(mem, table + 4, &first) ||
        !read_u32(mem, table + 8, &bloom) || n_buckets > MAX_BUCKETS || bloom > MAX_BUCKETS)
        return 0;
    uint64_t buckets = table + 16 + 8 * (uint64_t)bloom;
    uint64_t chains = buckets + 4 * (uint64_t)n_buckets;
    uint64_t max = max_bucket(mem, buckets, n_buckets);
    if (max < first)
        return first;
    for (uint64_t stop = max + MAX_CHAIN; max < MAX_SYMBOLS && max < stop; max++) {
        if (!read_u32(mem, chains + 4 * (max - first), &hash))
            return max + 1;
        if (hash & 1)
            return max + 1;
    }
    return max;
}

static uint64_t symbol_count(struct mem *mem, const struct dynamic *dyn)
{
    uint32_t n_chains;
    uint64_t n = 0;

    if (dyn->hash && read_u32(mem, dyn->hash + 4, &n_chains))
        n = n_chains;
    if (!n && dyn->gnu_hash)
        n = gnu_hash_count(mem, dyn->gnu_hash);
    if (!n && dyn->strtab > dyn->symtab) /* linkers put the strings right behind the symbols */
        n = (dyn->strtab - dyn->symtab) / sizeof(Elf64_Sym);
    return min_u64(n, MAX_SYMBOLS);
}

static void take_name(struct mem *mem, const struct dynamic *dyn, uint64_t offset, char *buf,
                      size_t cap)
{
    buf[0] = 0;
    if (dyn->strtab && offset && offset < MAX_STRINGS &&
        mem_cstr(mem, dyn->strtab + offset, buf, cap, NULL) < 0)
        buf[0] = 0;
}

static void take_names(struct mem *mem, struct elf_image *image, const struct dynamic *dyn)
{
    static const char libpython[] = "libpython";
    take_name(mem, dyn, dyn->soname, image->soname, sizeof image->soname);
    for (size_t i = 0; i < dyn->n_needed; i++) {
        take_name(mem, dyn, dyn->needed[i], image->python, sizeof image->python);
        if (strncmp(image->python, libpython, sizeof libpython - 1) == 0)
            return;
    }
    image->python[0] = 0;
}

static void take_dynamic(struct mem *mem, struct elf_image *image, const Elf64_Phdr *ph)
{
    struct dynamic dyn = {.syment = sizeof(Elf64_Sym)};

    image->dynamic = true;
    read_dynamic(mem, image, ph, &dyn);
    take_names(mem, image, &dyn);
    if (!dyn.symtab || !dyn.strtab || dyn.syment != sizeof(Elf64_Sym))
        return;
    image->symtab = dyn.symtab;
    image->strtab = dyn.strtab;
    image->strsz = min_u64(dyn.strsz, MAX_STRINGS);
    image->n_symbols = symbol_count(mem, &dyn);
}

static void take_notes(struct mem *mem, struct elf_image *image, const Elf64_Phdr *ph)
{
    uint8_t notes[PAGE_BYTES];
    size_t want = (size_t)min_u64(sizeof notes, ph->p_filesz);

    if (image->build_id[0])
        return;
    size_t got = mem_read_some(mem, ph->p_vaddr + image->bias, notes, want);
    elf_notes_build_id(notes, got, image->build_id);
}

static int check_header(const Elf64_Ehdr *eh, uint64_t base, struct err *err)
{
    if (memcmp(eh->e_ident, ELFMAG, SELFMAG) != 0)
        return err_set(err, ERR_FORMAT, "no ELF header at 0x%llx", (unsigned long long)base);
    if (eh->e_ident[EI_CLASS] != ELFCLASS64 || eh->e_ident[EI_DATA] != ELFDATA2LSB ||
        eh->e_machine != EM_X86_64)
        return err_set(err, ERR_UNSUPPORTED, "the ELF header at 0x%llx is not of x86-64",
                       (unsigned long long)base);
    if (eh->e_phentsize != sizeof(Elf64_Phdr))
        return err_set(err, ERR_FORMAT, "damaged ELF header at 0x%llx", (unsigned long long)base);
    return 0;
}

/* The bias: the first page of the file is mapped at base, at the lowest PT_LOAD. */
static void set_bias(struct elf_image *image)
{
    uint64_t lowest = UINT64_MAX;
    for (size_t i = 0; i < image->n_loads; i++)
        lowest = min_u64(lowest, round_down(image->loads[i].vaddr, PAGE_BYTES));
    image->bias = image->n_loads ? image->base - lowest : image->base;
}

int elf_image_read(struct mem *mem, uint64_t base, struct elf_image *ret, struct err *err)
{
    Elf64_Ehdr eh;
    Elf64_Phdr ph[MAX_PHDRS];

    int rc = mem_read(mem, base, &eh, sizeof eh, err);
    if (rc == 0)
        rc = check_header(&eh, base, err);
    if (rc)
        return rc;
    struct elf_image image = {.base = base};
    size_t n = (size_t)min_u64(eh.e_phnum, MAX_PHDRS);
    size_t got = mem_read_some(mem, base + eh.e_phoff, ph, n * sizeof *ph);
    n = got / sizeof *ph;
    for (size_t i = 0; i < n; i++)
        if (ph[i].p_type == PT_LOAD)
            add_load(&image, &ph[i]);
    set_bias(&image);
    for (size_t i = 0; i < n; i++) {
        if (ph[i].p_type == PT_NOTE)
            take_notes(mem, &image, &ph[i]);
        else if (ph[i].p_type == PT_DYNAMIC && !image.dynamic)
            take_dynamic(mem, &image, &ph[i]);
        else if (ph[i].p_type == PT_INTERP)
            image.interpreted = true;
    }
    *ret = image;
    return 0;
}

/* The string table page by page; a missing page becomes 0xff, which is in no name, so that a name
 * cut off by a hole cannot look complete. */
static char *read_strings(struct mem *mem, const struct elf_image *image)
{
    char *names = malloc(image->strsz + 1);
    if (!names)
        return NULL;
    memset(names, 0xff, image->strsz);
    names[image->strsz] = 0;
    for (uint64_t at = 0; at < image->strsz;) {
        uint64_t addr = image->strtab + at;
        uint64_t want = min_u64(PAGE_BYTES - (addr & (PAGE_BYTES - 1)), image->strsz - at);
        mem_read_some(mem, addr, names + at, (size_t)want);
        at += want;
    }
    return names;
}

static size_t match_image(const Elf64_Sym *sym, const char *name, struct elf_symbol *symbols,
                          size_t n)
{
    size_t fresh = 0;
    for (size_t i = 0; i < n; i++) {
        struct elf_symbol *s = &symbols[i];
        if (s->found || s->name[0] != name[0] || strcmp(s->name, name) != 0)
            continue;
        s->found = true;
        s->is_function = ELF64_ST_TYPE(sym->st_info) == STT_FUNC;
        s->value = sym->st_value;
        s->size = sym->st_size;
        fresh++;
    }
    return fresh;
}

static bool image_symbol_counts(const Elf64_Sym *sym, const struct elf_image *image)
{
    unsigned type = ELF64_ST_TYPE(sym->st_info);
    return sym->st_shndx != SHN_UNDEF && sym->st_shndx < SHN_LORESERVE &&
           sym->st_name < image->strsz && type != STT_TLS && type != STT_SECTION &&
           type != STT_FILE;
}

/* The index to go on with after reading `got` of `want` symbols from `at`: behind the missing page.
 */
static uint64_t next_symbol(const struct elf_image *image, uint64_t at, size_t want, size_t got)
{
    if (got == want)
        return at + want;
    uint64_t hole = image->symtab + (at + got) * sizeof(Elf64_Sym) + sizeof(Elf64_Sym) - 1;
    uint64_t behind = round_down(hole, PAGE_BYTES) + PAGE_BYTES - image->symtab;
    return max_u64(at + got + 1, (behind + sizeof(Elf64_Sym) - 1) / sizeof(Elf64_Sym));
}

size_t elf_image_symbols(struct mem *mem, const struct elf_image *image, struct elf_symbol *symbols,
                         size_t n)
{
    Elf64_Sym chunk[SYMBOLS_PER_READ];
    size_t found = 0;

    for (size_t i = 0; i < n; i++)
        symbols[i].found = false;
    if (!image->n_symbols || image->n_symbols > MAX_SYMBOLS || image->strsz > MAX_STRINGS)
        return 0;
    char *names = read_strings(mem, image);
    for (uint64_t at = 0; names && at < image->n_symbols && found < n;) {
        size_t want = (size_t)min_u64(SYMBOLS_PER_READ, image->n_symbols - at);
        size_t got =
            mem_read_some(mem, image->symtab + at * sizeof *chunk, chunk, want * sizeof *chunk) /
            sizeof *chunk;
        for (size_t i = 0; i < got; i++)
            if (image_symbol_counts(&chunk[i], image))
                found += match_image(&chunk[i], names + chunk[i].st_name, symbols, n);
        at = next_symbol(image, at, want, got);
    }
    free(names);
    return found;
}
