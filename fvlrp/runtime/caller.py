"""Where a warning points: the line of the user's program that called the package.

Hides how many of the package's own frames lie between. For every ring above.
"""

from __future__ import annotations

import sys

PACKAGE = __name__.partition(".")[0]


def stack_level() -> int:
    """The `stacklevel` for a `warnings.warn` in the function that calls this: the first frame outside the package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and _within(frame.f_globals.get("__name__")):
        frame, level = frame.f_back, level + 1
    return level


def _within(module: object) -> bool:
    return str(module).partition(".")[0] == PACKAGE
