"""Networks as classifiers: photographs in, scores out, files, and the last layer retrained."""

import copy
import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fvlrp
from fvlrp import Contrast, ConvNet, Network, Preprocess
from fvlrp.network.graph import KINDS, Node
from fvlrp.network.layers import (
    LRN,
    Add,
    Affine,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Pad,
    ReLU,
)
from fvlrp.rules import Epsilon, NetworkRules
from fvlrp.runtime.threads import blas_threads

needs_data = pytest.mark.skipif(not os.environ.get("FVLRP_DATA"), reason="set FVLRP_DATA to the folder with cnn/*.onnx")


def node(name, layer, *inputs):
    return Node.of(name, layer, inputs)


@pytest.fixture
def net():
    """A network with every way of putting layers together, for photographs of 24 x 20."""
    random = np.random.default_rng(0)

    def conv(n_in, n_out, kernel, **options):
        weight = random.normal(size=(n_out, n_in, kernel, kernel)).astype(np.float32)
        return Conv(weight / np.float32(n_in * kernel), random.normal(size=n_out).astype(np.float32), **options)

    scale = random.uniform(0.5, 2, 8).astype(np.float32)
    nodes = [
        node("pad", Pad((1, 0, 1, 0)), -1),
        node("conv1", conv(3, 8, 3, stride=(2, 2)), 0),
        node("relu1", ReLU(), 1),
        node("norm", LRN(5), 2),
        node("pool", MaxPool((3, 3), (2, 2), (0, 0, 0, 0), True), 3),
        node("bn", Affine(scale, scale - 1), 4),
        node("left", conv(8, 8, 1), 5),
        node("clip", Clip(0, 6), 6),
        node("right", conv(8, 8, 3, pads=(1, 1, 1, 1)), 5),
        node("sum", Add(), 7, 8),
        node("both", Concat(1), 9, 5),
        node("scores_map", conv(16, 4, 1), 10),
        node("relu2", ReLU(), 11),
        node("gap", GlobalAveragePool(), 12),
        node("flat", Flatten(), 13),
    ]
    return ConvNet(nodes, (3, 24, 20), ["a", "b", "c", "d"])


@pytest.fixture
def photographs():
    """Stripes that run down (class 1), or across, of random widths, phases and brightness; and which they are."""
    random, images, labels = np.random.default_rng(0), [], []
    for i in range(24):
        wave = np.sin(np.arange(40) * random.uniform(0.9, 1.1) + random.uniform(0, 6)) > 0
        image = np.broadcast_to(wave[:, None] if i % 2 else wave, (40, 40)) * random.uniform(0.5, 1)
        images.append((image * 255).astype(np.uint8))
        labels.append(i % 2)
    return images, np.array(labels)


# ---- applying --------------------------------------------------------------------------------------------------------


def test_forward_is_the_last_activation_and_keeps_its_input(net):
    x = np.random.default_rng(1).random((3, 3, 24, 20))
    kept = x.copy()
    scores = net.forward(x)
    assert scores.shape == (3, 4) and scores.dtype == np.float64
    activations = net.activations(x)
    np.testing.assert_allclose(scores, activations[-1], rtol=1e-13)
    np.testing.assert_array_equal(x, kept)
    assert [a.shape[1:] for a in activations] == net.shapes
    np.testing.assert_allclose(net.forward(x.astype(np.float32)), scores, rtol=1e-4)
    assert net.forward(x.astype(np.float32)).dtype == np.float32


