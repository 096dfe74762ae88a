"""Ops that pick elements by their places, and those that put them in order."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyseq import errors, graph
from tinyseq import primitives as raw
from tinyseq.graph import recording, redone
from tinyseq.op import TensorLike, as_tensor
from tinyseq.ops.axes import one_axis, one_axis_or_flat
from tinyseq.tensor import Tensor


def getitem(x: TensorLike, index: Any) -> Tensor:
    """x[index]: whole numbers, slices, None, Ellipsis, integer arrays and boolean masks, as in
    NumPy; a list, and a tuple or a range within the index, counts as an array.

    Raises `IndexError` outside of x, and where a mask is not as long as its axes; `DtypeError` for
    an array of anything but whole numbers and booleans.
    """
    if isinstance(index, tuple):
        index = tuple(_fixed_index(part) for part in index)
    else:
        index = _fixed_index(index)
    parts = index if isinstance(index, tuple) else (index,)
    if any(_is_mask(part) and part.size == 0 for part in parts):
        x = as_tensor(x)
        _check_empty_masks(x.shape, parts)
    return raw.getitem(x, index=index)


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == bool


def _check_empty_masks(shape: tuple[int, ...], parts: tuple[Any, ...]) -> None:
    """NumPy looks at the length of every mask but those that hold nothing."""
    takes = [
        part.ndim
        if _is_mask(part)
        else int(not (part is None or part is ... or isinstance(part, bool | np.bool_)))
        for part in parts
    ]
    axis = 0
    for i, part in enumerate(parts):
        if part is ...:
            axis = len(shape) - sum(takes[i:])
        axes = shape[axis : axis + takes[i]]
        if _is_mask(part) and part.size == 0 and part.shape != axes:
            raise IndexError(
                f"getitem: {errors.describe(shape)}: a mask of shape {errors.describe(part.shape)} "
                f"does not fit the axes {errors.describe(axes)} from axis {axis} on. "
                "Make it as long as they are."
            )
        axis += takes[i]


def _fixed_index(part: Any) -> Any:
    """A copy, for the caller may write into an index array before the backward pass reads it; and
    in int64, for the backward pass counts places, which smaller dtypes have no room for.
    """
    if isinstance(part, slice):
        bounds = (part.start, part.stop, part.step)
        return slice(*(None if n is None else operator.index(n) for n in bounds))
    take, given = recording.take, isinstance(part, Tensor)
    if given:
        graph.readable_index("an index")
        part = part._data
    if (
        take is not None
        and isinstance(part, np.ndarray)
        and part.dtype.kind in "iub"
        and (given or take.knows(part))
    ):
        return redone(_whole, part)
    if isinstance(part, str) or not isinstance(part, np.ndarray | Sequence):
        return part
    try:
        array = np.array(part)
    except ValueError as cause:
        raise errors.DtypeError(f"no rectangular index can be made of {part}: {cause}") from cause
    if array.size == 0 and not isinstance(part, np.ndarray):
        array = array.astype(np.int64)  # an empty list has no dtype of its own
    if array.dtype.kind not in "iub":
        raise errors.DtypeError(
            f"an index of dtype {array.dtype} picks nothing; use whole numbers or booleans."
        )
    if array.ndim == 0:
        return array.item()  # as NumPy: the number itself, whose axis goes away
    return array if array.dtype == bool else array.astype(np.int64, copy=False)


def _whole(index: np.ndarray) -> np.ndarray:
    return index if index.dtype == bool else index.astype(np.int64, copy=False)


def take_along_axis(x: TensorLike, indices: TensorLike, axis: int | None = -1) -> Tensor:
    """y[i, j, k] = x[i, indices[i, j, k], k] for axis 1: along one axis, what the indices say.

    Everywhere but along the axis the sizes of x and of the indices broadcast; ``axis=None`` takes
    x's elements in one row. Puts `argmax(…, keepdims=True)` and `argsort` to use. Raises
    `ShapeError`, `DtypeError` for indices that are not whole numbers, `IndexError` outside of x.
    """
    x, at = one_axis_or_flat(x, axis, "take_along_axis")
    index = _indices(indices, x, at, "take_along_axis")
    for a, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)):
        if a != at and n != m and 1 not in (n, m):
            raise errors.ShapeError(
                f"take_along_axis: {errors.describe(x.shape)} and indices "
                f"{errors.describe(index.shape)} differ along axis {a}. Only axis {at} may differ."
            )
    return raw.getitem(x, index=_along(x.shape, index, at))


def gather(x: TensorLike, axis: int, index: TensorLike) -> Tensor:
    """y[i, j, k] = x[i, index[i, j, k], k] for axis 1, in the index's shape: as in PyTorch.

    The index may be shorter than x along the other axes (what lies beyond is left out), and does
    not broadcast. Raises `ShapeError`, `DtypeError` for an index that is not of whole numbers,
    `IndexError` outside of x.
    """
    x = as_tensor(x)
    at = one_axis(axis, x.ndim, "gather")
    where_from = _indices(index, x, at, "gather")
    for a, (n, m) in enumerate(zip(x.shape, where_from.shape, strict=True)):
        if a != at and m > n:
            raise errors.ShapeError(
                f"gather: index {errors.describe(where_from.shape)} is longer than "
                f"{errors.describe(x.shape)} along axis {a}. Only axis {at} may be."
            )
    return raw.getitem(x, index=_along(where_from.shape, where_from, at))


def _indices(indices: TensorLike, x: Tensor, axis: int, name: str) -> np.ndarray[Any, Any]:
    """A copy of the indices, after a look at dtype, axes and range."""
    if isinstance(indices, Tensor):
        graph.readable("an index")
    index = np.array(indices._data if isinstance(indices, Tensor) else indices)
    if index.dtype.kind not in "iu":
        raise errors.DtypeError(f"{name}: indices must be whole numbers, not {index.dtype}.")
    index = index.astype(np.int64, copy=False)
    if index.ndim != x.ndim:
        raise errors.ShapeError(
            f"{name}: indices {errors.describe(index.shape)} need as many axes as "
            f"{errors.describe(x.shape)}. Use expand_dims on them."
        )
    n = x.shape[axis]
    wrong = index[(index < -n) | (index >= n)]
    if wrong.size:
        raise IndexError(
            f"{name}: index {wrong[0]} is outside of axis {axis} of shape "
            f"{errors.describe(x.shape)}. Use {-n} to {n - 1}."
        )
    return index


def _along(shape: tuple[int, ...], index: np.ndarray[Any, Any], axis: int) -> tuple[Any, ...]:
    """The index along the axis; along every other one each place stays where it is."""
    places = np.ogrid[tuple(slice(n) for n in shape)]
    return tuple(index if a == axis else places[a] for a in range(len(shape)))


def argsort(x: TensorLike, axis: int | None = -1) -> Tensor:
    """The places of the elements along the axis (in one row of all, for `None`), smallest element
    first, equal ones in their order: int64, x's shape. Not differentiable: a constant.
    """
    x, at = one_axis_or_flat(x, axis, "argsort")
    return raw.argsort(x, axis=at)


def sort(x: TensorLike, axis: int | None = -1) -> Tensor:
    """The elements along the axis (in one row of all, for `None`), smallest first; x's shape.

    Each gradient goes back to where its element came from. A new tensor: nothing is sorted in
    place.
    """
    x, at = one_axis_or_flat(x, axis, "sort")
    graph.readable("sort")
    return raw.getitem(x, index=_along(x.shape, raw.argsort(x, axis=at)._data, at))
