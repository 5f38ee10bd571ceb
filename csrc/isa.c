/* isa.c - the hot kernels of one instruction set, compiled once for each with -DFVLRP_ISA=v2|v3|v4|vnni|generic.
 *
 * Everything included here is static: the table is all that leaves this translation unit. What follows real.h
 * is compiled twice, for float and for double. */
#include "common.h"

#include "sift.c"
#include "vector.c"
#include "splat.c"

#define REAL_BITS 32
#include "real.h"
#include "project.c"
#include "gmm.c"
#include "model.c"
#include "fisher.c"
#include "sift_pixels.c"
#include "product.c"
#include "winograd.c"
#include "linear.c"
#include "pools.c"
#undef REAL_BITS

#define REAL_BITS 64
#include "real.h"
#include "project.c"
#include "gmm.c"
#include "model.c"
#include "fisher.c"
#include "sift_pixels.c"
#include "product.c"
#include "linear.c"
#include "pools.c"
#undef REAL_BITS

#define TABLE_NAME_(isa) fvlrp_table_##isa
#define TABLE_NAME(isa) TABLE_NAME_(isa)

/* One entry for both reals: the model says which. */
#define BY_REAL(name, model, ...) ((model)->real == FVLRP_F32 ? name##_f32(model, __VA_ARGS__) : name##_f64(model, __VA_ARGS__))

static int sift_pixels(const fvlrp_scale *scale, const float *image, int real, const void *relevance, double *pixels,
                       double *zero_bin) {
    return real == FVLRP_F32 ? sift_pixels_f32(scale, image, relevance, pixels, zero_bin)
                             : sift_pixels_f64(scale, image, relevance, pixels, zero_bin);
}
static int model_pack(fvlrp_model *m, const double *basis, const double *mean, const double *priors,
                      const double *means, const double *variances) {
    return BY_REAL(model_pack, m, basis, mean, priors, means, variances);
}
static int project(const fvlrp_model *m, int type, const void *x, const int64_t *rows, ptrdiff_t n, void *y) {
    return BY_REAL(project, m, type, x, rows, n, y);
}
static int posteriors(const fvlrp_model *m, const void *y, ptrdiff_t n, ptrdiff_t capacity, int64_t *indptr,
                      uint16_t *index, void *gamma, double *loglik, ptrdiff_t *done) {
    return BY_REAL(posteriors, m, y, n, capacity, indptr, index, gamma, loglik, done);
}
static int pool(const fvlrp_model *m, const void *y, ptrdiff_t n, const int64_t *indptr, const uint16_t *index,
                const void *gamma, double *s0, double *s1, double *s2) {
    return BY_REAL(pool, m, y, n, indptr, index, gamma, s0, s1, s2);
}
static int encode(const fvlrp_model *m, int type, const void *x, const int64_t *rows, ptrdiff_t n, ptrdiff_t capacity,
                  void *y, int64_t *indptr, uint16_t *index, void *gamma, double *s0, double *s1, double *s2,
                  ptrdiff_t *done) {
    return BY_REAL(encode, m, type, x, rows, n, capacity, y, indptr, index, gamma, s0, s1, s2, done);
}
static int relevance(const fvlrp_model *m, int type, const void *x, const int64_t *rows, ptrdiff_t n, const void *y,
                     const int64_t *indptr, const uint16_t *index, const void *gamma, ptrdiff_t targets,
                     const void *tables, double epsilon, int mean, const fvlrp_relevances *out) {
    return BY_REAL(relevance, m, type, x, rows, n, y, indptr, index, gamma, targets, tables, epsilon, mean, out);
}
static int tables(const fvlrp_model *m, ptrdiff_t cells, const double *shares, const uint8_t *member,
                  const double *priors, const double *means, const double *deviations, void *out) {
    return BY_REAL(tables, m, cells, shares, member, priors, means, deviations, out);
}
static int product(int real, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t row, ptrdiff_t channel,
                   ptrdiff_t tap, ptrdiff_t taps, int sign, const void *b, ptrdiff_t ldb, const fvlrp_windows *windows,
                   const void *bias, int add, void *c, ptrdiff_t ldc) {
    return (real == FVLRP_F32 ? product_f32 : product_f64)(m, k, n, a, row, channel, tap, taps, sign, b, ldb, windows,
                                                           bias, add, c, ldc);
}

static int dense_sums(int real, ptrdiff_t count, const int64_t *rows, ptrdiff_t n, const void *weight, const void *above,
                      const void *below, void *up, void *down) {
    return (real == FVLRP_F32 ? dense_sums_f32 : dense_sums_f64)(count, rows, n, weight, above, below, up, down);
}
static int dense_back(int real, ptrdiff_t targets, ptrdiff_t count, const int64_t *rows, ptrdiff_t n, const void *weight,
                      const void *positive, const void *negative, void *up, void *down) {
    return (real == FVLRP_F32 ? dense_back_f32 : dense_back_f64)(targets, count, rows, n, weight, positive, negative, up,
                                                                 down);
}
static int dense_alpha_beta(int real, ptrdiff_t targets, ptrdiff_t count, const int64_t *rows, ptrdiff_t n,
                            const void *weight, const void *above, const void *below, const void *bias, const void *r,
                            double alpha, double beta, void *up, void *down, double *kept, double *lost) {
    return (real == FVLRP_F32 ? dense_alpha_beta_f32 : dense_alpha_beta_f64)(targets, count, rows, n, weight, above, below,
                                                                             bias, r, alpha, beta, up, down, kept, lost);
}
static int alpha_beta(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *r, ptrdiff_t pitch,
                      ptrdiff_t ldr, const void *z, ptrdiff_t ldz, const void *positive, double alpha, double beta,
                      double weak, void *up, void *down, double *kept, double *lost, ptrdiff_t capacity,
                      int64_t *doubtful, ptrdiff_t *count) {
    return (real == FVLRP_F32 ? alpha_beta_f32 : alpha_beta_f64)(targets, m, n, r, pitch, ldr, z, ldz, positive, alpha,
                                                                 beta, weak, up, down, kept, lost, capacity, doubtful,
                                                                 count);
}
static int max_pool(int real, const fvlrp_windows *w, const void *image, void *out) {
    return (real == FVLRP_F32 ? max_pool_f32 : max_pool_f64)(w, image, out);
}
static int max_pool_back(int real, const fvlrp_windows *w, const void *image, const void *maxima, ptrdiff_t targets,
                         const void *r, void *out) {
    return (real == FVLRP_F32 ? max_pool_back_f32 : max_pool_back_f64)(w, image, maxima, targets, r, out);
}

const fvlrp_table TABLE_NAME(FVLRP_ISA) = {
    .sift = sift,
    .sift_planes = sift_planes,
    .sift_pixels = sift_pixels,
    .model_pack = model_pack,
    .project = project,
    .posteriors = posteriors,
    .pool = pool,
    .encode = encode,
    .relevance = relevance,
    .tables = tables,
    .merge = merge,
    .scores = scores,
    .normalise = normalise,
    .shares = shares,
    .splat = splat,
    .product = product,
    .winograd = winograd,
    .dense_sums = dense_sums,
    .dense_back = dense_back,
    .dense_alpha_beta = dense_alpha_beta,
    .alpha_beta = alpha_beta,
    .max_pool = max_pool,
    .max_pool_back = max_pool_back,
};
