"""Rules: how the relevance of an output is shared among the contributions to it.

An output z_j = sum_i z_ij + b_j of a linear map has contributions z_ij = w_ij x_i. Layers compute sums and products;
the rule decides everything else: what replaces weights and inputs, whether positive and negative contributions are
treated separately, the denominators, the shares, and what a stabiliser absorbs. Every rule is a frozen value. The
layers of both stacks call the methods of `Rule` and never test which rule it is.

To add a rule, subclass `Rule` and implement `shares`. Add it to `RULES`, so that text can name it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from ..runtime.arguments import check_amounts, check_choice, is_real
from .layer import Array
from .ledger import Amount

Bounds = tuple[Array, Array]

LOOK = 256  # values that are looked at before all are


def total(values: Array) -> npt.NDArray[np.float64]:
    """Sums over all axes but the first, in float64: one entry of the ledger for each target.

    Examples
    --------
    >>> fvlrp.rules.total(np.ones((2, 3, 4)))
    array([12., 12.])
    """
    sums: npt.NDArray[np.float64] = values.sum(axis=tuple(range(1, values.ndim)), dtype=np.float64)
    return sums


def nonzero(r: Array) -> bool:
    """Whether any value is not 0: one of the first says so most of the time."""
    return bool(r.flat[:LOOK].any() or r.any())


def vanishes(z: Array) -> npt.NDArray[np.bool]:
    """Where a denominator is 0, or so close to it that 1 / z may overflow and its terms have lost their precision.

    The tails of GELU and SiLU give such values: 0 times an infinite share would be NaN.
    """
    limits = np.finfo(np.result_type(z, np.float32))
    small: npt.NDArray[np.bool] = np.abs(z) < limits.smallest_normal / limits.eps
    return small


def ratio(r: Array, z: Array) -> tuple[Array, Amount]:
    """r / z, with 0 where z `vanishes`; and for each target the sum of r over those places.

    Examples
    --------
    >>> shares, lost = fvlrp.rules.ratio(np.array([[1.0, 2.0]]), np.array([[4.0, 0.0]]))
    >>> shares.tolist(), lost.tolist()
    ([[0.25, 0.0]], [2.0])
    """
    empty = vanishes(z)
    if not empty.any():
        return r / z, 0.0
    share = r / np.where(empty, 1, z)
    np.copyto(share, 0, where=empty)
    return share, total(np.where(empty, r, 0))


@dataclass(frozen=True, eq=False)
class Shares:
    """What contributions are multiplied by on the way back: R_i = sum_j (z+_ij positive_j + z-_ij negative_j).

    Attributes
    ----------
    positive : real (targets, ...)
        For contributions >= 0.
    negative : real (targets, ...) or None
        For contributions <= 0: the same object as `positive` if the sign does not matter, None if they get nothing.
    absorbed, zero : float64 (targets,) or 0.0
        What the stabiliser absorbs, and the relevance of outputs whose denominator is 0 (where 0 / 0 counts as 0).

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
    """How the relevance of outputs is shared among contributions. Subclasses are frozen dataclasses.

    Attributes
    ----------
    signed : bool
        Whether the rule needs z+ and z-, the sums of positive and of negative contributions, biases included.
    sees : {"inputs", "weights", "nothing"}
        What the shares depend on. With "weights" they are the same for all inputs; with "nothing" (`Flat`) they are the
        same for every input of an output. Layers without weights share evenly in both cases.
    bounded : bool
        Whether the rule needs the range of the inputs. Such a rule is for the layer that sees the pixels.
    kernel : (float, float, float) or None
        Alpha, beta and gamma, if one of the faster kernels implements the rule; gamma is -1 for the alpha-beta rules.

    Notes
    -----
    Rules whose contributions are not w_ij x_i override `weights` and `inputs` so that all contributions are >= 0. Then
    z is the sum of these contributions instead of the layer's output, and biases get no share.

    Examples
    --------
    >>> isinstance(fvlrp.rules.Epsilon(0.1), fvlrp.rules.Rule)
    True
    """

    signed: ClassVar[bool] = False
    sees: ClassVar[str] = "inputs"
    bounded: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.shares is Rule.shares and cls.fitted is Rule.fitted:
            raise TypeError(f"{cls.__name__} must define `shares`, or `fitted`, which returns a rule that does")

    @property
    def kernel(self) -> tuple[float, float, float] | None:
        return None

    @property
    def alpha_beta(self) -> tuple[float, float] | None:
        """Alpha and beta, if the rule is an alpha-beta rule."""
        return self.kernel[:2] if self.kernel and self.kernel[2] < 0 else None

    @property
    def amplifies(self) -> bool:
        """Whether relevance of both signs grows from layer to layer, each contribution beyond what it shares.

        Through all convolutions of a deep network, what is left at the pixels is mostly that (docs/choosing.md).
        """
        return False

    @property
    def stabiliser(self) -> float:
        """Epsilon for layers that use the epsilon rule whatever the rule is: normalisations, products in attention."""
        return 1e-6

    @property
    def plain(self) -> bool:
        """Whether contributions are w_ij x_i, so that z is the layer's output."""
        return self.sees == "inputs" and not self.bounded

    def fitted(self, z: Array) -> Rule:
        """The rule for a layer whose outputs are z (1, ...); for rules whose parameters depend on the whole layer."""
        return self

    def range_of(self, x: Array) -> Bounds | None:
        """The least and greatest values of the pixels x (1, C, H, W), in their shape, if the rule states them."""
        return None

    def weights(self, weight: Array) -> Array:
        """What replaces the weights in the contributions."""
        return weight

    def inputs(self, x: Array, bounds: Bounds | None) -> tuple[Array, Array | None]:
        """What replaces the inputs: two arrays, whose products with W+ and W- are the contributions >= 0.

        The second is None if it equals the first. For a signed rule the other products, W- with the first and W+ with
        the second, are the contributions <= 0.
        """
        if not self.signed or x.min(initial=0) >= 0:
            return x, None
        return np.maximum(x, 0), np.minimum(x, 0)

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        """The shares for relevance r (targets, ...) of outputs z (...), with z+ >= 0 and z- <= 0 of the same shape.

        z+ and z- are None unless the rule is `signed`. A rule without shares of its own has those of its `fitted` rule.
        """
        return self.fitted(z).shares(r, z, positive, negative)

    @property
    def spelled(self) -> str:
        """The rule as text: its name, then its numbers after colons. The function `spelled` reads it."""
        values = [_number(getattr(self, field.name)) for field in fields(self)]  # type: ignore[arg-type]
        return ":".join([type(self).__name__.lower(), *(text for text in values if text)])