def test_a_batch_that_is_not_scaled_as_photographs_are_is_warned_of_once(net):
    net = copy.copy(net)
    photographs = np.random.default_rng(1).integers(0, 256, (2, 3, 24, 20), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.forward(photographs / 255)
        net.forward(np.random.default_rng(1).normal(size=(2, 3, 24, 20)))
    with pytest.warns(
        UserWarning, match=r"x holds values in 0\.\.255; photographs are prepared to 0\.\.1: check"
    ) as caught:
        net.forward(photographs)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net.forward(photographs)
    centred = Network(net.nodes, net.input_shape, preprocess=Preprocess((24, 20), mean=0.45, std=0.225))
    assert centred.preprocess.span() == pytest.approx((-2, 0.55 / 0.225))
    with pytest.warns(UserWarning, match=r"prepared to -2\.\.2\.44"):
        centred.forward(photographs)


def test_a_convolution_with_two_readers_is_not_overwritten_by_its_activation(net):
    """A convolution read by others, too, must not be overwritten by the activation behind it."""
    layers = [*net.nodes[:2], node("r", ReLU(), 1), node("s", Add(), 1, 2)]
    layers += [node("g", GlobalAveragePool(), 3), node("f", Flatten(), 4)]
    both = ConvNet(layers, (3, 24, 20))
    x = np.random.default_rng(1).random((1, 3, 24, 20))
    conv = both.activations(x)[1]
    np.testing.assert_allclose(both.forward(x), (conv + np.maximum(conv, 0)).mean(axis=(2, 3)), rtol=1e-12)


def test_a_batch_of_the_wrong_shape_is_refused(net):
    with pytest.raises(ValueError, match=r"x has shape \(3, 24, 20\); expected \(n, 3, 24, 20\)"):
        net.forward(np.zeros((3, 24, 20), np.float32))


@pytest.mark.parametrize("call", ["forward", "activations"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:0], r"x has shape \(0, 3, 24, 20\); expected \(n, 3, .*n at least 1: net.prepare"),
        (lambda x: np.where(x == x.max(), np.nan, x), r"x holds nan at \(1, 2, 23, 19\); expected finite numbers"),
        (lambda x: np.where(x == x.max(), -np.inf, x), r"x holds -inf at \(1, 2, 23, 19\); expected finite"),
        (lambda x: x.astype(complex), "x has dtype complex128; expected float32 or float64"),
        (lambda x: x.astype(str), "x has dtype <U.*; expected float32 or float64: net.prepare"),
        (lambda x: x.astype(object), "x has dtype object; expected float32 or float64"),
    ],
)
def test_batches_that_no_network_can_read_are_refused(net, call, change, message):
    x = np.arange(2 * 3 * 24 * 20, dtype=np.float32).reshape(2, 3, 24, 20)
    with pytest.raises(ValueError, match=message):
        getattr(net, call)(change(x))


def test_classes_come_from_the_scores(net, photographs):
    images = photographs[0][:5]
    scores = net.decision_function(images)
    assert scores.shape == (5, 4) and scores.dtype == np.float64
    np.testing.assert_array_equal(net.predict(images), np.array(list("abcd"))[scores.argmax(axis=1)])
    np.testing.assert_allclose(net.scores(images[2]), scores[2], rtol=1e-6)
    assert net.score(images, net.predict(images)) == 1
    assert 0 <= net.score(images, ["a"] * 5) <= 1
    with pytest.raises(ValueError, match="sequence of images"):
        net.predict(images[0])


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (np.full((9, 9), np.nan), ValueError, r"images\[1\]: .*NaN"),
        (None, TypeError, r"images\[1\]: image must be a path.*NoneType"),
    ],
)
def test_a_refused_image_is_named(net, bad, error, words):
    with pytest.raises(error, match=words):
        net.decision_function([np.zeros((9, 9, 3), np.uint8), bad])


def test_a_trace_keeps_the_photograph_that_it_explains(net):
    image = np.zeros((9, 9, 3), np.uint8)
    trace = net.trace(image)
    image[:] = 255
    assert not trace.image.any()


@pytest.mark.parametrize("dtype", [None, "float16", "real"])
def test_a_trace_computes_in_float32_or_float64(net, dtype):
    with pytest.raises(ValueError, match=r"dtype must be 'float32' \(fast\) or 'float64' \(exact\)"):
        net.trace(np.zeros((9, 9, 3), np.uint8), dtype=dtype)


