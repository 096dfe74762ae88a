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
    return over(raw(shape, dtype), shape, dtype)


def bytes_for(shape: Sequence[int], dtype: Any) -> int:
    """How many bytes are enough for such an array, wherever they begin."""
    return math.prod(shape) * np.dtype(dtype).itemsize + _LINE


def raw(shape: Sequence[int], dtype: Any) -> np.ndarray:
    """As many bytes as that."""
    return np.empty(bytes_for(shape, dtype), np.uint8)


def over(raw: np.ndarray, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """An array that begins at a line, in these bytes; they are the base of all its views, too."""
    return np.ndarray(shape, dtype, raw, -raw.ctypes.data % _LINE)  # type: ignore[arg-type]
