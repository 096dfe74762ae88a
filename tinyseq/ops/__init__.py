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
import string
from collections.abc import Iterable
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from tinyseq import errors
from tinyseq import primitives as raw
from tinyseq.arguments import Finite, Within, checked, one_of, shown
from tinyseq.op import TensorLike, as_tensor, coerce
from tinyseq.ops import creation, indexing, reductions, shaping
from tinyseq.ops.axes import normalize_axes, one_axis, say_axis, several, whole
from tinyseq.ops.creation import *
from tinyseq.ops.einsum import einsum
from tinyseq.ops.indexing import *
from tinyseq.ops.reductions import *
from tinyseq.ops.shaping import *
from tinyseq.ops.shaping import sum_to
from tinyseq.primitives import *
from tinyseq.primitives import detach, equal, greater, greater_equal, less, less_equal, not_equal
from tinyseq.tensor import FLOATS, Tensor, known_dtype, refuse_dtype, refuse_fractions

__all__ = [
    "astype", "clip", "detach", "dot", "einsum", "elu", "equal", "gelu", "greater",
    "greater_equal", "isnan", "leaky_relu", "less", "less_equal", "log2", "log10", "logical_and",
    "logical_not", "logical_or", "masked_fill", "matmul", "normalize_axes", "not_equal", "outer",
    "round", "silu", "softsign", "sum_to", "tan", "tensordot",
]  # fmt: skip
__all__ += [*creation.__all__, *indexing.__all__, *reductions.__all__, *shaping.__all__]
__all__ += raw.__all__


_DECIMALS = Within(lambda n: -30 <= n <= 30, "from -30 to 30")

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


def silu(x: TensorLike) -> Tensor:
    """y = x · σ(x), element by element. From Hendrycks and Gimpel, 2016, as `gelu`."""
    x = as_tensor(x, None, "silu")
    return x * raw.sigmoid(x)


@checked
def elu(x: TensorLike, alpha: Finite = 1.0) -> Tensor:
    """y = x where x > 0, elsewhere alpha · (eˣ − 1), element by element. From Clevert et al.,
    Fast and Accurate Deep Network Learning by Exponential Linear Units, 2015.
    """
    x = as_tensor(x, None, "elu")
    above = x > 0
    return raw.where(above, x, raw.expm1(raw.where(above, 0.0, x)) * float(alpha))


@checked
def leaky_relu(x: TensorLike, negative_slope: Finite = 0.01) -> Tensor:
    """y = x where x > 0, elsewhere negative_slope · x, element by element. From Maas et al.,
    Rectifier Nonlinearities Improve Neural Network Acoustic Models, 2013.
    """
    x = as_tensor(x, None, "leaky_relu")
    return raw.where(x > 0, x, x * float(negative_slope))


def softsign(x: TensorLike) -> Tensor:
    """y = x / (1 + |x|), element by element; between −1 and 1, as tanh, but slower to get there."""
    x = as_tensor(x, None, "softsign")
    return x / (1 + raw.abs(x))


def tan(x: TensorLike) -> Tensor:
    """y = sin x / cos x, element by element; x in radians."""
    x = as_tensor(x, None, "tan")
    return raw.sin(x) / raw.cos(x)


def log2(x: TensorLike) -> Tensor:
    """y = ln x / ln 2, element by element."""
    return raw.log(as_tensor(x, None, "log2")) / math.log(2)


def log10(x: TensorLike) -> Tensor:
    """y = ln x / ln 10, element by element."""
    return raw.log(as_tensor(x, None, "log10")) / math.log(10)


@checked
def round(x: TensorLike, decimals: Annotated[int, _DECIMALS] = 0) -> Tensor:
    """y = x to so many decimals, of two equally near the even one, element by element; −1 rounds to
    tens. Its gradient is 0 everywhere. Whole numbers stay whole numbers.
    """
    x = as_tensor(x, None, "round")
    if not decimals:
        return raw.rint(x)
    if x.dtype not in FLOATS:
        return x if decimals > 0 else copy(round(copy(x, np.float64), decimals), x.dtype)
    unit = 10.0**decimals
    return raw.rint(x * unit) / unit


def isnan(x: TensorLike) -> Tensor:
    """Whether x is NaN, element by element: booleans, not differentiable."""
    x = as_tensor(x, None, "isnan")
    return raw.not_equal(x, x)


