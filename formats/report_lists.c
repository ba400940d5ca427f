/* The list views as text: sizes, arenas, malloc, maps. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "formats/report.h"
#include "formats/type_groups.h"
#include "formats/utilisation.h"

enum { CELL = 32, SPARSE_TYPES = 5 };

size_t report_rows(const struct report_options *opt, size_t n, size_t usual)
{
    size_t want = opt->top < 0 ? usual : (size_t)opt->top;
    return want == 0 || want > n ? n : want;
}

static void print_rest(FILE *out, size_t shown, size_t n, const char *what)
{
    if (shown < n)
        fprintf(out, "... and %zu more %s (--top 0 shows all)\n", n - shown, what);
}

/* An index sorted by a key; ties keep the snapshot's order, so that output is the same each time.
 */
struct sort_row {
    uint64_t key;
    size_t index;
};

static int by_key_down(const void *a, const void *b)
{
    const struct sort_row *x = a, *y = b;
    if (x->key != y->key)
        return x->key > y->key ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static struct sort_row *sorted(const struct snapshot *snap, size_t n,
                               uint64_t (*key)(const struct snapshot *, size_t, const char *),
                               const char *sort, bool reverse, struct err *err)
{
    struct sort_row *rows = calloc(n ? n : 1, sizeof *rows);
    if (!rows) {
        err_set(err, ERR_NOMEM, "no memory to sort %zu rows", n);
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        rows[i] = (struct sort_row){key(snap, i, sort), i};
    qsort(rows, n, sizeof *rows, by_key_down);
    for (size_t i = 0; reverse && i < n / 2; i++) {
        struct sort_row t = rows[i];
        rows[i] = rows[n - 1 - i];
        rows[n - 1 - i] = t;
    }
    return rows;
}

/* ---- sizes ---- */

static uint64_t size_key(const struct snapshot *snap, size_t i, const char *sort)
{
    const struct snapshot_size_class *c = &snap->pymalloc.classes[i];
    if (!sort)
        return SIZE_CLASSES - i; /* ascending by size, as _debugmallocstats prints them */
    if (strcmp(sort, "size") == 0)
        return c->size;
    if (strcmp(sort, "pools") == 0)
        return c->pools;
    if (strcmp(sort, "free") == 0)
        return c->blocks_free * c->size;
    return c->blocks_used * c->size;
}

static void print_size_row(const struct snapshot_size_class *c, const struct report_options *opt,
                           FILE *out)
{
    char a[CELL], b[CELL], d[CELL], e[CELL], f[CELL];
    uint64_t all = c->blocks_used + c->blocks_free;
    fprintf(out, "%6" PRIu64 " %10s %14s %12s %14s %12s %6.1f", c->size,
            report_count(a, sizeof a, c->pools), report_count(b, sizeof b, c->blocks_used),
            report_size(d, sizeof d, c->blocks_used * c->size, opt->exact),
            report_count(e, sizeof e, c->blocks_free),
            report_size(f, sizeof f, c->blocks_free * c->size, opt->exact),
            all ? (double)c->blocks_used * 100 / (double)all : 0.0);
    if (c->top_type) {
        fprintf(out, " %6.1f  ",
                c->blocks_used ? (double)c->top_count * 100 / (double)c->blocks_used : 0.0);
        report_string(out, c->top_type);
    }
    fputc('\n', out);
}

static bool sizes_have_types(const struct snapshot_pymalloc *p)
{
    for (int i = 0; i < SIZE_CLASSES; i++)
        if (p->classes[i].pools && p->classes[i].top_type)
            return true;
    return false;
}

static void print_size_total(const struct snapshot_pymalloc *p, const struct report_options *opt,
                             FILE *out)
{
    char a[CELL], b[CELL], c[CELL], d[CELL], e[CELL];
    uint64_t all = p->blocks_used + p->blocks_free;
    fprintf(out, "%6s %10s %14s %12s %14s %12s %6.1f\n", "total",
            report_count(a, sizeof a, p->pools_used), report_count(b, sizeof b, p->blocks_used),
            report_size(c, sizeof c, p->bytes_used, opt->exact),
            report_count(d, sizeof d, p->blocks_free),
            report_size(e, sizeof e, p->bytes_free, opt->exact),
            all ? (double)p->blocks_used * 100 / (double)all : 0.0);
    fprintf(out, "\n%s unused pools of %s; blocks above 512 bytes go to malloc\n",
            report_count(a, sizeof a, p->pools_free),
            report_size(b, sizeof b, p->pool_size, false));
}

static int no_pymalloc(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                       struct err *err)
{
    fputs("no pymalloc heap: the allocator is ", out);
    report_string(out, snap->python.allocator ? snap->python.allocator : "unknown");
    fputc('\n', out);
    if (opt->hint)
        fprintf(out, "\nnext: heapcensus malloc %s\n", opt->target);
    return report_done(out, err);
}

int report_text_sizes(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                      struct err *err)
{
    report_header(snap, opt, out);
    if (!snap->pymalloc.present)
        return no_pymalloc(snap, opt, out, err);
    struct sort_row *rows = sorted(snap, SIZE_CLASSES, size_key, opt->sort, opt->reverse, err);
    if (!rows)
        return ERR_NOMEM;
    fprintf(out, "%6s %10s %14s %12s %14s %12s %6s%s\n", "size", "pools", "blocks used", "bytes",
            "blocks free", "bytes", "used %",
            sizes_have_types(&snap->pymalloc) ? " type %  most blocks" : "");
    size_t left = report_rows(opt, SIZE_CLASSES, 0);
    for (size_t i = 0; i < SIZE_CLASSES && left; i++) {
        const struct snapshot_size_class *c = &snap->pymalloc.classes[rows[i].index];
        if (!c->pools)
            continue;
        print_size_row(c, opt, out);
        left--;
    }
    free(rows);
    print_size_total(&snap->pymalloc, opt, out);
    if (opt->hint)
        fprintf(out, "\nnext: heapcensus arenas %s\n", opt->target);
    return report_done(out, err);
}

/* ---- arenas ---- */

static uint64_t arena_key(const struct snapshot *snap, size_t i, const char *sort)
{
    const struct snapshot_arena *a = &snap->arenas[i];
    if (sort && strcmp(sort, "address") == 0)
        return a->address;
    if (sort && strcmp(sort, "resident") == 0)
        return a->resident_bytes;
    if (sort && strcmp(sort, "used") == 0)
        return a->bytes_used;
    /* The emptiest first: those are what one looks for. */
    return a->size > a->bytes_used ? a->size - a->bytes_used : 0;
}

static void print_histogram(const struct utilisation *u, const struct report_options *opt,
                            FILE *out)
{
    char a[CELL], b[CELL];
    uint64_t most = 1;
    for (int i = 0; i < UTILISATION_BUCKETS; i++)
        if (u->buckets[i].arenas > most)
            most = u->buckets[i].arenas;
    fprintf(out, "%9s %10s %12s\n", "used", "arenas", "bytes used");
    for (int i = 0; i < UTILISATION_BUCKETS; i++) {
        int stars = (int)(u->buckets[i].arenas * 40 / most);
        if (!stars && u->buckets[i].arenas)
            stars = 1;
        fprintf(out, "%3d-%3d %% %10s %12s%s%.*s\n", i * 10, i * 10 + 10,
                report_count(a, sizeof a, u->buckets[i].arenas),
                report_size(b, sizeof b, u->buckets[i].bytes_used, opt->exact), stars ? "  " : "",
                stars, "****************************************");
    }
}

/* Which types keep the sparse arenas from going back. */
static int print_holders(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                         struct err *err)
{
    struct type_groups g;
    char a[CELL], b[CELL];
    int rc = type_groups_sparse(&g, snap, err);
    if (rc < 0)
        return rc;
    if (g.n)
        fprintf(out, "%12s %12s  %s\n", "arenas", "bytes", "type that holds most of them");
    for (size_t i = 0; i < g.n && i < SPARSE_TYPES; i++) {
        fprintf(out, "%12s %12s  ", report_count(a, sizeof a, g.rows[i].count),
                report_size(b, sizeof b, g.rows[i].bytes, opt->exact));
        report_string(out, g.rows[i].name);
        fputc('\n', out);
    }
    if (g.n)
        fputc('\n', out);
    type_groups_release(&g);
    return 0;
}

static bool arenas_have_types(const struct snapshot *snap)
{
    for (size_t i = 0; i < snap->n_arenas; i++)
        if (snap->arenas[i].top_type)
            return true;
    return false;
}

static void print_arena(const struct snapshot_arena *a, const struct report_options *opt, FILE *out)
{
    char b[CELL], c[CELL], d[CELL];
    char e[48];
    snprintf(e, sizeof e, "%6" PRIu64 " of %" PRIu64, a->pools_free, a->pools_total);
    fprintf(out, "0x%012" PRIx64 " %6.1f %12s %12s %12s %s", a->address,
            a->size ? (double)a->bytes_used * 100 / (double)a->size : 0.0,
            report_count(b, sizeof b, a->blocks_used),
            report_size(c, sizeof c, a->bytes_used, opt->exact),
            report_size(d, sizeof d, a->resident_bytes, opt->exact), e);
    if (a->top_type) {
        fprintf(out, "%*s", strlen(e) < 14 ? 16 - (int)strlen(e) : 2, "");
        report_string(out, a->top_type);
        fprintf(out, " (%s)", report_size(b, sizeof b, a->top_bytes, opt->exact));
    }
    fputc('\n', out);
}

int report_text_arenas(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                       struct err *err)
{
    char a[CELL], b[CELL];
    report_header(snap, opt, out);
    if (!snap->pymalloc.present)
        return no_pymalloc(snap, opt, out, err);
    struct utilisation u;
    utilisation_of(snap, &u);
    struct sort_row *rows = sorted(snap, snap->n_arenas, arena_key, opt->sort, opt->reverse, err);
    if (!rows)
        return ERR_NOMEM;
    print_histogram(&u, opt, out);
    fprintf(out,
            "\n%s sparse arena%s (at most %d %% used): %s would go back to the system if %s "
            "emptied\n\n",
            report_count(a, sizeof a, u.sparse_arenas), u.sparse_arenas == 1 ? "" : "s",
            UTILISATION_SPARSE_PERCENT, report_size(b, sizeof b, u.reclaimable_bytes, opt->exact),
            u.sparse_arenas == 1 ? "it" : "they");
    int rc = print_holders(snap, opt, out, err);
    if (rc < 0) {
        free(rows);
        return rc;
    }
    size_t n = report_rows(opt, snap->n_arenas, 20);
    fprintf(out, "%-14s %6s %12s %12s %12s %s%s\n", "arena", "used %", "blocks", "bytes used",
            "resident", "pools free", arenas_have_types(snap) ? "      most bytes" : "");
    for (size_t i = 0; i < n; i++)
        print_arena(&snap->arenas[rows[i].index], opt, out);
    print_rest(out, n, snap->n_arenas, "arenas");
    free(rows);
    if (opt->hint)
        fprintf(out, "\nnext: heapcensus malloc %s\n", opt->target);
    return report_done(out, err);
}

/* ---- malloc ---- */

static void print_malloc_arena(const struct snapshot_malloc_arena *m,
                               const struct report_options *opt, FILE *out)
{
    char a[CELL], b[CELL], c[CELL], d[CELL], e[CELL], f[CELL];
    fprintf(out, "0x%012" PRIx64 " %-6s %5" PRIu64 " %7" PRIu64 " %12s %12s %12s %12s %12s %12s\n",
            m->address, m->main ? "main" : "thread", m->heaps, m->attached_threads,
            report_size(a, sizeof a, m->system_bytes, opt->exact),
            report_count(b, sizeof b, m->used_chunks),
            report_size(c, sizeof c, m->used_bytes, opt->exact),
            report_size(d, sizeof d, m->cached_bytes, opt->exact),
            report_size(e, sizeof e, m->free_bytes, opt->exact),
            report_size(f, sizeof f, m->top_bytes, opt->exact));
}

static void print_mallinfo(const struct snapshot_mallinfo2 *m, FILE *out)
{
    fprintf(out,
            "mallinfo2: arena %" PRIu64 " ordblks %" PRIu64 " smblks %" PRIu64 " hblks %" PRIu64
            " hblkhd %" PRIu64 "\n           fsmblks %" PRIu64 " uordblks %" PRIu64
            " fordblks %" PRIu64 " keepcost %" PRIu64 "\n",
            m->arena, m->ordblks, m->smblks, m->hblks, m->hblkhd, m->fsmblks, m->uordblks,
            m->fordblks, m->keepcost);
}

static void print_malloc_totals(const struct snapshot_malloc *m, const struct report_options *opt,
                                FILE *out)
{
    const struct {
        const char *what;
        uint64_t n, bytes;
    } rows[] = {
        {"in use", m->used_chunks, m->used_bytes},
        {"cached (tcache, fastbins)", m->cached_chunks, m->cached_bytes},
        {"free in bins", m->free_chunks, m->free_bytes},
        {"free at the top", m->arenas, m->top_bytes},
        {"overhead", 0, m->overhead_bytes},
        {"damaged", 0, m->damaged_bytes},
        {"mmapped, in use", m->mmapped_chunks, m->mmapped_bytes},
    };
    char a[CELL], b[CELL];
    fprintf(out, "%14s %14s\n", "chunks", "bytes");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].bytes || rows[i].n)
            fprintf(out, "%14s %14s  %s\n", report_count(a, sizeof a, rows[i].n),
                    report_size(b, sizeof b, rows[i].bytes, opt->exact), rows[i].what);
    fputc('\n', out);
}