def test_threads_do_not_change_results_or_the_blas_limit(net, photographs):
    from threadpoolctl import threadpool_info

    before = [(lib["filepath"], lib["num_threads"]) for lib in threadpool_info()]
    one = net.set_params(n_jobs=1).decision_function(photographs[0])
    two = net.set_params(n_jobs=2).decision_function(photographs[0])
    np.testing.assert_array_equal(one, two)
    with blas_threads(1):
        inside = [lib["num_threads"] for lib in threadpool_info() if "numpy" in lib["filepath"]]
    assert not inside or set(inside) == {1}
    assert [(lib["filepath"], lib["num_threads"]) for lib in threadpool_info()] == before
    assert net.get_params() == {"n_jobs": 2, "verbose": False}
    with pytest.raises(ValueError, match="'n_jobs', 'verbose'"):
        net.set_params(C=1)


def test_errors_for_mismatched_arguments_name_them(net):
    with pytest.raises(ValueError, match="4 outputs, got 3"):
        ConvNet(net.nodes, (3, 24, 20), ["a", "b", "c"])
    with pytest.raises(ValueError, match="layer 'conv1' does not fit"):
        ConvNet(net.nodes, (1, 24, 20))
    with pytest.raises(ValueError, match="one score per class"):
        ConvNet(net.nodes[:-1], (3, 24, 20))
    with pytest.raises(ValueError, match=r"layer 'conv1' does not fit its inputs: .*at least 1"):
        ConvNet([net.nodes[0], node("conv1", replace(net.nodes[1].layer, stride=(0, 1)), 0)], (3, 24, 20))
    for name in ("pad", "input", None):
        with pytest.raises(ValueError, match=f"layers must have distinct names, .* got {name!r}"):
            ConvNet([net.nodes[0], replace(net.nodes[1], name=name)], (3, 24, 20))
    with pytest.raises(ValueError, match="layer 'relu1' must come after"):
        ConvNet([net.nodes[0], net.nodes[2]], (3, 24, 20))
    with pytest.raises(ValueError, match=r"preprocess makes \(224, 224\)"):
        ConvNet(net.nodes, (3, 24, 20), preprocess=Preprocess())
    with pytest.raises(ValueError, match="makes 1 channels"):
        ConvNet(net.nodes, (3, 24, 20), preprocess=Preprocess((24, 20), order="grey"))


def test_a_class_name_that_two_outputs_share_is_refused_with_their_indices(net):
    twice = ConvNet(net.nodes, (3, 24, 20), ["kite", "crane", "hen", "crane"])
    image = np.zeros((24, 20, 3), np.uint8)
    with pytest.raises(ValueError, match=r"target 'crane' names 2 classes; their indices are \[1, 3\]"):
        twice.explain(image, "crane")
    assert twice.explain(image, 3).score == twice.trace(image).scores[3]


@pytest.fixture
def one_score():
    """A network of one score, for photographs of 24 x 20."""
    weight = np.random.default_rng(0).normal(size=(1, 3, 3, 3)).astype(np.float32)
    conv = Conv(weight, np.full(1, -weight.sum() * 0.4, np.float32))  # 0 for a dark grey: either sign for stripes
    return [node("conv", conv, -1), node("mean", GlobalAveragePool(), 0), node("flat", Flatten(), 1)]


