"""What both kinds of classifier share: a forward pass leaves a Trace, the walk back leaves Explanations and a Ledger.

A classifier is a stack of layers. A layer owes ``forward(x) -> (y, saved)`` and ``relevance(r, saved, rules) -> r``.
The depth says where exact decomposition ends; below it, mappings are replaced by flat weights over receptive fields.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

EXACT = np.dtype(np.float64)


def precision(dtype) -> np.dtype:
    """The type that a pass computes in, float32 or float64."""
    if dtype not in (np.float32, np.float64, "float32", "float64"):  # np.dtype(None) would be exact, too
        raise ValueError(f"dtype must be 'float32' (fast) or 'float64' (exact), got {dtype!r}")
    return np.dtype(dtype)


class Ledger(Mapping):
    """Where every unit of relevance went: ``score = sum of all other entries``.

    Keys are stages, values signed amounts. "score" is what was put in, "heatmap" what arrived at the pixels; the others
    were absorbed on the way, each computed from its own formula and never as what is left over. In fast mode
    (float32) the signed entry "rounding" shows the difference; in exact mode there is none.
    """

    def __init__(self, entries: Mapping[str, float], exact: bool):
        self.exact = exact
        self._entries = {stage: float(amount) for stage, amount in entries.items()}
        if not exact:
            heatmap = self._entries.pop("heatmap")
            self._entries["rounding"] = (
                self._entries["score"]
                - heatmap
                - sum(amount for stage, amount in self._entries.items() if stage != "score")
            )
            self._entries["heatmap"] = heatmap

    def __getitem__(self, stage: str) -> float:
        return self._entries[stage]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size(self) -> float:
        """Sum of the absolute amounts, the measure of `closes`."""
        return sum(map(abs, self._entries.values()))

    @property
    def residual(self) -> float:
        """What the entries do not explain, rounding included: score - heatmap - absorbed."""
        return self["score"] - sum(
            amount for stage, amount in self._entries.items() if stage not in ("score", "rounding")
        )

    def closes(self, rtol: float = 1e-9) -> bool:
        """Whether the residual is within `rtol` of `size`; float32 arithmetic is granted 1e-5."""
        return abs(self.residual) <= (rtol if self.exact else max(rtol, 1e-5)) * self.size

    def to_dict(self) -> dict[str, float]:
        return dict(self._entries)

    def __str__(self) -> str:
        width = max(map(len, self._entries))
        return "\n".join(f"{stage:<{width}}  {amount:+.6g}" for stage, amount in self._entries.items())

    def __repr__(self) -> str:
        return f"Ledger({', '.join(f'{stage}={amount:.6g}' for stage, amount in self._entries.items())})"


class Relevances(Mapping):
    """Relevance at a stack's representations, float64, computed when first asked for and kept."""

    def __init__(self, makers: Mapping[str, Callable[[], np.ndarray]]):
        self._makers = dict(makers)
        self._made: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._makers:
            raise KeyError(f"no relevance at {name!r}; representations are {', '.join(map(repr, self._makers))}")
        if name not in self._made:
            self._made[name] = np.asarray(self._makers[name](), np.float64)
        return self._made[name]

    def __getstate__(self) -> dict:
        """All of them: what makes them holds the whole forward pass, which no other process has."""
        return {"_makers": dict.fromkeys(self._makers), "_made": dict(self)}

    def __deepcopy__(self, memo) -> Relevances:
        return self  # nothing in it changes

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


