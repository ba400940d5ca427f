/* The rows. Offsets from DWARF of Debian's libc6-dbg 2.31-13, 2.36-9, 2.41-12 and 2.43-7; the
 * releases between them from their source at the release tag, where the structures' text is equal.
 */
#include "walker/glibc/layout.h"

#include <assert.h>

#include "formats/base/num.h"

#define STATE_UPTO_2_42 .state_id = 0, .state_size = 2200
#define STATE_UPTO_2_42_FIELDS                                                                     \
    [STATE_FLAGS] = 4, [STATE_FASTBINS] = 16, [STATE_TOP] = 96, [STATE_BINS] = 112,                \
    [STATE_NEXT] = 2160, [STATE_ATTACHED] = 2176, [STATE_SYSTEM_MEM] = 2184,                       \
    [STATE_MAX_SYSTEM_MEM] = 2192

#define STATE_2_43 .state_id = 1, .state_size = 2112
#define STATE_2_43_FIELDS                                                                          \
    [STATE_FLAGS] = 4, [STATE_FASTBINS] = -1, [STATE_TOP] = 8, [STATE_BINS] = 24,                  \
    [STATE_NEXT] = 2072, [STATE_ATTACHED] = 2088, [STATE_SYSTEM_MEM] = 2096,                       \
    [STATE_MAX_SYSTEM_MEM] = 2104

#define PAR_UPTO_2_34 .par_id = 0, .par_size = 112, .heap_size = 32
#define PAR_UPTO_2_34_FIELDS                                                                       \
    [PAR_MMAP_THRESHOLD] = 16, [PAR_ARENA_TEST] = 24, [PAR_HP_PAGESIZE] = -1, [PAR_N_MMAPS] = 40,  \
    [PAR_N_MMAPS_MAX] = 44, [PAR_MAX_N_MMAPS] = 48, [PAR_MMAPPED_MEM] = 56,                        \
    [PAR_MAX_MMAPPED_MEM] = 64, [PAR_SBRK_BASE] = 72, [PAR_TCACHE_BINS] = 80,                      \
    [PAR_TCACHE_MAX_BYTES] = 88, [PAR_TCACHE_COUNT] = 96

#define PAR_UPTO_2_42 .par_id = 1, .par_size = 136, .heap_size = 48
#define PAR_UPTO_2_42_FIELDS                                                                       \
    [PAR_MMAP_THRESHOLD] = 16, [PAR_ARENA_TEST] = 24, [PAR_HP_PAGESIZE] = 48, [PAR_N_MMAPS] = 60,  \
    [PAR_N_MMAPS_MAX] = 64, [PAR_MAX_N_MMAPS] = 68, [PAR_MMAPPED_MEM] = 80,                        \
    [PAR_MAX_MMAPPED_MEM] = 88, [PAR_SBRK_BASE] = 96, [PAR_TCACHE_BINS] = 104,                     \
    [PAR_TCACHE_MAX_BYTES] = 112, [PAR_TCACHE_COUNT] = 120

#define PAR_2_43 .par_id = 2, .par_size = 144, .heap_size = 48
#define PAR_2_43_FIELDS                                                                            \
    [PAR_MMAP_THRESHOLD] = 16, [PAR_ARENA_TEST] = 24, [PAR_HP_PAGESIZE] = 56, [PAR_N_MMAPS] = 68,  \
    [PAR_N_MMAPS_MAX] = 72, [PAR_MAX_N_MMAPS] = 76, [PAR_MMAPPED_MEM] = 88,                        \
    [PAR_MAX_MMAPPED_MEM] = 96, [PAR_SBRK_BASE] = 104, [PAR_TCACHE_BINS] = 112,                    \
    [PAR_TCACHE_MAX_BYTES] = 120, [PAR_TCACHE_COUNT] = 128

#define HEAP_FIELDS [HEAP_ARENA] = 0, [HEAP_PREV] = 8, [HEAP_SIZE] = 16, [HEAP_MPROTECT_SIZE] = 24

#define TCACHE_BYTES                                                                               \
    .tcache = {.count_width = 1, .entries = 64, .bins = 64, .size = 576, .chunk_size = 0x250}
#define TCACHE_WORDS                                                                               \
    .tcache = {.count_width = 2,                                                                   \
               .entries = 128,                                                                     \
               .bins = 64,                                                                         \
               .size = 640,                                                                        \
               .chunk_size = 0x290,                                                                \
               .has_key = true}
