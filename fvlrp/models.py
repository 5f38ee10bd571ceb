"""Loading models by file or name; hides which class a file belongs to. For the command line and `fvlrp.load`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import resources
from typing import TYPE_CHECKING, TypeAlias

from .core.target import Label
from .data import files

if TYPE_CHECKING:
    from .fisher.classifier import FisherVectorClassifier
    from .network.network import Network
    from .network.preprocess import Preprocess

PathLike: TypeAlias = "str | os.PathLike[str]"

# Errors that damaged headers or arrays cause in the code that reads them.
_MISFITS = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

# What files of other programs are, and the way from there to a file that can be read.
_OF_TORCH = "torch: export it, torch.onnx.export(model.eval(), example_input, 'net.onnx'), and give net.onnx"
_OF_TENSORFLOW = "TensorFlow: convert the network with tf2onnx and give the .onnx file"
_OF_CAFFE = "Caffe: read it in Python, fvlrp.Network.from_caffe(prototxt, caffemodel), and save() the network"
FOREIGN = {
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".safetensors", ".pt2"), _OF_TORCH),
    **dict.fromkeys((".h5", ".keras", ".tflite"), _OF_TENSORFLOW),
    **dict.fromkeys((".prototxt", ".caffemodel"), _OF_CAFFE),
}


def names() -> list[str]:
    """Models inside the package."""
    folder = resources.files(__package__) / "pretrained"
    return sorted(entry.name.removesuffix(".fvlrp") for entry in folder.iterdir() if entry.name.endswith(".fvlrp"))


def load(
    model: str | os.PathLike[str],
    *,
    preprocess: Preprocess | PathLike | None = None,
    classes: Sequence[Label] | PathLike | None = None,
    output: str | None = None,
) -> FisherVectorClassifier | Network:
    """A classifier from a file, or one of the models inside the package by its name ("voc20").

    Parameters
    ----------
    model : path or str
        An ONNX file (its name ends in .onnx) is read with the JSON file of the same stem next to it, if there is one:
        how photographs are prepared, and the names of the classes.
    preprocess, classes, output : optional
        Of an ONNX file, instead of what that JSON file says: as `Network.from_onnx` takes them.

    Raises
    ------
    ImportError
        An ONNX file, and the package onnx is not installed.
    OSError
        The file does not exist.
    ValueError
        The file is damaged, newer than this fvlrp, or holds something else; or `preprocess`, `classes` or `output` is
        given for a model that has its own.

    Examples
    --------
    >>> clf = fvlrp.load("voc20")
    >>> len(clf.classes_)
    20
    """
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be the path of a file or a name such as 'voc20', got {model!r}")
    name = os.fsdecode(model)
    if name.lower().endswith(".onnx"):
        return _onnx(name, preprocess, classes, output)
    given = {"preprocess": preprocess, "classes": classes, "output": output}
    option = next((option for option, value in given.items() if value is not None), None)
    if option is not None:
        raise ValueError(f"{option} belongs to an ONNX file; {name} has its own")
    suffix = os.path.splitext(name)[1].lower()
    if suffix in FOREIGN and os.path.isfile(name):
        raise ValueError(f"{name} is a file of {FOREIGN[suffix]}")
    if os.path.isfile(name):  # a folder may well have the name of a model
        return _open(name)
    if os.sep not in name and not os.path.splitext(name)[1]:
        if name not in names():
            raise FileNotFoundError(f"no model {name!r}: neither a file nor one of {', '.join(names())}")
        with resources.as_file(resources.files(__package__) / "pretrained" / f"{name}.fvlrp") as path:
            return _open(os.fspath(path))
    raise FileNotFoundError(f"no model file {name}")


def _open(path: str) -> FisherVectorClassifier | Network:
    """A classifier from a file; what does not fit together is refused in one sentence."""
    header, arrays = files.load_arrays(path, (files.FISHER, files.CONVNET))
    # Imported here: a network needs nothing of scikit-learn, and a Fisher-vector classifier no layers.
    if header["kind"] == files.FISHER:
        from .fisher.classifier import FisherVectorClassifier

        try:
            return FisherVectorClassifier.from_parts(header, arrays)
        except _MISFITS as error:
            raise ValueError(f"{path} is not a model this fvlrp can use: {_told(error)}") from error
    from .network.network import Network

    try:
        net = Network.from_parts(header, arrays)
    except _MISFITS as error:
        raise ValueError(f"{path} is not a network this fvlrp can use: {_told(error)}") from error
    net.file = path
    return net


def _told(error: Exception) -> str:
    """A KeyError's own text is the key alone."""
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error)


def _onnx(
    name: str,
    preprocess: Preprocess | PathLike | None,
    classes: Sequence[Label] | PathLike | None,
    output: str | None,
) -> Network:
    from .network.network import Network

    return Network.from_onnx(name, preprocess, classes, output)
