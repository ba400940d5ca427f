#include "formats/figures.h"

#include <inttypes.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/vec.h"
#include "formats/type_groups.h"

static const char *const key_names[FIGURE_KEYS] = {
    [FIGURES_BY_TYPE] = "type",       [FIGURES_BY_MODULE] = "module",
    [FIGURES_BY_PACKAGE] = "package", [FIGURES_BY_SIZE] = "size",
    [FIGURES_BY_ARENA] = "arena",     [FIGURES_BY_CATEGORY] = "category",
    [FIGURES_BY_MAPPING] = "mapping", [FIGURES_BY_FILE] = "file",
    [FIGURES_BY_LINE] = "line",       [FIGURES_BY_TRACEBACK] = "traceback",
};

const char figures_inferred[] = "(inferred buffers)";
const char figures_dead[] = "(kept by freelists)";
const char figures_runtime[] = "(the interpreter's own)";
const char figures_unowned[] = "(unowned)";

const char *figure_key_name(enum figure_key key)
{
    return key_names[key];
}

int figure_key_of_name(const char *name)
{
    for (int i = 0; i < FIGURE_KEYS; i++)
        if (strcmp(key_names[i], name) == 0)
            return i;
    return -1;
}

bool figure_key_is_site(enum figure_key key)
{
    return key == FIGURES_BY_FILE || key == FIGURES_BY_LINE || key == FIGURES_BY_TRACEBACK;
}

bool figure_key_is_type(enum figure_key key)
{
    return key == FIGURES_BY_TYPE || key == FIGURES_BY_MODULE || key == FIGURES_BY_PACKAGE;
}

enum site_key figure_site_key(enum figure_key key)
{
    return key == FIGURES_BY_FILE   ? SITES_BY_FILE
           : key == FIGURES_BY_LINE ? SITES_BY_LINE
                                    : SITES_BY_TRACEBACK;
}

const char *figure_key_bytes(enum figure_key key)
{
    return key == FIGURES_BY_CATEGORY || key == FIGURES_BY_MAPPING ? "resident" : "bytes";
}

/* ---- names ---- */

enum { SMALL_MAX = 512, STEP = 16 };

