/* Cores as files: what the parser makes of sound, cut and hostile ones, and the mappings of them.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <zlib.h>

#include "inspector/target/core.h"
#include "inspector/target/core_maps.h"
#include "inspector/target/sys.h"
#include "tests/lib/core_fixture.h"
#include "tests/lib/tap.h"

static struct core_fixture fix;

static void begin(void)
{
    memset(&fix, 0, sizeof fix);
}

static void begin_sample(void)
{
    begin();
    fixture_sample_loads(&fix);
    fixture_sample_notes(&fix);
}

static int open_bytes(size_t len, struct core *core, struct err *err)
{
    return core_open_fd(fixture_fd(fix.bytes, len), core, err);
}

static int open_fixture(struct core *core, struct err *err)
{
    fixture_finish(&fix);
    return open_bytes(fix.len, core, err);
}

static bool same(const char *a, const char *b)
{
    return a && strcmp(a, b) == 0;
}

/* ---- sound cores ---- */

static void test_sample(void)
{
    struct core core;
    struct err err = ERR_INIT;
    begin_sample();
    if (!ok(open_fixture(&core, &err) == 0, "the sample opens (%s)", err.text))
        return;
    ok(core.writer == CORE_BY_KERNEL && core.n_segments == 17 && core.dropped == 0 &&
           core.bad_notes == 0 && !core.truncated && !core.notes_cut && !core.packed &&
           core.size == fix.len,
       "whole, by the kernel");
    ok(core.dumped_bytes == 8 * 4096 && core.here_bytes == 8 * 4096, "coverage");
    ok(core.has_process && core.pid == 500 && core.ppid == 77 && core.uid == 1000 &&
           core.gid == 1001 && same(core.comm, "python3") && same(core.args, "python3 -m service"),
       "the process");
    ok(core.n_threads == 2 && core.threads[0].tid == 501 && core.threads[0].signal == SIGSEGV &&
           core.threads[0].rsp == 0x7f0000099000 && core.threads[0].rip == 0x401234 &&
           core.threads[0].fs_base == 0x7f0000100000 + 501 && core.threads[1].tid == 500 &&
           !core.threads[0].name,
       "threads");
    ok(core.signal.known && core.signal.number == SIGSEGV && core.signal.code == SEGV_MAPERR &&
           core.signal.address == 0x1234 && core.signal.sender_pid == 0,
       "the signal");
    ok(core.at_phdr == 0x400040 && core.at_entry == 0x401100 && core.at_base == 0x7f0000005000 &&
           core.at_sysinfo_ehdr == FIXTURE_VDSO && core.at_random == FIXTURE_STACK + 0x20010 &&
           core.at_execfn == FIXTURE_STACK + 0x20ff0,
       "the auxiliary vector");
    ok(core.n_files == FIXTURE_FILES && core.files[1].offset == 4096 &&
           same(core.files[3].path, "/var/a\nb\\c"),
       "files");
    const struct core_segment *seg = core_segment_at(&core, 0x1000fff);
    ok(seg && seg->start == 0x1000000 && seg->end == 0x1003000 && seg->dumped == 4096 && seg->r &&
           seg->w && !seg->x && memcmp(fix.bytes + seg->offset, "heap", 4) == 0,
       "a segment by address");
    ok(!core_segment_at(&core, 0xfff) && !core_segment_at(&core, 0x1004000) &&
           !core_segment_at(&core, UINT64_MAX) && core_file_at(&core, 0x402fff) == &core.files[1] &&
           !core_file_at(&core, 0x404000),
       "nothing where nothing is");
    core_close(&core);
    core_close(&core);
}

struct expected {
    uint64_t start, end, offset;
    const char *perms, *name;
    enum vma_kind kind;
};

static bool is_as_expected(const struct vma *v, const struct expected *e)
{
    char perms[5] = {v->r ? 'r' : '-', v->w ? 'w' : '-', v->x ? 'x' : '-', v->shared ? 's' : 'p'};
    return v->start == e->start && v->end == e->end && v->offset == e->offset &&
           v->kind == e->kind && same(v->name, e->name) && strcmp(perms, e->perms) == 0;
}

static void check_maps(const struct core *core, const struct expected *e, size_t n,
                       const char *what)
{
    struct maps maps;
    struct err err = ERR_INIT;
    maps_init(&maps);
    int rc = core_maps_read(core, &maps, &err);
    ok(rc == 0 && maps.n == n && maps.clipped == 0, "%s: %zu of %zu mappings (%s)", what, maps.n, n,
       err.text);
    for (size_t i = 0; i < n && i < maps.n; i++)
        ok(is_as_expected(&maps.items[i], &e[i]), "%s: %llx is %s, %s '%s'", what,
           (unsigned long long)maps.items[i].start, vma_kind_name(maps.items[i].kind),
           maps.items[i].shared ? "shared" : "private", maps.items[i].name);
    maps_release(&maps);
}

