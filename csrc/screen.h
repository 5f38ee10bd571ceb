/* screen.h - components that can matter to a row, found by products of bf16: half the cost of products of floats.
 *
 * Of 256 components some 18 have posteriors above the gate. Logits from bf16 are good enough to tell which those may be:
 * with z = (y - m) / s, m and s the mixture's own mean and deviation, 8 significant bits of z^2, of z and of their
 * coefficients leave an error between components near the best that goes with
 *     noise = 2^-9 sqrt(sum_j f_j^2 u_j),  f = [z^2, z],  u_j the mean over the components of squared coefficients:
 * on photographs its standard deviation is .44 noise and the largest of 200 000 was 8.6 noise, 1.2 in all. What comes
 * within the gate and SLACK + NOISES noise of the best is computed in float,
 *     log pi_k - 1/2 sum log 2 pi sigma_k^2 - 1/2 |(y - mu_k) / sigma_k|^2,
 * where nothing cancels. A component that is missed all the same has a posterior next to the gate.
 *
 * Included by gmm.c for floats. */
#ifndef FVLRP_SCREEN_H
#define FVLRP_SCREEN_H

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define HAVE_SCREEN 1

enum {
    SCREEN_ROWS = 16, /* rows that are screened together: a bit each in a mask */
    SCREEN_PANEL = 64 /* columns of a panel of the table: four vectors */
};
#define SCREEN_SLACK 1.0f
#define SCREEN_NOISES 6.0f

/* What is packed at model->screen; K padded to whole panels. */
typedef struct {
    float *scale, *shift; /* (stride): z = y scale + shift */
    float *noise;         /* (2 stride): u_j 2^-18 */
    float *start;         /* (padded K): constants of the logits in z; -infinity in the padding */
    float *level;         /* (padded K): log pi_k - 1/2 sum log 2 pi sigma_k^2, less their mean */
    double *mean_level;
    uint16_t *table;      /* coefficients of [z^2, z] by panel: [pair of features][column][of the pair] */
} screen_tables;

/* Of few components, or above a tiny gate, too many pass; very many would take much room. */
static int screen_pays(const fvlrp_model *model) {
    return model->gate >= 1e-9 && model->components >= 64 && model->components <= 4096;
}

static screen_tables screen_of(const fvlrp_model *model) {
    const ptrdiff_t stride = model->stride, panels = (model->components + SCREEN_PANEL - 1) / SCREEN_PANEL;
    float *at = (float *)model->screen + 2, *start = at + 4 * stride, *level = start + panels * SCREEN_PANEL;
    return (screen_tables){.mean_level = model->screen, .scale = at, .shift = at + stride, .noise = at + 2 * stride,
                           .start = start, .level = level, .table = (uint16_t *)(level + panels * SCREEN_PANEL)};
}

