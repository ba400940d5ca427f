/* Which blocks are objects. An object has its type's address in its header, its type says how many
 * bytes stand in front of it, and its size is one that the allocator puts into such a block. All of
 * that must agree, and a plausible reference count besides. */
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/object_place.h"

enum {
    AHEAD = 2048,     /* what is not yet looked at, but in the cache by then */
    LOOK_BYTES = 128, /* of each block: pre-headers, header and the start of a str */
    NEAR_TYPES = 512, /* power of two */
    MAX_PRE = 3,
    ALIGN = 8, /* of every type */
    INT_DIGIT_BITS = 30,
    EXTRA_ITEMS = 32 /* fields of a structseq that its length does not count */
};
#define TPFLAGS_INLINE_VALUES (1u << 2)
#define TPFLAGS_HAVE_GC (1u << 14)
#define TPFLAGS_TUPLE (1u << 26)

/* What of layout and traits the pass needs, looked up once. */
struct shape {
    const struct layout *l;
    const struct layout_traits *t;
    uint32_t front;  /* debug hooks' bytes, as in struct blocks */
    uint32_t shift;  /* of Py_TRACE_REFS */
    uint32_t type;   /* offset of ob_type from the object */
    uint32_t size;   /* of ob_size */
    uint32_t header; /* of an object without any member */
    uint32_t refcnt, str_length;
    uint32_t tag, digit; /* where an int says how many digits it has, and they themselves */
    uint32_t ascii_head, compact_head; /* in front of the characters of a str */
    struct layout_slot kind, compact, ascii;
    uint32_t pre[MAX_PRE]; /* that this build's types may have, shortest first */
    unsigned n_pre;
    uint32_t padding; /* mimalloc of a debug build ends each block with bytes of its own */
    bool gc_heads, counts_split, mimalloc;
};

/* The types of the last objects, by address: one look per object in place of a search. */
struct near_types {
    struct {
        uint64_t addr;
        uint64_t index;
    } slots[NEAR_TYPES];
};

enum fit { FIT_NONE, FIT_LOOSE, FIT_TIGHT };
enum verdict { NO_OBJECT, DEAD_OBJECT, LIVE_LOOSE, LIVE_OBJECT };

struct block_bytes {
    uint64_t addr, size;
    const uint8_t *p;
    size_t len;
    uint32_t front; /* debug hooks' bytes */
    bool chunk;
};

/* What pymalloc does not take itself it asks the raw domain for, which has hooks of its own: a
 * chunk then starts with two headers. */
uint32_t object_front(const struct objects *o, const uint8_t *p, size_t len, bool chunk)
{
    uint32_t front = (uint32_t)o->blocks->debug_front;
    bool twice = front && chunk && len >= 2 * (size_t)front && debug_block(p) && p[8] == 'r' &&
                 debug_block(p + front);
    return twice ? 2 * front : front;
}

uint64_t object_in_block(struct objects *o, const struct block_place *place,
                         const struct type_info *t)
{
    uint32_t front = (uint32_t)o->blocks->debug_front;
    if (front && place->chunk) {
        const uint8_t *p = objects_peek(o, place->addr, 2 * (size_t)front);
        if (p)
            front = object_front(o, p, 2 * (size_t)front, true);
    }
    return place->addr + front + t->pre + objects_shift(o);
}

static void shape_init(const struct objects *o, struct shape *s)
{
    const struct cpython *py = o->py;
    memset(s, 0, sizeof *s);
    s->l = &py->layout;
    s->t = py->traits;
    s->front = (uint32_t)o->blocks->debug_front;
    s->shift = (uint32_t)objects_shift(o);
    s->type = (uint32_t)layout_offset(s->l, LF_ob_type);
    s->size = (uint32_t)layout_offset(s->l, LF_var_size);
    s->header = (uint32_t)layout_size(s->l, LF_ob_sizeof);
    s->ascii_head = (uint32_t)layout_size(s->l, LF_str_ascii_sizeof);
    s->compact_head = (uint32_t)layout_size(s->l, LF_str_compact_sizeof);
    s->str_length = (uint32_t)layout_offset(s->l, LF_str_length);
    s->tag = s->t->int_tagged ? (uint32_t)layout_offset(s->l, LF_int_tag) : s->size;
    s->digit = (uint32_t)layout_offset(s->l, LF_int_digit);
    s->kind = s->l->slots[LF_str_kind];
    s->compact = s->l->slots[LF_str_compact];
    s->ascii = s->l->slots[LF_str_ascii];
    s->gc_heads = !py->free_threaded;
    s->counts_split = layout_has(s->l, LF_ob_ref_local);
    if (!s->counts_split)
        s->refcnt = (uint32_t)layout_offset(s->l, LF_ob_refcnt);
    s->pre[s->n_pre++] = 0;
    s->pre[s->n_pre++] = 16;
    if (s->gc_heads && s->t->managed != MANAGED_NONE)
        s->pre[s->n_pre++] = 32;
    s->mimalloc = py->n_segments > 0;
    s->padding = s->mimalloc && py->debug ? 8 : 0;
}

