"""The stack of a Fisher-vector classifier: its forward pass, and the walk of relevance down to the pixels.

A depth says how many of the five layers are flat. The layers above decompose exactly (`relevance`), the topmost flat
layer spreads relevance directly over the pixels (`flat`), and the layers below it are skipped. For the trace and the
classifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..core.layer import Passed
from ..core.ledger import Entries
from ..core.region import Region
from ..core.target import Target
from ..runtime.types import Doubles
from .layers import Encode, Linear, Normalise, Parts, Scored
from .rules import FisherRules
from .sift import Grey

FLATS = {"vector": 3, "descriptor": 2, "bin": 1, "gradient": 0}  # number of flat layers at each depth, from the pixels
DEPTHS = tuple(FLATS)  # coarse to fine
REPRESENTATIONS = ("vector", "component", "descriptor", "pca", "sift", "bin")  # keys of `Explanation.relevance`


class Pass(NamedTuple):
    """What one forward pass saves.

    Attributes
    ----------
    encode, normalise, linear
        What each layer saved.
    scores : float64 (n_classes,)
    """

    encode: Parts
    normalise: tuple[int, ...]
    linear: Scored
    scores: Doubles


class FisherStack:
    """Encode -> Normalise -> Linear, with their forward pass.

    Parameters
    ----------
    encode : Encode
        SpatialBins, Project and Fisher in one layer.
    normalise : Normalise
    linear : Linear
    n_classes : int
        Two classes may share one hyperplane: its score f is that of the second class, and -f that of the first.
    """

    def __init__(self, encode: Encode, normalise: Normalise, linear: Linear, n_classes: int) -> None:
        self.encode, self.normalise, self.linear, self.n_classes = encode, normalise, linear, n_classes

    def forward(self, grey: Grey, dtype: npt.DTypeLike, n_jobs: int | None = None) -> Pass:
        """The forward pass of grey values float32 (H, W) in 0..1, computed in `dtype` after SIFT."""
        _, parts = self.encode.forward(grey, dtype=dtype, n_jobs=n_jobs)
        return self.upward(parts)

    def upward(self, parts: Parts) -> Pass:
        """The rest of the forward pass, from the Fisher sums on."""
        x, shape = self.normalise.forward(parts.fisher.sums)
        exact = parts.fisher.dtype == np.float64
        scores, scored = self.linear.forward(x, exact=exact, n_jobs=parts.bins.n_jobs)
        return Pass(parts, shape, scored, self.per_class(scores))

    def vector(self, grey: Grey, dtype: npt.DTypeLike, n_jobs: int | None = None) -> Doubles:
        """The improved Fisher vector, float64 (d,); nothing is saved for explanations."""
        sums, _ = self.encode.forward(grey, dtype=dtype, n_jobs=n_jobs, keep=False)
        return self.normalise.forward(sums)[0]

    def scores(self, grey: Grey, dtype: npt.DTypeLike, n_jobs: int | None = None) -> Doubles:
        """Scores of every class, float64 (n_classes,); nothing is saved for explanations."""
        x = self.vector(grey, dtype, n_jobs)
        return self.per_class(self.linear.forward(x, exact=np.dtype(dtype) == np.float64, n_jobs=n_jobs)[0])

    def start(self, targets: Sequence[Target], linear: Scored) -> Doubles:
        """Relevance of the hyperplanes' scores (targets, n_scores): what each contributes to the score of a target."""
        return self.terms(targets) * linear.scores

    def terms(self, targets: Sequence[Target]) -> Doubles:
        """Coefficients of targets over the hyperplanes, (targets, n_scores)."""
        terms = np.array([target.coefficients(self.n_classes) for target in targets]).reshape(-1, self.n_classes)
        return terms[:, 1:] - terms[:, :1] if self._mirrored else terms

    def per_class(self, scores: Doubles) -> Doubles:
        """One score per class; two classes with one hyperplane of score f have -f and f."""
        return np.array([-scores[0], scores[0]]) if self._mirrored else scores

    @property
    def _mirrored(self) -> bool:
        return len(self.linear.coef) == 1 and self.n_classes == 2


def walk(
    stack: FisherStack,
    passed: Pass,
    targets: Sequence[Target],
    depths: Sequence[str],
    rules: FisherRules,
    region: Region | None = None,
) -> list[Passed]:
    """Relevance of targets at the pixels: for each depth, maps (targets, H, W) and what layers kept on the way.

    With a region, only descriptors whose support touches it are decomposed further than "descriptor".
    """
    flats = [FLATS[depth] for depth in depths]
    (r,), above = stack.linear.relevance(stack.start(targets, passed.linear), passed.linear, rules)
    (r,), none = stack.normalise.relevance(r, passed.normalise, rules)
    above.include(none)
    found = []
    for pixels, below in stack.encode.descend(r, passed.encode, rules, flats, region):
        entries = Entries(above)
        entries.include(below)
        found.append(Passed(pixels, entries))
    return found


def relevance_at(name: str, stack: FisherStack, passed: Pass, target: Target, rules: FisherRules) -> Doubles:
    """Relevance of one target at a representation of the image, one of REPRESENTATIONS, float64."""
    if name == "vector":
        (r,), _ = stack.linear.relevance(stack.start([target], passed.linear), passed.linear, rules)
        return np.asarray(r[0], np.float64)
    r = at_sums(stack, passed, target, rules)
    if name == "component":
        return np.asarray(stack.encode.by_component(r, passed.encode, rules)[0])
    return np.asarray(stack.encode.at(name, r, passed.encode, rules)[0], np.float64)


def at_sums(stack: FisherStack, passed: Pass, target: Target, rules: FisherRules) -> Doubles:
    """Relevance of one target at the Fisher sums, float64 (1, cells, 2, K, D)."""
    (r,), _ = stack.linear.relevance(stack.start([target], passed.linear), passed.linear, rules)
    (r,), _ = stack.normalise.relevance(r, passed.normalise, rules)
    return np.asarray(r, np.float64)
