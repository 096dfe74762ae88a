"""Scan ≡ unroll, as properties, and what a program may not remember.

`test_compiler.py` runs this file in a process of its own under ``NUMBA_DISABLE_JIT=1``: there the
emitted source runs as it is, thousands of cases a minute.
"""

import numpy as np
import pytest
from compiler_cells import (
    BUILT_IN,
    DrawnCell,
    assert_same,
    assert_scan_is_unroll,
    built_in_cells,
    drawn_cells,
    filled,
    in_mode,
    leaves,
    outcome,
)
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyseq as ts
from tinyseq import nn
from tinyseq.compiler import runtime
from tinyseq.compiler.scan import lookup
from tinyseq.errors import CompileError, GraphError
from tinyseq.kernels import threads

MOST = settings.get_profile(settings.get_current_profile_name()).max_examples


# -- scan ≡ unroll --------------------------------------------------------------------------------


@st.composite
def uses(draw):
    """How a layer is called, and what of it is used."""
    T, B = draw(st.integers(1, 12)), draw(st.sampled_from([1, 2, 3, 5]))
    lengths = st.one_of(st.none(), st.lists(st.integers(1, T), min_size=B, max_size=B))
    return {
        "T": T,
        "B": B,
        "dtype": draw(st.sampled_from([np.float64, np.float64, np.float32])),
        "seed": draw(st.integers(0, 99)),
        "given": draw(st.booleans()),
        "state_grad": draw(st.booleans()),
        "x_grad": draw(st.booleans()),
        "lengths": draw(lengths),
        "padding": draw(st.sampled_from([0.0, np.nan, np.inf])),
        "calls": draw(st.sampled_from([1, 2])),
        "used": draw(st.sampled_from(["both", "y", "last"])),
        "passes": draw(st.sampled_from([1, 1, 2])),
    }


def check(cell, use, reverse, frozen, rows, parts):
    """One case: some parameters frozen, in chunks of few rows, its rows shared out to threads."""
    for n, (_, p) in enumerate(sorted(cell.named_parameters())):
        p.requires_grad = not frozen >> n % 12 & 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "_ROWS", rows)
        patch.setattr(runtime, "_WORTH_SHARING", 0.0 if parts > 1 else np.inf)
        before = threads.get_num_threads()
        threads.set_num_threads(parts)
        try:
            assert_scan_is_unroll(nn.Recurrent(cell, reverse), **use)
        finally:
            threads.set_num_threads(before)


frozen = st.one_of(st.just(0), st.integers(0, 2**12 - 1))
rows = st.sampled_from([1, 4, 256])
parts = st.sampled_from([1, 1, 2, 3])


@settings(max_examples=8 * MOST)
@given(drawn_cells(), uses(), st.booleans(), frozen, rows, parts)
def test_drawn_cells(cell, use, reverse, frozen, rows, parts):
    check(cell, use, reverse, frozen, rows, parts)


@settings(max_examples=4 * MOST)
@given(built_in_cells(), uses(), st.booleans(), frozen, rows, parts)
def test_built_in_cells(cell, use, reverse, frozen, rows, parts):
    check(cell, use, reverse, frozen, rows, parts)


@settings(max_examples=MOST)
@given(built_in_cells(sizes=(1, 3, 7)), drawn_cells(sizes=(1, 3)), uses(), st.booleans())
def test_both_directions_and_several_layers(cell, other, use, turned):
    cell, other = (other, cell) if turned else (cell, other)
    between = nn.RNNCell(cell.hidden_size, other.input_size)
    both = nn.Bidirectional(between, between)
    assert_scan_is_unroll(nn.Stacked(cell, both, nn.RNNCell(2 * other.input_size, 2)), **use)
    layer = nn.Bidirectional(nn.Stacked(cell, between), nn.RNNCell(cell.input_size, 3))
    assert_scan_is_unroll(layer, **use)


class Deep(nn.Module):
    """A network ahead of the recurrence: products and what is done between them, in turn."""

    def __init__(self, depth, twice):
        self.input_size, self.hidden_size, self.twice = 2, 3, twice
        rng = np.random.default_rng(depth)
        for n in range(depth):
            setattr(self, f"w_{n}", nn.Parameter(rng.standard_normal((2, 2), np.float32)))
        self.w_x = nn.Parameter(rng.standard_normal((2, 3), np.float32))
        self.depth = depth

    def initial_state(self, batch_size, dtype):
        return (ts.tensor(np.ones((batch_size, 3)), dtype),)

    def forward(self, x, state):
        given = x
        for n in range(self.depth):
            x = ts.tanh(x @ getattr(self, f"w_{n}"))
            if self.twice:  # read again by a later one
                x = x * given
        return (ts.tanh(x @ self.w_x + state[0]),)


