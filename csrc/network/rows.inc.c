/* rows.inc.c - normalisation of rows: softmax and layer normalisation. Sums are double. */
#include "network/activate.inc.c"
#include "simd.h"

/* Sum of a vector, in double. */
INLINE vdouble add_wide(vdouble sum, VREAL v) {
#if REAL_BITS == 32
    const vwide w = widen(v);
    return sum + w.half[0] + w.half[1];
#else
    return sum + v;
#endif
}
INLINE double sum_doubles(vdouble v) {
    double sum = 0;
    for (int i = 0; i < DOUBLES; i++) sum += v[i];
    return sum;
}

/* ---- softmax ---- */

INLINE REAL largest_of(const REAL *x, ptrdiff_t n) {
    VREAL best = fill(-(REAL)INFINITY);
    REAL top = -(REAL)INFINITY;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) best = larger(load(x + i), best);
    for (; i < n; i++) top = x[i] > top ? x[i] : top;
    const REAL lane = largest_lane(best);
    return lane > top ? lane : top;
}

/* exp(x - top), with the rounding error of the subtraction compensated. */
INLINE VREAL decay_from(VREAL x, REAL top) {
#if REAL_BITS == 32
    const VREAL down = x - top, back = down - x, rest = (x - (down - back)) - (top + back), e = decay(down);
    return e + e * only(down >= -87, rest); /* not where x is -infinity, whose rest is NaN */
#else
    return exponential(x - top);
#endif
}

static int softmax(const fvlrp_softmax_args *args) {
    const ptrdiff_t length = args->length;
    for (ptrdiff_t row = 0; row < args->n; row++) {
        const REAL *x = (const REAL *)args->x + row * length;
        REAL *out = (REAL *)args->out + row * length;
        const REAL top = largest_of(x, length);
        vdouble sum = {0};
        double rest = 0;
        ptrdiff_t i = 0;
        for (; i + LANES <= length; i += LANES) {
            const VREAL e = decay_from(load(x + i), top);
            store(out + i, e);
            sum = add_wide(sum, e);
        }
        if (i < length) {
            const ptrdiff_t some = length - i;
            store_some(out + i, decay_from(load_some(x + i, some), top), some);
            for (ptrdiff_t j = i; j < length; j++) rest += (double)out[j];
        }
        const VREAL by = fill((REAL)(1 / (rest + sum_doubles(sum))));
        for (i = 0; i + LANES <= length; i += LANES) store(out + i, load(out + i) * by);
        if (i < length) store_some(out + i, load_some(out + i, length - i) * by, length - i);
    }
    return FVLRP_OK;
}

/* ---- layer normalisation ---- */

/* x - mean, with the difference taken in double. */
INLINE VREAL less_mean(VREAL x, double mean) {
#if REAL_BITS == 32
    vwide w = widen(x);
    UNROLL for (int i = 0; i < 2; i++) w.half[i] -= mean;
    return narrow(w);
#else
    return x - mean;
#endif
}

/* The mean of a row, and the mean of its squares about `mean`. */
INLINE double mean_of(const REAL *x, ptrdiff_t n) {
    vdouble sum = {0};
    double rest = 0;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) sum = add_wide(sum, load(x + i));
    for (; i < n; i++) rest += (double)x[i];
    return (rest + sum_doubles(sum)) / (double)n;
}
INLINE double spread_of(const REAL *x, ptrdiff_t n, double mean) {
    vdouble sum = {0};
    double rest = 0;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) {
#if REAL_BITS == 32
        const vwide w = widen(load(x + i));
        UNROLL for (int h = 0; h < 2; h++) sum += (w.half[h] - mean) * (w.half[h] - mean);
#else
        sum += (load(x + i) - mean) * (load(x + i) - mean);
#endif
    }
    for (; i < n; i++) rest += ((double)x[i] - mean) * ((double)x[i] - mean);
    return (rest + sum_doubles(sum)) / (double)n;
}

static int layer_norm(const fvlrp_layer_norm_args *args) {
    const ptrdiff_t length = args->length;
    const REAL *weight = args->weight, *bias = args->bias;
    for (ptrdiff_t row = 0; row < args->n; row++) {
        const REAL *x = (const REAL *)args->x + row * length;
        REAL *out = (REAL *)args->out + row * length;
        const double mean = args->root_mean_square ? 0 : mean_of(x, length);
        const double inverse = 1 / sqrt(spread_of(x, length, mean) + args->epsilon);
        for (ptrdiff_t i = 0, some; i < length; i += some) {
            some = imin(length - i, LANES);
            VREAL y = less_mean(load_some(x + i, some), mean) * (REAL)inverse;
            if (weight) y *= load_some(weight + i, some);
            if (bias) y += load_some(bias + i, some);
            store_some(out + i, y, some);
        }
        if (args->mean) args->mean[row] = mean;
        if (args->inverse) args->inverse[row] = inverse;
    }
    return FVLRP_OK;
}
