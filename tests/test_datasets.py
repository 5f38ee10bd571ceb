"""Data sets on disk: VOC's lists, labels and boxes as its devkit means them, and folders as classes."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fvlrp.data.datasets import folder, open_dataset, voc

DATA = os.environ.get("FVLRP_DATA")
needs_voc = pytest.mark.skipif(DATA is None, reason="FVLRP_DATA names no folder with VOCdevkit")

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


def annotation(*things):
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin>"
        f"<xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>"
        "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"
        for name, difficult, box in things
    )
    return f"<annotation><filename>x.jpg</filename>{objects}</annotation>"


@pytest.fixture
def devkit(tmp_path):
    """Three photographs; dog and train have lists for the split train, only train has one for val."""
    year = tmp_path / "VOCdevkit" / "VOC2012"
    main = year / "ImageSets" / "Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("b\na\n")
    (main / "val.txt").write_text("c\n\n")
    (main / "dog_train.txt").write_text("b  1\na -1\n")
    (main / "train_train.txt").write_text("b -1\na  0\n")
    (main / "train_val.txt").write_text("c  1\n")
    (year / "JPEGImages").mkdir()
    (year / "Annotations").mkdir()
    things = {
        "a": [("train", 1, (1, 2, 10, 20))],
        "b": [("dog", 0, (1, 1, 500, 375)), ("dog", 1, ("45.7", 3, 60, 4)), ("cat", 0, (1, 1, 2, 2))],
        "c": [("dog", 1, (5, 6, 7, 8)), ("train", 0, (5, 6, 7, 8))],
    }
    for name, listed in things.items():
        Image.new("L", (4, 3)).save(year / "JPEGImages" / f"{name}.jpg")
        (year / "Annotations" / f"{name}.xml").write_text(annotation(*listed))
    return year


@pytest.mark.parametrize("levels", [0, 1, 2])
def test_a_devkit_opens_from_its_year_folder_or_its_parent(devkit, levels):
    root = [devkit, devkit.parent, devkit.parent.parent][levels]
    data = open_dataset(root, "train")
    assert data.ids == ("b", "a") and len(data) == 2
    assert data.paths == (devkit / "JPEGImages" / "b.jpg", devkit / "JPEGImages" / "a.jpg")
    assert data.class_names == ("dog", "train")
    assert data.labels.dtype == np.int8 and not data.labels.flags.writeable
    np.testing.assert_array_equal(data.labels, [[1, -1], [-1, 0]])
    assert data.matrix is data.labels


def test_a_class_without_a_list_is_labelled_from_the_annotations(devkit):
    data = voc(devkit, "val")
    assert data.class_names == ("dog", "train")
    np.testing.assert_array_equal(data.labels, [[0, 1]])  # the only dog is difficult


def test_a_devkit_without_class_lists_is_labelled_from_the_annotations(devkit):
    for path in (devkit / "ImageSets" / "Main").glob("*_*.txt"):
        path.unlink()
    data = voc(devkit, "train")
    assert data.class_names == ("cat", "dog", "train")
    np.testing.assert_array_equal(data.labels, [[1, 1, -1], [-1, -1, 0]])


def test_a_devkit_with_class_lists_only_holds_the_photographs_they_list(devkit):
    (devkit / "ImageSets" / "Main" / "train.txt").unlink()
    assert voc(devkit, "train").ids == ("b", "a")


def test_boxes_are_0_based_half_open_and_rows_first(devkit):
    data = voc(devkit, "train")
    # xmin ymin xmax ymax, 1-based and inclusive, is (1, 1, 500, 375) for a whole photograph of 375 rows.
    assert data.boxes(0, "dog").dtype == np.int64
    np.testing.assert_array_equal(data.boxes(0, "dog"), [[0, 0, 375, 500], [2, 45, 4, 60]])
    np.testing.assert_array_equal(data.boxes(0, "dog", difficult=False), [[0, 0, 375, 500]])
    np.testing.assert_array_equal(data.boxes(1, "train"), [[1, 0, 20, 10]])
    assert data.boxes(0, "train").shape == (0, 4)
    assert [thing.name for thing in data.objects(0)] == ["dog", "dog", "cat"]
    assert [thing.difficult for thing in data.objects(0)] == [False, True, False]
    with pytest.raises(ValueError, match="no class 'cow'; the data has dog, train"):
        data.boxes(0, "cow")


def test_annotations_are_read_on_access(devkit):
    shutil.rmtree(devkit / "Annotations")
    data = voc(devkit, "train")
    with pytest.raises(FileNotFoundError, match=r"b\.xml"):
        data.boxes(0, "dog")


ENTITIES = """<!DOCTYPE annotation [<!ENTITY secret SYSTEM "{}">]>
<annotation><object><name>&secret;</name></object></annotation>"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotation><object>", "no element|unclosed"),
        ("", "no element"),
        (annotation(("dog", 0, (1, 1, "wide", 2))), "wide"),
        (annotation(("dog", 0, (1, 1, "inf", 2))), "infinity"),
        (annotation(("dog", 0, (9, 1, 2, 2))), "ends before it begins"),
        ("<annotation><object><name>dog</name></object></annotation>", "lacks <bndbox/"),
        (ENTITIES, "document type"),
        ('<!DOCTYPE a [<!ENTITY b "bb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>', "document type"),
    ],
)
def test_an_error_in_an_annotation_names_the_file(devkit, text, words):
    (devkit / "Annotations" / "b.xml").write_text(text)
    with pytest.raises(ValueError, match=rf"b\.xml is not a VOC annotation: .*({words})"):
        voc(devkit, "train").objects(0)


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("dog_train.txt", "b 1\n", r"dog_train\.txt has no line for a"),
        ("dog_train.txt", "b 1\na 2\n", r"dog_train\.txt has the label '2' for a"),
        ("dog_train.txt", "b\na\n", r"dog_train\.txt has the label '' for b"),
        ("train.txt", "b 1 2\n", r"train\.txt, line 1"),
        ("train.txt", "\n", "lists no photographs"),
    ],
)
def test_an_error_in_a_list_names_the_list(devkit, file, text, words):
    (devkit / "ImageSets" / "Main" / file).write_text(text)
    with pytest.raises(ValueError, match=words):
        voc(devkit, "train")


