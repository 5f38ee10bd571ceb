/* fisher.c - the Fisher vector's statistics (Eqs. 3-4) and the relevance that flows back through them (Eqs. 5-6).
 *
 * With z = (y - mu_k) / sigma_k:  Psi_mu = gamma z / sqrt(pi_k),  Psi_sigma = gamma (z^2 - 1) / sqrt(2 pi_k).
 * Forward sums gamma, gamma z and gamma z^2 over the descriptors of a cell; the constants per component come later, in
 * double. Backward weighs the same terms by the shares R / (S + epsilon sgn S), folded into one polynomial in y for
 * each component and dimension. Included by isa.c once per real type. */

enum { R(CHUNK) = 256 }; /* rows that float sums run over before they are merged in double */

typedef struct {
    const fvlrp_model *model;
    REAL *sums;      /* (K, 2, stride): sum gamma z, sum gamma z^2 of the chunk */
    uint8_t *dirty;  /* (K): whether the chunk holds anything of a component */
    ptrdiff_t rows;
    double *s0, *s1, *s2;
} R(pooler);

static int R(pooler_open)(R(pooler) *p, const fvlrp_model *model, double *s0, double *s1, double *s2) {
    const ptrdiff_t length = model->components * 2 * model->stride;
    *p = (R(pooler)){.model = model, .s0 = s0, .s1 = s1, .s2 = s2};
    p->sums = scratch(length, sizeof(REAL));
    p->dirty = calloc((size_t)model->components, 1);
    if (!p->sums || !p->dirty) return FVLRP_E_MEMORY;
    memset(p->sums, 0, (size_t)length * sizeof(REAL));
    return FVLRP_OK;
}

static void R(pooler_merge)(R(pooler) *p) {
    const ptrdiff_t dims = p->model->dims, stride = p->model->stride;
    for (ptrdiff_t k = 0; k < p->model->components; k++) {
        if (!p->dirty[k]) continue;
        REAL *first = p->sums + k * 2 * stride, *second = first + stride;
        double *s1 = p->s1 + k * dims, *s2 = p->s2 + k * dims;
        for (ptrdiff_t d = 0; d < dims; d++) s1[d] += first[d];
        for (ptrdiff_t d = 0; d < dims; d++) s2[d] += second[d];
        memset(first, 0, (size_t)(2 * stride) * sizeof(REAL));
        p->dirty[k] = 0;
    }
    p->rows = 0;
}

static void R(pooler_close)(R(pooler) *p) {
    free(p->sums);
    free(p->dirty);
}

INLINE void R(pool_rows)(const ptrdiff_t vectors, R(pooler) *p, const REAL *y, ptrdiff_t m, const int64_t *indptr,
                         const uint16_t *index, const REAL *gamma) {
    const ptrdiff_t stride = vectors * LANES;
    const REAL *scales = p->model->scale, *shifts = p->model->shift;
    for (ptrdiff_t i = 0; i < m; i++, y += stride) {
        for (int64_t e = indptr[i]; e < indptr[i + 1]; e++) {
            const ptrdiff_t k = index[e];
            const REAL *scale = scales + k * stride, *shift = shifts + k * stride;
            REAL *first = p->sums + k * 2 * stride, *second = first + stride;
            for (ptrdiff_t v = 0; v < vectors; v++) {
                const VREAL z = R(load)(y + v * LANES) * R(load)(scale + v * LANES) + R(load)(shift + v * LANES);
                const VREAL gz = gamma[e] * z;
                R(store)(first + v * LANES, R(load)(first + v * LANES) + gz);
                R(store)(second + v * LANES, R(load)(second + v * LANES) + gz * z);
            }
            p->s0[k] += (double)gamma[e];
            p->dirty[k] = 1;
        }
        if (++p->rows == R(CHUNK)) R(pooler_merge)(p);
    }
}

/* D = 80 is the classifier's; its loop has a constant length. */
static void R(pool_tile)(R(pooler) *p, const REAL *y, ptrdiff_t m, const int64_t *indptr, const uint16_t *index,
                         const REAL *gamma) {
    const ptrdiff_t vectors = p->model->stride / LANES;
    if (vectors == 80 / LANES)
        R(pool_rows)(80 / LANES, p, y, m, indptr, index, gamma);
    else
        R(pool_rows)(vectors, p, y, m, indptr, index, gamma);
}

