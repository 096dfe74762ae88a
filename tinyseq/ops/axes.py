"""How an axis may be spelled, for all ops alike."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
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
    if x.__class__ in (int, list, tuple):  # the usual ones, before anything dear
        return x.__class__ is not int
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


def say_axis(space: Mapping[str, Any], names: Iterable[str]) -> dict[str, Callable[..., Any]]:
    """Those functions of a module or a class that take an axis. Called with PyTorch's ``dim=`` or
    ``keepdim=``, they now name the argument that it is here.
    """
    functions = {name: space[name] for name in names if inspect.isfunction(space.get(name))}
    codes = {name: inspect.unwrap(function).__code__ for name, function in functions.items()}
    takes = [n for n, code in codes.items() if "axis" in code.co_varnames[: code.co_argcount]]
    return {name: _says_axis(functions[name]) for name in takes}


_OURS = {"dim": "axis", "dims": "axis", "keepdim": "keepdims"}


def _says_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name in _OURS:
                said = f"{function.__name__}: there is no argument {name}"
                raise TypeError(f"{said}. Write {_OURS[name]}={shown(kwargs[name])}.")
        return function(*args, **kwargs)

    return call


def for_rows_of(on: Tensor, x: Tensor) -> Tensor:
    """(B, 1), one number for each sequence, with as many axes as x (B, …): it meets the rows of x,
    where broadcasting by itself would line it up with x's last axis.
    """
    if x.ndim == on.ndim:
        return on
    return raw.reshape(on, shape=(on.shape[0], *[1] * (x.ndim - 1)))
