#include "inspector/progress.h"

#include <stdio.h>
#include <unistd.h>

void progress_begin(struct progress *p, const struct options *opt, const char *what)
{
    p->on = !opt->quiet && isatty(STDERR_FILENO);
    if (p->on) {
        if (opt->core)
            fprintf(stderr, "%s the core ...", what);
        else
            fprintf(stderr, "%s process %d ...", what, (int)opt->pid);
        fflush(stderr);
    }
}

void progress_end(struct progress *p)
{
    if (p->on)
        fputs("\r\033[K", stderr);
    p->on = false;
}
