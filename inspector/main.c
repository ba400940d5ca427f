/* The program: options, the table of commands, exit codes. Only this file prints errors and exits.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "formats/report.h"
#include "inspector/cmd.h"
#include "inspector/target/core.h"

volatile sig_atomic_t interrupted;

const struct cmd commands[] = {
    {"summary", "PID|CORE|SNAPSHOT", "where the memory is, adding up to the resident set",
     cmd_summary},
    {"snapshot", "PID|CORE [-o FILE]", "write the census to a file", cmd_snapshot},
    {"types", "PID|CORE|SNAPSHOT", "objects by type, with the buffers that they own", cmd_types},
    {"sizes", "PID|CORE|SNAPSHOT", "pymalloc's size classes", cmd_sizes},
    {"arenas", "PID|CORE|SNAPSHOT", "pymalloc's arenas and how full they are", cmd_arenas},
    {"malloc", "PID|CORE|SNAPSHOT", "the glibc heap, arena by arena", cmd_malloc},
    {"maps", "PID|CORE|SNAPSHOT", "the mappings and what is in each", cmd_maps},
    {"sites", "PID|CORE|SNAPSHOT", "who allocated it, where tracemalloc is on", cmd_sites},
    {"diff", "OLD NEW", "what grew between two snapshots", cmd_diff},
    {"trend", "SNAPSHOT...", "what keeps growing over three or more", cmd_trend},
    {"export", "TARGET --to FORMAT", "a file for another program", cmd_export},
    {"core", "PID [-o FILE]", "write a core of the process: a pause like a copy's", cmd_core},
    {"doctor", "PID|CORE", "what would work here and why not", cmd_doctor},
    {NULL, NULL, NULL, NULL},
};

enum long_option {
    OPT_NO_PAUSE = 256,
    OPT_MAX_PAUSE,
    OPT_READ,
    OPT_JSON,
    OPT_TOP,
    OPT_SORT,
    OPT_BYTES,
    OPT_COLOUR,
    OPT_PARTIAL,
    OPT_EXE,
    OPT_BY,
    OPT_BLOCKS,
    OPT_NO_TYPES,
    OPT_SYSROOT,
    OPT_INCLUDE,
    OPT_EXCLUDE,
    OPT_DOMAIN,
    OPT_ALL_FRAMES,
    OPT_TYPE,
    OPT_MIN_SIZE,
    OPT_CUMULATIVE,
    OPT_FORMAT,
    OPT_LIMIT,
    OPT_RECENT_FIRST,
    OPT_FAIL_IF,
    OPT_TO,
    OPT_FOR_PYTHON,
    OPT_WEIGHT
};

static const struct option long_options[] = {
    {"pid", required_argument, NULL, 'p'},
    {"core", required_argument, NULL, 'c'},
    {"by", required_argument, NULL, OPT_BY},
    {"blocks", no_argument, NULL, OPT_BLOCKS},
    {"no-types", no_argument, NULL, OPT_NO_TYPES},
    {"exe", required_argument, NULL, OPT_EXE},
    {"sysroot", required_argument, NULL, OPT_SYSROOT},
    {"output", required_argument, NULL, 'o'},
    {"force", no_argument, NULL, 'f'},
    {"quiet", no_argument, NULL, 'q'},
    {"verbose", no_argument, NULL, 'v'},
    {"reverse", no_argument, NULL, 'r'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {"json", no_argument, NULL, OPT_JSON},
    {"bytes", no_argument, NULL, OPT_BYTES},
    {"top", required_argument, NULL, OPT_TOP},
    {"sort", required_argument, NULL, OPT_SORT},
    {"color", required_argument, NULL, OPT_COLOUR},
    {"colour", required_argument, NULL, OPT_COLOUR},
    {"no-pause", no_argument, NULL, OPT_NO_PAUSE},
    {"max-pause", required_argument, NULL, OPT_MAX_PAUSE},
    {"read", required_argument, NULL, OPT_READ},
    {"partial", no_argument, NULL, OPT_PARTIAL},
    {"include", required_argument, NULL, OPT_INCLUDE},
    {"exclude", required_argument, NULL, OPT_EXCLUDE},
    {"domain", required_argument, NULL, OPT_DOMAIN},
    {"all-frames", no_argument, NULL, OPT_ALL_FRAMES},
    {"type", required_argument, NULL, OPT_TYPE},
    {"min-size", required_argument, NULL, OPT_MIN_SIZE},
    {"cumulative", no_argument, NULL, OPT_CUMULATIVE},
    {"format", required_argument, NULL, OPT_FORMAT},
    {"limit", required_argument, NULL, OPT_LIMIT},
    {"most-recent-first", no_argument, NULL, OPT_RECENT_FIRST},
    {"fail-if", required_argument, NULL, OPT_FAIL_IF},
    {"to", required_argument, NULL, OPT_TO},
    {"for-python", required_argument, NULL, OPT_FOR_PYTHON},
    {"weight", required_argument, NULL, OPT_WEIGHT},
    {NULL, 0, NULL, 0},
};

static void print_help(FILE *out)
{
    fputs("heapcensus: where a Python process's memory went, from outside\n\n"
          "usage: heapcensus [COMMAND] PID|CORE|SNAPSHOT [options]\n\n",
          out);
    for (const struct cmd *c = commands; c->name; c++)
        fprintf(out, "  %-9s %-18s %s\n", c->name, c->args, c->summary);
    fputs("\nWithout a command: summary. A number is a PID; anything else is a core or a\n"
          "snapshot, told by its content.\n\n"
          "reading a process (nothing is written to it; it is stopped while it is copied)\n"
          "  -p, --pid PID       the target, also where a file of that name exists\n"
          "      --max-pause MS  let go after MS milliseconds whatever happens (2000)\n"
          "      --no-pause      do not stop it: numbers can be slightly inconsistent\n"
          "      --read WAY      auto, copy (shortest pause) or window (least memory)\n"
          "      --no-types      count blocks only: a shorter pause, less to copy\n"
          "reading a core (compressed or not)\n"
          "  -c, --core FILE     the target, also where its name is a number or a command\n"
          "      --exe FILE      its executable, where the one that it names is not it\n"
          "      --sysroot DIR   where the files of its system are (a container's root)\n"
          "output\n"
          "  -o, --output FILE   write there instead of stdout; - is stdout\n"
          "  -f, --force         overwrite FILE\n"
          "      --json          one JSON document\n"
          "      --bytes         exact bytes\n"
          "      --top N         rows of a list, 0 for all\n"
          "      --by KEY        types: type, module, package or size\n"
          "      --blocks        snapshot: each block with its kind, type, owner and site\n"
          "      --sort COLUMN   and -r, --reverse\n"
          "      --color WHEN    auto, always, never (NO_COLOR is honoured)\n"
          "      --partial       read a truncated snapshot as far as it goes\n"
          "  -q, --quiet         no progress, no hint;  -v, --verbose\n"
          "  -h, --help;  -V, --version\n"
          "sites, diff, trend, export\n"
          "      --by KEY        line, file, traceback; diff and trend also type, module,\n"
          "                      package, size, arena, category, mapping\n"
          "      --include PATTERN[:LINE][@DOMAIN], --exclude ...   as tracemalloc.Filter\n"
          "      --all-frames  --domain N, !N  --type REGEX  --min-size N  --cumulative\n"
          "      --format WAY    table, tracemalloc (its own words); sites: display_top\n"
          "      --limit N       frames of a traceback;  --most-recent-first\n"
          "      --blocks        diff: which blocks are new, gone and still there\n"
          "      --fail-if GATE  diff: 'total>+5%', 'rss>+10MiB', 'type:app.Session>+1000'\n"
          "      --to FORMAT     tracemalloc, ndjson, csv, folded, speedscope or pprof;\n"
          "                      ndjson, csv: --by site, type, size, arena, category, mapping,\n"
          "                      blocks; folded: --weight bytes, count; tracemalloc:\n"
          "                      --for-python 3.8\n\n"
          "exit codes: 0 ok, 1 a gate tripped, 2 usage, 3 no such target, 4 permission,\n"
          "5 not a supported CPython, 6 written but incomplete, 7 unreadable file,\n"
          "130 interrupted. More: man heapcensus\n",
          out);
}

static int parse_number(const char *s, uint64_t max, const char *what, uint64_t *ret,
                        struct err *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    if (errno || end == s || *end || s[0] == '-' || s[0] == '+' || v > max) {
        err_set(err, ERR_USAGE, "%s takes a number from 0 to %" PRIu64 ", not '%s'", what, max, s);
        err_remedy(err, "see heapcensus --help");
        return ERR_USAGE;
    }
    *ret = v;
    return 0;
}

static int parse_choice(const char *s, const char *const *names, const char *what, int *ret,
                        struct err *err)
{
    for (int i = 0; names[i]; i++) {
        if (strcmp(s, names[i]) == 0) {
            *ret = i;
            return 0;
        }
    }
    err_set(err, ERR_USAGE, "%s does not know '%s'", what, s);
    err_remedy(err, "see heapcensus --help");
    return ERR_USAGE;
}

static int add_to(struct option_list *list, const char *what, const char *arg, struct err *err)
{
    if (list->n == OPTION_MANY)
        return err_set(err, ERR_USAGE, "%s was given more than %d times", what, OPTION_MANY);
    list->items[list->n++] = arg;
    return 0;
}

/* Options of sites, diff and export; 1 when c is none of them. */
static int take_site_option(struct options *opt, int c, const char *arg, struct err *err)
{
    switch (c) {
    case OPT_INCLUDE:
        return add_to(&opt->include, "--include", arg, err);
    case OPT_EXCLUDE:
        return add_to(&opt->exclude, "--exclude", arg, err);
    case OPT_DOMAIN:
        return add_to(&opt->domains, "--domain", arg, err);
    case OPT_FAIL_IF:
        return add_to(&opt->fail_if, "--fail-if", arg, err);
    case OPT_MIN_SIZE:
        return parse_number(arg, INT64_MAX, "--min-size", &opt->min_size, err);
    case OPT_LIMIT:
        return parse_number(arg, 65535, "--limit", &opt->limit, err);
    case OPT_ALL_FRAMES:
        opt->all_frames = true;
        return 0;
    case OPT_TYPE:
        opt->type_regex = arg;
        return 0;
    case OPT_CUMULATIVE:
        opt->cumulative = true;
        return 0;
    case OPT_FORMAT:
        opt->format = arg;
        return 0;
    case OPT_RECENT_FIRST:
        opt->most_recent_first = true;
        return 0;
    case OPT_TO:
        opt->to = arg;
        return 0;
    case OPT_FOR_PYTHON:
        opt->for_python = arg;
        return 0;
    case OPT_WEIGHT:
        opt->weight = arg;
        return 0;
    default:
        return 1;
    }
}

