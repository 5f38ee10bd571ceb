"""Every layer of both stacks keeps the one protocol: it conserves, its flat form is local, and a slow twin agrees.

A section for each stack. A class without a case fails here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import reference
import twins

from fvlrp.core.layer import Layer
from fvlrp.core.ledger import Entries
from fvlrp.fisher import layers
from fvlrp.fisher.layers import Encode, Fisher, Linear, Normalise, Project, SpatialBins
from fvlrp.fisher.sift import DenseSIFT
from fvlrp.network.layers import (
    LAYERS,
    LRN,
    Activation,
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Constant,
    Conv,
    Dense,
    DynamicQuantise,
    Expand,
    Extend,
    Flatten,
    Gather,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    MatMul,
    Maximum,
    MaxPool,
    NetworkLayer,
    Pad,
    PReLU,
    Product,
    Quantise,
    Quotient,
    Reduce,
    ReLU,
    Reshape,
    Resize,
    RMSNorm,
    Scale,
    Select,
    Slice,
    Softmax,
    Table,
    Transpose,
)
from fvlrp.network.rules import Choice
from fvlrp.rules import AlphaBeta, Epsilon, FisherRules, Flat, Gamma, WSquare, ZPlus

# ---- networks --------------------------------------------------------------------------------------------------------

RULES = AlphaBeta(2, 1), Epsilon(0.01), Gamma(0.25), ZPlus(), WSquare(), Flat()


@dataclass(frozen=True)
class Case:
    """A layer, the shapes of its inputs, and relevance of each from the equations: twin(layer, inputs, r, rule)."""

    layer: NetworkLayer
    shapes: list[tuple[int, ...]]
    twin: Callable[..., list[np.ndarray]]

    def __repr__(self) -> str:
        return f"{type(self.layer).__name__} of {', '.join(map(str, self.shapes))}"


def _random(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape)


def _unchanged(layer, inputs, r, rule):
    return [r.reshape(inputs[0].shape)]


def _routed(layer, inputs, r, rule):
    return twins.routed(layer, inputs, r)


def _linear(layer, inputs, r, rule):
    return [twins.linear(layer, inputs[0], r, rule).reshape(inputs[0].shape)]


def _affine(layer, inputs, r, rule):
    """Every value is a sum of its own: the scaled input and the shift, which keeps its part."""
    (x,), out = inputs, np.zeros(r.size)
    scale, shift = (np.broadcast_to(v.reshape(1, -1, 1, 1), x.shape).ravel() for v in (layer.scale, layer.shift))
    for i, terms in enumerate(np.stack([x.ravel() * scale, shift], axis=1)):
        blind = isinstance(rule, Flat | WSquare)
        out[i] = r.ravel()[i] if blind else twins.of_a_sum(terms, r.ravel()[i], rule)[0]
    return [out.reshape(x.shape)]


def _winner(layer, inputs, r, rule):
    """All to the first largest value of each window inside the image; under `Flat`, evenly."""
    (x,), out = inputs, np.zeros(inputs[0].shape)
    (sy, sx), (dy, dx), (top, left, _, _) = layer.stride, layer.dilation, layer.pads
    for c, oy, ox in np.ndindex(*r.shape[1:]):
        ys = [y for y in (oy * sy - top + k * dy for k in range(layer.kernel[0])) if 0 <= y < x.shape[2]]
        xs = [x_ for x_ in (ox * sx - left + k * dx for k in range(layer.kernel[1])) if 0 <= x_ < x.shape[3]]
        places = [(0, c, y, x_) for y in ys for x_ in xs]
        if not isinstance(rule, Flat):
            places = [max(places, key=lambda place: x[place])]
        for place in places:
            out[place] += r[0, c, oy, ox] / len(places)
    return [out]


def _sums(layer, inputs, r, rule):
    return twins.sums(layer, inputs, r, rule)


def _exponentials(layer, inputs, r, rule):
    """As the sum of the exponentials, the largest of which is 1."""
    (x,) = inputs
    return twins.sums(replace(layer, how="sum"), [np.exp(x - x.max(axis=layer.axes, keepdims=True))], r, rule)


def _constant(layer, inputs, r, rule):
    """Every value is the sum of the input and the constant, which keeps its part; an infinite one keeps all."""
    (x,), out = inputs, np.zeros(r.size)
    values = np.broadcast_to(layer.value, x.shape).ravel()
    for i, (own, value) in enumerate(zip(x.ravel(), values, strict=True)):
        if np.isfinite(value):
            out[i] = twins.of_a_sum(np.array([own, value]), r.ravel()[i], rule)[0]
    return [out.reshape(x.shape)]


def _normalised(layer, inputs, r, rule):
    """x_i w_ij R_j / (y_j + eps sgn y_j) with the standard deviation a constant, w written out as a matrix."""
    (x,) = inputs
    groups = layer.groups if isinstance(layer, GroupNorm) else 1
    out, y = np.zeros(x.shape), layer.apply(x)
    axes = (2,) if isinstance(layer, GroupNorm) else layer.axes
    shape = (1, groups, x.size // groups) if isinstance(layer, GroupNorm) else x.shape
    grouped, labels = x.reshape(shape), np.zeros(shape, int)
    kept = [a for a in range(len(shape)) if a not in axes]
    labels += np.arange(np.prod([shape[a] for a in kept])).reshape(
        [shape[a] if a in kept else 1 for a in range(len(shape))]
    )
    labels = labels.reshape(x.shape)
    factor = layer.scale.reshape(-1, 1, 1) if isinstance(layer, GroupNorm) else layer.scale
    factor, epsilon = np.broadcast_to(factor, x.shape), rule.epsilon if isinstance(rule, Epsilon) else 1e-6
    for label in range(labels.max() + 1):
        mine = labels == label
        own, n = x[mine], mine.sum()
        centre = 0 if isinstance(layer, RMSNorm) else own.mean()
        deviation = np.sqrt(((own - centre) ** 2).mean() + layer.epsilon)
        weights = (np.eye(n) - (0 if isinstance(layer, RMSNorm) else 1 / n)) * factor[mine][:, None] / deviation
        shares = r[mine] / (y[mine] + np.copysign(epsilon, y[mine]))
        out[mine] = own * (weights.T @ shares)
    assert grouped.size == x.size
    return [out]


def _product(layer, inputs, r, rule):
    """All to the signal, or half each; where an input is repeated, its parts add."""
    whole = [1.0 if layer.gate == 1 - k else 0.0 if layer.gate == k else 0.5 for k in (0, 1)]
    parts = []
    for part, x in zip(whole, inputs, strict=True):
        out = np.zeros(x.shape)
        for place in np.ndindex(*r.shape):
            out[tuple(0 if n == 1 else i for i, n in zip(place, x.shape, strict=True))] += part * r[place]
        parts.append(out)
    return parts


def _quotient(layer, inputs, r, rule):
    return [r, np.zeros(inputs[1].shape)]


def _larger(layer, inputs, r, rule):
    first = inputs[0] >= inputs[1] if layer.sign > 0 else inputs[0] <= inputs[1]
    return [r * first, r * ~first]


def _attended(layer, inputs, r, rule):
    """z_ij = a_ik v_kj: attention weights are constants; queries and keys, and signals, take half of each term."""
    a, b = inputs
    epsilon = rule.epsilon if isinstance(rule, Epsilon) else 1e-6
    out, shares = [np.zeros(a.shape), np.zeros(b.shape)], {0: (0, 1), 1: (1, 0)}.get(layer.weights, (0.5, 0.5))
    for h, i, j in np.ndindex(*r.shape[1:]):
        terms = layer.scale * a[0, h, i] * b[0, h, :, j]
        z = terms.sum() if layer.weights >= 0 else 2 * terms.sum()
        relevance = terms * (2 if layer.weights < 0 else 1) * r[0, h, i, j] / (z + np.copysign(epsilon, z))
        out[0][0, h, i] += shares[0] * relevance
        out[1][0, h, :, j] += shares[1] * relevance
    return out


def _softmax(layer, inputs, r, rule):
    """x_i (R_i - s_i sum R), one row at a time."""
    (x,), out = inputs, np.zeros(inputs[0].shape)
    for row in np.ndindex(*x.shape[:-1]):
        s = np.exp(x[row]) / np.exp(x[row]).sum()
        out[row] = x[row] * (r[row] - s * r[row].sum())
    return [out]


def _largest(layer, inputs, r, rule):
    """All to the first largest of each channel; evenly under `Flat` where the layer is a pool."""
    (x,), out = inputs, np.zeros(inputs[0].shape)
    for c, amount in enumerate(r.reshape(-1)):
        places = [(0, c, i, j) for i, j in np.ndindex(*x.shape[2:])]
        if not (isinstance(rule, Flat) and isinstance(layer, GlobalMaxPool)):
            places = [max(places, key=lambda place: x[place])]
        for place in places:
            out[place] += amount / len(places)
    return [out]


IMAGE = (3, 5, 4)
CASES: dict[type[NetworkLayer], list[Case]] = {
    Conv: [
        Case(Conv(_random(4, 3, 3, 2), _random(4), (2, 1), (1, 0, 1, 2)), [IMAGE], _linear),
        Case(Conv(_random(6, 1, 3, 3), _random(6), (1, 1), (1, 1, 1, 1), groups=3), [IMAGE], _linear),
    ],
    Dense: [
        Case(Dense(_random(3, 5), _random(3)), [(5,)], _linear),
        Case(Dense(_random(3, 5), _random(3)), [(2, 3, 5)], _linear),
    ],
    ReLU: [Case(ReLU(), [IMAGE], _unchanged)],
    LeakyReLU: [Case(LeakyReLU(0.1), [IMAGE], _unchanged)],
    Clip: [Case(Clip(-0.5, 0.5), [IMAGE], _unchanged)],
    MaxPool: [Case(MaxPool((3, 2), (2, 1), (1, 0, 1, 1), True, (1, 2)), [IMAGE], _winner)],
    AveragePool: [Case(AveragePool((3, 2), (2, 1), (1, 0, 1, 1), True, True), [IMAGE], _sums)],
    GlobalAveragePool: [Case(GlobalAveragePool(), [IMAGE], _sums)],
    LRN: [Case(LRN(3), [IMAGE], _unchanged)],
    Affine: [Case(Affine(_random(3), _random(3)), [IMAGE], _affine)],
    Concat: [Case(Concat(1), [IMAGE, (1, 5, 4)], _routed), Case(Concat(3), [IMAGE, (3, 5, 2)], _routed)],
    Add: [Case(Add(), [IMAGE] * 3, _sums)],
    Flatten: [Case(Flatten(), [IMAGE], _routed), Case(Flatten(2), [IMAGE], _routed)],
    Reshape: [Case(Reshape((6, -1)), [IMAGE], _routed)],
    Pad: [Case(Pad((1, 0, 2, 1), 0.0), [IMAGE], _routed), Case(Pad((1, 0, 2, 1), 0.0, 1), [IMAGE], _routed)],
    PReLU: [Case(PReLU(_random(3, 1, 1)), [IMAGE], _unchanged)],
    Activation: [Case(Activation("gelu"), [IMAGE], _unchanged), Case(Activation("elu", 0.5), [(7,)], _unchanged)],
    GlobalMaxPool: [Case(GlobalMaxPool(), [IMAGE], _largest)],
    LayerNorm: [
        Case(LayerNorm(_random(4), _random(4), (2,)), [(3, 4)], _normalised),
        Case(LayerNorm(_random(5, 1), _random(5, 1), (2,)), [IMAGE], _normalised),
    ],
    RMSNorm: [Case(RMSNorm(_random(4), (2,)), [(3, 4)], _normalised)],
    GroupNorm: [Case(GroupNorm(_random(4), _random(4), 2), [(4, 3, 2)], _normalised)],
    Scale: [Case(Scale(_random(4)), [IMAGE], _unchanged), Case(Scale(np.array(0.3)), [IMAGE], _unchanged)],
    Constant: [
        Case(Constant(_random(5, 4)), [IMAGE], _constant),
        Case(Constant(np.array([0.5, -np.inf, 1, -2])), [IMAGE], _constant),
    ],
    Select: [Case(Select(np.arange(4) % 2 == 0, np.zeros(())), [IMAGE], _routed)],
    Extend: [
        Case(Extend(np.zeros((1, 4)), np.zeros((2, 4))), [(3, 4)], _routed),
        Case(Extend(np.zeros((3, 0)), np.zeros((3, 2)), 2), [(3, 4)], _routed),
    ],
    DynamicQuantise: [Case(DynamicQuantise(), [IMAGE], _unchanged)],
    Table: [Case(Table(np.array(0.02), np.array(128.0), 0, np.linspace(-1, 2, 256)), [IMAGE], _unchanged)],
    Quantise: [Case(Quantise(np.array(0.1), np.array(3.0), 0, 255), [IMAGE], _unchanged)],
    Product: [
        Case(Product(), [IMAGE, IMAGE], _product),
        Case(Product(1), [IMAGE, (3, 1, 1)], _product),
        Case(Product(0), [(3, 1, 1), IMAGE], _product),
    ],
    Quotient: [Case(Quotient(), [IMAGE, (3, 1, 1)], _quotient)],
    Maximum: [Case(Maximum(), [IMAGE, IMAGE], _larger), Case(Maximum(-1), [IMAGE, IMAGE], _larger)],
    MatMul: [
        Case(MatMul(_random(2, 4, 5)), [(2, 3, 4)], _linear),
        Case(MatMul(None, -1, 0.5), [(2, 3, 4), (2, 4, 3)], _attended),
        Case(MatMul(None, 0), [(2, 3, 3), (2, 3, 4)], _attended),
        Case(MatMul(None, 1), [(2, 4, 3), (2, 3, 3)], _attended),
        Case(MatMul(None, 0), [(2, 1, 3), (2, 3, 4)], _attended),
    ],
    Softmax: [Case(Softmax(3), [IMAGE], _softmax)],
    Reduce: [
        Case(Reduce("mean", (1, 3)), [IMAGE], _sums),
        Case(Reduce("sum", (2,), False), [IMAGE], _sums),
        Case(Reduce("max", (2, 3), False), [IMAGE], _largest),
        Case(Reduce("logsumexp", (1, 3)), [IMAGE], _exponentials),
        Case(Reduce("logsumexp", (2,), False), [IMAGE], _exponentials),
    ],
    Resize: [
        Case(Resize((0, 0), (2.0, 1.5), "linear"), [IMAGE], _sums),
        Case(Resize((3, 7), (0.6, 1.75), "nearest"), [IMAGE], _routed),
    ],
    Transpose: [Case(Transpose((3, 1, 2)), [IMAGE], _routed)],
    Slice: [Case(Slice(2, 1, 2, 2), [IMAGE], _routed), Case(Slice(2, 4, 3, -2), [IMAGE], _routed)],
    Gather: [
        Case(Gather(np.array([3, 1, 1, 0]), 2), [IMAGE], _routed),
        Case(Gather(np.array([[2, 0], [1, 2]]), 1), [IMAGE], _routed),
        Case(Gather(np.array([1, 2, 0]), 1), [IMAGE], _routed),
    ],
    Expand: [Case(Expand((3, 5, 4)), [(3, 1, 4)], _routed)],
}


def test_every_layer_of_a_network_has_a_case():
    assert set(CASES) == set(LAYERS)
    assert all(type(case.layer) is kind for kind, cases in CASES.items() for case in cases)


def network_cases(function):
    return pytest.mark.parametrize("case", [case for cases in CASES.values() for case in cases], ids=repr)(function)


def _inputs(case, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.standard_normal((1, *shape)) for shape in case.shapes)


def _relevance(case, inputs, targets=2):
    shape = case.layer.apply(*inputs).shape[1:]
    return np.random.default_rng(1).standard_normal((targets, *shape))


@network_cases
def test_a_forward_pass_saves_inputs_and_outputs_of_the_declared_shapes(case):
    inputs = _inputs(case)
    y, saved = case.layer.forward(*inputs)
    assert isinstance(case.layer, Layer)
    assert y.shape[1:] == case.layer.out_shape(*case.shapes) and y.dtype == np.float64
    np.testing.assert_array_equal(saved.y, y)
    assert len(saved.inputs) == len(inputs)
    assert case.layer.apply(*(x.astype(np.float32) for x in inputs)).dtype == np.float32


@pytest.mark.parametrize("rule", RULES, ids=repr)
@network_cases
def test_relevance_is_conserved_above_the_depth_and_below_it(case, rule):
    inputs = _inputs(case)
    r, (_, saved) = _relevance(case, inputs), case.layer.forward(*inputs)
    for form in (case.layer.relevance, case.layer.flat):
        parts, entries = form(r, saved, Choice(rule))
        assert [part.shape for part in parts] == [(2, *shape) for shape in case.shapes]
        there = sum(part.reshape(2, -1).sum(axis=1) for part in parts)
        kept = sum((np.asarray(amount) for amount in entries.values()), np.zeros(2))
        size = sum(np.abs(part).sum() for part in parts) + np.abs(kept).sum()
        np.testing.assert_allclose(there + kept, r.reshape(2, -1).sum(axis=1), rtol=0, atol=1e-9 * size)


@pytest.mark.parametrize("pool", ("winner", "flat"))
@network_cases
def test_flat_relevance_stays_in_the_receptive_field_and_adds_up(case, pool):
    """From one output at a time it reaches only inputs that this output depends on, of whatever activations."""
    inputs = _inputs(case)
    y, saved = case.layer.forward(*inputs)
    depends = [np.zeros((y.size, x.size), bool) for x in inputs]
    for large in (1e3, -1e3):
        for k, x in enumerate(inputs):
            for i in range(x.size):
                moved = x.copy()
                moved.flat[i] += large
                after = case.layer.apply(*inputs[:k], moved, *inputs[k + 1 :])
                depends[k][:, i] |= (after != y).ravel()
    units = np.eye(y.size).reshape(-1, *y.shape[1:])
    parts, entries = case.layer.flat(units, saved, Choice(AlphaBeta(), pool=pool))
    for part, reached in zip(parts, depends, strict=True):
        assert (reached | (part.reshape(y.size, -1) == 0)).all()
    kept = sum((np.asarray(amount) for amount in entries.values()), np.zeros(y.size))
    there = sum(part.reshape(y.size, -1).sum(axis=1) for part in parts)
    np.testing.assert_allclose(there + kept, 1, atol=1e-12)
    both, _ = case.layer.flat(units.sum(axis=0, keepdims=True), saved, Choice(AlphaBeta(), pool=pool))
    for part, together in zip(parts, both, strict=True):
        np.testing.assert_allclose(part.sum(axis=0), together[0], rtol=0, atol=1e-10 * np.abs(part).sum())


@pytest.mark.parametrize("rule", RULES, ids=repr)
@network_cases
def test_relevance_equals_its_twin(case, rule):
    inputs = _inputs(case)
    r, (_, saved) = _relevance(case, inputs), case.layer.forward(*inputs)
    got, _ = case.layer.relevance(r, saved, Choice(rule))
    for t in range(len(r)):
        for part, want in zip(got, case.twin(case.layer, inputs, r[t : t + 1], rule), strict=True):
            np.testing.assert_allclose(part[t], want[0], rtol=0, atol=1e-10 * max(1, np.abs(want).max()))


# ---- Fisher vectors --------------------------------------------------------------------------------------------------

PYRAMID = ((2, 1), (1, 1))
COMPONENTS, DIMS = 3, 5


@dataclass(frozen=True)
class Stack:
    """A small Fisher-vector stack and one image's exact forward pass through it, layer by layer."""

    layers: tuple
    inputs: tuple  # of each layer
    saved: tuple

    @property
    def shape(self):
        return self.inputs[0].shape

    @property
    def output(self):
        return self.layers[-1].forward(self.inputs[-1])[0]

    def part(self, kind):
        return next(i for i, layer in enumerate(self.layers) if isinstance(layer, kind))


