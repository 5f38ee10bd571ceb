"""An explanation as pictures, numbers and files."""

import json

import numpy as np
import pytest
from PIL import Image

from fvlrp.core import captions
from fvlrp.core.explanation import Explanation, Relevances
from fvlrp.core.ledger import Ledger
from fvlrp.core.seen import Seen
from fvlrp.data import files
from fvlrp.rules import FisherRules
from fvlrp.show import render


@pytest.fixture
def explanation(rng):
    return Explanation(
        heatmap=rng.standard_normal((30, 40)),
        score=np.float32(1.5),
        target="dog",
        depth="fine",
        rules=FisherRules(),
        relevance=Relevances(("bin",), None, {"bin": rng.random((3, 4, 4))}),
        ledger=Ledger({"score": 1.5, "heatmap": 1.5}, True),
        image=rng.integers(0, 256, (30, 40, 3), np.uint8),
    )


def test_repr_of_an_explanation(explanation):
    assert repr(explanation) == "<Explanation of 'dog': score +1.5, depth 'fine', 30 x 40>"
    summary = json.loads(json.dumps(explanation.summary()))
    assert summary["heatmap_sum"] == explanation.heatmap.sum() and summary["shape"] == [30, 40]
    assert summary["rules"] == FisherRules().to_dict() and summary["ledger"] == {"score": 1.5, "heatmap": 1.5}


def test_pictures_of_an_explanation_are_renders(explanation):
    ex = explanation
    wanted = render.overlay(ex.image, ex.heatmap, cmap="safe", gamma=0.3, scale=2.0)
    assert np.array_equal(ex.overlay(gamma=0.3, scale=2.0), wanted)
    assert np.array_equal(ex.alpha(background=255), render.alpha(ex.image, ex.heatmap, background=255))
    assert np.array_equal(ex.alpha(scale="99%"), render.alpha(ex.image, ex.heatmap, scale="99%"))
    assert np.array_equal(ex.to_image(scale=2.0), render.to_image(ex.heatmap, scale=2.0))
    assert ex._repr_png_().startswith(b"\x89PNG")


def test_pictures_are_hatched_where_the_model_saw_nothing(explanation):
    ex, box = explanation, (0, 5, 30, 35)
    plain = [np.asarray(one) for one in (ex.to_image(), ex.overlay(), ex.alpha())]
    ex.seen = Seen(*box, 24, 24)
    for before, after in zip(plain, (ex.to_image(), ex.overlay(), ex.alpha()), strict=True):
        assert np.array_equal(after, render.hatched(before, box)) and not np.array_equal(after, before)


def test_the_seen_part_is_in_an_explanation_and_its_files(explanation, tmp_path):
    assert explanation.seen == Seen(0, 0, 30, 40, 30, 40)  # nothing said: all of it, as it is
    explanation.seen = Seen(0, 5, 30, 35, 24, 24)
    assert explanation.summary()["seen"] == {"box": [0, 5, 30, 35], "pixels": [24, 24]}
    explanation.save(tmp_path / "it.npz")
    assert Explanation.load(tmp_path / "it.npz").seen == explanation.seen
    explanation.save(tmp_path / "it.png")
    with Image.open(tmp_path / "it.png") as picture:
        assert json.loads(picture.info["seen"]) == explanation.seen.to_dict()
    header, arrays = files.load_arrays(tmp_path / "it.npz", "explanation")
    del header["seen"]
    files.save_arrays(tmp_path / "old.npz", header, arrays)
    assert Explanation.load(tmp_path / "old.npz").seen == Seen(0, 0, 30, 40, 30, 40)
    files.save_arrays(tmp_path / "bad.npz", {**header, "seen": {"box": [1], "pixels": [2, 2]}}, arrays)
    with pytest.raises(ValueError, match="not an explanation that this fvlrp can read"):
        Explanation.load(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("seen", "shape", "words", "brief"),
    [
        (Seen(0, 0, 30, 40, 30, 40), (30, 40), "", ""),
        (
            Seen(0, 0, 4000, 5333, 480, 640),
            (4000, 5333, 3),
            "The model saw the photograph of 4000 × 5333 pixels, reduced to 480 × 640: "
            "the map has no details finer than 8.3 pixels.",
            "seen at 480 × 640",
        ),
        (
            Seen(0, 0, 30, 40, 60, 80),
            (30, 40),
            "The model saw the photograph of 30 × 40 pixels, enlarged to 60 × 80.",
            "seen at 60 × 80",
        ),
        (
            Seen(0, 5, 30, 35, 30, 30),
            (30, 40),
            "Of 30 × 40 pixels the model saw 30 × 30. The rest was cut off and is hatched.",
            "seen at 30 × 30",
        ),
    ],
)
def test_captions_say_at_which_resolution_a_photograph_was_seen(seen, shape, words, brief):
    assert (captions.seen(seen, shape), captions.brief_seen(seen, shape)) == (words, brief)


