/* heapcensus trend: what keeps growing over three or more snapshots. */
#include <string.h>

#include "formats/diff_report.h"
#include "inspector/cmd.h"
#include "inspector/diff_input.h"
#include "inspector/view.h"

static int check_count(const struct options *opt, struct err *err)
{
    size_t n = diff_input_count(opt);
    if (n >= TREND_MIN && n <= TREND_MAX)
        return 0;
    if (n > TREND_MAX)
        err_set(err, ERR_USAGE, "trend takes %d snapshots at most, not %zu", TREND_MAX, n);
    else
        err_set(err, ERR_USAGE, "a trend needs %d snapshots or more, not %zu", TREND_MIN, n);
    if (n == 2)
        err_remedy(err, "heapcensus diff OLD NEW compares two");
    else
        err_remedy(err, "heapcensus trend SNAPSHOT SNAPSHOT SNAPSHOT...");
    return ERR_USAGE;
}

static int check_options(const struct options *opt, struct err *err)
{
    const char *what = opt->fail_if.n                                     ? "--fail-if"
                       : opt->blocks                                      ? "--blocks"
                       : opt->format && strcmp(opt->format, "table") != 0 ? "--format"
                                                                          : NULL;
    if (!what)
        return 0;
    err_set(err, ERR_USAGE, "%s does not go with trend", what);
    err_remedy(err, "heapcensus diff OLD NEW takes it");
    return ERR_USAGE;
}

/* By type, unless the first one has none. */
static void choose_key(const struct options *opt, const struct snapshot *first, struct trend *t)
{
    if (!opt->by && !first->objects.present)
        t->key = FIGURES_BY_CATEGORY;
}

static int check_arena(const struct trend *t, struct err *err)
{
    if (t->key != FIGURES_BY_ARENA || !t->other_process)
        return 0;
    err_set(err, ERR_USAGE, "arenas are compared by address, within one process");
    err_remedy(err, "--by category, --by size or --by type");
    return ERR_USAGE;
}

static int gather(const struct options *opt, struct trend *t, struct err *err)
{
    struct view_filters filters;
    int rc = view_filters_make(opt, &filters, err);
    struct figure_options how = {.filters = &filters.filters, .cumulative = opt->cumulative};
    for (size_t i = 0; i < diff_input_count(opt) && rc == 0; i++) {
        struct diff_input in;
        rc = diff_input_open(opt, i, false, &in, err);
        if (rc < 0)
            break;
        if (i == 0)
            choose_key(opt, &in.snap, t);
        rc = trend_add(t, &in.snap, in.name, &how, err);
        diff_input_release(&in);
        if (rc == 0 && interrupted)
            rc = err_set(err, ERR_INTERRUPTED, "interrupted");
    }
    view_filters_release(&filters);
    if (rc == 0)
        rc = trend_settle(t, opt->min_size, err);
    return rc < 0 ? rc : check_arena(t, err);
}

struct job {
    const struct options *opt;
    const struct trend *trend;
};

static int render_json(void *ctx, struct sink *sink, struct err *err)
{
    const struct job *j = ctx;
    return json_write_trend(j->trend, j->opt->top, sink, err);
}

static int print_text(void *ctx, FILE *out, struct err *err)
{
    const struct job *j = ctx;
    char pid[VIEW_PID_MAX];
    struct report_options ro = view_report_options(j->opt, pid);
    return report_trend(j->trend, &ro, out, err);
}

static int run(const struct options *opt, struct trend *t, struct err *err)
{
    struct job j = {opt, t};
    int rc = gather(opt, t, err);
    if (rc < 0)
        return rc;
    if (opt->sort || opt->reverse)
        trend_sort(t, opt->sort, opt->reverse);
    rc = opt->json ? view_write(opt, render_json, &j, err)
                   : view_write_text(opt, print_text, &j, err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < t->n_points; i++)
        if (!t->points[i].complete)
            return EXIT_INCOMPLETE;
    return EXIT_OK;
}

int cmd_trend(const struct options *opt, struct err *err)
{
    enum figure_key key = FIGURES_BY_TYPE;
    struct trend t;
    int rc = check_count(opt, err);
    if (rc == 0)
        rc = check_options(opt, err);
    if (rc == 0)
        rc = diff_input_key(opt, &key, err);
    if (rc == 0)
        rc = view_check_sort(opt, "trend", trend_orders, err);
    if (rc < 0)
        return rc;
    trend_init(&t, key);
    rc = run(opt, &t, err);
    trend_release(&t);
    return rc;
}
