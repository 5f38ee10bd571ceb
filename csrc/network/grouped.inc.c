/* grouped.inc.c - convolutions in groups of few channels, above all depthwise ones, and their adjoint.
 *
 * A matrix product would be as narrow as a group. Here a channel is copied into planes, one per phase of the stride,
 * with the padding around it and rows `pitch` apart. In the planes, every tap of a window is a fixed offset: all
 * outputs, row after row, are one weighted sum of shifted planes, whatever the stride and dilation. The `span`
 * positions between two rows of outputs are computed as well and discarded, so that narrow maps fill vectors. The
 * adjoint is the same sum over the shares, once for each phase of the pixels. Where vectors have 64 bytes, the most
 * frequent depthwise windows need no planes (depthwise.inc.c). */
#ifndef FVLRP_GROUPED
#define FVLRP_GROUPED

#include "arena.h"
#include "network/depthwise.inc.c"
#include "network/windows.h"
#include "simd.h"

enum {
    TOGETHER = 4,          /* outputs that share the loads of their inputs */
    PLANE_BYTES = 24 << 10 /* of all planes of a block of rows: they stay in the L1 cache */
};

/* Parameters and buffers of a convolution or its adjoint, along y [0] and x [1]. */
typedef struct {
    int adjoint;
    const fvlrp_windows *w;
    const fvlrp_weights *weights; /* of the first group */
    ptrdiff_t group;              /* elements to the next group's */
    const REAL *from[2];          /* the image and the other one, or shares */
    ptrdiff_t images, lanes;      /* how many of them; elements from a channel of `from` to the next */
    ptrdiff_t inputs, outputs;    /* channels per group, of `from` and of the result */
    ptrdiff_t size[2];            /* of a channel of `from` */
    ptrdiff_t stride[2], dilation[2], before[2], kernel[2];
    ptrdiff_t span[2];         /* plane pixels between a window's first tap and its last */
    ptrdiff_t phases;          /* planes of a channel */
    ptrdiff_t count[2], pitch; /* results of one phase, rows and columns; their distance in a plane */
    ptrdiff_t rows;            /* of results in a block */
    ptrdiff_t plane, terms;    /* elements of a plane; terms of a result at most */
    REAL *planes, *result;     /* (images, inputs, phases, plane), (TOGETHER, plane) */
    ptrdiff_t lists, *list;    /* of terms, and where they begin: one for each phase of the adjoint, or one */
    const REAL **taps;         /* (terms): where the plane of each term begins */
    ptrdiff_t *at;             /* (terms): its weight for the first output, from the group's first */
    int *sign;                 /* (terms) */
    REAL *factors;             /* (terms, outputs): the weights of a group */
} grouped_job;

static grouped_job grouped_job_of(const fvlrp_windows *w, const fvlrp_weights *weights, ptrdiff_t group,
                                  const REAL *from, const REAL *other, int adjoint) {
    grouped_job j = {.adjoint = adjoint,
                     .w = w,
                     .weights = weights,
                     .group = group,
                     .from = {from, other},
                     .images = other ? 2 : 1,
                     .stride = {w->stride_y, w->stride_x},
                     .dilation = {w->dilation_y, w->dilation_x},
                     .before = {w->top, w->left},
                     .kernel = {w->kernel_y, w->kernel_x}};
    for (int a = 0; a < 2; a++) {
        j.span[a] = (j.kernel[a] - 1) * j.dilation[a] / j.stride[a];
        j.count[a] = (a ? w->cols : w->rows) + (adjoint ? j.span[a] : 0);
    }
    j.size[0] = adjoint ? w->rows : w->height;
    j.size[1] = adjoint ? w->cols : w->width;
    j.lanes = j.size[0] * j.size[1];
    j.inputs = adjoint ? weights->m : weights->channels;
    j.outputs = adjoint ? weights->channels : weights->m;
    j.phases = adjoint ? 1 : j.stride[0] * j.stride[1];
    j.lists = adjoint ? j.stride[0] * j.stride[1] : 1;
    j.pitch = w->cols + j.span[1];
    return j;
}

