"""Files of other programs as the arguments of a Network. For `fvlrp.network.network`.

Hides the order of precedence for preprocessing and class names: the caller, then the JSON file given or next to the
network, then the file's metadata, then a guess with a warning. The files themselves are read by `onnx` and `caffe`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..core.target import Label
from . import caffe
from .description import PathLike, description_beside, of_metadata, read_description
from .graph import Node, output_shapes
from .labels import Labels, read_classes
from .onnx import Account, Imported, read_network
from .preprocess import USUAL_SIZE, Preprocess

Described = tuple[Preprocess | None, Labels | None]  # preprocessing and class names, where they are stated
CALLER = 4  # stack level of whoever called a constructor of Network, from a function that a function here calls


@dataclass(frozen=True, eq=False)
class Opened:
    """What a Network is made of, and the account of an ONNX file's nodes (None for other files)."""

    nodes: list[Node]
    input_shape: tuple[int, int | None, int | None]
    classes: Sequence[Label] | None
    preprocess: Preprocess
    multilabel: bool
    account: Account | None = None


def open_onnx(
    path: PathLike,
    preprocess: Preprocess | PathLike | None,
    classes: Sequence[Label] | PathLike | None,
    output: str | None,
) -> Opened:
    """An ONNX file; the arguments are those of `Network.from_onnx`."""
    names = _names(classes)
    described, stated = _beside(path) if preprocess is None else _given(preprocess)
    names = stated if names is None else names
    size = (USUAL_SIZE, USUAL_SIZE) if described is None else described.size
    read = read_network(path, size, output, _counts(names))
    if described is None:
        described, stated = _in_metadata(read)
        names = stated if names is None else names
    if described is None:
        described = _assumed(os.fspath(path), read)
    else:
        _check_range(os.fspath(path), described, read)
    classes = _settled(names, read.nodes, (read.input_shape[0], *described.size), read.multilabel)
    return Opened(read.nodes, read.input_shape, classes, described, read.multilabel, read.account)


def open_caffe(
    prototxt: PathLike,
    caffemodel: PathLike,
    preprocess: Preprocess | PathLike | None,
    classes: Sequence[Label] | PathLike | None,
) -> Opened:
    """Caffe's two files; the arguments are those of `Network.from_caffe`."""
    names = _names(classes)
    described, stated = (None, None) if preprocess is None else _given(preprocess)
    read = caffe.read_network(prototxt, caffemodel)
    if described is None and not read.states_mean:
        warnings.warn(
            f"{os.fspath(prototxt)} does not state the mean that is subtracted from photographs: none is; "
            "pass preprocess=fvlrp.Preprocess(..., order='BGR', high=255, mean=(...)) if the network had one",
            stacklevel=CALLER - 1,
        )
    names = stated if names is None else names
    described = described or read.preprocess
    classes = _settled(names, read.nodes, (read.input_shape[0], *described.size), read.multilabel)
    return Opened(read.nodes, read.input_shape, classes, described, read.multilabel)


def _names(classes: Sequence[Label] | PathLike | None) -> Sequence[Label] | Labels | None:
    """Class names as the caller gives them: themselves or the file that lists them."""
    return read_classes(classes) if isinstance(classes, str | os.PathLike) else classes


def _counts(names: Sequence[Label] | Labels | None) -> tuple[int, ...]:
    """How many classes a network may have whose names these are."""
    if isinstance(names, Labels):
        return names.counts
    return () if names is None else (len(names),)


def _settled(
    names: Sequence[Label] | Labels | None, nodes: list[Node], shape: tuple[int, int, int], multilabel: bool
) -> Sequence[Label] | None:
    """The names of a network's classes; its number of outputs decides what gaps in their numbering mean."""
    if not isinstance(names, Labels):
        return names
    n_outputs = prod(output_shapes(nodes, shape)[-1])
    return names.of(2 if n_outputs == 1 and not multilabel else n_outputs)


def _given(preprocess: Preprocess | PathLike) -> Described:
    """Preprocessing as the caller gives it, and the class names of its JSON file."""
    return (preprocess, None) if isinstance(preprocess, Preprocess) else read_description(preprocess)


def _beside(path: PathLike) -> Described:
    """Contents of the JSON file next to a network; empty if there is none or it describes something else."""
    beside = description_beside(path)
    if beside is None:
        return None, None
    try:
        return read_description(beside)
    except ValueError as error:
        warnings.warn(f"ignored the file beside {os.fspath(path)}: {error}", stacklevel=CALLER)
        return None, None


def _in_metadata(read: Imported) -> Described:
    """What the metadata of an ONNX file state."""
    _, height, width = read.input_shape
    return of_metadata(read.metadata, (height or USUAL_SIZE, width or USUAL_SIZE))


def _assumed(path: str, read: Imported) -> Preprocess:
    """Preprocessing where nothing states it, with a warning."""
    channels, height, width = read.input_shape
    high = read.high or 1.0
    preprocess = Preprocess.usual(channels, (height, width), high, -read.black)
    order = preprocess.order if channels in (1, 3) else f"{channels} {preprocess.order}"
    how = {255.0: "scales", 1.0: "normalises"}.get(read.high, "")
    why = f", since the network {how} its input itself" if how else ""
    why = " (mean=128), since its input is int8" if read.black else why
    warnings.warn(
        f"{path} does not say how photographs are prepared: "
        f"assumed {order} in {read.black:.0f}..{high + read.black:.0f}{why}, resized to "
        f"{preprocess.size[0]} x {preprocess.size[1]}; "
        "give preprocess= (on the command line, --preprocess) if that is wrong",
        stacklevel=CALLER,
    )
    return preprocess


def _check_range(path: str, preprocess: Preprocess, read: Imported) -> None:
    """Warn if both the network and the preprocessing scale the pixels, or the network expects another range."""
    if not read.high:
        return
    mean, std = np.asarray(preprocess.mean), np.asarray(preprocess.std)
    largest = float(np.max((preprocess.high - mean) / std))
    if read.black and (largest > 127 or largest < 10 or np.min(-mean / std) < -128):
        warnings.warn(
            f"{path} has an int8 input, which holds -128..127, and photographs are prepared to "
            f"{np.min(-mean / std):.3g}..{largest:.3g}: "
            "give preprocess=Preprocess(..., high=255, mean=128) unless that is meant",
            stacklevel=CALLER,
        )
    elif read.high == 255 and largest < 10:
        warnings.warn(
            f"{path} scales its input itself as of 0..255, and photographs are prepared to at most {largest:.3g}: "
            "give preprocess=Preprocess(..., high=255) unless that is meant",
            stacklevel=CALLER,
        )
    elif read.high == 1 and largest > 20:
        warnings.warn(
            f"{path} normalises its input itself as of 0..1, and photographs are prepared to up to {largest:.3g}: "
            "give preprocess=Preprocess(..., high=1) unless that is meant",
            stacklevel=CALLER,
        )
