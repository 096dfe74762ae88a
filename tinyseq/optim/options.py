"""Options of optimisers and schedules: looked at whenever one is set, at the start or later."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from tinyseq.tensor import Tensor

MOST = 1 << 53  # of steps that can be counted: a float holds it, and nobody gets there
Rule = Callable[[str, Any], Any]  # what is set: its name for errors, and the value → the value


class Options:
    """Attributes that have rules. A value that breaks one is refused, and the old one stays."""

    _rules: ClassVar[dict[str, Rule]] = {}

    @classmethod
    def _wrong(cls, name: str, value: np.ndarray) -> str | None:
        """What is wrong with a value that a state has for an option."""
        try:
            cls._rules[name](name, value.item())
        except ValueError as error:
            return str(error)
        return None

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._rules:
            super().__setattr__(name, value)
            return
        before = vars(self).get(name, self)  # itself: there was none
        super().__setattr__(name, self._rules[name](f"{type(self).__name__}: {name}", value))
        try:
            self._agree()
        except ValueError:
            del vars(self)[name]
            if before is not self:
                vars(self)[name] = before
            raise

    def _agree(self) -> None:
        """Raise `ValueError` where options contradict each other; some may not be set yet."""


def number(
    name: str, value: Any, least: float = 0.0, below: float = math.inf, strict: bool = False
) -> float:
    """A finite number, at least (strictly above, if so) one bound and below another."""
    try:
        x = float(value) if isinstance(value, int | float) else _scalar(value)
    except OverflowError:  # a whole number with more than 308 digits
        x = math.inf
    if x is None:
        raise TypeError(f"{name}={value!r} must be a number.")
    if not least <= x < below or (strict and x == least):
        bound = f"{'above' if strict else 'at least'} {least:g}"
        limit = " and finite" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{name}={value} must be {bound}{limit}.")
    return x


def _scalar(value: Any) -> float | None:
    array = value._data if isinstance(value, Tensor) else np.asarray(value)
    return float(array.item()) if array.size == 1 and array.dtype.kind in "fiub" else None


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    return number(name, value, strict=True)


def below_one(name: str, value: Any) -> float:
    """A number from 0 to below 1."""
    return number(name, value, below=1)


def flag(name: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name}={value!r} must be True or False.")
    return bool(value)


def count(least: int) -> Rule:
    """A whole number, at least this."""

    def rule(name: str, value: Any) -> int:
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < least:
            raise ValueError(f"{name}={value!r} must be a whole number, at least {least}.")
        if value > MOST:
            raise ValueError(f"{name}={value!r} must be at most {MOST}.")
        return int(value)

    return rule


def one_of(*choices: str) -> Rule:
    """One of these strings."""

    def rule(name: str, value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{name}={value!r} is unknown. Use {' or '.join(map(repr, choices))}.")
        return str(value)

    return rule