class Explanation:
    """Why the score of one target is what it is: a heatmap, and the book-keeping behind it.

    Attributes
    ----------
    heatmap : float64 (H, W)
        Relevance per pixel of the input image, rows first, positive speaks for the target.
    score : float
        f(x) of the target: the SVM's score or the network's logit.
    target : class name or value of ``classes_``
    depth : str
        The representation down to which relevance was decomposed exactly.
    rules : the choices made
    relevance : mapping
        Relevance at the stack's representations, float64, computed when asked.
    ledger : Ledger
    image : uint8 (H, W, 3)
        The photograph, upright.
    """

    def __init__(self, *, heatmap, score, target, depth, rules, relevance, ledger, image):
        self.heatmap, self.score, self.target, self.depth = heatmap, float(score), target, depth
        self.rules, self.relevance, self.ledger, self.image = rules, relevance, ledger, image

    def __repr__(self) -> str:
        height, width = self.heatmap.shape
        return f"<Explanation of {self.target!r}: score {self.score:+.4g}, depth {self.depth!r}, {height} x {width}>"

    def to_image(self, cmap: str = "paper", symmetric: bool = True, bar: bool = False, scale: float | None = None):
        """The heatmap in colours, a PIL image: zero is neutral, `scale` (default max |R|) is the end of the map."""
        from ..show import render

        return render.to_image(self.heatmap, cmap=cmap, symmetric=symmetric, bar=bar, scale=scale)

    def overlay(self, cmap: str = "paper", gamma: float = 0.5, scale: float | None = None):
        """The heatmap over the photograph, more opaque where |R| is larger: a PIL image."""
        from PIL import Image

        from ..show import render

        return Image.fromarray(render.overlay(self.image, self.heatmap, cmap=cmap, gamma=gamma, scale=scale))

    def alpha(self, gamma: float = 0.5, background: int = 0, scale: float | None = None):
        """The photograph with positive relevance as its alpha channel over `background` (0 is black): a PIL image."""
        from PIL import Image

        from ..show import render

        return Image.fromarray(render.alpha(self.image, self.heatmap, gamma, background, scale))

    def _repr_png_(self) -> bytes:
        import io

        buffer = io.BytesIO()
        self.to_image().save(buffer, "PNG")
        return buffer.getvalue()

    def summary(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        return {
            "target": self.target,
            "depth": self.depth,
            "score": self.score,
            "heatmap_sum": float(self.heatmap.sum()),
            "shape": list(self.heatmap.shape),
            "rules": self.rules.to_dict() if hasattr(self.rules, "to_dict") else str(self.rules),
            "ledger": self.ledger.to_dict(),
        }

    def save(self, path, **options) -> None:
        """Write a picture (.png; `options` as `to_image` takes them) or the numbers (.npz), atomically."""
        from pathlib import Path

        from ..data import files
        from ..show import render

        suffix = Path(path).suffix.lower()
        if suffix == ".png":
            summary = self.summary()
            words = {name: str(summary[name]) for name in ("target", "depth", "score")}
            render.write_png(path, self.to_image(**options), {**words, "ledger": json.dumps(summary["ledger"])})
        elif suffix == ".npz":
            if options:
                raise ValueError(f"{', '.join(options)} belongs to a picture (.png); numbers (.npz) have no options")
            files.save_arrays(path, {"kind": files.EXPLANATION, **self.summary()}, {"heatmap": self.heatmap})
        else:
            raise ValueError(f"path must end in .png (picture) or .npz (numbers), got {str(path)!r}")


class Menu:
    """What a classifier's explanations can be asked for, known before any photograph is.

    Attributes
    ----------
    classes : list
        The values that a target can take, in the order of the scores.
    depths : tuple of str
        What a depth can be; `default_depth` is that of None, `figure_depths` are the paper's high and low resolution,
        `report_depths` a few to show.
    """

    def __init__(
        self,
        classes: Sequence,
        depths: Sequence[str],
        default_depth: str,
        figure_depths: Sequence[str] = (),
        report_depths: Sequence[str] = (),
    ):
        self.classes = [name.item() if isinstance(name, np.generic) else name for name in classes]
        self.depths, self.default_depth = tuple(depths), default_depth
        self.figure_depths, self.report_depths = tuple(figure_depths), tuple(report_depths)

    def check(self, target=None, depth=None, rules=None) -> None:
        """Raise the ValueError that `Trace.explain` would raise of the same arguments, without a forward pass."""
        for one in [] if target is None else _listed(target):
            self.target(one)
        for one in [] if depth is None else _listed(depth):
            self.depth(one)
        self.rules(rules)

    def rules(self, rules):
        """The value that holds all choices of an explanation, of whatever says them; None is the defaults."""
        return rules

    def target(self, target) -> int:
        """Position of a class name or value; overridden where indices are targets, too."""
        for i, name in enumerate(self.classes):
            if str(target) == str(name) or (type(target) is not bool and target == name):  # True is no class 1
                return i
        shown = ", ".join(map(str, self.classes[:40])) + (", ..." if len(self.classes) > 40 else "")
        raise ValueError(f"unknown target {target!r}; classes are {shown}")

    def depth(self, depth) -> str:
        """The name of a depth."""
        for name in self.depths:  # NumPy's strings are found, and leave as Python's
            if np.ndim(depth) == 0 and depth == name:
                return name
        raise ValueError(f"unknown depth {depth!r}; depths are {', '.join(map(repr, self.depths))}")


class Trace:
    """One forward pass, kept so that any number of targets, depths and rules can be explained from it.

    Attributes
    ----------
    scores : float64 (n_classes,)
    menu : Menu
        What can be asked for; its `classes`, `depths`, `default_depth`, `figure_depths` and `report_depths` are
        attributes here, too.
    """

    def __init__(self, scores: np.ndarray, menu: Menu):
        self.scores, self.menu = scores, menu
        self.classes, self.depths, self.default_depth = menu.classes, menu.depths, menu.default_depth
        self.figure_depths, self.report_depths = menu.figure_depths, menu.report_depths

    def explain(self, target=None, depth=None, rules=None) -> Explanation | list[Explanation]:
        """Explain targets at depths in one backward pass.

        Parameters
        ----------
        target : class name, value of the classes, or a sequence of them
            None: the class with the highest score.
        depth : str or sequence of str
            None: the default depth.
        rules : optional
            Choices of the stack; None for its defaults.

        Returns
        -------
        Explanation, or a list target by target with depths in the order given where either is a sequence.
        """
        targets = [self.top] if target is None else _listed(target)
        depths = [self.default_depth] if depth is None else _listed(depth)
        positions = [self.menu.target(t) for t in targets]
        depths = [self.menu.depth(d) for d in depths]
        rules = self.menu.rules(rules)
        explanations = self._explain(positions, depths, rules) if positions and depths else []
        return explanations if _several(target) or _several(depth) else explanations[0]

    @property
    def top(self):
        """The class with the highest score."""
        return self.classes[int(np.argmax(self.scores))]


def _listed(value) -> list:
    return list(value) if _several(value) else [value]


def _several(value) -> bool:
    return isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str) and np.ndim(value) > 0