static void grouped_layout(grouped_job *j, arena *memory) {
    const ptrdiff_t size = sizeof(REAL), planes = j->images * j->inputs * j->phases;
    const ptrdiff_t row = imax(planes, 1) * j->pitch; /* without outputs there are no planes */
    j->rows = imin(imax(PLANE_BYTES / size / row - j->span[0], 4), imax(j->count[0], 1));
    /* Whole vectors are read and written past the last row. */
    j->plane = round_up((j->rows + j->span[0]) * j->pitch + j->span[1] + 8 * LANES, 16);
    j->terms = j->images * j->inputs * j->weights->taps;
    j->planes = carve(memory, planes, j->plane * size);
    j->result = carve(memory, TOGETHER, j->plane * size);
    j->list = carve(memory, j->lists + 1, sizeof(ptrdiff_t));
    j->taps = carve(memory, j->terms, sizeof(REAL *));
    j->at = carve(memory, j->terms, sizeof(ptrdiff_t));
    j->sign = carve(memory, j->terms, sizeof(int));
    j->factors = carve(memory, j->terms, j->outputs * size);
}

/* to[x] = from[step x] for x < n. */
INLINE void copy_row(const REAL *from, ptrdiff_t step, ptrdiff_t n, REAL *to) {
    ptrdiff_t x = 0;
    if (step == 1) {
        for (; x + LANES <= n; x += LANES) store(to + x, load(from + x));
        if (x < n) store_some(to + x, load_some(from + x, n - x), n - x);
        return;
    }
    for (; step == 2 && x + LANES <= n; x += LANES) store(to + x, load_even(from + 2 * x));
    for (; x < n; x++) to[x] = from[step * x];
}

/* Rows of a plane, pitch apart: pixel (y, x) of it is (y0 + ystep y, x0 + xstep x) of a channel, or 0 outside. With
 * `padded` the zeros are there already. */
static void plane_fill(const grouped_job *j, const REAL *channel, const ptrdiff_t start[2], const ptrdiff_t step[2],
                       ptrdiff_t rows, int padded, REAL *to) {
    const ptrdiff_t begin = imin(first_inside(start[1], step[1]), j->pitch);
    const ptrdiff_t count = imin(end_inside(start[1], step[1], j->size[1]), j->pitch) - begin;
    /* The last row's windows see `span` pixels past it. */
    if (!padded) memset(to, 0, (size_t)(rows * j->pitch + j->span[1]) * sizeof(REAL));
    if (count <= 0) return;
    for (ptrdiff_t r = 0; r < rows; r++, to += j->pitch) {
        const ptrdiff_t y = start[0] + r * step[0];
        if (y < 0 || y >= j->size[0]) continue;
        copy_row(channel + y * j->size[1] + start[1] + step[1] * begin, step[1], count, to + begin);
    }
}

/* The planes of group g for the results of rows begin .. end - 1. */
static void grouped_planes(const grouped_job *j, ptrdiff_t g, ptrdiff_t begin, ptrdiff_t end) {
    const int padded = g > 0 && j->rows >= j->count[0]; /* one block: the zeros of the last group are this one's */
    static const ptrdiff_t one[2] = {1, 1};
    REAL *to = j->planes;
    for (ptrdiff_t image = 0; image < j->images; image++)
        for (ptrdiff_t c = 0; c < j->inputs; c++)
            for (ptrdiff_t phase = 0; phase < j->phases; phase++, to += j->plane) {
                const REAL *channel = j->from[image] + (g * j->inputs + c) * j->lanes;
                ptrdiff_t start[2] = {begin - j->span[0], -j->span[1]};
                if (!j->adjoint) {
                    start[0] = (j->w->first + begin) * j->stride[0] + phase / j->stride[1] - j->before[0];
                    start[1] = phase % j->stride[1] - j->before[1];
                }
                plane_fill(j, channel, start, j->adjoint ? one : j->stride, end - begin + j->span[0], padded, to);
            }
}

/* List the terms whose phase is `list` (the adjoint's; a convolution has one list of all). */
static ptrdiff_t grouped_list(const grouped_job *j, ptrdiff_t list, ptrdiff_t n) {
    const fvlrp_weights *w = j->weights;
    const ptrdiff_t across = j->adjoint ? w->row : w->channel;
    const REAL *plane = j->planes;
    for (ptrdiff_t image = 0; image < j->images; image++)
        for (ptrdiff_t c = 0; c < j->inputs; c++, plane += j->phases * j->plane)
            for (ptrdiff_t t = 0; t < w->taps; t++) {
                const ptrdiff_t y = t / j->kernel[1] * j->dilation[0], x = t % j->kernel[1] * j->dilation[1];
                const ptrdiff_t phase = y % j->stride[0] * j->stride[1] + x % j->stride[1];
                const ptrdiff_t down = y / j->stride[0], right = x / j->stride[1];
                if (j->adjoint && phase != list) continue;
                j->taps[n] = j->adjoint ? plane + (j->span[0] - down) * j->pitch + j->span[1] - right
                                        : plane + phase * j->plane + down * j->pitch + right;
                j->at[n] = c * across + t * w->tap;
                j->sign[n++] = image ? -w->sign : w->sign;
            }
    return n;
}

