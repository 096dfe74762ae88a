"""The softmax loss and its slope, row by row, each in one pass over the logits.

Each row is read several times in short loops: it lies in the nearest cache, and a short loop over
one or two arrays is one that LLVM vectorises.
"""

from __future__ import annotations

import math
from math import exp

import numpy as np

from tinyseq.kernels.jit import SUMS, jit
from tinyseq.kernels.threads import in_slices

#: Logits from which the work is worth waking another thread for.
_MANY = 1 << 18


# A maximum is vectorised only where NaN may be left out of it, and here it may: the NaN is met
# again, and kept, in the sum.
@jit(fastmath={"nnan", "nsz", "reassoc"}, inline=True)
def _largest(row):  # type: ignore[no-untyped-def]
    largest = row[0]
    for j in range(1, row.size):
        if row[j] > largest:
            largest = row[j]
    return largest


@jit(SUMS)
def _losses(x, classes, out):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        row = x[i]
        largest = _largest(row)
        total = row[0] * 0
        for j in range(row.size):
            total += exp(row[j] - largest)
        out[i] = math.log(total) - (row[classes[i]] - largest)


@jit(SUMS)
def _slopes(g, x, classes, out):  # type: ignore[no-untyped-def]
    for i in range(x.shape[0]):
        row, slope = x[i], out[i]
        largest = _largest(row)
        for j in range(row.size):
            slope[j] = exp(row[j] - largest)
        total = slope[0] * 0
        for j in range(row.size):
            total += slope[j]
        share = g[i] / total
        for j in range(row.size):
            slope[j] *= share
        slope[classes[i]] -= g[i]


def softmax_loss(x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """y = ln Σ e^x − x_class: x (N, V), C-contiguous float32 or float64, V ≥ 1; classes (N) int64,
    which are not looked at here; y (N).
    """
    out = np.empty(len(x), x.dtype)
    if x.size < _MANY:
        _losses(x, classes, out)
    else:
        in_slices(len(x), lambda rows: _losses(x[rows], classes[rows], out[rows]))
    return out


def softmax_loss_slope(g: np.ndarray, x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """g · (softmax x − one_hot class): g (N), all C-contiguous and of one dtype; result (N, V)."""
    out = np.empty(x.shape, x.dtype)
    if x.size < _MANY:
        _slopes(g, x, classes, out)
    else:
        in_slices(len(x), lambda rows: _slopes(g[rows], x[rows], classes[rows], out[rows]))
    return out
