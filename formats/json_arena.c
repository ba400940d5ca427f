#include "formats/json_arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 64 * 1024, ALIGNMENT = 16 };

struct json_arena_chunk {
    struct json_arena_chunk *next;
    size_t used, cap;
    _Alignas(ALIGNMENT) char bytes[];
};

/* The arena of the parse in progress: jansson's allocation functions have no argument for it. */
static struct json_arena *current;

void json_arena_init(struct json_arena *arena)
{
    memset(arena, 0, sizeof *arena);
}

/* Free the chunks; the oldest may stay, empty, for the next line. */
static void drop_chunks(struct json_arena *arena, bool keep_oldest)
{
    struct json_arena_chunk *c = arena->chunks;
    while (c && (c->next || !keep_oldest)) {
        struct json_arena_chunk *next = c->next;
        arena->total -= c->cap;
        free(c);
        c = next;
    }
    arena->chunks = c;
    if (c)
        c->used = 0;
}

void json_arena_release(struct json_arena *arena)
{
    drop_chunks(arena, false);
}

static struct json_arena_chunk *add_chunk(struct json_arena *arena, size_t need)
{
    size_t cap = need > CHUNK_BYTES ? need : CHUNK_BYTES;
    if (cap > JSON_ARENA_MAX - arena->total) {
        arena->why = ERR_FORMAT;
        return NULL;
    }
    struct json_arena_chunk *c = malloc(sizeof *c + cap);
    if (!c) {
        arena->why = ERR_NOMEM;
        return NULL;
    }
    c->next = arena->chunks;
    c->used = 0;
    c->cap = cap;
    arena->total += cap;
    return arena->chunks = c;
}

/* For jansson: never returns NULL. */
static void *arena_malloc(size_t size)
{
    struct json_arena *arena = current;
    struct json_arena_chunk *c = arena->chunks;
    size_t need = size > JSON_ARENA_MAX ? size : (size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
    if (!c || c->cap - c->used < need)
        c = add_chunk(arena, need);
    if (!c)
        longjmp(arena->out_of_memory, 1);
    c->used += need;
    return c->bytes + c->used - need;
}

static void arena_free(void *p)
{
    (void)p; /* goes with the arena */
}

/* Apart from the caller, so that no local variable is live across the jump. */
static int parse(struct json_arena *arena, const char *text, size_t len, json_t **ret,
                 json_error_t *why)
{
    if (setjmp(arena->out_of_memory))
        return arena->why;
    *ret = json_loadb(text, len, JSON_REJECT_DUPLICATES, why);
    return 0;
}

int json_arena_parse(struct json_arena *arena, const char *text, size_t len, json_t **ret,
                     json_error_t *why, struct err *err)
{
    json_malloc_t old_malloc;
    json_free_t old_free;
    drop_chunks(arena, true);
    memset(why, 0, sizeof *why);
    json_get_alloc_funcs(&old_malloc, &old_free);
    json_set_alloc_funcs(arena_malloc, arena_free);
    current = arena;
    int rc = parse(arena, text, len, ret, why);
    current = NULL;
    json_set_alloc_funcs(old_malloc, old_free);
    if (rc == ERR_FORMAT)
        return err_set(err, ERR_FORMAT, "the line needs more than %d MiB of memory",
                       JSON_ARENA_MAX >> 20);
    if (rc < 0)
        return err_set(err, ERR_NOMEM, "no memory for a line of %zu bytes", len);
    return 0;
}
