/* The order of things, as in census.c: what can be known or prepared while the process runs comes
 * before the stop; within it the registers, the mappings, the present pages, smaps and the bytes;
 * the file is written after, from the copy. */
#include "inspector/coredump.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "inspector/hold.h"
#include "inspector/journal.h"
#include "inspector/pause_guard.h"
#include "inspector/target/copy.h"
#include "inspector/target/core_note.h"
#include "inspector/target/core_plan.h"
#include "inspector/target/core_regs.h"
#include "inspector/target/core_write.h"
#include "inspector/target/elf.h"
#include "inspector/target/live.h"
#include "inspector/target/maps.h"
#include "inspector/target/pages.h"
#include "inspector/target/proc.h"
#include "inspector/target/procfile.h"
#include "inspector/target/stop.h"
#include "inspector/target/sys.h"

enum { DEFAULT_FILTER = 0x33 };

struct text {
    char *bytes;
    size_t len;
};

struct dump {
    const struct options *opt;
    struct coredump *result;
    /* Known before the stop. */
    struct proc_status proc;
    struct core_process process;
    struct core_sources sources;
    struct core_attrs before; /* smaps of then */
    unsigned filter;
    char build_id[ELF_BUILD_ID_CHARS], started_at[UTC_CHARS];
    struct copy *copy;
    /* As of the stop. */
    char taken_at[UTC_CHARS];
    struct stop stop;
    struct core_regs regs;
    struct text maps_text, smaps_text, auxv;
    struct maps maps;
    struct core_attrs attrs;
    struct pages pages;    /* what a census would see as present */
    struct page_run *runs; /* ... and pages of mappings that a census leaves alone */
    size_t n_runs;
    struct mem_region *wanted;
    size_t n_wanted;
    struct mem *live, *guard;
    bool late, consistent;
    /* For the file. */
    struct core_plan plan;
    struct core_notes notes;
    struct core_out writer;
    struct journal journal;
};

static void dump_init(struct dump *d, const struct options *opt, int fd, const char *name,
                      struct coredump *result)
{
    memset(d, 0, sizeof *d);
    memset(result, 0, sizeof *result);
    d->opt = opt;
    d->result = result;
    d->writer.fd = fd;
    d->writer.name = name;
    d->writer.interrupted = &interrupted;
    maps_init(&d->maps);
    pages_init(&d->pages);
    stop_init(&d->stop, &interrupted);
    core_sources_init(&d->sources, opt->pid);
    journal_init(&d->journal);
}

static void dump_release(struct dump *d)
{
    stop_release(&d->stop);
    if (d->copy)
        mem_close(copy_mem(d->copy));
    mem_close(d->guard);
    mem_close(d->live);
    core_out_release(&d->writer);
    core_notes_release(&d->notes);
    core_plan_release(&d->plan);
    core_regs_release(&d->regs);
    core_attrs_release(&d->before);
    core_attrs_release(&d->attrs);
    core_sources_release(&d->sources);
    pages_release(&d->pages);
    maps_release(&d->maps);
    free(d->runs);
    free(d->wanted);
    free(d->maps_text.bytes);
    free(d->smaps_text.bytes);
    free(d->auxv.bytes);
}

static int read_text(const struct dump *d, const char *name, struct text *ret, struct err *err)
{
    struct text fresh = {NULL, 0};
    int fd = proc_open(d->opt->pid, name, O_RDONLY, err);
    if (fd < 0)
        return fd;
    int rc = procfile_read_fd(fd, name, &fresh.bytes, &fresh.len, err);
    close(fd);
    if (rc == 0 && fresh.len == 0) {
        free(fresh.bytes);
        return err_set(err, ERR_NOT_FOUND, "process %d has exited", d->opt->pid);
    }
    if (rc < 0)
        return err_context(err, rc, "process %d", d->opt->pid);
    free(ret->bytes);
    *ret = fresh;
    return 0;
}

/* The mappings as they are now. */
static int read_maps(struct dump *d, struct err *err)
{
    int rc = read_text(d, "maps", &d->maps_text, err);
    if (rc < 0)
        return rc;
    maps_release(&d->maps);
    return maps_parse(&d->maps, d->maps_text.bytes, d->maps_text.len, err);
}

/* ---- pages ---- */

