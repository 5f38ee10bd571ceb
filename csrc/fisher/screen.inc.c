/* screen.inc.c - the components that may matter to a row, found by dot products of bytes. Float, on x86-64.
 *
 * Of 256 components some 17 have posteriors above the gate. Rough logits tell which those may be. With z = (y - m) / s,
 * where m and s are the mixture's own mean and deviation, a logit is a constant and sum_j w_kj f_j over f = [z^2 - 1,
 * z]; w has its mean over the components subtracted. Both are rounded to 8 bits after balancing by t_j, which makes
 * f_j t_j and w_kj / t_j similar in size: f t in steps of the row's largest / 127, w / t in steps of its
 * component's. The sum of products of integers is exact. The rounding error of the factors has the standard deviation
 *     sqrt(1/12 (step_n^2 sum_j (w_kj / t_j)^2 + step_k^2 sum_j (f_j t_j)^2)) <= noise_n noise_k,
 *     noise_n = step_n max(1, |f t| / (NORM step_n)),
 * if the errors are independent and uniform (docs/numerics.md §6). The noise is per component: that of small variances
 * is many times larger, so one value for all would be too large for most and too small for some.
 *
 * A component that may come within the gate of the best one (its logit plus SCREEN_NOISES times its noise, the best
 * one's minus as much) is computed in float,
 *     log pi_k - 1/2 sum log 2 pi sigma_k^2 - 1/2 |(y - mu_k) / sigma_k|^2,
 * where nothing cancels. The errors of duplicate columns are correlated: a component next to the gate may be missed. */
#ifndef FVLRP_SCREEN
#define FVLRP_SCREEN

#include "fisher/model.h"
#include "simd.h"

enum {
    GROUP = 32 /* rows whose posteriors are found together: a bit each in a mask */
};

/* Posteriors of a group of rows before they are divided by their sums. Row r's entries begin at begin[r] in the arrays
 * that hold them. */
typedef struct {
    REAL largest[GROUP]; /* the largest logit; its entry is 1 */
    ptrdiff_t begin[GROUP], found[GROUP];
} row_group;

typedef struct {
    double *coefficients; /* (2 stride, K) */
    double *balance;      /* (2 stride) */
    double *level;        /* (K) */
} screen_buffers;

#if defined(__SSSE3__) && REAL_BITS == 32

enum {
    SCREEN_VECTORS = VBYTES == 64 ? 4 : 2, /* in a panel of columns of the table */
    SCREEN_PANEL = SCREEN_VECTORS * LANES,
    SCREEN_BLOCK = 6,                    /* rows that are multiplied by a panel in registers */
    SCREEN_WIDTH = VBYTES == 16 ? 4 : 5, /* vectors of columns of (y - mu) / sigma at a time */
#if defined(__AVX512VNNI__)
    SCREEN_STEP = 4,  /* features whose products with a column are added to its sum at a time */
    SCREEN_ADDED = 1, /* and of how many the products are first added in 16 bits */
#else
    SCREEN_STEP = 8,
    SCREEN_ADDED = 4,
#endif
    SCREEN_ZERO = 128 /* features are stored as bytes with this added */
};
#define SCREEN_NOISES 3.5f /* docs/numerics.md §6 */
#define SCREEN_NORM 300.0f /* of features in steps: the median of photographs */

/* With few components or a tiny gate too many pass; very many take too much memory. docs/numerics.md §6 */
static int screen_pays(const fvlrp_model *model) {
    return model->gate >= 1e-9 && model->components >= 64 && model->components <= 4096;
}

/* ---- packing ---- */

static void screen_buffers_layout(screen_buffers *b, const fvlrp_model_pack_args *args, arena *memory) {
    const ptrdiff_t stride = padded_dims(args->dims);
    b->coefficients = carve(memory, 2 * stride * args->components, sizeof(double));
    b->balance = carve(memory, 2 * stride, sizeof(double));
    b->level = carve(memory, args->components, sizeof(double));
}

