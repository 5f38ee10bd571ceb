/* common.h - private to csrc: vectors of one instruction set, checked sizes, the table that a build of isa.c exports.
 *
 * Vectors are GCC/Clang vector extensions of VBYTES bytes; the same source serves every instruction set. Loads and
 * stores go through unaligned types, so that no array needs more alignment than its elements. */
#ifndef FVLRP_COMMON_H
#define FVLRP_COMMON_H

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fvlrp.h"

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

#define INLINE static inline __attribute__((always_inline, unused))
#define UNROLL _Pragma("GCC unroll 32")

typedef float vfloat __attribute__((vector_size(VBYTES)));
typedef double vdouble __attribute__((vector_size(VBYTES)));
typedef int32_t vint __attribute__((vector_size(VBYTES)));
typedef float vfloat_any __attribute__((vector_size(VBYTES), aligned(4), may_alias));
typedef double vdouble_any __attribute__((vector_size(VBYTES), aligned(8), may_alias));
typedef int32_t vint_any __attribute__((vector_size(VBYTES), aligned(4), may_alias));
enum { FLOATS = VBYTES / 4, DOUBLES = VBYTES / 8 };
INLINE vint load_i32(const void *p) { return *(const vint_any *)p; }

/* a * b in bytes, or 0 where it overflows; an empty product asks for one byte so that 0 always means failure. */
INLINE size_t checked(ptrdiff_t a, ptrdiff_t b) {
    size_t product;
    if (a < 0 || b < 0 || __builtin_mul_overflow((size_t)a, (size_t)b, &product) || product > PTRDIFF_MAX) return 0;
    return product ? product : 1;
}

/* Scratch memory of `count` elements of `size` bytes, aligned to 64; NULL where it cannot be had. Free with free(). */
INLINE void *scratch(ptrdiff_t count, ptrdiff_t size) {
    size_t bytes = checked(count, size);
    if (!bytes || bytes > PTRDIFF_MAX - 64) return NULL;
    return aligned_alloc(64, (bytes + 63) & ~(size_t)63);
}

/* The kernels of one instruction set; arguments are checked before they are called. */
typedef struct fvlrp_table {
    int (*sift)(const fvlrp_scale *, const float *, ptrdiff_t, ptrdiff_t, void *, uint8_t *);
    int (*sift_planes)(const fvlrp_scale *, const float *, float *);
    int (*sift_pixels)(const fvlrp_scale *, const float *, int, const void *, double *, double *);
    int (*model_pack)(fvlrp_model *, const double *, const double *, const double *, const double *, const double *);
    int (*project)(const fvlrp_model *, int, const void *, const int64_t *, ptrdiff_t, void *);
    int (*posteriors)(const fvlrp_model *, const void *, ptrdiff_t, ptrdiff_t, int64_t *, uint16_t *, void *, double *,
                      ptrdiff_t *);
    int (*pool)(const fvlrp_model *, const void *, ptrdiff_t, const int64_t *, const uint16_t *, const void *, double *,
                double *, double *);
    int (*encode)(const fvlrp_model *, int, const void *, const int64_t *, ptrdiff_t, ptrdiff_t, void *, int64_t *,
                  uint16_t *, void *, double *, double *, double *, ptrdiff_t *);
    int (*relevance)(const fvlrp_model *, int, const void *, const int64_t *, ptrdiff_t, const void *, const int64_t *,
                     const uint16_t *, const void *, ptrdiff_t, const void *, double, int, const fvlrp_relevances *);
    int (*tables)(const fvlrp_model *, ptrdiff_t, const double *, const uint8_t *, const double *, const double *,
                  const double *, void *);
    int (*merge)(ptrdiff_t, const fvlrp_part *, ptrdiff_t, ptrdiff_t, const uint8_t *, ptrdiff_t, ptrdiff_t, const double *,
                 double *, double *);
    int (*scores)(ptrdiff_t, ptrdiff_t, const float *, const float *, double *);
    int (*normalise)(ptrdiff_t, ptrdiff_t, const double *, double *);
    int (*shares)(ptrdiff_t, ptrdiff_t, const double *, const double *, const int64_t *, const double *, const double *,
                  double *, double *);
    int (*splat)(int, const void *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, const double *,
                 const double *, const double *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, double *);
    int (*product)(int, ptrdiff_t, ptrdiff_t, ptrdiff_t, const void *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, int,
                   const void *, ptrdiff_t, const fvlrp_windows *, const void *, int, void *, ptrdiff_t);
    int (*winograd)(ptrdiff_t, const float *, ptrdiff_t, ptrdiff_t, ptrdiff_t, int, const fvlrp_windows *, const float *,
                    const float *, const float *, int, double, const float *, ptrdiff_t, float *, ptrdiff_t);
    int (*dense_sums)(int, ptrdiff_t, const int64_t *, ptrdiff_t, const void *, const void *, const void *, void *,
                      void *);
    int (*dense_back)(int, ptrdiff_t, ptrdiff_t, const int64_t *, ptrdiff_t, const void *, const void *, const void *,
                      void *, void *);
    int (*dense_alpha_beta)(int, ptrdiff_t, ptrdiff_t, const int64_t *, ptrdiff_t, const void *, const void *,
                            const void *, const void *, const void *, double, double, void *, void *, double *, double *);
    int (*alpha_beta)(int, ptrdiff_t, ptrdiff_t, ptrdiff_t, const void *, ptrdiff_t, ptrdiff_t, const void *, ptrdiff_t,
                      const void *, double, double, double, void *, void *, double *, double *, ptrdiff_t, int64_t *,
                      ptrdiff_t *);
    int (*max_pool)(int, const fvlrp_windows *, const void *, void *);
    int (*max_pool_back)(int, const fvlrp_windows *, const void *, const void *, ptrdiff_t, const void *, void *);
} fvlrp_table;

extern const fvlrp_table fvlrp_table_v2, fvlrp_table_v3, fvlrp_table_v4, fvlrp_table_vnni,
    fvlrp_table_generic;

#endif
