/* Tracebacks of tracemalloc and the names of files in their frames.
 *
 * Many traces share a traceback and nearly all frames share few names, so that each is read once. A
 * traceback counts if its number of frames is one that it can have and all of them name a file. */
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "walker/cpython/object_place.h"
#include "walker/cpython/tracemalloc.h"
#include "walker/cpython/type_names.h"

enum {
    PIECE = 4096,          /* bytes that are read at a time: of frames, of names */
    NAME_MAX_CHARS = 16384 /* of a file name; more is cut */
};

/* ---- file names ---- */

enum name_state { NAME_OK, NAME_NONE, NAME_MISSING, NAME_NOMEM };

static bool name_put(struct tracing *t, size_t *n, uint32_t c)
{
    if (vec_reserve(&t->name, &t->cap_name, *n + TEXT_CHAR_BYTES, 1) < 0)
        return false;
    if (c >= 0xdc80 && c <= 0xdcff) /* surrogateescape: the file's own name has this byte */
        t->name[(*n)++] = (char)(c & 0xff);
    else
        *n += text_utf8(c, t->name + *n);
    return true;
}

/* 3.8-3.14: a str of any kind. *n: bytes of t->name. */
static enum name_state read_str(struct tracing *t, uint64_t obj, size_t *n)
{
    struct objects *o = t->o;
    uint64_t data, length;
    unsigned width;
    if (!objects_peek(o, obj, layout_size(&o->py->layout, LF_str_ascii_sizeof) + objects_shift(o)))
        return NAME_MISSING;
    if (!text_is_str(o, obj) || !text_str_chars(o, obj + objects_shift(o), &data, &length, &width))
        return NAME_NONE;
    length = min_u64(length, NAME_MAX_CHARS);
    for (uint64_t at = 0, step; at < length; at += step) {
        step = min_u64(length - at, PIECE / width);
        const uint8_t *p = objects_peek(o, data + at * width, step * width);
        if (!p)
            return NAME_MISSING;
        for (uint64_t i = 0; i < step; i++) {
            uint32_t c = 0;
            memcpy(&c, p + i * width, width);
            if (c > 0x10ffff)
                return NAME_NONE;
            if (!name_put(t, n, c))
                return NAME_NOMEM;
        }
    }
    return NAME_OK;
}

/* A lone surrogate in three bytes, as Python lets it through; 0: there is none. */
static uint32_t surrogate_at(const uint8_t *p, size_t len)
{
    if (len < 3 || p[0] != 0xed || p[1] < 0xa0 || p[1] > 0xbf || p[2] >> 6 != 2)
        return 0;
    return 0xd000u | (uint32_t)(p[1] & 0x3f) << 6 | (p[2] & 0x3f);
}

/* Bytes that are no UTF-8 become what Python makes of such names (surrogateescape). */
static bool name_put_bytes(struct tracing *t, size_t *n, const uint8_t *p, size_t len)
{
    bool good = true;
    for (size_t i = 0; i < len && good;) {
        uint32_t c;
        size_t step = text_utf8_char(p + i, len - i, &c);
        if (step == 0 && (c = surrogate_at(p + i, len - i)) != 0)
            step = 3;
        good = name_put(t, n, step ? c : 0xdc00u | p[i]);
        i += step ? step : 1;
    }
    return good;
}

/* 3.15+: UTF-8, ended by 0. */
static enum name_state read_cstr(struct tracing *t, uint64_t addr, size_t *n)
{
    uint8_t buf[NAME_MAX_CHARS];
    size_t have = 0;
    const uint8_t *end = NULL;
    while (!end && have < sizeof buf) {
        enum { STEP = 256 };
        size_t want = min_u64(STEP, sizeof buf - have);
        size_t got = mem_read_some(t->o->far, addr + have, buf + have, want);
        end = memchr(buf + have, '\0', got);
        if (!end && got < want)
            return NAME_MISSING;
        have = end ? (size_t)(end - buf) : have + got;
    }
    return name_put_bytes(t, n, buf, have) ? NAME_OK : NAME_NOMEM;
}

static bool is_mapped(const struct objects *o, uint64_t addr)
{
    const struct vma *v = vma_at(o->in->vmas, addr);
    return v && v->r;
}

/* The name at addr as the snapshot has it; NULL: there is none, or no memory. What is mapped but
 * not there (swapped out, cut off) stays without a name. */
static enum name_state name_make(struct tracing *t, uint64_t addr, const char **ret)
{
    size_t n = 0;
    enum name_state state = t->o->py->traits->tracemalloc_filename_utf8 ? read_cstr(t, addr, &n)
                                                                        : read_str(t, addr, &n);
    if (state == NAME_MISSING && is_mapped(t->o, addr)) {
        t->unnamed++;
        *ret = snapshot_str(t->snap, TRACING_UNKNOWN);
        return *ret ? NAME_OK : NAME_NOMEM;
    }
    if (state != NAME_OK)
        return state;
    if (n > t->budget)
        return NAME_NONE;
    t->budget -= n;
    *ret = strpool_add_n(&t->snap->strings, n ? t->name : "", n);
    return *ret ? NAME_OK : NAME_NOMEM;
}