def _image():
    """Texture beside a smooth patch, whose descriptors are zeroed: two descriptor scales, some bins outside."""
    grey = np.random.default_rng(5).random((29, 26), np.float32)
    grey[:, :17] = 0.5
    return grey


def _upward(layers, x, **options):
    inputs, saved = [], []
    for layer in layers:
        inputs.append(x)
        x, kept = layer.forward(x, **(options if isinstance(layer, Project | Encode) else {}))
        saved.append(kept)
    return tuple(inputs), tuple(saved)


@pytest.fixture(scope="module", params=[False, True], ids=["no mean", "a mean"])
def stack(request):
    draw = np.random.default_rng(7)
    basis = np.linalg.qr(draw.standard_normal((128, DIMS)))[0].T
    mean = draw.uniform(0, 40, 128) if request.param else np.zeros(128)
    bins = SpatialBins(DenseSIFT(bin_sizes=(3, 5), step=6))
    descriptors, _ = bins.forward(_image())
    assert descriptors.zeroed.any() and not descriptors.zeroed.all()
    y = (descriptors.values - mean) @ basis.T
    means = y[draw.integers(0, len(y), COMPONENTS)] + draw.standard_normal((COMPONENTS, DIMS))
    variances = y.var(axis=0) * draw.uniform(0.5, 2, (COMPONENTS, DIMS))
    fisher = Fisher(draw.dirichlet(np.full(COMPONENTS, 20)), means, variances, 1e-6, PYRAMID)
    dimensions = sum(rows * cols for rows, cols in fisher.pyramid) * 2 * COMPONENTS * DIMS
    linear = Linear(draw.standard_normal((2, dimensions)), draw.standard_normal(2))
    layers = bins, Project(basis, mean), fisher, Normalise("intra" if request.param else "improved"), linear
    return Stack(layers, *_upward(layers, _image(), dtype=np.float64))


