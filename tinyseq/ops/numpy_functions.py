"""NumPy's functions called on a Tensor: our op of the same meaning, else NumPy on the contents
where no gradient is lost, else an error that names what to use.

Never a silent detach: on a Tensor that requires a gradient, a function that is not in the tables
below raises.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tinyseq import ops
from tinyseq.tensor import Tensor


def _where(condition: Any, x: Any = None, y: Any = None) -> Any:
    if x is None or y is None:
        raise TypeError(
            "numpy.where of a Tensor: give both values to choose from, or ask "
            "numpy.nonzero(x.detach().numpy()) for the places."
        )
    return ops.where(condition, x, y)


SAME: dict[Callable[..., Any], Callable[..., Any]] = {
    np.add: ops.add, np.subtract: ops.sub, np.multiply: ops.mul, np.divide: ops.div,
    np.power: ops.pow, np.negative: ops.neg, np.absolute: ops.abs, np.sign: ops.sign,
    np.exp: ops.exp, np.expm1: ops.expm1, np.log: ops.log, np.log1p: ops.log1p, np.sqrt: ops.sqrt,
    np.sin: ops.sin, np.cos: ops.cos, np.tanh: ops.tanh, np.square: lambda x: x * x,
    np.tan: ops.tan, np.log2: ops.log2, np.log10: ops.log10, np.floor: ops.floor,
    np.rint: ops.rint, np.round: ops.round, np.around: ops.round, np.isnan: ops.isnan,
    np.remainder: ops.remainder, np.floor_divide: ops.floor_divide,
    np.maximum: ops.maximum, np.minimum: ops.minimum, np.matmul: ops.matmul, np.dot: ops.dot,
    np.outer: ops.outer, np.tensordot: ops.tensordot, np.linalg.norm: ops.norm,
    np.less: ops.less, np.less_equal: ops.less_equal, np.greater: ops.greater,
    np.greater_equal: ops.greater_equal, np.equal: ops.equal, np.not_equal: ops.not_equal,
    np.logical_and: ops.logical_and, np.logical_or: ops.logical_or,
    np.logical_not: ops.logical_not, np.bitwise_and: ops.logical_and,
    np.bitwise_or: ops.logical_or, np.invert: ops.logical_not,
    np.sum: ops.sum, np.mean: ops.mean, np.var: ops.var, np.std: ops.std, np.prod: ops.prod,
    np.max: ops.max, np.amax: ops.max, np.min: ops.min, np.amin: ops.min, np.any: ops.any,
    np.all: ops.all, np.cumsum: ops.cumsum, np.cumprod: ops.cumprod, np.argmax: ops.argmax,
    np.argmin: ops.argmin,
    np.argsort: lambda a, axis=-1, kind=None, stable=None: ops.argsort(a, axis),
    np.sort: lambda a, axis=-1, kind=None, stable=None: ops.sort(a, axis),
    np.clip: lambda a, a_min=None, a_max=None, min=None, max=None: ops.clip(
        a, a_min if min is None else min, a_max if max is None else max
    ),
    np.where: _where,
    np.einsum: lambda *operands, optimize=False: ops.einsum(*operands),
    np.reshape: lambda a, shape: ops.reshape(a, shape),
    np.ravel: lambda a: ops.ravel(a), np.roll: ops.roll, np.tile: ops.tile,
    np.tril: ops.tril, np.triu: ops.triu, np.hstack: ops.hstack, np.vstack: ops.vstack,
    np.transpose: lambda a, axes=None: ops.transpose(a, *([axes] if axes is not None else [])),
    np.swapaxes: ops.swapaxes, np.squeeze: ops.squeeze, np.expand_dims: ops.expand_dims,
    np.broadcast_to: ops.broadcast_to, np.flip: ops.flip, np.pad: ops.pad,
    np.concatenate: ops.concat, np.stack: ops.stack, np.split: ops.split,
    np.take_along_axis: ops.take_along_axis, np.take: ops.take, np.repeat: ops.repeat,
    np.shape: lambda a: a.shape, np.ndim: lambda a: a.ndim, np.size: lambda a: a.size,
}  # fmt: skip

# What reads no contents loses no gradient.
_SHAPE_ONLY = {np.zeros_like, np.ones_like, np.empty_like}

_INSTEAD: dict[str, str] = {
    "append": "concat", "array_split": "split or chunk", "average": "mean", "cbrt": "** (1 / 3)",
    "ceil": "-floor(-x)", "column_stack": "stack or concat", "diagonal": "einsum",
    "diff": "x[1:] - x[:-1]", "divmod": "// and %", "dsplit": "split", "dstack": "concat",
    "exp2": "2 ** x", "float_power": "**", "fmax": "maximum", "fmin": "minimum", "hsplit": "split",
    "hypot": "sqrt(a * a + b * b)", "inner": "matmul or einsum", "kron": "einsum and reshape",
    "logaddexp": "logsumexp of a stack", "moveaxis": "transpose", "positive": "x itself",
    "ptp": "max and min", "reciprocal": "1 / x", "rollaxis": "transpose",
    "trace": "einsum('ii', x)", "vdot": "einsum", "vecdot": "einsum", "vsplit": "split",
}  # fmt: skip


def apply(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``function(*args, **kwargs)`` of NumPy's means, with a Tensor among the arguments.

    A function that is an op of ours gives a Tensor; any other, and one that writes into an array
    (``out=``, ``a += x``), computes on copies of the contents and gives what NumPy gives.

    Raises `TypeError` for such a function if a Tensor requires a gradient, naming the ops to
    compose it from where they are obvious; for a Tensor to write into; and for an argument that our
    op does not have (``where=``).
    """
    owner = getattr(function, "__self__", None)  # np.add of np.add.reduce
    name = f"{owner.__name__}.{function.__name__}" if owner else function.__name__
    writes = [out for out in _tuple(kwargs.get("out")) if out is not None]
    loses = function not in _SHAPE_ONLY and _requires_grad((args, kwargs))
    into_ours = any(isinstance(out, Tensor) for out in writes)
    if (writes or function not in SAME) and not loses and not into_ours:
        return function(*_contents(args), **_contents(kwargs))
    if function not in SAME:
        instead = _INSTEAD.get(function.__name__)
        remedy = f"use tinyseq's {instead}" if instead else "Compose it from tinyseq's ops"
        raise TypeError(
            f"numpy.{name} has no tinyseq op of the same meaning, and would cut the gradient off. "
            f"{remedy[0].upper()}{remedy[1:]}, or apply it to x.detach().numpy()."
        )
    if writes:
        raise TypeError(
            f"numpy.{name} of a Tensor: tinyseq's op has no argument out=. Writing into an array "
            "would cut the gradient off, and into a Tensor would change what was recorded: write "
            "a = a + x instead of a += x, or use x.detach()."
        )
    ours = SAME[function]
    positional, named = _as_numpy_reads_them(function, args, kwargs)
    takes = {} if isinstance(function, np.ufunc) else _signature(ours).parameters
    for argument in named:
        if argument not in takes:
            raise TypeError(
                f"numpy.{name} of a Tensor: tinyseq's op has no argument {argument}=. Ops return a "
                "new tensor in the dtype of their inputs: leave it out, and use where() or "
                "astype() on the result."
            )
    return ours(*positional, **named)