/* Without swap, pages that look swapped out are being moved by the kernel just now. */
static int scan_pages(struct dump *d, struct err *err)
{
    enum { TRIES = 5, NAP_NS = 200000 };
    int rc = pages_scan_maps(&d->pages, d->opt->pid, &d->maps, PAGES_AUTO, err);
    for (int i = 0; rc == 0 && d->pages.swapped && !d->proc.vm_swap && i < TRIES; i++) {
        sys_nap(NAP_NS);
        rc = pages_scan_maps(&d->pages, d->opt->pid, &d->maps, PAGES_AUTO, err);
    }
    return rc;
}

/* Wanted ranges that pages_scan_maps leaves out: the vdso, and memory that was made inaccessible.
 */
static int scan_rest(const struct dump *d, struct pages *rest, struct err *err)
{
    struct mem_region *ranges = calloc(d->n_wanted + 1, sizeof *ranges);
    if (!ranges)
        return err_set(err, ERR_NOMEM, "no memory for %zu ranges", d->n_wanted);
    size_t n = 0;
    for (size_t i = 0, j = 0; i < d->n_wanted; i++) {
        while (d->maps.items[j].start < d->wanted[i].start)
            j++;
        if (!pages_wanted(&d->maps, j))
            ranges[n++] = d->wanted[i];
    }
    int rc = pages_scan(rest, d->opt->pid, ranges, n, PAGES_AUTO, err);
    free(ranges);
    return rc;
}

static int merge_runs(struct dump *d, const struct pages *rest, struct err *err)
{
    free(d->runs);
    d->n_runs = 0;
    d->runs = calloc(d->pages.n + rest->n + 1, sizeof *d->runs);
    if (!d->runs)
        return err_set(err, ERR_NOMEM, "no memory for %zu page runs", d->pages.n + rest->n);
    for (size_t i = 0, j = 0; i < d->pages.n || j < rest->n;) {
        bool first =
            j == rest->n || (i < d->pages.n && d->pages.runs[i].start < rest->runs[j].start);
        d->runs[d->n_runs++] = first ? d->pages.runs[i++] : rest->runs[j++];
    }
    return 0;
}

/* Mappings, pages and what of them may be needed, as they are now. */
static int look(struct dump *d, struct err *err)
{
    struct pages rest;
    pages_init(&rest);
    int rc = read_maps(d, err);
    free(d->wanted);
    d->wanted = NULL;
    if (rc == 0)
        rc = core_plan_wanted(&d->maps, &d->before, d->filter, &d->wanted, &d->n_wanted, err);
    if (rc == 0)
        rc = scan_pages(d, err);
    if (rc == 0)
        rc = scan_rest(d, &rest, err);
    if (rc == 0)
        rc = merge_runs(d, &rest, err);
    pages_release(&rest);
    return rc;
}

/* ---- before the stop ---- */

static void read_facts(struct dump *d)
{
    char path[64];
    struct text stat;
    struct elf_file *exe;
    snprintf(path, sizeof path, "/proc/%d/exe", d->opt->pid);
    if (elf_open_path(path, &exe, NULL) == 0) {
        snprintf(d->build_id, sizeof d->build_id, "%s", elf_build_id(exe));
        elf_close(exe);
    }
    if (procfile_read("/proc/stat", &stat.bytes, &stat.len, NULL) < 0)
        return;
    const char *boot = strstr(stat.bytes, "\nbtime ");
    long hz = sysconf(_SC_CLK_TCK);
    if (boot && hz > 0)
        utc_text((time_t)(strtoull(boot + 7, NULL, 10) + d->proc.start_time / (uint64_t)hz),
                 d->started_at);
    free(stat.bytes);
}

static void read_filter(struct dump *d)
{
    char path[64], text[32];
    snprintf(path, sizeof path, "/proc/%d/coredump_filter", d->opt->pid);
    d->filter = procfile_small(path, text, sizeof text) ? (unsigned)strtoul(text, NULL, 16)
                                                        : DEFAULT_FILTER;
}

static int check_disk(const struct dump *d, uint64_t bytes, struct err *err)
{
    struct statvfs fs;
    uint64_t room;
    if (fstatvfs(d->writer.fd, &fs) < 0 || mul_overflows(fs.f_bavail, fs.f_frsize, &room) ||
        bytes <= room)
        return 0;
    err_os(err, ENOSPC,
           "cannot write %s: the core needs %" PRIu64 " MiB and the file system has %" PRIu64
           " MiB left",
           d->writer.name, bytes >> 20, room >> 20);
    err_remedy(err, "make room there, or write elsewhere with -o; the process was not stopped");
    return ERR_OS;
}

