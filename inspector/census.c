/* Taking a census of a live process. The order is what makes the pause short: everything that can
 * be known or prepared while the target runs (ELF files, memory for the copy) comes before the
 * stop; within it only the mappings, the present pages, smaps and the bytes; the analysis comes
 * after. */
#include "inspector/census.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/hold.h"
#include "inspector/journal.h"
#include "inspector/modules.h"
#include "inspector/pause_guard.h"
#include "inspector/plan.h"
#include "inspector/progress.h"
#include "inspector/target/budget.h"
#include "inspector/target/copy.h"
#include "inspector/target/core_mem.h"
#include "inspector/target/live.h"
#include "inspector/target/maps.h"
#include "inspector/target/overlay.h"
#include "inspector/target/pages.h"
#include "inspector/target/proc.h"
#include "inspector/target/stop.h"
#include "inspector/target/sys.h"
#include "walker/walk.h"

enum { WINDOW_CACHE_PAGES = 1024 };

struct census {
    const struct options *opt;
    struct snapshot *snap;
    struct proc_status proc;
    struct maps maps;
    struct pages pages;
    struct residency res;
    struct modules modules;
    struct cpython py; /* as the first look found it */
    struct stop stop;
    struct copy *copy;
    struct copy_stats copied;
    struct mem *files;     /* text and constants, from the modules' files */
    struct mem *untouched; /* writable data of a program that is not relocated, from its file */
    struct mem *program;   /* `files` with `untouched` below */
    struct mem_region *relocated; /* mappings that are read-only since the loader relocated them */
    size_t n_relocated, cap_relocated;
    struct mem *both;  /* what is analysed, with files below it */
    struct mem *live;  /* /proc/PID/mem */
    struct mem *guard; /* over live, in windowed mode: lets go when time is up */
    struct mem *cache; /* over guard */
    struct walk_thread *threads;
    size_t n_threads;
    uint64_t paused_ns;
    bool windowed; /* walk while stopped, instead of copying */
    bool types;    /* look at every block */
    bool hurried;  /* ... was not done, for the pause's sake */
    struct journal journal;
    bool late;    /* the deadline passed before all was read */
    bool stopped; /* by us or by another tracer */
    bool moved;   /* the other tracer let it run while we read */
};

static void census_init(struct census *c, const struct options *opt, struct snapshot *snap)
{
    memset(c, 0, sizeof *c);
    c->opt = opt;
    c->snap = snap;
    c->types = opt->types;
    maps_init(&c->maps);
    pages_init(&c->pages);
    modules_init(&c->modules);
    stop_init(&c->stop, &interrupted);
    journal_init(&c->journal);
}

static void census_release(struct census *c)
{
    stop_release(&c->stop);
    cpython_release(&c->py);
    mem_close(c->both);
    mem_close(c->program);
    mem_close(c->untouched);
    mem_close(c->files);
    mem_close(c->cache);
    mem_close(c->guard);
    if (c->copy)
        mem_close(copy_mem(c->copy));
    mem_close(c->live);
    residency_release(&c->res);
    pages_release(&c->pages);
    modules_release(&c->modules);
    maps_release(&c->maps);
    free(c->relocated);
    free(c->threads);
}

/* ---- before the stop ---- */

/* No room for a copy: the walk happens while the process stands still, and types, which take ten
 * times as long as the rest, only if they were asked for. */
static void take_windows(struct census *c)
{
    c->windowed = true;
    c->hurried = c->types && !c->opt->must_types;
    c->types = c->types && c->opt->must_types;
}

/* Copy if memory allows, else walk in windows. Small room is told, not an error. */
static int choose_way(struct census *c, uint64_t bytes, struct err *err)
{
    struct budget budget;
    budget_read(&budget);
    c->windowed = c->opt->way == READ_WINDOW || c->opt->no_pause;
    if (c->windowed)
        return 0;
    if (c->opt->way == READ_AUTO && bytes + bytes / 8 + (64u << 20) > budget_room(&budget)) {
        take_windows(c);
        return 0;
    }
    int rc = copy_reserve(bytes, &c->copy, err);
    if (rc == ERR_NOMEM && c->opt->way == READ_AUTO) {
        err_clear(err);
        take_windows(c);
        rc = 0;
    }
    return rc;
}

/* Copying takes about a quarter of a second a GiB. Where that is longer than the pause may be, what
 * types need besides is left out, unless they were asked for. */
static bool too_slow(const struct census *c, uint64_t bytes)
{
    enum { BYTES_PER_NS = 4 };
    return c->types && !c->opt->must_types && c->opt->way == READ_AUTO && !c->opt->no_pause &&
           bytes / BYTES_PER_NS > c->opt->max_pause_ns;
}

