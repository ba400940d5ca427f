#include "formats/json_fields.h"

#include <string.h>

/* Row of a table for member `m` of struct snapshot_`s`; R: required, O: may be absent on reading.
 */
#define R(s, name, type, m)                                                                        \
    {                                                                                              \
        name, FIELD_##type, true, offsetof(struct s, m), NULL                                      \
    }
#define O(s, name, type, m)                                                                        \
    {                                                                                              \
        name, FIELD_##type, false, offsetof(struct s, m), NULL                                     \
    }
#define R_SUB(s, name, type, m, sub)                                                               \
    {                                                                                              \
        name, FIELD_##type, true, offsetof(struct s, m), sub                                       \
    }
#define O_SUB(s, name, type, m, sub)                                                               \
    {                                                                                              \
        name, FIELD_##type, false, offsetof(struct s, m), sub                                      \
    }
#define END                                                                                        \
    {                                                                                              \
        NULL, FIELD_U64, false, 0, NULL                                                            \
    }

static const struct json_field tool_fields[] = {
    O(snapshot, "version", STR, tool_version),
    END,
};

static const struct json_field dump_fields[] = {
    O(snapshot_dump, "writer", STR, writer),
    O(snapshot_dump, "packed", STR, packed),
    O(snapshot_dump, "command", STR, command),
    O(snapshot_dump, "started_at", STR, started_at),
    O(snapshot_dump, "time_from", STR, time_from),
    O(snapshot_dump, "signal", STR, signal),
    O(snapshot_dump, "reason", STR, reason),
    O(snapshot_dump, "fault_address", ADDR_NULL, fault_address),
    O(snapshot_dump, "sender_pid", U64, sender_pid),
    O(snapshot_dump, "dumped_bytes", U64, dumped_bytes),
    O(snapshot_dump, "missing_bytes", U64, missing_bytes),
    O(snapshot_dump, "resident", STR, resident),
    END,
};

static const struct json_field source_fields[] = {
    R(snapshot_source, "kind", NAME, kind),
    R(snapshot_source, "pid", PID, pid),
    O(snapshot_source, "comm", STR, comm),
    R(snapshot_source, "core", STR, core),
    R(snapshot_source, "exe", STR, exe),
    R(snapshot_source, "exe_build_id", STR, exe_build_id),
    R(snapshot_source, "paused_ns", U64, paused_ns),
    R(snapshot_source, "consistent", BOOL, consistent),
    O(snapshot_source, "read_bytes", U64, read_bytes),
    O(snapshot_source, "swap_bytes", U64, swap_bytes),
    O(snapshot_source, "threads", U64, threads),
    O_SUB(snapshot_source, "dump", MAYBE, dump, dump_fields),
    END,
};

static const struct json_field layout_fields[] = {
    O(snapshot_python, "name", STR, layout_name),
    O(snapshot_python, "source", STR, layout_source),
    END,
};

static const struct json_field python_fields[] = {
    R(snapshot_python, "version", STR, version),
    O(snapshot_python, "hexversion", U32, hexversion),
    R(snapshot_python, "debug", BOOL, debug),
    R(snapshot_python, "free_threaded", BOOL, free_threaded),
    O(snapshot_python, "trace_refs", BOOL, trace_refs),
    R(snapshot_python, "allocator", STR, allocator),
    {"layout", FIELD_OBJECT, true, 0, layout_fields},
    O(snapshot_python, "state", STR, state),
    O(snapshot_python, "tracemalloc", BOOL, tracemalloc),
    O(snapshot_python, "interpreters", U64, interpreters),
    O(snapshot_python, "found_by", STR, found_by),
    END,
};

static const struct json_field libc_fields[] = {
    R(snapshot_libc, "name", STR, name),
    R(snapshot_libc, "version", STR, version),
    R(snapshot_libc, "allocator", STR, allocator),
    END,
};

