/* Where to start: which module is the interpreter, where _PyRuntime is, which version and flavour.
 *
 * Strategies, best first: a module's symbol, its section .PyRuntime (3.11+), the cookie at the
 * start of _PyRuntime (3.13+) in any writable memory, Py_GetVersion's buffer in a module's data. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/cpython.h"

static const char COOKIE[8] = {'x', 'd', 'e', 'b', 'u', 'g', 'p', 'y'};

/* The first members of struct _Py_DebugOffsets: cookie, version, free_threaded. Fixed since 3.13.
 */
enum { COOKIE_VERSION = 8, COOKIE_FREE_THREADED = 16, COOKIE_BYTES = 24 };

bool cpython_executable_at(const struct vma_list *vmas, uint64_t addr)
{
    const struct vma *v = vma_at(vmas, addr);
    return v && v->x;
}

static bool cookie_at(const uint8_t *p, uint32_t *hex, bool *free_threaded)
{
    uint64_t version = load_u64(p + COOKIE_VERSION);
    if (load_u64(p) != load_u64(COOKIE) || version >> 24 != 3)
        return false;
    *hex = (uint32_t)version;
    *free_threaded = load_u64(p + COOKIE_FREE_THREADED) == 1;
    return true;
}

/* The cookie in [lo, hi), 8-aligned; 0 if it is not there. */
static uint64_t scan_cookie(struct mem *mem, uint64_t lo, uint64_t hi)
{
    uint8_t page[4096 + COOKIE_BYTES];
    for (uint64_t at = round_down(lo, 4096); at < hi; at += 4096) {
        size_t got = mem_read_some(mem, at, page, sizeof page);
        uint32_t hex;
        bool ft;
        for (size_t off = 0; off + COOKIE_BYTES <= got && off < 4096; off += 8)
            if (cookie_at(page + off, &hex, &ft))
                return at + off;
    }
    return 0;
}

static const struct cpython_module *module_of(const struct cpython_input *in, uint64_t addr)
{
    for (size_t i = 0; i < in->n_modules; i++)
        for (size_t k = 0; k < in->modules[i].n_data; k++)
            if (addr >= in->modules[i].data[k].start && addr < in->modules[i].data[k].end)
                return &in->modules[i];
    return NULL;
}

/* Large anonymous memory is left out: _PyRuntime is module data, wherever the module came from. */
static void find_by_cookie(const struct cpython_input *in, struct cpython *py)
{
    for (size_t i = 0; i < in->vmas->n; i++) {
        const struct vma *v = &in->vmas->items[i];
        if (!v->r || !v->w || v->kind == VMA_STACK || v->kind == VMA_KERNEL ||
            v->end - v->start > 64u << 20)
            continue;
        uint64_t at = scan_cookie(in->mem, v->start, v->end);
        if (at) {
            py->runtime = at;
            py->module = module_of(in, at);
            py->found_by = "the debug-offsets cookie in memory";
            return;
        }
    }
}

static void find_by_version_string(const struct cpython_input *in, struct cpython *py)
{
    for (size_t i = 0; i < in->n_modules && !py->module; i++) {
        if (cpython_version_string(in, &in->modules[i], py->version, sizeof py->version,
                                   &py->hexversion)) {
            py->module = &in->modules[i];
            py->found_by = "Py_GetVersion's text in the module's data";
        }
    }
}

static void find_by_symbol(const struct cpython_input *in, struct cpython *py)
{
    for (size_t i = 0; i < in->n_modules; i++) {
        const struct cpython_module *m = &in->modules[i];
        if (m->runtime) {
            py->module = m;
            py->runtime = m->runtime;
            py->found_by = m->runtime_by;
            return;
        }
    }
}

static int not_found(const struct cpython_input *in, struct err *err)
{
    for (size_t i = 0; i < in->n_modules; i++) {
        if (in->modules[i].is_pypy) {
            err_set(err, ERR_UNSUPPORTED, "this is PyPy (%s), not CPython", in->modules[i].path);
            err_remedy(err, "heapcensus reads CPython 3.8 to 3.15 only");
            return ERR_UNSUPPORTED;
        }
    }
    err_set(err, ERR_UNSUPPORTED,
            "no CPython in this process: looked in %zu modules for _PyRuntime, the section "
            ".PyRuntime and Python's version text, and in all writable memory for its cookie",
            in->n_modules);
    err_remedy(err, "heapcensus reads CPython 3.8 to 3.15; is this the right process?");
    return ERR_UNSUPPORTED;
}

