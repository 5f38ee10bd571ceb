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

STEPS, SIDE, REPEATS = 100, 9, 5


def best(function):
    """The least CPU seconds of a few runs."""
    times = []
    for _ in range(REPEATS):
        begin = thread_time()
        function()
        times.append(thread_time() - begin)
    return min(times)


def measure(clf, image):
    """Milliseconds of the start, of a step and of a whole photograph, and the largest difference of scores."""
    pixels, rng = images.load(image), np.random.default_rng(0)
    target = clf.trace(pixels).top
    position = list(clf.classes_).index(target)
    start = best(lambda: clf.flipper(pixels, target))
    flipper = clf.flipper(pixels, target)
    rows, cols = pixels.shape[0] // SIDE, pixels.shape[1] // SIDE
    chosen = rng.permutation(rows * cols)[:STEPS]
    regions = np.stack([chosen // cols, chosen % cols], axis=1) * SIDE
    filled = rng.integers(256, size=pixels.shape, dtype=np.uint8)
    step = best(lambda: flipper.walk(filled, regions, SIDE)) / len(regions)
    curve, now, off, whole = flipper.walk(filled, regions, SIDE), pixels.copy(), 0.0, []
    for k, (y, x) in enumerate(regions, 1):
        own = np.s_[y : y + SIDE, x : x + SIDE]
        now[own] = filled[own]
        if k % 10 == 0:
            whole.append(best(lambda: clf.scores(now)))
            off = max(off, abs(clf.scores(now)[position] - curve[k]))
    return 1e3 * start, 1e3 * step, 1e3 * float(np.mean(whole)), off


def main(photographs):
    clf = fvlrp.load("voc20")
    print("start ms  step ms  whole ms  ratio  difference  photograph")
    ratios = []
    for name, image in photographs:
        start, step, whole, off = measure(clf, image)
        ratios.append(whole / step)
        print(f"{start:8.1f}  {step:7.2f}  {whole:8.1f}  {whole / step:5.1f}  {off:10.1e}  {name}", flush=True)
    print(f"geometric mean of the ratios: {np.exp(np.mean(np.log(ratios))):.1f}")


if __name__ == "__main__":
    named = [(name, name) for name in sys.argv[1:]]
    if not named:
        from skimage import data

        named = [(name, getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")]
    main(named)