int report_text_malloc(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                       struct err *err)
{
    report_header(snap, opt, out);
    if (!snap->malloc.present) {
        fputs("no glibc heap was walked: malloc is ", out);
        report_string(out, snap->libc.allocator ? snap->libc.allocator : "unknown");
        fputc('\n', out);
    } else {
        print_malloc_totals(&snap->malloc, opt, out);
        fprintf(out, "%-14s %-6s %5s %7s %12s %12s %12s %12s %12s %12s\n", "arena", "kind", "heaps",
                "threads", "system", "chunks used", "bytes used", "cached", "free", "top");
        size_t n = report_rows(opt, snap->n_malloc_arenas, 0);
        for (size_t i = 0; i < n; i++)
            print_malloc_arena(&snap->malloc_arenas[i], opt, out);
        print_rest(out, n, snap->n_malloc_arenas, "arenas");
        fputc('\n', out);
        print_mallinfo(&snap->malloc.mallinfo2, out);
    }
    report_notes(snap, opt, out);
    if (opt->hint)
        fprintf(out, "\nnext: heapcensus maps %s\n", opt->target);
    return report_done(out, err);
}

/* ---- maps ---- */

static uint64_t map_key(const struct snapshot *snap, size_t i, const char *sort)
{
    const struct snapshot_mapping *m = &snap->mappings[i];
    if (sort && strcmp(sort, "address") == 0)
        return m->address;
    if (sort && strcmp(sort, "size") == 0)
        return m->size;
    return m->resident_bytes;
}

