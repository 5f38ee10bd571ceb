"""The verbs that both kinds of classifier share: predictions and their quality, explanations of one image or many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.images import ImageLike, batch, naming, several_images
from ..evaluate.flipping import Score
from ..evaluate.ranking import average_precision
from ..runtime import threads
from ..runtime.arguments import check_choice
from .menu import Menu
from .trace import Trace


class Classifier:
    """What a classifier makes of its scores and traces.

    Subclasses owe `decision_function`, `trace` and `menu`, and the attributes `classes_`, `multilabel_` and `n_jobs`.
    """

    classes_: npt.NDArray[Any]
    multilabel_: bool
    n_jobs: int | None

    def decision_function(self, images: Sequence[ImageLike]) -> npt.NDArray[np.float64]:
        """Scores (n, n_classes), or (n,) with two exclusive classes."""
        raise NotImplementedError

    def trace(self, image: ImageLike, dtype: Any = "float32") -> Trace:
        """One forward pass of one image, from which any number of explanations can be asked."""
        raise NotImplementedError

    @property
    def menu(self) -> Menu:
        """The valid targets, depths and rules; `menu.check` refuses others up front."""
        raise NotImplementedError

    def predict(self, images: Sequence[ImageLike]) -> npt.NDArray[Any]:
        """Classes (n,); for labels that were a matrix, an indicator of 0 / 1 (n, n_classes)."""
        scores = self.decision_function(images)
        if self.multilabel_:
            return (scores > 0).astype(np.int64)
        best = (scores > 0).astype(np.intp) if scores.ndim == 1 else scores.argmax(axis=1)
        return np.asarray(self.classes_[best])

    def score(self, images: Sequence[ImageLike], labels: Any, sample_weight: Any = None) -> float:
        """Accuracy; for a matrix of labels, the mean average precision (11-point) over classes.

        `sample_weight` weighs the accuracy; average precision takes no weights.
        """
        if np.ndim(labels) == 0 or len(labels) != len(batch(images)):
            raise ValueError(
                f"labels must have one row per image: {len(images)} images, labels of shape {np.shape(labels)}"
            )
        if (np.ndim(labels) == 2) != self.multilabel_:
            wanted = f"(n, {len(self.classes_)}), a column per class" if self.multilabel_ else "(n,), a class per image"
            raise ValueError(f"labels must have shape {wanted}, as those learned from, got {np.shape(labels)}")
        if not self.multilabel_:
            # scikit-learn's own refuses classes that are fractions.
            return float(np.average(np.asarray(labels) == self.predict(images), weights=sample_weight))
        if sample_weight is not None:
            raise ValueError("sample_weight must be None for a matrix of labels: average precision takes no weights")
        return float(np.nanmean(average_precision(labels, self.decision_function(images))))

    def explain(
        self,
        image: Any,  # an ImageLike, or several
        target: Any = None,
        depth: Any = None,
        rules: Any = None,
        dtype: Any = "float32",
        *,
        keep: Sequence[str] = (),
    ) -> Any:  # as `Trace.explain`: one explanation or a list
        """Why `target` has its score: an Explanation, or a list where target or depth is a sequence.

        Parameters are those of `Trace.explain`; `dtype` "float64" is the exact mode, whose ledgers close to 1e-9.
        For a list of images the result is the list that `explain_many` makes one by one.
        """
        if several_images(image):
            return list(self.explain_many(image, target, depth, rules, dtype=dtype, keep=keep))
        self.menu.check(target, depth, rules, keep)  # before the forward pass
        return self.trace(image, dtype).explain(target, depth, rules, keep=keep)

    def explain_many(
        self,
        images: Sequence[ImageLike],
        target: Any = None,
        depth: Any = None,
        rules: Any = None,
        *,
        n_jobs: int | None = None,
        errors: str = "raise",
        dtype: Any = "float32",
        keep: Sequence[str] = (),
    ) -> Iterator[Any]:
        """Explain images one after another, photographs in parallel, in bounded memory.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays
        target, depth, rules, dtype, keep
            As `explain` takes them, the same for every image.
        n_jobs : int, optional
            Threads, as scikit-learn counts; None takes the classifier's own. Results do not depend on it.
        errors : {"raise", "return"}
            What happens to an image that cannot be explained: its error is raised, naming the image, or comes in its
            place in the results.

        Yields
        ------
        What `explain` returns for each image, in their order.

        Raises
        ------
        ValueError
            At once: an unknown target, depth, rule or representation.
        """
        images = batch(images)
        check_choice("errors", errors, ("raise", "return"))
        self.menu.check(target, depth, rules, keep)

        def one(i: int) -> Any:
            try:
                return naming(
                    images, i, lambda image: self.trace(image, dtype).explain(target, depth, rules, keep=keep)
                )
            except (ValueError, TypeError, OSError, MemoryError) as error:
                if errors == "raise":
                    raise
                return error

        tasks = (partial(one, i) for i in range(len(images)))
        return threads.stream(tasks, self.n_jobs if n_jobs is None else n_jobs)

    def flipper(self, image: ImageLike, target: Any = None) -> Score:
        """f of a target (None: the best class) for copies of `image` with other pixels, as `pixel_flipping` takes it.

        A model that has no shortcut scores whole images.
        """
        found = self.menu.target(self.trace(image).top if target is None else target)

        def score(images: npt.NDArray[Any]) -> list[float]:
            scores = self.decision_function(list(images))
            per_class = np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores
            return [found.score(row) for row in per_class]

        return score
