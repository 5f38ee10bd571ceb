/* simd.h - private to csrc: vectors of one instruction set and one real type, and operations that C has no syntax for.
 *
 * REAL is float or double, as -DREAL_BITS=32|64 says, and VREAL a vector of LANES of them. Vectors are GCC/Clang vector
 * extensions of VBYTES bytes; the same source serves every instruction set, and intrinsics appear only where compilers
 * make poor code of the plain form. Loads and stores go through unaligned types, so that no array needs more alignment
 * than its elements. */
#ifndef FVLRP_SIMD_H
#define FVLRP_SIMD_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sizes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define VBYTES 64
#elif defined(__AVX2__)
#define VBYTES 32
#else
#define VBYTES 16
#endif

#ifndef REAL_BITS
#define REAL_BITS 32
#endif

/* No vector crosses the boundary of a translation unit. */
#pragma GCC diagnostic ignored "-Wpsabi"

#define UNROLL _Pragma("GCC unroll 32")

typedef float vfloat __attribute__((vector_size(VBYTES)));
typedef double vdouble __attribute__((vector_size(VBYTES)));
typedef int32_t vint __attribute__((vector_size(VBYTES)));
typedef int64_t vlong __attribute__((vector_size(VBYTES)));
typedef float vfloat_any __attribute__((vector_size(VBYTES), aligned(4), may_alias));
typedef double vdouble_any __attribute__((vector_size(VBYTES), aligned(8), may_alias));
typedef int32_t vint_any __attribute__((vector_size(VBYTES), aligned(4), may_alias));

#if REAL_BITS == 32
typedef float REAL;
typedef vfloat VREAL;
typedef vfloat_any VREAL_ANY;
typedef vint VMASK; /* of a comparison: all bits of a lane, or none */
#define SIGN_BIT INT32_MIN
#define VANISHING (FLT_MIN / FLT_EPSILON)
#else
typedef double REAL;
typedef vdouble VREAL;
typedef vdouble_any VREAL_ANY;
typedef vlong VMASK;
#define SIGN_BIT INT64_MIN
#define VANISHING (DBL_MIN / DBL_EPSILON)
#endif
enum { FLOATS = VBYTES / 4, DOUBLES = VBYTES / 8, LANES = VBYTES / (int)sizeof(REAL) };

INLINE VREAL load(const REAL *p) { return *(const VREAL_ANY *)p; }
INLINE void store(REAL *p, VREAL v) { *(VREAL_ANY *)p = v; }
INLINE VREAL fill(REAL a) { return a - (VREAL){0}; }
/* Denominators that are 0, or so close to it that 1 / v may overflow and its terms have lost their precision. */
INLINE VMASK vanishes(VREAL v) { return (v < fill(VANISHING)) & (v > fill(-VANISHING)); }
INLINE vint load_ints(const void *p) { return *(const vint_any *)p; }

/* The first `count` <= LANES elements; the rest of the vector is 0, or not stored. Whole vectors need no mask: store
 * forwarding to a masked load is slow. */
INLINE VREAL load_some(const REAL *from, ptrdiff_t count) {
    if (count == LANES) return load(from);
#if VBYTES == 64 && REAL_BITS == 32
    return (VREAL)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#elif VBYTES == 64
    return (VREAL)_mm512_maskz_loadu_pd((__mmask8)((1u << count) - 1), from);
#else
    REAL part[LANES] __attribute__((aligned(64))) = {0};
    for (ptrdiff_t i = 0; i < count; i++) part[i] = from[i];
    return load(part);
#endif
}
INLINE void store_some(REAL *to, VREAL v, ptrdiff_t count) {
    if (count == LANES) {
        store(to, v);
        return;
    }
#if VBYTES == 64 && REAL_BITS == 32
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), (__m512)v);
#elif VBYTES == 64
    _mm512_mask_storeu_pd(to, (__mmask8)((1u << count) - 1), (__m512d)v);
#else
    for (ptrdiff_t i = 0; i < count; i++) to[i] = v[i];
#endif
}

