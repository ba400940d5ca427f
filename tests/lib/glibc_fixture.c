#include "tests/lib/glibc_fixture.h"

#include <assert.h>
#include <string.h>

#include "formats/base/num.h"

enum { PAGE = 4096, MAIN_LEN = 0x21000, HEAP1_SIZE = 0x8000, HEAP2_SIZE = 0x6000 };
enum { BLOCK1 = 0x31000, BLOCK2 = 0x33000, LEAD2 = 0x1ff0, GAP = 0x1230 };
#define MAIN_ADDR 0x555555560000u
#define DATA_ADDR 0x7f0000100000u
#define TLS_ADDR 0x7f0000200000u
#define BLOCK1_ADDR 0x7f0000300000u
#define BLOCK2_ADDR 0x7f0000400000u
#define HEAP1_ADDR 0x7f0004000000u
#define HEAP2_ADDR 0x7f0008000000u
#define ARENA_ADDR (DATA_ADDR + 0x1c60)
#define PAR_ADDR (ARENA_ADDR - 0x920)
#define KEY 0x1234567890abcdefu

uint8_t *fixture_at(struct fixture *f, uint64_t addr)
{
    for (size_t i = 0; i < f->n_pieces; i++) {
        const struct fixture_piece *p = &f->pieces[i];
        if (addr >= p->addr && addr - p->addr + 8 <= p->len)
            return &f->bytes[p->at + (size_t)(addr - p->addr)];
    }
    return NULL;
}

uint64_t fixture_get(struct fixture *f, uint64_t addr)
{
    const uint8_t *p = fixture_at(f, addr);
    return p ? load_u64(p) : 0;
}

void fixture_put(struct fixture *f, uint64_t addr, uint64_t value)
{
    uint8_t *p = fixture_at(f, addr);
    if (p)
        memcpy(p, &value, sizeof value);
}

/* Put a word that means something: tests flip these. */
static void put(struct fixture *f, uint64_t addr, uint64_t value)
{
    fixture_put(f, addr, value);
    if (f->n_words < FIXTURE_WORDS)
        f->words[f->n_words++] = addr;
}

static void put32(struct fixture *f, uint64_t addr, uint32_t value)
{
    memcpy(fixture_at(f, addr), &value, sizeof value);
}

static void add_vma(struct fixture *f, uint64_t start, size_t len, enum vma_kind kind, bool rw)
{
    struct vma *v = &f->vmas[f->n_vmas++];
    *v = (struct vma){.start = start, .end = start + len, .r = rw, .w = rw, .kind = kind};
    v->name = kind == VMA_HEAP ? "[heap]" : kind == VMA_FILE ? "/lib/libc.so.6" : "";
}

static void add_piece(struct fixture *f, uint64_t addr, size_t len, enum vma_kind kind)
{
    const struct fixture_piece *last = f->n_pieces ? &f->pieces[f->n_pieces - 1] : NULL;
    size_t at = last ? last->at + last->len : 0;
    assert(at + len <= FIXTURE_BYTES);
    f->pieces[f->n_pieces++] = (struct fixture_piece){addr, len, at};
    add_vma(f, addr, len, kind, true);
}

/* Lays chunks one behind the other into a heap. */
struct layer {
    struct fixture *f;
    uint64_t p, arena, free_size; /* free_size: of the chunk before, 0 if it is in use */
    uint64_t tcache;              /* user address of the cache that takes cached chunks */
    unsigned flag;                /* NON_MAIN for chunks in use */
};

static uint64_t lay(struct layer *y, uint64_t size, bool in_use)
{
    uint64_t p = y->p, word = size | (y->free_size ? 0 : 1) | (in_use ? y->flag : 0);
    if (y->free_size)
        put(y->f, p, y->free_size);
    put(y->f, p + 8, word);
    y->free_size = in_use ? 0 : size;
    y->p += size;
    return p;
}

static void lay_used(struct layer *y, uint64_t size)
{
    lay(y, size, true);
    y->f->want.used_chunks++;
    y->f->want.used_bytes += size;
}

static uint64_t mangle(const struct fixture *f, uint64_t field, uint64_t link)
{
    return f->l->safe_linking ? link ^ field >> 12 : link;
}

