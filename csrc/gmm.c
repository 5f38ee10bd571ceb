/* gmm.c - soft assignment to a diagonal Gaussian mixture.
 *
 * log pi_k N(y; mu_k, sigma_k^2) = offset_k + sum_i (quadratic_ki y_i^2 + linear_ki y_i): one product of [y^2, y] with
 * a packed table, y and mu_k taken from an origin among the means: from 0, terms of columns that lie many deviations
 * away would cancel. Less the mean over k of both coefficients (a constant per row, which posteriors do not see), the
 * terms are small enough for float. Of many components, floats come from screen.h instead, where it can tell which of them
 * matter. Included by isa.c once per real type. */

/* exp of x <= 0. Float: 2^n times a polynomial of degree 6 on |r| <= ln 2 / 2, 2 ulp; double: libm. */
INLINE VREAL R(exponential)(VREAL v) {
#if REAL_BITS == 32
    const VREAL lowest = R(fill)(-87.0f), magic = R(fill)(12582912.0f);
    const vint low = v < lowest;
    v = (VREAL)(((vint)lowest & low) | ((vint)v & ~low));
    const VREAL shifted = v * 1.44269504f + magic;
    const VREAL whole = shifted - magic;
    VREAL r = v - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    VREAL p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return (VREAL)((vint)p + (((vint)shifted - (vint)magic) << 23));
#else
    for (int i = 0; i < LANES; i++) v[i] = exp(v[i]);
    return v;
#endif
}

/* v where it is greater than `than`, which a not-a-number never is. */
INLINE VREAL R(larger)(VREAL v, VREAL than) {
#if REAL_BITS == 32 && defined(__AVX512F__)
    return (VREAL)_mm512_max_ps((__m512)v, (__m512)than);
#else
    const __typeof__(v > than) more = v > than;
    return (VREAL)(((__typeof__(more))v & more) | ((__typeof__(more))than & ~more));
#endif
}

INLINE REAL R(largest_element)(VREAL v) {
#if REAL_BITS == 32 && defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    REAL largest = v[0];
    for (int j = 1; j < LANES; j++) largest = v[j] > largest ? v[j] : largest;
    return largest;
#endif
}

/* The largest of `padded` values, a multiple of the vector's length. */
INLINE REAL R(largest)(const REAL *l, ptrdiff_t padded) {
    VREAL best = R(fill)(-(REAL)INFINITY), other = best;
    ptrdiff_t k = 0;
    for (; k + 2 * LANES <= padded; k += 2 * LANES) {
        best = R(larger)(R(load)(l + k), best);
        other = R(larger)(R(load)(l + k + LANES), other);
    }
    if (k < padded) best = R(larger)(R(load)(l + k), best);
    return R(largest_element)(R(larger)(other, best));
}

#include "screen.h"
#undef SCREENS
#if defined(HAVE_SCREEN) && REAL_BITS == 32
#define SCREENS 1
#endif

/* Entries of `l` less `shift` that are above `threshold`, with their indices: how many. It is the difference that is
 * compared: of a row far from every mean, `shift + threshold` would be rounded to `shift`, and nothing would be above it.
 * Outputs have two vectors of slack. */
INLINE ptrdiff_t R(compress)(const REAL *l, ptrdiff_t padded, REAL threshold, REAL shift, REAL *values, int32_t *index) {
    ptrdiff_t found = 0;
#if REAL_BITS == 32 && defined(__AVX512F__)
    __m512i at = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512 limit = _mm512_set1_ps(threshold), less = _mm512_set1_ps(shift);
    for (ptrdiff_t k = 0; k < padded; k += 16, at = _mm512_add_epi32(at, _mm512_set1_epi32(16))) {
        const __m512 v = _mm512_sub_ps(_mm512_loadu_ps(l + k), less);
        const __mmask16 keep = _mm512_cmp_ps_mask(v, limit, _CMP_GT_OQ);
        /* Compress in the register and store whole vectors: the form that compresses into memory is slow. */
        _mm512_storeu_ps(values + found, _mm512_maskz_compress_ps(keep, v));
        _mm512_storeu_si512(index + found, _mm512_maskz_compress_epi32(keep, at));
        found += __builtin_popcount(keep);
    }
#else
    for (ptrdiff_t k = 0; k < padded; k++) {
        values[found] = l[k] - shift;
        index[found] = (int32_t)k;
        found += values[found] > threshold;
    }
#endif
    return found;
}

