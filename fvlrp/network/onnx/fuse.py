"""Pattern matching: any exporter's form of a network as a few canonical layers.

For `read_network`. A sequence of passes, each of which changes steps in place: what several steps compute together
becomes one layer in place of the last step, so that its readers do not change. Formulas of one variable and
normalisations are recognised by their values, not by their form: the steps are run on samples and compared with the
layer that would replace them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from math import prod
from typing import Any

import numpy as np

from ...core.layer import Array
from ..layers import (
    Activation,
    Add,
    Affine,
    Clip,
    Concat,
    Constant,
    Conv,
    Dense,
    Expand,
    Flatten,
    Gather,
    GlobalAveragePool,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    MatMul,
    Maximum,
    NetworkLayer,
    Pad,
    Product,
    Quotient,
    Reduce,
    ReLU,
    Reshape,
    RMSNorm,
    Scale,
    Select,
    Slice,
    Softmax,
    Transpose,
)
from .steps import Step, needed, readers

FARTHEST = 24  # most steps of a formula
LARGEST = 1 << 22  # most values of an array on which a normalisation is tested


@dataclass(eq=False)
class Graph:
    """Steps in an order in which each comes after those it reads.

    Attributes
    ----------
    last : Step
        The output.
    fused : list of Step
        Those that stand for several nodes.
    """

    last: Step
    fused: list[Step] = field(default_factory=list)
    steps: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Take the steps anew that the output needs."""
        self.steps = needed(self.last)
        self.place = {id(step): at for at, step in enumerate(self.steps)}
        self.uses = readers(self.steps)
        self.uses[id(self.last)] += 1
        self._readers: dict[int, list[Step]] = {}
        for step in self.steps:
            self.connect(step, step.inputs)

    def connect(self, step: Step, inputs: list[Step]) -> None:
        """Let a step read others."""
        step.inputs = inputs
        for source in inputs:
            self._readers.setdefault(id(source), []).append(step)

    def bypass(self, step: Step, source: Step) -> None:
        """Let the readers of a step read another one."""
        for other in self._readers.get(id(step), []):
            self.connect(other, [source if each is step else each for each in other.inputs])
        if self.last is step:
            self.last = source

    def readers(self, step: Step) -> list[Step]:
        """The steps that read a step."""
        return [other for other in self._readers.get(id(step), []) if step in other.inputs]

    def alone(self, step: Step) -> bool:
        """Whether a step has one reader."""
        return self.uses[id(step)] == 1


def simplified(last: Step) -> Graph:
    """The graph of an output in canonical layers."""
    from .layout import settle

    graph = Graph(last)
    passes = (
        tidy,
        _activations,
        _softmaxes,
        _normalisations,
        settle,
        tidy,
        _shuffles,
        _groups,
        _affines,
        _branches,
        _attention,
    )
    for change in (*passes, tidy):
        change(graph)
        graph.refresh()
    _gates(graph)
    return graph


def _become(graph: Graph, step: Step, layer: NetworkLayer, source: Step, region: Iterable[Step]) -> None:
    """Let a step be `layer` of `source`, in the place of a region that it is the end of."""
    nodes = dict.fromkeys(name for each in region for name in each.nodes)
    step.layer = layer
    graph.connect(step, [source])
    step.nodes = list(nodes)
    if len(nodes) > 1:
        step.name = _common(step.nodes) or step.name
        graph.fused.append(step)


def _common(names: list[str]) -> str:
    """The module that nodes have in common, where their names are paths."""
    paths = [name.strip("/").split("/")[:-1] for name in names]
    shared: list[str] = []
    for parts in zip(*paths, strict=False):
        if len(set(parts)) > 1:
            break
        shared.append(parts[0])
    return "/".join(shared)


# ---- order of axes and shapes ----------------------------------------------------------------------------------------


def tidy(graph: Graph) -> None:
    """One reshape in the place of several, one transposition in the place of several, none where nothing moves."""
    for step in list(graph.steps):
        while step.inputs and _joined(step, step.inputs[0]):
            graph.connect(step, step.inputs[0].inputs)
        if isinstance(step.layer, Concat):
            graph.connect(step, [each for source in step.inputs for each in _parts(graph, source, step.layer)])
        if step.layer is not None and len(step.inputs) == 1 and _nothing(step):
            graph.bypass(step, step.inputs[0])