static void lay_tcached(struct layer *y, uint64_t size)
{
    struct fixture *f = y->f;
    const struct glibc_tcache *t = &f->l->tcache;
    uint64_t user = lay(y, size, true) + 16;
    unsigned bin = (unsigned)tcache_bin_of(t, size);
    uint64_t head = y->tcache + t->entries + 8 * bin;
    put(f, user, mangle(f, user, fixture_get(f, head)));
    if (t->has_key)
        fixture_put(f, user + 8, f->l->safe_linking ? KEY : y->tcache);
    put(f, head, user);
    uint8_t *count = fixture_at(f, y->tcache + bin * t->count_width);
    if (t->count_width == 1)
        ++*count;
    else
        memcpy(count, &(uint16_t){(uint16_t)(load_u16(count) + (t->counts_down ? -1 : 1))}, 2);
    f->want.cached_chunks++;
    f->want.cached_bytes += size;
}

static void lay_fast(struct layer *y, uint64_t size)
{
    struct fixture *f = y->f;
    if (!glibc_layout_has(f->l, STATE_FASTBINS))
        return;
    uint64_t p = lay(y, size, true);
    uint64_t head = y->arena + (uint64_t)f->l->offset[STATE_FASTBINS] + 8 * (size / 16 - 2);
    put(f, p + 16, mangle(f, p + 16, fixture_get(f, head)));
    put(f, head, p);
    f->want.cached_chunks++;
    f->want.cached_bytes += size;
    f->want.mallinfo2.smblks++;
    f->want.mallinfo2.fsmblks += size;
}

static void lay_free(struct layer *y, uint64_t size)
{
    struct fixture *f = y->f;
    uint64_t p = lay(y, size, false), bin = size < 1024 ? size / 16 : 1;
    uint64_t head = y->arena + (uint64_t)f->l->offset[STATE_BINS] + 16 * (bin - 1) - 16;
    uint64_t first = fixture_get(f, head + 16);
    put(f, p + 16, first);
    put(f, p + 24, head);
    put(f, first + 24, p);
    put(f, head + 16, p);
    f->want.free_chunks++;
    f->want.free_bytes += size;
}

/* Chunks of every state, none of whose neighbours are both free. */
static void lay_mixture(struct layer *y, int rounds)
{
    for (int i = 0; i < rounds; i++) {
        lay_used(y, 0x30 + 0x10 * (uint64_t)(i % 5));
        lay_tcached(y, 0x40 + 0x50 * (uint64_t)(i % 3));
        lay_free(y, 0x120);
        lay_used(y, 0x90);
        lay_fast(y, 0x30 + 0x20 * (uint64_t)(i % 2));
        lay_used(y, 0x20);
        lay_free(y, 0x450);
        lay_used(y, 0x510);
    }
}

static void overhead(struct fixture *f, uint64_t bytes)
{
    f->want.overhead_bytes += bytes;
}

/* The struct of a thread's cache, as the first chunk of its arena. */
static void lay_tcache(struct layer *y, unsigned thread)
{
    struct fixture *f = y->f;
    const struct glibc_tcache *t = &f->l->tcache;
    uint64_t size = t->chunk_size + (thread ? t->chunk_span : 0u);
    y->tcache = lay(y, size, true) + 16;
    overhead(f, size);
    for (unsigned i = 0; t->counts_down && i < t->bins; i++)
        memcpy(fixture_at(f, y->tcache + 2 * i), &(uint16_t){16}, 2);
    put(f, f->fs[thread] - 0x68, y->tcache);
    put(f, f->fs[thread] - 0x38, y->arena);
}

static void lay_fences(struct layer *y, bool main)
{
    uint64_t p = y->p;
    if (y->free_size)
        put(y->f, p, y->free_size);
    put(y->f, p + 8, 16 | (y->free_size ? 0 : 1));
    put(y->f, p + 16 + 8, main ? 16 | 1 : 0 | 1);
    y->p += 32;
    y->free_size = 0;
    overhead(y->f, 32);
}

