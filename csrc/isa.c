/* isa.c - all kernels of one instruction set and one real type: compiled with -DFVLRP_ISA=v2|v3|v4|vnni|generic and
 * -DREAL_BITS=32|64. Everything it includes is static; the table is its only symbol. */
#include "kernels.h"
#include "simd.h"

#include "fisher/model.inc.c"
#include "fisher/moments.inc.c"
#include "fisher/posteriors.inc.c"
#include "fisher/project.inc.c"
#include "fisher/relevance.inc.c"
#include "fisher/sift_pixels.inc.c"
#include "network/activate.inc.c"
#include "network/alpha_beta.inc.c"
#include "network/dense.inc.c"
#include "network/grouped.inc.c"
#include "network/grouped_alpha_beta.inc.c"
#include "network/join.inc.c"
#include "network/pools.inc.c"
#include "network/product.inc.c"
#include "network/rows.inc.c"
#if REAL_BITS == 32
#include "fisher/scores.inc.c"
#include "fisher/sift.inc.c"
#include "network/winograd.inc.c"
#else
#include "fisher/exchange.inc.c"
#include "fisher/splat.inc.c"
#include "fisher/vector.inc.c"
#endif

#ifndef FVLRP_ISA
#define FVLRP_ISA generic
#endif
#define TABLE_NAME_(isa, bits) fvlrp_table_##isa##_f##bits
#define TABLE_NAME(isa, bits) TABLE_NAME_(isa, bits)

extern const fvlrp_table TABLE_NAME(FVLRP_ISA, REAL_BITS);
const fvlrp_table TABLE_NAME(FVLRP_ISA, REAL_BITS) = {
#define KERNEL(name, real) .name = name,
    FVLRP_KERNELS_BOTH(KERNEL)
#if REAL_BITS == 32
    FVLRP_KERNELS_F32(KERNEL)
#else
    FVLRP_KERNELS_F64(KERNEL)
#endif
#undef KERNEL
};