def _joined(step: Step, source: Step) -> bool:
    """Whether a step could take its source in."""
    first, second = source.layer, step.layer
    if isinstance(first, Transpose) and isinstance(second, Transpose):
        step.layer = Transpose(tuple(first.order[a - 1] for a in second.order))
    elif isinstance(first, Reshape | Flatten) and isinstance(second, Reshape | Flatten):
        step.layer = Flatten() if len(step.shape) == 1 else Reshape(step.shape)
    elif isinstance(first, Transpose) and isinstance(second, Reduce) and not second.keep:
        kept = [first.order[a] for a in range(len(first.order)) if a + 1 not in second.axes]
        if kept != sorted(kept):
            return False
        step.layer = replace(second, axes=tuple(sorted(first.order[a - 1] for a in second.axes)))
    else:
        return False
    return True


def _parts(graph: Graph, source: Step, layer: Concat) -> list[Step]:
    """What is put together along the same axis before it is put together with more."""
    same = isinstance(source.layer, Concat) and source.layer.axis == layer.axis and graph.alone(source)
    return source.inputs if same else [source]


def _nothing(step: Step) -> bool:
    layer = step.layer
    if isinstance(layer, Transpose):
        return layer.order == tuple(range(1, len(layer.order) + 1))
    return isinstance(layer, Reshape | Flatten | Expand) and step.shape == step.inputs[0].shape


# ---- formulas of one variable ----------------------------------------------------------------------------------------

_SAMPLES = np.linspace(-9, 9, 363)
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
    """Whether a step computes each value from the same places of its inputs, in the same way everywhere."""
    layer = step.layer
    if isinstance(layer, Scale):
        return bool(layer.factor.size == 1)
    if isinstance(layer, Constant):
        return bool(layer.value.size == 1)
    plain = isinstance(layer, Activation | ReLU | LeakyReLU | Clip | Product | Quotient | Add | Maximum)
    return plain and all(source.shape == step.shape for source in step.inputs)


def _regions(graph: Graph, end: Step, inside: Callable[[Step], bool]) -> Iterable[tuple[Step, list[Step]]]:
    """Steps that a region which ends in `end` is computed from alone, the nearest first, and the region in order."""
    place = graph.place
    region, border = [end], {id(source): source for source in end.inputs}
    while len(region) <= FARTHEST:
        latest = max(border.values(), key=lambda step: place[id(step)])
        if len(border) == 1:
            yield latest, sorted(region, key=lambda step: place[id(step)])
        if not inside(latest) or not latest.inputs:
            return
        del border[id(latest)]
        region.append(latest)
        border |= {id(source): source for source in latest.inputs}


def _run(region: list[Step], source: Step, value: Array) -> Array:
    """What the steps of a region make of a value (n, ...) of its source."""
    arrays = {id(source): value}
    with np.errstate(all="ignore"):
        for step in region:
            assert step.layer is not None
            arrays[id(step)] = step.layer.apply(*(arrays[id(each)] for each in step.inputs))
    return arrays[id(region[-1])]


def _activations(graph: Graph) -> None:
    """Formulas that are an activation: gelu, silu, hardswish, mish and the like in any spelling."""
    for end in reversed(list(graph.steps)):
        if not _pointwise(end):
            continue
        best = None
        for source, region in _regions(graph, end, _pointwise):
            spelt = len(region) > 1 and any(isinstance(step.layer, _ARITHMETIC) for step in region)
            known = _recognised(_run(region, source, _SAMPLES[None])[0]) if spelt else None
            best = best if known is None else (known, source, region)
        if best is not None:
            _become(graph, end, *best)


def _recognised(values: Array) -> NetworkLayer | None:
    """The activation that makes these of the samples, if it is a known one."""
    if not np.isfinite(values).all():
        return None
    known = _known_values()
    fits = (np.abs(known - values) <= 3e-6 * (1 + np.abs(known))).all(axis=1)
    if fits.any():
        return _KNOWN[int(fits.argmax())]
    slope = float(values[0] / _SAMPLES[0])
    leaky = np.where(_SAMPLES > 0, _SAMPLES, slope * _SAMPLES)
    return LeakyReLU(float(f"{slope:.6g}")) if slope not in (0.0, 1.0) and _near(values, leaky) else None


