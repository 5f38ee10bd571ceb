"""Images in: every way to hand over a picture gives the same pixels, and heatmaps return to its size."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from fvlrp.data.images import Photograph, batch, grey, load, resample_conserving, resize_to_height, rgb, size

MARKED = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3) * 5  # no symmetry, no two pixels alike


# What an image is


@pytest.mark.parametrize("give", [str, Path, Image.open, lambda path: np.asarray(Image.open(path))])
def test_paths_pictures_and_arrays_are_one_image(tmp_path, give):
    path = tmp_path / "x.png"
    Image.fromarray(MARKED).save(path)
    pixels = load(give(path))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, MARKED)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_exif_orientation_is_transposed_once(tmp_path, orientation, suffix):
    # The EXIF standard says where row 0 and column 0 of the stored picture lie in the upright one: "right, top" stores
    # the upright columns, from right to left, as rows.
    upright = np.repeat(np.repeat(MARKED, 8, axis=0), 8, axis=1)
    store = {
        1: upright,
        2: upright[:, ::-1],  # row 0 at the top, column 0 at the right
        3: upright[::-1, ::-1],  # bottom, right
        4: upright[::-1],  # bottom, left
        5: upright.transpose(1, 0, 2),  # left, top
        6: upright.transpose(1, 0, 2)[::-1],  # right, top
        7: upright.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
        8: upright.transpose(1, 0, 2)[:, ::-1],  # left, bottom
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(np.ascontiguousarray(store[orientation])).save(path, exif=exif, **options)
    for image in (path, Image.open(path)):
        pixels = load(image)
        assert pixels.shape == upright.shape
        np.testing.assert_allclose(pixels.astype(int), upright, atol=6 if suffix == "jpg" else 0)


def test_damaged_exif_data_do_not_lose_the_picture(tmp_path):
    Image.fromarray(MARKED).save(tmp_path / "x.webp", lossless=True, exif=b"garbage")
    with pytest.warns(UserWarning, match=r"x\.webp has damaged EXIF data, and is taken to be upright: not a TIFF"):
        np.testing.assert_array_equal(load(tmp_path / "x.webp"), MARKED)


def test_grey_is_the_weighted_sum_of_floats_and_not_pillows_l():
    image = np.random.default_rng(0).integers(256, size=(20, 30, 3), dtype=np.uint8)
    expected = [
        [0.2989 * int(r) / 255 + 0.5870 * int(g) / 255 + 0.1140 * int(b) / 255 for r, g, b in row] for row in image
    ]
    values = grey(image)
    assert values.dtype == np.float32 and values.flags.c_contiguous
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert np.abs(values - np.asarray(Image.fromarray(image).convert("L")) / 255).max() > 1e-3


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_2d_image_is_its_own_grey(order):
    image = np.asarray(np.random.default_rng(0).random((7, 9), np.float32), order=order)
    values = grey(image)
    assert values.flags.c_contiguous
    np.testing.assert_array_equal(values, image)
    np.testing.assert_array_equal(grey(image[:, :, None]), image)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_files_keep_their_range(tmp_path, suffix):
    image = np.array([[0, 255, 256], [4000, 40000, 65535]], np.uint16)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(image).save(path)
    for given_as in (path, image):
        np.testing.assert_allclose(grey(given_as), image / 65535, rtol=1e-6)


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
def test_integer_modes_are_16_bits_wide(mode):
    picture = Image.new(mode, (1, 1))
    picture.putpixel((0, 0), 40000)
    np.testing.assert_allclose(grey(picture), 40000 / 65535, rtol=1e-6)


def test_integers_beyond_16_bits_are_refused():
    with pytest.raises(ValueError, match="70000"):
        load(Image.fromarray(np.full((2, 2), 70000, np.int32)))


def test_float_files_are_in_unit_range_or_refused(tmp_path):
    image = np.array([[0, 0.25], [0.5, 1]], np.float32)
    Image.fromarray(image).save(tmp_path / "x.tif")
    np.testing.assert_array_equal(load(tmp_path / "x.tif"), image)
    Image.fromarray(image * 200).save(tmp_path / "y.tif")
    with pytest.raises(ValueError, match=r"y\.tif has floats from 0 to 200"):
        load(tmp_path / "y.tif")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.array([[True, False]]), [[255, 0]]),
        (np.array([[0, 255]]), [[0, 255]]),
        (np.array([[0.0, 1.0]]), [[0, 1]]),
        (np.array([[0, 65535]], np.uint16), [[0, 1]]),
        (np.array([[0, 65535]], ">u2"), [[0, 1]]),
        (np.array([[0.0, 1.0]], np.float16), [[0, 1]]),
        (np.array([[0.0, 1.0]], ">f4"), [[0, 1]]),
        (np.array([[-1e-9, 1 + 1e-9]]), [[0, 1]]),
    ],
)
def test_every_dtype_has_its_range(image, expected):
    values = load(image)
    assert values.dtype in (np.uint8, np.float32)
    np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize(("alpha", "expected"), [(0, 255), (255, 40), (51, 212)])
def test_alpha_is_composited_on_white(alpha, expected):
    # 40 · 51/255 + 255 · 204/255 = 212
    array = np.full((2, 2, 4), 40, np.uint8)
    array[:, :, 3] = alpha
    assert (load(array) == expected).all() and load(array).shape == (2, 2, 3)
    assert (load(Image.fromarray(array)) == expected).all()
    np.testing.assert_allclose(load(array / 255), expected / 255, rtol=1e-6)
    two = load(Image.new("LA", (2, 3), (40, alpha)))
    assert two.shape == (3, 2) and (two == expected).all()


def test_a_transparent_palette_entry_is_white(tmp_path):
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "x.png", transparency=0)
    np.testing.assert_array_equal(load(tmp_path / "x.png"), [[[255, 255, 255], [40, 50, 60]]])
    picture.save(tmp_path / "y.png")
    np.testing.assert_array_equal(load(tmp_path / "y.png"), [[[10, 20, 30], [40, 50, 60]]])


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "HSV", "RGBX", "PA", "RGBa", "La"])
def test_white_is_white_in_every_colour_mode(mode):
    white = Image.new("RGB", (3, 2), "white")
    picture = {
        "PA": lambda: white.convert("P").convert("PA"),
        "La": lambda: white.convert("LA").convert("La"),
        "RGBa": lambda: white.convert("RGBA").convert("RGBa"),
    }.get(mode, lambda: white.convert(mode))()
    assert picture.mode == mode
    values = load(picture)
    assert values.dtype == np.uint8 and values.shape[:2] == (2, 3) and (values == 255).all()


def test_rgb_is_a_picture_of_any_image():
    image = np.array([[0, 128, 255]], np.uint8)
    for given_as in (image, image / 255, image.astype(np.uint16) * 257):
        values = rgb(given_as)
        assert values.dtype == np.uint8
        np.testing.assert_array_equal(values, np.repeat(image[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(rgb(MARKED), MARKED)


# Values that are not what their type says


@pytest.mark.parametrize(("bits", "top"), [(12, 4095), (12, 2000), (10, 1023), (8, 255), (8, 1)])
@pytest.mark.parametrize("suffix", ["png", "tif", None])
def test_data_of_fewer_bits_in_a_16_bit_file_warn(tmp_path, bits, top, suffix):
    image = np.array([[0, top // 2], [top, 0]], np.uint16)
    given_as = image
    if suffix:
        given_as = tmp_path / f"x.{suffix}"
        Image.fromarray(image).save(given_as)
    with pytest.warns(UserWarning, match=rf"values of at most {top}, and is read as {bits}-bit data: range=\(0, "):
        values = load(given_as)
    np.testing.assert_allclose(values, image / (2**bits - 1), rtol=1e-6)


def test_14_bit_data_and_12_bit_data_with_defect_pixels_are_read_as_dark_with_a_warning(recwarn):
    with pytest.warns(UserWarning, match=r"at most 16383, .* dark image: range=\(0, 16383\) says that it is 14-bit"):
        assert load(np.array([[0, 16383]], np.uint16)).max() == pytest.approx(16383 / 65535)
    hot = np.full((50, 40), 2000, np.uint16)
    hot[3, 4] = 65535
    with pytest.warns(UserWarning, match=r"all but 1 are below 4096, .* range=\(0, 4095\) says that it is 12-bit data"):
        assert load(hot).max() == 1
    recwarn.clear()
    hot[:, :2] = 65535  # a lamp at night
    load(hot)
    assert not recwarn


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_integers_of_0_and_1_are_no_photograph(dtype, recwarn):
    mask = np.eye(40, dtype=dtype)
    with pytest.warns(UserWarning, match="integers of at most 1, which are read as 0 to 255, nearly black"):
        assert load(mask).max() == 1
    recwarn.clear()
    assert load(mask > 0).max() == 255 and load(mask, range=(0, 1)).max() == 1
    assert load(mask * 0).max() == 0 and load(mask * 2).max() == 2
    assert not recwarn


@pytest.mark.parametrize(
    ("image", "range", "words"),
    [
        (
            np.array([[0, 255]], np.uint8),
            (0, 4095),
            "has uint8 values, at most 255, of which range=.* makes none white",
        ),
        (np.array([[-1000, -500]], np.int16), (-160, 240), "values from -1000 to -500, which range=.* makes all black"),
        (np.array([[0.1, 0.9]]), (-160, 240), None),
        (np.array([[0.1, 0.9]]), (-2, 0), "makes all white"),
    ],
)
def test_a_range_that_misses_the_values_warns(image, range, words, recwarn):
    load(image, range=range)
    assert len(recwarn) == (words is not None)
    assert words is None or re.search(words, str(recwarn[0].message))


@pytest.mark.parametrize("top", [0, 16384, 30000, 65535])
def test_full_range_16_bit_and_black_images_give_no_warning(top, recwarn):
    np.testing.assert_allclose(load(np.array([[0, top]], np.uint16)), [[0, top / 65535]], rtol=1e-6)
    assert not recwarn


def test_the_maximum_stated_in_a_tiff_sets_its_range(tmp_path, recwarn):
    image = np.array([[0, 5000], [16383, 1]], np.uint16)
    Image.fromarray(image).save(tmp_path / "x.tif", tiffinfo={281: 16383})
    np.testing.assert_allclose(load(tmp_path / "x.tif"), image / 16383, rtol=1e-6)
    assert not recwarn


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.int32, np.float64])
def test_range_says_which_values_are_black_and_white(dtype, recwarn):
    image = np.array([[0, 400], [1200, 4095]], dtype)
    np.testing.assert_allclose(load(image, range=(0, 4095)), image / 4095, rtol=1e-6)
    np.testing.assert_allclose(load(image, range=(400, 800)), [[0, 0], [1, 1]], rtol=1e-6)
    window = np.array([[-1000, -160], [40, 3000]], np.int16)  # Hounsfield units
    np.testing.assert_allclose(load(window, range=(-160, 240)), [[0, 0], [0.5, 1]], rtol=1e-6)
    assert not recwarn


def test_range_keeps_dark_16_bit_data_dark(tmp_path, recwarn):
    Image.fromarray(np.full((2, 2), 4000, np.uint16)).save(tmp_path / "x.png")
    assert load(tmp_path / "x.png", range=(0, 65535)) == pytest.approx(4000 / 65535)
    assert not recwarn


@pytest.mark.parametrize("range", [(1, 1), (2, 1), (0, np.inf), 5, "ab", (1, 2, 3)])
def test_a_range_is_two_increasing_numbers(range):
    with pytest.raises(ValueError, match="range must be two"):
        load(MARKED, range=range)


def test_a_photograph_adds_range_and_page_to_its_file(tmp_path):
    stack = [Image.fromarray(np.full((2, 3), value, np.uint16)) for value in (100, 2000)]
    stack[0].save(tmp_path / "x.tif", save_all=True, append_images=stack[1:])
    photograph = Photograph(tmp_path / "x.tif", range=(0, 4000), page=1)
    for give in (load, np.asarray, lambda image: grey([image][0])):
        assert np.asarray(give(photograph)) == pytest.approx(0.5)
    assert rgb(photograph).shape == (2, 3, 3) and size(photograph) == (2, 3)
    assert str(photograph).endswith("x.tif")
    with pytest.raises(ValueError, match="alpha"):
        load(np.zeros((2, 2, 4)), range=(0, 2))


def test_a_tiff_stack_warns_and_page_selects_from_it(tmp_path, recwarn):
    pages = [Image.fromarray(np.full((2, 3), value, np.uint8)) for value in (10, 20, 30)]
    path = tmp_path / "stack.tif"
    pages[0].save(path, save_all=True, append_images=pages[1:])
    assert [int(load(path, page=page)[0, 0]) for page in (1, 2)] == [20, 30] and not recwarn
    with pytest.warns(UserWarning, match=r"stack\.tif has several pages and the first was read: page=1"):
        assert load(path)[0, 0] == 10
    with pytest.raises(OSError, match=r"cannot read image .*stack\.tif: it has no page 3"):
        load(path, page=3)
    with Image.open(path) as picture:
        picture.seek(2)
        assert load(picture)[0, 0] == 30


def test_the_mask_of_a_masked_array_is_kept():
    image = np.ma.masked_array(np.full((2, 2), 0.5), mask=[[0, 1], [0, 0]])
    with pytest.raises(ValueError, match=r"1 masked values.*pass image\.filled\(value\)"):
        load(image)
    assert load(np.ma.masked_array(np.full((2, 2), 0.5))) == pytest.approx(0.5)


@pytest.mark.parametrize("turn", [np.rot90, np.asfortranarray, np.fliplr, lambda image: image.transpose(1, 0, 2)])
def test_grey_of_an_array_in_any_order_is_contiguous(turn):
    assert grey(turn(MARKED)).flags.c_contiguous
    np.testing.assert_array_equal(grey(turn(MARKED)), grey(np.ascontiguousarray(turn(MARKED))))


def test_an_image_shared_by_threads_is_decoded_once(tmp_path):
    noise = np.random.default_rng(0).integers(256, size=(700, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    for _ in range(20):
        picture = Image.open(tmp_path / "x.png")
        with ThreadPoolExecutor(8) as pool:
            assert all(np.array_equal(pixels, noise) for pixels in pool.map(load, [picture] * 8))


def test_the_size_of_a_file_is_read_from_its_header(tmp_path):
    Image.fromarray(MARKED).save(tmp_path / "x.png")
    (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:-20])
    assert size(tmp_path / "x.png") == size(MARKED) == size(Image.fromarray(MARKED)) == (3, 5)
    with pytest.raises(FileNotFoundError, match=r"cannot read image .*gone\.png: no such file"):
        size(tmp_path / "gone.png")


class Column(list):
    """As a table's column: indexed by labels, not by positions."""

    to_list = list.copy

    def __getitem__(self, label):
        raise KeyError(label)


