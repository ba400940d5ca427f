/* ELF files: this program itself, libc in this process's memory, files made up here, and the choice
 * of the file behind a mapping. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "inspector/target/elf.h"
#include "tests/lib/tap.h"

/* Found by name in the symbol table, and by content in .rodata. */
int test_elf_marker(void);
const char test_elf_text[] = "heapcensus test marker release version 7.3.";

int test_elf_marker(void)
{
    return 42;
}

/* ---- a mapping of this process ---- */

struct mapping {
    struct vma vma;
    char path[4096];
};

static bool parse_mapping(const char *line, struct mapping *ret)
{
    unsigned long long start, end, offset, inode;
    unsigned major_no, minor_no;
    char perms[8];

    memset(ret, 0, sizeof *ret);
    if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu %4000[^\n]", &start, &end, perms, &offset,
               &major_no, &minor_no, &inode, ret->path) < 7)
        return false;
    ret->vma = (struct vma){.start = start,
                            .end = end,
                            .offset = offset,
                            .dev = makedev(major_no, minor_no),
                            .inode = inode,
                            .kind = VMA_FILE,
                            .name = ret->path};
    return true;
}

static bool find_mapping(uint64_t addr, struct mapping *ret)
{
    char line[8192];
    FILE *f = fopen("/proc/self/maps", "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = parse_mapping(line, ret) && ret->vma.start <= addr && addr < ret->vma.end;
    if (f)
        fclose(f);
    return found;
}

/* ---- this program's file ---- */

/* What is written later is not constant: also not what is made read-only once it is relocated. */
static void check_constant(const struct elf_file *elf)
{
    const char *const written[] = {".data.rel.ro", ".data", ".bss"};
    const struct elf_segment *seg;
    struct elf_section sec;
    bool good = elf_section(elf, ".rodata", &sec) && elf_is_constant(elf, sec.addr, sec.size);
    ok(good && (seg = elf_segment_at(elf, sec.addr)) && seg->r && !seg->w, ".rodata is constant");
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        good = elf_section(elf, written[i], &sec) && !elf_is_constant(elf, sec.addr, sec.size) &&
               !elf_is_constant(elf, sec.addr - 1, 2);
        ok(good && (seg = elf_segment_at(elf, sec.addr)) && seg->w, "%s is not", written[i]);
    }
    ok(!elf_segment_at(elf, UINT64_MAX), "no segment at the end of memory");
    ok(!elf_is_constant(elf, 0, UINT64_MAX), "not all of memory is constant");
}

static void test_self(void)
{
    struct elf_file *elf;
    struct err err = ERR_INIT;
    char text[128], absent[] = "x no such text"; /* on the stack, not in .rodata as it is */
    uint8_t bytes[4];
    struct mapping map;
    uint64_t bias = 0;
    size_t n;

    absent[0] = 0x7f;
    if (!ok(elf_open_path("/proc/self/exe", &elf, &err) == 0, "open this program: %s", err.text))
        return;
    const struct elf_segment *seg = elf_segments(elf, &n);
    bool writable = false;
    for (size_t i = 0; i < n; i++)
        writable |= seg[i].w;
    ok(n >= 2 && writable, "%zu segments, one writable", n);
    ok(find_mapping((uint64_t)(uintptr_t)test_elf_text, &map) &&
           elf_bias(elf, map.vma.start, map.vma.offset, &bias, &err) == 0,
       "bias");
    struct elf_symbol want[] = {
        {.name = "test_elf_marker"}, {.name = "test_elf_text"}, {.name = "no_such_symbol"}};
    ok(elf_symbols(elf, want, 3) == 2 && !want[2].found && want[0].is_function,
       "symbols in one pass");
    ok(want[0].value + bias == (uint64_t)(uintptr_t)test_elf_marker &&
           want[1].value + bias == (uint64_t)(uintptr_t)test_elf_text &&
           want[1].size >= sizeof test_elf_text,
       "values plus bias are addresses");
    ok(elf_read_at(elf, want[1].value + 11, bytes, 4, NULL) == 0 && memcmp(bytes, "test", 4) == 0,
       "bytes at an address");
    ok(elf_read_at(elf, UINT64_MAX - 2, bytes, 4, &err) == ERR_NOT_FOUND, "%s", err.text);
    ok(elf_find_string(elf, ".rodata", "release version", text, sizeof text, &err) == 0 &&
           strncmp(text, "release version", 15) == 0,
       "found \"%s\"", text);
    ok(elf_find_string(elf, ".rodata", absent, text, sizeof text, &err) == ERR_NOT_FOUND, "%s",
       err.text);
    struct elf_section sec;
    ok(elf_section(elf, ".text", &sec) && sec.in_file && sec.size > 0 &&
           elf_section(elf, ".bss", &sec) && !sec.in_file && !elf_section(elf, ".PyRuntime", &sec),
       "sections");
    check_constant(elf);
    ok(strstr(elf_interpreter(elf), "ld-linux") && !elf_is_static(elf), "interpreter %s",
       elf_interpreter(elf));
    uint32_t hex;
    ok(elf_python_version(elf, &hex, &err) == ERR_NOT_FOUND, "%s", err.text);
    ok(elf_bias(elf, 0x1000, (uint64_t)1 << 60, &bias, &err) == ERR_CORRUPT, "%s", err.text);
    elf_close(elf);
}

