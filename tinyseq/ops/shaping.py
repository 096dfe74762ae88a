"""Ops that arrange elements anew: shapes, borders, parts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from tinyseq import errors
from tinyseq import primitives as raw
from tinyseq.arguments import shown
from tinyseq.op import TensorLike, as_tensor, coerce
from tinyseq.ops.axes import normalize_axes, one_axis, one_axis_or_flat, say_axis, several, whole
from tinyseq.tensor import Axis, Tensor, constant, plain_array

__all__ = [
    "broadcast_to", "chunk", "concat", "expand", "expand_dims", "flip", "hstack", "pad", "permute",
    "ravel", "reshape", "roll", "split", "squeeze", "stack", "swapaxes", "tile", "transpose",
    "tril", "triu", "vstack",
]  # fmt: skip

Sizes = int | Sequence[int]


def _spelled(sizes: tuple[Sizes, ...], what: str) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` mean the same."""
    numbers = sizes[0] if len(sizes) == 1 and several(sizes[0]) else sizes
    return tuple([whole(n, what) for n in numbers])


def reshape(x: TensorLike, *shape: Sizes) -> Tensor:
    """The same elements, read row by row, in another shape; one size may be −1: what is left.

    Raises `ShapeError` where the number of elements would change.
    """
    return raw.reshape(x, shape=_spelled(shape, "reshape: a size of shape"))


def ravel(x: TensorLike) -> Tensor:
    """All elements along one axis, read row by row."""
    return reshape(as_tensor(x, None, "ravel"), -1)


def transpose(x: TensorLike, *axes: Sizes) -> Tensor:
    """The axes in the order given; reversed by default. Raises `ShapeError` unless each is named
    once.
    """
    x = as_tensor(x, None, "transpose")
    order = _spelled(axes, "transpose: one of axes") if axes else tuple(reversed(range(x.ndim)))
    return raw.transpose(x, axes=tuple(one_axis(a, x.ndim, "transpose", "axes") for a in order))


def permute(x: TensorLike, *axes: Sizes) -> Tensor:
    """The axes in the order given, as PyTorch spells `transpose`. Raises `ShapeError` unless each
    is named once.
    """
    x = as_tensor(x, None, "permute")
    return raw.transpose(
        x,
        axes=tuple(
            one_axis(a, x.ndim, "permute", "axes") for a in _spelled(axes, "permute: one of axes")
        ),
    )


def swapaxes(x: TensorLike, axis1: int, axis2: int) -> Tensor:
    """Two axes exchanged."""
    x = as_tensor(x, None, "swapaxes")
    a, b = (
        one_axis(axis, x.ndim, "swapaxes", argument)
        for argument, axis in (("axis1", axis1), ("axis2", axis2))
    )
    order = list(range(x.ndim))
    order[a], order[b] = b, a
    return raw.transpose(x, axes=tuple(order))


def squeeze(x: TensorLike, axis: Axis = None) -> Tensor:
    """Without these axes, or without all axes of length 1. Raises `ShapeError` for one that is
    longer.
    """
    x = as_tensor(x, None, "squeeze")
    axes = normalize_axes(axis, x.ndim, "squeeze")
    for a in axes:
        if x.shape[a] != 1 and axis is not None:
            raise errors.ShapeError(
                f"squeeze: axis {a} of x of shape {errors.describe(x.shape)} is {x.shape[a]} long. "
                "Only an axis of length 1 can be left out: reduce it, or index it."
            )
    gone = [a for a in axes if x.shape[a] == 1]
    return raw.reshape(x, shape=tuple(n for a, n in enumerate(x.shape) if a not in gone))


def expand_dims(x: TensorLike, axis: Sizes) -> Tensor:
    """With new axes of length 1 at these places of the result: (B, H) at 0 becomes (1, B, H)."""
    x = as_tensor(x, None, "expand_dims")
    axes: Any = axis if several(axis) else (axis,)
    more = len(axes)
    new = normalize_axes(axes, x.ndim + more, "expand_dims")
    sizes = iter(x.shape)
    return raw.reshape(x, shape=tuple(1 if a in new else next(sizes) for a in range(x.ndim + more)))


def broadcast_to(x: TensorLike, shape: Sizes) -> Tensor:
    """x repeated along new axes and axes of length 1 until it has this shape; else `ShapeError`."""
    return raw.broadcast_to(x, shape=_spelled((shape,), "broadcast_to: a size of shape"))