@cache
def _known_values() -> Array:
    """What the known activations make of the samples, (activations, samples)."""
    return np.stack([layer.apply(_SAMPLES[None])[0] for layer in _KNOWN])


def _near(a: Array, b: Array) -> bool:
    return bool((np.abs(a - b) <= 3e-6 * (1 + np.abs(b))).all())


def _softmaxes(graph: Graph) -> None:
    """exp(x - max x) / sum exp(x - max x), in steps."""
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
        _become(graph, end, Softmax(axis), source, region)


def _is(step: Step, name: str) -> bool:
    return isinstance(step.layer, Activation) and step.layer.name == name


def _largest(step: Step) -> Step | None:
    """What the negative maximum (repeated) is taken of."""
    while isinstance(step.layer, Expand) or (isinstance(step.layer, Scale) and (step.layer.factor == -1).all()):
        step = step.inputs[0]
    return step.inputs[0] if isinstance(step.layer, Reduce) and step.layer.how == "max" else None


# ---- normalisations --------------------------------------------------------------------------------------------------


def _statistical(step: Step) -> bool:
    """Whether a step may be part of a normalisation."""
    if isinstance(step.layer, Activation):
        return step.layer.name in ("pow", "sqrt", "reciprocal")
    return isinstance(
        step.layer, Reduce | GlobalAveragePool | Expand | Add | Scale | Constant | Product | Quotient | Affine
    )


def _normalisations(graph: Graph) -> None:
    """Means and deviations in steps, and factors and shifts behind a normalisation that has none."""
    for end in list(graph.steps):
        if isinstance(end.layer, Product | Quotient | Add):
            best = None
            for source, region in _regions(graph, end, _statistical):
                layer = _normalisation(source, region) if source.shape == end.shape else None
                best = best if layer is None else (layer, source, region)
                if isinstance(layer, LayerNorm):  # that of an array less its mean is a root-mean-square one, too
                    break
            if best is not None:
                _become(graph, end, *best)
    for step in list(graph.steps):
        before = step.inputs[0] if len(step.inputs) == 1 else None
        if before is not None and graph.alone(before):
            layer = _with_factors(before.layer, step.layer, before.shape)
            if layer is not None:
                _become(graph, step, layer, before.inputs[0], [before, step])


def _normalisation(source: Step, region: list[Step]) -> NetworkLayer | None:
    """The normalisation that a region computes, if it is one."""
    axes = {layer.axes if isinstance(layer, Reduce) else (2, 3) for layer in _means(region)}
    roots = [step for step in region if isinstance(step.layer, Activation) and _is_root(step.layer)]
    if len(axes) != 1 or len(roots) != 1 or prod(source.shape) > LARGEST:
        return None
    (over,) = axes
    before = roots[0].inputs[0].layer
    epsilon = float(before.value) if isinstance(before, Constant) and before.value.size == 1 else 0.0
    epsilon = float(f"{epsilon:.6g}")
    random = np.random.default_rng(0)
    inputs = [random.normal(0.3, size, (1, *source.shape)) for size in (1.0, 1.0, 0.01)]
    outputs = [_run(region, source, x) for x in inputs]
    one, none = np.ones(()), np.zeros(())
    for plain in (LayerNorm(one, none, over, epsilon), RMSNorm(one, over, epsilon)):
        a, b, c = (plain.apply(x) for x in inputs)
        scale = (outputs[0] - outputs[1]) / np.where(a == b, 1, a - b)
        shift = outputs[0] - scale * a
        size = np.abs(outputs[2]).max() + 1e-30
        if not np.isfinite(scale).all() or np.abs(scale * c + shift - outputs[2]).max() > 1e-5 * size:
            continue
        factor, added = _compressed(scale[0], over), _compressed(shift[0], over)
        if factor is None or added is None:
            continue
        if isinstance(plain, LayerNorm):
            return LayerNorm(factor, added, over, epsilon)
        if not added.any():
            return RMSNorm(factor, over, epsilon)
    return None


