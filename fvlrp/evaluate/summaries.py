"""Pixel flipping of many images, summarised as a table and a figure.

For the study, the command line and users. The input has, for each label (a model, a depth, a rule), one list per image
with the results of `pixel_flipping` for one heatmap and several orders.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ..show import curves
from ..show.tables import Cell, Table
from .flipping import BLIND, ORDERS, PixelFlipping, gap
from .statistics import bootstrap

Flippings: TypeAlias = "Mapping[str, Sequence[Sequence[PixelFlipping]]]"

NAMES = {"morf": "MoRF", "lerf": "LeRF", "random": "random", "centre": "centre", "edge": "edge"}
TITLES = {"morf": "most relevant first (MoRF)", "lerf": "least relevant first (LeRF)"}
BAND = 2000  # draws of a band's bootstrap at each step


def aopcs(flips: Sequence[Sequence[PixelFlipping]], order: str) -> npt.NDArray[np.float64]:
    """AOPC of one order for every image: (images,); NaN for an image that was not flipped in this order."""
    return np.array([_only(flipped, order).aopc if _has(flipped, order) else np.nan for flipped in flips])


def gaps(flips: Sequence[Sequence[PixelFlipping]]) -> npt.NDArray[np.float64]:
    """`gap` of every image: (images,); NaN for an image without both orders."""
    return np.array(
        [
            gap(_only(one, "morf"), _only(one, "lerf")) if _has(one, "morf") and _has(one, "lerf") else np.nan
            for one in flips
        ]
    )


def flipping_table(flips: Flippings) -> Table:
    """AOPC for each order, and the gap, with bootstrap intervals: one row per label.

    Raises
    ------
    ValueError
        An image has two flippings of one order.

    Examples
    --------
    >>> image = np.zeros((36, 36), np.float32)
    >>> image[:18] = 1
    >>> score = lambda images: images[:, :18].mean(axis=(1, 2))
    >>> morf, lerf = fvlrp.evaluate.pixel_flipping(score, image, image, order=["morf", "lerf"])
    >>> fvlrp.evaluate.flipping_table({"by the image itself": [[morf, lerf]]}).columns
    ['', 'AOPC MoRF', 'AOPC LeRF', 'gap', 'images']
    """
    seen = {one.order for images in flips.values() for flipped in images for one in flipped}
    orders = [order for order in ORDERS if order in seen]
    paired = {"morf", "lerf"} <= seen
    columns = ["", *(f"AOPC {NAMES[order]}" for order in orders), *(["gap"] if paired else []), "images"]
    rows: list[list[Cell]] = []
    for label, images in flips.items():
        estimates: list[Cell] = [bootstrap(aopcs(images, order)) for order in orders]
        rows.append([label, *estimates, *([bootstrap(gaps(images))] if paired else []), len(images)])
    return Table(columns, rows)


def flipping_curves(flips: Flippings, order: str = "morf") -> list[curves.Line]:
    """Mean fall of the score, f(x⁽⁰⁾) − f(x⁽ᵏ⁾), over the images of every label, with its bootstrap band.

    The curves end at the smallest number of regions of any image.

    Examples
    --------
    >>> image = np.zeros((36, 36), np.float32)
    >>> image[:18] = 1
    >>> score = lambda images: images[:, :18].mean(axis=(1, 2))
    >>> morf, lerf = fvlrp.evaluate.pixel_flipping(score, image, image, order=["morf", "lerf"])
    >>> len(fvlrp.evaluate.flipping_curves({"by the image itself": [[morf, lerf]]}))
    1
    """
    lines = []
    for label, images in flips.items():
        found = [_only(flipped, order).curve for flipped in images if _has(flipped, order)]
        if not found:
            continue
        length = min(map(len, found))
        falls = np.array([curve[0] - curve[:length] for curve in found])
        bands = [bootstrap(fall, draws=BAND) for fall in falls.T]
        low, high = (np.array([getattr(band, end) for band in bands]) for end in ("low", "high"))
        lines.append(curves.Line(label, falls.mean(axis=0), low, high))
    return lines


def plot_flipping(flips: Flippings, path: str | os.PathLike[str]) -> None:
    """Write a figure (.png, .svg or .pdf) with the curves of all labels, as `flipping_curves` returns them.

    A panel for MoRF and one for LeRF, on the same scale. Orders that ignore the model are dashed, beside MoRF.

    Raises
    ------
    ImportError
        Matplotlib, the extra ``plot``, is missing.
    ValueError
        Another suffix, or an image with two flippings of one order.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> image = np.zeros((36, 36), np.float32)
    >>> image[:18] = 1
    >>> score = lambda images: images[:, :18].mean(axis=(1, 2))
    >>> morf, lerf = fvlrp.evaluate.pixel_flipping(score, image, image, order=["morf", "lerf"])
    >>> fvlrp.evaluate.plot_flipping({"by the image itself": [[morf, lerf]]}, "flipping.png")
    """
    most, least = flipping_curves(flips, "morf"), flipping_curves(flips, "lerf")
    blind = [line for order in BLIND for line in _dashed(flips, order)]
    drawn = [([*most, *blind], TITLES["morf"] if most else "orders that ignore the model"), (least, TITLES["lerf"])]
    if not any(lines for lines, _ in drawn):
        raise ValueError("flips holds no flipping; expected one list of results per image under each label")
    ends = [end for lines, _ in drawn for line in lines for end in (line.y, line.low, line.high) if end is not None]
    limits = float(np.min([end.min() for end in ends])), float(np.max([end.max() for end in ends]))
    panels = [
        curves.Panel(lines, title, "regions replaced", "fall of the score", limits=limits)
        for lines, title in drawn
        if lines
    ]
    curves.save(panels, path)


def _dashed(flips: Flippings, order: str) -> list[curves.Line]:
    """The mean curves of an order that ignores the model, without bands."""
    lines = flipping_curves(flips, order)
    own = {line.label: line.label if line.label == order else f"{line.label}, {NAMES[order]}" for line in lines}
    return [replace(line, label=own[line.label], low=None, high=None, dashed=True) for line in lines]


def _has(flipped: Sequence[PixelFlipping], order: str) -> bool:
    return any(one.order == order for one in flipped)


def _only(flipped: Sequence[PixelFlipping], order: str) -> PixelFlipping:
    found = [one for one in flipped if one.order == order]
    if len(found) != 1:
        raise ValueError(f"an image has {len(found)} flippings of order {order!r}; expected those of one heatmap")
    return found[0]
