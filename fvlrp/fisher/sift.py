"""Dense SIFT in VLFeat's geometry: descriptors of an image, and the way back from descriptors to pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from .. import _kernels
from ..data.images import batch, naming
from ..data.images import grey as grey_values
from ..runtime import threads
from ..runtime.arguments import check_choice, is_real, is_whole
from .geometry import Geometry, Scale


@dataclass(frozen=True)
class Descriptors:
    """Dense SIFT descriptors of one image.

    Rows follow the bin sizes, then y, then x; descriptors that the contrast threshold zeroed stay in place.

    Attributes
    ----------
    values : uint8 or float32 (n, 128)
        On 0..255. Value 32 iy + 8 ix + o belongs to spatial bin (iy, ix) and orientation o.
    zeroed : bool (n,)
        Which descriptors are all 0: their contrast is below the threshold, or they hold no gradient.
    geometry : Geometry
        Frames, supports and pyramid cells.
    """

    values: np.ndarray
    zeroed: np.ndarray
    geometry: Geometry

    @property
    def frames(self) -> np.ndarray:
        """float32 (n, 3): centre y, centre x, bin size."""
        return self.geometry.frames

    def __len__(self) -> int:
        return len(self.values)


@dataclass(unsafe_hash=True)  # `__setattr__` makes it safe
class DenseSIFT(TransformerMixin, BaseEstimator):
    """Dense SIFT at several scales, as VLFeat's ``vl_phow`` computes it on grey images.

    Each scale smooths the image with a Gaussian of ``bin_size / magnif`` pixels, spreads gradient magnitudes over 8
    orientations and pools them into 4 x 4 bins by triangles of twice the bin size. Descriptors are L2-normalised,
    clipped at 0.2, normalised again, multiplied by 512 and clipped at 255.

    A scikit-learn transformer from images to lists of descriptors that learns nothing, and a value: it never changes,
    and equal parameters make equal extractors. `set_params` therefore refuses; in a pipeline, the step is replaced
    (``set_params(densesift=DenseSIFT(step=4))``, and so are candidates of a grid search).

    Parameters
    ----------
    bin_sizes : sequence of int
        Sizes of a spatial bin in pixels, one scale each. All scales share their frame centres.
    step : int
        Distance of neighbouring descriptors in pixels.
    magnif : float
        Bin sizes per standard deviation of the smoothing.
    window : {"flat", "gaussian"}
        Weighting of a descriptor's pixels about its centre: exactly Gaussian, or the Gaussian's mean over each bin,
        which lets descriptors share their bins and is several times faster.
    window_size : float
        Standard deviation of that Gaussian in bin sizes.
    contrast_threshold : float
        Mean gradient magnitude, for grey values in 0..1, below which a descriptor is set to 0.
    quantize : bool
        Truncate values to uint8, as vl_phow does; else float32.
    angles : {"vlfeat", "exact"}
        Gradient directions by VLFeat's cubic approximation of the arc tangent (up to 0.6 degrees off), or exact.
    n_jobs : int or None
        Threads, as in scikit-learn: None is one, -1 one per processor. The results are the same bits.

    Raises
    ------
    ValueError
        If a parameter is out of range.

    References
    ----------
    K. Chatfield, V. Lempitsky, A. Vedaldi, A. Zisserman: The devil is in the details: an evaluation of recent feature
    encoding methods. BMVC 2011.

    Examples
    --------
    >>> import numpy as np
    >>> descriptors = DenseSIFT(step=4).extract(np.eye(64, dtype=np.float32))
    >>> descriptors.values.shape, descriptors.values.dtype
    ((402, 128), dtype('uint8'))

    Fisher vectors in a pipeline; `FisherVectorClassifier` adds PCA, a pyramid and explanations:

    >>> from sklearn.pipeline import make_pipeline
    >>> from fvlrp import DiagonalGMM, FisherEncoder
    >>> pipeline = make_pipeline(DenseSIFT(step=8), FisherEncoder(DiagonalGMM(2, random_state=0)))
    >>> pipeline.fit_transform([np.eye(64, dtype=np.float32), np.eye(64, 80, dtype=np.float32)]).shape
    (2, 512)
    """

    bin_sizes: tuple[int, ...] = (4, 6, 8, 10)
    step: int = 3
    magnif: float = 6.0
    window: str = "flat"
    window_size: float = 1.5
    contrast_threshold: float = 0.005
    quantize: bool = True
    angles: str = "vlfeat"
    n_jobs: int | None = None

    def __post_init__(self):
        sizes = self.bin_sizes if np.iterable(self.bin_sizes) else (self.bin_sizes,)
        sizes = tuple(_pixels("bin_sizes", size) for size in sizes)
        if not (isinstance(self.bin_sizes, tuple) and all(type(size) is int for size in self.bin_sizes)):
            object.__setattr__(self, "bin_sizes", sizes)  # else the very same tuple, as scikit-learn's clone demands
        object.__setattr__(self, "step", _pixels("step", self.step))
        if not self.bin_sizes:
            raise ValueError("bin_sizes must name at least one bin size in pixels, got none")
        for name in ("magnif", "window_size"):
            value = getattr(self, name)
            if not (is_real(value) and 0 < value < np.inf):
                raise ValueError(f"{name} must be a positive number, got {value!r}")
        if not (is_real(self.contrast_threshold) and 0 <= self.contrast_threshold < np.inf):
            raise ValueError(
                f"contrast_threshold must be a number and not be negative, got {self.contrast_threshold!r}"
            )
        for name, choices in (("window", _kernels.WINDOWS), ("angles", _kernels.ANGLES)):
            check_choice(name, getattr(self, name), tuple(choices))

    def __setattr__(self, name: str, value) -> None:
        """Parameters are set once; pipelines of scikit-learn hang notes of their own on their steps."""
        if name in self.__dataclass_fields__ and name in vars(self):
            self.set_params(**{name: value})
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dataclass_fields__:
            raise FrozenInstanceError(f"a DenseSIFT does not change: {name} stays")
        super().__delattr__(name)

    def set_params(self, **params) -> DenseSIFT:
        """Nothing: a value does not change. Raises AttributeError for any parameter."""
        if params:
            given = ", ".join(f"{name}={value!r}" for name, value in params.items())
            raise FrozenInstanceError(
                f"a DenseSIFT does not change: make another, DenseSIFT({given}), and replace this one"
            )
        return self

    def fit(self, images=None, y=None) -> DenseSIFT:
        """Nothing to learn. Returns self."""
        return self

    def transform(self, images) -> list[np.ndarray]:
        """Values of the descriptors of each image, (n, 128), as `extract` gives them; `n_jobs` images at a time."""
        images = batch(images)
        one = partial(naming, images, function=lambda image: self.extract(image).values)
        return threads.run([partial(one, i) for i in range(len(images))], self.n_jobs)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def geometry(self, height: int, width: int) -> Geometry:
        """Frames of an image of `height` x `width` pixels."""
        return Geometry(int(height), int(width), self.bin_sizes, self.step)

    def extract(self, image) -> Descriptors:
        """Descriptors of an image, which is never resized.

        Parameters
        ----------
        image : path, PIL image or array
            A 2-D array is its own grey; colours become grey as `fvlrp.images.grey` does.

        Returns
        -------
        Descriptors

        Raises
        ------
        ValueError
            If the image is too small for every scale, or its values are not in 0..1 (floats) or 0..255 (uint8).
        """
        if not (isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.float32):
            image = grey_values(image)
        return self.extract_grey(image)

    def extract_grey(self, grey: np.ndarray, n_jobs: int | None = None) -> Descriptors:
        """Descriptors of grey values in 0..1, float32 (height, width). `n_jobs` overrides the parameter."""
        grey = _grey(grey)
        geometry = self.geometry(*grey.shape)
        if geometry.n == 0:
            side = Geometry.smallest_side(self.bin_sizes)
            raise ValueError(
                f"image of {grey.shape[0]} x {grey.shape[1]} pixels is too small: bin_sizes={self.bin_sizes} need at "
                f"least {side} x {side}; choose smaller bin_sizes or enlarge the image"
            )
        values = np.empty((geometry.n, 128), np.uint8 if self.quantize else np.float32)
        zeroed = np.empty(geometry.n, np.uint8)
        n_jobs = self.n_jobs if n_jobs is None else n_jobs
        threads.run(self._tasks(grey, geometry, values, zeroed, threads.count(n_jobs)), n_jobs)
        return Descriptors(values, zeroed.view(np.bool_), geometry)

    def planes(self, grey: np.ndarray, bin_size: int) -> np.ndarray:
        """Orientation planes of the scale of `bin_size`: gradient magnitudes, float32 (height, width, 8)."""
        size = _pixels("bin_size", bin_size)
        return _kernels.sift_planes(_grey(grey), Scale(size, self.step, 0, 0, 0, 0), **self._options(size))

    def pixels(self, grey: np.ndarray, relevance: np.ndarray, n_jobs: int | None = None) -> tuple[np.ndarray, float]:
        """Relevance of the descriptors' values, decomposed down to pixels: depth "gradient".

        Before it is normalised, value (iy, ix, o) of a descriptor is a sum over pixels of non-negative terms, triangle
        times orientation plane. Eq. 1 shares its relevance over them, exactly and without a stabiliser; normalising is
        elementwise and positive, so relevance passes it unchanged.

        Parameters
        ----------
        grey : float32 (height, width)
            What the descriptors were extracted from.
        relevance : float32 or float64 (n, 128)
        n_jobs : int or None
            Overrides the parameter.

        Returns
        -------
        heatmap : float64 (height, width)
        zero_bin : float
            Relevance of values whose bin holds no gradient at all, which belongs to no pixel:
            ``heatmap.sum() + zero_bin`` is ``relevance.sum()``.
        """
        grey = _grey(grey)
        geometry = self.geometry(*grey.shape)
        relevance = np.asarray(relevance)
        if relevance.shape != (geometry.n, 128):
            raise ValueError(
                f"relevance must have shape ({geometry.n}, 128), the descriptors of a {grey.shape[0]} x "
                f"{grey.shape[1]} image, got {relevance.shape}"
            )
        real = np.float32 if relevance.dtype == np.float32 else np.float64
        relevance = np.ascontiguousarray(relevance, real)
        n_jobs = self.n_jobs if n_jobs is None else n_jobs
        scales = _dearest_first(geometry)
        # A kernel adds to a pixel once, so that one map for all scales and a map for each give the same bits.
        heatmap = np.zeros(grey.shape)
        maps = [heatmap if threads.count(n_jobs) == 1 else np.zeros(grey.shape) for _ in scales]
        tasks = [
            partial(self.spread, grey, scale, relevance[scale.slice], pixels)
            for scale, pixels in zip(scales, maps, strict=True)
        ]
        zero_bin = 0.0
        for lost in threads.run(tasks, n_jobs):
            zero_bin += lost
        for pixels in maps:
            if pixels is not heatmap:
                heatmap += pixels
        return heatmap, zero_bin

    def spread(self, grey: np.ndarray, scale: Scale, relevance: np.ndarray, pixels: np.ndarray) -> float:
        """ADD the pixels of one scale's relevance, real (n, 128), as `pixels` does, and return its `zero_bin`."""
        values = relevance.reshape(scale.rows, scale.cols, -1)
        return _kernels.sift_pixels(grey, scale, values, pixels, **self._options(scale.bin_size))

    def _options(self, bin_size: int) -> dict:
        return {
            "sigma": bin_size / self.magnif,
            "window": self.window,
            "window_size": self.window_size,
            "contrast_threshold": self.contrast_threshold,
            "angles": self.angles,
        }

    def _tasks(self, grey, geometry: Geometry, values, zeroed, workers: int) -> list[Callable]:
        """Bands of frame rows. A band computes anew the rows it shares with the next: as few as keep workers busy."""
        scales = _dearest_first(geometry)
        bands = 1 if workers == 1 else -(-2 * workers // len(scales))
        tasks = []
        for scale in scales:
            edges = np.linspace(0, scale.rows, min(bands, scale.rows) + 1).astype(int).tolist()
            call = partial(_kernels.sift, grey, scale, _of(scale, values), _of(scale, zeroed))
            tasks += [partial(call, begin, end, **self._options(scale.bin_size)) for begin, end in pairwise(edges)]
        return tasks


def _dearest_first(geometry: Geometry) -> list[Scale]:
    """Scales with frames, large bins first: threads then finish together."""
    return sorted((scale for scale in geometry.scales if scale.count), key=lambda scale: -scale.bin_size)


def _of(scale: Scale, array: np.ndarray) -> np.ndarray:
    """Rows of a per-descriptor array that belong to `scale`, as (rows, cols, ...)."""
    return array[scale.slice].reshape(scale.rows, scale.cols, *array.shape[1:])


def _pixels(name: str, value) -> int:
    if not is_whole(value):
        raise TypeError(f"{name} must be whole pixels, got {value!r}")
    if not 1 <= value < 1 << 31:
        raise ValueError(f"{name} must be at least 1 pixel and less than 2^31, got {value}")
    return int(value)


def _grey(grey) -> np.ndarray:
    grey = np.ascontiguousarray(grey, np.float32)
    if grey.ndim != 2 or grey.size == 0:
        raise ValueError(f"grey must be a non-empty 2-D array of grey values, got shape {grey.shape}")
    # The contrast threshold is absolute: values on 0..255 would silently disable it.
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"grey must hold values in 0..1, got {low:g}..{high:g}; divide values on 0..255 by 255")
    return grey
