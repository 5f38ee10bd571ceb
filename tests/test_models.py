"""Model files: the same model again, or one clear refusal."""

import copy
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import fvlrp
from fvlrp import models
from fvlrp.data import files
from fvlrp.fisher.walk import DEPTHS
from fvlrp.fisher.weights import WEIGHTS


@pytest.mark.parametrize("name", ["plain", "centred", "multilabel", "improved"])
def test_a_loaded_model_equals_the_saved_one(request, photo, tmp_path, name):
    clf = request.getfixturevalue(name)
    clf.save(tmp_path / "it.fvlrp")
    again = fvlrp.load(tmp_path / "it.fvlrp")
    assert again.get_params() == clf.get_params()
    assert (again.C_, again.multilabel_, list(again.classes_)) == (clf.C_, clf.multilabel_, list(clf.classes_))
    for part in ("weights_", "means_", "covariances_"):
        assert np.array_equal(getattr(again.gmm_, part), getattr(clf.gmm_, part))
    assert np.array_equal(again.pca_.components_, clf.pca_.components_)
    assert np.array_equal(again.pca_.mean_, clf.pca_.mean_)
    assert again.coef_.dtype == np.float32 and np.array_equal(again.coef_, clf.coef_)
    assert np.array_equal(again.intercept_, clf.intercept_)
    for one, other in zip(again.explain(photo, "brick", DEPTHS), clf.explain(photo, "brick", DEPTHS), strict=True):
        assert np.array_equal(one.heatmap, other.heatmap) and one.ledger == other.ledger
    assert np.array_equal(again.gmm_.predict_proba(np.zeros((2, clf.n_pca))).shape, (2, clf.n_components))


@pytest.mark.parametrize(
    "given",
    [{"bin_sizes": 6}, {"bin_sizes": np.array([4, 8])}, {"step": np.int64(4)}, {"gate": np.float32(0)}],
    ids=lambda given: next(iter(given)),
)
def test_parameters_may_be_given_in_any_type(plain, photo, tmp_path, given):
    clf = copy.copy(plain).set_params(**given, random_state=np.int64(3))
    clf.save(tmp_path / "it")
    again = fvlrp.load(tmp_path / "it")
    assert np.array_equal(again.scores(photo), clf.scores(photo)) and again.random_state == 3
    assert json.loads(json.dumps(clf.describe())) == json.loads(json.dumps(again.describe()))


def test_numpy_and_python_parameters_fit_the_same_model(textures, photo, tmp_path):
    clf = fvlrp.FisherVectorClassifier(
        n_components=np.int64(4), n_pca=8, pyramid=np.array([[2, 2], [1, 1]]), C=np.float32(2), magnif=np.float32(6)
    ).fit(*textures(2, seed=5))
    clf.save(tmp_path / "it")
    again = fvlrp.load(tmp_path / "it")
    assert np.array_equal(again.scores(photo), clf.scores(photo)) and again.pyramid == ((2, 2), (1, 1))


def test_an_uncentred_model_keeps_its_float64_means_in_a_file(centred, tmp_path):
    moved = copy.deepcopy(centred).uncenter()
    moved.save(tmp_path / "it")
    again = fvlrp.load(tmp_path / "it")
    assert np.array_equal(again.gmm_.means_, moved.gmm_.means_) and not again.pca_.mean_.any()


@pytest.mark.parametrize(("weights", "top"), [("int8", 127), ("int4", 7)])
@pytest.mark.parametrize("name", ["plain", "multilabel"])
def test_integer_weights_are_within_half_a_step(request, photo, tmp_path, name, weights, top):
    clf = request.getfixturevalue(name)  # 13 x 7 x 16 x 3 values are an odd number of runs
    clf.save(tmp_path / "whole")
    clf.save(tmp_path / "small", weights=weights)
    again = fvlrp.load(tmp_path / "small")
    runs = clf.coef_.reshape(-1, clf.n_pca)
    step = np.abs(runs).max(axis=1, keepdims=True) / top
    off = np.abs(again.coef_.reshape(runs.shape) - runs)
    assert off.max() > 0 and (off <= 0.5001 * step).all()
    assert again.scores(photo) == pytest.approx(clf.scores(photo), abs=2 / top * np.abs(clf.scores(photo)).max())
    assert os.path.getsize(tmp_path / "small") < os.path.getsize(tmp_path / "whole")


def test_runs_of_zero_weights_stay_zero(plain, tmp_path):
    clf = copy.deepcopy(plain)
    clf.coef_[:, :240] = 0
    for weights in WEIGHTS:
        clf.save(tmp_path / weights, weights)
        assert not fvlrp.load(tmp_path / weights).coef_[:, :240].any()


@pytest.mark.parametrize("weights", ["float32", "int8", "int4"])
def test_the_same_model_is_the_same_bytes_under_exactly_the_name_given(plain, tmp_path, weights):
    for name in ("one.fvlrp", "two", "three.npz"):
        plain.save(str(tmp_path / name), weights=weights)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.fvlrp", "three.npz", "two"]
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1
    fvlrp.load(tmp_path / "two").save(tmp_path / "again", weights="float32")
    fvlrp.load(tmp_path / "again").save(tmp_path / "and again", weights="float32")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "and again").read_bytes()


