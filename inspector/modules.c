#include "inspector/modules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/dwarf_layout.h"
#include "inspector/target/live.h"
#include "inspector/target/pages.h"

/* What is looked up in every module, in one pass over its symbol tables. */
enum wanted {
    W_RUNTIME,
    W_PY_VERSION,
    W_TYPE,
    W_REF_TOTAL,
    W_PYPY,
    W_RPYTHON,
    W_USEDPOOLS,
    W_ARENAS,
    W_MAXARENAS,
    W_OBMALLOC_MAIN,
    W_TRACEMALLOC,
    W_MALLOC,
    W_JEMALLOC,
    W_TCMALLOC,
    W_MIMALLOC,
    W_ASAN,
    W_COUNT
};

static const char *const wanted_names[W_COUNT] = {
    [W_RUNTIME] = "_PyRuntime",
    [W_PY_VERSION] = "Py_Version",
    [W_TYPE] = "PyType_Type",
    [W_REF_TOTAL] = "_Py_RefTotal",
    [W_PYPY] = "PyPyObject_Call",
    [W_RPYTHON] = "pypy_main_startup",
    [W_USEDPOOLS] = "usedpools",
    [W_ARENAS] = "arenas",
    [W_MAXARENAS] = "maxarenas",
    [W_OBMALLOC_MAIN] = "obmalloc_state_main",
    [W_TRACEMALLOC] = "_Py_tracemalloc_config",
    [W_MALLOC] = "malloc",
    [W_JEMALLOC] = "mallctl",
    [W_TCMALLOC] = "tc_malloc",
    [W_MIMALLOC] = "mi_malloc",
    [W_ASAN] = "__asan_init",
};

void modules_init(struct modules *m)
{
    memset(m, 0, sizeof *m);
    strpool_init(&m->names);
}

void modules_release(struct modules *m)
{
    free(m->items);
    free(m->data);
    free(m->files);
    free(m->dwarf);
    strpool_release(&m->names);
    memset(m, 0, sizeof *m);
}

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool is_glibc_name(const char *base)
{
    return starts(base, "libc.so.6") || (starts(base, "libc-2.") && strstr(base, ".so"));
}

static bool is_loader_name(const char *base)
{
    return starts(base, "ld-linux") || starts(base, "ld-2.") || starts(base, "ld.so");
}

static bool is_musl_name(const char *base)
{
    return starts(base, "ld-musl-") || starts(base, "libc.musl-");
}

/* Whose modules are read: a process's or a core's. */
struct source {
    const struct maps *maps;
    pid_t pid;
    const struct modules_core *core;   /* NULL for a process */
    const struct modules_files *files; /* may be NULL */
};

/* A module with the load bias and where each wanted symbol lies, from a file or from memory. */
struct found {
    const struct vma *map; /* its first mapping */
    struct elf_file *elf;  /* NULL when read from memory */
    struct mem *mem;       /* that memory; else NULL */
    uint64_t bias;
    const struct elf_segment *segments;
    size_t n_segments;
    struct elf_symbol symbols[W_COUNT];
};

static void prepare(struct found *f)
{
    for (int i = 0; i < W_COUNT; i++)
        f->symbols[i] = (struct elf_symbol){.name = wanted_names[i]};
}

static uint64_t address(const struct found *f, enum wanted w)
{
    return f->symbols[w].found ? f->symbols[w].value + f->bias : 0;
}

static void note_malloc(struct modules *m, const struct found *f)
{
    const char *base = base_name(f->map->name);
    if (is_musl_name(base)) {
        m->libc_name = "musl";
        m->interposer = m->interposer ? m->interposer : "musl";
    }
    if (!f->symbols[W_MALLOC].found || !f->symbols[W_MALLOC].is_function || is_glibc_name(base) ||
        is_loader_name(base) || is_musl_name(base) || starts(base, "libc_malloc_debug"))
        return;
    const char *name = f->symbols[W_JEMALLOC].found   ? "jemalloc"
                       : f->symbols[W_TCMALLOC].found ? "tcmalloc"
                       : f->symbols[W_MIMALLOC].found ? "mimalloc"
                       : f->symbols[W_ASAN].found     ? "asan"
                                                      : NULL;
    /* A static executable defines glibc's malloc itself. */
    if (name)
        m->interposer = name;
}

