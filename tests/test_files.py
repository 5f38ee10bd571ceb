"""Files out: whole or absent, the same bytes for the same content, read back exactly or refused, never executed."""

import errno
import hashlib
import io
import json
import os
import pickle
import stat
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from fvlrp.data import files
from fvlrp.data.files import atomic_write, discard_unfinished, hold, load_arrays, remove_abandoned, save_arrays

posix = pytest.mark.skipif(os.name != "posix", reason="permissions, links and devices as POSIX knows them")


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "x.fvlrp"
    save_arrays(
        path, {"kind": "toy", "epsilon": 0.1}, {"w": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "é"])}
    )
    return path


def rewritten(path, change):
    """The same archive with its JSON document changed, everything else consistent."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(members["header.json"])
    change(document, members)
    members["header.json"] = json.dumps(document).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


# Atomic writing


@pytest.mark.parametrize("name", ["x.fvlrp", "x", "x.npz", "ä ö.png"])
def test_a_file_gets_exactly_its_name(tmp_path, name):
    with atomic_write(tmp_path / name) as file:
        file.write(b"new")
        assert not (tmp_path / name).exists()
    assert os.listdir(tmp_path) == [name]
    assert (tmp_path / name).read_bytes() == b"new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_keeps_the_old_file_and_leaves_no_other(tmp_path, error):
    path = tmp_path / "x.fvlrp"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_write(path) as file:
        file.write(b"half")
        raise error
    assert os.listdir(tmp_path) == ["x.fvlrp"]
    assert path.read_bytes() == b"old"


@posix
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_a_new_file_has_the_permissions_of_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with atomic_write(tmp_path / "x"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(tmp_path / "x").st_mode) == mode


@posix
def test_a_replaced_file_keeps_its_permissions(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with atomic_write(path) as file:
        file.write(b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@posix
def test_saving_through_a_symbolic_link_keeps_the_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "x")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder" / "x").read_bytes() == b"new"


def test_a_missing_folder_and_a_folder_as_target_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic_write(tmp_path / "nowhere" / "x"):
        pass
    with pytest.raises(IsADirectoryError, match="it is a folder"), atomic_write(tmp_path):
        pass


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(OSError, match=r"^cannot write .*x: No space left"), atomic_write(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to_names_the_file(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "temporary")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match=r"^cannot write .*x: Permission denied$"), atomic_write(tmp_path / "x"):
        pass


@posix
def test_writing_to_a_device_does_not_replace_it():
    with pytest.raises(OSError, match="not a regular file"), atomic_write(os.devnull):
        pass


def killed_while_writing(folder):
    """What a process leaves that is killed inside atomic_write."""
    code = (
        "import os, signal, sys\n"
        "from fvlrp.data.files import atomic_write\n"
        "with atomic_write(sys.argv[1] + '/x') as file:\n"
        "    file.write(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=False)
    return os.listdir(folder)


@posix
def test_temporary_files_of_a_killed_writer_are_removed_and_others_kept(tmp_path):
    (left,) = killed_while_writing(tmp_path)
    assert left.startswith(".") and left.endswith(".tmp")
    (tmp_path / ".other.tmp").write_bytes(b"not ours")
    with atomic_write(tmp_path / "y") as file:
        file.write(b"whole")
        assert remove_abandoned(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == [".other.tmp", "y"] and (tmp_path / "y").read_bytes() == b"whole"
    assert remove_abandoned(tmp_path) == 0


@posix
def test_a_file_about_to_take_its_place_is_not_taken_for_abandoned(tmp_path, monkeypatch):
    """As by another process that begins to write into the same folder at that moment."""
    replace = os.replace

    def beside_another(source, target):
        assert remove_abandoned(tmp_path) == 0
        replace(source, target)

    monkeypatch.setattr(os, "replace", beside_another)
    with atomic_write(tmp_path / "a") as file:
        file.write(b"abc")
    assert (tmp_path / "a").read_bytes() == b"abc" and os.listdir(tmp_path) == ["a"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs the list of open files in /proc")
def test_files_are_closed_before_they_are_renamed_where_open_ones_cannot_be(tmp_path, monkeypatch):
    """As on Windows."""
    replace, renamed = os.replace, []

    def refuse_open_files(source, target):
        links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
        assert os.path.realpath(source) not in map(os.path.realpath, links)
        replace(source, target)
        renamed.append(str(target))

    monkeypatch.setattr(files, "_CLOSES_FIRST", True)
    monkeypatch.setattr(os, "replace", refuse_open_files)
    with atomic_write(tmp_path / "a") as file:
        file.write(b"abc")
    hold(tmp_path / ".0123456789abcdef.tmp", b"claimed").become(tmp_path / "b", b"record")
    hold(tmp_path / ".0123456789abcdef.tmp", b"claimed again").discard()
    assert renamed == [str(tmp_path / name) for name in "ab"] and sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "b").read_bytes() == b"record"


@posix
def test_a_held_file_whose_making_was_interrupted_is_discarded(tmp_path, monkeypatch):
    made = os.open

    def interrupted(*args):
        os.close(made(*args))
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        hold(tmp_path / ".0123456789abcdef.tmp", b"x")
    monkeypatch.undo()
    assert os.listdir(tmp_path)
    discard_unfinished()
    assert not os.listdir(tmp_path)


def test_discarding_unfinished_files_removes_them(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "x"):
        discard_unfinished()
        assert not os.listdir(tmp_path)
    assert not os.listdir(tmp_path)


# Hostile archives


def bomb(path, shape):
    """A consistent file of zeros that unpacks to 1000 times its size."""
    save_arrays(path, {"kind": "toy"}, {"w": np.zeros(shape, np.float32)}, compress=True)
    return path


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path):
    path = bomb(tmp_path / "x.fvlrp", (100 << 20) // 4)
    assert path.stat().st_size < 200_000
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"x\.fvlrp is damaged: its member w\.npy unpacks from \d+ to 104857728 bytes"):
        load_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_small_arrays_of_zeros_may_be_packed_well(tmp_path):
    assert load_arrays(bomb(tmp_path / "x.fvlrp", 100_000))[1]["w"].shape == (100_000,)


@pytest.mark.parametrize("shape", [[1], [-6], [2, 3.0], ["6"], [10**9, 10**9]])
def test_an_archive_member_whose_size_contradicts_its_header_is_refused(saved, shape):
    rewritten(saved, lambda document, members: document["arrays"]["w"].update(shape=shape))
    with pytest.raises(ValueError, match="is damaged"):
        load_arrays(saved)


def test_a_header_that_is_no_json_is_refused(saved):
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(saved, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data[:-1] if name == "header.json" else data)
    with pytest.raises(ValueError, match="is damaged: its header is not JSON"):
        load_arrays(saved)


@posix
def test_a_file_that_cannot_be_held_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*gone/lock"):
        hold(tmp_path / "gone" / "lock", b"mine")


@posix
def test_a_held_file_whose_target_became_a_folder_is_named_and_given_up(tmp_path):
    held = hold(tmp_path / "lock", b"mine")
    (tmp_path / "whole").mkdir()
    with pytest.raises(OSError, match=r"cannot write .*whole"):
        held.become(tmp_path / "whole", b"done")
    assert os.listdir(tmp_path) == ["whole"]


def test_an_oversized_header_is_refused(saved):
    with zipfile.ZipFile(saved, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", b" " * (65 << 20))
    with pytest.raises(ValueError, match=r"truncated or damaged: its member header\.json unpacks to"):
        load_arrays(saved)


# Arrays and header


dtypes = st.sampled_from(["?", "u1", "<i2", ">i4", "<i8", "<f2", "<f4", ">f8", "<U3"])
values = dtypes.flatmap(
    lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), fill=st.nothing())
)
words = st.text(st.characters(exclude_characters="\\\0", exclude_categories=["Cs"]), min_size=1, max_size=8)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
headers = st.dictionaries(
    st.text(), st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)
)


@settings(max_examples=60, deadline=None)
@given(headers, st.dictionaries(words, values, max_size=4), st.booleans())
def test_a_round_trip_returns_equal_arrays(tmp_path_factory, header, content, compress):
    path = tmp_path_factory.mktemp("round") / "x.fvlrp"
    header["kind"] = "toy"
    save_arrays(path, header, content, compress=compress)
    back, found = load_arrays(path, kind="toy")
    assert back == header
    assert list(found) == sorted(content)
    for name, array in content.items():
        assert found[name].dtype == array.dtype.newbyteorder("<") and found[name].flags.writeable
        np.testing.assert_array_equal(found[name], array, strict=False)
        assert found[name].shape == array.shape


def test_numpy_can_read_the_file(saved):
    with np.load(saved, allow_pickle=False) as file:
        np.testing.assert_array_equal(file["w"], [[0, 1, 2], [3, 4, 5]])
        assert json.loads(file["header.json"])["header"] == {"kind": "toy", "epsilon": 0.1}


@pytest.mark.parametrize("compress", [False, True])
def test_the_same_content_gives_the_same_bytes(tmp_path, compress):
    matrix = np.random.default_rng(0).normal(size=(5, 7))
    one = {"a": matrix, "b": np.arange(3, dtype="<i4")}
    two = {"b": np.arange(3, dtype=">i4"), "a": np.asfortranarray(matrix)}
    save_arrays(tmp_path / "1", {"kind": "toy", "n": 1}, one, compress=compress)
    save_arrays(tmp_path / "2", {"n": np.int64(1), "kind": "toy"}, two, compress=compress)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    with zipfile.ZipFile(tmp_path / "1") as archive:
        facts = {(info.date_time, info.create_system, info.external_attr) for info in archive.infolist()}
    assert facts == {((1980, 1, 1, 0, 0, 0), 3, 0o644 << 16)}


def test_higher_compression_levels_give_smaller_files(tmp_path):
    for compress in (False, True):
        save_arrays(tmp_path / str(compress), {"kind": "toy"}, {"a": np.zeros(10_000)}, compress=compress)
    assert (tmp_path / "True").stat().st_size < (tmp_path / "False").stat().st_size / 20


@pytest.mark.parametrize(
    ("header", "content", "error", "words"),
    [
        ({}, {}, ValueError, "kind"),
        ({"kind": 3}, {}, ValueError, "kind"),
        ({"kind": "toy", "x": float("nan")}, {}, ValueError, "JSON"),
        ({"kind": "toy", "x": np.zeros(2)}, {}, TypeError, "put arrays among the arrays"),
        ({"kind": "toy"}, {"a": np.array([{}])}, ValueError, "dtype object"),
        ({"kind": "toy"}, {"a": np.zeros(1, "f4,i4")}, ValueError, "dtype"),
        ({"kind": "toy"}, {"": np.zeros(1)}, ValueError, "name"),
        ({"kind": "toy"}, {"a\\b": np.zeros(1)}, ValueError, "name"),
    ],
)
def test_values_that_could_not_be_read_back_are_not_written(tmp_path, header, content, error, words):
    with pytest.raises(error, match=words):
        save_arrays(tmp_path / "x", header, content)
    assert os.listdir(tmp_path) == []


# Files that must be refused


def test_a_missing_file_is_an_oserror(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        load_arrays(tmp_path / "gone.fvlrp")


def test_every_truncation_is_refused(saved):
    whole = saved.read_bytes()
    for length in range(len(whole)):
        saved.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"x\.fvlrp"):
            load_arrays(saved)


@pytest.mark.parametrize("compress", [False, True])
def test_every_damaged_byte_is_refused_or_harmless(tmp_path, compress):
    path = tmp_path / "x.fvlrp"
    content = np.arange(6.0)
    save_arrays(path, {"kind": "toy", "epsilon": 0.1}, {"w": content}, compress=compress)
    whole = path.read_bytes()
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            header, found = load_arrays(path)
        except ValueError as error:
            refused += 1
            assert "x.fvlrp" in str(error) and "\n" not in str(error)
        else:  # A time stamp or the like.
            assert header == {"kind": "toy", "epsilon": 0.1}
            np.testing.assert_array_equal(found["w"], content)
    assert refused > 0.7 * len(whole)


@pytest.mark.parametrize("content", [b"", b"words", b"\x80\x04N.", pickle.dumps(np.arange(3))])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match="is not an fvlrp file"):
        load_arrays(tmp_path / "x")


def test_a_plain_npz_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.arange(3))
    with pytest.raises(ValueError, match="is not an fvlrp file"):
        load_arrays(tmp_path / "x.npz")


def other_checksum(document, members):
    members["w.npy"] = members["w.npy"][:-1] + b"\x41"


def other_shape(document, members):
    document["arrays"]["w"]["shape"] = [3, 2]


def other_dtype(document, members):
    document["arrays"]["w"]["dtype"] = "<i8"


def lost_member(document, members):
    del members["w.npy"]


def extra_member(document, members):
    members["v.npy"] = members["w.npy"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda document, _: document.update(format="other"), "is not an fvlrp file"),
        (lambda document, _: document.update(version=2), "install a newer fvlrp"),
        (lambda document, _: document.update(version="1"), "damaged"),
        (lambda document, _: document.update(version=True), "damaged"),
        (lambda document, _: document.update(arrays=[]), "damaged"),
        (lambda document, _: document["header"].pop("kind"), "damaged"),
        (lambda document, _: document["arrays"]["w"].pop("sha256"), "damaged"),
        (other_checksum, "checksum"),
        (other_shape, "damaged"),
        (other_dtype, "damaged"),
        (lost_member, "members"),
        (extra_member, "members"),
    ],
)
def test_a_file_whose_header_contradicts_its_arrays_is_refused(saved, change, words):
    with pytest.raises(ValueError, match=words) as caught:
        load_arrays(rewritten(saved, change))
    assert "x.fvlrp" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("claimed", ["|O", "<f8"])
def test_a_pickle_inside_is_never_executed(saved, claimed):
    class Bomb:
        def __reduce__(self):
            return exec, ("import sys; sys.fvlrp_was_executed = True",)

    def plant(document, members):
        data = io.BytesIO()
        np.save(data, np.array([Bomb()], dtype=object), allow_pickle=True)
        members["w.npy"] = data.getvalue()
        document["arrays"]["w"] = {
            "dtype": claimed,
            "shape": [1],
            "sha256": hashlib.sha256(data.getvalue()).hexdigest(),
        }

    with pytest.raises(ValueError, match="damaged"):
        load_arrays(rewritten(saved, plant))
    assert not hasattr(sys, "fvlrp_was_executed")


def test_kinds_of_files_are_distinguished(saved):
    assert load_arrays(saved, kind="toy")[0]["kind"] == "toy"
    assert load_arrays(saved, kind=("other", "toy"))[0]["kind"] == "toy"
    with pytest.raises(ValueError, match=r"x\.fvlrp holds kind 'toy'; expected explanation"):
        load_arrays(saved, kind="explanation")
    with pytest.raises(ValueError, match="expected convnet or explanation"):
        load_arrays(saved, kind=("convnet", "explanation"))
