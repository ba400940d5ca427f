#include "inspector/target/core_write.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"

enum { CHUNK_BYTES = 1 << 20 };

void core_out_release(struct core_out *w)
{
    free(w->buf);
    w->buf = NULL;
}

static int failed(const struct core_out *w, int os_errno, struct err *err)
{
    int rc = err_os(err, os_errno, "cannot write %s", w->name);
    if (os_errno == ENOSPC || os_errno == EDQUOT)
        err_remedy(err, "make room there, or write elsewhere with -o; nothing was left behind");
    else if (os_errno == EFBIG)
        err_remedy(err, "the file system or `ulimit -f` takes no file as large as that: write "
                        "elsewhere with -o");
    else
        err_remedy(err, "write elsewhere with -o; nothing was left behind");
    return rc;
}

static int write_at(const struct core_out *w, const void *bytes, size_t len, uint64_t at,
                    struct err *err)
{
    const uint8_t *p = bytes;
    while (len) {
        if (w->interrupted && *w->interrupted)
            return err_set(err, ERR_INTERRUPTED, "interrupted; the target runs on");
        ssize_t n = pwrite(w->fd, p, min_u64(len, CHUNK_BYTES), (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return failed(w, errno, err);
        p += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

static int need_buffer(struct core_out *w, struct err *err)
{
    if (!w->buf)
        w->buf = malloc(CHUNK_BYTES);
    return w->buf ? 0 : err_set(err, ERR_NOMEM, "no memory to write the core with");
}

/* ---- headers ---- */

static void fill_header(Elf64_Ehdr *e, Elf64_Shdr *extra, const struct core_plan *plan)
{
    uint64_t headers = plan->n + 1;
    memcpy(e->e_ident, ELFMAG, SELFMAG);
    e->e_ident[EI_CLASS] = ELFCLASS64;
    e->e_ident[EI_DATA] = ELFDATA2LSB;
    e->e_ident[EI_VERSION] = EV_CURRENT;
    e->e_type = ET_CORE;
    e->e_machine = EM_X86_64;
    e->e_version = EV_CURRENT;
    e->e_phoff = sizeof *e;
    e->e_ehsize = sizeof *e;
    e->e_phentsize = sizeof(Elf64_Phdr);
    e->e_phnum = headers >= PN_XNUM ? PN_XNUM : (uint16_t)headers;
    if (headers < PN_XNUM)
        return;
    e->e_shoff = sizeof *e + headers * sizeof(Elf64_Phdr);
    e->e_shentsize = sizeof *extra;
    e->e_shnum = 1;
    extra->sh_size = 1; /* the number of sections, as e_shnum may be too small for it */
    extra->sh_info = (uint32_t)headers;
}

static void fill_load(Elf64_Phdr *p, const struct core_load *load)
{
    const struct vma *v = load->vma;
    p->p_type = PT_LOAD;
    p->p_flags = (v->r ? PF_R : 0u) | (v->w ? PF_W : 0u) | (v->x ? PF_X : 0u);
    p->p_offset = load->offset;
    p->p_vaddr = v->start;
    p->p_filesz = load->bytes;
    p->p_memsz = v->end - v->start;
    p->p_align = CORE_PAGE_BYTES;
}

int core_write_head(struct core_out *w, const struct core_plan *plan,
                    const struct core_notes *notes, struct err *err)
{
    if (plan->notes_offset + notes->n > plan->data_offset)
        return err_set(err, ERR_LIMIT, "the notes of the core outgrew the room for them");
    uint8_t *head = calloc(1, plan->notes_offset);
    if (!head)
        return err_set(err, ERR_NOMEM, "no memory for %zu program headers", plan->n + 1);
    Elf64_Phdr *p = (Elf64_Phdr *)(head + sizeof(Elf64_Ehdr));
    fill_header((Elf64_Ehdr *)head, (Elf64_Shdr *)(p + plan->n + 1), plan);
    *p++ = (Elf64_Phdr){
        .p_type = PT_NOTE, .p_offset = plan->notes_offset, .p_filesz = notes->n, .p_align = 4};
    for (size_t i = 0; i < plan->n; i++)
        fill_load(p++, &plan->loads[i]);
    int rc = write_at(w, head, plan->notes_offset, 0, err);
    free(head);
    return rc < 0 ? rc : write_at(w, notes->bytes, notes->n, plan->notes_offset, err);
}

int core_write_size(struct core_out *w, const struct core_plan *plan, struct err *err)
{
    return ftruncate(w->fd, (off_t)plan->file_bytes) < 0 ? failed(w, errno, err) : 0;
}

/* ---- memory ---- */

/* Up to `len` bytes at addr, as a pointer into the backend or our buffer; *len is 0 in a hole. */
static int fetch(struct core_out *w, struct mem *mem, uint64_t addr, const uint8_t **ret,
                 size_t *len, struct err *err)
{
    if (mem->ops->direct) {
        size_t have = 0;
        *ret = mem->ops->direct(mem, addr, &have);
        *len = *ret ? min_u64(*len, have) : 0;
        return 0;
    }
    struct mem_span span = {.addr = addr, .buf = w->buf, .len = min_u64(*len, CHUNK_BYTES)};
    int rc = mem_readv(mem, &span, 1, err);
    *ret = w->buf;
    *len = rc < 0 ? 0 : span.got;
    return rc;
}

/* One range of one segment. A page that cannot be read is left out and counted. */
static int write_range(struct core_out *w, const struct core_load *load, struct mem *mem,
                       uint64_t start, uint64_t end, struct err *err)
{
    while (start < end) {
        const uint8_t *bytes;
        size_t len = end - start;
        int rc = fetch(w, mem, start, &bytes, &len, err);
        if (rc == 0 && len)
            rc = write_at(w, bytes, len, load->offset + (start - load->vma->start), err);
        if (rc < 0)
            return rc;
        w->written += len;
        if (len) {
            start += len;
        } else {
            uint64_t next = min_u64(end, round_down(start, CORE_PAGE_BYTES) + CORE_PAGE_BYTES);
            w->unread += next - start;
            start = next;
        }
    }
    return 0;
}

int core_write_memory(struct core_out *w, const struct core_plan *plan, struct mem *mem,
                      struct err *err)
{
    int rc = need_buffer(w, err);
    size_t run = 0;
    for (size_t i = 0; rc == 0 && i < plan->n; i++) {
        const struct core_load *load = &plan->loads[i];
        uint64_t start = load->vma->start, end = start + load->bytes;
        while (run < w->n_present && w->present[run].end <= start)
            run++;
        for (size_t j = run; rc == 0 && j < w->n_present && w->present[j].start < end; j++)
            rc = write_range(w, load, mem, max_u64(start, w->present[j].start),
                             min_u64(end, w->present[j].end), err);
    }
    return rc;
}

/* ---- absent pages ---- */

/* Pages of zeros stay holes: those of shared memory were mostly never touched. */
static int write_nonzero(struct core_out *w, const uint8_t *bytes, size_t len, uint64_t at,
                         struct err *err)
{
    static const uint8_t zeros[CORE_PAGE_BYTES];
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < len; i += CORE_PAGE_BYTES) {
        size_t n = min_u64(len - i, CORE_PAGE_BYTES);
        if (memcmp(bytes + i, zeros, n) == 0)
            continue;
        rc = write_at(w, bytes + i, n, at + i, err);
        w->written += n;
    }
    return rc;
}

/* [start, end) of a segment from its file. What lies behind the end of the file is a hole. */
static int fill_from(struct core_out *w, const struct core_load *load, int fd, uint64_t start,
                     uint64_t end, struct err *err)
{
    int rc = 0;
    while (rc == 0 && start < end) {
        uint64_t in = start - load->vma->start;
        ssize_t n =
            pread(fd, w->buf, min_u64(end - start, CHUNK_BYTES), (off_t)(load->vma->offset + in));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            w->unfilled += end - start;
        if (n <= 0)
            break;
        rc = write_nonzero(w, w->buf, (size_t)n, load->offset + in, err);
        start += (uint64_t)n;
    }
    return rc;
}

/* Where ours lies, if it is as large: a process restored from a checkpoint may have another. */
static const uint8_t *own_vdso(uint64_t size)
{
    const uint8_t *ret = NULL;
    struct maps ours;
    maps_init(&ours);
    if (maps_read(&ours, getpid(), NULL) == 0)
        for (size_t i = 0; i < ours.n; i++)
            if (strcmp(ours.items[i].name, "[vdso]") == 0 &&
                ours.items[i].end - ours.items[i].start == size)
                ret = (const uint8_t *)(uintptr_t)ours.items[i].start;
    maps_release(&ours);
    return ret;
}

/* Ours serves for any 64-bit process: the kernel maps the same pages into all of them. */
static int fill_vdso(struct core_out *w, const struct core_load *load, uint64_t start, uint64_t end,
                     struct err *err)
{
    const uint8_t *ours = own_vdso(load->vma->end - load->vma->start);
    uint64_t in = start - load->vma->start;
    if (!ours) {
        w->unfilled += end - start;
        w->unfilled_name = w->unfilled_name ? w->unfilled_name : load->vma->name;
        return 0;
    }
    w->written += end - start;
    return write_at(w, ours + in, end - start, load->offset + in, err);
}

struct filling {
    struct core_out *w;
    const struct core_load *load;
    const struct core_sources *sources;
    int fd; /* of the mapped file; -1 until the first absent page */
    bool refused;
};

static int fill_gap(struct filling *f, uint64_t start, uint64_t end, struct err *err)
{
    struct core_out *w = f->w;
    if (start >= end || f->load->fill == CORE_FILL_ZEROS)
        return 0;
    if (f->load->fill == CORE_FILL_VDSO)
        return fill_vdso(w, f->load, start, end, err);
    /* Which of the absent pages are swapped out is not known page by page: none is taken from the
     * file. */
    if (f->load->swap) {
        w->swapped += end - start;
        return 0;
    }
    if (f->fd < 0 && !f->refused) {
        f->fd = core_source_open(f->sources, f->load->vma, NULL);
        f->refused = f->fd < 0 && f->fd != ERR_UNSUPPORTED;
        if (f->fd == ERR_UNSUPPORTED)
            return 0; /* a device has no bytes but those that it showed */
    }
    if (f->refused) {
        w->unfilled += end - start;
        w->unfilled_name = w->unfilled_name ? w->unfilled_name : f->load->vma->name;
        return 0;
    }
    return fill_from(w, f->load, f->fd, start, end, err);
}

static int fill_load_gaps(struct filling *f, size_t run, struct err *err)
{
    const struct core_out *w = f->w;
    uint64_t at = f->load->vma->start, end = at + f->load->bytes;
    int rc = 0;
    for (; rc == 0 && run < w->n_present && w->present[run].start < end; run++) {
        rc = fill_gap(f, at, w->present[run].start, err);
        at = max_u64(at, w->present[run].end);
    }
    return rc < 0 ? rc : fill_gap(f, at, end, err);
}

int core_write_files(struct core_out *w, const struct core_plan *plan,
                     const struct core_sources *sources, struct err *err)
{
    int rc = need_buffer(w, err);
    size_t run = 0;
    for (size_t i = 0; rc == 0 && i < plan->n; i++) {
        struct filling f = {w, &plan->loads[i], sources, -1, false};
        while (run < w->n_present && w->present[run].end <= f.load->vma->start)
            run++;
        if (!f.load->bytes)
            continue;
        if (f.load->fill != CORE_FILL_FILE)
            w->swapped += f.load->swap;
        rc = fill_load_gaps(&f, run, err);
        if (f.fd >= 0)
            close(f.fd);
    }
    return rc;
}