def _targets(shape, targets=2):
    return np.random.default_rng(3).standard_normal((targets, *shape))


def _bins_twin(stack, i, r, rule):
    pixels = np.zeros((len(r), *stack.shape))
    for scale in stack.saved[i].part.scales:
        planes = reference.orientation_planes(stack.inputs[i], scale.bin_size / 6)
        for t, of_target in enumerate(r):
            values = of_target[scale.slice].reshape(scale.rows, scale.cols, 4, 4, 8)
            pixels[t] += reference.sift_pixels(planes, scale, values)[0]
    return pixels


def _project_twin(stack, i, r, rule):
    layer, x = stack.layers[i], stack.inputs[i].values.astype(np.float64)
    treatment = rule.treatment(layer.mean)
    out = np.zeros((len(r), *x.shape))
    for t, row in np.ndindex(r.shape[:2]):
        values = x[row] - layer.mean if treatment == "centered" else x[row]
        for j, p in enumerate(layer.components):
            z = sum(p[k] * values[k] for k in range(128))
            z -= sum(p[k] * layer.mean[k] for k in range(128)) if treatment == "bias" else 0.0
            for k in range(128):
                if values[k] != 0:
                    out[t, row, k] += (
                        p[k] * values[k] / (z + (rule.epsilon_pca if z >= 0 else -rule.epsilon_pca)) * r[t, row, j]
                    )
        if rule.zero_desc == "uniform" and not values.any():
            out[t, row] = r[t, row].sum() / 128
    return out