static int take_value_option(struct options *opt, int c, const char *arg, struct err *err)
{
    static const char *const colours[] = {"auto", "always", "never", NULL};
    static const char *const ways[] = {"auto", "copy", "window", NULL};
    uint64_t n = 0;
    int choice = 0, rc = take_site_option(opt, c, arg, err);
    if (rc <= 0)
        return rc;
    switch (c) {
    case 'p':
        rc = parse_number(arg, 1u << 22, "--pid", &n, err);
        opt->pid = (pid_t)n;
        if (rc == 0 && n == 0)
            rc = err_set(err, ERR_USAGE, "0 is no PID");
        break;
    case OPT_TOP:
        rc = parse_number(arg, 1000000000, "--top", &n, err);
        opt->top = (long)n;
        break;
    case OPT_MAX_PAUSE:
        rc = parse_number(arg, 3600000, "--max-pause", &n, err);
        opt->max_pause_ns = n * 1000000;
        break;
    case OPT_COLOUR:
        rc = parse_choice(arg, colours, "--color", &choice, err);
        opt->colour = (enum colour)choice;
        break;
    default:
        rc = parse_choice(arg, ways, "--read", &choice, err);
        opt->way = (enum read_way)choice;
        break;
    }
    return rc;
}

/* One option; 1 when it was all the user wanted (help, version). */
static int take_option(struct options *opt, int c, const char *arg, struct err *err)
{
    switch (c) {
    case 'c':
        opt->core = arg;
        return 0;
    case OPT_BY:
        opt->by = arg;
        return 0;
    case OPT_BLOCKS:
        opt->blocks = true;
        return 0;
    case OPT_NO_TYPES:
        opt->types = false;
        return 0;
    case OPT_EXE:
        opt->exe = arg;
        return 0;
    case OPT_SYSROOT:
        opt->sysroot = arg;
        return 0;
    case 'o':
        opt->output = arg;
        return 0;
    case 'f':
        opt->force = true;
        return 0;
    case 'q':
        opt->quiet = true;
        return 0;
    case 'v':
        opt->verbose++;
        return 0;
    case 'r':
        opt->reverse = true;
        return 0;
    case OPT_JSON:
        opt->json = true;
        return 0;
    case OPT_BYTES:
        opt->bytes = true;
        return 0;
    case OPT_NO_PAUSE:
        opt->no_pause = true;
        return 0;
    case OPT_PARTIAL:
        opt->partial = true;
        return 0;
    case OPT_SORT:
        opt->sort = arg;
        return 0;
    case 'h':
        print_help(stdout);
        return 1;
    case 'V':
        printf("heapcensus %s\n", HEAPCENSUS_VERSION);
        return 1;
    case ':':
        err_set(err, ERR_USAGE, "the option %s needs a value", arg ? arg : "");
        err_remedy(err, "see heapcensus --help");
        return ERR_USAGE;
    case '?':
        err_set(err, ERR_USAGE, "there is no option %s", arg ? arg : "");
        err_remedy(err, "see heapcensus --help");
        return ERR_USAGE;
    default:
        return take_value_option(opt, c, arg, err);
    }
}

