"""Protocol buffers without a schema: messages as text, and the fields of messages as bytes.

For `fvlrp.network.caffe`. Files are not trusted: nesting is limited, lengths are checked, and every defect raises a
ValueError or an IndexError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from ..runtime.types import Parsed

# A message as text: every value of every field, in order.
Message: TypeAlias = dict[str, list[Parsed]]

DEEPEST = 32  # nested messages

_TOKEN = re.compile(
    r"""\s+|\#[^\n]*
    |(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<word>[\w.+-]+)
    |(?P<mark>[{}:;,<>\[\]])""",
    re.VERBOSE,
)


def parse_text(text: str) -> Message:
    """A message in the text format: `key: value` and `key { ... }`, values as str, int, float, bool or messages."""
    tokens = list(_tokens(text))
    message, end = _message(tokens, 0, 0)
    if end != len(tokens):
        raise ValueError("one closing bracket too many")
    return message


def _tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise ValueError(f"unexpected {text[place]!r} in line {text.count(chr(10), 0, place) + 1}")
        if match.lastgroup:
            yield match.group()
        place = match.end()


def _message(tokens: Sequence[str], at: int, depth: int) -> tuple[Message, int]:
    """The message whose first field is tokens[at], and where it ends."""
    if depth > DEEPEST:
        raise ValueError(f"messages nested more than {DEEPEST} deep")
    message: Message = {}
    while at < len(tokens) and tokens[at] not in "}>":
        key, at = tokens[at], at + 1
        if at < len(tokens) and tokens[at] == ":":
            at += 1
        if at >= len(tokens):
            raise ValueError(f"{key} has no value")
        if tokens[at] in ("{", "<"):
            value, at = _message(tokens, at + 1, depth + 1)
            if at >= len(tokens):
                raise ValueError(f"{key} is not closed")
            message.setdefault(key, []).append(value)
            at += 1
        elif tokens[at] == "[":
            end = tokens.index("]", at) if "]" in tokens[at:] else len(tokens)
            message.setdefault(key, []).extend(_value(token) for token in tokens[at + 1 : end] if token != ",")
            at = end + 1
        else:
            message.setdefault(key, []).append(_value(tokens[at]))
            at += 1
        if at < len(tokens) and tokens[at] in (",", ";"):
            at += 1
    return message, at


def _value(token: str) -> str | int | float | bool:
    if token[0] in "\"'":
        return token[1:-1].replace("\\", "")
    if token in ("true", "false"):
        return token == "true"
    for kind in (int, float):
        try:
            return kind(token)
        except ValueError:
            continue
    return token


def varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def fields(data: memoryview) -> Iterator[tuple[int, int, Parsed]]:
    """(number, wire type, value) of every field: an int, or the bytes of what has a length or is a fixed number."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = varint(data, at)
            yield number, wire, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"wire type {wire}")
        length, at = varint(data, at) if wire == 2 else (8 if wire == 1 else 4, at)
        if length > len(data) - at:
            raise ValueError(f"a field of {length} bytes where {len(data) - at} are left")
        yield number, wire, data[at : at + length]
        at += length
