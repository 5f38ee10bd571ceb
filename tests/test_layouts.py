"""Labels in tables, COCO's files and VOC folders without lists: what is read, and what is left out and said."""

import json

import numpy as np
import pytest
from PIL import Image

from fvlrp.data.datasets import open_dataset
from fvlrp.evaluate import cases


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (40, 30)).save(path)


# ---- tables ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    for name in "abc":
        picture(tmp_path / "photos" / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize("head", ["", "path,label\n", "Image,Class\n"])
def test_a_table_lists_paths_and_labels(folder, head):
    (folder / "t.csv").write_text(f"{head}photos/b.png,cat\n\nphotos/a.png, dog\n")
    data = open_dataset(folder / "t.csv")
    assert data.paths == (folder / "photos" / "b.png", folder / "photos" / "a.png")
    assert data.labels.tolist() == ["cat", "dog"] and data.class_names == ("cat", "dog")


def test_columns_are_found_by_name_and_a_split_chooses_rows(folder):
    rows = "label\tsplit\tfile\ncat\ttrain\tphotos/a.png\ndog\ttest\tphotos/b.png\n"
    (folder / "t.tsv").write_text(rows)
    data = open_dataset(folder / "t.tsv", "test")
    assert data.labels.tolist() == ["dog"] and data.paths[0].name == "b.png"
    assert len(open_dataset(folder / "t.tsv")) == 2
    with pytest.raises(ValueError, match="has no split 'val'; it has test, train"):
        open_dataset(folder / "t.tsv", "val")


def test_a_photograph_in_several_rows_has_several_labels(folder):
    (folder / "t.csv").write_text("photos/a.png,cat\nphotos/b.png,dog\nphotos/a.png,dog\nphotos/b.png,dog\n")
    with pytest.warns(UserWarning, match="1 rows repeat a path and its label"):
        data = open_dataset(folder / "t.csv")
    np.testing.assert_array_equal(data.labels, [[1, 1], [-1, 1]])
    assert data.matrix is data.labels
    assert [case.target for case in sorted(cases(data), key=lambda case: case.name)] == ["cat", "dog"]


@pytest.mark.parametrize(
    "text, error, words",
    [
        ("photos/a.png\n", ValueError, r"line 1: \['photos/a.png'\] is not a photograph's path and a label"),
        ("path,label\nphotos/a.png,\n", ValueError, "line 2"),
        ("path,label\n", ValueError, "lists no photographs"),
        ("", ValueError, "lists no photographs"),
        ("photos/x.png,cat\nphotos/y.png,cat\n", FileNotFoundError, "lists 2 photographs that do not exist"),
    ],
)
def test_an_error_in_a_table_names_the_line(folder, text, error, words):
    (folder / "t.csv").write_text(text)
    with pytest.raises(error, match=words):
        open_dataset(folder / "t.csv")


def test_spreadsheets_and_hand_written_tables_are_read(folder):
    picture(folder / "photos" / "d,e.png")
    told = '\ufeffPath, Label\r\n"photos/d,e.png", "cat, big"\r\n ./photos/a.png,dog\r\nphotos/a.png , dog\r\n'
    (folder / "t.CSV").write_bytes(told.encode())
    with pytest.warns(UserWarning, match="1 rows repeat"):  # a path may be written in several ways
        data = open_dataset(folder / "t.CSV")
    assert [path.name for path in data.paths] == ["d,e.png", "a.png"] and data.labels.tolist() == ["cat, big", "dog"]


@pytest.mark.parametrize(
    "written, error, words",
    [
        (b"path;label\nphotos/a.png;cat\n", ValueError, "line 1: .* separated by ','"),
        ("photos/ü.png,cat\n".encode("latin1"), ValueError, r"t\.csv is not UTF-8 text .*: save it as UTF-8"),
        ("photos/a.png,cat\n".encode("utf-16"), ValueError, r"t\.csv is not UTF-8 text .*: save it as UTF-8"),
        (b"photos/a.png," + b"x" * 200_000, ValueError, r"t\.csv is not a table of rows: field larger"),
        (b"img,species\nphotos/a.png,cat\n", FileNotFoundError, "img; if its first line names the columns, call them"),
        (b'path,label\nphotos/a.png,"cat\ndog"\n\nphotos/b.png\n', ValueError, "line 5"),
    ],
)
def test_other_tables_are_refused_with_the_way_out(folder, written, error, words):
    (folder / "t.csv").write_bytes(written)
    with pytest.raises(error, match=words):
        open_dataset(folder / "t.csv")


def test_a_file_of_another_kind_is_refused_with_those_that_are_read(folder):
    (folder / "t.txt").write_text("photos/a.png,cat\n")
    with pytest.raises(NotADirectoryError, match=r"t\.txt is a file: expected a folder, a table \(\.csv, \.tsv\)"):
        open_dataset(folder / "t.txt")


def test_a_split_without_its_column_is_refused(folder):
    (folder / "t.csv").write_text("photos/a.png,cat\n")
    with pytest.raises(ValueError, match="no column 'split'"):
        open_dataset(folder / "t.csv", "train")


# ---- COCO ------------------------------------------------------------------------------------------------------------


def coco_of(annotations, images="abc"):
    return {
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
        "images": [{"id": i, "file_name": f"{name}.png"} for i, name in enumerate(images)],
        "annotations": [
            {"image_id": image, "category_id": kind, "bbox": box, "iscrowd": crowd}
            for image, kind, box, crowd in annotations
        ],
    }


@pytest.fixture
def coco(tmp_path):
    for name in "ab":
        picture(tmp_path / "val2017" / f"{name}.png")
    told = coco_of(
        [(0, 18, [1.5, 2, 10, 5.2], 0), (0, 17, [0, 0, 9, 9], 1), (1, 17, [3, 4, 5, 6], 0), (2, 17, [0] * 4, 0)]
    )
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(told))
    return tmp_path


