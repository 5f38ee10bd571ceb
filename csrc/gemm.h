/* gemm.h - small dense products on tiles that stay in cache; included once per real type.
 *
 * B (depth x columns) is packed once per model into panels of a few vectors of columns, so that a panel's rows are read
 * in order from the nearest cache. A block of MR rows of A meets a panel in registers: 6 x 4 (or 5 x 5) vectors with 32
 * registers, 6 x 2 with 16. A and C have room for a whole last block: callers pass padded scratch. */

#if VBYTES == 64 || defined(__aarch64__)
#define PANEL 4
#else
#define PANEL 2
#endif
enum { R(TILE) = 192, R(SLACK) = 8 };

/* Vectors in the panel that starts at vector `at` of `all`. Five at a time where that leaves no thin panel. */
INLINE ptrdiff_t R(panel)(ptrdiff_t at, ptrdiff_t all) {
    ptrdiff_t width = PANEL == 4 && all % 5 == 0 && all % 4 != 0 ? 5 : PANEL;
    return all - at < width ? all - at : width;
}

/* Pack b (depth, columns; row length ld) with columns padded to whole vectors. packed: depth * padded columns. */
static void R(pack)(const double *b, ptrdiff_t ld, ptrdiff_t depth, ptrdiff_t columns, REAL *packed) {
    const ptrdiff_t all = (columns + LANES - 1) / LANES;
    for (ptrdiff_t at = 0; at < all; at += R(panel)(at, all)) {
        const ptrdiff_t first = at * LANES, width = R(panel)(at, all) * LANES;
        for (ptrdiff_t k = 0; k < depth; k++)
            for (ptrdiff_t j = 0; j < width; j++)
                *packed++ = first + j < columns ? (REAL)b[k * ld + first + j] : (REAL)0;
    }
}

INLINE void R(micro)(const int mr, const int nv, const REAL *a, ptrdiff_t lda, ptrdiff_t depth, const REAL *b,
                     const REAL *start, REAL *c, ptrdiff_t ldc) {
    VREAL acc[6][5];
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++)
        acc[i][j] = start ? R(load)(start + j * LANES) : (VREAL){0};
    for (ptrdiff_t k = 0; k < depth; k++) {
        VREAL row[5];
        UNROLL for (int j = 0; j < nv; j++) row[j] = R(load)(b + (k * nv + j) * LANES);
        UNROLL for (int i = 0; i < mr; i++) {
            const VREAL value = R(fill)(a[i * lda + k]);
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] += value * row[j];
        }
    }
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) R(store)(c + i * ldc + j * LANES, acc[i][j]);
}

#define COLUMN_OF_BLOCKS(MR, NV)                                                                                       \
    for (ptrdiff_t i = 0; i < m; i += MR) R(micro)(MR, NV, a + i * lda, lda, depth, b, start, c + i * ldc, ldc)

/* c (m, columns padded to whole vectors) = start (columns; NULL is 0) in every row + a (m, depth) times packed b. Up to
 * 5 rows past m are read and written. */
static void R(gemm)(const REAL *a, ptrdiff_t lda, ptrdiff_t m, ptrdiff_t depth, const REAL *b, ptrdiff_t columns,
                    const REAL *start, REAL *c, ptrdiff_t ldc) {
    const ptrdiff_t all = (columns + LANES - 1) / LANES;
    for (ptrdiff_t at = 0; at < all;) {
        const ptrdiff_t width = R(panel)(at, all);
        switch (width) {
#if PANEL == 4
        case 5: COLUMN_OF_BLOCKS(5, 5); break;
        case 4: COLUMN_OF_BLOCKS(6, 4); break;
        case 3: COLUMN_OF_BLOCKS(6, 3); break;
#endif
        case 2: COLUMN_OF_BLOCKS(6, 2); break;
        default: COLUMN_OF_BLOCKS(6, 1); break;
        }
        b += depth * width * LANES;
        c += width * LANES;
        start = start ? start + width * LANES : NULL;
        at += width;
    }
}
#undef COLUMN_OF_BLOCKS
#undef PANEL
