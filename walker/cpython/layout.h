/* Where the members of CPython's structures lie, as data: one table per release and build flavour.
 *
 * A field is named once, in fields.def, with its DWARF path; layouts/py3_*.c hold the offsets,
 * written by `layoutgen`. Code asks for a field by name and never knows the version; a field that a
 * version does not have is an error that says so. Whether a member exists (layout_has) and what it
 * means (layout_traits) are the only two ways in which behaviour depends on the Python version.
 *
 * Everything is bytes, offsets are from the start of the structure named in fields.def. Addresses
 * are the target's. Layouts and traits are constants; nothing here is owned by the caller.
 *
 * Known peculiarities, so that nobody finds them the hard way:
 *  - Offsets differ between micro releases of one minor: 3.13.1 or later gave PyGC_Head an
 *    alignment of 4 bytes, so the generation heads moved from +24 to +20 of the GC state; the
 *    tracemalloc state and the embedded main interpreter move too. Look at `exact` of layout_find.
 *  - sizeof(_PyRuntimeState) and _PyThreadStateImpl depend on the JIT build option.
 *  - Under free threading PyObject is 32 bytes and there are no GC heads, lists or pymalloc pools
 *    in use.
 *  - Statics in .data and .bss (usedpools, arenas, ... of 3.8-3.11) are roots, not layout.
 */
#ifndef HEAPCENSUS_CPYTHON_LAYOUT_H
#define HEAPCENSUS_CPYTHON_LAYOUT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/base/num.h"
#include "walker/mem.h"

/* LF_pool_freeblock and so on: one per row of fields.def. */
enum layout_field {
#define FIELD(name, ...) LF_##name,
#define SIZEOF(name, ...) LF_##name,
#include "walker/cpython/fields.def"
#undef FIELD
#undef SIZEOF
    LF_COUNT
};

enum layout_kind {
    LAYOUT_ABSENT,   /* this version has no such member; the offset is -1 */
    LAYOUT_VALUE,    /* integer, enumeration or floating point number */
    LAYOUT_POINTER,  /* data or function pointer: an address of the target */
    LAYOUT_EMBEDDED, /* a structure or union of more than one member, by value */
    LAYOUT_SIZE      /* a SIZEOF row: `offset` holds the size of the structure */
};

/* A structure that only wraps one member (_PyStackRef, PyMutex, _Py_atomic_int) counts as that
 * member. For an array, kind and width are those of one element; element i lies at
 * offset + i * width. */
struct layout_slot {
    int32_t offset; /* -1: absent */
    uint32_t width; /* of one element */
    uint32_t count; /* elements of an array; 1 if not an array, 0 for a flexible array */
    uint8_t kind;   /* enum layout_kind */
    uint8_t shift;  /* bit fields: of the width bytes at offset, right shift ... */
    uint8_t bits;   /* ... and number of bits; 0: not a bit field */
};

struct layout {
    const char *name;    /* "3.13.5" */
    uint32_t hexversion; /* as PY_VERSION_HEX */
    bool debug, free_threaded;
    const char *source; /* "table py3_13_0", "DWARF of libpython3.13.so.1.0" */
    struct layout_slot slots[LF_COUNT];
};

/* The field's name, as in fields.def ("pool_freeblock"). */
const char *layout_field_name(enum layout_field field);
/* What is asked for millions of objects is inline. */
static inline bool layout_has(const struct layout *l, enum layout_field field)
{
    return (unsigned)field < LF_COUNT && l->slots[field].kind != LAYOUT_ABSENT;
}

/* Offset of a field. The field must be there (layout_has): asking for an absent one is a bug. */
static inline uint64_t layout_offset(const struct layout *l, enum layout_field field)
{
    assert(layout_has(l, field));
    return (uint64_t)l->slots[field].offset;
}

/* The size of a SIZEOF row, or the bytes of a field (width * count); 0 when absent. */
static inline uint64_t layout_size(const struct layout *l, enum layout_field field)
{
    if (!layout_has(l, field))
        return 0;
    const struct layout_slot *slot = &l->slots[field];
    if (slot->kind == LAYOUT_SIZE)
        return (uint64_t)slot->offset;
    return (uint64_t)slot->width * slot->count;
}

/* 0, or ERR_UNSUPPORTED naming the field and the release. For code that needs several fields and
 * wants to say so before it starts. */
int layout_require(const struct layout *l, enum layout_field field, struct err *err) MUST_CHECK;

