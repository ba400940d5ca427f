#include "inspector/diff_input.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/json.h"
#include "inspector/census.h"
#include "inspector/census_core.h"
#include "inspector/target/core.h"

static bool has_named(const struct options *opt)
{
    return !opt->target && (opt->pid || opt->core);
}

size_t diff_input_count(const struct options *opt)
{
    return opt->n_words + has_named(opt);
}

/* The options of one target alone, as if it had been the only word. */
static int target_of(const struct options *opt, size_t i, struct diff_input *in,
                     struct options *one, struct err *err)
{
    *one = *opt;
    one->must_types = opt->types;
    if (i >= opt->n_words) {
        snprintf(in->pid_name, sizeof in->pid_name, "%d", (int)opt->pid);
        in->name = opt->core ? opt->core : in->pid_name;
        return 0;
    }
    const char *word = in->name = one->target = opt->words[i];
    one->pid = 0;
    one->core = NULL;
    if (word[0] && strspn(word, "0123456789") == strlen(word)) {
        errno = 0;
        unsigned long long v = strtoull(word, NULL, 10);
        if (errno || v == 0 || v > 1u << 22) /* the kernel's largest PID */
            return err_set(err, ERR_NOT_FOUND, "there is no process %s", word);
        one->pid = (pid_t)v;
    } else if (strcmp(word, "-") != 0 && core_looks_like_one(word)) {
        one->core = word;
    }
    return 0;
}

static int take_census(const struct options *one, bool blocks, struct diff_input *in,
                       struct err *err)
{
    struct options with = *one;
    with.blocks = blocks;
    in->pid = one->core ? 0 : one->pid;
    snapshot_init(&in->snap);
    int rc =
        one->core ? census_core_take(&with, &in->snap, err) : census_take(&with, &in->snap, err);
    if (rc == 0 && blocks)
        rc = block_stream_open_snapshot(&in->snap, &in->stream, err);
    if (rc < 0)
        snapshot_release(&in->snap);
    in->has_blocks = blocks;
    return rc < 0 ? err_context(err, rc, "%s", in->name) : 0;
}

static int open_failed(int rc, struct err *err)
{
    if (rc != ERR_OS || err->os_errno == EACCES || err->os_errno == EPERM)
        return rc;
    rc = err->code = err->os_errno == ENOENT ? ERR_NOT_FOUND : ERR_FORMAT;
    err_remedy(err, "compare snapshot files, PIDs or cores; see heapcensus --help");
    return rc;
}

/* Without a wish for them a file's blocks, which are its end and most of it, are not read: the
 * first one tells that there are some. */
static int read_file(const struct options *one, bool blocks, struct diff_input *in, struct err *err)
{
    struct block_row row;
    unsigned flags = one->partial ? JSON_PARTIAL : 0;
    int rc = block_stream_open(one->target, flags, &in->snap, &in->stream, err);
    if (rc < 0)
        return open_failed(rc, err);
    in->has_blocks = true;
    if (blocks)
        return 0;
    rc = block_stream_next(in->stream, &row, err);
    in->has_blocks = rc > 0;
    block_stream_close(in->stream);
    in->stream = NULL;
    if (rc < 0)
        snapshot_release(&in->snap);
    return rc < 0 ? rc : 0;
}

int diff_input_open(const struct options *opt, size_t i, bool blocks, struct diff_input *ret,
                    struct err *err)
{
    struct options one;
    memset(ret, 0, sizeof *ret);
    int rc = target_of(opt, i, ret, &one, err);
    if (rc == 0 && (one.pid || one.core))
        rc = take_census(&one, blocks, ret, err);
    else if (rc == 0)
        rc = read_file(&one, blocks, ret, err);
    if (rc < 0)
        memset(ret, 0, sizeof *ret);
    return rc;
}

void diff_input_release(struct diff_input *in)
{
    if (!in->name)
        return;
    block_stream_close(in->stream);
    snapshot_release(&in->snap);
    memset(in, 0, sizeof *in);
}

int diff_input_key(const struct options *opt, enum figure_key *ret, struct err *err)
{
    if (!opt->by)
        return 0;
    int key = strcmp(opt->by, "filename") == 0 ? FIGURES_BY_FILE
              : strcmp(opt->by, "lineno") == 0 ? FIGURES_BY_LINE
                                               : figure_key_of_name(opt->by);
    if (key < 0) {
        err_set(err, ERR_USAGE, "--by does not know '%s'", opt->by);
        err_remedy(err, "type, module, package, size, arena, category, mapping, file, line or "
                        "traceback");
        return ERR_USAGE;
    }
    *ret = (enum figure_key)key;
    return 0;
}
