"""Tables and figures of flippings, against the numbers that they are made of."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fvlrp.evaluate import PixelFlipping, bootstrap, flipping_curves, flipping_table, plot_flipping
from fvlrp.evaluate.summaries import gaps
from fvlrp.show import curves


def flipping(curve, order):
    curve = np.array([curve], float)
    return PixelFlipping(curve, order, np.zeros((1, curve.shape[1] - 1, 2), int), 9)


FLIPS = {
    "bin": [[flipping([3, 1, 0], "morf"), flipping([3, 3, 2], "lerf")], [flipping([2, 1, 1, 0], "morf")]],
    "descriptor": [[flipping([3, 2, 2], "morf"), flipping([3, 2, 1], "lerf")]] * 2,
}


def test_the_table_holds_aopc_of_every_order_and_the_gap():
    table = flipping_table(FLIPS)
    assert list(table.columns) == ["", "AOPC MoRF", "AOPC LeRF", "gap", "images"]
    label, morf, lerf, gap, images = table.rows[0]
    assert (label, images) == ("bin", 2)
    # (0 + 2 + 3) / 3 and (0 + 1 + 1 + 2) / 4; (0 + 0 + 1) / 3 and no LeRF.
    assert morf == bootstrap([5 / 3, 1]) and lerf == bootstrap([1 / 3, np.nan]) and gap.n == 1
    np.testing.assert_allclose(gaps(FLIPS["bin"]), [4 / 3, np.nan])
    assert "1.33 [1.33, 1.33]" in table.text()


def test_mean_curves_end_where_the_shortest_one_does():
    (line, other) = flipping_curves(FLIPS)
    assert (line.label, other.label) == ("bin", "descriptor")
    np.testing.assert_allclose(line.y, [0, 1.5, 2])  # (2 + 1) / 2, (3 + 1) / 2
    assert (line.low <= line.y).all() and (line.y <= line.high).all() and line.low[1] < line.high[1]
    assert [line.label for line in flipping_curves({"none": [], **FLIPS}, "lerf")] == ["bin", "descriptor"]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_figures_are_written_in_every_format(suffix, tmp_path):
    pytest.importorskip("matplotlib")
    plot_flipping(FLIPS, tmp_path / f"flips{suffix}")
    data = (tmp_path / f"flips{suffix}").read_bytes()
    assert data[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


def test_orders_that_know_no_model_are_dashed_beside_the_maps_on_one_scale(monkeypatch, tmp_path):
    panels = []
    monkeypatch.setattr(curves, "save", lambda drawn, path: panels.extend(drawn))
    plot_flipping({**FLIPS, "random": [[flipping([3, 2.5, 4], "random")]]}, tmp_path / "flips.png")
    most, least = panels
    assert [(line.label, line.dashed) for line in most.lines] == [
        *(("bin", False), ("descriptor", False), ("random", True))
    ]
    assert [line.label for line in least.lines] == ["bin", "descriptor"]
    np.testing.assert_allclose(most.lines[2].y, [0, 0.5, -1])
    assert most.limits == least.limits == (-1, 3)  # MoRF falls from 3 to 0 at most
    panels.clear()
    plot_flipping({"net": [[flipping([3, 2.5, 4], "random")]]}, tmp_path / "flips.png")
    assert [[line.label for line in panel.lines] for panel in panels] == [["net, random"]]


def test_a_figure_shows_a_panel_per_order(tmp_path):
    pytest.importorskip("matplotlib")
    plot_flipping(FLIPS, tmp_path / "flips.png")
    both = Image.open(tmp_path / "flips.png")
    plot_flipping({"descriptor": [[FLIPS["descriptor"][0][0]]]}, tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").width < both.width


def test_figures_need_no_window_system(tmp_path):
    """pyplot picks a backend of the screen, which a server has none of; asked of a new interpreter."""
    pytest.importorskip("matplotlib")
    code = (
        "import sys; import numpy as np; from fvlrp.evaluate import pixel_flipping, plot_flipping\n"
        "image = np.zeros((18, 18), np.uint8)\n"
        "flips = pixel_flipping(lambda x: x.mean(axis=(1, 2)), image, np.ones((18, 18)), steps=2)\n"
        f"plot_flipping({{'one': [[flips]]}}, {str(tmp_path / 'one.png')!r})\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_undrawable_values_are_refused(tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg, \.pdf"):
        plot_flipping(FLIPS, tmp_path / "flips.jpg")
    with pytest.raises(ValueError, match="holds no flipping"):
        plot_flipping({"bin": []}, tmp_path / "flips.png")
    with pytest.raises(ValueError, match="2 flippings of order 'morf'"):
        flipping_table({"bin": [[flipping([1, 0], "morf")] * 2]})
