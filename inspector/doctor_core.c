/* The doctor on a core: how whole it is, what it tells, and which files on this machine belong to
 * it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/report.h"
#include "inspector/census_core.h"
#include "inspector/doctor.h"

static void check_file(struct checkup *c, const struct core_census *s)
{
    static const char *const writers[] = {[CORE_BY_KERNEL] = "the kernel",
                                          [CORE_BY_GDB] = "gdb",
                                          [CORE_BY_HEAPCENSUS] = "heapcensus"};
    const struct core *core = &s->core;
    char text[512], size[32], here[32], dumped[32];
    snprintf(text, sizeof text, "written by %s, %s%s%s, %zu mappings, %s of data in %zu segments",
             writers[core->writer], report_size(size, sizeof size, core->size, false),
             core->packed ? ", compressed with " : "", core->packed ? core->packed : "", s->maps.n,
             report_size(here, sizeof here, s->pages.bytes, false), core->n_segments);
    doctor_check(c, true, "core", text, NULL);
    snprintf(text, sizeof text, "%.1f %%: %s of the %s that it should hold",
             core->dumped_bytes ? (double)core->here_bytes * 100 / (double)core->dumped_bytes
                                : 100.0,
             report_size(here, sizeof here, core->here_bytes, false),
             report_size(dumped, sizeof dumped, core->dumped_bytes, false));
    doctor_check(c, !core->truncated && !core->notes_cut, "coverage", text,
                 core->truncated || core->notes_cut
                     ? "it was cut short: look for a full disk, ulimit -c, or systemd's "
                       "ProcessSizeMax and ExternalSizeMax"
                     : "");
    bool filtered = s->left_out_bytes && !s->heap_bytes;
    snprintf(text, sizeof text,
             "left out: %s of the process's own memory, %s of shared memory, %s of mapped files",
             report_size(here, sizeof here, s->left_out_bytes, false),
             report_size(dumped, sizeof dumped, s->shared_bytes, false),
             report_size(size, sizeof size, s->file_bytes, false));
    doctor_check(c, !filtered, "filter", text,
                 filtered ? "bit 0 of /proc/PID/coredump_filter must be set before the crash" : "");
}

static void check_process(struct checkup *c, const struct core *core)
{
    char text[512], name[32];
    if (core->pid)
        snprintf(text, sizeof text, "%s, pid %d, uid %u%s%s",
                 core->comm[0] ? core->comm : "name unknown", core->pid, core->uid,
                 core->args[0] ? ": " : "", core->args);
    else
        snprintf(text, sizeof text, "the core does not tell");
    doctor_check(c, core->pid != 0, "process", text, "");
    if (core->signal.known && core->signal.number) {
        const char *reason = core_signal_reason(&core->signal);
        int n = snprintf(text, sizeof text, "%s%s%s",
                         core_signal_name(core->signal.number, name, sizeof name),
                         reason[0] ? ", " : "", reason);
        if (core->signal.address)
            n += snprintf(text + n, sizeof text - (size_t)n, ", address 0x%" PRIx64,
                          core->signal.address);
        if (core->signal.sender_pid > 0)
            snprintf(text + n, sizeof text - (size_t)n, ", from pid %d (uid %u)",
                     core->signal.sender_pid, core->signal.sender_uid);
        doctor_check(c, true, "signal", text, NULL);
    }
}

static void check_threads(struct checkup *c, const struct core *core)
{
    char text[512];
    size_t n = (size_t)snprintf(text, sizeof text, "%zu:", core->n_threads);
    size_t i = 0;
    for (; i < core->n_threads && n + 48 < sizeof text; i++) {
        const struct core_thread *t = &core->threads[i];
        n += (size_t)snprintf(text + n, sizeof text - n, " %d%s%.20s%s", t->tid,
                              t->name ? " (" : "", t->name ? t->name : "", t->name ? ")" : "");
    }
    if (i < core->n_threads)
        snprintf(text + n, sizeof text - n, " ...");
    doctor_check(c, core->n_threads > 0, "threads", core->n_threads ? text : "none in the core",
                 "");
}

static void check_module(struct checkup *c, const struct module_file *f)
{
    static const char *const verdicts[] = {
        [ELF_PROVEN] = "",
        [ELF_DIFFERENT] = " is another file and was not used",
        [ELF_MISSING] = " is not here",
        [ELF_UNPROVABLE] = " cannot be proven to be the file and was not used",
    };
    char text[3 * 4096];
    snprintf(text, sizeof text, "%s%s (build-id expected %s, found %s)",
             f->file ? f->file : f->path, verdicts[f->identity],
             f->expected[0] ? f->expected : "none", f->found[0] ? f->found : "none");
    doctor_check(c, f->identity == ELF_PROVEN, f->is_exe ? "executable" : "module", text,
                 f->identity == ELF_PROVEN ? ""
                 : f->is_exe ? "--exe FILE or --sysroot DIR; without it only the core is read"
                             : "--sysroot DIR; without it only the core is read");
}

int doctor_core(struct checkup *c, const struct options *opt)
{
    struct core_census source;
    struct snapshot snap;
    struct err err = ERR_INIT;
    int rc = core_census_open(opt, &source, &err);
    snapshot_init(&snap);
    if (rc < 0) {
        doctor_check(c, false, "core", err.text, err.remedy);
    } else {
        check_file(c, &source);
        check_process(c, &source.core);
        check_threads(c, &source.core);
        for (size_t i = 0; i < source.modules.n_files; i++)
            check_module(c, &source.modules.files[i]);
        rc = core_census_walk(&source, &snap, &err);
        if (rc < 0)
            doctor_check(c, false, "python", err.text, err.remedy);
        else
            doctor_facts(c, &snap);
    }
    snapshot_release(&snap);
    core_census_release(&source);
    return rc < 0 ? (int)exit_of_err(&err) : EXIT_OK;
}