def _fisher_twin(stack, i, r, rule):
    layer, described = stack.layers[i], stack.inputs[i]
    mixture = layer.weights, layer.means, layer.covariances
    gamma, _ = reference.posteriors(described.values, *mixture, layer.gate)
    psi = reference.psi(described.values, gamma, *mixture).reshape(-1, 2, COMPONENTS, DIMS)
    cells = described.geometry.cells(PYRAMID)
    out = np.zeros((len(r), len(described), DIMS))
    for cell in range(sum(rows * cols for rows, cols in layer.pyramid)):
        inside = (cells == cell).any(axis=1)
        total = psi[inside].sum(axis=0)
        epsilon = rule.epsilon_pool * (inside.sum() if rule.pool_scale == "mean" else 1)
        for t in range(len(r)):
            share = r[t, cell] / (total + np.where(total >= 0, epsilon, -epsilon))
            out[t, inside] += (psi[inside] * share).sum(axis=(1, 2))
    return out


def _passed_on(stack, i, r, rule):
    return r.reshape(len(r), *np.shape(stack.inputs[i]))


def _linear_twin(stack, i, r, rule):
    layer, x = stack.layers[i], stack.inputs[i]
    scores = layer.coef @ x + layer.intercept
    out = np.zeros((len(r), len(x)))
    for t, s, d in np.ndindex(*r.shape, len(x)):
        bias = {"distribute": layer.intercept[s] / len(x), "ignore": 0.0}[rule.bias]
        out[t, d] += r[t, s] / scores[s] * (layer.coef[s, d] * x[d] + bias)
    return out