def test_missing_files_and_splits_are_named(devkit):
    with pytest.raises(FileNotFoundError, match=r"no folder .*gone"):
        open_dataset(devkit / "gone")
    with pytest.raises(ValueError, match="no split 'test'; it has train, val"):
        voc(devkit, "test")
    with pytest.raises(ValueError, match="name one of its splits, train, val"):
        open_dataset(devkit)
    with pytest.raises(ValueError, match="not a VOC devkit"):
        voc(devkit / "JPEGImages", "train")
    (devkit / "JPEGImages" / "a.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="lacks 1 of 2 photographs, first a"):
        voc(devkit, "train")
    shutil.copytree(devkit, devkit.with_name("VOC2007"))
    with pytest.raises(ValueError, match=r"several years: pass one of .*VOC2007, .*VOC2012"):
        voc(devkit.parent, "train")


@needs_voc
@pytest.mark.parametrize(("split", "n", "ignored"), [("train", 528, 48), ("val", 256, 17), ("trainval", 784, 65)])
def test_real_voc_has_its_photographs_and_classes(split, n, ignored):
    data = open_dataset(DATA, split)
    assert len(data) == n and all(path.is_file() for path in data.paths)
    assert data.class_names == VOC_CLASSES
    assert data.labels.shape == (n, 20) and (data.labels == 0).sum() == ignored
    assert (data.labels == 1).any(axis=0).all()


@needs_voc
def test_labels_from_real_annotations_are_those_of_the_lists(tmp_path):
    real = Path(DATA) / "VOCdevkit" / "VOC2012"
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for split in ("train", "val"):
        shutil.copy(real / "ImageSets" / "Main" / f"{split}.txt", tmp_path / "ImageSets" / "Main")
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / name).symlink_to(real / name, target_is_directory=True)
    for split in ("train", "val"):
        listed, derived = voc(real, split), voc(tmp_path, split)
        assert derived.class_names == listed.class_names
        np.testing.assert_array_equal(derived.labels, listed.labels)


