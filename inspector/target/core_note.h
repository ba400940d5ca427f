/* The notes that `heapcensus core` adds to a core, beside those that gdb reads. Owner "HEAPCENSUS".
 * Readers ignore types and keys that they don't know; a meaning never changes. */
#ifndef HEAPCENSUS_CORE_NOTE_H
#define HEAPCENSUS_CORE_NOTE_H

#define CORE_NOTE_OWNER "HEAPCENSUS"

enum core_note_type {
    CORE_NOTE_MAPS = 1,  /* the text of /proc/PID/maps during the pause */
    CORE_NOTE_SMAPS = 2, /* ... and of smaps */
    CORE_NOTE_PAGES = 3, /* present pages: pairs of 64-bit start and end, sorted, disjoint */
    /* Lines "key=value": taken_at, started_at, host, exe, exe_build_id, paused_ns, consistent (0 or
     * 1). Control characters and '%' in values as %XX. */
    CORE_NOTE_FACTS = 4,
    CORE_NOTE_THREADS = 5 /* lines "tid name" (name: the rest of the line, %XX as above) */
};

#endif
