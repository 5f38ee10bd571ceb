/* sift.c - dense SIFT in VLFeat's geometry: descriptors from an image. The way back is sift_pixels.c.
 *
 * A row of pixels is kept as octets, the 8 orientation planes of one pixel side by side, so that every filter below is
 * a weighted sum of shifted rows and vectorises without a shuffle. Rows stream through rings: a band of frames needs
 * the rows of its bins' supports and no more, and each stage finds its input in cache.
 *
 * The triangles are applied by direct taps, not by running sums: a float running sum drifts (VLFeat's does), and taps
 * give the same bits wherever a band begins. */

#ifdef __SSE4_1__
#include <immintrin.h>
#endif

enum { BINS = 4, ORIENTATIONS = 8, VALUES = BINS * BINS * ORIENTATIONS };

/* Part of an octet, or all of it: the widest float vector of at most 8 lanes. */
enum { PART_BYTES = VBYTES > 32 ? 32 : VBYTES, PART = PART_BYTES / 4, PARTS = ORIENTATIONS / PART };
typedef float vpart __attribute__((vector_size(PART_BYTES)));
typedef int32_t vpart_int __attribute__((vector_size(PART_BYTES)));
typedef float vpart_any __attribute__((vector_size(PART_BYTES), aligned(4), may_alias));