/* ---- files made up here ---- */

static char dir[] = "/tmp/test_elf.XXXXXX";

static const char *temp_path(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void write_file(const char *path, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, bytes, len) != (ssize_t)len)
        diag("cannot write %s", path);
    close(fd);
}

static Elf64_Ehdr x86_header(void)
{
    Elf64_Ehdr eh = {.e_type = ET_DYN,
                     .e_machine = EM_X86_64,
                     .e_version = EV_CURRENT,
                     .e_ehsize = sizeof eh,
                     .e_phentsize = sizeof(Elf64_Phdr),
                     .e_shentsize = sizeof(Elf64_Shdr)};
    memcpy(eh.e_ident, ELFMAG, SELFMAG);
    eh.e_ident[EI_CLASS] = ELFCLASS64;
    eh.e_ident[EI_DATA] = ELFDATA2LSB;
    return eh;
}

static void refuse(const void *bytes, size_t len, int code, const char *word)
{
    struct elf_file *elf;
    struct err err = ERR_INIT;
    const char *path = temp_path("refuse");
    write_file(path, bytes, len);
    ok(elf_open_path(path, &elf, &err) == code && strstr(err.text, word), "%s", err.text);
}

static void test_refuse(void)
{
    struct elf_file *elf;
    struct err err = ERR_INIT;
    Elf64_Ehdr eh = x86_header();

    refuse("#!/bin/sh\n", 10, ERR_FORMAT, "not an ELF file");
    char zeros[200] = {0};
    refuse(zeros, sizeof zeros, ERR_FORMAT, "not an ELF file");
    eh.e_machine = EM_AARCH64;
    refuse(&eh, sizeof eh, ERR_UNSUPPORTED, "aarch64");
    eh.e_machine = EM_386;
    eh.e_ident[EI_CLASS] = ELFCLASS32;
    refuse(&eh, sizeof eh, ERR_UNSUPPORTED, "32-bit");
    eh.e_ident[EI_DATA] = ELFDATA2MSB;
    refuse(&eh, sizeof eh, ERR_UNSUPPORTED, "big-endian");
    eh = x86_header();
    eh.e_phnum = 3;
    eh.e_phoff = sizeof eh;
    refuse(&eh, sizeof eh, ERR_FORMAT, "cut short");
    ok(mkfifo(temp_path("fifo"), 0600) == 0 &&
           elf_open_path(temp_path("fifo"), &elf, &err) == ERR_FORMAT,
       "a FIFO does not hang: %s", err.text);
    ok(elf_open_path("/dev/zero", &elf, &err) == ERR_FORMAT, "%s", err.text);
    ok(elf_open_path(dir, &elf, &err) == ERR_FORMAT, "%s", err.text);
    ok(elf_open_path(temp_path("none"), &elf, &err) == ERR_OS && err.os_errno == ENOENT, "%s",
       err.text);
}

