#include "formats/fnmatch.h"

#include <stdlib.h>
#include <string.h>

/* ---- characters ---- */

static bool continues(const unsigned char *p, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return false;
    return true;
}

/* The character at s, of `left` > 0 bytes; *size says how long it is. Lone surrogates pass: names
 * that are no UTF-8 come as such. */
static uint32_t char_at(const char *s, size_t left, size_t *size)
{
    const unsigned char *p = (const unsigned char *)s;
    uint32_t c = 0xdc00 + p[0];
    *size = 1;
    if (p[0] < 0x80)
        return p[0];
    if (p[0] >= 0xc2 && p[0] < 0xe0 && left >= 2 && continues(p, 2)) {
        *size = 2;
        c = (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
    } else if (p[0] >= 0xe0 && p[0] < 0xf0 && left >= 3 && continues(p, 3) &&
               (p[0] > 0xe0 || p[1] >= 0xa0)) {
        *size = 3;
        c = (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    } else if (p[0] >= 0xf0 && p[0] < 0xf5 && left >= 4 && continues(p, 4) &&
               (p[0] > 0xf0 || p[1] >= 0x90) && (p[0] < 0xf4 || p[1] < 0x90)) {
        *size = 4;
        c = (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 | (p[3] & 0x3fu);
    }
    return c;
}

/* ---- patterns ---- */

/* What stands between the brackets of a set; `joint` marks a hyphen that makes a range. */
struct set_text {
    uint32_t *ch;
    bool *joint, *gone;
    size_t n;
};

/* Which hyphens make ranges: not the first character, none within two of the one before, not the
 * last. */
static void find_joints(struct set_text *t)
{
    size_t last = 0;
    for (size_t i = t->ch[0] == '!' ? 2 : 1; i < t->n; i++) {
        if (t->ch[i] != '-')
            continue;
        t->joint[i] = true;
        last = i;
        i += 2;
    }
    if (last && last == t->n - 1)
        t->joint[last] = false;
    for (size_t i = 1; i + 1 < t->n; i++) /* ranges that are empty match nothing */
        if (t->joint[i] && t->ch[i - 1] > t->ch[i + 1])
            t->gone[i - 1] = t->gone[i] = t->gone[i + 1] = true;
}

static void drop_gone(struct set_text *t)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (t->gone[i])
            continue;
        t->ch[n] = t->ch[i];
        t->joint[n++] = t->joint[i];
    }
    t->n = n;
}

/* A "!" counts as one where it comes first after empty ranges are gone, as in Python. */
static void put_set(struct fnmatch_pattern *p, struct fnmatch_step *step, struct set_text *t)
{
    find_joints(t);
    drop_gone(t);
    *step = (struct fnmatch_step){.kind = FNMATCH_SET, .first = p->n_ranges};
    step->negated = t->n && t->ch[0] == '!';
    for (size_t i = step->negated; i < t->n; i++) {
        bool range = i + 2 < t->n && t->joint[i + 1];
        p->ranges[p->n_ranges++] = (struct fnmatch_range){t->ch[i], t->ch[range ? i + 2 : i]};
        i += range ? 2 : 0;
    }
    step->n = p->n_ranges - step->first;
}

/* The end of the set whose first character is at i: its closing bracket, or n. */
static size_t set_end(const uint32_t *ch, size_t i, size_t n)
{
    if (i < n && ch[i] == '!')
        i++;
    if (i < n && ch[i] == ']')
        i++;
    while (i < n && ch[i] != ']')
        i++;
    return i;
}

static void put_steps(struct fnmatch_pattern *p, uint32_t *ch, size_t n, bool *marks)
{
    for (size_t i = 0; i < n; i++) {
        struct fnmatch_step *step = &p->steps[p->n++];
        *step = (struct fnmatch_step){.kind = FNMATCH_CHAR, .ch = ch[i]};
        size_t end = ch[i] == '[' ? set_end(ch, i + 1, n) : n;
        if (ch[i] == '*') {
            step->kind = FNMATCH_STAR;
        } else if (ch[i] == '?') {
            step->kind = FNMATCH_ANY;
        } else if (end < n) {
            struct set_text t = {ch + i + 1, marks + i + 1, marks + n + i + 1, end - i - 1};
            put_set(p, step, &t);
            i = end;
        }
    }
}

int fnmatch_compile(struct fnmatch_pattern *p, const char *text, size_t len, struct err *err)
{
    size_t n = 0, size = 0;
    uint32_t *ch = malloc((len + 1) * sizeof *ch);
    bool *marks = calloc(len + 1, 2 * sizeof *marks);
    *p = (struct fnmatch_pattern){0};
    p->steps = malloc((len + 1) * sizeof *p->steps);
    p->ranges = malloc((len + 1) * sizeof *p->ranges);
    int rc = ch && marks && p->steps && p->ranges
                 ? 0
                 : err_set(err, ERR_NOMEM, "no memory for a filter's pattern");
    for (size_t at = 0; rc == 0 && at < len; at += size)
        ch[n++] = char_at(text + at, len - at, &size);
    if (rc == 0)
        put_steps(p, ch, n, marks);
    else
        fnmatch_release(p);
    free(ch);
    free(marks);
    return rc;
}

void fnmatch_release(struct fnmatch_pattern *p)
{
    free(p->steps);
    free(p->ranges);
    *p = (struct fnmatch_pattern){0};
}

/* ---- matching ---- */

static bool step_takes(const struct fnmatch_pattern *p, const struct fnmatch_step *s, uint32_t c)
{
    if (s->kind == FNMATCH_ANY)
        return true;
    if (s->kind == FNMATCH_CHAR)
        return s->ch == c;
    for (size_t i = 0; i < s->n; i++) {
        const struct fnmatch_range *r = &p->ranges[s->first + i];
        if (c >= r->from && c <= r->to)
            return !s->negated;
    }
    return s->negated;
}

/* What follows the last star met is tried at each place: at most pattern times name steps. */
bool fnmatch_test(const struct fnmatch_pattern *p, const char *name, size_t len)
{
    size_t step = 0, at = 0, size = 0;
    size_t star = SIZE_MAX, retry = 0; /* the step behind the last star; where to try it next */
    while (at < len) {
        if (step < p->n && p->steps[step].kind == FNMATCH_STAR) {
            star = ++step;
            retry = at;
            continue;
        }
        if (step < p->n && step_takes(p, &p->steps[step], char_at(name + at, len - at, &size))) {
            step++;
            at += size;
            continue;
        }
        if (star == SIZE_MAX)
            return false;
        char_at(name + retry, len - retry, &size);
        retry += size;
        at = retry;
        step = star;
    }
    while (step < p->n && p->steps[step].kind == FNMATCH_STAR)
        step++;
    return step == p->n;
}
