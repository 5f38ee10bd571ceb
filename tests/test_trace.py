"""What every kind of classifier can be asked: targets, contrasts, depths, and what is kept."""

import gc
import pickle

import numpy as np
import pytest

from fvlrp.core.explanation import Explanation
from fvlrp.core.menu import Menu, spans
from fvlrp.core.target import Contrast
from fvlrp.core.trace import Descent, Trace


class AnyRules(Menu):
    """A menu that takes rules as they are."""

    def rules(self, rules):
        return rules


class Recorder(Trace):
    """A trace that explains nothing and remembers what it was asked."""

    def __init__(self, scores, classes):
        menu = AnyRules(classes, ("coarse", "fine"), "fine", representations=("top", "middle"))
        super().__init__(self, np.zeros((2, 2), np.uint8), "float64", menu)
        self.scores, self.asked = scores, []

    def trace(self, image, dtype):
        return self

    def _descend(self, targets, depths, rules, region):
        return [Descent(np.zeros((2, 2)), t.score(self.scores), {}) for t in targets for _ in depths]

    def relevance(self, target, depth, rules, name):
        self.asked.append((target.label, depth, name))
        return np.arange(3, dtype=np.float32)

    def ask(self, *args):
        """Position of the target, depth and rules of every explanation, in order."""
        found = self.explain(*args)
        one = isinstance(found, Explanation)
        told = [(self.menu.position(ex.target), ex.depth, ex.rules) for ex in ([found] if one else found)]
        return told[0] if one else told


@pytest.fixture
def animals():
    return Recorder(np.array([0.1, 3.0, -2.0]), ["cat", "dog", "cow"])


def test_a_scalar_target_gives_one_explanation_and_a_sequence_a_list(animals):
    assert animals.ask("cow", "coarse", "r") == (2, "coarse", "r")
    assert animals.ask() == (1, "fine", None)
    assert animals.ask(["cow"]) == [(2, "fine", None)]
    assert animals.ask("cow", ("fine",)) == [(2, "fine", None)]
    assert animals.ask([], "fine") == []


@pytest.mark.parametrize("wrap", [list, tuple, np.array])
def test_lists_are_ordered_by_target_then_depth(animals, wrap):
    got = animals.ask(wrap(["cow", "cat"]), wrap(["fine", "coarse"]))
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
        assert trace.ask(target, "fine")[0] == 1


@pytest.mark.parametrize("target", ["bird", 7, True, "Dog", b"dog", ["cat", "bird"]])
def test_unknown_targets_list_the_classes(animals, target):
    with pytest.raises(ValueError, match=r"unknown target .*; classes are cat, dog, cow"):
        animals.ask(target)


def test_a_boolean_is_not_the_integer_class_1():
    with pytest.raises(ValueError, match="unknown target True; classes are 0, 1"):
        Recorder(np.zeros(2), [0, 1]).ask(True)


def test_long_class_lists_are_abbreviated():
    with pytest.raises(ValueError, match=r"classes are c0, .*, c19, \.\.\. \(50 in all\)$"):
        Recorder(np.zeros(50), [f"c{i}" for i in range(50)]).ask("bird")


@pytest.mark.parametrize("depth", ["pixel", 3, ("fine", "pixel")])
def test_unknown_depths_list_the_depths(animals, depth):
    with pytest.raises(ValueError, match=r"unknown depth .*; depths are 'coarse', 'fine'"):
        animals.ask("cat", depth)


MANY = [*(f"blocks.{i}" for i in range(12)), *(f"conv{'abcdefgh'[i % 8]}/{i // 8}/out" for i in range(80)), "input"]


@pytest.mark.parametrize(
    ("depth", "near"), [("Input", "input"), ("block.6", "blocks.6"), ("blocks.12", "blocks.2"), ("qqqq", None)]
)
def test_an_unknown_depth_is_answered_by_the_nearest_and_a_short_list(depth, near):
    with pytest.raises(ValueError, match="unknown depth") as error:
        AnyRules(["cat"], MANY, "input").depth(depth)
    message = str(error.value)
    assert (f"did you mean '{near}'?" in message) if near else ("did you mean" not in message)
    assert "; depths are 'input', 'blocks.0' ... 'blocks.11', 'conva/0/out'" in message
    assert message.endswith("... (93 in all)") and message.count(",") <= 20


def test_names_that_count_up_are_one_entry():
    names = ["layer1.0", "layer1.1", "layer1.2", "layer2.0", "layer2.1", "conv9", "fc", "conv10", "conv11", "conv13"]
    assert spans(names) == ["layer1.0 ... layer1.2", "layer2.0", "layer2.1", "conv9 ... conv11", "fc", "conv13"]


