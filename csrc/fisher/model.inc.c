/* model.inc.c - a model packed for one instruction set. */
#include "fisher/bytes.inc.c"
#include "fisher/model.h"
#include "fisher/screen.inc.c"
#include "fisher/tracks.h"
#include "gemm.inc.c"

/* Double scratch arrays of the packing. */
typedef struct {
    double *matrix; /* P^T or P, padded */
    double *logits; /* (2 stride + 1, K rounded up to whole vectors) */
    screen_buffers screen;
} pack_buffers;

static void pack_layout(pack_buffers *b, const fvlrp_model_pack_args *args, arena *memory) {
    const ptrdiff_t stride = padded_dims(args->dims), size = sizeof(double);
    b->matrix = carve(memory, stride * round_up(args->inputs, 16), size);
    b->logits = carve(memory, 2 * stride + 1, padded_components(args->components) * size);
    screen_buffers_layout(&b->screen, args, memory);
}

/* A row of SIFT values with the orientations outside and the bins inside. */
static void by_orientation(const double *row, ptrdiff_t inputs, REAL *out) {
    const ptrdiff_t bins = inputs / ORIENTATIONS;
    for (ptrdiff_t i = 0; i < bins * ORIENTATIONS; i++)
        out[i % ORIENTATIONS * bins + i / ORIENTATIONS] = (REAL)row[i];
}

static void pack_projection(const fvlrp_model_tables *t, const fvlrp_model_pack_args *args, double *matrix) {
    const ptrdiff_t inputs = args->inputs, dims = args->dims, stride = padded_dims(dims), wide = round_up(inputs, 16);
    const double *basis = args->basis;
    const size_t bytes = (size_t)(stride * wide) * sizeof(double);
    memset(matrix, 0, bytes);
    for (ptrdiff_t d = 0; d < dims; d++)
        for (ptrdiff_t j = 0; j < inputs; j++) matrix[j * stride + d] = basis[d * inputs + j];
    gemm_pack(matrix, inputs, stride, t->forward);
    memset(matrix, 0, bytes);
    for (ptrdiff_t d = 0; d < dims; d++) memcpy(matrix + d * wide, basis + d * inputs, (size_t)inputs * sizeof(double));
    gemm_pack(matrix, stride, wide, t->backward);
    for (ptrdiff_t j = 0; j < inputs; j++) ((REAL *)t->mean)[j] = args->mean ? (REAL)args->mean[j] : 0;
    memcpy(t->basis, basis, (size_t)(dims * inputs) * sizeof(double));
    for (ptrdiff_t d = 0; d < dims; d++) by_orientation(basis + d * inputs, inputs, (REAL *)t->binned + d * inputs);
    bytes_pack(t, args);
}

/* Precision-weighted mean along dimension d: the narrowest components have the largest coefficients. */
static double origin_of(const fvlrp_model_pack_args *args, ptrdiff_t d) {
    const ptrdiff_t K = args->components, dims = args->dims;
    double least = INFINITY, weights = 0, sum = 0;
    for (ptrdiff_t k = 0; k < K; k++) least = fmin(least, args->variances[k * dims + d]);
    for (ptrdiff_t k = 0; k < K; k++) {
        weights += least / args->variances[k * dims + d];
        sum += least / args->variances[k * dims + d] * args->means[k * dims + d];
    }
    return sum / weights;
}

/* Coefficients of component k, and its scales and shifts. */
static void pack_component(const fvlrp_model_tables *t, const fvlrp_model_pack_args *args, ptrdiff_t k,
                           double *logits) {
    const ptrdiff_t dims = args->dims, stride = padded_dims(dims), padded = round_up(args->components, LANES);
    const double *means = args->means + k * dims, *variances = args->variances + k * dims;
    REAL *scale = (REAL *)t->scale + k * stride, *shift = (REAL *)t->shift + k * stride;
    double offset = log(args->priors[k]);
    for (ptrdiff_t d = 0; d < stride; d++) {
        const double mu = d < dims ? means[d] : 0, var = d < dims ? variances[d] : 1;
        const double from = mu - (double)((REAL *)t->origin)[d];
        logits[d * padded + k] = d < dims ? -0.5 / var : 0;
        logits[(stride + d) * padded + k] = d < dims ? from / var : 0;
        offset -= d < dims ? 0.5 * (log(6.283185307179586 * var) + from * from / var) : 0;
        scale[d] = d < dims ? (REAL)(1 / sqrt(var)) : 0;
        shift[d] = (REAL)(-mu / sqrt(var));
    }
    logits[2 * stride * padded + k] = offset;
}

/* log pi_k N(y; mu_k, sigma_k^2) is one product of [y^2, y, 1] with this table. y and mu_k are relative to an origin
 * among the means: relative to 0, terms many deviations in size would cancel. Subtracting the mean over k of every
 * coefficient (a constant per row, which posteriors do not depend on) makes the terms small enough for float. */
static void pack_mixture(const fvlrp_model_tables *t, const fvlrp_model_pack_args *args, double *logits) {
    const ptrdiff_t K = args->components, stride = padded_dims(args->dims), padded = round_up(K, LANES);
    const ptrdiff_t depth = 2 * stride + 1;
    memset(logits, 0, (size_t)(depth * padded) * sizeof(double));
    memset(t->origin, 0, (size_t)stride * sizeof(REAL));
    for (ptrdiff_t d = 0; d < args->dims; d++) ((REAL *)t->origin)[d] = (REAL)origin_of(args, d);
    for (ptrdiff_t k = 0; k < K; k++) pack_component(t, args, k, logits);
    for (ptrdiff_t row = 0; row < depth; row++) {
        double mean = 0;
        for (ptrdiff_t k = 0; k < K; k++) mean += logits[row * padded + k] / (double)K;
        for (ptrdiff_t k = 0; k < K; k++) logits[row * padded + k] -= mean;
        t->centre[row] = mean;
    }
    for (ptrdiff_t k = K; k < padded; k++) logits[2 * stride * padded + k] = -INFINITY;
    gemm_pack(logits, depth, padded, t->logits);
}

static int model_pack(const fvlrp_model_pack_args *args) {
    pack_buffers b;
    arena memory = {0}, block = {.base = (char *)(((uintptr_t)args->block + 63) & ~(uintptr_t)63)};
    pack_layout(&b, args, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    pack_layout(&b, args, &memory);
    fvlrp_model_tables *t = model_layout(args, &block);
    *args->model = (fvlrp_model){args->real, args->inputs, args->dims, padded_dims(args->dims), args->components,
                                 args->gate, t};
    if (args->inputs) pack_projection(t, args, b.matrix);
    if (args->components) {
        pack_mixture(t, args, b.logits);
        if (screen_pays(args->model)) screen_pack(args, &t->screen, &b.screen);
    }
    arena_close(&memory);
    return FVLRP_OK;
}
