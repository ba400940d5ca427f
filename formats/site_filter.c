#include "formats/site_filter.h"

#include <regex.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/addrset.h"
#include "formats/fnmatch.h"

/* The length of a file's name as the filters see it: "x.pyc" is "x.py". */
static size_t normal_length(const char *name)
{
    size_t len = strlen(name);
    return len >= 4 && strcmp(name + len - 4, ".pyc") == 0 ? len - 1 : len;
}

static int no_memory(struct err *err)
{
    return err_set(err, ERR_NOMEM, "no memory to filter sites");
}

/* ---- one filter ---- */

/* hit[i] = whether frame i matches; each name is tested once, since frames of one file mostly
 * follow each other and names are shared. */
static int match_frames(const struct snapshot *snap, const struct site_filter *f, uint8_t *hit,
                        struct err *err)
{
    struct fnmatch_pattern pattern;
    const char *last = NULL;
    bool matched = false;
    int rc = fnmatch_compile(&pattern, f->pattern, normal_length(f->pattern), err);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < snap->n_frames; i++) {
        const char *file = snap->frames[i].file;
        if (file != last)
            matched = fnmatch_test(&pattern, file, normal_length(file));
        last = file;
        hit[i] = matched && (!f->line || f->line == snap->frames[i].line);
    }
    fnmatch_release(&pattern);
    return 0;
}

/* What has no frames counts as one of the file "<unknown>", as it does in tracemalloc. */
static bool traceback_hits(const struct snapshot *snap, const struct site_filter *f,
                           const struct snapshot_traceback *t, const uint8_t *hit)
{
    uint32_t n = f->all_frames ? t->n : 1;
    if (!t->n)
        return hit[snap->n_frames];
    for (uint32_t i = 0; i < n; i++)
        if (hit[snap->frame_ids[t->first + i]])
            return true;
    return false;
}

static int match_unknown(const struct site_filter *f, uint8_t *hit, struct err *err)
{
    struct fnmatch_pattern pattern;
    static const char unknown[] = "<unknown>";
    int rc = fnmatch_compile(&pattern, f->pattern, normal_length(f->pattern), err);
    if (rc < 0)
        return rc;
    *hit = !f->line && fnmatch_test(&pattern, unknown, sizeof unknown - 1);
    fnmatch_release(&pattern);
    return 0;
}

/* hits[i] = whether traceback i matches the pattern of a filter that has one. */
static int match_tracebacks(const struct snapshot *snap, const struct site_filter *f, uint8_t *hits,
                            struct err *err)
{
    uint8_t *frames = malloc(snap->n_frames + 1);
    if (!frames)
        return no_memory(err);
    int rc = match_frames(snap, f, frames, err);
    if (rc == 0)
        rc = match_unknown(f, &frames[snap->n_frames], err);
    for (size_t i = 0; i < snap->n_tracebacks && rc == 0; i++)
        hits[i] = traceback_hits(snap, f, &snap->tracebacks[i], frames);
    free(frames);
    return rc;
}

/* Whether the thing that the filter names is the site's: the inverse of an exclusive filter's
 * _match(). */
static bool names_site(const struct site_filter *f, const struct snapshot_site *s,
                       const uint8_t *hits)
{
    if (f->pattern && !hits[s->traceback])
        return false;
    return !f->has_domain || f->domain == s->domain;
}

/* ---- all filters ---- */

enum { PASS_OUT = 0, PASS_IN = 1, PASS_WANTED = 2 };

static int apply_one(const struct snapshot *snap, const struct site_filter *f, uint8_t *hits,
                     uint8_t *pass, struct err *err)
{
    int rc = f->pattern ? match_tracebacks(snap, f, hits, err) : 0;
    for (size_t i = 0; i < snap->n_sites && rc == 0; i++)
        if (pass[i] != PASS_OUT && names_site(f, &snap->sites[i], hits))
            pass[i] = f->inclusive ? PASS_WANTED : PASS_OUT;
    return rc;
}

static int apply_filters(const struct snapshot *snap, const struct site_filters *filters,
                         uint8_t *pass, struct err *err)
{
    bool inclusive = false;
    int rc = 0;
    uint8_t *hits = malloc(snap->n_tracebacks + 1);
    if (!hits)
        return no_memory(err);
    for (size_t i = 0; i < filters->n && rc == 0; i++) {
        rc = apply_one(snap, &filters->items[i], hits, pass, err);
        inclusive = inclusive || filters->items[i].inclusive;
    }
    for (size_t i = 0; i < snap->n_sites; i++)
        pass[i] = pass[i] == PASS_WANTED || (pass[i] == PASS_IN && !inclusive);
    free(hits);
    return rc;
}

/* pass[i] stays where the type's name matches; each name is tested once. */
static int keep_types(const struct snapshot *snap, const regex_t *re, uint8_t *pass,
                      struct err *err)
{
    struct addrset known;
    int rc = 0;
    addrset_init(&known);
    for (size_t i = 0; i < snap->n_sites && rc == 0; i++) {
        const char *type = snap->sites[i].type;
        uint64_t key = (uint64_t)(uintptr_t)type;
        uint64_t *matched = type ? addrset_find(&known, key) : NULL;
        if (matched) {
            pass[i] = pass[i] && *matched;
        } else if (type) {
            int code = regexec(re, type, 0, NULL, 0);
            bool failed = code && code != REG_NOMATCH;
            pass[i] = pass[i] && code == 0;
            rc = failed || addrset_add(&known, key, code == 0, NULL) < 0 ? no_memory(err) : 0;
        } else {
            pass[i] = false;
        }
    }
    addrset_release(&known);
    return rc;
}

static int apply_regex(const struct snapshot *snap, const char *text, uint8_t *pass,
                       struct err *err)
{
    regex_t re;
    char why[128];
    int code = regcomp(&re, text, REG_EXTENDED | REG_NOSUB);
    if (code == REG_ESPACE)
        return no_memory(err);
    if (code) {
        regerror(code, &re, why, sizeof why);
        err_set(err, ERR_USAGE, "--type '%s' is no regular expression: %s", text, why);
        err_remedy(err, "POSIX extended, as with grep -E: --type '^app\\.'");
        return ERR_USAGE;
    }
    int rc = keep_types(snap, &re, pass, err);
    regfree(&re);
    return rc;
}

int site_filters_apply(const struct snapshot *snap, const struct site_filters *filters,
                       uint8_t *pass, struct err *err)
{
    int rc = 0;
    memset(pass, PASS_IN, snap->n_sites);
    if (filters && filters->n)
        rc = apply_filters(snap, filters, pass, err);
    if (rc == 0 && filters && filters->type_regex)
        rc = apply_regex(snap, filters->type_regex, pass, err);
    return rc;
}
