/* Compressed files as hostile input: whatever comes, the result is a file of the size that it
 * claims, and its beginning is what unpack_head says. */
#define _GNU_SOURCE 1 /* memfd_create */
#include <archive.h>
#include <archive_entry.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "inspector/target/unpack.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#ifdef FUZZ_MAIN
#define FUZZ_SEED packed_seed
#include "tests/fuzz/driver.h"

/* A compressed stream of each codec in turn: zeros, text and noise, 1 to 200 KiB. */
static size_t packed_seed(unsigned n, uint8_t *buf, size_t cap)
{
    static const char *const codecs[] = {"zstd", "lz4", "xz", "gzip", "bzip2"};
    static uint8_t plain[200 << 10];
    size_t len = 1024 * (1 + n % 200), used = 0;
    for (size_t i = 0; i < len; i++)
        plain[i] = i % 8192 < 4096 ? 0 : i % 97 < 50 ? "core"[i % 4] : (uint8_t)(i * i >> 7);
    struct archive *a = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, "core");
    archive_entry_set_filetype(entry, AE_IFREG);
    if (archive_write_add_filter_by_name(a, codecs[n % 5]) != ARCHIVE_OK ||
        archive_write_set_format_raw(a) != ARCHIVE_OK ||
        archive_write_set_filter_option(a, NULL, "compression-level", "1") != ARCHIVE_OK ||
        archive_write_set_bytes_in_last_block(a, 1) != ARCHIVE_OK ||
        archive_write_open_memory(a, buf, cap, &used) != ARCHIVE_OK ||
        archive_write_header(a, entry) != ARCHIVE_OK ||
        archive_write_data(a, plain, len) != (la_ssize_t)len ||
        archive_write_close(a) != ARCHIVE_OK)
        abort();
    archive_write_free(a);
    archive_entry_free(entry);
    return used;
}
#endif

/* The disk is what bounds a bomb: a small one here. */
static void limit_files(void)
{
    struct rlimit limit;
    signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_FSIZE, &limit) == 0) {
        limit.rlim_cur = 64 << 20;
        setrlimit(RLIMIT_FSIZE, &limit);
    }
}

static void check_file(const struct unpacked *u, const uint8_t *head, size_t n)
{
    uint8_t start[512];
    struct stat st;
    if (fstat(u->fd, &st) < 0 || (uint64_t)st.st_size != u->bytes || u->bytes < n ||
        lseek(u->fd, 0, SEEK_CUR) != 0 || u->bytes == 0)
        abort();
    if (pread(u->fd, start, n, 0) != (ssize_t)n || memcmp(start, head, n) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct unpacked u = {-1, 0, 0};
    uint8_t head[512];
    int fd = memfd_create("packed", MFD_CLOEXEC);
    limit_files();
    if (fd < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
        abort();
    size_t n = unpack_head(fd, head, sizeof head);
    int rc = unpack(fd, NULL, &u, NULL);
    if (rc > 0 || (rc == 0 && !unpack_name(data, size)))
        abort();
    if (rc == 0)
        check_file(&u, head, n);
    else if (n && rc == ERR_FORMAT)
        abort();
    if (u.fd >= 0)
        close(u.fd);
    close(fd);
    return 0;
}
