/* Text for people: what all views share, and the summary. */
#include "formats/report.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/report_sites.h"
#include "formats/type_groups.h"
#include "formats/utilisation.h"

const char *report_count(char *buf, size_t cap, uint64_t n)
{
    char digits[32];
    int len = snprintf(digits, sizeof digits, "%" PRIu64, n);
    size_t at = 0;
    for (int i = 0; i < len && at + 2 < cap; i++) {
        if (i && (len - i) % 3 == 0)
            buf[at++] = ',';
        buf[at++] = digits[i];
    }
    buf[at] = '\0';
    return buf;
}

const char *report_size(char *buf, size_t cap, uint64_t bytes, bool exact)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    if (exact)
        return report_count(buf, cap, bytes);
    if (bytes < 1024) {
        snprintf(buf, cap, "%" PRIu64 " B", bytes);
        return buf;
    }
    double v = (double)bytes / 1024;
    size_t u = 0;
    while (v >= 999.95 && u + 1 < sizeof units / sizeof *units) {
        v /= 1024;
        u++;
    }
    snprintf(buf, cap, "%.1f %s", v, units[u]);
    return buf;
}

/* The length of the character at p if a terminal can be shown it, else 0: control characters (also
 * the two-byte ones of U+0080 to U+009F) and what is not UTF-8. */
static size_t printable(const unsigned char *p)
{
    if (p[0] < 0x80)
        return p[0] >= 0x20 && p[0] != 0x7f;
    size_t n = p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    bool bad = (p[0] == 0xc2 && p[1] < 0xa0) || (p[0] == 0xe0 && p[1] < 0xa0) ||
               (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf0 && p[1] < 0x90) ||
               (p[0] == 0xf4 && p[1] >= 0x90);
    return bad ? 0 : n;
}

void report_string(FILE *out, const char *s)
{
    for (const unsigned char *p = (const unsigned char *)(s ? s : "?"); *p;) {
        size_t n = printable(p);
        if (n)
            fwrite(p, 1, n, out);
        else
            fprintf(out, "\\x%02x", *p);
        p += n ? n : 1;
    }
}

/* `before`, then s as report_string prints it. A snapshot file may hold anything in any string. */
static void say(FILE *out, const char *before, const char *s)
{
    fputs(before, out);
    report_string(out, s);
}

int report_done(FILE *out, struct err *err)
{
    if (fflush(out) != 0 || ferror(out))
        return err_os(err, errno ? errno : EIO, "cannot write the report");
    return 0;
}

const char *report_bold(const struct report_options *opt)
{
    return opt->colour ? "\033[1m" : "";
}

const char *report_plain(const struct report_options *opt)
{
    return opt->colour ? "\033[0m" : "";
}

static void print_python(const struct snapshot *snap, FILE *out)
{
    const struct snapshot_python *py = &snap->python;
    if (!py->present) {
        fprintf(out, "no Python");
    } else {
        say(out, "CPython ", py->version ? py->version : "?");
        fprintf(out, "%s%s%s", py->debug ? " (debug build)" : "",
                py->free_threaded ? " (free-threaded)" : "",
                py->trace_refs ? " (Py_TRACE_REFS)" : "");
        say(out, ", ", py->allocator ? py->allocator : "unknown");
        if (py->interpreters > 1)
            fprintf(out, ", %" PRIu64 " interpreters", py->interpreters);
        if (py->state && strcmp(py->state, "running") != 0)
            say(out, ", ", py->state);
    }
    say(out, "; ", snap->libc.name ? snap->libc.name : "unknown libc");
    if (snap->libc.version)
        say(out, " ", snap->libc.version);
    if (snap->libc.allocator && snap->libc.name &&
        strcmp(snap->libc.allocator, snap->libc.name) != 0)
        say(out, ", malloc is ", snap->libc.allocator);
    fputc('\n', out);
}

static void print_signal(const struct snapshot_dump *d, FILE *out)
{
    if (!d->signal)
        return;
    say(out, ", ended by ", d->signal);
    if (d->reason && d->reason[0])
        say(out, ", ", d->reason);
    if (d->sender_pid)
        fprintf(out, " of pid %" PRIu64, d->sender_pid);
    if (d->fault_address)
        fprintf(out, " at 0x%" PRIx64, d->fault_address);
}

