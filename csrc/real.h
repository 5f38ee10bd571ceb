/* real.h - included once for each real type: REAL_BITS 32 or 64 chooses float or double for the files that follow.
 *
 * Deliberately without an include guard. R(name) gives each function its own name per type. */
#undef REAL
#undef R
#undef VREAL
#undef VREAL_ANY
#undef LANES
#undef REAL_CODE
#if REAL_BITS == 32
#define REAL float
#define VREAL vfloat
#define VREAL_ANY vfloat_any
#define LANES FLOATS
#define REAL_CODE FVLRP_F32
#define R(name) name##_f32
#else
#define REAL double
#define VREAL vdouble
#define VREAL_ANY vdouble_any
#define LANES DOUBLES
#define REAL_CODE FVLRP_F64
#define R(name) name##_f64
#endif

INLINE VREAL R(load)(const REAL *p) { return *(const VREAL_ANY *)p; }
INLINE void R(store)(REAL *p, VREAL v) { *(VREAL_ANY *)p = v; }
INLINE VREAL R(fill)(REAL a) { return a - (VREAL){0}; }
