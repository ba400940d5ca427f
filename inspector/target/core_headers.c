#include "inspector/target/core_headers.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/core_mem.h"
#include "inspector/target/elf.h"
#include "walker/mem.h"

enum { PAGE = 4096, MAX_SEGMENTS = 65536 };

static bool may_be_module(const struct core_segment *seg)
{
    return seg->r && !seg->w && seg->here >= sizeof(Elf64_Ehdr);
}

static const char *name_of(struct core *core, const struct elf_image *image)
{
    char name[sizeof image->python + 16];
    if (image->soname[0])
        return strpool_add(&core->names, image->soname);
    snprintf(name, sizeof name, "%s%s%s", image->interpreted ? "executable" : "module",
             image->python[0] ? "/" : "", image->python);
    return strpool_add(&core->names, name);
}

static int add_loads(struct core *core, const struct elf_image *image, const char *name,
                     struct err *err)
{
    for (size_t i = 0; i < image->n_loads; i++) {
        const struct elf_segment *load = &image->loads[i];
        uint64_t start = round_down(load->vaddr, PAGE) + image->bias, end;
        if (add_overflows(load->vaddr % PAGE + load->filesz, PAGE - 1, &end) ||
            add_overflows(start, round_down(end, PAGE), &end) || end <= start)
            continue;
        /* In order: what overlaps the one before makes no sense. */
        if (core->n_files && core->files[core->n_files - 1].end > start)
            continue;
        if (vec_reserve(&core->files, &core->cap_files, core->n_files + 1, sizeof *core->files) < 0)
            return err_set(err, ERR_NOMEM, "no memory for the modules of a core");
        core->files[core->n_files++] =
            (struct core_file){start, end, round_down(load->offset, PAGE), name};
    }
    return 0;
}

static int add_module(struct core *core, struct mem *mem, const struct core_segment *seg,
                      struct err *err)
{
    struct elf_image image;
    if (elf_image_read(mem, seg->start, &image, NULL) < 0 || image.n_loads == 0)
        return 0;
    const char *name = name_of(core, &image);
    if (!name)
        return err_set(err, ERR_NOMEM, "no memory for the modules of a core");
    if (image.interpreted && !image.soname[0] && !core->at_phdr)
        core->at_phdr = image.base;
    return add_loads(core, &image, name, err);
}

int core_headers_find(struct core *core, struct err *err)
{
    struct core_pages none;
    struct mem *mem = NULL;
    if (core->n_files)
        return 0;
    core_pages_init(&none);
    int rc = core_mem_new(core, &none, &mem, err);
    for (size_t i = 0; rc == 0 && i < core->n_segments && i < MAX_SEGMENTS; i++)
        if (may_be_module(&core->segments[i]))
            rc = add_module(core, mem, &core->segments[i], err);
    mem_close(mem);
    core_pages_release(&none);
    return rc;
}