def test_one_score_means_two_classes(one_score, photographs):
    net, images = Network(one_score, (3, 24, 20), ["cat", "dog"]), photographs[0][:6]
    f = np.concatenate([net.forward(net.prepare(image)) for image in images])[:, 0]
    np.testing.assert_allclose(net.decision_function(images), f)
    assert set(np.sign(f)) == {1, -1}
    np.testing.assert_array_equal(net.predict(images), np.where(f > 0, "dog", "cat"))
    for image, score in zip(images, f, strict=True):
        cat, dog = net.explain(image, ["cat", "dog"], dtype="float64")
        assert dog.score == pytest.approx(score, rel=1e-4) and cat.score == -dog.score and dog.ledger.closes()
        np.testing.assert_allclose(cat.heatmap, -dog.heatmap)
        assert net.explain(image).target == ("dog" if score > 0 else "cat")
        contrast = net.explain(image, Contrast("dog", "cat"), dtype="float64")
        assert contrast.score == pytest.approx(2 * dog.score)
        np.testing.assert_allclose(contrast.heatmap, 2 * dog.heatmap)
    with pytest.raises(ValueError, match="two names for a network with one output, the second is the class"):
        Network(one_score, (3, 24, 20), ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"stands for; got 1: \['cat'\]$"):
        Network(one_score, (3, 24, 20), ["cat"])


def test_one_score_of_several_labels_is_one_class(one_score, photographs):
    net = Network(one_score, (3, 24, 20), ["dog"], multilabel=True)
    assert net.decision_function(photographs[0][:3]).shape == (3, 1) == net.predict(photographs[0][:3]).shape
    assert net.explain(photographs[0][0]).target == "dog"


def test_probabilities_are_the_softmax_or_the_sigmoid_of_the_scores(net, one_score, photographs):
    from scipy.special import expit, softmax

    images = photographs[0][:3]
    outputs = np.concatenate([net.forward(net.prepare(image)) for image in images]).astype(np.float64)
    np.testing.assert_allclose(net.predict_proba(images), softmax(outputs, axis=1), rtol=1e-6)
    several = Network(net.nodes, net.input_shape, preprocess=net.preprocess, multilabel=True)
    np.testing.assert_allclose(several.predict_proba(images), expit(outputs), rtol=1e-6)
    single = Network(one_score, (3, 24, 20), ["cat", "dog"])
    f = single.decision_function(images)
    np.testing.assert_allclose(single.predict_proba(images), np.stack([expit(-f), expit(f)], axis=1), rtol=1e-6)


def test_a_contrast_is_the_difference_of_two_explanations(net, photographs):
    image = photographs[0][0]
    a, b, contrast = net.explain(image, ["a", "b", Contrast("a", "b")], rules="epsilon", dtype="float64")
    assert contrast.score == pytest.approx(a.score - b.score)
    np.testing.assert_allclose(contrast.heatmap, a.heatmap - b.heatmap, atol=1e-12 * np.abs(a.heatmap).max())


def test_the_rules_of_a_loaded_explanation_can_be_used_again(net, photographs, tmp_path):
    rules = NetworkRules.of({"conv": "gamma:0.1", "first": "box"})
    net.explain(photographs[0][0], "a", rules=rules).save(tmp_path / "ex.npz")
    loaded = fvlrp.Explanation.load(tmp_path / "ex.npz")
    again = net.explain(photographs[0][0], loaded.target, loaded.depth, loaded.rules)
    assert again.rules == rules
    np.testing.assert_array_equal(again.heatmap, loaded.heatmap)


@pytest.mark.parametrize("rules", ["paper", "epsilon:0.1", "composite", "zplus", {"first": "wsquare"}])
def test_explanations_do_not_depend_on_where_the_normalisation_is(net, photographs, rules):
    scale, shift = np.array([2, 0.5, 4], np.float32), np.array([-1, 0.25, -2], np.float32)
    first = [replace(n, inputs=tuple(k + 1 for k in n.inputs)) for n in net.nodes]
    inside = Network([node("norm0", Affine(scale, shift), -1), *first], (3, 24, 20), net.classes_)
    outside = Network(net.nodes, (3, 24, 20), net.classes_, Preprocess((24, 20), mean=-shift / scale, std=1 / scale))
    for image in photographs[0][:3]:
        one, other = (n.explain(image, "b", rules=rules, dtype="float64") for n in (inside, outside))
        assert one.score == pytest.approx(other.score, rel=1e-5)
        np.testing.assert_allclose(one.heatmap, other.heatmap, atol=1e-4 * np.abs(other.heatmap).max())


