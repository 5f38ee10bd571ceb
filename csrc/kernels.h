/* kernels.h - private to csrc: the list of kernels, and the table of them that each build of isa.c exports.
 *
 * A kernel is one line here. Everything else follows from its name: fvlrp_<name>() and fvlrp_<name>_args in fvlrp.h,
 * fvlrp_check_<name>() in checks.c of its wing, and <name>() in an .inc.c file that isa.c includes. The second word
 * says by which real type the call is dispatched. */
#ifndef FVLRP_KERNELS_H
#define FVLRP_KERNELS_H

#include "fvlrp.h"

/* Float alone, or float in and double out. */
#define FVLRP_KERNELS_F32(KERNEL)                                                                                      \
    KERNEL(sift, FVLRP_F32)                                                                                            \
    KERNEL(scores, FVLRP_F32)                                                                                          \
    KERNEL(winograd, FVLRP_F32)

/* Double arithmetic alone. */
#define FVLRP_KERNELS_F64(KERNEL)                                                                                      \
    KERNEL(merge, FVLRP_F64)                                                                                           \
    KERNEL(normalise, FVLRP_F64)                                                                                       \
    KERNEL(normalise_intra, FVLRP_F64)                                                                                 \
    KERNEL(exchange, FVLRP_F64)                                                                                        \
    KERNEL(roots, FVLRP_F64)                                                                                           \
    KERNEL(shares, FVLRP_F64)                                                                                          \
    KERNEL(splat, FVLRP_F64)

/* Compiled for either real type. */
#define FVLRP_KERNELS_BOTH(KERNEL)                                                                                     \
    KERNEL(sift_pixels, args->real)                                                                                    \
    KERNEL(model_pack, args->real)                                                                                     \
    KERNEL(project, args->model->real)                                                                                 \
    KERNEL(posteriors, args->model->real)                                                                              \
    KERNEL(pool, args->model->real)                                                                                    \
    KERNEL(encode, args->model->real)                                                                                  \
    KERNEL(tables, args->model->real)                                                                                  \
    KERNEL(relevance, args->model->real)                                                                               \
    KERNEL(grouped, args->real)                                                                                        \
    KERNEL(grouped_back, args->real)                                                                                   \
    KERNEL(product, args->real)                                                                                        \
    KERNEL(dense_sums, args->outputs.real)                                                                             \
    KERNEL(dense_back, args->outputs.real)                                                                             \
    KERNEL(dense_alpha_beta, args->outputs.real)                                                                       \
    KERNEL(alpha_beta, args->real)                                                                                     \
    KERNEL(grouped_alpha_beta, args->real)                                                                             \
    KERNEL(alive, args->real)                                                                                          \
    KERNEL(max_pool, args->real)                                                                                       \
    KERNEL(max_pool_back, args->real)                                                                                  \
    KERNEL(join, args->real)                                                                                           \
    KERNEL(activate, args->real)                                                                                       \
    KERNEL(softmax, args->real)                                                                                        \
    KERNEL(layer_norm, args->real)

#define FVLRP_KERNELS(KERNEL) FVLRP_KERNELS_F32(KERNEL) FVLRP_KERNELS_F64(KERNEL) FVLRP_KERNELS_BOTH(KERNEL)

/* The kernels of one instruction set and real type; NULL where a kernel has no such type. */
typedef struct fvlrp_table {
#define KERNEL(name, real) int (*name)(const fvlrp_##name##_args *args);
    FVLRP_KERNELS(KERNEL)
#undef KERNEL
} fvlrp_table;

/* FVLRP_OK, or the status with which a call is refused. */
#define KERNEL(name, real) int fvlrp_check_##name(const fvlrp_##name##_args *args);
FVLRP_KERNELS(KERNEL)
#undef KERNEL

#endif
