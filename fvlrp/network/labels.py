"""Names of a network's outputs as people and programs write them: in label files of any form, in JSON and in metadata.

For `description` and `fvlrp.network.importing`. Hides the forms; the result are names in the order of outputs, once the
number of outputs is known: it decides what gaps in a numbering mean.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..runtime.types import Parsed

CLASS_KEYS = (
    "class_names", "classes", "labels", "synsets", "label_names", "class_labels", "classnames", "id2label", "label2id",
    "idx_to_class", "class_to_idx", "index_to_name", "label_map", "vocab", "names", "categories",
)  # fmt: skip
_NAME = ("display_name", "name", "label", "class", "class_name", "title")  # of one class, among its properties
_INDEX = ("id", "index", "class_id", "class_index", "idx")
_SYNSET = re.compile(r"^n\d{8}[\s,:]+")
_NUMBERED = re.compile(r"""^\s*["']?(\d+)["']?\s*[:,;\t ]\s*(.+?)\s*$""")
_ITEM = re.compile(r"item\s*\{(.*?)\}", re.DOTALL)
_FIELD = re.compile(r"""(\w+)\s*:\s*(?:["'](.*?)["']|(\d+))""")
_NUMBER_LAST = re.compile(r"""^\s*["']?(.+?)["']?\s*[,;\t]\s*(\d+)\s*$""")
_MARKED = re.compile(r"""^\s*(["']?\d+["']?\s*[:,;\t]|.*[,;\t]\s*\d+\s*$)""")
_HEADINGS = (*_NAME, "labels", "classes", "names")
MOST_GAPS = 1 << 16  # largest index up to which classes without a name are counted
Form: TypeAlias = list[str]  # a name for each output
_YAML = re.compile(rf"^(?:{'|'.join(CLASS_KEYS)}):[ \t]*(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Labels:
    """Class names as they are listed somewhere, in every way in which they may be meant.

    Attributes
    ----------
    forms : tuple of list of str
        Names in the order of outputs, of different numbers: those of a numbering with a gap may be all outputs, or all
        but one; "tench, Tinca tinca" may be two classes, or one with two names.
    source : str
        What lists them, for messages.
    """

    forms: tuple[Form, ...]
    source: str = "the description"

    @property
    def counts(self) -> tuple[int, ...]:
        """How many outputs a network may have whose names these are."""
        return tuple(map(len, self.forms))

    def of(self, n_classes: int) -> list[str]:
        """The names of so many classes. ValueError if none of several readings has so many."""
        fitting = [form for form in self.forms if len(form) == n_classes] or list(self.forms)
        if len(self.forms) > 1 and n_classes not in self.counts:
            *others, last = self.counts
            counts = f"{', '.join(map(str, others))} or {last}"
            raise ValueError(f"{self.source} lists names of {counts} classes, and the network has {n_classes}")
        return short_names(fitting[0])


def read_classes(path: str | os.PathLike[str]) -> Labels:
    """Names of a network's outputs, from a label file in any of the common formats.

    JSON: a list; an object from index to name, from index to [identifier, name], or from name to index; or an object
    with such an entry; a list of objects with a name and maybe an index. Text: one name per line, optionally after its
    index or WordNet identifier; a line of names with commas; a Python dictionary; a table with a heading; YAML with
    such an entry; TensorFlow's label maps.

    Raises
    ------
    OSError
        There is no such file.
    ValueError
        It has none of these forms.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
        forms = _forms_of_text(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{os.fspath(path)} does not list class names: {error}") from error
    if not forms[0]:
        raise ValueError(f"{os.fspath(path)} does not list class names: it is empty")
    return Labels(tuple(forms), os.fspath(path))


def class_names(values: Mapping[str, Parsed], source: str = "the description") -> Labels | None:
    """The names of the outputs in a description, if it has any."""
    for key in CLASS_KEYS:
        if values.get(key) is not None:
            return Labels(tuple(_forms(key, values[key])), source)
    return None


def short_names(labels: Sequence[str]) -> list[str]:
    """The first synonym of each class ("tench" of "tench, Tinca tinca"); if ambiguous, all synonyms, or a number."""
    labels = [str(label) for label in labels]
    first = [label.split(",")[0].strip() for label in labels]
    names: list[str] = []
    for label, name in zip(labels, first, strict=True):
        unique = name if first.count(name) == 1 else label
        copies = sum(1 for other in names if other == unique or other.startswith(f"{unique} ("))
        names.append(f"{unique} ({copies + 1})" if unique in names else unique)
    return names


# ---- spellings of class names ----------------------------------------------------------------------------------------


def named(metadata: Mapping[str, Parsed]) -> Labels | None:
    """The names in metadata, also one level below ("config"); entries that list none are skipped."""
    for values in (metadata, *(each for each in metadata.values() if isinstance(each, dict))):
        for key in CLASS_KEYS:
            value = values.get(key)
            if value is None or value == "":
                continue
            try:
                return Labels(tuple(_forms(key, value)), "its metadata")
            except (ValueError, TypeError):
                continue
    return None


def _forms_of_text(text: str) -> list[Form]:
    stripped = text.strip()
    if stripped[:1] in ("[", "{"):
        values = parsed(stripped)
        if isinstance(values, str):
            raise ValueError("it begins like JSON, but is none")
        if isinstance(values, dict):
            key = next((key for key in CLASS_KEYS if isinstance(values.get(key), list | dict)), None)
            return _forms("the file" if key is None else key, values if key is None else values[key])
        return _forms("the file", values)
    for read in (_of_items, _of_yaml, _of_table):
        found = read(stripped)
        if found:
            return found
    return _of_lines([line.strip() for line in text.splitlines() if line.strip()])


def _of_lines(lines: list[str]) -> list[Form]:
    """One name per line, maybe with its index before or behind it; or all in one line."""
    if not lines:
        return [lines]
    if len(lines) == 1 and "," in lines[0]:
        return [[name.strip() for name in lines[0].split(",") if name.strip()], lines]
    for pattern, number, name in ((_NUMBERED, 1, 2), (_NUMBER_LAST, 2, 1)):
        found = [match for match in map(pattern.match, lines) if match]
        names = {int(match[number]): match[name].strip("\"',") for match in found}
        if len(names) != len(lines):
            continue
        forms = _numbered(_without_synsets(names))
        gap = max(names) > len(names) or min(names) > 1
        return [lines, *forms[1:]] if gap and not all(map(_MARKED.match, lines)) else forms  # "2 men", "7 women"
    lines = list(_without_synsets(dict(enumerate(lines))).values())
    heading = re.split(r"[\t;,]", lines[0].lower())[0].strip() in _HEADINGS
    return [lines, lines[1:]] if heading and len(lines) > 1 else [lines]


def _without_synsets(names: dict[int, str]) -> dict[int, str]:
    """Names without the WordNet identifiers before them, if all have one."""
    if not all(map(_SYNSET.match, names.values())):
        return names
    return {index: _SYNSET.sub("", name) for index, name in names.items()}


def _numbered(names: Mapping[int, str]) -> list[Form]:
    """Names by their indices, in that order; where these leave gaps, also those of all outputs from 0 or 1 on."""
    ordered = [names[index] for index in sorted(names)]
    least, most = min(names), max(names)
    if (least == 0 and most < len(names)) or least < 0 or most >= MOST_GAPS:
        return [ordered]
    if least == 1 and most == len(names):
        return [ordered, ["class 0", *ordered]]
    firsts = (0,) if least == 0 else (0, 1)
    return [ordered, *([names.get(i, f"class {i}") for i in range(first, most + 1)] for first in firsts)]


def parsed(text: str) -> Parsed:
    """A value as JSON or Python writes it, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text) if len(text) < 1 << 20 else text
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text


def _forms(key: str, names: Parsed) -> list[Form]:
    """Labels in the order of the outputs, from a list or from an object, whose order does not matter."""
    if isinstance(names, dict):
        if all(isinstance(value, int) and not isinstance(value, bool) for value in names.values()):
            return _indexed(key, ((index, name) for name, index in names.items()))  # from name to index
        if names and all(str(index).strip().isdigit() for index in names):
            return _indexed(key, ((int(index), _text(name)) for index, name in names.items()))
    if isinstance(names, str):
        mark = next((each for each in "\n;|," if each in names.strip()), None)
        parts = names if mark is None else [name.strip() for name in names.split(mark) if name.strip()]
        if mark == ",":
            return [list(parts), [names.strip()]]
        names = parts
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(f'{key} must list a label for each output, or have one for each of "0", "1", ...')
    if all(isinstance(name, dict) for name in names):
        return _of_objects(key, names)
    return [[_text(name) for name in names]]


def _text(name: Parsed) -> str:
    """A name, maybe the last of [identifier, name]."""
    return str(name[-1] if isinstance(name, list | tuple) and name else name)


def _indexed(key: str, pairs: Iterable[tuple[int, Parsed]]) -> list[Form]:
    names: dict[int, str] = {}
    for index, name in pairs:
        if index in names:
            raise ValueError(f"{key} gives the index {index} to {names[index]!r} and to {str(name)!r}")
        names[index] = str(name)
    return _numbered(names)


def _of_objects(key: str, objects: Sequence[Mapping[str, Parsed]]) -> list[Form]:
    """Names of objects such as {"id": 1, "name": "cat"}, in the order of their indices where they have any."""
    name = next((each for each in _NAME if all(each in one for one in objects)), None)
    if name is None:
        raise ValueError(f'{key} must name every class, such as {{"id": 0, "name": "cat"}}')
    index = next((each for each in _INDEX if all(isinstance(one.get(each), int) for one in objects)), None)
    if index is None:
        return [[str(one[name]) for one in objects]]
    return _indexed(key, ((int(one[index]), one[name]) for one in objects))


def _of_items(text: str) -> list[Form]:
    """TensorFlow's label maps: item { id: 1 name: "cat" display_name: "Cat" }."""
    items = [
        {key: int(number) if number else word for key, word, number in _FIELD.findall(item)}
        for item in _ITEM.findall(text)
    ]
    return _of_objects("the file", items) if items else []


def _of_yaml(text: str) -> list[Form]:
    """The entry of a YAML file that lists classes: in brackets, with a dash each, or from index to name."""
    entry = _YAML.search(text)
    if entry is None:
        return []
    if entry[1].strip():
        value = parsed(entry[1].strip())
        if isinstance(value, str) and value.startswith("{"):
            return _of_yaml(text[: entry.start(1)] + "\n" + value.strip("{}").replace(",", "\n"))
        words = [word.strip().strip("\"'") for word in entry[1].strip(" []").split(",")]
        return _forms("the file", words if isinstance(value, str) else value)
    found: dict[str, str] = {}
    for line in text[entry.end() :].splitlines():
        if not line.partition("#")[0].strip():
            continue
        item = re.match(r"\s*(?:-|(\d+):)\s+(.+?)\s*$", line)
        if item is None:
            break
        found[item[1] or str(len(found))] = item[2].strip("\"'")
    return _forms("the file", found) if found else []


def _of_table(text: str) -> list[Form]:
    """A table whose heading has a column of names, and maybe one of indices."""
    lines = text.splitlines()
    mark = next((each for each in "\t;," if each in lines[0]), None) if lines else None
    if mark is None or len(lines) < 2:
        return []
    head = [word.strip().lower() for word in lines[0].split(mark)]
    name = next((head.index(each) for each in _NAME if each in head), None)
    index = next((head.index(each) for each in _INDEX if each in head), None)
    if name is None or index is None:
        return []
    rows = [row for row in csv.reader(lines[1:], delimiter=mark) if row]
    if any(len(row) <= max(name, index) or not row[index].strip().isdigit() for row in rows):
        return []
    return _indexed("the file", ((int(row[index]), row[name].strip()) for row in rows)) if rows else []
