#include "inspector/target/core_maps.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/addrset.h"
#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/sys.h"

/* What a core tells is written as the text of /proc/PID/maps, which maps_parse then reads: so kinds
 * follow from names by the same rules as in a live process. */

#define VSYSCALL 0xffffffffff600000ull

enum {
    PAGE_BYTES = 4096,
    VVAR_BYTES = 16 * PAGE_BYTES,
    EXE_HEADERS = 64,  /* program headers of the executable that are looked at */
    LINE_BYTES = 128,  /* of a line of maps without its name */
    NAME_BYTES = 4096, /* PATH_MAX; longer ones are cut */
    HEAP_DISTANCE = 1 << 30
};

/* A mapping: a segment, an entry of NT_FILE, or what the two have in common. */
struct piece {
    uint64_t start, end, offset;
    const char *name; /* a path, "[heap]" ...; NULL for none */
    bool is_file, r, w, x, shared;
    bool dumped; /* some of it is in the core */
};

struct pieces {
    struct piece *items;
    size_t n, cap;
};

static int nomem(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory for the mappings of a core");
}

/* ---- segments and files to pieces ---- */

static int add_piece(struct pieces *all, const struct piece *piece, struct err *err)
{
    if (vec_reserve(&all->items, &all->cap, all->n + 1, sizeof *all->items) < 0)
        return nomem(err);
    all->items[all->n++] = *piece;
    return 0;
}

static struct piece piece_of(const struct core_segment *seg, const struct core_file *file,
                             uint64_t start, uint64_t end)
{
    /* Without a segment nobody knows: gcore leaves text out. */
    struct piece piece = {.start = start, .end = end, .r = true, .x = true};
    if (seg) {
        piece.r = seg->r;
        piece.w = seg->w;
        piece.x = seg->x;
        piece.dumped = seg->dumped > start - seg->start;
    }
    if (file) {
        piece.is_file = true;
        piece.name = file->path;
        piece.offset = file->offset + (start - file->start);
    }
    return piece;
}

/* Both lists are sorted and disjoint: cut at every edge of either. Real cores have the same edges
 * in both, hostile ones need not. */
static int merge(const struct core *core, struct pieces *all, struct err *err)
{
    size_t s = 0, f = 0;
    int rc = 0;
    for (uint64_t at = 0; rc == 0;) {
        while (s < core->n_segments && core->segments[s].end <= at)
            s++;
        while (f < core->n_files && core->files[f].end <= at)
            f++;
        const struct core_segment *seg = s < core->n_segments ? &core->segments[s] : NULL;
        const struct core_file *file = f < core->n_files ? &core->files[f] : NULL;
        if (!seg && !file)
            break;
        uint64_t start = min_u64(seg ? seg->start : UINT64_MAX, file ? file->start : UINT64_MAX);
        start = max_u64(start, at);
        bool in_seg = seg && seg->start <= start, in_file = file && file->start <= start;
        uint64_t end = min_u64(seg ? (in_seg ? seg->end : seg->start) : UINT64_MAX,
                               file ? (in_file ? file->end : file->start) : UINT64_MAX);
        struct piece piece = piece_of(in_seg ? seg : NULL, in_file ? file : NULL, start, end);
        rc = add_piece(all, &piece, err);
        at = end;
    }
    return rc;
}

