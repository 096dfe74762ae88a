"""What is written in place: the optimisers' steps, in one pass over a parameter and its buffers,
the norm of a gradient, and rows added up where an embedding was read.

Equations and arguments are those of `tinyseq.optim`, in the same order of operations. The public
functions take C-contiguous arrays of one dtype, float32 or float64.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numba.core.config
import numpy as np
from numba import carray, types
from numba.extending import intrinsic

from tinyseq.kernels.jit import SUMS, jit
from tinyseq.kernels.threads import in_slices, over

#: Elements of a parameter from which its update is worth waking another thread for.
_MANY = 1 << 19
_PLAIN = bool(numba.core.config.DISABLE_JIT)


def _rule(kernel: Callable[..., None]) -> Callable[..., None]:
    """Compile a kernel over a parameter, its gradient and one buffer; called, it goes over all
    their elements.
    """
    compiled = jit(SUMS)(kernel)

    @functools.wraps(kernel)
    def update(p: np.ndarray, g: np.ndarray, buffer: np.ndarray, *options: float) -> None:
        over(compiled, (p, g, buffer), _MANY, options)

    return update


# Options come as float64 and are rounded to the dtype of the arrays, as NumPy rounds them.


@jit(SUMS)
def _adam(
    p: np.ndarray,
    g: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    shrink: Any,
    beta1: Any,
    beta2: Any,
    eps: Any,
    steady: Any,
    rate: Any,
    ahead: Any,
) -> None:
    number = p.dtype.type
    rise1, rise2 = number(1 - beta1), number(1 - beta2)
    shrink, beta1, beta2 = number(shrink), number(beta1), number(beta2)
    eps, steady, rate, ahead = number(eps), number(steady), number(rate), number(ahead)
    for i in range(p.size):
        m = beta1 * mean[i] + rise1 * g[i]
        s = beta2 * square[i] + rise2 * (g[i] * g[i])
        mean[i] = m
        square[i] = s
        p[i] = shrink * p[i] - (rate * m + ahead * g[i]) / (np.sqrt(s) * steady + eps)


def adam(
    p: np.ndarray,
    g: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    options: tuple[float, ...],
) -> None:
    """One update of `optim.Adam` and its kin, with the numbers that it multiplies by."""
    over(_adam, (p, g, mean, square), _MANY, options)


# -- all parameters in one pass -------------------------------------------------------------------


@intrinsic
def _pointer(typingctx, address, like):  # type: ignore[no-untyped-def]
    """To numbers of the dtype of ``like``, at an address."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.intp, like), write


class Table:
    """Arrays that stay where they are, several for each parameter, of one dtype: for a kernel that
    is called once for all of them.
    """

    def __init__(self, *lists: Sequence[np.ndarray]) -> None:
        self.held = lists
        self.number = lists[0][0].dtype.type(0)
        rows = [[a.ctypes.data for a in row] for row in zip(*lists, strict=True)]
        sizes = [[a.size] for a in lists[0]]
        self.rows = np.hstack([np.array(sizes, np.int64), np.array(rows, np.int64)])
        self.size = int(self.rows[:, 0].sum())


@jit(SUMS)
def _adam_rows(rows, number, lo, hi, shrink, beta1, beta2, eps, steady, rate, ahead):  # type: ignore[no-untyped-def]
    """`_adam` for the elements lo … hi − 1 of all parameters, counted one after the other."""
    start = 0
    for i in range(rows.shape[0]):
        size = rows[i, 0]
        a, b = max(0, lo - start), min(size, hi - start)
        if a < b:
            p = carray(_pointer(rows[i, 1], number), size)[a:b]
            g = carray(_pointer(rows[i, 2], number), size)[a:b]
            mean = carray(_pointer(rows[i, 3], number), size)[a:b]
            square = carray(_pointer(rows[i, 4], number), size)[a:b]
            _adam(p, g, mean, square, shrink, beta1, beta2, eps, steady, rate, ahead)
        start += size


