/* fisher.c - the Fisher vector's statistics (Eqs. 3-4) and the relevance that flows back through them (Eqs. 5-6).
 *
 * With z = (y - mu_k) / sigma_k:  Psi_mu = gamma z / sqrt(pi_k),  Psi_sigma = gamma (z^2 - 1) / sqrt(2 pi_k).
 * Forward sums gamma, gamma z and gamma z^2 over the descriptors of a cell; the constants per component come later, in
 * double. Backward weighs the same terms by the shares R / (S + epsilon sgn S), folded into one polynomial in y for
 * each component and dimension. Included by isa.c once per real type. */

/* A tile's entries by component instead of by row: a component's tables are then read once a tile and stay in
 * registers, which is what both directions wait for. */
typedef struct {
    int64_t *heads;   /* (K + 1): where each component's entries begin */
    uint8_t *rows;    /* (TILE K): row of each entry in the tile */
    REAL *gamma;      /* (TILE K) */
} R(by_component);

static int R(by_component_open)(R(by_component) *t, ptrdiff_t components) {
    t->heads = scratch(components + 2, sizeof(int64_t));
    t->rows = scratch(R(TILE) * components, 1);
    t->gamma = scratch(R(TILE) * components, sizeof(REAL));
    return t->heads && t->rows && t->gamma ? FVLRP_OK : FVLRP_E_MEMORY;
}

static void R(by_component_close)(R(by_component) *t) {
    free(t->heads);
    free(t->rows);
    free(t->gamma);
}

/* Counting sort of the entries of m <= TILE rows; rows stay ascending within a component. */
static void R(by_component_fill)(R(by_component) *t, ptrdiff_t components, ptrdiff_t m, const int64_t *indptr,
                                 const uint16_t *index, const REAL *gamma) {
    int64_t *next = t->heads + 1; /* counts first, then running starts, which end as the next component's head */
    memset(t->heads, 0, (size_t)(components + 2) * sizeof(int64_t));
    for (int64_t e = indptr[0]; e < indptr[m]; e++) next[index[e] + 1]++;
    for (ptrdiff_t k = 1; k <= components; k++) next[k] += next[k - 1];
    for (ptrdiff_t i = 0; i < m; i++)
        for (int64_t e = indptr[i]; e < indptr[i + 1]; e++) {
            const int64_t to = next[index[e]]++;
            t->rows[to] = (uint8_t)i;
            t->gamma[to] = gamma[e];
        }
}

/* Registers allow so many vectors of columns at a time. */
enum { R(COLUMNS) = VBYTES == 64 ? 5 : 2 };

/* Sums of gamma z and gamma z^2 over one component's entries, `width` vectors of columns: at most TILE rows in float. */
INLINE void R(pool_columns)(const int width, const REAL *y, ptrdiff_t stride, const uint8_t *rows, const REAL *gamma,
                            int64_t count, const REAL *scales, const REAL *shifts, REAL *first, REAL *second) {
    VREAL scale[5], shift[5], gz[5], gzz[5];
    UNROLL for (int v = 0; v < width; v++) {
        scale[v] = R(load)(scales + v * LANES);
        shift[v] = R(load)(shifts + v * LANES);
        gz[v] = gzz[v] = (VREAL){0};
    }
    for (int64_t e = 0; e < count; e++) {
        const REAL *row = y + rows[e] * stride;
        const VREAL g = R(fill)(gamma[e]);
        UNROLL for (int v = 0; v < width; v++) {
            const VREAL z = R(load)(row + v * LANES) * scale[v] + shift[v];
            const VREAL weighed = g * z;
            gz[v] += weighed;
            gzz[v] += weighed * z;
        }
    }
    UNROLL for (int v = 0; v < width; v++) {
        R(store)(first + v * LANES, gz[v]);
        R(store)(second + v * LANES, gzz[v]);
    }
}

