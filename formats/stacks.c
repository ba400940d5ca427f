#include "formats/stacks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const struct snapshot_frame stacks_no_frame = {.file = "<unknown>"};

/* What stands for the type of what has none, so that stacks can be grouped by type; NULL where
 * blocks were not looked at. */
static const char *no_type(const char *kind)
{
    static const char *const names[][2] = {
        {"unowned", "(unowned)"}, {"runtime", "(runtime)"}, {"gone", "(gone)"}};
    for (size_t i = 0; kind && i < sizeof names / sizeof *names; i++)
        if (strcmp(kind, names[i][0]) == 0)
            return names[i][1];
    return kind ? "(none)" : NULL;
}

static void fill(const struct site_stacks *s, const struct snapshot_site *site, struct stack *ret)
{
    const struct snapshot_traceback *t = &s->snap->tracebacks[site->traceback];
    *ret = (struct stack){
        .frames = t->n ? s->snap->frame_ids + t->first : &s->unknown,
        .n = t->n ? t->n : 1,
        .count = site->count,
        .bytes = site->bytes,
    };
    const char *type = site->type ? site->type : no_type(site->kind);
    if (type)
        ret->labels[ret->n_labels++] = (struct stack_label){"type", type, 0};
    if (site->kind)
        ret->labels[ret->n_labels++] = (struct stack_label){"kind", site->kind, 0};
    ret->labels[ret->n_labels++] = (struct stack_label){"domain", NULL, site->domain};
}

static bool next_site(struct stacks *base, struct stack *ret)
{
    struct site_stacks *s = (struct site_stacks *)base;
    while (s->at < s->snap->n_sites) {
        size_t i = s->at++;
        if (s->keep && !s->keep[i])
            continue;
        fill(s, &s->snap->sites[i], ret);
        return true;
    }
    return false;
}

static void rewind_sites(struct stacks *base)
{
    ((struct site_stacks *)base)->at = 0;
}

static struct snapshot_frame frame_of_sites(const struct stacks *base, uint32_t number)
{
    const struct site_stacks *s = (const struct site_stacks *)base;
    return number == s->unknown ? stacks_no_frame : s->snap->frames[number];
}

void site_stacks_init(struct site_stacks *s, const struct snapshot *snap, const uint8_t *keep)
{
    *s = (struct site_stacks){
        .stacks = {.title = "memory in use by allocation site",
                   .next = next_site,
                   .rewind = rewind_sites,
                   .frame = frame_of_sites},
        .snap = snap,
        .keep = keep,
        .unknown = (uint32_t)snap->n_frames,
    };
    s->stacks.n_frames = s->unknown + 1;
}

size_t stack_frame_name(const struct snapshot_frame *f, char *buf, size_t cap)
{
    char line[16] = "";
    if (f->line)
        snprintf(line, sizeof line, ":%" PRIu32, f->line);
    const char *slash = strrchr(f->file, '/');
    int n;
    if (f->function)
        n = snprintf(buf, cap, "%s (%s%s)", f->function, f->file, line);
    else if (slash && slash > f->file && slash[1])
        n = snprintf(buf, cap, "%s%s (%.*s)", slash + 1, line, (int)(slash - f->file), f->file);
    else
        n = snprintf(buf, cap, "%s%s", f->file, line);
    if (n < 0)
        n = 0;
    buf[n && (size_t)n >= cap ? cap - 1 : (size_t)n] = '\0';
    return (size_t)n < cap ? (size_t)n : cap - 1;
}
