/* Writing cores: the kernel's rules on what is dumped, notes, headers, bytes. */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inspector/target/core_note.h"
#include "inspector/target/core_write.h"
#include "tests/lib/tap.h"

enum { PAGE = 4096, MANY = 70000 };

/* ---- the rules ---- */

struct rule {
    const char *what;
    const char *maps, *smaps; /* one mapping of 0x10 pages from 0x10000 on */
    bool unlinked, head;
    unsigned whole_bits; /* bits of the filter of which each dumps all of it */
    bool page;           /* otherwise bit 4 dumps its first page */
};

#define FLAGS(anon, swap, flags) "Anonymous: " #anon " kB\nSwap: " #swap " kB\nVmFlags: " flags "\n"
#define ANON "rw-p 00000000 00:00 0 "
#define LIB "r--p 00000000 fe:00 77 /lib/x.so"
#define SHM "rw-s 00000000 00:01 9 /dev/zero (deleted)"

static const struct rule rules[] = {
    {"touched memory", ANON, FLAGS(8, 0, "rd wr mr mw"), false, false, 0x01, false},
    {"memory never touched", ANON, FLAGS(0, 0, "rd wr mr mw"), false, false, 0, false},
    {"memory swapped out", ANON, FLAGS(0, 8, "rd wr mr mw"), false, false, 0x01, false},
    {"MADV_DONTDUMP", ANON, FLAGS(8, 0, "rd wr mr mw dd"), false, false, 0, false},
    {"a device", "rw-s 00000000 00:05 9 /dev/x", FLAGS(0, 0, "rd wr sh io pf"), false, true, 0,
     false},
    {"a library's header", LIB, FLAGS(0, 0, "rd mr mw me"), false, true, 0x04, true},
    {"a file that is no ELF", LIB, FLAGS(0, 0, "rd mr mw me"), false, false, 0x04, false},
    {"a library written to", LIB, FLAGS(4, 0, "rd mr mw me"), false, true, 0x05, true},
    {"a library's text", "r-xp 00001000 fe:00 77 /lib/x.so", FLAGS(0, 0, "rd ex"), false, true,
     0x04, false},
    {"an unreadable header", "---p 00000000 fe:00 77 /lib/x.so", FLAGS(0, 0, "mr"), false, true,
     0x04, false},
    {"shared anonymous", SHM, FLAGS(0, 0, "rd wr sh"), true, false, 0x02, false},
    {"a shared file", "rw-s 00000000 fe:00 9 /data", FLAGS(0, 0, "rd wr sh"), false, true, 0x08,
     false},
    {"MAP_SHARED of a file opened for reading", "r--s 00000000 fe:00 9 /cache",
     FLAGS(0, 0, "rd mr me ms"), false, false, 0x04, false},
    {"private huge pages", "rw-p 00000000 00:0f 9 /anon_hugepage (deleted)",
     FLAGS(0, 0, "rd wr ht"), true, false, 0x20, false},
    {"shared huge pages", "rw-s 00000000 00:0f 9 /anon_hugepage (deleted)",
     FLAGS(0, 0, "rd wr sh ht"), true, false, 0x40, false},
    {"vdso", "r-xp 00000000 00:00 0 [vdso]", FLAGS(0, 0, "rd ex"), false, false, 0xff, false},
    {"vvar", "r--p 00000000 00:00 0 [vvar]", FLAGS(0, 0, "rd io dd pf"), false, false, 0xff, false},
    {"io_uring", "rw-s 00000000 00:0e 9 anon_inode:[io_uring]", FLAGS(0, 0, "rd wr sh"), false,
     false, 0, false},
};

static void parse(struct maps *maps, struct core_attrs *attrs, const char *mapping,
                  const char *attributes)
{
    char text[1024];
    maps_init(maps);
    core_attrs_init(attrs);
    int n = snprintf(text, sizeof text, "00010000-00020000 %s\n", mapping);
    if (maps_parse(maps, text, (size_t)n, NULL) < 0)
        diag("the fixture %s is no mapping", mapping);
    n = snprintf(text, sizeof text, "00010000-00020000 %s\n%s", mapping, attributes);
    if (core_attrs_parse(attrs, text, (size_t)n, NULL) < 0)
        diag("no memory");
}

