/* tracemalloc's tables on every layout: read whole, joined with blocks, damaged, in the middle of a
 * change, at another place than the layout says. The truth on real interpreters is
 * tests/e2e/test_tracemalloc_matrix.py's. */
#include "tests/lib/tap.h"
#include "tests/unit/test_tracing_image.h"

enum {
    ALL = TIMG_TRACES + TIMG_DOMAINS * TIMG_FOREIGN,
    GONE = TIMG_GONE + TIMG_DOMAINS * TIMG_FOREIGN
};

static const char *noted(const struct timg *f)
{
    for (size_t i = 0; i < f->snap.n_notes; i++)
        if (strncmp(f->snap.notes[i].what, "tracing.", 8) == 0)
            return f->snap.notes[i].what;
    return "";
}

/* Sites, sizes and sums tell the same. */
static bool agrees(const struct timg *f)
{
    const struct snapshot *s = &f->snap;
    uint64_t count = 0, bytes = 0, before = UINT64_MAX;
    for (size_t i = 0; i < s->n_sites; i++) {
        const struct snapshot_site *site = &s->sites[i];
        uint64_t n = 0, sum = 0;
        for (uint32_t k = 0; k < site->n_sizes; k++) {
            n += s->size_counts[site->first_size + k].count;
            sum += s->size_counts[site->first_size + k].count *
                   s->size_counts[site->first_size + k].size;
        }
        if (n != site->count || sum != site->bytes || site->bytes > before ||
            site->traceback >= s->n_tracebacks)
            return false;
        before = site->bytes;
        count += n;
        bytes += sum;
    }
    return count == s->tracing.traces && bytes == s->tracing.trace_bytes;
}

static uint64_t count_kind(const struct timg *f, const char *kind)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->snap.n_sites; i++)
        if (f->snap.sites[i].kind && strcmp(f->snap.sites[i].kind, kind) == 0)
            n += f->snap.sites[i].count;
    return n;
}

static bool has_domain(const struct timg *f, uint32_t domain)
{
    uint64_t n = 0;
    for (size_t i = 0; i < f->snap.n_sites; i++)
        if (f->snap.sites[i].domain == domain)
            n += f->snap.sites[i].count;
    return n == TIMG_FOREIGN;
}

/* Each traceback has the frames that timg_traceback put there, and the total where there is one. */
static bool tracebacks_right(const struct timg *f)
{
    const struct snapshot *s = &f->snap;
    bool total = layout_has(f->l, LF_tb_total_nframe);
    for (size_t i = 0; i < s->n_tracebacks; i++) {
        const struct snapshot_traceback *t = &s->tracebacks[i];
        if (t->total != (total ? t->n + 10 : 0))
            return false;
        for (uint32_t k = 0; k < t->n; k++) {
            const struct snapshot_frame *frame = &s->frames[s->frame_ids[t->first + k]];
            if (strcmp(frame->file, timg_name[(t->n + k) % TIMG_NAMES]) != 0 ||
                frame->line != 100 * t->n + k || frame->function)
                return false;
        }
    }
    return s->n_tracebacks == TIMG_TRACEBACKS && s->n_frames == 10;
}

static void test_whole(const struct layout *l, uint64_t front)
{
    struct timg f;
    if (!ok(timg_build(&f, l, front), "%s: an image", l->name))
        return;
    const struct snapshot_tracing *t = &f.snap.tracing;
    ok(timg_read(&f, true, NULL) == 0 && t->present && t->tracing && t->traces == ALL &&
           t->trace_bytes == f.sum && t->lost == 0 && !*noted(&f) && agrees(&f),
       "%s: all traces, each once", l->name);
    ok(t->traced_bytes == f.sum && t->peak_bytes == TIMG_PEAK && t->overhead_bytes == f.overhead &&
           t->frames_limit == TIMG_LIMIT && t->tracebacks == TIMG_TRACEBACKS &&
           strcmp(t->source, "tracemalloc") == 0,
       "%s: sums, limit and overhead as tracemalloc tells them", l->name);
    ok(tracebacks_right(&f), "%s: frames and names of every kind", l->name);
    ok(has_domain(&f, timg_domain[0]) && has_domain(&f, timg_domain[1]), "%s: domains", l->name);
    uint64_t used = f.blocks.n_chunks;
    ok(t->gone_traces == GONE && t->covered_blocks == ALL - GONE &&
           t->untraced_blocks == used - (ALL - GONE) && t->covered_bytes == (ALL - GONE) * 40 &&
           count_kind(&f, "gone") == GONE && count_kind(&f, "unowned") == ALL - GONE,
       "%s: joined with blocks, those gone told", l->name);
    struct block_hit hit;
    ok(blocks_at(&f.blocks, timg_load(&f, f.tables[0], LF_htab_buckets), &hit) &&
           block_kind(&f.blocks, hit.slot) == BLOCK_RUNTIME &&
           blocks_at(&f.blocks, f.entry[3], &hit) &&
           block_kind(&f.blocks, hit.slot) == BLOCK_RUNTIME,
       "%s: the tables are the interpreter's own", l->name);
    ok(timg_read(&f, false, NULL) == 0 && t->traces == ALL && t->covered_blocks == 0 &&
           t->untraced_blocks == 0 && f.snap.sites[0].kind == NULL && agrees(&f),
       "%s: without blocks", l->name);
    timg_release(&f);
}

