#include "formats/base/vec.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int vec_reserve(void *items, size_t *cap, size_t need, size_t elem)
{
    if (need <= *cap)
        return 0;
    size_t want = *cap ? *cap : 8;
    while (want < need) {
        if (want > SIZE_MAX / 2)
            return ERR_NOMEM;
        want *= 2;
    }
    if (want > SIZE_MAX / elem)
        return ERR_NOMEM;
    void *old;
    memcpy(&old, items, sizeof old);
    void *fresh = realloc(old, want * elem);
    if (!fresh)
        return ERR_NOMEM;
    memcpy(items, &fresh, sizeof fresh);
    *cap = want;
    return 0;
}
