"""Ops that make one of many: sums, extremes, moments, along axes."""

from __future__ import annotations

import math

import numpy as np

from tinyseq import errors
from tinyseq import primitives as raw
from tinyseq.arguments import checked
from tinyseq.op import F32, Op, TensorLike, as_tensor
from tinyseq.ops.axes import normalize_axes, one_axis_or_flat, say_axis, whole
from tinyseq.primitives import abs, where
from tinyseq.tensor import FLOATS, Axis, Tensor, flag

__all__ = [
    "all", "any", "argmax", "argmin", "cumprod", "cumsum", "logsumexp", "max", "mean", "min",
    "norm", "prod", "std", "sum", "var",
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
    return _power(_variance(x, axis, keepdims, ddof, "std"), 0.5)


def _power(x: Tensor, p: float) -> Tensor:
    """xᵖ for x ≥ 0 and p > 0, with a gradient of 0 at 0: a slope of ∞ times 0 would be NaN."""
    zero = x == 0
    safe = where(zero, 1.0, x)
    return where(zero, 0.0, raw.sqrt(safe) if p == 0.5 else safe**p)


@checked
def norm(
    x: TensorLike, ord: float | None = None, axis: Axis = None, keepdims: bool = False
) -> Tensor:
    """y = (Σ |x|ᵖ)^(1/p) over the axis, with p = ord: the length of vectors, as in `numpy.linalg`.

    ``ord``: 2 by default, then over any number of axes (all, for `None`); inf and −inf: the largest
    and the smallest |x|; 0: how many are not 0. Where y is 0, so is its gradient. Raises
    `ValueError` for an ord over several axes: norms of matrices are not offered.
    """
    x = as_tensor(x, None, "norm")
    x = x if x.dtype in FLOATS else raw.astype(x, dtype=F32)
    axes = normalize_axes(axis, x.ndim, "norm")
    if ord is None or (ord == 2 and len(axes) == 1):
        return _power(sum(x * x, axes, keepdims), 0.5)
    if len(axes) != 1:
        raise ValueError(
            f"norm: ord={ord} over {len(axes)} axes of x of shape {errors.describe(x.shape)} would "
            "be the norm of a matrix. Give one axis, or leave ord out."
        )
    if ord == 0:
        return raw.astype(sum(x != 0, axes, keepdims), dtype=x.dtype)
    x, ord = abs(x), float(ord)
    if math.isinf(ord):
        return (max if ord > 0 else min)(x, axes, keepdims)
    if ord < 0:
        return sum(x**ord, axes, keepdims) ** (1 / ord)
    return _power(sum(_power(x, ord), axes, keepdims), 1 / ord)


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


def cumprod(x: TensorLike, axis: int | None = None) -> Tensor:
    """yₜ = Π xₛ over s ≤ t along the axis, in x's shape; over all elements in one row for `None`.

    Of products alone (log₂ n times every element with one before it), so that the gradient, of any
    order, is right where elements are 0. Booleans and whole numbers give whole numbers.
    """
    x, at = one_axis_or_flat(x, axis, "cumprod")
    y = raw.astype(x, dtype=np.dtype(np.int64)) if x.dtype == bool else x
    before, step = (slice(None),) * at, 1
    while step < x.shape[at]:
        late, early = y[(*before, slice(step, None))], y[(*before, slice(-step))]
        y = raw.concat(y[(*before, slice(step))], late * early, axis=at)
        step *= 2
    return y


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


globals().update(say_axis(globals(), __all__))