def sum_to(x: TensorLike, shape: Sequence[int]) -> Tensor:
    """x summed over the axes along which `broadcast_to` would have repeated: its adjoint.

    Raises `ShapeError` unless the shape broadcasts to that of x.
    """
    x = as_tensor(x, None, "sum_to")
    sizes = _spelled((shape,), "sum_to: a size of shape")
    before = x.ndim - len(sizes)
    if before < 0 or any(n not in (1, m) for n, m in zip(sizes, x.shape[before:], strict=True)):
        raise errors.ShapeError(
            f"sum_to: {errors.describe(sizes)} does not broadcast to {errors.describe(x.shape)}, "
            "so nothing sums back to it. Every size must be 1, or that of the same axis counted "
            "from the right."
        )
    return raw.sum_to(x, shape=sizes)


def expand(x: TensorLike, *shape: Sizes) -> Tensor:
    """`broadcast_to` as PyTorch spells it: −1 leaves an axis as long as it is.

    Raises `ShapeError` where x does not broadcast, or a new axis is given as −1.
    """
    x = as_tensor(x, None, "expand")
    sizes = _spelled(shape, "expand: a size of shape")
    new = len(sizes) - x.ndim
    if new > 0 and -1 in sizes[:new]:
        raise errors.ShapeError(
            f"expand: x {errors.describe(x.shape)} to shape {errors.describe(sizes)}: −1 leaves an "
            "axis as it is, and the tensor has none there yet. Give the size."
        )
    wide = tuple(x.shape[i - new] if n == -1 else n for i, n in enumerate(sizes))
    return raw.broadcast_to(x, shape=wide)


def flip(x: TensorLike, axis: Axis = None) -> Tensor:
    """The elements in reverse order along the axes (all of them by default); x's shape."""
    x = as_tensor(x, None, "flip")
    axes = normalize_axes(axis, x.ndim, "flip")
    step = {True: slice(None, None, -1), False: slice(None)}
    return raw.getitem(x, index=tuple(step[a in axes] for a in range(x.ndim)))


def roll(x: TensorLike, shift: Sizes, axis: Axis = None) -> Tensor:
    """The elements moved on by ``shift`` places along the axis (in one row of all, for `None`),
    those beyond its end to its beginning; x's shape. One shift for all axes, or one for each.

    Raises `ShapeError` for any other number of shifts.
    """
    x = as_tensor(x, None, "roll")
    y, along = (ravel(x), 0) if axis is None else (x, axis)
    axes = [one_axis(a, y.ndim, "roll") for a in (along if several(along) else (along,))]
    shifts = [whole(n, "roll: shift") for n in (shift if several(shift) else (shift,))]
    try:
        pairs = np.broadcast(shifts, axes)
    except ValueError as cause:
        raise errors.ShapeError(
            f"roll: shift={shown(shift)} must be one number, or one for each of {len(axes)} axes."
        ) from cause
    for n, a in pairs:
        cut = -n % (y.shape[a] or 1)
        head, tail = _parts(y, a, [0, cut, y.shape[a]])
        y = raw.concat(tail, head, axis=int(a)) if cut else y
    return raw.reshape(y, shape=x.shape) if axis is None else y


def tile(x: TensorLike, reps: Sizes) -> Tensor:
    """All of x again and again: ``reps`` times along each axis, or along the last ones where there
    are fewer of them; with new axes in front where there are more.

    Raises `ShapeError` for a negative number.
    """
    x, times = as_tensor(x, None, "tile"), _spelled((reps,), "tile: one of reps")
    if min(times, default=0) < 0:
        raise errors.ShapeError(f"tile: reps={shown(reps)} must be at least 0.")
    ndim = max(x.ndim, len(times))
    times = (*(1,) * (ndim - len(times)), *times)
    shape = (*(1,) * (ndim - x.ndim), *x.shape)
    wide = raw.reshape(x, shape=tuple(n for size in shape for n in (1, size)))
    wide = raw.broadcast_to(wide, shape=sum(zip(times, shape, strict=True), ()))
    return raw.reshape(wide, shape=tuple(r * n for r, n in zip(times, shape, strict=True)))


