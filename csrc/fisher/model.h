/* model.h - the tables of a packed model, and their layout in its block of memory. */
#ifndef FVLRP_MODEL_H
#define FVLRP_MODEL_H

#include "arena.h"
#include "fvlrp.h"

#define TINY 1e-12 /* a sum below this part of its bound counts as 0: docs/numerics.md §3 */

/* For screen.inc.c. `padded` is K rounded up to whole panels of any instruction set. */
typedef struct {
    double mean_level;
    float *scale, *shift;   /* (stride): z = y scale + shift */
    float *square, *linear; /* (stride): t of z^2 - 1 and of z */
    float *start, *step;    /* (padded): constants of the logits, -infinity in the padding; steps of the coefficients */
    float *noise;           /* (padded): noise_k */
    float *level;           /* (padded): log pi_k - 1/2 sum log 2 pi sigma_k^2, less their mean */
    int32_t *begin;         /* (padded): where sums start, which takes back the offset of the features */
    int8_t *table;          /* coefficients by panel: [four features][column][of the four] */
} screen_tables;

typedef struct fvlrp_model_tables {
    void *forward;       /* real: P^T (inputs, stride), packed for gemm() */
    void *backward;      /* real: P (stride, inputs rounded up to 16), packed */
    void *binned;        /* real (D, inputs): P, each row with orientations outside and bins inside */
    void *mean;          /* real (inputs): m, 0 where there is none */
    double *basis;       /* (D, inputs): P */
    float *byte_units;   /* (stride): for bytes.inc.c */
    int8_t *byte_pieces; /* (stride, 3, inputs), by panel */

    void *logits;        /* real: coefficients of y^2, of y and of 1 (2 stride + 1, padded), packed */
    void *origin;        /* real (stride): logits are functions of y - origin */
    double *centre;      /* (2 stride + 1): means over the components of the coefficients, which logits leave out */
    void *scale, *shift; /* real (K, stride): (y - mu_k) / sigma_k = y scale + shift */
    screen_tables screen;
} fvlrp_model_tables;

INLINE ptrdiff_t padded_components(ptrdiff_t components) { return round_up(components, 64); }
INLINE ptrdiff_t padded_dims(ptrdiff_t dims) { return round_up(dims, 16); }

/* The block of a model, for any instruction set: its tables, and what they point to. */
static inline fvlrp_model_tables *model_layout(const fvlrp_model_pack_args *args, arena *memory) {
    const ptrdiff_t inputs = args->inputs, dims = args->dims, K = args->components, real = args->real;
    const ptrdiff_t stride = padded_dims(dims), padded = padded_components(K);
    fvlrp_model_tables counted, *tables = carve(memory, 1, sizeof *tables), *t = tables ? tables : &counted;
    t->forward = carve(memory, inputs * stride, real);
    t->backward = carve(memory, stride * round_up(inputs, 16), real);
    t->binned = carve(memory, dims * inputs, real);
    t->mean = carve(memory, inputs, real);
    t->basis = carve(memory, dims * inputs, sizeof(double));
    t->byte_units = carve(memory, stride, sizeof(float));
    t->byte_pieces = carve(memory, 3 * stride * inputs, 1);

    t->logits = carve(memory, (2 * stride + 1) * padded, real);
    t->origin = carve(memory, stride, real);
    t->centre = carve(memory, 2 * stride + 1, sizeof(double));
    t->scale = carve(memory, K * stride, real);
    t->shift = carve(memory, K * stride, real);
    float **const per_dim[] = {&t->screen.scale, &t->screen.shift, &t->screen.square, &t->screen.linear};
    for (int i = 0; i < 4; i++) *per_dim[i] = carve(memory, stride, sizeof(float));
    float **const per_component[] = {&t->screen.start, &t->screen.step, &t->screen.noise, &t->screen.level};
    for (int i = 0; i < 4; i++) *per_component[i] = carve(memory, padded, sizeof(float));
    t->screen.begin = carve(memory, padded, sizeof(int32_t));
    t->screen.table = carve(memory, 2 * stride * padded, 1);
    return tables;
}

#endif
