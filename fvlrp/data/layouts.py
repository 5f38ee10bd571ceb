"""Labels in a single file: tables of paths and labels, and COCO's annotations. For `datasets.open_dataset`.

Hides columns, where photographs lie relative to a file, and COCO's numbering. Photographs are not opened.
"""

from __future__ import annotations

import csv
import json
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeAlias

import numpy as np

from .labelled import AnnotatedObject, Boxed, Dataset

PathLike: TypeAlias = "str | os.PathLike[str]"

TABLES = {".csv": ",", ".tsv": "\t"}  # suffix: what separates columns
PATHS = ("path", "file", "filename", "file_name", "image", "photo", "photograph")  # names of the column of paths
LABELS = ("label", "class", "target", "category")


def table(path: PathLike, split: str | None = None) -> Dataset:
    """Photographs and labels of a table: one row per photograph and label, columns path and label.

    If the first row names columns, they are found by name (path, file, image, ...; label, class, ...), and a column
    ``split`` chooses rows. Paths are relative to the table. If a photograph has several rows, it has all their
    labels, and labels are a matrix of 1 and -1. A warning counts repeated rows.

    Raises
    ------
    OSError
        The table or a photograph is missing.
    ValueError
        A row without two columns or with an empty one, a split that no row has, no rows, or no UTF-8.
    """
    path = Path(path)
    separator = TABLES[path.suffix.lower()]
    rows = _rows(path, separator)
    columns = _columns([cell.strip().lower() for cell in rows[0][1]]) if rows else None
    of_path, of_label, of_split = columns or (0, 1, None)
    if split is not None and of_split is None:
        raise ValueError(f"{path} has no column 'split' to find {split!r} in")
    found: dict[Path, list[str]] = {}
    splits: set[str] = set()
    repeated = 0
    for number, row in rows[1:] if columns else rows:
        cells = [cell.strip() for cell in row]
        if len(cells) <= max(of_path, of_label, of_split or 0) or not (cells[of_path] and cells[of_label]):
            raise ValueError(
                f"{path}, line {number}: {row!r} is not a photograph's path and a label, separated by {separator!r}"
            )
        if of_split is not None:
            splits.add(cells[of_split])
        if split is not None and cells[of_split or 0] != split:
            continue
        labels = found.setdefault(path.parent / cells[of_path], [])
        repeated += cells[of_label] in labels
        labels += [cells[of_label]] * (cells[of_label] not in labels)
    if not found and split is not None:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(sorted(splits)) or 'no rows'}")
    if not found:
        raise ValueError(f"{path} lists no photographs")
    if repeated:
        warnings.warn(f"{path}: {repeated} rows repeat a path and its label", stacklevel=2)
    paths = tuple(found)
    _check_there(path, paths, "" if columns else "; if its first line names the columns, call them path and label")
    names = tuple(sorted({label for labels in found.values() for label in labels}))
    if all(len(labels) == 1 for labels in found.values()):
        single = np.array([labels[0] for labels in found.values()])
        single.setflags(write=False)
        return Dataset(paths, single, names)
    matrix = np.array([[1 if name in labels else -1 for name in names] for labels in found.values()], np.int8)
    matrix.setflags(write=False)
    return Dataset(paths, matrix, names)


