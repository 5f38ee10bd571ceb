/* sizes.h - private to csrc: sizes that cannot overflow, indices, inlining. */
#ifndef FVLRP_SIZES_H
#define FVLRP_SIZES_H

#include <stddef.h>
#include <stdint.h>

#define INLINE static inline __attribute__((always_inline, unused))
#define NOINLINE static __attribute__((noinline)) /* a hot loop that should have the registers to itself */

INLINE ptrdiff_t imin(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
INLINE ptrdiff_t imax(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
INLINE ptrdiff_t clamp(ptrdiff_t i, ptrdiff_t length) { return imin(imax(i, 0), length - 1); }

/* n rounded up to a multiple of `step`. */
INLINE ptrdiff_t round_up(ptrdiff_t n, ptrdiff_t step) { return (n + step - 1) / step * step; }

/* a * b, or 0 where it overflows or a factor is negative; 1 for an empty product, so that 0 always means failure. */
INLINE size_t checked(ptrdiff_t a, ptrdiff_t b) {
    size_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow((size_t)a, (size_t)b, &product) || product > PTRDIFF_MAX) return 0;
    return product ? product : 1;
}

#endif
