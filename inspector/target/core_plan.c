#include "inspector/target/core_plan.h"

#include <elf.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/core_write_file.h"

enum { LINE_BYTES = 256 };

/* ---- smaps ---- */

void core_attrs_init(struct core_attrs *attrs)
{
    memset(attrs, 0, sizeof *attrs);
}

void core_attrs_release(struct core_attrs *attrs)
{
    free(attrs->items);
    core_attrs_init(attrs);
}

static bool starts(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

static uint64_t kib(const char *s)
{
    uint64_t bytes;
    return mul_overflows(strtoull(s, NULL, 10), 1024, &bytes) ? UINT64_MAX : bytes;
}

static void take_flags(struct core_attr *a, const char *s)
{
    for (s += strspn(s, " "); s[0] && s[1]; s += strspn(s, " ")) {
        a->shared |= starts(s, "sh");
        a->dontdump |= starts(s, "dd");
        a->hugetlb |= starts(s, "ht");
        a->io |= starts(s, "io") || starts(s, "pf");
        s += 2;
    }
}

static void take_attribute(struct core_attr *a, const char *line)
{
    if (starts(line, "Anonymous:"))
        a->anonymous = kib(line + 10);
    else if (starts(line, "Swap:"))
        a->swap = kib(line + 5);
    else if (starts(line, "VmFlags:"))
        take_flags(a, line + 8);
}

static bool is_header(const char *line)
{
    return (*line >= '0' && *line <= '9') || (*line >= 'a' && *line <= 'f');
}

/* 1: a mapping's header was added; 0: it makes no sense or overlaps; negative: failed. */
static int add_attr(struct core_attrs *attrs, const char *line, struct err *err)
{
    struct core_attr a = {0};
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s", &a.start, &a.end, a.perms) != 3 ||
        a.start >= a.end)
        return 0;
    if (attrs->n && a.start < attrs->items[attrs->n - 1].end)
        return 0;
    if (vec_reserve(&attrs->items, &attrs->cap, attrs->n + 1, sizeof *attrs->items) < 0)
        return err_set(err, ERR_NOMEM, "no memory for %zu mappings", attrs->n + 1);
    attrs->items[attrs->n++] = a;
    return 1;
}

int core_attrs_parse(struct core_attrs *attrs, const char *text, size_t len, struct err *err)
{
    char line[LINE_BYTES];
    const char *end = text + len;
    bool known = false;
    attrs->n = 0;
    while (text < end) {
        const char *nl = memchr(text, '\n', (size_t)(end - text));
        size_t n = (size_t)((nl ? nl : end) - text);
        size_t kept = n < sizeof line ? n : sizeof line - 1;
        memcpy(line, text, kept);
        line[kept] = '\0';
        text += n + (nl != NULL);
        if (is_header(line)) {
            int rc = add_attr(attrs, line, err);
            if (rc < 0)
                return rc;
            known = rc > 0;
        } else if (known) {
            take_attribute(&attrs->items[attrs->n - 1], line);
        }
    }
    return 0;
}

static bool same_perms(const struct core_attr *a, const struct vma *v)
{
    return (a->perms[0] == 'r') == v->r && (a->perms[1] == 'w') == v->w &&
           (a->perms[2] == 'x') == v->x && (a->perms[3] == 's') == v->shared;
}

const struct core_attr *core_attrs_find(const struct core_attrs *attrs, const struct vma *v)
{
    size_t lo = 0, hi = attrs->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (attrs->items[mid].start < v->start)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == attrs->n)
        return NULL;
    const struct core_attr *a = &attrs->items[lo];
    return a->start == v->start && a->end == v->end && same_perms(a, v) ? a : NULL;
}

/* ---- the rules ---- */

bool core_has_file(const struct vma *v)
{
    return v->inode || v->name[0] == '/' || starts(v->name, "anon_inode:");
}

/* Mappings that the kernel made and named: always dumped. */
static bool is_special(const struct vma *v)
{
    return v->kind == VMA_KERNEL && v->name[0] == '[';
}

static bool has_anonymous(const struct core_subject *s)
{
    if (s->attr)
        return s->attr->anonymous || s->attr->swap;
    return s->vma->w || !core_has_file(s->vma);
}

static bool is_shared(const struct vma *v, const struct core_attr *attr)
{
    return attr ? attr->shared : v->shared;
}

/* The bit of the filter that decides on the whole mapping. */
static unsigned whole_bit(const struct core_subject *s)
{
    bool shared = is_shared(s->vma, s->attr);
    if (s->attr && s->attr->hugetlb)
        return shared ? CORE_HUGE_SHARED : CORE_HUGE_PRIVATE;
    if (shared)
        return s->unlinked ? CORE_ANON_SHARED : CORE_FILE_SHARED;
    unsigned bits = has_anonymous(s) ? CORE_ANON_PRIVATE : 0;
    return bits | (core_has_file(s->vma) ? CORE_FILE_PRIVATE : 0);
}

bool core_head_matters(const struct vma *v, const struct core_attr *attr, unsigned filter)
{
    return filter & CORE_ELF_HEADERS && core_has_file(v) && v->kind != VMA_KERNEL &&
           v->offset == 0 && v->r && !is_shared(v, attr) &&
           !(attr && (attr->dontdump || attr->hugetlb || attr->io));
}

