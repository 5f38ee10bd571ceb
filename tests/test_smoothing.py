"""Maps smoothed for display: without the mesh of a pool, with the same sum, and said on every picture."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from fvlrp import Explanation, Network, Preprocess, cli, sheet
from fvlrp.core import figures
from fvlrp.network.graph import Node, strides
from fvlrp.network.layers import Conv, Flatten, GlobalAveragePool, MaxPool, ReLU
from fvlrp.show import render
from fvlrp.show.smoothing import Smoothing, sigma


def averages(length, width):
    """The matrix of means over `width` pixels of a line that is mirrored at both ends, tap by tap."""
    side = (width - 1) / 2
    matrix = np.zeros((length, length))
    for i in range(length):
        for step in range(-int(side) - 1, int(side) + 2):
            j = (i + step) % (2 * length)  # mirrored lines repeat after twice their length
            share = 1 if abs(step) <= int(side) else side - int(side)
            matrix[i, min(j, 2 * length - 1 - j)] += share / width
    return matrix


@pytest.mark.parametrize("spacing", [(1, 1), (1, 4), (2.5, 3), (8, 7.25), (30, 50)])
def test_smoothing_is_two_averages_over_a_cell_along_each_axis(rng, spacing):
    heatmap = rng.standard_normal((23, 31))
    kept = heatmap.copy()
    down, across = (averages(length, width) for length, width in zip(heatmap.shape, spacing, strict=True))
    smooth = Smoothing(spacing, (0, 0, 23, 31))(heatmap)
    np.testing.assert_allclose(smooth, down @ down @ heatmap @ across @ across, atol=1e-13)
    assert smooth.sum() == pytest.approx(heatmap.sum(), rel=1e-12)
    np.testing.assert_array_equal(heatmap, kept)


def test_a_mesh_of_the_stride_vanishes_and_a_slope_stays(rng):
    y, x = np.mgrid[:48, :60]
    mesh = np.where((y % 4 == 1) & (x % 6 == 5), 24.0, 0)  # a pool's winners, one in each cell
    flat = Smoothing((4, 6), (0, 0, 48, 60))(mesh)
    np.testing.assert_allclose(flat[8:-8, 12:-12], 1, rtol=1e-12)
    slope = Smoothing((4, 6), (0, 0, 48, 60))(mesh * x)
    np.testing.assert_allclose(np.diff(slope[8:-8, 12:-12], axis=1), 1, rtol=1e-12)  # linear interpolation


def test_nothing_is_moved_across_the_border_of_what_the_model_saw(rng):
    heatmap = rng.random((20, 30))
    smooth = Smoothing((5, 5), (4, 3, 16, 30))(heatmap)
    inside = np.zeros((20, 30), bool)
    inside[4:16, 3:] = True
    np.testing.assert_array_equal(smooth[~inside], heatmap[~inside])
    assert smooth[inside].sum() == pytest.approx(heatmap[inside].sum()) and smooth[inside].std() < heatmap[inside].std()


@pytest.mark.parametrize("width", [1, 1.5, 2, 5, 8.8, 17.6])
def test_sigma_is_the_standard_deviation_of_what_a_point_becomes(width):
    point = np.zeros((1, 101))
    point[0, 50] = 1
    smooth = Smoothing((1, width), (0, 0, 1, 101))(point)[0]
    assert np.sqrt(smooth @ (np.arange(101) - 50) ** 2) == pytest.approx(sigma(width), abs=1e-12)


def test_the_words_have_the_sigma_of_both_axes_where_they_differ():
    assert Smoothing((8, 8), (0, 0, 9, 9)).words == "smoothed for display, sigma 3.3 px"
    assert Smoothing((8, 17.6), (0, 0, 9, 9)).words == "smoothed for display, sigma 3.3 × 7.2 px"


def test_a_map_may_be_reduced_first():
    half = Smoothing((8, 8), (10, 0, 90, 200)).resized((100, 200), (50, 100))
    assert half == Smoothing((4, 4), (5, 0, 45, 100))


# ---- explanations ----------------------------------------------------------------------------------------------------


@pytest.fixture
def net():
    """Two pools: a stride of 4 down and 2 across."""
    random = np.random.default_rng(0)

    def conv(outputs, inputs):
        weight = random.normal(size=(outputs, inputs, 3, 3)).astype(np.float32)
        return Conv(weight, np.zeros(outputs, np.float32), pads=(1, 1, 1, 1))

    layers = [conv(4, 3), ReLU(), MaxPool((2, 2), (2, 2)), conv(6, 4), ReLU(), MaxPool((2, 1), (2, 1)), conv(3, 6)]
    layers += [GlobalAveragePool(), Flatten()]
    names = "conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "conv3", "mean", "scores"
    nodes = [Node.of(name, layer, (i - 1,)) for i, (name, layer) in enumerate(zip(names, layers, strict=True))]
    return Network(nodes, (3, 36, 28), ["a", "b", "c"], preprocess=Preprocess((36, 28), "stretch"))


@pytest.fixture
def image(rng):
    return rng.integers(0, 256, (54, 56, 3), np.uint8)


@pytest.fixture
def ex(net, image):
    return net.explain(image, "b", depth="conv3", rules="paper")


def test_an_explanation_of_a_layer_knows_its_stride(net, image, plain, photo):
    assert dict(zip(net.layers, strides(net.nodes), strict=True))["pool2"] == (4, 2)
    assert [one.stride for one in net.explain(image, "a", depth=["conv3", "conv2", "conv1", "input"])] == [
        *((4, 2), (2, 2), (1, 1), (1, 1))
    ]
    assert {one.stride for one in plain.explain(photo, "grass", ["vector", "bin"])} == {(1, 1)}


def test_pictures_are_smoothed_at_the_resolution_of_the_depth_and_say_so(ex):
    smoothing = Smoothing((4 * 54 / 36, 2 * 56 / 28), (0, 0, 54, 56))
    assert ex.smoothing == smoothing and smoothing.words == "smoothed for display, sigma 2.5 × 1.7 px"
    smooth = smoothing(ex.heatmap)
    drawn = {
        "to_image": render.to_image(smooth, scale="99%"),
        "overlay": Image.fromarray(render.overlay(ex.image, smooth, scale="99%")),
        "alpha": Image.fromarray(render.alpha(ex.image, smooth, scale="99%")),
    }
    for method, picture in drawn.items():
        found = getattr(ex, method)(smooth=True, scale="99%")
        assert np.array_equal(found, render.noted(picture, smoothing.words))
        assert np.array_equal(found.crop((0, 0, 56, 54)), picture)
        assert found.height > 54 and (np.asarray(found)[54:] < 128).any()  # the words
        assert getattr(ex, method)(scale="99%").size == (56, 54)


def test_maps_without_a_mesh_stay_as_they_are(net, image, plain, photo):
    for one in (net.explain(image, "a", depth="input"), plain.explain(photo, "grass", "bin")):
        assert one.smoothing is None and np.array_equal(one.to_image(smooth=True), one.to_image())


def test_smoothing_never_reaches_the_numbers(ex, tmp_path):
    before = ex.heatmap.copy()
    ex.to_image(smooth=True)
    ex.save(tmp_path / "it.npz")
    back = Explanation.load(tmp_path / "it.npz")
    assert np.array_equal(back.heatmap, before) and np.array_equal(ex.heatmap, before)
    assert back.smoothing == ex.smoothing and np.array_equal(back.to_image(smooth=True), ex.to_image(smooth=True))
    with pytest.raises(ValueError, match=r"smooth belongs to a picture"):
        ex.save(tmp_path / "other.npz", smooth=True)


def test_a_saved_picture_says_it_in_its_text_too(ex, tmp_path):
    ex.save(tmp_path / "smooth.png", smooth=True)
    ex.save(tmp_path / "plain.png")
    with Image.open(tmp_path / "smooth.png") as smooth, Image.open(tmp_path / "plain.png") as plain:
        assert smooth.info["display"] == "smoothed for display, sigma 2.5 × 1.7 px" and "display" not in plain.info
        assert json.loads(smooth.info["ledger"]) == json.loads(plain.info["ledger"])
        assert np.array_equal(smooth.convert("RGB"), ex.to_image(smooth=True))


def test_words_below_a_narrow_picture_are_whole():
    words = "smoothed for display, sigma 3.3 × 7.2 px"
    wide, narrow = (render.noted(Image.new("RGB", (width, 40)), words) for width in (400, 20))
    assert wide.width == 400 and narrow.width < 400
    ink = [(np.asarray(one.convert("L"))[44:] < 128).sum() for one in (wide, narrow)]
    assert ink[1] > 0.8 * ink[0]  # on two lines, not elided


# ---- sheets, reports, the command line -------------------------------------------------------------------------------


def test_sheets_smooth_coarse_maps_and_say_so_in_captions(net, image, monkeypatch):
    rows = []
    monkeypatch.setattr(figures.render, "sheet", lambda grid, **options: rows.extend(grid))
    explanations = net.explain(image, "b", depth=["conv3", "input"])
    figures.depth_sheet(explanations, smooth=True)
    figures.depth_sheet(explanations)
    sheet([net], [image], ["b"], depths=[("input", "conv3")], smooth=True)
    said = [["smoothed for display\nsigma 2.5 × 1.7 px" in panel.caption for panel in row] for row in rows]
    assert said == [[False, True, False, True], [False] * 4, [False, False, True, True]]
    smooth = explanations[0].smoothing(explanations[0].heatmap)
    assert np.array_equal(rows[0][1].image, render.to_image(smooth))
    assert np.array_equal(rows[0][3].image, render.alpha(image, smooth))
    assert np.array_equal(rows[0][2].image, explanations[1].to_image())


def data_of(text):
    return [json.loads(found) for found in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text)]


def test_a_report_holds_both_maps_of_a_coarse_depth(ex, tmp_path):
    ex.report(tmp_path / "plain.html", depth=["conv3", "input"])
    ex.report(tmp_path / "smooth.html", depth=["conv3", "input"], smooth=True)
    plain, smooth = (data_of((tmp_path / f"{name}.html").read_text()) for name in ("plain", "smooth"))
    assert plain[0] == smooth[0] and (plain[1]["smooth"], smooth[1]["smooth"]) == (False, True)
    coarse, fine = plain[0]["viewers"][0]["targets"][0]["maps"]
    assert coarse["smooth"]["note"] == ex.smoothing.words and "smooth" not in fine
    assert coarse["smooth"]["data"] != coarse["data"] and "note" not in coarse


def test_the_command_line_smooths(net, image, tmp_path, capsys):
    Image.fromarray(image).save(tmp_path / "it.png")
    net.save(tmp_path / "net.fvlrp")
    files = [str(tmp_path / "it.png"), "--model", str(tmp_path / "net.fvlrp"), "--quiet"]
    explain = ["explain", *files, "--target", "b", "--depth", "conv3", "--format", "png,npz"]
    assert cli.main([*explain, "--out", str(tmp_path / "out"), "--smooth"]) == 0
    ex = net.explain(image, "b", depth="conv3")
    with Image.open(tmp_path / "out" / "it_b_conv3.png") as picture:
        assert np.array_equal(picture.convert("RGB"), ex.to_image(smooth=True))
    np.testing.assert_allclose(Explanation.load(tmp_path / "out" / "it_b_conv3.npz").heatmap, ex.heatmap)
    # A picture that is not smoothed is another result.
    assert cli.main([*explain, "--out", str(tmp_path / "out"), "--resume"]) == 0
    with Image.open(tmp_path / "out" / "it_b_conv3.png") as picture:
        assert picture.size == (56, 54)
    assert cli.main(["report", *files, "--depth", "conv3", "--out", str(tmp_path / "r.html"), "--smooth"]) == 0
    assert data_of((tmp_path / "r.html").read_text())[-1]["smooth"] is True
    asked = ["compare", *files, "--depth", "input,conv3", "--out"]
    assert cli.main([*asked, str(tmp_path / "c.png"), "--smooth"]) == cli.main([*asked, str(tmp_path / "d.png")]) == 0
    with Image.open(tmp_path / "c.png") as smooth, Image.open(tmp_path / "d.png") as plain:
        assert smooth.height > plain.height  # two more lines of captions
