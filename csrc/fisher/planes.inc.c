/* planes.inc.c - orientation planes of an image, row by row, for dense SIFT and its backward pass.
 *
 * A row of pixels is kept as octets, the 8 orientation planes of one pixel side by side, so that every filter is a
 * weighted sum of shifted rows and vectorises without a shuffle. Rows stream through rings: a band of frames needs the
 * rows under its bins and no more, and each stage finds its input in cache.
 *
 * Filters are applied tap by tap, not as running sums: a running sum in float drifts (VLFeat's does), and taps give the
 * same bits wherever a band begins. */
#ifndef FVLRP_PLANES
#define FVLRP_PLANES

#include "arena.h"
#include "fisher/tracks.h"
#include "simd.h"

/* ---- weighted sums of rows -------------------------------------------------------------------------------------- */

/* out[i] = sum_t taps[t] rows[t][i] for i < n, rounded up to whole vectors. Planes are float for either real type. */
#define DEFINE_WEIGH(name, type, vector, vector_any)                                                                   \
    static void name(type *restrict out, const type *const *rows, const type *taps, ptrdiff_t count, ptrdiff_t n) {   \
        enum { LANE = sizeof(vector) / sizeof(type), WIDE = 8 };                                                       \
        ptrdiff_t i = 0;                                                                                               \
        for (; i + WIDE * LANE <= n; i += WIDE * LANE) {                                                               \
            vector sum[WIDE] = {{0}};                                                                                  \
            for (ptrdiff_t t = 0; t < count; t++) {                                                                    \
                const type *row = rows[t] + i;                                                                         \
                const vector tap = taps[t] - (vector){0};                                                              \
                UNROLL for (int v = 0; v < WIDE; v++) sum[v] += tap * *(const vector_any *)(row + v * LANE);          \
            }                                                                                                          \
            UNROLL for (int v = 0; v < WIDE; v++) *(vector_any *)(out + i + v * LANE) = sum[v];                       \
        }                                                                                                              \
        for (; i < n; i += LANE) {                                                                                     \
            vector sum = {0};                                                                                          \
            for (ptrdiff_t t = 0; t < count; t++) sum += taps[t] * *(const vector_any *)(rows[t] + i);                \
            *(vector_any *)(out + i) = sum;                                                                            \
        }                                                                                                              \
    }
DEFINE_WEIGH(weigh_floats, float, vfloat, vfloat_any)
#if REAL_BITS == 32
#define weigh weigh_floats
#else
DEFINE_WEIGH(weigh, double, vdouble, vdouble_any)
#endif

/* A vector of at most 8 lanes: an octet or a part of it. */
enum { PIECE_BYTES = VBYTES > 8 * (int)sizeof(REAL) ? 8 * (int)sizeof(REAL) : VBYTES };
typedef REAL vpiece __attribute__((vector_size(PIECE_BYTES)));
typedef REAL vpiece_any __attribute__((vector_size(PIECE_BYTES), aligned(sizeof(REAL)), may_alias));

/* out[u] = sum_t taps[t] in[stride u + t] in octets, for u < n rounded up to a multiple of 4. */
static void weigh_octets(REAL *restrict out, const REAL *in, ptrdiff_t stride, const REAL *taps, ptrdiff_t count,
                         ptrdiff_t n) {
    enum { LANE = PIECE_BYTES / sizeof(REAL), WIDE = 4, PIECES = WIDE * ORIENTATIONS / LANE };
    for (ptrdiff_t u = 0; u < n; u += WIDE) {
        vpiece sum[PIECES] = {{0}};
        const REAL *at = in + u * stride * ORIENTATIONS;
        for (ptrdiff_t t = 0; t < count; t++, at += ORIENTATIONS) {
            const vpiece tap = taps[t] - (vpiece){0};
            UNROLL for (int v = 0; v < PIECES; v++) {
                const ptrdiff_t octet = v * LANE / ORIENTATIONS, lane = v * LANE % ORIENTATIONS;
                sum[v] += tap * *(const vpiece_any *)(at + octet * stride * ORIENTATIONS + lane);
            }
        }
        UNROLL for (int v = 0; v < PIECES; v++) *(vpiece_any *)(out + u * ORIENTATIONS + v * LANE) = sum[v];
    }
}

/* The same for floats, for either real type. */
enum { PART_BYTES = VBYTES > 32 ? 32 : VBYTES, PART = PART_BYTES / 4, PARTS = ORIENTATIONS / PART };
typedef float vpart __attribute__((vector_size(PART_BYTES)));
typedef int32_t vpart_int __attribute__((vector_size(PART_BYTES)));
typedef float vpart_any __attribute__((vector_size(PART_BYTES), aligned(4), may_alias));

/* ---- image to orientation planes ------------------------------------------------------------------------------- */

