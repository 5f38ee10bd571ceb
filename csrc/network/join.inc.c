/* join.inc.c - relevance of the terms of a sum, such as the end of a residual branch, by a rule that depends on signs.
 *
 * For each output: p and q, the sums of its positive and of its negative terms; then one factor for terms >= 0 and one
 * for terms <= 0, all in registers. The terms are read twice: for the factors, and for their relevance. */
#include "fvlrp.h"
#include "simd.h"

/* 1 / v, and 0 where v vanishes. */
INLINE VREAL inverse(VREAL v) {
    const VMASK zero = vanishes(v);
    return only(~zero, 1 / pick(zero, fill(1), v));
}

/* LANES values of an array, or as many as there are. */
INLINE VREAL join_take(const void *values, ptrdiff_t at, ptrdiff_t count) {
    const REAL *from = (const REAL *)values + at;
    return count == LANES ? load(from) : load_some(from, count);
}

/* Factors of terms >= 0, of terms <= 0, and of the relevance where all terms vanish. */
typedef struct {
    VREAL up, down, even;
} join_factors;

INLINE join_factors join_factors_of(const fvlrp_join_args *args, VREAL p, VREAL q) {
    const VREAL none = {0}, gamma = fill((REAL)args->gamma), z = p + q;
    const VMASK no_p = vanishes(p), no_q = vanishes(q), mixed = ~(no_p | no_q), positive = z >= none, empty = no_p & no_q;
    VREAL up = fill((REAL)args->alpha) * inverse(p), down = fill(-(REAL)args->beta) * inverse(q);
    if (args->gamma >= 0) {
        const VREAL share = inverse(z + gamma * pick(positive, p, q)), more = share * (1 + gamma);
        up = pick(positive, more, share), down = pick(positive, share, more);
    }
    return (join_factors){pick(mixed, up, inverse(p)), pick(mixed, down, inverse(q)),
                          only(empty, fill(1 / (REAL)args->count))};
}

INLINE void join_lanes(const fvlrp_join_args *args, ptrdiff_t at, ptrdiff_t count) {
    VREAL p = {0}, q = {0};
    for (ptrdiff_t k = 0; k < args->count; k++) {
        const VREAL x = join_take(args->terms[k], at, count);
        p += positive_part(x), q += negative_part(x);
    }
    const join_factors f = join_factors_of(args, p, q);
    for (ptrdiff_t k = 0; k < args->count; k++) {
        const VREAL x = join_take(args->terms[k], at, count),
                    each = positive_part(x) * f.up + negative_part(x) * f.down;
        for (ptrdiff_t t = 0; t < args->targets; t++) {
            const VREAL r = join_take(args->r, t * args->n + at, count);
            store_some((REAL *)args->out[k] + t * args->n + at, r * (each + f.even), count);
        }
    }
}

static int join(const fvlrp_join_args *args) {
    ptrdiff_t at = 0;
    for (; at + LANES <= args->n; at += LANES) join_lanes(args, at, LANES);
    if (at < args->n) join_lanes(args, at, args->n - at);
    return FVLRP_OK;
}
