"""Models as files: one .npz with a JSON header, never pickle; and the models inside the package by name."""

from __future__ import annotations

import os
from importlib import resources

from .data import files


def names() -> list[str]:
    """Models inside the package."""
    folder = resources.files(__package__) / "pretrained"
    return sorted(entry.name.removesuffix(".fvlrp") for entry in folder.iterdir() if entry.name.endswith(".fvlrp"))


def load(model):
    """A classifier from a file, or one of the models inside the package by its name ("voc20").

    An ONNX file (its name ends in .onnx) is read with the JSON file of the same stem beside it, where there is one:
    how photographs are prepared, and the names of the classes.

    Raises
    ------
    ImportError
        An ONNX file, and the package onnx is not installed.
    OSError
        There is no such file.
    ValueError
        The file is damaged, newer than this fvlrp, or holds something else.
    """
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be the path of a file or a name such as 'voc20', got {model!r}")
    name = os.fsdecode(model)
    if name.lower().endswith(".onnx"):
        return _onnx(name)
    if os.path.isfile(name):  # a folder may well have the name of a model
        return _open(name)
    if os.sep not in name and not os.path.splitext(name)[1]:
        if name not in names():
            raise FileNotFoundError(f"no model {name!r}: neither a file nor one of {', '.join(names())}")
        with resources.as_file(resources.files(__package__) / "pretrained" / f"{name}.fvlrp") as path:
            return _open(path)
    raise FileNotFoundError(f"no model file {name}")


def _open(path):
    """A classifier from a file; what does not fit together is refused in one sentence."""
    header, arrays = files.load_arrays(path, (files.FISHER, files.CONVNET))
    # Imported here: a network needs nothing of scikit-learn, and a Fisher-vector classifier no layers.
    if header["kind"] == files.FISHER:
        from .fisher.classifier import FisherVectorClassifier as Classifier

        what = "model"
    else:
        from .network.network import Network as Classifier

        what = "network"
    try:
        return Classifier.from_parts(header, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a {what} this fvlrp can use: {error}") from error


def _onnx(name: str):
    from .network.network import Network

    beside = os.path.splitext(name)[0] + ".json"
    return Network.from_onnx(name, beside if os.path.exists(beside) else None)
