"""The Fisher vector's walk: against the paper in NumPy, and properties that hold for any image and any rules."""

import copy
import gc
import pickle
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import reference
from PIL import Image

from fvlrp import load
from fvlrp.core.ledger import Entries, Ledger
from fvlrp.data import images
from fvlrp.fisher import layers, relevance
from fvlrp.fisher.layers import Encode, Linear, Normalise, SpatialBins
from fvlrp.fisher.sift import DenseSIFT
from fvlrp.fisher.trace import FisherMenu, FisherModel
from fvlrp.fisher.walk import DEPTHS, FisherStack
from fvlrp.rules import FisherRules
from fvlrp.runtime import memory

EXACT = 1e-9  # relative L2: only the order of float64 sums differs

# A covering array: every value of every option, and every stabiliser, occurs together with several of the others.
RULES = [
    {},
    {"bias": "active", "mean": "none", "zero_desc": "uniform", "splat": "box_sym"},
    {"bias": "ignore", "mean": "bias", "clip": "drop"},
    {"mean": "centered", "splat": "tri", "clip": "drop", "epsilon_pca": 1.0},
    {"pool_scale": "mean", "mean": "none", "zero_desc": "uniform", "splat": "tri"},
    {"eps_mode": "relative", "epsilon_pool": 0.5, "bias": "active", "splat": "box_sym", "clip": "drop"},
    {"epsilon_pool": 0.0, "epsilon_pca": 0.0},
    {"epsilon_pool": 1.0, "epsilon_pca": 1.0, "bias": "ignore", "splat": "box_sym"},
    {"epsilon_pool": 0.0, "epsilon_pca": 1.0, "mean": "bias", "zero_desc": "uniform"},
    {"epsilon_pool": 1.0, "epsilon_pca": 0.0, "mean": "none", "pool_scale": "mean"},
]


def named(rules):
    return "-".join(map(str, rules.values())) or "defaults"


def distance(got, wanted):
    """Relative L2 distance."""
    return np.linalg.norm(np.ravel(got) - np.ravel(wanted)) / np.linalg.norm(wanted)


def paper(trace, clf, target, depth, rules=None):
    """The reference's explanation of the same descriptors."""
    rules = FisherRules.of(rules)
    pca, gmm = clf.pca_, clf.gmm_
    has_mean, position = bool(pca.mean_.any()), list(clf.classes_).index(target)
    row, sign = (0, 1 if position else -1) if len(clf.coef_) == 1 else (position, 1)
    model = reference.Model(
        pca.components_,
        pca.mean_ if has_mean else None,
        gmm.weights_,
        gmm.means_,
        gmm.covariances_,
        sign * clf.coef_[row].astype(np.float64),
        sign * clf.intercept_[row],
        clf.gate,
        clf.pyramid,
        {"improved": "chatfield2011", "intra": "intra"}[clf.normalisation],
    )
    options = rules.to_dict()
    if rules.mean == "auto":
        options["mean"] = "centered" if has_mean else "none"
    return reference.explain(trace.descriptors.values, trace.descriptors.geometry, model, depth, **options)


def entries(explained, depth):
    """The reference's ledger under the classifier's names of entries."""
    wanted = dict(explained.ledger)
    # The reference has an entry of its own for relevance lost to 0 / 0 := 0; the classifier adds it to what the
    # stabiliser absorbs. At depth "vector" the reference calls an empty cell clipped.
    if "undone" in wanted:
        wanted["absorbed_pca"] += wanted.pop("undone")
    if depth == "vector":
        wanted["empty_cell"] = wanted.pop("clipped")
    return wanted | {"heatmap": explained.heatmap.sum()}


def assert_same_ledger(ledger, wanted, rtol=EXACT):
    assert wanted.keys() >= ledger.keys() - {"rounding"}
    for stage, amount in wanted.items():
        assert ledger.get(stage, 0.0) == pytest.approx(amount, rel=0, abs=rtol * ledger.size), stage


def without_zero_sum(ledger):
    """The ledger with "zero_sum" added to "absorbed_pool".

    In float32 a posterior may pass the gate by rounding error, and a sum is then tiny instead of 0.
    """
    amounts = ledger.to_dict()
    amounts["absorbed_pool"] = amounts.get("absorbed_pool", 0.0) + amounts.pop("zero_sum", 0.0)
    return Ledger(amounts, True)


