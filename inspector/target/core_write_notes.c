#include "inspector/target/core_write.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats/base/num.h"
#include "formats/base/vec.h"
#include "inspector/target/proc.h"
#include "inspector/target/procfile.h"

void core_notes_init(struct core_notes *notes)
{
    memset(notes, 0, sizeof *notes);
}

void core_notes_release(struct core_notes *notes)
{
    free(notes->bytes);
    core_notes_init(notes);
}

static void put_padded(struct core_notes *notes, const void *bytes, size_t len)
{
    size_t padded = round_up(len, 4);
    memset(notes->bytes + notes->n, 0, padded);
    if (len)
        memcpy(notes->bytes + notes->n, bytes, len);
    notes->n += padded;
}

int core_note_add(struct core_notes *notes, const char *owner, uint32_t type, const void *desc,
                  size_t len, struct err *err)
{
    size_t name = strlen(owner) + 1;
    Elf64_Nhdr head = {(uint32_t)name, (uint32_t)len, type};
    if (len > UINT32_MAX)
        return err_set(err, ERR_LIMIT, "%zu bytes are too many for one note of a core", len);
    if (vec_reserve(&notes->bytes, &notes->cap, notes->n + sizeof head + name + len + 8, 1) < 0)
        return err_set(err, ERR_NOMEM, "no memory for the notes of the core");
    put_padded(notes, &head, sizeof head);
    put_padded(notes, owner, name);
    put_padded(notes, desc, len);
    return 0;
}

/* ---- the process ---- */

static char state_letter(char state)
{
    return strchr("RSDTZW", state) && state ? state : state == 't' ? 'T' : 'S';
}

static void set_state(struct elf_prpsinfo *info, char state)
{
    info->pr_sname = state_letter(state);
    info->pr_state = (char)(strchr("RSDTZW", info->pr_sname) - "RSDTZW");
    info->pr_zomb = info->pr_sname == 'Z';
}

/* Fields 5, 6, 9 and 19 of stat. */
static void read_stat(struct elf_prpsinfo *info, int pid)
{
    char path[64], stat[1024];
    long nice = 0;
    unsigned flags = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    if (!procfile_small(path, stat, sizeof stat))
        return;
    const char *rest = strrchr(stat, ')');
    if (rest && sscanf(rest,
                       ") %*c %*d %d %d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
                       "%ld",
                       &info->pr_pgrp, &info->pr_sid, &flags, &nice) == 4) {
        info->pr_flag = flags;
        info->pr_nice = (char)nice;
    }
}

/* The first 79 bytes of the command line, its words parted by blanks. */
static void read_args(struct elf_prpsinfo *info, int pid)
{
    char *text;
    size_t len;
    int fd = proc_open(pid, "cmdline", O_RDONLY, NULL);
    if (fd < 0)
        return;
    int rc = procfile_read_fd(fd, "cmdline", &text, &len, NULL);
    close(fd);
    if (rc < 0)
        return;
    for (size_t i = 0; i < len && i < ELF_PRARGSZ - 1; i++)
        info->pr_psargs[i] = text[i] ? text[i] : ' ';
    free(text);
}

int core_process_read(struct core_process *ret, int pid, struct err *err)
{
    struct elf_prpsinfo *info = &ret->info;
    struct proc_status *st = malloc(sizeof *st);
    if (!st)
        return err_set(err, ERR_NOMEM, "no memory to read process %d", pid);
    int rc = proc_status_read(pid, st, err);
    memset(ret, 0, sizeof *ret);
    if (rc == 0) {
        info->pr_pid = pid;
        info->pr_ppid = st->ppid;
        info->pr_uid = st->uid;
        info->pr_gid = st->gid;
        set_state(info, st->state);
        memcpy(info->pr_fname, st->name, strnlen(st->name, sizeof info->pr_fname - 1));
        read_stat(info, pid);
        read_args(info, pid);
    }
    free(st);
    return rc;
}

/* ---- NT_FILE ---- */

