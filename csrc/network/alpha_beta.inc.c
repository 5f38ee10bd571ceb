/* alpha_beta.inc.c - shares of the alpha-beta or the gamma rule for many outputs, in one pass over z, z+ and the
 * relevance; and which outputs have relevance at all. */
#ifndef FVLRP_ALPHA_BETA
#define FVLRP_ALPHA_BETA

#include "fvlrp.h"
#include "simd.h"

enum { PIECE = 64 }; /* outputs at a time */

/* Factors for a piece of one row of outputs. They do not depend on the target. */
typedef struct {
    _Alignas(64) REAL high[PIECE];      /* factors of relevance for terms >= 0 */
    _Alignas(64) REAL low[PIECE];       /* and for terms <= 0 */
    _Alignas(64) REAL vanishing[PIECE]; /* fraction of relevance lost to a denominator that vanishes */
    _Alignas(64) REAL doubtful[PIECE];  /* not 0 where a denominator may be rounding error alone */
} alpha_beta_piece;

/* Parameters of a call. */
typedef struct {
    VREAL alpha, beta, weak, gamma;
    int signs, by_gamma, halves; /* signs: z- counts */
} alpha_beta_numbers;

/* One over v; 1 where v vanishes. */
INLINE VREAL alpha_beta_inverse(VREAL v, VMASK zero) { return 1 / pick(zero, fill(1), v); }

/* The factors of LANES outputs from i on, of which z+ and -z- are given. */
INLINE void alpha_beta_rule(const alpha_beta_numbers *a, VREAL up, VREAL down, ptrdiff_t i, alpha_beta_piece *p) {
    const VMASK no_up = vanishes(up), no_down = vanishes(down);
    const VMASK doubtful = ~(up >= a->weak * down) | (a->signs ? ~(down >= a->weak * up) : no_up & 0);
    store(p->high + i, only(~doubtful & ~no_up, a->alpha * alpha_beta_inverse(up, no_up)));
    store(p->low + i, only(~doubtful & ~no_down, a->beta * alpha_beta_inverse(down, no_down)));
    store(p->vanishing + i, only(~doubtful, only(no_up, a->alpha) - only(no_down, a->beta)));
    store(p->doubtful + i, only(doubtful, fill(1)));
}

/* The same by the gamma rule, of outputs z: z + gamma z+ where z >= 0 and z + gamma z- elsewhere are sums of terms of
 * one sign. Nothing cancels. */
INLINE void gamma_rule(const alpha_beta_numbers *a, VREAL up, VREAL z, ptrdiff_t i, alpha_beta_piece *p) {
    const VREAL none = {0};
    const VMASK above = z >= none, doubtful = ~(up == up);
    const VREAL sum = z + a->gamma * pick(above, up, z - up);
    const VMASK zero = vanishes(sum);
    const VREAL share = only(~doubtful & ~zero, alpha_beta_inverse(sum, zero)), more = share * (1 + a->gamma);
    store(p->high + i, pick(above, more, share));
    store(p->low + i, pick(above, share, more));
    store(p->vanishing + i, only(zero & ~doubtful, fill(1)));
    store(p->doubtful + i, only(doubtful, fill(1)));
}

/* Returns whether relevance of the outputs at..at + n - 1 of row j can be lost or is in doubt. */
INLINE int alpha_beta_factors(const fvlrp_alpha_beta_args *args, const alpha_beta_numbers *a, ptrdiff_t j, ptrdiff_t at,
                              ptrdiff_t n, alpha_beta_piece *p) {
    const REAL *positive = (const REAL *)args->positive + j * args->n + at;
    const REAL *z = args->z ? (const REAL *)args->z + j * args->ldz + at : NULL;
    const REAL *negative = args->negative ? (const REAL *)args->negative + j * args->n + at : NULL;
    VMASK odd = (VREAL){0} != (VREAL){0};
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const ptrdiff_t some = imin(n - i, LANES);
        const VREAL up = load_some(positive + i, some);
        if (a->by_gamma) gamma_rule(a, up, load_some(z + i, some), i, p);
        else
            alpha_beta_rule(a, up,
                            negative ? -load_some(negative + i, some)
                            : z      ? up - load_some(z + i, some)
                                     : up,
                            i, p);
        odd |= (load(p->vanishing + i) != (VREAL){0}) | (load(p->doubtful + i) != (VREAL){0});
    }
    return any_lane(odd);
}