/* Exponentials of `count` values in place. A vector of slack is overwritten. */
INLINE void R(exponentials)(REAL *values, ptrdiff_t count) {
    R(store)(values + count, R(fill)(-(REAL)INFINITY));
    for (ptrdiff_t j = 0; j < count; j += LANES) R(store)(values + j, R(exponential)(R(load)(values + j)));
}

/* The sum of `count` values, which have two vectors of slack. Two at a time: most rows then take the same branch. */
INLINE REAL R(sum_values)(const REAL *values, ptrdiff_t count) {
    static const REAL lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    VREAL sum[2] = {{0}, {0}};
    for (ptrdiff_t j = 0; j < count; j += 2 * LANES)
        UNROLL for (int u = 0; u < 2; u++) {
            const __typeof__(sum[0] < sum[1]) there = R(load)(lanes) < R(fill)((REAL)(count - j - u * LANES));
            sum[u] += (VREAL)((__typeof__(there))R(load)(values + j + u * LANES) & there);
        }
    sum[0] += sum[1];
#if REAL_BITS == 32 && defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)sum[0]);
#else
    REAL total = 0;
    for (int j = 0; j < LANES; j++) total += sum[0][j];
    return total;
#endif
}

/* Posteriors values * scale that reach `gate`, to `gamma` and `components`: how many. All have two vectors of slack. */
INLINE ptrdiff_t R(keep)(const REAL *values, const int32_t *index, ptrdiff_t found, REAL scale, REAL gate,
                         uint16_t *components, REAL *gamma) {
    ptrdiff_t kept = 0;
#if REAL_BITS == 32 && defined(__AVX512F__)
    for (ptrdiff_t j = 0; j < found; j += 32) {
        const uint32_t there = found - j < 32 ? (1u << (found - j)) - 1 : ~0u;
        UNROLL for (int u = 0; u < 32; u += 16) {
            const __m512 g = _mm512_mul_ps(_mm512_loadu_ps(values + j + u), _mm512_set1_ps(scale));
            const __mmask16 reach =
                _mm512_mask_cmp_ps_mask((__mmask16)(there >> u), g, _mm512_set1_ps(gate), _CMP_GE_OQ);
            _mm512_storeu_ps(gamma + kept, _mm512_maskz_compress_ps(reach, g));
            const __m512i which = _mm512_maskz_compress_epi32(reach, _mm512_loadu_si512(index + j + u));
            _mm256_storeu_si256((__m256i *)(components + kept), _mm512_cvtepi32_epi16(which));
            kept += __builtin_popcount(reach);
        }
    }
#else
    for (ptrdiff_t j = 0; j < found; j++) {
        components[kept] = (uint16_t)index[j];
        gamma[kept] = values[j] * scale;
        kept += gamma[kept] >= gate;
    }
#endif
    return kept;
}

#undef SMALLEST
#undef GROUP
#define GROUP 32 /* rows whose posteriors are found together */
#if REAL_BITS == 32
#define SMALLEST 1e-37f /* below it a float exponential is clamped: no posterior at all */
#else
#define SMALLEST DBL_MIN
#endif

typedef struct {
    const fvlrp_model *model;
    REAL *features; /* (tile + slack, 2 stride): [y^2, y], y from the origin */
    REAL *logits;   /* (tile + slack, padded K) */
    REAL *values;   /* (GROUP, pitch) */
    int32_t *index; /* the same */
    REAL *last_gamma; /* padded K and two vectors of slack: a row's entries where the output has no slack left */
    uint16_t *last_index;
    ptrdiff_t padded, pitch; /* K rounded up to whole vectors, and with two vectors of slack */
    /* log of the gate, or of 1e-6 where a gate is so high that many components together may reach it; and how far below
     * it a component, relative to the largest, is still worth an exponential */
    REAL gate, margin;
#ifdef SCREENS
    int screened; /* whether whole numbers say which components to look at */
    screen_tables screen;
    float step[R(TILE) + R(SLACK)], noise[R(TILE)]; /* of rows */
    float *line;         /* (2 stride) */
    eight_f32 *octets;   /* (GROUP, pitch) */
#endif
} R(assigner);

