/* product.inc.c - dense products of any size, and the same with the windows of an image as the right-hand matrix.
 *
 * A panel of B (at most DEPTH rows) is packed into the L1 cache and meets all rows of A, which streams by. A is read
 * in place if its rows are contiguous, and is packed otherwise. Windows are packed straight into panels: their
 * matrix never exists. */
#ifndef FVLRP_PRODUCT
#define FVLRP_PRODUCT

#include "arena.h"
#include "gemm.inc.c"
#include "network/windows.h"

enum { DEPTH = 256 * 4 / sizeof(REAL) };

/* Rows k of a matrix, columns at .. at + count - 1, followed by zeros up to `width`. Prefetches the next panel's. */
static void pack_matrix(const REAL *b, ptrdiff_t ldb, ptrdiff_t depth, ptrdiff_t count, ptrdiff_t width, REAL *to) {
    for (ptrdiff_t k = 0; k < depth; k++, b += ldb, to += width) {
        ptrdiff_t j = 0;
        for (; j + LANES <= count; j += LANES) store(to + j, load(b + j));
        for (; j < count; j++) to[j] = b[j];
        for (; j < width; j++) to[j] = 0;
        for (j = width; j < 2 * width; j += LINE) __builtin_prefetch(b + j);
    }
}

/* Taps of one output row inside a panel: `count` pixels from column `at` of the panel on, of which the first `left` and
 * all but `inside` of the rest lie in the padding; the first one inside lies at `from` in its channel. */
typedef struct {
    ptrdiff_t at, left, inside, count, from;
} pixel_run;

/* The runs of tap (ky, kx) over output pixels at .. at + count - 1: how many. */
static ptrdiff_t pixel_runs(const fvlrp_windows *w, ptrdiff_t ky, ptrdiff_t kx, ptrdiff_t at, ptrdiff_t count,
                            pixel_run *runs) {
    ptrdiff_t n = 0, ox = at % w->cols, oy = at / w->cols;
    const ptrdiff_t dx = kx * w->dilation_x - w->left;
    const ptrdiff_t begin = first_inside(dx, w->stride_x), end = end_inside(dx, w->stride_x, w->width);
    for (ptrdiff_t done = 0; done < count; oy++, ox = 0, n++) {
        const ptrdiff_t pixels = imin(w->cols - ox, count - done);
        const ptrdiff_t y = (oy + w->first) * w->stride_y + ky * w->dilation_y - w->top;
        ptrdiff_t low = imax(begin, ox), high = imin(end, ox + pixels);
        if (y < 0 || y >= w->height || low >= high) low = high = ox;
        runs[n] = (pixel_run){done, low - ox, high - low, pixels, y * w->width + low * w->stride_x + dx};
        done += pixels;
    }
    return n;
}

/* One tap of one channel. */
INLINE void pack_tap(const pixel_run *runs, ptrdiff_t n, const REAL *channel, ptrdiff_t stride, REAL *to) {
    for (ptrdiff_t r = 0; r < n; r++) {
        const pixel_run run = runs[r];
        ptrdiff_t j = run.at, i = 0;
        for (; i < run.left; i++) to[j + i] = 0;
        j += run.left;
        const REAL *from = run.inside ? channel + run.from : channel;
        i = 0;
        if (stride == 1)
            for (; i + LANES <= run.inside; i += LANES) store(to + j + i, load(from + i));
        if (stride == 2)
            for (; i + LANES <= run.inside; i += LANES) store(to + j + i, load_even(from + 2 * i));
        for (; i < run.inside; i++) to[j + i] = from[i * stride];
        for (i = run.left + run.inside; i < run.count; i++) to[run.at + i] = 0;
    }
}

static void pack_windows(const fvlrp_windows *w, const REAL *image, ptrdiff_t first, ptrdiff_t depth, ptrdiff_t at,
                         ptrdiff_t count, ptrdiff_t width, REAL *to) {
    const ptrdiff_t taps = w->kernel_y * w->kernel_x, plane = w->height * w->width;
    pixel_run runs[PANEL_COLUMNS];
    for (ptrdiff_t k = 0; count < width && k < depth; k++)
        for (ptrdiff_t j = count; j < width; j++) to[k * width + j] = 0;
    for (ptrdiff_t t = 0; t < taps && t < depth; t++) {
        const ptrdiff_t tap = (first + t) % taps;
        const ptrdiff_t n = pixel_runs(w, tap / w->kernel_x, tap % w->kernel_x, at, count, runs);
        for (ptrdiff_t k = t; k < depth; k += taps)
            pack_tap(runs, n, image + (first + k) / taps * plane, w->stride_x, to + k * width);
    }
}

/* Keep the part of packed weights that `sign` selects; NaN stays NaN. */
static void keep_sign(int sign, ptrdiff_t count, REAL *w) {
    if (sign == FVLRP_POSITIVE)
        for (ptrdiff_t i = 0; i < count; i++) w[i] = w[i] < 0 ? 0 : w[i];
    else if (sign == FVLRP_NEGATIVE)
        for (ptrdiff_t i = 0; i < count; i++) w[i] = w[i] > 0 ? 0 : w[i];
    else if (sign == FVLRP_SIZE)
        for (ptrdiff_t i = 0; i < count; i++) w[i] = w[i] < 0 ? -w[i] : w[i];
}

