/* Taking a census of a core: the same walk as of a process, over what the core holds. What differs
 * is what must be found out first: which pages hold data, which files are really the ones that were
 * mapped, and what is missing. */
#include "inspector/census_core.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>

#include "formats/base/num.h"
#include "inspector/journal.h"
#include "inspector/pause_guard.h"
#include "inspector/progress.h"
#include "inspector/target/budget.h"
#include "inspector/target/core_headers.h"
#include "inspector/target/core_maps.h"
#include "walker/note.h"
#include "walker/walk.h"

enum { CACHE_PAGES = 1024 };

/* ---- opening ---- */

/* Text and constants, which writers leave out, from the file that is proven to be the module's. Not
 * what the process wrote or the loader relocated: that is lost, and the file would hide it. */
static int fill_from_file(struct core_census *s, struct elf_file *elf, uint64_t bias,
                          const struct vma *v, struct err *err)
{
    const struct core_segment *seg = core_segment_at(&s->core, v->start);
    uint64_t dumped =
        seg && seg->end >= v->end ? seg->dumped - min_u64(seg->dumped, v->start - seg->start) : 0;
    uint64_t start = v->start + min_u64(dumped, v->end - v->start);
    if (v->w || v->shared || start == v->end ||
        !elf_is_constant(elf, v->start - bias, v->end - v->start))
        return 0;
    return core_mem_add(s->mem, start, v->end, elf_fd(elf), v->offset + (start - v->start), err);
}

/* gcore leaves out text mappings with their segments, and so their permissions: the file has them.
 * What none of its segments covers is the inaccessible gap that older loaders left. */
static void permissions_from_file(const struct core_census *s, const struct elf_file *elf,
                                  uint64_t bias, struct vma *v)
{
    const struct elf_segment *e = elf_segment_at(elf, v->start - bias);
    if (s->has_rss || core_segment_at(&s->core, v->start))
        return;
    v->r = e && e->r;
    v->w = e && e->w;
    v->x = e && e->x;
}