@settings(max_examples=MOST)
@given(st.integers(0, 5), st.booleans(), uses(), st.booleans(), rows, parts)
def test_networks_ahead_of_the_recurrence(depth, twice, use, reverse, rows, parts):
    check(Deep(depth, twice), use, reverse, 0, rows, parts)


VIEWS = {
    "slice": lambda a: a[:, 1:] if a.shape[1] > 1 else a,
    "every second": lambda a: a[:, ::2],
    "one column": lambda a: ts.broadcast_to(a[:, :1], a.shape),
    "their mean": lambda a: ts.broadcast_to(a.mean(axis=1, keepdims=True), a.shape),
}


class Viewed(nn.Module):
    """A product with a view of a view of x, of the state, of what was made of them, or of a
    parameter.
    """

    input_size = hidden_size = 4

    def __init__(self, of, views):
        rng = np.random.default_rng(0)
        self.of, self.views = of, views
        self.w_x, self.w = (nn.Parameter(rng.standard_normal((4, 4), np.float32)) for _ in range(2))
        self.row = nn.Parameter(rng.standard_normal(4, np.float32))

    def initial_state(self, batch_size, dtype):
        return (ts.tensor(np.ones((batch_size, 4)), dtype),)

    def forward(self, x, state):
        sources = {"x": x, "h": state[0], "x w": x @ self.w_x, "made": ts.tanh(x + state[0])}
        a = sources.get(self.of, ts.broadcast_to(self.row, x.shape))
        for name in self.views:
            a = VIEWS[name](a)
        return (ts.tanh(a @ self.w[: a.shape[1]] + x + state[0]),)


@pytest.mark.parametrize("of", ["x", "h", "x w", "made", "row"])
@settings(max_examples=MOST)
@given(
    st.lists(st.sampled_from(sorted(VIEWS)), max_size=3),
    uses(),
    st.booleans(),
    rows,
    parts,
)
def test_products_with_views(of, views, use, reverse, rows, parts):
    check(Viewed(of, views), use, reverse, 0, rows, parts)


class Delayed(nn.Module):
    """What a step is given it hands on, and computes with what the step before was given."""

    input_size = hidden_size = 3

    def __init__(self, twice):
        rng = np.random.default_rng(0)
        self.w, self.u = (nn.Parameter(rng.standard_normal((3, 3), np.float32)) for _ in range(2))
        self.twice = twice

    def initial_state(self, batch_size, dtype):
        return (ts.tensor(np.ones((batch_size, 3)), dtype),) * (3 if self.twice else 2)

    def forward(self, x, state):
        h, last = state[0], state[-1]
        return (ts.tanh(last @ self.w + h @ self.u), x, *state[1:-1])


@settings(max_examples=MOST)
@given(st.booleans(), uses(), st.booleans(), rows, parts)
def test_what_is_handed_on_as_it_is(twice, use, reverse, rows, parts):
    check(Delayed(twice), use, reverse, 0, rows, parts)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_gradients_of_gradients(name):
    lengths = [2, 1] if name in ("LSTM", "GRU before") else None
    cell = BUILT_IN[name](2, 2).double()
    layer = nn.Recurrent(cell, mode="compiled")
    rng = np.random.default_rng(3)

    def f(x, *rest):
        n = len(cell.initial_state(2))
        y, last = layer(x, rest[:n], lengths)
        return [y, *last]

    state = [ts.tensor(s.numpy() * 0 + rng.standard_normal(s.shape)) for s in cell.initial_state(2)]
    x = ts.tensor(rng.standard_normal((2, 2, 2)), requires_grad=True)
    for s in state:
        s.requires_grad = True
    ts.gradcheck(f, [x, *state, *cell.parameters()], order=2)


