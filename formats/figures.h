/* What a snapshot says of each key (a type, a module, a line ...): one count and one number of
 * bytes. Comparisons, trends and gates all go by these tables.
 *
 *     type, module, package   live objects; bytes with the buffers that they own. What is no
 *                             object's has rows in parentheses, so that the sum is all blocks
 *     size                    pymalloc's size classes: blocks in use
 *     arena                   pymalloc's arenas by address: blocks in use
 *     category                the ledger: resident bytes, which add up to the Rss
 *     mapping                 resident bytes by file, or by kind where there is none
 *     file, line, traceback   traced blocks, as in sites.h
 */
#ifndef HEAPCENSUS_FIGURES_H
#define HEAPCENSUS_FIGURES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/base/strpool.h"
#include "formats/sites.h"
#include "formats/snapshot.h"

enum figure_key {
    FIGURES_BY_TYPE,
    FIGURES_BY_MODULE,
    FIGURES_BY_PACKAGE,
    FIGURES_BY_SIZE,
    FIGURES_BY_ARENA,
    FIGURES_BY_CATEGORY,
    FIGURES_BY_MAPPING,
    FIGURES_BY_FILE,
    FIGURES_BY_LINE,
    FIGURES_BY_TRACEBACK,
    FIGURE_KEYS
};

const char *figure_key_name(enum figure_key key);
/* The key of a name, or -1. */
int figure_key_of_name(const char *name);
/* File, line and traceback, which need tracing. */
bool figure_key_is_site(enum figure_key key);
enum site_key figure_site_key(enum figure_key key);
/* Type, module and package, whose rows are objects. */
bool figure_key_is_type(enum figure_key key);
/* What the bytes are: "bytes", or "resident" by category and mapping. */
const char *figure_key_bytes(enum figure_key key);

struct figure {
    const char *key;
    uint64_t count, bytes;
};

struct figure_options {
    const struct site_filters *filters; /* may be NULL; of them, type_regex is for types, too */
    bool cumulative;
};

struct figures {
    struct figure *rows; /* by key (strcmp), each once */
    size_t n, cap;
    struct figure total; /* with `cumulative` rows overlap, and this counts each once */
    struct strpool names;
};

/* ERR_USAGE with a remedy when the snapshot has nothing of that kind (no types, no tracing) or the
 * filters are wrong; ERR_NOMEM. The snapshot may go afterwards. */
int figures_make(const struct snapshot *snap, enum figure_key key, const struct figure_options *opt,
                 struct figures *ret, struct err *err) MUST_CHECK;
void figures_release(struct figures *f);
/* NULL when there is none. */
const struct figure *figures_find(const struct figures *f, const char *key);
/* tracemalloc was on; tables that stop() has emptied know no sites. */
bool figures_traced(const struct snapshot *snap);
/* Whether the snapshot has anything of that kind; as figures_make's errors. `whose` names it. */
int figures_can(const struct snapshot *snap, enum figure_key key, const char *whose,
                struct err *err) MUST_CHECK;

/* All that is in use, whoever's it is: blocks of Python's allocators and of malloc. */
uint64_t figures_in_use(const struct snapshot *snap);

/* What the rows are called that are no type's. */
extern const char figures_inferred[], figures_dead[], figures_runtime[], figures_unowned[];

/* ---- names of keys ---- */

/* "to 64 bytes", "to 2 KiB": pymalloc's class, above 512 bytes a power of two. buf is returned. */
const char *figures_size_name(uint64_t size, char *buf, size_t cap);
/* A module's first component, or "(no module)"; a name of `pool`, NULL when memory ran out. */
const char *figures_module_name(const char *module, bool package, struct strpool *pool);

enum { FIGURES_KEY_MAX = 16 * 1024 };
/* Frames as one text: "app/db.py" by file, "app/db.py:12" by line, "a.py:1 < b.py:7" by traceback,
 * most recent first; cut after cap - 1 bytes, with "..." as the last three. buf is returned. */
const char *figures_frames_name(const struct snapshot *snap, const uint32_t *frames, uint32_t n,
                                enum figure_key key, char *buf, size_t cap);

/* new - old, bounded by what an int64_t holds. */
static inline int64_t figure_diff(uint64_t old_value, uint64_t new_value)
{
    uint64_t d = new_value > old_value ? new_value - old_value : old_value - new_value;
    if (d > INT64_MAX)
        d = INT64_MAX;
    return new_value > old_value ? (int64_t)d : -(int64_t)d;
}

#endif
