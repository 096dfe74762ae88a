"""Every primitive op, its faces side by side: forward, gradient rule, compiled and in-place form.

An op is declared once: what it computes (NumPy, ``forward``), its vector-Jacobian product (``vjp``,
written in Tensor ops, so that a gradient can itself be recorded and differentiated again), and,
where it may sit in a compiled loop, the scalar expression an emitter prints (``emit``): a call of
a function in `kernels.activations`, or Python in parentheses, as it becomes part of another one.
``into`` is its form in place, where it has one: see `op.Op.writing`.

``reads`` says which contents the rule looks at, so that the recording keeps those alone: ``"y"``
the result, ``"x"`` all inputs, a digit that input, ``""`` only shapes.

Arrays of indices, classes and masks are inputs like all others, int64 or bool and without a
gradient. Ops that take some say ``casts=False``: their inputs are Tensors and keep their dtypes.

``vjp(g, y, *xs, **attrs)`` returns one cotangent an input, or `None` where nothing flows. It
prefers ``y`` to the inputs where that serves: less to keep. It never mentions broadcasting: the
walker in `backprop` sums each cotangent to its input's shape. Ops come in adjoint pairs: sum_to /
broadcast_to, getitem / scatter_add, concat / slices.

Some inputs are used many times and their cotangents are better computed together: ``joint`` holds a
rule over all uses of such an input (and ``vjp`` gives `None` there). A weight that T steps share
gets its gradient Σₜ hₜᵀ gₜ as one product of stacked matrices, Hᵀ G; a sequence that is read step
by step gets its gradient written in one pass, not T sums of T steps.

Names and meaning are NumPy's. *Element by element* means: the result has the shape of the input, or
the shape that several inputs broadcast to, and their dtype (float32 where whole numbers go in and
fractions come out). Shapes that do not go together raise `ShapeError` with the op, the module path,
the sizes and the remedy.

The element-wise ones are called as they stand here; the others take their arguments in one exact
spelling (axes ascending and counted from the front, shapes as tuples), and `ops` has their public
faces, which take all of NumPy's spellings.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from tinyseq.errors import DtypeError
from tinyseq.graph import located, recording
from tinyseq.kernels import load
from tinyseq.op import F32, Use, Write, primitive
from tinyseq.tensor import FLOATS, Tensor

__all__ = [  # as they are called from outside; the others have public faces in `ops`
    "abs", "add", "cos", "div", "erf", "exp", "expm1", "floor", "floor_divide", "log", "log1p",
    "maximum", "minimum", "mul", "neg", "pow", "relu", "remainder", "rint", "sigmoid", "sign",
    "sin", "softplus", "sqrt", "sub", "tanh", "where",
]  # fmt: skip

_ERF_SLOPE = 2 / math.sqrt(math.pi)
_SEVERAL = 4096  # numbers from which a kernel of ours is faster than NumPy's
_BROADCAST = "Axes are matched from the right and must be equal or 1: reshape one of the operands."


def _quick(*arrays: np.ndarray) -> bool:
    """Whether there are kernels and they can take these: floats of one dtype, in plain memory."""
    if load.kernels is None:
        return False
    dtype = arrays[0].dtype
    if dtype not in FLOATS:
        return False
    return builtins.all(a.dtype is dtype and a.flags.c_contiguous for a in arrays)


def _several(*arrays: np.ndarray) -> bool:
    """As `_quick`, where there are enough numbers for a kernel to be faster than NumPy."""
    return arrays[0].size >= _SEVERAL and _quick(*arrays)


def _number(x: np.ndarray) -> np.ndarray:
    """Booleans as 0 and 1, where NumPy knows no booleans or computes in int8."""
    return x.astype(np.int64) if x.dtype == bool else x


# -- element by element, one input ------------------------------------------------------------


@primitive(lambda g, y, x: (-g,), reads="", emit="(-{0})", into=np.negative)
def neg(x: np.ndarray) -> Any:
    """y = −x, element by element."""
    return np.negative(x)


@primitive(lambda g, y, x: (g * y,), reads="y", emit="exp({0})", into=np.exp)
def exp(x: np.ndarray) -> Any:
    """y = eˣ, element by element."""
    return np.exp(x)


@primitive(lambda g, y, x: (g / x,), reads="x", emit="log({0})", into=np.log)
def log(x: np.ndarray) -> Any:
    """y = ln x, element by element."""
    return np.log(x)


@primitive(lambda g, y, x: (g * (y + 1),), reads="y", emit="expm1({0})", into=np.expm1)
def expm1(x: np.ndarray) -> Any:
    """y = eˣ − 1, element by element, exact where x is small."""
    return np.expm1(x)


@primitive(lambda g, y, x: (g / (x + 1),), reads="x", emit="log1p({0})", into=np.log1p)
def log1p(x: np.ndarray) -> Any:
    """y = ln(1 + x), element by element, exact where x is small."""
    return np.log1p(x)


@primitive(lambda g, y, x: (g * 0.5 / y,), reads="y", emit="sqrt({0})", into=np.sqrt)
def sqrt(x: np.ndarray) -> Any:
    """y = √x, element by element."""
    return np.sqrt(x)


def _sin_vjp(g: Tensor, y: Tensor, x: Tensor) -> tuple[Tensor]:
    return (g * cos(x),)


@primitive(_sin_vjp, reads="x", emit="sin({0})", into=np.sin)
def sin(x: np.ndarray) -> Any:
    """y = sin x, element by element; x in radians."""
    return np.sin(x)


@primitive(lambda g, y, x: (-g * sin(x),), reads="x", emit="cos({0})", into=np.cos)
def cos(x: np.ndarray) -> Any:
    """y = cos x, element by element; x in radians."""
    return np.cos(x)


@primitive(lambda g, y, x: (g * (exp(-(x * x)) * _ERF_SLOPE),), reads="x", emit="erf({0})")
def erf(x: np.ndarray) -> Any:
    """y = 2/√π ∫₀ˣ e^(−t²) dt, element by element: the error function."""
    dtype = x.dtype if x.dtype in FLOATS else F32
    # NumPy has none; C's, called on one Python float after the other, computes in float64
    return np.fromiter(map(math.erf, x.ravel().tolist()), dtype, x.size).reshape(x.shape)


@primitive(lambda g, y, x: (None,), reads="", emit="sign({0})")
def sign(x: np.ndarray) -> Any:
    """y = −1, 0 or 1, element by element; its gradient is 0 everywhere."""
    return np.sign(_number(x))


@primitive(lambda g, y, x: (None,), reads="", emit="floor({0})")
def floor(x: np.ndarray) -> Any:
    """y = ⌊x⌋, the next whole number below, element by element; its gradient is 0 everywhere."""
    return np.floor(x) if x.dtype in FLOATS else x


@primitive(lambda g, y, x: (None,), reads="", emit="rint({0})")
def rint(x: np.ndarray) -> Any:
    """y = the nearest whole number, of two the even one, element by element; its gradient is 0
    everywhere.
    """
    return np.rint(x) if x.dtype in FLOATS else x


@primitive(lambda g, y, x: (g * sign(x),), reads="x", emit="abs({0})", into=np.absolute)
def abs(x: np.ndarray) -> Any:
    """y = |x|, element by element; its gradient at 0 is taken to be 0."""
    return np.abs(x)


@primitive(lambda g, y, x: (g - g * (y * y),), reads="y", emit="tanh({0})", into=np.tanh)
def tanh(x: np.ndarray) -> Any:
    """y = tanh x, element by element."""
    return np.tanh(x)


@primitive(lambda g, y, x: (g * (y - y * y),), reads="y", emit="sigmoid({0})")
def sigmoid(x: np.ndarray) -> Any:
    """y = σ(x) = 1 / (1 + e⁻ˣ), element by element.

    Far to the left, where y is no more than 1e−38, e⁻ˣ overflows to ∞ and y is 0 (compiled code
    does without the overflow).
    """
    out = np.empty(x.shape, x.dtype if x.dtype in FLOATS else F32)
    if load.worth(x):
        load.kernels.activations.apply_sigmoid(x, out)
        return out
    np.negative(x, out=out, dtype=out.dtype)  # booleans have no negative of their own
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    out += 1
    return np.reciprocal(out, out=out)


@primitive(lambda g, y, x: (g * (y > 0),), reads="y", emit="relu({0})")
def relu(x: np.ndarray) -> Any:
    """y = max(x, 0), element by element; its gradient at 0 is taken to be 0."""
    return np.maximum(x, 0)


@primitive(lambda g, y, x: (g * sigmoid(x),), reads="x", emit="softplus({0})")
def softplus(x: np.ndarray) -> Any:
    """y = ln(1 + eˣ), element by element, without overflow."""
    if load.worth(x):
        out = np.empty(x.shape, x.dtype)
        load.kernels.activations.apply_softplus(x, out)
        return out
    return np.logaddexp(x, x.dtype.type(0))


# -- element by element, two inputs and more ----------------------------------------------------


def _add_into(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> Write:
    if b.shape == a.shape[-1:] and a.shape == out.shape and _several(a, b, out):  # a bias
        rows, sums = (x.reshape(-1, out.shape[-1]) for x in (a, out))
        return partial(load.kernels.updates.add_to_rows, rows, b, sums)
    return partial(np.add, a, b, out=out)


@primitive(lambda g, y, a, b: (g, g), reads="", emit="({0} + {1})", hint=_BROADCAST, into=_add_into)
def add(a: np.ndarray, b: np.ndarray) -> Any:
    """y = a + b, element by element, broadcast. Raises `ShapeError`."""
    return np.add(a, b)


@primitive(
    lambda g, y, a, b: (g, -g), reads="", emit="({0} - {1})", hint=_BROADCAST, into=np.subtract
)
def sub(a: np.ndarray, b: np.ndarray) -> Any:
    """y = a − b, element by element, broadcast. Raises `ShapeError`."""
    return np.subtract(a, b)


@primitive(
    lambda g, y, a, b: (g * b if a.requires_grad else None, g * a if b.requires_grad else None),
    reads="x",
    emit="({0} * {1})",
    hint=_BROADCAST,
    into=np.multiply,
)
def mul(a: np.ndarray, b: np.ndarray) -> Any:
    """y = a · b, element by element, broadcast. Raises `ShapeError`."""
    return np.multiply(a, b)


@primitive(
    lambda g, y, a, b: (g / b, -g * y / b if b.requires_grad else None),
    reads="1y",
    emit="({0} / {1})",
    hint=_BROADCAST,
    into=np.divide,
)
def div(a: np.ndarray, b: np.ndarray) -> Any:
    """y = a / b, element by element, broadcast. Raises `ShapeError`."""
    return np.divide(a, b)


@primitive(
    lambda g, y, a, b: (None, None), reads="", emit="floor_divide({0}, {1})", hint=_BROADCAST
)
def floor_divide(a: np.ndarray, b: np.ndarray) -> Any:
    """y = ⌊a / b⌋, element by element, broadcast; ``a // b``. Its gradient is 0 everywhere. Raises
    `ShapeError`.
    """
    return np.floor_divide(_number(a), _number(b))


def _remainder_vjp(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor | None, ...]:
    return g, -g * floor_divide(a, b) if b.requires_grad else None


@primitive(_remainder_vjp, reads="x", emit="remainder({0}, {1})", hint=_BROADCAST)
def remainder(a: np.ndarray, b: np.ndarray) -> Any:
    """y = a − b·⌊a / b⌋, element by element, broadcast, with the sign of b; ``a % b``. Raises
    `ShapeError`.
    """
    return np.remainder(_number(a), _number(b))


def _pow_vjp(g: Tensor, y: Tensor, a: Tensor, p: Tensor) -> tuple[Tensor | None, ...]:
    # p·a^(p−1), which at a = p = 0 must be 0 and not 0·∞; a^p·ln a, which at a = 0 must be 0 and
    # not 0·(−∞)
    da = g * p * a ** where((p == 0) & (a == 0), 1.0, p - 1) if a.requires_grad else None
    dp = g * y * log(where((a == 0) & (p >= 0), 1.0, a)) if p.requires_grad else None
    return da, dp


@primitive(_pow_vjp, emit="power({0}, {1})", hint=_BROADCAST)
def pow(a: np.ndarray, p: np.ndarray) -> Any:
    """y = aᵖ, element by element, broadcast. Raises `ShapeError`, and `DtypeError` for a whole
    number to a negative whole power.
    """
    a, p = _number(a), _number(p)
    if a.dtype.kind == p.dtype.kind == "i" and (p < 0).any():
        raise DtypeError(
            f"{located('pow')}: whole numbers to the power of {p.min()} are no whole numbers. "
            "Make one of them float, as in x.astype(np.float32) ** -1, or x ** -1.0."
        )
    return np.power(a, p)


def _extremum_vjp(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    tie = where(a == b, 0.5, 1.0)  # both inputs are the extremum: half of the gradient each
    return where(a == y, g * tie, 0.0), where(b == y, g * tie, 0.0)


@primitive(_extremum_vjp, emit="maximum({0}, {1})", hint=_BROADCAST, into=np.maximum)
def maximum(a: np.ndarray, b: np.ndarray) -> Any:
    """y = the larger of a and b, element by element, broadcast. Raises `ShapeError`.

    Where they are equal each gets half of the gradient.
    """
    return np.maximum(a, b)


@primitive(_extremum_vjp, emit="minimum({0}, {1})", hint=_BROADCAST, into=np.minimum)
def minimum(a: np.ndarray, b: np.ndarray) -> Any:
    """y = the smaller of a and b, element by element, broadcast. Raises `ShapeError`.

    Where they are equal each gets half of the gradient.
    """
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
    """y = a where the condition holds, else b; all three broadcast. Raises `ShapeError`.

    No gradient flows through what was not chosen.
    """
    return np.where(condition, a, b)


@primitive(emit="({0} < {1})", hint=_BROADCAST, into=np.less)
def less(a: np.ndarray, b: np.ndarray) -> Any:
    """a < b, element by element, broadcast: booleans, not differentiable."""
    return np.less(a, b)


@primitive(emit="({0} <= {1})", hint=_BROADCAST, into=np.less_equal)
def less_equal(a: np.ndarray, b: np.ndarray) -> Any:
    """a ≤ b, element by element, broadcast: booleans, not differentiable."""
    return np.less_equal(a, b)


@primitive(emit="({0} > {1})", hint=_BROADCAST, into=np.greater)
def greater(a: np.ndarray, b: np.ndarray) -> Any:
    """a > b, element by element, broadcast: booleans, not differentiable."""
    return np.greater(a, b)


@primitive(emit="({0} >= {1})", hint=_BROADCAST, into=np.greater_equal)
def greater_equal(a: np.ndarray, b: np.ndarray) -> Any:
    """a ≥ b, element by element, broadcast: booleans, not differentiable."""
    return np.greater_equal(a, b)


@primitive(emit="({0} == {1})", hint=_BROADCAST, into=np.equal)
def equal(a: np.ndarray, b: np.ndarray) -> Any:
    """a = b, element by element, broadcast: booleans, not differentiable."""
    return np.equal(a, b)


@primitive(emit="({0} != {1})", hint=_BROADCAST, into=np.not_equal)
def not_equal(a: np.ndarray, b: np.ndarray) -> Any:
    """a ≠ b, element by element, broadcast: booleans, not differentiable."""
    return np.not_equal(a, b)


def _astype_vjp(g: Tensor, y: Tensor, x: Tensor, dtype: np.dtype[Any]) -> tuple[Tensor]:
    return (astype(g, dtype=x.dtype),)


def _astype_into(out: np.ndarray, x: np.ndarray, dtype: np.dtype[Any]) -> Write:
    return partial(np.copyto, out, x, casting="unsafe")


@primitive(_astype_vjp, reads="", into=_astype_into)
def astype(x: np.ndarray, dtype: np.dtype[Any]) -> Any:
    """The same values in another dtype."""
    return x.astype(dtype)


@primitive(emit="{0}")
def detach(x: np.ndarray) -> Any:
    """y = x, as a constant: what `Tensor.detach` is in a step that is traced."""
    return x


# -- products -----------------------------------------------------------------------------------


def _matmul_vjp(g: Tensor, y: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor | None, ...]:
    # A product is as dear as the forward one: only if somebody wants it.
    return (matmul(g, _turned(b)) if a.requires_grad else None), None


def _matmul_joint(b: Tensor, uses: list[Use]) -> Tensor:
    """Σ aᵀ g over the uses: for a shared weight, one product of the rows of all steps."""
    pairs = [(use.inputs[0], use.g) for use in uses]
    if b.ndim == 2:  # a batch of matrices times one is a matrix of all their rows
        pairs = [(_as_rows(a), _as_rows(g)) for a, g in pairs]
        if len(pairs) > 1 and recording.tape is None:  # a compiled step stacks over time anyway
            a, g = (concat(*parts, axis=0) for parts in zip(*pairs, strict=True))
            return matmul(_turned(a), g)
    terms = [matmul(_turned(a), g) for a, g in pairs]
    alike = [t if t.shape == b.shape else sum_to(t, shape=b.shape) for t in terms]
    return _add_up(alike)


def _as_rows(x: Tensor) -> Tensor:
    rows = math.prod(x.shape[:-1])
    return x if x.ndim == 2 else reshape(x, shape=(rows, x.shape[-1]))


def _turned(x: Tensor) -> Tensor:
    """Every matrix transposed: the last two axes exchanged."""
    return transpose(x, axes=(*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _add_up(terms: list[Tensor]) -> Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _matmul_into(out: np.ndarray, a: np.ndarray, b: np.ndarray) -> Write | None:
    if a.ndim > 2 and b.ndim == 2:
        rows = a.reshape(-1, a.shape[-1])
        if not np.may_share_memory(rows, a):
            return None
        a, out = rows, out.reshape(-1, b.shape[1])
    if a.ndim == b.ndim == 2 and _worth_a_kernel(a, b):
        return partial(load.kernels.gemm.product, a, b, out)
    return partial(np.matmul, a, b, out=out)


@primitive(
    _matmul_vjp,
    reads="x",
    joint={1: _matmul_joint},
    emit="({0} @ {1})",
    hint="The last axis of the left operand must be as long as the second-last of the right one: "
    "row vectors go on the left, x @ w with x (..., D) and w (D, H).",
    into=_matmul_into,
)
def matmul(a: np.ndarray, b: np.ndarray) -> Any:
    """y[..., i, j] = Σₖ a[..., i, k] · b[..., k, j]."""
    if a.ndim > 2 and b.ndim == 2 and a.shape[-1] == b.shape[0]:
        # One large product instead of a batch of small ones
        rows = a.reshape(math.prod(a.shape[:-1]), a.shape[-1])
        return _matrix_product(rows, b).reshape(*a.shape[:-1], b.shape[1])
    return _matrix_product(a, b)


def _matrix_product(a: np.ndarray, b: np.ndarray) -> Any:
    if a.ndim == b.ndim == 2 and _worth_a_kernel(a, b):
        return load.kernels.gemm.product(a, b)
    return np.matmul(a, b)


def _worth_a_kernel(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two matrices are multiplied by the kernels. Below, a BLAS is as fast; above, it would
    start threads of its own beside theirs.
    """
    if load.kernels is None or not a.dtype == b.dtype in FLOATS:
        return False
    (M, K), (k, N) = a.shape, b.shape
    return bool(k == K and M * K * N > 200_000)


