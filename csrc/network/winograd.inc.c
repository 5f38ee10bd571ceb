/* winograd.inc.c - convolutions with 3 x 3 windows of stride 1, by Winograd's minimal filtering F(4 x 4, 3 x 3)
 * (Lavin and Gray 2016): 36 products for 16 pixels instead of 144. Float alone.
 *
 * A tile of 4 x 4 output pixels reads 6 x 6 input pixels d. With the filter g, Y = A' [(G g G') . (B' d B)] A, where
 * the sum over channels is one matrix product for each of the 36 points. The interpolation points are 0, +-sqrt(1/2),
 * +-sqrt(2) and infinity: with the usual 0, +-1, +-2 the rounding error is twice to four times as large.
 *
 * Vectors hold channels throughout. Blocks of tiles are transformed, multiplied and transformed back while they stay in
 * the L2 cache. Filters are transformed on the fly, which is cheaper than reading transformed ones from memory. Neither
 * the transformed image nor the transformed filters are ever stored as a whole. */
#include "arena.h"
#include "gemm.inc.c"

enum {
    TILE_STEP = 4, /* output pixels of a tile along each axis */
    SIDE = 6,      /* input pixels of it */
    POINTS = SIDE * SIDE,
    TILES = 56,   /* of a block, at most */
    OUTPUTS = 64, /* channels of a block, at most; whole panels */
    ABREAST = 7,  /* tiles of a row that are transformed together */
    STRIP = 32,   /* pixels of such a run: ABREAST * TILE_STEP + 2, in whole vectors */
    SOON = 4      /* vectors or channels of filters that are asked for in advance */
};
#define ROOT 1.41421356237309505f

typedef struct {
    const fvlrp_winograd_args *args;
    const fvlrp_windows *w;
    const float *a;
    ptrdiff_t m, row, channel, tap; /* of the weights */
    ptrdiff_t k, across;            /* channels of both images; tiles along x */
    int points;                     /* POINTS, and one more where results may be doubtful */
    ptrdiff_t ldv, v_point, u_point, m_point; /* lengths in the transformed arrays; points lie odd lines apart */
    float *v, *u, *sums, *taps;     /* tiles, filters, products, and the filters' taps, outputs last */
} winograd_job;

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
        UNROLL for (int i = 0; i < SIDE; i++) d[i] = load(strip + (r * STRIP + i) * LANES);
        if (job->points > POINTS)
            UNROLL for (int i = 0; i < SIDE; i++) largest = larger(magnitude(d[i]), largest);
        winograd_input(d, rows[r]);
    }
    UNROLL for (int j = 0; j < SIDE; j++) {
        vfloat column[SIDE], v[SIDE];
        UNROLL for (int r = 0; r < SIDE; r++) column[r] = rows[r][j];
        winograd_input(column, v);
        UNROLL for (int i = 0; i < SIDE; i++) store(to + (i * SIDE + j) * job->v_point, v[i]);
    }
    if (job->points > POINTS) store(to + POINTS * job->v_point, largest);
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
            const ptrdiff_t c = k % w->channels, lanes = imin(w->channels - c, LANES);
            for (ptrdiff_t r = 0; r < SIDE; r++)
                winograd_line(w, k < w->channels ? job->args->image : job->args->other, c, lanes, y + r, x,
                              strip + r * STRIP * LANES);
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
    UNROLL for (int t = 0; t < 9; t++) store(to + (backwards ? 8 - t : t) * width, load(block + t * LANES));
#else
    for (int t = 0; t < 9; t++)
        for (int l = 0; l < LANES; l++) to[(backwards ? 8 - t : t) * width + l] = from[l * 9 + t];
#endif
}

/* Ask for `lines` cache lines at each of `rows` places. No processor foresees that many streams. */
INLINE void winograd_soon(const float *from, ptrdiff_t row, int rows, int lines) {
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < lines; i++) __builtin_prefetch(from + r * row + i * 16);
}