def test_a_failed_save_keeps_the_old_file(plain, tmp_path, monkeypatch):
    plain.save(tmp_path / "it")
    before = (tmp_path / "it").read_bytes()
    broken = copy.deepcopy(plain)
    broken.classes_ = np.array([object()])
    with pytest.raises(ValueError, match="'classes' has dtype object"):
        broken.save(tmp_path / "it")
    monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        plain.save(tmp_path / "it")
    assert (tmp_path / "it").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_weights_must_be_one_of_three_formats(plain, tmp_path):
    with pytest.raises(ValueError, match="weights must be one of 'float32', 'int8', 'int4', got 'int2'"):
        plain.save(tmp_path / "it", weights="int2")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        plain.save(tmp_path / "none" / "it")


# ---- refusals ----


@pytest.fixture(scope="module")
def stored(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("stored") / "it.fvlrp"
    plain.save(path)
    return path


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_truncated_files(stored, tmp_path, share):
    whole, path = stored.read_bytes(), tmp_path / "it.fvlrp"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"it\.fvlrp is not an fvlrp file, or it is truncated or damaged"):
        fvlrp.load(path)


def test_damaged_images_are_refused_by_name(stored, tmp_path):
    data, path = bytearray(stored.read_bytes()), tmp_path / "it.fvlrp"
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"it\.fvlrp is damaged"):
        fvlrp.load(path)


def test_other_files_are_refused_by_name(tmp_path, photo):
    path = tmp_path / "it"
    path.write_text("no model")
    with pytest.raises(ValueError, match="is not an fvlrp file"):
        fvlrp.load(path)
    np.savez(tmp_path / "it.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="is not an fvlrp file"):
        fvlrp.load(tmp_path / "it.npz")
    files.save_arrays(path, {"kind": "explanation"}, {"heatmap": np.zeros((2, 2))})
    with pytest.raises(ValueError, match="holds kind 'explanation'; expected fisher-vector classifier"):
        fvlrp.load(path)


def test_files_of_a_newer_format_are_refused(stored, tmp_path):
    path = tmp_path / "newer.fvlrp"
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "header.json":
                data = json.dumps({**json.loads(data), "version": 2})
            new.writestr(name, data)
    with pytest.raises(ValueError, match=r"newer\.fvlrp has format version 2.*install a newer fvlrp"):
        fvlrp.load(path)


def without(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        lambda header, arrays: (without(header, "parameters"), arrays),
        lambda header, arrays: (without(header, "C"), arrays),
        lambda header, arrays: ({**header, "weights": "int2"}, arrays),
        lambda header, arrays: ({**header, "weights": "int8"}, arrays),
        lambda header, arrays: ({**header, "parameters": [1]}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "colour": True}}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "pyramid": [[1, 1]]}}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "pyramid": 3}}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "n_pca": 23}}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "step": 0}}, arrays),
        lambda header, arrays: (header, without(arrays, "gmm_means")),
        lambda header, arrays: (header, without(arrays, "coef")),
        lambda header, arrays: (header, {**arrays, "coef": arrays["coef"][:, :-1]}),
        lambda header, arrays: (header, {**arrays, "classes": arrays["classes"][:2]}),
        lambda header, arrays: (header, {**arrays, "classes": arrays["classes"][:, None]}),
        lambda header, arrays: (header, {**arrays, "pca_mean": arrays["pca_mean"][:100]}),
        lambda header, arrays: (header, {**arrays, "gmm_weights": np.array(["x"] * 16)}),
        lambda header, arrays: ({**header, "C": -1.0}, arrays),
        lambda header, arrays: ({**header, "C": None}, arrays),
        lambda header, arrays: ({**header, "multilabel": "no"}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "n_components": 0}}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "bin_sizes": []}}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "bin_sizes": 4}}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "pyramid": [[1, 10**9]]}}, arrays),
        lambda header, arrays: ({**header, "parameters": {**header["parameters"], "window": "hann"}}, arrays),
        lambda header, arrays: (header, {**arrays, "classes": np.array(["a", "b", "a"])}),
        lambda header, arrays: (header, {**arrays, "classes": np.array([0.5, np.nan, 1.5])}),
        lambda header, arrays: (header, {**arrays, "classes": arrays["classes"][:0]}),
        lambda header, arrays: (header, {**arrays, "intercept": arrays["intercept"][:2]}),
        lambda header, arrays: (header, {**arrays, "intercept": arrays["intercept"][:, None]}),
    ],
)
def test_files_with_mismatched_parts_are_refused(stored, tmp_path, change):
    path = tmp_path / "it.fvlrp"
    files.save_arrays(path, *change(*files.load_arrays(stored)))
    with pytest.raises(ValueError, match=r"it\.fvlrp is not a model this fvlrp can use"):
        fvlrp.load(path)