/* Columns first .. first + depth - 1 of A, block by block of MR rows. */
static void pack_rows(const fvlrp_weights *w, ptrdiff_t first, ptrdiff_t depth, REAL *to) {
    for (ptrdiff_t i = 0; i < w->m; i += MR, to += MR * depth) {
        const int mr = (int)imin(w->m - i, MR);
        ptrdiff_t c = first / w->taps, t = first % w->taps;
        for (ptrdiff_t k = 0; k < depth; k++) {
            const REAL *from = (const REAL *)w->a + i * w->row + c * w->channel + t * w->tap;
            if (mr == MR) UNROLL for (int r = 0; r < MR; r++) to[k * MR + r] = from[r * w->row];
            else
                for (int r = 0; r < mr; r++) to[k * MR + r] = from[r * w->row];
            if (++t == w->taps) t = 0, c++;
        }
        keep_sign(w->sign, MR * depth, to);
    }
}

/* Each of n values `times` times, in place. */
static void repeat(ptrdiff_t times, ptrdiff_t n, REAL *values) {
    for (ptrdiff_t i = n * times - 1; i >= 0; i--) values[i] = values[i / times];
}

typedef struct {
    REAL *panel; /* (DEPTH, PANEL_COLUMNS) */
    REAL *last;  /* (DEPTH, MR) */
    REAL *rows;  /* (m rounded up to blocks, DEPTH), where A is packed */
} product_buffers;

static void product_layout(product_buffers *p, ptrdiff_t depth, ptrdiff_t m, arena *memory) {
    p->panel = carve(memory, depth * PANEL_COLUMNS, sizeof(REAL));
    p->last = carve(memory, depth * MR, sizeof(REAL));
    p->rows = carve(memory, round_up(m, MR), depth * (ptrdiff_t)sizeof(REAL));
}

/* Whether the matrix of the windows is the image itself: windows of one pixel, stride 1, no padding. */
static int windows_are_image(const fvlrp_windows *w) {
    return w->kernel_y == 1 && w->kernel_x == 1 && w->stride_y == 1 && w->stride_x == 1 && w->top == 0 &&
           w->left == 0 && w->cols == w->width && w->first + w->rows <= w->height;
}

static int product(const fvlrp_product_args *args) {
    const fvlrp_weights *w = &args->weights;
    const fvlrp_windows *windows = args->windows;
    const ptrdiff_t k = w->channels * w->taps, n = args->n;
    const REAL *b = args->b;
    ptrdiff_t ldb = args->ldb;
    if (!w->m || !n) return FVLRP_OK;
    if (windows && windows_are_image(windows)) {
        b += windows->first * windows->width;
        ldb = windows->height * windows->width;
        windows = NULL;
    }
    const int contiguous = w->taps == 1 ? w->channel == 1 : w->tap == 1 && w->channel == w->taps;
    const int packed = w->sign != FVLRP_ALL || !contiguous;
    product_buffers p;
    arena memory = {0};
    product_layout(&p, imin(k, DEPTH), packed ? w->m : 0, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    product_layout(&p, imin(k, DEPTH), packed ? w->m : 0, &memory);
    REAL limits[2];
    const REAL *bounds = bounds_of(args->bounds, limits);
    /* A single column more than whole vectors, as of 7 x 7 pixels, would cost as much as a vector. */
    const int odd = n > LANES && n % LANES == 1;
    const ptrdiff_t parts = imax((k + DEPTH - 1) / DEPTH, 1), all = odd ? n / LANES : (n + LANES - 1) / LANES;
    for (ptrdiff_t part = 0; part < parts; part++) {
        const ptrdiff_t first = k / parts * part + imin(part, k % parts), depth = k / parts + (part < k % parts);
        if (packed) pack_rows(w, first, depth, p.rows);
        const gemm_left left = {packed ? p.rows : (const REAL *)w->a + first, w->row, w->m, depth, packed};
        for (ptrdiff_t at = 0, nv; at < all; at += nv) {
            nv = panel_vectors(at, all);
            const ptrdiff_t column = at * LANES, width = nv * LANES, count = imin(n - column, width);
            const int last = odd && at + nv == all;
            if (windows) pack_windows(windows, b, first, depth, column, count, width, p.panel);
            else pack_matrix(b + first * ldb + column, ldb, depth, count, width, p.panel);
            if (last && windows) pack_windows(windows, b, first, depth, n - 1, 1, 1, p.last);
            else if (last) pack_matrix(b + first * ldb + n - 1, ldb, depth, 1, 1, p.last);
            if (last && packed) repeat(MR, depth, p.last);
            const gemm_result to = {.c = (REAL *)args->c + column,
                                    .ldc = args->ldc,
                                    .count = count,
                                    .bias = part ? NULL : args->bias,
                                    .bounds = part == parts - 1 ? bounds : NULL,
                                    .last = last ? p.last : NULL,
                                    .add = part || args->add};
            gemm_panel(&left, p.panel, (int)nv, &to);
        }
    }
    arena_close(&memory);
    return FVLRP_OK;
}

#endif