#define TCACHE_SLOTS(span, mmapped)                                                                \
    .tcache = {.count_width = 2,                                                                   \
               .entries = 152,                                                                     \
               .bins = 76,                                                                         \
               .size = 760,                                                                        \
               .chunk_size = 0x300,                                                                \
               .chunk_span = span,                                                                 \
               .counts_down = true,                                                                \
               .has_key = true,                                                                    \
               .holds_mmapped = mmapped}

#define MMAP_OLD .mmap_tail = 0, .mmap_lead_mask = ~0ull
#define MMAP_2_43 .mmap_tail = 16, .mmap_lead_mask = ~1ull, .mmapped_mem_drifts = true

/* Newest first; where two rows cannot be told apart by anything in the target, either reads it. */
const struct glibc_layout glibc_layouts[GLIBC_LAYOUTS] = {
    {.name = "2.43",
     STATE_2_43,
     PAR_2_43,
     .safe_linking = true,
     MMAP_2_43,
     TCACHE_SLOTS(16, true),
     .offset = {STATE_2_43_FIELDS, PAR_2_43_FIELDS, HEAP_FIELDS}},
    {.name = "2.35-2.41",
     STATE_UPTO_2_42,
     PAR_UPTO_2_42,
     .safe_linking = true,
     .heap_max_follows_hp = true,
     MMAP_OLD,
     TCACHE_WORDS,
     .offset = {STATE_UPTO_2_42_FIELDS, PAR_UPTO_2_42_FIELDS, HEAP_FIELDS}},
    {.name = "2.42",
     STATE_UPTO_2_42,
     PAR_UPTO_2_42,
     .safe_linking = true,
     MMAP_OLD,
     TCACHE_SLOTS(0, false),
     .offset = {STATE_UPTO_2_42_FIELDS, PAR_UPTO_2_42_FIELDS, HEAP_FIELDS}},
    {.name = "2.32-2.34",
     STATE_UPTO_2_42,
     PAR_UPTO_2_34,
     .safe_linking = true,
     MMAP_OLD,
     TCACHE_WORDS,
     .offset = {STATE_UPTO_2_42_FIELDS, PAR_UPTO_2_34_FIELDS, HEAP_FIELDS}},
    {.name = "2.30-2.31",
     STATE_UPTO_2_42,
     PAR_UPTO_2_34,
     MMAP_OLD,
     TCACHE_WORDS,
     .offset = {STATE_UPTO_2_42_FIELDS, PAR_UPTO_2_34_FIELDS, HEAP_FIELDS}},
    {.name = "2.28-2.29",
     STATE_UPTO_2_42,
     PAR_UPTO_2_34,
     MMAP_OLD,
     TCACHE_BYTES,
     .offset = {STATE_UPTO_2_42_FIELDS, PAR_UPTO_2_34_FIELDS, HEAP_FIELDS}},
};

static const uint8_t widths[GLIBC_FIELDS] = {
#define FIELD(name, width, path) [name] = width,
#include "walker/glibc/fields.def"
#undef FIELD
};

bool glibc_layout_has(const struct glibc_layout *l, enum glibc_field f)
{
    return l->offset[f] >= 0;
}

uint64_t glibc_layout_get(const struct glibc_layout *l, const uint8_t *bytes, enum glibc_field f)
{
    assert(glibc_layout_has(l, f));
    const uint8_t *at = bytes + l->offset[f];
    return widths[f] == 8 ? load_u64(at) : load_u32(at);
}

const struct glibc_layout *glibc_layout_first(unsigned rows)
{
    for (int i = 0; i < GLIBC_LAYOUTS; i++)
        if (rows & 1u << i)
            return &glibc_layouts[i];
    return NULL;
}

int tcache_bin_of(const struct glibc_tcache *t, uint64_t size)
{
    if (size < 32 || size & 15)
        return -1;
    if (size < 32 + 16 * TCACHE_SMALL_BINS)
        return (int)((size - 32) / 16);
    if (size >= 4u << 20)
        return -1;
    /* Large bins double: 64 holds what is below 2 KiB, 75 what is below 4 MiB. */
    int bin = TCACHE_SMALL_BINS + __builtin_clz(32 + 16 * TCACHE_SMALL_BINS - 16) -
              __builtin_clz((unsigned)size);
    return bin < t->bins ? bin : -1;
}
