# cython: language_level=3, boundscheck=False, wraparound=False, embedsignature=True, freethreading_compatible=True
"""Thin binding of csrc/fvlrp.h: shapes and types in, allocation, a call without the GIL, a status turned into words."""

import os

import numpy as np

from libc.stdint cimport int64_t, uint8_t, uint16_t
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


def take(array, name, shape, dtypes, bint writable=False):
    """`array` itself, or an error that names it: C-contiguous, of one of `dtypes`, of `shape` (None = any length)."""
    if not isinstance(array, np.ndarray) or array.dtype not in [np.dtype(d) for d in dtypes]:
        kinds = " or ".join(np.dtype(d).name for d in dtypes)
        raise TypeError(f"{name} must be an array of {kinds}, got {getattr(array, 'dtype', type(array).__name__)}")
    if array.ndim != len(shape) or any(want is not None and want != got for want, got in zip(shape, array.shape)):
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must have shape ({wanted}), got {array.shape}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be C-contiguous")
    if writable and not array.flags.writeable:
        raise ValueError(f"{name} must be writable: results go there")
    return array


def aligned(shape, dtype):
    """An empty array that begins with a cache line: what kernels read at random, they then read in whole lines."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    block = np.empty(size + 64, np.uint8)
    start = -block.ctypes.data % 64
    return block[start : start + size].view(dtype).reshape(shape)


def isa():
    """Instruction set in use: "v2", "v3" or "v4" (x86-64 levels), "vnni" (v4 and its products of bytes), or "generic"."""
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

cdef extern from "fvlrp.h" nogil:
    enum:
        FVLRP_WINDOW_FLAT
        FVLRP_WINDOW_GAUSSIAN
        FVLRP_ANGLES_VLFEAT
        FVLRP_ANGLES_EXACT

    ctypedef struct fvlrp_scale:
        Py_ssize_t height, width, first, step, rows, cols, bin_size
        int window, angles, type
        double sigma, window_size, contrast_threshold

    int fvlrp_sift(const fvlrp_scale *scale, const float *image, Py_ssize_t begin, Py_ssize_t end, void *values,
                   uint8_t *zeroed)
    int fvlrp_sift_planes(const fvlrp_scale *scale, const float *image, float *planes)
    int fvlrp_sift_pixels(const fvlrp_scale *scale, const float *image, int real, const void *relevance,
                          double *pixels, double *zero_bin)


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
    scale.type = FVLRP_F32
    scale.sigma, scale.window_size, scale.contrast_threshold = sigma, window_size, contrast_threshold
    return scale


def sift(grey, grid, values, zeroed, begin, end, *, sigma, window, window_size, contrast_threshold, angles):
    """Write the descriptors of the frame rows [begin, end) of one scale.

    grey is float32 (height, width), grid a geometry.Scale of that image. values, uint8 or float32 (rows, cols, 128),
    and zeroed, uint8 (rows, cols), are written in these rows alone, so that several threads may share them.
    """
    cdef fvlrp_scale scale = scale_of(grey, grid, sigma, window, window_size, contrast_threshold, angles)
    take(values, "values", (grid.rows, grid.cols, 128), [np.uint8, np.float32], True)
    take(zeroed, "zeroed", (grid.rows, grid.cols), [np.uint8], True)
    scale.type = element(values)
    cdef const float *image = <const float *>address(grey)
    cdef void *out = address(values)
    cdef uint8_t *zero = <uint8_t *>address(zeroed)
    cdef Py_ssize_t first = begin, last = end
    cdef int status
    with nogil:
        status = fvlrp_sift(&scale, image, first, last, out, zero)
    check(status)


def sift_planes(grey, grid, *, sigma, window, window_size, contrast_threshold, angles):
    """The orientation planes of one scale: float32 (height, width, 8), not negative."""
    cdef fvlrp_scale scale = scale_of(grey, grid, sigma, window, window_size, contrast_threshold, angles)
    planes = np.empty((scale.height, scale.width, 8), np.float32)
    cdef const float *image = <const float *>address(grey)
    cdef float *out = <float *>address(planes)
    cdef int status
    with nogil:
        status = fvlrp_sift_planes(&scale, image, out)
    check(status)
    return planes


def sift_pixels(grey, grid, relevance, pixels, *, sigma, window, window_size, contrast_threshold, angles):
    """Add the relevance of one scale's values, float32 or float64 (rows, cols, 128), to `pixels` float64 (H, W).

    Returns the relevance of values whose bin holds no gradient at all.
    """
    cdef fvlrp_scale scale = scale_of(grey, grid, sigma, window, window_size, contrast_threshold, angles)
    take(relevance, "relevance", (grid.rows, grid.cols, 128), [np.float32, np.float64])
    take(pixels, "pixels", grey.shape, [np.float64], True)
    cdef int real = element(relevance), status
    cdef const float *image = <const float *>address(grey)
    cdef const void *given = address(relevance)
    cdef double *out = <double *>address(pixels)
    cdef double zero_bin = 0
    with nogil:
        status = fvlrp_sift_pixels(&scale, image, real, given, out, &zero_bin)
    check(status)
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
        double gate

    ctypedef struct fvlrp_relevances:
        double *total
        void *pca
        void *bins
        void *sift
        double *absorbed
        double *bias
        ptrdiff_t pitch

    size_t fvlrp_model_bytes(int real, ptrdiff_t inputs, ptrdiff_t dims, ptrdiff_t components)
    int fvlrp_model_pack(fvlrp_model *model, int real, ptrdiff_t inputs, ptrdiff_t dims, ptrdiff_t components,
                         const double *basis, const double *mean, const double *priors, const double *means,
                         const double *variances, double gate, void *block)
    int fvlrp_project(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n, void *y)
    int fvlrp_posteriors(const fvlrp_model *model, const void *y, ptrdiff_t n, ptrdiff_t capacity, int64_t *indptr,
                         uint16_t *index, void *gamma, double *loglik, ptrdiff_t *done)
    int fvlrp_pool(const fvlrp_model *model, const void *y, ptrdiff_t n, const int64_t *indptr, const uint16_t *index,
                   const void *gamma, double *s0, double *s1, double *s2)
    int fvlrp_encode(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n,
                     ptrdiff_t capacity, void *y, int64_t *indptr, uint16_t *index, void *gamma, double *s0,
                     double *s1, double *s2, ptrdiff_t *done)
    int fvlrp_tables(const fvlrp_model *model, ptrdiff_t cells, const double *shares, const uint8_t *member,
                     const double *priors, const double *means, const double *deviations, void *tables)
    int fvlrp_relevance(const fvlrp_model *model, int type, const void *x, const int64_t *rows, ptrdiff_t n,
                        const void *y, const int64_t *indptr, const uint16_t *index, const void *gamma,
                        ptrdiff_t targets, const void *tables, double epsilon, int mean, const fvlrp_relevances *out)
    ctypedef struct fvlrp_part:
        ptrdiff_t finest
        double times
        const double *s0
        const double *s1
        const double *s2

    void fvlrp_put_rows(ptrdiff_t targets, size_t size, const void *values, const int64_t *rows, ptrdiff_t n,
                        ptrdiff_t pitch, void *out)
    int fvlrp_merge(ptrdiff_t parts, const fvlrp_part *part, ptrdiff_t finest, ptrdiff_t cells, const uint8_t *member,
                    ptrdiff_t components, ptrdiff_t dims, const double *priors, double *sums, double *occupancy)
    int fvlrp_scores(ptrdiff_t n, ptrdiff_t length, const float *coef, const float *x, double *out)
    int fvlrp_normalise(ptrdiff_t cells, ptrdiff_t length, const double *sums, double *x)
    int fvlrp_shares(ptrdiff_t cells, ptrdiff_t length, const double *relevance, const double *sums,
                     const int64_t *counts, const double *epsilon, const double *spread, double *out, double *ledger)
    int fvlrp_splat(int real, const void *values, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t bins, ptrdiff_t spacing,
                    ptrdiff_t first, ptrdiff_t step, const double *weight_y, const double *weight_x,
                    const double *taps, ptrdiff_t length, ptrdiff_t lead, ptrdiff_t begin, ptrdiff_t end,
                    ptrdiff_t height, ptrdiff_t width, double *pixels)

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

    def __init__(self, basis, mean, priors, means, variances, double gate=1e-6, dtype=np.float32):
        self.dtype = np.dtype(dtype)
        cdef ptrdiff_t inputs = 0, dims = 0, components = 0
        if basis is not None:
            basis = take(np.ascontiguousarray(basis, np.float64), "basis", (None, None), [np.float64])
            dims, inputs = basis.shape
        if mean is not None:
            mean = take(np.ascontiguousarray(mean, np.float64), "mean", (inputs,), [np.float64])
        if priors is not None:
            means = take(np.ascontiguousarray(means, np.float64), "means", (None, None), [np.float64])
            components, dims = means.shape
            if basis is not None:
                take(basis, "basis", (dims, None), [np.float64])
            priors = take(np.ascontiguousarray(priors, np.float64), "priors", (components,), [np.float64])
            variances = take(
                np.ascontiguousarray(variances, np.float64), "variances", (components, dims), [np.float64]
            )
            for name, array in (("priors", priors), ("variances", variances)):
                if not (array > 0).all():
                    raise ValueError(f"{name} must be positive, got {array.min()}")
            self.deviations = np.sqrt(variances)
        self.priors, self.means = priors, means
        cdef int real = element(np.empty(0, self.dtype))
        cdef size_t size = fvlrp_model_bytes(real, inputs, dims, components)
        if size == 0:
            raise ValueError(f"a model of {inputs} inputs, {dims} dimensions and {components} components is too large")
        self.block = np.empty(size + 64, np.uint8)
        check(
            fvlrp_model_pack(
                &self.model, real, inputs, dims, components, <double *>address(basis), <double *>address(mean),
                <double *>address(priors), <double *>address(means), <double *>address(variances), gate,
                address(self.block),
            )
        )

    @property
    def dims(self):
        return self.model.dims

    @property
    def stride(self):
        return self.model.stride

    @property
    def components(self):
        return self.model.components

    def _descriptors(self, x, rows):
        """Checked descriptors and row numbers, and how many rows the call is about."""
        take(x, "x", (None, self.model.inputs), [np.uint8, np.float32, np.float64])
        if rows is None:
            return x.shape[0]
        take(rows, "rows", (None,), [np.int64])
        if rows.size and (rows.min() < 0 or rows.max() >= x.shape[0]):
            raise IndexError(f"rows must lie in 0..{x.shape[0] - 1}, got {rows.min()}..{rows.max()}")
        return rows.shape[0]

    def pad(self, y):
        """Copy (n, D) into (n, stride) of the model's type, as `posteriors` and `pool` take it."""
        padded = np.zeros((len(y), self.model.stride), self.dtype)
        padded[:, : self.model.dims] = y
        return padded

    def project(self, x, rows=None):
        """Projected descriptors, real (n, stride): columns past D are 0."""
        cdef ptrdiff_t n = self._descriptors(x, rows)
        y = np.empty((n, self.model.stride), self.dtype)
        cdef int type = element(x)
        cdef void *px = address(x)
        cdef void *py = address(y)
        cdef const int64_t *pr = <const int64_t *>address(rows)
        cdef int status
        with nogil:
            status = fvlrp_project(&self.model, type, px, pr, n, py)
        check(status)
        return y

    def posteriors(self, y, bint loglik=False):
        """Gated posteriors of projected descriptors: (Encoded, log-likelihoods float64 (n,) or None)."""
        take(y, "y", (None, self.model.stride), [self.dtype])
        encoded, logs, _ = self._assign(None, None, y, loglik)
        return encoded, logs

    def encode(self, x, rows=None, room=None):
        """Project, assign and pool descriptors in one pass: (Encoded, (s0 (K,), s1 (K, D), s2 (K, D)) float64).

        `room` may hold arrays to write into, from `room`; the calls of several pieces can then share large ones.
        """
        self._descriptors(x, rows)
        encoded, _, sums = self._assign(x, rows, None, False, room)
        return encoded, sums

    def capacity(self, n):
        """Entries that `n` descriptors rarely exceed; where they do, `encode` moves to larger arrays of its own."""
        return n * min(self.model.components, 40) + self.model.components

    def room(self, lengths):
        """Arrays for the descriptors of several pieces, cut from three large ones: a list for `encode`."""
        starts = np.cumsum([0, *lengths])
        entries = np.cumsum([0, *map(self.capacity, lengths)])
        # Large arrays come in huge pages; small ones would be faulted in 4 kB at a time.
        y = aligned((starts[len(lengths)], self.model.stride), self.dtype)
        index, gamma = np.empty(entries[len(lengths)], np.uint16), np.empty(entries[len(lengths)], self.dtype)
        return [(y[a:b], index[c:d], gamma[c:d]) for a, b, c, d in zip(starts, starts[1:], entries, entries[1:])]

    def _assign(self, x, rows, y, bint want_loglik, room=None):
        """The two calls that fill CSR arrays of unknown length; where the guess was short, go on in longer ones."""
        cdef bint fused = y is None
        cdef ptrdiff_t n = (len(x) if rows is None else len(rows)) if fused else len(y)
        cdef ptrdiff_t K = self.model.components, done = 0, step = 0, capacity
        cdef int type = element(x) if fused else 0
        if room is None:
            capacity = self.capacity(n)
            room = (np.empty((n if fused else 0, self.model.stride), self.dtype),
                    np.empty(capacity, np.uint16), np.empty(capacity, self.dtype))
        index, gamma = room[1:]
        capacity = len(index)
        take(index, "room[1]", (None,), [np.uint16])
        take(gamma, "room[2]", (capacity,), [self.dtype])
        if fused:
            y = take(room[0], "room[0]", (n, self.model.stride), [self.dtype])
        sums = tuple(np.zeros((K, self.model.dims)[:d]) for d in (1, 2, 2)) if fused else (None, None, None)
        loglik = np.empty(n) if want_loglik else None
        indptr = np.zeros(n + 1, np.int64)
        cdef const int64_t *pr = <const int64_t *>address(rows)
        cdef int64_t *pi = <int64_t *>address(indptr)
        cdef double *pl = <double *>address(loglik)
        cdef double *p0 = <double *>address(sums[0])
        cdef double *p1 = <double *>address(sums[1])
        cdef double *p2 = <double *>address(sums[2])
        cdef char *px = <char *>address(x)
        cdef char *py = <char *>address(y)
        cdef ptrdiff_t x_row = self.model.inputs * type, y_row = self.model.stride * self.model.real
        cdef uint16_t *pk
        cdef void *pg
        cdef int status
        while True:
            pk, pg = <uint16_t *>address(index), address(gamma)
            with nogil:
                if fused:
                    status = fvlrp_encode(
                        &self.model, type, px + (0 if pr != NULL else done * x_row), pr + done if pr != NULL else NULL,
                        n - done, capacity, py + done * y_row, pi + done, pk, pg, p0, p1, p2, &step,
                    )
                else:
                    status = fvlrp_posteriors(
                        &self.model, py + done * y_row, n - done, capacity, pi + done, pk, pg,
                        pl + done if pl != NULL else NULL, &step,
                    )
            done += step
            if status != FVLRP_E_FULL:
                break
            capacity = 2 * capacity + K
            index, gamma = (np.concatenate([a[: pi[done]], np.empty(capacity - pi[done], a.dtype)]) for a in (index, gamma))
        check(status)
        return Encoded(y, indptr, index[: indptr[n]], gamma[: indptr[n]]), loglik, sums

    def _encoded(self, encoded):
        """Number of rows. Refuse CSR arrays that do not belong together: the kernels trust them."""
        y = encoded.y
        if y is not None:
            take(y, "encoded.y", (None, self.model.stride), [self.dtype])
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
        cdef ptrdiff_t n = self._encoded(encoded)
        if encoded.y is None:
            raise ValueError("encoded.y must be there: pool has no descriptors to project")
        sums = tuple(np.zeros((self.model.components, self.model.dims)[:d]) for d in (1, 2, 2))
        cdef void *py = address(encoded.y)
        cdef const int64_t *pi = <const int64_t *>address(encoded.indptr)
        cdef const uint16_t *pk = <const uint16_t *>address(encoded.index)
        cdef void *pg = address(encoded.gamma)
        cdef double *p0 = <double *>address(sums[0])
        cdef double *p1 = <double *>address(sums[1])
        cdef double *p2 = <double *>address(sums[2])
        cdef int status
        with nogil:
            status = fvlrp_pool(&self.model, py, n, pi, pk, pg, p0, p1, p2)
        check(status)
        return sums

    def tables(self, shares, member, out):
        """Coefficients of one finest cell from shares R / (S + epsilon sgn S), float64 (cells, 2, K, D), into `out`.

        `member` uint8 (cells,) marks the pyramid cells that the finest cell lies in; `out` real (K, 3, stride).
        """
        cdef ptrdiff_t K = self.model.components
        take(shares, "shares", (None, 2, K, self.model.dims), [np.float64])
        take(member, "member", shares.shape[:1], [np.uint8])
        take(out, "out", (K, 3, self.model.stride), [self.dtype], True)
        cdef ptrdiff_t cells = shares.shape[0]
        cdef const double *ps = <const double *>address(shares)
        cdef const uint8_t *pm = <const uint8_t *>address(member)
        cdef const double *pp = <const double *>address(self.priors)
        cdef const double *pu = <const double *>address(self.means)
        cdef const double *pd = <const double *>address(self.deviations)
        cdef void *po = address(out)
        cdef int status
        with nogil:
            status = fvlrp_tables(&self.model, cells, ps, pm, pp, pu, pd, po)
        check(status)

    def relevance(self, x, rows, encoded, tables, double epsilon, mean="none", total=None, pca=None, bins=None,
                  sift=None, absorbed=None, bias=None):
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
        cdef ptrdiff_t n = self._encoded(encoded)
        if self._descriptors(x, rows) != n:
            raise ValueError(f"encoded holds {n} rows, but rows selects {len(x) if rows is None else len(rows)}")
        K = self.model.components
        take(tables, "tables", (None, K, 3, self.model.stride), [self.dtype])
        cdef ptrdiff_t targets = tables.shape[0]
        pitch = len(x)
        for name, array, shape, dtype in (
            ("total", total, (targets, pitch), np.float64),
            ("pca", pca, (targets, pitch, self.model.dims), self.dtype),
            ("bins", bins, (targets, pitch, 16), self.dtype),
            ("sift", sift, (targets, pitch, self.model.inputs), self.dtype),
            ("absorbed", absorbed, (targets,), np.float64),
            ("bias", bias, (targets,), np.float64),
        ):
            if array is not None:
                take(array, name, shape, [dtype], True)
        cdef fvlrp_relevances out
        out.total, out.pca = <double *>address(total), address(pca)
        out.bins, out.sift = address(bins), address(sift)
        out.absorbed, out.bias = <double *>address(absorbed), <double *>address(bias)
        out.pitch = pitch
        if mean not in MEANS:
            raise ValueError(f"mean must be one of {', '.join(map(repr, MEANS))}, got {mean!r}")
        cdef int type = element(x), how = MEANS[mean]
        cdef void *px = address(x)
        cdef const int64_t *pr = <const int64_t *>address(rows)
        cdef void *py = address(encoded.y)
        cdef const int64_t *pi = <const int64_t *>address(encoded.indptr)
        cdef const uint16_t *pk = <const uint16_t *>address(encoded.index)
        cdef void *pg = address(encoded.gamma)
        cdef void *pt = address(tables)
        cdef int status
        with nogil:
            status = fvlrp_relevance(
                &self.model, type, px, pr, n, py, pi, pk, pg, targets, pt, epsilon, how, &out
            )
        check(status)