FISHER_CASES = {
    SpatialBins: _bins_twin,
    Project: _project_twin,
    Fisher: _fisher_twin,
    Normalise: _passed_on,
    Linear: _linear_twin,
}
FISHER_RULES = (
    FisherRules(),
    FisherRules(epsilon_pca=1, zero_desc="uniform", clip="drop", bias="ignore"),
    FisherRules(mean="bias", pool_scale="mean", splat="tri", clip="drop"),
    FisherRules(mean="none", splat="box_sym"),
)


def _named(rule):
    return "-".join(f"{k}={v}" for k, v in rule.to_dict().items() if v != getattr(FisherRules(), k)) or "defaults"


def test_every_layer_of_a_fisher_vector_has_a_case(stack):
    classes = {value for value in vars(layers).values() if isinstance(value, type) and hasattr(value, "relevance")}
    assert classes == {*FISHER_CASES, Encode}
    assert [type(layer) for layer in stack.layers] == list(FISHER_CASES)
    assert all(isinstance(layer, Layer) for layer in stack.layers)


def _balance(r, passed):
    """What is missing of r, relative to all that there is, per target."""
    inputs, entries = passed
    there = sum(part.reshape(len(r), -1).sum(axis=1) for part in inputs)
    kept = sum((np.asarray(amount) for amount in entries.values()), np.zeros(len(r)))
    size = sum(np.abs(part).sum() for part in inputs) + np.abs(kept).sum()
    return np.abs(there + kept - r.reshape(len(r), -1).sum(axis=1)).max() / size


