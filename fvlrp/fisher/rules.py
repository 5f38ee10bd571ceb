"""The choices of a Fisher-vector explanation as one frozen value, and the formulas that these choices stand for.

Hides how an option is spelled: the layers ask for stabilisers, shares of the intercept and the treatment of the mean.
For the modules of this wing; users reach `FisherRules` as `fvlrp.rules.FisherRules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..core.ledger import Entries
from ..core.rules import Epsilon, spelled
from ..runtime.arguments import check_amounts, check_choice

Treatment = Literal["none", "centered", "bias"]

STEADY = 10.0  # least stabiliser beside which float32 denominators are exact enough: docs/numerics.md §4


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
        The classifier's intercept b: b / dimensions to every dimension; equal parts to the dimensions with S != 0; or
        left out, and named by the ledger.
    mean : {"auto", "none", "centered", "bias"}
        The mean m of a projection that subtracts one: z_ij = P_ji x_i; z_ij = P_ji (x_i - m_i); or z_ij = P_ji x_i
        over the centred sum, so that the mean absorbs like a bias. "auto" is "centered" where there is a mean, "none"
        elsewhere.
    zero_desc : {"drop", "uniform"}
        Descriptors that are all zero hold relevance but have no values to share it by: it is dropped (the ledger names
        it) or spread evenly over their 16 bins.
    splat : {"box", "box_sym", "tri"}
        Pixels of a bin of size s: s x s pixels; s + 1 wide with half weights at both ends where s is even; or the
        triangle that the bin is pooled with.
    clip : {"renormalise", "drop"}
        Bins that reach outside the image: their relevance is shared among the pixels inside, or what falls outside is
        lost (the ledger names it).
    pool_scale : {"sum", "mean"}
        Whether `epsilon_pool` acts on sums over a cell's descriptors or on their means.
    eps_mode : {"absolute", "relative"}
        Whether `epsilon_pool` is used as it is, or in units of the median of the nonzero abs(S) of each cell (an
        extension, not in the paper).

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
    def of(cls, rules: FisherRules | Epsilon | Mapping[str, Any] | str | None) -> FisherRules:
        """The value that `rules` spells: itself, a mapping of its fields, "epsilon:1", or None for the defaults.

        "epsilon:1", and the `Epsilon(1)` that it spells, set both stabilisers.

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

    def to_dict(self) -> dict[str, Any]:
        """The options as a plain dictionary, ready for JSON; `of` reads it back."""
        return asdict(self)

    # ---- what the options mean ----

    @property
    def counts_sums(self) -> bool:
        """Whether a choice depends on which sums are exactly 0."""
        return self.bias == "active" or self.eps_mode == "relative"

    @property
    def fast_enough(self) -> bool:
        """Whether a float32 pass gives these heatmaps within tolerance (docs/numerics.md §4).

        Small stabilisers need float64 denominators. And one float32 posterior just above the gate makes all sums of a
        component nonzero: nothing that counts nonzero sums may depend on it.
        """
        return not self.counts_sums and min(self.epsilon_pool, self.epsilon_pca) >= STEADY

    @property
    def reaches_small_sums(self) -> bool:
        """Whether a sum next to 0 has relevance: its own is about sqrt(abs(S)), its share of the intercept is not."""
        return self.bias != "ignore"

    def share_intercept(self, r: npt.NDArray[np.float64], intercept: float, x: npt.NDArray[np.float64]) -> Entries:
        """Add the intercept's shares to one target's relevance r (d,), in place; what is left over.

        `x` (d,) is 0 exactly where the sum S of a dimension is.
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
        """Whether a descriptor of zeros has values to share by: only where a mean was subtracted from it."""
        return self.treatment(mean) == "centered" and bool(mean.any())