def put_rows(values, rows, out):
    """Row ``values[t]`` of each target, real (targets, width), into rows `rows` int64 of ``out[t]``, (targets, n, width)."""
    take(values, "values", (None, None), [np.float32, np.float64])
    take(rows, "rows", (None,), [np.int64])
    take(out, "out", (values.shape[0], None, values.shape[1]), [values.dtype], True)
    if rows.size and (rows.min() < 0 or rows.max() >= out.shape[1]):
        raise ValueError(f"rows must lie in 0 .. {out.shape[1] - 1}, got {rows.min()} .. {rows.max()}")
    cdef ptrdiff_t targets = values.shape[0], n = rows.shape[0], pitch = out.shape[1]
    cdef size_t size = values.shape[1] * values.itemsize
    cdef const void *pv = address(values)
    cdef const int64_t *pr = <const int64_t *>address(rows)
    cdef void *po = address(out)
    with nogil:
        fvlrp_put_rows(targets, size, pv, pr, n, pitch, po)


def merge(parts, member, priors, ptrdiff_t dims):
    """Sums of Psi over pyramid cells, from moments of z: float64 (cells, 2, K, D), and of posteriors (cells, K).

    Parameters
    ----------
    parts : list of (finest cell, times, (s0 (K,), s1 (K, D), s2 (K, D)) float64)
        Moments from `Model.encode`, each counted so many times, added in this order.
    member : uint8 (finest cells, cells)
        1 for the cells that a finest cell lies in.
    priors : float64 (K,)
    """
    take(member, "member", (None, None), [np.uint8])
    take(priors, "priors", (None,), [np.float64])
    cdef ptrdiff_t finest = member.shape[0], cells = member.shape[1], components = priors.shape[0], count = len(parts)
    cdef fvlrp_part *part = <fvlrp_part *>malloc((count + 1) * sizeof(fvlrp_part))
    if part == NULL:
        raise MemoryError()
    sums, occupancy = np.empty((cells, 2, components, dims)), np.empty((cells, components))
    cdef const uint8_t *pm = <const uint8_t *>address(member)
    cdef const double *pp = <const double *>address(priors)
    cdef double *ps = <double *>address(sums)
    cdef double *po = <double *>address(occupancy)
    cdef int status
    try:
        for i, (cell, times, (s0, s1, s2)) in enumerate(parts):
            take(s0, f"parts[{i}].s0", (components,), [np.float64])
            take(s1, f"parts[{i}].s1", (components, dims), [np.float64])
            take(s2, f"parts[{i}].s2", (components, dims), [np.float64])
            part[i].finest, part[i].times = cell, times
            part[i].s0, part[i].s1 = <const double *>address(s0), <const double *>address(s1)
            part[i].s2 = <const double *>address(s2)
        with nogil:
            status = fvlrp_merge(count, part, finest, cells, pm, components, dims, pp, ps, po)
    finally:
        free(part)
    check(status)
    return sums, occupancy