@pytest.mark.parametrize("split", ["val2017", "val", "file"])
def test_coco_has_labels_and_boxes(coco, split):
    root = coco / "annotations" / "instances_val2017.json" if split == "file" else coco
    with pytest.warns(UserWarning, match="left out 1 of 3 photographs are missing in"):
        data = open_dataset(root, None if split == "file" else split)
    assert data.class_names == ("cat", "dog") and [path.name for path in data.paths] == ["a.png", "b.png"]
    np.testing.assert_array_equal(data.labels, [[0, 1], [1, -1]])  # a crowd is ignored
    np.testing.assert_array_equal(data.boxes(0, "dog"), [[2, 1, 8, 12]])  # y before x, whole pixels around it
    assert data.boxes(0, "cat", difficult=False).shape == (0, 4)
    assert data.without([0]).objects(0)[0].name == "cat"
    assert {case.target for case in cases(data)} == {"dog", "cat"}


def test_photographs_without_objects_are_counted(coco):
    told = coco_of([(0, 18, [1, 2, 3, 4], 0)], "ab")
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(told))
    with pytest.warns(UserWarning, match="left out 1 of 2 photographs list no object"):
        assert len(open_dataset(coco, "val")) == 1


def test_objects_of_photographs_that_are_not_listed_are_counted(coco):
    told = coco_of([(0, 18, [1, 2, 3, 4], 0), (7, 18, [1, 2, 3, 4], 0), (7, 17, [1, 2, 3, 4], 0)], "a")
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(told))
    with pytest.warns(UserWarning, match="left out 2 objects are of photographs that it does not list"):
        assert open_dataset(coco, "val").labels.tolist() == [[-1, 1]]


def test_two_photographs_of_one_number_are_refused(coco):
    told = coco_of([(0, 18, [1, 2, 3, 4], 0)], "a")
    told["images"].append({"id": 0, "file_name": "b.png"})
    (coco / "annotations" / "instances_val2017.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match="lists 2 images, but only 1 different ids"):
        open_dataset(coco, "val")


def test_one_file_of_coco_has_no_splits(coco):
    with pytest.raises(ValueError, match=r"json is one file of COCO and has no split 'val': leave out the split"):
        open_dataset(coco / "annotations" / "instances_val2017.json", "val")


def test_an_unstated_coco_split_is_refused_with_the_splits(coco):
    (coco / "annotations" / "instances_val2014.json").write_text("{}")
    for split in (None, "val"):
        with pytest.raises(ValueError, match="val2014, val2017"):
            open_dataset(coco, split)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"categories": 3, "images": [], "annotations": []}'])
def test_a_file_that_is_not_coco_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json is not a COCO annotation file"):
        open_dataset(tmp_path / "x.json")


# ---- VOC without lists -----------------------------------------------------------------------------------------------


def test_voc_without_lists_is_labelled_from_its_annotations(tmp_path):
    for name in ("a", "b", "d"):
        picture(tmp_path / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "Annotations").mkdir()
    for name, kind, difficult in (("a", "dog", 0), ("b", "cat", 1), ("c", "dog", 0)):
        (tmp_path / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><object><name>{kind}</name><difficult>{difficult}</difficult><bndbox><xmin>1</xmin><ymin>1</ymin>"
            "<xmax>5</xmax><ymax>4</ymax></bndbox></object></annotation>"
        )
    with pytest.warns(UserWarning) as told:
        data = open_dataset(tmp_path)
    assert "1 photographs without annotation, first d" in str(told[0].message)
    assert "1 annotations without photograph, first c" in str(told[0].message)
    assert data.ids == ("a", "b") and data.class_names == ("cat", "dog")
    np.testing.assert_array_equal(data.labels, [[-1, 1], [0, -1]])
    np.testing.assert_array_equal(data.boxes(0, "dog"), [[0, 0, 4, 5]])
    with pytest.raises(ValueError, match="no split 'train': leave out the split"):
        open_dataset(tmp_path, "train")
