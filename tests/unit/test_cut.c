/* Censuses of sources that lack bytes the process had, as cores that were cut short: over the
 * synthetic images of a CPython process, for every layout, with pieces taken away. */
#include "tests/lib/tap.h"
#include "tests/unit/test_cpython_image.h"

static struct img f;

struct range {
    uint64_t start, end;
};

/* The image without what `hide` takes away; it stays present, as pages of a core's process do. */
static struct mem *image_without(const struct range *hide, size_t n)
{
    static struct mem_image_piece left[2 * IMG_PIECES * IMG_PAGES];
    struct mem *mem;
    size_t m = 0;
    for (size_t i = 0; i < f.n_parts; i++) {
        const struct mem_image_piece *p = &f.parts[i];
        uint64_t at = p->addr, end = p->addr + p->len;
        while (at < end) {
            uint64_t stop = end, next = end;
            for (size_t k = 0; k < n; k++) {
                if (hide[k].start <= at && at < hide[k].end)
                    stop = at, next = min_u64(end, hide[k].end);
                else if (hide[k].start > at && hide[k].start < stop)
                    stop = next = hide[k].start;
            }
            if (stop > at)
                left[m++] = (struct mem_image_piece){at, (const uint8_t *)p->bytes + (at - p->addr),
                                                     stop - at};
            at = next;
        }
    }
    if (mem_image_new(left, m, &mem, NULL) < 0)
        abort();
    return mem;
}

static int walk(const struct range *hide, size_t n, bool partial, struct snapshot *snap,
                struct err *err)
{
    struct mem *mem = image_without(hide, n);
    struct walk_input in = img_input(&f, mem);
    in.partial = partial;
    in.n_data = 0; /* malloc has tests of its own */
    snapshot_init(snap);
    err_clear(err);
    int rc = walk_run(&in, snap, err);
    mem_close(mem);
    return rc;
}

static bool has_note(const struct snapshot *snap, const char *what)
{
    for (size_t i = 0; i < snap->n_notes; i++)
        if (strcmp(snap->notes[i].what, what) == 0)
            return true;
    return false;
}

static bool same_blocks(const struct snapshot *snap)
{
    const struct snapshot_pymalloc *have = &snap->pymalloc, *want = &f.want;
    bool same = have->pools_used == want->pools_used && have->blocks_used == want->blocks_used &&
                have->blocks_free == want->blocks_free && have->bytes_used == want->bytes_used &&
                have->bytes_free == want->bytes_free;
    for (unsigned i = 0; i < POOL_CLASSES; i++)
        same = same && have->classes[i].pools == want->classes[i].pools &&
               have->classes[i].blocks_used == want->classes[i].blocks_used &&
               have->classes[i].blocks_free == want->classes[i].blocks_free;
    return same && snap->memory.tally.bytes[CAT_PYTHON_BLOCKS_USED] == want->bytes_used &&
           snap->memory.tally.count[CAT_PYTHON_BLOCKS_USED] == want->blocks_used;
}

static void build(const struct layout *l, struct img_opts o)
{
    o.empty = o.empty || l->free_threaded;
    o.mimalloc = o.mimalloc || l->free_threaded;
    img_build(&f, l, &o);
}

static const struct range data = {IMG_DATA, IMG_DATA + IMG_DATA_BYTES};

static void explain(bool right, int rc, const struct err *err, const struct snapshot *snap)
{
    if (right)
        return;
    diag("rc %d: %s; python %d %s %s %s; blocks %llu of %llu, pools %llu of %llu", rc, err->text,
         snap->python.present, snap->python.version, snap->python.state, snap->python.allocator,
         (unsigned long long)snap->pymalloc.blocks_used, (unsigned long long)f.want.blocks_used,
         (unsigned long long)snap->pymalloc.pools_used, (unsigned long long)f.want.pools_used);
    for (size_t i = 0; i < snap->n_notes; i++)
        diag("%s: %s", snap->notes[i].what, snap->notes[i].why);
}

/* All of the module's data is missing: every pool in use is counted by its header, nothing else
 * is, and the result says what it is. */
