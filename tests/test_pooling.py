"""Pooling over the pyramid: which cells descriptors lie in, and what of the sums is computed again in double."""

from dataclasses import replace

import numpy as np
import pytest

from fvlrp import load
from fvlrp.fisher import pooling
from fvlrp.fisher.geometry import Geometry
from fvlrp.fisher.stack import DEPTHS


def test_finest_cells_are_the_combinations_of_levels():
    geometry = Geometry(61, 83, (4, 6, 8, 10), 3)
    layout = pooling.layout_of(geometry, ((2, 2), (3, 1), (1, 1)))
    cells = geometry.cells(((2, 2), (3, 1), (1, 1)))
    assert sorted(np.concatenate(layout.rows)) == list(range(geometry.n))
    for one, rows in enumerate(layout.rows):
        assert (np.diff(rows) > 0).all()
        assert (np.sort(cells[rows], axis=1) == np.flatnonzero(layout.member[one])).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_projections_made_again_are_the_same_bits(plain, photo, monkeypatch, dtype):
    kept = plain.trace(photo, dtype).explain("grass", DEPTHS)
    monkeypatch.setattr(pooling, "KEEP", 0)
    trace = plain.trace(photo, dtype)
    assert all(encoded.y is None for _, _, encoded in trace._pooled(trace.dtype).pieces)
    for ex, expected in zip(trace.explain("grass", DEPTHS), kept, strict=True):
        assert np.array_equal(ex.heatmap, expected.heatmap)
        assert all(np.array_equal(ex.relevance[name], expected.relevance[name]) for name in ex.relevance)


# ---- sums near 0 ----

# Photographs of VOC where some sum so large that it matters lies within a float's error of 0.
CANCELLING = {"2011_000642": "bus", "2007_003188": "chair", "2007_000572": "bicycle", "2009_001937": "bottle"}


@pytest.mark.parametrize(("name", "target"), CANCELLING.items())
def test_fast_heatmaps_agree_where_sums_cancel(data, name, target):
    clf, photograph = load("voc20"), data / "VOCdevkit" / "VOC2012" / "JPEGImages" / f"{name}.jpg"
    fast, exact = (clf.trace(photograph, dtype).explain(target, "bin") for dtype in ("float32", "float64"))
    assert np.linalg.norm(fast.heatmap - exact.heatmap) <= 5e-5 * np.linalg.norm(exact.heatmap)
    assert fast.ledger.closes()


@pytest.fixture
def passes(plain, photo):
    """(layer, fast pass, exact pass) of a photograph with zeroed descriptors."""
    rough, exact = (plain.trace(photo, dtype)._pooled(np.dtype(dtype)) for dtype in ("float32", "float64"))
    assert any(map(len, rough.zeros))
    return plain.trace(photo).stack.fisher, rough, exact


class Plenty:
    """Descriptors that say they are many, so that no number of sums near 0 is too many."""

    def __init__(self, descriptors):
        self.values = descriptors.values

    def __len__(self):
        return 1 << 40


@pytest.mark.parametrize(("doubt", "better"), [(1, 5), (1000, 1e5)], ids=["mended", "anew"])
def test_sums_near_0_are_computed_in_double(passes, monkeypatch, doubt, better):
    """With wider margins than floats need, so that some are near 0: in part, then all their terms anew."""
    layer, rough, exact = passes
    monkeypatch.setattr(pooling, "DOUBT", doubt)
    rough = replace(rough, descriptors=Plenty(rough.descriptors))
    one, two = (layer.settled(rough, np.full(8, 1.0), pytest.fail, n_jobs) for n_jobs in (1, 2))
    assert np.array_equal(one.sums, two.sums)
    changed = one.sums != rough.sums
    assert changed.sum() > 10
    before, after = (np.linalg.norm((sums - exact.sums)[changed]) for sums in (rough.sums, one.sums))
    assert after < before / better


def test_zeroed_descriptors_count_in_sums_computed_anew(passes):
    layer, rough, exact = passes
    component, whole = rough.zero.index[np.argmax(rough.zero.gamma)], 7  # the cell of the whole image
    rows = layer._belonging(rough, whole, component, 0)
    found = layer._terms(rough, whole, component, rows, np.dtype("float64"), 1)
    np.testing.assert_allclose(found, exact.sums[whole, :, component], rtol=1e-4, atol=1e-2)


def test_of_too_many_sums_near_0_all_are_the_exact_ones(passes, monkeypatch):
    layer, rough, exact = passes
    monkeypatch.setattr(pooling, "DOUBT", 1)
    settled = layer.settled(rough, np.full(8, 1.0), lambda: exact.sums, 1)
    assert settled.sums is exact.sums and settled.pieces is rough.pieces


def test_sums_of_small_terms_and_those_far_from_0_stay(passes):
    layer, rough, _ = passes
    assert layer.settled(rough, np.full(8, 1e9), pytest.fail, 1) is rough
    far = replace(rough, sums=np.where(np.abs(rough.sums) < 1, 1, rough.sums))
    assert layer.settled(far, np.full(8, 1e-9), pytest.fail, 1) is far


def test_explanations_settle_the_sums_for_their_own_stabilisers(plain, photo, monkeypatch):
    seen = []

    def settled(self, saved, epsilon, exact, n_jobs=None):
        seen.append(epsilon.tolist())
        return saved

    monkeypatch.setattr(pooling.Fisher, "settled", settled)
    trace = plain.trace(photo)
    for rules in ({}, {"epsilon_pool": 50.0}, {"epsilon_pool": 50.0, "mean": "none"}, {}, {"pool_scale": "mean"}):
        trace.explain("grass", "bin", rules)
    for rules in ({"bias": "ignore"}, {"bias": "active"}, {"epsilon_pool": 1.0}, {"eps_mode": "relative"}):
        trace.explain("grass", "bin", rules)
    plain.trace(photo, "float64").explain("grass", "bin")
    counts = trace._pooled(np.dtype("float32")).counts
    assert seen == [[100.0] * 8, [50.0] * 8, [100.0] * 8, (100.0 * counts).tolist()]