static void lay_top(struct layer *y, uint64_t end)
{
    put(y->f, y->p + 8, (end - y->p) | 1);
    put(y->f, y->arena + (uint64_t)y->f->l->offset[STATE_TOP], y->p);
    y->f->want.top_bytes += end - y->p;
}

static void put_arena(struct fixture *f, uint64_t addr, uint64_t next, uint64_t system_mem)
{
    const struct glibc_layout *l = f->l;
    for (unsigned i = 0; i < GLIBC_BINS; i++) {
        uint64_t pair = addr + (uint64_t)l->offset[STATE_BINS] + 16 * i;
        fixture_put(f, pair, pair - 16);
        fixture_put(f, pair + 8, pair - 16);
    }
    put(f, addr + (uint64_t)l->offset[STATE_BINS], addr + (uint64_t)l->offset[STATE_BINS] - 16);
    put(f, addr + (uint64_t)l->offset[STATE_NEXT], next);
    put(f, addr + (uint64_t)l->offset[STATE_ATTACHED], 1);
    put(f, addr + (uint64_t)l->offset[STATE_SYSTEM_MEM], system_mem);
    put(f, addr + (uint64_t)l->offset[STATE_MAX_SYSTEM_MEM], system_mem);
    f->want.arenas++;
    f->want.system_bytes += system_mem;
}

static void put_par(struct fixture *f)
{
    const int16_t *o = f->l->offset;
    uint64_t sum = BLOCK1 + BLOCK2, at = PAR_ADDR;
    put(f, at + (uint64_t)o[PAR_MMAP_THRESHOLD], 131072);
    put(f, at + (uint64_t)o[PAR_ARENA_TEST], 8);
    put32(f, at + (uint64_t)o[PAR_N_MMAPS], 2);
    put32(f, at + (uint64_t)o[PAR_N_MMAPS_MAX], 65536);
    put32(f, at + (uint64_t)o[PAR_MAX_N_MMAPS], 2);
    put(f, at + (uint64_t)o[PAR_MMAPPED_MEM], sum + (f->l->mmapped_mem_drifts ? 32 : 0));
    put(f, at + (uint64_t)o[PAR_MAX_MMAPPED_MEM], sum + 4096);
    put(f, at + (uint64_t)o[PAR_SBRK_BASE], MAIN_ADDR);
    put(f, at + (uint64_t)o[PAR_TCACHE_BINS], 64);
    put(f, at + (uint64_t)o[PAR_TCACHE_MAX_BYTES], 1032);
    put(f, at + (uint64_t)o[PAR_TCACHE_COUNT], f->l->tcache.counts_down ? 16 : 7);
}

static void lay_main(struct fixture *f)
{
    struct layer y = {f, MAIN_ADDR, ARENA_ADDR, 0, 0, 0};
    put_arena(f, ARENA_ADDR, HEAP1_ADDR + f->l->heap_size, MAIN_LEN);
    lay_tcache(&y, 0);
    lay_mixture(&y, 3);
    lay_fences(&y, true);
    memset(fixture_at(f, y.p), 0x5f, GAP); /* somebody else's */
    overhead(f, GAP);
    y.p = round_up(y.p + GAP, 16);
    lay_mixture(&y, 4);
    lay_top(&y, MAIN_ADDR + MAIN_LEN);
    f->want.mallinfo2.keepcost = MAIN_ADDR + MAIN_LEN - y.p;
}

static void put_heap(struct fixture *f, uint64_t heap, uint64_t prev, uint64_t size, uint64_t rw)
{
    put(f, heap, HEAP1_ADDR + f->l->heap_size);
    put(f, heap + 8, prev);
    put(f, heap + 16, size);
    put(f, heap + 24, rw);
}

