/* bytes.inc.c - projection of descriptors of bytes by dot products of bytes (AVX-512 VNNI, float).
 *
 * With P_dj = unit_d (2^16 h + 2^8 m + l), three signed integers of 8 bits, P x is three products of bytes whose sums
 * are exact. The error of P is 2^-24 of the largest entry of its row, as in float, and nothing else is rounded before
 * the three sums are combined. This takes three quarters of the time of float products and reads descriptors in place.
 */
#ifndef FVLRP_BYTES
#define FVLRP_BYTES

#include "fisher/model.h"
#include "simd.h"

#if defined(__AVX512VNNI__) && REAL_BITS == 32

enum {
    BYTE_PIECES = 3,
    BYTE_ROWS = 5,    /* multiplied by a panel in registers */
    BYTE_VECTORS = 5, /* of columns in a panel */
    BYTE_LARGEST = 127 << 16,
    BYTE_INPUTS = 512, /* whose sums are exact */
    BYTE_AHEAD = 16    /* rows that are prefetched */
};

/* Whether descriptors of a type are projected here: bytes, in whole groups of four, and not too many. */
INLINE int bytes_fit(int type, ptrdiff_t inputs, int has_mean) {
    return type == FVLRP_U8 && !has_mean && inputs % 4 == 0 && inputs <= BYTE_INPUTS;
}

/* Row d of P: a unit, of which all entries are multiples, and their pieces, least first: in a panel [piece][four
 * inputs][column][of the four]. A row that is not finite has the unit NaN, and so have all its products. */
static void bytes_pack_row(const fvlrp_model_tables *t, const double *row, ptrdiff_t inputs, ptrdiff_t d,
                           ptrdiff_t width,
                           ptrdiff_t panel) {
    double largest = 0;
    for (ptrdiff_t j = 0; j < inputs; j++) largest = fmax(fabs(row[j]), largest);
    for (ptrdiff_t j = 0; j < inputs; j++) largest = isfinite(row[j]) ? largest : (double)NAN;
    float unit = (float)(largest / BYTE_LARGEST);
    if ((double)unit * BYTE_LARGEST < largest) unit = nextafterf(unit, INFINITY); /* so that all of the row fits */
    t->byte_units[d] = unit;
    for (ptrdiff_t j = 0; j < inputs; j++) {
        int8_t *at = t->byte_pieces + panel * BYTE_PIECES * inputs + (j / 4 * width + d - panel) * 4 + j % 4;
        int32_t left = unit > 0 ? (int32_t)rint(row[j] / (double)unit) : 0;
        for (int piece = 0; piece < BYTE_PIECES; piece++, at += inputs * width) {
            *at = (int8_t)(((left + 128) & 255) - 128);
            left = (left - *at) / 256;
        }
    }
}

static void bytes_pack(const fvlrp_model_tables *t, const fvlrp_model_pack_args *args) {
    const ptrdiff_t inputs = args->inputs, stride = padded_dims(args->dims);
    const ptrdiff_t wide = stride / LANES / BYTE_VECTORS * BYTE_VECTORS * LANES; /* columns in panels of full width */
    if (!bytes_fit(FVLRP_U8, inputs, 0)) return;
    memset(t->byte_units, 0, (size_t)stride * sizeof(float));
    memset(t->byte_pieces, 0, (size_t)(BYTE_PIECES * inputs * stride));
    for (ptrdiff_t d = 0; d < args->dims; d++) {
        const ptrdiff_t width = d < wide ? BYTE_VECTORS * LANES : LANES;
        bytes_pack_row(t, args->basis + d * inputs, inputs, d, width, d / width * width);
    }
}

/* Prefetch a descriptor: the hardware cannot predict which rows follow. */
INLINE void bytes_prefetch(const fvlrp_descriptors *from, ptrdiff_t at, ptrdiff_t inputs) {
    const uint8_t *ahead = (const uint8_t *)from->x + (from->rows ? from->rows[at] : at) * inputs;
    for (ptrdiff_t j = 0; j < inputs; j += 64) __builtin_prefetch(ahead + j);
}