/* What vector extensions have no word for. Lanes of `total` are added in an order of each instruction set's own. */
#if VBYTES == 64
INLINE vfloat smaller(vfloat a, vfloat b) { return (vfloat)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE float total(vfloat v) { return _mm512_reduce_add_ps((__m512)v); }
INLINE void store_bytes(uint8_t *to, vfloat v) {
    _mm_storeu_si128((__m128i *)to, _mm512_cvtusepi32_epi8(_mm512_cvttps_epi32((__m512)v)));
}
#elif VBYTES == 32
INLINE vfloat smaller(vfloat a, vfloat b) { return (vfloat)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE float total(vfloat v) {
    typedef float quad __attribute__((vector_size(16)));
    const quad sum = (quad)_mm256_castps256_ps128((__m256)v) + (quad)_mm256_extractf128_ps((__m256)v, 1);
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}
INLINE void store_bytes(uint8_t *to, vfloat v) {
    const __m256i whole = _mm256_cvttps_epi32((__m256)v);
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
}
#else
INLINE float total(vfloat v) { return (v[0] + v[2]) + (v[1] + v[3]); }
#ifdef __SSE4_1__
INLINE vfloat smaller(vfloat a, vfloat b) { return (vfloat)_mm_min_ps((__m128)a, (__m128)b); }
INLINE void store_bytes(uint8_t *to, vfloat v) {
    const __m128i whole = _mm_cvttps_epi32((__m128)v), words = _mm_packus_epi32(whole, whole);
    _mm_storeu_si32(to, _mm_packus_epi16(words, words));
}
#else
INLINE vfloat smaller(vfloat a, vfloat b) {
    const vint less = (vint)(a < b);
    return (vfloat)(((vint)a & less) | ((vint)b & ~less));
}
INLINE void store_bytes(uint8_t *to, vfloat v) {
    for (int i = 0; i < FLOATS; i++) to[i] = (uint8_t)v[i];
}
#endif
#endif

INLINE ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) { return a < b ? a : b; }
INLINE ptrdiff_t most(ptrdiff_t a, ptrdiff_t b) { return a > b ? a : b; }
INLINE ptrdiff_t inside(ptrdiff_t i, ptrdiff_t length) { return least(most(i, 0), length - 1); }

static ptrdiff_t common_divisor(ptrdiff_t a, ptrdiff_t b) {
    while (b) {
        const ptrdiff_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* ---- scratch memory -------------------------------------------------------------------------------------------- */

/* One block carved into arrays. Layouts are run twice: without a base they only count. */
typedef struct sift_block {
    char *base;
    ptrdiff_t used; /* -1 once a size has overflowed */
} sift_block;

static void *carve(sift_block *block, ptrdiff_t count, ptrdiff_t size) {
    const size_t bytes = checked(count, size);
    if (!bytes || bytes > PTRDIFF_MAX / 2 || block->used < 0 || block->used > PTRDIFF_MAX / 2) {
        block->used = -1;
        return NULL;
    }
    void *array = block->base ? block->base + block->used : NULL;
    block->used += (ptrdiff_t)((bytes + 63) & ~(size_t)63);
    return array;
}

/* Elements from one buffered row to the next: room for whole vectors past the end, and an odd number of cache lines, so
 * that the same column of many rows does not fall into one set of the cache. */
static ptrdiff_t row_pitch(ptrdiff_t length, ptrdiff_t size) {
    const ptrdiff_t line = 64 / size;
    const ptrdiff_t lines = (length + line - 1) / line + 1;
    return (lines | 1) * line;
}

/* ---- weighted sums of rows ------------------------------------------------------------------------------------- */

/* weigh: out[i] = sum_t taps[t] rows[t][i] for i < n, rounded up to whole vectors.
 * weigh_octets: out[u] = sum_t taps[t] in[stride u + t] in octets, u < n rounded up to a multiple of 4. */
#define DEFINE_WEIGH(suffix, real, vector, vector_any)                                                                 \
    static void weigh##suffix(real *restrict out, const real *const *rows, const real *taps, ptrdiff_t count,         \
                              ptrdiff_t n) {                                                                           \
        enum { LANE = sizeof(vector) / sizeof(real), TILE = 8 };                                                       \
        ptrdiff_t i = 0;                                                                                               \
        for (; i + TILE * LANE <= n; i += TILE * LANE) {                                                               \
            vector sum[TILE] = {{0}};                                                                                  \
            for (ptrdiff_t t = 0; t < count; t++) {                                                                    \
                const real *row = rows[t] + i;                                                                         \
                const vector tap = taps[t] - (vector){0};                                                              \
                UNROLL for (int v = 0; v < TILE; v++) sum[v] += tap * *(const vector_any *)(row + v * LANE);          \
            }                                                                                                          \
            UNROLL for (int v = 0; v < TILE; v++) *(vector_any *)(out + i + v * LANE) = sum[v];                       \
        }                                                                                                              \
        for (; i < n; i += LANE) {                                                                                     \
            vector sum = {0};                                                                                          \
            for (ptrdiff_t t = 0; t < count; t++) sum += taps[t] * *(const vector_any *)(rows[t] + i);                \
            *(vector_any *)(out + i) = sum;                                                                            \
        }                                                                                                              \
    }

#define DEFINE_WEIGH_OCTETS(suffix, real, vector, vector_any)                                                          \
    static void weigh_octets##suffix(real *restrict out, const real *in, ptrdiff_t stride, const real *taps,          \
                                     ptrdiff_t count, ptrdiff_t n) {                                                   \
        enum { LANE = sizeof(vector) / sizeof(real), TILE = 4, PIECES = TILE * ORIENTATIONS / LANE };                  \
        for (ptrdiff_t u = 0; u < n; u += TILE) {                                                                      \
            vector sum[PIECES] = {{0}};                                                                                \
            const real *at = in + u * stride * ORIENTATIONS;                                                           \
            for (ptrdiff_t t = 0; t < count; t++, at += ORIENTATIONS) {                                                \
                const vector tap = taps[t] - (vector){0};                                                              \
                UNROLL for (int v = 0; v < PIECES; v++) {                                                              \
                    const ptrdiff_t octet = v * LANE / ORIENTATIONS, lane = v * LANE % ORIENTATIONS;                   \
                    sum[v] += tap * *(const vector_any *)(at + octet * stride * ORIENTATIONS + lane);                  \
                }                                                                                                      \
            }                                                                                                          \
            UNROLL for (int v = 0; v < PIECES; v++)                                                                    \
                *(vector_any *)(out + u * ORIENTATIONS + v * LANE) = sum[v];                                           \
        }                                                                                                              \
    }

DEFINE_WEIGH(_f32, float, vfloat, vfloat_any)
DEFINE_WEIGH(_f64, double, vdouble, vdouble_any)
DEFINE_WEIGH_OCTETS(_f32, float, vpart, vpart_any)
DEFINE_WEIGH_OCTETS(_f64, double, vdouble, vdouble_any)

/* ---- image to orientation planes ------------------------------------------------------------------------------- */

/* The planes of one image, row after row. Rows must be asked for in ascending order. */
typedef struct sift_planes_of {
    const fvlrp_scale *scale;
    const float *image;
    ptrdiff_t radius, pitch;
    ptrdiff_t next_wide, next_smooth; /* rows smoothed along x, and along both axes, so far */
    float *taps, *padded, *wide, *smooth, *turn, *magnitude;
    const float **rows;
} sift_planes_of;

enum { LEAD = 16 }; /* floats before a smoothed row's first pixel: room for its left neighbour */

static void planes_layout(sift_planes_of *p, sift_block *block) {
    const ptrdiff_t width = p->scale->width, taps = 2 * p->radius + 1;
    p->pitch = row_pitch(LEAD + width + 1, sizeof(float));
    p->taps = carve(block, taps, sizeof(float));
    p->rows = carve(block, taps, sizeof(float *));
    p->padded = carve(block, row_pitch(width + taps, sizeof(float)), sizeof(float));
    p->wide = carve(block, taps, p->pitch * (ptrdiff_t)sizeof(float));
    p->smooth = carve(block, 3, p->pitch * (ptrdiff_t)sizeof(float));
    p->turn = carve(block, p->pitch, sizeof(float));
    p->magnitude = carve(block, p->pitch, sizeof(float));
}

/* vl_imsmooth's window: radius ceil(4 sigma), taps normalised to a sum of 1, no smoothing below .01. */
static ptrdiff_t smoothing_radius(double sigma) { return sigma < .01 ? 0 : (ptrdiff_t)ceil(4 * sigma); }

static void planes_start(sift_planes_of *p, ptrdiff_t first_row) {
    const ptrdiff_t r = p->radius;
    double total = 0;
    for (int pass = 0; pass < 2; pass++)
        for (ptrdiff_t j = -r; j <= r; j++) {
            const double z = r ? (double)j / (p->scale->sigma + 1.1920929e-07) : 0, tap = exp(-.5 * z * z);
            if (pass == 0) total += tap;
            else p->taps[j + r] = (float)(tap / total);
        }
    p->next_smooth = most(first_row - 1, 0);
    p->next_wide = most(p->next_smooth - r, 0);
}

static void smooth_along_x(sift_planes_of *p, ptrdiff_t y) {
    const ptrdiff_t width = p->scale->width, r = p->radius;
    const float *row = p->image + y * width;
    memcpy(p->padded + r, row, (size_t)width * sizeof(float));
    for (ptrdiff_t j = 0; j < r; j++) {
        p->padded[j] = row[0];
        p->padded[r + width + j] = row[width - 1];
    }
    for (ptrdiff_t j = 0; j <= 2 * r; j++) p->rows[j] = p->padded + j;
    weigh_f32(p->wide + y % (2 * r + 1) * p->pitch, p->rows, p->taps, 2 * r + 1, width);
}

static float *smooth_row(const sift_planes_of *p, ptrdiff_t y) { return p->smooth + y % 3 * p->pitch + LEAD; }

static void smooth_until(sift_planes_of *p, ptrdiff_t last) {
    const ptrdiff_t height = p->scale->height, width = p->scale->width, r = p->radius;
    for (; p->next_smooth <= last; p->next_smooth++) {
        const ptrdiff_t y = p->next_smooth;
        for (; p->next_wide <= least(y + r, height - 1); p->next_wide++) smooth_along_x(p, p->next_wide);
        for (ptrdiff_t j = 0; j <= 2 * r; j++)
            p->rows[j] = p->wide + inside(y + j - r, height) % (2 * r + 1) * p->pitch;
        float *row = smooth_row(p, y);
        weigh_f32(row, p->rows, p->taps, 2 * r + 1, width);
        row[-1] = row[0];
        row[width] = row[width - 1];
    }
}

/* Magnitude and direction of a gradient, the direction in eighths of a turn, 0..8. VLFeat's atan2 is a cubic in
 * r = (|gx| - |gy|) / (|gx| + |gy|), pi/4 - (.9675 r - .1821 r^3) in the first quadrant; here in eighths. */
INLINE void polar(float gy, float gx, int exact, float *turn, float *magnitude) {
    const float eighths = 1.27323954f; /* 4 / pi */
    const float square = gx * gx + gy * gy;
    *magnitude = square < 1e-8f ? 0 : sqrtf(square);
    if (exact) {
        const float angle = atan2f(gy, gx) * eighths;
        *turn = angle < 0 ? angle + 8 : angle;
        return;
    }
    const float ax = fabsf(gx), ay = fabsf(gy) + 1.1920929e-07f;
    const float r = (ax - ay) / (ax + ay);
    const float quadrant = 1 + (.1821f * eighths * r * r - .9675f * eighths) * r;
    const float half = gx < 0 ? 4 - quadrant : quadrant;
    *turn = gy < 0 ? 8 - half : half;
}

/* Centred differences, one-sided at the borders. `steep` is the factor of the vertical difference. */
INLINE void gradient_row(float *restrict turn, float *restrict magnitude, const float *restrict above,
                         const float *restrict row, const float *restrict below, float steep, ptrdiff_t width,
                         int exact) {
    for (ptrdiff_t x = 0; x < width; x++)
        polar(steep * (below[x] - above[x]), .5f * (row[x + 1] - row[x - 1]), exact, turn + x, magnitude + x);
    for (ptrdiff_t x = 0; x < width; x += most(width - 1, 1))
        polar(steep * (below[x] - above[x]), row[x + 1] - row[x - 1], exact, turn + x, magnitude + x);
}

/* Spread each magnitude over the two orientations beside its direction: with u = turn - o, the circular tent
 * max(0, 1 - min(|u|, 8 - |u|)) is max(0, ||u| - 4| - 3). */
static void spread_row(float *restrict octets, const float *turn, const float *magnitude, ptrdiff_t width) {
    static const float orientation[ORIENTATIONS] = {0, 1, 2, 3, 4, 5, 6, 7};
    const vpart_int without_sign = 0x7fffffff - (vpart_int){0};
    for (ptrdiff_t x = 0; x < width; x++)
        UNROLL for (int part = 0; part < PARTS; part++) {
            vpart u = turn[x] - *(const vpart_any *)(orientation + part * PART);
            u = (vpart)((vpart_int)u & without_sign) - 4;
            u = (vpart)((vpart_int)u & without_sign) - 3;
            u = (vpart)((vpart_int)u & (vpart_int)(u > 0));
            *(vpart_any *)(octets + x * ORIENTATIONS + part * PART) = u * magnitude[x];
        }
}

/* The octets of row y. */
static void planes_row(sift_planes_of *p, ptrdiff_t y, float *octets) {
    const ptrdiff_t height = p->scale->height, width = p->scale->width;
    const ptrdiff_t up = most(y - 1, 0), down = least(y + 1, height - 1);
    smooth_until(p, down);
    const float *above = smooth_row(p, up), *row = smooth_row(p, y), *below = smooth_row(p, down);
    const float steep = down - up == 2 ? .5f : 1;
    if (p->scale->angles == FVLRP_ANGLES_EXACT)
        gradient_row(p->turn, p->magnitude, above, row, below, steep, width, 1);
    else
        gradient_row(p->turn, p->magnitude, above, row, below, steep, width, 0);
    spread_row(octets, p->turn, p->magnitude, width);
}

static int planes_open(sift_planes_of *p, const fvlrp_scale *scale, const float *image) {
    if (scale->sigma > 1 << 20) return FVLRP_E_ARGUMENT;
    *p = (sift_planes_of){.scale = scale, .image = image, .radius = smoothing_radius(scale->sigma)};
    return FVLRP_OK;
}

static int sift_planes(const fvlrp_scale *scale, const float *image, float *planes) {
    sift_planes_of p;
    const int status = planes_open(&p, scale, image);
    if (status) return status;
    sift_block block = {0};
    planes_layout(&p, &block);
    block.base = scratch(block.used, 1);
    if (!block.base) return FVLRP_E_MEMORY;
    block.used = 0;
    planes_layout(&p, &block);
    planes_start(&p, 0);
    for (ptrdiff_t y = 0; y < scale->height; y++) planes_row(&p, y, planes + y * scale->width * ORIENTATIONS);
    free(block.base);
    return FVLRP_OK;
}

/* ---- where the bins are pooled --------------------------------------------------------------------------------- */

/* Pooled rows and columns come in tracks: regular runs of bin centres that share a filter, the same on both axes. The
 * flat window needs one track, every multiple of gcd(step, bin size) from the first centre, which the four bins of all
 * frames share. The Gaussian window needs one track per bin index, for its filter depends on the bin. Bin i of frame k
 * is entry jump k + shift[i] of track[i]. */
typedef struct sift_tracks {
    ptrdiff_t tracks, stride, jump, span; /* span: from a frame's first entry to its last in a track */
    ptrdiff_t start[BINS], track[BINS], shift[BINS];
    ptrdiff_t reach, taps; /* a filter is 2 reach + 1 taps about the centre */
    ptrdiff_t columns;     /* entries of a track along x */
} sift_tracks;

static sift_tracks sift_tracks_of(const fvlrp_scale *s) {
    const int flat = s->window == FVLRP_WINDOW_FLAT;
    const ptrdiff_t stride = flat ? common_divisor(s->step, s->bin_size) : s->step;
    sift_tracks t = {.tracks = flat ? 1 : BINS, .stride = stride, .jump = s->step / stride};
    t.span = flat ? 3 * s->bin_size / stride : 0;
    t.reach = s->bin_size - 1;
    t.taps = 2 * t.reach + 1;
    t.columns = (s->cols - 1) * t.jump + t.span + 1;
    for (int i = 0; i < BINS; i++) {
        t.start[i] = s->first + (flat ? 0 : i * s->bin_size);
        t.track[i] = flat ? 0 : i;
        t.shift[i] = flat ? i * s->bin_size / stride : 0;
    }
    return t;
}

/* exp(-z^2 / 2) at offset t from the centre of bin i. The window is centred on the frame, from which bin i is
 * bin_size (i - 1.5) away. (VLFeat's kernel has the opposite sign of t, and is then convolved.) */
static double window_at(const fvlrp_scale *s, int i, double t) {
    const double z = (t + (double)s->bin_size * (i - 1.5)) / ((double)s->bin_size * s->window_size);
    return exp(-.5 * z * z);
}

/* Filter of a track at offset t: the triangle of height 1, times the Gaussian window if that is wanted exactly. */
static double track_tap(const fvlrp_scale *s, ptrdiff_t track, ptrdiff_t t) {
    const double triangle = 1 - fabs((double)t) / (double)s->bin_size;
    return s->window == FVLRP_WINDOW_FLAT ? triangle : triangle * window_at(s, (int)track, (double)t);
}

/* The flat window's weight of bin i: the Gaussian window's mean over the bin's support. */
static double bin_weight(const fvlrp_scale *s, int i) {
    if (s->window != FVLRP_WINDOW_FLAT) return 1;
    double sum = 0;
    for (ptrdiff_t t = 1 - s->bin_size; t < s->bin_size; t++) sum += window_at(s, i, (double)t);
    return sum / (double)(2 * s->bin_size - 1);
}

/* Whether entry `index` of a track along y belongs to one of the frame rows [begin, end). */
static int row_needed(const sift_tracks *t, ptrdiff_t index, ptrdiff_t begin, ptrdiff_t end) {
    if (index < begin * t->jump || index > (end - 1) * t->jump + t->span) return 0;
    for (int i = 0; i < BINS; i++)
        if ((index - t->shift[i]) % t->jump == 0) return 1;
    return 0;
}

INLINE ptrdiff_t floor_divide(ptrdiff_t a, ptrdiff_t b) { return a / b - (a % b < 0); }

/* Entries of a track whose centre lies within reach of one of the pixels [from, to]: the first, and how many. */
INLINE ptrdiff_t within_reach(const sift_tracks *t, ptrdiff_t track, ptrdiff_t from, ptrdiff_t to, ptrdiff_t *count) {
    const ptrdiff_t first = floor_divide(from - t->reach - t->start[track] + t->stride - 1, t->stride);
    *count = floor_divide(to + t->reach - t->start[track], t->stride) - first + 1;
    return first;
}

/* ---- descriptors ----------------------------------------------------------------------------------------------- */

typedef struct sift_band {
    const fvlrp_scale *scale;
    sift_tracks tracks;
    sift_planes_of planes;
    ptrdiff_t next;         /* rows pooled along x so far */
    ptrdiff_t pitch, depth; /* floats per pooled row; rows that a track's ring of pooled rows holds */
    float *taps;            /* (tracks, taps) */
    float *octets;          /* one row of planes, the border octet repeated on either side */
    float *along_x;         /* ring of `taps` rows pooled along x: (tracks, columns) octets each */
    float *pooled;          /* (tracks along y, depth) rows pooled along both axes */
    const float **rows;
    float weight[VALUES];
} sift_band;

static void band_layout(sift_band *b, sift_block *block) {
    const sift_tracks *t = &b->tracks;
    planes_layout(&b->planes, block);
    b->pitch = row_pitch((t->tracks * t->columns + 4) * ORIENTATIONS, sizeof(float));
    b->depth = (t->tracks == 1 ? t->span : 3 * b->scale->bin_size / t->stride) + 1;
    b->taps = carve(block, t->tracks * t->taps, sizeof(float));
    b->rows = carve(block, t->taps, sizeof(float *));
    b->octets = carve(block, (b->scale->width + 2 * t->reach + 4 * t->stride) * ORIENTATIONS, sizeof(float));
    b->along_x = carve(block, t->taps, b->pitch * (ptrdiff_t)sizeof(float));
    b->pooled = carve(block, t->tracks * b->depth, b->pitch * (ptrdiff_t)sizeof(float));
}

static void band_start(sift_band *b, ptrdiff_t first_row) {
    const sift_tracks *t = &b->tracks;
    for (ptrdiff_t track = 0; track < t->tracks; track++)
        for (ptrdiff_t j = 0; j < t->taps; j++)
            b->taps[track * t->taps + j] = (float)track_tap(b->scale, track, j - t->reach);
    for (int i = 0; i < VALUES; i++) {
        const int bin = i / ORIENTATIONS;
        b->weight[i] = (float)(bin_weight(b->scale, bin / BINS) * bin_weight(b->scale, bin % BINS));
    }
    /* The last tiles of a row read past its end: finite values, so that nothing traps or turns slow. */
    memset(b->octets, 0, (size_t)((b->scale->width + 2 * t->reach + 4 * t->stride) * ORIENTATIONS) * sizeof(float));
    memset(b->along_x, 0, (size_t)(t->taps * b->pitch) * sizeof(float));
    b->next = first_row;
    planes_start(&b->planes, first_row);
}

static void pool_along_x(sift_band *b, ptrdiff_t y) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t width = b->scale->width;
    float *row = b->octets + t->reach * ORIENTATIONS;
    planes_row(&b->planes, y, row);
    for (ptrdiff_t j = 1; j <= t->reach; j++) {
        memcpy(row - j * ORIENTATIONS, row, ORIENTATIONS * sizeof(float));
        memcpy(row + (width - 1 + j) * ORIENTATIONS, row + (width - 1) * ORIENTATIONS, ORIENTATIONS * sizeof(float));
    }
    float *out = b->along_x + y % t->taps * b->pitch;
    for (ptrdiff_t track = 0; track < t->tracks; track++)
        weigh_octets_f32(out + track * t->columns * ORIENTATIONS, b->octets + t->start[track] * ORIENTATIONS, t->stride,
                     b->taps + track * t->taps, t->taps, t->columns);
}

