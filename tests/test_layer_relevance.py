"""Relevance of every layer against its equation in dense-matrix form: rules, biases, signs, borders."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from twins import linear as twin
from twins import of_a_sum

from fvlrp.network import windows
from fvlrp.network.layers import (
    LRN,
    Add,
    Affine,
    AveragePool,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    Pad,
    ReLU,
    Reshape,
    Saved,
)
from fvlrp.network.rules import Choice
from fvlrp.rules import AlphaBeta, Box, Epsilon, Flat, Gamma, WSquare, ZPlus

# ---- every rule, from its equation -----------------------------------------------------------------------------------


RULES = (
    AlphaBeta(2, 1),
    AlphaBeta(1, 0),
    AlphaBeta(3.5, 2.5),
    Epsilon(0.01),
    Gamma(0.25),
    Gamma(10),
    ZPlus(),
    WSquare(),
    Flat(),
    Box(),
)


def conv(rng, weight, stride=(1, 1), pads=(0, 0, 0, 0), dilation=(1, 1), groups=1, bias=True):
    weight = rng.standard_normal(weight)
    b = rng.standard_normal(len(weight)) if bias else np.zeros(len(weight))
    return Conv(weight, b, stride, pads, dilation, groups)


LINEAR = {
    "plain": lambda rng: (conv(rng, (4, 3, 3, 2)), (3, 6, 5)),
    "pointwise": lambda rng: (conv(rng, (4, 3, 1, 1)), (3, 4, 5)),
    "strided": lambda rng: (conv(rng, (4, 2, 3, 3), stride=(2, 3), pads=(1, 0, 1, 2)), (2, 8, 9)),
    "dilated": lambda rng: (conv(rng, (3, 2, 3, 2), pads=(2, 2, 2, 2), dilation=(2, 3)), (2, 6, 7)),
    "grouped": lambda rng: (conv(rng, (6, 2, 3, 3), pads=(1, 1, 1, 1), groups=3), (6, 5, 4)),
    "depthwise": lambda rng: (conv(rng, (4, 1, 3, 3), pads=(1, 1, 1, 1), groups=4), (4, 5, 4)),
    "without bias": lambda rng: (conv(rng, (4, 3, 3, 3), pads=(1, 1, 1, 1), bias=False), (3, 5, 5)),
    "more padding than kernel": lambda rng: (conv(rng, (2, 2, 2, 2), pads=(3, 2, 3, 2)), (2, 3, 3)),
    "dense": lambda rng: (Dense(rng.standard_normal((7, 12)), rng.standard_normal(7)), (12,)),
    "dense on tokens": lambda rng: (Dense(rng.standard_normal((7, 4)), rng.standard_normal(7)), (3, 4)),
    "dense without bias": lambda rng: (Dense(rng.standard_normal((7, 4)), np.zeros(7)), (2, 3, 4)),
}


@pytest.fixture(params=LINEAR)
def linear(request):
    return LINEAR[request.param]


def through(layer, x, r, choice):
    """Relevance of the input of a layer of one, and what stays behind."""
    _, saved = layer.forward(x)
    (part,), entries = layer.relevance(r, saved, choice)
    return part, entries


def joined(layer, terms, r, choice):
    """Relevance of each of several inputs, and what stays behind."""
    _, saved = layer.forward(*terms)
    return layer.relevance(r, saved, choice)


@pytest.mark.parametrize("bias", ("absorb", "distribute", "ignore"))
@pytest.mark.parametrize("signed", (False, True), ids=("inputs >= 0", "inputs of both signs"))
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_every_rule_is_its_equation(linear, rule, signed, bias, monkeypatch):
    monkeypatch.setattr("fvlrp.network.layers.conv.BAND", 512)  # several bands
    monkeypatch.setattr("fvlrp.network.layers.dense.ROWS", 512)  # several blocks
    rng = np.random.default_rng(3)
    layer, shape = linear(rng)
    x = rng.standard_normal((1, *shape))
    if not signed:
        x = np.maximum(x, 0)
    y = layer.apply(x)
    r = rng.standard_normal((2, *y.shape[1:]))
    r[:, 1] = 0  # a channel without relevance
    box = (np.full_like(x, -4.0), np.full_like(x, 5.0)) if isinstance(rule, Box) else None
    got, entries = through(layer, x, r, Choice(rule, bias, box=box))
    want = [twin(layer, x, one, rule, bias, box) for one in r]
    np.testing.assert_allclose(got.reshape(2, -1), want, rtol=1e-10, atol=1e-10 * np.abs(want).max())
    np.testing.assert_allclose(
        r.reshape(2, -1).sum(axis=1) - sum(entries.values()),
        got.reshape(2, -1).sum(axis=1),
        rtol=1e-9,
        atol=1e-9 * np.abs(want).sum(),
    )


@pytest.mark.parametrize("rule", (WSquare(), Flat()), ids=repr)
def test_flat_and_w_square_conserve_through_padding(linear, rule):
    rng = np.random.default_rng(5)
    layer, shape = linear(rng)
    x = rng.standard_normal((1, *shape))
    r = rng.standard_normal(layer.apply(x).shape)
    sees = replace(layer, weight=np.ones_like(layer.weight), bias=np.zeros_like(layer.bias)).apply(np.ones_like(x))
    r *= sees > 0  # nothing where a window covers padding alone
    got, entries = through(layer, x, r, Choice(rule))
    np.testing.assert_allclose(got.sum(), r.sum(), rtol=1e-12)
    assert not any(np.any(amount) for amount in entries.values())


def test_windows_that_see_padding_alone_keep_their_relevance_in_the_ledger():
    layer = conv(np.random.default_rng(1), (2, 2, 2, 2), pads=(3, 2, 3, 2), bias=False)
    x = np.ones((1, 2, 3, 3))
    r = np.ones(layer.apply(x).shape)
    for rule in (Flat(), WSquare(), AlphaBeta(), Epsilon(0)):
        got, entries = through(layer, x, r, Choice(rule))
        assert np.isfinite(got).all()
        np.testing.assert_allclose(got.sum() + sum(entries.values()), r.sum())
        assert entries["zero_sum"] != 0


def test_two_inputs_of_opposite_weight_by_hand():
    """x = (1, 1), w = (3, -1): z+ = 3, z- = -1, so alpha-beta gives (2, -1) R and epsilon (3, -1) / 2 R."""
    layer, x, r = Dense(np.array([[3.0, -1.0]]), np.zeros(1)), np.ones((1, 2)), np.array([[10.0]])
    np.testing.assert_allclose(through(layer, x, r, Choice(AlphaBeta(2, 1)))[0], [[20, -10]])
    np.testing.assert_allclose(through(layer, x, r, Choice(Epsilon(0)))[0], [[15, -5]])
    np.testing.assert_allclose(through(layer, x, r, Choice(ZPlus()))[0], [[10, 0]])
    np.testing.assert_allclose(through(layer, x, r, Choice(WSquare()))[0], [[9, 1]])
    np.testing.assert_allclose(through(layer, x, r, Choice(Gamma(1)))[0], [[12, -2]])


def test_a_bias_absorbs_its_share_and_the_ledger_names_it():
    layer, x, r = Dense(np.array([[1.0, -1.0]]), np.array([1.0])), np.ones((1, 2)), np.array([[8.0]])
    got, entries = through(layer, x, r, Choice(AlphaBeta(2, 1)))
    np.testing.assert_allclose(got, [[8, -8]])
    np.testing.assert_allclose(entries["bias"], 8)
    got, entries = through(layer, x, r, Choice(AlphaBeta(2, 1), "distribute"))
    np.testing.assert_allclose(got, [[12, -4]])
    assert "bias" not in entries


def test_relevance_without_inputs_of_its_sign_is_in_the_ledger():
    layer, x, r = Dense(np.array([[1.0, 2.0]]), np.zeros(1)), np.ones((1, 2)), np.array([[3.0]])
    got, entries = through(layer, x, r, Choice(AlphaBeta(2, 1)))
    np.testing.assert_allclose(got, [[2, 4]])
    np.testing.assert_allclose(entries["zero_sum"], -3)


@pytest.mark.parametrize("sign", (1, -1))
@pytest.mark.parametrize("few", (False, True), ids=("all outputs", "one output"))
def test_float32_resolves_a_sign_that_is_almost_missing(sign, few):
    """z- = z - z+ would be rounding: one weight is 1e-7 of the others."""
    rng = np.random.default_rng(2)
    weight = np.abs(rng.standard_normal((64, 50))).astype(np.float32)
    if few:
        weight[1:] *= rng.choice([-1, 1], weight[1:].shape)
    weight[:, 0] = -1e-7
    weight[0] = np.abs(weight[0])
    weight[0, 0] *= -1
    layer = Dense(sign * weight, np.zeros(64, np.float32))
    x, r = rng.uniform(1, 2, (1, 50)).astype(np.float32), np.ones((1, 64), np.float32)
    got, _ = through(layer, x, r, Choice(AlphaBeta(2, 1)))
    exact = Dense(layer.weight.astype(float), np.zeros(64))
    np.testing.assert_allclose(got, twin(exact, x.astype(float), r, AlphaBeta(2, 1))[None], rtol=1e-4, atol=1e-4)


def test_caffe_flat_multiplies_by_the_channels():
    layer = conv(np.random.default_rng(0), (4, 3, 3, 3))
    x, r = np.ones((1, 3, 8, 8)), np.ones((1, 4, 6, 6))
    got, entries = through(layer, x, r, Choice(Flat(), flat="caffe"))
    np.testing.assert_allclose(got.sum(), 3 * r.sum())
    np.testing.assert_allclose(entries["flat"], -2 * r.sum())


@pytest.mark.parametrize("groups", (1, 2))
@pytest.mark.parametrize("stride", ((1, 1), (2, 2), (2, 3)))
def test_level_weights_scale_windows_and_inputs_in_turn(stride, groups):
    """The twin knows windows in two dimensions; the package, along each axis."""
    rng = np.random.default_rng(6)
    options = {"kernel": (3, 3), "stride": stride, "pads": (1, 1, 0, 1)}
    pool, x = MaxPool(**options), rng.uniform(0, 1, (1, 4, 11, 10))
    layer = Conv(rng.standard_normal((4, 4 // groups, 3, 3)), np.zeros(4), stride, options["pads"], groups=groups)
    r = rng.standard_normal((2, 4, *pool.apply(x).shape[2:]))
    weights = np.zeros((*r.shape[2:], *x.shape[2:]))
    for (oy, ox), inputs in windows_of(pool, x):
        for py, px in inputs:
            weights[oy, ox, py, px] = 1
    seen = weights.any(axis=(0, 1))
    for _ in range(windows.BALANCING):
        weights = weights / np.where(seen, weights.sum(axis=(0, 1)), 1)
        weights = weights / weights.sum(axis=(2, 3), keepdims=True)
    want = np.einsum("tcyx,yxhw->tchw", r, weights)
    (got,), entries = pool.flat(r, pool.forward(x)[1], Choice(AlphaBeta(), pool="flat", flat="level"))
    np.testing.assert_allclose(got, want, atol=1e-12)
    np.testing.assert_allclose(got.sum(), r.sum())
    assert not entries
    (got,), entries = layer.flat(r, layer.forward(x)[1], Choice(AlphaBeta(), flat="level"))
    of_group = want.reshape(2, groups, -1, *x.shape[2:]).mean(axis=2)
    np.testing.assert_allclose(got, np.repeat(of_group, 4 // groups, axis=1), atol=1e-12)
    assert not any(np.any(value) for value in entries.values())


@pytest.mark.parametrize(
    ("options", "border"), [({}, 1.1), ({"pads": (1, 1, 1, 1)}, 1.2), ({"pads": (0, 0, 1, 1)}, 1.2)], ids=str
)
def test_level_weights_leave_equal_relevance_equal(options, border):
    """Windows of 3 at a stride of 2 see every other pixel twice; plain flat weights draw that as a mesh."""
    layer, x = conv(np.random.default_rng(0), (1, 1, 3, 3), stride=(2, 2), **options), np.ones((1, 1, 64, 64))
    r = np.ones((1, 1, *layer.apply(x).shape[2:]))
    seen = np.s_[..., :63, :63] if not options else np.s_[...]  # without padding the last pixel is in no window
    level, mesh = (through(layer, x, r, Choice(Flat(), flat=flat))[0][seen] for flat in ("level", "conserving"))
    inner = np.s_[..., 16:-16, 16:-16]
    assert level[inner].max() < 1.02 * level[inner].min() and mesh[inner].max() > 3 * mesh[inner].min()
    assert level.max() < border * np.median(level)
    np.testing.assert_allclose(level.sum(), r.sum())


def test_flat_at_conv1_is_alpha_beta_averaged_over_the_window():
    """The paper: "averaging lower layer relevances for each convolution operator"; exact without bias."""
    rng = np.random.default_rng(12)
    layer = conv(rng, (3, 2, 3, 3), bias=False)
    x, r = rng.uniform(0.1, 1, (1, 2, 7, 6)), rng.standard_normal((1, 3, 5, 4))
    want = np.zeros_like(x)
    for co, oy, ox in product(range(3), range(5), range(4)):
        one = np.zeros_like(r)
        one[0, co, oy, ox] = r[0, co, oy, ox]
        message = twin(layer, x, one, AlphaBeta(2, 1)).reshape(x.shape)
        window = np.s_[0, :, oy : oy + 3, ox : ox + 3]
        want[window] += message[window].mean()
    got, _ = through(layer, x, r, Choice(Flat()))
    np.testing.assert_allclose(got, want, atol=1e-12)


# ---- layers without weights ------------------------------------------------------------------------------------------


def windows_of(layer, x):
    """(output position, input positions inside the image) of a pool."""
    height, width = x.shape[2:]
    y = layer.apply(x)
    dilation = getattr(layer, "dilation", (1, 1))
    for oy, ox in product(*map(range, y.shape[2:])):
        at = [
            (
                oy * layer.stride[0] - layer.pads[0] + ky * dilation[0],
                ox * layer.stride[1] - layer.pads[1] + kx * dilation[1],
            )
            for ky, kx in product(*map(range, layer.kernel))
        ]
        yield (oy, ox), [(py, px) for py, px in at if 0 <= py < height and 0 <= px < width]


POOLS = {
    "tiling": {"kernel": (2, 2), "stride": (2, 2)},
    "overlapping": {"kernel": (3, 3), "stride": (2, 2)},
    "padded": {"kernel": (3, 2), "stride": (1, 2), "pads": (1, 1, 1, 1)},
    "ceil": {"kernel": (3, 3), "stride": (2, 2), "ceil_mode": True},
}


@pytest.mark.parametrize("kind", [*POOLS, "dilated"])
@pytest.mark.parametrize("pool", ("winner", "flat"))
def test_max_pool_gives_all_to_the_first_winner_or_evenly(kind, pool):
    rng = np.random.default_rng(4)
    options = POOLS.get(kind) or {"kernel": (2, 2), "stride": (2, 1), "dilation": (2, 2)}
    layer = MaxPool(**options)
    x = rng.integers(0, 3, (1, 2, 8, 8)).astype(float)  # many ties
    r = rng.standard_normal((2, *layer.apply(x).shape[1:]))
    want = np.zeros((2, *x.shape[1:]))
    for (oy, ox), inputs in windows_of(layer, x):
        for c in range(2):
            if pool == "winner":
                values = [x[0, c, py, px] for py, px in inputs]
                inputs_c, share = [inputs[values.index(max(values))]], r[:, c, oy, ox]
            else:
                inputs_c, share = inputs, r[:, c, oy, ox] / len(inputs)
            for py, px in inputs_c:
                want[:, c, py, px] += share
    _, saved = layer.forward(x)
    (got,), entries = layer.flat(r, saved, Choice(AlphaBeta(), pool=pool))
    np.testing.assert_allclose(got, want, atol=1e-12)
    above, _ = through(layer, x, r, Choice(Flat() if pool == "flat" else AlphaBeta()))
    np.testing.assert_array_equal(above, got)
    np.testing.assert_allclose(got.sum(), r.sum())
    assert not entries


def test_a_score_near_zero_is_conserved_in_float32():
    """The sum of 4096 terms is 1e-5 of their sizes, so that float32 sums have few digits left."""
    rng = np.random.default_rng(0)
    x, weight = rng.random((1, 4096)).astype(np.float32), rng.standard_normal((3, 4096)).astype(np.float32)
    weight -= ((weight.astype(float) @ x[0]) / np.square(x, dtype=float).sum())[:, None] * x
    weight[:, 0] += 1e-5 * np.abs(weight * x).sum(axis=1) / x[0, 0]
    got, entries = through(Dense(weight, np.zeros(3, np.float32)), x, np.float32([[0, 1, 0]]), Choice(Epsilon(0)))
    assert abs(got.sum(dtype=float) - 1) < 3e-4 and not entries["zero_sum"]


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("rule", RULES[:-1], ids=repr)
@pytest.mark.parametrize("count_include_pad", (False, True))
def test_averages_follow_the_rule_as_sums(kind, rule, count_include_pad):
    rng = np.random.default_rng(6)
    layer = AveragePool(**POOLS[kind], count_include_pad=count_include_pad)
    x = rng.uniform(-0.2, 1, (1, 3, 8, 8))
    x[0, 0], x[0, 1] = 0, np.abs(x[0, 1])  # a channel with nothing to share by, one of one sign
    y, counts = layer.apply(x), layer.counts(8, 8)
    r = rng.standard_normal((2, *y.shape[1:]))
    want = np.zeros((2, *x.shape[1:]))
    for (oy, ox), inputs in windows_of(layer, x):
        for t, c in product(range(2), range(3)):
            terms = np.array([x[0, c, py, px] for py, px in inputs]) / counts[oy, ox]
            for (py, px), part in zip(inputs, of_a_sum(terms, r[t, c, oy, ox], rule), strict=True):
                want[t, c, py, px] += part
    got, entries = through(layer, x, r, Choice(rule))
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-12)
    kept = sum(np.sum(amount) for amount in entries.values())
    np.testing.assert_allclose(got.sum() + kept, r.sum())
    assert isinstance(rule, Epsilon) or not kept


@pytest.mark.parametrize("layer", (AveragePool((2, 2), (2, 2)), GlobalAveragePool()), ids=repr)
def test_average_pools_below_the_depth_follow_the_pool_option(layer):
    rng = np.random.default_rng(6)
    x, rule = rng.standard_normal((1, 2, 4, 4)), Gamma(0.5)
    y, saved = layer.forward(x)
    r = rng.standard_normal(y.shape)
    above, below = layer.relevance(r, saved, Choice(rule)), layer.flat(r, saved, Choice(rule))
    np.testing.assert_array_equal(above.inputs[0], below.inputs[0])
    even = layer.relevance(r, saved, Choice(Flat())).inputs[0]
    np.testing.assert_array_equal(layer.flat(r, saved, Choice(rule, pool="flat")).inputs[0], even)
    assert np.ptp(even.reshape(2, 2, 2, 2, 2)[0, :, 0, 0]) > 0 or layer.counts(4, 4).size == 1


@pytest.mark.parametrize("layer", (AveragePool((4, 4), (4, 4)), GlobalAveragePool()), ids=repr)
def test_float32_average_pools_resolve_an_almost_missing_sign(layer):
    x = np.random.default_rng(0).uniform(1, 2, (1, 50, 4, 4)).astype(np.float32)
    x[:, :, 0, 0] = -1e-6
    r = np.ones(layer.apply(x).shape, np.float32)
    got, _ = through(layer, x, r, Choice(AlphaBeta(2, 1)))
    np.testing.assert_allclose(got[:, :, 0, 0], -1, rtol=1e-5)


def test_global_average_pool_shares_by_value():
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    r = np.array([1.0, 2.0]).reshape(1, 2, 1, 1)
    got, _ = through(GlobalAveragePool(), x, r, Choice(AlphaBeta()))
    np.testing.assert_allclose(got, x / x.sum(axis=(2, 3), keepdims=True) * r)


@pytest.mark.parametrize(
    "layer", (ReLU(), LeakyReLU(0.1), Clip(0, 6), LRN(5), Flatten(1), Reshape((4, 6))), ids=lambda layer: repr(layer)
)
def test_elementwise_layers_and_shapes_pass_relevance_on(layer):
    x = np.random.default_rng(0).standard_normal((1, 2, 3, 4))
    r = np.random.default_rng(1).standard_normal((3, *layer.apply(x).shape[1:]))
    got, entries = through(layer, x, r, Choice(AlphaBeta()))
    np.testing.assert_array_equal(got, r.reshape(3, 2, 3, 4))
    assert not entries


def test_the_ledger_has_the_relevance_of_a_padded_border():
    layer, x = Pad((1, 0, 0, 2), 3.0), np.ones((1, 1, 2, 2))
    r = np.arange(12.0).reshape(1, 1, 3, 4)
    got, entries = through(layer, x, r, Choice(AlphaBeta()))
    np.testing.assert_array_equal(got, [[[[4, 5], [8, 9]]]])
    assert entries["padding"] == r.sum() - 26


def test_concat_passes_each_input_its_slice_of_relevance():
    parts = [np.ones((1, c, 2, 2)) for c in (1, 3, 2)]
    r = np.random.default_rng(0).standard_normal((2, 6, 2, 2))
    got, _ = joined(Concat(1), parts, r, Choice(AlphaBeta()))
    np.testing.assert_array_equal(np.concatenate(got, 1), r)
    assert [part.shape[1] for part in got] == [1, 3, 2]


@pytest.mark.parametrize("rule", (AlphaBeta(2, 1), ZPlus(), Gamma(0.5), Flat(), WSquare(), Epsilon(0)), ids=repr)
def test_a_sum_conserves_relevance_for_terms_of_any_sign(rule):
    rng = np.random.default_rng(0)
    terms = [rng.standard_normal((1, 3, 4, 5)) for _ in range(3)]
    terms[0][:, 0], terms[1][:, 0], terms[2][:, 0] = 1, 2, 3
    terms[0][:, 1] = terms[1][:, 1] = terms[2][:, 1] = -1
    r = rng.standard_normal((2, 3, 4, 5))
    got, entries = joined(Add(), terms, r, Choice(rule))
    np.testing.assert_allclose(sum(got), r, atol=1e-9)
    assert not any(np.any(amount) for amount in entries.values())
    if not isinstance(rule, Flat | WSquare):
        np.testing.assert_allclose(got[1][:, 0], r[:, 0] / 3)


def test_a_sum_of_both_signs_follows_alpha_beta():
    terms = [np.full((1, 1, 1, 1), v) for v in (3.0, 1.0, -2.0)]
    r = np.full((1, 1, 1, 1), 4.0)
    got, _ = joined(Add(), terms, r, Choice(AlphaBeta(2, 1)))
    np.testing.assert_allclose([part.item() for part in got], [6, 2, -4])


def test_zeros_that_are_summed_share_evenly():
    terms, r = [np.zeros((1, 1, 1, 1))] * 2, np.ones((1, 1, 1, 1))
    got, _ = joined(Add(), terms, r, Choice(AlphaBeta()))
    assert [part.item() for part in got] == [0.5, 0.5]


@pytest.mark.parametrize("bias", ("absorb", "distribute", "ignore"))
@pytest.mark.parametrize("rule", (AlphaBeta(2, 1), Epsilon(0.1), Gamma(0.5), Flat()), ids=repr)
def test_an_affine_layer_is_a_pointwise_depthwise_one(rule, bias):
    rng = np.random.default_rng(8)
    layer = Affine(rng.standard_normal(3), rng.standard_normal(3))
    x, r = rng.standard_normal((1, 3, 4, 4)), rng.standard_normal((2, 3, 4, 4))
    got, entries = through(layer, x, r, Choice(rule, bias))
    lost = sum((np.broadcast_to(v, 2) for v in entries.values()), np.zeros(2))
    np.testing.assert_allclose(got.sum(axis=(1, 2, 3)) + lost, r.sum(axis=(1, 2, 3)), rtol=1e-9, atol=1e-9)
    if isinstance(rule, Epsilon) and bias == "absorb":
        part, total = x * layer.scale[:, None, None], layer.apply(x)
        np.testing.assert_allclose(got, r * part / (total + np.where(total >= 0, 0.1, -0.1)))


# ---- quick products --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", (AlphaBeta(2, 1), AlphaBeta(1, 0), ZPlus(), Gamma(0.25)), ids=repr)
@pytest.mark.parametrize("signed", (False, True), ids=("inputs >= 0", "inputs of both signs"))
def test_dark_pixels_next_to_bright_ones_keep_their_shares_in_float32(rule, signed, monkeypatch):
    """Winograd's transforms cancel the bright pixels of a tile: what is left of the dark ones must be summed anew."""
    rng = np.random.default_rng(4)
    x = rng.random((1, 16, 24, 24)) + 0.1
    if signed:
        x *= rng.choice([-1, 1], x.shape)
    x[:, :, :10] *= 1e7
    layer = conv(rng, (16, 16, 3, 3), pads=(1, 1, 1, 1))
    assert layer.quick(24 * 24, np.dtype(np.float32)) and not layer.quick(24 * 24, np.dtype(np.float64))
    y = layer.apply(x)
    r = np.maximum(y, 0)
    want, _ = through(layer, x, r, Choice(rule))

    def error() -> float:
        saved = Saved((x.astype(np.float32),), y.astype(np.float32))
        got, entries = layer.relevance(r.astype(np.float32), saved, choice)
        assert all(np.isfinite(amount).all() for amount in entries.values())
        return np.abs(got[0] - want)[:, :, 12:].max() / np.abs(want[:, :, 12:]).max()

    choice = Choice(rule)
    assert error() < 1e-3
    monkeypatch.setattr("fvlrp.network.layers.contributions.TRUSTED", 1e-30)
    assert error() > 2e-3


