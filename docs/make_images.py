"""Draw the pictures of README.md with the built-in model and scikit-image's photographs: python docs/make_images.py."""

from pathlib import Path

from skimage import data

import fvlrp
from fvlrp.core import figures
from fvlrp.show import render

FOLDER = Path(__file__).parent / "images"


def main() -> None:
    clf = fvlrp.load("voc20").set_params(n_jobs=-1)
    photographs = [(data.astronaut(), "person"), (data.camera(), "person"), (data.chelsea(), "cat")]
    rows = []
    for photograph, target in photographs:
        trace = clf.trace(photograph)
        rows += trace.explain(target, ("vector", "descriptor", "bin", "gradient"))
    render.write_png(FOLDER / "demo.png", figures.depth_sheet(rows, height=130))
    whole = clf.trace(data.astronaut())
    panels = [
        render.Panel(render.colour(ex.heatmap, cmap="safe"), f'"{ex.depth}"')
        for ex in whole.explain("person", ("descriptor", "bin", "gradient"))
    ]
    sheet = render.sheet([[render.Panel(whole.image, "photograph"), *panels]], height=250, aspect=1, bar="safe")
    render.write_png(FOLDER / "depths.png", sheet)


if __name__ == "__main__":
    main()
