"""The parts of a model file: a header ready for JSON, and arrays by name.

Hides the file's names, types and shapes, what is no part of it, and what files of earlier versions lack. For the
classifier, whose `to_parts` and `from_parts` document it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.estimator import Parameter
from ..runtime.arguments import check_choice, is_real, is_whole
from ..runtime.types import Classes, Doubles, Json, Parsed, Singles, Values
from . import weights as coefficients
from .geometry import cell_count
from .gmm import DiagonalGMM

# Parameters that no file holds. (The header has a place of its own for `random_state`.)
FOR_ONE_USE = ("class_weight", "memory", "n_jobs", "random_state", "verbose")


@dataclass(frozen=True)
class Projection:
    """Rows of a PCA basis: y = (x - mean_) components_^T."""

    components_: Doubles  # (D, 128), orthonormal rows
    mean_: Doubles  # (128,), zero unless the classifier centres


class Learned(NamedTuple):
    """What `fit` learns, under the names of the classifier's attributes."""

    classes_: Classes
    multilabel_: bool
    C_: float
    pca_: Projection
    gmm_: DiagonalGMM
    coef_: Singles
    intercept_: Doubles


def written(
    learned: Learned, parameters: Mapping[str, Json], random_state: object, weights: str
) -> tuple[dict[str, Json], dict[str, Values]]:
    """Header and arrays of a file. `parameters` are those that last; `weights` says how coef_ is stored."""
    pca, gmm = learned.pca_, learned.gmm_
    header: dict[str, Json] = {
        "parameters": parameters,
        "random_state": int(random_state) if is_whole(random_state) else None,
        "weights": weights,
        "multilabel": bool(learned.multilabel_),
        "C": learned.C_,
    }
    arrays = {
        "classes": np.asarray(learned.classes_),
        "pca_components": pca.components_.astype(np.float32),
        "pca_mean": pca.mean_.astype(np.float32),
        "gmm_weights": _shortened(gmm.weights_),
        "gmm_means": _shortened(gmm.means_),
        "gmm_covariances": _shortened(gmm.covariances_),
        "intercept": learned.intercept_,
    }
    return header, arrays | coefficients.stored(learned.coef_, weights, gmm.means_.shape[1])


def read(header: Mapping[str, Parsed], arrays: Mapping[str, Values], parameters: Mapping[str, Parameter]) -> Learned:
    """What was learned, from the parts of a file; `parameters` are the classifier's.

    Raises
    ------
    KeyError, TypeError, ValueError
        Parts that are missing, do not fit together, or hold values that training cannot produce.
    """
    multilabel, C = header["multilabel"], header["C"]
    check_choice("multilabel", multilabel, (True, False))
    if not (is_real(C) and 0 < C < np.inf):
        raise ValueError(f"C must be a positive number, got {C!r}")
    K, D = parameters["n_components"], parameters["n_pca"]
    classes = coefficients.checked_classes(arrays["classes"])
    pca = Projection(
        coefficients.checked("pca_components", arrays, (D, 128)), coefficients.checked("pca_mean", arrays, (128,))
    )
    gmm = DiagonalGMM(K, weights=parameters["weights"], variance_floor=parameters["variance_floor"])
    gmm.weights_ = coefficients.checked("gmm_weights", arrays, (K,), positive=True)
    gmm.means_ = coefficients.checked("gmm_means", arrays, (K, D))
    gmm.covariances_ = coefficients.checked("gmm_covariances", arrays, (K, D), positive=True)
    gmm.n_features_in_ = D
    rows = 1 if len(classes) == 2 and not multilabel else len(classes)  # two exclusive classes share one hyperplane
    intercept = coefficients.checked("intercept", arrays, (rows,))
    shape = rows, cell_count(parameters["pyramid"]) * 2 * K * D
    coef = coefficients.restored(arrays, header["weights"], shape, D)
    return Learned(classes, multilabel, C, pca, gmm, coef, intercept)


def parameters_of(header: Mapping[str, Parsed]) -> dict[str, Parameter]:
    """Parameters from a file's header: JSON's lists become tuples; those that older files lack get their old values."""
    parameters = {"normalisation": "improved", **header["parameters"], "random_state": header["random_state"]}
    for name in ("bin_sizes", "pyramid"):
        parameters[name] = tuple(tuple(v) if isinstance(v, list) else v for v in parameters[name])
    return parameters


def lasting(parameters: Mapping[str, Parameter]) -> dict[str, Json]:
    """Parameters that belong to the model, not to one use of it, in the types that JSON holds."""
    return {name: frozen(value) for name, value in parameters.items() if name not in FOR_ONE_USE}


def frozen(value: Parameter) -> Parameter:
    """A parameter's value in built-in types, sequences as tuples."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(frozen, value)) if np.iterable(value) and not isinstance(value, str) else value


def _shortened(values: Doubles) -> npt.NDArray[np.float32] | Doubles:
    """`values` as float32 where that is exact, as for a mixture that `fit` learned; else as they are."""
    single = values.astype(np.float32)
    return single if np.array_equal(values, single) else values
