/* /proc as text: mappings, smaps, status, cgroups; and the diagnosis of what cannot be read. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "inspector/target/budget.h"
#include "inspector/target/maps.h"
#include "inspector/target/proc.h"
#include "inspector/target/procfile.h"
#include "inspector/target/sys.h"
#include "tests/lib/tap.h"

enum { NOBODY = 65534 };

/* ---- text ---- */

static const struct {
    const char *perms, *inode, *path, *name;
    enum vma_kind kind;
} kinds[] = {
    {"rw-p", "0", "", "", VMA_ANON},
    {"rw-s", "0", "", "", VMA_SHARED},
    {"rw-p", "0", "[heap]", "[heap]", VMA_HEAP},
    {"rw-p", "0", "[stack]", "[stack]", VMA_STACK},
    {"rw-p", "0", "[stack:123]", "[stack:123]", VMA_ANON},
    {"r-xp", "0", "[vdso]", "[vdso]", VMA_KERNEL},
    {"r--p", "0", "[vvar]", "[vvar]", VMA_KERNEL},
    {"r--p", "0", "[vvar_vclock]", "[vvar_vclock]", VMA_KERNEL},
    {"--xp", "0", "[vsyscall]", "[vsyscall]", VMA_KERNEL},
    {"--xp", "0", "[uprobes]", "[uprobes]", VMA_KERNEL},
    {"rw-p", "0", "[anon:glibc: malloc]", "[anon:glibc: malloc]", VMA_ANON},
    {"rw-s", "9", "[anon_shmem:x]", "[anon_shmem:x]", VMA_SHARED},
    {"r-xp", "7", "/usr/bin/python3.11", "/usr/bin/python3.11", VMA_FILE},
    {"r-xp", "7", "/tmp/a b (deleted)", "/tmp/a b (deleted)", VMA_FILE},
    {"r-xp", "7", "/tmp/a\\012b\\134c", "/tmp/a\nb\\c", VMA_FILE},
    {"rw-s", "7", "/memfd:buf (deleted)", "/memfd:buf (deleted)", VMA_SHARED},
    {"rw-p", "7", "/memfd:buf (deleted)", "/memfd:buf (deleted)", VMA_FILE},
    {"rw-s", "7", "/dev/shm/x", "/dev/shm/x", VMA_SHARED},
    {"rw-s", "7", "/SYSV00000000 (deleted)", "/SYSV00000000 (deleted)", VMA_SHARED},
    {"rw-s", "7", "/dev/zero (deleted)", "/dev/zero (deleted)", VMA_SHARED},
    {"rw-p", "7", "/dev/zero", "/dev/zero", VMA_ANON},
    {"rw-p", "7", "/anon_hugepage (deleted)", "/anon_hugepage (deleted)", VMA_ANON},
    {"rw-s", "7", "/anon_hugepage (deleted)", "/anon_hugepage (deleted)", VMA_SHARED},
    {"rw-s", "7", "anon_inode:[io_uring]", "anon_inode:[io_uring]", VMA_KERNEL},
};

static int parse(struct maps *maps, const char *text, struct err *err)
{
    return maps_parse(maps, text, strlen(text), err);
}

static void test_kinds(void)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char line[256];
        struct maps maps;
        maps_init(&maps);
        snprintf(line, sizeof line, "7f0000000000-7f0000002000 %s 00003000 fd:01 %s      %s\n",
                 kinds[i].perms, kinds[i].inode, kinds[i].path);
        bool good = parse(&maps, line, NULL) == 0 && maps.n == 1;
        ok(good && maps.items[0].kind == kinds[i].kind &&
               strcmp(maps.items[0].name, kinds[i].name) == 0,
           "%s %s is %s", kinds[i].perms, kinds[i].path, vma_kind_name(kinds[i].kind));
        maps_release(&maps);
    }
}

static void test_fields(void)
{
    struct maps maps;
    struct err err = ERR_INIT;
    maps_init(&maps);
    ok(parse(&maps,
             "1000-3000 r-xs 00005000 103:0a 42 /x\n"
             "2000-4000 rw-p 00000000 00:00 0 \n"
             "2000-3000 rw-p 00000000 00:00 0 \n"
             "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]",
             &err) == 0 &&
           maps.n == 3,
       "three of four mappings remain (%s)", err.text);
    const struct vma *v = maps.items;
    ok(v->start == 0x1000 && v->end == 0x3000 && v->offset == 0x5000 && v->inode == 42 && v->r &&
           !v->w && v->x && v->shared && v->dev == (0x103 << 8 | 0x0a),
       "all fields");
    ok(v[1].start == 0x3000 && v[1].end == 0x4000 && maps.clipped == 2, "overlaps are clipped");
    struct vma_list list = maps_list(&maps);
    ok(vma_at(&list, 0xffffffffff600123) == &v[2] && !vma_at(&list, 0x4000), "found by address");
    maps_release(&maps);
}

