/* The keys of statistics as small numbers: names of files, lines of files and lists of lines, each
 * counted from 0 in the order of their first use. Equal keys have equal numbers, also across the
 * snapshots that share the tables. Names are borrowed from the snapshots. */
#ifndef HEAPCENSUS_SITE_KEYS_H
#define HEAPCENSUS_SITE_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/snapshot.h"

/* Open addressing over hashes; what the numbers stand for is the owner's. */
struct site_table {
    uint32_t *slots;  /* number + 1; 0: free */
    uint64_t *hashes; /* by number */
    size_t n, n_slots, cap;
};

struct site_line {
    uint32_t file, line;
};

struct site_stack {
    const uint32_t *frames; /* the snapshot's ... */
    const uint32_t *lines;  /* ... and what line each of its frames is */
    uint32_t n;
};

struct site_keys {
    struct site_table files, lines, stacks;
    const char **file_items;
    size_t cap_files;
    struct site_line *line_items;
    size_t cap_lines;
    struct site_stack *stack_items;
    size_t cap_stacks;
    uint32_t *line_ranks; /* site_keys_rank() */
};

void site_keys_init(struct site_keys *k);
void site_keys_release(struct site_keys *k);
/* The number of a key, a new one where it was never seen. ERR_NOMEM. */
int site_keys_file(struct site_keys *k, const char *name, uint32_t *ret,
                   struct err *err) MUST_CHECK;
int site_keys_line(struct site_keys *k, const char *name, uint32_t line, uint32_t *ret,
                   struct err *err) MUST_CHECK;
/* `frames` and `lines` (of each frame of the snapshot) must live as long as k. */
int site_keys_stack(struct site_keys *k, const uint32_t *frames, uint32_t n, const uint32_t *lines,
                    uint32_t *ret, struct err *err) MUST_CHECK;

/* Before the comparisons: put all lines into order. ERR_NOMEM. */
int site_keys_rank(struct site_keys *k, struct err *err) MUST_CHECK;
/* As Python compares the tracebacks of two keys: by name, line, the oldest frame first. */
int site_keys_compare_lines(const struct site_keys *k, uint32_t a, uint32_t b);
/* A number that orders stacks by their two oldest frames. */
uint64_t site_keys_stack_head(const struct site_keys *k, uint32_t stack);
int site_keys_compare_stacks(const struct site_keys *k, uint32_t a, uint32_t b);

#endif
