/* Does this look like ...? Trial of bytes against a layout, before anything is believed. */
#include "formats/base/num.h"
#include "walker/glibc/internal.h"

enum { MOST_BAD = 4, SELF_MIN = 20, KNOWN_MIN = 100, MMAP_THRESHOLD_MAX = 32 << 20 };

/* Both neighbours of a list head point back to it. */
static bool linked(struct walk *w, uint64_t head, uint64_t fd, uint64_t bk)
{
    /* What a partial source lacks contradicts nothing. */
    uint64_t back = w->in->partial ? head : 0, forward = back;
    bool read = mem_u64(w->in->mem, fd + 24, &back, NULL) == 0 || w->in->partial;
    read = read && (mem_u64(w->in->mem, bk + 16, &forward, NULL) == 0 || w->in->partial);
    return read && back == head && forward == head;
}

static void probe_bin(struct walk *w, uint64_t head, const uint8_t *pair, bool follow,
                      struct state_fit *fit)
{
    uint64_t fd = load_u64(pair), bk = load_u64(pair + 8);
    if (fd == head && bk == head)
        fit->self++;
    else if (fd == head || bk == head || (fd | bk) & 15 || !vma_writable_at(w->in->vmas, fd) ||
             !vma_writable_at(w->in->vmas, bk))
        fit->bad++;
    else if (follow && linked(w, head, fd, bk))
        fit->linked++;
    else if (follow)
        fit->bad++;
}

struct state_fit probe_state(struct walk *w, const struct glibc_layout *l, const uint8_t *bytes,
                             uint64_t addr, bool follow)
{
    struct state_fit fit = {0, 0, 0};
    uint64_t top = glibc_layout_get(l, bytes, STATE_TOP);
    if (top & 15 || !vma_writable_at(w->in->vmas, top))
        fit.bad++;
    if (glibc_layout_get(l, bytes, STATE_SYSTEM_MEM) >
        glibc_layout_get(l, bytes, STATE_MAX_SYSTEM_MEM))
        fit.bad++;
    if (glibc_layout_get(l, bytes, STATE_ATTACHED) > 100000)
        fit.bad++;
    for (int i = 0; i < GLIBC_BINS && fit.bad < MOST_BAD; i++) {
        int offset = l->offset[STATE_BINS] + 16 * i;
        probe_bin(w, addr + (uint64_t)offset - 16, bytes + offset, follow, &fit);
    }
    return fit;
}

bool probe_convincing(struct walk *w, const struct glibc_layout *l, const uint8_t *bytes,
                      uint64_t addr, unsigned bad)
{
    struct state_fit fit = probe_state(w, l, bytes, addr, false);
    if (fit.bad > bad || fit.self == 0)
        return false;
    if (fit.self >= SELF_MIN && bad == 0)
        return true;
    /* Few empty bins: then the chunks of the others must point back. */
    fit = probe_state(w, l, bytes, addr, true);
    return fit.bad <= bad && fit.self + fit.linked >= KNOWN_MIN;
}

static bool par_possible(struct walk *w, const struct glibc_layout *l, const uint8_t *b)
{
    uint64_t threshold = glibc_layout_get(l, b, PAR_MMAP_THRESHOLD);
    uint64_t bins = glibc_layout_get(l, b, PAR_TCACHE_BINS),
             test = glibc_layout_get(l, b, PAR_ARENA_TEST);
    uint64_t max_bytes = glibc_layout_get(l, b, PAR_TCACHE_MAX_BYTES);
    uint64_t n = glibc_layout_get(l, b, PAR_N_MMAPS),
             most = glibc_layout_get(l, b, PAR_MAX_N_MMAPS);
    uint64_t mem = glibc_layout_get(l, b, PAR_MMAPPED_MEM),
             base = glibc_layout_get(l, b, PAR_SBRK_BASE);
    if (threshold == 0 || threshold > MMAP_THRESHOLD_MAX + GLIBC_PAGE || test == 0 || test > 100000)
        return false;
    if (bins == 0 || bins > TCACHE_SMALL_BINS || max_bytes < 24 || max_bytes > (4u << 20) + 64)
        return false;
    if (glibc_layout_get(l, b, PAR_TCACHE_COUNT) > 65535 || n > most || most > INT32_MAX ||
        glibc_layout_get(l, b, PAR_N_MMAPS_MAX) > INT32_MAX)
        return false;
    if (mem > glibc_layout_get(l, b, PAR_MAX_MMAPPED_MEM) ||
        mem & (l->mmapped_mem_drifts ? 15 : 4095))
        return false;
    if (!l->mmapped_mem_drifts && (n == 0) != (mem == 0))
        return false;
    return base == 0 || vma_writable_at(w->in->vmas, base);
}

int probe_par(struct walk *w, const struct glibc_layout *l, const uint8_t *bytes, uint64_t addr,
              const struct root *root)
{
    if (!par_possible(w, l, bytes))
        return 0;
    uint64_t base = glibc_layout_get(l, bytes, PAR_SBRK_BASE);
    if (base == 0 && glibc_layout_get(l, bytes, PAR_N_MMAPS_MAX) == 0)
        return 0;
    int score = 1;
    const struct vma *v = vma_at(w->in->vmas, base);
    if (v && vma_is_heapish(v))
        score += v->kind == VMA_HEAP ? 4 : 2;
    /* Both are in .data of one file; every build seen has mp_ 0x900 to 0x940 below. */
    if (addr < root->main && root->main - addr < GLIBC_PAGE)
        score += 2;
    return score;
}