def _means(region: list[Step]) -> list[NetworkLayer]:
    return [
        step.layer
        for step in region
        if isinstance(step.layer, GlobalAveragePool) or (isinstance(step.layer, Reduce) and step.layer.how == "mean")
    ]


def _is_root(layer: Activation) -> bool:
    return layer.name == "sqrt" or (layer.name == "pow" and abs(layer.a) == 0.5)


def _compressed(value: Array, over: tuple[int, ...]) -> Array | None:
    """Factors as few numbers as there are different ones: along the axes `over`, or the first. None: more than that."""
    value = np.where(np.abs(value) < 1e-9, 0, value)
    size = np.abs(value).max()
    for axis in reversed(range(value.ndim)):
        first = np.take(value, [0], axis=axis)
        if np.abs(value - first).max() <= 1e-6 * size:
            value = first
    varying = {axis + 1 for axis, length in enumerate(value.shape) if length > 1}
    if not varying <= set(over) and varying != {1}:
        return None
    while value.ndim and value.shape[0] == 1:
        value = value[0]
    return np.asarray(value, np.float32)


def _with_factors(
    first: NetworkLayer | None, second: NetworkLayer | None, shape: tuple[int, ...]
) -> NetworkLayer | None:
    """A normalisation, and the factor or shift behind it where it has none."""
    if isinstance(second, Affine):
        scaled = _with_factors(first, Scale(_spread(second.scale, second.axis, shape)), shape)
        return _with_factors(scaled, Constant(_spread(second.shift, second.axis, shape)), shape)
    if isinstance(first, GroupNorm) and isinstance(second, Scale | Constant):
        return _with_channels(first, second, shape)
    value = second.factor if isinstance(second, Scale) else second.value if isinstance(second, Constant) else None
    if value is None or not isinstance(first, LayerNorm | RMSNorm) or not _along(value, first.axes, len(shape)):
        return None
    plain = bool((first.scale == 1).all()) and not (isinstance(first, LayerNorm) and first.shift.any())
    if isinstance(second, Scale):
        return replace(first, scale=value) if plain else None
    if isinstance(first, LayerNorm) and not first.shift.any():
        return replace(first, shift=value)
    return None


def _along(value: Array, axes: tuple[int, ...], rank: int) -> bool:
    """Whether a constant that meets the last of `rank` axes varies along some axes alone."""
    offset = rank - value.ndim + 1
    return all(length == 1 or axis + offset in axes for axis, length in enumerate(value.shape))


def _with_channels(first: GroupNorm, second: Scale | Constant, shape: tuple[int, ...]) -> NetworkLayer | None:
    plain = bool((first.scale == 1).all() and not first.shift.any())
    value = per_channel(second.factor if isinstance(second, Scale) else second.value, shape)
    if value is None or value[1] != 1:
        return None
    numbers = np.array(np.broadcast_to(value[0], shape[0]), np.float32)
    if isinstance(second, Scale):
        return replace(first, scale=numbers) if plain else None
    return replace(first, shift=numbers) if not first.shift.any() else None


def _groups(graph: Graph) -> None:
    """A normalisation of channels that were put into groups for it: group normalisation."""
    for end in list(graph.steps):
        if not isinstance(end.layer, Reshape) or len(end.shape) < 2:
            continue
        norm = end.inputs[0]
        front = norm.inputs[0] if len(norm.inputs) == 1 else None
        if front is None or not isinstance(front.layer, Reshape) or front.inputs[0].shape != end.shape:
            continue
        groups, layer = front.shape[0], norm.layer
        whole = tuple(range(2, len(front.shape) + 1))
        over_groups = (isinstance(layer, LayerNorm) and layer.axes == whole) or (
            isinstance(layer, GroupNorm) and layer.groups == groups
        )
        if not over_groups or not isinstance(layer, LayerNorm | GroupNorm) or end.shape[0] % groups:
            continue
        if (layer.scale == 1).all() and not layer.shift.any():
            one, none = np.ones(end.shape[0], np.float32), np.zeros(end.shape[0], np.float32)
            group = GroupNorm(one, none, groups, layer.epsilon)
            _become(graph, end, group, front.inputs[0], [front, norm, end])
    graph.refresh()
    _normalisations(graph)


