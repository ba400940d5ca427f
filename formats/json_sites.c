/* The records "frame", "traceback" and "site": who allocated. They refer to each other by number,
 * in the order of the file, and only to what came before them. */
#include <limits.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "formats/json_decode.h"
#include "formats/json_fields.h"

/* Entries of all lists together: a small packed file must not unpack to all memory. */
enum { FRAME_IDS_MAX = 1 << 30, SIZE_COUNTS_MAX = 1 << 28 };

/* ---- writing ---- */

void json_emit_traceback(struct json_emit *e, const struct snapshot *snap,
                         const struct snapshot_traceback *t)
{
    emit_key(e, "frames");
    emit_open(e, '[');
    for (uint32_t i = 0; i < t->n && i < JSON_LIST_MAX; i++)
        emit_u64(e, snap->frame_ids[t->first + i]);
    emit_close(e, ']');
    json_emit_fields(e, t, json_traceback_fields);
}

void json_emit_site(struct json_emit *e, const struct snapshot *snap,
                    const struct snapshot_site *site)
{
    const struct snapshot_size_count *c = snap->size_counts + site->first_size;
    json_emit_fields(e, site, json_site_fields);
    emit_key(e, "sizes");
    emit_open(e, '[');
    for (uint32_t i = 0; i < site->n_sizes && site->n_sizes <= JSON_LIST_MAX; i++) {
        emit_open(e, '[');
        emit_u64(e, c[i].size);
        emit_u64(e, c[i].count);
        emit_close(e, ']');
    }
    emit_close(e, ']');
}

/* ---- reading ---- */

static int no_memory(struct json_decoder *d)
{
    return err_set(d->err, ERR_NOMEM, "no memory for a record");
}

static int map_add(struct json_decoder *d, struct json_map *map, size_t index_plus_1)
{
    if (vec_reserve(&map->to, &map->cap, map->n + 1, sizeof *map->to) < 0)
        return no_memory(d);
    map->to[map->n++] = (uint32_t)index_plus_1;
    return 0;
}

static bool map_find(const struct json_map *map, uint64_t v, uint32_t *ret)
{
    if (v >= map->n)
        return false;
    *ret = map->to[v];
    return true;
}

bool json_find_site(const struct json_decoder *d, uint64_t v, uint32_t *ret)
{
    *ret = 0;
    return map_find(&d->sites, v, ret) || d->partial;
}

/* A list of at most JSON_LIST_MAX entries; NULL with an error. */
static const json_t *list_of(struct json_decoder *d, const json_t *object, const char *name)
{
    const json_t *v = json_object_get(object, name);
    if (!json_is_array(v))
        json_wrong(d, name, "is not a list");
    else if (json_array_size(v) > JSON_LIST_MAX)
        json_wrong(d, name, "has more than 1,048,576 entries");
    else
        return v;
    return NULL;
}

static bool integer(const json_t *v, uint64_t *ret)
{
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(v);
    return true;
}

int json_decode_frame(struct json_decoder *d, const json_t *object)
{
    memset(&d->frame, 0, sizeof d->frame);
    return json_decode(d, object, json_frame_fields, &d->frame);
}

int json_quick_frame(struct json_decoder *d, struct json_scan *scan)
{
    if (!SCAN(scan, "\"file\":"))
        return 0;
    int rc = json_quick_str(d, scan, &d->frame.file);
    if (rc <= 0 || !SCAN(scan, ",\"line\":") || !scan_u32(scan, &d->frame.line) ||
        !SCAN(scan, ",\"function\":"))
        return rc < 0 ? rc : 0;
    rc = json_quick_str_null(d, scan, &d->frame.function);
    return rc <= 0 ? rc : scan_char(scan, '}');
}

int json_keep_frame(struct json_decoder *d)
{
    struct snapshot_frame *f = snapshot_add_frame(d->snap);
    if (!f)
        return no_memory(d);
    *f = d->frame;
    return 0;
}

/* ---- tracebacks ---- */

