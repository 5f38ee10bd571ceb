/* tiles.h - products of matrices of floats and of bytes on the tiles of AMX.
 *
 * A float is the sum of three bf16 of 8 significant bits each, x = x1 + x2 + x3, without any error. Of the nine
 * products of the pieces of two floats three are about 2^-24 of the whole; the other six, summed in float, are a
 * product in float and still faster than fused multiply-adds. Whole numbers up to 256 have one piece, so that of the six
 * products three are left. Sums run over 16 terms and then over those sums: their error is less than a long sum's.
 *
 * Where it differs from float: what is below 2^-126 in a piece, a product or a sum is 0, which loses digits of values
 * below 2^-102; and infinities, like values past 3.39e38, give not-a-number. A row's result has the same bits
 * whatever rows surround it: products with pieces that are 0 in a whole block are left out, which adds 0 less often.
 *
 * Products of bytes, four of which are added to a whole number of 32 bits, are exact as they are: see the end.
 *
 * The state of the tiles belongs to the thread: tiles_gemm leaves none behind, and callers of tiles_for_bytes release it. */
#ifndef FVLRP_TILES_H
#define FVLRP_TILES_H

/* Older versions of Clang leave out the second underscore. */
#if (defined(__AMX_BF16__) || defined(__AMXBF16__)) && (defined(__AMX_INT8__) || defined(__AMXINT8__))
#define HAVE_TILES 1

enum {
    TILE_ROWS = 16,   /* rows of A or C in a tile; columns of B or C */
    TILE_DEPTH = 32,  /* columns of A in a tile */
    TILE_SIZE = 512,  /* bf16 in a tile */
    TILE_PIECES = 3,
    TILE_BLOCKS = 5   /* of TILE_DEPTH, that are split at a time: 32 rows of pieces leave room in the nearest cache */
};

/* Palette 1, whose eight tiles have 16 rows of 64 bytes at most. 0..3 hold C, 4..5 A, 6..7 B. */
typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_shapes;
static const tile_shapes full_tiles = {1, 0, {0}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};

/* What the compiler knows of tile instructions does not include the memory they read. */
#define TILES_SEE_MEMORY __asm__ volatile("" ::: "memory")

/* x rounded to 8 significant bits. A not-a-number may lose its mark here, but never in x less this. */
INLINE __m512 tile_leading(__m512 x) {
    const __m512i rounded = _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
    return _mm512_castsi512_ps(_mm512_and_si512(rounded, _mm512_set1_epi32(-0x10000)));
}

/* The upper halves of 32 floats. */
INLINE void tile_store(uint16_t *to, __m512 low, __m512 high) {
    typedef uint16_t halves __attribute__((vector_size(64)));
    const halves upper = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                          33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    const __m512i first = _mm512_castps_si512(low), second = _mm512_castps_si512(high);
    _mm512_store_si512(to, _mm512_permutex2var_epi16(first, (__m512i)upper, second));
}

/* Split up to 32 rows of a (row length lda), `depth` columns, into tiles: [16 rows][block of columns][piece]. Columns
 * up to a whole block and rows up to 16 are 0. Returns how many pieces some value needs. */
