/* heapcensus export: a census as a file for another program. */
#define _GNU_SOURCE /* strptime, timegm */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "formats/export.h"
#include "formats/json.h"
#include "formats/report_sites.h"
#include "formats/site_filter.h"
#include "formats/type_groups.h"
#include "inspector/view.h"

struct export_job {
    const struct options *opt;
    const struct format *format;
    const char *table; /* of rows; "site" with the other formats */
    enum folded_weight weight;
    bool total_nframe;
    struct snapshot snap;
    struct block_stream *blocks; /* of the table blocks */
    uint8_t *keep;
    uint64_t sites, count, bytes; /* that are written */
    uint64_t less_count, less_bytes;
    char title[160], left_out[128];
};

/* ---- the formats ---- */

static int to_tracemalloc(struct export_job *job, struct sink *out, struct err *err)
{
    return export_tracemalloc(&job->snap, job->keep, job->total_nframe, out, err);
}

static int to_rows(struct export_job *job, enum rows_format format, struct sink *out,
                   struct err *err)
{
    if (job->blocks)
        return export_blocks(&job->snap, job->blocks, format, out, err);
    return export_rows(&job->snap, job->table, format, job->keep, (uint32_t)job->opt->limit, out,
                       err);
}

static int to_ndjson(struct export_job *job, struct sink *out, struct err *err)
{
    return to_rows(job, ROWS_NDJSON, out, err);
}

static int to_csv(struct export_job *job, struct sink *out, struct err *err)
{
    return to_rows(job, ROWS_CSV, out, err);
}

static int to_folded(struct export_job *job, struct sink *out, struct err *err)
{
    struct site_stacks stacks;
    site_stacks_init(&stacks, &job->snap, job->keep);
    return export_folded(&stacks.stacks, job->weight, out, err);
}

static int to_speedscope(struct export_job *job, struct sink *out, struct err *err)
{
    struct site_stacks stacks;
    char name[sizeof job->title + sizeof job->left_out + 4];
    site_stacks_init(&stacks, &job->snap, job->keep);
    snprintf(name, sizeof name, "%s%s%s", job->title, job->left_out[0] ? "; " : "", job->left_out);
    return export_speedscope(&stacks.stacks, name, out, err);
}