/* A minimal file: header, one PT_LOAD, one PT_NOTE with a build-id, .rodata, names. */
struct made {
    Elf64_Ehdr eh;
    Elf64_Phdr ph[2];
    struct {
        uint32_t namesz, descsz, type;
        char name[4];
        uint8_t desc[8];
    } note;
    char rodata[64];
    char names[24];
    Elf64_Shdr sh[3];
};

static void make_elf(struct made *m, uint8_t id, const char *rodata, size_t len)
{
    memset(m, 0, sizeof *m);
    m->eh = x86_header();
    m->eh.e_phnum = 2;
    m->eh.e_phoff = offsetof(struct made, ph);
    m->eh.e_shnum = 3;
    m->eh.e_shoff = offsetof(struct made, sh);
    m->eh.e_shstrndx = 2;
    m->ph[0] = (Elf64_Phdr){
        .p_type = PT_LOAD, .p_flags = PF_R, .p_filesz = sizeof *m, .p_memsz = sizeof *m};
    m->ph[1] = (Elf64_Phdr){.p_type = PT_NOTE,
                            .p_offset = offsetof(struct made, note),
                            .p_vaddr = offsetof(struct made, note),
                            .p_filesz = sizeof m->note};
    m->note.namesz = 4;
    m->note.descsz = sizeof m->note.desc;
    m->note.type = NT_GNU_BUILD_ID;
    memcpy(m->note.name, "GNU", 4);
    memset(m->note.desc, id, sizeof m->note.desc);
    memcpy(m->rodata, rodata, len);
    memcpy(m->names, "\0.rodata\0.shstrtab", 19);
    m->sh[1] = (Elf64_Shdr){.sh_name = 1,
                            .sh_type = SHT_PROGBITS,
                            .sh_offset = offsetof(struct made, rodata),
                            .sh_size = sizeof m->rodata};
    m->sh[2] = (Elf64_Shdr){.sh_name = 9,
                            .sh_type = SHT_STRTAB,
                            .sh_offset = offsetof(struct made, names),
                            .sh_size = sizeof m->names};
}

static int version_of(const char *rodata, size_t len, uint32_t *hex)
{
    struct made m;
    struct elf_file *elf;

    make_elf(&m, 1, rodata, len);
    write_file(temp_path("made"), &m, sizeof m);
    int rc = elf_open_path(temp_path("made"), &elf, NULL);
    if (rc)
        return rc;
    rc = elf_python_version(elf, hex, NULL);
    elf_close(elf);
    return rc;
}

static void test_version(void)
{
    uint32_t hex = 0;
#define TEXT(s) s, sizeof s
    int rc = version_of(TEXT("2.7.18\0x\0003.9.2\0y\0003.9.2"), &hex);
    ok(rc == 0 && hex == 0x03090200, "one release in .rodata: 0x%08x", hex);
    ok(version_of(TEXT("3.15.0rc1"), &hex) == 0 && hex == 0x030f0000, "a release candidate");
    ok(version_of(TEXT("3.9.2\0003.10.1"), &hex) == ERR_NOT_FOUND, "two releases");
    ok(version_of(TEXT("3.9\0003.9.2.1\0003.999.1\0003.2.1\0 3.9.2"), &hex) == ERR_NOT_FOUND,
       "things that look like a release");
#undef TEXT
}

/* ---- the file behind a mapping ---- */

static struct mem *image_of(const void *bytes, size_t len, uint64_t addr)
{
    struct mem *mem = NULL;
    struct mem_image_piece piece = {addr, bytes, len};
    return mem_image_new(&piece, 1, &mem, NULL) ? NULL : mem;
}

static void test_module_self(void)
{
    struct elf_file *elf;
    struct err err = ERR_INIT;
    struct mapping map;
    char how[ELF_PATH_CHARS] = "";

    if (!ok(find_mapping((uint64_t)(uintptr_t)test_elf_text, &map), "own mapping"))
        return;
    struct elf_module_request req = {.pid = getpid(), .map = &map.vma};
    if (ok(elf_open_module(&req, &elf, how, &err) == 0, "own module by %s", how))
        elf_close(elf);
    req.pid = 0;
    if (ok(elf_open_module(&req, &elf, how, &err) == 0, "own module by %s", how))
        elf_close(elf);
}

