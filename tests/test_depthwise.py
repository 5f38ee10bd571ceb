"""Convolutions of one input channel per output: the kernels against the twin, and the layer against the dense form."""

import numpy as np
import pytest
import reference

from fvlrp import _kernels
from fvlrp.network.windows import window_count

CASES = [  # kernel, stride, pads (top, left, bottom, right), dilation, image (C, H, W), outputs a channel
    ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (3, 7, 9), 1),
    ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), (2, 8, 37), 1),
    ((5, 5), (2, 2), (1, 1, 2, 2), (1, 1), (2, 11, 70), 2),
    ((7, 7), (1, 1), (3, 3, 3, 3), (1, 1), (2, 6, 5), 1),
    ((3, 2), (3, 1), (0, 2, 1, 0), (2, 3), (2, 13, 18), 3),
    ((1, 1), (2, 3), (0, 0, 0, 0), (1, 1), (4, 5, 7), 1),
    ((3, 3), (1, 1), (0, -1, 0, -2), (1, 1), (1, 9, 12), 1),
    ((1, 9), (1, 4), (0, 4, 0, 4), (1, 1), (1, 1, 1), 1),
]


def sizes(kernel, stride, pads, dilation, image):
    return tuple(window_count(image[1 + a], kernel[a], stride[a], pads[a], pads[2 + a], dilation[a]) for a in (0, 1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES)
def test_depthwise_kernels_are_their_twin(isa, case, dtype, rng):
    kernel, stride, pads, dilation, image, each = case
    shape = sizes(*case[:5])
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == np.float32 else 1e-13}
    x = rng.standard_normal(image).astype(dtype)
    weight = rng.standard_normal((image[0] * each, *kernel)).astype(dtype)
    flat, bias = weight.reshape(len(weight), -1), rng.standard_normal(len(weight)).astype(dtype)
    window = kernel, stride, pads, dilation
    signs = {0: weight, 1: np.maximum(weight, 0), -1: np.minimum(weight, 0), 2: np.abs(weight)}
    for sign, own in signs.items():
        wanted = reference.depthwise(own, x, stride, pads, dilation, shape)
        out = np.full((len(weight), *shape), np.nan, dtype)
        _kernels.depthwise(flat, x, *window, out, bias, False, sign)
        np.testing.assert_allclose(out, wanted + bias[:, None, None], **tolerance)
        _kernels.depthwise(flat, x, *window, out, None, True, sign)
        np.testing.assert_allclose(out, 2 * wanted + bias[:, None, None], **tolerance)
        # The adjoint: <share, A x> = <A^T share, x>, for every unit vector at once.
        share, back = rng.standard_normal(out.shape).astype(dtype), np.zeros(image, dtype)
        _kernels.depthwise_back(flat, share, *window, back, sign)
        each_pixel = np.eye(x.size).reshape(-1, *image)
        adjoint = [(share * reference.depthwise(own, e, stride, pads, dilation, shape)).sum() for e in each_pixel[:12]]
        np.testing.assert_allclose(back.ravel()[:12], adjoint, **tolerance)


def test_depthwise_kernels_refuse_what_does_not_fit(rng):
    x, out = np.zeros((2, 5, 5), np.float32), np.zeros((3, 3, 3), np.float32)
    window = (3, 3), (1, 1), (0, 0, 0, 0), (1, 1)
    with pytest.raises(ValueError):
        _kernels.depthwise(np.zeros((3, 9), np.float32), x, *window, out)  # 3 is no multiple of 2
    with pytest.raises(ValueError, match="out must be writable"):
        frozen = np.zeros((2, 3, 3), np.float32)
        frozen.flags.writeable = False
        _kernels.depthwise(np.zeros((2, 9), np.float32), x, *window, frozen)
    with pytest.raises(ValueError, match="weight must have shape"):
        _kernels.depthwise_back(np.zeros((2, 8), np.float32), np.zeros((2, 3, 3), np.float32), *window, x)


@pytest.mark.parametrize("count", [0, 3])
def test_nan_stays_where_it_is_seen(count):
    x = np.zeros((1, 9, 40), np.float32)
    x[0, 4, count] = np.nan
    out = np.empty((1, 9, 40), np.float32)
    _kernels.depthwise(np.ones((1, 9), np.float32), x, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1), out)
    assert np.argwhere(np.isnan(out[0])).tolist() == [
        [y, c] for y in (3, 4, 5) for c in range(max(count - 1, 0), count + 2)
    ]
