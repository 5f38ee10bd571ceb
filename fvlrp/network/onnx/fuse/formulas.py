"""Formulas of one variable, and softmax: activations that a file writes as elementary arithmetic.

For `fuse`. An activation is recognised by its values, not by its form: the steps are run on samples, and compared with
the layer that would replace them.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from ....core.layer import Array
from ...layers import (
    Activation,
    Add,
    Clip,
    Constant,
    Expand,
    LeakyReLU,
    Maximum,
    NetworkLayer,
    Product,
    Quantise,
    Quotient,
    Reduce,
    ReLU,
    Scale,
    Softmax,
    Table,
)
from ..steps import Step
from .rewrite import Graph, become, regions, run

_NEAR = 9.0
_TOLERANCE = 3e-6  # relative to 1 + |f|; docs/numerics.md, "Functions written out in steps"
_SCALES = np.geomspace(1e-4, 1e8, 130)  # dense near 0 for thresholds, far out for bounds
_SAMPLES = np.concatenate([np.linspace(-_NEAR, _NEAR, 363), _SCALES, -_SCALES])
_KNOWN: tuple[NetworkLayer, ...] = (
    ReLU(),
    Clip(0.0, 6.0),
    Clip(0.0, 1.0),
    *(Activation(name) for name in ("gelu", "gelu_tanh", "silu", "hardswish", "mish", "softplus", "softsign")),
    *(Activation(name) for name in ("sigmoid", "tanh", "logsigmoid", "erf")),
    Activation("swish", 1.702),
    Activation("hardsigmoid", float(np.float32(1 / 6)), 0.5),
    Activation("hardsigmoid", 0.2, 0.5),
    Activation("elu", 1.0),
    Activation("selu", 1.6732632423543772, 1.0507009873554805),
    Activation("pow", 2.0),
    Activation("pow", 3.0),
)


_ARITHMETIC = (Scale, Constant, Product, Quotient, Add, Maximum, Clip)


def _pointwise(step: Step) -> bool:
    """Whether a step is elementwise: each value comes from the same position of its inputs, by the same formula."""
    layer = step.layer
    if isinstance(layer, Scale):
        return bool(layer.factor.size == 1)
    if isinstance(layer, Constant):
        return bool(layer.value.size == 1)
    plain = isinstance(layer, Activation | ReLU | LeakyReLU | Clip | Product | Quotient | Add | Maximum)
    return plain and all(source.shape == step.shape for source in step.inputs)


def activations(graph: Graph) -> None:
    """Replace formulas that equal a known activation, such as GELU, SiLU or mish, however they are written."""
    for end in reversed(list(graph.steps)):
        if not _pointwise(end):
            continue
        best = None
        for source, region in regions(graph, end, _pointwise):
            spelt = len(region) > 1 and any(isinstance(step.layer, _ARITHMETIC) for step in region)
            known = _recognised(run(region, source, _SAMPLES[None])[0]) if spelt else None
            best = best if known is None else (known, source, region)
        if best is not None:
            become(graph, end, *best)


def rounded(graph: Graph) -> None:
    """Replace activations whose steps the file rounds by tables. Their values without rounding say what they are."""
    for end in reversed(list(graph.steps)):
        if not _pointwise_or_rounding(end):
            continue
        best = None
        for source, region in regions(graph, end, _pointwise_or_rounding):
            plain = [step for step in region if not isinstance(step.layer, Quantise)]
            spelt = 1 < len(plain) < len(region) and any(isinstance(step.layer, _ARITHMETIC) for step in plain)
            if spelt and _rounds(source) and _recognised(run(region, source, _SAMPLES[None], Quantise)[0]) is not None:
                best = source, region
        if best is not None:
            become(graph, end, _table(*best), *best)


def _pointwise_or_rounding(step: Step) -> bool:
    return _pointwise(step) or _rounds(step)


def _rounds(step: Step) -> bool:
    """Whether a step rounds all values alike, to at most 16 bits."""
    layer = step.layer
    if not isinstance(layer, Quantise) or layer.high - layer.low >= 1 << 16:
        return False
    return all(value.size == 1 for value in (layer.scale, layer.zero, layer.pitch, layer.offset, layer.origin))


def _table(source: Step, region: list[Step]) -> Table:
    """The values of a region for all values of its quantised source, computed in float32."""
    layer = source.layer
    assert isinstance(layer, Quantise)
    scale, zero = (value.reshape(()).astype(np.float32) for value in (layer.scale, layer.zero))
    integers = np.arange(layer.low, layer.high + 1, dtype=np.float32)
    values = run(region, source, ((integers - zero) * scale)[None]).reshape(-1)
    return Table(np.asarray(scale), np.asarray(zero), layer.low, np.ascontiguousarray(values))


def _recognised(values: Array) -> NetworkLayer | None:
    """The known activation that has these values on the samples, if there is one."""
    finite = np.isfinite(values)  # exponentials overflow far from 0
    if not finite[np.abs(_SAMPLES) <= _NEAR].all():
        return None
    known = _known_values()
    fits = (np.abs(known - values) <= _TOLERANCE * (1 + np.abs(known)))[:, finite].all(axis=1)
    if fits.any():
        return _KNOWN[int(fits.argmax())]
    slope = float(values[0] / _SAMPLES[0])
    leaky = np.where(_SAMPLES > 0, _SAMPLES, slope * _SAMPLES)
    return LeakyReLU(float(f"{slope:.6g}")) if slope not in (0.0, 1.0) and _near(values, leaky) else None


@cache
def _known_values() -> Array:
    """The values of the known activations on the samples, (activations, samples)."""
    return np.stack([layer.apply(_SAMPLES[None])[0] for layer in _KNOWN])


def _near(a: Array, b: Array) -> bool:
    return bool((np.abs(a - b) <= _TOLERANCE * (1 + np.abs(b))).all())


def softmaxes(graph: Graph) -> None:
    """Replace exp(x - max x) / sum exp(x - max x), written in steps, by a softmax."""
    for end in graph.steps:
        if not isinstance(end.layer, Quotient):
            continue
        power, total = end.inputs
        if not (_is(power, "exp") and isinstance(total.layer, Reduce) and total.inputs == [power]):
            continue
        if total.layer.how != "sum" or len(total.layer.axes) != 1 or not total.layer.keep:
            continue
        (axis,), inner = total.layer.axes, power.inputs[0]
        source, region = inner, [power, total, end]
        if isinstance(inner.layer, Add) and len(inner.inputs) == 2:
            largest = _largest(inner.inputs[1])
            if largest is not None and largest is inner.inputs[0]:
                source, region = largest, [inner.inputs[1], inner, *region]
        become(graph, end, Softmax(axis), source, region)


def _is(step: Step, name: str) -> bool:
    return isinstance(step.layer, Activation) and step.layer.name == name


def _largest(step: Step) -> Step | None:
    """The array whose maximum is taken, for a step that is the negative of that maximum, broadcast."""
    while isinstance(step.layer, Expand) or (isinstance(step.layer, Scale) and (step.layer.factor == -1).all()):
        step = step.inputs[0]
    return step.inputs[0] if isinstance(step.layer, Reduce) and step.layer.how == "max" else None
