/* depthwise.inc.c - convolutions of one input channel per output: forward, and the adjoint.
 *
 * A matrix product would be as narrow as one row. Instead the rows of a channel are laid out by their phase: pixel
 * x + left = i stride + p lies at [p][i], so that every tap of neighbouring outputs reads neighbouring values whatever
 * the stride, and padding is zeros. */
#include "arena.h"
#include "network/windows.h"
#include "simd.h"

/* The row layout: `stride` phases of `length` values each; the last LANES of a phase are slack for whole vectors. */
typedef struct {
    ptrdiff_t stride, length, row;
} phases;

static phases phases_of(const fvlrp_windows *w) {
    const ptrdiff_t reach = (w->cols - 1) * w->stride_x + (w->kernel_x - 1) * w->dilation_x;
    const ptrdiff_t length = reach / w->stride_x + 1 + LANES;
    return (phases){w->stride_x, length, length * w->stride_x};
}

/* Where the value that output 0 sees through the tap kx lies in a row of phases. */
INLINE ptrdiff_t tap_at(const fvlrp_windows *w, const phases *p, ptrdiff_t kx) {
    const ptrdiff_t offset = kx * w->dilation_x;
    return offset % p->stride * p->length + offset / p->stride;
}

/* The values of one phase: pixels *x, *x + stride, ... that lie in the row and are seen, from the place *at on. */
INLINE ptrdiff_t phase_span(const fvlrp_windows *w, const phases *p, ptrdiff_t phase, ptrdiff_t *x, ptrdiff_t *at) {
    *at = first_inside(phase - w->left, p->stride);
    *x = *at * p->stride + phase - w->left;
    return imin(end_inside(phase - w->left, p->stride, w->width), p->length - LANES) - *at;
}

/* from[i stride] to to[i], or added the other way round, with strides that the compiler knows. */
INLINE void take_strided(const REAL *from, ptrdiff_t stride, ptrdiff_t count, REAL *to) {
    if (stride == 1)
        memcpy(to, from, (size_t)count * sizeof(REAL));
    else if (stride == 2)
        for (ptrdiff_t i = 0; i < count; i++) to[i] = from[2 * i];
    else
        for (ptrdiff_t i = 0; i < count; i++) to[i] = from[stride * i];
}
INLINE void add_strided(const REAL *from, ptrdiff_t stride, ptrdiff_t count, REAL *to) {
    if (stride == 1)
        for (ptrdiff_t i = 0; i < count; i++) to[i] += from[i];
    else
        for (ptrdiff_t i = 0; i < count; i++) to[stride * i] += from[i];
}

static void to_phases(const fvlrp_windows *w, const phases *p, const REAL *channel, REAL *rows) {
    memset(rows, 0, (size_t)(w->height * p->row) * sizeof(REAL));
    for (ptrdiff_t phase = 0; phase < p->stride; phase++) {
        ptrdiff_t x, at;
        const ptrdiff_t count = phase_span(w, p, phase, &x, &at);
        for (ptrdiff_t y = 0; count > 0 && y < w->height; y++)
            take_strided(channel + y * w->width + x, p->stride, count, rows + y * p->row + phase * p->length + at);
    }
}

static void add_phases(const fvlrp_windows *w, const phases *p, const REAL *rows, REAL *channel) {
    for (ptrdiff_t phase = 0; phase < p->stride; phase++) {
        ptrdiff_t x, at;
        const ptrdiff_t count = phase_span(w, p, phase, &x, &at);
        for (ptrdiff_t y = 0; count > 0 && y < w->height; y++)
            add_strided(rows + y * p->row + phase * p->length + at, p->stride, count, channel + y * w->width + x);
    }
}

/* Weights as they are, or what takes their place. */
INLINE REAL signed_weight(int sign, REAL weight) {
    if (sign == FVLRP_POSITIVE) return weight < 0 ? 0 : weight;
    if (sign == FVLRP_NEGATIVE) return weight > 0 ? 0 : weight;
    return sign == FVLRP_SIZE && weight < 0 ? -weight : weight;
}

/* One row of outputs: `count` vectors from column x on. The number is known to the compiler. */
INLINE void forward_vectors(const fvlrp_windows *w, const phases *p, const REAL *rows, ptrdiff_t y0, const REAL *taps,
                            const ptrdiff_t *places, REAL start, ptrdiff_t x, int count, VREAL *sums) {
    for (int i = 0; i < count; i++) sums[i] = fill(start);
    for (ptrdiff_t ky = 0; ky < w->kernel_y; ky++) {
        const ptrdiff_t y = y0 + ky * w->dilation_y;
        if (y < 0 || y >= w->height) continue;
        const REAL *line = rows + y * p->row + x, *tap = taps + ky * w->kernel_x;
        for (ptrdiff_t kx = 0; kx < w->kernel_x; kx++) {
            const VREAL weight = fill(tap[kx]);
            for (int i = 0; i < count; i++) sums[i] += weight * load(line + places[kx] + i * LANES);
        }
    }
}