#if VBYTES == 64
/* Lanes low .. high - 1: the others are 0 where they are loaded, and neither read nor stored. */
typedef __mmask16 vlanes;
INLINE vlanes lanes_between(ptrdiff_t low, ptrdiff_t high) { return (vlanes)((1u << high) - (1u << low)); }
#if REAL_BITS == 32
INLINE VREAL load_lanes(const REAL *from, vlanes lanes) { return (VREAL)_mm512_maskz_loadu_ps(lanes, from); }
INLINE void store_lanes(REAL *to, VREAL v, vlanes lanes) { _mm512_mask_storeu_ps(to, lanes, (__m512)v); }
#else
INLINE VREAL load_lanes(const REAL *from, vlanes lanes) { return (VREAL)_mm512_maskz_loadu_pd((__mmask8)lanes, from); }
INLINE void store_lanes(REAL *to, VREAL v, vlanes lanes) { _mm512_mask_storeu_pd(to, (__mmask8)lanes, (__m512d)v); }
#endif
#endif

/* Lanes 0, 2, ... of `low`, then the odd lanes of `high`: every other element, where `high` begins at the last one of
 * `low`. */
INLINE VREAL even_lanes(VREAL low, VREAL high) {
#if VBYTES / (REAL_BITS / 8) == 16
    return __builtin_shufflevector(low, high, 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31);
#elif VBYTES / (REAL_BITS / 8) == 8
    return __builtin_shufflevector(low, high, 0, 2, 4, 6, 9, 11, 13, 15);
#elif VBYTES / (REAL_BITS / 8) == 4
    return __builtin_shufflevector(low, high, 0, 2, 5, 7);
#else
    return __builtin_shufflevector(low, high, 0, 3);
#endif
}
#if VBYTES == 64
/* a[0], b[0], a[1], b[1], ...: the first LANES of them, and the last. */
#if REAL_BITS == 32
#define ALTERNATE(a, b, f)                                                                                             \
    __builtin_shufflevector(a, b, f, f + 16, f + 1, f + 17, f + 2, f + 18, f + 3, f + 19, f + 4, f + 20, f + 5,        \
                            f + 21, f + 6, f + 22, f + 7, f + 23)
#else
#define ALTERNATE(a, b, f) __builtin_shufflevector(a, b, f, f + 8, f + 1, f + 9, f + 2, f + 10, f + 3, f + 11)
#endif
INLINE VREAL alternate_low(VREAL a, VREAL b) { return ALTERNATE(a, b, 0); }
INLINE VREAL alternate_high(VREAL a, VREAL b) { return ALTERNATE(a, b, (LANES / 2)); }
#undef ALTERNATE
#endif

/* from[0], from[2], ..., LANES of them. */
INLINE VREAL load_even(const REAL *from) { return even_lanes(load(from), load(from + LANES - 1)); }

/* `yes` where the mask holds, `no` elsewhere: C has no ?: on vectors. */
INLINE VREAL pick(VMASK mask, VREAL yes, VREAL no) { return (VREAL)(((VMASK)yes & mask) | ((VMASK)no & ~mask)); }
/* v where the mask holds, 0 elsewhere. */
INLINE VREAL only(VMASK mask, VREAL v) { return (VREAL)((VMASK)v & mask); }
INLINE int any_lane(VMASK mask) {
#if VBYTES == 64
    return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#else
    uint64_t words[VBYTES / 8], all = 0;
    memcpy(words, &mask, VBYTES);
    UNROLL for (int i = 0; i < VBYTES / 8; i++) all |= words[i];
    return all != 0;
#endif
}

INLINE VREAL magnitude(VREAL v) { return (VREAL)((VMASK)v & ~SIGN_BIT); }
/* v, with its sign flipped where `sign` is negative (-0 is). */
INLINE VREAL times_sign(VREAL v, VREAL sign) { return (VREAL)((VMASK)v ^ ((VMASK)sign & SIGN_BIT)); }
/* max(v, 0) and min(v, 0); NaN stays NaN. */
INLINE VREAL positive_part(VREAL v) { return (VREAL)((VMASK)v & ~(v < (VREAL){0})); }
INLINE VREAL negative_part(VREAL v) { return (VREAL)((VMASK)v & ~(v > (VREAL){0})); }

