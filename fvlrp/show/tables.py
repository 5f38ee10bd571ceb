"""Tables of words, numbers and estimates: as text for a terminal, JSON, CSV or LaTeX.

For evaluate and everything above it. A cell is a word, a number, None (empty) or an estimate: any object with `value`,
`low` and `high`.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from ..runtime.types import Json

DIGITS = 3  # significant digits in text and LaTeX; JSON and CSV have all digits


class Estimate(Protocol):
    """A value and its interval."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


Cell: TypeAlias = "str | float | Estimate | None"


@dataclass(frozen=True)
class Table:
    """Rows under named columns.

    Parameters
    ----------
    columns : sequence of str
    rows : sequence of sequences of cells
        Each with one cell per column. NaN is an empty cell, like None.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells for {len(self.columns)} columns: {list(row)!r}")
        object.__setattr__(self, "rows", [list(map(_python, row)) for row in self.rows])

    def text(self) -> str:
        """Columns aligned with blanks, words to the left and numbers to the right."""
        lines = [list(self.columns), *([_readable(cell) for cell in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        forms = [f"{{:{'<' if words else '>'}{width}}}" for words, width in zip(self._of_words(), widths, strict=True)]
        return "\n".join("  ".join(forms).format(*line).rstrip() for line in lines)

    def json(self) -> str:
        """A list with one object for each row; an estimate is {"value", "low", "high"}, an empty cell null."""
        return json.dumps([dict(zip(self.columns, map(_plain, row), strict=True)) for row in self.rows], indent=1)

    def csv(self) -> str:
        """Comma-separated with a header; an estimate takes three columns: x, x_low and x_high."""
        estimated = [any(_is_estimate(row[i]) for row in self.rows) for i in range(len(self.columns))]
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        pairs = list(zip(self.columns, estimated, strict=True))
        writer.writerow([name + end for name, three in pairs for end in (("", "_low", "_high") if three else ("",))])
        for row in self.rows:
            values: list[Json] = []
            for cell, three in zip(row, estimated, strict=True):
                values += _ends(cell) if three else [_plain(cell)]
            writer.writerow(["" if value is None else value for value in values])
        return stream.getvalue()

    def latex(self) -> str:
        """A tabular environment in booktabs' style."""
        form = "".join("l" if words else "r" for words in self._of_words())
        lines = [
            rf"\begin{{tabular}}{{{form}}}",
            r"\toprule",
            " & ".join(map(_escaped, self.columns)) + r" \\",
            r"\midrule",
            *(" & ".join(map(_typeset, row)) + r" \\" for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
        ]
        return "\n".join(lines) + "\n"

    def _of_words(self) -> list[bool]:
        """Which columns hold words."""
        return [any(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]


def number(value: float) -> str:
    """A number as text: three significant digits, all digits of an integer, nothing for NaN."""
    if isinstance(value, int) or math.isinf(value):
        return str(value)
    if math.isnan(value):
        return ""
    if value and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{DIGITS - 1}e}"
    exponent = int(f"{value:.{DIGITS - 1}e}".partition("e")[2])  # of the rounded value: .9999 is 1.00
    return f"{value:.{max(DIGITS - 1 - exponent, 0)}f}"


def _python(cell: Cell | np.float64) -> Cell:
    """A cell in built-in types."""
    return cell.item() if isinstance(cell, np.generic) else cell


def _is_estimate(cell: Cell) -> bool:
    return not (cell is None or isinstance(cell, str | int | float))


def _readable(cell: Cell) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    if isinstance(cell, int | float):
        return number(cell)
    return "" if math.isnan(cell.value) else f"{number(cell.value)} [{number(cell.low)}, {number(cell.high)}]"


def _plain(cell: Cell) -> Json:
    """A cell as a JSON value."""
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, int | float):
        return cell if math.isfinite(cell) else None
    return dict(zip(("value", "low", "high"), _ends(cell), strict=True))


def _ends(cell: Cell) -> list[Json]:
    """Value, low and high of an estimate; a bare number has no ends."""
    if cell is None or isinstance(cell, str | int | float):
        return [_plain(cell), None, None]
    return [_plain(float(value)) for value in (cell.value, cell.low, cell.high)]


def _typeset(cell: Cell) -> str:
    if isinstance(cell, str):
        return _escaped(cell)
    words = re.sub(r"e([+-])0*(\d+)", r" \\times 10^{\1\2}", _readable(cell)).replace("{+", "{")
    return f"${words}$" if words else ""


def _escaped(words: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "μ": r"$\mu$"}
    special |= {character: "\\" + character for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in words)
