"""Pictures: overlays, bars, sheets and the bytes of a file."""

import io
from time import perf_counter

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import find_objects, label

from fvlrp.show import pictures, png, render
from fvlrp.show.colours import colour

CMAPS = ("grey", "paper", "safe")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def photo(rng):
    return rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)


# ---- heatmap and photograph


def test_alpha_shows_the_photograph_at_the_maximum_and_the_background_at_no_evidence(photo):
    heatmap = np.zeros((30, 40))
    heatmap[3, 4], heatmap[5, 6], heatmap[7, 8] = 2.0, -5.0, 0.5
    picture = render.alpha(photo, heatmap, scale=None)
    assert np.array_equal(picture[3, 4], photo[3, 4])
    assert picture[5, 6].tolist() == picture[0, 0].tolist() == [0, 0, 0]
    assert np.array_equal(picture[7, 8], np.rint(photo[7, 8] * (0.5 / 2.0) ** 0.5))
    assert render.alpha(photo, heatmap, background=(255, 0, 9))[0, 0].tolist() == [255, 0, 9]


def test_alpha_without_evidence_is_background(photo):
    for heatmap in (np.zeros((30, 40)), np.full((30, 40), -1.0)):
        assert (render.alpha(photo, heatmap, background=17) == 17).all()


def test_gamma_below_one_lifts_small_evidence(photo):
    heatmap = np.linspace(0.1, 1, 1200).reshape(30, 40)
    lifted, plain = render.alpha(photo, heatmap), render.alpha(photo, heatmap, gamma=1)
    assert (lifted >= plain).all() and lifted.mean() > plain.mean() + 10


def test_overlay_is_the_heatmap_at_the_maximum_and_the_photograph_at_zero(photo):
    heatmap = np.zeros((30, 40))
    heatmap[3, 4], heatmap[5, 6], heatmap[7, 8] = 2.0, -2.0, 0.5
    picture = render.overlay(photo, heatmap, scale=None)
    coloured = colour(heatmap, scale=None)
    assert np.array_equal(picture[3, 4], coloured[3, 4]) and np.array_equal(picture[5, 6], coloured[5, 6])
    assert np.array_equal(picture[0, 0], photo[0, 0])
    assert np.array_equal(picture[7, 8], np.rint(0.5 * photo[7, 8] + 0.5 * coloured[7, 8]))


def test_overlay_and_alpha_follow_a_shared_scale(photo):
    heatmap = np.full((30, 40), 1.0)
    heatmap[0, 0] = 9.0
    coloured = colour(heatmap, scale=4.0)
    picture = render.overlay(photo, heatmap, scale=4.0)
    assert np.array_equal(picture[0, 0], coloured[0, 0])
    assert np.array_equal(picture[1:], np.rint(0.5 * photo[1:] + 0.5 * coloured[1:]))
    shown = render.alpha(photo, heatmap, scale=4.0)
    assert np.array_equal(shown[0, 0], photo[0, 0]) and np.array_equal(shown[1:], np.rint(0.5 * photo[1:]))


def test_overlay_of_nothing_is_the_photograph(photo):
    assert np.array_equal(render.overlay(photo, np.zeros((30, 40))), photo)


def test_photographs_may_be_grey_floats_or_pillow_images(photo):
    heatmap = np.ones((30, 40))
    assert np.array_equal(render.alpha(photo / 255, heatmap), photo)
    assert np.array_equal(render.alpha(Image.fromarray(photo), heatmap), photo)
    assert np.array_equal(render.alpha(photo[:, :, 0], heatmap), np.repeat(photo[:, :, :1], 3, axis=2))


@pytest.mark.parametrize("paint", [render.alpha, render.overlay])
def test_sizes_must_agree(photo, paint):
    with pytest.raises(ValueError, match=r"image is 30 x 40 pixels and heatmap 40 x 30 \(rows x columns\)"):
        paint(photo, np.ones((40, 30)))


@pytest.mark.parametrize("gamma", [0, -1, np.nan, np.inf])
def test_gamma_must_be_positive(photo, gamma):
    with pytest.raises(ValueError, match="gamma is"):
        render.overlay(photo, np.ones((30, 40)), gamma=gamma)


@pytest.mark.parametrize("background", [256, -1, (1, 2), np.nan])
def test_background_must_be_a_colour(photo, background):
    with pytest.raises(ValueError, match="background is"):
        render.alpha(photo, np.ones((30, 40)), background=background)


