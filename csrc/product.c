/* product.c - dense products of any size, and the same with the windows of an image in place of the right-hand matrix;
 * included once per real type.
 *
 * A panel of B (DEPTH rows x a few vectors of columns) is packed into the nearest cache and meets all rows of A, MR at a
 * time, in registers; A streams by, a few values for each row of the panel. A is read where it lies if its rows are
 * contiguous, and is packed otherwise. Windows are packed straight into panels: their matrix never exists. */

#if VBYTES == 64 || defined(__aarch64__)
#define PANEL 4
#else
#define PANEL 2
#endif
enum { R(DEPTH) = 256 * 4 / sizeof(REAL), R(MR) = 6, R(WIDE) = PANEL * LANES };

typedef struct {
    const REAL *a, *b, *bias;
    REAL *c;
    ptrdiff_t row, channel, tap, taps; /* where A lies: a[i row + (k / taps) channel + (k % taps) tap] */
    ptrdiff_t ldb, ldc;
    const fvlrp_windows *windows; /* NULL: b is a matrix */
    int sign, add;
} R(product_job);

/* MR rows of C meet a panel. A is packed (MR values for each k), or its rows are `row` apart. */
INLINE void R(product_micro)(const int mr, const int nv, const int packed, const REAL *a, ptrdiff_t row,
                             ptrdiff_t depth, const REAL *b, const REAL *bias, const int add, REAL *c, ptrdiff_t ldc) {
    VREAL acc[6][PANEL];
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) {
        acc[i][j] = bias ? R(fill)(bias[i]) : (VREAL){0};
        if (add) acc[i][j] += R(load)(c + i * ldc + j * LANES);
    }
    for (ptrdiff_t k = 0; k < depth; k++) {
        VREAL line[PANEL];
        UNROLL for (int j = 0; j < nv; j++) line[j] = R(load)(b + (k * nv + j) * LANES);
        UNROLL for (int i = 0; i < mr; i++) {
            const VREAL value = R(fill)(packed ? a[k * R(MR) + i] : a[i * row + k]);
            UNROLL for (int j = 0; j < nv; j++) acc[i][j] += value * line[j];
        }
    }
    UNROLL for (int i = 0; i < mr; i++) UNROLL for (int j = 0; j < nv; j++) R(store)(c + i * ldc + j * LANES, acc[i][j]);
}

#define BLOCK(M, NV, PACKED) \
    case M: R(product_micro)(M, NV, PACKED, a, row, depth, b, bias, add, c, ldc); break
#define BLOCKS(NV, PACKED)                                                                                             \
    static void R(product_block_##NV##_##PACKED)(int mr, const REAL *a, ptrdiff_t row, ptrdiff_t depth, const REAL *b, \
                                                 const REAL *bias, int add, REAL *c, ptrdiff_t ldc) {                  \
        switch (mr) {                                                                                                  \
            BLOCK(6, NV, PACKED);                                                                                      \
            BLOCK(4, NV, PACKED);                                                                                      \
            BLOCK(2, NV, PACKED);                                                                                      \
            default: R(product_micro)(1, NV, PACKED, a, row, depth, b, bias, add, c, ldc);                             \
        }                                                                                                              \
    }
BLOCKS(1, 0)
BLOCKS(1, 1)
BLOCKS(2, 0)
BLOCKS(2, 1)
#if PANEL == 4
BLOCKS(3, 0)
BLOCKS(3, 1)
BLOCKS(4, 0)
BLOCKS(4, 1)
#endif
#undef BLOCKS
#undef BLOCK

