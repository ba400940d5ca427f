/* heapcensus diff: what grew between two snapshots, and gates on it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/diff_report.h"
#include "inspector/cmd.h"
#include "inspector/diff_input.h"
#include "inspector/view.h"

struct job {
    const struct options *opt;
    enum figure_key key;
    bool tracemalloc; /* its words */
    struct gate gates[OPTION_MANY];
    struct gate_result results[OPTION_MANY];
    struct view_filters filters;
    struct diff_input inputs[2];
    struct diff rows;
    struct diff_identity identity;
    struct diff_warnings warnings;
    struct diff_verdict verdict;
};

/* ---- options ---- */

static int check_count(const struct options *opt, struct err *err)
{
    size_t n = diff_input_count(opt);
    if (n == 2 && (opt->n_words < 2 || strcmp(opt->words[0], "-") || strcmp(opt->words[1], "-")))
        return 0;
    if (n == 2)
        err_set(err, ERR_USAGE, "standard input can be one of the two, not both");
    else
        err_set(err, ERR_USAGE, "diff compares two, not %zu", n);
    err_remedy(err, n > 2 ? "heapcensus trend compares three or more"
                          : "heapcensus diff OLD NEW; each is a snapshot file, a PID or a core");
    return ERR_USAGE;
}

static int check_format(struct job *j, struct err *err)
{
    const struct options *opt = j->opt;
    if (!opt->format || strcmp(opt->format, "table") == 0)
        return 0;
    if (strcmp(opt->format, "tracemalloc") != 0) {
        err_set(err, ERR_USAGE, "--format does not know '%s'", opt->format);
        err_remedy(err, "table or tracemalloc");
        return ERR_USAGE;
    }
    if (!opt->by)
        j->key = FIGURES_BY_LINE;
    j->tracemalloc = true;
    if (figure_key_is_site(j->key) && !opt->blocks && !opt->json)
        return 0;
    err_set(err, ERR_USAGE, "--format=tracemalloc does not go with %s",
            opt->json     ? "--json"
            : opt->blocks ? "--blocks"
                          : "that key");
    err_remedy(err, "it prints sites: --by file, line or traceback");
    return ERR_USAGE;
}

/* Filters choose traced blocks by site; block by block there is no such choice. */
static int check_filters(const struct options *opt, struct err *err)
{
    bool any = opt->include.n || opt->exclude.n || opt->domains.n || opt->type_regex ||
               opt->cumulative || opt->all_frames;
    if (!opt->blocks || !any)
        return 0;
    err_set(err, ERR_USAGE,
            "--blocks compares all blocks: filters and --cumulative do not go "
            "with it");
    err_remedy(err, "leave --blocks out, or the filters");
    return ERR_USAGE;
}

static int take_options(struct job *j, struct err *err)
{
    const struct options *opt = j->opt;
    j->key = FIGURE_KEYS; /* not said */
    int rc = check_count(opt, err);
    if (rc == 0)
        rc = diff_input_key(opt, &j->key, err);
    if (rc == 0)
        rc = check_format(j, err);
    if (rc == 0)
        rc = check_filters(opt, err);
    if (rc == 0)
        rc = view_check_sort(opt, "diff", diff_orders, err);
    for (size_t i = 0; i < opt->fail_if.n && rc == 0; i++)
        rc = gate_parse(opt->fail_if.items[i], &j->gates[i], err);
    if (rc == 0)
        rc = view_filters_make(opt, &j->filters, err);
    return rc;
}

/* ---- comparing ---- */

/* By type where both have them. */
static void choose_key(struct job *j)
{
    bool types = j->inputs[0].snap.objects.present && j->inputs[1].snap.objects.present;
    if (j->key == FIGURE_KEYS)
        j->key = types || j->opt->blocks ? FIGURES_BY_TYPE : FIGURES_BY_CATEGORY;
}

static int compare(struct job *j, struct err *err)
{
    const struct options *opt = j->opt;
    struct diff_options how = {
        .figures = {.filters = &j->filters.filters, .cumulative = opt->cumulative},
        .min_size = opt->min_size,
    };
    struct diff_input *a = &j->inputs[0], *b = &j->inputs[1];
    struct diff_side old_side = {&a->snap, a->stream, a->name};
    struct diff_side new_side = {&b->snap, b->stream, b->name};
    if (!opt->blocks)
        return diff_make(&a->snap, &b->snap, j->key, &how, &j->rows, err);
    return diff_identify(&old_side, &new_side, j->key, opt->min_size, &interrupted, &j->identity,
                         err);
}

