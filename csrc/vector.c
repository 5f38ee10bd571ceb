/* vector.c - passes over the whole Fisher vector: its sums over pyramid cells, normalising it, scores, and the shares of
 * Eqs. 5-6. Included by isa.c: one pass each instead of one for every operation is what their speed comes from. */

INLINE vdouble load_double(const double *p) { return *(const vdouble_any *)p; }
INLINE void store_double(double *p, vdouble v) { *(vdouble_any *)p = v; }
typedef int64_t vlong __attribute__((vector_size(VBYTES)));
/* yes where the comparison `mask` holds, no elsewhere; C has no ?: on vectors. */
INLINE vdouble pick(vlong mask, vdouble yes, vdouble no) {
    return (vdouble)(((vlong)yes & mask) | ((vlong)no & ~mask));
}
INLINE vdouble absolute(vdouble v) { return (vdouble)((vlong)v & INT64_MAX); }
INLINE vdouble with_sign(vdouble v, vdouble sign) { return (vdouble)((vlong)v ^ ((vlong)sign & INT64_MIN)); }
INLINE double sum_double(vdouble v) {
    double sum = 0;
    for (int i = 0; i < DOUBLES; i++) sum += v[i];
    return sum;
}

static double magnitude(double v) { return v < 0 ? -v : v; }

/* to += times from. */
INLINE void add_row(double times, const double *from, ptrdiff_t length, double *to) {
    for (ptrdiff_t i = 0; i < length; i++) to[i] += times * from[i];
}

static int merge(ptrdiff_t parts, const fvlrp_part *part, ptrdiff_t finest, ptrdiff_t cells, const uint8_t *member,
                 ptrdiff_t components, ptrdiff_t dims, const double *priors, double *sums, double *occupancy) {
    const ptrdiff_t row = 1 + 2 * dims; /* sums of g, g z and g z^2 of one component, by finest cell: stays in L1 */
    double *by_finest = scratch(finest * row, sizeof(double)), *whole = scratch(row, sizeof(double));
    const int status = by_finest && whole ? FVLRP_OK : FVLRP_E_MEMORY;
    for (ptrdiff_t k = 0; status == FVLRP_OK && k < components; k++) {
        const double by_u = 1 / sqrt(priors[k]), by_v = by_u / sqrt(2.0);
        memset(by_finest, 0, (size_t)(finest * row) * sizeof(double));
        for (ptrdiff_t p = 0; p < parts; p++) {
            double *to = by_finest + part[p].finest * row;
            add_row(part[p].times, part[p].s0 + k, 1, to);
            add_row(part[p].times, part[p].s1 + k * dims, dims, to + 1);
            add_row(part[p].times, part[p].s2 + k * dims, dims, to + 1 + dims);
        }
        for (ptrdiff_t c = 0; c < cells; c++) {
            double *u = sums + (c * 2 * components + k) * dims, *v = u + components * dims;
            memset(whole, 0, (size_t)row * sizeof(double));
            for (ptrdiff_t f = 0; f < finest; f++)
                if (member[f * cells + c]) add_row(1, by_finest + f * row, row, whole);
            for (ptrdiff_t d = 0; d < dims; d++) u[d] = whole[1 + d] * by_u;
            for (ptrdiff_t d = 0; d < dims; d++) v[d] = (whole[1 + dims + d] - whole[0]) * by_v;
            occupancy[c * components + k] = whole[0];
        }
    }
    free(by_finest);
    free(whole);
    return status;
}

/* Float sums run over so many products before they go on in double. */
enum { RUN = 2048 };

/* Products of `rows` rows of coef at once: memory is read in so many streams, which is what bounds this. */
INLINE void scores_of(const int rows, ptrdiff_t length, const float *coef, const float *x, double *out) {
    UNROLL for (int r = 0; r < rows; r++) out[r] = 0;
    for (ptrdiff_t first = 0; first < length; first += RUN) {
        const ptrdiff_t end = length - first < RUN ? length : first + RUN;
        vfloat runs[8][2] = {0};
        ptrdiff_t j = first;
        for (; j + 2 * FLOATS <= end; j += 2 * FLOATS)
            UNROLL for (int u = 0; u < 2; u++) {
                const vfloat value = *(const vfloat_any *)(x + j + u * FLOATS);
                UNROLL for (int r = 0; r < rows; r++)
                    runs[r][u] += *(const vfloat_any *)(coef + r * length + j + u * FLOATS) * value;
            }
        UNROLL for (int r = 0; r < rows; r++) {
            const vfloat run = runs[r][0] + runs[r][1];
            for (int l = 0; l < FLOATS; l++) out[r] += (double)run[l];
            for (ptrdiff_t t = j; t < end; t++) out[r] += (double)coef[r * length + t] * (double)x[t];
        }
    }
}

