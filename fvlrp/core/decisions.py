"""What every classifier makes of its scores: predictions, and how good they are."""

from __future__ import annotations

import numpy as np

from ..data.images import batch
from ..evaluate import average_precision


class Decisions:
    """What both kinds of classifier make of their scores; they owe `decision_function`, `classes_`, `multilabel_`."""

    def predict(self, images) -> np.ndarray:
        """Classes (n,), or for labels that were a matrix an indicator of 0 / 1 (n, n_classes)."""
        scores = self.decision_function(images)
        if self.multilabel_:
            return (scores > 0).astype(np.int64)
        if scores.ndim == 1:
            return self.classes_[(scores > 0).astype(int)]
        return self.classes_[scores.argmax(axis=1)]

    def score(self, images, labels, sample_weight=None) -> float:
        """Accuracy, or for a matrix of labels the mean average precision (11-point) over classes.

        `sample_weight` weighs the accuracy; average precision has no weights.
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
            raise ValueError("sample_weight must be None for a matrix of labels: average precision has no weights")
        return float(np.nanmean(average_precision(labels, self.decision_function(images))))