static int R(pool)(const fvlrp_model *model, const void *y, ptrdiff_t n, const int64_t *indptr, const uint16_t *index,
                   const void *gamma, double *s0, double *s1, double *s2) {
    R(pooler) p;
    const int status = R(pooler_open)(&p, model, s0, s1, s2);
    if (status == FVLRP_OK) {
        R(pool_tile)(&p, y, n, indptr, index, gamma);
        R(pooler_merge)(&p);
    }
    R(pooler_close)(&p);
    return status;
}

static int R(encode)(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n,
                     ptrdiff_t capacity, void *y, int64_t *indptr, uint16_t *index, void *gamma, double *s0, double *s1,
                     double *s2, ptrdiff_t *done) {
    const ptrdiff_t tile = R(TILE), stride = model->stride;
    const int centre = R(has_mean)(model);
    R(assigner) a = {0};
    R(pooler) p = {0};
    REAL *in = scratch((tile + R(SLACK)) * model->inputs, sizeof(REAL));
    REAL *out = scratch((tile + R(SLACK)) * stride, sizeof(REAL));
    int status = R(assigner_open)(&a, model);
    if (status == FVLRP_OK) status = R(pooler_open)(&p, model, s0, s1, s2);
    if (!in || !out) status = FVLRP_E_MEMORY;
    if (status != FVLRP_OK) goto out;
    memset(in, 0, (size_t)((tile + R(SLACK)) * model->inputs) * sizeof(REAL));

    while (*done < n && status == FVLRP_OK) {
        const ptrdiff_t m = n - *done < tile ? n - *done : tile;
        R(gather)(type, x, rows, *done, m, model->inputs, in);
        R(project_tile)(model, centre, in, m, out);
        const ptrdiff_t fitted = R(assign)(&a, out, m, capacity, indptr + *done, index, gamma, NULL);
        R(pool_tile)(&p, out, fitted, indptr + *done, index, gamma);
        memcpy((REAL *)y + *done * stride, out, (size_t)(fitted * stride) * sizeof(REAL));
        *done += fitted;
        if (fitted < m) status = FVLRP_E_FULL;
    }
    R(pooler_merge)(&p);
out:
    R(assigner_close)(&a);
    R(pooler_close)(&p);
    free(in);
    free(out);
    return status;
}

/* ---- backwards ---- */

static int R(tables)(const fvlrp_model *model, ptrdiff_t cells, const double *shares, const uint8_t *member,
                     const double *priors, const double *means, const double *deviations, void *tables) {
    const ptrdiff_t K = model->components, dims = model->dims, stride = model->stride;
    double *sums = scratch(2 * dims, sizeof(double));
    if (!sums) return FVLRP_E_MEMORY;
    memset(tables, 0, (size_t)(K * 3 * stride) * sizeof(REAL));
    for (ptrdiff_t k = 0; k < K; k++) {
        double *u = sums, *v = sums + dims;
        memset(sums, 0, (size_t)(2 * dims) * sizeof(double));
        for (ptrdiff_t c = 0; c < cells; c++) {
            if (!member[c]) continue;
            const double *gu = shares + (c * 2 * K + k) * dims, *gv = gu + K * dims;
            for (ptrdiff_t d = 0; d < dims; d++) u[d] += gu[d];
            for (ptrdiff_t d = 0; d < dims; d++) v[d] += gv[d];
        }
        const double by_u = 1 / sqrt(priors[k]), by_v = 1 / sqrt(2 * priors[k]);
        REAL *c0 = (REAL *)tables + k * 3 * stride, *c1 = c0 + stride, *c2 = c1 + stride;
        for (ptrdiff_t d = 0; d < dims; d++) {
            /* u z + v (z^2 - 1) with z = a y + b, as a polynomial in y. */
            const double a = 1 / deviations[k * dims + d], b = -means[k * dims + d] * a;
            const double first = u[d] * by_u, second = v[d] * by_v;
            c0[d] = (REAL)(first * b + second * (b * b - 1));
            c1[d] = (REAL)(first * a + 2 * second * a * b);
            c2[d] = (REAL)(second * a * a);
        }
    }
    free(sums);
    return FVLRP_OK;
}

/* Relevance of one row in `width` vectors from column `at` on: the polynomials of its components, weighed by gamma,
 * summed in registers; then Horner's scheme. */
