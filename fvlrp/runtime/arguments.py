"""Checks of arguments, with messages that name the argument, its value and what is expected.

Hides the wording. For every ring above; imports no module of the package.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TypeGuard

import numpy as np


def check_choice(name: str, value: object, valid: tuple[object, ...]) -> None:
    """Raise ValueError unless `value` is one of `valid`."""
    if getattr(value, "ndim", 0) or value not in valid:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, valid))}, got {value!r}")


def is_real(value: object) -> TypeGuard[float]:
    """Whether `value` is a number; True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether `value` is a whole number; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_amounts(rule: object, *names: str) -> None:
    """Convert fields to float, which JSON can hold; raise ValueError unless they are finite numbers >= 0."""
    for name in names:
        value = getattr(rule, name)
        if not is_real(value) or not 0 <= value < np.inf:
            raise ValueError(f"{name} must be a finite number >= 0, got {value!r}")
        object.__setattr__(rule, name, float(value))
