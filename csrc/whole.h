/* whole.h - projection of descriptors of bytes by products of whole numbers.
 *
 * With P_dj = unit_d (2^16 h + 2^8 m + l), three whole numbers of 8 bits with a sign, P x is three products of bytes whose
 * sums are exact: P is off by 2^-24 of the largest of its row, as a float is, and nothing else is before the three sums
 * are put together. They take three quarters of the time of products in float, and read descriptors where they lie.
 *
 * Included by project.c for floats. */
#ifndef FVLRP_WHOLE_H
#define FVLRP_WHOLE_H

#if defined(__AVX512VNNI__)
#define HAVE_WHOLE 1

enum {
    WHOLE_PIECES = 3,
    WHOLE_ROWS = 5,    /* that meet a panel in registers */
    WHOLE_VECTORS = 5, /* of columns in a panel */
    WHOLE_LARGEST = 127 << 16,
    WHOLE_INPUTS = 512, /* whose sums are exact */
    WHOLE_AHEAD = 16    /* rows that are asked for early */
};

/* At model->whole: (stride) units, then P by panel: [piece, least first][four inputs][column][of the four]. */
static int8_t *whole_table(const fvlrp_model *model) { return (int8_t *)((float *)model->whole + model->stride); }

/* Whether descriptors of a type are projected here: bytes, in whole groups of four, and not too many. */
static int whole_fits(const fvlrp_model *model, int type, int has_mean) {
    return type == FVLRP_U8 && !has_mean && model->inputs % 4 == 0 && model->inputs <= WHOLE_INPUTS;
}

static void whole_pack(const fvlrp_model *model, const double *basis) {
    const ptrdiff_t inputs = model->inputs, stride = model->stride;
    float *unit = model->whole;
    if (!whole_fits(model, FVLRP_U8, 0)) return;
    memset(unit, 0, (size_t)stride * sizeof(float));
    memset(whole_table(model), 0, (size_t)(WHOLE_PIECES * inputs * stride));
    for (ptrdiff_t d = 0; d < model->dims; d++) {
        const double *row = basis + d * inputs;
        const ptrdiff_t wide = stride / 16 / WHOLE_VECTORS * WHOLE_VECTORS * 16; /* columns in panels of full width */
        const ptrdiff_t width = d < wide ? WHOLE_VECTORS * 16 : 16, panel = d / width * width;
        double largest = 0;
        for (ptrdiff_t j = 0; j < inputs; j++) largest = fabs(row[j]) > largest ? fabs(row[j]) : largest;
        for (ptrdiff_t j = 0; j < inputs; j++) largest = isfinite(row[j]) ? largest : (double)NAN;
        unit[d] = (float)(largest / WHOLE_LARGEST); /* not a number: so are all y of a row that is not finite */
        if ((double)unit[d] * WHOLE_LARGEST < largest) unit[d] = nextafterf(unit[d], INFINITY); /* all of row fits */
        for (ptrdiff_t j = 0; j < inputs; j++) {
            int8_t *at = whole_table(model) + panel * WHOLE_PIECES * inputs + (j / 4 * width + d - panel) * 4 + j % 4;
            int32_t left = unit[d] > 0 ? (int32_t)rint(row[j] / (double)unit[d]) : 0;
            for (int piece = 0; piece < WHOLE_PIECES; piece++, at += inputs * width) {
                *at = (int8_t)(((left + 128) & 255) - 128);
                left = (left - *at) / 256;
            }
        }
    }
}

/* Have a descriptor fetched: nothing tells the processor where the next ones lie. */
INLINE void whole_ask_for(const uint8_t *x, const int64_t *rows, ptrdiff_t at, ptrdiff_t inputs) {
    const uint8_t *ahead = x + (rows ? rows[at] : at) * inputs;
    for (ptrdiff_t j = 0; j < inputs; j += 64) __builtin_prefetch(ahead + j);
}

/* One vector of y, from the sums with the least piece on: when all three are in, in units. */
INLINE void whole_store(int piece, vint sum, const float *unit, float *to) {
    const __m512 weight = _mm512_set1_ps((float)(1 << 8 * piece));
    __m512 all = _mm512_cvtepi32_ps((__m512i)sum);
    if (piece > 0) all = _mm512_fmadd_ps(all, weight, _mm512_loadu_ps(to));
    if (piece == WHOLE_PIECES - 1) all = _mm512_mul_ps(all, _mm512_loadu_ps(unit));
    _mm512_storeu_ps(to, all);
}

/* Sums of `rows` rows with `width` vectors of columns. */
INLINE void whole_micro(const int rows, const int width, const uint8_t *const *x, ptrdiff_t inputs, const int8_t *table,
                        const float *unit, float *y, ptrdiff_t ldy) {
    for (int piece = 0; piece < WHOLE_PIECES; piece++) {
        vint sum[WHOLE_ROWS][WHOLE_VECTORS];
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int v = 0; v < width; v++) sum[i][v] = (vint){0};
        for (ptrdiff_t j = 0; j < inputs; j += 4, table += 64 * width) {
            __m512i line[WHOLE_VECTORS];
            UNROLL for (int v = 0; v < width; v++) line[v] = _mm512_loadu_si512(table + 64 * v);
            UNROLL for (int i = 0; i < rows; i++) {
                int32_t four;
                memcpy(&four, x[i] + j, sizeof four);
                UNROLL for (int v = 0; v < width; v++)
                    sum[i][v] = (vint)_mm512_dpbusd_epi32((__m512i)sum[i][v], _mm512_set1_epi32(four), line[v]);
            }
        }
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int v = 0; v < width; v++)
                whole_store(piece, sum[i][v], unit + 16 * v, y + i * ldy + 16 * v);
    }
}

INLINE void whole_rows(const int rows, const fvlrp_model *model, const uint8_t *const *x, float *y) {
    const ptrdiff_t vectors = model->stride / 16, inputs = model->inputs;
    const int8_t *table = whole_table(model);
    const float *unit = model->whole;
    ptrdiff_t at = 0;
    for (; at + WHOLE_VECTORS <= vectors; at += WHOLE_VECTORS, table += WHOLE_PIECES * inputs * 16 * WHOLE_VECTORS)
        whole_micro(rows, WHOLE_VECTORS, x, inputs, table, unit + 16 * at, y + 16 * at, model->stride);
    for (; at < vectors; at++, table += WHOLE_PIECES * inputs * 16)
        whole_micro(rows, 1, x, inputs, table, unit + 16 * at, y + 16 * at, model->stride);
}

/* y (m, stride) of the descriptors `first` and on of `rows`. */
static void whole_project(const fvlrp_model *model, const uint8_t *x, const int64_t *rows, ptrdiff_t first, ptrdiff_t m,
                          float *y) {
    const ptrdiff_t inputs = model->inputs;
    ptrdiff_t i = 0;
    for (; i < m; i += WHOLE_ROWS) {
        const uint8_t *at[WHOLE_ROWS];
        const ptrdiff_t count = least(WHOLE_ROWS, m - i);
        for (ptrdiff_t r = 0; r < count; r++) {
            whole_ask_for(x, rows, first + least(i + r + WHOLE_AHEAD, m - 1), inputs);
            at[r] = x + (rows ? rows[first + i + r] : first + i + r) * inputs;
        }
        if (count == WHOLE_ROWS) whole_rows(WHOLE_ROWS, model, at, y + i * model->stride);
        else
            for (ptrdiff_t r = 0; r < count; r++) whole_rows(1, model, at + r, y + (i + r) * model->stride);
    }
}
#endif
#endif
