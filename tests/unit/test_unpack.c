/* Decompression: every codec whole, cut, damaged and followed by others; holes; disks that are
 * full. The compressed files come from libarchive's writers. */
#define _GNU_SOURCE 1 /* memfd_create, O_TMPFILE */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "inspector/target/sys.h"
#include "inspector/target/unpack.h"
#include "tests/lib/tap.h"

enum { PAGE = 4096, SAMPLE_BYTES = (3 << 20) + 1234, CUTS = 20 };

/* `slack`: what a codec may hold back when its stream breaks, in bytes that would have come out. */
static const struct {
    const char *name;
    size_t slack;
} codecs[] = {{"zstd", 512 << 10},
              {"lz4", 512 << 10},
              {"xz", 1 << 20},
              {"gzip", 256 << 10},
              {"bzip2", 2 << 20}};
enum { CODECS = sizeof codecs / sizeof codecs[0] };

static uint8_t sample[SAMPLE_BYTES];

/* Each 64 KiB: a quarter that does not compress, text, and zeros; so that a share of the compressed
 * file is about that share of the bytes. */
static void make_sample(void)
{
    uint64_t x = 88172645463325252u;
    for (size_t i = 0; i < SAMPLE_BYTES; i++) {
        size_t at = i % 65536;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        if (at < 16384)
            sample[i] = (uint8_t)x;
        else if (at < 32768)
            sample[i] = (uint8_t)("heapcensus"[at % 10]);
    }
    memcpy(sample, "\177ELF", 4);
}

/* ---- calls that fail when told to: they take the place of libc's in this program ---- */

static int no_tmpfile; /* the errno of O_TMPFILE */
static int named_files;
static int writes_left = -1, write_errno; /* after so many pwrites this errno */

int open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    int mode = va_arg(ap, int);
    va_end(ap);
    if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = no_tmpfile;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int unlink(const char *path)
{
    named_files++;
    return (int)syscall(SYS_unlink, path);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t at)
{
    if (writes_left == 0) {
        errno = write_errno;
        return -1;
    }
    writes_left -= writes_left > 0;
    return syscall(SYS_pwrite64, fd, buf, len > 10000 ? 10000 : len, at); /* short ones, too */
}

/* ---- files ---- */

static int count_fds(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (dir && readdir(dir))
        n++;
    if (dir)
        closedir(dir);
    return n;
}

