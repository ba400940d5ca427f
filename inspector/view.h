/* What the commands that show something share: a target in, a text or one JSON document out. */
#ifndef HEAPCENSUS_VIEW_H
#define HEAPCENSUS_VIEW_H

#include <stdio.h>

#include "formats/base/err.h"
#include "formats/report.h"
#include "formats/sink.h"
#include "formats/sites.h"
#include "formats/snapshot.h"
#include "inspector/cmd.h"

enum { VIEW_PID_MAX = 32 };

/* The target of the options (a process, a core or a snapshot file) into an initialised snapshot. */
int view_load(const struct options *opt, struct snapshot *snap, struct err *err) MUST_CHECK;
/* How a report looks; `pid` is room for the target's name, as long as the options are used. */
struct report_options view_report_options(const struct options *opt, char pid[VIEW_PID_MAX]);
/* --sort must be one of `sorts` ("size,count"; "": the view `name` has one order). */
int view_check_sort(const struct options *opt, const char *name, const char *sorts,
                    struct err *err) MUST_CHECK;
/* Write to -o or stdout what `render` writes: as a whole, or not at all. */
int view_write(const struct options *opt,
               int (*render)(void *ctx, struct sink *sink, struct err *err), void *ctx,
               struct err *err) MUST_CHECK;
/* The same for text: `print` writes into memory first. */
int view_write_text(const struct options *opt, int (*print)(void *ctx, FILE *out, struct err *err),
                    void *ctx, struct err *err) MUST_CHECK;

/* What --include, --exclude, --domain, --all-frames and --type say; borrows from the options. */
struct view_filters {
    struct site_filters filters;
    struct site_filter items[3 * OPTION_MANY];
    char *copies[2 * OPTION_MANY]; /* of patterns whose ends were cut off */
    size_t n_copies;
};

/* ERR_USAGE: a domain that is no number; ERR_NOMEM. Release it in any case. */
int view_filters_make(const struct options *opt, struct view_filters *ret,
                      struct err *err) MUST_CHECK;
void view_filters_release(struct view_filters *f);
/* --by as a key of tracemalloc: "file", "line", "traceback", also its own "filename" and "lineno";
 * by line when nothing was asked for. */
int view_site_key(const struct options *opt, enum site_key *ret, struct err *err) MUST_CHECK;

#endif