#define CHECK_MAPS(core, e, what) check_maps(core, e, sizeof(e) / sizeof(e)[0], what)

static void test_maps_of_kernel(void)
{
    static const struct expected e[] = {
        {0x400000, 0x401000, 0, "r--p", "/usr/bin/python3", VMA_FILE},
        {0x401000, 0x403000, 0x1000, "r-xp", "/usr/bin/python3", VMA_FILE},
        {0x403000, 0x404000, 0x2000, "rw-p", "/usr/bin/python3", VMA_FILE},
        {0x404000, 0x406000, 0, "rw-p", "", VMA_ANON}, /* .bss */
        {0x1000000, 0x1003000, 0, "rw-p", "[heap]", VMA_HEAP},
        {0x1003000, 0x1004000, 0, "rw-p", "[heap]", VMA_HEAP},
        {0x7f0000000000, 0x7f0000001000, 0, "---p", "", VMA_ANON},
        {0x7f0000001000, 0x7f0000003000, 0x3000, "rw-s", "/var/a\nb\\c", VMA_FILE},
        {0x7f0000003000, 0x7f0000004000, 0, "rw-s", "/memfd:x (deleted)", VMA_SHARED},
        {0x7f0000004000, 0x7f0000005000, 0x4000, "rw-p", "/lib/libx.so", VMA_FILE},
        {0x7f0000005000, 0x7f0000006000, 0, "r-xp", "/lib/libx.so", VMA_FILE},
        {FIXTURE_STACK, FIXTURE_STACK + 0x21000, 0, "rw-p", "[stack]", VMA_STACK},
        {FIXTURE_VDSO - 0x7000, FIXTURE_VDSO - 0x6000, 0, "r--p", "", VMA_ANON},
        {FIXTURE_VDSO - 0x6000, FIXTURE_VDSO - 0x2000, 0, "r--p", "[vvar]", VMA_KERNEL},
        {FIXTURE_VDSO - 0x2000, FIXTURE_VDSO, 0, "r--p", "[vvar_vclock]", VMA_KERNEL},
        {FIXTURE_VDSO, FIXTURE_VDSO + 0x2000, 0, "r-xp", "[vdso]", VMA_KERNEL},
        {0xffffffffff600000, 0xffffffffff601000, 0, "--xp", "[vsyscall]", VMA_KERNEL},
    };
    struct core core;
    begin_sample();
    if (!ok(open_fixture(&core, NULL) == 0, "the sample opens"))
        return;
    CHECK_MAPS(&core, e, "kernel");
    struct maps maps;
    maps_init(&maps);
    ok(core_maps_read(&core, &maps, NULL) == 0 && maps.items[0].inode == maps.items[2].inode &&
           maps.items[0].inode && maps.items[7].inode != maps.items[0].inode &&
           maps.items[4].inode == 0,
       "an inode for each path");
    maps_release(&maps);
    core_close(&core);
}

/* Without an executable's headers, .bss is what adjoins its last mapping; and without the random
 * distance, .bss and heap are one mapping. */
static void test_heap(void)
{
    static const struct expected plain[] = {
        {0x400000, 0x401000, 0, "rw-p", "/usr/bin/python3", VMA_FILE},
        {0x401000, 0x402000, 0, "rw-p", "", VMA_ANON},
        {0x403000, 0x404000, 0, "rw-p", "[heap]", VMA_HEAP},
    };
    static const struct expected merged[] = {
        {0x400000, 0x401000, 0, "rw-p", "/usr/bin/python3", VMA_FILE},
        {0x404000, 0x500000, 0, "rw-p", "[heap]", VMA_HEAP},
    };
    static const struct fixture_file exe[] = {{0x400000, 0x401000, 0, "/usr/bin/python3"}};
    uint8_t page[FIXTURE_PAGE] = {0};
    struct core core;
    for (int i = 0; i < 2; i++) {
        begin();
        fixture_load(&fix, 0x400000, 0x1000, i ? 0x1000 : 0, "rw", page, i ? fixture_exe(page) : 0);
        if (i)
            fixture_load(&fix, 0x404000, 0xfc000, 0, "rw", NULL, 0);
        else
            fixture_load(&fix, 0x401000, 0x1000, 0, "rw", NULL, 0);
        if (!i)
            fixture_load(&fix, 0x403000, 0x1000, 0, "rw", NULL, 0);
        fixture_files(&fix, exe, 1, 4096);
        fixture_note(&fix, "CORE", NT_AUXV, fixture_sample_auxv + 2, 12 * 8);
        if (!ok(open_fixture(&core, NULL) == 0 && core.bad_notes == 0, "it opens"))
            return;
        if (i)
            CHECK_MAPS(&core, merged, "no randomisation");
        else
            CHECK_MAPS(&core, plain, "no headers");
        core_close(&core);
    }
}

