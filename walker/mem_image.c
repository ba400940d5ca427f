/* The in-memory backend. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "walker/mem.h"

struct image {
    struct mem mem;
    struct mem_image_piece *pieces;
    struct mem_region *regions;
    size_t n, n_regions;
};

static const struct mem_image_piece *piece_at(const struct image *im, uint64_t addr)
{
    size_t lo = 0, hi = im->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        const struct mem_image_piece *p = &im->pieces[mid];
        if (addr < p->addr)
            hi = mid;
        else if (addr - p->addr >= p->len)
            lo = mid + 1;
        else
            return p;
    }
    return NULL;
}

static const uint8_t *image_direct(struct mem *mem, uint64_t addr, size_t *len)
{
    const struct mem_image_piece *p = piece_at((struct image *)mem, addr);
    *len = 0;
    if (!p)
        return NULL;
    *len = p->len - (size_t)(addr - p->addr);
    return (const uint8_t *)p->bytes + (addr - p->addr);
}

static int image_readv(struct mem *mem, struct mem_span *spans, size_t n, struct err *err)
{
    (void)err;
    for (size_t i = 0; i < n; i++) {
        struct mem_span *s = &spans[i];
        s->got = 0;
        while (s->got < s->len) {
            size_t len;
            const uint8_t *p = image_direct(mem, s->addr + s->got, &len);
            if (!p)
                break;
            if (len > s->len - s->got)
                len = s->len - s->got;
            memcpy((uint8_t *)s->buf + s->got, p, len);
            s->got += len;
        }
    }
    return 0;
}

static int image_regions(struct mem *mem, const struct mem_region **ret, size_t *n, struct err *err)
{
    (void)err;
    struct image *im = (struct image *)mem;
    *ret = im->regions;
    *n = im->n_regions;
    return 0;
}

static void image_close(struct mem *mem)
{
    struct image *im = (struct image *)mem;
    free(im->pieces);
    free(im->regions);
    free(im);
}

static const struct mem_ops image_ops = {image_readv, image_regions, image_close, image_direct};

static bool pieces_sane(const struct mem_image_piece *pieces, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (pieces[i].addr + pieces[i].len < pieces[i].addr)
            return false;
        if (i && pieces[i].addr < pieces[i - 1].addr + pieces[i - 1].len)
            return false;
    }
    return true;
}

int mem_image_new(const struct mem_image_piece *pieces, size_t n, struct mem **ret, struct err *err)
{
    if (!pieces_sane(pieces, n))
        return err_set(err, ERR_USAGE, "image pieces overlap or are not sorted");
    struct image *im = calloc(1, sizeof *im);
    if (im) {
        im->pieces = calloc(n ? n : 1, sizeof *im->pieces);
        im->regions = calloc(n ? n : 1, sizeof *im->regions);
    }
    if (!im || !im->pieces || !im->regions) {
        if (im)
            image_close(&im->mem);
        return err_set(err, ERR_NOMEM, "no memory for an image of %zu pieces", n);
    }
    im->mem.ops = &image_ops;
    im->mem.traits = MEM_FROZEN | MEM_SPARSE;
    im->n = n;
    for (size_t i = 0; i < n; i++) {
        im->pieces[i] = pieces[i];
        struct mem_region *last = im->n_regions ? &im->regions[im->n_regions - 1] : NULL;
        if (last && last->end == pieces[i].addr)
            last->end += pieces[i].len;
        else if (pieces[i].len)
            im->regions[im->n_regions++] =
                (struct mem_region){pieces[i].addr, pieces[i].addr + pieces[i].len};
    }
    *ret = &im->mem;
    return 0;
}