static uint64_t expected(const struct rule *r, unsigned filter)
{
    if (r->whole_bits == 0xff || filter & r->whole_bits)
        return 0x10000;
    return r->page && filter & CORE_ELF_HEADERS ? PAGE : 0;
}

static void test_rules(void)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        const struct rule *r = &rules[i];
        struct maps maps;
        struct core_attrs attrs;
        unsigned wrong = 0, first = 0;
        parse(&maps, &attrs, r->maps, r->smaps);
        struct core_subject s = {&maps.items[0], core_attrs_find(&attrs, &maps.items[0]),
                                 r->unlinked, r->head};
        for (unsigned filter = 0; filter < 0x80; filter++) {
            if (core_dump_bytes(&s, filter) == expected(r, filter))
                continue;
            first = wrong++ ? first : filter;
        }
        ok(s.attr && !wrong, "%s: all 128 filters (%u wrong, the first 0x%x)", r->what, wrong,
           first);
        core_attrs_release(&attrs);
        maps_release(&maps);
    }
}

/* ---- smaps ---- */

static void test_attrs(void)
{
    static const char text[] =
        "00010000-00020000 rw-p 00000000 00:00 0 \nSize: 64 kB\nAnonymous:     12 kB\n"
        "AnonHugePages: 99 kB\nSwap: 4 kB\nSwapPss: 77 kB\nVmFlags: rd wr mr mw me ac dd \n"
        "00018000-00030000 rw-p 00000000 00:00 0 \nAnonymous: 1 kB\n"
        "nonsense\nfeed\nVmFlags: io\n"
        "00040000-00050000 r--s 00000000 00:00 0 x\nVmFlags: rd sh";
    struct core_attrs attrs;
    struct vma v = {.start = 0x10000, .end = 0x20000, .r = true, .w = true, .name = ""};
    core_attrs_init(&attrs);
    ok(core_attrs_parse(&attrs, text, sizeof text - 1, NULL) == 0 && attrs.n == 2,
       "smaps: an overlapping mapping and nonsense are left out (%zu)", attrs.n);
    const struct core_attr *a = core_attrs_find(&attrs, &v);
    ok(a && a->anonymous == 12288 && a->swap == 4096 && a->dontdump && !a->shared && !a->io,
       "smaps: sums and flags of the first mapping, nothing of the one left out");
    v.w = false;
    ok(!core_attrs_find(&attrs, &v), "smaps: a mapping with other permissions is another");
    v = (struct vma){.start = 0x40000, .end = 0x50000, .r = true, .shared = true, .name = "x"};
    a = core_attrs_find(&attrs, &v);
    ok(a && a->shared && !a->dontdump, "smaps: the last line needs no newline");
    v.end = 0x51000;
    ok(!core_attrs_find(&attrs, &v), "smaps: one that has grown is another");
    ok(core_attrs_parse(&attrs, "", 0, NULL) == 0 && attrs.n == 0, "smaps: empty");
    core_attrs_release(&attrs);
}

static void test_wanted(void)
{
    static const char now[] = "00010000-00020000 rw-p 00000000 00:00 0 \n"
                              "00020000-00030000 rw-p 00002000 fe:00 77 /lib/x.so\n"
                              "00030000-00040000 r--p 00000000 fe:00 77 /lib/x.so\n"
                              "00040000-00050000 rw-p 00000000 00:00 0 \n"
                              "00050000-00060000 r--p 00003000 fe:00 78 /lib/new.so\n"
                              "00060000-00070000 rw-s 00000000 00:05 79 /dev/new\n";
    static const char before[] = "00010000-00020000 rw-p 0 0:0 0\nVmFlags: rd wr dd\n"
                                 "00020000-00030000 rw-p 0 0:0 0\nVmFlags: rd wr\n"
                                 "00030000-00040000 r--p 0 0:0 0\nVmFlags: rd\n"
                                 "00040000-00050000 rw-p 0 0:0 0\nVmFlags: rd wr\n";
    struct maps maps;
    struct core_attrs attrs;
    struct mem_region *wanted = NULL;
    size_t n = 0;
    maps_init(&maps);
    core_attrs_init(&attrs);
    int rc = maps_parse(&maps, now, sizeof now - 1, NULL);
    if (rc == 0)
        rc = core_attrs_parse(&attrs, before, sizeof before - 1, NULL);
    if (rc == 0)
        rc = core_plan_wanted(&maps, &attrs, 0x33, &wanted, &n, NULL);
    ok(rc == 0 && n == 4, "to copy: 4 of 6 mappings, not %zu", n);
    ok(n == 4 && wanted[0].start == 0x20000 && wanted[0].end == 0x30000,
       "to copy: a library's data, though nothing was written to it before");
    ok(n == 4 && wanted[1].start == 0x30000 && wanted[1].end == 0x31000,
       "to copy: the first page of a file");
    ok(n == 4 && wanted[2].start == 0x40000, "to copy: memory that was not touched before");
    ok(n == 4 && wanted[3].start == 0x50000 && wanted[3].end == 0x60000,
       "to copy: all of a mapping that is new, but no device");
    free(wanted);
    core_attrs_release(&attrs);
    maps_release(&maps);
}