/* Linux before 6.13 has one mapping of vdso data; a stack is known from its thread alone; and what
 * is far from the executable is no heap. */
static void test_special(void)
{
    static const struct expected e[] = {
        {0x400000, 0x401000, 0, "r--p", "/usr/bin/python3", VMA_FILE},
        {0x50000000, 0x50001000, 0, "rw-p", "", VMA_ANON},
        {0x7ff000000000, 0x7ff000002000, 0, "rw-p", "[stack]", VMA_STACK},
        {FIXTURE_VDSO - 0x5000, FIXTURE_VDSO - 0x4000, 0, "r--p", "", VMA_ANON},
        {FIXTURE_VDSO - 0x4000, FIXTURE_VDSO, 0, "r--p", "[vvar]", VMA_KERNEL},
        {FIXTURE_VDSO, FIXTURE_VDSO + 0x1000, 0, "r-xp", "[vdso]", VMA_KERNEL},
    };
    uint8_t page[FIXTURE_PAGE] = {0};
    struct core core;
    begin();
    fixture_load(&fix, 0x400000, 0x1000, 0x1000, "r", page, fixture_exe(page));
    fixture_load(&fix, 0x50000000, 0x1000, 0, "rw", NULL, 0);
    fixture_load(&fix, 0x7ff000000000, 0x2000, 0, "rw", NULL, 0);
    fixture_load(&fix, FIXTURE_VDSO - 0x5000, 0x1000, 0x1000, "r", "relro", 5);
    fixture_load(&fix, FIXTURE_VDSO - 0x4000, 0x4000, 0x4000, "r", NULL, 0);
    fixture_load(&fix, FIXTURE_VDSO, 0x1000, 0, "rx", NULL, 0);
    fixture_thread(&fix, 8, 0, 0x50000100);
    fixture_thread(&fix, 7, 0, 0x7ff000001000);
    fixture_process(&fix, 7, "x", "x");
    fixture_files(&fix, fixture_sample_files, 1, 4096);
    fixture_note(&fix, "CORE", NT_AUXV, fixture_sample_auxv, 4 * 8); /* cut: no AT_NULL */
    ok(open_fixture(&core, NULL) == 0 && core.bad_notes == 1 && core.at_phdr, "it opens");
    CHECK_MAPS(&core, e, "special");
    core_close(&core);
}

static void test_gdb(void)
{
    static const struct fixture_file files[] = {{0x5000, 0x6000, 0x2000, "/bin/text"},
                                                {0x8000, 0x9000, 0x3000, "/bin/text"}};
    static const struct expected e[] = {
        {0x1000, 0x2000, 0, "r--p", "", VMA_ANON},
        {0x5000, 0x6000, 0x2000, "r-xp", "/bin/text", VMA_FILE},
        {0x8000, 0x9000, 0x3000, "rw-p", "/bin/text", VMA_FILE},
    };
    struct core core;
    for (int attached = 0; attached < 2; attached++) {
        begin();
        fixture_load(&fix, 0x8000, 0x1000, 0x1000, "rw", NULL, 0);
        fixture_load(&fix, 0x1000, 0x1000, 0x1000, "r", NULL, 0);
        fix.loads[0].p_align = fix.loads[1].p_align = 1;
        fixture_process(&fix, 9, "sixteen letters!", "x");
        fixture_thread(&fix, 9, attached ? 0 : SIGBUS, 0);
        fixture_siginfo(&fix, attached ? SIGSTOP : SIGBUS, attached ? SI_KERNEL : BUS_ADRERR, 0, 5);
        fixture_thread(&fix, 10, 0, 0);
        fixture_siginfo(&fix, SIGSTOP, SI_KERNEL, 0, 0);
        fixture_files(&fix, files, 2, 1);
        ok(open_fixture(&core, NULL) == 0 && core.writer == CORE_BY_GDB && core.n_threads == 2 &&
               same(core.comm, "sixteen letters!"),
           "gcore is known by its alignment");
        if (attached)
            ok(!core.signal.known && core.signal.number == 0, "its own SIGSTOP does not count");
        else
            ok(core.signal.known && core.signal.number == SIGBUS && core.signal.address == 5,
               "the first thread's signal counts");
        CHECK_MAPS(&core, e, "gcore");
        core_close(&core);
    }
}

/* ---- the notes of heapcensus core ---- */

