# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True, freethreading_compatible=True
"""Thin binding of csrc/fvlrp.h: shapes and types in, allocation, a call without the GIL, a status turned into words."""

import os

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint16_t

cimport cython

cdef extern from "fvlrp.h" nogil:
    enum:
        FVLRP_OK
        FVLRP_E_MEMORY
        FVLRP_E_FULL
        FVLRP_U8
        FVLRP_F32
        FVLRP_F64

    const char *fvlrp_words(int status)
    int fvlrp_select(const char *isa)
    const char *fvlrp_isa()
    const char *fvlrp_isa_available(int i)


cdef int check(int status) except -1:
    if status == FVLRP_OK:
        return 0
    words = fvlrp_words(status).decode()
    if status == FVLRP_E_MEMORY:
        raise MemoryError(words)
    raise ValueError(words)


cdef void *address(array) except? NULL:
    """First byte of a C-contiguous array, NULL for None."""
    return NULL if array is None else <void *><size_t>array.ctypes.data


cdef int element(array) except -1:
    """FVLRP_U8, FVLRP_F32 or FVLRP_F64."""
    if array.dtype == np.uint8:
        return FVLRP_U8
    if array.dtype == np.float32:
        return FVLRP_F32
    if array.dtype == np.float64:
        return FVLRP_F64
    raise TypeError(f"array must be uint8, float32 or float64, got {array.dtype}")


def take(array, name, shape, dtypes):
    """`array` itself, or an error that names it: C-contiguous, of one of `dtypes`, of `shape` (None = any length)."""
    if not isinstance(array, np.ndarray) or array.dtype not in [np.dtype(d) for d in dtypes]:
        kinds = " or ".join(np.dtype(d).name for d in dtypes)
        raise TypeError(f"{name} must be an array of {kinds}, got {getattr(array, 'dtype', type(array).__name__)}")
    if array.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, array.shape)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must have shape ({wanted}), got {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous")
    return array


def isa():
    """Instruction set in use: "v2", "v3" or "v4" (x86-64 levels), or "generic"."""
    return fvlrp_isa().decode()


def isas():
    """Instruction sets that this build and this processor both have, best first."""
    names, i = [], 0
    while fvlrp_isa_available(i) != NULL:
        names.append(fvlrp_isa_available(i).decode())
        i += 1
    return names


def select(name=None):
    """Switch to instruction set `name` (None: the best). Models packed before are void; not while a kernel runs."""
    encoded = (name or "").encode()
    if fvlrp_select(encoded) != FVLRP_OK:
        raise ValueError(f"FVLRP_ISA must be one of {isas()} on this machine, got {name!r}")


select(os.environ.get("FVLRP_ISA"))


# ---- dense SIFT ------------------------------------------------------------------------------------------------------


# ---- projection, mixture, Fisher vector, relevance -------------------------------------------------------------------


# ---- splats ----------------------------------------------------------------------------------------------------------