@pytest.fixture(scope="module")
def traces(plain, centred, improved, photo):
    """(classifier, exact trace, fast trace, target): no PCA mean; two classes and a mean; the paper's normalisation."""
    models = ("plain", plain, "grass"), ("centred", centred, "brick"), ("improved", improved, "gravel")
    return {name: (clf, clf.trace(photo, "float64"), clf.trace(photo), target) for name, clf, target in models}


# ---- the whole walk against the paper's equations ----


@pytest.mark.parametrize("rules", RULES, ids=named)
@pytest.mark.parametrize("name", ["plain", "centred", "improved"])
def test_walk_equals_the_paper(traces, name, rules):
    clf, exact, fast, target = traces[name]
    assert exact.descriptors.zeroed.any() and not exact.descriptors.zeroed.all()
    close = 5e-4 if min(FisherRules.of(rules).epsilon_pool, FisherRules.of(rules).epsilon_pca) >= 100 else 5e-3
    # Without a stabiliser, sums near 0 are denominators.
    same = EXACT if FisherRules.of(rules).epsilon_pool else 10 * EXACT
    for depth in ("vector", "descriptor", "bin"):
        wanted = paper(exact, clf, target, depth, rules)
        ex, quick = exact.explain(target, depth, rules), fast.explain(target, depth, rules)
        assert distance(ex.heatmap, wanted.heatmap) < same
        assert_same_ledger(ex.ledger, entries(wanted, depth), same)
        assert distance(quick.heatmap, wanted.heatmap) < close
        assert_same_ledger(without_zero_sum(quick.ledger), without_zero_sum(Ledger(entries(wanted, depth), True)), 1e-4)
        assert ex.score == pytest.approx(wanted.ledger["score"], rel=1e-12)
    assert set(ex.relevance) == {"vector", "component", "descriptor", "pca", "sift", "bin"}
    for layer, values in wanted.relevance.items():
        assert distance(ex.relevance[layer], values) < same
        assert distance(quick.relevance[layer], values) < close


@pytest.mark.parametrize("rules", [{}, {"zero_desc": "uniform", "epsilon_pca": 1.0}], ids=named)
def test_gradient_equals_eq_1_pixel_by_pixel(plain, photo, rules):
    trace = plain.trace(photo[16:48, 20:54], "float64")
    wanted = paper(trace, plain, "grass", "bin", rules)
    pixels, zero_bin = np.zeros(trace.grey.shape), 0.0
    for scale in trace.descriptors.geometry.scales:
        planes = reference.orientation_planes(trace.grey, scale.bin_size / plain.magnif)
        of_scale = wanted.relevance["sift"][scale.slice].reshape(scale.rows, scale.cols, 4, 4, 8)
        part, lost = reference.sift_pixels(planes, scale, of_scale)
        pixels, zero_bin = pixels + part, zero_bin + lost
    ex = trace.explain("grass", "gradient", rules)
    assert distance(ex.heatmap, pixels) < 1e-5  # planes are float32
    assert ex.ledger["zero_bin"] == pytest.approx(zero_bin, abs=1e-6 * ex.ledger.size)
    assert distance(plain.trace(photo[16:48, 20:54]).explain("grass", "gradient", rules).heatmap, pixels) < 5e-4


def test_descriptors_of_a_flat_patch_are_explained_as_in_the_paper(textures):
    """A contrast threshold of 0 zeroes no descriptor, but those of a flat patch are all zeros anyway."""
    from fvlrp import FisherVectorClassifier

    clf = FisherVectorClassifier(n_components=4, n_pca=8, contrast_threshold=0, random_state=0)
    clf.fit(*textures(2, seed=1, shape=(40, 44)))
    image = textures(1, seed=5, shape=(60, 44))[0][0].copy()
    image[:35] = 128
    trace = clf.trace(image, "float64")
    assert (trace.descriptors.values == 0).all(axis=1).any()
    for rules in ({}, {"zero_desc": "uniform"}):
        ex, wanted = trace.explain("brick", "bin", rules), paper(trace, clf, "brick", "bin", rules)
        assert distance(ex.heatmap, wanted.heatmap) < EXACT
        assert_same_ledger(ex.ledger, entries(wanted, "bin"))


