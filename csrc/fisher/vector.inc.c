/* vector.inc.c - passes over the whole Fisher vector: its sums over pyramid cells, its normalisation, the shares of
 * Eqs. 5-6. Double, but for coefficients and their products. Each makes one pass over memory instead of one per operation. */
#ifndef REAL_BITS
#define REAL_BITS 64
#endif
#include "arena.h"
#include "fisher/model.h"
#include "simd.h"

#define LEAST_NORM 1e-12 /* norms are at least this: an empty cell stays 0 */

/* to += times from. */
INLINE void add_row(double times, const double *from, ptrdiff_t length, double *to) {
    for (ptrdiff_t i = 0; i < length; i++) to[i] += times * from[i];
}

static int merge(const fvlrp_merge_args *args) {
    const ptrdiff_t dims = args->dims, K = args->components, cells = args->cells, finest = args->finest;
    const ptrdiff_t row = 1 + 2 * dims; /* sums of g, g z and g z^2 of one component */
    double *by_finest = scratch(finest + 1, row * (ptrdiff_t)sizeof(double)), *whole = by_finest + finest * row;
    if (!by_finest) return FVLRP_E_MEMORY;
    for (ptrdiff_t k = 0; k < K; k++) { /* by component, so that the sums stay in L1 */
        const double by_u = 1 / sqrt(args->priors[k]), by_v = by_u / sqrt(2.0);
        memset(by_finest, 0, (size_t)(finest * row) * sizeof(double));
        for (ptrdiff_t p = 0; p < args->parts; p++) {
            const fvlrp_part *part = args->part + p;
            double *to = by_finest + part->finest * row;
            add_row(part->times, part->moments.s0 + k, 1, to);
            add_row(part->times, part->moments.s1 + k * dims, dims, to + 1);
            add_row(part->times, part->moments.s2 + k * dims, dims, to + 1 + dims);
        }
        for (ptrdiff_t c = 0; c < cells; c++) {
            double *u = args->sums + (c * 2 * K + k) * dims, *v = u + K * dims;
            memset(whole, 0, (size_t)row * sizeof(double));
            for (ptrdiff_t f = 0; f < finest; f++)
                if (args->member[f * cells + c]) add_row(1, by_finest + f * row, row, whole);
            for (ptrdiff_t d = 0; d < dims; d++) u[d] = whole[1 + d] * by_u;
            for (ptrdiff_t d = 0; d < dims; d++) v[d] = (whole[1 + dims + d] - whole[0]) * by_v;
            args->occupancy[c * K + k] = whole[0];
        }
    }
    release(by_finest);
    return FVLRP_OK;
}

/* Sums of squares and of magnitudes. */
INLINE void norms_of(const double *s, ptrdiff_t length, double *square, double *one) {
    vdouble squares[2] = {{0}, {0}}, sizes[2] = {{0}, {0}};
    double square_left = 0, one_left = 0;
    ptrdiff_t i = 0;
    for (; i + 2 * LANES <= length; i += 2 * LANES)
        UNROLL for (int u = 0; u < 2; u++) {
            const vdouble v = load(s + i + u * LANES);
            squares[u] += v * v;
            sizes[u] += magnitude(v);
        }
    for (; i < length; i++) {
        square_left += s[i] * s[i];
        one_left += fabs(s[i]);
    }
    *square = square_left + sum_lanes(squares[0] + squares[1]);
    *one = one_left + sum_lanes(sizes[0] + sizes[1]);
}

static int normalise(const fvlrp_normalise_args *args) {
    const ptrdiff_t cells = args->cells, length = args->length;
    double *scale = scratch(cells, sizeof(double)), size = 0;
    if (!scale) return FVLRP_E_MEMORY;
    for (ptrdiff_t c = 0; c < cells; c++) {
        double square, one;
        norms_of(args->sums + c * length, length, &square, &one);
        scale[c] = 1 / fmax(sqrt(square), LEAST_NORM);
        size += one * scale[c];
    }
    /* The L2 norm after the signed root is the square root of the L1 norm before it. */
    const double whole = 1 / fmax(sqrt(size), LEAST_NORM);
    for (ptrdiff_t c = 0; c < cells; c++) {
        const double *s = args->sums + c * length, by = scale[c];
        double *to = args->x + c * length;
        for (ptrdiff_t i = 0; i < length; i++) to[i] = copysign(sqrt(fabs(s[i]) * by) * whole, s[i]);
    }
    release(scale);
    return FVLRP_OK;
}