/* How much of what the core should hold is there: of a whole core, that is not said. */
static void print_coverage(const struct snapshot_dump *d, FILE *out)
{
    char a[32], b[32];
    if (!d->missing_bytes)
        return;
    uint64_t here = d->dumped_bytes > d->missing_bytes ? d->dumped_bytes - d->missing_bytes : 0;
    fprintf(out, "the core is cut short: %.1f %% of it is here, %s of %s are missing\n",
            (double)here * 100 / (double)d->dumped_bytes,
            report_size(a, sizeof a, d->missing_bytes, false),
            report_size(b, sizeof b, d->dumped_bytes, false));
}

static void print_dump(const struct snapshot *snap, FILE *out)
{
    const struct snapshot_dump *d = &snap->source.dump;
    uint64_t threads = snap->source.threads;
    bool kernel = d->writer && strcmp(d->writer, "kernel") == 0;
    say(out, kernel ? "core written by the " : "core written by ", d->writer ? d->writer : "?");
    say(out, ", ", snap->taken_at ? snap->taken_at : "time unknown");
    print_signal(d, out);
    fprintf(out, ", %" PRIu64 " thread%s", threads, threads == 1 ? "" : "s");
    if (snap->source.paused_ns)
        fprintf(out, ", paused for %.1f ms", (double)snap->source.paused_ns / 1e6);
    fputc('\n', out);
    if (d->command)
        say(out, "command: ", d->command);
    if (d->command && d->started_at)
        say(out, ", started ", d->started_at);
    if (d->command)
        fputc('\n', out);
    print_coverage(d, out);
}

static void print_source(const struct snapshot *snap, FILE *out)
{
    const struct snapshot_source *src = &snap->source;
    char size[32];
    say(out, "", snap->taken_at ? snap->taken_at : "time unknown");
    fputs(", ", out);
    if (src->paused_ns)
        fprintf(out, "paused for %.1f ms, ", (double)src->paused_ns / 1e6);
    else
        fprintf(out, "not paused, ");
    fprintf(out, "read %s%s\n", report_size(size, sizeof size, src->read_bytes, false),
            src->consistent ? "" : " while it ran: numbers can be slightly inconsistent");
}

void report_header(const struct snapshot *snap, const struct report_options *opt, FILE *out)
{
    fputs(report_bold(opt), out);
    if (snap->source.comm)
        report_string(out, snap->source.comm);
    else
        fputs("process", out);
    if (snap->source.pid)
        fprintf(out, " (pid %" PRId64 ")", snap->source.pid);
    fputs(report_plain(opt), out);
    if (snap->host) {
        fputs(" on ", out);
        report_string(out, snap->host);
    }
    fputs(", ", out);
    print_python(snap, out);
    if (snap->source.dump.present)
        print_dump(snap, out);
    else
        print_source(snap, out);
    fputc('\n', out);
}

void report_notes(const struct snapshot *snap, const struct report_options *opt, FILE *out)
{
    char size[32];
    if (!snap->n_notes)
        return;
    fprintf(out, "\n%sNotes%s\n", report_bold(opt), report_plain(opt));
    for (size_t i = 0; i < snap->n_notes; i++) {
        const struct snapshot_note *n = &snap->notes[i];
        say(out, "  ", n->what);
        say(out, ": ", n->why);
        if (n->address)
            fprintf(out, " (at 0x%" PRIx64 ")", n->address);
        if (n->bytes)
            fprintf(out, " [%s]", report_size(size, sizeof size, n->bytes, opt->exact));
        fputc('\n', out);
    }
}

