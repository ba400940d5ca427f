/* Files by name: all or nothing, mode 0600, no overwriting, no litter. */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/json.h"
#include "formats/sink.h"
#include "tests/lib/tap.h"
#include "tests/unit/test_json_sample.h"

static char dir[64];
static char path[128];
static struct snapshot snap;
static struct err err;

static const char *in_dir(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static unsigned files(void)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d && (e = readdir(d)))
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
    if (d)
        closedir(d);
    return n;
}

static void write_text(const char *name, const char *text)
{
    FILE *f = fopen(in_dir(name), "w");
    ok(f && fputs(text, f) >= 0, "%s is there", name);
    if (f)
        fclose(f);
}

static bool holds(const char *name, const char *text)
{
    char buf[64] = "";
    FILE *f = fopen(in_dir(name), "r");
    if (!f)
        return false;
    buf[fread(buf, 1, sizeof buf - 1, f)] = '\0';
    fclose(f);
    return strcmp(buf, text) == 0;
}

static bool loads(const char *file)
{
    struct snapshot s;
    int rc = json_load(file, 0, &s, &err);
    if (rc < 0) {
        diag("%s", err.text);
        return false;
    }
    bool same = s.n_mappings == snap.n_mappings;
    snapshot_release(&s);
    return same;
}

static void test_plain_and_gzip(void)
{
    struct stat st;
    unsigned char magic[2] = {0, 0};
    umask(0);
    ok(json_save(&snap, in_dir("a.jsonl"), false, &err) == 0 && loads(path), "plain file");
    ok(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600, "its mode is 0600");
    ok(json_save(&snap, in_dir("a.jsonl.gz"), false, &err) == 0 && loads(path), "gzip file");
    FILE *f = fopen(path, "r");
    ok(f && fread(magic, 1, 2, f) == 2 && magic[0] == 0x1f && magic[1] == 0x8b, "it is gzip");
    if (f)
        fclose(f);
    ok(files() == 2, "two files, no litter");
    ok(json_load(in_dir("none"), 0, NULL, &err) == ERR_OS && err.os_errno == ENOENT, "no file");
    ok(json_load(dir, 0, NULL, &err) == ERR_OS && err.os_errno == EISDIR, "a directory");
}

static void test_overwrite(void)
{
    write_text("old", "old");
    int rc = json_save(&snap, in_dir("old"), false, &err);
    ok(rc == ERR_USAGE && strstr(err.remedy, "-f") && holds("old", "old"), "no overwriting");
    ok(json_save(&snap, in_dir("old"), true, &err) == 0 && loads(path), "with force, it does");
    ok(json_save(&snap, dir, true, &err) == ERR_USAGE, "a directory is refused");
    ok(json_save(&snap, in_dir("none/x"), false, &err) == ERR_OS, "no such directory");
    ok(json_save(&snap, "", false, &err) < 0, "an empty name");
    ok(files() == 3, "no litter");
}

/* Somebody creates the file while we write. */
static void test_race(void)
{
    struct outfile f;
    ok(outfile_open(&f, in_dir("race"), false, &err) == 0, "open");
    ok(sink_puts(f.sink, "ours", &err) == 0, "write");
    write_text("race", "theirs");
    ok(outfile_commit(&f, &err) == ERR_USAGE && holds("race", "theirs"), "theirs stays");
    ok(unlink(in_dir("race")) == 0 && files() == 3, "no litter");
    ok(outfile_open(&f, in_dir("gone"), false, &err) == 0, "open");
    ok(sink_puts(f.sink, "ours", &err) == 0, "write");
    outfile_abort(&f);
    outfile_abort(&f);
    ok(files() == 3, "an aborted file leaves nothing");
}

static void test_links_and_devices(void)
{
    struct stat st;
    write_text("target", "old");
    char target[128];
    snprintf(target, sizeof target, "%s", path);
    ok(symlink(target, in_dir("link")) == 0, "link");
    ok(json_save(&snap, path, false, &err) == ERR_USAGE, "a link to a file counts as the file");
    ok(json_save(&snap, path, true, &err) == 0 && loads(target), "it is followed");
    ok(lstat(path, &st) == 0 && S_ISLNK(st.st_mode), "and stays a link");
    ok(unlink(target) == 0 && json_save(&snap, path, false, &err) == ERR_USAGE,
       "a dangling link is not replaced");
    ok(unlink(path) == 0, "unlink");
    ok(json_save(&snap, "/dev/null", true, &err) == 0, "a device is written to");
    ok(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode), "and stays a device");
    ok(json_save(&snap, "/dev/full", false, &err) == ERR_OS && err.os_errno == ENOSPC, "full");
    ok(files() == 3, "no litter");
}

/* A limit on file sizes stands for the full disk: each length of the file at which it may come. */
static void test_full_disk(const char *name)
{
    struct rlimit old, small;
    struct stat st;
    unsigned wrong = 0, failed = 0;
    signal(SIGXFSZ, SIG_IGN);
    ok(json_save(&snap, in_dir(name), false, &err) == 0 && stat(path, &st) == 0, "%s fits", name);
    unlink(path);
    getrlimit(RLIMIT_FSIZE, &old);
    for (off_t n = 0; n < st.st_size; n += st.st_size / 20 + 1) {
        small = old;
        small.rlim_cur = (rlim_t)n;
        setrlimit(RLIMIT_FSIZE, &small);
        int rc = json_save(&snap, path, false, &err);
        setrlimit(RLIMIT_FSIZE, &old);
        wrong += rc != ERR_OS || err.os_errno != EFBIG || files() != 3;
        failed++;
    }
    ok(wrong == 0, "%s: %u failures, nothing left behind", name, failed);
}

static void test_stdout(void)
{
    int saved = dup(1), file = open(in_dir("out"), O_RDWR | O_CREAT, 0600);
    fflush(stdout);
    dup2(file, 1);
    int rc = json_save(&snap, "-", false, &err);
    dup2(saved, 1);
    ok(rc == 0 && loads(path), "- is standard output");
    int in = dup(0);
    lseek(file, 0, SEEK_SET);
    dup2(file, 0);
    ok(loads("-"), "- is standard input");
    dup2(in, 0);
    close(in);
    close(file);
    close(saved);
    unlink(path);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.40s/hcXXXXXX", tmp ? tmp : "/tmp");
    if (!ok(mkdtemp(dir) != NULL, "a directory"))
        return done_testing();
    sample(&snap);
    test_plain_and_gzip();
    test_overwrite();
    test_race();
    test_links_and_devices();
    test_full_disk("f.jsonl");
    test_full_disk("f.jsonl.gz");
    test_stdout();
    unlink(in_dir("a.jsonl"));
    unlink(in_dir("a.jsonl.gz"));
    unlink(in_dir("old"));
    ok(rmdir(dir) == 0, "nothing is left");
    snapshot_release(&snap);
    return done_testing();
}
