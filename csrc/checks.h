/* checks.h - private to csrc: what the argument checks of both wings share. */
#ifndef FVLRP_CHECKS_H
#define FVLRP_CHECKS_H

#include "kernels.h"
#include "sizes.h"

INLINE int bad_real(int real) { return real != FVLRP_F32 && real != FVLRP_F64; }
INLINE int bad_type(int type) { return type != FVLRP_U8 && bad_real(type); }
/* FVLRP_E_ARGUMENT where something is bad. */
INLINE int refused(int bad) { return bad ? FVLRP_E_ARGUMENT : FVLRP_OK; }

#endif