def scores(coef, x, out):
    """Dot products of x float32 (d,) with the rows of coef float32 (n, d), into `out` float64 (n,)."""
    take(coef, "coef", (None, None), [np.float32])
    take(x, "x", coef.shape[1:], [np.float32])
    take(out, "out", coef.shape[:1], [np.float64], True)
    cdef ptrdiff_t n = coef.shape[0], length = coef.shape[1]
    cdef const float *pc = <const float *>address(coef)
    cdef const float *px = <const float *>address(x)
    cdef double *po = <double *>address(out)
    cdef int status
    with nogil:
        status = fvlrp_scores(n, length, pc, px, po)
    check(status)


def normalise(sums):
    """Improved Fisher vector float64 (cells * length,) of sums float64 (cells, length)."""
    take(sums, "sums", (None, None), [np.float64])
    x = np.empty(sums.size)
    cdef ptrdiff_t cells = sums.shape[0], length = sums.shape[1]
    cdef const double *ps = <const double *>address(sums)
    cdef double *px = <double *>address(x)
    cdef int status
    with nogil:
        status = fvlrp_normalise(cells, length, ps, px)
    check(status)
    return x


def shares(relevance, sums, counts, epsilon, spread=None, out=None):
    """Shares R / (S + epsilon sgn S), float64 (cells, length), and what they leave behind.

    `counts` int64 and `epsilon` float64 (cells,); `spread` float64 (cells, length) or None: sums within 1e-12 of it
    count as 0. `out`, which may be `relevance` itself, is where the shares go. Returns them and (absorbed, in empty
    cells, at sums of 0).
    """
    take(sums, "sums", (None, None), [np.float64])
    take(relevance, "relevance", sums.shape, [np.float64])
    take(counts, "counts", sums.shape[:1], [np.int64])
    take(epsilon, "epsilon", sums.shape[:1], [np.float64])
    if spread is not None:
        take(spread, "spread", sums.shape, [np.float64])
    out, ledger = np.empty(sums.shape) if out is None else out, np.empty(3)
    take(out, "out", sums.shape, [np.float64], True)
    cdef ptrdiff_t cells = sums.shape[0], length = sums.shape[1]
    cdef const double *pr = <const double *>address(relevance)
    cdef const double *ps = <const double *>address(sums)
    cdef const int64_t *pc = <const int64_t *>address(counts)
    cdef const double *pe = <const double *>address(epsilon)
    cdef const double *pw = <const double *>address(spread)
    cdef double *po = <double *>address(out)
    cdef double *pl = <double *>address(ledger)
    cdef int status
    with nogil:
        status = fvlrp_shares(cells, length, pr, ps, pc, pe, pw, po, pl)
    check(status)
    return out, tuple(ledger.tolist())