/* Version and free-threading: cookie, else Py_Version, else the version text. */
static int find_version(const struct cpython_input *in, struct cpython *py, struct err *err)
{
    uint8_t head[COOKIE_BYTES];
    uint32_t hex = 0;
    if (py->runtime && mem_read_some(in->mem, py->runtime, head, sizeof head) == sizeof head &&
        cookie_at(head, &hex, &py->free_threaded))
        py->hexversion = hex;
    else if (py->module && py->module->py_version)
        py->hexversion = (uint32_t)py->module->py_version;
    char text[sizeof py->version];
    uint32_t from_text;
    if (py->module && cpython_version_string(in, py->module, text, sizeof text, &from_text) &&
        (!py->hexversion || from_text >> 8 == py->hexversion >> 8)) {
        snprintf(py->version, sizeof py->version, "%s", text); /* tells a "+" as well */
        py->hexversion = py->hexversion ? py->hexversion : from_text;
    }
    if (!py->hexversion) {
        err_set(err, ERR_UNSUPPORTED,
                "an interpreter is there (%s), but it does not say its version yet",
                py->module ? py->module->path : "in memory");
        err_remedy(err, "if it is just starting, try again in a second");
        return ERR_UNSUPPORTED;
    }
    if (!py->version[0])
        cpython_version_format(py->hexversion, py->version, sizeof py->version);
    return 0;
}

static int unsupported_version(const struct cpython *py, struct err *err)
{
    err_set(err, ERR_UNSUPPORTED, "CPython %s%s%s is not supported", py->version,
            py->debug ? " (debug build)" : "", py->free_threaded ? " (free-threaded)" : "");
    err_remedy(err, "heapcensus knows 3.8 to 3.15; docs/HOWTO-ADD-PYTHON.md says how to add one");
    return ERR_UNSUPPORTED;
}

static bool same_minor(const struct layout *l, uint32_t hex)
{
    return l && l->hexversion >> 16 == hex >> 16;
}

/* What the target says of itself goes over any table: offsets that 3.13+ publishes. */
static void apply_debug_offsets(const struct cpython_input *in, struct cpython *py)
{
    static const struct {
        enum layout_field from, to;
    } rows[] = {
        {LF_dbg_rt_finalizing, LF_rt_finalizing},
        {LF_dbg_rt_interp_head, LF_rt_interp_head},
        {LF_dbg_interp_id, LF_interp_id},
        {LF_dbg_interp_next, LF_interp_next},
        {LF_dbg_interp_threads_head, LF_interp_threads_head},
        {LF_dbg_interp_gc, LF_interp_gc},
        {LF_dbg_ts_next, LF_ts_next},
        {LF_dbg_ts_current_frame, LF_ts_current_frame},
        {LF_dbg_ts_thread_id, LF_ts_thread_id},
        {LF_dbg_ts_native_thread_id, LF_ts_native_thread_id},
        {LF_dbg_ts_datastack_chunk, LF_ts_datastack_chunk},
        {LF_dbg_ob_type, LF_ob_type},
        {LF_dbg_type_name, LF_type_name},
        {LF_dbg_type_flags, LF_type_flags},
        {LF_dbg_interp_size, LF_interp_size},
        {LF_dbg_rt_size, LF_rt_size},
    };
    size_t changed = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        uint64_t v;
        if (!layout_has(&py->layout, rows[i].from) || !layout_has(&py->layout, rows[i].to) ||
            layout_u64(&py->layout, in->mem, py->runtime, rows[i].from, &v, NULL) < 0 ||
            v > 1u << 24)
            continue;
        changed += py->layout.slots[rows[i].to].offset != (int32_t)v;
        py->layout.slots[rows[i].to].offset = (int32_t)v;
    }
    py->layout_differs = changed != 0;
    size_t len = strlen(py->layout_source);
    snprintf(py->layout_source + len, sizeof py->layout_source - len,
             changed ? " + the target's debug offsets (%zu differ)"
                     : " + the target's debug offsets",
             changed);
}