static void test_facts(void)
{
    static const struct expected e[] = {
        {0x400000, 0x401000, 0, "r--p", "/usr/bin/python3", VMA_FILE},
        {0x1000000, 0x1003000, 0, "rw-p", "[heap]", VMA_HEAP},
        {0x7f0000001000, 0x7f0000003000, 0x3000, "rw-s", "/var/a\nb", VMA_FILE},
    };
    struct core core;
    begin_sample();
    fixture_sample_facts(&fix);
    if (!ok(open_fixture(&core, NULL) == 0 && core.bad_notes == 0, "a core of ours opens"))
        return;
    const struct core_facts *facts = &core.facts;
    ok(core.writer == CORE_BY_HEAPCENSUS && same(facts->taken_at, "2026-11-21T04:57:01Z") &&
           same(facts->host, "a%b%zz") && same(facts->exe, "/usr/bin/py=3") && !facts->started_at &&
           facts->paused_ns == 44300000 && facts->consistent,
       "facts");
    ok(same(core.threads[1].name, "main") && same(core.threads[0].name, "work\ner two"),
       "names of threads");
    ok(facts->has_runs && facts->n_runs == 3 && facts->runs[1].start == 0x1000000 &&
           facts->runs[1].end == 0x1002000,
       "runs of pages, adjacent ones merged");
    CHECK_MAPS(&core, e, "text");
    struct maps maps;
    maps_init(&maps);
    ok(core_maps_read(&core, &maps, NULL) == 0 && maps.has_smaps && maps.items[1].rss == 8192,
       "smaps");
    maps_release(&maps);
    core_close(&core);
}

static void test_bad_facts(void)
{
    static const uint64_t bad_runs[][4] = {{0x2000, 0x1000, 0x3000, 0x4000},
                                           {0x1000, 0x3000, 0x2000, 0x4000},
                                           {0x1000, 0x2001, 0x3000, 0x4000}};
    struct core core;
    struct maps maps;
    struct err err = ERR_INIT;
    for (size_t i = 0; i < 3; i++) {
        begin_sample();
        fixture_note(&fix, CORE_NOTE_OWNER, CORE_NOTE_PAGES, bad_runs[i], sizeof bad_runs[i]);
        ok(open_fixture(&core, NULL) == 0 && !core.facts.has_runs && core.bad_notes == 1,
           "bad runs of pages, %zu", i);
        core_close(&core);
    }
    begin_sample();
    fixture_text(&fix, CORE_NOTE_MAPS, "400000-401000 r--p 0 0:0 0 /x\nwhat?\n");
    maps_init(&maps);
    ok(open_fixture(&core, NULL) == 0 && core_maps_read(&core, &maps, &err) == 0 && maps.n == 17 &&
           err.code == 0,
       "a damaged text of maps: the segments tell");
    maps_release(&maps);
    core_close(&core);
    begin_sample();
    fixture_text(&fix, CORE_NOTE_MAPS, "400000-401000 r--p 0 0:0 0 /x\n");
    fixture_text(&fix, CORE_NOTE_SMAPS, "what?\n");
    ok(open_fixture(&core, NULL) == 0 && core_maps_read(&core, &maps, &err) == 0 && maps.n == 1 &&
           !maps.has_smaps && err.code == 0,
       "a damaged text of smaps leaves the mappings");
    maps_release(&maps);
    core_close(&core);
}

/* ---- damage ---- */

/* Wherever the file ends, either it does not open or it says that something is missing. */
static void test_cut(void)
{
    struct core core;
    struct maps maps;
    size_t refused = 0, lying = 0, opened = 0;
    begin_sample();
    fixture_sample_facts(&fix);
    fixture_finish(&fix);
    for (size_t len = 0; len < fix.len; len += len < 6000 ? 1 : 512) {
        if (open_bytes(len, &core, NULL) < 0) {
            refused++;
            lying += len >= fix.phdrs_at + 2 * sizeof(Elf64_Phdr);
            continue;
        }
        opened++;
        lying += !core.truncated || core.here_bytes >= core.dumped_bytes;
        lying += core.notes_cut != (len < fix.notes_at + fix.n_notes);
        maps_init(&maps);
        lying += core_maps_read(&core, &maps, NULL) < 0 || maps.n == 0;
        maps_release(&maps);
        core_close(&core);
    }
    ok(refused == fix.phdrs_at + 2 * sizeof(Elf64_Phdr) && opened > 5000,
       "cut within header or first program headers: refused (%zu, %zu opened)", refused, opened);
    ok(lying == 0, "cut elsewhere: opened, and known to be cut (%zu are not)", lying);
}

