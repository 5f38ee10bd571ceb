/* exchange.inc.c - sums of Psi after some descriptors have changed. Encodings are float, all arithmetic is double. */
#ifndef REAL_BITS
#define REAL_BITS 64
#endif
#include "arena.h"
#include "fisher/model.h"
#include "simd.h"

/* A posterior, times -1 for what was before, and the projection of its descriptor. */
typedef struct {
    const float *y;
    double gamma;
} posterior;

/* The posteriors of one group sorted by component, whose sums then stay in registers. */
typedef struct {
    int64_t *heads; /* (K + 2): where each component's posteriors begin */
    posterior *entries;
    double *first, *second; /* (stride): sums of gamma y and gamma y^2 of one component */
} by_group;

INLINE int64_t entries_of(const fvlrp_encoded *from, int64_t row) { return from->end[row] - from->begin[row]; }

static void by_group_layout(by_group *t, const fvlrp_exchange_args *args, arena *memory) {
    ptrdiff_t count = 0;
    for (ptrdiff_t i = 0; i < args->n; i++)
        count += entries_of(&args->before, args->rows[i]) + entries_of(&args->after, i);
    t->heads = carve(memory, args->model->components + 2, sizeof(int64_t));
    t->entries = carve(memory, count, sizeof(posterior));
    t->first = carve(memory, args->model->stride, sizeof(double));
    t->second = carve(memory, args->model->stride, sizeof(double));
}

/* Count a row's posteriors, and fetch its projection, which is rarely in cache. */
INLINE void count_row(int64_t *counts, const fvlrp_encoded *from, int64_t row, ptrdiff_t stride) {
    for (ptrdiff_t d = 0; d < stride; d += 16) __builtin_prefetch(from->y + row * stride + d);
    for (int64_t e = from->begin[row]; e < from->end[row]; e++) counts[from->index[e]]++;
}

INLINE void place_row(int64_t *next, posterior *entries, const fvlrp_encoded *from, int64_t row, double sign,
                      ptrdiff_t stride) {
    const float *y = from->y + row * stride;
    for (int64_t e = from->begin[row]; e < from->end[row]; e++)
        entries[next[from->index[e]]++] = (posterior){y, sign * (double)from->gamma[e]};
}

/* Counting sort of the posteriors of one group, before and after. */
static void sort_group(by_group *t, const fvlrp_exchange_args *args, ptrdiff_t group) {
    const ptrdiff_t components = args->model->components, stride = args->model->stride;
    int64_t *next = t->heads + 1; /* counts first, then running starts, which end as the next component's head */
    memset(t->heads, 0, (size_t)(components + 2) * sizeof(int64_t));
    for (ptrdiff_t i = 0; i < args->n; i++) {
        if (args->group[i] != group) continue;
        count_row(next + 1, &args->before, args->rows[i], stride);
        count_row(next + 1, &args->after, i, stride);
    }
    for (ptrdiff_t k = 1; k <= components; k++) next[k] += next[k - 1];
    for (ptrdiff_t i = 0; i < args->n; i++) {
        if (args->group[i] != group) continue;
        place_row(next, t->entries, &args->before, args->rows[i], -1, stride);
        place_row(next, t->entries, &args->after, i, 1, stride);
    }
}

INLINE vdouble widened(const float *p) {
#if VBYTES == 64
    return (vdouble)_mm512_cvtps_pd(_mm256_loadu_ps(p)); /* one instruction, which compilers do not find */
#else
    vdouble v = {0};
    for (int i = 0; i < DOUBLES; i++) v[i] = (double)p[i];
    return v;
#endif
}

/* Sums over the entries begin .. end - 1, `width` vectors of columns from `at` on. */
INLINE void sum_columns(const int width, const by_group *t, int64_t begin, int64_t end, ptrdiff_t at) {
    vdouble first[10], second[10];
    UNROLL for (int v = 0; v < width; v++) first[v] = second[v] = (vdouble){0};
    for (int64_t e = begin; e < end; e++) {
        const float *row = t->entries[e].y + at;
        const vdouble gamma = fill(t->entries[e].gamma);
        UNROLL for (int v = 0; v < width; v++) {
            const vdouble y = widened(row + v * LANES), weighted = gamma * y;
            first[v] += weighted;
            second[v] += weighted * y;
        }
    }
    UNROLL for (int v = 0; v < width; v++) {
        store(t->first + at + v * LANES, first[v]);
        store(t->second + at + v * LANES, second[v]);
    }
}

/* Sums of gamma y and gamma y^2 over the entries begin .. end - 1; returns the sum of gamma. */
static double sum_entries(const by_group *t, ptrdiff_t stride, int64_t begin, int64_t end) {
    enum { VECTORS = VBYTES == 64 ? 10 : 4 }; /* of columns whose sums fit in registers */
    ptrdiff_t at = 0;
    for (; at + VECTORS * LANES <= stride; at += VECTORS * LANES) sum_columns(VECTORS, t, begin, end, at);
    for (; at < stride; at += LANES) sum_columns(1, t, begin, end, at);
    double sum = 0;
    for (int64_t e = begin; e < end; e++) sum += t->entries[e].gamma;
    return sum;
}

/* Moments of y become those of z = a y + b in place. Doubles lose nothing that matters here, as floats would
 * (docs/numerics.md §7). */
static void centre_moments(const fvlrp_model *model, ptrdiff_t k, double s0, double *first, double *second) {
    const double *scale = (const double *)model->tables->scale + k * model->stride;
    const double *shift = (const double *)model->tables->shift + k * model->stride;
    for (ptrdiff_t d = 0; d < model->dims; d++) {
        const double a = scale[d], b = shift[d], ay = a * first[d];
        first[d] = ay + b * s0;
        second[d] = a * a * second[d] + b * (2 * ay + b * s0);
    }
}

/* Add the sorted posteriors of a group to the sums of the cells that it lies in. */
static void add_group(const by_group *t, const fvlrp_exchange_args *args, const int64_t *cells) {
    const fvlrp_model *model = args->model;
    const ptrdiff_t K = model->components, dims = model->dims;
    for (ptrdiff_t k = 0; k < K; k++) {
        const int64_t begin = t->heads[k], end = t->heads[k + 1];
        if (begin == end) continue;
        const double s0 = sum_entries(t, model->stride, begin, end);
        const double by_u = 1 / sqrt(args->priors[k]), by_v = by_u / sqrt(2.0);
        centre_moments(model, k, s0, t->first, t->second);
        for (ptrdiff_t level = 0; level < args->levels; level++) {
            double *u = args->sums + (cells[level] * 2 * K + k) * dims, *v = u + K * dims;
            for (ptrdiff_t d = 0; d < dims; d++) u[d] += t->first[d] * by_u;
            for (ptrdiff_t d = 0; d < dims; d++) v[d] += (t->second[d] - s0) * by_v;
            args->stale[cells[level] * K + k] = 1;
        }
    }
}

static int exchange(const fvlrp_exchange_args *args) {
    by_group t;
    arena memory = {0};
    by_group_layout(&t, args, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    by_group_layout(&t, args, &memory);
    for (ptrdiff_t group = 0; group < args->groups; group++) {
        sort_group(&t, args, group);
        add_group(&t, args, args->group_cells + group * args->levels);
    }
    arena_close(&memory);
    return FVLRP_OK;
}