/* Taps of `depth` channels from c on and of `width` outputs from o on, outputs last: (depth, 9, width). */
static void winograd_taps(const winograd_job *job, ptrdiff_t o, ptrdiff_t width, ptrdiff_t c, ptrdiff_t depth,
                          float *to) {
    const ptrdiff_t count = imin(job->m - o, width), row = job->row, tap = job->tap;
    const ptrdiff_t whole = count / LANES * LANES, lines = depth * 9;
    ptrdiff_t done = 0; /* lines whose whole vectors are there */
    if (job->channel == 9 && tap == 1)
        for (; done + LANES <= lines; done += LANES)
            for (ptrdiff_t l = 0; l < whole; l += LANES) {
                const float *from = job->a + (o + l) * row + c * 9 + done;
                winograd_soon(from + SOON * LANES, row, LANES, 1);
                transpose(from, row, to + done * width + l, width);
            }
    /* What winograd_turn reads too much lies in the next filter, or in the next channel's first. */
    if (row == 9 && (tap == 1 || tap == -1) && job->channel >= 9 * job->m)
        for (; done < lines && (c + done / 9 + 1 < job->w->channels || o + whole < job->m); done += 9)
            for (ptrdiff_t l = 0; l < whole; l += LANES) {
                const float *from = job->a + (o + l) * 9 + (c + done / 9) * job->channel - (tap < 0 ? 8 : 0);
                winograd_soon(from + SOON * job->channel, 0, 1, 9 * LANES / 16);
                winograd_turn(from, tap < 0, to + done * width + l, width);
            }
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
        g[t] = load(taps + t * width);
        if (job->points > POINTS) largest = larger(magnitude(g[t]), largest);
        if (sign == FVLRP_POSITIVE) g[t] = larger(none, g[t]);
        if (sign == FVLRP_NEGATIVE) g[t] = -larger(none, -g[t]);
        if (sign == FVLRP_SIZE) g[t] = magnitude(g[t]);
    }
    UNROLL for (int j = 0; j < 3; j++) {
        const vfloat column[3] = {g[j], g[3 + j], g[6 + j]};
        winograd_filter(column, columns[j]);
    }
    UNROLL for (int i = 0; i < SIDE; i++) {
        const vfloat line[3] = {columns[0][i], columns[1][i], columns[2][i]};
        vfloat u[SIDE];
        winograd_filter(line, u);
        UNROLL for (int j = 0; j < SIDE; j++) store(to + (i * SIDE + j) * job->u_point, u[j]);
    }
    if (job->points > POINTS) store(to + POINTS * job->u_point, largest);
}

/* U: (points, panels, depth, PANEL_COLUMNS) of `width` outputs and `depth` channels, whose taps are given; the last
 * panel can be narrower. */
static void winograd_filters(const winograd_job *job, int sign, ptrdiff_t width, ptrdiff_t depth) {
    for (ptrdiff_t at = 0, wide; at < width; at += wide) {
        wide = imin(width - at, PANEL_COLUMNS);
        for (ptrdiff_t i = 0; i < depth; i++)
            for (ptrdiff_t l = 0; l < wide; l += LANES)
                winograd_weights(job, sign, job->taps + i * 9 * width + at + l, width,
                                 job->u + at * depth + i * wide + l);
    }
}

/* ---- output ---- */

/* A result that may be rounding error of the transforms becomes NaN: below `least`, or that close to `whole`, of
 * either sign if sizes were summed. */
INLINE vfloat winograd_sure(int sign, vfloat y, vfloat whole, vfloat least) {
    vint spoilt = (magnitude(y) < least) | (magnitude(whole - y) < least);
    if (sign == FVLRP_SIZE) spoilt |= magnitude(whole + y) < least;
    return (vfloat)((vint)y | (spoilt & 0x7fc00000));
}

/* Store a line of pixels, channels last: `pixels` of them, and LANES outputs from o on or as many as
 * are left. `sizes` are channels first. */