# -- shapes and places --------------------------------------------------------------------------


def _broadcast_to_vjp(g: Tensor, y: Tensor, x: Tensor, shape: tuple[int, ...]) -> tuple[Tensor]:
    return (sum_to(g, shape=x.shape),)


@primitive(_broadcast_to_vjp, reads="", hint=_BROADCAST)
def broadcast_to(x: np.ndarray, shape: tuple[int, ...]) -> Any:
    """x repeated along new axes and axes of length 1 until it has this shape."""
    return np.broadcast_to(x, shape)


def _sum_to_into(out: np.ndarray, x: np.ndarray, shape: tuple[int, ...]) -> Write:
    if x.ndim > 1 and shape == x.shape[-1:] and _several(x, out):
        return partial(load.kernels.updates.sum_of_rows, x.reshape(-1, *shape), out)
    axes = _repeated_axes(x.shape, shape)
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    return partial(np.add.reduce, x, axes, out=out.reshape(kept), keepdims=True)


@primitive(lambda g, y, x, shape: (broadcast_to(g, shape=x.shape),), reads="", into=_sum_to_into)
def sum_to(x: np.ndarray, shape: tuple[int, ...]) -> Any:
    """x summed over the axes along which `broadcast_to` would have repeated: its adjoint."""
    return x.sum(axis=_repeated_axes(x.shape, shape), keepdims=True).reshape(shape)


