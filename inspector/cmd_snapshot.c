/* heapcensus snapshot: the census as a file. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/json.h"
#include "formats/report.h"
#include "inspector/census.h"
#include "inspector/census_core.h"
#include "inspector/cmd.h"

/* heapcensus.<comm>.<pid>.<UTC time>.jsonl.gz, with nothing in it that a shell or a path minds. */
static void default_name(const struct snapshot *snap, char *buf, size_t cap)
{
    char comm[32] = "process", when[32] = "";
    size_t at = 0;
    if (snap->source.comm && snap->source.comm[0]) {
        for (const char *p = snap->source.comm; *p && at + 1 < sizeof comm; p++) {
            bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                         (*p >= '0' && *p <= '9') || strchr("._-", *p);
            comm[at++] = plain ? *p : '_';
        }
        comm[at] = '\0';
    }
    at = 0;
    for (const char *p = snap->taken_at ? snap->taken_at : ""; *p && at + 1 < sizeof when; p++)
        if (*p != ':' && *p != '-')
            when[at++] = *p;
    when[at] = '\0';
    snprintf(buf, cap, "heapcensus.%s.%" PRId64 ".%s.jsonl.gz", comm, snap->source.pid, when);
}

static int save(const struct options *opt, const struct snapshot *snap, struct err *err)
{
    char name[160], rss[32];
    const char *path = opt->output;
    if (!path) {
        default_name(snap, name, sizeof name);
        path = name;
    }
    int rc = json_save(snap, path, opt->force, err);
    if (rc < 0 || opt->quiet || strcmp(path, "-") == 0)
        return rc;
    printf("%s: %s resident, ", path,
           report_size(rss, sizeof rss, snap->memory.rss_bytes, opt->bytes));
    if (opt->pid)
        printf("paused %.1f ms, ", (double)snap->source.paused_ns / 1e6);
    printf("%zu note%s\n", snap->n_notes, snap->n_notes == 1 ? "" : "s");
    printf("next: heapcensus summary %s\n", path);
    return report_done(stdout, err);
}

int cmd_snapshot(const struct options *opt, struct err *err)
{
    if (!opt->pid && !opt->core)
        return cmd_no_target(opt, "a snapshot is taken of", err);
    struct snapshot snap;
    snapshot_init(&snap);
    int rc = opt->core ? census_core_take(opt, &snap, err) : census_take(opt, &snap, err);
    if (rc == 0)
        rc = save(opt, &snap, err);
    if (rc == 0 && !snap.complete) {
        fprintf(stderr, "heapcensus: written, but incomplete: %s\n",
                snap.n_notes ? snap.notes[0].why : "see the notes");
        fprintf(stderr, "heapcensus: all notes are in the file and in `heapcensus summary FILE`\n");
        rc = EXIT_INCOMPLETE;
    }
    snapshot_release(&snap);
    return rc;
}