/* Read the field of the structure at `base` from the target: 1, 2, 4 or 8 bytes, zero-extended, bit
 * fields extracted; the first element of an array. ERR_UNSUPPORTED when absent or not a number;
 * ERR_FAULT when the bytes are not there. */
int layout_u64(const struct layout *l, struct mem *mem, uint64_t base, enum layout_field field,
               uint64_t *ret, struct err *err) MUST_CHECK;
/* As layout_u64, sign-extended (bit fields are taken as unsigned). */
int layout_i64(const struct layout *l, struct mem *mem, uint64_t base, enum layout_field field,
               int64_t *ret, struct err *err) MUST_CHECK;

static inline bool layout_slot_is_number(const struct layout_slot *slot)
{
    return (slot->kind == LAYOUT_VALUE || slot->kind == LAYOUT_POINTER) &&
           (slot->width == 1 || slot->width == 2 || slot->width == 4 || slot->width == 8);
}

/* The field is there and an integer or a pointer of 1, 2, 4 or 8 bytes. */
static inline bool layout_is_number(const struct layout *l, enum layout_field field)
{
    return layout_has(l, field) && layout_slot_is_number(&l->slots[field]);
}

/* `bytes`: those of the field itself. */
static inline uint64_t layout_slot_load(const struct layout_slot *slot, const uint8_t *bytes)
{
    uint64_t v;
    /* A constant width each: a call of memcpy would cost more than all the rest. */
    switch (slot->width) {
    case 8:
        v = load_u64(bytes);
        break;
    case 4:
        v = load_u32(bytes);
        break;
    case 2:
        v = load_u16(bytes);
        break;
    default:
        v = bytes[0];
    }
    if (slot->bits && slot->shift < 64) {
        v >>= slot->shift;
        if (slot->bits < 64)
            v &= ((uint64_t)1 << slot->bits) - 1;
    }
    return v;
}

static inline uint64_t layout_load_at(const struct layout *l, const uint8_t *bytes,
                                      enum layout_field field)
{
    assert(layout_is_number(l, field));
    return layout_slot_load(&l->slots[field], bytes);
}

/* The same from a copy: `window` holds the structure's bytes from its start. The caller has checked
 * layout_has and that the window reaches over the field (layout_end). */
static inline uint64_t layout_load(const struct layout *l, const uint8_t *window,
                                   enum layout_field field)
{
    assert(layout_is_number(l, field));
    return layout_slot_load(&l->slots[field], window + l->slots[field].offset);
}
int64_t layout_load_signed(const struct layout *l, const uint8_t *window, enum layout_field field);

/* The first byte behind the field's first element: how long a window must be; 0 when absent. */
static inline uint64_t layout_end(const struct layout *l, enum layout_field field)
{
    if (!layout_has(l, field) || l->slots[field].kind == LAYOUT_SIZE)
        return 0;
    return (uint64_t)l->slots[field].offset + l->slots[field].width;
}

/* The table for a release: same minor and flavour, nearest micro. *exact (may be NULL) says whether
 * the whole hexversion is equal. NULL when the minor has none of that flavour. When hexversion has
 * a low byte of 0 (release level unknown) the micro decides about *exact. */
const struct layout *layout_find(uint32_t hexversion, bool debug, bool free_threaded, bool *exact);
/* All tables, for tests and for doctor. */
size_t layout_count(void);
const struct layout *layout_at(size_t i);

/* ---- what members mean: differs by minor, never by micro ---- */

enum obmalloc_place {
    OBMALLOC_STATIC, /* 3.8-3.11: usedpools, arenas, ... are statics of the module */
    OBMALLOC_INLINE, /* 3.12: struct _obmalloc_state inside PyInterpreterState */
    OBMALLOC_POINTER /* 3.13+: PyInterpreterState points to it; subinterpreters may share it */
};

enum tracemalloc_place {
    TRACEMALLOC_STATIC, /* 3.8-3.11: tables are statics, config is exported */
    TRACEMALLOC_RUNTIME /* 3.12+: _PyRuntimeState.tracemalloc */
};

enum frame_shape {
    FRAME_OBJECTS,  /* 3.8-3.10: a list of frame objects from the thread state */
    FRAME_CFRAME,   /* 3.11, 3.12: thread state -> cframe -> current_frame */
    FRAME_INTERNAL, /* 3.13+: thread state -> current_frame */
};

enum line_table {
    LINES_LNOTAB,    /* 3.8, 3.9: pairs (address delta u8, line delta s8) */
    LINES_RANGES,    /* 3.10: pairs (length u8, line delta s8, -128: no line) */
    LINES_LOCATIONS, /* 3.11+: location entries of varying length */
};