static void test_bad_lines(void)
{
    static const char *const bad[] = {
        "\n",
        "hello\n",
        "1000-3000",
        "3000-1000 r-xp 0 0:0 0 \n",
        "1000-1000 r-xp 0 0:0 0 \n",
        "1001-2000 r-xp 0 0:0 0 \n",
        "1000-2000 rwzp 0 0:0 0 \n",
        "1000-2000 r--- 0 0:0 0 \n",
        "1000-10000000000002000 r--p 0 0:0 0 \n",
        "1000-2000 r--p 0 0:0 99999999999999999999999 \n",
        "1000-2000 r--p 0 0 0 \n",
        "-2000 r--p 0 0:0 0 \n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct maps maps;
        struct err err = ERR_INIT;
        maps_init(&maps);
        ok(parse(&maps, bad[i], &err) == ERR_FORMAT, "bad line %zu: %s", i, err.text);
        maps_release(&maps);
    }
}

static void test_smaps_text(void)
{
    static const char text[] = "1000-3000 rw-p 00000000 00:00 0\n"
                               "Size:                  8 kB\n"
                               "Rss:                   4 kB\n"
                               "AnonHugePages:      2048 kB\n"
                               "Swap:                 12 kB\n"
                               "SwapPss:              99 kB\n"
                               "VmFlags: rd wr mr um uw dc wf \n"
                               "5000-6000 rw-p 00000000 00:00 0\n"
                               "Rss:                  40 kB\n"
                               "VmFlags: rd ht pf io mm\n"
                               "7000-8000 rw-p 00000000 00:00 0   [heap]\n"
                               "Rss:                 100 kB\n"
                               "Rss: 99999999999999999999 kB\n"
                               "VmFlags:";
    struct maps maps;
    maps_init(&maps);
    ok(parse(&maps, "1000-3000 rw-p 0 0:0 0\n5000-6000 rw-p 0 0:0 0\n", NULL) == 0 &&
           maps_parse_smaps(&maps, text, sizeof text - 1, NULL) == 0 && maps.has_smaps,
       "smaps is read");
    ok(maps.items[0].rss == 4096 && maps.items[0].swap == 12288 && maps.items[1].rss == 40960,
       "rss and swap by mapping");
    ok(maps.rss_total == 144 * 1024 && maps.swap_total == 12288 && maps.anon_huge_total == 2 << 20,
       "totals include mappings that are new");
    ok(maps.flags[0] == (MAPS_UFFD_MISSING | MAPS_UFFD_WP | MAPS_DONTFORK | MAPS_WIPEONFORK) &&
           maps.flags[1] == (MAPS_HUGETLB | MAPS_PFNMAP | MAPS_IO | MAPS_MIXED),
       "flags");
    ok(maps_parse_smaps(&maps, "Rss: 1 kB\n", 10, NULL) == ERR_FORMAT, "no mapping first: refused");
    maps_release(&maps);
}

static void wait_forever(void)
{
    for (;;)
        pause();
}

static void end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* A forked child stands still, and its addresses are ours. */
static void test_child_maps(void)
{
    struct maps maps;
    struct err err = ERR_INIT;
    struct stat st;
    char path[64], *rollup = NULL;
    size_t len;
    int here = 0;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        wait_forever();
    }
    sys_nap(50 * 1000 * 1000);
    maps_init(&maps);
    ok(maps_read(&maps, pid, &err) == 0 && maps_read_smaps(&maps, pid, &err) == 0,
       "maps and smaps of a child (%s)", err.text);
    struct vma_list list = maps_list(&maps);
    const struct vma *v = vma_at(&list, (uintptr_t)&here);
    ok(v && v->rss > 0, "its stack is there");
    v = vma_at(&list, (uintptr_t)&test_child_maps);
    ok(v && v->kind == VMA_FILE && stat(v->name, &st) == 0 && st.st_ino == v->inode,
       "its program is there");
    uint64_t sum = 0;
    for (size_t i = 0; i < maps.n; i++)
        sum += maps.items[i].rss;
    ok(sum == maps.rss_total && sum > 0, "rss adds up");
    snprintf(path, sizeof path, "/proc/%d/smaps_rollup", pid);
    ok(procfile_read(path, &rollup, &len, NULL) == 0 &&
           procfile_number(rollup, "Rss", 10) * 1024 == sum,
       "to what smaps_rollup says");
    free(rollup);
    maps_release(&maps);
    end(pid);
}