/* The categories of a mapping, largest first, at most three. */
static void print_contents(const struct tally *t, FILE *out)
{
    bool done[CAT_COUNT] = {false};
    for (int shown = 0; shown < 3; shown++) {
        int best = -1;
        for (int i = 0; i < CAT_COUNT; i++)
            if (!done[i] && t->bytes[i] &&
                (best < 0 || t->resident[i] > t->resident[best] ||
                 (t->resident[i] == t->resident[best] && t->bytes[i] > t->bytes[best])))
                best = i;
        if (best < 0)
            return;
        done[best] = true;
        fprintf(out, "%s%s", shown ? ", " : " ", category_name((enum category)best));
    }
}

int report_text_maps(const struct snapshot *snap, const struct report_options *opt, FILE *out,
                     struct err *err)
{
    char a[CELL], b[CELL];
    report_header(snap, opt, out);
    struct sort_row *rows = sorted(snap, snap->n_mappings, map_key, opt->sort, opt->reverse, err);
    if (!rows)
        return ERR_NOMEM;
    size_t n = report_rows(opt, snap->n_mappings, 30);
    fprintf(out, "%-14s %12s %12s %-4s %-9s %s\n", "address", "size", "resident", "perm", "kind",
            "contents, name");
    for (size_t i = 0; i < n; i++) {
        const struct snapshot_mapping *m = &snap->mappings[rows[i].index];
        fprintf(out, "0x%012" PRIx64 " %12s %12s ", m->address,
                report_size(a, sizeof a, m->size, opt->exact),
                report_size(b, sizeof b, m->resident_bytes, opt->exact));
        report_string(out, m->perms);
        fputc(' ', out);
        report_string(out, m->kind);
        size_t width = m->kind ? strlen(m->kind) : 1;
        fprintf(out, "%*s", width < 9 ? 9 - (int)width : 0, "");
        print_contents(&m->tally, out);
        if (m->path) {
            fputs("  ", out);
            report_string(out, m->path);
        }
        fputc('\n', out);
    }
    print_rest(out, n, snap->n_mappings, "mappings");
    free(rows);
    if (opt->hint)
        fprintf(out, "\nnext: heapcensus summary %s\n", opt->target);
    return report_done(out, err);
}

