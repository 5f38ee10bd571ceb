/* dispatch.c - argument checks, then the kernel of the instruction set that fvlrp_select() chose. */
#include "common.h"

static const fvlrp_table *kernels;
static const char *chosen = "none";

#ifdef FVLRP_HAVE_V2
static int has_v2(void) { return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt"); }
static int has_v3(void) {
    return has_v2() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}
static int has_v4(void) {
    return has_v3() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
static int has_vnni(void) { return has_v4() && __builtin_cpu_supports("avx512vnni"); }
#endif
#ifdef FVLRP_HAVE_GENERIC
static int has_generic(void) { return 1; }
#endif

/* Best first. */
static const struct {
    const char *name;
    const fvlrp_table *table;
    int (*here)(void);
} builds[] = {
#ifdef FVLRP_HAVE_V2
    {"vnni", &fvlrp_table_vnni, has_vnni},
    {"v4", &fvlrp_table_v4, has_v4},
    {"v3", &fvlrp_table_v3, has_v3},
    {"v2", &fvlrp_table_v2, has_v2},
#endif
#ifdef FVLRP_HAVE_GENERIC
    {"generic", &fvlrp_table_generic, has_generic},
#endif
};
enum { BUILDS = sizeof builds / sizeof builds[0] };

int fvlrp_select(const char *isa) {
    for (int i = 0; i < BUILDS; i++) {
        if (isa && *isa && strcmp(isa, builds[i].name)) continue;
        if (!builds[i].here()) continue;
        kernels = builds[i].table;
        chosen = builds[i].name;
        return FVLRP_OK;
    }
    return FVLRP_E_ISA;
}

const char *fvlrp_isa(void) { return chosen; }

const char *fvlrp_isa_available(int i) {
    for (int j = 0; j < BUILDS; j++)
        if (builds[j].here() && i-- == 0) return builds[j].name;
    return NULL;
}

static int bad_real(int real) { return real != FVLRP_F32 && real != FVLRP_F64; }
static int bad_type(int type) { return type != FVLRP_U8 && bad_real(type); }

/* Bin centres inside the image, sizes that cannot overflow. */
static int bad_scale(const fvlrp_scale *s) {
    if (!s || s->height < 1 || s->width < 1 || s->rows < 0 || s->cols < 0 || s->step < 1 || s->bin_size < 1) return 1;
    if (s->first < 0 || s->bin_size > 1 << 20 || !checked(s->height, s->width) || !checked(s->rows, s->cols)) return 1;
    if (!checked(s->rows * s->cols, 128 * sizeof(double)) || !checked(s->height * s->width, 8 * sizeof(double))) return 1;
    if (s->rows && s->first + s->step * (s->rows - 1) + 3 * s->bin_size > s->height - 1) return 1;
    if (s->cols && s->first + s->step * (s->cols - 1) + 3 * s->bin_size > s->width - 1) return 1;
    if (s->window != FVLRP_WINDOW_FLAT && s->window != FVLRP_WINDOW_GAUSSIAN) return 1;
    if (s->angles != FVLRP_ANGLES_VLFEAT && s->angles != FVLRP_ANGLES_EXACT) return 1;
    return !(s->sigma >= 0) || !(s->window_size > 0) || !(s->contrast_threshold >= 0);
}

int fvlrp_sift(const fvlrp_scale *scale, const float *image, ptrdiff_t begin, ptrdiff_t end, void *values,
               uint8_t *zeroed) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_scale(scale) || (scale->type != FVLRP_U8 && scale->type != FVLRP_F32)) return FVLRP_E_ARGUMENT;
    if (begin < 0 || end > scale->rows || begin > end) return FVLRP_E_ARGUMENT;
    if (begin == end || scale->cols == 0) return FVLRP_OK;
    return kernels->sift(scale, image, begin, end, values, zeroed);
}

int fvlrp_sift_planes(const fvlrp_scale *scale, const float *image, float *planes) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_scale(scale)) return FVLRP_E_ARGUMENT;
    return kernels->sift_planes(scale, image, planes);
}

int fvlrp_sift_pixels(const fvlrp_scale *scale, const float *image, int real, const void *relevance, double *pixels,
                      double *zero_bin) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_scale(scale) || bad_real(real)) return FVLRP_E_ARGUMENT;
    if (scale->rows == 0 || scale->cols == 0) return FVLRP_OK;
    return kernels->sift_pixels(scale, image, real, relevance, pixels, zero_bin);
}