static int no_memory(int rc, struct err *err)
{
    if (rc == ERR_NOMEM)
        err_remedy(err, "use --read window: it needs little memory, but the process stands still "
                        "while the file is written");
    return rc;
}

/* How much there will be, and memory and room on the disk for it. */
static int reserve(struct dump *d, size_t smaps_len, struct err *err)
{
    enum { NOTES_PER_THREAD = 4096 };
    struct copy_plan plan;
    copy_plan_init(&plan);
    int rc = copy_plan(&plan, d->runs, d->n_runs, d->wanted, d->n_wanted, err);
    uint64_t notes = d->maps_text.len * 2 + smaps_len + d->n_runs * sizeof *d->runs +
                     d->proc.threads * NOTES_PER_THREAD;
    if (rc == 0)
        rc = check_disk(d, plan.bytes + notes, err);
    if (rc == 0 && d->opt->way != READ_WINDOW)
        rc = no_memory(copy_reserve(plan.bytes, &d->copy, err), err);
    copy_plan_release(&plan);
    return rc;
}

/* The files whose first page may be dumped are looked at now: a disk may be slow. */
static void look_at_files(struct dump *d)
{
    for (size_t i = 0; i < d->maps.n; i++) {
        const struct vma *v = &d->maps.items[i];
        if (core_head_matters(v, core_attrs_find(&d->before, v), d->filter))
            core_source_head(&d->sources, v);
    }
}

static int prepare(struct dump *d, struct err *err)
{
    struct text smaps = {NULL, 0};
    int pid = d->opt->pid;
    int rc = proc_diagnose(pid, err);
    if (rc == 0)
        rc = proc_status_read(pid, &d->proc, err);
    if (rc == 0)
        rc = core_process_read(&d->process, pid, err);
    if (rc == 0)
        rc = read_text(d, "smaps", &smaps, err);
    if (rc == 0)
        rc = core_attrs_parse(&d->before, smaps.bytes, smaps.len, err);
    free(smaps.bytes);
    read_filter(d);
    if (rc == 0)
        rc = look(d, err);
    journal_add(&d->journal, "mappings and pages read");
    if (rc < 0)
        return rc;
    look_at_files(d);
    read_facts(d);
    journal_add(&d->journal, "mapped files looked at");
    rc = reserve(d, smaps.len, err);
    journal_add(&d->journal,
                d->copy ? "memory for the copy taken" : "prepared to write while it stands still");
    return rc;
}

/* ---- within the stop ---- */

static void let_go(struct dump *d)
{
    if (d->stop.n && !d->stop.ended_ns)
        journal_add(&d->journal, "letting the process go");
    stop_end(&d->stop);
    d->result->paused_ns = stop_paused_ns(&d->stop);
}

struct smaps_job {
    struct dump *d;
    pthread_t thread;
    bool threaded;
    struct err err;
    int rc;
};

/* smaps makes the kernel walk all pages, as long as a sixth of the copying: beside it. */
static void *read_smaps(void *arg)
{
    struct smaps_job *job = arg;
    job->rc = read_text(job->d, "smaps", &job->d->smaps_text, &job->err);
    return NULL;
}

static void smaps_start(struct smaps_job *job, struct dump *d)
{
    memset(job, 0, sizeof *job);
    job->d = d;
    job->threaded = pthread_create(&job->thread, NULL, read_smaps, job) == 0;
}

/* Wait for smaps, but hold the target no longer than until the deadline. */
static int smaps_finish(struct smaps_job *job, uint64_t deadline, struct err *err)
{
    if (!job->threaded) {
        read_smaps(job);
    } else if (!hold_join(job->thread, deadline)) {
        job->d->late = true;
        let_go(job->d);
        pthread_join(job->thread, NULL);
    }
    if (job->rc < 0 && err)
        *err = job->err;
    return job->rc;
}

