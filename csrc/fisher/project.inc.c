/* project.inc.c - descriptors to D dimensions: y = P (x - m). */
#ifndef FVLRP_PROJECT
#define FVLRP_PROJECT

#include "fisher/bytes.inc.c"
#include "fisher/model.h"
#include "gemm.inc.c"

/* Rows processed together, so that each step finds its input in the L2 cache (docs/numerics.md §7). A multiple of the
 * block sizes of all products. */
enum { TILE = 192 };

/* The row in `x` of descriptor i of a call. */
INLINE ptrdiff_t row_of(const fvlrp_descriptors *from, ptrdiff_t i) {
    return from->rows ? (ptrdiff_t)from->rows[i] : i;
}

/* Descriptors first .. first + m - 1 as real rows of `inputs` values. */
static void gather(const fvlrp_descriptors *from, ptrdiff_t first, ptrdiff_t m, ptrdiff_t inputs, REAL *out) {
    for (ptrdiff_t i = first; i < first + m; i++, out += inputs) {
        const ptrdiff_t at = row_of(from, i) * inputs;
        if (from->type == FVLRP_U8)
            for (ptrdiff_t j = 0; j < inputs; j++) out[j] = ((const uint8_t *)from->x)[at + j];
        else if (from->type == FVLRP_F32)
            for (ptrdiff_t j = 0; j < inputs; j++) out[j] = ((const float *)from->x)[at + j];
        else
            for (ptrdiff_t j = 0; j < inputs; j++) out[j] = (REAL)((const double *)from->x)[at + j];
    }
}

/* Subtract the mean. */
static void centre_rows(const fvlrp_model *model, ptrdiff_t m, REAL *x) {
    const REAL *mean = model->tables->mean;
    for (ptrdiff_t i = 0; i < m; i++)
        for (ptrdiff_t j = 0; j < model->inputs; j++) x[i * model->inputs + j] -= mean[j];
}

INLINE int has_mean(const fvlrp_model *model) {
    for (ptrdiff_t j = 0; j < model->inputs; j++)
        if (((const REAL *)model->tables->mean)[j] != 0) return 1;
    return 0;
}

/* How the descriptors of one call are projected, and a tile of them. */
typedef struct {
    const fvlrp_model *model;
    const fvlrp_descriptors *from;
    int centre, bytes;
    REAL *in; /* (TILE, inputs) */
} projector;

static projector projector_of(const fvlrp_model *model, const fvlrp_descriptors *from) {
    const int centre = has_mean(model);
    return (projector){model, from, centre, bytes_fit(from->type, model->inputs, centre), NULL};
}

static void projector_layout(projector *p, arena *memory) {
    p->in = carve(memory, p->bytes ? 0 : TILE, p->model->inputs * (ptrdiff_t)sizeof(REAL));
}

/* y (m, stride) of the m <= TILE descriptors from `first` on. */
static void project_tile(const projector *p, ptrdiff_t first, ptrdiff_t m, REAL *y) {
    const fvlrp_model *model = p->model;
    const ptrdiff_t inputs = model->inputs, stride = model->stride;
    if (p->bytes) {
        bytes_project(model, p->from, first, m, y);
        return;
    }
    gather(p->from, first, m, inputs, p->in);
    if (p->centre) centre_rows(model, m, p->in);
    gemm(p->in, inputs, m, inputs, model->tables->forward, stride, y, stride);
}

static int project(const fvlrp_project_args *args) {
    const ptrdiff_t n = args->descriptors.n;
    projector p = projector_of(args->model, &args->descriptors);
    arena memory = {0};
    projector_layout(&p, &memory);
    if (arena_open(&memory)) return FVLRP_E_MEMORY;
    projector_layout(&p, &memory);
    for (ptrdiff_t first = 0; first < n; first += TILE)
        project_tile(&p, first, imin(TILE, n - first), (REAL *)args->y + first * args->model->stride);
    arena_close(&memory);
    return FVLRP_OK;
}

#endif
