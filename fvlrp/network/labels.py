"""Names of a network's outputs as people and programs write them: in label files of any form, in JSON and in metadata.

For `description` and `fvlrp.network.importing`. Hides the forms; the result is a list of names in the order of outputs.
"""

from __future__ import annotations

import ast
import csv
import json
import os
import re
from collections.abc import Mapping, Sequence

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
_YAML = re.compile(rf"^(?:{'|'.join(CLASS_KEYS)}):[ \t]*(.*)$", re.MULTILINE)


def read_classes(path: str | os.PathLike[str]) -> list[str]:
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
    with open(path, encoding="utf-8-sig") as file:
        text = file.read()
    try:
        names = _names_of_text(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{os.fspath(path)} does not list class names: {error}") from error
    if not names:
        raise ValueError(f"{os.fspath(path)} does not list class names: it is empty")
    return short_names(names)


def class_names(values: Mapping[str, Parsed]) -> list[str] | None:
    """The names of the outputs in a description, if it has any."""
    for key in CLASS_KEYS:
        if values.get(key) is not None:
            return short_names(_in_order(key, values[key]))
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


def named(metadata: Mapping[str, Parsed]) -> list[str] | None:
    """The names in metadata, also one level below ("config"); entries that list none are skipped."""
    for values in (metadata, *(each for each in metadata.values() if isinstance(each, dict))):
        for key in CLASS_KEYS:
            value = values.get(key)
            if value is None or value == "":
                continue
            try:
                return short_names(_in_order(key, value))
            except (ValueError, TypeError):
                continue
    return None


def _names_of_text(text: str) -> list[str]:
    stripped = text.strip()
    if stripped[:1] in ("[", "{"):
        values = parsed(stripped)
        if isinstance(values, str):
            raise ValueError("it begins like JSON, but is none")
        if isinstance(values, dict):
            key = next((key for key in CLASS_KEYS if isinstance(values.get(key), list | dict)), None)
            return _in_order("the file" if key is None else key, values if key is None else values[key])
        return _in_order("the file", values)
    for read in (_of_items, _of_yaml, _of_table):
        found = read(stripped)
        if found:
            return found
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) == 1 and "," in lines[0]:
        return [name.strip() for name in lines[0].split(",") if name.strip()]
    numbered = [_NUMBERED.match(line) for line in lines]
    indices = [int(match[1]) for match in numbered if match]
    if len(indices) == len(lines) and sorted(indices) in (
        list(range(len(lines))),
        list(range(1, len(lines) + 1)),
    ):
        lines = [str(match[2]).strip("\"',") for _, match in sorted(zip(indices, numbered, strict=True)) if match]
    if lines and all(_SYNSET.match(line) for line in lines):
        lines = [_SYNSET.sub("", line) for line in lines]
    return lines


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


def _in_order(key: str, names: Parsed) -> list[str]:
    """Labels in the order of the outputs, from a list or from an object, whose order does not matter."""
    if isinstance(names, dict):
        if all(isinstance(value, int) and not isinstance(value, bool) for value in names.values()):
            names = {str(index): name for name, index in names.items()}  # from name to index
        by_index = {str(index): name for index, name in names.items()}
        for first in (0, 1):
            if set(by_index) == {str(i + first) for i in range(len(by_index))}:
                names = [by_index[str(i + first)] for i in range(len(by_index))]
                break
    if isinstance(names, str):
        mark = next((each for each in "\n;|," if each in names.strip()), None)
        names = names if mark is None else [name.strip() for name in names.split(mark) if name.strip()]
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(f'{key} must list a label for each output, or have one for each of "0", "1", ...')
    if all(isinstance(name, dict) for name in names):
        names = _of_objects(key, names)
    return [str(name[-1] if isinstance(name, list | tuple) and name else name) for name in names]


def _of_objects(key: str, objects: Sequence[Mapping[str, Parsed]]) -> list[str]:
    """Names of objects such as {"id": 1, "name": "cat"}, in the order of their indices where they have any."""
    name = next((each for each in _NAME if all(each in one for one in objects)), None)
    if name is None:
        raise ValueError(f'{key} must name every class, such as {{"id": 0, "name": "cat"}}')
    index = next((each for each in _INDEX if all(isinstance(one.get(each), int) for one in objects)), None)
    ordered = objects if index is None else sorted(objects, key=lambda one: one[index])
    return [str(one[name]) for one in ordered]


def _of_items(text: str) -> list[str]:
    """TensorFlow's label maps: item { id: 1 name: "cat" display_name: "Cat" }."""
    items = [
        {key: int(number) if number else word for key, word, number in _FIELD.findall(item)}
        for item in _ITEM.findall(text)
    ]
    return _of_objects("the file", items) if items else []


def _of_yaml(text: str) -> list[str]:
    """The entry of a YAML file that lists classes: in brackets, with a dash each, or from index to name."""
    entry = _YAML.search(text)
    if entry is None:
        return []
    if entry[1].strip():
        value = parsed(entry[1].strip())
        if isinstance(value, str) and value.startswith("{"):
            return _of_yaml(text[: entry.start(1)] + "\n" + value.strip("{}").replace(",", "\n"))
        words = [word.strip().strip("\"'") for word in entry[1].strip(" []").split(",")]
        return _in_order("the file", words if isinstance(value, str) else value)
    found: dict[str, str] = {}
    for line in text[entry.end() :].splitlines():
        if not line.partition("#")[0].strip():
            continue
        item = re.match(r"\s*(?:-|(\d+):)\s+(.+?)\s*$", line)
        if item is None:
            break
        found[item[1] or str(len(found))] = item[2].strip("\"'")
    return _in_order("the file", found) if found else []


def _of_table(text: str) -> list[str]:
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
    return [row[name].strip() for row in sorted(rows, key=lambda row: int(row[index]))]
