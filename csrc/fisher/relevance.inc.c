/* relevance.inc.c - relevance of descriptors: back through the Fisher vector (Eqs. 5-6) and the projection (Eq. 1).
 *
 * Eqs. 5-6 weigh the terms of Eqs. 3-4 by the shares R / (S + epsilon sgn S), which fold into one polynomial in y for
 * each component and dimension. */
#include "fisher/model.h"
#include "fisher/project.inc.c"
#include "fisher/tracks.h"
#include "gemm.inc.c"

/* ---- coefficient tables ---- */

static int tables(const fvlrp_tables_args *args) {
    const fvlrp_model *model = args->model;
    const ptrdiff_t K = model->components, dims = model->dims, stride = model->stride;
    double *u = scratch(2 * dims, sizeof(double)), *v = u + dims;
    if (!u) return FVLRP_E_MEMORY;
    memset(args->tables, 0, (size_t)(K * 3 * stride) * sizeof(REAL));
    for (ptrdiff_t k = 0; k < K; k++) {
        memset(u, 0, (size_t)(2 * dims) * sizeof(double));
        for (ptrdiff_t c = 0; c < args->cells; c++) {
            if (!args->member[c]) continue;
            const double *gu = args->shares + (c * 2 * K + k) * dims, *gv = gu + K * dims;
            for (ptrdiff_t d = 0; d < dims; d++) u[d] += gu[d];
            for (ptrdiff_t d = 0; d < dims; d++) v[d] += gv[d];
        }
        const double by_u = 1 / sqrt(args->priors[k]), by_v = 1 / sqrt(2 * args->priors[k]);
        REAL *c0 = (REAL *)args->tables + k * 3 * stride, *c1 = c0 + stride, *c2 = c1 + stride;
        for (ptrdiff_t d = 0; d < dims; d++) {
            /* u z + v (z^2 - 1) with z = a y + b, as a polynomial in y. */
            const double a = 1 / args->deviations[k * dims + d], b = -args->means[k * dims + d] * a;
            const double first = u[d] * by_u, second = v[d] * by_v;
            c0[d] = (REAL)(first * b + second * (b * b - 1));
            c1[d] = (REAL)(first * a + 2 * second * a * b);
            c2[d] = (REAL)(second * a * a);
        }
    }
    release(u);
    return FVLRP_OK;
}

/* ---- Eqs. 5-6 ---- */

/* Vectors of columns whose three coefficients fit in registers. */
enum { COEFFICIENTS = VBYTES == 64 ? 5 : 4 };

/* r = sum_k gamma_k (c0 + c1 y + c2 y^2), `width` vectors of columns of one row. The coefficients are summed in
 * registers, so that an entry costs its products and nothing is stored before the end. Neighbouring rows share
 * components, whose tables the L1 cache still holds. */
INLINE void relevance_columns(const int width, const REAL *table, ptrdiff_t stride, const uint16_t *index,
                              const REAL *gamma, int64_t count, const REAL *y, REAL *r) {
    VREAL c0[5], c1[5], c2[5];
    UNROLL for (int v = 0; v < width; v++) c0[v] = c1[v] = c2[v] = (VREAL){0};
    for (int64_t e = 0; e < count; e++) {
        const REAL *of = table + index[e] * 3 * stride;
        const VREAL g = fill(gamma[e]);
        const REAL *of1 = of + stride, *of2 = of1 + stride;
        __asm__("" : "+r"(of1), "+r"(of2)); /* own registers: indexed addressing would split the instruction */
        UNROLL for (int v = 0; v < width; v++) c0[v] += g * load(of + v * LANES);
        UNROLL for (int v = 0; v < width; v++) c1[v] += g * load(of1 + v * LANES);
        UNROLL for (int v = 0; v < width; v++) c2[v] += g * load(of2 + v * LANES);
    }
    UNROLL for (int v = 0; v < width; v++) {
        const VREAL at = load(y + v * LANES);
        store(r + v * LANES, (c2[v] * at + c1[v]) * at + c0[v]);
    }
}

INLINE void relevance_row(const REAL *table, ptrdiff_t stride, const uint16_t *index, const REAL *gamma, int64_t count,
                          const REAL *y, REAL *r) {
    const ptrdiff_t width = COEFFICIENTS * LANES;
    ptrdiff_t at = 0;
    for (; at + width <= stride; at += width)
        relevance_columns(COEFFICIENTS, table + at, stride, index, gamma, count, y + at, r + at);
    for (; at + 2 * LANES <= stride; at += 2 * LANES)
        relevance_columns(2, table + at, stride, index, gamma, count, y + at, r + at);
    for (; at < stride; at += LANES) relevance_columns(1, table + at, stride, index, gamma, count, y + at, r + at);
}

