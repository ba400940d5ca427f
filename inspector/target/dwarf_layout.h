/* A CPython layout from the DWARF of an interpreter: used by layoutgen for the committed tables and
 * at attach time on interpreters that carry debug information. */
#ifndef HEAPCENSUS_DWARF_LAYOUT_H
#define HEAPCENSUS_DWARF_LAYOUT_H

#include "formats/base/err.h"
#include "walker/cpython/layout.h"

/* Compiler of the first unit that names one (DW_AT_producer), for the header of a table. */
enum { DWARF_PRODUCER_CHARS = 256 };

/* Set every slot of `ret` to absent. Call before the first dwarf_layout_add. */
void dwarf_layout_clear(struct layout *ret);

/* Fill the slots that are still absent from the ELF file behind fd (not taken over; its offset is
 * not used). Several files may add to one layout: array and deque live in extension modules.
 * Sets ret->free_threaded when PyObject says so; name, version, debug and source are the caller's.
 * `producer` may be NULL. ERR_NOT_FOUND: no DWARF. ERR_FORMAT: damaged. */
int dwarf_layout_add(int fd, struct layout *ret, char *producer, struct err *err) MUST_CHECK;

/* For attach: dwarf_layout_clear and _add, then ERR_NOT_FOUND unless the structures that every walk
 * needs (runtime, interpreter, thread, pool header, object, type) were all there. */
int dwarf_layout(int fd, struct layout *ret, struct err *err) MUST_CHECK;

#endif
