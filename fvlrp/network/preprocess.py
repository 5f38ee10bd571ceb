"""The class Preprocess: from a photograph to a network's input, and from a heatmap on the input back to the photograph.

For the modules of this wing and users (`fvlrp.Preprocess`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..data import bands, images
from ..runtime import limits
from ..runtime.arguments import check_choice, is_real
from ..runtime.caller import stack_level
from ..runtime.types import Json, Parsed, Pixels

BANDS = "bands"  # the order of channels that are not colours
USUAL_SIZE = 224  # default height and width for networks that accept any size
MOST_STD = 10  # times white: a larger std leaves next to nothing of a photograph
LONGEST = 1 << 16  # pixels of a side of an input, or of the shorter side of a photograph


@dataclass(frozen=True)
class Preprocess:
    """How a photograph becomes a network's input, and how a heatmap is mapped back to the photograph.

    ``x = (value - mean) / std`` channel by channel, in the order of `order`, after resizing.

    Parameters
    ----------
    size : (int, int)
        Height and width of the network's input.
    how : {"stretch", "crop"}
        Resize the whole photograph, changing its aspect ratio; or resize the shorter side to `resize` pixels and crop
        the centre.
    resize : int or None
        For "crop"; None: the larger of `size`.
    order : {"RGB", "BGR", "grey", "bands"}
        Channels of the input. A grey photograph becomes three equal channels. "bands" are any number of channels that
        are not colours: images are arrays (H, W, channels), of which uint8 is scaled to 0..high and all else taken as
        it is; `mean` or `std` has one number for each.
    high : {1, 255}
        Value of white before mean and std. A mean or std that belongs to the other range draws a warning.
    mean, std : tuple of float
        One value per channel, in the order of `order`; or a single value for all channels.
    resample : {"bilinear", "bicubic"}
        Interpolation for resizing, with antialiasing.

    Examples
    --------
    >>> imagenet = fvlrp.Preprocess((224, 224), how="crop", resize=256, mean=(.485, .456, .406), std=(.229, .224, .225))
    >>> imagenet.prepare(np.zeros((300, 400, 3), np.uint8)).shape
    (1, 3, 224, 224)
    """

    size: tuple[int, int] = (USUAL_SIZE, USUAL_SIZE)
    how: str = "stretch"
    resize: int | None = None
    order: str = "RGB"
    high: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resample: str = "bilinear"

    def __post_init__(self) -> None:
        for name in ("size", "mean", "std"):
            object.__setattr__(self, name, tuple(np.ravel(getattr(self, name)).tolist()))
        size: tuple[float, ...] = self.size
        if len(size) != 2 or any(not is_real(n) or n < 1 or n % 1 for n in size):
            raise ValueError(f"size must be height and width in whole pixels, got {size!r}")
        object.__setattr__(self, "size", tuple(map(int, size)))
        if max(size) > LONGEST:
            raise ValueError(f"size must be at most {LONGEST} pixels, got {size!r}")
        check_choice("how", self.how, ("stretch", "crop"))
        check_choice("order", self.order, ("RGB", "BGR", "grey", BANDS))
        _check_high(self.high)
        check_choice("resample", self.resample, ("bilinear", "bicubic"))
        short = self.resize
        if short is not None and (self.how != "crop" or not is_real(short) or short < max(self.size)):
            raise ValueError(
                f"resize must be at least {max(self.size)} and is only for how='crop', got {self.resize!r}"
            )
        if short is not None and (short > LONGEST or short % 1):
            raise ValueError(f"resize must be a whole number of at most {LONGEST} pixels, got {short!r}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels) or not all(is_real(v) and np.isfinite(v) for v in values):
                raise ValueError(f"{name} must hold 1 or {self.channels} finite numbers, got {values!r}")
        if not all(self.std):
            raise ValueError(f"std must not be zero, got {self.std!r}")
        self._warn_of_range()

    def _warn_of_range(self) -> None:
        """Warn of mean and std that belong to the other range of values, of which the heatmap would be wrong."""
        if self.order == BANDS:  # arrays may have any range
            return
        if self.high == 1 and (max(self.mean) > 1 or max(map(abs, self.std)) > MOST_STD):
            other = 255
        elif self.high == 255 and min(self.mean) > 0 and max((*self.mean, *map(abs, self.std))) <= 1:
            other = 1
        else:
            return
        warnings.warn(
            f"mean {_listed(self.mean)} and std {_listed(self.std)} are of values in 0..{other}, but photographs have "
            f'values in 0..{self.high:g} before them: give high={other} ("high": {other} in a JSON file) unless that '
            "is meant",
            stacklevel=stack_level(),
        )

    def span(self) -> tuple[float, float]:
        """The least and the largest value of a prepared photograph."""
        ends = (np.array([[0.0], [self.high]]) - np.asarray(self.mean)) / np.asarray(self.std)
        return float(ends.min()), float(ends.max())

    @property
    def channels(self) -> int:
        """Number of channels."""
        if self.order == BANDS:
            return max(len(self.mean), len(self.std))
        return 1 if self.order == "grey" else 3

    def prepare(self, image: images.ImageLike) -> npt.NDArray[np.float32]:
        """The network's input, float32 (1, channels, height, width). Raises the errors of `fvlrp.images.load`."""
        values = self._read(image)
        planes = values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)
        white = 255 if planes.dtype == np.uint8 else self.high if self.order == BANDS else 1
        resized, (top, left) = self._window(planes.shape[1:])
        height, width = self.size
        limits.require(8 * resized[0] * resized[1], f"preprocess: resizing to {resized[0]} x {resized[1]} pixels")
        whole = (_resized(plane, resized, self.resample) for plane in planes)
        box = [plane[top : top + height, left : left + width] for plane in whole]
        x = np.stack([box[0]] * self.channels if len(box) < self.channels else box)
        if self.order == "BGR":
            x = x[::-1]
        mean, std = (np.reshape(values, (-1, 1, 1)) for values in (self.mean, self.std))
        prepared = (x * np.float32(self.high / white) - mean) / std
        return np.asarray(prepared, np.float32)[None]

    def _read(self, image: images.ImageLike) -> Pixels:
        if self.order == BANDS:
            return bands.load(image, self.channels)
        return images.grey(image) if self.order == "grey" else images.load(image)

    def undo(self, heatmap: npt.ArrayLike, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Map a heatmap on the network's input back to the photograph's size; keeps its sum, and is 0 outside a crop.

        Parameters
        ----------
        heatmap : ndarray (h, w), or a stack of them (..., h, w)
        shape : (int, int)
            Height and width of the photograph.

        Returns
        -------
        ndarray float64 (..., *shape)
        """
        heatmap = np.asarray(heatmap, np.float64)
        if heatmap.shape[-2:] != self.size:
            raise ValueError(f"heatmap has shape {heatmap.shape}; expected (..., {self.size[0]}, {self.size[1]})")
        resized, (top, left) = self._window(shape)
        if resized != self.size:
            whole = np.zeros((*heatmap.shape[:-2], *resized))
            whole[..., top : top + self.size[0], left : left + self.size[1]] = heatmap
            heatmap = whole
        return images.resample_conserving(heatmap, shape)

    def box(self, shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """What of a photograph of `shape` (H, W) the network sees: top, left, bottom, right in its pixels."""
        resized, corner = self._window(shape)
        spans = list(zip(corner, self.size, resized, shape, strict=True))
        top, left = (length * first // whole for first, _, whole, length in spans)
        bottom, right = (-(-length * (first + size) // whole) for first, size, whole, length in spans)
        return top, left, bottom, right

    def _window(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """The size to which a photograph of `shape` is resized, and the top-left pixel of the input in it."""
        if self.how == "stretch":
            return self.size, (0, 0)
        short = max(self.size) if self.resize is None else self.resize
        height, width = (max(short, round(length * short / min(shape))) for length in shape)
        return (height, width), ((height - self.size[0]) // 2, (width - self.size[1]) // 2)

    def to_dict(self) -> dict[str, Json]:
        """The options, ready for JSON."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def usual(
        cls, channels: int, size: tuple[int | None, int | None], high: float = 1.0, mean: float = 0.0
    ) -> Preprocess:
        """What is assumed of a network's input where nothing says otherwise."""
        shape = size[0] or USUAL_SIZE, size[1] or USUAL_SIZE
        order = {1: "grey", 3: "RGB"}.get(channels, BANDS)
        return cls(shape, order=order, high=high, mean=(mean,) * (channels if order == BANDS else 1))

    @classmethod
    def from_dict(cls, values: Mapping[str, Parsed]) -> Preprocess:
        """From the dictionary that `to_dict` returns, or from the description beside a model file.

        Such a description has input_size, channel_order ("BGR"), value_range ([0, 255]), mean_rgb, mean_bgr or mean,
        scale (x = (value - mean) * scale) or std, and resize ("shorter side to 256, centre crop 224"; any other text
        means that the whole photograph is resized).
        """
        known = {field.name for field in fields(cls)}
        if "input_size" not in values:
            unknown = sorted(set(values) - known)
            if unknown:
                raise ValueError(f"preprocess has no option {unknown[0]!r}; valid ones are {', '.join(sorted(known))}")
            return cls(**values)
        order = values.get("channel_order", "RGB")
        mean = values.get("mean", (0.0,))
        for name, its in (("mean_rgb", "RGB"), ("mean_bgr", "BGR")):
            if name in values:
                mean = values[name] if order == its else values[name][::-1]
        std: Parsed = values.get("std", 1.0) if "scale" not in values else 1 / np.asarray(values["scale"], float)
        how, resize = _read_resize(values.get("resize", ""))
        high = float(np.max(values.get("value_range", (0, 1))))
        return cls(values["input_size"], how, resize, order, high, mean, std, values.get("resample", "bilinear"))


def _read_resize(text: object) -> tuple[str, int | None]:
    """A sentence such as "shorter side to 256, then centre crop 224" as (how, resize)."""
    words = str(text).lower().replace(",", " ").split()
    if words[:2] != ["shorter", "side"]:
        return "stretch", None
    numbers = [int(word) for word in words if word.isdigit()]
    return "crop", numbers[0] if numbers else None


def _check_high(high: object) -> None:
    try:
        check_choice("high", high, (1, 255))
    except ValueError as error:
        raise ValueError(f"{error}: for a white of w, give high=1 and divide mean and std by w") from None


def _listed(values: tuple[float, ...]) -> str:
    return f"({', '.join(f'{value:g}' for value in values)})" if len(values) > 1 else f"{values[0]:g}"


def _resized(plane: Pixels, shape: tuple[int, int], resample: str) -> npt.NDArray[np.float32]:
    picture = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling[resample.upper()]))
