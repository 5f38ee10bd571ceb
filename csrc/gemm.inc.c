/* gemm.inc.c - the matrix product that all others use: rows of A times a packed panel of B, in registers.
 *
 * A panel is `depth` rows of 1 .. PANEL vectors of columns of B, one after the other, so that it is read in order and
 * stays in the L1 cache while all rows of A stream past. Rows of A are read in place, `row` elements apart, or are
 * packed: MR values, one per row, for each column. */
#ifndef FVLRP_GEMM
#define FVLRP_GEMM

#include "simd.h"

/* 6 x 4 vectors of C stay in 32 registers, 6 x 2 in 16. */
#if VBYTES == 64 || defined(__aarch64__)
#define PANEL 4
#else
#define PANEL 2
#endif
enum { MR = 6, PANEL_COLUMNS = PANEL * LANES };

/* C (mr rows, nv vectors) = A B + bias (one per row; may be NULL), or C += A B + bias. */
INLINE void gemm_micro(const int mr, const int nv, const int packed, const REAL *a, ptrdiff_t row, ptrdiff_t depth,
                       const REAL *b, const REAL *bias, const int add, REAL *c, ptrdiff_t ldc) {
    VREAL acc[MR][PANEL];
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) {
        acc[i][j] = bias ? fill(bias[i]) : (VREAL){0};
        if (add) acc[i][j] += load(c + i * ldc + j * LANES);
    }
    for (ptrdiff_t k = 0; k < depth; k++) {
        VREAL line[PANEL];
        UNROLL for (int j = 0; j < nv; j++) line[j] = load(b + (k * nv + j) * LANES);
        UNROLL for (int i = 0; i < mr; i++) {
            const VREAL value = fill(packed ? a[k * MR + i] : a[i * row + k]);
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] += value * line[j];
        }
    }
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) store(c + i * ldc + j * LANES, acc[i][j]);
}

/* Rows of the next block of `left`: 6, and 4, 2 or 1 at the end. */
INLINE int gemm_rows(ptrdiff_t left) { return left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

#define BLOCK(NV, PACKED)                                                                                              \
    static void gemm_block_##NV##_##PACKED(int mr, const REAL *a, ptrdiff_t row, ptrdiff_t depth, const REAL *b,       \
                                           const REAL *bias, int add, REAL *c, ptrdiff_t ldc) {                        \
        switch (mr) {                                                                                                  \
        case 6: gemm_micro(6, NV, PACKED, a, row, depth, b, bias, add, c, ldc); break;                                 \
        case 4: gemm_micro(4, NV, PACKED, a, row, depth, b, bias, add, c, ldc); break;                                 \
        case 2: gemm_micro(2, NV, PACKED, a, row, depth, b, bias, add, c, ldc); break;                                 \
        default: gemm_micro(1, NV, PACKED, a, row, depth, b, bias, add, c, ldc);                                       \
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
                       const REAL *bias, int add, REAL *c, ptrdiff_t ldc) {
#define CALL(NV) (packed ? gemm_block_##NV##_1 : gemm_block_##NV##_0)(mr, a, row, depth, b, bias, add, c, ldc)
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

/* All rows of A times one panel of nv vectors, whose first `count` columns belong to C. */
static void gemm_panel(const gemm_left *left, const REAL *panel, int nv, ptrdiff_t count, const REAL *bias, int add,
                       REAL *c, ptrdiff_t ldc) {
    REAL tile[MR * PANEL_COLUMNS] __attribute__((aligned(64)));
    const ptrdiff_t width = nv * LANES, m = left->m, depth = left->depth;
    int mr;
    for (ptrdiff_t i = 0; i < m; i += mr) {
        mr = gemm_rows(m - i);
        const REAL *rows = left->packed ? left->a + i / MR * MR * depth + i % MR : left->a + i * left->row;
        const REAL *shift = bias ? bias + i : NULL;
        REAL *to = c + i * ldc;
        if (count == width) {
            gemm_block(nv, left->packed, mr, rows, left->row, depth, panel, shift, add, to, ldc);
            continue;
        }
        for (int r = 0; add && r < mr; r++)
            for (ptrdiff_t j = 0; j < width; j++) tile[r * width + j] = j < count ? to[r * ldc + j] : 0;
        gemm_block(nv, left->packed, mr, rows, left->row, depth, panel, shift, add, tile, width);
        for (int r = 0; r < mr; r++) memcpy(to + r * ldc, tile + r * width, (size_t)count * sizeof(REAL));
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
        gemm_panel(&left, b + at * LANES * depth, (int)nv, nv * LANES, NULL, 0, c + at * LANES, ldc);
    }
}

#endif
