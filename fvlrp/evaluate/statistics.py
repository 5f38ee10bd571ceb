"""Summaries of one number per image with their uncertainty: bootstrap intervals over images.

For the study and users. To compare two methods, pass their differences per image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..runtime.arguments import is_real, is_whole

STATISTICS = ("mean", "median")
BLOCK = 1_000_000  # values drawn at a time: 8 MB of indices


@dataclass(frozen=True)
class Interval:
    """Mean and median over images, and the bootstrap interval of one of them.

    Attributes
    ----------
    mean, low, high : float
        `low` and `high` are the ends of the interval of `statistic`.
    level : float
        Coverage of the interval.
    n : int
        Images that count: their value was not NaN.
    median : float
    statistic : "mean" or "median"

    Examples
    --------
    >>> fvlrp.evaluate.bootstrap(np.ones(5))
    Interval(mean=1.0, low=1.0, high=1.0, level=0.95, n=5, median=1.0, statistic='mean')
    """

    mean: float
    low: float
    high: float
    level: float
    n: int
    median: float = float("nan")
    statistic: str = "mean"

    @property
    def value(self) -> float:
        """The value of `statistic`."""
        return self.mean if self.statistic == "mean" else self.median

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def bootstrap(
    values: npt.ArrayLike,
    *,
    statistic: str = "mean",
    level: float = 0.95,
    draws: int = 10_000,
    random_state: int = 0,
) -> Interval:
    """The mean and median of one number per image, with a percentile bootstrap interval over the images.

    To compare two methods, pass their differences per image, not the two intervals.

    Parameters
    ----------
    values : array (n,)
        One number per image; NaN (undefined for that image) is left out.
    statistic : "mean" or "median"
        The statistic whose interval is computed.
    level : float
        Coverage in (0, 1).
    draws : int
        Resamplings of the images.
    random_state : int
        Seed.

    Returns
    -------
    Interval
        All NaN where no value is left.

    Raises
    ------
    ValueError
        `values` is not 1-D or holds an infinity, `statistic` is unknown, `level` is not inside (0, 1), or `draws` is
        below 1.

    Examples
    --------
    >>> interval = fvlrp.evaluate.bootstrap(np.arange(20.0))
    >>> interval.low < 9.5 < interval.high
    True
    """
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or np.isinf(numbers).any():
        raise ValueError(f"values has shape {numbers.shape}; expected one finite number or NaN per image, (n,)")
    if statistic not in STATISTICS:
        raise ValueError(f"statistic is {statistic!r}; expected 'mean' or 'median'")
    if not (is_real(level) and 0 < level < 1) or not is_whole(draws) or draws < 1:
        raise ValueError(f"level is {level!r} and draws {draws!r}; expected a level inside (0, 1) and at least 1 draw")
    numbers = numbers[~np.isnan(numbers)]
    if len(numbers) == 0:
        nothing = float("nan")
        return Interval(nothing, nothing, nothing, level, 0, nothing, statistic)
    reduce = np.mean if statistic == "mean" else np.median
    rng = np.random.default_rng(random_state)
    block = max(1, BLOCK // len(numbers))
    found = [
        reduce(numbers[rng.integers(len(numbers), size=(min(block, draws - start), len(numbers)))], axis=1)
        for start in range(0, draws, block)
    ]
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        float(numbers.mean()), float(low), float(high), level, len(numbers), float(np.median(numbers)), statistic
    )