/* The mixture's own mean and deviation along dimension d, as a scale and a shift. */
static void screen_standardise(const fvlrp_model_pack_args *args, const screen_tables *s, ptrdiff_t d) {
    const ptrdiff_t K = args->components, dims = args->dims;
    double total = 0, mean = 0, square = 0;
    for (ptrdiff_t k = 0; k < K; k++) total += args->priors[k];
    for (ptrdiff_t k = 0; k < K; k++) mean += args->priors[k] / total * args->means[k * dims + d];
    for (ptrdiff_t k = 0; k < K; k++) { /* of means that may lie close together, and far from 0 */
        const double apart = args->means[k * dims + d] - mean;
        square += args->priors[k] / total * (apart * apart + args->variances[k * dims + d]);
    }
    s->scale[d] = (float)(1 / sqrt(square));
    s->shift[d] = (float)(-mean / sqrt(square));
}

/* Coefficients, constant and level of component k. Returns the constant. */
static double screen_component(const fvlrp_model_pack_args *args, const screen_tables *s, ptrdiff_t k,
                               screen_buffers *b) {
    const ptrdiff_t K = args->components, dims = args->dims, stride = padded_dims(dims);
    double start = log(args->priors[k]), level = start;
    for (ptrdiff_t d = 0; d < dims; d++) {
        const double scale = (double)s->scale[d], variance = args->variances[k * dims + d];
        const double var = variance * scale * scale;
        const double mu = args->means[k * dims + d] * scale + (double)s->shift[d];
        b->coefficients[d * K + k] = -0.5 / var;
        b->coefficients[(stride + d) * K + k] = mu / var;
        level -= 0.5 * log(6.283185307179586 * variance);
        start -= 0.5 * (log(var) + (mu * mu + 1) / var);
    }
    b->level[k] = level;
    return start;
}

/* Coefficients j less their mean over the components, and their balance t_j. */
static void screen_balance(ptrdiff_t K, ptrdiff_t stride, ptrdiff_t j, const screen_tables *s, screen_buffers *b) {
    double *row = b->coefficients + j * K, mean = 0, squares = 0;
    for (ptrdiff_t k = 0; k < K; k++) mean += row[k] / (double)K;
    for (ptrdiff_t k = 0; k < K; k++) {
        row[k] -= mean;
        squares += row[k] * row[k] / (double)K;
    }
    /* Features have a deviation of about 1, but squares have larger maxima, which determine the row's step. */
    const double size = j < stride ? 3 : 1;
    b->balance[j] = sqrt(sqrt(squares) / size);
    (j < stride ? s->square : s->linear)[j % stride] = (float)b->balance[j];
}

/* The step of component k's coefficients. Sums of magnitudes whose products are added in 16 bits are at most 127: times
 * bytes of up to 255 they do not overflow. *squares receives the coefficients' sum of squares. */
static double screen_step(const screen_buffers *b, ptrdiff_t depth, ptrdiff_t K, ptrdiff_t k, double *squares) {
    double largest = 0;
    *squares = 0;
    for (ptrdiff_t j = 0; j < depth; j += SCREEN_STEP) {
        double sums[4] = {0};
        for (ptrdiff_t i = 0; i < SCREEN_STEP; i++) {
            const double w = b->balance[j + i] > 0 ? b->coefficients[(j + i) * K + k] / b->balance[j + i] : 0;
            sums[SCREEN_ADDED == 1 ? i : i / 2 % 2] += fabs(w);
            *squares += w * w;
        }
        for (int i = 0; i < 4; i++) largest = fmax(sums[i], largest);
    }
    return largest / (127 - SCREEN_ADDED / 2); /* less what rounding may add */
}

/* The bytes of component k. */
static void screen_bytes_pack(const screen_tables *s, const screen_buffers *b, ptrdiff_t depth, ptrdiff_t K,
                              ptrdiff_t k) {
    double squares;
    const double step = screen_step(b, depth, K, k, &squares);
    int32_t sum = 0;
    for (ptrdiff_t j = 0; j < depth; j++) {
        const double t = b->balance[j], w = t > 0 && step > 0 ? rint(b->coefficients[j * K + k] / t / step) : 0;
        const ptrdiff_t four = k / SCREEN_PANEL * (depth / 4) + j / 4, column = k % SCREEN_PANEL;
        s->table[(four * SCREEN_PANEL + column) * 4 + j % 4] = (int8_t)w;
        sum += (int32_t)w;
    }
    s->step[k] = (float)step;
    s->noise[k] = (float)sqrt((squares + (double)(SCREEN_NORM * SCREEN_NORM) * step * step) / 12);
    s->begin[k] = -SCREEN_ZERO * sum;
}

