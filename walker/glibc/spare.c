/* What a census does not need of large mmapped chunks: everything but their headers. Said before
 * the heap is walked, so that whoever copies the target can leave a 10 GiB array where it is. */
#include "formats/base/num.h"
#include "walker/glibc/internal.h"

/* Size word of a chunk: bit 1 alone says mmapped. From 2.43 on the mapping is 16 bytes longer than
 * the size says. */
static uint64_t mmapped_total(const uint8_t *header)
{
    uint64_t prev = load_u64(header), word = load_u64(header + 8);
    uint64_t size = word & ~(uint64_t)CHUNK_FLAGS;
    if ((prev & ~(uint64_t)1) != 0 || (word & CHUNK_FLAGS) != CHUNK_IS_MMAPPED)
        return 0;
    if (size % GLIBC_PAGE == 0)
        return size;
    return (size + 16) % GLIBC_PAGE == 0 ? size + 16 : 0;
}

/* The pages that the walk of an mmapped chunk looks at (mmapped.c, find_inner): the first two, and
 * the one before each power-of-two distance, where memalign puts a header. All others are spare. */
static int spare_of_chunk(uint64_t block, uint64_t total, glibc_spare_fn fn, void *ctx)
{
    uint64_t at = block + 2 * GLIBC_PAGE, end = block + total;
    for (uint64_t align = 2 * GLIBC_PAGE; align < total; align *= 2) {
        uint64_t header = round_up(block + 16, align) - 16;
        if (header - block < CHUNK_MIN)
            header += align;
        uint64_t page = round_down(header, GLIBC_PAGE);
        if (page >= end)
            continue;
        if (page > at) {
            int rc = fn(ctx, at, page);
            if (rc < 0)
                return rc;
        }
        at = max_u64(at, page + GLIBC_PAGE);
    }
    return at < end ? fn(ctx, at, end) : 0;
}

int glibc_spare(struct mem *mem, const struct vma_list *vmas, uint64_t start, uint64_t end,
                glibc_spare_fn fn, void *ctx)
{
    uint64_t limit = vma_heapish_end(vmas, start);
    if (limit < end)
        end = limit;
    while (start < end && start % GLIBC_PAGE == 0) {
        uint8_t header[CHUNK_HEADER];
        if (mem_read_some(mem, start, header, sizeof header) < sizeof header)
            break;
        uint64_t total = mmapped_total(header);
        if (!total || total > end - start)
            break;
        if (total >= GLIBC_SPARE_MIN) {
            int rc = spare_of_chunk(start, total, fn, ctx);
            if (rc < 0)
                return rc;
        }
        start += total;
    }
    return 0;
}
