/* screen.h - components that can matter to a row, found by products of whole numbers of 8 bits.
 *
 * Of 256 components some 17 have posteriors above the gate. Rough logits tell which those may be. With z = (y - m) / s,
 * m and s the mixture's own mean and deviation, a logit is a constant and sum_j w_kj f_j over f = [z^2 - 1, z], w less
 * its mean over the components. Both go into 8 bits after f_j t_j and w_kj / t_j, where t_j makes the two as large as
 * each other: f t in steps of the row's largest / 127, w / t in steps of its component's. The sum of products of whole
 * numbers is exact; that they are rounded leaves an error whose standard deviation is, of a uniform one's in each,
 *     sqrt(1/12 (step_n^2 sum_j (w_kj / t_j)^2 + step_k^2 sum_j (f_j t_j)^2)),
 * and not more than noise_n noise_k, noise_n = step_n max(1, |f t| / (NORM step_n)). Of 2.5 million components that belong
 * to rows of photographs none was off by more than 5.5 of it. Components of small variances are many times less exact
 * than others: one noise for all would have to be large, and would yet miss them. A component that may come, NOISES of
 * its noise up, within the gate of the best of all, NOISES of theirs down, is computed in float,
 *     log pi_k - 1/2 sum log 2 pi sigma_k^2 - 1/2 |(y - mu_k) / sigma_k|^2,
 * where nothing cancels. Errors are taken for independent: of columns that say the same they add up, and a component next
 * to the gate may be missed.
 *
 * Included by gmm.c for floats. */
#ifndef FVLRP_SCREEN_H
#define FVLRP_SCREEN_H

#if defined(__SSSE3__)
#define HAVE_SCREEN 1

enum {
    SCREEN_ROWS = 32,                    /* rows that are screened together: a bit each in a mask */
    SCREEN_VECTORS = VBYTES == 64 ? 4 : 2, /* vectors in a panel of columns of the table */
    SCREEN_PANEL = SCREEN_VECTORS * FLOATS,
    SCREEN_BLOCK = 6,                    /* rows that meet a panel in registers */
    SCREEN_WIDTH = VBYTES == 16 ? 4 : 5, /* vectors of columns of (y - mu) / sigma at a time */
#if defined(__AVX512VNNI__)
    SCREEN_STEP = 4,  /* features whose products with a column are added to its sum at a time */
    SCREEN_ADDED = 1, /* and of how many the products are first added in 16 bits */
#else
    SCREEN_STEP = 8,
    SCREEN_ADDED = 4,
#endif
    SCREEN_ZERO = 128                    /* features are stored as bytes with this added */
};
#define SCREEN_NOISES 3.5f
#define SCREEN_NORM 300.0f /* of features in steps: the median of photographs */

/* What is packed at model->screen; K padded to whole panels of any instruction set. */
typedef struct {
    double *mean_level;
    float *scale, *shift;   /* (stride): z = y scale + shift */
    float *square, *linear; /* (stride): t of z^2 - 1 and of z */
    float *start, *step;    /* (padded K): constants of the logits, -infinity in the padding; steps of the coefficients */
    float *noise;           /* (padded K): noise_k */
    float *level;           /* (padded K): log pi_k - 1/2 sum log 2 pi sigma_k^2, less their mean */
    int32_t *begin;         /* (padded K): sums start here, which takes back what SCREEN_ZERO adds */
    int8_t *table;          /* coefficients by panel: [four features][column][of the four] */
} screen_tables;

/* Of few components, or above a tiny gate, too many pass; very many would take much room. */
static int screen_pays(const fvlrp_model *model) {
    return model->gate >= 1e-9 && model->components >= 64 && model->components <= 4096;
}

static ptrdiff_t screen_padded(ptrdiff_t components) { return (components + 63) / 64 * 64; }

static screen_tables screen_of(const fvlrp_model *model) {
    const ptrdiff_t stride = model->stride, padded = screen_padded(model->components);
    float *at = (float *)model->screen + 2, *start = at + 4 * stride;
    int32_t *begin = (int32_t *)(start + 4 * padded);
    return (screen_tables){.mean_level = model->screen, .scale = at, .shift = at + stride, .square = at + 2 * stride,
                           .linear = at + 3 * stride, .start = start, .step = start + padded,
                           .noise = start + 2 * padded, .level = start + 3 * padded, .begin = begin,
                           .table = (int8_t *)(begin + padded)};
}

/* Bytes of component k by feature, in steps such that those whose products are added in 16 bits come to 127 at most:
 * times bytes of up to 255 they fit. */
