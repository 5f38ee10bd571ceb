"""The paper in NumPy: one short function per equation, in float64, written from the equations alone.

This module is the oracle of the tests and of the benchmarks, which alone import it. It is slow and plain on purpose.
Equation numbers are those of Bach, Binder, Müller and Samek, "Controlling explanatory heatmap resolution and semantics
via decomposition depth" (arXiv:1603.06463, 2016).

Symbols: n descriptors x of 128 values; y (n, D) their projections; gamma (n, K) the posteriors of K components; Psi the
first- and second-order terms; S their sums per pyramid cell, one row of 2KD values each, ``[u_1 .. u_K, v_1 .. v_K]``
with D values per component; R3, R2, R1 the relevance of the representation, of descriptors and of pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fvlrp.fisher.geometry import BINS, ORIENTATIONS, Geometry, axis_cell

TINY = 1e-12  # a sum this small beside the magnitudes it is made of is rounding error, not a divisor


def sgn(z):
    """Sign with sgn(0) = sgn(-0.0) = +1: the stabiliser must never vanish."""
    return np.where(np.asarray(z) >= 0, 1.0, -1.0)


def divisible(total, magnitude, epsilon):
    """Whether relevance may be divided by ``total + epsilon sgn(total)``: always, unless both are 0.

    `magnitude` is the sum of the absolute values that add up to `total`.
    """
    return (np.asarray(epsilon) > 0) | (np.abs(total) > TINY * magnitude)


def stabilised(relevance, total, magnitude, epsilon):
    """Eq. 1 without its z_ij, stabilised: R_j / (z_j + epsilon sgn z_j), and 0/0 := 0."""
    possible = divisible(total, magnitude, epsilon)
    return np.where(possible, relevance, 0.0) / np.where(possible, total + epsilon * sgn(total), 1.0)


def absorbed(relevance, total, epsilon):
    """What the stabiliser of Eq. 1 takes: R_j epsilon / (abs(z_j) + epsilon); 0 without a stabiliser."""
    relevance, total, epsilon = np.broadcast_arrays(relevance, total, epsilon)
    return np.divide(relevance * epsilon, np.abs(total) + epsilon, out=np.zeros(relevance.shape), where=epsilon > 0)


# ---- dense SIFT ----

EPSILON = np.finfo(np.float32).eps


def smooth(grey: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian smoothing as vl_imsmooth: radius ceil(4 sigma), borders replicated. float64, shape of `grey`."""
    grey = np.asarray(grey, np.float64)
    if sigma < 0.01:
        return grey
    radius = int(np.ceil(4 * sigma))
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / (sigma + EPSILON)) ** 2)
    taps /= taps.sum()
    padded = np.pad(grey, radius, mode="edge")
    rows = sum(tap * padded[j : j + grey.shape[0]] for j, tap in enumerate(taps))
    return sum(tap * rows[:, j : j + grey.shape[1]] for j, tap in enumerate(taps))


def orientation_planes(grey: np.ndarray, sigma: float, angles: str = "vlfeat") -> np.ndarray:
    """Gradient magnitude of the smoothed image, spread linearly over 8 orientations: float64 (height, width, 8).

    Differences are centred, one-sided at the borders. A squared magnitude below 1e-8 counts as none, and
    ``angles="vlfeat"`` takes the arc tangent from VLFeat's cubic.
    """
    image = smooth(grey, sigma)
    gy, gx = np.gradient(image)
    magnitude = np.hypot(gy, gx)
    magnitude[magnitude**2 < 1e-8] = 0
    turn = 8 * (_angle(gy, gx) if angles == "vlfeat" else np.arctan2(gy, gx)) / (2 * np.pi) % 8
    low = np.floor(turn).astype(int)
    planes = np.zeros((*image.shape, 8))
    y, x = np.indices(image.shape)
    planes[y, x, low % 8] += (1 - (turn - low)) * magnitude
    planes[y, x, (low + 1) % 8] += (turn - low) * magnitude
    return planes


def _angle(gy: np.ndarray, gx: np.ndarray) -> np.ndarray:
    """VLFeat's vl_fast_atan2_f, of r = (gx - |gy|) / (gx + |gy|) or its mirror image in the left half-plane."""
    across = np.abs(gy) + EPSILON
    right = gx >= 0
    r = np.where(right, gx - across, gx + across) / (np.abs(gx) + across)
    angle = np.where(right, np.pi / 4, 3 * np.pi / 4) + (0.1821 * r * r - 0.9675) * r
    return np.where(gy < 0, -angle, angle)


