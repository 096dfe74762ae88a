"""How an error is worded: the op or argument, where it happened, the sizes, and what to do about
it.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


class ShapeError(ValueError):
    """Sizes that do not go together."""


class DtypeError(TypeError):
    """A dtype that the operation has no meaning for."""


class GraphError(RuntimeError):
    """A recording that cannot be walked: freed, never made, or changed behind its back."""


class CompileError(RuntimeError):
    """A step that cannot be compiled, and why."""


class AnomalyError(FloatingPointError):
    """A NaN or an Inf, where it was first made."""


def of_values(error: Exception) -> bool:
    """Whether an error may come of the sizes and values that code was run on: then it comes again.

    Any other one comes out as it is: a signal handler raises it at whatever line runs, or it
    depends on memory or the depth of the stack. An error of a user's own class counts as such.
    """
    own = type(error).__module__.partition(".")[0] in ("builtins", "numpy", "tinyseq")
    return own and isinstance(error, _OF_VALUES) and not isinstance(error, RecursionError)


_OF_VALUES = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


def describe(shape: Iterable[int], letters: str = "") -> str:
    """``(3, 5)``, or with letters ``(T=3, B=5)``: a shape as the reader should see it."""
    sizes = list(shape)
    named = [f"{letter}={n}" for letter, n in zip(letters, sizes, strict=False)]
    named += [str(n) for n in sizes[len(named) :]]
    return f"({', '.join(named)}{',' if len(sizes) == 1 and not letters else ''})"


def listed(items: Iterable[Any], separator: str = ", ", most: int = 8) -> str:
    """``a, b, c``; of more than so many the first, ``and 57 more``: a message does not grow with
    what it is about.
    """
    everything = list(map(str, items))
    shown, more = separator.join(everything[:most]), len(everything) - most
    return f"{shown} … and {more:,d} more" if more > 0 else shown


def misfits(expected: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What keeps the given arrays from taking the place of the expected ones, by name: each that is
    missing, unknown or misshapen.
    """
    wrong = [
        f"missing {prefix}{name} {describe(a.shape)}"
        for name, a in expected.items()
        if name not in given
    ]
    wrong += [f"unknown {prefix}{name}" for name in given if name not in expected]
    wrong += [
        f"{prefix}{name} has shape {describe(given[name].shape)}, expected {describe(a.shape)}"
        for name, a in expected.items()
        if name in given and given[name].shape != a.shape
    ]
    return [listed(wrong, "; ")] if wrong else []


def spoiled(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """``w_h holds nan, first at [2, 0] of (4, 16)``: the first of named arrays with a NaN or an
    Inf. Empty where all are finite.
    """
    for name, array in arrays:
        if array.dtype.kind == "f" and not (good := np.isfinite(array)).all():
            at = [int(i) for i in np.unravel_index(good.argmin(), good.shape)]
            return f"{name} holds {array[tuple(at)]}, first at {at} of {describe(array.shape)}"
    return ""


def needed(package: str, what: str, extra: str) -> Any:
    """A package that few need, imported. Without it, `ModuleNotFoundError` says what needs it."""
    try:
        return importlib.import_module(package)
    except ImportError as cause:
        raise ModuleNotFoundError(
            f"{what} needs the package {package}: pip install 'tinyseq[{extra}]'"
        ) from cause


_LIBRARY = str(Path(__file__).parent) + os.sep
_said: set[str] = set()  # by `warn_unrolled`


def warn_unrolled(reason: CompileError, instead: str = "It runs unrolled.") -> None:
    """Warn, once for each reason, that what cannot be compiled runs unrolled: at the line that
    called the library, however many layers lie between.
    """
    if str(reason) in _said:
        return
    _said.add(str(reason))
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARY):
        level, frame = level + 1, frame.f_back
    warnings.warn(f"{reason} {instead}", RuntimeWarning, stacklevel=level)
