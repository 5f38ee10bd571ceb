/* alpha_beta.inc.c - shares of the alpha-beta rule for many outputs, in one pass over z, z+ and the relevance. */
#include "fvlrp.h"
#include "simd.h"

enum { PIECE = 64 }; /* outputs at a time */

/* What a piece of one row of outputs has whatever the target. */
typedef struct {
    REAL high[PIECE], low[PIECE]; /* what multiplies relevance: alpha / z+ and -beta / z- */
    REAL negative[PIECE];         /* -z- */
} alpha_beta_piece;

/* Returns whether an output has a denominator of 0, or one that may be rounding error alone. */
static int alpha_beta_factors(const fvlrp_alpha_beta_args *args, ptrdiff_t n, const REAL *z, const REAL *positive,
                              const REAL *negative, alpha_beta_piece *p) {
    const REAL alpha = (REAL)args->alpha, beta = (REAL)args->beta, weak = (REAL)args->weak;
    int odd = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const REAL up = positive[i], down = negative ? -negative[i] : z ? up - z[i] : up;
        p->high[i] = alpha / (up != 0 ? up : 1);
        p->low[i] = beta / (down != 0 ? down : 1);
        p->negative[i] = down;
        odd |= !(down >= weak * up) | !(up >= weak * down) | (up == 0) | (down == 0);
    }
    return odd;
}

/* Set the factors of such outputs to 0, and say which outputs are doubtful. `at` is the piece's position in (m, n). */
static void alpha_beta_exceptions(const fvlrp_alpha_beta_args *args, ptrdiff_t at, ptrdiff_t n, const REAL *positive,
                                  const REAL *r, alpha_beta_piece *p) {
    const REAL weak = (REAL)args->weak;
    for (ptrdiff_t i = 0; i < n; i++) {
        int any = 0;
        for (ptrdiff_t t = 0; t < args->targets; t++) any |= r[t * args->pitch + i] != 0;
        const int doubtful = (args->beta > 0 && !(p->negative[i] >= weak * positive[i])) ||
                             !(positive[i] >= weak * p->negative[i]);
        if (any && doubtful && (*args->count)++ < args->capacity) args->doubtful[*args->count - 1] = at + i;
        if (doubtful || !any) {
            p->high[i] = p->low[i] = 0;
            continue;
        }
        if (positive[i] == 0) p->high[i] = 0;
        if (p->negative[i] == 0) p->low[i] = 0;
        const double vanishing = (positive[i] == 0) * args->alpha - (p->negative[i] == 0) * args->beta;
        for (ptrdiff_t t = 0; t < args->targets; t++) args->lost[t] += vanishing * (double)r[t * args->pitch + i];
    }
}

/* to[i] = r[i] factor[i], where `to` is not NULL; returns their sum. */
INLINE double alpha_beta_shares(ptrdiff_t n, const REAL *r, const REAL *factor, REAL *to) {
    VREAL sum = {0};
    double left = 0;
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const VREAL share = load(r + i) * load(factor + i);
        if (to) store(to + i, share);
        sum += share;
    }
    for (; i < n; i++) {
        const REAL share = r[i] * factor[i];
        if (to) to[i] = share;
        left += (double)share;
    }
    return left + sum_lanes_wide(sum);
}

static int alpha_beta(const fvlrp_alpha_beta_args *args) {
    const ptrdiff_t targets = args->targets, m = args->m, n = args->n;
    alpha_beta_piece p;
    *args->count = 0;
    memset(args->kept, 0, (size_t)(2 * targets * m) * sizeof(double));
    memset(args->lost, 0, (size_t)targets * sizeof(double));
    for (ptrdiff_t j = 0; j < m; j++)
        for (ptrdiff_t at = 0; at < n; at += PIECE) {
            const ptrdiff_t some = imin(n - at, PIECE);
            const REAL *positive = (const REAL *)args->positive + j * n + at;
            const REAL *z = args->z ? (const REAL *)args->z + j * args->ldz + at : NULL;
            const REAL *negative = args->negative ? (const REAL *)args->negative + j * n + at : NULL;
            const REAL *r = (const REAL *)args->r + j * args->ldr + at;
            if (alpha_beta_factors(args, some, z, positive, negative, &p))
                alpha_beta_exceptions(args, j * n + at, some, positive, r, &p);
            for (ptrdiff_t t = 0; t < targets; t++) {
                const ptrdiff_t to = (t * m + j) * n + at;
                REAL *down = args->beta > 0 ? (REAL *)args->down + to : NULL;
                args->kept[t * m + j] += alpha_beta_shares(some, r + t * args->pitch, p.high, (REAL *)args->up + to);
                args->kept[(targets + t) * m + j] += alpha_beta_shares(some, r + t * args->pitch, p.low, down);
            }
        }
    return FVLRP_OK;
}
