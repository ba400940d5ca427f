/* The members of every record, once: the writer, the views and the reader all go by these tables.
 * Internal to json_*.c.
 *
 * A new member of a snapshot struct is one row here (and one in docs/snapshot.schema.json). Never
 * mark a row that comes later than version 1 as REQUIRED: older files do not have it.
 */
#ifndef HEAPCENSUS_JSON_FIELDS_H
#define HEAPCENSUS_JSON_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/json_emit.h"
#include "formats/snapshot.h"

enum json_field_type {
    FIELD_U64,
    FIELD_SUM,        /* uint64_t; the reader refuses a file whose total of it is not an int64 */
    FIELD_U32,        /* uint32_t */
    FIELD_PID,        /* int64_t; 0 or less is null */
    FIELD_ADDR,       /* uint64_t as "0x..." */
    FIELD_ADDR_NULL,  /* the same; 0 is null */
    FIELD_BOOL,       /* bool */
    FIELD_STR,        /* const char *; NULL is null */
    FIELD_NAME,       /* const char *; never null: NULL is written as "unknown" */
    FIELD_PERMS,      /* char[5] */
    FIELD_OBJECT,     /* `sub` on the same struct, at `offset` */
    FIELD_MAYBE,      /* the same on a struct that begins with `bool present`, or null */
    FIELD_TALLY,      /* struct tally: every category */
    FIELD_TALLY_USED, /* struct tally: the categories that are not all zero */
    FIELD_CLASSES,    /* struct snapshot_size_class[SIZE_CLASSES]: those with pools */
    FIELD_GENERATIONS /* uint64_t[GC_GENERATIONS] */
};

struct json_field {
    const char *name; /* NULL ends a table */
    enum json_field_type type;
    bool required;
    size_t offset;
    const struct json_field *sub;
};

enum { JSON_FIELDS_MAX = 32 }; /* rows a table */

extern const struct json_field json_header_fields[]; /* of struct snapshot */
extern const struct json_field json_memory_fields[];
extern const struct json_field json_pymalloc_fields[];
extern const struct json_field json_size_class_fields[];
extern const struct json_field json_arena_fields[];
extern const struct json_field json_malloc_fields[];
extern const struct json_field json_malloc_arena_fields[];
extern const struct json_field json_mapping_fields[];
extern const struct json_field json_note_fields[];
extern const struct json_field json_objects_fields[];
extern const struct json_field json_gc_fields[];
extern const struct json_field json_type_fields[];
extern const struct json_field json_tracing_fields[];
extern const struct json_field json_frame_fields[];
extern const struct json_field json_traceback_fields[]; /* without `frames` */
extern const struct json_field json_site_fields[];      /* without `sizes` */

/* Write the members of a struct, without the braces. */
void json_emit_fields(struct json_emit *e, const void *base, const struct json_field *fields);
/* Write {members}. */
void json_emit_object(struct json_emit *e, const void *base, const struct json_field *fields);
/* Write [classes with pools]. */
void json_emit_classes(struct json_emit *e, const struct snapshot_size_class *classes);

/* json_blocks.c: rows of a record "blocks" at most. */
enum { JSON_BLOCKS_ROWS = 4096 };
/* Write the members of a record "blocks", without the braces; the column `site` only if `sites`.
 * n <= JSON_BLOCKS_ROWS. */
void json_emit_blocks(struct json_emit *e, const struct snapshot_block *rows, size_t n, bool sites);

/* json_sites.c: entries of the list in a traceback or site at most; more frames are not written,
 * and more sizes mean that none are. A process can have neither. */
enum { JSON_LIST_MAX = 1 << 20 };
/* Write the members of these records, without the braces. */
void json_emit_traceback(struct json_emit *e, const struct snapshot *snap,
                         const struct snapshot_traceback *t);
void json_emit_site(struct json_emit *e, const struct snapshot *snap,
                    const struct snapshot_site *site);

#endif
