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
    dtype = np.dtype(dtype)
    raw = np.empty(math.prod(shape) * dtype.itemsize + _LINE, np.uint8)
    # A memoryview between the two: with an array as its owner, views would count as views of that
    return np.ndarray(shape, dtype, memoryview(raw), -raw.ctypes.data % _LINE)  # type: ignore[arg-type]