def test_after_folding_the_normalisation_black_pixels_have_no_relevance(net, photographs):
    first = [replace(n, inputs=tuple(k + 1 for k in n.inputs)) for n in net.nodes]
    inside = Network([node("norm0", Affine(np.full(3, 2.0), np.full(3, -1.0)), -1), *first], (3, 24, 20), net.classes_)
    image = photographs[0][0].copy()
    image[:20] = 0
    trace = inside.trace(image, "float64")
    rules = (NetworkRules(Epsilon(0.01), input_affine=how) for how in ("pass", "fold"))
    passed, folded = (trace.explain(rules=each) for each in rules)
    assert np.abs(passed.heatmap[:8]).max() > 0 and not folded.heatmap[:8].any()
    assert passed.ledger.closes() and folded.ledger.closes()


# ---- files -----------------------------------------------------------------------------------------------------------


def test_an_explanation_says_which_part_a_crop_kept(net, photographs):
    image = photographs[0][0]
    net.preprocess = Preprocess((24, 20), "crop", 30)
    ex = net.explain(image)
    assert ex.seen == (*net.preprocess.box(image.shape[:2]), 24, 20) and not ex.seen.is_all(image.shape)
    outside = np.ones(image.shape[:2], bool)
    outside[ex.seen.top : ex.seen.bottom, ex.seen.left : ex.seen.right] = False
    assert outside.any() and not ex.heatmap[outside].any()
    assert len(np.unique(np.asarray(ex.to_image())[outside], axis=0)) == 2  # neutral, and the lines


def test_a_saved_network_loads_bit_identically(net, tmp_path, photographs):
    net.preprocess = Preprocess((24, 20), "crop", 30, "BGR", 255, (1, 2, 3))
    path = tmp_path / "n.fvlrp"
    net.save(path)
    loaded = fvlrp.load(path)
    assert loaded.layers == net.layers and loaded.describe() == net.describe()
    np.testing.assert_array_equal(loaded.decision_function(photographs[0]), net.decision_function(photographs[0]))
    first = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == first


def test_names_of_classes_may_be_objects(net, tmp_path):
    named = ConvNet(net.nodes, (3, 24, 20), np.array(["kite", "crane", "hen", "cock"], dtype=object))
    named.save(tmp_path / "n.fvlrp")
    assert fvlrp.load(tmp_path / "n.fvlrp").classes_.tolist() == ["kite", "crane", "hen", "cock"]


def test_every_kind_of_layer_has_a_name_for_files(net):
    assert all(type(n.layer) is KINDS[n.kind] for n in net.nodes)


def test_a_file_with_inconsistent_parts_is_refused(net, tmp_path):
    from fvlrp.data.files import save_arrays

    header, arrays = net.to_parts()
    del arrays["1.bias"]
    save_arrays(tmp_path / "n.fvlrp", {"kind": "convnet", **header}, arrays)
    with pytest.raises(ValueError, match=r"n\.fvlrp is not a network this fvlrp can use"):
        fvlrp.load(tmp_path / "n.fvlrp")


def test_describe_is_json_serialisable(net):
    described = json.loads(json.dumps(net.describe()))
    assert described["kind"] == "convolutional network" and not described["normalises its input"]
    dense = Network(
        [node("flat", Flatten(), -1), node("fc", Dense(np.ones((2, 12), np.float32), np.zeros(2, np.float32)), 0)],
        (3, 2, 2),
    )
    assert dense.describe()["kind"] == "dense network"
    assert described["layers"][1] == {"name": "conv1", "kind": "conv", "shape": [8, 12, 9]}
    assert described["parameters"] == 3 * 8 * 9 + 8 + 16 + 64 + 8 + 576 + 8 + 64 + 4


