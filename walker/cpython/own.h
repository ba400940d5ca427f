/* Between the files that say what objects own: kinds.c, owners.c, own.c, freelists.c,
 * runtime_owned.c, extension.c. Everybody else needs only objects.h. */
#ifndef HEAPCENSUS_CPYTHON_OWN_H
#define HEAPCENSUS_CPYTHON_OWN_H

#include "walker/cpython/objects.h"

/* Bits of tp_flags. */
enum {
    TYPE_INLINE_VALUES = 1 << 2,
    TYPE_MANAGED_DICT = 1 << 4,
    TYPE_HEAPTYPE = 1 << 9,
    TYPE_HAVE_GC = 1 << 14
};

/* A field of the structure at `base` in the target; false when absent or not readable. */
bool objects_field(struct objects *o, uint64_t base, enum layout_field field, uint64_t *ret);
/* a + n * each, or 0 when that is more than any block can be. */
uint64_t bytes_of(uint64_t a, uint64_t n, uint64_t each);

/* A keys table of dictionaries. */
struct dict_keys {
    uint64_t bytes;  /* of its block */
    uint64_t slots;  /* values that a dictionary which shares it has room for */
    uint64_t refcnt; /* dictionaries (and a type) that use it */
};
bool dict_keys_read(struct objects *o, uint64_t keys, struct dict_keys *ret);

/* What a str has besides itself; 0: it does not. */
struct str_parts {
    uint64_t self; /* bytes of the object with what lies in it */
    uint64_t data, data_bytes;
    uint64_t utf8, utf8_bytes;
    uint64_t wstr, wstr_bytes;
};
bool str_parts_read(struct objects *o, uint64_t obj, struct str_parts *ret);

/* What code has besides itself. The bytes of what is no member of any layout are as sizeof told
 * them on each release. */
enum { CODE_PARTS = 8 };
struct code_parts {
    struct {
        uint64_t addr, bytes; /* bytes 0: not known */
        bool counted;         /* code.__sizeof__ counts it */
    } part[CODE_PARTS];
    size_t n;
};
void code_parts_read(struct objects *o, uint64_t obj, struct code_parts *ret);

/* The fields of numpy's PyArrayObject that say what it owns (extension.c). */
void ndarray_buffers(struct objects *o, const struct type_info *t, uint64_t obj, buffer_fn emit,
                     void *ctx);

/* The index of the static type of exactly this name; BLOCK_NO_TYPE if none was met (own.c). */
uint32_t types_named(const struct objects *o, const char *name);
/* Addresses between which all blocks lie: a quick no for most words (own.c). */
struct blocks_span {
    uint64_t start, end;
};
struct blocks_span blocks_span(const struct blocks *b);
/* Type of a BLOCK_RUNTIME that points to nothing which is not known. No index of a type. */
enum { BLOCK_LEAF = BLOCK_NO_TYPE - 1 };

/* addr, within the block, is where the program sees it begin (own.c). */
bool block_begins_at(const struct blocks *b, const struct block_place *place, uint64_t addr);
/* The block in use which the program sees begin at addr, as an allocator of Python's or malloc
 * returned it (own.c). */
bool block_begins(const struct blocks *b, const struct blocks_span *span, uint64_t addr,
                  struct block_hit *ret);
/* The slot of the unowned block which the program sees begin at addr, or SIZE_MAX (own.c). */
size_t unowned_at(const struct objects *o, const struct blocks_span *span, uint64_t addr);

/* ---- claims: buffers to their owners, in parts (own.c) ---- */

/* How the blocks are divided among workers: part i has the runs from run[i] to run[i + 1] and the
 * chunks from chunk[i] to chunk[i + 1]; slots alike. */
enum { MAX_PARTS = 8 };
struct parting {
    size_t n;
    size_t run[MAX_PARTS + 1], chunk[MAX_PARTS + 1];
    size_t run_slot[MAX_PARTS + 1], chunk_slot[MAX_PARTS + 1];
};
void parting_make(const struct blocks *b, size_t slots_each, struct parting *ret);

/* A claim of a block in another part, left for later. */
struct claim_later {
    uint32_t slot, owner, type;
};

struct claims {
    struct objects *o;
    struct blocks_span span;
    const struct parting *parting;
    size_t part;
    struct {
        struct claim_later *items;
        size_t n, cap;
    } later[MAX_PARTS]; /* by the part that the block is in */
    bool no_memory;
    uint64_t conflicts, conflict_bytes, conflict_at;
    size_t slot; /* the owner at hand */
    uint32_t type;
};

void claims_init(struct claims *c, struct objects *o, const struct parting *p, size_t part);
void claims_release(struct claims *c);
/* An object of that type in the slot: it was recognised, so nobody else owns its block; and its
 * buffers are its own. For the part's blocks in the order of addresses. */
void claims_object(struct claims *c, size_t slot, uint32_t type, uint64_t obj);
/* Decide over what other parts claimed of this one, once all have looked at their blocks. The types
 * are now those of `o`; map: from the others' indices, NULL if they are the same. */
void claims_settle(struct claims *c, struct objects *o, const struct claims *from,
                   const uint32_t *map);
/* Instances of the type may own anything that kind_buffers knows. */
bool type_owns(const struct objects *o, const struct type_info *t);

#endif
