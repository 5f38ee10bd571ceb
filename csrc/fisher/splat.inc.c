/* splat.inc.c - from regularly spaced points to pixels: scatter, then one separable filter, so that the cost does not
 * grow with the number of points over a pixel. Double only.
 *
 * Rows stream: those that hold points are filtered along x into a ring, and a row of pixels gathers the rows of the
 * ring within reach, so that only points and pixels come from beyond the L2 cache.
 *
 * A box of length a b is a box of a taps followed by b taps a pixels apart: a + b additions instead of a b, and none of
 * the drift or the dependency of a running sum. */
#ifndef REAL_BITS
#define REAL_BITS 64
#endif
#include "arena.h"
#include "simd.h"

typedef struct {
    ptrdiff_t length, spacing, lead; /* taps, pixels between them, offset of the first from the point */
    const double *taps;              /* NULL: all `value` */
    double value;
} splat_comb;

/* The kernel as one comb, or as two if it is a box of composite length; returns how many. */
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
            UNROLL for (int v = 0; v < vectors; v++) sum[v] += c->taps[t] * load(row + v * LANES);
        else
            UNROLL for (int v = 0; v < vectors; v++) sum[v] += load(row + v * LANES);
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        double *at = to + x + v * LANES;
        store(at, add ? load(at) + c->value * sum[v] : c->value * sum[v]);
    }
}

INLINE void comb_apply(const splat_comb *c, const double *const *rows, ptrdiff_t width, const int add, double *to) {
    ptrdiff_t x = 0;
    for (; x + 4 * LANES <= width; x += 4 * LANES) comb_vectors(c, rows, x, 4, add, to);
    for (; x + LANES <= width; x += LANES) comb_vectors(c, rows, x, 1, add, to);
    for (; x < width; x++) {
        double sum = 0;
        for (ptrdiff_t t = 0; t < c->length; t++) sum += (c->taps ? c->taps[t] : 1) * rows[t][x];
        to[x] = (add ? to[x] : 0) + c->value * sum;
    }
}

/* One scale's points, and the buffers between them and the pixels. */
typedef struct {
    const fvlrp_splat_args *args;
    splat_comb comb[2];
    int combs;
    ptrdiff_t reach, pitch;
    ptrdiff_t ring[2];   /* rows that each comb along y looks back to */
    double *points[2];   /* a row of points, `reach` zeros on either side; filtered once */
    double *filtered[2]; /* rings: filtered along x; along y with the first of two combs */
    const double **taken;
} splat_rows;

/* Add row y of the weighted values to `to`; returns 0 if there are none. */
INLINE int scatter(const fvlrp_splat_args *s, ptrdiff_t y, const int real, const ptrdiff_t bins, double *to) {
    int found = 0;
    for (ptrdiff_t iy = 0; iy < bins; iy++) {
        const ptrdiff_t down = y - s->first - s->spacing * iy, r = down / s->step;
        if (down < 0 || down % s->step || r >= s->rows) continue;
        const double wy = s->weight_y[r * bins + iy], *wx = s->weight_x;
        double *at = to + s->first;
        found = 1;
        for (ptrdiff_t c = 0; c < s->cols; c++, at += s->step, wx += bins) {
            const ptrdiff_t from = ((r * s->cols + c) * bins + iy) * bins;
            UNROLL for (ptrdiff_t ix = 0; ix < bins; ix++) {
                const double v = real == FVLRP_F32 ? (double)((const float *)s->values)[from + ix]
                                                   : ((const double *)s->values)[from + ix];
                at[s->spacing * ix] += wy * wx[ix] * v;
            }
        }
    }
    return found;
}

static int scatter_row(const fvlrp_splat_args *s, ptrdiff_t y, double *to) {
    if (s->real == FVLRP_F32) return s->bins == 4 ? scatter(s, y, FVLRP_F32, 4, to) : scatter(s, y, FVLRP_F32, s->bins,
                                                                                              to);
    return s->bins == 4 ? scatter(s, y, FVLRP_F64, 4, to) : scatter(s, y, FVLRP_F64, s->bins, to);
}

