/* ELF files and ELF images in memory as hostile input: no crash, bounded time, whatever the bytes.
 * The first byte chooses: bit 0 also reads the bytes as DWARF (libdw, slower). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "inspector/target/dwarf_layout.h"
#include "inspector/target/elf.h"
#ifdef FUZZ_MAIN
#include "tests/fuzz/driver.h"
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SYMBOLS = 3 };

static void use_file(struct elf_file *elf)
{
    struct elf_symbol symbols[SYMBOLS] = {
        {.name = "_PyRuntime"}, {.name = "Py_Version"}, {.name = "a"}};
    struct elf_section section;
    uint64_t bias;
    uint32_t hexversion;
    char text[64];
    size_t n;

    elf_symbols(elf, symbols, SYMBOLS);
    elf_section(elf, ".PyRuntime", &section);
    elf_has_dwarf(elf);
    if (elf_python_version(elf, &hexversion, NULL) ||
        elf_find_string(elf, ".rodata", "version", text, sizeof text, NULL) ||
        elf_bias(elf, 0x7f0000000000, 0x1000, &bias, NULL) ||
        elf_read_at(elf, 0x1000, text, sizeof text, NULL))
        elf_segments(elf, &n);
}

static void as_file(const uint8_t *data, size_t size, int dwarf)
{
    static struct layout layout;
    struct elf_file *elf;
    int fd = memfd_create("fuzz_elf", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size) {
        close(fd);
        return;
    }
    if (elf_open_fd(fd, &elf, NULL))
        return;
    use_file(elf);
    if (dwarf && dwarf_layout(elf_fd(elf), &layout, NULL) == 0)
        (void)layout_has(&layout, LF_ob_type);
    elf_close(elf);
}

static void as_memory(const uint8_t *data, size_t size)
{
    struct elf_symbol symbols[SYMBOLS] = {
        {.name = "_PyRuntime"}, {.name = "Py_Version"}, {.name = "a"}};
    struct mem_image_piece piece = {0x400000, data, size};
    struct elf_image image;
    struct mem *mem;

    if (mem_image_new(&piece, 1, &mem, NULL))
        return;
    if (elf_image_read(mem, 0x400000, &image, NULL) == 0)
        elf_image_symbols(mem, &image, symbols, SYMBOLS);
    mem_close(mem);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    as_file(data + 1, size - 1, data[0] & 1);
    as_memory(data + 1, size - 1);
    return 0;
}
