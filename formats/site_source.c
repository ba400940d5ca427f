#define _GNU_SOURCE 1
#include "formats/site_source.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/base/vec.h"

/* A source file is no larger; of all together we keep no more. */
enum { FILE_MAX = 16 << 20, KEPT_MAX = 128 << 20, PATH_BYTES = 8192 };

void site_source_init(struct site_source *s)
{
    memset(s, 0, sizeof *s);
    site_keys_init(&s->names);
    s->n_roots = 1;
}

void site_source_release(struct site_source *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->files[i].text);
        free(s->files[i].lines);
    }
    free(s->files);
    site_keys_release(&s->names);
    memset(s, 0, sizeof *s);
}

void site_source_add_root(struct site_source *s, const char *root)
{
    if (s->n_roots == SITE_SOURCE_ROOTS || strlen(root) >= SITE_SOURCE_ROOT_MAX)
        return;
    memmove(s->roots[1], s->roots[0], s->n_roots * sizeof s->roots[0]);
    memcpy(s->roots[0], root, strlen(root) + 1);
    s->n_roots++;
}

/* ---- reading a file ---- */

/* O_NONBLOCK: a name may be that of a pipe, and nobody writes to it. */
static int open_regular(const char *path, size_t *size)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= FILE_MAX) {
        *size = (size_t)st.st_size;
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

static int open_below(const char *root, const char *name, size_t *size)
{
    char path[PATH_BYTES];
    const char *slash = root[0] && name[0] != '/' ? "/" : "";
    int len = snprintf(path, sizeof path, "%s%s%s", root, slash, name);
    return len > 0 && (size_t)len < sizeof path ? open_regular(path, size) : -1;
}

static int open_source(const struct site_source *s, const char *name, size_t *size)
{
    int fd = -1;
    if (name[0] != '/')
        return open_below(s->cwd, name, size);
    for (size_t i = 0; i < s->n_roots && fd < 0; i++)
        fd = open_below(s->roots[i], name, size);
    return fd;
}

/* The whole file, with a NUL behind it; NULL when it cannot be read. */
static char *slurp(int fd, size_t size, size_t *len)
{
    char *text = malloc(size + 1);
    size_t at = 0;
    while (text && at < size) {
        ssize_t got = read(fd, text + at, size - at);
        if (got <= 0)
            break;
        at += (size_t)got;
    }
    if (text)
        text[at] = '\0';
    *len = at;
    return text;
}

/* ---- encodings ---- */

enum encoding { ENCODING_UTF8, ENCODING_LATIN1, ENCODING_ASCII, ENCODING_OTHER };

static enum encoding encoding_of(const char *name, size_t len)
{
    static const struct {
        const char *name;
        enum encoding encoding;
    } known[] = {
        {"utf-8", ENCODING_UTF8},        {"utf8", ENCODING_UTF8},
        {"utf_8", ENCODING_UTF8},        {"utf-8-sig", ENCODING_UTF8},
        {"latin-1", ENCODING_LATIN1},    {"latin1", ENCODING_LATIN1},
        {"iso-8859-1", ENCODING_LATIN1}, {"iso8859-1", ENCODING_LATIN1},
        {"ascii", ENCODING_ASCII},       {"us-ascii", ENCODING_ASCII},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strlen(known[i].name) == len && strncasecmp(known[i].name, name, len) == 0)
            return known[i].encoding;
    return ENCODING_OTHER;
}

static const char *const name_chars =
    "-_.abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/* A line `# ... coding: NAME`, which PEP 263 allows as one of the first two. */
static bool cookie(const char *line, size_t len, enum encoding *ret)
{
    size_t at = 0;
    while (at < len && strchr(" \t\f", line[at]))
        at++;
    if (at == len || line[at] != '#')
        return false;
    for (const char *p; (p = memmem(line + at, len - at, "coding", 6)) != NULL;) {
        at = (size_t)(p - line) + 6;
        if (at == len || (line[at] != ':' && line[at] != '='))
            continue;
        do
            at++;
        while (at < len && (line[at] == ' ' || line[at] == '\t'));
        size_t n = strspn(line + at, name_chars);
        n = n > len - at ? len - at : n;
        if (n) {
            *ret = encoding_of(line + at, n);
            return true;
        }
    }
    return false;
}

static bool is_blank(const char *line, size_t len)
{
    size_t at = 0;
    while (at < len && strchr(" \t\f\r", line[at]) && line[at])
        at++;
    return at == len || line[at] == '#';
}

/* A second line counts only behind one without code. */
static enum encoding find_encoding(const char *text)
{
    enum encoding found = ENCODING_UTF8;
    const char *line = text;
    for (int i = 0; i < 2; i++) {
        size_t len = strcspn(line, "\n");
        if (cookie(line, len, &found) || !is_blank(line, len) || !line[len])
            break;
        line += len + 1;
    }
    return found;
}

static bool is_ascii(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] >= 0x80)
            return false;
    return true;
}