static int plan_now(struct census *c, struct mem *cache, struct copy_plan *plan, struct err *err)
{
    struct plan_wish wish = {c->types, c->relocated, c->n_relocated};
    return plan_needed(&c->maps, &c->pages, cache, &c->py, &wish, plan, err);
}

static int plan_copy(struct census *c, struct mem *cache, struct copy_plan *plan, struct err *err)
{
    int rc = plan_now(c, cache, plan, err);
    if (rc < 0 || !too_slow(c, plan->bytes))
        return rc;
    c->types = false;
    c->hurried = true;
    return plan_now(c, cache, plan, err);
}

/* A first look at the running process: how much there will be to copy. */
static int first_look(struct census *c, struct err *err)
{
    struct mem *live = NULL, *cache = NULL;
    struct copy_plan plan;
    copy_plan_init(&plan);
    int rc = live_new(c->opt->pid, c->pages.runs, c->pages.n, false, &live, err);
    if (rc == 0)
        rc = mem_cache_new(live, WINDOW_CACHE_PAGES, &cache, err);
    cpython_release(&c->py);
    if (rc == 0)
        rc = plan_look(&c->maps, &c->pages, &c->modules, cache, &c->py, err);
    if (rc == 0)
        rc = plan_copy(c, cache, &plan, err);
    if (rc == 0)
        rc = choose_way(c, plan.bytes, err);
    mem_close(cache);
    mem_close(live);
    copy_plan_release(&plan);
    return rc;
}

/* What is not Python is told before anything is stopped or reserved. A running interpreter may be
 * caught changing what is looked at, so one failure proves nothing. */
static int prepare_copy(struct census *c, struct err *err)
{
    enum { TRIES = 3, NAP_NS = 2000000 };
    int rc = first_look(c, err);
    for (int i = 1; i < TRIES && (rc == ERR_UNSUPPORTED || rc == ERR_FAULT); i++) {
        sys_nap(NAP_NS);
        err_clear(err);
        rc = pages_scan_maps(&c->pages, c->opt->pid, &c->maps, PAGES_AUTO, err);
        if (rc == 0)
            rc = first_look(c, err);
    }
    return rc;
}

static int add_relocated(struct census *c, const struct vma *v, struct err *err)
{
    if (vec_reserve(&c->relocated, &c->cap_relocated, c->n_relocated + 1, sizeof *c->relocated) < 0)
        return err_set(err, ERR_NOMEM, "no memory to list the mappings of files");
    c->relocated[c->n_relocated++] = (struct mem_region){v->start, v->end};
    return 0;
}

/* What is linked to a fixed address has data that the loader need not change: a page of it that
 * nobody has touched is not present, and is what the file says. Of others all that holds addresses
 * was written. */
static int add_untouched(struct census *c, struct elf_file *elf, uint64_t bias, const struct vma *v,
                         struct err *err)
{
    if (bias || v->shared)
        return 0;
    return core_mem_add(c->untouched, v->start, v->end, elf_fd(elf), v->offset, err);
}

/* Names of types and other constants lie in text mappings, which are not copied: from the files.
 * What the loader changed there, as tables of pointers, is not in them, and has to be copied. */
static int add_constants(void *ctx, struct elf_file *elf, const struct vma *first, struct err *err)
{
    struct census *c = ctx;
    uint64_t bias;
    int rc = 0;
    if (elf_bias(elf, first->start, first->offset, &bias, NULL) < 0)
        return 0;
    for (size_t i = 0; rc == 0 && i < c->maps.n; i++) {
        const struct vma *v = &c->maps.items[i];
        if (v->inode != first->inode || v->dev != first->dev || strcmp(v->name, first->name) != 0)
            continue;
        if (v->w)
            rc = add_untouched(c, elf, bias, v, err);
        else if (elf_is_constant(elf, v->start - bias, v->end - v->start))
            rc = core_mem_add(c->files, v->start, v->end, elf_fd(elf), v->offset, err);
        else
            rc = add_relocated(c, v, err);
    }
    return modules_file_missed(rc, err);
}

static int read_modules(struct census *c, struct err *err)
{
    static const struct core none = {.fd = -1};
    static const struct core_pages no_pages;
    struct modules_files files = {add_constants, c};
    int rc = core_mem_new(&none, &no_pages, &c->files, err);
    if (rc == 0)
        rc = core_mem_new(&none, &no_pages, &c->untouched, err);
    c->n_relocated = 0;
    if (rc == 0)
        rc = modules_read(&c->modules, c->opt->pid, &c->maps, &files, err);
    plan_sort(c->relocated, c->n_relocated);
    return rc;
}