const struct json_field json_header_fields[] = {
    {"tool", FIELD_OBJECT, true, 0, tool_fields},
    R(snapshot, "taken_at", STR, taken_at),
    R(snapshot, "host", STR, host),
    R_SUB(snapshot, "source", OBJECT, source, source_fields),
    R_SUB(snapshot, "python", MAYBE, python, python_fields),
    R_SUB(snapshot, "libc", OBJECT, libc, libc_fields),
    R(snapshot, "complete", BOOL, complete),
    R(snapshot, "redacted", BOOL, redacted),
    END,
};

const struct json_field json_memory_fields[] = {
    R(snapshot_memory, "rss_bytes", U64, rss_bytes),
    R(snapshot_memory, "mapped_bytes", U64, mapped_bytes),
    R(snapshot_memory, "categories", TALLY, tally),
    END,
};

const struct json_field json_size_class_fields[] = {
    R(snapshot_size_class, "size", U64, size),
    R(snapshot_size_class, "pools", SUM, pools),
    R(snapshot_size_class, "blocks_used", SUM, blocks_used),
    R(snapshot_size_class, "blocks_free", SUM, blocks_free),
    O(snapshot_size_class, "top_type", STR, top_type),
    O(snapshot_size_class, "top_count", SUM, top_count),
    END,
};

const struct json_field json_pymalloc_fields[] = {
    R(snapshot_pymalloc, "arenas", U64, arenas),
    R(snapshot_pymalloc, "arena_size", U64, arena_size),
    O(snapshot_pymalloc, "pool_size", U64, pool_size),
    R(snapshot_pymalloc, "pools_used", U64, pools_used),
    R(snapshot_pymalloc, "pools_free", U64, pools_free),
    R(snapshot_pymalloc, "blocks_used", U64, blocks_used),
    R(snapshot_pymalloc, "blocks_free", U64, blocks_free),
    R(snapshot_pymalloc, "bytes_used", U64, bytes_used),
    R(snapshot_pymalloc, "bytes_free", U64, bytes_free),
    O(snapshot_pymalloc, "heaps", U64, heaps),
    R(snapshot_pymalloc, "size_classes", CLASSES, classes),
    END,
};

const struct json_field json_arena_fields[] = {
    R(snapshot_arena, "address", ADDR, address),
    R(snapshot_arena, "size", SUM, size),
    R(snapshot_arena, "pools_total", SUM, pools_total),
    R(snapshot_arena, "pools_free", SUM, pools_free),
    R(snapshot_arena, "blocks_used", SUM, blocks_used),
    R(snapshot_arena, "bytes_used", SUM, bytes_used),
    O(snapshot_arena, "resident_bytes", SUM, resident_bytes),
    O(snapshot_arena, "heap", U32, heap),
    O(snapshot_arena, "top_type", STR, top_type),
    O(snapshot_arena, "top_bytes", SUM, top_bytes),
    END,
};

static const struct json_field mallinfo2_fields[] = {
    R(snapshot_mallinfo2, "arena", U64, arena),
    R(snapshot_mallinfo2, "ordblks", U64, ordblks),
    R(snapshot_mallinfo2, "smblks", U64, smblks),
    R(snapshot_mallinfo2, "hblks", U64, hblks),
    R(snapshot_mallinfo2, "hblkhd", U64, hblkhd),
    R(snapshot_mallinfo2, "fsmblks", U64, fsmblks),
    R(snapshot_mallinfo2, "uordblks", U64, uordblks),
    R(snapshot_mallinfo2, "fordblks", U64, fordblks),
    R(snapshot_mallinfo2, "keepcost", U64, keepcost),
    END,
};