# ---- moves that are one pick -----------------------------------------------------------------------------------------


def _shuffles(graph: Graph) -> None:
    """Shuffled channels (reshape, transposition, reshape) and rolled axes (slices put together) as one pick."""
    for end in list(graph.steps):
        if isinstance(end.layer, Reshape):
            _shuffle(graph, end)
        elif isinstance(end.layer, Concat):
            _roll(graph, end)


def _shuffle(graph: Graph, end: Step) -> None:
    middle = end.inputs[0]
    front = middle.inputs[0] if isinstance(middle.layer, Transpose) else None
    if front is None or not isinstance(front.layer, Reshape):
        return
    source = front.inputs[0]
    order, split = middle.layer.order if isinstance(middle.layer, Transpose) else (), front.shape
    if source.shape != end.shape or len(split) != len(end.shape) + 1 or split[2:] != end.shape[1:]:
        return
    if order == (2, 1, *range(3, len(split) + 1)):
        places = np.arange(end.shape[0], dtype=np.int64).reshape(split[:2]).T.ravel()
        _become(graph, end, Gather(places, 1), source, [front, middle, end])


def _roll(graph: Graph, end: Step) -> None:
    layers = [each.layer for each in end.inputs]
    slices = [layer for layer in layers if isinstance(layer, Slice)]
    source = end.inputs[0].inputs[0] if end.inputs[0].inputs else None
    assert isinstance(end.layer, Concat)
    if source is None or len(slices) < len(layers) or any(layer.axis != end.layer.axis for layer in slices):
        return
    if all(each.inputs[0] is source for each in end.inputs):
        places = np.concatenate([s.start + s.step * np.arange(s.count) for s in slices])
        _become(graph, end, Gather(places, end.layer.axis), source, [*end.inputs, end])


# ---- factors and shifts of channels ----------------------------------------------------------------------------------


def per_channel(value: Array, shape: tuple[int, ...]) -> tuple[Array, int] | None:
    """A constant that meets the last axes as one number for each channel of an axis, and that axis (from 1 on).

    A single number is one for each of the first axis. None: the constant varies along more axes.
    """
    offset = len(shape) - value.ndim
    long = [axis for axis, length in enumerate(value.shape) if length > 1]
    if len(long) > 1:
        return None
    return value.reshape(-1), (long[0] + offset + 1 if long else 1)


def _spread(value: Array, axis: int, shape: tuple[int, ...]) -> Array:
    """One number for each channel of an axis in the shape that meets the axes from there on."""
    return value.reshape(-1, *(1,) * (len(shape) - axis))


def _as_affine(layer: NetworkLayer | None, shape: tuple[int, ...]) -> Affine | None:
    """A factor or a shift of channels as an affine layer."""
    if isinstance(layer, Affine):
        return layer
    value = layer.factor if isinstance(layer, Scale) else layer.value if isinstance(layer, Constant) else None
    found = None if value is None else per_channel(value, shape)
    if found is None:
        return None
    numbers, axis = found
    numbers = np.array(np.broadcast_to(numbers, shape[axis - 1]), np.float32)
    if isinstance(layer, Scale):
        return Affine(numbers, np.zeros_like(numbers), axis)
    return Affine(np.ones_like(numbers), numbers, axis)


def _affines(graph: Graph) -> None:
    """Factors and shifts of channels together, and into the convolution or dense layer beside them where exact."""
    _input_channels(graph)
    for step in list(graph.steps):
        while len(step.inputs) == 1 and graph.alone(step.inputs[0]) and step.inputs[0].layer is not None:
            source = step.inputs[0]
            merged = _merged(source, step)
            if merged is None:
                break
            name = source.name if isinstance(step.layer, Affine | Scale | Constant) else step.name
            _become(graph, step, merged, source.inputs[0], [source, step])
            step.name = name


