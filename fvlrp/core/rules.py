"""Rules: how an output's relevance is shared among the contributions it was summed from.

An output z_j = sum_i z_ij + b_j of a linear map has contributions z_ij = w_ij x_i. A layer computes sums and products;
all that makes a rule is here, one frozen value a rule: what takes the place of weights and inputs, whether
contributions of either sign go apart, the denominators, the shares, and what a stabiliser absorbs. For the layers of
both stacks, which ask a rule and never which rule it is.

A new rule is one subclass of `Rule` with `shares`; named in `RULES`, it can be spelled as text, too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..runtime.arguments import check_amounts, check_choice, is_real
from .layer import Array
from .ledger import Amount

Bounds = tuple[Array, Array]


def total(values: Array) -> npt.NDArray[np.float64]:
    """Sums over all axes but the first, in float64: one entry of the ledger for each target.

    Examples
    --------
    >>> fvlrp.rules.total(np.ones((2, 3, 4)))
    array([12., 12.])
    """
    sums: npt.NDArray[np.float64] = values.sum(axis=tuple(range(1, values.ndim)), dtype=np.float64)
    return sums


def ratio(r: Array, z: Array) -> tuple[Array, Amount]:
    """r / z with 0 where z is 0, and the sums of the r that find nothing there to be shared by.

    Examples
    --------
    >>> shares, lost = fvlrp.rules.ratio(np.array([[1.0, 2.0]]), np.array([[4.0, 0.0]]))
    >>> shares.tolist(), lost.tolist()
    ([[0.25, 0.0]], [2.0])
    """
    empty = z == 0
    if not empty.any():
        return r / z, 0.0
    share = r / np.where(empty, 1, z)
    np.copyto(share, 0, where=empty)
    return share, total(np.where(empty, r, 0))


@dataclass(frozen=True, eq=False)
class Shares:
    """What multiplies contributions on the way back: R_i = sum_j (z+_ij positive_j + z-_ij negative_j).

    Attributes
    ----------
    positive : real (targets, ...)
        Of contributions >= 0.
    negative : real (targets, ...) or None
        Of contributions <= 0: the very array `positive` where the sign does not matter, None where they get nothing.
    absorbed, zero : float64 (targets,) or 0.0
        What the stabiliser keeps, and what finds a denominator of 0 (0 / 0 is 0).

    Examples
    --------
    >>> fvlrp.rules.Epsilon(1).shares(np.ones((1, 2)), np.array([[3.0, -1.0]]), None, None).positive
    array([[ 0.25, -0.5 ]])
    """

    positive: Array
    negative: Array | None
    absorbed: Amount = 0.0
    zero: Amount = 0.0


class Rule:
    """How the relevance of outputs is shared among their contributions. Subclasses are frozen dataclasses.

    Attributes
    ----------
    signed : bool
        Whether z+ and z-, the sums of the contributions of either sign, are needed apart. They hold the biases of
        their sign.
    sees : {"inputs", "weights", "nothing"}
        What the contributions are made of. Rules that see "weights" give the same shares whatever the inputs are, those
        that see "nothing" (`Flat`) the same to every input of an output; layers without weights of their own then
        share evenly.
    bounded : bool
        Whether the range of the inputs is needed: a rule for the layer that sees the pixels.
    kernel : (float, float, float) or None
        Alpha, beta and gamma for the faster kernels that know these families of rules; gamma is -1 where it is none.

    Notes
    -----
    Rules that see more or less than w_ij x_i override `weights` and `inputs` so that all contributions are >= 0. Their
    z is the sum of these contributions instead of the layer's output, and biases take no part.

    Examples
    --------
    >>> isinstance(fvlrp.rules.Epsilon(0.1), fvlrp.rules.Rule)
    True
    """

    signed: ClassVar[bool] = False
    sees: ClassVar[str] = "inputs"
    bounded: ClassVar[bool] = False

    @property
    def kernel(self) -> tuple[float, float, float] | None:
        return None

    @property
    def alpha_beta(self) -> tuple[float, float] | None:
        """Alpha and beta, where the rule is of that family."""
        return self.kernel[:2] if self.kernel and self.kernel[2] < 0 else None

    @property
    def stabiliser(self) -> float:
        """Epsilon of maps that share by z alone under every rule, such as normalisations and products of attention."""
        return 1e-6

    @property
    def plain(self) -> bool:
        """Whether contributions are w_ij x_i, so that z is the layer's output."""
        return self.sees == "inputs" and not self.bounded

    def fitted(self, z: Array) -> Rule:
        """The rule for a layer whose outputs are z (1, ...): another one where numbers depend on the whole layer."""
        return self

    def range_of(self, x: Array) -> Bounds | None:
        """The least and greatest values that the rule itself gives for the pixels x (1, C, H, W), in their shape."""
        return None

    def weights(self, weight: Array) -> Array:
        """What takes the place of weights in the contributions."""
        return weight

    def inputs(self, x: Array, bounds: Bounds | None) -> tuple[Array, Array | None]:
        """What takes the place of inputs: arrays that meet W+ and W- for contributions >= 0; one if it is the same.

        For a signed rule the other pairs, W- with the first and W+ with the second, give the contributions <= 0.
        """
        if not self.signed or x.min(initial=0) >= 0:
            return x, None
        return np.maximum(x, 0), np.minimum(x, 0)

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        """The shares of relevance r (targets, ...), of which z, z+ >= 0 and z- <= 0 have the trailing shape.

        z+ and z- are None unless the rule is `signed`.
        """
        raise NotImplementedError

    @property
    def spelled(self) -> str:
        """The rule as text: its name, and its numbers behind colons. `spelled` in this module reads it."""
        values = [_number(getattr(self, field.name)) for field in fields(self)]  # type: ignore[arg-type]
        return ":".join([type(self).__name__.lower(), *(text for text in values if text)])


