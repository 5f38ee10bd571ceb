"""Photographs that scikit-learn and scikit-image carry, cut to 4:3 and resized to 500 x 375 pixels."""

import numpy as np
from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

SIZE = (375, 500)  # rows, columns
SOURCES = {
    "china": lambda: load_sample_image("china.jpg"),
    "flower": lambda: load_sample_image("flower.jpg"),
    "chelsea": data.chelsea,
    "astronaut": data.astronaut,
    "coffee": data.coffee,
    "rocket": data.rocket,
    "camera": data.camera,
    "gravel": data.gravel,
}


def photograph(name: str) -> np.ndarray:
    """uint8 (375, 500, 3)."""
    picture = Image.fromarray(SOURCES[name]()).convert("RGB")
    width, height = picture.size
    wide, tall = min(width, height * SIZE[1] // SIZE[0]), min(height, width * SIZE[0] // SIZE[1])
    left, top = (width - wide) // 2, (height - tall) // 2
    return np.asarray(picture.crop((left, top, left + wide, top + tall)).resize(SIZE[::-1], Image.Resampling.BICUBIC))


def mosaic(height: int, width: int) -> np.ndarray:
    """The photographs side by side, again and again, cut to a size: texture at every size as photographs have it."""
    names = list(SOURCES)
    rows, columns = -(-height // SIZE[0]), -(-width // SIZE[1])
    parts = {name: photograph(name) for name in names}
    whole = np.block([[[parts[names[(3 * r + c) % len(names)]]] for c in range(columns)] for r in range(rows)])
    return np.ascontiguousarray(whole[:height, :width])