@pytest.mark.parametrize(
    "kind", [ZeroDivisionError, AttributeError, IndexError, OverflowError, RecursionError, KeyError]
)
def test_damaged_files_raise_value_error(stored, monkeypatch, kind):
    def fail(*_):
        raise kind("colour")

    monkeypatch.setattr(fvlrp.FisherVectorClassifier, "from_parts", fail)
    with pytest.raises(ValueError, match=r"it\.fvlrp is not a model this fvlrp can use: .*colour"):
        fvlrp.load(stored)


def test_options_of_onnx_files_are_refused_for_other_models(stored):
    with pytest.raises(ValueError, match="classes belongs to an ONNX file"):
        fvlrp.load(stored, classes=["a", "b"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["pca_components", "pca_mean", "gmm_weights", "gmm_means", "gmm_covariances", "intercept", "coef"]
)
def test_files_with_nan_or_infinity_are_refused(stored, tmp_path, name, value):
    header, arrays = files.load_arrays(stored)
    arrays[name] = arrays[name].copy()
    arrays[name].flat[-1] = value
    files.save_arrays(tmp_path / "it.fvlrp", header, arrays)
    with pytest.raises(
        ValueError, match=rf"it\.fvlrp is not a model this fvlrp can use: {name} holds 1 values that are"
    ):
        fvlrp.load(tmp_path / "it.fvlrp")


@pytest.mark.parametrize("value", [0.0, -1e-3])
@pytest.mark.parametrize("name", ["gmm_weights", "gmm_covariances"])
def test_damaged_mixture_files_are_refused(stored, tmp_path, name, value):
    header, arrays = files.load_arrays(stored)
    arrays[name] = arrays[name].copy()
    arrays[name].flat[3] = value
    files.save_arrays(tmp_path / "it.fvlrp", header, arrays)
    with pytest.raises(ValueError, match=rf"it\.fvlrp is not a model .*: {name} must be positive, got"):
        fvlrp.load(tmp_path / "it.fvlrp")


def test_old_files_load_with_the_original_meaning_of_missing_parameters(stored, tmp_path):
    header, arrays = files.load_arrays(stored)
    older = {**header, "parameters": without(header["parameters"], "normalisation")}
    files.save_arrays(tmp_path / "it.fvlrp", older, arrays)
    assert fvlrp.load(tmp_path / "it.fvlrp").normalisation == "improved"


def test_names_that_are_not_models_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model 'voc3': neither a file nor one of .*voc20"):
        fvlrp.load("voc3")
    for missing in (tmp_path / "it", tmp_path / "it.fvlrp", "it.fvlrp"):
        with pytest.raises(FileNotFoundError, match=r"no model file .*it"):
            fvlrp.load(missing)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("n.pt", r"is a file of torch: export .*torch\.onnx\.export"),
        ("n.SAFETENSORS", "is a file of torch"),
        ("n.keras", "is a file of TensorFlow: .*tf2onnx"),
        ("n.caffemodel", "is a file of Caffe: .*from_caffe"),
    ],
)
def test_files_of_other_programs_are_refused_with_the_way_to_onnx(tmp_path, name, words):
    with pytest.raises(FileNotFoundError):
        fvlrp.load(tmp_path / name)
    (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(ValueError, match=words):
        fvlrp.load(tmp_path / name)


# ---- the model inside the package ----


def test_the_packaged_model_loads_by_name(tmp_path, monkeypatch):
    (tmp_path / "voc20").mkdir()  # a folder of that name, of photographs perhaps, is not in the way
    monkeypatch.chdir(tmp_path)
    clf = fvlrp.load("voc20")
    assert "voc20" in models.names()
    assert len(clf.classes_) == 20 and clf.multilabel_ and "dog" in clf.classes_
    assert clf.coef_.shape == (20, 327_680) and clf.pca_.components_.shape == (80, 128)


def test_the_packaged_model_explains_every_class_at_once(photo):
    """More targets than one pass at depth "gradient" takes; n_jobs works on what was loaded."""
    trace = fvlrp.load("voc20").set_params(n_jobs=2).trace(photo)
    together = trace.explain(trace.classes, ("gradient", "bin"))
    assert [ex.target for ex in together[::2]] == trace.classes
    for position in (0, 7, 19):
        alone = trace.explain(trace.classes[position], "gradient")
        assert np.array_equal(together[2 * position].heatmap, alone.heatmap)
        assert alone.ledger.closes() and alone.score == trace.scores[position]


def test_explaining_imports_no_training_code(stored, tmp_path):
    """scikit-learn's estimators take longer to import than a heatmap takes to compute."""
    code = (
        "import sys, numpy as np, fvlrp\n"
        "clf = fvlrp.load(sys.argv[1])\n"
        "clf.explain(np.eye(50), depth=('vector', 'descriptor', 'bin', 'gradient'))[0].to_image()\n"
        "print([m for m in ('svm', 'cluster', 'decomposition', 'mixture', 'metrics._ranking', 'linear_model')\n"
        "       if 'sklearn.' + m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, stored], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