/* ---- notes ---- */

static void test_notes(void)
{
    struct core_notes notes;
    core_notes_init(&notes);
    int rc = core_note_add(&notes, "CORE", 7, "abcde", 5, NULL);
    size_t first = notes.n;
    if (rc == 0)
        rc = core_note_add(&notes, CORE_NOTE_OWNER, 8, NULL, 0, NULL);
    Elf64_Nhdr head;
    memcpy(&head, notes.bytes, sizeof head);
    ok(rc == 0 && head.n_namesz == 5 && head.n_descsz == 5 && head.n_type == 7, "a note's header");
    ok(first == 12 + 8 + 8 && memcmp(notes.bytes + 12, "CORE\0\0\0\0abcde\0\0\0", 16) == 0,
       "owner and contents are padded to four bytes");
    memcpy(&head, notes.bytes + first, sizeof head);
    ok(notes.n == first + 12 + 12 && head.n_namesz == 11 && head.n_descsz == 0, "an empty note");
    core_notes_release(&notes);
}

static void test_files_note(void)
{
    static const char text[] = "00010000-00020000 r--p 00003000 fe:00 77 /lib/a\\012b.so\n"
                               "00020000-00030000 rw-p 00000000 00:00 0 [heap]\n"
                               "00030000-00040000 rw-s 00000000 00:01 9 /dev/zero (deleted)\n";
    static const uint64_t want[] = {2, 4096, 0x10000, 0x20000, 3, 0x30000, 0x40000, 0};
    static const char names[] = "/lib/a\nb.so\0/dev/zero (deleted)";
    struct maps maps;
    struct core_notes notes;
    maps_init(&maps);
    core_notes_init(&notes);
    int rc = maps_parse(&maps, text, sizeof text - 1, NULL);
    if (rc == 0)
        rc = core_note_files(&notes, &maps, NULL);
    Elf64_Nhdr head = {0};
    if (rc == 0)
        memcpy(&head, notes.bytes, sizeof head);
    ok(head.n_type == NT_FILE && head.n_descsz == sizeof want + sizeof names, "NT_FILE: its size");
    ok(rc == 0 && memcmp(notes.bytes + 20, want, sizeof want) == 0, "NT_FILE: offsets in pages");
    ok(rc == 0 && memcmp(notes.bytes + 20 + sizeof want, names, sizeof names) == 0,
       "NT_FILE: the names of the two files, decoded");
    core_notes_release(&notes);
    maps_release(&maps);
}

