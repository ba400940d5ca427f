#include "walker/note.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void notes_init(struct notes *notes, struct snapshot *snap)
{
    memset(notes, 0, sizeof *notes);
    notes->snap = snap;
}

static void append(struct notes *notes, const char *what, uint64_t addr, uint64_t bytes,
                   const char *text)
{
    struct snapshot_note *n = snapshot_add_note(notes->snap);
    if (!n) {
        notes->lost++;
        return;
    }
    n->address = addr;
    n->bytes = bytes;
    n->what = what;
    n->why = snapshot_str(notes->snap, text);
    if (!n->why)
        n->why = "";
}

/* Count one more of its kind; true while it should still be written out. */
static bool admit(struct notes *notes, const char *what, uint64_t bytes)
{
    size_t i = 0;
    while (i < notes->n_kinds && strcmp(notes->kinds[i].what, what) != 0)
        i++;
    if (i == notes->n_kinds) {
        if (i == NOTE_KINDS) {
            notes->lost++;
            return false;
        }
        notes->n_kinds++;
        notes->kinds[i].what = what;
    }
    notes->kinds[i].n++;
    if (notes->kinds[i].n <= NOTES_PER_KIND)
        return true;
    notes->kinds[i].bytes += bytes;
    return false;
}

static void vnote(struct notes *notes, const char *what, uint64_t addr, uint64_t bytes,
                  const char *fmt, va_list ap)
{
    if (!admit(notes, what, bytes))
        return;
    char text[512];
    vsnprintf(text, sizeof text, fmt, ap);
    append(notes, what, addr, bytes, text);
}

void note_add(struct notes *notes, const char *what, uint64_t addr, uint64_t bytes, const char *fmt,
              ...)
{
    va_list ap;
    va_start(ap, fmt);
    vnote(notes, what, addr, bytes, fmt, ap);
    va_end(ap);
    notes->snap->complete = false;
}

void note_remark(struct notes *notes, const char *what, uint64_t addr, uint64_t bytes,
                 const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vnote(notes, what, addr, bytes, fmt, ap);
    va_end(ap);
}

void note_flush(struct notes *notes)
{
    for (size_t i = 0; i < notes->n_kinds; i++) {
        if (notes->kinds[i].n <= NOTES_PER_KIND)
            continue;
        char text[128];
        snprintf(text, sizeof text, "%" PRIu64 " more of this kind",
                 notes->kinds[i].n - NOTES_PER_KIND);
        append(notes, notes->kinds[i].what, 0, notes->kinds[i].bytes, text);
    }
    if (notes->lost) {
        char text[128];
        snprintf(text, sizeof text, "%" PRIu64 " notes could not be kept", notes->lost);
        append(notes, "notes.lost", 0, 0, text);
    }
    notes->n_kinds = 0;
    notes->lost = 0;
}