static void screen_component_pack(const screen_tables *s, ptrdiff_t depth, ptrdiff_t K, ptrdiff_t k, const double *table,
                                  const double *balance) {
    double largest = 0, squares = 0;
    int32_t sum = 0;
    for (ptrdiff_t j = 0; j < depth; j += SCREEN_STEP) {
        double sums[4] = {0};
        for (ptrdiff_t i = 0; i < SCREEN_STEP; i++) {
            const double w = balance[j + i] > 0 ? table[(j + i) * K + k] / balance[j + i] : 0;
            sums[SCREEN_ADDED == 1 ? i : i / 2 % 2] += fabs(w);
            squares += w * w;
        }
        for (int i = 0; i < 4; i++) largest = sums[i] > largest ? sums[i] : largest;
    }
    const double step = largest / (127 - SCREEN_ADDED / 2); /* less what rounding may add */
    for (ptrdiff_t j = 0; j < depth; j++) {
        const double w = balance[j] > 0 && step > 0 ? rint(table[j * K + k] / balance[j] / step) : 0;
        const ptrdiff_t four = k / SCREEN_PANEL * (depth / 4) + j / 4, column = k % SCREEN_PANEL;
        s->table[(four * SCREEN_PANEL + column) * 4 + j % 4] = (int8_t)w;
        sum += (int32_t)w;
    }
    s->step[k] = (float)step;
    s->noise[k] = (float)sqrt((squares + (double)(SCREEN_NORM * SCREEN_NORM) * step * step) / 12);
    s->begin[k] = -SCREEN_ZERO * sum;
}

/* Pack a mixture; `table` is scratch, double (2 stride + 1, K). */
static int screen_pack(const fvlrp_model *model, const double *priors, const double *means, const double *variances,
                       double *table) {
    const screen_tables s = screen_of(model);
    const ptrdiff_t K = model->components, dims = model->dims, stride = model->stride, padded = screen_padded(K);
    double *level = table + 2 * stride * K, total = 0, mean_level = 0, mean_start = 0;
    double *balance = scratch(2 * stride, sizeof(double));
    if (!balance) return FVLRP_E_MEMORY;
    memset(table, 0, (size_t)(2 * stride * K) * sizeof(double));
    memset(s.scale, 0, (size_t)(2 * stride) * sizeof(float)); /* of the padding; the shift follows */
    memset(s.start, 0, (size_t)(5 * padded) * sizeof(float)); /* and all that has a value a component */
    memset(s.table, 0, (size_t)(2 * stride * padded));
    for (ptrdiff_t k = 0; k < K; k++) total += priors[k];
    for (ptrdiff_t d = 0; d < dims; d++) {
        double mean = 0, square = 0;
        for (ptrdiff_t k = 0; k < K; k++) mean += priors[k] / total * means[k * dims + d];
        for (ptrdiff_t k = 0; k < K; k++) { /* of means that may lie close together, and far from 0 */
            const double apart = means[k * dims + d] - mean;
            square += priors[k] / total * (apart * apart + variances[k * dims + d]);
        }
        const double deviation = sqrt(square);
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
            start -= 0.5 * (log(var) + (mu * mu + 1) / var);
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
    for (ptrdiff_t k = K; k < padded; k++) s.start[k] = -(float)INFINITY;
    for (ptrdiff_t j = 0; j < 2 * stride; j++) {
        double mean = 0, squares = 0;
        for (ptrdiff_t k = 0; k < K; k++) mean += table[j * K + k] / (double)K;
        for (ptrdiff_t k = 0; k < K; k++) {
            table[j * K + k] -= mean;
            squares += table[j * K + k] * table[j * K + k] / (double)K;
        }
        /* Features have a deviation of about 1; the largest of squares, on which the row's steps depend, lie farther. */
        const double size = j < stride ? 3 : 1;
        balance[j] = sqrt(sqrt(squares) / size);
        (j < stride ? s.square : s.linear)[j % stride] = (float)balance[j];
    }
    for (ptrdiff_t k = 0; k < K; k++) screen_component_pack(&s, 2 * stride, K, k, table, balance);
    free(balance);
    return FVLRP_OK;
}

/* The lowest bytes of 16 whole numbers. */
INLINE __m128i screen_bytes(const vint whole[16 / FLOATS]) {
#if VBYTES == 64
    return _mm512_cvtepi32_epi8((__m512i)whole[0]);
#elif VBYTES == 32
    const __m256i pairs = _mm256_packus_epi32((__m256i)whole[0], (__m256i)whole[1]); /* of the halves of both */
    const __m256i turned = _mm256_permute4x64_epi64(pairs, 0xd8);
    return _mm_packus_epi16(_mm256_castsi256_si128(turned), _mm256_extracti128_si256(turned, 1));
#else
    return _mm_packus_epi16(_mm_packs_epi32((__m128i)whole[0], (__m128i)whole[1]),
                            _mm_packs_epi32((__m128i)whole[2], (__m128i)whole[3]));
#endif
}

/* The features of a row as bytes; `line` is scratch, float (2 stride). Its step is returned and its noise written. */
INLINE float screen_features(const screen_tables *s, ptrdiff_t stride, const float *y, float *line, uint8_t *bytes,
                             float *noise) {
    vfloat largest = fill_f32(1e-30f), size = {0};
    for (ptrdiff_t d = 0; d < stride; d += FLOATS) {
        const vfloat z = load_f32(y + d) * load_f32(s->scale + d) + load_f32(s->shift + d);
        const vfloat square = (z * z - 1) * load_f32(s->square + d), linear = z * load_f32(s->linear + d);
        largest = larger_f32(absolute_f32(square), larger_f32(absolute_f32(linear), largest));
        size += square * square + linear * linear;
        store_f32(line + d, square);
        store_f32(line + stride + d, linear);
    }
    const float step = largest_element_f32(largest) / 127;
    const vfloat by = fill_f32(1 / step), zero = fill_f32(SCREEN_ZERO + 0.5f);
    for (ptrdiff_t j = 0; j < 2 * stride; j += 16) {
        vint whole[16 / FLOATS];
        /* What is not a number, of a row that has no posteriors, becomes 0. */
        UNROLL for (int v = 0; v < 16 / FLOATS; v++)
            whole[v] = __builtin_convertvector(larger_f32(load_f32(line + j + v * FLOATS) * by + zero, (vfloat){0}), vint);
        _mm_storeu_si128((__m128i *)(bytes + j), screen_bytes(whole));
    }
    const float norm = sqrtf(total(size)) / SCREEN_NORM;
    *noise = norm > step ? norm : step;
    return step;
}

/* Logits of a row from sums of products of whole numbers. */
INLINE void screen_store(vint sum, vfloat step, float row_step, vfloat start, float *to) {
    store_f32(to, __builtin_convertvector(sum, vfloat) * (step * row_step) + start);
}

/* sum += a b of SCREEN_STEP bytes of a row and of each column, in groups of four; a's have no sign. */
INLINE vint screen_add(vint sum, const vint *a, const vint *b) {
#if defined(__AVX512VNNI__)
    return (vint)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)*a, (__m512i)*b);
