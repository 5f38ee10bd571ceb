"""The choices of a Fisher-vector explanation, as one frozen value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

from ..runtime.arguments import check_amounts, check_choice


@dataclass(frozen=True)
class FisherRules:
    """Choices of a Fisher-vector explanation; the defaults are the paper's, or the nearest it leaves open.

    Parameters
    ----------
    epsilon_pool : float, default 100
        Stabiliser of Eqs. 5-6. It acts on sums over descriptors, not on means.
    epsilon_pca : float, default 100
        Stabiliser of the projection's denominators, in units of descriptors on 0..255.
    bias : {"distribute", "active", "ignore"}
        The classifier's intercept b: b / dimensions to every dimension; the same to those with S != 0 only; or left out
        (then the ledger names it).
    mean : {"auto", "none", "centered", "bias"}
        The projection's mean m, where the model has one: z_ij = P_ji x_i; z_ij = P_ji (x_i - m_i); or z_ij = P_ji x_i
        over the centred sum, the mean absorbing like a bias. "auto" is "centered" with a mean, "none" without.
    zero_desc : {"drop", "uniform"}
        Descriptors that are all zero hold relevance but have nothing to share it by: drop it (the ledger names it), or
        spread it evenly over their 16 bins.
    splat : {"box", "box_sym", "tri"}
        A bin's pixels: s x s; s + 1 wide with half weights at the ends where s is even; or the triangle that the bin
        is pooled with.
    clip : {"renormalise", "drop"}
        Supports that leave the image: share among the pixels inside, or lose what falls outside (the ledger names it).
    pool_scale : {"sum", "mean"}
        Whether epsilon_pool acts on sums over a cell's descriptors or on their means.
    eps_mode : {"absolute", "relative"}
        Whether epsilon_pool is used as it is, or times the median of |S| != 0 (an extension of ours).

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

    def __post_init__(self):
        check_amounts(self, "epsilon_pool", "epsilon_pca")
        check_choice("bias", self.bias, ("distribute", "active", "ignore"))
        check_choice("mean", self.mean, ("auto", "none", "centered", "bias"))
        check_choice("zero_desc", self.zero_desc, ("drop", "uniform"))
        check_choice("splat", self.splat, ("box", "box_sym", "tri"))
        check_choice("clip", self.clip, ("renormalise", "drop"))
        check_choice("pool_scale", self.pool_scale, ("sum", "mean"))
        check_choice("eps_mode", self.eps_mode, ("absolute", "relative"))

    @classmethod
    def of(cls, rules: FisherRules | dict | None) -> FisherRules:
        """`rules` itself, or made from a mapping of its fields, or the defaults for None."""
        if rules is None:
            return cls()
        if isinstance(rules, cls):
            return rules
        if isinstance(rules, dict):
            known = [field.name for field in fields(cls)]
            unknown = sorted(set(rules) - set(known))
            if unknown:
                raise ValueError(f"rules has no option {unknown[0]!r}; valid ones are {', '.join(known)}")
            return cls(**rules)
        raise ValueError(f"rules must be a FisherRules value, a mapping of its options or None, got {rules!r}")

    def to_dict(self) -> dict:
        return asdict(self)