static void screen_pack(const fvlrp_model_pack_args *args, screen_tables *s, screen_buffers *b) {
    const ptrdiff_t K = args->components, stride = padded_dims(args->dims), padded = padded_components(K);
    memset(b->coefficients, 0, (size_t)(2 * stride * K) * sizeof(double));
    float *const per_dim[] = {s->scale, s->shift};
    for (int i = 0; i < 2; i++) memset(per_dim[i], 0, (size_t)stride * sizeof(float));
    float *const per_component[] = {s->start, s->step, s->noise, s->level};
    for (int i = 0; i < 4; i++) memset(per_component[i], 0, (size_t)padded * sizeof(float));
    memset(s->begin, 0, (size_t)padded * sizeof(int32_t));
    memset(s->table, 0, (size_t)(2 * stride * padded));
    double mean_start = 0, mean_level = 0;
    for (ptrdiff_t d = 0; d < args->dims; d++) screen_standardise(args, s, d);
    for (ptrdiff_t k = 0; k < K; k++) {
        const double start = screen_component(args, s, k, b);
        s->start[k] = (float)start;
        mean_start += start / (double)K;
        mean_level += b->level[k] / (double)K;
    }
    for (ptrdiff_t k = 0; k < K; k++) {
        s->start[k] -= (float)mean_start;
        s->level[k] = (float)(b->level[k] - mean_level);
    }
    for (ptrdiff_t k = K; k < padded; k++) s->start[k] = -(float)INFINITY;
    for (ptrdiff_t j = 0; j < 2 * stride; j++) screen_balance(K, stride, j, s, b);
    for (ptrdiff_t k = 0; k < K; k++) screen_bytes_pack(s, b, 2 * stride, K, k);
    s->mean_level = mean_level;
}

/* ---- features of rows, and rough logits ---- */