INLINE void R(relevance_columns)(const int width, const ptrdiff_t stride, const REAL *y, int64_t begin, int64_t end,
                                 const uint16_t *index, const REAL *gamma, const REAL *table, REAL *r) {
    VREAL c0[5], c1[5], c2[5];
    UNROLL for (int v = 0; v < width; v++) c0[v] = c1[v] = c2[v] = (VREAL){0};
    for (int64_t e = begin; e < end; e++) {
        const REAL *t = table + (ptrdiff_t)index[e] * 3 * stride;
        const VREAL g = R(fill)(gamma[e]);
        UNROLL for (int v = 0; v < width; v++) {
            c0[v] += g * R(load)(t + v * LANES);
            c1[v] += g * R(load)(t + stride + v * LANES);
            c2[v] += g * R(load)(t + 2 * stride + v * LANES);
        }
    }
    UNROLL for (int v = 0; v < width; v++) {
        const VREAL x = R(load)(y + v * LANES);
        R(store)(r + v * LANES, (c2[v] * x + c1[v]) * x + c0[v]);
    }
}

static void R(relevance_tile)(const ptrdiff_t stride, const REAL *y, ptrdiff_t m, const int64_t *indptr,
                              const uint16_t *index, const REAL *gamma, const REAL *table, REAL *r) {
    for (ptrdiff_t i = 0; i < m; i++, y += stride, r += stride) {
        ptrdiff_t at = 0;
        for (; at + 5 * LANES <= stride; at += 5 * LANES)
            R(relevance_columns)(5, stride, y + at, indptr[i], indptr[i + 1], index, gamma, table + at, r + at);
        for (; at < stride; at += LANES)
            R(relevance_columns)(1, stride, y + at, indptr[i], indptr[i + 1], index, gamma, table + at, r + at);
    }
}

INLINE double R(sum_row)(const REAL *r, ptrdiff_t length) {
    VREAL sum = {0};
    for (ptrdiff_t d = 0; d < length; d += LANES) sum += R(load)(r + d);
    double total = 0;
    for (int j = 0; j < LANES; j++) total += (double)sum[j];
    return total;
}

/* Scratch of fvlrp_relevance and what a call keeps constant. */
typedef struct {
    REAL *xhat, *inverse, *lost, *r, *q, *values, *offset, *projected_mean;
    int has_mean;
} R(backward);

static void R(backward_close)(R(backward) *b) {
    free(b->xhat);
    free(b->inverse);
    free(b->lost);
    free(b->r);
    free(b->q);
    free(b->values);
    free(b->offset);
    free(b->projected_mean);
}

static int R(backward_open)(R(backward) *b, const fvlrp_model *model, int mean, int through) {
    const ptrdiff_t rows = R(TILE) + R(SLACK), stride = model->stride, inputs = model->inputs;
    *b = (R(backward)){0};
    b->r = scratch(rows * stride, sizeof(REAL));
    if (!b->r) return FVLRP_E_MEMORY;
    if (!through) return FVLRP_OK;
    b->xhat = scratch(rows * inputs, sizeof(REAL));
    b->inverse = scratch(rows * stride, sizeof(REAL));
    b->lost = scratch(rows * stride, sizeof(REAL));
    b->q = scratch(rows * stride, sizeof(REAL));
    b->values = scratch(rows * ((inputs + LANES - 1) / LANES * LANES), sizeof(REAL));
    b->offset = scratch(stride, sizeof(REAL));
    b->projected_mean = scratch(stride, sizeof(REAL));
    if (!b->xhat || !b->inverse || !b->lost || !b->q || !b->values || !b->offset || !b->projected_mean)
        return FVLRP_E_MEMORY;
    memset(b->q, 0, (size_t)(rows * stride) * sizeof(REAL));
    memset(b->offset, 0, (size_t)stride * sizeof(REAL));
    memset(b->projected_mean, 0, (size_t)stride * sizeof(REAL));
    b->has_mean = R(has_mean)(model);
    for (ptrdiff_t d = 0; b->has_mean && d < model->dims; d++) {
        double sum = 0;
        for (ptrdiff_t j = 0; j < inputs; j++) sum += model->basis[d * inputs + j] * (double)((REAL *)model->mean)[j];
        b->projected_mean[d] = (REAL)sum;
        /* y = P (x - m); without the mean, z = P x = y + P m. */
        if (mean == FVLRP_MEAN_NONE) b->offset[d] = (REAL)sum;
    }
    return FVLRP_OK;
}