static int prepare(struct census *c, struct err *err)
{
    int rc = proc_diagnose(c->opt->pid, err);
    if (rc == 0)
        rc = proc_status_read(c->opt->pid, &c->proc, err);
    if (rc == 0)
        rc = maps_read(&c->maps, c->opt->pid, err);
    journal_add(&c->journal, "mappings read");
    if (rc == 0)
        rc = read_modules(c, err);
    journal_add(&c->journal, "ELF files read");
    if (rc == 0)
        rc = pages_scan_maps(&c->pages, c->opt->pid, &c->maps, PAGES_AUTO, err);
    if (rc == 0)
        rc = prepare_copy(c, err);
    journal_add(&c->journal, c->copy ? "memory for the copy taken" : "prepared to read in windows");
    return rc;
}

/* ---- within the stop ---- */

static int read_threads(struct census *c, struct err *err)
{
    c->threads = calloc(c->stop.n + 1, sizeof *c->threads);
    if (!c->threads)
        return err_set(err, ERR_NOMEM, "no memory for %zu threads", c->stop.n);
    for (size_t i = 0; i < c->stop.n; i++) {
        const struct stop_thread *t = &c->stop.threads[i];
        if (t->gone || !t->has_regs)
            continue;
        c->threads[c->n_threads++] = (struct walk_thread){t->tid, t->fs_base, t->rsp};
    }
    return 0;
}

/* The mappings and pages as they are now. */
static int read_state(struct census *c, struct err *err)
{
    struct maps fresh;
    maps_init(&fresh);
    int rc = maps_read(&fresh, c->opt->pid, err);
    if (rc < 0) {
        maps_release(&fresh);
        return rc;
    }
    maps_release(&c->maps);
    c->maps = fresh;
    rc = pages_scan_maps(&c->pages, c->opt->pid, &c->maps, PAGES_AUTO, err);
    if (rc == 0)
        rc = live_new(c->opt->pid, c->pages.runs, c->pages.n, c->stopped, &c->live, err);
    return rc;
}

struct smaps_job {
    struct census *c;
    pthread_t thread;
    bool threaded, finished;
    uint64_t deadline;
    struct err err;
    int rc;
};

/* smaps makes the kernel walk all pages, as long as a sixth of the copying: beside it, not after.
 */
static void *read_smaps(void *arg)
{
    struct smaps_job *job = arg;
    job->rc = maps_read_smaps(&job->c->maps, job->c->opt->pid, &job->err);
    return NULL;
}

/* Also where another tracer holds the target: it may have let it run while we read. */
static void let_go(struct census *c)
{
    if (c->stop.held_by_tracer && !stop_still_held(&c->stop))
        c->moved = true;
    if (c->stop.n && !c->stop.ended_ns)
        journal_add(&c->journal, "letting the process go");
    stop_end(&c->stop);
    c->paused_ns = stop_paused_ns(&c->stop);
}

static void smaps_start(struct smaps_job *job, struct census *c)
{
    memset(job, 0, sizeof *job);
    job->c = c;
    job->threaded = pthread_create(&job->thread, NULL, read_smaps, job) == 0;
}

/* Wait for smaps, but hold the target no longer than until the deadline. */
static int smaps_finish(struct smaps_job *job, uint64_t deadline, struct err *err)
{
    if (!job->threaded) {
        read_smaps(job);
    } else if (!hold_join(job->thread, deadline)) {
        job->c->late = true;
        let_go(job->c);
        pthread_join(job->thread, NULL);
    }
    if (job->rc < 0 && err)
        *err = job->err;
    return job->rc;
}

/* Copy and read smaps at once; let the target go as soon as both are done or time is up. */
static int copy_stopped(struct census *c, const struct copy_plan *plan, uint64_t deadline,
                        struct err *err)
{
    struct smaps_job job;
    int rc = copy_start(c->copy, plan, live_fd(c->live), err);
    if (rc < 0)
        return rc;
    smaps_start(&job, c);
    enum copy_state state = copy_wait(c->copy, deadline, &interrupted);
    if (state != COPY_DONE) {
        c->late = state == COPY_LATE;
        let_go(c);
    }
    rc = smaps_finish(&job, deadline, err);
    let_go(c);
    if (state == COPY_INTERRUPTED)
        return err_set(err, ERR_INTERRUPTED, "interrupted; the target runs on");
    return rc < 0 ? rc : copy_finish(c->copy, &c->copied, err);
}

