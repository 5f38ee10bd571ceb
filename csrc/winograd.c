/* winograd.c - convolutions with 3 x 3 windows that step by one pixel, by Winograd's minimal filtering F(4 x 4, 3 x 3)
 * (Lavin and Gray 2016): 36 products for 16 pixels instead of 144. Float only; included by isa.c behind product.c.
 *
 * A tile of 4 x 4 output pixels reads 6 x 6 input pixels d. With the filter g, Y = A' [(G g G') . (B' d B)] A, where the
 * sum over channels is one matrix product for each of the 36 points. The interpolation points are 0, +-sqrt(1/2),
 * +-sqrt(2) and infinity: with the usual 0, +-1, +-2 the rounding error is twice to four times as large.
 *
 * Vectors hold channels throughout. Some tiles at a time are transformed, multiplied and transformed back while they sit
 * in the second-level cache; filters are transformed where they are needed, which is cheaper than to read them
 * transformed from memory. Neither the transformed image nor the transformed filters exist as a whole. */

enum {
    TILE_STEP = 4, /* output pixels of a tile along each axis */
    SIDE = 6,      /* input pixels of it */
    POINTS = SIDE * SIDE,
    TILES = 56,   /* of a block, at most */
    OUTPUTS = 64, /* channels of a block, at most; whole panels */
    ABREAST = 7,  /* tiles of a row that are transformed together */
    STRIP = 32    /* pixels of such a run: ABREAST * TILE_STEP + 2, in whole vectors */
};
#define ROOT 1.41421356237309505f

typedef struct {
    const float *a, *image, *other, *bias, *whole;
    ptrdiff_t m, row, channel, tap, ldw, ldc;
    const fvlrp_windows *w;
    float *c;
    ptrdiff_t k, across; /* channels of both images; tiles along x */
    int sign, add, points;
    float doubt;
    ptrdiff_t ldv, v_point, u_point, m_point; /* lengths in the transformed arrays; points lie odd lines apart */
} winograd_job;

/* LANES rows of LANES values become columns. */
INLINE void transpose(const float *from, ptrdiff_t from_row, float *to, ptrdiff_t to_row) {
#if VBYTES == 64
    __m512 a[16], b[16];
    UNROLL for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_ps(from + i * from_row);
    UNROLL for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4) UNROLL for (int j = 0; j < 2; j++) {
        const __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + 2 + j]);
        a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
        a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
    UNROLL for (int j = 0; j < 4; j++) {
        const __m512 even = _mm512_shuffle_f32x4(a[j], a[4 + j], 0x88), odd = _mm512_shuffle_f32x4(a[j], a[4 + j], 0xdd);
        const __m512 even2 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0x88);
        const __m512 odd2 = _mm512_shuffle_f32x4(a[8 + j], a[12 + j], 0xdd);
        _mm512_storeu_ps(to + j * to_row, _mm512_shuffle_f32x4(even, even2, 0x88));
        _mm512_storeu_ps(to + (4 + j) * to_row, _mm512_shuffle_f32x4(odd, odd2, 0x88));
        _mm512_storeu_ps(to + (8 + j) * to_row, _mm512_shuffle_f32x4(even, even2, 0xdd));
        _mm512_storeu_ps(to + (12 + j) * to_row, _mm512_shuffle_f32x4(odd, odd2, 0xdd));
    }
#elif VBYTES == 32
    __m256 a[8], b[8];
    UNROLL for (int i = 0; i < 8; i++) a[i] = _mm256_loadu_ps(from + i * from_row);
    UNROLL for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    UNROLL for (int i = 0; i < 8; i += 4) UNROLL for (int j = 0; j < 2; j++) {
        const __m256d low = _mm256_castps_pd(b[i + j]), high = _mm256_castps_pd(b[i + 2 + j]);
        a[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(low, high));
        a[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(low, high));
    }
    UNROLL for (int j = 0; j < 4; j++) {
        _mm256_storeu_ps(to + j * to_row, _mm256_permute2f128_ps(a[j], a[4 + j], 0x20));
        _mm256_storeu_ps(to + (4 + j) * to_row, _mm256_permute2f128_ps(a[j], a[4 + j], 0x31));
    }