static void test_process_note(void)
{
    static const uint32_t types[] = {NT_PRSTATUS,   NT_PRPSINFO, NT_AUXV,    NT_FPREGSET,
                                     NT_X86_XSTATE, NT_PRSTATUS, NT_FPREGSET};
    static uint8_t xstate[100];
    struct core_regs_thread threads[2] = {{.tid = 11, .xstate_len = sizeof xstate}, {.tid = 12}};
    struct core_regs regs = {.threads = threads, .n = 2, .xstate = xstate};
    struct core_process process;
    struct core_notes notes;
    struct maps maps;
    struct elf_prstatus status;
    size_t at = 0, i = 0;
    bool right = true;
    maps_init(&maps);
    core_notes_init(&notes);
    threads[1].general.rip = 0x1234;
    int rc = core_process_read(&process, getpid(), NULL);
    ok(rc == 0 && process.info.pr_pid == getpid() && process.info.pr_ppid == getppid() &&
           process.info.pr_pgrp == getpgrp() && process.info.pr_sid == getsid(0) &&
           process.info.pr_uid == getuid() && process.info.pr_sname == 'R',
       "the process: ids and state");
    ok(strcmp(process.info.pr_fname, "test_core_write") == 0 &&
           strstr(process.info.pr_psargs, "test_core_write"),
       "the process: name and command line '%s'", process.info.pr_psargs);
    if (rc == 0)
        rc = core_note_process(&notes, &process, &regs, "auxv", 4, &maps, NULL);
    for (; rc == 0 && at + sizeof(Elf64_Nhdr) <= notes.n; i++) {
        Elf64_Nhdr head;
        memcpy(&head, notes.bytes + at, sizeof head);
        right &= i < 7 && head.n_type == types[i];
        at += sizeof head + 8;
        if (i == 5)
            memcpy(&status, notes.bytes + at, sizeof status);
        at += (head.n_descsz + 3) & ~3u;
    }
    ok(right && i == 7 && at == notes.n, "two threads: the kernel's order of notes");
    ok(i == 7 && status.pr_pid == 12 && status.pr_cursig == 0 &&
           memcmp(&status.pr_reg, &threads[1].general, sizeof status.pr_reg) == 0,
       "two threads: the second's number and registers");
    core_notes_release(&notes);
    maps_release(&maps);
}

static void test_text(void)
{
    struct core_text text = {0};
    core_text_add(&text, "a%\n");
    core_text_add_escaped(&text, "b%\n\x7f\xc3\xa9");
    ok(!text.failed && text.n == 15 && memcmp(text.bytes, "a%\nb%25%0A%7F\xc3\xa9", 15) == 0,
       "text: control characters and '%%' of values are escaped");
    core_text_release(&text);
}

/* ---- the file ---- */

static int temporary(void)
{
    char path[] = "/tmp/test_core_write-XXXXXX";
    int fd = mkstemp(path);
    if (fd >= 0)
        unlink(path);
    return fd;
}

/* Headers of a plan of n mappings of a page each, read back. */
static void check_headers(size_t n, unsigned phnum, bool extended)
{
    struct core_plan plan;
    struct core_notes notes;
    struct vma *vmas = calloc(n, sizeof *vmas);
    struct core_out w = {.fd = temporary(), .name = "core"};
    Elf64_Ehdr e;
    Elf64_Shdr sh = {0};
    Elf64_Phdr last = {0};
    core_plan_init(&plan);
    core_notes_init(&notes);
    plan.loads = calloc(n, sizeof *plan.loads);
    plan.n = n;
    for (size_t i = 0; i < n; i++) {
        vmas[i] = (struct vma){.start = (i + 1) * 2 * PAGE, .r = true, .name = ""};
        vmas[i].end = vmas[i].start + PAGE;
        plan.loads[i] = (struct core_load){.vma = &vmas[i], .bytes = i % 2 ? PAGE : 0};
    }
    int rc = core_note_add(&notes, "CORE", 1, "1234", 4, NULL);
    core_layout(&plan, notes.n);
    if (rc == 0)
        rc = core_write_size(&w, &plan, NULL);
    if (rc == 0)
        rc = core_write_head(&w, &plan, &notes, NULL);
    ok(rc == 0 && pread(w.fd, &e, sizeof e, 0) == sizeof e && e.e_type == ET_CORE &&
           e.e_machine == EM_X86_64 && e.e_phnum == phnum,
       "%zu mappings: e_phnum %u", n, phnum);
    if (extended)
        ok(pread(w.fd, &sh, sizeof sh, (off_t)e.e_shoff) == sizeof sh && sh.sh_info == n + 1 &&
               sh.sh_size == 1 && e.e_shnum == 1 && e.e_shoff == sizeof e + (n + 1) * sizeof last,
           "%zu mappings: the section header tells how many", n);
    else
        ok(e.e_shoff == 0 && e.e_shnum == 0, "%zu mappings: no section header", n);
    ok(pread(w.fd, &last, sizeof last, (off_t)(sizeof e + n * sizeof last)) == sizeof last &&
           last.p_type == PT_LOAD && last.p_vaddr == n * 2 * PAGE && last.p_memsz == PAGE &&
           last.p_offset % PAGE == 0 && last.p_offset + last.p_filesz == plan.file_bytes &&
           last.p_flags == PF_R,
       "%zu mappings: the last segment", n);
    struct stat st;
    ok(fstat(w.fd, &st) == 0 && (uint64_t)st.st_size == plan.file_bytes &&
           plan.file_bytes == plan.data_offset + n / 2 * PAGE,
       "%zu mappings: the file's size", n);
    close(w.fd);
    free(vmas);
    core_notes_release(&notes);
    core_plan_release(&plan);
}

