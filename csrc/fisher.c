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
    const ptrdiff_t stride = model->stride;
    R(assigner) a = {0};
    R(by_component) t = {0};
    R(projector) p;
    REAL *parts = scratch(2 * stride, sizeof(REAL));
    int status = R(projector_open)(&p, model, type, x, rows);
    if (status == FVLRP_OK) status = R(assigner_open)(&a, model);
    if (status == FVLRP_OK) status = R(by_component_open)(&t, model->components);
    if (!parts) status = FVLRP_E_MEMORY;
    while (*done < n && status == FVLRP_OK) {
        const ptrdiff_t m = least(R(TILE), n - *done);
        REAL *at = (REAL *)y + *done * stride;
        R(project_tile)(&p, *done, m, at);
        const ptrdiff_t fitted = R(assign)(&a, at, m, capacity, indptr + *done, index, gamma, NULL);
        R(pool_tile)(model, &t, parts, at, fitted, indptr + *done, index, gamma, s0, s1, s2);
        *done += fitted;
        if (fitted < m) status = FVLRP_E_FULL;
    }
    R(projector_close)(&p);
    R(assigner_close)(&a);
    R(by_component_close)(&t);
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

/* Registers allow so many vectors of columns for each of three coefficients at a time. */
enum { R(COEFFICIENTS) = VBYTES == 64 ? 5 : 4 };

/* r = sum_k gamma_k (c0 + c1 y + c2 y^2), `width` vectors of columns of one row: what meets in registers are the
 * coefficients, so that an entry costs their products and nothing is stored before the end. Neighbouring rows share
 * components, whose tables the nearest cache still holds. */
INLINE void R(relevance_columns)(const int width, const REAL *table, ptrdiff_t stride, const uint16_t *index,
                                 const REAL *gamma, int64_t count, const REAL *y, REAL *r) {
    VREAL c0[5], c1[5], c2[5];
    UNROLL for (int v = 0; v < width; v++) c0[v] = c1[v] = c2[v] = (VREAL){0};
    for (int64_t e = 0; e < count; e++) {
        const REAL *of = table + index[e] * 3 * stride;
        const VREAL g = R(fill)(gamma[e]);
        const REAL *of1 = of + stride, *of2 = of1 + stride;
        __asm__("" : "+r"(of1), "+r"(of2)); /* registers of their own: a sum in an address splits the instruction */
        UNROLL for (int v = 0; v < width; v++) c0[v] += g * R(load)(of + v * LANES);
        UNROLL for (int v = 0; v < width; v++) c1[v] += g * R(load)(of1 + v * LANES);
        UNROLL for (int v = 0; v < width; v++) c2[v] += g * R(load)(of2 + v * LANES);
    }
    UNROLL for (int v = 0; v < width; v++) {
        const VREAL at = R(load)(y + v * LANES);
        R(store)(r + v * LANES, (c2[v] * at + c1[v]) * at + c0[v]);
    }
}

