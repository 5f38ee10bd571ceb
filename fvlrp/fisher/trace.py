"""One image's forward pass through a Fisher-vector classifier, and its explanations.

Hides which pass relevance goes back through (float32, float32 with settled sums, or float64) and how targets are
batched. For the classifier.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..core.menu import Menu
from ..core.region import Region
from ..core.seen import Seen
from ..core.target import Label, One, Target
from ..core.trace import EXACT, Descent, Trace
from ..data import images
from ..data.images import ImageLike
from ..runtime.types import Classes, Doubles, Precision
from .rules import FisherRules
from .settle import settled
from .sift import DenseSIFT, Descriptors, read_grey
from .walk import DEPTHS, FLATS, REPRESENTATIONS, FisherStack, Pass, at_sums, relevance_at, walk


class FisherMenu(Menu[FisherRules]):
    """The valid targets, depths and rules of a Fisher-vector classifier."""

    def __init__(self, classes: Iterable[Label] | Classes) -> None:
        super().__init__(
            classes,
            DEPTHS,
            "bin",
            representations=REPRESENTATIONS,
            figure_depths=("bin", "descriptor"),
            report_depths=DEPTHS,
        )

    def rules(self, rules: object) -> FisherRules:
        """`rules` as a FisherRules value; see `FisherRules.of`."""
        return FisherRules.of(rules)


@dataclass(frozen=True)
class FisherModel:
    """A fitted classifier, ready to be applied: how images are read, the stack, and the valid arguments.

    Attributes
    ----------
    stack : FisherStack
    menu : FisherMenu
    max_height : int or None
        Taller images are first reduced to this height.
    """

    stack: FisherStack
    menu: FisherMenu
    max_height: int | None

    @property
    def sift(self) -> DenseSIFT:
        """The extractor of descriptors."""
        return self.stack.encode.bins.sift

    def vector(self, image: ImageLike, *, mirror: bool = False, n_jobs: int | None = None) -> Doubles:
        """The improved Fisher vector of an image or of its mirror image, float64 (cells * 2 K D,)."""
        grey = read_grey(image, self.sift, self.max_height)
        mirrored = np.ascontiguousarray(np.asarray(grey)[:, ::-1]) if mirror else grey
        return self.stack.vector(mirrored, np.float32, n_jobs)

    def scores(self, image: ImageLike, n_jobs: int | None = None) -> Doubles:
        """Scores of every class, float64 (n_classes,)."""
        return self.stack.scores(read_grey(image, self.sift, self.max_height), np.float32, n_jobs)

    def trace(self, image: ImageLike, dtype: npt.DTypeLike = "float32", n_jobs: int | None = None) -> FisherTrace:
        """One forward pass of one image."""
        return FisherTrace(self, image, dtype, n_jobs)


class FisherTrace(Trace[FisherRules]):
    """The forward pass of one image through a Fisher-vector classifier.

    Attributes
    ----------
    image : uint8 (H, W, 3)
    grey : float32 (h, w), or GreyRows
        What was analysed: `image` in grey, reduced to at most `max_height` rows.
    vector : float64 (cells * 2 K D,)
        The improved Fisher vector.
    scores, classes : as in Trace
    """

    kind = "Fisher vector"

    def __init__(
        self, model: FisherModel, image: ImageLike, dtype: npt.DTypeLike = "float32", n_jobs: int | None = None
    ) -> None:
        super().__init__(model, image, dtype, model.menu)
        self.stack = model.stack
        self.grey = read_grey(self.source, model.sift, model.max_height)
        passed = self.stack.forward(self.grey, self.dtype, n_jobs)
        self.vector, self.scores = passed.linear.x, passed.scores
        self._passes = {self.dtype: passed}
        self._settled: tuple[tuple[float, ...], Pass] | None = None  # stabilisers, and the pass settled for them

    @property
    def seen(self) -> Seen:
        return Seen.whole(self.image.shape, self.grey.shape)

    @property
    def descriptors(self) -> Descriptors:
        """All descriptors. Large images are analysed in strips; their descriptors are computed on access."""
        saved = self._passes[self.dtype].encode
        if saved.strips:
            return self.stack.encode.bins.sift.extract_grey(np.asarray(self.grey), saved.bins.n_jobs)
        return saved.project.descriptors

    def relevance(self, target: Target, depth: str, rules: FisherRules, name: str) -> Doubles:
        """Relevance of a target at a representation, which is the same on the way to every depth."""
        return relevance_at(name, self.stack, self._pass_for(rules), target, rules)

    def through(self, components: Sequence[int], target: One, rules: object = None) -> Doubles:
        """Relevance of every descriptor through single components of the mixture: float64 (components, n).

        Parameters
        ----------
        components : sequence of int
            Numbers of components, 0..K - 1.
        target, rules
            As `explain` takes them.

        Raises
        ------
        ValueError
            An unknown target or rule, or a component that the mixture does not have.
        """
        count = len(self.stack.encode.fisher.weights)
        for k in components:
            if not 0 <= k < count:
                raise ValueError(f"components must lie in 0..{count - 1}, got {k}")
        chosen = self.menu.rules(rules)
        passed = self._pass_for(chosen)
        r = at_sums(self.stack, passed, self.menu.target(target), chosen)
        return self.stack.encode.through(components, r[0], passed.encode, chosen)

    def _descend(
        self, targets: Sequence[Target], depths: Sequence[str], rules: FisherRules, region: Region | None
    ) -> list[Descent]:
        passed = self._pass_for(rules)
        flats = [FLATS[depth] for depth in depths]
        seen = region.resized(self._shape, (self.grey.shape[0], self.grey.shape[1])) if region else None
        together = self.stack.encode.targets_together(passed.encode, flats)
        return [
            descent
            for at in range(0, len(targets), together)
            for descent in self._descend_together(targets[at : at + together], depths, rules, passed, seen)
        ]

    def _descend_together(
        self,
        targets: Sequence[Target],
        depths: Sequence[str],
        rules: FisherRules,
        passed: Pass,
        region: Region | None,
    ) -> list[Descent]:
        """Descents of as many targets as one pass takes, target by target."""
        found = walk(self.stack, passed, targets, depths, rules, region)
        return [
            Descent(images.resample_conserving(pixels[t], self._shape), target.score(passed.scores), entries.of(t))
            for t, target in enumerate(targets)
            for (pixels,), entries in found
        ]

    @property
    def _shape(self) -> tuple[int, int]:
        """Rows and columns of the photograph."""
        return self.image.shape[0], self.image.shape[1]

    def _pass(self, dtype: Precision) -> Pass:
        if dtype not in self._passes:
            parts = self.stack.encode.again(self._passes[self.dtype].encode, dtype)
            self._passes[dtype] = self.stack.upward(parts)
        return self._passes[dtype]

    def _pass_for(self, rules: FisherRules) -> Pass:
        """The pass that relevance goes back through: float64 if the rules need it, otherwise with settled sums.

        Settled sums differ only close to 0, so the vector and scores of the trace remain valid.
        """
        passed = self._pass(self.dtype if rules.fast_enough else EXACT)
        pooled = passed.encode.fisher
        if pooled.dtype == EXACT or not rules.reaches_small_sums:
            return passed
        epsilon = rules.stabilisers(pooled.sums, pooled.counts)
        key, last = tuple(epsilon.tolist()), self._settled  # replaced as a whole: threads may walk together
        if last is None or last[0] != key:
            models = self.stack.encode.models
            found = settled(pooled, models, epsilon, lambda: self._pass(EXACT).encode.fisher.sums)
            self._settled = last = key, passed._replace(encode=passed.encode._replace(fisher=found))
        return last[1]
