/* Which CPython, where its own data is missing: a core that was cut short lacks what lies at high
 * addresses, a shared libpython's data among it, while the heap is there. Pool headers are the same
 * in all releases but for the size of pools, so that the minor alone makes them countable. */
#include <stdio.h>
#include <string.h>

#include "walker/cpython/cpython.h"

enum { MINOR_DIGITS = 2 };

static bool parse_component(const char *p, unsigned *minor, bool *free_threaded, bool *debug)
{
    unsigned v = 0, n = 0;
    if (strncmp(p, "lib", 3) == 0)
        p += 3;
    if (strncmp(p, "python3.", 8) != 0)
        return false;
    for (p += 8; *p >= '0' && *p <= '9' && n < MINOR_DIGITS; n++)
        v = v * 10 + (unsigned)(*p++ - '0');
    if (n == 0)
        return false;
    *minor = v;
    *free_threaded = *debug = false;
    for (; *p == 't' || *p == 'd' || *p == 'm'; p++) {
        *free_threaded = *free_threaded || *p == 't';
        *debug = *debug || *p == 'd';
    }
    return true;
}

bool cpython_path_version(const char *path, unsigned *minor, bool *free_threaded, bool *debug)
{
    for (const char *p = path; p; p = strchr(p, '/')) {
        p += *p == '/';
        if (parse_component(p, minor, free_threaded, debug))
            return true;
    }
    return false;
}

struct guess {
    bool python; /* something says that this is one */
    uint32_t hex;
    bool exact; /* hex is more than a minor */
    bool free_threaded, debug;
    const struct cpython_module *module;
    const char *by;
};

/* What the files tell, the best first: a version that the file itself states. */
static void guess_by_modules(const struct cpython_input *in, struct guess *g)
{
    for (size_t i = 0; i < in->n_modules && !g->hex; i++) {
        const struct cpython_module *m = &in->modules[i];
        uint32_t hex = m->py_version ? (uint32_t)m->py_version : m->hexversion;
        unsigned minor;
        if (m->runtime || m->type_type || hex) {
            g->python = true;
            g->module = m;
            g->debug = m->has_ref_total;
        }
        if (hex >> 24 != 3)
            continue;
        g->hex = hex;
        g->exact = true;
        g->by = "the version that the interpreter's file states";
        cpython_path_version(m->path, &minor, &g->free_threaded, &g->debug);
        g->debug = m->has_ref_total;
    }
}

static void guess_by_path(const char *path, struct guess *g)
{
    unsigned minor;
    bool free_threaded, debug;
    if (!path || !cpython_path_version(path, &minor, &free_threaded, &debug))
        return;
    g->python = true;
    g->hex = 3u << 24 | minor << 16;
    g->free_threaded = free_threaded;
    g->debug = g->debug || debug;
    g->by = "the names of mapped files";
}

static void guess_by_names(const struct cpython_input *in, struct guess *g)
{
    for (size_t i = 0; i < in->n_modules && !g->hex; i++)
        guess_by_path(in->modules[i].path, g);
    for (size_t i = 0; i < in->vmas->n && !g->hex; i++)
        guess_by_path(in->vmas->items[i].name, g);
}

static const struct layout *layout_of(const struct guess *g)
{
    const struct layout *l = g->module ? g->module->dwarf : NULL;
    if (l && l->hexversion >> 16 == g->hex >> 16)
        return l;
    l = layout_find(g->hex, g->debug, g->free_threaded, NULL);
    return l ? l : layout_find(g->hex, false, g->free_threaded, NULL);
}

static bool fill(struct cpython *py, const struct guess *g)
{
    const struct layout *l = layout_of(g);
    py->traits = layout_traits(layout_minor(g->hex));
    if (!l || !py->traits)
        return false;
    py->layout = *l;
    py->layout_exact = true; /* of pool headers: they do not differ */
    py->layout_differs = false;
    snprintf(py->layout_source, sizeof py->layout_source, "%s, not proven on the target",
             l->source ? l->source : l->name);
    py->module = g->module ? g->module : py->module;
    py->found_by = g->by;
    py->hexversion = g->exact ? g->hex : 0;
    if (g->exact)
        cpython_version_format(g->hex, py->version, sizeof py->version);
    else
        snprintf(py->version, sizeof py->version, "3.%u", layout_minor(g->hex));
    py->debug = g->debug;
    py->free_threaded = g->free_threaded;
    py->trace_refs = false;
    py->unread = true;
    py->state = "unknown";
    py->runtime = 0;
    py->n_interpreters = py->n_heaps = py->lost_heaps = 0;
    return true;
}

enum cpython_guess cpython_guess(const struct cpython_input *in, struct cpython *py,
                                 struct notes *notes, const char *why)
{
    struct guess g = {.by = ""};
    for (size_t i = 0; i < in->n_modules; i++)
        if (in->modules[i].is_pypy)
            return CPYTHON_NONE;
    guess_by_modules(in, &g);
    if (!g.hex)
        guess_by_names(in, &g);
    if (!g.python)
        return CPYTHON_NONE;
    if (!g.hex || !fill(py, &g)) {
        note_add(notes, "python.missing", 0, 0,
                 "the interpreter's own data is not in the core, and which version it is could not "
                 "be told: its heap was not looked for (%s)",
                 why);
        return CPYTHON_UNVERSIONED;
    }
    note_add(notes, "python.missing", 0, 0,
             "the interpreter's own data is not in the core: taken for CPython %s by %s, its pools "
             "were looked for by their headers (%s)",
             py->version, py->found_by, why);
    return CPYTHON_GUESSED;
}
