"""Every primitive operation, its three faces side by side.

An op is declared once: what it computes (NumPy, ``forward``), its vector-Jacobian product (``vjp``,
written in Tensor ops, so that a gradient can itself be recorded and differentiated again), and,
where it may sit in a compiled loop, the scalar expression an emitter prints (``emit``).

``reads`` says which contents the rule looks at, so that the recording keeps those alone: ``"y"``
the result, ``"x"`` all inputs, a digit that input, ``""`` only shapes.

``vjp(g, y, *xs, **attrs)`` returns one cotangent an input, or `None` where nothing flows. It
prefers ``y`` to the inputs where that serves: less to keep. It never mentions broadcasting: the
walker in `backprop` sums each cotangent to its input's shape. Ops come in adjoint pairs: sum_to /
broadcast_to, getitem / scatter_add, concat / slices.

Some inputs are used many times and their cotangents are better computed together: ``joint`` holds a
rule over all uses of such an input (and ``vjp`` gives `None` there). A weight that T steps share
gets its gradient Σₜ hₜᵀ gₜ as one product of stacked matrices, Hᵀ G; a sequence that is read step
by step gets its gradient written in one pass, not T sums of T steps.

Names and meaning are NumPy's. Shapes that do not go together raise `ShapeError` with the op, the
module path, the sizes and the remedy.
"""

from __future__ import annotations

import builtins
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

import tinyseq.tensor
from tinyseq import errors
from tinyseq.op import F32, Axis, Op, TensorLike, Use, as_tensor, coerce, primitive
from tinyseq.tensor import FLOATS, Tensor

_BROADCAST = "Axes are matched from the right and must be equal or 1: reshape one of the operands."


# -- element by element, one input ------------------------------------------------------------


@primitive(lambda g, y, x: (-g,), reads="", emit="-{0}")
def neg(x: np.ndarray) -> Any:
    """y = −x."""
    return np.negative(x)


@primitive(lambda g, y, x: (g * y,), reads="y", emit="exp({0})")
def exp(x: np.ndarray) -> Any:
    """y = eˣ."""
    return np.exp(x)


@primitive(lambda g, y, x: (g / x,), reads="x", emit="log({0})")
def log(x: np.ndarray) -> Any:
    """y = ln x."""
    return np.log(x)


@primitive(lambda g, y, x: (g * 0.5 / y,), reads="y", emit="sqrt({0})")
def sqrt(x: np.ndarray) -> Any:
    """y = √x."""
    return np.sqrt(x)


@primitive(lambda g, y, x: (None,), reads="", emit="sign({0})")
def sign(x: np.ndarray) -> Any:
    """y = −1, 0 or 1; its gradient is 0 everywhere."""
    return np.sign(x)


@primitive(lambda g, y, x: (g * sign(x),), reads="x", emit="abs({0})")
def abs(x: np.ndarray) -> Any:
    """y = |x|; its gradient at 0 is taken to be 0."""
    return np.abs(x)


@primitive(lambda g, y, x: (g - g * (y * y),), reads="y", emit="tanh({0})")
def tanh(x: np.ndarray) -> Any:
    """y = tanh x."""
    return np.tanh(x)


@primitive(lambda g, y, x: (g * (y - y * y),), reads="y", emit="sigmoid({0})")
def sigmoid(x: np.ndarray) -> Any:
    """y = σ(x) = 1 / (1 + e⁻ˣ); far to the left eˣ overflows to ∞ and y is 0, as it should be."""
    out = np.empty(x.shape, x.dtype if x.dtype in FLOATS else F32)
    np.negative(x, out=out)
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    out += 1
    return np.reciprocal(out, out=out)


@primitive(lambda g, y, x: (g * (y > 0),), reads="y", emit="max({0}, 0)")
def relu(x: np.ndarray) -> Any:
    """y = max(x, 0); its gradient at 0 is taken to be 0."""
    return np.maximum(x, 0)


@primitive(lambda g, y, x: (g * sigmoid(x),), reads="x", emit="softplus({0})")
def softplus(x: np.ndarray) -> Any:
    """y = ln(1 + eˣ), without overflow."""
    return np.logaddexp(x, x.dtype.type(0))


# -- element by element, two inputs and more ----------------------------------------------------


@primitive(lambda g, y, a, b: (g, g), reads="", emit="{0} + {1}", hint=_BROADCAST)
def add(a: np.ndarray, b: np.ndarray) -> Any:
    """y = a + b."""
    return np.add(a, b)


