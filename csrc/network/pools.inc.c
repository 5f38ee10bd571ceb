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

/* winner[o] = tap where line[o stride] equals maxima[o]. */
INLINE void pool_equal(const REAL *line, ptrdiff_t stride, ptrdiff_t count, const REAL *maxima, int32_t tap,
                       int32_t *winner) {
    if (stride == 1)
        for (ptrdiff_t o = 0; o < count; o++) winner[o] = line[o] == maxima[o] ? tap : winner[o];
    else if (stride == 2)
        for (ptrdiff_t o = 0; o < count; o++) winner[o] = line[2 * o] == maxima[o] ? tap : winner[o];
    else
        for (ptrdiff_t o = 0; o < count; o++) winner[o] = line[stride * o] == maxima[o] ? tap : winner[o];
}

/* The first tap of each window of an output row of one channel that equals the maximum, or -1: from the last tap to
 * the first, a row of windows at a time, as no processor predicts where a maximum lies. */
static void pool_winners(const fvlrp_windows *w, const REAL *channel, ptrdiff_t oy, const REAL *maxima,
                         int32_t *winner) {
    for (ptrdiff_t x = 0; x < w->cols; x++) winner[x] = -1;
    for (ptrdiff_t ky = w->kernel_y - 1; ky >= 0; ky--) {
        const ptrdiff_t y = (w->first + oy) * w->stride_y + ky * w->dilation_y - w->top;
        if (y < 0 || y >= w->height) continue;
        for (ptrdiff_t kx = w->kernel_x - 1; kx >= 0; kx--) {
            const ptrdiff_t offset = kx * w->dilation_x - w->left, begin = first_inside(offset, w->stride_x);
            const ptrdiff_t end = imin(end_inside(offset, w->stride_x, w->width), w->cols);
            if (begin < end)
                pool_equal(channel + y * w->width + begin * w->stride_x + offset, w->stride_x, end - begin,
                           maxima + begin, (int32_t)(ky * w->kernel_x + kx), winner + begin);
        }
    }
}

/* Scratch memory: the winners of a row, and by how much taps lie after the first one of their window. */
static void pool_layout(const fvlrp_windows *w, int32_t **winner, ptrdiff_t **after, arena *memory) {
    *winner = carve(memory, w->cols, sizeof(int32_t));
    *after = carve(memory, w->kernel_y * w->kernel_x, sizeof(ptrdiff_t));
}

static int max_pool_back(const fvlrp_max_pool_back_args *args) {
    const fvlrp_windows *w = &args->windows;
    const ptrdiff_t plane = w->height * w->width, cells = w->rows * w->cols;
    int32_t *winner;
    ptrdiff_t *after;
    arena memory = {0};
    pool_layout(w, &winner, &after, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    pool_layout(w, &winner, &after, &memory);
    for (ptrdiff_t t = 0; t < w->kernel_y * w->kernel_x; t++)
        after[t] = t / w->kernel_x * w->dilation_y * w->width + t % w->kernel_x * w->dilation_x;
    for (ptrdiff_t c = 0; c < w->channels; c++)
        for (ptrdiff_t oy = 0; oy < w->rows; oy++) {
            const ptrdiff_t at = c * cells + oy * w->cols;
            const ptrdiff_t first = ((w->first + oy) * w->stride_y - w->top) * w->width - w->left;
            pool_winners(w, (const REAL *)args->image + c * plane, oy, (const REAL *)args->maxima + at, winner);
            for (ptrdiff_t t = 0; t < args->targets; t++) {
                const REAL *r = (const REAL *)args->r + t * w->channels * cells + at;
                REAL *out = (REAL *)args->out + (t * w->channels + c) * plane;
                for (ptrdiff_t x = 0; x < w->cols; x++)
                    if (winner[x] >= 0) out[first + x * w->stride_x + after[winner[x]]] += r[x];
            }
        }
    arena_close(&memory);
    return FVLRP_OK;
}