static float *pooled_row(const sift_band *b, ptrdiff_t track, ptrdiff_t index) {
    return b->pooled + (track * b->depth + index % b->depth) * b->pitch;
}

/* Pool row y, a centre of `track`, along y. */
static void pool_along_y(sift_band *b, ptrdiff_t track, ptrdiff_t index, ptrdiff_t y) {
    const sift_tracks *t = &b->tracks;
    const ptrdiff_t height = b->scale->height;
    for (; b->next <= least(y + t->reach, height - 1); b->next++) pool_along_x(b, b->next);
    for (ptrdiff_t j = 0; j < t->taps; j++)
        b->rows[j] = b->along_x + inside(y + j - t->reach, height) % t->taps * b->pitch;
    weigh_f32(pooled_row(b, track, index), b->rows, b->taps + track * t->taps, t->taps,
          t->tracks * t->columns * ORIENTATIONS);
}

/* Bins `bin`, bin + 1, ... of a frame, as many as a vector holds, or the part of one bin that it holds. Bin (iy, ix) is at
 * rows[iy] + columns[ix]. */
INLINE vfloat load_bins(const float *const *rows, const ptrdiff_t *columns, int value) {
    const int bin = value / ORIENTATIONS;
    const float *at = rows[bin / BINS] + columns[bin % BINS] + value % ORIENTATIONS;
#if VBYTES == 64
    const float *beside = rows[bin / BINS] + columns[bin % BINS + 1];
    return (vfloat)_mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(at)), _mm256_loadu_ps(beside), 1);
