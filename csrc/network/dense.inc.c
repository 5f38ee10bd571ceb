/* dense.inc.c - relevance of dense layers: denominators, and relevance of the inputs.
 *
 * A dense layer is as fast as its weights can be read: several rows are streamed side by side, and each weight is
 * used for all its products at once. */
#include "arena.h"
#include "simd.h"

enum { ABREAST_ROWS = 4 }; /* rows of weights that are read side by side */

/* Sums of ABREAST_ROWS rows: of w x over terms >= 0 and over terms <= 0. `below` may be NULL. */
INLINE void dense_terms(const REAL *const *rows, ptrdiff_t n, const REAL *above, const REAL *below, REAL *up,
                        REAL *down) {
    VREAL ups[ABREAST_ROWS] = {{0}}, downs[ABREAST_ROWS] = {{0}};
    const ptrdiff_t whole = n / LANES * LANES;
    for (ptrdiff_t k = 0; k < whole; k += LANES) {
        const VREAL x = load(above + k), y = below ? load(below + k) : x;
        UNROLL for (int i = 0; i < ABREAST_ROWS; i++) {
            const VREAL w = load(rows[i] + k), high = positive_part(w), low = negative_part(w);
            ups[i] += below ? high * x + low * y : high * x;
            downs[i] += below ? low * x + high * y : low * x;
        }
    }
    for (int i = 0; i < ABREAST_ROWS; i++) {
        up[i] = sum_lanes(ups[i]);
        down[i] = sum_lanes(downs[i]);
        for (ptrdiff_t k = whole; k < n; k++) {
            const REAL w = rows[i][k], high = w < 0 ? 0 : w, low = w > 0 ? 0 : w;
            up[i] += high * above[k] + (below ? low * below[k] : 0);
            down[i] += low * above[k] + (below ? high * below[k] : 0);
        }
    }
}

static int dense_sums(const fvlrp_dense_sums_args *args) {
    const fvlrp_outputs *o = &args->outputs;
    for (ptrdiff_t j = 0; j < o->count; j += ABREAST_ROWS) {
        const REAL *from[ABREAST_ROWS];
        REAL ups[ABREAST_ROWS], downs[ABREAST_ROWS];
        const ptrdiff_t some = imin(o->count - j, ABREAST_ROWS);
        for (ptrdiff_t i = 0; i < ABREAST_ROWS; i++)
            from[i] = (const REAL *)o->weight + o->rows[j + (i < some ? i : 0)] * o->n;
        if (args->below) dense_terms(from, o->n, args->above, args->below, ups, downs);
        else dense_terms(from, o->n, args->above, NULL, ups, downs);
        memcpy((REAL *)args->up + j, ups, (size_t)some * sizeof(REAL));
        memcpy((REAL *)args->down + j, downs, (size_t)some * sizeof(REAL));
    }
    return FVLRP_OK;
}

/* to += sum over ABREAST_ROWS rows of W+ high + W- low. */
INLINE void dense_add(const REAL *const *rows, ptrdiff_t n, const REAL *high, const REAL *low, REAL *to) {
    ptrdiff_t k = 0;
    for (; k + LANES <= n; k += LANES) {
        VREAL sum = load(to + k);
        UNROLL for (int i = 0; i < ABREAST_ROWS; i++) {
            const VREAL w = load(rows[i] + k);
            sum += positive_part(w) * high[i] + negative_part(w) * low[i];
        }
        store(to + k, sum);
    }
    for (; k < n; k++)
        for (int i = 0; i < ABREAST_ROWS; i++) to[k] += rows[i][k] * (rows[i][k] < 0 ? low[i] : high[i]);
}

