#include "inspector/target/core.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/sys.h"
#include "inspector/target/unpack.h"

enum {
    PAGE_BYTES = 4096,
    HEAD_BYTES = 4096,          /* looked at to tell what a file is */
    HEADERS_BATCH = 512,        /* program headers read at once */
    MAX_NOTE_SEGMENTS = 64,     /* every writer makes one */
    MAX_HEADERS = 4 << 20,      /* vm.max_map_count is 65530 unless somebody raised it */
    MAX_NOTE_BYTES = 256 << 20, /* 60,000 threads with AVX-512 registers fit */
    /* si_code of a signal without NT_SIGINFO: SI_NOINFO of other systems. 0 would claim kill. */
    CODE_UNTOLD = CORE_CODE_UNKNOWN
};

/* A PT_NOTE, as its program header says. */
struct note_range {
    uint64_t offset, size;
};

struct note_ranges {
    struct note_range *items;
    size_t n, cap;
};

/* As many bytes as there are of [offset, offset + len): fewer only at the end of the file. */
static int read_at(const struct core *core, uint64_t offset, void *buf, size_t len, size_t *ret,
                   struct err *err)
{
    size_t got = 0;
    while (got < len && offset + got < core->size) {
        ssize_t n = sys_calls.pread(core->fd, (uint8_t *)buf + got, len - got,
                                    (off_t)(offset + got)); /* < size, so it is no overflow */
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_os(err, errno, "cannot read the core");
        if (n == 0)
            break; /* it became shorter */
        got += (size_t)n;
    }
    *ret = got;
    return 0;
}

/* ---- what kind of file it is ---- */

static const char *type_name(unsigned type)
{
    switch (type) {
    case ET_EXEC:
        return "an ELF executable";
    case ET_DYN:
        return "an ELF executable or shared library";
    case ET_REL:
        return "an ELF object file";
    default:
        return "an ELF file of another kind";
    }
}

/* ERR_FORMAT for what is no core, ERR_UNSUPPORTED for a core that is not of x86-64. */
static int check_header(const uint8_t *head, size_t len, struct err *err)
{
    if (len == 0)
        return err_set(err, ERR_FORMAT, "the file is empty");
    if (len < SELFMAG || memcmp(head, ELFMAG, SELFMAG) != 0)
        return err_set(err, ERR_FORMAT, "no ELF file, so not a core");
    if (len < sizeof(Elf64_Ehdr))
        return err_set(err, ERR_FORMAT, "the file is cut short within its ELF header");
    const Elf64_Ehdr *eh = (const Elf64_Ehdr *)head; /* the caller's buffer is aligned */
    bool big = eh->e_ident[EI_DATA] == ELFDATA2MSB;
    unsigned type = big ? __builtin_bswap16(eh->e_type) : eh->e_type;
    if (type != ET_CORE)
        return err_set(err, ERR_FORMAT, "%s, not a core", type_name(type));
    if (eh->e_ident[EI_CLASS] != ELFCLASS64)
        return err_set(err, ERR_UNSUPPORTED, "a core of a 32-bit process; only x86-64 is read");
    if (big || eh->e_machine != EM_X86_64)
        return err_set(err, ERR_UNSUPPORTED,
                       "a core of another architecture (ELF machine %u); only x86-64 is read",
                       big ? __builtin_bswap16(eh->e_machine) : eh->e_machine);
    return 0;
}

/* The first bytes of a file as far as one pread gives them, decompressed where that is needed. */
static size_t read_head(int fd, uint8_t *buf, size_t cap, const char **packed)
{
    ssize_t n = sys_calls.pread(fd, buf, cap, 0);
    *packed = n > 0 ? unpack_name(buf, (size_t)n) : NULL;
    if (*packed)
        return lseek(fd, 0, SEEK_SET) == 0 ? unpack_head(fd, buf, cap) : 0;
    return n > 0 ? (size_t)n : 0;
}

