"""Sheets of explanations: who stands where, and what cannot be laid out."""

import numpy as np
import pytest
from PIL import Image

import fvlrp
from fvlrp.core import captions, figures
from fvlrp.show import render
from fvlrp.show.colours import colour


@pytest.fixture
def laid(monkeypatch):
    """What the figures hand to render.sheet."""
    seen = []
    sheet = render.sheet

    def keep(rows, **options):
        seen.append((rows, options))
        return sheet(rows, **options)

    monkeypatch.setattr(render, "sheet", keep)
    return seen


def test_depth_sheet_has_a_row_per_target_and_a_column_per_depth(plain, photo, laid):
    depths = ["vector", "descriptor", "bin"]
    explanations = plain.trace(photo).explain(["grass", "brick"], depths)
    small, large = (figures.depth_sheet(explanations, height=height) for height in (80, 160))
    assert isinstance(small, Image.Image) and small.width < large.width and small.height < large.height
    rows, options = laid[0]
    assert options["column_titles"] == ["photograph", *depths, "alpha"] and options["height"] == 80
    assert [len(row) for row in rows] == [5, 5]
    for row, group in zip(rows, (explanations[:3], explanations[3:]), strict=True):
        assert np.array_equal(row[0].image, photo) and row[0].caption.startswith(group[0].target)
        for panel, ex in zip(row[1:4], group, strict=True):
            assert np.array_equal(panel.image, colour(ex.heatmap)) and panel.caption == captions.brief(ex.ledger)
        assert np.array_equal(row[4].image, render.alpha(photo, group[1].heatmap))
        assert row[4].caption == "positive, descriptor"


def test_the_alpha_channel_names_the_depth_that_it_shows(plain, photo, laid):
    figures.depth_sheet([plain.explain(photo, "grass", "bin")])
    assert laid[0][0][0][-1].caption == "positive, bin"  # no coarse depth was asked for


def test_an_alpha_panel_without_positive_relevance_says_so(plain, photo, laid):
    ex = plain.explain(photo, "grass", "bin")
    ex.heatmap = -abs(ex.heatmap)
    figures.depth_sheet([ex])
    assert laid[0][0][0][-1].caption == "nothing positive\nbin"


def test_a_sheet_of_many_depths_continues_on_further_rows(plain, photo, laid):
    explanations = []
    for at in range(40):
        explanations.append(plain.explain(photo, "grass", "bin"))
        explanations[-1].depth = f"layer{at}"
    picture = figures.depth_sheet(explanations, height=80)
    ((rows, _),) = laid
    assert [len(row) for row in rows] == [8] * 5 + [2]  # the photograph, 40 maps, and alpha
    captions_of = [panel.caption for row in rows for panel in row]
    assert [words.splitlines()[0] for words in captions_of[1:-1]] == [f"layer{at}" for at in range(40)]
    whole = figures.depth_sheet(explanations[:6], height=80)  # but for the taller bar, whose labels are longer
    assert picture.width < 1.1 * whole.width


def test_depth_sheet_refuses_explanations_without_a_grid(plain, photo):
    one, other = plain.explain(photo, "grass", ["bin", "vector"])
    for explanations in ([one, other, one], [one, other, other, one]):
        with pytest.raises(ValueError, match="the same depths, in the same order"):
            figures.depth_sheet(explanations)
    with pytest.raises(ValueError, match="at least one Explanation, got none"):
        figures.depth_sheet([])


def test_sheet_has_four_columns_a_model_and_a_row_an_image(plain, centred, photo, textures, laid):
    image = textures(1, seed=4)[0][1]
    sheet = fvlrp.sheet([plain, centred], [photo, image], ["brick", ("grass", "gravel")], names=["three", "two"])
    assert isinstance(sheet, Image.Image)
    ((rows, options),) = laid
    columns = ["high resolution", "low resolution", "low, as alpha"]
    assert options["column_titles"] == ["three", *columns, "two", *columns]
    assert [len(row) for row in rows] == [8, 8]
    high, low = centred.explain(image, "gravel", ("bin", "descriptor"))
    got = [panel.image for panel in rows[1][4:]]
    for panel, ex in zip(got[1:3], (high, low), strict=True):
        assert np.array_equal(panel, colour(ex.heatmap, cmap="paper"))
    assert np.array_equal(got[0], high.image)
    assert np.array_equal(got[3], render.alpha(image, low.heatmap))
    assert [row[at].caption.split()[0] for row in rows for at in (0, 4)] == ["brick", "brick", "grass", "gravel"]