def _output_shape(stack, i):
    following = stack.inputs[i + 1] if i + 1 < len(stack.inputs) else stack.output
    return following.values.shape if hasattr(following, "values") else following.shape


@pytest.mark.parametrize("rule", FISHER_RULES, ids=_named)
@pytest.mark.parametrize("kind", FISHER_CASES)
def test_fisher_relevance_is_conserved_and_equals_the_twin(stack, kind, rule):
    i = stack.part(kind)
    r = _targets(_output_shape(stack, i))
    if kind is SpatialBins:
        r *= stack.inputs[1].values != 0  # relevance sits on values that are not 0
    passed = stack.layers[i].relevance(r, stack.saved[i], rule)
    assert _balance(r, passed) < 1e-9
    wanted = FISHER_CASES[kind](stack, i, r, rule)
    tolerance = 1e-5 if kind is SpatialBins else 1e-10  # SIFT's planes are float32
    np.testing.assert_allclose(passed.inputs[0], wanted, rtol=0, atol=tolerance * np.abs(wanted).max())


def test_stabilisers_take_the_sign_of_their_sum(stack):
    """Of relevance 1 at z < 0 or S < 0, abs(z) / (abs(z) + epsilon) goes on: epsilon without the sign would amplify."""
    rule = FisherRules(epsilon_pool=0.5, epsilon_pca=0.5)
    _, project, fisher = stack.layers[:3]
    x = stack.inputs[1].values - (project.mean if project.mean.any() else 0)
    z = x @ project.components.T
    for row, j in np.argwhere((z < -0.1) & (z > -0.4))[:5]:
        r = np.zeros((1, *z.shape))
        r[0, row, j] = 1
        (values,), _ = project.relevance(r, stack.saved[1], rule)
        assert values.sum() == pytest.approx(-z[row, j] / (0.5 - z[row, j]), rel=1e-9)
    sums = stack.inputs[3]
    for place in np.argwhere((sums < -0.1) & (sums > -5))[:5]:
        r = np.zeros((1, *sums.shape))
        r[0, *place] = 1
        (pca,), _ = fisher.relevance(r, stack.saved[2], rule)
        assert pca.sum() == pytest.approx(-sums[*place] / (0.5 - sums[*place]), rel=1e-9)


