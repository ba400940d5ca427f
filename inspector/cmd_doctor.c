/* heapcensus doctor: what would work on this process and why not, without stopping it. */
#include "inspector/doctor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "formats/report.h"
#include "inspector/census.h"
#include "inspector/modules.h"
#include "inspector/target/budget.h"
#include "inspector/target/maps.h"
#include "inspector/target/pages.h"
#include "inspector/target/proc.h"

static void json_text(FILE *out, const char *s)
{
    fputc('"', out);
    for (; *s; s++) {
        unsigned char ch = (unsigned char)*s;
        if (ch == '"' || ch == '\\')
            fprintf(out, "\\%c", ch);
        else if (ch < 0x20 || ch >= 0x7f)
            fprintf(out, "\\u%04x", ch);
        else
            fputc(ch, out);
    }
    fputc('"', out);
}

void doctor_check(struct checkup *c, bool ok, const char *name, const char *finding,
                  const char *remedy)
{
    c->failed += !ok;
    if (c->json) {
        fprintf(c->out, "%s{\"check\":\"%s\",\"ok\":%s,\"finding\":", c->n ? "," : "", name,
                ok ? "true" : "false");
        json_text(c->out, finding);
        fputs(",\"remedy\":", c->out);
        if (remedy && remedy[0])
            json_text(c->out, remedy);
        else
            fputs("null", c->out);
        fputc('}', c->out);
    } else {
        fprintf(c->out, "%-4s %-12s ", ok ? "ok" : "FAIL", name);
        report_string(c->out, finding);
        fputc('\n', c->out);
        if (remedy && remedy[0])
            fprintf(c->out, "     %-12s -> %s\n", "", remedy);
    }
    c->n++;
}

static void check_process(struct checkup *c, const struct proc_status *p)
{
    char text[512];
    snprintf(text, sizeof text, "%s, uid %u, state %c, %" PRIu64 " thread%s%s", p->name, p->uid,
             p->state, p->threads, p->threads == 1 ? "" : "s",
             p->ns_depth > 1 ? ", in a PID namespace of its own (a container)" : "");
    doctor_check(c, true, "process", text, NULL);
    if (p->tracer) {
        char tracer[PROC_COMM];
        proc_comm(p->tracer, tracer, sizeof tracer);
        snprintf(text, sizeof text,
                 "traced by %s (pid %d): read beside it while it holds the process", tracer,
                 p->tracer);
        doctor_check(c, p->state == 't' || p->state == 'T', "tracer", text,
                     p->state == 't' || p->state == 'T'
                         ? ""
                         : "stop the process in that tracer, detach it, or use --no-pause");
    }
}

static void check_memory(struct checkup *c, const struct pages *pages)
{
    struct budget b;
    char text[256], need[32], room[32];
    budget_read(&b);
    report_size(need, sizeof need, pages->present, false);
    report_size(room, sizeof room, budget_room(&b), false);
    bool copy = pages->present + pages->present / 8 + (64u << 20) <= budget_room(&b);
    snprintf(text, sizeof text, "%s present, %s free for a copy: %s", need, room,
             copy ? "it will be copied (shortest pause)"
                  : "it will be walked in windows while stopped (longer pause, little memory)");
    doctor_check(c, true, "memory", text, NULL);
    snprintf(text, sizeof text, "at most about %.0f ms (0.2 s per GiB)",
             (double)pages->present / (1u << 30) * 200 + 1);
    doctor_check(c, true, "pause", text, NULL);
    doctor_check(c, true, "pages",
                 pages->method == PAGES_SCAN
                     ? "PAGEMAP_SCAN (Linux 6.7 and newer)"
                     : "/proc/PID/pagemap (older kernel: slower, zero pages count)",
                 NULL);
}

static void check_malloc(struct checkup *c, const struct snapshot *snap)
{
    char text[256];
    snprintf(text, sizeof text, "%s %s, malloc is %s, %" PRIu64 " arena%s",
             snap->libc.name ? snap->libc.name : "unknown",
             snap->libc.version ? snap->libc.version : "",
             snap->libc.allocator ? snap->libc.allocator : "unknown", snap->malloc.arenas,
             snap->malloc.arenas == 1 ? "" : "s");
    doctor_check(c, snap->malloc.present, "malloc", text,
                 snap->malloc.present ? "" : "its memory is shown as one category, not walked");
}

