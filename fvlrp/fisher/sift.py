"""Dense SIFT in VLFeat's geometry: descriptors of an image, and relevance of descriptor values back to pixels.

Hides scales, the bands of rows that threads compute, and the conversion of images to grey values. For the layers and
the classifier of this wing; `DenseSIFT` is public.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import ceil
from typing import TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

from .. import _kernels
from ..core.estimator import Transformer
from ..data import images as pictures
from ..data.images import GreyRows, ImageLike, Images, batch, naming
from ..runtime import limits, threads
from ..runtime.arguments import check_choice, is_real, is_whole
from ..runtime.types import Element, Floats, Untyped
from .geometry import Geometry, Scale

Grey: TypeAlias = "npt.NDArray[np.float32] | GreyRows"
Described: TypeAlias = "npt.NDArray[np.uint8 | np.float32 | np.float64]"  # (n, 128), or projected (n, D)


class Options(TypedDict):
    """What the kernels need to know of a scale."""

    sigma: float
    window: str
    window_size: float
    contrast_threshold: float
    angles: str


WHOLE = 1 << 21  # images of more descriptors are analysed in strips: docs/numerics.md §11
STRIP = 1 << 19  # descriptors in a strip


@dataclass(frozen=True)
class Descriptors:
    """Dense SIFT descriptors of one image, projected or not.

    Rows are ordered by bin size, then y, then x. Descriptors below the contrast threshold are zero but stay in place.

    Attributes
    ----------
    values : uint8 or float32 (n, 128)
        On 0..255. Value 32 iy + 8 ix + o belongs to spatial bin (iy, ix) and orientation o. Projected: real (n, D).
    zeroed : bool (n,)
        Which descriptors are zero: those with contrast below the threshold or without any gradient.
    geometry : Geometry
        Frames, supports and pyramid cells.
    """

    values: Described
    zeroed: npt.NDArray[np.bool_]
    geometry: Geometry

    @property
    def frames(self) -> npt.NDArray[np.float32]:
        """float32 (n, 3): centre y, centre x, bin size."""
        return self.geometry.frames

    def __len__(self) -> int:
        return len(self.values)


class DenseSIFT(Transformer):
    """Dense SIFT at several scales, as VLFeat's ``vl_phow`` computes it on grey images.

    Each scale smooths the image with a Gaussian of ``bin_size / magnif`` pixels, spreads gradient magnitudes over 8
    orientations and pools them into 4 x 4 bins by triangles of twice the bin size. Descriptors are L2-normalised,
    clipped at 0.2, normalised again, multiplied by 512 and clipped at 255.

    A stateless scikit-learn transformer from images to lists of descriptors. Parameters are checked when used.

    Parameters
    ----------
    bin_sizes : sequence of int, or int
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
        Threads, as in scikit-learn. Results do not depend on it.

    References
    ----------
    K. Chatfield, V. Lempitsky, A. Vedaldi, A. Zisserman: The devil is in the details: an evaluation of recent feature
    encoding methods. BMVC 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from fvlrp import DenseSIFT, DiagonalGMM, FisherEncoder
    >>> descriptors = DenseSIFT(step=4).extract(np.eye(64, dtype=np.float32))
    >>> descriptors.values.shape, descriptors.values.dtype
    ((402, 128), dtype('uint8'))

    Fisher vectors in a pipeline; `FisherVectorClassifier` adds PCA, a pyramid and explanations:

    >>> from sklearn.pipeline import make_pipeline
    >>> pipeline = make_pipeline(DenseSIFT(step=8), FisherEncoder(DiagonalGMM(2, random_state=0)))
    >>> pipeline.fit_transform([np.eye(64, dtype=np.float32), np.eye(64, 80, dtype=np.float32)]).shape
    (2, 512)
    """

    def __init__(
        self,
        bin_sizes: Sequence[int] | int = (4, 6, 8, 10),
        step: int = 3,
        magnif: float = 6.0,
        window: str = "flat",
        window_size: float = 1.5,
        contrast_threshold: float = 0.005,
        quantize: bool = True,
        angles: str = "vlfeat",
        n_jobs: int | None = None,
    ) -> None:
        self.bin_sizes = bin_sizes
        self.step = step
        self.magnif = magnif
        self.window = window
        self.window_size = window_size
        self.contrast_threshold = contrast_threshold
        self.quantize = quantize
        self.angles = angles
        self.n_jobs = n_jobs

    def check(self) -> None:
        """Raise ValueError or TypeError, naming the parameter, unless all are in range. Every method calls it."""
        _ = self.sizes
        _pixels("step", self.step)
        for name in ("magnif", "window_size"):
            value = getattr(self, name)
            if not (is_real(value) and 0 < value < np.inf):
                raise ValueError(f"{name} must be a positive number, got {value!r}")
        if not (is_real(self.contrast_threshold) and 0 <= self.contrast_threshold < np.inf):
            raise ValueError(f"contrast_threshold must be a finite number >= 0, got {self.contrast_threshold!r}")
        check_choice("quantize", self.quantize, (True, False))
        for name, choices in (("window", _kernels.WINDOWS), ("angles", _kernels.ANGLES)):
            check_choice(name, getattr(self, name), tuple(choices))

    @property
    def sizes(self) -> tuple[int, ...]:
        """The bin sizes as a tuple of whole numbers."""
        given = self.bin_sizes if isinstance(self.bin_sizes, Iterable) else (self.bin_sizes,)
        sizes = tuple(_pixels("bin_sizes", size) for size in given)
        if not sizes:
            raise ValueError("bin_sizes must name at least one bin size in pixels, got none")
        return sizes

    def fit(self, images: object = None, y: object = None) -> DenseSIFT:
        """Check the parameters; there is nothing to learn."""
        self.check()
        return self

    def transform(self, images: Images) -> list[Described]:
        """Values (n, 128) of the descriptors of each image, as from `extract`; `n_jobs` images in parallel."""
        several = batch(images)

        def one(i: int) -> Described:
            return naming(several, i, lambda image: self.extract(image).values)

        return threads.run([partial(one, i) for i in range(len(several))], self.n_jobs)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Untyped:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False  # images, of any sizes
        return tags

    def geometry(self, height: int, width: int) -> Geometry:
        """Frames of an image of `height` x `width` pixels."""
        return Geometry(int(height), int(width), self.sizes, _pixels("step", self.step))

    def extract(self, image: ImageLike) -> Descriptors:
        """Descriptors of an image, which is never resized.

        Parameters
        ----------
        image : path, PIL image or array
            A 2-D array is taken as grey values; colours are converted by `fvlrp.images.grey`.

        Returns
        -------
        Descriptors

        Raises
        ------
        ValueError
            If the image is too small for every scale, or its values are not in 0..1 (floats) or 0..255 (uint8).
        """
        if not (isinstance(image, np.ndarray) and image.ndim == 2 and image.dtype == np.float32):
            image = pictures.grey(image)
        return self.extract_grey(image)

    def extract_grey(self, grey: npt.ArrayLike, n_jobs: int | None = None) -> Descriptors:
        """Descriptors of grey values in 0..1, float32 (height, width). `n_jobs` overrides the parameter."""
        self.check()
        grey = _grey(grey)
        geometry = self.geometry(*grey.shape)
        if geometry.n == 0:
            side = Geometry.smallest_side(geometry.bin_sizes)
            raise ValueError(
                f"image of {grey.shape[0]} x {grey.shape[1]} pixels is too small: bin_sizes={geometry.bin_sizes} need "
                f"at least {side} x {side}; choose smaller bin_sizes or enlarge the image"
            )
        return self._extracted(grey, geometry, n_jobs)

    def strips(self, geometry: Geometry, most: int) -> tuple[Geometry, ...]:
        """An image's geometry in strips of about `most` descriptors: what `extract_strip` takes."""
        # A bin is pooled over its size to either side, of gradients of pixels smoothed over 4 standard deviations.
        border = max(size + ceil(4 * size / self.magnif) + 1 for size in geometry.bin_sizes)
        # In strips lower than their borders, as of a very wide image, most of the work would be repeated.
        low = 2 * border * geometry.n // geometry.height
        return geometry.strips(max(most, min(low, WHOLE)), border)

    def extract_strip(
        self, grey: npt.NDArray[np.float32], geometry: Geometry, n_jobs: int | None = None
    ) -> Descriptors:
        """Descriptors of a strip: the same bits as in the whole image. `grey` holds the pixels of the strip alone."""
        return self._extracted(_grey(grey), geometry, n_jobs)

    def _extracted(self, grey: npt.NDArray[np.float32], geometry: Geometry, n_jobs: int | None) -> Descriptors:
        size = np.uint8 if self.quantize else np.float32
        limits.require(geometry.n * 128 * np.dtype(size).itemsize, f"{geometry.n} descriptors")
        # A kernel counts rows of frames from the top of its pixels, and writes none of those that lead.
        lead = max(scale.lead * scale.cols for scale in geometry.scales)
        values, zeroed = np.empty((lead + geometry.n, 128), size), np.empty(lead + geometry.n, np.uint8)
        n_jobs = self.n_jobs if n_jobs is None else n_jobs
        threads.run(self._tasks(grey, geometry, lead, values, zeroed, threads.count(n_jobs)), n_jobs)
        return Descriptors(values[lead:], zeroed[lead:].view(np.bool_), geometry)

    def spread(
        self,
        grey: npt.NDArray[np.float32],
        scale: Scale,
        relevance: Floats,
        pixels: npt.NDArray[np.float64],
    ) -> float:
        """ADD one scale's relevance, real (n, 128), to pixels (H, W) by Eq. 1.

        Returns the relevance of values whose bin has no gradient: it belongs to no pixel.
        """
        values = led(relevance.reshape(scale.rows, scale.cols, -1), scale)
        return float(_kernels.sift_pixels(grey, _in_strip(scale), values, pixels, **self._options(scale.bin_size)))

    def _options(self, bin_size: int) -> Options:
        """What the kernels need to know of a scale, in Python's types: a float32 would set the precision."""
        return {
            "sigma": bin_size / float(self.magnif),
            "window": self.window,
            "window_size": float(self.window_size),
            "contrast_threshold": float(self.contrast_threshold),
            "angles": self.angles,
        }

    def _tasks(
        self,
        grey: npt.NDArray[np.float32],
        geometry: Geometry,
        lead: int,
        values: Described,
        zeroed: npt.NDArray[np.uint8],
        workers: int,
    ) -> list[Callable[[], None]]:
        """Bands of frame rows. A band computes the rows it shares with the next again: as few as keep workers busy.

        The first descriptor is row `lead` of values and zeroed.
        """
        scales = _dearest_first(geometry)
        bands = 1 if workers == 1 else -(-2 * workers // len(scales))
        tasks: list[Callable[[], None]] = []
        for scale in scales:
            edges = np.linspace(0, scale.rows, min(bands, scale.rows) + 1).astype(int) + scale.lead
            call = partial(_kernels.sift, grey, _in_strip(scale), _of(scale, values, lead), _of(scale, zeroed, lead))
            tasks += [
                partial(call, begin, end, **self._options(scale.bin_size)) for begin, end in pairwise(edges.tolist())
            ]
        return tasks


def read_grey(image: ImageLike, sift: DenseSIFT, max_height: int | None) -> Grey:
    """The grey values float32 (h, w) to analyse: those of the image, reduced to at most `max_height` rows.

    For a large image they are computed row by row, on access.

    Raises
    ------
    ValueError
        The image is large enough for a descriptor, but the reduced image is not. (`DenseSIFT.extract_grey` rejects
        images that are too small in the first place.) Also the errors of `fvlrp.images.load`.
    """
    pixels = pictures.load(image)
    height, width = pixels.shape[:2]
    if pictures.reduced(height, width, max_height) == (height, width) and sift.geometry(height, width).n > WHOLE:
        return GreyRows(pixels)
    grey = pictures.grey(pixels, max_height)
    if grey.shape != pixels.shape[:2] and not sift.geometry(*grey.shape).n:
        sizes = sift.geometry(*grey.shape).bin_sizes
        side = Geometry.smallest_side(sizes)
        raise ValueError(
            f"image of {pixels.shape[0]} x {pixels.shape[1]} pixels is too small after max_height={max_height} reduced "
            f"it to {grey.shape[0]} x {grey.shape[1]}: bin_sizes={sizes} need at least {side} x {side}; "
            "raise max_height or choose smaller bin_sizes"
        )
    return grey


def _dearest_first(geometry: Geometry) -> list[Scale]:
    """Scales with frames, large bins first: threads then finish together."""
    return sorted((scale for scale in geometry.scales if scale.count), key=lambda scale: -scale.bin_size)


def _of(scale: Scale, array: npt.NDArray[Element], lead: int) -> npt.NDArray[Element]:
    """Rows of a per-descriptor array that belong to `scale`, and the rows of frames that lead, as (rows, cols, ...).

    The first descriptor is row `lead` of the array.
    """
    begin = lead + scale.start - scale.lead * scale.cols
    return array[begin : lead + scale.slice.stop].reshape(-1, scale.cols, *array.shape[1:])


def _in_strip(scale: Scale) -> Scale:
    """The grid from the top of the strip's pixels on, as kernels count it."""
    return replace(scale, rows=scale.lead + scale.rows)


def led(values: npt.NDArray[Element], scale: Scale) -> npt.NDArray[Element]:
    """Values (rows, ...) after as many rows of zeros as rows of frames lead."""
    if not scale.lead:
        return values
    return np.concatenate([np.zeros((scale.lead, *values.shape[1:]), values.dtype), values])


def _pixels(name: str, value: object) -> int:
    if not is_whole(value):
        raise TypeError(f"{name} must be whole pixels, got {value!r}")
    if not 1 <= value < 1 << 31:
        raise ValueError(f"{name} must be at least 1 pixel and less than 2^31, got {value}")
    return int(value)


def _grey(grey: npt.ArrayLike) -> npt.NDArray[np.float32]:
    grey = np.ascontiguousarray(grey, np.float32)
    if grey.ndim != 2 or grey.size == 0:
        raise ValueError(f"grey must be a non-empty 2-D array of grey values, got shape {grey.shape}")
    # The contrast threshold is absolute: it would never apply to values in 0..255.
    low, high = float(grey.min()), float(grey.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"grey must hold values in 0..1, got {low:g}..{high:g}; divide values on 0..255 by 255")
    return grey
