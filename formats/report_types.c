/* Types as text: the view, and what the summary says of blocks, types and the collector. */
#include <inttypes.h>
#include <string.h>

#include "formats/report.h"
#include "formats/type_groups.h"

enum { CELL = 32, USUAL_ROWS = 25, SUMMARY_ROWS = 5 };

/* ---- all blocks in use ---- */

/* One kind of block: of its bytes, those in malloc's chunks. */
struct part {
    const char *words;
    bool counted; /* the number is known */
    uint64_t n, bytes, malloc_bytes;
};

enum {
    PART_OBJECTS,
    PART_BUFFERS,
    PART_INFERRED,
    PART_DEAD,
    PART_RUNTIME,
    PART_UNOWNED,
    PART_MISSED,
    PART_HEADERS,
    PARTS
};

struct in_use {
    struct part parts[PARTS];
    uint64_t bytes, malloc_bytes;
};

/* The parts add up to python.blocks.used, malloc.used and malloc.mmapped (and, where Python has its
 * own mimalloc, to the blocks in use there): what the census of blocks did not see is a part, too.
 */
static void in_use_of(const struct snapshot *snap, struct in_use *u)
{
    const struct snapshot_objects *o = &snap->objects;
    const uint64_t *ledger = snap->memory.tally.bytes;
    uint64_t python = 0, libc = 0;
    *u = (struct in_use){
        .parts = {
            {"live objects", true, o->objects, o->object_bytes, o->malloc_object_bytes},
            {"buffers that they own", true, o->buffers, o->buffer_bytes, o->malloc_buffer_bytes},
            {"buffers that seem to be theirs (inferred)", true, o->inferred, o->inferred_bytes,
             o->malloc_inferred_bytes},
            {"kept by freelists", true, o->dead, o->dead_bytes, o->malloc_dead_bytes},
            {"the interpreter's own", true, o->runtime, o->runtime_bytes, o->malloc_runtime_bytes},
            {"unowned", true, o->unowned, o->unowned_bytes, o->malloc_unowned_bytes},
            {"in Python's heap, not looked at", false, 0, 0, 0},
            {"malloc's headers, chunks not looked at", false, 0, 0, 0},
        }};
    for (int i = 0; i < PART_MISSED; i++) {
        libc = add_capped(libc, u->parts[i].malloc_bytes);
        python = add_capped(python, sub_capped(u->parts[i].bytes, u->parts[i].malloc_bytes));
    }
    u->parts[PART_MISSED].bytes = sub_capped(ledger[CAT_PYTHON_BLOCKS_USED], python);
    u->parts[PART_HEADERS].bytes = u->parts[PART_HEADERS].malloc_bytes =
        sub_capped(add_capped(ledger[CAT_MALLOC_USED], ledger[CAT_MALLOC_MMAPPED]), libc);
    for (int i = 0; i < PARTS; i++) {
        u->bytes = add_capped(u->bytes, u->parts[i].bytes);
        u->malloc_bytes = add_capped(u->malloc_bytes, u->parts[i].malloc_bytes);
    }
}

static double percent(uint64_t part, uint64_t whole)
{
    return whole ? (double)part * 100 / (double)whole : 0.0;
}

/* What lies in no heap counts for none of the sums above it. */
static void print_statics(const struct snapshot *snap, const struct report_options *opt, FILE *out)
{
    const struct snapshot_objects *o = &snap->objects;
    char a[CELL], b[CELL];
    if (o->statics)
        fprintf(out, "besides, outside of all heaps: %s static object%s of %s%s\n",
                report_count(a, sizeof a, o->statics), o->statics == 1 ? "" : "s",
                report_size(b, sizeof b, o->static_bytes, opt->exact), opt->exact ? " bytes" : "");
}

static bool worth_a_row(const struct in_use *u, int i)
{
    return u->parts[i].bytes || u->parts[i].n || i == PART_OBJECTS || i == PART_UNOWNED;
}

static void print_split(const struct snapshot *snap, const struct report_options *opt, FILE *out)
{
    struct in_use u;
    char a[CELL], b[CELL], c[CELL];
    in_use_of(snap, &u);
    fprintf(out, "\n%s%14s %6s %14s %12s  %s%s\n", report_bold(opt), "in use", "%", "in malloc",
            "count", "what", report_plain(opt));
    for (int i = 0; i < PARTS; i++) {
        const struct part *p = &u.parts[i];
        if (worth_a_row(&u, i))
            fprintf(out, "%14s %6.1f %14s %12s  %s\n",
                    report_size(a, sizeof a, p->bytes, opt->exact), percent(p->bytes, u.bytes),
                    report_size(b, sizeof b, p->malloc_bytes, opt->exact),
                    p->counted ? report_count(c, sizeof c, p->n) : "", p->words);
    }
    fprintf(out, "%14s %6.1f %14s %12s  total\n", report_size(a, sizeof a, u.bytes, opt->exact),
            percent(u.bytes, u.bytes), report_size(b, sizeof b, u.malloc_bytes, opt->exact), "");
    print_statics(snap, opt, out);
}