static int copy_stopped(struct dump *d, const struct copy_plan *plan, uint64_t deadline,
                        struct err *err)
{
    struct smaps_job job;
    struct copy_stats stats;
    int rc = copy_start(d->copy, plan, live_fd(d->live), err);
    if (rc < 0)
        return rc;
    smaps_start(&job, d);
    enum copy_state state = copy_wait(d->copy, deadline, &interrupted);
    if (state != COPY_DONE) {
        d->late = state == COPY_LATE;
        let_go(d);
    }
    rc = smaps_finish(&job, deadline, err);
    let_go(d);
    if (state == COPY_INTERRUPTED)
        return err_set(err, ERR_INTERRUPTED, "interrupted; the target runs on");
    return rc < 0 ? rc : copy_finish(d->copy, &stats, err);
}

static int take_copy(struct dump *d, uint64_t deadline, struct err *err)
{
    struct copy_plan plan;
    copy_plan_init(&plan);
    int rc = copy_plan(&plan, d->runs, d->n_runs, d->wanted, d->n_wanted, err);
    if (rc == 0)
        rc = copy_stopped(d, &plan, deadline, err);
    copy_plan_release(&plan);
    let_go(d);
    return rc;
}

/* ---- notes ---- */

static void fact(struct core_text *text, const char *key, const char *value)
{
    if (!value[0])
        return;
    core_text_add(text, key);
    core_text_add(text, "=");
    core_text_add_escaped(text, value);
    core_text_add(text, "\n");
}

static int add_text(struct dump *d, enum core_note_type type, struct core_text *text,
                    struct err *err)
{
    int rc = text->failed
                 ? err_set(err, ERR_NOMEM, "no memory for the notes of the core")
                 : core_note_add(&d->notes, CORE_NOTE_OWNER, type, text->bytes, text->n, err);
    core_text_release(text);
    return rc;
}

static int add_facts(struct dump *d, uint64_t paused_ns, struct err *err)
{
    struct core_text text = {0};
    char host[128] = "", number[32];
    if (gethostname(host, sizeof host - 1) < 0)
        host[0] = '\0';
    snprintf(number, sizeof number, "%" PRIu64, paused_ns);
    fact(&text, "taken_at", d->taken_at);
    fact(&text, "started_at", d->started_at);
    fact(&text, "host", host);
    fact(&text, "exe", d->proc.exe);
    fact(&text, "exe_build_id", d->build_id);
    fact(&text, "paused_ns", number);
    fact(&text, "consistent", d->late ? "0" : "1");
    return add_text(d, CORE_NOTE_FACTS, &text, err);
}

static int add_threads(struct dump *d, struct err *err)
{
    struct core_text text = {0};
    char number[32];
    for (size_t i = 0; i < d->regs.n; i++) {
        snprintf(number, sizeof number, "%d ", d->regs.threads[i].tid);
        core_text_add(&text, number);
        core_text_add_escaped(&text, d->regs.threads[i].comm);
        core_text_add(&text, "\n");
    }
    return add_text(d, CORE_NOTE_THREADS, &text, err);
}

static int make_notes(struct dump *d, uint64_t paused_ns, struct err *err)
{
    struct core_notes *notes = &d->notes;
    core_notes_release(notes);
    int rc =
        core_note_process(notes, &d->process, &d->regs, d->auxv.bytes, d->auxv.len, &d->maps, err);
    if (rc == 0)
        rc = core_note_add(notes, CORE_NOTE_OWNER, CORE_NOTE_MAPS, d->maps_text.bytes,
                           d->maps_text.len, err);
    if (rc == 0)
        rc = core_note_add(notes, CORE_NOTE_OWNER, CORE_NOTE_SMAPS, d->smaps_text.bytes,
                           d->smaps_text.len, err);
    if (rc == 0)
        rc = core_note_add(notes, CORE_NOTE_OWNER, CORE_NOTE_PAGES, d->pages.runs,
                           d->pages.n * sizeof *d->pages.runs, err);
    if (rc == 0)
        rc = add_threads(d, err);
    return rc < 0 ? rc : add_facts(d, paused_ns, err);
}

/* ---- the file ---- */

/* Where everything goes. The longest pause that a number can tell makes the largest notes. */
static int lay_out(struct dump *d, struct err *err)
{
    int rc = core_attrs_parse(&d->attrs, d->smaps_text.bytes, d->smaps_text.len, err);
    if (rc == 0)
        rc = core_plan_make(&d->plan, &d->maps, &d->attrs, d->filter, &d->sources, err);
    if (rc == 0)
        rc = make_notes(d, UINT64_MAX, err);
    if (rc < 0)
        return rc;
    core_layout(&d->plan, d->notes.n);
    d->writer.present = d->runs;
    d->writer.n_present = d->n_runs;
    return core_write_size(&d->writer, &d->plan, err);
}