@pytest.mark.parametrize("ground", [0, 100, 255])
def test_parts_that_a_model_did_not_see_are_hatched(ground):
    picture = np.full((100, 160, 3), ground, np.uint8)
    assert render.hatched(picture, (0, 0, 100, 160)) is picture
    found = render.hatched(picture, (10, 30, 90, 130))
    changed = (found != picture).any(axis=2)
    assert not changed[10:90, 30:130].any() and (picture == ground).all()
    for part in (changed[:10], changed[90:], changed[:, :30], changed[:, 130:]):
        assert 0.05 < part.mean() < 0.3
    assert abs(int(found[changed].min()) - ground) > 80, "lines differ from bright and from dark ground"
    runs = np.diff(np.flatnonzero(changed[0]))
    assert set(runs.tolist()) == {8}, "lines continue from one side to the other"


# ---- colour bar


def is_ink(picture):
    """Where a picture on white is not white: (H, W) bool."""
    return (np.asarray(picture) < 250).any(axis=2)


def test_to_image_is_the_coloured_map(rng):
    heatmap = rng.standard_normal((9, 7))
    assert np.array_equal(np.asarray(render.to_image(heatmap, cmap="safe")), colour(heatmap, cmap="safe"))


def test_bar_leaves_the_map_unchanged(rng):
    heatmap = rng.standard_normal((100, 70))
    picture = np.asarray(render.to_image(heatmap, bar=True))
    assert picture.shape[0] == 100 and picture.shape[1] > 100
    assert np.array_equal(picture[:, :70], colour(heatmap))
    assert not is_ink(picture[:, 70:76]).any(), "map and bar do not touch"


def test_the_colour_bar_runs_from_positive_down_to_negative():
    inner = np.asarray(render.colour_bar(301, scale=2.0))[1:-1, 3]
    table = colour(np.arange(-127.0, 128.0)[None, :], scale=None)[0]
    assert np.array_equal(inner[0], table[253]) and np.array_equal(inner[149], table[127])
    assert np.array_equal(inner[-1], table[1])


@pytest.mark.parametrize("height", [24, 48, 240, 2000])
@pytest.mark.parametrize("scale", [None, "99.5%", 0.0, 1.23e-12, 98765.4, (-3.0, 5.0), (2.0, 2.0)])
def test_the_colour_bar_has_the_requested_height_and_room_for_labels(height, scale):
    picture = render.colour_bar(height, scale=scale)
    assert picture.height == height
    ink = is_ink(picture)
    assert not ink[:, -1].any(), "the last column is free: no label is cut at the right"
    for row in (ink[0], ink[-1]):
        assert not row[np.argmin(row) :].any(), "right of bar and tick both edges are free: nor above or below"


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (None, ["max", "0", "-max"]),
        ("99.5%", ["99.5%", "0", "-99.5%"]),
        (0.0, ["0"]),
        (1.2345e-7, ["1.23e-7", "0", "-1.23e-7"]),
        (0.5, ["0.5", "0", "-0.5"]),
        (123456, ["1.23e5", "0", "-1.23e5"]),
        ((-2.0, 31.25), ["31.2", "-2"]),
    ],
)
def test_labels_are_short_numbers(scale, labels):
    assert [label for _, label in pictures._ticks(scale)] == labels


@pytest.mark.parametrize("scale", [None, "99.5%", 2.0])
def test_bar_names_its_unit_where_there_is_room(scale):
    drawn = []

    def kept(text, *rest, block=pictures.lettering.block):
        drawn.append(text)
        return block(text, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures.lettering, "block", kept)
        widths = [render.colour_bar(height, scale=scale, text_size=14).width for height in (900, 240, 48)]
    assert drawn == [*pictures._units(scale), ""]
    assert widths[1] > widths[2]


def test_bar_refuses_invalid_arguments():
    with pytest.raises(ValueError, match="24 pixels"):
        render.colour_bar(10)
    with pytest.raises(ValueError, match="scale is 'most'; expected"):
        render.colour_bar(100, scale="most")


@pytest.mark.parametrize("heatmap", [np.zeros((1, 1)), np.ones((1, 1)), np.eye(3)])
@pytest.mark.parametrize("symmetric", [True, False])
def test_tiny_maps_get_a_bar_that_can_be_read(heatmap, symmetric):
    assert render.to_image(heatmap, symmetric=symmetric, bar=True).height == 48


# ---- sheets


def solid(height, width, colour=(200, 30, 30)):
    return np.full((height, width, 3), colour, dtype=np.uint8)


def boxes(picture, colour):
    """Bounding boxes (top, bottom, left, right) of the rectangles of one colour, row by row."""
    found = find_objects(label((np.asarray(picture) == colour).all(axis=2))[0])
    return [(y.start, y.stop, x.start, x.stop) for y, x in found if (y.stop - y.start) * (x.stop - x.start) > 100]