static int take_copy(struct census *c, uint64_t deadline, struct err *err)
{
    struct copy_plan plan;
    copy_plan_init(&plan);
    int rc = mem_cache_new(c->live, WINDOW_CACHE_PAGES, &c->cache, err);
    if (rc == 0)
        rc = plan_now(c, c->cache, &plan, err);
    journal_add(&c->journal, "copy planned");
    if (rc == 0)
        rc = copy_stopped(c, &plan, deadline, err);
    copy_plan_release(&plan);
    let_go(c);
    return rc;
}

/* ---- analysis ---- */

static void fill_source(struct census *c)
{
    struct snapshot_source *s = &c->snap->source;
    char host[128] = "", when[UTC_CHARS];
    utc_text(time(NULL), when);
    c->snap->tool_version = HEAPCENSUS_VERSION;
    c->snap->taken_at = snapshot_str(c->snap, when);
    if (gethostname(host, sizeof host - 1) == 0)
        c->snap->host = snapshot_str(c->snap, host);
    s->kind = c->copy ? "copy" : "live";
    s->pid = c->opt->pid;
    s->comm = snapshot_str(c->snap, c->proc.name);
    s->exe = c->proc.exe[0] ? snapshot_str(c->snap, c->proc.exe) : NULL;
    s->exe_build_id =
        c->modules.exe_build_id[0] ? snapshot_str(c->snap, c->modules.exe_build_id) : NULL;
    s->paused_ns = c->paused_ns;
    s->threads = c->proc.threads;
    s->consistent = c->stopped && !c->late && !c->moved;
    s->read_bytes = (c->copy ? c->copied.bytes : 0) + (c->live ? c->live->bytes : 0);
}

static void add_notes(struct census *c)
{
    struct notes notes;
    notes_init(&notes, c->snap);
    if (c->late)
        note_add(&notes, "pause.limit", 0, 0,
                 "the pause reached %" PRIu64
                 " ms: the target was let go and the rest read while it "
                 "ran; --max-pause allows more",
                 c->opt->max_pause_ns / 1000000);
    if (c->moved)
        note_add(&notes, "source.moved", 0, 0, "%s (pid %d) let the process run while it was read",
                 c->stop.tracer_name, c->stop.tracer);
    if (c->stop.held_by_tracer)
        note_remark(
            &notes, "source.traced", 0, 0,
            "the process was held by %s (pid %d), not paused by heapcensus: read beside it, "
            "without thread registers",
            c->stop.tracer_name, c->stop.tracer);
    if (c->hurried)
        note_remark(&notes, "types.skipped", 0, 0,
                    "types were not counted, to keep the pause short (%s); `heapcensus types PID` "
                    "counts them all the same",
                    c->windowed ? "there is no room for a copy"
                                : "--max-pause allows a longer one");
    if (c->modules.unread)
        note_remark(&notes, "modules.unread", 0, 0,
                    "%zu mapped files could be read neither as files nor in memory",
                    c->modules.unread);
    if (c->copy && c->copied.hole_bytes)
        note_add(&notes, "read.holes", 0, c->copied.hole_bytes, "present pages could not be read");
    if (c->pages.skipped)
        note_add(&notes, "read.skipped", 0, c->pages.skipped,
                 "address ranges too large for this kernel's pagemap were not looked at");
    note_flush(&notes);
}

/* The list of pages takes the guards that glibc 2.42 puts below stacks for swapped ones; smaps does
 * not, but is there only once a copy was taken. */
static bool anything_swapped(const struct census *c)
{
    return c->copy ? c->maps.swap_total > 0 : c->pages.swapped > 0;
}

static int analyse(struct census *c, struct mem *mem, int (*settle)(void *, struct err *),
                   void *settle_ctx, struct err *err)
{
    int rc = residency_init(&c->res, c->pages.runs, c->pages.n, err);
    if (rc == 0)
        rc = overlay_new(c->files, c->untouched, &c->program, err);
    /* What was swapped out or not copied in time is not present either, but was written. */
    bool whole = !anything_swapped(c) && !c->late;
    if (rc == 0)
        rc = overlay_new(mem, whole ? c->program : c->files, &c->both, err);
    if (rc < 0)
        return rc;
    struct walk_input in = {
        .mem = c->both,
        .types = c->types,
        .blocks = c->opt->blocks,
        .vmas = maps_list(&c->maps),
        .res = &c->res,
        .data = c->modules.data,
        .n_data = c->modules.n_data,
        .threads = c->threads,
        .n_threads = c->n_threads,
        .python = {.modules = c->modules.items,
                   .n_modules = c->modules.n,
                   .interrupted = &interrupted},
        .libc_name = c->modules.libc_name,
        .libc_version = c->modules.libc_version[0] ? c->modules.libc_version : NULL,
        .interposer = c->modules.interposer,
        .settle = settle,
        .settle_ctx = settle_ctx,
    };
    return walk_run(&in, c->snap, err);
}