/* What a category is, in the words of someone who has not read the manual. */
static const char *const explained[CAT_COUNT] = {
    [CAT_PYTHON_BLOCKS_USED] = "Python objects and buffers up to 512 bytes, in use",
    [CAT_PYTHON_BLOCKS_FREE] = "free inside Python's arenas, reusable by Python only",
    [CAT_PYTHON_ARENAS_OVERHEAD] = "headers and edges of Python's arenas and pools",
    [CAT_PYTHON_MIMALLOC] = "segments of Python's own mimalloc",
    [CAT_MALLOC_USED] = "malloc chunks in use",
    [CAT_MALLOC_CACHED] = "freed, kept by tcache and fastbins",
    [CAT_MALLOC_FREE] = "freed, in malloc's bins",
    [CAT_MALLOC_TOP] = "free at the top of malloc's arenas",
    [CAT_MALLOC_OVERHEAD] = "malloc's own headers and caches",
    [CAT_MALLOC_MMAPPED] = "large malloc chunks with a mapping of their own",
    [CAT_MALLOC_FOREIGN] = "memory of an allocator that heapcensus cannot look into",
    [CAT_STACKS] = "stacks of threads and Python's frame stacks",
    [CAT_FILES] = "mapped files: code, constants, shared memory",
    [CAT_DATA] = "writable data of programs and libraries",
    [CAT_KERNEL] = "vdso, vvar, vsyscall",
    [CAT_RESERVED] = "address space without access: guards, reserves",
    [CAT_UNKNOWN] = "not explained",
};

static void row(FILE *out, const char *resident, double percent, const char *mapped,
                const char *count, const char *name, const char *words)
{
    fprintf(out, "%14s %6.1f %14s %12s  %-23s %s\n", resident, percent, mapped, count, name, words);
}

/* What the word "resident" stands for in this snapshot. */
static const char *resident_is(const struct snapshot *snap)
{
    const struct snapshot_dump *d = &snap->source.dump;
    if (!d->present || !d->resident || strcmp(d->resident, "rss") == 0)
        return "resident = the kernel's Rss";
    return strcmp(d->resident, "data") == 0 ? "resident = pages with data in the core"
                                            : "resident = all that the core holds";
}

static void print_ledger(const struct snapshot *snap, const struct report_options *opt, FILE *out)
{
    const struct snapshot_memory *m = &snap->memory;
    char a[32], b[32], c[32];
    double total = m->rss_bytes ? (double)m->rss_bytes : 1;
    fprintf(out, "%s%14s %6s %14s %12s  %s%s\n", report_bold(opt), "resident", "%", "mapped",
            "count", "what", report_plain(opt));
    for (int i = 0; i < CAT_COUNT; i++) {
        if (!m->tally.bytes[i] && !m->tally.resident[i] && i != CAT_UNKNOWN)
            continue;
        row(out, report_size(a, sizeof a, m->tally.resident[i], opt->exact),
            (double)m->tally.resident[i] * 100 / total,
            report_size(b, sizeof b, m->tally.bytes[i], opt->exact),
            report_count(c, sizeof c, m->tally.count[i]), category_name((enum category)i),
            explained[i]);
    }
    row(out, report_size(a, sizeof a, m->rss_bytes, opt->exact), m->rss_bytes ? 100.0 : 0.0,
        report_size(b, sizeof b, m->mapped_bytes, opt->exact), "", "total", resident_is(snap));
    if (snap->source.swap_bytes)
        fprintf(out, "%14s %6s %14s %12s  %-23s %s\n",
                report_size(a, sizeof a, snap->source.swap_bytes, opt->exact), "", "", "", "swap",
                "swapped out: counted, not read");
}

static void print_pymalloc(const struct snapshot *snap, const struct report_options *opt, FILE *out)
{
    const struct snapshot_pymalloc *p = &snap->pymalloc;
    char a[32], b[32], c[32];
    struct utilisation u;
    if (!p->present || !p->arenas)
        return;
    utilisation_of(snap, &u);
    double total = (double)p->arenas * (double)p->arena_size;
    fprintf(out, "\nPython heap: %s arenas of %s, %.1f %% used; %s blocks in use",
            report_count(a, sizeof a, p->arenas), report_size(b, sizeof b, p->arena_size, false),
            total > 0 ? (double)p->bytes_used * 100 / total : 0.0,
            report_count(c, sizeof c, p->blocks_used));
    if (u.sparse_arenas && !snap->source.dump.missing_bytes) /* else nobody knows what is in them */
        fprintf(out, "; %s %s at most %d %% used and %s %s",
                report_count(a, sizeof a, u.sparse_arenas),
                u.sparse_arenas == 1 ? "arena is" : "arenas are", UTILISATION_SPARSE_PERCENT,
                u.sparse_arenas == 1 ? "holds" : "hold",
                report_size(b, sizeof b, u.reclaimable_bytes, opt->exact));
    fputc('\n', out);
}