#else
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < LANES; j++) to[j * to_row + i] = from[i * from_row + j];
#endif
}

/* b where either is not a number. */
INLINE vfloat larger(vfloat a, vfloat b) {
    const vint yes = a > b;
    return (vfloat)(((vint)a & yes) | ((vint)b & ~yes));
}
INLINE vfloat size_of(vfloat a) { return (vfloat)((vint)a & INT32_MAX); }

/* One side of B' d B, of G g G' and of A' m A. */
INLINE void winograd_input(const vfloat *d, vfloat *v) {
    const vfloat even1 = d[4] - 2.f * d[2], odd1 = d[3] - 2.f * d[1];
    const vfloat even2 = d[4] - .5f * d[2], odd2 = d[3] - .5f * d[1];
    v[0] = d[0] + d[4] - 2.5f * d[2];
    v[1] = even1 + ROOT / 2 * odd1;
    v[2] = even1 - ROOT / 2 * odd1;
    v[3] = even2 + ROOT * odd2;
    v[4] = even2 - ROOT * odd2;
    v[5] = d[1] + d[5] - 2.5f * d[3];
}

INLINE void winograd_filter(const vfloat *g, vfloat *u) {
    const vfloat even1 = -2.f / 3 * g[0] - 1.f / 3 * g[2], odd1 = -ROOT / 3 * g[1];
    const vfloat even2 = 1.f / 6 * g[0] + 1.f / 3 * g[2], odd2 = ROOT / 6 * g[1];
    u[0] = g[0];
    u[1] = even1 + odd1;
    u[2] = even1 - odd1;
    u[3] = even2 + odd2;
    u[4] = even2 - odd2;
    u[5] = g[2];
}

INLINE void winograd_output(const vfloat *m, vfloat *y) {
    const vfloat even1 = m[1] + m[2], odd1 = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
    y[0] = m[0] + even1 + even2;
    y[1] = ROOT / 2 * odd1 + ROOT * odd2;
    y[2] = .5f * even1 + 2.f * even2;
    y[3] = ROOT / 4 * odd1 + 2 * ROOT * odd2 + m[5];
}

/* ---- input ---- */

/* Pixels (y, x .. x + STRIP - 1) of `lanes` channels from c on, channels last; zeros outside the image. */
static void winograd_line(const fvlrp_windows *w, const float *image, ptrdiff_t c, ptrdiff_t lanes, ptrdiff_t y,
                          ptrdiff_t x, float *to) {
    const ptrdiff_t plane = w->height * w->width, first = c * plane + y * w->width;
    if (y < 0 || y >= w->height || x >= w->width || x + STRIP <= 0) {
        memset(to, 0, STRIP * LANES * sizeof(float));
        return;
    }
    for (ptrdiff_t j = 0; j < STRIP; j += LANES) {
        const ptrdiff_t at = first + x + j;
        if (lanes == LANES && at >= 0 && at + (LANES - 1) * plane + LANES <= w->channels * plane) {
            transpose(image + at, plane, to + j * LANES, LANES);
            continue;
        }
        for (ptrdiff_t i = j; i < j + LANES; i++)
            for (ptrdiff_t l = 0; l < LANES; l++)
                to[i * LANES + l] = l < lanes && x + i >= 0 && x + i < w->width ? image[first + l * plane + x + i] : 0;
    }
    if (x < 0) memset(to, 0, (size_t)(-x * LANES) * sizeof(float));
    if (x + STRIP > w->width)
        memset(to + (w->width - x) * LANES, 0, (size_t)((x + STRIP - w->width) * LANES) * sizeof(float));
}

