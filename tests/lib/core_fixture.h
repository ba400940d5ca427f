/* Cores made by hand, for test_core.c and fuzz_core.c: add notes and segments, then finish. Include
 * it in one .c file per program. */
#ifndef HEAPCENSUS_CORE_FIXTURE_H
#define HEAPCENSUS_CORE_FIXTURE_H

#include <assert.h>
#include <elf.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <unistd.h>

#include "inspector/target/core_note.h"

#define FIXTURE_FN static __attribute__((unused))

enum { FIXTURE_BYTES = 60 * 1024, FIXTURE_LOADS = 32, FIXTURE_PAGE = 4096 };

struct core_fixture {
    uint8_t bytes[FIXTURE_BYTES], notes[FIXTURE_BYTES], data[FIXTURE_BYTES];
    size_t len, n_notes, n_data;
    Elf64_Phdr loads[FIXTURE_LOADS];
    size_t n_loads;
    size_t phdrs_at, notes_at, data_at; /* offsets in bytes, after finishing */
};

FIXTURE_FN void fixture_note(struct core_fixture *f, const char *owner, uint32_t type,
                             const void *desc, size_t len)
{
    Elf64_Nhdr head = {(uint32_t)strlen(owner) + 1, (uint32_t)len, type};
    size_t name = (head.n_namesz + 3) & ~3u, padded = (len + 3) & ~(size_t)3;
    assert(f->n_notes + sizeof head + name + padded <= sizeof f->notes);
    memcpy(f->notes + f->n_notes, &head, sizeof head);
    memcpy(f->notes + f->n_notes + sizeof head, owner, head.n_namesz);
    memcpy(f->notes + f->n_notes + sizeof head + name, desc, len);
    f->n_notes += sizeof head + name + padded;
}

/* A segment; its bytes in the file are `content` and zeros. flags: "rwx" or some of it. */
FIXTURE_FN void fixture_load(struct core_fixture *f, uint64_t start, uint64_t size, uint64_t dumped,
                             const char *flags, const void *content, size_t len)
{
    assert(f->n_loads < FIXTURE_LOADS && f->n_data + dumped <= sizeof f->data && len <= dumped);
    Elf64_Phdr *ph = &f->loads[f->n_loads++];
    *ph = (Elf64_Phdr){.p_type = PT_LOAD,
                       .p_flags = (strchr(flags, 'r') ? PF_R : 0) |
                                  (strchr(flags, 'w') ? PF_W : 0) | (strchr(flags, 'x') ? PF_X : 0),
                       .p_offset = f->n_data, /* finish adds where the data begin */
                       .p_vaddr = start,
                       .p_filesz = dumped,
                       .p_memsz = size,
                       .p_align = FIXTURE_PAGE};
    if (len)
        memcpy(f->data + f->n_data, content, len);
    f->n_data += dumped;
}

/* NT_PRSTATUS */
FIXTURE_FN void fixture_thread(struct core_fixture *f, int tid, int sig, uint64_t rsp)
{
    struct elf_prstatus st;
    struct user_regs_struct regs;
    memset(&st, 0, sizeof st);
    memset(&regs, 0, sizeof regs);
    st.pr_cursig = (short)sig;
    st.pr_pid = tid;
    regs.rsp = rsp;
    regs.rip = 0x401234;
    regs.fs_base = 0x7f0000100000u + (uint64_t)tid;
    memcpy(&st.pr_reg, &regs, sizeof regs);
    fixture_note(f, "CORE", NT_PRSTATUS, &st, sizeof st);
}

FIXTURE_FN void fixture_process(struct core_fixture *f, int pid, const char *comm, const char *args)
{
    struct elf_prpsinfo info;
    memset(&info, 0, sizeof info);
    info.pr_pid = pid;
    info.pr_ppid = 77;
    info.pr_uid = 1000;
    info.pr_gid = 1001;
    assert(strlen(comm) <= sizeof info.pr_fname && strlen(args) <= sizeof info.pr_psargs);
    memcpy(info.pr_fname, comm, strlen(comm)); /* without NUL where it just fits */
    memcpy(info.pr_psargs, args, strlen(args));
    fixture_note(f, "CORE", NT_PRPSINFO, &info, sizeof info);
}

FIXTURE_FN void fixture_siginfo(struct core_fixture *f, int number, int code, int pid,
                                uint64_t address)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    info.si_signo = number;
    info.si_code = code;
    if (pid) {
        info.si_pid = pid;
        info.si_uid = 1000;
    } else {
        info.si_addr = (void *)(uintptr_t)address;
    }
    fixture_note(f, "CORE", NT_SIGINFO, &info, sizeof info);
}

struct fixture_file {
    uint64_t start, end, offset; /* offset in units */
    const char *path;
};

