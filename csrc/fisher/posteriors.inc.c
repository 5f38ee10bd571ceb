/* posteriors.inc.c - soft assignment to a diagonal Gaussian mixture: gated posteriors in CSR form.
 *
 * Logits log pi_k N(y; mu_k, sigma_k^2) are one product of [y^2, y, 1] with a packed table (model.inc.c). Where a
 * mixture has many components and the arithmetic is float, screen.inc.c finds out first which may matter. */
#ifndef FVLRP_POSTERIORS
#define FVLRP_POSTERIORS

#include "fisher/model.h"
#include "fisher/project.inc.c"
#include "fisher/screen.inc.c"
#include "gemm.inc.c"

/* docs/numerics.md §1 */
#if REAL_BITS == 32
#define SMALLEST 1e-37f /* float exponentials are clamped here: no posterior at all */
enum { MARGIN = 5 };
#else
#define SMALLEST DBL_MIN
enum { MARGIN = 35 };
#endif

typedef struct {
    const fvlrp_model *model;
    screener screen;
    ptrdiff_t padded, pitch; /* K rounded up to whole vectors, and with two vectors of slack */
    ptrdiff_t features_row;
    /* log(min(gate, 1e-6)), as components below a higher gate still contribute to the row's sum; exponentials are
     * computed of logits above gate - margin, relative to the row's largest */
    REAL gate, margin;
    REAL *features;   /* (TILE, features_row): [y^2, y, 1], y from the origin */
    REAL *logits;     /* (TILE, padded) */
    REAL *values;     /* (GROUP, pitch): exponentials */
    int32_t *index;   /* (GROUP, pitch): their components */
    REAL *last_gamma; /* (pitch): a row's entries where the output has no slack left */
    uint16_t *last_index;
} assigner;

static void assigner_layout(assigner *a, const fvlrp_model *model, arena *memory) {
    const double gate = model->gate < 1e-6 ? model->gate : 1e-6;
    const int screened = screen_pays(model);
    a->model = model;
    a->padded = round_up(model->components, LANES);
    a->pitch = (screened ? padded_components(model->components) : a->padded) + 2 * LANES;
    a->features_row = 2 * model->stride + LANES;
    a->gate = gate > 0 ? (REAL)log(gate) : -(REAL)INFINITY;
    a->margin = MARGIN;
    screener_layout(&a->screen, model, TILE, a->pitch, memory);
    a->features = carve(memory, screened ? 0 : TILE, a->features_row * (ptrdiff_t)sizeof(REAL));
    a->logits = carve(memory, screened ? 0 : TILE, a->padded * (ptrdiff_t)sizeof(REAL));
    a->values = carve(memory, GROUP * a->pitch, sizeof(REAL));
    a->index = carve(memory, GROUP * a->pitch, sizeof(int32_t));
    a->last_gamma = carve(memory, a->pitch, sizeof(REAL));
    a->last_index = carve(memory, a->pitch, sizeof(uint16_t));
}

/* ---- from logits to posteriors, before the division ---- */

/* The largest of `padded` values, a multiple of the vector's length. */
INLINE REAL largest_value(const REAL *l, ptrdiff_t padded) {
    VREAL best = fill(-(REAL)INFINITY), other = best;
    ptrdiff_t k = 0;
    for (; k + 2 * LANES <= padded; k += 2 * LANES) {
        best = larger(load(l + k), best);
        other = larger(load(l + k + LANES), other);
    }
    if (k < padded) best = larger(load(l + k), best);
    return largest_lane(larger(other, best));
}

/* Write the values l - shift above `threshold` and their indices; returns how many. Differences are compared because
 * far from every mean shift + threshold rounds to shift. Outputs have two vectors of slack. */
