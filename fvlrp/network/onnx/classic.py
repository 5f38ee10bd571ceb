"""Operators of classic classifiers, as scikit-learn's converter writes them: linear models and scaling of features.

They belong to the domain ai.onnx.ml. Each is read as ONNX's own operators; trees and kernel machines are rejected.
"""

from __future__ import annotations

import numpy as np

from ..layers import Activation, Softmax
from .arithmetic import dropped, scaled, shifted
from .model import Call
from .products import product
from .read import Operator, Reader

_ENDS = {"NONE": "", "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}


def _scaler(reader: Reader, call: Call) -> None:
    """(x - offset) * scale."""
    offset, scale = (np.asarray(call.get(name, [n]), np.float64) for name, n in (("offset", 0.0), ("scale", 1.0)))
    reader.set(call, scaled(reader, shifted(reader, reader.view(call), -offset), scale))


def _linear(reader: Reader, call: Call) -> None:
    """Scores are the second output of a classifier and the first of a regressor."""
    intercepts = np.asarray(call.get("intercepts", [0.0]), np.float64)
    weight = np.asarray(call.attributes["coefficients"], np.float64).reshape(max(1, len(intercepts)), -1)
    end = str(call.get("post_transform", "NONE"))
    if end not in _ENDS:
        raise ValueError(f"post_transform {end!r} is not supported; supported are {', '.join(_ENDS)}")
    if len(weight) == 2 and end == "LOGISTIC" and np.array_equal(weight[0], -weight[1]):
        weight, intercepts = weight[1:], intercepts[1:]  # the scores of two classes are -f and f
    view = shifted(reader, product(reader, reader.view(call), weight.T), intercepts)
    view = reader.applied(call, _ENDS[end], view) if _ENDS[end] else view
    reader.set(call, view, 1 if call.op == "LinearClassifier" else 0)


def _normaliser(reader: Reader, call: Call) -> None:
    """Rows divided by their norm; nothing for probabilities, whose sum is 1."""
    view, norm = reader.view(call), str(call.get("norm", "MAX"))
    layer = view.step.layer
    if norm == "L1" and (isinstance(layer, Softmax) or (isinstance(layer, Activation) and layer.name == "sigmoid")):
        reader.same(call, "probabilities are normalised")
        return
    if norm not in ("L1", "L2"):
        raise ValueError(f"norm {norm!r} is not supported; supported are 'L1' and 'L2'")
    reader.set(call, reader.applied(call, "LpNormalization", view, axis=-1, p=int(norm[1])))


OPERATORS: dict[str, Operator] = {
    "ai.onnx.ml.LinearClassifier": _linear,
    "ai.onnx.ml.LinearRegressor": _linear,
    "ai.onnx.ml.Normalizer": _normaliser,
    "ai.onnx.ml.Scaler": _scaler,
    "ai.onnx.ml.ZipMap": dropped("it names probabilities"),
}
