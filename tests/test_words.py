"""Relevance per component of the mixture against Eqs. 5-6 in NumPy, and the patches that have most of it."""

import json

import numpy as np
import pytest
import reference
from PIL import Image

from fvlrp import Explanation, cli
from fvlrp.fisher.words import component_relevance, top_patches
from fvlrp.rules import FisherRules


def paper(trace, model, r3, epsilon):
    """Eqs. 5-6 for every descriptor and component by itself: (K, n)."""
    gmm, geometry = model.gmm_, trace.descriptors.geometry
    mixture = gmm.weights_, gmm.means_, gmm.covariances_
    y = (trace.descriptors.values - model.pca_.mean_) @ model.pca_.components_.T
    gamma, _ = reference.posteriors(y, *mixture, model.gate)
    cells = geometry.cells(model.pyramid)
    n_cells = sum(rows * cols for rows, cols in model.pyramid)
    sums, magnitudes = (reference.pooled(y, gamma, cells, n_cells, *mixture, magnitude=m) for m in (False, True))
    member = reference.membership(cells, n_cells)
    share, *_ = reference.shares(r3.reshape(n_cells, -1), sums, magnitudes, member.sum(axis=1), epsilon)
    share = share.reshape(n_cells, 2, *gmm.means_.shape)
    found = np.zeros((len(gmm.weights_), len(y)))
    for k, rows, terms in reference.psi_by_component(y, gamma, *mixture):
        found[k, rows] = (terms * (member[:, rows].T @ share[:, :, k].reshape(n_cells, -1))).sum(axis=1)
    return found


@pytest.mark.parametrize("epsilon", [100.0, 1.0])
def test_components_are_those_of_the_equations(plain, centred, photo, epsilon):
    rules = FisherRules(epsilon_pool=epsilon)
    for model, target in ((plain, "grass"), (centred, "brick")):
        trace = model.trace(photo, dtype="float64")
        ex = trace.explain(target, "descriptor", rules)
        expected = paper(trace, model, ex.relevance["vector"], epsilon)
        scale = np.abs(expected).sum()
        some = [5, 0, 15, 5, 7, 8, 9, 10, 11, 12]
        np.testing.assert_allclose(trace.through(some, target, rules), expected[some], atol=1e-12 * scale)
        np.testing.assert_allclose(ex.components(), expected.sum(axis=1), atol=1e-12 * scale)


def test_components_add_up_to_the_relevance_of_descriptors(plain, photo):
    trace = plain.trace(photo)
    ex = trace.explain("grass", "bin")
    descriptors = ex.relevance["descriptor"]
    size = np.abs(descriptors).sum()
    assert ex.components().shape == (16,)
    assert ex.components().sum() == pytest.approx(descriptors.sum(), abs=1e-5 * size)
    np.testing.assert_allclose(trace.through(range(16), "grass").sum(axis=0), descriptors, atol=1e-5 * size)
    ledger = ex.ledger
    reached = ledger["score"] - ledger["absorbed_pool"] - ledger["empty_cell"] - ledger["zero_sum"]
    assert ex.components().sum() == pytest.approx(reached, abs=1e-5 * size)


def test_kept_components_outlive_the_model(plain, photo, tmp_path):
    ex = plain.explain(photo, "grass", keep=("component",))
    ex.save(tmp_path / "ex.npz")
    np.testing.assert_array_equal(Explanation.load(tmp_path / "ex.npz").components(), ex.components())
    plain.explain(photo, "grass").save(tmp_path / "ex.npz")
    with pytest.raises(ValueError, match="only Fisher-vector explanations have components"):
        Explanation.load(tmp_path / "ex.npz").components()


def test_an_unknown_component_is_refused(plain, photo):
    with pytest.raises(ValueError, match=r"components must lie in 0\.\.15, got 16"):
        plain.trace(photo).through([3, 16], "grass")


@pytest.fixture(scope="module")
def traces(plain, textures):
    return [(plain.trace(image), label) for image, label in zip(*textures(2, seed=12), strict=True)]