/* ---- counts and links ---- */

enum count { COUNT_BAD, COUNT_ZERO, COUNT_LIVE, COUNT_LINK };

static bool address_like(uint64_t v)
{
    return v >= 0x10000 && v < (uint64_t)1 << 47;
}

static enum count count_split(const struct shape *s, const uint8_t *obj, struct object_at *ret)
{
    uint64_t local = layout_load(s->l, obj, LF_ob_ref_local);
    int64_t shared = layout_load_signed(s->l, obj, LF_ob_ref_shared) >> 2;
    uint64_t tid = layout_load(s->l, obj, LF_ob_tid);
    ret->immortal = local == UINT32_MAX;
    ret->refcount = ret->immortal ? INT64_MAX : (int64_t)local + shared;
    if ((tid && !address_like(tid)) || shared > INT32_MAX || shared < -INT32_MAX)
        return COUNT_BAD;
    if (ret->immortal)
        return COUNT_LIVE;
    return ret->refcount > 0 ? COUNT_LIVE : ret->refcount == 0 ? COUNT_ZERO : COUNT_BAD;
}

/* The word at the reference count: what it is, by release. */
static enum count count_of(const struct shape *s, const uint8_t *obj, struct object_at *ret)
{
    ret->immortal = false;
    if (s->counts_split)
        return count_split(s, obj, ret);
    uint64_t word = load_u64(obj + s->refcnt);
    uint32_t low = (uint32_t)word;
    ret->refcount = (int64_t)word;
    if (word == 0)
        return COUNT_ZERO;
    switch (s->t->immortal) {
    case IMMORTAL_NONE:
        return word < (uint64_t)1 << 31 ? COUNT_LIVE : COUNT_BAD;
    case IMMORTAL_LOW_NEG:
        /* Extensions built for older releases count over all 64 bits. */
        ret->immortal = low >> 31;
        return word < (uint64_t)1 << 36 ? COUNT_LIVE : COUNT_BAD;
    case IMMORTAL_HIGH_BIT:
        ret->immortal = low >> 31;
        ret->refcount = low;
        /* Between count and flags are 16 bits that are never used, and few flags exist. */
        if (low && !(word >> 32 & 0xffff) && word >> 48 < 0x100)
            return COUNT_LIVE;
        return address_like(word) && !(word & 7) ? COUNT_LINK : COUNT_BAD;
    }
    return COUNT_BAD;
}

/* A garbage collector's head: on a list, on none, or counting references for a collection. */
static bool gc_plausible(struct objects *o, const uint8_t *head)
{
    uint64_t next = load_u64(head) & ~(uint64_t)3, prev = load_u64(head + 8);
    if (next == 0)
        return prev < (uint64_t)1 << 47;
    const struct vma *v = o->gc_vma; /* most are in the same mapping as the one before */
    if (!v || next < v->start || next >= v->end)
        v = o->gc_vma = address_like(next) ? vma_at(o->in->vmas, next) : NULL;
    return v && v->w && prev < (uint64_t)1 << 47;
}

/* The next on the list says that we are in front of it. */
static bool gc_linked(struct objects *o, uint64_t at, const uint8_t *head)
{
    uint64_t next = load_u64(head) & ~(uint64_t)3, back;
    return next && mem_u64(o->far, next + 8, &back, NULL) == 0 && (back & ~(uint64_t)3) == at;
}

/* ---- sizes ---- */

/* The object's length is within the bytes that were read. */
static bool has_size(const struct shape *s, const struct block_bytes *b, const uint8_t *obj)
{
    return (size_t)(obj - b->p) + s->size + 8 <= b->len;
}

