/* splat.c - from regularly spaced points to pixels: scatter, then one separable filter; the cost does not grow with the
 * number of points over a pixel. All in double. Included by isa.c.
 *
 * Rows stream: those that hold points are filtered along x into a ring, and a row of pixels gathers the rows of the
 * ring within reach, so that only points and pixels come from beyond the nearest caches.
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

/* to[x] = sum_t tap_t rows[t][x] for `vectors` vectors from x on, or ADDED to it. */
INLINE void comb_vectors(const splat_comb *c, const double *const *rows, ptrdiff_t x, const int vectors, const int add,
                         double *to) {
    vdouble sum[4];
    UNROLL for (int v = 0; v < vectors; v++) sum[v] = (vdouble){0};
    for (ptrdiff_t t = 0; t < c->length; t++) {
        const double *row = rows[t] + x;
        if (c->taps)
            UNROLL for (int v = 0; v < vectors; v++) sum[v] += c->taps[t] * load_double(row + v * DOUBLES);
        else
            UNROLL for (int v = 0; v < vectors; v++) sum[v] += load_double(row + v * DOUBLES);
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        double *at = to + x + v * DOUBLES;
        store_double(at, add ? load_double(at) + c->value * sum[v] : c->value * sum[v]);
    }
}

INLINE void comb_apply(const splat_comb *c, const double *const *rows, ptrdiff_t width, const int add, double *to) {
    ptrdiff_t x = 0;
    for (; x + 4 * DOUBLES <= width; x += 4 * DOUBLES) comb_vectors(c, rows, x, 4, add, to);
    for (; x + DOUBLES <= width; x += DOUBLES) comb_vectors(c, rows, x, 1, add, to);
    for (; x < width; x++) {
        double sum = 0;
        for (ptrdiff_t t = 0; t < c->length; t++) sum += (c->taps ? c->taps[t] : 1) * rows[t][x];
        to[x] = (add ? to[x] : 0) + c->value * sum;
    }
}

/* One scale's points, as in fvlrp.h, and the buffers between them and the pixels. */
typedef struct {
    int real;
    const void *values;
    ptrdiff_t rows, cols, bins, spacing, first, step;
    const double *weight_y, *weight_x;
    splat_comb comb[2];
    int combs;
    ptrdiff_t width, reach, pitch;
    ptrdiff_t ring[2];   /* rows that each comb along y looks back to */
    double *points[2];   /* a row of points, `reach` zeros on either side; filtered once */
    double *filtered[2]; /* rings: filtered along x; along y with the first of two combs */
    const double **taken;
} splat_rows;

/* Add row y of the weighed values to `to`; 0 where there are none. */
INLINE int scatter(const splat_rows *s, ptrdiff_t y, const int real, const ptrdiff_t bins, double *to) {
    int held = 0;
    for (ptrdiff_t iy = 0; iy < bins; iy++) {
        const ptrdiff_t down = y - s->first - s->spacing * iy, r = down / s->step;
        if (down < 0 || down % s->step || r >= s->rows) continue;
        const double wy = s->weight_y[r * bins + iy], *wx = s->weight_x;
        double *at = to + s->first;
        held = 1;
        for (ptrdiff_t c = 0; c < s->cols; c++, at += s->step, wx += bins) {
            const ptrdiff_t from = ((r * s->cols + c) * bins + iy) * bins;
            UNROLL for (ptrdiff_t ix = 0; ix < bins; ix++) {
                const double v = real == FVLRP_F32 ? (double)((const float *)s->values)[from + ix]
                                                   : ((const double *)s->values)[from + ix];
                at[s->spacing * ix] += wy * wx[ix] * v;
            }
        }
    }
    return held;
}

static int scatter_row(const splat_rows *s, ptrdiff_t y, double *to) {
    if (s->real == FVLRP_F32) return s->bins == 4 ? scatter(s, y, FVLRP_F32, 4, to) : scatter(s, y, FVLRP_F32, s->bins, to);
    return s->bins == 4 ? scatter(s, y, FVLRP_F64, 4, to) : scatter(s, y, FVLRP_F64, s->bins, to);
}

