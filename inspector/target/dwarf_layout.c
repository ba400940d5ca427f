/* DWARF -> struct layout. The paths of fields.def are compiled into a list of root types; one pass
 * over all units finds a complete definition of each; then every path is followed from its root.
 *
 * Files are hostile: libdw checks the bounds of sections, we bound every loop that follows
 * references (types may refer to themselves, siblings may point backwards). */
#include "inspector/target/dwarf_layout.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <libelf.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_ALTERNATIVES = 4,
    MAX_ROOTS = 256,
    MAX_PEEL = 32,     /* typedefs, qualifiers and wrappers on the way to a type */
    MAX_ANON = 6,      /* nesting of anonymous structures and unions */
    MAX_STEPS = 20000, /* members looked at for one component of a path */
    MAX_NAME = 96
};

struct rule {
    bool is_size;
    const char *paths[MAX_ALTERNATIVES];
};

static const struct rule rules[LF_COUNT] = {
#define FIELD(name, ...) [LF_##name] = {false, {__VA_ARGS__}},
#define SIZEOF(name, ...) [LF_##name] = {true, {__VA_ARGS__}},
#include "walker/cpython/fields.def"
#undef FIELD
#undef SIZEOF
};

/* The type that a path starts with. */
struct root {
    char name[MAX_NAME]; /* without "struct " or "union " */
    int tag;             /* DW_TAG_structure_type, DW_TAG_union_type or DW_TAG_typedef */
    bool found;
    Dwarf_Die die; /* the complete structure or union behind it */
};

struct roots {
    struct root items[MAX_ROOTS];
    size_t n;
};

/* A type with everything around it stripped off. */
struct shape {
    uint64_t width, count;
    enum layout_kind kind;
};

/* Split "struct x.a.b" into the root and the rest ("a.b", or "" if nothing follows). */
static const char *split_root(const char *path, struct root *root)
{
    memset(root, 0, sizeof *root);
    root->tag = DW_TAG_typedef;
    if (strncmp(path, "struct ", 7) == 0) {
        root->tag = DW_TAG_structure_type;
        path += 7;
    } else if (strncmp(path, "union ", 6) == 0) {
        root->tag = DW_TAG_union_type;
        path += 6;
    }
    size_t len = strcspn(path, ".");
    if (len < sizeof root->name)
        memcpy(root->name, path, len);
    return path[len] == '.' ? path + len + 1 : path + len;
}

static struct root *find_root(struct roots *roots, const char *name, int tag)
{
    for (size_t i = 0; i < roots->n; i++)
        if (roots->items[i].tag == tag && strcmp(roots->items[i].name, name) == 0)
            return &roots->items[i];
    return NULL;
}

static void collect_roots(struct roots *roots)
{
    for (size_t f = 0; f < LF_COUNT; f++)
        for (size_t a = 0; a < MAX_ALTERNATIVES && rules[f].paths[a]; a++) {
            struct root root;
            split_root(rules[f].paths[a], &root);
            if (!find_root(roots, root.name, root.tag) && roots->n < MAX_ROOTS)
                roots->items[roots->n++] = root;
        }
}

static bool die_type(Dwarf_Die *die, Dwarf_Die *ret)
{
    Dwarf_Attribute attr;
    return dwarf_attr_integrate(die, DW_AT_type, &attr) && dwarf_formref_die(&attr, ret);
}

static bool is_wrapper(int tag)
{
    return tag == DW_TAG_typedef || tag == DW_TAG_const_type || tag == DW_TAG_volatile_type ||
           tag == DW_TAG_restrict_type || tag == DW_TAG_atomic_type;
}

/* Strip typedefs and qualifiers off. */
static bool peel(Dwarf_Die *die)
{
    for (int i = 0; i < MAX_PEEL; i++) {
        Dwarf_Die next;
        if (!is_wrapper(dwarf_tag(die)))
            return true;
        if (!die_type(die, &next))
            return false;
        *die = next;
    }
    return false;
}

static bool is_complete_aggregate(Dwarf_Die *die)
{
    int tag = dwarf_tag(die);
    return (tag == DW_TAG_structure_type || tag == DW_TAG_union_type) &&
           !dwarf_hasattr(die, DW_AT_declaration) && dwarf_hasattr(die, DW_AT_byte_size);
}