@settings(max_examples=2 * MOST)
@given(st.one_of(drawn_cells(sizes=(1, 3)), built_in_cells(sizes=(1, 3))), uses(), st.booleans())
def test_products_with_the_hessian(cell, use, reverse):
    """Of everything that comes out by everything that goes in, in either direction."""
    T, B, n = use["T"], use["B"], len(leaves(cell.initial_state(1)))
    layer, found = nn.Recurrent(cell.double(), reverse), {}
    for mode in ("unroll", "compiled"):
        rng = np.random.default_rng(use["seed"])
        x = ts.tensor(rng.standard_normal((T, B, cell.input_size)), requires_grad=True)
        state = filled(cell.initial_state(B, np.float64), rng, np.float64, True)
        ts.seed(use["seed"])
        with in_mode(layer, mode):
            y, last = layer(x, state, use["lengths"])
        parameters = [p for p in cell.parameters() if p.requires_grad]
        inputs = [x, *leaves(state), *parameters]
        ends = {"y": [y], "last": leaves(last), "both": [y, *leaves(last)]}[use["used"]]
        loss = sum((t * t * rng.standard_normal(t.shape)).sum() for t in ends)
        if not loss.requires_grad:
            return
        first = ts.grad(loss, inputs, create_graph=True)
        v = [rng.standard_normal(t.shape) for t in inputs]
        product = sum((g * a).sum() for g, a in zip(first, v, strict=True) if g is not None)
        second = [None] * len(inputs)
        if isinstance(product, ts.Tensor) and product.requires_grad:
            second = ts.grad(product, inputs)
        names = ["x", *(f"state {i}" for i in range(n)), *map(str, range(len(parameters)))]
        found[mode] = {
            f"{order} {name}": None if g is None else g.numpy()
            for order, gs in ((1, first), (2, second))
            for name, g in zip(names, gs, strict=True)
        }
    assert_same(found["compiled"], found["unroll"], 1e-9)


@settings(max_examples=MOST)
@given(built_in_cells(sizes=(3,)), uses(), st.booleans(), st.sampled_from([np.nan, np.inf, 1e30]))
def test_padding_is_never_read(cell, use, reverse, garbage):
    """Neither that of x nor that of the gradient of y; that of x has none, whatever is there."""
    T, B = use["T"], use["B"]
    rng = np.random.default_rng(use["seed"])
    lengths = rng.integers(1, T + 1, B)
    padding = np.arange(T)[:, None] >= lengths
    layer, found = nn.Recurrent(cell.double(), reverse), {}
    numbers = (
        rng.standard_normal((T, B, cell.input_size)),
        rng.standard_normal((T, B, cell.hidden_size)),
    )
    for mode in ("unroll", "compiled"):
        for hidden in (0.0, garbage):
            x, g = (a.copy() for a in numbers)
            x[padding] = g[padding] = hidden
            x = ts.tensor(x, requires_grad=True)
            ts.seed(use["seed"])
            with in_mode(layer, mode):
                y, last = layer(x, None, lengths)
            assert not y.numpy()[padding].any()
            gradients = ts.grad(y, [x, *cell.parameters()], g)
            assert not gradients[0].numpy()[padding].any()
            made = [y, *leaves(last), *gradients]
            found[mode, hidden] = {str(i): t.numpy() for i, t in enumerate(made)}
    for case, made in found.items():
        assert_same(made, found["unroll", 0.0], 1e-10)
        if case[1]:
            for name, a in made.items():
                np.testing.assert_array_equal(a, found[case[0], 0.0][name])


def test_a_gradient_penalty_trains_as_unrolled():
    cell = DrawnCell(2, 3, [("rows", "softmax", 1), ("product", "w.T", 5)], [("gated", 0, 0)])
    cell = cell.double()
    found = {}
    for mode in ("unroll", "compiled"):
        cell.zero_grad()
        x = ts.tensor(np.random.default_rng(0).standard_normal((4, 3, 2)), requires_grad=True)
        y, _ = nn.Recurrent(cell, mode=mode)(x)
        (g,) = ts.grad((y * y).sum(), [x], create_graph=True)
        (g * g).sum().backward()
        found[mode] = {n: None if p.grad is None else p.grad.numpy() for n, p in
                       cell.named_parameters()} | {"x": x.grad.numpy()}  # fmt: skip
    assert_same(found["compiled"], found["unroll"], 1e-10)


# -- memory ---------------------------------------------------------------------------------------


def test_nothing_is_left_for_the_garbage_collector(leaves_no_garbage):
    layer = nn.LSTM(3, 4, 2, bidirectional=True, mode="compiled")
    x = ts.tensor(np.ones((5, 2, 3), np.float32), requires_grad=True)

    def work():
        y, _ = layer(x, lengths=[5, 2])
        (y * y).sum().backward()

    leaves_no_garbage(work)