#elif VBYTES == 64
    const __m512i pairs = _mm512_add_epi16(_mm512_maddubs_epi16((__m512i)a[0], (__m512i)b[0]),
                                           _mm512_maddubs_epi16((__m512i)a[1], (__m512i)b[SCREEN_VECTORS]));
    return sum + (vint)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
#elif VBYTES == 32
    const __m256i pairs = _mm256_add_epi16(_mm256_maddubs_epi16((__m256i)a[0], (__m256i)b[0]),
                                           _mm256_maddubs_epi16((__m256i)a[1], (__m256i)b[SCREEN_VECTORS]));
    return sum + (vint)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
#else
    const __m128i pairs = _mm_add_epi16(_mm_maddubs_epi16((__m128i)a[0], (__m128i)b[0]),
                                        _mm_maddubs_epi16((__m128i)a[1], (__m128i)b[SCREEN_VECTORS]));
    return sum + (vint)_mm_madd_epi16(pairs, _mm_set1_epi16(1));
#endif
}

/* Logits of SCREEN_BLOCK rows on a panel. */
INLINE void screen_micro(const uint8_t *a, ptrdiff_t depth, const int8_t *b, const int32_t *begin, const float *start,
                         const float *steps, const float *row_steps, float *c, ptrdiff_t ldc) {
    vint sum[SCREEN_BLOCK][SCREEN_VECTORS];
    UNROLL for (int i = 0; i < SCREEN_BLOCK; i++)
        UNROLL for (int j = 0; j < SCREEN_VECTORS; j++) sum[i][j] = load_i32(begin + j * FLOATS);
    for (ptrdiff_t f = 0; f < depth; f += SCREEN_STEP, b += SCREEN_STEP * SCREEN_PANEL) {
        enum { FOURS = SCREEN_STEP / 4 };
        vint line[FOURS * SCREEN_VECTORS];
        UNROLL for (int j = 0; j < FOURS * SCREEN_VECTORS; j++) line[j] = load_i32(b + j * VBYTES);
        UNROLL for (int i = 0; i < SCREEN_BLOCK; i++) {
            vint same[FOURS];
            UNROLL for (int u = 0; u < FOURS; u++) {
                int32_t four;
                memcpy(&four, a + i * depth + f + 4 * u, sizeof four);
                same[u] = four - (vint){0};
            }
            UNROLL for (int j = 0; j < SCREEN_VECTORS; j++) sum[i][j] = screen_add(sum[i][j], same, line + j);
        }
    }
    UNROLL for (int j = 0; j < SCREEN_VECTORS; j++) {
        const vfloat by = load_f32(steps + j * FLOATS), from = load_f32(start + j * FLOATS);
        UNROLL for (int i = 0; i < SCREEN_BLOCK; i++)
            screen_store(sum[i][j], by, row_steps[i], from, c + i * ldc + j * FLOATS);
    }
}