const char *figures_size_name(uint64_t size, char *buf, size_t cap)
{
    static const char *const units[] = {"", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
    if (size <= SMALL_MAX) {
        snprintf(buf, cap, "to %" PRIu64 " bytes",
                 size ? (size + STEP - 1) / STEP * STEP : (uint64_t)STEP);
        return buf;
    }
    unsigned power = 64 - (unsigned)__builtin_clzll(size - 1);
    if (power > 63)
        snprintf(buf, cap, "to 16 EiB");
    else
        snprintf(buf, cap, "to %u%s", 1u << power % 10, units[power / 10]);
    return buf;
}

const char *figures_module_name(const char *module, bool package, struct strpool *pool)
{
    if (!module || !module[0])
        return "(no module)";
    return strpool_add_n(pool, module, package ? strcspn(module, ".") : strlen(module));
}

struct text {
    char *bytes;
    size_t n, cap;
    bool cut;
};

static void put(struct text *t, const char *s, size_t len)
{
    size_t room = t->cap - 1 - t->n;
    t->cut = t->cut || len > room;
    len = len < room ? len : room;
    memcpy(t->bytes + t->n, s, len);
    t->n += len;
    t->bytes[t->n] = '\0';
}

static void put_frame(struct text *t, const struct snapshot_frame *frame, bool line)
{
    char number[16];
    put(t, frame->file, strlen(frame->file));
    if (!line)
        return;
    int len = snprintf(number, sizeof number, ":%" PRIu32, frame->line);
    put(t, number, (size_t)len);
}

const char *figures_frames_name(const struct snapshot *snap, const uint32_t *frames, uint32_t n,
                                enum figure_key key, char *buf, size_t cap)
{
    struct text t = {buf, 0, cap, false};
    buf[0] = '\0';
    if (n == 0)
        put(&t, "(no frames)", 11);
    if (n && key != FIGURES_BY_TRACEBACK)
        n = 1;
    for (uint32_t i = 0; i < n && !t.cut; i++) {
        if (i)
            put(&t, " < ", 3);
        put_frame(&t, &snap->frames[frames[i]], key != FIGURES_BY_FILE);
    }
    if (t.cut && cap > 4)
        memcpy(buf + t.n - 3, "...", 3);
    return buf;
}

/* ---- rows ---- */

static int add(struct figures *f, const char *key, uint64_t count, uint64_t bytes)
{
    const char *own = strpool_add(&f->names, key);
    if (!own || vec_reserve(&f->rows, &f->cap, f->n + 1, sizeof *f->rows) < 0)
        return ERR_NOMEM;
    f->rows[f->n++] = (struct figure){own, count, bytes};
    f->total.count = add_capped(f->total.count, count);
    f->total.bytes = add_capped(f->total.bytes, bytes);
    return 0;
}

static int by_key(const void *a, const void *b)
{
    const struct figure *x = a, *y = b;
    return x->key == y->key ? 0 : strcmp(x->key, y->key);
}

static void settle(struct figures *f)
{
    size_t n = 0;
    if (f->n)
        qsort(f->rows, f->n, sizeof *f->rows, by_key);
    for (size_t i = 0; i < f->n; i++) {
        if (n && f->rows[n - 1].key == f->rows[i].key) { /* interned */
            f->rows[n - 1].count = add_capped(f->rows[n - 1].count, f->rows[i].count);
            f->rows[n - 1].bytes = add_capped(f->rows[n - 1].bytes, f->rows[i].bytes);
        } else {
            f->rows[n++] = f->rows[i];
        }
    }
    f->n = n;
}

const struct figure *figures_find(const struct figures *f, const char *key)
{
    struct figure want = {key, 0, 0};
    return f->n ? bsearch(&want, f->rows, f->n, sizeof *f->rows, by_key) : NULL;
}

void figures_release(struct figures *f)
{
    free(f->rows);
    strpool_release(&f->names);
    memset(f, 0, sizeof *f);
}

/* ---- each kind ---- */

static int add_others(struct figures *f, const struct snapshot *snap)
{
    const struct snapshot_objects *o = &snap->objects;
    const struct {
        const char *key;
        uint64_t count, bytes;
    } others[] = {
        {figures_inferred, o->inferred, o->inferred_bytes},
        {figures_dead, o->dead, o->dead_bytes},
        {figures_runtime, o->runtime, o->runtime_bytes},
        {figures_unowned, o->unowned, o->unowned_bytes},
    };
    int rc = 0;
    for (size_t i = 0; i < sizeof others / sizeof *others && rc == 0; i++)
        if (others[i].count || others[i].bytes)
            rc = add(f, others[i].key, others[i].count, others[i].bytes);
    return rc;
}

static int compile(regex_t *re, const char *text, struct err *err)
{
    int why = regcomp(re, text, REG_EXTENDED | REG_NOSUB);
    char reason[128];
    if (why == 0)
        return 0;
    regerror(why, re, reason, sizeof reason);
    err_set(err, ERR_USAGE, "--type '%s' is no regular expression: %s", text, reason);
    err_remedy(err, "POSIX extended: --type '^app\\.' for all types of a package");
    return ERR_USAGE;
}

static int add_type(struct figures *f, const struct snapshot_type *t, enum figure_key key)
{
    const char *name = t->name ? t->name : "?";
    if (key != FIGURES_BY_TYPE)
        name = figures_module_name(t->module, key == FIGURES_BY_PACKAGE, &f->names);
    return name ? add(f, name, t->count, type_total(t)) : ERR_NOMEM;
}

static int fill_types(struct figures *f, const struct snapshot *snap, enum figure_key key,
                      const struct figure_options *opt, struct err *err)
{
    const char *regex = opt->filters ? opt->filters->type_regex : NULL;
    regex_t re;
    int rc = regex ? compile(&re, regex, err) : 0;
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < snap->n_types && rc == 0; i++) {
        const struct snapshot_type *t = &snap->types[i];
        if (!regex || regexec(&re, t->name ? t->name : "?", 0, NULL, 0) == 0)
            rc = add_type(f, t, key);
    }
    if (regex)
        regfree(&re);
    return rc == 0 && !regex ? add_others(f, snap) : rc;
}

static int fill_sizes(struct figures *f, const struct snapshot *snap)
{
    char name[32];
    int rc = 0;
    for (int i = 0; i < SIZE_CLASSES && rc == 0; i++) {
        const struct snapshot_size_class *c = &snap->pymalloc.classes[i];
        uint64_t bytes;
        if (__builtin_mul_overflow(c->size, c->blocks_used, &bytes))
            bytes = UINT64_MAX;
        if (c->blocks_used)
            rc = add(f, figures_size_name(c->size, name, sizeof name), c->blocks_used, bytes);
    }
    return rc;
}

static int fill_arenas(struct figures *f, const struct snapshot *snap)
{
    char name[32];
    int rc = 0;
    for (size_t i = 0; i < snap->n_arenas && rc == 0; i++) {
        const struct snapshot_arena *a = &snap->arenas[i];
        snprintf(name, sizeof name, "0x%" PRIx64, a->address);
        rc = add(f, name, a->blocks_used, a->bytes_used);
    }
    return rc;
}