@pytest.mark.parametrize("beta", (0.0, 1.0))
@pytest.mark.parametrize("stride", (1, 2))
def test_pixels_of_both_signs_conserve_relevance(beta, stride):
    """z+ is a thousandth of -z-: shares of it are large, and what they meet of z- must vanish, not nearly so."""
    rng = np.random.default_rng(0)
    signs = np.array([1, -1, 1], np.float32)[:, None, None]
    x = rng.uniform(0.5, 1, (1, 3, 24, 25)).astype(np.float32) * signs
    weight = -signs * rng.uniform(0.5, 1, (8, 3, 3, 3))
    weight[:, 1, 1, 1] *= -0.02
    layer = Conv(weight.astype(np.float32), np.zeros(8, np.float32), (stride, stride), (1, 1, 1, 1))
    y = layer.apply(x)
    r = rng.uniform(0, 1, y.shape).astype(np.float32)
    choice = Choice(AlphaBeta(1 + beta, beta))
    fast, entries = through(layer, x, r, choice)
    slow, _ = through(layer, x.astype(np.float64), r.astype(np.float64), choice)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-6 * np.abs(slow).max())
    arrived = fast.sum(dtype=np.float64) + sum(np.sum(amount) for amount in entries.values())
    assert abs(arrived - r.sum(dtype=np.float64)) <= 1e-7 * np.abs(fast).sum(dtype=np.float64)


def test_relevance_in_any_memory_order_is_the_same(rng):
    """What comes through a transposition, as in token-mixing networks, is not in C order."""
    layer = Conv(rng.standard_normal((5, 3, 1, 1)).astype(np.float32), np.zeros(5, np.float32))
    x = rng.random((1, 3, 6, 4)).astype(np.float32)
    _, saved = layer.forward(x)
    r = rng.standard_normal((2, 5, 4, 6)).astype(np.float32).swapaxes(2, 3)
    for rule in (AlphaBeta(), Epsilon(), Gamma()):
        turned, plain = (layer.relevance(one, saved, Choice(rule)) for one in (r, r.copy()))
        np.testing.assert_array_equal(turned.inputs[0], plain.inputs[0])