/* The allocator puts `need` bytes into such a block. `shrinks`: the object may have been larger
 * when it got the block; pymalloc keeps a block of which three quarters are still needed, mimalloc
 * half. */
static enum fit fit_block(const struct shape *s, const struct block_bytes *b, uint64_t need,
                          bool shrinks)
{
    uint64_t size = b->size;
    if (b->front) {
        /* The hooks keep the size that was asked for in front, big-endian. */
        uint64_t asked = load_be64(b->p + b->front - s->front);
        if (asked > size - b->front)
            return FIT_NONE;
        if (need <= asked && asked - need < 8)
            return FIT_TIGHT;
        size = asked;
    } else if (need <= size) {
        uint64_t left = size - need;
        bool tight = b->chunk      ? left < 48 || (size >= 128 * 1024 && left < 8192)
                     : s->mimalloc ? left < 16 + s->padding || (left - s->padding) * 8 <= size
                                   : left < 16;
        if (tight)
            return FIT_TIGHT;
    }
    if (need > size)
        return FIT_NONE;
    uint64_t kept = s->mimalloc ? size / 2 - 1 : size / 4 * 3;
    return shrinks && need > kept ? FIT_TIGHT : FIT_LOOSE;
}

/* A bit field of a str's state, as layout_load, but for each of millions of blocks. */
static uint32_t state_bits(const struct layout_slot *f, const uint8_t *obj)
{
    unsigned bits = f->bits ? f->bits : 8 * f->width;
    uint32_t v = load_u32(obj + f->offset) >> f->shift;
    return bits < 32 ? v & ((1u << bits) - 1) : v;
}

static enum fit fit_str(const struct shape *s, const struct block_bytes *b,
                        const struct type_info *t, uint64_t pre, const uint8_t *obj)
{
    uint64_t length, bytes, head;
    if ((size_t)(obj - b->p) + s->ascii_head > b->len)
        return FIT_NONE;
    /* The characters are elsewhere. */
    if (!state_bits(&s->compact, obj))
        return fit_block(s, b, pre + t->basicsize, false);
    uint32_t kind = state_bits(&s->kind, obj), ascii = state_bits(&s->ascii, obj);
    length = load_u64(obj + s->str_length);
    head = pre + s->shift + (ascii ? s->ascii_head : s->compact_head);
    if ((kind != 1 && kind != 2 && kind != 4) || (ascii && kind != 1) ||
        mul_overflows(length, kind, &bytes) || add_overflows(bytes, head + kind, &bytes))
        return FIT_NONE;
    return fit_block(s, b, bytes, true);
}

/* An int may have fewer digits than it got room for; that they are digits is the proof. */
static enum fit fit_int(const struct shape *s, const struct block_bytes *b,
                        const struct type_info *t, uint64_t pre, const uint8_t *obj)
{
    uint64_t digits, seen = s->digit;
    if (!has_size(s, b, obj))
        return FIT_NONE;
    if (s->t->int_tagged) {
        uint64_t tag = load_u64(obj + s->tag);
        digits = tag >> 3;
        if ((tag & 3) == 3)
            return FIT_NONE;
    } else {
        int64_t n = (int64_t)load_u64(obj + s->tag);
        if (n == INT64_MIN)
            return FIT_NONE;
        digits = (uint64_t)(n < 0 ? -n : n);
    }
    if (digits > b->size / 4)
        return FIT_NONE;
    for (uint64_t i = 0; i < digits && (uint64_t)(obj - b->p) + seen + i * 4 + 4 <= b->len; i++)
        if (load_u32(obj + seen + i * 4) >> INT_DIGIT_BITS)
            return FIT_NONE;
    uint64_t need = pre + t->basicsize + max_u64(digits, 1) * t->itemsize;
    enum fit fit = fit_block(s, b, need, true);
    return fit == FIT_LOOSE && t->pre == 0 ? FIT_TIGHT : fit;
}

/* Items behind the fixed part. tp_alloc gives room for one item more than asked for. */
static enum fit fit_items(const struct shape *s, const struct block_bytes *b,
                          const struct type_info *t, uint64_t pre, const uint8_t *obj)
{
    if (!has_size(s, b, obj))
        return FIT_NONE;
    uint64_t n = load_u64(obj + s->size), bytes, fixed = pre + t->basicsize;
    if (n > b->size || mul_overflows(n, t->itemsize, &bytes))
        return FIT_NONE;
    enum fit fit = fit_block(s, b, fixed + bytes, true);
    if (fit != FIT_LOOSE)
        return fit;
    enum fit more = fit_block(s, b, round_up(fixed + bytes + t->itemsize, 8), true);
    if (more == FIT_TIGHT)
        return more;
    bool hidden = (t->flags & TPFLAGS_TUPLE) &&
                  b->size <= b->front + fixed + bytes + EXTRA_ITEMS * t->itemsize + 32;
    return hidden ? FIT_TIGHT : fit;
}