INLINE void winograd_tile(const winograd_job *job, const float *strip, float *to) {
    vfloat rows[SIDE][SIDE], largest = {0};
    for (int r = 0; r < SIDE; r++) {
        vfloat d[SIDE];
        UNROLL for (int i = 0; i < SIDE; i++) d[i] = R(load)(strip + (r * STRIP + i) * LANES);
        if (job->points > POINTS)
            UNROLL for (int i = 0; i < SIDE; i++) largest = larger(size_of(d[i]), largest);
        winograd_input(d, rows[r]);
    }
    UNROLL for (int j = 0; j < SIDE; j++) {
        vfloat column[SIDE], v[SIDE];
        UNROLL for (int r = 0; r < SIDE; r++) column[r] = rows[r][j];
        winograd_input(column, v);
        UNROLL for (int i = 0; i < SIDE; i++) R(store)(to + (i * SIDE + j) * job->v_point, v[i]);
    }
    if (job->points > POINTS) R(store)(to + POINTS * job->v_point, largest);
}

/* Tiles of a run, all in one row: how many of `left` from tile t on. */
INLINE ptrdiff_t winograd_run(const winograd_job *job, ptrdiff_t t, ptrdiff_t left, ptrdiff_t most) {
    const ptrdiff_t row = job->across - t % job->across, few = row < left ? row : left;
    return few < most ? few : most;
}

/* V: (points, tiles, ldv) of `count` tiles from t on. */
static void winograd_inputs(const winograd_job *job, ptrdiff_t t, ptrdiff_t count, float *v) {
    const fvlrp_windows *w = job->w;
    float strip[SIDE * STRIP * LANES] __attribute__((aligned(64)));
    for (ptrdiff_t done = 0, run; done < count; done += run) {
        run = winograd_run(job, t + done, count - done, ABREAST);
        const ptrdiff_t y = w->first + (t + done) / job->across * TILE_STEP - w->top;
        const ptrdiff_t x = (t + done) % job->across * TILE_STEP - w->left;
        for (ptrdiff_t k = 0; k < job->k;) {
            const ptrdiff_t c = k % w->channels, lanes = w->channels - c < LANES ? w->channels - c : LANES;
            for (ptrdiff_t r = 0; r < SIDE; r++)
                winograd_line(w, k < w->channels ? job->image : job->other, c, lanes, y + r, x, strip + r * STRIP * LANES);
            for (ptrdiff_t i = 0; i < run; i++)
                winograd_tile(job, strip + i * TILE_STEP * LANES, v + (done + i) * job->ldv + k);
            k += lanes;
        }
    }
}

/* ---- filters ---- */

/* Nine taps of LANES filters that follow one another. A block of 16 x 16 reads seven values too much. */
INLINE void winograd_turn(const float *from, int backwards, float *to, ptrdiff_t width) {
#if VBYTES == 64
    float block[LANES * LANES] __attribute__((aligned(64)));
    transpose(from, 9, block, LANES);
    UNROLL for (int t = 0; t < 9; t++) R(store)(to + (backwards ? 8 - t : t) * width, R(load)(block + t * LANES));
#else
    for (int t = 0; t < 9; t++)
        for (int l = 0; l < LANES; l++) to[(backwards ? 8 - t : t) * width + l] = from[l * 9 + t];
#endif
}

/* Taps of `depth` channels from c on and of `width` outputs from o on, outputs last: (depth, 9, width). */
static void winograd_taps(const winograd_job *job, ptrdiff_t o, ptrdiff_t width, ptrdiff_t c, ptrdiff_t depth, float *to) {
    const ptrdiff_t count = job->m - o < width ? job->m - o : width, row = job->row, tap = job->tap;
    const ptrdiff_t whole = count / LANES * LANES, lines = depth * 9;
    ptrdiff_t done = 0; /* lines whose whole vectors are there */
    if (job->channel == 9 && tap == 1)
        for (; done + LANES <= lines; done += LANES)
            for (ptrdiff_t l = 0; l < whole; l += LANES)
                transpose(job->a + (o + l) * row + c * 9 + done, row, to + done * width + l, width);
    /* What winograd_turn reads too much lies in the next filter, or in the next channel's first. */
    if (row == 9 && (tap == 1 || tap == -1) && job->channel >= 9 * job->m)
        for (; done < lines && (c + done / 9 + 1 < job->w->channels || o + whole < job->m); done += 9)
            for (ptrdiff_t l = 0; l < whole; l += LANES)
                winograd_turn(job->a + (o + l) * 9 + (c + done / 9) * job->channel - (tap < 0 ? 8 : 0), tap < 0,
                              to + done * width + l, width);
    for (ptrdiff_t j = 0; j < lines; j++) {
        const float *from = job->a + o * row + (c + j / 9) * job->channel + j % 9 * tap;
        ptrdiff_t l = j < done ? whole : 0;
        for (; l < count; l++) to[j * width + l] = from[l * row];
        for (; l < width; l++) to[j * width + l] = 0;
    }
}