def test_calls_do_not_share_what_they_keep():
    """Two calls, results held, then both backward passes."""
    layer = nn.LSTM(3, 4, 2)
    rng = np.random.default_rng(0)
    xs = [ts.tensor(rng.standard_normal((5, 2, 3)), dtype=np.float32, requires_grad=True)
          for _ in range(3)]  # fmt: skip
    found = []
    for mode in ("unroll", "compiled"):
        for inner in layer.layers:
            inner.mode = mode
        layer.zero_grad()
        ys = [layer(x)[0] for x in xs]
        held = [y.numpy() for y in ys]
        ts.grad(ys[1].sum(), [xs[1]], retain_graph=True)
        sum((y * y).sum() for y in ys).backward()
        for y, was in zip(ys, held, strict=True):
            np.testing.assert_array_equal(y.numpy(), was)
        found.append([x.grad.numpy() for x in xs] + [p.grad.numpy() for p in layer.parameters()])
        for x in xs:
            x.grad = None
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_changes_before_the_backward_pass_is_noticed():
    cell = nn.GRUCell(2, 3)
    x = ts.tensor(np.ones((4, 2, 2), np.float32), requires_grad=True)
    for change in ("w_h", "y", "x"):
        y, _ = nn.Recurrent(cell, mode="compiled")(x)
        {"w_h": cell.w_h, "y": y, "x": x}[change].data[...] *= 2.0
        with pytest.raises(GraphError, match="changed"):
            y.sum().backward()


def test_a_second_backward_pass_needs_the_graph():
    y, _ = nn.Recurrent(nn.RNNCell(2, 3), mode="compiled")(ts.tensor(np.ones((4, 2, 2), "f4")))
    loss = y.sum()
    loss.backward()
    with pytest.raises(GraphError, match="freed"):
        loss.backward()


def test_without_gradients():
    layer = nn.Recurrent(nn.GRUCell(2, 3), mode="compiled")
    x = ts.tensor(np.ones((4, 2, 2), np.float32))
    with ts.no_grad():
        y, (h,) = layer(x)
    assert not y.requires_grad
    np.testing.assert_array_equal(y.numpy()[-1], h.numpy())
    np.testing.assert_allclose(layer(x)[0].numpy(), y.numpy(), rtol=1e-6)


# -- what a program may not remember ------------------------------------------------------------

ALPHA = 0.5
TABLE = np.array([1.0, 2.0])


def helper(h):
    return h * ALPHA


class Decay(nn.Module):
    """Everything that a step can read."""

    input_size = hidden_size = 2

    def __init__(self, factor):
        self.rate = 0.5
        self.rates = [1.0, 2.0]
        self.array = np.ones(2, np.float32)
        self.w = nn.Parameter(np.eye(2, dtype=np.float32))
        self.constant = ts.tensor(np.ones(2, np.float32))
        self.factor = factor

    def forward(self, x, state):
        h = helper(x @ self.w * self.rate + state[0] * self.rates[1] * self.array)
        h = h * float(TABLE[0]) * self.constant * self.factor()
        return (h * 2.0 if self.training else h,)

    def initial_state(self, batch_size, dtype=np.float32):
        return (ts.tensor(np.zeros((batch_size, 2), dtype)),)


def _changes(cell, inner):
    def set_global():
        globals()["ALPHA"] = 0.25

    def set_helper():
        globals()["helper"] = lambda h: h * 3.0

    def add(target, value):
        target[...] += value

    other = Decay(lambda: 1.0)
    return {
        "attribute": lambda: setattr(cell, "rate", 2.0),
        "list": lambda: cell.rates.__setitem__(1, -1.0),
        "array in place": lambda: add(cell.array, 1.0),
        "training": lambda: cell.eval(),
        "parameter replaced": lambda: setattr(cell, "w", nn.Parameter(np.full((2, 2), 0.3, "f4"))),
        "parameter in place": lambda: add(cell.w.data, 0.1),
        "constant in place": lambda: add(cell.constant.data, 0.1),
        "constant trained": lambda: setattr(cell, "constant", nn.Parameter(np.ones(2, "f4"))),
        "loaded": lambda: cell.load_state_dict({n: v + 1 for n, v in other.state_dict().items()}),
        "global": set_global,
        "global in place": lambda: add(TABLE, 1.0),
        "helper": set_helper,
        "closure": lambda: inner.update(value=3.0),
        "method": lambda: setattr(cell, "factor", lambda: 7.0),
    }