static int open_made(const char *path, uint64_t inode, struct mem *mem, char *how)
{
    struct elf_file *elf;
    struct vma map = {.start = 0x10000, .end = 0x11000, .name = path, .inode = inode};
    struct elf_module_request req = {.map = &map, .mem = mem};
    struct err err = ERR_INIT;
    int rc = elf_open_module(&req, &elf, how, &err);
    if (rc == 0)
        elf_close(elf);
    else
        diag("%s", err.text);
    return rc;
}

static void test_module_identity(void)
{
    struct made m, mapped;
    char path[160], how[ELF_PATH_CHARS];

    make_elf(&m, 1, "", 0);
    mapped = m;
    struct mem *mem = image_of(&mapped, sizeof mapped, 0x10000);
    snprintf(path, sizeof path, "%s", temp_path("module"));
    write_file(path, &m, sizeof m);
    ok(open_made(path, 1, mem, how) == 0 && !strstr(how, "not proven"),
       "another inode but the same build-id");
    ok(open_made(path, 1, NULL, how) < 0, "another inode and no memory to compare");
    ok(open_made(path, 0, NULL, how) == 0 && strstr(how, "not proven"), "a core knows no inode");
    make_elf(&m, 2, "", 0);
    write_file(path, &m, sizeof m);
    ok(open_made(path, 1, mem, how) < 0 && open_made(path, 0, mem, how) < 0,
       "replaced by another build");
    strcat(path, " (deleted)");
    ok(open_made(path, 1, mem, how) < 0, "deleted and replaced");
    make_elf(&m, 1, "", 0);
    write_file(temp_path("module"), &m, sizeof m);
    ok(open_made(path, 1, mem, how) == 0, "deleted, but the same file is there again");
    ok(open_made("[heap]", 1, mem, how) < 0, "not a file");
    mem_close(mem);
}

