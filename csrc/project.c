/* project.c - descriptors to D dimensions and back: y = P (x - m), and Eq. 1 through the same P.
 *
 * Included by isa.c once per real type. */
#include "gemm.h"
#include "whole.h"
#undef BY_WHOLE
#if defined(HAVE_WHOLE) && REAL_BITS == 32
#define BY_WHOLE 1
#endif

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

/* Whether the model has a mean: `inputs` values, all 0 where it has none. */
INLINE int R(has_mean)(const fvlrp_model *m) {
    for (ptrdiff_t j = 0; j < m->inputs; j++)
        if (((const REAL *)m->mean)[j] != 0) return 1;
    return 0;
}

/* How descriptors of one call are projected, and tiles to do it in. */
typedef struct {
    const fvlrp_model *model;
    int type, whole, centre;
    const void *x;
    const int64_t *rows;
    REAL *in, *out; /* (TILE + SLACK, inputs), (TILE + SLACK, stride) */
} R(projector);

static int R(projector_open)(R(projector) *p, const fvlrp_model *model, int type, const void *x, const int64_t *rows) {
    const ptrdiff_t tile = R(TILE) + R(SLACK);
    *p = (R(projector)){.model = model, .type = type, .x = x, .rows = rows, .centre = R(has_mean)(model)};
#ifdef BY_WHOLE
    if ((p->whole = whole_fits(model, type, p->centre))) return FVLRP_OK;
#endif
    p->in = scratch(tile * model->inputs, sizeof(REAL));
    p->out = scratch(tile * model->stride, sizeof(REAL));
    if (!p->in || !p->out) return FVLRP_E_MEMORY;
    memset(p->in, 0, (size_t)(tile * model->inputs) * sizeof(REAL));
    return FVLRP_OK;
}

static void R(projector_close)(R(projector) *p) {
    free(p->in);
    free(p->out);
}

/* y (m <= TILE, stride) of the descriptors from `first` on. */
static void R(project_tile)(const R(projector) *p, ptrdiff_t first, ptrdiff_t m, REAL *y) {
    const fvlrp_model *model = p->model;
    const REAL *mean = model->mean;
#ifdef BY_WHOLE
    if (p->whole) {
        whole_project(model, p->x, p->rows, first, m, y);
        return;
    }
#endif
    R(gather)(p->type, p->x, p->rows, first, m, model->inputs, p->in);
    if (p->centre)
        for (ptrdiff_t i = 0; i < m; i++)
            for (ptrdiff_t j = 0; j < model->inputs; j++) p->in[i * model->inputs + j] -= mean[j];
    R(gemm)(p->in, model->inputs, m, model->inputs, model->forward, model->stride, NULL, p->out, model->stride);
    memcpy(y, p->out, (size_t)(m * model->stride) * sizeof(REAL));
}

static int R(project)(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n, void *y) {
    R(projector) p;
    const int status = R(projector_open)(&p, model, type, x, rows);
    for (ptrdiff_t first = 0; status == FVLRP_OK && first < n; first += R(TILE))
        R(project_tile)(&p, first, least(R(TILE), n - first), (REAL *)y + first * model->stride);
    R(projector_close)(&p);
    return status;
}

/* ---- backwards: Eq. 1 ---- */

/* A row of SIFT values with the orientations outside and the bins inside. */
static void R(by_orientation)(const double *row, ptrdiff_t inputs, REAL *out) {
    const ptrdiff_t bins = inputs / 8;
    for (ptrdiff_t i = 0; i < bins * 8; i++) out[i % 8 * bins + i / 8] = (REAL)row[i];
}

/* What vector extensions have no word for. */
#if REAL_BITS == 32
typedef vint R(mask);
#else
typedef vlong R(mask);
#endif
INLINE VREAL R(absolute)(VREAL v) { return (VREAL)((R(mask))v & ~(R(mask))R(fill)((REAL)-0.0)); }
INLINE VREAL R(with_sign)(VREAL v, VREAL sign) { return (VREAL)((R(mask))v | ((R(mask))sign & (R(mask))R(fill)((REAL)-0.0))); }
/* a / b to 2 units in the last place, for normal b whose inverse is normal: division units take four times as long. */
INLINE VREAL R(quotient)(VREAL a, VREAL b) {
#if REAL_BITS == 32 && VBYTES == 64
    const VREAL rough = (VREAL)_mm512_rcp14_ps((__m512)b);
    return a * (rough + rough * (1 - b * rough));
#else
    return a / b;
#endif
}
INLINE int R(any)(R(mask) v) {
    uint64_t words[VBYTES / 8], all = 0;
    memcpy(words, &v, VBYTES);
    UNROLL for (int i = 0; i < VBYTES / 8; i++) all |= words[i];
    return all != 0;
}

