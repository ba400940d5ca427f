#include "inspector/journal.h"

#include <stdio.h>
#include <string.h>

#include "inspector/target/sys.h"

void journal_init(struct journal *j)
{
    memset(j, 0, sizeof *j);
    j->begun_ns = sys_now_ns();
}

void journal_add(struct journal *j, const char *what)
{
    if (j->n == JOURNAL_LINES)
        return;
    j->lines[j->n].ns = sys_now_ns();
    j->lines[j->n++].what = what;
}

void journal_print(const struct journal *j)
{
    for (size_t i = 0; i < j->n; i++)
        fprintf(stderr, "%9.1f ms  %s\n", (double)(j->lines[i].ns - j->begun_ns) / 1e6,
                j->lines[i].what);
}

void utc_text(time_t when, char buf[UTC_CHARS])
{
    struct tm tm;
    if (!gmtime_r(&when, &tm) || strftime(buf, UTC_CHARS, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        buf[0] = '\0';
}