const struct json_field json_malloc_fields[] = {
    R(snapshot_malloc, "arenas", U64, arenas),
    R(snapshot_malloc, "system_bytes", U64, system_bytes),
    R(snapshot_malloc, "used_chunks", U64, used_chunks),
    R(snapshot_malloc, "used_bytes", U64, used_bytes),
    R(snapshot_malloc, "cached_chunks", U64, cached_chunks),
    R(snapshot_malloc, "cached_bytes", U64, cached_bytes),
    R(snapshot_malloc, "free_chunks", U64, free_chunks),
    R(snapshot_malloc, "free_bytes", U64, free_bytes),
    R(snapshot_malloc, "top_bytes", U64, top_bytes),
    R(snapshot_malloc, "overhead_bytes", U64, overhead_bytes),
    R(snapshot_malloc, "mmapped_chunks", U64, mmapped_chunks),
    R(snapshot_malloc, "mmapped_bytes", U64, mmapped_bytes),
    O(snapshot_malloc, "damaged_bytes", U64, damaged_bytes),
    O(snapshot_malloc, "transit_chunks", U64, transit_chunks),
    R_SUB(snapshot_malloc, "mallinfo2", OBJECT, mallinfo2, mallinfo2_fields),
    END,
};

const struct json_field json_malloc_arena_fields[] = {
    R(snapshot_malloc_arena, "address", ADDR, address),
    O(snapshot_malloc_arena, "top", ADDR_NULL, top),
    O(snapshot_malloc_arena, "main", BOOL, main),
    O(snapshot_malloc_arena, "heaps", SUM, heaps),
    O(snapshot_malloc_arena, "attached_threads", SUM, attached_threads),
    R(snapshot_malloc_arena, "system_bytes", SUM, system_bytes),
    R(snapshot_malloc_arena, "used_chunks", SUM, used_chunks),
    R(snapshot_malloc_arena, "used_bytes", SUM, used_bytes),
    R(snapshot_malloc_arena, "cached_chunks", SUM, cached_chunks),
    R(snapshot_malloc_arena, "cached_bytes", SUM, cached_bytes),
    R(snapshot_malloc_arena, "free_chunks", SUM, free_chunks),
    R(snapshot_malloc_arena, "free_bytes", SUM, free_bytes),
    R(snapshot_malloc_arena, "top_bytes", SUM, top_bytes),
    R(snapshot_malloc_arena, "overhead_bytes", SUM, overhead_bytes),
    O(snapshot_malloc_arena, "damaged_bytes", SUM, damaged_bytes),
    END,
};

const struct json_field json_mapping_fields[] = {
    R(snapshot_mapping, "address", ADDR, address),
    R(snapshot_mapping, "bytes", SUM, size),
    R(snapshot_mapping, "resident_bytes", SUM, resident_bytes),
    O(snapshot_mapping, "swap_bytes", SUM, swap_bytes),
    O(snapshot_mapping, "offset", U64, offset),
    R(snapshot_mapping, "perms", PERMS, perms),
    R(snapshot_mapping, "path", STR, path),
    R(snapshot_mapping, "kind", NAME, kind),
    R(snapshot_mapping, "categories", TALLY_USED, tally),
    END,
};

const struct json_field json_note_fields[] = {
    R(snapshot_note, "address", ADDR_NULL, address),
    R(snapshot_note, "what", NAME, what),
    R(snapshot_note, "why", NAME, why),
    R(snapshot_note, "bytes", U64, bytes),
    END,
};

const struct json_field json_objects_fields[] = {
    O(snapshot_objects, "objects", U64, objects),
    O(snapshot_objects, "object_bytes", U64, object_bytes),
    O(snapshot_objects, "buffers", U64, buffers),
    O(snapshot_objects, "buffer_bytes", U64, buffer_bytes),
    O(snapshot_objects, "inferred", U64, inferred),
    O(snapshot_objects, "inferred_bytes", U64, inferred_bytes),
    O(snapshot_objects, "dead", U64, dead),
    O(snapshot_objects, "dead_bytes", U64, dead_bytes),
    O(snapshot_objects, "runtime", U64, runtime),
    O(snapshot_objects, "runtime_bytes", U64, runtime_bytes),
    O(snapshot_objects, "unowned", U64, unowned),
    O(snapshot_objects, "unowned_bytes", U64, unowned_bytes),
    O(snapshot_objects, "malloc_object_bytes", U64, malloc_object_bytes),
    O(snapshot_objects, "malloc_buffer_bytes", U64, malloc_buffer_bytes),
    O(snapshot_objects, "malloc_inferred_bytes", U64, malloc_inferred_bytes),
    O(snapshot_objects, "malloc_dead_bytes", U64, malloc_dead_bytes),
    O(snapshot_objects, "malloc_runtime_bytes", U64, malloc_runtime_bytes),
    O(snapshot_objects, "malloc_unowned_bytes", U64, malloc_unowned_bytes),
    O(snapshot_objects, "statics", U64, statics),
    O(snapshot_objects, "static_bytes", U64, static_bytes),
    END,
};

