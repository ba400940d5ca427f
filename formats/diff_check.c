/* What makes a comparison less than it seems: other processes, versions, ways of counting. */
#define _GNU_SOURCE 1 /* timegm */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "formats/diff.h"
#include "formats/type_groups.h"

static const char *text(const char *s)
{
    return s && *s ? s : "unknown";
}

/* Both known, and not equal. */
static bool differ(const char *a, const char *b)
{
    return a && *a && b && *b && strcmp(a, b) != 0;
}

bool diff_time(const char *iso, double *ret)
{
    struct tm tm = {.tm_isdst = 0};
    const char *rest = iso ? strptime(iso, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    double fraction = 0;
    if (!rest)
        return false;
    if (*rest == '.') {
        double unit = 0.1;
        for (rest++; *rest >= '0' && *rest <= '9'; rest++, unit /= 10)
            fraction += (*rest - '0') * unit;
    }
    if (strcmp(rest, "Z") != 0)
        return false;
    *ret = (double)timegm(&tm) + fraction;
    return true;
}

/* ---- one run of one process ---- */

/* What the kernel puts at another place each time a program starts. */
enum { PLACE_STACK, PLACE_VDSO, PLACE_LOADER, PLACES };

static bool is_loader(const struct snapshot_mapping *m)
{
    const char *base = m->path ? strrchr(m->path, '/') : NULL;
    return base && m->offset == 0 && strncmp(base, "/ld", 3) == 0 && strstr(base, ".so") != NULL;
}

/* The stack grows at its low end, so its high end is the place. */
static void find_places(const struct snapshot *snap, uint64_t places[PLACES])
{
    memset(places, 0, PLACES * sizeof *places);
    for (size_t i = 0; i < snap->n_mappings; i++) {
        const struct snapshot_mapping *m = &snap->mappings[i];
        if (m->path && strcmp(m->path, "[stack]") == 0)
            places[PLACE_STACK] = add_capped(m->address, m->size);
        else if (m->path && strcmp(m->path, "[vdso]") == 0)
            places[PLACE_VDSO] = m->address;
        else if (is_loader(m) && !places[PLACE_LOADER])
            places[PLACE_LOADER] = m->address;
    }
}

static enum diff_same same_start(const struct snapshot *a, const struct snapshot *b, char *why,
                                 size_t cap)
{
    uint64_t x[PLACES], y[PLACES];
    bool known = false;
    if (differ(a->source.dump.started_at, b->source.dump.started_at)) {
        snprintf(why, cap, "they began at different times: %s, %s", a->source.dump.started_at,
                 b->source.dump.started_at);
        return DIFF_OTHER;
    }
    find_places(a, x);
    find_places(b, y);
    for (int i = 0; i < PLACES; i++) {
        if (x[i] && y[i] && x[i] != y[i]) {
            snprintf(why, cap,
                     "PID %" PRId64 " was started anew in between (its %s lies elsewhere)",
                     b->source.pid, i == PLACE_STACK ? "stack" : "library of the system");
            return DIFF_OTHER;
        }
        known = known || (x[i] && y[i]);
    }
    if (!known)
        snprintf(why, cap, "nothing tells whether both are of one run of PID %" PRId64,
                 b->source.pid);
    return known ? DIFF_SAME : DIFF_CANNOT_TELL;
}

enum diff_same diff_same_process(const struct snapshot *a, const struct snapshot *b, char *why,
                                 size_t cap)
{
    const struct snapshot_source *x = &a->source, *y = &b->source;
    why[0] = '\0';
    if (differ(a->host, b->host)) {
        snprintf(why, cap, "they are of different hosts: %s, %s", a->host, b->host);
        return DIFF_OTHER;
    }
    if (x->pid <= 0 || y->pid <= 0) {
        snprintf(why, cap, "the PID is not known of both");
        return DIFF_CANNOT_TELL;
    }
    if (x->pid != y->pid) {
        snprintf(why, cap, "they are of different processes: PID %" PRId64 ", PID %" PRId64, x->pid,
                 y->pid);
        return DIFF_OTHER;
    }
    if (differ(x->exe_build_id, y->exe_build_id) ||
        (!(x->exe_build_id && y->exe_build_id) && differ(x->exe, y->exe))) {
        snprintf(why, cap, "they are of different executables: %s, %s", text(x->exe), text(y->exe));
        return DIFF_OTHER;
    }
    return same_start(a, b, why, cap);
}

/* ---- warnings ---- */

static void PRINTF_LIKE(3, 4) warn(struct diff_warnings *w, const char *what, const char *fmt, ...)
{
    va_list ap;
    if (w->n == DIFF_WARNINGS)
        return;
    struct diff_warning *one = &w->items[w->n++];
    one->what = what;
    va_start(ap, fmt);
    vsnprintf(one->why, sizeof one->why, fmt, ap);
    va_end(ap);
}

static void warn_source(const struct snapshot *a, const struct snapshot *b, struct diff_warnings *w)
{
    char why[DIFF_WHY];
    double x, y;
    if (diff_same_process(a, b, why, sizeof why) == DIFF_OTHER)
        warn(w, "diff.process", "%.200s; compared by key", why);
    if (diff_time(a->taken_at, &x) && diff_time(b->taken_at, &y) && x > y)
        warn(w, "diff.order", "the first one is the newer: it was taken at %s, the second at %s",
             a->taken_at, b->taken_at);
    if (differ(a->tool_version, b->tool_version))
        warn(w, "diff.tool", "written by different versions of heapcensus: %s, %s", a->tool_version,
             b->tool_version);
    if (!a->complete)
        warn(w, "diff.incomplete", "the old one is incomplete: its notes say what is missing");
    if (!b->complete)
        warn(w, "diff.incomplete", "the new one is incomplete: its notes say what is missing");
    if (a->source.consistent != b->source.consistent)
        warn(w, "diff.consistent",
             "the %s one was read while the process ran: small differences "
             "may be that",
             a->source.consistent ? "new" : "old");
    if (a->redacted != b->redacted)
        warn(w, "diff.redacted", "only the %s one is redacted", a->redacted ? "old" : "new");
}

static void warn_python(const struct snapshot *a, const struct snapshot *b, struct diff_warnings *w)
{
    const struct snapshot_python *x = &a->python, *y = &b->python;
    if (x->present != y->present) {
        warn(w, "diff.python", "only the %s one knows its Python", x->present ? "old" : "new");
        return;
    }
    if (differ(x->version, y->version))
        warn(w, "diff.python", "different Pythons: %s, %s; sizes of objects may differ", x->version,
             y->version);
    if (x->debug != y->debug || x->free_threaded != y->free_threaded)
        warn(w, "diff.build", "different builds of Python: objects have other sizes");
    if (differ(x->allocator, y->allocator))
        warn(w, "diff.allocator", "different allocators of Python: %s, %s", x->allocator,
             y->allocator);
    if (differ(a->libc.allocator, b->libc.allocator))
        warn(w, "diff.allocator", "different allocators of the C library: %s, %s",
             a->libc.allocator, b->libc.allocator);
    if (a->objects.present != b->objects.present)
        warn(w, "diff.types", "only the %s one has types", a->objects.present ? "old" : "new");
}

/* What "resident" means is the kernel's word for a process, and less sure for most cores. */
static const char *resident_kind(const struct snapshot *s)
{
    return s->source.dump.present && s->source.dump.resident ? s->source.dump.resident : "rss";
}

static void warn_counting(const struct snapshot *a, const struct snapshot *b,
                          struct diff_warnings *w)
{
    const struct snapshot_tracing *x = &a->tracing, *y = &b->tracing;
    if (strcmp(resident_kind(a), resident_kind(b)) != 0)
        warn(w, "diff.resident", "resident bytes are not of one kind: %s, %s (see core files)",
             resident_kind(a), resident_kind(b));
    if (x->present != y->present)
        warn(w, "diff.tracing", "only the %s one was traced: sites cannot be compared",
             x->present ? "old" : "new");
    if (!x->present || !y->present)
        return;
    if (differ(x->source, y->source))
        warn(w, "diff.tracing", "sites come from different sources: %s, %s", x->source, y->source);
    if (x->frames_limit != y->frames_limit)
        warn(w, "diff.frames",
             "different tracing limits: %" PRIu64 " and %" PRIu64
             " frames; tracebacks of one place differ",
             x->frames_limit, y->frames_limit);
    if (y->overhead_bytes > x->overhead_bytes)
        warn(w, "diff.overhead",
             "tracemalloc's own tables grew by %" PRIu64
             " bytes, which are in Rss and in what is the interpreter's own",
             y->overhead_bytes - x->overhead_bytes);
    if (x->lost || y->lost)
        warn(w, "diff.lost", "records of tracing were lost: %" PRIu64 " old, %" PRIu64 " new",
             x->lost, y->lost);
}

void diff_warn(const struct snapshot *a, const struct snapshot *b, struct diff_warnings *ret)
{
    ret->n = 0;
    warn_source(a, b, ret);
    warn_python(a, b, ret);
    warn_counting(a, b, ret);
}
