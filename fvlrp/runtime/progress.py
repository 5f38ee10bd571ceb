"""Progress on stderr. Hides whether stderr is a terminal. For every ring above."""

from __future__ import annotations

import sys
from time import monotonic


class Progress:
    """Count `total` steps of `what`. On a terminal the line is rewritten; elsewhere only the total is printed.

    Steps may come from several threads: a lost update would only delay the line.
    """

    def __init__(self, what: str, total: int, show: bool):
        self.what, self.total, self.show = what, total, show
        self.done, self.start = 0, monotonic()

    def step(self) -> None:
        self.done += 1
        if not self.show:
            return
        spent = monotonic() - self.start
        left = spent / self.done * (self.total - self.done)
        end = "\n" if self.done == self.total else ""
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{self.what} {self.done}/{self.total}, {left:.0f} s left \x1b[K{end}")
        elif end:
            sys.stderr.write(f"{self.what} {self.total}: {spent:.1f} s\n")
        sys.stderr.flush()