static void winograd_write(const winograd_job *job, const float *line, const float *sizes, ptrdiff_t o, ptrdiff_t at,
                           ptrdiff_t pixels) {
    const fvlrp_winograd_args *args = job->args;
    const ptrdiff_t outputs = imin(job->m - o, LANES), ldc = args->ldc, ldw = args->ldw;
    float *to = args->c + o * ldc + at, block[LANES * LANES] __attribute__((aligned(64)));
    const int add = args->add, check = job->points > POINTS;
    if (pixels == LANES && outputs == LANES && !add && !check) {
        transpose(line, LANES, to, ldc);
        return;
    }
    transpose(line, LANES, block, LANES);
    const float *whole = args->whole ? args->whole + o * ldw + at : NULL;
    for (ptrdiff_t l = 0; l < outputs; l++) {
        vfloat y = load(block + l * LANES);
        if (add) y += load_some(to + l * ldc, pixels);
        if (check) {
            const vfloat least = (float)args->doubt * load(sizes + l * LANES);
            y = winograd_sure(args->weights.sign, y, whole ? load_some(whole + l * ldw, pixels) : y + y, least);
        }
        store_some(to + l * ldc, y, pixels);
    }
}

/* `count` tiles of one row, from t on, of LANES outputs from o on; m is (points, tiles, width). */
INLINE void winograd_back(const winograd_job *job, ptrdiff_t t, ptrdiff_t count, ptrdiff_t o, const float *m,
                          ptrdiff_t width) {
    float lines[TILE_STEP][LANES * LANES] __attribute__((aligned(64)));
    float sizes[LANES * LANES] __attribute__((aligned(64)));
    float turned[LANES * LANES] __attribute__((aligned(64)));
    const float *bias = job->args->bias;
    const vfloat shift = bias ? load_some(bias + o, imin(job->m - o, LANES)) : (vfloat){0};
    for (ptrdiff_t i = 0; i < count; i++) {
        vfloat rows[SIDE][TILE_STEP];
        for (int r = 0; r < SIDE; r++) {
            vfloat line[SIDE];
            UNROLL for (int j = 0; j < SIDE; j++) {
                const float *from = m + (r * SIDE + j) * job->m_point + i * width;
                line[j] = load(from);
                __builtin_prefetch(from + width);
            }
            winograd_output(line, rows[r]);
        }
        UNROLL for (int j = 0; j < TILE_STEP; j++) {
            vfloat column[SIDE], y[TILE_STEP];
            UNROLL for (int r = 0; r < SIDE; r++) column[r] = rows[r][j];
            winograd_output(column, y);
            UNROLL for (int r = 0; r < TILE_STEP; r++) store(lines[r] + (i * TILE_STEP + j) * LANES, y[r] + shift);
        }
        if (job->points > POINTS)
            for (int j = 0; j < TILE_STEP; j++)
                store(sizes + (i * TILE_STEP + j) * LANES, load(m + POINTS * job->m_point + i * width));
    }
    if (job->points > POINTS) transpose(sizes, LANES, turned, LANES);
    const ptrdiff_t y = t / job->across * TILE_STEP, x = t % job->across * TILE_STEP, left = job->w->cols - x;
    for (ptrdiff_t r = 0; r < TILE_STEP && y + r < job->w->rows; r++)
        winograd_write(job, lines[r], turned, o, (y + r) * job->w->cols + x,
                       left < count * TILE_STEP ? left : count * TILE_STEP);
}

static void winograd_outputs(const winograd_job *job, ptrdiff_t t, ptrdiff_t count, ptrdiff_t o, const float *m,
                             ptrdiff_t width) {
    for (ptrdiff_t done = 0, run; done < count; done += run) {
        run = winograd_run(job, t + done, count - done, LANES / TILE_STEP);
        for (ptrdiff_t l = 0; l < width && o + l < job->m; l += LANES)
            winograd_back(job, t + done, run, o + l, m + done * width + l, width);
    }
}

/* ---- the convolution ---- */

/* M (points, tiles, width) (+)= V U for one block of outputs and channels. */
static void winograd_multiply(const winograd_job *job, ptrdiff_t tiles, ptrdiff_t k, ptrdiff_t depth, ptrdiff_t width) {
    for (int p = 0; p < job->points; p++) {
        const gemm_left left = {job->v + p * job->v_point + k, job->ldv, tiles, depth, 0};
        const float *u = job->u + p * job->u_point;
        for (ptrdiff_t o = 0, wide; o < width; o += wide) {
            wide = imin(width - o, PANEL_COLUMNS);
            const gemm_result to = {
                .c = job->sums + p * job->m_point + o, .ldc = width, .count = wide, .add = k > 0};
            gemm_panel(&left, u + o * depth, (int)(wide / LANES), &to);
        }
    }
}