def test_one_panel_is_centred_in_equal_margins():
    picture = render.sheet([[solid(100, 130)]], height=100)
    [(top, bottom, left, right)] = boxes(picture, (200, 30, 30))
    assert (bottom - top, right - left) == (100, 130)
    assert top == left == picture.height - bottom == picture.width - right > 0


def test_panels_of_one_height_align_whatever_the_photographs_size():
    rows = [[solid(50, 65), solid(300, 200)], [solid(480, 640), solid(64, 64)]]
    found = boxes(render.sheet(rows, row_titles=["a", "b"], column_titles=["c", "d"], height=120), (200, 30, 30))
    assert [bottom - top for top, bottom, _, _ in found] == [120] * 4
    assert found[0][0] == found[1][0] and found[2][0] == found[3][0]
    centres = [(left + right) / 2 for _, _, left, right in found]
    assert abs(centres[0] - centres[2]) <= 1 and abs(centres[1] - centres[3]) <= 1
    for (top, bottom, left, right), (height, width) in zip(
        found, [(50, 65), (300, 200), (480, 640), (64, 64)], strict=True
    ):
        assert (right - left) / (bottom - top) == pytest.approx(width / height, abs=0.01)


def test_a_panorama_keeps_its_aspect_and_fits_the_box():
    [(top, bottom, left, right)] = boxes(render.sheet([[solid(100, 1000)]], height=100, aspect=1.5), (200, 30, 30))
    assert (bottom - top, right - left) == (15, 150)


def test_panels_and_captions_do_not_overlap():
    text = "a caption of many words that never ends because nobody told its author to stop, not even once"
    rows = [[render.Panel(solid(60, 60), text), render.Panel(solid(60, 20), text)] for _ in range(3)]
    picture = render.sheet(rows, row_titles=[text] * 3, column_titles=[text] * 2, height=120, bar="paper")
    pixels = np.asarray(picture)
    found = boxes(picture, (200, 30, 30))
    assert len(found) == 6
    for top, bottom, left, right in found:
        assert (pixels[top:bottom, left:right] == (200, 30, 30)).all(), "no text on the picture"
    ink = is_ink(picture)
    first, second, fourth = found[0], found[1], found[2]
    caption = ink[first[1] : fourth[0], first[2] : first[3]]
    rows = np.flatnonzero(caption.any(axis=1))
    assert rows[0] < len(caption) - rows[-1], "the caption is nearer to its own picture than to the next row"
    assert not ink[first[1] : fourth[0], first[3] : first[3] + 6].any(), "and before its neighbour's"
    assert not ink[:, -1].any() and not ink[-1].any() and not ink[0].any() and not ink[:, 0].any()
    assert second[2] > first[3]


def test_titles_do_not_overlap_pictures():
    plain = render.sheet([[solid(60, 80)]], height=120)
    titled = render.sheet([[solid(60, 80)]], row_titles=["row"], column_titles=["column"], height=120)
    assert titled.width > plain.width and titled.height > plain.height
    [(top, _, left, _)] = boxes(titled, (200, 30, 30))
    ink = is_ink(titled)
    assert ink[:top].any() and ink[:, :left].any() and not ink[:top, :left].any()


def test_sheets_accept_empty_cells_and_short_rows():
    picture = render.sheet([[solid(60, 80), None, solid(60, 80)], [solid(60, 80)]], height=60)
    assert len(boxes(picture, (200, 30, 30))) == 3


@pytest.mark.parametrize("shape", [(4, 300), (1, 500), (300, 4)])
def test_a_strip_has_a_sheet_with_a_colour_bar_that_can_be_read(shape):
    panels = [render.Panel(solid(*shape), words) for words in ("", "strip\nmap +0.01, zero sums −3.71")]
    for panel in panels:
        picture = render.sheet([[panel]], height=240, bar="paper")
        *_, right = boxes(picture, (200, 30, 30))[0]
        legend = np.flatnonzero(is_ink(picture)[:, picture.width - 60 :].any(axis=1))
        assert legend[-1] - legend[0] + 1 >= 24 and legend[-1] < picture.height - 1 and right < picture.width - 60