static int proven(void *ctx, struct elf_file *elf, const struct vma *first, struct err *err)
{
    struct core_census *s = ctx;
    uint64_t bias;
    if (elf_bias(elf, first->start, first->offset, &bias, NULL) < 0)
        return 0;
    for (size_t i = 0; i < s->maps.n; i++) {
        struct vma *v = &s->maps.items[i];
        if (v->inode != first->inode || v->dev != first->dev || strcmp(v->name, first->name) != 0)
            continue;
        permissions_from_file(s, elf, bias, v);
        int rc = modules_file_missed(fill_from_file(s, elf, bias, v, err), err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* gcore dumps inaccessible reservations as zeros and calls them readable. Nothing else is
 * read-only, without a file and without data. */
static void find_reservations(struct core_census *s)
{
    if (s->core.writer != CORE_BY_GDB)
        return;
    for (size_t i = 0; i < s->maps.n; i++) {
        struct vma *v = &s->maps.items[i];
        if (v->kind == VMA_ANON && !v->w && !v->x &&
            (!s->pages.counted || residency_bytes(&s->res, v->start, v->end) == 0))
            v->r = false;
    }
}

static void count_missing(struct core_census *s, const struct vma *v)
{
    const struct core_segment *seg = core_segment_at(&s->core, v->start);
    uint64_t size = v->end - v->start, dumped = seg ? min_u64(seg->dumped, size) : 0;
    if (v->kind == VMA_FILE && (!v->w || v->shared))
        s->file_bytes += size - dumped;
    if (!v->r || !v->w || v->kind == VMA_KERNEL || (v->kind == VMA_FILE && v->shared))
        return;
    if (v->kind == VMA_SHARED)
        s->shared_bytes += size - dumped;
    else
        s->left_out_bytes += size - dumped;
    if (vma_is_heapish(v))
        s->heap_bytes += dumped;
}

/* What is resident: the kernel's own figures where heapcensus core kept them, else what is there.
 */
static int find_pages(struct core_census *s, struct err *err)
{
    struct budget budget;
    budget_read(&budget);
    bool look = s->core.here_bytes <= budget_room(&budget); /* else the disk would be read twice */
    int rc = core_pages_find(&s->pages, &s->core, look, &interrupted, err);
    if (rc == 0)
        rc = residency_init(&s->res, s->pages.runs, s->pages.n, err);
    if (rc < 0)
        return rc;
    s->has_rss = s->core.facts.has_runs && s->maps.has_smaps;
    find_reservations(s);
    for (size_t i = 0; i < s->maps.n; i++) {
        struct vma *v = &s->maps.items[i];
        if (!s->has_rss)
            v->rss = residency_bytes(&s->res, v->start, v->end);
        count_missing(s, v);
    }
    return 0;
}

static int open_memory(struct core_census *s, struct err *err)
{
    int rc = core_mem_new(&s->core, &s->pages, &s->mem, err);
    if (rc == 0)
        rc = pause_guard_new(s->mem, UINT64_MAX, NULL, NULL, &interrupted, &s->guard, err);
    if (rc == 0)
        rc = mem_cache_new(s->guard, CACHE_PAGES, &s->cache, err);
    return rc;
}

int core_census_open(const struct options *opt, struct core_census *ret, struct err *err)
{
    struct core_census *s = ret;
    memset(s, 0, sizeof *s);
    s->opt = opt;
    s->core.fd = -1;
    maps_init(&s->maps);
    core_pages_init(&s->pages);
    modules_init(&s->modules);
    int rc = core_open(opt->core, &interrupted, &s->core, err);
    if (rc < 0)
        return rc;
    rc = core_headers_find(&s->core, err);
    if (rc == 0)
        rc = core_maps_read(&s->core, &s->maps, err);
    if (rc == 0)
        rc = find_pages(s, err);
    if (rc == 0)
        rc = open_memory(s, err);
    struct modules_core source = {s->cache, opt->exe, opt->sysroot, s->core.at_phdr};
    struct modules_files files = {proven, s};
    return rc < 0 ? rc : modules_read_core(&s->modules, &source, &s->maps, &files, err);
}

void core_census_release(struct core_census *s)
{
    modules_release(&s->modules);
    mem_close(s->cache);
    mem_close(s->guard);
    mem_close(s->mem);
    residency_release(&s->res);
    core_pages_release(&s->pages);
    maps_release(&s->maps);
    core_close(&s->core);
}

/* ---- what is known of the process ---- */

/* systemd-coredump's own records, kept as extended attributes of its files. */
static bool systemd_says(const char *path, const char *what, char *buf, size_t cap)
{
    char name[64];
    snprintf(name, sizeof name, "user.coredump.%s", what);
    ssize_t n = getxattr(path, name, buf, cap - 1);
    buf[n > 0 ? n : 0] = '\0';
    return n > 0;
}

/* The moment of the core: as told in it, by systemd, or by the file's own time. */
static void fill_time(const struct core_census *s, struct snapshot *snap)
{
    char text[32], when[UTC_CHARS] = "";
    struct snapshot_dump *d = &snap->source.dump;
    if (s->core.facts.taken_at) {
        snap->taken_at = snapshot_str(snap, s->core.facts.taken_at);
        d->time_from = "core";
        return;
    }
    struct stat st;
    if (systemd_says(s->opt->core, "timestamp", text, sizeof text)) {
        utc_text((time_t)(strtoull(text, NULL, 10) / 1000000), when);
        d->time_from = "systemd";
    } else if (stat(s->opt->core, &st) == 0) {
        utc_text(st.st_mtime, when);
        d->time_from = "file";
    }
    snap->taken_at = snapshot_str(snap, when);
}

static const char *executable(const struct core_census *s)
{
    const struct core_file *f = core_file_at(&s->core, s->core.at_phdr);
    /* A core that names no files has names of ours (core_headers.h), which are no paths. */
    bool path = f && f->path[0] == '/';
    return s->core.facts.exe ? s->core.facts.exe : path ? f->path : NULL;
}

static void fill_signal(const struct core_census *s, struct snapshot *snap)
{
    const struct core_signal *sig = &s->core.signal;
    struct snapshot_dump *d = &snap->source.dump;
    char buf[32];
    if (!sig->known || !sig->number)
        return;
    d->signal = snapshot_str(snap, core_signal_name(sig->number, buf, sizeof buf));
    d->reason = snapshot_str(snap, core_signal_reason(sig));
    d->fault_address = sig->address;
    d->sender_pid = sig->sender_pid > 0 ? (uint64_t)sig->sender_pid : 0;
}

static void fill_dump(const struct core_census *s, struct snapshot *snap)
{
    static const char *const writers[] = {
        [CORE_BY_KERNEL] = "kernel", [CORE_BY_GDB] = "gdb", [CORE_BY_HEAPCENSUS] = "heapcensus"};
    struct snapshot_dump *d = &snap->source.dump;
    d->present = true;
    d->writer = writers[s->core.writer];
    d->packed = s->core.packed;
    d->command = s->core.args[0] ? snapshot_str(snap, s->core.args) : NULL;
    d->started_at = snapshot_str(snap, s->core.facts.started_at);
    d->dumped_bytes = s->core.dumped_bytes;
    d->missing_bytes = s->core.dumped_bytes - min_u64(s->core.here_bytes, s->core.dumped_bytes);
    d->resident = s->has_rss ? "rss" : s->pages.counted ? "data" : "dumped";
    fill_signal(s, snap);
    fill_time(s, snap);
}

static void fill_source(const struct core_census *s, struct snapshot *snap)
{
    struct snapshot_source *src = &snap->source;
    char host[256];
    snap->tool_version = HEAPCENSUS_VERSION;
    if (s->core.facts.host)
        snap->host = snapshot_str(snap, s->core.facts.host);
    else if (systemd_says(s->opt->core, "hostname", host, sizeof host))
        snap->host = snapshot_str(snap, host);
    src->kind = "core";
    src->core = snapshot_str(snap, s->opt->core);
    src->pid = s->core.pid;
    src->comm = s->core.comm[0] ? snapshot_str(snap, s->core.comm) : NULL;
    src->exe = snapshot_str(snap, executable(s));
    const char *id =
        s->modules.exe_build_id[0] ? s->modules.exe_build_id : s->core.facts.exe_build_id;
    src->exe_build_id = snapshot_str(snap, id);
    src->paused_ns = s->core.facts.paused_ns;
    src->threads = s->core.n_threads;
    /* The kernel and gdb stop every thread before they write. */
    src->consistent = s->core.writer != CORE_BY_HEAPCENSUS || s->core.facts.consistent;
    src->read_bytes = s->mem->bytes;
    fill_dump(s, snap);
}

/* ---- what is missing ---- */

static void note_cut(const struct core_census *s, struct notes *notes)
{
    const struct core *c = &s->core;
    if (c->truncated)
        note_add(
            notes, "core.truncated", 0, c->dumped_bytes - c->here_bytes,
            "the file ends early: %.1f %% of what the core should hold is here; what lies in the "
            "rest is not counted, or unknown",
            c->dumped_bytes ? (double)c->here_bytes * 100 / (double)c->dumped_bytes : 0.0);
    if (c->notes_cut)
        note_add(notes, "core.notes", 0, 0,
                 "the core's notes are cut off: threads and names of files may be missing");
    if (c->bad_notes)
        note_remark(notes, "core.notes", 0, 0, "%zu of the core's notes are damaged", c->bad_notes);
    if (c->dropped)
        note_add(notes, "core.segments", 0, 0, "%zu segments of the core make no sense",
                 c->dropped);
}

/* A filter leaves all anonymous memory out or none; single mappings are left out by the program's
 * own madvise, as glibc does with its random generator's state. */
static bool filtered(const struct core_census *s)
{
    return s->left_out_bytes && !s->heap_bytes;
}

static void note_left_out(const struct core_census *s, struct notes *notes)
{
    if (filtered(s))
        note_add(notes, "core.left_out", 0, s->left_out_bytes,
                 "the process's own memory was left out when the core was written: bit 0 of its "
                 "coredump_filter was not set");
    else if (s->left_out_bytes)
        note_remark(notes, "core.dontdump", 0, s->left_out_bytes,
                    "the program kept some of its memory out of the core (MADV_DONTDUMP)");
    if (s->shared_bytes)
        note_remark(notes, "core.shared", 0, s->shared_bytes,
                    "shared memory was left out when the core was written (coredump_filter)");
    if (!s->has_rss)
        note_remark(notes, "core.resident", 0, 0,
                    "a core does not tell which pages of files were resident; resident is %s",
                    s->pages.counted ? "what the core holds other than pages of zeros"
                                     : "all that the core holds, pages of zeros included");
}

static const char *or_none(const char *id)
{
    return id[0] ? id : "none";
}

/* The files of one verdict in one line: how many, and one of them, the executable if it is among
 * them.
 */
static void note_files(const struct core_census *s, enum elf_identity identity, const char *keyword,
                       const char *what, struct notes *notes)
{
    const struct module_file *one = NULL;
    size_t n = 0;
    for (size_t i = 0; i < s->modules.n_files; i++) {
        const struct module_file *f = &s->modules.files[i];
        if (f->identity != identity)
            continue;
        one = one && !f->is_exe ? one : f;
        n++;
    }
    if (n == 1)
        note_remark(notes, keyword, 0, 0, "one file %s (%s): counted without its symbols", what,
                    one->path);
    else if (n)
        note_remark(notes, keyword, 0, 0, "%zu files %s (%s, ...): counted without their symbols",
                    n, what, one->path);
}

/* A file that is another than the core's is told by name; the rest as one line each. */
static void note_modules(const struct core_census *s, struct notes *notes)
{
    for (size_t i = 0; i < s->modules.n_files; i++) {
        const struct module_file *f = &s->modules.files[i];
        if (f->identity == ELF_DIFFERENT)
            note_remark(
                notes, "module.differs", 0, 0,
                "%s is not the file of the core and was not used: build-id expected %s, found "
                "%s",
                f->file, or_none(f->expected), or_none(f->found));
    }
    note_files(s, ELF_MISSING, "module.missing",
               "of the core not found on this machine; --sysroot or --exe names them", notes);
    note_files(s, ELF_UNPROVABLE, "module.unproven",
               "of the core could not be proven by a build-id and so not used", notes);
}

/* ---- the walk ---- */

static int walk(struct core_census *s, struct snapshot *snap, struct err *err)
{
    struct walk_thread *threads = calloc(s->core.n_threads + 1, sizeof *threads);
    if (!threads)
        return err_set(err, ERR_NOMEM, "no memory for %zu threads", s->core.n_threads);
    for (size_t i = 0; i < s->core.n_threads; i++) {
        const struct core_thread *t = &s->core.threads[i];
        threads[i] = (struct walk_thread){t->tid, t->fs_base, t->rsp};
    }
    struct walk_input in = {
        .mem = s->cache,
        .vmas = maps_list(&s->maps),
        .res = &s->res,
        .data = s->modules.data,
        .n_data = s->modules.n_data,
        .threads = threads,
        .n_threads = s->core.n_threads,
        .python = {.modules = s->modules.items,
                   .n_modules = s->modules.n,
                   .interrupted = &interrupted},
        .libc_name = s->modules.libc_name,
        .libc_version = s->modules.libc_version[0] ? s->modules.libc_version : NULL,
        .interposer = s->modules.interposer,
        .partial = s->core.truncated || filtered(s),
        .types = s->opt->types,
        .blocks = s->opt->blocks,
        .libc_lost = s->core.truncated && !s->modules.libc_name && s->core.n_threads == 0,
    };
    int rc = walk_run(&in, snap, err);
    free(threads);
    return rc;
}

int core_census_walk(struct core_census *s, struct snapshot *snap, struct err *err)
{
    struct notes notes;
    notes_init(&notes, snap);
    note_cut(s, &notes); /* first: the cause of what the walk misses */
    int rc = walk(s, snap, err);
    if (interrupted)
        return err_set(err, ERR_INTERRUPTED, "interrupted");
    if (rc < 0)
        return err_context(err, rc, "%s", s->opt->core);
    fill_source(s, snap);
    note_left_out(s, &notes);
    note_modules(s, &notes);
    note_flush(&notes);
    return 0;
}

int census_core_take(const struct options *opt, struct snapshot *snap, struct err *err)
{
    struct core_census source;
    struct progress progress;
    progress_begin(&progress, opt, "reading");
    int rc = core_census_open(opt, &source, err);
    if (rc == 0)
        rc = core_census_walk(&source, snap, err);
    progress_end(&progress);
    core_census_release(&source);
    if (rc < 0 && interrupted)
        rc = err_set(err, ERR_INTERRUPTED, "interrupted");
    return rc;
}
