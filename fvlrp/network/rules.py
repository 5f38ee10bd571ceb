"""The rules by which a network's layers share relevance among their inputs, as small frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from ..runtime.arguments import check_amounts, check_choice, is_real


def total(values: np.ndarray) -> np.ndarray:
    """Sums over all axes but the first, in double: one entry of the ledger for each target."""
    return values.sum(axis=tuple(range(1, values.ndim)), dtype=np.float64)


def ratio(r: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
    """r / z with 0 where z is 0, and the sums of the r that find nothing there to be shared by."""
    empty = z == 0
    if not empty.any():
        return r / z, 0.0
    ratio = r / np.where(empty, 1, z)
    np.copyto(ratio, 0, where=empty)
    return ratio, total(np.where(empty, r, 0))


@dataclass(frozen=True)
class Shares:
    """What multiplies z_ij on the way back: R_i = sum_j (z+_ij positive_j + z-_ij negative_j).

    Attributes
    ----------
    positive, negative : real (targets, ...)
        The same array where the sign of z_ij does not matter; `negative` is None where it is zero throughout.
    absorbed, zero : float64 (targets,) or 0.0
        What the stabiliser keeps, and what vanishes with zero denominators (0 / 0 is 0).
    """

    positive: np.ndarray
    negative: np.ndarray | None
    absorbed: np.ndarray | float = 0.0
    zero: np.ndarray | float = 0.0


@dataclass(frozen=True)
class Epsilon:
    """R_i = sum_j z_ij / (z_j + epsilon sgn z_j) R_j, sgn 0 = +1: what epsilon keeps is in the ledger."""

    epsilon: float = 1e-6
    signed = False  # whether z+ and z- are needed apart

    def __post_init__(self):
        check_amounts(self, "epsilon")

    def shares(self, r: np.ndarray, z: np.ndarray, positive, negative) -> Shares:
        """`r` (targets, ...) over `z` of its trailing shape; `positive`, `negative` are not needed."""
        size = np.abs(z) + z.dtype.type(self.epsilon)
        share, zero = ratio(r, np.copysign(size, z + 0.0))  # -0.0 counts as +0.0
        absorbed = total(share * np.copysign(z.dtype.type(self.epsilon), z + 0.0)) if self.epsilon else 0.0
        return Shares(share, share, absorbed, zero)


@dataclass(frozen=True)
class AlphaBeta:
    """R_i = sum_j (alpha z+_ij / z+_j - beta z-_ij / z-_j) R_j with alpha = 1 + beta.

    A term whose denominator is 0 vanishes (the ledger names it). Inputs of both signs are right: z+ holds positive
    inputs times positive weights and negative times negative.
    """

    alpha: float = 2.0
    beta: float = 1.0
    signed = True

    def __post_init__(self):
        check_amounts(self, "alpha", "beta")
        if abs(self.alpha - 1 - self.beta) > 1e-9:
            raise ValueError(f"alpha must be 1 + beta, got alpha={self.alpha!r}, beta={self.beta!r}")

    def shares(self, r: np.ndarray, z: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Shares:
        """`r` (targets, ...) over `positive` >= 0 and `negative` <= 0 of its trailing shape."""
        share, zero = ratio(r, positive)
        share *= self.alpha
        zero = self.alpha * zero
        if self.beta == 0:
            return Shares(share, None, 0.0, zero)
        other, missing = ratio(r, negative)
        other *= -self.beta
        return Shares(share, other, 0.0, zero - self.beta * missing)


@dataclass(frozen=True)
class ZPlus:
    """R_i = sum_j z+_ij / z+_j R_j: `AlphaBeta` with alpha 1, beta 0."""

    signed = True

    def shares(self, r: np.ndarray, z: np.ndarray, positive: np.ndarray, negative) -> Shares:
        """`r` (targets, ...) over `positive` of its trailing shape; `negative` is not needed."""
        return AlphaBeta(1.0, 0.0).shares(r, z, positive, negative)


@dataclass(frozen=True)
class Gamma:
    """R_i = sum_j (z_ij + gamma z+_ij) / (z_j + gamma z+_j) R_j where z_j >= 0; where z_j < 0, with z- for z+."""

    gamma: float = 0.25
    signed = True

    def __post_init__(self):
        check_amounts(self, "gamma")

    def shares(self, r: np.ndarray, z: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Shares:
        """`r` (targets, ...) over all of `z`, `positive` >= 0 and `negative` <= 0 of its trailing shape."""
        gamma = z.dtype.type(self.gamma)
        up = z >= 0
        share, zero = ratio(r, z + gamma * np.where(up, positive, negative))
        boosted = share * (1 + gamma)
        return Shares(np.where(up, boosted, share), np.where(up, share, boosted), 0.0, zero)


@dataclass(frozen=True)
class WSquare:
    """R_i = sum_j w_ij^2 / sum_i w_ij^2 R_j over the inputs inside the image: blind to the input, conserving."""


@dataclass(frozen=True)
class Flat:
    """R_i = sum_j R_j / (inputs of j inside the image): each output spread evenly over its receptive field."""


@dataclass(frozen=True)
class Box:
    """z^B for the layer that sees the pixels: z_ij = x_i w_ij - low_i w+_ij - high_i w-_ij, all of them >= 0.

    Parameters
    ----------
    low, high : float or sequence of one float per channel, optional
        Least and greatest value of the network's prepared input; None: those of a black and a white photograph.

    Notes
    -----
    The bias cancels (b - b+ - b- = 0), so the rule conserves whatever the policy for biases.
    """

    low: float | tuple[float, ...] | None = None
    high: float | tuple[float, ...] | None = None

    def __post_init__(self):
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


Rule = Epsilon | AlphaBeta | ZPlus | Gamma | WSquare | Flat | Box
NAMES = {kind.__name__.lower(): kind for kind in Rule.__args__}  # as text spells the rules: "alphabeta:2:1"
PRESETS = ("paper", "composite", "caffe-flat")


def spelled(text: str, what: str = "rule") -> Rule:
    """A rule from its name, and its numbers behind colons: "flat", "epsilon:0.1", "alphabeta:2:1", "box:-1:1"."""
    name, *numbers = text.split(":")
    check_choice(what, name.lower(), tuple(NAMES))
    kind = NAMES[name.lower()]
    takes = [field.name for field in fields(kind)]
    try:
        values = [float(number) for number in numbers]
    except ValueError:
        values = None
    if values is None or len(values) > len(takes):
        wanted = f"numbers for {', '.join(takes)}" if takes else "no numbers"
        raise ValueError(f"rule {name!r} takes {wanted} behind colons, got {text!r}")
    return kind(*values)


def _read(name: str, rule: Rule | str) -> Rule:
    return spelled(rule, f"the rule of {name!r}") if isinstance(rule, str) else rule


@dataclass(frozen=True)
class ConvRules:
    """Choices of a network's explanation: a rule for every layer and what else there is to choose.

    Activations, shapes and local response normalisation pass relevance on unchanged and take no rule.

    Parameters
    ----------
    default : rule, default AlphaBeta(2, 1)
        The rule of every layer that no other entry names.
    layers : mapping of str to rule
        Rules by a layer's name, by its kind ("conv", "dense", ...), or by "first": the convolutions and dense layers
        that no other comes before. A name counts before "first", "first" before a kind. Rules may be spelled as text
        here and in `default` and `below`: "flat", "epsilon:0.1" (see `spelled`).
    below : Flat or WSquare
        What takes the place of convolutions and dense layers below the depth.
    bias : {"absorb", "distribute", "ignore"}
        The bias is part of the denominators and keeps its share (the ledger names it); its share is spread evenly over
        the output's inputs; or it is left out of the denominators.
    pool : {"winner", "flat"}
        Pools below the depth: all to the maximum as above the depth, or evenly over the window. For pools above the
        depth, give their kind or name the rule `Flat`.
    flat : {"conserving", "caffe"}
        `Flat` divides by the window's inputs inside the image, all channels; or by kernel height x width alone as the
        LRP toolbox for Caffe does. That multiplies relevance by the channels and loses what falls on padding: for
        reproduction only (the ledger's "flat" names the difference).
    """

    default: Rule = AlphaBeta()
    layers: Mapping[str, Rule] | tuple = ()
    below: Flat | WSquare = Flat()
    bias: str = "absorb"
    pool: str = "winner"
    flat: str = "conserving"

    def __post_init__(self):
        for name in ("default", "below"):
            object.__setattr__(self, name, _read(name, getattr(self, name)))
        try:
            layers = sorted(dict(self.layers).items(), key=lambda item: str(item[0]))
        except (TypeError, ValueError):
            raise ValueError(f"layers must be a mapping of names or kinds to rules, got {self.layers!r}") from None
        object.__setattr__(self, "layers", tuple((name, _read(name, rule)) for name, rule in layers))
        for name, rule in (("default", self.default), *self.layers):
            if not isinstance(rule, Rule):
                valid = ", ".join(kind.__name__ for kind in Rule.__args__)
                raise ValueError(f"the rule of {name!r} must be one of {valid}, got {rule!r}")
        if not isinstance(self.below, Flat | WSquare):
            raise ValueError(f"below must be Flat() or WSquare(), got {self.below!r}")
        check_choice("bias", self.bias, ("absorb", "distribute", "ignore"))
        check_choice("pool", self.pool, ("winner", "flat"))
        check_choice("flat", self.flat, ("conserving", "caffe"))

    @classmethod
    def preset(cls, name: str) -> ConvRules:
        """The rules of a name: "paper", "composite" or "caffe-flat"."""
        if name == "paper":
            return cls()
        if name == "composite":
            return cls(layers={"dense": Epsilon(), "first": Box()})
        if name == "caffe-flat":
            return cls(flat="caffe")
        raise ValueError(
            f"unknown rules {name!r}; presets are {', '.join(map(repr, PRESETS))}; rules are {', '.join(NAMES)}"
        )

    @classmethod
    def of(cls, rules: ConvRules | Rule | Mapping[str, Rule] | str | None) -> ConvRules:
        """`rules` itself, or made from one rule or its name, a mapping of layers to rules, a preset, or None."""
        if rules is None:
            return cls()
        if isinstance(rules, cls):
            return rules
        if isinstance(rules, str):
            return cls(default=rules) if rules.split(":")[0].lower() in NAMES else cls.preset(rules)
        if isinstance(rules, Rule):
            return cls(default=rules)
        if isinstance(rules, Mapping):
            return cls(layers=rules)
        raise ValueError(
            "rules must be a ConvRules value, a rule, a mapping of layer names or kinds to rules, "
            f"or one of {', '.join(map(repr, PRESETS))}, got {rules!r}"
        )

    def changed(self, settings: Mapping[str, str], layers: Sequence[str] = ()) -> ConvRules:
        """These rules with some said otherwise, as text.

        A name is one of the `layers` that the network has, or a field ("bias", "below", ...), or a kind of layer.
        """
        own = {field.name for field in fields(self)} - {"layers", *layers}
        values = {name: value for name, value in settings.items() if name in own}
        named = {name: value for name, value in settings.items() if name not in own}
        return replace(self, **values, layers={**dict(self.layers), **named})

    def named(self, name: str, kind: str, first: bool) -> Rule | None:
        """The rule that `layers` has for a layer, if any."""
        layers = dict(self.layers)
        keys = (name, "first", kind) if first else (name, kind)
        return next((layers[key] for key in keys if key in layers), None)

    def to_dict(self) -> dict:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {"default": repr(self.default), "below": repr(self.below)}
        return {**values, "layers": {key: repr(rule) for key, rule in self.layers}}


@dataclass(frozen=True)
class Choice:
    """A rule and the options that apply with it, as one layer sees them.

    Attributes
    ----------
    rule : Rule
    bias, flat : as in ConvRules
    pool : "winner" or "flat"
    box : (low, high), each real (1, C, H, W), where the rule is Box
    """

    rule: Rule
    bias: str = "absorb"
    flat: str = "conserving"
    pool: str = "winner"
    box: tuple | None = None