static int scores(ptrdiff_t n, ptrdiff_t length, const float *coef, const float *x, double *out) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) scores_of(8, length, coef + i * length, x, out + i);
    for (; i + 2 <= n; i += 2) scores_of(2, length, coef + i * length, x, out + i);
    for (; i < n; i++) scores_of(1, length, coef + i * length, x, out + i);
    return FVLRP_OK;
}

static int normalise(ptrdiff_t cells, ptrdiff_t length, const double *sums, double *x) {
    double *scale = scratch(cells, sizeof(double)), size = 0;
    if (!scale) return FVLRP_E_MEMORY;
    for (ptrdiff_t c = 0; c < cells; c++) {
        const double *s = sums + c * length;
        vdouble squares[2] = {{0}, {0}}, sizes[2] = {{0}, {0}};
        double square = 0, one = 0;
        ptrdiff_t i = 0;
        for (; i + 2 * DOUBLES <= length; i += 2 * DOUBLES)
            UNROLL for (int u = 0; u < 2; u++) {
                const vdouble v = load_double(s + i + u * DOUBLES);
                squares[u] += v * v;
                sizes[u] += absolute(v);
            }
        for (; i < length; i++) {
            square += s[i] * s[i];
            one += magnitude(s[i]);
        }
        square += sum_double(squares[0] + squares[1]);
        one += sum_double(sizes[0] + sizes[1]);
        const double norm = sqrt(square);
        scale[c] = 1 / (norm > 1e-12 ? norm : 1e-12);
        size += one * scale[c];
    }
    /* The L2 norm after the signed root is the square root of the L1 norm before it. */
    const double root = sqrt(size), whole = 1 / (root > 1e-12 ? root : 1e-12);
    for (ptrdiff_t c = 0; c < cells; c++) {
        const double *s = sums + c * length, by = scale[c];
        double *to = x + c * length;
        for (ptrdiff_t i = 0; i < length; i++) to[i] = copysign(sqrt(magnitude(s[i]) * by) * whole, s[i]);
    }
    free(scale);
    return FVLRP_OK;
}

static int shares(ptrdiff_t cells, ptrdiff_t length, const double *relevance, const double *sums,
                  const int64_t *counts, const double *epsilon, const double *spread, double *out, double *ledger) {
    double absorbed = 0, empty = 0, zero = 0;
    for (ptrdiff_t c = 0; c < cells; c++) {
        const double *r = relevance + c * length, *s = sums + c * length;
        double *to = out + c * length;
        if (!counts[c]) {
            for (ptrdiff_t i = 0; i < length; i++) empty += r[i];
            memset(to, 0, (size_t)length * sizeof(double));
            continue;
        }
        const double eps = epsilon[c];
        vdouble kept = {0}, lost = {0};
        ptrdiff_t i = 0;
        for (; i + DOUBLES <= length; i += DOUBLES) {
            const vdouble v = load_double(s + i), w = load_double(r + i);
            const vdouble size = absolute(v), none = {0};
            const vlong dead = spread ? size <= 1e-12 * load_double(spread + c * length + i) : v == none;
            const vdouble share = w / (size + eps), passed = with_sign(share, v + none);
            /* With a stabiliser a sum of 0 still passes shares on, which cancel; with none, 0 / 0 = 0. */
            store_double(to + i, eps > 0 ? passed : pick(dead, none, passed));
            kept += pick(dead, none, share * eps);
            lost += pick(dead, w, none);
        }
        absorbed += sum_double(kept);
        zero += sum_double(lost);
        for (; i < length; i++) {
            const double size = magnitude(s[i]);
            const int dead = spread ? size <= 1e-12 * spread[c * length + i] : s[i] == 0;
            const double share = r[i] / (size + eps);
            to[i] = dead && !(eps > 0) ? 0 : s[i] < 0 ? -share : share;
            absorbed += dead ? 0 : share * eps;
            zero += dead ? r[i] : 0;
        }
    }
    ledger[0] = absorbed;
    ledger[1] = empty;
    ledger[2] = zero;
    return FVLRP_OK;
}
