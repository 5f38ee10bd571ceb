"""`region=`: part of a photograph explained at the requested depth, over an overview of the rest at "descriptor"."""

import numpy as np
import pytest
from PIL import Image

from fvlrp import Explanation, Network, cli, rules
from fvlrp.core import figures
from fvlrp.fisher import sift
from fvlrp.network.graph import Node
from fvlrp.network.layers import Conv, Flatten, GlobalAveragePool
from fvlrp.show import render
from fvlrp.show.colours import colour

DEPTHS = ("vector", "descriptor", "bin", "gradient")
RULES = [
    None,
    rules.FisherRules(clip="drop", splat="tri", epsilon_pool=1.0, epsilon_pca=1.0),
    rules.FisherRules(splat="box_sym", epsilon_pool=0, epsilon_pca=0, zero_desc="uniform"),
]
REGION = 35, 60, 50, 81


@pytest.fixture(scope="module")
def scene():
    """Texture and smooth parts: uint8 (120, 130, 3)."""
    samples = pytest.importorskip("skimage.data", reason="scikit-image, which carries the photographs, is missing")
    return samples.coffee()[:120, 80:210]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("rule", RULES, ids=["paper", "dropping triangles", "no stabilisers"])
@pytest.mark.parametrize("most", [None, 300])
def test_the_map_inside_is_that_of_the_whole_image_and_the_ledger_closes(plain, scene, rule, most, monkeypatch):
    if most:
        monkeypatch.setattr(sift, "WHOLE", 0)
        monkeypatch.setattr(sift, "STRIP", most)
    trace = plain.trace(scene, "float64")
    y0, x0, y1, x1 = REGION
    whole = dict(zip(DEPTHS, trace.explain("brick", DEPTHS, rule), strict=True))
    for ex in trace.explain("brick", DEPTHS, rule, region=REGION):
        full, overview = whole[ex.depth], whole["descriptor"]
        close(ex.heatmap[y0:y1, x0:x1], full.heatmap[y0:y1, x0:x1])
        assert ex.ledger.closes(1e-9)
        assert ex.score == full.score and ex.region == REGION
        if ex.depth in ("vector", "descriptor"):  # no finer than the overview
            close(ex.heatmap, full.heatmap)
            continue
        assert not np.allclose(full.heatmap[y0:y1, x0:x1], overview.heatmap[y0:y1, x0:x1], rtol=0.01)
        # Where no descriptor that reaches into the region arrives, the map is the overview.
        far = np.ones(scene.shape[:2], bool)
        reach = 6 * 10  # a descriptor of the largest bins, and what it is pooled over
        far[max(0, y0 - reach) : y1 + reach, max(0, x0 - reach) : x1 + reach] = False
        assert far.any()
        close(ex.heatmap[far], overview.heatmap[far])


def test_a_region_of_the_whole_image_is_the_whole_image(plain, scene):
    whole = plain.explain(scene, "brick", "bin")
    found = plain.explain(scene, "brick", "bin", region=(0, 0, *scene.shape[:2]))
    np.testing.assert_array_equal(found.heatmap, whole.heatmap)
    assert whole.region is None


def test_a_region_counts_pixels_of_the_photograph_not_of_its_reduction(centred, scene):
    region = 60, 67, 91, 120
    inside = np.s_[60:91, 67:120]
    full = centred.explain(scene, "brick", "bin", dtype="float64")
    found = centred.explain(scene, "brick", "bin", dtype="float64", region=np.array(region))
    close(found.heatmap[inside], full.heatmap[inside])
    assert np.abs(found.heatmap - full.heatmap).max() > 1e-3 * np.abs(full.heatmap).max()


def test_many_images_and_targets_share_a_region(plain, scene):
    images, names = [scene, scene[::-1]], ["brick", "grass"]
    single = [plain.explain(image, name, "bin", region=REGION) for image in images for name in names]
    many = plain.explain(images, names, "bin", region=REGION)
    for one, other in zip(single, (ex for exs in many for ex in exs), strict=True):
        np.testing.assert_allclose(other.heatmap, one.heatmap, rtol=0, atol=1e-6 * np.abs(one.heatmap).max())


def test_a_region_is_kept_with_its_explanation(plain, scene, tmp_path):
    ex = plain.explain(scene, "brick", "bin", region=REGION)
    ex.save(tmp_path / "ex.npz")
    assert Explanation.load(tmp_path / "ex.npz").region == REGION
    (again,) = ex.again(depth=["bin"])
    np.testing.assert_array_equal(again.heatmap, ex.heatmap)


