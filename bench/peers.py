"""The published packages, called as well as they can be."""

import numpy as np
from cyvlfeat.fisher import fisher
from cyvlfeat.sift import dsift
from scipy.ndimage import gaussian_filter
from sklearn.mixture import GaussianMixture

from fvlrp.fisher.geometry import Geometry


def vlfeat_sift(
    grey: np.ndarray, geometry: Geometry, fast: bool = True, threshold: float = 0.005, quantize: bool = False
) -> np.ndarray:
    """VLFeat's dense SIFT with vl_phow's parameters, (n, 128): what cyvlfeat.sift.phow means to compute.

    float32, or uint8 with `quantize`.

    cyvlfeat 0.7.1's phow is one pixel off and drops the window size; its dsift is right, and takes as long.
    """
    out = np.empty((geometry.n, 128), np.uint8 if quantize else np.float32)
    bottom, right = grey.shape[0] - 1, grey.shape[1] - 1
    for scale in geometry.scales:
        sigma = scale.bin_size / 6
        smooth = gaussian_filter(grey, sigma, mode="nearest", radius=int(np.ceil(4 * sigma)))
        frames, values = dsift(
            smooth,
            step=scale.step,
            size=scale.bin_size,
            bounds=np.array([scale.first, scale.first, bottom, right]),
            window_size=1.5,
            norm=True,
            fast=fast,
            float_descriptors=not quantize,
        )
        values[frames[:, 2] < threshold] = 0
        out[scale.slice] = values
    return out


def vlfeat_fisher(y: np.ndarray, mixture: tuple, fast: bool = True) -> np.ndarray:
    """Improved Fisher vector by VLFeat, float32 (2 K D,); `mixture` as `single` makes it."""
    weights, means, covariances = mixture
    return np.ravel(fisher(y, means, covariances, weights, improved=True, fast=fast))


def single(gmm) -> tuple[np.ndarray, ...]:
    """Weights, means and variances in float32."""
    return tuple(np.ascontiguousarray(a, np.float32) for a in (gmm.weights_, gmm.means_, gmm.covariances_))


def scikit_mixture(gmm) -> GaussianMixture:
    """scikit-learn's mixture with the same parameters; it computes in float64."""
    mixture = GaussianMixture(len(gmm.weights_), covariance_type="diag")
    mixture.weights_, mixture.means_, mixture.covariances_ = gmm.weights_, gmm.means_, gmm.covariances_
    mixture.precisions_cholesky_ = 1 / np.sqrt(gmm.covariances_)
    return mixture


def loop_over_components(y, gamma, cells, shares, member, gmm) -> np.ndarray:
    """Eqs. 5-6 as a reader of the paper writes them, float32 (n, D): component by component, all descriptors at once.

    `cells` lists the rows of each finest cell, `member` the pyramid cells that it lies in.
    """
    weights, means, _ = single(gmm)
    deviations = np.sqrt(gmm.covariances_).astype(np.float32)
    r2 = np.zeros_like(y)
    merged = np.tensordot(member, shares, 1).astype(np.float32)
    for (first, second), rows in zip(merged, cells, strict=True):
        own, posteriors = y[rows], gamma[rows]
        part = np.zeros_like(own)
        for k, weight in enumerate(weights):
            delta = (own - means[k]) / deviations[k]
            part += posteriors[:, k, None] * (
                first[k] / np.sqrt(weight) * delta + second[k] / np.sqrt(2 * weight) * (delta**2 - 1)
            )
        r2[rows] = part
    return r2