# ---- retraining ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [0, -1.0, np.nan, "10", True])
def test_invalid_regularisation_is_refused_before_any_photograph_is_read(net, C):
    with pytest.raises(ValueError, match=f"C must be a positive number or None, got {C!r}"):
        net.retrain(["missing.jpg"] * 2, ["a", "b"], C=C)


def test_a_missing_image_is_named_in_one_sentence(net):
    with pytest.raises(FileNotFoundError, match=r"^cannot read image missing\.jpg: no such file$"):
        net.retrain(["missing.jpg"] * 2, ["a", "b"])


def test_retraining_learns_classes_the_network_never_knew(net, photographs):
    images, labels = photographs
    new = net.retrain(images[:16], np.array(["across", "down"])[labels[:16]], C=10.0)
    assert list(new.classes_) == ["across", "down"] and not new.multilabel_
    assert new.score(images[16:], np.array(["across", "down"])[labels[16:]]) == 1
    assert new.layers == [*net.layers[:12], "average", "scores"]
    ahead, scores = new.decision_function(images), np.array([new.scores(image) for image in images])
    np.testing.assert_allclose(ahead, scores[:, 1] - scores[:, 0], rtol=1e-6)
    assert net.layers[-1] == "flat" and len(net.classes_) == 4  # the network itself stays as it was


def test_retrained_weights_are_a_logistic_regression_on_standardised_features(net, photographs):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, labels = photographs
    three = labels + (np.arange(len(labels)) % 3 == 0)
    new = net.retrain(images, three, mirror=False, C=0.5)
    x = np.concatenate([net.prepare(image) for image in images])
    features = net.activations(x)[10].mean(axis=(2, 3), dtype=np.float64)
    for k in range(3):
        peer = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=1000)).fit(features, three == k)
        np.testing.assert_allclose(
            new.decision_function(images)[:, k], peer.decision_function(features), rtol=1e-3, atol=1e-3
        )


def test_retraining_weighs_images_and_classes_as_logistic_regression_does(net, photographs):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    images, labels = photographs
    three = labels + (np.arange(len(labels)) % 3 == 0)
    own = np.linspace(0.5, 2, len(labels))
    new = net.retrain(images, three, mirror=False, C=0.5, class_weight="balanced", sample_weight=own)
    x = np.concatenate([net.prepare(image) for image in images])
    features = StandardScaler().fit_transform(net.activations(x)[10].mean(axis=(2, 3), dtype=np.float64))
    for k in range(3):
        peer = LogisticRegression(C=0.5, max_iter=1000, class_weight="balanced")
        expected = peer.fit(features, three == k, own).decision_function(features)
        np.testing.assert_allclose(new.decision_function(images)[:, k], expected, rtol=1e-3, atol=1e-3)


def test_a_matrix_of_labels_makes_independent_classes_and_ignores_zeros(net, photographs):
    images, labels = photographs
    matrix = np.stack([2 * labels - 1, 1 - 2 * labels, np.where(np.arange(24) % 5, 1, -1)], axis=1)
    matrix[3:9, 2] = 0
    new = net.retrain(images, matrix, ["down", "across", "fifth"], C=10.0)
    assert new.multilabel_ and list(new.classes_) == ["down", "across", "fifth"]
    np.testing.assert_array_equal(new.predict(images)[:, :2], matrix[:, :2] > 0)
    assert new.score(images, matrix) > 0.8
    with pytest.raises(ValueError, match="average precision takes no weights"):
        new.score(images, matrix, sample_weight=np.ones(24))

    # The peer never sees the ignored rows of the third class; only the standardisation does.
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    plain = net.retrain(images, matrix, mirror=False, C=0.5)
    x = np.concatenate([net.prepare(image) for image in images])
    features = StandardScaler().fit_transform(net.activations(x)[10].mean(axis=(2, 3), dtype=np.float64))
    used = matrix[:, 2] != 0
    peer = LogisticRegression(C=0.5, max_iter=1000).fit(features[used], matrix[used, 2])
    expected = peer.decision_function(features)
    np.testing.assert_allclose(plain.decision_function(images)[:, 2], expected, rtol=1e-3, atol=1e-3)


