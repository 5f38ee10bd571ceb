/* scores.inc.c - the linear classifier: dot products of a Fisher vector with rows of coefficients. Float in, double
 * out. */
#include "fvlrp.h"
#include "simd.h"

/* Products that are summed in float; runs are added in double (docs/numerics.md §7). */
enum { RUN = 2048 };

/* Dot products of `rows` rows of coef at once: memory is the bottleneck, and several streams read it faster. */
INLINE void scores_of(const int rows, ptrdiff_t length, const float *coef, const float *x, double *out) {
    UNROLL for (int r = 0; r < rows; r++) out[r] = 0;
    for (ptrdiff_t first = 0; first < length; first += RUN) {
        const ptrdiff_t end = imin(length, first + RUN);
        vfloat runs[8][2] = {0};
        ptrdiff_t j = first;
        for (; j + 2 * LANES <= end; j += 2 * LANES)
            UNROLL for (int u = 0; u < 2; u++) {
                const vfloat value = load(x + j + u * LANES);
                UNROLL for (int r = 0; r < rows; r++) runs[r][u] += load(coef + r * length + j + u * LANES) * value;
            }
        UNROLL for (int r = 0; r < rows; r++) {
            out[r] += sum_lanes_wide(runs[r][0] + runs[r][1]);
            for (ptrdiff_t t = j; t < end; t++) out[r] += (double)coef[r * length + t] * (double)x[t];
        }
    }
}

static int scores(const fvlrp_scores_args *args) {
    const ptrdiff_t n = args->n, length = args->length;
    const float *coef = args->coef;
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8) scores_of(8, length, coef + i * length, args->x, args->out + i);
    for (; i + 2 <= n; i += 2) scores_of(2, length, coef + i * length, args->x, args->out + i);
    for (; i < n; i++) scores_of(1, length, coef + i * length, args->x, args->out + i);
    return FVLRP_OK;
}
