"""Explanations for Quantus (https://github.com/understandable-machine-intelligence-lab/Quantus), which measures them.

Hides what Quantus asks of a model: a torch module, even where scores are not computed by torch. For users.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..runtime.types import Classes, Floats, Untyped, Values


class Explainable(Protocol):
    """The methods of a classifier that are called here."""

    classes_: Classes

    def decision_function(self, images: list[Floats], /) -> npt.NDArray[np.float64]: ...
    def explain(self, image: Floats, target: Untyped, depth: str | None, /, *, rules: object) -> Untyped: ...


class ExplainFunction(Protocol):
    """The form in which Quantus calls for heatmaps (n, 1, H, W)."""

    def __call__(self, model: object, inputs: Values, targets: Values, **_: object) -> npt.NDArray[np.float64]: ...


def for_quantus(model: Explainable, depth: str | None = None, rules: object = None) -> tuple[Untyped, ExplainFunction]:
    """A classifier and its explanations in the form that metrics of Quantus take.

    Parameters
    ----------
    model : FisherVectorClassifier or Network
    depth, rules
        As for ``model.explain``.

    Returns
    -------
    module : torch.nn.Module
        From photographs float (n, 3, H, W) in 0..1 to scores float64 (n, n_classes). Values outside 0..1 are clipped.
        Has no parameters: metrics that randomise them, or inspect layers, do not apply.
    explain_func : callable
        ``explain_func(model, inputs, targets)`` -> heatmaps float64 (n, 1, H, W) of the classes at positions `targets`
        of ``model.classes_``.

    Raises
    ------
    ImportError
        torch is not installed.

    Examples
    --------
    >>> module, explain_func = fvlrp.evaluate.for_quantus(fvlrp.load("voc20"))  # doctest: +SKIP
    >>> quantus.PixelFlipping(features_in_step=256)(  # doctest: +SKIP
    ...     module, x_batch, y_batch, explain_func=explain_func, channel_first=True
    ... )
    """
    try:
        import torch
    except ImportError:
        raise ImportError("Quantus takes models of torch: pip install torch quantus") from None

    class Scores(torch.nn.Module):  # type: ignore[misc]
        def forward(self, x: Untyped) -> Untyped:
            scores = np.asarray(model.decision_function(_photographs(x.numpy(force=True))))
            return torch.from_numpy(scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1))

    def explain_func(model: object, inputs: Values, targets: Values, **_: object) -> npt.NDArray[np.float64]:
        pairs = zip(_photographs(np.asarray(inputs)), np.asarray(targets).tolist(), strict=True)
        return np.stack([explained(photo, target) for photo, target in pairs])

    def explained(photo: Floats, target: int) -> npt.NDArray[np.float64]:
        ex = model.explain(photo, model.classes_[target], depth, rules=rules)
        return np.asarray(ex.heatmap, np.float64)[None]

    return Scores().eval(), explain_func


def _photographs(batch: Values) -> list[Floats]:
    """Float32 (H, W, 3) in 0..1 of a batch (n, 3, H, W)."""
    return list(np.clip(batch, 0, 1).astype(np.float32).transpose(0, 2, 3, 1))
