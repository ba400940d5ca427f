/* Looking for things in an ELF file: symbols by name, strings, the Python version. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "inspector/target/elf_file.h"

/* A definition with an address: not undefined, not a section, file or thread-local symbol. */
static bool symbol_counts(uint8_t info, uint16_t shndx)
{
    unsigned type = ELF64_ST_TYPE(info);
    if (shndx == SHN_UNDEF || (shndx >= SHN_LORESERVE && shndx != SHN_XINDEX))
        return false;
    return type == STT_NOTYPE || type == STT_OBJECT || type == STT_FUNC || type == STT_GNU_IFUNC;
}

static void match_symbol(const Elf64_Sym *sym, const char *name, struct elf_symbol *symbols,
                         size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct elf_symbol *s = &symbols[i];
        if (s->name[0] != name[0] || strcmp(s->name, name) != 0)
            continue;
        if (s->found && (s->size || !sym->st_size))
            continue;
        s->found = true;
        s->is_function = ELF64_ST_TYPE(sym->st_info) == STT_FUNC;
        s->value = sym->st_value;
        s->size = sym->st_size;
    }
}

static void search_table(const struct elf_file *elf, const Elf64_Shdr *sh,
                         struct elf_symbol *symbols, size_t n)
{
    if (sh->sh_link >= elf->n_shdrs || sh->sh_entsize != sizeof(Elf64_Sym))
        return;
    const Elf64_Shdr *strings = &elf->shdrs[sh->sh_link];
    uint8_t *table = elf_file_section(elf, sh);
    uint8_t *names = table ? elf_file_section(elf, strings) : NULL;
    size_t count = names ? sh->sh_size / sizeof(Elf64_Sym) : 0;
    for (size_t i = 0; i < count; i++) {
        Elf64_Sym sym;
        memcpy(&sym, table + i * sizeof sym, sizeof sym);
        if (sym.st_name < strings->sh_size && symbol_counts(sym.st_info, sym.st_shndx))
            match_symbol(&sym, (const char *)names + sym.st_name, symbols, n);
    }
    free(names);
    free(table);
}

static size_t count_found(const struct elf_symbol *symbols, size_t n)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        found += symbols[i].found;
    return found;
}

size_t elf_symbols(const struct elf_file *elf, struct elf_symbol *symbols, size_t n)
{
    static const uint32_t types[] = {SHT_DYNSYM, SHT_SYMTAB};

    for (size_t i = 0; i < n; i++)
        symbols[i].found = false;
    for (size_t t = 0; t < 2 && count_found(symbols, n) < n; t++)
        for (size_t i = 0; i < elf->n_shdrs; i++)
            if (elf->shdrs[i].sh_type == types[t]) {
                search_table(elf, &elf->shdrs[i], symbols, n);
                break; /* a file has at most one of each; more would only cost time */
            }
    return count_found(symbols, n);
}

bool elf_symbol(const struct elf_file *elf, const char *name, struct elf_symbol *ret)
{
    struct elf_symbol one = {.name = name};
    if (!elf_symbols(elf, &one, 1))
        return false;
    *ret = one;
    return true;
}

/* memmem is a GNU extension; the needle's first byte is rare enough. */
static const char *find_bytes(const uint8_t *bytes, size_t len, const char *needle)
{
    size_t want = strlen(needle);
    const uint8_t *p = bytes, *end = bytes + len;
    while (want && (size_t)(end - p) >= want) {
        p = memchr(p, needle[0], (size_t)(end - p) - want + 1);
        if (!p)
            return NULL;
        if (memcmp(p, needle, want) == 0)
            return (const char *)p;
        p++;
    }
    return NULL;
}

int elf_find_string(const struct elf_file *elf, const char *section, const char *needle, char *buf,
                    size_t cap, struct err *err)
{
    const Elf64_Shdr *sh = elf_file_section_named(elf, section);
    uint8_t *bytes = sh ? elf_file_section(elf, sh) : NULL;
    if (!bytes || cap == 0) {
        free(bytes);
        return err_set(err, ERR_NOT_FOUND, "the ELF file has no readable section %s", section);
    }
    const char *hit = find_bytes(bytes, sh->sh_size, needle);
    if (hit) {
        size_t len = strlen(hit); /* the section's copy ends with a NUL */
        if (len >= cap)
            len = cap - 1;
        memcpy(buf, hit, len);
        buf[len] = 0;
    }
    free(bytes);
    return hit ? 0 : err_set(err, ERR_NOT_FOUND, "no \"%s\" in section %s", needle, section);
}

/* Decimal of at most 3 digits and at most 255; advances *p. */
static bool parse_number(const char **p, unsigned *ret)
{
    unsigned v = 0, digits = 0;
    while (**p >= '0' && **p <= '9' && digits < 3) {
        v = v * 10 + (unsigned)(**p - '0');
        digits++;
        (*p)++;
    }
    *ret = v;
    return digits && v <= 255;
}

/* "3.N.M" with an optional aN, bN, rcN or + behind it. */
static bool parse_version(const char *s, uint32_t *hexversion)
{
    unsigned minor, micro;
    if (s[0] != '3' || s[1] != '.')
        return false;
    s += 2;
    if (!parse_number(&s, &minor) || *s++ != '.' || !parse_number(&s, &micro))
        return false;
    *hexversion = 0x03000000u | minor << 16 | micro << 8;
    return s[strspn(s, "abrc+0123456789")] == 0;
}

/* The one release that the strings of a section name; 0 when none or several. Python 3.8 is the
 * first that we read: this skips version numbers of other things. */
static uint32_t sole_version(const char *bytes, size_t len)
{
    uint32_t sole = 0;
    for (size_t at = 0; at < len; at += strlen(bytes + at) + 1) {
        uint32_t hex;
        if (!parse_version(bytes + at, &hex) || ((hex >> 16) & 0xff) < 8)
            continue;
        if (sole && sole != hex)
            return 0;
        sole = hex;
    }
    return sole;
}

int elf_python_version(const struct elf_file *elf, uint32_t *hexversion, struct err *err)
{
    struct elf_symbol sym;
    uint8_t value[8] = {0};

    if (elf_symbol(elf, "Py_Version", &sym) &&
        elf_read_at(elf, sym.value, value, sizeof value, NULL) == 0 && load_u64(value) >> 24 == 3) {
        *hexversion = (uint32_t)load_u64(value);
        return 0;
    }
    const Elf64_Shdr *sh = elf_file_section_named(elf, ".rodata");
    uint8_t *bytes = sh ? elf_file_section(elf, sh) : NULL;
    uint32_t hex = bytes ? sole_version((const char *)bytes, sh->sh_size) : 0;
    free(bytes);
    if (!hex)
        return err_set(err, ERR_NOT_FOUND, "the ELF file does not say its Python version");
    *hexversion = hex;
    return 0;
}
