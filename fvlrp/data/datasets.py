"""Photographs with labels from disk: a PASCAL VOC devkit, with lists or without, or one folder per class.

Hides both layouts; `layouts` has those of a single file. Nothing is decoded here: a data set is paths, labels and
perhaps boxes, which are read from VOC's annotations on access. For the command line and for users
(`fvlrp.datasets`); no other wing needs it.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, Self, TypeAlias
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from . import layouts
from .labelled import AnnotatedObject, Boxed, Dataset
from .photographs import below, counted, is_photograph

__all__ = ["VOC", "AnnotatedObject", "Boxed", "Dataset", "folder", "open_dataset", "voc"]

SPLITS = frozenset({"train", "training", "trainval", "val", "valid", "validation", "test", "testing", "eval", "dev"})

PathLike: TypeAlias = "str | os.PathLike[str]"


@dataclass(frozen=True, eq=False, repr=False)
class VOC(Boxed):
    """One split of a PASCAL VOC devkit, with its objects' boxes. VOC counts pixels from 1 and includes the last.

    Attributes
    ----------
    ids : tuple of str, length n
        VOC's names of the photographs, such as ``2008_002710``.
    folder : Path
        The year's folder, such as ``VOCdevkit/VOC2012``.
    """

    ids: tuple[str, ...]
    folder: Path

    def without(self, left_out: Iterable[int]) -> Self:
        gone = set(left_out)
        return replace(super().without(gone), ids=tuple(name for i, name in enumerate(self.ids) if i not in gone))

    def objects(self, i: int) -> tuple[AnnotatedObject, ...]:
        """What the annotation of photograph `i` lists, read now.

        Raises
        ------
        OSError
            There is no annotation.
        ValueError
            The annotation is malformed; the message names the file.
        """
        return _objects(self.folder / "Annotations" / f"{self.ids[i]}.xml")


def open_dataset(root: PathLike, split: str | None = None) -> Dataset:
    """The data set at `root`; its layout is recognised from its files.

    A folder: a VOC devkit (``ImageSets/Main``, or ``Annotations`` and ``JPEGImages`` without lists), COCO
    (``annotations/instances_*.json``), or a folder per class. A file: a table (.csv, .tsv) or COCO's .json.

    `split` names VOC's list (required there), COCO's file, the rows of a table that has a column ``split``, or, of a
    folder per class, the subfolder that holds the class folders (none by default). Raises as `voc`, `folder`,
    `layouts.table` and `layouts.coco` do.
    """
    if Path(root).suffix.lower() in layouts.TABLES and not Path(root).is_dir():
        return layouts.table(root, split)
    if Path(root).suffix.lower() == ".json" and not Path(root).is_dir():
        if split is not None:
            raise ValueError(f"{root} is one file of COCO and has no split {split!r}: leave out the split")
        return layouts.coco(root)
    root = _existing(root)
    years = _years(root)
    if years and split is None:
        raise ValueError(f"{root} is a VOC devkit: name one of its splits, {_comma(_splits(_stems(years[0])))}")
    if years:
        return voc(root, str(split))
    if (root / "annotations").is_dir() and any((root / "annotations").glob("instances_*.json")):
        return layouts.coco(layouts.coco_file(root, split))
    if (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir():
        return _voc_without_lists(root, split)
    return folder(root if split is None else root / split)


def voc(root: PathLike, split: str) -> VOC:
    """One split of a PASCAL VOC devkit.

    Parameters
    ----------
    root : path
        A year's folder (``VOCdevkit/VOC2012``), or a folder above it that holds only one year.
    split : str
        Name of a list in ``ImageSets/Main``: ``"train"``, ``"val"``, ``"trainval"``.

    Returns
    -------
    VOC
        Classes are those that have lists, of whatever split. Where a class has no list for `split`, its labels come
        from the annotations: 1 with an object, 0 with difficult ones only, -1 without.

    Raises
    ------
    OSError
        `root`, a photograph or an annotation is missing.
    ValueError
        `root` is not a devkit or contains several years, has no such split, or a list is malformed or empty.
    """
    root = _existing(root)
    years = _years(root)
    if not years:
        raise ValueError(f"{root} is not a VOC devkit: neither it nor a folder VOC* below it contains ImageSets/Main")
    if len(years) > 1:
        raise ValueError(f"{root} holds several years: pass one of {_comma(str(year) for year in years)}")
    year = years[0]
    stems = _stems(year)
    main = year / "ImageSets" / "Main"
    listed = {stem.removesuffix(f"_{split}"): main / f"{stem}.txt" for stem in stems if stem.endswith(f"_{split}")}
    if split not in stems and not listed:
        raise ValueError(f"{root} has no split {split!r}; it has {_comma(_splits(stems))}")
    plain = main / f"{split}.txt"
    ids = tuple(_pairs(plain if plain.is_file() else listed[min(listed)]))
    if not ids:
        raise ValueError(f"{plain} lists no photographs")
    names = _class_names(year, stems)
    labels = _labels(year, ids, names, listed)
    labels.setflags(write=False)
    return VOC(_photographs(year / "JPEGImages", ids), labels, names, ids, year)


def _voc_without_lists(year: Path, split: str | None) -> VOC:
    """All photographs of a VOC folder that have annotations, which their labels come from."""
    if split is not None:
        raise ValueError(f"{year} has no lists in ImageSets/Main, so no split {split!r}: leave out the split")
    photographs = {path.stem for path in _visible(year / "JPEGImages") if is_photograph(path)}
    annotated = {path.stem for path in _visible(year / "Annotations") if path.suffix.lower() == ".xml"}
    ids = tuple(sorted(photographs & annotated))
    if not ids:
        raise ValueError(f"{year} has no photograph in JPEGImages with an annotation of its name in Annotations")
    alone = [
        f"skipped {len(names)} {what}, first {min(names)}"
        for names, what in (
            (photographs - annotated, "photographs without annotation"),
            (annotated - photographs, "annotations without photograph"),
        )
        if names
    ]
    if alone:
        warnings.warn(f"{year}: {'; '.join(alone)}", stacklevel=3)
    names = tuple(sorted({thing.name for name in ids for thing in _objects(year / "Annotations" / f"{name}.xml")}))
    if not names:
        raise ValueError(f"the annotations of {year} list no objects")
    labels = _labels(year, ids, names, {})
    labels.setflags(write=False)
    return VOC(_photographs(year / "JPEGImages", ids), labels, names, ids, year)


def folder(root: PathLike) -> Dataset:
    """A data set of one folder per class, the folders' names being the classes' names.

    Photographs are files whose suffix is in `photographs.SUFFIXES`, in the class folder or in folders below it. Classes
    and photographs come in alphabetical order. Hidden files and folders are left out. A warning lists
    everything else that was skipped: other files, empty class folders, photographs next to the class folders.

    Raises
    ------
    OSError
        `root` is missing.
    ValueError
        No class folder holds a photograph; or the folders are those of splits, of which one must be named.
    """
    root = _existing(root)
    skipped: Counter[str] = Counter()
    classes = {child.name: below(child, skipped) for child in _subdirs(root)}
    empty = [name for name, paths in classes.items() if not paths]
    classes = {name: paths for name, paths in classes.items() if paths}
    _refuse_splits(root, classes)
    if not classes:
        raise ValueError(f"{root} has no photographs: expected one folder per class with photographs in it")
    stray = [path for path in _visible(root) if path.is_file()]
    skipped.update(path.suffix.lower() for path in stray if not is_photograph(path))
    loose = sum(map(is_photograph, stray))
    left_out = [
        f"skipped {counted(skipped)}" if skipped else "",
        f"{loose} photograph{'s lie' if loose > 1 else ' lies'} next to the class folders" if loose else "",
        f"folders without photographs: {_comma(empty)}" if empty else "",
    ]
    if any(left_out):
        warnings.warn(f"{root}: {'; '.join(filter(None, left_out))}", stacklevel=2)
    labels = np.array([name for name, paths in classes.items() for _ in paths])
    labels.setflags(write=False)
    return Dataset(tuple(path for paths in classes.values() for path in paths), labels, tuple(classes))


def _refuse_splits(root: Path, classes: dict[str, list[Path]]) -> None:
    """Raise if the folders contain class folders rather than photographs: train/cat and val/cat are one class.

    Class folders may have photographs further down. So folders count as splits if none directly contains a photograph
    and either all have names of splits, or there is only one.
    """
    direct = any(path.parent == root / name for name, paths in classes.items() for path in paths)
    if classes and not direct and (len(classes) == 1 or all(name.lower() in SPLITS for name in classes)):
        raise ValueError(
            f"{root} has no photographs one folder down: name a split of it, {_comma(classes)}, "
            "whose folders are the classes"
        )


def _existing(root: PathLike) -> Path:
    root = Path(root)
    if root.is_file():
        raise NotADirectoryError(f"{root} is a file: expected a folder, a table (.csv, .tsv) or COCO's .json")
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    return root


def _years(root: Path) -> list[Path]:
    """The year folders of a devkit: `root` itself, or those one level or one VOCdevkit below."""
    for candidates in ([root], sorted(root.glob("VOC*")), sorted(root.glob("VOCdevkit/VOC*"))):
        years = [year for year in candidates if (year / "ImageSets" / "Main").is_dir()]
        if years:
            return years
    return []


def _stems(year: Path) -> list[str]:
    return sorted(path.stem for path in (year / "ImageSets" / "Main").glob("*.txt"))


def _splits(stems: Iterable[str]) -> list[str]:
    """Names of the splits among ``train``, ``dog_train``, ``train_val`` (the class train in the split val)..."""
    return sorted({stem.rpartition("_")[2] for stem in stems})


def _class_names(year: Path, stems: Iterable[str]) -> tuple[str, ...]:
    """All classes with a list in any split, so that every split has the same columns; otherwise all annotated ones."""
    names = {stem.rpartition("_")[0] for stem in stems} - {""}
    if not names:
        names = {thing.name for path in sorted((year / "Annotations").glob("*.xml")) for thing in _objects(path)}
    return tuple(sorted(names))


def _labels(year: Path, ids: tuple[str, ...], names: tuple[str, ...], listed: dict[str, Path]) -> npt.NDArray[np.int8]:
    labels = np.full((len(ids), len(names)), -1, np.int8)
    unlisted = [name for name in names if name not in listed]
    if unlisted:
        for row, name in enumerate(ids):
            things = _objects(year / "Annotations" / f"{name}.xml")
            clear = {thing.name for thing in things if not thing.difficult}
            present = {thing.name for thing in things}
            labels[row] = [1 if c in clear else 0 if c in present else -1 for c in names]
    for column, name in enumerate(names):
        if name in listed:
            labels[:, column] = _listed_labels(listed[name], ids)
    return labels


def _listed_labels(path: Path, ids: tuple[str, ...]) -> list[int]:
    found = _pairs(path)
    missing = next((name for name in ids if name not in found), None)
    if missing is not None:
        raise ValueError(f"{path} has no line for {missing}")
    wrong = next((name for name in ids if found[name] not in ("1", "0", "-1")), None)
    if wrong is not None:
        raise ValueError(f"{path} has the label {found[wrong]!r} for {wrong}; expected 1, 0 or -1")
    return [int(found[name]) for name in ids]


def _pairs(path: Path) -> dict[str, str]:
    """Name → label of a list in ImageSets/Main, in its order; the label is empty in lists of names only."""
    pairs = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        words = line.split()
        if len(words) > 2:
            raise ValueError(f"{path}, line {number}: {line!r} is not a photograph's name and a label")
        if words:
            pairs[words[0]] = words[1] if len(words) == 2 else ""
    return pairs


def _photographs(directory: Path, ids: tuple[str, ...]) -> tuple[Path, ...]:
    by_name: dict[str, Path] = {}
    for path in _visible(_existing(directory)):
        if is_photograph(path) and by_name.setdefault(path.stem, path) != path and path.stem in ids:
            raise ValueError(
                f"{directory} has two photographs called {path.stem}: {by_name[path.stem].name}, {path.name}"
            )
    missing = [name for name in ids if name not in by_name]
    if missing:
        raise FileNotFoundError(f"{directory} lacks {len(missing)} of {len(ids)} photographs, first {missing[0]}")
    return tuple(by_name[name] for name in ids)


def _subdirs(directory: Path) -> list[Path]:
    return [child for child in _visible(directory) if child.is_dir()]


def _visible(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if not path.name.startswith("."))


class _NoDoctype(ElementTree.TreeBuilder):
    """Rejects document types, in which a hostile file could declare entities; VOC's annotations have none."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise ValueError("it declares a document type, which annotations do not need")


def _objects(path: Path) -> tuple[AnnotatedObject, ...]:
    data = path.read_bytes()
    try:
        tree = ElementTree.fromstring(data, ElementTree.XMLParser(target=_NoDoctype()))
        return tuple(_object(element) for element in tree.findall("object"))
    except (ElementTree.ParseError, ValueError, LookupError, OverflowError) as error:
        raise ValueError(f"{path} is not a VOC annotation: {error}") from error


def _object(element: ElementTree.Element) -> AnnotatedObject:
    def text(tag: str) -> str:
        value = element.findtext(tag)
        if value is None:
            raise ValueError(f"an object lacks <{tag}>")
        return value.strip()

    # Some annotations of 2011 hold fractions of a pixel.
    ymin, xmin, ymax, xmax = (round(float(text(f"bndbox/{tag}"))) for tag in ("ymin", "xmin", "ymax", "xmax"))
    if ymin > ymax or xmin > xmax:
        raise ValueError(f"a box ends before it begins: y {ymin} to {ymax}, x {xmin} to {xmax}")
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return AnnotatedObject(text("name"), (ymin - 1, xmin - 1, ymax, xmax), difficult)


def _comma(names: Iterable[str]) -> str:
    return ", ".join(names)
