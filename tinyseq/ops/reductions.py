"""Ops that make one of many: sums, extremes, moments, along axes."""

from __future__ import annotations

import math

import numpy as np

from tinyseq import errors
from tinyseq import primitives as raw
from tinyseq.op import Op, TensorLike, as_tensor
from tinyseq.ops.axes import normalize_axes, one_axis_or_flat, whole
from tinyseq.primitives import sqrt, where
from tinyseq.tensor import Axis, Tensor, flag

__all__ = [
    "all", "any", "argmax", "argmin", "cumsum", "logsumexp", "max", "mean", "min", "prod", "std",
    "sum", "var",
]  # fmt: skip


def _reduction(op: Op, x: TensorLike, axis: Axis, keepdims: bool) -> Tensor:
    name = op.name
    x = as_tensor(x, None, name)
    keepdims = flag(keepdims, name, "keepdims")
    return op(x, axis=normalize_axes(axis, x.ndim, name), keepdims=keepdims)


def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = Σ x over the axes (all of them by default), which go away or, with keepdims, stay as 1.

    Booleans and whole numbers give whole numbers.
    """
    return _reduction(raw.sum, x, axis, keepdims)


def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over the axes, shapes as in `sum`; equal ones share the gradient evenly.

    Raises `ShapeError` over no elements.
    """
    return _reduction(raw.max, x, axis, keepdims)


def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over the axes, shapes as in `sum`; equal ones share the gradient evenly.

    Raises `ShapeError` over no elements.
    """
    return _reduction(raw.min, x, axis, keepdims)


def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = ln Σ eˣ over the axes, without overflow; shapes as in `sum`.

    Where all x are −∞, y is −∞ and the gradient 0; where n of them are +∞, y is +∞ and each of
    those gets 1/n of the gradient, the others nothing (PyTorch gives NaN).
    Raises `ShapeError` over no elements.
    """
    return _reduction(raw.logsumexp, x, axis, keepdims)


def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = Σ x / n over the axes; shapes as in `sum`. Raises `ShapeError` over no elements."""
    x = as_tensor(x, None, "mean")
    axes = normalize_axes(axis, x.ndim, "mean")
    n = math.prod(x.shape[a] for a in axes)
    if n == 0:
        raise errors.ShapeError(
            f"mean: no elements along axis {axis} of x of shape {errors.describe(x.shape)}. "
            "Give it at least one."
        )
    return raw.sum(x, axis=axes, keepdims=flag(keepdims, "mean", "keepdims")) / n


def var(x: TensorLike, axis: Axis = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor:
    """y = Σ (x − mean x)² / (n − ddof) over the axes; shapes as in `sum`.

    ``ddof`` is 0 as in NumPy; PyTorch's default is 1. Raises `ShapeError` unless n > ddof.
    """
    return _variance(x, axis, keepdims, ddof, "var")


def std(x: TensorLike, axis: Axis = None, keepdims: bool = False, *, ddof: int = 0) -> Tensor:
    """y = √var x over the axes, as `var`; where all elements are equal its gradient is taken
    to be 0.
    """
    variance = _variance(x, axis, keepdims, ddof, "std")
    flat = variance == 0  # the root's slope is ∞ there, and ∞·0 would be NaN
    return where(flat, 0.0, sqrt(where(flat, 1.0, variance)))


def _variance(x: TensorLike, axis: Axis, keepdims: bool, ddof: int, name: str) -> Tensor:
    x = as_tensor(x, None, name)
    axes = normalize_axes(axis, x.ndim, name)
    keepdims = flag(keepdims, name, "keepdims")
    ddof = whole(ddof, f"{name}: ddof")
    n = math.prod(x.shape[a] for a in axes)
    if n == 0 or n <= ddof:
        raise errors.ShapeError(
            f"{name}: {n} elements along axis {axis} of x of shape {errors.describe(x.shape)} "
            f"leave nothing to divide by with ddof={ddof}. Give it more elements, or a smaller "
            "ddof."
        )
    off = x - mean(x, axes, keepdims=True)
    return raw.sum(off * off, axis=axes, keepdims=keepdims) / (n - ddof)


def prod(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = Π x over the axes; shapes as in `sum`, 1 over no elements.

    A tree of products, so that the gradient, of any order, is right where elements are 0: the usual
    rule y/x is not.
    """
    x = as_tensor(x, None, "prod")
    keepdims = flag(keepdims, "prod", "keepdims")
    axes = normalize_axes(axis, x.ndim, "prod")
    if x.dtype == bool:
        x = raw.astype(x, dtype=np.dtype(np.int64))
    kept = [a for a in range(x.ndim) if a not in axes]
    sizes = [x.shape[a] for a in kept]
    n = math.prod(x.shape[a] for a in axes)
    y = raw.reshape(raw.transpose(x, axes=(*kept, *axes)), shape=(*sizes, n))
    while n > 1:
        half = n // 2
        pairs = y[..., :half] * y[..., half : 2 * half]
        y = raw.concat(pairs, y[..., 2 * half :], axis=len(kept)) if n % 2 else pairs
        n = y.shape[-1]
    if n == 0:  # 1, and of no elements all the same: the gradient is empty
        y = raw.sum(y, axis=(len(kept),), keepdims=True) + 1
    shape = [1 if a in axes else size for a, size in enumerate(x.shape)] if keepdims else sizes
    return raw.reshape(y, shape=tuple(shape))


def cumsum(x: TensorLike, axis: int | None = None) -> Tensor:
    """yₜ = Σ xₛ over s ≤ t along the axis, in x's shape; over all elements in one row for `None`.

    Booleans and whole numbers give whole numbers.
    """
    x, at = one_axis_or_flat(x, axis, "cumsum")
    return raw.cumsum(x, axis=at, reverse=False)


def any(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether some element over the axes is not 0: booleans, not differentiable; shapes as in
    `sum`.
    """
    return sum(as_tensor(x, None, "any") != 0, axis, keepdims) > 0


def all(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Whether no element over the axes is 0: booleans, not differentiable; shapes as in `sum`."""
    return sum(as_tensor(x, None, "all") == 0, axis, keepdims) == 0


def argmax(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The place of the largest element along the axis (in one row of all, for `None`), the first
    of equal ones: int64, shape as in `sum`. Not differentiable: a constant.

    Raises `ShapeError` along an empty axis.
    """
    return _place(raw.argmax, x, axis, keepdims)


def argmin(x: TensorLike, axis: int | None = None, keepdims: bool = False) -> Tensor:
    """The place of the smallest element along the axis (in one row of all, for `None`), the first
    of equal ones: int64, shape as in `sum`. Not differentiable: a constant.

    Raises `ShapeError` along an empty axis.
    """
    return _place(raw.argmin, x, axis, keepdims)


def _place(op: Op, x: TensorLike, axis: int | None, keepdims: bool) -> Tensor:
    x = as_tensor(x, None, op.name)
    keepdims = flag(keepdims, op.name, "keepdims")
    row, at = one_axis_or_flat(x, axis, op.name)
    y = op(row, axis=at, keepdims=keepdims)
    return raw.reshape(y, shape=(1,) * x.ndim) if keepdims and axis is None else y
