"""A new last layer for other classes. For `fvlrp.network.network`, whose `retrain` documents it.

Hides which layer is replaced, what it is learned from, and the form that the new one takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..core.layer import Array
from .forward import output
from .graph import INPUT, Node, ancestors
from .layers import Conv, Dense, Flatten, GlobalAveragePool, NetworkLayer

Floats = npt.NDArray[np.float32]


def last_learned(nodes: Sequence[Node]) -> int:
    """The last convolution or dense layer: the one that `head` replaces."""
    for i in reversed(range(len(nodes))):
        if nodes[i].kind in ("conv", "dense"):
            return i
    raise ValueError("the network has no convolution or dense layer to retrain")


def features(nodes: Sequence[Node], x: Array, last: int) -> npt.NDArray[np.float64]:
    """What layer `last` reads of a prepared batch, averaged over pixels before a convolution: (n, d)."""
    read = output(nodes, x, nodes[last].inputs[0]).astype(np.float64)
    averaged: npt.NDArray[np.float64] = read.mean(axis=(2, 3)) if nodes[last].kind == "conv" else read
    return averaged.reshape(len(averaged), -1)


def logistic(
    rows: npt.NDArray[np.float64], signs: npt.NDArray[Any], C: float | None, multilabel: bool
) -> tuple[Floats, Floats]:
    """One-vs-rest logistic regressions on standardised features.

    Parameters
    ----------
    rows : float64 (n, d)
    signs : (n, n_classes) of 1, 0 (ignored) and -1
    C : float or None
        Inverse strength of the L2 penalty; None: 10 / n.
    multilabel : bool
        Whether classes do not exclude each other. Two exclusive classes share one regression.

    Returns
    -------
    weight (n_classes, d), bias (n_classes,) : float32
        For features that are not standardised.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    spread[spread == 0] = np.inf  # a constant feature gets no weight
    standard = (rows - mean) / spread
    C = 10 / len(rows) if C is None else C
    two = signs.shape[1] == 2 and not multilabel
    learned = []
    for column in signs.T[1:] if two else signs.T:
        used = column != 0
        model = LogisticRegression(C=C, max_iter=1000).fit(standard[used], column[used])
        learned.append(np.append(model.coef_[0], model.intercept_[0]))
    # The one regression of two exclusive classes says by how much the second is ahead.
    coefficients = np.array([-learned[0] / 2, learned[0] / 2] if two else learned)
    weight = coefficients[:, :-1] / spread
    return weight.astype(np.float32), (coefficients[:, -1] - weight @ mean).astype(np.float32)


def with_head(nodes: Sequence[Node], last: int, weight: Floats, bias: Floats) -> list[Node]:
    """The nodes that layer `last` is computed from, and in its place a layer with `weight` and `bias`.

    A dense layer is replaced by a dense one; a convolution by a 1 x 1 convolution and global average pooling, so that
    relevance keeps its position.
    """
    old = nodes[last]
    needed = sorted(ancestors(nodes, last) - {last})
    place = {k: at for at, k in enumerate(needed)} | {INPUT: INPUT}
    kept = [
        Node(node.name, node.kind, node.layer, tuple(place[k] for k in node.inputs))
        for node in (nodes[k] for k in needed)
    ]
    source = place[old.inputs[0]]
    if old.kind == "dense":
        return [*kept, Node.of(old.name, Dense(weight, bias), (source,))]
    head: list[tuple[str, NetworkLayer]] = [
        (old.name, Conv(weight[:, :, None, None], bias)),
        ("average", GlobalAveragePool()),
        ("scores", Flatten()),
    ]
    taken = {node.name for node in kept}
    for name, layer in head:
        while name in taken:
            name += "_"
        taken.add(name)
        kept.append(Node.of(name, layer, (source,)))
        source = len(kept) - 1
    return kept