def test_top_patches_are_the_most_relevant_descriptors(traces):
    found = top_patches(traces, [2, 7], count=5, each=1)
    for k, patches in zip((2, 7), found, strict=True):
        amounts = np.array([trace.through([k], target)[0].max() for trace, target in traces])
        expected = sorted(amounts[amounts > 0], reverse=True)[:5]
        assert [patch.relevance for patch in patches] == pytest.approx(expected)
        assert [amounts[patch.photograph] for patch in patches] == pytest.approx(expected)


def test_patches_show_the_pixels_of_their_descriptor(traces):
    patches = [patch for patches in top_patches(traces, range(16), count=3) for patch in patches]
    assert len(patches) > 16
    for patch in patches:
        trace, target = traces[patch.photograph]
        ymin, xmin, ymax, xmax = patch.box
        np.testing.assert_array_equal(patch.pixels, trace.image[ymin:ymax, xmin:xmax])
        # The 4s x 4s square about the centre of a descriptor of that relevance, cut at the image's edges.
        rows = np.flatnonzero(trace.through([patch.component], target)[0] == patch.relevance)
        y, x, size = trace.descriptors.frames[rows].T.astype(int)
        top, left = y - 3 * size // 2 - size // 2, x - 3 * size // 2 - size // 2
        boxes = np.clip(np.stack([top, left, top + 4 * size, left + 4 * size]), 0, np.array([[60], [76]] * 2))
        assert patch.box in map(tuple, boxes.T.tolist())


def test_patches_of_one_photograph_do_not_overlap(traces):
    for patches in top_patches(traces[:1], range(16), count=6):
        for i, one in enumerate(patches):
            for other in patches[:i]:
                height = min(one.box[2], other.box[2]) - max(one.box[0], other.box[0])
                width = min(one.box[3], other.box[3]) - max(one.box[1], other.box[1])
                area = min(patch.pixels.shape[0] * patch.pixels.shape[1] for patch in (one, other))
                assert max(height, 0) * max(width, 0) <= 0.6 * area


def test_relevance_of_components_comes_photograph_by_photograph(traces):
    found = component_relevance(traces)
    assert found.shape == (len(traces), 16)
    for (trace, target), row in zip(traces, found, strict=True):
        np.testing.assert_array_equal(row, trace.explain(target, "bin").components())


def test_patches_of_reduced_photographs_are_cut_from_the_photograph(centred, photographs):
    image = photographs[2][:200, :260]  # 200 rows are analysed as 64
    trace = centred.trace(image)
    found = top_patches([(trace, "gravel")], range(16), count=2)
    assert any(found)
    for patch in (patch for patches in found for patch in patches):
        ymin, xmin, ymax, xmax = patch.box
        assert ymax - ymin >= 30 and ymax <= 200 and xmax <= 260  # bins of 4 rows of 64 are 50 rows of 200
        np.testing.assert_array_equal(patch.pixels, image[ymin:ymax, xmin:xmax])


def test_words_draws_a_montage(capsys, plain, textures, tmp_path):
    plain.save(tmp_path / "plain.fvlrp")
    photos = []
    for i, image in enumerate(textures(2, seed=12)[0]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
        photos.append(str(tmp_path / f"{i}.png"))
    out = tmp_path / "words.png"
    common = ["words", *photos, "/missing.jpg", "--model", str(tmp_path / "plain.fvlrp"), "--quiet", "--out", str(out)]
    code = cli.main([*common, "--target", "grass", "--words", "3", "--patches", "4", "--json"])
    value = json.loads(capsys.readouterr().out)
    assert code == 1 and [failure["photo"] for failure in value["failed"]] == ["/missing.jpg"]
    amounts = [word["relevance"] for word in value["words"]]
    assert len(amounts) == 3 and amounts == sorted(amounts, reverse=True)
    assert all(len(word["patches"]) <= 4 and word["patches"][0]["photo"] in photos for word in value["words"])
    assert Image.open(out).height > 3 * 96
    code = cli.main([*common, "--component", "5"])
    assert code == 1 and capsys.readouterr().out.strip() == str(out)
    assert cli.main(["words", photos[0], "--model", str(tmp_path / "plain.fvlrp"), "--out", "words.jpg"]) == 2
    code = cli.main(["words", "/missing.jpg", "--model", str(tmp_path / "plain.fvlrp"), "--out", str(out), "--quiet"])
    assert code == 1