/* Objects that their own tp_alloc makes shorter than the type says. */
static bool may_be_short(const struct type_info *t)
{
    return strcmp(t->name, "datetime.time") == 0 || strcmp(t->name, "datetime.datetime") == 0;
}

static enum fit fit_object(const struct shape *s, const struct block_bytes *b,
                           const struct type_info *t, uint64_t pre, const uint8_t *obj)
{
    uint64_t fixed = pre + t->basicsize;
    if (t->kind == KIND_STR && !t->heap)
        return fit_str(s, b, t, pre, obj);
    if (fixed > b->size && !may_be_short(t))
        return FIT_NONE;
    switch (t->kind) {
    case KIND_INT:
        return fit_int(s, b, t, pre, obj);
    case KIND_FRAME:
    case KIND_GENERATOR:
        /* How many locals there are only the code says; frames are used again for others. */
        if (t->itemsize)
            return fit_block(s, b, fixed, false) == FIT_NONE ? FIT_NONE : FIT_TIGHT;
        break;
    default:
        break;
    }
    if (t->itemsize)
        return fit_items(s, b, t, pre, obj);
    enum fit fit = fit_block(s, b, fixed, false);
    if (fit == FIT_NONE && may_be_short(t))
        fit = fit_block(s, b, fixed - 8, false);
    return fit;
}

/* Values that lie in the object itself make it larger than its type says; their number is written
 * in front of them. */
static bool fit_inline(const struct shape *s, const struct block_bytes *b,
                       const struct type_info *t, uint64_t pre, const uint8_t *obj)
{
    if (!(t->flags & TPFLAGS_INLINE_VALUES) || !layout_has(s->l, LF_values_capacity))
        return false;
    uint64_t at = (uint64_t)(obj - b->p) + t->basicsize - s->shift;
    if (at + layout_offset(s->l, LF_values_values) > b->len)
        return true; /* too far behind to look; the links have to say it */
    uint64_t capacity = layout_load(s->l, b->p + at, LF_values_capacity), need[2];
    for (uint64_t i = 0; i < 2; i++)
        need[i] = pre + t->basicsize + round_up(capacity + i, 8) + (capacity + i + 1) * 8;
    /* The keys' capacity falls by one between the allocation of an instance and its set-up. */
    return fit_block(s, b, need[0], false) == FIT_TIGHT ||
           fit_block(s, b, need[1], false) == FIT_TIGHT;
}

/* ---- one candidate ---- */

/* A large count that is the address of an object is no count: two pointers in a row, the second to
 * a type, are what many buffers hold. */
static bool count_is_pointer(struct objects *o, const struct shape *s, uint64_t count)
{
    if (count < 0x10000 || (count & 7))
        return false;
    const uint8_t *p = objects_peek(o, count, s->header);
    return p && types_get(o, load_u64(p + s->type));
}

/* 3.14+: a freelist's link in place of the count leads to another dead object of the type. */
static bool link_proven(struct objects *o, const struct shape *s, const struct type_info *t,
                        uint64_t link)
{
    const uint8_t *p = objects_peek(o, link, s->header);
    struct object_at next;
    if (!p || load_u64(p + s->type) != t->addr)
        return false;
    enum count c = count_of(s, p, &next);
    return c == COUNT_ZERO || c == COUNT_LINK ||
           (c == COUNT_LIVE && !next.immortal && count_is_pointer(o, s, (uint64_t)next.refcount));
}

static enum verdict judge_live(struct objects *o, const struct shape *s,
                               const struct block_bytes *b, const struct type_info *t, uint64_t pre,
                               const uint8_t *obj)
{
    enum fit fit = fit_object(s, b, t, pre, obj);
    if (fit == FIT_NONE)
        return NO_OBJECT;
    if (fit == FIT_TIGHT || fit_inline(s, b, t, pre, obj))
        return LIVE_OBJECT;
    bool gc = s->gc_heads && (t->flags & TPFLAGS_HAVE_GC);
    return gc && gc_linked(o, b->addr + (uint64_t)(obj - b->p) - s->shift - 16, obj - s->shift - 16)
               ? LIVE_LOOSE
               : NO_OBJECT;
}