# ---- splats ----------------------------------------------------------------------------------------------------------


def splat(values, ptrdiff_t spacing, ptrdiff_t first, ptrdiff_t step, weight_y, weight_x, taps, ptrdiff_t lead, pixels,
          band=None):
    """Add the values of one scale to `pixels` float64 (H, W), each spread over a separable kernel around its point.

    Parameters
    ----------
    values : float32 or float64 (rows, cols, bins, bins)
        Value (r, c, iy, ix) lies at ``first + step * r + spacing * iy``, ``first + step * c + spacing * ix``.
    weight_y, weight_x : float64 (rows, bins), (cols, bins)
        Multiplied into the values first.
    taps : float64 (length,)
        Kernel of either axis; its first tap is `lead` pixels from the point. What falls outside is dropped.
    band : (int, int) or None
        Rows begin .. end - 1 of the pixels alone, with the same bits.
    """
    take(values, "values", (None, None, None, None), [np.float32, np.float64])
    cdef ptrdiff_t rows = values.shape[0], cols = values.shape[1], bins = values.shape[2]
    take(values, "values", (rows, cols, bins, bins), [values.dtype])
    take(weight_y, "weight_y", (rows, bins), [np.float64])
    take(weight_x, "weight_x", (cols, bins), [np.float64])
    take(taps, "taps", (None,), [np.float64])
    take(pixels, "pixels", (None, None), [np.float64], True)
    cdef ptrdiff_t length = taps.shape[0], height = pixels.shape[0], width = pixels.shape[1]
    cdef ptrdiff_t begin, end
    begin, end = band or (0, height)
    cdef int real = element(values), status
    cdef void *pv = address(values)
    cdef const double *wy = <const double *>address(weight_y)
    cdef const double *wx = <const double *>address(weight_x)
    cdef const double *pt = <const double *>address(taps)
    cdef double *pp = <double *>address(pixels)
    with nogil:
        status = fvlrp_splat(
            real, pv, rows, cols, bins, spacing, first, step, wy, wx, pt, length, lead, begin, end, height, width, pp
        )
    check(status)


