/* Snapshots as JSON: files of JSON Lines out and in, and the documents that --json prints.
 *
 * A file is one JSON object a line, each with "record": first the header, then memory, pymalloc,
 * arena..., malloc, malloc_arena..., mapping..., objects, gc, type..., tracing, frame...,
 * traceback..., site..., note..., blocks..., last {"record":"end","records":N} where N counts the
 * records before it, the header included. It is
 * gzip when the name ends in .gz; the reader goes by the bytes instead. Member names are those of
 * docs/snapshot.schema.json; how text and integers are written is in json_emit.h. Reading a file
 * and writing it again gives the same bytes (unknown records and members, which are ignored,
 * apart).
 */
#ifndef HEAPCENSUS_JSON_H
#define HEAPCENSUS_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "formats/base/err.h"
#include "formats/json_emit.h"
#include "formats/sink.h"
#include "formats/sites.h"
#include "formats/snapshot.h"

enum { JSON_VERSION = 1, JSON_VIEW_SCHEMA = 1 };

/* Stream a snapshot; memory does not depend on its size. */
int json_write_snapshot(const struct snapshot *snap, struct sink *out, struct err *err) MUST_CHECK;
/* The same into a file, all or nothing; see struct outfile for names, `force` and errors. */
int json_save(const struct snapshot *snap, const char *path, bool force,
              struct err *err) MUST_CHECK;

enum json_load_flag {
    JSON_PARTIAL = 1 /* take what a truncated file still has: clears `complete`, adds the note
                        "snapshot.truncated" */
};

/* Read a file, plain or gzip; "-" is stdin. `ret` needs no init and is only written on success; the
 * caller releases it. Errors: ERR_OS (cannot open or read), ERR_NOMEM, ERR_FORMAT for everything
 * that is wrong with the file, with its line number.
 *
 * After loading, the text members source.kind, mapping.kind, note.what and note.why are never NULL;
 * every other may be. The totals over all records of each size and count are below 2^63. Bytes of
 * categories that this version does not know are in "unknown", and the note "snapshot.category"
 * says so. */
int json_load(const char *path, unsigned flags, struct snapshot *ret, struct err *err) MUST_CHECK;
/* The same from memory; `name` is for error texts. */
int json_load_bytes(const void *bytes, size_t len, const char *name, unsigned flags,
                    struct snapshot *ret, struct err *err) MUST_CHECK;
/* The first bytes of a file could be a snapshot: gzip or an object. For telling targets apart. */
bool json_looks_like_snapshot(const void *head, size_t len);

/* One JSON document, one line: {"schema":1,"view":...} with the header's members, the view's own
 * records and the notes. `view` is summary, types, sizes, arenas, malloc or maps; ERR_USAGE
 * otherwise. */
int json_write_view(const struct snapshot *snap, const char *view, struct sink *out,
                    struct err *err) MUST_CHECK;
bool json_has_view(const char *view);

/* The document of the view `sites`, in the same frame: `by`, `cumulative`, `tracing`, `total` and
 * `filtered` {bytes, count}, `sites` [{traceback: [{file, line, function}], bytes, count, type,
 * type_bytes}], the first n rows. */
struct json_sites {
    const struct site_stats *stats;
    enum site_key by;
    bool cumulative;
    size_t n;
};
int json_write_sites(const struct snapshot *snap, const struct json_sites *sites, struct sink *out,
                     struct err *err) MUST_CHECK;

/* ---- documents of other commands ---- */

/*     json_emit_init(&e, sink, err);
 *     json_begin_document(&e, "diff");            {"schema":1,"view":"diff"
 *     json_emit_source(&e, "old", old_snap);      ,"old":{members of the header}
 *     emit_key(&e, "rows"); emit_open(&e, '['); ... emit_close(&e, ']');
 *     json_end_document(&e);                      }\n
 *     return json_emit_finish(&e);
 */
void json_begin_document(struct json_emit *e, const char *view);
void json_end_document(struct json_emit *e);
/* "key":{members of the header}. */
void json_emit_source(struct json_emit *e, const char *key, const struct snapshot *snap);
/* "notes":[...]. */
void json_emit_notes(struct json_emit *e, const struct snapshot *snap);
/* The frames of a row, most recent first: [{file, line, function}]; of a row by file or line one.
 */
void json_emit_frames(struct json_emit *e, const struct site_row *row);
/* {frame}. */
void json_emit_frame(struct json_emit *e, const struct snapshot_frame *frame);

#endif
