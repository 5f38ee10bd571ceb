"""Fisher-vector models that were made elsewhere: arrays, scikit-learn's estimators, VLFeat's and scikit-image's order.

Hides how their projections are scaled and how their weights are laid out. For the classifier, whose `from_arrays` and
`from_sklearn` document it.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from ..runtime.arguments import check_choice, is_real
from ..runtime.types import Doubles, Untyped, Values
from .geometry import Pyramid, cell_count

# VLFeat and cyvlfeat have the package's own order: means, then variances, component by component.
ORDERS = ("vlfeat", "skimage")


def arrays(
    components: npt.ArrayLike,
    mean: npt.ArrayLike | None,
    mixture: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    linear: tuple[npt.ArrayLike, npt.ArrayLike],
    classes: npt.ArrayLike,
    order: str,
    descriptor_scale: float,
    pyramid: Pyramid,
) -> dict[str, Values]:
    """Arrays by the names of a model file, in its layout; the reader of the file's parts checks their shapes."""
    check_choice("order", order, ORDERS)
    if not (is_real(descriptor_scale) and 0 < descriptor_scale < np.inf):
        raise ValueError(f"descriptor_scale must be a positive number, got {descriptor_scale!r}")
    basis = np.asarray(components, np.float64)
    if basis.ndim != 2:
        raise ValueError(f"components must have shape (D, 128), got {basis.shape}")
    weights, means, covariances = (np.asarray(part, np.float64) for part in mixture)
    if covariances.shape != means.shape:
        raise ValueError(f"covariances must be diagonal, of the shape of means {means.shape}, got {covariances.shape}")
    coef = np.atleast_2d(np.asarray(linear[0], np.float64))
    if order == "skimage":
        coef = from_skimage(coef, len(weights), cell_count(pyramid))
    return {
        "classes": np.asarray(classes),
        "pca_components": basis * descriptor_scale,
        "pca_mean": np.zeros(basis.shape[1]) if mean is None else np.asarray(mean, np.float64) / descriptor_scale,
        "gmm_weights": weights,
        "gmm_means": means,
        "gmm_covariances": covariances,
        "coef": np.ascontiguousarray(coef, np.float32),
        "intercept": np.atleast_1d(np.asarray(linear[1], np.float64)),
    }


def projection(pca: Untyped) -> tuple[Doubles, Doubles]:
    """Rows and mean of scikit-learn's PCA (None: descriptors as they are); whitening is part of the rows."""
    if pca is None:
        return np.eye(128), np.zeros(128)
    rows = np.asarray(pca.components_, np.float64)
    if getattr(pca, "whiten", False):
        rows = rows / np.sqrt(pca.explained_variance_)[:, None]
    return rows, np.asarray(pca.mean_, np.float64)


def from_skimage(coef: Doubles, components: int, cells: int) -> Doubles:
    """Weights (n, cells * (K + 2 K D)) for scikit-image's Fisher vectors as weights for those of Eqs. 3-4.

    scikit-image's vectors begin with K derivatives by the mixture's weights, which Eqs. 3-4 do not have, and their
    derivatives by standard deviations have the other sign. The K weights are left out, and a warning says how much
    they held.
    """
    if coef.shape[1] % cells or coef.shape[1] // cells <= components:
        raise ValueError(f"coef must have {cells} x (K + 2 K D) columns with K = {components}, got {coef.shape[1]}")
    by_cell = coef.reshape(len(coef), cells, -1)
    left_out, kept = by_cell[..., :components], by_cell[..., components:].copy()
    kept[..., kept.shape[2] // 2 :] *= -1
    share = float((left_out**2).sum() / max((coef**2).sum(), np.finfo(float).tiny))
    if share > 0:
        warnings.warn(
            f"{left_out[0].size} weights of mixture weights are left out, {share:.1%} of the squared norm of coef: "
            "train on vectors without their first K entries for the same scores",
            stacklevel=4,
        )
    return kept.reshape(len(coef), -1)
