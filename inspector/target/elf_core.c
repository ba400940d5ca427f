/* The files behind a core's modules. A core names paths of another day and often of another
 * machine: only the build-id, which lies in the first page of each module, tells whether a file is
 * the one that was mapped. */
#include <stdio.h>
#include <string.h>

#include "inspector/target/elf.h"

struct candidate {
    const struct elf_core_request *req;
    struct elf_core_verdict *verdict;
    struct elf_file *elf;
};

static void read_expected(const struct elf_core_request *req, struct elf_core_verdict *v)
{
    struct elf_image image;
    if (req->mem && req->base && elf_image_read(req->mem, req->base, &image, NULL) == 0)
        memcpy(v->expected, image.build_id, sizeof v->expected);
}

static enum elf_identity judge(const struct elf_core_verdict *v, const char *id)
{
    if (!v->expected[0] || !id[0])
        return ELF_UNPROVABLE;
    return strcmp(v->expected, id) == 0 ? ELF_PROVEN : ELF_DIFFERENT;
}

/* A file that is there says more than one that is not, whatever came before. */
static bool closer(enum elf_identity now, enum elf_identity before)
{
    return before == ELF_MISSING && now != ELF_MISSING;
}

static bool try_file(struct candidate *c, const char *root, const char *path)
{
    char full[ELF_PATH_CHARS];
    struct elf_file *elf = NULL;
    struct elf_core_verdict *v = c->verdict;
    int n = snprintf(full, sizeof full, "%s%s", root, path);
    if (n <= 0 || (size_t)n >= sizeof full)
        return false;
    enum elf_identity identity = ELF_MISSING;
    if (elf_open_path(full, &elf, NULL) == 0)
        identity = judge(v, elf_build_id(elf));
    if (!v->file[0] || identity == ELF_PROVEN || closer(identity, v->identity)) {
        v->identity = identity;
        memcpy(v->file, full, (size_t)n + 1);
        snprintf(v->found, sizeof v->found, "%s", elf ? elf_build_id(elf) : "");
    }
    if (identity == ELF_PROVEN)
        c->elf = elf;
    else
        elf_close(elf);
    return identity == ELF_PROVEN;
}

/* The path without the kernel's " (deleted)"; false for what is no path. */
static bool plain_path(const char *path, char *buf, size_t cap)
{
    static const char mark[] = " (deleted)";
    size_t len = strlen(path), tail = sizeof mark - 1;
    if (path[0] != '/' || len >= cap)
        return false;
    memcpy(buf, path, len + 1);
    if (len > tail && strcmp(buf + len - tail, mark) == 0)
        buf[len - tail] = '\0';
    return true;
}

void elf_open_core_module(const struct elf_core_request *req, struct elf_file **ret,
                          struct elf_core_verdict *verdict)
{
    char path[ELF_PATH_CHARS];
    struct candidate c = {req, verdict, NULL};
    memset(verdict, 0, sizeof *verdict);
    verdict->identity = ELF_MISSING;
    read_expected(req, verdict);
    bool named = plain_path(req->path, path, sizeof path);
    bool done = req->given && try_file(&c, "", req->given);
    if (!done && named && req->sysroot)
        done = try_file(&c, req->sysroot, path);
    if (!done && named)
        try_file(&c, "", path);
    *ret = c.elf;
}
