"""The class Trace: one forward pass of one image, which explains any number of targets, depths and rules.

Both stacks subclass `Trace` and walk their own layers. Hides what they share: the arguments of `explain`, the
combinations of targets and depths, and how an Explanation is assembled.
"""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from ..data import images
from ..data.images import ImageLike
from ..runtime.arguments import is_whole
from ..runtime.types import Pixels, Precision, Values
from .explanation import Explanation, Relevances
from .ledger import Ledger
from .menu import Menu, Rules
from .region import Region
from .seen import Seen
from .target import Depths, Label, One, Target, Targets, listed, several

EXACT = np.dtype(np.float64)
BEST = 5  # classes that an explanation lists with their scores

# One Explanation, or a list where targets, depths or images are several.
Explained: TypeAlias = Any  # type: ignore[explicit-any]  # which one depends on values, not types


def check_precision(dtype: npt.DTypeLike) -> Precision:
    """The dtype of a pass. ValueError unless it is float32 (fast) or float64 (exact)."""
    if dtype not in (np.float32, np.float64, "float32", "float64"):  # np.dtype(None) would be float64
        raise ValueError(f"dtype must be 'float32' (fast) or 'float64' (exact), got {dtype!r}")
    return EXACT if np.dtype(dtype) == EXACT else np.dtype(np.float32)


class Descent(NamedTuple):
    """Relevance of one target at the pixels, for one depth.

    Attributes
    ----------
    heatmap : float64 (H, W)
        At the photograph's own size.
    score : float
        The relevance at the top.
    entries : mapping of str to float
        What layers kept on the way.
    """

    heatmap: npt.NDArray[np.float64]
    score: float
    entries: Mapping[str, float]


class Traced(Protocol[Rules]):
    """A classifier, or the object that runs its forward passes; explanations compute more with it."""

    def trace(self, image: Values, dtype: npt.DTypeLike, /) -> Trace[Rules]: ...


