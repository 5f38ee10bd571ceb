/* gemm.inc.c - the matrix product that all others use: rows of A times a packed panel of B, in registers.
 *
 * A panel is `depth` rows of 1 .. PANEL vectors of columns of B, one after the other, so that it is read in order and
 * stays in the L1 cache while all rows of A stream past. Rows of A are read in place, `row` elements apart, or are
 * packed: MR values, one per row, for each column. Rows of A and C are too short for the processor to notice that the
 * next ones will be needed, so that each block prefetches them. */
#ifndef FVLRP_GEMM
#define FVLRP_GEMM

#include "simd.h"

/* 6 x 4 vectors of C stay in 32 registers, 6 x 2 in 16. */
#if VBYTES == 64 || defined(__aarch64__)
#define PANEL 4
#else
#define PANEL 2
#endif
enum { MR = 6, PANEL_COLUMNS = PANEL * LANES, LINE = 64 / sizeof(REAL) };

/* C = A B + bias, or C += A B + bias; then clipped to the bounds. C has m rows and `count` columns, up to LANES - 1
 * fewer than the panel of B, or one more with `last`: each value MR times in a row if A is packed. */
typedef struct {
    REAL *c;
    ptrdiff_t ldc, count;
    const REAL *bias;   /* one per row; may be NULL */
    const REAL *bounds; /* lower and upper; may be NULL */
    const REAL *last;   /* one more column of B, for the column of C after the others; may be NULL */
    int add;
} gemm_result;

/* Rows i .. i + mr - 1 of C, `a` being those of A, for a panel of nv vectors. */
INLINE void gemm_micro(const int mr, const int nv, const int packed, const REAL *a, ptrdiff_t row, ptrdiff_t depth,
                       const REAL *b, const gemm_result *to, ptrdiff_t i) {
    REAL *c = to->c + i * to->ldc;
    const ptrdiff_t last = to->count - (nv - 1) * LANES; /* columns of the last vector */
    VREAL acc[MR][PANEL];
    UNROLL for (int r = 0; r < mr; r++) UNROLL for (int j = 0; j < nv; j++) {
        acc[r][j] = to->bias ? fill(to->bias[i + r]) : (VREAL){0};
        if (to->add) acc[r][j] += load_some(c + r * to->ldc + j * LANES, j < nv - 1 ? LANES : last);
    }
    if (mr == MR) /* to write */
        UNROLL for (int r = 0; r < mr; r++) UNROLL for (int j = 0; j < nv; j++)
            __builtin_prefetch(c + (MR + r) * to->ldc + j * LANES, 1);
    for (ptrdiff_t k = 0; k < depth; k++) {
        VREAL line[PANEL];
        UNROLL for (int j = 0; j < nv; j++) line[j] = load(b + (k * nv + j) * LANES);
        if (!packed && mr == MR && k % LINE == 0)
            UNROLL for (int r = 0; r < mr; r++) __builtin_prefetch(a + (MR + r) * row + k);
        UNROLL for (int r = 0; r < mr; r++) {
            const VREAL value = fill(packed ? a[k * MR + r] : a[r * row + k]);
            UNROLL for (int j = 0; j < nv; j++) acc[r][j] += value * line[j];
        }
    }
    if (to->bounds)
        UNROLL for (int r = 0; r < mr; r++) UNROLL for (int j = 0; j < nv; j++)
            acc[r][j] = bounded(acc[r][j], to->bounds);
    UNROLL for (int r = 0; r < mr; r++) UNROLL for (int j = 0; j < nv; j++)
        store_some(c + r * to->ldc + j * LANES, acc[r][j], j < nv - 1 ? LANES : last);
}

/* Rows of the next block of `left`: 6, and 4, 2 or 1 at the end. */
INLINE int gemm_rows(ptrdiff_t left) { return left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

#define BLOCK(NV, PACKED)                                                                                              \
    static void gemm_block_##NV##_##PACKED(int mr, const REAL *a, ptrdiff_t row, ptrdiff_t depth, const REAL *b,       \
                                           const gemm_result *to, ptrdiff_t i) {                                       \
        switch (mr) {                                                                                                  \
        case 6: gemm_micro(6, NV, PACKED, a, row, depth, b, to, i); break;                                             \
        case 4: gemm_micro(4, NV, PACKED, a, row, depth, b, to, i); break;                                             \
        case 2: gemm_micro(2, NV, PACKED, a, row, depth, b, to, i); break;                                             \
        default: gemm_micro(1, NV, PACKED, a, row, depth, b, to, i);                                                   \
        }                                                                                                              \
    }
BLOCK(1, 0)
BLOCK(1, 1)
BLOCK(2, 0)
BLOCK(2, 1)
#if PANEL == 4
BLOCK(3, 0)
BLOCK(3, 1)
BLOCK(4, 0)
BLOCK(4, 1)
#endif
#undef BLOCK

INLINE void gemm_block(int nv, int packed, int mr, const REAL *a, ptrdiff_t row, ptrdiff_t depth, const REAL *b,
                       const gemm_result *to, ptrdiff_t i) {
#define CALL(NV) (packed ? gemm_block_##NV##_1 : gemm_block_##NV##_0)(mr, a, row, depth, b, to, i)
    switch (nv) {
#if PANEL == 4
    case 4: CALL(4); break;
    case 3: CALL(3); break;
#endif
    case 2: CALL(2); break;
    default: CALL(1); break;
    }
#undef CALL
}