static void pause_is_over(void *ctx)
{
    struct dump *d = ctx;
    d->late = true;
    let_go(d);
}

static int write_windows(struct dump *d, uint64_t deadline, struct err *err)
{
    int rc = read_text(d, "smaps", &d->smaps_text, err);
    if (rc == 0)
        rc = lay_out(d, err);
    journal_add(&d->journal, "layout planned");
    if (rc == 0)
        rc = pause_guard_new(d->live, deadline, pause_is_over, d, &interrupted, &d->guard, err);
    if (rc == 0)
        rc = core_write_memory(&d->writer, &d->plan, d->guard, err);
    let_go(d);
    return rc;
}

/* What is written once the process runs again. */
static int finish(struct dump *d, struct err *err)
{
    int rc = d->copy ? lay_out(d, err) : 0;
    if (rc == 0 && d->copy)
        rc = core_write_memory(&d->writer, &d->plan, copy_mem(d->copy), err);
    journal_add(&d->journal, "memory written");
    if (rc == 0)
        rc = core_write_files(&d->writer, &d->plan, &d->sources, err);
    journal_add(&d->journal, "pages of files written");
    if (rc == 0)
        rc = make_notes(d, d->result->paused_ns, err);
    if (rc == 0)
        rc = core_write_head(&d->writer, &d->plan, &d->notes, err);
    return rc;
}

static int refuse_tracer(const struct dump *d, struct err *err)
{
    err_set(err, ERR_PERMISSION,
            "process %d is held by %s (pid %d), so its registers cannot be read", d->opt->pid,
            d->stop.tracer_name, d->stop.tracer);
    err_remedy(err, "write the core with that tracer (gdb: generate-core-file), or end it first");
    return ERR_PERMISSION;
}

static int take_stopped(void *ctx, struct err *err)
{
    struct dump *d = ctx;
    uint64_t deadline = sys_now_ns() + d->opt->max_pause_ns;
    int rc = stop_begin(d->opt->pid, deadline, &d->stop, err);
    if (rc < 0)
        return rc;
    if (d->stop.held_by_tracer)
        return refuse_tracer(d, err);
    journal_add(&d->journal, "process stopped");
    utc_text(time(NULL), d->taken_at);
    rc = core_regs_read(&d->regs, &d->stop, err);
    journal_add(&d->journal, "registers read");
    if (rc == 0)
        rc = read_text(d, "auxv", &d->auxv, err);
    if (rc == 0)
        rc = look(d, err);
    if (rc == 0)
        rc = live_new(d->opt->pid, d->runs, d->n_runs, true, &d->live, err);
    journal_add(&d->journal, "mappings and present pages read");
    if (rc == 0)
        rc = d->copy ? take_copy(d, deadline, err) : write_windows(d, deadline, err);
    let_go(d);
    return rc;
}

static void fill_result(const struct dump *d)
{
    struct coredump *r = d->result;
    r->written = d->writer.written;
    r->mapped = d->plan.mapped;
    r->threads = d->regs.n;
    r->swapped = d->writer.swapped;
    r->unread = d->writer.unread;
    r->skipped = d->pages.skipped;
    r->unfilled = d->writer.unfilled;
    r->late = d->late;
    if (d->writer.unfilled_name)
        snprintf(r->unfilled_name, sizeof r->unfilled_name, "%s", d->writer.unfilled_name);
}

int coredump_take(const struct options *opt, int fd, const char *name, struct coredump *ret,
                  struct err *err)
{
    struct dump *d = malloc(sizeof *d);
    if (!d)
        return err_set(err, ERR_NOMEM, "no memory to write a core");
    dump_init(d, opt, fd, name, ret);
    int rc = prepare(d, err);
    if (rc == 0 && interrupted)
        rc = err_set(err, ERR_INTERRUPTED, "interrupted; the target runs on");
    if (rc == 0)
        rc = hold_undisturbed(take_stopped, d, err);
    if (rc == 0)
        rc = finish(d, err);
    journal_add(&d->journal, "core written");
    if (rc == 0)
        fill_result(d);
    if (opt->verbose)
        journal_print(&d->journal);
    dump_release(d);
    free(d);
    if (interrupted && rc != 0)
        rc = err_set(err, ERR_INTERRUPTED, "interrupted; the target runs on");
    return rc;
}
