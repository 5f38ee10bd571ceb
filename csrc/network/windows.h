/* windows.h - which outputs of a window see the inside of an image. */
#ifndef FVLRP_WINDOWS_H
#define FVLRP_WINDOWS_H

#include "fvlrp.h"
#include "sizes.h"

/* Output o sees the input o stride + offset through a tap. The first o >= 0 that sees one >= 0, and the end of those
 * that see one below `length`. */
INLINE ptrdiff_t first_inside(ptrdiff_t offset, ptrdiff_t stride) {
    return offset >= 0 ? 0 : (-offset + stride - 1) / stride;
}
INLINE ptrdiff_t end_inside(ptrdiff_t offset, ptrdiff_t stride, ptrdiff_t length) {
    return length > offset ? (length - 1 - offset) / stride + 1 : 0;
}

#endif