static void lay_thread(struct fixture *f)
{
    uint64_t arena = HEAP1_ADDR + f->l->heap_size;
    struct layer y = {f, round_up(arena + f->l->state_size, 16), arena, 0, 0, 4};
    put_heap(f, HEAP1_ADDR, 0, HEAP1_SIZE, HEAP1_SIZE + PAGE);
    put_arena(f, arena, ARENA_ADDR, HEAP1_SIZE + HEAP2_SIZE);
    overhead(f, y.p - HEAP1_ADDR);
    lay_tcache(&y, 1);
    lay_mixture(&y, 3);
    lay_used(&y, HEAP1_ADDR + HEAP1_SIZE - 32 - y.p);
    lay_fences(&y, false);
    put_heap(f, HEAP2_ADDR, HEAP1_ADDR, HEAP2_SIZE, HEAP2_SIZE);
    y.p = HEAP2_ADDR + f->l->heap_size;
    overhead(f, y.p - HEAP2_ADDR);
    lay_mixture(&y, 2);
    lay_top(&y, HEAP2_ADDR + HEAP2_SIZE);
}

static void lay_mmapped(struct fixture *f)
{
    uint64_t tail = f->l->mmap_tail;
    put(f, BLOCK1_ADDR + 8, (BLOCK1 - tail) | 2);
    /* memalign: the old header stays at the start, the chunk is further inside. */
    put(f, BLOCK2_ADDR + 8, (BLOCK2 - tail) | 2);
    put(f, BLOCK2_ADDR + LEAD2, LEAD2);
    put(f, BLOCK2_ADDR + LEAD2 + 8, (BLOCK2 - LEAD2 - tail) | 2);
    f->want.mmapped_chunks = 2;
    f->want.mmapped_bytes = BLOCK1 + BLOCK2;
}

static void expect_mallinfo2(struct snapshot_malloc *m, bool drifted)
{
    struct snapshot_mallinfo2 *i = &m->mallinfo2;
    i->arena = m->system_bytes;
    i->ordblks = m->free_chunks + m->arenas;
    i->hblks = m->mmapped_chunks;
    i->hblkhd = m->mmapped_bytes + (drifted ? 32 : 0); /* as mp_ counts: two mremaps */
    i->fordblks = m->top_bytes + m->free_bytes + i->fsmblks;
    i->uordblks = m->system_bytes - i->fordblks;
}

void fixture_build(struct fixture *f, const struct glibc_layout *l)
{
    memset(f, 0, sizeof *f);
    f->l = l;
    add_piece(f, MAIN_ADDR, MAIN_LEN, VMA_HEAP);
    add_piece(f, DATA_ADDR, 0x4000, VMA_FILE);
    add_piece(f, TLS_ADDR, 0x2000, VMA_ANON);
    add_piece(f, BLOCK1_ADDR, BLOCK1, VMA_ANON);
    add_piece(f, BLOCK2_ADDR, BLOCK2, VMA_ANON);
    add_piece(f, HEAP1_ADDR, HEAP1_SIZE + PAGE, VMA_ANON);
    add_vma(f, HEAP1_ADDR + HEAP1_SIZE + PAGE, 0x4000000 - HEAP1_SIZE - PAGE, VMA_ANON, false);
    add_piece(f, HEAP2_ADDR, HEAP2_SIZE, VMA_ANON);
    add_vma(f, HEAP2_ADDR + HEAP2_SIZE, 0x4000000 - HEAP2_SIZE, VMA_ANON, false);
    f->data = (struct glibc_data){DATA_ADDR, DATA_ADDR + 0x4000, true};
    f->fs[0] = TLS_ADDR + 0x1000;
    f->fs[1] = TLS_ADDR + 0x1f00;
    put_par(f);
    lay_main(f);
    lay_thread(f);
    lay_mmapped(f);
    f->want.present = true;
    expect_mallinfo2(&f->want, f->l->mmapped_mem_drifts);
}

static void on_chunk(void *ctx, uint64_t chunk, uint64_t size, enum glibc_state state)
{
    struct fixture_result *r = ctx;
    (void)chunk, (void)state;
    r->chunks++;
    r->chunk_bytes += size;
}

struct listener {
    const struct fixture *f;
    struct fixture_result *r;
    uint64_t calls;
};

static int on_used(void *ctx, uint64_t addr, uint64_t usable)
{
    struct listener *l = ctx;
    l->calls++;
    if (l->f->used_fail_at && l->calls >= l->f->used_fail_at) {
        l->r->used_fails += l->calls > l->f->used_fail_at;
        return ERR_NOMEM;
    }
    l->r->used += usable ? 1 : (uint64_t)-1;
    l->r->taken_back += usable == 0;
    l->r->used_addrs += usable ? addr : -addr;
    return 0;
}