static void test_headers(void)
{
    check_headers(3, 4, false);
    check_headers(PN_XNUM - 2, PN_XNUM - 1, false);
    check_headers(PN_XNUM - 1, PN_XNUM, true);
    check_headers(MANY, PN_XNUM, true);
}

static void test_outgrown(void)
{
    struct core_plan plan;
    struct core_notes notes;
    struct core_out w = {.fd = temporary(), .name = "core"};
    struct err err = ERR_INIT;
    uint8_t *big = calloc(1, 2 * PAGE);
    core_plan_init(&plan);
    core_notes_init(&notes);
    core_layout(&plan, 64);
    int rc = core_note_add(&notes, "CORE", 1, big, 2 * PAGE, NULL);
    ok(rc == 0 && core_write_head(&w, &plan, &notes, &err) == ERR_LIMIT,
       "notes that outgrew their room do not run into the segments");
    free(big);
    close(w.fd);
    core_notes_release(&notes);
}

/* Four pages of memory from 0x10000 on, of which 0, 2 and 3 are present and 3 cannot be read. */
static void test_memory(void)
{
    static uint8_t page[2][PAGE];
    static const struct page_run present[] = {{0x10000, 0x11000}, {0x12000, 0x14000}};
    struct mem_image_piece pieces[] = {{0x10000, page[0], PAGE}, {0x12000, page[1], PAGE}};
    struct vma v = {.start = 0x10000, .end = 0x14000, .r = true, .name = ""};
    struct core_load load = {.vma = &v, .bytes = 4 * PAGE, .swap = PAGE};
    struct core_plan plan = {.loads = &load, .n = 1};
    struct core_out w = {.fd = temporary(), .name = "core", .present = present, .n_present = 2};
    struct core_sources sources;
    struct mem *mem = NULL;
    uint8_t back[4 * PAGE];
    memset(page[0], 'a', PAGE);
    memset(page[1], 'b', PAGE);
    core_sources_init(&sources, getpid());
    core_layout(&plan, 0);
    int rc = mem_image_new(pieces, 2, &mem, NULL);
    if (rc == 0)
        rc = core_write_size(&w, &plan, NULL);
    if (rc == 0)
        rc = core_write_memory(&w, &plan, mem, NULL);
    if (rc == 0)
        rc = core_write_files(&w, &plan, &sources, NULL);
    ok(rc == 0 && w.written == 2 * PAGE && w.unread == PAGE && w.swapped == PAGE,
       "memory: two pages written, one unread, one swapped");
    ok(pread(w.fd, back, sizeof back, (off_t)load.offset) == sizeof back && back[0] == 'a' &&
           back[PAGE - 1] == 'a' && back[PAGE] == 0 && back[2 * PAGE] == 'b' && back[3 * PAGE] == 0,
       "memory: each page lies where it belongs");
    struct stat st;
    ok(fstat(w.fd, &st) == 0 && st.st_blocks * 512 < st.st_size, "memory: the file has holes");
    volatile sig_atomic_t now = 1;
    w.interrupted = &now;
    ok(core_write_memory(&w, &plan, mem, NULL) == ERR_INTERRUPTED, "memory: Ctrl-C ends it");
    w.interrupted = NULL;
    close(w.fd);
    w.fd = open("/dev/full", O_RDWR);
    struct err err = ERR_INIT;
    ok(core_write_memory(&w, &plan, mem, &err) == ERR_OS && err.os_errno == ENOSPC && err.remedy[0],
       "memory: a full disk has cause and remedy");
    close(w.fd);
    mem_close(mem);
    core_out_release(&w);
}

/* ---- absent pages of a real mapping of ours ---- */

static bool own_mapping(struct maps *maps, const void *p, size_t *ret)
{
    maps_init(maps);
    if (maps_read(maps, getpid(), NULL) < 0)
        return false;
    for (size_t i = 0; i < maps->n; i++)
        if (maps->items[i].start == (uint64_t)(uintptr_t)p) {
            *ret = i;
            return true;
        }
    return false;
}