INLINE REAL sum_row(const REAL *r, ptrdiff_t length) {
    VREAL sum = {0};
    for (ptrdiff_t d = 0; d < length; d += LANES) sum += load(r + d);
    return sum_lanes(sum);
}

/* ---- the state of a call ---- */

/* Rows per block; rows to prefetch y ahead; bytes of tables, accessed at random, that stay in the L2 cache: they limit
 * the targets of a block (docs/numerics.md §7). */
enum { BACK_ROWS = 48, AHEAD = 12, TABLE_BYTES = 2 << 20 };

/* Descriptors whose bin matrices are computed together, from the same loads of the projection. */
enum { MATRIX_ROWS = VBYTES == 64 ? 4 : 1 };

typedef struct {
    const fvlrp_relevance_args *args;
    const fvlrp_model *model;
    int has_mean;
    int through;         /* whether relevance passes the projection */
    int many;            /* whether the bins of many targets share their matrices */
    ptrdiff_t together;  /* targets of a block */
    projector again;     /* used if the caller passes no y */
    REAL *xhat;          /* (BACK_ROWS, inputs): x, centred where the rule says so */
    REAL *y;             /* (BACK_ROWS, stride), then as well */
    REAL *inverse;       /* (BACK_ROWS, stride): 1 / (z +- epsilon) */
    REAL *r;             /* (together, BACK_ROWS, stride): relevance, then q = R / (z +- epsilon) */
    REAL *values;        /* (BACK_ROWS, inputs rounded up to 16): P^T q */
    REAL *matrices;      /* (MATRIX_ROWS, D, 16) */
    REAL *offset, *projected_mean; /* (stride): z = y + offset; P m */
} backward;

static backward backward_of(const fvlrp_relevance_args *args) {
    const fvlrp_model *model = args->model;
    const ptrdiff_t table = model->components * 3 * model->stride * (ptrdiff_t)sizeof(REAL);
    backward b = {.args = args, .model = model, .has_mean = has_mean(model)};
    b.through = args->bins || args->sift || args->absorbed;
    b.many = args->targets > 2 && args->bins && !args->sift; /* from three targets on, shared matrices pay */
    b.together = imin(imax(TABLE_BYTES / table, 1), imax(args->targets, 1));
    return b;
}

static void backward_layout(backward *b, arena *memory) {
    const ptrdiff_t stride = b->model->stride, inputs = b->model->inputs, size = sizeof(REAL);
    const ptrdiff_t rows = b->through ? BACK_ROWS : 0, columns = b->through ? stride : 0;
    b->r = carve(memory, b->together * BACK_ROWS, stride * size);
    if (!b->args->y) {
        b->again = projector_of(b->model, &b->args->descriptors);
        projector_layout(&b->again, memory);
        b->y = carve(memory, BACK_ROWS, stride * size);
    }
    b->xhat = carve(memory, rows, inputs * size);
    b->inverse = carve(memory, rows, stride * size);
    b->values = carve(memory, rows, round_up(inputs, 16) * size);
    b->offset = carve(memory, columns, size);
    b->projected_mean = carve(memory, columns, size);
    b->matrices = carve(memory, b->through && b->many ? MATRIX_ROWS * b->model->dims : 0, 16 * size);
}

static void backward_start(backward *b) {
    const fvlrp_model *model = b->model;
    const REAL *mean = model->tables->mean;
    if (!b->through) return;
    for (ptrdiff_t d = 0; d < model->stride; d++) {
        double sum = 0;
        for (ptrdiff_t j = 0; b->has_mean && d < model->dims && j < model->inputs; j++)
            sum += model->tables->basis[d * model->inputs + j] * (double)mean[j];
        b->projected_mean[d] = (REAL)sum;
        /* y = P (x - m); without the mean, z = P x = y + P m. */
        b->offset[d] = b->args->mean == FVLRP_MEAN_NONE ? (REAL)sum : 0;
        if (d >= model->dims) b->offset[d] = 100; /* padding: 0 / 100, far from 0 / 0 */
    }
}

/* ---- denominators of Eq. 1 ---- */

