/* For layoutgen: CPython's structures, from its headers, for builds whose interpreter comes without
 * DWARF. Not a program; compiled with -g -c -shared style options against libpython3.NN-dev (see
 * docs/HOWTO-ADD-PYTHON.md) and never run. For 3.13 and later, which keep the allocator's and
 * tracemalloc's structures in headers.
 *
 * The structures at the end live in .c files of CPython. They are declared here again with the
 * members that fields.def names, and tests/unit/test_layout.c compares the result with the tables
 * made from complete interpreters. */
#define Py_BUILD_CORE 1
#include "Python.h"

#include "internal/pycore_code.h"
#include "internal/pycore_context.h"
#include "internal/pycore_dict.h"
#include "internal/pycore_frame.h"
#include "internal/pycore_gc.h"
#include "internal/pycore_hashtable.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_long.h"
#include "internal/pycore_mimalloc.h"
#include "internal/pycore_moduleobject.h"
#include "internal/pycore_object.h"
#include "internal/pycore_obmalloc.h"
#include "internal/pycore_pymem.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"
#include "internal/pycore_tracemalloc.h"
#include "internal/pycore_tstate.h"
#if PY_VERSION_HEX >= 0x030e0000
#include "internal/pycore_genobject.h"
#include "internal/pycore_interpframe.h"
#include "internal/pycore_interpframe_structs.h"
#endif

/* layoutgen reads the release from this symbol, as from a real interpreter. */
__attribute__((used)) const unsigned long Py_Version = PY_VERSION_HEX;

/* tracemalloc.c */
typedef struct {
    size_t size;
    struct tracemalloc_traceback *traceback;
} trace_t;

/* arraymodule.c */
struct arraydescr {
    char typecode;
    int itemsize;
};

typedef struct {
    PyObject_VAR_HEAD char *ob_item;
    Py_ssize_t allocated;
    const struct arraydescr *ob_descr;
    PyObject *weakreflist;
    Py_ssize_t ob_exports;
} arrayobject;

/* _collectionsmodule.c */
struct BLOCK {
    struct BLOCK *leftlink;
    PyObject *data[64];
    struct BLOCK *rightlink;
};

typedef struct {
    PyObject_VAR_HEAD struct BLOCK *leftblock;
    struct BLOCK *rightblock;
    Py_ssize_t leftindex, rightindex;
    size_t state;
    Py_ssize_t maxlen, numfreeblocks;
    struct BLOCK *freeblocks[16];
    PyObject *weakreflist;
} dequeobject;

/* odictobject.c */
struct _odictnode {
    PyObject *key;
    Py_hash_t hash;
    struct _odictnode *next, *prev;
};

struct _odictobject {
    PyDictObject od_dict;
    struct _odictnode *od_first, *od_last;
    struct _odictnode **od_fast_nodes;
    Py_ssize_t od_fast_nodes_size;
    void *od_resize_sentinel;
    size_t od_state;
    PyObject *od_inst_dict;
    PyObject *od_weakreflist;
};

/* The compiler describes a type when something uses it. */
struct probe {
    _PyRuntimeState *runtime;
    PyInterpreterState *interp;
    PyThreadState *thread;
    _PyThreadStateImpl *thread_impl;
    _PyInterpreterFrame *iframe;
    _PyCoCached *co_cached;
    _PyStackChunk *chunk;
    _PyErr_StackItem *exc_item;
    struct _gil_runtime_state *gil;
    struct _obmalloc_state *obmalloc;
    struct pool_header *pool;
    struct arena_object *arena;
    arena_map_top_t *map_top;
    arena_map_mid_t *map_mid;
    arena_map_bot_t *map_bot;
    arena_coverage_t *coverage;
    PyMemAllocatorEx *allocator;
    debug_alloc_api_t *debug_allocator;
    struct _tracemalloc_runtime_state *tracemalloc;
    struct tracemalloc_traceback *traceback;
    struct tracemalloc_frame *trace_frame;
    trace_t *trace;
    _Py_hashtable_t *hashtable;
    _Py_hashtable_entry_t *hashtable_entry;
    managed_static_type_state *static_type;
    PyGC_Head *gc_head;
    struct gc_generation *gc_generation;
    struct _gc_runtime_state *gc;
    struct _Py_DebugOffsets *debug_offsets;
    mi_segment_t *mi_segment;
    mi_page_t *mi_page;
    mi_heap_t *mi_heap;
    mi_tld_t *mi_tld;
    mi_block_t *mi_block;
    PyObject *object;
    PyVarObject *var_object;
    PyTypeObject *type;
    PyHeapTypeObject *heap_type;
    PyDictObject *dict;
    PyDictKeysObject *dict_keys;
    PyDictKeyEntry *dict_entry;
    PyDictUnicodeEntry *dict_unicode_entry;
    PyDictValues *dict_values;
    PyListObject *list;
    PyTupleObject *tuple;
    PySetObject *set;
    setentry *set_entry;
    PyASCIIObject *ascii;
    PyCompactUnicodeObject *compact;
    PyUnicodeObject *unicode;
    PyBytesObject *bytes;
    PyByteArrayObject *bytearray;
    PyLongObject *integer;
    PyFloatObject *floating;
    PyModuleObject *module;
    PyModuleDef *module_def;
    PyFunctionObject *function;
    PyCFunctionObject *cfunction;
    PyMethodDef *method_def;
    PyMethodObject *method;
    PyCellObject *cell;
    PyWeakReference *weakref;
    PyGenObject *generator;
    PyCodeObject *code;
    PyFrameObject *frame;
    PyMemoryViewObject *memoryview;
    PySliceObject *slice;
    PyBaseExceptionObject *exception;
    PyContext *context;
    arrayobject *array;
    dequeobject *deque;
    struct _odictnode *odict_node;
    struct _odictobject *odict;
#ifdef Py_GIL_DISABLED
    struct _mimalloc_thread_state *mi_thread;
    struct _mimalloc_interp_state *mi_interp;
#if PY_VERSION_HEX >= 0x030e0000
    _PyCodeArray *code_array;
#endif
#endif
};

__attribute__((used)) struct probe layout_probe;