/* The bf16 nearest to a number. */
static uint16_t screen_half(double value) {
    const float nearest = (float)value;
    uint32_t bits;
    memcpy(&bits, &nearest, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Pack a mixture; `table` is scratch, double (2 stride + 1, K). */
static void screen_pack(const fvlrp_model *model, const double *priors, const double *means, const double *variances,
                        double *table) {
    const screen_tables s = screen_of(model);
    const ptrdiff_t K = model->components, dims = model->dims, stride = model->stride;
    const ptrdiff_t padded = s.level - s.start;
    double *level = table + 2 * stride * K, total = 0, mean_level = 0, mean_start = 0;
    memset(table, 0, (size_t)(2 * stride * K) * sizeof(double));
    memset(s.scale, 0, (size_t)(2 * stride) * sizeof(float)); /* of the padding; the shift follows */
    for (ptrdiff_t k = 0; k < K; k++) total += priors[k];
    for (ptrdiff_t k = 0; k < padded; k++) s.start[k] = k < K ? 0 : -(float)INFINITY;
    for (ptrdiff_t d = 0; d < dims; d++) {
        double mean = 0, square = 0;
        for (ptrdiff_t k = 0; k < K; k++) {
            const double mu = means[k * dims + d];
            mean += priors[k] / total * mu;
            square += priors[k] / total * (mu * mu + variances[k * dims + d]);
        }
        const double deviation = sqrt(square - mean * mean);
        s.scale[d] = (float)(1 / deviation);
        s.shift[d] = (float)(-mean / deviation);
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        double start = level[k] = log(priors[k]);
        for (ptrdiff_t d = 0; d < dims; d++) {
            const double scale = (double)s.scale[d], var = variances[k * dims + d] * scale * scale;
            const double mu = means[k * dims + d] * scale + (double)s.shift[d];
            table[d * K + k] = -0.5 / var;
            table[(stride + d) * K + k] = mu / var;
            level[k] -= 0.5 * log(6.283185307179586 * variances[k * dims + d]);
            start -= 0.5 * (log(var) + mu * mu / var);
        }
        s.start[k] = (float)start;
        mean_start += start / (double)K;
        mean_level += level[k] / (double)K;
    }
    *s.mean_level = mean_level;
    for (ptrdiff_t k = 0; k < K; k++) {
        s.start[k] -= (float)mean_start;
        s.level[k] = (float)(level[k] - mean_level);
    }
    for (ptrdiff_t j = 0; j < 2 * stride; j++) {
        double mean = 0, squares = 0;
        for (ptrdiff_t k = 0; k < K; k++) mean += table[j * K + k] / (double)K;
        for (ptrdiff_t k = 0; k < padded; k++) {
            const double t = k < K ? table[j * K + k] - mean : 0;
            squares += t * t / (double)K;
            const ptrdiff_t pair = k / SCREEN_PANEL * stride + j / 2, column = k % SCREEN_PANEL;
            s.table[(pair * SCREEN_PANEL + column) * 2 + j % 2] = screen_half(t);
        }
        s.noise[j] = (float)(squares * 0x1p-18);
    }
}

/* [z^2, z] of a row in bf16; its noise is returned. */
INLINE float screen_features(const screen_tables *s, ptrdiff_t stride, const float *y, uint16_t *halves) {
    __m512 noise = _mm512_setzero_ps();
    for (ptrdiff_t d = 0; d < stride; d += 16) {
        const __m512 scale = _mm512_loadu_ps(s->scale + d), shift = _mm512_loadu_ps(s->shift + d);
        const __m512 z = _mm512_fmadd_ps(_mm512_loadu_ps(y + d), scale, shift);
        const __m512 square = _mm512_mul_ps(z, z);
        noise = _mm512_fmadd_ps(square, _mm512_loadu_ps(s->noise + stride + d), noise);
        noise = _mm512_fmadd_ps(_mm512_mul_ps(square, square), _mm512_loadu_ps(s->noise + d), noise);
        _mm256_storeu_si256((__m256i *)(halves + d), (__m256i)_mm512_cvtneps_pbh(square));
        _mm256_storeu_si256((__m256i *)(halves + stride + d), (__m256i)_mm512_cvtneps_pbh(z));
    }
    return sqrtf(_mm512_reduce_add_ps(noise));
}

/* Logits of 6 rows on a panel. */
INLINE void screen_micro(const uint16_t *a, ptrdiff_t pairs, const uint16_t *b, const float *start, float *c,
                         ptrdiff_t ldc) {
    __m512 acc[6][4];
    UNROLL for (int i = 0; i < 6; i++) UNROLL for (int j = 0; j < 4; j++) acc[i][j] = _mm512_loadu_ps(start + 16 * j);
    for (ptrdiff_t p = 0; p < pairs; p++) {
        __m512bh line[4];
        UNROLL for (int j = 0; j < 4; j++) line[j] = (__m512bh)_mm512_loadu_si512(b + (4 * p + j) * 32);
        UNROLL for (int i = 0; i < 6; i++) {
            int32_t both;
            memcpy(&both, a + (i * pairs + p) * 2, sizeof both);
            const __m512bh pair = (__m512bh)_mm512_set1_epi32(both);
            UNROLL for (int j = 0; j < 4; j++) acc[i][j] = _mm512_dpbf16_ps(acc[i][j], pair, line[j]);
        }
    }
    UNROLL for (int i = 0; i < 6; i++)
        UNROLL for (int j = 0; j < 4; j++) _mm512_storeu_ps(c + i * ldc + 16 * j, acc[i][j]);
}

/* Logits (m, padded K) from bf16 of m rows of features; up to 5 rows past m are read and written. */
static void screen_logits(const screen_tables *s, ptrdiff_t stride, const uint16_t *halves, ptrdiff_t m, float *logits) {
    const ptrdiff_t padded = s->level - s->start;
    for (ptrdiff_t at = 0; at < padded; at += SCREEN_PANEL)
        for (ptrdiff_t i = 0; i < m; i += 6)
            screen_micro(halves + i * 2 * stride, stride, s->table + at * 2 * stride, s->start + at,
                         logits + i * padded + at, padded);
}

/* Sums of the elements of 16 vectors. Each is summed in the same order, wherever it stands. */
INLINE __m512 screen_sums(const float vectors[][16]) {
    __m512 a[8], b[4], c[2];
    UNROLL for (int i = 0; i < 8; i++) {
        const __m512 even = _mm512_load_ps(vectors[2 * i]), odd = _mm512_load_ps(vectors[2 * i + 1]);
        a[i] = _mm512_add_ps(_mm512_unpacklo_ps(even, odd), _mm512_unpackhi_ps(even, odd));
    }
    UNROLL for (int i = 0; i < 4; i++) {
        const __m512d even = _mm512_castps_pd(a[2 * i]), odd = _mm512_castps_pd(a[2 * i + 1]);
        b[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(even, odd)),
                             _mm512_castpd_ps(_mm512_unpackhi_pd(even, odd)));
    }
    UNROLL for (int i = 0; i < 2; i++)
        c[i] = _mm512_add_ps(_mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0x88),
                             _mm512_shuffle_f32x4(b[2 * i], b[2 * i + 1], 0xdd));
    return _mm512_add_ps(_mm512_shuffle_f32x4(c[0], c[1], 0x88), _mm512_shuffle_f32x4(c[0], c[1], 0xdd));
}

