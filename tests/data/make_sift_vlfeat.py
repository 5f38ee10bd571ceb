"""Golden dense-SIFT vectors from VLFeat, through cyvlfeat 0.7.1: writes sift_vlfeat.npz beside this file.

Run it where cyvlfeat and scikit-image are installed. ``cyvlfeat.sift.dsift`` is VLFeat's vl_dsift on one scale; the
smoothing and the contrast threshold of vl_phow are applied here, by NumPy. (``cyvlfeat.sift.phow`` shifts the grid by
a pixel and drops the window size, so it cannot serve.)
"""

from math import ceil
from pathlib import Path

import numpy as np
from cyvlfeat.sift.dsift import dsift
from skimage import data

BIN_SIZES, STEP, WINDOW_SIZE, CONTRAST = (4, 6, 8, 10), 6, 1.5, 0.005


def smoothed(grey, sigma):
    """Separable Gaussian of radius ceil(4 sigma), borders replicated."""
    radius = ceil(4 * sigma)
    taps = [np.exp(-0.5 * (j / (sigma + 1.1920929e-07)) ** 2) for j in range(-radius, radius + 1)]
    for axis in (0, 1):
        length = grey.shape[axis]
        shifted = [
            np.take(grey, np.clip(np.arange(length) + j, 0, length - 1), axis) for j in range(-radius, radius + 1)
        ]
        grey = sum(tap * part for tap, part in zip(taps, shifted, strict=True)) / sum(taps)
    return grey


def phow(image, fast, floats):
    """Values (n, 128), frames (n, 3) and contrast (n,) of a uint8 image."""
    grey = (image / np.float32(255)).astype(np.float64)
    values, frames, contrast = [], [], []
    for size in BIN_SIZES:
        first = int(1.5 * (max(BIN_SIZES) - size))
        found, descriptors = dsift(
            smoothed(grey, size / 6).astype(np.float32),
            step=STEP,
            size=size,
            bounds=[first, first, image.shape[0] - 1, image.shape[1] - 1],
            window_size=WINDOW_SIZE,
            norm=True,
            fast=fast,
            float_descriptors=floats,
        )
        descriptors[found[:, 2] < np.float32(CONTRAST)] = 0
        values.append(descriptors)
        frames.append(np.column_stack([found[:, :2], np.full(len(found), size, np.float32)]))
        contrast.append(found[:, 2])
    return np.concatenate(values), np.concatenate(frames), np.concatenate(contrast)


def synthetic():
    """Blobs, bars and noise beside a flat patch, 101 x 77."""
    random = np.random.default_rng(20)
    y, x = np.mgrid[:101, :77]
    image = 90 + 60 * np.sin(x / 5 + y / 11) * np.cos(y / 7) + random.normal(0, 12, y.shape)
    image[60:, 40:] = 128
    return np.clip(image, 0, 255).astype(np.uint8)


def main():
    photograph = data.astronaut()[60:124, 180:380].mean(axis=2).astype(np.uint8)
    arrays = {}
    for name, image in (("synthetic", synthetic()), ("photograph", photograph)):
        arrays[f"{name}_image"] = image
        for window, fast in (("flat", True), ("gaussian", False)):
            floats, frames, contrast = phow(image, fast, True)
            arrays[f"{name}_{window}_quantised"] = phow(image, fast, False)[0].astype(np.uint8)[::2]
            arrays[f"{name}_{window}_floats"] = floats[::40]
            arrays[f"{name}_{window}_contrast"] = contrast
            arrays[f"{name}_frames"] = frames
    np.savez_compressed(Path(__file__).with_name("sift_vlfeat.npz"), **arrays)


if __name__ == "__main__":
    main()