/* Add one piece's sums to a vector of y, least piece first; the last one multiplies by the units. */
INLINE void bytes_store(int piece, vint sum, const float *unit, float *to) {
    VREAL all = __builtin_convertvector(sum, VREAL);
    if (piece > 0) all = all * (float)(1 << 8 * piece) + load(to);
    if (piece == BYTE_PIECES - 1) all *= load(unit);
    store(to, all);
}

/* `rows` rows times a panel of `width` vectors. */
INLINE void bytes_micro(const int rows, const int width, const uint8_t *const *x, ptrdiff_t inputs, const int8_t *table,
                        const float *unit, float *y, ptrdiff_t ldy) {
    for (int piece = 0; piece < BYTE_PIECES; piece++) {
        vint sum[BYTE_ROWS][BYTE_VECTORS];
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int v = 0; v < width; v++) sum[i][v] = (vint){0};
        for (ptrdiff_t j = 0; j < inputs; j += 4, table += VBYTES * width) {
            vint line[BYTE_VECTORS];
            UNROLL for (int v = 0; v < width; v++) line[v] = load_ints(table + VBYTES * v);
            UNROLL for (int i = 0; i < rows; i++) {
                int32_t four;
                memcpy(&four, x[i] + j, sizeof four);
                UNROLL for (int v = 0; v < width; v++)
                    sum[i][v] =
                        (vint)_mm512_dpbusd_epi32((__m512i)sum[i][v], _mm512_set1_epi32(four), (__m512i)line[v]);
            }
        }
        UNROLL for (int i = 0; i < rows; i++)
            UNROLL for (int v = 0; v < width; v++)
                bytes_store(piece, sum[i][v], unit + LANES * v, y + i * ldy + LANES * v);
    }
}

INLINE void bytes_rows(const int rows, const fvlrp_model *model, const uint8_t *const *x, float *y) {
    const ptrdiff_t vectors = model->stride / LANES, inputs = model->inputs;
    const int8_t *table = model->tables->byte_pieces;
    const float *unit = model->tables->byte_units;
    ptrdiff_t at = 0;
    for (; at + BYTE_VECTORS <= vectors; at += BYTE_VECTORS, table += BYTE_PIECES * inputs * LANES * BYTE_VECTORS)
        bytes_micro(rows, BYTE_VECTORS, x, inputs, table, unit + LANES * at, y + LANES * at, model->stride);
    for (; at < vectors; at++, table += BYTE_PIECES * inputs * LANES)
        bytes_micro(rows, 1, x, inputs, table, unit + LANES * at, y + LANES * at, model->stride);
}

/* y (m, stride) of the descriptors from `first` on. */
static void bytes_project(const fvlrp_model *model, const fvlrp_descriptors *from, ptrdiff_t first, ptrdiff_t m,
                          float *y) {
    const ptrdiff_t inputs = model->inputs;
    for (ptrdiff_t i = 0; i < m; i += BYTE_ROWS) {
        const uint8_t *at[BYTE_ROWS];
        const ptrdiff_t count = imin(BYTE_ROWS, m - i);
        for (ptrdiff_t r = 0; r < count; r++) {
            bytes_prefetch(from, first + imin(i + r + BYTE_AHEAD, m - 1), inputs);
            at[r] = (const uint8_t *)from->x + (from->rows ? from->rows[first + i + r] : first + i + r) * inputs;
        }
        if (count == BYTE_ROWS) bytes_rows(BYTE_ROWS, model, at, y + i * model->stride);
        else
            for (ptrdiff_t r = 0; r < count; r++) bytes_rows(1, model, at + r, y + (i + r) * model->stride);
    }
}

#else

INLINE int bytes_fit(int type, ptrdiff_t inputs, int has_mean) { return (void)type, (void)inputs, (void)has_mean, 0; }
INLINE void bytes_pack(const fvlrp_model_tables *t, const fvlrp_model_pack_args *args) { (void)t, (void)args; }
INLINE void bytes_project(const fvlrp_model *model, const fvlrp_descriptors *from, ptrdiff_t first, ptrdiff_t m,
                          REAL *y) {
    (void)model, (void)from, (void)first, (void)m, (void)y;
}

#endif
#endif