static void test_refused(void)
{
    static const struct {
        size_t at;
        uint8_t value;
        int code;
        const char *text;
    } bad[] = {
        {0, 'X', ERR_FORMAT, "no ELF file"},
        {EI_CLASS, ELFCLASS32, ERR_UNSUPPORTED, "32-bit"},
        {offsetof(Elf64_Ehdr, e_machine), EM_386, ERR_UNSUPPORTED, "another architecture"},
        {offsetof(Elf64_Ehdr, e_type), ET_EXEC, ERR_FORMAT, "an ELF executable, not a core"},
        {offsetof(Elf64_Ehdr, e_type), ET_DYN, ERR_FORMAT, "shared library, not a core"},
        {offsetof(Elf64_Ehdr, e_type), ET_REL, ERR_FORMAT, "object file, not a core"},
        {offsetof(Elf64_Ehdr, e_type), 99, ERR_FORMAT, "another kind, not a core"},
        {offsetof(Elf64_Ehdr, e_phentsize), 32, ERR_FORMAT, "program headers of 32 bytes"},
        {offsetof(Elf64_Ehdr, e_phnum), 0, ERR_FORMAT, "0 program headers"},
        {offsetof(Elf64_Ehdr, e_phnum), 1, ERR_FORMAT, "no segments"},
        {offsetof(Elf64_Ehdr, e_phoff) + 6, 0xff, ERR_FORMAT, "cut short within its program"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct core core;
        struct err err = ERR_INIT;
        begin_sample();
        fixture_finish(&fix);
        fix.bytes[bad[i].at] = bad[i].value;
        ok(open_bytes(fix.len, &core, &err) == bad[i].code && strstr(err.text, bad[i].text),
           "refused: %s", err.text);
    }
    struct core core;
    struct err err = ERR_INIT;
    ok(open_bytes(0, &core, &err) == ERR_FORMAT && strstr(err.text, "empty"), "%s", err.text);
    int pipes[2];
    if (ok(pipe(pipes) == 0, "a pipe")) {
        ok(core_open_fd(pipes[0], &core, &err) == ERR_FORMAT, "refused: %s", err.text);
        close(pipes[1]);
    }
}

static void test_segments(void)
{
    struct core core;
    begin();
    fixture_load(&fix, 0x5000, 0x1000, 0x2000, "rw", NULL, 0); /* p_filesz > p_memsz */
    fixture_load(&fix, 0x1000, 0x3000, 0x1000, "rw", NULL, 0);
    fixture_load(&fix, 0x3000, 0x2000, 0, "rw", NULL, 0);              /* overlaps */
    fixture_load(&fix, 0x8000, UINT64_MAX - 0x1fff, 0, "rw", NULL, 0); /* wraps */
    fixture_load(&fix, 0x9001, 0x1000, 0, "rw", NULL, 0);              /* not aligned */
    fixture_load(&fix, 0xa000, 0x10, 0, "rw", NULL, 0);                /* ends within a page */
    fixture_load(&fix, 0xb000, 0, 0, "rw", NULL, 0);                   /* empty */
    fixture_load(&fix, 0xc000, 0x1000, 0x1000, "rw", NULL, 0);
    fix.loads[7].p_offset = UINT64_MAX - 0xfffff; /* far behind any file */
    ok(open_fixture(&core, NULL) == 0 && core.n_segments == 3 && core.dropped == 5,
       "segments that cannot be are dropped (%zu)", core.dropped);
    ok(core.segments[0].start == 0x1000 && core.segments[1].start == 0x5000 &&
           core.segments[1].dumped == 0x1000 && core.segments[2].here == 0 &&
           core.segments[2].dumped == 0x1000 && core.truncated && core.dumped_bytes == 0x3000 &&
           core.here_bytes == 0x2000,
       "the others are sorted and clamped");
    core_close(&core);
}

/* 65535 program headers and more: their number is in section header 0. */
static void test_many_segments(void)
{
    enum { SEGMENTS = 70000 };
    size_t sections = sizeof(Elf64_Ehdr) + (SEGMENTS + 1) * sizeof(Elf64_Phdr);
    size_t len = sections + sizeof(Elf64_Shdr);
    uint8_t *bytes = calloc(1, len);
    struct core core;
    begin();
    fixture_load(&fix, 0x1000, 0x1000, 0, "rw", NULL, 0);
    fixture_finish(&fix);
    Elf64_Ehdr *eh = (Elf64_Ehdr *)bytes;
    if (!ok(bytes != NULL, "room for %d segments", SEGMENTS))
        return;
    memcpy(eh, fix.bytes, sizeof *eh);
    eh->e_phnum = PN_XNUM;
    eh->e_shoff = sections;
    ((Elf64_Shdr *)(bytes + sections))->sh_info = SEGMENTS + 1;
    Elf64_Phdr *ph = (Elf64_Phdr *)(eh + 1);
    ph[0] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = sections};
    for (size_t i = 1; i <= SEGMENTS; i++)
        ph[i] = (Elf64_Phdr){
            .p_type = PT_LOAD, .p_vaddr = i << 13, .p_memsz = 0x1000, .p_align = 0x1000};
    ok(core_open_fd(fixture_fd(bytes, len), &core, NULL) == 0 && core.n_segments == SEGMENTS &&
           !core.truncated,
       "all segments of section header 0");
    core_close(&core);
    ok(core_open_fd(fixture_fd(bytes, sections), &core, NULL) == 0 && core.n_segments == SEGMENTS &&
           core.truncated,
       "... which is cut off: the place of the notes tells");
    core_close(&core);
    ((Elf64_Shdr *)(bytes + sections))->sh_info = UINT32_MAX;
    struct err err = ERR_INIT;
    ok(core_open_fd(fixture_fd(bytes, len), &core, &err) == ERR_FORMAT && err.text[0],
       "hostile: %s", err.text);
    free(bytes);
}

