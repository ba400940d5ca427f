#include <elf.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procfs.h>
#include <sys/user.h>

#include "formats/base/addrset.h"
#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/core.h"
#include "inspector/target/core_note.h"

enum { NOTE_ALIGN = 4, PAGE_BYTES = 4096, AUXV_ENTRY = 16, FILE_HEAD = 16, FILE_ENTRY = 24 };

/* One note's content. The bytes are unaligned for what is in them: load, never cast. */
struct desc {
    const uint8_t *bytes;
    size_t len;
    bool cut; /* the notes end within it */
};

static int nomem(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for the notes of a core");
}

/* The readers of notes return 0, ERR_NOMEM, or ERR_FORMAT for a note that makes no sense. */

/* ---- what the kernel and gdb write ---- */

static int read_prstatus(struct core *core, const struct desc *d, struct err *err)
{
    const uint8_t *regs = d->bytes + offsetof(struct elf_prstatus, pr_reg);
    if (d->len < offsetof(struct elf_prstatus, pr_reg) + sizeof(struct user_regs_struct))
        return ERR_FORMAT; /* of a 32-bit process, or garbage */
    int tid = (int)load_u32(d->bytes + offsetof(struct elf_prstatus, pr_pid));
    if (tid <= 0)
        return ERR_FORMAT;
    if (vec_reserve(&core->threads, &core->cap_threads, core->n_threads + 1,
                    sizeof *core->threads) < 0)
        return nomem(err);
    core->threads[core->n_threads++] = (struct core_thread){
        .tid = tid,
        .signal = (int16_t)load_u16(d->bytes + offsetof(struct elf_prstatus, pr_cursig)),
        .fs_base = load_u64(regs + offsetof(struct user_regs_struct, fs_base)),
        .rsp = load_u64(regs + offsetof(struct user_regs_struct, rsp)),
        .rip = load_u64(regs + offsetof(struct user_regs_struct, rip)),
    };
    return 0;
}

/* Up to `len` bytes of text that may lack its NUL. */
static void copy_text(char *to, const uint8_t *from, size_t len)
{
    len = strnlen((const char *)from, len);
    memcpy(to, from, len);
    to[len] = '\0';
}

static int read_prpsinfo(struct core *core, const struct desc *d, struct err *err)
{
    (void)err;
    if (d->len < sizeof(struct elf_prpsinfo) || core->has_process)
        return ERR_FORMAT;
    int pid = (int)load_u32(d->bytes + offsetof(struct elf_prpsinfo, pr_pid));
    if (pid <= 0)
        return ERR_FORMAT;
    core->has_process = true;
    core->pid = pid;
    core->ppid = (int)load_u32(d->bytes + offsetof(struct elf_prpsinfo, pr_ppid));
    core->uid = load_u32(d->bytes + offsetof(struct elf_prpsinfo, pr_uid));
    core->gid = load_u32(d->bytes + offsetof(struct elf_prpsinfo, pr_gid));
    copy_text(core->comm, d->bytes + offsetof(struct elf_prpsinfo, pr_fname), 16);
    copy_text(core->args, d->bytes + offsetof(struct elf_prpsinfo, pr_psargs), 80);
    /* The kernel writes a blank for each NUL, also for the last. */
    for (size_t n = strlen(core->args); n && core->args[n - 1] == ' '; n--)
        core->args[n - 1] = '\0';
    return 0;
}

static bool has_address(int number)
{
    return number == SIGSEGV || number == SIGBUS || number == SIGILL || number == SIGFPE ||
           number == SIGTRAP;
}

/* gcore writes one for each thread: the first thread's comes first and counts. */
static int read_siginfo(struct core *core, const struct desc *d, struct err *err)
{
    (void)err;
    if (d->len < offsetof(siginfo_t, si_addr) + 8)
        return ERR_FORMAT;
    struct core_signal sig = {
        .known = true,
        .number = (int)load_u32(d->bytes + offsetof(siginfo_t, si_signo)),
        .code = (int)load_u32(d->bytes + offsetof(siginfo_t, si_code)),
    };
    if (core->signal.known || sig.number == 0)
        return 0;
    if (sig.number < 0)
        return ERR_FORMAT;
    if (sig.code == SI_USER || sig.code == SI_TKILL || sig.code == SI_QUEUE) {
        sig.sender_pid = (int)load_u32(d->bytes + offsetof(siginfo_t, si_pid));
        sig.sender_uid = load_u32(d->bytes + offsetof(siginfo_t, si_uid));
    } else if (sig.code > 0 && has_address(sig.number)) {
        sig.address = load_u64(d->bytes + offsetof(siginfo_t, si_addr));
    }
    core->signal = sig;
    return 0;
}

