"""Bootstrap intervals against normal theory and a plain loop."""

import numpy as np
import pytest
from scipy import stats

from fvlrp.evaluate import bootstrap


def test_bootstrap_intervals_match_normal_theory():
    values = np.random.default_rng(5).normal(3, 2, size=400)
    interval = bootstrap(np.append(values, np.nan), draws=4000)
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(400)
    assert interval.n == 400 and interval.mean == values.mean()
    np.testing.assert_allclose([interval.low, interval.high], [values.mean() - half, values.mean() + half], atol=0.02)
    assert bootstrap(values, level=0.5).high < interval.high
    assert bootstrap(values) == bootstrap(values)


def test_the_interval_is_that_of_a_plain_loop():
    values = np.random.default_rng(6).exponential(size=37)
    for statistic in ("mean", "median"):
        draw = np.random.default_rng(3).integers(37, size=(500, 37))
        found = [getattr(np, statistic)([values[i] for i in row]) for row in draw]
        interval = bootstrap(values, statistic=statistic, draws=500, random_state=3, level=0.9)
        np.testing.assert_allclose([interval.low, interval.high], np.quantile(found, [0.05, 0.95]), rtol=1e-12)
        assert interval.value == getattr(np, statistic)(values)
        assert (interval.mean, interval.median) == (values.mean(), np.median(values))


def test_an_interval_prints_its_value_and_bounds():
    interval = bootstrap([0.0, 1.0] * 50)
    assert str(interval) == f"0.5 [{interval.low:.3g}, {interval.high:.3g}]"


def test_the_interval_of_an_empty_sample_is_nan():
    interval = bootstrap([np.nan, np.nan])
    assert interval.n == 0 and np.isnan([interval.mean, interval.median, interval.low, interval.high]).all()
    assert bootstrap([2.0]) == bootstrap([2.0, np.nan])


@pytest.mark.parametrize(
    "options",
    [
        {"values": [[1.0]]},
        {"values": [np.inf]},
        {"level": 1},
        {"level": "x"},
        {"draws": 0},
        {"draws": 2.5},
        {"statistic": "mode"},
    ],
)
def test_bad_arguments_of_the_bootstrap_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        bootstrap(**{"values": [1.0, 2.0], **options})