static void forward_row(const fvlrp_windows *w, const phases *p, const REAL *rows, ptrdiff_t oy, const REAL *taps,
                        const ptrdiff_t *places, REAL start, int add, REAL *out) {
    enum { BLOCK = 4 };
    const ptrdiff_t y0 = (w->first + oy) * w->stride_y - w->top;
    VREAL sums[BLOCK];
    ptrdiff_t x = 0;
    for (; x + BLOCK * LANES <= w->cols; x += BLOCK * LANES) {
        forward_vectors(w, p, rows, y0, taps, places, start, x, BLOCK, sums);
        for (int i = 0; i < BLOCK; i++) {
            REAL *to = out + x + i * LANES;
            store(to, add ? load(to) + sums[i] : sums[i]);
        }
    }
    for (; x < w->cols; x += LANES) {
        const ptrdiff_t count = imin(LANES, w->cols - x);
        forward_vectors(w, p, rows, y0, taps, places, start, x, 1, sums);
        store_some(out + x, add ? load_some(out + x, count) + sums[0] : sums[0], count);
    }
}

/* Scratch of both directions: a channel by phases, one filter, and where its taps lie. */
typedef struct {
    REAL *rows, *taps;
    ptrdiff_t *places;
} depthwise_room;

static void depthwise_layout(depthwise_room *room, const fvlrp_windows *w, const phases *p, arena *memory) {
    const size_t values = checked(w->height, p->row);
    room->rows = carve(memory, values ? (ptrdiff_t)values : -1, sizeof(REAL));
    room->taps = carve(memory, w->kernel_y * w->kernel_x, sizeof(REAL));
    room->places = carve(memory, w->kernel_x, sizeof(ptrdiff_t));
}

/* The filter of output j. */
static void take_filter(const depthwise_room *room, const fvlrp_windows *w, const REAL *weight, ptrdiff_t j, int sign) {
    const ptrdiff_t taps = w->kernel_y * w->kernel_x;
    for (ptrdiff_t t = 0; t < taps; t++) room->taps[t] = signed_weight(sign, weight[j * taps + t]);
}

static int depthwise(const fvlrp_depthwise_args *args) {
    const fvlrp_windows *w = &args->windows;
    const phases p = phases_of(w);
    const ptrdiff_t each = args->m / w->channels, cells = w->rows * w->cols;
    depthwise_room room;
    arena memory = {0};
    depthwise_layout(&room, w, &p, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    depthwise_layout(&room, w, &p, &memory);
    for (ptrdiff_t kx = 0; kx < w->kernel_x; kx++) room.places[kx] = tap_at(w, &p, kx);
    for (ptrdiff_t c = 0; c < w->channels; c++) {
        to_phases(w, &p, (const REAL *)args->image + c * w->height * w->width, room.rows);
        for (ptrdiff_t j = c * each; j < (c + 1) * each; j++) {
            const REAL start = args->bias ? ((const REAL *)args->bias)[j] : 0;
            take_filter(&room, w, args->weight, j, args->sign);
            for (ptrdiff_t oy = 0; oy < w->rows; oy++)
                forward_row(w, &p, room.rows, oy, room.taps, room.places, start, args->add,
                            (REAL *)args->out + j * cells + oy * w->cols);
        }
    }
    arena_close(&memory);
    return FVLRP_OK;
}

/* One row of shares to the pixels that its windows see. */
static void back_row(const fvlrp_windows *w, const phases *p, const REAL *share, ptrdiff_t oy,
                     const depthwise_room *room) {
    const ptrdiff_t y0 = (w->first + oy) * w->stride_y - w->top;
    for (ptrdiff_t ky = 0; ky < w->kernel_y; ky++) {
        const ptrdiff_t y = y0 + ky * w->dilation_y;
        if (y < 0 || y >= w->height) continue;
        for (ptrdiff_t kx = 0; kx < w->kernel_x; kx++) {
            REAL *to = room->rows + y * p->row + room->places[kx];
            const REAL weight = room->taps[ky * w->kernel_x + kx];
            const VREAL weights = fill(weight);
            ptrdiff_t x = 0;
            for (; x + LANES <= w->cols; x += LANES) store(to + x, load(to + x) + weights * load(share + x));
            for (; x < w->cols; x++) to[x] += weight * share[x];
        }
    }
}

static int depthwise_back(const fvlrp_depthwise_back_args *args) {
    const fvlrp_windows *w = &args->windows;
    const phases p = phases_of(w);
    const ptrdiff_t each = args->m / w->channels, cells = w->rows * w->cols;
    depthwise_room room;
    arena memory = {0};
    depthwise_layout(&room, w, &p, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    depthwise_layout(&room, w, &p, &memory);
    for (ptrdiff_t kx = 0; kx < w->kernel_x; kx++) room.places[kx] = tap_at(w, &p, kx);
    for (ptrdiff_t c = 0; c < w->channels; c++) {
        memset(room.rows, 0, (size_t)(w->height * p.row) * sizeof(REAL));
        for (ptrdiff_t j = c * each; j < (c + 1) * each; j++) {
            take_filter(&room, w, args->weight, j, args->sign);
            for (ptrdiff_t oy = 0; oy < w->rows; oy++)
                back_row(w, &p, (const REAL *)args->share + j * cells + oy * w->cols, oy, &room);
        }
        add_phases(w, &p, room.rows, (REAL *)args->out + c * w->height * w->width);
    }
    arena_close(&memory);
    return FVLRP_OK;
}
