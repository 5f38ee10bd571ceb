"""The account of an explanation: entries that add up to the score, and what may be missing."""

import numpy as np
import pytest

from fvlrp.core.ledger import MEANINGS, Entries, Ledger


def test_a_ledger_closes_where_its_entries_sum_to_the_score():
    told = {"score": 3.0, "absorbed": 1.5, "bias": -0.5, "heatmap": 2.0}
    ledger = Ledger(told, exact=True)
    assert dict(ledger) == ledger.to_dict() == told and len(ledger) == 4
    assert ledger.size == 7.0 and ledger.residual == 0.0 and ledger.closes(0.0)
    assert not Ledger({**told, "absorbed": -1.5}, exact=True).closes()
    assert not Ledger({**told, "absorbed": np.nan}, exact=True).closes()


@pytest.mark.parametrize(("exact", "granted"), [(True, 1e-9), (False, 1e-5)])
def test_the_tolerance_of_a_ledger_depends_on_the_dtype(exact, granted):
    for share, closes in ((0.5, True), (2.0, False)):
        ledger = Ledger({"score": 1.0, "heatmap": 1.0 - 2 * share * granted}, exact)
        assert ledger.closes() == closes
        assert ledger.closes(1e-3)
    assert not Ledger({"score": 1.0, "heatmap": 0.9}, exact).closes(1e-3)


def test_only_float32_shows_rounding():
    entries = {"score": 1.0, "bias": 0.25, "heatmap": 0.5}
    assert "rounding" not in Ledger(entries, exact=True)
    fast = Ledger(entries, exact=False)
    assert list(fast) == ["score", "bias", "rounding", "heatmap"]
    assert fast["rounding"] == fast.residual == 0.25
    assert not fast.closes()  # rounding is shown, not excused


def test_a_ledger_prints_its_stages():
    ledger = Ledger({"score": 1.0, "empty_cell": -0.25, "heatmap": 1.25}, exact=True)
    assert str(ledger).splitlines() == ["score       +1", "empty_cell  -0.25", "heatmap     +1.25"]
    assert repr(ledger) == "Ledger(score=1, empty_cell=-0.25, heatmap=1.25)"


def test_entries_add_up_by_kind_and_target():
    entries = Entries()
    entries.add("bias", np.array([1.0, 2.0]))
    entries.include(Entries(bias=0.5, zero_sum=np.array([3.0, 4.0])))
    assert entries.of(1) == {"bias": 2.5, "zero_sum": 4.0}


def test_every_entry_is_explained_in_words():
    assert Ledger.meaning("zero_desc") == MEANINGS["zero_desc"]
    assert Ledger.meaning("unheard") == "unheard"
