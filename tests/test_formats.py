"""DICOM and TIFF files beyond what Pillow reads, against files that their own libraries write."""

import numpy as np
import pytest

from fvlrp import images
from fvlrp.data import formats, spooled
from fvlrp.fisher import sift

GREY = (np.arange(60 * 70).reshape(60, 70) * 15 % 4096).astype(np.uint16)


def dicom(path, values, **elements):
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = SecondaryCaptureImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    frames, shape = (1, values.shape) if values.ndim == 2 else (len(values), values.shape[1:])
    file.Rows, file.Columns, file.SamplesPerPixel = *shape, 1
    file.PhotometricInterpretation = "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    file.PixelRepresentation = 0
    if frames > 1:
        file.NumberOfFrames = frames
    file.PixelData = values.tobytes()
    for name, value in elements.items():
        setattr(file, name, value)
    pydicom.dcmwrite(path, file)
    return path


def test_a_window_is_applied(tmp_path):
    """PS3.3 C.11.2.1.2.1: black at centre - 0.5 - (width - 1) / 2, white at centre - 0.5 + (width - 1) / 2."""
    path = dicom(tmp_path / "a.dcm", GREY, WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=-1024)
    units = GREY.astype(float) - 1024
    expected = np.clip(((units - 39.5) / 399) + 0.5, 0, 1)
    np.testing.assert_allclose(images.load(path), expected, atol=1e-6)
    assert images.size(path) == (60, 70)
    wide = images.load(path, range=(-1024, 3071))
    np.testing.assert_allclose(wide, GREY / 4095, atol=1e-6)


