"""The report's HTML: a head, a section per photograph, a table of contents, written piece by piece.

For core. The page is self-contained; its Content-Security-Policy forbids any request.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from ...runtime.types import Json
from ..colours import MAPS, SCALE, Scale, table
from ..smoothing import Smoothing
from . import coding

PHOTO_SIDE, MAP_SIDE = 1000, 640  # longest sides of what the page holds, in pixels
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True, eq=False)
class Map:
    """One heatmap: its depth, relevance (H, W), ledger, and a description of the ledger in words.

    `box` (top, left, bottom, right) is where the map holds, the rest is hatched; `smoothing` how the reader may smooth
    it.
    """

    depth: str
    heatmap: npt.NDArray[np.float64]
    ledger: Mapping[str, float]
    words: str = ""
    box: tuple[int, int, int, int] | None = None
    smoothing: Smoothing | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """What is explained, its score, and its maps from coarse to fine."""

    name: str
    score: float
    maps: Sequence[Map]


@dataclass(frozen=True, eq=False)
class Viewer:
    """The results of one model for a photograph: targets, and the classes with the highest scores.

    `resolution` says in words what the model saw of it.
    """

    model: str
    targets: Sequence[Target]
    best: Sequence[tuple[str, float]] = ()
    resolution: str = ""


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph uint8 (H, W, 3) with its name, and the results of models, shown side by side."""

    name: str
    image: npt.NDArray[np.uint8]
    viewers: Sequence[Viewer]


def pieces(
    photographs: Iterable[Photograph],
    *,
    title: str,
    about: str,
    meanings: Mapping[str, str],
    cmap: str,
    scale: Scale = SCALE,
    failed: Iterable[Mapping[str, str]] = (),
    small: bool = False,
    smooth: bool = False,
) -> Iterator[str]:
    """The page in pieces, one photograph at a time; a photograph is released when its piece has been yielded.

    Parameters
    ----------
    photographs : iterable of Photograph
    title, about : str
        The heading, and the line below it.
    meanings : mapping of str to str
        The meaning of each entry of a ledger.
    cmap : str
        The initial colour map.
    scale
        The scale of every map, as for `colours.magnitude`.
    failed : iterable of {"photo": ..., "error": ...}
        Photographs that could not be explained; read after the photographs.
    small : bool
        For a notebook's cell: half the size, and no table of contents.
    smooth : bool
        Whether maps that can be smoothed are at first.

    Yields
    ------
    str
    """
    colours = {name: base64.b64encode(table(name).tobytes()).decode() for name in MAPS}
    shared: dict[str, Json] = {"cmaps": colours, "cmap": cmap, "smooth": smooth, "meanings": dict(meanings)}
    yield _head(title, small)
    yield f"<header><h1>{escape(title)}</h1><p>{escape(about)}</p>{_asset('tools.html')}</header>\n<main>\n"
    names = []
    for number, one in enumerate(photographs, 1):
        yield _section(number, one, scale, small)
        names.append(one.name)
    lost = list(failed)
    yield _failures(lost)
    yield "</main>\n"
    if len(names) > 1 or lost:
        yield _contents(names, lost)
    yield f"{_asset('viewer.html')}\n{_data(shared, id='shared')}\n<script>\n{_asset('page.js')}</script>\n"
    yield "</body>\n</html>\n"


def frame(page: str, height: int) -> str:
    """A page inside another one, such as a notebook, where neither sees the other: an iframe `height` pixels high."""
    style = f"width:100%;height:{height}px;border:0"
    return f'<iframe sandbox="allow-scripts" style="{style}" srcdoc="{escape(page)}"></iframe>'


def _head(title: str, small: bool) -> str:
    body = '<body class="small">' if small else "<body>"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_asset('page.css')}</style>\n</head>\n"
        f"{body}\n"
    )


def _section(number: int, one: Photograph, scale: Scale, small: bool) -> str:
    """A photograph, and a viewer for each model; page.js builds the viewers from the data."""
    half = 2 if small else 1
    height, width = one.image.shape[:2]
    viewers: list[Json] = [
        {
            "model": viewer.model,
            "best": [[name, score] for name, score in viewer.best],
            "resolution": viewer.resolution,
            "targets": [
                {
                    "name": target.name,
                    "score": target.score,
                    "maps": [_map(one_map, scale, MAP_SIDE // half) for one_map in target.maps],
                }
                for target in viewer.targets
            ],
        }
        for viewer in one.viewers
    ]
    source = coding.photograph(one.image, PHOTO_SIDE // half)
    return (
        f'<section id="photograph-{number}"><h2>{escape(one.name)}</h2>\n'
        f'<img class="source" src="{source}" alt="{escape(one.name)}" width="{width}" height="{height}">\n'
        f'<div class="viewers"></div>\n{_data({"viewers": viewers})}\n</section>\n'
    )


def _map(one: Map, scale: Scale, side: int) -> dict[str, Json]:
    height, width = one.heatmap.shape
    found: dict[str, Json] = {
        "depth": one.depth,
        "words": one.words,
        "ledger": dict(one.ledger),
        "box": None if one.box in (None, (0, 0, height, width)) else list(one.box),
        **coding.heatmap(one.heatmap, scale, side),
    }
    if one.smoothing is not None:
        found["smooth"] = {"note": one.smoothing.words, **coding.heatmap(one.heatmap, scale, side, one.smoothing)}
    return found


def _failures(failed: Sequence[Mapping[str, str]]) -> str:
    if not failed:
        return ""
    items = "".join(f"<li>{escape(one['photo'])}: {escape(one['error'])}</li>" for one in failed)
    return f'<section id="failed"><h2>Could not be explained</h2><ul>{items}</ul></section>\n'


def _contents(names: Sequence[str], failed: Sequence[object]) -> str:
    """Comes last, when all names are known; the style sheet shows it first."""
    items = [f'<li><a href="#photograph-{i}">{escape(name)}</a></li>' for i, name in enumerate(names, 1)]
    if failed:
        items.append(f'<li><a href="#failed">could not be explained: {len(failed)}</a></li>')
    return f'<nav aria-label="Contents"><ol>{"".join(items)}</ol></nav>\n'


def _data(value: Json, **attributes: str) -> str:
    """JSON in a script element. No "<" in it can end the element; JSON has no NaN."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    given = "".join(f' {name}="{escape(words)}"' for name, words in attributes.items())
    return f'<script type="application/json"{given}>{text}</script>'


@lru_cache
def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
