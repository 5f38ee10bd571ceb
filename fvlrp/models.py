"""Models as files: one .npz with a JSON header, never pickle; and the models inside the package by name."""

from __future__ import annotations

import os
from importlib import resources

import numpy as np

from . import files
from .rules import choose

WEIGHTS = {"float32": None, "int8": 127, "int4": 7}  # largest integer of each way to store coef_


def names() -> list[str]:
    """Models inside the package."""
    folder = resources.files(__package__) / "models"
    return sorted(entry.name.removesuffix(".fvlrp") for entry in folder.iterdir() if entry.name.endswith(".fvlrp"))


def load(model):
    """A classifier from a file, or one of the models inside the package by its name ("voc20").

    An ONNX file (its name ends in .onnx) is read with the JSON file of the same stem beside it, where there is one:
    how photographs are prepared, and the names of the classes.

    Raises
    ------
    ImportError
        An ONNX file, and the package onnx is not installed.
    OSError
        There is no such file.
    ValueError
        The file is damaged, newer than this fvlrp, or holds something else.
    """
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be the path of a file or a name such as 'voc20', got {model!r}")
    name = os.fsdecode(model)
    if name.lower().endswith(".onnx"):
        return _onnx(name)
    if os.path.isfile(name):  # a folder may well have the name of a model
        return _open(name)
    if os.sep not in name and not os.path.splitext(name)[1]:
        if name not in names():
            raise FileNotFoundError(f"no model {name!r}: neither a file nor one of {', '.join(names())}")
        with resources.as_file(resources.files(__package__) / "models" / f"{name}.fvlrp") as path:
            return _open(path)
    raise FileNotFoundError(f"no model file {name}")


def _open(path):
    header, arrays = files.load_arrays(path, (files.FISHER, files.CONVNET))
    return (_fisher if header["kind"] == files.FISHER else _convnet)(path, header, arrays)


def _onnx(name: str):
    from .convnet import ConvNet

    beside = os.path.splitext(name)[0] + ".json"
    return ConvNet.from_onnx(name, beside if os.path.exists(beside) else None)


def _convnet(path, header: dict, arrays: dict):
    """A network from a checked file; what does not fit together is refused in one sentence."""
    from .convnet import ConvNet

    try:
        return ConvNet.from_parts(header, arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a network this fvlrp can use: {error}") from error


def save_fisher(clf, path, weights: str = "float32") -> None:
    """Write a fitted `FisherVectorClassifier`; see its `save`."""
    choose("weights", weights, tuple(WEIGHTS))
    clf._fitted()  # refuses parameters that what was learned does not have
    parameters = {k: v for k, v in clf.get_params().items() if k not in ("n_jobs", "verbose", "random_state")}
    header = {
        "kind": files.FISHER,
        "parameters": parameters,
        "random_state": clf.random_state if isinstance(clf.random_state, int) else None,
        "weights": weights,
        "multilabel": bool(clf.multilabel_),
        "C": clf.C_,
    }
    arrays = {
        "classes": np.asarray(clf.classes_),
        "pca_components": clf.pca_.components_.astype(np.float32),
        "pca_mean": clf.pca_.mean_.astype(np.float32),
        "gmm_weights": clf.gmm_.weights_,
        "gmm_means": clf.gmm_.means_,
        "gmm_covariances": clf.gmm_.covariances_,
        "intercept": clf.intercept_,
    }
    for name in ("gmm_weights", "gmm_means", "gmm_covariances"):
        if np.array_equal(arrays[name], arrays[name].astype(np.float32)):
            arrays[name] = arrays[name].astype(np.float32)
    arrays |= _quantised(clf.coef_, weights, clf.gmm_.means_.shape[1])
    files.save_arrays(path, header, arrays, compress=weights != "float32")


def _quantised(coef: np.ndarray, weights: str, run: int) -> dict[str, np.ndarray]:
    """coef_ as it is stored: integers with one float32 scale for each run of `run` values."""
    top = WEIGHTS[weights]
    if top is None:
        return {"coef": coef}
    runs = coef.reshape(-1, run)
    scale = (np.abs(runs).max(axis=1) / top).astype(np.float32)
    whole = np.rint(runs / np.where(scale > 0, scale, 1)[:, None]).astype(np.int8).ravel()
    if weights == "int4":
        if len(whole) % 2:
            whole = np.append(whole, np.int8(0))
        whole = ((whole[0::2] + 8) | ((whole[1::2] + 8) << 4)).astype(np.uint8)
    return {"coef": whole, "coef_scale": scale}


def _restored(arrays: dict, weights: str, shape: tuple[int, int], run: int) -> np.ndarray:
    if weights == "float32":
        coef = arrays["coef"]
    else:
        whole, scale = arrays["coef"], arrays["coef_scale"]
        if weights == "int4":
            whole = np.stack([(whole & 15).astype(np.int8) - 8, (whole >> 4).astype(np.int8) - 8], axis=1).ravel()
            whole = whole[: shape[0] * shape[1]]
        coef = (whole.reshape(-1, run) * scale[:, None]).astype(np.float32)
    return np.ascontiguousarray(coef.reshape(shape))


def _fisher(path, header: dict, arrays: dict):
    """A classifier from a checked file; what does not fit together is refused in one sentence."""
    from .classifier import FisherVectorClassifier, Projection
    from .gmm import DiagonalGMM

    try:
        parameters = dict(header["parameters"])
        for name in ("bin_sizes", "pyramid"):
            parameters[name] = tuple(tuple(v) if isinstance(v, list) else v for v in parameters[name])
        clf = FisherVectorClassifier(**parameters, random_state=header["random_state"])
        clf._check()
        clf.classes_, clf.multilabel_, clf.C_ = arrays["classes"], bool(header["multilabel"]), float(header["C"])
        components, mean = (arrays[f"pca_{name}"].astype(np.float64) for name in ("components", "mean"))
        clf.pca_ = Projection(components, mean)
        gmm = DiagonalGMM(clf.n_components, weights=clf.weights, variance_floor=clf.variance_floor)
        for name in ("weights", "means", "covariances"):
            setattr(gmm, f"{name}_", arrays[f"gmm_{name}"].astype(np.float64))
        gmm.n_features_in_ = clf.n_pca
        clf.gmm_ = gmm
        shapes = [components.shape, mean.shape, gmm.weights_.shape, gmm.means_.shape, gmm.covariances_.shape]
        K, D = clf.n_components, clf.n_pca
        if shapes != [(D, 128), (128,), (K,), (K, D), (K, D)]:
            raise ValueError("its arrays do not have the shapes of its parameters")
        clf.intercept_ = arrays["intercept"]
        rows = 1 if len(clf.classes_) == 2 and not clf.multilabel_ else len(clf.classes_)
        if clf.classes_.ndim != 1 or clf.intercept_.shape != (rows,):
            raise ValueError("its intercepts are not those of its classes")
        cells = sum(rows * cols for rows, cols in clf.pyramid)
        shape = (len(clf.intercept_), cells * 2 * K * D)
        clf.coef_ = _restored(arrays, header["weights"], shape, D)
        clf._adopt()
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a model this fvlrp can use: {error}") from error
    return clf
