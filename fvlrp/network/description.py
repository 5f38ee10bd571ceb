"""Descriptions of preprocessing and classes in files: JSON of several programs, ONNX metadata, lists of labels.

For `fvlrp.network.importing` and the command line. Hides the formats; the results are a `Preprocess` and class names.
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Mapping, Sequence
from math import floor

import numpy as np
import numpy.typing as npt

from ..runtime.types import Parsed
from .preprocess import Preprocess

PathLike = str | os.PathLike[str]

_CLASS_KEYS = ("class_names", "classes", "labels", "synsets", "label_names", "id2label", "names", "categories")
_HUGGING_FACE = ("image_processor_type", "feature_extractor_type", "do_normalize", "do_rescale", "do_resize")
_BESIDE = ("preprocessor_config.json",)  # of a model's folder, where no JSON file has its name
_SYNSET = re.compile(r"^n\d{8}[\s,:]+")
_NUMBERED = re.compile(r"""^\s*["']?(\d+)["']?\s*[:,;\t ]\s*(.+?)\s*$""")


def read_description(path: PathLike) -> tuple[Preprocess, list[str] | None]:
    """Preprocessing and class names of a JSON file.

    Parameters
    ----------
    path : path
        Our own description, Hugging Face's preprocessor_config.json (the names are then those of config.json beside
        it), or a configuration of timm.

    Raises
    ------
    OSError
        There is no such file.
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
        names = class_names(values)
        if names is None and _is_hugging_face(values):
            names = _names_of_model(path)
        return preprocess_of(values), names
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise ValueError(f"{os.fspath(path)} does not describe how to prepare photographs: {error}") from error


def description_beside(path: PathLike) -> str | None:
    """The JSON file that belongs to a model file: the one of the same name, or Hugging Face's in the same folder."""
    folder, name = os.path.split(os.fspath(path))
    stem = os.path.splitext(name)[0]
    beside = (os.path.join(folder, each) for each in (f"{stem}.json", *_BESIDE) if each != name)
    return next((each for each in beside if os.path.isfile(each)), None)


def read_classes(path: PathLike) -> list[str]:
    """Names of a network's outputs, from a label file in any of the common formats.

    JSON: a list; an object from index to name, from index to [identifier, name], or from name to index; or an object
    with such an entry. Text: one name per line, optionally after its index or WordNet identifier; or a Python
    dictionary.

    Raises
    ------
    OSError
        There is no such file.
    ValueError
        It has none of these forms.
    """
    with open(path, encoding="utf-8-sig") as file:
        text = file.read()
    try:
        names = _names_of_text(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{os.fspath(path)} does not list class names: {error}") from error
    if not names:
        raise ValueError(f"{os.fspath(path)} does not list class names: it is empty")
    return short_names(names)


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
    return Preprocess.from_dict({k: v for k, v in values.items() if k not in _CLASS_KEYS})


def of_metadata(metadata: Mapping[str, str], size: tuple[int, int]) -> tuple[Preprocess | None, list[str] | None]:
    """Preprocessing for an input of `size`, and class names, from an ONNX file's metadata; None for what is missing.

    Understands ONNX's keys of image metadata, JSON descriptions under "preprocess" and similar keys, single values
    such as "mean", and lists of names, including those by the exporter of Ultralytics.
    """
    values = {key: _parsed(text) for key, text in metadata.items()}
    lower = {key.lower(): value for key, value in values.items()}
    names = class_names(lower)
    for key in ("preprocess", "preprocessing", "preprocessor_config", "pretrained_cfg", "data_config"):
        if isinstance(lower.get(key), dict):
            described = {"size": list(size), **lower[key]} if key.startswith("preprocess") else lower[key]
            return preprocess_of(described if not _is_hugging_face(lower[key]) else lower[key]), names
    return _of_keys(lower, size), names


def class_names(values: Mapping[str, Parsed]) -> list[str] | None:
    """The names of the outputs in a description, if it has any."""
    for key in _CLASS_KEYS:
        if values.get(key) is not None:
            return short_names(_in_order(key, values[key]))
    return None


def short_names(labels: Sequence[str]) -> list[str]:
    """The first synonym of each class ("tench" of "tench, Tinca tinca"); if ambiguous, all synonyms, or a number."""
    labels = [str(label) for label in labels]
    first = [label.split(",")[0].strip() for label in labels]
    names: list[str] = []
    for label, name in zip(labels, first, strict=True):
        unique = name if first.count(name) == 1 else label
        copies = sum(1 for other in names if other == unique or other.startswith(f"{unique} ("))
        names.append(f"{unique} ({copies + 1})" if unique in names else unique)
    return names


# ---- spellings of preprocessing --------------------------------------------------------------------------------------


def _is_hugging_face(values: Mapping[str, Parsed]) -> bool:
    return any(key in values for key in _HUGGING_FACE) or "image_mean" in values


def _hugging_face(values: Mapping[str, Parsed]) -> Preprocess:
    size, short = _extent(values.get("size", 224))
    crop, _ = _extent(values.get("crop_size")) if values.get("crop_size") is not None else (None, None)
    how, resize = "stretch", None
    if short is not None and "crop_pct" in values and values["crop_pct"] is not None:  # as ConvNeXt has it
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
    """Numbers of metadata, which may be text with commas; None where there are none."""
    if isinstance(value, str):
        value = [float(part) for part in re.split(r"[,;\s]+", value.strip("[]() ")) if part]
    return None if value is None or not np.size(value) else np.asarray(value, float)


def _numbers_of(values: npt.ArrayLike) -> tuple[float, ...]:
    """One number, or one for each channel, as `Preprocess` keeps them."""
    return tuple(np.ravel(values).tolist())


# ---- spellings of class names ----------------------------------------------------------------------------------------


def _names_of_text(text: str) -> list[str]:
    stripped = text.strip()
    if stripped[:1] in ("[", "{"):
        values = _parsed(stripped)
        if isinstance(values, str):
            raise ValueError("it begins like JSON, but is none")
        if isinstance(values, dict):
            key = next((key for key in _CLASS_KEYS if isinstance(values.get(key), list | dict)), None)
            return _in_order("the file" if key is None else key, values if key is None else values[key])
        return _in_order("the file", values)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [_NUMBERED.match(line) for line in lines]
    indices = [int(match[1]) for match in numbered if match]
    if len(indices) == len(lines) and sorted(indices) in (
        list(range(len(lines))),
        list(range(1, len(lines) + 1)),
    ):
        lines = [str(match[2]).strip("\"',") for _, match in sorted(zip(indices, numbered, strict=True)) if match]
    if lines and all(_SYNSET.match(line) for line in lines):
        lines = [_SYNSET.sub("", line) for line in lines]
    return lines


def _parsed(text: str) -> Parsed:
    """A value as JSON or Python writes it, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text) if len(text) < 1 << 20 else text
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text


def _in_order(key: str, names: Parsed) -> list[str]:
    """Labels in the order of the outputs, from a list or from an object, whose order does not matter."""
    if isinstance(names, dict):
        if all(isinstance(value, int) and not isinstance(value, bool) for value in names.values()):
            names = {str(index): name for name, index in names.items()}  # from name to index
        by_index = {str(index): name for index, name in names.items()}
        for first in (0, 1):
            if set(by_index) == {str(i + first) for i in range(len(by_index))}:
                names = [by_index[str(i + first)] for i in range(len(by_index))]
                break
    if isinstance(names, str) and "," in names:
        names = [name.strip() for name in names.split(",")]
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(f'{key} must list a label for each output, or have one for each of "0", "1", ...')
    return [str(name[-1] if isinstance(name, list | tuple) and name else name) for name in names]


def _names_of_model(path: PathLike) -> list[str] | None:
    """The names in Hugging Face's config.json beside a preprocessor_config.json."""
    beside = os.path.join(os.path.dirname(os.fspath(path)), "config.json")
    if not os.path.isfile(beside):
        return None
    values = _json(beside)
    return class_names({"id2label": values["id2label"]}) if isinstance(values, dict) and "id2label" in values else None


def _json(path: PathLike) -> Parsed:
    with open(path, encoding="utf-8-sig") as file:  # some editors begin a file with a byte order mark
        return json.load(file)