static enum name_state name_at(struct tracing *t, uint64_t addr, const char **ret)
{
    uint64_t *known = addrset_find(&t->names, addr);
    *ret = NULL;
    if (!known) {
        enum name_state state = addr ? name_make(t, addr, ret) : NAME_NONE;
        if (state == NAME_NOMEM || !addr)
            return state;
        if (addrset_add(&t->names, addr, (uint64_t)(uintptr_t)*ret, NULL) < 0)
            return NAME_NOMEM;
    } else {
        *ret = (const char *)(uintptr_t)*known;
    }
    return *ret ? NAME_OK : NAME_NONE;
}

/* ---- tracebacks ---- */

struct traceback_head {
    uint64_t nframe, total;
};

static bool head_read(struct objects *o, uint64_t addr, uint64_t max_nframe,
                      struct traceback_head *ret)
{
    const struct layout *l = &o->py->layout;
    const uint8_t *p = addr % 8 ? NULL : objects_peek(o, addr, layout_offset(l, LF_tb_frames));
    if (!addr || !p)
        return false;
    ret->nframe = layout_load(l, p, LF_tb_nframe);
    ret->total = layout_has(l, LF_tb_total_nframe) ? layout_load(l, p, LF_tb_total_nframe) : 0;
    return ret->nframe >= 1 && ret->nframe <= max_nframe &&
           (!layout_has(l, LF_tb_total_nframe) || ret->total >= ret->nframe);
}

static bool is_name(struct objects *o, uint64_t addr)
{
    uint8_t first;
    if (!o->py->traits->tracemalloc_filename_utf8)
        return addr && text_is_str(o, addr);
    return addr && mem_read_some(o->far, addr, &first, 1) == 1;
}

bool tracing_traceback_at(struct objects *o, uint64_t addr, uint64_t max_nframe)
{
    const struct layout *l = &o->py->layout;
    struct traceback_head h;
    uint64_t first, last, stride = layout_size(l, LF_tbframe_size);
    if (!head_read(o, addr, max_nframe, &h))
        return false;
    uint64_t frames = addr + layout_offset(l, LF_tb_frames);
    return layout_u64(l, o->far, frames, LF_tbframe_filename, &first, NULL) == 0 &&
           layout_u64(l, o->far, frames + (h.nframe - 1) * stride, LF_tbframe_filename, &last,
                      NULL) == 0 &&
           is_name(o, first) && is_name(o, last);
}

/* The snapshot's frame: index + 1; 0 for want of memory. */
static uint64_t frame_of(struct tracing *t, const char *file, uint32_t line)
{
    uint64_t *known = pairmap_at(&t->frames, (uint64_t)(uintptr_t)file, line);
    if (!known || *known)
        return known ? *known : 0;
    struct snapshot_frame *f = t->snap->n_frames < UINT32_MAX ? snapshot_add_frame(t->snap) : NULL;
    /* An entry without a value would be taken for empty, but not for new again. */
    *known = f ? t->snap->n_frames : UINT64_MAX;
    if (!f)
        return 0;
    f->file = file;
    f->line = line;
    return *known;
}

/* n frames at `at` into ids: NAME_OK, NAME_NONE (no frames), NAME_NOMEM. */
static enum name_state read_frames(struct tracing *t, uint64_t at, size_t n, uint32_t *ids)
{
    const struct layout *l = &t->o->py->layout;
    uint8_t bytes[PIECE];
    size_t stride = layout_size(l, LF_tbframe_size), step;
    for (size_t i = 0; i < n; i += step) {
        step = min_u64(n - i, sizeof bytes / stride);
        const uint8_t *p = objects_peek(t->o, at + i * stride, step * stride);
        if (!p)
            return NAME_NONE;
        memcpy(bytes, p, step * stride);
        for (size_t k = 0; k < step; k++) {
            const char *file;
            const uint8_t *f = bytes + k * stride;
            enum name_state state = name_at(t, layout_load(l, f, LF_tbframe_filename), &file);
            uint64_t id = 0;
            if (state != NAME_OK)
                return state;
            if (!(id = frame_of(t, file, (uint32_t)layout_load(l, f, LF_tbframe_lineno))))
                return NAME_NOMEM;
            ids[i + k] = (uint32_t)(id - 1);
        }
    }
    return NAME_OK;
}

static enum name_state read_traceback(struct tracing *t, uint64_t addr, uint64_t *index)
{
    const struct layout *l = &t->o->py->layout;
    struct traceback_head h;
    if (!head_read(t->o, addr, t->place.max_nframe, &h))
        return NAME_NONE;
    uint64_t bytes = h.nframe * layout_size(l, LF_tbframe_size);
    if (bytes > t->budget)
        return NAME_NONE;
    t->budget -= bytes;
    if (vec_reserve(&t->ids, &t->cap_ids, h.nframe, sizeof *t->ids) < 0)
        return NAME_NOMEM;
    enum name_state state = read_frames(t, addr + layout_offset(l, LF_tb_frames), h.nframe, t->ids);
    if (state != NAME_OK)
        return state;
    if (t->snap->n_tracebacks == UINT32_MAX ||
        !snapshot_add_traceback(t->snap, t->ids, (uint32_t)h.nframe, (uint32_t)h.total))
        return NAME_NOMEM;
    *index = t->snap->n_tracebacks;
    return NAME_OK;
}

int tracing_traceback(struct tracing *t, uint64_t addr, uint64_t *index)
{
    return read_traceback(t, addr, index) == NAME_NOMEM ? ERR_NOMEM : 0;
}
