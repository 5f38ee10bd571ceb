"""Tables as text, JSON, CSV and LaTeX, read back by other readers."""

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest

from fvlrp.show.tables import Table, number

ESTIMATE = SimpleNamespace(value=0.15149, low=0.12, high=0.1801)
NOTHING = SimpleNamespace(value=float("nan"), low=float("nan"), high=float("nan"))
TABLE = Table(
    ["depth", "AOPC", "images", "p_x"],
    [
        ["bin", ESTIMATE, np.int64(40), 1.23e-7],
        ["50 % & more", NOTHING, 3, np.nan],
        ['a "word"', None, 0, np.float32(0.5)],
    ],
)


def test_text_is_aligned_with_words_left_and_numbers_right():
    assert TABLE.text().splitlines() == [
        "depth                        AOPC  images       p_x",
        "bin          0.151 [0.120, 0.180]      40  1.23e-07",
        "50 % & more                             3",
        'a "word"                                0     0.500',
    ]


def test_json_keeps_every_digit_and_says_null():
    rows = json.loads(TABLE.json())
    assert rows[0] == {
        "depth": "bin",
        "AOPC": {"value": 0.15149, "low": 0.12, "high": 0.1801},
        "images": 40,
        "p_x": 1.23e-7,
    }
    assert rows[1]["AOPC"] == {"value": None, "low": None, "high": None} and rows[1]["p_x"] is None
    assert rows[2] == {"depth": 'a "word"', "AOPC": None, "images": 0, "p_x": 0.5}


def test_csv_spreads_estimates_over_three_columns():
    header, *rows = csv.reader(io.StringIO(TABLE.csv()))
    assert header == ["depth", "AOPC", "AOPC_low", "AOPC_high", "images", "p_x"]
    assert rows[0] == ["bin", "0.15149", "0.12", "0.1801", "40", "1.23e-07"]
    assert rows[1] == ["50 % & more", "", "", "", "3", ""]
    assert rows[2] == ['a "word"', "", "", "", "0", "0.5"]


def test_latex_spells_letters_that_it_lacks():
    assert Table(["median μ"], [[1.0]]).latex().splitlines()[2] == r"median $\mu$ \\"


def test_latex_escapes_words_and_sets_numbers_as_mathematics():
    lines = TABLE.latex().splitlines()
    assert lines[0] == r"\begin{tabular}{lrrr}" and lines[-1] == r"\end{tabular}"
    assert lines[2] == r"depth & AOPC & images & p\_x \\"
    assert lines[4] == r"bin & $0.151 [0.120, 0.180]$ & $40$ & $1.23 \times 10^{-7}$ \\"
    assert lines[5] == r"50 \% \& more &  & $3$ &  \\"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0.00"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (123.4, "123"),
        (-0.05, "-0.0500"),
        (0.9999, "1.00"),
        (7, "7"),
        (2e7, "2.00e+07"),
    ],
)
def test_numbers_have_three_digits(value, words):
    assert number(value) == words


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="a row has 1 cells for 2 columns"):
        Table(["a", "b"], [["x"]])