/* z_i of one descriptor in double, the sum of P_i,in xhat_in over inputs; in *size that of the terms' magnitudes. */
INLINE double exact_z(const fvlrp_model *model, ptrdiff_t dim, const REAL *xhat, double *size) {
    const double *basis = model->tables->basis + dim * model->inputs;
    double z = 0;
    *size = 0;
    for (ptrdiff_t j = 0; j < model->inputs; j++) {
        const double term = basis[j] * (double)xhat[j];
        z += term;
        *size += fabs(term);
    }
    return z;
}

/* Below this |z|, float is not accurate enough for the sign, at which epsilon sgn z jumps, or with a small epsilon for
 * the value: docs/numerics.md §5. */
INLINE REAL near_zero(double epsilon) { return (REAL)(epsilon >= 1 ? 1e-3 : 10); }

/* z of row i's dimensions closer to 0 than `near`, in double, and their inverse denominators. */
static void denominators_again(const backward *b, ptrdiff_t i, const REAL *y, REAL near) {
    const fvlrp_model *model = b->model;
    const double epsilon = b->args->epsilon;
    const int from_y = b->args->mean == FVLRP_MEAN_BIAS && b->has_mean;
    REAL *inverse = b->inverse + i * model->stride;
    for (ptrdiff_t d = 0; d < model->dims; d++) {
        double z = (double)y[d] + (double)b->offset[d], size = 0;
        if (!(fabs(z) < (double)near)) continue;
        if (!from_y) z = exact_z(model, d, b->xhat + i * model->inputs, &size);
        const double stable = z < 0 ? z - epsilon : z + epsilon;
        const int none = stable == 0 || (!from_y && epsilon == 0 && fabs(z) <= TINY * size);
        inverse[d] = none ? 0 : (REAL)(1 / stable);
    }
}

/* Inverse denominators of row i: 1 / (z + epsilon sgn z), 0 where 0/0 counts as 0. */
INLINE void denominators(const backward *b, ptrdiff_t i, const REAL *y) {
    const ptrdiff_t stride = b->model->stride;
    const VREAL epsilon = fill((REAL)b->args->epsilon), one = fill(1), zero = {0};
    const REAL near = near_zero(b->args->epsilon);
    REAL *inverse = b->inverse + i * stride;
    VMASK close = {0};
    for (ptrdiff_t d = 0; d < stride; d += LANES) {
        /* + 0 makes 0 of -0, whose sign is + here. */
        const VREAL z = load(y + d) + load(b->offset + d) + zero;
        store(inverse + d, one / (z + times_sign(epsilon, z)));
        close |= magnitude(z) < near;
    }
    if (any_lane(close)) denominators_again(b, i, y, near);
}

/* q = r / (z +- epsilon) in the place of m rows of r. Adds what the stabiliser absorbs (all where 0/0 counts as 0), and
 * under FVLRP_MEAN_BIAS what the mean does, to the outputs of a target. */
static void divide(const backward *b, ptrdiff_t m, ptrdiff_t target, REAL *r) {
    const ptrdiff_t stride = b->model->stride;
    const VREAL epsilon = fill((REAL)b->args->epsilon), one = fill(1);
    VREAL lost = {0}, mean = {0};
    for (ptrdiff_t i = 0; i < m; i++)
        for (ptrdiff_t d = 0; d < stride; d += LANES) {
            const VREAL whole = load(r + i * stride + d), inverse = load(b->inverse + i * stride + d);
            const VREAL q = whole * inverse, size = epsilon * magnitude(inverse);
            lost += whole * pick(inverse == 0, one, size);
            if (b->args->mean == FVLRP_MEAN_BIAS) mean += q * load(b->projected_mean + d);
            store(r + i * stride + d, q);
        }
    if (b->args->absorbed) b->args->absorbed[target] += sum_lanes_wide(lost);
    if (b->args->bias) b->args->bias[target] -= sum_lanes_wide(mean);
}

/* ---- Eq. 1 by one product with the projection ---- */

