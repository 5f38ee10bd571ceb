"""Sums whose sign is uncertain in float32: which they are, and that recomputing them in float64 corrects heatmaps."""

from dataclasses import replace

import numpy as np
import pytest

from fvlrp import load
from fvlrp.fisher import settle
from fvlrp.fisher import trace as fisher_trace

EPSILON = np.full(8, 1.0)  # of each cell


def off(got, wanted):
    """Relative L2 distance."""
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


@pytest.fixture
def passes(plain, photo):
    """(models, fast sums, exact sums) of a photograph with zeroed descriptors."""
    fast, exact = (plain.trace(photo, dtype) for dtype in ("float32", "float64"))
    rough, right = (trace._pass(trace.dtype).encode.fisher for trace in (fast, exact))
    assert any(map(len, rough.zeros))
    return fast.stack.encode.models, rough, right


# ---- with the package's constants, on photographs ----

# Photographs of VOC in which a sum that shows in the heatmap has the wrong sign in float32.
VOC = {
    "2011_000642": "bus",
    "2007_003188": "chair",
    "2007_000572": "bicycle",
    "2009_001937": "bottle",
    "2009_000989": "bird",
}


@pytest.mark.parametrize(("name", "target"), VOC.items())
def test_fast_heatmaps_of_photographs_agree_where_sums_cancel(data, name, target):
    photograph = data / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{name}.jpg"
    fast, exact = (load("voc20").trace(photograph, dtype).explain(target, "bin") for dtype in ("float32", "float64"))
    assert off(fast.heatmap, exact.heatmap) <= 2e-4 and fast.ledger.closes()


@pytest.fixture(scope="module")
def pieces():
    """(fast trace, exact trace) of pieces of the photographs that scikit-image carries; some have doubtful sums."""
    samples = pytest.importorskip("skimage.data")
    clf, found = load("voc20"), []
    for name, y, x, height, width in (
        ("brick", 60, 180, 200, 250),
        ("grass", 120, 60, 300, 400),
        ("gravel", 100, 60, 200, 250),
        ("coffee", 0, 0, 200, 250),
        ("astronaut", 120, 60, 300, 400),
    ):
        image = getattr(samples, name)()[y : y + height, x : x + width]
        found.append((clf.trace(image), clf.trace(image, "float64")))
    return found


def pooled_of(trace):
    return trace._pass(trace.dtype).encode.fisher


def test_errors_of_float32_sums_are_within_the_constants(pieces):
    """Of the sums that are large enough to show, 99 % have errors below DOUBT; those of wrong sign are in doubt."""
    beyond = shown = missed = 0
    for fast, exact in pieces:
        rough, right = pooled_of(fast), pooled_of(exact)
        s0 = right.occupancy[:, None, :, None]
        squares = (right.sums[:, 1] * np.sqrt(2 / right.priors)[:, None])[:, None] + s0 / right.priors[:, None]
        shows = np.broadcast_to(squares > (settle.SHOWS * right.sums.size * 100) ** 2, right.sums.shape)
        error = np.abs(rough.sums - right.sums) > settle.DOUBT * np.sqrt(s0 * np.maximum(squares, 0))
        beyond, shown = beyond + (error & shows).sum(), shown + shows.sum()
        wrong = shows & (np.sign(rough.sums) != np.sign(right.sums))
        missed += (wrong & ~settle.in_doubt(rough, np.full(8, 100.0))).sum()
    assert missed <= 1  # of a few wrong signs, which depend on the instruction set
    assert shown > 100_000 and 0.001 * shown < beyond < 0.02 * shown


def test_a_wrong_sign_changes_the_heatmap_and_settling_corrects_it(pieces, monkeypatch):
    errors = []
    for fast, exact in pieces:
        rough, wanted = pooled_of(fast), exact.explain(exact.top, "bin").heatmap
        assert off(fast.explain(exact.top, "bin").heatmap, wanted) < 1e-4
        doubtful = settle.in_doubt(rough, np.full(8, 100.0))
        if doubtful.any():
            signs = np.where(doubtful, -np.sign(pooled_of(exact).sums), np.sign(rough.sums))
            wrong = replace(rough, sums=signs * np.abs(rough.sums))
            with monkeypatch.context() as patch:
                patch.setattr(fisher_trace, "settled", lambda *_, wrong=wrong: wrong)
                unsettled = type(fast)(fast.model, fast.source)
                errors.append(off(unsettled.explain(exact.top, "bin").heatmap, wanted))
    assert len(errors) > 1 and max(errors) > 2e-4