static int R(assigner_open)(R(assigner) *a, const fvlrp_model *model) {
    const ptrdiff_t rows = R(TILE) + R(SLACK);
    a->model = model;
    a->padded = (model->components + LANES - 1) / LANES * LANES;
#ifdef SCREENS
    a->screen = screen_of(model);
    a->screened = screen_pays(model);
    if (a->screened) a->padded = screen_padded(model->components);
#endif
    a->pitch = a->padded + 2 * LANES;
    a->features = scratch(rows * 2 * model->stride, sizeof(REAL));
    a->logits = scratch(rows * a->padded, sizeof(REAL));
    a->values = scratch(GROUP * a->pitch, sizeof(REAL));
    a->index = scratch(GROUP * a->pitch, sizeof(int32_t));
    a->last_gamma = scratch(a->pitch, sizeof(REAL));
    a->last_index = scratch(a->pitch, sizeof(uint16_t));
    const double gate = model->gate < 1e-6 ? model->gate : 1e-6;
    a->gate = gate > 0 ? (REAL)log(gate) : -(REAL)INFINITY;
    a->margin = REAL_BITS == 32 ? 5 : 35;
    if (!a->features || !a->logits || !a->values || !a->index || !a->last_gamma || !a->last_index)
        return FVLRP_E_MEMORY;
#ifdef SCREENS
    if (a->screened) {
        a->line = scratch(2 * model->stride, sizeof(float));
        a->octets = scratch(GROUP * a->pitch, sizeof(eight_f32));
        if (!a->line || !a->octets) return FVLRP_E_MEMORY;
    }
#endif
    memset(a->features, 0, (size_t)(rows * 2 * model->stride) * sizeof(REAL));
    return FVLRP_OK;
}

static void R(assigner_close)(R(assigner) *a) {
#ifdef SCREENS
    free(a->line);
    free(a->octets);
#endif
    free(a->features);
    free(a->logits);
    free(a->values);
    free(a->index);
    free(a->last_gamma);
    free(a->last_index);
}

/* What the logits of a row leave out: the means over the components of their coefficients. */
static double R(left_out)(const R(assigner) *a, const REAL *y) {
    const fvlrp_model *model = a->model;
    const ptrdiff_t stride = model->stride;
#ifdef SCREENS
    if (a->screened) return *a->screen.mean_level;
#endif
    const double *centre = model->centre;
    const REAL *origin = model->origin;
    double sum = centre[2 * stride];
    for (ptrdiff_t d = 0; d < model->dims; d++) {
        const double from = (double)(REAL)(y[d] - origin[d]);
        sum += (centre[d] * from + centre[stride + d]) * from;
    }
    return sum;
}

/* Posteriors of some rows before they are divided by their sums. */
typedef struct {
    REAL largest[GROUP];     /* the largest logit, which is 1 here */
    ptrdiff_t begin[GROUP], found[GROUP]; /* where a row's begin in the assigner's values and index, and how many */
} R(group);

/* Those of rows of a tile, step by step: a row's steps wait for each other, those of several rows do not. */
static void R(assign_group)(R(assigner) *a, ptrdiff_t first, ptrdiff_t rows, R(group) *g) {
    const ptrdiff_t padded = a->padded;
    const REAL *logits = a->logits + first * padded;
    ptrdiff_t end = 0;
    for (ptrdiff_t r = 0; r < rows; r++) g->largest[r] = R(largest)(logits + r * padded, padded);
    for (ptrdiff_t r = 0; r < rows; r++, end += g->found[r - 1]) {
        g->begin[r] = end;
        g->found[r] = R(compress)(logits + r * padded, padded, a->gate - a->margin, g->largest[r], a->values + end,
                                  a->index + end);
    }
    R(exponentials)(a->values, end);
}
#ifdef SCREENS

/* The same from logits that only tell which components to look at. */
static void screen_group(R(assigner) *a, const float *y, ptrdiff_t first, ptrdiff_t rows, R(group) *g) {
    const screen_passed passed = {a->pitch, g->found, a->index, a->values, a->octets};
    const float *logits = a->logits + first * a->padded;
    screen_rows(a->model, &a->screen, y + first * a->model->stride, logits, a->noise + first, rows, a->gate, &passed);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const ptrdiff_t at = r * a->pitch, found = g->found[r];
        float *values = a->values + at;
        const float largest = screen_values(a->octets + at, found, values);
        for (ptrdiff_t j = 0; j < found; j += LANES) R(store)(values + j, R(exponential)(R(load)(values + j) - largest));
        g->begin[r] = at;
        g->largest[r] = largest;
    }
}
#endif