def _number(value: Any) -> str:
    """A number, or some with commas between; nothing for None."""
    if value is None:
        return ""
    return ",".join(f"{v:g}" if float(f"{v:g}") == v else repr(v) for v in np.ravel(value).tolist())


@dataclass(frozen=True)
class Epsilon(Rule):
    """R_i = sum_j z_ij / (z_j + epsilon sgn z_j) R_j, sgn 0 = +1: what epsilon keeps is in the ledger.

    Examples
    --------
    >>> fvlrp.rules.NetworkRules(default=fvlrp.rules.Epsilon(0.1)).default
    Epsilon(epsilon=0.1)
    """

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        check_amounts(self, "epsilon")

    @property
    def stabiliser(self) -> float:
        return self.epsilon

    def shares(self, r: Array, z: Array, positive: Array | None = None, negative: Array | None = None) -> Shares:
        epsilon = np.copysign(z.dtype.type(self.epsilon), z + 0.0)  # -0.0 counts as +0.0
        share, zero = ratio(r, z + epsilon)
        return Shares(share, share, total(share * epsilon) if self.epsilon else 0.0, zero)


def _alpha_beta(alpha: float, beta: float, r: Array, positive: Array, negative: Array | None) -> Shares:
    """R_i = sum_j (alpha z+_ij / z+_j - beta z-_ij / z-_j) R_j; z- is not needed where beta is 0."""
    share, zero = ratio(r, positive)
    share *= share.dtype.type(alpha)
    zero = alpha * zero
    if beta == 0 or negative is None:
        return Shares(share, None, 0.0, zero)
    other, missing = ratio(r, negative)
    other *= other.dtype.type(-beta)
    return Shares(share, other, 0.0, zero - beta * missing)


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """R_i = sum_j (alpha z+_ij / z+_j - beta z-_ij / z-_j) R_j with alpha = 1 + beta.

    A term whose denominator is 0 vanishes (the ledger names it). Inputs of both signs are right: z+ holds positive
    inputs times positive weights and negative times negative.

    Examples
    --------
    >>> fvlrp.rules.AlphaBeta(2, 1)
    AlphaBeta(alpha=2.0, beta=1.0)
    """

    alpha: float = 2.0
    beta: float = 1.0
    signed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_amounts(self, "alpha", "beta")
        if abs(self.alpha - 1 - self.beta) > 1e-9:
            raise ValueError(f"alpha must be 1 + beta, got alpha={self.alpha!r}, beta={self.beta!r}")

    @property
    def kernel(self) -> tuple[float, float, float]:
        return self.alpha, self.beta, -1.0

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        assert positive is not None
        return _alpha_beta(self.alpha, self.beta, r, positive, negative)


@dataclass(frozen=True)
class ZPlus(Rule):
    """R_i = sum_j z+_ij / z+_j R_j: `AlphaBeta` with alpha 1, beta 0.

    Examples
    --------
    >>> fvlrp.rules.ZPlus().shares(np.ones((1, 1)), np.array([[1.0]]), np.array([[2.0]]), np.array([[-1.0]])).positive
    array([[0.5]])
    """

    signed: ClassVar[bool] = True

    @property
    def kernel(self) -> tuple[float, float, float]:
        return 1.0, 0.0, -1.0

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        assert positive is not None
        return _alpha_beta(1.0, 0.0, r, positive, None)


@dataclass(frozen=True)
class Gamma(Rule):
    """R_i = sum_j (z_ij + gamma z+_ij) / (z_j + gamma z+_j) R_j where z_j >= 0; where z_j < 0, with z- for z+.

    Examples
    --------
    >>> fvlrp.rules.Gamma(0.25)
    Gamma(gamma=0.25)
    """

    gamma: float = 0.25
    signed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_amounts(self, "gamma")

    @property
    def kernel(self) -> tuple[float, float, float]:
        return 1.0, 0.0, self.gamma

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        assert positive is not None and negative is not None
        gamma = z.dtype.type(self.gamma)
        up = z >= 0
        share, zero = ratio(r, z + gamma * np.where(up, positive, negative))
        boosted = share * (1 + gamma)
        return Shares(np.where(up, boosted, share), np.where(up, share, boosted), 0.0, zero)