def bin_filter(bin_size: int, index: int, window: str = "flat", window_size: float = 1.5) -> np.ndarray:
    """Weights of pixels about the centre of bin `index` (0..3) along one axis: float64 (2 bin_size - 1,).

    A triangle of height 1, times the Gaussian window about the frame centre, which lies bin_size (index - 1.5) away;
    the flat window takes the Gaussian's mean over the bin instead.
    """
    offset = np.arange(1 - bin_size, bin_size)
    triangle = 1 - np.abs(offset) / bin_size
    gauss = np.exp(-0.5 * ((offset + bin_size * (index - 1.5)) / (bin_size * window_size)) ** 2)
    return triangle * (gauss.mean() if window == "flat" else gauss)


def pooled_bins(planes: np.ndarray, scale, window: str = "flat", window_size: float = 1.5) -> np.ndarray:
    """h of every descriptor of a geometry.Scale before it is normalised: float64 (rows, cols, 4, 4, 8)."""
    size = scale.bin_size
    padded = np.pad(np.asarray(planes, np.float64), ((size, size), (size, size), (0, 0)), mode="edge")
    bins = np.zeros((scale.rows, scale.cols, 4, 4, 8))
    for iy in range(4):
        top = scale.corners(0) + iy * size + 1
        rows = sum(tap * padded[top + t] for t, tap in enumerate(bin_filter(size, iy, window, window_size)))
        for ix in range(4):
            left = scale.corners(1) + ix * size + 1
            taps = bin_filter(size, ix, window, window_size)
            bins[:, :, iy, ix] = sum(tap * rows[:, left + t] for t, tap in enumerate(taps))
    return bins


