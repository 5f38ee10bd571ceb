/* status.c - words for the codes of fvlrp.h. */
#include "fvlrp.h"

const char *fvlrp_words(int status) {
    switch (status) {
    case FVLRP_OK: return "no error";
    case FVLRP_E_ARGUMENT: return "a size, type or option is outside its range";
    case FVLRP_E_MEMORY: return "not enough memory for the kernel's scratch arrays";
    case FVLRP_E_FULL: return "the output array is full";
    case FVLRP_E_ISA: return "this build or this processor lacks the instruction set asked for";
    default: return "unknown status";
    }
}