def test_three_models_stand_one_below_the_other(plain, centred, photo, laid):
    fvlrp.sheet([plain, centred, plain], [photo, photo], ["brick", "gravel"], names=["a", "b", "c"])
    ((rows, options),) = laid
    assert options["column_titles"] == ["photograph", "high resolution", "low resolution", "low, as alpha"]
    assert options["row_titles"] == ["a", "b", "c"] * 2 and [len(row) for row in rows] == [4] * 6
    assert [row[0].caption.split()[0] for row in rows] == ["brick"] * 3 + ["gravel"] * 3
    high, _ = centred.explain(photo, "brick", ("bin", "descriptor"))
    assert np.array_equal(rows[1][1].image, colour(high.heatmap, cmap="paper"))


def test_sheet_shows_the_requested_depths(plain, centred, photo, laid):
    fvlrp.sheet([plain, centred], [photo], ["brick"], depths=[("gradient", "vector"), None])
    ((row,), _) = laid[0]
    high, low = plain.explain(photo, "brick", ("gradient", "vector"))
    for panel, ex in zip(row[1:3], (high, low), strict=True):
        assert np.array_equal(panel.image, colour(ex.heatmap, cmap="paper"))
    assert np.array_equal(row[3].image, render.alpha(photo, low.heatmap))
    firsts = [panel.caption.splitlines()[0] for panel in row]
    assert firsts[1:4] == ["gradient", "vector", "positive, vector"]
    assert firsts[5:] == ["bin", "descriptor", "positive, descriptor"]


@pytest.mark.parametrize(
    ("depths", "words"),
    [
        ([("bin", "vector")], "depths must hold high and low of each model: 2 models, 1 entries"),
        ([("bin", "vector", "bin"), None], "depths must be two for each model, .* got .'bin', 'vector', 'bin'."),
        (["bin", None], "depths must be two for each model, .* got 'bin'"),
        ([("bin", "pixels"), None], "unknown depth 'pixels'"),
    ],
)
def test_depths_of_a_sheet_are_checked(plain, centred, photo, depths, words):
    with pytest.raises(ValueError, match=words):
        fvlrp.sheet([plain, centred], [photo], ["brick"], depths=depths)


def test_the_resolution_of_a_reduced_photograph_is_below_it(centred, photographs, laid):
    ex = centred.explain(photographs[2], "gravel", "bin")  # to 64 rows
    assert ex.seen.height == 64 and ex.seen.is_all(ex.image.shape)
    figures.depth_sheet([ex])
    assert laid[0][0][0][0].caption.endswith(f"seen at 64 × {ex.seen.width}")


@pytest.mark.parametrize("wrap", [list, np.array])
def test_classes_of_several_models_may_be_a_list(plain, centred, photo, laid, wrap):
    fvlrp.sheet([plain, centred], [photo], [wrap(["grass", "gravel"])])
    ((rows, _),) = laid
    assert [rows[0][at].caption.split()[0] for at in (0, 4)] == ["grass", "gravel"]


def test_every_target_of_a_sheet_is_checked_before_any_work(plain, photo, monkeypatch):
    monkeypatch.setattr(type(plain), "trace", None)
    with pytest.raises(ValueError, match="unknown target 'bird'"):
        fvlrp.sheet([plain], [photo, photo], ["grass", "bird"])


def test_sheet_of_one_model_names_it(plain, photo, laid):
    fvlrp.sheet(plain, [photo], [None])
    ((rows, options),) = laid
    assert options["column_titles"][0] == "FisherVectorClassifier"
    assert rows[0][0].caption.startswith(plain.trace(photo).top)


def test_sheet_needs_models_and_images(plain, photo):
    with pytest.raises(ValueError, match="models must hold at least one classifier, got none"):
        fvlrp.sheet([], [photo], ["grass"])
    with pytest.raises(ValueError, match="images must hold at least one image, got none"):
        fvlrp.sheet([plain], [], [])
    with pytest.raises(ValueError, match=r"got one array of shape \(50, 55, 3\): \[image\]\?"):
        fvlrp.sheet([plain], photo, ["grass"])
    with pytest.raises(ValueError, match=r"one class per image, got None"):
        fvlrp.sheet([plain], [photo], None)
    with pytest.raises(TypeError, match="models must be classifiers, got 5"):
        fvlrp.sheet([plain, 5], [photo], ["grass"])
    with pytest.raises(ValueError, match=r"one class per image, got 'grass': \['grass'\]\?"):
        fvlrp.sheet([plain], [photo], "grass")


@pytest.mark.parametrize(
    ("targets", "names", "words"),
    [
        ([], None, "one class per image: 1 images, 0 targets"),
        (["grass"], ["a", "b"], "every model: 1 models, 2 names"),
        ([("grass", "brick")], None, "one class per model: 1 models, got"),
        (["bird"], None, "unknown target 'bird'; classes are brick, grass, gravel"),
    ],
)
def test_sheet_refuses_mismatched_arguments(plain, photo, targets, names, words):
    with pytest.raises(ValueError, match=words):
        fvlrp.sheet([plain], [photo], targets, names=names)