static enum verdict judge(struct objects *o, const struct shape *s, const struct block_bytes *b,
                          uint32_t index, uint32_t at, struct object_at *ret)
{
    const struct type_info *t = &o->types.items[index];
    const uint8_t *obj = b->p + at;
    uint64_t pre = t->pre;
    bool gc = s->gc_heads && (t->flags & TPFLAGS_HAVE_GC);
    if (gc && !gc_plausible(o, obj - s->shift - 16))
        return NO_OBJECT;
    enum count count = count_of(s, obj, ret);
    if (count == COUNT_BAD)
        return NO_OBJECT;
    if (count == COUNT_LIVE && !ret->immortal && count_is_pointer(o, s, (uint64_t)ret->refcount)) {
        if (s->t->freelists != FREELISTS_CHAINS)
            return NO_OBJECT;
        count = COUNT_LINK; /* a heap at low addresses */
    }
    t = &o->types.items[index]; /* the question may have found a type */
    ret->addr = b->addr + at;
    ret->type = index;
    ret->dead = count != COUNT_LIVE;
    if (count == COUNT_LIVE)
        return judge_live(o, s, b, t, pre, obj);
    /* What the collector knows is not dead, and nobody keeps the dead of a class. */
    if (t->heap || (gc && load_u64(obj - s->shift - 16) != 0))
        return NO_OBJECT;
    if (count == COUNT_LINK && !link_proven(o, s, t, load_u64(obj)))
        return NO_OBJECT;
    ret->refcount = 0;
    return fit_object(s, b, t, pre, obj) == FIT_TIGHT ? DEAD_OBJECT : NO_OBJECT;
}

/* ---- one block ---- */

static uint32_t known_type(const struct objects *o, struct near_types *near, uint64_t addr)
{
    size_t i = (size_t)(addr >> 4 ^ addr >> 13) & (NEAR_TYPES - 1);
    if (near && near->slots[i].addr == addr)
        return (uint32_t)near->slots[i].index;
    if (!types_maybe(&o->types, addr))
        return BLOCK_NO_TYPE;
    const uint64_t *found = addrset_find(&o->types.known, addr);
    if (!found || !*found)
        return BLOCK_NO_TYPE;
    if (near) {
        near->slots[i].addr = addr;
        near->slots[i].index = *found - 1;
    }
    return (uint32_t)(*found - 1);
}

static uint32_t new_type(struct objects *o, uint64_t addr)
{
    /* A type is larger than most of pymalloc's blocks: what points into those is none, and need not
     * be read. */
    if (blocks_small_at(o->blocks, addr, TYPE_BLOCK_MAX))
        return BLOCK_NO_TYPE;
    const struct type_info *t = types_get(o, addr);
    return t ? types_index(o, t) : BLOCK_NO_TYPE;
}

/* A word where the type would be, and for how many bytes in front of the object. */
struct candidate {
    uint64_t type;
    uint32_t at; /* of the object, in the block */
    uint32_t pre;
};

static enum verdict try_candidate(struct objects *o, const struct shape *s,
                                  const struct block_bytes *b, const struct candidate *c,
                                  uint32_t index, enum verdict best, struct object_at *ret)
{
    struct object_at found;
    if (index == BLOCK_NO_TYPE || o->types.items[index].pre != c->pre)
        return best;
    enum verdict v = judge(o, s, b, index, c->at, &found);
    if (v <= best)
        return best;
    *ret = found;
    return v;
}

/* Tries each pre-header that a type may ask for. First with the types that are known: a word that
 * is none is asked about only in blocks that are no object of those. */
static bool recognise(struct objects *o, const struct shape *s, struct near_types *near,
                      const struct block_bytes *b, struct object_at *ret)
{
    struct candidate unknown[MAX_PRE];
    unsigned n = 0;
    enum verdict best = NO_OBJECT;
    for (unsigned i = 0; i < s->n_pre && best < LIVE_OBJECT; i++) {
        struct candidate c = {.at = b->front + s->pre[i] + s->shift, .pre = s->pre[i]};
        if (c.at + s->header > b->len)
            break;
        c.type = load_u64(b->p + c.at + s->type);
        if (!address_like(c.type) || c.type % ALIGN)
            continue;
        uint32_t index = known_type(o, near, c.type);
        if (index == BLOCK_NO_TYPE)
            unknown[n++] = c;
        else
            best = try_candidate(o, s, b, &c, index, best, ret);
    }
    for (unsigned i = 0; i < n && best < LIVE_OBJECT; i++)
        best = try_candidate(o, s, b, &unknown[i], new_type(o, unknown[i].type), best, ret);
    return best > NO_OBJECT;
}