/* Record which outputs with relevance are in doubt, and what the others lose. `at` is the position of the piece in
 * (m, n). */
static void alpha_beta_exceptions(const fvlrp_alpha_beta_args *args, ptrdiff_t at, ptrdiff_t n, const REAL *r,
                                  const alpha_beta_piece *p) {
    for (ptrdiff_t t = 0; t < args->targets; t++) {
        VREAL lost = {0};
        for (ptrdiff_t i = 0; i < n; i += LANES) {
            const ptrdiff_t some = imin(n - i, LANES);
            lost += load(p->vanishing + i) * load_some(r + t * args->pitch + i, some);
        }
        args->lost[t] += sum_lanes_wide(lost);
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        if (p->doubtful[i] == 0) continue;
        int any = 0;
        for (ptrdiff_t t = 0; t < args->targets; t++) any |= r[t * args->pitch + i] != 0;
        if (any && (*args->count)++ < args->capacity) args->doubtful[*args->count - 1] = at + i;
    }
}

/* Replace the factors for either sign by those of x and |x|. */
INLINE void alpha_beta_halves(ptrdiff_t n, alpha_beta_piece *p) {
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const VREAL high = load(p->high + i), low = load(p->low + i);
        store(p->high + i, (high + low) * (REAL)0.5);
        store(p->low + i, (high - low) * (REAL)0.5);
    }
}

/* to[i] = r[i] factor[i], where `to` is not NULL; returns their sum. */
INLINE double alpha_beta_shares(ptrdiff_t n, const REAL *r, const REAL *factor, REAL *to) {
    VREAL sum = {0};
    for (ptrdiff_t i = 0; i < n; i += LANES) {
        const ptrdiff_t some = imin(n - i, LANES);
        const VREAL share = load_some(r + i, some) * load(factor + i);
        if (to) store_some(to + i, share, some);
        sum += share;
    }
    return sum_lanes_wide(sum);
}

static int alpha_beta(const fvlrp_alpha_beta_args *args) {
    const ptrdiff_t targets = args->targets, m = args->m, n = args->n;
    const alpha_beta_numbers a = {.alpha = fill((REAL)args->alpha),
                                  .beta = fill((REAL)args->beta),
                                  .weak = fill((REAL)args->weak),
                                  .gamma = fill((REAL)args->gamma),
                                  .signs = args->beta > 0,
                                  .by_gamma = args->gamma >= 0,
                                  .halves = args->halves};
    alpha_beta_piece p;
    *args->count = 0;
    memset(args->kept, 0, (size_t)(2 * targets * m) * sizeof(double));
    memset(args->lost, 0, (size_t)targets * sizeof(double));
    for (ptrdiff_t j = 0; j < m; j++)
        for (ptrdiff_t at = 0; at < n; at += PIECE) {
            const ptrdiff_t some = imin(n - at, PIECE);
            const REAL *r = (const REAL *)args->r + j * args->ldr + at;
            if (alpha_beta_factors(args, &a, j, at, some, &p)) alpha_beta_exceptions(args, j * n + at, some, r, &p);
            if (a.halves) alpha_beta_halves(some, &p);
            for (ptrdiff_t t = 0; t < targets; t++) {
                const ptrdiff_t to = (t * m + j) * n + at;
                args->kept[t * m + j] += alpha_beta_shares(some, r + t * args->pitch, p.high, (REAL *)args->up + to);
                if (args->down)
                    args->kept[(targets + t) * m + j] +=
                        alpha_beta_shares(some, r + t * args->pitch, p.low, (REAL *)args->down + to);
            }
        }
    return FVLRP_OK;
}

/* ---- which outputs take part ---- */

/* Whether one of n values is not 0; NaN is not. */
static int any_value(const REAL *values, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        if (any_lane(load(values + i) != (VREAL){0})) return 1;
    return i < n && any_lane(load_some(values + i, n - i) != (VREAL){0});
}

static int alive(const fvlrp_alive_args *args) {
    for (ptrdiff_t j = 0; j < args->m; j++) {
        args->alive[j] = 0;
        for (ptrdiff_t t = 0; t < args->targets && !args->alive[j]; t++)
            args->alive[j] = (uint8_t)any_value((const REAL *)args->r + t * args->pitch + j * args->n, args->n);
    }
    return FVLRP_OK;
}

#endif