/* The planes of one image, row after row. Rows must be requested in ascending order. */
typedef struct {
    const fvlrp_scale *scale;
    const float *image;
    ptrdiff_t radius, pitch;
    ptrdiff_t next_wide, next_smooth; /* rows smoothed along x, and along both axes, so far */
    float *taps, *padded, *wide, *smooth, *turn, *magnitude;
    const float **rows;
} plane_rows;

enum { LEAD = 16 }; /* floats before a smoothed row's first pixel: room for its left neighbour */

static void planes_layout(plane_rows *p, arena *memory) {
    const ptrdiff_t width = p->scale->width, taps = 2 * p->radius + 1;
    p->pitch = row_pitch(LEAD + width + 1, sizeof(float));
    p->taps = carve(memory, taps, sizeof(float));
    p->rows = carve(memory, taps, sizeof(float *));
    p->padded = carve(memory, row_pitch(width + taps, sizeof(float)), sizeof(float));
    p->wide = carve(memory, taps, p->pitch * (ptrdiff_t)sizeof(float));
    p->smooth = carve(memory, 3, p->pitch * (ptrdiff_t)sizeof(float));
    p->turn = carve(memory, p->pitch, sizeof(float));
    p->magnitude = carve(memory, p->pitch, sizeof(float));
}

/* vl_imsmooth's window: radius ceil(4 sigma), taps normalised to a sum of 1, no smoothing below .01. */
static ptrdiff_t smoothing_radius(double sigma) { return sigma < .01 ? 0 : (ptrdiff_t)ceil(4 * sigma); }

static void planes_start(plane_rows *p, ptrdiff_t first_row) {
    const ptrdiff_t r = p->radius;
    double total = 0;
    for (int pass = 0; pass < 2; pass++)
        for (ptrdiff_t j = -r; j <= r; j++) {
            const double z = r ? (double)j / (p->scale->sigma + 1.1920929e-07) : 0, tap = exp(-.5 * z * z);
            if (pass == 0) total += tap;
            else p->taps[j + r] = (float)(tap / total);
        }
    p->next_smooth = imax(first_row - 1, 0);
    p->next_wide = imax(p->next_smooth - r, 0);
}

static void smooth_along_x(plane_rows *p, ptrdiff_t y) {
    const ptrdiff_t width = p->scale->width, r = p->radius;
    const float *row = p->image + y * width;
    memcpy(p->padded + r, row, (size_t)width * sizeof(float));
    for (ptrdiff_t j = 0; j < r; j++) {
        p->padded[j] = row[0];
        p->padded[r + width + j] = row[width - 1];
    }
    for (ptrdiff_t j = 0; j <= 2 * r; j++) p->rows[j] = p->padded + j;
    weigh_floats(p->wide + y % (2 * r + 1) * p->pitch, p->rows, p->taps, 2 * r + 1, width);
}

static float *smooth_row(const plane_rows *p, ptrdiff_t y) { return p->smooth + y % 3 * p->pitch + LEAD; }

static void smooth_until(plane_rows *p, ptrdiff_t last) {
    const ptrdiff_t height = p->scale->height, width = p->scale->width, r = p->radius;
    for (; p->next_smooth <= last; p->next_smooth++) {
        const ptrdiff_t y = p->next_smooth;
        for (; p->next_wide <= imin(y + r, height - 1); p->next_wide++) smooth_along_x(p, p->next_wide);
        for (ptrdiff_t j = 0; j <= 2 * r; j++)
            p->rows[j] = p->wide + clamp(y + j - r, height) % (2 * r + 1) * p->pitch;
        float *row = smooth_row(p, y);
        weigh_floats(row, p->rows, p->taps, 2 * r + 1, width);
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
    for (ptrdiff_t x = 0; x < width; x += imax(width - 1, 1))
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
static void planes_row(plane_rows *p, ptrdiff_t y, float *octets) {
    const ptrdiff_t height = p->scale->height, width = p->scale->width;
    const ptrdiff_t up = imax(y - 1, 0), down = imin(y + 1, height - 1);
    smooth_until(p, down);
    const float *above = smooth_row(p, up), *row = smooth_row(p, y), *below = smooth_row(p, down);
    const float steep = down - up == 2 ? .5f : 1;
    if (p->scale->angles == FVLRP_ANGLES_EXACT)
        gradient_row(p->turn, p->magnitude, above, row, below, steep, width, 1);
    else
        gradient_row(p->turn, p->magnitude, above, row, below, steep, width, 0);
    spread_row(octets, p->turn, p->magnitude, width);
}

static plane_rows planes_of(const fvlrp_scale *scale, const float *image) {
    return (plane_rows){.scale = scale, .image = image, .radius = smoothing_radius(scale->sigma)};
}

#endif
