"""Properties of a single heatmap: sparseness, resolution, and the share of the score that it holds; and its check.

For the other modules of evaluate and users.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def check_heatmap(heatmap: npt.ArrayLike, shape: tuple[int, ...] | None = None) -> npt.NDArray[np.float64]:
    """`heatmap` as float64 (H, W); ValueError unless it is one finite plane, of `shape` where that is given."""
    if hasattr(heatmap, "heatmap"):
        raise ValueError("heatmap is an Explanation; expected its array: explanation.heatmap")
    plane = np.asarray(heatmap, dtype=np.float64)
    if plane.ndim != 2 or plane.size == 0 or (shape is not None and plane.shape != tuple(shape)):
        expected = "(H, W)" if shape is None else f"{tuple(shape)}, the image's own"
        raise ValueError(f"heatmap has shape {plane.shape}; expected {expected}")
    if not np.isfinite(plane).all():
        raise ValueError(f"heatmap has {np.count_nonzero(~np.isfinite(plane))} values that are NaN or infinite")
    return plane


def gini(heatmap: npt.ArrayLike) -> float:
    """Gini index of |R|, a measure of sparseness: 0 if all pixels are equal, near 1 if a few hold all relevance.

    Of n values in rising order, Σ (2i − n − 1) |R|_i / (n Σ |R|_i) with i from 1 (Chalasani et al., ICML 2020).

    Parameters
    ----------
    heatmap : array (H, W)

    Returns
    -------
    float
        NaN where every value is 0.

    Raises
    ------
    ValueError
        `heatmap` is not a finite (H, W) array.

    Examples
    --------
    >>> round(fvlrp.evaluate.gini(np.ones((8, 8))), 3), round(fvlrp.evaluate.gini(np.eye(100)), 3)
    (0.0, 0.99)
    """
    values = np.sort(np.abs(check_heatmap(heatmap)), axis=None)
    total = values.sum()
    weights = 2.0 * np.arange(1, values.size + 1) - values.size - 1
    return float(weights @ values / (values.size * total)) if total > 0 else float("nan")


def resolution(heatmap: npt.ArrayLike) -> float:
    """Effective resolution in pixels: the half-width of the heatmap's autocorrelation.

    The autocorrelation A(dy, dx) = Σ R'(y, x) R'(y + dy, x + dx) of the map less its mean, R', is averaged over the
    lags whose length rounds to d. The result is the d, linearly interpolated, at which that mean first falls to half of
    A(0, 0): roughly, the distance at which the map can separate two details.

    Parameters
    ----------
    heatmap : array (H, W)

    Returns
    -------
    float
        NaN where the map is constant, or where the autocorrelation stays above half as far as the map reaches.

    Raises
    ------
    ValueError
        `heatmap` is not a finite (H, W) array.

    Examples
    --------
    >>> noise = np.random.default_rng(0).normal(size=(64, 64))
    >>> fvlrp.evaluate.resolution(noise) < fvlrp.evaluate.resolution(noise.repeat(4, 0).repeat(4, 1))
    True
    """
    plane = check_heatmap(heatmap)
    if plane.min() == plane.max():
        return float("nan")
    profile = _radial(_autocorrelation(plane - plane.mean()))
    below = np.flatnonzero(profile <= profile[0] / 2)
    if not len(below):
        return float("nan")
    after = int(below[0])
    high, low = profile[after - 1], profile[after]
    return float(after - 1 + (high - profile[0] / 2) / (high - low))


def share_held(heatmap: npt.ArrayLike, score: float) -> float:
    """The share of the score that the map holds, Σ R / f: 1 if all relevance arrived at the pixels.

    Negative if the map and the score have opposite signs; NaN for a score of 0.

    Examples
    --------
    >>> fvlrp.evaluate.share_held(np.full((2, 2), 0.2), 1.0)
    0.8
    """
    return float(check_heatmap(heatmap).sum() / score) if score else float("nan")


def _autocorrelation(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Σ over the overlap, for lags (−H + 1 .. H − 1, 0 .. W − 1); those with dx < 0 are its mirror image."""
    height, width = plane.shape
    padded = (2 * height, 2 * width)  # lags beyond the map wrap around into zeros
    found = np.fft.irfft2(np.abs(np.fft.rfft2(plane, padded)) ** 2, padded)
    rows = np.arange(-height + 1, height)
    return np.asarray(found[rows][:, :width])


def _radial(lags: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over all lags whose length rounds to 0, 1, 2 ..., as far as the shorter side of the map reaches."""
    rows, cols = (lags.shape[0] + 1) // 2, lags.shape[1]
    y, x = np.arange(-rows + 1, rows)[:, None], np.arange(cols)[None, :]
    distance = np.rint(np.hypot(y, x)).astype(np.intp)
    mirrored = np.broadcast_to(
        np.where(x > 0, 2.0, 1.0), lags.shape
    )  # lags with dx > 0 represent those with dx < 0 as well
    total = np.bincount(distance.ravel(), (lags * mirrored).ravel())
    count = np.bincount(distance.ravel(), mirrored.ravel())
    return np.asarray(total / count)[: min(rows, cols)]