static bool die_unsigned(Dwarf_Die *die, unsigned name, uint64_t *ret)
{
    Dwarf_Attribute attr;
    Dwarf_Word word;
    if (!dwarf_attr(die, name, &attr) || dwarf_formudata(&attr, &word) != 0)
        return false;
    *ret = word;
    return true;
}

/* The next sibling, which must lie further on in the unit: a DW_AT_sibling that points backwards
 * would never end. */
static bool next_sibling(Dwarf_Die *die)
{
    Dwarf_Die next;
    Dwarf_Off here = dwarf_dieoffset(die);
    if (dwarf_siblingof(die, &next) != 0 || dwarf_dieoffset(&next) <= here)
        return false;
    *die = next;
    return true;
}

static void take_root(struct roots *roots, Dwarf_Die *die)
{
    int tag = dwarf_tag(die);
    if (tag != DW_TAG_typedef && tag != DW_TAG_structure_type && tag != DW_TAG_union_type)
        return;
    const char *name = dwarf_diename(die);
    struct root *root = name ? find_root(roots, name, tag) : NULL;
    if (!root || root->found)
        return;
    Dwarf_Die type = *die;
    if (!peel(&type) || !is_complete_aggregate(&type))
        return;
    root->die = type;
    root->found = true;
}

/* All types of the file that the paths start with; returns how many units there were. */
static size_t scan_units(Dwarf *dwarf, struct roots *roots, char *producer)
{
    Dwarf_CU *cu = NULL;
    Dwarf_Die unit, die;
    uint8_t type;
    size_t units = 0;

    while (dwarf_get_units(dwarf, cu, &cu, NULL, &type, &unit, NULL) == 0) {
        Dwarf_Attribute attr;
        units++;
        if (producer && !producer[0] && dwarf_attr(&unit, DW_AT_producer, &attr)) {
            const char *text = dwarf_formstring(&attr);
            if (text)
                strncpy(producer, text, DWARF_PRODUCER_CHARS - 1);
        }
        if (dwarf_child(&unit, &die) != 0)
            continue;
        do
            take_root(roots, &die);
        while (next_sibling(&die));
    }
    return units;
}

/* The number of elements of one array type; 0 for a flexible array. */
static uint64_t array_count(Dwarf_Die *array)
{
    Dwarf_Die die;
    uint64_t count = 1, n;

    if (dwarf_child(array, &die) != 0)
        return 0;
    do {
        if (dwarf_tag(&die) != DW_TAG_subrange_type)
            continue;
        if (die_unsigned(&die, DW_AT_count, &n))
            count *= n < UINT32_MAX ? n : 0;
        else if (die_unsigned(&die, DW_AT_upper_bound, &n))
            count *= n < UINT32_MAX ? n + 1 : 0; /* int a[0] has an upper bound of -1 */
        else
            count = 0;
        if (count > UINT32_MAX)
            return 0;
    } while (next_sibling(&die));
    return count;
}

/* The only member of a structure or union, if it has exactly one and that is not a bit field. */
static bool sole_member(Dwarf_Die *aggregate, Dwarf_Die *type)
{
    Dwarf_Die die, only;
    size_t members = 0;

    if (dwarf_child(aggregate, &die) != 0)
        return false;
    do {
        if (dwarf_tag(&die) != DW_TAG_member)
            continue;
        only = die;
        members++;
    } while (members < 2 && next_sibling(&die));
    if (members != 1 || dwarf_hasattr(&only, DW_AT_bit_size))
        return false;
    return die_type(&only, type);
}

static bool type_shape(Dwarf_Die *type, struct shape *ret, unsigned depth);

/* A structure of one member counts as that member, unless it is padded. */
static bool aggregate_shape(Dwarf_Die *type, struct shape *ret, unsigned depth)
{
    Dwarf_Die inner;
    struct shape inside;
    uint64_t size;

    if (!is_complete_aggregate(type) || !die_unsigned(type, DW_AT_byte_size, &size))
        return false;
    if (sole_member(type, &inner) && type_shape(&inner, &inside, depth + 1) && inside.count == 1 &&
        inside.width == size) {
        *ret = inside;
        return true;
    }
    *ret = (struct shape){.width = size, .count = 1, .kind = LAYOUT_EMBEDDED};
    return true;
}

static bool array_shape(Dwarf_Die *type, struct shape *ret, unsigned depth)
{
    Dwarf_Die element;
    if (!die_type(type, &element) || !type_shape(&element, ret, depth + 1))
        return false;
    ret->count *= array_count(type);
    return ret->count <= UINT32_MAX;
}