@pytest.mark.parametrize("rule", FISHER_RULES, ids=_named)
@pytest.mark.parametrize("kind", FISHER_CASES)
def test_fisher_flat_relevance_is_conserved_and_never_negative(stack, kind, rule):
    """It is spread by weights alone: relevance of one sign stays of that sign, and targets add up."""
    i = stack.part(kind)
    r = np.abs(_targets(_output_shape(stack, i)))
    r[1] = 2 * r[0]
    passed = stack.layers[i].flat(r, stack.saved[i], rule)
    assert _balance(r, passed) < 1e-9
    (spread,) = passed.inputs
    assert spread.min() >= -1e-12 * spread.max()
    np.testing.assert_allclose(spread[1], 2 * spread[0], rtol=1e-12, atol=1e-12 * spread.max())


@pytest.mark.parametrize(
    ("kind", "splat"), [(SpatialBins, "box"), (SpatialBins, "box_sym"), (SpatialBins, "tri"), (Project, "box")]
)
def test_fisher_flat_relevance_lies_on_the_pixels_of_the_equations(stack, kind, splat):
    i, geometry = stack.part(kind), stack.inputs[1].geometry
    r = _targets(_output_shape(stack, i), 1)
    got = stack.layers[i].flat(r, stack.saved[i], FisherRules(splat=splat)).inputs[0][0]
    size = geometry.height, geometry.width
    if kind is Project:
        wanted, _ = reference.splat_descriptor(r[0].sum(axis=1), geometry.frames, *size)
    else:
        wanted, _ = reference.splat_bins(reference.spatial_bins(r[0]), geometry.frames, *size, splat)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-12 * np.abs(wanted).max())