INLINE void R(product_block)(int nv, int packed, int mr, const REAL *a, ptrdiff_t row, ptrdiff_t depth, const REAL *b,
                             const REAL *bias, int add, REAL *c, ptrdiff_t ldc) {
#define CALL(NV) \
    (packed ? R(product_block_##NV##_1) : R(product_block_##NV##_0))(mr, a, row, depth, b, bias, add, c, ldc)
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

/* Rows of the next block of `left`: 6, and 4, 2 or 1 at the end. */
INLINE int R(product_rows)(ptrdiff_t left) { return left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

/* Rows k of a matrix, columns at .. at + count - 1, followed by zeros up to `width`. */
static void R(pack_matrix)(const REAL *b, ptrdiff_t ldb, ptrdiff_t depth, ptrdiff_t count, ptrdiff_t width, REAL *to) {
    for (ptrdiff_t k = 0; k < depth; k++, b += ldb, to += width) {
        ptrdiff_t j = 0;
        for (; j + LANES <= count; j += LANES) R(store)(to + j, R(load)(b + j));
        for (; j < count; j++) to[j] = b[j];
        for (; j < width; j++) to[j] = 0;
    }
}

/* Taps of one output row inside a panel: `count` pixels from column `at` of the panel on, `left` of them and then all
 * but `inside` in the padding; the first inside lies at `from` in its channel. */
typedef struct {
    ptrdiff_t at, left, inside, count, from;
} R(product_run);

/* First o >= 0 with o stride + offset >= 0. */
INLINE ptrdiff_t R(first_inside)(ptrdiff_t offset, ptrdiff_t stride) {
    return offset >= 0 ? 0 : (-offset + stride - 1) / stride;
}

/* The runs of tap (ky, kx) over output pixels at .. at + count - 1: how many. */
static ptrdiff_t R(product_runs)(const fvlrp_windows *w, ptrdiff_t ky, ptrdiff_t kx, ptrdiff_t at, ptrdiff_t count,
                                 R(product_run) *runs) {
    ptrdiff_t n = 0, ox = at % w->cols, oy = at / w->cols;
    const ptrdiff_t dx = kx * w->dilation_x - w->left, begin = R(first_inside)(dx, w->stride_x);
    const ptrdiff_t end = w->width > dx ? (w->width - 1 - dx) / w->stride_x + 1 : 0;
    for (ptrdiff_t done = 0; done < count; oy++, ox = 0, n++) {
        const ptrdiff_t pixels = w->cols - ox < count - done ? w->cols - ox : count - done;
        const ptrdiff_t y = (oy + w->first) * w->stride_y + ky * w->dilation_y - w->top;
        ptrdiff_t low = begin > ox ? begin : ox, high = end < ox + pixels ? end : ox + pixels;
        if (y < 0 || y >= w->height || low >= high) low = high = ox;
        runs[n] = (R(product_run)){done, low - ox, high - low, pixels, y * w->width + low * w->stride_x + dx};
        done += pixels;
    }
    return n;
}

/* One tap of one channel. Whole vectors are copied where memory allows: what is too much is overwritten by what follows. */
INLINE void R(pack_tap)(const R(product_run) *runs, ptrdiff_t n, const REAL *channel, const REAL *end, ptrdiff_t stride,
                        REAL *to, ptrdiff_t width) {
    for (ptrdiff_t r = 0; r < n; r++) {
        const R(product_run) run = runs[r];
        ptrdiff_t j = run.at, i = 0;
        for (; i < run.left; i++) to[j + i] = 0;
        j += run.left;
        if (stride == 1 && run.inside) {
            const REAL *from = channel + run.from;
            for (i = 0; i < run.inside && end - from - i >= LANES && j + i + LANES <= width; i += LANES)
                R(store)(to + j + i, R(load)(from + i));
            for (; i < run.inside; i++) to[j + i] = from[i];
        } else
            for (i = 0; i < run.inside; i++) to[j + i] = channel[run.from + i * stride];
        for (i = run.left + run.inside; i < run.count; i++) to[run.at + i] = 0;
    }
}

static void R(pack_windows)(const fvlrp_windows *w, const REAL *image, ptrdiff_t first, ptrdiff_t depth, ptrdiff_t at,
                            ptrdiff_t count, ptrdiff_t width, REAL *to) {
    const ptrdiff_t taps = w->kernel_y * w->kernel_x, plane = w->height * w->width;
    const REAL *end = image + w->channels * plane;
    R(product_run) runs[R(WIDE)];
    for (ptrdiff_t k = 0; count < width && k < depth; k++)
        for (ptrdiff_t j = count; j < width; j++) to[k * width + j] = 0;
    for (ptrdiff_t t = 0; t < taps && t < depth; t++) {
        const ptrdiff_t tap = (first + t) % taps;
        const ptrdiff_t n = R(product_runs)(w, tap / w->kernel_x, tap % w->kernel_x, at, count, runs);
        for (ptrdiff_t k = t; k < depth; k += taps)
            R(pack_tap)(runs, n, image + (first + k) / taps * plane, end, w->stride_x, to + k * width, count);
    }
}

/* What takes the place of packed weights; what is not a number stays so. */
static void R(product_sign)(int sign, ptrdiff_t count, REAL *w) {
    if (sign == FVLRP_POSITIVE)
        for (ptrdiff_t i = 0; i < count; i++) w[i] = w[i] < 0 ? 0 : w[i];
    else if (sign == FVLRP_NEGATIVE)
        for (ptrdiff_t i = 0; i < count; i++) w[i] = w[i] > 0 ? 0 : w[i];
    else if (sign == FVLRP_SIZE)
        for (ptrdiff_t i = 0; i < count; i++) w[i] = w[i] < 0 ? -w[i] : w[i];
}

/* Columns first .. first + depth - 1 of A, block by block of rows, MR values for each column. */
static void R(pack_rows)(const R(product_job) *job, ptrdiff_t m, ptrdiff_t first, ptrdiff_t depth, REAL *to) {
    for (ptrdiff_t i = 0; i < m; i += R(MR), to += R(MR) * depth) {
        const int mr = m - i < R(MR) ? (int)(m - i) : R(MR);
        ptrdiff_t c = first / job->taps, t = first % job->taps;
        for (ptrdiff_t k = 0; k < depth; k++) {
            const REAL *from = job->a + i * job->row + c * job->channel + t * job->tap;
            if (mr == R(MR))
                UNROLL for (int r = 0; r < 6; r++) to[k * R(MR) + r] = from[r * job->row];
            else
                for (int r = 0; r < mr; r++) to[k * R(MR) + r] = from[r * job->row];
            if (++t == job->taps) t = 0, c++;
        }
        R(product_sign)(job->sign, R(MR) * depth, to);
    }
}

/* All rows of A (`depth` of its columns) meet one panel; `count` of its columns belong to C. */
static void R(product_panel)(const R(product_job) *job, int packed, const REAL *a, ptrdiff_t m, ptrdiff_t depth,
                             const REAL *panel, int nv, ptrdiff_t count, const REAL *bias, int add, REAL *c) {
    REAL tile[6 * PANEL * LANES] __attribute__((aligned(64)));
    const ptrdiff_t width = nv * LANES;
    int mr;
    for (ptrdiff_t i = 0; i < m; i += mr) {
        mr = R(product_rows)(m - i);
        const REAL *rows = packed ? a + i / R(MR) * R(MR) * depth + i % R(MR) : a + i * job->row;
        const REAL *shift = bias ? bias + i : NULL;
        REAL *to = c + i * job->ldc;
        if (count == width) {
            R(product_block)(nv, packed, mr, rows, job->row, depth, panel, shift, add, to, job->ldc);
            continue;
        }
        for (int r = 0; add && r < mr; r++)
            for (ptrdiff_t j = 0; j < width; j++) tile[r * width + j] = j < count ? to[r * job->ldc + j] : 0;
        R(product_block)(nv, packed, mr, rows, job->row, depth, panel, shift, add, tile, width);
        for (int r = 0; r < mr; r++) memcpy(to + r * job->ldc, tile + r * width, (size_t)count * sizeof(REAL));
    }
}

static int R(product)(ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t row, ptrdiff_t channel,
                      ptrdiff_t tap, ptrdiff_t taps, int sign, const void *b, ptrdiff_t ldb,
                      const fvlrp_windows *windows, const void *bias, int add, void *c, ptrdiff_t ldc) {
    const R(product_job) job = {a, b, bias, c, row, channel, tap, taps, ldb, ldc, windows, sign, add};
    const int packed = sign || (taps == 1 ? channel != 1 : tap != 1 || channel != taps);
    const ptrdiff_t most = k < R(DEPTH) ? k : R(DEPTH);
    const ptrdiff_t blocks = (m + R(MR) - 1) / R(MR) * R(MR);
    REAL *panel = scratch(most * R(WIDE), sizeof(REAL)), *rows = packed ? scratch(blocks, most * sizeof(REAL)) : NULL;
    int status = FVLRP_E_MEMORY;
    if (!panel || (packed && !rows)) goto out;
    const ptrdiff_t parts = k ? (k + R(DEPTH) - 1) / R(DEPTH) : 1, all = (n + LANES - 1) / LANES;
    for (ptrdiff_t part = 0; part < parts; part++) {
        const ptrdiff_t first = k / parts * part + (part < k % parts ? part : k % parts);
        const ptrdiff_t depth = k / parts + (part < k % parts);
        if (packed) R(pack_rows)(&job, m, first, depth, rows);
        for (ptrdiff_t at = 0; at < all;) {
            const ptrdiff_t left = (all - at + PANEL - 1) / PANEL; /* panels of even width: none is thin */
            const int nv = (int)((all - at + left - 1) / left);
            const ptrdiff_t column = at * LANES, width = nv * LANES, count = n - column < width ? n - column : width;
            if (windows) R(pack_windows)(windows, job.b, first, depth, column, count, width, panel);
            else R(pack_matrix)(job.b + first * ldb + column, ldb, depth, count, width, panel);
            R(product_panel)(&job, packed, packed ? rows : job.a + first, m, depth, panel, nv, count,
                             part ? NULL : job.bias, part || add, job.c + column);
            at += nv;
        }
    }
    status = FVLRP_OK;
out:
    free(panel);
    free(rows);
    return status;
}
#undef PANEL
