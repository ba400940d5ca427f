/* Errors as values. A function that can fail returns 0 or a negative enum err_code and fills the
 * caller's struct err, which may be NULL. No allocation: the texts are cut to the buffer's size. */
#ifndef HEAPCENSUS_ERR_H
#define HEAPCENSUS_ERR_H

#include <stdint.h>

enum err_code {
    ERR_NOMEM = -1,
    ERR_OS = -2,          /* a system call failed: os_errno says how */
    ERR_FAULT = -3,       /* target memory is not there: addr says where */
    ERR_CORRUPT = -4,     /* the target's own structures contradict each other */
    ERR_UNSUPPORTED = -5, /* understood, but not something we can read */
    ERR_NOT_FOUND = -6,
    ERR_LIMIT = -7,      /* a bound of ours was reached (time, steps, size) */
    ERR_FORMAT = -8,     /* a file is not what it claims to be */
    ERR_PERMISSION = -9, /* the kernel will not let us: the text names the rule */
    ERR_USAGE = -10,     /* what the user asked for makes no sense */
    ERR_INTERRUPTED = -11
};

struct err {
    int code; /* 0 or an enum err_code */
    int os_errno;
    uint64_t addr;
    char text[512];   /* the cause, one line, no final full stop */
    char remedy[384]; /* what the user can do, one line; may be empty */
};

#define ERR_INIT                                                                                   \
    {                                                                                              \
        0, 0, 0, "", ""                                                                            \
    }
#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(f, a) __attribute__((format(printf, f, a)))

/* Fill `err` (may be NULL) and return `code`, so that callers can write `return err_set(...)`. */
int err_set(struct err *err, enum err_code code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* As err_set with ERR_OS; appends strerror(os_errno). */
int err_os(struct err *err, int os_errno, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* As err_set with ERR_FAULT at a target address. */
int err_fault(struct err *err, uint64_t addr, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Put "context: " in front of the text on the way up. Returns err's code, or `code` if err is NULL.
 */
int err_context(struct err *err, int code, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Set the line of remedy. */
void err_remedy(struct err *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Back to "no error". */
void err_clear(struct err *err);

#endif