static void grouped_lists(const grouped_job *j) {
    j->list[0] = 0;
    for (ptrdiff_t list = 0; list < j->lists; list++) j->list[list + 1] = grouped_list(j, list, j->list[list]);
}

static int grouped_open(grouped_job *j, arena *memory) {
    grouped_layout(j, memory);
    if (arena_open(memory)) return FVLRP_E_MEMORY;
    grouped_layout(j, memory);
    grouped_lists(j);
    return FVLRP_OK;
}

/* The factors of group g. */
static void grouped_factors(const grouped_job *j, ptrdiff_t g) {
    const ptrdiff_t along = j->adjoint ? j->weights->channel : j->weights->row;
    const REAL *a = (const REAL *)j->weights->a + g * j->group;
    for (ptrdiff_t n = 0; n < j->list[j->lists]; n++)
        for (ptrdiff_t o = 0; o < j->outputs; o++)
            j->factors[n * j->outputs + o] =
                j->sign[n] == FVLRP_ALL ? a[o * along + j->at[n]] : part_of_weight(j->sign[n], a[o * along + j->at[n]]);
}

/* ---- sums ---- */

/* result[o][i] = sum_t factors[t][first + o] taps[t][i] over the terms of a list, for `outputs` results of a group and
 * nv vectors from i on. */
INLINE void grouped_sum(const grouped_job *j, const int outputs, const int nv, ptrdiff_t list, ptrdiff_t first,
                        ptrdiff_t i) {
    VREAL acc[TOGETHER][8];
    UNROLL for (int o = 0; o < outputs; o++) UNROLL for (int v = 0; v < nv; v++) acc[o][v] = (VREAL){0};
    const ptrdiff_t end = j->list[list + 1];
    for (ptrdiff_t t = j->list[list]; t < end; t++) {
        const REAL *factors = j->factors + t * j->outputs + first;
        const REAL *from = j->taps[t] + i;
        VREAL value[8];
        UNROLL for (int v = 0; v < nv; v++) value[v] = load(from + v * LANES);
        UNROLL for (int o = 0; o < outputs; o++) {
            const VREAL factor = fill(factors[o]);
            UNROLL for (int v = 0; v < nv; v++) acc[o][v] += factor * value[v];
        }
    }
    UNROLL for (int o = 0; o < outputs; o++)
        UNROLL for (int v = 0; v < nv; v++) store(j->result + o * j->plane + i + v * LANES, acc[o][v]);
}

/* `outputs` results of a group, from `first` on, in `rows` rows. The last vectors may reach past them. */
INLINE void grouped_sums(const grouped_job *j, const int outputs, ptrdiff_t list, ptrdiff_t first, ptrdiff_t rows) {
    enum { MOST = VBYTES == 16 ? 4 : 8 };
    const int most = outputs == 1 ? MOST : MOST / 2;
    const ptrdiff_t vectors = ((rows - 1) * j->pitch + j->count[1] + LANES - 1) / LANES;
    for (ptrdiff_t v = 0, nv; v < vectors; v += nv) {
        const ptrdiff_t left = vectors - v;
        nv = left > most / 2 ? most : left > most / 4 ? most / 2 : 1;
        if (nv == most) grouped_sum(j, outputs, most, list, first, v * LANES);
        else if (nv > 1) grouped_sum(j, outputs, most / 2, list, first, v * LANES);
        else grouped_sum(j, outputs, 1, list, first, v * LANES);
    }
}

/* ---- convolution ---- */

/* Rows begin .. end - 1 of one output, copied from the results. */
static void grouped_write(const grouped_job *j, const fvlrp_grouped_args *args, ptrdiff_t output, const REAL *from,
                          ptrdiff_t begin, ptrdiff_t end) {
    const VREAL shift = fill(args->bias ? ((const REAL *)args->bias)[output] : 0);
    REAL limits[2];
    const REAL *bounds = bounds_of(args->bounds, limits);
    REAL *to = (REAL *)args->c + output * args->ldc + begin * j->w->cols;
    for (ptrdiff_t r = begin; r < end; r++, from += j->pitch, to += j->w->cols)
        for (ptrdiff_t x = 0, some; x < j->w->cols; x += some) {
            some = imin(j->w->cols - x, LANES);
            const VREAL sum = load(from + x) + shift;
            store_some(to + x, bounded(args->add ? sum + load_some(to + x, some) : sum, bounds), some);
        }
}

