#include "inspector/target/maps.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/proc.h"
#include "inspector/target/procfile.h"

enum { NAME_BYTES = 8192, PAGE_BYTES = 4096 };

/* A line of the text, without its newline; not NUL-terminated. */
struct cursor {
    const char *p, *end;
};

void maps_init(struct maps *maps)
{
    memset(maps, 0, sizeof *maps);
    strpool_init(&maps->names);
}

void maps_release(struct maps *maps)
{
    free(maps->items);
    free(maps->flags);
    strpool_release(&maps->names);
    maps_init(maps);
}

struct vma_list maps_list(const struct maps *maps)
{
    return (struct vma_list){maps->items, maps->n};
}

static bool take(struct cursor *c, char want)
{
    if (c->p == c->end || *c->p != want)
        return false;
    c->p++;
    return true;
}

static void skip_blanks(struct cursor *c)
{
    while (c->p < c->end && (*c->p == ' ' || *c->p == '\t'))
        c->p++;
}

static int digit_of(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    if (ch >= 'a' && ch <= 'f')
        return ch - 'a' + 10;
    return 16;
}

/* At least one digit, no overflow. */
static bool take_number(struct cursor *c, uint64_t base, uint64_t *ret)
{
    uint64_t v = 0;
    const char *begin = c->p;
    while (c->p < c->end && (uint64_t)digit_of(*c->p) < base) {
        if (mul_overflows(v, base, &v) || add_overflows(v, (uint64_t)digit_of(*c->p), &v))
            return false;
        c->p++;
    }
    *ret = v;
    return c->p > begin;
}

static bool take_flag(struct cursor *c, char yes, bool *ret)
{
    *ret = c->p < c->end && *c->p == yes;
    return *ret ? take(c, yes) : take(c, '-');
}

static bool take_perms(struct cursor *c, struct vma *v)
{
    if (!take_flag(c, 'r', &v->r) || !take_flag(c, 'w', &v->w) || !take_flag(c, 'x', &v->x))
        return false;
    v->shared = c->p < c->end && *c->p == 's';
    return v->shared ? take(c, 's') : take(c, 'p');
}

static bool take_header(struct cursor *c, struct vma *v)
{
    uint64_t major, minor;
    if (!take_number(c, 16, &v->start) || !take(c, '-') || !take_number(c, 16, &v->end) ||
        !take(c, ' ') || !take_perms(c, v) || !take(c, ' '))
        return false;
    if (!take_number(c, 16, &v->offset) || !take(c, ' ') || !take_number(c, 16, &major) ||
        !take(c, ':') || !take_number(c, 16, &minor) || !take(c, ' ') ||
        !take_number(c, 10, &v->inode))
        return false;
    skip_blanks(c);
    /* The kernel's own packing of a device number (minor in two parts), as stat's st_dev. */
    v->dev = (minor & 0xff) | (major & 0xfff) << 8 | (minor & ~(uint64_t)0xff) << 12;
    return v->start < v->end && v->start % PAGE_BYTES == 0 && v->end % PAGE_BYTES == 0;
}

/* Decode \012 and \134, the two that the kernel may write. Cuts what is longer than a path. */
static size_t decode_name(const struct cursor *c, char *buf, size_t cap)
{
    size_t n = 0;
    for (const char *p = c->p; p < c->end && n < cap; p++) {
        if (c->end - p >= 4 && (memcmp(p, "\\012", 4) == 0 || memcmp(p, "\\134", 4) == 0)) {
            buf[n++] = p[1] == '0' ? '\n' : '\\';
            p += 3;
        } else {
            buf[n++] = *p;
        }
    }
    return n;
}

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static enum vma_kind kind_of_bracket(const struct vma *v)
{
    if (strcmp(v->name, "[heap]") == 0)
        return VMA_HEAP;
    if (strcmp(v->name, "[stack]") == 0)
        return VMA_STACK;
    if (starts(v->name, "[anon_shmem:"))
        return VMA_SHARED;
    /* "[stack:TID]": thread stacks of Linux 3.4 to 4.4 */
    if (starts(v->name, "[anon:") || starts(v->name, "[stack:"))
        return v->shared ? VMA_SHARED : VMA_ANON;
    return VMA_KERNEL;
}

static enum vma_kind kind_of(const struct vma *v)
{
    const char *name = v->name;
    if (!*name)
        return v->shared ? VMA_SHARED : v->inode ? VMA_FILE : VMA_ANON;
    if (*name == '[')
        return kind_of_bracket(v);
    if (starts(name, "anon_inode:") || starts(name, "/[aio]"))
        return VMA_KERNEL; /* io_uring, perf and the like: rings shared with the kernel */
    if (starts(name, "/anon_hugepage") || strcmp(name, "/dev/zero") == 0 ||
        starts(name, "/dev/zero ("))
        return v->shared ? VMA_SHARED : VMA_ANON;
    if (v->shared &&
        (starts(name, "/memfd:") || starts(name, "/dev/shm/") || starts(name, "/SYSV")))
        return VMA_SHARED;
    return VMA_FILE;
}

/* Clip a mapping that reaches below the end of its predecessor; false when nothing is left. */
static bool clip(struct maps *maps, struct vma *v)
{
    uint64_t low = maps->n ? maps->items[maps->n - 1].end : 0;
    if (v->start >= low)
        return true;
    maps->clipped++;
    if (v->end <= low)
        return false;
    v->offset += v->offset || v->inode ? low - v->start : 0;
    v->start = low;
    return true;
}