static int add_frame_id(struct json_decoder *d, uint64_t v)
{
    if (vec_reserve(&d->frames, &d->cap_frames, d->n_frames + 1, sizeof *d->frames) < 0)
        return no_memory(d);
    d->frames[d->n_frames++] = v > UINT32_MAX ? UINT32_MAX : (uint32_t)v;
    return 0;
}

int json_decode_traceback(struct json_decoder *d, const json_t *object)
{
    struct snapshot_traceback t = {.total = 0};
    const json_t *frames = list_of(d, object, "frames");
    if (!frames)
        return ERR_FORMAT;
    d->n_frames = 0;
    for (size_t i = 0; i < json_array_size(frames); i++) {
        uint64_t v;
        if (!integer(json_array_get(frames, i), &v))
            return json_wrong(d, "frames", "has an entry that is no integer of 0 or more");
        int rc = add_frame_id(d, v);
        if (rc < 0)
            return rc;
    }
    int rc = json_decode(d, object, json_traceback_fields, &t);
    d->frames_total = t.total;
    return rc;
}

int json_quick_traceback(struct json_decoder *d, struct json_scan *scan)
{
    uint64_t v;
    d->n_frames = 0;
    if (!SCAN(scan, "\"frames\":["))
        return 0;
    for (bool more = !scan_char(scan, ']'); more;) {
        if (d->n_frames == JSON_LIST_MAX || !scan_u64(scan, &v) || !scan_next(scan, &more))
            return 0;
        int rc = add_frame_id(d, v);
        if (rc < 0)
            return rc;
    }
    return SCAN(scan, ",\"total\":") && scan_u32(scan, &d->frames_total) && scan_char(scan, '}');
}

static bool frames_are_there(const struct json_decoder *d)
{
    for (size_t i = 0; i < d->n_frames; i++)
        if (d->frames[i] >= d->snap->n_frames)
            return false;
    return true;
}

int json_keep_traceback(struct json_decoder *d)
{
    if (!frames_are_there(d)) {
        if (d->partial)
            return map_add(d, &d->tracebacks, 0);
        return json_wrong(d, "frames", "has an entry without a record \"frame\" before it");
    }
    if (d->n_frames > FRAME_IDS_MAX - d->snap->n_frame_ids)
        return json_wrong(d, "frames", "adds up to more than 2^30 entries");
    if (!snapshot_add_traceback(d->snap, d->frames, (uint32_t)d->n_frames, d->frames_total))
        return no_memory(d);
    return map_add(d, &d->tracebacks, d->snap->n_tracebacks);
}

/* ---- sites ---- */

static int add_size(struct json_decoder *d, uint64_t size, uint64_t count)
{
    if (vec_reserve(&d->sizes, &d->cap_sizes, d->n_sizes + 1, sizeof *d->sizes) < 0)
        return no_memory(d);
    d->sizes[d->n_sizes++] = (struct snapshot_size_count){size, count};
    return 0;
}