# ---- dense products and convolutions ---------------------------------------------------------------------------------

cdef extern from "fvlrp.h" nogil:
    ctypedef struct fvlrp_windows:
        ptrdiff_t channels, height, width, kernel_y, kernel_x, stride_y, stride_x, dilation_y, dilation_x, top, left
        ptrdiff_t first, rows, cols

    int fvlrp_product(int real, ptrdiff_t m, ptrdiff_t k, ptrdiff_t n, const void *a, ptrdiff_t row, ptrdiff_t channel,
                      ptrdiff_t tap, ptrdiff_t taps, int sign, const void *b, ptrdiff_t ldb,
                      const fvlrp_windows *windows, const void *bias, int add, void *c, ptrdiff_t ldc)
    int fvlrp_winograd(ptrdiff_t m, const float *a, ptrdiff_t row, ptrdiff_t channel, ptrdiff_t tap, int sign,
                       const fvlrp_windows *windows, const float *image, const float *other, const float *bias, int add,
                       double doubt, const float *whole, ptrdiff_t ldw, float *c, ptrdiff_t ldc)
    int fvlrp_dense_sums(int real, ptrdiff_t m, ptrdiff_t n, const void *weight, ptrdiff_t count, const int64_t *rows,
                         const void *above, const void *below, void *up, void *down)
    int fvlrp_dense_back(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *weight, ptrdiff_t count,
                         const int64_t *rows, const void *positive, const void *negative, void *up, void *down)
    int fvlrp_dense_alpha_beta(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *weight, ptrdiff_t count,
                               const int64_t *rows, const void *above, const void *below, const void *bias,
                               const void *r, double alpha, double beta, void *up, void *down, double *kept,
                               double *lost)
    int fvlrp_alpha_beta(int real, ptrdiff_t targets, ptrdiff_t m, ptrdiff_t n, const void *r, ptrdiff_t pitch,
                         ptrdiff_t ldr, const void *z, ptrdiff_t ldz, const void *positive, double alpha, double beta,
                         double weak, void *up, void *down, double *kept, double *lost, ptrdiff_t capacity,
                         int64_t *doubtful, ptrdiff_t *count)
    int fvlrp_max_pool(int real, const fvlrp_windows *windows, const void *image, void *out)
    int fvlrp_max_pool_back(int real, const fvlrp_windows *windows, const void *image, const void *maxima,
                            ptrdiff_t targets, const void *r, void *out)