@pytest.mark.parametrize("change", sorted(_changes(Decay(None), {})))
def test_the_next_call_sees_what_has_changed(change, monkeypatch):
    for name in ("ALPHA", "helper"):
        monkeypatch.setitem(globals(), name, globals()[name])
    monkeypatch.setitem(globals(), "TABLE", TABLE.copy())
    inner = {"value": 1.0}
    cell = Decay(lambda: inner["value"])
    layer = nn.Recurrent(cell)
    before = outcome(layer, "compiled", 3, 2, np.float32)
    _changes(cell, inner)[change]()
    expected = outcome(layer, "unroll", 3, 2, np.float32)
    assert not np.allclose(expected["y"], before["y"]) or change == "constant trained"
    assert_same(outcome(layer, "compiled", 3, 2, np.float32), expected, 1e-5)


@pytest.mark.parametrize("change", sorted(_changes(Decay(None), {})))
def test_the_gradient_of_a_call_is_that_of_what_it_saw(change, monkeypatch):
    """Whatever changes before it is asked for; what unrolled is refused is refused."""
    found = []
    for mode in ("unroll", "compiled"):
        with monkeypatch.context() as patch:
            for name in ("ALPHA", "helper"):
                patch.setitem(globals(), name, globals()[name])
            patch.setitem(globals(), "TABLE", TABLE.copy())
            inner = {"value": 1.0}
            cell = Decay(lambda inner=inner: inner["value"])
            w = cell.w
            x = ts.tensor(np.ones((3, 2, 2), np.float32), requires_grad=True)
            y, _ = nn.Recurrent(cell, mode=mode)(x)
            _changes(cell, inner)[change]()
            try:
                y.sum().backward()
                found.append({"x": x.grad.numpy(), "w": w.grad.numpy()})
            except GraphError as error:
                found.append("in place" in str(error))
    if isinstance(found[0], dict):
        assert_same(found[1], found[0], 1e-5)
    else:
        assert found == [True, True]


def test_both_precisions_in_turn():
    layer = nn.Recurrent(nn.GRUCell(2, 3))
    for dtype in (np.float32, np.float64, np.float32):
        assert_scan_is_unroll(layer, 3, 2, dtype=dtype)


def test_the_same_cell_is_traced_once():
    cell = nn.LSTMCell(2, 3)
    x = ts.tensor(np.zeros((1, 1, 2), np.float32))
    known = lookup(cell, x, cell.initial_state(1), None, None)
    cell.w_h.data[...] += 1.0
    wider = ts.tensor(np.zeros((7, 5, 2), np.float32))
    assert lookup(cell, wider, cell.initial_state(5), None, None) is known


def test_attributes_that_change_all_the_time_are_named():
    cell = Decay(lambda: 1.0)
    layer = nn.Recurrent(cell, mode="compiled")
    x = ts.tensor(np.ones((3, 2, 2), np.float32))

    def anneal():
        for n in range(20):
            cell.rate = 1.0 + n
            layer(x)

    with pytest.raises(CompileError, match=r"(?s)Decay cannot.*rate was another.*ts\.tensor"):
        anneal()
    cell.rate = 1.0
    layer(x)  # those that are known stay so


class Counting(Decay):
    def forward(self, x, state):
        self.calls = getattr(self, "calls", 0) + 1
        self.seen.append(x)
        self.last = x
        return super().forward(x, state)


def test_a_step_that_changes_its_cell_is_left_as_it_was():
    cell = Counting(lambda: 1.0)
    cell.seen = []
    x = ts.tensor(np.ones((3, 2, 2), np.float32))
    with pytest.raises(CompileError, match=r"a step changes (calls|seen|last)"):
        lookup(cell, x, cell.initial_state(2), None, None)
    assert not hasattr(cell, "calls")
    assert not hasattr(cell, "last")
    assert cell.seen == []


def test_the_random_stream_is_left_alone():
    ts.seed(3)
    before = ts.random.get_state()
    assert_scan_is_unroll(nn.Recurrent(nn.LSTMCell(2, 3, rng=np.random.default_rng(0))), 3, 2)
    ts.seed(3)
    assert ts.random.get_state() == before
