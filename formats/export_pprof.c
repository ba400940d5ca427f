/* Stacks as pprof's profile.proto (github.com/google/pprof/proto/profile.proto), written by hand.
 *
 * The order of a message's members is free, so each text, function and location is written where a
 * sample first needs it: one pass, no table of texts. Functions have no system_name: pprof would
 * take names like <module> and <lambda> for C++ and erase them.
 */
#include <stdlib.h>

#include "formats/base/addrset.h"
#include "formats/base/vec.h"
#include "formats/export.h"
#include "formats/outbuf.h"

/* Field numbers of profile.proto. */
enum {
    PROFILE_SAMPLE_TYPE = 1,
    PROFILE_SAMPLE = 2,
    PROFILE_MAPPING = 3,
    PROFILE_LOCATION = 4,
    PROFILE_FUNCTION = 5,
    PROFILE_STRING = 6,
    PROFILE_TIME_NANOS = 9,
    PROFILE_PERIOD_TYPE = 11,
    PROFILE_PERIOD = 12,
    PROFILE_COMMENT = 13,
    PROFILE_DEFAULT_SAMPLE_TYPE = 14,
    VALUE_TYPE = 1,
    VALUE_UNIT = 2,
    SAMPLE_LOCATION = 1,
    SAMPLE_VALUE = 2,
    SAMPLE_LABEL = 3,
    LABEL_KEY = 1,
    LABEL_TEXT = 2,
    LABEL_NUMBER = 3,
    MAPPING_ID = 1,
    MAPPING_FILE = 5,
    MAPPING_BUILD_ID = 6,
    MAPPING_HAS_FUNCTIONS = 7,
    MAPPING_HAS_FILES = 8,
    MAPPING_HAS_LINES = 9,
    LOCATION_ID = 1,
    LOCATION_MAPPING = 2,
    LOCATION_LINE = 4,
    LINE_FUNCTION = 1,
    LINE_LINE = 2,
    FUNCTION_ID = 1,
    FUNCTION_NAME = 2,
    FUNCTION_FILE = 4,
    WIRE_VARINT = 0,
    WIRE_BYTES = 2
};

/* A message under construction; the first failure sticks. */
struct message {
    uint8_t *bytes;
    size_t n, cap;
    int rc;
};

struct pprof {
    struct outbuf out;
    struct stacks *stacks;
    uint32_t *location; /* of each of the source's frames; 0: not yet */
    uint32_t n_locations;
    struct addrset texts; /* addresses of texts that are written already -> their numbers */
    uint64_t n_texts;
    struct message outer, inner, list;
    int rc;
    char name[EXPORT_NAME_MAX];
};

static void add_byte(struct message *m, uint8_t byte)
{
    if (m->rc == 0)
        m->rc = vec_reserve(&m->bytes, &m->cap, m->n + 1, 1);
    if (m->rc == 0)
        m->bytes[m->n++] = byte;
}

static void add_varint(struct message *m, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        add_byte(m, (uint8_t)(v | 0x80));
    add_byte(m, (uint8_t)v);
}

/* 0 is the default and not written. */
static void add_number(struct message *m, unsigned field, uint64_t v)
{
    if (v == 0)
        return;
    add_varint(m, field << 3 | WIRE_VARINT);
    add_varint(m, v);
}

/* Put `part` into `m` as a member, and empty it for the next one. */
static void add_part(struct message *m, unsigned field, struct message *part)
{
    add_varint(m, field << 3 | WIRE_BYTES);
    add_varint(m, part->n);
    for (size_t i = 0; i < part->n; i++)
        add_byte(m, part->bytes[i]);
    if (m->rc == 0)
        m->rc = part->rc;
    part->n = 0;
}

static void put_varint(struct pprof *p, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        outbuf_char(&p->out, (char)(v | 0x80));
    outbuf_char(&p->out, (char)v);
}

/* Write p->outer as a member of the profile, and empty it. */
static void put_message(struct pprof *p, unsigned field)
{
    struct message *m = &p->outer;
    if (p->rc == 0)
        p->rc = m->rc;
    put_varint(p, field << 3 | WIRE_BYTES);
    put_varint(p, m->n);
    if (m->n)
        outbuf_put(&p->out, m->bytes, m->n);
    m->n = 0;
}

static void put_number(struct pprof *p, unsigned field, uint64_t v)
{
    put_varint(p, field << 3 | WIRE_VARINT);
    put_varint(p, v);
}

/* Write a text; returns its number. */
static uint64_t put_text(struct pprof *p, const char *text)
{
    struct text_piece piece;
    while (*text) {
        text += text_piece(text, NULL, &piece);
        for (size_t i = 0; i < piece.n; i++)
            add_byte(&p->outer, (uint8_t)piece.bytes[i]);
    }
    put_message(p, PROFILE_STRING);
    return p->n_texts++;
}

/* The number of a text that may have come before: the same address is the same text. */
static uint64_t text_number(struct pprof *p, const char *text)
{
    bool fresh = false;
    const uint64_t *known = addrset_find(&p->texts, (uintptr_t)text);
    if (known)
        return *known;
    uint64_t number = put_text(p, text);
    int rc = addrset_add(&p->texts, (uintptr_t)text, number, &fresh);
    if (p->rc == 0)
        p->rc = rc;
    return number;
}

/* The number of a frame's location, which is written when it comes for the first time, with a
 * function of its own: a frame whose function is not known is named for its line. */