static void splat_layout(splat_rows *s, sift_block *block) {
    const ptrdiff_t size = sizeof(double);
    const splat_comb *last = &s->comb[s->combs - 1];
    s->reach = s->comb[0].length + (s->comb[0].lead < 0 ? -s->comb[0].lead : s->comb[0].lead) +
               (s->combs == 2 ? 2 * last->length * last->spacing : 0);
    s->pitch = row_pitch(s->width + 2 * s->reach, size);
    s->ring[0] = s->comb[0].length;
    s->ring[1] = s->combs == 2 ? (last->length - 1) * last->spacing + 1 : 0;
    for (int i = 0; i < 2; i++) s->points[i] = carve(block, s->pitch, size);
    for (int i = 0; i < 2; i++) s->filtered[i] = carve(block, s->ring[i], row_pitch(s->width, size) * size);
    s->taken = carve(block, most(s->comb[0].length, last->length), sizeof(double *));
}

static double *ring_row(const splat_rows *s, int i, ptrdiff_t y) {
    const ptrdiff_t at = y % s->ring[i];
    return s->filtered[i] + (at < 0 ? at + s->ring[i] : at) * row_pitch(s->width, sizeof(double));
}

/* Row y of the points, filtered along x, into the first ring. */
static void filter_along_x(splat_rows *s, ptrdiff_t y) {
    double *from = s->points[0] + s->reach, *between = s->points[1], *to = ring_row(s, 0, y);
    if (!scatter_row(s, y, from)) {
        memset(to, 0, (size_t)s->width * sizeof(double));
        return;
    }
    const splat_comb *c = s->comb;
    if (s->combs == 2) { /* over the margins, too, as far as the second comb looks */
        const ptrdiff_t margin = c[1].length * c[1].spacing;
        for (ptrdiff_t t = 0; t < c->length; t++) s->taken[t] = from - margin - c->lead - t;
        comb_apply(c, s->taken, s->width + margin, 0, between);
        c++;
        for (ptrdiff_t t = 0; t < c->length; t++) s->taken[t] = between + margin - t * c->spacing;
    } else
        for (ptrdiff_t t = 0; t < c->length; t++) s->taken[t] = from - c->lead - t;
    comb_apply(c, s->taken, s->width, 0, to);
    memset(s->points[0], 0, (size_t)s->pitch * sizeof(double));
}

/* List the rows of ring i that comb i looks back to from row y. */
static void look_back(splat_rows *s, int i, ptrdiff_t y) {
    const splat_comb *c = &s->comb[i];
    for (ptrdiff_t t = 0; t < c->length; t++) s->taken[t] = ring_row(s, i, y - t * c->spacing);
}

static int splat(int real, const void *values, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t bins, ptrdiff_t spacing,
                 ptrdiff_t first, ptrdiff_t step, const double *weight_y, const double *weight_x, const double *taps,
                 ptrdiff_t length, ptrdiff_t lead, ptrdiff_t begin, ptrdiff_t end, ptrdiff_t width, double *pixels) {
    splat_rows s = {.real = real, .values = values, .rows = rows, .cols = cols, .bins = bins, .spacing = spacing,
                    .first = first, .step = step, .weight_y = weight_y, .weight_x = weight_x, .width = width};
    s.combs = splat_combs(taps, length, lead, s.comb);
    sift_block block = {0};
    splat_layout(&s, &block);
    block.base = scratch(block.used, 1);
    if (!block.base) return FVLRP_E_MEMORY;
    memset(block.base, 0, (size_t)block.used);
    block.used = 0;
    splat_layout(&s, &block);

    /* Pixel row y gathers points from row y - lead upwards, and from as many rows above as both rings hold. */
    const ptrdiff_t last = first + step * (rows - 1) + spacing * (bins - 1);
    const ptrdiff_t held = s.ring[0] - 1 + (s.combs == 2 ? s.ring[1] - 1 : 0);
    const ptrdiff_t from = most(first, begin - lead - held), to = least(end - lead, last + length);
    for (ptrdiff_t y = from; y < to; y++) {
        filter_along_x(&s, y);
        look_back(&s, 0, y);
        if (s.combs == 2) {
            comb_apply(&s.comb[0], s.taken, width, 0, ring_row(&s, 1, y));
            look_back(&s, 1, y);
        }
        if (y + lead >= begin) comb_apply(&s.comb[s.combs - 1], s.taken, width, 1, pixels + (y + lead) * width);
    }
    free(block.base);
    return FVLRP_OK;
}
