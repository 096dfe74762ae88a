"""Tensors that are made of a shape and numbers alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tinyseq import errors
from tinyseq.arguments import checked, shown
from tinyseq.op import as_tensor
from tinyseq.ops.axes import several, whole
from tinyseq.tensor import Tensor, known_dtype

__all__ = ["arange", "full", "ones", "zeros"]

Shape = int | Sequence[int]


@checked
def zeros(shape: Shape, dtype: npt.DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A new leaf of zeros. Raises `ShapeError` for a negative size."""
    return _filled("zeros", shape, 0, dtype, requires_grad)


@checked
def ones(shape: Shape, dtype: npt.DTypeLike = np.float32, requires_grad: bool = False) -> Tensor:
    """A new leaf of ones. Raises `ShapeError` for a negative size."""
    return _filled("ones", shape, 1, dtype, requires_grad)


@checked
def full(
    shape: Shape,
    fill_value: npt.ArrayLike,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A new leaf that holds ``fill_value`` everywhere, a number or what broadcasts to the shape.

    Its dtype is that of `tinyseq.tensor`: float32 for Python floats, int64 for whole numbers.
    Raises `ShapeError`. For a tensor with a gradient use `broadcast_to`.
    """
    return _filled("full", shape, fill_value, dtype, requires_grad)


def _filled(
    name: str,
    shape: Shape,
    value: npt.ArrayLike | Tensor,
    dtype: npt.DTypeLike | None,
    requires_grad: bool,
) -> Tensor:
    sizes = [whole(n, f"{name}: a size of shape") for n in (shape if several(shape) else (shape,))]
    wanted = None if dtype is None else known_dtype(dtype, name)
    given = np.asarray(value) if isinstance(value, Tensor) else value
    fill = as_tensor(given, wanted, name, "fill_value")
    try:
        out = Tensor.wrap(np.full(sizes, fill._data))
    except ValueError as cause:
        raise errors.ShapeError(
            f"{name}: shape={shown(shape)} cannot be filled with fill_value of shape "
            f"{errors.describe(fill.shape)}: {cause}. Sizes are at least 0, and fill_value "
            "broadcasts to them."
        ) from cause
    out.requires_grad = requires_grad
    return out


@checked
def arange(
    start: int | float,
    stop: int | float | None = None,
    step: int | float = 1,
    dtype: npt.DTypeLike | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """The numbers from start, ``step`` apart, to stop, which is left out; ``arange(n)`` starts at
    0. int64 for whole numbers, else float32. Raises `ValueError` where there is no end to them.
    """
    first, last = (0, start) if stop is None else (start, stop)
    try:
        numbers = np.arange(first, last, step)
        if numbers.dtype == object:
            raise OverflowError("int64 does not hold them")
    except (ArithmeticError, ValueError, MemoryError) as cause:
        raise ValueError(
            f"arange: start={first}, stop={last} and step={step} are no range: {cause}. Give "
            "finite numbers, and a step that is not 0."
        ) from cause
    usual = np.float32 if numbers.dtype.kind == "f" else np.int64
    return Tensor(numbers, usual if dtype is None else dtype, requires_grad)
