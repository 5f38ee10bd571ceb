"""Quantus evaluates explanations: its metrics run on both stacks, and agree with ours where both measure the same."""

import numpy as np
import pytest

import fvlrp
from fvlrp.evaluate import for_quantus, localisation

torch = pytest.importorskip("torch", reason="Quantus takes models of torch, which is missing")
quantus = pytest.importorskip("quantus", reason="Quantus 0.6.0 is missing")


@pytest.fixture
def batch(textures):
    images, labels = textures(1, seed=5)
    return np.stack([images] * 3, axis=1).astype(np.float32) / 255, list(labels)


@pytest.mark.parametrize("name", ["plain", "centred"])
def test_scores_and_heatmaps_are_the_classifiers(request, batch, name):
    clf, (x, _) = request.getfixturevalue(name), batch
    module, explain_func = for_quantus(clf, depth="descriptor")
    photographs = list(x.transpose(0, 2, 3, 1))
    scores = module(torch.from_numpy(x)).numpy()
    assert scores.shape == (len(x), len(clf.classes_))
    given = clf.decision_function(photographs)
    np.testing.assert_array_equal(scores, given if given.ndim == 2 else np.stack([-given, given], axis=1))
    found = explain_func(module, x, np.ones(len(x), int))
    wanted = [clf.explain(photo, clf.classes_[1], "descriptor").heatmap for photo in photographs]
    np.testing.assert_array_equal(found[:, 0], wanted)


def test_values_outside_0_to_1_are_clipped(plain, batch):
    module, _ = for_quantus(plain)
    x = torch.from_numpy(batch[0].copy())
    x[:, :, 5:9, 5:9] = 1
    beyond = x.clone()
    beyond[:, :, 5:9, 5:9] = 3
    assert torch.equal(module(beyond), module(x))


def test_its_relevance_mass_is_ours(plain, batch):
    x, labels = batch
    y = np.array([list(plain.classes_).index(label) for label in labels])
    module, explain_func = for_quantus(plain)
    inside = np.zeros((len(x), 1, *x.shape[2:]), bool)
    inside[:, :, 10:40, 20:60] = True
    metric = quantus.RelevanceMassAccuracy(abs=False, normalise=False, disable_warnings=True)
    positive = np.maximum(explain_func(module, x, y), 0)
    theirs = metric(module, x, y, a_batch=positive, s_batch=inside, channel_first=True)
    ours = [localisation(heatmap, np.array([[10, 20, 40, 60]]))[0].mass for heatmap in positive[:, 0]]
    np.testing.assert_allclose(theirs, ours, rtol=1e-6)


def test_its_pixel_flipping_runs_on_our_scores(plain, batch):
    x, labels = batch
    y = np.array([list(plain.classes_).index(label) for label in labels])
    module, explain_func = for_quantus(plain)
    metric = quantus.PixelFlipping(features_in_step=x[0, 0].size // 4, perturb_baseline="black", disable_warnings=True)
    curves = np.array(metric(module, x, y, explain_func=explain_func, channel_first=True))
    assert curves.shape == (len(x), 12) and np.isfinite(curves).all() and np.ptp(curves, axis=1).min() > 0


def test_the_error_without_torch_names_the_missing_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    with pytest.raises(ImportError, match="Quantus takes models of torch: pip install torch quantus"):
        for_quantus(fvlrp.load("voc20"))