static int judge(struct job *j, struct err *err)
{
    const struct snapshot *a = &j->inputs[0].snap, *b = &j->inputs[1].snap;
    int rc = diff_judge(a, b, &j->verdict, err);
    if (rc == 0 && j->opt->blocks)
        diff_judge_identity(&j->identity, &j->verdict);
    diff_warn(a, b, &j->warnings);
    for (size_t i = 0; i < j->opt->fail_if.n && rc == 0; i++)
        rc = gate_check(&j->gates[i], a, b, &j->results[i], err);
    return rc;
}

static void arrange(struct job *j)
{
    const struct options *opt = j->opt;
    struct diff *d = opt->blocks ? &j->identity.by : &j->rows;
    if (opt->sort || opt->reverse)
        diff_sort(d, opt->sort ? opt->sort : opt->blocks ? "new" : NULL, opt->reverse);
}

/* ---- output ---- */

static struct diff_report report_of(const struct job *j)
{
    bool blocks = j->opt->blocks;
    return (struct diff_report){
        .old_snap = &j->inputs[0].snap,
        .new_snap = &j->inputs[1].snap,
        .old_name = j->inputs[0].name,
        .new_name = j->inputs[1].name,
        .by = blocks ? &j->identity.by : &j->rows,
        .also = blocks && j->identity.has_also ? &j->identity.also : NULL,
        .identity = blocks ? &j->identity : NULL,
        .warnings = &j->warnings,
        .verdict = &j->verdict,
        .gates = j->results,
        .n_gates = j->opt->fail_if.n,
    };
}

static int render_json(void *ctx, struct sink *sink, struct err *err)
{
    const struct job *j = ctx;
    struct diff_report r = report_of(j);
    return json_write_diff(&r, j->opt->top, sink, err);
}

static int print_tracemalloc(const struct job *j, const struct diff_report *r,
                             const struct report_options *ro, FILE *out, struct err *err)
{
    struct site_source source;
    struct site_text how = {.limit = (uint32_t)j->opt->limit,
                            .most_recent_first = j->opt->most_recent_first,
                            .source = &source};
    char path[64];
    pid_t pid = j->inputs[1].pid;
    site_source_init(&source);
    if (pid) {
        snprintf(path, sizeof path, "/proc/%d/root", (int)pid);
        site_source_add_root(&source, path);
        snprintf(source.cwd, sizeof source.cwd, "/proc/%d/cwd", (int)pid);
    }
    if (j->opt->sysroot)
        site_source_add_root(&source, j->opt->sysroot);
    int rc = report_diff_tracemalloc(r, ro, &how, out, err);
    site_source_release(&source);
    return rc;
}

static int print_text(void *ctx, FILE *out, struct err *err)
{
    const struct job *j = ctx;
    char pid[VIEW_PID_MAX];
    struct diff_report r = report_of(j);
    struct report_options ro = view_report_options(j->opt, pid);
    if (j->tracemalloc)
        return print_tracemalloc(j, &r, &ro, out, err);
    return report_diff(&r, &ro, out, err);
}

/* On stderr as well: the log of a CI run has them whatever became of the report. */
static size_t tell_tripped(const struct job *j)
{
    size_t tripped = 0;
    for (size_t i = 0; i < j->opt->fail_if.n; i++) {
        if (!j->results[i].tripped)
            continue;
        tripped++;
        fputs("heapcensus: gate tripped: ", stderr);
        report_gate(&j->results[i], j->opt->bytes, stderr);
        fputc('\n', stderr);
    }
    return tripped;
}

static int run(struct job *j, struct err *err)
{
    int rc = take_options(j, err);
    for (size_t i = 0; i < 2 && rc == 0; i++)
        rc = diff_input_open(j->opt, i, j->opt->blocks, &j->inputs[i], err);
    if (rc < 0)
        return rc;
    choose_key(j);
    rc = compare(j, err);
    if (rc == 0)
        rc = judge(j, err);
    if (rc < 0)
        return rc;
    arrange(j);
    rc = j->opt->json ? view_write(j->opt, render_json, j, err)
                      : view_write_text(j->opt, print_text, j, err);
    if (rc < 0)
        return rc;
    if (tell_tripped(j))
        return EXIT_GATE;
    return j->inputs[0].snap.complete && j->inputs[1].snap.complete ? EXIT_OK : EXIT_INCOMPLETE;
}

int cmd_diff(const struct options *opt, struct err *err)
{
    struct job *j = calloc(1, sizeof *j);
    if (!j)
        return err_set(err, ERR_NOMEM, "no memory to compare");
    j->opt = opt;
    int rc = run(j, err);
    diff_release(&j->rows);
    diff_identity_release(&j->identity);
    view_filters_release(&j->filters);
    for (size_t i = 0; i < 2; i++)
        diff_input_release(&j->inputs[i]);
    free(j);
    return rc;
}