/* The L2 norm of a block after the signed root is the square root of its L1 norm before it. */
static int normalise_intra(const fvlrp_normalise_intra_args *args) {
    const ptrdiff_t K = args->components, dims = args->dims, blocks = args->cells * K;
    double *scale = scratch(blocks, sizeof(double)), size = 0;
    if (!scale) return FVLRP_E_MEMORY;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        const double *u = args->sums + (b / K * 2 * K + b % K) * dims;
        double square, first, second;
        norms_of(u, dims, &square, &first);
        norms_of(u + K * dims, dims, &square, &second);
        scale[b] = 1 / fmax(first + second, args->least);
        size += (first + second) * scale[b];
    }
    const double whole = 1 / fmax(sqrt(size), LEAST_NORM);
    for (ptrdiff_t b = 0; b < 2 * blocks; b++) { /* a row of either order */
        const double *s = args->sums + b * dims, by = scale[b / (2 * K) * K + b % K];
        double *to = args->x + b * dims;
        for (ptrdiff_t d = 0; d < dims; d++) to[d] = copysign(sqrt(fabs(s[d]) * by) * whole, s[d]);
    }
    release(scale);
    return FVLRP_OK;
}

/* sum w sgn(s) sqrt|s|; `term` is scratch memory. */
INLINE double root_products(const double *s, const float *w, ptrdiff_t length, float *term) {
    for (ptrdiff_t i = 0; i < length; i++) {
        const float narrow = (float)s[i];
        term[i] = copysignf(sqrtf(fabsf(narrow)), narrow) * w[i];
    }
    double sums[8] = {0};
    ptrdiff_t i = 0;
    for (; i + 8 <= length; i += 8)
        UNROLL for (int j = 0; j < 8; j++) sums[j] += (double)term[i + j];
    for (; i < length; i++) sums[i % 8] += (double)term[i];
    double sum = 0;
    for (int j = 0; j < 8; j++) sum += sums[j];
    return sum;
}

static int roots(const fvlrp_roots_args *args) {
    const ptrdiff_t K = args->components, dims = args->dims, blocks = args->cells * K;
    float *term = scratch(dims, sizeof(float));
    if (!term) return FVLRP_E_MEMORY;
    for (ptrdiff_t b = 0; b < blocks; b++) {
        if (!args->stale[b]) continue;
        args->stale[b] = 0;
        args->squares[b] = args->sizes[b] = args->products[b] = 0;
        for (ptrdiff_t order = 0; order < 2; order++) {
            const ptrdiff_t at = (b / K * 2 * K + order * K + b % K) * dims;
            double square, size;
            norms_of(args->sums + at, dims, &square, &size);
            args->squares[b] += square;
            args->sizes[b] += size;
            args->products[b] += root_products(args->sums + at, args->coef + at, dims, term);
        }
    }
    release(term);
    return FVLRP_OK;
}

/* Relevance that a cell's shares do not pass on: absorbed by the stabiliser, and lost at sums of 0. */
typedef struct {
    double absorbed, zero;
} shares_left;

static shares_left shares_of_cell(ptrdiff_t length, const double *r, const double *s, double eps, const double *spread,
                                  double *to) {
    const vdouble none = {0};
    vdouble kept = none, lost = none;
    ptrdiff_t i = 0;
    for (; i + LANES <= length; i += LANES) {
        const vdouble v = load(s + i), w = load(r + i), size = magnitude(v);
        const vlong dead = spread ? size <= TINY * load(spread + i) : v == none;
        const vdouble share = w / (size + eps), passed = times_sign(share, v + none);
        /* With a stabiliser a sum of 0 still passes shares on, which cancel; with none, 0 / 0 = 0. */
        store(to + i, eps > 0 ? passed : only(~dead, passed));
        kept += only(~dead, share * eps);
        lost += only(dead, w);
    }
    shares_left left = {sum_lanes(kept), sum_lanes(lost)};
    for (; i < length; i++) {
        const double size = fabs(s[i]), share = r[i] / (size + eps);
        const int dead = spread ? size <= TINY * spread[i] : s[i] == 0;
        to[i] = dead && !(eps > 0) ? 0 : s[i] < 0 ? -share : share;
        left.absorbed += dead ? 0 : share * eps;
        left.zero += dead ? r[i] : 0;
    }
    return left;
}

static int shares(const fvlrp_shares_args *args) {
    const ptrdiff_t length = args->length;
    double *ledger = args->ledger;
    ledger[0] = ledger[1] = ledger[2] = 0;
    for (ptrdiff_t c = 0; c < args->cells; c++) {
        const double *r = args->relevance + c * length;
        double *to = args->out + c * length;
        if (!args->counts[c]) {
            for (ptrdiff_t i = 0; i < length; i++) ledger[1] += r[i];
            memset(to, 0, (size_t)length * sizeof(double));
            continue;
        }
        const double *spread = args->spread ? args->spread + c * length : NULL;
        const shares_left left = shares_of_cell(length, r, args->sums + c * length, args->epsilon[c], spread, to);
        ledger[0] += left.absorbed;
        ledger[2] += left.zero;
    }
    return FVLRP_OK;
}