static uint64_t *auxv_member(struct core *core, uint64_t type)
{
    switch (type) {
    case AT_PHDR:
        return &core->at_phdr;
    case AT_ENTRY:
        return &core->at_entry;
    case AT_BASE:
        return &core->at_base;
    case AT_SYSINFO_EHDR:
        return &core->at_sysinfo_ehdr;
    case AT_RANDOM:
        return &core->at_random;
    case AT_EXECFN:
        return &core->at_execfn;
    default:
        return NULL;
    }
}

static int read_auxv(struct core *core, const struct desc *d, struct err *err)
{
    (void)err;
    for (size_t at = 0; d->len - at >= AUXV_ENTRY; at += AUXV_ENTRY) {
        uint64_t type = load_u64(d->bytes + at);
        uint64_t *member = auxv_member(core, type);
        if (type == AT_NULL)
            return 0;
        if (member)
            *member = load_u64(d->bytes + at + 8);
    }
    return d->cut ? 0 : ERR_FORMAT;
}

/* ---- NT_FILE ---- */

/* ERR_FORMAT for an entry that cannot be. `unit`: bytes that an offset counts in, which is the page
 * size with the kernel and 1 with gdb. */
static int add_file(struct core *core, const uint8_t *entry, uint64_t unit, const char *path,
                    struct err *err)
{
    struct core_file file = {.start = load_u64(entry), .end = load_u64(entry + 8)};
    if (file.start >= file.end || file.start % PAGE_BYTES || file.end % PAGE_BYTES ||
        mul_overflows(load_u64(entry + 16), unit, &file.offset))
        return ERR_FORMAT;
    file.path = strpool_add(&core->names, path);
    if (!file.path ||
        vec_reserve(&core->files, &core->cap_files, core->n_files + 1, sizeof *core->files) < 0)
        return nomem(err);
    core->files[core->n_files++] = file;
    return 0;
}

/* Count, unit, count entries of start, end and offset, then as many strings. What is whole counts,
 * also where the note was cut. */
static int read_file(struct core *core, const struct desc *d, struct err *err)
{
    if (d->len < FILE_HEAD)
        return ERR_FORMAT;
    uint64_t count = load_u64(d->bytes), unit = load_u64(d->bytes + 8);
    if (count > (d->len - FILE_HEAD) / FILE_ENTRY)
        return ERR_FORMAT; /* no string is there */
    const uint8_t *entry = d->bytes + FILE_HEAD, *end = d->bytes + d->len;
    const uint8_t *path = entry + count * FILE_ENTRY;
    int bad = 0;
    for (; count; count--, entry += FILE_ENTRY) {
        const uint8_t *nul = memchr(path, '\0', (size_t)(end - path));
        if (!nul)
            return ERR_FORMAT;
        int rc = add_file(core, entry, unit, (const char *)path, err);
        if (rc == ERR_NOMEM)
            return rc;
        bad |= rc;
        path = nul + 1;
    }
    return bad ? ERR_FORMAT : 0;
}

static int by_start(const void *a, const void *b)
{
    const struct core_file *x = a, *y = b;
    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Sorted and disjoint; entries that overlap another contradict it, which makes a bad note. */
static void settle_files(struct core *core)
{
    size_t kept = 0;
    if (core->n_files)
        qsort(core->files, core->n_files, sizeof *core->files, by_start);
    for (size_t i = 0; i < core->n_files; i++)
        if (kept == 0 || core->files[i].start >= core->files[kept - 1].end)
            core->files[kept++] = core->files[i];
    core->bad_notes += kept < core->n_files;
    core->n_files = kept;
}

/* ---- what heapcensus core writes ---- */

static int keep_text(struct core *core, const struct desc *d, const char **text, size_t *len,
                     struct err *err)
{
    if (*text || d->len == 0)
        return ERR_FORMAT;
    *text = strpool_add_n(&core->names, (const char *)d->bytes, d->len);
    if (!*text)
        return nomem(err);
    *len = strlen(*text);
    return 0;
}

static int read_maps(struct core *core, const struct desc *d, struct err *err)
{
    return keep_text(core, d, &core->facts.maps, &core->facts.maps_len, err);
}

static int read_smaps(struct core *core, const struct desc *d, struct err *err)
{
    return keep_text(core, d, &core->facts.smaps, &core->facts.smaps_len, err);
}

static bool valid_runs(const uint8_t *bytes, size_t n)
{
    uint64_t low = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t start = load_u64(bytes + 16 * i), end = load_u64(bytes + 16 * i + 8);
        if (start >= end || start % PAGE_BYTES || end % PAGE_BYTES || start < low)
            return false;
        low = end;
    }
    return true;
}

