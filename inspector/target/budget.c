#include "inspector/target/budget.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "inspector/target/procfile.h"

enum { MAX_DEPTH = 64, FIELD_BYTES = 1024 };

uint64_t budget_room(const struct budget *b)
{
    uint64_t left = UINT64_MAX;
    if (b->cgroup_limit != UINT64_MAX)
        left = b->cgroup_limit > b->cgroup_usage ? b->cgroup_limit - b->cgroup_usage : 0;
    return min_u64(left, b->available);
}

/* "a,b,c" contains word. */
static bool list_has(const char *list, size_t len, const char *word)
{
    size_t want = strlen(word);
    for (const char *p = list, *end = list + len; p < end;) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        size_t n = (size_t)((comma ? comma : end) - p);
        if (n == want && memcmp(p, word, n) == 0)
            return true;
        p += n + 1;
    }
    return false;
}

static void copy_field(char *buf, size_t cap, const char *p, size_t len)
{
    if (len >= cap)
        len = cap - 1;
    memcpy(buf, p, len);
    buf[len] = '\0';
}

/* Our path in the hierarchy: "N:controllers:/path", v1 with memory before "0::/path" of v2. */
static int own_path(const char *cgroup, char *path, size_t cap)
{
    int version = 0;
    for (const char *line = cgroup; *line;) {
        size_t len = strcspn(line, "\n");
        const char *c1 = memchr(line, ':', len);
        const char *c2 = c1 ? memchr(c1 + 1, ':', len - (size_t)(c1 + 1 - line)) : NULL;
        if (c2) {
            bool v1 = list_has(c1 + 1, (size_t)(c2 - c1 - 1), "memory");
            bool v2 = line[0] == '0' && c1 == line + 1 && c2 == c1 + 1;
            if (v1 || (v2 && !version)) {
                version = v1 ? 1 : 2;
                copy_field(path, cap, c2 + 1, len - (size_t)(c2 + 1 - line));
            }
        }
        line += len + (line[len] == '\n');
    }
    return version;
}

/* One mountinfo line: id parent dev root mountpoint options... - type source super-options. */
static bool mount_matches(const char *line, size_t len, int version, char *root, char *mount)
{
    char text[4 * FIELD_BYTES], opts[FIELD_BYTES] = "", type[FIELD_BYTES] = "";
    copy_field(text, sizeof text, line, len);
    char *sep = strstr(text, " - ");
    if (!sep || sscanf(text, "%*s %*s %*s %1023s %1023s", root, mount) != 2)
        return false;
    if (sscanf(sep, " - %1023s %*s %1023s", type, opts) < 1)
        return false;
    if (version == 2)
        return strcmp(type, "cgroup2") == 0;
    return strcmp(type, "cgroup") == 0 && list_has(opts, strlen(opts), "memory");
}

void budget_find_cgroup(const char *cgroup, const char *mountinfo, struct budget_cgroup *ret)
{
    char path[FIELD_BYTES] = "", root[FIELD_BYTES], mount[FIELD_BYTES];
    memset(ret, 0, sizeof *ret);
    int version = own_path(cgroup, path, sizeof path);
    for (const char *line = mountinfo; version && *line;) {
        size_t len = strcspn(line, "\n");
        if (mount_matches(line, len, version, root, mount)) {
            /* In a container the mount shows only the part below `root`. */
            size_t skip = strcmp(root, "/") == 0 ? 0 : strlen(root);
            bool inside = strncmp(path, root, skip) == 0 && (path[skip] == '/' || !path[skip]);
            const char *below = inside ? path + skip : "";
            if (strcmp(below, "/") == 0 || strstr(below, "/.."))
                below = "";
            ret->version = version;
            snprintf(ret->mount, sizeof ret->mount, "%s", mount);
            snprintf(ret->dir, sizeof ret->dir, "%s%s", mount, below);
            return;
        }
        line += len + (line[len] == '\n');
    }
}

/* A file that holds one number; UINT64_MAX for "max", for v1's huge "no limit", and without it. */
static uint64_t number_in(const char *dir, const char *name)
{
    char path[4096], text[64];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!procfile_small(path, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return UINT64_MAX;
    uint64_t v = strtoull(text, NULL, 10);
    return v >= (uint64_t)1 << 62 ? UINT64_MAX : v;
}

/* Page cache that goes before anything is killed. */
static uint64_t inactive_file(const char *dir, int version)
{
    char path[4096], text[8192];
    const char *key = version == 1 ? "total_inactive_file " : "inactive_file ";
    snprintf(path, sizeof path, "%s/memory.stat", dir);
    if (!procfile_small(path, text, sizeof text))
        return 0;
    for (const char *line = text; *line;) {
        if (strncmp(line, key, strlen(key)) == 0)
            return strtoull(line + strlen(key), NULL, 10);
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return 0;
}

static void consider(struct budget *b, const char *dir, int version)
{
    uint64_t limit = number_in(dir, version == 1 ? "memory.limit_in_bytes" : "memory.max");
    uint64_t usage = number_in(dir, version == 1 ? "memory.usage_in_bytes" : "memory.current");
    if (limit == UINT64_MAX || usage == UINT64_MAX)
        return;
    uint64_t cache = inactive_file(dir, version);
    usage -= min_u64(usage, cache);
    uint64_t room = limit > usage ? limit - usage : 0;
    uint64_t best = b->cgroup_limit == UINT64_MAX       ? UINT64_MAX
                    : b->cgroup_limit > b->cgroup_usage ? b->cgroup_limit - b->cgroup_usage
                                                        : 0;
    if (b->cgroup_limit == UINT64_MAX || room < best) {
        b->cgroup_limit = limit;
        b->cgroup_usage = usage;
    }
}

static void walk_up(struct budget *b, struct budget_cgroup *cg)
{
    size_t top = strlen(cg->mount);
    for (int depth = 0; depth < MAX_DEPTH; depth++) {
        consider(b, cg->dir, cg->version);
        char *slash = strrchr(cg->dir, '/');
        if (!slash || (size_t)(slash - cg->dir) < top)
            return;
        *slash = '\0';
    }
}

static void read_cgroup(struct budget *b)
{
    char *cgroup = NULL, *mountinfo = NULL;
    size_t len;
    struct budget_cgroup cg;
    if (procfile_read("/proc/self/cgroup", &cgroup, &len, NULL) == 0 &&
        procfile_read("/proc/self/mountinfo", &mountinfo, &len, NULL) == 0) {
        budget_find_cgroup(cgroup, mountinfo, &cg);
        if (cg.version)
            walk_up(b, &cg);
    }
    free(cgroup);
    free(mountinfo);
}

void budget_read(struct budget *ret)
{
    char text[4096];
    uint64_t bytes;
    *ret = (struct budget){UINT64_MAX, UINT64_MAX, 0};
    if (procfile_small("/proc/meminfo", text, sizeof text) &&
        procfile_value(text, "MemAvailable") &&
        !mul_overflows(procfile_number(text, "MemAvailable", 10), 1024, &bytes))
        ret->available = bytes;
    read_cgroup(ret);
}
