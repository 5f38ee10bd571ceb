"""How much quicker a step of pixel flipping is with the Fisher vector's shortcut, and how close its scores are.

    python bench/flipping.py PHOTOGRAPH ...        none: those that scikit-image carries

One thread, voc20, regions of 9 x 9 in random order, one at a time: CPU time of a step beside that of the whole
photograph scored again, and the largest difference of the two scores.
"""

import sys
from time import thread_time

import numpy as np

import fvlrp
from fvlrp import images

STEPS, SIDE, PAIRS = 100, 9, 10


def seconds(function):
    """CPU seconds of one run."""
    begin = thread_time()
    function()
    return thread_time() - begin


def measure(clf, image):
    """Milliseconds of the start, a step and a whole photograph, the ratio, and the largest difference of scores.

    Walks and whole photographs take turns: a machine that slows down slows both. The ratio is the median over pairs.
    """
    pixels, rng = images.load(image), np.random.default_rng(0)
    target = clf.trace(pixels).top
    position = list(clf.classes_).index(target)
    start = min(seconds(lambda: clf.flipper(pixels, target)) for _ in range(2))
    flipper = clf.flipper(pixels, target)
    rows, cols = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    chosen = rng.permutation(rows * cols)[:STEPS]
    regions = np.stack([chosen // cols, chosen % cols], axis=1) * SIDE
    filled = rng.integers(256, size=pixels.shape, dtype=np.uint8)
    curve, now, off, pairs = flipper.walk(filled, regions, SIDE), pixels.copy(), 0.0, []
    for k, (y, x) in enumerate(regions, 1):
        own = np.s_[y : y + SIDE, x : x + SIDE]
        now[own] = filled[own]
        if k % (STEPS // PAIRS) == 0:
            walked = seconds(lambda: flipper.walk(filled, regions, SIDE)) / len(regions)
            pairs.append((walked, seconds(lambda: clf.scores(now))))
            off = max(off, abs(clf.scores(now)[position] - curve[k]))
    step, whole = 1e3 * np.median(pairs, axis=0)
    return 1e3 * start, step, whole, float(np.median([b / a for a, b in pairs])), off


def main(photographs):
    clf = fvlrp.load("voc20")
    print("start ms  step ms  whole ms  ratio  difference  photograph")
    ratios = []
    for name, image in photographs:
        start, step, whole, ratio, off = measure(clf, image)
        ratios.append(ratio)
        print(f"{start:8.1f}  {step:7.2f}  {whole:8.1f}  {ratio:5.1f}  {off:10.1e}  {name}", flush=True)
    print(f"geometric mean of the ratios: {np.exp(np.mean(np.log(ratios))):.1f}")


if __name__ == "__main__":
    named = [(name, name) for name in sys.argv[1:]]
    if not named:
        from skimage import data

        named = [(name, getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")]
    main(named)