static int read_pages(struct core *core, const struct desc *d, struct err *err)
{
    struct core_facts *facts = &core->facts;
    size_t n = d->len / 16;
    if (facts->has_runs || d->len % 16 || !valid_runs(d->bytes, n))
        return ERR_FORMAT;
    struct page_run *runs = malloc((n ? n : 1) * sizeof *runs);
    if (!runs)
        return nomem(err);
    for (size_t i = 0; i < n; i++) {
        struct page_run run = {load_u64(d->bytes + 16 * i), load_u64(d->bytes + 16 * i + 8)};
        if (facts->n_runs && runs[facts->n_runs - 1].end == run.start)
            runs[facts->n_runs - 1].end = run.end; /* adjacent runs are one to everybody else */
        else
            runs[facts->n_runs++] = run;
    }
    facts->runs = runs;
    facts->has_runs = true;
    return 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* text[0..len) with each %XX as its byte, in place; what is no %XX stays. Returns the length. */
static size_t decode(char *text, size_t len)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        bool coded = text[i] == '%' && len - i > 2 && hex_digit(text[i + 1]) >= 0 &&
                     hex_digit(text[i + 2]) >= 0;
        text[n++] = coded ? (char)(hex_digit(text[i + 1]) << 4 | hex_digit(text[i + 2])) : text[i];
        i += coded ? 2 : 0;
    }
    return n;
}

/* Calls `line` with each line of the note: key and value, which are split at the first `at`. */
static int each_line(struct core *core, const struct desc *d, char at,
                     int (*line)(struct core *core, const char *key, const char *value, void *arg),
                     void *arg, struct err *err)
{
    int rc = 0;
    char *text = malloc(d->len + 1);
    if (!text)
        return nomem(err);
    memcpy(text, d->bytes, d->len);
    text[d->len] = '\0';
    for (char *p = text, *end = text + d->len; p < end && rc == 0;) {
        char *nl = memchr(p, '\n', (size_t)(end - p));
        char *stop = nl ? nl : end;
        char *split = memchr(p, at, (size_t)(stop - p));
        *stop = '\0';
        if (split) {
            *split = '\0';
            split[1 + decode(split + 1, (size_t)(stop - split - 1))] = '\0';
            rc = line(core, p, split + 1, arg);
        }
        p = stop + 1;
    }
    free(text);
    return rc < 0 ? nomem(err) : 0;
}

static int take_fact(struct core *core, const char *key, const char *value, void *arg)
{
    (void)arg;
    struct core_facts *facts = &core->facts;
    const struct {
        const char *key;
        const char **to;
    } texts[] = {
        {"taken_at", &facts->taken_at},
        {"started_at", &facts->started_at},
        {"host", &facts->host},
        {"exe", &facts->exe},
        {"exe_build_id", &facts->exe_build_id},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(key, texts[i].key) != 0)
            continue;
        *texts[i].to = strpool_add(&core->names, value);
        return *texts[i].to ? 0 : ERR_NOMEM;
    }
    if (strcmp(key, "paused_ns") == 0)
        facts->paused_ns = strtoull(value, NULL, 10);
    if (strcmp(key, "consistent") == 0)
        facts->consistent = strcmp(value, "1") == 0;
    return 0;
}

static int read_facts(struct core *core, const struct desc *d, struct err *err)
{
    return each_line(core, d, '=', take_fact, NULL, err);
}