static void test_blocks(const struct layout *l)
{
    struct timg f;
    if (!ok(timg_build(&f, l, 0) && timg_read(&f, true, NULL) == 0, "%s: an image", l->name))
        return;
    size_t sited = 0;
    bool right = true;
    for (size_t i = 0; i < f.blocks.n; i++) {
        uint32_t site = f.blocks.sites[i];
        sited += site != 0;
        right &= site == 0 ||
                 (site <= f.snap.n_sites && strcmp(f.snap.sites[site - 1].kind, "unowned") == 0);
    }
    ok(right && sited == ALL - GONE, "%s: blocks know their sites", l->name);
    struct cpython_range *ranges = NULL;
    size_t n = 0;
    uint64_t buckets = timg_load(&f, f.tables[0], LF_htab_buckets);
    bool found = false, name = false;
    right = cpython_tracing_ranges(&f.in, &f.py, true, &ranges, &n, NULL) == 0;
    for (size_t i = 0; i < n; i++) {
        found |= ranges[i].start == buckets && ranges[i].end == buckets + 256 * 8;
        name |= ranges[i].start == f.names[2];
    }
    ok(right && found && name == !f.py.traits->tracemalloc_filename_utf8,
       "%s: what a copy has to keep", l->name);
    free(ranges);
    timg_release(&f);
}

static void test_off(const struct layout *l)
{
    struct timg f;
    if (!ok(timg_build(&f, l, 0), "%s: an image", l->name))
        return;
    timg_settings(&f, 1, 0);
    ok(timg_read(&f, true, NULL) == 0 && f.snap.tracing.present && !f.snap.tracing.tracing &&
           f.snap.tracing.traces == 0 && f.snap.n_sites == 0 && !*noted(&f) &&
           !cpython_tracing(&f.in, &f.py),
       "%s: stopped", l->name);
    timg_settings(&f, 0, 0);
    ok(timg_read(&f, true, NULL) == 0 && !f.snap.tracing.present && !*noted(&f),
       "%s: never started", l->name);
    timg_settings(&f, 1, 77);
    ok(timg_read(&f, true, NULL) == 0 && !f.snap.tracing.present, "%s: nonsense", l->name);
    timg_release(&f);
}

/* Another micro release: the state lies elsewhere, and what the layout names is something else. */
static void test_moved(const struct layout *l)
{
    struct timg f;
    for (uint64_t shift = 8; shift <= 1024; shift *= 4) {
        if (!ok(timg_build(&f, l, 0), "%s: an image", l->name))
            return;
        memset(timg_at(&f, f.state, layout_size(l, LF_tm_size)), 0, layout_size(l, LF_tm_size));
        timg_place(&f, shift);
        ok(timg_read(&f, false, NULL) == 0 && !f.snap.tracing.present,
           "%s: not there, and the layout is exact", l->name);
        f.py.layout_exact = false;
        ok(timg_read(&f, false, NULL) == 0 && f.snap.tracing.traces == ALL &&
               cpython_tracing(&f.in, &f.py),
           "%s: found %d bytes further on", l->name, (int)shift);
        timg_release(&f);
    }
}

