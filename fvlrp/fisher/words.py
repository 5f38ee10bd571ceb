"""Visual words: for each mixture component, the patches of photographs with most relevance through it.

For `fvlrp words` and users. Hides how the best patches of many photographs are found one photograph at a time.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.target import One
from .geometry import BINS, box
from .trace import FisherTrace

APART = 0.5  # least distance of the centres of patches of one photograph and component, in sides of the larger patch


@dataclass(frozen=True, eq=False)
class Patch:
    """The pixels under one descriptor, with its relevance through a component.

    Attributes
    ----------
    component : int
    relevance : float
    photograph : int
        Index of the photograph.
    pixels : uint8 (h, w, 3)
    box : (ymin, xmin, ymax, xmax)
        In pixels of the photograph, half-open.
    """

    component: int
    relevance: float
    photograph: int
    pixels: npt.NDArray[np.uint8]
    box: tuple[int, int, int, int]


def component_relevance(traces: Iterable[tuple[FisherTrace, One]], rules: object = None) -> npt.NDArray[np.float64]:
    """Relevance of every component for every photograph, (photographs, K); each trace comes with its target."""
    found = []
    for trace, target in traces:
        chosen = trace.menu.rules(rules)
        found.append(trace.relevance(trace.menu.target(target), "descriptor", chosen, "component"))
    return np.array(found)


def top_patches(
    traces: Iterable[tuple[FisherTrace, One]],
    components: Sequence[int],
    count: int = 8,
    rules: object = None,
    each: int | None = None,
) -> list[list[Patch]]:
    """The patches with most relevance through each component, the most relevant first.

    Parameters
    ----------
    traces : iterable of (FisherTrace, target)
        One for each photograph; read one after another, and not kept.
    components : sequence of int
    count : int
        Number of patches per component; fewer if fewer have positive relevance.
    rules : optional
        As for `Trace.explain`.
    each : int, optional
        Most patches per photograph; None: `count`. Patches of one photograph do not overlap by more than half.

    Returns
    -------
    list of lists of Patch
        One list for each component.
    """
    best: list[list[tuple[float, int, Patch]]] = [[] for _ in components]  # heaps, the least relevant patch first
    number = 0
    for photograph, (trace, target) in enumerate(traces):
        relevance = trace.through(components, target, rules)
        for heap, component, own in zip(best, components, relevance, strict=True):
            least = heap[0][0] if len(heap) == count else 0.0
            for row in _apart(trace, own, each or count, least):
                number += 1  # of equal patches the first one found stays
                patch = Patch(component, float(own[row]), photograph, *_seen(trace, row))
                heapq.heappush(heap, (patch.relevance, -number, patch))
                if len(heap) > count:
                    heapq.heappop(heap)
    return [[patch for _, _, patch in sorted(heap, key=lambda item: item[:2], reverse=True)] for heap in best]


def _apart(trace: FisherTrace, relevance: npt.NDArray[np.float64], count: int, least: float) -> list[int]:
    """The most relevant descriptors above `least` whose patches do not overlap much, at most `count`."""
    frames = trace.descriptors.frames
    chosen: list[int] = []
    for row in np.argsort(-relevance, kind="stable").tolist():
        if relevance[row] <= least or len(chosen) == count:
            break
        y, x, size = frames[row].tolist()
        if all(
            max(abs(y - frames[other, 0]), abs(x - frames[other, 1])) >= APART * BINS * max(size, frames[other, 2])
            for other in chosen
        ):
            chosen.append(row)
    return chosen


def _seen(trace: FisherTrace, row: int) -> tuple[npt.NDArray[np.uint8], tuple[int, int, int, int]]:
    """The pixels of a descriptor's bins in the photograph, and where they lie."""
    y, x, size = trace.descriptors.frames[row].tolist()
    low, high = box(int(size))
    corner = np.array([y, x]) - 1.5 * size
    limit = np.array(trace.image.shape[:2])
    scale = limit / trace.grey.shape  # the photograph may have been reduced
    first = np.clip(np.floor((corner + low) * scale).astype(int), 0, limit - 1)
    last = np.clip(np.ceil((corner + (BINS - 1) * size + high) * scale).astype(int), first + 1, limit)
    (ymin, xmin), (ymax, xmax) = first.tolist(), last.tolist()
    return trace.image[ymin:ymax, xmin:xmax].copy(), (ymin, xmin, ymax, xmax)
