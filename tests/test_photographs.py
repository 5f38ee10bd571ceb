"""Photographs that a user names: files, folders, patterns, lists; what is skipped is counted."""

import io
import os

import pytest

from fvlrp.data import photographs
from fvlrp.data.photographs import File, find


@pytest.fixture
def here(tmp_path, monkeypatch):
    for name in ("b/2.jfif", "b/1.PNG", "b/c/3.heic", "b/notes.txt", "b/.hidden.png", "b/.git/4.png", "a.avif", "x.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def paths(found):
    return [file.path for file in found.photographs]


def test_a_folder_expands_to_all_photographs_in_and_below_it(here):
    found = find(["b"])
    assert found.photographs == [File("b/1.PNG", ""), File("b/2.jfif", ""), File("b/c/3.heic", "c")]
    assert found.account() == "skipped 1 file that is not a photograph (.txt 1)"


def test_a_named_file_is_kept_whatever_its_suffix(here):
    assert paths(find(["x.py", "gone.jpg"])) == ["x.py", "gone.jpg"]


@pytest.mark.parametrize(
    ("pattern", "wanted"), [("b/*", ["b/1.PNG", "b/2.jfif"]), ("**/*.heic", ["b/c/3.heic"]), ("[ab].*", ["a.avif"])]
)
def test_a_pattern_expands_to_its_matches(here, pattern, wanted):
    assert paths(find([pattern])) == wanted


def test_a_file_name_with_glob_characters_is_taken_literally(here):
    (here / "[ab].png").write_bytes(b"")
    assert paths(find(["[ab].png"])) == ["[ab].png"]


@pytest.mark.parametrize("source", ["@list.txt", "-"])
def test_a_list_has_a_name_per_line(here, monkeypatch, source):
    text = "a.avif\n\nb/c\n b 5.jpg\n"
    (here / "list.txt").write_text("\ufeff" + text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    found = find([source])
    assert found.photographs == [File("a.avif"), File("b/c/3.heic"), File(" b 5.jpg")]


def test_names_in_lists_may_hold_any_bytes_but_ends_of_lines(here, monkeypatch):
    (here / "list.txt").write_bytes("a\u2028b.jpg\r\n".encode() + b"\xff.jpg\n")
    assert paths(find(["@list.txt"])) == ["a\u2028b.jpg", os.fsdecode(b"\xff.jpg")]


def test_what_is_no_list_says_so(here, monkeypatch):
    (here / "photo.jpg").write_bytes(b"\xff\xd8\0\0")
    with pytest.raises(ValueError, match=r"list photo\.jpg is not text"):
        find(["@photo.jpg"])
    with pytest.raises(OSError, match="cannot read the list gone: No such file"):
        find(["@gone"])
    with pytest.raises(ValueError, match='a photograph is named ""'):
        find([""])
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(OSError, match="standard input is closed"):
        find(["-"])


def test_a_photograph_listed_twice_is_explained_once(here):
    found = find(["a.avif", "./a.avif", str(here / "b"), "b/1.PNG"])
    assert len(found.photographs) == 4 and found.repeated == 2
    assert found.account().endswith("2 photographs named more than once")


@pytest.mark.skipif(os.name != "posix", reason="links to folders")
def test_links_to_folders_are_followed_without_cycles(here):
    (here / "b" / "c" / "up").symlink_to(here / "b", target_is_directory=True)
    (here / "linked").symlink_to(here / "b" / "c", target_is_directory=True)
    assert paths(find(["linked"]))[0] == "linked/3.heic"
    assert paths(find(["b"])) == ["b/1.PNG", "b/2.jfif", "b/c/3.heic"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("empty", "folder empty contains no photographs"),
        (
            "texts",
            r"folder texts contains no photographs: skipped 2 files that are not photographs \(no suffix 1, .txt 1\)",
        ),
        ("*.jpg", r"no photograph matches \*\.jpg"),
        ("@nothing", "no photographs were named"),
    ],
)
def test_names_without_photographs_are_refused(here, name, words):
    (here / "empty").mkdir()
    (here / "texts").mkdir()
    (here / "texts" / "a.txt").write_text("")
    (here / "texts" / "README").write_text("")
    (here / "nothing").write_text("\n")
    with pytest.raises(ValueError, match=words):
        find([name])
    with pytest.raises(FileNotFoundError, match="gone"):
        find(["@gone"])


@pytest.mark.parametrize("name", ["x.JPG", "x.jfif", "x.avif", "x.heic", "x.jpe", "x.jp2", "x.tiff"])
def test_photograph_suffixes_are_recognised(name):
    assert photographs.is_photograph(name) and not photographs.is_photograph(name + ".txt")