static void print_malloc(const struct snapshot *snap, const struct report_options *opt, FILE *out)
{
    const struct snapshot_malloc *m = &snap->malloc;
    char a[32], b[32], c[32], d[32];
    if (!m->present)
        return;
    fprintf(out,
            "%smalloc: %" PRIu64
            " arena%s, %s from the system; %s chunks in use, %s free, %s mmapped",
            snap->pymalloc.present && snap->pymalloc.arenas ? "" : "\n", m->arenas,
            m->arenas == 1 ? "" : "s", report_size(a, sizeof a, m->system_bytes, opt->exact),
            report_count(b, sizeof b, m->used_chunks),
            report_size(c, sizeof c, m->free_bytes + m->cached_bytes + m->top_bytes, opt->exact),
            report_count(d, sizeof d, m->mmapped_chunks));
    fputc('\n', out);
}

/* Live objects and what they own are most of what is in use: their types tell the most. */
static bool types_tell(const struct snapshot *snap)
{
    const struct snapshot_objects *o = &snap->objects;
    const uint64_t *ledger = snap->memory.tally.bytes;
    uint64_t all = add_capped(ledger[CAT_PYTHON_BLOCKS_USED] + ledger[CAT_PYTHON_MIMALLOC],
                              ledger[CAT_MALLOC_USED] + ledger[CAT_MALLOC_MMAPPED]);
    return o->present && add_capped(o->object_bytes, o->buffer_bytes) > all / 2;
}

/* The view that most probably answers the next question. */
static const char *next_view(const struct snapshot *snap)
{
    const struct tally *t = &snap->memory.tally;
    uint64_t python = t->resident[CAT_PYTHON_BLOCKS_USED] + t->resident[CAT_PYTHON_BLOCKS_FREE] +
                      t->resident[CAT_PYTHON_MIMALLOC];
    uint64_t libc = t->resident[CAT_MALLOC_USED] + t->resident[CAT_MALLOC_FREE] +
                    t->resident[CAT_MALLOC_CACHED] + t->resident[CAT_MALLOC_TOP] +
                    t->resident[CAT_MALLOC_MMAPPED];
    if (t->resident[CAT_FILES] + t->resident[CAT_UNKNOWN] + t->resident[CAT_MALLOC_FOREIGN] >
        python + libc)
        return "maps";
    if (t->resident[CAT_PYTHON_BLOCKS_FREE] * 2 > t->resident[CAT_PYTHON_BLOCKS_USED] &&
        python >= libc)
        return "arenas";
    if (types_tell(snap))
        return report_sites_traced(snap) ? "sites" : "types";
    return libc > python ? "malloc" : "sizes";
}

static int text_summary(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                        struct err *err)
{
    report_header(snap, opt, out);
    print_ledger(snap, opt, out);
    print_pymalloc(snap, opt, out);
    print_malloc(snap, opt, out);
    int rc = report_summary_objects(snap, opt, out, err);
    if (rc < 0)
        return rc;
    if (report_sites_traced(snap))
        fputc('\n', out);
    report_tracing(snap, opt, out);
    report_notes(snap, opt, out);
    if (opt->hint)
        fprintf(out, "\nnext: heapcensus %s %s\n", next_view(snap), opt->target);
    return report_done(out, err);
}

const struct report_view report_text_views[] = {
    {"summary", "where the memory is, adding up to the resident set", "", text_summary},
    {"types", "all objects by type, with the buffers that they own",
     "total,count,bytes,buffers,name", report_text_types},
    {"sizes", "pymalloc's size classes", "size,pools,used,free", report_text_sizes},
    {"arenas", "pymalloc's arenas and how full they are", "address,used,free,resident",
     report_text_arenas},
    {"malloc", "the glibc heap, arena by arena", "", report_text_malloc},
    {"maps", "the mappings and what is in each", "address,size,resident", report_text_maps},
    {NULL, NULL, NULL, NULL},
};

const struct report_view *report_text_find(const char *name)
{
    for (const struct report_view *v = report_text_views; v->name; v++)
        if (strcmp(v->name, name) == 0)
            return v;
    return NULL;
}