static void without_data(const char *how, const char *version, const char *allocator)
{
    struct snapshot snap;
    struct err err;
    int rc = walk(&data, 1, true, &snap, &err);
    const struct snapshot_python *p = &snap.python;
    bool right = rc == 0 && p->present && strcmp(p->version, version) == 0 &&
                 strcmp(p->state, "unknown") == 0 && strcmp(p->allocator, allocator) == 0 &&
                 p->debug == f.l->debug && p->free_threaded == f.l->free_threaded &&
                 same_blocks(&snap) && img_sums(&f, &snap) && !snap.complete &&
                 snap.pymalloc.arenas == 0 && has_note(&snap, "python.missing") &&
                 has_note(&snap, "pymalloc.headers") == (f.want.pools_used != 0);
    explain(ok(right, "%s: %s", f.l->source, how), rc, &err, &snap);
    snapshot_release(&snap);
}

static void fails(const char *how, bool partial)
{
    struct snapshot snap;
    struct err err;
    int rc = walk(&data, 1, partial, &snap, &err);
    ok(rc == ERR_UNSUPPORTED && err.code == rc && err.text[0] && !snap.python.present, "%s: %s: %s",
       f.l->source, how, err.text);
    snapshot_release(&snap);
}

static void test_no_data(const struct layout *l)
{
    char path[64], minor[8], exact[32];
    const char *some = l->free_threaded ? "mimalloc" : "pymalloc";
    snprintf(minor, sizeof minor, "3.%u", layout_minor(l->hexversion));
    cpython_version_format(l->hexversion, exact, sizeof exact);
    snprintf(path, sizeof path, "/opt/lib/libpython%s%s%s.so.1.0", minor,
             l->free_threaded ? "t" : "", l->debug ? "d" : "");
    build(l, (struct img_opts){.by = IMG_TEXT});
    f.module = (struct cpython_module){.path = path};
    without_data("the version from a path", minor, some);
    f.module.hexversion = l->hexversion;
    f.module.has_ref_total = l->debug;
    without_data("the version from the file", exact, some);
    fails("not with a whole source", false);
    build(l, (struct img_opts){.by = IMG_SYMBOL, .hooks = true});
    f.module.path = path;
    f.module.hexversion = l->hexversion;
    without_data("the symbol alone, debug hooks", exact,
                 l->free_threaded ? some : "pymalloc_debug");
    f.module = (struct cpython_module){.path = path, .is_pypy = true};
    fails("PyPy", true);
    f.module = (struct cpython_module){.path = "/usr/bin/nginx"};
    fails("nothing calls it a Python", true);
    build(l, (struct img_opts){.by = IMG_TEXT, .empty = true});
    f.module = (struct cpython_module){.path = path, .hexversion = l->hexversion};
    f.module.has_ref_total = l->debug;
    without_data("no pool in use", exact, l->free_threaded ? some : "unknown");
}

/* A Python, but nobody says which: all but its heap is told. */
static void test_no_version(const struct layout *l)
{
    struct snapshot snap;
    struct err err;
    build(l, (struct img_opts){.by = IMG_TEXT});
    int rc = walk(&data, 1, true, &snap, &err);
    bool right = rc == 0 && !snap.python.present && snap.pymalloc.pools_used == 0 &&
                 img_sums(&f, &snap) && !snap.complete && has_note(&snap, "python.missing");
    explain(ok(right, "%s: a version that nobody states", l->source), rc, &err, &snap);
    snapshot_release(&snap);
}

/* The array of arenas is missing, or all of it behind the third entry: each pool counts once. */
static void test_array(const struct layout *l)
{
    const struct range all = {IMG_ARRAY, IMG_ARRAY + IMG_MAXARENAS * ARENA_OBJECT_BYTES};
    const struct range rest = {IMG_ARRAY + 3 * ARENA_OBJECT_BYTES, all.end};
    for (int i = 0; i < 2; i++) {
        struct snapshot snap;
        struct err err;
        build(l, (struct img_opts){.by = IMG_SYMBOL, .statics = true});
        int rc = walk(i ? &rest : &all, 1, true, &snap, &err);
        bool right = rc == 0 && same_blocks(&snap) && img_sums(&f, &snap) && !snap.complete &&
                     snap.pymalloc.arenas == (i ? 2 : 0) && has_note(&snap, "pymalloc.headers") &&
                     strcmp(snap.python.state, "running") == 0 &&
                     strcmp(snap.python.allocator, "pymalloc") == 0;
        explain(ok(right, "%s: %s", l->source,
                   i ? "the array of arenas is incomplete" : "the array of arenas is missing"),
                rc, &err, &snap);
        snapshot_release(&snap);
    }
}

