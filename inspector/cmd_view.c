/* The views: a process or a snapshot in, text or one JSON document out. */
#define _GNU_SOURCE /* O_PATH */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "formats/json.h"
#include "formats/report.h"
#include "inspector/census.h"
#include "inspector/census_core.h"
#include "inspector/cmd.h"
#include "inspector/view.h"

static int terminal_width(void)
{
    struct winsize ws;
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &ws) < 0)
        return 0;
    return ws.ws_col;
}

static bool want_colour(const struct options *opt)
{
    const char *no = getenv("NO_COLOR");
    if (opt->colour != COLOUR_AUTO)
        return opt->colour == COLOUR_ALWAYS;
    return !opt->output && isatty(STDOUT_FILENO) && !(no && *no);
}

int view_check_sort(const struct options *opt, const char *name, const char *sorts, struct err *err)
{
    if (!opt->sort)
        return 0;
    size_t len = strlen(opt->sort);
    for (const char *p = sorts; len && (p = strstr(p, opt->sort)) != NULL; p += len)
        if ((p == sorts || p[-1] == ',') && (p[len] == ',' || p[len] == '\0'))
            return 0;
    err_set(err, ERR_USAGE, "%s cannot be sorted by '%s'", name, opt->sort);
    err_remedy(err, sorts[0] ? "columns: %s" : "this view has one order%s", sorts);
    return ERR_USAGE;
}

int cmd_no_target(const struct options *opt, const char *what, struct err *err)
{
    int fd = open(opt->target, O_PATH | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) {
        err_set(err, ERR_NOT_FOUND, "there is no file %s", opt->target);
    } else if (fd < 0 || access(opt->target, R_OK) < 0) {
        err_os(err, errno, "cannot open %s", opt->target);
        err_remedy(err, "read it as its owner or as root");
    } else {
        err_set(err, ERR_USAGE, "%s a process or a core, and '%s' is neither", what, opt->target);
        err_remedy(err, "a target is a PID or a core file; see heapcensus --help");
    }
    if (fd >= 0)
        close(fd);
    return err->code;
}

int view_load(const struct options *opt, struct snapshot *snap, struct err *err)
{
    if (opt->core)
        return census_core_take(opt, snap, err);
    if (opt->pid)
        return census_take(opt, snap, err);
    int rc = json_load(opt->target, opt->partial ? JSON_PARTIAL : 0, snap, err);
    if (rc != ERR_OS || err->os_errno == EACCES || err->os_errno == EPERM)
        return rc;
    rc = err->code = err->os_errno == ENOENT ? ERR_NOT_FOUND : ERR_FORMAT;
    err_remedy(err, "a target is a PID, a core or a snapshot file; see heapcensus --help");
    return rc;
}

struct report_options view_report_options(const struct options *opt, char pid[VIEW_PID_MAX])
{
    snprintf(pid, VIEW_PID_MAX, "%d", (int)opt->pid);
    return (struct report_options){
        .target = opt->core  ? opt->core
                  : opt->pid ? pid
                             : opt->target,
        .exact = opt->bytes,
        .hint = !opt->quiet,
        .colour = want_colour(opt),
        .width = terminal_width(),
        .top = opt->top,
        .sort = opt->sort,
        .by = opt->by,
        .reverse = opt->reverse,
    };
}

int view_write(const struct options *opt,
               int (*render)(void *ctx, struct sink *sink, struct err *err), void *ctx,
               struct err *err)
{
    struct outfile out;
    int rc = outfile_open(&out, opt->output ? opt->output : "-", opt->force, err);
    if (rc < 0)
        return rc;
    rc = render(ctx, out.sink, err);
    if (rc < 0) {
        outfile_abort(&out);
        return rc;
    }
    return outfile_commit(&out, err);
}

struct text_job {
    int (*print)(void *ctx, FILE *out, struct err *err);
    void *ctx;
};