/* A: m rows of `depth` values. */
typedef struct {
    const REAL *a;
    ptrdiff_t row, m, depth;
    int packed;
} gemm_left;

/* Dot products of `rows` rows with b (depth). */
INLINE void gemm_dots(const int rows, const REAL *a, ptrdiff_t row, ptrdiff_t depth, const REAL *b, REAL *sums) {
    VREAL acc[MR] = {{0}};
    ptrdiff_t k = 0;
    for (; k + LANES <= depth; k += LANES) {
        const VREAL line = load(b + k);
        UNROLL for (int r = 0; r < rows; r++) acc[r] += load(a + r * row + k) * line;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        if (k < depth) acc[r] += load_some(a + r * row + k, depth - k) * load_some(b + k, depth - k);
        sums[r] = sum_lanes(acc[r]);
    }
}

/* The same of packed rows: lane l of the sums belongs to row l % MR, as `PERIOD` vectors are whole columns. */
INLINE void gemm_dots_packed(const REAL *a, ptrdiff_t depth, const REAL *b, REAL *sums) {
    enum { PERIOD = 3, PERIOD_LANES = PERIOD * LANES };
    VREAL acc[PERIOD] = {{0}};
    REAL lanes[PERIOD_LANES];
    ptrdiff_t i = 0;
    for (; i + PERIOD_LANES <= MR * depth; i += PERIOD_LANES)
        UNROLL for (int v = 0; v < PERIOD; v++) acc[v] += load(a + i + v * LANES) * load(b + i + v * LANES);
    UNROLL for (int v = 0; v < PERIOD; v++) store(lanes + v * LANES, acc[v]);
    for (int r = 0; r < MR; r++) sums[r] = 0;
    for (int l = 0; l < PERIOD_LANES; l++) sums[l % MR] += lanes[l];
    for (; i < MR * depth; i++) sums[i % MR] += a[i] * b[i];
}

/* Rows i .. of C, MR or as many as there are, in the column of to->last. */
static void gemm_last(const gemm_left *left, const REAL *a, const gemm_result *to, ptrdiff_t i) {
    REAL sums[MR], *c = to->c + i * to->ldc + to->count;
    const ptrdiff_t rows = imin(left->m - i, MR);
    if (left->packed) gemm_dots_packed(a, left->depth, to->last, sums);
    else if (rows == MR) gemm_dots(MR, a, left->row, left->depth, to->last, sums);
    else
        for (int r = 0; r < rows; r++) gemm_dots(1, a + r * left->row, left->row, left->depth, to->last, sums + r);
    for (int r = 0; r < rows; r++, c += to->ldc) {
        const REAL start = to->bias ? to->bias[i + r] : 0;
        *c = bounded(fill((to->add ? start + *c : start) + sums[r]), to->bounds)[0];
    }
}

/* All rows of A times one panel of nv vectors. */
static void gemm_panel(const gemm_left *left, const REAL *panel, int nv, const gemm_result *to) {
    int mr;
    for (ptrdiff_t i = 0; i < left->m; i += mr) {
        mr = gemm_rows(left->m - i);
        const REAL *rows = left->packed ? left->a + i / MR * MR * left->depth + i % MR : left->a + i * left->row;
        gemm_block(nv, left->packed, mr, rows, left->row, left->depth, panel, to, i);
        if (to->last && i % MR == 0) gemm_last(left, rows, to, i);
    }
}

/* Vectors of the panel that begins at vector `at` of `all`. Panels are nearly equal in width: a thin one wastes
 * loads. */
INLINE int panel_vectors(ptrdiff_t at, ptrdiff_t all) {
    const ptrdiff_t panels = (all - at + PANEL - 1) / PANEL;
    return (int)((all - at + panels - 1) / panels);
}

/* Pack b (depth, columns), columns a multiple of LANES, into panels. */
static void gemm_pack(const double *b, ptrdiff_t depth, ptrdiff_t columns, REAL *packed) {
    for (ptrdiff_t at = 0, all = columns / LANES, nv; at < all; at += nv) {
        nv = panel_vectors(at, all);
        for (ptrdiff_t k = 0; k < depth; k++)
            for (ptrdiff_t j = 0; j < nv * LANES; j++) *packed++ = (REAL)b[k * columns + at * LANES + j];
    }
}

/* c (m, columns) = a (m, depth) times packed b. */
static void gemm(const REAL *a, ptrdiff_t lda, ptrdiff_t m, ptrdiff_t depth, const REAL *b, ptrdiff_t columns, REAL *c,
                 ptrdiff_t ldc) {
    const gemm_left left = {a, lda, m, depth, 0};
    for (ptrdiff_t at = 0, all = columns / LANES, nv; at < all; at += nv) {
        nv = panel_vectors(at, all);
        gemm_panel(&left, b + at * LANES * depth, (int)nv,
                   &(gemm_result){.c = c + at * LANES, .ldc = ldc, .count = nv * LANES});
    }
}

#endif