def test_mirroring_makes_a_classifier_that_cannot_tell_left_from_right(net):
    """Ramps that rise to the left or to the right: each is the mirror image of the other's class."""
    ramp = np.linspace(0, 255, 20).astype(np.uint8)
    images = [np.broadcast_to(side, (24, 20)) // k for k in (1, 2, 3, 4) for side in (ramp, ramp[::-1])]
    labels = np.tile([0, 1], 4)
    assert net.retrain(images, labels, mirror=False, C=10.0).score(images, labels) == 1
    assert np.abs(net.retrain(images, labels, mirror=True, C=10.0).decision_function(images)).max() < 0.05


def test_the_last_dense_layer_is_replaced_by_a_dense_layer(net, photographs):
    random = np.random.default_rng(0)
    dense = Dense(random.normal(size=(7, 4)).astype(np.float32), np.zeros(7, np.float32))
    deeper = ConvNet([*net.nodes, node("fc", dense, 14)], (3, 24, 20))
    new = deeper.retrain(*photographs)
    assert new.layers == deeper.layers and new.nodes[-1].layer.weight.shape == (2, 4)


@pytest.mark.parametrize(
    "end",
    [
        [
            ("act", Clip(0, 6)),
            ("pooled", GlobalAveragePool()),
            ("row", Flatten()),
        ],  # MobileNetV2 without its classifier
        [
            ("pooled", GlobalAveragePool()),
            ("scale", Affine(np.full(4, 2, np.float32), np.ones(4, np.float32))),
            ("row", Flatten()),
        ],
        [("maps", MaxPool((3, 2), (3, 2), (0, 0, 0, 0), False)), ("row", Flatten())],
    ],
)
def test_a_feature_network_keeps_its_layers_and_gets_a_head(net, photographs, end):
    nodes = [*net.nodes[:12]]
    for name, layer in end:
        nodes.append(node(name, layer, len(nodes) - 1))
    backbone = ConvNet(nodes, (3, 24, 20))
    new = backbone.retrain(*photographs, mirror=False, C=10.0)
    assert new.layers == [*backbone.layers, "head"] and new.nodes[-1].kind == "dense"
    x = np.concatenate([net.prepare(image) for image in photographs[0]])
    head = new.nodes[-1].layer
    np.testing.assert_allclose(new.forward(x), backbone.forward(x) @ head.weight.T + head.bias, rtol=1e-4, atol=1e-4)


def test_a_feature_that_never_changes_gets_no_weight(net, photographs):
    weight = net.nodes[8].layer.weight.copy()
    net.nodes[8].layer.weight[3] = 0  # "right" feeds "sum" beside "left", which is silenced, too
    net.nodes[6].layer.weight[3] = 0
    new = net.retrain(*photographs)
    assert np.isfinite(new.nodes[11].layer.weight).all() and not new.nodes[11].layer.weight[:, 3].any()
    assert weight.any()


# ---- trained networks ------------------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize("name", ["squeezenet_v1.1", "tiny_darknet"])
def test_squeezenet_recognises_an_egyptian_cat(name):
    pytest.importorskip("onnx")
    data = pytest.importorskip("skimage.data")
    net = fvlrp.load(Path(os.environ["FVLRP_DATA"]) / f"cnn/{name}.onnx")
    assert len(net.classes_) == len(set(net.classes_)) == 1000
    assert list(net.predict([data.chelsea()])) == ["Egyptian cat"]


@needs_data
def test_retraining_squeezenet_on_voc_recognises_most_of_it(tmp_path):
    """A quarter of the training photographs: enough for half the precision that all of them give."""
    pytest.importorskip("onnx")
    root = Path(os.environ["FVLRP_DATA"])
    train, val = (fvlrp.datasets.open_dataset(root / "VOCdevkit", split) for split in ("train", "val"))
    classes = [i for i, name in enumerate(train.class_names) if name in ("aeroplane", "cat", "person", "train")]
    net = fvlrp.load(root / "cnn/squeezenet_v1.1.onnx").set_params(n_jobs=2)
    new = net.retrain(train.paths[::4], train.labels[::4][:, classes], mirror=False)
    assert new.score(val.paths[::2], val.matrix[::2][:, classes]) > 0.6


def small(path):
    """An ONNX file of 16 features of 32 x 32 pixels and four classes of its own, as it comes out of no training."""
    onnx = pytest.importorskip("onnx")
    helper, real, random = onnx.helper, onnx.TensorProto.FLOAT, np.random.default_rng(0)
    weights = {"k": random.normal(size=(16, 3, 5, 5)) / 9, "w": random.normal(size=(16, 4)) / 4}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv", strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["f"], name="row"),
        helper.make_node("MatMul", ["f", "w"], ["s"], name="scores"),
        helper.make_node("Softmax", ["s"], ["y"], name="softmax"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", real, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("y", real, ["n", 4])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    described = {**Preprocess((32, 32), how="crop").to_dict(), "classes": ["ant", "bee", "cow", "dog"]}
    path.with_suffix(".json").write_text(json.dumps(described))
    return path


def command(*args):
    """What a command of its own process answers."""
    line = [sys.executable, "-m", "fvlrp", *map(str, args), "--json", "--quiet"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", ["small", pytest.param("tiny_darknet", marks=needs_data)])
def test_other_commands_read_the_model_that_retrain_writes(tmp_path, name):
    pytest.importorskip("onnx")
    file = small(tmp_path / "s.onnx") if name == "small" else Path(os.environ["FVLRP_DATA"]) / f"cnn/{name}.onnx"
    random = np.random.default_rng(0)
    for i in range(6):
        folder = tmp_path / "data" / ("dark" if i % 2 else "light")
        folder.mkdir(parents=True, exist_ok=True)
        image = random.integers(0, 60, (40, 50, 3)) + (0 if i % 2 else 180)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{i}.png")
    out = tmp_path / "n.fvlrp"
    made = command("retrain", file, tmp_path / "data", "--out", out)
    assert made["images"] == 6 and made["classes"] == 2 and out.stat().st_size == made["bytes"]
    assert command("evaluate", tmp_path / "data", "--model", out)["results"][0]["mean"]["11point"] == 1
    assert command("info", out)["model"]["classes"] == ["dark", "light"]
    assert command("info", file)["model"]["preprocess"]["how"] == "crop"


def test_info_tells_what_became_of_the_nodes_of_a_file(tmp_path):
    model = command("info", small(tmp_path / "s.onnx"))["model"]
    assert [layer["name"] for layer in model["layers"]] == ["conv", "relu", "pool", "row", "scores"]
    assert model["import"]["dropped"] and "softmax" in json.dumps(model["import"]["dropped"])


def test_the_score_of_altered_copies_is_that_of_the_copies(net, photographs):
    """For pixel flipping: of a class, of the difference of two, and of the best class of the photograph."""
    images = photographs[0][:4]
    scores = net.decision_function(images)
    np.testing.assert_allclose(net.flipper(images[0], "c")(images), scores[:, 2], rtol=1e-6)
    np.testing.assert_allclose(
        net.flipper(images[0], Contrast("a", "c"))(images), scores[:, 0] - scores[:, 2], rtol=1e-5
    )
    np.testing.assert_allclose(net.flipper(images[0])(images), scores[:, scores[0].argmax()], rtol=1e-6)