/* The larger and the smaller of two; b where either is NaN. */
INLINE VREAL larger(VREAL a, VREAL b) {
#if REAL_BITS == 32 && VBYTES == 64
    return (VREAL)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return pick(a > b, a, b);
#endif
}
INLINE VREAL smaller(VREAL a, VREAL b) {
#if REAL_BITS == 32 && VBYTES == 64
    return (VREAL)_mm512_min_ps((__m512)a, (__m512)b);
#elif REAL_BITS == 32 && VBYTES == 32
    return (VREAL)_mm256_min_ps((__m256)a, (__m256)b);
#elif REAL_BITS == 32 && defined(__SSE4_1__)
    return (VREAL)_mm_min_ps((__m128)a, (__m128)b);
#else
    return pick(a < b, a, b);
#endif
}

/* v within bounds[0] .. bounds[1], or as it is without bounds; NaN stays NaN. */
INLINE VREAL bounded(VREAL v, const REAL *bounds) {
    return bounds ? smaller(fill(bounds[1]), larger(fill(bounds[0]), v)) : v;
}
INLINE const REAL *bounds_of(const double *bounds, REAL to[2]) {
    if (!bounds) return NULL;
    to[0] = (REAL)bounds[0], to[1] = (REAL)bounds[1];
    return to;
}

INLINE REAL largest_lane(VREAL v) {
#if REAL_BITS == 32 && VBYTES == 64
    return _mm512_reduce_max_ps((__m512)v);
#else
    REAL largest = v[0];
    for (int j = 1; j < LANES; j++) largest = v[j] > largest ? v[j] : largest;
    return largest;
#endif
}

/* The order of additions depends on the instruction set. */
INLINE REAL sum_lanes(VREAL v) {
#if REAL_BITS == 32 && VBYTES == 64
    return _mm512_reduce_add_ps((__m512)v);
#elif REAL_BITS == 32 && VBYTES == 32
    typedef float quad __attribute__((vector_size(16)));
    const quad sum = (quad)_mm256_castps256_ps128((__m256)v) + (quad)_mm256_extractf128_ps((__m256)v, 1);
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
#elif REAL_BITS == 32
    return (v[0] + v[2]) + (v[1] + v[3]);
#else
    REAL sum = 0;
    for (int i = 0; i < LANES; i++) sum += v[i];
    return sum;
#endif
}
/* The same in double from the first addition on. */
INLINE double sum_lanes_wide(VREAL v) {
#if REAL_BITS == 32 && VBYTES == 64
    return _mm512_reduce_add_pd(_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)) +
                                _mm512_cvtps_pd((__m256)_mm512_extractf64x4_pd((__m512d)v, 1)));
#else
    double part[4] = {0};
    for (int i = 0; i < LANES; i++) part[i % 4] += (double)v[i];
    return (part[0] + part[1]) + (part[2] + part[3]);
#endif
}

/* a / b to 2 units in the last place, for normal b whose inverse is normal: division units take four times as long. */
INLINE VREAL quotient(VREAL a, VREAL b) {
#if REAL_BITS == 32 && VBYTES == 64
    const VREAL rough = (VREAL)_mm512_rcp14_ps((__m512)b);
    return a * (rough + rough * (1 - b * rough));
#else
    return a / b;
#endif
}

/* exp of v <= 0. Float: 2^n times a polynomial of degree 6 on |r| <= ln 2 / 2, 2 ulp, clamped at exp(-87); double:
 * libm. */
INLINE VREAL exponential(VREAL v) {
#if REAL_BITS == 32
    const VREAL lowest = fill(-87.0f), magic = fill(12582912.0f);
    v = pick(v < lowest, lowest, v);
    const VREAL shifted = v * 1.44269504f + magic;
    const VREAL whole = shifted - magic;
    VREAL r = v - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    VREAL p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (VREAL)((vint)p + (((vint)shifted - (vint)magic) << 23));
#else
    for (int i = 0; i < LANES; i++) v[i] = exp(v[i]);
    return v;
#endif
}

