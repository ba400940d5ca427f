/* Names of types as Python shows them, out of the target's memory. For types.c. */
#ifndef HEAPCENSUS_CPYTHON_TYPE_NAMES_H
#define HEAPCENSUS_CPYTHON_TYPE_NAMES_H

#include "walker/cpython/object_place.h"

enum { TYPE_NAME_BYTES = 512 };

/* Text of at most TYPE_NAME_BYTES bytes: UTF-8, control characters as \xNN, never cut within a
 * character. Surrogates, which UTF-8 does not have, are \uNNNN. */
struct type_text {
    char bytes[TYPE_NAME_BYTES + 1];
    size_t n;
    bool cut;      /* there was more */
    bool controls; /* it has control characters, or halves of surrogate pairs */
    bool missing;  /* the source lacks the bytes: this stands for the name */
};

/* One character as UTF-8, also a lone surrogate; 0 as "\x00", for names are C strings. Returns its
 * bytes. */
enum { TEXT_CHAR_BYTES = 4 };
size_t text_utf8(uint32_t c, char s[TEXT_CHAR_BYTES]);
/* One character of UTF-8; its length, or 0 if that is not what the bytes (at least one) are. */
size_t text_utf8_char(const uint8_t *s, size_t len, uint32_t *ret);
/* obj is a str, by its type's flags. The object's own address. */
bool text_is_str(struct objects *o, uint64_t obj);
/* Where the characters of a str are, and how many of which width. `obj` as in kind_sizeof. */
bool text_str_chars(struct objects *o, uint64_t obj, uint64_t *data, uint64_t *length,
                    unsigned *width);

/* A NUL-terminated string of C at addr; false where there is none or it is not UTF-8. */
bool type_text_cstr(struct objects *o, uint64_t addr, struct type_text *ret);
/* The text of a str object; false where there is none. `obj` as in kind_sizeof. */
bool type_text_str(struct objects *o, uint64_t obj, struct type_text *ret);

/* t->name and t->module. `type`: where the type's fields are; `dict`: its tp_dict; `plain`: its
 * tp_name. false when memory ran out. */
bool type_name_make(struct objects *o, uint64_t type, uint64_t dict, const struct type_text *plain,
                    struct type_info *t);
/* The value of a key that is an ASCII string, or 0. `dict`: its address as id() has it. */
uint64_t dict_get(struct objects *o, uint64_t dict, const char *name);
/* What stands for the name of a type whose constants are missing. */
void type_text_missing(uint64_t addr, struct type_text *ret);
/* The type says the same name twice, in tp_name and in ht_name: then it may be any text. */
bool type_name_confirmed(struct objects *o, uint64_t type, const struct type_text *plain);
#endif