@primitive(lambda g, y, a, b: (g, -g), reads="", emit="{0} - {1}", hint=_BROADCAST)
def sub(a: np.ndarray, b: np.ndarray) -> Any:
    """y = a − b."""
    return np.subtract(a, b)


@primitive(
    lambda g, y, a, b: (g * b if a.requires_grad else None, g * a if b.requires_grad else None),
    reads="x",
    emit="{0} * {1}",
    hint=_BROADCAST,
)
def mul(a: np.ndarray, b: np.ndarray) -> Any:
    """y = a · b, element by element."""
    return np.multiply(a, b)


@primitive(
    lambda g, y, a, b: (g / b, -g * y / b if b.requires_grad else None),
    reads="1y",
    emit="{0} / {1}",
    hint=_BROADCAST,
)
def div(a: np.ndarray, b: np.ndarray) -> Any:
    """y = a / b, element by element."""
    return np.divide(a, b)


def _pow_vjp(g: Tensor, y: Tensor, a: Tensor, p: Tensor) -> tuple[Tensor | None, ...]:
    # p·a^(p−1), where p = 0 must give 0 and not 0·∞; a^p·ln a, where a = 0 must give 0 and not
    # 0·(−∞)
    da = g * p * a ** where(p == 0, 1.0, p - 1) if a.requires_grad else None
    dp = g * y * log(where(a == 0, 1.0, a)) if p.requires_grad else None
    return da, dp


@primitive(_pow_vjp, emit="{0} ** {1}", hint=_BROADCAST)
def pow(a: np.ndarray, p: np.ndarray) -> Any:
    """y = aᵖ, element by element."""
    return np.power(a, p)