/* Words of four bytes that a mixture takes in whole numbers and beside them: see screen.h. */
static ptrdiff_t screen_words(ptrdiff_t stride, ptrdiff_t padded) {
    return 2 + 4 * stride + 5 * padded + stride * padded / 2;
}

int fvlrp_model_pack(fvlrp_model *model, int real, ptrdiff_t inputs, ptrdiff_t dims, ptrdiff_t components,
                     const double *basis, const double *mean, const double *priors, const double *means,
                     const double *variances, double gate, void *block) {
    if (!kernels) return FVLRP_E_ISA;
    if (!model || !block || !fvlrp_model_bytes(real, inputs, dims, components)) return FVLRP_E_ARGUMENT;
    if ((inputs && !basis) || (components && (!priors || !means || !variances)) || !(gate >= 0)) return FVLRP_E_ARGUMENT;
    memset(model, 0, sizeof *model);
    model->real = real;
    model->inputs = inputs;
    model->dims = dims;
    model->stride = (dims + 15) / 16 * 16;
    model->components = components;
    model->gate = gate;
    char *at = (char *)(((uintptr_t)block + 63) & ~(uintptr_t)63);
    const ptrdiff_t s = model->stride, k = (components + 63) / 64 * 64, in = (inputs + 63) / 64 * 64;
#define TAKE(field, count, size) (model->field = (void *)at, at += ((count) * (size) + 63) / 64 * 64)
    TAKE(forward, in * s, real);
    TAKE(backward, s * in, real);
    TAKE(binned, dims * inputs, real);
    TAKE(whole, s * (4 + 3 * inputs), 1);
    TAKE(mean, in, real);
    TAKE(basis, dims * inputs, (ptrdiff_t)sizeof(double));
    TAKE(logits, 2 * s * k, real);
    TAKE(offset, k, real);
    TAKE(origin, s, real);
    TAKE(scale, components * s, real);
    TAKE(shift, components * s, real);
    TAKE(centre, 2 * s + 1, (ptrdiff_t)sizeof(double));
    TAKE(screen, screen_words(s, k), 4);
#undef TAKE
    return kernels->model_pack(model, basis, mean, priors, means, variances);
}

size_t fvlrp_model_bytes(int real, ptrdiff_t inputs, ptrdiff_t dims, ptrdiff_t components) {
    if (bad_real(real) || inputs < 0 || dims < 1 || components < 0) return 0;
    if (inputs > 1 << 16 || dims > 1 << 16 || components > 1 << 16) return 0;
    const size_t s = ((size_t)dims + 15) / 16 * 16, k = ((size_t)components + 63) / 64 * 64;
    const size_t in = ((size_t)inputs + 63) / 64 * 64;
    const size_t matrices = 2 * in * s + 2 * s * k, basis = (size_t)dims * (size_t)inputs;
    const size_t reals = basis + in + k + s + 2 * (size_t)components * s, doubles = basis + 2 * s + 1;
    const size_t whole = s * (4 + 3 * (size_t)inputs), screen = 4 * (size_t)screen_words((ptrdiff_t)s, (ptrdiff_t)k);
    return (matrices + reals) * (size_t)real + doubles * sizeof(double) + whole + screen + 14 * 64;
}

int fvlrp_project(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n, void *y) {
    if (!kernels) return FVLRP_E_ISA;
    if (!model || !model->inputs || bad_type(type) || n < 0) return FVLRP_E_ARGUMENT;
    return kernels->project(model, type, x, rows, n, y);
}

int fvlrp_posteriors(const fvlrp_model *model, const void *y, ptrdiff_t n, ptrdiff_t capacity, int64_t *indptr,
                     uint16_t *index, void *gamma, double *loglik, ptrdiff_t *done) {
    if (!kernels) return FVLRP_E_ISA;
    if (!model || !model->components || n < 0 || capacity < 0) return FVLRP_E_ARGUMENT;
    *done = 0;
    return kernels->posteriors(model, y, n, capacity, indptr, index, gamma, loglik, done);
}