def masked_fill(x: TensorLike, mask: TensorLike, value: TensorLike) -> Tensor:
    """y = value, one number, where the mask holds, else x; the mask broadcasts with x, and dtypes
    meet as in `where`.

    Raises `DtypeError` for a mask that holds no booleans, `ShapeError` for one that does not fit.
    """
    x, mask = as_tensor(x, None, "masked_fill"), _boolean(mask, "masked_fill", "mask")
    one = as_tensor(value, None, "masked_fill", "value")
    if one.ndim:
        raise errors.ShapeError(
            f"masked_fill: value must be one number, got {errors.describe(one.shape)}. For one "
            "a place use where(mask, value, x)."
        )
    try:
        return raw.where(mask, value, x)
    except errors.ShapeError as cause:
        raise errors.ShapeError(
            f"masked_fill: a mask of shape {errors.describe(mask.shape)} does not broadcast with x "
            f"{errors.describe(x.shape)}. Reshape one of them."
        ) from cause


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


def dot(a: TensorLike, b: TensorLike) -> Tensor:
    """y = Σ a·b over the last axis of a and the last but one of b, as in NumPy: of two vectors a
    number, of matrices `matmul`; with a number, a·b. Raises `ShapeError`.
    """
    a, b = coerce((a, b), "dot", ("a", "b"))
    if not (a.ndim and b.ndim):
        return a * b
    return _contracted("dot", a, b, [a.ndim - 1], [b.ndim - 2 if b.ndim > 1 else 0])


def outer(a: TensorLike, b: TensorLike) -> Tensor:
    """y[i, j] = a[i] · b[j], the elements of each in one row."""
    a, b = coerce((a, b), "outer", ("a", "b"))
    return raw.reshape(a, shape=(a.size, 1)) * raw.reshape(b, shape=(1, b.size))


def tensordot(a: TensorLike, b: TensorLike, axes: int | Iterable[Any] = 2) -> Tensor:
    """y = Σ a·b over pairs of axes: the last ``axes`` ones of a and the first of b, in this order;
    or ``(of_a, of_b)``, an axis or a list of them of each. What is left of a comes before what is
    left of b. Raises `ShapeError`.
    """
    a, b = coerce((a, b), "tensordot", ("a", "b"))
    if several(axes):
        lists = [list(n) if several(n) else [n] for n in axes]
    else:
        n = whole(axes, "tensordot: axes")
        lists = [list(range(-n, 0)), list(range(n))]
    if len(lists) != 2:
        raise errors.ShapeError(
            f"tensordot: axes={shown(axes)} must be a number of axes, or a pair (of_a, of_b)."
        )
    of_a, of_b = (
        [one_axis(n, x.ndim, "tensordot", "axes", name) for n in some]
        for x, name, some in zip((a, b), "ab", lists, strict=True)
    )
    return _contracted("tensordot", a, b, of_a, of_b)


def _contracted(name: str, a: Tensor, b: Tensor, of_a: list[int], of_b: list[int]) -> Tensor:
    once = len(set(of_a)) == len(of_a) == len(of_b) == len(set(of_b))
    if not once or [a.shape[i] for i in of_a] != [b.shape[i] for i in of_b]:
        raise errors.ShapeError(
            f"{name}: axes {of_a} of a {errors.describe(a.shape)} and {of_b} of b "
            f"{errors.describe(b.shape)} cannot be summed over in pairs. Name as many of each, "
            "each once, of the same sizes."
        )
    left, right = string.ascii_lowercase[: a.ndim], list(string.ascii_uppercase[: b.ndim])
    for i, j in zip(of_a, of_b, strict=True):
        right[j] = left[i]
    both = [*left, *right]
    rest = "".join(c for c in both if both.count(c) == 1)
    return einsum(f"{left},{''.join(right)}->{rest}", a, b)


# A method means what the op of its name means: said once, there.
for _name, _method in vars(Tensor).items():
    if callable(_method) and not _method.__doc__ and _name in globals():
        _method.__doc__ = globals()[_name].__doc__
for _name, _method in say_axis(vars(Tensor), dir(Tensor)).items():
    setattr(Tensor, _name, _method)
