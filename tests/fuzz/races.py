"""Explain three photographs on four threads, by voc20 and by a network of each family, for ThreadSanitizer.

    python tests/fuzz/races.py [ZOO]     ZOO: the folder of networks that tests/test_zoo.py reads; none without it

docs/reliability.md has the command. It checks nothing by itself: the sanitizer reports, and makes the exit code 66.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from skimage import data

import fvlrp
from fvlrp import FisherVectorClassifier, Network, Preprocess, _kernels

FISHER = ("vector", "descriptor", "bin", "gradient")
SIDES = (128, 160)  # pixels; small, because the sanitizer is slow


def explain(
    model: FisherVectorClassifier | Network, photographs: list[npt.NDArray[np.uint8]], depths: list[str]
) -> None:
    """Bands of one image on four threads, then three images on four threads."""
    model.n_jobs = 4
    for photograph in photographs:
        model.explain(photograph, depth=depths)
    list(model.explain_many(photographs, depth=depths))


def main() -> None:
    warnings.simplefilter("ignore")  # of flat weights below a dense layer
    print(_kernels.__file__)
    rows, columns = SIDES
    photographs = [
        np.ascontiguousarray(image[:rows, :columns]) for image in (data.astronaut(), data.chelsea(), data.coffee())
    ]
    explain(fvlrp.load("voc20"), photographs, list(FISHER))
    if len(sys.argv) < 2:
        return
    zoo = Path(sys.argv[1])
    families = {entry["family"]: entry for entry in json.loads((zoo / "index.json").read_text())}
    for entry in families.values():
        net = Network.from_onnx(zoo / entry["file"], Preprocess.from_dict(entry["preprocess"]))
        explain(net, photographs, [*net.layers[:: max(1, len(net.layers) // 3)], "input"])
    print("voc20 and", len(families), "networks")


if __name__ == "__main__":
    main()
