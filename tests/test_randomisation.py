"""Maps depend on what was learned: with shuffled weights they change (Adebayo et al. 2018, Sanity checks)."""

import numpy as np
import pytest

import fvlrp
from fvlrp import Network


def shuffled(path, count):
    """The network with the weights of its last `count` convolutions in random order, each its own."""
    net, draw = Network.from_onnx(path), np.random.default_rng(0)
    layers = [node.layer for node in net.nodes if node.kind == "conv"]
    for layer in layers[len(layers) - count :]:
        weight = np.asarray(layer.weight, np.float32)
        object.__setattr__(layer, "weight", draw.permutation(weight.ravel()).reshape(weight.shape))
    return net


@pytest.mark.parametrize("depth", ["input", "fire4"])
@pytest.mark.parametrize(("count", "most"), [(1, 0.95), (26, 0.6)])
def test_shuffled_weights_change_the_map(data, depth, count, most):
    photo = pytest.importorskip("skimage.data").chelsea()
    path = data / "cnn" / "squeezenet_v1.1.onnx"
    learned, other = (
        net.explain(photo, 285, depth).heatmap for net in (Network.from_onnx(path), shuffled(path, count))
    )
    assert np.corrcoef(learned.ravel(), other.ravel())[0, 1] < most
    assert np.array_equal(learned, shuffled(path, 0).explain(photo, 285, depth).heatmap)


def shuffled_svm(clf, draw):
    """Every class's coefficients in random order."""
    clf.coef_ = draw.permuted(clf.coef_, axis=1)


def shuffled_mixture(clf, draw):
    """Every dimension's means in random order of the components."""
    clf.gmm_.means_ = draw.permuted(np.array(clf.gmm_.means_), axis=0)


@pytest.mark.parametrize(("shuffle", "most"), [(shuffled_svm, 0.3), (shuffled_mixture, 0.6)])
def test_shuffled_weights_change_the_map_of_a_fisher_vector(shuffle, most):
    photo, depths = pytest.importorskip("skimage.data").chelsea(), ["descriptor", "bin", "gradient"]
    other = fvlrp.load("voc20")
    shuffle(other, np.random.default_rng(0))
    other._link()  # to what was changed
    pairs = zip(*(clf.explain(photo, "cat", depths) for clf in (fvlrp.load("voc20"), other)), strict=True)
    for one, changed in pairs:
        assert abs(np.corrcoef(one.heatmap.ravel(), changed.heatmap.ravel())[0, 1]) < most, one.depth