#else
    return *(const vfloat_any *)at;
#endif
}

/* One descriptor from its 16 pooled octets. Returns 1, and writes zeros, where their mass is below `least_mass`. */
INLINE int describe(const float *const *rows, const ptrdiff_t *columns, const float *weight, float least_mass, int type,
                    void *out) {
    enum { PIECES = VALUES / FLOATS };
    const float epsilon = 1.1920929e-07f;
    vfloat v[PIECES], mass[2] = {{0}}, square[2] = {{0}};
    UNROLL for (int i = 0; i < PIECES; i++) {
        v[i] = load_bins(rows, columns, i * FLOATS) * *(const vfloat_any *)(weight + i * FLOATS);
        mass[i % 2] += v[i];
        square[i % 2] += v[i] * v[i];
    }
    if (total(mass[0] + mass[1]) < least_mass) {
        memset(out, 0, (size_t)(VALUES * (type == FVLRP_U8 ? 1 : 4)));
        return 1;
    }
    /* Clipping h at .2 norm is clipping h / norm at .2, and one multiplication then makes up for both norms. */
    const float norm = sqrtf(total(square[0] + square[1])) + epsilon;
    const vfloat clip = .2f * norm - (vfloat){0};
    square[0] = square[1] = (vfloat){0};
    UNROLL for (int i = 0; i < PIECES; i++) {
        v[i] = smaller(v[i], clip);
        square[i % 2] += v[i] * v[i];
    }
    const float scale = 512 / (sqrtf(total(square[0] + square[1])) + epsilon * norm);
    const vfloat top = 255 - (vfloat){0};
    UNROLL for (int i = 0; i < PIECES; i++) {
        const vfloat u = smaller(v[i] * scale, top);
        if (type == FVLRP_U8) store_bytes((uint8_t *)out + i * FLOATS, u);
        else *(vfloat_any *)((float *)out + i * FLOATS) = u;
    }
    return 0;
}