/* A pool that is one by its header alone is none. */
static void test_look_alikes(const struct layout *l)
{
    struct snapshot snap;
    struct err err;
    build(l, (struct img_opts){.by = IMG_SYMBOL});
    f.module.path = "/usr/bin/python3";
    f.module.hexversion = l->hexversion;
    uint64_t size = f.t->pool_size, pool = f.arena[0] + size, copy = f.chunk;
    /* Pool 1 is partly in use; a copy of it elsewhere leads back to the original. */
    memcpy(img_at(&f, copy, size), img_at(&f, pool, size), size);
    int rc = walk(&data, 1, true, &snap, &err);
    bool right = rc == 0 && same_blocks(&snap) && img_sums(&f, &snap);
    explain(ok(right, "%s: the copy of a pool is none", l->source), rc, &err, &snap);
    snapshot_release(&snap);
    uint64_t at = pool + layout_offset(l, LF_pool_nextpool);
    uint64_t block = img_get(&f, pool + layout_offset(l, LF_pool_freeblock), 8);
    img_u64(&f, block, 0); /* its free list ends after one block */
    rc = walk(NULL, 0, true, &snap, &err);
    right = rc == 0 && img_sums(&f, &snap) && has_note(&snap, "pymalloc.freelist");
    explain(ok(right, "%s: a broken free list in a known arena is told", l->source), rc, &err,
            &snap);
    snapshot_release(&snap);
    img_u64(&f, at, IMG_HEAP + 0x40);
    rc = walk(&data, 1, true, &snap, &err);
    right = rc == 0 && snap.pymalloc.pools_used + 1 == f.want.pools_used && img_sums(&f, &snap);
    explain(ok(right, "%s: with neither list nor ring it is not believed", l->source), rc, &err,
            &snap);
    snapshot_release(&snap);
}

/* Cut anywhere: an end that says why, or sums that hold and no block too many. */
static void test_cuts(const struct layout *l)
{
    unsigned wrong = 0, counted = 0;
    build(l, (struct img_opts){.by = IMG_SYMBOL, .sub = IMG_SHARED});
    f.module.path = "/usr/bin/python3";
    f.module.hexversion = l->hexversion;
    uint64_t step = f.t->arena_size / 7 / IMG_PAGE * IMG_PAGE + 0x30;
    for (uint64_t at = IMG_AREA; at < f.chunk; at += step) {
        const struct range above[2] = {{at, UINT64_MAX}, data};
        for (size_t n = 1; n <= 2; n++) {
            struct snapshot snap;
            struct err err;
            int rc = walk(above, n, true, &snap, &err);
            if (rc < 0 || !img_sums(&f, &snap) || snap.pymalloc.blocks_used > f.want.blocks_used ||
                (at >= f.arena[3] && !same_blocks(&snap))) {
                wrong++;
                explain(false, rc, &err, &snap);
            }
            counted += snap.pymalloc.blocks_used != 0;
            snapshot_release(&snap);
        }
    }
    ok(wrong == 0 && counted > 10, "%s: cut at many places, %u wrong, %u with blocks", l->source,
       wrong, counted);
}

static void test_paths(void)
{
    static const struct {
        const char *path;
        unsigned minor;
        bool found, threaded, debug;
    } rows[] = {
        {"/usr/bin/python3.11", 11, true, false, false},
        {"/usr/lib/x86_64-linux-gnu/libpython3.13t.so.1.0", 13, true, true, false},
        {"/opt/lib/libpython3.8d.so", 8, true, false, true},
        {"/usr/lib/python3.9/lib-dynload/_json.cpython-39-x86_64-linux-gnu.so", 9, true, false,
         false},
        {"python3.14td", 14, true, true, true},
        {"/usr/bin/python3", 0, false, false, false},
        {"/usr/lib/libpython3.so", 0, false, false, false},
        {"/usr/bin/ipython3.11", 0, false, false, false},
        {"/srv/my-python3.11/app", 0, false, false, false},
        {"", 0, false, false, false},
        {"/", 0, false, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        unsigned minor = 0;
        bool threaded = false, debug = false;
        bool found = cpython_path_version(rows[i].path, &minor, &threaded, &debug);
        ok(found == rows[i].found && minor == rows[i].minor && threaded == rows[i].threaded &&
               debug == rows[i].debug,
           "path \"%s\"", rows[i].path);
    }
}

int main(void)
{
    img_init(&f);
    for (size_t i = 0; i < layout_count(); i++) {
        const struct layout *l = layout_at(i);
        test_no_data(l);
        if (l->free_threaded)
            continue;
        test_no_version(l);
        test_array(l);
        if (i % 3 == 0) {
            test_look_alikes(l);
            test_cuts(l);
        }
    }
    test_paths();
    img_release(&f);
    return done_testing();
}