const struct json_field json_gc_fields[] = {
    O(snapshot_gc, "enabled", BOOL, enabled),
    O(snapshot_gc, "collecting", BOOL, collecting),
    O(snapshot_gc, "generations", U64, generations),
    O(snapshot_gc, "threshold", GENERATIONS, threshold),
    O(snapshot_gc, "count", GENERATIONS, count),
    O(snapshot_gc, "lists", BOOL, lists),
    O(snapshot_gc, "tracked", GENERATIONS, tracked),
    O(snapshot_gc, "frozen", U64, frozen),
    O(snapshot_gc, "garbage", U64, garbage),
    END,
};

const struct json_field json_type_fields[] = {
    R(snapshot_type, "name", NAME, name),
    O(snapshot_type, "module", NAME, module),
    O(snapshot_type, "address", ADDR, address),
    O(snapshot_type, "count", SUM, count),
    O(snapshot_type, "bytes", SUM, bytes),
    O(snapshot_type, "size_bytes", SUM, size_bytes),
    O(snapshot_type, "buffers", SUM, buffers),
    O(snapshot_type, "buffer_bytes", SUM, buffer_bytes),
    O(snapshot_type, "inferred", SUM, inferred),
    O(snapshot_type, "inferred_bytes", SUM, inferred_bytes),
    O(snapshot_type, "dead", SUM, dead),
    O(snapshot_type, "dead_bytes", SUM, dead_bytes),
    O(snapshot_type, "statics", SUM, statics),
    O(snapshot_type, "static_bytes", SUM, static_bytes),
    END,
};

const struct json_field json_tracing_fields[] = {
    R(snapshot_tracing, "source", STR, source),
    R(snapshot_tracing, "tracing", BOOL, tracing),
    R(snapshot_tracing, "frames_limit", U64, frames_limit),
    R(snapshot_tracing, "traced_bytes", U64, traced_bytes),
    R(snapshot_tracing, "peak_bytes", U64, peak_bytes),
    R(snapshot_tracing, "overhead_bytes", U64, overhead_bytes),
    R(snapshot_tracing, "traces", U64, traces),
    R(snapshot_tracing, "trace_bytes", U64, trace_bytes),
    R(snapshot_tracing, "tracebacks", U64, tracebacks),
    R(snapshot_tracing, "covered_blocks", U64, covered_blocks),
    R(snapshot_tracing, "covered_bytes", U64, covered_bytes),
    R(snapshot_tracing, "untraced_blocks", U64, untraced_blocks),
    R(snapshot_tracing, "untraced_bytes", U64, untraced_bytes),
    R(snapshot_tracing, "gone_traces", U64, gone_traces),
    R(snapshot_tracing, "gone_bytes", U64, gone_bytes),
    R(snapshot_tracing, "lost", U64, lost),
    END,
};

const struct json_field json_frame_fields[] = {
    R(snapshot_frame, "file", NAME, file),
    R(snapshot_frame, "line", U32, line),
    R(snapshot_frame, "function", STR, function),
    END,
};

const struct json_field json_traceback_fields[] = {
    R(snapshot_traceback, "total", U32, total),
    END,
};