static bool type_shape(Dwarf_Die *given, struct shape *ret, unsigned depth)
{
    Dwarf_Die type = *given;
    uint64_t size;

    if (depth > MAX_ANON || !peel(&type))
        return false;
    switch (dwarf_tag(&type)) {
    case DW_TAG_base_type:
    case DW_TAG_enumeration_type:
        if (!die_unsigned(&type, DW_AT_byte_size, &size))
            return false;
        *ret = (struct shape){.width = size, .count = 1, .kind = LAYOUT_VALUE};
        return true;
    case DW_TAG_pointer_type:
        *ret = (struct shape){.width = 8, .count = 1, .kind = LAYOUT_POINTER};
        return true;
    case DW_TAG_array_type:
        return array_shape(&type, ret, depth);
    case DW_TAG_structure_type:
    case DW_TAG_union_type:
        return aggregate_shape(&type, ret, depth);
    default:
        return false;
    }
}

/* Byte offset of a member: a constant, or (old compilers) an expression that adds one. Members of
 * unions have none. */
static bool member_offset(Dwarf_Die *member, uint64_t *ret)
{
    Dwarf_Attribute attr;
    Dwarf_Word word;
    Dwarf_Op *ops;
    size_t n_ops;

    *ret = 0;
    if (!dwarf_attr(member, DW_AT_data_member_location, &attr))
        return true;
    if (dwarf_formudata(&attr, &word) == 0) {
        *ret = word;
        return true;
    }
    if (dwarf_getlocation(&attr, &ops, &n_ops) != 0 || n_ops != 1 ||
        ops[0].atom != DW_OP_plus_uconst)
        return false;
    *ret = ops[0].number;
    return true;
}

/* A named member, also inside anonymous structures and unions; *offset is increased by its place.
 * `steps` bounds the whole search: a type that contains itself would branch without end. */
static bool find_member(Dwarf_Die *aggregate, const char *name, size_t len, unsigned depth,
                        unsigned *steps, Dwarf_Die *ret, uint64_t *offset)
{
    Dwarf_Die die, type;
    uint64_t place;

    if (depth > MAX_ANON || dwarf_child(aggregate, &die) != 0)
        return false;
    do {
        if (++*steps > MAX_STEPS)
            return false;
        if (dwarf_tag(&die) != DW_TAG_member || !member_offset(&die, &place))
            continue;
        const char *have = dwarf_diename(&die);
        if (have && strlen(have) == len && memcmp(have, name, len) == 0) {
            *ret = die;
            *offset += place;
            return true;
        }
        if (have || !die_type(&die, &type) || !peel(&type))
            continue;
        uint64_t inner = *offset + place;
        if (find_member(&type, name, len, depth + 1, steps, ret, &inner)) {
            *offset = inner;
            return true;
        }
    } while (next_sibling(&die));
    return false;
}

/* Bit fields: DWARF 4 and later give the bit offset from the start of the structure, before that
 * (DW_AT_bit_offset) it counts from the high end of the containing unit. */
static bool set_bits(Dwarf_Die *member, struct layout_slot *slot, uint64_t offset)
{
    uint64_t bits, at, unit = slot->width;

    if (!die_unsigned(member, DW_AT_bit_size, &bits))
        return true;
    if (bits == 0 || bits > 64 || unit == 0 || unit > 8)
        return false;
    if (die_unsigned(member, DW_AT_data_bit_offset, &at)) {
        uint64_t byte = offset + at / 8;
        if (byte > INT32_MAX)
            return false;
        slot->offset = (int32_t)(byte - byte % unit);
        at = (byte % unit) * 8 + at % 8;
    } else if (die_unsigned(member, DW_AT_bit_offset, &at)) {
        at = unit * 8 - at - bits;
    } else {
        at = 0;
    }
    if (at + bits > unit * 8)
        return false;
    slot->shift = (uint8_t)at;
    slot->bits = (uint8_t)bits;
    return true;
}

static bool set_slot(Dwarf_Die *member, uint64_t offset, struct layout_slot *slot)
{
    struct shape shape;
    Dwarf_Die type;

    if (!die_type(member, &type) || !type_shape(&type, &shape, 0))
        return false;
    if (offset > INT32_MAX || shape.width > INT32_MAX)
        return false;
    struct layout_slot s = {.offset = (int32_t)offset,
                            .width = (uint32_t)shape.width,
                            .count = (uint32_t)shape.count,
                            .kind = (uint8_t)shape.kind};
    if (!set_bits(member, &s, offset))
        return false;
    *slot = s;
    return true;
}