/* P^T q of m rows of one target: to its values, and summed over bins. */
static void values_rows(const backward *b, ptrdiff_t first, ptrdiff_t m, ptrdiff_t target, const REAL *q) {
    const fvlrp_model *model = b->model;
    const ptrdiff_t inputs = model->inputs, pitch = round_up(inputs, 16);
    REAL *sift = b->args->sift, *bins = b->args->bins;
    gemm(q, model->stride, m, model->stride, model->tables->backward, pitch, b->values, pitch);
    for (ptrdiff_t i = 0; i < m; i++) {
        const ptrdiff_t to = target * b->args->pitch + row_of(&b->args->descriptors, first + i);
        const REAL *value = b->values + i * pitch, *x = b->xhat + i * inputs;
        for (ptrdiff_t j = 0; sift && j < inputs; j += LANES) store(sift + to * inputs + j,
                                                                    load(value + j) * load(x + j));
        for (ptrdiff_t j = 0; bins && j < inputs; j += 64) {
            OCTET terms[8];
            UNROLL for (int u = 0; u < 8; u++) terms[u] = load8(value + j + 8 * u) * load8(x + j + 8 * u);
            store8(bins + to * 16 + j / 8, sums_of_eight(terms));
        }
    }
}

/* ---- Eq. 1 for many targets, bins alone ---- */

/* What each projected dimension of MATRIX_ROWS descriptors sends to its 16 bins per unit of q, (rows, D, 16):
 * sum_o P_d,8b+o xhat_8b+o. A target then costs 16 D multiplications instead of 128 D. */
static void bin_matrices(const fvlrp_model *model, const REAL *xhat, REAL *out) {
    REAL x[MATRIX_ROWS][VALUES];
    UNROLL for (int i = 0; i < MATRIX_ROWS; i++)
        for (int o = 0; o < ORIENTATIONS; o++)
            for (int b = 0; b < 16; b++) x[i][16 * o + b] = xhat[VALUES * i + 8 * b + o];
    for (int at = 0; at < 16; at += LANES) {
        VREAL values[MATRIX_ROWS][ORIENTATIONS];
        UNROLL for (int i = 0; i < MATRIX_ROWS; i++)
            UNROLL for (int o = 0; o < ORIENTATIONS; o++) values[i][o] = load(x[i] + 16 * o + at);
        const REAL *basis = (const REAL *)model->tables->binned + at;
        for (ptrdiff_t d = 0; d < model->dims; d++, basis += VALUES) {
            VREAL sum[MATRIX_ROWS] = {{0}};
            UNROLL for (int o = 0; o < ORIENTATIONS; o++) {
                const VREAL part = load(basis + 16 * o);
                UNROLL for (int i = 0; i < MATRIX_ROWS; i++) sum[i] += part * values[i][o];
            }
            UNROLL for (int i = 0; i < MATRIX_ROWS; i++) store(out + (i * model->dims + d) * 16 + at, sum[i]);
        }
    }
}

/* bins (16) = q (D) times a bin matrix, for up to 4 targets, q_apart and bins_apart elements apart. */
INLINE void bins_of(const int targets, const REAL *q, ptrdiff_t q_apart, ptrdiff_t dims, const REAL *matrix, REAL *bins,
                    ptrdiff_t bins_apart) {
    for (int at = 0; at < 16; at += LANES) {
        VREAL even[4], odd[4];
        UNROLL for (int t = 0; t < targets; t++) even[t] = odd[t] = (VREAL){0};
        ptrdiff_t d = 0;
        for (; d + 2 <= dims; d += 2) {
            const VREAL first = load(matrix + 16 * d + at), second = load(matrix + 16 * d + 16 + at);
            UNROLL for (int t = 0; t < targets; t++) {
                even[t] += q[t * q_apart + d] * first;
                odd[t] += q[t * q_apart + d + 1] * second;
            }
        }
        if (d < dims)
            UNROLL for (int t = 0; t < targets; t++) even[t] += q[t * q_apart + d] * load(matrix + 16 * d + at);
        UNROLL for (int t = 0; t < targets; t++) store(bins + t * bins_apart + at, even[t] + odd[t]);
    }
}

/* Bins of `count` targets from `target` on. */
static void bins_rows(const backward *b, ptrdiff_t first, ptrdiff_t m, ptrdiff_t target, ptrdiff_t count) {
    const fvlrp_model *model = b->model;
    const ptrdiff_t stride = model->stride, apart = BACK_ROWS * stride, pitch = b->args->pitch;
    for (ptrdiff_t i = 0; i < m; i++) {
        if (i % MATRIX_ROWS == 0) bin_matrices(model, b->xhat + i * model->inputs, b->matrices);
        const REAL *matrix = b->matrices + i % MATRIX_ROWS * model->dims * 16, *q = b->r + i * stride;
        const ptrdiff_t to = target * pitch + row_of(&b->args->descriptors, first + i);
        REAL *bins = (REAL *)b->args->bins + to * 16;
        ptrdiff_t t = 0;
        for (; t + 4 <= count; t += 4)
            bins_of(4, q + t * apart, apart, model->dims, matrix, bins + t * pitch * 16, pitch * 16);
        for (; t < count; t++) bins_of(1, q + t * apart, apart, model->dims, matrix, bins + t * pitch * 16, pitch * 16);
    }
}