/* ADD a tile of m rows to the sums; what runs in float is merged in double at once. */
static void R(pool_tile)(const fvlrp_model *model, R(by_component) *t, REAL *parts, const REAL *y, ptrdiff_t m,
                         const int64_t *indptr, const uint16_t *index, const REAL *gamma, double *s0, double *s1,
                         double *s2) {
    const ptrdiff_t dims = model->dims, stride = model->stride;
    REAL *first = parts, *second = parts + stride;
    R(by_component_fill)(t, model->components, m, indptr, index, gamma);
    for (ptrdiff_t k = 0; k < model->components; k++) {
        const int64_t begin = t->heads[k], count = t->heads[k + 1] - begin;
        if (!count) continue;
        const REAL *scale = (const REAL *)model->scale + k * stride, *shift = (const REAL *)model->shift + k * stride;
        const uint8_t *rows = t->rows + begin;
        const REAL *weights = t->gamma + begin;
        ptrdiff_t at = 0;
        for (; at + R(COLUMNS) * LANES <= stride; at += R(COLUMNS) * LANES)
            R(pool_columns)(R(COLUMNS), y + at, stride, rows, weights, count, scale + at, shift + at, first + at,
                            second + at);
        for (; at < stride; at += LANES)
            R(pool_columns)(1, y + at, stride, rows, weights, count, scale + at, shift + at, first + at, second + at);
        double sum = 0;
        for (int64_t e = 0; e < count; e++) sum += (double)weights[e];
        s0[k] += sum;
        for (ptrdiff_t d = 0; d < dims; d++) s1[k * dims + d] += (double)first[d];
        for (ptrdiff_t d = 0; d < dims; d++) s2[k * dims + d] += (double)second[d];
    }
}

static int R(pool)(const fvlrp_model *model, const void *y, ptrdiff_t n, const int64_t *indptr, const uint16_t *index,
                   const void *gamma, double *s0, double *s1, double *s2) {
    R(by_component) t = {0};
    REAL *parts = scratch(2 * model->stride, sizeof(REAL));
    const int status = R(by_component_open)(&t, model->components) || !parts ? FVLRP_E_MEMORY : FVLRP_OK;
    for (ptrdiff_t first = 0; status == FVLRP_OK && first < n; first += R(TILE))
        R(pool_tile)(model, &t, parts, (const REAL *)y + first * model->stride,
                     n - first < R(TILE) ? n - first : R(TILE), indptr + first, index, gamma, s0, s1, s2);
    R(by_component_close)(&t);
    free(parts);
    return status;
}

