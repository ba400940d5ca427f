#include "walker/cpython/layout.h"

#include <assert.h>

#include "formats/base/num.h"

static const char *const field_names[LF_COUNT] = {
#define FIELD(name, ...) #name,
#define SIZEOF(name, ...) #name,
#include "walker/cpython/fields.def"
#undef FIELD
#undef SIZEOF
};

const char *layout_field_name(enum layout_field field)
{
    return (unsigned)field < LF_COUNT ? field_names[field] : "?";
}

int layout_require(const struct layout *l, enum layout_field field, struct err *err)
{
    if (layout_has(l, field))
        return 0;
    return err_set(err, ERR_UNSUPPORTED, "the layout of Python %s%s%s (%s) has no field %s",
                   l->name ? l->name : "?", l->debug ? " debug" : "",
                   l->free_threaded ? " free-threaded" : "", l->source ? l->source : "?",
                   layout_field_name(field));
}

static int64_t slot_extend(const struct layout_slot *slot, uint64_t v)
{
    if (slot->bits || slot->width >= 8)
        return (int64_t)v;
    uint64_t sign = (uint64_t)1 << (8 * slot->width - 1);
    return (int64_t)((v ^ sign) - sign);
}

int layout_u64(const struct layout *l, struct mem *mem, uint64_t base, enum layout_field field,
               uint64_t *ret, struct err *err)
{
    int rc = layout_require(l, field, err);
    if (rc)
        return rc;
    const struct layout_slot *slot = &l->slots[field];
    if (!layout_slot_is_number(slot))
        return err_set(err, ERR_UNSUPPORTED,
                       "field %s of Python %s is not a number of 1 to 8 bytes",
                       layout_field_name(field), l->name);
    uint8_t bytes[8] = {0};
    uint64_t addr;
    if (add_overflows(base, (uint64_t)slot->offset, &addr))
        return err_fault(err, base, "cannot read %s: the address wraps", layout_field_name(field));
    rc = mem_read(mem, addr, bytes, slot->width, err);
    if (rc)
        return err_context(err, rc, "%s", layout_field_name(field));
    *ret = layout_slot_load(slot, bytes);
    return 0;
}

int layout_i64(const struct layout *l, struct mem *mem, uint64_t base, enum layout_field field,
               int64_t *ret, struct err *err)
{
    uint64_t v;
    int rc = layout_u64(l, mem, base, field, &v, err);
    if (rc)
        return rc;
    *ret = slot_extend(&l->slots[field], v);
    return 0;
}

int64_t layout_load_signed(const struct layout *l, const uint8_t *window, enum layout_field field)
{
    return slot_extend(&l->slots[field], layout_load(l, window, field));
}
