/* splat.c - from regularly spaced points to pixels: scatter, then one separable filter; the cost does not grow with the
 * number of points over a pixel. All in double. Included by isa.c.
 *
 * A box of length a b is a box of a taps followed by b taps a pixels apart: a + b additions instead of a b, and none of
 * the drift or the dependency of a running sum. */

typedef struct {
    ptrdiff_t length, spacing, lead; /* taps, pixels between them, offset of the first from the point */
    const double *taps;              /* NULL: all `value` */
    double value;
} splat_comb;

/* The kernel as one comb, or as two where it is a box with a proper divisor: their number. */
static int splat_combs(const double *taps, ptrdiff_t length, ptrdiff_t lead, splat_comb comb[2]) {
    ptrdiff_t best = 1;
    for (ptrdiff_t i = 1; i < length; i++)
        if (taps[i] != taps[0]) {
            comb[0] = (splat_comb){length, 1, lead, taps, 1};
            return 1;
        }
    for (ptrdiff_t a = 2; a * a <= length; a++)
        if (length % a == 0) best = a;
    comb[0] = (splat_comb){length / best, 1, lead, NULL, taps[0]};
    comb[1] = (splat_comb){best, length / best, 0, NULL, 1};
    return best > 1 ? 2 : 1;
}

/* to[x] = sum_t tap_t from[x - (lead + t spacing) unit] for 0 <= x < width, or ADDED to it. A unit is 1 along a row, a
 * row's length down a column. */
INLINE void comb_apply(const splat_comb *c, const double *from, ptrdiff_t unit, ptrdiff_t width, const int add,
                       double *to) {
    const ptrdiff_t apart = c->spacing * unit;
    from -= c->lead * unit;
    ptrdiff_t x = 0;
    for (; x + DOUBLES <= width; x += DOUBLES) {
        vdouble sum = {0};
        if (c->taps)
            for (ptrdiff_t t = 0; t < c->length; t++) sum += c->taps[t] * load_double(from + x - t * apart);
        else
            for (ptrdiff_t t = 0; t < c->length; t++) sum += load_double(from + x - t * apart);
        store_double(to + x, add ? load_double(to + x) + c->value * sum : c->value * sum);
    }
    for (; x < width; x++) {
        double sum = 0;
        for (ptrdiff_t t = 0; t < c->length; t++) sum += (c->taps ? c->taps[t] : 1) * from[x - t * apart];
        to[x] = (add ? to[x] : 0) + c->value * sum;
    }
}

/* Add one scale's weighed values to a canvas whose pixel (0, 0) is `origin`, and mark the rows that hold any. */
INLINE void scatter(const int real, const void *values, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t bins,
                    ptrdiff_t spacing, ptrdiff_t first, ptrdiff_t step, const double *weight_y, const double *weight_x,
                    double *origin, ptrdiff_t pitch, uint8_t *held) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t iy = 0; iy < bins; iy++) {
            const ptrdiff_t y = first + step * r + spacing * iy;
            const double wy = weight_y[r * bins + iy];
            held[y] = 1;
            for (ptrdiff_t c = 0; c < cols; c++) {
                const ptrdiff_t at = ((r * cols + c) * bins + iy) * bins;
                double *to = origin + y * pitch + first + step * c;
                for (ptrdiff_t ix = 0; ix < bins; ix++) {
                    const double v = real == FVLRP_F32 ? (double)((const float *)values)[at + ix]
                                                       : ((const double *)values)[at + ix];
                    to[spacing * ix] += wy * weight_x[c * bins + ix] * v;
                }
            }
        }
}

static int splat(int real, const void *values, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t bins, ptrdiff_t spacing,
                 ptrdiff_t first, ptrdiff_t step, const double *weight_y, const double *weight_x, const double *taps,
                 ptrdiff_t length, ptrdiff_t lead, ptrdiff_t height, ptrdiff_t width, double *pixels) {
    splat_comb comb[2];
    const int combs = splat_combs(taps, length, lead, comb);
    /* Two canvases with margins of zeros as wide as the kernel reaches: no tap needs a check. */
    const ptrdiff_t reach = most(length + (lead < 0 ? -lead : lead), 2 * length + lead);
    const ptrdiff_t pitch = width + 2 * reach, all = height + 2 * reach, slack = reach + DOUBLES;
    int status = FVLRP_E_MEMORY;
    double *canvas[2] = {NULL, NULL};
    uint8_t *held = calloc((size_t)all, 1);
    if (!held || !checked(all, pitch * (ptrdiff_t)sizeof(double))) goto out;
    for (int i = 0; i < 2; i++) {
        canvas[i] = scratch(all * pitch + 2 * slack, sizeof(double));
        if (!canvas[i]) goto out;
        memset(canvas[i], 0, (size_t)(all * pitch + 2 * slack) * sizeof(double));
    }
    double *from = canvas[0] + slack, *to = canvas[1] + slack, *swap;
    double *origin = from + reach * pitch + reach;
    if (real == FVLRP_F32)
        scatter(FVLRP_F32, values, rows, cols, bins, spacing, first, step, weight_y, weight_x, origin, pitch,
                held + reach);
    else
        scatter(FVLRP_F64, values, rows, cols, bins, spacing, first, step, weight_y, weight_x, origin, pitch,
                held + reach);

    for (int i = 0; i < combs; i++, swap = from, from = to, to = swap)
        for (ptrdiff_t y = reach; y < reach + height; y++)
            if (held[y]) comb_apply(&comb[i], from + y * pitch, 1, pitch, 0, to + y * pitch);
    if (combs == 2) { /* rows that the second comb looks up lie above the image, too */
        for (ptrdiff_t y = reach - length + 1; y < reach + height; y++)
            comb_apply(&comb[0], from + y * pitch + reach, pitch, width, 0, to + y * pitch + reach);
        swap = from, from = to, to = swap;
    }
    for (ptrdiff_t y = 0; y < height; y++)
        comb_apply(&comb[combs - 1], from + (y + reach) * pitch + reach, pitch, width, 1, pixels + y * width);
    status = FVLRP_OK;
out:
    free(held);
    free(canvas[0]);
    free(canvas[1]);
    return status;
}