static void pause_is_over(void *ctx)
{
    struct census *c = ctx;
    c->late = c->stopped;
    let_go(c);
}

/* The walk has read its last byte: take smaps, which was read beside it, and let go. */
static int windows_read(void *ctx, struct err *err)
{
    struct smaps_job *job = ctx;
    int rc = smaps_finish(job, job->deadline, err);
    job->finished = true;
    let_go(job->c);
    return rc;
}

/* Walk in windows over /proc/PID/mem, smaps beside it. Pages are cached only while nothing can
 * change. */
static int walk_windows(struct census *c, uint64_t deadline, struct err *err)
{
    struct smaps_job job;
    int rc = pause_guard_new(c->live, deadline, pause_is_over, c, &interrupted, &c->guard, err);
    if (rc == 0 && c->stopped)
        rc = mem_cache_new(c->guard, WINDOW_CACHE_PAGES, &c->cache, err);
    if (rc < 0)
        return rc;
    smaps_start(&job, c);
    job.deadline = deadline;
    rc = analyse(c, c->cache ? c->cache : c->guard, windows_read, &job, err);
    let_go(c);
    if (!job.finished)
        smaps_finish(&job, deadline, NULL);
    return rc;
}

/* The modules that came with a dlopen between the preparation and the stop. */
static int refresh_modules(struct census *c, struct err *err)
{
    if (!modules_stale(&c->modules, &c->maps))
        return 0;
    modules_release(&c->modules);
    modules_init(&c->modules);
    mem_close(c->files);
    mem_close(c->untouched);
    c->files = c->untouched = NULL;
    return read_modules(c, err);
}

static int take_stopped(void *ctx, struct err *err)
{
    struct census *c = ctx;
    uint64_t deadline = sys_now_ns() + c->opt->max_pause_ns;
    int rc = stop_begin(c->opt->pid, deadline, &c->stop, err);
    if (rc < 0)
        return rc;
    c->stopped = true;
    journal_add(&c->journal, "process stopped");
    rc = read_threads(c, err);
    if (rc == 0)
        rc = read_state(c, err);
    journal_add(&c->journal, "mappings and present pages read");
    if (rc == 0)
        rc = c->windowed ? walk_windows(c, deadline, err) : take_copy(c, deadline, err);
    let_go(c);
    return rc;
}

static int take_running(struct census *c, struct err *err)
{
    int rc = read_state(c, err);
    return rc < 0 ? rc : walk_windows(c, UINT64_MAX, err);
}

/* A process that ends while it is read makes its structures look wrong: say what really happened.
 */
static int explain(pid_t pid, int rc, struct err *err)
{
    struct err now = ERR_INIT;
    if (interrupted)
        return err_set(err, ERR_INTERRUPTED, "interrupted; the target runs on");
    if (rc != ERR_UNSUPPORTED && rc != ERR_FAULT && rc != ERR_CORRUPT)
        return rc;
    if (proc_diagnose(pid, &now) != ERR_NOT_FOUND)
        return rc;
    if (err)
        *err = now;
    return ERR_NOT_FOUND;
}

int census_take(const struct options *opt, struct snapshot *snap, struct err *err)
{
    struct census c;
    census_init(&c, opt, snap);
    struct progress progress;
    progress_begin(&progress, opt, "reading");
    int rc = prepare(&c, err);
    if (rc == 0)
        rc = opt->no_pause ? take_running(&c, err) : hold_undisturbed(take_stopped, &c, err);
    if (rc == 0 && c.copy)
        rc = refresh_modules(&c, err);
    if (rc == 0 && c.copy)
        rc = analyse(&c, copy_mem(c.copy), NULL, NULL, err);
    journal_add(&c.journal, "analysed");
    if (rc == 0) {
        fill_source(&c);
        add_notes(&c);
    }
    progress_end(&progress);
    census_release(&c);
    if (opt->verbose)
        journal_print(&c.journal);
    if (rc < 0)
        rc = explain(opt->pid, rc, err);
    if (rc == 0 && interrupted)
        rc = err_set(err, ERR_INTERRUPTED, "interrupted; the target runs on");
    return rc;
}