def _merged(source: Step, step: Step) -> NetworkLayer | None:
    """One layer that does what two steps do, one behind the other; None where that is not exact."""
    first, second = source.layer, step.layer
    pixels = source.inputs[0].layer is None
    if isinstance(second, Affine | Scale | Constant):
        if isinstance(first, Affine | Scale | Constant):
            return _together(first, second, step.shape, pixels)
        affine = _as_affine(second, step.shape)
        if affine is not None and not isinstance(second, Scale):
            return _after(first, affine, step.shape)
    if isinstance(second, Conv) and isinstance(first, Pad) and first.value == 0 and first.axis == 2:
        top, left, bottom, right = (a + b for a, b in zip(first.pads, second.pads, strict=True))
        return replace(second, pads=(top, left, bottom, right))
    if isinstance(first, Affine) and not pixels and isinstance(second, Conv | Dense):
        return _before(first, second, source.shape)
    return None


def _together(first: NetworkLayer, second: NetworkLayer, shape: tuple[int, ...], pixels: bool) -> NetworkLayer | None:
    """Two factors, or factors and shifts of channels; a factor of channels behind a shift stays apart (LayerScale).

    Unless they see the pixels: there, they are the normalisation of the input.
    """
    if isinstance(first, Scale) and isinstance(second, Scale):
        product = first.factor * second.factor
        return Scale(np.asarray(product)) if product.ndim <= len(shape) else None
    if isinstance(second, Scale) and isinstance(first, Affine) and second.factor.size > 1 and not pixels:
        return None
    a, b = _as_affine(first, shape), _as_affine(second, shape)
    if a is None or b is None:
        return None
    if a.axis != b.axis:  # one number for all channels meets any axis
        if (a.scale == a.scale[0]).all() and (a.shift == a.shift[0]).all():
            a = _uniform(a, b, shape)
        elif (b.scale == b.scale[0]).all() and (b.shift == b.shift[0]).all():
            b = _uniform(b, a, shape)
        else:
            return None
    scale, shift = a.scale.astype(np.float64), a.shift.astype(np.float64)
    return Affine(_single(scale * b.scale), _single(shift * b.scale + b.shift), a.axis)


def _single(values: Any) -> Array:
    return np.asarray(values, np.float32)


def _uniform(affine: Affine, other: Affine, shape: tuple[int, ...]) -> Affine:
    """An affine layer of one factor and one shift along the axis of another."""
    length = shape[other.axis - 1]
    return Affine(np.full(length, affine.scale[0]), np.full(length, affine.shift[0]), other.axis)


def _after(layer: NetworkLayer | None, affine: Affine, shape: tuple[int, ...]) -> NetworkLayer | None:
    """A convolution or dense layer, then a factor and a shift of each output."""
    wanted = 1 if isinstance(layer, Conv) else len(shape)
    if not isinstance(layer, Conv | Dense):
        return None
    scale, shift = affine.scale.astype(np.float64), affine.shift.astype(np.float64)
    if affine.axis != wanted:
        if (scale != scale[0]).any() or (shift != shift[0]).any():
            return None
        scale, shift = scale[:1], shift[:1]
    if (scale == 1).all():
        return replace(layer, bias=_single(layer.bias + shift))
    weight = layer.weight * scale.reshape(-1, *(1,) * (layer.weight.ndim - 1))
    return replace(layer, weight=_single(weight), bias=_single(layer.bias * scale + shift))


