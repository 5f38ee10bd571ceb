"""A new last layer for other classes. For `fvlrp.network.network`, whose `retrain` documents it.

Hides which layer is replaced, what it is learned from, and the form that the new one takes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..core.layer import Array
from .forward import output
from .graph import INPUT, Node, ancestors
from .layers import Conv, Dense, Flatten, GlobalAveragePool, NetworkLayer

Floats = npt.NDArray[np.float32]


# What may stand between the layer that makes the scores and the scores. Smooth or clipped activations end features.
_UNCHANGED = frozenset({"flatten", "reshape", "quantise", "constant"})  # a bias is a constant where a file rounds first
_BEHIND_SCORES = _UNCHANGED | {"relu", "leakyrelu", "globalaveragepool", "averagepool", "mean"}


def classifier(nodes: Sequence[Node]) -> int | None:
    """The layer that makes the scores: the last convolution or dense layer, if nothing learned or mixed follows it.

    None for a network that ends in features: in a normalisation, a residual sum, a selected token, an activation that
    no classifier ends in. A convolution with a ReLU and a global average behind it is taken for SqueezeNet's.
    """
    i, averaged = len(nodes) - 1, False
    while i != INPUT and nodes[i].kind in _BEHIND_SCORES:
        averaged |= nodes[i].kind not in _UNCHANGED
        i = nodes[i].inputs[0]
    found = i != INPUT and (nodes[i].kind == "conv" or (nodes[i].kind == "dense" and not averaged))
    return i if found else None


def features(nodes: Sequence[Node], x: Array, last: int | None) -> npt.NDArray[np.float64]:
    """What layer `last` reads of a prepared batch, averaged over pixels before a convolution: (n, d).

    None: what the network ends in.
    """
    read = output(nodes, x, len(nodes) - 1 if last is None else nodes[last].inputs[0]).astype(np.float64)
    averaged: npt.NDArray[np.float64] = read.mean(axis=(2, 3)) if read.ndim == 4 else read
    return averaged.reshape(len(averaged), -1)


def logistic(
    rows: npt.NDArray[np.float64],
    signs: npt.NDArray[np.int8],
    weights: npt.NDArray[np.float64],
    C: float | None,
    multilabel: bool,
) -> tuple[Floats, Floats]:
    """One-vs-rest logistic regressions on standardised features.

    Parameters
    ----------
    rows : float64 (n, d)
    signs : (n, n_classes) of 1, 0 (ignored) and -1
    weights : float64 (n, n_classes)
        Of each row's loss; 0 leaves it out.
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
    for j in range(int(two), signs.shape[1]):
        used = signs[:, j] * weights[:, j] != 0
        model = LogisticRegression(C=C, max_iter=1000).fit(standard[used], signs[used, j], weights[used, j])
        learned.append(np.append(model.coef_[0], model.intercept_[0]))
    # The one regression of two exclusive classes says by how much the second is ahead.
    coefficients = np.array([-learned[0] / 2, learned[0] / 2] if two else learned)
    weight = coefficients[:, :-1] / spread
    return weight.astype(np.float32), (coefficients[:, -1] - weight @ mean).astype(np.float32)


def with_head(nodes: Sequence[Node], last: int | None, weight: Floats, bias: Floats) -> list[Node]:
    """The nodes that layer `last` is computed from, and in its place a layer with `weight` and `bias`.

    None: all nodes, and the layer behind them. A dense layer is replaced by a dense one; a convolution by a 1 x 1
    convolution and global average pooling, so that relevance keeps its position.
    """
    needed = list(range(len(nodes))) if last is None else sorted(ancestors(nodes, last) - {last})
    place = {k: at for at, k in enumerate(needed)} | {INPUT: INPUT}
    kept = [
        Node(node.name, node.kind, node.layer, tuple(place[k] for k in node.inputs))
        for node in (nodes[k] for k in needed)
    ]
    source = len(nodes) - 1 if last is None else place[nodes[last].inputs[0]]
    name = "head" if last is None else nodes[last].name
    head: list[tuple[str, NetworkLayer]] = [(name, Dense(weight, bias))]
    if last is not None and nodes[last].kind == "conv":
        convolution = Conv(weight[:, :, None, None], bias)
        head = [(name, convolution), ("average", GlobalAveragePool()), ("scores", Flatten())]
    taken = {node.name for node in kept}
    for name, layer in head:
        while name in taken:
            name += "_"
        taken.add(name)
        kept.append(Node.of(name, layer, (source,)))
        source = len(kept) - 1
    return kept
