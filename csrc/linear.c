/* linear.c - relevance of linear layers: denominators and shares, in one pass over what memory holds each; included once
 * per real type.
 *
 * A dense layer is as fast as its weights are read: some rows at a time stream by side by side, and meet all that there
 * is to multiply them with. */

enum { R(ROWS_AHEAD) = 4 }; /* rows of weights that are read side by side */

/* max(w, 0) and min(w, 0); what is not a number stays so. */
INLINE VREAL R(above)(VREAL w) { return (VREAL)((R(mask))w & ~(w < (VREAL){0})); }
INLINE VREAL R(below)(VREAL w) { return (VREAL)((R(mask))w & ~(w > (VREAL){0})); }

/* Sums of ROWS_AHEAD rows from row[i] on: of w x over terms >= 0 and over terms <= 0. */
static void R(dense_terms)(const REAL *const *rows, ptrdiff_t n, const REAL *over, const REAL *under, REAL *up, REAL *down) {
    VREAL ups[R(ROWS_AHEAD)] = {{0}}, downs[R(ROWS_AHEAD)] = {{0}};
    const ptrdiff_t whole = n / LANES * LANES;
    for (ptrdiff_t k = 0; k < whole; k += LANES) {
        const VREAL x = R(load)(over + k), y = under ? R(load)(under + k) : (VREAL){0};
        UNROLL for (int i = 0; i < R(ROWS_AHEAD); i++) {
            const VREAL w = R(load)(rows[i] + k), high = R(above)(w), low = R(below)(w);
            ups[i] += high * x + low * y;
            downs[i] += low * x + high * y;
        }
    }
    for (int i = 0; i < R(ROWS_AHEAD); i++) {
        up[i] = down[i] = 0;
        for (int l = 0; l < LANES; l++) up[i] += ups[i][l], down[i] += downs[i][l];
        for (ptrdiff_t k = whole; k < n; k++) {
            const REAL w = rows[i][k], high = w < 0 ? 0 : w, low = w > 0 ? 0 : w;
            up[i] += high * over[k] + (under ? low * under[k] : 0);
            down[i] += low * over[k] + (under ? high * under[k] : 0);
        }
    }
}

static int R(dense_sums)(ptrdiff_t count, const int64_t *rows, ptrdiff_t n, const void *weight, const void *above,
                         const void *below, void *up, void *down) {
    for (ptrdiff_t j = 0; j < count; j += R(ROWS_AHEAD)) {
        const REAL *from[R(ROWS_AHEAD)];
        REAL ups[R(ROWS_AHEAD)], downs[R(ROWS_AHEAD)];
        const ptrdiff_t some = count - j < R(ROWS_AHEAD) ? count - j : R(ROWS_AHEAD);
        for (ptrdiff_t i = 0; i < R(ROWS_AHEAD); i++) from[i] = (const REAL *)weight + rows[j + (i < some ? i : 0)] * n;
        R(dense_terms)(from, n, above, below, ups, downs);
        memcpy((REAL *)up + j, ups, (size_t)some * sizeof(REAL));
        memcpy((REAL *)down + j, downs, (size_t)some * sizeof(REAL));
    }
    return FVLRP_OK;
}

/* to += sum over AHEAD rows of W+ high + W- low. */
INLINE void R(dense_add)(const REAL *const *rows, ptrdiff_t n, const REAL *high, const REAL *low, REAL *to) {
    ptrdiff_t k = 0;
    for (; k + LANES <= n; k += LANES) {
        VREAL sum = R(load)(to + k);
        UNROLL for (int i = 0; i < R(ROWS_AHEAD); i++) {
            const VREAL w = R(load)(rows[i] + k);
            sum += R(above)(w) * high[i] + R(below)(w) * low[i];
        }
        R(store)(to + k, sum);
    }
    for (; k < n; k++)
        for (int i = 0; i < R(ROWS_AHEAD); i++) to[k] += rows[i][k] * (rows[i][k] < 0 ? low[i] : high[i]);
}