static size_t count_files(const struct maps *maps, size_t *names)
{
    size_t n = 0;
    *names = 0;
    for (size_t i = 0; i < maps->n; i++) {
        if (!core_has_file(&maps->items[i]))
            continue;
        *names += strlen(maps->items[i].name) + 1;
        n++;
    }
    return n;
}

int core_note_files(struct core_notes *notes, const struct maps *maps, struct err *err)
{
    size_t names;
    size_t n = count_files(maps, &names);
    size_t len = (2 + 3 * n) * sizeof(uint64_t) + names;
    if (!n)
        return 0;
    uint64_t *desc = malloc(len);
    if (!desc)
        return err_set(err, ERR_NOMEM, "no memory for %zu mapped files", n);
    uint64_t *at = desc;
    char *name = (char *)(desc + 2 + 3 * n);
    *at++ = n;
    *at++ = CORE_PAGE_BYTES;
    for (size_t i = 0; i < maps->n; i++) {
        const struct vma *v = &maps->items[i];
        if (!core_has_file(v))
            continue;
        *at++ = v->start;
        *at++ = v->end;
        *at++ = v->offset / CORE_PAGE_BYTES;
        size_t size = strlen(v->name) + 1;
        memcpy(name, v->name, size);
        name += size;
    }
    int rc = core_note_add(notes, "CORE", NT_FILE, desc, len, err);
    free(desc);
    return rc;
}

/* ---- threads ---- */

static int add_status(struct core_notes *notes, const struct core_process *process,
                      const struct core_regs_thread *t, struct err *err)
{
    struct elf_prstatus status;
    _Static_assert(sizeof status.pr_reg == sizeof t->general, "both are NT_PRSTATUS's registers");
    memset(&status, 0, sizeof status);
    status.pr_pid = t->tid;
    status.pr_ppid = process->info.pr_ppid;
    status.pr_pgrp = process->info.pr_pgrp;
    status.pr_sid = process->info.pr_sid;
    memcpy(&status.pr_reg, &t->general, sizeof t->general);
    status.pr_fpvalid = 1;
    return core_note_add(notes, "CORE", NT_PRSTATUS, &status, sizeof status, err);
}

static int add_other_sets(struct core_notes *notes, const struct core_regs *regs,
                          const struct core_regs_thread *t, struct err *err)
{
    int rc = core_note_add(notes, "CORE", NT_FPREGSET, &t->fp, sizeof t->fp, err);
    if (rc == 0 && t->xstate_len)
        rc = core_note_add(notes, "LINUX", NT_X86_XSTATE, regs->xstate + t->xstate_at,
                           t->xstate_len, err);
    return rc;
}

int core_note_process(struct core_notes *notes, const struct core_process *process,
                      const struct core_regs *regs, const void *auxv, size_t auxv_len,
                      const struct maps *maps, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < regs->n; i++) {
        const struct core_regs_thread *t = &regs->threads[i];
        rc = add_status(notes, process, t, err);
        if (rc == 0 && i == 0)
            rc = core_note_add(notes, "CORE", NT_PRPSINFO, &process->info, sizeof process->info,
                               err);
        if (rc == 0 && i == 0)
            rc = core_note_add(notes, "CORE", NT_AUXV, auxv, auxv_len, err);
        if (rc == 0 && i == 0)
            rc = core_note_files(notes, maps, err);
        if (rc == 0)
            rc = add_other_sets(notes, regs, t, err);
    }
    return rc;
}

/* ---- text ---- */

void core_text_release(struct core_text *text)
{
    free(text->bytes);
    memset(text, 0, sizeof *text);
}

static void put(struct core_text *text, const char *s, size_t len)
{
    if (text->failed || vec_reserve(&text->bytes, &text->cap, text->n + len, 1) < 0) {
        text->failed = true;
        return;
    }
    memcpy(text->bytes + text->n, s, len);
    text->n += len;
}

void core_text_add(struct core_text *text, const char *s)
{
    put(text, s, strlen(s));
}

void core_text_add_escaped(struct core_text *text, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        char hex[4];
        if (c < ' ' || c == 0x7f || c == '%') {
            snprintf(hex, sizeof hex, "%%%02X", c);
            put(text, hex, 3);
        } else {
            put(text, s, 1);
        }
    }
}
