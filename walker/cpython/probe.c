/* Proof before trust: facts that the chosen layout predicts and that must hold on this target. */
#include <inttypes.h>
#include <string.h>

#include "formats/base/num.h"
#include "walker/cpython/cpython.h"

static int refuse(const struct cpython *py, struct err *err, const char *fact)
{
    err_set(err, ERR_UNSUPPORTED, "CPython %s does not fit the layout '%s': %s", py->version,
            py->layout.name, fact);
    err_remedy(err, "this build differs from those that heapcensus knows; `heapcensus doctor` says "
                    "more, docs/HOWTO-ADD-PYTHON.md helps");
    return ERR_UNSUPPORTED;
}

/* type(type) is type, its name reads "type", its basicsize is that of a heap type. Bytes that are
 * not in memory prove nothing either way: constants of the executable may never have been read. */
static int probe_type(const struct cpython_input *in, const struct cpython *py, struct err *err)
{
    uint64_t type = py->module ? py->module->type_type : 0, v = 0;
    const struct layout *l = &py->layout;
    uint64_t shift = py->trace_refs ? 16 : 0;
    char name[8];
    if (!type)
        return 0;
    if (layout_u64(l, in->mem, type + shift, LF_ob_type, &v, NULL) == 0 && v != 0 && v != type)
        return refuse(py, err, "the type of `type` is not `type`");
    if (v == 0)
        return 0; /* static types get their type when the interpreter starts */
    if (layout_u64(l, in->mem, type + shift, LF_type_name, &v, NULL) == 0 &&
        mem_cstr(in->mem, v, name, sizeof name, NULL) == 0 && strcmp(name, "type") != 0)
        return refuse(py, err, "the name of `type` does not read \"type\"");
    if (layout_has(l, LF_heaptype_sizeof) &&
        layout_u64(l, in->mem, type + shift, LF_type_basicsize, &v, NULL) == 0 && !py->trace_refs &&
        v != layout_size(l, LF_heaptype_sizeof))
        return refuse(py, err, "the basic size of `type` is another");
    return 0;
}

/* The head of the list of interpreters is an interpreter: in writable memory, ending the list or
 * followed by another, and the oldest has id 0. */
static int probe_runtime(const struct cpython_input *in, const struct cpython *py, struct err *err)
{
    uint64_t head, next, id;
    const struct layout *l = &py->layout;
    if (!py->runtime || !layout_has(l, LF_rt_interp_head))
        return 0;
    if (layout_u64(l, in->mem, py->runtime, LF_rt_interp_head, &head, NULL) < 0 || head == 0)
        return 0; /* still starting, or finalised */
    if (!vma_writable_at(in->vmas, head))
        return refuse(py, err, "the first interpreter lies in no writable memory");
    for (int i = 0; i < 10000; i++) {
        if (layout_u64(l, in->mem, head, LF_interp_next, &next, NULL) < 0 ||
            layout_u64(l, in->mem, head, LF_interp_id, &id, NULL) < 0)
            return in->partial ? 0 : refuse(py, err, "the list of interpreters cannot be read");
        if (!next)
            return id == 0 ? 0 : refuse(py, err, "the main interpreter's id is not 0");
        if (!vma_writable_at(in->vmas, next))
            return refuse(py, err, "the list of interpreters leads out of writable memory");
        head = next;
    }
    return refuse(py, err, "the list of interpreters does not end");
}

int cpython_probe(const struct cpython_input *in, struct cpython *py, struct err *err)
{
    if (layout_size(&py->layout, LF_pool_size) != 0 &&
        layout_size(&py->layout, LF_pool_size) != POOL_HEADER_BYTES)
        return refuse(py, err, "pool headers have another size");
    int rc = probe_type(in, py, err);
    return rc < 0 ? rc : probe_runtime(in, py, err);
}