@pytest.mark.parametrize("depth", [np.str_("fine"), np.array("fine")])
def test_numpy_integers_are_accepted_as_depths(animals, depth):
    assert type(animals.menu.depth(depth)) is str


def test_a_menu_checks_without_a_forward_pass(animals):
    menu = animals.menu
    menu.check()
    menu.check(["cat", "dog"], "fine")
    with pytest.raises(ValueError, match="unknown target 'bird'; classes are cat, dog, cow"):
        menu.check(["cat", "bird"], "fine")
    with pytest.raises(ValueError, match="unknown depth 'pixel'; depths are 'coarse', 'fine'"):
        menu.check("cat", ["fine", "pixel"])


def test_the_error_for_an_unknown_target_suggests_the_nearest(animals):
    with pytest.raises(ValueError, match="unknown target 'dgo': did you mean 'dog'"):
        animals.explain("dgo")


@pytest.mark.parametrize(
    "asked, answer",
    [
        ("cat", "did you mean 'Egyptian cat' or 'tiger cat'?"),
        ("EGYPTIAN CAT", "did you mean 'Egyptian cat'?"),
        ("sport car", "did you mean 'sports car'?"),
        ("zebra", "unknown target 'zebra'; classes"),
    ],
)
def test_a_word_finds_the_class_names_that_contain_it(asked, answer):
    names = ["Egyptian cat", "tiger cat", "caterpillar", "sports car"]
    with pytest.raises(ValueError) as caught:
        Recorder(np.zeros(4), names).explain(asked)
    assert answer in str(caught.value)


def test_the_best_classes_come_with_their_scores_best_first(animals):
    trace = animals
    best = trace.top_k(2)
    order = np.argsort(-trace.scores)[:2]
    assert list(best.items()) == [(trace.classes[i], trace.scores[i]) for i in order] and next(iter(best)) == trace.top
    assert len(trace.top_k(99)) == len(trace.classes)
    with pytest.raises(ValueError, match="k must be a whole number of at least 1, got 0"):
        trace.top_k(0)


def test_an_ambiguous_class_name_is_refused_with_the_indices():
    with pytest.raises(ValueError, match=r"target 'crane' names 2 classes; their indices are \[0, 2\]"):
        Recorder(np.zeros(3), ["crane", "dog", "crane"]).explain("crane")


def test_a_contrast_explains_the_difference_of_two_scores(animals):
    ex = animals.explain(Contrast("dog", "cow"))
    assert ex.score == 5.0 and ex.target == Contrast("dog", "cow") and str(ex.target) == "dog - cow"
    assert animals.menu.target(Contrast("dog", "cow")).coefficients(3).tolist() == [0, 1, -1]
    with pytest.raises(ValueError, match="contrasts 'dog' with itself"):
        animals.explain(Contrast("dog", "dog"))


# ---- relevance: computed when asked, or kept ----


def test_relevance_is_computed_once_on_access(animals):
    ex = animals.explain("cow", "fine")
    assert list(ex.relevance) == ["top", "middle"] and len(ex.relevance) == 2 and animals.asked == []
    assert ex.relevance["middle"].dtype == np.float64 and ex.relevance["middle"] is ex.relevance["middle"]
    assert animals.asked == [("cow", "fine", "middle")]
    with pytest.raises(KeyError, match="no relevance at 'three'; representations are 'top', 'middle'"):
        ex.relevance["three"]


def test_relevance_that_was_kept_is_there_without_the_model(animals):
    ex = pickle.loads(pickle.dumps(animals.explain("cow", "fine", keep=("top",))))
    assert animals.asked == [("cow", "fine", "top")]
    assert list(ex.relevance) == ["top"] and ex.relevance["top"].tolist() == [0, 1, 2]
    with pytest.raises(KeyError, match=r"relevance at 'middle' was not kept.* keep=\('middle',\)"):
        ex.relevance["middle"]
    with pytest.raises(ValueError, match="unknown representation 'bottom'; representations are 'top', 'middle'"):
        animals.explain("cow", keep=("bottom",))


def test_an_explanation_holds_no_forward_pass():
    traces = []

    class Model:
        def trace(self, image, dtype):
            traces.append(dtype)
            return Recorder(np.zeros(3), ["cat", "dog", "cow"])

    trace = Recorder(np.zeros(3), ["cat", "dog", "cow"])
    trace.model = Model()
    ex = trace.explain("cow")
    del trace
    gc.collect()
    assert ex.relevance["top"].tolist() == [0, 1, 2] and traces == ["float64"]


def test_a_trace_without_a_way_back_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        Trace(None, np.zeros((2, 2), np.uint8), "float64", None)
