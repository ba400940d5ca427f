/* Blocks in our own form: the only record that comes in tens of millions of rows. The columns are
 * taken one after the other, as they stand in the line. */
#include <stdlib.h>
#include <string.h>

#include "formats/block_stream.h"
#include "formats/json_decode.h"

static int quick_names(struct json_decoder *d, struct json_scan *scan)
{
    struct json_rows *r = d->rows;
    if (!SCAN(scan, "\"types\":["))
        return 0;
    for (bool more = !scan_char(scan, ']'); more;) {
        if (r->n_names == JSON_BLOCKS_ROWS)
            return 0;
        int rc = json_quick_str(d, scan, &r->names[r->n_names]);
        if (rc <= 0)
            return rc;
        r->n_names++;
        if (!scan_next(scan, &more))
            return 0;
    }
    return 1;
}

static bool quick_addresses(struct json_scan *scan, struct json_rows *r)
{
    if (!SCAN(scan, ",\"address\":["))
        return false;
    for (bool more = !scan_char(scan, ']'); more; r->n++)
        if (r->n == JSON_BLOCKS_ROWS || !scan_u64(scan, &r->rows[r->n].address) ||
            !scan_next(scan, &more))
            return false;
    return true;
}

/* Behind entry i of n: a comma, or the end. */
static bool between(struct json_scan *scan, size_t i, size_t n)
{
    return scan_char(scan, i + 1 < n ? ',' : ']');
}

static bool quick_sizes(struct json_scan *scan, struct json_rows *r)
{
    bool good = SCAN(scan, ",\"size\":[") && (r->n || scan_char(scan, ']'));
    for (size_t i = 0; i < r->n && good; i++)
        good = scan_u64(scan, &r->rows[i].size) && between(scan, i, r->n);
    return good;
}

static bool quick_owners(struct json_scan *scan, struct json_rows *r)
{
    bool good = SCAN(scan, ",\"owner\":[") && (r->n || scan_char(scan, ']'));
    for (size_t i = 0; i < r->n && good; i++)
        good = scan_u64(scan, &r->rows[i].owner) && between(scan, i, r->n);
    return good;
}

/* Kinds of a newer heapcensus are left to jansson. */
static bool quick_kind(struct json_scan *scan, const char *before, const char **ret)
{
    size_t len = before ? strlen(before) : 0;
    if (!scan_char(scan, '"'))
        return false;
    if (len && scan_is(scan, before, len) &&
        scan_char(scan, '"')) { /* neighbours often are alike */
        *ret = before;
        return true;
    }
    for (int k = 0; k < ROW_OTHER; k++) {
        const char *name = row_kind_name((enum row_kind)k);
        if (scan_is(scan, name, strlen(name))) {
            *ret = name;
            return scan_char(scan, '"');
        }
    }
    return false;
}

static bool quick_kinds(struct json_scan *scan, struct json_rows *r)
{
    bool good = SCAN(scan, ",\"kind\":[") && (r->n || scan_char(scan, ']'));
    for (size_t i = 0; i < r->n && good; i++)
        good = quick_kind(scan, i ? r->rows[i - 1].kind : NULL, &r->rows[i].kind) &&
               between(scan, i, r->n);
    return good;
}

static bool quick_type(struct json_scan *scan, const struct json_rows *r, const char **ret)
{
    uint64_t index;
    *ret = NULL;
    if (SCAN(scan, "null"))
        return true;
    if (!scan_u64(scan, &index) || index >= r->n_names)
        return false;
    *ret = r->names[index];
    return true;
}

static bool quick_types(struct json_scan *scan, struct json_rows *r)
{
    bool good = SCAN(scan, ",\"type\":[") && (r->n || scan_char(scan, ']'));
    for (size_t i = 0; i < r->n && good; i++)
        good = quick_type(scan, r, &r->rows[i].type) && between(scan, i, r->n);
    return good;
}

static bool quick_site(const struct json_decoder *d, struct json_scan *scan, uint32_t *ret)
{
    uint64_t index;
    *ret = 0;
    return SCAN(scan, "null") || (scan_u64(scan, &index) && json_find_site(d, index, ret));
}

/* The column may be missing: none of the rows has a site. */
static bool quick_sites(const struct json_decoder *d, struct json_scan *scan, struct json_rows *r)
{
    bool there = SCAN(scan, ",\"site\":["), good = !there || r->n || scan_char(scan, ']');
    for (size_t i = 0; i < r->n; i++)
        r->rows[i].site = 0;
    for (size_t i = 0; i < r->n && there && good; i++)
        good = quick_site(d, scan, &r->rows[i].site) && between(scan, i, r->n);
    return good;
}

int json_quick_blocks(struct json_decoder *d, struct json_scan *scan)
{
    int rc = json_need_rows(d);
    if (rc == 0)
        rc = quick_names(d, scan);
    if (rc <= 0)
        return rc;
    struct json_rows *r = d->rows;
    return quick_addresses(scan, r) && quick_sizes(scan, r) && quick_kinds(scan, r) &&
           quick_types(scan, r) && quick_owners(scan, r) && quick_sites(d, scan, r) &&
           scan_char(scan, '}');
}