def test_monochrome1_is_inverted_and_without_a_window_the_range_is_stretched(tmp_path):
    plain = images.load(dicom(tmp_path / "a.dcm", GREY))
    np.testing.assert_allclose(plain, (GREY - GREY.min()) / np.ptp(GREY.astype(int)), atol=1e-6)
    inverted = images.load(dicom(tmp_path / "b.dcm", GREY, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-6)
    np.testing.assert_allclose(images.load(tmp_path / "b.dcm", range=(0, 4095)), 1 - GREY / 4095, atol=1e-6)


def test_frames_are_pages(tmp_path):
    path = dicom(tmp_path / "a.dcm", np.stack([GREY, GREY[::-1]]))
    with pytest.warns(UserWarning, match="2 frames"):
        first = images.load(path)
    np.testing.assert_array_equal(images.load(path, page=1), first[::-1])
    with pytest.raises(OSError, match=r"a\.dcm: it has no page 2"):
        images.load(path, page=2)


def test_a_damaged_file_is_named(tmp_path):
    pytest.importorskip("pydicom")
    path = dicom(tmp_path / "a.dcm", GREY)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(OSError, match=r"cannot read image .*a\.dcm: "):
        images.load(path)


def test_dicom_without_pydicom_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.dcm").write_bytes(b"x")
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(ImportError, match=r"a\.dcm: DICOM files need pydicom: pip install 'fvlrp\[dicom\]'"):
        images.load(tmp_path / "a.dcm")


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"bigtiff": True}, {"planarconfig": "separate"}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_files_keep_their_depth(tmp_path, options, dtype):
    tifffile = pytest.importorskip("tifffile")
    colour = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (50, 60, 3), endpoint=True).astype(dtype)
    given = np.moveaxis(colour, -1, 0) if "planarconfig" in options else colour
    tifffile.imwrite(tmp_path / "a.tif", given, photometric="rgb", **options)
    expected = colour if dtype is np.uint8 else (colour / np.float32(65535)).astype(np.float32)
    np.testing.assert_allclose(images.load(tmp_path / "a.tif"), expected, rtol=1e-6)
    assert images.size(tmp_path / "a.tif") == (50, 60)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_that_of_pillow(tmp_path, orientation):
    tifffile = pytest.importorskip("tifffile")
    colour = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    tags = [(274, "H", 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb", extratags=tags)
    tifffile.imwrite(tmp_path / "b.tif", colour, photometric="rgb", extratags=tags, bigtiff=True)
    assert formats.read(tmp_path / "a.tif", 0) is None
    np.testing.assert_array_equal(images.load(tmp_path / "b.tif"), images.load(tmp_path / "a.tif"))


LARGE_FILES = {
    "tiles of 16 bits": {"tile": (16, 16), "compression": "zlib"},
    "strips of 3 rows": {"rowsperstrip": 3},
    "one strip": {},
    "planes": {"planarconfig": "separate", "tile": (16, 16)},
    "upside down": {"extratags": [(274, "H", 1, 3, True)]},
    "other byte order": {"byteorder": ">"},
}


@pytest.fixture
def in_bands(monkeypatch):
    """Calls a function that treats every image as a large one, a few rows at a time."""

    def call(function):
        with monkeypatch.context() as patch:
            patch.setattr(spooled, "LARGE", 100)
            patch.setattr(spooled, "BAND", 700)
            return function()

    return call


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", LARGE_FILES.values(), ids=LARGE_FILES)
def test_a_large_tiff_is_decoded_into_a_file(tmp_path, in_bands, options, dtype, grey):
    tifffile = pytest.importorskip("tifffile")
    shape = (50, 60) if grey else (3, 50, 60) if "planarconfig" in options else (50, 60, 3)
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    options = {name: option for name, option in options.items() if not grey or name != "planarconfig"}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, photometric="minisblack" if grey else "rgb", **options)
    expected = images.load(path)
    assert isinstance(in_bands(lambda: formats.read(path, 0)), np.memmap)
    found = in_bands(lambda: images.load(path))
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype and isinstance(found, np.memmap)
    np.testing.assert_array_equal(in_bands(lambda: images.rgb(path)), images.rgb(path))


@pytest.mark.parametrize("elements", [{}, {"PhotometricInterpretation": "MONOCHROME1"}, {"WindowCenter": 900}])
def test_a_large_dicom_file_is_read_in_bands(tmp_path, in_bands, elements):
    window = {"WindowWidth": 400, "RescaleSlope": 2, "RescaleIntercept": -7} if "WindowCenter" in elements else {}
    path = dicom(tmp_path / "a.dcm", GREY, **elements, **window)
    for range in (None, (100, 3000)):
        found = in_bands(lambda range=range: images.load(path, range=range))
        np.testing.assert_array_equal(found, images.load(path, range=range))
        assert isinstance(found, np.memmap)


def test_an_explanation_of_a_large_tiff_equals_that_of_the_array(tmp_path, in_bands, plain, photo, monkeypatch):
    tifffile = pytest.importorskip("tifffile")
    monkeypatch.setattr(plain, "max_height", None)
    deep = images.rgb(photo).astype(np.uint16) * 257 + 3
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="rgb", tile=(16, 16), compression="zlib")

    def explain():
        with monkeypatch.context() as patch:
            patch.setattr(sift, "WHOLE", 0)
            patch.setattr(sift, "STRIP", 700)
            return plain.trace(tmp_path / "a.tif", "float64").explain("brick", "bin")

    whole, parts = plain.trace(deep, "float64").explain("brick", "bin"), in_bands(explain)
    np.testing.assert_allclose(parts.heatmap, whole.heatmap, rtol=0, atol=1e-10 * np.abs(whole.heatmap).max())
    assert abs(parts.score - whole.score) < 1e-10


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3)])
def test_a_file_of_an_array_is_that_array(tmp_path, shape):
    values = np.random.default_rng(0).uniform(size=shape).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.testing.assert_array_equal(images.load(tmp_path / "a.npy"), values)
    assert images.size(tmp_path / "a.npy") == (20, 30)


def test_files_of_other_arrays_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(5))
    with pytest.raises(OSError, match=r"a\.npy: it holds an array of shape \(5,\); expected \(height, width, \.\.\.\)"):
        images.size(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([["x"]], object), allow_pickle=True)
    with pytest.raises(OSError, match=r"b\.npy: .*allow_pickle=False"):
        images.load(tmp_path / "b.npy")