/* Divide and gate the posteriors of a group that begins at row `first` of the tile. Returns how many rows fitted. */
static ptrdiff_t R(keep_group)(R(assigner) *a, const R(group) *g, ptrdiff_t first, ptrdiff_t rows, ptrdiff_t capacity,
                               int64_t *indptr, uint16_t *index, REAL *gamma, double *loglik) {
    const REAL gate = a->model->gate > 0 ? (REAL)a->model->gate : SMALLEST;
    REAL sum[GROUP];
    for (ptrdiff_t r = 0; r < rows; r++) sum[r] = R(sum_values)(a->values + g->begin[r], g->found[r]);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const REAL *values = a->values + g->begin[r], scale = 1 / sum[r];
        const int32_t *which = a->index + g->begin[r];
        const ptrdiff_t found = g->found[r];
        int64_t at = indptr[first + r];
        if (at + found + 2 * LANES <= capacity) {
            at += R(keep)(values, which, found, scale, gate, index + at, gamma + at);
        } else { /* near the end, whole vectors would be written past it */
            const ptrdiff_t kept = R(keep)(values, which, found, scale, gate, a->last_index, a->last_gamma);
            if (at + kept > capacity) return r;
            memcpy(index + at, a->last_index, (size_t)kept * sizeof(uint16_t));
            memcpy(gamma + at, a->last_gamma, (size_t)kept * sizeof(REAL));
            at += kept;
        }
        indptr[first + r + 1] = at;
        if (loglik) loglik[first + r] = (double)g->largest[r] + log((double)sum[r]);
    }
    return rows;
}

/* Logits of a tile's m <= TILE rows, less what left_out says. */
static void R(logits)(R(assigner) *a, const REAL *y, ptrdiff_t m) {
    const fvlrp_model *model = a->model;
    const ptrdiff_t stride = model->stride;
    for (ptrdiff_t i = 0; i < m; i++) {
        REAL *f = a->features + i * 2 * stride;
        for (ptrdiff_t d = 0; d < stride; d += LANES) {
            const VREAL v = R(load)(y + i * stride + d) - R(load)((const REAL *)model->origin + d);
            R(store)(f + d, v * v);
            R(store)(f + stride + d, v);
        }
    }
    R(gemm)(a->features, 2 * stride, m, 2 * stride, model->logits, model->components, model->offset, a->logits,
            a->padded);
}

/* Posteriors of a tile of m <= TILE rows. Entries go to index[at...], gamma[at...]; returns how many rows fitted. */
static ptrdiff_t R(assign)(R(assigner) *a, const REAL *y, ptrdiff_t m, ptrdiff_t capacity, int64_t *indptr,
                           uint16_t *index, REAL *gamma, double *loglik) {
    const ptrdiff_t stride = a->model->stride;
    int screened = 0;
#ifdef SCREENS
    if ((screened = a->screened)) {
        uint8_t *bytes = (uint8_t *)a->features;
        for (ptrdiff_t i = 0; i < m; i++)
            a->step[i] = screen_features(&a->screen, stride, y + i * stride, a->line, bytes + i * 2 * stride, a->noise + i);
        screen_logits(&a->screen, 2 * stride, a->padded, bytes, a->step, m, a->logits);
    }
#endif
    if (!screened) R(logits)(a, y, m);
    for (ptrdiff_t i = 0; i < m; i += GROUP) {
        const ptrdiff_t rows = m - i < GROUP ? m - i : GROUP;
        R(group) g;
#ifdef SCREENS
        if (screened) screen_group(a, y, i, rows, &g);
#endif
        if (!screened) R(assign_group)(a, i, rows, &g);
        const ptrdiff_t fitted = R(keep_group)(a, &g, i, rows, capacity, indptr, index, gamma, loglik);
        for (ptrdiff_t r = i; loglik && r < i + fitted; r++) loglik[r] += R(left_out)(a, y + r * stride);
        if (fitted < rows) return i + fitted;
    }
    return m;
}

static int R(posteriors)(const fvlrp_model *model, const void *y, ptrdiff_t n, ptrdiff_t capacity, int64_t *indptr,
                         uint16_t *index, void *gamma, double *loglik, ptrdiff_t *done) {
    R(assigner) a = {0};
    int status = R(assigner_open)(&a, model);
    while (status == FVLRP_OK && *done < n) {
        const ptrdiff_t m = n - *done < R(TILE) ? n - *done : R(TILE);
        const ptrdiff_t fitted = R(assign)(&a, (const REAL *)y + *done * model->stride, m, capacity, indptr + *done,
                                           index, gamma, loglik ? loglik + *done : NULL);
        *done += fitted;
        if (fitted < m) status = FVLRP_E_FULL;
    }
    R(assigner_close)(&a);
    return status;
}
