/* Opening the file behind a target's mapping. A path in /proc/PID/maps is what the file was called
 * when it was mapped, in the target's mount namespace: since then it may have been replaced,
 * deleted or hidden. So every candidate is checked against what the kernel and the memory say. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inspector/target/elf.h"

struct identity {
    const struct vma *map;
    char build_id[ELF_BUILD_ID_CHARS]; /* of the target's memory; "" if unknown */
};

static void identity_read(const struct elf_module_request *req, struct identity *id)
{
    struct elf_image image;

    id->map = req->map;
    id->build_id[0] = 0;
    uint64_t base = req->first_start;
    if (!base && req->map->offset == 0)
        base = req->map->start;
    if (req->mem && base && elf_image_read(req->mem, base, &image, NULL) == 0)
        memcpy(id->build_id, image.build_id, sizeof id->build_id);
}

enum verdict { SAME, SAME_UNPROVEN, DIFFERENT };

static enum verdict identity_check(const struct identity *id, const struct elf_file *elf)
{
    struct stat st;
    if (fstat(elf_fd(elf), &st))
        return DIFFERENT;
    bool inode = id->map->inode && id->map->inode == (uint64_t)st.st_ino;
    if (inode && id->map->dev == (uint64_t)st.st_dev)
        return SAME;
    if (id->build_id[0] && elf_build_id(elf)[0])
        return strcmp(id->build_id, elf_build_id(elf)) == 0 ? SAME : DIFFERENT;
    /* A core has no inode; overlay and btrfs show another device than stat does. */
    return inode || !id->map->inode ? SAME_UNPROVEN : DIFFERENT;
}

/* Try one path. The first failure is kept in *why: it is about the most trustworthy source. */
static bool try_path(const struct identity *id, const char *path, bool trusted,
                     struct elf_file **ret, char *how, struct err *why)
{
    struct elf_file *elf;
    struct err err = ERR_INIT;

    if (elf_open_path(path, &elf, &err)) {
        if (!why->code || (why->code == ERR_OS && err.code != ERR_OS))
            *why = err;
        return false;
    }
    enum verdict verdict = trusted ? SAME : identity_check(id, elf);
    if (verdict == DIFFERENT) {
        elf_close(elf);
        err_set(why, ERR_NOT_FOUND, "%s is not the file that was mapped", path);
        return false;
    }
    if (how)
        snprintf(how, ELF_PATH_CHARS, "%s%s", path,
                 verdict == SAME_UNPROVEN ? " (identity not proven)" : "");
    *ret = elf;
    return true;
}

/* The path without the kernel's " (deleted)". A file whose name ends so is found by map_files. */
static bool plain_path(const struct vma *map, char *buf, size_t cap)
{
    static const char mark[] = " (deleted)";
    size_t len = strlen(map->name), tail = sizeof mark - 1;

    if (map->name[0] != '/' || len >= cap)
        return false;
    memcpy(buf, map->name, len + 1);
    if (len > tail && strcmp(buf + len - tail, mark) == 0)
        buf[len - tail] = 0;
    return true;
}

static bool try_proc(const struct elf_module_request *req, const struct identity *id,
                     struct elf_file **ret, char *how, struct err *why)
{
    char path[128];

    if (req->pid <= 0)
        return false;
    snprintf(path, sizeof path, "/proc/%d/map_files/%llx-%llx", (int)req->pid,
             (unsigned long long)req->map->start, (unsigned long long)req->map->end);
    if (try_path(id, path, true, ret, how, why))
        return true;
    snprintf(path, sizeof path, "/proc/%d/exe", (int)req->pid);
    struct err ignored = ERR_INIT; /* not the executable: says nothing about this module */
    return try_path(id, path, false, ret, how, &ignored);
}

static bool try_below(const struct identity *id, const char *root, const char *path,
                      struct elf_file **ret, char *how, struct err *why)
{
    char full[ELF_PATH_CHARS];

    int n = snprintf(full, sizeof full, "%s%s", root, path);
    return n > 0 && (size_t)n < sizeof full && try_path(id, full, false, ret, how, why);
}

int elf_open_module(const struct elf_module_request *req, struct elf_file **ret, char *how,
                    struct err *err)
{
    char path[ELF_PATH_CHARS], root[64];
    struct identity id;
    struct err why = ERR_INIT;

    identity_read(req, &id);
    bool named = plain_path(req->map, path, sizeof path);
    if (named && req->sysroot && try_below(&id, req->sysroot, path, ret, how, &why))
        return 0;
    if (try_proc(req, &id, ret, how, &why))
        return 0;
    snprintf(root, sizeof root, "/proc/%d/root", (int)req->pid);
    if (named && req->pid > 0 && try_below(&id, root, path, ret, how, &why))
        return 0;
    if (named && try_below(&id, "", path, ret, how, &why))
        return 0;
    if (!why.code)
        err_set(&why, ERR_NOT_FOUND, "no file is known");
    if (err)
        *err = why;
    return err_context(err, why.code, "cannot open the file mapped as %s", req->map->name);
}
