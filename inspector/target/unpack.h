/* Compressed files: by their first bytes, never by their name. */
#ifndef HEAPCENSUS_UNPACK_H
#define HEAPCENSUS_UNPACK_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/base/err.h"

/* "zstd", "lz4", "xz", "gzip", "bzip2", or NULL for none of them. */
const char *unpack_name(const uint8_t *head, size_t len);

/* The first `cap` bytes of the decompressed content of fd (position 0; fd stays open and is left at
 * any position). Returns how many there are; 0 on any failure. */
size_t unpack_head(int fd, uint8_t *buf, size_t cap);

struct unpacked {
    int fd;         /* of an unlinked, sparse file in $TMPDIR or /var/tmp, position 0 */
    uint64_t bytes; /* its size */
    int cut;        /* the compressed stream ends early or is damaged: what came before is there */
};

/* Decompress fd into an unlinked sparse file: pages of zeros become holes, so that the free space
 * needed is that of the data alone. Of a cut stream, what the decoder had not yet handed out is
 * lost with the rest: up to a block of the format (4 MiB for lz4). *interrupted (may be NULL) is
 * looked at every few MiB. Errors: ERR_OS (ENOSPC with a remedy that names TMPDIR), ERR_FORMAT (not
 * one byte could be decompressed; more than 16 TiB), ERR_UNSUPPORTED (libarchive was built without
 * that format), ERR_INTERRUPTED, ERR_NOMEM. fd stays the caller's. */
int unpack(int fd, const volatile sig_atomic_t *interrupted, struct unpacked *ret,
           struct err *err) MUST_CHECK;

#endif
