/* -v: when each phase was over. Kept, and printed when the target runs again: it may be the target
 * that reads our stderr. */
#ifndef HEAPCENSUS_JOURNAL_H
#define HEAPCENSUS_JOURNAL_H

#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { JOURNAL_LINES = 16 };

struct journal {
    uint64_t begun_ns;
    struct {
        uint64_t ns;
        const char *what;
    } lines[JOURNAL_LINES];
    size_t n;
};

void journal_init(struct journal *j); /* the clock starts */
/* `what` is a literal. Further lines than there is room for are left out. */
void journal_add(struct journal *j, const char *what);
/* In milliseconds since the start, on stderr. */
void journal_print(const struct journal *j);

enum { UTC_CHARS = 32 };
/* "2026-11-21T08:00:00Z", or "" for a time that has no such form. */
void utc_text(time_t when, char buf[UTC_CHARS]);

#endif