static int add_data(struct modules *m, const struct found *f, struct cpython_module *py,
                    struct err *err)
{
    bool libc = is_glibc_name(base_name(f->map->name));
    for (size_t i = 0; i < f->n_segments; i++) {
        const struct elf_segment *s = &f->segments[i];
        uint64_t start = s->vaddr + f->bias, end;
        if (!s->w || add_overflows(start, s->memsz, &end) || end == start)
            continue;
        if (vec_reserve(&m->data, &m->cap_data, m->n_data + 1, sizeof *m->data) < 0)
            return err_set(err, ERR_NOMEM, "no memory for the modules");
        m->data[m->n_data++] =
            (struct glibc_data){round_down(start, 4096), round_up(end, 4096), libc};
        if (py->n_data < CPYTHON_RANGES)
            py->data[py->n_data++] = (struct cpython_range){start, end};
    }
    return 0;
}

static void fill_runtime(const struct found *f, struct cpython_module *py)
{
    struct elf_section sec;
    py->runtime = address(f, W_RUNTIME);
    py->runtime_size = f->symbols[W_RUNTIME].size;
    py->runtime_by = py->runtime ? "the symbol _PyRuntime" : NULL;
    if (!py->runtime && f->elf && elf_section(f->elf, ".PyRuntime", &sec) && sec.size) {
        py->runtime = sec.addr + f->bias;
        py->runtime_size = sec.size;
        py->runtime_by = "the section .PyRuntime";
    }
}

/* The value of a constant: from the file where there is one, since the page may not be in memory.
 */
static uint64_t constant(const struct found *f, enum wanted w)
{
    uint64_t v = 0;
    if (!f->symbols[w].found)
        return 0;
    if (f->elf)
        return elf_read_at(f->elf, f->symbols[w].value, &v, sizeof v, NULL) < 0 ? 0 : v;
    return f->mem && mem_u64(f->mem, address(f, w), &v, NULL) == 0 ? v : 0;
}

static void read_dwarf(struct modules *m, const struct found *f, struct cpython_module *py)
{
    bool exact = false;
    uint32_t hex = 0;
    if (!py->runtime || m->dwarf || !f->elf || !elf_has_dwarf(f->elf))
        return;
    /* A table of this very release says the same and is there at once; libdw needs its time. */
    if (elf_python_version(f->elf, &hex, NULL) < 0 ||
        (layout_find(hex, py->has_ref_total, false, &exact) && exact))
        return;
    m->dwarf = malloc(sizeof *m->dwarf);
    if (!m->dwarf)
        return;
    if (dwarf_layout(elf_fd(f->elf), m->dwarf, NULL) < 0) {
        free(m->dwarf);
        m->dwarf = NULL;
        return;
    }
    m->dwarf->hexversion = hex;
    m->dwarf->name = "dwarf";
    m->dwarf->source = "the interpreter's own DWARF";
    m->dwarf->debug = py->has_ref_total;
    py->dwarf = m->dwarf;
}

/* "libc-2.31.so", as it was called up to 2.33, tells by itself. */
static void libc_version_of_name(struct modules *m, const char *base)
{
    if (!starts(base, "libc-2.") || m->libc_version[0])
        return;
    size_t digits = strspn(base + 5, "0123456789.");
    while (digits && base[5 + digits - 1] == '.')
        digits--;
    snprintf(m->libc_version, sizeof m->libc_version, "%.*s", (int)digits, base + 5);
}

