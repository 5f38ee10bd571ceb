/* depthwise.inc.c - depthwise convolutions with windows of 3, 5 or 7 pixels at a stride of 1 or 2, and their adjoint.
 *
 * A vector of output pixels is summed in a register, tap by tap, from rows of the image in place: lanes in the padding
 * load as zeros. Several rows of outputs are computed together, so that a row of the image is loaded once for all of
 * them, and the same pixels of the next channel are prefetched. Only for vectors of 64 bytes, which have masked loads:
 * with others, padded copies are faster (grouped.inc.c). */
#ifndef FVLRP_DEPTHWISE
#define FVLRP_DEPTHWISE

#include "fvlrp.h"
#include "simd.h"

/* The part of a weight that its sign selects; NaN stays NaN. */
INLINE REAL part_of_weight(int sign, REAL w) {
    if (sign == FVLRP_POSITIVE) return w < 0 ? 0 : w;
    if (sign == FVLRP_NEGATIVE) return w > 0 ? 0 : w;
    return sign == FVLRP_SIZE && w < 0 ? -w : w;
}

#if VBYTES == 64

enum { ROWS_TOGETHER = 4, MOST_TAPS = 49 };

/* Which of the pixels x .. x + LANES - 1 are among 0 .. width - 1. */
INLINE vlanes lanes_inside(ptrdiff_t x, ptrdiff_t width) {
    const ptrdiff_t low = imin(imax(-x, 0), LANES);
    return lanes_between(low, imax(imin(width - x, LANES), low));
}

/* One channel. */
typedef struct {
    const REAL *image;   /* (height, width) */
    const REAL *weights; /* (taps) */
    ptrdiff_t height, width;
    ptrdiff_t top, left;         /* padding; may be negative */
    ptrdiff_t first, rows, cols; /* of the outputs */
    REAL bias;
    int add;
    const REAL *bounds;
    REAL *out; /* (rows, cols) */
} depthwise_job;

/* ---- convolution ---- */

/* Which lanes of the taps of a row of windows lie inside the image; at a stride of 2 a vector has two halves. */
typedef struct {
    vlanes low[7], high[7];
} depthwise_lanes;

/* Outputs of ROWS_TOGETHER rows from `row` on, columns x .. x + LANES - 1. */
INLINE void depthwise_block(const depthwise_job *j, const int kernel, const int stride, const VREAL *weights,
                            const depthwise_lanes *lanes, ptrdiff_t row, ptrdiff_t x) {
    VREAL acc[ROWS_TOGETHER];
    UNROLL for (int r = 0; r < ROWS_TOGETHER; r++) acc[r] = fill(j->bias);
    const ptrdiff_t y = (j->first + row) * stride - j->top, height = j->height, width = j->width;
    const REAL *pixels = j->image + y * width + x * stride - j->left;
    UNROLL for (int line = 0; line < (ROWS_TOGETHER - 1) * stride + kernel; line++, pixels += width) {
        if (y + line < 0 || y + line >= height) continue;
        UNROLL for (int part = 0; part < stride; part++) __builtin_prefetch(pixels + part * LANES + height * width);
        UNROLL for (int kx = 0; kx < kernel; kx++) {
            VREAL value = load_lanes(pixels + kx, lanes->low[kx]);
            if (stride == 2) value = even_lanes(value, load_lanes(pixels + kx + LANES - 1, lanes->high[kx]));
            UNROLL for (int r = 0; r < ROWS_TOGETHER; r++) {
                const int ky = line - r * stride;
                if (ky >= 0 && ky < kernel) acc[r] += weights[ky * kernel + kx] * value;
            }
        }
    }
    const ptrdiff_t some = imin(j->cols - x, LANES);
    UNROLL for (int r = 0; r < ROWS_TOGETHER; r++) {
        if (row + r >= j->rows) break;
        REAL *to = j->out + (row + r) * j->cols + x;
        if (j->add) acc[r] += load_some(to, some);
        store_some(to, bounded(acc[r], j->bounds), some);
    }
}

