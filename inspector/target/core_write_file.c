#define _GNU_SOURCE /* O_PATH */
#include "inspector/target/core_write_file.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/base/vec.h"

enum { PATH_BYTES = 4096 + 64 };

void core_sources_init(struct core_sources *sources, int pid)
{
    memset(sources, 0, sizeof *sources);
    sources->pid = pid;
}

void core_sources_release(struct core_sources *sources)
{
    free(sources->items);
    core_sources_init(sources, sources->pid);
}

static bool is_deleted(const struct vma *v)
{
    static const char mark[] = " (deleted)";
    size_t len = strlen(v->name), tail = sizeof mark - 1;
    return len > tail && strcmp(v->name + len - tail, mark) == 0;
}

static void map_files_path(const struct core_sources *sources, const struct vma *v, char *buf,
                           size_t cap)
{
    snprintf(buf, cap, "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, sources->pid, v->start, v->end);
}

/* O_PATH first: opening a device or a FIFO for reading can have effects or block. */
static int open_regular(const char *path, const struct vma *must_be, struct err *err)
{
    char self[64];
    struct stat st;
    int at = open(path, O_PATH | O_CLOEXEC);
    if (at < 0)
        return err_set(err, ERR_NOT_FOUND, "cannot open %s: %s", path, strerror(errno));
    if (fstat(at, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(at);
        return err_set(err, ERR_UNSUPPORTED, "%s is not a regular file", path);
    }
    if (must_be && (st.st_ino != must_be->inode || st.st_dev != must_be->dev)) {
        close(at);
        return err_set(err, ERR_NOT_FOUND, "%s is not the file that was mapped", path);
    }
    snprintf(self, sizeof self, "/proc/self/fd/%d", at);
    int fd = open(self, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    int why = errno;
    close(at);
    if (fd < 0)
        return err_set(err, ERR_NOT_FOUND, "cannot open %s: %s", path, strerror(why));
    return fd;
}

int core_source_open(const struct core_sources *sources, const struct vma *v, struct err *err)
{
    char path[PATH_BYTES];
    map_files_path(sources, v, path, sizeof path);
    int fd = open_regular(path, NULL, err);
    if (fd >= 0 || fd == ERR_UNSUPPORTED || v->name[0] != '/' || is_deleted(v))
        return fd;
    int n = snprintf(path, sizeof path, "/proc/%d/root%s", sources->pid, v->name);
    if (n > 0 && (size_t)n < sizeof path) {
        fd = open_regular(path, v, err);
        if (fd >= 0)
            return fd;
    }
    return open_regular(v->name, v, err);
}

static bool looks_executable(const struct core_sources *sources, const struct vma *v)
{
    struct stat st;
    char magic[SELFMAG];
    int fd = core_source_open(sources, v, NULL);
    if (fd < 0)
        return false;
    bool yes = fstat(fd, &st) == 0 && st.st_mode & 0111;
    if (!yes)
        yes = pread(fd, magic, sizeof magic, 0) == (ssize_t)sizeof magic &&
              memcmp(magic, ELFMAG, SELFMAG) == 0;
    close(fd);
    return yes;
}

bool core_source_head(struct core_sources *sources, const struct vma *v)
{
    for (size_t i = 0; i < sources->n; i++)
        if (sources->items[i].dev == v->dev && sources->items[i].inode == v->inode)
            return sources->items[i].head;
    bool head = looks_executable(sources, v);
    /* Without memory for the note it is looked at again, no more. */
    if (vec_reserve(&sources->items, &sources->cap, sources->n + 1, sizeof *sources->items) == 0)
        sources->items[sources->n++] = (struct core_source){v->dev, v->inode, head};
    return head;
}

bool core_source_unlinked(const struct core_sources *sources, const struct vma *v)
{
    char path[PATH_BYTES];
    struct stat st;
    if (!is_deleted(v))
        return false;
    map_files_path(sources, v, path, sizeof path);
    return stat(path, &st) == 0 ? st.st_nlink == 0 : true;
}