/* Of the disk; the file system may count only what has reached it. */
static uint64_t allocated(int fd)
{
    struct stat st;
    return fsync(fd) == 0 && fstat(fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static uint64_t size_of(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 ? (uint64_t)st.st_size : 0;
}

/* Appends one compressed stream of the bytes to fd. */
static bool pack_to(int fd, const char *codec, const uint8_t *bytes, size_t len)
{
    struct archive *a = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, "core");
    archive_entry_set_filetype(entry, AE_IFREG);
    lseek(fd, 0, SEEK_END);
    bool good = archive_write_add_filter_by_name(a, codec) == ARCHIVE_OK &&
                archive_write_set_filter_option(a, codec, "compression-level", "1") == ARCHIVE_OK &&
                (strcmp(codec, "lz4") != 0 ||
                 archive_write_set_filter_option(a, codec, "block-size", "4") == ARCHIVE_OK) &&
                archive_write_set_format_raw(a) == ARCHIVE_OK &&
                archive_write_set_bytes_in_last_block(a, 1) == ARCHIVE_OK &&
                archive_write_open_fd(a, fd) == ARCHIVE_OK &&
                archive_write_header(a, entry) == ARCHIVE_OK;
    for (size_t at = 0, part; at < len && good; at += part) {
        part = len - at < 1 << 20 ? len - at : 1 << 20;
        good = archive_write_data(a, bytes + at, part) == (la_ssize_t)part;
    }
    good = archive_write_close(a) == ARCHIVE_OK && good;
    if (!good)
        diag("%s: %s", codec, archive_error_string(a) ? archive_error_string(a) : "");
    archive_write_free(a);
    archive_entry_free(entry);
    return good;
}

static int empty_file(void)
{
    return memfd_create("packed", MFD_CLOEXEC);
}

static int pack(const char *codec, const uint8_t *bytes, size_t len)
{
    int fd = empty_file();
    pack_to(fd, codec, bytes, len);
    return fd;
}

static int prefix_of(int fd, uint64_t len)
{
    int cut = empty_file();
    uint8_t *buf = malloc(len + 1);
    if (!buf || pread(fd, buf, len, 0) != (ssize_t)len || write(cut, buf, len) != (ssize_t)len)
        diag("cannot cut: %s", strerror(errno));
    free(buf);
    return cut;
}

/* The first `bytes` bytes of `want`, repeated, are what came out. */
static bool holds(const struct unpacked *u, const uint8_t *want, size_t len)
{
    static uint8_t buf[PAGE];
    bool same = size_of(u->fd) == u->bytes && lseek(u->fd, 0, SEEK_CUR) == 0;
    for (uint64_t at = 0; at < u->bytes && same;) {
        ssize_t n = pread(u->fd, buf, sizeof buf, (off_t)at);
        same = n > 0;
        for (ssize_t i = 0; i < n && same; i++, at++)
            same = buf[i] == want[at % len];
    }
    return same;
}

/* ---- tests ---- */

static void test_whole(size_t i)
{
    struct unpacked u = {-1, 0, 1};
    struct err err = ERR_INIT;
    struct stat st = {0};
    uint8_t head[100];
    int before = count_fds(), fd = pack(codecs[i].name, sample, SAMPLE_BYTES);
    ssize_t n = pread(fd, head, sizeof head, 0);
    const char *name = unpack_name(head, n > 0 ? (size_t)n : 0);
    ok(name && strcmp(name, codecs[i].name) == 0 && !unpack_name(head, 1), "%s is named by %s",
       codecs[i].name, "its magic");
    ok(unpack_head(fd, head, sizeof head) == sizeof head && memcmp(head, sample, sizeof head) == 0,
       "%s: the head", codecs[i].name);
    lseek(fd, 3, SEEK_SET);
    ok(unpack(fd, NULL, &u, &err) == 0 && u.bytes == SAMPLE_BYTES && !u.cut &&
           holds(&u, sample, SAMPLE_BYTES),
       "%s: whole, from any position (%s)", codecs[i].name, err.text);
    /* Half of each 64 KiB is zeros; the file system may want a little for itself. */
    uint64_t disk = allocated(u.fd);
    ok(disk >= SAMPLE_BYTES / 2 - (64 << 10) && disk <= SAMPLE_BYTES / 2 + (128 << 10),
       "%s: zeros are holes (%ju bytes of disk)", codecs[i].name, (uintmax_t)disk);
    ok(fstat(u.fd, &st) == 0 && st.st_nlink == 0 && (st.st_mode & 07777) == 0600,
       "%s: a private file without a name", codecs[i].name);
    close(u.fd);
    close(fd);
    ok(count_fds() == before, "%s: no descriptor is left", codecs[i].name);
}

static void test_cut(size_t i)
{
    int whole = pack(codecs[i].name, sample, SAMPLE_BYTES), wrong = 0, kept = 0;
    uint64_t size = size_of(whole), last = 0;
    for (unsigned k = 0; k < CUTS; k++) {
        struct unpacked u = {-1, 0, 0};
        int fd = prefix_of(whole, size * k / CUTS);
        int rc = unpack(fd, NULL, &u, NULL);
        uint64_t due = (uint64_t)SAMPLE_BYTES * k / CUTS;
        if (rc == 0)
            wrong += !u.cut || u.bytes < last || !holds(&u, sample, SAMPLE_BYTES);
        else
            wrong += rc != ERR_FORMAT || last > 0;
        wrong += u.bytes + codecs[i].slack < due;
        kept += rc == 0;
        last = u.bytes;
        if (u.fd >= 0)
            close(u.fd);
        close(fd);
    }
    ok(wrong == 0 && kept > CUTS / 2,
       "%s: cut at every 1/%d: what came before is there (%d of them)", codecs[i].name, CUTS, kept);
    close(whole);
}

static void test_damaged(size_t i)
{
    int fd = pack(codecs[i].name, sample, SAMPLE_BYTES);
    struct unpacked u = {-1, 0, 0};
    struct err err = ERR_INIT;
    uint64_t size = size_of(fd);
    uint8_t junk[4096];
    memset(junk, 0xa5, sizeof junk);
    if (pwrite(fd, junk, sizeof junk, (off_t)(size * 3 / 4)) != sizeof junk)
        diag("%s", strerror(errno));
    int rc = unpack(fd, NULL, &u, &err);
    ok(rc == ERR_FORMAT || (rc == 0 && u.bytes <= SAMPLE_BYTES + PAGE), "%s: damaged: %s",
       codecs[i].name,
       rc      ? err.text
       : u.cut ? "cut"
               : "not noticed");
    if (u.fd >= 0)
        close(u.fd);
    close(fd);
}

/* Two streams one after the other are one file; what follows that makes no sense costs at most what
 * the decoder holds back. */
static void test_more_behind(size_t i)
{
    struct unpacked u = {-1, 0, 1};
    uint8_t junk[1000];
    int fd = pack(codecs[i].name, sample, SAMPLE_BYTES);
    pack_to(fd, codecs[i].name, sample, SAMPLE_BYTES);
    ok(unpack(fd, NULL, &u, NULL) == 0 && u.bytes == 2 * (uint64_t)SAMPLE_BYTES && !u.cut &&
           holds(&u, sample, SAMPLE_BYTES),
       "%s: two streams", codecs[i].name);
    close(u.fd);
    memset(junk, 0xa5, sizeof junk);
    lseek(fd, 0, SEEK_END);
    if (write(fd, junk, sizeof junk) != sizeof junk)
        diag("%s", strerror(errno));
    ok(unpack(fd, NULL, &u, NULL) == 0 && u.bytes <= 2 * (uint64_t)SAMPLE_BYTES &&
           u.bytes + (1 << 20) > 2 * (uint64_t)SAMPLE_BYTES && holds(&u, sample, SAMPLE_BYTES),
       "%s: garbage at the end: %s, %ju bytes missing", codecs[i].name, u.cut ? "cut" : "ignored",
       (uintmax_t)(2 * (uint64_t)SAMPLE_BYTES - u.bytes));
    close(u.fd);
    close(fd);
}

/* A stream in a stream is unpacked once: whoever nests them gets no 25 decoders. */
static void test_nested(size_t i)
{
    struct unpacked u = {-1, 0, 1};
    uint8_t inner[4096], head[6];
    int fd = pack(codecs[i].name, sample, 1000);
    ssize_t n = pread(fd, inner, sizeof inner, 0);
    close(fd);
    fd = pack(codecs[i].name, inner, n > 0 ? (size_t)n : 0);
    ok(unpack(fd, NULL, &u, NULL) == 0 && n > 0 && u.bytes == (uint64_t)n &&
           holds(&u, inner, (size_t)n) && unpack_head(fd, head, 6) == 6 && unpack_name(head, 6),
       "%s: a stream in a stream is unpacked once", codecs[i].name);
    close(u.fd);
    close(fd);
}

static void test_holes(void)
{
    static uint8_t sparse[(16 << 20) + 77];
    struct unpacked u = {-1, 0, 1};
    sparse[5 * PAGE] = sparse[(3 << 20) - 1] = sparse[(9 << 20) + 100] = 1;
    int fd = pack("zstd", sparse, sizeof sparse);
    ok(unpack(fd, NULL, &u, NULL) == 0 && u.bytes == sizeof sparse && !u.cut &&
           holds(&u, sparse, sizeof sparse),
       "three pages with data in 16 MiB, zeros at the end");
    uint64_t disk = allocated(u.fd);
    ok(disk >= 3 * PAGE && disk <= 3 * PAGE + (32 << 10), "%ju bytes of disk", (uintmax_t)disk);
    close(u.fd);
    close(fd);
}

static void test_not_packed(void)
{
    static const char *const texts[] = {
        "",        "\x1f", "\177ELF", "{\"record\":", "BZhx", "\x28\xb5\x2f\xfd", "\x1f\x8b\x08",
        "\3757zXZ"};
    uint8_t buf[16];
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct unpacked u = {-1, 0, 0};
        struct err err = ERR_INIT;
        int fd = empty_file();
        if (write(fd, texts[i], strlen(texts[i])) < 0)
            diag("%s", strerror(errno));
        ok(unpack(fd, NULL, &u, &err) == ERR_FORMAT && u.fd == -1 &&
               unpack_head(fd, buf, sizeof buf) == 0,
           "nothing to unpack in text %zu: %s", i, err.text);
        close(fd);
    }
    struct err err = ERR_INIT;
    struct unpacked u = {-1, 0, 0};
    ok(unpack(-1, NULL, &u, &err) == ERR_OS && unpack_head(-1, buf, sizeof buf) == 0, "no file: %s",
       err.text);
}

