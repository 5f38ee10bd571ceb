/* pools.inc.c - max pooling, and its relevance: each output's goes to the winner of its window. */
#include "arena.h"
#include "network/windows.h"
#include "simd.h"

/* NaN wins. */
INLINE REAL greater(REAL a, REAL b) { return ((b > a) | (b != b)) ? b : a; }

/* out[o] = max(out[o], line[o stride]), with strides that the compiler knows. */
INLINE void pool_tap(const REAL *line, ptrdiff_t stride, ptrdiff_t count, REAL *out) {
    if (stride == 1)
        for (ptrdiff_t o = 0; o < count; o++) out[o] = greater(out[o], line[o]);
    else if (stride == 2)
        for (ptrdiff_t o = 0; o < count; o++) out[o] = greater(out[o], line[2 * o]);
    else
        for (ptrdiff_t o = 0; o < count; o++) out[o] = greater(out[o], line[stride * o]);
}

/* One output row of one channel; `line` has room for a row of the image. */
static void pool_row(const fvlrp_windows *w, const REAL *channel, ptrdiff_t oy, REAL *line, REAL *out) {
    const REAL *most = NULL; /* of the rows so far */
    for (ptrdiff_t ky = 0; ky < w->kernel_y; ky++) {
        const ptrdiff_t y = (w->first + oy) * w->stride_y + ky * w->dilation_y - w->top;
        if (y < 0 || y >= w->height) continue;
        const REAL *row = channel + y * w->width;
        for (ptrdiff_t x = 0; most && x < w->width; x++) line[x] = greater(most[x], row[x]);
        most = most ? line : row;
    }
    for (ptrdiff_t x = 0; x < w->cols; x++) out[x] = -(REAL)INFINITY;
    if (!most) return;
    for (ptrdiff_t kx = 0; kx < w->kernel_x; kx++) {
        const ptrdiff_t offset = kx * w->dilation_x - w->left, begin = first_inside(offset, w->stride_x);
        const ptrdiff_t end = imin(end_inside(offset, w->stride_x, w->width), w->cols);
        if (begin < end) pool_tap(most + begin * w->stride_x + offset, w->stride_x, end - begin, out + begin);
    }
}

static int max_pool(const fvlrp_max_pool_args *args) {
    const fvlrp_windows *w = &args->windows;
    REAL *line = scratch(w->width, sizeof(REAL)), *out = args->out;
    if (!line) return FVLRP_E_MEMORY;
    for (ptrdiff_t c = 0; c < w->channels; c++)
        for (ptrdiff_t o = 0; o < w->rows; o++, out += w->cols)
            pool_row(w, (const REAL *)args->image + c * w->height * w->width, o, line, out);
    release(line);
    return FVLRP_OK;
}

/* Index in its channel of the first pixel of a window that equals `top`, or -1. */
INLINE ptrdiff_t pool_winner(const fvlrp_windows *w, const REAL *channel, ptrdiff_t oy, ptrdiff_t ox, REAL top) {
    const ptrdiff_t y0 = (w->first + oy) * w->stride_y - w->top, x0 = ox * w->stride_x - w->left;
    const ptrdiff_t down = (w->kernel_y - 1) * w->dilation_y, right = (w->kernel_x - 1) * w->dilation_x;
    ptrdiff_t winner = -1;
    if (y0 >= 0 && x0 >= 0 && y0 + down < w->height && x0 + right < w->width) {
        /* From the last pixel to the first, without branches, which the processor could not predict. */
        for (ptrdiff_t y = y0 + down; y >= y0; y -= w->dilation_y)
            for (ptrdiff_t x = x0 + right; x >= x0; x -= w->dilation_x) {
                const ptrdiff_t i = y * w->width + x;
                winner = channel[i] == top ? i : winner;
            }
        return winner;
    }
    for (ptrdiff_t ky = 0; ky < w->kernel_y; ky++) {
        const ptrdiff_t y = y0 + ky * w->dilation_y;
        if (y < 0 || y >= w->height) continue;
        for (ptrdiff_t kx = 0; kx < w->kernel_x; kx++) {
            const ptrdiff_t x = x0 + kx * w->dilation_x;
            if (x >= 0 && x < w->width && channel[y * w->width + x] == top) return y * w->width + x;
        }
    }
    return -1;
}

static int max_pool_back(const fvlrp_max_pool_back_args *args) {
    const fvlrp_windows *w = &args->windows;
    const ptrdiff_t plane = w->height * w->width, cells = w->rows * w->cols, apart = w->channels * cells;
    for (ptrdiff_t c = 0; c < w->channels; c++)
        for (ptrdiff_t oy = 0; oy < w->rows; oy++)
            for (ptrdiff_t ox = 0; ox < w->cols; ox++) {
                const ptrdiff_t at = c * cells + oy * w->cols + ox;
                const REAL *r = (const REAL *)args->r + at, *channel = (const REAL *)args->image + c * plane;
                int any = 0;
                for (ptrdiff_t t = 0; t < args->targets; t++) any |= r[t * apart] != 0;
                if (!any) continue;
                const ptrdiff_t i = pool_winner(w, channel, oy, ox, ((const REAL *)args->maxima)[at]);
                for (ptrdiff_t t = 0; i >= 0 && t < args->targets; t++)
                    ((REAL *)args->out)[(t * w->channels + c) * plane + i] += r[t * apart];
            }
    return FVLRP_OK;
}