/* The whole report in memory first: a view is small, and a failure leaves no half of it behind. */
static int render_text(void *ctx, struct sink *sink, struct err *err)
{
    const struct text_job *job = ctx;
    char *bytes = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&bytes, &len);
    if (!out)
        return err_set(err, ERR_NOMEM, "no memory for the report");
    int rc = job->print(job->ctx, out, err);
    if (fclose(out) != 0 && rc == 0)
        rc = err_set(err, ERR_NOMEM, "no memory for the report");
    if (rc == 0)
        rc = sink_write(sink, bytes, len, err);
    free(bytes);
    return rc;
}

int view_write_text(const struct options *opt, int (*print)(void *ctx, FILE *out, struct err *err),
                    void *ctx, struct err *err)
{
    struct text_job job = {print, ctx};
    return view_write(opt, render_text, &job, err);
}

/* ---- the views that one function of the snapshot prints ---- */

struct view_job {
    const struct report_view *view;
    struct snapshot *snap;
    struct report_options options;
};

static int print_view(void *ctx, FILE *out, struct err *err)
{
    const struct view_job *job = ctx;
    return job->view->write(job->snap, &job->options, out, err);
}

static int render_json(void *ctx, struct sink *sink, struct err *err)
{
    const struct view_job *job = ctx;
    int rc = report_arrange(job->snap, job->view->name, &job->options, err);
    return rc < 0 ? rc : json_write_view(job->snap, job->view->name, sink, err);
}

static int write_view(const struct options *opt, const struct report_view *view,
                      struct snapshot *snap, struct err *err)
{
    char pid[VIEW_PID_MAX];
    struct view_job job = {view, snap, view_report_options(opt, pid)};
    if (opt->json)
        return view_write(opt, render_json, &job, err);
    return view_write_text(opt, print_view, &job, err);
}

/* --by is of the view types only, and of the keys that it knows. */
static int check_by(const struct options *opt, const struct report_view *view, struct err *err)
{
    static const char *const keys[] = {"type", "module", "package", "size"};
    if (!opt->by)
        return 0;
    if (strcmp(view->name, "types") != 0)
        return err_set(err, ERR_USAGE, "--by groups types, and %s shows none", view->name);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(opt->by, keys[i]) == 0)
            return 0;
    err_set(err, ERR_USAGE, "--by does not know '%s'", opt->by);
    err_remedy(err, "type, module, package or size");
    return ERR_USAGE;
}

static int run_view(const char *name, const struct options *opt, struct err *err)
{
    const struct report_view *view = report_text_find(name);
    int rc = view_check_sort(opt, view->name, view->sorts, err);
    if (rc == 0)
        rc = check_by(opt, view, err);
    if (rc < 0)
        return rc;
    struct snapshot snap;
    snapshot_init(&snap);
    rc = view_load(opt, &snap, err);
    if (rc == 0)
        rc = write_view(opt, view, &snap, err);
    if (rc == 0 && !snap.complete)
        rc = EXIT_INCOMPLETE;
    snapshot_release(&snap);
    return rc;
}

/* A view that shows no types: what they cost the process is not asked of it. */
static int run_plain(const char *name, const struct options *opt, struct err *err)
{
    struct options plain = *opt;
    plain.types = false;
    return run_view(name, &plain, err);
}

int cmd_summary(const struct options *opt, struct err *err)
{
    return run_view("summary", opt, err);
}

int cmd_types(const struct options *opt, struct err *err)
{
    struct options with = *opt;
    if (!opt->types)
        return err_set(err, ERR_USAGE, "types without types: leave --no-types out");
    with.must_types = true;
    /* The size of a block is known block by block only. */
    if (opt->by && strcmp(opt->by, "size") == 0)
        with.blocks = true;
    return run_view("types", &with, err);
}

int cmd_sizes(const struct options *opt, struct err *err)
{
    return run_view("sizes", opt, err);
}

int cmd_arenas(const struct options *opt, struct err *err)
{
    return run_view("arenas", opt, err);
}

int cmd_malloc(const struct options *opt, struct err *err)
{
    return run_plain("malloc", opt, err);
}

int cmd_maps(const struct options *opt, struct err *err)
{
    return run_plain("maps", opt, err);
}
