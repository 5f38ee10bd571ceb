"""The methods that both kinds of classifier share: predict, score, explain one image or many.

For the classifiers of the two stacks, which inherit from `Classifier`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ..data.images import ImageLike, Images, batch, naming_one, several_images
from ..evaluate.flipping import Score
from ..evaluate.ranking import average_precision
from ..runtime import cluster
from ..runtime.arguments import check_choice
from ..runtime.progress import Progress
from ..runtime.types import Classes, Pixels
from .menu import Menu
from .target import Depths, One, Targets
from .trace import AnyTrace, Explained


class Classifier(ABC):
    """Predictions and explanations, from the scores and traces that subclasses provide.

    Subclasses implement `decision_function`, `scores`, `trace` and `menu`, and set `classes_`, `multilabel_` and
    `n_jobs`.
    """

    classes_: Classes
    multilabel_: bool
    n_jobs: int | None

    @abstractmethod
    def decision_function(self, images: Images) -> npt.NDArray[np.float64]:
        """Scores (n, n_classes), or (n,) with two exclusive classes."""

    @abstractmethod
    def scores(self, image: ImageLike) -> npt.NDArray[np.float64]:
        """Scores of one image."""

    @abstractmethod
    def trace(self, image: ImageLike, dtype: npt.DTypeLike = "float32") -> AnyTrace:
        """One forward pass of one image, for any number of explanations."""

    @property
    @abstractmethod
    def menu(self) -> Menu[object]:
        """The valid targets, depths and rules; `menu.check` rejects others before any computation."""

    def predict(self, images: Images) -> Classes:
        """Classes (n,); for a classifier trained on a matrix of labels, an indicator of 0 / 1 (n, n_classes)."""
        scores = self.decision_function(images)
        if self.multilabel_:
            return (scores > 0).astype(np.int64)
        best = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(self, images: Images, labels: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None) -> float:
        """Accuracy; for a matrix of labels, the mean average precision (11-point) over classes.

        `sample_weight` weighs the accuracy; average precision takes no weights.
        """
        shape, count = np.shape(labels), len(batch(images))
        if not shape or shape[0] != count:
            raise ValueError(f"labels must have one row per image: {count} images, labels of shape {shape}")
        if (len(shape) == 2) != self.multilabel_:
            wanted = f"(n, {len(self.classes_)}), a column per class" if self.multilabel_ else "(n,), a class per image"
            raise ValueError(f"labels must have shape {wanted}, as those learned from, got {shape}")
        if not self.multilabel_:
            # scikit-learn's accuracy_score rejects classes that are not whole numbers.
            weights = None if sample_weight is None else np.asarray(sample_weight)
            return float(np.average(np.asarray(labels) == self.predict(images), weights=weights))
        if sample_weight is not None:
            raise ValueError("sample_weight must be None for a matrix of labels: average precision takes no weights")
        return float(np.nanmean(average_precision(labels, self.decision_function(images))))

    def explain(
        self,
        image: ImageLike | Images,
        target: Targets = None,
        depth: Depths = None,
        rules: object = None,
        dtype: npt.DTypeLike = "float32",
        *,
        keep: Sequence[str] = (),
        region: Sequence[int] | None = None,
    ) -> Explained:
        """Explain the score of `target`: an Explanation, or a list of them if target or depth is a sequence.

        The parameters are those of `Trace.explain`. With `dtype` "float64" (exact mode) ledgers close to 1e-9.
        A list of images gives the list of what `explain_many` yields.
        """
        if several_images(image):
            return list(
                self.explain_many(cast("Images", image), target, depth, rules, dtype=dtype, keep=keep, region=region)
            )
        self.menu.check(target, depth, rules, keep, region)  # before the forward pass
        return self.trace(cast("ImageLike", image), dtype).explain(target, depth, rules, keep=keep, region=region)

    def explain_many(
        self,
        images: Images,
        target: Targets = None,
        depth: Depths = None,
        rules: object = None,
        *,
        n_jobs: int | None = None,
        errors: str = "raise",
        dtype: npt.DTypeLike = "float32",
        keep: Sequence[str] = (),
        region: Sequence[int] | None = None,
    ) -> Iterator[Explained]:
        """Explain many images in order, in parallel and in bounded memory.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays
        target, depth, rules, dtype, keep, region
            As for `explain`, the same for every image.
        n_jobs : int, optional
            Number of threads, as in scikit-learn; None: the classifier's `n_jobs`. Results do not depend on it.
        errors : {"raise", "return"}
            For an image that cannot be explained: raise the error, naming the image, or yield the error in place of
            its explanation.

        Yields
        ------
        What `explain` returns for each image, in the order of `images`. On a dask cluster (inside joblib's
        ``parallel_config(backend="dask")``) explanations are returned without the model, like pickled ones.

        Raises
        ------
        ValueError
            An unknown target, depth, rule, representation or region. Raised by the call itself, before the first image.
        """
        images = batch(images)
        check_choice("errors", errors, ("raise", "return"))
        self.menu.check(target, depth, rules, keep, region)

        pool = cluster.workers(self.n_jobs if n_jobs is None else n_jobs)
        arguments = pool.keep((self, target, depth, rules, dtype, tuple(keep), region, errors))
        return pool.each(_explained, ((arguments, i, images[i]) for i in range(len(images))))

    def _scores_of(self, images: Images, verbose: bool) -> npt.NDArray[np.float64]:
        """`scores` of each image, (n, ...), on threads or on a cluster."""
        images = batch(images)
        if len(images) == 1:  # in this thread: its bands may have all of n_jobs
            return _scored(self, 0, images[0])[None]
        progress = Progress("image", len(images), verbose)
        pool = cluster.workers(self.n_jobs)
        model, found = pool.keep(self), []
        for scores in pool.each(_scored, ((model, i, images[i]) for i in range(len(images)))):
            found.append(scores)
            progress.step()
        return np.array(found)

    def flipper(self, image: ImageLike, target: One | None = None) -> Score:
        """The score of a target (None: the best class) as a function of altered copies of `image`.

        For `fvlrp.evaluate.pixel_flipping`. Scores whole images; subclasses may have something faster.
        """
        found = self.menu.target(self.trace(image).top if target is None else target)

        def score(images: Pixels) -> list[float]:
            scores = self.decision_function(list(images))
            per_class = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
            return [found.score(row) for row in per_class]

        return score


# A model, and the arguments of `explain`.
_Arguments: TypeAlias = (
    "tuple[Classifier, Targets, Depths, object, npt.DTypeLike, tuple[str, ...], Sequence[int] | None, str]"
)


def _explained(arguments: _Arguments, i: int, image: ImageLike) -> Explained:
    """The explanations of one image, or its error if errors are returned."""
    model, target, depth, rules, dtype, keep, region, errors = arguments

    def explained(own: ImageLike) -> Explained:
        return model.trace(own, dtype).explain(target, depth, rules, keep=keep, region=region)

    try:
        return naming_one(i, image, explained)
    except (ValueError, TypeError, OSError, MemoryError) as error:
        if errors == "raise":
            raise
        return error


def _scored(model: Classifier, i: int, image: ImageLike) -> npt.NDArray[np.float64]:
    return naming_one(i, image, model.scores)
