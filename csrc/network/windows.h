/* windows.h - which outputs read inside the image, for each tap of a window. */
#ifndef FVLRP_WINDOWS_H
#define FVLRP_WINDOWS_H

#include "fvlrp.h"
#include "sizes.h"

/* Through a tap, output o reads input o stride + offset. The first o >= 0 whose input is >= 0, and the end of the outputs
 * whose input is below `length`. */
INLINE ptrdiff_t first_inside(ptrdiff_t offset, ptrdiff_t stride) {
    return offset >= 0 ? 0 : (-offset + stride - 1) / stride;
}
INLINE ptrdiff_t end_inside(ptrdiff_t offset, ptrdiff_t stride, ptrdiff_t length) {
    return length > offset ? (length - 1 - offset) / stride + 1 : 0;
}

#endif
