#include "formats/gate.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "formats/fnmatch.h"
#include "formats/type_groups.h"

/* ---- parsing ---- */

static int PRINTF_LIKE(3, 4) refuse(struct err *err, const char *text, const char *fmt, ...)
{
    char why[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why, sizeof why, fmt, ap);
    va_end(ap);
    err_set(err, ERR_USAGE, "--fail-if '%.200s': %s", text, why);
    err_remedy(err, "such as 'total>+5%%', 'rss>+10MiB', 'type:app.Session>+1000', "
                    "'line:app/db.py:12>+1MiB'");
    return ERR_USAGE;
}

static const struct {
    const char *name;
    enum gate_unit unit;
    uint64_t bytes;
} units[] = {
    {"", GATE_COUNT, 1},
    {"%", GATE_PERCENT, 1},
    {"B", GATE_BYTES, 1},
    {"KiB", GATE_BYTES, 1 << 10},
    {"MiB", GATE_BYTES, 1 << 20},
    {"GiB", GATE_BYTES, 1 << 30},
    {"TiB", GATE_BYTES, 1ull << 40},
};

static const char *skip_space(const char *s)
{
    while (*s == ' ')
        s++;
    return s;
}

static bool take_unit(const char *s, struct gate *g)
{
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcasecmp(units[i].name, s) != 0)
            continue;
        g->unit = units[i].unit;
        g->bytes = units[i].bytes;
        return true;
    }
    return false;
}

enum { DIGITS_MAX = 12, DECIMALS = 6, ONE = 1000000 };

/* Decimals as they are written: 100.1 % of 100,000 is 100,100. */
static bool take_number(const char **at, uint64_t *ret)
{
    const char *s = *at;
    uint64_t v = 0;
    int digits = 0, decimals = 0;
    for (; isdigit((unsigned char)*s); s++, digits++)
        v = digits < DIGITS_MAX ? v * 10 + (uint64_t)(*s - '0') : v;
    if (digits && *s == '.' && isdigit((unsigned char)s[1]))
        for (s++; isdigit((unsigned char)*s) && decimals < DECIMALS; s++, decimals++)
            v = v * 10 + (uint64_t)(*s - '0');
    for (; decimals < DECIMALS; decimals++)
        v *= 10;
    *at = s;
    *ret = v;
    return digits && digits <= DIGITS_MAX;
}

static int take_amount(const char *s, struct gate *g, struct err *err)
{
    char unit[8];
    s = skip_space(s);
    g->growth = *s == '+';
    s = skip_space(s + g->growth);
    if (!take_number(&s, &g->millionths))
        return refuse(err, g->text, "a number of at most 12 digits is missing behind '>'");
    s = skip_space(s);
    snprintf(unit, sizeof unit, "%.*s", (int)sizeof unit - 1, s);
    for (size_t n = strlen(unit); n && unit[n - 1] == ' '; n--)
        unit[n - 1] = '\0';
    if (strlen(s) >= sizeof unit || !take_unit(unit, g))
        return refuse(err, g->text, "'%.40s' is no unit: %%, B, KiB, MiB, GiB or TiB", s);
    if (g->unit == GATE_COUNT && g->subject != GATE_KEY)
        g->unit = GATE_BYTES;
    if (g->unit == GATE_PERCENT && !g->growth)
        return refuse(err, g->text, "percent are of growth: write '>+5%%'");
    if (g->unit == GATE_COUNT && g->millionths % ONE)
        return refuse(err, g->text, "a count is a whole number");
    return 0;
}

/* PATTERN:LINE */
static int take_line(struct gate *g, struct err *err)
{
    char *colon = strrchr(g->name, ':'), *end = NULL;
    unsigned long long v = colon ? strtoull(colon + 1, &end, 10) : 0;
    if (!colon || colon == g->name || !isdigit((unsigned char)colon[1]) || *end || v == 0 ||
        v > UINT32_MAX)
        return refuse(err, g->text, "a line is FILE:NUMBER");
    *colon = '\0';
    g->line = (uint32_t)v;
    return 0;
}

