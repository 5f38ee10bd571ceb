"""Photographs become a network's input, and heatmaps find their way back; what says how, and what is refused."""

import json
import re
import warnings

import numpy as np
import pytest
from PIL import Image

from fvlrp import Preprocess
from fvlrp.network.description import of_metadata, read_description


def test_preparing_orders_scales_and_centres_the_channels():
    image = np.zeros((6, 8, 3), np.uint8)
    image[..., 0], image[..., 1], image[..., 2] = 255, 51, 0
    x = Preprocess((6, 8)).prepare(image)
    assert x.shape == (1, 3, 6, 8) and x.dtype == np.float32
    np.testing.assert_allclose(x[0, :, 0, 0], [1, 0.2, 0], rtol=1e-6)
    x = Preprocess((6, 8), order="BGR", high=255, mean=(104, 117, 123), std=(2,)).prepare(image)
    np.testing.assert_allclose(x[0, :, 3, 5], [-52, -33, 66], rtol=1e-6)
    np.testing.assert_allclose(Preprocess((6, 8), order="grey").prepare(image)[0, 0, 0, 0], 0.2989 + 0.2 * 0.587)


def test_a_grey_photograph_becomes_three_equal_channels():
    x = Preprocess((5, 5)).prepare(np.full((9, 7), 102, np.uint8))
    np.testing.assert_allclose(x, np.full((1, 3, 5, 5), 0.4), rtol=1e-6)


