"""The ops, in all of NumPy's spellings: the one public face.

What works element by element is called as `primitives` declares it. `reductions`, `shaping`,
`indexing` and `einsum` bring the arguments of the other primitives to one form, and compose more
ops from them; so does this file. A composed op needs no rule of its own: its gradient, of any
order, is that of its parts.

Arguments are Tensors, or arrays and Python numbers, which are taken in as constants. ``axis`` is a
number, negative ones counted from the end; reductions take several, or `None` for all. An axis that
does not exist raises `ShapeError`.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt

from tinyseq import errors
from tinyseq import primitives as raw
from tinyseq.arguments import one_of, shown
from tinyseq.op import TensorLike, as_tensor, coerce
from tinyseq.ops import reductions, shaping
from tinyseq.ops.axes import normalize_axes
from tinyseq.ops.einsum import einsum
from tinyseq.ops.indexing import argsort, gather, getitem, sort, take_along_axis
from tinyseq.ops.reductions import *
from tinyseq.ops.shaping import *
from tinyseq.ops.shaping import sum_to
from tinyseq.primitives import *
from tinyseq.primitives import detach, equal, greater, greater_equal, less, less_equal, not_equal
from tinyseq.tensor import FLOATS, Tensor, known_dtype, refuse_dtype, refuse_fractions

__all__ = [
    "argsort", "astype", "clip", "detach", "einsum", "equal", "gather", "gelu", "getitem",
    "greater", "greater_equal", "less", "less_equal", "logical_and", "logical_not", "logical_or",
    "matmul", "normalize_axes", "not_equal", "sort", "sum_to", "take_along_axis",
]  # fmt: skip
__all__ += [*reductions.__all__, *shaping.__all__, *raw.__all__]


# -- element by element -------------------------------------------------------------------------


def astype(x: TensorLike, dtype: npt.DTypeLike) -> Tensor:
    """The same values in another dtype; between float32 and float64 gradients flow.

    Raises `DtypeError` for a dtype that no Tensor has, or one that would cut off fractions.
    """
    x = as_tensor(x, None, "astype")
    wanted = known_dtype(dtype, "astype")
    if wanted == x.dtype:
        return x
    if wanted in FLOATS:
        return raw.astype(x, dtype=wanted)
    return copy(x, wanted)  # whole numbers and booleans carry no gradient


def copy(x: Tensor, dtype: npt.DTypeLike | None = None) -> Tensor:
    """The same values in an array of their own, as a constant; raises as `astype` does."""
    wanted = x.dtype if dtype is None else np.dtype(dtype)
    refuse_dtype(wanted)
    if x.dtype in FLOATS and wanted not in FLOATS:
        raw.check(x, rule=refuse_fractions, wanted=wanted)
    return raw.astype(x.detach() if x.requires_grad else x, dtype=wanted)


def clip(x: TensorLike, min: TensorLike | None = None, max: TensorLike | None = None) -> Tensor:
    """y = x kept between the bounds, which broadcast with x; `None` is no bound.

    The gradient goes to x where min ≤ x ≤ max, the bounds included, elsewhere to the bound that was
    taken. As in NumPy, max wins where min > max. Raises `ShapeError`.
    """
    x = as_tensor(x, None, "clip")
    # x ≠ x: NaN stays NaN, and so does a NaN in a bound
    argument, bound = "min", min
    try:
        if min is not None:
            x = raw.where(logical_or(x >= min, x != x), x, min)
        argument, bound = "max", max
        if max is not None:
            x = raw.where(logical_or(x <= max, x != x), x, max)
    except (TypeError, ValueError) as cause:
        wrong = as_tensor(bound, None, "clip", argument)  # type: ignore[arg-type]
        raise errors.ShapeError(
            f"clip: {argument} of shape {errors.describe(wrong.shape)} does not broadcast with x "
            f"{errors.describe(x.shape)}. Reshape one of them."
        ) from cause
    return x


def gelu(x: TensorLike, approximate: Annotated[str, one_of("none", "tanh")] = "none") -> Tensor:
    """y = x · Φ(x), Φ the normal distribution's: x/2 · (1 + erf(x/√2)), element by element.

    ``approximate="tanh"``: x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))). Raises `ValueError` for any
    other. From Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
    """
    x = as_tensor(x, None, "gelu")
    form = approximate if isinstance(approximate, str) else None
    if form == "none":
        return x * 0.5 * (raw.erf(x * math.sqrt(0.5)) + 1)
    if form == "tanh":
        return x * 0.5 * (raw.tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi)) + 1)
    raise ValueError(f"gelu: approximate={shown(approximate)} is unknown. Use 'none' or 'tanh'.")


def logical_and(a: TensorLike, b: TensorLike) -> Tensor:
    """Both, element by element, broadcast; ``a & b``. Booleans only, else `DtypeError`."""
    return raw.mul(_boolean(a, "logical_and", "a"), _boolean(b, "logical_and", "b"))


def logical_or(a: TensorLike, b: TensorLike) -> Tensor:
    """Either or both, element by element, broadcast; ``a | b``. Booleans only, else
    `DtypeError`.
    """
    return raw.add(_boolean(a, "logical_or", "a"), _boolean(b, "logical_or", "b"))


def logical_not(x: TensorLike) -> Tensor:
    """The opposite, element by element; ``~x``. Booleans only, else `DtypeError`."""
    return raw.equal(_boolean(x, "logical_not", "x"), False)


def _boolean(x: TensorLike, name: str, argument: str) -> Tensor:
    x = as_tensor(x, None, name, argument)
    if x.dtype != bool:
        raise errors.DtypeError(
            f"{name}: {argument} must hold booleans, not {x.dtype}. Compare first, e.g. with != 0."
        )
    return x


def cut(x: Tensor) -> Tensor:
    """The same contents, as a leaf."""
    out = x.detach()
    out.requires_grad = x.requires_grad
    return out


# -- products -----------------------------------------------------------------------------------


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """y = a @ b as in NumPy: matrices (I, K) @ (K, J), vectors, and batches of matrices, broadcast.

    Raises `ShapeError` where the Ks differ, the batches do not broadcast, or an operand has no
    axes.
    """
    a, b = coerce((a, b), "matmul", ("a", "b"))
    if a.ndim == 0 or b.ndim == 0:
        raise errors.ShapeError(
            f"matmul: a {errors.describe(a.shape)} @ b {errors.describe(b.shape)}: "
            "a tensor without axes cannot be multiplied as a matrix. Use * instead."
        )
    if a.ndim == 1:
        wide = matmul(raw.reshape(a, shape=(1, a.size)), b)
        return shaping.squeeze(wide, -2 if b.ndim > 1 else -1)
    if b.ndim == 1:
        return shaping.squeeze(matmul(a, raw.reshape(b, shape=(b.size, 1))), -1)
    return raw.matmul(a, b)


# A method means what the op of its name means: said once, there.
for _name, _method in vars(Tensor).items():
    if callable(_method) and not _method.__doc__ and _name in globals():
        _method.__doc__ = globals()[_name].__doc__