INLINE void winograd_weights(const winograd_job *job, int sign, const float *taps, ptrdiff_t width, float *to) {
    vfloat g[9], columns[3][SIDE], largest = {0};
    const vfloat none = {0};
    UNROLL for (int t = 0; t < 9; t++) {
        g[t] = R(load)(taps + t * width);
        if (job->points > POINTS) largest = larger(size_of(g[t]), largest);
        if (sign == FVLRP_POSITIVE) g[t] = larger(none, g[t]);
        if (sign == FVLRP_NEGATIVE) g[t] = -larger(none, -g[t]);
        if (sign == FVLRP_SIZE) g[t] = size_of(g[t]);
    }
    UNROLL for (int j = 0; j < 3; j++) {
        const vfloat column[3] = {g[j], g[3 + j], g[6 + j]};
        winograd_filter(column, columns[j]);
    }
    UNROLL for (int i = 0; i < SIDE; i++) {
        const vfloat line[3] = {columns[0][i], columns[1][i], columns[2][i]};
        vfloat u[SIDE];
        winograd_filter(line, u);
        UNROLL for (int j = 0; j < SIDE; j++) R(store)(to + (i * SIDE + j) * job->u_point, u[j]);
    }
    if (job->points > POINTS) R(store)(to + POINTS * job->u_point, largest);
}

/* U: (points, panels, depth, WIDE) from taps; the last panel can be narrower. */
static void winograd_filters(const winograd_job *job, ptrdiff_t k, ptrdiff_t depth, const float *taps, ptrdiff_t width,
                             float *u) {
    const int sign = k < job->w->channels ? job->sign : -job->sign; /* there is another image with W+ or W- alone */
    for (ptrdiff_t o = 0; o < width; o += R(WIDE)) {
        const ptrdiff_t wide = width - o < R(WIDE) ? width - o : R(WIDE);
        for (ptrdiff_t i = 0; i < depth; i++)
            for (ptrdiff_t l = 0; l < wide; l += LANES)
                winograd_weights(job, sign, taps + i * 9 * width + o + l, width, u + o * depth + i * wide + l);
    }
}

/* ---- output ---- */

/* A result that the transforms may have spoilt is no number: below `least`, or that close to `whole`, of either sign
 * where sizes were summed. */
INLINE vfloat winograd_sure(int sign, vfloat y, vfloat whole, vfloat least) {
    vint spoilt = (size_of(y) < least) | (size_of(whole - y) < least);
    if (sign == FVLRP_SIZE) spoilt |= size_of(whole + y) < least;
    return (vfloat)((vint)y | (spoilt & 0x7fc00000));
}

INLINE vfloat load_some(const float *from, ptrdiff_t count) {
    if (count == LANES) return R(load)(from);
    float part[LANES] __attribute__((aligned(64))) = {0};
    memcpy(part, from, (size_t)count * sizeof(float));
    return R(load)(part);
}

INLINE void store_some(float *to, vfloat v, ptrdiff_t count) {
    if (count == LANES) {
        R(store)(to, v);
        return;
    }
    float part[LANES] __attribute__((aligned(64)));
    R(store)(part, v);
    memcpy(to, part, (size_t)count * sizeof(float));
}

/* A line of pixels, channels last, to where it belongs: `pixels` of them and LANES outputs from o on, or what there is
 * of them. `sizes` are channels first. */