static int take_key(const char *subject, struct gate *g, struct err *err)
{
    static const enum figure_key keys[] = {FIGURES_BY_TYPE,    FIGURES_BY_MODULE,
                                           FIGURES_BY_PACKAGE, FIGURES_BY_CATEGORY,
                                           FIGURES_BY_FILE,    FIGURES_BY_LINE};
    const char *colon = strchr(subject, ':');
    size_t i = 0, n = sizeof keys / sizeof *keys, len = colon ? (size_t)(colon - subject) : 0;
    while (i < n && !(strncmp(figure_key_name(keys[i]), subject, len) == 0 &&
                      figure_key_name(keys[i])[len] == '\0'))
        i++;
    if (!colon || i == n)
        return refuse(err, g->text,
                      "'%.60s' is none of total, rss, traced, type:, module:, "
                      "package:, category:, file:, line:",
                      subject);
    if (!colon[1])
        return refuse(err, g->text, "a name is missing behind ':'");
    g->subject = GATE_KEY;
    g->key = keys[i];
    snprintf(g->name, sizeof g->name, "%s", colon + 1);
    if (g->key == FIGURES_BY_LINE)
        return take_line(g, err);
    if (g->key == FIGURES_BY_CATEGORY && !strpbrk(g->name, "*?") && category_of_name(g->name) < 0)
        return refuse(err, g->text, "there is no category '%.60s'", g->name);
    return 0;
}

static int take_subject(const char *subject, struct gate *g, struct err *err)
{
    static const char *const whole[] = {
        [GATE_TOTAL] = "total", [GATE_RSS] = "rss", [GATE_TRACED] = "traced"};
    for (int i = GATE_TOTAL; i <= GATE_TRACED; i++) {
        if (strcmp(whole[i], subject) == 0) {
            g->subject = (enum gate_subject)i;
            return 0;
        }
    }
    return take_key(subject, g, err);
}

int gate_parse(const char *text, struct gate *ret, struct err *err)
{
    char subject[GATE_NAME_MAX];
    struct gate g = {.text = text};
    const char *start = skip_space(text), *end = strrchr(text, '>'); /* "<locals>" has one, too */
    if (!end)
        return refuse(err, text, "'>' is missing");
    size_t len = start < end ? (size_t)(end - start) : 0;
    if (len >= sizeof subject)
        return refuse(err, text, "the name is too long");
    memcpy(subject, start, len);
    subject[len] = '\0';
    while (len && subject[len - 1] == ' ')
        subject[--len] = '\0';
    g.or_equal = end[1] == '=';
    int rc = take_subject(subject, &g, err);
    if (rc == 0)
        rc = take_amount(end + 1 + g.or_equal, &g, err);
    if (rc == 0)
        *ret = g;
    return rc;
}

/* ---- checking ---- */

struct gate_sums {
    struct diff_sum before, after;
};

static bool has_wildcard(const char *name)
{
    return strpbrk(name, "*?") != NULL;
}

/* `pattern` is NULL where the name has no wildcards. */
static bool matches(const struct gate *g, const struct fnmatch_pattern *pattern, const char *key)
{
    if (g->subject != GATE_KEY || figure_key_is_site(g->key)) /* chosen already */
        return true;
    return pattern ? fnmatch_test(pattern, key, strlen(key)) : strcmp(g->name, key) == 0;
}

/* Of a gate on growth the rows that grew; else the largest. */
static bool explains(const struct gate *g, const struct diff_row *row)
{
    bool count = g->unit == GATE_COUNT;
    if (g->growth)
        return count ? row->count_diff > 0 : row->bytes_diff > 0;
    return count ? row->count > 0 : row->bytes > 0;
}

static void keep_row(struct gate_result *r, const struct diff *d, const struct diff_row *row)
{
    char buf[GATE_NAME_MAX];
    if (r->n_rows == GATE_ROWS || !explains(r->gate, row))
        return;
    struct gate_row *to = &r->rows[r->n_rows++];
    snprintf(to->key, sizeof to->key, "%.*s", (int)sizeof to->key - 1,
             diff_key(d, row, buf, sizeof buf));
    to->count = row->count;
    to->bytes = row->bytes;
    to->count_diff = row->count_diff;
    to->bytes_diff = row->bytes_diff;
}

static const char *order_of(const struct gate *g)
{
    if (g->growth)
        return g->unit == GATE_COUNT ? "count-growth" : "growth";
    return g->unit == GATE_COUNT ? "count" : "bytes";
}

static uint64_t before(uint64_t now, int64_t diff)
{
    return diff < 0 ? add_capped(now, -(uint64_t)diff) : sub_capped(now, (uint64_t)diff);
}