enum dict_keys_shape {
    KEYS_SIZE, /* 3.8-3.10: dk_size; entries of 24 bytes; index width follows the size */
    KEYS_LOG2  /* 3.11+: dk_log2_size, dk_log2_index_bytes, dk_kind; entries of 16 or 24 bytes */
};

enum dict_values_shape {
    VALUES_PLAIN,  /* 3.8-3.10: an array of pointers */
    VALUES_PREFIX, /* 3.11, 3.12: byte [-1] is the size of the prefix in front of the pointers */
    VALUES_HEADER  /* 3.13+: {capacity, size, embedded, valid}, then the pointers */
};

/* Where an instance's values and dictionary hang in front of the object. */
enum managed_shape {
    MANAGED_NONE,        /* 3.8-3.10 */
    MANAGED_TWO_WORDS,   /* 3.11: [-32] values, [-24] dict, with Py_TPFLAGS_MANAGED_DICT */
    MANAGED_TAGGED,      /* 3.12: [-24] dict, or values + 1; [-32] weak references */
    MANAGED_DICT_INLINE, /* 3.13+: [-24] dict, [-32] weak references, values in the object
                            (free-threaded: [-8], [-16]) */
};

enum immortal_shape {
    IMMORTAL_NONE,     /* 3.8-3.11 */
    IMMORTAL_LOW_NEG,  /* 3.12, 3.13: the low 32 bits of the reference count are negative */
    IMMORTAL_HIGH_BIT, /* 3.14+: the 32-bit count has bit 31 set */
};

enum freelist_shape {
    FREELISTS_STATIC, /* 3.8, 3.9: statics of the module, not exported */
    FREELISTS_ARRAYS, /* 3.10-3.13: arrays or chains with a number */
    FREELISTS_CHAINS  /* 3.14+: {first, size}, linked by the first word of the block */
};

enum mimalloc_shape {
    MIMALLOC_ABSENT,
    MIMALLOC_21, /* 3.13: page has xblock_size, the heap tag is a bit field */
    MIMALLOC_22  /* 3.14+: page has block_size, page_start and heap_tag */
};

struct layout_traits {
    unsigned minor;
    uint32_t pool_size;
    uint32_t arena_size;     /* default; 3.15 may be built with 2 MiB (see arena_size_max) */
    uint32_t arena_size_max; /* derive the real one from arena_object.ntotalpools */
    uint8_t radix_top_bits;  /* arena_map: bits of the address per level; 0: no radix tree */
    uint8_t radix_mid_bits, radix_bot_bits;
    enum obmalloc_place obmalloc;
    enum tracemalloc_place tracemalloc;
    bool tracemalloc_domain_in_key; /* 3.8: traces are keyed by {address, domain} if use_domain */
    bool tracemalloc_filename_utf8; /* 3.15: frames name files as const char *, not str */
    bool hashtable_inline;          /* 3.8: key and data are inline behind the entry header */
    enum frame_shape frame;
    unsigned frame_lasti_scale;    /* 3.8-3.10: bytes of code per unit of f_lasti; 0 later */
    uint8_t frame_owner_generator; /* owner values; 0xff: no owner field */
    uint8_t frame_owner_shim;      /* owner >= this: not a Python frame, skip it */
    bool stack_refs_tagged;        /* 3.14+: the two low bits of a stack reference are a tag */
    enum line_table lines;
    enum dict_keys_shape dict_keys;
    enum dict_values_shape dict_values;
    enum managed_shape managed;
    bool managed_weakref; /* 3.12+: Py_TPFLAGS_MANAGED_WEAKREF adds the two words too */
    enum immortal_shape immortal;
    bool int_tagged;   /* 3.12+: lv_tag = digits << 3 | sign; before: signed ob_size */
    bool static_heads; /* 3.11, 3.12: for sys.getsizeof static types have a GC head, too */
    bool str_legacy;   /* 3.8-3.11: legacy strings with wstr exist */
    enum freelist_shape freelists;
    enum mimalloc_shape mimalloc;
    bool debug_offsets; /* 3.13+: _PyRuntime starts with _Py_DebugOffsets */
};

/* By minor (13 for 3.13). NULL for a minor that we know nothing about. */
const struct layout_traits *layout_traits(unsigned minor);

static inline unsigned layout_minor(uint32_t hexversion)
{
    return (hexversion >> 16) & 0xff;
}

#endif
