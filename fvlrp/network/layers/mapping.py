"""Linear maps without a special kernel: relevance by any rule, from the map and its adjoint as functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...core.layer import Array, Passed
from ...core.ledger import Entries
from ..rules import Choice
from .join import conserving
from .layer import Saved


def linear(
    r: Array,
    saved: Saved,
    weight: Array,
    choice: Choice,
    up: Callable[[Array, Array], Array],
    back: Callable[[Array, Array], Array],
) -> Passed:
    """Relevance of the input of a linear map without a bias, with weights of any sign.

    Parameters
    ----------
    r : real (targets, ...)
    weight : real
    up : function (weight, x)
        The map.
    back : function (weight, share)
        Its adjoint.
    """
    (x,), y = saved
    rule = choice.rule.fitted(y)
    own = rule.weights(weight)
    if not rule.plain or not rule.signed:
        inputs = rule.inputs(x, None)[0]
        shares = rule.shares(r, y if rule.plain else up(own, inputs), None, None)
        return Passed([inputs * back(own, shares.positive)], Entries(absorbed=shares.absorbed, zero_sum=shares.zero))
    above, below = np.maximum(own, 0), np.minimum(own, 0)
    high, low = np.maximum(x, 0), np.minimum(x, 0)
    positive, negative = up(above, high) + up(below, low), up(below, high) + up(above, low)
    shares = rule.shares(r, y, positive, negative)
    out = high * back(above, shares.positive) + low * back(below, shares.positive)
    if shares.negative is not None:
        out += high * back(below, shares.negative) + low * back(above, shares.negative)
    return Passed([out], Entries(absorbed=shares.absorbed, zero_sum=shares.zero))


def averaged(
    r: Array,
    saved: Saved,
    choice: Choice,
    up: Callable[[Array], Array],
    back: Callable[[Array], Array],
    spread: Callable[[Array], Array],
) -> Passed:
    """Relevance of the input of a linear map with fixed weights >= 0, such as an average; see `conserving`.

    Parameters
    ----------
    up, back : function
        The map and its adjoint.
    spread : function
        Relevance shared evenly by all inputs of an output.
    """
    (x,), y = saved
    rule = choice.rule.fitted(y)
    if rule.sees != "inputs":
        return Passed([spread(r)], Entries())
    if not rule.signed:
        shares = rule.shares(r, y, None, None)
        return Passed([x * back(shares.positive)], Entries(absorbed=shares.absorbed, zero_sum=shares.zero))
    high, low = np.maximum(x, 0), np.minimum(x, 0)
    shares, rest = conserving(rule, r, y, up(high), up(low))
    out = high * back(shares.positive)
    if shares.negative is not None:
        out += low * back(shares.negative)
    if rest.any():
        out += spread(rest)
    return Passed([out], Entries(absorbed=shares.absorbed))
