"""Ops that pick elements by their places, and those that put them in order."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinyseq import errors
from tinyseq import primitives as raw
from tinyseq.arguments import shown
from tinyseq.op import TensorLike, as_tensor
from tinyseq.ops.axes import one_axis, one_axis_or_flat, say_axis, whole
from tinyseq.ops.shaping import flip
from tinyseq.tensor import Tensor, flag, plain_array

__all__ = [
    "argsort", "gather", "getitem", "repeat", "sort", "take", "take_along_axis", "topk",
]  # fmt: skip


def getitem(x: TensorLike, index: Any) -> Tensor:
    """x[index]: whole numbers, slices, None, Ellipsis, integer arrays and boolean masks, as in
    NumPy; a list, and a tuple or a range within the index, counts as an array.

    Raises `IndexError` outside of x, and where a mask is not as long as its axes; `DtypeError` for
    an array of anything but whole numbers and booleans.
    """
    x = as_tensor(x, None, "getitem")
    several = isinstance(index, tuple)
    parts = tuple(map(_part, index)) if several else (_part(index),)
    arrays = [part for part in parts if isinstance(part, Tensor)]
    if not arrays:
        return raw.getitem(x, index=parts if several else parts[0])
    index = tuple(raw.ARRAY if isinstance(part, Tensor) else part for part in parts)
    index = index if several else raw.ARRAY
    if any(array.size == 0 and array.dtype == bool for array in arrays):
        _check_empty_masks(x.shape, parts)
    return raw.getitem(x, *arrays, index=index)


def _check_empty_masks(shape: tuple[int, ...], parts: tuple[Any, ...]) -> None:
    """NumPy looks at the length of every mask but those that hold nothing."""
    masks = [isinstance(part, Tensor) and part.dtype == bool for part in parts]
    takes = [
        part.ndim
        if mask
        else int(not (part is None or part is ... or isinstance(part, bool | np.bool_)))
        for part, mask in zip(parts, masks, strict=True)
    ]
    axis = 0
    for i, part in enumerate(parts):
        if part is ...:
            axis = len(shape) - sum(takes[i:])
        axes = shape[axis : axis + takes[i]]
        if masks[i] and part.size == 0 and part.shape != axes:
            raise IndexError(
                f"getitem: {errors.describe(shape)}: a mask of shape {errors.describe(part.shape)} "
                f"does not fit the axes {errors.describe(axes)} from axis {axis} on. "
                "Make it as long as they are."
            )
        axis += takes[i]


def _part(part: Any) -> Any:
    """One part of an index; an array becomes a Tensor: a copy in int64, for the caller may write
    into it before the backward pass, and that counts places, which smaller dtypes have no room for.
    """
    if isinstance(part, slice):
        bounds = (part.start, part.stop, part.step)
        try:
            return slice(*(None if n is None else operator.index(n) for n in bounds))
        except TypeError:
            for n in bounds:
                if n is not None:
                    whole(n, "getitem: a bound of a slice")
            raise
    if isinstance(part, Tensor):
        return Tensor(_of_places(part))
    if isinstance(part, str) or not isinstance(part, np.ndarray | Sequence):
        return part
    try:
        array = plain_array(part)
    except ValueError as cause:
        raise errors.DtypeError(f"no rectangular index can be made of {part}: {cause}") from cause
    if array.size == 0 and not isinstance(part, np.ndarray):
        array = array.astype(np.int64)  # an empty list has no dtype of its own
    array = _of_places(array)
    if array.ndim == 0:
        return array.item()  # as NumPy: the number itself, whose axis goes away
    return Tensor(array)


def _of_places(array: Any) -> Any:
    if array.dtype.kind not in "iub":
        raise errors.DtypeError(
            f"getitem: an index of dtype {array.dtype} picks nothing; use whole numbers or "
            "booleans."
        )
    return array


def take(x: TensorLike, indices: TensorLike, axis: int | None = None) -> Tensor:
    """y = the elements of x at these places along the axis (of all in one row, for `None`): (T, B)
    at (K, L) along axis 0 gives (K, L, B).

    Raises `DtypeError` for indices that are not whole numbers, `IndexError` outside of x.
    """
    x, at = one_axis_or_flat(x, axis, "take")
    index = _places(indices, x, at, "take", "indices")
    return getitem(x, (*(slice(None),) * at, index) if at else index)


def repeat(x: TensorLike, repeats: npt.ArrayLike, axis: int | None = None) -> Tensor:
    """Each element along the axis (of all in one row, for `None`) several times in a row:
    ``repeats`` times, or one number of times an element. For all of x again and again see `tile`.

    Raises `DtypeError` for repeats that are not whole numbers, `ShapeError` for a negative one and
    where they are neither one nor as many as the elements.
    """
    x, at = one_axis_or_flat(x, axis, "repeat")
    times, n = as_tensor(repeats, None, "repeat", "repeats"), x.shape[at]
    if times.dtype != np.int64:
        raise errors.DtypeError(f"repeat: repeats must hold whole numbers, not {times.dtype}.")
    counts = times.numpy() if isinstance(repeats, Tensor) else times._data
    if counts.shape not in ((), (1,), (n,)) or (counts < 0).any():
        raise errors.ShapeError(
            f"repeat: repeats={shown(repeats)} must be one number, at least 0, or one for each of "
            f"the {n} elements along axis {at} of x of shape {errors.describe(x.shape)}."
        )
    return take(x, np.repeat(np.arange(n), counts), at)


def take_along_axis(x: TensorLike, indices: TensorLike, axis: int | None = -1) -> Tensor:
    """y[i, j, k] = x[i, indices[i, j, k], k] for axis 1: along one axis, what the indices say.

    Everywhere but along the axis the sizes of x and of the indices broadcast; ``axis=None`` takes
    x's elements in one row. Puts `argmax(…, keepdims=True)` and `argsort` to use. Raises
    `ShapeError`, `DtypeError` for indices that are not whole numbers, `IndexError` outside of x.
    """
    x, at = one_axis_or_flat(x, axis, "take_along_axis")
    index = _indices(indices, x, at, "take_along_axis", "indices")
    for a, (n, m) in enumerate(zip(x.shape, index.shape, strict=True)):
        if a != at and n != m and 1 not in (n, m):
            raise errors.ShapeError(
                f"take_along_axis: x {errors.describe(x.shape)} and indices "
                f"{errors.describe(index.shape)} differ along axis {a}. Only axis {at} may differ."
            )
    return _along(x, index, at, x.shape)


def gather(x: TensorLike, axis: int, index: TensorLike) -> Tensor:
    """y[i, j, k] = x[i, index[i, j, k], k] for axis 1, in the index's shape: as in PyTorch.

    The index may be shorter than x along the other axes (what lies beyond is left out), and does
    not broadcast. Raises `ShapeError`, `DtypeError` for an index that is not of whole numbers,
    `IndexError` outside of x.
    """
    x = as_tensor(x, None, "gather")
    at = one_axis(axis, x.ndim, "gather")
    where_from = _indices(index, x, at, "gather", "index")
    for a, (n, m) in enumerate(zip(x.shape, where_from.shape, strict=True)):
        if a != at and m > n:
            raise errors.ShapeError(
                f"gather: index {errors.describe(where_from.shape)} is longer than x "
                f"{errors.describe(x.shape)} along axis {a}. Only axis {at} may be."
            )
    return _along(x, where_from, at, where_from.shape)


def _indices(given: TensorLike, x: Tensor, axis: int, name: str, argument: str) -> Tensor:
    """The indices, with the axes of x."""
    index = _places(given, x, axis, name, argument)
    if index.ndim != x.ndim:
        raise errors.ShapeError(
            f"{name}: {argument} {errors.describe(index.shape)} must have as many axes as x "
            f"{errors.describe(x.shape)}. Use expand_dims on it, or another axis."
        )
    return index


def _places(given: TensorLike, x: Tensor, axis: int, name: str, argument: str) -> Tensor:
    """The indices, after a look at dtype and range."""
    index = as_tensor(given, None, name, argument)
    if index.dtype != np.int64:
        raise errors.DtypeError(f"{name}: {argument} must hold whole numbers, not {index.dtype}.")
    index = Tensor(index)  # a copy: the caller may write into it before the backward pass
    raw.check(index, rule=_within, shape=x.shape, axis=axis, name=f"{name}: {argument}")
    return index


def _within(index: np.ndarray, shape: tuple[int, ...], axis: int, name: str) -> None:
    n = shape[axis]
    wrong = index[(index < -n) | (index >= n)]
    if wrong.size:
        raise IndexError(
            f"{name}: index {wrong[0]} is outside of axis {axis} of x of shape "
            f"{errors.describe(shape)}. Use {-n} to {n - 1}."
        )


def _along(x: Tensor, index: Tensor, axis: int, shape: tuple[int, ...]) -> Tensor:
    """x by the index along the axis; along every other one each place stays where it is."""
    places = map(Tensor.wrap, np.ogrid[tuple(slice(n) for n in shape)])
    parts = [index if a == axis else here for a, here in enumerate(places)]
    return raw.getitem(x, *parts, index=(raw.ARRAY,) * x.ndim)


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
    return _along(x, raw.argsort(x, axis=at), at, x.shape)


class TopK(NamedTuple):
    """What `topk` gives."""

    values: Tensor
    indices: Tensor


def topk(x: TensorLike, k: int, axis: int = -1, largest: bool = True) -> TopK:
    """The k largest (or smallest) elements along the axis, in order, and their places: ``values``
    and ``indices``, int64, both k long there. As in PyTorch NaN is the largest; of equal elements
    the first comes first. Gradients go back to where the values came from.

    Raises `ShapeError` for more than there are.
    """
    x = as_tensor(x, None, "topk")
    at, k = one_axis(axis, x.ndim, "topk"), whole(k, "topk: k")
    n = x.shape[at]
    if not 0 <= k <= n:
        raise errors.ShapeError(
            f"topk: k={k} of the {n} elements along axis {at} of x of shape "
            f"{errors.describe(x.shape)}. Ask for 0 to {n}."
        )
    if flag(largest, "topk", "largest"):  # backwards twice: equal ones keep their order
        order = flip(n - 1 - raw.argsort(flip(x, at), axis=at), at)
    else:
        order = raw.argsort(x, axis=at)
    first = order[(*(slice(None),) * at, slice(k))]
    return TopK(_along(x, first, at, first.shape), first)


globals().update(say_axis(globals(), __all__))