def tril(x: TensorLike, k: int = 0) -> Tensor:
    """x (..., N, M), with 0 above diagonal k: 0 is the main one, 1 the one above it."""
    return _triangle(x, k, "tril")


def triu(x: TensorLike, k: int = 0) -> Tensor:
    """x (..., N, M), with 0 below diagonal k: 0 is the main one, 1 the one above it."""
    return _triangle(x, k, "triu")


def _triangle(x: TensorLike, k: int, name: str) -> Tensor:
    x = as_tensor(x, None, name)
    if x.ndim < 2:
        raise errors.ShapeError(
            f"{name}: x of shape {errors.describe(x.shape)} is no matrix. Give it two axes or more."
        )
    upper = name == "triu"
    lower = np.tri(x.shape[-2], x.shape[-1], whole(k, f"{name}: k") - upper, dtype=bool)
    return raw.where(lower != upper, x, np.zeros((), x.dtype))


def pad(
    x: TensorLike,
    pad_width: npt.ArrayLike | Mapping[int, Any],
    mode: str = "constant",
    constant_values: npt.ArrayLike = 0,
) -> Tensor:
    """x with a border of constants: axis i gets before_i + n_i + after_i places.

    ``pad_width``: ((before, after), …) one pair an axis, one pair for all, one number for all, or a
    dict of those by axis; ``constant_values`` as much the same. Raises `ShapeError` for widths that
    do not fit or are negative, `DtypeError` for fractional ones or for constants that x's dtype
    cannot hold, `ValueError` for another mode than ``"constant"``.
    """
    x = as_tensor(x, None, "pad")
    if not (isinstance(mode, str) and mode == "constant"):
        raise ValueError(
            f"pad: mode={shown(mode)} is not offered, only 'constant'. Compose other borders "
            "from slices of x and concat."
        )
    widths = _pad_widths(pad_width, x.ndim)
    inner = tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape, strict=True))
    shape = tuple(before + n + after for (before, after), n in zip(widths, x.shape, strict=True))
    y = raw.scatter_add(x, indices=[inner], shape=shape)
    try:
        constants = constant(plain_array(constant_values), x.dtype)._data
        if not constants.any() or not x.ndim:
            return y
        border = np.pad(np.zeros_like(x._data), widths, constant_values=constants)
    except (TypeError, ValueError) as cause:
        kind = errors.DtypeError if isinstance(cause, TypeError) else errors.ShapeError
        raise kind(
            f"pad: constant_values={shown(constant_values)} do not fit x of shape "
            f"{errors.describe(x.shape)}, {x.dtype}: {cause}"
        ) from cause
    return y + Tensor.wrap(border)


def _pad_widths(pad_width: Any, ndim: int) -> list[tuple[int, int]]:
    by_axis = pad_width if isinstance(pad_width, Mapping) else {None: pad_width}
    widths = np.zeros((ndim, 2), np.int64)
    for axis, width in by_axis.items():
        at = slice(None) if axis is None else one_axis(axis, ndim, "pad", "pad_width")
        try:
            given = plain_array(width)
            if given.dtype.kind in "iu":
                widths[at] = np.broadcast_to(given, widths[at].shape)
        except ValueError as cause:
            raise errors.ShapeError(
                f"pad: pad_width={shown(pad_width)} does not fit a tensor with {ndim} axes. "
                "Give one number, one pair (before, after), or one pair an axis."
            ) from cause
        if given.dtype.kind not in "iu":
            raise errors.DtypeError(
                f"pad: pad_width must be whole numbers, not {given.dtype}: {shown(pad_width)}."
            )
    if (widths < 0).any():
        raise errors.ShapeError(
            f"pad: pad_width={shown(pad_width)} is negative. Use a slice to cut elements off."
        )
    return [(int(before), int(after)) for before, after in widths]


# -- several from one, and one from several -----------------------------------------------------


def concat(xs: Iterable[TensorLike], axis: int | None = 0) -> Tensor:
    """The tensors one after the other along an axis; their other sizes must be equal, else
    `ShapeError`. ``axis=None`` puts the elements of all of them in one row.
    """
    tensors = _tensors(xs, "concat")
    if axis is None:
        tensors = tuple(one_axis_or_flat(x, None, "concat")[0] for x in tensors)
    at = 0 if axis is None else one_axis(axis, tensors[0].ndim, "concat", of="of xs")
    return raw.concat(*tensors, axis=at)


