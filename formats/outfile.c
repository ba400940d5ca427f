/* Output files by name: written beside the final name, renamed when complete. */
#define _GNU_SOURCE 1 /* renameat2, mkostemp */
#include "formats/sink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int exists_error(const char *path, struct err *err)
{
    int code = err_set(err, ERR_USAGE, "%s exists already", path);
    err_remedy(err, "give -f to overwrite it, or another name with -o");
    return code;
}

static bool ends_in_gz(const char *path)
{
    size_t len = strlen(path);
    return len > 3 && strcmp(path + len - 3, ".gz") == 0;
}

/* "dir/.heapcensus-XXXXXX" for "dir/file": short, so that a long file name cannot make it too long.
 */
static char *temporary_name(const char *path)
{
    static const char tail[] = ".heapcensus-XXXXXX";
    const char *slash = strrchr(path, '/');
    size_t dir = slash ? (size_t)(slash - path) + 1 : 0;
    char *name = malloc(dir + sizeof tail);
    if (!name)
        return NULL;
    memcpy(name, path, dir);
    memcpy(name + dir, tail, sizeof tail);
    return name;
}

/* A file that is there already: refuse it, follow its symbolic link, or write to it directly when
 * renaming would replace a device or a pipe by a file. */
static int open_existing(struct outfile *f, struct err *err)
{
    struct stat st;
    bool dangling = stat(f->path, &st) < 0;
    if (!dangling && S_ISDIR(st.st_mode))
        return err_set(err, ERR_USAGE, "%s is a directory", f->path);
    if (!dangling && (S_ISCHR(st.st_mode) || S_ISFIFO(st.st_mode))) {
        f->below.fd = open(f->path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        return f->below.fd < 0 ? err_os(err, errno, "cannot open %s", f->path) : 0;
    }
    if (!dangling && !S_ISREG(st.st_mode))
        return err_set(err, ERR_USAGE, "%s is not a regular file", f->path);
    if (!f->force)
        return exists_error(f->path, err);
    char *real = dangling ? NULL : realpath(f->path, NULL);
    if (real) {
        free(f->path);
        f->path = real;
    }
    return 0;
}

static int open_temporary(struct outfile *f, struct err *err)
{
    f->temporary = temporary_name(f->path);
    if (!f->temporary)
        return err_set(err, ERR_NOMEM, "no memory for a file name");
    f->below.fd = mkostemp(f->temporary, O_CLOEXEC); /* O_EXCL, mode 0600 */
    if (f->below.fd >= 0)
        return 0;
    int why = errno;
    free(f->temporary); /* nothing was created: nothing to remove */
    f->temporary = NULL;
    return err_os(err, why, "cannot create %s", f->path);
}

static int open_output(struct outfile *f, struct err *err)
{
    struct stat st;
    if (strcmp(f->path, "-") == 0) {
        f->below.fd = STDOUT_FILENO;
        f->borrowed = true;
        return 0;
    }
    if (lstat(f->path, &st) == 0) {
        int rc = open_existing(f, err);
        if (rc < 0 || f->below.fd >= 0)
            return rc;
    }
    return open_temporary(f, err);
}

int outfile_open(struct outfile *f, const char *path, bool force, struct err *err)
{
    memset(f, 0, sizeof *f);
    f->force = force;
    f->path = strdup(path);
    if (!f->path)
        return err_set(err, ERR_NOMEM, "no memory for a file name");
    sink_fd_init(&f->below, -1, strcmp(path, "-") == 0 ? "standard output" : f->path);
    int rc = open_output(f, err);
    if (rc == 0 && ends_in_gz(path))
        rc = sink_gzip_new(&f->below.sink, &f->gzip, err);
    if (rc < 0) {
        outfile_abort(f);
        return rc;
    }
    if (!f->borrowed)
        f->below.name = f->path; /* may have been resolved */
    f->sink = f->gzip ? f->gzip : &f->below.sink;
    return 0;
}

/* Where the file system cannot rename without replacing, claim the name first: O_EXCL decides
 * races.
 */
static int rename_claimed(const char *from, const char *to, struct err *err)
{
    int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno == EEXIST ? exists_error(to, err) : err_os(err, errno, "cannot create %s", to);
    close(fd);
    if (rename(from, to) == 0)
        return 0;
    int why = errno;
    unlink(to);
    return err_os(err, why, "cannot rename the complete file to %s", to);
}

static int rename_output(const struct outfile *f, struct err *err)
{
    unsigned flags = f->force ? 0 : RENAME_NOREPLACE;
    if (renameat2(AT_FDCWD, f->temporary, AT_FDCWD, f->path, flags) == 0)
        return 0;
    if (f->force && errno == ENOSYS && rename(f->temporary, f->path) == 0)
        return 0;
    if (!f->force && errno == EEXIST)
        return exists_error(f->path, err);
    if (!f->force && (errno == EINVAL || errno == ENOSYS))
        return rename_claimed(f->temporary, f->path, err);
    return err_os(err, errno, "cannot rename the complete file to %s", f->path);
}

/* A full disk may show only when the bytes reach it: at fsync, or at close on network file systems.
 */
static int close_output(struct outfile *f, struct err *err)
{
    int fd = f->below.fd;
    f->below.fd = -1;
    if (f->temporary && fsync(fd) < 0) {
        int why = errno;
        close(fd);
        return err_os(err, why, "cannot write %s", f->path);
    }
    if (!f->borrowed && close(fd) < 0)
        return err_os(err, errno, "cannot write %s", f->path);
    return 0;
}

int outfile_commit(struct outfile *f, struct err *err)
{
    int rc = f->gzip ? sink_gzip_finish(f->gzip, err) : 0;
    if (rc == 0)
        rc = close_output(f, err);
    if (rc == 0 && f->temporary)
        rc = rename_output(f, err);
    if (rc == 0) {
        free(f->temporary); /* renamed: outfile_abort must not remove it */
        f->temporary = NULL;
    }
    outfile_abort(f);
    return rc;
}

void outfile_abort(struct outfile *f)
{
    if (!f->path)
        return;
    sink_gzip_free(f->gzip);
    if (f->below.fd >= 0 && !f->borrowed)
        close(f->below.fd);
    if (f->temporary)
        unlink(f->temporary);
    free(f->temporary);
    free(f->path);
    memset(f, 0, sizeof *f);
}