/* ---- hostile notes ---- */

/* The notes of the fixture with one word changed; what the parser says of them. */
static void parse_notes(struct core *core, size_t at, uint32_t value)
{
    static uint8_t notes[FIXTURE_BYTES];
    memset(core, 0, sizeof *core);
    strpool_init(&core->names);
    memcpy(notes, fix.notes, fix.n_notes);
    memcpy(notes + at, &value, sizeof value);
    uint8_t *exact = malloc(fix.n_notes); /* so that the sanitizer sees its end */
    if (!exact)
        abort();
    memcpy(exact, notes, fix.n_notes);
    ok(core_notes_parse(core, exact, fix.n_notes, NULL) == 0, "notes with word %zu changed", at);
    free(exact);
}

static void test_note_heads(void)
{
    struct core core;
    begin();
    fixture_thread(&fix, 5, 0, 0);
    size_t second = fix.n_notes;
    fixture_thread(&fix, 6, 0, 0);
    parse_notes(&core, second, 5);
    ok(core.n_threads == 2 && !core.notes_cut, "untouched");
    core_close(&core);
    parse_notes(&core, second, UINT32_MAX);
    ok(core.n_threads == 1 && core.notes_cut, "a name of 4 GiB");
    core_close(&core);
    parse_notes(&core, second + 4, UINT32_MAX);
    ok(core.n_threads == 1 && core.notes_cut, "a content of 4 GiB");
    core_close(&core);
    parse_notes(&core, second + 4, 100);
    ok(core.n_threads == 1 && core.bad_notes == 1, "a thread's state that is too short");
    core_close(&core);
    parse_notes(&core, second + 12, 0);
    ok(core.n_threads == 1 && core.bad_notes == 0, "another owner");
    core_close(&core);
    parse_notes(&core, second + 20 + offsetof(struct elf_prstatus, pr_pid), 0);
    ok(core.n_threads == 1 && core.bad_notes == 1, "a thread without number");
    core_close(&core);
}

/* NT_FILE with another count or unit, or fewer bytes. */
static size_t files_left(uint64_t count, uint64_t unit, size_t cut, size_t *bad)
{
    uint8_t desc[4096];
    struct core core;
    begin();
    size_t len = fixture_files_desc(fixture_sample_files, FIXTURE_FILES, unit, desc);
    memcpy(desc, &count, sizeof count);
    fixture_note(&fix, "CORE", NT_FILE, desc, len - cut);
    parse_notes(&core, 0, 5);
    size_t n = core.n_files;
    *bad = core.bad_notes;
    core_close(&core);
    return n;
}

static void test_files(void)
{
    size_t bad;
    ok(files_left(FIXTURE_FILES, 1, 0, &bad) == FIXTURE_FILES && bad == 0, "all files");
    ok(files_left(FIXTURE_FILES, 1, 1, &bad) == FIXTURE_FILES - 1 && bad == 1, "a name is cut");
    ok(files_left(FIXTURE_FILES, 1, 14, &bad) == FIXTURE_FILES - 2 && bad == 1, "two are cut");
    ok(files_left(FIXTURE_FILES, UINT64_MAX / 2, 0, &bad) == 5 && bad == 1, "offsets overflow");
    ok(files_left(FIXTURE_FILES, 0, 0, &bad) == FIXTURE_FILES && bad == 0, "a unit of 0");
    ok(files_left(UINT64_MAX, 1, 0, &bad) == 0 && bad == 1, "endless files");
    ok(files_left(1000, 1, 0, &bad) == 0 && bad == 1, "more files than fit");
    ok(files_left(0, 1, 0, &bad) == 0 && bad == 0, "no files");
    static const struct fixture_file odd[] = {{0x1000, 0x3000, 0, "/a"},
                                              {0x2000, 0x4000, 0, "/overlaps"},
                                              {0x5000, 0x5000, 0, "/empty"},
                                              {0x6001, 0x7000, 0, "/unaligned"}};
    struct core core;
    begin();
    fixture_files(&fix, odd, 4, 1);
    parse_notes(&core, 0, 5);
    ok(core.n_files == 1 && core.bad_notes == 2 && same(core.files[0].path, "/a"),
       "entries that cannot be");
    core_close(&core);
}