/* Eqs. 5-6 for one row. */
INLINE void R(relevance_row)(const REAL *table, ptrdiff_t stride, const uint16_t *index, const REAL *gamma,
                             int64_t count, const REAL *y, REAL *r) {
    ptrdiff_t at = 0;
    for (; at + R(COEFFICIENTS) * LANES <= stride; at += R(COEFFICIENTS) * LANES)
        R(relevance_columns)(R(COEFFICIENTS), table + at, stride, index, gamma, count, y + at, r + at);
    for (; at + 2 * LANES <= stride; at += 2 * LANES)
        R(relevance_columns)(2, table + at, stride, index, gamma, count, y + at, r + at);
    for (; at < stride; at += LANES)
        R(relevance_columns)(1, table + at, stride, index, gamma, count, y + at, r + at);
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

/* Rows that go back together, of as many targets as have tables of so many bytes: a row's components lie anywhere in a
 * table, which therefore has to stay in the second cache. */
enum { R(BACK_ROWS) = 48, R(AHEAD) = 12, R(TABLE_BYTES) = 2 << 20 };

/* Scratch of fvlrp_relevance and what a call keeps constant. */
typedef struct {
    const fvlrp_model *model;
    int type, mean;
    const void *x;
    const int64_t *rows;
    double epsilon;
    const fvlrp_relevances *out;
    int has_mean, through, many;
    ptrdiff_t n, together; /* rows; targets */
    REAL *xhat;         /* (rows, inputs): x, centred where the rule says so */
    R(projector) again; /* where the caller keeps no y */
    REAL *y;            /* (rows, stride), then */
    REAL *inverse;      /* (rows, stride): 1 / (z +- epsilon) */
    REAL *r;            /* (together, rows, stride): relevance, then q = R / (z +- epsilon) */
    REAL *values;       /* (rows, inputs): P^T q */
    REAL *matrices;     /* (MATRIX_ROWS, D, 16) */
    REAL *offset, *projected_mean; /* (stride) */
} R(backward);

static void R(backward_close)(R(backward) *b) {
    free(b->xhat);
    R(projector_close)(&b->again);
    free(b->y);
    free(b->inverse);
    free(b->r);
    free(b->values);
    free(b->matrices);
    free(b->offset);
    free(b->projected_mean);
}

/* `count` zeros, so that what whole blocks read past the last row is finite. */
static REAL *R(zeros)(ptrdiff_t count) {
    REAL *array = scratch(count, sizeof(REAL));
    if (array) memset(array, 0, (size_t)count * sizeof(REAL));
    return array;
}

static int R(backward_open)(R(backward) *b, ptrdiff_t targets, int project) {
    const fvlrp_model *model = b->model;
    const ptrdiff_t rows = R(BACK_ROWS) + R(SLACK), stride = model->stride, inputs = model->inputs;
    const ptrdiff_t table = model->components * 3 * stride * (ptrdiff_t)sizeof(REAL);
    b->has_mean = R(has_mean)(model);
    b->through = b->out->bins || b->out->sift || b->out->absorbed;
    /* From three targets on, the matrices that all of them share pay. */
    b->many = targets > 2 && b->out->bins && !b->out->sift;
    b->together = least(most(R(TABLE_BYTES) / table, 1), most(targets, 1));
    if (!(b->r = R(zeros)(b->together * rows * stride))) return FVLRP_E_MEMORY;
    if (project) {
        b->y = R(zeros)(rows * stride);
        if (R(projector_open)(&b->again, model, b->type, b->x, b->rows) != FVLRP_OK || !b->y) return FVLRP_E_MEMORY;
    }
    if (!b->through) return FVLRP_OK;
    b->xhat = R(zeros)(rows * inputs);
    b->inverse = R(zeros)(rows * stride);
    b->values = R(zeros)(rows * ((inputs + LANES - 1) / LANES * LANES));
    b->offset = R(zeros)(stride);
    b->projected_mean = R(zeros)(stride);
    if (!b->xhat || !b->inverse || !b->values || !b->offset || !b->projected_mean) return FVLRP_E_MEMORY;
    if (b->many && !(b->matrices = R(zeros)(R(MATRIX_ROWS) * model->dims * 16))) return FVLRP_E_MEMORY;
    for (ptrdiff_t d = model->dims; d < stride; d++) b->offset[d] = 100; /* padding: 0 / 100, far from 0 / 0 */
    for (ptrdiff_t d = 0; b->has_mean && d < model->dims; d++) {
        double sum = 0;
        for (ptrdiff_t j = 0; j < inputs; j++) sum += model->basis[d * inputs + j] * (double)((REAL *)model->mean)[j];
        b->projected_mean[d] = (REAL)sum;
        /* y = P (x - m); without the mean, z = P x = y + P m. */
        if (b->mean == FVLRP_MEAN_NONE) b->offset[d] = (REAL)sum;
    }
    return FVLRP_OK;
}

/* What m rows have whatever the target: their values, and y, which is returned. */
static const REAL *R(backward_rows)(R(backward) *b, ptrdiff_t first, ptrdiff_t m, const REAL *y) {
    const fvlrp_model *model = b->model;
    const ptrdiff_t inputs = model->inputs;
    if (b->through) {
        R(gather)(b->type, b->x, b->rows, first, m, inputs, b->xhat);
        if (b->mean == FVLRP_MEAN_CENTERED && b->has_mean)
            for (ptrdiff_t i = 0; i < m * inputs; i++) b->xhat[i] -= ((const REAL *)model->mean)[i % inputs];
    }
    if (y) return y + first * model->stride;
    R(project_tile)(&b->again, first, m, b->y);
    return b->y;
}

/* q = r / (z +- epsilon) in the place of r; ADDS what the stabiliser absorbs (all where 0/0 counts as 0), and what the
 * mean does where the rule is FVLRP_MEAN_BIAS. */
static void R(divide)(const R(backward) *b, ptrdiff_t m, REAL *r, double *absorbed, double *past) {
    const ptrdiff_t stride = b->model->stride;
    const VREAL epsilon = R(fill)((REAL)b->epsilon);
    const R(mask) one = (R(mask))R(fill)(1);
    VREAL lost = {0}, mean = {0};
    for (ptrdiff_t i = 0; i < m; i++)
        for (ptrdiff_t d = 0; d < stride; d += LANES) {
            const VREAL whole = R(load)(r + i * stride + d), inverse = R(load)(b->inverse + i * stride + d);
            const VREAL q = whole * inverse, size = epsilon * R(absolute)(inverse);
            const R(mask) none = inverse == 0;
            lost += whole * (VREAL)((none & one) | (~none & (R(mask))size));
            if (b->mean == FVLRP_MEAN_BIAS) mean += q * R(load)(b->projected_mean + d);
            R(store)(r + i * stride + d, q);
        }
    for (int j = 0; j < LANES; j++) *absorbed += (double)lost[j];
    for (int j = 0; j < LANES; j++) *past -= (double)mean[j];
}

/* Relevance of values by one product with the projection: to `out`, summed over bins or not. */
static void R(values_rows)(const R(backward) *b, ptrdiff_t first, ptrdiff_t m, ptrdiff_t offset, const REAL *q) {
    const fvlrp_model *model = b->model;
    const ptrdiff_t inputs = model->inputs, pitch = (inputs + LANES - 1) / LANES * LANES;
    REAL *sift = b->out->sift, *bins = b->out->bins;
    R(gemm)(q, model->stride, m, model->stride, model->backward, inputs, NULL, b->values, pitch);
    for (ptrdiff_t i = 0; i < m; i++) {
        const ptrdiff_t to = offset + (b->rows ? b->rows[first + i] : first + i);
        const REAL *value = b->values + i * pitch, *x = b->xhat + i * inputs;
        for (ptrdiff_t j = 0; sift && j < inputs; j += LANES)
            R(store)(sift + to * inputs + j, R(load)(value + j) * R(load)(x + j));
        for (ptrdiff_t j = 0; bins && j < inputs; j += 64) {
            R(eight) product[8];
            UNROLL for (int u = 0; u < 8; u++) product[u] = R(load8)(value + j + 8 * u) * R(load8)(x + j + 8 * u);
            *(R(eight_any) *)(bins + to * 16 + j / 8) = R(sums_of_eight)(product);
        }
    }
}

/* Bins of all targets from `target` on that go together, by matrices. */
static void R(bins_rows)(const R(backward) *b, ptrdiff_t first, ptrdiff_t m, ptrdiff_t target, ptrdiff_t count) {
    const fvlrp_model *model = b->model;
    const ptrdiff_t stride = model->stride, apart = (R(BACK_ROWS) + R(SLACK)) * stride, pitch = b->out->pitch;
    for (ptrdiff_t i = 0; i < m; i++) {
        if (i % R(MATRIX_ROWS) == 0) R(bin_matrices)(model, b->xhat + i * model->inputs, b->matrices);
        const REAL *matrix = b->matrices + i % R(MATRIX_ROWS) * model->dims * 16, *q = b->r + i * stride;
        const ptrdiff_t to = target * pitch + (b->rows ? b->rows[first + i] : first + i);
        REAL *bins = (REAL *)b->out->bins + to * 16;
        ptrdiff_t t = 0;
        for (; t + 4 <= count; t += 4)
            R(bins_of)(4, q + t * apart, apart, model->dims, matrix, bins + t * pitch * 16, pitch * 16);
        for (; t < count; t++)
            R(bins_of)(1, q + t * apart, apart, model->dims, matrix, bins + t * pitch * 16, pitch * 16);
    }
}

/* z of one row's dimensions closer to 0 than `near`, in double, and their inverse denominators. */
static void R(denominators_again)(const R(backward) *b, ptrdiff_t i, const REAL *y, REAL near) {
    const fvlrp_model *model = b->model;
    REAL *inverse = b->inverse + i * model->stride;
    for (ptrdiff_t d = 0; d < model->dims; d++) {
        double z = (double)y[d] + (double)b->offset[d], magnitude;
        if (!(fabs(z) < (double)near)) continue;
        if (!(b->mean == FVLRP_MEAN_BIAS && b->has_mean)) {
            z = R(exact_z)(model, d, b->xhat + i * model->inputs, &magnitude);
            if (b->epsilon == 0 && fabs(z) <= 1e-12 * magnitude) {
                inverse[d] = 0;
                continue;
            }
        }
        const double stable = z < 0 ? z - b->epsilon : z + b->epsilon;
        inverse[d] = stable == 0 ? 0 : (REAL)(1 / stable);
    }
}

/* Denominators of Eq. 1 for row i, inverted: 1 / (z + epsilon sgn z), 0 where 0/0 counts as 0. A float z too close to 0
 * for its sign (or, with a small epsilon, for its value) is computed again in double: epsilon sgn z jumps there. */
INLINE void R(denominators)(const R(backward) *b, ptrdiff_t i, const REAL *y) {
    const ptrdiff_t stride = b->model->stride;
    const VREAL epsilon = R(fill)((REAL)b->epsilon), one = R(fill)(1), zero = {0};
    const REAL near = R(near_zero)(b->epsilon);
    REAL *inverse = b->inverse + i * stride;
    R(mask) close = {0};
    for (ptrdiff_t d = 0; d < stride; d += LANES) {
        /* + 0 makes 0 of -0, whose sign is + here. */
        const VREAL z = R(load)(y + d) + R(load)(b->offset + d) + zero;
        R(store)(inverse + d, one / (z + R(with_sign)(epsilon, z)));
        close |= R(absolute)(z) < near;
    }
    if (R(any)(close)) R(denominators_again)(b, i, y, near);
}

/* Have the descriptor and the y of later rows fetched: nothing in a cell's rows tells the processor where the next ones
 * are, and both come from far. */
INLINE void R(ask_for)(const R(backward) *b, ptrdiff_t row, const REAL *y) {
    const ptrdiff_t size = b->model->inputs * b->type, stride = b->model->stride, later = row + R(BACK_ROWS);
    if (later < b->n) {
        const char *x = (const char *)b->x + (b->rows ? b->rows[later] : later) * size;
        for (ptrdiff_t at = 0; at < size; at += 64) __builtin_prefetch(x + at);
        __builtin_prefetch(x + size - 1);
    }
    if (!b->y && row + R(AHEAD) < b->n)
        for (ptrdiff_t d = 0; d < stride; d += 64 / (ptrdiff_t)sizeof(REAL))
            __builtin_prefetch(y + R(AHEAD) * stride + d);
}

/* Eqs. 5-6 of m rows for one target, and what is wanted of them as they are. */
static void R(relevance_rows)(R(backward) *b, ptrdiff_t first, ptrdiff_t m, const REAL *y, const int64_t *indptr,
                              const uint16_t *index, const REAL *gamma, ptrdiff_t target, const REAL *table,
                              int divisors, REAL *r) {
    const ptrdiff_t stride = b->model->stride, dims = b->model->dims;
    const fvlrp_relevances *out = b->out;
    for (ptrdiff_t i = 0; i < m; i++, y += stride, r += stride) {
        const ptrdiff_t to = target * out->pitch + (b->rows ? b->rows[first + i] : first + i);
        const int64_t at = indptr[first + i];
        if (divisors) R(ask_for)(b, first + i, y);
        /* Divisions take their time beside the products of the same row. */
        if (divisors) R(denominators)(b, i, y);
        R(relevance_row)(table, stride, index + at, gamma + at, indptr[first + i + 1] - at, y, r);
        if (out->total) out->total[to] = R(sum_row)(r, stride);
        if (out->pca) memcpy((REAL *)out->pca + to * dims, r, (size_t)dims * sizeof(REAL));
    }
}

static int R(relevance)(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n,
                        const void *y, const int64_t *indptr, const uint16_t *index, const void *gamma,
                        ptrdiff_t targets, const void *tables, double epsilon, int mean, const fvlrp_relevances *out) {
    const ptrdiff_t apart = (R(BACK_ROWS) + R(SLACK)) * model->stride, table = model->components * 3 * model->stride;
    R(backward) b = {.model = model, .type = type, .mean = mean, .x = x, .rows = rows,
                      .n = n, .epsilon = epsilon, .out = out};
    const int status = R(backward_open)(&b, targets, !y);
    for (ptrdiff_t target = 0; status == FVLRP_OK && target < targets; target += b.together) {
        const ptrdiff_t count = least(b.together, targets - target);
        for (ptrdiff_t first = 0; first < n; first += R(BACK_ROWS)) {
            const ptrdiff_t m = least(R(BACK_ROWS), n - first);
            const REAL *yt = R(backward_rows)(&b, first, m, y);
            for (ptrdiff_t t = 0; t < count; t++) {
                double absorbed = 0, past = 0;
                REAL *r = b.r + t * apart;
                R(relevance_rows)(&b, first, m, yt, indptr, index, gamma, target + t,
                                  (const REAL *)tables + (target + t) * table, b.through && t == 0, r);
                if (!b.through) continue;
                R(divide)(&b, m, r, &absorbed, &past);
                if (out->absorbed) out->absorbed[target + t] += absorbed;
                if (out->bias) out->bias[target + t] += past;
                if (!b.many && (out->bins || out->sift)) R(values_rows)(&b, first, m, (target + t) * out->pitch, r);
            }
            if (b.many) R(bins_rows)(&b, first, m, target, count);
        }
    }
    R(backward_close)(&b);
    return status;
}
