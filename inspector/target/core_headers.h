/* The modules of a core that does not name them: gdb writes its notes at the end of a core, so one
 * that is cut short has no NT_FILE. It does dump the first page of every module, though, and that
 * tells how far the module reaches. */
#ifndef HEAPCENSUS_CORE_HEADERS_H
#define HEAPCENSUS_CORE_HEADERS_H

#include "formats/base/err.h"
#include "inspector/target/core.h"

/* Fill core->files, if it is empty, from the ELF headers at the start of segments: named by
 * DT_SONAME where that can be read, "executable" (then core->at_phdr is set, if it was 0) where
 * there is an interpreter and no such name, else "module"; then "/" and the libpython that it
 * needs, if it does. Not paths: no file is opened by these names. */
int core_headers_find(struct core *core, struct err *err) MUST_CHECK;

#endif