@pytest.mark.parametrize("rules", [{"bias": "active"}, {"eps_mode": "relative", "epsilon_pool": 1.0}], ids=named)
def test_rules_that_count_nonzero_sums_use_float64(traces, rules):
    """One float32 posterior that passes the gate by rounding error must not make a component count as nonzero."""
    for _, exact, fast, target in traces.values():
        wanted, got = exact.explain(target, DEPTHS, rules), fast.explain(target, DEPTHS, rules)
        assert max(distance(g.heatmap, w.heatmap) for g, w in zip(got, wanted, strict=True)) < 5e-4


# ---- the ledger ----


@pytest.fixture(scope="module")
def oddities(photo):
    noise = np.random.default_rng(5)
    return {
        "constant": np.full((40, 36), 90, np.uint8),
        "black": np.zeros((33, 31, 3), np.uint8),
        "noise": noise.integers(0, 256, (37, 50, 3), np.uint8),
        "one descriptor": noise.integers(0, 256, (22, 22), np.uint8),  # three cells hold it, five are empty
        "one row": noise.random((22, 60)),
        "one column": noise.random((47, 24)).astype(np.float32),
        "photograph": photo,
    }


@pytest.mark.parametrize("rules", RULES, ids=named)
def test_the_ledger_closes_for_any_image(plain, centred, oddities, rules):
    for clf in (plain, centred):
        for image in oddities.values():
            for dtype, rtol in (("float64", 1e-9), ("float32", 1e-5)):
                for ex in clf.trace(image, dtype).explain(depth=DEPTHS, rules=rules):
                    ledger = ex.ledger
                    assert np.isfinite(ex.heatmap).all() and ex.heatmap.shape == image.shape[:2]
                    assert ledger["heatmap"] == ex.heatmap.sum() and ledger["score"] == ex.score
                    assert ("rounding" in ledger) == (dtype == "float32")
                    assert abs(ledger.residual) <= rtol * ledger.size and ledger.closes()


@pytest.mark.parametrize("rules", [RULES[0], RULES[2], RULES[4], RULES[6]], ids=named)
@pytest.mark.parametrize("image", ["constant", "noise", "one descriptor", "one row", "one column"])
def test_ledger_entries_are_the_papers(plain, centred, oddities, image, rules):
    for clf in (plain, centred):
        trace = clf.trace(oddities[image], "float64")
        for depth in ("vector", "descriptor", "bin"):
            ex = trace.explain(clf.classes_[0], depth, rules)
            assert_same_ledger(ex.ledger, entries(paper(trace, clf, clf.classes_[0], depth, rules), depth))


def test_one_descriptor_leaves_five_cells_empty(plain, oddities):
    trace = plain.trace(oddities["one descriptor"], "float64")
    ex = trace.explain("brick", "descriptor")
    cells = ex.relevance["vector"].reshape(8, -1).sum(axis=1)
    holds = np.bincount(trace.descriptors.geometry.cells(plain.pyramid)[0], minlength=8)
    assert holds.sum() == 3
    assert ex.ledger["empty_cell"] == pytest.approx(cells[holds == 0].sum(), rel=1e-12)


def test_a_constant_image_has_scores_but_no_fine_map(plain, oddities):
    trace = plain.trace(oddities["constant"], "float64")
    coarse, fine, uniform = (
        trace.explain("brick", *asked) for asked in (("descriptor",), ("bin",), ("bin", {"zero_desc": "uniform"}))
    )
    assert trace.descriptors.zeroed.all()
    assert coarse.heatmap.any() and not fine.heatmap.any()
    assert fine.ledger["zero_desc"] == pytest.approx(coarse.heatmap.sum(), rel=1e-12)
    assert uniform.heatmap.sum() == pytest.approx(coarse.heatmap.sum(), rel=1e-12)


def swell(result, pixels):
    """`result` of a call, after scaling the pixels that the call added to."""
    pixels *= 1.01
    return result


