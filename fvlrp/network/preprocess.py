"""How a photograph becomes a network's input and a heatmap finds its way back, as a value or as a JSON file says."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from PIL import Image

from ..data import images
from ..runtime.arguments import check_choice, is_real

USUAL_SIZE = 224  # height and width that a network of free input size gets where nothing says otherwise
_CLASS_KEYS = ("class_names", "classes", "labels", "synsets")  # of a JSON file that names the classes, too


@dataclass(frozen=True)
class Preprocess:
    """How a photograph becomes a network's input, and how a heatmap finds its way back.

    ``x = (value - mean) / std`` channel by channel, in the order of `order`, after resizing (antialiased bilinear).

    Parameters
    ----------
    size : (int, int)
        Height and width of the network's input.
    how : {"stretch", "crop"}
        The whole photograph, its aspect changed; or its centre, after the shorter side became `resize` pixels.
    resize : int or None
        For "crop"; None is the larger of `size`.
    order : {"RGB", "BGR", "grey"}
        Channels of the input. A grey photograph becomes three equal channels.
    high : {1, 255}
        Value of white before mean and std.
    mean, std : tuple of float
        One for each channel, in the order of `order`; of length 1, the same for all.

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

    def __post_init__(self):
        for name in ("size", "mean", "std"):
            object.__setattr__(self, name, tuple(np.ravel(getattr(self, name)).tolist()))
        if len(self.size) != 2 or any(not is_real(n) or n < 1 or n % 1 for n in self.size):
            raise ValueError(f"size must be height and width in whole pixels, got {self.size!r}")
        object.__setattr__(self, "size", tuple(map(int, self.size)))
        check_choice("how", self.how, ("stretch", "crop"))
        check_choice("order", self.order, ("RGB", "BGR", "grey"))
        check_choice("high", self.high, (1, 255))
        short = self.resize
        if short is not None and (self.how != "crop" or not is_real(short) or short < max(self.size)):
            raise ValueError(
                f"resize must be at least {max(self.size)}, and of use for how='crop', got {self.resize!r}"
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, self.channels) or not all(is_real(v) and np.isfinite(v) for v in values):
                raise ValueError(f"{name} must hold 1 or {self.channels} finite numbers, got {values!r}")
        if not all(self.std):
            raise ValueError(f"std must not be zero, got {self.std!r}")

    @property
    def channels(self) -> int:
        return 1 if self.order == "grey" else 3

    def prepare(self, image) -> np.ndarray:
        """The network's input, float32 (1, channels, height, width). Raises as `fvlrp.images.load` does."""
        values = images.grey(image) if self.order == "grey" else images.load(image)
        planes = values[None] if values.ndim == 2 else np.moveaxis(values, 2, 0)
        white = 255 if planes.dtype == np.uint8 else 1
        resized, (top, left) = self._window(planes.shape[1:])
        height, width = self.size
        box = [plane[top : top + height, left : left + width] for plane in (_resized(p, resized) for p in planes)]
        x = np.stack([box[0]] * self.channels if len(box) < self.channels else box)
        if self.order == "BGR":
            x = x[::-1]
        mean, std = (np.reshape(values, (-1, 1, 1)) for values in (self.mean, self.std))
        return ((x * np.float32(self.high / white) - mean) / std).astype(np.float32)[None]

    def undo(self, heatmap: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """A heatmap on the network's input, at the photograph's own size: the same sum, nothing outside a crop.

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

    def _window(self, shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Size that a photograph of `shape` is resized to, and where in it the input's first pixel lies."""
        if self.how == "stretch":
            return self.size, (0, 0)
        short = max(self.size) if self.resize is None else self.resize
        resized = tuple(max(short, round(length * short / min(shape))) for length in shape)
        return resized, tuple((long - own) // 2 for long, own in zip(resized, self.size, strict=True))

    def to_dict(self) -> dict:
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> Preprocess:
        """From what `to_dict` gives, or from the description beside a model file.

        Such a description has input_size, channel_order ("BGR"), value_range ([0, 255]), mean_rgb, mean_bgr or mean,
        scale (x = (value - mean) * scale) or std, and resize ("shorter side to 256, centre crop 224" or whatever else,
        which means the whole photograph).
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
        std = values.get("std", 1.0) if "scale" not in values else 1 / np.asarray(values["scale"], float)
        how, resize = _read_resize(values.get("resize", ""))
        high = float(np.max(values.get("value_range", (0, 1))))
        return cls(values["input_size"], how, resize, order, high, mean, std)


def _read_resize(text) -> tuple[str, int | None]:
    """A sentence such as "shorter side to 256, then centre crop 224" as (how, resize)."""
    words = str(text).lower().replace(",", " ").split()
    if words[:2] != ["shorter", "side"]:
        return "stretch", None
    numbers = [int(word) for word in words if word.isdigit()]
    return "crop", numbers[0] if numbers else None


def _resized(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.BILINEAR))


def read_description(path) -> tuple[Preprocess, list[str] | None]:
    """Preprocessing and class names of the JSON file beside a model."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"preprocess must be a Preprocess value or the path of a JSON file, got {path!r}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no file {os.fspath(path)} that says how to prepare photographs")
    try:
        with open(path, encoding="utf-8-sig") as file:  # some editors begin a file with a byte order mark
            values = json.load(file)
        if not isinstance(values, dict):
            raise ValueError(f"expected an object of names and values, got {type(values).__name__}")
        preprocess = Preprocess.from_dict(
            values if "input_size" in values else {k: v for k, v in values.items() if k not in _CLASS_KEYS}
        )
        names = next((_in_order(key, values[key]) for key in _CLASS_KEYS if values.get(key) is not None), None)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{os.fspath(path)} does not describe how to prepare photographs: {error}") from error
    return preprocess, None if names is None else _short_names(names)


def _in_order(key: str, names) -> list:
    """Labels of the outputs, of a list or of an object from "0", "1", ... to labels, whose order says nothing."""
    if isinstance(names, dict) and set(names) == {str(i) for i in range(len(names))}:
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list):
        raise ValueError(f'{key} must list a label for each output, or have one for each of "0", "1", ...')
    return names


def _short_names(labels: Sequence[str]) -> list[str]:
    """The first synonym of each class, "tench" of "tench, Tinca tinca"; all of them, or numbered, where two agree."""
    labels = [str(label) for label in labels]
    first = [label.split(",")[0].strip() for label in labels]
    names: list[str] = []
    for label, name in zip(labels, first, strict=True):
        unique = name if first.count(name) == 1 else label
        copies = sum(1 for other in names if other == unique or other.startswith(f"{unique} ("))
        names.append(f"{unique} ({copies + 1})" if unique in names else unique)
    return names
