/* splat.c - from regularly spaced points to pixels: scatter, then one separable filter; the cost does not grow with
 * the number of points under a pixel. All in double. */
#include "common.h"

static int uniform(const double *taps, ptrdiff_t length) {
    for (ptrdiff_t i = 1; i < length; i++)
        if (taps[i] != taps[0]) return 0;
    return 1;
}

/* out[y] += sum_t taps[t] grid[y - lead - t], whole rows at a time. A box is a running sum. */
static void filter_down(const double *grid, ptrdiff_t height, ptrdiff_t width, const double *taps, ptrdiff_t length,
                        ptrdiff_t lead, int box, double *out) {
    memset(out, 0, (size_t)(height * width) * sizeof(double));
    if (!box) {
        for (ptrdiff_t y = 0; y < height; y++)
            for (ptrdiff_t t = 0; t < length; t++) {
                const ptrdiff_t from = y - lead - t;
                if (from < 0 || from >= height) continue;
                const double tap = taps[t], *row = grid + from * width;
                for (ptrdiff_t x = 0; x < width; x++) out[y * width + x] += tap * row[x];
            }
        return;
    }
    /* Start with the window of row 0: rows [-lead - length + 1, -lead]. */
    for (ptrdiff_t from = -lead - length + 1; from <= -lead; from++)
        for (ptrdiff_t x = 0; from >= 0 && from < height && x < width; x++) out[x] += taps[0] * grid[from * width + x];
    for (ptrdiff_t y = 1; y < height; y++) {
        const ptrdiff_t enter = y - lead, leave = y - lead - length;
        double *row = out + y * width;
        memcpy(row, row - width, (size_t)width * sizeof(double));
        for (ptrdiff_t x = 0; enter >= 0 && enter < height && x < width; x++) row[x] += taps[0] * grid[enter * width + x];
        for (ptrdiff_t x = 0; leave >= 0 && leave < height && x < width; x++) row[x] -= taps[0] * grid[leave * width + x];
    }
}

/* pixels += the same along rows. */
static void filter_across(const double *in, ptrdiff_t height, ptrdiff_t width, const double *taps, ptrdiff_t length,
                          ptrdiff_t lead, int box, double *pixels) {
    for (ptrdiff_t y = 0; y < height; y++) {
        const double *row = in + y * width;
        double *to = pixels + y * width;
        if (box) {
            double sum = 0;
            for (ptrdiff_t from = -lead - length + 1; from < -lead; from++)
                if (from >= 0 && from < width) sum += row[from];
            for (ptrdiff_t x = 0; x < width; x++) {
                const ptrdiff_t enter = x - lead, leave = x - lead - length;
                if (enter >= 0 && enter < width) sum += row[enter];
                if (leave >= 0 && leave < width) sum -= row[leave];
                to[x] += taps[0] * sum;
            }
            continue;
        }
        for (ptrdiff_t t = 0; t < length; t++) {
            const ptrdiff_t shift = lead + t, begin = shift > 0 ? shift : 0;
            const ptrdiff_t end = width + shift < width ? width + shift : width;
            for (ptrdiff_t x = begin; x < end; x++) to[x] += taps[t] * row[x - shift];
        }
    }
}

int fvlrp_splat(int real, const void *values, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t bins, ptrdiff_t spacing,
                ptrdiff_t first, ptrdiff_t step, const double *weight_y, const double *weight_x, const double *taps,
                ptrdiff_t length, ptrdiff_t lead, ptrdiff_t height, ptrdiff_t width, double *pixels) {
    if ((real != FVLRP_F32 && real != FVLRP_F64) || rows < 0 || cols < 0 || bins < 1 || spacing < 0 || first < 0)
        return FVLRP_E_ARGUMENT;
    if (step < 1 || length < 1 || height < 1 || width < 1 || !checked(height, width)) return FVLRP_E_ARGUMENT;
    if (rows == 0 || cols == 0) return FVLRP_OK;
    if (first + step * (rows - 1) + spacing * (bins - 1) >= height) return FVLRP_E_ARGUMENT;
    if (first + step * (cols - 1) + spacing * (bins - 1) >= width) return FVLRP_E_ARGUMENT;

    int status = FVLRP_E_MEMORY;
    double *grid = scratch(height * width, sizeof(double)), *down = scratch(height * width, sizeof(double));
    if (!grid || !down) goto out;
    memset(grid, 0, (size_t)(height * width) * sizeof(double));
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t c = 0; c < cols; c++)
            for (ptrdiff_t iy = 0; iy < bins; iy++) {
                const ptrdiff_t at = ((r * cols + c) * bins + iy) * bins;
                const double wy = weight_y[r * bins + iy], *wx = weight_x + c * bins;
                double *to = grid + (first + step * r + spacing * iy) * width + first + step * c;
                if (real == FVLRP_F32)
                    for (ptrdiff_t ix = 0; ix < bins; ix++) to[spacing * ix] += wy * wx[ix] * (double)((const float *)values)[at + ix];
                else
                    for (ptrdiff_t ix = 0; ix < bins; ix++) to[spacing * ix] += wy * wx[ix] * ((const double *)values)[at + ix];
            }
    const int box = uniform(taps, length);
    filter_down(grid, height, width, taps, length, lead, box, down);
    filter_across(down, height, width, taps, length, lead, box, pixels);
    status = FVLRP_OK;
out:
    free(grid);
    free(down);
    return status;
}