/* ---- the summary ---- */

static int print_largest(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                         struct err *err)
{
    struct type_groups g;
    struct in_use u;
    char a[CELL], b[CELL];
    int rc = type_groups_make(&g, snap, "type", err);
    if (rc < 0)
        return rc;
    type_groups_sort(&g, NULL, false);
    in_use_of(snap, &u);
    if (g.n)
        fprintf(out, "\n%s%14s %6s %14s %12s  %s%s\n", report_bold(opt), "with buffers", "%", "",
                "count", "largest types", report_plain(opt));
    for (size_t i = 0; i < g.n && i < SUMMARY_ROWS; i++) {
        fprintf(out, "%14s %6.1f %14s %12s  ",
                report_size(a, sizeof a, type_total(&g.rows[i]), opt->exact),
                percent(type_total(&g.rows[i]), u.bytes), "",
                report_count(b, sizeof b, g.rows[i].count));
        report_string(out, g.rows[i].name);
        fputc('\n', out);
    }
    type_groups_release(&g);
    return 0;
}

static void print_gc(const struct snapshot_gc *gc, FILE *out)
{
    char a[CELL];
    uint64_t n = gc->generations < GC_GENERATIONS ? gc->generations : GC_GENERATIONS;
    if (!gc->present)
        return;
    fprintf(out, "\nGC: %s%s", gc->enabled ? "enabled" : "disabled",
            gc->collecting ? ", in the middle of a collection" : "");
    for (uint64_t i = 0; i < n; i++)
        fprintf(out, "%s %" PRIu64 "/%" PRIu64, i ? "," : "; counts", gc->count[i],
                gc->threshold[i]);
    for (uint64_t i = 0; i < n && gc->lists; i++)
        fprintf(out, "%s %s", i ? " +" : "; tracked", report_count(a, sizeof a, gc->tracked[i]));
    if (gc->lists)
        fprintf(out, "; %s frozen", report_count(a, sizeof a, gc->frozen));
    else
        fputs("; tracked: not known", out);
    fprintf(out, "; %s in gc.garbage\n", report_count(a, sizeof a, gc->garbage));
}

int report_summary_objects(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                           struct err *err)
{
    int rc = 0;
    if (snap->objects.present) {
        print_split(snap, opt, out);
        rc = print_largest(snap, opt, out, err);
    }
    if (rc == 0)
        print_gc(&snap->gc, out);
    return rc;
}

/* ---- the view ---- */

/* How many columns a size needs. */
static int size_width(const struct report_options *opt)
{
    return opt->exact ? 15 : 11;
}

static void print_type_head(const struct report_options *opt, FILE *out)
{
    int w = size_width(opt);
    const char *by = opt->by ? opt->by : "type";
    fprintf(out, "%s%12s %*s %*s %*s %6s %6s  %s%s\n", report_bold(opt), "count", w, "own", w,
            "buffers", w, "total", "%", "cum. %", by, report_plain(opt));
}

static void print_type_row(const struct snapshot_type *t, double share, double sum,
                           const struct report_options *opt, FILE *out)
{
    char a[CELL], b[CELL], c[CELL], d[CELL];
    int w = size_width(opt);
    fprintf(out, "%12s %*s %*s %*s %6.1f %6.1f  ", report_count(a, sizeof a, t->count), w,
            report_size(b, sizeof b, t->bytes, opt->exact), w,
            report_size(c, sizeof c, t->buffer_bytes, opt->exact), w,
            report_size(d, sizeof d, type_total(t), opt->exact), share, sum);
}

/* The rows that are asked for, then one for all others. */
static void print_groups(const struct type_groups *g, const struct in_use *u,
                         const struct report_options *opt, FILE *out)
{
    size_t n = report_rows(opt, g->n, USUAL_ROWS);
    struct snapshot_type rest = {.name = ""};
    uint64_t sum = 0;
    for (size_t i = 0; i < g->n; i++) {
        const struct snapshot_type *t = &g->rows[i];
        sum = add_capped(sum, type_total(t));
        if (i < n) {
            print_type_row(t, percent(type_total(t), u->bytes), percent(sum, u->bytes), opt, out);
            report_string(out, t->name);
            fputc('\n', out);
            continue;
        }
        rest.count = add_capped(rest.count, t->count);
        rest.bytes = add_capped(rest.bytes, t->bytes);
        rest.buffer_bytes = add_capped(rest.buffer_bytes, t->buffer_bytes);
    }
    if (n < g->n) {
        bool types = !opt->by || strcmp(opt->by, "type") == 0;
        print_type_row(&rest, percent(type_total(&rest), u->bytes), percent(sum, u->bytes), opt,
                       out);
        fprintf(out, "%zu more %s%s (--top 0 shows all)\n", g->n - n, types ? "type" : opt->by,
                g->n - n == 1 ? "" : "s");
    }
}