INLINE ptrdiff_t compress(const REAL *l, ptrdiff_t padded, REAL threshold, REAL shift, REAL *values, int32_t *index) {
    ptrdiff_t found = 0;
#if REAL_BITS == 32 && VBYTES == 64
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
INLINE void exponentials(REAL *values, ptrdiff_t count) {
    store(values + count, fill(-(REAL)INFINITY));
    for (ptrdiff_t j = 0; j < count; j += LANES) store(values + j, exponential(load(values + j)));
}

/* Logits of a tile's rows, without the constants of left_out(). */
static void logits_tile(const assigner *a, const REAL *y, ptrdiff_t m) {
    const fvlrp_model *model = a->model;
    const ptrdiff_t stride = model->stride;
    for (ptrdiff_t i = 0; i < m; i++) {
        REAL *f = a->features + i * a->features_row;
        for (ptrdiff_t d = 0; d < stride; d += LANES) {
            const VREAL v = load(y + i * stride + d) - load((const REAL *)model->tables->origin + d);
            store(f + d, v * v);
            store(f + stride + d, v);
        }
        f[2 * stride] = 1;
    }
    gemm(a->features, a->features_row, m, 2 * stride + 1, model->tables->logits, a->padded, a->logits, a->padded);
}

/* Exponentials of the rows from `first` on. Each step runs over all rows, since a row's own steps depend on each other.
 */
static void assign_group(const assigner *a, ptrdiff_t first, ptrdiff_t rows, row_group *g) {
    const ptrdiff_t padded = a->padded;
    const REAL *logits = a->logits + first * padded;
    ptrdiff_t end = 0;
    for (ptrdiff_t r = 0; r < rows; r++) g->largest[r] = largest_value(logits + r * padded, padded);
    for (ptrdiff_t r = 0; r < rows; r++, end += g->found[r - 1]) {
        g->begin[r] = end;
        g->found[r] = compress(logits + r * padded, padded, a->gate - a->margin, g->largest[r], a->values + end,
                               a->index + end);
    }
    exponentials(a->values, end);
}

/* ---- division and gate ---- */

/* The sum of `count` values, which have two vectors of slack. Two at a time: most rows then take the same branch. */
INLINE REAL sum_values(const REAL *values, ptrdiff_t count) {
    static const REAL lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    VREAL sum[2] = {{0}, {0}};
    for (ptrdiff_t j = 0; j < count; j += 2 * LANES)
        UNROLL for (int u = 0; u < 2; u++) {
            const VMASK there = load(lanes) < fill((REAL)(count - j - u * LANES));
            sum[u] += only(there, load(values + j + u * LANES));
        }
    return sum_lanes(sum[0] + sum[1]);
}

/* Write the posteriors values * scale that reach `gate`; returns how many. All arrays have two vectors of slack. */
INLINE ptrdiff_t keep(const REAL *values, const int32_t *index, ptrdiff_t found, REAL scale, REAL gate,
                      uint16_t *components, REAL *gamma) {
    ptrdiff_t kept = 0;
#if REAL_BITS == 32 && VBYTES == 64
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

/* Outputs of a call, from the current row on. */
typedef struct {
    fvlrp_csr csr;
    ptrdiff_t capacity;
    double *loglik;
} assigned;

/* Divide and gate the posteriors of the group that begins at row `first` of the tile. Returns how many rows fitted. */
static ptrdiff_t keep_group(const assigner *a, const row_group *g, ptrdiff_t first, ptrdiff_t rows,
                            const assigned *to) {
    const REAL gate = a->model->gate > 0 ? (REAL)a->model->gate : SMALLEST;
    int64_t *indptr = to->csr.indptr + first;
    uint16_t *index = to->csr.index;
    REAL *gamma = to->csr.gamma, sum[GROUP];
    for (ptrdiff_t r = 0; r < rows; r++) sum[r] = sum_values(a->values + g->begin[r], g->found[r]);
    for (ptrdiff_t r = 0; r < rows; r++) {
        const REAL *values = a->values + g->begin[r], scale = 1 / sum[r];
        const int32_t *which = a->index + g->begin[r];
        const ptrdiff_t found = g->found[r];
        int64_t at = indptr[r];
        if (at + found + 2 * LANES <= to->capacity) {
            at += keep(values, which, found, scale, gate, index + at, gamma + at);
        } else { /* near the end, whole vectors would be written past it */
            const ptrdiff_t kept = keep(values, which, found, scale, gate, a->last_index, a->last_gamma);
            if (at + kept > to->capacity) return r;
            memcpy(index + at, a->last_index, (size_t)kept * sizeof(uint16_t));
            memcpy(gamma + at, a->last_gamma, (size_t)kept * sizeof(REAL));
            at += kept;
        }
        indptr[r + 1] = at;
        if (to->loglik) to->loglik[first + r] = (double)g->largest[r] + log((double)sum[r]);
    }
    return rows;
}

/* The constant that a row's logits omit, from the means of the coefficients over the components. */
static double left_out(const assigner *a, const REAL *y) {
    const fvlrp_model *model = a->model;
    const ptrdiff_t stride = model->stride;
    if (a->screen.on) return model->tables->screen.mean_level;
    const double *centre = model->tables->centre;
    const REAL *origin = model->tables->origin;
    double sum = centre[2 * stride];
    for (ptrdiff_t d = 0; d < model->dims; d++) {
        const double from = (double)(REAL)(y[d] - origin[d]);
        sum += (centre[d] * from + centre[stride + d]) * from;
    }
    return sum;
}

/* Posteriors of a tile of m <= TILE rows. Returns how many rows fitted. */
static ptrdiff_t assign_tile(assigner *a, const REAL *y, ptrdiff_t m, const assigned *to) {
    const ptrdiff_t stride = a->model->stride;
    if (a->screen.on) screen_tile(&a->screen, y, m);
    else logits_tile(a, y, m);
    for (ptrdiff_t i = 0; i < m; i += GROUP) {
        const ptrdiff_t rows = imin(m - i, GROUP);
        row_group g;
        if (a->screen.on) screen_group(&a->screen, y, i, rows, a->gate, &g, a->values, a->index);
        else assign_group(a, i, rows, &g);
        const ptrdiff_t fitted = keep_group(a, &g, i, rows, to);
        for (ptrdiff_t r = i; to->loglik && r < i + fitted; r++) to->loglik[r] += left_out(a, y + r * stride);
        if (fitted < rows) return i + fitted;
    }
    return m;
}

static int posteriors(const fvlrp_posteriors_args *args) {
    const ptrdiff_t n = args->n;
    assigner a;
    arena memory = {0};
    *args->done = 0;
    assigner_layout(&a, args->model, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    assigner_layout(&a, args->model, &memory);
    assigned to = {args->csr, args->capacity, args->loglik};
    ptrdiff_t done = 0, fitted, m;
    do {
        m = imin(n - done, TILE);
        fitted = assign_tile(&a, (const REAL *)args->y + done * args->model->stride, m, &to);
        done += fitted;
        to.csr.indptr += fitted;
        if (to.loglik) to.loglik += fitted;
    } while (fitted == m && done < n);
    *args->done = done;
    arena_close(&memory);
    return fitted < m ? FVLRP_E_FULL : FVLRP_OK;
}

#endif