static uint32_t location_number(struct pprof *p, uint32_t f)
{
    if (p->location[f])
        return p->location[f];
    uint32_t id = p->location[f] = ++p->n_locations;
    struct snapshot_frame frame = stacks_frame(p->stacks, f);
    stack_frame_name(&frame, p->name, sizeof p->name);
    uint64_t name = put_text(p, frame.function ? frame.function : p->name);
    uint64_t file = text_number(p, frame.file);
    add_number(&p->outer, FUNCTION_ID, id);
    add_number(&p->outer, FUNCTION_NAME, name);
    add_number(&p->outer, FUNCTION_FILE, file);
    put_message(p, PROFILE_FUNCTION);
    add_number(&p->inner, LINE_FUNCTION, id);
    add_number(&p->inner, LINE_LINE, frame.line);
    add_number(&p->outer, LOCATION_ID, id);
    add_number(&p->outer, LOCATION_MAPPING, 1);
    add_part(&p->outer, LOCATION_LINE, &p->inner);
    put_message(p, PROFILE_LOCATION);
    return id;
}

/* Texts and locations that the sample needs come before it: they use p->outer, too. */
static void put_sample(struct pprof *p, const struct stack *stack)
{
    uint64_t keys[STACK_LABELS] = {0}, values[STACK_LABELS] = {0};
    for (size_t i = 0; i < stack->n_labels; i++) {
        keys[i] = text_number(p, stack->labels[i].key);
        if (stack->labels[i].text)
            values[i] = text_number(p, stack->labels[i].text);
    }
    for (uint32_t i = 0; i < stack->n; i++)
        add_varint(&p->list, location_number(p, stack->frames[i]));
    add_part(&p->outer, SAMPLE_LOCATION, &p->list);
    add_varint(&p->list, stack->count);
    add_varint(&p->list, stack->bytes);
    add_part(&p->outer, SAMPLE_VALUE, &p->list);
    for (size_t i = 0; i < stack->n_labels; i++) {
        add_number(&p->inner, LABEL_KEY, keys[i]);
        add_number(&p->inner, LABEL_TEXT, values[i]);
        add_number(&p->inner, LABEL_NUMBER, stack->labels[i].text ? 0 : stack->labels[i].number);
        add_part(&p->outer, SAMPLE_LABEL, &p->inner);
    }
    put_message(p, PROFILE_SAMPLE);
}

static void put_value_type(struct pprof *p, unsigned field, const char *type, const char *unit)
{
    uint64_t t = text_number(p, type), u = text_number(p, unit);
    add_number(&p->outer, VALUE_TYPE, t);
    add_number(&p->outer, VALUE_UNIT, u);
    put_message(p, field);
}

/* One mapping that claims to be symbolized already: pprof then looks for no binary. */
static void put_mapping(struct pprof *p, const struct pprof_about *about)
{
    uint64_t file = about->binary ? text_number(p, about->binary) : 0;
    uint64_t build_id = about->build_id ? text_number(p, about->build_id) : 0;
    add_number(&p->outer, MAPPING_ID, 1);
    add_number(&p->outer, MAPPING_FILE, file);
    add_number(&p->outer, MAPPING_BUILD_ID, build_id);
    add_number(&p->outer, MAPPING_HAS_FUNCTIONS, 1);
    add_number(&p->outer, MAPPING_HAS_FILES, 1);
    add_number(&p->outer, MAPPING_HAS_LINES, 1);
    put_message(p, PROFILE_MAPPING);
}

static void put_head(struct pprof *p, const struct pprof_about *about)
{
    put_text(p, ""); /* number 0 must be empty */
    put_value_type(p, PROFILE_SAMPLE_TYPE, "inuse_objects", "count");
    put_value_type(p, PROFILE_SAMPLE_TYPE, "inuse_space", "bytes");
    put_value_type(p, PROFILE_PERIOD_TYPE, "space", "bytes");
    put_number(p, PROFILE_PERIOD, 1);
    uint64_t usual = text_number(p, "inuse_space");
    put_number(p, PROFILE_DEFAULT_SAMPLE_TYPE, usual);
    if (about->time_ns)
        put_number(p, PROFILE_TIME_NANOS, (uint64_t)about->time_ns);
    for (size_t i = 0; i < sizeof about->comments / sizeof *about->comments; i++)
        if (about->comments[i])
            put_number(p, PROFILE_COMMENT, put_text(p, about->comments[i]));
    put_mapping(p, about);
}

static int write_profile(struct pprof *p, const struct pprof_about *about)
{
    struct stack stack;
    put_head(p, about);
    stacks_rewind(p->stacks);
    while (p->rc == 0 && p->out.rc == 0 && stacks_next(p->stacks, &stack))
        put_sample(p, &stack);
    if (p->rc < 0)
        return err_set(p->out.err, ERR_NOMEM, "no memory for a profile");
    return outbuf_finish(&p->out);
}

int export_pprof(struct stacks *stacks, const struct pprof_about *about, struct sink *out,
                 struct err *err)
{
    int rc = ERR_NOMEM;
    struct pprof *p = calloc(1, sizeof *p);
    uint32_t *location = calloc((size_t)stacks->n_frames + 1, sizeof *location);
    if (p && location) {
        outbuf_init(&p->out, out, err);
        addrset_init(&p->texts);
        p->stacks = stacks;
        p->location = location;
        rc = write_profile(p, about);
        addrset_release(&p->texts);
        free(p->outer.bytes);
        free(p->inner.bytes);
        free(p->list.bytes);
    } else {
        err_set(err, ERR_NOMEM, "no memory for a profile");
    }
    free(location);
    free(p);
    return rc;
}
