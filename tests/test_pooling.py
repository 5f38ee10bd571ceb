"""Pooling over the pyramid: which cells descriptors lie in, and what of the sums is computed again in double."""

from dataclasses import replace

import numpy as np
import pytest

from fvlrp import load, pooling
from fvlrp.fisher import DEPTHS
from fvlrp.geometry import Geometry


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


@pytest.mark.parametrize(("doubt", "better"), [(1, 5), (1000, 1e5)], ids=["mended", "anew"])
def test_sums_near_0_are_computed_in_double(plain, photo, monkeypatch, doubt, better):
    """With wider margins than floats need, so that some are near 0: in part, then all their terms anew."""
    monkeypatch.setattr(pooling, "DOUBT", doubt)
    monkeypatch.setattr(pooling, "MANY", 10000)
    rough, exact = (plain.trace(photo, dtype)._pooled(np.dtype(dtype)) for dtype in ("float32", "float64"))
    layer, epsilon = plain.trace(photo).stack.fisher, np.full(8, 1.0)
    settled = layer.settled(rough, epsilon, 1)
    assert np.array_equal(layer.settled(rough, epsilon, 2).sums, settled.sums)  # whatever the threads
    changed = settled.sums != rough.sums
    assert changed.sum() > 10
    before, after = (np.linalg.norm((sums - exact.sums)[changed]) for sums in (rough.sums, settled.sums))
    assert after < before / better
    assert layer.settled(exact, epsilon) is exact


def test_many_sums_near_0_are_computed_at_once(plain, photo, monkeypatch):
    monkeypatch.setattr(pooling, "DOUBT", 1)
    rough, exact = (plain.trace(photo, dtype)._pooled(np.dtype(dtype)) for dtype in ("float32", "float64"))
    settled = plain.trace(photo).stack.fisher.settled(rough, np.full(8, 1.0), 1)
    assert np.array_equal(settled.sums, exact.sums) and settled.pieces is rough.pieces


def test_sums_of_small_terms_and_those_far_from_0_stay(plain, photo):
    trace = plain.trace(photo)
    rough = trace._pooled(np.dtype("float32"))
    assert trace.stack.fisher.settled(rough, np.full(8, 1e9)) is rough
    far = replace(rough, sums=np.where(np.abs(rough.sums) < 1, 1, rough.sums))
    assert trace.stack.fisher.settled(far, np.full(8, 1e-9)) is far
