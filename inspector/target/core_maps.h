/* The mappings of a core as struct maps, from its segments and NT_FILE (or from the text that
 * heapcensus core left in it). */
#ifndef HEAPCENSUS_CORE_MAPS_H
#define HEAPCENSUS_CORE_MAPS_H

#include "formats/base/err.h"
#include "inspector/target/core.h"
#include "inspector/target/maps.h"

/* Fill `ret` (maps_init done). Without a text of /proc:
 * - one mapping for each segment and, where NT_FILE tells of one that has no segment (gcore), one
 *   for that, readable and executable as far as anyone knows;
 * - name and offset from NT_FILE; inode: a number for each distinct path, dev 0 (a core tells
 *   neither); kind by name as in /proc/PID/maps;
 * - "[stack]": holds AT_RANDOM or AT_EXECFN, else the first thread's stack pointer if nothing else
 *   is known of that mapping; "[vdso]": AT_SYSINFO_EHDR; "[vvar]" and, where there are two,
 *   "[vvar_vclock]": the read-only mappings without file right below it; "[vsyscall]":
 *   0xffffffffff600000; "[heap]": the first anonymous rw mapping above the executable's last one
 *   that does not belong to its .bss, if no other file lies between and it is within 1 GiB;
 * - shared: known from the name (/dev/zero, /memfd:, /SYSV, /dev/shm), and for a writable file
 *   mapping that the kernel left out though it dumps private ones. Never for code: libffi maps its
 *   trampolines privately from a memfd. */
int core_maps_read(const struct core *core, struct maps *ret, struct err *err) MUST_CHECK;

#endif