static int tiles_split(const float *a, ptrdiff_t lda, ptrdiff_t rows, ptrdiff_t depth, uint16_t *to) {
    const ptrdiff_t blocks = (depth + TILE_DEPTH - 1) / TILE_DEPTH;
    __m512i second = _mm512_setzero_si512(), third = second;
    for (ptrdiff_t i = 0; i < (rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS; i++) {
        uint16_t *line = to + i / TILE_ROWS * blocks * TILE_PIECES * TILE_SIZE + i % TILE_ROWS * TILE_DEPTH;
        for (ptrdiff_t k = 0; k < depth; k += TILE_DEPTH, line += TILE_PIECES * TILE_SIZE) {
            const ptrdiff_t left = i < rows ? depth - k : 0;
            const __mmask32 there = left < TILE_DEPTH ? (1u << left) - 1 : ~0u;
            const __m512 low = _mm512_maskz_loadu_ps((__mmask16)there, a + i * lda + k);
            const __m512 high = _mm512_maskz_loadu_ps((__mmask16)(there >> 16), a + i * lda + k + 16);
            const __m512 low1 = tile_leading(low), high1 = tile_leading(high);
            const __m512 low2 = _mm512_sub_ps(low, low1), high2 = _mm512_sub_ps(high, high1);
            const __m512 low3 = _mm512_sub_ps(low2, tile_leading(low2));
            const __m512 high3 = _mm512_sub_ps(high2, tile_leading(high2));
            tile_store(line, low1, high1);
            tile_store(line + TILE_SIZE, tile_leading(low2), tile_leading(high2));
            tile_store(line + 2 * TILE_SIZE, low3, high3);
            second = _mm512_or_si512(second, _mm512_or_si512(_mm512_castps_si512(low2), _mm512_castps_si512(high2)));
            third = _mm512_or_si512(third, _mm512_or_si512(_mm512_castps_si512(low3), _mm512_castps_si512(high3)));
        }
    }
    if (_mm512_test_epi32_mask(third, third)) return 3;
    return _mm512_test_epi32_mask(second, second) ? 2 : 1;
}

/* C += A B for the tiles at hand. */
INLINE void tiles_multiply(const int rows, const int columns) {
    _tile_dpbf16ps(0, 4, 6);
    if (columns == 2) _tile_dpbf16ps(1, 4, 7);
    if (rows == 2) _tile_dpbf16ps(2, 5, 6);
    if (rows == 2 && columns == 2) _tile_dpbf16ps(3, 5, 7);
}

INLINE void tiles_a(const int rows, const uint16_t *a, ptrdiff_t next) {
    _tile_loadd(4, a, 64);
    if (rows == 2) _tile_loadd(5, a + next, 64);
}

INLINE void tiles_b(const int columns, const uint16_t *b) {
    _tile_loadd(6, b, 64);
    if (columns == 2) _tile_loadd(7, b + TILE_SIZE, 64);
}

/* c (`rows` by `columns` tiles) = start (its rows `step` apart; NULL is 0) + A B. The small products come first. */
INLINE void tiles_block(const int rows, const int columns, int pieces, const uint16_t *a, ptrdiff_t blocks,
                        const uint16_t *b, const float *start, ptrdiff_t step, float *c, ptrdiff_t ldc) {
    const ptrdiff_t next = blocks * TILE_PIECES * TILE_SIZE, pitch = step * 4, piece = columns * TILE_SIZE;
    if (start) {
        _tile_loadd(0, start, pitch);
        if (columns == 2) _tile_loadd(1, start + TILE_ROWS, pitch);
        if (rows == 2) _tile_loadd(2, start + TILE_ROWS * step, pitch);
        if (rows == 2 && columns == 2) _tile_loadd(3, start + TILE_ROWS * step + TILE_ROWS, pitch);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (ptrdiff_t k = 0; k < blocks; k++, a += TILE_PIECES * TILE_SIZE, b += TILE_PIECES * piece) {
        tiles_a(rows, a, next);
        tiles_b(columns, b + 2 * piece);
        tiles_multiply(rows, columns); /* 1 3 */
        tiles_b(columns, b + piece);
        tiles_multiply(rows, columns); /* 1 2 */
        if (pieces > 1) {
            tiles_a(rows, a + TILE_SIZE, next);
            tiles_multiply(rows, columns); /* 2 2 */
        }
        tiles_b(columns, b);
        if (pieces > 1) tiles_multiply(rows, columns); /* 2 1 */
        if (pieces > 2) {
            tiles_a(rows, a + 2 * TILE_SIZE, next);
            tiles_multiply(rows, columns); /* 3 1 */
        }
        if (pieces > 1) tiles_a(rows, a, next);
        tiles_multiply(rows, columns); /* 1 1 */
    }
    _tile_stored(0, c, ldc * 4);
    if (columns == 2) _tile_stored(1, c + TILE_ROWS, ldc * 4);
    if (rows == 2) _tile_stored(2, c + TILE_ROWS * ldc, ldc * 4);
    if (rows == 2 && columns == 2) _tile_stored(3, c + TILE_ROWS * ldc + TILE_ROWS, ldc * 4);
}

/* Tiles in the panel of B that starts at tile `at` of `all`. */
INLINE ptrdiff_t tiles_panel(ptrdiff_t at, ptrdiff_t all) { return all - at < 2 ? 1 : 2; }

/* Blocks of rows of B in the run that starts at block `at` of `all`: C waits in memory between runs. */
INLINE ptrdiff_t tiles_run(ptrdiff_t at, ptrdiff_t all) { return all - at < TILE_BLOCKS ? all - at : TILE_BLOCKS; }

/* The pieces of a number, nearest first, `apart` elements from one another. */
static void tile_pieces(double value, uint16_t *to, ptrdiff_t apart) {
    for (int p = 0; p < TILE_PIECES; p++) {
        const float nearest = (float)value;
        uint32_t bits;
        memcpy(&bits, &nearest, sizeof bits);
        bits = (bits + 0x8000) & 0xffff0000;
        float leading;
        memcpy(&leading, &bits, sizeof leading);
        to[p * apart] = (uint16_t)(bits >> 16);
        value -= (double)leading;
    }
}

/* Pack b (depth, columns; row length ld) in the order in which it is read: [run][panel][block of rows][piece][tile of
 * the panel], in a tile [pair of rows][column][row of the pair]; padded with 0 to whole tiles. */
static void tiles_pack(const double *b, ptrdiff_t ld, ptrdiff_t depth, ptrdiff_t columns, uint16_t *to) {
    const ptrdiff_t all = (columns + TILE_ROWS - 1) / TILE_ROWS, blocks = (depth + TILE_DEPTH - 1) / TILE_DEPTH;
    for (ptrdiff_t run = 0; run < blocks; run += tiles_run(run, blocks))
        for (ptrdiff_t at = 0; at < all; at += tiles_panel(at, all))
            for (ptrdiff_t block = run; block < run + tiles_run(run, blocks); block++) {
                const ptrdiff_t panel = tiles_panel(at, all), width = panel * TILE_ROWS;
                for (ptrdiff_t r = 0; r < TILE_DEPTH; r++)
                    for (ptrdiff_t c = 0; c < width; c++) {
                        const ptrdiff_t k = block * TILE_DEPTH + r, j = at * TILE_ROWS + c;
                        tile_pieces(k < depth && j < columns ? b[k * ld + j] : 0,
                                    to + c / TILE_ROWS * TILE_SIZE + r / 2 * TILE_DEPTH + c % TILE_ROWS * 2 + r % 2,
                                    panel * TILE_SIZE);
                    }
                to += TILE_PIECES * panel * TILE_SIZE;
            }
}

/* c (m, columns) = start (columns; NULL is 0) in every row + a (m, depth) times packed b. Rows of c up to a multiple of
 * 16 and columns up to whole tiles are written; start has them, too. */
static void tiles_gemm(const float *a, ptrdiff_t lda, ptrdiff_t m, ptrdiff_t depth, const uint16_t *b,
                       ptrdiff_t columns, const float *start, float *c, ptrdiff_t ldc) {
    uint16_t split[2 * TILE_BLOCKS * TILE_PIECES * TILE_SIZE] __attribute__((aligned(64)));
    const ptrdiff_t all = (columns + TILE_ROWS - 1) / TILE_ROWS, blocks = (depth + TILE_DEPTH - 1) / TILE_DEPTH;
    _tile_loadconfig(&full_tiles);
    for (ptrdiff_t run = 0, count; run < blocks; run += count, b += count * all * TILE_PIECES * TILE_SIZE) {
        count = tiles_run(run, blocks);
        const ptrdiff_t first = run * TILE_DEPTH, left = depth - first;
        const ptrdiff_t deep = left < count * TILE_DEPTH ? left : count * TILE_DEPTH;
        for (ptrdiff_t i = 0; i < m; i += 2 * TILE_ROWS) {
            const ptrdiff_t rows = m - i < 2 * TILE_ROWS ? m - i : 2 * TILE_ROWS;
            const int pieces = tiles_split(a + i * lda + first, lda, rows, deep, split), two = rows > TILE_ROWS;
            const uint16_t *panel = b;
            TILES_SEE_MEMORY;
            for (ptrdiff_t at = 0; at < all; at += tiles_panel(at, all)) {
                float *to = c + i * ldc + at * TILE_ROWS;
                const float *from = run ? to : start ? start + at * TILE_ROWS : NULL;
                const ptrdiff_t step = run ? ldc : 0, wide = tiles_panel(at, all);
                if (two && wide == 2) tiles_block(2, 2, pieces, split, count, panel, from, step, to, ldc);
                else if (two) tiles_block(2, 1, pieces, split, count, panel, from, step, to, ldc);
                else if (wide == 2) tiles_block(1, 2, pieces, split, count, panel, from, step, to, ldc);
                else tiles_block(1, 1, pieces, split, count, panel, from, step, to, ldc);
                panel += wide * count * TILE_PIECES * TILE_SIZE;
            }
            TILES_SEE_MEMORY;
        }
    }
    _tile_release();
}

/* ---- bytes ---- */

/* Sums of four bytes of each row that tiles take at a time: all of `depth`, a multiple of four, in equal steps. */
static ptrdiff_t tiles_fours(ptrdiff_t depth) {
    ptrdiff_t fours = TILE_ROWS;
    while (depth / 4 % fours) fours--;
    return fours;
}

/* Have tiles of that shape for tiles_bytes; the caller releases them. */
static void tiles_for_bytes(ptrdiff_t fours) {
    tile_shapes shapes = full_tiles;
    for (int tile = 4; tile < 6; tile++) shapes.bytes[tile] = (uint16_t)(4 * fours);
    for (int tile = 6; tile < 8; tile++) shapes.rows[tile] = (uint8_t)fours;
    TILES_SEE_MEMORY;
    _tile_loadconfig(&shapes);
    TILES_SEE_MEMORY;
}

/* c (32 rows, `columns` tiles) = A B: rows of `depth` bytes without sign, times bytes with one, [four rows of B][column]
 * [of the four]; `ldb` bytes from four to four. */
INLINE void tiles_bytes(const int columns, ptrdiff_t fours, const uint8_t *a, ptrdiff_t lda, ptrdiff_t depth,
                        const int8_t *b, ptrdiff_t ldb, int32_t *c, ptrdiff_t ldc) {
    TILES_SEE_MEMORY;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (ptrdiff_t k = 0; k < depth; k += 4 * fours, b += fours * ldb) {
        _tile_loadd(4, a + k, lda);
        _tile_loadd(5, a + TILE_ROWS * lda + k, lda);
        _tile_loadd(6, b, ldb);
        _tile_dpbusd(0, 4, 6);
        _tile_dpbusd(2, 5, 6);
        if (columns == 1) continue;
        _tile_loadd(7, b + 64, ldb);
        _tile_dpbusd(1, 4, 7);
        _tile_dpbusd(3, 5, 7);
    }
    _tile_stored(0, c, ldc * 4);
    _tile_stored(2, c + TILE_ROWS * ldc, ldc * 4);
    if (columns == 2) {
        _tile_stored(1, c + TILE_ROWS, ldc * 4);
        _tile_stored(3, c + TILE_ROWS * ldc + TILE_ROWS, ldc * 4);
    }
    TILES_SEE_MEMORY;
}
#endif
#endif