/* NT_FILE's content in buf; returns its length. */
FIXTURE_FN size_t fixture_files_desc(const struct fixture_file *files, size_t n, uint64_t unit,
                                     uint8_t *buf)
{
    uint64_t head[2] = {n, unit};
    size_t at = sizeof head;
    memcpy(buf, head, sizeof head);
    for (size_t i = 0; i < n; i++, at += 24)
        memcpy(buf + at, &files[i], 24);
    for (size_t i = 0; i < n; at += strlen(files[i++].path) + 1)
        strcpy((char *)buf + at, files[i].path);
    return at;
}

FIXTURE_FN void fixture_files(struct core_fixture *f, const struct fixture_file *files, size_t n,
                              uint64_t unit)
{
    uint8_t desc[4096];
    fixture_note(f, "CORE", NT_FILE, desc, fixture_files_desc(files, n, unit, desc));
}

FIXTURE_FN void fixture_text(struct core_fixture *f, uint32_t type, const char *text)
{
    fixture_note(f, CORE_NOTE_OWNER, type, text, strlen(text));
}

/* Put it together: ELF header, program headers, notes, and the data on a page of its own. */
FIXTURE_FN void fixture_finish(struct core_fixture *f)
{
    size_t n = f->n_loads + 1;
    f->phdrs_at = sizeof(Elf64_Ehdr);
    f->notes_at = f->phdrs_at + n * sizeof(Elf64_Phdr);
    f->data_at = (f->notes_at + f->n_notes + FIXTURE_PAGE - 1) & ~(size_t)(FIXTURE_PAGE - 1);
    f->len = f->data_at + f->n_data;
    assert(f->len <= sizeof f->bytes);
    Elf64_Ehdr eh = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, 1},
                     .e_type = ET_CORE,
                     .e_machine = EM_X86_64,
                     .e_phoff = f->phdrs_at,
                     .e_phentsize = sizeof(Elf64_Phdr),
                     .e_phnum = (uint16_t)n};
    Elf64_Phdr note = {.p_type = PT_NOTE, .p_offset = f->notes_at, .p_filesz = f->n_notes};
    memset(f->bytes, 0, f->len);
    memcpy(f->bytes, &eh, sizeof eh);
    memcpy(f->bytes + f->phdrs_at, &note, sizeof note);
    for (size_t i = 0; i < f->n_loads; i++) {
        Elf64_Phdr ph = f->loads[i];
        ph.p_offset += f->data_at;
        memcpy(f->bytes + f->phdrs_at + (i + 1) * sizeof ph, &ph, sizeof ph);
    }
    memcpy(f->bytes + f->notes_at, f->notes, f->n_notes);
    memcpy(f->bytes + f->data_at, f->data, f->n_data);
}

/* A descriptor of these bytes. */
FIXTURE_FN int fixture_fd(const void *bytes, size_t len)
{
    int fd = (int)syscall(SYS_memfd_create, "core", 1u /* MFD_CLOEXEC */);
    ssize_t n = fd < 0 ? -1 : pwrite(fd, bytes, len, 0);
    assert(n == (ssize_t)len);
    (void)n;
    return fd;
}

/* ---- a process ---- */

enum { FIXTURE_PID = 500 };
#define FIXTURE_STACK 0x7ffc00000000ull
#define FIXTURE_VDSO 0x7ffc00100000ull

/* The first page of an executable whose .bss ends at 0x406000. */
FIXTURE_FN size_t fixture_exe(uint8_t *page)
{
    Elf64_Ehdr eh = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, 1},
                     .e_type = ET_EXEC,
                     .e_machine = EM_X86_64,
                     .e_phoff = sizeof eh,
                     .e_phentsize = sizeof(Elf64_Phdr),
                     .e_phnum = 2};
    Elf64_Phdr ph[2] = {
        {.p_type = PT_LOAD, .p_vaddr = 0x400000, .p_filesz = 0x1800, .p_memsz = 0x1800},
        {.p_type = PT_LOAD,
         .p_vaddr = 0x403e00,
         .p_offset = 0x2e00,
         .p_filesz = 0x100,
         .p_memsz = 0x2100},
    };
    memcpy(page, &eh, sizeof eh);
    memcpy(page + sizeof eh, ph, sizeof ph);
    return sizeof eh + sizeof ph;
}

