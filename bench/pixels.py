"""Time and memory against the number of pixels: every size in a process of its own, whose peak memory is its own."""

import json
import resource
import subprocess
import sys
from time import perf_counter

import numpy as np

MEGAPIXELS = (0.1, 0.3, 1.0, 3.0, 10.0)


def measure(megapixels: float, n_jobs: int) -> dict:
    """One size, in a new process."""
    command = [sys.executable, "-m", "bench.pixels", str(megapixels), str(n_jobs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(megapixels: float, n_jobs: int) -> dict:
    import fvlrp
    from bench.photographs import mosaic

    height = round(np.sqrt(megapixels * 1e6 * 3 / 4))
    image = mosaic(height, height * 4 // 3)
    clf = fvlrp.load("voc20").set_params(max_height=None, n_jobs=n_jobs)
    small = mosaic(100, 130)
    clf.explain(small, "person", "bin")
    before, seconds = _peak(), []
    for _ in range(5):
        start = perf_counter()
        explanation = clf.explain(image, "person", "bin")
        seconds.append(perf_counter() - start)
    return {
        "size": list(image.shape[:2]),
        "first, ms": 1e3 * seconds[0],  # the system gives memory that this process never had
        "milliseconds": 1e3 * float(np.median(seconds[2:])),
        "MB": _peak(),
        "MB before": before,
        "ledger closes": explanation.ledger.closes(),
    }


def _peak() -> float:
    """Peak resident memory of this process in 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


if __name__ == "__main__":
    print(json.dumps(main(float(sys.argv[1]), int(sys.argv[2]))))