static void splat_layout(splat_rows *s, arena *memory) {
    const ptrdiff_t size = sizeof(double), width = s->args->width;
    const splat_comb *first = &s->comb[0], *last = &s->comb[s->combs - 1];
    s->reach = first->length + (first->lead < 0 ? -first->lead : first->lead) +
               (s->combs == 2 ? 2 * last->length * last->spacing : 0);
    s->pitch = row_pitch(width + 2 * s->reach, size);
    s->ring[0] = first->length;
    s->ring[1] = s->combs == 2 ? (last->length - 1) * last->spacing + 1 : 0;
    for (int i = 0; i < 2; i++) s->points[i] = carve(memory, s->pitch, size);
    for (int i = 0; i < 2; i++) s->filtered[i] = carve(memory, s->ring[i], row_pitch(width, size) * size);
    s->taken = carve(memory, imax(first->length, last->length), sizeof(double *));
}

static double *ring_row(const splat_rows *s, int i, ptrdiff_t y) {
    const ptrdiff_t at = y % s->ring[i];
    return s->filtered[i] + (at < 0 ? at + s->ring[i] : at) * row_pitch(s->args->width, sizeof(double));
}

/* Row y of the points, filtered along x, into the first ring. */
static void filter_along_x(splat_rows *s, ptrdiff_t y) {
    const ptrdiff_t width = s->args->width;
    double *from = s->points[0] + s->reach, *between = s->points[1], *to = ring_row(s, 0, y);
    if (!scatter_row(s->args, y, from)) {
        memset(to, 0, (size_t)width * sizeof(double));
        return;
    }
    const splat_comb *c = s->comb;
    if (s->combs == 2) { /* over the margins, too, as far as the second comb looks */
        const ptrdiff_t margin = c[1].length * c[1].spacing;
        for (ptrdiff_t t = 0; t < c->length; t++) s->taken[t] = from - margin - c->lead - t;
        comb_apply(c, s->taken, width + margin, 0, between);
        c++;
        for (ptrdiff_t t = 0; t < c->length; t++) s->taken[t] = between + margin - t * c->spacing;
    } else
        for (ptrdiff_t t = 0; t < c->length; t++) s->taken[t] = from - c->lead - t;
    comb_apply(c, s->taken, width, 0, to);
    memset(s->points[0], 0, (size_t)s->pitch * sizeof(double));
}

/* List the rows of ring i that comb i looks back to from row y. */
static void look_back(splat_rows *s, int i, ptrdiff_t y) {
    const splat_comb *c = &s->comb[i];
    for (ptrdiff_t t = 0; t < c->length; t++) s->taken[t] = ring_row(s, i, y - t * c->spacing);
}

static int splat(const fvlrp_splat_args *args) {
    if (!args->rows || !args->cols) return FVLRP_OK;
    splat_rows s = {.args = args};
    s.combs = splat_combs(args->taps, args->length, args->lead, s.comb);
    arena memory = {0};
    splat_layout(&s, &memory);
    const ptrdiff_t bytes = memory.used;
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    memset(memory.base, 0, (size_t)bytes);
    splat_layout(&s, &memory);

    /* Pixel row y + lead gathers points from row y upwards. */
    const ptrdiff_t lead = args->lead, width = args->width;
    const ptrdiff_t last = args->first + args->step * (args->rows - 1) + args->spacing * (args->bins - 1);
    const ptrdiff_t end = imin(args->height - lead, last + args->length);
    for (ptrdiff_t y = args->first; y < end; y++) {
        filter_along_x(&s, y);
        look_back(&s, 0, y);
        if (s.combs == 2) {
            comb_apply(&s.comb[0], s.taken, width, 0, ring_row(&s, 1, y));
            look_back(&s, 1, y);
        }
        if (y + lead >= 0)
            comb_apply(&s.comb[s.combs - 1], s.taken, width, 1, args->pixels + (y + lead) * width);
    }
    arena_close(&memory);
    return FVLRP_OK;
}
