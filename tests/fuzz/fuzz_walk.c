/* walk_run over damaged images of a CPython process. An input is: which layout, how the image is
 * built, what of it is absent, how Rss lies, then records of 12 bytes that change a word, a run of
 * bytes or a list each. With the top bit of the second byte the rest of the input is laid raw over
 * the module's data instead. Half of the inputs say that their source is partial; of some of these
 * the module's data is missing. Whatever comes: the walk ends with an error that says why, or every
 * byte is in one category, mapping by mapping and in sum. */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/test_cpython_image.h"

#define FUZZ_SEED seed
#include "tests/fuzz/driver.h"

enum { HEAD = 8, RECORD = 12, MAX_RECORDS = 64, MAX_UNDO = 1 << 13 };

static struct img f;
static uint8_t built_layout, built_how;
static bool ready;

/* The image is built once for many inputs: what an input changes is put back. */
static struct {
    uint64_t addr;
    uint8_t old;
} undo[MAX_UNDO];
static size_t n_undo;

static void change(uint64_t addr, const void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint8_t *p = img_at(&f, addr + i, 1);
        if (!p || n_undo == MAX_UNDO)
            return;
        undo[n_undo].addr = addr + i;
        undo[n_undo++].old = *p;
        *p = ((const uint8_t *)bytes)[i];
    }
}

static void put_back(void)
{
    while (n_undo) {
        n_undo--;
        *img_at(&f, undo[n_undo].addr, 1) = undo[n_undo].old;
    }
}

static void build(uint8_t which, uint8_t how)
{
    const struct layout *l = layout_at(which % layout_count());
    const struct layout_traits *t = layout_traits(layout_minor(l->hexversion));
    struct img_opts o = {
        .by = (enum img_by)(how & 1 ? t->debug_offsets ? IMG_COOKIE : IMG_TEXT : IMG_SYMBOL)};
    o.sub = (enum img_sub)((how >> 1 & 3) % 3);
    if (o.sub == IMG_OWN && t->obmalloc == OBMALLOC_STATIC)
        o.sub = IMG_SHARED;
    o.statics = how & 8;
    o.hooks = how & 16;
    o.no_arenas = (how & 96) == 32;
    o.mimalloc = l->free_threaded || ((how & 96) == 64 && t->mimalloc != MIMALLOC_ABSENT);
    o.empty = l->free_threaded || (how & 96) == 64;
    img_build(&f, l, &o);
    f.n_data = 0; /* glibc has a fuzzer of its own */
    built_layout = which;
    built_how = how;
    ready = true;
}

/* An address from 16 bits: a word that means something, or any. */
static uint64_t place(uint16_t where)
{
    if (where & 0x8000)
        return f.words[(where & 0x7fff) % f.n_words].addr;
    const struct img_piece *p = &f.pieces[where % f.n_pieces];
    return p->addr + 8 * ((uint64_t)where * 2654435761u % (p->len / 8));
}

static void apply(const uint8_t *r)
{
    uint64_t at = place(load_u16(r)), value = load_u64(r + 4);
    uint8_t *p = img_at(&f, at, 8), run[255];
    uint64_t old = p ? load_u64(p) : 0;
    switch (r[2] % 6) {
    case 0:
        break;
    case 1:
        value = old ^ 1ull << (value & 63);
        break;
    case 2:
        value = old + 16 * (uint64_t)(int8_t)value;
        break;
    case 3: /* a pointer to somewhere in the image */
        value = place((uint16_t)value) + (r[3] & 16);
        break;
    case 4: /* an overrun */
        memset(run, (int)value, sizeof run);
        change(at, run, r[3]);
        return;
    default: /* a pool or an arena of the pool next to it */
        at = f.arena[0] + (value & 0xff) * f.t->pool_size;
        p = img_at(&f, at, POOL_HEADER_BYTES);
        if (p)
            change(at + (r[3] ? f.t->pool_size : 0), p, POOL_HEADER_BYTES);
        return;
    }
    change(at, &value, r[3] & 1 ? 4 : 8);
}

/* Absent pages and an Rss that differs from the pages. */
static void thin_out(const uint8_t *head)
{
    for (size_t i = 0; i < f.n_pieces; i++)
        memset(f.pieces[i].absent, 0, sizeof f.pieces[i].absent);
    if (head[2] & 1)
        for (size_t i = 0; i < f.n_pieces; i++)
            for (size_t page = 0; page < f.pieces[i].len / IMG_PAGE; page++)
                f.pieces[i].absent[page] = (page * 167 + head[3]) % 251 < (uint64_t)head[4] / 4;
    img_present(&f);
    f.res.unknown = head[2] & 2;
    for (size_t i = 0; i < f.n_vmas; i++) {
        struct vma *v = &f.vmas[i];
        if (head[2] & 4)
            v->rss = round_down((v->end - v->start) / 255 * head[5], IMG_PAGE);
        v->w = v->r && !v->x && !(head[2] & 8 && i == head[6] % f.n_vmas);
    }
}

/* As img_walk. A partial source without the module's data: the image begins with that piece. */
static int walk(const uint8_t *head, struct snapshot *snap, struct err *err)
{
    struct mem *mem = NULL;
    size_t skip = 0;
    bool partial = head[6] & 0x80;
    snapshot_init(snap);
    err_clear(err);
    while (partial && head[6] & 0x40 && skip < f.n_parts &&
           f.parts[skip].addr < IMG_DATA + IMG_DATA_BYTES)
        skip++;
    int rc = mem_image_new(f.parts + skip, f.n_parts - skip, &mem, err);
    if (rc < 0)
        return rc;
    struct walk_input in = img_input(&f, mem);
    in.partial = partial;
    in.types = head[6] & 0x10;
    in.blocks = head[6] & 0x08;
    in.python.part_slots = head[6] & 0x04 ? 5 : 0; /* workers have next to nothing to do */
    if (head[6] & 0x20)
        f.module.hexversion = f.l->hexversion;
    rc = walk_run(&in, snap, err);
    f.module.hexversion = 0;
    mem_close(mem);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct snapshot snap;
    struct err err;
    if (size < HEAD)
        return 0;
    if (!f.pieces[0].bytes)
        img_init(&f);
    uint8_t which = data[0] % (uint8_t)layout_count(), how = data[1] & 0x7f;
    if (!ready || which != built_layout || how != built_how)
        build(which, how);
    if (data[1] & 0x80)
        change(IMG_DATA + 0x1000 * (data[7] % 2u), data + HEAD, min_u64(size - HEAD, MAX_UNDO));
    else
        for (size_t at = HEAD; at + RECORD <= size && at < HEAD + MAX_RECORDS * RECORD;
             at += RECORD)
            apply(data + at);
    thin_out(data);
    int rc = walk(data, &snap, &err);
    if (rc < 0 ? err.code != rc || !err.text[0] : !img_sums(&f, &snap))
        abort();
    snapshot_release(&snap);
    put_back();
    return 0;
}

#ifdef FUZZ_MAIN
/* An image with up to 8 changes. */
static size_t seed(unsigned n, uint8_t *buf, size_t cap)
{
    size_t len = HEAD + RECORD * (size_t)fuzz_draw(9);
    if (len > cap)
        return 0;
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)fuzz_draw(256);
    buf[0] = (uint8_t)(n / 16); /* building an image costs more than walking it */
    buf[1] = (uint8_t)(n / 16 * 37) & 0x7f;
    buf[2] &= (uint8_t)fuzz_draw(16);
    return len;
}
#endif
