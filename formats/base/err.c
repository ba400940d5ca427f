#include "formats/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void fill(struct err *err, int code, const char *fmt, va_list ap)
{
    err->code = code;
    err->os_errno = 0;
    err->addr = 0;
    err->remedy[0] = '\0';
    vsnprintf(err->text, sizeof err->text, fmt, ap);
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, code, fmt, ap);
        va_end(ap);
    }
    return code;
}

int err_os(struct err *err, int os_errno, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, ERR_OS, fmt, ap);
        va_end(ap);
        err->os_errno = os_errno;
        size_t len = strlen(err->text);
        snprintf(err->text + len, sizeof err->text - len, ": %s", strerror(os_errno));
    }
    return ERR_OS;
}

int err_fault(struct err *err, uint64_t addr, const char *fmt, ...)
{
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        fill(err, ERR_FAULT, fmt, ap);
        va_end(ap);
        err->addr = addr;
    }
    return ERR_FAULT;
}

int err_context(struct err *err, int code, const char *fmt, ...)
{
    if (!err)
        return code;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->text, sizeof err->text, fmt, ap);
    va_end(ap);
    size_t len = strlen(err->text);
    snprintf(err->text + len, sizeof err->text - len, ": %s", old);
    if (!err->code)
        err->code = code;
    return err->code;
}

void err_remedy(struct err *err, const char *fmt, ...)
{
    if (!err)
        return;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(err->remedy, sizeof err->remedy, fmt, ap);
    va_end(ap);
}

void err_clear(struct err *err)
{
    if (err)
        memset(err, 0, sizeof *err);
}