/* The lowest bytes of 16 integers. */
INLINE __m128i lowest_bytes(const vint whole[16 / FLOATS]) {
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

/* The features of a row as bytes; `line` is scratch, (2 stride). Returns their step and writes their noise. */
INLINE float screen_features(const screen_tables *s, ptrdiff_t stride, const float *y, float *line, uint8_t *bytes,
                             float *noise) {
    vfloat largest = fill(1e-30f), size = {0};
    for (ptrdiff_t d = 0; d < stride; d += LANES) {
        const vfloat z = load(y + d) * load(s->scale + d) + load(s->shift + d);
        const vfloat square = (z * z - 1) * load(s->square + d), linear = z * load(s->linear + d);
        largest = larger(magnitude(square), larger(magnitude(linear), largest));
        size += square * square + linear * linear;
        store(line + d, square);
        store(line + stride + d, linear);
    }
    const float step = largest_lane(largest) / 127;
    const vfloat by = fill(1 / step), zero = fill(SCREEN_ZERO + 0.5f);
    for (ptrdiff_t j = 0; j < 2 * stride; j += 16) {
        vint whole[16 / FLOATS];
        /* NaN, of a row that has no posteriors, becomes 0. */
        UNROLL for (int v = 0; v < 16 / FLOATS; v++)
            whole[v] = __builtin_convertvector(larger(load(line + j + v * LANES) * by + zero, (vfloat){0}), vint);
        _mm_storeu_si128((__m128i *)(bytes + j), lowest_bytes(whole));
    }
    const float norm = sqrtf(sum_lanes(size)) / SCREEN_NORM;
    *noise = norm > step ? norm : step;
    return step;
}

/* sum += a b of SCREEN_STEP bytes of a row and of each column, in groups of four; a's are unsigned. */
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

/* Logits of SCREEN_BLOCK rows on the panel of the table that begins at column `at`. */
INLINE void screen_micro(const screen_tables *s, ptrdiff_t at, const uint8_t *a, ptrdiff_t depth,
                         const float *row_steps,
                         float *c, ptrdiff_t ldc) {
    const int8_t *b = s->table + at * depth;
    vint sum[SCREEN_BLOCK][SCREEN_VECTORS];
    UNROLL for (int i = 0; i < SCREEN_BLOCK; i++)
        UNROLL for (int j = 0; j < SCREEN_VECTORS; j++) sum[i][j] = load_ints(s->begin + at + j * LANES);
    for (ptrdiff_t f = 0; f < depth; f += SCREEN_STEP, b += SCREEN_STEP * SCREEN_PANEL) {
        enum { FOURS = SCREEN_STEP / 4 };
        vint line[FOURS * SCREEN_VECTORS];
        UNROLL for (int j = 0; j < FOURS * SCREEN_VECTORS; j++) line[j] = load_ints(b + j * VBYTES);
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
        const vfloat step = load(s->step + at + j * LANES), start = load(s->start + at + j * LANES);
        UNROLL for (int i = 0; i < SCREEN_BLOCK; i++)
            store(c + i * ldc + j * LANES, __builtin_convertvector(sum[i][j], vfloat) * (step * row_steps[i]) + start);
    }
}

/* ---- which components pass, and their logits in float ---- */

/* A tile of rows that are screened, and what passes of a group of them: row r's entries begin at r pitch. */
typedef struct {
    const fvlrp_model *model;
    int on; /* whether screening pays; nothing else is set otherwise */
    ptrdiff_t padded, pitch;
    uint8_t *bytes;     /* (tile + SCREEN_BLOCK, 2 stride): features */
    float *line;        /* (2 stride) */
    float *step, *noise; /* (tile + SCREEN_BLOCK) */
    float *logits;      /* (tile + SCREEN_BLOCK, padded): rough */
    OCTET *octets;      /* (GROUP, pitch): partial sums of |(y - mu) / sigma|^2 */
} screener;

static void screener_layout(screener *s, const fvlrp_model *model, ptrdiff_t tile, ptrdiff_t pitch, arena *memory) {
    const ptrdiff_t rows = tile + SCREEN_BLOCK, size = sizeof(float);
    const ptrdiff_t padded = padded_components(model->components);
    *s = (screener){.model = model, .on = screen_pays(model), .padded = padded, .pitch = pitch};
    if (!s->on) return;
    s->bytes = carve(memory, rows, 2 * model->stride);
    s->line = carve(memory, 2 * model->stride, size);
    s->step = carve(memory, rows, size);
    s->noise = carve(memory, rows, size);
    s->logits = carve(memory, rows, s->padded * size);
    s->octets = carve(memory, GROUP * pitch, sizeof(OCTET));
}

/* Rough logits of a tile's m rows; up to SCREEN_BLOCK - 1 rows past m are read and written. */
NOINLINE void screen_tile(screener *s, const float *y, ptrdiff_t m) {
    const screen_tables *tables = &s->model->tables->screen;
    const ptrdiff_t stride = s->model->stride, depth = 2 * stride;
    for (ptrdiff_t i = 0; i < m; i++)
        s->step[i] = screen_features(tables, stride, y + i * stride, s->line, s->bytes + i * depth, s->noise + i);
    for (ptrdiff_t at = 0; at < s->padded; at += SCREEN_PANEL)
        for (ptrdiff_t i = 0; i < m; i += SCREEN_BLOCK)
            screen_micro(tables, at, s->bytes + i * depth, depth, s->step + i, s->logits + i * s->padded + at,
                         s->padded);
}

INLINE OCTET octet_of(vfloat v) {
#if VBYTES == 64
    return __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13,
                                                                                           14, 15);
#elif VBYTES == 32
    return v;
#else
    return __builtin_shufflevector(v, (vfloat){0}, 0, 1, 2, 3, 4, 5, 6, 7);
#endif
}

