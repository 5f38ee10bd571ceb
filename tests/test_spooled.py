"""Pixels of large images are converted band by band, into temporary files: the same bits."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fvlrp import images
from fvlrp.data import spooled

RNG = np.random.default_rng(0)
ARRAYS = {
    "bool": RNG.random((40, 50)) < 0.5,
    "uint8": RNG.integers(0, 256, (40, 50, 3), np.uint8),
    "uint8 with alpha": RNG.integers(0, 256, (40, 50, 4), np.uint8),
    "uint16": RNG.integers(0, 65536, (40, 50, 3), np.uint16),
    "uint16 with alpha": RNG.integers(0, 65536, (40, 50, 4), np.uint16),
    "one channel": RNG.integers(0, 65536, (40, 50, 1), np.uint16),
    "int64": RNG.integers(0, 256, (40, 50)),
    "float32": RNG.random((40, 50, 3), np.float32),
    "float64": RNG.random((40, 50, 3)),
    "float64 beyond 1 by rounding": RNG.random((40, 50)) * (1 + 1e-6),
}


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(spooled, "LARGE", 100)
    monkeypatch.setattr(spooled, "BAND", 400)


# Masks and transparency have no `range=`.
RANGED = [name for name, values in ARRAYS.items() if values.dtype != bool and values.shape[-1] != 4]


@pytest.mark.parametrize(
    ("name", "range"), [*((name, None) for name in ARRAYS), *((name, (3, 200)) for name in RANGED)]
)
def test_bands_are_the_same_bits_as_the_whole(request, name, range):
    values = ARRAYS[name]
    whole, picture = images.load(values, range=range), images.rgb(values)
    request.getfixturevalue("small")
    parts = images.load(values, range=range)
    assert parts.dtype == whole.dtype
    np.testing.assert_array_equal(parts, whole)
    np.testing.assert_array_equal(images.rgb(values), picture)


def test_what_needs_no_conversion_is_not_copied():
    for name in ("uint8", "float32"):
        assert np.shares_memory(images.load(ARRAYS[name]), ARRAYS[name])


def test_large_values_are_checked_in_every_band(small):
    values = ARRAYS["float64"].copy()
    values[37, 3, 1] = np.nan
    with pytest.raises(ValueError, match="1 values that are NaN"):
        images.load(values)
    values[37, 3, 1] = 1.1
    with pytest.raises(ValueError, match=r"floats from .* to 1\.1;"):
        images.load(values)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="no way to reserve the space of a file")
def test_a_full_temporary_folder_is_noticed_before_it_is_written_to(small, monkeypatch):
    values, expected = ARRAYS["uint16"], images.load(ARRAYS["uint16"].copy())
    assert isinstance(expected, np.memmap)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    found = images.load(values)
    assert not isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, expected)
    monkeypatch.setattr("fvlrp.runtime.limits.CERTAIN", 0)
    monkeypatch.setattr("fvlrp.runtime.limits.available", lambda: 10)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(MemoryError, match=f"the temporary folder {tempfile.gettempdir()} has no room for it"):
        images.load(values)


def test_released_pages_keep_their_values(tmp_path):
    np.save(tmp_path / "a.npy", ARRAYS["uint8"])
    for mode in ("r", "r+", "c"):
        mapped = np.load(tmp_path / "a.npy", mmap_mode=mode)
        if mode != "r":
            mapped[3, 4] = 7
        spooled.release(mapped)
        spooled.release(np.asarray(mapped)[:, ::-1])
        assert mode == "r" or (mapped[3, 4] == 7).all()
        np.testing.assert_array_equal(mapped[5:], ARRAYS["uint8"][5:])


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="the system does not say which pages are resident")
def test_pages_of_views_are_released():
    mapped = spooled.empty((1 << 20,), np.uint8)

    def resident():
        lines = iter(Path("/proc/self/smaps").read_text().splitlines())
        start = f"{mapped.ctypes.data:x}-"
        assert any(line.startswith(start) for line in lines)
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))

    mapped[:] = 1
    assert resident() == 1024
    spooled.release(np.asarray(mapped).reshape(4, -1)[1:])
    assert resident() == 0 and mapped.all()