@needs_voc
def test_real_boxes_lie_in_their_photographs_and_match_the_text():
    data = open_dataset(DATA, "val")
    for i in range(0, len(data), 16):
        text = (data.folder / "Annotations" / f"{data.ids[i]}.xml").read_text()
        with Image.open(data.paths[i]) as picture:
            width, height = picture.size
        expected = []
        for thing in re.findall(r"<object>.*?</object>", text, re.DOTALL):
            xmin, ymin, xmax, ymax = (
                int(re.search(rf"<{tag}>(\d+)</{tag}>", thing)[1]) for tag in ("xmin", "ymin", "xmax", "ymax")
            )
            expected.append((ymin - 1, xmin - 1, ymax, xmax))
        assert [thing.box for thing in data.objects(i)] == expected
        for ymin, xmin, ymax, xmax in expected:
            assert 0 <= ymin < ymax <= height and 0 <= xmin < xmax <= width


# A folder per class


@pytest.fixture
def animals(tmp_path):
    for name in ("dog/2.JPG", "dog/1.png", "cat/3.jpeg", "cat/notes.txt", ".hidden/4.jpg", "cat/.5.jpg", "empty/x.txt"):
        path = tmp_path / "animals" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "animals"


@pytest.mark.parametrize("opened", [folder, open_dataset])
@pytest.mark.filterwarnings("ignore:.*skipped")
def test_folders_are_classes(animals, opened):
    data = opened(animals)
    assert [path.relative_to(animals).as_posix() for path in data.paths] == ["cat/3.jpeg", "dog/1.png", "dog/2.JPG"]
    assert data.labels.tolist() == ["cat", "dog", "dog"]
    assert data.class_names == ("cat", "dog")
    np.testing.assert_array_equal(data.matrix, [[1, -1], [-1, 1], [-1, 1]])


def test_a_warning_counts_skipped_files(animals):
    (animals / "stray.jpg").write_bytes(b"")
    (animals / "list.csv").write_bytes(b"")
    with pytest.warns(UserWarning) as caught:
        folder(animals)
    assert str(caught[0].message) == (
        f"{animals}: skipped 3 files that are not photographs (.txt 2, .csv 1); "
        "1 photograph lies next to the class folders; folders without photographs: empty"
    )


@pytest.mark.parametrize("name", ["1.jfif", "1.avif", "1.heic", "1.jpe", "1.jp2", "2019/may/1.jpg"])
def test_no_class_is_lost_to_a_suffix_or_a_nested_folder(tmp_path, name):
    for kind in ("cat", "dog"):
        path = tmp_path / kind / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    data = folder(tmp_path)
    assert data.class_names == ("cat", "dog") and data.labels.tolist() == ["cat", "dog"]


@pytest.mark.parametrize("splits", [("train", "val"), ("Training", "test")])
def test_folders_of_splits_are_not_classes(tmp_path, splits):
    for name in (f"{split}/{kind}/1.jpg" for split in splits for kind in ("cat", "dog")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"name a split of it, {splits[0]}, {splits[1]}"):
        folder(tmp_path)


def test_photographs_can_be_removed_from_a_dataset(devkit):
    data = voc(devkit, "train").without([0])
    assert data.ids == ("a",) and data.labels.tolist() == [[-1, 0]] and not data.labels.flags.writeable
    assert [thing.name for thing in data.objects(0)] == ["train"]
    assert repr(data) == "<VOC: 1 photographs, 2 classes>"


def test_two_photographs_of_one_name_in_a_devkit_are_refused(devkit):
    (devkit / "JPEGImages" / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"two photographs called a: a\.jpg, a\.png"):
        voc(devkit, "train")


@pytest.mark.filterwarnings("ignore:.*skipped")
def test_a_split_is_a_subfolder(animals):
    data = open_dataset(animals.parent, "animals")
    assert data.class_names == ("cat", "dog")
    with pytest.raises(ValueError, match=r"no photographs.*name a split of it, animals"):
        open_dataset(animals.parent)
    with pytest.raises(FileNotFoundError, match=r"no folder .*val"):
        open_dataset(animals, "val")


def test_a_folder_without_photographs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no photographs"):
        open_dataset(tmp_path)
