/* formats/base: errors, sets, arrays, strings, checked arithmetic. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/addrset.h"
#include "formats/base/err.h"
#include "formats/base/num.h"
#include "formats/base/strpool.h"
#include "formats/base/vec.h"
#include "tests/lib/tap.h"

static void test_err(void)
{
    struct err e = ERR_INIT;
    ok(err_set(&e, ERR_CORRUPT, "chunk %d", 7) == ERR_CORRUPT && e.code == ERR_CORRUPT, "code");
    ok(strcmp(e.text, "chunk 7") == 0 && !e.remedy[0], "text");
    err_remedy(&e, "try %s", "again");
    ok(err_context(&e, ERR_CORRUPT, "arena %d", 12) == ERR_CORRUPT, "context keeps the code");
    ok(strcmp(e.text, "arena 12: chunk 7") == 0 && strcmp(e.remedy, "try again") == 0, "context");
    ok(err_os(&e, ENOENT, "cannot open %s", "x") == ERR_OS && e.os_errno == ENOENT, "errno");
    ok(strstr(e.text, "cannot open x: ") == e.text && !e.remedy[0], "its text, remedy gone");
    ok(err_fault(&e, 0x7f0000001000, "no") == ERR_FAULT && e.addr == 0x7f0000001000, "address");
    err_clear(&e);
    ok(!e.code && !e.text[0] && !e.addr, "cleared");
    ok(err_set(NULL, ERR_LIMIT, "x") == ERR_LIMIT && err_os(NULL, 1, "x") == ERR_OS &&
           err_fault(NULL, 1, "x") == ERR_FAULT && err_context(NULL, ERR_NOMEM, "x") == ERR_NOMEM,
       "nobody needs to listen");
    err_remedy(NULL, "x");
    err_clear(NULL);
}

static void test_err_long(void)
{
    struct err e = ERR_INIT;
    char big[2000];
    memset(big, 'a', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    int code = err_set(&e, ERR_FORMAT, "%s", big);
    for (int i = 0; i < 5; i++)
        code = err_context(&e, code, "%s", big);
    code = err_os(&e, EIO, "%s", big);
    err_remedy(&e, "%s", big);
    ok(code == ERR_OS && strlen(e.text) == sizeof e.text - 1 &&
           strlen(e.remedy) == sizeof e.remedy - 1,
       "texts are cut to their size");
}

static void test_addrset(void)
{
    struct addrset set;
    bool fresh;
    unsigned wrong = 0;
    addrset_init(&set);
    ok(!addrset_find(&set, 16) && !addrset_find(&set, 0), "empty");
    for (uint64_t i = 1; i <= 20000; i++) {
        wrong += addrset_add(&set, i * 4096, i, &fresh) < 0 || !fresh;
        wrong += addrset_add(&set, i * 4096, 0, &fresh) < 0 || fresh;
    }
    ok(wrong == 0 && set.n == 20000, "each key once");
    for (uint64_t i = 1; i <= 20000; i++) {
        uint64_t *v = addrset_find(&set, i * 4096);
        wrong += !v || *v != i || addrset_find(&set, i * 4096 + 8);
    }
    ok(wrong == 0, "found with the first value");
    ok(addrset_add(&set, UINT64_MAX, 5, NULL) == 0 && *addrset_find(&set, UINT64_MAX) == 5,
       "the highest address");
    *addrset_find(&set, 4096) = 77;
    ok(*addrset_find(&set, 4096) == 77, "a value can be changed");
    addrset_release(&set);
    ok(!set.n && !addrset_find(&set, 4096), "released");
}

static void test_strpool(void)
{
    struct strpool pool;
    char text[32];
    const char *first[2000];
    unsigned wrong = 0;
    strpool_init(&pool);
    for (int i = 0; i < 2000; i++) {
        snprintf(text, sizeof text, "name %d", i);
        first[i] = strpool_add(&pool, text);
        wrong += !first[i];
    }
    for (int i = 0; i < 2000; i++) {
        snprintf(text, sizeof text, "name %d", i);
        wrong += strpool_add(&pool, text) != first[i] || strcmp(first[i], text) != 0;
    }
    ok(wrong == 0 && pool.n == 2000, "equal strings are one");
    ok(strpool_add_n(&pool, "name 12345", 6) == first[1], "a part of a string");
    ok(strpool_add_n(&pool, "name 1\0x", 8) == first[1], "a NUL ends it");
    const char *empty = strpool_add_n(&pool, "abc", 0);
    ok(empty && !*empty && empty == strpool_add(&pool, ""), "the empty string");
    char *big = malloc(300000);
    memset(big, 'b', 299999);
    big[299999] = '\0';
    const char *kept = strpool_add(&pool, big);
    ok(kept && strcmp(kept, big) == 0 && strpool_add(&pool, big) == kept, "a long string");
    ok(strcmp(strpool_add(&pool, "after"), "after") == 0, "and one after it");
    free(big);
    strpool_release(&pool);
    ok(!pool.n && !pool.chunks, "released");
}

static void test_vec(void)
{
    uint32_t *items = NULL;
    size_t cap = 0;
    unsigned wrong = 0;
    for (uint32_t i = 0; i < 10000; i++) {
        wrong += vec_reserve(&items, &cap, i + 1, sizeof *items) < 0;
        items[i] = i;
    }
    for (uint32_t i = 0; i < 10000; i++)
        wrong += items[i] != i;
    ok(wrong == 0 && cap >= 10000, "grows");
    uint32_t *old = items;
    size_t old_cap = cap;
    ok(vec_reserve(&items, &cap, 5, sizeof *items) == 0 && items == old, "enough is enough");
    ok(vec_reserve(&items, &cap, SIZE_MAX, sizeof *items) == ERR_NOMEM && items == old &&
           cap == old_cap,
       "too many elements");
    ok(vec_reserve(&items, &cap, SIZE_MAX / 4, sizeof *items) == ERR_NOMEM && items == old,
       "too many bytes");
    free(items);
}

static void test_num(void)
{
    uint64_t r;
    static const unsigned char bytes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    ok(!add_overflows(UINT64_MAX, 0, &r) && r == UINT64_MAX, "largest sum");
    ok(add_overflows(UINT64_MAX, 1, &r), "sum too large");
    ok(!mul_overflows(1ull << 32, 1ull << 31, &r) && r == 1ull << 63, "product");
    ok(mul_overflows(1ull << 32, 1ull << 32, &r), "product too large");
    ok(round_up(4097, 4096) == 8192 && round_up(4096, 4096) == 4096 && round_up(0, 16) == 0, "up");
    ok(round_down(4097, 4096) == 4096 && round_down(15, 16) == 0, "down");
    ok(is_power_of_two(1) && is_power_of_two(1ull << 63) && !is_power_of_two(0) &&
           !is_power_of_two(12),
       "powers of two");
    ok(min_u64(1, 2) == 1 && max_u64(1, UINT64_MAX) == UINT64_MAX, "least and most");
    ok(load_u64(bytes + 1) == 0x0908070605040302 && load_u32(bytes + 1) == 0x05040302 &&
           load_u16(bytes + 1) == 0x0302 && load_be64(bytes) == 0x0102030405060708,
       "unaligned loads");
}

int main(void)
{
    test_err();
    test_err_long();
    test_addrset();
    test_strpool();
    test_vec();
    test_num();
    return done_testing();
}
