"""Descriptions of preprocessing and classes in files: JSON of several programs, ONNX metadata.

For `fvlrp.network.importing` and the command line. Hides the formats; the results are a `Preprocess` and class names.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from math import floor

import numpy as np
import numpy.typing as npt

from ..runtime.types import Parsed
from .labels import CLASS_KEYS, Labels, class_names, named, parsed
from .preprocess import Preprocess

PathLike = str | os.PathLike[str]

_HUGGING_FACE = ("image_processor_type", "feature_extractor_type", "do_normalize", "do_rescale", "do_resize")
_BESIDE = ("preprocessor_config.json",)  # of a model's folder, where no JSON file has its name


def read_description(path: PathLike) -> tuple[Preprocess, Labels | None]:
    """Preprocessing and class names of a JSON file.

    Parameters
    ----------
    path : path
        Our own description, Hugging Face's preprocessor_config.json (the names are then those of config.json next to
        it), or a configuration of timm.

    Raises
    ------
    OSError
        The file does not exist.
    ValueError
        The file is not JSON, or does not describe preprocessing.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"preprocess must be a Preprocess value or the path of a JSON file, got {path!r}")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"no file {os.fspath(path)} that says how to prepare photographs")
    try:
        values = _json(path)
        if not isinstance(values, dict):
            raise ValueError(f"expected an object of names and values, got {type(values).__name__}")
        names = class_names(values, os.fspath(path))
        if names is None and _is_hugging_face(values):
            names = _names_of_model(path)
        return preprocess_of(values), names
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} does not describe how to prepare photographs: {error}") from error


def description_beside(path: PathLike) -> str | None:
    """The JSON file that belongs to a model file: the one of the same name, or Hugging Face's in the same folder."""
    folder, name = os.path.split(os.fspath(path))
    stem = os.path.splitext(name)[0]
    beside = (os.path.join(folder, each) for each in (f"{stem}.json", *_BESIDE) if each != name)
    return next((each for each in beside if os.path.isfile(each)), None)


def preprocess_of(values: Mapping[str, Parsed]) -> Preprocess:
    """Preprocessing from a description in any of the known formats."""
    if _is_hugging_face(values):
        return _hugging_face(values)
    for key in ("pretrained_cfg", "default_cfg"):
        if isinstance(values.get(key), dict):
            return _timm(values[key])
    if len(np.ravel(values.get("input_size", ()))) == 3:
        return _timm(values)
    if "input_size" in values:
        return Preprocess.from_dict(dict(values))
    return Preprocess.from_dict({k: v for k, v in values.items() if k not in CLASS_KEYS})


def of_metadata(metadata: Mapping[str, str], size: tuple[int, int]) -> tuple[Preprocess | None, Labels | None]:
    """Preprocessing for an input of `size`, and class names, from an ONNX file's metadata; None for what is missing.

    Understands ONNX's keys of image metadata, JSON descriptions under "preprocess" and similar keys, single values
    such as "mean", and lists of names, including those by the exporter of Ultralytics.
    """
    values = {key: parsed(text) for key, text in metadata.items()}
    lower = {key.lower(): value for key, value in values.items()}
    names = named(lower)
    for key in ("preprocess", "preprocessing", "preprocessor_config", "pretrained_cfg", "data_config"):
        if isinstance(lower.get(key), dict):
            described = {"size": list(size), **lower[key]} if key.startswith("preprocess") else lower[key]
            return preprocess_of(described if not _is_hugging_face(lower[key]) else lower[key]), names
    return _of_keys(lower, size), names


# ---- spellings of preprocessing --------------------------------------------------------------------------------------


def _is_hugging_face(values: Mapping[str, Parsed]) -> bool:
    return any(key in values for key in _HUGGING_FACE) or "image_mean" in values


def _hugging_face(values: Mapping[str, Parsed]) -> Preprocess:
    size, short = _extent(values.get("size", 224))
    crop, _ = _extent(values.get("crop_size")) if values.get("crop_size") is not None else (None, None)
    how, resize = "stretch", None
    if short is not None and "crop_pct" in values and values["crop_pct"] is not None:  # as in timm's ConvNeXt
        how, resize = ("crop", floor(short / values["crop_pct"])) if short < 384 else ("stretch", None)
    elif values.get("do_center_crop", crop is not None) and crop is not None:
        how, resize, size = "crop", short or max(size), crop
    elif short is not None:
        how, resize = "crop", short
    factor = float(values.get("rescale_factor", 1 / 255)) if values.get("do_rescale", True) else 1.0
    normalise = values.get("do_normalize", True)
    mean = np.asarray(values.get("image_mean", 0.0) if normalise else 0.0, float)
    std = np.asarray(values.get("image_std", 1.0) if normalise else 1.0, float)
    high = 1.0
    if abs(factor * 255 - 1) > 1e-3:  # values are not brought to 0..1: the factor belongs to mean and std
        high, mean, std = 255.0, mean / factor, std / factor
    order = "BGR" if values.get("do_flip_channel_order") else "RGB"
    resample = "bicubic" if values.get("resample") == 3 else "bilinear"
    own = _numbers_of(mean), _numbers_of(std)
    return Preprocess(size, how, None if how == "stretch" else resize, order, high, *own, resample)


