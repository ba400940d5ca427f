/* What diff and trend compare: a snapshot file, a process or a core, named by a word. */
#ifndef HEAPCENSUS_DIFF_INPUT_H
#define HEAPCENSUS_DIFF_INPUT_H

#include <stdbool.h>

#include "formats/base/err.h"
#include "formats/block_stream.h"
#include "formats/figures.h"
#include "formats/snapshot.h"
#include "inspector/cmd.h"

struct diff_input {
    const char *name;            /* as typed; borrowed */
    pid_t pid;                   /* 0: a file */
    char pid_name[32];           /* of one that was named by -p */
    struct snapshot snap;        /* without the blocks of a file */
    struct block_stream *stream; /* its blocks; NULL unless asked for */
    bool has_blocks;             /* the file has some */
};

/* The words of the command and, as the last one, what -p or -c named: how many there are. */
size_t diff_input_count(const struct options *opt);
/* Read the i-th of them; of a process or a core a census is taken, with what the comparison needs.
 * With `blocks` the blocks come as a stream. Errors as view_load's. The struct must stay where it
 * is until its release. */
int diff_input_open(const struct options *opt, size_t i, bool blocks, struct diff_input *ret,
                    struct err *err) MUST_CHECK;
void diff_input_release(struct diff_input *in);

/* --by as a key, also tracemalloc's own "filename" and "lineno"; *ret stays without --by. */
int diff_input_key(const struct options *opt, enum figure_key *ret, struct err *err) MUST_CHECK;

#endif