static int R(encode)(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n,
                     ptrdiff_t capacity, void *y, int64_t *indptr, uint16_t *index, void *gamma, double *s0, double *s1,
                     double *s2, ptrdiff_t *done) {
    const ptrdiff_t tile = R(TILE), stride = model->stride;
    const int centre = R(has_mean)(model);
    R(assigner) a = {0};
    R(by_component) t = {0};
    REAL *in = scratch((tile + R(SLACK)) * model->inputs, sizeof(REAL));
    REAL *out = scratch((tile + R(SLACK)) * stride, sizeof(REAL));
    REAL *parts = scratch(2 * stride, sizeof(REAL));
    int status = R(assigner_open)(&a, model);
    if (status == FVLRP_OK) status = R(by_component_open)(&t, model->components);
    if (!in || !out || !parts) status = FVLRP_E_MEMORY;
    if (status != FVLRP_OK) goto out;
    memset(in, 0, (size_t)((tile + R(SLACK)) * model->inputs) * sizeof(REAL));

    while (*done < n && status == FVLRP_OK) {
        const ptrdiff_t m = n - *done < tile ? n - *done : tile;
        R(gather)(type, x, rows, *done, m, model->inputs, in);
        R(project_tile)(model, centre, in, m, out);
        const ptrdiff_t fitted = R(assign)(&a, out, m, capacity, indptr + *done, index, gamma, NULL);
        R(pool_tile)(model, &t, parts, out, fitted, indptr + *done, index, gamma, s0, s1, s2);
        memcpy((REAL *)y + *done * stride, out, (size_t)(fitted * stride) * sizeof(REAL));
        *done += fitted;
        if (fitted < m) status = FVLRP_E_FULL;
    }
out:
    R(assigner_close)(&a);
    R(by_component_close)(&t);
    free(in);
    free(out);
    free(parts);
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

/* r += gamma (c0 + c1 y + c2 y^2) for one component's entries, `width` vectors of columns. A row of `yr` is y, then r:
 * apart, their addresses would often agree in the low bits that loads are checked against stores by. */
INLINE void R(relevance_columns)(const int width, REAL *yr, ptrdiff_t stride, const uint8_t *rows, const REAL *gamma,
                                 int64_t count, const REAL *table) {
    VREAL c0[5], c1[5], c2[5];
    UNROLL for (int v = 0; v < width; v++) {
        c0[v] = R(load)(table + v * LANES);
        c1[v] = R(load)(table + stride + v * LANES);
        c2[v] = R(load)(table + 2 * stride + v * LANES);
    }
    for (int64_t e = 0; e < count; e++) {
        REAL *y = yr + rows[e] * 2 * stride, *r = y + stride;
        const VREAL g = R(fill)(gamma[e]);
        UNROLL for (int v = 0; v < width; v++) {
            const VREAL x = R(load)(y + v * LANES);
            const VREAL sum = R(load)(r + v * LANES);
            R(store)(r + v * LANES, sum + g * ((c2[v] * x + c1[v]) * x + c0[v]));
        }
    }
}

/* Eqs. 5-6 for a tile of m rows, whose entries `t` holds by component: the second half of each row of yr. */
static void R(relevance_tile)(const fvlrp_model *model, const R(by_component) *t, ptrdiff_t m, const REAL *table,
                              REAL *yr) {
    const ptrdiff_t stride = model->stride;
    for (ptrdiff_t i = 0; i < m; i++) memset(yr + (2 * i + 1) * stride, 0, (size_t)stride * sizeof(REAL));
    for (ptrdiff_t k = 0; k < model->components; k++, table += 3 * stride) {
        const int64_t begin = t->heads[k], count = t->heads[k + 1] - begin;
        if (!count) continue;
        const uint8_t *rows = t->rows + begin;
        const REAL *weights = t->gamma + begin;
        ptrdiff_t at = 0;
        for (; at + R(COLUMNS) * LANES <= stride; at += R(COLUMNS) * LANES)
            R(relevance_columns)(R(COLUMNS), yr + at, stride, rows, weights, count, table + at);
        for (; at < stride; at += LANES)
            R(relevance_columns)(1, yr + at, stride, rows, weights, count, table + at);
    }
}

INLINE double R(sum_row)(const REAL *r, ptrdiff_t length) {
    VREAL sum = {0};
    for (ptrdiff_t d = 0; d < length; d += LANES) sum += R(load)(r + d);
#if REAL_BITS == 32 && defined(__AVX512F__)
    return (double)_mm512_reduce_add_ps((__m512)sum);
#else
    double total = 0;
    for (int j = 0; j < LANES; j++) total += (double)sum[j];
    return total;
#endif
}

/* Scratch of fvlrp_relevance and what a call keeps constant. */
typedef struct {
    REAL *xhat, *inverse, *lost, *yr, *q, *values, *offset, *projected_mean, *matrices;
    int has_mean;
} R(backward);

static void R(backward_close)(R(backward) *b) {
    free(b->xhat);
    free(b->inverse);
    free(b->lost);
    free(b->yr);
    free(b->q);
    free(b->values);
    free(b->offset);
    free(b->projected_mean);
    free(b->matrices);
}

static int R(backward_open)(R(backward) *b, const fvlrp_model *model, int mean, int through, int many) {
    const ptrdiff_t rows = R(TILE) + R(SLACK), stride = model->stride, inputs = model->inputs;
    *b = (R(backward)){0};
    b->yr = scratch(rows * 2 * stride, sizeof(REAL));
    if (!b->yr) return FVLRP_E_MEMORY;
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
    if (many && !(b->matrices = scratch(R(TILE) * model->dims, 16 * sizeof(REAL)))) return FVLRP_E_MEMORY;
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

/* q = r / (z +- epsilon) of a tile; ADDS what the stabiliser absorbs, and what the mean does where `bias` is set. */
static void R(divide)(const fvlrp_model *model, const R(backward) *b, ptrdiff_t m, int bias, double *absorbed,
                      double *past) {
    const ptrdiff_t stride = model->stride;
    VREAL lost = {0}, mean = {0};
    for (ptrdiff_t i = 0; i < m; i++)
        for (ptrdiff_t d = 0; d < stride; d += LANES) {
            const VREAL r = R(load)(b->yr + (2 * i + 1) * stride + d);
            const VREAL q = r * R(load)(b->inverse + i * stride + d);
            R(store)(b->q + i * stride + d, q);
            lost += r * R(load)(b->lost + i * stride + d);
            if (bias) mean += q * R(load)(b->projected_mean + d);
        }
    for (int j = 0; j < LANES; j++) *absorbed += (double)lost[j];
    for (int j = 0; j < LANES; j++) *past -= (double)mean[j];
}

/* What a tile of descriptors has whatever the target: its values, the inverted denominators, the matrices. */
static void R(backward_tile)(const fvlrp_model *model, R(backward) *b, int type, const void *x, const int64_t *rows,
                             ptrdiff_t first, ptrdiff_t m, const REAL *y, double epsilon, int mean) {
    const ptrdiff_t inputs = model->inputs, stride = model->stride;
    R(gather)(type, x, rows, first, m, inputs, b->xhat);
    if (mean == FVLRP_MEAN_CENTERED && b->has_mean)
        for (ptrdiff_t i = 0; i < m * inputs; i++) b->xhat[i] -= ((const REAL *)model->mean)[i % inputs];
    R(denominators)(model, b->xhat, y, b->offset, m, epsilon, !(mean == FVLRP_MEAN_BIAS && b->has_mean), b->inverse);
    R(losses)(model, b->inverse, m, epsilon, b->lost);
    for (ptrdiff_t i = 0; b->matrices && i < m; i++)
        R(bin_matrix)(model, b->xhat + i * inputs, b->inverse + i * stride, b->matrices + i * model->dims * 16);
}

/* One target's relevance of a tile's values, by one product with the projection: to `out`, summed over bins or not. */
static void R(values_tile)(const fvlrp_model *model, const R(backward) *b, const int64_t *rows, ptrdiff_t first,
                           ptrdiff_t m, ptrdiff_t offset, const fvlrp_relevances *out) {
    const ptrdiff_t inputs = model->inputs, pitch = (inputs + LANES - 1) / LANES * LANES;
    R(gemm)(b->q, model->stride, m, model->stride, model->backward, inputs, NULL, b->values, pitch);
    for (ptrdiff_t i = 0; i < m; i++) {
        const ptrdiff_t to = offset + (rows ? rows[first + i] : first + i);
        REAL *value = b->values + i * pitch;
        for (ptrdiff_t j = 0; j < inputs; j += LANES)
            R(store)(value + j, R(load)(value + j) * R(load)(b->xhat + i * inputs + j));
        if (out->sift) memcpy((REAL *)out->sift + to * inputs, value, (size_t)inputs * sizeof(REAL));
        if (out->bins) {
            R(sum_runs)(value, (REAL *)out->bins + to * 16);
            R(sum_runs)(value + 64, (REAL *)out->bins + to * 16 + 8);
        }
    }
}

static int R(relevance)(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n,
                        const void *y, const int64_t *indptr, const uint16_t *index, const void *gamma,
                        ptrdiff_t targets, const void *tables, double epsilon, int mean, const fvlrp_relevances *out) {
    const ptrdiff_t tile = R(TILE), stride = model->stride, dims = model->dims;
    const int through = out->bins || out->sift || out->absorbed;
    /* From three targets on, the matrices that all of them share pay. */
    const int many = targets > 2 && out->bins && !out->sift;
    R(backward) b;
    R(by_component) sorted = {0};
    int status = R(backward_open)(&b, model, mean, through, many);
    if (status == FVLRP_OK) status = R(by_component_open)(&sorted, model->components);
    if (status != FVLRP_OK) goto out;

    for (ptrdiff_t first = 0; first < n; first += tile) {
        const ptrdiff_t m = n - first < tile ? n - first : tile;
        const REAL *yt = (const REAL *)y + first * stride;
        R(by_component_fill)(&sorted, model->components, m, indptr + first, index, gamma);
        if (through) R(backward_tile)(model, &b, type, x, rows, first, m, yt, epsilon, mean);
        for (ptrdiff_t i = 0; i < m; i++)
            memcpy(b.yr + 2 * i * stride, yt + i * stride, (size_t)stride * sizeof(REAL));
        for (ptrdiff_t t = 0; t < targets; t++) {
            double absorbed = 0, past = 0;
            R(relevance_tile)(model, &sorted, m, (const REAL *)tables + t * model->components * 3 * stride, b.yr);
            for (ptrdiff_t i = 0; i < m; i++) {
                const ptrdiff_t to = t * out->pitch + (rows ? rows[first + i] : first + i);
                const REAL *r = b.yr + (2 * i + 1) * stride;
                if (out->total) out->total[to] = R(sum_row)(r, stride);
                if (out->pca) memcpy((REAL *)out->pca + to * dims, r, (size_t)dims * sizeof(REAL));
                if (many) R(bins_of)(r, dims, b.matrices + i * dims * 16, (REAL *)out->bins + to * 16);
            }
            if (!through) continue;
            R(divide)(model, &b, m, mean == FVLRP_MEAN_BIAS, &absorbed, &past);
            if (out->absorbed) out->absorbed[t] += absorbed;
            if (out->bias) out->bias[t] += past;
            if (!many && (out->bins || out->sift)) R(values_tile)(model, &b, rows, first, m, t * out->pitch, out);
        }
    }
out:
    R(backward_close)(&b);
    R(by_component_close)(&sorted);
    return status;
}
