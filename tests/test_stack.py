"""What every kind of classifier shares: the ledger, lazy relevance, who and how deep is asked, explanations."""

import json

import numpy as np
import pytest
from PIL import Image

from fvlrp.core.stack import Explanation, Ledger, Menu, Relevances, Trace
from fvlrp.data import files
from fvlrp.rules import FisherRules
from fvlrp.show import render

# ---- ledger ----


def test_a_ledger_closes_where_its_entries_sum_to_the_score():
    told = {"score": 3.0, "absorbed": 1.5, "bias": -0.5, "heatmap": 2.0}
    ledger = Ledger(told, exact=True)
    assert dict(ledger) == ledger.to_dict() == told and len(ledger) == 4
    assert ledger.size == 7.0 and ledger.residual == 0.0 and ledger.closes(0.0)
    assert not Ledger({**told, "absorbed": -1.5}, exact=True).closes()
    assert not Ledger({**told, "absorbed": np.nan}, exact=True).closes()


@pytest.mark.parametrize(("exact", "granted"), [(True, 1e-9), (False, 1e-5)])
def test_what_may_be_missing_depends_on_the_arithmetic(exact, granted):
    for share, closes in ((0.5, True), (2.0, False)):
        ledger = Ledger({"score": 1.0, "heatmap": 1.0 - 2 * share * granted}, exact)
        assert ledger.closes() == closes
        assert ledger.closes(1e-3)
    assert not Ledger({"score": 1.0, "heatmap": 0.9}, exact).closes(1e-3)


def test_only_float32_shows_rounding():
    entries = {"score": 1.0, "bias": 0.25, "heatmap": 0.5}
    assert "rounding" not in Ledger(entries, exact=True)
    fast = Ledger(entries, exact=False)
    assert list(fast) == ["score", "bias", "rounding", "heatmap"]
    assert fast["rounding"] == fast.residual == 0.25
    assert not fast.closes()  # rounding is shown, not excused


def test_a_ledger_prints_its_stages():
    ledger = Ledger({"score": 1.0, "empty_cell": -0.25, "heatmap": 1.25}, exact=True)
    assert str(ledger).splitlines() == ["score       +1", "empty_cell  -0.25", "heatmap     +1.25"]
    assert repr(ledger) == "Ledger(score=1, empty_cell=-0.25, heatmap=1.25)"


# ---- relevance, made when asked ----


def test_relevance_is_made_once_when_asked():
    made = []
    relevance = Relevances({"one": lambda: made.append("one") or [1, 2], "two": lambda: made.append("two") or [3]})
    assert list(relevance) == ["one", "two"] and len(relevance) == 2 and made == []
    assert relevance["two"].dtype == np.float64
    assert relevance["two"] is relevance["two"] and made == ["two"]
    with pytest.raises(KeyError, match="no relevance at 'three'; representations are 'one', 'two'"):
        relevance["three"]


# ---- who, and how deep ----


class Recorder(Trace):
    """A trace that explains nothing and remembers what it was asked."""

    def __init__(self, scores, classes):
        super().__init__(scores, Menu(classes, ("coarse", "fine"), "fine"))

    def _explain(self, positions, depths, rules):
        return [(position, depth, rules) for position in positions for depth in depths]


@pytest.fixture
def animals():
    return Recorder(np.array([0.1, 3.0, -2.0]), ["cat", "dog", "cow"])


def test_a_scalar_gives_one_and_a_sequence_a_list(animals):
    assert animals.explain("cow", "coarse", "r") == (2, "coarse", "r")
    assert animals.explain() == (1, "fine", None)
    assert animals.explain(["cow"]) == [(2, "fine", None)]
    assert animals.explain("cow", ("fine",)) == [(2, "fine", None)]
    assert animals.explain([], "fine") == []


@pytest.mark.parametrize("wrap", [list, tuple, np.array])
def test_lists_are_target_by_target(animals, wrap):
    got = animals.explain(wrap(["cow", "cat"]), wrap(["fine", "coarse"]))
    assert [(p, str(d)) for p, d, _ in got] == [(2, "fine"), (2, "coarse"), (0, "fine"), (0, "coarse")]


@pytest.mark.parametrize(
    ("classes", "targets"),
    [
        (["cat", "dog"], ["dog", np.str_("dog"), np.array(["cat", "dog"])[1], np.array("dog")]),
        (np.array(["cat", "dog"], object), ["dog"]),
        ([3, 5], [5, np.int64(5), "5", 5.0]),
        (np.array([3, 5]), [5, np.int8(5)]),
        ([0, 1], [1, "1"]),
        ([False, True], [True, np.True_, "True"]),
        (np.array([False, True]), [True, np.True_]),
        ([0.5, 1.5], [1.5, np.float64(1.5), "1.5"]),
    ],
)
def test_targets_are_names_or_values_of_the_classes(classes, targets):
    trace = Recorder(np.array([0.0, 1.0]), classes)
    for target in [*targets, trace.top, None]:
        assert trace.explain(target, "fine")[0] == 1