INLINE void depthwise_columns(const depthwise_job *j, const int kernel, const int stride) {
    VREAL weights[MOST_TAPS];
    UNROLL for (int t = 0; t < kernel * kernel; t++) weights[t] = fill(j->weights[t]);
    for (ptrdiff_t x = 0; x < j->cols; x += LANES) {
        depthwise_lanes lanes;
        for (int kx = 0; kx < kernel; kx++) {
            lanes.low[kx] = lanes_inside(x * stride - j->left + kx, j->width);
            if (stride == 2) lanes.high[kx] = lanes_inside(x * stride - j->left + kx + LANES - 1, j->width);
        }
        for (ptrdiff_t row = 0; row < j->rows; row += ROWS_TOGETHER)
            depthwise_block(j, kernel, stride, weights, &lanes, row, x);
    }
}

#define CHANNEL(KERNEL, STRIDE)                                                                                        \
    NOINLINE void depthwise_##KERNEL##_##STRIDE(const depthwise_job *j) { depthwise_columns(j, KERNEL, STRIDE); }
CHANNEL(3, 1)
CHANNEL(3, 2)
CHANNEL(5, 1)
CHANNEL(5, 2)
CHANNEL(7, 1)
CHANNEL(7, 2)
#undef CHANNEL

static void depthwise_channel(const depthwise_job *j, ptrdiff_t kernel, ptrdiff_t stride) {
    switch (kernel * 2 + stride) {
    case 7: depthwise_3_1(j); break;
    case 8: depthwise_3_2(j); break;
    case 11: depthwise_5_1(j); break;
    case 12: depthwise_5_2(j); break;
    case 15: depthwise_7_1(j); break;
    case 16: depthwise_7_2(j); break;
    }
}

/* ---- adjoint at a stride of 2 ---- */

/* Taps inside the shares, and the pixels of a row of the image that they contribute to. */
typedef struct {
    vlanes taps[4], pixels[2];
} depthwise_back_lanes;

/* Pixels (y, 2 x - left ..) of the image, 2 LANES of them, from the outputs that see them: a pixel of an even column of
 * the padded image is seen through even taps alone. `image` holds shares. */
INLINE void depthwise_back_block(const depthwise_job *j, const int kernel, const depthwise_back_lanes *lanes,
                                 ptrdiff_t y, ptrdiff_t x) {
    VREAL even = {0}, odd = {0};
    for (ptrdiff_t ky = (y + j->top) & 1; ky < kernel; ky += 2) {
        const ptrdiff_t row = (y + j->top - ky) / 2 - j->first;
        if (y + j->top < ky || row < 0 || row >= j->height) continue;
        const REAL *weights = j->weights + ky * kernel, *shares = j->image + row * j->width + x;
        UNROLL for (int kx = 0; kx < kernel; kx += 2) {
            const VREAL share = load_lanes(shares - kx / 2, lanes->taps[kx / 2]);
            even += weights[kx] * share;
            if (kx + 1 < kernel) odd += weights[kx + 1] * share;
        }
    }
    REAL *to = j->out + y * j->cols + 2 * x - j->left;
    const VREAL sums[2] = {alternate_low(even, odd), alternate_high(even, odd)};
    UNROLL for (int half = 0; half < 2; half++, to += LANES)
        store_lanes(to, load_lanes(to, lanes->pixels[half]) + sums[half], lanes->pixels[half]);
}

INLINE void depthwise_back_columns(const depthwise_job *j, const int kernel) {
    for (ptrdiff_t x = imax(j->left, 0) / 2; 2 * x < j->cols + j->left; x += LANES) {
        depthwise_back_lanes lanes;
        for (int kx = 0; kx < kernel; kx += 2) lanes.taps[kx / 2] = lanes_inside(x - kx / 2, j->width);
        for (int half = 0; half < 2; half++)
            lanes.pixels[half] = lanes_inside(2 * x - j->left + half * LANES, j->cols);
        for (ptrdiff_t y = 0; y < j->rows; y++) depthwise_back_block(j, kernel, &lanes, y, x);
    }
}