/* ---- the same order and length for the views as JSON ---- */

/* Put items[rows[i].index] at place i. */
static int permute(void *items, size_t n, size_t elem, const struct sort_row *rows, struct err *err)
{
    char *old = malloc(n ? n * elem : 1);
    if (!old)
        return err_set(err, ERR_NOMEM, "no memory to sort %zu rows", n);
    if (n)
        memcpy(old, items, n * elem);
    for (size_t i = 0; i < n; i++)
        memcpy((char *)items + i * elem, old + rows[i].index * elem, elem);
    free(old);
    return 0;
}

int report_arrange(struct snapshot *snap, const char *view, const struct report_options *opt,
                   struct err *err)
{
    bool sizes = strcmp(view, "sizes") == 0, arenas = strcmp(view, "arenas") == 0;
    bool maps = strcmp(view, "maps") == 0;
    struct snapshot_size_class *classes = snap->pymalloc.classes;
    if (strcmp(view, "types") == 0 && (opt->top >= 0 || opt->sort || opt->reverse || opt->by))
        return report_arrange_types(snap, opt, err);
    if ((!sizes && !arenas && !maps) || (opt->top < 0 && !opt->sort && !opt->reverse))
        return 0;
    size_t n = sizes ? SIZE_CLASSES : arenas ? snap->n_arenas : snap->n_mappings;
    struct sort_row *rows = sorted(snap, n,
                                   sizes    ? size_key
                                   : arenas ? arena_key
                                            : map_key,
                                   opt->sort, opt->reverse, err);
    if (!rows)
        return ERR_NOMEM;
    int rc = sizes    ? permute(classes, n, sizeof *classes, rows, err)
             : arenas ? permute(snap->arenas, n, sizeof *snap->arenas, rows, err)
                      : permute(snap->mappings, n, sizeof *snap->mappings, rows, err);
    free(rows);
    if (rc < 0)
        return rc;
    if (arenas)
        snap->hidden_arenas = n - report_rows(opt, n, 0);
    if (maps)
        snap->n_mappings = report_rows(opt, n, 0);
    size_t left = report_rows(opt, n, 0);
    for (size_t i = 0; sizes && i < n; i++) { /* classes without pools are not written */
        if (classes[i].pools && left)
            left--;
        else
            classes[i].pools = 0;
    }
    return 0;
}