/* ---- disks ---- */

static void test_limit(int fd)
{
    struct rlimit old, low;
    struct unpacked u = {-1, 0, 0};
    struct err err = ERR_INIT;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    low = old;
    low.rlim_cur = 1 << 20;
    setrlimit(RLIMIT_FSIZE, &low);
    int rc = unpack(fd, NULL, &u, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    ok(rc == ERR_OS && err.os_errno == EFBIG && strstr(err.remedy, "TMPDIR"),
       "file sizes are limited: %s; %s", err.text, err.remedy);
}

static void test_full_disk(int fd)
{
    static const int reasons[] = {ENOSPC, EDQUOT, EIO};
    int before = count_fds();
    for (size_t i = 0; i < 3; i++) {
        struct unpacked u = {-1, 0, 0};
        struct err err = ERR_INIT;
        int rc = ERR_OS, wrong = 0;
        write_errno = reasons[i];
        for (int left = 0; rc != 0 && left < 1000; left++) {
            writes_left = left;
            rc = unpack(fd, NULL, &u, &err);
            wrong += rc != 0 && (rc != ERR_OS || err.os_errno != reasons[i] || u.fd != -1 ||
                                 !strstr(err.text, "/var/tmp") || !strstr(err.remedy, "TMPDIR"));
        }
        writes_left = -1;
        ok(rc == 0 && wrong == 0, "each write fails: %s; %s", err.text, err.remedy);
        close(u.fd);
    }
    ok(count_fds() == before, "no descriptor is left");
}

static void test_tmpdir(int fd)
{
    static const int reasons[] = {EOPNOTSUPP, EISDIR, EACCES};
    struct err err = ERR_INIT;
    struct unpacked u = {-1, 0, 0};
    struct stat st = {0};
    setenv("TMPDIR", "/nonexistent/folder", 1);
    ok(unpack(fd, NULL, &u, &err) == ERR_OS && strstr(err.text, "/nonexistent/folder") &&
           strstr(err.remedy, "TMPDIR"),
       "TMPDIR is used: %s; %s", err.text, err.remedy);
    setenv("TMPDIR", "", 1);
    for (size_t i = 0; i < 3; i++) {
        no_tmpfile = reasons[i];
        named_files = 0;
        int rc = unpack(fd, NULL, &u, &err);
        if (reasons[i] == EACCES) {
            ok(rc == ERR_OS && named_files == 0, "forbidden is forbidden: %s", err.text);
            continue;
        }
        ok(rc == 0 && named_files == 1 && holds(&u, sample, SAMPLE_BYTES) &&
               fstat(u.fd, &st) == 0 && st.st_nlink == 0 && (st.st_mode & 07777) == 0600,
           "without O_TMPFILE a name for a moment");
        close(u.fd);
    }
    no_tmpfile = 0;
    unsetenv("TMPDIR");
}

/* ---- interruptions and reads that fail ---- */

static volatile sig_atomic_t interrupted;
static int reads_left, read_errno;

static ssize_t counted_pread(int fd, void *buf, size_t len, off_t at)
{
    if (reads_left-- == 0) {
        if (!read_errno)
            interrupted = 1;
        errno = read_errno ? read_errno : EINTR;
        return -1;
    }
    return sys_calls_real.pread(fd, buf, len > 10000 ? 10000 : len, at);
}

static void test_reads_fail(int fd, int why, int expected)
{
    int rc = expected, wrong = 0, runs = 0, before = count_fds();
    struct unpacked u = {-1, 0, 0};
    struct err err = ERR_INIT;
    read_errno = why;
    sys_calls.pread = counted_pread;
    for (; rc != 0 && runs < 1000; runs++) {
        interrupted = 0;
        /* The first read is that of the magic, which does not wait for anybody. */
        reads_left = runs + 1;
        rc = unpack(fd, &interrupted, &u, &err);
        wrong += rc != 0 && (rc != expected || u.fd != -1 || (why && err.os_errno != why));
    }
    sys_calls.pread = sys_calls_real.pread;
    ok(rc == 0 && wrong == 0 && runs > 10, "at any of %d reads: %s", runs, err.text);
    close(u.fd);
    ok(count_fds() == before, "no descriptor is left");
}

int main(void)
{
    unsetenv("TMPDIR");
    make_sample();
    for (size_t i = 0; i < CODECS; i++) {
        test_whole(i);
        test_cut(i);
        test_damaged(i);
        test_more_behind(i);
        test_nested(i);
    }
    test_holes();
    test_not_packed();
    int fd = pack("zstd", sample, SAMPLE_BYTES);
    test_limit(fd);
    test_full_disk(fd);
    test_tmpdir(fd);
    test_reads_fail(fd, EIO, ERR_OS);
    test_reads_fail(fd, 0, ERR_INTERRUPTED);
    close(fd);
    return done_testing();
}