@pytest.mark.parametrize(
    ("place", "name", "depth", "bend"),
    [
        (relevance, "back", "descriptor", lambda r, _: replace(r, total=r.total * 1.01)),
        (relevance, "back", "bin", lambda r, _: replace(r, bins=r.bins * 1.01)),
        (
            relevance,
            "back",
            "bin",
            lambda r, _: replace(r, entries=Entries(absorbed_pca=1.01 * r.entries["absorbed_pca"])),
        ),
        (relevance, "back", "gradient", lambda r, _: replace(r, sift=r.sift * 1.01)),
        (relevance, "shares", "descriptor", lambda r, _: (r[0] * 1.01, r[1])),
        (Linear, "relevance", "vector", lambda r, _: r._replace(inputs=[r.inputs[0] * 1.01])),
        (layers, "spread_cells", "vector", lambda r, _: (r[0] * 1.01, r[1])),
        (layers, "spread", "bin", swell),
        (DenseSIFT, "spread", "gradient", swell),
        (images, "resample_conserving", "bin", lambda r, _: r * 1.01),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_stage_that_creates_relevance_makes_the_ledger_not_close(
    plain, photo, monkeypatch, place, name, depth, bend, dtype
):
    trace = plain.trace(photo, dtype)
    assert trace.explain("grass", depth).ledger.closes()
    right = getattr(place, name)

    def bent(*args, **kwargs):
        arrays = [value for value in args if isinstance(value, np.ndarray)]
        return bend(right(*args, **kwargs), arrays[-1] if arrays else None)

    monkeypatch.setattr(place, name, bent)
    assert not trace.explain("grass", depth).ledger.closes()


# ---- one walk, seen at several depths ----


@pytest.mark.parametrize("rules", [{}, {"zero_desc": "uniform"}, {"epsilon_pool": 0.0, "epsilon_pca": 0.0}], ids=named)
@pytest.mark.parametrize("name", ["plain", "centred", "improved"])
def test_depths_agree_with_one_another(traces, name, rules):
    _, trace, _, target = traces[name]
    vector, descriptor, bins, gradient = trace.explain(target, DEPTHS, rules)
    seen = bins.relevance
    assert seen["descriptor"].shape == (len(trace.descriptors),)
    assert seen["vector"].sum() == pytest.approx(trace.scores[trace.classes.index(target)], rel=1e-10)
    assert np.allclose(seen["pca"].sum(axis=1), seen["descriptor"], rtol=1e-9, atol=1e-12)
    by_bin = seen["sift"].reshape(-1, 4, 4, 8).sum(axis=3)
    assert np.allclose(by_bin, seen["bin"], rtol=1e-9, atol=1e-12 * np.abs(by_bin).max())
    assert seen["vector"].sum() == pytest.approx(vector.heatmap.sum() + vector.ledger["empty_cell"], rel=1e-9)
    assert seen["descriptor"].sum() == pytest.approx(descriptor.heatmap.sum(), rel=1e-9)
    assert seen["bin"].sum() == pytest.approx(bins.heatmap.sum(), rel=1e-9)
    assert seen["sift"].sum() == pytest.approx(gradient.heatmap.sum() + gradient.ledger["zero_bin"], rel=1e-9)
    for ex in (vector, descriptor, gradient):
        for layer in seen:
            assert np.array_equal(ex.relevance[layer], seen[layer])
            assert ex.relevance[layer].dtype == np.float64


def test_relevance_is_computed_on_access_and_kept(traces):
    clf, _, trace, target = traces["plain"]
    found = trace.explain(target).relevance
    n, d = len(trace.descriptors), clf.coef_.shape[1]
    shapes = {
        "vector": (d,),
        "component": (16,),
        "descriptor": (n,),
        "pca": (n, 24),
        "sift": (n, 128),
        "bin": (n, 4, 4),
    }
    assert {name: found[name].shape for name in found} == shapes
    assert found["bin"] is found["bin"]
    with pytest.raises(KeyError, match=r"'pixel'.*'vector', 'component', 'descriptor', 'pca', 'sift', 'bin'"):
        found["pixel"]


def model_of(clf, coef, intercept, classes, sift=None, max_height=None):
    """The classifier's model under other weights."""
    _, project, fisher = clf._model.stack.encode.parts
    encode = Encode(SpatialBins(sift or DenseSIFT()), project, fisher)
    linear = Linear(np.asarray(coef), np.asarray(intercept))
    stack = FisherStack(encode, clf._model.stack.normalise, linear, len(classes))
    return FisherModel(stack, FisherMenu(classes), max_height)


def test_relevance_is_linear_in_the_weights(plain, photo):
    coef, intercept = plain.coef_[:2].astype(np.float64), plain.intercept_[:2]
    names = ["one", "other", "both"]
    three = model_of(plain, [*coef, coef.sum(axis=0)], [*intercept, intercept.sum()], names)
    found = np.array(three.trace(photo, "float64").explain(names, DEPTHS), object).reshape(3, 4)
    one, other, both = (np.array([ex.heatmap for ex in four]) for four in found)
    for sum_of_two, of_sum in zip(one + other, both, strict=True):
        assert distance(sum_of_two, of_sum) < EXACT


def test_relevance_of_duplicated_descriptors_is_halved(improved, photo):
    """With every descriptor twice, the vector and the score stay; without a stabiliser, both copies share equally.

    Not with "intra": it damps components of small sums, and doubled sums are damped less.
    """
    once, twice = (
        model_of(improved, improved.coef_, improved.intercept_, improved.classes_, DenseSIFT(bin_sizes=sizes))
        .trace(photo, "float64")
        .explain("gravel", DEPTHS, "epsilon:0")
        for sizes in ((6,), (6, 6))
    )
    assert twice[0].score == pytest.approx(once[0].score, rel=1e-12)
    halves = twice[0].relevance["descriptor"].reshape(2, -1)
    assert distance(halves[0], once[0].relevance["descriptor"] / 2) < EXACT
    assert np.array_equal(*halves)
    for a, b in zip(once, twice, strict=True):
        assert distance(b.heatmap, a.heatmap) < EXACT


def lies_in(frames, height, width):
    """Which pyramid cells hold each frame's centre: bool (8, n), counted from 1 as the enceval toolkit does."""
    y, x = frames[:, 0] + 1, frames[:, 1] + 1
    top, left = y <= height / 2, x <= width / 2
    first, last = y <= height / 3, y > height * 2 / 3
    return np.array([top & left, ~top & left, top & ~left, ~top & ~left, first, ~first & ~last, last, y > 0])


def test_the_layout_of_the_weights_is_by_cell(plain, photo):
    """Weights that look at one pyramid cell explain by descriptors of that cell alone."""
    frames = plain.trace(photo).descriptors.frames
    held = lies_in(frames, *photo.shape[:2])
    # Frames on the middle column, and on a row that floor(c n / length) would put into another band.
    assert photo.shape[:2] == (50, 55) and (frames[:, 1] == 27).any() and (frames[:, 0] == 33).any()
    for cell, inside in enumerate(held):
        only = np.zeros((8, plain.coef_.shape[1] // 8))
        only[cell] = plain.coef_[0].reshape(8, -1)[cell]
        model = model_of(plain, [only.ravel()], [0.0], ["it"])
        found = model.trace(photo, "float64").explain("it").relevance["descriptor"]
        assert found[inside].all() and not found[~inside].any()


def test_normalisation_is_by_cell_then_root_then_whole(rng):
    sums = rng.standard_normal((8, 2, 3, 5)) * rng.uniform(1, 1e4, (8, 1, 1, 1))
    sums[3] = 0
    vector, _ = Normalise("improved").forward(sums)
    assert distance(vector, reference.normalise(sums.reshape(8, -1))) < 1e-14
    assert not Normalise("improved").forward(np.zeros_like(sums))[0].any()


def test_intra_normalisation_is_by_root_then_component_then_whole(rng):
    sums = rng.standard_normal((8, 2, 3, 5)) * rng.uniform(1, 1e4, (8, 1, 3, 1))
    sums[3] = sums[:, :, 1] = 0
    vector, _ = Normalise("intra").forward(sums)
    assert distance(vector, reference.normalise(sums.reshape(8, -1), "intra", 3)) < 1e-14
    sizes = (vector.reshape(sums.shape) ** 2).sum(axis=(1, 3))  # every component of every cell weighs the same
    assert np.allclose(sizes[sizes > 0], 1 / 14) and (sizes > 0).sum() == 14
    assert not Normalise("intra").forward(np.zeros_like(sums))[0].any()


def test_a_posterior_near_the_gate_hardly_changes_an_intra_normalised_vector(rng):
    """A component with one posterior of 1e-6 would otherwise weigh as much as one with a thousand descriptors."""
    sums = 1e3 * rng.standard_normal((1, 2, 100, 5))
    sums[:, :, 0] = 0
    without, _ = Normalise("intra").forward(sums)
    sums[:, :, 0] = 1e-6 * rng.standard_normal((1, 2, 5))
    slipped, _ = Normalise("intra").forward(sums)
    assert distance(slipped, without) < 1e-3
    settled = (np.delete(v.reshape(1, 2, 100, 5), 0, axis=2) for v in (slipped, without))
    assert distance(*settled) < 1e-6


# ---- sizes and places ----


def test_the_map_of_a_tall_photograph_has_its_full_size(centred, photographs):
    photo = photographs[0][60:260, 100:240]
    trace = centred.trace(photo, "float64")
    assert trace.grey.shape == (64, 45)
    for depth in ("vector", "descriptor", "bin"):
        ex, wanted = trace.explain("brick", depth), paper(trace, centred, "brick", depth)
        assert ex.heatmap.shape == (200, 140) and ex.image.shape == (200, 140, 3)
        assert ex.heatmap.sum() == pytest.approx(wanted.heatmap.sum(), rel=1e-9)
        assert_same_ledger(ex.ledger, entries(wanted, depth))
        assert ex.ledger.closes()


def textured_corner(texture, height, width):
    """A flat image whose lower left corner, 40 % of either side, holds a texture; and a mask of that corner."""
    image, mask = np.full((height, width), 128, np.uint8), np.zeros((height, width), bool)
    mask[height * 6 // 10 :, : width * 4 // 10] = True
    image[mask] = texture[:height, :width][mask]
    return image, mask


@pytest.mark.parametrize("depth", ["bin", "gradient"])
@pytest.mark.parametrize("shape", [(64, 64), (192, 192)], ids=["as it is", "reduced"])
def test_relevance_is_where_the_texture_is(plain, textures, shape, depth):
    image, corner = textured_corner(textures(1, seed=9, shape=(200, 200))[0][0], *shape)
    model = model_of(plain, plain.coef_, plain.intercept_, plain.classes_, max_height=64)
    heatmap = np.abs(model.trace(image).explain("brick", depth).heatmap)
    seen, reach = np.zeros(shape, bool), 21 * shape[0] // 64  # how far bins of 10 pixels reach beyond the texture
    seen[np.flatnonzero(corner.any(axis=1))[0] - reach :, : np.flatnonzero(corner.any(axis=0))[-1] + reach] = True
    assert heatmap[corner].sum() > 0.5 * heatmap.sum() > 0
    assert heatmap[~seen].max() < 1e-15 * heatmap.max()  # rounding of the running sums


def test_an_exif_rotated_photograph_is_explained_upright(plain, textures, tmp_path):
    upright, corner = textured_corner(textures(1, seed=9, shape=(200, 200))[0][0], 64, 52)
    wanted = plain.explain(upright, "brick", "gradient")
    assert np.abs(wanted.heatmap[corner]).sum() > 0.5 * np.abs(wanted.heatmap).sum()
    path, exif = tmp_path / "rotated.png", Image.Exif()
    for orientation, stored in ((6, np.rot90(upright)), (3, upright[::-1, ::-1]), (5, upright.T)):
        exif[0x0112] = orientation
        Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
        ex = plain.explain(path, "brick", "gradient")
        assert np.array_equal(ex.heatmap, wanted.heatmap)
        assert np.array_equal(ex.image, wanted.image)
    Image.fromarray(np.ascontiguousarray(upright.T)).save(tmp_path / "rotated.jpg", quality=95, exif=exif)
    ex = plain.explain(tmp_path / "rotated.jpg", "brick", "gradient", dtype="float64")
    assert ex.heatmap.shape == upright.shape and ex.ledger.closes()
    assert np.abs(ex.heatmap[corner]).sum() > 0.5 * np.abs(ex.heatmap).sum()


# ---- bit-identical results ----


def test_one_call_equals_many(plain, photo):
    trace = plain.trace(photo)
    together = trace.explain(plain.classes_, ["gradient", "vector", "bin", "descriptor"])
    asked = [(target, depth) for target in plain.classes_ for depth in ("gradient", "vector", "bin", "descriptor")]
    assert [(ex.target, ex.depth) for ex in together] == asked
    for ex, (target, depth) in zip(together, asked, strict=True):
        alone = plain.trace(photo).explain(target, depth)
        assert np.array_equal(ex.heatmap, alone.heatmap)
        assert ex.ledger.to_dict() == alone.ledger.to_dict()
        assert np.array_equal(ex.relevance["bin"], alone.relevance["bin"])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads_do_not_change_a_bit(centred, photo, dtype):
    two = copy.copy(centred).set_params(n_jobs=2)
    for one, other in zip(
        centred.trace(photo, dtype).explain(["brick", "gravel"], DEPTHS, {"zero_desc": "uniform"}),
        two.trace(photo, dtype).explain(["brick", "gravel"], DEPTHS, {"zero_desc": "uniform"}),
        strict=True,
    ):
        assert np.array_equal(one.heatmap, other.heatmap)
        assert one.ledger.to_dict() == other.ledger.to_dict()


def test_the_callers_array_is_not_modified(plain, photo):
    given = photo.copy()
    first = plain.explain(given, "grass", DEPTHS)
    assert np.array_equal(given, photo)
    given.flags.writeable = False
    for ex, again in zip(first, plain.explain(given, "grass", DEPTHS), strict=True):
        assert np.array_equal(ex.heatmap, again.heatmap)


@pytest.mark.parametrize("turn", [np.rot90, np.fliplr, np.asfortranarray, lambda a: a.transpose(1, 0, 2)])
def test_turned_and_fortran_arrays_are_explained_like_their_copies(plain, photo, turn):
    view = turn(photo)
    assert not view.flags.c_contiguous and images.grey(view).flags.c_contiguous
    for dtype in ("float32", "float64"):
        got = plain.explain(view, "grass", DEPTHS, dtype=dtype)
        wanted = plain.explain(np.ascontiguousarray(view), "grass", DEPTHS, dtype=dtype)
        for one, other in zip(got, wanted, strict=True):
            assert np.array_equal(one.heatmap, other.heatmap) and np.array_equal(one.image, other.image)


def test_a_trace_does_not_see_later_changes_of_the_callers_array(plain, photo):
    """The caller may overwrite the array after the forward pass."""
    for given in (photo.copy(), np.ascontiguousarray(photo[:, :, 0] / np.float32(255))):
        wanted, trace = plain.trace(given.copy()).explain("grass", "gradient"), plain.trace(given)
        given[:] = 0
        ex = trace.explain("grass", "gradient")
        assert np.array_equal(ex.heatmap, wanted.heatmap)
        assert np.array_equal(ex.image, wanted.image)


# ---- memory, and how often a file is decoded ----


def test_explanations_hold_no_forward_pass():
    """For 240 x 320 pixels: the heatmap (614 kB), the photograph (230 kB), and little else; a trace has 19 MB."""
    samples = pytest.importorskip("skimage.data")
    image, clf = samples.chelsea()[:240, :320], load("voc20")
    ex = clf.explain(image, "cat")
    payload = ex.heatmap.nbytes + ex.image.nbytes
    assert payload == 240 * 320 * (8 + 3)
    assert len(pickle.dumps(ex)) < payload + 4096
    gc.collect()
    tracemalloc.start()
    kept = [clf.explain(image, "cat") for _ in range(4)]
    gc.collect()
    memory._free.clear()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < len(kept) * (payload + image.nbytes) + 300_000  # each keeps its own copy of the pixels


@pytest.mark.parametrize("call", ["explain", "trace", "scores", "decision_function", "predict"])
def test_a_photograph_is_decoded_once_per_call(plain, photo, tmp_path, monkeypatch, call):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    path = tmp_path / "photo.png"
    decoded, right = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, *args: decoded.append(file) or right(file, *args))
    getattr(plain, call)([path] if call in ("decision_function", "predict") else path)
    assert len(decoded) == 1


def test_a_refused_photograph_is_decoded_once(plain, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((2000, 60), np.uint8)).save(tmp_path / "sliver.png")
    decoded, right = [], Image.open
    monkeypatch.setattr(Image, "open", lambda file, *args: decoded.append(file) or right(file, *args))
    with pytest.raises(ValueError, match=r"2000 x 60 .* too small after max_height=480"):
        plain.scores(tmp_path / "sliver.png")
    assert len(decoded) == 1


# ---- two classes, many labels ----


def test_two_classes_mirror_each_other(centred, photo):
    trace = centred.trace(photo, "float64")
    first, second = trace.explain(["brick", "gravel"])
    assert trace.scores.tolist() == [-second.score, second.score] == [first.score, second.score]
    assert second.score == pytest.approx(centred.decision_function([photo])[0], rel=1e-5)
    assert np.array_equal(first.heatmap, -second.heatmap)


def test_co_occurring_labels_each_have_a_score(multilabel, photo):
    trace = multilabel.trace(photo, "float64")
    assert trace.scores == pytest.approx(multilabel.decision_function([photo])[0], rel=1e-5)
    for ex in trace.explain(multilabel.classes_, "bin"):
        assert distance(ex.heatmap, paper(trace, multilabel, ex.target, "bin").heatmap) < EXACT


# ---- bad input ----


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((21, 300), np.uint8), "21 x 300 pixels is too small.*at least 22 x 22.*smaller bin_sizes"),
        (np.zeros((2000, 60), np.uint8), "2000 x 60 .* too small after max_height=480 reduced it to 480 x 14: .*raise"),
        (np.zeros((480, 14), np.uint8), "image of 480 x 14 pixels is too small: "),
        (np.full((40, 40), np.nan), "image has 1600 values that are NaN"),
        (np.full((40, 40), 3.0), r"floats from 3 to 3; expected \[0, 1\]: divide"),
        (np.zeros((2, 40, 40, 3), np.uint8), r"shape \(2, 40, 40, 3\); expected \(H, W\)"),
        (np.zeros((0, 40), np.uint8), "empty"),
    ],
)
def test_unexplainable_images_are_refused_in_one_sentence(plain, image, words):
    for call in (plain.trace, plain.explain, plain.scores):
        with pytest.raises(ValueError, match=words):
            call(image)


@pytest.mark.parametrize("dtype", ["float16", "int8", "exact"])
def test_the_two_dtypes_are_float32_and_float64(plain, photo, dtype):
    with pytest.raises(ValueError, match=r"dtype must be 'float32' \(fast\) or 'float64' \(exact\)"):
        plain.trace(photo, dtype)


@pytest.mark.parametrize("epsilon", [0.0, 1.0, 9.0, 10.0, 100.0])
def test_fast_heatmaps_of_smooth_photographs_agree_with_exact_ones(epsilon):
    # Enlarged, a photograph is smooth: many sums and projections lie near 0, where a stabiliser decides.
    samples = pytest.importorskip("skimage.data")
    small = Image.fromarray(samples.gravel()[:190, :250]).resize((375, 282), Image.Resampling.BICUBIC)
    clf = load("voc20")
    rules = {"epsilon_pool": epsilon, "epsilon_pca": epsilon}
    fast, exact = (clf.trace(small, dtype).explain("person", DEPTHS, rules) for dtype in ("float32", "float64"))
    for one, other in zip(fast, exact, strict=True):
        off = np.linalg.norm(one.heatmap - other.heatmap) / np.linalg.norm(other.heatmap)
        assert off <= (5e-4 if epsilon == 100 else 5e-3)
        assert one.ledger.closes() and other.ledger.closes()


# ---- many targets, large photographs ----


@pytest.mark.parametrize("depth", ["descriptor", "bin", "gradient"])
def test_passes_and_parts_of_any_size_make_the_same_heatmaps(plain, photo, monkeypatch, depth):
    trace = plain.trace(photo)
    whole = trace.explain(plain.classes_, depth)
    for name in ("PASS", "PART"):
        monkeypatch.setattr(layers, name, 1)  # byte: one target per pass, one scale per part
        for ex, expected in zip(trace.explain(plain.classes_, depth), whole, strict=True):
            assert distance(ex.heatmap, expected.heatmap) < 1e-6  # matrix products have other shapes: rounding differs
            assert ex.ledger.closes() and dict(ex.ledger) == pytest.approx(dict(expected.ledger), abs=1e-6)
