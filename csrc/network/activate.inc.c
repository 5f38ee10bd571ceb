/* activate.inc.c - elementwise functions. Float to about 1e-6 of the result, however small it is; double by libm.
 *
 * Tails are computed directly: 1 + erf(x) would lose them. Exponents are computed in double where their rounding
 * error, which becomes the relative error of the exponential, would be too large. */
#ifndef FVLRP_ACTIVATE
#define FVLRP_ACTIVATE

#include "fvlrp.h"
#include "simd.h"

#if REAL_BITS == 32

/* Wide halves of a vector of floats. */
typedef float vhalf __attribute__((vector_size(VBYTES / 2)));
typedef struct {
    vdouble half[2];
} vwide;

INLINE vwide widen(vfloat v) {
    vhalf parts[2];
    memcpy(parts, &v, sizeof v);
    return (vwide){{__builtin_convertvector(parts[0], vdouble), __builtin_convertvector(parts[1], vdouble)}};
}
INLINE vfloat narrow(vwide w) {
    const vhalf parts[2] = {__builtin_convertvector(w.half[0], vhalf), __builtin_convertvector(w.half[1], vhalf)};
    vfloat v;
    memcpy(&v, parts, sizeof v);
    return v;
}

/* exp of v <= 0: 0 below -87, NaN for NaN. */
INLINE vfloat decay(vfloat v) { return pick(v == v, only(v >= -87, exponential(v)), v); }

/* The same for an argument with more digits than a float: w = v + rest, exp(w) = exp(v) (1 + rest). */
INLINE vfloat decay_wide(vwide w) {
    const vfloat v = narrow(w);
    vwide rest = widen(v);
    UNROLL for (int i = 0; i < 2; i++) rest.half[i] = w.half[i] - rest.half[i];
    const vfloat e = decay(v);
    return e + e * only(v >= -87, narrow(rest));
}

/* 1 / (1 + exp(-x)) where e = exp(-|x|). */
INLINE vfloat logistic(vfloat x, vfloat e) { return pick(x < 0, e, fill(1)) / (1 + e); }

INLINE vfloat apply_sigmoid(vfloat x) { return logistic(x, decay(-magnitude(x))); }

/* Near 0 by a polynomial (Cephes), as 1 - exp(-2 |x|) would lose digits. */
INLINE vfloat apply_tanh(vfloat x) {
    const vfloat size = magnitude(x), square = x * x, e = decay(-2 * size);
    vfloat p = square * -5.70498872745e-3f + 2.06390887954e-2f;
    p = p * square - 5.37397155531e-2f;
    p = p * square + 1.33314422036e-1f;
    p = p * square - 3.33332819422e-1f;
    return pick(size < 0.625f, x + x * square * p, times_sign((1 - e) / (1 + e), x));
}

/* log(erfc(z) exp(z^2) / t) for t = 1 / (1 + z / 2), z >= 0: Numerical Recipes' erfcc, to 1.2e-7. */
INLINE vfloat erfc_polynomial(vfloat t) {
    static const float c[] = {0.17087277f, -0.82215223f, 1.48851587f,  -1.13520398f, 0.27886807f,
                              -0.18628806f, 0.09678418f, 0.37409196f, 1.00002368f,  -1.26551223f};
    vfloat p = fill(c[0]);
    UNROLL for (int i = 1; i < 10; i++) p = p * t + c[i];
    return p;
}

/* erfc(|x| scale) from x^2 scale^2 in double. */
INLINE vfloat erfc_of(vfloat x, double scale) {
    const vfloat t = 1 / (1 + magnitude(x) * (float)(scale / 2));
    vwide square = widen(x);
    UNROLL for (int i = 0; i < 2; i++) square.half[i] = -(square.half[i] * square.half[i]) * (scale * scale);
    return t * decay_wide(square) * exponential(erfc_polynomial(t));
}

/* Near 0 by its series, as 1 - erfc would lose digits. */
INLINE vfloat apply_erf(vfloat x) {
    const vfloat size = magnitude(x), square = x * x;
    static const float c[] = {-1.4925650e-5f, 1.2055333e-4f, -8.5483270e-4f, 5.2239776e-3f,
                              -2.6866171e-2f, 1.1283792e-1f, -3.7612639e-1f, 1.1283792f};
    vfloat p = fill(c[0]);
    UNROLL for (int i = 1; i < 8; i++) p = p * square + c[i];
    return pick(size < 0.75f, x * p, times_sign(1 - erfc_of(x, 1), x));
}

/* x Phi(x), Phi(-|x|) = erfc(|x| / sqrt(2)) / 2. */
INLINE vfloat apply_gelu(vfloat x) {
    const vfloat tail = 0.5f * erfc_of(x, 0.70710678118654752);
    return x * pick(x < 0, tail, 1 - tail);
}

/* x / 2 (1 + tanh(u)) = x / (1 + exp(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3). */
INLINE vfloat apply_gelu_tanh(vfloat x) {
    vwide u = widen(magnitude(x));
    UNROLL for (int i = 0; i < 2; i++)
        u.half[i] = u.half[i] * (-1.5957691216057308 - 0.071354816272600247 * u.half[i] * u.half[i]);
    return x * logistic(x, decay_wide(u));
}

INLINE vfloat apply_silu(vfloat x) { return x * apply_sigmoid(x); }

#else

#define BY_LIBM(name, value)                                                                                           \
    INLINE VREAL apply_##name(VREAL v) {                                                                               \
        for (int i = 0; i < LANES; i++) {                                                                              \
            const double x = v[i];                                                                                     \
            v[i] = value;                                                                                              \
        }                                                                                                              \
        return v;                                                                                                      \
    }
INLINE double logistic(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
BY_LIBM(sigmoid, logistic(x))
BY_LIBM(tanh, tanh(x))
BY_LIBM(erf, erf(x))
BY_LIBM(silu, x * logistic(x))
BY_LIBM(gelu, 0.5 * x * erfc(-x * 0.70710678118654752))
BY_LIBM(gelu_tanh, x * logistic(x * (1.5957691216057308 + 0.071354816272600247 * x * x)))
#undef BY_LIBM

#endif

/* clip(x / 6 + 1 / 2, 0, 1); NaN stays NaN. */
INLINE VREAL apply_hard_sigmoid(VREAL x) {
    const VREAL v = (x + 3) / 6, one = fill(1); /* x + 3 is exact where the result is small */
    return positive_part(pick(v > 1, one, v));
}
INLINE VREAL apply_hard_swish(VREAL x) { return x * apply_hard_sigmoid(x); }

static int activate(const fvlrp_activate_args *args) {
    const REAL *x = args->x;
    REAL *out = args->out;
#define CASE(code, name)                                                                                               \
    case FVLRP_##code:                                                                                                 \
        for (ptrdiff_t i = 0, some; i < args->n; i += some) {                                                          \
            some = imin(args->n - i, LANES);                                                                           \
            store_some(out + i, apply_##name(load_some(x + i, some)), some);                                           \
        }                                                                                                              \
        break;
    switch (args->function) {
        CASE(SIGMOID, sigmoid)
        CASE(TANH, tanh)
        CASE(ERF, erf)
        CASE(SILU, silu)
        CASE(GELU, gelu)
        CASE(GELU_TANH, gelu_tanh)
        CASE(HARD_SIGMOID, hard_sigmoid)
        CASE(HARD_SWISH, hard_swish)
    }
#undef CASE
    return FVLRP_OK;
}

#endif
