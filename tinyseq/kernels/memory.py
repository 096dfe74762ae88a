"""Memory that begins where a line of the cache does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_LINE = 64  # bytes: of the cache, and of the widest register


def aligned(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """As `numpy.empty`, beginning at a line of the cache.

    From anywhere else a register as wide as a line is loaded from two of them, each time: a row
    times a matrix then takes up to 1.6 times as long. `numpy.empty` begins a large array 16 bytes
    into a line, always.
    """
    return within(owner(shape, dtype), shape, dtype)


def owner(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Memory for such an array: whose owner NumPy takes it to be, and all views of it."""
    return np.empty(math.prod(shape) * np.dtype(dtype).itemsize + _LINE, np.uint8)


def within(raw: np.ndarray, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """The array in the memory that `owner` gave for it."""
    return np.ndarray(shape, dtype, raw, -raw.ctypes.data % _LINE)  # type: ignore[arg-type]