#define CHANNEL(KERNEL)                                                                                                \
    NOINLINE void depthwise_back_##KERNEL(const depthwise_job *j) { depthwise_back_columns(j, KERNEL); }
CHANNEL(3)
CHANNEL(5)
CHANNEL(7)
#undef CHANNEL

static void depthwise_back_channel(const depthwise_job *j, ptrdiff_t kernel) {
    switch (kernel) {
    case 3: depthwise_back_3(j); break;
    case 5: depthwise_back_5(j); break;
    case 7: depthwise_back_7(j); break;
    }
}

/* ---- both for all channels ---- */

static int depthwise_suits(const fvlrp_windows *w, const fvlrp_weights *weights) {
    const ptrdiff_t kernel = w->kernel_y, stride = w->stride_y;
    if (weights->m != 1 || weights->channels != 1 || w->dilation_y != 1 || w->dilation_x != 1) return 0;
    if (w->kernel_x != kernel || w->stride_x != stride || stride > 2) return 0;
    return kernel == 3 || kernel == 5 || kernel == 7;
}

/* Weights from `a` on, in reverse order if `turned`. */
static void depthwise_weights(const fvlrp_weights *w, const REAL *a, int sign, int turned, REAL *to) {
    for (ptrdiff_t t = 0; t < w->taps; t++)
        to[t] = part_of_weight(sign, a[(turned ? w->taps - 1 - t : t) * w->tap]);
}

static int depthwise(const fvlrp_grouped_args *args) {
    const fvlrp_windows *w = &args->windows;
    const REAL *bias = args->bias, *weights = args->weights.a;
    REAL taps[MOST_TAPS], limits[2];
    const REAL *bounds = bounds_of(args->bounds, limits);
    depthwise_job j = {.weights = taps,
                       .height = w->height,
                       .width = w->width,
                       .top = w->top,
                       .left = w->left,
                       .first = w->first,
                       .rows = w->rows,
                       .cols = w->cols};
    for (ptrdiff_t g = 0; g < args->groups; g++)
        for (int second = 0; second <= (args->other != NULL); second++) {
            const int sign = args->weights.sign, last = second || !args->other;
            depthwise_weights(&args->weights, weights + g * args->group, second ? -sign : sign, 0, taps);
            j.image = (const REAL *)(second ? args->other : args->image) + g * w->height * w->width;
            j.bias = bias && !second ? bias[g] : 0;
            j.add = second || args->add;
            j.bounds = last ? bounds : NULL;
            j.out = (REAL *)args->c + g * args->ldc;
            depthwise_channel(&j, w->kernel_y, w->stride_y);
        }
    return FVLRP_OK;
}

/* At a stride of 1 the adjoint is the convolution of the shares with the weights turned by 180 degrees. */
static int depthwise_back(const fvlrp_grouped_back_args *args) {
    const fvlrp_windows *w = &args->windows;
    const REAL *weights = args->weights.a;
    const int turned = w->stride_y == 1;
    REAL taps[MOST_TAPS];
    depthwise_job j = {.weights = taps,
                       .height = w->rows,
                       .width = w->cols,
                       .top = turned ? w->kernel_y - 1 - w->top + w->first : w->top,
                       .left = turned ? w->kernel_x - 1 - w->left : w->left,
                       .first = turned ? 0 : w->first,
                       .rows = w->height,
                       .cols = w->width,
                       .add = 1};
    for (ptrdiff_t g = 0; g < args->groups && w->rows; g++)
        for (int second = 0; second <= (args->other != NULL); second++) {
            const int sign = second ? -args->weights.sign : args->weights.sign;
            depthwise_weights(&args->weights, weights + g * args->group, sign, turned, taps);
            j.image = (const REAL *)(second ? args->other : args->share) + g * w->rows * w->cols;
            j.out = (REAL *)args->out + g * w->height * w->width;
            if (turned) depthwise_channel(&j, w->kernel_y, 1);
            else depthwise_back_channel(&j, w->kernel_y);
        }
    return FVLRP_OK;
}

#endif
#endif