def descriptors(bins: np.ndarray, bin_size: int, contrast_threshold: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    """L2-normalise, clip at 0.2, L2-normalise, times 512, clip at 255: float64 (n, 128), and contrast (n,).

    Descriptors whose contrast, the mean of h over the frame, is below the threshold are zeroed.
    """
    h = bins.reshape(-1, 128)
    contrast = h.sum(axis=1) / (3 * bin_size + 1) ** 2
    h = h / (np.linalg.norm(h, axis=1, keepdims=True) + EPSILON)
    h = np.minimum(h, 0.2)
    h = h / (np.linalg.norm(h, axis=1, keepdims=True) + EPSILON)
    return np.where((contrast < contrast_threshold)[:, None], 0, np.minimum(512 * h, 255)), contrast


def sift_pixels(
    planes: np.ndarray, scale, relevance: np.ndarray, window: str = "flat", window_size: float = 1.5
) -> tuple[np.ndarray, float]:
    """Eq. 1 below the bins: R_p = sum over (l, b, o) of R_lbo z_p / sum_p' z_p', with z_p = filter * G_o(p).

    Parameters
    ----------
    planes : (height, width, 8)
        Orientation planes G_o.
    scale : geometry.Scale
    relevance : (rows, cols, 4, 4, 8)
        Relevance of the descriptors' values.

    Returns
    -------
    pixels : float64 (height, width)
    zero_bin : float
        Relevance of values whose bin holds no gradient.
    """
    height, width = planes.shape[:2]
    planes = np.asarray(planes, np.float64)
    pixels, zero_bin = np.zeros((height, width)), 0.0
    for k, j, iy, ix, o in np.ndindex(relevance.shape):
        y = scale.first + scale.step * k + iy * scale.bin_size
        x = scale.first + scale.step * j + ix * scale.bin_size
        shares = []
        for v, along_y in enumerate(bin_filter(scale.bin_size, iy, window, window_size)):
            for u, along_x in enumerate(bin_filter(scale.bin_size, ix, window, window_size)):
                # A pixel outside the image is a copy of the border pixel, which gets its share.
                py = min(max(y + v - scale.bin_size + 1, 0), height - 1)
                px = min(max(x + u - scale.bin_size + 1, 0), width - 1)
                shares.append((py, px, along_y * along_x * planes[py, px, o]))
        total = sum(z for _, _, z in shares)
        if total == 0:
            zero_bin += relevance[k, j, iy, ix, o]
            continue
        for py, px, z in shares:
            pixels[py, px] += z / total * relevance[k, j, iy, ix, o]
    return pixels, zero_bin


# ---- Fisher vector ----


def project(x, basis, mean=None):
    """y = P (x - m): descriptors (n, 128), rows of the projection (D, 128), mean (128,) or None -> (n, D)."""
    x = np.asarray(x, np.float64)
    return (x if mean is None else x - mean) @ basis.T


def posteriors(y, priors, means, variances, gate=0.0):
    """Soft assignment of the diagonal Gaussian mixture: gamma_k = pi_k N(y; mu_k, sigma_k^2) / sum_j pi_j N(y; ...).

    Parameters
    ----------
    y : (n, D)
    priors, means, variances : (K,), (K, D), (K, D)
    gate : float
        Posteriors below it become 0; the others are not renormalised.

    Returns
    -------
    gamma : (n, K)
    loglik : (n,), log sum_k pi_k N(y; mu_k, sigma_k^2)
    """
    logs = np.empty((len(y), len(priors)))
    for k, (prior, mean, variance) in enumerate(zip(priors, means, variances, strict=True)):
        distance = ((y - mean) ** 2 / variance).sum(axis=1)
        logs[:, k] = np.log(prior) - 0.5 * (np.log(2 * np.pi * variance).sum() + distance)
    largest = logs.max(axis=1)
    gamma = np.exp(logs - largest[:, None])
    evidence = gamma.sum(axis=1)
    gamma /= evidence[:, None]
    gamma[gamma < gate] = 0.0
    return gamma, largest + np.log(evidence)


def psi(y, gamma, priors, means, variances):
    """Eqs. 3-4, every term of a small problem: (n, D), (n, K), (K,), (K, D), (K, D) -> (n, 2KD).

    Psi_mu = gamma delta / sqrt(pi) and Psi_sigma = gamma (delta^2 - 1) / sqrt(2 pi), delta = (y - mu) / sigma.
    """
    delta = (y[:, None, :] - means) / np.sqrt(variances)
    first = (gamma / np.sqrt(priors))[:, :, None] * delta
    second = (gamma / np.sqrt(2 * priors))[:, :, None] * (delta**2 - 1)
    return np.concatenate([block.reshape(len(y), means.size) for block in (first, second)], axis=1)


def psi_by_component(y, gamma, priors, means, variances):
    """Yield ``k, rows, terms``: component k's terms of Eqs. 3-4, (rows, 2D), of the descriptors with gamma_k > 0."""
    for k in range(len(priors)):
        rows, one = np.flatnonzero(gamma[:, k]), slice(k, k + 1)
        yield k, rows, psi(y[rows], gamma[rows, one], priors[one], means[one], variances[one])


def moments(y, gamma, means, variances):
    """Sums over descriptors of gamma, gamma delta and gamma delta^2, delta = (y - mu) / sigma: (K,), (K, D), (K, D).

    Eqs. 3-4 summed are s1 / sqrt(pi) and (s2 - s0) / sqrt(2 pi).
    """
    s1, s2 = np.empty(means.shape), np.empty(means.shape)
    for k, (mean, variance) in enumerate(zip(means, variances, strict=True)):
        delta = (y - mean) / np.sqrt(variance)
        s1[k], s2[k] = gamma[:, k] @ delta, gamma[:, k] @ delta**2
    return gamma.sum(axis=0), s1, s2


def membership(cells, n_cells):
    """Cell indices of every descriptor, one per pyramid level (n, levels) -> 0/1 matrix (n_cells, n)."""
    member = np.zeros((n_cells, len(cells)))
    member[cells.T, np.arange(len(cells))] = 1.0
    return member


def pooled(y, gamma, cells, n_cells, priors, means, variances, magnitude=False):
    """S: the terms of Eqs. 3-4 summed over the descriptors of each pyramid cell, not divided by their number.

    `magnitude` sums absolute values instead. Returns (n_cells, 2KD).
    """
    member = membership(cells, n_cells)
    sums = np.zeros((n_cells, 2, *means.shape))
    for k, rows, terms in psi_by_component(y, gamma, priors, means, variances):
        sums[:, :, k] = (member[:, rows] @ (np.abs(terms) if magnitude else terms)).reshape(n_cells, 2, -1)
    return sums.reshape(n_cells, -1)


def signed_sqrt(x):
    """sgn(x) sqrt(abs(x)), elementwise."""
    return np.sign(x) * np.sqrt(np.abs(x))


def unit(x):
    """Rows of unit Euclidean length; rows of zeros stay."""
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def normalise(sums, order="chatfield2011", components=None, least=1.0):
    """Normalised representation of an image: (n_cells, 2KD) -> (n_cells * 2KD,).

    ``"chatfield2011"``: length 1 per cell, then signed square root, then length 1. ``"vlfeat"``: signed square root,
    then length 1 per cell, then length 1. ``"intra"``: signed square root, then length 1 per cell and each of
    `components` over both orders, then length 1; where a component's sum of abs(S) is below `least`, its square is
    divided by `least`. Dividing the sums by the number of descriptors would cancel in all of them, but for `least`.
    """
    if order == "chatfield2011":
        return unit(signed_sqrt(unit(sums)).ravel())
    if order == "vlfeat":
        return unit(unit(signed_sqrt(sums)).ravel())
    if order == "intra":
        blocks = signed_sqrt(sums).reshape(len(sums), 2, components, -1)
        squares = np.maximum((blocks**2).sum(axis=(1, 3), keepdims=True), least)
        return unit((blocks / np.sqrt(squares)).ravel())
    raise _unknown("order", order, ("chatfield2011", "vlfeat", "intra"))


# ---- relevance ----


def linear_relevance(x, coef, intercept, sums, bias="distribute"):
    """R3_d = w_d x_d + the bias's part: relevance of the representation under f = w.x + b, the same shape as x.

    The signed square root and the normalisations keep relevance as it is, so R3 is that of the sums, too.

    Parameters
    ----------
    x, coef : (n_cells * 2KD,)
    intercept : float
    sums : (n_cells, 2KD)
    bias : {"distribute", "active", "ignore"}
        b / Dtot to every entry, b in equal parts to the entries whose sum is not 0, or to none.

    Returns
    -------
    relevance : (n_cells * 2KD,)
    left : float, the part of the bias that no entry took
    """
    relevance = coef * x
    if bias == "ignore":
        return relevance, float(intercept)
    if bias not in ("distribute", "active"):
        raise _unknown("bias", bias, ("distribute", "active", "ignore"))
    takers = np.ones(x.shape, bool) if bias == "distribute" else sums.ravel() != 0
    if not takers.any():
        return relevance, float(intercept)
    relevance[takers] += intercept / takers.sum()
    return relevance, 0.0


def pool_epsilon(sums, counts, epsilon, pool_scale="sum", eps_mode="absolute"):
    """The stabiliser that acts on each cell's sums: (n_cells, 1).

    Dividing Psi and S by the cell's N descriptors, ``pool_scale="mean"``, is the same as a stabiliser of N epsilon on
    the sums. ``eps_mode="relative"`` counts in units of the median of abs(S_d) over the cell's nonzero sums, so that
    the scale does not matter.
    """
    if pool_scale not in ("sum", "mean"):
        raise _unknown("pool_scale", pool_scale, ("sum", "mean"))
    if eps_mode == "absolute":
        return epsilon * (np.ones((len(sums), 1)) if pool_scale == "sum" else counts[:, None].astype(np.float64))
    if eps_mode == "relative":
        return epsilon * np.array([[np.median(np.abs(row[row != 0])) if row.any() else 0.0] for row in sums])
    raise _unknown("eps_mode", eps_mode, ("absolute", "relative"))


def shares(r3, sums, magnitudes, counts, epsilon):
    """G = R3 / (S + epsilon sgn S), by which Eqs. 5-6 multiply every descriptor's Psi, and what they leave behind.

    Parameters
    ----------
    r3, sums, magnitudes : (n_cells, 2KD)
        Relevance, sums of Psi and sums of abs(Psi).
    counts : (n_cells,)
        Descriptors in each cell.
    epsilon : float or (n_cells, 1)
        Acts on sums, not means. At 0 no sum is divided by that is 0 up to rounding.

    Returns
    -------
    shares : (n_cells, 2KD)
    ledger : dict
        ``empty_cell``, relevance of cells without descriptors; ``zero_sum``, of sums that are 0 in other cells;
        ``absorbed_pool``, R3 epsilon / (abs(S) + epsilon) of all others.
    """
    empty = np.broadcast_to((counts == 0)[:, None], sums.shape)
    zero = ~empty & ((sums == 0) | ~divisible(sums, magnitudes, epsilon))
    taken = absorbed(r3, sums, epsilon)
    return stabilised(r3, sums, magnitudes, epsilon), {
        "absorbed_pool": float(taken[~empty & ~zero].sum()),
        "empty_cell": float(r3[empty].sum()),
        "zero_sum": float(r3[zero].sum()),
    }


def relevance_per_dimension(y, gamma, cells, share, priors, means, variances):
    """Eqs. 5-6: R2_li = sum_k (Psi_mu G_mu + Psi_sigma G_sigma), added over the cells a descriptor lies in: (n, D).

    `share` (n_cells, 2KD) is G. gamma, which depends on all dimensions, counts as a constant factor of each. A
    descriptor's relevance R2_l is the sum over its dimensions.
    """
    member = membership(cells, len(share))
    share = share.reshape(len(share), 2, *means.shape)
    relevance = np.zeros(y.shape)
    for k, rows, terms in psi_by_component(y, gamma, priors, means, variances):
        merged = member[:, rows].T @ share[:, :, k].reshape(len(share), -1)
        relevance[rows] += (terms * merged).reshape(len(rows), 2, y.shape[1]).sum(axis=1)
    return relevance


class BackProjection(NamedTuple):
    """What back_project returns; everything but `sift` is a ledger term per descriptor, (n,)."""

    sift: np.ndarray  # (n, 128)
    absorbed: np.ndarray  # taken by the stabiliser
    mean: np.ndarray  # taken by the mean, under treatment "bias"
    undone: np.ndarray  # of dimensions without a share, in descriptors that have others
    zero: np.ndarray  # of descriptors without any share


def back_project(relevance, x, basis, mean=None, epsilon=100.0, treatment="none"):
    """Eq. 1 through the projection: R_li = xhat_li sum_j P_ji R2_lj / (z_lj + epsilon sgn z_lj).

    Parameters
    ----------
    relevance : (n, D)
    x : (n, 128), on the scale 0..255
    basis, mean : (D, 128), (128,) or None
    epsilon : float
    treatment : {"none", "centered", "bias"}
        z_ij = P_ji x_i and z_j their sum; P_ji (x_i - m_i) and their sum; or P_ji x_i with z_j = y_j, where
        -(P m)_j takes the part of a bias.

    Returns
    -------
    BackProjection
        A dimension has no share where all its z_ij are 0, or where epsilon and z_j are.
    """
    x = np.asarray(x, np.float64)
    mean = np.zeros(x.shape[1]) if mean is None else mean
    if treatment not in ("none", "centered", "bias"):
        raise _unknown("treatment", treatment, ("none", "centered", "bias"))
    xhat = x - mean if treatment == "centered" else x
    offset = -basis @ mean if treatment == "bias" else np.zeros(len(basis))
    total = xhat @ basis.T + offset
    inputs = np.abs(xhat) @ np.abs(basis).T
    magnitude = inputs + np.abs(offset)

    possible = (inputs > 0) & divisible(total, magnitude, epsilon)
    done = np.where(possible, relevance, 0.0)
    quotient = stabilised(done, total, magnitude, epsilon)
    left = (relevance - done).sum(axis=1)
    alive = possible.any(axis=1)
    return BackProjection(
        sift=xhat * (quotient @ basis),
        absorbed=absorbed(done, total, epsilon).sum(axis=1),
        mean=quotient @ offset,
        undone=np.where(alive, left, 0.0),
        zero=np.where(alive, 0.0, left),
    )


def spatial_bins(sift):
    """Relevance of each of the 4 x 4 spatial bins, summed over 8 orientations: (n, 128) -> (n, 4, 4), y first."""
    return sift.reshape(len(sift), BINS, BINS, ORIENTATIONS).sum(axis=3)


# ---- splats ----


def splat_kernel(splat, bin_size):
    """Weights over the pixels of a bin along one axis, and the offset of the first from the bin's centre.

    ``"box"``: s pixels from -(s // 2); ``"box_sym"``: for even s one pixel more, both ends at half weight; ``"tri"``:
    1 - abs(t) / s, the weights with which dense SIFT itself gathers gradients.
    """
    half = bin_size // 2
    if splat == "box" or (splat == "box_sym" and bin_size % 2):
        return np.ones(bin_size), -half
    if splat == "box_sym":
        return np.r_[0.5, np.ones(bin_size - 1), 0.5], -half
    if splat == "tri":
        return 1 - np.abs(np.arange(1 - bin_size, bin_size)) / bin_size, 1 - bin_size
    raise _unknown("splat", splat, ("box", "box_sym", "tri"))


def splat_one(pixels, value, y, x, weights, clip="renormalise"):
    """Add `value` to `pixels` in proportion to ``outer(weights, weights)`` whose first entry lies at (y, x).

    Where the support leaves the image, ``clip="renormalise"`` spreads all of the value over the rest of it, ``"drop"``
    loses the share outside. Returns what is lost.
    """
    if clip not in ("renormalise", "drop"):
        raise _unknown("clip", clip, ("renormalise", "drop"))
    height, width = pixels.shape
    wy = weights[max(-y, 0) : max(height - y, 0)]
    wx = weights[max(-x, 0) : max(width - x, 0)]
    inside, whole = wy.sum() * wx.sum(), weights.sum() ** 2
    if inside == 0:
        return value
    y, x = max(y, 0), max(x, 0)
    scale = value / (inside if clip == "renormalise" else whole)
    pixels[y : y + len(wy), x : x + len(wx)] += scale * np.outer(wy, wx)
    return 0.0 if clip == "renormalise" else value * (whole - inside) / whole


def corner(frame):
    """Centre y, x of the top-left bin, and the bin size, of a frame (centre y, centre x, bin size), as integers."""
    y, x, size = (float(value) for value in frame)
    return round(y - 1.5 * size), round(x - 1.5 * size), round(size)


def splat_vector(relevance, pyramid, height, width):
    """Depth "vector": each pyramid cell's relevance flat over the cell's pixels.

    A pixel lies in the cell in which a frame centred on it would lie.

    Parameters
    ----------
    relevance : (n_cells,)
    pyramid : sequence of (rows, columns) per level
        Cells of a level count down the columns: x0y0, x0y1, x1y0, ...

    Returns
    -------
    pixels : (height, width)
    clipped : float, relevance of cells without pixels
    """
    pixels, clipped, cell = np.zeros((height, width)), 0.0, 0
    for rows, columns in pyramid:
        row_of, column_of = axis_cell(np.arange(height), rows, height), axis_cell(np.arange(width), columns, width)
        for column in range(columns):
            for row in range(rows):
                region = np.ix_(row_of == row, column_of == column)
                if pixels[region].size:
                    pixels[region] += relevance[cell] / pixels[region].size
                else:
                    clipped += relevance[cell]
                cell += 1
    return pixels, float(clipped)


def splat_descriptor(relevance, frames, height, width, clip="renormalise"):
    """Depth "descriptor": R1_p = sum over the descriptors whose 4s x 4s area holds p of R2_l / area.

    (n,), frames (n, 3) -> pixels (height, width) and the relevance clipped at the border.
    """
    pixels, clipped = np.zeros((height, width)), 0.0
    for value, frame in zip(relevance, frames, strict=True):
        y, x, size = corner(frame)
        clipped += splat_one(pixels, value, y - size // 2, x - size // 2, np.ones(BINS * size), clip)
    return pixels, float(clipped)


def splat_bins(relevance, frames, height, width, splat="box", clip="renormalise"):
    """Depth "bin": every spatial bin's relevance evenly over the pixels it covers.

    (n, 4, 4), frames (n, 3) -> pixels (height, width) and the relevance clipped at the border.
    """
    pixels, clipped = np.zeros((height, width)), 0.0
    for bins, frame in zip(relevance, frames, strict=True):
        y, x, size = corner(frame)
        weights, first = splat_kernel(splat, size)
        for (row, column), value in np.ndenumerate(bins):
            clipped += splat_one(pixels, value, y + row * size + first, x + column * size + first, weights, clip)
    return pixels, float(clipped)


class Model(NamedTuple):
    """A Fisher-vector classifier of one class, as arrays."""

    basis: np.ndarray  # (D, 128)
    mean: np.ndarray | None  # (128,)
    priors: np.ndarray  # (K,)
    means: np.ndarray  # (K, D)
    variances: np.ndarray  # (K, D)
    coef: np.ndarray  # (n_cells * 2KD,)
    intercept: float
    gate: float = 1e-6
    pyramid: tuple[tuple[int, int], ...] = ((2, 2), (3, 1), (1, 1))
    order: str = "chatfield2011"


class Explained(NamedTuple):
    """What explain returns."""

    heatmap: np.ndarray  # (height, width)
    ledger: dict[str, float]  # "score", and every amount that did not reach the heatmap
    relevance: dict[str, np.ndarray]  # depth -> relevance, the layers down to the one asked for


def explain(
    x,
    geometry: Geometry,
    model: Model,
    depth="bin",
    *,
    bias="distribute",
    epsilon_pool=100.0,
    pool_scale="sum",
    eps_mode="absolute",
    epsilon_pca=100.0,
    mean="none",
    zero_desc="drop",
    splat="box",
    clip="renormalise",
):
    """The whole walk, from the descriptors (n, 128) of one image to its heatmap.

    `depth` is "vector", "descriptor" or "bin": relevance is decomposed down to there, and below spread flat.
    `zero_desc` says what becomes of the relevance of descriptors whose z_ij are all 0: it is dropped ("drop"), or every
    value takes 1/128 of it ("uniform"). In the `Explained` that is returned, the score is the sum of the heatmap and of
    all other entries of the ledger.
    """
    if depth not in ("vector", "descriptor", "bin"):
        raise _unknown("depth", depth, ("vector", "descriptor", "bin"))
    if zero_desc not in ("drop", "uniform"):
        raise _unknown("zero_desc", zero_desc, ("drop", "uniform"))
    size = geometry.height, geometry.width
    cells, n_cells = geometry.cells(model.pyramid), sum(rows * columns for rows, columns in model.pyramid)
    mixture = model.priors, model.means, model.variances

    y = project(x, model.basis, model.mean)
    gamma, _ = posteriors(y, *mixture, model.gate)
    sums = pooled(y, gamma, cells, n_cells, *mixture)
    code = normalise(sums, model.order, len(model.priors))
    r3, left = linear_relevance(code, model.coef, model.intercept, sums, bias)
    ledger = {"score": float(model.coef @ code + model.intercept), "bias": left}
    relevance = {"vector": r3}
    r3 = r3.reshape(n_cells, -1)
    if depth == "vector":
        heatmap, ledger["clipped"] = splat_vector(r3.sum(axis=1), model.pyramid, *size)
        return Explained(heatmap, ledger, relevance)

    counts = np.bincount(cells.ravel(), minlength=n_cells)
    magnitudes = pooled(y, gamma, cells, n_cells, *mixture, magnitude=True)
    epsilon = pool_epsilon(sums, counts, epsilon_pool, pool_scale, eps_mode)
    share, losses = shares(r3, sums, magnitudes, counts, epsilon)
    ledger |= losses
    relevance["pca"] = relevance_per_dimension(y, gamma, cells, share, *mixture)
    relevance["descriptor"] = relevance["pca"].sum(axis=1)
    if depth == "descriptor":
        heatmap, ledger["clipped"] = splat_descriptor(relevance["descriptor"], geometry.frames, *size, clip)
        return Explained(heatmap, ledger, relevance)

    back = back_project(relevance["pca"], x, model.basis, model.mean, epsilon_pca, mean)
    dropped, spread = (back.zero, 0.0) if zero_desc == "drop" else (np.zeros(1), back.zero[:, None])
    relevance["sift"] = back.sift + spread / back.sift.shape[1]
    relevance["bin"] = spatial_bins(relevance["sift"])
    ledger |= {
        "absorbed_pca": float(back.absorbed.sum()),
        "mean": float(back.mean.sum()),
        "undone": float(back.undone.sum()),
        "zero_desc": float(dropped.sum()),
    }
    heatmap, ledger["clipped"] = splat_bins(relevance["bin"], geometry.frames, *size, splat, clip)
    return Explained(heatmap, ledger, relevance)


def _unknown(name, value, choices):
    return ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}")


# ---- convolutional networks ----


def of_sign(weight, sign):
    """Weights as they are (0), max(w, 0) (1), min(w, 0) (-1) or their sizes (2)."""
    return {0: lambda w: w, 1: lambda w: np.maximum(w, 0), -1: lambda w: np.minimum(w, 0), 2: np.abs}[sign](weight)


def window_at(image, kernel, stride, pads, dilation, oy, ox):
    """The pixels (C, kh, kw) that output (oy, ox) sees of an image (C, H, W); 0 outside."""
    window = np.zeros((len(image), *kernel))
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            y, x = oy * stride[0] + ky * dilation[0] - pads[0], ox * stride[1] + kx * dilation[1] - pads[1]
            if 0 <= y < image.shape[1] and 0 <= x < image.shape[2]:
                window[:, ky, kx] = image[:, y, x]
    return window


def columns(image, kernel, stride, pads, dilation, rows, cols):
    """The windows of a band (begin, end) of output rows, one a column: (C * kh * kw, (end - begin) * cols)."""
    window = image, kernel, stride, pads, dilation
    return np.transpose([window_at(*window, oy, ox).ravel() for oy in range(*rows) for ox in range(cols)])


def convolution(weight, image, pads, rows, cols, sign=0, other=None):
    """3 x 3 windows of an image, pixel by pixel, times weights (m, C, 9): (m, (end - begin) * cols).

    Weights of the opposite sign meet `other`, where there is one.
    """
    out = []
    for oy in range(*rows):
        for ox in range(cols):
            sums = np.zeros(len(weight))
            for each, one in ((image, sign), (other, -sign)):
                if each is not None:
                    window = window_at(each, (3, 3), (1, 1), pads, (1, 1), oy, ox).reshape(len(each), 9)
                    sums += (of_sign(np.asarray(weight, float), one) * window).sum(axis=(1, 2))
            out.append(sums)
    return np.transpose(out)


def grouped(weight, image, kernel, stride, pads, dilation, rows, cols, sign=0, other=None):
    """Convolution in groups: weights (Co, C / groups, taps) times windows, (Co, (end - begin) * cols).

    Weights of the opposite sign meet `other`, where there is one.
    """
    width, n = weight.shape[1], (rows[1] - rows[0]) * cols
    outputs = len(weight) * width // len(image)  # of a group
    out = []
    for o, filters in enumerate(np.asarray(weight, float)):
        mine = slice(o // outputs * width, (o // outputs + 1) * width)
        sums = 0
        for each, one in ((image, sign), (other, -sign)):
            if each is not None:
                window = columns(each[mine], kernel, stride, pads, dilation, rows, cols)
                sums = sums + of_sign(filters.ravel(), one) @ window.reshape(filters.size, n)
        out.append(sums)
    return np.array(out)


def grouped_back(weight, share, shape, kernel, stride, pads, dilation, rows, sign=0, other=None):
    """The adjoint of `grouped`: shares (Co, rows of the band, cols) to pixels of an image of `shape`."""
    out, width = np.zeros(shape), weight.shape[1]
    outputs = len(weight) * width // shape[0]
    for o, oy, ox in np.ndindex(share.shape):
        for c, ky, kx in np.ndindex(width, *kernel):
            y = (rows[0] + oy) * stride[0] + ky * dilation[0] - pads[0]
            x = ox * stride[1] + kx * dilation[1] - pads[1]
            if not (0 <= y < shape[1] and 0 <= x < shape[2]):
                continue
            w = float(weight[o, c, ky * kernel[1] + kx])
            amount = of_sign(w, sign) * share[o, oy, ox]
            if other is not None:
                amount += of_sign(w, -sign) * other[o, oy, ox]
            out[o // outputs * width + c, y, x] += amount
    return out


def cancelled(weight, image, pads, rows, cols):
    """What the transforms of F(4 x 4, 3 x 3) may cancel at each output: sum over channels of max abs(image) over the
    pixels of its tile times max abs(weight) over the taps, (m, (end - begin) * cols)."""
    out = []
    for oy in range(rows[1] - rows[0]):
        for ox in range(cols):
            tile = window_at(image, (6, 6), (1, 1), pads, (1, 1), rows[0] + oy // 4 * 4, ox // 4 * 4)
            out.append(np.abs(weight).max(axis=2) @ np.abs(tile).max(axis=(1, 2)))
    return np.transpose(out)


def dense_terms(weight, above, below):
    """Sums of the terms >= 0 and of those <= 0 of every output of a dense layer."""
    up, down = of_sign(weight, 1), of_sign(weight, -1)
    return up @ above + down @ below, down @ above + up @ below


def dense_back(weight, positive, negative):
    """What goes back to either side of the inputs from shares (targets, outputs) for terms >= 0 and for those <= 0."""
    up, down = of_sign(weight, 1), of_sign(weight, -1)
    return positive @ up + negative @ down, positive @ down + negative @ up


def alpha_beta_shares(r, positive, negative, alpha, beta):
    """alpha r / z+ and -beta r / z-, 0 where a denominator is 0, and what vanishes there, target by target."""
    shares, lost = [], np.zeros(len(r))
    for factor, z in ((alpha, positive), (-beta, negative)):
        shares.append(np.divide(factor * r, z, out=np.zeros(r.shape), where=np.broadcast_to(z != 0, r.shape)))
        lost += factor * np.where(z == 0, r, 0).sum(axis=(1, 2))
    return *shares, lost


def gamma_shares(r, z, positive, gamma):
    """Shares of terms >= 0 and of those <= 0 by the gamma rule, 0 where a denominator is 0, and what vanishes there."""
    sums = np.where(z >= 0, z + gamma * positive, z + gamma * (z - positive))
    share = np.divide(r, sums, out=np.zeros(r.shape), where=np.broadcast_to(sums != 0, r.shape))
    lost = np.where(sums == 0, r, 0).sum(axis=(1, 2))
    return np.where(z >= 0, share * (1 + gamma), share), np.where(z >= 0, share, share * (1 + gamma)), lost


def activated(function, x):
    """An elementwise function by its formula, in float64 without cancellation in the tails."""
    x = np.asarray(x, float)

    def sigmoid(v):
        return np.where(v < 0, np.exp(np.minimum(v, 0)) / (1 + np.exp(-np.abs(v))), 1 / (1 + np.exp(-np.abs(v))))

    phi = np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)), otypes=[float])
    hard = np.clip((x + 3) / 6, 0, 1)
    return {
        "sigmoid": lambda: sigmoid(x),
        "tanh": lambda: np.tanh(x),
        "erf": lambda: np.vectorize(math.erf, otypes=[float])(x),
        "silu": lambda: x * sigmoid(x),
        "gelu": lambda: x * phi(x),
        "gelu_tanh": lambda: x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)),
        "hard_sigmoid": lambda: hard,
        "hard_swish": lambda: x * hard,
    }[function]()