/* 3.8-3.11: the variables in another order, and tables of other people before them. */
static void test_look_alikes(const struct layout *l)
{
    struct timg f;
    if (!ok(timg_build(&f, l, 0), "%s: an image", l->name))
        return;
    uint64_t at = TIMG_DATA + TIMG_STATICS, words[4];
    memcpy(words, timg_at(&f, at, 32), 32);
    for (int i = 0; i < 4; i++)
        timg_u64(&f, at + 8 * (uint64_t)i, words[(i * 3 + 1) % 4]);
    /* Names that are interned: keys are str, values too; and blocks with keys that are no
     * tracebacks. */
    uint64_t other = timg_table(&f, 64, 8, 0), strange = timg_table(&f, 64, 8, 16);
    uint64_t own[2] = {24, f.names[0]};
    bool in_line = f.py.traits->hashtable_inline;
    timg_put(&f, other, LF_htab_key_size, in_line ? 8 : 0);
    for (uint64_t i = 0; i < 40; i++) {
        timg_entry(&f, other, f.names[i % 2] + 8 * i, in_line ? 0 : f.names[0], 0, NULL);
        timg_entry(&f, strange, 0x1000 + 64 * i, f.names[1], 0, own);
    }
    timg_u64(&f, TIMG_DATA + 0x800, other);
    timg_u64(&f, TIMG_DATA + 0x808, strange);
    ok(!f.failed && timg_read(&f, false, NULL) == 0 && f.snap.tracing.traces == ALL &&
           f.snap.tracing.peak_bytes == TIMG_PEAK && !*noted(&f),
       "%s: tables in any order, look-alikes left alone", l->name);
    timg_release(&f);
}