static int take_thread_name(struct core *core, const char *key, const char *value, void *arg)
{
    char *rest;
    long tid = strtol(key, &rest, 10);
    uint64_t *index = tid > 0 && *rest == '\0' ? addrset_find(arg, (uint64_t)tid) : NULL;
    if (!index)
        return 0;
    const char *name = strpool_add(&core->names, value);
    core->threads[*index].name = name;
    return name ? 0 : ERR_NOMEM;
}

static int read_threads(struct core *core, const struct desc *d, struct err *err)
{
    struct addrset by_tid;
    int rc = 0;
    addrset_init(&by_tid);
    for (size_t i = 0; i < core->n_threads && rc == 0; i++)
        rc = addrset_add(&by_tid, (uint64_t)core->threads[i].tid, i, NULL);
    rc = rc < 0 ? nomem(err) : each_line(core, d, ' ', take_thread_name, &by_tid, err);
    addrset_release(&by_tid);
    return rc;
}

/* ---- the notes of one segment ---- */

static const struct {
    const char *owner;
    uint32_t type;
    bool late; /* needs what other notes tell */
    bool also_cut;
    int (*read)(struct core *core, const struct desc *d, struct err *err);
} readers[] = {
    {"CORE", NT_PRSTATUS, false, false, read_prstatus},
    {"CORE", NT_PRPSINFO, false, false, read_prpsinfo},
    {"CORE", NT_SIGINFO, false, false, read_siginfo},
    {"CORE", NT_AUXV, false, true, read_auxv},
    {"CORE", NT_FILE, false, true, read_file},
    {CORE_NOTE_OWNER, CORE_NOTE_MAPS, false, false, read_maps},
    {CORE_NOTE_OWNER, CORE_NOTE_SMAPS, false, false, read_smaps},
    {CORE_NOTE_OWNER, CORE_NOTE_PAGES, false, false, read_pages},
    {CORE_NOTE_OWNER, CORE_NOTE_FACTS, false, false, read_facts},
    {CORE_NOTE_OWNER, CORE_NOTE_THREADS, true, false, read_threads},
};

/* A note's owner may or may not be counted with its NUL. */
static bool owned_by(const uint8_t *name, size_t len, const char *owner)
{
    size_t n = strnlen((const char *)name, len);
    return n == strlen(owner) && memcmp(name, owner, n) == 0;
}

static int read_note(struct core *core, const uint8_t *name, size_t namesz, uint32_t type,
                     const struct desc *d, bool late, struct err *err)
{
    if (owned_by(name, namesz, CORE_NOTE_OWNER))
        core->writer = CORE_BY_HEAPCENSUS;
    else if (owned_by(name, namesz, "GDB") && core->writer == CORE_BY_KERNEL)
        core->writer = CORE_BY_GDB;
    for (size_t i = 0; i < sizeof readers / sizeof readers[0]; i++) {
        if (readers[i].type != type || readers[i].late != late ||
            !owned_by(name, namesz, readers[i].owner) || (d->cut && !readers[i].also_cut))
            continue;
        int rc = readers[i].read(core, d, err);
        if (rc == ERR_FORMAT)
            core->bad_notes++;
        return rc == ERR_FORMAT ? 0 : rc;
    }
    return 0;
}

static int read_notes(struct core *core, const uint8_t *notes, size_t len, bool late,
                      struct err *err)
{
    size_t at = 0;
    int rc = 0;
    while (at < len && len - at >= sizeof(Elf64_Nhdr) && rc == 0) {
        uint32_t namesz = load_u32(notes + at), descsz = load_u32(notes + at + 4);
        uint32_t type = load_u32(notes + at + 8);
        const uint8_t *name = notes + at + sizeof(Elf64_Nhdr);
        uint64_t start = at + sizeof(Elf64_Nhdr) + round_up(namesz, NOTE_ALIGN);
        uint64_t end = start + descsz; /* 33 bits each at most: no overflow */
        if (end > len)
            core->notes_cut = true;
        if (start > len)
            break;
        struct desc d = {notes + start, (size_t)min_u64(descsz, len - start), end > len};
        rc = read_note(core, name, namesz, type, &d, late, err);
        at = (size_t)round_up(end, NOTE_ALIGN);
    }
    return rc;
}

int core_notes_parse(struct core *core, const uint8_t *notes, size_t len, struct err *err)
{
    int rc = read_notes(core, notes, len, false, err);
    if (rc == 0)
        rc = read_notes(core, notes, len, true, err);
    settle_files(core);
    return rc;
}
