/* Core files as hostile input: the header, program headers and notes, the mappings made of them.
 *
 * An input that begins as an ELF file does, or with a byte of 255, is a core. Any other is a list
 * of changes to a core made by hand, as the kernel, gcore or heapcensus core write it: which core
 * (a byte), then records of 8 bytes. So libFuzzer needs no seeds and does not spend its time in
 * pages of memory. */
#include <stdlib.h>
#include <string.h>

#include "formats/base/num.h"
#include "inspector/target/core.h"
#include "inspector/target/core_headers.h"
#include "inspector/target/core_maps.h"
#include "tests/lib/core_fixture.h"

#define FUZZ_SEED seed
#include "tests/fuzz/driver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(bool holds)
{
    if (!holds)
        abort();
}

/* Read all of a string, so that the sanitizer sees one that is not. */
static size_t touch(const char *s)
{
    return s ? strlen(s) : 0;
}

static void check_segments(const struct core *core)
{
    uint64_t dumped = 0, here = 0;
    must(core->n_segments > 0);
    for (size_t i = 0; i < core->n_segments; i++) {
        const struct core_segment *s = &core->segments[i];
        must(s->start < s->end && s->start % 4096 == 0 && s->end % 4096 == 0);
        must(s->dumped <= s->end - s->start && s->here <= s->dumped);
        must(s->here == 0 || (s->offset < core->size && s->here <= core->size - s->offset));
        must(i == 0 || core->segments[i - 1].end <= s->start);
        must(core_segment_at(core, s->start) == s && core_segment_at(core, s->end - 1) == s);
        dumped += s->dumped;
        here += s->here;
    }
    must(dumped == core->dumped_bytes && here == core->here_bytes);
    must(here == dumped || core->truncated);
}

static void check_lists(const struct core *core)
{
    for (size_t i = 0; i < core->n_files; i++) {
        const struct core_file *f = &core->files[i];
        must(f->start < f->end && (i == 0 || core->files[i - 1].end <= f->start));
        must(f->path && touch(f->path) < core->size);
        must(core_file_at(core, f->start) == f && core_file_at(core, f->end - 1) == f);
    }
    for (size_t i = 0; i < core->n_threads; i++)
        must(core->threads[i].tid > 0 && touch(core->threads[i].name) <= core->size);
    for (size_t i = 0; i < core->facts.n_runs; i++) {
        const struct page_run *r = &core->facts.runs[i];
        must(r->start < r->end && (i == 0 || core->facts.runs[i - 1].end < r->start));
    }
}

static void check_texts(const struct core *core)
{
    const struct core_facts *facts = &core->facts;
    char buf[32];
    must(memchr(core->comm, 0, sizeof core->comm) && memchr(core->args, 0, sizeof core->args));
    must(touch(core_signal_name(core->signal.number, buf, sizeof buf)) > 0);
    must(touch(core_signal_reason(&core->signal)) < 100);
    must(touch(facts->maps) == facts->maps_len && touch(facts->smaps) == facts->smaps_len);
    must(touch(facts->taken_at) + touch(facts->started_at) + touch(facts->host) +
             touch(facts->exe) + touch(facts->exe_build_id) <=
         core->size);
}

static void check_maps(const struct core *core)
{
    struct maps maps;
    struct err err = ERR_INIT;
    maps_init(&maps);
    must(core_maps_read(core, &maps, &err) == 0 && err.code == 0 && maps.n > 0);
    for (size_t i = 0; i < maps.n; i++) {
        const struct vma *v = &maps.items[i];
        must(v->start < v->end && v->name && (unsigned)v->kind <= VMA_KERNEL);
        must(i == 0 || maps.items[i - 1].end <= v->start);
        must(touch(v->name) <= core->size);
    }
    must(core->facts.maps || (maps.clipped == 0 && maps.n >= core->n_segments));
    maps_release(&maps);
}

static void fuzz_bytes(const uint8_t *data, size_t size)
{
    struct core core;
    struct err err = ERR_INIT;
    int rc = core_open_fd(fixture_fd(data, size), &core, &err);
    must(rc <= 0 && (rc == 0) == (err.code == 0) && (rc == 0) == (err.text[0] == '\0'));
    if (rc < 0)
        return;
    check_segments(&core);
    check_lists(&core);
    check_texts(&core);
    must(core_headers_find(&core, &err) == 0);
    check_maps(&core);
    core_close(&core);
}

static void sample(struct core_fixture *f, unsigned kind)
{
    memset(f, 0, sizeof *f);
    fixture_sample_loads(f);
    fixture_sample_notes(f);
    if (kind % 3 == 1)
        fixture_sample_facts(f);
    for (size_t i = 0; i < f->n_loads && kind % 3 == 2; i++)
        f->loads[i].p_align = 1;
    fixture_finish(f);
}

/* One change to header, program headers or notes: where (2 bytes), how, a byte, a word. */
static void apply(struct core_fixture *f, const uint8_t *r)
{
    static const uint64_t words[] = {0,      1,          4,         4095,      4096,
                                     0xffff, UINT32_MAX, INT64_MAX, UINT64_MAX};
    size_t at = load_u16(r) % (f->data_at - 8);
    uint64_t word = words[r[3] % (sizeof words / sizeof words[0])];
    switch (r[2] % 6) {
    case 0:
        f->bytes[at] ^= (uint8_t)(1u << r[3] % 8);
        break;
    case 1:
        memcpy(f->bytes + (at & ~(size_t)3), r + 4, 4);
        break;
    case 2:
        memcpy(f->bytes + (at & ~(size_t)3), &word, 4);
        break;
    case 3:
        memcpy(f->bytes + (at & ~(size_t)7), &word, 8);
        break;
    case 4: /* one program header, word or name in the place of another */
        memmove(f->bytes + at, f->bytes + load_u16(r + 4) % (f->data_at - 64),
                f->data_at - at < 56 ? f->data_at - at : r[3] % 57);
        break;
    default: /* cut short */
        f->len = load_u32(r + 4) % (f->len + 1);
        if (f->len < f->data_at)
            memset(f->bytes + f->len, 0, f->data_at - f->len);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct core_fixture f;
    if (size >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0) {
        fuzz_bytes(data, size);
    } else if (size && data[0] == 255) {
        fuzz_bytes(data + 1, size - 1);
    } else if (size) {
        sample(&f, data[0]);
        for (size_t at = 1; at + 8 <= size && at < 64 * 8; at += 8)
            apply(&f, data + at);
        fuzz_bytes(f.bytes, f.len);
    }
    return 0;
}

#ifdef FUZZ_MAIN
/* A short list of changes; every fourth input is a core itself, which the driver then changes. */
static size_t seed(unsigned n, uint8_t *buf, size_t cap)
{
    static struct core_fixture f;
    if (n % 4 == 0) {
        sample(&f, n / 4);
        size_t len = f.len < cap ? f.len : cap;
        memcpy(buf, f.bytes, len);
        return len;
    }
    size_t len = 1 + 8 * (size_t)fuzz_draw(8);
    buf[0] = (uint8_t)fuzz_draw(3);
    for (size_t i = 1; i < len; i++)
        buf[i] = (uint8_t)fuzz_draw(256);
    return len;
}
#endif