static struct piece *piece_at(const struct pieces *all, uint64_t addr)
{
    size_t lo = 0, hi = all->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (all->items[mid].end <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < all->n && all->items[lo].start <= addr ? &all->items[lo] : NULL;
}

/* All of the process's bytes at addr, from the core. */
static bool read_memory(const struct core *core, uint64_t addr, void *buf, size_t len)
{
    const struct core_segment *seg = core_segment_at(core, addr);
    uint64_t skip = seg ? addr - seg->start : 0;
    if (!seg || skip >= seg->here || seg->here - skip < len)
        return false;
    return sys_calls.pread(core->fd, buf, len, (off_t)(seg->offset + skip)) == (ssize_t)len;
}

/* ---- special mappings ---- */

static bool is_anonymous(const struct piece *p)
{
    return p && !p->is_file && !p->name;
}

static void name_stack(const struct core *core, const struct pieces *all)
{
    uint64_t rsp = core->n_threads ? core->threads[0].rsp : 0;
    for (size_t i = 0; i < core->n_threads; i++)
        if (core->threads[i].tid == core->pid)
            rsp = core->threads[i].rsp;
    const uint64_t hints[] = {core->at_random, core->at_execfn, rsp};
    for (size_t i = 0; i < sizeof hints / sizeof hints[0]; i++) {
        struct piece *p = hints[i] ? piece_at(all, hints[i]) : NULL;
        if (is_anonymous(p) && p->w) {
            p->name = "[stack]";
            return;
        }
    }
}

/* The vdso's data: small, read-only, and all zeros in any core, because it is no memory that can be
 * dumped. That tells it from an anonymous mapping that happens to lie there. */
static bool is_vvar(const struct core *core, const struct piece *p)
{
    static const uint8_t zeros[PAGE_BYTES];
    uint8_t page[PAGE_BYTES];
    if (!is_anonymous(p) || !p->r || p->w || p->x || p->end - p->start > VVAR_BYTES)
        return false;
    for (uint64_t at = p->start; at < p->end; at += PAGE_BYTES)
        if (read_memory(core, at, page, sizeof page) && memcmp(page, zeros, sizeof page) != 0)
            return false;
    return true;
}

/* The vdso and, right below it, its data: [vvar] and, since Linux 6.13, [vvar_vclock]. */
static void name_vdso(const struct core *core, const struct pieces *all)
{
    struct piece *vdso = core->at_sysinfo_ehdr ? piece_at(all, core->at_sysinfo_ehdr) : NULL;
    if (!is_anonymous(vdso) || vdso->start != core->at_sysinfo_ehdr)
        return;
    vdso->name = "[vdso]";
    struct piece *data[2];
    size_t n = 0;
    for (struct piece *p = vdso; n < 2 && p > all->items && p[-1].end == p->start; p--) {
        if (!is_vvar(core, p - 1))
            break;
        data[n++] = p - 1;
    }
    if (n == 2)
        data[0]->name = "[vvar_vclock]";
    if (n)
        data[n - 1]->name = "[vvar]";
}

/* ---- the heap of brk ---- */

/* The program headers of the executable, at AT_PHDR; their number is in the ELF header in front of
 * them. 0 when the core lacks them. */
static size_t exe_headers(const struct core *core, Elf64_Ehdr *eh, Elf64_Phdr *ph)
{
    uint64_t base = round_down(core->at_phdr, PAGE_BYTES);
    if (!read_memory(core, base, eh, sizeof *eh) || memcmp(eh->e_ident, ELFMAG, SELFMAG) != 0 ||
        eh->e_phoff != core->at_phdr - base || eh->e_phentsize != sizeof *ph ||
        eh->e_phnum > EXE_HEADERS)
        return 0;
    return read_memory(core, core->at_phdr, ph, eh->e_phnum * sizeof *ph) ? eh->e_phnum : 0;
}

/* Where the executable's .bss ends, or 0: brk begins there or, mostly, at random behind it. */
static uint64_t exe_end(const struct core *core)
{
    Elf64_Ehdr eh;
    Elf64_Phdr ph[EXE_HEADERS];
    size_t n = exe_headers(core, &eh, ph);
    uint64_t end = 0, bias = 0, sum;
    bool has_bias = false;
    for (size_t i = 0; i < n; i++) {
        if (ph[i].p_type != PT_LOAD || add_overflows(ph[i].p_vaddr, ph[i].p_memsz, &sum))
            continue;
        end = max_u64(end, sum);
        if (eh.e_phoff >= ph[i].p_offset && eh.e_phoff - ph[i].p_offset < ph[i].p_filesz) {
            bias = core->at_phdr - (ph[i].p_vaddr + (eh.e_phoff - ph[i].p_offset));
            has_bias = true;
        }
    }
    if (!has_bias || add_overflows(end, bias, &sum) || sum > UINT64_MAX - PAGE_BYTES)
        return 0;
    return round_up(sum, PAGE_BYTES);
}

/* Without the program headers: the end of the executable's last mapping and of an anonymous one
 * that adjoins it, which is .bss. */
static uint64_t guess_exe_end(const struct core *core, const struct pieces *all)
{
    const struct core_file *exe = core_file_at(core, core->at_phdr);
    const struct piece *last = NULL;
    if (!exe)
        exe = core_file_at(core, core->at_entry);
    for (size_t i = 0; exe && i < all->n; i++)
        if (all->items[i].name == exe->path) /* paths are interned */
            last = &all->items[i];
    if (!last)
        return 0;
    if (last + 1 < all->items + all->n && last[1].start == last->end && is_anonymous(last + 1))
        last++;
    return last->end;
}

/* The kernel calls every anonymous mapping "[heap]" that touches what brk gave: the first behind
 * the executable and what adjoins it. Without randomisation .bss and heap are one mapping. */
static void name_heap(const struct core *core, const struct pieces *all)
{
    uint64_t low = exe_end(core);
    if (low == 0)
        low = guess_exe_end(core, all);
    if (low == 0)
        return;
    for (size_t i = 0; i < all->n; i++) {
        struct piece *p = &all->items[i], *end = all->items + all->n;
        if (p->end <= low)
            continue;
        if (!(is_anonymous(p) && p->r && p->w) && p->start < low)
            continue;
        if (!is_anonymous(p) || (p->start > low && p->start - low > HEAP_DISTANCE))
            return;
        if (!p->r || !p->w)
            continue;
        do
            p++->name = "[heap]";
        while (p < end && p->start == p[-1].end && is_anonymous(p));
        return;
    }
}

/* ---- shared mappings ---- */

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool shared_by_name(const char *name)
{
    return starts(name, "/memfd:") || starts(name, "/SYSV") || starts(name, "/dev/shm/") ||
           strcmp(name, "/dev/zero (deleted)") == 0;
}

/* A core does not tell which mappings of files are shared. With the kernel's usual filter private
 * ones are dumped once they were written to; a writable one that it left out is shared, unless it
 * belongs to a program or library whose data nobody has changed. `code`: paths with code. */
static void find_shared(const struct core *core, const struct pieces *all,
                        const struct addrset *code)
{
    bool private_dumped = false;
    for (size_t i = 0; i < all->n; i++) {
        struct piece *p = &all->items[i];
        /* libffi maps its trampolines privately, from a memfd. */
        p->shared = p->is_file && !p->x && shared_by_name(p->name);
        private_dumped |= p->is_file && p->w && p->dumped && !p->shared;
    }
    for (size_t i = 0; i < all->n && private_dumped && core->writer == CORE_BY_KERNEL; i++) {
        struct piece *p = &all->items[i];
        if (p->is_file && p->w && !p->dumped && !addrset_find(code, (uintptr_t)p->name))
            p->shared = true;
    }
}

static int mark_shared(const struct core *core, const struct pieces *all, struct err *err)
{
    struct addrset code;
    int rc = 0;
    addrset_init(&code);
    for (size_t i = 0; i < all->n && rc == 0; i++)
        if (all->items[i].is_file && all->items[i].x)
            rc = addrset_add(&code, (uintptr_t)all->items[i].name, 1, NULL);
    if (rc == 0)
        find_shared(core, all, &code);
    addrset_release(&code);
    return rc < 0 ? nomem(err) : 0;
}

/* ---- pieces to mappings ---- */

/* A newline would end the line and a backslash may begin an escape, so both are escaped. */
static size_t escape(const char *name, char *to)
{
    char *begin = to;
    for (size_t i = 0; i < NAME_BYTES && name[i]; i++) {
        if (name[i] != '\n' && name[i] != '\\') {
            *to++ = name[i];
            continue;
        }
        memcpy(to, name[i] == '\n' ? "\\012" : "\\134", 4);
        to += 4;
    }
    return (size_t)(to - begin);
}

/* Line by line: the text of all would repeat a long path for each of a million mappings. */
static int emit(const struct piece *p, uint64_t inode, struct maps *ret, struct err *err)
{
    char line[LINE_BYTES + 4 * NAME_BYTES];
    int n = snprintf(line, LINE_BYTES, "%llx-%llx %c%c%c%c %llx 0:0 %llu ",
                     (unsigned long long)p->start, (unsigned long long)p->end, p->r ? 'r' : '-',
                     p->w ? 'w' : '-', p->x ? 'x' : '-', p->shared ? 's' : 'p',
                     (unsigned long long)p->offset, (unsigned long long)inode);
    return maps_parse(ret, line, (size_t)n + escape(p->name ? p->name : "", line + n), err);
}

static int emit_all(const struct pieces *all, struct maps *ret, struct err *err)
{
    struct addrset inodes; /* by interned path */
    int rc = 0;
    addrset_init(&inodes);
    for (size_t i = 0; i < all->n && rc == 0; i++) {
        const struct piece *p = &all->items[i];
        uint64_t inode = 0;
        if (p->is_file && addrset_add(&inodes, (uintptr_t)p->name, inodes.n + 1, NULL) < 0)
            rc = nomem(err);
        else if (p->is_file)
            inode = *addrset_find(&inodes, (uintptr_t)p->name);
        if (rc == 0)
            rc = emit(p, inode, ret, err);
    }
    addrset_release(&inodes);
    return rc;
}

static int from_segments(const struct core *core, struct maps *ret, struct err *err)
{
    struct pieces all = {NULL, 0, 0};
    int rc = merge(core, &all, err);
    if (rc == 0) {
        struct piece *gate = piece_at(&all, VSYSCALL);
        if (gate && gate->start == VSYSCALL)
            gate->name = "[vsyscall]";
        name_vdso(core, &all);
        name_stack(core, &all);
        name_heap(core, &all);
        rc = mark_shared(core, &all, err);
    }
    if (rc == 0)
        rc = emit_all(&all, ret, err);
    free(all.items);
    return rc;
}

/* The texts of /proc that heapcensus core left. ERR_FORMAT: there are none, or they are damaged. */
static int from_text(const struct core_facts *facts, struct maps *ret, struct err *err)
{
    if (!facts->maps)
        return ERR_FORMAT;
    int rc = maps_parse(ret, facts->maps, facts->maps_len, err);
    if (rc == 0 && ret->n == 0)
        return ERR_FORMAT;
    if (rc < 0 || !facts->smaps)
        return rc;
    rc = maps_parse_smaps(ret, facts->smaps, facts->smaps_len, err);
    if (rc == ERR_FORMAT) { /* the mappings are good all the same */
        err_clear(err);
        return 0;
    }
    return rc;
}

int core_maps_read(const struct core *core, struct maps *ret, struct err *err)
{
    int rc = from_text(&core->facts, ret, err);
    if (rc != ERR_FORMAT)
        return rc;
    err_clear(err);
    maps_release(ret);
    return from_segments(core, ret, err);
}