def test_an_explanation_is_saved_as_picture_or_numbers(explanation, tmp_path):
    explanation.save(tmp_path / "it.png", scale=2.0)
    explanation.save(tmp_path / "same.png", scale=2.0, level=9)
    with Image.open(tmp_path / "it.png") as picture, Image.open(tmp_path / "same.png") as same:
        assert np.array_equal(picture.convert("RGB"), same.convert("RGB"))
        assert picture.info["target"] == "dog" and json.loads(picture.info["ledger"])["score"] == 1.5
        assert np.array_equal(picture.convert("RGB"), explanation.to_image(scale=2.0).convert("RGB"))
    explanation.save(tmp_path / "it.npz")
    header, arrays = files.load_arrays(tmp_path / "it.npz", "explanation")
    assert np.array_equal(arrays["heatmap"], explanation.heatmap) and header["depth"] == "fine"
    with pytest.raises(ValueError, match=r"cmap, bar belongs to a picture \(\.png\)"):
        explanation.save(tmp_path / "other.npz", cmap="safe", bar=True)
    with pytest.raises(ValueError, match=r"must end in \.png \(picture\) or \.npz \(numbers\), got 'it\.jpg'"):
        explanation.save("it.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it.npz", "it.png", "same.png"]


def test_a_saved_explanation_is_read_back(explanation, tmp_path):
    explanation.save(tmp_path / "it.npz")
    back = Explanation.load(tmp_path / "it.npz")
    assert back.summary() == json.loads(json.dumps(explanation.summary()))
    assert np.array_equal(back.heatmap, explanation.heatmap) and np.array_equal(back.image, explanation.image)
    assert np.array_equal(back.relevance["bin"], explanation.relevance["bin"])
    assert np.array_equal(back.overlay(), explanation.overlay()) and back.ledger.exact
    assert FisherRules.of(back.rules) == explanation.rules


@pytest.mark.parametrize(
    "change",
    [
        {"ledger": 0.5},
        {"stride": [float("inf"), 1]},
        {"best": 3},
        {"region": "a"},
        {"region": [0, 0, 0, 5]},
        {"region": [0, 0, 1, 1 << 70]},
        {"seen": {"box": [0, 0, 1, 1], "pixels": [0, 5]}},
        {"heatmap": np.nan},
        {"heatmap": -np.inf},
    ],
)
def test_an_explanation_with_values_that_it_cannot_have_is_refused_by_name(explanation, tmp_path, change, monkeypatch):
    path = tmp_path / "broken.npz"
    explanation.save(path)
    header, arrays = files.load_arrays(path)
    if "heatmap" in change:
        arrays["heatmap"][0, 0] = change["heatmap"]
    else:
        header |= change
    monkeypatch.setattr(files, "load_arrays", lambda *_: (header, arrays))  # JSON's Infinity, which we do not write
    with pytest.raises(ValueError, match=r"broken\.npz is not an explanation"):
        Explanation.load(path)


def test_the_error_for_a_file_that_is_not_an_explanation_names_it(explanation, tmp_path):
    path = tmp_path / "it.npz"
    files.save_arrays(path, {"kind": "explanation", "score": 1.0}, {"heatmap": np.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"it\.npz is not an explanation that this fvlrp can read"):
        Explanation.load(path)