/* Logits (m, padded K) from bytes of m rows of features; up to 5 rows past m are read and written. */
static void screen_logits(const screen_tables *s, ptrdiff_t depth, ptrdiff_t padded, const uint8_t *bytes,
                          const float *row_steps, ptrdiff_t m, float *logits) {
    for (ptrdiff_t at = 0; at < padded; at += SCREEN_PANEL)
        for (ptrdiff_t i = 0; i < m; i += SCREEN_BLOCK)
            screen_micro(bytes + i * depth, depth, s->table + at * depth, s->begin + at, s->start + at, s->step + at,
                         row_steps + i, logits + i * padded + at, padded);
}

/* What passes of SCREEN_ROWS rows, ascending in each: so many components, their numbers, their levels and, as octets
 * whose elements are still to be summed, |(y - mu) / sigma|^2. Row r's begin at r pitch. */
typedef struct {
    ptrdiff_t pitch;
    ptrdiff_t *found;
    int32_t *index;
    float *values;
    eight_f32 *octets;
} screen_passed;

INLINE eight_f32 screen_octet(vfloat v) {
#if VBYTES == 64
    return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
#elif VBYTES == 32
    return v;
#else
    return __builtin_shufflevector(v, (vfloat){0}, 0, 1, 2, 3, 4, 5, 6, 7);
#endif
}

/* Component k of the rows of a mask: `width` vectors of columns, which are the first or added. */
INLINE void screen_columns(const int width, const int first, const screen_passed *p, ptrdiff_t k, float level,
                           uint32_t mask, const float *y, ptrdiff_t stride, const float *scales, const float *shifts) {
    vfloat scale[SCREEN_WIDTH], shift[SCREEN_WIDTH];
    UNROLL for (int v = 0; v < width; v++) {
        scale[v] = load_f32(scales + v * FLOATS);
        shift[v] = load_f32(shifts + v * FLOATS);
    }
    for (; mask; mask &= mask - 1) {
        const ptrdiff_t row = __builtin_ctz(mask), at = row * p->pitch + p->found[row] - !first;
        if (first) {
            p->index[at] = (int32_t)k;
            p->values[at] = level;
            p->found[row]++;
        }
        vfloat sum[2] = {{0}, {0}}; /* two chains of additions: each waits for itself alone */
        UNROLL for (int v = 0; v < width; v++) {
            const vfloat z = load_f32(y + row * stride + v * FLOATS) * scale[v] + shift[v];
            sum[v % 2] += z * z;
        }
        const eight_f32 octet = screen_octet(sum[0] + sum[1]);
        p->octets[at] = first ? octet : p->octets[at] + octet;
    }
}

INLINE void screen_component(const screen_passed *p, const fvlrp_model *model, const float *y, ptrdiff_t k, float level,
                             uint32_t mask) {
    const ptrdiff_t stride = model->stride, whole = SCREEN_WIDTH * FLOATS;
    const float *scale = (const float *)model->scale + k * stride, *shift = (const float *)model->shift + k * stride;
    ptrdiff_t at = stride < whole ? FLOATS : whole;
    if (stride < whole) screen_columns(1, 1, p, k, level, mask, y, stride, scale, shift);
    else screen_columns(SCREEN_WIDTH, 1, p, k, level, mask, y, stride, scale, shift);
    for (; at + whole <= stride; at += whole)
        screen_columns(SCREEN_WIDTH, 0, p, k, level, mask, y + at, stride, scale + at, shift + at);
    for (; at < stride; at += FLOATS) screen_columns(1, 0, p, k, level, mask, y + at, stride, scale + at, shift + at);
}

