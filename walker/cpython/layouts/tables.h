/* The committed tables by name: layout_py3_13_0 and so on. Use layout_find. */
#ifndef HEAPCENSUS_CPYTHON_TABLES_H
#define HEAPCENSUS_CPYTHON_TABLES_H

#include "walker/cpython/layout.h"

#define TABLE(name) extern const struct layout layout_##name;
#include "walker/cpython/layouts/tables.def"
#undef TABLE

#endif
