"""The valid arguments of a model's explanations: targets, depths, rules and representations.

For traces and classifiers, which check arguments before any computation. Hides the spellings.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Generic, TypeVar

import numpy as np

from ..runtime.types import Classes
from .region import Region
from .target import Contrast, Depths, Label, Target, Targets, listed

SHOWN = 20  # names that an error lists

# The value that holds all choices of a stack: `FisherRules` or `NetworkRules`.
Rules = TypeVar("Rules")
Chosen = TypeVar("Chosen", covariant=True)


class Menu(ABC, Generic[Chosen]):
    """The valid targets, depths and representations of a model.

    Attributes
    ----------
    classes : list
        The values that a target can take, in the order of the scores.
    depths : tuple of str
        The valid depths.
    representations : tuple of str
        The valid names of ``Explanation.relevance`` and of ``keep``.
    default_depth : str
        The depth for None.
    """

    def __init__(
        self,
        classes: Iterable[Label] | Classes,
        depths: Sequence[str],
        default_depth: str,
        *,
        representations: Sequence[str] = (),
        figure_depths: Sequence[str] = (),
        report_depths: Sequence[str] = (),
    ) -> None:
        self.classes: list[Label] = [name.item() if isinstance(name, np.generic) else name for name in classes]
        self.depths, self.default_depth = tuple(depths), default_depth
        self.representations = tuple(representations)
        self._figure_depths, self._report_depths = tuple(figure_depths), tuple(report_depths)

    @property
    def figure_depths(self) -> tuple[str, ...]:
        """High and low resolution, as in the paper's Figure 1."""
        return self._figure_depths

    @property
    def report_depths(self) -> tuple[str, ...]:
        """The depths that a report shows, coarse to fine."""
        return self._report_depths

    @property
    def figure_rules(self) -> Chosen:
        """The rules of the paper's Figure 1."""
        return self.rules(None)

    def check(
        self,
        target: Targets = None,
        depth: Depths = None,
        rules: object = None,
        keep: Sequence[str] = (),
        region: Sequence[int] | None = None,
    ) -> None:
        """Raise the ValueError that `Trace.explain` raises for invalid arguments, without a forward pass."""
        for one in [] if target is None else listed(target):
            self.target(one)
        for one in [] if depth is None else listed(depth):
            self.depth(one)
        self.rules(rules)
        self.kept(keep)
        self.region(region)

    @abstractmethod
    def rules(self, rules: object) -> Chosen:
        """All choices as one frozen value, from any of their spellings; None means the defaults."""

    def target(self, target: object) -> Target:
        """The target for a class name, a value of the classes, or a `Contrast` of two."""
        if isinstance(target, Target):
            return target
        if not isinstance(target, Contrast):
            return self.at(self.position(target))
        positions = self.position(target.target), self.position(target.against)
        if positions[0] == positions[1]:
            raise ValueError(f"target contrasts {target.target!r} with itself; expected two different classes")
        for_, against = map(self.at, positions)
        terms = (*for_.terms, *((at, -coefficient) for at, coefficient in against.terms))
        return Target(Contrast(self.classes[positions[0]], self.classes[positions[1]]), terms)

    def at(self, position: int) -> Target:
        """The target for the class at a position."""
        return Target(self.classes[position], ((position, 1.0),))

    def position(self, name: object) -> int:
        """Position of a class among the scores. ValueError if no class, or more than one, has that name."""
        found = [i for i, known in enumerate(self.classes) if _same(name, known)]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"target {name!r} names {len(found)} classes; their indices are {found}: pass one of them")
        raise ValueError(f"unknown target {name!r}{_near(name, self.classes)}; classes are {self._shown()}")

    def depth(self, depth: object) -> str:
        """The name of a depth."""
        return _one_of("depth", "depths", depth, self.depths, self.default_depth)

    def kept(self, keep: Sequence[str]) -> tuple[str, ...]:
        """Names of representations, as `keep` lists them."""
        return tuple(_one_of("representation", "representations", name, self.representations) for name in listed(keep))

    def region(self, region: object) -> Region | None:
        """The pixels to explain at the requested depth; None: all of them."""
        return Region.of(region)

    def _shown(self, most: int = SHOWN) -> str:
        shown = ", ".join(map(str, self.classes[:most]))
        return f"{shown}, ... ({len(self.classes)} in all)" if len(self.classes) > most else shown


def _same(name: object, known: object) -> bool:
    if isinstance(name, bool) and not isinstance(known, bool):  # True does not name class 1
        return False
    return str(name) == str(known) or (getattr(name, "ndim", 0) == 0 and bool(name == known))


def _near(name: object, valid: Iterable[object]) -> str:
    """A question for the valid name that is spelled alike, or for the few that hold the same word."""
    wanted, known = str(name).casefold(), {str(known).casefold(): str(known) for known in valid}
    alike = get_close_matches(wanted, known, n=1, cutoff=0.75)
    word = [known[key] for key in known if re.search(rf"\b{re.escape(wanted)}\b", key)]
    near = [known[alike[0]]] if alike else word or [known[key] for key in get_close_matches(wanted, known, n=1)]
    return f": did you mean {' or '.join(map(repr, near[:3]))}?" if near else ""


def spans(names: Iterable[str]) -> list[str]:
    """Names, of which three or more that count up are one entry: "blocks.0 ... blocks.11"."""
    runs: list[list[str]] = []
    awaiting: dict[str | None, list[str]] = {}  # runs by the name that would continue them
    for name in names:
        run = awaiting.pop(name, [])
        if not run:
            runs.append(run)
        run.append(name)
        awaiting[_next(name)] = run
    return [entry for run in runs for entry in (run if len(run) < 3 else [f"{run[0]} ... {run[-1]}"])]


def _next(name: str) -> str | None:
    """The name with the next number: "blocks.1" after "blocks.0"; None for a name without a number at its end."""
    stem = name.rstrip("0123456789")
    number = name[len(stem) :]
    return f"{stem}{int(number) + 1}" if number else None


def _one_of(what: str, plural: str, value: object, valid: Sequence[str], first: str | None = None) -> str:
    """The valid name that `value` equals. An error lists a few of them, and `first` among those."""
    for name in valid:  # NumPy strings match, and Python strings are returned
        if getattr(value, "ndim", 0) == 0 and value == name:
            return name
    entries = [repr(entry).replace(" ... ", "' ... '") for entry in spans(valid)]
    if len(entries) > SHOWN:
        own = [repr(first)] if first in valid else []
        entries = [*own, *(entry for entry in entries if entry not in own)][:SHOWN]
        entries.append(f"... ({len(valid)} in all)")
    raise ValueError(f"unknown {what} {value!r}{_near(value, valid)}; {plural} are {', '.join(entries)}")