def _tuple(x: Any) -> tuple[Any, ...]:
    return x if isinstance(x, tuple) else (x,)


def _requires_grad(x: Any) -> bool:
    if isinstance(x, Tensor):
        return x.requires_grad
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, list | tuple) else ()
    return any(_requires_grad(part) for part in parts)


def _contents(x: Any) -> Any:
    """Every Tensor in there as an array that cannot be written to: nothing written would arrive."""
    if isinstance(x, Tensor):
        array = x.numpy()
        array.flags.writeable = False
        return array
    if isinstance(x, dict):
        return {key: _contents(value) for key, value in x.items()}
    return type(x)(map(_contents, x)) if type(x) in (list, tuple) else x


def _as_numpy_reads_them(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments under NumPy's names (the third of np.sum is its dtype, not keepdims), without
    those that only say the default.
    """
    if isinstance(function, np.ufunc):
        return list(args), {k: v for k, v in kwargs.items() if v is not None and v is not True}
    try:
        signature = _signature(function)
    except ValueError:  # some are written in C, and before NumPy 2.4 do not tell
        return list(args), kwargs
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        parameter = signature.parameters[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional += value
        elif parameter.kind is parameter.VAR_KEYWORD:
            named |= value
        elif parameter.kind is parameter.POSITIONAL_ONLY or not positional:
            positional.append(value)
        elif value is not parameter.default and not (name == "where" and value is True):
            named[name] = value
    return positional, named


_signature = functools.cache(inspect.signature)
