/* project.c - descriptors to D dimensions and back: y = P (x - m), and Eq. 1 through the same P.
 *
 * Included by isa.c once per real type. */
#include "gemm.h"

/* Gather `m` descriptors into real rows of `inputs` values. */
static void R(gather)(int type, const void *x, const int64_t *rows, ptrdiff_t first, ptrdiff_t m, ptrdiff_t inputs,
                      REAL *out) {
    for (ptrdiff_t i = 0; i < m; i++, out += inputs) {
        const ptrdiff_t at = (rows ? rows[first + i] : first + i) * inputs;
        if (type == FVLRP_U8) {
            const uint8_t *from = (const uint8_t *)x + at;
            for (ptrdiff_t j = 0; j < inputs; j++) out[j] = from[j];
        } else if (type == FVLRP_F32) {
            const float *from = (const float *)x + at;
            for (ptrdiff_t j = 0; j < inputs; j++) out[j] = from[j];
        } else {
            const double *from = (const double *)x + at;
            for (ptrdiff_t j = 0; j < inputs; j++) out[j] = (REAL)from[j];
        }
    }
}

/* mean: inputs values; then P m, D values (`stride`). Where the model has no mean both are 0 and has_mean is 0. */
INLINE int R(has_mean)(const fvlrp_model *m) {
    for (ptrdiff_t j = 0; j < m->inputs; j++)
        if (((const REAL *)m->mean)[j] != 0) return 1;
    return 0;
}

/* y (m, stride) of a gathered tile; x is centred in place where the model has a mean. */
INLINE void R(project_tile)(const fvlrp_model *model, int centre, REAL *x, ptrdiff_t m, REAL *y) {
    const REAL *mean = model->mean;
    if (centre)
        for (ptrdiff_t i = 0; i < m; i++)
            for (ptrdiff_t j = 0; j < model->inputs; j++) x[i * model->inputs + j] -= mean[j];
    R(gemm)(x, model->inputs, m, model->inputs, model->forward, model->stride, NULL, y, model->stride);
}

static int R(project)(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n, void *y) {
    int status = FVLRP_E_MEMORY;
    const ptrdiff_t tile = R(TILE), stride = model->stride, centre = R(has_mean)(model);
    REAL *in = scratch((tile + R(SLACK)) * model->inputs, sizeof(REAL));
    REAL *out = scratch((tile + R(SLACK)) * stride, sizeof(REAL));
    if (!in || !out) goto out;
    memset(in, 0, (size_t)((tile + R(SLACK)) * model->inputs) * sizeof(REAL));
    for (ptrdiff_t first = 0; first < n; first += tile) {
        const ptrdiff_t m = n - first < tile ? n - first : tile;
        R(gather)(type, x, rows, first, m, model->inputs, in);
        R(project_tile)(model, (int)centre, in, m, out);
        memcpy((REAL *)y + first * stride, out, (size_t)(m * stride) * sizeof(REAL));
    }
    status = FVLRP_OK;
out:
    free(in);
    free(out);
    return status;
}

/* ---- backwards: Eq. 1 ---- */

/* A row of SIFT values with the orientations outside and the bins inside. */
static void R(by_orientation)(const double *row, ptrdiff_t inputs, REAL *out) {
    const ptrdiff_t bins = inputs / 8;
    for (ptrdiff_t i = 0; i < bins * 8; i++) out[i % 8 * bins + i / 8] = (REAL)row[i];
}

/* For many targets: what each projected dimension of a descriptor sends to its 16 bins per unit of relevance,
 * (D, 16): inverse_d * sum_o basis_d,8b+o xhat_8b+o. A target then costs 16 D multiplications instead of 128 D. */
static void R(bin_matrix)(const fvlrp_model *model, const REAL *xhat, const REAL *inverse, REAL *out) {
    REAL x[128];
    UNROLL for (int o = 0; o < 8; o++)
        for (int b = 0; b < 16; b++) x[16 * o + b] = xhat[8 * b + o];
    for (int at = 0; at < 16; at += LANES) {
        VREAL values[8];
        UNROLL for (int o = 0; o < 8; o++) values[o] = R(load)(x + 16 * o + at);
        const REAL *basis = (const REAL *)model->binned + at;
        for (ptrdiff_t d = 0; d < model->dims; d++, basis += 128) {
            VREAL even = {0}, odd = {0};
            UNROLL for (int o = 0; o < 8; o += 2) {
                even += R(load)(basis + 16 * o) * values[o];
                odd += R(load)(basis + 16 * o + 16) * values[o + 1];
            }
            R(store)(out + 16 * d + at, (even + odd) * inverse[d]);
        }
    }
}