/* Segments as the kernel writes them. */
FIXTURE_FN void fixture_sample_loads(struct core_fixture *f)
{
    uint8_t page[FIXTURE_PAGE];
    size_t len = fixture_exe(page);
    fixture_load(f, 0x400000, 0x1000, 0x1000, "r", page, len);
    fixture_load(f, 0x401000, 0x2000, 0, "rx", NULL, 0);
    fixture_load(f, 0x403000, 0x1000, 0x1000, "rw", "data", 4);
    fixture_load(f, 0x404000, 0x2000, 0x1000, "rw", "bss", 3);
    fixture_load(f, 0x1000000, 0x3000, 0x1000, "rw", "heap", 4);
    fixture_load(f, 0x1003000, 0x1000, 0, "rw", NULL, 0); /* the heap, split */
    fixture_load(f, 0x7f0000000000, 0x1000, 0, "", NULL, 0);
    fixture_load(f, 0x7f0000001000, 0x2000, 0, "rw", NULL, 0); /* a shared file */
    fixture_load(f, 0x7f0000003000, 0x1000, 0x1000, "rw", "memfd", 5);
    fixture_load(f, 0x7f0000004000, 0x1000, 0, "rw", NULL, 0); /* a library's untouched data */
    fixture_load(f, 0x7f0000005000, 0x1000, 0, "rx", NULL, 0);
    fixture_load(f, FIXTURE_STACK, 0x21000, 0x1000, "rw", "stack", 5);
    fixture_load(f, FIXTURE_VDSO - 0x7000, 0x1000, 0x1000, "r", "not vvar", 8);
    fixture_load(f, FIXTURE_VDSO - 0x6000, 0x4000, 0x1000, "r", NULL, 0);
    fixture_load(f, FIXTURE_VDSO - 0x2000, 0x2000, 0, "r", NULL, 0);
    fixture_load(f, FIXTURE_VDSO, 0x2000, 0, "rx", NULL, 0);
    fixture_load(f, 0xffffffffff600000, 0x1000, 0, "x", NULL, 0);
}

static const struct fixture_file fixture_sample_files[] = {
    {0x400000, 0x401000, 0, "/usr/bin/python3"},
    {0x401000, 0x403000, 1, "/usr/bin/python3"},
    {0x403000, 0x404000, 2, "/usr/bin/python3"},
    {0x7f0000001000, 0x7f0000003000, 3, "/var/a\nb\\c"},
    {0x7f0000003000, 0x7f0000004000, 0, "/memfd:x (deleted)"},
    {0x7f0000004000, 0x7f0000005000, 4, "/lib/libx.so"},
    {0x7f0000005000, 0x7f0000006000, 0, "/lib/libx.so"},
};
enum { FIXTURE_FILES = sizeof fixture_sample_files / sizeof fixture_sample_files[0] };

static const uint64_t fixture_sample_auxv[] = {AT_SYSINFO_EHDR, FIXTURE_VDSO,
                                               AT_PHDR,         0x400040,
                                               AT_ENTRY,        0x401100,
                                               AT_BASE,         0x7f0000005000,
                                               AT_RANDOM,       FIXTURE_STACK + 0x20010,
                                               AT_EXECFN,       FIXTURE_STACK + 0x20ff0,
                                               AT_NULL,         0};

/* The notes of the kernel; SIGSEGV in the second thread, whose notes come first. */
FIXTURE_FN void fixture_sample_notes(struct core_fixture *f)
{
    fixture_thread(f, FIXTURE_PID + 1, SIGSEGV, 0x7f0000099000);
    fixture_process(f, FIXTURE_PID, "python3", "python3 -m service ");
    fixture_siginfo(f, SIGSEGV, SEGV_MAPERR, 0, 0x1234);
    fixture_note(f, "CORE", NT_AUXV, fixture_sample_auxv, sizeof fixture_sample_auxv);
    fixture_files(f, fixture_sample_files, FIXTURE_FILES, FIXTURE_PAGE);
    fixture_note(f, "LINUX", NT_X86_XSTATE, "xsave", 6);
    fixture_thread(f, FIXTURE_PID, SIGSEGV, FIXTURE_STACK + 0x1000);
}

/* What heapcensus core adds. */
FIXTURE_FN void fixture_sample_facts(struct core_fixture *f)
{
    static const uint64_t runs[] = {0x400000,  0x401000,  0x1000000,     0x1001000,
                                    0x1001000, 0x1002000, FIXTURE_STACK, FIXTURE_STACK + 0x1000};
    fixture_text(f, CORE_NOTE_THREADS, "500 main\n501 work%0aer two\n502 gone\nx y\n503\n");
    fixture_text(f, CORE_NOTE_MAPS,
                 "400000-401000 r--p 00000000 fe:00 12 /usr/bin/python3\n"
                 "1000000-1003000 rw-p 00000000 00:00 0 [heap]\n"
                 "7f0000001000-7f0000003000 rw-s 00003000 fe:00 14 /var/a\\012b\n");
    fixture_text(f, CORE_NOTE_SMAPS, "1000000-1003000 rw-p 00000000 00:00 0 [heap]\nRss: 8 kB\n");
    fixture_note(f, CORE_NOTE_OWNER, CORE_NOTE_PAGES, runs, sizeof runs);
    fixture_text(f, CORE_NOTE_FACTS,
                 "taken_at=2026-11-21T04:57:01Z\nhost=a%25b%zz\nexe=/usr/bin/py=3\n"
                 "paused_ns=44300000\nconsistent=1\nnew_key=1\nno equals sign\n");
}

#endif
