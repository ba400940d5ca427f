/* heapcensus core: a core file of a live process. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/report.h"
#include "formats/sink.h"
#include "inspector/cmd.h"
#include "inspector/coredump.h"
#include "inspector/progress.h"
#include "inspector/target/proc.h"

enum { NAME_BYTES = 128 };

static int check_options(const struct options *opt, struct err *err)
{
    size_t len = opt->output ? strlen(opt->output) : 0;
    if (!opt->pid) {
        err_set(err, ERR_USAGE, "a core is written of a process, and '%s' is no PID",
                opt->core ? opt->core : opt->target);
        err_remedy(err, "heapcensus core PID -o FILE");
        return ERR_USAGE;
    }
    if (opt->no_pause) {
        err_set(err, ERR_USAGE, "a core of a process that runs would fit no moment of it");
        err_remedy(err, "leave --no-pause out; --max-pause bounds the pause");
        return ERR_USAGE;
    }
    if (opt->output && strcmp(opt->output, "-") == 0) {
        err_set(err, ERR_USAGE, "a core needs a file that can be written at any place");
        err_remedy(err, "heapcensus core PID -o FILE");
        return ERR_USAGE;
    }
    struct stat st;
    if (opt->output && stat(opt->output, &st) == 0 && !S_ISREG(st.st_mode)) {
        err_set(err, ERR_USAGE, "a core needs a file that can be written at any place, not %s",
                opt->output);
        err_remedy(err, "heapcensus core PID -o FILE");
        return ERR_USAGE;
    }
    if (len > 3 && strcmp(opt->output + len - 3, ".gz") == 0) {
        err_set(err, ERR_USAGE, "a core is written plain, not compressed");
        err_remedy(err, "compress it afterwards: zstd FILE, or gzip FILE");
        return ERR_USAGE;
    }
    return 0;
}

/* core.<comm>.<pid>, with nothing in it that a shell or a path minds. */
static void default_name(const struct options *opt, char *buf, size_t cap)
{
    char comm[PROC_COMM];
    proc_comm(opt->pid, comm, sizeof comm);
    for (char *p = comm; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("._-", *p);
        if (!plain)
            *p = '_';
    }
    snprintf(buf, cap, "core.%s.%d", comm, (int)opt->pid);
}

/* Pipes and devices, which outfile_open takes as they are, cannot hold a core. */
static int open_file(struct outfile *f, const struct options *opt, const char *path,
                     struct err *err)
{
    int rc = outfile_open(f, path, opt->force, err);
    if (rc < 0 || f->temporary)
        return rc;
    outfile_abort(f);
    return err_set(err, ERR_USAGE, "%s is not a regular file", path);
}

static int report(const struct options *opt, const char *path, const struct coredump *core,
                  struct err *err)
{
    char written[32], mapped[32];
    if (opt->quiet)
        return 0;
    printf("%s: %s of %s mapped, paused %.1f ms\n", path,
           report_size(written, sizeof written, core->written, opt->bytes),
           report_size(mapped, sizeof mapped, core->mapped, opt->bytes),
           (double)core->paused_ns / 1e6);
    printf("next: heapcensus summary %s\n", path);
    return report_done(stdout, err);
}

static void incomplete(const char *why, const char *remedy)
{
    fputs("heapcensus: written, but incomplete: ", stderr);
    report_string(stderr, why);
    fprintf(stderr, "\nheapcensus: %s\n", remedy);
}

/* One line of cause and one of remedy for each; the exit code. */
static int tell_gaps(const struct options *opt, const struct coredump *core)
{
    char why[512], size[32];
    int code = EXIT_OK;
    struct {
        uint64_t bytes;
        const char *what, *remedy;
    } gaps[] = {
        {core->swapped, "are swapped out and were left out, as reading would swap them in",
         "write it again when they are in memory (swapoff brings them back)"},
        {core->unread, "of present pages could not be read", "write it again"},
        {core->skipped, "of address space are too large for this kernel's pagemap",
         "Linux 6.7 and newer can tell what is present there"},
        {core->unfilled, "of mapped files are not in memory, and the files could not be read",
         "as root it works: /proc/PID/map_files leads to deleted files and shared memory"},
    };
    for (size_t i = 0; i < sizeof gaps / sizeof gaps[0]; i++) {
        if (!gaps[i].bytes)
            continue;
        bool named = gaps[i].bytes == core->unfilled && core->unfilled_name[0];
        snprintf(why, sizeof why, "%s %s%s%s", report_size(size, sizeof size, gaps[i].bytes, false),
                 gaps[i].what, named ? "; first " : "", named ? core->unfilled_name : "");
        incomplete(why, gaps[i].remedy);
        code = EXIT_INCOMPLETE;
    }
    if (!core->late)
        return code;
    snprintf(why, sizeof why,
             "the pause reached %" PRIu64 " ms: the process was let go and the rest read while "
             "it ran",
             opt->max_pause_ns / 1000000);
    incomplete(why, "allow more with --max-pause");
    return EXIT_INCOMPLETE;
}

/* `ulimit -f` is told as an error of the write, not by the end of us. */
static void ignore_file_limit(void)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGXFSZ, &ignore, NULL);
}

int cmd_core(const struct options *opt, struct err *err)
{
    char name[NAME_BYTES];
    const char *path = opt->output ? opt->output : name;
    struct outfile file;
    struct coredump core;
    struct progress progress;
    int rc = check_options(opt, err);
    if (rc == 0)
        rc = proc_diagnose(opt->pid, err);
    if (rc < 0)
        return rc;
    ignore_file_limit();
    default_name(opt, name, sizeof name);
    rc = open_file(&file, opt, path, err);
    if (rc < 0)
        return rc;
    progress_begin(&progress, opt, "writing a core of");
    rc = coredump_take(opt, file.below.fd, path, &core, err);
    progress_end(&progress);
    if (rc < 0)
        outfile_abort(&file);
    else
        rc = outfile_commit(&file, err);
    if (rc == 0)
        rc = report(opt, path, &core, err);
    return rc < 0 ? rc : tell_gaps(opt, &core);
}