static enum category fallback(void *ctx, const struct vma *v, uint64_t lo, uint64_t hi)
{
    (void)ctx, (void)v, (void)lo, (void)hi;
    return CAT_UNKNOWN;
}

/* The pieces without the absent page, as image and as page runs. */
static size_t present_pieces(const struct fixture *f, struct mem_image_piece *pieces,
                             struct page_run *runs)
{
    size_t n = 0;
    for (size_t i = 0; i < f->n_pieces; i++) {
        const struct fixture_piece *p = &f->pieces[i];
        uint64_t cut = f->absent >= p->addr && f->absent - p->addr < p->len ? f->absent : 0;
        uint64_t parts[2][2] = {{p->addr, cut ? cut : p->addr + p->len},
                                {cut ? cut + PAGE : 0, cut ? p->addr + p->len : 0}};
        for (int k = 0; k < 2; k++) {
            uint64_t lo = parts[k][0], hi = parts[k][1];
            if (lo >= hi)
                continue;
            pieces[n] = (struct mem_image_piece){lo, &f->bytes[p->at + (size_t)(lo - p->addr)],
                                                 (size_t)(hi - lo)};
            runs[n++] = (struct page_run){lo, hi};
        }
    }
    return n;
}

static void fixture_run(struct fixture *f, struct mem *mem, const struct residency *res,
                        struct fixture_result *r)
{
    struct vma_list list = {f->vmas, f->n_vmas};
    struct notes notes;
    struct blockmap map;
    snapshot_init(&r->snap);
    notes_init(&notes, &r->snap);
    blockmap_init(&map, res);
    for (size_t i = 0; i < f->n_vmas; i++) {
        f->vmas[i].rss = residency_bytes(res, f->vmas[i].start, f->vmas[i].end);
        r->mapped += f->vmas[i].end - f->vmas[i].start;
        r->present += f->vmas[i].rss;
    }
    struct listener listener = {f, r, 0};
    struct glibc_input in = {.mem = mem,
                             .vmas = &list,
                             .res = res,
                             .data = &f->data,
                             .n_data = 1,
                             .fs_bases = f->fs,
                             .n_threads = f->no_threads ? 0 : 2,
                             .chunk = on_chunk,
                             .chunk_ctx = r,
                             .used = on_used,
                             .used_ctx = &listener,
                             .layout_name = &r->layout};
    if (f->claimed_start < f->claimed_end &&
        blockmap_claim_one(&map, f->claimed_start, f->claimed_end, CAT_PYTHON_BLOCKS_USED, 1,
                           "pymalloc arena", NULL) < 0)
        assert(!"the fixture's own claim failed");
    if (f->before_walk)
        f->before_walk(f->fail_at);
    r->rc = glibc_walk(&in, &map, &r->snap, &notes, NULL);
    if (f->before_walk)
        f->before_walk(0);
    if (blockmap_settle(&map, &list, fallback, NULL, &r->snap, &notes, NULL) < 0)
        assert(!"settle failed");
    blockmap_release(&map);
}

void fixture_walk(struct fixture *f, struct fixture_result *r)
{
    struct mem_image_piece pieces[2 * FIXTURE_PIECES];
    struct page_run runs[2 * FIXTURE_PIECES];
    struct residency res;
    struct mem *mem;
    size_t n = present_pieces(f, pieces, runs);
    memset(r, 0, sizeof *r);
    if (residency_init(&res, runs, n, NULL) < 0 || mem_image_new(pieces, n, &mem, NULL) < 0)
        assert(!"no memory");
    fixture_run(f, mem, &res, r);
    mem_close(mem);
    residency_release(&res);
}

bool fixture_sums(const struct fixture_result *r)
{
    const struct snapshot_memory *m = &r->snap.memory;
    return m->mapped_bytes == r->mapped && tally_bytes(&m->tally) == r->mapped &&
           m->rss_bytes == r->present && tally_resident(&m->tally) == r->present;
}
