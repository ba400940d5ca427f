/* Stacks for www.speedscope.app. Its file names the frames first, so the source is read several
 * times: once to number the frames that occur, once for each list. */
#include "formats/export.h"

#include <stdlib.h>

#include "formats/json_emit.h"
#include "formats/type_groups.h"

static const char schema[] = "https://www.speedscope.app/file-format-schema.json";

struct speedscope {
    struct json_emit emit;
    struct stacks *stacks;
    uint32_t *number; /* of each of the source's frames: its index in the file + 1; 0: none */
    uint32_t *order;  /* the source's frames in the file's order */
    uint32_t n;
    uint64_t bytes, count;
    char name[EXPORT_NAME_MAX];
};

static void number_frames(struct speedscope *s)
{
    struct stack stack;
    stacks_rewind(s->stacks);
    while (stacks_next(s->stacks, &stack)) {
        s->bytes = add_capped(s->bytes, stack.bytes);
        s->count = add_capped(s->count, stack.count);
        for (uint32_t i = 0; i < stack.n; i++) {
            uint32_t f = stack.frames[i];
            if (s->number[f])
                continue;
            s->order[s->n] = f;
            s->number[f] = ++s->n;
        }
    }
}

static void emit_frames(struct speedscope *s)
{
    struct json_emit *e = &s->emit;
    emit_key(e, "shared");
    emit_open(e, '{');
    emit_key(e, "frames");
    emit_open(e, '[');
    for (uint32_t i = 0; i < s->n; i++) {
        struct snapshot_frame f = stacks_frame(s->stacks, s->order[i]);
        emit_open(e, '{');
        emit_key(e, "name");
        stack_frame_name(&f, s->name, sizeof s->name);
        emit_text(e, s->name);
        emit_key(e, "file");
        emit_text(e, f.file);
        if (f.line) {
            emit_key(e, "line");
            emit_u64(e, f.line);
        }
        emit_close(e, '}');
    }
    emit_close(e, ']');
    emit_close(e, '}');
}

static void emit_samples(struct speedscope *s)
{
    struct json_emit *e = &s->emit;
    struct stack stack;
    emit_key(e, "samples");
    emit_open(e, '[');
    stacks_rewind(s->stacks);
    while (e->rc == 0 && stacks_next(s->stacks, &stack)) {
        emit_open(e, '[');
        for (uint32_t i = stack.n; i-- > 0;)
            emit_u64(e, s->number[stack.frames[i]] - 1);
        emit_close(e, ']');
    }
    emit_close(e, ']');
}

static void emit_profile(struct speedscope *s, const char *name, bool bytes)
{
    struct json_emit *e = &s->emit;
    struct stack stack;
    emit_open(e, '{');
    emit_key(e, "type");
    emit_text(e, "sampled");
    emit_key(e, "name");
    emit_text(e, name);
    emit_key(e, "unit");
    emit_text(e, bytes ? "bytes" : "none");
    emit_key(e, "startValue");
    emit_u64(e, 0);
    emit_key(e, "endValue");
    emit_u64(e, bytes ? s->bytes : s->count);
    emit_samples(s);
    emit_key(e, "weights");
    emit_open(e, '[');
    stacks_rewind(s->stacks);
    while (e->rc == 0 && stacks_next(s->stacks, &stack))
        emit_u64(e, bytes ? stack.bytes : stack.count);
    emit_close(e, ']');
    emit_close(e, '}');
}

static void emit_file(struct speedscope *s, const char *name)
{
    struct json_emit *e = &s->emit;
    emit_open(e, '{');
    emit_key(e, "$schema");
    emit_text(e, schema);
    emit_key(e, "name");
    emit_text(e, name);
    emit_key(e, "exporter");
    emit_text(e, "heapcensus");
    emit_key(e, "activeProfileIndex");
    emit_u64(e, 0);
    emit_frames(s);
    emit_key(e, "profiles");
    emit_open(e, '[');
    emit_profile(s, "Memory", true);
    emit_profile(s, "Allocations", false);
    emit_close(e, ']');
    emit_close(e, '}');
    emit_line(e);
}

int export_speedscope(struct stacks *stacks, const char *name, struct sink *out, struct err *err)
{
    struct speedscope s;
    size_t n = (size_t)stacks->n_frames + 1;
    json_emit_init(&s.emit, out, err);
    s.stacks = stacks;
    s.n = 0;
    s.bytes = s.count = 0;
    s.number = calloc(n, sizeof *s.number);
    s.order = calloc(n, sizeof *s.order);
    int rc;
    if (s.number && s.order) {
        number_frames(&s);
        emit_file(&s, name);
        rc = json_emit_finish(&s.emit);
    } else {
        rc = err_set(err, ERR_NOMEM, "no memory for %zu frames", n);
    }
    free(s.number);
    free(s.order);
    return rc;
}
