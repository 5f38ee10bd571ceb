"""Draw the pictures of README.md and docs/index.md with the built-in model: python docs/make_images.py.

The photographs come with scikit-image. Panels stand two abreast, so that captions can be read on a phone.
"""

from pathlib import Path

from PIL.Image import Image
from skimage import data

import fvlrp
from fvlrp.core import captions
from fvlrp.core.trace import AnyTrace
from fvlrp.show import render

FOLDER = Path(__file__).parent / "images"
DEPTHS = ("descriptor", "bin", "gradient")


def main() -> None:
    clf = fvlrp.load("voc20").set_params(n_jobs=-1)
    persons = [clf.trace(photograph) for photograph in (data.astronaut(), data.camera())]
    render.write_png(FOLDER / "depths.png", depths(persons[0]))
    render.write_png(FOLDER / "demo.png", captioned(persons))


def depths(trace: AnyTrace) -> Image:
    """A photograph and its map at three depths."""
    found = trace.explain("person", DEPTHS)
    title = f"person, score {found[0].score:+.2f}"
    first, *rest = [render.Panel(trace.image, title), *(render.Panel(ex.to_image(), f'"{ex.depth}"') for ex in found)]
    return render.sheet([[first, rest[0]], rest[1:]], height=250, aspect=1, bar="safe")


def captioned(traces: list[AnyTrace]) -> Image:
    """A column per photograph: its score, and at each depth where the score went."""
    columns = []
    for trace in traces:
        found = trace.explain("person", DEPTHS)
        maps = [render.Panel(ex.to_image(), captions.brief(ex.ledger)) for ex in found]
        columns.append([render.Panel(trace.image, f"person, score {found[0].score:+.2f}"), *maps])
    rows = list(zip(*columns, strict=True))
    return render.sheet(rows, row_titles=["photograph", *DEPTHS], height=200, aspect=1, bar="safe")


if __name__ == "__main__":
    main()
