/* The view `sites`: who allocated, as tracemalloc recorded it. */
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "formats/report_sites.h"
#include "inspector/view.h"

enum { USUAL_ROWS = 25, USUAL_TOP = 10 };

enum site_format { FORMAT_TABLE, FORMAT_TRACEMALLOC, FORMAT_DISPLAY_TOP };

static int take_format(const struct options *opt, enum site_format *ret, struct err *err)
{
    static const char *const names[] = {"table", "tracemalloc", "display_top"};
    *ret = FORMAT_TABLE;
    if (!opt->format)
        return 0;
    for (int i = 0; i < 3; i++) {
        if (strcmp(names[i], opt->format) == 0) {
            *ret = (enum site_format)i;
            return 0;
        }
    }
    err_set(err, ERR_USAGE, "sites cannot be printed as '%s'", opt->format);
    err_remedy(err, "--format takes table, tracemalloc or display_top");
    return ERR_USAGE;
}

struct sites_job {
    const struct options *opt;
    enum site_format format;
    struct snapshot snap;
    struct site_stats stats;
    struct site_source source;
    struct report_sites report;
    struct json_sites json;
};

/* The number in display_top()'s headline is what was asked for, not what there is. */
static size_t asked(const struct sites_job *job)
{
    if (job->opt->top < 0)
        return USUAL_TOP;
    return job->opt->top ? (size_t)job->opt->top : job->report.shown;
}

static int print_text(void *ctx, FILE *out, struct err *err)
{
    const struct sites_job *job = ctx;
    char pid[VIEW_PID_MAX];
    struct report_options look = view_report_options(job->opt, pid);
    if (job->format == FORMAT_TRACEMALLOC)
        return report_tracemalloc_sites(&job->report, out, err);
    if (job->format == FORMAT_DISPLAY_TOP)
        return report_display_top(&job->report, asked(job), out, err);
    return report_text_sites(&job->report, &look, out, err);
}

static int render_json(void *ctx, struct sink *sink, struct err *err)
{
    const struct sites_job *job = ctx;
    return json_write_sites(&job->snap, &job->json, sink, err);
}

/* A script that reads tracemalloc's words must not take silence for an empty table: tracemalloc
 * itself raises an exception then. */
static int check_traced(const struct sites_job *job, struct err *err)
{
    if (job->format == FORMAT_TABLE || job->opt->json || report_sites_traced(&job->snap))
        return 0;
    err_set(err, ERR_UNSUPPORTED, "%s", report_sites_why_not(&job->snap));
    err_remedy(err, "%s", report_sites_remedy(&job->snap));
    return ERR_UNSUPPORTED;
}

/* Where sources are looked for: where the user says, in the process's own root and folder, here. */
static void find_sources(struct sites_job *job)
{
    char path[64];
    site_source_init(&job->source);
    if (job->opt->pid) {
        snprintf(path, sizeof path, "/proc/%d/root", (int)job->opt->pid);
        site_source_add_root(&job->source, path);
        snprintf(job->source.cwd, sizeof job->source.cwd, "/proc/%d/cwd", (int)job->opt->pid);
    }
    if (job->opt->sysroot)
        site_source_add_root(&job->source, job->opt->sysroot);
}

static int write_sites(struct sites_job *job, enum site_key key, bool filtered, struct err *err)
{
    const struct options *opt = job->opt;
    size_t usual = opt->json || job->format == FORMAT_TRACEMALLOC ? 0
                   : job->format == FORMAT_DISPLAY_TOP            ? USUAL_TOP
                                                                  : USUAL_ROWS;
    int rc = site_stats_sort(&job->stats, opt->sort, opt->reverse, err);
    if (rc < 0)
        return rc;
    size_t n = report_sites_choose(&job->stats, opt->min_size, opt->top, usual);
    job->json = (struct json_sites){&job->stats, key, opt->cumulative, n};
    job->report = (struct report_sites){
        .snap = &job->snap,
        .stats = &job->stats,
        .shown = n,
        .key = key,
        .cumulative = opt->cumulative,
        .filtered = filtered,
        .text = {(uint32_t)opt->limit, opt->most_recent_first, &job->source},
    };
    if (opt->json)
        return view_write(opt, render_json, job, err);
    find_sources(job);
    rc = view_write_text(opt, print_text, job, err);
    site_source_release(&job->source);
    return rc;
}

static int run_sites(struct sites_job *job, enum site_key key, const struct site_filters *filters,
                     struct err *err)
{
    int rc = view_load(job->opt, &job->snap, err);
    if (rc == 0)
        rc = check_traced(job, err);
    if (rc == 0)
        rc = site_stats_make(&job->snap, key, job->opt->cumulative, filters, &job->stats, err);
    if (rc == 0)
        rc = write_sites(job, key, filters->n || filters->type_regex, err);
    if (rc == 0 && !job->snap.complete)
        rc = EXIT_INCOMPLETE;
    site_stats_release(&job->stats);
    return rc;
}

int cmd_sites(const struct options *opt, struct err *err)
{
    struct sites_job job = {.opt = opt};
    struct view_filters filters;
    enum site_key key = SITES_BY_LINE;
    int rc = view_check_sort(opt, "sites", "size,count", err);
    if (rc == 0)
        rc = take_format(opt, &job.format, err);
    if (rc == 0)
        rc = view_site_key(opt, &key, err);
    if (rc == 0 && opt->cumulative && key == SITES_BY_TRACEBACK)
        rc = site_cumulative_traceback(err);
    if (rc < 0)
        return rc;
    snapshot_init(&job.snap);
    rc = view_filters_make(opt, &filters, err);
    if (rc == 0)
        rc = run_sites(&job, key, &filters.filters, err);
    view_filters_release(&filters);
    snapshot_release(&job.snap);
    return rc;
}
