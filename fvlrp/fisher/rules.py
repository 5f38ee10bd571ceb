"""The choices of a Fisher-vector explanation as one frozen value, with the formulas behind them.

Hides the options from the layers, which call methods for stabilisers, shares of the intercept and the treatment of the
mean. For the modules of this wing; public as `fvlrp.rules.FisherRules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..core.ledger import Entries
from ..core.rules import Epsilon, spelled
from ..runtime.arguments import check_amounts, check_choice
from ..runtime.types import Json

Treatment = Literal["none", "centered", "bias"]

STEADY = 10.0  # least stabiliser for which float32 denominators are exact enough: docs/numerics.md §4


@dataclass(frozen=True)
class FisherRules:
    """Choices of a Fisher-vector explanation; the defaults are the paper's, or the nearest it leaves open.

    Parameters
    ----------
    epsilon_pool : float, default 100
        Stabiliser of Eqs. 5-6. It acts on sums over descriptors, not on means.
    epsilon_pca : float, default 100
        Stabiliser of Eq. 1 in the projection, in units of descriptor values on 0..255.
    bias : {"distribute", "active", "ignore"}
        The classifier's intercept b: b / dimensions for every dimension; equal parts for the dimensions with S != 0; or
        left out (the ledger has it).
    mean : {"auto", "none", "centered", "bias"}
        How Eq. 1 treats the mean m that a projection subtracts. "none": z_ij = P_ji x_i; "centered":
        z_ij = P_ji (x_i - m_i); "bias": z_ij = P_ji x_i over the centred sum, so that the mean absorbs relevance like a
        bias; "auto": "centered" if there is a mean, otherwise "none".
    zero_desc : {"drop", "uniform"}
        Zero descriptors have relevance but no values by which to share it: it is dropped (the ledger has it) or spread
        evenly over their 16 bins.
    splat : {"box", "box_sym", "tri"}
        Pixels of a bin of size s: s x s pixels; the same but, for even s, s + 1 wide with half weights at both ends; or
        the triangle with which the bin is pooled.
    clip : {"renormalise", "drop"}
        Bins that reach outside the image: their relevance goes to the pixels inside, or what falls outside is dropped
        (the ledger has it).
    pool_scale : {"sum", "mean"}
        Whether `epsilon_pool` acts on sums over a cell's descriptors or on their means.
    eps_mode : {"absolute", "relative"}
        Whether `epsilon_pool` is absolute, or in units of the median of the nonzero abs(S) of each cell (not in the
        paper).

    Examples
    --------
    >>> fvlrp.rules.FisherRules(epsilon_pool=1).epsilon_pool
    1.0
    """

    epsilon_pool: float = 100.0
    epsilon_pca: float = 100.0
    bias: str = "distribute"
    mean: str = "auto"
    zero_desc: str = "drop"
    splat: str = "box"
    clip: str = "renormalise"
    pool_scale: str = "sum"
    eps_mode: str = "absolute"

    def __post_init__(self) -> None:
        check_amounts(self, "epsilon_pool", "epsilon_pca")
        check_choice("bias", self.bias, ("distribute", "active", "ignore"))
        check_choice("mean", self.mean, ("auto", "none", "centered", "bias"))
        check_choice("zero_desc", self.zero_desc, ("drop", "uniform"))
        check_choice("splat", self.splat, ("box", "box_sym", "tri"))
        check_choice("clip", self.clip, ("renormalise", "drop"))
        check_choice("pool_scale", self.pool_scale, ("sum", "mean"))
        check_choice("eps_mode", self.eps_mode, ("absolute", "relative"))

    @classmethod
    def of(cls, rules: object) -> FisherRules:
        """`rules` as a FisherRules value: such a value, a mapping of its fields, "epsilon:1", or None for the defaults.

        "epsilon:1" and `Epsilon(1)` set both stabilisers.

        Raises
        ------
        ValueError
            Anything else; the message lists the valid forms.
        """
        if rules is None:
            return cls()
        if isinstance(rules, cls):
            return rules
        if isinstance(rules, Mapping):
            known = [field.name for field in fields(cls)]
            unknown = sorted(set(rules) - set(known))
            if unknown:
                raise ValueError(f"rules has no option {unknown[0]!r}; valid options are {', '.join(known)}")
            return cls(**rules)
        one = spelled(rules, "rules") if isinstance(rules, str) else rules
        if isinstance(one, Epsilon):
            return cls(epsilon_pool=one.epsilon, epsilon_pca=one.epsilon)
        raise ValueError(
            f"rules must be a FisherRules value, a mapping of its options, 'epsilon:1' or None, got {rules!r}"
        )

    def to_dict(self) -> dict[str, Json]:
        """The options as a plain dictionary, ready for JSON; `of` reads it back."""
        return asdict(self)

    # ---- what the options mean ----

    @property
    def counts_sums(self) -> bool:
        """Whether a choice depends on which sums are exactly 0."""
        return self.bias == "active" or self.eps_mode == "relative"

    @property
    def fast_enough(self) -> bool:
        """Whether heatmaps by these rules are within tolerance in a float32 pass (docs/numerics.md §4).

        Small stabilisers need float64 denominators. Rules that count nonzero sums need float64, too: a float32
        posterior just above the gate makes all sums of a component nonzero.
        """
        return not self.counts_sums and min(self.epsilon_pool, self.epsilon_pca) >= STEADY

    @property
    def reaches_small_sums(self) -> bool:
        """Whether sums close to 0 can have much relevance: a share of the bias does not vanish with S."""
        return self.bias != "ignore"

    def share_intercept(self, r: npt.NDArray[np.float64], intercept: float, x: npt.NDArray[np.float64]) -> Entries:
        """Add the shares of the intercept to one target's relevance r (d,), in place; returns what is left of it.

        `x` (d,) is 0 exactly where the sum S is.
        """
        if self.bias == "distribute":
            r += intercept / len(r)
            return Entries()
        active = x != 0
        if self.bias == "active" and active.any():
            r[active] += intercept / np.count_nonzero(active)
            return Entries(bias=0.0)
        return Entries(bias=intercept)

    def stabilisers(self, sums: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Epsilon of Eqs. 5-6 for the sums of each cell: sums (cells, ...), counts (cells,) -> (cells,)."""
        if self.eps_mode == "relative":
            medians = [np.median(np.abs(s[s != 0])) if s.any() else 0.0 for s in sums]
            return self.epsilon_pool * np.array(medians)
        # S / N and Psi / N stabilised by epsilon are S and Psi stabilised by N epsilon.
        return self.epsilon_pool * (counts.astype(np.float64) if self.pool_scale == "mean" else np.ones(len(counts)))

    def treatment(self, mean: npt.NDArray[np.float64]) -> Treatment:
        """How Eq. 1 treats the projection's `mean` (128,), with "auto" resolved."""
        if self.mean == "auto":
            return "centered" if mean.any() else "none"
        return self.mean  # type: ignore[return-value]  # __post_init__ has checked it

    def shares_zeroed(self, mean: npt.NDArray[np.float64]) -> bool:
        """Whether zero descriptors have values by which to share relevance: only if a mean was subtracted."""
        return self.treatment(mean) == "centered" and bool(mean.any())