/* Rows whose matrices are made together: what is read of the projection then serves all of them. */
enum { R(MATRIX_ROWS) = VBYTES == 64 ? 4 : 1 };

/* For many targets: what each projected dimension of MATRIX_ROWS descriptors sends to its 16 bins per unit of q,
 * (rows, D, 16): sum_o basis_d,8b+o xhat_8b+o. A target then costs 16 D multiplications instead of 128 D. */
static void R(bin_matrices)(const fvlrp_model *model, const REAL *xhat, REAL *out) {
    enum { ROWS = R(MATRIX_ROWS) };
    REAL x[ROWS][128];
    UNROLL for (int i = 0; i < ROWS; i++)
        for (int o = 0; o < 8; o++)
            for (int b = 0; b < 16; b++) x[i][16 * o + b] = xhat[128 * i + 8 * b + o];
    for (int at = 0; at < 16; at += LANES) {
        VREAL values[ROWS][8];
        UNROLL for (int i = 0; i < ROWS; i++)
            UNROLL for (int o = 0; o < 8; o++) values[i][o] = R(load)(x[i] + 16 * o + at);
        const REAL *basis = (const REAL *)model->binned + at;
        for (ptrdiff_t d = 0; d < model->dims; d++, basis += 128) {
            VREAL sum[ROWS] = {{0}};
            UNROLL for (int o = 0; o < 8; o++) {
                const VREAL part = R(load)(basis + 16 * o);
                UNROLL for (int i = 0; i < ROWS; i++) sum[i] += part * values[i][o];
            }
            UNROLL for (int i = 0; i < ROWS; i++) R(store)(out + (i * model->dims + d) * 16 + at, sum[i]);
        }
    }
}

/* bins (16) = q (D) times a bin matrix, for `targets` <= 4 of them: their q and bins lie so far apart. */
INLINE void R(bins_of)(const int targets, const REAL *q, ptrdiff_t q_apart, ptrdiff_t dims, const REAL *matrix,
                       REAL *bins, ptrdiff_t bins_apart) {
    for (int at = 0; at < 16; at += LANES) {
        VREAL even[4], odd[4];
        UNROLL for (int t = 0; t < targets; t++) even[t] = odd[t] = (VREAL){0};
        ptrdiff_t d = 0;
        for (; d + 2 <= dims; d += 2) {
            const VREAL first = R(load)(matrix + 16 * d + at), second = R(load)(matrix + 16 * d + 16 + at);
            UNROLL for (int t = 0; t < targets; t++) {
                even[t] += q[t * q_apart + d] * first;
                odd[t] += q[t * q_apart + d + 1] * second;
            }
        }
        if (d < dims)
            UNROLL for (int t = 0; t < targets; t++) even[t] += q[t * q_apart + d] * R(load)(matrix + 16 * d + at);
        UNROLL for (int t = 0; t < targets; t++) R(store)(bins + t * bins_apart + at, even[t] + odd[t]);
    }
}

typedef REAL R(eight) __attribute__((vector_size(8 * sizeof(REAL))));
typedef REAL R(eight_any) __attribute__((vector_size(8 * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
INLINE R(eight) R(load8)(const REAL *p) { return *(const R(eight_any) *)p; }

/* The sums of eight octets: a bin's eight orientations each. */
INLINE R(eight) R(sums_of_eight)(const R(eight) x[8]) {
    R(eight) a[4], b[2];
    UNROLL for (int i = 0; i < 4; i++)
        a[i] = __builtin_shufflevector(x[2 * i], x[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14) +
               __builtin_shufflevector(x[2 * i], x[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    UNROLL for (int i = 0; i < 2; i++)
        b[i] = __builtin_shufflevector(a[2 * i], a[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(a[2 * i], a[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return __builtin_shufflevector(b[0], b[1], 0, 1, 2, 3, 8, 9, 10, 11) +
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

/* Below this, epsilon sgn z is not to be trusted to a float z. */
INLINE REAL R(near_zero)(double epsilon) { return (REAL)(epsilon >= 1 ? 1e-3 : 10); }