def softmax(x):
    """exp(x) / sum exp(x) over the last axis."""
    x = np.asarray(x, float)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x, weight, bias, epsilon, root_mean_square=False):
    """(x - mean) / sqrt(var + epsilon) * weight + bias over the last axis; mean 0 with `root_mean_square`."""
    x = np.asarray(x, float)
    mean = x.mean(axis=-1, keepdims=True) * (not root_mean_square)
    inverse = 1 / np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + epsilon)
    return (x - mean) * inverse * weight + bias, mean[..., 0], inverse[..., 0]


def max_pool(image, kernel, stride, pads, dilation, shape):
    """Largest pixel of each window inside the image, and where in (H, W) the first such lies: (C, *shape) twice."""
    maxima, where = np.full((len(image), *shape), -np.inf), np.full((len(image), *shape), -1)
    for c, oy, ox, ky, kx in np.ndindex(len(image), *shape, *kernel):
        y, x = oy * stride[0] + ky * dilation[0] - pads[0], ox * stride[1] + kx * dilation[1] - pads[1]
        if 0 <= y < image.shape[1] and 0 <= x < image.shape[2] and image[c, y, x] > maxima[c, oy, ox]:
            maxima[c, oy, ox], where[c, oy, ox] = image[c, y, x], y * image.shape[2] + x
    return maxima, where


def join(terms, r: np.ndarray, alpha: float, beta: float, gamma: float = -1) -> list[np.ndarray]:
    """Relevance of the terms (n,) of sums with relevance r (n,), one sum after the other: the alpha-beta or gamma rule.

    Terms of one sign take all of r in proportion, terms that are all 0 take it evenly.
    """
    out = np.zeros((len(terms), len(r)))
    for i, amount in enumerate(r):
        x = np.array([term[i] for term in terms], np.float64)
        up, down = np.maximum(x, 0), np.minimum(x, 0)
        if not x.any():
            out[:, i] = amount / len(x)
        elif not up.any() or not down.any():
            out[:, i] = x / x.sum() * amount
        elif gamma >= 0:
            boosted = x + gamma * (up if x.sum() >= 0 else down)
            out[:, i] = boosted / boosted.sum() * amount
        else:
            out[:, i] = (alpha * up / up.sum() - beta * down / down.sum()) * amount
    return list(out)
