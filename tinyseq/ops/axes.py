"""How an axis may be spelled, for all ops alike."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

from tinyseq import errors
from tinyseq import primitives as raw
from tinyseq.op import TensorLike, as_tensor
from tinyseq.tensor import Axis, Tensor


def normalize_axes(axis: Axis, ndim: int, name: str) -> tuple[int, ...]:
    """``None``, one axis or several, negative ones counted from the end, as ascending numbers.

    Raises `ShapeError`, for the op ``name``, where an axis does not exist or is named twice.
    """
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, Iterable) else (axis,)
    out = tuple(sorted(one_axis(a, ndim, name) for a in axes))
    if len(set(out)) != len(out):
        raise errors.ShapeError(f"{name}: axis={axis} names an axis twice. Name each once.")
    return out


def whole(n: Any, what: str) -> int:
    """A whole number as Python's int. Raises `TypeError` for anything else, 2.0 included."""
    try:
        return operator.index(n)
    except TypeError as cause:
        raise TypeError(
            f"{what} must be a whole number, not {n!r}. Divide with //, or round it with int()."
        ) from cause


def one_axis(axis: int, ndim: int, name: str) -> int:
    axis = whole(axis, f"{name}: axis")
    if not -ndim <= axis < ndim:
        raise errors.ShapeError(
            f"{name}: axis {axis} does not exist in a tensor with {ndim} axes. "
            f"Use {-ndim} to {ndim - 1}."
            if ndim
            else f"{name}: axis {axis} does not exist: the tensor has no axes. "
            "Leave axis out, or reshape the tensor to (1,)."
        )
    return axis % ndim


def one_axis_or_flat(x: TensorLike, axis: int | None, name: str) -> tuple[Tensor, int]:
    """``axis=None`` means the elements in one row, as in NumPy."""
    x = as_tensor(x)
    if axis is None:
        return raw.reshape(x, shape=(x.size,)), 0
    return x, one_axis(axis, x.ndim, name)


def for_rows_of(on: Tensor, x: Tensor) -> Tensor:
    """(B, 1), one number for each sequence, with as many axes as x (B, …): it meets the rows of x,
    where broadcasting by itself would line it up with x's last axis.
    """
    if x.ndim == on.ndim:
        return on
    return raw.reshape(on, shape=(on.shape[0], *[1] * (x.ndim - 1)))