/* Descriptors of frame row k, whose four rows of bins are pooled. */
INLINE void describe_row(const sift_band *b, ptrdiff_t k, int type, void *values, uint8_t *zeroed) {
    const sift_tracks *t = &b->tracks;
    const fvlrp_scale *s = b->scale;
    const double frame = 3 * (double)s->bin_size + 1;
    /* A threshold of 0 zeroes what holds no gradient at all, which is zero anyway: the flag says so, too. */
    const double threshold = s->contrast_threshold * frame * frame;
    const float least_mass = threshold > FLT_MIN ? (float)threshold : FLT_MIN;
    const float *rows[BINS];
    ptrdiff_t columns[BINS];
    for (int i = 0; i < BINS; i++) {
        rows[i] = pooled_row(b, t->track[i], k * t->jump + t->shift[i]);
        columns[i] = (t->track[i] * t->columns + t->shift[i]) * ORIENTATIONS;
    }
    for (ptrdiff_t j = 0; j < s->cols; j++) {
        void *out = (char *)values + (k * s->cols + j) * VALUES * (type == FVLRP_U8 ? 1 : 4);
        const int zero = describe(rows, columns, b->weight, least_mass, type, out);
        if (zeroed) zeroed[k * s->cols + j] = (uint8_t)zero;
        for (int i = 0; i < BINS; i++) rows[i] += t->jump * ORIENTATIONS;
    }
}

