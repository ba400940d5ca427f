/* The texts of /proc as hostile input: maps, smaps, status, stat, cgroup. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "inspector/target/budget.h"
#include "inspector/target/maps.h"
#include "inspector/target/proc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef FUZZ_MAIN
#include "tests/fuzz/driver.h"
#endif

static void check_maps(const struct maps *maps)
{
    for (size_t i = 0; i < maps->n; i++) {
        const struct vma *v = &maps->items[i];
        if (v->start >= v->end || !v->name || (unsigned)v->kind > VMA_KERNEL ||
            (i && v->start < maps->items[i - 1].end))
            abort();
    }
}

static void fuzz_mappings(const char *text, size_t size)
{
    struct maps maps;
    maps_init(&maps);
    /* What came before a bad line stays usable. */
    int rc = maps_parse(&maps, text, size, NULL);
    check_maps(&maps);
    rc |= maps_parse_smaps(&maps, text, size, NULL);
    check_maps(&maps);
    if (rc > 0)
        abort();
    maps_release(&maps);
}

static void fuzz_status(const char *text)
{
    static struct proc_status st;
    memset(&st, 0, sizeof st);
    proc_status_parse(text, &st);
    if (proc_stat_parse(text, &st, NULL) == 0 && memchr(st.name, '\0', sizeof st.name) == NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct budget_cgroup cg;
    char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    fuzz_mappings(text, size);
    fuzz_status(text);
    const char *half = text + size / 2;
    budget_find_cgroup(text, half, &cg);
    budget_find_cgroup(half, text, &cg);
    free(text);
    return 0;
}