/* A regular file's descriptor. O_NONBLOCK: opening a FIFO must not hang. */
static int open_regular(const char *path, int *ret, struct err *err)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_set(err, ERR_NOT_FOUND, "there is no file %s", path);
    if (fd < 0 && (errno == EACCES || errno == EPERM)) {
        err_set(err, ERR_PERMISSION, "no permission to read %s", path);
        err_remedy(err, "cores are readable for their owner only: use sudo");
        return ERR_PERMISSION;
    }
    if (fd < 0)
        return err_os(err, errno, "cannot open %s", path);
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(err, ERR_FORMAT, "%s is not a regular file", path);
    }
    *ret = fd;
    return 0;
}

bool core_looks_like_one(const char *path)
{
    _Alignas(Elf64_Ehdr) uint8_t head[HEAD_BYTES];
    const char *packed;
    int fd;
    if (open_regular(path, &fd, NULL) < 0)
        return false;
    size_t len = read_head(fd, head, sizeof head, &packed);
    close(fd);
    if (packed && len == 0)
        return strcmp(packed, "gzip") != 0;
    return len >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0;
}

/* ---- program headers ---- */

static int add_segment(struct core *core, const Elf64_Phdr *ph, struct err *err)
{
    uint64_t end;
    if (ph->p_type != PT_LOAD)
        return 0;
    if (ph->p_memsz == 0 || add_overflows(ph->p_vaddr, ph->p_memsz, &end) ||
        ph->p_vaddr % PAGE_BYTES || end % PAGE_BYTES) {
        core->dropped++;
        return 0;
    }
    if (vec_reserve(&core->segments, &core->cap_segments, core->n_segments + 1,
                    sizeof *core->segments) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu segments", core->n_segments + 1);
    uint64_t dumped = min_u64(ph->p_filesz, ph->p_memsz);
    core->segments[core->n_segments++] = (struct core_segment){
        .start = ph->p_vaddr,
        .end = end,
        .offset = ph->p_offset,
        .dumped = dumped,
        .here = ph->p_offset < core->size ? min_u64(dumped, core->size - ph->p_offset) : 0,
        .r = ph->p_flags & PF_R,
        .w = ph->p_flags & PF_W,
        .x = ph->p_flags & PF_X,
    };
    /* Only BFD, hence gdb, writes segments without alignment. */
    if (ph->p_align <= 1 && core->writer == CORE_BY_KERNEL)
        core->writer = CORE_BY_GDB;
    return 0;
}

static int add_header(struct core *core, const Elf64_Phdr *ph, struct note_ranges *notes,
                      struct err *err)
{
    if (ph->p_type != PT_NOTE)
        return add_segment(core, ph, err);
    if (vec_reserve(&notes->items, &notes->cap, notes->n + 1, sizeof *notes->items) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu note segments", notes->n + 1);
    notes->items[notes->n++] = (struct note_range){ph->p_offset, ph->p_filesz};
    return 0;
}

/* With 65535 program headers or more their number lies in section header 0. The kernel writes that
 * behind everything else, so a core cut short lost it: then what the first segments lie behind
 * tells where the program headers end. */
static int count_extended(struct core *core, const Elf64_Ehdr *eh, uint64_t *ret, struct err *err)
{
    Elf64_Shdr sh;
    Elf64_Phdr ph[2];
    size_t got;
    int rc = read_at(core, eh->e_shoff, &sh, sizeof sh, &got, err);
    if (rc < 0)
        return rc;
    if (eh->e_shoff && got == sizeof sh && sh.sh_info >= PN_XNUM) {
        *ret = sh.sh_info;
        return 0;
    }
    rc = read_at(core, eh->e_phoff, ph, sizeof ph, &got, err);
    if (rc < 0)
        return rc;
    core->truncated = true;
    uint64_t end = UINT64_MAX;
    for (size_t i = 0; i < got / sizeof *ph; i++)
        if (ph[i].p_offset > eh->e_phoff)
            end = min_u64(end, ph[i].p_offset);
    *ret = end == UINT64_MAX ? PN_XNUM : max_u64(PN_XNUM, (end - eh->e_phoff) / sizeof *ph);
    return 0;
}

static int count_headers(struct core *core, const Elf64_Ehdr *eh, uint64_t *ret, struct err *err)
{
    int rc = 0;
    if (eh->e_phentsize != sizeof(Elf64_Phdr))
        return err_set(err, ERR_FORMAT, "the core has program headers of %u bytes",
                       eh->e_phentsize);
    *ret = eh->e_phnum;
    if (eh->e_phnum == PN_XNUM)
        rc = count_extended(core, eh, ret, err);
    if (rc == 0 && (*ret == 0 || *ret > MAX_HEADERS))
        return err_set(err, ERR_FORMAT, "the core says that it has %llu program headers",
                       (unsigned long long)*ret);
    return rc;
}

static int read_headers(struct core *core, const Elf64_Ehdr *eh, struct note_ranges *notes,
                        struct err *err)
{
    Elf64_Phdr batch[HEADERS_BATCH];
    uint64_t n = 0, done = 0;
    int rc = count_headers(core, eh, &n, err);
    while (rc == 0 && done < n) {
        size_t got, want = (size_t)min_u64(n - done, HEADERS_BATCH);
        uint64_t at;
        if (add_overflows(eh->e_phoff, done * sizeof *batch, &at))
            at = UINT64_MAX; /* behind any file */
        rc = read_at(core, at, batch, want * sizeof *batch, &got, err);
        if (rc < 0)
            return rc;
        got /= sizeof *batch;
        for (size_t i = 0; i < got && rc == 0; i++)
            rc = add_header(core, &batch[i], notes, err);
        done += got;
        if (got < want) {
            core->truncated = true;
            break;
        }
    }
    if (rc == 0 && core->n_segments == 0 && done < n)
        return err_set(err, ERR_FORMAT, "the core is cut short within its program headers");
    if (rc == 0 && core->n_segments == 0)
        return err_set(err, ERR_FORMAT, "the core has no segments of memory");
    return rc;
}

static int by_start(const void *a, const void *b)
{
    const struct core_segment *x = a, *y = b;
    if (x->start != y->start)
        return x->start < y->start ? -1 : 1;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* Sort, drop overlaps, sum up what is there. */
static void settle_segments(struct core *core)
{
    size_t kept = 0;
    qsort(core->segments, core->n_segments, sizeof *core->segments, by_start);
    for (size_t i = 0; i < core->n_segments; i++) {
        const struct core_segment *seg = &core->segments[i];
        if (kept && seg->start < core->segments[kept - 1].end)
            continue;
        core->dumped_bytes += seg->dumped; /* disjoint, so the sums don't overflow */
        core->here_bytes += seg->here;
        core->segments[kept++] = *seg;
    }
    core->dropped += core->n_segments - kept;
    core->n_segments = kept;
    if (core->here_bytes < core->dumped_bytes)
        core->truncated = true;
}

/* ---- notes ---- */

static int read_notes(struct core *core, const struct note_range *range, size_t len,
                      struct err *err)
{
    size_t got = 0;
    uint8_t *buf = malloc(len);
    if (!buf)
        return err_set(err, ERR_NOMEM, "no memory for %zu bytes of notes", len);
    int rc = read_at(core, range->offset, buf, len, &got, err);
    if (rc == 0)
        rc = core_notes_parse(core, buf, got, err);
    free(buf);
    return rc;
}

/* All notes. What is read is bounded in sum, as notes that overlap each other could be endless. */
static int read_all_notes(struct core *core, const struct note_ranges *notes, struct err *err)
{
    uint64_t budget = min_u64(core->size, MAX_NOTE_BYTES);
    size_t n = min_u64(notes->n, MAX_NOTE_SEGMENTS);
    core->notes_cut = n < notes->n;
    for (size_t i = 0; i < n; i++) {
        const struct note_range *range = &notes->items[i];
        uint64_t len = range->offset < core->size ? core->size - range->offset : 0;
        len = min_u64(min_u64(len, range->size), budget);
        if (len < range->size)
            core->notes_cut = true;
        if (len == 0)
            continue;
        budget -= len;
        int rc = read_notes(core, range, (size_t)len, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* What one note did not tell, another may. */
static void settle_process(struct core *core)
{
    if (core->pid == 0 && core->n_threads)
        core->pid = core->threads[0].tid;
    /* gcore attaches, and then every NT_SIGINFO tells of its own SIGSTOP. */
    if (core->writer == CORE_BY_GDB && core->n_threads && core->threads[0].signal == 0)
        core->signal = (struct core_signal){.known = false};
    for (size_t i = 0; i < core->n_threads && !core->signal.known; i++)
        if (core->threads[i].signal > 0)
            core->signal = (struct core_signal){
                .known = true, .number = core->threads[i].signal, .code = CODE_UNTOLD};
}

/* ---- opening ---- */

static int parse(struct core *core, struct err *err)
{
    struct stat st;
    struct note_ranges notes = {NULL, 0, 0};
    Elf64_Ehdr eh;
    size_t got;
    if (fstat(core->fd, &st) < 0)
        return err_os(err, errno, "cannot read the core");
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_FORMAT, "a core must be a regular file");
    core->size = (uint64_t)st.st_size;
    int rc = read_at(core, 0, &eh, sizeof eh, &got, err);
    if (rc == 0)
        rc = check_header((const uint8_t *)&eh, got, err);
    if (rc == 0)
        rc = read_headers(core, &eh, &notes, err);
    if (rc == 0) {
        settle_segments(core);
        rc = read_all_notes(core, &notes, err);
        settle_process(core);
    }
    free(notes.items);
    return rc;
}

int core_open_fd(int fd, struct core *ret, struct err *err)
{
    struct core core;
    memset(&core, 0, sizeof core);
    core.fd = fd;
    strpool_init(&core.names);
    int rc = parse(&core, err);
    if (rc < 0)
        core_close(&core);
    else
        *ret = core;
    return rc;
}

/* A compressed core, whose descriptor stays the caller's. Looks at its head first: decompressing
 * something else could take minutes and a disk full of room. */
static int open_packed(int fd, const volatile sig_atomic_t *interrupted, const uint8_t *head,
                       size_t len, struct core *ret, struct err *err)
{
    struct unpacked unpacked;
    if (len == 0)
        return err_set(err, ERR_FORMAT, "the file is damaged: nothing of it can be decompressed");
    int rc = check_header(head, len, err);
    if (rc < 0)
        return err_context(err, rc, "in the compressed file");
    if (lseek(fd, 0, SEEK_SET) < 0)
        return err_os(err, errno, "cannot read the core");
    rc = unpack(fd, interrupted, &unpacked, err);
    if (rc < 0)
        return rc;
    rc = core_open_fd(unpacked.fd, ret, err);
    if (rc == 0 && unpacked.cut)
        ret->truncated = true;
    return rc;
}

int core_open(const char *path, const volatile sig_atomic_t *interrupted, struct core *ret,
              struct err *err)
{
    _Alignas(Elf64_Ehdr) uint8_t head[HEAD_BYTES];
    const char *packed;
    int fd, rc = open_regular(path, &fd, err);
    if (rc < 0)
        return rc;
    size_t len = read_head(fd, head, sizeof head, &packed);
    if (packed) {
        rc = open_packed(fd, interrupted, head, len, ret, err);
        close(fd);
    } else {
        rc = core_open_fd(fd, ret, err);
    }
    if (rc < 0)
        return err_context(err, rc, "%s", path);
    ret->packed = packed;
    return 0;
}

void core_close(struct core *core)
{
    /* A zeroed struct has descriptor 0 as well, but not a file's size. */
    if (core->fd > 0 || core->size)
        close(core->fd);
    free(core->segments);
    free(core->files);
    free(core->threads);
    free(core->facts.runs);
    strpool_release(&core->names);
    memset(core, 0, sizeof *core);
}

/* ---- by address ---- */

const struct core_segment *core_segment_at(const struct core *core, uint64_t addr)
{
    size_t lo = 0, hi = core->n_segments;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (core->segments[mid].end <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < core->n_segments && core->segments[lo].start <= addr ? &core->segments[lo] : NULL;
}

const struct core_file *core_file_at(const struct core *core, uint64_t addr)
{
    size_t lo = 0, hi = core->n_files;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (core->files[mid].end <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < core->n_files && core->files[lo].start <= addr ? &core->files[lo] : NULL;
}