static void add_rows(const struct gate *g, const struct diff *d,
                     const struct fnmatch_pattern *pattern, struct gate_result *r,
                     struct gate_sums *sums)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct diff_row *row = &d->rows[i];
        char buf[GATE_NAME_MAX];
        if (!matches(g, pattern, diff_key(d, row, buf, sizeof buf)))
            continue;
        keep_row(r, d, row);
        sums->after.count = add_capped(sums->after.count, row->count);
        sums->after.bytes = add_capped(sums->after.bytes, row->bytes);
        sums->before.count = add_capped(sums->before.count, before(row->count, row->count_diff));
        sums->before.bytes = add_capped(sums->before.bytes, before(row->bytes, row->bytes_diff));
    }
}

/* The rows that explain the gate, and their sums. */
static int add_up(const struct gate *g, enum figure_key key, const struct snapshot *a,
                  const struct snapshot *b, struct gate_result *r, struct gate_sums *sums,
                  struct err *err)
{
    struct site_filter item = {.inclusive = true, .pattern = g->name, .line = g->line};
    struct site_filters filters = {.items = &item, .n = 1};
    struct fnmatch_pattern pattern;
    struct diff_options opt = {.min_size = 0};
    struct diff d;
    if (g->subject == GATE_KEY && figure_key_is_site(key))
        opt.figures.filters = &filters;
    int rc = fnmatch_compile(&pattern, g->name, strlen(g->name), err);
    if (rc < 0)
        return rc;
    rc = diff_make(a, b, key, &opt, &d, err);
    if (rc == 0) {
        diff_sort(&d, order_of(g), false);
        add_rows(g, &d, has_wildcard(g->name) ? &pattern : NULL, r, sums);
        diff_release(&d);
    }
    fnmatch_release(&pattern);
    return rc;
}

static bool trips(const struct gate *g, uint64_t old_value, uint64_t new_value)
{
    __int128 have = g->growth ? (__int128)new_value - old_value : (__int128)new_value;
    __int128 limit = (__int128)g->millionths * g->bytes;
    if (g->unit == GATE_PERCENT) { /* from nothing to something is more than any percentage */
        have *= 100;
        limit = (__int128)old_value * g->millionths;
    }
    have *= ONE;
    return g->or_equal ? have >= limit : have > limit;
}

/* Which rows explain a subject that is one number; false: none can. */
static bool explained_by(const struct gate *g, const struct snapshot *a, const struct snapshot *b,
                         enum figure_key *ret)
{
    bool types = a->objects.present && b->objects.present;
    *ret = g->subject == GATE_KEY      ? g->key
           : g->subject == GATE_RSS    ? FIGURES_BY_CATEGORY
           : g->subject == GATE_TRACED ? FIGURES_BY_LINE
                                       : FIGURES_BY_TYPE;
    return *ret != FIGURES_BY_TYPE || types || g->subject == GATE_KEY;
}

static int cannot_tell(const struct gate *g, const struct snapshot *a, const struct snapshot *b,
                       struct err *err)
{
    enum figure_key key;
    bool explained = explained_by(g, a, b, &key);
    int rc = explained ? figures_can(a, key, "the old snapshot", err) : 0;
    if (rc == 0 && explained)
        rc = figures_can(b, key, "the new snapshot", err);
    return rc < 0 ? err_context(err, rc, "--fail-if '%.200s'", g->text) : 0;
}

int gate_check(const struct gate *g, const struct snapshot *a, const struct snapshot *b,
               struct gate_result *ret, struct err *err)
{
    struct gate_result r = {.gate = g};
    struct gate_sums sums;
    enum figure_key key;
    memset(&sums, 0, sizeof sums);
    int rc = cannot_tell(g, a, b, err);
    if (rc == 0 && explained_by(g, a, b, &key))
        rc = add_up(g, key, a, b, &r, &sums, err);
    if (rc < 0)
        return rc;
    switch (g->subject) {
    case GATE_TOTAL:
        r.old_value = figures_in_use(a);
        r.new_value = figures_in_use(b);
        break;
    case GATE_RSS:
        r.old_value = a->memory.rss_bytes;
        r.new_value = b->memory.rss_bytes;
        break;
    case GATE_TRACED:
        r.old_value = a->tracing.traced_bytes;
        r.new_value = b->tracing.traced_bytes;
        break;
    default:
        r.old_value = g->unit == GATE_COUNT ? sums.before.count : sums.before.bytes;
        r.new_value = g->unit == GATE_COUNT ? sums.after.count : sums.after.bytes;
        break;
    }
    r.tripped = trips(g, r.old_value, r.new_value);
    *ret = r;
    return 0;
}
