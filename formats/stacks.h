/* A source of stacks: what flame graphs and profiles are made of, whatever the stacks are. Today
 * they are the call stacks of allocations (stacks_of_sites); writers (export.h) know no more than
 * this interface.
 *
 * A source is read several times, from the front each time: stacks_rewind, then stacks_next until
 * false.
 */
#ifndef HEAPCENSUS_STACKS_H
#define HEAPCENSUS_STACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/snapshot.h"

enum { STACK_LABELS = 3 };

struct stack_label {
    const char *key;
    const char *text; /* NULL: the number */
    uint64_t number;
};

struct stack {
    const uint32_t *frames; /* numbers of frames, the leaf (most recent call) first */
    uint32_t n;             /* at least one */
    uint64_t count, bytes;
    struct stack_label labels[STACK_LABELS];
    size_t n_labels;
};

struct stacks {
    const char *title; /* what the weights are, for people: "memory by allocation site" */
    uint32_t n_frames; /* frames are numbered from 0 */
    bool (*next)(struct stacks *s, struct stack *ret);
    void (*rewind)(struct stacks *s);
    /* Its texts live as long as the source. */
    struct snapshot_frame (*frame)(const struct stacks *s, uint32_t number);
};

static inline bool stacks_next(struct stacks *s, struct stack *ret)
{
    return s->next(s, ret);
}

static inline void stacks_rewind(struct stacks *s)
{
    s->rewind(s);
}

static inline struct snapshot_frame stacks_frame(const struct stacks *s, uint32_t number)
{
    return s->frame(s, number);
}

/* What tracemalloc itself shows where it has no traceback: one frame, line 0. */
extern const struct snapshot_frame stacks_no_frame;

/* The sites of a snapshot (borrowed), labelled with type, kind and domain. `keep` (borrowed; NULL:
 * all) has a byte for each site: 0 leaves it out. */
struct site_stacks {
    struct stacks stacks;
    const struct snapshot *snap;
    const uint8_t *keep;
    size_t at;
    uint32_t unknown; /* the number of stacks_no_frame */
};

void site_stacks_init(struct site_stacks *s, const struct snapshot *snap, const uint8_t *keep);

/* "line" of a name as flame graphs show it, cut to `cap`: the part that tells most comes first, as
 * long names are cut at the end; nothing is lost, so different frames keep different names.
 *     load (app/db.py:12)       where the function is known
 *     db.py:12 (app)            where it is not
 * Returns the length; buf is NUL-terminated. */
size_t stack_frame_name(const struct snapshot_frame *f, char *buf, size_t cap);

#endif