static void read_libc_version(struct modules *m, const struct found *f)
{
    char text[160];
    const char *base = base_name(f->map->name);
    if (!f->elf)
        libc_version_of_name(m, base);
    if (!f->elf || m->libc_version[0] || (!is_glibc_name(base) && !elf_is_static(f->elf)))
        return;
    if (elf_find_string(f->elf, ".rodata", "GNU C Library", text, sizeof text, NULL) < 0)
        return;
    const char *v = strstr(text, "release version ");
    m->libc_name = "glibc";
    if (v)
        snprintf(m->libc_version, sizeof m->libc_version, "%.*s",
                 (int)strspn(v + 16, "0123456789."), v + 16);
    size_t len = strlen(m->libc_version);
    if (len && m->libc_version[len - 1] == '.')
        m->libc_version[len - 1] = '\0';
}

static int add_module(struct modules *m, struct found *f, struct err *err)
{
    if (vec_reserve(&m->items, &m->cap, m->n + 1, sizeof *m->items) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the modules");
    struct cpython_module *py = &m->items[m->n];
    memset(py, 0, sizeof *py);
    py->path = strpool_add(&m->names, f->map->name);
    if (!py->path)
        return err_set(err, ERR_NOMEM, "no memory for the modules");
    fill_runtime(f, py);
    py->py_version = constant(f, W_PY_VERSION);
    py->type_type = address(f, W_TYPE);
    py->has_ref_total = f->symbols[W_REF_TOTAL].found;
    py->is_pypy = f->symbols[W_PYPY].found || f->symbols[W_RPYTHON].found;
    py->usedpools = address(f, W_USEDPOOLS);
    py->arenas = address(f, W_ARENAS);
    py->maxarenas = address(f, W_MAXARENAS);
    py->obmalloc_state_main = address(f, W_OBMALLOC_MAIN);
    py->tracemalloc_config = address(f, W_TRACEMALLOC);
    if (f->elf && (py->runtime || py->type_type))
        (void)!elf_python_version(f->elf, &py->hexversion, NULL);
    m->n++;
    if (is_glibc_name(base_name(f->map->name)))
        m->libc_name = "glibc";
    read_libc_version(m, f);
    note_malloc(m, f);
    read_dwarf(m, f, py);
    return add_data(m, f, py, err);
}

static bool same_file(const struct vma *a, const struct vma *b)
{
    return a->inode == b->inode && a->dev == b->dev && strcmp(a->name, b->name) == 0;
}

/* The mapping of file offset 0, or the first of the file. */
static const struct vma *first_mapping(const struct maps *maps, size_t i)
{
    const struct vma *x = &maps->items[i], *first = x;
    for (size_t k = i; k-- > 0;) {
        const struct vma *v = &maps->items[k];
        if (same_file(v, x))
            first = v;
        else if (v->inode)
            break;
        if (first->offset == 0)
            break;
    }
    return first;
}

static bool seen(const struct maps *maps, size_t i)
{
    for (size_t k = i; k-- > 0;) {
        const struct vma *v = &maps->items[k];
        if (v->x && same_file(v, &maps->items[i]))
            return true;
        if (i - k > 16)
            break; /* one file's mappings lie together */
    }
    return false;
}

/* Nothing of the file can be read: what the kernel maps writable of it, with the anonymous memory
 * behind (.bss), still lets the walkers search by structure. A core may name files that are no
 * modules at all: those have nothing writable. */
static int add_unread(struct modules *m, const struct source *src, struct found *f, struct err *err)
{
    struct elf_segment segments[4];
    memset(segments, 0, sizeof segments);
    f->segments = segments;
    f->n_segments = 0;
    f->bias = 0;
    for (size_t i = 0; i < src->maps->n && f->n_segments < 4; i++) {
        const struct vma *v = &src->maps->items[i];
        if (!same_file(v, f->map) || !v->w || v->shared)
            continue;
        const struct vma *behind = i + 1 < src->maps->n ? v + 1 : NULL;
        bool bss = behind && behind->start == v->end && behind->kind == VMA_ANON && behind->w;
        uint64_t end = bss ? behind->end : v->end;
        segments[f->n_segments++] =
            (struct elf_segment){.vaddr = v->start, .memsz = end - v->start, .r = true, .w = true};
    }
    if (src->core && f->n_segments == 0)
        return 0;
    m->unread++;
    return add_module(m, f, err);
}

/* Headers and dynamic symbols from `mem`, as far as they are there. */
static int read_from_mem(struct modules *m, const struct source *src, struct mem *mem,
                         struct found *f, struct err *err)
{
    struct elf_image image;
    if (!mem || elf_image_read(mem, f->map->start, &image, NULL) < 0)
        return add_unread(m, src, f, err);
    f->mem = mem;
    elf_image_symbols(mem, &image, f->symbols, W_COUNT);
    f->bias = image.bias;
    f->segments = image.loads;
    f->n_segments = image.n_loads;
    return add_module(m, f, err);
}

/* The last resort for a process: its own memory, present pages only. */
static int read_from_memory(struct modules *m, const struct source *src, struct found *f,
                            struct err *err)
{
    if (src->core)
        return read_from_mem(m, src, src->core->mem, f, err);
    struct mem_region range = {f->map->start, f->map->start};
    for (size_t i = 0; i < src->maps->n; i++)
        if (same_file(&src->maps->items[i], f->map))
            range.end = max_u64(range.end, src->maps->items[i].end);
    struct pages pages;
    struct mem *mem = NULL;
    pages_init(&pages);
    if (pages_scan(&pages, src->pid, &range, 1, PAGES_AUTO, NULL) < 0 ||
        live_new(src->pid, pages.runs, pages.n, false, &mem, NULL) < 0)
        mem = NULL;
    int rc = read_from_mem(m, src, mem, f, err);
    mem_close(mem);
    pages_release(&pages);
    return rc;
}

/* The executable of a core: the file that holds AT_PHDR. */
static bool is_exe(const struct source *src, const struct vma *map)
{
    struct vma_list list = maps_list(src->maps);
    const struct vma *v = src->core ? vma_at(&list, src->core->exe_address) : NULL;
    return v && v->inode && same_file(v, map);
}

static int add_file(struct modules *m, const struct elf_core_verdict *v, const struct vma *map,
                    bool exe, struct err *err)
{
    if (vec_reserve(&m->files, &m->cap_files, m->n_files + 1, sizeof *m->files) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the modules");
    struct module_file *f = &m->files[m->n_files];
    f->path = strpool_add(&m->names, map->name);
    f->file = v->file[0] ? strpool_add(&m->names, v->file) : NULL;
    f->expected = strpool_add(&m->names, v->expected);
    f->found = strpool_add(&m->names, v->found);
    f->identity = v->identity;
    f->is_exe = exe;
    if (!f->path || !f->expected || !f->found || (v->file[0] && !f->file))
        return err_set(err, ERR_NOMEM, "no memory for the modules");
    if (exe)
        snprintf(m->exe_build_id, sizeof m->exe_build_id, "%s", v->expected);
    m->n_files++;
    return 0;
}

/* A core's mapping of what is no ELF file (a locale archive) is no module. */
static bool no_module(const struct source *src, const struct vma *map,
                      const struct elf_core_verdict *v)
{
    for (size_t i = 0; i < src->maps->n; i++)
        if (same_file(&src->maps->items[i], map) && src->maps->items[i].w)
            return false;
    return !v->expected[0] && v->identity != ELF_PROVEN;
}

int modules_file_missed(int rc, struct err *err)
{
    if (rc == 0 || rc == ERR_NOMEM)
        return rc;
    err_clear(err);
    return 0;
}

static int tell_file(const struct source *src, const struct vma *map, struct elf_file **elf,
                     struct err *err)
{
    if (!*elf || !src->files)
        return 0;
    int rc = src->files->proven(src->files->ctx, *elf, map, err);
    if (rc < 0) {
        elf_close(*elf);
        *elf = NULL;
    }
    return rc;
}

static int open_file(struct modules *m, const struct source *src, const struct vma *map,
                     struct elf_file **ret, struct err *err)
{
    uint64_t base = map->offset == 0 ? map->start : 0;
    *ret = NULL;
    if (!src->core) {
        struct elf_module_request req = {.pid = src->pid, .map = map, .first_start = base};
        if (elf_open_module(&req, ret, NULL, NULL) < 0)
            *ret = NULL;
        return tell_file(src, map, ret, err);
    }
    bool exe = is_exe(src, map);
    struct elf_core_verdict verdict;
    struct elf_core_request req = {map->name, exe ? src->core->exe : NULL, src->core->sysroot,
                                   src->core->mem, base};
    elf_open_core_module(&req, ret, &verdict);
    if (no_module(src, map, &verdict))
        return 0;
    int rc = add_file(m, &verdict, map, exe, err);
    if (rc == 0)
        return tell_file(src, map, ret, err);
    elf_close(*ret);
    *ret = NULL;
    return rc;
}

static int read_module(struct modules *m, const struct source *src, const struct vma *map,
                       struct err *err)
{
    struct found f = {.map = map};
    prepare(&f);
    int rc = open_file(m, src, map, &f.elf, err);
    if (rc < 0)
        return rc;
    if (!f.elf || elf_bias(f.elf, map->start, map->offset, &f.bias, NULL) < 0) {
        elf_close(f.elf);
        f.elf = NULL;
        return read_from_memory(m, src, &f, err);
    }
    elf_symbols(f.elf, f.symbols, W_COUNT);
    f.segments = elf_segments(f.elf, &f.n_segments);
    rc = add_module(m, &f, err);
    elf_close(f.elf);
    return rc;
}

static int by_start(const void *a, const void *b)
{
    const struct glibc_data *x = a, *y = b;
    return x->start < y->start ? -1 : x->start > y->start;
}

static void read_exe(struct modules *m, pid_t pid)
{
    char path[64];
    struct elf_file *elf = NULL;
    snprintf(path, sizeof path, "/proc/%d/exe", (int)pid);
    if (elf_open_path(path, &elf, NULL) < 0)
        return;
    snprintf(m->exe_build_id, sizeof m->exe_build_id, "%s", elf_build_id(elf));
    elf_close(elf);
}

static int read_all(struct modules *m, const struct source *src, struct err *err)
{
    for (size_t i = 0; i < src->maps->n; i++) {
        const struct vma *v = &src->maps->items[i];
        if (!v->x || !v->inode || seen(src->maps, i))
            continue;
        int rc = read_module(m, src, first_mapping(src->maps, i), err);
        if (rc < 0)
            return rc;
    }
    if (m->n_data)
        qsort(m->data, m->n_data, sizeof *m->data, by_start);
    return 0;
}

int modules_read(struct modules *m, pid_t pid, const struct maps *maps,
                 const struct modules_files *files, struct err *err)
{
    struct source src = {.maps = maps, .pid = pid, .files = files};
    int rc = read_all(m, &src, err);
    if (rc == 0)
        read_exe(m, pid);
    return rc;
}

int modules_read_core(struct modules *m, const struct modules_core *core, const struct maps *maps,
                      const struct modules_files *files, struct err *err)
{
    struct source src = {.maps = maps, .core = core, .files = files};
    return read_all(m, &src, err);
}

bool modules_stale(const struct modules *m, const struct maps *maps)
{
    for (size_t i = 0; i < maps->n; i++) {
        const struct vma *v = &maps->items[i];
        if (!v->x || !v->inode)
            continue;
        size_t k = 0;
        while (k < m->n && strcmp(m->items[k].path, v->name) != 0)
            k++;
        if (k == m->n)
            return true;
    }
    return false;
}
