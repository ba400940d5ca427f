/* Statistics of hostile snapshots: tables whose numbers lead anywhere, names and patterns of any
 * bytes, sources of any bytes. What is accepted must add up, and print. */
#define _GNU_SOURCE 1 /* memfd_create */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats/report_sites.h"
#include "formats/type_groups.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef FUZZ_MAIN
#define FUZZ_SEED noise
#include "tests/fuzz/driver.h"

/* Enough of it for full tables: what the driver makes by itself is mostly short. */
static size_t noise(unsigned n, uint8_t *buf, size_t cap)
{
    size_t len = cap < 2048 ? cap : 2048;
    uint32_t state = n * 2654435761u + 1;
    for (size_t i = 0; i < len; i++) {
        state = state * 1664525 + 1013904223;
        buf[i] = (uint8_t)(state >> 24);
    }
    return len;
}
#endif

enum { MOST = 40, NAME = 12 };

struct input {
    const uint8_t *at, *end;
};

static uint32_t number(struct input *in, uint32_t below)
{
    uint32_t v = 0;
    for (int i = 0; i < 2 && in->at < in->end; i++)
        v = v << 8 | *in->at++;
    return v % below;
}

/* Few letters, so that names and patterns meet; now and then any byte. */
static void text(struct input *in, char *buf)
{
    static const char letters[] = "aab/.py*?[]!-^\\<>";
    uint32_t n = number(in, NAME);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t c = number(in, 300);
        buf[i] = c && c < 256 && c % 7 == 0 ? (char)c : letters[c % (sizeof letters - 1)];
    }
    buf[n] = '\0';
}

/* One in 512 numbers is out of range. */
static uint32_t index_below(struct input *in, size_t n)
{
    uint32_t v = number(in, 1u << 16);
    return v % 512 == 511 ? v : (uint32_t)(n ? v % n : 0);
}

static void fill(struct input *in, struct snapshot *s, const char *source)
{
    char name[NAME];
    uint32_t ids[MOST], n = number(in, MOST);
    for (uint32_t i = 0; i < n; i++) {
        struct snapshot_frame *f = snapshot_add_frame(s);
        text(in, name);
        f->file = number(in, 8) ? snapshot_str(s, name) : source;
        f->line = number(in, 5);
        f->function = number(in, 9) ? NULL : snapshot_str(s, name);
    }
    for (uint32_t t = number(in, MOST); t > 0; t--) {
        uint32_t len = number(in, 6);
        for (uint32_t i = 0; i < len; i++)
            ids[i] = index_below(in, s->n_frames);
        snapshot_add_traceback(s, ids, len, number(in, 9));
    }
    for (uint32_t t = number(in, MOST); t > 0; t--) {
        struct snapshot_site *site = snapshot_add_site(s);
        text(in, name);
        site->traceback = index_below(in, s->n_tracebacks);
        site->domain = number(in, 3);
        site->type = number(in, 3) ? snapshot_str(s, name) : NULL;
        site->count = number(in, 1000);
        site->bytes = number(in, 20) ? number(in, 1u << 16) : UINT64_MAX - number(in, 3);
    }
    s->tracing.present = s->tracing.tracing = s->python.present = true;
}

static void check(const struct site_stats *st, bool cumulative)
{
    uint64_t size = 0, count = 0;
    for (size_t i = 0; i < st->n; i++) {
        size = add_capped(size, st->rows[i].size);
        count = add_capped(count, st->rows[i].count);
        if (!st->rows[i].n_frames || !site_frame(&st->rows[i], st->rows[i].n_frames - 1)->file ||
            (i && st->rows[i].size > st->rows[i - 1].size))
            abort();
    }
    if (!cumulative && (size != st->size || count != st->count))
        abort();
}

static void print(struct input *in, const struct snapshot *s, struct site_stats *st,
                  enum site_key key, bool cumulative)
{
    struct site_source source;
    const struct report_options look = {
        .target = "1", .hint = true, .width = (int)number(in, 200), .exact = number(in, 2)};
    FILE *out = fopen("/dev/null", "w");
    site_source_init(&source);
    struct report_sites r = {.snap = s, .stats = st, .key = key, .cumulative = cumulative};
    r.shown = report_sites_choose(st, number(in, 1000), (long)number(in, 10), 25);
    r.text = (struct site_text){number(in, 4), number(in, 2), &source};
    if (out && (report_text_sites(&r, &look, out, NULL) | report_tracemalloc_sites(&r, out, NULL) |
                report_display_top(&r, 10, out, NULL)) != 0)
        abort();
    if (out)
        fclose(out);
    site_source_release(&source);
}

static void run(struct input *in, const struct snapshot *s)
{
    char pattern[2][NAME];
    struct site_filter items[2];
    struct site_filters filters = {items, number(in, 3), NULL};
    struct site_stats st;
    enum site_key key = (enum site_key)number(in, 3);
    bool cumulative = key != SITES_BY_TRACEBACK && number(in, 2);
    for (int i = 0; i < 2; i++) {
        text(in, pattern[i]);
        items[i] = (struct site_filter){.inclusive = number(in, 2),
                                        .pattern = number(in, 5) ? pattern[i] : NULL,
                                        .line = number(in, 3),
                                        .all_frames = number(in, 2),
                                        .domain = number(in, 3)};
        items[i].has_domain = !items[i].pattern || number(in, 2);
    }
    if (site_stats_make(s, key, cumulative, &filters, &st, NULL) < 0)
        return;
    check(&st, cumulative);
    print(in, s, &st, key, cumulative);
    site_stats_release(&st);
    if (site_stats_compare(s, s, key, cumulative, &filters, &st, NULL) < 0)
        abort();
    for (size_t i = 0; i < st.n; i++)
        if (st.rows[i].size_diff || st.rows[i].count_diff)
            abort();
    site_stats_release(&st);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, data + size};
    struct snapshot s;
    char source[64];
    int fd = memfd_create("source", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        return 0;
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    snapshot_init(&s);
    fill(&in, &s, source);
    run(&in, &s);
    snapshot_release(&s);
    close(fd);
    return 0;
}