/* 3.8-3.11: the two sums, in either order, equal, off by a trace that is just being added. */
static void test_sums(const struct layout *l)
{
    struct timg f;
    if (!ok(timg_build(&f, l, 0), "%s: an image", l->name))
        return;
    uint64_t at = TIMG_DATA + TIMG_STATICS;
    const struct snapshot_tracing *t = &f.snap.tracing;
    const uint64_t rows[][5] = {
        {f.tables[0], TIMG_PEAK, f.sum, 0, TIMG_PEAK},
        {f.tables[0], f.sum, TIMG_PEAK, f.tables[1], TIMG_PEAK},
        {TIMG_HEAP + 64, f.sum, f.sum, TIMG_HEAP + 32, f.sum},
        {f.sum + 24, TIMG_PEAK, f.sum + 40, 5, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (uint64_t k = 0; k < 4; k++)
            timg_u64(&f, at + 56 + 8 * k, rows[i][k]);
        bool off = i == 3;
        bool good = timg_read(&f, false, NULL) == 0 && !*noted(&f);
        if (off) /* two words that may be the sum: neither is taken */
            good = strcmp(noted(&f), "tracing.peak") == 0 && t->peak_bytes == f.sum;
        else
            good &= t->traced_bytes == f.sum && t->peak_bytes == rows[i][4];
        ok(good, "%s: sums, way %d", l->name, (int)i);
    }
    timg_u64(&f, at + 56, TIMG_PEAK);
    timg_u64(&f, at + 64, f.sum + 24);
    timg_u64(&f, at + 72, 0);
    ok(timg_read(&f, false, NULL) == 0 && t->traced_bytes == f.sum + 24 &&
           t->peak_bytes == TIMG_PEAK && t->trace_bytes == f.sum,
       "%s: a sum that is ahead of the table", l->name);
    timg_u64(&f, at + 64, 0);
    ok(timg_read(&f, false, NULL) == 0 && f.snap.tracing.traced_bytes == f.sum &&
           f.snap.tracing.peak_bytes == f.sum && strcmp(noted(&f), "tracing.peak") == 0,
       "%s: a peak that is not to be found is told", l->name);
    timg_release(&f);
}

/* ---- damage: `lost` traces at most and at least, what is noted, the others whole ---- */

struct damage {
    const char *what, *note;
    uint64_t lost_min, lost_max; /* of what was there */
    void (*make)(struct timg *f);
};

static uint64_t bucket_of(struct timg *f, int i)
{
    uint64_t hash = timg_load(f, f->entry[i], LF_htent_key_hash);
    uint64_t n = timg_load(f, f->tables[0], LF_htab_nbuckets);
    return timg_load(f, f->tables[0], LF_htab_buckets) + (hash & (n - 1)) * 8;
}

static void circle(struct timg *f)
{
    timg_put(f, f->entry[9], LF_htent_next, load_u64(timg_at(f, bucket_of(f, 9), 8)));
}

static void circle_long(struct timg *f)
{
    /* One bucket with forty entries more, the last of which leads back to the first of them. */
    uint64_t hash = 0x7785, first = 0, unused;
    for (int i = 0; i < 40; i++) {
        uint64_t e = timg_trace(f, f->tables[0], 0x700000000000u + (hash + (uint64_t)i * 256) * 16,
                                8, f->tracebacks[0], 0, &unused);
        first = first ? first : e;
    }
    uint64_t h = timg_load(f, first, LF_htent_key_hash) & 255;
    timg_put(f, first, LF_htent_next,
             load_u64(timg_at(f, timg_load(f, f->tables[0], LF_htab_buckets) + h * 8, 8)));
}

static void astray(struct timg *f)
{
    timg_u64(f, bucket_of(f, 0), 0xdead0000);
    timg_u64(f, bucket_of(f, 1), f->entry[1] + 1);
}

static void absurd(struct timg *f)
{
    timg_put(f, f->tables[0], LF_htab_nentries, UINT64_MAX / 2);
}

static void no_trace(struct timg *f)
{
    if (f->py.traits->hashtable_inline)
        timg_u64(f, f->entry[5] + layout_size(f->l, LF_htent_size) + 12, UINT64_MAX);
    else
        timg_put(f, f->entry[5], LF_htent_value, 0x123456789abc);
}

static void huge_traceback(struct timg *f)
{
    timg_put(f, f->tracebacks[3], LF_tb_nframe, 65535);
}

static void no_name(struct timg *f)
{
    uint64_t frame = f->tracebacks[2] + layout_offset(f->l, LF_tb_frames);
    timg_put(f, frame, LF_tbframe_filename,
             f->py.traits->tracemalloc_filename_utf8 ? 0x10 : f->tracebacks[0]);
}

static void unlinked(struct timg *f)
{
    for (int i = 0; i < 10; i++)
        timg_u64(f, bucket_of(f, i), 0);
}

static void one_short(struct timg *f)
{
    uint64_t n = timg_load(f, f->tables[0], LF_htab_nentries);
    timg_put(f, f->tables[0], LF_htab_nentries, n + 1);
}

/* While the table shrinks, entries of one bucket go to the list of another. */
static void moved_on(struct timg *f)
{
    timg_put(f, f->entry[0], LF_htent_next, f->entry[1]);
}

static const struct damage damages[] = {
    {"a list that is a circle", "tracing.damaged", 0, 4, circle},
    {"a long list that is a circle", "tracing.damaged", 0, 4, circle_long},
    {"lists that lead astray", "tracing.damaged", 2, 8, astray},
    {"an absurd number of entries", "tracing.damaged", 0, 0, absurd},
    {"a trace that points nowhere", "tracing.damaged", 1, 1, no_trace},
    {"a traceback of more frames than the limit", "tracing.damaged", 24, 24, huge_traceback},
    {"a frame without a name", "tracing.damaged", 24, 24, no_name},
    {"entries out of reach", "tracing.resizing", 10, 40, unlinked},
    {"one entry that is not there yet", "tracing.update", 1, 1, one_short},
    {"an entry in the list of another bucket", "tracing.resizing", 0, 4, moved_on},
};

static void test_damage(const struct layout *l, const struct damage *d)
{
    struct timg f;
    if (!ok(timg_build(&f, l, 0), "%s: an image", l->name))
        return;
    d->make(&f);
    uint64_t all = (f.sum >= TIMG_PEAK ? 0 : ALL) + (d->make == circle_long ? 40 : 0);
    int rc = timg_read(&f, true, NULL);
    const struct snapshot_tracing *t = &f.snap.tracing;
    bool fine = rc == 0 && !f.failed && t->lost >= d->lost_min && t->lost <= d->lost_max &&
                t->traces + t->lost >= all && t->traces <= all && agrees(&f) &&
                strcmp(noted(&f), d->note) == 0;
    if (!ok(fine, "%s: %s", l->name, d->what))
        diag("rc %d, %d traces of %d, lost %d, %s", rc, (int)t->traces, (int)all, (int)t->lost,
             noted(&f));
    timg_release(&f);
}

static void test_no_table(const struct layout *l)
{
    struct timg f;
    if (!ok(timg_build(&f, l, 0), "%s: an image", l->name))
        return;
    timg_put(&f, f.tables[0], LF_htab_buckets, 0x7ff000000000);
    ok(timg_read(&f, true, NULL) == 0 && f.snap.tracing.present && f.snap.tracing.tracing &&
           strcmp(noted(&f), "tracing.missing") == 0 && !f.snap.complete,
       "%s: a table that is none is told", l->name);
    timg_release(&f);
}

static void test_statics(const struct layout *l)
{
    test_look_alikes(l);
    test_sums(l);
}

int main(void)
{
    for (size_t i = 0; i < layout_count(); i++) {
        const struct layout *l = layout_at(i);
        test_whole(l, 0);
        test_whole(l, 16);
        test_blocks(l);
        test_off(l);
        test_no_table(l);
        for (size_t d = 0; d < sizeof damages / sizeof *damages; d++)
            test_damage(l, &damages[d]);
        if (layout_traits(layout_minor(l->hexversion))->tracemalloc == TRACEMALLOC_RUNTIME)
            test_moved(l);
        else
            test_statics(l);
    }
    return done_testing();
}