def _extent(size: Parsed) -> tuple[tuple[int, int], int | None]:
    """Height and width from a configuration, and the shorter side if it states only that."""
    if not isinstance(size, dict):
        numbers = [int(n) for n in np.ravel(size)]
        return (numbers[0], numbers[-1]), None
    if "shortest_edge" in size:
        short = int(size["shortest_edge"])
        return (short, short), short
    return (int(size["height"]), int(size["width"])), None


def _timm(values: Mapping[str, Parsed]) -> Preprocess:
    channels, height, width = (int(n) for n in values["input_size"])
    size, part = (height, width), float(values.get("crop_pct") or 0.875)
    how, resize = "crop", floor(max(size) / part)
    if values.get("crop_mode") == "squash" and part == 1:
        how = "stretch"
    resample = "bicubic" if str(values.get("interpolation", "bicubic")) == "bicubic" else "bilinear"
    order = "grey" if channels == 1 else "RGB"
    mean, std = values.get("mean", (0.485, 0.456, 0.406)), values.get("std", (0.229, 0.224, 0.225))
    return Preprocess(size, how, None if how == "stretch" else resize, order, 1.0, mean, std, resample)


_PIXELS = {"bgr8": "BGR", "rgb8": "RGB", "gray8": "grey", "bgra8": "BGR", "rgba8": "RGB", "grey8": "grey"}
_RANGES = {  # high, mean, std
    "nominalrange_0_255": (255.0, 0.0, 1.0),
    "normalized_0_1": (1.0, 0.0, 1.0),
    "normalized_1_1": (1.0, 0.5, 0.5),
}


def _of_keys(values: Mapping[str, Parsed], size: tuple[int, int]) -> Preprocess | None:
    """Metadata with one entry for each choice."""
    order = values.get("image.bitmappixelformat", _first(values, "channel_order", "color_order", "color_format"))
    span = values.get("image.nominalpixelrange", _first(values, "value_range", "input_range", "pixel_range"))
    mean, std, scale = (_numbers(values.get(key)) for key in ("mean", "std", "scale"))
    if all(each is None for each in (order, span, mean, std, scale)):
        return None
    name = str("RGB" if order is None else order).lower()
    high, offset, spread = 1.0, 0.0, 1.0
    if isinstance(span, str):
        high, offset, spread = _RANGES.get(span.lower(), (1.0, 0.0, 1.0))
    elif span is not None:
        low, top = float(np.min(span)), float(np.max(span))
        high, offset, spread = (top, 0.0, 1.0) if low == 0 else (1.0, -low / (top - low), 1 / (top - low))
    if mean is not None and np.max(mean) > 3:
        high = 255.0
    own_mean = offset if mean is None else mean
    own_std = std if std is not None else spread if scale is None else 1 / scale
    return Preprocess(
        size,
        order=_PIXELS.get(name, _PIXELS.get(f"{name}8", "RGB")),
        high=high,
        mean=_numbers_of(own_mean),
        std=_numbers_of(own_std),
    )


def _first(values: Mapping[str, Parsed], *keys: str) -> Parsed:
    return next((values[key] for key in keys if key in values), None)


def _numbers(value: Parsed) -> Parsed:
    """Numbers of metadata, which may be text with commas; None if there are none."""
    if isinstance(value, str):
        value = [float(part) for part in re.split(r"[,;\s]+", value.strip("[]() ")) if part]
    return None if value is None or not np.size(value) else np.asarray(value, float)


def _numbers_of(values: npt.ArrayLike) -> tuple[float, ...]:
    """One number, or one for each channel, as `Preprocess` keeps them."""
    return tuple(np.ravel(values).tolist())


def _names_of_model(path: PathLike) -> Labels | None:
    """The names in Hugging Face's config.json next to a preprocessor_config.json."""
    beside = os.path.join(os.path.dirname(os.fspath(path)), "config.json")
    if not os.path.isfile(beside):
        return None
    values = _json(beside)
    return (
        class_names({"id2label": values["id2label"]}, beside)
        if isinstance(values, dict) and "id2label" in values
        else None
    )


def _json(path: PathLike) -> Parsed:
    with open(path, encoding="utf-8-sig") as file:  # some editors begin a file with a byte order mark
        return json.load(file)