@pytest.mark.parametrize("target", ["bird", 7, True, "Dog", b"dog", ["cat", "bird"]])
def test_unknown_targets_list_the_classes(animals, target):
    with pytest.raises(ValueError, match=r"unknown target .*; classes are cat, dog, cow"):
        animals.explain(target)


def test_true_is_not_the_class_1():
    with pytest.raises(ValueError, match="unknown target True; classes are 0, 1"):
        Recorder(np.zeros(2), [0, 1]).explain(True)


def test_many_classes_are_not_all_listed():
    with pytest.raises(ValueError, match=r"classes are c0, .*, c39, \.\.\.$"):
        Recorder(np.zeros(50), [f"c{i}" for i in range(50)]).explain("bird")


@pytest.mark.parametrize("depth", ["pixel", 3, ("fine", "pixel")])
def test_unknown_depths_list_the_depths(animals, depth):
    with pytest.raises(ValueError, match=r"unknown depth .*; depths are 'coarse', 'fine'"):
        animals.explain("cat", depth)


@pytest.mark.parametrize("depth", [np.str_("fine"), np.array("fine")])
def test_depths_of_numpy_are_pythons(animals, depth):
    assert type(animals.menu.depth(depth)) is str


def test_a_menu_checks_without_a_forward_pass(animals):
    menu = animals.menu
    menu.check()
    menu.check(["cat", "dog"], "fine")
    with pytest.raises(ValueError, match="unknown target 'bird'; classes are cat, dog, cow"):
        menu.check(["cat", "bird"], "fine")
    with pytest.raises(ValueError, match="unknown depth 'pixel'; depths are 'coarse', 'fine'"):
        menu.check("cat", ["fine", "pixel"])


# ---- explanations ----


@pytest.fixture
def explanation(rng):
    return Explanation(
        heatmap=rng.standard_normal((30, 40)),
        score=np.float32(1.5),
        target="dog",
        depth="fine",
        rules=FisherRules(),
        relevance=Relevances({}),
        ledger=Ledger({"score": 1.5, "heatmap": 1.5}, True),
        image=rng.integers(0, 256, (30, 40, 3), np.uint8),
    )


def test_an_explanation_says_what_it_is(explanation):
    assert repr(explanation) == "<Explanation of 'dog': score +1.5, depth 'fine', 30 x 40>"
    summary = json.loads(json.dumps(explanation.summary()))
    assert summary["heatmap_sum"] == explanation.heatmap.sum() and summary["shape"] == [30, 40]
    assert summary["rules"] == FisherRules().to_dict() and summary["ledger"] == {"score": 1.5, "heatmap": 1.5}


def test_pictures_of_an_explanation_are_renders(explanation):
    ex = explanation
    wanted = render.overlay(ex.image, ex.heatmap, cmap="paper", gamma=0.3, scale=2.0)
    assert np.array_equal(ex.overlay(gamma=0.3, scale=2.0), wanted)
    assert np.array_equal(ex.alpha(background=255), render.alpha(ex.image, ex.heatmap, background=255))
    assert np.array_equal(ex.alpha(scale="99%"), render.alpha(ex.image, ex.heatmap, scale="99%"))
    assert np.array_equal(ex.to_image(scale=2.0), render.to_image(ex.heatmap, scale=2.0))
    assert ex._repr_png_().startswith(b"\x89PNG")


def test_an_explanation_is_saved_as_picture_or_numbers(explanation, tmp_path):
    explanation.save(tmp_path / "it.png", scale=2.0)
    with Image.open(tmp_path / "it.png") as picture:
        assert picture.info["target"] == "dog" and json.loads(picture.info["ledger"])["score"] == 1.5
        assert np.array_equal(picture.convert("RGB"), explanation.to_image(scale=2.0).convert("RGB"))
    explanation.save(tmp_path / "it.npz")
    header, arrays = files.load_arrays(tmp_path / "it.npz", "explanation")
    assert np.array_equal(arrays["heatmap"], explanation.heatmap) and header["depth"] == "fine"
    with pytest.raises(ValueError, match=r"cmap, bar belongs to a picture \(\.png\)"):
        explanation.save(tmp_path / "other.npz", cmap="safe", bar=True)
    with pytest.raises(ValueError, match=r"must end in \.png \(picture\) or \.npz \(numbers\), got 'it\.jpg'"):
        explanation.save("it.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it.npz", "it.png"]