# ---- which sums are in doubt, and what becomes of them ----


def test_doubtful_sums_become_those_of_float64(passes, monkeypatch):
    """With a larger DOUBT, so that some sums are doubtful; the others do not change."""
    models, rough, right = passes
    monkeypatch.setattr(settle, "DOUBT", 0.02)
    doubtful = settle.in_doubt(rough, EPSILON)
    assert 3 < doubtful.sum() < 0.1 * doubtful.size
    big = replace(rough, values=np.concatenate([rough.values] * 30))  # so many that only doubtful sums are recomputed
    one, two = (settle.settled(replace(big, n_jobs=n_jobs), models, EPSILON, pytest.fail) for n_jobs in (1, 2))
    assert np.array_equal(one.sums, two.sums) and np.array_equal(one.sums != rough.sums, doubtful)
    np.testing.assert_allclose(one.sums[doubtful], right.sums[doubtful], rtol=0, atol=1e-3)
    assert np.linalg.norm((one.sums - right.sums)[doubtful]) < 1e-4 * np.linalg.norm(
        (rough.sums - right.sums)[doubtful]
    )
    assert one.pieces is rough.pieces


def test_zeroed_descriptors_count_in_sums_computed_again(passes):
    models, rough, right = passes
    zero, _ = rough.zero
    component, whole = int(zero.index[np.argmax(zero.gamma)]), 7  # the cell of the whole image
    rows = settle._rows_of(rough, whole, component)
    found = settle._sums_of(rough, models.of(np.float64), whole, component, rows)
    np.testing.assert_allclose(found, right.sums[whole, :, component], rtol=1e-4, atol=1e-2)


def test_where_many_descriptors_are_doubtful_all_sums_are_computed_again(passes, monkeypatch):
    models, rough, right = passes
    monkeypatch.setattr(settle, "DOUBT", 1)
    settled = settle.settled(rough, models, EPSILON, lambda: right.sums)
    assert settled.sums is right.sums and settled.pieces is rough.pieces


def test_sums_of_small_terms_and_sums_far_from_0_stay(passes):
    models, rough, _ = passes
    near = replace(rough, sums=np.where(np.abs(rough.sums) < 1, 1e-9, rough.sums))
    assert settle.in_doubt(near, EPSILON).any()
    assert settle.settled(near, models, np.full(8, 1e9), pytest.fail) is near  # with this epsilon no sign matters
    far = replace(rough, sums=np.where(np.abs(rough.sums) < 1, 1, rough.sums))
    assert settle.settled(far, models, np.full(8, 1e-9), pytest.fail) is far


def test_components_without_posteriors_need_no_settling(passes):
    _, rough, _ = passes
    empty = replace(rough, sums=np.zeros_like(rough.sums), occupancy=np.zeros_like(rough.occupancy))
    assert not settle.in_doubt(empty, np.zeros(8)).any()


def test_explanations_settle_sums_for_their_own_stabilisers(plain, photo, monkeypatch):
    seen = []

    def settled(pooled, models, epsilon, everything):
        seen.append(epsilon.tolist())
        return pooled

    monkeypatch.setattr(fisher_trace, "settled", settled)
    trace = plain.trace(photo)
    for rules in ({}, {"epsilon_pool": 50.0}, {"epsilon_pool": 50.0, "mean": "none"}, {}, {"pool_scale": "mean"}):
        trace.explain("grass", "bin", rules)
    for rules in ({"bias": "ignore"}, {"bias": "active"}, {"epsilon_pool": 1.0}, {"eps_mode": "relative"}):
        trace.explain("grass", "bin", rules)
    plain.trace(photo, "float64").explain("grass", "bin")
    counts = trace._pass(trace.dtype).encode.fisher.counts
    assert seen == [[100.0] * 8, [50.0] * 8, [100.0] * 8, (100.0 * counts).tolist()]