/* What passes of SCREEN_ROWS rows, ascending in each: so many components, their numbers and, as vectors whose elements
 * are still to be summed, |(y - mu) / sigma|^2. Row r's begin at r pitch. */
typedef struct {
    ptrdiff_t pitch;
    ptrdiff_t *found;
    int32_t *index;
    float (*vectors)[16];
} screen_passed;

/* Component k of the rows of a mask: `width` vectors of columns, which are the first or ADDED. */
INLINE void screen_columns(const int width, const int first, const screen_passed *p, ptrdiff_t k, uint32_t mask,
                           const float *y, ptrdiff_t stride, const float *scales, const float *shifts) {
    __m512 scale[5], shift[5];
    UNROLL for (int v = 0; v < width; v++) {
        scale[v] = _mm512_loadu_ps(scales + 16 * v);
        shift[v] = _mm512_loadu_ps(shifts + 16 * v);
    }
    for (; mask; mask &= mask - 1) {
        const ptrdiff_t row = __builtin_ctz(mask), at = row * p->pitch + p->found[row] - !first;
        if (first) {
            p->index[at] = (int32_t)k;
            p->found[row]++;
        }
        __m512 sum = first ? _mm512_setzero_ps() : _mm512_load_ps(p->vectors[at]);
        UNROLL for (int v = 0; v < width; v++) {
            const __m512 z = _mm512_fmadd_ps(_mm512_loadu_ps(y + row * stride + 16 * v), scale[v], shift[v]);
            sum = _mm512_fmadd_ps(z, z, sum);
        }
        _mm512_store_ps(p->vectors[at], sum);
    }
}

INLINE void screen_component(const screen_passed *p, const fvlrp_model *model, const float *y, ptrdiff_t k,
                             uint32_t mask) {
    const ptrdiff_t stride = model->stride;
    const float *scale = (const float *)model->scale + k * stride, *shift = (const float *)model->shift + k * stride;
    if (stride < 80) screen_columns(1, 1, p, k, mask, y, stride, scale, shift);
    else screen_columns(5, 1, p, k, mask, y, stride, scale, shift);
    for (ptrdiff_t at = stride < 80 ? 16 : 80; at < stride; at += 16)
        screen_columns(1, 0, p, k, mask, y + at, stride, scale + at, shift + at);
}

/* Of rows 0 .. rows - 1: what may be better than `gate` below the best. */
static void screen_rows(const fvlrp_model *model, const screen_tables *s, const float *y, const float *logits,
                        const float *noise, ptrdiff_t rows, float gate, const screen_passed *p) {
    const ptrdiff_t padded = s->level - s->start;
    float limit[SCREEN_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        __m512 best = _mm512_set1_ps(-(float)INFINITY);
        for (ptrdiff_t k = 0; k < padded; k += 16) best = _mm512_max_ps(_mm512_loadu_ps(logits + r * padded + k), best);
        limit[r] = _mm512_reduce_max_ps(best) + gate - SCREEN_SLACK - SCREEN_NOISES * noise[r];
        p->found[r] = 0;
    }
    for (ptrdiff_t first = 0; first < padded; first += 16) {
        uint16_t masks[SCREEN_ROWS] = {0};
        uint32_t any = 0;
        for (ptrdiff_t r = 0; r < rows; r++) {
            const __m512 logit = _mm512_loadu_ps(logits + r * padded + first);
            masks[r] = _mm512_cmp_ps_mask(logit, _mm512_set1_ps(limit[r]), _CMP_GT_OQ);
            any |= masks[r];
        }
        /* Bit k of every row's mask, as a mask of rows. */
        const __m256i all = _mm256_loadu_si256((const __m256i *)masks);
        for (; any; any &= any - 1) {
            const int k = __builtin_ctz(any);
            const uint32_t mask = _mm256_test_epi16_mask(all, _mm256_set1_epi16((int16_t)(1u << k)));
            screen_component(p, model, y, first + k, mask);
        }
    }
}

/* A row's logits in float, up to a whole vector, and the largest, which is returned. */
static float screen_values(const screen_tables *s, const int32_t *index, float (*vectors)[16], ptrdiff_t found,
                           float *values) {
    __m512 best = _mm512_set1_ps(-(float)INFINITY);
    for (ptrdiff_t j = 0; j < found; j += 16) {
        const __mmask16 there = found - j < 16 ? (__mmask16)((1u << (found - j)) - 1) : (__mmask16)~0u;
        const __m512i k = _mm512_maskz_loadu_epi32(there, index + j);
        const __m512 level = _mm512_i32gather_ps(k, s->level, 4);
        const __m512 logit = _mm512_fnmadd_ps(_mm512_set1_ps(0.5f), screen_sums(vectors + j), level);
        const __m512 value = _mm512_mask_mov_ps(_mm512_set1_ps(-(float)INFINITY), there, logit);
        best = _mm512_max_ps(value, best);
        _mm512_storeu_ps(values + j, value);
    }
    return _mm512_reduce_max_ps(best);
}
#endif
#endif