@jit(SUMS)
def _squares_rows(rows, number, column):  # type: ignore[no-untyped-def]
    total = 0.0
    for i in range(rows.shape[0]):
        total += _squares(carray(_pointer(rows[i, 1 + column], number), rows[i, 0]))
    return total


def adam_of_all(table: Table, options: tuple[float, ...]) -> None:
    """`adam` for all parameters of a table of parameters, gradients, means and squares."""
    if _PLAIN:
        for row in zip(*table.held, strict=True):
            adam(*row, options)
    elif table.size < _MANY:
        _adam_rows(table.rows, table.number, 0, table.size, *options)
    else:
        in_slices(
            table.size,
            lambda part: _adam_rows(table.rows, table.number, part.start, part.stop, *options),
        )


def sum_of_all_squares(table: Table, column: int) -> float:
    """`sum_of_squares` of all arrays in a column of a table together."""
    if _PLAIN:
        return math.fsum(sum_of_squares(a) for a in table.held[column])
    return float(_squares_rows(table.rows, table.number, column))


# -- the other rules ------------------------------------------------------------------------------


@_rule
def momentum(
    p: np.ndarray, g: np.ndarray, v: np.ndarray, lr: Any, momentum: Any, ahead: bool
) -> None:
    """One update of `optim.SGD` with momentum."""
    number = p.dtype.type
    lr, momentum = number(lr), number(momentum)
    # nesterov: lr·(g + momentum·v) in place of lr·v
    of_g, of_v = (lr, lr * momentum) if ahead else (number(0), lr)
    for i in range(p.size):
        step = momentum * v[i] + g[i]
        v[i] = step
        p[i] -= of_v * step + of_g * g[i]


@_rule
def rmsprop(
    p: np.ndarray, g: np.ndarray, square: np.ndarray, lr: Any, alpha: Any, eps: Any
) -> None:
    """One update of `optim.RMSprop`, neither centred nor with momentum."""
    number = p.dtype.type
    rise = number(1 - alpha)
    lr, alpha, eps = number(lr), number(alpha), number(eps)
    for i in range(p.size):
        s = alpha * square[i] + rise * (g[i] * g[i])
        square[i] = s
        p[i] -= lr * (g[i] / (np.sqrt(s) + eps))


@_rule
def adagrad(p: np.ndarray, g: np.ndarray, square: np.ndarray, lr: Any, eps: Any) -> None:
    """One update of `optim.Adagrad`."""
    number = p.dtype.type
    lr, eps = number(lr), number(eps)
    for i in range(p.size):
        s = square[i] + g[i] * g[i]
        square[i] = s
        p[i] -= lr * g[i] / (np.sqrt(s) + eps)


# -- the norm of a gradient -----------------------------------------------------------------------


@jit(SUMS)
def _squares(x: np.ndarray) -> Any:
    total = 0.0
    for i in range(x.size):
        wide = np.float64(x[i])
        total += wide * wide
    return total


def sum_of_squares(x: np.ndarray) -> float:
    """Σ x², added up in float64, whatever the dtype."""
    return float(_squares(x.reshape(-1)))


# -- rows -----------------------------------------------------------------------------------------


@jit(SUMS)
def add_to_rows(x: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    """out[i] = x[i] + row: x and out (N, D), row (D), a bias."""
    for i in range(x.shape[0]):
        here, there = x[i], out[i]
        for j in range(row.size):
            there[j] = here[j] + row[j]


@jit(SUMS)
def sum_of_rows(x: np.ndarray, out: np.ndarray) -> None:
    """out = Σᵢ x[i]: x (N, D), out (D), the gradient of a bias."""
    out[:] = 0
    for i in range(x.shape[0]):
        here = x[i]
        for j in range(out.size):
            out[j] += here[j]


@jit(SUMS)
def add_rows(out: np.ndarray, rows: np.ndarray, x: np.ndarray) -> None:
    """out[rows[i]] += x[i] for every i: out (V, D), x (N, D), rows (N) int64 from −V to V − 1,
    which is not checked here.
    """
    for i in range(rows.size):
        here, there = x[i], out[rows[i]]
        for j in range(here.size):
            there[j] += here[j]