static int sift(const fvlrp_scale *scale, const float *image, ptrdiff_t begin, ptrdiff_t end, void *values,
                uint8_t *zeroed) {
    sift_band b = {.scale = scale, .tracks = sift_tracks_of(scale)};
    const int status = planes_open(&b.planes, scale, image);
    if (status) return status;
    sift_block block = {0};
    band_layout(&b, &block);
    block.base = scratch(block.used, 1);
    if (!block.base) return FVLRP_E_MEMORY;
    block.used = 0;
    band_layout(&b, &block);

    const sift_tracks *t = &b.tracks;
    const ptrdiff_t top = scale->first + scale->step * begin, frame = 3 * scale->bin_size;
    const ptrdiff_t bottom = scale->first + scale->step * (end - 1) + frame;
    band_start(&b, most(top - t->reach, 0));
    for (ptrdiff_t y = top; y <= bottom; y++) {
        for (ptrdiff_t track = 0; track < t->tracks; track++) {
            const ptrdiff_t below = y - t->start[track], index = below / t->stride;
            if (below >= 0 && below % t->stride == 0 && row_needed(t, index, begin, end))
                pool_along_y(&b, track, index, y);
        }
        if (y - top < frame || (y - top - frame) % scale->step) continue;
        const ptrdiff_t k = begin + (y - top - frame) / scale->step;
        if (scale->type == FVLRP_U8) describe_row(&b, k, FVLRP_U8, values, zeroed);
        else describe_row(&b, k, FVLRP_F32, values, zeroed);
    }
    free(block.base);
    return FVLRP_OK;
}
