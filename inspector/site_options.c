/* The options that choose sites, as tracemalloc's filters and keys. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "inspector/view.h"

/* A number behind the last `mark` of the text, to its end; false when there is none. */
static bool number_behind(const char *text, char mark, const char **at, uint32_t *ret)
{
    const char *p = strrchr(text, mark);
    if (!p || !p[1] || strlen(p + 1) > 10 || p[1 + strspn(p + 1, "0123456789")])
        return false;
    unsigned long long v = strtoull(p + 1, NULL, 10);
    if (v > UINT32_MAX)
        return false;
    *at = p;
    *ret = (uint32_t)v;
    return true;
}

/* PATTERN[:LINE][@DOMAIN] */
static int add_pattern(struct view_filters *f, const char *text, bool inclusive, bool all_frames,
                       struct err *err)
{
    struct site_filter *item = &f->items[f->filters.n];
    const char *cut = NULL;
    *item = (struct site_filter){.inclusive = inclusive, .all_frames = all_frames};
    char *copy = strdup(text);
    if (!copy)
        return err_set(err, ERR_NOMEM, "no memory for a filter");
    f->copies[f->n_copies++] = copy;
    if (number_behind(copy, '@', &cut, &item->domain)) {
        item->has_domain = true;
        copy[cut - copy] = '\0';
    }
    if (number_behind(copy, ':', &cut, &item->line))
        copy[cut - copy] = '\0';
    item->pattern = copy;
    f->filters.n++;
    return 0;
}

/* N, or !N for all others. */
static int add_domain(struct view_filters *f, const char *text, struct err *err)
{
    struct site_filter *item = &f->items[f->filters.n];
    bool others = text[0] == '!';
    const char *digits = text + others;
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(digits, &end, 10);
    if (errno || *digits < '0' || *digits > '9' || *end || v > UINT32_MAX) {
        err_set(err, ERR_USAGE, "--domain takes a number, or !N for all others, not '%s'", text);
        err_remedy(err, "0 is Python's own domain; see heapcensus --help");
        return ERR_USAGE;
    }
    *item = (struct site_filter){.inclusive = !others, .domain = (uint32_t)v, .has_domain = true};
    f->filters.n++;
    return 0;
}

int view_filters_make(const struct options *opt, struct view_filters *ret, struct err *err)
{
    int rc = 0;
    memset(ret, 0, sizeof *ret);
    ret->filters.items = ret->items;
    ret->filters.type_regex = opt->type_regex;
    for (size_t i = 0; i < opt->include.n && rc == 0; i++)
        rc = add_pattern(ret, opt->include.items[i], true, opt->all_frames, err);
    for (size_t i = 0; i < opt->exclude.n && rc == 0; i++)
        rc = add_pattern(ret, opt->exclude.items[i], false, opt->all_frames, err);
    for (size_t i = 0; i < opt->domains.n && rc == 0; i++)
        rc = add_domain(ret, opt->domains.items[i], err);
    return rc;
}

void view_filters_release(struct view_filters *f)
{
    for (size_t i = 0; i < f->n_copies; i++)
        free(f->copies[i]);
    memset(f, 0, sizeof *f);
}

int view_site_key(const struct options *opt, enum site_key *ret, struct err *err)
{
    static const struct {
        const char *name;
        enum site_key key;
    } keys[] = {
        {"line", SITES_BY_LINE},     {"lineno", SITES_BY_LINE},         {"file", SITES_BY_FILE},
        {"filename", SITES_BY_FILE}, {"traceback", SITES_BY_TRACEBACK},
    };
    *ret = SITES_BY_LINE;
    if (!opt->by)
        return 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        if (strcmp(keys[i].name, opt->by) == 0) {
            *ret = keys[i].key;
            return 0;
        }
    }
    err_set(err, ERR_USAGE, "sites cannot be grouped by '%s'", opt->by);
    err_remedy(err, "--by takes file, line or traceback");
    return ERR_USAGE;
}