static void print_line(const char *n, uint64_t bytes, const struct in_use *u, const char *words,
                       const struct report_options *opt, FILE *out)
{
    char a[CELL];
    int w = size_width(opt);
    if (bytes)
        fprintf(out, "%12s %*s %*s %*s %6.1f %6s  %s\n", n, w, "", w, "", w,
                report_size(a, sizeof a, bytes, opt->exact), percent(bytes, u->bytes), "", words);
}

/* The total of the types, then everything else that is in use. */
static void print_foot(const struct snapshot *snap, const struct in_use *u,
                       const struct report_options *opt, FILE *out)
{
    const struct snapshot_objects *o = &snap->objects;
    const struct snapshot_type all = {
        .count = o->objects, .bytes = o->object_bytes, .buffer_bytes = o->buffer_bytes};
    char a[CELL];
    double share = percent(type_total(&all), u->bytes);
    print_type_row(&all, share, share, opt, out);
    fputs("total: live objects and their buffers\n\n", out);
    for (int i = PART_INFERRED; i < PARTS; i++) {
        const struct part *p = &u->parts[i];
        if (i != PART_UNOWNED) {
            print_line(p->counted ? report_count(a, sizeof a, p->n) : "", p->bytes, u, p->words,
                       opt, out);
            continue;
        }
        print_line("", sub_capped(p->bytes, p->malloc_bytes), u, "unowned, in Python's heap", opt,
                   out);
        print_line("", p->malloc_bytes, u, "unowned, in malloc", opt, out);
    }
    print_line("", u->bytes, u, "all blocks in use", opt, out);
    print_statics(snap, opt, out);
}

/* Types that have static objects only have no row in a table of what the heaps hold. */
static void leave_out_statics(struct type_groups *g)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n; i++) {
        const struct snapshot_type *t = &g->rows[i];
        bool only = t->statics && !t->count && !t->buffers && !t->inferred && !t->dead;
        if (!only)
            g->rows[n++] = *t;
    }
    g->n = n;
}

static int print_types(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                       struct err *err)
{
    struct type_groups g;
    struct in_use u;
    int rc = type_groups_make(&g, snap, opt->by ? opt->by : "type", err);
    if (rc < 0)
        return rc;
    leave_out_statics(&g);
    type_groups_sort(&g, opt->sort, opt->reverse);
    in_use_of(snap, &u);
    print_type_head(opt, out);
    print_groups(&g, &u, opt, out);
    print_foot(snap, &u, opt, out);
    type_groups_release(&g);
    return 0;
}

int report_text_types(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                      struct err *err)
{
    report_header(snap, opt, out);
    if (snap->objects.present) {
        int rc = print_types(snap, opt, out, err);
        if (rc < 0)
            return rc;
    } else {
        fputs("no census of types: taken with --no-types, or this is no Python that could be read, "
              "or "
              "a snapshot of an older heapcensus\n",
              out);
    }
    report_notes(snap, opt, out);
    if (opt->hint)
        fprintf(out, "\nnext: heapcensus sizes %s\n", opt->target);
    return report_done(out, err);
}

/* ---- the same rows for JSON ---- */

int report_arrange_types(struct snapshot *snap, const struct report_options *opt, struct err *err)
{
    struct type_groups g;
    int rc = type_groups_make(&g, snap, opt->by, err);
    if (rc < 0)
        return rc;
    type_groups_sort(&g, opt->sort, opt->reverse);
    snap->n_types = 0;
    size_t n = report_rows(opt, g.n, 0);
    for (size_t i = 0; i < n && rc == 0; i++) {
        const char *name = snapshot_str(snap, g.rows[i].name);
        struct snapshot_type *t = name ? snapshot_add_type(snap) : NULL;
        if (t) {
            *t = g.rows[i];
            t->name = name;
            t->module = opt->by && strcmp(opt->by, "package") == 0 ? name : t->module;
        } else {
            rc = err_set(err, ERR_NOMEM, "no memory to sort %zu types", g.n);
        }
    }
    type_groups_release(&g);
    return rc;
}
