/* What could not be read or explained: part of the snapshot and of every report. */
#ifndef HEAPCENSUS_NOTE_H
#define HEAPCENSUS_NOTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"
#include "formats/snapshot.h"

/* Collects notes into a snapshot. A damaged heap must not drown the report: after NOTES_PER_KIND of
 * one keyword only the count and the bytes go on (note_flush writes one line for the rest). */
enum { NOTES_PER_KIND = 20, NOTE_KINDS = 64 };

struct notes {
    struct snapshot *snap;
    struct {
        const char *what;
        uint64_t n, bytes;
    } kinds[NOTE_KINDS];
    size_t n_kinds;
    uint64_t lost; /* notes that found no memory or no kind slot */
};

void notes_init(struct notes *notes, struct snapshot *snap);
/* `what` is a literal keyword with dots ("malloc.damaged"). Clears snap->complete. */
void note_add(struct notes *notes, const char *what, uint64_t addr, uint64_t bytes, const char *fmt,
              ...) PRINTF_LIKE(5, 6);
/* As note_add, for what is worth telling but takes nothing from the result's completeness. */
void note_remark(struct notes *notes, const char *what, uint64_t addr, uint64_t bytes,
                 const char *fmt, ...) PRINTF_LIKE(5, 6);
void note_flush(struct notes *notes);

#endif
