/* Grouping and comparing sites, without reading them: `sites [N]` makes two snapshots of N sites (a
 * million) with tracebacks of 10 frames and prints the CPU time that each kind of statistics takes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "formats/sites.h"

enum { FILES = 300, LINES = 2000, DEPTH = 10, TYPES = 50 };

static uint64_t state = 88172645463325252;

static uint32_t random_below(uint32_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 32) % n);
}

static void make(struct snapshot *s, size_t n)
{
    char text[64];
    const char *types[TYPES];
    uint32_t frames[DEPTH];
    snapshot_init(s);
    for (int i = 0; i < TYPES; i++) {
        snprintf(text, sizeof text, "app.module.Type%d", i);
        types[i] = snapshot_str(s, text);
    }
    for (uint32_t i = 0; i < FILES * LINES; i++) {
        struct snapshot_frame *f = snapshot_add_frame(s);
        snprintf(text, sizeof text, "/srv/app/package/module%u.py", i / LINES);
        f->file = snapshot_str(s, text);
        f->line = i % LINES + 1;
    }
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < DEPTH; k++)
            frames[k] = random_below(FILES * LINES);
        snapshot_add_traceback(s, frames, DEPTH, DEPTH);
        struct snapshot_site *site = snapshot_add_site(s);
        site->traceback = (uint32_t)i;
        site->type = types[random_below(TYPES)];
        site->count = 1;
        site->bytes = 64 << random_below(4); /* few sizes: ties are put in order by their frames */
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int measure(const char *name, const struct snapshot *then, const struct snapshot *snap,
                   enum site_key key, bool cumulative, const struct site_filters *filters)
{
    struct site_stats st;
    struct err err = ERR_INIT;
    double from = now();
    int rc = then ? site_stats_compare(then, snap, key, cumulative, filters, &st, &err)
                  : site_stats_make(snap, key, cumulative, filters, &st, &err);
    double took = now() - from;
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", name, err.text);
        return 1;
    }
    printf("%-34s %8.3f s %10zu rows\n", name, took, st.n);
    site_stats_release(&st);
    return 0;
}

int main(int argc, char **argv)
{
    size_t n = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
    struct site_filter item = {.pattern = "*/module1*.py", .all_frames = true};
    const struct site_filters filters = {&item, 1, "Type[1-4]"};
    struct snapshot a, b;
    make(&a, n);
    make(&b, n);
    int bad = measure("by file", NULL, &a, SITES_BY_FILE, false, NULL) |
              measure("by line", NULL, &a, SITES_BY_LINE, false, NULL) |
              measure("by traceback", NULL, &a, SITES_BY_TRACEBACK, false, NULL) |
              measure("by file, cumulative", NULL, &a, SITES_BY_FILE, true, NULL) |
              measure("by line, cumulative", NULL, &a, SITES_BY_LINE, true, NULL) |
              measure("by line, filtered", NULL, &a, SITES_BY_LINE, false, &filters) |
              measure("compared by line", &a, &b, SITES_BY_LINE, false, NULL) |
              measure("compared by traceback", &a, &b, SITES_BY_TRACEBACK, false, NULL);
    snapshot_release(&a);
    snapshot_release(&b);
    return bad;
}