static int fill_categories(struct figures *f, const struct snapshot *snap)
{
    const struct tally *t = &snap->memory.tally;
    int rc = 0;
    for (int i = 0; i < CAT_COUNT && rc == 0; i++)
        rc = add(f, category_name((enum category)i), t->count[i], t->resident[i]);
    return rc;
}

static int fill_mappings(struct figures *f, const struct snapshot *snap)
{
    char name[64];
    int rc = 0;
    for (size_t i = 0; i < snap->n_mappings && rc == 0; i++) {
        const struct snapshot_mapping *m = &snap->mappings[i];
        snprintf(name, sizeof name, "(%s)", m->kind ? m->kind : "?");
        rc = add(f, m->path ? m->path : name, 1, m->resident_bytes);
    }
    return rc;
}

static int fill_sites(struct figures *f, const struct snapshot *snap, enum figure_key key,
                      const struct figure_options *opt, struct err *err)
{
    struct site_stats s;
    int rc = site_stats_make(snap, figure_site_key(key), opt->cumulative, opt->filters, &s, err);
    if (rc < 0)
        return rc;
    char *name = malloc(FIGURES_KEY_MAX);
    if (!name)
        rc = ERR_NOMEM;
    for (size_t i = 0; i < s.n && rc == 0; i++) {
        const struct site_row *r = &s.rows[i];
        figures_frames_name(snap, r->frames, r->n_frames, key, name, FIGURES_KEY_MAX);
        rc = add(f, name, r->count, r->size);
    }
    f->total = (struct figure){NULL, s.count, s.size};
    free(name);
    site_stats_release(&s);
    return rc;
}

bool figures_traced(const struct snapshot *snap)
{
    return snap->tracing.present && (snap->tracing.tracing || snap->n_sites);
}

int figures_can(const struct snapshot *snap, enum figure_key key, const char *whose,
                struct err *err)
{
    if (figure_key_is_type(key) && !snap->objects.present) {
        err_set(err, ERR_USAGE, "%s has no types", whose);
        err_remedy(err, "take it without --no-types, or compare --by category");
        return ERR_USAGE;
    }
    if ((key == FIGURES_BY_SIZE || key == FIGURES_BY_ARENA) && !snap->pymalloc.present) {
        err_set(err, ERR_USAGE, "%s has no heap of pymalloc", whose);
        err_remedy(err, "compare --by type or --by category");
        return ERR_USAGE;
    }
    if (figure_key_is_site(key) && !figures_traced(snap)) {
        err_set(err, ERR_USAGE, "%s knows no allocation sites: tracemalloc was off", whose);
        err_remedy(err, "run the process with PYTHONTRACEMALLOC=25, or compare --by type");
        return ERR_USAGE;
    }
    return 0;
}

static int fill(struct figures *f, const struct snapshot *snap, enum figure_key key,
                const struct figure_options *opt, struct err *err)
{
    switch (key) {
    case FIGURES_BY_SIZE:
        return fill_sizes(f, snap);
    case FIGURES_BY_ARENA:
        return fill_arenas(f, snap);
    case FIGURES_BY_CATEGORY:
        return fill_categories(f, snap);
    case FIGURES_BY_MAPPING:
        return fill_mappings(f, snap);
    case FIGURES_BY_FILE:
    case FIGURES_BY_LINE:
    case FIGURES_BY_TRACEBACK:
        return fill_sites(f, snap, key, opt, err);
    default:
        return fill_types(f, snap, key, opt, err);
    }
}

int figures_make(const struct snapshot *snap, enum figure_key key, const struct figure_options *opt,
                 struct figures *ret, struct err *err)
{
    static const struct figure_options none;
    struct figures f;
    int rc = figures_can(snap, key, "the snapshot", err);
    if (rc < 0)
        return rc;
    memset(&f, 0, sizeof f);
    strpool_init(&f.names);
    rc = fill(&f, snap, key, opt ? opt : &none, err);
    if (rc < 0) {
        figures_release(&f);
        return rc == ERR_NOMEM
                   ? err_set(err, ERR_NOMEM, "no memory to add up by %s", figure_key_name(key))
                   : rc;
    }
    settle(&f);
    *ret = f;
    return 0;
}

uint64_t figures_in_use(const struct snapshot *snap)
{
    static const enum category in_use[] = {CAT_PYTHON_BLOCKS_USED, CAT_PYTHON_MIMALLOC,
                                           CAT_MALLOC_USED, CAT_MALLOC_MMAPPED, CAT_MALLOC_FOREIGN};
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof in_use / sizeof *in_use; i++)
        sum = add_capped(sum, snap->memory.tally.bytes[in_use[i]]);
    return sum;
}
