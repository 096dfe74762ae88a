"""The softmax loss and its slope, row by row, each in one pass over the logits.

Each row is read several times in short loops: it lies in the nearest cache, and a short loop over
one or two arrays is one that LLVM vectorises.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyseq.kernels.activations import exp
from tinyseq.kernels.jit import SUMS, jit
from tinyseq.kernels.threads import ALONE, begin, cuts, end, get_num_threads, shared

#: Logits from which the work is worth waking another thread for.
_MANY = 1 << 16
#: Rows at a time: enough to keep the vector units busy, few enough for the nearest cache.
_ROWS = 16


@jit(SUMS, inline=True)
def _centred(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(x.shape[0]):
        row, here = x[i], out[i]
        largest = row[0]
        for j in range(row.size):
            if row[j] > largest:  # a NaN is passed over here, and comes back in the sum
                largest = row[j]
        for j in range(row.size):
            here[j] = row[j] - largest


@jit(SUMS, inline=True)
def _exponentials(x: np.ndarray) -> None:
    flat = x.reshape(x.size)
    for i in range(flat.size):
        flat[i] = exp(flat[i])


@jit(SUMS, inline=True)
def _sum(row: np.ndarray) -> Any:
    total = row[0] * 0
    for j in range(row.size):
        total += row[j]
    return total


@jit(SUMS)
def _losses(team, part, x, classes, out, scratch):  # type: ignore[no-untyped-def]
    begin(team, part)
    for first in range(0, x.shape[0], _ROWS):
        block = x[first : first + _ROWS]
        rows = scratch[: block.shape[0]]
        _centred(block, rows)
        for i in range(rows.shape[0]):
            out[first + i] = rows[i, classes[first + i]]
        _exponentials(rows)
        for i in range(rows.shape[0]):
            out[first + i] = math.log(_sum(rows[i])) - out[first + i]
    end(team, part)


@jit(SUMS)
def _slopes(team, part, g, x, classes, out):  # type: ignore[no-untyped-def]
    begin(team, part)
    for first in range(0, x.shape[0], _ROWS):
        rows = out[first : first + _ROWS]
        _centred(x[first : first + _ROWS], rows)
        _exponentials(rows)
        for i in range(rows.shape[0]):
            slope, weight = rows[i], g[first + i]
            share = weight / _sum(slope)
            for j in range(slope.size):
                slope[j] *= share
            slope[classes[first + i]] -= weight
    end(team, part)


def softmax_loss(x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """y = ln Σ e^x − x_class: x (N, V), C-contiguous float32 or float64, V ≥ 1; classes (N) int64,
    from 0 to V − 1, which is not checked here; y (N).
    """
    out = np.empty(len(x), x.dtype)
    if x.size < _MANY:
        _losses(ALONE, 0, x, classes, out, np.empty((_ROWS, x.shape[1]), x.dtype))
        return out
    slices = cuts(len(x), get_num_threads())
    scratch = np.empty((len(slices), _ROWS, x.shape[1]), x.dtype)

    def part(i: int, team: np.ndarray) -> None:
        rows = slices[i]
        _losses(team, i, x[rows], classes[rows], out[rows], scratch[i])

    shared(part, len(slices))
    return out


def softmax_loss_slope(
    g: np.ndarray, x: np.ndarray, classes: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """g · (softmax x − one_hot class): g (N), all C-contiguous and of one dtype; result (N, V)."""
    out = np.empty(x.shape, x.dtype) if out is None else out
    if x.size < _MANY:
        _slopes(ALONE, 0, g, x, classes, out)
        return out
    slices = cuts(len(x), get_num_threads())

    def part(i: int, team: np.ndarray) -> None:
        rows = slices[i]
        _slopes(team, i, g[rows], x[rows], classes[rows], out[rows])

    shared(part, len(slices))
    return out