@pytest.mark.parametrize("rule", FISHER_RULES, ids=_named)
def test_all_fisher_depths_explain_the_same_score(stack, rule):
    """Layer by layer down to each depth; what arrives and what was kept on the way add up to the score."""
    scores = stack.output[None]
    for flats in range(len(stack.layers) + 1):
        r, kept = scores, 0.0
        for i in reversed(range(flats, len(stack.layers))):
            (r,), entries = stack.layers[i].relevance(r, stack.saved[i], rule)
            kept += sum(float(np.sum(amount)) for amount in entries.values())
        if flats:
            (r,), entries = stack.layers[flats - 1].flat(r, stack.saved[flats - 1], rule)
            kept += sum(float(np.sum(amount)) for amount in entries.values())
        assert r.sum() + kept == pytest.approx(scores.sum(), rel=1e-9)
        assert flats > 3 or r.shape == (1, *stack.shape)


@pytest.mark.parametrize("rule", FISHER_RULES, ids=_named)
def test_the_fused_layer_equals_its_parts(stack, rule):
    """Sums, relevance at every depth, and every entry: one kernel for three layers."""
    encode = Encode(*stack.layers[:3])
    (grey,), (saved,) = _upward([encode], stack.inputs[0], dtype=np.float64)
    sums, _ = encode.forward(grey, dtype=np.float64)
    np.testing.assert_allclose(sums, stack.inputs[3], rtol=0, atol=1e-12 * np.abs(sums).max())
    r = _targets(sums.shape)
    together = encode.descend(r.copy(), saved, rule, [0, 1, 2, 3])
    for flats, got in enumerate(together):
        down, kept = r, Entries()
        for i in reversed(range(flats, 3)):
            (down,), entries = stack.layers[i].relevance(down, stack.saved[i], rule)
            kept.include(entries)
        if flats:
            (down,), entries = stack.layers[flats - 1].flat(down, stack.saved[flats - 1], rule)
            kept.include(entries)
        np.testing.assert_allclose(got.inputs[0], down, rtol=0, atol=1e-11 * np.abs(down).max())
        assert got.entries.keys() == kept.keys()
        for name, amount in kept.items():
            np.testing.assert_allclose(got.entries[name], amount, rtol=0, atol=1e-11 * np.abs(r).sum(), err_msg=name)
    np.testing.assert_array_equal(encode.relevance(r, saved, rule).inputs[0], together[0].inputs[0])
    np.testing.assert_array_equal(encode.flat(r, saved, rule).inputs[0], together[3].inputs[0])
    assert isinstance(encode, Layer) and encode.parts == stack.layers[:3]


def test_relevance_between_the_parts_is_that_of_the_parts(stack):
    encode, rule = Encode(*stack.layers[:3]), FisherRules()
    _, (saved,) = _upward([encode], stack.inputs[0], dtype=np.float64)
    r = _targets(stack.inputs[3].shape)
    (pca,), _ = stack.layers[2].relevance(r, stack.saved[2], rule)
    (sift,), _ = stack.layers[1].relevance(pca, stack.saved[1], rule)
    wanted = {
        "pca": pca,
        "descriptor": pca.sum(axis=2),
        "sift": sift,
        "bin": np.array([*map(reference.spatial_bins, sift)]),
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(encode.at(name, r, saved, rule), values, rtol=0, atol=1e-11 * np.abs(values).max())