/* Component k of the rows of a mask: `width` vectors of columns from `at` on. `first` starts entries, else adds. */
INLINE void passed_columns(const screener *s, const int width, const int first, ptrdiff_t k, uint32_t mask,
                           const float *y,
                           ptrdiff_t at, row_group *g, float *values, int32_t *index) {
    const ptrdiff_t stride = s->model->stride;
    const float *scales = (const float *)s->model->tables->scale + k * stride + at;
    const float *shifts = (const float *)s->model->tables->shift + k * stride + at;
    vfloat scale[SCREEN_WIDTH], shift[SCREEN_WIDTH];
    UNROLL for (int v = 0; v < width; v++) {
        scale[v] = load(scales + v * LANES);
        shift[v] = load(shifts + v * LANES);
    }
    const float level = s->model->tables->screen.level[k];
    const ptrdiff_t pitch = s->pitch;
    OCTET *octets = s->octets;
    for (; mask; mask &= mask - 1) {
        const ptrdiff_t row = __builtin_ctz(mask), to = row * pitch + g->found[row] - !first;
        if (first) {
            index[to] = (int32_t)k;
            values[to] = level;
            g->found[row]++;
        }
        vfloat sum[2] = {{0}, {0}}; /* two independent chains of additions */
        UNROLL for (int v = 0; v < width; v++) {
            const vfloat z = load(y + row * stride + at + v * LANES) * scale[v] + shift[v];
            sum[v % 2] += z * z;
        }
        const OCTET octet = octet_of(sum[0] + sum[1]);
        octets[to] = first ? octet : octets[to] + octet;
    }
}

INLINE void passed_component(const screener *s, ptrdiff_t k, uint32_t mask, const float *y, row_group *g, float *values,
                             int32_t *index) {
    const ptrdiff_t stride = s->model->stride, whole = SCREEN_WIDTH * LANES;
    ptrdiff_t at = stride < whole ? LANES : whole;
    if (stride < whole) passed_columns(s, 1, 1, k, mask, y, 0, g, values, index);
    else passed_columns(s, SCREEN_WIDTH, 1, k, mask, y, 0, g, values, index);
    for (; at + whole <= stride; at += whole) passed_columns(s, SCREEN_WIDTH, 0, k, mask, y, at, g, values, index);
    for (; at < stride; at += LANES) passed_columns(s, 1, 0, k, mask, y, at, g, values, index);
}

/* A lower bound of the best logit: the largest logit - noises noise. */
INLINE float least_best(const screen_tables *s, const float *logits, ptrdiff_t padded, float noises) {
    vfloat best[2];
    UNROLL for (int u = 0; u < 2; u++) best[u] = fill(-(float)INFINITY);
    for (ptrdiff_t k = 0; k < padded; k += 2 * LANES)
        UNROLL for (int u = 0; u < 2; u++) {
            const vfloat logit = load(logits + k + u * LANES), noise = load(s->noise + k + u * LANES);
            best[u] = larger(logit - noises * noise, best[u]);
        }
    return largest_lane(larger(best[0], best[1]));
}

