/* Reading the small and the large text files of /proc. */
#ifndef HEAPCENSUS_PROCFILE_H
#define HEAPCENSUS_PROCFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"

/* The whole of `path`, NUL-terminated, to be freed by the caller. /proc files have no size, so it
 * reads until the end (at most 1 GiB: ERR_LIMIT). ERR_NOT_FOUND when the process or the file is
 * gone, ERR_PERMISSION when the kernel refuses; os_errno is kept in every case. */
int procfile_read(const char *path, char **ret, size_t *len, struct err *err) MUST_CHECK;
/* As procfile_read, from an open descriptor, which stays open. `path` serves the messages. */
int procfile_read_fd(int fd, const char *path, char **ret, size_t *len, struct err *err) MUST_CHECK;
/* At most cap - 1 bytes of `path` into buf, NUL-terminated. False (and "") when it cannot be read
 * or is empty: for files whose absence only costs a detail. A final newline is cut off. */
bool procfile_small(const char *path, char *buf, size_t cap);
/* An err for a failed open or read of something under /proc: see procfile_read. */
int procfile_failed(struct err *err, int os_errno, const char *path);
/* "key:<blanks>" at the start of a line of `text`: where its value begins, or NULL. */
const char *procfile_value(const char *text, const char *key);
/* The unsigned number behind "key:", 0 without one. Base as in strtoull. */
uint64_t procfile_number(const char *text, const char *key, int base);

#endif