static void winograd_write(const winograd_job *job, const float *line, const float *sizes, ptrdiff_t o, ptrdiff_t at,
                           ptrdiff_t pixels) {
    const ptrdiff_t outputs = job->m - o < LANES ? job->m - o : LANES, ldc = job->ldc, ldw = job->whole ? job->ldw : 0;
    float *to = job->c + o * ldc + at, block[LANES * LANES] __attribute__((aligned(64)));
    const int add = job->add, check = job->points > POINTS;
    if (pixels == LANES && outputs == LANES && !add && !check) {
        transpose(line, LANES, to, ldc);
        return;
    }
    transpose(line, LANES, block, LANES);
    const float *whole = job->whole ? job->whole + o * ldw + at : NULL, doubt = job->doubt;
    for (ptrdiff_t l = 0; l < outputs; l++) {
        vfloat y = R(load)(block + l * LANES);
        if (add) y += load_some(to + l * ldc, pixels);
        if (check) {
            const vfloat least = doubt * R(load)(sizes + l * LANES);
            y = winograd_sure(job->sign, y, whole ? load_some(whole + l * ldw, pixels) : y + y, least);
        }
        store_some(to + l * ldc, y, pixels);
    }
}

/* `count` tiles of one row, from t on, of LANES outputs from o on; m is (points, tiles, width). */
INLINE void winograd_back(const winograd_job *job, ptrdiff_t t, ptrdiff_t count, ptrdiff_t o, const float *m,
                          ptrdiff_t width) {
    float lines[TILE_STEP][LANES * LANES] __attribute__((aligned(64))), sizes[LANES * LANES] __attribute__((aligned(64)));
    float turned[LANES * LANES] __attribute__((aligned(64)));
    const vfloat shift = job->bias ? load_some(job->bias + o, job->m - o < LANES ? job->m - o : LANES) : (vfloat){0};
    for (ptrdiff_t i = 0; i < count; i++) {
        vfloat rows[SIDE][TILE_STEP];
        for (int r = 0; r < SIDE; r++) {
            vfloat line[SIDE];
            UNROLL for (int j = 0; j < SIDE; j++) {
                const float *from = m + (r * SIDE + j) * job->m_point + i * width;
                line[j] = R(load)(from);
                __builtin_prefetch(from + width);
            }
            winograd_output(line, rows[r]);
        }
        UNROLL for (int j = 0; j < TILE_STEP; j++) {
            vfloat column[SIDE], y[TILE_STEP];
            UNROLL for (int r = 0; r < SIDE; r++) column[r] = rows[r][j];
            winograd_output(column, y);
            UNROLL for (int r = 0; r < TILE_STEP; r++) R(store)(lines[r] + (i * TILE_STEP + j) * LANES, y[r] + shift);
        }
        if (job->points > POINTS)
            for (int j = 0; j < TILE_STEP; j++)
                R(store)(sizes + (i * TILE_STEP + j) * LANES, R(load)(m + POINTS * job->m_point + i * width));
    }
    if (job->points > POINTS) transpose(sizes, LANES, turned, LANES);
    const ptrdiff_t y = t / job->across * TILE_STEP, x = t % job->across * TILE_STEP, left = job->w->cols - x;
    for (ptrdiff_t r = 0; r < TILE_STEP && y + r < job->w->rows; r++)
        winograd_write(job, lines[r], turned, o, (y + r) * job->w->cols + x, left < count * TILE_STEP ? left : count * TILE_STEP);
}

static void winograd_outputs(const winograd_job *job, ptrdiff_t t, ptrdiff_t count, ptrdiff_t o, const float *m,
                             ptrdiff_t width) {
    for (ptrdiff_t done = 0, run; done < count; done += run) {
        run = winograd_run(job, t + done, count - done, LANES / TILE_STEP);
        for (ptrdiff_t l = 0; l < width && o + l < job->m; l += LANES)
            winograd_back(job, t + done, run, o + l, m + done * width + l, width);
    }
}

/* ---- the whole ---- */

/* M (points, tiles, width) (+)= V U for one block of outputs and channels. */
static void winograd_multiply(const winograd_job *job, ptrdiff_t tiles, ptrdiff_t k, ptrdiff_t depth, const float *v,
                              const float *u, ptrdiff_t width, float *m) {
    const R(product_job) rows = {.row = job->ldv, .ldc = width};
    for (int p = 0; p < job->points; p++)
        for (ptrdiff_t o = 0; o < width; o += R(WIDE)) {
            const ptrdiff_t wide = width - o < R(WIDE) ? width - o : R(WIDE);
            R(product_panel)(&rows, 0, v + p * job->v_point + k, tiles, depth, u + p * job->u_point + o * depth,
                             (int)(wide / LANES), wide, NULL, k > 0, m + p * job->m_point + o);
        }
}