/* Follow "a.b.c" from a structure. */
static bool follow(Dwarf_Die *root, const char *path, struct layout_slot *slot)
{
    Dwarf_Die at = *root, member;
    uint64_t offset = 0;

    for (;;) {
        size_t len = strcspn(path, ".");
        unsigned steps = 0;
        if (!is_complete_aggregate(&at) ||
            !find_member(&at, path, len, 0, &steps, &member, &offset))
            return false;
        if (path[len] == 0)
            return set_slot(&member, offset, slot);
        path += len + 1;
        if (!die_type(&member, &at) || !peel(&at))
            return false;
    }
}

static void fill_slot(struct roots *roots, const struct rule *rule, struct layout_slot *slot)
{
    for (size_t a = 0; a < MAX_ALTERNATIVES && rule->paths[a]; a++) {
        struct root key;
        const char *rest = split_root(rule->paths[a], &key);
        struct root *root = find_root(roots, key.name, key.tag);
        uint64_t size;
        if (!root || !root->found)
            continue;
        if (!rule->is_size) {
            if (follow(&root->die, rest, slot))
                return;
        } else if (die_unsigned(&root->die, DW_AT_byte_size, &size) && size <= INT32_MAX) {
            *slot = (struct layout_slot){
                .offset = (int32_t)size, .width = 0, .count = 1, .kind = LAYOUT_SIZE};
            return;
        }
    }
}

void dwarf_layout_clear(struct layout *ret)
{
    for (size_t f = 0; f < LF_COUNT; f++)
        ret->slots[f] = (struct layout_slot){.offset = -1, .kind = LAYOUT_ABSENT};
}

static int fill_layout(Dwarf *dwarf, struct layout *ret, char *producer, struct err *err)
{
    struct roots *roots = calloc(1, sizeof *roots);
    if (!roots)
        return err_set(err, ERR_NOMEM, "out of memory");
    collect_roots(roots);
    size_t units = scan_units(dwarf, roots, producer);
    for (size_t f = 0; f < LF_COUNT; f++)
        if (ret->slots[f].kind == LAYOUT_ABSENT)
            fill_slot(roots, &rules[f], &ret->slots[f]);
    free(roots);
    if (!units)
        return err_set(err, ERR_NOT_FOUND, "the ELF file has no DWARF");
    if (layout_has(ret, LF_ob_tid))
        ret->free_threaded = true;
    return 0;
}

int dwarf_layout_add(int fd, struct layout *ret, char *producer, struct err *err)
{
    elf_version(EV_CURRENT);
    /* Not mapped: a file that is cut short meanwhile must give an error, not SIGBUS. */
    Elf *elf = elf_begin(fd, ELF_C_READ, NULL);
    if (!elf)
        return err_set(err, ERR_FORMAT, "not an ELF file: %s", elf_errmsg(-1));
    if (elf_kind(elf) != ELF_K_ELF) {
        elf_end(elf);
        return err_set(err, ERR_FORMAT, "not an ELF file");
    }
    int rc;
    Dwarf *dwarf = dwarf_begin_elf(elf, DWARF_C_READ, NULL);
    if (!dwarf)
        rc = err_set(err, ERR_NOT_FOUND, "no DWARF: %s", dwarf_errmsg(-1));
    else
        rc = fill_layout(dwarf, ret, producer, err);
    dwarf_end(dwarf);
    elf_end(elf);
    return rc;
}

int dwarf_layout(int fd, struct layout *ret, struct err *err)
{
    static const enum layout_field needed[] = {
        LF_rt_size,        LF_rt_interp_head, LF_interp_size,    LF_ts_size,   LF_pool_size,
        LF_pool_freeblock, LF_ob_type,        LF_type_basicsize, LF_type_name, LF_dict_keys};
    dwarf_layout_clear(ret);
    ret->free_threaded = false;
    int rc = dwarf_layout_add(fd, ret, NULL, err);
    for (size_t i = 0; rc == 0 && i < sizeof needed / sizeof *needed; i++)
        if (!layout_has(ret, needed[i]))
            rc = err_set(err, ERR_NOT_FOUND, "the DWARF does not describe CPython: no %s",
                         layout_field_name(needed[i]));
    return rc;
}