static int add_vma(struct maps *maps, struct cursor *c, struct vma *v, struct err *err)
{
    char name[NAME_BYTES];
    size_t len = decode_name(c, name, sizeof name);
    v->name = strpool_add_n(&maps->names, name, len);
    if (!v->name || vec_reserve(&maps->items, &maps->cap, maps->n + 1, sizeof *maps->items) < 0 ||
        vec_reserve(&maps->flags, &maps->flags_cap, maps->n + 1, sizeof *maps->flags) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu mappings", maps->n + 1);
    v->kind = kind_of(v);
    maps->flags[maps->n] = 0;
    maps->items[maps->n++] = *v;
    return 0;
}

/* The next line of *text, which is moved behind it; false at the end. */
static bool next_line(const char **text, const char *end, struct cursor *line)
{
    if (*text == end)
        return false;
    const char *nl = memchr(*text, '\n', (size_t)(end - *text));
    line->p = *text;
    line->end = nl ? nl : end;
    *text = nl ? nl + 1 : end;
    return true;
}

int maps_parse(struct maps *maps, const char *text, size_t len, struct err *err)
{
    const char *end = text + len;
    struct cursor line;
    for (size_t number = 1; next_line(&text, end, &line); number++) {
        struct vma v = {0};
        if (!take_header(&line, &v))
            return err_set(err, ERR_FORMAT, "line %zu of the maps is not a mapping", number);
        if (!clip(maps, &v))
            continue;
        int rc = add_vma(maps, &line, &v, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static uint32_t vm_flags(struct cursor *c)
{
    static const struct {
        char code[3];
        uint32_t flag;
    } codes[] = {{"pf", MAPS_PFNMAP},       {"ht", MAPS_HUGETLB},  {"io", MAPS_IO},
                 {"mm", MAPS_MIXED},        {"dc", MAPS_DONTFORK}, {"wf", MAPS_WIPEONFORK},
                 {"um", MAPS_UFFD_MISSING}, {"uw", MAPS_UFFD_WP}};
    uint32_t flags = 0;
    for (skip_blanks(c); c->end - c->p >= 2; skip_blanks(c)) {
        for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++)
            if (memcmp(c->p, codes[i].code, 2) == 0)
                flags |= codes[i].flag;
        c->p += 2;
    }
    return flags;
}

/* "Key:   123 kB" as bytes; false when it is another key or no number. */
static bool attribute(const struct cursor *line, const char *key, uint64_t *bytes)
{
    struct cursor c = *line;
    size_t len = strlen(key);
    if ((size_t)(c.end - c.p) < len || memcmp(c.p, key, len) != 0)
        return false;
    c.p += len;
    skip_blanks(&c);
    return take_number(&c, 10, bytes) && !mul_overflows(*bytes, 1024, bytes);
}

/* One attribute line of the mapping items[i]; i == maps->n when it is not known. */
static void smaps_attribute(struct maps *maps, size_t i, struct cursor *line)
{
    uint64_t bytes, sum;
    struct vma *v = i < maps->n ? &maps->items[i] : NULL;
    if (attribute(line, "Rss:", &bytes)) {
        maps->rss_total = add_overflows(maps->rss_total, bytes, &sum) ? UINT64_MAX : sum;
        if (v)
            v->rss = bytes;
    } else if (attribute(line, "Swap:", &bytes)) {
        maps->swap_total = add_overflows(maps->swap_total, bytes, &sum) ? UINT64_MAX : sum;
        if (v)
            v->swap = bytes;
    } else if (attribute(line, "AnonHugePages:", &bytes)) {
        maps->anon_huge_total =
            add_overflows(maps->anon_huge_total, bytes, &sum) ? UINT64_MAX : sum;
    } else if (line->end - line->p > 8 && memcmp(line->p, "VmFlags:", 8) == 0) {
        line->p += 8;
        if (v)
            maps->flags[i] = vm_flags(line);
    }
}

static size_t index_of_start(const struct maps *maps, uint64_t start)
{
    struct vma_list list = maps_list(maps);
    const struct vma *v = vma_at(&list, start);
    return v && v->start == start ? (size_t)(v - maps->items) : maps->n;
}

int maps_parse_smaps(struct maps *maps, const char *text, size_t len, struct err *err)
{
    const char *end = text + len;
    struct cursor line;
    size_t at = maps->n;
    maps->rss_total = maps->swap_total = maps->anon_huge_total = 0;
    for (size_t number = 1; next_line(&text, end, &line); number++) {
        struct vma v = {0};
        struct cursor header = line;
        if (take_header(&header, &v))
            at = index_of_start(maps, v.start);
        else if (number == 1)
            return err_set(err, ERR_FORMAT, "smaps does not begin with a mapping");
        else
            smaps_attribute(maps, at, &line);
    }
    maps->has_smaps = true;
    return 0;
}

static int read_with(struct maps *maps, int pid, const char *name,
                     int (*parse)(struct maps *, const char *, size_t, struct err *),
                     struct err *err)
{
    char *text;
    size_t len;
    int fd = proc_open(pid, name, O_RDONLY, err);
    if (fd < 0)
        return fd;
    int rc = procfile_read_fd(fd, name, &text, &len, err);
    close(fd);
    if (rc < 0)
        return err_context(err, rc, "process %d", pid);
    if (len == 0)
        rc = err_set(err, ERR_NOT_FOUND, "process %d has exited: it has no mappings", pid);
    else
        rc = parse(maps, text, len, err);
    free(text);
    return rc;
}

int maps_read(struct maps *maps, int pid, struct err *err)
{
    return read_with(maps, pid, "maps", maps_parse, err);
}

int maps_read_smaps(struct maps *maps, int pid, struct err *err)
{
    return read_with(maps, pid, "smaps", maps_parse_smaps, err);
}
