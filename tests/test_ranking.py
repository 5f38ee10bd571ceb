"""Average precision against the devkit's loops, scikit-learn and hand-made rankings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve

from fvlrp.evaluate import average_precision


def by_rows(labels, scores):
    """The devkit's precision and recall, one threshold per row."""
    order = sorted((i for i in range(len(labels)) if labels[i] != 0), key=lambda i: (-scores[i], i))
    recall, precision, hits, positives = [], [], 0, sum(labels[i] == 1 for i in order)
    for rank, i in enumerate(order, 1):
        hits += labels[i] == 1
        recall.append(hits / positives)
        precision.append(hits / rank)
    return recall, precision


def by_scores(labels, scores):
    """scikit-learn's precision and recall, one threshold per distinct score, highest first."""
    kept = [i for i in range(len(labels)) if labels[i] != 0]
    precision, recall, _ = precision_recall_curve([labels[i] == 1 for i in kept], [scores[i] for i in kept])
    return recall[-2::-1], precision[-2::-1]


def plain_average_precision(labels, scores, method, ties):
    """The devkit's loops over points of precision and recall."""
    if not any(label == 1 for label in labels):
        return float("nan")
    recall, precision = {"rows": by_rows, "scores": by_scores}[ties](labels, scores)
    if method == "11point":
        best = [
            max((p for r, p in zip(recall, precision, strict=True) if r >= t / 10 - 1e-12), default=0)
            for t in range(11)
        ]
        return sum(best) / 11
    mrec, mpre = [0, *recall, 1], [0, *precision, 0]
    for i in reversed(range(len(mpre) - 1)):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum((mrec[i + 1] - mrec[i]) * mpre[i + 1] for i in range(len(mrec) - 1))


ranked = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.integers(-3, 3)), min_size=1, max_size=40)


@pytest.mark.parametrize("ties", ["rows", "scores"])
@pytest.mark.parametrize("method", ["11point", "area"])
@settings(max_examples=100, deadline=None)
@given(ranked)
def test_average_precision_is_the_devkits(method, ties, rows):
    labels, scores = map(list, zip((-1, -9), *rows, strict=True))  # a clear -1, so that 0 means ignored
    found = average_precision(labels, scores, method, ties=ties)
    expected = plain_average_precision(labels, scores, method, ties)
    np.testing.assert_allclose(found, expected, rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize("method", ["11point", "area"])
def test_the_order_of_rows_does_not_matter_where_scores_tie(method, rng):
    labels, scores = rng.choice([-1, 0, 1], size=200), rng.integers(5, size=200)
    found = average_precision(labels, scores, method)
    for _ in range(20):
        shuffled = rng.permutation(200)
        assert average_precision(labels[shuffled], scores[shuffled], method) == found
    assert average_precision(labels, np.zeros(200), method) == pytest.approx((labels == 1).sum() / (labels != 0).sum())


@pytest.mark.parametrize(
    ("labels", "eleven", "area"),
    [
        ([1, 1, -1, -1], 1, 1),
        ([-1, 1], 1 / 2, 1 / 2),
        ([1, -1, 1, -1], (6 + 5 * 2 / 3) / 11, 1 / 2 + 1 / 2 * 2 / 3),
        # The dip at rank 2 and 3 is filled by the 3 of 5 behind it.
        ([1, -1, -1, 1, 1], (4 + 7 * 3 / 5) / 11, 1 / 3 + 2 / 3 * 3 / 5),
        ([1, 0, 0, -1, 1, -1], (6 + 5 * 2 / 3) / 11, 1 / 2 + 1 / 2 * 2 / 3),
    ],
)
def test_average_precision_of_hand_made_rankings(labels, eleven, area):
    scores = -np.arange(len(labels))
    assert average_precision(labels, scores) == pytest.approx(eleven, rel=1e-14)
    assert average_precision(labels, scores, "area") == pytest.approx(area, rel=1e-14)


def test_a_recall_of_exactly_three_tenths_counts_at_three_tenths():
    # 3 of 10 positives first, then a negative: 3 / 10 < 3 · .1 in floats, and the precision there must still be 1.
    labels = [1] * 3 + [-1] * 10 + [1] * 7
    tail = 10 / 20
    assert average_precision(labels, -np.arange(20)) == pytest.approx((4 + 7 * tail) / 11, rel=1e-14)


def test_area_is_scikit_learns_where_precision_only_falls():
    labels = np.array([1, 1, 1, -1, 1, -1, -1, 1, -1, -1, -1])
    scores = -np.arange(11.0)
    assert average_precision(labels, scores, "area") == pytest.approx(
        average_precision_score(labels == 1, scores), rel=1e-14
    )
    rng = np.random.default_rng(0)
    for _ in range(20):
        labels, scores = rng.choice([-1, 1], size=30), rng.normal(size=30)
        assert average_precision(labels, scores, "area") >= average_precision_score(labels == 1, scores) - 1e-14


def test_zero_means_absent_where_no_minus_one_occurs():
    signs = np.array([[1, -1], [-1, 1], [-1, -1], [1, 1]])
    scores = np.random.default_rng(1).normal(size=(4, 2))
    expected = average_precision(signs, scores)
    np.testing.assert_array_equal(average_precision((signs + 1) // 2, scores), expected)
    np.testing.assert_array_equal(average_precision(signs == 1, scores), expected)


def test_zero_stays_ignored_in_a_class_that_lacks_a_minus_one():
    labels = np.array([[0, -1], [1, 1], [0, -1]])
    scores = -np.arange(3.0)[:, None] + np.zeros((3, 2))
    np.testing.assert_allclose(average_precision(labels, scores), [1, 0.5])


@pytest.mark.parametrize("method", ["11point", "area"])
def test_a_class_without_positives_is_nan_and_the_others_are_not(method):
    labels = np.array([[1, -1, 0], [-1, -1, 0]])
    np.testing.assert_array_equal(average_precision(labels, np.zeros((2, 3)), method), [0.5, np.nan, np.nan])


def test_vocs_own_ties_keep_the_order_of_rows():
    labels = np.array([1] * 20 + [-1] * 20)
    assert average_precision(labels, np.zeros(40), "area", ties="rows") == 1
    assert average_precision(labels[::-1], np.zeros(40), "area", ties="rows") == 0.5


@pytest.mark.parametrize(
    ("labels", "scores", "method", "words"),
    [
        ([1, -1], [0.0], "area", r"\(2,\) and scores \(1,\)"),
        ([[[1]]], [[[1]]], "area", "must both be"),
        ([1, 2], [0, 0], "area", "labels hold"),
        ([1, -1], [0, np.nan], "area", "1 scores are NaN"),
        ([1, -1], [0, 1], "voc", "method is 'voc'"),
    ],
)
def test_bad_rankings_are_refused(labels, scores, method, words):
    with pytest.raises(ValueError, match=words):
        average_precision(labels, scores, method)


def test_unknown_ties_are_refused():
    with pytest.raises(ValueError, match="ties is 'first'; expected 'scores' or 'rows'"):
        average_precision([1, -1], [0, 1], ties="first")