def _extremum_vjp(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    tie = where(a == b, 0.5, 1.0)  # both inputs are the extremum: half of the gradient each
    return where(a == y, g * tie, 0.0), where(b == y, g * tie, 0.0)


@primitive(_extremum_vjp, emit="max({0}, {1})", hint=_BROADCAST)
def maximum(a: np.ndarray, b: np.ndarray) -> Any:
    """y = the larger of a and b; where they are equal each gets half of the gradient."""
    return np.maximum(a, b)


@primitive(_extremum_vjp, emit="min({0}, {1})", hint=_BROADCAST)
def minimum(a: np.ndarray, b: np.ndarray) -> Any:
    """y = the smaller of a and b; where they are equal each gets half of the gradient."""
    return np.minimum(a, b)


def _where_vjp(g: Tensor, y: Tensor, c: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return None, where(c, g, 0.0), where(c, 0.0, g)


@primitive(
    _where_vjp,
    reads="0",
    emit="({1} if {0} else {2})",
    hint=_BROADCAST,
)
def where(condition: np.ndarray, a: np.ndarray, b: np.ndarray) -> Any:
    """y = a where the condition holds, else b; no gradient flows through what was not chosen."""
    return np.where(condition, a, b)


@primitive(emit="{0} < {1}", hint=_BROADCAST)
def less(a: np.ndarray, b: np.ndarray) -> Any:
    """a < b, a tensor of booleans; not differentiable."""
    return np.less(a, b)


@primitive(emit="{0} <= {1}", hint=_BROADCAST)
def less_equal(a: np.ndarray, b: np.ndarray) -> Any:
    """a ≤ b, a tensor of booleans; not differentiable."""
    return np.less_equal(a, b)


@primitive(emit="{0} > {1}", hint=_BROADCAST)
def greater(a: np.ndarray, b: np.ndarray) -> Any:
    """a > b, a tensor of booleans; not differentiable."""
    return np.greater(a, b)


@primitive(emit="{0} >= {1}", hint=_BROADCAST)
def greater_equal(a: np.ndarray, b: np.ndarray) -> Any:
    """a ≥ b, a tensor of booleans; not differentiable."""
    return np.greater_equal(a, b)


@primitive(emit="{0} == {1}", hint=_BROADCAST)
def equal(a: np.ndarray, b: np.ndarray) -> Any:
    """a = b, a tensor of booleans; not differentiable."""
    return np.equal(a, b)


@primitive(emit="{0} != {1}", hint=_BROADCAST)
def not_equal(a: np.ndarray, b: np.ndarray) -> Any:
    """a ≠ b, a tensor of booleans; not differentiable."""
    return np.not_equal(a, b)


@primitive(lambda g, y, x, dtype: (astype(g, x.dtype),), reads="")
def _astype(x: np.ndarray, dtype: np.dtype[Any]) -> Any:
    """The same values in another dtype."""
    return x.astype(dtype)


# -- products -----------------------------------------------------------------------------------


def _matmul_vjp(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor | None, ...]:
    # A product is as dear as the forward one: only if somebody wants it.
    return (matmul(g, swapaxes(b, -1, -2)) if a.requires_grad else None), None


def _matmul_joint(b: Tensor, uses: list[Use]) -> Tensor:
    """Σ aᵀ g over the uses: for a shared weight, one product of the rows of all steps."""
    if len(uses) > 1 and b.ndim == 2 and builtins.all(use.g.ndim == 2 for use in uses):
        a = _concat(*(use.inputs[0] for use in uses), axis=0)
        g = _concat(*(use.g for use in uses), axis=0)
        return matmul(swapaxes(a, 0, 1), g)
    terms = [matmul(swapaxes(use.inputs[0], -1, -2), use.g) for use in uses]
    return _add_up([_sum_to(term, shape=b.shape) for term in terms])


def _add_up(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


@primitive(
    _matmul_vjp,
    reads="x",
    joint={1: _matmul_joint},
    emit="{0} @ {1}",
    hint="The last axis of the left operand must be as long as the second-last of the right one: "
    "row vectors go on the left, x @ w with x (..., D) and w (D, H).",
)
def _matmul(a: np.ndarray, b: np.ndarray) -> Any:
    """y[..., i, j] = Σₖ a[..., i, k] · b[..., k, j]."""
    return np.matmul(a, b)


# -- shapes -------------------------------------------------------------------------------------


@primitive(lambda g, y, x, shape: (sum_to(g, x.shape),), reads="", hint=_BROADCAST)
def _broadcast_to(x: np.ndarray, shape: tuple[int, ...]) -> Any:
    """x repeated along new axes and axes of length 1 until it has this shape."""
    return np.broadcast_to(x, shape)


@primitive(lambda g, y, x, shape: (broadcast_to(g, x.shape),), reads="")
def _sum_to(x: np.ndarray, shape: tuple[int, ...]) -> Any:
    """x summed over the axes along which `broadcast_to` would have repeated: its adjoint."""
    lead = x.ndim - len(shape)
    axes = [*range(lead)]
    axes += [i + lead for i, n in enumerate(shape) if n == 1 and x.shape[i + lead] != 1]
    return x.sum(axis=tuple(axes), keepdims=True).reshape(shape)


@primitive(
    lambda g, y, x, shape: (reshape(g, x.shape),),
    reads="",
    hint="The number of elements must stay the same.",
)
def _reshape(x: np.ndarray, shape: tuple[int, ...]) -> Any:
    """The same elements, read row by row, in another shape."""
    return x.reshape(shape)


@primitive(
    lambda g, y, x, axes: (transpose(g, np.argsort(axes).tolist()) if axes else g,),
    reads="",
    hint="Name every axis once.",
)
def _transpose(x: np.ndarray, axes: tuple[int, ...]) -> Any:
    """The axes in another order."""
    return x.transpose(axes)


def _concat_vjp(g: Tensor, y: Tensor, *xs: Tensor, axis: int) -> tuple[Tensor, ...]:
    ends = np.cumsum([x.shape[axis] for x in xs]).tolist()
    before = (slice(None),) * axis
    return tuple(
        _getitem(g, index=(*before, slice(end - x.shape[axis], end)))
        for x, end in zip(xs, ends, strict=True)
    )


@primitive(_concat_vjp, reads="", hint="All sizes but the one along the axis must be equal.")
def _concat(*xs: np.ndarray, axis: int) -> Any:
    """The tensors one after the other along an axis."""
    return np.concatenate(xs, axis)


def _getitem_joint(x: Tensor, uses: list[Use]) -> Tensor:
    return _scatter_add(
        *(use.g for use in uses), indices=[use.attrs["index"] for use in uses], shape=x.shape
    )


@primitive(
    lambda g, y, x, index: (None,),
    reads="",
    joint={0: _getitem_joint},
    hint="Check the index against the sizes.",
)
def _getitem(x: np.ndarray, index: Any) -> Any:
    """x[index], with everything that NumPy indexes by."""
    return x[index]


@primitive(lambda g, y, *xs, indices, shape: tuple(_getitem(g, index=i) for i in indices), reads="")
def _scatter_add(*xs: np.ndarray, indices: list[Any], shape: tuple[int, ...]) -> Any:
    """Zeros of this shape with each x added at its index: the adjoint of several x = y[index].

    Where the indices name a place twice, both elements are added there.
    """
    out = np.zeros(shape, xs[0].dtype)
    for x, index in zip(xs, indices, strict=True):
        _add_at(out, index, x)
    return out


def _add_at(out: np.ndarray, index: Any, x: np.ndarray) -> None:
    parts = index if isinstance(index, tuple) else (index,)
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if builtins.all(a.dtype == bool for a in arrays):  # slices, numbers, masks: no place twice
        out[index] += x
    elif len(parts) == 1:  # whole rows, as an embedding picks: sort, add up each run of equal ones
        rows = arrays[0].ravel() % out.shape[0]
        order = np.argsort(rows, kind="stable")
        if len(order):
            rows = rows[order]
            starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
            picked = x.reshape(len(order), *out.shape[1:])[order]
            out[rows[starts]] += np.add.reduceat(picked, starts, axis=0)
    else:  # let NumPy say which place each element came from
        places = np.arange(out.size).reshape(out.shape)[index]
        np.add.at(out.reshape(-1), places.ravel(), np.broadcast_to(x, places.shape).ravel())


# -- reductions ---------------------------------------------------------------------------------


def _spread(g: Tensor, like: Tensor, axis: tuple[int, ...], keepdims: bool) -> Tensor:
    """What was reduced over ``axis``, repeated along it again."""
    if not keepdims:
        kept = tuple(1 if i in axis else n for i, n in enumerate(like.shape))
        g = _reshape(g, shape=kept)
    return _broadcast_to(g, shape=like.shape)


@primitive(lambda g, y, x, axis, keepdims: (_spread(g, x, axis, keepdims),), reads="")
def _sum(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    """y = Σ x over the axes."""
    return np.sum(x, axis=axis, keepdims=keepdims)


def _extreme_vjp(
    g: Tensor, y: Tensor, x: Tensor, axis: tuple[int, ...], keepdims: bool
) -> tuple[Tensor]:
    chosen = astype(x == _spread(y, x, axis, keepdims), x.dtype)
    share = chosen / _sum(chosen, axis=axis, keepdims=True)
    return (_spread(g, x, axis, keepdims) * share,)


_EMPTY = "An empty axis has no largest or smallest element."


@primitive(_extreme_vjp, hint=_EMPTY)
def _max(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    """The largest element over the axes; equal ones share the gradient evenly."""
    return np.max(x, axis=axis, keepdims=keepdims)


@primitive(_extreme_vjp, hint=_EMPTY)
def _min(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    """The smallest element over the axes; equal ones share the gradient evenly."""
    return np.min(x, axis=axis, keepdims=keepdims)


def _logsumexp_vjp(
    g: Tensor, y: Tensor, x: Tensor, axis: tuple[int, ...], keepdims: bool
) -> tuple[Tensor]:
    # Where every x is −∞ so is y, and x − y would be NaN: any other y gives e^−∞ = 0, as it should.
    y = where(y == -math.inf, 0.0, y)
    return (_spread(g, x, axis, keepdims) * exp(x - _spread(y, x, axis, keepdims)),)


@primitive(_logsumexp_vjp, hint=_EMPTY)
def _logsumexp(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    """y = ln Σ eˣ over the axes, without overflow; −∞ with a gradient of 0 where all x are −∞."""
    largest = np.max(x, axis=axis, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, x.dtype.type(0))
    with np.errstate(divide="ignore"):
        out = np.log(np.sum(np.exp(x - largest), axis=axis, keepdims=True)) + largest
    return out if keepdims else np.squeeze(out, axis)


# -- the primitives' public faces: arguments in all of NumPy's spellings ------------------------


def normalize_axes(axis: Axis, ndim: int, name: str) -> tuple[int, ...]:
    """``None``, one axis or several, negative ones counted from the end, as ascending numbers."""
    if axis is None:
        return tuple(range(ndim))
    axes = (axis,) if isinstance(axis, int | np.integer) else tuple(axis)
    for a in axes:
        if not -ndim <= a < ndim:
            raise errors.ShapeError(
                f"{name}: axis {a} does not exist in a tensor with {ndim} axes. "
                f"Use {-ndim} to {ndim - 1}."
                if ndim
                else f"{name}: axis {a} does not exist: the tensor has no axes. Leave axis out."
            )
    out = tuple(sorted(int(a) % ndim for a in axes))
    if len(set(out)) != len(out):
        raise errors.ShapeError(f"{name}: axis={axis} names an axis twice. Name each once.")
    return out


def _reduction(op: Op, x: TensorLike, axis: Axis, keepdims: bool) -> Tensor:
    x = as_tensor(x)
    return op(x, axis=normalize_axes(axis, x.ndim, op.name), keepdims=bool(keepdims))


def sum(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = Σ x over the axes (all of them by default)."""
    return _reduction(_sum, x, axis, keepdims)


def max(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The largest element over the axes; equal ones share the gradient evenly."""
    return _reduction(_max, x, axis, keepdims)


def min(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """The smallest element over the axes; equal ones share the gradient evenly."""
    return _reduction(_min, x, axis, keepdims)


def logsumexp(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = ln Σ eˣ over the axes, without overflow."""
    return _reduction(_logsumexp, x, axis, keepdims)


def mean(x: TensorLike, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """y = Σ x / n over the axes."""
    x = as_tensor(x)
    axes = normalize_axes(axis, x.ndim, "mean")
    n = math.prod(x.shape[a] for a in axes)
    if n == 0:
        raise errors.ShapeError(
            f"mean: no elements along axis {axis} of shape {errors.describe(x.shape)}. "
            "Give it at least one."
        )
    return _sum(x, axis=axes, keepdims=bool(keepdims)) / n


def astype(x: TensorLike, dtype: npt.DTypeLike) -> Tensor:
    """The same values in another dtype; between float32 and float64 gradients flow."""
    x = as_tensor(x)
    wanted = np.dtype(dtype)
    if wanted == x.dtype:
        return x
    if wanted in FLOATS:
        return _astype(x, dtype=wanted)
    return Tensor(x._data, wanted)  # whole numbers and booleans carry no gradient


def matmul(a: TensorLike, b: TensorLike) -> Tensor:
    """y = a @ b as in NumPy: matrices (I, K) @ (K, J), vectors, and batches of matrices,
    broadcast.
    """
    a, b = coerce((a, b))
    if a.ndim == 0 or b.ndim == 0:
        raise errors.ShapeError(
            f"matmul: {errors.describe(a.shape)} @ {errors.describe(b.shape)}: "
            "a tensor without axes cannot be multiplied as a matrix. Use * instead."
        )
    if a.ndim == 1:
        return _drop_axis(matmul(_reshape(a, shape=(1, a.size)), b), -2 if b.ndim > 1 else -1)
    if b.ndim == 1:
        return _drop_axis(matmul(a, _reshape(b, shape=(b.size, 1))), -1)
    if a.ndim > 2 and b.ndim == 2 and a.shape[-1] == b.shape[0]:
        # One large product instead of a batch of small ones, here and in the gradient of b.
        rows = math.prod(a.shape[:-1])
        flat = _matmul(_reshape(a, shape=(rows, a.shape[-1])), b)
        return _reshape(flat, shape=(*a.shape[:-1], b.shape[1]))
    return _matmul(a, b)


def _drop_axis(x: Tensor, axis: int) -> Tensor:
    shape = list(x.shape)
    del shape[axis]
    return _reshape(x, shape=tuple(shape))


def _spelled(sizes: tuple[int | Sequence[int], ...]) -> tuple[int, ...]:
    """``f(2, 3)`` and ``f((2, 3))`` mean the same."""
    if len(sizes) == 1 and not isinstance(sizes[0], int | np.integer):
        return tuple(int(n) for n in sizes[0])
    return tuple(int(n) for n in sizes)  # type: ignore[arg-type]


def reshape(x: TensorLike, *shape: int | Sequence[int]) -> Tensor:
    """The same elements, read row by row, in another shape; one size may be −1."""
    return _reshape(x, shape=_spelled(shape))


def transpose(x: TensorLike, *axes: int | Sequence[int]) -> Tensor:
    """The axes in the order given; reversed by default."""
    x = as_tensor(x)
    order = _spelled(axes) if axes else tuple(reversed(range(x.ndim)))
    return _transpose(x, axes=tuple(a % x.ndim if x.ndim else a for a in order))


def swapaxes(x: TensorLike, a: int, b: int) -> Tensor:
    """Two axes exchanged."""
    x = as_tensor(x)
    order = list(range(x.ndim))
    order[a], order[b] = order[b], order[a]
    return _transpose(x, axes=tuple(order))


def broadcast_to(x: TensorLike, shape: Sequence[int]) -> Tensor:
    """x repeated along new axes and axes of length 1 until it has this shape."""
    return _broadcast_to(x, shape=tuple(shape))


def sum_to(x: TensorLike, shape: Sequence[int]) -> Tensor:
    """x summed over the axes along which `broadcast_to` would have repeated: its adjoint."""
    return _sum_to(x, shape=tuple(shape))


def concat(xs: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """The tensors one after the other along an axis."""
    tensors = coerce(_some(xs, "concat"))
    return _concat(*tensors, axis=normalize_axes(axis, tensors[0].ndim, "concat")[0])


def stack(xs: Sequence[TensorLike], axis: int = 0) -> Tensor:
    """The tensors side by side along a new axis: T tensors (B, H) become (T, B, H)."""
    tensors = coerce(_some(xs, "stack"))
    shape = tensors[0].shape
    if any(x.shape != shape for x in tensors):
        sizes = ", ".join(errors.describe(x.shape) for x in tensors)
        raise errors.ShapeError(f"stack: all shapes must be equal, got {sizes}.")
    (at,) = normalize_axes(axis, len(shape) + 1, "stack")
    wide = (*shape[:at], 1, *shape[at:])
    return _concat(*(_reshape(x, shape=wide) for x in tensors), axis=at)


def _some(xs: Sequence[TensorLike], name: str) -> tuple[TensorLike, ...]:
    if len(xs) == 0:
        raise errors.ShapeError(f"{name}: needs at least one tensor, got none.")
    return tuple(xs)


def split(x: TensorLike, sections: int, axis: int = -1) -> list[Tensor]:
    """``sections`` equal parts along an axis: (B, 3H) in 3 gives three (B, H)."""
    x = as_tensor(x)
    (at,) = normalize_axes(axis, x.ndim, "split")
    size, rest = divmod(x.shape[at], sections)
    if rest:
        raise errors.ShapeError(
            f"split: axis {at} of shape {errors.describe(x.shape)} is {x.shape[at]} long and "
            f"cannot be cut in {sections} equal parts."
        )
    before = (slice(None),) * at
    return [_getitem(x, index=(*before, slice(i * size, (i + 1) * size))) for i in range(sections)]


def getitem(x: TensorLike, index: Any) -> Tensor:
    """x[index]: whole numbers, slices, None, Ellipsis, integer arrays and boolean masks, as in
    NumPy.
    """
    if isinstance(index, tuple):
        index = tuple(_fixed_index(part) for part in index)
    else:
        index = _fixed_index(index)
    return _getitem(x, index=index)


def _fixed_index(part: Any) -> Any:
    """A copy, for the caller may write into an index array before the backward pass reads it."""
    if isinstance(part, Tensor):
        part = part._data
    if isinstance(part, list | np.ndarray):
        part = np.array(part, dtype=None if len(part) else np.int64)
        if part.dtype.kind not in "iub":
            raise errors.DtypeError(
                f"an index of dtype {part.dtype} picks nothing; use whole numbers or booleans."
            )
    return part


# -- NumPy's functions called on a Tensor -------------------------------------------------------

_SAME_IN_NUMPY: dict[str, Callable[..., Any]] = {
    "add": add, "subtract": sub, "multiply": mul, "divide": div, "power": pow, "negative": neg,
    "absolute": abs, "sign": sign, "exp": exp, "log": log, "sqrt": sqrt, "tanh": tanh,
    "maximum": maximum, "minimum": minimum, "where": where, "matmul": matmul, "less": less,
    "less_equal": less_equal, "greater": greater, "greater_equal": greater_equal, "equal": equal,
    "not_equal": not_equal, "sum": sum, "mean": mean, "max": max, "amax": max, "min": min,
    "amin": min, "reshape": reshape, "transpose": transpose, "swapaxes": swapaxes,
    "broadcast_to": broadcast_to, "concatenate": concat, "stack": stack, "split": split,
}  # fmt: skip


def from_numpy_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``numpy.name(...)`` on a Tensor means: our op of that meaning, never a silent detach."""
    if name not in _SAME_IN_NUMPY:
        raise TypeError(
            f"numpy.{name or 'ufunc method'} has no tinyseq op of the same meaning, and "
            "would cut the "
            "gradient off. Compose it from tinyseq's ops, or apply it to x.detach().numpy()."
        )
    return _SAME_IN_NUMPY[name](*args, **kwargs)


# From here on the operators of Tensor have what they call.
tinyseq.tensor.ops = sys.modules[__name__]  # type: ignore[attr-defined]
