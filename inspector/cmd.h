/* The table of commands and what they share: options, exit codes, the target of a command. */
#ifndef HEAPCENSUS_CMD_H
#define HEAPCENSUS_CMD_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "formats/base/err.h"
#include "formats/snapshot.h"

enum exit_code {
    EXIT_OK = 0,
    EXIT_GATE = 1,
    EXIT_USAGE = 2,
    EXIT_NO_TARGET = 3,
    EXIT_PERMISSION = 4,
    EXIT_UNSUPPORTED_TARGET = 5,
    EXIT_INCOMPLETE = 6,
    EXIT_UNREADABLE = 7,
    EXIT_INTERRUPTED = 130
};

enum colour { COLOUR_AUTO, COLOUR_ALWAYS, COLOUR_NEVER };
enum read_way { READ_AUTO, READ_COPY, READ_WINDOW };

/* An option that may be given several times, in order. */
enum { OPTION_MANY = 64 };
struct option_list {
    const char *items[OPTION_MANY];
    size_t n;
};

struct options {
    const char *target; /* as typed; NULL when -p was given */
    pid_t pid;          /* -p, or a target that is a number; 0 otherwise */
    const char *core;   /* -c, or a target that is an ELF core; NULL otherwise */
    const char *exe;    /* --exe: the executable of a core */
    const char *sysroot;
    const char *output; /* -o */
    bool force;         /* -f: overwrite */
    bool json;
    bool bytes; /* exact numbers instead of KiB, MiB */
    bool quiet; /* no progress, no hints */
    int verbose;
    bool partial; /* accept a truncated snapshot */
    bool no_pause;
    bool types;      /* look at every block: set by the commands that show types */
    bool must_types; /* ... even where that makes the pause long */
    bool blocks;     /* --blocks: keep the single blocks in a snapshot */
    const char *by;  /* --by */
    /* All words behind the command, for diff and trend; the target is the first of them. */
    char **words;
    size_t n_words;
    /* What tracemalloc's filters are: fnmatch patterns of files, "PATTERN:LINE" for one line. */
    struct option_list include, exclude, domains;
    bool all_frames;        /* a filter matches any frame of a traceback, not only the first */
    const char *type_regex; /* --type: POSIX extended */
    uint64_t min_size;      /* --min-size: rows of fewer bytes are left out */
    bool cumulative;        /* sites by file or line: every frame counts, not only the first */
    const char *format;     /* --format: "table" (default), "tracemalloc"; of sites "display_top" */
    uint64_t limit;         /* --limit: frames of a traceback that are printed; 0: all */
    bool most_recent_first;
    struct option_list fail_if; /* diff: gates */
    const char *to;             /* export: the format */
    const char *for_python;     /* export --to tracemalloc: "3.8" */
    const char *weight;         /* export --to folded: "bytes" (default), "count" */
    uint64_t max_pause_ns;
    enum read_way way;
    long top; /* rows; 0 = all; -1 = the view's default */
    const char *sort;
    bool reverse;
    enum colour colour;
};

struct cmd {
    const char *name;
    const char *args; /* for the usage line */
    const char *summary;
    int (*run)(const struct options *opt,
               struct err *err); /* an enum exit_code, or negative: err */
};

extern const struct cmd commands[]; /* ends with a row whose name is NULL */

int cmd_snapshot(const struct options *opt, struct err *err);
int cmd_core(const struct options *opt, struct err *err);
int cmd_doctor(const struct options *opt, struct err *err);
int cmd_summary(const struct options *opt, struct err *err);
int cmd_types(const struct options *opt, struct err *err);
int cmd_sizes(const struct options *opt, struct err *err);
int cmd_arenas(const struct options *opt, struct err *err);
int cmd_malloc(const struct options *opt, struct err *err);
int cmd_maps(const struct options *opt, struct err *err);
int cmd_sites(const struct options *opt, struct err *err);
int cmd_diff(const struct options *opt, struct err *err);
int cmd_trend(const struct options *opt, struct err *err);
int cmd_export(const struct options *opt, struct err *err);

/* The target is neither a PID nor a core: ERR_NOT_FOUND or ERR_PERMISSION where it cannot be opened
 * at all, else ERR_USAGE with "`what` is of a process or a core ...". */
int cmd_no_target(const struct options *opt, const char *what, struct err *err);

/* The exit code that an error means. */
enum exit_code exit_of_err(const struct err *err);

/* Set by SIGINT, SIGTERM and SIGHUP: everything that can take long looks at it. */
extern volatile sig_atomic_t interrupted;

#endif
