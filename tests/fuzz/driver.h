/* Fuzzing without libFuzzer: with -DFUZZ_MAIN this gives a main() that feeds a fuzzer's
 * LLVMFuzzerTestOneInput a deterministic sequence of pseudo-random inputs.
 *
 *     fuzz_x [ITERATIONS [SEED]]        run that many inputs (1000, 1)
 *     fuzz_x FILE...                    run these inputs, such as a crash that libFuzzer saved
 *
 * Inputs start from what fuzz_seed (below) gives, if the fuzzer has seeds, and are mutated: bytes,
 * words and runs are overwritten, the length is cut or grown. Include it last, in one .c file. */
#ifndef HEAPCENSUS_FUZZ_DRIVER_H
#define HEAPCENSUS_FUZZ_DRIVER_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef FUZZ_MAIN

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FUZZ_INPUT_MAX = 1 << 16 };

/* A fuzzer may define FUZZ_SEED to the name of a function that writes seed number `n` into buf (cap
 * bytes) and returns its length. */
#ifdef FUZZ_SEED
static size_t FUZZ_SEED(unsigned n, uint8_t *buf, size_t cap);
#endif

static uint64_t fuzz_state;

static uint64_t fuzz_draw(uint64_t below)
{
    fuzz_state ^= fuzz_state << 13;
    fuzz_state ^= fuzz_state >> 7;
    fuzz_state ^= fuzz_state << 17;
    return below ? fuzz_state % below : 0;
}

static void fuzz_mutate(uint8_t *buf, size_t len)
{
    static const uint64_t words[] = {0,          1,         8,          16,
                                     31,         32,        4096,       INT32_MAX,
                                     UINT32_MAX, INT64_MAX, UINT64_MAX, 0x4141414141414141};
    for (uint64_t n = fuzz_draw(16); n && len; n--) {
        size_t at = (size_t)fuzz_draw(len), run = (size_t)fuzz_draw(len - at < 64 ? len - at : 64);
        uint64_t word = words[fuzz_draw(sizeof words / sizeof words[0])];
        switch (fuzz_draw(4)) {
        case 0:
            buf[at] ^= (uint8_t)(1u << fuzz_draw(8));
            break;
        case 1:
            memset(buf + at, (int)fuzz_draw(256), run);
            break;
        case 2:
            memcpy(buf + at, &word, len - at < sizeof word ? len - at : sizeof word);
            break;
        default:
            memmove(buf + at, buf + fuzz_draw(len - run), run);
        }
    }
}

static size_t fuzz_input(unsigned n, uint8_t *buf)
{
    size_t len = 0;
#ifdef FUZZ_SEED
    len = n % 8 ? FUZZ_SEED(n, buf, FUZZ_INPUT_MAX) : 0;
#else
    (void)n;
#endif
    if (len == 0) {
        len = (size_t)fuzz_draw(fuzz_draw(4) ? 512 : FUZZ_INPUT_MAX);
        for (size_t i = 0; i < len; i++)
            buf[i] = (uint8_t)fuzz_draw(256);
    }
    fuzz_mutate(buf, len);
    if (fuzz_draw(8) == 0)
        len = (size_t)fuzz_draw(len + 1);
    return len;
}

/* Hand over a copy of exactly `len` bytes, so that the sanitizer sees reads behind its end. */
static void fuzz_run(const uint8_t *buf, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        abort();
    memcpy(copy, buf, len);
    LLVMFuzzerTestOneInput(copy, len);
    free(copy);
}

static int fuzz_files(int argc, char **argv, uint8_t *buf)
{
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (!f) {
            perror(argv[i]);
            return 2;
        }
        fuzz_run(buf, fread(buf, 1, FUZZ_INPUT_MAX, f));
        fclose(f);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static uint8_t buf[FUZZ_INPUT_MAX];
    char *end = NULL;
    unsigned long n = argc > 1 ? strtoul(argv[1], &end, 10) : 1000;
    if (end && *end)
        return fuzz_files(argc, argv, buf);
    fuzz_state =
        88172645463325252u ^ (argc > 2 ? strtoul(argv[2], NULL, 10) : 1) * 0x9e3779b97f4a7c15u;
    for (unsigned long i = 0; i < n; i++)
        fuzz_run(buf, fuzz_input((unsigned)i, buf));
    printf("%lu inputs\n", n);
    return 0;
}

#endif /* FUZZ_MAIN */
#endif
