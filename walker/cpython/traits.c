/* What members mean, by minor. A new minor is one row here: copy the row before it and change what
 * changed. */
#include "walker/cpython/layout.h"

enum { KIB = 1024, MIB = 1024 * 1024, NO_OWNER = 0xff };

#define POOLS_SMALL .pool_size = 4 * KIB, .arena_size = 256 * KIB, .arena_size_max = 256 * KIB
#define POOLS_LARGE .pool_size = 16 * KIB, .arena_size = 1 * MIB
#define RADIX(top, mid, bot) .radix_top_bits = top, .radix_mid_bits = mid, .radix_bot_bits = bot
#define OWNERS(generator, shim) .frame_owner_generator = generator, .frame_owner_shim = shim

static const struct layout_traits rows[] = {
    {
        .minor = 8,
        POOLS_SMALL,
        .tracemalloc_domain_in_key = true,
        .hashtable_inline = true,
        .frame_lasti_scale = 1,
        OWNERS(NO_OWNER, NO_OWNER),
        .str_legacy = true,
    },
    {
        .minor = 9,
        POOLS_SMALL,
        .frame_lasti_scale = 1,
        OWNERS(NO_OWNER, NO_OWNER),
        .str_legacy = true,
    },
    {
        .minor = 10,
        POOLS_LARGE,
        .arena_size_max = 1 * MIB,
        RADIX(10, 10, 8),
        .frame_lasti_scale = 2,
        OWNERS(NO_OWNER, NO_OWNER),
        .lines = LINES_RANGES,
        .str_legacy = true,
        .freelists = FREELISTS_ARRAYS,
    },
    {
        .minor = 11,
        POOLS_LARGE,
        .arena_size_max = 1 * MIB,
        RADIX(15, 15, 14),
        .frame = FRAME_CFRAME,
        OWNERS(1, 3),
        .lines = LINES_LOCATIONS,
        .dict_keys = KEYS_LOG2,
        .dict_values = VALUES_PREFIX,
        .managed = MANAGED_TWO_WORDS,
        .str_legacy = true,
        .freelists = FREELISTS_ARRAYS,
        .static_heads = true,
    },
    {
        .minor = 12,
        POOLS_LARGE,
        .arena_size_max = 1 * MIB,
        RADIX(15, 15, 14),
        .obmalloc = OBMALLOC_INLINE,
        .tracemalloc = TRACEMALLOC_RUNTIME,
        .frame = FRAME_CFRAME,
        OWNERS(1, 3),
        .lines = LINES_LOCATIONS,
        .dict_keys = KEYS_LOG2,
        .dict_values = VALUES_PREFIX,
        .managed = MANAGED_TAGGED,
        .managed_weakref = true,
        .immortal = IMMORTAL_LOW_NEG,
        .int_tagged = true,
        .freelists = FREELISTS_ARRAYS,
        .static_heads = true,
    },
    {
        .minor = 13,
        POOLS_LARGE,
        .arena_size_max = 1 * MIB,
        RADIX(15, 15, 14),
        .obmalloc = OBMALLOC_POINTER,
        .tracemalloc = TRACEMALLOC_RUNTIME,
        .frame = FRAME_INTERNAL,
        OWNERS(1, 3),
        .lines = LINES_LOCATIONS,
        .dict_keys = KEYS_LOG2,
        .dict_values = VALUES_HEADER,
        .managed = MANAGED_DICT_INLINE,
        .managed_weakref = true,
        .immortal = IMMORTAL_LOW_NEG,
        .int_tagged = true,
        .freelists = FREELISTS_ARRAYS,
        .mimalloc = MIMALLOC_21,
        .debug_offsets = true,
    },
    {
        .minor = 14,
        POOLS_LARGE,
        .arena_size_max = 1 * MIB,
        RADIX(15, 15, 14),
        .obmalloc = OBMALLOC_POINTER,
        .tracemalloc = TRACEMALLOC_RUNTIME,
        .frame = FRAME_INTERNAL,
        OWNERS(1, 3),
        .stack_refs_tagged = true,
        .lines = LINES_LOCATIONS,
        .dict_keys = KEYS_LOG2,
        .dict_values = VALUES_HEADER,
        .managed = MANAGED_DICT_INLINE,
        .managed_weakref = true,
        .immortal = IMMORTAL_HIGH_BIT,
        .int_tagged = true,
        .freelists = FREELISTS_CHAINS,
        .mimalloc = MIMALLOC_22,
        .debug_offsets = true,
    },
    {
        .minor = 15,
        POOLS_LARGE,
        .arena_size_max = 2 * MIB,
        RADIX(15, 15, 14),
        .obmalloc = OBMALLOC_POINTER,
        .tracemalloc = TRACEMALLOC_RUNTIME,
        .tracemalloc_filename_utf8 = true,
        .frame = FRAME_INTERNAL,
        OWNERS(1, 3),
        .stack_refs_tagged = true,
        .lines = LINES_LOCATIONS,
        .dict_keys = KEYS_LOG2,
        .dict_values = VALUES_HEADER,
        .managed = MANAGED_DICT_INLINE,
        .managed_weakref = true,
        .immortal = IMMORTAL_HIGH_BIT,
        .int_tagged = true,
        .freelists = FREELISTS_CHAINS,
        .mimalloc = MIMALLOC_22,
        .debug_offsets = true,
    },
};

const struct layout_traits *layout_traits(unsigned minor)
{
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].minor == minor)
            return &rows[i];
    return NULL;
}