static void check_python(struct checkup *c, const struct snapshot_python *py)
{
    char text[700];
    if (!py->present) {
        doctor_check(c, false, "python", "no interpreter was found", "");
        return;
    }
    snprintf(text, sizeof text, "CPython %s%s%s%s, %s, %s, found by %s", py->version,
             py->debug ? ", debug build" : "", py->free_threaded ? ", free-threaded" : "",
             py->trace_refs ? ", Py_TRACE_REFS" : "", py->allocator, py->state, py->found_by);
    doctor_check(c, true, "python", text, NULL);
    snprintf(text, sizeof text, "%s from %s", py->layout_name, py->layout_source);
    doctor_check(c, true, "layout", text, NULL);
}

void doctor_facts(struct checkup *c, const struct snapshot *snap)
{
    char text[64];
    check_python(c, &snap->python);
    check_malloc(c, snap);
    snprintf(text, sizeof text, "tracemalloc is %s", snap->python.tracemalloc ? "on" : "off");
    doctor_check(c, true, "tracemalloc", text, NULL);
}

/* A census of the running process, without a stop, proves the rest. */
static int check_census(struct checkup *c, const struct options *opt)
{
    struct err err = ERR_INIT;
    struct options quiet = *opt;
    struct snapshot snap;
    quiet.no_pause = true;
    quiet.quiet = true;
    snapshot_init(&snap);
    int rc = census_take(&quiet, &snap, &err);
    if (rc < 0) {
        doctor_check(c, false, "python", err.text, err.remedy);
        snapshot_release(&snap);
        return exit_of_err(&err);
    }
    doctor_facts(c, &snap);
    snapshot_release(&snap);
    return 0;
}

static int run_checks(struct checkup *c, const struct options *opt)
{
    struct err err = ERR_INIT;
    struct proc_status proc;
    struct maps maps;
    struct pages pages;
    maps_init(&maps);
    pages_init(&pages);
    int rc = proc_status_read(opt->pid, &proc, &err);
    if (rc == 0)
        check_process(c, &proc);
    if (rc == 0)
        rc = proc_diagnose(opt->pid, &err);
    if (rc == 0)
        rc = maps_read(&maps, opt->pid, &err);
    if (rc == 0)
        rc = pages_scan_maps(&pages, opt->pid, &maps, PAGES_AUTO, &err);
    if (rc < 0) {
        doctor_check(c, false, "access", err.text, err.remedy);
        rc = exit_of_err(&err);
    } else {
        doctor_check(c, true, "access", "the process can be read and stopped", NULL);
        check_memory(c, &pages);
        rc = check_census(c, opt);
    }
    pages_release(&pages);
    maps_release(&maps);
    return rc;
}

static bool begin(struct checkup *c, const struct options *opt)
{
    if (opt->json && opt->core) {
        fputs("{\"schema\":1,\"view\":\"doctor\",\"core\":", c->out);
        json_text(c->out, opt->core);
        fputs(",\"checks\":[", c->out);
    } else if (opt->json) {
        fprintf(c->out, "{\"schema\":1,\"view\":\"doctor\",\"pid\":%d,\"checks\":[", (int)opt->pid);
    }
    return opt->core != NULL;
}

static void finish(const struct checkup *c, const struct options *opt, int rc)
{
    if (opt->json) {
        fprintf(c->out, "],\"failed\":%u}\n", c->failed);
    } else if (!opt->quiet && rc == 0 && opt->core) {
        fputs("\nnext: heapcensus summary ", c->out);
        report_string(c->out, opt->core);
        fputc('\n', c->out);
    } else if (!opt->quiet && rc == 0) {
        fprintf(c->out, "\nnext: heapcensus summary %d\n", (int)opt->pid);
    }
}

int cmd_doctor(const struct options *opt, struct err *err)
{
    struct checkup c = {.out = stdout, .json = opt->json};
    if (!opt->pid && !opt->core)
        return cmd_no_target(opt, "the doctor looks at", err);
    struct options plain = *opt;
    plain.types = false;
    int rc = begin(&c, opt) ? doctor_core(&c, &plain) : run_checks(&c, &plain);
    finish(&c, opt, rc);
    int done = report_done(c.out, err);
    return done < 0 ? done : rc;
}