/* bins (16) = relevance (D) times a bin matrix. */
INLINE void R(bins_of)(const REAL *relevance, ptrdiff_t dims, const REAL *matrix, REAL *bins) {
    for (int at = 0; at < 16; at += LANES) {
        VREAL sum[4] = {{0}, {0}, {0}, {0}};
        ptrdiff_t d = 0;
        for (; d + 4 <= dims; d += 4)
            UNROLL for (int u = 0; u < 4; u++) sum[u] += relevance[d + u] * R(load)(matrix + 16 * (d + u) + at);
        for (; d < dims; d++) sum[0] += relevance[d] * R(load)(matrix + 16 * d + at);
        R(store)(bins + at, (sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
}

typedef REAL R(eight) __attribute__((vector_size(8 * sizeof(REAL))));
typedef REAL R(eight_any) __attribute__((vector_size(8 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
INLINE R(eight) R(load8)(const REAL *p) { return *(const R(eight_any) *)p; }

/* Sums of eight runs of eight: a bin's eight orientations. */
INLINE void R(sum_runs)(const REAL *x, REAL *out) {
    R(eight) a[4], b[2];
    UNROLL for (int i = 0; i < 4; i++) {
        const R(eight) u = R(load8)(x + 16 * i), v = R(load8)(x + 16 * i + 8);
        a[i] = __builtin_shufflevector(u, v, 0, 8, 2, 10, 4, 12, 6, 14) +
               __builtin_shufflevector(u, v, 1, 9, 3, 11, 5, 13, 7, 15);
    }
    UNROLL for (int i = 0; i < 2; i++)
        b[i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(a[2 * i], a[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    *(R(eight_any) *)out = __builtin_shufflevector(b[0], b[1], 0, 1, 2, 3, 8, 9, 10, 11) +
                           __builtin_shufflevector(b[0], b[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

/* z_i in double for one descriptor: sum over inputs of basis_i,in xhat_in; sizes of its terms in *magnitude. */
INLINE double R(exact_z)(const fvlrp_model *model, ptrdiff_t dim, const REAL *xhat, double *magnitude) {
    const double *basis = model->basis + dim * model->inputs;
    double z = 0, size = 0;
    for (ptrdiff_t j = 0; j < model->inputs; j++) {
        const double term = basis[j] * (double)xhat[j];
        z += term;
        size += fabs(term);
    }
    *magnitude = size;
    return z;
}

/* Denominators of Eq. 1 for a tile, inverted: inverse = 1 / (z + epsilon sgn z), 0 where 0/0 counts as 0.
 * lost = epsilon / (|z| + epsilon), or 1 where nothing is passed on. A float z too close to 0 for its sign (or, with a
 * small epsilon, for its value) is computed again in double: epsilon sgn z jumps there. */
static void R(denominators)(const fvlrp_model *model, const REAL *xhat, const REAL *y, const REAL *offset, ptrdiff_t m,
                            double epsilon, int exact, REAL *inverse) {
    const ptrdiff_t stride = model->stride, dims = model->dims;
    const REAL eps = (REAL)epsilon;
    const REAL near = (REAL)(epsilon >= 1 ? 1e-3 : 10);
    for (ptrdiff_t i = 0; i < m; i++) {
        const REAL *yi = y + i * stride;
        REAL *inv = inverse + i * stride;
        int close = 0;
        for (ptrdiff_t d = 0; d < stride; d++) {
            const REAL z = yi[d] + offset[d];
            const REAL stable = z < 0 ? z - eps : z + eps;
            inv[d] = 1 / stable;
            close |= (z < near) & (z > -near);
        }
        for (ptrdiff_t d = dims; d < stride; d++) inv[d] = 0;
        if (!close) continue;
        for (ptrdiff_t d = 0; d < dims; d++) {
            double z = (double)yi[d] + (double)offset[d], magnitude;
            if (!(fabs(z) < (double)near)) continue;
            if (exact) {
                z = R(exact_z)(model, d, xhat + i * model->inputs, &magnitude);
                if (epsilon == 0 && fabs(z) <= 1e-12 * magnitude) {
                    inv[d] = 0;
                    continue;
                }
            }
            const double stable = z < 0 ? z - epsilon : z + epsilon;
            inv[d] = stable == 0 ? 0 : (REAL)(1 / stable);
        }
    }
}