def _before(affine: Affine, layer: Conv | Dense, shape: tuple[int, ...]) -> NetworkLayer | None:
    """A factor and a shift of each input channel, then a convolution or dense layer; the border must stay zero."""
    if isinstance(layer, Conv) and (affine.axis != 1 or (any(layer.pads) and affine.shift.any())):
        return None
    if isinstance(layer, Dense) and affine.axis != len(shape):
        return None
    groups = layer.groups if isinstance(layer, Conv) else 1
    per_group = (groups, len(layer.weight) // groups, layer.weight.shape[1], -1)
    weight = layer.weight.astype(np.float64).reshape(per_group)
    bias = layer.bias + np.einsum("goik,gi->go", weight, affine.shift.reshape(groups, -1)).ravel()
    weight = weight * affine.scale.reshape(groups, 1, -1, 1)
    return replace(layer, weight=_single(weight.reshape(layer.weight.shape)), bias=_single(bias))


def _input_channels(graph: Graph) -> None:
    """Channels normalised one by one and put together again, as torchvision's transform_input: one affine layer."""
    for end in graph.steps:
        if not isinstance(end.layer, Concat) or end.layer.axis != 1:
            continue
        channels = [_channel(each) for each in end.inputs]
        source = next((channel[0] for channel in channels if channel is not None), None)
        if source is None or len(channels) != source.shape[0]:
            continue
        scales, shifts, region = [], [], [end]
        for k, channel in enumerate(channels):
            if channel is None or channel[0] is not source or channel[1] != k:
                break
            scales.append(channel[2])
            shifts.append(channel[3])
            region = [*channel[4], *region]
        else:
            _become(graph, end, Affine(_single(scales), _single(shifts)), source, region)
    graph.refresh()


def _channel(step: Step) -> tuple[Step, int, float, float, list[Step]] | None:
    """A step that is one channel times a factor plus a shift: whose, which, factor, shift and the steps it takes."""
    scale, shift = 1.0, 0.0
    region: list[Step] = []
    while isinstance(step.layer, Scale | Constant | Affine | Reshape | Flatten):
        if isinstance(step.layer, Scale | Constant | Affine):
            affine = _as_affine(step.layer, step.shape)
            if affine is None or affine.scale.std() or affine.shift.std():
                return None
            shift += scale * float(affine.shift[0])
            scale *= float(affine.scale[0])
        region.insert(0, step)
        step = step.inputs[0]
    if not isinstance(step.layer, Slice) or step.layer.axis != 1 or step.layer.count != 1:
        return None
    return step.inputs[0], step.layer.start, scale, shift, [step, *region]


def _branches(graph: Graph) -> None:
    """Convolutions and factors of one array that are summed: one convolution.

    So are RepVGG, MobileOne, RepViT and FastViT trained; their authors add the branches up before use (Ding et al.
    2021, arXiv:2101.03697). Files come in either form, and branches that cancel would share relevance without bound.
    The array itself is a branch where a batch normalisation follows: else it is the residual of a block.
    """
    for end in list(graph.steps):
        if not isinstance(end.layer, Add):
            continue
        source = min(end.inputs, key=lambda step: graph.place[id(step)])
        if source.inputs and not any(source in step.inputs for step in end.inputs):
            source = source.inputs[0]
        branches = [_as_branch(graph, step, source, _normalised_next(graph, end)) for step in end.inputs]
        known = [layer for layer in branches if layer is not None]
        convolutions = [layer for layer in known if isinstance(layer, Conv)]
        if len(known) < len(end.inputs) or not convolutions:
            continue
        groups = convolutions[0].groups
        summed = _summed([_as_conv(layer, groups) if isinstance(layer, Affine) else layer for layer in known])
        if summed is not None and summed.out_shape(source.shape) == end.shape:
            _become(graph, end, summed, source, [*(step for step in end.inputs if step is not source), end])
    graph.refresh()
    _affines(graph)


def _normalised_next(graph: Graph, step: Step) -> bool:
    return graph.alone(step) and all(isinstance(other.layer, Affine) for other in graph.readers(step))


def _as_branch(graph: Graph, step: Step, source: Step, itself: bool) -> Conv | Affine | None:
    """The layer of `source` that a step is and that a convolution can take in: a convolution, or factors and shifts."""
    if step is source and len(step.shape) == 3:
        one = np.ones(step.shape[0], np.float32)
        return Affine(one, np.zeros_like(one)) if itself else None
    if step.inputs != [source] or len(step.shape) != 3 or not graph.alone(step):
        return None
    affine = None if source.layer is None else _as_affine(step.layer, step.shape)
    if affine is not None:
        return affine if affine.axis == 1 else None
    return step.layer if isinstance(step.layer, Conv) else None


def _as_conv(affine: Affine, groups: int) -> Conv:
    """A factor and a shift of each channel as a 1 x 1 convolution of so many groups."""
    channels = len(affine.scale)
    weight = np.zeros((channels, channels // groups, 1, 1), np.float32)
    own = np.arange(channels)
    weight[own, own % (channels // groups), 0, 0] = affine.scale
    return Conv(weight, affine.shift, groups=groups)


def _summed(layers: list[Conv]) -> Conv | None:
    """One convolution that is the sum of several, whose windows differ at most in size and place."""
    first = layers[0]
    alike = all(
        layer.stride == first.stride and layer.groups == first.groups and len(layer.weight) == len(first.weight)
        and (layer.dilation == (1, 1) or layer.kernel == (1, 1))
        for layer in layers
    )  # fmt: skip
    if not alike:
        return None
    before = [max(layer.pads[axis] for layer in layers) for axis in (0, 1)]
    # Past the place of an output: the taps that a kernel reads, and how far the window may step beyond the image.
    reach = [max(layer.kernel[axis] - layer.pads[axis] for layer in layers) for axis in (0, 1)]
    spare = [max(layer.pads[axis + 2] - layer.kernel[axis] + layer.pads[axis] for layer in layers) for axis in (0, 1)]
    shape = (*first.weight.shape[:2], before[0] + reach[0], before[1] + reach[1])
    weight, bias = np.zeros(shape), np.zeros(shape[0])
    for layer in layers:
        (kh, kw), (top, left) = layer.kernel, (before[0] - layer.pads[0], before[1] - layer.pads[1])
        weight[:, :, top : top + kh, left : left + kw] += layer.weight
        bias += layer.bias
    pads = (before[0], before[1], spare[0] + reach[0], spare[1] + reach[1])
    return replace(first, weight=_single(weight), bias=_single(bias), pads=pads, dilation=(1, 1))


# ---- attention and gates ---------------------------------------------------------------------------------------------


def _attention(graph: Graph) -> None:
    """Which side of a product holds attention weights, and the factors around products of queries and keys."""
    for step in list(graph.steps):
        if not isinstance(step.layer, MatMul) or len(step.inputs) != 2:
            continue
        weights = next((k for k in (0, 1) if _from_softmax(step.inputs[k])), -1)
        step.layer = replace(step.layer, weights=weights)
        for k in (0, 1):
            _take_factor(graph, step, k)
    graph.refresh()
    for step in list(graph.steps):
        source = step.inputs[0] if len(step.inputs) == 1 else None
        if source is None or not isinstance(step.layer, Scale) or step.layer.factor.size != 1:
            continue
        if isinstance(source.layer, MatMul) and len(source.inputs) == 2 and graph.alone(source):
            source.layer = replace(source.layer, scale=source.layer.scale * float(step.layer.factor))
            graph.bypass(step, source)


def _from_softmax(step: Step) -> bool:
    """Whether an array is the output of a softmax, maybe moved, masked, or mixed among heads."""
    while len(step.inputs) == 1:
        if isinstance(step.layer, Softmax):
            return True
        if not isinstance(
            step.layer,
            Reshape | Flatten | Transpose | Scale | Select | Constant | Affine | Dense | Conv | Expand | Slice | Gather,
        ):
            return False
        step = step.inputs[0]
    return False


def _take_factor(graph: Graph, step: Step, k: int) -> None:
    """Take the single factor of input k into the product: whoever scales queries, keys or both, it is the same."""
    above = step.inputs[k]
    while isinstance(above.layer, Reshape | Transpose | Flatten | Expand) and graph.alone(above):
        above = above.inputs[0]
    layer = above.layer
    if isinstance(layer, Scale) and layer.factor.size == 1 and graph.alone(above):
        assert isinstance(step.layer, MatMul)
        step.layer = replace(step.layer, scale=step.layer.scale * float(layer.factor))
        graph.bypass(above, above.inputs[0])


def _gates(graph: Graph) -> None:
    """Which side of a product says how much of the other passes."""
    for step in graph.steps:
        if isinstance(step.layer, Product):
            a, b = (_gate(each, step.shape) for each in step.inputs)
            step.layer = Product(-1 if a == b else int(b > a))


def _gate(step: Step, shape: tuple[int, ...]) -> int:
    """How surely an array is a gate: 3 where it is repeated for whole channels, then a sigmoid's output, a tanh's."""
    if step.shape != shape or isinstance(step.layer, Expand):
        return 3
    while isinstance(step.layer, Reshape | Flatten | Transpose):
        step = step.inputs[0]
    if isinstance(step.layer, Softmax):
        return 2
    if isinstance(step.layer, Activation):
        return {"sigmoid": 2, "hardsigmoid": 2, "tanh": 1}.get(step.layer.name, 0)
    return 2 if isinstance(step.layer, Clip) and (step.layer.low, step.layer.high) == (0, 1) else 0
