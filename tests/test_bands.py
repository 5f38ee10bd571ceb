"""Networks whose channels are not colours: arrays in, explanations with a picture out."""

import numpy as np
import pytest
from PIL import Image

import fvlrp
from fvlrp import Network, Preprocess
from fvlrp.cli import main
from fvlrp.data import bands
from fvlrp.network.graph import Node
from fvlrp.network.layers import Conv, Dense, Flatten, GlobalAveragePool, ReLU


@pytest.fixture(params=[1, 2, 4, 13])
def net(request):
    random = np.random.default_rng(0)
    layers = [
        Conv(random.normal(size=(6, request.param, 3, 3)).astype(np.float32), np.zeros(6, np.float32)),
        ReLU(),
        GlobalAveragePool(),
        Flatten(),
        Dense(random.normal(size=(3, 6)).astype(np.float32), np.zeros(3, np.float32)),
    ]
    nodes = [Node.of(f"layer{i}", layer, (i - 1,)) for i, layer in enumerate(layers)]
    return Network(nodes, (request.param, 16, 16))


def images(net, count=12):
    """Noise; every second image has more of the first channel."""
    channels = net.input_shape[0]
    noise = np.random.default_rng(1).uniform(0, 0.5, (count, 20, 24, channels))
    noise[1::2, ..., 0] += 0.5
    return [image if channels > 1 else image[..., 0] for image in noise]


def test_an_explanation_has_the_images_size_a_picture_and_a_ledger_that_closes(net):
    ex = net.explain(images(net)[0], rules="epsilon_plus", dtype="float64")
    assert ex.heatmap.shape == (20, 24) and ex.image.shape == (20, 24, 3) and ex.image.dtype == np.uint8
    assert ex.ledger.closes(rtol=1e-9)
    assert ex.relevance["input"].shape == (net.input_shape[0], 16, 16)
    np.testing.assert_allclose(ex.relevance["input"].sum(), ex.heatmap.sum())


def test_retraining_learns_classes_from_a_channel(net, tmp_path):
    labels = np.arange(12) % 2
    new = net.retrain(images(net), labels, C=10.0)
    assert new.score(images(net), labels) == 1
    new.save(tmp_path / "n.fvlrp")
    again = fvlrp.load(tmp_path / "n.fvlrp")
    np.testing.assert_array_equal(again.decision_function(images(net)), new.decision_function(images(net)))


@pytest.mark.parametrize("rule", ["composite", "attention"])
def test_rules_that_need_the_range_of_the_pixels_get_it(net, rule):
    assert net.explain(images(net)[1], rules=rule).ledger.closes()


def test_channels_are_used_unscaled_and_bytes_are_scaled_to_the_network_range():
    image = np.random.default_rng(0).normal(0, 40, (8, 8, 5))
    five = Preprocess((8, 8), order="bands", mean=(1, 2, 3, 4, 5), std=(2,))
    assert five.channels == 5 and Preprocess.from_dict(five.to_dict()) == five
    mean = np.arange(1, 6)[:, None, None]
    np.testing.assert_allclose(five.prepare(image)[0], (image.transpose(2, 0, 1) - mean) / 2, rtol=1e-4, atol=1e-4)
    grey = np.full((8, 8, 5), 51, np.uint8)
    for high, value in ((1, 0.2), (255, 51)):
        prepared = Preprocess((8, 8), order="bands", high=high, std=(1,) * 5).prepare(grey)
        np.testing.assert_allclose(prepared, value, rtol=1e-6)


def test_unusable_arrays_are_refused(tmp_path):
    image = np.zeros((8, 9, 4))
    np.save(tmp_path / "a.npy", image)
    np.testing.assert_array_equal(bands.load(tmp_path / "a.npy", 4), image)
    with pytest.raises(ValueError, match=r"the image has shape \(8, 9, 4\); expected \(height, width, 5\)"):
        bands.load(image, 5)
    with pytest.raises(ValueError, match="not finite"):
        bands.load(np.full((8, 9, 4), np.nan), 4)
    with pytest.raises(ValueError, match="1 masked values"):
        bands.load(np.ma.array(image, mask=np.arange(image.size).reshape(image.shape) == 7), 4)
    with pytest.raises(TypeError, match="must hold real numbers, it holds complex128"):
        bands.load(image.astype(complex), 4)
    with pytest.raises(TypeError, match=r"reads arrays \(height, width, 4\) or .npy files of them, got 'photo.jpg'"):
        bands.load("photo.jpg", 4)


def test_a_picture_shows_three_bands_in_their_own_ranges():
    image = np.random.default_rng(0).uniform(0, 1, (50, 40, 4)) * [1, 100, 0, 7] + [0, 5, -3, 0]
    picture = bands.shown(image)
    assert (picture[..., 2] == 0).all() and picture[..., :2].min() == 0 and picture[..., :2].max() == 255
    assert (bands.shown(image[..., :2]) == picture[..., :1]).all()


def test_the_command_line_takes_files_of_arrays(net, tmp_path, capsys):
    if net.input_shape[0] in (1, 2):  # 1 reads grey photographs; 4 and 13 suffice
        return
    net.save(tmp_path / "net.fvlrp")
    np.save(tmp_path / "scene.npy", images(net)[0])
    assert (
        main(["explain", str(tmp_path / "scene.npy"), "--model", str(tmp_path / "net.fvlrp"), "--out", str(tmp_path)])
        == 0
    )
    (name,) = capsys.readouterr().out.split()
    with Image.open(name) as picture:
        assert picture.size == (24, 20)