/* An odd number of cache lines: points that lie a power of two apart would share the sets of the caches. */
static ptrdiff_t winograd_apart(ptrdiff_t length) { return (length + 15) / 16 * 16 + ((length + 15) / 16 % 2 ? 0 : 16); }

static int winograd(ptrdiff_t m, const float *a, ptrdiff_t row, ptrdiff_t channel, ptrdiff_t tap, int sign,
                    const fvlrp_windows *w, const float *image, const float *other, const float *bias, int add,
                    double doubt, const float *whole, ptrdiff_t ldw, float *c, ptrdiff_t ldc) {
    const ptrdiff_t across = (w->cols + TILE_STEP - 1) / TILE_STEP, all = across * ((w->rows + TILE_STEP - 1) / TILE_STEP);
    const ptrdiff_t k = other ? 2 * w->channels : w->channels, most = (m + LANES - 1) / LANES * LANES;
    const ptrdiff_t width = most < OUTPUTS ? most : OUTPUTS, columns = (m + width - 1) / width;
    /* Parts of the channels, alike for both images; taps are kept for the next blocks of tiles. */
    const ptrdiff_t longest = OUTPUTS * OUTPUTS / width, each = (w->channels + longest - 1) / longest;
    const ptrdiff_t depth = (w->channels + each - 1) / each, parts = k / w->channels * each;
    /* Filters that are all transformed at once stay in the cache, and take room from the tiles. */
    const ptrdiff_t room = columns * parts > 1 ? TILES : TILES / 2;
    const ptrdiff_t blocks = (all + room - 1) / room, tiles = (all + blocks - 1) / blocks, keep = blocks > 1;
    winograd_job job = {a, image, other, bias, whole, m, row, channel, tap, ldw, ldc, w, c, k, across, sign, add,
                        doubt > 0 ? POINTS + 1 : POINTS, (float)doubt, k + LANES, 0, 0, 0};
    job.v_point = winograd_apart(tiles * job.ldv);
    job.u_point = winograd_apart(depth * width);
    job.m_point = winograd_apart(tiles * width);
    float *v = scratch(job.v_point, job.points * (ptrdiff_t)sizeof(float));
    float *u = scratch(job.u_point, job.points * (ptrdiff_t)sizeof(float));
    float *sums = scratch(job.m_point, job.points * (ptrdiff_t)sizeof(float));
    float *taps = scratch(keep ? columns * k : depth, 9 * width * (ptrdiff_t)sizeof(float));
    int status = FVLRP_E_MEMORY;
    if (!v || !u || !sums || !taps) goto out;
    for (ptrdiff_t t = 0; t < all; t += tiles) {
        const ptrdiff_t count = all - t < tiles ? all - t : tiles;
        winograd_inputs(&job, t, count, v);
        for (ptrdiff_t o = 0; o < m; o += width) {
            const ptrdiff_t outputs = most - o < width ? most - o : width;
            for (ptrdiff_t part = 0, first = 0, deep; part < parts; part++, first += deep) {
                const ptrdiff_t left = w->channels - first % w->channels;
                deep = left < depth ? left : depth;
                float *mine = keep ? taps + (o * k + first * outputs) * 9 : taps;
                if (!keep || t == 0) winograd_taps(&job, o, outputs, first % w->channels, deep, mine);
                if (t == 0 || columns * parts > 1) winograd_filters(&job, first, deep, mine, outputs, u);
                winograd_multiply(&job, count, first, deep, v, u, outputs, sums);
            }
            winograd_outputs(&job, t, count, o, sums, outputs);
        }
    }
    status = FVLRP_OK;
out:
    free(v);
    free(u);
    free(sums);
    free(taps);
    return status;
}
#undef ROOT