/* ---- octets: eight orientations ---- */

typedef REAL OCTET __attribute__((vector_size(8 * sizeof(REAL))));
typedef REAL OCTET_ANY __attribute__((vector_size(8 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
INLINE OCTET load8(const REAL *p) { return *(const OCTET_ANY *)p; }
INLINE void store8(REAL *p, OCTET v) { *(OCTET_ANY *)p = v; }

/* The sum of each of eight octets. */
INLINE OCTET sums_of_eight(const OCTET x[8]) {
    OCTET a[4], b[2];
    UNROLL for (int i = 0; i < 4; i++)
        a[i] = __builtin_shufflevector(x[2 * i], x[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
               __builtin_shufflevector(x[2 * i], x[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    UNROLL for (int i = 0; i < 2; i++)
        b[i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(a[2 * i], a[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return __builtin_shufflevector(b[0], b[1], 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(b[0], b[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

/* ---- float alone ---- */

#if REAL_BITS == 32
/* LANES values of 0..255, truncated to bytes. */
INLINE void store_bytes(uint8_t *to, vfloat v) {
#if VBYTES == 64
    _mm_storeu_si128((__m128i *)to, _mm512_cvtusepi32_epi8(_mm512_cvttps_epi32((__m512)v)));
#elif VBYTES == 32
    const __m256i whole = _mm256_cvttps_epi32((__m256)v);
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
#elif defined(__SSE4_1__)
    const __m128i whole = _mm_cvttps_epi32((__m128)v), words = _mm_packus_epi32(whole, whole);
    _mm_storeu_si32(to, _mm_packus_epi16(words, words));
#else
    for (int i = 0; i < FLOATS; i++) to[i] = (uint8_t)v[i];
#endif
}

/* LANES rows of LANES values, `from_row` apart, become columns. */
INLINE void transpose(const float *from, ptrdiff_t from_row, float *to, ptrdiff_t to_row) {
#if VBYTES == 64
    __m512 a[16], b[16];
    UNROLL for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(from + i * from_row);
    UNROLL for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) UNROLL for (int j = 0; j < 2; j++) {
        const __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + 2 + j]);
        a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
    UNROLL for (int j = 0; j < 4; j++) {
        const __m512 even = _mm512_shuffle_f32x4(a[j], a[4 + j], 0x88), odd = _mm512_shuffle_f32x4(a[j], a[4 + j],
                                                                                                   0xdd);
        const __m512 even2 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0x88);
        const __m512 odd2 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0xdd);
        _mm512_storeu_ps(to + j * to_row, _mm512_shuffle_f32x4(even, even2, 0x88));
        _mm512_storeu_ps(to + (4 + j) * to_row, _mm512_shuffle_f32x4(odd, odd2, 0x88));
        _mm512_storeu_ps(to + (8 + j) * to_row, _mm512_shuffle_f32x4(even, even2, 0xdd));
        _mm512_storeu_ps(to + (12 + j) * to_row, _mm512_shuffle_f32x4(odd, odd2, 0xdd));
    }
#elif VBYTES == 32
    __m256 a[8], b[8];
    UNROLL for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps(from + i * from_row);
    UNROLL for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) UNROLL for (int j = 0; j < 2; j++) {
        const __m256d low = _mm256_castps_pd(b[i + j]), high = _mm256_castps_pd(b[i + 2 + j]);
        a[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
        a[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
    UNROLL for (int j = 0; j < 4; j++) {
        _mm256_storeu_ps(to + j * to_row, _mm256_permute2f128_ps(a[j], a[4 + j], 0x20));
        _mm256_storeu_ps(to + (4 + j) * to_row, _mm256_permute2f128_ps(a[j], a[4 + j], 0x31));
    }
#else
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++) to[j * to_row + i] = from[i * from_row + j];
#endif
}
#endif

#endif
