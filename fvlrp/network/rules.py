"""The choices of a network's explanation as one frozen value, and the choices for a single layer.

The rules themselves are in `fvlrp.core.rules`. For the modules of this wing; public in `fvlrp.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

from ..core.rules import NAMES, AlphaBeta, Bounds, Box, Epsilon, Flat, Gamma, Rule, ZPlus, spelled
from ..runtime.arguments import check_choice
from ..runtime.types import Json

# Fields that take words, and the words; the first is the default.
WORDS = {
    "bias": ("absorb", "distribute", "ignore"),
    "pool": ("winner", "flat"),
    "flat": ("conserving", "level", "caffe"),
    "attention": ("value", "both"),
    "gate": ("signal", "half"),
    "norm": ("linear", "identity"),
    "input_affine": ("pass", "rule", "fold"),
}

# Names of whole sets of rules: the fields that differ from the defaults. Those with an underscore are zennit's
# composites of that name (0.5.1): the rule of convolutions, epsilon 1e-6 for everything else that is linear.
# What a preset or a mapping says of one field.
Setting: TypeAlias = Any  # type: ignore[explicit-any]  # each field has a type of its own; it checks what it gets

PRESETS: dict[str, dict[str, Setting]] = {
    "smooth": {"flat": "level", "pool": "flat"},
    "paper": {"default": AlphaBeta(2, 1)},
    "composite": {"default": Epsilon(), "layers": {"conv": ZPlus(), "first": Box()}},
    "caffe-flat": {"default": AlphaBeta(2, 1), "flat": "caffe"},
    "attention": {
        "default": Epsilon(),
        "layers": {"conv": Gamma(0.25), "dense": Gamma(0.05), "matmul": Gamma(0.05)},
        "attention": "value",
        "flat": "level",
        "pool": "flat",
    },
    "attnlrp": {"default": Epsilon(), "attention": "both"},
    "cplrp": {"default": Epsilon(), "attention": "value"},
    "epsilon_plus": {"default": Epsilon(), "layers": {"conv": ZPlus()}},
    "epsilon_plus_flat": {"default": Epsilon(), "layers": {"conv": ZPlus(), "first": Flat()}},
    "epsilon_alpha2_beta1": {"default": Epsilon(), "layers": {"conv": AlphaBeta(2, 1)}},
    "epsilon_alpha2_beta1_flat": {"default": Epsilon(), "layers": {"conv": AlphaBeta(2, 1), "first": Flat()}},
    "epsilon_gamma_box": {"default": Epsilon(), "layers": {"conv": Gamma(0.25), "first": Box()}},
    "excitation_backprop": {"default": Epsilon(), "layers": {"conv": ZPlus(), "dense": ZPlus()}},
}


@dataclass(frozen=True)
class NetworkRules:
    """Choices of a network's explanation: a rule for every layer, and further options.

    Activations, reshaping and local response normalisation pass relevance on unchanged and have no rule.

    Parameters
    ----------
    default : rule, optional
        The rule of all layers that are not in `layers`. None: z+ in convolutions and epsilon in all others;
        docs/choosing.md has the measurements. (The preset "paper" is AlphaBeta(2, 1), whose heatmaps of deep networks
        are poor at the pixels.)
    layers : mapping of str to rule
        Rules by a layer's name, by its kind ("conv", "dense", ...), or by "first": the convolutions and dense layers
        closest to the pixels. A name takes precedence over "first", and "first" over a kind. Here and in `default` and
        `below`, rules may be given as text: "flat", "epsilon:0.1" (see `fvlrp.core.rules.spelled`).
    below : Flat or WSquare
        The rule of convolutions and dense layers below the depth.
    bias : {"absorb", "distribute", "ignore"}
        "absorb": the bias is part of the denominators and keeps its share (the ledger has it). "distribute": its share
        is spread evenly over the inputs of the output. "ignore": it is left out of the denominators.
    pool : {"winner", "flat"}
        Pooling layers below the depth. "winner": as above the depth, where a maximum gives all relevance to the winner
        and an average follows its rule. "flat": evenly over the window. For pools above the depth, set the rule `Flat`
        for their name or kind.
    flat : {"conserving", "level", "caffe"}
        What `Flat` does. "conserving" divides by the number of inputs of the window inside the image, over all
        channels. "level" conserves as well, and gives less to inputs that several windows share, so that equal
        relevance stays equal: this avoids the mesh that windows of 3 at a stride of 2 draw, and the frame at padded
        borders. "caffe" divides by kernel
        height x width only, as the LRP toolbox for Caffe does. That multiplies relevance by the number of channels and
        loses what falls on padding (ledger: "flat"); use it only to reproduce results.
    attention : {"value", "both"}
        Matrix products of attention. "value": the attention weights A of A V are constants and V gets all relevance
        (CP-LRP, Ali et al. 2022). "both": both factors of every product get half, and the softmax follows its
        first-order rule (AttnLRP, Achtibat et al. 2024).
    gate : {"signal", "half"}
        Products of a signal and a gate: the signal gets all (Arras et al. 2019), or both get half.
    norm : {"linear", "identity"}
        Normalisations by statistics of the input: the standard deviation is a constant and the rest a linear map, or
        relevance passes unchanged.
    input_affine : {"pass", "rule", "fold"}
        A channelwise scale and shift of the pixels, such as a normalisation inside the network, or a mean photograph
        that it subtracts. "pass": relevance passes unchanged, as if `Preprocess` normalised. "rule": it follows its
        rule, like any other layer. "fold": a channelwise one is treated as part of the next layer, so that black
        pixels get 0.

    Examples
    --------
    >>> rules = fvlrp.rules.NetworkRules(default="zplus", layers={"dense": "epsilon:0.01"})
    >>> dict(rules.layers)["dense"]
    Epsilon(epsilon=0.01)
    """

    default: Rule | None = None
    layers: Mapping[str, Rule] | tuple[tuple[str, Rule], ...] = ()
    below: Rule = field(default_factory=Flat)
    bias: str = "absorb"
    pool: str = "winner"
    flat: str = "conserving"
    attention: str = "value"
    gate: str = "signal"
    norm: str = "linear"
    input_affine: str = "pass"

    def __post_init__(self) -> None:
        object.__setattr__(self, "below", _rule("below", self.below))
        if self.default is not None:
            object.__setattr__(self, "default", _rule("default", self.default))
        try:
            layers = sorted(dict(self.layers).items(), key=lambda item: str(item[0]))
        except (TypeError, ValueError):
            raise ValueError(f"layers must be a mapping of names or kinds to rules, got {self.layers!r}") from None
        object.__setattr__(self, "layers", tuple((name, _rule(name, rule)) for name, rule in layers))
        if self.below.sees == "inputs":
            raise ValueError(f"below must be Flat() or WSquare(), which ignore activations, got {self.below!r}")
        for name, words in WORDS.items():
            check_choice(name, getattr(self, name), words)

    @classmethod
    def preset(cls, name: str) -> NetworkRules:
        """The rules of a name, one of `PRESETS`."""
        if name in PRESETS:
            return cls(**PRESETS[name])
        raise ValueError(
            f"unknown rules {name!r}; presets are {', '.join(map(repr, PRESETS))}; rules are {', '.join(NAMES)}"
        )

    @classmethod
    def of(cls, rules: object) -> NetworkRules:
        """`rules` as a NetworkRules value.

        Parameters
        ----------
        rules : NetworkRules, rule, str, mapping or None
            A rule, or its text form, becomes that of all layers. A name in `PRESETS` selects that preset. A mapping is
            from layer names or kinds to rules, or a result of `to_dict`. None: the defaults.

        Raises
        ------
        ValueError
            Anything else; the message lists the valid forms.
        """
        if rules is None:
            return cls()
        if isinstance(rules, cls):
            return rules
        if isinstance(rules, str):
            return cls(default=spelled(rules)) if rules.split(":")[0].lower() in NAMES else cls.preset(rules)
        if isinstance(rules, Rule):
            return cls(default=rules)
        if isinstance(rules, Mapping):
            return cls._of_mapping(rules)
        raise ValueError(
            "rules must be a NetworkRules value, a rule, a mapping of layer names or kinds to rules, "
            f"or one of {', '.join(map(repr, PRESETS))}, got {rules!r}"
        )

    @classmethod
    def _of_mapping(cls, rules: Mapping[str, Setting]) -> NetworkRules:
        if not isinstance(rules.get("layers"), Mapping):  # a layer of that name would have a rule
            return cls(layers=rules)
        unknown = sorted(set(rules) - {own.name for own in fields(cls)})
        if unknown:
            valid = ", ".join(own.name for own in fields(cls))
            raise ValueError(f"rules have no option {unknown[0]!r}; valid ones are {valid}")
        return cls(**rules)

    def changed(self, settings: Mapping[str, str], layers: Sequence[str] = ()) -> NetworkRules:
        """These rules with some replaced, given as text.

        A name is that of one of the network's `layers`, of a field ("bias", "below", ...) or of a kind of layer.
        """
        own = {mine.name for mine in fields(self)} - {"layers", *layers}
        values: dict[str, Setting] = {name: value for name, value in settings.items() if name in own}
        named = {name: value for name, value in settings.items() if name not in own}
        values["layers"] = {**dict(self.layers), **named}
        return replace(self, **values)

    def named(self, name: str, kind: str, first: bool) -> Rule | None:
        """The entry of `layers` for a layer, if any."""
        layers = dict(self.layers)
        keys = (name, "first", kind) if first else (name, kind)
        return next((layers[key] for key in keys if key in layers), None)

    def rule(self, name: str, kind: str, first: bool) -> Rule:
        """The rule of a layer."""
        return self.named(name, kind, first) or self.default or (ZPlus() if kind == "conv" else Epsilon())

    def to_dict(self) -> dict[str, Json]:
        """The choices, ready for JSON, rules as text: `of` reads them back."""
        values = {own.name: getattr(self, own.name) for own in fields(self)}
        layers = {name: rule.spelled for name, rule in dict(self.layers).items()}
        default = None if self.default is None else self.default.spelled
        return {**values, "default": default, "below": self.below.spelled, "layers": layers}


ConvRules = NetworkRules


def _rule(name: str, rule: object) -> Rule:
    """The rule of a layer, or of "default" or "below", which may be spelled as text."""
    if isinstance(rule, str):
        return spelled(rule, f"the rule of {name!r}")
    if not isinstance(rule, Rule):
        valid = ", ".join(kind.__name__ for kind in NAMES.values())
        raise ValueError(f"the rule of {name!r} must be one of {valid}, got {rule!r}")
    return rule


@dataclass(frozen=True, eq=False)
class Choice:
    """The choices for a single layer: its rule and options.

    Attributes
    ----------
    rule : Rule
        Above the depth.
    below : Rule
        Below it, where the layer has weights.
    bias, pool, flat, attention, gate, norm : as in NetworkRules
    affine : {"rule", "pass", "fold"}
        How a channelwise affine or a constant shares: by its rule, or, if it sees the pixels, as `input_affine` says.
    box : (low, high), each real (1, C, H, W), or None
        The range of the inputs, where the rule is `bounded`.
    """

    rule: Rule
    bias: str = "absorb"
    flat: str = "conserving"
    pool: str = "winner"
    box: Bounds | None = None
    below: Rule = field(default_factory=Flat)
    attention: str = "value"
    gate: str = "signal"
    norm: str = "linear"
    affine: str = "rule"
