"""One Hypothesis strategy for every op in the registry: drawn shapes, axes, broadcasts and values.

A drawn `Case` is a call of the op's public face, the float64 arrays it is called on, and NumPy's
version of the same thing. Values keep away from kinks and poles, where finite differences mean
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyseq as ts
from tinyseq import nn
from tinyseq import primitives as raw
from tinyseq.nn import recompute  # noqa: F401  # loaded when first used: its op is not there before


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
        assume(np.abs(a - b).min() > 1e-3)  # equal is a kink for some
        return Case(fn, [a, b], reference, differentiable)

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


def sample_moment(fn, reference):
    """Over at least two elements, divided by one less."""

    @st.composite
    def strategy(draw):
        x = draw(values(draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=3))))
        axis, keepdims = draw(st.one_of(st.none(), st.integers(-1, 0))), draw(st.booleans())
        return Case(
            lambda t: fn(t, axis, keepdims, ddof=1),
            [x],
            lambda a: reference(a, axis=axis, keepdims=keepdims, ddof=1),
        )

    return strategy()


@st.composite
def prod_case(draw):
    case = draw(reduction(ts.prod, np.prod))
    case.arrays[0][draw(hnp.arrays(bool, case.arrays[0].shape))] = 0.0  # none, one, several
    return case


def along_axis(fn, reference, differentiable=True):
    @st.composite
    def strategy(draw):
        x = draw(values(draw(solid_shapes)))
        axis = draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
        return Case(
            lambda t: fn(t, axis=axis), [x], lambda a: reference(a, axis=axis), differentiable
        )

    return strategy()


def truth(fn, reference):
    @st.composite
    def strategy(draw):
        case = draw(reduction(fn, reference))
        case.arrays[0][draw(hnp.arrays(bool, case.arrays[0].shape))] = 0.0
        case.differentiable = False
        return case

    return strategy()


def masks(fn, reference):
    @st.composite
    def strategy(draw):
        case = draw(binary(None, None))
        return Case(
            lambda a, b: fn(a > 0, b > 0), case.arrays, lambda a, b: reference(a > 0, b > 0), False
        )

    return strategy()


def np_gelu(a):
    return a * 0.5 * (1 + np.vectorize(math.erf, otypes=[float])(a / np.sqrt(2)))


def np_gelu_by_tanh(a):
    return a * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3)))


@st.composite
def clip_case(draw):
    """No bound, a number, or a tensor of them (which has a gradient too); never near x."""
    three = draw(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=2, max_side=3))
    x, low, high = (draw(values(s)) for s in three.input_shapes)
    low, high = low - 0.7, high + 0.7  # they may cross: then the upper one wins
    assume(all(np.abs(a - b).min() > 1e-3 for a, b in [(x, low), (x, high), (low, high)]))
    kind = draw(st.sampled_from(["both", "min", "max", "numbers"]))
    if kind == "numbers":
        low, high = low.flat[0], high.flat[0]
        return Case(lambda t: ts.clip(t, low, high), [x], lambda a: np.clip(a, low, high))
    if kind == "min":
        return Case(lambda t, b: ts.clip(t, min=b), [x, low], np.maximum)
    if kind == "max":
        return Case(lambda t, b: ts.clip(t, max=b), [x, high], np.minimum)
    return Case(ts.clip, [x, low, high], np.clip)


@st.composite
def einsum_case(draw):
    """Any subscripts: letters repeated, summed out, broadcast from 1; ellipsis; either form."""
    sizes = {c: draw(st.integers(1, 3)) for c in "ijB"}
    dots = draw(st.lists(st.integers(1, 2), max_size=2))  # what the ellipsis stands for
    terms, arrays = [], []
    for _ in range(draw(st.integers(1, 3))):
        term = draw(st.text("ijB", max_size=3))
        here = {c: n if draw(st.integers(0, 3)) else 1 for c, n in sizes.items()}
        shape = [here[c] for c in term]
        if dots and draw(st.booleans()):
            at = draw(st.integers(0, len(term)))
            mine = [n if draw(st.integers(0, 3)) else 1 for n in dots]
            mine = mine[draw(st.integers(0, len(dots))) :]
            term, shape = term[:at] + "..." + term[at:], shape[:at] + mine + shape[at:]
        terms.append(term)
        arrays.append(draw(values(tuple(shape))))
    subscripts = ",".join(terms)
    if draw(st.booleans()):
        letters = sorted(set(subscripts) - set(".,"))
        output = "".join(draw(st.lists(st.sampled_from(letters), unique=True)) if letters else "")
        at = draw(st.integers(0, len(output)))
        subscripts += "->" + (output[:at] + "..." + output[at:] if "..." in subscripts else output)
    return Case(lambda *t: ts.einsum(subscripts, *t), arrays, lambda *a: np.einsum(subscripts, *a))


@st.composite
def matmul_case(draw):
    n, k, m = (draw(st.integers(1, 3)) for _ in range(3))
    batch = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=2, max_side=2))
    left = draw(st.sampled_from([(k,), (*batch.input_shapes[0], n, k)]))
    right = draw(st.sampled_from([(k,), (k, m), (*batch.input_shapes[1], k, m)]))
    return Case(ts.matmul, [draw(values(left)), draw(values(right))], np.matmul)


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

    return Case(lambda t: raw.sum_to(t, shape=narrow), [draw(values(wide))], reference)


@st.composite
def swapaxes_case(draw):
    x = draw(values(draw(solid_shapes)))
    a, b = (draw(st.integers(-x.ndim, x.ndim - 1)) for _ in range(2))
    return Case(lambda t: ts.swapaxes(t, a, b), [x], lambda v: np.swapaxes(v, a, b))


@st.composite
def permute_case(draw):
    x = draw(values(draw(solid_shapes)))
    order = draw(st.permutations(range(-x.ndim, 0)))
    return Case(lambda t: t.permute(*order), [x], lambda a: np.transpose(a, order))


@st.composite
def squeeze_case(draw):
    x = draw(values(draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=2))))
    ones = [a for a, n in enumerate(x.shape) if n == 1]
    some = st.lists(st.sampled_from(ones), unique=True).map(tuple) if ones else st.just(())
    axis = draw(st.one_of(st.none(), some))
    return Case(lambda t: ts.squeeze(t, axis), [x], lambda a: np.squeeze(a, axis))


@st.composite
def expand_dims_case(draw):
    x = draw(values(draw(shapes)))
    axis = draw(
        st.one_of(
            st.integers(-x.ndim - 1, x.ndim),
            st.lists(st.integers(0, x.ndim + 1), min_size=2, max_size=2, unique=True).map(tuple),
        )
    )
    return Case(lambda t: ts.expand_dims(t, axis), [x], lambda a: np.expand_dims(a, axis))


@st.composite
def expand_case(draw):
    """`broadcast_to`, with −1 for some of the sizes that stay."""
    x = draw(values(draw(shapes)))
    wide = draw(hnp.broadcastable_shapes(x.shape, min_dims=x.ndim, max_dims=4, max_side=3))
    wide = np.broadcast_shapes(x.shape, wide)
    new = len(wide) - x.ndim
    stays = [i >= new and n == x.shape[i - new] and draw(st.booleans()) for i, n in enumerate(wide)]
    sizes = tuple(-1 if s else n for s, n in zip(stays, wide, strict=True))
    return Case(lambda t: t.expand(sizes), [x], lambda a: np.broadcast_to(a, wide))


@st.composite
def flip_case(draw):
    x = draw(values(draw(shapes)))
    axis = draw(axes_of(x.ndim))
    return Case(lambda t: ts.flip(t, axis), [x], lambda a: np.flip(a, axis))


@st.composite
def pad_case(draw):
    x = draw(values(draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=3))))
    n = st.integers(0, 2)
    pair = st.tuples(n, n)
    each = st.lists(pair, min_size=x.ndim, max_size=x.ndim)
    width = draw(st.one_of(n, pair, st.tuples(n), each, pair.map(lambda p: (p,))))
    constant = draw(st.sampled_from([0, 1.5, (1.0, -1.0)]))
    return Case(
        lambda t: ts.pad(t, width, constant_values=constant),
        [x],
        lambda a: np.pad(a, width, constant_values=constant),
    )


@st.composite
def stack_case(draw):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
    axis = draw(st.integers(-len(shape) - 1, len(shape)))
    parts = [draw(values(shape)) for _ in range(draw(st.integers(1, 3)))]
    return Case(lambda *t: ts.stack(t, axis), parts, lambda *a: np.stack(a, axis))


@st.composite
def split_case(draw):
    """In equal parts or at indices (in any order, beyond the end too); put together backwards."""
    x = draw(values(draw(solid_shapes)))
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    n = x.shape[axis]
    sections = st.sampled_from([k for k in range(1, n + 1) if n % k == 0])
    at = draw(st.one_of(sections, st.lists(st.integers(-n, n + 1), max_size=3)))
    return Case(
        lambda t: ts.concat(ts.split(t, at, axis)[::-1], axis),
        [x],
        lambda a: np.concatenate(np.split(a, at, axis)[::-1], axis),
    )


@st.composite
def chunk_case(draw):
    x = draw(values(draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=5))))
    axis, chunks = draw(st.integers(-x.ndim, x.ndim - 1)), draw(st.integers(1, 6))
    n = x.shape[axis]
    size = math.ceil(n / chunks)
    return Case(
        lambda t: ts.concat(ts.chunk(t, chunks, axis)[::-1], axis),
        [x],
        lambda a: np.concatenate(np.split(a, range(size, n, size), axis)[::-1], axis),
    )


@st.composite
def take_along_axis_case(draw):
    x = draw(values(draw(solid_shapes)))
    axis = draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    if axis is None:
        n, shape = x.size, [draw(st.integers(1, 3))]
    else:  # the other axes may broadcast
        n, shape = x.shape[axis], [m if draw(st.booleans()) else 1 for m in x.shape]
        shape[axis] = draw(st.integers(1, 3))
    index = draw(hnp.arrays(np.int64, tuple(shape), elements=st.integers(-n, n - 1)))
    return Case(
        lambda t: ts.take_along_axis(t, index, axis),
        [x],
        lambda a: np.take_along_axis(a, index, axis),
    )


@st.composite
def gather_case(draw):
    x = draw(values(draw(solid_shapes)))
    axis = draw(st.integers(-x.ndim, x.ndim - 1))
    shape = [draw(st.integers(1, m)) for m in x.shape]
    shape[axis] = draw(st.integers(1, 4))
    index = draw(hnp.arrays(np.int64, tuple(shape), elements=st.integers(0, x.shape[axis] - 1)))

    def reference(a):
        out = np.empty(shape)
        for place in np.ndindex(*shape):  # the definition
            there = list(place)
            there[axis] = index[place]
            out[place] = a[tuple(there)]
        return out

    return Case(lambda t: ts.gather(t, axis, index), [x], reference)


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

    split = [pick if isinstance(pick, tuple) else (pick,) for pick in picks]
    arrays = [ts.tensor(p) for pick in split for p in pick if isinstance(p, np.ndarray)]
    structures = [tuple(raw.ARRAY if isinstance(p, np.ndarray) else p for p in s) for s in split]
    return Case(
        lambda *t: raw.scatter_add(*t, *arrays, indices=structures, shape=shape), parts, reference
    )


@st.composite
def lookup_case(draw):
    """Rows of a table, and zeros for −1."""
    table = draw(values(draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=3))))
    places = st.integers(-1, len(table) - 1)
    index = draw(hnp.arrays(np.int64, draw(shapes), elements=places))
    padded = [(0, 1), *[(0, 0)] * (table.ndim - 1)]
    return Case(
        lambda t: raw.lookup(t, ts.tensor(index)), [table], lambda a: np.pad(a, padded)[index]
    )


@st.composite
def share_case(draw):
    shape = draw(solid_shapes)
    x, y = draw(values(shape)), draw(values(shape))
    axis = tuple(range(draw(st.integers(0, len(shape)))))
    return Case(lambda a, b: raw.share(a, b, axis=axis), [x, y], lambda a, b: np.exp(a - b))


@st.composite
def check_case(draw):
    seen = []
    x = draw(values(draw(shapes)))
    return Case(
        lambda t: raw.check(t, rule=lambda a, more: seen.append(a), more=1),
        [x],
        lambda a: np.True_,
        differentiable=False,
    )


@st.composite
def draw_case(draw):
    x = draw(values(draw(shapes)))

    def drawn(a, seed):
        return np.random.default_rng(seed).random(a.shape)

    return Case(lambda t: raw.draw(t, by=drawn, seed=3), [x], lambda a: drawn(a, 3), False)


@st.composite
def rows_of_classes(draw):
    """With the class that is ignored, one of them or another; not all are."""
    x = draw(values(draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))))
    V, ignored = x.shape[-1], draw(st.sampled_from([-100, 0]))
    some = st.one_of(st.integers(0, V - 1), st.just(ignored))
    classes = draw(hnp.arrays(np.int64, x.shape[:-1], elements=some))
    assume((classes != ignored).any())
    return x, classes, ignored


@st.composite
def softmax_loss_case(draw):
    x, classes, ignored = draw(rows_of_classes())
    reduction = draw(st.sampled_from(["none", "sum", "mean"]))

    def reference(a):
        rows, flat, kept = a.reshape(-1, a.shape[-1]), classes.reshape(-1), classes != ignored
        chosen = rows[np.arange(len(rows)), np.where(flat == ignored, 0, flat)]
        losses = np.where(flat == ignored, 0, np_logsumexp(rows, 1, False) - chosen)
        if reduction == "none":
            return losses
        return losses.sum() / (kept.sum() if reduction == "mean" else 1)

    def fn(t):
        return raw.softmax_loss(t, ts.tensor(classes), ignored=ignored, reduction=reduction)

    return Case(fn, [x], reference)


@st.composite
def softmax_loss_slope_case(draw):
    x, classes, ignored = draw(rows_of_classes())
    g, mean = draw(values(draw(st.sampled_from([(), (classes.size,)])))), draw(st.booleans())

    def reference(g, a):
        kept = classes != ignored
        hot = np.eye(a.shape[-1])[np.where(kept, classes, 0)]
        g = np.broadcast_to(g, classes.size).reshape(classes.shape) * kept
        g = g / kept.sum() if mean else g
        return g[..., None] * (np.exp(a - np_logsumexp(a, -1, True)) - hot)

    def fn(s, t):
        return raw.softmax_loss_slope(s, t, ts.tensor(classes), ignored=ignored, mean=mean)

    return Case(fn, [g, x], reference)


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
    return Case(lambda t: raw.astype(t, dtype=np.dtype(np.float64)), [x], lambda a: a)


@st.composite
def checkpoint_case(draw):
    a, b = (draw(values(draw(shapes))) for _ in range(2))

    def fn(s, t):
        first, (second,) = nn.checkpoint(lambda s, state: (ts.tanh(s), (state[0] * 2,)), s, (t,))
        return ts.concat([first.reshape(-1), second.reshape(-1)])

    return Case(fn, [a, b], lambda a, b: np.concatenate([np.tanh(a).ravel(), 2 * b.ravel()]))


def steps_of(fn, reference):
    """A function of one number with steps at whole numbers and halves, none of them near."""

    @st.composite
    def strategy(draw):
        x = draw(values(draw(shapes), -3.0, 3.0))
        assume(np.abs(2 * x - np.round(2 * x)).min() > 1e-3)
        return Case(fn, [x], reference)

    return strategy()


def quotient(fn, reference):
    """A function of a / b with steps at whole ones, none of them near."""

    @st.composite
    def strategy(draw):
        case = draw(binary(fn, reference, positive))  # next to 0 the steps are dense
        case.arrays[1] *= draw(st.sampled_from([1, -1]))
        ratio = case.arrays[0] / case.arrays[1]
        assume(np.abs(ratio - np.round(ratio)).min() > 1e-2)
        return case

    return strategy()


@st.composite
def cumprod_case(draw):
    case = draw(along_axis(ts.cumprod, np.cumprod))
    case.arrays[0][draw(hnp.arrays(bool, case.arrays[0].shape))] = 0.0  # none, one, several
    return case


@st.composite
def norm_case(draw):
    x = draw(values(draw(solid_shapes), away_from_zero=True))
    ord = draw(st.sampled_from([None, 0.5, 1, 2, 3.5, -1, np.inf, -np.inf]))
    assume(np.diff(np.sort(np.abs(x), None)).min(initial=1) > 1e-3)  # a largest and a smallest one
    axis, keepdims = draw(st.integers(-x.ndim, x.ndim - 1)), draw(st.booleans())
    if ord is None:
        axis = draw(st.sampled_from([axis, None, *[(0, 1)] * (x.ndim > 1)]))
    return Case(
        lambda t: ts.norm(t, ord, axis, keepdims),
        [x],
        lambda a: np.linalg.norm(a, ord, axis, keepdims),
    )


@st.composite
def masked_fill_case(draw):
    both = draw(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3))
    x, mask = draw(values(both.input_shapes[0])), draw(hnp.arrays(bool, both.input_shapes[1]))
    return Case(
        lambda t, v: ts.masked_fill(t, mask, v),
        [x, draw(values(()))],
        lambda a, v: np.where(mask, v, a),
    )


@st.composite
def take_case(draw):
    x = draw(values(draw(solid_shapes)))
    axis = draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    n = x.size if axis is None else x.shape[axis]
    index = draw(hnp.arrays(np.int64, draw(shapes), elements=st.integers(-n, n - 1)))
    return Case(lambda t: ts.take(t, index, axis), [x], lambda a: np.take(a, index, axis))


@st.composite
def repeat_case(draw):
    x = draw(values(draw(solid_shapes)))
    axis = draw(st.one_of(st.none(), st.integers(-x.ndim, x.ndim - 1)))
    n, times = x.size if axis is None else x.shape[axis], st.integers(0, 3)
    repeats = draw(st.one_of(times, st.lists(times, min_size=n, max_size=n)))
    return Case(lambda t: ts.repeat(t, repeats, axis), [x], lambda a: np.repeat(a, repeats, axis))


@st.composite
def roll_case(draw):
    x = draw(values(draw(shapes)))
    axis = draw(axes_of(x.ndim).filter(lambda axis: axis != ()))
    n = len(axis) if isinstance(axis, tuple) else 1
    shifts = st.lists(st.integers(-5, 5), min_size=n, max_size=n)
    shift = draw(st.one_of(st.integers(-5, 5), shifts))
    return Case(lambda t: ts.roll(t, shift, axis), [x], lambda a: np.roll(a, shift, axis))


@st.composite
def tile_case(draw):
    x, times = draw(values(draw(shapes))), st.integers(0, 3)
    reps = draw(st.one_of(times, st.lists(times, max_size=4)))
    return Case(lambda t: ts.tile(t, reps), [x], lambda a: np.tile(a, reps))


def triangle(fn, reference):
    @st.composite
    def strategy(draw):
        x = draw(values(draw(hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=4))))
        k = draw(st.integers(-4, 4))
        return Case(lambda t: fn(t, k), [x], lambda a: reference(a, k))

    return strategy()


def side_by_side(fn, reference):
    @st.composite
    def strategy(draw):
        shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=3))
        parts = [draw(values(shape)) for _ in range(draw(st.integers(1, 3)))]
        return Case(lambda *t: fn(t), parts, lambda *a: reference(a))

    return strategy()


@st.composite
def dot_case(draw):
    n = draw(st.integers(1, 3))
    sides = st.lists(st.integers(1, 3), max_size=2).map(tuple)
    left = draw(sides.map(lambda s: (*s, n)))
    right = draw(st.one_of(sides.map(lambda s: (*s, n, 2)), st.just((n,))))
    if draw(st.booleans()):
        left, right = draw(st.permutations([left, ()]))
    return Case(ts.dot, [draw(values(left)), draw(values(right))], np.dot)


@st.composite
def tensordot_case(draw):
    """Over as many axes of each as are drawn, named from the front or from the back."""
    a, b = draw(solid_shapes), list(draw(solid_shapes))
    n = draw(st.integers(0, min(len(a), len(b))))
    if draw(st.booleans()):
        axes, b[:n] = n, a[len(a) - n :]
    else:
        of_a, of_b = draw(st.permutations(range(len(a))))[:n], draw(st.permutations(range(len(b))))
        axes = ([i - len(a) for i in of_a], of_b[:n])
        for i, j in zip(of_a, of_b, strict=False):
            b[j] = a[i]
    return Case(
        lambda s, t: ts.tensordot(s, t, axes),
        [draw(values(a)), draw(values(tuple(b)))],
        lambda s, t: np.tensordot(s, t, axes),
    )


@st.composite
def topk_case(draw):
    x = draw(values(draw(solid_shapes)))
    axis, largest = draw(st.integers(-x.ndim, x.ndim - 1)), draw(st.booleans())
    k = draw(st.integers(0, x.shape[axis]))

    def reference(a):
        in_order = np.sort(a, axis)
        return np.take(np.flip(in_order, axis) if largest else in_order, range(k), axis)

    return Case(lambda t: ts.topk(t, k, axis, largest).values, [x], reference)


OPS: dict[str, st.SearchStrategy[Case]] = {
    "neg": unary(ts.neg, np.negative),
    "exp": unary(ts.exp, np.exp),
    "expm1": unary(ts.expm1, np.expm1),
    "log": unary(ts.log, np.log, 0.3, 3.0),
    "log1p": unary(ts.log1p, np.log1p, -0.7, 2.0),
    "sqrt": unary(ts.sqrt, np.sqrt, 0.3, 3.0),
    "sin": unary(ts.sin, np.sin),
    "cos": unary(ts.cos, np.cos),
    "erf": unary(ts.erf, np.vectorize(math.erf, otypes=[float])),
    "floor": steps_of(ts.floor, np.floor),
    "rint": steps_of(ts.rint, np.rint),
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
    "floor_divide": quotient(ts.floor_divide, np.floor_divide),
    "remainder": quotient(ts.remainder, np.remainder),
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
    "lookup": lookup_case(),
    "share": share_case(),
    "check": check_case(),
    "draw": draw_case(),
    "sum": reduction(ts.sum, np.sum),
    "max": reduction(ts.max, np.max),
    "min": reduction(ts.min, np.min),
    "checkpointed": checkpoint_case(),
    "logsumexp": reduction(ts.logsumexp, np_logsumexp),
    "softmax_loss": softmax_loss_case(),
    "softmax_loss_slope": softmax_loss_slope_case(),
    "cumsum": along_axis(ts.cumsum, np.cumsum),
    "argsort": along_axis(ts.argsort, np.argsort, differentiable=False),
    "argmax": along_axis(ts.argmax, np.argmax, differentiable=False),
    "argmin": along_axis(ts.argmin, np.argmin, differentiable=False),
}
"""By the op's name in the registry; the suite fails when one is missing."""