static void test_stat_text(void)
{
    struct proc_status st = {.state = '?'};
    struct err err = ERR_INIT;
    ok(proc_stat_parse("7 (a) b (c\n)) S 1 7 7 0 -1 2097216 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0 0 0 "
                       "0 0 0 0 0 0 0 0 0 0 0 0 17 0 0 1 ",
                       &st, NULL) == 0 &&
           strcmp(st.name, "a) b (c\n)") == 0 && st.start_time == 4711 && st.kernel_thread,
       "a stat line with a nasty name");
    ok(proc_stat_parse("7 (a", &st, &err) == ERR_FORMAT && proc_stat_parse("", &st, &err) < 0 &&
           proc_stat_parse(")(", &st, &err) < 0 && proc_stat_parse("1 (a) R", &st, &err) < 0,
       "broken ones are refused");
    proc_status_parse("Name:\tx\nState:\tT (stopped)\nTgid:\t5\nPid:\t5\nPPid:\t1\nTracerPid:\t9\n"
                      "Uid:\t1\t2\t3\t4\nNSpid:\t5\t3\t1\nVmRSS:\t   12 kB\nThreads:\t3\n"
                      "CapEff:\t000000ff\nSeccomp:\t2\n",
                      &st);
    ok(st.state == 'T' && st.tgid == 5 && st.tracer == 9 && st.uid == 1 && st.euid == 2 &&
           st.ns_pid == 1 && st.ns_depth == 3 && st.vm_rss == 12288 && st.threads == 3 &&
           st.cap_eff == 0xff && st.seccomp == 2,
       "a status text");
}

static void test_cgroup_text(void)
{
    struct budget_cgroup cg;
    struct budget b;
    budget_find_cgroup("0::/user.slice/x\n", "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
                       &cg);
    ok(cg.version == 2 && strcmp(cg.dir, "/sys/fs/cgroup/user.slice/x") == 0, "v2: %s", cg.dir);
    budget_find_cgroup("4:memory:/docker/ab\n0::/\n",
                       "30 1 0:26 / /u rw - cgroup2 cgroup2 rw\n"
                       "31 1 0:27 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
                       &cg);
    ok(cg.version == 1 && strcmp(cg.dir, "/sys/fs/cgroup/memory") == 0, "v1 in a container: %s",
       cg.dir);
    budget_find_cgroup("4:cpu,memory:/a\n",
                       "1 1 0:27 / /m rw shared:1 - cgroup cgroup rw,cpu,memory", &cg);
    ok(cg.version == 1 && strcmp(cg.dir, "/m/a") == 0, "v1 with two controllers: %s", cg.dir);
    budget_find_cgroup("0::/../../x\n", "30 1 0:26 / /c rw - cgroup2 cgroup2 rw\n", &cg);
    ok(cg.version == 2 && strcmp(cg.dir, "/c") == 0, "outside of our namespace: the top");
    budget_find_cgroup("", "", &cg);
    ok(cg.version == 0, "no cgroups at all");
    budget_read(&b);
    ok(b.available > 1 << 20 && b.available != UINT64_MAX && budget_room(&b) <= b.available,
       "%lu MiB available here, room for %lu", (unsigned long)(b.available >> 20),
       (unsigned long)(budget_room(&b) >> 20));
}

/* ---- diagnosis ---- */

static void expect(int pid, int code, const char *words, const char *what)
{
    struct err err = ERR_INIT;
    int rc = proc_diagnose(pid, &err);
    ok(rc == code && strstr(err.text, words) && (code == 0 || err.remedy[0]), "%s: %s; %s", what,
       err.text, err.remedy);
}

static void drop_root(void)
{
    if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
        _exit(9);
}

static pid_t child_as_nobody(bool dumpable)
{
    int ready[2];
    char c;
    if (pipe(ready) < 0)
        return -1;
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        drop_root();
        prctl(PR_SET_DUMPABLE, dumpable);
        if (write(ready[1], "x", 1) == 1)
            wait_forever();
        _exit(1);
    }
    close(ready[1]);
    bool up = read(ready[0], &c, 1) == 1;
    close(ready[0]);
    return up ? pid : -1;
}