uint64_t core_dump_bytes(const struct core_subject *s, unsigned filter)
{
    const struct vma *v = s->vma;
    uint64_t all = v->end - v->start;
    if (is_special(v))
        return all;
    /* Rings shared with the kernel (io_uring, aio, perf) are not memory of the program. */
    if (v->kind == VMA_KERNEL)
        return 0;
    if (s->attr && (s->attr->dontdump || s->attr->io))
        return 0;
    if (filter & whole_bit(s))
        return all;
    return s->head && core_head_matters(v, s->attr, filter) ? CORE_PAGE_BYTES : 0;
}

/* ---- what to copy ---- */

/* The bytes to copy of a mapping as it is now, by what smaps said before. */
static uint64_t may_dump(const struct vma *v, const struct core_attrs *before, unsigned filter)
{
    struct core_subject s = {v, core_attrs_find(before, v), true, true};
    if (is_special(v))
        return strcmp(v->name, "[vdso]") == 0 ? v->end - v->start : 0;
    /* Reading a device can have effects, and nothing is known of a mapping that is new. */
    if (!s.attr && v->kind == VMA_FILE && starts(v->name, "/dev/"))
        return 0;
    uint64_t most = core_dump_bytes(&s, filter);
    s.unlinked = false;
    most = max_u64(most, core_dump_bytes(&s, filter));
    /* The first write to a private page of a file may have come since; a new mapping may have been
     * made read-only after its relocation. */
    bool other = v->kind == VMA_KERNEL || is_shared(v, s.attr) ||
                 (s.attr && (s.attr->dontdump || s.attr->io || s.attr->hugetlb));
    if (!other && (v->w || !s.attr) && filter & CORE_ANON_PRIVATE)
        most = v->end - v->start;
    return most;
}

int core_plan_wanted(const struct maps *maps, const struct core_attrs *before, unsigned filter,
                     struct mem_region **ret, size_t *n, struct err *err)
{
    struct mem_region *regions = calloc(maps->n + 1, sizeof *regions);
    if (!regions)
        return err_set(err, ERR_NOMEM, "no memory for %zu mappings", maps->n);
    *n = 0;
    for (size_t i = 0; i < maps->n; i++) {
        const struct vma *v = &maps->items[i];
        uint64_t bytes = may_dump(v, before, filter);
        if (bytes)
            regions[(*n)++] = (struct mem_region){v->start, v->start + bytes};
    }
    *ret = regions;
    return 0;
}

/* ---- the plan ---- */

void core_plan_init(struct core_plan *plan)
{
    memset(plan, 0, sizeof *plan);
}

void core_plan_release(struct core_plan *plan)
{
    free(plan->loads);
    core_plan_init(plan);
}

static enum core_fill fill_of(const struct core_subject *s)
{
    const struct vma *v = s->vma;
    if (strcmp(v->name, "[vdso]") == 0)
        return CORE_FILL_VDSO;
    if (v->kind == VMA_KERNEL || !core_has_file(v) || (s->attr && s->attr->hugetlb))
        return CORE_FILL_ZEROS;
    /* Private mappings of /dev/zero are memory like any other. */
    return v->kind == VMA_FILE || v->kind == VMA_SHARED ? CORE_FILL_FILE : CORE_FILL_ZEROS;
}

int core_plan_make(struct core_plan *plan, const struct maps *maps, const struct core_attrs *attrs,
                   unsigned filter, struct core_sources *sources, struct err *err)
{
    core_plan_release(plan);
    plan->loads = calloc(maps->n + 1, sizeof *plan->loads);
    if (!plan->loads)
        return err_set(err, ERR_NOMEM, "no memory for %zu segments", maps->n);
    for (size_t i = 0; i < maps->n; i++) {
        const struct vma *v = &maps->items[i];
        struct core_subject s = {v, core_attrs_find(attrs, v), false, false};
        if (is_shared(v, s.attr))
            s.unlinked = core_source_unlinked(sources, v);
        else if (core_head_matters(v, s.attr, filter))
            s.head = core_source_head(sources, v);
        plan->loads[plan->n++] = (struct core_load){.vma = v,
                                                    .bytes = core_dump_bytes(&s, filter),
                                                    .swap = s.attr ? s.attr->swap : 0,
                                                    .fill = fill_of(&s)};
        plan->mapped += v->end - v->start;
    }
    return 0;
}

void core_layout(struct core_plan *plan, uint64_t notes_room)
{
    uint64_t headers = plan->n + 1;
    plan->notes_offset = sizeof(Elf64_Ehdr) + headers * sizeof(Elf64_Phdr);
    if (headers >= PN_XNUM)
        plan->notes_offset += sizeof(Elf64_Shdr);
    plan->data_offset = round_up(plan->notes_offset + notes_room, CORE_PAGE_BYTES);
    uint64_t at = plan->data_offset;
    for (size_t i = 0; i < plan->n; i++) {
        plan->loads[i].offset = at;
        at += plan->loads[i].bytes;
    }
    plan->file_bytes = at;
}