/* A deleted file is still reachable through map_files, where that is allowed. */
static void test_module_deleted(void)
{
    struct made m;
    struct elf_file *elf;
    struct mapping map;
    char how[ELF_PATH_CHARS];

    make_elf(&m, 3, "", 0);
    const char *path = temp_path("deleted");
    write_file(path, &m, sizeof m);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    void *p = mmap(NULL, sizeof m, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    unlink(path);
    if (p == MAP_FAILED || !ok(find_mapping((uint64_t)(uintptr_t)p, &map), "%s", map.path))
        return;
    struct elf_module_request req = {.pid = getpid(), .map = &map.vma};
    int rc = elf_open_module(&req, &elf, how, NULL);
    if (rc) {
        skip("no permission to open /proc/PID/map_files");
    } else {
        ok(strcmp(elf_build_id(elf), "0303030303030303") == 0, "deleted file by %s", how);
        elf_close(elf);
    }
    munmap(p, sizeof m);
}

/* ---- from memory: libc in this process ---- */

struct pieces {
    struct mem_image_piece items[16];
    size_t n;
    uint64_t base;
};

static int collect_libc(struct dl_phdr_info *info, size_t size, void *ctx)
{
    struct pieces *p = ctx;
    (void)size;
    if (!strstr(info->dlpi_name, "libc.so"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum && p->n < 16; i++) {
        const ElfW(Phdr) *ph = &info->dlpi_phdr[i];
        if (ph->p_type != PT_LOAD || !(ph->p_flags & PF_R))
            continue;
        uint64_t addr = info->dlpi_addr + ph->p_vaddr;
        p->items[p->n++] = (struct mem_image_piece){addr, (void *)(uintptr_t)addr, ph->p_memsz};
    }
    p->base = info->dlpi_addr;
    return 1;
}

/* As `p` but without the page at `hole`. */
static struct mem *with_hole(const struct pieces *p, uint64_t hole)
{
    struct mem_image_piece items[17];
    size_t n = 0;
    struct mem *mem = NULL;

    for (size_t i = 0; i < p->n; i++) {
        struct mem_image_piece piece = p->items[i];
        uint64_t end = piece.addr + piece.len;
        if (hole < piece.addr || hole + 4096 > end) {
            items[n++] = piece;
            continue;
        }
        const uint8_t *bytes = piece.bytes;
        items[n++] = (struct mem_image_piece){piece.addr, bytes, hole - piece.addr};
        items[n++] = (struct mem_image_piece){hole + 4096, bytes + (hole + 4096 - piece.addr),
                                              end - hole - 4096};
    }
    return mem_image_new(items, n, &mem, NULL) ? NULL : mem;
}

/* Each page of the tables missing in turn: what is found stays right. */
static void test_holes(const struct pieces *p, const struct elf_image *image, uint64_t real)
{
    unsigned found = 0, wrong = 0, runs = 0;
    uint64_t end = image->strtab + image->strsz;

    for (uint64_t hole = image->symtab & ~(uint64_t)4095; hole < end; hole += 4096) {
        struct elf_symbol sym = {.name = "getpid"};
        struct elf_image damaged;
        struct mem *mem = with_hole(p, hole);
        if (mem && elf_image_read(mem, image->base, &damaged, NULL) == 0 &&
            elf_image_symbols(mem, &damaged, &sym, 1)) {
            found++;
            wrong += sym.value + damaged.bias != real;
        }
        mem_close(mem);
        runs++;
    }
    ok(runs > 4 && wrong == 0 && found + 4 >= runs, "%u of %u runs with a page missing found it",
       found, runs);
}

static void test_memory(void)
{
    struct pieces p = {.n = 0};
    struct elf_image image;
    struct err err = ERR_INIT;

    dl_iterate_phdr(collect_libc, &p);
    struct mem *mem = NULL;
    if (!ok(p.n >= 2 && mem_image_new(p.items, p.n, &mem, &err) == 0, "libc in memory"))
        return;
    int rc = elf_image_read(mem, p.base, &image, &err);
    if (!ok(rc == 0 && image.dynamic && image.n_symbols > 1000, "its headers: %s", err.text)) {
        mem_close(mem);
        return;
    }
    diag("%zu segments, %llu symbols, build-id %s", image.n_loads,
         (unsigned long long)image.n_symbols, image.build_id);
    uint64_t real = (uint64_t)(uintptr_t)dlsym(RTLD_DEFAULT, "getpid");
    struct elf_symbol want[] = {
        {.name = "getpid"}, {.name = "no_such_symbol"}, {.name = "environ"}};
    ok(elf_image_symbols(mem, &image, want, 3) == 2 && want[0].value + image.bias == real &&
           want[0].is_function && !want[1].found,
       "its symbols");
    struct mapping map;
    struct elf_file *elf;
    if (ok(find_mapping(p.base, &map) && elf_open_path(map.path, &elf, &err) == 0, "its file")) {
        struct elf_symbol sym;
        uint64_t bias;
        ok(strcmp(elf_build_id(elf), image.build_id) == 0, "file and memory: build-id");
        ok(elf_symbol(elf, "getpid", &sym) && sym.value == want[0].value &&
               elf_bias(elf, map.vma.start, map.vma.offset, &bias, &err) == 0 && bias == image.bias,
           "file and memory: symbol and bias");
        elf_close(elf);
    }
    test_holes(&p, &image, real);
    ok(elf_image_read(mem, p.base + 4096, &image, &err) == ERR_FORMAT, "%s", err.text);
    ok(elf_image_read(mem, 0x10, &image, &err) == ERR_FAULT, "%s", err.text);
    mem_close(mem);
}

int main(void)
{
    if (!mkdtemp(dir))
        return 1;
    test_self();
    test_refuse();
    test_version();
    test_module_self();
    test_module_identity();
    test_module_deleted();
    test_memory();
    char cmd_free[] = "refuse\0fifo\0made\0module\0";
    for (const char *name = cmd_free; *name; name += strlen(name) + 1)
        unlink(temp_path(name));
    ok(rmdir(dir) == 0, "cleaned up");
    return done_testing();
}
