/* rows.c - what all zeroed descriptors have in common, into the row of each. */
#include <string.h>

#include "fvlrp.h"

void fvlrp_put_rows(ptrdiff_t targets, size_t size, const void *values, const int64_t *rows, ptrdiff_t n, ptrdiff_t pitch,
                    void *out) {
    for (ptrdiff_t t = 0; t < targets; t++) {
        const char *from = (const char *)values + (size_t)t * size;
        char *to = (char *)out + (size_t)(t * pitch) * size;
        for (ptrdiff_t i = 0; i < n; i++) memcpy(to + (size_t)rows[i] * size, from, size);
    }
}