@dataclass(frozen=True)
class WSquare(Rule):
    """R_i = sum_j w_ij^2 / sum_i w_ij^2 R_j over the inputs inside the image: blind to the input, conserving.

    Examples
    --------
    >>> fvlrp.rules.NetworkRules(layers={"conv1": fvlrp.rules.WSquare()}).layers
    (('conv1', WSquare()),)
    """

    sees: ClassVar[str] = "weights"

    def weights(self, weight: Array) -> Array:
        return np.square(weight)

    def inputs(self, x: Array, bounds: Bounds | None) -> tuple[Array, Array | None]:
        return np.ones_like(x), None

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        share, zero = ratio(r, z)
        return Shares(share, share, 0.0, zero)


@dataclass(frozen=True)
class Flat(Rule):
    """R_i = sum_j R_j / (inputs of j inside the image): each output spread evenly over its receptive field.

    Examples
    --------
    >>> fvlrp.rules.NetworkRules(layers={"conv1": fvlrp.rules.Flat()}).layers
    (('conv1', Flat()),)
    """

    sees: ClassVar[str] = "nothing"

    def weights(self, weight: Array) -> Array:
        return np.ones_like(weight)

    def inputs(self, x: Array, bounds: Bounds | None) -> tuple[Array, Array | None]:
        return np.ones_like(x), None

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        share, zero = ratio(r, z)
        return Shares(share, share, 0.0, zero)


@dataclass(frozen=True)
class Box(Rule):
    """z^B for the layer that sees the pixels: z_ij = x_i w_ij - low_i w+_ij - high_i w-_ij, all of them >= 0.

    Parameters
    ----------
    low, high : float or sequence of one float per channel, optional
        Least and greatest value of the network's prepared input; None: those of a black and a white photograph.

    Notes
    -----
    The bias cancels (b - b+ - b- = 0), so the rule conserves whatever the policy for biases.

    Examples
    --------
    >>> fvlrp.rules.Box(0, 1)
    Box(low=0.0, high=1.0)
    """

    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None
    bounded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high must be given together, or neither: then preprocessing says")
        if self.low is None:
            return
        for name in ("low", "high"):
            value = getattr(self, name)
            numbers = [value] if is_real(value) or not np.iterable(value) else list(value)
            if not numbers or not all(map(is_real, numbers)):
                raise ValueError(f"{name} must be a number, or one for each channel, got {value!r}")
            object.__setattr__(self, name, float(value) if is_real(value) else tuple(map(float, numbers)))
        low, high = np.asarray(self.low, np.float64), np.asarray(self.high, np.float64)
        if not (np.isfinite(low).all() and np.isfinite(high).all()) or (np.ndim(low) and low.shape != high.shape):
            raise ValueError(f"low and high must be finite and of one length, got {self.low!r} and {self.high!r}")
        if (low > high).any():
            raise ValueError(f"low must not exceed high, got low={self.low!r}, high={self.high!r}")

    def range_of(self, x: Array) -> Bounds | None:
        if self.low is None or self.high is None:
            return None
        for value in (self.low, self.high):
            if np.size(value) not in (1, x.shape[1]):
                raise ValueError(f"Box holds {np.size(value)} values, the input has {x.shape[1]} channels")
        low, high = (np.reshape(value, (1, -1, *(1,) * (x.ndim - 2))) for value in (self.low, self.high))
        return np.broadcast_to(low, x.shape).astype(x.dtype), np.broadcast_to(high, x.shape).astype(x.dtype)

    def inputs(self, x: Array, bounds: Bounds | None) -> tuple[Array, Array | None]:
        if bounds is None:
            raise ValueError("Box needs the range of the inputs, which the layer that sees the pixels alone has")
        low, high = (bound.reshape(x.shape).astype(x.dtype, copy=False) for bound in bounds)
        return x - low, x - high

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        share, zero = ratio(r, z)
        return Shares(share, None, 0.0, zero)


RULES: tuple[type[Rule], ...] = (Epsilon, AlphaBeta, ZPlus, Gamma, WSquare, Flat, Box)
NAMES = {kind.__name__.lower(): kind for kind in RULES}  # as text spells the rules


def spelled(text: str, what: str = "rule") -> Rule:
    """A rule from its name, and its numbers behind colons: "flat", "epsilon:0.1", "alphabeta:2:1", "box:-1:1".

    Raises
    ------
    ValueError
        An unknown name, or numbers that the rule does not take; `what` is what the message calls the argument.
    """
    name, *numbers = text.split(":")
    check_choice(what, name.lower(), tuple(NAMES))
    kind = NAMES[name.lower()]
    takes = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    try:
        values = [_value(number) for number in numbers]
    except ValueError:
        values = []
    if len(values) != len(numbers) or len(values) > len(takes):
        wanted = f"numbers for {', '.join(takes)}" if takes else "no numbers"
        raise ValueError(f"rule {name!r} takes {wanted} behind colons, got {text!r}")
    return kind(*values)


def _value(text: str) -> float | tuple[float, ...]:
    """A number, or several with commas between."""
    numbers = tuple(float(number) for number in text.split(","))
    return numbers if len(numbers) > 1 else numbers[0]