/* Which of 16 logits may exceed a limit: those with logit + noises noise above it. */
INLINE uint16_t may_exceed(const float *noise, const float *logits, float noises, float limit) {
    unsigned above = 0;
    UNROLL for (int j = 0; j < 16; j += LANES) {
        const vfloat most = load(logits + j) + noises * load(noise + j);
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
INLINE uint32_t rows_with_bit(const uint16_t masks[GROUP], int bit) {
#if VBYTES == 64
    return _mm512_test_epi16_mask(_mm512_load_si512(masks), _mm512_set1_epi16((int16_t)(1u << bit)));
#else
    const __m128i one = _mm_set1_epi16((int16_t)(1u << bit));
    uint32_t rows = 0;
    UNROLL for (int r = 0; r < GROUP; r += 16) {
        const __m128i low = _mm_and_si128(_mm_load_si128((const __m128i *)(masks + r)), one);
        const __m128i high = _mm_and_si128(_mm_load_si128((const __m128i *)(masks + r + 8)), one);
        const __m128i both = _mm_packs_epi16(_mm_cmpeq_epi16(low, one), _mm_cmpeq_epi16(high, one));
        rows |= (uint32_t)_mm_movemask_epi8(both) << r;
    }
    return rows;
#endif
}

/* The components of a group of rows that may come within `gate` of the best: ascending, with their levels. */
NOINLINE void screen_rows(const screener *s, const float *y, ptrdiff_t first, ptrdiff_t rows, float gate, row_group *g,
                          float *values, int32_t *index) {
    const screen_tables *tables = &s->model->tables->screen;
    const float *logits = s->logits + first * s->padded, *noise = s->noise + first;
    float limit[GROUP];
    for (ptrdiff_t r = 0; r < rows; r++) {
        limit[r] = least_best(tables, logits + r * s->padded, s->padded, SCREEN_NOISES * noise[r]) + gate;
        g->found[r] = 0;
    }
    for (ptrdiff_t at = 0; at < s->padded; at += 16) {
        uint16_t masks[GROUP] __attribute__((aligned(64))) = {0};
        uint32_t any = 0;
        for (ptrdiff_t r = 0; r < rows; r++)
            any |= masks[r] =
                may_exceed(tables->noise + at, logits + r * s->padded + at, SCREEN_NOISES * noise[r], limit[r]);
        for (; any; any &= any - 1) {
            const int bit = __builtin_ctz(any);
            passed_component(s, at + bit, rows_with_bit(masks, bit), y, g, values, index);
        }
    }
}

/* A row's logits in float, padded with -infinity to a whole vector, from their levels; returns the largest. */
static float finish_logits(const OCTET *octets, ptrdiff_t found, float *values) {
    enum { STEP = LANES > 8 ? LANES : 8 };
    for (ptrdiff_t j = found; j < round_up(found, STEP); j++) values[j] = -(float)INFINITY;
    for (ptrdiff_t j = 0; j < found; j += 8) store8(values + j, load8(values + j) - 0.5f * sums_of_eight(octets + j));
    vfloat best = fill(-(float)INFINITY);
    for (ptrdiff_t j = 0; j < found; j += LANES) best = larger(load(values + j), best);
    return largest_lane(best);
}

/* Posteriors, before the division, of the rows first .. first + rows - 1 of the tile y. `values` and `index` have room
 * for GROUP rows of s->pitch entries. */
NOINLINE void screen_group(const screener *s, const float *y, ptrdiff_t first, ptrdiff_t rows, float gate, row_group *g,
                           float *values, int32_t *index) {
    screen_rows(s, y + first * s->model->stride, first, rows, gate, g, values, index);
    for (ptrdiff_t r = 0; r < rows; r++) {
        float *row = values + r * s->pitch;
        const float largest = finish_logits(s->octets + r * s->pitch, g->found[r], row);
        for (ptrdiff_t j = 0; j < g->found[r]; j += LANES) store(row + j, exponential(load(row + j) - largest));
        g->begin[r] = r * s->pitch;
        g->largest[r] = largest;
    }
}

#else /* no screening */

typedef struct {
    int on;
} screener;

static int screen_pays(const fvlrp_model *model) { return (void)model, 0; }
static void screen_buffers_layout(screen_buffers *b, const fvlrp_model_pack_args *args, arena *memory) {
    (void)b, (void)args, (void)memory;
}
static void screen_pack(const fvlrp_model_pack_args *args, screen_tables *s, screen_buffers *b) {
    (void)args, (void)s, (void)b;
}
static void screener_layout(screener *s, const fvlrp_model *model, ptrdiff_t tile, ptrdiff_t pitch, arena *memory) {
    (void)model, (void)tile, (void)pitch, (void)memory, s->on = 0;
}
static void screen_tile(screener *s, const REAL *y, ptrdiff_t m) { (void)s, (void)y, (void)m; }
static void screen_group(const screener *s, const REAL *y, ptrdiff_t first, ptrdiff_t rows, REAL gate, row_group *g,
                         REAL *values, int32_t *index) {
    (void)s, (void)y, (void)first, (void)rows, (void)gate, (void)g, (void)values, (void)index;
}

#endif
#endif