def stack(xs: Iterable[TensorLike], axis: int = 0) -> Tensor:
    """The tensors side by side along a new axis: T tensors (B, H) become (T, B, H).

    Raises `ShapeError` where their shapes differ.
    """
    tensors = _tensors(xs, "stack")
    shape = tensors[0].shape
    for x in tensors:
        if x.shape != shape:
            sizes = errors.listed(errors.describe(x.shape) for x in tensors)
            raise errors.ShapeError(f"stack: all shapes of xs must be equal, got {sizes}.")
    at = one_axis(axis, len(shape) + 1, "stack", of="of xs, stacked,")
    wide = (*shape[:at], 1, *shape[at:])
    return raw.concat(*(raw.reshape(x, shape=wide) for x in tensors), axis=at)


def hstack(xs: TensorLike | Iterable[TensorLike]) -> Tensor:
    """The tensors side by side: `concat` along axis 1, and of vectors and numbers along axis 0."""
    tensors = [x if x.ndim else ravel(x) for x in _tensors(xs, "hstack")]
    return raw.concat(*tensors, axis=min(tensors[0].ndim, 2) - 1)


def vstack(xs: TensorLike | Iterable[TensorLike]) -> Tensor:
    """The tensors one below the other: `concat` along axis 0, vectors and numbers taken as rows."""
    tensors = [x if x.ndim > 1 else reshape(x, 1, -1) for x in _tensors(xs, "vstack")]
    return raw.concat(*tensors, axis=0)


def _tensors(xs: TensorLike | Iterable[TensorLike], name: str) -> tuple[Tensor, ...]:
    return coerce(_some(xs, name), name, ("xs",))


def _some(xs: TensorLike | Iterable[TensorLike], name: str) -> tuple[TensorLike, ...]:
    if not several(xs):  # a tensor is the series of its rows, as in NumPy
        raise TypeError(f"{name}: xs={shown(xs)} must be a list of tensors.")
    some = tuple(xs)
    if not some:
        raise errors.ShapeError(f"{name}: xs holds nothing. Give it at least one tensor.")
    return some


def split(x: TensorLike, indices_or_sections: int | Iterable[int], axis: int = 0) -> list[Tensor]:
    """Cut along an axis: a number of equal parts, or before each of these indices.

    (B, 3H) in 3 along axis 1 gives three (B, H); (T,) at [2, 5] gives x[:2], x[2:5], x[5:].
    (PyTorch's split takes sizes instead.) Raises `ShapeError` for parts that would not be equal.
    """
    x = as_tensor(x, None, "split")
    at = one_axis(axis, x.ndim, "split")
    n = x.shape[at]
    parts = indices_or_sections
    if not several(parts):
        sections = whole(parts, "split: indices_or_sections")
        if sections < 1 or n % sections:
            raise errors.ShapeError(
                f"split: axis {at} of x of shape {errors.describe(x.shape)} is {n} long and cannot "
                f"be cut in {sections} equal parts (indices_or_sections). Give the indices to cut "
                "at, or use chunk."
            )
        return _parts(x, at, [i * n // sections for i in range(sections + 1)])
    return _parts(x, at, [0, *(whole(i, "split: one of indices_or_sections") for i in parts), n])


def chunk(x: TensorLike, chunks: int, axis: int = 0) -> list[Tensor]:
    """Cut along an axis in at most so many parts of ⌈n / chunks⌉, the last perhaps shorter: as
    PyTorch does.

    Raises `ShapeError` for less than one part.
    """
    x = as_tensor(x, None, "chunk")
    at = one_axis(axis, x.ndim, "chunk")
    n = x.shape[at]
    chunks = whole(chunks, "chunk: chunks")
    if chunks < 1:
        raise errors.ShapeError(f"chunk: chunks={chunks} parts are none. Ask for at least one.")
    size = -(-n // chunks)
    return _parts(x, at, [*range(0, n, size), n] if n else [0] * (chunks + 1))


def _parts(x: Tensor, axis: int, cuts: list[int]) -> list[Tensor]:
    before = (slice(None),) * axis
    return [raw.getitem(x, index=(*before, slice(a, b))) for a, b in pairwise(cuts)]


globals().update(say_axis(globals(), __all__))