def test_a_crop_is_centred_after_resizing_the_shorter_side():
    image = np.tile(np.linspace(0, 1, 80, dtype=np.float32), (40, 1))
    x = Preprocess((20, 20), how="crop", resize=20).prepare(image)[0, 0]
    resized = np.asarray(Image.fromarray(image).resize((40, 20), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(x, resized[:, 10:30])


@pytest.mark.parametrize("shape", [(24, 20), (37, 51), (9, 60), (13, 11)])
@pytest.mark.parametrize("how, resize", [("stretch", None), ("crop", None), ("crop", 30)])
def test_undoing_the_preprocessing_keeps_the_sum_of_a_heatmap(shape, how, resize):
    heatmap = np.random.default_rng(0).normal(size=(2, 24, 20))
    back = Preprocess((24, 20), how, resize).undo(heatmap, shape)
    assert back.shape == (2, *shape)
    np.testing.assert_allclose(back.sum(axis=(1, 2)), heatmap.sum(axis=(1, 2)), rtol=1e-10)


def test_a_heatmap_lands_where_the_crop_was_taken():
    preprocess = Preprocess((10, 10), how="crop", resize=20)
    marked = np.zeros((40, 80), np.uint8)
    marked[20:22, 44:46] = 255
    x = preprocess.prepare(marked)[0, 0].astype(float)
    back = preprocess.undo(x, (40, 80))
    assert set(np.argwhere(back == back.max())[0]) <= {20, 21, 44, 45}
    outside = back.copy()
    outside[10:30, 30:50] = 0
    assert not outside.any() and back[10:30, 30:50].sum() > 0


@pytest.mark.parametrize("shape", [(40, 80), (37, 51), (9, 60), (500, 375), (224, 224)])
@pytest.mark.parametrize("how, resize", [("stretch", None), ("crop", None), ("crop", 26), ("crop", 40)])
def test_the_box_is_the_part_that_a_heatmap_lands_on(shape, how, resize):
    preprocess = Preprocess((24, 20), how, resize)
    top, left, bottom, right = preprocess.box(shape)
    landed = np.argwhere(preprocess.undo(np.ones((24, 20)), shape))
    assert landed.min(axis=0).tolist() == [top, left]
    assert (landed.max(axis=0) + 1).tolist() == [bottom, right]


def test_images_that_cannot_be_prepared_are_refused():
    for options, message in [
        ({"size": (0, 5)}, "size must be"),
        ({"size": 224}, "size must be height and width in whole pixels, got (224,)"),
        ({"size": ("224", "224")}, "size must be height and width in whole pixels"),
        ({"size": (224.5, 224)}, "size must be height and width in whole pixels"),
        ({"how": "crop", "resize": "256"}, "resize must be at least 224"),
        ({"mean": "x"}, "mean must hold 1 or 3 finite numbers, got ('x',)"),
        ({"std": (1, None, 1)}, "std must hold 1 or 3 finite numbers"),
        ({"mean": True}, "mean must hold 1 or 3 finite numbers"),
        ({"how": "squash"}, "how must be one of"),
        ({"how": "crop", "resize": 100}, "resize must be at least 224"),
        ({"order": "RBG"}, "order must be one of"),
        ({"mean": (1, 2)}, "mean must hold 1 or 3"),
        ({"std": (0,)}, "std must not be zero"),
        (
            {"high": 16},
            "high must be one of 1, 255, got 16: for a white of w, give high=1 and divide mean and std",
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            Preprocess(**options)
    with pytest.raises(ValueError, match=r"expected .* 224, 224"):
        Preprocess().undo(np.zeros((5, 5)), (5, 5))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mean": (123, 116, 103), "std": (58, 57, 57)}, r"0\.\.255, .* values in 0\.\.1 before them: give high=255"),
        ({"mean": 1.5}, "mean 1.5 and std 1 are of values in 0..255"),
        ({"std": (58, 57, 57)}, r"std \(58, 57, 57\) are of values in 0\.\.255"),
        ({"high": 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}, r"0\.\.1, .* give high=1 "),
    ],
)
def test_means_and_deviations_of_the_other_range_are_warned_of(tmp_path, options, words):
    with pytest.warns(UserWarning, match=words) as caught:
        Preprocess(**options)
    assert caught[0].filename == __file__
    (tmp_path / "d.json").write_text(json.dumps(options))
    with pytest.warns(UserWarning, match=words):
        read_description(tmp_path / "d.json")
    with pytest.warns(UserWarning, match=words):
        of_metadata({"preprocess": json.dumps(options)}, (8, 8))


def test_means_and_deviations_of_the_stated_range_draw_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        Preprocess(mean=0.5, std=1 / 255)
        Preprocess(high=255, mean=(123, 116, 103), std=(58, 57, 57))
        Preprocess(high=255, mean=(104, 117, 123))
        Preprocess(high=255)
        Preprocess(high=255, std=255)
        Preprocess(order="bands", mean=(300.0, 2.0), std=(80.0, 1.0))


def test_preprocessing_survives_json():
    preprocess = Preprocess((24, 20), "crop", 30, "BGR", 255, (1, 2.5, 3), (58,))
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    with pytest.raises(ValueError, match="no option 'sizes'"):
        Preprocess.from_dict({"sizes": (1, 2)})


def test_the_json_file_next_to_a_model_is_read(tmp_path):
    path = tmp_path / "d.json"
    described = {
        "input_size": [227, 200],
        "channel_order": "BGR",
        "value_range": [0, 255],
        "mean_rgb": [3, 2, 1],
        "scale": 0.5,
        "resize": "shorter side to 256, centre crop 227",
        "labels": ["tench, Tinca tinca", "crane", "crane", "maillot", "maillot, tank suit"],
    }
    path.write_text(json.dumps(described))
    preprocess, names = read_description(path)
    assert preprocess == Preprocess((227, 200), "crop", 256, "BGR", 255, (1, 2, 3), (2,))
    assert names is not None and names.of(5) == ["tench", "crane", "crane (2)", "maillot", "maillot, tank suit"]
    labels = {str(i): f"c{i}" for i in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)}
    path.write_text(json.dumps({"size": [8, 8], "labels": labels}), encoding="utf-8-sig")
    preprocess, names = read_description(path)
    assert names is not None and (preprocess, names.of(11)) == (Preprocess((8, 8)), [f"c{i}" for i in range(11)])
    path.write_text('{"size": [8, 8], "classes": {"0": "tench", "2": "crane"}}')
    with pytest.raises(ValueError, match=r"d\.json lists names of 2 or 3 classes, and the network has 4$"):
        read_description(path)[1].of(4)
    for text, words in (
        ("{", "Expecting property name"),
        ("[1]", "expected an object of names and values, got list"),
        ('{"input_size": 3}', "size must be height and width"),
        ('{"input_size": [8, 8], "mean": "x"}', "mean must hold 1 or 3 finite numbers"),
        ('{"classes": {"0": "tench", "x": "crane"}}', "classes must list a label for each output, or have one for"),
        ('{"labels": "tench"}', "labels must list a label for each output"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=rf"d\.json does not describe how to prepare photographs: {words}"):
            read_description(path)
    with pytest.raises(FileNotFoundError, match=r"^no file .*none\.json that says how to prepare photographs$"):
        read_description(tmp_path / "none.json")


@pytest.mark.parametrize(
    "options", [{"size": (1 << 17, 5)}, {"size": (5, 1 << 70)}, {"resize": 1 << 70}, {"resize": 300.5}]
)
def test_sizes_beyond_any_photograph_and_parts_of_pixels_are_refused(options):
    with pytest.raises(ValueError, match="must be a"):
        Preprocess(how="crop", **options)


def test_resizing_that_does_not_fit_into_memory_is_refused_before_it_begins(monkeypatch):
    monkeypatch.setattr("fvlrp.runtime.limits.available", lambda: 1 << 30)
    with pytest.raises(MemoryError, match="preprocess: resizing to 65536 x 65536 pixels"):
        Preprocess(how="crop", resize=1 << 16).prepare(np.zeros((40, 40, 3), np.uint8))
