# cython: language_level=3, embedsignature=True, autotestdict=False
"""Thin binding of csrc/fvlrp.h: shapes and types, allocation, a call without the GIL, a status turned into an exception.

A function here fills the struct that the kernel's declaration in fvlrp.h documents. The structs are declared with untyped
pointers: what an array holds is checked by `take`, and C converts the pointer.
"""

import os

import numpy as np

from cpython.buffer cimport PyBUF_STRIDES, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

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


ctypedef void *pointer  # the field's type is that of fvlrp.h


cdef int check(int status) except -1 nogil:
    """Raise the exception of a status other than FVLRP_OK."""
    if status == FVLRP_OK:
        return 0
    with gil:
        words = fvlrp_words(status).decode()
        raise MemoryError(words) if status == FVLRP_E_MEMORY else ValueError(words)


cdef pointer address(array) except? NULL:
    """First byte of an array, NULL for None."""
    cdef Py_buffer view
    if array is None:
        return NULL
    PyObject_GetBuffer(array, &view, PyBUF_STRIDES)
    cdef pointer first = view.buf
    PyBuffer_Release(&view)
    return first


U8, F32, F64 = np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.float64)
REALS = (F32, F64)


cdef int element(dtype) except -1:
    """FVLRP_U8, FVLRP_F32 or FVLRP_F64."""
    if dtype == F32:
        return FVLRP_F32
    if dtype == F64:
        return FVLRP_F64
    if dtype == U8:
        return FVLRP_U8
    raise TypeError(f"dtype must be uint8, float32 or float64, got {dtype}")


cdef bint matches(tuple shape, wanted):
    """Whether each length is as wanted, or None is."""
    cdef Py_ssize_t i
    if len(shape) != len(wanted):
        return False
    for i in range(len(shape)):
        if wanted[i] is not None and wanted[i] != shape[i]:
            return False
    return True


cdef bint among(dtype, dtypes):
    """Whether a dtype is one of some dtype-likes."""
    for one in dtypes:
        if dtype == one:
            return True
    return False