bool object_recognise(struct objects *o, uint64_t block, uint64_t size, const uint8_t *bytes,
                      size_t len, struct object_at *ret)
{
    struct shape s;
    uint64_t start;
    size_t slot = blocks_find(o->blocks, block, &start);
    struct block_place place = {0};
    if (slot != SIZE_MAX)
        blocks_place(o->blocks, slot, &place);
    struct block_bytes b = {block, size, bytes, len, 0, place.chunk};
    shape_init(o, &s);
    b.front = object_front(o, bytes, len, b.chunk);
    return recognise(o, &s, NULL, &b, ret);
}

/* ---- all blocks ---- */

struct each {
    struct objects *o;
    struct shape shape;
    struct near_types near;
    object_fn fn;
    void *ctx;
};

static void look_at(struct each *e, const struct block_bytes *b, size_t slot,
                    const struct block_place *place)
{
    struct object_at at;
    if (recognise(e->o, &e->shape, &e->near, b, &at))
        e->fn(e->ctx, slot, place, &at);
}

static void look_at_run(struct each *e, const struct block_run *r)
{
    struct mem_window *near = &e->o->near;
    const uint32_t *what = e->o->blocks->what + r->first;
    uint64_t bytes = (uint64_t)r->n * r->size;
    const uint8_t *run = bytes <= near->cap ? mem_window_at(near, r->addr, (size_t)bytes) : NULL;
    struct block_bytes b = {r->addr,        r->size, run, (size_t)min_u64(r->size, LOOK_BYTES),
                            e->shape.front, false};
    struct block_place place = {r->addr, r->size, false};
    for (uint32_t i = 0; i < r->n; i++, place.addr += r->size) {
        if (what[i] >> 28 == BLOCK_FREE || what[i] >> 28 == BLOCK_RUNTIME)
            continue;
        b.addr = place.addr;
        b.p = run ? run + (size_t)i * r->size : mem_window_at(near, b.addr, b.len);
        if (!b.p)
            continue;
        __builtin_prefetch(b.p + AHEAD); /* never faults, wherever that may be */
        look_at(e, &b, r->first + i, &place);
    }
}

/* Through the window where chunks lie close together. A large one would fill it with bytes that
 * nobody looks at. */
static const uint8_t *chunk_bytes(struct objects *o, const struct block_chunk *c, size_t len)
{
    bool large = c->size > MEM_WINDOW_BYTES / 64 && !o->near.mem->ops->direct;
    return large ? objects_peek(o, c->addr, len) : mem_window_at(&o->near, c->addr, len);
}

static void look_at_chunk(struct each *e, const struct block_chunk *c, size_t slot)
{
    uint8_t copy[LOOK_BYTES];
    size_t len = (size_t)min_u64(c->size, LOOK_BYTES);
    if (block_kind(e->o->blocks, slot) == BLOCK_RUNTIME)
        return;
    const uint8_t *p = chunk_bytes(e->o, c, len);
    if (!p)
        return;
    if (p == e->o->scratch)
        p = memcpy(copy, p, len);
    struct block_bytes b = {c->addr, c->size, p, len, object_front(e->o, p, len, true), true};
    struct block_place place = {c->addr, c->size, true};
    look_at(e, &b, slot, &place);
}

void objects_each(struct objects *o, const struct block_range *range, object_fn fn, void *ctx)
{
    struct each e = {.o = o, .fn = fn, .ctx = ctx};
    const struct blocks *b = o->blocks;
    shape_init(o, &e.shape);
    for (size_t i = range->run; i < range->run_end && !objects_stopped(o); i++)
        look_at_run(&e, &b->runs[i]);
    size_t first = b->n - b->n_chunks;
    for (size_t i = range->chunk; i < range->chunk_end && !objects_stopped(o); i++)
        if (block_kind(b, first + i) != BLOCK_RUNTIME)
            look_at_chunk(&e, &b->chunks[i], first + i);
}