int fvlrp_pool(const fvlrp_model *model, const void *y, ptrdiff_t n, const int64_t *indptr, const uint16_t *index,
               const void *gamma, double *s0, double *s1, double *s2) {
    if (!kernels) return FVLRP_E_ISA;
    if (!model || !model->components || n < 0) return FVLRP_E_ARGUMENT;
    return kernels->pool(model, y, n, indptr, index, gamma, s0, s1, s2);
}

int fvlrp_encode(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n,
                 ptrdiff_t capacity, void *y, int64_t *indptr, uint16_t *index, void *gamma, double *s0, double *s1,
                 double *s2, ptrdiff_t *done) {
    if (!kernels) return FVLRP_E_ISA;
    if (!model || !model->components || !model->inputs || bad_type(type) || n < 0 || capacity < 0)
        return FVLRP_E_ARGUMENT;
    *done = 0;
    return kernels->encode(model, type, x, rows, n, capacity, y, indptr, index, gamma, s0, s1, s2, done);
}

int fvlrp_relevance(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n, const void *y,
                    const int64_t *indptr, const uint16_t *index, const void *gamma, ptrdiff_t targets,
                    const void *tables, double epsilon, int mean, const fvlrp_relevances *out) {
    if (!kernels) return FVLRP_E_ISA;
    if (!model || !model->components || bad_type(type) || n < 0 || targets < 0 || !(epsilon >= 0) || !out)
        return FVLRP_E_ARGUMENT;
    if (mean < FVLRP_MEAN_NONE || mean > FVLRP_MEAN_BIAS) return FVLRP_E_ARGUMENT;
    if ((out->bins || out->sift) && model->inputs != 128) return FVLRP_E_ARGUMENT;
    if (n && (out->bins || out->sift || out->absorbed || !y) && (!model->inputs || !x)) return FVLRP_E_ARGUMENT;
    return kernels->relevance(model, type, x, rows, n, y, indptr, index, gamma, targets, tables, epsilon, mean, out);
}

int fvlrp_merge(ptrdiff_t parts, const fvlrp_part *part, ptrdiff_t finest, ptrdiff_t cells, const uint8_t *member,
                ptrdiff_t components, ptrdiff_t dims, const double *priors, double *sums, double *occupancy) {
    if (!kernels) return FVLRP_E_ISA;
    if (parts < 0 || finest < 0 || cells < 0 || components < 0 || dims < 0) return FVLRP_E_ARGUMENT;
    if (dims > 1 << 16 || components > 1 << 16 || !checked(finest, (1 + 2 * dims) * (ptrdiff_t)sizeof(double)))
        return FVLRP_E_ARGUMENT;
    for (ptrdiff_t p = 0; p < parts; p++)
        if (part[p].finest < 0 || part[p].finest >= finest) return FVLRP_E_ARGUMENT;
    return kernels->merge(parts, part, finest, cells, member, components, dims, priors, sums, occupancy);
}

int fvlrp_scores(ptrdiff_t n, ptrdiff_t length, const float *coef, const float *x, double *out) {
    if (!kernels) return FVLRP_E_ISA;
    if (n < 0 || length < 0 || !checked(n, length)) return FVLRP_E_ARGUMENT;
    return kernels->scores(n, length, coef, x, out);
}

int fvlrp_normalise(ptrdiff_t cells, ptrdiff_t length, const double *sums, double *x) {
    if (!kernels) return FVLRP_E_ISA;
    if (cells < 0 || length < 0 || !checked(cells, length)) return FVLRP_E_ARGUMENT;
    return kernels->normalise(cells, length, sums, x);
}

int fvlrp_shares(ptrdiff_t cells, ptrdiff_t length, const double *relevance, const double *sums,
                 const int64_t *counts, const double *epsilon, const double *spread, double *out, double *ledger) {
    if (!kernels) return FVLRP_E_ISA;
    if (cells < 0 || length < 0 || !checked(cells, length)) return FVLRP_E_ARGUMENT;
    for (ptrdiff_t c = 0; c < cells; c++)
        if (!(epsilon[c] >= 0)) return FVLRP_E_ARGUMENT;
    return kernels->shares(cells, length, relevance, sums, counts, epsilon, spread, out, ledger);
}

int fvlrp_tables(const fvlrp_model *model, ptrdiff_t cells, const double *shares, const uint8_t *member,
                 const double *priors, const double *means, const double *deviations, void *tables) {
    if (!kernels) return FVLRP_E_ISA;
    if (!model || !model->components || cells < 0) return FVLRP_E_ARGUMENT;
    return kernels->tables(model, cells, shares, member, priors, means, deviations, tables);
}