/* Diagnose `pid` as nobody; the answer comes back through a shared page. */
static void expect_as_nobody(int pid, const char *words, const char *what)
{
    struct answer {
        int rc;
        struct err err;
    } *a = mmap(NULL, sizeof *a, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t asker = fork();
    if (asker == 0) {
        drop_root();
        prctl(PR_SET_DUMPABLE, 1);
        a->rc = proc_diagnose(pid, &a->err);
        _exit(0);
    }
    waitpid(asker, NULL, 0);
    ok(a->rc == ERR_PERMISSION && strstr(a->err.text, words) && a->err.remedy[0], "%s: %s; %s",
       what, a->err.text, a->err.remedy);
    munmap(a, sizeof *a);
}

static void test_permission(void)
{
    if (getuid() != 0) {
        skip("needs root to become somebody else");
        return;
    }
    expect_as_nobody(getpid(), "belongs to root", "another user's process");
    pid_t pid = child_as_nobody(true);
    expect(pid, 0, "", "as root, any process");
    end(pid);
    pid = child_as_nobody(false);
    expect_as_nobody(pid, "not dumpable", "a process that is not dumpable");
    expect(pid, 0, "", "as root, that too");
    end(pid);
}

/* The smallest 32-bit program there is: a header, one segment, and a loop around pause(2). */
static bool write_elf32(const char *path)
{
    static const uint8_t image[] = {0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0,
                                    3, 0, 1, 0, 0, 0, 0x54, 0x80, 0x04, 0x08, 0x34, 0, 0, 0, 0, 0,
                                    0, 0, 0, 0, 0, 0, 0x34, 0, 0x20, 0, 1, 0, 0, 0, 0, 0, 0, 0,
                                    /* program header: load 0x100 bytes at 0x08048000 */
                                    1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x04, 0x08, 0, 0x80, 0x04,
                                    0x08, 0x60, 0, 0, 0, 0x60, 0, 0, 0, 5, 0, 0, 0, 0, 0x10, 0, 0,
                                    /* mov $29,%eax; int $0x80; jmp back */
                                    0xb8, 29, 0, 0, 0, 0xcd, 0x80, 0xeb, 0xf7, 0, 0, 0};
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    if (fd < 0)
        return false;
    bool good = write(fd, image, sizeof image) == (ssize_t)sizeof image;
    return close(fd) == 0 && good;
}

static void test_32_bit(void)
{
    char dir[] = "/tmp/heapcensus-test-XXXXXX", path[64];
    char *argv[] = {path, NULL}, *envp[] = {NULL};
    struct proc_status *st = malloc(sizeof *st);
    if (!st || !mkdtemp(dir))
        return;
    snprintf(path, sizeof path, "%s/elf32", dir);
    bool written = write_elf32(path);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execve(path, argv, envp);
        _exit(9);
    }
    int status = 0;
    bool runs = false;
    for (int i = 0; i < 200 && !runs && waitpid(pid, &status, WNOHANG) == 0; i++) {
        sys_nap(5 * 1000 * 1000);
        runs = proc_status_read(pid, st, NULL) == 0 && strcmp(st->name, "elf32") == 0;
    }
    if (written && runs)
        expect(pid, ERR_UNSUPPORTED, "32-bit", "a 32-bit program");
    else
        skip("this kernel does not run 32-bit programs");
    if (runs || status == 0)
        end(pid);
    unlink(path);
    rmdir(dir);
    free(st);
}

static void test_diagnosis(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    siginfo_t info;
    waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    expect(pid, ERR_NOT_FOUND, "not yet reaped by process", "a zombie");
    waitpid(pid, NULL, 0);
    expect(pid, ERR_NOT_FOUND, "there is no process", "a process that is gone");
    expect(0, ERR_NOT_FOUND, "there is no process", "number 0");
    expect(-1, ERR_NOT_FOUND, "there is no process", "a negative number");
    char name[PROC_COMM];
    proc_comm(2, name, sizeof name);
    if (strcmp(name, "kthreadd") == 0)
        expect(2, ERR_UNSUPPORTED, "kernel thread", "a kernel thread");
    else
        skip("no kernel threads are visible here");
    expect(getpid(), 0, "", "ourselves");
    test_permission();
    test_32_bit();
    struct err err = ERR_INIT;
    ok(proc_denied(getpid(), EPERM, &err) == ERR_PERMISSION && err.os_errno == EPERM && err.text[0],
       "a refusal without a known rule: %s", err.text);
}

int main(void)
{
    test_kinds();
    test_fields();
    test_bad_lines();
    test_smaps_text();
    test_child_maps();
    test_stat_text();
    test_cgroup_text();
    test_diagnosis();
    return done_testing();
}