static int grouped(const fvlrp_grouped_args *args) {
    const fvlrp_windows *w = &args->windows;
#if VBYTES == 64
    if (depthwise_suits(w, &args->weights)) return depthwise(args);
#endif
    grouped_job j = grouped_job_of(w, &args->weights, args->group, args->image, args->other, 0);
    arena memory = {0};
    if (grouped_open(&j, &memory)) return FVLRP_E_MEMORY;
    for (ptrdiff_t g = 0; g < args->groups && w->rows; g++) {
        grouped_factors(&j, g);
        for (ptrdiff_t begin = 0; begin < w->rows; begin += j.rows) {
            const ptrdiff_t end = imin(begin + j.rows, w->rows);
            grouped_planes(&j, g, begin, end);
            for (ptrdiff_t o = 0, some; o < j.outputs; o += some) {
                some = j.outputs - o >= TOGETHER ? TOGETHER : 1;
                if (some == 1) grouped_sums(&j, 1, 0, o, end - begin);
                else grouped_sums(&j, TOGETHER, 0, o, end - begin);
                for (ptrdiff_t i = 0; i < some; i++)
                    grouped_write(&j, args, g * j.outputs + o + i, j.result + i * j.plane, begin, end);
            }
        }
    }
    arena_close(&memory);
    return FVLRP_OK;
}

/* ---- adjoint ---- */

/* Add the results of rows begin .. end - 1 in one phase to their pixels of a channel. */
static void grouped_add(const grouped_job *j, ptrdiff_t phase, const REAL *from, ptrdiff_t begin, ptrdiff_t end,
                        REAL *channel) {
    const fvlrp_windows *w = j->w;
    const ptrdiff_t across = phase % j->stride[1] - w->left, low = first_inside(across, w->stride_x);
    const ptrdiff_t high = imin(end_inside(across, w->stride_x, w->width), j->count[1]);
    for (ptrdiff_t r = begin; r < end; r++, from += j->pitch) {
        const ptrdiff_t y = (w->first + r) * w->stride_y + phase / j->stride[1] - w->top;
        if (y < 0 || y >= w->height) continue;
        REAL *to = channel + y * w->width + across;
        if (w->stride_x == 1)
            for (ptrdiff_t x = low; x < high; x++) to[x] += from[x];
        else
            for (ptrdiff_t x = low; x < high; x++) to[w->stride_x * x] += from[x];
    }
}

/* The results of rows begin .. end - 1 of group g in one phase, added to the pixels. */
static void grouped_back_rows(const grouped_job *j, ptrdiff_t g, ptrdiff_t phase, ptrdiff_t begin, ptrdiff_t end,
                                REAL *out) {
    for (ptrdiff_t o = 0, some; o < j->outputs; o += some) {
        some = j->outputs - o >= TOGETHER ? TOGETHER : 1;
        if (some == 1) grouped_sums(j, 1, phase, o, end - begin);
        else grouped_sums(j, TOGETHER, phase, o, end - begin);
        for (ptrdiff_t i = 0; i < some; i++)
            grouped_add(j, phase, j->result + i * j->plane, begin, end,
                        out + (g * j->outputs + o + i) * j->w->height * j->w->width);
    }
}

static int grouped_back(const fvlrp_grouped_back_args *args) {
    const fvlrp_windows *w = &args->windows;
#if VBYTES == 64
    if (depthwise_suits(w, &args->weights)) return depthwise_back(args);
#endif
    grouped_job j = grouped_job_of(w, &args->weights, args->group, args->share, args->other, 1);
    arena memory = {0};
    if (grouped_open(&j, &memory)) return FVLRP_E_MEMORY;
    for (ptrdiff_t g = 0; g < args->groups && w->rows; g++) {
        grouped_factors(&j, g);
        for (ptrdiff_t begin = 0; begin < j.count[0]; begin += j.rows) {
            const ptrdiff_t end = imin(begin + j.rows, j.count[0]);
            grouped_planes(&j, g, begin, end);
            for (ptrdiff_t phase = 0; phase < j.lists; phase++)
                if (j.list[phase] < j.list[phase + 1]) grouped_back_rows(&j, g, phase, begin, end, args->out);
        }
    }
    arena_close(&memory);
    return FVLRP_OK;
}

#endif