/* The totals are added up by json_keep_site. */
const struct json_field json_site_fields[] = {
    R(snapshot_site, "traceback", U32, traceback), R(snapshot_site, "type", STR, type),
    R(snapshot_site, "kind", STR, kind),           R(snapshot_site, "domain", U32, domain),
    R(snapshot_site, "source", STR, source),       R(snapshot_site, "count", U64, count),
    R(snapshot_site, "bytes", U64, bytes),         END,
};

static void emit_tally(struct json_emit *e, const struct tally *t, bool all)
{
    emit_open(e, '[');
    for (int i = 0; i < CAT_COUNT; i++) {
        if (!all && !t->bytes[i] && !t->resident[i] && !t->count[i])
            continue;
        emit_open(e, '{');
        emit_key(e, "name");
        emit_text(e, category_name((enum category)i));
        emit_key(e, "bytes");
        emit_u64(e, t->bytes[i]);
        emit_key(e, "resident_bytes");
        emit_u64(e, t->resident[i]);
        emit_key(e, "count");
        emit_u64(e, t->count[i]);
        emit_close(e, '}');
    }
    emit_close(e, ']');
}

void json_emit_classes(struct json_emit *e, const struct snapshot_size_class *classes)
{
    emit_open(e, '[');
    for (int i = 0; i < SIZE_CLASSES; i++)
        if (classes[i].pools)
            json_emit_object(e, &classes[i], json_size_class_fields);
    emit_close(e, ']');
}

static void emit_generations(struct json_emit *e, const uint64_t *values)
{
    emit_open(e, '[');
    for (int i = 0; i < GC_GENERATIONS; i++)
        emit_u64(e, values[i]);
    emit_close(e, ']');
}

static uint64_t u64_at(const void *p)
{
    return *(const uint64_t *)p;
}

static const char *str_at(const void *p)
{
    return *(const char *const *)p;
}

static void emit_text_field(struct json_emit *e, const void *at, enum json_field_type type)
{
    if (type == FIELD_PERMS)
        emit_text_n(e, at, 4);
    else if (type == FIELD_NAME && !str_at(at))
        emit_text(e, "unknown");
    else
        emit_text(e, str_at(at));
}

static void emit_number_field(struct json_emit *e, const void *at, enum json_field_type type)
{
    if (type == FIELD_ADDR || (type == FIELD_ADDR_NULL && u64_at(at)))
        emit_addr(e, u64_at(at));
    else if (type == FIELD_ADDR_NULL || (type == FIELD_PID && *(const int64_t *)at <= 0))
        emit_null(e);
    else if (type == FIELD_U32)
        emit_u64(e, *(const uint32_t *)at);
    else
        emit_u64(e, u64_at(at));
}

static void emit_value(struct json_emit *e, const void *at, const struct json_field *f)
{
    switch (f->type) {
    case FIELD_BOOL:
        emit_bool(e, *(const bool *)at);
        break;
    case FIELD_STR:
    case FIELD_NAME:
    case FIELD_PERMS:
        emit_text_field(e, at, f->type);
        break;
    case FIELD_MAYBE:
        if (*(const bool *)at)
            json_emit_object(e, at, f->sub);
        else
            emit_null(e);
        break;
    case FIELD_OBJECT:
        json_emit_object(e, at, f->sub);
        break;
    case FIELD_TALLY:
    case FIELD_TALLY_USED:
        emit_tally(e, at, f->type == FIELD_TALLY);
        break;
    case FIELD_CLASSES:
        json_emit_classes(e, at);
        break;
    case FIELD_GENERATIONS:
        emit_generations(e, at);
        break;
    default:
        emit_number_field(e, at, f->type);
    }
}

void json_emit_fields(struct json_emit *e, const void *base, const struct json_field *fields)
{
    for (const struct json_field *f = fields; f->name; f++) {
        emit_key(e, f->name);
        emit_value(e, (const char *)base + f->offset, f);
    }
}

void json_emit_object(struct json_emit *e, const void *base, const struct json_field *fields)
{
    emit_open(e, '{');
    json_emit_fields(e, base, fields);
    emit_close(e, '}');
}