static int R(dense_back)(ptrdiff_t targets, ptrdiff_t count, const int64_t *rows, ptrdiff_t n, const void *weight,
                         const void *positive, const void *negative, void *up, void *down) {
    const ptrdiff_t strip = 4096 / (ptrdiff_t)sizeof(REAL); /* what of the rows is read again for each target */
    const REAL *high = positive, *low = negative;
    REAL *above = up, *below = down;
    for (ptrdiff_t j = 0; j < count; j += R(ROWS_AHEAD))
        for (ptrdiff_t k = 0; k < n; k += strip)
            for (ptrdiff_t t = 0; t < targets; t++) {
                const REAL *from[R(ROWS_AHEAD)];
                REAL highs[R(ROWS_AHEAD)] = {0}, lows[R(ROWS_AHEAD)] = {0};
                for (ptrdiff_t i = 0; i < R(ROWS_AHEAD); i++) {
                    const int inside = j + i < count;
                    from[i] = (const REAL *)weight + rows[inside ? j + i : j] * n + k;
                    if (inside) highs[i] = high[t * count + j + i], lows[i] = low[t * count + j + i];
                }
                const ptrdiff_t wide = n - k < strip ? n - k : strip;
                R(dense_add)(from, wide, highs, lows, above + t * n + k);
                if (below) R(dense_add)(from, wide, lows, highs, below + t * n + k);
            }
    return FVLRP_OK;
}

/* Rows of weights that stay in the cache between their denominators and the way back. */
INLINE ptrdiff_t R(dense_rows)(ptrdiff_t n) {
    const ptrdiff_t some = (1 << 20) / (ptrdiff_t)sizeof(REAL) / (n ? n : 1) / R(ROWS_AHEAD) * R(ROWS_AHEAD);
    return some < R(ROWS_AHEAD) ? R(ROWS_AHEAD) : some < 256 ? some : 256;
}

static int R(dense_alpha_beta)(ptrdiff_t targets, ptrdiff_t count, const int64_t *rows, ptrdiff_t n, const void *weight,
                               const void *above, const void *below, const void *bias, const void *relevance,
                               double alpha, double beta, void *up, void *down, double *kept, double *lost) {
    const ptrdiff_t most = R(dense_rows)(n);
    REAL *shares = scratch(2 * targets * most, sizeof(REAL)), *sums = scratch(2 * most, sizeof(REAL));
    int status = FVLRP_E_MEMORY;
    if (!shares || !sums) goto out;
    memset(kept, 0, (size_t)targets * sizeof(double));
    memset(lost, 0, (size_t)targets * sizeof(double));
    for (ptrdiff_t j = 0, some; j < count; j += some) {
        some = count - j < most ? count - j : most;
        REAL *high = shares, *low = shares + targets * some;
        R(dense_sums)(some, rows + j, n, weight, above, below, sums, sums + most);
        for (ptrdiff_t i = 0; i < some; i++) {
            const REAL b = bias ? ((const REAL *)bias)[j + i] : 0, over = b < 0 ? 0 : b, under = b > 0 ? 0 : b;
            const REAL positive = sums[i] + over, negative = sums[most + i] + under;
            for (ptrdiff_t t = 0; t < targets; t++) {
                const REAL r = ((const REAL *)relevance)[t * count + j + i];
                high[t * some + i] = positive == 0 ? 0 : (REAL)alpha * r / positive;
                low[t * some + i] = negative == 0 || beta == 0 ? 0 : -(REAL)beta * r / negative;
                kept[t] += (double)(high[t * some + i] * over + low[t * some + i] * under);
                lost[t] += ((positive == 0) * alpha - (negative == 0) * beta) * (double)r;
            }
        }
        R(dense_back)(targets, some, rows + j, n, weight, high, low, up, down);
    }
    status = FVLRP_OK;
out:
    free(shares);
    free(sums);
    return status;
}

/* ---- alpha-beta ---- */

enum { R(PIECE) = 64 }; /* outputs at a time */

