/* Checked arithmetic and little-endian loads. Header-only because each is one expression. */
#ifndef HEAPCENSUS_NUM_H
#define HEAPCENSUS_NUM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline bool add_overflows(uint64_t a, uint64_t b, uint64_t *sum)
{
    return __builtin_add_overflow(a, b, sum);
}

static inline bool mul_overflows(uint64_t a, uint64_t b, uint64_t *product)
{
    return __builtin_mul_overflow(a, b, product);
}

static inline uint64_t round_up(uint64_t v, uint64_t power_of_two)
{
    return (v + power_of_two - 1) & ~(power_of_two - 1);
}

static inline uint64_t round_down(uint64_t v, uint64_t power_of_two)
{
    return v & ~(power_of_two - 1);
}

static inline bool is_power_of_two(uint64_t v)
{
    return v && !(v & (v - 1));
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Target and host are both x86-64: the bytes are little-endian but may be unaligned. */
static inline uint64_t load_u64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t load_u32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint16_t load_u16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t load_be64(const void *p)
{
    return __builtin_bswap64(load_u64(p));
}

#endif