static void test_fill(void)
{
    char path[] = "/tmp/test_core_write-XXXXXX", elf[4] = ELFMAG;
    int fd = mkstemp(path);
    uint8_t back[3 * PAGE];
    size_t at = 0;
    struct maps maps;
    struct core_sources sources;
    struct core_out w = {.fd = temporary(), .name = "core"};
    core_sources_init(&sources, getpid());
    ok(pwrite(fd, elf, 4, 0) == 4 && pwrite(fd, "end", 3, 2 * PAGE) == 3, "a file of three pages");
    void *p = mmap(NULL, 3 * PAGE, PROT_READ, MAP_PRIVATE, fd, 0);
    bool found = own_mapping(&maps, p, &at);
    struct vma *v = found ? &maps.items[at] : NULL;
    ok(found && core_source_head(&sources, v), "the file begins like an ELF file");
    ok(found && !core_source_unlinked(&sources, v), "the file has a name");
    struct core_load load = {.vma = v, .bytes = 3 * PAGE, .fill = CORE_FILL_FILE};
    struct core_plan plan = {.loads = &load, .n = 1};
    core_layout(&plan, 0);
    int rc = core_write_size(&w, &plan, NULL);
    if (rc == 0 && found)
        rc = core_write_files(&w, &plan, &sources, NULL);
    ok(rc == 0 && w.written == PAGE + 3 && !w.unfilled, "its absent pages but the empty one");
    ok(pread(w.fd, back, sizeof back, (off_t)load.offset) == sizeof back &&
           memcmp(back, ELFMAG, 4) == 0 && memcmp(back + 2 * PAGE, "end", 3) == 0,
       "its bytes lie where they belong");
    load.swap = PAGE;
    w.written = 0;
    rc = core_write_files(&w, &plan, &sources, NULL);
    ok(rc == 0 && w.written == 0 && w.swapped == 3 * PAGE,
       "beside swapped pages nothing is taken from the file");
    unlink(path);
    maps_release(&maps);
    found = own_mapping(&maps, p, &at);
    v = found ? &maps.items[at] : NULL;
    ok(found && core_source_unlinked(&sources, v), "without a name it counts as deleted");
    sources.pid = 0; /* nobody's map_files */
    load = (struct core_load){
        .vma = v, .bytes = 3 * PAGE, .fill = CORE_FILL_FILE, .offset = load.offset};
    rc = core_write_files(&w, &plan, &sources, NULL);
    ok(rc == 0 && w.unfilled == 3 * PAGE && w.unfilled_name == v->name,
       "a deleted file that cannot be got at is counted and named");
    munmap(p, 3 * PAGE);
    close(fd);
    close(w.fd);
    maps_release(&maps);
    core_out_release(&w);
    core_sources_release(&sources);
}

static void test_vdso(void)
{
    struct maps maps;
    size_t at = 0;
    char back[4];
    struct core_sources sources;
    struct core_out w = {.fd = temporary(), .name = "core"};
    core_sources_init(&sources, getpid());
    maps_init(&maps);
    int rc = maps_read(&maps, getpid(), NULL);
    while (rc == 0 && at < maps.n && strcmp(maps.items[at].name, "[vdso]") != 0)
        at++;
    if (!ok(rc == 0 && at < maps.n, "there is a vdso"))
        return;
    struct core_load load = {.vma = &maps.items[at], .fill = CORE_FILL_VDSO};
    struct core_plan plan = {.loads = &load, .n = 1};
    load.bytes = load.vma->end - load.vma->start;
    core_layout(&plan, 0);
    rc = core_write_files(&w, &plan, &sources, NULL);
    ok(rc == 0 && w.written == load.bytes && pread(w.fd, back, 4, (off_t)load.offset) == 4 &&
           memcmp(back, ELFMAG, 4) == 0,
       "absent pages of the vdso come from ours");
    maps.items[at].end += PAGE;
    load.bytes += PAGE;
    w.written = 0;
    rc = core_write_files(&w, &plan, &sources, NULL);
    ok(rc == 0 && w.written == 0 && w.unfilled == load.bytes, "but not of another kernel's");
    close(w.fd);
    maps_release(&maps);
    core_out_release(&w);
}

int main(void)
{
    test_rules();
    test_attrs();
    test_wanted();
    test_notes();
    test_files_note();
    test_process_note();
    test_text();
    test_headers();
    test_outgrown();
    test_memory();
    test_fill();
    test_vdso();
    return done_testing();
}