def test_the_colour_bar_has_the_height_of_the_pictures():
    picture = render.sheet([[render.Panel(solid(100, 100), "caption")]], height=100, bar="grey", scale=1.5)
    [(top, bottom, _, right)] = boxes(picture, (200, 30, 30))
    beside = is_ink(picture)[:, right + 1 :]
    rows = np.flatnonzero(beside.any(axis=1))
    assert (rows[0], rows[-1]) == (top, bottom - 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": []}, "rows holds no picture"),
        ({"rows": [[None]]}, "rows holds no picture"),
        ({"row_titles": ["a", "b"]}, "row_titles has 2 entries for 1 rows"),
        ({"column_titles": []}, "column_titles has 0 entries for 1 columns"),
        ({"bar": "viridis"}, "cmap must be one of grey, paper, safe"),
        ({"height": 10}, "height is 10"),
        ({"aspect": 0}, "aspect 0"),
    ],
)
def test_errors_of_a_sheet_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        render.sheet(**{"rows": [[solid(60, 80)]], **arguments})


def test_a_font_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(OSError, match=r"absent\.ttf"):
        render.sheet([[solid(60, 80)]], font=str(tmp_path / "absent.ttf"))


# ---- files


def test_png_bytes_are_the_same_every_time_and_give_the_pixels_back(rng, photo):
    heatmap = render.to_image(rng.standard_normal((40, 50)))
    sheet = render.sheet([[render.Panel(photo, "x"), heatmap]], height=60, bar="safe")
    for image in (photo, heatmap, sheet):
        data = render.png_bytes(image, {"target": "dog", "score": 1.5})
        assert data == render.png_bytes(image, {"target": "dog", "score": 1.5})
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), np.asarray(image))


@pytest.mark.parametrize("cmap", CMAPS)
def test_a_heatmap_is_stored_with_a_palette_and_without_loss(rng, cmap):
    noise = render.to_image(rng.uniform(-1, 1, (60, 80)), cmap=cmap)  # takes nearly every colour there is
    ramp = render.to_image(np.add.outer(np.arange(60.0), np.arange(80.0)), cmap=cmap)
    for heatmap in (noise, ramp):
        for level in (0, render.LEVEL, 9):
            stored = Image.open(io.BytesIO(render.png_bytes(heatmap, level=level)))
            assert stored.mode == "P" and np.array_equal(np.asarray(stored.convert("RGB")), np.asarray(heatmap))


def test_a_picture_of_many_colours_is_stored_without_a_palette(photo):
    assert Image.open(io.BytesIO(render.png_bytes(photo))).mode == "RGB"


def test_colours_do_not_depend_on_bands(rng, monkeypatch):
    heatmap = render.to_image(rng.standard_normal((37, 50)))
    whole = render.png_bytes(heatmap)
    monkeypatch.setattr(png, "_BAND", 160)
    assert render.png_bytes(heatmap) == whole


def test_the_compression_level_can_be_chosen(rng):
    heatmap = render.to_image(rng.standard_normal((200, 300)).cumsum(axis=0).cumsum(axis=1))
    sizes = [len(render.png_bytes(heatmap, level=level)) for level in (0, 1, 9)]
    assert sizes[0] > 60_000 > max(sizes[1:]) and sizes[1] != sizes[2]
    for level in (-1, 10, 2.5, True):
        with pytest.raises(ValueError, match=r"level is .*; expected a whole number from 0"):
            render.png_bytes(heatmap, level=level)


def test_a_heatmap_of_a_photographs_size_is_encoded_in_a_few_milliseconds(rng):
    """The reference is what Pillow takes at its best level, on the same machine at the same time."""
    heatmap = render.to_image(rng.standard_normal((375, 500)).cumsum(axis=1).cumsum(axis=0))

    def seconds(call):
        times = []
        for _ in range(5):
            start = perf_counter()
            call()
            times.append(perf_counter() - start)
        return min(times)

    best = seconds(lambda: heatmap.save(io.BytesIO(), "PNG", optimize=True))
    assert seconds(lambda: render.png_bytes(heatmap)) < best / 5


def test_metadata_text_is_stored_in_the_png():
    data = render.png_bytes(solid(2, 2), {"target": "Köter", "depth": "bin", "score": 1.25, "note": "ε = 100"})
    text = Image.open(io.BytesIO(data)).text
    assert text == {"Software": "fvlrp", "target": "Köter", "depth": "bin", "score": "1.25", "note": "ε = 100"}


@pytest.mark.parametrize("key", ["", "k" * 80, "ε", "a\0b"])
def test_a_metadata_keyword_invalid_in_png_is_refused(key):
    with pytest.raises(ValueError, match="text has the keyword"):
        render.png_bytes(solid(2, 2), {key: "value"})


def test_write_png_writes_exactly_that_file(tmp_path, photo):
    path = tmp_path / "dog.picture"
    render.write_png(path, photo, {"target": "dog"})
    assert [entry.name for entry in tmp_path.iterdir()] == ["dog.picture"]
    assert path.read_bytes() == render.png_bytes(photo, {"target": "dog"})