int fvlrp_splat(int real, const void *values, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t bins, ptrdiff_t spacing,
                ptrdiff_t first, ptrdiff_t step, const double *weight_y, const double *weight_x, const double *taps,
                ptrdiff_t length, ptrdiff_t lead, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t height, ptrdiff_t width,
                double *pixels) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_real(real) || rows < 0 || cols < 0 || bins < 1 || spacing < 0 || first < 0 || step < 1)
        return FVLRP_E_ARGUMENT;
    if (length < 1 || length > 1 << 20 || lead < -(1 << 20) || lead > 1 << 20) return FVLRP_E_ARGUMENT;
    if (height < 1 || width < 1 || !checked(height, width) || begin < 0 || end > height) return FVLRP_E_ARGUMENT;
    if (rows == 0 || cols == 0 || begin >= end) return FVLRP_OK;
    if (first + step * (rows - 1) + spacing * (bins - 1) >= height) return FVLRP_E_ARGUMENT;
    if (first + step * (cols - 1) + spacing * (bins - 1) >= width) return FVLRP_E_ARGUMENT;
    return kernels->splat(real, values, rows, cols, bins, spacing, first, step, weight_y, weight_x, taps, length, lead,
                          begin, end, width, pixels);
}

/* Sizes and reaches that cannot overflow. */
static int bad_windows(const fvlrp_windows *w, ptrdiff_t k, ptrdiff_t n) {
    const ptrdiff_t most = 1 << 24;
    const ptrdiff_t sizes[] = {w->channels, w->height, w->width, w->kernel_y, w->kernel_x, w->stride_y, w->stride_x,
                               w->dilation_y, w->dilation_x, w->cols};
    for (int i = 0; i < (int)(sizeof sizes / sizeof *sizes); i++)
        if (sizes[i] < 1 || sizes[i] > most) return 1;
    if (w->top < -most || w->top > most || w->left < -most || w->left > most) return 1;
    if (w->first < 0 || w->first > most || w->rows < 0 || w->rows > most) return 1;
    const size_t plane = checked(w->height, w->width);
    if (!checked(w->channels, (ptrdiff_t)plane) || !checked(w->channels * (ptrdiff_t)plane, sizeof(double))) return 1;
    return k / (w->kernel_y * w->kernel_x) != w->channels || k % (w->kernel_y * w->kernel_x) || n != w->rows * w->cols;
}

static int bad_sign(int sign) { return sign < FVLRP_NEGATIVE || sign > FVLRP_SIZE; }

int fvlrp_product(int real, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t row, ptrdiff_t channel,
                  ptrdiff_t tap, ptrdiff_t taps, int sign, const void *b, ptrdiff_t ldb,
                  const fvlrp_windows *windows, const void *bias, int add, void *c, ptrdiff_t ldc) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_real(real) || bad_sign(sign) || m < 0 || k < 0 || n < 0 || taps < 1 || k % taps) return FVLRP_E_ARGUMENT;
    if (windows ? bad_windows(windows, k, n) : k > 1 && ldb < n) return FVLRP_E_ARGUMENT;
    if (m > 1 && ldc < n) return FVLRP_E_ARGUMENT;
    if (m == 0 || n == 0) return FVLRP_OK;
    return kernels->product(real, m, k, n, a, row, channel, tap, taps, sign, b, ldb, windows, bias, add, c, ldc);
}

int fvlrp_winograd(ptrdiff_t m, const float *a, ptrdiff_t row, ptrdiff_t channel, ptrdiff_t tap, int sign,
                   const fvlrp_windows *windows, const float *image, const float *other, const float *bias, int add,
                   double doubt, const float *whole, ptrdiff_t ldw, float *c, ptrdiff_t ldc) {
    const fvlrp_windows *w = windows;
    if (!kernels) return FVLRP_E_ISA;
    if (m < 0 || !w || bad_windows(w, w->channels * 9, w->rows * w->cols) || w->kernel_y != 3 || w->kernel_x != 3)
        return FVLRP_E_ARGUMENT;
    if (w->stride_y != 1 || w->stride_x != 1 || w->dilation_y != 1 || w->dilation_x != 1) return FVLRP_E_ARGUMENT;
    if (bad_sign(sign) || (other && (sign == FVLRP_ALL || sign == FVLRP_SIZE))) return FVLRP_E_ARGUMENT;
    if (!(doubt >= 0 && doubt <= 1) || (whole && (!(doubt > 0) || (m > 1 && ldw < w->rows * w->cols))))
        return FVLRP_E_ARGUMENT;
    if (m > 1 && ldc < w->rows * w->cols) return FVLRP_E_ARGUMENT;
    if (m == 0 || w->rows == 0) return FVLRP_OK;
    return kernels->winograd(m, a, row, channel, tap, sign, w, image, other, bias, add, doubt, whole, ldw, c, ldc);
}

