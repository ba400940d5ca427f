/* The types that the target has: found where objects point, proven before they are believed. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/own.h"
#include "walker/cpython/type_names.h"
#include "walker/note.h"

enum {
    MAX_DEPTH = 16,        /* of metatypes over metatypes */
    MAX_TYPES = 1 << 22,   /* in a hostile heap anything may look like a type */
    MAX_REJECTED = 1 << 16 /* addresses kept as no type; later ones are looked at each time */
};
static const uint64_t MAX_BASICSIZE = 1 << 20, MAX_ITEMSIZE = 1 << 16;

/* tp_flags */
#define TPFLAGS_MANAGED_WEAKREF (1u << 3)
#define TPFLAGS_MANAGED_DICT (1u << 4)
#define TPFLAGS_HEAPTYPE (1u << 9)
#define TPFLAGS_READY (1u << 12)
#define TPFLAGS_HAVE_GC (1u << 14)
#define TPFLAGS_TYPE (1u << 31)

void types_init(struct types *t)
{
    memset(t, 0, sizeof *t);
    addrset_init(&t->known);
    strpool_init(&t->names);
}

void types_release(struct types *t)
{
    free(t->items);
    addrset_release(&t->known);
    strpool_release(&t->names);
    memset(t, 0, sizeof *t);
}

uint32_t types_index(const struct objects *o, const struct type_info *t)
{
    return (uint32_t)(t - o->types.items);
}

/* Bytes in front of an instance, debug hooks' apart. */
static uint32_t pre_header(const struct objects *o, uint64_t flags)
{
    const struct layout_traits *t = o->py->traits;
    uint64_t managed = t->managed == MANAGED_NONE ? 0 : TPFLAGS_MANAGED_DICT;
    if (t->managed_weakref)
        managed |= TPFLAGS_MANAGED_WEAKREF;
    uint32_t pre = (flags & managed) ? 16 : 0;
    if ((flags & TPFLAGS_HAVE_GC) && !o->py->free_threaded)
        pre += 16;
    return pre;
}

/* A type that nobody refers to has been freed. */
static bool type_alive(const struct objects *o, const uint8_t *p)
{
    const struct layout *l = &o->py->layout;
    if (layout_has(l, LF_ob_ref_local))
        return layout_load(l, p, LF_ob_ref_local) ||
               layout_load_signed(l, p, LF_ob_ref_shared) >> 2 > 0;
    uint64_t count = layout_load(l, p, LF_ob_refcnt);
    /* A freed type's first word may be a link: no count is an address in the upper half of 2^47. */
    return count != 0 && count < (uint64_t)1 << 40;
}

/* Fields of the structure at `type`; its texts are checked by the caller. */
struct type_fields {
    uint64_t name, dict;
    struct type_info info;
};

static bool read_fields(struct objects *o, uint64_t addr, struct type_fields *ret,
                        uint64_t *metatype)
{
    const struct layout *l = &o->py->layout;
    const uint8_t *p = objects_peek(o, addr + objects_shift(o), layout_size(l, LF_type_sizeof));
    if (!p)
        return false;
    struct type_info *t = &ret->info;
    memset(ret, 0, sizeof *ret);
    t->addr = addr;
    t->flags = layout_load(l, p, LF_type_flags);
    t->basicsize = layout_load(l, p, LF_type_basicsize);
    t->itemsize = layout_load(l, p, LF_type_itemsize);
    if (!(t->flags & TPFLAGS_READY) || t->basicsize < 16 || t->basicsize >= MAX_BASICSIZE ||
        t->itemsize >= MAX_ITEMSIZE || !type_alive(o, p))
        return false;
    t->dictoffset = layout_load(l, p, LF_type_dictoffset);
    t->weaklistoffset = layout_load(l, p, LF_type_weaklistoffset);
    t->heap = t->flags & TPFLAGS_HEAPTYPE;
    t->is_type = t->flags & TPFLAGS_TYPE;
    t->pre = pre_header(o, t->flags);
    ret->name = layout_load(l, p, LF_type_name);
    ret->dict = layout_load(l, p, LF_type_dict);
    *metatype = layout_load(l, p, LF_ob_type);
    return true;
}

/* Cheap tests before any byte is read: aligned and in the half of the address space that programs
 * have. */
static bool address_possible(uint64_t addr)
{
    return addr >= 0x10000 && addr < (uint64_t)1 << 47 && !(addr & 7);
}

static const struct type_info *get(struct objects *o, uint64_t addr, unsigned depth);

/* `type` is its own type; nothing else is. Where no symbol says its address its name has to do. */
static bool metatype_proven(struct objects *o, const struct type_fields *f, uint64_t metatype,
                            unsigned depth)
{
    uint64_t addr = f->info.addr, root = o->py->module ? o->py->module->type_type : 0;
    struct type_text text;
    if (metatype == addr && root)
        return addr == root;
    if (metatype == addr)
        return f->info.is_type && !f->info.heap && type_text_cstr(o, f->name, &text) &&
               strcmp(text.bytes, "type") == 0;
    const struct type_info *m = get(o, metatype, depth + 1);
    return m && m->is_type;
}