def take(array, name, shape, dtypes, writable=False):
    """`array` itself, or an error that names it.

    Parameters
    ----------
    array : object
        Must be a C-contiguous array.
    name : str
        Its name in the error.
    shape : sequence of int or None
        None: any length.
    dtypes : sequence of dtype-like
        One of them must be the array's.
    writable : bool
        Whether results go into it.

    Raises
    ------
    TypeError
        For anything but an array of one of `dtypes`.
    ValueError
        For a wrong shape, strides, or a read-only array where `writable`.
    """
    if not isinstance(array, np.ndarray) or not among(array.dtype, dtypes):
        kinds = " or ".join(np.dtype(d).name for d in dtypes)
        raise TypeError(f"{name} must be an array of {kinds}, got {getattr(array, 'dtype', type(array).__name__)}")
    if not matches(array.shape, shape):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must have shape ({wanted}), got {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous")
    if writable and not array.flags.writeable:
        raise ValueError(f"{name} must be writable: results go there")
    return array


def _optional(array, name, shape, dtypes, writable=False):
    """`take` for an argument that may be None."""
    return None if array is None else take(array, name, shape, dtypes, writable)


def aligned(shape, dtype):
    """An uninitialised array aligned to a cache line, which makes random access faster."""
    dtype = np.dtype(dtype)
    size = dtype.itemsize
    for length in shape:
        size *= length
    block = np.empty(size + 64, U8)
    cdef Py_ssize_t start = -<Py_ssize_t>address(block) & 63
    return block[start : start + size].view(dtype).reshape(shape)


def isa():
    """Instruction set in use: "v2", "v3", "v4" (x86-64 levels), "vnni" (v4 with dot products of bytes), or "generic"."""
    return fvlrp_isa().decode()


def isas():
    """Instruction sets that this build and this processor both support, best first."""
    names, i = [], 0
    while fvlrp_isa_available(i) != NULL:
        names.append(fvlrp_isa_available(i).decode())
        i += 1
    return names


def select(name=None):
    """Switch to instruction set `name` (None: the best).

    Models packed before are void. Not while a kernel runs.
    """
    encoded = (name or "").encode()
    if fvlrp_select(encoded) != FVLRP_OK:
        raise ValueError(f"FVLRP_ISA must be one of {isas()} on this machine, got {name!r}")


select(os.environ.get("FVLRP_ISA"))


# ---- dense SIFT ------------------------------------------------------------------------------------------------------

cdef extern from "fvlrp.h" nogil:
    enum:
        FVLRP_WINDOW_FLAT
        FVLRP_WINDOW_GAUSSIAN
        FVLRP_ANGLES_VLFEAT
        FVLRP_ANGLES_EXACT

    ctypedef struct fvlrp_scale:
        ptrdiff_t height, width, first, step, rows, cols, bin_size
        int window, angles
        double sigma, window_size, contrast_threshold

    ctypedef struct fvlrp_sift_args:
        fvlrp_scale scale
        pointer image
        ptrdiff_t begin, end
        int type
        pointer values, zeroed

    ctypedef struct fvlrp_sift_pixels_args:
        fvlrp_scale scale
        pointer image
        int real
        pointer relevance, pixels
        double *zero_bin

    int fvlrp_sift(const fvlrp_sift_args *args)
    int fvlrp_sift_pixels(const fvlrp_sift_pixels_args *args)


WINDOWS = {"flat": FVLRP_WINDOW_FLAT, "gaussian": FVLRP_WINDOW_GAUSSIAN}
ANGLES = {"vlfeat": FVLRP_ANGLES_VLFEAT, "exact": FVLRP_ANGLES_EXACT}


cdef fvlrp_scale scale_of(grey, grid, sigma, window, window_size, contrast_threshold, angles):
    """The C struct of `grid`, a geometry.Scale, on the image `grey`."""
    cdef fvlrp_scale scale
    take(grey, "grey", (None, None), [np.float32])
    scale.height, scale.width = grey.shape
    scale.first, scale.step, scale.rows, scale.cols = grid.first, grid.step, grid.rows, grid.cols
    scale.bin_size = grid.bin_size
    scale.window, scale.angles = WINDOWS[window], ANGLES[angles]
    scale.sigma, scale.window_size, scale.contrast_threshold = sigma, window_size, contrast_threshold
    return scale


def sift(grey, grid, values, zeroed, begin, end, *, sigma, window, window_size, contrast_threshold, angles):
    """Write the descriptors of the frame rows [begin, end) of one scale.

    Parameters
    ----------
    grey : float32 (height, width)
    grid : geometry.Scale
        Of that image.
    values : uint8 or float32 (rows, cols, 128)
    zeroed : uint8 (rows, cols)
        Both are written in these rows alone, so that several threads may share them.
    """
    cdef fvlrp_sift_args args
    args.scale = scale_of(grey, grid, sigma, window, window_size, contrast_threshold, angles)
    take(values, "values", (grid.rows, grid.cols, 128), [np.uint8, np.float32], True)
    take(zeroed, "zeroed", (grid.rows, grid.cols), [np.uint8], True)
    args.image, args.begin, args.end = address(grey), begin, end
    args.type, args.values, args.zeroed = element(values.dtype), address(values), address(zeroed)
    with nogil:
        check(fvlrp_sift(&args))


def sift_pixels(grey, grid, relevance, pixels, *, sigma, window, window_size, contrast_threshold, angles):
    """Add the relevance of one scale's values, float32 or float64 (rows, cols, 128), to `pixels` float64 (H, W).

    Returns the relevance of values whose bin holds no gradient at all.
    """
    cdef fvlrp_sift_pixels_args args
    cdef double zero_bin = 0
    args.scale = scale_of(grey, grid, sigma, window, window_size, contrast_threshold, angles)
    take(relevance, "relevance", (grid.rows, grid.cols, 128), REALS)
    take(pixels, "pixels", grey.shape, [np.float64], True)
    args.image, args.real, args.relevance = address(grey), element(relevance.dtype), address(relevance)
    args.pixels, args.zero_bin = address(pixels), &zero_bin
    with nogil:
        check(fvlrp_sift_pixels(&args))
    return zero_bin


# ---- projection, mixture, Fisher vector, relevance -------------------------------------------------------------------

cdef extern from "fvlrp.h" nogil:
    enum:
        FVLRP_MEAN_NONE
        FVLRP_MEAN_CENTERED
        FVLRP_MEAN_BIAS

    ctypedef struct fvlrp_model:
        int real
        ptrdiff_t inputs, dims, stride, components

    ctypedef struct fvlrp_model_pack_args:
        int real
        ptrdiff_t inputs, dims, components
        pointer basis, mean, priors, means, variances
        double gate
        pointer block
        fvlrp_model *model

    ctypedef struct fvlrp_descriptors:
        int type
        pointer x, rows
        ptrdiff_t n

    ctypedef struct fvlrp_csr:
        int64_t *indptr
        pointer index, gamma

    ctypedef struct fvlrp_moments:
        pointer s0, s1, s2

    ctypedef struct fvlrp_project_args:
        const fvlrp_model *model
        fvlrp_descriptors descriptors
        pointer y

    ctypedef struct fvlrp_posteriors_args:
        const fvlrp_model *model
        pointer y
        ptrdiff_t n
        fvlrp_csr csr
        ptrdiff_t capacity
        pointer loglik
        ptrdiff_t *done

    ctypedef struct fvlrp_pool_args:
        const fvlrp_model *model
        pointer y
        ptrdiff_t n
        fvlrp_csr csr
        fvlrp_moments moments

    ctypedef struct fvlrp_encode_args:
        const fvlrp_model *model
        fvlrp_descriptors descriptors
        pointer y
        fvlrp_csr csr
        ptrdiff_t capacity
        fvlrp_moments moments
        ptrdiff_t *done

    ctypedef struct fvlrp_tables_args:
        const fvlrp_model *model
        ptrdiff_t cells
        pointer shares, member, priors, means, deviations, tables

    ctypedef struct fvlrp_relevance_args:
        const fvlrp_model *model
        fvlrp_descriptors descriptors
        pointer y
        fvlrp_csr csr
        ptrdiff_t targets
        pointer tables
        double epsilon
        int mean
        ptrdiff_t pitch
        pointer total, pca, bins, sift, absorbed, bias

    size_t fvlrp_model_bytes(const fvlrp_model_pack_args *args)
    int fvlrp_model_pack(const fvlrp_model_pack_args *args)
    int fvlrp_project(const fvlrp_project_args *args)
    int fvlrp_posteriors(const fvlrp_posteriors_args *args)
    int fvlrp_pool(const fvlrp_pool_args *args)
    ctypedef struct fvlrp_encoded:
        ptrdiff_t rows, entries
        pointer y, begin, end, index, gamma

    ctypedef struct fvlrp_exchange_args:
        const fvlrp_model *model
        ptrdiff_t n, groups, levels, cells
        pointer rows, group, group_cells
        fvlrp_encoded before, after
        pointer priors, sums, stale

    int fvlrp_encode(const fvlrp_encode_args *args)
    int fvlrp_exchange(const fvlrp_exchange_args *args)
    int fvlrp_tables(const fvlrp_tables_args *args)
    int fvlrp_relevance(const fvlrp_relevance_args *args)


MEANS = {"none": FVLRP_MEAN_NONE, "centered": FVLRP_MEAN_CENTERED, "bias": FVLRP_MEAN_BIAS}


class Encoded:
    """What a forward pass over some descriptors leaves: projections and gated posteriors in CSR form.

    Attributes
    ----------
    y : real (n, stride) or None
        Projected descriptors, padded with zeros to whole vectors. `Model.relevance` does without them: it projects the
        descriptors again, to the same bits.
    indptr, index, gamma : int64 (n + 1,), uint16 (nnz,), real (nnz,)
        Row i's components and posteriors are ``index[indptr[i]:indptr[i + 1]]`` and ``gamma[...]``.
    """

    __slots__ = ("gamma", "indptr", "index", "y")

    def __init__(self, y, indptr, index, gamma):
        self.y, self.indptr, self.index, self.gamma = y, indptr, index, gamma


cdef fvlrp_csr csr_of(indptr, index, gamma):
    cdef fvlrp_csr csr
    csr.indptr, csr.index, csr.gamma = <int64_t *>address(indptr), address(index), address(gamma)
    return csr


cdef fvlrp_moments moments_of(moments):
    """The C struct of arrays s0, s1, s2."""
    cdef fvlrp_moments m
    m.s0, m.s1, m.s2 = address(moments[0]), address(moments[1]), address(moments[2])
    return m


cdef class Model:
    """A projection and a mixture, packed for the instruction set in use.

    Parameters
    ----------
    basis : float64 (D, inputs) or None
        Rows of the projection; None for a mixture alone (its data are then already projected).
    mean : float64 (inputs,) or None
        Subtracted before projecting.
    priors, means, variances : float64 (K,), (K, D), (K, D) or None
        The mixture; None for a projection alone.
    gate : float
        Posteriors below it count as 0.
    dtype : float32 or float64
        Type of the arithmetic.
    """

    cdef fvlrp_model model
    cdef readonly object dtype
    cdef object block, priors, means, deviations

    def __init__(self, basis, mean, priors, means, variances, gate=1e-6, dtype=np.float32):
        cdef fvlrp_model_pack_args args
        self.dtype = np.dtype(dtype)
        dims = inputs = components = 0
        if basis is not None:
            basis = take(np.ascontiguousarray(basis, np.float64), "basis", (None, None), [np.float64])
            dims, inputs = basis.shape
        if mean is not None:
            mean = take(np.ascontiguousarray(mean, np.float64), "mean", (inputs,), [np.float64])
        if priors is not None:
            means = take(np.ascontiguousarray(means, np.float64), "means", (None, None), [np.float64])
            components, dims = means.shape
            _optional(basis, "basis", (dims, None), [np.float64])
            priors = take(np.ascontiguousarray(priors, np.float64), "priors", (components,), [np.float64])
            variances = np.ascontiguousarray(variances, np.float64)
            take(variances, "variances", (components, dims), [np.float64])
            for name, array in (("priors", priors), ("variances", variances)):
                if not (array > 0).all():
                    raise ValueError(f"{name} must be positive, got {array.min()}")
            self.deviations = np.sqrt(variances)
        self.priors, self.means = priors, means
        args.real, args.inputs, args.dims, args.components = element(self.dtype), inputs, dims, components
        cdef size_t size = fvlrp_model_bytes(&args)
        if size == 0:
            raise ValueError(f"a model of {inputs} inputs, {dims} dimensions and {components} components is too large")
        self.block = np.empty(size, np.uint8)
        args.basis, args.mean = address(basis), address(mean)
        args.priors, args.means, args.variances = address(priors), address(means), address(variances)
        args.gate, args.block, args.model = gate, address(self.block), &self.model
        check(fvlrp_model_pack(&args))

    def __reduce__(self):
        raise TypeError("a packed model cannot be pickled: its tables are those of one instruction set")

    @property
    def dims(self):
        """D."""
        return self.model.dims

    @property
    def stride(self):
        """D rounded up to a multiple of 16: row length of projected descriptors."""
        return self.model.stride

    @property
    def components(self):
        """K."""
        return self.model.components

    cdef fvlrp_descriptors descriptors(self, x, rows):
        """The C struct of checked descriptors: all rows of `x`, or `rows` of them."""
        cdef fvlrp_descriptors d
        take(x, "x", (None, self.model.inputs), [np.uint8, np.float32, np.float64])
        _optional(rows, "rows", (None,), [np.int64])
        if rows is not None and rows.size and (rows.min() < 0 or rows.max() >= x.shape[0]):
            raise IndexError(f"rows must lie in 0..{x.shape[0] - 1}, got {rows.min()}..{rows.max()}")
        d.type, d.x, d.rows = element(x.dtype), address(x), address(rows)
        d.n = x.shape[0] if rows is None else rows.shape[0]
        return d

    def pad(self, y):
        """Copy (n, D) into (n, stride) of the model's type, as `posteriors` and `pool` take it."""
        padded = np.zeros((len(y), self.model.stride), self.dtype)
        padded[:, : self.model.dims] = y
        return padded

    def project(self, x, rows=None):
        """Projected descriptors, real (n, stride): columns past D are 0."""
        cdef fvlrp_project_args args
        args.model, args.descriptors = &self.model, self.descriptors(x, rows)
        y = np.empty((args.descriptors.n, self.model.stride), self.dtype)
        args.y = address(y)
        with nogil:
            check(fvlrp_project(&args))
        return y

    def posteriors(self, y, loglik=False):
        """Gated posteriors of projected descriptors: (Encoded, log-likelihoods float64 (n,) or None)."""
        cdef fvlrp_posteriors_args args
        cdef ptrdiff_t step = 0, done = 0
        cdef int status = FVLRP_E_FULL
        take(y, "y", (None, self.model.stride), [self.dtype])
        logs = np.empty(len(y)) if loglik else None
        indptr = np.zeros(len(y) + 1, np.int64)
        index, gamma = self._entries(self.capacity(len(y)))
        args.model, args.done = &self.model, &step
        while status == FVLRP_E_FULL:
            args.y, args.n, args.capacity = address(y[done:]), len(y) - done, len(index)
            args.csr, args.loglik = csr_of(indptr[done:], index, gamma), address(None if logs is None else logs[done:])
            with nogil:
                status = fvlrp_posteriors(&args)
            done += step
            if status == FVLRP_E_FULL:
                index, gamma = self._grown(index, gamma, indptr[done])
        check(status)
        return Encoded(y, indptr, index[: indptr[-1]], gamma[: indptr[-1]]), logs

    def encode(self, x, rows=None, room=None):
        """Project, assign and pool descriptors in one pass: (Encoded, (s0 (K,), s1 (K, D), s2 (K, D)) float64).

        `room` may hold arrays to write into, from `room`; the calls of several pieces can then share large ones.
        """
        cdef fvlrp_encode_args args
        cdef fvlrp_descriptors descriptors = self.descriptors(x, rows)
        cdef ptrdiff_t step = 0, done = 0, n = descriptors.n
        cdef int status = FVLRP_E_FULL
        if room is None:
            room = np.empty((n, self.model.stride), self.dtype), *self._entries(self.capacity(n))
        y = take(room[0], "room[0]", (n, self.model.stride), [self.dtype], True)
        index = take(room[1], "room[1]", (None,), [np.uint16], True)
        gamma = take(room[2], "room[2]", index.shape, [self.dtype], True)
        moments = self._moments()
        indptr = np.zeros(n + 1, np.int64)
        args.model, args.done, args.moments = &self.model, &step, moments_of(moments)
        while status == FVLRP_E_FULL:
            args.descriptors = self.descriptors(x[done:], None) if rows is None else self.descriptors(x, rows[done:])
            args.y, args.csr, args.capacity = address(y[done:]), csr_of(indptr[done:], index, gamma), len(index)
            with nogil:
                status = fvlrp_encode(&args)
            done += step
            if status == FVLRP_E_FULL:
                index, gamma = self._grown(index, gamma, indptr[done])
        check(status)
        return Encoded(y, indptr, index[: indptr[-1]], gamma[: indptr[-1]]), moments

    def capacity(self, n):
        """Entries that `n` descriptors rarely exceed; where they do, `encode` moves to larger arrays of its own."""
        return n * min(self.model.components, 40) + self.model.components

    def room(self, lengths):
        """Arrays for the descriptors of several pieces, cut from three large ones: a list for `encode`."""
        starts = np.cumsum([0, *lengths])
        entries = np.cumsum([0, *map(self.capacity, lengths)])
        # Large arrays come in huge pages; small ones would be faulted in 4 kB at a time.
        y = aligned((starts[-1], self.model.stride), self.dtype)
        index, gamma = self._entries(entries[-1])
        return [(y[a:b], index[c:d], gamma[c:d]) for a, b, c, d in zip(starts, starts[1:], entries, entries[1:])]

    def _entries(self, capacity):
        """Empty arrays for the entries of a CSR matrix: components and posteriors."""
        return np.empty(capacity, np.uint16), np.empty(capacity, self.dtype)

    def _grown(self, index, gamma, used):
        """Such arrays of twice the capacity and more, with the first `used` entries."""
        capacity = 2 * len(index) + self.model.components
        grown = self._entries(capacity)
        for old, new in zip((index, gamma), grown):
            new[:used] = old[:used]
        return grown

    def _moments(self):
        """Zeros for the moments of z: (K,), (K, D), (K, D)."""
        return tuple(np.zeros((self.model.components, self.model.dims)[:axes]) for axes in (1, 2, 2))

    def _encoded(self, encoded):
        """Number of rows. Refuse CSR arrays that do not belong together: the kernels trust them."""
        y = _optional(encoded.y, "encoded.y", (None, self.model.stride), [self.dtype])
        indptr = take(encoded.indptr, "encoded.indptr", (None if y is None else len(y) + 1,), [np.int64])
        n = len(indptr) - 1
        if n < 0:
            raise ValueError("encoded.indptr must hold one number more than there are rows, got none")
        index = take(encoded.index, "encoded.index", (None,), [np.uint16])
        take(encoded.gamma, "encoded.gamma", index.shape, [self.dtype])
        if indptr[0] != 0 or indptr[n] != len(index) or np.any(np.diff(indptr) < 0):
            raise ValueError("encoded.indptr must rise from 0 to the number of entries")
        if index.size and index.max() >= self.model.components:
            raise ValueError(f"encoded.index must lie below {self.model.components}, got {index.max()}")
        return n

    def pool(self, encoded):
        """Sums over the rows with z = (y - mean) / deviation: (sum g (K,), sum g z (K, D), sum g z^2 (K, D))."""
        cdef fvlrp_pool_args args
        args.model, args.n = &self.model, self._encoded(encoded)
        if encoded.y is None:
            raise ValueError("encoded.y must be there: pool has no descriptors to project")
        moments = self._moments()
        args.y, args.csr = address(encoded.y), csr_of(encoded.indptr, encoded.index, encoded.gamma)
        args.moments = moments_of(moments)
        with nogil:
            check(fvlrp_pool(&args))
        return moments

    cdef fvlrp_encoded encoded_rows(self, encoded, name):
        """The C struct of checked float arrays (y, begin, end, index, gamma)."""
        cdef fvlrp_encoded e
        y, begin, end, index, gamma = encoded
        take(y, f"{name}'s y", (None, self.model.stride), [np.float32])
        take(begin, f"{name}'s begin", (len(y),), [np.int64])
        take(end, f"{name}'s end", (len(y),), [np.int64])
        take(index, f"{name}'s index", (None,), [np.uint16])
        take(gamma, f"{name}'s gamma", index.shape, [np.float32])
        e.rows, e.entries, e.y, e.begin, e.end = len(y), len(index), address(y), address(begin), address(end)
        e.index, e.gamma = address(index), address(gamma)
        return e

    def exchange(self, rows, group, group_cells, before, after, sums, stale):
        """ADD to the sums the Psi of some descriptors less what their Psi was before. The model must be of float64.

        Parameters
        ----------
        rows : int64 (n,)
            Row of each descriptor in `before`; the i-th one is row i of `after`.
        group : int64 (n,)
            The group of each descriptor.
        group_cells : int64 (groups, levels)
            Pyramid cells that the descriptors of a group lie in.
        before, after : (y, begin, end, index, gamma)
            Encodings: projections float32 (any, stride), where each row's entries begin and end, int64 (any,), and
            the components and posteriors of the entries, uint16 and float32 (entries,).
        sums : float64 (cells, 2, K, D)
        stale : uint8 (cells, K)
            Set to 1 where sums have changed.
        """
        cdef fvlrp_exchange_args args
        take(rows, "rows", (None,), [np.int64])
        take(group, "group", rows.shape, [np.int64])
        take(group_cells, "group_cells", (None, None), [np.int64])
        take(sums, "sums", (None, 2, self.model.components, self.model.dims), [np.float64], True)
        take(stale, "stale", (len(sums), self.model.components), [np.uint8], True)
        args.before, args.after = self.encoded_rows(before, "before"), self.encoded_rows(after, "after")
        args.model, args.n, args.cells = &self.model, len(rows), len(sums)
        args.rows, args.group = address(rows), address(group)
        args.groups, args.levels = group_cells.shape
        args.group_cells, args.priors = address(group_cells), address(self.priors)
        args.sums, args.stale = address(sums), address(stale)
        with nogil:
            check(fvlrp_exchange(&args))

    def tables(self, shares, member, out):
        """Coefficients of one finest cell from shares R / (S + epsilon sgn S), float64 (cells, 2, K, D), into `out`.

        `member` uint8 (cells,) marks the pyramid cells that contain the finest cell; `out` real (K, 3, stride).
        """
        cdef fvlrp_tables_args args
        take(shares, "shares", (None, 2, self.model.components, self.model.dims), [np.float64])
        take(member, "member", shares.shape[:1], [np.uint8])
        take(out, "out", (self.model.components, 3, self.model.stride), [self.dtype], True)
        args.model, args.cells, args.shares, args.member = &self.model, len(shares), address(shares), address(member)
        args.priors, args.means, args.deviations = address(self.priors), address(self.means), address(self.deviations)
        args.tables = address(out)
        with nogil:
            check(fvlrp_tables(&args))

    def relevance(self, x, rows, encoded, tables, epsilon, mean="none", total=None, pca=None, bins=None, sift=None,
                  absorbed=None, bias=None):
        """Relevance of encoded descriptors for several targets, into the arrays given (None: not wanted).

        Row i of `encoded` is descriptor ``rows[i]`` of `x`; results go to that row of every array. Where `encoded.y` is
        None, the descriptors are projected again.

        Parameters
        ----------
        tables : real (targets, K, 3, stride)
            From `tables`; fastest in an array of `aligned`.
        epsilon : float
            Stabiliser of the projection's denominators.
        mean : {"none", "centered", "bias"}
            Treatment of the projection's mean.
        total : float64 (targets, n)
        pca : real (targets, n, D)
        bins : real (targets, n, 16)
        sift : real (targets, n, 128)
        absorbed, bias : float64 (targets,)
            Added to: what the stabiliser absorbs, and what the mean absorbs under "bias".
        """
        cdef fvlrp_relevance_args args
        args.model, args.descriptors = &self.model, self.descriptors(x, rows)
        if self._encoded(encoded) != args.descriptors.n:
            raise ValueError(f"encoded holds {self._encoded(encoded)} rows, but rows selects {args.descriptors.n}")
        take(tables, "tables", (None, self.model.components, 3, self.model.stride), [self.dtype])
        if mean not in MEANS:
            raise ValueError(f"mean must be one of {', '.join(map(repr, MEANS))}, got {mean!r}")
        targets, pitch = len(tables), len(x)
        for name, array, shape, dtype in (
            ("total", total, (targets, pitch), np.float64),
            ("pca", pca, (targets, pitch, self.model.dims), self.dtype),
            ("bins", bins, (targets, pitch, 16), self.dtype),
            ("sift", sift, (targets, pitch, self.model.inputs), self.dtype),
            ("absorbed", absorbed, (targets,), np.float64),
            ("bias", bias, (targets,), np.float64),
        ):
            _optional(array, name, shape, [dtype], True)
        args.y, args.csr = address(encoded.y), csr_of(encoded.indptr, encoded.index, encoded.gamma)
        args.targets, args.tables, args.epsilon, args.mean = targets, address(tables), epsilon, MEANS[mean]
        args.pitch, args.total, args.pca = pitch, address(total), address(pca)
        args.bins, args.sift, args.absorbed, args.bias = address(bins), address(sift), address(absorbed), address(bias)
        with nogil:
            check(fvlrp_relevance(&args))


# ---- the whole Fisher vector -----------------------------------------------------------------------------------------

cdef extern from "fvlrp.h" nogil:
    ctypedef struct fvlrp_part:
        ptrdiff_t finest
        double times
        fvlrp_moments moments

    ctypedef struct fvlrp_merge_args:
        ptrdiff_t parts, finest, cells, components, dims
        const fvlrp_part *part
        pointer member, priors, sums, occupancy

    ctypedef struct fvlrp_scores_args:
        ptrdiff_t n, length
        pointer coef, x, out

    ctypedef struct fvlrp_normalise_args:
        ptrdiff_t cells, length
        pointer sums, x

    ctypedef struct fvlrp_shares_args:
        ptrdiff_t cells, length
        pointer relevance, sums, counts, epsilon, spread, out, ledger

    int fvlrp_merge(const fvlrp_merge_args *args)
    int fvlrp_scores(const fvlrp_scores_args *args)
    int fvlrp_normalise(const fvlrp_normalise_args *args)

    ctypedef struct fvlrp_normalise_intra_args:
        ptrdiff_t cells, components, dims
        double least
        pointer sums, x

    int fvlrp_normalise_intra(const fvlrp_normalise_intra_args *args)

    ctypedef struct fvlrp_roots_args:
        ptrdiff_t cells, components, dims
        pointer sums, coef, stale, squares, sizes, products

    int fvlrp_roots(const fvlrp_roots_args *args)
    int fvlrp_shares(const fvlrp_shares_args *args)


def merge(parts, member, priors, dims):
    """Sums of Psi over pyramid cells, from moments of z: float64 (cells, 2, K, D), and of posteriors (cells, K).

    Parameters
    ----------
    parts : list of (finest cell, times, (s0 (K,), s1 (K, D), s2 (K, D)) float64)
        Moments from `Model.encode`, each counted so many times, added in this order.
    member : uint8 (finest cells, cells)
        1 for the cells that contain a finest cell.
    priors : float64 (K,)
    dims : int
        D.
    """
    cdef fvlrp_merge_args args
    take(member, "member", (None, None), [np.uint8])
    take(priors, "priors", (None,), [np.float64])
    args.parts, args.components, args.dims = len(parts), len(priors), dims
    args.finest, args.cells = member.shape
    sums, occupancy = np.empty((args.cells, 2, args.components, dims)), np.empty((args.cells, args.components))
    args.member, args.priors, args.sums, args.occupancy = (
        address(member), address(priors), address(sums), address(occupancy)
    )
    cdef fvlrp_part *part = <fvlrp_part *>malloc((args.parts + 1) * sizeof(fvlrp_part))
    if part == NULL:
        raise MemoryError()
    args.part = part
    try:
        for i, (cell, times, moments) in enumerate(parts):
            for name, array, axes in zip(("s0", "s1", "s2"), moments, (1, 2, 2)):
                take(array, f"parts[{i}].{name}", (args.components, args.dims)[:axes], [np.float64])
            part[i].finest, part[i].times, part[i].moments = cell, times, moments_of(moments)
        with nogil:
            check(fvlrp_merge(&args))
    finally:
        free(part)
    return sums, occupancy


def scores(coef, x, out):
    """Dot products of x float32 (d,) with the rows of coef float32 (n, d), into `out` float64 (n,)."""
    cdef fvlrp_scores_args args
    take(coef, "coef", (None, None), [np.float32])
    take(x, "x", coef.shape[1:], [np.float32])
    take(out, "out", coef.shape[:1], [np.float64], True)
    args.n, args.length = coef.shape
    args.coef, args.x, args.out = address(coef), address(x), address(out)
    with nogil:
        check(fvlrp_scores(&args))


def normalise(sums):
    """Improved Fisher vector float64 (cells * length,) of sums float64 (cells, length)."""
    cdef fvlrp_normalise_args args
    take(sums, "sums", (None, None), [np.float64])
    x = np.empty(sums.size)
    args.cells, args.length = sums.shape
    args.sums, args.x = address(sums), address(x)
    with nogil:
        check(fvlrp_normalise(&args))
    return x


def normalise_intra(sums, double least):
    """Intra-normalised Fisher vector float64 (cells * 2 K D,) of sums float64 (cells, 2, K, D).

    Norms of a cell's component are at least sqrt(`least`).
    """
    cdef fvlrp_normalise_intra_args args
    take(sums, "sums", (None, 2, None, None), [np.float64])
    x = np.empty(sums.size)
    args.cells, _, args.components, args.dims = sums.shape
    args.least, args.sums, args.x = least, address(sums), address(x)
    with nogil:
        check(fvlrp_normalise_intra(&args))
    return x


def roots(sums, coef, stale, squares, sizes, products):
    """What a score needs of the blocks of a Fisher vector, a component in a cell: of the stale ones alone.

    Parameters
    ----------
    sums : float64 (cells, 2, K, D)
        S.
    coef : float32 (cells, 2, K, D)
        w.
    stale : uint8 (cells, K)
        1 for the blocks to compute; set to 0.
    squares, sizes, products : float64 (cells, K)
        Sums of S^2, of |S|, and of w sgn(S) sqrt|S|, over both orders.
    """
    cdef fvlrp_roots_args args
    take(sums, "sums", (None, 2, None, None), [np.float64])
    take(coef, "coef", sums.shape, [np.float32])
    args.cells, _, args.components, args.dims = sums.shape
    take(stale, "stale", (args.cells, args.components), [np.uint8], True)
    for name, array in (("squares", squares), ("sizes", sizes), ("products", products)):
        take(array, name, (args.cells, args.components), [np.float64], True)
    args.sums, args.coef, args.stale = address(sums), address(coef), address(stale)
    args.squares, args.sizes, args.products = address(squares), address(sizes), address(products)
    with nogil:
        check(fvlrp_roots(&args))


def shares(relevance, sums, counts, epsilon, spread=None, out=None):
    """Shares R / (S + epsilon sgn S), and what they leave behind.

    Parameters
    ----------
    relevance, sums : float64 (cells, length)
    counts : int64 (cells,)
        Descriptors in each cell; the shares of an empty one are 0.
    epsilon : float64 (cells,)
    spread : float64 (cells, length), optional
        Sums within 1e-12 of it count as 0.
    out : float64 (cells, length), optional
        Where the shares go; may be `relevance` itself.

    Returns
    -------
    out : float64 (cells, length)
    left : (float, float, float)
        Relevance that the stabiliser absorbs, of empty cells, and at sums of 0.
    """
    cdef fvlrp_shares_args args
    take(sums, "sums", (None, None), [np.float64])
    take(relevance, "relevance", sums.shape, [np.float64])
    take(counts, "counts", sums.shape[:1], [np.int64])
    take(epsilon, "epsilon", sums.shape[:1], [np.float64])
    _optional(spread, "spread", sums.shape, [np.float64])
    out, ledger = np.empty(sums.shape) if out is None else out, np.empty(3)
    take(out, "out", sums.shape, [np.float64], True)
    args.cells, args.length = sums.shape
    args.relevance, args.sums, args.counts = address(relevance), address(sums), address(counts)
    args.epsilon, args.spread, args.out, args.ledger = address(epsilon), address(spread), address(out), address(ledger)
    with nogil:
        check(fvlrp_shares(&args))
    return out, tuple(ledger.tolist())


# ---- splat -----------------------------------------------------------------------------------------------------------

cdef extern from "fvlrp.h" nogil:
    ctypedef struct fvlrp_splat_args:
        int real
        pointer values
        ptrdiff_t rows, cols, bins, spacing, first, step
        pointer weight_y, weight_x, taps
        ptrdiff_t length, lead, height, width
        pointer pixels

    int fvlrp_splat(const fvlrp_splat_args *args)


def splat(values, spacing, first, step, weight_y, weight_x, taps, lead, pixels):
    """Add the values of one scale to `pixels` float64 (H, W), each spread over a separable kernel around its point.

    Parameters
    ----------
    values : float32 or float64 (rows, cols, bins, bins)
        Value (r, c, iy, ix) lies at ``first + step * r + spacing * iy``, ``first + step * c + spacing * ix``.
    weight_y, weight_x : float64 (rows, bins), (cols, bins)
        Multiplied into the values first.
    taps : float64 (length,)
        Kernel of either axis; its first tap is `lead` pixels from the point. What falls outside is dropped.
    """
    cdef fvlrp_splat_args args
    take(values, "values", (None, None, None, None), REALS)
    args.rows, args.cols, args.bins = values.shape[:3]
    take(values, "values", (*values.shape[:3], values.shape[2]), REALS)
    take(weight_y, "weight_y", (args.rows, args.bins), [np.float64])
    take(weight_x, "weight_x", (args.cols, args.bins), [np.float64])
    take(taps, "taps", (None,), [np.float64])
    take(pixels, "pixels", (None, None), [np.float64], True)
    args.real, args.values = element(values.dtype), address(values)
    args.spacing, args.first, args.step = spacing, first, step
    args.weight_y, args.weight_x, args.taps = address(weight_y), address(weight_x), address(taps)
    args.length, args.lead = len(taps), lead
    args.height, args.width = pixels.shape
    args.pixels = address(pixels)
    with nogil:
        check(fvlrp_splat(&args))


# ---- dense products and convolutions ---------------------------------------------------------------------------------

cdef extern from "fvlrp.h" nogil:
    ctypedef struct fvlrp_windows:
        ptrdiff_t channels, height, width, kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x, top, left
        ptrdiff_t first, rows, cols

    ctypedef struct fvlrp_weights:
        pointer a
        ptrdiff_t m, channels, taps, row, channel, tap
        int sign

    ctypedef struct fvlrp_product_args:
        int real
        fvlrp_weights weights
        ptrdiff_t n
        pointer b
        ptrdiff_t ldb
        const fvlrp_windows *windows
        pointer bias
        int add
        pointer c
        ptrdiff_t ldc
        const double *bounds

    ctypedef struct fvlrp_winograd_args:
        fvlrp_weights weights
        fvlrp_windows windows
        pointer image, other, bias
        int add
        double doubt
        pointer whole
        ptrdiff_t ldw
        pointer c
        ptrdiff_t ldc

    ctypedef struct fvlrp_grouped_args:
        int real
        ptrdiff_t groups, group
        fvlrp_weights weights
        fvlrp_windows windows
        pointer image, other, bias
        int add
        pointer c
        ptrdiff_t ldc
        const double *bounds

    ctypedef struct fvlrp_grouped_back_args:
        int real
        ptrdiff_t groups, group
        fvlrp_weights weights
        fvlrp_windows windows
        pointer share, other, out

    int fvlrp_product(const fvlrp_product_args *args)
    int fvlrp_winograd(const fvlrp_winograd_args *args)
    int fvlrp_grouped(const fvlrp_grouped_args *args)
    int fvlrp_grouped_back(const fvlrp_grouped_back_args *args)


def _strided(array, name, shape, dtype, writable=False):
    """Row length of a matrix of `shape` (None = any length) and `dtype` with contiguous rows, or an error that names it."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"{name} must be an array of {dtype}, got {getattr(array, 'dtype', type(array).__name__)}")
    if not matches(array.shape, shape):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must have shape ({wanted}), got {array.shape}")
    if writable and not array.flags.writeable:
        raise ValueError(f"{name} must be writable: results go there")
    if array.shape[0] <= 1 and array.flags.c_contiguous or array.size == 0:
        return array.shape[1]
    row, column = array.strides
    if array.shape[1] > 1 and column != array.itemsize:
        raise ValueError(f"{name} must have contiguous rows")
    if row % array.itemsize or row < array.shape[1] * array.itemsize:
        raise ValueError(f"{name} must have rows one after the other")
    return row // array.itemsize


def _real(a, ndim):
    """Refuse an `a` that is not real with `ndim` axes."""
    if not isinstance(a, np.ndarray) or not among(a.dtype, REALS):
        raise TypeError(f"a must be an array of float32 or float64, got {getattr(a, 'dtype', type(a).__name__)}")
    if a.ndim != ndim:
        raise ValueError(f"a must have {ndim} axes, got shape {a.shape}")


cdef fvlrp_weights weights_of(a, int sign):
    """The C struct of weights (m, channels, taps) of any strides."""
    cdef fvlrp_weights w
    cdef ptrdiff_t size = a.itemsize
    w.a, w.sign = address(a), sign
    w.m, w.channels, w.taps = a.shape
    w.row, w.channel, w.tap = a.strides
    if w.row % size or w.channel % size or w.tap % size:
        raise ValueError("a must have strides of whole elements")
    w.row, w.channel, w.tap = w.row // size, w.channel // size, w.tap // size
    return w


cdef fvlrp_windows windows_of(x, kernel, stride, pads, dilation, rows, cols):
    """The windows of an image (C, H, W) that a band (begin, end) of output rows sees, each of `cols` pixels."""
    cdef fvlrp_windows w
    w.channels, w.height, w.width = x.shape
    w.kernel_y, w.kernel_x = kernel
    w.stride_y, w.stride_x = stride
    w.dilation_y, w.dilation_x = dilation
    w.top, w.left = pads[0], pads[1]
    w.first, w.rows, w.cols = rows[0], rows[1] - rows[0], cols
    return w


cdef const double *limits_of(bounds, double *to):
    """The pair `bounds` in `to`; NULL for None."""
    if bounds is None:
        return NULL
    to[0], to[1] = bounds
    return to


cdef int multiply(fvlrp_product_args *args, dtype, out, bias, bint add, bounds=None) except -1:
    """Write `args.weights` times `args.b` into `out` (m, n)."""
    cdef double[2] limits
    args.ldc = _strided(out, "out", (args.weights.m, args.n), dtype, True)
    _optional(bias, "bias", (args.weights.m,), [dtype])
    args.bias, args.add, args.c = address(bias), add, address(out)
    args.bounds = limits_of(bounds, limits)
    with nogil:
        check(fvlrp_product(args))
    return 0


def product(a, b, out, bias=None, add=False, sign=0):
    """`out` (m, n) = a (m, k) @ b (k, n) + bias (m,), or added to `out`; all float32 or all float64.

    `a` may have any strides; rows of `b` and `out` are contiguous. `out` overlaps none of the others. `sign` 1, -1
    or 2 takes max(a, 0), min(a, 0) or |a| in the place of `a`.
    """
    cdef fvlrp_product_args args
    _real(a, 2)
    args.ldb = _strided(b, "b", (a.shape[1], None), a.dtype)
    args.real, args.weights, args.n = element(a.dtype), weights_of(a[:, :, None], sign), b.shape[1]
    args.b, args.windows = address(b), NULL
    multiply(&args, a.dtype, out, bias, add)
    return out


def convolve(a, x, kernel, stride, pads, dilation, rows, cols, out, bias=None, add=False, sign=0, bounds=None):
    """`out` (m, n) = `a` times the windows of an image, one a column, without the matrix of them.

    Parameters
    ----------
    a : float32 or float64 (m, C, kh * kw)
        Of any strides.
    x : (C, H, W), C-contiguous, of the dtype of `a`
    kernel, stride, dilation : (int, int)
        Along y, along x.
    pads : (top, left, ...)
        Pixels of zeros before `x`; negative ones cut it. Behind it there are as many as it takes.
    rows, cols : (begin, end), int
        Half-open band of output rows, and pixels of each: n = (end - begin) * cols.
    bias, add, sign : as in `product`
    bounds : (float, float), optional
        Results are clipped to what lies between.
    """
    cdef fvlrp_product_args args
    _real(a, 3)
    take(x, "x", (None, None, None), [a.dtype])
    if a.shape[1:] != (x.shape[0], kernel[0] * kernel[1]):
        raise ValueError(f"a must have shape (any, {x.shape[0]}, {kernel[0] * kernel[1]}), got {a.shape}")
    cdef fvlrp_windows w = windows_of(x, kernel, stride, pads, dilation, rows, cols)
    args.real, args.weights, args.n = element(a.dtype), weights_of(a, sign), w.rows * w.cols
    args.b, args.ldb, args.windows = address(x), 0, &w
    multiply(&args, a.dtype, out, bias, add, bounds)
    return out


def winograd(a, x, pads, rows, cols, out, bias=None, add=False, sign=0, other=None, doubt=0, whole=None):
    """`convolve` for 3 x 3 windows of stride 1 without dilation, in float32, with a quarter of the multiplications.

    Parameters
    ----------
    a : float32 (m, C, 9)
        Of any strides.
    x : float32 (C, H, W), C-contiguous
    pads, rows, cols, out, bias, add, sign
        As in `convolve`.
    other : like `x`, optional
        Meets the weights of the sign opposite to `sign`; the two are added.
    doubt : float
        For sums of terms of one sign: results below this part of what the transforms may have cancelled are NaN.
    whole : float32 (m, n), optional
        With `doubt`, the same for `whole` - `out`; contiguous rows.
    """
    cdef fvlrp_winograd_args args
    _real(a, 3)
    take(x, "x", (None, None, None), [np.float32])
    _optional(other, "other", x.shape, [np.float32])
    if a.dtype != np.float32 or a.shape[1:] != (x.shape[0], 9):
        raise ValueError(f"a must be float32 of shape (any, {x.shape[0]}, 9), got {a.dtype} {a.shape}")
    args.weights, args.windows = weights_of(a, sign), windows_of(x, (3, 3), (1, 1), pads, (1, 1), rows, cols)
    shape = a.shape[0], args.windows.rows * args.windows.cols
    args.ldc = _strided(out, "out", shape, a.dtype, True)
    args.ldw = 0 if whole is None else _strided(whole, "whole", shape, a.dtype)
    _optional(bias, "bias", shape[:1], [a.dtype])
    args.image, args.other, args.bias, args.add = address(x), address(other), address(bias), add
    args.doubt, args.whole, args.c = doubt, address(whole), address(out)
    with nogil:
        check(fvlrp_winograd(&args))
    return out


def _groups(a, channels, kernel):
    """Number of groups of weights `a` (outputs, channels / groups, taps), or an error."""
    _real(a, 3)
    if a.shape[2] != kernel[0] * kernel[1] or a.shape[1] < 1 or channels % a.shape[1]:
        raise ValueError(f"a must have shape (any, divisor of {channels}, {kernel[0] * kernel[1]}), got {a.shape}")
    groups = channels // a.shape[1]
    if a.shape[0] % groups:
        raise ValueError(f"a must hold as many outputs for each of {groups} groups, got {a.shape[0]} outputs")
    return groups


def grouped(
    a, x, kernel, stride, pads, dilation, rows, cols, out, bias=None, add=False, sign=0, other=None, bounds=None
):
    """`convolve` in groups of few channels, above all one channel each, without a product as narrow as a group.

    Parameters
    ----------
    a : float32 or float64 (Co, C / groups, kh * kw)
        Of any strides. Group g has the outputs g Co / groups and on, and as many input channels as axis 1 is long.
    x : (C, H, W), C-contiguous, of the dtype of `a`
    kernel, stride, pads, dilation, rows, cols, bias, add, sign, bounds
        As in `convolve`.
    out : (Co, (end - begin) * cols)
        Rows contiguous.
    other : like `x`, optional
        Meets the weights of the sign opposite to `sign`; the two are added.
    """
    cdef fvlrp_grouped_args args
    cdef double[2] limits
    take(x, "x", (None, None, None), REALS)
    groups = _groups(a, x.shape[0], kernel)
    take(x, "x", x.shape, [a.dtype])
    _optional(other, "other", x.shape, [a.dtype])
    _optional(bias, "bias", a.shape[:1], [a.dtype])
    args.windows = windows_of(x, kernel, stride, pads, dilation, rows, cols)
    args.ldc = _strided(out, "out", (a.shape[0], args.windows.rows * args.windows.cols), a.dtype, True)
    args.real, args.groups, args.weights = element(a.dtype), groups, weights_of(a[: a.shape[0] // groups], sign)
    args.group = args.weights.m * args.weights.row
    args.image, args.other, args.bias, args.add, args.c = address(x), address(other), address(bias), add, address(out)
    args.bounds = limits_of(bounds, limits)
    with nogil:
        check(fvlrp_grouped(&args))
    return out


def grouped_back(a, share, out, kernel, stride, pads, dilation, rows, sign=0, other=None):
    """Add the adjoint of `grouped` to `out`: shares of outputs to the pixels that their windows see.

    Parameters
    ----------
    a, kernel, stride, pads, dilation, rows, sign
        As in `grouped`.
    share : (Co, end - begin, cols), C-contiguous, of the dtype of `a`
    out : (C, H, W), C-contiguous
    other : like `share`, optional
        Goes through the weights of the sign opposite to `sign`; the two are added.
    """
    cdef fvlrp_grouped_back_args args
    take(out, "out", (None, None, None), REALS, True)
    groups = _groups(a, out.shape[0], kernel)
    take(out, "out", out.shape, [a.dtype])
    take(share, "share", (a.shape[0], rows[1] - rows[0], None), [a.dtype])
    _optional(other, "other", share.shape, [a.dtype])
    args.windows = windows_of(out, kernel, stride, pads, dilation, rows, share.shape[2])
    args.real, args.groups, args.weights = element(a.dtype), groups, weights_of(a[: a.shape[0] // groups], sign)
    args.group = args.weights.m * args.weights.row
    args.share, args.other, args.out = address(share), address(other), address(out)
    with nogil:
        check(fvlrp_grouped_back(&args))
    return out


# ---- relevance of dense layers and pools -----------------------------------------------------------------------------

cdef extern from "fvlrp.h" nogil:
    ctypedef struct fvlrp_outputs:
        int real
        pointer weight
        ptrdiff_t m, n
        pointer rows
        ptrdiff_t count

    ctypedef struct fvlrp_dense_sums_args:
        fvlrp_outputs outputs
        pointer above, below, up, down

    ctypedef struct fvlrp_dense_back_args:
        fvlrp_outputs outputs
        ptrdiff_t targets
        pointer positive, negative, up, down

    ctypedef struct fvlrp_dense_alpha_beta_args:
        fvlrp_outputs outputs
        pointer above, below, bias
        ptrdiff_t targets
        pointer r
        double alpha, beta
        pointer up, down, kept, lost

    ctypedef struct fvlrp_alpha_beta_args:
        int real
        ptrdiff_t targets, m, n
        pointer r
        ptrdiff_t pitch, ldr
        pointer z
        ptrdiff_t ldz
        pointer positive
        double alpha, beta, weak
        pointer up, down, kept, lost
        ptrdiff_t capacity
        pointer doubtful
        ptrdiff_t *count
        pointer negative
        double gamma
        int halves

    ctypedef struct fvlrp_alive_args:
        int real
        ptrdiff_t targets, m, n
        pointer r
        ptrdiff_t pitch
        unsigned char *alive

    ctypedef struct fvlrp_grouped_alpha_beta_args:
        int real
        ptrdiff_t groups, group
        fvlrp_weights weights
        fvlrp_windows windows
        pointer x, bias
        ptrdiff_t targets
        pointer r, z
        double alpha, beta, gamma
        pointer out, kept, lost

    ctypedef struct fvlrp_max_pool_args:
        int real
        fvlrp_windows windows
        pointer image, out

    ctypedef struct fvlrp_max_pool_back_args:
        int real
        fvlrp_windows windows
        pointer image, maxima
        ptrdiff_t targets
        pointer r, out

    int fvlrp_dense_sums(const fvlrp_dense_sums_args *args)
    int fvlrp_dense_back(const fvlrp_dense_back_args *args)
    int fvlrp_dense_alpha_beta(const fvlrp_dense_alpha_beta_args *args)
    int fvlrp_alpha_beta(const fvlrp_alpha_beta_args *args)
    int fvlrp_alive(const fvlrp_alive_args *args)
    int fvlrp_grouped_alpha_beta(const fvlrp_grouped_alpha_beta_args *args)
    int fvlrp_max_pool(const fvlrp_max_pool_args *args)
    int fvlrp_max_pool_back(const fvlrp_max_pool_back_args *args)

    enum: FVLRP_MOST_TERMS

    ctypedef struct fvlrp_join_args:
        int real
        ptrdiff_t count, targets, n
        pointer terms[8]
        pointer r
        double alpha, beta, gamma
        pointer out[8]

    int fvlrp_join(const fvlrp_join_args *args)


cdef fvlrp_outputs outputs_of(weight, rows):
    """The outputs `rows` int64 (count,) of a dense layer, whose weights are float32 or float64 (m, n)."""
    cdef fvlrp_outputs o
    take(weight, "weight", (None, None), REALS)
    take(rows, "rows", (None,), [np.int64])
    o.real, o.weight, o.rows, o.count = element(weight.dtype), address(weight), address(rows), len(rows)
    o.m, o.n = weight.shape
    return o


def dense_sums(weight, rows, above, below=None):
    """Sums of the terms >= 0 and of those <= 0 of some outputs of a dense layer, each row of weights read once.

    Parameters
    ----------
    weight : float32 or float64 (m, n)
    rows : int64 (count,)
        The outputs.
    above, below : (n,) of the dtype of `weight`
        Inputs >= 0 and, where there are any, those <= 0.

    Returns
    -------
    up, down : (count,)
        W+ above + W- below, W- above + W+ below.
    """
    cdef fvlrp_dense_sums_args args
    args.outputs = outputs_of(weight, rows)
    take(above, "above", weight.shape[1:], [weight.dtype])
    _optional(below, "below", weight.shape[1:], [weight.dtype])
    up, down = np.empty(len(rows), weight.dtype), np.empty(len(rows), weight.dtype)
    args.above, args.below, args.up, args.down = address(above), address(below), address(up), address(down)
    with nogil:
        check(fvlrp_dense_sums(&args))
    return up, down


def dense_back(weight, rows, positive, negative, up, down=None):
    """Add to `up` (targets, n) what goes back through some outputs of a dense layer, and to `down` of inputs <= 0.

    Parameters
    ----------
    weight, rows : as in `dense_sums`
    positive, negative : (targets, count)
        Shares of the outputs for terms >= 0 and for those <= 0: up += W+^T positive + W-^T negative,
        down += W-^T positive + W+^T negative.
    """
    cdef fvlrp_dense_back_args args
    args.outputs = outputs_of(weight, rows)
    take(positive, "positive", (None, len(rows)), [weight.dtype])
    take(negative, "negative", positive.shape, [weight.dtype])
    args.targets = len(positive)
    take(up, "up", (len(positive), weight.shape[1]), [weight.dtype], True)
    _optional(down, "down", (len(positive), weight.shape[1]), [weight.dtype], True)
    args.positive, args.negative, args.up, args.down = (
        address(positive), address(negative), address(up), address(down)
    )
    with nogil:
        check(fvlrp_dense_back(&args))


def dense_alpha_beta(weight, rows, above, below, bias, r, alpha, beta, up, down=None):
    """`dense_sums`, the shares of the alpha-beta rule and `dense_back` in one reading of the weights.

    Parameters
    ----------
    weight, rows, above, below, up, down
        As in these two; what goes back is added to `up` and `down`.
    bias : (count,) or None
        Of the outputs `rows`.
    r : (targets, count)

    Returns
    -------
    kept, lost : float64 (targets,)
        What the biases take; what vanishes with denominators of 0.
    """
    cdef fvlrp_dense_alpha_beta_args args
    args.outputs = outputs_of(weight, rows)
    take(r, "r", (None, len(rows)), [weight.dtype])
    take(above, "above", weight.shape[1:], [weight.dtype])
    _optional(below, "below", weight.shape[1:], [weight.dtype])
    _optional(bias, "bias", rows.shape, [weight.dtype])
    take(up, "up", (len(r), weight.shape[1]), [weight.dtype], True)
    _optional(down, "down", (len(r), weight.shape[1]), [weight.dtype], True)
    if below is not None and down is None:
        raise ValueError("down must be an array where below is one: what goes back to inputs <= 0 is added to it")
    kept, lost = np.empty(len(r)), np.empty(len(r))
    args.above, args.below, args.bias = address(above), address(below), address(bias)
    args.targets, args.r, args.alpha, args.beta = len(r), address(r), alpha, beta
    args.up, args.down, args.kept, args.lost = address(up), address(down), address(kept), address(lost)
    with nogil:
        check(fvlrp_dense_alpha_beta(&args))
    return kept, lost


def alpha_beta(r, z, positive, alpha, beta, weak, negative=None, double gamma=-1, bint halves=False):
    """Shares alpha r / z+ and -beta r / z- of relevance, with z- = z - z+; or those of the gamma rule.

    Parameters
    ----------
    r : float32 or float64 (targets, m, n)
        Rows contiguous.
    z : (m, n) of the dtype of `r`, or None
        Rows contiguous. None where `beta` is 0 and z+ is a sum of its own terms.
    positive : (m, n)
        z+.
    weak : float
        The part of the other below which z+ or z- has to be summed from its own terms.
    negative : (m, n), optional
        z-, where it is at hand; z then plays no part.
    gamma : float
        From 0 on, the gamma rule: terms >= 0 get (1 + gamma) r / (z + gamma z+) and those <= 0 r / (z + gamma z+) where
        z >= 0, the other way round with z- elsewhere. `alpha`, `beta` and `weak` then play no part.
    halves : bool
        Return (up + down) / 2 and (up - down) / 2, what multiplies x and its size, in the place of up and down.

    Returns
    -------
    up : (targets, m, n)
    down : (targets, m, n) or None
        None where beta is 0: terms <= 0 get nothing, both halves are the same.
    kept : float64 (2, targets, m)
        Sums of both over n.
    lost : float64 (targets,)
        What vanishes with denominators of 0.
    doubtful : int64 (count,) or None
        Outputs with relevance whose denominators are still to be found, as positions in (m, n): their shares are 0.
        None where there are too many to list.
    """
    cdef fvlrp_alpha_beta_args args
    cdef ptrdiff_t count = 0
    _real(r, 3)
    take(positive, "positive", r.shape[1:], [r.dtype])
    targets, m, n = r.shape
    args.real, args.targets, args.m, args.n = element(r.dtype), targets, m, n
    args.ldr, args.pitch, args.ldz = n, 0, 0
    if z is not None:
        args.ldz = _strided(z, "z", (m, n), r.dtype)
    elif gamma >= 0 or (beta and negative is None):
        raise ValueError("z must be given where beta is not 0" if gamma < 0 else "z must be given with gamma")
    if negative is not None:
        take(negative, "negative", r.shape[1:], [r.dtype])
    if r.size:
        args.ldr, args.pitch = _strided(r[0], "r", (m, n), r.dtype), r.strides[0] // r.itemsize
        if r.strides[0] % r.itemsize:
            raise ValueError("r must have strides of whole elements")
    up, down = np.empty((targets, m, n), r.dtype), np.empty((targets, m, n), r.dtype) if beta or gamma >= 0 else None
    kept, lost = np.empty((2, targets, m)), np.empty(targets)
    doubtful = np.empty(max(1, m * n // 16), np.int64)
    args.r, args.z, args.positive, args.negative = address(r), address(z), address(positive), address(negative)
    args.alpha, args.beta, args.weak, args.gamma, args.halves = alpha, beta, weak, gamma, halves
    args.up, args.down, args.kept, args.lost = address(up), address(down), address(kept), address(lost)
    args.capacity, args.doubtful, args.count = len(doubtful), address(doubtful), &count
    with nogil:
        check(fvlrp_alpha_beta(&args))
    return up, down, kept, lost, doubtful[:count] if count <= len(doubtful) else None


def alive(r):
    """Which outputs have relevance of any target: bool (m,), of r (targets, m, n), whose parts r[t] are C-contiguous."""
    cdef fvlrp_alive_args args
    _real(r, 3)
    targets, m, n = r.shape
    found = np.empty(m, np.bool)
    args.real, args.targets, args.m, args.n, args.pitch = element(r.dtype), targets, m, n, 0
    if r.size:
        take(r[0], "r[0]", (m, n), [r.dtype])
        args.pitch = r.strides[0] // r.itemsize
        if r.strides[0] % r.itemsize:
            raise ValueError("r must have strides of whole elements")
    args.r, args.alive = address(r), <unsigned char *>address(found)
    with nogil:
        check(fvlrp_alive(&args))
    return found


def grouped_alpha_beta(a, x, bias, r, z, out, kernel, stride, pads, dilation, alpha, beta, double gamma=-1):
    """Relevance of the inputs of a convolution in groups: `grouped`, `alpha_beta` and `grouped_back` in one.

    Parameters
    ----------
    a, kernel, stride, pads, dilation
        As in `grouped`.
    x : (C, H, W), C-contiguous, of the dtype of `a`
    bias : (Co,) or None
    r : (targets, Co, rows, cols), C-contiguous
    z : (Co, rows, cols), C-contiguous
        The outputs, biases included.
    out : (targets, C, H, W), C-contiguous
        For the relevance of the inputs.
    alpha, beta, gamma : as in `alpha_beta`

    Returns
    -------
    kept, lost : float64 (targets,)
        What the biases take; what vanishes with denominators of 0.
    """
    cdef fvlrp_grouped_alpha_beta_args args
    take(x, "x", (None, None, None), REALS)
    groups = _groups(a, x.shape[0], kernel)
    take(x, "x", x.shape, [a.dtype])
    _optional(bias, "bias", a.shape[:1], [a.dtype])
    take(z, "z", (a.shape[0], None, None), [a.dtype])
    take(r, "r", (None, *z.shape), [a.dtype])
    take(out, "out", (len(r), *x.shape), [a.dtype], True)
    kept, lost = np.empty(len(r)), np.empty(len(r))
    args.windows = windows_of(x, kernel, stride, pads, dilation, (0, z.shape[1]), z.shape[2])
    args.real, args.groups, args.weights = element(a.dtype), groups, weights_of(a[: a.shape[0] // groups], 0)
    args.group = args.weights.m * args.weights.row
    args.x, args.bias, args.r, args.z = address(x), address(bias), address(r), address(z)
    args.targets, args.alpha, args.beta, args.gamma = len(r), alpha, beta, gamma
    args.out, args.kept, args.lost = address(out), address(kept), address(lost)
    with nogil:
        check(fvlrp_grouped_alpha_beta(&args))
    return kept, lost


def max_pool(x, kernel, stride, pads, dilation, out):
    """Largest pixel of each window of x, float32 or float64 (C, H, W), inside the image: `out` (C, rows, cols)."""
    cdef fvlrp_max_pool_args args
    take(x, "x", (None, None, None), REALS)
    take(out, "out", (x.shape[0], None, None), [x.dtype], True)
    args.windows = windows_of(x, kernel, stride, pads, dilation, (0, out.shape[1]), out.shape[2])
    args.real, args.image, args.out = element(x.dtype), address(x), address(out)
    with nogil:
        check(fvlrp_max_pool(&args))


def max_pool_back(x, y, r, kernel, stride, pads, dilation, out):
    """Add relevance r (targets, C, rows, cols) to `out` (targets, C, H, W), at the first maximum of each window of x.

    `y` (C, rows, cols) holds the maxima of x (C, H, W); all of one dtype.
    """
    cdef fvlrp_max_pool_back_args args
    take(x, "x", (None, None, None), REALS)
    take(y, "y", (x.shape[0], None, None), [x.dtype])
    take(r, "r", (None, *y.shape), [x.dtype])
    take(out, "out", (len(r), *x.shape), [x.dtype], True)
    args.windows = windows_of(x, kernel, stride, pads, dilation, (0, y.shape[1]), y.shape[2])
    args.real, args.image, args.maxima = element(x.dtype), address(x), address(y)
    args.targets, args.r, args.out = len(r), address(r), address(out)
    with nogil:
        check(fvlrp_max_pool_back(&args))


def join(terms, r, double alpha, double beta, double gamma=-1):
    """Relevance of the terms of sums: a list of arrays like r, one for each term.

    Parameters
    ----------
    terms : 1 to 8 arrays float32 or float64 (...), of one shape and dtype
    r : (targets, ...)
    alpha, beta, gamma : float
        The alpha-beta rule, or with `gamma` >= 0 the gamma rule. Terms of one sign take all of r in proportion, terms
        that are all 0 take it evenly.
    """
    cdef fvlrp_join_args args
    cdef ptrdiff_t k
    if not 1 <= len(terms) <= FVLRP_MOST_TERMS:
        raise ValueError(f"terms must hold 1 to {FVLRP_MOST_TERMS} arrays, got {len(terms)}")
    shape = terms[0].shape
    for term in terms:
        take(term, "terms", shape, REALS if term is terms[0] else [terms[0].dtype])
    take(r, "r", (None, *shape), [terms[0].dtype])
    out = [np.empty_like(r) for _ in terms]
    args.real, args.count, args.targets, args.n = element(r.dtype), len(terms), len(r), terms[0].size
    args.r, args.alpha, args.beta, args.gamma = address(r), alpha, beta, gamma
    for k in range(len(terms)):
        args.terms[k], args.out[k] = address(terms[k]), address(out[k])
    with nogil:
        check(fvlrp_join(&args))
    return out


# ---- elementwise functions and normalisation of rows -----------------------------------------------------------------

cdef extern from "fvlrp.h" nogil:
    enum:
        FVLRP_SIGMOID
        FVLRP_TANH
        FVLRP_ERF
        FVLRP_SILU
        FVLRP_GELU
        FVLRP_GELU_TANH
        FVLRP_HARD_SIGMOID
        FVLRP_HARD_SWISH

    ctypedef struct fvlrp_activate_args:
        int real, function
        ptrdiff_t n
        pointer x, out

    ctypedef struct fvlrp_softmax_args:
        int real
        ptrdiff_t n, length
        pointer x, out

    ctypedef struct fvlrp_layer_norm_args:
        int real
        ptrdiff_t n, length
        pointer x, weight, bias
        double epsilon
        int root_mean_square
        pointer out, mean, inverse

    int fvlrp_activate(const fvlrp_activate_args *args)
    int fvlrp_softmax(const fvlrp_softmax_args *args)
    int fvlrp_layer_norm(const fvlrp_layer_norm_args *args)


FUNCTIONS = {
    "sigmoid": FVLRP_SIGMOID,
    "tanh": FVLRP_TANH,
    "erf": FVLRP_ERF,
    "silu": FVLRP_SILU,
    "gelu": FVLRP_GELU,
    "gelu_tanh": FVLRP_GELU_TANH,
    "hard_sigmoid": FVLRP_HARD_SIGMOID,
    "hard_swish": FVLRP_HARD_SWISH,
}


def _rows(x, out):
    """`out`, or a new array like `x`, and the length of the last axis; refuse an `x` without one."""
    if not isinstance(x, np.ndarray) or x.ndim == 0:
        raise TypeError(f"x must be an array of one axis or more, got {getattr(x, 'shape', type(x).__name__)}")
    take(x, "x", x.shape, REALS)
    out = np.empty_like(x) if out is None else take(out, "out", x.shape, [x.dtype], True)
    return out, x.shape[-1]


def activate(function, x, out=None):
    """`out` = f(x), elementwise.

    Parameters
    ----------
    function : str
        One of `FUNCTIONS`. "gelu" is x Phi(x), "gelu_tanh" its usual approximation.
    x : float32 or float64, C-contiguous
        Float32 results are right to 2e-6 of themselves, also where they are small.
    out : like `x`, optional
        May be `x`.

    Returns
    -------
    out
    """
    cdef fvlrp_activate_args args
    if function not in FUNCTIONS:
        raise ValueError(f"function must be one of {', '.join(map(repr, FUNCTIONS))}, got {function!r}")
    out, _ = _rows(x, out)
    args.real, args.function, args.n = element(x.dtype), FUNCTIONS[function], x.size
    args.x, args.out = address(x), address(out)
    with nogil:
        check(fvlrp_activate(&args))
    return out


def softmax(x, out=None):
    """`out` = exp(x) / sum exp(x) over the last axis of x, float32 or float64, C-contiguous; `out` may be `x`."""
    cdef fvlrp_softmax_args args
    out, length = _rows(x, out)
    args.real, args.n, args.length = element(x.dtype), x.size // max(length, 1), length
    args.x, args.out = address(x), address(out)
    with nogil:
        check(fvlrp_softmax(&args))
    return out


def layer_norm(x, weight, bias, epsilon, out=None, root_mean_square=False):
    """Layer normalisation over the last axis: `out` = (x - mean) inverse weight + bias.

    Parameters
    ----------
    x : float32 or float64 (..., length), C-contiguous
    weight, bias : (length,) of the dtype of `x`, or None
    epsilon : float
        inverse = 1 / sqrt(variance + epsilon).
    out : like `x`, optional
        May be `x`.
    root_mean_square : bool
        RMS normalisation: nothing is subtracted.

    Returns
    -------
    out : like `x`
    mean, inverse : float64 (...)
    """
    cdef fvlrp_layer_norm_args args
    out, length = _rows(x, out)
    _optional(weight, "weight", (length,), [x.dtype])
    _optional(bias, "bias", (length,), [x.dtype])
    mean, inverse = np.empty(x.shape[:-1]), np.empty(x.shape[:-1])
    args.real, args.n, args.length, args.epsilon = element(x.dtype), mean.size, length, epsilon
    args.x, args.weight, args.bias, args.out = address(x), address(weight), address(bias), address(out)
    args.root_mean_square, args.mean, args.inverse = root_mean_square, address(mean), address(inverse)
    with nogil:
        check(fvlrp_layer_norm(&args))
    return out, mean, inverse