/* What 1 - z inverse leaves of each dimension: the stabiliser's part, or all where 0/0 counts as 0. */
static void R(losses)(const fvlrp_model *model, const REAL *inverse, ptrdiff_t m, double epsilon, REAL *lost) {
    for (ptrdiff_t i = 0; i < m * model->stride; i++) {
        const REAL size = inverse[i] < 0 ? -inverse[i] : inverse[i];
        lost[i] = inverse[i] == 0 ? 1 : (REAL)epsilon * size;
    }
}

static int R(relevance)(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n,
                        const void *y, const int64_t *indptr, const uint16_t *index, const void *gamma,
                        ptrdiff_t targets, const void *tables, double epsilon, int mean, const fvlrp_relevances *out) {
    const ptrdiff_t tile = R(TILE), stride = model->stride, dims = model->dims, inputs = model->inputs;
    const int through = out->bins || out->sift || out->absorbed;
    R(backward) b;
    int status = R(backward_open)(&b, model, mean, through);
    if (status != FVLRP_OK) goto out;

    for (ptrdiff_t first = 0; first < n; first += tile) {
        const ptrdiff_t m = n - first < tile ? n - first : tile;
        const REAL *yt = (const REAL *)y + first * stride;
        if (through) {
            R(gather)(type, x, rows, first, m, inputs, b.xhat);
            if (mean == FVLRP_MEAN_CENTERED && b.has_mean)
                for (ptrdiff_t i = 0; i < m * inputs; i++) b.xhat[i] -= ((const REAL *)model->mean)[i % inputs];
            R(denominators)(model, b.xhat, yt, b.offset, m, epsilon, !(mean == FVLRP_MEAN_BIAS && b.has_mean),
                            b.inverse);
            R(losses)(model, b.inverse, m, epsilon, b.lost);
        }
        for (ptrdiff_t t = 0; t < targets; t++) {
            const REAL *table = (const REAL *)tables + t * model->components * 3 * stride;
            R(relevance_tile)(stride, yt, m, indptr + first, index, gamma, table, b.r);
            for (ptrdiff_t i = 0; i < m; i++) {
                const ptrdiff_t to = t * out->pitch + (rows ? rows[first + i] : first + i);
                if (out->total) out->total[to] = R(sum_row)(b.r + i * stride, stride);
                if (out->pca)
                    memcpy((REAL *)out->pca + to * dims, b.r + i * stride, (size_t)dims * sizeof(REAL));
            }
            if (!through) continue;
            double absorbed = 0, bias = 0;
            for (ptrdiff_t i = 0; i < m; i++) {
                VREAL lost = {0}, past = {0};
                for (ptrdiff_t d = 0; d < stride; d += LANES) {
                    const VREAL r = R(load)(b.r + i * stride + d);
                    const VREAL q = r * R(load)(b.inverse + i * stride + d);
                    R(store)(b.q + i * stride + d, q);
                    lost += r * R(load)(b.lost + i * stride + d);
                    past += q * R(load)(b.projected_mean + d);
                }
                for (int j = 0; j < LANES; j++) absorbed += (double)lost[j];
                for (int j = 0; j < LANES; j++) bias -= (double)past[j];
            }
            if (out->absorbed) out->absorbed[t] += absorbed;
            if (out->bias && mean == FVLRP_MEAN_BIAS) out->bias[t] += bias;
            if (!out->bins && !out->sift) continue;
            const ptrdiff_t pitch = (inputs + LANES - 1) / LANES * LANES;
            R(gemm)(b.q, stride, m, stride, model->backward, inputs, b.values, pitch);
            for (ptrdiff_t i = 0; i < m; i++) {
                const ptrdiff_t to = t * out->pitch + (rows ? rows[first + i] : first + i);
                REAL *value = b.values + i * pitch;
                for (ptrdiff_t j = 0; j < inputs; j += LANES)
                    R(store)(value + j, R(load)(value + j) * R(load)(b.xhat + i * inputs + j));
                if (out->sift)
                    memcpy((REAL *)out->sift + to * inputs, value, (size_t)inputs * sizeof(REAL));
                if (out->bins) {
                    R(sum_runs)(value, (REAL *)out->bins + to * 16);
                    R(sum_runs)(value + 64, (REAL *)out->bins + to * 16 + 8);
                }
            }
        }
    }
out:
    R(backward_close)(&b);
    return status;
}