class Trace(ABC, Generic[Rules]):
    """One forward pass of one image; explains any number of targets, depths and rules.

    Attributes
    ----------
    image : uint8 (H, W, 3)
        The photograph, upright.
    scores : float64 (n_classes,)
    classes : list
        The valid targets, in the order of the scores.
    menu : Menu
        The valid arguments of explanations.
    dtype : dtype
        float32 (fast) or float64 (exact).

    Parameters
    ----------
    model : a classifier
        Has a method `trace(image, dtype)`, by which explanations compute further relevances.
    image : path, PIL image or array
        Decoded once. Subclasses read the pixels from `source`.
    dtype : {"float32", "float64"}
    menu : Menu
    """

    scores: npt.NDArray[np.float64]
    kind = "classifier"  # the name of the model in explanations

    def __init__(self, model: Traced[Rules], image: ImageLike, dtype: npt.DTypeLike, menu: Menu[Rules]) -> None:
        self.model, self.dtype, self.menu = model, check_precision(dtype), menu
        pixels = self._pixels(image)
        # The caller may change its array later. A memory-mapped file is not copied.
        own = isinstance(image, np.ndarray) and not isinstance(image, np.memmap)
        self.source = pixels.copy() if own else pixels
        self.image = self._picture(self.source)

    def _pixels(self, image: ImageLike) -> Pixels:
        """The pixels that the model reads, (H, W) or (H, W, channels)."""
        return images.load(image)

    def _picture(self, pixels: Pixels) -> npt.NDArray[np.uint8]:
        """The picture that is shown, (H, W, 3)."""
        return images.rgb(pixels)

    @property
    def classes(self) -> list[Label]:
        return self.menu.classes

    @property
    def seen(self) -> Seen:
        """The part of the photograph that the model sees, and in how many pixels."""
        return Seen.whole(self.image.shape, self.image.shape)

    def stride(self, depth: str) -> tuple[int, int]:
        """Pixels, as the model sees them, between neighbouring positions of the representation at a depth: y, x.

        (1, 1) where relevance reaches single pixels, or is spread over them without a mesh.
        """
        return 1, 1

    @property
    def exact(self) -> bool:
        """Whether this pass runs in float64, so that ledgers close to 1e-9."""
        return self.dtype == EXACT

    @property
    def top(self) -> Label:
        """The class with the highest score."""
        return self.classes[int(np.argmax(self.scores))]

    def top_k(self, k: int = 5) -> dict[Label, float]:
        """The `k` classes with the highest scores and these, best first: ``trace.explain(list(trace.top_k(3)))``."""
        if not (is_whole(k) and k >= 1):
            raise ValueError(f"k must be a whole number of at least 1, got {k!r}")
        best = np.argsort(-self.scores, kind="stable")[:k]
        return {self.classes[i]: float(self.scores[i]) for i in best}

    def explain(
        self,
        target: Targets = None,
        depth: Depths = None,
        rules: object = None,
        *,
        keep: Sequence[str] = (),
        region: Sequence[int] | None = None,
    ) -> Explained:
        """Explain targets at depths in one backward pass.

        Parameters
        ----------
        target : class name, value of the classes, Contrast, or a sequence of them
            None: the class with the highest score.
        depth : str or sequence of str
            None: the default depth.
        rules : optional
            `FisherRules` or `NetworkRules`, or any spelling of them; None for the defaults.
        keep : sequence of str
            Names of representations whose relevance is computed at once and kept in the explanation.
        region : (y0, x0, y1, x1), optional
            Pixels of the photograph, rows y0 .. y1 - 1 and columns x0 .. x1 - 1, that are explained at `depth`; the
            rest is an overview at depth "descriptor". Descriptors whose support touches the region are decomposed down
            to `depth`, so that the map inside it is that of the whole image; only they absorb anything below
            "descriptor". Depths as coarse as the overview do not change. Fisher vectors only.

        Returns
        -------
        Explanation, or a list if target or depth is a sequence: target by target, depths in the order given.

        Raises
        ------
        ValueError
            An unknown target, depth, rule or representation; the message lists the valid ones. A region without pixels
            or not inside the photograph, or a region for a network.
        """
        targets = [self._top_target()] if target is None else listed(target)
        depths = [self.menu.default_depth] if depth is None else listed(depth)
        explanations = self.explain_all(targets, depths, rules, keep=keep, region=region)
        return explanations if several(target) or several(depth) else explanations[0]

    def explain_all(
        self,
        targets: Sequence[One],
        depths: Sequence[One],
        rules: object = None,
        *,
        keep: Sequence[str] = (),
        region: Sequence[int] | None = None,
    ) -> list[Explanation]:
        """`explain` for sequences of targets and depths: always returns a list, target by target."""
        found_targets = [self.menu.target(target) for target in targets]
        found_depths = [self.menu.depth(depth) for depth in depths]
        choices, names, found_region = self.menu.rules(rules), self.menu.kept(keep), self.menu.region(region)
        if found_region:
            found_region.check_inside(*self.image.shape[:2])
        if not (found_targets and found_depths):
            return []
        descents = self._descend(found_targets, found_depths, choices, found_region)
        pairs = ((target, depth) for target in found_targets for depth in found_depths)
        return [
            self._explanation(target, depth, choices, descent, names, found_region)
            for (target, depth), descent in zip(pairs, descents, strict=True)
        ]

    @abstractmethod
    def relevance(self, target: Target, depth: str, rules: Rules, name: str) -> npt.NDArray[np.float64]:
        """Relevance of a target at the representation `name`, float64, on the way down to `depth`."""

    @abstractmethod
    def _descend(
        self, targets: Sequence[Target], depths: Sequence[str], rules: Rules, region: Region | None
    ) -> list[Descent]:
        """Every target at every depth: target by target, depths in the order given."""

    def _top_target(self) -> Target:
        return self.menu.at(int(np.argmax(self.scores)))

    def _explanation(
        self,
        target: Target,
        depth: str,
        rules: Rules,
        descent: Descent,
        keep: Sequence[str],
        region: Region | None,
    ) -> Explanation:
        # Class tokens have no position: their relevance is spread evenly over the heatmap, but has its own entry, so
        # that the map sums to "heatmap" + "class_token".
        arrived = float(descent.heatmap.sum()) - descent.entries.get("class_token", 0.0)
        entries = {"score": descent.score, **descent.entries, "heatmap": arrived}
        again = _Again(self, target, depth, rules, region)
        return Explanation(
            heatmap=descent.heatmap,
            score=descent.score,
            target=target.label,
            depth=depth,
            rules=rules,
            relevance=Relevances(
                self.menu.representations, again, {name: self.relevance(target, depth, rules, name) for name in keep}
            ),
            ledger=Ledger(entries, self.exact),
            image=self.image,
            model=self.kind,
            best=self._best(),
            region=region,
            seen=self.seen,
            stride=self.stride(depth),
            again=again.explain,
        )

    def _best(self) -> list[tuple[Label, float]]:
        """The BEST classes with the highest scores, and their scores."""
        order = np.argsort(-self.scores, kind="stable")[:BEST]
        return [(self.classes[i], float(self.scores[i])) for i in order]


# Of either stack, for callers that only pass rules on.
AnyTrace: TypeAlias = "Trace[Any]"  # type: ignore[explicit-any]  # rules are only passed on


class _Again(Generic[Rules]):
    """Computes more for an explanation: from its trace while that is alive, otherwise by a new pass."""

    def __init__(self, trace: Trace[Rules], target: Target, depth: str, rules: Rules, region: Region | None) -> None:
        self._trace = weakref.ref(trace)
        self._model, self._source, self._dtype = trace.model, trace.source, trace.dtype
        self._arguments, self._region = (target, depth, rules), region

    def __call__(self, name: str) -> npt.NDArray[np.float64]:
        return self._found().relevance(*self._arguments, name)

    def explain(self, targets: Sequence[One], depths: Sequence[str] | None) -> list[Explanation]:
        """Explanations by the same rules; depths None: those of a report, and the one of the explanation."""
        trace, (_, own, rules) = self._found(), self._arguments
        if depths is None:
            depths = list(dict.fromkeys([*trace.menu.report_depths, own]))
        return trace.explain_all(targets, depths, rules, region=self._region)

    def _found(self) -> Trace[Rules]:
        return self._trace() or self._model.trace(self._source, self._dtype.name)
