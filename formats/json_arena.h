/* Parses one JSON text after the other into memory of its own. Internal to json_*.c.
 *
 * jansson's parser is not safe when memory runs out: within a string it ignores a failed growth of
 * its buffer and then runs over the end of what it has. So it gets its memory here: an allocation
 * that cannot be met never returns to it, and the whole tree goes at once. That also bounds the
 * memory that a hostile line may cost, and makes trees cheap.
 *
 * jansson's allocation functions are one set per process: two threads must not parse at the same
 * time. They are put back after each parse.
 */
#ifndef HEAPCENSUS_JSON_ARENA_H
#define HEAPCENSUS_JSON_ARENA_H

#include <jansson.h>
#include <setjmp.h>
#include <stddef.h>

#include "formats/base/err.h"

/* The lines that we write need less than 10 MiB. */
enum { JSON_ARENA_MAX = 256 * 1024 * 1024 };

struct json_arena {
    struct json_arena_chunk *chunks; /* newest first */
    size_t total;                    /* bytes of all chunks */
    jmp_buf out_of_memory;
    int why;
};

void json_arena_init(struct json_arena *arena);
void json_arena_release(struct json_arena *arena);

/* *ret is NULL when the text is not JSON (`why` tells), else a tree that lives until the next parse
 * or the release; never json_decref it. ERR_NOMEM, or ERR_FORMAT for a text
 * that would need more than JSON_ARENA_MAX. */
int json_arena_parse(struct json_arena *arena, const char *text, size_t len, json_t **ret,
                     json_error_t *why, struct err *err) MUST_CHECK;

#endif
