"""Large images are analysed strip by strip: same results as in one piece, in memory that does not grow with them."""

import tracemalloc

import numpy as np
import pytest

from fvlrp import DenseSIFT, rules
from fvlrp.data import images
from fvlrp.fisher import sift

DEPTHS = ("vector", "descriptor", "bin", "gradient")
RULES = [
    None,
    rules.FisherRules(clip="drop", splat="tri", epsilon_pool=1.0, epsilon_pca=1.0),
    rules.FisherRules(epsilon_pool=0, epsilon_pca=0, zero_desc="uniform"),
]


@pytest.fixture
def in_strips(monkeypatch):
    """Calls a function while images of any size are divided into strips of `most` descriptors."""

    def call(most, function):
        with monkeypatch.context() as patch:
            patch.setattr(sift, "WHOLE", 0)
            patch.setattr(sift, "STRIP", most)
            return function()

    return call


@pytest.mark.parametrize(
    "parameters", [{}, {"quantize": False}, {"step": 4, "bin_sizes": (3, 9)}, {"window": "gaussian", "magnif": 1.5}]
)
@pytest.mark.parametrize("most", [1, 500, 4000])
def test_descriptors_of_strips_are_the_same_bits(photo, parameters, most):
    grey = images.grey(photo)[:83, :90]
    extractor = DenseSIFT(**parameters)
    whole = extractor.extract(grey)
    of_scales = [[] for _ in whole.geometry.scales]
    strips = extractor.strips(whole.geometry, most)
    for strip in strips:
        assert strip.pixels.stop - strip.pixels.start < 83 or len(strips) == 1
        part = extractor.extract_strip(grey[strip.pixels], strip)
        np.testing.assert_array_equal(part.frames, strip.frames)
        for found, scale in zip(of_scales, strip.scales, strict=True):
            found.append((part.values[scale.slice], part.zeroed[scale.slice], part.frames[scale.slice]))
    for name, axis in (("values", 0), ("zeroed", 1), ("frames", 2)):
        joined = np.concatenate([part[axis] for found in of_scales for part in found])
        np.testing.assert_array_equal(joined, getattr(whole, name), err_msg=name)


@pytest.mark.parametrize("rule", RULES, ids=["paper", "dropping triangles", "no stabilisers"])
@pytest.mark.parametrize("most", [300, 2500])
def test_exact_explanations_in_strips_equal_those_of_the_whole_image(plain, photo, in_strips, rule, most):
    whole = plain.explain(photo, ["brick", "grass"], DEPTHS, rule, "float64")
    parts = in_strips(most, lambda: plain.explain(photo, ["brick", "grass"], DEPTHS, rule, "float64"))
    for one, other in zip(whole, parts, strict=True):
        assert other.ledger.closes(1e-9)
        assert abs(one.score - other.score) < 1e-12
        np.testing.assert_allclose(other.heatmap, one.heatmap, rtol=0, atol=1e-10 * np.abs(one.heatmap).max())
        for name, value in one.ledger.items():
            assert abs(other.ledger[name] - value) < 1e-10


def test_relevance_and_scores_of_strips_are_those_of_the_whole_image(plain, photo, in_strips):
    def all_of_it():
        trace = plain.trace(photo, "float64")
        target, rule = trace.menu.target("brick"), trace.menu.rules(None)
        names = ("vector", "component", "descriptor", "pca", "sift", "bin")
        found = {name: trace.relevance(target, "bin", rule, name) for name in names}
        return found | {
            "through": trace.through([0, 3], "brick"),
            "values": trace.descriptors.values,
            "scores": plain.decision_function([photo]),
        }

    whole, parts = all_of_it(), in_strips(700, all_of_it)
    for name, values in whole.items():
        atol = (1e-5 if name == "scores" else 1e-11) * np.abs(values).max()
        np.testing.assert_allclose(parts[name], values, rtol=0, atol=atol, err_msg=name)


def test_fast_explanations_of_strips_settle_their_sums(plain, photo, in_strips):
    """float32 may differ by rounding, not by signs of sums."""
    whole = plain.explain(photo, "brick", "bin")
    parts = in_strips(700, lambda: plain.explain(photo, "brick", "bin"))
    np.testing.assert_allclose(parts.heatmap, whole.heatmap, rtol=0, atol=1e-4 * np.abs(whole.heatmap).max())


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_strips_depend_on_the_image_alone(plain, photo, in_strips, n_jobs):
    def heatmap(jobs):
        ((ex),) = plain.explain_many([photo], "brick", "gradient", n_jobs=jobs)
        return ex.heatmap

    np.testing.assert_array_equal(in_strips(700, lambda: heatmap(n_jobs)), in_strips(700, lambda: heatmap(None)))


def test_a_mapped_image_is_read_in_strips_and_never_copied(plain, photo, in_strips, tmp_path, monkeypatch):
    pixels = np.tile(images.rgb(photo), (4, 2, 1))
    np.save(tmp_path / "large.npy", pixels)
    mapped = np.load(tmp_path / "large.npy", mmap_mode="r")
    monkeypatch.setattr(plain, "max_height", None)
    expected = in_strips(3000, lambda: plain.explain(pixels, "brick", "bin"))

    def explain():
        tracemalloc.start()
        try:
            return plain.explain(mapped, "brick", "bin"), tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    found, most = in_strips(3000, explain)
    np.testing.assert_array_equal(found.heatmap, expected.heatmap)
    assert np.shares_memory(found.image, mapped)
    assert most < 8 * found.heatmap.size + 12e6, "the heatmap, and the memory of one strip"


def test_descriptors_of_an_image_beyond_memory_are_refused(photo, monkeypatch):
    monkeypatch.setattr("fvlrp.runtime.limits.CERTAIN", 0)
    monkeypatch.setattr("fvlrp.runtime.limits.available", lambda: 1000)
    with pytest.raises(MemoryError, match=r"\d+ descriptors would take"):
        DenseSIFT().extract(photo)


def test_strips_of_a_very_wide_image_are_not_lower_than_their_borders():
    extractor = DenseSIFT()
    assert len(extractor.strips(extractor.geometry(400, 200_000), sift.STRIP)) < 20  # not one strip per row of frames
    wide = extractor.strips(extractor.geometry(400, 200_000), sift.STRIP)
    assert max(strip.n for strip in wide) <= sift.WHOLE * 1.2  # no more memory than an undivided image
    square = extractor.geometry(9000, 9000)
    assert len(extractor.strips(square, sift.STRIP)) >= square.n // sift.STRIP  # unchanged for a square image