@pytest.mark.parametrize(
    ("region", "said"),
    [
        ((0, 0, 10), "four whole numbers"),
        ((0.0, 0, 10, 10), "four whole numbers"),
        ((True, 0, 10, 10), "four whole numbers"),
        ("0,0,9,9", "four whole numbers"),
        (7, "four whole numbers"),
        ((-1, 0, 10, 10), "counted from 0"),
        ((10, 0, 10, 10), "holds no pixel"),
        ((0, 10, 10, 5), "holds no pixel"),
        ((0, 0, 121, 10), "reaches beyond the image of 120 x 130"),
        ((0, 0, 10, 131), "reaches beyond the image of 120 x 130"),
    ],
)
def test_a_region_outside_the_image_is_refused(plain, scene, region, said):
    with pytest.raises(ValueError, match=f"region .*{said}"):
        plain.explain(scene, "brick", "bin", region=region)


def test_a_network_has_no_regions(scene):
    rng = np.random.default_rng(0)
    nodes = [
        Node.of("conv", Conv(rng.normal(size=(2, 3, 3, 3)).astype(np.float32), np.zeros(2, np.float32)), (-1,)),
        Node.of("pool", GlobalAveragePool(), (0,)),
        Node.of("scores", Flatten(), (1,)),
    ]
    net = Network(nodes, (3, 24, 20), ["cat", "dog"])
    with pytest.raises(ValueError, match="region must be None for a network"):
        net.explain(scene, region=REGION)


# ---- on the command line ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(plain, scene, tmp_path):
    Image.fromarray(scene).save(tmp_path / "scene.png")
    plain.save(tmp_path / "plain.fvlrp")
    return [str(tmp_path / "scene.png"), "--model", str(tmp_path / "plain.fvlrp"), "--out", str(tmp_path / "out")]


def test_the_command_line_takes_a_region(plain, scene, files, tmp_path, capsys):
    spelled = ",".join(map(str, REGION))
    asked = ["explain", *files, "--target", "brick", "--format", "npz", "--quiet"]
    assert cli.main([*asked, "--region", spelled]) == 0
    found = Explanation.load(tmp_path / "out" / "scene_brick_bin.npz")
    expected = plain.explain(scene, "brick", "bin", region=REGION)
    assert found.region == REGION
    np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=0, atol=1e-6 * np.abs(expected.heatmap).max())
    # The region is one of the options that results depend on.
    assert cli.main([*asked, "--resume"]) == 0
    assert Explanation.load(tmp_path / "out" / "scene_brick_bin.npz").region is None


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [("0,0,9", 2, "four whole numbers"), ("a,b,c,d", 2, "four whole numbers"), ("0,0,500,9", 1, "reaches beyond")],
)
def test_the_command_line_refuses_invalid_regions(files, text, code, said, capsys):
    try:
        found = cli.main(["explain", *files, "--region", text])
    except SystemExit as error:  # argparse
        found = error.code
    assert found == code
    assert said in capsys.readouterr().err


def test_a_sheet_says_where_its_depths_hold(plain, scene, monkeypatch):
    sheets = []
    monkeypatch.setattr(figures.render, "sheet", lambda rows, **options: sheets.append(rows))
    for region in (None, REGION):
        figures.depth_sheet(plain.explain(scene, "grass", DEPTHS, region=region))
    whole, part = (rows[0][0].caption for rows in sheets)
    assert part == f"{whole}\nrows 35–49, columns 60–80\nhatched: an overview"


def test_pictures_are_hatched_where_their_depth_does_not_hold(plain, scene, tmp_path):
    explanations = plain.explain(scene, "grass", DEPTHS, region=REGION)
    box = REGION[0], REGION[1], REGION[2], REGION[3]
    for ex, changed in zip(explanations, (False, False, True, True), strict=True):
        drawn = colour(ex.heatmap)
        assert np.array_equal(ex.to_image(), render.hatched(drawn, box) if changed else drawn)
        over = render.overlay(scene, ex.heatmap)
        assert np.array_equal(ex.overlay(), render.hatched(over, box) if changed else over)
        ex.save(tmp_path / "it.npz")
        assert np.array_equal(Explanation.load(tmp_path / "it.npz").to_image(), ex.to_image())