def test_a_column_of_a_table_is_a_batch_of_images():
    assert batch(Column(["a.png", "b.png"]))[0] == "a.png"


# What no image is


@pytest.mark.parametrize(
    ("image", "error", "words"),
    [
        (np.full((2, 2), 255.0), ValueError, "divide an image in 0..255 by 255"),
        (np.full((2, 2), -0.5), ValueError, "floats from -0.5 to -0.5"),
        (np.array([[0, np.nan]]), ValueError, "1 values that are NaN"),
        (np.array([[0, np.inf]]), ValueError, "1 values that are NaN or infinite"),
        (np.array([[0, 256]]), ValueError, "values from 0 to 256"),
        (np.array([[-1, 0]]), ValueError, "values from -1 to 0"),
        (np.zeros((3, 8, 8)), ValueError, "move the channels last"),
        (np.zeros((8, 8, 2)), ValueError, r"\(8, 8, 2\)"),
        (np.zeros(8), ValueError, r"\(8,\)"),
        (np.zeros((0, 8)), ValueError, "empty"),
        (np.zeros((4, 0, 3), np.uint8), ValueError, "empty"),
        (np.zeros((2, 2), complex), TypeError, "complex128"),
        (np.array([["a"]]), TypeError, "dtype"),
        (b"x.jpg", TypeError, "bytes"),
        (None, TypeError, "NoneType"),
        ([[0, 1]], TypeError, "list"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(image, error, words):
    with pytest.raises(error, match=words) as caught:
        load(image)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_an_error_for_a_truncated_file_names_it(tmp_path, suffix):
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    for image in (path, str(path)):
        with pytest.raises(OSError, match=f"cut.{suffix}"):
            load(image)
    if suffix != "tif":
        with pytest.raises(OSError, match=f"cut.{suffix}"):
            load(Image.open(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a pipe with a name, as POSIX knows it")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    for read in (load, size):
        with pytest.raises(OSError, match=r"pipe\.jpg: it is a pipe or a device; expected a file"):
            read(tmp_path / "pipe.jpg")


def test_an_empty_file_and_a_url_say_what_they_are(tmp_path):
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(OSError, match=r"empty\.jpg: the file is empty"):
        load(tmp_path / "empty.jpg")
    with pytest.raises(OSError, match=r"example\.org/a\.jpg: .* URLs are not read"):
        load("https://example.org/a.jpg")


def test_errors_for_a_missing_file_and_a_text_file_name_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        load(tmp_path / "gone.jpg")
    (tmp_path / "words.jpg").write_text("no picture")
    with pytest.raises(
        OSError, match=r"cannot read image .*words\.jpg: it is not an image of a format that Pillow reads"
    ):
        load(tmp_path / "words.jpg")


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="pillow-heif is installed")
def test_a_format_that_needs_a_plugin_names_it(tmp_path):
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(OSError, match=r"x\.heic: Pillow reads \.heic with a plugin: pip install pillow-heif"):
        load(tmp_path / "x.heic")


# Resizing


def imresize_weights(old, new):
    """MATLAB's antialiased bicubic as a matrix: Keys' kernel with a = -1/2, widened by the shrinking factor."""

    def keys(t):
        t = abs(t)
        return 1.5 * t**3 - 2.5 * t**2 + 1 if t <= 1 else -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2 if t < 2 else 0

    scale = new / old
    weights = np.array([[keys((i - ((o + 0.5) / scale - 0.5)) * scale) for i in range(old)] for o in range(new)])
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_shrinking_is_antialiased_bicubic_without_a_shift(channels):
    image = np.random.default_rng(1).random((40, 31, *channels), np.float32)
    small = resize_to_height(image, 24)
    assert small.shape == (24, 19, *channels) and small.dtype == np.float32  # 31 · 24 / 40 = 18.6
    rows, cols = imresize_weights(40, 24), imresize_weights(31, 19)
    expected = np.clip(np.einsum("oh,pw,hw...->op...", rows, cols, image), 0, 1)
    np.testing.assert_allclose(small, expected, atol=2e-6)


def test_resampling_overshoot_is_clipped():
    image = np.zeros((60, 60), np.uint8)
    image[20:40, 20:40] = 255
    small = resize_to_height(image, 31)
    assert small.min() == 0 and small.max() == 1


@pytest.mark.parametrize("max_height", [None, 12, 13])
def test_an_image_below_max_height_is_not_resized(max_height):
    image = np.random.default_rng(2).integers(256, size=(12, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_to_height(image, max_height), image / np.float32(255))


def test_colour_is_resized_before_it_becomes_grey():
    # Clipping each channel's overshoot is not linear, so the order shows.
    image = np.zeros((60, 60, 3), np.uint8)
    image[20:40, 20:40, 0] = 255
    image[:20, :, 1] = 255
    small = resize_to_height(image, 31)
    expected = small @ np.array([0.2989, 0.5870, 0.1140])
    np.testing.assert_allclose(grey(image, 31), expected, atol=1e-6)
    assert np.abs(resize_to_height(grey(image), 31) - expected).max() > 1e-3


def test_a_very_narrow_image_keeps_at_least_one_column():
    assert resize_to_height(np.zeros((1000, 1), np.uint8), 10).shape == (10, 1)


def test_max_height_below_one_pixel_is_refused():
    with pytest.raises(ValueError, match="max_height is 0"):
        grey(MARKED, max_height=0)


# Heatmaps back


def overlaps(old, new):
    """The share of old pixel i that new pixel o covers, from the definition: exact fractions of the unit interval."""

    def covered(i, o):
        start = max(Fraction(o, new), Fraction(i, old))
        stop = min(Fraction(o + 1, new), Fraction(i + 1, old))
        return float(max(stop - start, Fraction(0)) * old)

    return np.array([[covered(i, o) for i in range(old)] for o in range(new)])


sizes = st.integers(1, 40)
maps = st.tuples(sizes, sizes).flatmap(
    lambda shape: arrays(np.float64, shape, elements=st.floats(-1e6, 1e6, allow_subnormal=False))
)


@settings(max_examples=60, deadline=None)
@given(maps, sizes, sizes)
def test_resampling_keeps_the_sum(heatmap, height, width):
    out = resample_conserving(heatmap, (height, width))
    assert out.shape == (height, width)
    assert abs(out.sum() - heatmap.sum()) <= 1e-12 * np.abs(heatmap).sum()


@settings(max_examples=60, deadline=None)
@given(maps, sizes, sizes)
def test_resampling_commutes_with_mirroring(heatmap, height, width):
    out = resample_conserving(heatmap, (height, width))
    scale = 1e-12 * np.abs(heatmap).sum()
    np.testing.assert_allclose(resample_conserving(heatmap[::-1], (height, width)), out[::-1], rtol=0, atol=scale)
    np.testing.assert_allclose(resample_conserving(heatmap[:, ::-1], (height, width)), out[:, ::-1], rtol=0, atol=scale)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, sizes, sizes)
def test_a_flat_map_stays_flat(height, width, new_height, new_width):
    out = resample_conserving(np.ones((height, width)), (new_height, new_width))
    np.testing.assert_allclose(out, height * width / (new_height * new_width), rtol=1e-13)


@pytest.mark.parametrize("shape", [(7, 5), (3, 11), (10, 20), (23, 6), (1, 1)])
def test_resampling_is_the_overlap_of_areas(shape):
    heatmap = np.random.default_rng(3).normal(size=(10, 13))
    expected = overlaps(10, shape[0]) @ heatmap @ overlaps(13, shape[1]).T
    np.testing.assert_allclose(resample_conserving(heatmap, shape), expected, atol=1e-13)


def test_a_stack_of_maps_is_resampled_map_by_map():
    stack = np.random.default_rng(4).normal(size=(2, 3, 6, 8))
    out = resample_conserving(stack, (9, 5))
    assert out.shape == (2, 3, 9, 5)
    np.testing.assert_array_equal(out[1, 2], resample_conserving(stack[1, 2], (9, 5)))


@pytest.mark.parametrize(
    ("heatmap", "shape"), [(np.ones(3), (1, 1)), (np.ones((0, 3)), (1, 1)), (np.ones((2, 2)), (0, 3))]
)
def test_maps_without_pixels_are_refused(heatmap, shape):
    with pytest.raises(ValueError, match="at least 1 x 1"):
        resample_conserving(heatmap, shape)