/* The best logit at least, `noises` of every component's noise down. */
INLINE float screen_least_best(const screen_tables *s, const float *logits, ptrdiff_t padded, float noises) {
    vfloat best[2];
    UNROLL for (int u = 0; u < 2; u++) best[u] = fill_f32(-(float)INFINITY);
    for (ptrdiff_t k = 0; k < padded; k += 2 * FLOATS)
        UNROLL for (int u = 0; u < 2; u++) {
            const vfloat logit = load_f32(logits + k + u * FLOATS), noise = load_f32(s->noise + k + u * FLOATS);
            best[u] = larger_f32(logit - noises * noise, best[u]);
        }
    return largest_element_f32(larger_f32(best[0], best[1]));
}

/* Which of 16 logits may be, `noises` of their noise up, above a limit. */
INLINE uint16_t screen_above(const float *noise, const float *logits, float noises, float limit) {
    unsigned above = 0;
    UNROLL for (int j = 0; j < 16; j += FLOATS) {
        const vfloat most = load_f32(logits + j) + noises * load_f32(noise + j);
#if VBYTES == 64
        above = _mm512_cmp_ps_mask((__m512)most, _mm512_set1_ps(limit), _CMP_GT_OQ);
#elif VBYTES == 32
        above |= (unsigned)_mm256_movemask_ps((__m256)(most > limit)) << j;
#else
        above |= (unsigned)_mm_movemask_ps((__m128)(most > limit)) << j;
#endif
    }
    return (uint16_t)above;
}

/* Bit `bit` of the masks of all rows, as a mask of rows. */
INLINE uint32_t screen_turned(const uint16_t masks[SCREEN_ROWS], int bit) {
#if VBYTES == 64
    return _mm512_test_epi16_mask(_mm512_load_si512(masks), _mm512_set1_epi16((int16_t)(1u << bit)));
#else
    const __m128i one = _mm_set1_epi16((int16_t)(1u << bit));
    uint32_t rows = 0;
    UNROLL for (int r = 0; r < SCREEN_ROWS; r += 16) {
        const __m128i low = _mm_and_si128(_mm_load_si128((const __m128i *)(masks + r)), one);
        const __m128i high = _mm_and_si128(_mm_load_si128((const __m128i *)(masks + r + 8)), one);
        const __m128i both = _mm_packs_epi16(_mm_cmpeq_epi16(low, one), _mm_cmpeq_epi16(high, one));
        rows |= (uint32_t)_mm_movemask_epi8(both) << r;
    }
    return rows;
#endif
}

/* Of rows 0 .. rows - 1: what may be better than `gate` below the best. */
static void screen_rows(const fvlrp_model *model, const screen_tables *s, const float *y, const float *logits,
                        const float *noise, ptrdiff_t rows, float gate, const screen_passed *p) {
    const ptrdiff_t padded = screen_padded(model->components);
    float limit[SCREEN_ROWS];
    for (ptrdiff_t r = 0; r < rows; r++) {
        limit[r] = screen_least_best(s, logits + r * padded, padded, SCREEN_NOISES * noise[r]) + gate;
        p->found[r] = 0;
    }
    for (ptrdiff_t first = 0; first < padded; first += 16) {
        uint16_t masks[SCREEN_ROWS] __attribute__((aligned(64))) = {0};
        uint32_t any = 0;
        for (ptrdiff_t r = 0; r < rows; r++)
            any |= masks[r] =
                screen_above(s->noise + first, logits + r * padded + first, SCREEN_NOISES * noise[r], limit[r]);
        for (; any; any &= any - 1) {
            const int bit = __builtin_ctz(any);
            screen_component(p, model, y, first + bit, s->level[first + bit], screen_turned(masks, bit));
        }
    }
}

/* A row's logits in float, up to a whole vector, and the largest, which is returned. `values` has the levels. */
static float screen_values(const eight_f32 *octets, ptrdiff_t found, float *values) {
    enum { STEP = FLOATS > 8 ? FLOATS : 8 };
    for (ptrdiff_t j = found; j < (found + STEP - 1) / STEP * STEP; j++) values[j] = -(float)INFINITY;
    for (ptrdiff_t j = 0; j < found; j += 8) {
        const eight_f32 sums = sums_of_eight_f32(octets + j);
        const eight_f32 value = load8_f32(values + j) - 0.5f * sums;
        *(eight_any_f32 *)(values + j) = value;
    }
    return largest_f32(values, (found + FLOATS - 1) / FLOATS * FLOATS);
}
#endif
#endif