/* What multiplies relevance on the way back: alpha / z+ and -beta / z-. Returns whether there is an output with a
 * denominator of 0, or one that may be rounding alone. */
static int R(factors)(ptrdiff_t n, const REAL *z, const REAL *positive, REAL alpha, REAL beta, REAL weak, REAL *high,
                      REAL *low, REAL *negative) {
    int odd = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        const REAL p = positive[i], q = z ? p - z[i] : p;
        high[i] = alpha / (p != 0 ? p : 1);
        low[i] = beta / (q != 0 ? q : 1);
        negative[i] = q;
        odd |= !(q >= weak * p) | !(p >= weak * q) | (p == 0) | (q == 0);
    }
    return odd;
}

static int R(alpha_beta)(ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *relevance, ptrdiff_t pitch, ptrdiff_t ldr,
                         const void *sums, ptrdiff_t ldz, const void *sums_up, double alpha, double beta, double weak,
                         void *up, void *down, double *kept, double *lost, ptrdiff_t capacity, int64_t *doubtful,
                         ptrdiff_t *count) {
    *count = 0;
    memset(kept, 0, (size_t)(2 * targets * m) * sizeof(double));
    memset(lost, 0, (size_t)targets * sizeof(double));
    REAL high[R(PIECE)], low[R(PIECE)], negative[R(PIECE)];
    for (ptrdiff_t j = 0; j < m; j++)
        for (ptrdiff_t at = 0; at < n; at += R(PIECE)) {
            const ptrdiff_t some = n - at < R(PIECE) ? n - at : R(PIECE);
            const REAL *positive = (const REAL *)sums_up + j * n + at, *z = sums ? (const REAL *)sums + j * ldz + at : NULL;
            const REAL *r = (const REAL *)relevance + j * ldr + at;
            const int odd = R(factors)(some, z, positive, (REAL)alpha, (REAL)beta, (REAL)weak, high, low, negative);
            for (ptrdiff_t i = 0; odd && i < some; i++) {
                int any = 0;
                for (ptrdiff_t t = 0; t < targets; t++) any |= r[t * pitch + i] != 0;
                const int spoilt = (beta > 0 && !(negative[i] >= (REAL)weak * positive[i])) ||
                                   !(positive[i] >= (REAL)weak * negative[i]);
                if (any && spoilt) {
                    if (*count < capacity) doubtful[*count] = j * n + at + i;
                    ++*count;
                }
                if (spoilt || !any) {
                    high[i] = low[i] = 0;
                    continue;
                }
                if (positive[i] == 0) high[i] = 0;
                if (negative[i] == 0) low[i] = 0;
                for (ptrdiff_t t = 0; t < targets; t++)
                    lost[t] += ((positive[i] == 0) * alpha - (negative[i] == 0) * beta) * (double)r[t * pitch + i];
            }
            for (ptrdiff_t t = 0; t < targets; t++) {
                const REAL *from = r + t * pitch;
                REAL *above = (REAL *)up + (t * m + j) * n + at, *below = beta > 0 ? (REAL *)down + (t * m + j) * n + at : NULL;
                double ups = 0, downs = 0;
                VREAL sum = {0}, other = {0};
                ptrdiff_t i = 0;
                for (; i + LANES <= some; i += LANES) {
                    const VREAL share = R(load)(from + i) * R(load)(high + i), part = R(load)(from + i) * R(load)(low + i);
                    R(store)(above + i, share);
                    if (below) R(store)(below + i, part);
                    sum += share;
                    other += part;
                }
                for (; i < some; i++) {
                    above[i] = from[i] * high[i];
                    if (below) below[i] = from[i] * low[i];
                    ups += (double)above[i];
                    downs += (double)(from[i] * low[i]);
                }
                for (int l = 0; l < LANES; l++) ups += (double)sum[l], downs += (double)other[l];
                kept[t * m + j] += ups;
                kept[(targets + t) * m + j] += downs;
            }
        }
    return FVLRP_OK;
}