static int decode_sizes(struct json_decoder *d, const json_t *sizes)
{
    d->n_sizes = 0;
    for (size_t i = 0; i < json_array_size(sizes); i++) {
        const json_t *pair = json_array_get(sizes, i);
        uint64_t size, count;
        if (json_array_size(pair) != 2 || !integer(json_array_get(pair, 0), &size) ||
            !integer(json_array_get(pair, 1), &count))
            return json_wrong(d, "sizes", "has an entry that is not a size and a count");
        int rc = add_size(d, size, count);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int json_decode_site(struct json_decoder *d, const json_t *object)
{
    const json_t *sizes = list_of(d, object, "sizes");
    if (!sizes)
        return ERR_FORMAT;
    memset(&d->site, 0, sizeof d->site);
    int rc = json_decode(d, object, json_site_fields, &d->site);
    return rc < 0 ? rc : decode_sizes(d, sizes);
}

static int quick_sizes(struct json_decoder *d, struct json_scan *scan)
{
    uint64_t size, count;
    d->n_sizes = 0;
    for (bool more = !scan_char(scan, ']'); more;) {
        if (d->n_sizes == JSON_LIST_MAX || !scan_char(scan, '[') || !scan_u64(scan, &size) ||
            !scan_char(scan, ',') || !scan_u64(scan, &count) || !scan_char(scan, ']') ||
            !scan_next(scan, &more))
            return 0;
        int rc = add_size(d, size, count);
        if (rc < 0)
            return rc;
    }
    return scan_char(scan, '}');
}

/* ,"key":text where the key with its marks is given. */
static int quick_member(struct json_decoder *d, struct json_scan *scan, const char *key,
                        const char **ret)
{
    return scan_is(scan, key, strlen(key)) ? json_quick_str_null(d, scan, ret) : 0;
}

int json_quick_site(struct json_decoder *d, struct json_scan *scan)
{
    struct snapshot_site *s = &d->site;
    memset(s, 0, sizeof *s);
    if (!SCAN(scan, "\"traceback\":") || !scan_u32(scan, &s->traceback))
        return 0;
    int rc = quick_member(d, scan, ",\"type\":", &s->type);
    if (rc > 0)
        rc = quick_member(d, scan, ",\"kind\":", &s->kind);
    if (rc > 0)
        rc = SCAN(scan, ",\"domain\":") && scan_u32(scan, &s->domain);
    if (rc > 0)
        rc = quick_member(d, scan, ",\"source\":", &s->source);
    if (rc <= 0)
        return rc;
    if (!SCAN(scan, ",\"count\":") || !scan_u64(scan, &s->count) || !SCAN(scan, ",\"bytes\":") ||
        !scan_u64(scan, &s->bytes) || !SCAN(scan, ",\"sizes\":["))
        return 0;
    return quick_sizes(d, scan);
}

/* Where sizes were kept they are all of the site's. */
static int check_sizes(struct json_decoder *d)
{
    uint64_t count = 0, bytes = 0, product;
    for (size_t i = 0; i < d->n_sizes; i++) {
        const struct snapshot_size_count *c = &d->sizes[i];
        if (mul_overflows(c->size, c->count, &product) || add_overflows(bytes, product, &bytes) ||
            add_overflows(count, c->count, &count))
            return json_wrong(d, "sizes", "adds up to more than 2^63 - 1");
    }
    if (d->n_sizes && (count != d->site.count || bytes != d->site.bytes))
        return json_wrong(d, "sizes", "does not add up to \"count\" and \"bytes\"");
    if (d->n_sizes > SIZE_COUNTS_MAX - d->snap->n_size_counts)
        return json_wrong(d, "sizes", "adds up to more than 2^28 entries");
    return 0;
}

static int add_site(struct json_decoder *d, uint32_t traceback)
{
    struct snapshot_site *s = snapshot_add_site(d->snap);
    if (!s)
        return no_memory(d);
    size_t first = s->first_size;
    *s = d->site;
    s->first_size = first;
    s->traceback = traceback;
    for (size_t i = 0; i < d->n_sizes; i++)
        if (!snapshot_add_size_count(d->snap, d->sizes[i].size, d->sizes[i].count))
            return no_memory(d);
    return map_add(d, &d->sites, d->snap->n_sites);
}

int json_keep_site(struct json_decoder *d)
{
    uint32_t traceback = 0;
    int rc = check_sizes(d);
    if (rc == 0)
        rc = json_add_total(d, "count", &d->totals->count, d->site.count);
    if (rc == 0)
        rc = json_add_total(d, "bytes", &d->totals->bytes, d->site.bytes);
    if (rc < 0)
        return rc;
    if (!map_find(&d->tracebacks, d->site.traceback, &traceback) && !d->partial)
        return json_wrong(d, "traceback", "has no record \"traceback\" before it");
    if (traceback)
        return add_site(d, traceback - 1);
    d->lost_sites++;
    d->lost_bytes += d->site.bytes; /* cannot wrap: the total did not */
    return map_add(d, &d->sites, 0);
}