/* An entry of NT_FILE over two segments and beyond, and a segment over two entries. */
static void test_crossed(void)
{
    static const struct fixture_file files[] = {
        {0x2000, 0x6000, 0, "/a"}, {0x8000, 0x9000, 0, "/b"}, {0x9000, 0xa000, 7, "/c"}};
    static const struct expected e[] = {
        {0x1000, 0x2000, 0, "rw-p", "", VMA_ANON},
        {0x2000, 0x3000, 0, "rw-p", "/a", VMA_FILE},
        {0x3000, 0x4000, 0x1000, "r--p", "/a", VMA_FILE},
        {0x4000, 0x6000, 0x2000, "r-xp", "/a", VMA_FILE},
        {0x8000, 0x9000, 0, "rw-p", "/b", VMA_FILE},
        {0x9000, 0xa000, 0x7000, "rw-p", "/c", VMA_FILE},
        {0xa000, 0xb000, 0, "rw-p", "", VMA_ANON},
    };
    struct core core;
    begin();
    fixture_load(&fix, 0x1000, 0x2000, 0, "rw", NULL, 0);
    fixture_load(&fix, 0x3000, 0x1000, 0, "r", NULL, 0);
    fixture_load(&fix, 0x8000, 0x3000, 0, "rw", NULL, 0);
    fixture_files(&fix, files, 3, 4096);
    ok(open_fixture(&core, NULL) == 0, "it opens");
    CHECK_MAPS(&core, e, "crossed");
    core_close(&core);
}

/* ---- signals ---- */

static void test_signals(void)
{
    static const struct {
        int number, code;
        const char *name, *reason;
    } rows[] = {
        {SIGSEGV, SEGV_MAPERR, "SIGSEGV", "address not mapped"},
        {SIGSEGV, SEGV_ACCERR, "SIGSEGV", "no permission for that access"},
        {SIGBUS, BUS_ADRERR, "SIGBUS", "beyond the end of a mapped file"},
        {SIGFPE, FPE_INTDIV, "SIGFPE", "integer division by zero"},
        {SIGILL, ILL_ILLOPC, "SIGILL", "illegal opcode"},
        {SIGQUIT, SI_USER, "SIGQUIT", "sent by kill"},
        {SIGABRT, SI_TKILL, "SIGABRT", "sent by tgkill, as abort does to its own process"},
        {SIGTERM, SI_TKILL, "SIGTERM", "sent by tgkill, as raise does"},
        {SIGXCPU, SI_KERNEL, "SIGXCPU", "sent by the kernel"},
        {SIGSYS, 1, "SIGSYS", "a system call that a seccomp filter forbids"},
        {SIGSEGV, 77, "SIGSEGV", ""},
        {77, SI_QUEUE, "signal 77", "sent by sigqueue"},
        {0, 1, "signal 0", ""},
        {-5, 1, "signal -5", ""},
    };
    char buf[32];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct core_signal sig = {.known = true, .number = rows[i].number, .code = rows[i].code};
        const char *name = core_signal_name(rows[i].number, buf, sizeof buf);
        ok(same(name, rows[i].name) && same(core_signal_reason(&sig), rows[i].reason),
           "%s, code %d: %s", name, rows[i].code, core_signal_reason(&sig));
    }
    struct core_signal none = {.known = false};
    ok(same(core_signal_reason(&none), ""), "no signal, no reason");
}

static void test_signal_notes(void)
{
    static const struct {
        int number, code, pid, sender;
        uint64_t address;
    } rows[] = {
        {SIGSEGV, SEGV_ACCERR, 0, 0, 0x5000},
        {SIGSEGV, SI_USER, 44, 44, 0},
        {SIGABRT, SI_TKILL, 45, 45, 0},
        {SIGUSR1, SI_QUEUE, 46, 46, 0},
        {SIGCHLD, 1, 47, 0, 0},
        {SIGALRM, SI_TIMER, 48, 0, 0},
    };
    struct core core;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        begin();
        fixture_load(&fix, 0x1000, 0x1000, 0, "rw", NULL, 0);
        fixture_thread(&fix, 3, SIGHUP, 0);
        fixture_siginfo(&fix, rows[i].number, rows[i].code, rows[i].pid, rows[i].address);
        ok(open_fixture(&core, NULL) == 0 && core.signal.number == rows[i].number &&
               core.signal.sender_pid == rows[i].sender && core.signal.address == rows[i].address &&
               core.signal.sender_uid == (rows[i].sender ? 1000 : 0),
           "signal %d, code %d: its sender and address", rows[i].number, rows[i].code);
        core_close(&core);
    }
    begin();
    fixture_load(&fix, 0x1000, 0x1000, 0, "rw", NULL, 0);
    fixture_thread(&fix, 3, 0, 0);
    fixture_thread(&fix, 4, SIGQUIT, 0);
    ok(open_fixture(&core, NULL) == 0 && core.signal.known && core.signal.number == SIGQUIT &&
           same(core_signal_reason(&core.signal), "") && !core.has_process && core.pid == 3,
       "without NT_SIGINFO a thread tells the signal, and nobody claims a cause");
    core_close(&core);
}