def _rows(path: Path, separator: str) -> list[tuple[int, list[str]]]:
    """The rows of a table that are not blank, with the number of the line where each ends."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
            return [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error
    except csv.Error as error:
        raise ValueError(f"{path} is not a table of rows: {error}") from error


def _columns(head: list[str]) -> tuple[int, int, int | None] | None:
    """Positions of path, label and split, where a first row names them."""
    path = next((head.index(name) for name in PATHS if name in head), None)
    label = next((head.index(name) for name in LABELS if name in head), None)
    if path is None or label is None:
        return None
    return path, label, head.index("split") if "split" in head else None


@dataclass(frozen=True, eq=False, repr=False)
class COCO(Boxed):
    """Photographs of one of COCO's annotation files, with their objects. Labels are as VOC's; crowds are ignored (0).

    Attributes
    ----------
    things : tuple of tuples of AnnotatedObject, length n
        A crowd is a difficult object.
    """

    things: tuple[tuple[AnnotatedObject, ...], ...]

    def without(self, left_out: Iterable[int]) -> Self:
        gone = set(left_out)
        return replace(super().without(gone), things=tuple(t for i, t in enumerate(self.things) if i not in gone))

    def objects(self, i: int) -> tuple[AnnotatedObject, ...]:
        return self.things[i]


def coco(path: PathLike, images: PathLike | None = None) -> COCO:
    """Photographs of a COCO annotation file, such as ``annotations/instances_val2017.json``.

    Parameters
    ----------
    path : path
    images : path, optional
        Folder of the photographs. None: the folder named in the file's name (``val2017``), next to the file's own
        folder, or in ``images`` next to it; otherwise the file's own.

    Returns
    -------
    COCO
        Photographs in the file's order. Those that are missing or have no object are left out,
        and so are objects of photographs that the file does not list; a warning counts both.

    Raises
    ------
    OSError
        The file is missing, or all photographs are.
    ValueError
        The file is not JSON, or not COCO's; or two photographs have one number.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_bytes())
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        files = {entry["id"]: str(entry["file_name"]) for entry in content["images"]}
        things: dict[object, list[AnnotatedObject]] = defaultdict(list)
        for entry in content["annotations"]:
            x, y, width, height = (float(value) for value in entry["bbox"])
            box = (int(np.floor(y)), int(np.floor(x)), int(np.ceil(y + height)), int(np.ceil(x + width)))
            crowd = bool(entry.get("iscrowd", 0))
            things[entry["image_id"]].append(AnnotatedObject(names[entry["category_id"]], box, crowd))
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not a COCO annotation file: {type(error).__name__} {error}") from error
    if len(files) < len(content["images"]):
        raise ValueError(f"{path} lists {len(content['images'])} images, but only {len(files)} different ids")
    folder = Path(images) if images is not None else _folder_of(path)
    strangers = sum(len(found) for key, found in things.items() if key not in files)
    listed = [key for key in files if things[key]]
    there = [key for key in listed if (folder / files[key]).is_file()]
    if not there:
        raise FileNotFoundError(f"{folder} has none of the {len(listed)} photographs that {path} annotates")
    left_out = {
        f"of {len(files)} photographs list no object": len(files) - len(listed),
        f"of {len(files)} photographs are missing in {folder}": len(listed) - len(there),
        "objects are of photographs that it does not list": strangers,
    }
    if any(left_out.values()):
        counts = "; ".join(f"{count} {what}" for what, count in left_out.items() if count)
        warnings.warn(f"{path}: left out {counts}", stacklevel=2)
    classes = tuple(sorted(set(names.values())))
    labels = np.full((len(there), len(classes)), -1, np.int8)
    for row, key in enumerate(there):
        for thing in sorted(
            things[key], key=lambda thing: not thing.difficult
        ):  # crowds first: other objects override them
            labels[row, classes.index(thing.name)] = 0 if thing.difficult else 1
    labels.setflags(write=False)
    return COCO(tuple(folder / files[key] for key in there), labels, classes, tuple(tuple(things[k]) for k in there))


def coco_file(root: Path, split: str | None) -> Path:
    """The annotation file of a split of COCO: ``"val2017"``, or ``"val"`` if there is one year."""
    files = sorted((root / "annotations").glob("instances_*.json"))
    splits = [file.stem.removeprefix("instances_") for file in files]
    exact = [file for file, name in zip(files, splits, strict=True) if name == split]
    chosen = exact or [f for f, name in zip(files, splits, strict=True) if name.rstrip("0123456789") == split]
    if len(chosen) == 1:
        return chosen[0]
    hint = "name one of its splits" if split is None else f"it has no split {split!r} alone, but"
    raise ValueError(f"{root} is COCO: {hint} {', '.join(splits)}")


def _folder_of(path: Path) -> Path:
    name = path.stem.removeprefix("instances_")
    above = path.parent.parent
    return next((f for f in (above / name, above / "images" / name, path.parent / name) if f.is_dir()), path.parent)


def _check_there(path: Path, photographs: tuple[Path, ...], hint: str) -> None:
    """Raise if a photograph is missing, with `hint` if only the first is."""
    missing = [photograph for photograph in photographs if not photograph.is_file()]
    if not missing:
        return
    why = hint if missing == [photographs[0]] else ""
    raise FileNotFoundError(f"{path} lists {len(missing)} photographs that do not exist, first {missing[0]}{why}")