/* As Python's strict decoder: no surrogates, no long forms. */
static bool is_utf8(const char *s, size_t len)
{
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0, n; i < len; i += n) {
        unsigned char c = p[i], low = 0x80, high = 0xc0;
        n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
        if (!n || n > len - i)
            return false;
        low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : low;
        high = c == 0xed ? 0xa0 : c == 0xf4 ? 0x90 : high;
        if (n > 1 && (p[i + 1] < low || p[i + 1] >= high))
            return false;
        for (size_t k = 2; k < n; k++)
            if ((p[i + k] & 0xc0) != 0x80)
                return false;
    }
    return true;
}

static char *from_latin1(const char *s, size_t len, size_t *ret)
{
    char *out = malloc(2 * len + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < len; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x80)
            out[n++] = (char)(0xc0 | c >> 6);
        out[n++] = (char)(c < 0x80 ? c : 0x80 | (c & 0x3f));
    }
    if (out)
        out[n] = '\0';
    *ret = n;
    return out;
}

/* The text as UTF-8 (frees it, if another comes back); NULL where it cannot be had. */
static char *decode_steal(char *text, size_t *len)
{
    enum encoding encoding = find_encoding(text);
    if (encoding == ENCODING_LATIN1) {
        char *out = from_latin1(text, *len, len);
        free(text);
        return out;
    }
    if ((encoding == ENCODING_UTF8 && is_utf8(text, *len)) ||
        (encoding == ENCODING_ASCII && is_ascii(text, *len)))
        return text;
    free(text);
    return NULL;
}

/* ---- lines ---- */

/* Where each line begins; "\r", "\n" and "\r\n" end one. */
static int find_lines(struct site_source_file *f)
{
    size_t cap = 0, at = 0;
    if (f->len >= 3 && memcmp(f->text, "\xef\xbb\xbf", 3) == 0)
        at = 3;
    while (at < f->len) {
        if (vec_reserve(&f->lines, &cap, f->n_lines + 1, sizeof *f->lines) < 0)
            return ERR_NOMEM;
        f->lines[f->n_lines++] = at;
        while (at < f->len && f->text[at] != '\n' && f->text[at] != '\r')
            at++;
        at += at + 1 < f->len && f->text[at] == '\r' && f->text[at + 1] == '\n' ? 2 : 1;
    }
    return 0;
}

static void drop(struct site_source_file *f)
{
    free(f->text);
    free(f->lines);
    *f = (struct site_source_file){0};
}

/* Made-up names such as <string> are no files, even if there is one. */
static bool is_made_up(const char *name)
{
    size_t len = strlen(name);
    return len == 0 || (name[0] == '<' && name[len - 1] == '>');
}

static void load(struct site_source *s, struct site_source_file *f, const char *name)
{
    size_t size = 0;
    int fd = is_made_up(name) ? -1 : open_source(s, name, &size);
    if (fd < 0)
        return;
    if (s->bytes + size <= KEPT_MAX)
        f->text = slurp(fd, size, &f->len);
    close(fd);
    if (f->text)
        f->text = decode_steal(f->text, &f->len);
    if (f->text && find_lines(f) < 0)
        drop(f);
    s->bytes += f->text ? f->len : 0;
}

/* NULL when memory ran out: then there is no line, as where there is no file. */
static struct site_source_file *find(struct site_source *s, const char *name)
{
    uint32_t id = 0;
    if (vec_reserve(&s->files, &s->cap, s->n + 1, sizeof *s->files) < 0 ||
        site_keys_file(&s->names, name, &id, NULL) < 0)
        return NULL;
    if (id == s->n) {
        s->files[s->n] = (struct site_source_file){0};
        load(s, &s->files[s->n++], name);
    }
    return &s->files[id];
}

/* The length of the white space at p, as str.strip() knows it; 0 when there is none. `back`: that
 * which ends at p. */
static size_t space_at(const char *p, size_t left, bool back)
{
    static const char *const wide[] = {"\xc2\x85",     "\xc2\xa0",     "\xe1\x9a\x80",
                                       "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf",
                                       "\xe2\x81\x9f", "\xe3\x80\x80"};
    unsigned char c = left ? (unsigned char)(back ? p[-1] : p[0]) : 0;
    if (c == ' ' || (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x1f))
        return 1;
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        size_t n = strlen(wide[i]);
        if (left >= n && memcmp(back ? p - n : p, wide[i], n) == 0)
            return n;
    }
    const char *q = back ? p - 3 : p; /* U+2000 to U+200A */
    bool many = left >= 3 && memcmp(q, "\xe2\x80", 2) == 0;
    return many && (unsigned char)q[2] >= 0x80 && (unsigned char)q[2] <= 0x8a ? 3 : 0;
}

const char *site_source_line(struct site_source *s, const char *file, uint32_t line, size_t *len)
{
    const struct site_source_file *f = find(s, file);
    *len = 0;
    if (!f || line == 0 || line > f->n_lines)
        return "";
    const char *from = f->text + f->lines[line - 1];
    const char *to = f->text + (line < f->n_lines ? f->lines[line] : f->len);
    for (size_t n; (n = space_at(from, (size_t)(to - from), false)) != 0;)
        from += n;
    for (size_t n; (n = space_at(to, (size_t)(to - from), true)) != 0;)
        to -= n;
    *len = (size_t)(to - from);
    return from;
}