/* Nanoseconds since 1970 of an ISO 8601 time; 0 for anything else. */
static int64_t time_ns(const char *when)
{
    struct tm tm = {0};
    const char *end = when ? strptime(when, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    int64_t ns;
    if (!end || __builtin_mul_overflow((int64_t)timegm(&tm), (int64_t)1000000000, &ns) || ns < 0)
        return 0;
    return ns;
}

static int to_pprof(struct export_job *job, struct sink *out, struct err *err)
{
    struct site_stacks stacks;
    const struct snapshot_source *source = &job->snap.source;
    struct pprof_about about = {
        .binary = source->exe ? source->exe : source->comm,
        .build_id = source->exe_build_id,
        .time_ns = time_ns(job->snap.taken_at),
        .comments = {job->title, job->left_out[0] ? job->left_out : NULL},
    };
    site_stacks_init(&stacks, &job->snap, job->keep);
    return export_pprof(&stacks.stacks, &about, out, err);
}

static const struct format {
    const char *name;
    const char *next; /* what to do with the file, around its name */
    const char *behind;
    bool rows;
    bool binary;
    bool packed; /* readers expect gzip */
    int (*write)(struct export_job *job, struct sink *out, struct err *err);
} formats[] = {
    {"tracemalloc", "in Python: snapshot = tracemalloc.Snapshot.load('", "')", false, true, false,
     to_tracemalloc},
    {"ndjson", "duckdb -c \"from read_json('", "')\"; jq and pandas read it as well", true, false,
     false, to_ndjson},
    {"csv", "duckdb -c \"from read_csv('", "')\"; pandas and spreadsheets read it as well", true,
     false, false, to_csv},
    {"folded", "flamegraph.pl --colors mem --countname bytes ", " > heap.svg", false, false, false,
     to_folded},
    {"speedscope", "open ", " in speedscope: npx speedscope FILE, or www.speedscope.app", false,
     false, false, to_speedscope},
    {"pprof", "go tool pprof -http=: ", "; -tagleaf=type puts types on the stacks", false, true,
     true, to_pprof},
};

static const struct format *find_format(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}

/* ---- what was asked for ---- */

static int take_format(struct export_job *job, struct err *err)
{
    static const char known[] = "--to takes tracemalloc, ndjson, csv, folded, speedscope or pprof";
    const char *to = job->opt->to;
    if (!to) {
        err_set(err, ERR_USAGE, "export needs a format");
        err_remedy(err, "%s", known);
        return ERR_USAGE;
    }
    job->format = find_format(to);
    const char *name = job->opt->output ? job->opt->output : "";
    size_t len = strlen(name);
    if (strcmp(to, "tracemalloc") == 0 && len > 3 && strcmp(name + len - 3, ".gz") == 0) {
        err_set(err, ERR_USAGE, "%s would be compressed, and Snapshot.load reads no such file",
                name);
        err_remedy(err, "take a name that does not end in .gz");
        return ERR_USAGE;
    }
    if (job->format)
        return 0;
    err_set(err, ERR_USAGE, "there is no format '%s' to export to", to);
    err_remedy(err, "%s", known);
    return ERR_USAGE;
}

static int take_table(struct export_job *job, struct err *err)
{
    const char *by = job->opt->by;
    job->table = by ? by : "site";
    if (by && !job->format->rows) {
        err_set(err, ERR_USAGE, "--by chooses a table, and %s has none", job->format->name);
        err_remedy(err, "leave --by out, or use --to ndjson or --to csv");
        return ERR_USAGE;
    }
    if (!job->opt->types && strcmp(job->table, "type") == 0)
        return err_set(err, ERR_USAGE, "types without types: leave --no-types out");
    if (export_rows_know(job->table))
        return 0;
    err_set(err, ERR_USAGE, "there is no table '%s' to export", by);
    err_remedy(err, "--by takes site, type, size, arena, category, mapping or blocks");
    return ERR_USAGE;
}

static int take_weight(struct export_job *job, struct err *err)
{
    const char *weight = job->opt->weight;
    job->weight = weight && strcmp(weight, "count") == 0 ? FOLDED_COUNT : FOLDED_BYTES;
    if (!weight || job->weight == FOLDED_COUNT || strcmp(weight, "bytes") == 0)
        return 0;
    err_set(err, ERR_USAGE, "--weight does not know '%s'", weight);
    err_remedy(err, "bytes or count");
    return ERR_USAGE;
}

enum { FIRST_WITH_DOMAIN = 6, LAST_WITHOUT_TOTAL = 8 };

/* "3.8": which of the two shapes of records it reads. */
static int take_python(struct export_job *job, struct err *err)
{
    const char *text = job->opt->for_python;
    char *end = NULL;
    if (!text)
        return 0;
    unsigned long minor = strncmp(text, "3.", 2) == 0 && text[2] >= '0' && text[2] <= '9'
                              ? strtoul(text + 2, &end, 10)
                              : 0;
    if (minor < FIRST_WITH_DOMAIN || minor > 99 || *end) {
        err_set(err, ERR_USAGE, "--for-python takes a version such as 3.11, not '%s'", text);
        err_remedy(err, "the version of the Python that will read the file, 3.6 or newer");
        return ERR_USAGE;
    }
    job->total_nframe = minor > LAST_WITHOUT_TOTAL;
    return 0;
}

static bool of_sites(const struct export_job *job)
{
    return strcmp(job->table, "site") == 0;
}

/* A binary file has no business on a terminal, where people look for what went wrong. */
static int check_output(const struct export_job *job, struct err *err)
{
    const char *output = job->opt->output;
    bool to_stdout = !output || strcmp(output, "-") == 0;
    if (!job->format->binary || !to_stdout || !isatty(STDOUT_FILENO))
        return 0;
    err_set(err, ERR_USAGE, "%s is a binary format, and this is a terminal", job->format->name);
    err_remedy(err, "name a file with -o FILE");
    return ERR_USAGE;
}

static int take_options(struct export_job *job, struct err *err)
{
    int rc = take_format(job, err);
    if (rc == 0)
        rc = take_table(job, err);
    if (rc == 0)
        rc = take_weight(job, err);
    if (rc == 0)
        rc = take_python(job, err);
    return rc == 0 ? check_output(job, err) : rc;
}

/* ---- what is written ---- */

/* As view_load has it. */
static int load_error(int rc, struct err *err)
{
    if (rc != ERR_OS || err->os_errno == EACCES || err->os_errno == EPERM)
        return rc;
    err_remedy(err, "a target is a PID, a core or a snapshot file; see heapcensus --help");
    return err->code = err->os_errno == ENOENT ? ERR_NOT_FOUND : ERR_FORMAT;
}

/* The blocks of a file go by one by one and are never all in memory. */
static int load_blocks(struct export_job *job, struct err *err)
{
    const struct options *opt = job->opt;
    if (!opt->pid && !opt->core) {
        int rc = block_stream_open(opt->target, opt->partial ? JSON_PARTIAL : 0, &job->snap,
                                   &job->blocks, err);
        return rc < 0 ? load_error(rc, err) : rc;
    }
    struct options with = *opt;
    with.blocks = true;
    snapshot_init(&job->snap);
    int rc = view_load(&with, &job->snap, err);
    return rc < 0 ? rc : block_stream_open_snapshot(&job->snap, &job->blocks, err);
}

static void count_sites(struct export_job *job)
{
    for (size_t i = 0; i < job->snap.n_sites; i++) {
        const struct snapshot_site *s = &job->snap.sites[i];
        bool kept = job->keep[i] && s->bytes >= job->opt->min_size;
        uint64_t *count = kept ? &job->count : &job->less_count;
        uint64_t *bytes = kept ? &job->bytes : &job->less_bytes;
        *count = add_capped(*count, s->count);
        *bytes = add_capped(*bytes, s->bytes);
        job->sites += kept;
        job->keep[i] = kept;
    }
}

static int choose_sites(struct export_job *job, struct err *err)
{
    struct view_filters filters;
    size_t n = job->snap.n_sites;
    if (!report_sites_traced(&job->snap)) {
        err_set(err, ERR_UNSUPPORTED, "%s", report_sites_why_not(&job->snap));
        err_remedy(err, "%s", report_sites_remedy(&job->snap));
        return ERR_UNSUPPORTED;
    }
    job->keep = malloc(n + 1);
    if (!job->keep)
        return err_set(err, ERR_NOMEM, "no memory for %zu sites", n);
    memset(job->keep, 1, n + 1);
    int rc = view_filters_make(job->opt, &filters, err);
    if (rc == 0)
        rc = site_filters_apply(&job->snap, &filters.filters, job->keep, err);
    view_filters_release(&filters);
    if (rc == 0)
        count_sites(job);
    return rc;
}

static void make_texts(struct export_job *job)
{
    const struct snapshot *s = &job->snap;
    char count[32], bytes[32];
    snprintf(job->title, sizeof job->title, "%.40s (pid %" PRId64 "), %.30s, heapcensus %s",
             s->source.comm ? s->source.comm : "process", s->source.pid,
             s->taken_at ? s->taken_at : "no time", HEAPCENSUS_VERSION);
    if (job->less_count || job->less_bytes)
        snprintf(job->left_out, sizeof job->left_out, "left out by filters: %s traces of %s",
                 report_count(count, sizeof count, job->less_count),
                 report_size(bytes, sizeof bytes, job->less_bytes, job->opt->bytes));
}

/* Lets a signal end a long export: each write looks for one. */
struct patient_sink {
    struct sink sink;
    struct sink *below;
};

static int patient_write(struct sink *sink, const void *bytes, size_t len, struct err *err)
{
    if (interrupted)
        return err_set(err, ERR_INTERRUPTED, "interrupted");
    return sink_write(((struct patient_sink *)sink)->below, bytes, len, err);
}

static int write_packed(struct export_job *job, struct sink *out, struct err *err)
{
    struct sink *gzip = NULL;
    int rc = sink_gzip_new(out, &gzip, err);
    if (rc < 0)
        return rc;
    rc = job->format->write(job, gzip, err);
    if (rc == 0)
        rc = sink_gzip_finish(gzip, err);
    sink_gzip_free(gzip);
    return rc;
}

/* A name in .gz is compressed already by outfile_open. */
static int write_file(struct export_job *job, struct err *err)
{
    struct outfile out;
    int rc = outfile_open(&out, job->opt->output ? job->opt->output : "-", job->opt->force, err);
    if (rc < 0)
        return rc;
    struct patient_sink patient = {{patient_write}, out.sink};
    rc = job->format->packed && !out.gzip ? write_packed(job, &patient.sink, err)
                                          : job->format->write(job, &patient.sink, err);
    if (rc < 0) {
        outfile_abort(&out);
        return rc;
    }
    return outfile_commit(&out, err);
}

/* What is in the file and what was left out, on stderr where stdout is the file. */
static void say(const struct export_job *job)
{
    const char *path = job->opt->output;
    bool to_stdout = !path || strcmp(path, "-") == 0;
    char sites[32], count[32], bytes[32];
    if (job->opt->quiet)
        return;
    if (to_stdout) {
        if (job->left_out[0])
            fprintf(stderr, "heapcensus: %s\n", job->left_out);
        return;
    }
    report_string(stdout, path);
    if (of_sites(job))
        printf(": %s traces at %s sites, %s%s%s", report_count(count, sizeof count, job->count),
               report_count(sites, sizeof sites, job->sites),
               report_size(bytes, sizeof bytes, job->bytes, job->opt->bytes),
               job->left_out[0] ? "; " : "", job->left_out);
    else
        printf(": the table %s", job->table);
    printf("\nnext: %s", job->format->next);
    report_string(stdout, path);
    printf("%s\n", job->format->behind);
}

static int load(struct export_job *job, struct err *err)
{
    struct options with = *job->opt;
    if (strcmp(job->table, "blocks") == 0)
        return load_blocks(job, err);
    with.must_types = strcmp(job->table, "type") == 0;
    snapshot_init(&job->snap);
    return view_load(&with, &job->snap, err);
}

static int run(struct export_job *job, struct err *err)
{
    int rc = load(job, err);
    if (rc == 0 && !job->opt->for_python)
        job->total_nframe = job->snap.python.hexversion == 0 ||
                            (job->snap.python.hexversion >> 16 & 0xff) > LAST_WITHOUT_TOTAL;
    if (rc == 0 && of_sites(job))
        rc = choose_sites(job, err);
    if (rc < 0)
        return rc;
    make_texts(job);
    rc = write_file(job, err);
    if (rc < 0)
        return rc;
    say(job);
    rc = report_done(stdout, err);
    return rc == 0 && !job->snap.complete ? EXIT_INCOMPLETE : rc;
}

int cmd_export(const struct options *opt, struct err *err)
{
    struct export_job job = {.opt = opt};
    int rc = take_options(&job, err);
    if (rc < 0)
        return rc;
    rc = run(&job, err);
    block_stream_close(job.blocks);
    free(job.keep);
    snapshot_release(&job.snap);
    return rc;
}