/* Names of static types are constants of their modules, which a core may lack. Then only `type`
 * itself, known by its symbol, proves the type. */
static bool name_missing(const struct objects *o, const struct type_fields *f, uint64_t metatype)
{
    uint8_t byte;
    const struct vma *v = vma_at(o->in->vmas, f->name);
    return o->py->module && metatype && metatype == o->py->module->type_type && !f->info.heap &&
           v && v->r && !v->w && mem_read_some(o->far, f->name, &byte, 1) == 0;
}

/* Text that is no name is no proof, unless the type says it in a second place too. */
static bool name_proven(struct objects *o, struct type_fields *f, uint64_t metatype,
                        struct type_text *text)
{
    if (name_missing(o, f, metatype)) {
        type_text_missing(f->info.addr, text);
        f->info.unnamed = true;
        return true;
    }
    if (!type_text_cstr(o, f->name, text))
        return false;
    if (text->n && !text->controls && !text->cut)
        return true;
    return f->info.heap && type_name_confirmed(o, f->info.addr + objects_shift(o), text);
}

static const struct type_info *insert(struct types *types, const struct type_info *t)
{
    if (vec_reserve(&types->items, &types->cap, types->n + 1, sizeof *types->items) < 0 ||
        addrset_add(&types->known, t->addr, types->n + 1, NULL) < 0) {
        types->no_memory = true;
        return NULL;
    }
    /* A chain of metatypes that meets itself has rejected this one on the way. */
    *addrset_find(&types->known, t->addr) = types->n + 1;
    types->items[types->n] = *t;
    uint64_t bit = (t->addr >> 3) * 0x9e3779b97f4a7c15u >> 48;
    types->filter[bit / 64] |= (uint64_t)1 << bit % 64;
    return &types->items[types->n++];
}

static const struct type_info *add(struct objects *o, struct type_fields *f,
                                   const struct type_text *text)
{
    uint64_t type = f->info.addr + objects_shift(o);
    f->info.kind = kind_of_type(o, type, f->info.flags);
    f->info.owns = type_owns(o, &f->info);
    if (type_name_make(o, type, f->dict, text, &f->info))
        return insert(&o->types, &f->info);
    o->types.no_memory = true;
    return NULL;
}

uint32_t types_adopt(struct types *t, const struct type_info *proven)
{
    const uint64_t *known = addrset_find(&t->known, proven->addr);
    if (known && *known)
        return (uint32_t)(*known - 1);
    struct type_info own = *proven;
    own.name = strpool_add(&t->names, proven->name);
    own.module = strpool_add(&t->names, proven->module);
    own.size_bytes = 0;
    if (own.name && own.module && insert(t, &own))
        return (uint32_t)(t->n - 1);
    t->no_memory = true;
    return BLOCK_NO_TYPE;
}

static const struct type_info *prove(struct objects *o, uint64_t addr, unsigned depth)
{
    struct type_fields f;
    struct type_text text;
    uint64_t metatype;
    if (o->types.n >= MAX_TYPES || !read_fields(o, addr, &f, &metatype) ||
        !metatype_proven(o, &f, metatype, depth) || !name_proven(o, &f, metatype, &text))
        return NULL;
    return add(o, &f, &text);
}

/* Rejected addresses are kept while they are few, and while there is memory: asking again costs
 * time only. */
static void reject(struct objects *o, uint64_t addr)
{
    struct types *t = &o->types;
    int rc = 0;
    if (t->known.n - t->n < MAX_REJECTED)
        rc = addrset_add(&t->known, addr, 0, NULL);
    (void)rc;
}

static const struct type_info *get(struct objects *o, uint64_t addr, unsigned depth)
{
    if (!address_possible(addr))
        return NULL;
    const uint64_t *known = addrset_find(&o->types.known, addr);
    if (known)
        return *known ? &o->types.items[*known - 1] : NULL;
    /* Too deep says nothing about the type as such. */
    if (depth >= MAX_DEPTH)
        return NULL;
    const struct type_info *t = prove(o, addr, depth);
    if (!t)
        reject(o, addr);
    return t;
}

const struct type_info *types_get(struct objects *o, uint64_t addr)
{
    return get(o, addr, 0);
}

void types_tell(const struct objects *o)
{
    for (size_t i = 0; i < o->types.n; i++)
        if (o->types.items[i].unnamed)
            note_add(o->notes, "types.unnamed", o->types.items[i].addr, 0,
                     "the name of a type lies in a file that is not at hand");
    if (o->types.no_memory)
        note_add(o->notes, "objects.memory", 0, 0,
                 "no memory for one more type: its objects are counted as unowned");
}
