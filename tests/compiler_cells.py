"""Cells for the compiler's tests: a small grammar of equations that draws any number of them, and
one way to compare a compiled layer with the unrolled one.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager

import numpy as np
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn

# -- a grammar of steps ----------------------------------------------------------------------------
#
# Kinks and steps lie where no two ways of computing the same thing meet but for rounding.
# A drawn cell is a list of instructions over values that are (B, H), and (B, 1) or (B,) on the way.

UNARY = {
    "tanh": ts.tanh,
    "sigmoid": ts.sigmoid,
    "relu": lambda a: ts.relu(a + 0.03),
    "exp": lambda a: ts.exp(ts.tanh(a)),
    "expm1": lambda a: ts.expm1(ts.tanh(a)),
    "log": lambda a: ts.log(a * a + 1.5),
    "log1p": lambda a: ts.log1p(a * a),
    "sqrt": lambda a: ts.sqrt(a * a + 0.5),
    "sin": ts.sin,
    "cos": ts.cos,
    "erf": ts.gelu,
    "softplus": ts.softplus,
    "abs": lambda a: ts.abs(a + 0.05),
    "sign": lambda a: ts.sign(a - 0.05) * a,
    "neg": lambda a: -a,
    "square": lambda a: ts.tanh(a) ** 2,
    "cube": lambda a: ts.tanh(a) ** 3,
    "root": lambda a: (a * a + 0.3) ** 0.5,
    "power": lambda a: 1.5 ** ts.tanh(a),
    "one minus": lambda a: 1 - a,
    "halved": lambda a: a / 2,
    "silu": ts.silu,
    "elu": lambda a: ts.elu(a + 0.03, 0.7),
    "leaky relu": lambda a: ts.leaky_relu(a + 0.03, 0.2),
    "softsign": lambda a: ts.softsign(a + 0.05),
    "tan": lambda a: ts.tan(ts.tanh(a)),
    "log2": lambda a: ts.log2(a * a + 1.5),
    "log10": lambda a: ts.log10(a * a + 0.5),
    "floor": lambda a: ts.floor(a + 0.13) * a,
    "round": lambda a: ts.round(a + 0.13) * a,
    "modulo": lambda a: (a + 0.13) % 1.7 - 0.2 * ((a - 0.13) // 1.3),
    "isnan": lambda a: ts.masked_fill(a, ts.isnan(ts.where(a > -0.1, a, np.nan)), 0.3),
    "both": lambda a: ts.where(ts.logical_and(a > -0.5, ts.logical_not(a > 0.5)), a, 0.2),
    "either": lambda a: ts.where(ts.logical_or(a < -0.5, a > 0.5), a, -a),
    "over": lambda a: 1.0 / (a * a + 0.7),
    "clip": lambda a: ts.clip(a, -0.4, 0.6),
    "clip below": lambda a: ts.clip(a, min=-0.3),
    "where": lambda a: ts.where(a > 0.02, a, 0.1 * a),
    "counted": lambda a: (a > 0.1) * a + (a <= -0.2) * 0.5,
    "masks added": lambda a: ((a > -0.5) + (a < 0.5)) * a + ((a > 0.4) + (a > 0.1)) * 0.5,
    "masks multiplied": lambda a: ts.where((a > -0.6) * ((a < 0.1) + (a > 0.4)), a, -a),
    "twice": lambda a: a + a,
    "detour": lambda a: a.astype(a.dtype),
}
BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b * b + 0.6),
    "max": lambda a, b: ts.maximum(a, b + 0.05),
    "min": lambda a, b: ts.minimum(a, b - 0.05),
    "choose": lambda a, b: ts.where(a > b + 0.1, a * 0.5, b),
    "choose equal": lambda a, b: ts.where((a != 3.5) * (a - 0.1 >= b), a, -b),
    "power": lambda a, b: (a * a + 0.5) ** ts.tanh(b),
    "gate": lambda a, b: ts.sigmoid(a) * b,
    "modulo": lambda a, b: (a + 0.13) % (b * b + 0.6) - 0.1 * a * ((0.13 - a) // (b * b + 0.6)),
    "switch": lambda a, b: ts.where(a > 0.1, b, -b),
    "either": lambda a, b: ts.where((a > 0.1) + (b > 0.1), a, b) * ((a < 0.4) + (b < 0.3)),
    "detached": lambda a, b: a.detach() * b,
}
ROWS = {  # (B, H) → (B, H), by way of the whole row
    "softmax": lambda a: ts.functional.softmax(a),
    "log softmax": lambda a: ts.functional.log_softmax(a) * 0.3,
    "centred": lambda a: a - a.mean(-1, keepdims=True),
    "norm": lambda a: a / ts.sqrt((a * a).sum(1, keepdims=True) + 0.5),
    "total": lambda a: a * a.sum(axis=-1, keepdims=True) / a.shape[1],
    "largest": lambda a: a - ts.max(a, axis=-1, keepdims=True),
    "smallest": lambda a: a * ts.min(a, axis=1, keepdims=True),
    "logsumexp": lambda a: a - ts.logsumexp(a, axis=-1, keepdims=True),
    "variance": lambda a: a / ts.sqrt(ts.var(a, axis=-1, keepdims=True) + 1.0),
    "deviation": lambda a: a * (ts.std(a * 0.5, axis=-1, keepdims=True) + 0.1),
    "first": lambda a: a * a[:, :1],
    "last column": lambda a: a + ts.tanh(a[:, -1])[:, None],
    "flat sum": lambda a: a * ts.sigmoid(a.sum(axis=1)).reshape(-1, 1),
    "flat mean": lambda a: a - ts.expand_dims(a.mean(axis=-1), 1),
    "turned": lambda a: a[:, ::-1],
    "halves": lambda a: ts.concat([a[:, a.shape[1] // 2 :], -a[:, : a.shape[1] // 2]], axis=1),
    "every other": lambda a: ts.concat([a[:, ::2], a[:, 1::2]], axis=-1),
    "overlapping": lambda a: ts.concat([a[:, :1], (a[:, :-1] + a[:, 1:]) * 0.5], axis=-1),
    "split": lambda a: ts.concat(ts.split(a, [a.shape[1] // 3], axis=-1)[::-1], axis=-1),
    "padded": lambda a: ts.pad(a, ((0, 0), (1, 0)))[:, :-1] - a,
    "rolled": lambda a: ts.roll(a, 1, axis=-1),
    "cumulated": lambda a: ts.cumprod(ts.tanh(a) + 0.5, axis=1),
    "length": lambda a: (
        a / (ts.norm(a, 3, axis=1, keepdims=True) + ts.norm(a, axis=1)[:, None] + 1)
    ),
    "slices of slices": lambda a: ts.concat(
        [a[:, 1:][:, ::2], a[:, ::2][:, ::2], a[:, ::2][:, 1::2]], axis=-1
    ),
    "backwards twice": lambda a: ts.concat([a[:, ::-1][:, ::2], a[:, ::-2][:, ::-1]], 1)[
        :, : a.shape[1]
    ],
    "thirds": lambda a: ts.concat(
        [part * (n + 1) for n, part in enumerate([a[:, 2::3], a[:, ::3], a[:, 1::3]])], axis=-1
    ),
    "strided twice over": lambda a: (
        ts.concat([a[:, ::2] * 2, a[:, 1::2]], axis=1) + a[:, ::2][:, ::2].sum(-1, keepdims=True)
    ),
    "uneven": lambda a: ts.concat(
        ts.split(a, [a.shape[1] // 4, a.shape[1] // 2 + 1], axis=1)[::-1], axis=1
    ),
    "one of many": lambda a: a * a[:, :1].sum(axis=-1, keepdims=True).reshape(-1, 1),
    "logsumexp of nothing": lambda a: (
        a * ts.exp(ts.logsumexp(ts.where(a > 0.6, ts.tanh(a), -np.inf), axis=-1, keepdims=True))
    ),
    "largest of some": lambda a: (
        a + ts.maximum(ts.max(ts.where(a > 0.3, a, -np.inf), axis=1, keepdims=True), -0.2)
    ),
}
WEIGHTS = {
    "w": lambda cell: cell.w,
    "w.T": lambda cell: cell.w.T,
    "slice": lambda cell: cell.wide[:, cell.hidden_size :],
    "slice.T": lambda cell: cell.wide[:, : cell.hidden_size].T,
    "scaled": lambda cell: cell.w * cell.factor,
    "product": lambda cell: cell.w @ cell.w,
}
PARTS = {  # what of a value a product takes, and of the weight
    "slice": (lambda a, k: a[:, k:], lambda w, k: w[k:]),
    "slice of a slice": (lambda a, k: a[:, k:][:, k:], lambda w, k: w[2 * k :]),
    "end": (lambda a, k: a[:, : a.shape[1] - k], lambda w, k: w[: len(w) - k]),
    "every other": (lambda a, k: a[:, ::2], lambda w, k: w[::2]),
    "backwards": (lambda a, k: a[:, ::-1], lambda w, k: w[::-1]),
    "one, repeated": (lambda a, k: ts.broadcast_to(a[:, :1], a.shape), lambda w, k: w),
}
PARAMETERS = {
    "bias": lambda cell, a: a + cell.b,
    "scale": lambda cell, a: a * cell.b,
    "row": lambda cell, a: a * cell.row,
    "factor": lambda cell, a: a * cell.factor,
    "one": lambda cell, a: a + cell.one,
    "derived": lambda cell, a: a * ts.sigmoid(cell.b),
    "summed": lambda cell, a: a * cell.b.mean(),
    "constant": lambda cell, a: a * cell.constant,
    "array": lambda cell, a: a + cell.array,
    "ones": lambda cell, a: a + np.ones(a.shape, a.dtype),
    "layer norm": lambda cell, a: cell.norm(a),
    "free": lambda cell, a: ts.broadcast_to(cell.b, a.shape),
    "twice": lambda cell, a: a * cell.b + cell.b,
    "part": lambda cell, a: a + cell.long[cell.hidden_size : -cell.hidden_size],
    "every third": lambda cell, a: a * cell.long[::-3],
    "row of a weight": lambda cell, a: a + cell.w[-1] * cell.w[:, 0],
    "mean of a weight": lambda cell, a: a * cell.wide.mean(axis=0)[1::2],
    "number": lambda cell, a: a * cell.b[-1] + cell.row[0, 0],
}
STATES = {  # of a value, what the state was, and the last value given
    "tanh": lambda v, h, given: ts.tanh(v),
    "gated": lambda v, h, given: (g := ts.sigmoid(v)) * h + (1 - g) * ts.tanh(given),
    "leak": lambda v, h, given: 0.8 * h + 0.2 * ts.tanh(v),
    "sum": lambda v, h, given: h + given,
    "kept": lambda v, h, given: h,
    "delay": lambda v, h, given: given,
    "as it is": lambda v, h, given: ts.clip(v, -2.0, 2.0),
}


#: A state of another width than the others: its shape for H, what the step reads of it, and what it
#: becomes, of a value (B, H)
OTHER_STATES = {
    "one number": ((1,), lambda s: s, lambda v, s: ts.tanh(v.sum(axis=1, keepdims=True) - s)),
    "no axis": ((), lambda s: s[:, None], lambda v, s: 0.5 * s + ts.tanh(v[:, -1])),
    "twice as wide": (
        (2,),
        lambda s: s[:, ::2] - s[:, 1::2],
        lambda v, s: ts.concat([ts.tanh(v), s[:, : v.shape[1]]], axis=1),
    ),
    "kept": ((1,), lambda s: s * 0.5, lambda v, s: s),
}


class DrawnCell(nn.Module):
    """A cell made of drawn instructions (name, kind, operands …) and states (kind, value, old), and
    perhaps one of the `OTHER_STATES`, the last of all.
    """

    def __init__(self, D, H, instructions, states, seed=0, other=None):
        rng = np.random.default_rng(seed)

        def parameter(*shape):
            return nn.Parameter(rng.standard_normal(shape) / np.sqrt(shape[0]))

        self.input_size, self.hidden_size = D, H
        self.instructions, self.states, self.other = tuple(instructions), tuple(states), other
        self.w_x = parameter(D, H)
        self.wide_x = parameter(D, 3 * H)
        self.w = parameter(H, H)
        self.wide = parameter(H, 2 * H)
        self.b = parameter(H)
        self.row = parameter(1, H)
        self.long = parameter(3 * H)
        self.factor = nn.Parameter(np.array(0.7))
        self.one = parameter(1)
        self.constant = ts.tensor(rng.standard_normal(H))
        self.array = rng.standard_normal(H).astype(np.float32)
        self.norm = nn.LayerNorm(H)

    def forward(self, x, state):
        H, state = self.hidden_size, list(state)
        last = None if self.other is None else state.pop()
        wide = x @ self.wide_x
        values = [x @ self.w_x, wide[:, H : 2 * H], ts.tanh(wide[:, 2 * H :]), *state]
        if x.shape[1] == H:
            values.append(x)
        given = values[-1] if x.shape[1] == H else values[0]
        if self.other is not None:
            _, read, new_last = OTHER_STATES[self.other]
            values.append(values[0] * read(last))
        for name, kind, *operands in self.instructions:
            a, *rest = (values[i % len(values)] for i in operands)
            if name == "product":
                new = a @ WEIGHTS[kind](self)
            elif name == "part":
                of_value, of_weight = PARTS[kind]
                new = of_value(a, H // 3) @ of_weight(self.w, H // 3)
            elif name == "parameter":
                new = PARAMETERS[kind](self, a)
            else:
                new = {"unary": UNARY, "binary": BINARY, "rows": ROWS}[name][kind](a, *rest)
            values.append(new)
        new = tuple(
            STATES[kind](values[-1 - i % len(values)], state[j % len(state)], given)
            for kind, i, j in self.states
        )
        return new if self.other is None else (*new, new_last(values[-1], last))

    def initial_state(self, batch_size, dtype=np.float32):
        shapes = [(self.hidden_size,)] * len(self.states)
        if self.other is not None:
            of = OTHER_STATES[self.other][0]
            shapes.append(of and (of[0] if of[0] == 1 else of[0] * self.hidden_size,))
        return tuple(ts.tensor(np.zeros((batch_size, *shape), dtype)) for shape in shapes)


def instructions():
    i = st.integers(0, 40)
    one = st.one_of(
        st.tuples(st.just("unary"), st.sampled_from(sorted(UNARY)), i),
        st.tuples(st.just("binary"), st.sampled_from(sorted(BINARY)), i, i),
        st.tuples(st.just("rows"), st.sampled_from(sorted(ROWS)), i),
        st.tuples(st.just("product"), st.sampled_from(sorted(WEIGHTS)), i),
        st.tuples(st.just("part"), st.sampled_from(sorted(PARTS)), i),
        st.tuples(st.just("parameter"), st.sampled_from(sorted(PARAMETERS)), i),
    )
    return st.lists(one, min_size=1, max_size=9)


def states():
    kind = st.sampled_from([*sorted(STATES), "tanh", "gated"])
    return st.lists(st.tuples(kind, st.integers(0, 6), st.integers(0, 3)), min_size=1, max_size=3)


@st.composite
def drawn_cells(draw, sizes=(1, 2, 3, 7, 33)):
    H = draw(st.sampled_from(sizes))
    D = draw(st.sampled_from([1, 3, H]))
    other = draw(st.sampled_from([None, None, *sorted(OTHER_STATES)]))
    return DrawnCell(D, H, draw(instructions()), draw(states()), draw(st.integers(0, 9)), other)


BUILT_IN = {
    "RNN": lambda D, H, **options: nn.RNNCell(D, H, **options),
    "RNN relu": lambda D, H, **options: nn.RNNCell(D, H, "relu", **options),
    "RNN softplus": lambda D, H, **options: nn.RNNCell(D, H, "softplus", **options),
    "RNN clipped": lambda D, H, **options: nn.RNNCell(D, H, "leaky_relu", clip=0.7, **options),
    "GRU after": lambda D, H, **options: nn.GRUCell(D, H, **options),
    "GRU before": lambda D, H, **options: nn.GRUCell(D, H, "reset_before", **options),
    "GRU simplified": lambda D, H, **options: nn.GRUCell(D, H, "simplified", **options),
    "LSTM": lambda D, H, **options: nn.LSTMCell(D, H, **options),
    "LSTM coupled": lambda D, H, **options: nn.CoupledLSTMCell(D, H, **options),
    "LSTM projected": lambda D, H, **options: nn.LSTMCell(D, H, proj_size=H // 3 + 1, **options),
    "peephole new": lambda D, H, **options: nn.PeepholeLSTMCell(D, H, **options),
    "peephole clipped": lambda D, H, **options: nn.PeepholeLSTMCell(D, H, clip=0.7, **options),
    "peephole previous": lambda D, H, **options: nn.PeepholeLSTMCell(D, H, "previous", **options),
    "LSTM normed": lambda D, H, **options: nn.LayerNormLSTMCell(D, H, **options),
    "GRU normed": lambda D, H, **options: nn.LayerNormGRUCell(D, H, **options),
}
WRAPPED = {
    "as it is": lambda cell: cell,
    "zoneout": lambda cell: nn.Zoneout(cell, 0.3),
    "dropout": lambda cell: nn.VariationalDropout(cell, 0.3, 0.4),
    "learned": lambda cell: nn.LearnedState(cell),
    "all": lambda cell: nn.LearnedState(nn.Zoneout(nn.VariationalDropout(cell, 0.0, 0.4), 0.2)),
}


@st.composite
def built_in_cells(draw, sizes=(1, 7, 33, 100)):
    D, H = draw(st.sampled_from([1, 4])), draw(st.sampled_from(sizes))
    cell = BUILT_IN[draw(st.sampled_from(sorted(BUILT_IN)))](D, H, bias=draw(st.booleans()))
    return WRAPPED[draw(st.sampled_from(sorted(WRAPPED)))](cell).train(draw(st.booleans()))


# -- scan ≡ unroll ---------------------------------------------------------------------------------


def leaves(nested):
    """The tensors in nested tuples, in order."""
    if isinstance(nested, tuple | list):
        return [t for part in nested for t in leaves(part)]
    return [nested]


def filled(nested, rng, dtype, requires_grad):
    """Random numbers in place of the tensors of a nested state."""
    if isinstance(nested, tuple | list):
        return tuple(filled(part, rng, dtype, requires_grad) for part in nested)
    return ts.tensor(
        rng.standard_normal(nested.shape) * 0.5, dtype=dtype, requires_grad=requires_grad
    )


@contextmanager
def in_mode(layer, mode):
    """All layers inside run in this mode."""
    inside = [m for _, m in layer.named_modules() if isinstance(m, nn.Recurrent)]
    before = [m.mode for m in inside]
    for m in inside:
        m.mode = mode
    try:
        yield
    finally:
        for m, mode_before in zip(inside, before, strict=True):
            m.mode = mode_before


def outcome(layer, mode, T, B, dtype, seed=0, given=True, state_grad=True, x_grad=True,
            lengths=None, padding=0.0, used="both", passes=1):  # fmt: skip
    """Everything that comes out of a layer: values by name, and gradients, of random inputs.

    ``padding``: what x holds behind the ends of its sequences.
    """
    rng = np.random.default_rng(seed)
    ts.seed(seed)
    layer.zero_grad()
    x = rng.standard_normal((T, B, layer.input_size))
    if lengths is not None:
        x[np.arange(T)[:, None] >= np.array(lengths)] = padding
    x = ts.tensor(x, dtype=dtype, requires_grad=x_grad)
    state = None
    if given:
        state = filled(layer.initial_state(B, dtype), rng, dtype, state_grad)
    with in_mode(layer, mode):
        y, last = layer(x, state, lengths)
    found = {"y": y.numpy()}
    found |= {f"state {i}": t.numpy() for i, t in enumerate(leaves(last))}
    ends = {"y": [y], "last": leaves(last), "both": [y, *leaves(last)]}[used]
    parts = [
        (t * rng.standard_normal(t.shape).astype(dtype)).sum() + 0.5 * (t * t).sum() for t in ends
    ]
    loss = sum(parts[1:], start=parts[0])
    if loss.requires_grad:
        for n in range(passes):
            loss.backward(retain_graph=n + 1 < passes)
    inputs = {"x": x} | {f"initial state {i}": t for i, t in enumerate(leaves(state or ()))}
    for name, t in (inputs | dict(layer.named_parameters())).items():
        found[f"gradient of {name}"] = None if t.grad is None else t.grad.numpy()
    return found


def assert_same(found, expected, tolerance):
    """Equal but for rounding, each to its own largest number; `None` and zeros alike."""
    assert found.keys() == expected.keys()
    for name, e in expected.items():
        f = found[name]
        if e is None or f is None:
            left = e if f is None else f
            assert left is None or not np.abs(left).max() > tolerance, name
            continue
        assert f.shape == e.shape, (name, f.shape, e.shape)
        assert f.dtype == e.dtype, (name, f.dtype, e.dtype)
        np.testing.assert_allclose(
            f, e, rtol=tolerance, atol=tolerance * (1 + np.abs(e).max(initial=0)), err_msg=name
        )


def tolerance(dtype, T):
    """Of what adds up over T steps and the rows of products."""
    return 1e-10 if dtype == np.float64 else 3e-5 * (3 + T)


def assert_scan_is_unroll(layer, T, B, dtype=np.float64, calls=1, seed=0, **kwargs):
    """The law; in mode "compiled" nothing may fall back: it raises, and warnings are errors.

    In each of the ``calls`` inputs and parameters are other ones.
    """
    layer = layer.astype(dtype)
    for n in range(calls):
        if n:
            for p in layer.parameters():
                p.data[...] = 0.05 - 0.9 * p.data
        expected = outcome(layer, "unroll", T, B, dtype, seed + n, **kwargs)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = outcome(layer, "compiled", T, B, dtype, seed + n, **kwargs)
        assert_same(found, expected, tolerance(np.dtype(dtype), T))