/* ---- files and failures ---- */

static char folder[] = "/tmp/test_core.XXXXXX";

static const char *path_of(const char *name)
{
    static char path[sizeof folder + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, size_t len)
{
    FILE *f = fopen(path_of(name), "wb");
    ok(f && fwrite(fix.bytes, 1, len, f) == len && fclose(f) == 0, "%s is written", name);
}

static void write_gzip(const char *name, size_t len)
{
    gzFile gz = gzopen(path_of(name), "wb1");
    ok(gz && gzwrite(gz, fix.bytes, (unsigned)len) == (int)len && gzclose(gz) == Z_OK,
       "%s is written", name);
}

static void refuses(const char *name, int code, const char *text)
{
    struct core core;
    struct err err = ERR_INIT;
    ok(core_open(path_of(name), NULL, &core, &err) == code && strstr(err.text, text), "%s: %s",
       name, err.text);
}

static void test_paths(void)
{
    struct core core;
    struct err err = ERR_INIT;
    if (!ok(mkdtemp(folder) != NULL, "a folder"))
        return;
    begin_sample();
    fixture_finish(&fix);
    write_file("core", fix.len);
    write_gzip("core.gz", fix.len);
    ok(core_open(path_of("core"), NULL, &core, &err) == 0 && !core.packed, "%s", err.text);
    core_close(&core);
    ok(core_open(path_of("core.gz"), NULL, &core, &err) == 0 && same(core.packed, "gzip") &&
           core.n_segments == 17 && core.here_bytes == core.dumped_bytes && core.size == fix.len,
       "decompressed (%s)", err.text);
    core_close(&core);
    fix.bytes[offsetof(Elf64_Ehdr, e_type)] = ET_EXEC;
    write_file("exe", fix.len);
    write_gzip("exe.gz", fix.len);
    write_file("nothing", 0);
    ok(core_looks_like_one(path_of("core")) && core_looks_like_one(path_of("core.gz")) &&
           core_looks_like_one(path_of("exe")) && core_looks_like_one(path_of("exe.gz")),
       "ELF files look like cores");
    ok(!core_looks_like_one(path_of("nothing")) && !core_looks_like_one(folder) &&
           !core_looks_like_one(path_of("missing")),
       "others do not");
    refuses("exe", ERR_FORMAT, "an ELF executable, not a core");
    refuses("exe.gz", ERR_FORMAT, "an ELF executable, not a core");
    refuses("nothing", ERR_FORMAT, "empty");
    refuses("missing", ERR_NOT_FOUND, "there is no file");
    refuses(".", ERR_FORMAT, "not a regular file");
    static const char *const names[] = {"core", "core.gz", "exe", "exe.gz", "nothing"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(path_of(names[i]));
    rmdir(folder);
}

static int calls_left;

static ssize_t failing_pread(int fd, void *buf, size_t len, off_t at)
{
    if (calls_left-- == 0) {
        errno = EIO;
        return -1;
    }
    return pread(fd, buf, len, at);
}

/* Now and then a signal, and never more than 100 bytes at once. */
static ssize_t grudging_pread(int fd, void *buf, size_t len, off_t at)
{
    if (calls_left++ % 3 == 0) {
        errno = EINTR;
        return -1;
    }
    return pread(fd, buf, len < 100 ? len : 100, at);
}

static void test_failing_reads(void)
{
    struct core core;
    struct err err = ERR_INIT;
    int rc = ERR_OS;
    begin_sample();
    fixture_finish(&fix);
    sys_calls.pread = failing_pread;
    for (int i = 0; i < 50 && rc < 0; i++) {
        calls_left = i;
        err_clear(&err);
        rc = open_bytes(fix.len, &core, &err);
        ok(rc == 0 ? i >= 3 : rc == ERR_OS && err.os_errno == EIO, "read %d fails: %d", i, rc);
    }
    ok(rc == 0, "at last it opens");
    if (rc == 0)
        core_close(&core);
    calls_left = 0;
    sys_calls.pread = grudging_pread;
    ok(open_bytes(fix.len, &core, &err) == 0 && core.n_threads == 2 && core.n_segments == 17 &&
           !core.notes_cut && !core.truncated,
       "short and interrupted reads change nothing");
    core_close(&core);
    sys_calls.pread = sys_calls_real.pread;
}

int main(void)
{
    test_sample();
    test_maps_of_kernel();
    test_heap();
    test_special();
    test_gdb();
    test_facts();
    test_bad_facts();
    test_cut();
    test_refused();
    test_segments();
    test_many_segments();
    test_note_heads();
    test_files();
    test_crossed();
    test_signals();
    test_signal_notes();
    test_paths();
    test_failing_reads();
    return done_testing();
}