static int choose_layout(const struct cpython_input *in, struct cpython *py, struct err *err)
{
    const struct cpython_module *m = py->module;
    py->traits = layout_traits(layout_minor(py->hexversion));
    if (!py->traits)
        return unsupported_version(py, err);
    const struct layout *l =
        layout_find(py->hexversion, py->debug, py->free_threaded, &py->layout_exact);
    if (m && same_minor(m->dwarf, py->hexversion)) {
        l = m->dwarf;
        py->layout_exact = true;
    }
    /* A debug build differs late in the large structures only; the release table with the target's
     * own checks is better than nothing. */
    if (!l && py->debug)
        l = layout_find(py->hexversion, false, py->free_threaded, &py->layout_exact);
    if (!l)
        return unsupported_version(py, err);
    py->layout = *l;
    snprintf(py->layout_source, sizeof py->layout_source, "%s", l->source ? l->source : l->name);
    if (py->traits->debug_offsets && py->runtime)
        apply_debug_offsets(in, py);
    return 0;
}

/* Py_TRACE_REFS puts two pointers in front of ob_refcnt (3.8 to 3.12): `type`, whose type is
 * itself, tells, and so it does for the free-threaded object header. */
static void find_flavour(const struct cpython_input *in, struct cpython *py)
{
    const struct cpython_module *m = py->module;
    uint64_t at8 = 0, at24 = 0;
    py->debug = m && m->has_ref_total;
    if (!m || !m->type_type || mem_u64(in->mem, m->type_type + 8, &at8, NULL) < 0 ||
        mem_u64(in->mem, m->type_type + 24, &at24, NULL) < 0)
        return;
    if (at8 != m->type_type && at24 == m->type_type && layout_minor(py->hexversion) < 13)
        py->trace_refs = true;
}

static void find_state(const struct cpython_input *in, struct cpython *py)
{
    uint64_t v = 0;
    py->state = py->unread ? "unknown" : "running";
    if (!py->runtime || py->unread)
        return;
    if (layout_has(&py->layout, LF_rt_finalizing) &&
        layout_u64(&py->layout, in->mem, py->runtime, LF_rt_finalizing, &v, NULL) == 0 && v)
        py->state = "finalizing";
    else if (layout_has(&py->layout, LF_rt_initialized) &&
             layout_u64(&py->layout, in->mem, py->runtime, LF_rt_initialized, &v, NULL) == 0 && !v)
        py->state = "starting";
}

bool cpython_unread(const struct cpython_input *in, const struct cpython *py)
{
    uint64_t head;
    return in->partial && py->runtime && layout_has(&py->layout, LF_rt_interp_head) &&
           layout_u64(&py->layout, in->mem, py->runtime, LF_rt_interp_head, &head, NULL) < 0;
}

/* The cookie tells of free threading; where it is missing, the file's name does. */
static void find_threading(const struct cpython_input *in, struct cpython *py)
{
    uint64_t cookie;
    unsigned minor;
    bool debug;
    if (in->partial && py->runtime && py->module && layout_minor(py->hexversion) >= 13 &&
        mem_u64(in->mem, py->runtime, &cookie, NULL) < 0)
        cpython_path_version(py->module->path, &minor, &py->free_threaded, &debug);
}

static int find_heaps(const struct cpython_input *in, struct cpython *py, struct notes *notes,
                      struct err *err)
{
    int rc = cpython_interpreters(in, py, notes, err);
    if (rc == 0 && (py->unread || (in->partial && py->n_heaps == 0 && !py->free_threaded)))
        note_add(
            notes, "python.missing", py->runtime, 0,
            "the interpreter's own data is not in the core: what heaps and interpreters it has "
            "is not known");
    return rc;
}

int cpython_find(const struct cpython_input *in, struct cpython *py, struct notes *notes,
                 struct err *err)
{
    memset(py, 0, sizeof *py);
    find_by_symbol(in, py);
    if (!py->runtime)
        find_by_cookie(in, py);
    if (!py->runtime && !py->module)
        find_by_version_string(in, py);
    if (!py->runtime && !py->module)
        return not_found(in, err);
    int rc = find_version(in, py, err);
    if (rc < 0)
        return rc;
    find_flavour(in, py);
    find_threading(in, py);
    rc = choose_layout(in, py, err);
    if (rc < 0)
        return rc;
    rc = cpython_probe(in, py, err);
    if (rc < 0)
        return rc;
    py->unread = cpython_unread(in, py);
    find_state(in, py);
    return find_heaps(in, py, notes, err);
}

void cpython_release(struct cpython *py)
{
    free(py->interpreters);
    free(py->heaps);
    free(py->pools);
    free(py->segments);
    memset(py, 0, sizeof *py);
}
