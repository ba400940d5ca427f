/* Stacks as lines of text. */
#include "formats/export.h"

#include "formats/outbuf.h"

struct folded {
    struct outbuf out;
    char name[EXPORT_NAME_MAX];
};

static void put_stack(struct folded *f, const struct stacks *stacks, const struct stack *stack,
                      uint64_t weight)
{
    for (uint32_t i = stack->n; i-- > 0;) {
        struct snapshot_frame frame = stacks_frame(stacks, stack->frames[i]);
        stack_frame_name(&frame, f->name, sizeof f->name);
        outbuf_text(&f->out, f->name, ";");
        outbuf_char(&f->out, i ? ';' : ' ');
    }
    outbuf_u64(&f->out, weight);
    outbuf_char(&f->out, '\n');
}

int export_folded(struct stacks *stacks, enum folded_weight weight, struct sink *out,
                  struct err *err)
{
    struct folded f;
    struct stack stack;
    outbuf_init(&f.out, out, err);
    stacks_rewind(stacks);
    while (f.out.rc == 0 && stacks_next(stacks, &stack)) {
        uint64_t w = weight == FOLDED_COUNT ? stack.count : stack.bytes;
        if (w)
            put_stack(&f, stacks, &stack, w);
    }
    return outbuf_finish(&f.out);
}