def _strided(array, name, shape, dtype, bint writable=False):
    """Row length of an array of `shape` (None = any length) and `dtype`, or an error that names it."""
    if not isinstance(array, np.ndarray) or array.dtype != dtype:
        raise TypeError(f"{name} must be an array of {dtype}, got {getattr(array, 'dtype', type(array).__name__)}")
    if array.ndim != 2 or any(want is not None and want != got for want, got in zip(shape, array.shape)):
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


cdef fvlrp_windows windows_of(x, kernel, stride, pads, dilation, rows, ptrdiff_t cols):
    """The windows of an image (C, H, W) that a band (begin, end) of output rows sees, each of `cols` pixels."""
    cdef fvlrp_windows w
    w.channels, w.height, w.width = x.shape
    w.kernel_y, w.kernel_x = kernel
    w.stride_y, w.stride_x = stride
    w.dilation_y, w.dilation_x = dilation
    w.top, w.left = pads[0], pads[1]
    w.first, w.rows, w.cols = rows[0], rows[1] - rows[0], cols
    return w


cdef int multiply(
    a, int sign, b, ptrdiff_t ldb, const fvlrp_windows *windows, ptrdiff_t n, out, bias, bint add
) except -1:
    """`out` (m, n) from `a` (m, channels, taps) of any strides, and a matrix or the windows of an image."""
    cdef ptrdiff_t m = a.shape[0], taps = a.shape[2], k = a.shape[1] * a.shape[2], row, channel, tap
    if any(stride % a.itemsize for stride in a.strides):
        raise ValueError("a must have strides of whole elements")
    row, channel, tap = (stride // a.itemsize for stride in a.strides)
    cdef ptrdiff_t ldc = _strided(out, "out", (m, n), a.dtype, True)
    if bias is not None:
        take(bias, "bias", (m,), [a.dtype])
    cdef int real = element(a), status
    cdef const void *pa = address(a)
    cdef const void *pb = address(b)
    cdef const void *ps = address(bias)
    cdef void *pc = address(out)
    with nogil:
        status = fvlrp_product(real, m, k, n, pa, row, channel, tap, taps, sign, pb, ldb, windows, ps, add, pc, ldc)
    return check(status)


def _real(a, ndim):
    """Refuse an `a` that is not real with `ndim` axes."""
    if not isinstance(a, np.ndarray) or a.dtype not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise TypeError(f"a must be an array of float32 or float64, got {getattr(a, 'dtype', type(a).__name__)}")
    if a.ndim != ndim:
        raise ValueError(f"a must have {ndim} axes, got shape {a.shape}")


def product(a, b, out, bias=None, bint add=False, int sign=0):
    """`out` (m, n) = a (m, k) @ b (k, n) + bias (m,), or added to `out`; all float32 or all float64.

    `a` may have any strides; rows of `b` and `out` are contiguous. `out` overlaps none of the others. `sign` 1, -1
    or 2 takes max(a, 0), min(a, 0) or |a| in the place of `a`.
    """
    _real(a, 2)
    cdef ptrdiff_t ldb = _strided(b, "b", (a.shape[1], None), a.dtype)
    multiply(a[:, :, None], sign, b, ldb, NULL, b.shape[1], out, bias, add)
    return out


def convolve(a, x, kernel, stride, pads, dilation, rows, ptrdiff_t cols, out, bias=None, bint add=False, int sign=0):
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
    """
    _real(a, 3)
    take(x, "x", (None, None, None), [a.dtype])
    if a.shape[1:] != (x.shape[0], kernel[0] * kernel[1]):
        raise ValueError(f"a must have shape (any, {x.shape[0]}, {kernel[0] * kernel[1]}), got {a.shape}")
    cdef fvlrp_windows w = windows_of(x, kernel, stride, pads, dilation, rows, cols)
    multiply(a, sign, x, 0, &w, w.rows * w.cols, out, bias, add)
    return out


def winograd(
    a, x, pads, rows, ptrdiff_t cols, out, bias=None, bint add=False, int sign=0, other=None, double doubt=0, whole=None
):
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
    _real(a, 3)
    take(x, "x", (None, None, None), [np.float32])
    if other is not None:
        take(other, "other", x.shape, [np.float32])
    if a.dtype != np.float32 or a.shape[1:] != (x.shape[0], 9):
        raise ValueError(f"a must be float32 of shape (any, {x.shape[0]}, 9), got {a.dtype} {a.shape}")
    if any(stride % a.itemsize for stride in a.strides):
        raise ValueError("a must have strides of whole elements")
    cdef fvlrp_windows w = windows_of(x, (3, 3), (1, 1), pads, (1, 1), rows, cols)
    cdef ptrdiff_t m = a.shape[0], row, channel, tap, ldw = 0
    row, channel, tap = (stride // a.itemsize for stride in a.strides)
    cdef ptrdiff_t ldc = _strided(out, "out", (m, w.rows * w.cols), a.dtype, True)
    if whole is not None:
        ldw = _strided(whole, "whole", (m, w.rows * w.cols), a.dtype)
    if bias is not None:
        take(bias, "bias", (m,), [a.dtype])
    cdef const float *pa = <const float *>address(a)
    cdef const float *px = <const float *>address(x)
    cdef const float *po = <const float *>address(other)
    cdef const float *ps = <const float *>address(bias)
    cdef const float *pw = <const float *>address(whole)
    cdef float *pc = <float *>address(out)
    cdef int status
    with nogil:
        status = fvlrp_winograd(m, pa, row, channel, tap, sign, &w, px, po, ps, add, doubt, pw, ldw, pc, ldc)
    check(status)
    return out


# ---- relevance of linear layers and pools ----------------------------------------------------------------------------


cdef struct outputs:  # some rows of a dense layer's weights (m, n)
    int real
    ptrdiff_t m, n, count
    const void *weight
    const int64_t *rows


cdef outputs outputs_of(weight, rows):
    """The outputs `rows` int64 (count,) of a dense layer, whose weights are float32 or float64 (m, n)."""
    take(weight, "weight", (None, None), [np.float32, np.float64])
    take(rows, "rows", (None,), [np.int64])
    cdef outputs some
    some.real, some.m, some.n, some.count = element(weight), weight.shape[0], weight.shape[1], rows.shape[0]
    some.weight, some.rows = address(weight), <const int64_t *>address(rows)
    return some


def _sides(names, first, second, shape, dtype, bint writable=False):
    """Refuse arrays for inputs >= 0 and for those <= 0 that are not of `shape`; the second may be None."""
    take(first, names[0], shape, [dtype], writable)
    if second is not None:
        take(second, names[1], shape, [dtype], writable)


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
    cdef outputs some = outputs_of(weight, rows)
    _sides(("above", "below"), above, below, weight.shape[1:], weight.dtype)
    up, down = np.empty(len(rows), weight.dtype), np.empty(len(rows), weight.dtype)
    cdef int status
    cdef const void *pa = address(above)
    cdef const void *pb = address(below)
    cdef void *pu = address(up)
    cdef void *pd = address(down)
    with nogil:
        status = fvlrp_dense_sums(some.real, some.m, some.n, some.weight, some.count, some.rows, pa, pb, pu, pd)
    check(status)
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
    cdef outputs some = outputs_of(weight, rows)
    take(positive, "positive", (None, len(rows)), [weight.dtype])
    take(negative, "negative", positive.shape, [weight.dtype])
    _sides(("up", "down"), up, down, (positive.shape[0], weight.shape[1]), weight.dtype, True)
    cdef ptrdiff_t targets = positive.shape[0]
    cdef int status
    cdef const void *pp = address(positive)
    cdef const void *pn = address(negative)
    cdef void *pu = address(up)
    cdef void *pd = address(down)
    with nogil:
        status = fvlrp_dense_back(
            some.real, targets, some.m, some.n, some.weight, some.count, some.rows, pp, pn, pu, pd
        )
    check(status)


def dense_alpha_beta(weight, rows, above, below, bias, r, double alpha, double beta, up, down=None):
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
    cdef outputs some = outputs_of(weight, rows)
    take(r, "r", (None, len(rows)), [weight.dtype])
    _sides(("above", "below"), above, below, weight.shape[1:], weight.dtype)
    if bias is not None:
        take(bias, "bias", rows.shape, [weight.dtype])
    _sides(("up", "down"), up, down, (r.shape[0], weight.shape[1]), weight.dtype, True)
    if below is not None and down is None:
        raise ValueError("down must be an array where below is one: what goes back to inputs <= 0 is added to it")
    cdef ptrdiff_t targets = r.shape[0]
    cdef int status
    kept, lost = np.empty(targets), np.empty(targets)
    cdef const void *pa = address(above)
    cdef const void *pb = address(below)
    cdef const void *ps = address(bias)
    cdef const void *pr = address(r)
    cdef void *pu = address(up)
    cdef void *pd = address(down)
    cdef double *pk = <double *>address(kept)
    cdef double *pl = <double *>address(lost)
    with nogil:
        status = fvlrp_dense_alpha_beta(
            some.real, targets, some.m, some.n, some.weight, some.count, some.rows, pa, pb, ps, pr, alpha, beta, pu, pd,
            pk, pl
        )
    check(status)
    return kept, lost


def alpha_beta(r, z, positive, double alpha, double beta, double weak):
    """Shares alpha r / z+ and -beta r / z- of relevance, with z- = z - z+.

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

    Returns
    -------
    up : (targets, m, n)
    down : (targets, m, n) or None
        None where beta is 0.
    kept : float64 (2, targets, m)
        Sums of both over n.
    lost : float64 (targets,)
        What vanishes with denominators of 0.
    doubtful : int64 (count,)
        Outputs with relevance whose denominators are still to be found, as positions in (m, n): their shares are 0.
    """
    _real(r, 3)
    take(positive, "positive", r.shape[1:], [r.dtype])
    cdef ptrdiff_t targets = r.shape[0], m = r.shape[1], n = r.shape[2], ldr = n, pitch = 0, ldz = 0
    cdef ptrdiff_t capacity, count = 0
    if z is not None:
        ldz = _strided(z, "z", (m, n), r.dtype)
    elif beta:
        raise ValueError("z must be given where beta is not 0")
    if r.size:
        ldr = _strided(r[0], "r", (m, n), r.dtype)
        pitch = r.strides[0] // r.itemsize
        if r.strides[0] % r.itemsize:
            raise ValueError("r must have strides of whole elements")
    up = np.empty((targets, m, n), r.dtype)
    down = np.empty((targets, m, n), r.dtype) if beta else None
    kept, lost = np.empty((2, targets, m)), np.empty(targets)
    doubtful = np.empty(max(1, m * n // 16), np.int64)
    capacity = doubtful.shape[0]
    cdef int real = element(r), status
    cdef const void *pr = <const void *><size_t>r.ctypes.data
    cdef const void *pz = <const void *><size_t>(0 if z is None else z.ctypes.data)
    cdef const void *pp = address(positive)
    cdef void *pu = address(up)
    cdef void *pd = address(down)
    cdef double *pk = <double *>address(kept)
    cdef double *pl = <double *>address(lost)
    cdef int64_t *pf = <int64_t *>address(doubtful)
    with nogil:
        status = fvlrp_alpha_beta(real, targets, m, n, pr, pitch, ldr, pz, ldz, pp, alpha, beta, weak, pu, pd, pk, pl,
                                  capacity, pf, &count)
    check(status)
    return up, down, kept, lost, doubtful[:count] if count <= capacity else None


def max_pool(x, kernel, stride, pads, dilation, out):
    """Largest pixel of each window of x, float32 or float64 (C, H, W), inside the image: `out` (C, rows, cols)."""
    take(x, "x", (None, None, None), [np.float32, np.float64])
    take(out, "out", (x.shape[0], None, None), [x.dtype], True)
    cdef fvlrp_windows w = windows_of(x, kernel, stride, pads, dilation, (0, out.shape[1]), out.shape[2])
    cdef int real = element(x), status
    cdef const void *px = address(x)
    cdef void *po = address(out)
    with nogil:
        status = fvlrp_max_pool(real, &w, px, po)
    check(status)


def max_pool_back(x, y, r, kernel, stride, pads, dilation, out):
    """Add relevance r (targets, C, rows, cols) to `out` (targets, C, H, W), at the first maximum of each window of x.

    `y` (C, rows, cols) holds the maxima of x (C, H, W); all of one dtype.
    """
    take(x, "x", (None, None, None), [np.float32, np.float64])
    take(y, "y", (x.shape[0], None, None), [x.dtype])
    take(r, "r", (None, *y.shape), [x.dtype])
    take(out, "out", (r.shape[0], *x.shape), [x.dtype], True)
    cdef fvlrp_windows w = windows_of(x, kernel, stride, pads, dilation, (0, y.shape[1]), y.shape[2])
    cdef ptrdiff_t targets = r.shape[0]
    cdef int real = element(x), status
    cdef const void *px = address(x)
    cdef const void *py = address(y)
    cdef const void *pr = address(r)
    cdef void *po = address(out)
    with nogil:
        status = fvlrp_max_pool_back(real, &w, px, py, targets, pr, po)
    check(status)