/* How the work is divided: blocks of tiles, blocks of outputs of at most `width`, parts of at most `depth` channels. */
typedef struct {
    ptrdiff_t all, tiles, width, depth;
    int once; /* one transformation of the filters serves all tiles */
} winograd_cut;

static winograd_cut winograd_cut_of(const winograd_job *job) {
    const fvlrp_windows *w = job->w;
    winograd_cut cut = {.all = job->across * ((w->rows + TILE_STEP - 1) / TILE_STEP)};
    cut.width = imin(round_up(job->m, LANES), OUTPUTS);
    const ptrdiff_t longest = OUTPUTS * OUTPUTS / cut.width, parts = (w->channels + longest - 1) / longest;
    cut.depth = (w->channels + parts - 1) / parts;
    cut.once = cut.width >= job->m && cut.depth >= job->k;
    /* Filters that are all transformed at once stay in the cache, and take room from the tiles. */
    const ptrdiff_t room = cut.once ? TILES / 2 : TILES, blocks = (cut.all + room - 1) / room;
    cut.tiles = (cut.all + blocks - 1) / blocks;
    return cut;
}

/* An odd number of cache lines: points that lie a power of two apart would share the sets of the caches. */
static ptrdiff_t winograd_apart(ptrdiff_t length) { return ((length + 15) / 16 | 1) * 16; }

static void winograd_layout(winograd_job *job, const winograd_cut *cut, arena *memory) {
    const ptrdiff_t size = job->points * (ptrdiff_t)sizeof(float);
    job->v_point = winograd_apart(cut->tiles * job->ldv);
    job->u_point = winograd_apart(cut->depth * cut->width);
    job->m_point = winograd_apart(cut->tiles * cut->width);
    job->v = carve(memory, job->v_point, size);
    job->u = carve(memory, job->u_point, size);
    job->sums = carve(memory, job->m_point, size);
    job->taps = carve(memory, cut->depth, 9 * cut->width * (ptrdiff_t)sizeof(float));
}

/* Outputs o .. of the `count` tiles from t on. Both images meet the same taps, with opposite signs. */
static void winograd_block(const winograd_job *job, const winograd_cut *cut, ptrdiff_t t, ptrdiff_t count,
                           ptrdiff_t o) {
    const ptrdiff_t channels = job->w->channels, width = imin(round_up(job->m, LANES) - o, cut->width);
    const int fresh = t == 0 || !cut->once, own = job->args->weights.sign;
    for (ptrdiff_t c = 0, depth; c < channels; c += depth) {
        depth = imin(channels - c, cut->depth);
        if (fresh) winograd_taps(job, o, width, c, depth, job->taps);
        for (ptrdiff_t image = 0; image < job->k; image += channels) {
            if (fresh) winograd_filters(job, image ? -own : own, width, depth);
            winograd_multiply(job, count, image + c, depth, width);
        }
    }
    winograd_outputs(job, t, count, o, job->sums, width);
}

static int winograd(const fvlrp_winograd_args *args) {
    const fvlrp_weights *weights = &args->weights;
    const fvlrp_windows *w = &args->windows;
    if (!weights->m || !w->rows) return FVLRP_OK;
    winograd_job job = {.args = args, .w = w, .a = weights->a, .m = weights->m, .row = weights->row,
                        .channel = weights->channel, .tap = weights->tap, .k = w->channels * (args->other ? 2 : 1),
                        .across = (w->cols + TILE_STEP - 1) / TILE_STEP, .points = POINTS + (args->doubt > 0)};
    job.ldv = job.k + LANES;
    const winograd_cut cut = winograd_cut_of(&job);
    arena memory = {0};
    winograd_layout(&job, &cut, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    winograd_layout(&job, &cut, &memory);
    for (ptrdiff_t t = 0; t < cut.all; t += cut.tiles) {
        const ptrdiff_t count = imin(cut.all - t, cut.tiles);
        winograd_inputs(&job, t, count, job.v);
        for (ptrdiff_t o = 0; o < job.m; o += cut.width) winograd_block(&job, &cut, t, count, o);
    }
    arena_close(&memory);
    return FVLRP_OK;
}
