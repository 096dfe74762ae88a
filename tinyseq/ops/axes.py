"""How an axis may be spelled, for all ops alike."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from tinyseq import errors
from tinyseq import primitives as raw
from tinyseq.arguments import shown
from tinyseq.op import TensorLike, as_tensor
from tinyseq.tensor import Axis, Tensor


def normalize_axes(axis: Axis, ndim: int, name: str) -> tuple[int, ...]:
    """``None``, one axis or several, negative ones counted from the end, as ascending numbers.

    Raises `ShapeError`, for the op ``name``, where an axis does not exist or is named twice.
    """
    if axis is None:
        return tuple(range(ndim))
    if not several(axis):
        return (one_axis(axis, ndim, name),)
    out = tuple(sorted(one_axis(a, ndim, name) for a in axis))
    if len(set(out)) != len(out):
        raise errors.ShapeError(f"{name}: axis={axis} names an axis twice. Name each once.")
    return out


def several(x: Any) -> TypeGuard[Iterable[Any]]:
    """Whether x holds numbers, and is none itself."""
    if x.__class__ is int:
        return False
    of_one = isinstance(x, str | bytes | Mapping) or getattr(x, "ndim", 1) == 0
    return isinstance(x, Iterable) and not of_one


def whole(n: Any, what: str) -> int:
    """A whole number as Python's int. Raises `TypeError` for anything else, 2.0 and True
    included.
    """
    try:
        if not isinstance(n, bool) and -(2**63) <= (number := operator.index(n)) < 2**63:
            return number
    except TypeError:
        pass
    remedy = " Divide with //, or round it with int()." if isinstance(n, float) else ""
    raise TypeError(f"{what} must be a whole number, not {shown(n)}.{remedy}")


def one_axis(axis: Any, ndim: int, name: str, argument: str = "axis", of: str = "x") -> int:
    """An axis counted from the front. An error names the op, the argument and the tensor."""
    at: int = axis if axis.__class__ is int else whole(axis, f"{name}: {argument}")
    if not -ndim <= at < ndim:
        which = "" if argument == "axis" else f" ({argument})"
        there = f"with {ndim} axes. Use {-ndim} to {ndim - 1}"
        if not ndim:
            there = "without axes. Leave axis out, or reshape it to (1,)"
        raise errors.ShapeError(
            f"{name}: axis {at}{which} does not exist in a tensor {of} {there}."
        )
    return at % ndim


def one_axis_or_flat(x: TensorLike, axis: int | None, name: str) -> tuple[Tensor, int]:
    """``axis=None`` means the elements in one row, as in NumPy."""
    x = as_tensor(x, None, name)
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