/* ---- the walk over rows and targets ---- */

/* What m rows need for any target: gathers xhat and returns y. */
static const REAL *backward_rows(const backward *b, ptrdiff_t first, ptrdiff_t m) {
    const fvlrp_model *model = b->model;
    if (b->through) {
        gather(&b->args->descriptors, first, m, model->inputs, b->xhat);
        if (b->args->mean == FVLRP_MEAN_CENTERED && b->has_mean) centre_rows(model, m, b->xhat);
    }
    if (b->args->y) return (const REAL *)b->args->y + first * model->stride;
    project_tile(&b->again, first, m, b->y);
    return b->y;
}

/* Prefetch x and y of later rows: the hardware cannot predict the rows of a cell. */
INLINE void prefetch_rows(const backward *b, ptrdiff_t row, const REAL *y) {
    const fvlrp_descriptors *from = &b->args->descriptors;
    const ptrdiff_t size = b->model->inputs * from->type, stride = b->model->stride, later = row + BACK_ROWS;
    if (later < from->n) {
        const char *x = (const char *)from->x + row_of(from, later) * size;
        for (ptrdiff_t at = 0; at < size; at += 64) __builtin_prefetch(x + at);
        __builtin_prefetch(x + size - 1);
    }
    if (b->args->y && row + AHEAD < from->n)
        for (ptrdiff_t d = 0; d < stride; d += 64 / (ptrdiff_t)sizeof(REAL))
            __builtin_prefetch(y + AHEAD * stride + d);
}

/* Eqs. 5-6 of m rows for one target, to r, `total` and `pca`. */
static void relevance_rows(const backward *b, ptrdiff_t first, ptrdiff_t m, const REAL *y, ptrdiff_t target,
                           int divisors,
                           REAL *r) {
    const fvlrp_relevance_args *args = b->args;
    const ptrdiff_t stride = b->model->stride, dims = b->model->dims;
    const REAL *table = (const REAL *)args->tables + target * b->model->components * 3 * stride;
    const REAL *gamma = args->csr.gamma;
    for (ptrdiff_t i = 0; i < m; i++, y += stride, r += stride) {
        const ptrdiff_t to = target * args->pitch + row_of(&args->descriptors, first + i);
        const int64_t at = args->csr.indptr[first + i], count = args->csr.indptr[first + i + 1] - at;
        if (divisors) prefetch_rows(b, first + i, y);
        /* Here, so that divisions overlap with the products of the same row. */
        if (divisors) denominators(b, i, y);
        relevance_row(table, stride, args->csr.index + at, gamma + at, count, y, r);
        if (args->total) args->total[to] = (double)sum_row(r, stride);
        if (args->pca) memcpy((REAL *)args->pca + to * dims, r, (size_t)dims * sizeof(REAL));
    }
}

static int relevance(const fvlrp_relevance_args *args) {
    const ptrdiff_t n = args->descriptors.n, targets = args->targets, apart = BACK_ROWS * args->model->stride;
    backward b = backward_of(args);
    arena memory = {0};
    backward_layout(&b, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    backward_layout(&b, &memory);
    backward_start(&b);
    for (ptrdiff_t target = 0; target < targets; target += b.together) {
        const ptrdiff_t count = imin(b.together, targets - target);
        for (ptrdiff_t first = 0; first < n; first += BACK_ROWS) {
            const ptrdiff_t m = imin(BACK_ROWS, n - first);
            const REAL *y = backward_rows(&b, first, m);
            for (ptrdiff_t t = 0; t < count; t++) {
                REAL *r = b.r + t * apart;
                relevance_rows(&b, first, m, y, target + t, b.through && t == 0, r);
                if (b.through) divide(&b, m, target + t, r);
                if (!b.many && (args->bins || args->sift)) values_rows(&b, first, m, target + t, r);
            }
            if (b.many) bins_rows(&b, first, m, target, count);
        }
    }
    arena_close(&memory);
    return FVLRP_OK;
}