/* Rows of an (any, n) array, all indices of which are in 0..limit-1. */
static int bad_rows(ptrdiff_t count, const int64_t *rows, ptrdiff_t limit, ptrdiff_t n) {
    if (count < 0 || limit < 0 || n < 0 || !checked(limit, n) || !checked(limit * n, sizeof(double))) return 1;
    for (ptrdiff_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= limit) return 1;
    return 0;
}

int fvlrp_dense_sums(int real, ptrdiff_t m, ptrdiff_t n, const void *weight, ptrdiff_t count, const int64_t *rows,
                     const void *above, const void *below, void *up, void *down) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_real(real) || bad_rows(count, rows, m, n)) return FVLRP_E_ARGUMENT;
    return kernels->dense_sums(real, count, rows, n, weight, above, below, up, down);
}

int fvlrp_dense_back(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *weight, ptrdiff_t count,
                     const int64_t *rows, const void *positive, const void *negative, void *up, void *down) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_real(real) || targets < 0 || bad_rows(count, rows, m, n) || !checked(targets, n)) return FVLRP_E_ARGUMENT;
    return kernels->dense_back(real, targets, count, rows, n, weight, positive, negative, up, down);
}

int fvlrp_dense_alpha_beta(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *weight, ptrdiff_t count,
                           const int64_t *rows, const void *above, const void *below, const void *bias, const void *r,
                           double alpha, double beta, void *up, void *down, double *kept, double *lost) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_real(real) || targets < 0 || bad_rows(count, rows, m, n) || !checked(targets, n)) return FVLRP_E_ARGUMENT;
    if (!(alpha >= 0 && beta >= 0)) return FVLRP_E_ARGUMENT;
    return kernels->dense_alpha_beta(real, targets, count, rows, n, weight, above, below, bias, r, alpha, beta, up, down,
                                     kept, lost);
}

int fvlrp_alpha_beta(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *r, ptrdiff_t pitch,
                     ptrdiff_t ldr, const void *z, ptrdiff_t ldz, const void *positive, double alpha, double beta,
                     double weak, void *up, void *down, double *kept, double *lost, ptrdiff_t capacity,
                     int64_t *doubtful, ptrdiff_t *count) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_real(real) || targets < 0 || m < 0 || n < 0 || capacity < 0) return FVLRP_E_ARGUMENT;
    if (!checked(targets * 2, m) || !checked(m, n) || (m > 1 && ldr < n)) return FVLRP_E_ARGUMENT;
    if (!(alpha >= 0 && beta >= 0 && weak >= 0) || (z && m > 1 && ldz < n) || (beta > 0 && !z)) return FVLRP_E_ARGUMENT;
    return kernels->alpha_beta(real, targets, m, n, r, pitch, ldr, z, ldz, positive, alpha, beta, weak, up, down, kept,
                               lost, capacity, doubtful, count);
}

static int bad_pool(int real, const fvlrp_windows *w) {
    if (bad_real(real) || !w) return 1;
    return bad_windows(w, w->channels * w->kernel_y * w->kernel_x, w->rows * w->cols);
}

int fvlrp_max_pool(int real, const fvlrp_windows *windows, const void *image, void *out) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_pool(real, windows)) return FVLRP_E_ARGUMENT;
    return kernels->max_pool(real, windows, image, out);
}

int fvlrp_max_pool_back(int real, const fvlrp_windows *windows, const void *image, const void *maxima,
                        ptrdiff_t targets, const void *r, void *out) {
    if (!kernels) return FVLRP_E_ISA;
    if (bad_pool(real, windows) || targets < 0) return FVLRP_E_ARGUMENT;
    return kernels->max_pool_back(real, windows, image, maxima, targets, r, out);
}