def _repeated_axes(whole: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of ``whole`` along which `broadcast_to` repeats what has this shape."""
    lead = len(whole) - len(shape)
    kept = [i + lead for i, n in enumerate(shape) if n == 1 and whole[i + lead] != 1]
    return (*range(lead), *kept)


def _reshape_vjp(g: Tensor, y: Tensor, x: Tensor, shape: tuple[int, ...]) -> tuple[Tensor]:
    return (reshape(g, shape=x.shape),)


@primitive(
    _reshape_vjp,
    reads="",
    hint="The number of elements must stay the same.",
)
def reshape(x: np.ndarray, shape: tuple[int, ...]) -> Any:
    """The same elements, read row by row, in another shape."""
    return x.reshape(shape)


def _transpose_vjp(g: Tensor, y: Tensor, x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor]:
    return (transpose(g, axes=tuple(np.argsort(axes).tolist())) if axes else g,)


@primitive(
    _transpose_vjp,
    reads="",
    hint="Name every axis once.",
)
def transpose(x: np.ndarray, axes: tuple[int, ...]) -> Any:
    """The axes in another order."""
    return x.transpose(axes)


def _concat_vjp(g: Tensor, y: Tensor, *xs: Tensor, axis: int) -> tuple[Tensor, ...]:
    ends = np.cumsum([x.shape[axis] for x in xs]).tolist()
    before = (slice(None),) * axis
    return tuple(
        getitem(g, index=(*before, slice(end - x.shape[axis], end)))
        for x, end in zip(xs, ends, strict=True)
    )


def _concat_into(out: np.ndarray, *xs: np.ndarray, axis: int) -> Write:
    return partial(np.concatenate, xs, axis, out=out)


@primitive(
    _concat_vjp,
    reads="",
    hint="All sizes but the one along the axis must be equal.",
    into=_concat_into,
)
def concat(*xs: np.ndarray, axis: int) -> Any:
    """The tensors one after the other along an axis."""
    return np.concatenate(xs, axis)


class _Array:
    """Stands in an index for an array of whole numbers or booleans, which is an input of the op."""

    def __repr__(self) -> str:
        return "array"


ARRAY = _Array()


def filled(index: Any, arrays: Iterator[Any]) -> Any:
    """The index with the next arrays in their places."""
    if index.__class__ is tuple:
        return tuple([next(arrays) if part.__class__ is _Array else part for part in index])
    return next(arrays) if index.__class__ is _Array else index


def _getitem_joint(x: Tensor, uses: list[Use]) -> Tensor:
    return scatter_add(
        *(use.g for use in uses),
        *(array for use in uses for array in use.inputs[1:]),
        indices=[use.attrs["index"] for use in uses],
        shape=x.shape,
    )


def _getitem_into(out: np.ndarray, x: np.ndarray, *arrays: np.ndarray, index: Any) -> Write | None:
    rows = index.__class__ is _Array and arrays[0].dtype != bool
    return partial(_take_rows, out, x, arrays[0]) if rows else None


def _take_rows(out: np.ndarray, x: np.ndarray, index: np.ndarray, or_zeros: bool = False) -> None:
    # NumPy looks at each index first, or else writes by way of a buffer; without a sign one below
    # 0 is large
    whole = index.size == 0 or index.view(np.uint64).max() < len(x)
    np.take(x, index, axis=0, out=out, mode="clip" if whole else "raise")
    if or_zeros and not whole:
        out[index < 0] = 0


@primitive(
    lambda g, y, *inputs, index: (None,) * len(inputs),
    reads="",
    joint={0: _getitem_joint},
    hint="Check the index against the sizes.",
    into=_getitem_into,
    casts=False,
)
def getitem(x: np.ndarray, *arrays: np.ndarray, index: Any) -> Any:
    """x[index], with everything that NumPy indexes by; its arrays are inputs, see `ARRAY`."""
    if not arrays:
        return x[index]
    if index.__class__ is _Array and arrays[0].dtype != bool and x.ndim:
        return x.take(arrays[0], axis=0)  # the same, and up to twice as fast
    return x[filled(index, iter(arrays))]


def _scatter_add_vjp(
    g: Tensor, y: Tensor, *inputs: Tensor, indices: list[Any], shape: tuple[int, ...]
) -> tuple[Tensor | None, ...]:
    arrays = iter(inputs[len(indices) :])
    picked = [getitem(g, *_own(index, arrays), index=index) for index in indices]
    return *picked, *[None] * (len(inputs) - len(indices))


def _own(index: Any, arrays: Iterator[Tensor]) -> list[Tensor]:
    """The arrays of one index, from those of several."""
    parts = index if isinstance(index, tuple) else (index,)
    return [next(arrays) for part in parts if part.__class__ is _Array]


@primitive(_scatter_add_vjp, reads="", into="out", casts=False)
def scatter_add(
    *inputs: np.ndarray,
    indices: list[Any],
    shape: tuple[int, ...],
    out: np.ndarray | None = None,
) -> Any:
    """Zeros of this shape with each x added at its index: the adjoint of several x = y[index].

    ``inputs``: the xs, one an index, and then the arrays of the indices. Where these name a place
    twice, both elements are added there.
    """
    if out is None:
        out = np.zeros(shape, inputs[0].dtype)
    else:
        out.fill(0)
    arrays = iter(inputs[len(indices) :])
    for x, index in zip(inputs, indices, strict=False):
        _add_at(out, filled(index, arrays), x)
    return out


def _add_at(out: np.ndarray, index: Any, x: np.ndarray) -> None:
    """out[index] += x, also where the index names a place twice."""
    parts = index if isinstance(index, tuple) else (index,)
    arrays = [part for part in parts if isinstance(part, np.ndarray)]
    if builtins.all(a.dtype == bool for a in arrays):  # slices, numbers, masks: no place twice
        out[index] += x
    elif len(parts) == 1:  # whole rows, as an embedding picks: sort, add up each run of equal ones
        rows = arrays[0].ravel()
        picked = x.reshape(rows.size, *out.shape[1:])
        if out.ndim == 2 and rows.dtype == np.int64 and _quick(out, picked):
            load.kernels.updates.add_rows(out, rows, picked)
            return
        rows = rows % out.shape[0]
        order = np.argsort(rows, kind="stable")
        if len(order):
            rows = rows[order]
            starts = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]])
            out[rows[starts]] += np.add.reduceat(picked[order], starts, axis=0)
    else:  # let NumPy say which place each element came from
        places = np.arange(out.size).reshape(out.shape)[index]
        np.add.at(out.reshape(-1), places.ravel(), np.broadcast_to(x, places.shape).ravel())


def _lookup_joint(table: Tensor, uses: list[Use]) -> Tensor:
    V, *row = table.shape  # −1 counts from the end: what it adds lands behind the table
    longer = scatter_add(
        *(use.g for use in uses),
        *(use.inputs[1] for use in uses),
        indices=[ARRAY] * len(uses),
        shape=(V + 1, *row),
    )
    return getitem(longer, index=slice(V))


def _lookup_into(out: np.ndarray, table: np.ndarray, index: np.ndarray) -> Write:
    return partial(_take_rows, out, table, index, True)


@primitive(
    lambda g, y, table, index: (None, None),
    reads="",
    joint={0: _lookup_joint},
    into=_lookup_into,
    casts=False,
)
def lookup(table: np.ndarray, index: np.ndarray) -> Any:
    """y = table[index], and zeros where the index is −1: (V, …) and whole numbers (…)."""
    y = np.asarray(table.take(index, axis=0))
    if index.size and index.min() < 0:
        y[index < 0] = 0
    return y


@primitive()
def argsort(x: np.ndarray, axis: int) -> Any:
    """The places of the elements along the axis, smallest element first."""
    return np.argsort(x, axis, kind="stable")


@primitive(hint="An empty axis has no largest element.")
def argmax(x: np.ndarray, axis: int, keepdims: bool) -> Any:
    """The place of the first largest element along the axis."""
    return np.argmax(x, axis, keepdims=keepdims)


@primitive(hint="An empty axis has no smallest element.")
def argmin(x: np.ndarray, axis: int, keepdims: bool) -> Any:
    """The place of the first smallest element along the axis."""
    return np.argmin(x, axis, keepdims=keepdims)


# -- reductions ---------------------------------------------------------------------------------


def _spread(g: Tensor, like: Tensor, axis: tuple[int, ...], keepdims: bool) -> Tensor:
    """What was reduced over ``axis``, repeated along it again."""
    if not keepdims and g.ndim:
        kept = tuple(1 if i in axis else n for i, n in enumerate(like.shape))
        g = reshape(g, shape=kept)
    return broadcast_to(g, shape=like.shape)


def _sum_into(out: np.ndarray, x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Write:
    return partial(np.add.reduce, x, axis, out=out, keepdims=keepdims)


@primitive(
    lambda g, y, x, axis, keepdims: (_spread(g, x, axis, keepdims),), reads="", into=_sum_into
)
def sum(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    """y = Σ x over the axes."""
    return np.sum(x, axis=axis, keepdims=keepdims)


def _extreme_vjp(
    g: Tensor, y: Tensor, x: Tensor, axis: tuple[int, ...], keepdims: bool
) -> tuple[Tensor]:
    chosen = astype(x == _spread(y, x, axis, keepdims), dtype=x.dtype)
    share = chosen / sum(chosen, axis=axis, keepdims=True)
    return (_spread(g, x, axis, keepdims) * share,)


_EMPTY = "An empty axis has no largest or smallest element."


@primitive(_extreme_vjp, hint=_EMPTY)
def max(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    """The largest element over the axes; equal ones share the gradient evenly."""
    return np.max(x, axis=axis, keepdims=keepdims)


@primitive(_extreme_vjp, hint=_EMPTY)
def min(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    """The smallest element over the axes; equal ones share the gradient evenly."""
    return np.min(x, axis=axis, keepdims=keepdims)


def _logsumexp_vjp(
    g: Tensor, y: Tensor, x: Tensor, axis: tuple[int, ...], keepdims: bool
) -> tuple[Tensor]:
    # Where every x is −∞ so is y, and x − y would be NaN: any other y gives e^−∞ = 0, as it should.
    y = where(y == -math.inf, 0.0, y)
    shares = share(x, _spread(y, x, axis, keepdims), axis=axis)
    return (_spread(g, x, axis, keepdims) * shares,)


def _share_vjp(
    g: Tensor, p: Tensor, x: Tensor, y: Tensor, axis: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor]:
    slope = where(y == math.inf, 0.0, g * p)
    return slope, -slope


@primitive(_share_vjp, reads="1y", emit="exp({0} - {1})")
def share(x: np.ndarray, y: np.ndarray, axis: tuple[int, ...] = ()) -> Any:
    """e^(x − y) with y = ln Σ eˣ over the axes, repeated along them: what each x has of the sum.

    Where y is ∞, so are n of the x, which have 1/n each.
    """
    rows = y[tuple(slice(1) if a in axis else slice(None) for a in range(y.ndim))]
    if not (rows == math.inf).any():
        return np.exp(x - y)
    infinite = x == math.inf
    with np.errstate(invalid="ignore"):  # ∞ − ∞
        usual = np.exp(x - y)
    evenly = infinite / np.maximum(infinite.sum(axis, keepdims=True), 1)
    return np.where(y == math.inf, evenly.astype(usual.dtype), usual)


@primitive(_logsumexp_vjp, hint=_EMPTY)
def logsumexp(x: np.ndarray, axis: tuple[int, ...], keepdims: bool) -> Any:
    """y = ln Σ eˣ over the axes, without overflow; −∞ with a gradient of 0 where all x are −∞; ∞
    where some are, which share the gradient evenly.
    """
    x = _number(x)
    largest = np.max(x, axis=axis, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, x.dtype.type(0))
    with np.errstate(divide="ignore", over="ignore"):  # ln 0 = −∞; beside an ∞ e^x may be one too
        out = np.log(np.sum(np.exp(x - largest), axis=axis, keepdims=True)) + largest
    return out if keepdims else np.squeeze(out, axis)


def _softmax_loss_vjp(
    g: Tensor, y: Tensor, x: Tensor, classes: Tensor, ignored: int, reduction: str
) -> tuple[Tensor, None]:
    mean = reduction == "mean"
    return softmax_loss_slope(g, x, classes, ignored=ignored, mean=mean), None


@primitive(_softmax_loss_vjp, reads="x", hint=_EMPTY, casts=False)
def softmax_loss(x: np.ndarray, classes: np.ndarray, ignored: int, reduction: str) -> Any:
    """yᵢ = ln Σ_c e^xᵢ_c − xᵢ_classᵢ = −ln softmax(xᵢ)_classᵢ, x (..., V) row by row, N classes →
    (N); 0 for the class that is ignored. ``reduction``: ``"none"``; ``"sum"``, Σ yᵢ; or ``"mean"``,
    that sum over the number of those that are not ignored.
    """
    classes, dropped, counted = _known(classes, ignored)
    x = x.reshape(len(classes), x.shape[-1])
    if x.size and _quick(x):
        y = load.kernels.losses.softmax_loss(x, classes)
    else:
        x = x - np.max(x, axis=1, keepdims=True)
        chosen = x[np.arange(len(x)), classes]
        y = np.log(np.add.reduce(np.exp(x, out=x), axis=1)) - chosen
    if counted < len(classes):
        y[dropped] = 0
    if reduction == "none":
        return y
    return np.add.reduce(y) / (float(counted) if reduction == "mean" else 1.0)


def _known(classes: np.ndarray, ignored: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The classes in one row, 0 in place of the one that is ignored; where that was; how many
    others there are.
    """
    flat = classes.reshape(-1)
    dropped = flat == ignored
    counted = flat.size - int(np.count_nonzero(dropped))
    return flat if counted == flat.size else np.where(dropped, 0, flat), dropped, counted


def _softmax_loss_slope_vjp(
    u: Tensor, y: Tensor, g: Tensor, x: Tensor, classes: Tensor, ignored: int, mean: bool
) -> tuple[Tensor, Tensor, None]:
    classes = reshape(classes, shape=(classes.size,))
    rows = (classes.size, x.shape[-1])
    keep = classes != ignored
    weights = astype(keep, dtype=g.dtype)
    if mean:
        weights = weights / sum(weights, axis=(0,), keepdims=False)
    kept = reshape(keep, shape=(rows[0], 1))
    u = reshape(u, shape=rows) * reshape(weights, shape=(rows[0], 1))
    z = where(kept, reshape(x, shape=rows), 0.0)
    z = z - max(Tensor.wrap(z._data), axis=(1,), keepdims=True)  # near 0 float32 is fine
    p = exp(z - logsumexp(z, axis=(1,), keepdims=True))
    weighed = u * p
    total = sum(weighed, axis=(1,), keepdims=True)
    places = Tensor.wrap(np.arange(rows[0])), where(keep, classes, 0)
    dg = sum(total, axis=(1,), keepdims=False) - getitem(u, *places, index=(ARRAY, ARRAY))
    dx = (weighed - p * total) * (reshape(g, shape=(rows[0], 1)) if g.ndim else g)
    return dg, reshape(dx, shape=x.shape), None


def _softmax_loss_slope_into(
    out: np.ndarray, g: np.ndarray, x: np.ndarray, classes: np.ndarray, ignored: int, mean: bool
) -> Write:
    N, V = classes.size, x.shape[-1]
    slopes, weights = out.reshape(N, V), np.empty(N, g.dtype)
    quick = x.size and _quick(weights, x.reshape(N, V))

    def write() -> None:
        rows = x.reshape(N, V)  # a copy, where x does not lie in rows
        known, dropped, counted = _known(classes, ignored)
        weights[...] = g / counted if mean else g
        if quick:
            load.kernels.losses.softmax_loss_slope(weights, rows, known, slopes)
        else:
            np.subtract(rows, np.max(rows, axis=1, keepdims=True), out=slopes)
            np.exp(slopes, out=slopes)
            slopes[...] *= (weights / np.add.reduce(slopes, axis=1))[:, None]
            slopes[np.arange(N), known] -= weights
        if counted < N:
            slopes[dropped] = 0

    return write


@primitive(_softmax_loss_slope_vjp, reads="x", into=_softmax_loss_slope_into, casts=False)
def softmax_loss_slope(
    g: np.ndarray, x: np.ndarray, classes: np.ndarray, ignored: int, mean: bool
) -> Any:
    """gᵢ · (softmax(xᵢ) − one_hot(classᵢ)), g (N) or a number, x (..., V) → (..., V), 0 for the
    class that is ignored; with ``mean`` over the number of the others: what `softmax_loss` passes
    back.
    """
    out = np.empty(x.shape, x.dtype)
    _softmax_loss_slope_into(out, g, x, classes, ignored, mean)()
    return out


def _cumsum_vjp(g: Tensor, y: Tensor, x: Tensor, axis: int, reverse: bool) -> tuple[Tensor]:
    return (cumsum(g, axis=axis, reverse=not reverse),)


@primitive(_cumsum_vjp, reads="")
def cumsum(x: np.ndarray, axis: int, reverse: bool) -> Any:
    """yₜ = Σ xₛ over all s ≤ t along the axis; reversed, over all s ≥ t: its adjoint."""
    if not reverse:
        return np.cumsum(x, axis)
    backwards = (slice(None),) * axis + (slice(None, None, -1),)
    return np.cumsum(x[backwards], axis)[backwards]


# -- what a recorded step does anew with each call's arrays ---------------------------------------


def _check_into(out: np.ndarray, x: np.ndarray, rule: Callable[..., None], **details: Any) -> Write:
    return partial(rule, x, **details)


@primitive(hint=None, into=_check_into, casts=False)
def check(x: np.ndarray, rule: Callable[..., None], **details: Any) -> Any:
    """True, once rule(x, **details) has raised no error: a look at an argument's values."""
    rule(x, **details)
    return True


@primitive(hint=None, casts=False)
def draw(*given: np.ndarray, by: Callable[..., np.ndarray], **options: Any) -> Any:
    """by(*given, **options): an array of random numbers, other ones each time."""
    if recording.step is not None:  # what was drawn since the last time was drawn by nobody else
        recording.step.check_streams()
    return by(*given, **options)