COMPOSED: dict[str, st.SearchStrategy[Case]] = {
    "mean": reduction(ts.mean, np.mean),
    "var": reduction(ts.var, np.var),
    "var of a sample": sample_moment(ts.var, np.var),
    "std": reduction(ts.std, np.std),
    "std of a sample": sample_moment(ts.std, np.std),
    "prod": prod_case(),
    "cumprod": cumprod_case(),
    "norm": norm_case(),
    "any": truth(ts.any, np.any),
    "all": truth(ts.all, np.all),
    "sort": along_axis(ts.sort, np.sort),
    "gelu": unary(ts.gelu, np_gelu),
    "gelu by tanh": unary(lambda x: ts.gelu(x, "tanh"), np_gelu_by_tanh),
    "silu": unary(ts.silu, lambda a: a / (1 + np.exp(-a))),
    "elu": unary(ts.elu, lambda a: np.where(a > 0, a, np.expm1(a)), away_from_zero=True),
    "leaky_relu": unary(
        lambda x: ts.leaky_relu(x, 0.1), lambda a: np.where(a > 0, a, 0.1 * a), away_from_zero=True
    ),
    "softsign": unary(ts.softsign, lambda a: a / (1 + np.abs(a)), away_from_zero=True),
    "tan": unary(ts.tan, np.tan, -1.2, 1.2),
    "log2": unary(ts.log2, np.log2, 0.3, 3.0),
    "log10": unary(ts.log10, np.log10, 0.3, 3.0),
    "round": steps_of(lambda x: ts.round(x * 0.01, 2), lambda a: np.round(a * 0.01, 2)),
    "isnan": unary(lambda x: ts.isnan(ts.where(x > 0, x, np.nan)), lambda a: a <= 0),
    "masked_fill": masked_fill_case(),
    "clip": clip_case(),
    "logical_and": masks(ts.logical_and, np.logical_and),
    "logical_or": masks(ts.logical_or, np.logical_or),
    "logical_not": masks(lambda a, b: ts.logical_not(a), lambda a, b: np.logical_not(a)),
    "einsum": einsum_case(),
    "swapaxes": swapaxes_case(),
    "permute": permute_case(),
    "squeeze": squeeze_case(),
    "expand_dims": expand_dims_case(),
    "expand": expand_case(),
    "flip": flip_case(),
    "pad": pad_case(),
    "stack": stack_case(),
    "split": split_case(),
    "chunk": chunk_case(),
    "hstack": side_by_side(ts.hstack, np.hstack),
    "vstack": side_by_side(ts.vstack, np.vstack),
    "roll": roll_case(),
    "tile": tile_case(),
    "repeat": repeat_case(),
    "take": take_case(),
    "tril": triangle(ts.tril, np.tril),
    "triu": triangle(ts.triu, np.triu),
    "dot": dot_case(),
    "outer": binary(ts.outer, np.outer),
    "tensordot": tensordot_case(),
    "topk": topk_case(),
    "take_along_axis": take_along_axis_case(),
    "gather": gather_case(),
}
