"""One Hypothesis strategy for every op in the registry: drawn shapes, axes, broadcasts and values.

A drawn `Case` is a call of the op's public face, the float64 arrays it is called on, and NumPy's
version of the same thing. Values keep away from kinks and poles, where finite differences mean
nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyseq as ts
from tinyseq import nn, ops


@dataclass
class Case:
    fn: Callable[..., Any]
    arrays: list[np.ndarray]
    numpy: Callable[..., Any]
    differentiable: bool = True

    def __repr__(self) -> str:
        return f"Case(shapes={[a.shape for a in self.arrays]}, arrays={self.arrays})"


shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=3)
solid_shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=3)


@st.composite
def values(draw, shape, low=-2.0, high=2.0, away_from_zero=False):
    """An array of distinct, evenly spaced values in random order: no ties, none near 0 if asked."""
    n = int(np.prod(shape))
    spaced = np.linspace(low, high, n + 2)[1:-1]
    spaced = spaced + draw(st.floats(-0.1, 0.1)) * (high - low) / (n + 2)
    if away_from_zero:
        spaced = np.where(np.abs(spaced) < 0.05, 0.05 + np.abs(spaced), spaced)
    order = np.random.default_rng(draw(st.integers(0, 2**16))).permutation(n)
    return spaced[order].reshape(shape)


def unary(fn, reference, low=-2.0, high=2.0, away_from_zero=False):
    @st.composite
    def strategy(draw):
        x = draw(values(draw(shapes), low, high, away_from_zero))
        return Case(fn, [x], reference)

    return strategy()


def binary(fn, reference, second=None, differentiable=True):
    @st.composite
    def strategy(draw):
        both = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
        a = draw(values(both.input_shapes[0]))
        b = draw((second or values)(both.input_shapes[1]))
        return Case(fn, [a, b + 1e-3], reference, differentiable)  # never equal to a

    return strategy()


def positive(shape):
    return values(shape, 0.3, 2.5)


def nonzero(shape):
    return values(shape, -2.0, 2.0, True)


@st.composite
def axes_of(draw, ndim):
    """None, one axis, or several, with negative ones among them."""
    if ndim == 0:
        return draw(st.sampled_from([None, ()]))
    one = st.integers(-ndim, ndim - 1)
    some = st.lists(st.integers(0, ndim - 1), max_size=ndim, unique=True).map(tuple)
    return draw(st.one_of(st.none(), one, some))


def reduction(fn, reference):
    @st.composite
    def strategy(draw):
        x = draw(values(draw(solid_shapes)))
        axis, keepdims = draw(axes_of(x.ndim)), draw(st.booleans())
        return Case(
            lambda t: fn(t, axis, keepdims),
            [x],
            lambda a: reference(a, axis=axis, keepdims=keepdims),
        )

    return strategy()


def np_logsumexp(a, axis, keepdims):
    return np.log(np.sum(np.exp(a), axis=axis, keepdims=keepdims))


@st.composite
def matmul_case(draw):
    n, k, m = (draw(st.integers(1, 3)) for _ in range(3))
    batch = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=2))
    left = draw(st.sampled_from([(k,), (*batch.input_shapes[0], n, k)]))
    right = draw(st.sampled_from([(k,), (k, m), (*batch.input_shapes[1], k, m)]))
    return Case(ops.matmul, [draw(values(left)), draw(values(right))], np.matmul)


@st.composite
def reshape_case(draw):
    x = draw(values(draw(shapes)))
    target = draw(st.sampled_from([(x.size,), (1, x.size), (-1,), (x.size, 1, 1), x.shape[::-1]]))
    return Case(lambda t: t.reshape(target), [x], lambda a: a.reshape(target))


@st.composite
def transpose_case(draw):
    x = draw(values(draw(shapes)))
    order = draw(st.permutations(range(x.ndim)))
    return Case(
        lambda t: ts.transpose(t, order) if order else ts.transpose(t), [x],
        lambda a: np.transpose(a, order),
    )  # fmt: skip


@st.composite
def broadcast_case(draw):
    x = draw(values(draw(shapes)))
    wide = draw(hnp.broadcastable_shapes(x.shape, min_dims=x.ndim, max_dims=3, max_side=3))
    wide = np.broadcast_shapes(x.shape, wide)
    return Case(lambda t: ts.broadcast_to(t, wide), [x], lambda a: np.broadcast_to(a, wide))


@st.composite
def sum_to_case(draw):
    narrow = draw(shapes)
    wide = np.broadcast_shapes(
        narrow, draw(hnp.broadcastable_shapes(narrow, min_dims=len(narrow), max_dims=3, max_side=3))
    )

    def reference(a):
        out = np.zeros(narrow)
        for place in np.ndindex(wide):  # the definition: each element to where it was copied from
            tail = place[len(wide) - len(narrow) :]
            out[tuple(i if n > 1 else 0 for i, n in zip(tail, narrow, strict=True))] += a[place]
        return out

    return Case(lambda t: ops._sum_to(t, shape=narrow), [draw(values(wide))], reference)


@st.composite
def concat_case(draw):
    shape = draw(solid_shapes)
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    parts = []
    for _ in range(draw(st.integers(1, 3))):
        part = list(shape)
        part[axis] = draw(st.integers(1, 3))
        parts.append(draw(values(tuple(part))))
    return Case(lambda *t: ts.concat(t, axis), parts, lambda *a: np.concatenate(a, axis))


@st.composite
def indices(draw, shape):
    """Numbers, slices, None, Ellipsis, integer arrays and masks."""
    mask = hnp.arrays(bool, shape)
    integer = st.integers(0, shape[0] - 1)
    rows = st.lists(st.integers(-shape[0], shape[0] - 1), min_size=1, max_size=4)
    table = st.lists(st.lists(integer, min_size=2, max_size=2), min_size=1, max_size=3)
    kinds = [
        hnp.basic_indices(shape, allow_newaxis=True),
        rows.map(np.array),
        table.map(np.array),
        mask,
        st.tuples(rows.map(np.array), st.just(Ellipsis)),
    ]
    if len(shape) > 1:
        pairs = st.lists(st.tuples(integer, st.integers(0, shape[1] - 1)), min_size=1, max_size=4)
        kinds.append(pairs.map(lambda p: tuple(np.array(p).T)))
        kinds.append(rows.map(lambda r: (slice(None, None, -1), np.array(r) % shape[1])))
    return draw(st.one_of(*kinds))


@st.composite
def getitem_case(draw):
    x = draw(values(draw(solid_shapes)))
    index = draw(indices(x.shape))
    return Case(lambda t: t[index], [x], lambda a: a[index])


@st.composite
def scatter_case(draw):
    shape = draw(solid_shapes)
    picks = [draw(indices(shape)) for _ in range(draw(st.integers(1, 2)))]
    parts = [draw(values(np.zeros(shape)[i].shape)) for i in picks]

    def reference(*arrays):
        out = np.zeros(shape)
        for a, i in zip(arrays, picks, strict=True):
            np.add.at(out, i, a)
        return out

    return Case(lambda *t: ops._scatter_add(*t, indices=picks, shape=shape), parts, reference)


@st.composite
def where_case(draw):
    three = draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=3))
    condition = draw(hnp.arrays(bool, three.input_shapes[0]))
    a, b = (draw(values(s)) for s in three.input_shapes[1:])
    return Case(
        lambda s, t: ts.where(condition, s, t), [a, b], lambda a, b: np.where(condition, a, b)
    )


@st.composite
def astype_case(draw):
    x = draw(values(draw(shapes)))
    # there and back: the difference of float32 steps would mean nothing
    return Case(lambda t: ops._astype(t, dtype=np.dtype(np.float64)), [x], lambda a: a)


@st.composite
def checkpoint_case(draw):
    a, b = (draw(values(draw(shapes))) for _ in range(2))

    def fn(s, t):
        first, (second,) = nn.checkpoint(lambda s, state: (ts.tanh(s), (state[0] * 2,)), s, (t,))
        return ts.concat([first.reshape(-1), second.reshape(-1)])

    return Case(fn, [a, b], lambda a, b: np.concatenate([np.tanh(a).ravel(), 2 * b.ravel()]))


OPS: dict[str, st.SearchStrategy[Case]] = {
    "neg": unary(ts.neg, np.negative),
    "exp": unary(ts.exp, np.exp),
    "log": unary(ts.log, np.log, 0.3, 3.0),
    "sqrt": unary(ts.sqrt, np.sqrt, 0.3, 3.0),
    "abs": unary(ts.abs, np.abs, away_from_zero=True),
    "sign": unary(ts.sign, np.sign, away_from_zero=True),
    "tanh": unary(ts.tanh, np.tanh),
    "sigmoid": unary(ts.sigmoid, lambda a: 1 / (1 + np.exp(-a))),
    "relu": unary(ts.relu, lambda a: np.maximum(a, 0), away_from_zero=True),
    "softplus": unary(ts.softplus, lambda a: np.log1p(np.exp(a))),
    "add": binary(ts.add, np.add),
    "sub": binary(ts.sub, np.subtract),
    "mul": binary(ts.mul, np.multiply),
    "div": binary(ts.div, np.divide, nonzero),
    "pow": binary(lambda a, b: ts.pow(ts.exp(a), b), lambda a, b: np.power(np.exp(a), b)),
    "maximum": binary(ts.maximum, np.maximum),
    "minimum": binary(ts.minimum, np.minimum),
    "where": where_case(),
    "less": binary(ts.ops.less, np.less, differentiable=False),
    "less_equal": binary(ts.ops.less_equal, np.less_equal, differentiable=False),
    "greater": binary(ts.ops.greater, np.greater, differentiable=False),
    "greater_equal": binary(ts.ops.greater_equal, np.greater_equal, differentiable=False),
    "equal": binary(ts.ops.equal, np.equal, differentiable=False),
    "not_equal": binary(ts.ops.not_equal, np.not_equal, differentiable=False),
    "astype": astype_case(),
    "matmul": matmul_case(),
    "broadcast_to": broadcast_case(),
    "sum_to": sum_to_case(),
    "reshape": reshape_case(),
    "transpose": transpose_case(),
    "concat": concat_case(),
    "getitem": getitem_case(),
    "scatter_add": scatter_case(),
    "sum": reduction(ts.sum, np.sum),
    "max": reduction(ts.max, np.max),
    "min": reduction(ts.min, np.min),
    "checkpointed": checkpoint_case(),
    "logsumexp": reduction(ts.logsumexp, np_logsumexp),
}
"""By the op's name in the registry; the suite fails when one is missing."""

COMPOSED: dict[str, st.SearchStrategy[Case]] = {
    "mean": reduction(ts.mean, np.mean),
}