static int dense_back(const fvlrp_dense_back_args *args) {
    const fvlrp_outputs *o = &args->outputs;
    const ptrdiff_t n = o->n, strip = 4096 / (ptrdiff_t)sizeof(REAL); /* the part of the rows that targets share */
    const REAL *high = args->positive, *low = args->negative;
    REAL *up = args->up, *down = args->down;
    for (ptrdiff_t j = 0; j < o->count; j += ABREAST_ROWS)
        for (ptrdiff_t k = 0; k < n; k += strip)
            for (ptrdiff_t t = 0; t < args->targets; t++) {
                const REAL *from[ABREAST_ROWS];
                REAL highs[ABREAST_ROWS] = {0}, lows[ABREAST_ROWS] = {0};
                for (ptrdiff_t i = 0; i < ABREAST_ROWS; i++) {
                    const int inside = j + i < o->count;
                    from[i] = (const REAL *)o->weight + o->rows[inside ? j + i : j] * n + k;
                    if (inside) highs[i] = high[t * o->count + j + i], lows[i] = low[t * o->count + j + i];
                }
                const ptrdiff_t wide = imin(n - k, strip);
                dense_add(from, wide, highs, lows, up + t * n + k);
                if (down) dense_add(from, wide, lows, highs, down + t * n + k);
            }
    return FVLRP_OK;
}

/* ---- both, with the alpha-beta rule between them ---- */

/* Rows of weights that stay in the L2 cache between their denominators and the way back. */
INLINE ptrdiff_t dense_rows(ptrdiff_t n) {
    const ptrdiff_t some = (1 << 20) / (ptrdiff_t)sizeof(REAL) / imax(n, 1) / ABREAST_ROWS * ABREAST_ROWS;
    return imin(imax(some, ABREAST_ROWS), 256);
}

typedef struct {
    REAL *high, *low;          /* (targets, rows): shares */
    REAL *positive, *negative; /* (rows): sums of terms */
} dense_buffers;

static void dense_layout(dense_buffers *b, ptrdiff_t targets, ptrdiff_t rows, arena *memory) {
    b->high = carve(memory, targets * rows, sizeof(REAL));
    b->low = carve(memory, targets * rows, sizeof(REAL));
    b->positive = carve(memory, rows, sizeof(REAL));
    b->negative = carve(memory, rows, sizeof(REAL));
}

/* Shares of the outputs j .. j + some - 1 from the sums of their terms. */
static void dense_shares(const fvlrp_dense_alpha_beta_args *args, const dense_buffers *b, ptrdiff_t j, ptrdiff_t some) {
    const REAL *bias = args->bias, alpha = (REAL)args->alpha, beta = (REAL)args->beta;
    for (ptrdiff_t i = 0; i < some; i++) {
        const REAL shift = bias ? bias[j + i] : 0, over = shift < 0 ? 0 : shift, under = shift > 0 ? 0 : shift;
        const REAL positive = b->positive[i] + over, negative = b->negative[i] + under;
        const int no_positive = positive < VANISHING, no_negative = negative > -VANISHING;
        for (ptrdiff_t t = 0; t < args->targets; t++) {
            const REAL r = ((const REAL *)args->r)[t * args->outputs.count + j + i];
            const REAL high = no_positive ? 0 : alpha * r / positive;
            const REAL low = no_negative || beta == 0 ? 0 : -beta * r / negative;
            b->high[t * some + i] = high;
            b->low[t * some + i] = low;
            args->kept[t] += (double)(high * over + low * under);
            args->lost[t] += (no_positive * args->alpha - no_negative * args->beta) * (double)r;
        }
    }
}

static int dense_alpha_beta(const fvlrp_dense_alpha_beta_args *args) {
    const ptrdiff_t targets = args->targets, rows = dense_rows(args->outputs.n);
    dense_buffers b;
    arena memory = {0};
    dense_layout(&b, targets, rows, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    dense_layout(&b, targets, rows, &memory);
    memset(args->kept, 0, (size_t)targets * sizeof(double));
    memset(args->lost, 0, (size_t)targets * sizeof(double));
    fvlrp_outputs outputs = args->outputs;
    for (ptrdiff_t j = 0; j < args->outputs.count; j += rows) {
        outputs.rows = args->outputs.rows + j;
        outputs.count = imin(args->outputs.count - j, rows);
        dense_sums(&(fvlrp_dense_sums_args){outputs, args->above, args->below, b.positive, b.negative});
        dense_shares(args, &b, j, outputs.count);
        dense_back(&(fvlrp_dense_back_args){outputs, targets, b.high, b.low, args->up, args->down});
    }
    arena_close(&memory);
    return FVLRP_OK;
}
