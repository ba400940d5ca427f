#include "inspector/target/procfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/vec.h"

enum { FIRST_BYTES = 64 * 1024 };
static const size_t max_bytes = (size_t)1 << 30;

int procfile_failed(struct err *err, int os_errno, const char *path)
{
    enum err_code code = ERR_OS;
    if (os_errno == ENOENT || os_errno == ESRCH)
        code = ERR_NOT_FOUND;
    else if (os_errno == EACCES || os_errno == EPERM)
        code = ERR_PERMISSION;
    err_os(err, os_errno, "cannot read %s", path);
    if (err)
        err->code = code;
    return code;
}

int procfile_read_fd(int fd, const char *path, char **ret, size_t *len, struct err *err)
{
    char *buf = NULL;
    size_t n = 0, cap = 0;
    for (;;) {
        if (n > max_bytes) {
            free(buf);
            return err_set(err, ERR_LIMIT, "%s is longer than %zu bytes", path, max_bytes);
        }
        if (vec_reserve(&buf, &cap, n + FIRST_BYTES, 1) < 0) {
            free(buf);
            return err_set(err, ERR_NOMEM, "no memory for %s", path);
        }
        ssize_t got = read(fd, buf + n, cap - n - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int saved = errno;
            free(buf);
            return procfile_failed(err, saved, path);
        }
        if (got == 0)
            break;
        n += (size_t)got;
    }
    buf[n] = '\0';
    *ret = buf;
    *len = n;
    return 0;
}

int procfile_read(const char *path, char **ret, size_t *len, struct err *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return procfile_failed(err, errno, path);
    int rc = procfile_read_fd(fd, path, ret, len, err);
    close(fd);
    return rc;
}

bool procfile_small(const char *path, char *buf, size_t cap)
{
    buf[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    size_t n = 0;
    while (n < cap - 1) {
        ssize_t got = read(fd, buf + n, cap - 1 - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(fd);
    if (n && buf[n - 1] == '\n')
        n--;
    buf[n] = '\0';
    return n > 0;
}

const char *procfile_value(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *line = text; line && *line; line = strchr(line, '\n')) {
        if (*line == '\n')
            line++;
        if (strncmp(line, key, len) == 0 && line[len] == ':')
            return line + len + 1 + strspn(line + len + 1, " \t");
    }
    return NULL;
}

uint64_t procfile_number(const char *text, const char *key, int base)
{
    const char *v = procfile_value(text, key);
    return v ? strtoull(v, NULL, base) : 0;
}
