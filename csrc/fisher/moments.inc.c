/* moments.inc.c - the Fisher vector's statistics (Eqs. 3-4).
 *
 * With z = (y - mu_k) / sigma_k:  Psi_mu = gamma z / sqrt(pi_k),  Psi_sigma = gamma (z^2 - 1) / sqrt(2 pi_k).
 * Summed here over descriptors are gamma, gamma z and gamma z^2; the constants per component come later, in double. */
#ifndef FVLRP_MOMENTS
#define FVLRP_MOMENTS

#include "fisher/model.h"
#include "fisher/posteriors.inc.c"
#include "fisher/project.inc.c"

/* A tile's entries sorted by component: its scales and sums, whose loads are the bottleneck, are then read once a tile
 * and stay in registers. */
typedef struct {
    int64_t *heads; /* (K + 2): where each component's entries begin */
    uint8_t *rows;  /* (TILE K): row of each entry in the tile */
    REAL *gamma;    /* (TILE K) */
    REAL *first, *second; /* (stride): sums of gamma z and gamma z^2 of one component */
} by_component;

static void by_component_layout(by_component *t, const fvlrp_model *model, arena *memory) {
    t->heads = carve(memory, model->components + 2, sizeof(int64_t));
    t->rows = carve(memory, TILE * model->components, 1);
    t->gamma = carve(memory, TILE * model->components, sizeof(REAL));
    t->first = carve(memory, model->stride, sizeof(REAL));
    t->second = carve(memory, model->stride, sizeof(REAL));
}

/* Counting sort of the entries of m <= TILE rows; rows stay ascending within a component. */
static void by_component_fill(by_component *t, ptrdiff_t components, ptrdiff_t m, const fvlrp_csr *csr) {
    const int64_t *indptr = csr->indptr;
    int64_t *next = t->heads + 1; /* counts first, then running starts, which end as the next component's head */
    memset(t->heads, 0, (size_t)(components + 2) * sizeof(int64_t));
    for (int64_t e = indptr[0]; e < indptr[m]; e++) next[csr->index[e] + 1]++;
    for (ptrdiff_t k = 1; k <= components; k++) next[k] += next[k - 1];
    for (ptrdiff_t i = 0; i < m; i++)
        for (int64_t e = indptr[i]; e < indptr[i + 1]; e++) {
            const int64_t to = next[csr->index[e]]++;
            t->rows[to] = (uint8_t)i;
            t->gamma[to] = ((const REAL *)csr->gamma)[e];
        }
}

/* Vectors of columns whose sums fit in registers. */
enum { POOL_VECTORS = VBYTES == 64 ? 5 : 2 };

/* Sums over one component's `count` entries, `width` vectors of columns from `at` on: at most TILE rows in float. */
INLINE void pool_columns(const int width, const fvlrp_model *model, by_component *t, ptrdiff_t k, int64_t begin,
                         int64_t count, const REAL *y, ptrdiff_t at) {
    const ptrdiff_t stride = model->stride;
    const REAL *scales = (const REAL *)model->tables->scale + k * stride + at;
    const REAL *shifts = (const REAL *)model->tables->shift + k * stride + at;
    VREAL scale[5], shift[5], gz[5], gzz[5];
    UNROLL for (int v = 0; v < width; v++) {
        scale[v] = load(scales + v * LANES);
        shift[v] = load(shifts + v * LANES);
        gz[v] = gzz[v] = (VREAL){0};
    }
    for (int64_t e = begin; e < begin + count; e++) {
        const REAL *row = y + t->rows[e] * stride + at;
        const VREAL g = fill(t->gamma[e]);
        UNROLL for (int v = 0; v < width; v++) {
            const VREAL z = load(row + v * LANES) * scale[v] + shift[v];
            const VREAL weighted = g * z;
            gz[v] += weighted;
            gzz[v] += weighted * z;
        }
    }
    UNROLL for (int v = 0; v < width; v++) {
        store(t->first + at + v * LANES, gz[v]);
        store(t->second + at + v * LANES, gzz[v]);
    }
}

/* ADD a tile of m rows to the moments; sums in float end with the tile. */
static void pool_tile(const fvlrp_model *model, by_component *t, const REAL *y, ptrdiff_t m, const fvlrp_csr *csr,
                      const fvlrp_moments *to) {
    const ptrdiff_t dims = model->dims, stride = model->stride, width = POOL_VECTORS * LANES;
    by_component_fill(t, model->components, m, csr);
    for (ptrdiff_t k = 0; k < model->components; k++) {
        const int64_t begin = t->heads[k], count = t->heads[k + 1] - begin;
        if (!count) continue;
        ptrdiff_t at = 0;
        for (; at + width <= stride; at += width) pool_columns(POOL_VECTORS, model, t, k, begin, count, y, at);
        for (; at < stride; at += LANES) pool_columns(1, model, t, k, begin, count, y, at);
        double sum = 0;
        for (int64_t e = begin; e < begin + count; e++) sum += (double)t->gamma[e];
        to->s0[k] += sum;
        for (ptrdiff_t d = 0; d < dims; d++) to->s1[k * dims + d] += (double)t->first[d];
        for (ptrdiff_t d = 0; d < dims; d++) to->s2[k * dims + d] += (double)t->second[d];
    }
}

static int pool(const fvlrp_pool_args *args) {
    const ptrdiff_t n = args->n;
    by_component t;
    arena memory = {0};
    by_component_layout(&t, args->model, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    by_component_layout(&t, args->model, &memory);
    fvlrp_csr csr = args->csr;
    for (ptrdiff_t first = 0; first < n; first += TILE, csr.indptr += TILE)
        pool_tile(args->model, &t, (const REAL *)args->y + first * args->model->stride, imin(n - first, TILE), &csr,
                  &args->moments);
    arena_close(&memory);
    return FVLRP_OK;
}

/* ---- projection, posteriors and moments of a tile while it is in cache ---- */

typedef struct {
    projector project;
    assigner assign;
    by_component pool;
} encoder;

static void encoder_layout(encoder *e, const fvlrp_encode_args *args, arena *memory) {
    e->project = projector_of(args->model, &args->descriptors);
    projector_layout(&e->project, memory);
    assigner_layout(&e->assign, args->model, memory);
    by_component_layout(&e->pool, args->model, memory);
}

static int encode(const fvlrp_encode_args *args) {
    const ptrdiff_t n = args->descriptors.n;
    encoder e;
    arena memory = {0};
    *args->done = 0;
    encoder_layout(&e, args, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    encoder_layout(&e, args, &memory);
    assigned to = {args->csr, args->capacity, NULL};
    ptrdiff_t done = 0, fitted, m;
    do {
        REAL *y = (REAL *)args->y + done * args->model->stride;
        m = imin(TILE, n - done);
        project_tile(&e.project, done, m, y);
        fitted = assign_tile(&e.assign, y, m, &to);
        pool_tile(args->model, &e.pool, y, fitted, &to.csr, &args->moments);
        done += fitted;
        to.csr.indptr += fitted;
    } while (fitted == m && done < n);
    *args->done = done;
    arena_close(&memory);
    return fitted < m ? FVLRP_E_FULL : FVLRP_OK;
}

#endif