def _number(value: npt.ArrayLike | None) -> str:
    """A number, or several separated by commas; "" for None."""
    if value is None:
        return ""
    return ",".join(f"{v:g}" if float(f"{v:g}") == v else repr(v) for v in np.ravel(value).tolist())


@dataclass(frozen=True)
class Epsilon(Rule):
    """R_i = sum_j z_ij / (z_j + epsilon sgn z_j) R_j, with sgn 0 = +1. The ledger has what epsilon absorbs.

    Examples
    --------
    >>> fvlrp.rules.NetworkRules(default=fvlrp.rules.Epsilon(0.1)).default
    Epsilon(epsilon=0.1)
    """

    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        check_amounts(self, "epsilon")

    @property
    def amplifies(self) -> bool:
        return True

    @property
    def stabiliser(self) -> float:
        return self.epsilon

    def shares(self, r: Array, z: Array, positive: Array | None = None, negative: Array | None = None) -> Shares:
        epsilon = np.copysign(z.dtype.type(self.epsilon), z + 0.0)  # -0.0 counts as +0.0
        share, zero = ratio(r, z + epsilon)
        return Shares(share, share, total(share * epsilon) if self.epsilon else 0.0, zero)


def _alpha_beta(alpha: float, beta: float, r: Array, positive: Array, negative: Array | None) -> Shares:
    """R_i = sum_j (alpha z+_ij / z+_j - beta z-_ij / z-_j) R_j; z- is not needed if beta is 0."""
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

    A term whose denominator is 0 is left out, and the ledger has its relevance. Inputs may have both signs: z+ sums
    products of positive inputs and weights and of negative inputs and weights.

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
    def amplifies(self) -> bool:
        return self.beta > 0

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
    """R_i = sum_j (z_ij + gamma z+_ij) / (z_j + gamma z+_j) R_j for z_j >= 0; for z_j < 0 with z- instead of z+.

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


class _WeightsOnly(Rule):
    """A rule that ignores the activations: every input counts as 1, so that shares depend only on `weights`."""

    def inputs(self, x: Array, bounds: Bounds | None) -> tuple[Array, Array | None]:
        return np.ones_like(x), None

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        share, zero = ratio(r, z)
        return Shares(share, share, 0.0, zero)


@dataclass(frozen=True)
class WSquare(_WeightsOnly):
    """R_i = sum_j w_ij^2 / sum_i w_ij^2 R_j over the inputs inside the image: conserves, and ignores the activations.

    Examples
    --------
    >>> fvlrp.rules.NetworkRules(layers={"conv1": fvlrp.rules.WSquare()}).layers
    (('conv1', WSquare()),)
    """

    sees: ClassVar[str] = "weights"

    def weights(self, weight: Array) -> Array:
        return np.square(weight)


@dataclass(frozen=True)
class Flat(_WeightsOnly):
    """R_i = sum_j R_j / (number of inputs of j inside the image): evenly over the receptive field of each output.

    Examples
    --------
    >>> fvlrp.rules.NetworkRules(layers={"conv1": fvlrp.rules.Flat()}).layers
    (('conv1', Flat()),)
    """

    sees: ClassVar[str] = "nothing"

    def weights(self, weight: Array) -> Array:
        return np.ones_like(weight)


@dataclass(frozen=True)
class Box(Rule):
    """The z^B rule for the layer that sees the pixels: z_ij = x_i w_ij - low_i w+_ij - high_i w-_ij >= 0.

    Parameters
    ----------
    low, high : float or sequence of one float per channel, optional
        Least and greatest value of the network's prepared input; None: those of a black and a white photograph.

    Notes
    -----
    The bias cancels (b - b+ - b- = 0), so the rule conserves relevance under every policy for biases.

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
            raise ValueError("low and high must be given together; without them the range follows from preprocessing")
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
            raise ValueError(
                "Box needs the range of the inputs, which is known only for the layer that sees the pixels"
            )
        low, high = (bound.reshape(x.shape).astype(x.dtype, copy=False) for bound in bounds)
        return x - low, x - high

    def shares(self, r: Array, z: Array, positive: Array | None, negative: Array | None) -> Shares:
        share, zero = ratio(r, z)
        return Shares(share, None, 0.0, zero)


RULES: tuple[type[Rule], ...] = (Epsilon, AlphaBeta, ZPlus, Gamma, WSquare, Flat, Box)
NAMES = {kind.__name__.lower(): kind for kind in RULES}  # the names of rules in text


def spelled(text: str, what: str = "rule") -> Rule:
    """A rule from text, its name and then its numbers after colons: "flat", "epsilon:0.1", "alphabeta:2:1", "box:-1:1".

    Raises
    ------
    ValueError
        An unknown name, or numbers that the rule does not take. The message calls the argument `what`.
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
        raise ValueError(f"rule {name!r} takes {wanted} after colons, got {text!r}")
    return kind(*values)


def _value(text: str) -> float | tuple[float, ...]:
    """A number, or several separated by commas."""
    numbers = tuple(float(number) for number in text.split(","))
    return numbers if len(numbers) > 1 else numbers[0]