static const struct cmd *find_command(const char *name)
{
    for (const struct cmd *c = commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static bool is_number(const char *s)
{
    return *s && strspn(s, "0123456789") == strlen(s);
}

/* What a word stands for: a number is a PID, a file is told by its first bytes. */
static int take_target(struct options *opt, const char *word, struct err *err)
{
    uint64_t pid;
    opt->target = word;
    if (!is_number(word)) {
        opt->core = core_looks_like_one(word) ? word : NULL;
        return 0;
    }
    /* The kernel's largest PID is 2^22. */
    if (parse_number(word, 1u << 22, "a PID", &pid, err) < 0)
        return err_set(err, ERR_NOT_FOUND, "there is no process %s", word);
    if (pid == 0)
        return err_set(err, ERR_USAGE, "0 is no PID");
    opt->pid = (pid_t)pid;
    return 0;
}

static int too_many(const struct options *opt, const struct cmd *cmd, char **words, int at,
                    struct err *err)
{
    if (at == 1 && cmd == find_command("summary") && !opt->pid && !opt->core)
        err_set(err, ERR_USAGE, "there is no command '%s'", words[0]);
    else
        err_set(err, ERR_USAGE, "too many words, from '%s' on", words[at]);
    err_remedy(err, "see heapcensus --help");
    return ERR_USAGE;
}

static int no_target(const struct cmd *cmd, struct err *err)
{
    err_set(err, ERR_USAGE, "no target was named");
    if (cmd == find_command("core"))
        err_remedy(err, "heapcensus core PID -o FILE writes a core; heapcensus ./core reads the "
                        "file of that name");
    else
        err_remedy(err, "heapcensus %s PID, a core or a snapshot file; see heapcensus --help",
                   cmd->name);
    return ERR_USAGE;
}

/* Lines of source are looked for below --sysroot, whatever the target is. */
static bool shows_sources(const struct cmd *cmd)
{
    return strcmp(cmd->name, "sites") == 0 || strcmp(cmd->name, "diff") == 0;
}

/* The options that need each other, or exclude each other. */
static int check_target(const struct options *opt, const struct cmd *cmd, struct err *err)
{
    bool sysroot = opt->sysroot && !shows_sources(cmd);
    const char *what = opt->exe ? "--exe" : sysroot ? "--sysroot" : NULL;
    if (opt->pid && opt->core)
        return err_set(err, ERR_USAGE, "a target is a PID or a core, not both");
    if (what && !opt->core)
        return err_set(err, ERR_USAGE, "%s belongs to a core, and %s is none", what,
                       opt->target ? opt->target : "the target");
    return 0;
}

static bool takes_many(const struct cmd *cmd)
{
    return strcmp(cmd->name, "diff") == 0 || strcmp(cmd->name, "trend") == 0;
}

/* The command and the target among the words that are not options. */
static int take_words(struct options *opt, char **words, int n, const struct cmd **ret,
                      struct err *err)
{
    int at = 0, rc = 0;
    *ret = n > 0 ? find_command(words[0]) : NULL;
    if (*ret)
        at = 1;
    else
        *ret = find_command("summary");
    opt->words = words + at;
    opt->n_words = (size_t)(n - at);
    if (at < n && !opt->pid && !opt->core) {
        rc = take_target(opt, words[at], err);
        at++;
    }
    if (rc < 0)
        return rc;
    if (at < n && !takes_many(*ret))
        return too_many(opt, *ret, words, at, err);
    if (!opt->target && !opt->pid && !opt->core)
        return no_target(*ret, err);
    return check_target(opt, *ret, err);
}

/* A gate that nobody looks at would never trip. */
static int check_gates(const struct options *opt, const struct cmd *cmd, struct err *err)
{
    if (!opt->fail_if.n || takes_many(cmd))
        return 0;
    err_set(err, ERR_USAGE, "--fail-if belongs to diff, and this is %s", cmd->name);
    err_remedy(err, "heapcensus diff OLD NEW --fail-if '%s'", opt->fail_if.items[0]);
    return ERR_USAGE;
}

enum exit_code exit_of_err(const struct err *err)
{
    switch (err->code) {
    case ERR_USAGE:
        return EXIT_USAGE;
    case ERR_NOT_FOUND:
        return EXIT_NO_TARGET;
    case ERR_PERMISSION:
        return EXIT_PERMISSION;
    case ERR_UNSUPPORTED:
        return EXIT_UNSUPPORTED_TARGET;
    case ERR_FORMAT:
        return EXIT_UNREADABLE;
    case ERR_INTERRUPTED:
        return EXIT_INTERRUPTED;
    case ERR_OS:
        if (err->os_errno == EACCES || err->os_errno == EPERM)
            return EXIT_PERMISSION;
        if (err->os_errno == ENOENT || err->os_errno == ENOTDIR || err->os_errno == EISDIR)
            return EXIT_USAGE; /* of an output: a missing target is ERR_NOT_FOUND */
        return EXIT_INCOMPLETE;
    default:
        return EXIT_INCOMPLETE;
    }
}

static void on_signal(int sig)
{
    interrupted = sig;
}

/* No SA_RESTART: a blocked wait must come back and let the target go. */
static void catch_signals(void)
{
    struct sigaction sa = {.sa_handler = on_signal};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL); /* a closed pipe is an error of write, told as such */
    sigaction(SIGXFSZ, &ignore, NULL); /* so is the limit of ulimit -f */
}

/* Each module's file stays open: large programs have more than the usual 1,024. */
static void open_many(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* What helps where the place of the error said nothing: never a cause without a remedy. */
static const char *remedy_of(const struct err *err)
{
    if (err->remedy[0])
        return err->remedy;
    if (err->code == ERR_OS && (err->os_errno == ENOSPC || err->os_errno == EDQUOT))
        return "make room there, or write elsewhere with -o";
    if (err->code == ERR_OS && err->os_errno == EPIPE)
        return "the reader of the output has gone; use -o FILE to keep it";
    if (err->code == ERR_OS && (err->os_errno == ENOENT || err->os_errno == ENOTDIR))
        return "make that folder first, or write elsewhere with -o";
    switch (err->code) {
    case ERR_USAGE:
        return "see heapcensus --help";
    case ERR_NOMEM:
        return "free some memory, or use --read window, which needs little";
    case ERR_LIMIT:
        return "try again, with a larger --max-pause or with --no-pause";
    case ERR_INTERRUPTED:
        return "start it again when you like; nothing was written";
    case ERR_NOT_FOUND:
        return "ps -e lists the processes; a target is a PID, a core or a snapshot file";
    case ERR_FORMAT:
        return "is it a core or a snapshot, and whole? --partial reads a truncated snapshot";
    default:
        return "heapcensus doctor PID says what would work";
    }
}

/* Texts can quote names from the target or the command line: no control character gets through. */
static void say(const char *text)
{
    fputs("heapcensus: ", stderr);
    report_string(stderr, text);
    fputc('\n', stderr);
}

static int fail(const struct err *err)
{
    say(err->text);
    say(remedy_of(err));
    return exit_of_err(err);
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;
    struct options opt = {.max_pause_ns = 2000000000, .top = -1, .types = true};
    const struct cmd *cmd = NULL;
    int c;
    opterr = 0;
    while ((c = getopt_long(argc, argv, ":p:c:o:fqvrhV", long_options, NULL)) != -1) {
        const char *arg = c == '?' || c == ':' ? argv[optind - 1] : optarg;
        int rc = take_option(&opt, c, arg, &err);
        if (rc)
            return rc > 0 ? EXIT_OK : fail(&err);
    }
    if (argc == 1) {
        print_help(stdout);
        return EXIT_USAGE;
    }
    if (take_words(&opt, argv + optind, argc - optind, &cmd, &err) < 0 ||
        check_gates(&opt, cmd, &err) < 0)
        return fail(&err);
    catch_signals();
    open_many();
    int rc = cmd->run(&opt, &err);
    return rc < 0 ? fail(&err) : rc;
}
